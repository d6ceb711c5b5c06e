"""Derived facts of the training family: what only several ranks together can tell."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..derive import Deriver
from ..lazy import regex
from ..models import Fact

_POINT = regex(r"sendrecv|send_?recv|ncclDevKernel_Send|ncclKernel_Send", re.IGNORECASE)


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


WAITS = 0.2  # of its time that the waiting rank stands in communication which nothing hides
LITTLE = 0.3  # of that, at most, for the rank that the others wait for
MORE = 1.3  # times as much work of its own, at least


def late_rank(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """`trace.late_rank`: exposed communication of the rank that waits most over that of the rank that works most.

    Work is what a rank does or its host keeps it from doing: kernels, and idle time in which the host did something
    else. The launch rate is left out: a profiler slows it, and ranks differ in it on machines where nothing is wrong.
    Shares of each rank's own window, because windows of ranks differ in length. Stages of a pipeline differ by design:
    where point-to-point kernels lead the communication nothing is said.
    """

    def by_rank(signal: str) -> dict[int, Fact]:
        return {f.subject.rank: f for f in facts if f.signal == signal and f.subject.rank is not None}

    exposed, busy = by_rank("trace.comm_exposed"), by_rank("trace.gpu_busy")
    held = [by_rank(f"trace.idle.{why}") for why in ("host", "input", "sync")]
    ranks = [r for r in exposed if r in busy]
    if len(ranks) < 2 or any(f.signal == "trace.kernel_share" and _POINT.search(f.subject.label or "") for f in facts):
        return

    def waits(rank: int) -> float:
        return float(exposed[rank].value or 0)

    def works(rank: int) -> float:
        own = float(busy[rank].value or 0) - waits(rank)
        return own + sum(float(h[rank].value or 0) for h in held if rank in h)

    late, most = max(ranks, key=works), max(ranks, key=waits)
    if waits(most) >= WAITS and 0 < waits(late) <= LITTLE * waits(most) and works(late) >= MORE * works(most):
        high, low = exposed[most], exposed[late]
        yield Fact(
            "trace.late_rank", waits(most) / waits(late), "count", low.subject, low.spans[:1],
            kind="derived", formula="a / b", inputs=(high, low), status=low.status,
        )  # fmt: skip


DERIVERS: list[Deriver] = [comm_spread, late_rank]
