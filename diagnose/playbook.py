"""Playbooks: what each step decides from the evidence at hand, whether a tree is sound, its picture."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import near
from .entries import Playbook, Step
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


def _targets(step: Step) -> list[tuple[str, str]]:
    """Where a step may go, with the label of the edge."""
    edges = [(b.to, b.says) for b in step.branches]
    return [*edges, (step.else_to, "no" if step.branches else ""), (step.else_unknown, "unknown")]


def faults(book: Playbook) -> list[str]:
    """What is wrong with a tree's shape: steps nobody reaches, loops, edges to nowhere, twice the same id."""
    out: list[str] = []
    names = [s.id for s in book.steps]
    out += [f"{book.id}: step {n} is there twice" for n in sorted({n for n in names if names.count(n) > 1})]
    steps = {s.id: s for s in book.steps}
    for step in book.steps:
        if step.stage not in book.stages:
            out.append(f"{book.id}: step {step.id}: unknown stage {step.stage} {near(step.stage, book.stages)}")
        for to, _ in _targets(step):
            if to != CONCLUDE and to not in steps:
                out.append(f"{book.id}: step {step.id}: goes to unknown {to} {near(to, [*steps, CONCLUDE])}")
    if out:
        return [line.rstrip() for line in out]
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            out.append(f"{book.id}: steps go in a circle: {' -> '.join([*above[above.index(name) :], name])}")
            return
        if name == CONCLUDE or name in done:
            return
        for to, _ in _targets(steps[name]):
            visit(to, (*above, name))
        done.add(name)

    visit(names[0], ())
    out += [f"{book.id}: step {n} is never reached" for n in names if n not in done]
    return out


def mermaid(book: Playbook) -> str:
    """The tree as a Mermaid flowchart: decided edges solid, undecided ones dotted."""

    def ident(name: str) -> str:
        return "s_" + "".join(c if c.isalnum() else "_" for c in name)

    def text(words: str) -> str:
        return words.replace('"', "'").replace("|", "/").replace("\n", " ")

    lines = ["flowchart TD", f'  start(["{text(book.question)}"]) --> {ident(book.steps[0].id)}']
    for step in book.steps:
        lines.append(f'  {ident(step.id)}{{"{text(step.ask)}<br/><small>{text(step.probe)}</small>"}}')
    lines.append(f'  {ident(CONCLUDE)}(["conclude"])')
    for step in book.steps:
        edges: dict[str, list[str]] = {}
        for to, label in _targets(step)[:-1]:
            edges.setdefault(to, []).append(label)
        for to, labels in edges.items():
            words = text(" / ".join(filter(None, labels)))
            lines.append(f"  {ident(step.id)} -->{f'|{words}|' if words else ''} {ident(to)}")
        if step.branches and step.else_unknown not in edges:
            lines.append(f"  {ident(step.id)} -.->|unknown| {ident(step.else_unknown)}")
    return "\n".join(lines)
