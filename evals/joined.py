"""Cases beside something else: innocent noise, or a second fault of its own.

`herrings`: loud lines that have nothing to do with it are added, and the verdict stays. `noisy`: a machine that is
well, with several of them; nothing may be found. `two-faults`: two cases of different families in one, and both causes
must be among the first three (the first answer is either).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from diagnose.catalogue import plain_yaml

from .case import Case
from .scoring import HEALTHY, INCONCLUSIVE, Key

_NOISE = 5  # decoys beside a machine that is well


@dataclass(frozen=True)
class Decoy:
    """Loud lines that mean nothing here.

    Attributes:
        kind: of the artifact. not_for: pattern of labels for which they would be evidence.
    """

    id: str
    kind: str
    lines: tuple[str, ...]
    not_for: str = "^$"

    @property
    def text(self) -> str:
        """As pasted."""
        return "\n".join(self.lines)


@cache
def decoys() -> tuple[Decoy, ...]:
    """The library, in `herrings/decoys.yaml`."""
    raw = plain_yaml((files("diagnose.evals") / "herrings" / "decoys.yaml").read_text("utf-8"))
    return tuple(Decoy(r["id"], r["kind"], tuple(r["lines"]), r.get("not_for", "^$")) for r in raw)


def _drawn(case: Case, n: int, draw: random.Random) -> list[Decoy]:
    labels = (case.key.label, *case.key.also)
    fit = [d for d in decoys() if not any(re.search(d.not_for, label) for label in labels)]
    return draw.sample(fit, min(n, len(fit)))


def _random(word: str, case: Case, seed: int) -> random.Random:
    return random.Random(f"{word} {seed} {case.id}")  # noqa: S311 (no secret)


def herrings(case: Case, seed: int) -> Iterator[Case]:
    """The case with two decoys: one as a piece of its own, one above the first piece or below the last."""
    draw = _random("herrings", case, seed)
    found = _drawn(case, 2, draw)
    if len(found) < 2 or not case.texts:
        return
    own, within = found
    texts = [*case.texts]
    if draw.random() < 0.5:
        texts[0] = (texts[0][0], within.text + "\n" + texts[0][1])
    else:
        texts[-1] = (texts[-1][0], texts[-1][1].rstrip("\n") + "\n" + within.text)
    texts.insert(draw.choice((0, len(texts))), (f"{len(texts)}-{own.kind}.txt", own.text))
    yield replace(case, id=f"{case.id} +{own.id} +{within.id}", texts=tuple(texts), kind=case.key.verdict)


def noisy(case: Case, seed: int) -> Case:
    """A case of a machine that is well, among decoys; leaving it open is right too."""
    draw = _random("noisy", case, seed)
    found = _drawn(case, _NOISE, draw)
    texts = [(f"noise-{i}-{d.kind}.txt", d.text) for i, d in enumerate(found)]
    at = draw.randrange(len(texts) + 1)
    key = Key(HEALTHY, (*case.key.also, INCONCLUSIVE), "healthy")
    return replace(case, id=f"{case.id} +noise", key=key, texts=(*texts[:at], *case.texts, *texts[at:]))


def pairs(cases: Sequence[Case], right: Callable[[Case], bool]) -> Iterator[Case]:
    """Two cases of different families in one, the first half of `cases` with the second; both right by themselves."""
    fit = [c for c in cases if c.key.verdict == "cause" and c.texts]
    half = len(fit) // 2
    for one, other in zip(fit[:half], fit[half:], strict=False):
        if not _related(one, other) and right(one) and right(other):
            yield both(one, other)


def _related(one: Case, other: Case) -> bool:
    """Would one of the causes explain the other, or are both of one kind?"""
    from diagnose.catalogue import catalogue

    def family(case: Case) -> set[str]:
        return {label.partition(".")[0] for label in (case.key.label, *case.key.also)}

    causes = catalogue().causes
    a, b = ({c.key.label, *c.key.also} for c in (one, other))
    linked = any(set(causes[x].produces) & to for of, to in ((a, b), (b, a)) for x in of if x in causes)
    return bool(family(one) & family(other)) or linked


def both(one: Case, other: Case) -> Case:
    """Both symptoms, and the pieces of both; the second key stands in `Key.beside`."""
    texts = [(f"{i}-{n.partition('-')[2] or n}", t) for i, (n, t) in enumerate((*one.texts, *other.texts))]
    first = one.symptom.strip().rstrip(".。")
    key = replace(one.key, beside=tuple(sorted({other.key.label, *other.key.also})), evidence=())
    return replace(
        one, id=f"{one.id} & {other.id}", symptom=f"{first}. {other.symptom}", key=key, texts=tuple(texts), group="",
    )  # fmt: skip
