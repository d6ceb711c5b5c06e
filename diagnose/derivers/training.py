"""Derived facts of the training family: what only several ranks together can tell."""

from __future__ import annotations

from collections.abc import Iterable

from ..derive import Deriver
from ..models import Fact


def comm_spread(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Longest over shortest communication time of the ranks: who arrives last waits least."""
    ranks = {f.subject.rank: f for f in facts if f.signal == "trace.comm_time" and f.subject.rank is not None}
    if len(ranks) < 2:
        return
    low = min(ranks.values(), key=lambda f: float(f.value or 0))
    high = max(ranks.values(), key=lambda f: float(f.value or 0))
    if float(low.value or 0) > 0:
        yield Fact(
            "trace.comm_spread",
            float(high.value or 0) / float(low.value or 1),
            "count",
            low.subject,
            low.spans[:1],
            kind="derived",
            formula="a / b",
            inputs=(high, low),
            status=low.status,
        )


DERIVERS: list[Deriver] = [comm_spread]
