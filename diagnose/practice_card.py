"""The result of a drill, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .answer import fix_text, title_text
from .catalogue import catalogue
from .concepts import concepts
from .practice_drill import HEALTHY, Drill, visible
from .practice_fix import FixScore
from .practice_machine import seconds
from .practice_plan import PlanStep
from .practice_talk import SCHEMA, WIDTH
from .practice_words import say

WEIGHTS = {
    "cause": 0.35, "evidence": 0.15, "path": 0.1, "cost": 0.1, "calibration": 0.1, "fix": 0.15, "doubt": 0.05,
}  # fmt: skip
PARTS = tuple(WEIGHTS)


@dataclass(frozen=True)
class Score:
    """One attempt, a player's or the planner's, each part from 0 to 1."""

    cause: float
    evidence: float
    path: float
    cost: float
    calibration: float
    fix: float
    doubt: float

    @property
    def total(self) -> float:
        """All parts by weight."""
        return round(sum(WEIGHTS[name] * float(getattr(self, name)) for name in PARTS), 4)

    def shown(self) -> dict[str, float]:
        """As data."""
        return {**{name: round(getattr(self, name), 4) for name in PARTS}, "total": self.total}


@dataclass(frozen=True)
class Line:
    """A line of the recording that decides the case."""

    probe: str
    capture: str
    line: int
    text: str


@dataclass(frozen=True)
class Card:
    """What the examiner says of a drill.

    Attributes:
        label: the cause. keyed: there was an answer key; else the engine's reading of everything stands for it.
        skipped: the first deciding line in output that was never asked for. uncited: seen, and not cited.
        fix: what the proposed fix was made of.
    """

    label: str
    keyed: bool
    yours: Score
    planner: Score
    steps: tuple[PlanStep, ...]
    skipped: Line | None = None
    uncited: tuple[Line, ...] = ()
    fix: FixScore = field(default_factory=FixScore)


def as_json(drill: Drill, card: Card | None) -> dict[str, Any]:
    """The drill as data."""
    done, setup = drill.done, drill.setup
    out: dict[str, Any] = {
        "schema": SCHEMA, "kind": "drill", "drill": setup.id, "finished": card is not None,
        "limit": setup.limit, "spent": done.spent, "hints": done.hints,
        "asked": [{"probe": p, "seconds": seconds(p)} for p in done.asked],
        "hypotheses": [{"cause": c, "p": p} for c, p in done.hypotheses.items()],
        "evidence": [{"capture": c.piece.name, "line": c.line, "quote": c.text} for c in done.cited],
        "answer": {"cause": done.answer[0], "p": done.answer[1]} if done.answer else None, "fix": done.fix,
    }  # fmt: skip
    if card is not None:
        out |= {
            "cause": card.label, "keyed": card.keyed, "score": card.yours.shown(), "planner": card.planner.shown(),
            "planner_path": [s.__dict__ for s in card.steps],
            "skipped": card.skipped.__dict__ if card.skipped else None,
            "uncited": [line.__dict__ for line in card.uncited],
            "fix_score": {**card.fix.__dict__, "total": card.fix.total}, "doubts": done.minds,
        }  # fmt: skip
    return out


def debrief(drill: Drill, card: Card) -> list[str]:
    """The talk after a drill."""
    lang, done = drill.lang, drill.done
    cause = catalogue().causes.get(card.label)
    title = title_text(cause, lang).rstrip("。.") if cause else card.label
    answer = f"{done.answer[0]} {done.answer[1]:.2f}" if done.answer else say(lang, "d_none")
    out = ["", f"── {say(lang, 'd_title')} " + "─" * 40]
    out.append(say(lang, "d_healthy" if card.label == HEALTHY else "d_was", title=title, cause=card.label))
    out += [] if card.keyed else [say(lang, "d_engine")]
    out += [say(lang, "d_you", answer=answer), "", *_table(card, lang), ""]
    mine = " → ".join(f"{p} {seconds(p):g}" for p in done.asked) or say(lang, "nothing")
    out.append(say(lang, "d_path", steps=mine) + (say(lang, "d_hints", n=done.hints) if done.hints else ""))
    out.append(say(lang, "d_plan", steps=_planned(card.steps)))
    if card.skipped is not None:
        one = card.skipped
        out += ["", say(lang, "d_skipped", probe=one.probe, seconds=seconds(one.probe)), _row(one)]
    else:
        out += ["", say(lang, "d_all_seen")]
    if card.uncited:
        out += [say(lang, "d_uncited"), *map(_row, card.uncited)]
    if drill.setup.herring is not None:
        out += ["", say(lang, "d_herring", because=drill.setup.herring.because)]
    out += [say(lang, "d_mind", cause=c, value=value) for c, value in done.minds.items()]
    if cause is not None and card.label != HEALTHY:
        zh = cause.zh if lang == "zh" else None
        text, _, rollback = fix_text(cause, lang)
        out += ["", say(lang, "d_mechanism", text=(zh.mechanism if zh else "") or cause.mechanism), ""]
        out += _fix(drill, card)
        out.append(say(lang, "d_fix_book", fix=text.rstrip(), rollback=rollback or say(lang, "nothing")))
    elif done.fix and not card.fix.total:
        out += ["", say(lang, "d_fix", fix=done.fix), "  " + say(lang, "d_fix_needless")]
    commands = [f"diagnose explain {card.label}"]
    commands += [
        f"diagnose ask {c.id}" for c in sorted(concepts().values(), key=lambda c: c.id) if card.label in c.causes
    ]
    return [*out, say(lang, "d_read", commands=" · ".join(commands[:3]))]


def _fix(drill: Drill, card: Card) -> list[str]:
    """What was proposed, and what it was worth."""
    lang, got = drill.lang, card.fix
    if not drill.done.fix:
        return [say(lang, "d_fix_none")]
    parts = say(lang, "d_fix_parts", change=got.change, rollback=got.rollback, check=got.check)
    wrong = [say(lang, "d_fix_wrong", names=", ".join(got.wrong))] if got.wrong else []
    return [say(lang, "d_fix", fix=drill.done.fix), parts, *wrong]


def _planned(steps: tuple[PlanStep, ...]) -> str:
    """The planner's path; what it believed stands where that changed."""
    out, lead = [], ""
    for step in steps:
        text = f"{step.probe} {step.seconds:g}"
        if step.lead and step.lead != lead and step.p >= 0.2:
            text += f" ({step.lead} {step.p:.2f})"
            lead = step.lead
        out.append(text)
    return " → ".join(out)


def _row(line: Line) -> str:
    text = f"  {line.capture}:{line.line}  {visible(line.text.strip())}"
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _table(card: Card, lang: str) -> list[str]:
    from rich.cells import cell_len

    def padded(text: str, width: int) -> str:
        return text + " " * max(1, width - cell_len(text))

    head = padded(say(lang, "d_score"), 16) + padded(say(lang, "d_yours"), 8) + say(lang, "d_planner")
    rows = [head]
    for name in (*PARTS, "total"):
        mine, its = getattr(card.yours, name), getattr(card.planner, name)
        rows.append(padded(say(lang, name), 16) + padded(f"{mine:.2f}", 8) + f"{its:.2f}")
    return rows
