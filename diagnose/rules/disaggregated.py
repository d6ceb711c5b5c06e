"""Named predicates of servers that prefill and decode apart: who waits for the KV of another waits for no room."""

from __future__ import annotations

from collections.abc import Callable

from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read

_MOST = 0.6  # share of the wait that a transfer has to explain
_ALL = 0.8  # share of the waiting that are deferred


def queue_waits_for_kv(ctx: Context) -> Outcome:
    """Who waits at the server waits for KV: requests are deferred, or a transfer lasts as long as the queue."""
    late, waiting = read.top(ctx, "serving.deferred"), read.top(ctx, "serving.waiting")
    if late is not None and waiting is not None and late[0] >= 5 and late[0] >= _ALL * waiting[0]:
        return read.yes(late[1], waiting[1])
    moved, queue = read.top(ctx, "kv.xfer_time"), read.top(ctx, "serving.server.queue")
    if moved is not None and queue is not None and queue[0] >= 100 and _MOST * queue[0] <= moved[0] <= 2 * queue[0]:
        return read.yes(moved[1], queue[1])
    return UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {f.__name__: f for f in (queue_waits_for_kv,)}
