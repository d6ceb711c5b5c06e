"""Limits of *this* machine beside what was measured: ``measured / limit = ratio``.

Each judge looks at evidence only. A ceiling that the evidence does not pin down is null with a
reason, never somebody else's GPU. A ratio on the wrong side of 1 is kept and explained: it means
that the inputs are wrong, not that the machine is magic.
"""

from __future__ import annotations

from . import limits_bench, limits_collectives, limits_copies, limits_paths, limits_serving
from .limits_base import Book
from .models import Evidence, Limit, Reference

JUDGES = (
    limits_collectives.judge, limits_copies.judge, limits_serving.judge, limits_bench.judge, limits_paths.judge,
)  # fmt: skip
TIMES = ("us", "ms", "s")


def limits(evidence: list[Evidence]) -> tuple[list[Limit], list[Reference]]:
    """All limits that the evidence supports."""
    book = Book(evidence)
    for judge in JUDGES:
        judge(book)
    return book.limits, book.references


def is_floor(limit: Limit) -> bool:
    """True where the best measurement is 1 x the limit and worse ones lie above (times)."""
    return limit.unit in TIMES


def met(limit: Limit) -> bool:
    """Is the measurement as good as the limit allows in practice?"""
    if limit.ratio is None:
        return False
    return limit.ratio <= 2.0 if is_floor(limit) else limit.ratio >= 0.75
