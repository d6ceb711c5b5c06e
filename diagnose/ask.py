"""Questions only the user can answer, chosen because their answers would part the leading hypotheses.

At most three, on a terminal only. An answer becomes a `stated` fact: weak, and worded "you said".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

from .catalogue import Catalogue
from .entries import Question, QuestionOption
from .models import Fact, Hypothesis, Subject

MOST = 3
ENOUGH = 1e-4  # a question that parts less than this is not worth a person's time


def gain(question: Question, open_: Iterable[Hypothesis]) -> float:
    """How far the answers would part the hypotheses: p * p' for each pair that an answer treats differently."""
    pairs = list(combinations(open_, 2))
    total = sum(a.p * b.p * abs(_side(o, a.cause) - _side(o, b.cause)) for o in question.options for a, b in pairs)
    return total / len(question.options)


def _side(option: QuestionOption, cause: str) -> int:
    return (cause in option.for_) - (cause in option.against)


def choose(cat: Catalogue, hypotheses: list[Hypothesis], most: int = MOST) -> list[Question]:
    """The questions worth asking now, best first; ties break by id."""
    ranked = sorted(((gain(q, hypotheses), q) for q in cat.questions), key=lambda g: (-g[0], g[1].id))
    return [q for value, q in ranked if value >= ENOUGH][:most]


def stated(question: Question, option: QuestionOption, lang: str) -> Fact:
    """The fact an answer becomes."""
    said = option.text_zh if lang == "zh" else option.text
    text = f"您说:{said}" if lang == "zh" else f"you said: {said}"
    return Fact(f"stated.{question.id}", option.key, None, Subject(), (), text, kind="stated", status=("stated",))


def consents(question: Mapping[str, Any], read: Callable[[str], str]) -> bool:
    """May this probe run? Shows what it runs, how long, what it may disturb, and who is on the GPUs now."""
    lines = [
        f"{question['probe']} ({question['footprint']}, about {question['seconds']:g} s): {question['what']}",
        *(f"  $ {command}" for command in question["commands"]),
        f"  may disturb: {question['disturbs']}",
        f"  on the GPUs now: {question['busy']}",
        "run it? [y/N] ",
    ]
    try:
        return read("\n".join(lines)).strip().lower() in ("y", "yes", "是", "好")
    except EOFError:
        return False


def converse(cat: Catalogue, hypotheses: list[Hypothesis], lang: str, read: Callable[[str], str]) -> list[Fact]:
    """Ask; an empty or unknown reply skips the question, end of input ends the asking."""
    out: list[Fact] = []
    for question in choose(cat, hypotheses):
        zh = lang == "zh"
        lines = [question.ask_zh if zh else question.ask]
        lines += [f"  {n}. {o.text_zh if zh else o.text}" for n, o in enumerate(question.options, 1)]
        lines.append("  编号,回车跳过:" if zh else "  number, or Enter to skip: ")
        try:
            reply = read("\n".join(lines)).strip()
        except EOFError:
            break
        if reply.isdigit() and 1 <= int(reply) <= len(question.options):
            out.append(stated(question, question.options[int(reply) - 1], lang))
    return out
