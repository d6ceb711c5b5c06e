"""Run suites through the engine and score them. `run` is the API, `command` the words around it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from diagnose import __version__
from diagnose.document import Document
from diagnose.errors import EXIT_FINDING, EXIT_OK, DiagnoseError, UsageError
from diagnose.models import Report
from diagnose.verify import verify
from diagnose.verify_command import rerender

from . import report as output
from .ablation import DERIVED, MADE, ablate_cited, backing
from .baselines import majority, nearest, words_only
from .case import Case
from .changed import CHANGED, KEPT, changed
from .paired import changes
from .scoring import Baseline, Outcome, Scores, score, share
from .suites import SUITES, collect
from .wording import by_words, unlearnt

_GROUPS: dict[str, tuple[str, ...]] = {"ablation": tuple(MADE), "mutations": ("mutations", *KEPT)}
Engine = Callable[[str, list[Document]], Report]
_MOST_TEXT = 200_000  # characters of a case that a baseline reads
_LONGEST = 400  # characters that a quote may have beyond the evidence in it
_MANY = 100  # cases that are worth processes of their own
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Result:
    """Scores of every suite, in the order run."""

    scores: tuple[Scores, ...]
    catalogue: str

    @property
    def overall(self) -> Scores | None:
        """All cases together, ablations apart."""
        told = {s.suite for s in self.scores}
        apart = {"generated-well", *CHANGED} | (
            {"injection"} if told != {"injection"} else set()
        )  # silence, and a few bases
        scored = (s for s in self.scores if s.kept is None and s.suite not in apart)
        outcomes = [o for s in scored for o in s.outcomes]
        return score("all", outcomes, (majority([o.key for o in outcomes]),)) if outcomes else None


def engine(symptom: str, documents: list[Document]) -> Report:
    """The engine under test: one call, offline."""
    from diagnose.engine import report

    return report(symptom, documents)


def _with_model(symptom: str, documents: list[Document]) -> Report:
    """The engine beside a model that obeys everything it reads."""
    from .injection import engine as obedient

    return obedient(symptom, documents)


def run(
    suites: Sequence[str] = SUITES,
    paths: Iterable[Path] = (),
    *,
    quick: bool = False,
    seed: int = 1,
    under_test: Engine = engine,
    watch: Callable[[Case, Report | None, Outcome], None] | None = None,
) -> Result:
    """Score the engine.

    Args:
        suites: names of `SUITES`; those without data here are left out.
        paths: files or folders with cases, each a suite of its own.
        quick: a fixed small sample of each. seed: of the generated cases.
        under_test: what answers; a test may put another engine here.
        watch: called after each case.

    Raises:
        UsageError: an unknown suite, a path without cases, or nothing to run.
    """
    scores: list[Scores] = []
    known: dict[tuple[object, ...], Report | None] = {}

    def right(case: Case) -> Report | None:
        """The answer to a whole case, None where it is wrong."""
        key = (case.id, case.symptom, case.texts, case.paths)
        if key not in known:
            got, outcome = judge("", case, under_test, thorough=False)
            known[key] = got if outcome.first else None
        return known[key]

    for name, cases in collect(suites, paths, quick, seed):
        outcomes = []
        asked = _with_model if name == "injection" and under_test is engine else under_test
        if name == "citations":
            cases = [c for whole in cases if (c := _uncited(whole, under_test)) is not None]
        elif name in CHANGED:
            cases = list(changed(name, cases, right, seed, quick))
        for case, (got, outcome) in zip(cases, judged(name, cases, asked, watch is not None), strict=True):
            outcomes.append(outcome)
            if watch is not None:
                watch(case, got, outcome)
        if name in DERIVED or name in KEPT:
            scores.append(score(name, outcomes, kept=share(o.kept for o in outcomes)))
        elif cases:
            scores.append(score(name, outcomes, () if name in CHANGED else baselines(cases)))
    if not scores:
        raise UsageError("no cases found", "name a file or folder with cases")
    from diagnose.catalogue import catalogue

    return Result(tuple(scores), catalogue().version)


def judged(
    suite: str, cases: Sequence[Case], under_test: Engine, reports: bool
) -> Iterator[tuple[Report | None, Outcome]]:
    """`judge` of each case in order; many cases in a process a core, which all have what this one has read so far.

    Args:
        reports: give the answers too, not the outcomes alone.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    one = partial(_one, suite, under_test, reports)
    if cores < 2 or len(cases) < _MANY or under_test not in (engine, _with_model):
        yield from map(one, cases)
        return
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        yield from pool.map(one, cases, chunksize=8)


