"""What the planner would have asked for on a recorded machine: chosen as in a live run, one probe at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from .assess import SURE
from .catalogue import catalogue
from .document import Document
from .engine import Triage, conclude, told
from .gather import Gathered, derived, read_document
from .models import Report
from .planner import options
from .practice_machine import Machine, seconds


@dataclass(frozen=True)
class PlanStep:
    """One probe, and what was believed after it."""

    probe: str
    seconds: float
    verdict: str
    lead: str
    p: float


@dataclass(frozen=True)
class Plan:
    """The planner's own attempt at a drill."""

    steps: tuple[PlanStep, ...]
    report: Report

    @property
    def seconds(self) -> float:
        """What it spent."""
        return sum(s.seconds for s in self.steps)


@lru_cache(maxsize=8)
def plan(machine: Machine, symptom: str, limit: float) -> Plan:
    """Ask for the best probe by information per cost until the verdict is sure, the time is over, or all is read."""
    read, spent = Gathered(), 0.0
    steps: list[PlanStep] = []
    got = conclude(symptom, _whole(read))
    while True:
        verdict, confidence = got.assessment.verdict, got.assessment.confidence
        if steps and (verdict == "healthy" or (verdict == "cause" and confidence >= SURE)):
            break
        chosen = _next(machine, got, {s.probe for s in steps}, limit - spent)
        if chosen is None:
            break
        for piece in machine.by_probe[chosen]:
            read_document(piece.document(), read)
        got = conclude(symptom, _whole(read))
        spent += seconds(chosen)
        steps.append(PlanStep(chosen, seconds(chosen), got.assessment.verdict, *_lead(got)))
    return Plan(tuple(steps), told(got))


@lru_cache(maxsize=8)
def whole(machine: Machine, symptom: str) -> Report:
    """The report of everything that was recorded."""
    from .engine import report

    return report(symptom, documents(machine))


def documents(machine: Machine) -> list[Document]:
    """Every capture."""
    return [p.document() for p in machine.pieces]


def _whole(read: Gathered) -> Gathered:
    """What was read so far with what follows from it; `read` itself goes on growing."""
    copy = replace(read, facts=[*read.facts], inputs=[*read.inputs], recognised={**read.recognised})
    return derived(copy)


def _next(machine: Machine, got: Triage, ran: set[str], left: float) -> str | None:
    for option in options(catalogue(), got.assessment, got.context):
        name = option.spec.name
        if name in machine.by_probe and name not in ran and option.spec.seconds <= left:
            return name
    return None


def _lead(got: Triage) -> tuple[str, float]:
    if got.assessment.verdict == "healthy":
        return "none.healthy", got.assessment.confidence
    beliefs = got.assessment.accepted or sorted(got.assessment.beliefs.values(), key=lambda b: (-b.p, b.cause.id))
    return (beliefs[0].cause.id, beliefs[0].p) if beliefs and beliefs[0].p > 0 else ("", 0.0)
