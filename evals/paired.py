"""Two runs of the same cases against each other: is one worse, beyond what chance would give?

Cases are paired by suite and id. Of those that changed, worse and better ones are alike under chance, so the count of
worse ones is held against a fair coin (McNemar's test, exact and one-sided).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SURE = 0.05  # at this chance or less a change is no noise
# What is compared, and whether having it is good.
MEASURES = {"top1": True, "top3": True, "kept": False, "alarm": False, "wrong_and_sure": False}


@dataclass(frozen=True)
class Change:
    """One measure of one suite in two runs.

    Attributes:
        worse, better: cases that changed. chance: of so many worse ones, or more, if nothing had changed.
    """

    suite: str
    measure: str
    worse: int
    better: int
    pairs: int

    @property
    def chance(self) -> float:
        """One-sided exact probability under a fair coin."""
        n = self.worse + self.better
        return sum(math.comb(n, k) for k in range(self.worse, n + 1)) / 2**n if self.worse else 1.0

    @property
    def regression(self) -> bool:
        """Worse beyond noise."""
        return self.worse > self.better and self.chance <= SURE

    def __str__(self) -> str:
        word = "REGRESSION" if self.regression else "within noise"
        what = f"{self.worse} worse, {self.better} better of {self.pairs} pairs, p = {self.chance:.3g}"
        return f"{self.suite}: {self.measure}: {what}: {word}"


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Every measure that changed, suite by suite, and over the suites that are scored together."""
    before = {s["suite"]: s for s in old.get("suites", [])}
    shared = [(before[s["suite"]], s) for s in new.get("suites", []) if s["suite"] in before]
    total: dict[str, list[int]] = {}
    for was, now in shared:
        then = {c["id"]: c for c in was.get("cases", [])}
        both = [(then[c["id"]], c) for c in now.get("cases", []) if c["id"] in then]
        lasting = now.get("kept_without_evidence") is not None
        for measure, good in MEASURES.items():
            if lasting != (measure == "kept"):
                continue
            found = [(a[measure], b[measure]) for a, b in both if measure in a and measure in b]
            worse = sum(a is good and b is not good for a, b in found)
            better = sum(a is not good and b is good for a, b in found)
            sums = total.setdefault(measure, [0, 0, 0])
            total[measure] = [x + y for x, y in zip(sums, (worse, better, len(found)), strict=True)]
            if worse or better:
                yield Change(now["suite"], measure, worse, better, len(found))
    if len(shared) > 1:
        for measure, (worse, better, pairs) in total.items():
            if worse or better:
                yield Change("all suites", measure, worse, better, pairs)
