"""Walk a playbook: what each step decides from the evidence at hand."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Playbook, Step
from .models import Evidence, PathStep
from .predicates import Context, holds

CONCLUDE = "conclude"


@dataclass(frozen=True)
class Decision:
    """What a step came to: where to go, why, on which evidence; `known` is False for else_unknown."""

    step: Step
    to: str
    because: str
    used: tuple[Evidence, ...]
    known: bool

    def record(self) -> PathStep:
        """The step as the report lists it."""
        return PathStep(
            step=self.step.id,
            probe=self.step.probe,
            outcome=self.to if self.known else f"unknown, {self.to}",
            because=self.because,
            evidence=[e.id for e in self.used[:4]],
        )


def decide(step: Step, ctx: Context) -> Decision:
    """Try the branches in order; the first that holds wins; an undecidable one before it does not stop it."""
    unknown = not step.branches
    for branch in step.branches:
        got = holds(branch.when, ctx)
        if got.holds:
            return Decision(step, branch.to, branch.says or step.ask, got.used, True)
        unknown |= got.holds is None
    read = tuple(e for name in step.reads for e in ctx.of(name))[:4]
    if unknown:
        known = bool(read and not step.branches)
        return Decision(step, step.else_unknown, f"{step.ask} Not in the evidence.", read, known)
    return Decision(step, step.else_to, f"{step.ask} No.", read, True)


def walk(book: Playbook, ctx: Context) -> list[Decision]:
    """All steps from the first to `conclude`."""
    steps = {s.id: s for s in book.steps}
    out: list[Decision] = []
    at = book.steps[0].id
    while at != CONCLUDE and len(out) <= len(steps):
        out.append(decide(steps[at], ctx))
        at = out[-1].to
    return out
