"""What a template is made of: random choices of one case, a mechanism with its label, and the list of all of them.

`templates_*.py` register their mechanisms here with `mechanism`; `generate` draws cases from them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .case import Case
from .scoring import HEALTHY, INCONCLUSIVE, Key

Artifacts = list[tuple[str, str]]
T = TypeVar("T")


class Draw:
    """Random choices of one case.

    Attributes:
        sick: whether the mechanism is at work; else every figure is within its limits.
    """

    def __init__(self, seed: str, sick: bool) -> None:
        self.random = random.Random(seed)  # noqa: S311 (no secret)
        self.sick = sick

    def pick(self, *options: T) -> T:
        """One of these."""
        return self.random.choice(options)

    def num(self, low: float, high: float, digits: int = 0) -> float:
        """A figure between two bounds."""
        got = round(self.random.uniform(low, high), digits)
        return int(got) if digits == 0 else got

    def either(self, sick: tuple[float, float], well: tuple[float, float], digits: int = 0) -> float:
        """A figure from the band that belongs to the state."""
        return self.num(*(sick if self.sick else well), digits)

    @property
    def host(self) -> str:
        """A host's name."""
        return self.pick("node", "gpu", "worker-", "dgx", "h", "n") + str(self.num(1, 64))

    @property
    def ip(self) -> str:
        """A private address."""
        return f"10.{self.num(0, 99)}.{self.num(0, 255)}.{self.num(1, 250)}"

    @property
    def clock(self) -> str:
        """A time of day."""
        return f"{self.num(0, 23):02d}:{self.num(0, 59):02d}:{self.num(0, 59):02d}"

    def mixed(self, lines: Sequence[str], noise: Sequence[str], most: int = 3) -> str:
        """Lines in their order, with some of the noise between them."""
        out = list(lines)
        for line in self.random.sample(list(noise), min(most, len(noise), int(self.num(0, most)))):
            out.insert(int(self.num(0, len(out))), line)
        return "\n".join(out)

    def table(self, head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
        """A table as people paste it: aligned, with bars, with tabs or as CSV."""
        cells = [[str(c) for c in r] for r in (head, *rows)]
        style = self.pick("aligned", "bars", "tabs")
        if style == "bars":
            lines = ["| " + " | ".join(r) + " |" for r in cells]
            lines.insert(1, "|" + "---|" * len(head))
            return "\n".join(lines)
        if style == "tabs":
            return "\n".join("\t".join(r) for r in cells)
        widths = [max(len(r[i]) for r in cells) + 3 for i in range(len(head))]
        return "\n".join("".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in cells)


@dataclass(frozen=True)
class Template:
    """One mechanism.

    Attributes:
        name: unique. label, also: the key. symptoms: as users put it, English and Chinese. make: draws the artifacts.
    """

    name: str
    label: str
    also: tuple[str, ...]
    symptoms: tuple[str, ...]
    make: Callable[[Draw], Artifacts]

    def case(self, seed: int, sick: bool = True) -> Case:
        """The case of this seed."""
        draw = Draw(f"{self.name} {seed}", sick)
        symptom = draw.pick(*self.symptoms)
        texts = tuple((f"{i}-{kind}.txt", text) for i, (kind, text) in enumerate(self.make(draw)))
        key = Key(self.label, self.also) if sick else Key(HEALTHY, (INCONCLUSIVE,), "healthy")
        word = "" if sick else " well"
        return Case(f"{self.name} {seed}{word}", symptom, key, texts, group=self.name, status=("simulated",))


TEMPLATES: dict[str, Template] = {}


def mechanism(
    label: str, *symptoms: str, also: Sequence[str] = (), name: str = ""
) -> Callable[[Callable[[Draw], Artifacts]], Callable[[Draw], Artifacts]]:
    """Register a function that draws the artifacts of one mechanism."""

    def register(make: Callable[[Draw], Artifacts]) -> Callable[[Draw], Artifacts]:
        own = name or make.__name__
        if own in TEMPLATES:
            raise ValueError(f"two templates are called {own}")
        TEMPLATES[own] = Template(own, label, tuple(also), symptoms, make)
        return make

    return register
