"""Collect a fleet: from a word like ``hosts:node[01-64]`` to a folder with a cassette for each node that answered."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import __version__, hostlist
from .catalogue import catalogue
from .errors import InputError, UsageError
from .fleet_launch import Launcher, Ssh, slurm_nodes
from .fleet_models import Failed, Node
from .fleet_payload import answer, cassette_path, script, store
from .models import SpanRef

LIMIT = 120.0  # seconds for one node
KINDS = "ray, ray://HOST:PORT, slurm, hosts:node[001-064], hosts:FILE, or a folder of cassettes"


@dataclass
class Collected:
    """What arrived.

    Attributes:
        cassettes: by node. audits: what a node's own `diagnose audit` printed. complete: False after Ctrl-C.
    """

    folder: Path
    nodes: list[str]
    cassettes: dict[str, Path] = field(default_factory=dict)
    audits: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)
    complete: bool = True


def is_folder(target: str) -> bool:
    """Is the fleet recorded already: a folder, whatever it is called?"""
    return Path(target).is_dir() or not re.match(r"(?:ray|slurm|hosts)(?::|$)", target)


def launcher(target: str) -> Launcher:
    """The launcher that a word asks for. Raises UsageError, ToolMissing, InputError."""
    kind, _, rest = target.partition(":")
    if kind == "hosts":
        return Ssh(hosts(rest))
    if kind == "slurm":
        return slurm_nodes(rest)
    from .fleet_ray import Ray

    if rest.startswith("//"):
        return Ray.connect(target)
    return Ray.connect(rest or "auto")


def hosts(text: str) -> list[str]:
    """Names of a list, or of a file with a list on each line. Raises UsageError, InputError."""
    place = Path(text)
    if text and place.is_file():
        try:
            lines = place.read_text("utf-8").splitlines()
        except (OSError, ValueError) as err:
            raise InputError(f"{text} cannot be read: {err}", "one host, or node[01-64], on each line") from err
        text = ",".join(words[0] for line in lines if (words := line.partition("#")[0].split()))
    elif "/" in text:
        raise InputError(f"no file {text}", f"--fleet takes {KINDS}")
    return hostlist.expand(text)


def collect(
    how: Launcher,
    folder: Path,
    *,
    command: list[str],
    plain: str,
    limit: float = LIMIT,
    symptom: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> Collected:
    """Run the script on every node and keep what comes, as it comes; Ctrl-C ends it and keeps what arrived.

    Raises:
        UsageError: the limit is not above 0.
    """
    if limit <= 0:
        raise UsageError("--node-timeout takes seconds", "--node-timeout 120")
    got = Collected(folder, how.nodes)
    body = script(command, plain, limit)
    running = how.run(body, limit)
    try:
        say(f"0 of {len(how.nodes)} nodes")
        for one in running:
            if one.output is None:
                got.failed.append(Failed(name=one.node, reason=one.reason))
            else:
                _keep(got, one.node, one.output, symptom)
            say(f"{len(got.cassettes)} of {len(how.nodes)} nodes, {len(got.failed)} failed")
    except KeyboardInterrupt:
        got.complete = False
    finally:
        close = getattr(running, "close", None)
        if close is not None:
            close()
    for node in got.nodes:  # one that came in the very moment of the Ctrl-C
        path = cassette_path(folder, node)
        if node not in got.cassettes and path.exists():
            got.cassettes[node] = path
    told = {f.name for f in got.failed} | set(got.cassettes)
    got.failed += [Failed(name=n, reason="interrupted before it answered") for n in got.nodes if n not in told]
    got.failed.sort(key=lambda f: f.name)
    return got


def _keep(got: Collected, node: str, output: bytes, symptom: str) -> None:
    try:
        path, said = store(node, answer(output), got.folder, symptom)
    except InputError as err:
        got.failed.append(Failed(name=node, reason=err.message))
        return
    got.cassettes[node] = path
    if said is not None:
        got.audits[node] = said


def audited(name: str, made: dict[str, Any]) -> Node | None:
    """A node by its own audit, where it was made by this very version: two versions judge by two yardsticks."""
    tool = made.get("tool") or {}
    if made.get("schema") != "diagnose.audit/v1" or tool != {"version": __version__, "catalogue": catalogue().version}:
        return None
    return node_of(name, made)


def node_of(name: str, made: dict[str, Any]) -> Node:
    """A node from an audit's JSON. Raises KeyError, TypeError, ValueError where it is none."""
    return Node(
        name,
        {str(f["check"]): f["severity"] for f in made["findings"]},
        {(str(r["signal"]), str(r["subject"])): (r["value"], r.get("unit")) for r in made["readings"]},
        _where(name, made),
    )


def _where(name: str, made: dict[str, Any]) -> dict[str, SpanRef]:
    """The first line that each finding quotes, its capture named after the node."""
    spans = {e["id"]: e["spans"][0] for e in made.get("evidence", ()) if e.get("spans")}
    out = {}
    for finding in made["findings"]:
        if span := next((spans[i] for i in finding.get("evidence", ()) if i in spans), None):
            said = {"capture": f"{name}/{span['capture']}", "quote": str(span["quote"])[:400]}
            out[str(finding["check"])] = SpanRef.model_validate(span | said)
    return out


def tell(got: Collected) -> None:
    """Say how many answered and where their cassettes lie, before anything is made of them."""
    if not got.complete:
        print("diagnose: interrupted; going on with what had arrived", file=sys.stderr)
    print(f"{len(got.cassettes)} of {len(got.nodes)} node(s) answered; cassettes in {got.folder}", file=sys.stderr)
