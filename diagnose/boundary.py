"""`diagnose boundary`: what can be validated on this machine, what at the level of tools only, and what not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import __version__
from .boundary_words import HERE, NOT, SAID, SAID_ZH, STATUS, STATUS_ZH, TOOLS, listed, notes, said
from .catalogue import plain_yaml
from .errors import EXIT_OK, UsageError
from .fold import columns, folded
from .host import Host

SCHEMA = "diagnose.boundary/v1"


@dataclass(frozen=True)
class Part:
    """One row of the matrix on one machine."""

    row: dict[str, Any]
    status: str
    evidence: tuple[str, ...]
    missing: tuple[dict[str, str], ...]


@lru_cache(maxsize=1)
def matrix() -> list[dict[str, Any]]:
    """The rows as data."""
    text = (files("diagnose.playbooks") / "boundary" / "matrix.yaml").read_text("utf-8")
    return list(plain_yaml(text))


def judged(row: dict[str, Any], checks: dict[str, Any]) -> Part:
    """Status of a row: all needs there, or at least its tools."""
    needs = [(name, checks[name]) for name in row["needs"]]
    lacking = [(name, check) for name, check in needs if check.has is not True]
    tools = [checks[name] for name in row["tools"]]
    if not lacking:
        status = HERE
    elif any(check.has for check in tools):
        status = TOOLS
    else:
        status = NOT
    evidence = [check.evidence for _, check in needs if check.has] + [c.evidence for c in tools if c.has]
    missing = tuple(
        {"check": name, "kind": check.kind if check.has is False else "not known", "evidence": check.evidence,
         "get": check.get}
        for name, check in lacking
    )  # fmt: skip
    return Part(row, status, tuple(dict.fromkeys(evidence)), missing)


def examine(host: Host) -> dict[str, Any]:
    """The whole matrix of a machine as `diagnose.boundary/v1`."""
    machine = import_module("diagnose.probes.machine")  # the engine never imports its own probes by name
    checks, kinds, stack = machine.checks(host), machine.kind_of_host(host), machine.stack(host)
    parts = [judged(row, checks) for row in matrix()]
    return {
        "schema": SCHEMA,
        "tool": {"version": __version__},
        "host": {
            "kind": kinds,
            "stack": stack,
            "notes": notes(kinds),
            "notes_zh": notes(kinds, zh=True),
            "taint": list(host.taint),
        },
        "parts": [_part(p, stack, "Windows" in kinds) for p in parts],
        "checks": {
            n: {"has": c.has, "evidence": c.evidence, "kind": c.kind, "get": c.get, "limit": c.limit}
            for n, c in checks.items()
        },
    }


def _part(part: Part, stack: str, windows: bool) -> dict[str, Any]:
    row = part.row
    experiment = dict(row["experiment"])
    experiment_zh = experiment | row["experiment_zh"]
    if windows:
        for made in (experiment, experiment_zh):
            made["command"] = powershell(made["command"])
    out = {
        "id": row["id"], "title": row["title"], "title_zh": row["zh"], "status": part.status,
        "evidence": list(part.evidence), "missing": list(part.missing), "experiment": experiment,
        "experiment_zh": experiment_zh,
    }  # fmt: skip
    if stack in row["counterparts"]:
        out["counterpart"], out["counterpart_zh"] = row["counterparts"][stack], row["counterparts_zh"][stack]
    return out


def powershell(command: str) -> str:
    """A command line as PowerShell takes it: variables before a program, and no `&` to put one into the background."""
    words, shown = command.split(" "), []
    while words and "=" in words[0] and words[0].split("=")[0].isupper():
        name, _, value = words.pop(0).partition("=")
        shown.append(f"$env:{name}='{value}';")
    return " ".join([*shown, *words]).replace(" & ", "; ")


def _told(part: dict[str, Any], zh: bool) -> tuple[str, dict[str, str], str]:
    """Title, experiment and counterpart of a part in one language."""
    tail = "_zh" if zh else ""
    return part[f"title{tail}"], part[f"experiment{tail}"], part.get(f"counterpart{tail}", "")


def _summary(data: dict[str, Any], zh: bool) -> Iterable[str]:
    """Which parts can be validated where, a line for each status."""
    words = STATUS_ZH if zh else STATUS
    for status in (HERE, TOOLS, NOT):
        titles = [_told(p, zh)[0] for p in data["parts"] if p["status"] == status]
        yield f"{words[status]} ({len(titles)}): {('、' if zh else ', ').join(titles) or ('无' if zh else 'none')}"


def _head(data: dict[str, Any], lang: str) -> str:
    """What the machine is."""
    w, host = SAID_ZH if lang == "zh" else SAID, data["host"]
    kinds = ", ".join(said(kind, lang) for kind in host["kind"])
    simulated = f"; {w['simulated']}" if "simulated" in host["taint"] else ""
    return f"{kinds}; {w['stack']}: {said(host['stack'], lang)}{simulated}"


def _missing(part: dict[str, Any], lang: str) -> Iterable[tuple[str, str]]:
    """What a part lacks, in pairs of kind and what to do."""
    for item in part["missing"]:
        get = f" -> {said(item['get'], lang)}" if item["get"] else ""
        yield said(item["kind"], lang), f"{said(item['evidence'], lang)}{get}"


def _lines(data: dict[str, Any], zh: bool) -> Iterable[str]:
    words, w, host, lang = STATUS_ZH if zh else STATUS, SAID_ZH if zh else SAID, data["host"], "zh" if zh else "en"
    yield _head(data, lang)
    yield from (f"  {note}" for note in host["notes_zh" if zh else "notes"])
    yield ""
    yield from _summary(data, zh)
    for part in data["parts"]:
        title, e, counterpart = _told(part, zh)
        yield ""
        yield f"{title}: {words[part['status']]}"
        if part["evidence"]:
            yield f"  {w['there']}: {listed(part['evidence'], lang)}"
        yield from (f"  {w['missing']} ({kind}): {what}" for kind, what in _missing(part, lang))
        if counterpart:
            yield f"  {w['counterpart']} {host['stack']}: {counterpart}"
        if part["status"] != HERE:
            yield f"  {w['experiment']}: {e['hypothesis']}"
            yield f"    $ {e['command']}"
            yield from (f"    {w[name]}: {e[key]}" for name, key in _STEPS)


_STEPS = (("look", "metric"), ("expect", "expect"), ("otherwise", "failure"))


def _markdown(data: dict[str, Any], zh: bool) -> Iterable[str]:
    words, w, host, lang = STATUS_ZH if zh else STATUS, SAID_ZH if zh else SAID, data["host"], "zh" if zh else "en"
    yield f"# {w['boundary']}: {_head(data, lang)}"
    yield ""
    yield from (f"- {note}" for note in host["notes_zh" if zh else "notes"])
    yield ""
    yield f"| {w['part']} | {w['status']} | {w['there']} | {w['missing']} |"
    yield "|---|---|---|---|"
    for part in data["parts"]:
        missing = w["and"].join(f"{said(m['evidence'], lang)} ({said(m['kind'], lang)})" for m in part["missing"])
        cells = [_told(part, zh)[0], words[part["status"]], listed(part["evidence"], lang), missing]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for part in data["parts"]:
        if part["status"] == HERE:
            continue
        title, e, _ = _told(part, zh)
        yield ""
        yield f"## {title}"
        yield f"{e['hypothesis']}"
        yield ""
        yield f"```\n{e['command']}\n```"
        if zh:
            yield f"{w['look']}：{e['metric']}。{w['expect']}：{e['expect']}。{w['otherwise']}：{e['failure']}。"
        else:
            yield f"Look at {e['metric']}. Expect {e['expect']}. Otherwise: {e['failure']}."


def run(
    format_: str, picture: str, sysfs_root: str, lang: str, peer: str, evidence: str = "", pictures: Path | None = None
) -> int:
    """Print the matrix, or one picture of it, or write all pictures to a folder.

    Raises:
        UsageError: an option has no such value, or the recorded tree is no folder.
        InputError: the picture shows what is not known here, or the folder for pictures cannot be written.
    """
    if format_ not in ("text", "json", "md", *(("svg",) if picture else ())):
        raise UsageError(f"--format takes text, json, md{', svg' if picture else ''}, not {format_!r}")
    if lang not in ("", "en", "zh"):
        raise UsageError(f"--lang takes en or zh, not {lang!r}")
    root = Path(sysfs_root or "/")
    if not root.is_dir():
        raise UsageError(f"--sysfs-root {root} is no folder", "give the folder that holds the recorded sys/ and proc/")
    host = Host.at({"peer": peer} if peer else {}, root)
    data = examine(host)
    if picture:
        from .boundary_pictures import draw

        sys.stdout.write(draw(picture, data, format_, evidence, lang or "en"))
        return EXIT_OK
    if pictures is not None:
        from .boundary_pictures import write

        print("\n".join(write(pictures, data, evidence, lang or "en")), file=sys.stderr)
        return EXIT_OK
    if format_ == "json":
        sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    else:
        lines = _lines(data, lang == "zh") if format_ == "text" else _markdown(data, lang == "zh")
        width = columns() if format_ == "text" else 0
        for line in lines:
            sys.stdout.writelines(f"{part}\n" for part in folded(line, width))
    return EXIT_OK
