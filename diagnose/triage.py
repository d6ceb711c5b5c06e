"""The default command: read evidence, walk the playbook, print the report, talk about it."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .config import load
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, UsageError
from .models import Report

SEVERITY = {"info": 0, "low": 1, "medium": 2, "high": 3, "never": 9}
FORMATS = ("text", "json", "md")
LANGS = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}


def split(words: list[str], evidence: list[str]) -> tuple[str, list[str]]:
    """Symptom and evidence paths: a word that is an existing path is evidence."""
    paths, symptom = list(evidence), []
    for word in words:
        if word == "-" or (word and len(word) < 4096 and "\0" not in word and Path(word).exists()):
            paths.append(word)
        else:
            symptom.append(word)
    return " ".join(symptom).strip(), paths


def _piped() -> BinaryIO | None:
    """Standard input when something is piped or redirected into it."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return None
    if stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind):
        return sys.stdin.buffer
    return None


def _unless_empty(stream: BinaryIO, paths: list[str]) -> tuple[BinaryIO | None, list[str]]:
    """An empty pipe that nobody asked to read is no evidence."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    return (buffered, paths) if buffered.peek(1) else (None, [])


def run(
    words: list[str],
    evidence: list[str],
    *,
    offline: bool,
    lang: str,
    format_: str,
    fail_on: str,
    ask: bool,
    verbose: bool,
) -> int:
    """Run one triage and print it; returns the exit status."""
    settings = load({"lang": lang, "format": format_})
    lang, format_ = settings.lang, settings.format
    for value, known, name in (
        (format_, FORMATS, "--format"),
        (lang, tuple(LANGS), "--lang"),
        (fail_on, tuple(SEVERITY), "--fail-on"),
    ):
        if value not in known:
            raise UsageError(f"{name} takes {', '.join(known)}, not {value!r}")
    symptom, paths = split(words, evidence)
    stdin = _piped()
    if stdin is not None and not paths:
        paths.append("-")
        stdin, paths = _unless_empty(stdin, paths)
    if not symptom and not paths:
        raise UsageError(
            "nothing to look at", 'give a symptom or evidence: diagnose "TTFT is high" --evidence server.log'
        )
    talks = ask and format_ == "text" and sys.stdin.isatty() and sys.stdout.isatty()
    report = investigate(symptom, paths, stdin, LANGS[lang], input if talks else None)
    emit(report, format_, verbose)
    if all(i.sha256 is None for i in report.inputs) and report.inputs:
        return EXIT_ERROR
    if talks:
        from .session import prompt

        prompt(report)
    if report.verdict == "inconclusive":
        return EXIT_INCONCLUSIVE
    worst = max((SEVERITY[f.severity] for f in report.findings), default=-1)
    return EXIT_FINDING if worst >= SEVERITY[fail_on] else EXIT_OK


def investigate(
    symptom: str,
    paths: list[str],
    stdin: BinaryIO | None,
    langs: tuple[str, ...],
    read: Callable[[str], str] | None = None,
) -> Report:
    """Open the evidence and run the graph over it; with `read`, ask what would part the open hypotheses."""
    from .ask import converse
    from .catalogue import catalogue
    from .graph import Session, State, build
    from .inputs import open_inputs
    from .progress import Progress
    from .route import ranking

    documents, rejected = open_inputs(paths, stdin)
    with Progress() as progress:
        session = Session(documents=documents, rejected=rejected, progress=progress.say)
        names = None
        if symptom and (ranked := ranking(catalogue(), symptom)):
            names = [ranked[0][0]]  # only the playbook that will be walked has to be compiled
        graph = build(names)
        start: State = {"symptom": symptom, "paths": paths, "langs": list(langs), "path": [], "missing": []}
        result = graph.invoke(start, context=session)
    report = Report.model_validate(result["report"])
    if read is not None and report.verdict == "inconclusive":
        session.stated = converse(catalogue(), report.hypotheses, langs[0], read)
        if session.stated:
            result = graph.invoke(start, context=session)
            report = Report.model_validate(result["report"])
    if result["mismatches"]:
        for line in result["mismatches"][:5]:
            print(f"diagnose: this report does not verify: {line}", file=sys.stderr)
    return report


def escaped(text: str) -> str:
    """JSON with what a terminal would act on (C1 escapes, direction marks) as escapes: the same values, safe to see."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def emit(report: Report, format_: str, verbose: bool) -> None:
    """Write the report to standard output."""
    if format_ == "json":
        sys.stdout.write(escaped(report.model_dump_json(by_alias=True, indent=1)) + "\n")
        return
    if format_ == "md":
        from .markdown import markdown

        sys.stdout.write(markdown(report))
        return
    from .catalogue import catalogue
    from .screen import Terminal, show

    show(report, catalogue(), Terminal(highlight=False), verbose)
