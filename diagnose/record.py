"""`diagnose record`, `diagnose cassette …`, `diagnose probe run`: machines as files."""

from __future__ import annotations

import difflib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .cassette import SUFFIX, Cassette, not_captured, pack, read, reopen
from .catalogue import catalogue, near
from .collect import Collector, collectors
from .entries import ProbeSpec
from .errors import EXIT_ERROR, EXIT_OK, InputError, UsageError
from .host import GPU_NODES, Host
from .live import Live, allowed

_SCRIPT_HEAD = """#!/bin/sh
# Reads the state of this machine for `diagnose`; changes nothing. Look through the output before you pass it on:
#   sh this-script > machine.txt 2>&1
#   diagnose "the symptom" --evidence machine.txt
LC_ALL=C; export LC_ALL
"""


def _chosen(playbook: str, level: str) -> list[Collector]:
    """Collectors of a playbook (all without one) up to a footprint, in order of name."""
    may = allowed(level)
    names: Iterable[str] = sorted(collectors())
    if playbook:
        cat = catalogue()
        if playbook not in cat.playbooks:
            raise UsageError(f"no playbook {playbook!r}", near(playbook, cat.playbooks))
        host = Host()
        live = Live(host, Cassette(Path("unused")))
        wanted = {c.probe for c in live.first([playbook], "")} | {s.probe for s in cat.playbooks[playbook].steps}
        names = [n for n in names if n in wanted]
    return [collectors()[n] for n in names if collectors()[n].spec.footprint in may]


def record(output: str, playbook: str, symptom: str, allow: str, params: dict[str, str]) -> int:
    """Record this machine's state into a cassette: a folder, or a zip when the name ends in .zip.

    Raises:
        UsageError: the output exists, or there is no such playbook.
        InputError: the output cannot be written.
    """
    target = Path(output)
    if target.exists():
        raise UsageError(f"{output} exists", "name a new file or folder")
    with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
        folder = Path(spare) / _folder_name(target)
        cassette = Cassette.create(folder, symptom)
        live = Live(Host(params), cassette, allowed(allow or "read"), budget=float("inf"))
        live.progress = lambda text: print(text, file=sys.stderr) if sys.stderr.isatty() else None
        chosen = _chosen(playbook, allow or "read")
        quiet = [c for c in chosen if c.spec.footprint == "read"]
        try:
            live.run(quiet)
            for item in (c for c in chosen if c not in quiet):  # what loads the machine runs alone
                live.run([item])
        except KeyboardInterrupt:
            print("diagnose: interrupted; keeping what was captured", file=sys.stderr)
        _place(folder, target)
    size = sum(len(c.data) for c, _ in cassette.captures.values())
    print(f"{output}: {len(cassette.captures)} captures, {size} bytes; {len(cassette.missing)} not captured")
    return EXIT_OK


def print_script(playbook: str) -> int:
    """A POSIX shell script of the read probes' commands, for a machine where nothing can be installed."""
    sys.stdout.write(_SCRIPT_HEAD + script_text(playbook))
    return EXIT_OK


def script_text(playbook: str = "", names: Iterable[str] = ()) -> str:
    """The commands of a playbook's read probes, or of the probes named.

    Raises:
        UsageError: there is no such playbook.
    """
    chosen = [collectors()[n] for n in names if n in collectors()] if names else _chosen(playbook, "read")
    return "".join(f"{line}\n" for item in chosen for line in _script(item.spec))


def _script(spec: ProbeSpec) -> Iterable[str]:
    for part in spec.run:
        if part.argv:
            tool = shlex.quote(part.argv[0])
            yield f'echo; echo "### {spec.name}: {shlex.join(part.argv)}"'
            yield f"command -v {tool} >/dev/null 2>&1 && {shlex.join(part.argv)} 2>&1"
        else:
            yield f'echo; echo "### {spec.name}"'
            yield f"grep -H . {' '.join(part.files)} 2>/dev/null"
    if spec.name in _SCRIPTED:
        yield f'echo; echo "### {spec.name}"'
        yield _SCRIPTED[spec.name]


# Probes that are Python here, as a line of shell that prints the same.
_SCRIPTED = {
    "env.dump": "env | grep -E '^(NCCL|UCX|CUDA|NVIDIA|OMP|VLLM|SGLANG|TORCH|PYTORCH|FI|NIXL|OMPI)_' "
    "| grep -viE '(token|secret|password|key)='",
    "dmesg.xid": "dmesg -T 2>/dev/null | grep -iE 'xid|nvrm|aer|fallen|iommu|nvlink|mlx5|out of memory' | tail -200",
    "devices.visible": 'echo "# device nodes of GPUs"\n'
    f"for p in {' '.join(map(shlex.quote, GPU_NODES))}; do\n"
    '  f=$(echo $(ls -d $p 2>/dev/null)); echo "$p ${f:-none}"\ndone\n'
    'echo "nvidia-smi $(command -v nvidia-smi || echo none)"',
    "serving.args": "ps -eo args | grep -E 'vllm|sglang|trtllm|text-generation|llama-server|dynamo' | grep -v grep",
    "python.env": "python3 -m pip list 2>/dev/null | grep -iE 'torch|nvidia|vllm|sglang|triton|nixl|ucx'",
}


