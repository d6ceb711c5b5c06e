"""Recorded machines played back: only what is probed is revealed, and every probe costs what it cost then.

Beside the probes and seconds that the planner spent stand those of an optimum that knows the answer: nothing beyond
the first look where that suffices, else the cheapest single probe after which the verdict is right, else all of them.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from diagnose.cassette import SUFFIX, Cassette, played
from diagnose.collect import Collector
from diagnose.engine import report
from diagnose.host import Host
from diagnose.live import QUICK, Live, allowed
from diagnose.models import Report
from diagnose.triage import investigate

from .case import Case
from .scoring import Key


class Played(Host):
    """A machine whose programs are all there; what they say is the recording's."""

    def find(self, tool: str) -> str | None:
        """Any program."""
        return f"/usr/bin/{tool}"


@dataclass(frozen=True)
class Run:
    """One machine: was the verdict right, and what did it take, beside the optimum."""

    id: str
    right: bool
    verdict: str
    lead: str
    planned: tuple[str, ...]
    seconds: float
    best: tuple[str, ...] | None = None
    best_seconds: float | None = None


def right(got: Report, key: Key) -> bool:
    """The verdict of the key, and for a cause one of the names that the key takes first."""
    if got.verdict != key.verdict:
        return False
    return key.verdict != "cause" or got.findings[0].cause in (key.label, *key.also)


def play(case: Case, compare: bool = True) -> Run:
    """Let the live engine investigate a recorded machine; `compare` looks for the optimum too."""
    with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
        folder = unpacked(case.paths[0], Path(spare))
        known = played(folder)
        live = Live(Played(), Cassette.create(Path(spare) / "run.cassette", case.symptom), allowed("load"), 3600.0)
        live.known = known
        got, _ = investigate(case.symptom, [], None, ("en",), live=live)
        planned = tuple(p.probe or "" for p in got.path if p.step == "planned")
        best = optimum(case, known, planned) if compare else None
        return Run(
            case.id, right(got, case.key), got.verdict, got.findings[0].cause if got.findings else "-",
            planned, _cost(known, planned), best, None if best is None else _cost(known, best),
        )  # fmt: skip


def _cost(known: dict[str, Collector], names: Iterable[str]) -> float:
    return round(sum(known[n].cost(Played()) for n in names if n in known), 1)


def optimum(case: Case, known: dict[str, Collector], planned: tuple[str, ...]) -> tuple[str, ...]:
    """The least that would have been enough, found by trying with the answer at hand."""
    host = Played()
    there = {n: c for n, c in known.items() if c.ready(host) is None}
    quick = [n for n, c in there.items() if c.spec.footprint == "read" and c.spec.seconds <= QUICK]
    rest = sorted((n for n in there if n not in quick), key=lambda n: (there[n].cost(host), n))

    def enough(more: Iterable[str]) -> bool:
        docs = [c.document() for n in [*quick, *more] for c in there[n].collect(host)]  # type: ignore[union-attr]
        return right(report(case.symptom, docs), case.key)

    if enough(()):
        return ()
    return next(((n,) for n in rest if enough([n])), tuple(n for n in planned if n in there) or tuple(rest))


def unpacked(path: Path, spare: Path) -> Path:
    """The folder of a cassette that ships as a zip."""
    if path.is_dir():
        return path
    with zipfile.ZipFile(path) as archive:
        archive.extractall(spare)
    return next(p for p in spare.iterdir() if p.name.endswith(SUFFIX))


def command(cases: Iterable[Case], format_: str, quick: bool) -> int:
    """Play all cases and print them, without the optimum under --quick; exit 1 when one verdict is wrong."""
    runs = [play(c, not quick) for c in cases]
    if format_ == "json":
        good = sum(r.right for r in runs)
        print(json.dumps({"schema": "diagnose.eval-interactive/v1", "right": good, "runs": [asdict(r) for r in runs]}))
    else:
        for run in runs:
            mark = "ok " if run.right else "BAD"
            took = f"{run.seconds:g} s ({', '.join(run.planned) or 'the first look'})"
            best = (
                f", at best {run.best_seconds:g} s ({', '.join(run.best) or 'the first look'})"
                if run.best is not None
                else ""
            )
            print(f"{mark} {run.id}: {run.verdict} {run.lead}; {took}{best}")
        spent, least = sum(r.seconds for r in runs), sum(r.best_seconds or 0.0 for r in runs)
        beside = "" if quick else f", {least:g} s at best"
        print(f"right {sum(r.right for r in runs)} of {len(runs)}; {spent:g} s of probes{beside}")
    return 0 if all(r.right for r in runs) else 1
