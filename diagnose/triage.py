"""The default command: read evidence, walk the playbook, print the report, talk about it."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .config import load
from .emit import FORMATS, LANGS, SEVERITY, emit, escaped
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_OK, DiagnoseError, UsageError
from .mask import mask
from .models import Fact, InputRef, Report

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from .document import Document
    from .graph import Session, State
    from .live import Live
    from .llm import Options as LlmOptions
    from .progress import Progress

# of the graph; the limit is on steps: a tree of some ten, walked again after each probe
CONFIG: RunnableConfig = {"configurable": {"thread_id": "run"}, "recursion_limit": 200}


def is_path(word: str) -> bool:
    """Does a file or folder of this name exist? A symptom can be longer than any name may be."""
    return bool(word) and "\0" not in word and os.path.exists(word)


def split(words: list[str], evidence: list[str]) -> tuple[str, list[str]]:
    """Symptom and evidence paths: a word that is an existing path is evidence."""
    paths, symptom = list(evidence), []
    for word in words:
        if word == "-" or is_path(word):
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


@dataclass(frozen=True)
class Reach:
    """What a run may touch beside the given evidence.

    Attributes:
        offline: nothing. allow: the heaviest footprint that needs no question ("" = read, or none beside evidence).
        budget: seconds for probes; None = by footprint. params: endpoint, prometheus, model, gpu, tp and the like.
        replay: a cassette, in place of this machine. dry_run: say what would run, and run nothing.
        sysfs_root: a recorded tree in place of this machine's files. resume: the cassette of an earlier live run.
    """

    offline: bool = False
    allow: str = ""
    budget: float | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    replay: str = ""
    dry_run: bool = False
    sysfs_root: str = ""
    resume: str = ""

    def live(self, evidence: bool) -> bool:
        """Is this machine to be looked at? Logs from elsewhere are not mixed with it unless that is asked for."""
        if self.offline or self.replay:
            return False
        return not evidence or bool(self.allow or self.sysfs_root or {"endpoint", "prometheus"} & set(self.params))


def run(
    words: list[str],
    evidence: list[str],
    *,
    reach: Reach,
    lang: str,
    format_: str,
    fail_on: str,
    ask: bool,
    verbose: bool,
    llm: LlmOptions | None = None,
    fleet: str = "",
    node_timeout: float = 120.0,
) -> int:
    """Run one triage and print it; returns the exit status.

    A model is asked when the report is there. Text is printed first and its wording follows; JSON and Markdown wait for
    it no longer than its budget.

    Raises:
        UsageError: an option has no such value, options exclude each other, or nothing is named to look at.
        InputError: a cassette or a list of nodes cannot be read.
    """
    symptom, paths = split(words, evidence)
    symptom = mask(symptom)  # it goes into reports, recordings and the state of a run
    settings = load({"lang": lang, "format": format_}, symptom)
    lang, format_ = settings.lang, settings.format
    for value, known, name in (
        (format_, FORMATS, "--format"),
        (lang, tuple(LANGS), "--lang"),
        (fail_on, tuple(SEVERITY), "--fail-on"),
    ):
        if value not in known:
            raise UsageError(f"{name} takes {', '.join(known)}, not {value!r}")
    from . import said

    stated = said.facts(reach.params)
    if fleet:
        if paths or reach.replay or reach.resume or reach.sysfs_root or reach.allow not in ("", "read"):
            raise UsageError(
                "--fleet reads nodes and takes no other evidence",
                "leave out --evidence, --replay, --sysfs-root and --allow, or look at one node without --fleet",
            )
        from .fleet_triage import run as run_fleet

        return run_fleet(
            fleet, symptom, langs=LANGS[lang], format_=format_, fail_on=fail_on, verbose=verbose, limit=node_timeout,
            dry_run=reach.dry_run, stated=stated,
        )  # fmt: skip
    if reach.resume:
        paths.append(reach.resume)
    if reach.replay:
        from .cassette import read as read_cassette

        symptom = symptom or str(read_cassette(Path(reach.replay)).get("symptom", ""))
        paths.append(reach.replay)
    stdin = _piped()
    if stdin is not None and not paths:
        paths.append("-")
        stdin, paths = _unless_empty(stdin, paths)
    if not symptom and not paths:
        raise UsageError(
            "nothing to look at", 'give a symptom or evidence: diagnose "TTFT is high" --evidence server.log'
        )
    talks = ask and format_ == "text" and sys.stdin.isatty() and sys.stdout.isatty()
    live = None
    if reach.resume:
        from .live_run import finish, resumed

        symptom, live = resumed(Path(reach.resume), reach, talks)
    elif reach.live(bool(paths)):
        from .live_run import dry_run, finish, prepare

        if reach.dry_run:
            return dry_run(symptom, reach)
        live = prepare(symptom, reach, talks)
    paths += said.evidence_path(reach.params)
    documents: list[Document] = []
    try:
        report, complete = investigate(
            symptom, paths, stdin, LANGS[lang], input if talks else None, live, stated, documents
        )
    except DiagnoseError:
        if live is not None:  # what was recorded until then is kept
            finish(live, False)
        raise
    if llm is not None and complete:
        report = _with_model(report, documents, llm, format_, verbose)
    elif llm is None or not llm.dry_run:
        emit(report, format_, verbose)
    if live is not None:
        finish(live, complete)
    if not complete:
        print("diagnose: above is what was found until then", file=sys.stderr)
        return EXIT_INTERRUPTED
    if all(i.sha256 is None for i in report.inputs) and report.inputs:
        return EXIT_ERROR
    if talks:
        from .session import prompt

        prompt(report, live)
    if report.verdict == "inconclusive":
        return EXIT_INCONCLUSIVE
    worst = max((SEVERITY[f.severity] for f in report.findings), default=-1)
    return EXIT_FINDING if worst >= SEVERITY[fail_on] else EXIT_OK


def _with_model(report: Report, documents: list[Document], llm: LlmOptions, format_: str, verbose: bool) -> Report:
    """Print the report with what a model says beside it; the report as it is where that gives nothing."""
    from .llm import assist, shown

    if llm.dry_run:
        sys.stdout.write(escaped(shown(report, documents, llm)) + "\n")
        return report
    if format_ == "text":
        emit(report, format_, verbose)
        sys.stdout.flush()
    try:
        report = assist(report, documents, llm)
    except KeyboardInterrupt:
        print("diagnose: the model was not waited for", file=sys.stderr)
    if format_ == "text":
        from .screen import Terminal, show_model

        show_model(report, Terminal(highlight=False), verbose)
    else:
        emit(report, format_, verbose)
    return report


def investigate(
    symptom: str,
    paths: list[str],
    stdin: BinaryIO | None,
    langs: tuple[str, ...],
    read: Callable[[str], str] | None = None,
    live: Live | None = None,
    stated: Sequence[Fact] = (),
    seen: list[Document] | None = None,
) -> tuple[Report, bool]:
    """Open the evidence and run the graph over it; with `read`, ask what would part the open hypotheses.

    With `live` this machine is looked at too. Returns the report, and False when Ctrl-C cut the run short:
    then it says what was found until then. What was read is put into `seen`.

    Where nobody is there to be asked, the graph's own functions are called in their order (offline without its state,
    too): the same report (a test holds that) without a second spent on importing LangGraph.
    """
    if live is None and read is None:
        return _plain(symptom, paths, stdin, langs, stated, seen)
    from .graph import Session, walk
    from .inputs import open_inputs
    from .progress import Progress

    documents, rejected = open_inputs(paths, stdin)
    session = Session(documents=documents, rejected=rejected, live=live, given=bool(documents), stated=[*stated])
    start: State = {"symptom": symptom, "paths": [], "langs": list(langs)}  # opened above
    with Progress() as progress:
        session.progress = progress.say
        if live is not None:
            live.progress = progress.say
        try:
            if read is None:
                result = walk(start, session)
            else:
                graph, result = _with_graph(start, session, progress, read)
        except KeyboardInterrupt:
            return _partial(symptom, session, langs), False
    report = Report.model_validate(result["report"])
    if live is not None and report.findings and "load" in live.allow:
        from .intervene import prove

        try:
            report = prove(report, live, progress.say)
        except KeyboardInterrupt:
            return report, False  # the verdict stands without its proof
    if read is not None and report.verdict == "inconclusive":
        from .ask import converse
        from .catalogue import catalogue

        answers = converse(catalogue(), report.hypotheses, langs[0], read)
        session.stated += answers
        if answers:
            result = graph.invoke(start, CONFIG, context=session)
            report = Report.model_validate(result["report"])
    if seen is not None:
        seen += session.documents
    _complain(result["mismatches"])
    return report, True


def _with_graph(start: State, session: Session, progress: Progress, read: Callable[[str], str]) -> tuple[Any, Any]:
    """The graph and what it came to; its interrupts put the question of consent to the user."""
    import sqlite3

    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command

    from .ask import consents
    from .catalogue import catalogue
    from .graph import build, checkpointer
    from .route import ranking

    names = None
    if start["symptom"] and (ranked := ranking(catalogue(), start["symptom"])):
        names = [ranked[0][0]]  # only the playbook that will be walked has to be compiled

    def go(saver: Any) -> tuple[Any, Any]:
        graph = build(names, saver)
        result = graph.invoke(start, CONFIG, context=session)
        while waiting := result.get("__interrupt__"):
            with progress.paused():
                answer = consents(waiting[0].value, read)
            result = graph.invoke(Command(resume=answer), CONFIG, context=session)
        return graph, result

    try:
        return go(checkpointer(session))
    except sqlite3.Error as err:  # a full disk, or another run with the same file
        print(f"diagnose: the state of this run is not kept: {err}", file=sys.stderr)
        return go(InMemorySaver())


def _complain(mismatches: Iterable[object]) -> None:
    for line in list(mismatches)[:5]:
        print(f"diagnose: this report does not verify: {line}", file=sys.stderr)


def _plain(
    symptom: str,
    paths: list[str],
    stdin: BinaryIO | None,
    langs: tuple[str, ...],
    stated: Sequence[Fact],
    seen: list[Document] | None = None,
) -> tuple[Report, bool]:
    """Evidence to report in one go; see `investigate`."""
    from . import said
    from .engine import conclude, told
    from .gather import Gathered, derived, gather
    from .inputs import open_inputs
    from .progress import Progress
    from .verify import verify

    documents, rejected = open_inputs(paths, stdin)
    if seen is not None:
        seen += documents
    gathered = Gathered()
    with Progress() as progress:
        progress.say(f"reading {len(documents)} input(s)")
        try:
            gather(documents, gathered)
        except KeyboardInterrupt:
            unread = [d for d in documents if d.name not in gathered.documents]
            return told(conclude(symptom, derived(gathered)), [*rejected, *map(_unread, unread)], langs), False
        said.add(gathered, list(stated))
        report = told(conclude(symptom, gathered), rejected, langs)
        _complain(verify(report.model_dump(mode="json", by_alias=True), documents, again=False))
    return report, True


def _unread(document: Document) -> InputRef:
    """An input that Ctrl-C came before."""
    return InputRef(name=document.name, sha256=document.sha256, recognised_as=None, reason="not read: interrupted")


def _partial(symptom: str, session: Session, langs: tuple[str, ...]) -> Report:
    """What was found before Ctrl-C."""
    from .engine import conclude, told
    from .gather import derived, gather

    unread = [d for d in session.documents if d.name not in session.gathered.documents]
    if session.live is not None:  # captures are small, and were had at a price
        return told(conclude(symptom, gather(session.documents)), session.rejected, langs)
    return told(conclude(symptom, derived(session.gathered)), [*session.rejected, *map(_unread, unread)], langs)