def show(path: str) -> int:
    """List a cassette: what was captured, what was not and why."""
    listed = read(Path(path))
    print(f"{Path(path).name}: {listed.get('symptom') or 'no symptom'}; {', '.join(listed.get('taint') or [])}")
    for item in listed.get("captures") or []:
        line = f"  {item['probe']} {item.get('part', '')}".rstrip()
        ran = shlex.join(item.get("argv") or []) or "files"
        cut = f"; {item['cut']}" if item.get("cut") else ""
        print(f"{line}: {item['file']} ({ran}, exit {item.get('exit')}, {item.get('seconds')} s{cut})")
    for item in listed.get("not_captured") or []:
        print(f"  {item['probe']} {item.get('part', '')}".rstrip() + f": not captured: {item['reason']}")
    return EXIT_OK


def _texts(path: str) -> dict[str, str]:
    from .inputs import open_inputs

    documents, _ = open_inputs([path], None)
    names = {c["sha256"]: f"{c['probe']} {c.get('part', '')}".strip() for c in read(Path(path)).get("captures") or []}
    return {names.get(d.sha256, d.name): d.data.decode("utf-8", "replace") for d in documents if d.size < 4 << 20}


def diff(first: str, second: str) -> int:
    """What differs between two cassettes, capture by capture, as a unified diff; exit 1 when something does."""
    a, b = _texts(first), _texts(second)
    differs = False
    for name in sorted(a | b):
        lines = list(
            difflib.unified_diff(
                a.get(name, "").splitlines(), b.get(name, "").splitlines(), f"{first}: {name}", f"{second}: {name}",
                lineterm="", n=1,
            )
        )  # fmt: skip
        differs |= bool(lines)
        for line in lines:
            print(line)
    return 1 if differs else EXIT_OK


def redact(path: str, words: list[str], output: str) -> int:
    """A copy of a cassette, folder or zip, with further words replaced and everything masked again by today's rules.

    Raises:
        UsageError: the output exists.
        InputError: the cassette cannot be read, or the output cannot be written.
    """
    target = Path(output)
    if target.exists():
        raise UsageError(f"{output} exists", "name a new file or folder")
    old = reopen(Path(path))

    def clean(text: str) -> str:
        for word in filter(None, words):
            text = text.replace(word, "[redacted]")
        return text

    with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
        new = Cassette.create(Path(spare) / _folder_name(target), clean(old.symptom), old.taint)
        new.host = old.host
        for capture, _ in sorted(old.captures.values(), key=lambda pair: pair[1]):
            data = clean(capture.data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            env, params = ({k: clean(v) for k, v in said.items()} for said in (capture.env, capture.params))
            argv = tuple(map(clean, capture.argv))
            new.add([replace(capture, data=data, part=clean(capture.part), argv=argv, env=env, params=params)])
        new.add(replace(m, part=clean(m.part), reason=clean(m.reason)) for m in not_captured(Path(path)))
        _place(new.path, target)
    print(f"{output}: {len(new.captures)} captures")
    return EXIT_OK


def _folder_name(target: Path) -> str:
    name = target.name.removesuffix(".zip")
    return name if name.endswith(SUFFIX) else name + SUFFIX


def _place(folder: Path, target: Path) -> None:
    """A finished cassette to where it was asked for: a zip when the name ends in .zip. Raises InputError."""
    try:
        if target.suffix == ".zip":
            pack(folder, target)
        else:
            shutil.copytree(folder, target)
    except OSError as err:
        raise InputError(f"{target}: {err.strerror or err}", "name another place with -o") from err


def probe_run(name: str, allow: str, params: dict[str, str], output: str) -> int:
    """Run one probe and print what it captured (masked), or keep it with `output`.

    Raises:
        UsageError: there is no such probe.
        InputError: the output cannot be written.
    """
    known = collectors()
    if name not in known:
        cat = catalogue()
        if name in cat.probes:
            spec = cat.probes[name]
            print(f"diagnose: {name} needs the job itself; run it by hand:\n  $ {spec.command}", file=sys.stderr)
            return EXIT_ERROR
        raise UsageError(f"no probe {name!r}", near(name, cat.probes))
    item, host = known[name], Host(params)
    footprint = item.spec.footprint
    if footprint not in allowed(allow or "read"):
        print(
            f"diagnose: {name} needs --allow {footprint}; it would run for about {item.cost(host):g} s:",
            file=sys.stderr,
        )
        for line in item.shown(host):
            print(f"  $ {line}", file=sys.stderr)
        return EXIT_ERROR
    with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
        folder = Path(output) if output else Path(spare) / f"run{SUFFIX}"
        cassette = Cassette.create(folder, "")
        Live(host, cassette, allowed(allow or "read")).run([item])
        for capture, _ in sorted(cassette.captures.values(), key=lambda pair: pair[1]):
            if len(cassette.captures) > 1:
                print(f"### {capture.probe} {capture.part}".rstrip())
            sys.stdout.write(capture.data.decode("utf-8", "replace"))
        for missing in cassette.missing.values():
            print(f"diagnose: {missing.probe} {missing.part}".rstrip() + f": {missing.reason}", file=sys.stderr)
    return EXIT_OK if cassette.captures else EXIT_ERROR
