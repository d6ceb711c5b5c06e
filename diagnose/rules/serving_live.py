"""Predicates of a server that was watched over a window: its own pages say it all, no client measured beside it."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_prefix as prefix
from . import serving_queue as queue
from . import serving_read as read
from .base import Reading, highest
from .nccl_facts import overrides

_LEAST = 10  # requests in the window
_ONE = 1  # waiting at a moment: it came since the last step
_FEW = 0.1  # of those that run: so many come within a step
_WORSE = 3.0  # the slowest worker's TTFT over the fastest's
_NEAR = 0.8  # of the limit of running requests, and of the KV cache
_SPREAD = 4.0  # between the buckets of the median and of the tail
_STEPS = 20.0  # steps of decoding that a first token may take: it is prefill then, and no queue


def _percentile(ctx: Context, share: str) -> Reading | None:
    got = ctx.numbers("serving.stage_percentile", {"label": f"^ttft {share}: whole"})
    return highest(got) if got else None


def _before_first_token(ctx: Context, requests: float, ttft: float) -> float:
    """Requests that wait for their first token on the mean over the window, by Little's law.

    A gauge shows a moment: two that come together both wait in it, for a step. Without the window's length it stands.
    """
    moments = [at for at, _ in ctx.numbers("serving.scraped")]
    spent = max(moments) - min(moments)
    return requests * ttft / 1000 / spent if spent > 0 else math.inf


def watched_calm(ctx: Context) -> Outcome:
    """In the window nothing waited, no limit was near, and first tokens came evenly within some steps of decoding."""
    pages = ctx.of("serving.scraped")
    requests, ttft = read.top(ctx, "serving.server.requests"), read.top(ctx, "serving.server.ttft", "^mean$")
    step = read.top(ctx, "serving.server.itl", "^mean$") or read.top(ctx, "serving.server.tpot", "^mean$")
    waiting, running, kv = read.waiting(ctx), read.running(ctx), read.kv(ctx)
    if not pages or requests is None or ttft is None or step is None or waiting is None or running is None:
        return UNKNOWN
    if requests[0] < _LEAST:
        return UNKNOWN
    used: list[Evidence] = [ttft[1], step[1], requests[1], waiting[1], running[1]]
    cap, lost, share = read.cap(ctx), read.top(ctx, "serving.preemptions"), read.top(ctx, "serving.queue_share")
    busiest = read.top(ctx, "serving.running") or running
    near = cap is not None and busiest[0] > _NEAR * cap[0]
    full = kv is not None and kv[0] > _NEAR
    if (
        (waiting[0] > max(_ONE, _FEW * busiest[0]) and _before_first_token(ctx, requests[0], ttft[0]) > _ONE)
        or near
        or full
        or (lost is not None and lost[0] > 0)
        or (share is not None and share[0] > 0.1)
    ):
        return read.no(waiting[1], running[1], kv[1] if kv else None)
    usual, tail = _percentile(ctx, "p50"), _percentile(ctx, "p9[09]")
    if usual is None or tail is None:
        return UNKNOWN
    prefill = queue.prefill_dominates(ctx).holds or prefix.off_and_prefill(ctx).holds
    if prefill or tail[0] > _SPREAD * usual[0] or ttft[0] > _STEPS * step[0]:
        return read.no(tail[1], usual[1], ttft[1], step[1])
    return read.yes(*used, tail[1], kv[1] if kv else None)


def slow_worker_alike(ctx: Context) -> Outcome:
    """One worker is several times slower than another that was given the same: what fills up there is slow work."""
    apart = read.top(ctx, "serving.worker_spread")
    if apart is None:
        return UNKNOWN
    for name in ("^num-gpu-blocks", read.CAPS, read.FRACTIONS):
        if len({value for value, _ in read.option(ctx, name)}) > 1:
            return read.no(apart[1])
    return read.yes(apart[1]) if apart[0] >= _WORSE else read.no(apart[1])


def group_path_forbidden(ctx: Context) -> Outcome:
    """A model is split over GPUs, and a variable of the server keeps NCCL off the path between them."""
    split = [s for s in read.option(ctx, read.TENSOR_PARALLEL) if s[0] > 1]
    forbidden = overrides(ctx)
    if not split or not forbidden:
        return UNKNOWN
    return read.yes(split[0][1], *forbidden[:2])


RULES: dict[str, Callable[[Context], Outcome]] = {
    r.__name__: r for r in (watched_calm, slow_worker_alike, group_path_forbidden)
}
