"""Named predicates over sweeps of the load: an edge at a configured size, a rate that stays while clients grow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..units import IN_MS
from . import serving_read as read
from .base import highest

_SIZES = r"(?:cuda-?graph|cudagraph)(?:s$|[\w.-]*(?:size|bs|batch))"
Rows = list[tuple[int, float, Evidence]]


# ``12``, ``agents=12 TTFT``: a size, and no index of a rank or a step.
_SIZED = regex(
    r"(?!(?:rank|gpu|node|host|step|iter|layer|worker|replica|w\d|day|hour)s?\b)(?:[^\d=|]{1,16}[=: ])?(\d{1,6})(?: [A-Za-z]{2,8})?",  # noqa: E501
    re.I,
)


def _series(ctx: Context, metric: str) -> Rows:
    """Rows of a sweep over the load by their size, for one metric: times in ms, rates as they stand."""
    out: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure", {"label": rf"^(?:{metric})[^|]*\|"}):
        name = (item.subject.label or "").split("|")[1].strip()
        said = re.search(r"(?:concurrency|clients|users|streams|vus?|threads|并发)\W{1,3}(\d+)", item.quote or "", re.I)
        plain = said or _SIZED.fullmatch(name)
        size = int(plain[1]) if plain else None
        if size is None or value <= 0:
            continue
        out.setdefault(size, (value * IN_MS.get(item.unit or "", 1.0), item))
    for value, item in ctx.numbers("load.point", {"label": rf"^(?:{metric})\|"}):
        out.setdefault(int((item.subject.label or "").split("|")[1]), (value, item))
    return [(size, *out[size]) for size in sorted(out)]


def _edge(rows: Rows) -> tuple[int, int, Evidence] | None:
    """The two sizes between which alone the figure jumps; on both sides of it hardly anything changes."""
    if len(rows) < 4:
        return None
    steps = [(b[1] / a[1], a, b) for a, b in pairwise(rows)]
    jump, low, high = highest(steps)
    rest = [s for s in steps if s[1] is not low]
    if jump < 1.3 or any(s[0] > 1 + 0.4 * (jump - 1) for s in rest):
        return None
    return low[0], high[0], high[2]


def _limits(ctx: Context, label: str) -> Iterator[tuple[int, Evidence]]:
    for item in ctx.of("serving.arg", {"label": label}):
        flag = re.search(rf"--{re.escape(item.subject.label or '')}[= ]((?:\d+[ ,]*)+)", item.quote or "")
        numbers = [int(n) for n in re.findall(r"\d+", flag[1] if flag else str(item.value))]
        if numbers:
            yield max(numbers), item


def step_past_captured_size(ctx: Context) -> Outcome:
    """The time of a token jumps just past the largest captured graph and nowhere else."""
    edge = _edge(_series(ctx, "tpot|itl|step_time|decode"))
    if edge is None and ctx.asks("bad-tpot"):  # a column that says no more than that it is a time
        edge = _edge(_series(ctx, "time(?=\\|)"))
    if edge is None:
        return UNKNOWN
    held = [*_limits(ctx, _SIZES), *((int(v), e) for v, e in ctx.numbers("serving.graph_batch"))]
    for size, item in held:
        if edge[0] <= size < edge[1] and edge[1] <= 1.5 * size + 1:
            return read.yes(edge[2], item)
    return UNKNOWN


def step_past_admission(ctx: Context) -> Outcome:
    """First tokens come late just past the number of requests that the server admits."""
    edge = _edge(_series(ctx, "ttft|queue_time"))
    if edge is None:
        return UNKNOWN
    for size, item in _limits(ctx, read.CAPS):
        if edge[0] <= size < edge[1] and edge[1] <= 1.5 * size + 1:
            return read.yes(edge[2], item)
    return UNKNOWN


# ---------------------------------------------------------------- Little's law


def _flat(ctx: Context) -> tuple[Rows, Rows] | None:
    """Rates that stay while the load rises fourfold or more, and latencies that are the load over the rate."""
    rates, times = _series(ctx, "request_rate|throughput"), _series(ctx, "latency|e2e|time|ttft")
    flat = [r for r in rates if r[1] >= 0.93 * max(v for _, v, _ in rates)] if len(rates) >= 3 else []
    if len(flat) < 2 or flat[-1][0] < 4 * flat[0][0] or flat[-1][0] != rates[-1][0]:
        return None
    by_size = {size: (value, item) for size, value, item in times}
    both = [(size, *by_size[size]) for size, _, _ in flat if size in by_size]
    law = [(s, t, e) for (s, t, e) in both for z, r, _ in flat if z == s and 0.8 <= t / 1000 * r / s <= 1.25]
    return (flat, law) if len(law) >= 2 else None


def saturated_by_little(ctx: Context) -> Outcome:
    """More clients bring no more requests a second, only latency: clients over rate."""
    got = _flat(ctx)
    if got is None:
        return UNKNOWN
    queued = _queues(ctx)
    if queued and max(v for v, _ in queued) < 0.3 * got[1][-1][1]:
        return UNKNOWN  # the time goes somewhere else than into this server's queue
    return read.yes(got[0][-1][2], got[1][-1][2], got[1][0][2])


def _queues(ctx: Context) -> list[tuple[float, Evidence]]:
    return [
        (v * IN_MS.get(e.unit or "", 1.0), e) for v, e in ctx.numbers("figure", {"label": "^queue_time"})
    ]  # fmt: skip


def slow_rows_are_queue(ctx: Context) -> Outcome:
    """Of rows of requests the late ones spent nearly all of it in the queue, and the early one none."""
    rows: dict[str, dict[str, tuple[float, Evidence]]] = {}
    for name in ("ttft", "queue_time"):
        for value, item in ctx.numbers("figure", {"label": rf"^{name}[^|]*\|"}):
            scaled = value * IN_MS.get(item.unit or "", 1.0)
            rows.setdefault((item.subject.label or "").split("|")[1], {})[name] = scaled, item
    both = [(r["ttft"], r["queue_time"]) for r in rows.values() if len(r) == 2 and r["ttft"][0] > 0]
    if len(both) < 2:
        return UNKNOWN
    slow, fast = max(both, key=lambda r: r[0][0]), min(both, key=lambda r: r[0][0])
    apart = slow[0][0] >= 5 * fast[0][0] and slow[1][0] >= 0.8 * slow[0][0] and fast[1][0] <= 0.3 * fast[0][0]
    return read.yes(slow[1][1], slow[0][1], fast[0][1]) if apart else UNKNOWN


def saturated_in_the_queue(ctx: Context) -> Outcome:
    """So it is, and the server's own account puts most of that latency in its queue."""
    got = _flat(ctx)
    if got is None:
        return UNKNOWN
    top = got[1][-1][1]
    most = [e for v, e in _queues(ctx) if 0.65 * top <= v <= 1.05 * top]
    return read.yes(got[1][-1][2], most[0]) if most else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    step_past_captured_size, step_past_admission, saturated_by_little, saturated_in_the_queue, slow_rows_are_queue,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