def _one(suite: str, under_test: Engine, reports: bool, case: Case) -> tuple[Report | None, Outcome]:
    got, outcome = judge(suite, case, under_test)
    return got if reports else None, outcome


def _uncited(whole: Case, under_test: Engine) -> Case | None:
    got, _ = judge("", whole, under_test, thorough=False)
    return ablate_cited(whole, got) if got is not None else None


def judge(suite: str, case: Case, under_test: Engine, thorough: bool = True) -> tuple[Report | None, Outcome]:
    """One case: ask the engine, check its quotes. An engine that fails is wrong, never fatal to the run.

    Args:
        thorough: check every claim of the report too, as `diagnose verify` does.
    """
    documents = case.documents()
    with unlearnt(case.source):
        pass  # fitting the words is no time of the engine's
    about: dict[str, Any] = {
        "kind": case.kind, "source": case.source, "taint": case.status,
        "language": "zh" if _CHINESE.search(case.symptom) else "en",
    }  # fmt: skip
    start = time.process_time()
    try:
        with unlearnt(case.source):
            got = under_test(case.symptom, documents)
    except (DiagnoseError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as err:
        took = time.process_time() - start
        failed = f"{type(err).__name__}: {err}"
        return None, Outcome(case.id, suite, case.key, "error", 0.0, seconds=took, error=failed, **about)
    took = time.process_time() - start
    by_name = {d.name: d for d in documents}
    spans = [s for e in got.evidence for s in e.spans]
    touched = _touched(case, got)
    return got, Outcome(
        id=case.id, suite=suite, key=case.key, verdict=got.verdict, confidence=got.confidence,
        findings=tuple((f.cause, f.confidence) for f in got.findings) if got.verdict == "cause" else (),
        hypotheses=tuple((h.cause, h.p) for h in sorted(got.hypotheses, key=lambda h: -h.p)),
        quotes=len(spans), verbatim=sum(_verbatim(s.quote, s.bytes, by_name.get(s.capture)) for s in spans),
        cited=touched[0], precise=touched[1], seconds=took, chained=_chained(got),
        unsupported=len(unsupported(got, documents)) if thorough else 0, **about,
    )  # fmt: skip


def _verbatim(quote: str, span: tuple[int, int], document: Document | None) -> bool:
    """Is a quote the bytes it claims to be?"""
    if document is None:
        return False
    return document.read(*span).decode("utf-8", "replace") == quote


def _touched(case: Case, got: Report) -> tuple[float | None, float | None]:
    """Recall and precision of the leading finding's quotes against the key's evidence."""
    if not case.key.evidence or not got.findings:
        return None, None
    ids = backing(got, set(got.findings[0].evidence))
    by_id = {e.id: e for e in got.evidence}
    found = {" ".join(s.quote.split()) for i in ids if i in by_id for s in by_id[i].spans}
    quotes = [q for q in found if q]
    wanted = [" ".join(line.split()) for e in case.key.evidence for line in e.splitlines() if line.strip()]
    if not wanted:
        return None, None
    recall = sum(any(_meets(w, q) for q in quotes) for w in wanted) / len(wanted)
    return recall, sum(any(_meets(w, q) for w in wanted) for q in quotes) / len(quotes) if quotes else 0.0


def _meets(wanted: str, quote: str) -> bool:
    """Is one in the other? A whole capture as a quote is no citation of a line."""
    return quote in wanted or (wanted in quote and len(quote) <= len(wanted) + _LONGEST)


def _chained(got: Report) -> bool | None:
    """Does a chain of known links, each with its evidence, lead from the leading finding to the symptom?"""
    from diagnose.catalogue import catalogue

    if got.verdict != "cause" or not got.findings:
        return None
    to = {link.from_: link for link in reversed(got.chain)}
    at, seen = got.findings[0].cause, set[str]()
    while at != "symptom":
        link = to.get(at)
        known = catalogue().causes.get(at)
        if link is None or at in seen or not link.evidence or known is None:
            return False
        if link.to != "symptom" and link.to not in known.produces:
            return False
        seen.add(at)
        at = link.to
    return True


def unsupported(got: Report, documents: Iterable[Document]) -> list[str]:
    """Claims that do not hold: what `diagnose verify` finds, and findings without a reading behind them."""
    # what a model worded is held against the answer that the report's own parts render to
    by_hand = rerender if got.stats.llm else None
    out = [str(m) for m in verify(got.model_dump(mode="json", by_alias=True), documents, by_hand, again=False)]
    read = {e.id for e in got.evidence if e.spans or e.kind == "absent"}
    for finding in got.findings if got.verdict == "cause" else ():
        if read.isdisjoint(backing(got, set(finding.evidence))):
            out.append(f"finding {finding.cause}: nothing read is behind it")
    return out


def baselines(cases: Sequence[Case]) -> tuple[Baseline, ...]:
    """What guessing reaches on the same cases."""
    if len(cases) < 3:
        return ()
    keys = [c.key for c in cases]
    guesses = [majority(keys)]
    if all(c.texts for c in cases):
        guesses.append(nearest([c.text[:_MOST_TEXT] for c in cases], keys, [c.group for c in cases]))
    guesses.append(words_only((by_words(c.source, c.text[:_MOST_TEXT]) for c in cases), keys))
    return tuple(guesses)


def command(
    words: Sequence[str],
    quick: bool,
    compare: Path | None,
    format_: str,
    threshold: float,
    verbose: bool = False,
    seed: int = 1,
    results: Path | None = None,
) -> int:
    """`diagnose eval`: run, print, and say by the exit status whether top-1 holds and nothing is worse than it was.

    Args:
        words: suite names and paths, in any order; none means every suite but the one held back. `ablation` stands
            for all its kinds, `mutations` for both; `interactive` plays the recorded machines back, probe by probe,
            all or those named after it.
        compare: an earlier ``--format json`` output; exit 1 when a measure is worse beyond noise.
        results: a page to write, with every suite and the one held back unless suites are named.
        format_: text, json or junit. threshold: exit 1 when top-1 over all cases falls below.

    Raises:
        UsageError: an unknown format, suite or path.
    """
    if format_ not in ("text", "json", "junit"):
        raise UsageError(f"--format takes text, json, junit, not {format_!r}")
    if "interactive" in words:
        from .interactive import command as play_all

        return play_all(_machines([w for w in words if w != "interactive"]), format_, quick)
    chosen = [n for w in words if w in SUITES for n in _GROUPS.get(w, (w,))]
    paths = [Path(w) for w in words if w not in SUITES]
    for path in paths:
        if not path.exists():
            near = get_close_matches(str(path), (*SUITES, *_GROUPS, "interactive"), 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"no suite and no file is called {path}", f"{hint}suites: {', '.join(SUITES)}, interactive"
            )
    earlier = _earlier(compare) if compare is not None else None
    result = run(
        chosen if words else [s for s in SUITES if s != "held" or results is not None],
        paths,
        quick=quick,
        seed=seed,
        watch=output.explain if verbose else None,
    )
    made = output.as_json(result.scores, result.overall, __version__, result.catalogue)
    if format_ == "json":
        print(json.dumps(made, ensure_ascii=False, indent=1))
    elif format_ == "junit":
        print(output.junit(result.scores))
    else:
        output.text(result.scores, result.overall, verbose)
    if earlier is not None:
        for line in output.differences(earlier, made):
            print(line, file=sys.stdout if format_ == "text" else sys.stderr)
    if results is not None:
        _write(results, result, quick)
    overall = result.overall
    worse = list(changes(earlier, made)) if earlier is not None else []
    for change in worse:
        print(change, file=sys.stdout if format_ == "text" else sys.stderr)
    if any(c.regression for c in worse):
        return EXIT_FINDING
    top1 = overall.first.value if overall is not None else None
    return EXIT_FINDING if top1 is not None and top1 < threshold else EXIT_OK


def _machines(names: Sequence[str]) -> list[Case]:
    """Recorded machines: all, or those named by id or file."""
    from .case import cassettes

    known = {c.id: c for c in cassettes()}
    out = []
    for name in names:
        ident = Path(name).name.removesuffix(".zip")
        if ident not in known:
            near = get_close_matches(ident, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"no recorded machine is called {name}", f"{hint}there are: {', '.join(sorted(known))}")
        out.append(known[ident])
    return out or list(known.values())


def _write(path: Path, result: Result, quick: bool) -> None:
    from .case import cassettes, sample
    from .interactive import play
    from .repeat import differing
    from .results import page

    played = [play(c, compare=not quick) for c in (sample(cassettes()) if quick else cassettes())]
    text = page(result.scores, result.overall, __version__, result.catalogue, played, differing(), quick)
    try:
        path.write_text(text, "utf-8")
    except OSError as err:
        raise UsageError(f"{path} cannot be written: {err.strerror}") from err


def _earlier(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise UsageError(f"{path} cannot be read: {err}") from err
    if not isinstance(loaded, dict) or loaded.get("schema") != output.SCHEMA:
        raise UsageError(f"{path} is no {output.SCHEMA}", "write one with: diagnose eval --format json")
    return loaded
