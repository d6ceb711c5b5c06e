"""Rules over the formats that belong to no family: NCCL RAS."""

from __future__ import annotations

from ..predicates import UNKNOWN, Context, Outcome


def ras_ranks_diverge(ctx: Context) -> Outcome:
    """Two ranks are behind each other: one in one operation, the other in another.

    A late rank is behind in everything. Ranks that took different branches lag each in the operation that only the
    other one launched.
    """
    lags = [e for value, e in ctx.numbers("nccl.ras.lag") if value >= 1]
    if not lags:
        return UNKNOWN
    for a in lags:
        for b in lags:
            if a.subject.label != b.subject.label and a.subject.rank != b.subject.rank:
                return Outcome(True, (a, b))
    return Outcome(False, tuple(lags[:2]))


RULES = {"ras_ranks_diverge": ras_ranks_diverge}
