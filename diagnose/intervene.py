"""Proof by intervention: predict what a reversible change would give, run with and without it, compare.

A cause that can be put to the test says how (`intervention` in its catalogue entry): which variables
of the environment to leave out, which probe measures, and which share of the ceiling is usual. Only
variables on the runner's allow-list are touched, and only for the child that measures. A fault of the
user's own code (pageable buffers) has a `twin` instead: the probe does the same work the other way.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import runner
from .answer import render
from .assess import ACCEPT
from .catalogue import catalogue
from .collect import Capture, NotCaptured, collect
from .document import Document
from .entries import Cause, Intervention
from .gather import gather
from .live import Live
from .models import Evidence, Fact, Finding, Limit, Report, Value
from .units import UNITS

GOOD = 0.25  # prediction error up to which the mechanism is taken as understood
BETTER, NO_BETTER = 1.3, 1.1  # after / before: from here the change did it; below, it did not
_NEVER = ("NCCL_DEBUG*", "NCCL_TOPO*", "NCCL_GRAPH*", "NCCL_RAS*", *runner.INHERITED)


@dataclass(frozen=True)
class Trial:
    """One intervention, planned: which variables go, what is expected."""

    cause: str
    spec: Intervention
    without: tuple[str, ...]
    limit: Limit
    before: float

    @property
    def predicted(self) -> float:
        """The usual share of the ceiling."""
        return (self.limit.limit or 0.0) * self.spec.share

    @property
    def change(self) -> str:
        """What differs in the second run."""
        return self.spec.change or "without " + " ".join(self.without)


def plan(cause: Cause, environ: Iterable[str], limits: list[Limit], evidence: list[Evidence]) -> Trial | None:
    """The trial of a cause on this machine, or None where there is nothing to change or no ceiling to predict from."""
    spec = cause.intervention
    if spec is None:
        return None
    names = tuple(
        sorted(
            n for n in environ
            if n in runner.KNOBS and _any(n, spec.without) and not _any(n, _NEVER)
        )
    )  # fmt: skip
    limit = next((x for x in limits if x.what.startswith(spec.limit) and x.limit and x.unit in UNITS), None)
    before = max((float(e.value) for e in evidence if e.signal == spec.metric and isinstance(e.value, int | float)),
                 default=None)  # fmt: skip
    if not (names or spec.twin) or limit is None or before is None:
        return None
    return Trial(cause.id, spec, () if spec.twin else names, limit, before)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def measure(trial: Trial, live: Live) -> tuple[float | None, Capture | NotCaptured]:
    """Run the probe without the variables; returns its figure and the capture, which joins the cassette."""
    host = live.host.without(trial.without)
    item = live.collector(trial.spec.probe)
    items = collect(item, host)
    found = [c for c in items if isinstance(c, Capture)]
    if not found:
        why = next((m.reason for m in items if isinstance(m, NotCaptured)), "it gave nothing")
        return None, NotCaptured(trial.spec.probe, f"the run without the setting: {why}")
    params = found[0].params | ({"without": " ".join(trial.without)} if trial.without else {})
    kept = live.cassette.add([Capture(**{**found[0].__dict__, "params": params})])[0]
    return figure(trial.spec.twin or trial.spec.metric, kept.document(), trial.spec.where), kept


def figure(signal: str, doc: Document, where: str = "") -> float | None:
    """The best reading of a signal in one document; `where` is a pattern of its label."""
    facts: list[Fact] = [
        f for f in gather([doc]).facts if f.signal == signal and (not where or re.search(where, f.subject.label or ""))
    ]
    return max((float(f.value) for f in facts if isinstance(f.value, int | float)), default=None)


def prove(report: Report, live: Live, progress: Callable[[str], None]) -> Report:
    """Put the leading finding that can be tested to the test, once."""
    for finding in report.findings:
        trial = plan(catalogue().causes[finding.cause], live.host.environ, report.limits, report.evidence)
        if trial is not None:
            progress(f"testing {finding.cause}: the same run {trial.change}")
            report = settle(report, trial, *measure(trial, live))
            for lang in report.answer:
                report.answer[lang] = render(report, catalogue(), lang)
            return report
    return report


def settle(report: Report, trial: Trial, after: float | None, capture: Capture | NotCaptured) -> Report:
    """Write what came of it into the finding: confirmed, withdrawn, or left as it was with the figures shown."""
    finding = next(f for f in report.findings if f.cause == trial.cause)
    unit = trial.limit.unit
    told: dict[str, Value] = {
        "change": trial.change, "metric": trial.spec.metric, "unit": unit,
        "before": trial.before, "predicted": round(trial.predicted, 4),
        "formula": f"{trial.limit.limit:g} {unit} (limit) * {trial.spec.share:g}",
    }  # fmt: skip
    if after is None or isinstance(capture, NotCaptured):
        told["reason"] = capture.reason if isinstance(capture, NotCaptured) else "no figure in the output"
        finding.intervention = told
        return report
    error = abs(after - trial.predicted) / trial.predicted
    gain = after / trial.before if trial.before else float("inf")
    told |= {"after": after, "error": round(error, 4), "gain": round(gain, 3), "capture": capture.name,
             "sha256": capture.sha256}  # fmt: skip
    finding.intervention = told
    if gain >= BETTER and error <= GOOD:
        finding.status = "confirmed"
        finding.confidence = max(finding.confidence, 0.97)
        report.confidence = max(report.confidence, 0.97)
    elif gain < NO_BETTER:
        _withdraw(report, finding)
    return report


def _withdraw(report: Report, finding: Finding) -> None:
    finding.status = "withdrawn"
    finding.confidence = min(finding.confidence, 0.2)
    report.findings = [f for f in report.findings if f is not finding] + [finding]
    standing = [f for f in report.findings if f.status != "withdrawn" and f.confidence >= ACCEPT]
    report.confidence = standing[0].confidence if standing else 0.5
    if not standing:
        report.verdict = "inconclusive"
