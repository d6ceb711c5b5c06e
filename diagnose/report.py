"""Assemble the report (contract 1) from a triage; render the answers; mask secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from . import __version__
from .advice import advise
from .answer import render
from .assess import Assessment
from .catalogue import Catalogue
from .decision import decide
from .document import Document
from .explain import chain, checked, findings, hypotheses, red_herrings, ruled_out
from .mask import mask_report
from .models import Evidence, InputRef, PathStep, Reference, Report, Stats, Tool
from .planner import among, next_probes, options, unavailable
from .predicates import Context
from .stages import stages

OFFLINE = "only the given evidence was read"
MOST_EVIDENCE = 600  # beyond this, only evidence that something refers to


def build(
    cat: Catalogue,
    ctx: Context,
    got: Assessment,
    inputs: list[InputRef],
    references: list[Reference],
    path: list[PathStep],
    missing: list[str],
    symptom: str,
    inferred: bool,
    langs: tuple[str, ...],
    why_unavailable: Callable[[str], str],
    ran: Mapping[str, float],
) -> Report:
    """A complete report; `answer` holds one entry per language asked for.

    Args:
        why_unavailable: why a probe gave nothing. ran: seconds of each probe that ran live.
    """
    found = [o for o in options(cat, got, ctx) if o.spec.name not in ran]
    accepted = findings(got, ctx)
    advice, predicted = advise(ctx.evidence, ctx.limits, [f.cause for f in accepted])
    missing = [m for m in missing if why_unavailable(m) != OFFLINE or not _was_read(cat, ctx, path, m)]
    decision = decide(symptom, ctx.evidence, langs[0])
    still_open = [h for h in hypotheses(got) if decision is None or h.basis == "evidence"]
    report = Report(
        tool=Tool(version=__version__, catalogue=cat.version),
        symptom=symptom,
        symptom_inferred=inferred,
        playbook=ctx.playbook,
        lang="both" if len(langs) > 1 else langs[0],
        verdict=got.verdict,
        confidence=round(got.confidence, 2),
        findings=accepted,
        chain=chain(got),
        hypotheses=still_open,
        ruled_out=ruled_out(got, ctx),
        red_herrings=red_herrings(cat, got, ctx),
        checked=checked(got, ctx.limits),
        evidence=[*ctx.evidence, *predicted],
        references=references,
        limits=ctx.limits,
        stages=stages(ctx.evidence, ctx.limits),
        advice=advice,
        path=path,
        inputs=inputs,
        unavailable=unavailable(cat, missing, why_unavailable) if got.verdict != "healthy" else [],
        next_probes=next_probes(found),
        decision=decision,
        stats=Stats(probes_run=len(ran), seconds=round(sum(ran.values()), 1)),
    )
    report.evidence = _kept(report)
    for lang in langs:
        report.answer[lang] = render(report, cat, lang)
    return report


def _was_read(cat: Catalogue, ctx: Context, path: list[PathStep], probe: str) -> bool:
    """Did a step of the walk decide by this probe's output, or cite a reading that the probe gives?"""
    signals = {e.id: e.signal for e in ctx.evidence}
    for step in path:
        if step.probe == probe and probe in cat.probes:
            cited = frozenset(signals[i] for i in step.evidence if i in signals)
            if not step.outcome.startswith("unknown") or among(cited, cat.probes[probe].provides):
                return True
    return False


def finished(report: Report, cat: Catalogue, documents: Iterable[Document]) -> Report:
    """The report without secrets; where a quote was cut around one, the answer is worded from what is left of it."""
    clean = mask_report(report, documents)
    if clean is not report:
        for lang in clean.answer:
            clean.answer[lang] = render(clean, cat, lang)
        clean = mask_report(clean, documents)
    return clean


def referred(report: Report) -> set[str]:
    """Ids of all evidence that something in the report points to, with their inputs."""
    ids: set[str] = set()
    for group in (
        report.findings, report.chain, report.ruled_out, report.red_herrings, report.checked,
        report.limits, report.stages, report.advice, report.path,
    ):  # fmt: skip
        for item in group:
            ids.update(item.evidence)
    for finding in report.findings:
        ids.update(finding.against)
    for figure in report.decision.figures if report.decision else ():
        ids.update(figure.evidence)
    by_id = {e.id: e for e in report.evidence}
    todo = list(ids)
    while todo:
        known = by_id.get(todo.pop())
        for ref in known.inputs if known else ():
            if ref not in ids:
                ids.add(ref)
                todo.append(ref)
    return ids


def _kept(report: Report) -> list[Evidence]:
    if len(report.evidence) <= MOST_EVIDENCE:
        return report.evidence
    needed = referred(report)
    room = MOST_EVIDENCE - len(needed)
    out: list[Evidence] = []
    for item in report.evidence:
        if item.id in needed:
            out.append(item)
        elif room > 0 and not item.inputs:
            room -= 1
            out.append(item)
    return out
