"""`diagnose audit --fleet …`: many nodes side by side, reached now or recorded before.

Nodes that were expected and are not there, that failed, hung or could not be read, are named with the reason:
results of the rest count.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from . import hostlist
from .audit import PROBES, Options, audit, expected, opened
from .emit import FORMATS, SEVERITY, escaped
from .errors import (
    EXIT_ERROR,
    EXIT_FINDING,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    InputError,
    UsageError,
)  # fmt: skip
from .fleet_collect import LIMIT, Collected, audited, collect, is_folder, launcher, node_of, tell
from .fleet_models import Failed, Fleet, Node
from .fleet_rank import compare
from .fold import columns, folded

_SUFFIXES = (".cassette", ".zip", ".json")
Read = Node | Failed | None


def entries(folder: Path) -> list[Path]:
    """Cassettes and audits of a folder, in order of name. Raises InputError."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder", "give a folder of cassettes (diagnose record) or audits (--save-baseline)"
        )
    found = [p for p in sorted(folder.iterdir()) if p.suffix in _SUFFIXES]
    if not found:
        raise InputError(f"{folder} holds no cassette and no audit", "diagnose record -o NODE.cassette on each node")
    return found


def name_of(path: Path) -> str:
    """A node's name by its file; what no host name holds becomes an underscore."""
    return re.sub(r"[^\w.-]", "_", path.name.removesuffix(".zip").removesuffix(".json").removesuffix(".cassette"))


def node(path: Path, options: Options) -> Read:
    """One entry as a node; what goes wrong is said, never raised. None for JSON that is something else."""
    name = name_of(path)
    try:
        if path.suffix == ".json":
            made = json.loads(path.read_bytes())
            if not isinstance(made, dict) or made.get("schema") != "diagnose.audit/v1":
                return None
        else:
            made = audit(opened([], str(path)), options).model_dump(mode="json")
        return node_of(name, made)
    except InputError as err:
        return Failed(name=name, reason=err.message)
    except (OSError, ValueError, KeyError, TypeError) as err:
        return Failed(name=name, reason=f"cannot be read: {err}"[:200])


def _one(work: tuple[Path, Options]) -> Read:
    return node(*work)


def workers(cores: int) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to this one."""
    return ProcessPoolExecutor(cores, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


def read_all(paths: list[Path], options: Options, alone: bool = False) -> list[Read]:
    """All entries; cassettes side by side on several cores, as each costs some tenths of a second, unless `alone`."""
    heavy = [p for p in paths if p.suffix != ".json"]
    cores = min(os.cpu_count() or 1, len(heavy) // 2, 16)
    if cores < 2 or alone:
        return [node(p, options) for p in paths]
    with workers(cores) as pool:
        done = dict(zip(heavy, pool.map(_one, [(p, options) for p in heavy], chunksize=4), strict=True))
    return [done[p] if p in done else node(p, options) for p in paths]


# --- the command


def words(options: Options) -> list[str]:
    """The audit that a node runs itself, as words after `diagnose`."""
    said = ["audit", "--record", "{cassette}", "--format", "json", "--fail-on", "never", "--lang", "both"]
    for flag, values in (("--only", options.only), ("--skip", options.skip)):
        said += [word for value in values for word in (flag, value)]
    for flag, value in (("--profile", options.profile), ("--expect", options.expect)):
        said += [flag, value] if value else []
    return said


def reached(target: str, options: Options, limit: float, keep: str) -> Collected:
    """Collect an audit and a cassette from every node."""
    from .progress import Progress
    from .record import script_text

    how = launcher(target)
    with Progress() as progress:
        return collect(
            how, fleet_folder(keep), command=words(options), plain=script_text(names=PROBES), limit=limit,
            say=progress.say,
        )  # fmt: skip


def fleet_folder(keep: str) -> Path:
    """The folder that cassettes go to: the one named, else a new one among the runs.

    Raises:
        InputError: it cannot be made.
        UsageError: it holds recordings already, which would count as nodes.
    """
    if not keep:
        from .live import run_folder

        made = run_folder("fleet")
        folder = made.with_suffix("")  # it holds cassettes, and is none
        folder.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            made.rmdir()
        return folder
    try:
        Path(keep).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"{keep}: {err.strerror}", "name another folder") from err
    if any(p.suffix in _SUFFIXES for p in Path(keep).iterdir()):
        raise UsageError(f"{keep} holds recordings already", "name a new folder")
    return Path(keep)


def results_of(got: Collected, options: Options) -> list[Read]:
    """What was collected as nodes: by their own audits where those were made by this version, else by ours."""
    out: list[Read] = [*got.failed]
    todo: list[Path] = []
    for name, path in got.cassettes.items():
        try:
            known = audited(name, got.audits.get(name, {}))
        except (KeyError, TypeError, ValueError, AttributeError):
            known = None
        if known is None:
            todo.append(path)
        else:
            out.append(known)
    return out + read_all(todo, options)


def run(
    target: str, options: Options, *, fail_on: str, format_: str, save: str = "", limit: float = LIMIT, keep: str = ""
) -> int:
    """Compare the nodes of a fleet and print; returns the exit status.

    Raises:
        UsageError: an option has no such value, or the target names no node.
        InputError: a list of nodes cannot be read, or the folder for cassettes cannot be made.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format takes {', '.join(FORMATS)}, not {format_!r}")
    if fail_on not in SEVERITY:
        raise UsageError(f"--fail-on takes {', '.join(SEVERITY)}, not {fail_on!r}")
    wanted: list[str] = []
    if hit := re.search(r"(?:^|,)nodes=((?:[^,\[]|\[[^\]]*\])*)", options.expect):
        wanted = hostlist.expand(hit[1])
        rest = (options.expect[: hit.start()] + options.expect[hit.end() :]).strip(",")
        options = replace(options, expect=rest)
    options = replace(options, baseline="")
    expected(options.expect)
    got: Collected | None = None
    if is_folder(target):
        found: Iterable[Read] = read_all(entries(Path(target)), options)
    else:
        got = reached(target, options, limit, keep)
        tell(got)
        found = results_of(got, options)
    made = merged(found, wanted)
    if got is not None and got.cassettes:
        made.cassettes = str(got.folder)
    show(made, options.langs[0], format_, save)
    if got is not None and not got.complete:
        return EXIT_INTERRUPTED
    return status(made, fail_on)


def merged(found: Iterable[Read], wanted: list[str]) -> Fleet:
    """Results to a fleet."""
    kept = list(found)
    return compare(
        (r for r in kept if isinstance(r, Node)), [r for r in kept if isinstance(r, Failed)], wanted
    )  # fmt: skip


def show(made: Fleet, lang: str, format_: str, save: str) -> None:
    """Print, and keep where asked."""
    text = made.model_dump_json(by_alias=True, indent=1) + "\n"
    if save:
        Path(save).write_text(text, "utf-8")
    if format_ == "json":
        sys.stdout.write(escaped(text))
    else:
        from .fleet_screen import page

        width = 0 if format_ == "md" else columns()
        for line in page(made, lang, format_ == "md").splitlines():
            sys.stdout.writelines(f"{part}\n" for part in folded(line, width))
    sys.stdout.flush()


def status(made: Fleet, fail_on: str) -> int:
    """Exit status: nothing read, a finding or a missing node, some nodes without a result, or done."""
    if not made.nodes:
        return EXIT_ERROR
    if made.missing or any(SEVERITY[c.severity] >= SEVERITY[fail_on] for c in made.checks):
        return EXIT_FINDING
    return EXIT_INCONCLUSIVE if made.failed else EXIT_OK
