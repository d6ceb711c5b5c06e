"""Named predicates about series on one clock: why a GPU is idle while the network is busy."""

from __future__ import annotations

from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest

WORKS = 0.2  # of the time in which the network is at work: less is not "busy"
WAITS = 0.5  # of those moments in which the GPU is idle
LOST = 0.002  # of the segments sent again: a fabric for this work loses next to none
MANY = 200.0  # retransmissions a second, where the number of segments is not known
SMALL = 1 << 16  # bytes of a transfer: starting it costs more than moving it
FULL = 0.95  # of one core
STARVED = 0.1  # of the time ready without a CPU
SHORT = 0.7  # of the link's speed: less than that is not the wire's limit


def _value(ctx: Context, signal: str) -> tuple[float, Evidence] | None:
    got = ctx.numbers(f"clock.{signal}")
    return got[0] if got else None


def _idle(ctx: Context) -> tuple[Evidence, ...] | None:
    """The GPU is idle while the network works, by the same clock; () where that is not so, None where unknown."""
    works, waits, busy = _value(ctx, "net_busy"), _value(ctx, "idle_in_net"), _value(ctx, "gpu_busy")
    if works is None or waits is None or busy is None:
        return None
    return (waits[1], works[1]) if works[0] >= WORKS and waits[0] >= WAITS and busy[0] <= 0.9 else ()


def _with(ctx: Context, signal: str, holds: Callable[[float], bool]) -> Outcome:
    idle, said = _idle(ctx), _value(ctx, signal)
    if idle is None or said is None:
        return UNKNOWN
    return Outcome(bool(idle) and holds(said[0]), (said[1], *idle))


def clock_retransmits(ctx: Context) -> Outcome:
    """Segments are sent again in the very moments in which the GPU waits for the network."""
    share = _with(ctx, "retransmit_share", lambda v: v >= LOST)
    return share if share.holds is not None else _with(ctx, "retransmits", lambda v: v >= MANY)


def clock_tiny(ctx: Context) -> Outcome:
    """The network is busy with transfers so small that starting them is the cost."""
    return _with(ctx, "transfer_size", lambda v: v < SMALL)


def clock_fallback(ctx: Context) -> Outcome:
    """The RDMA ports are silent while the network interfaces carry the bytes."""
    return _with(ctx, "rdma_share", lambda v: v <= 0.1)


def clock_starved(ctx: Context) -> Outcome:
    """Threads are ready and have no CPU while the GPU waits: what completes the transfers does not run."""
    return _with(ctx, "gap", lambda v: v >= STARVED)


def clock_core_full(ctx: Context) -> Outcome:
    """One core is full while the GPU waits and the wire is not."""
    got = _with(ctx, "core", lambda v: v >= FULL)
    link = _value(ctx, "net_of_link")
    if got.holds and link is not None and link[0] >= SHORT:
        return Outcome(False, (link[1],))
    return got


def clock_straggler(ctx: Context) -> Outcome:
    """One rank hardly waits in collectives, the others do: they wait for it."""
    least, waits = _value(ctx, "wait_least"), ctx.numbers("clock.wait")
    if least is None:
        return UNKNOWN
    most = highest(waits)
    return Outcome(least[0] <= 0.3 and most[0] > 0, (least[1], most[1]))


def _nodes(ctx: Context, label: str) -> dict[int, Evidence]:
    return {int(v): e for v, e in ctx.numbers("clock.place", {"label": f"^{label}$"}) if v >= 0}


def clock_nic_far(ctx: Context) -> Outcome:
    """The adapter that carries the bytes sits on another NUMA node than every GPU."""
    idle = _idle(ctx)
    alive = {e.subject.nic for e in ctx.of("clock.series", {"label": "^(net|ib)$"})}
    nics = {e.subject.nic: (v, e) for v, e in ctx.numbers("clock.place", {"label": "^nic$"}) if v >= 0}
    gpus, used = _nodes(ctx, "gpu"), [nics[n] for n in nics if n in alive]
    if idle is None or not gpus or not used:
        return UNKNOWN
    return Outcome(bool(idle) and all(v not in gpus for v, _ in used), (used[0][1], *list(gpus.values())[:1], *idle))


def clock_process_far(ctx: Context) -> Outcome:
    """The processes run on another NUMA node than every GPU."""
    idle, gpus, own = _idle(ctx), _nodes(ctx, "gpu"), _nodes(ctx, "process")
    if idle is None or not gpus or not own:
        return UNKNOWN
    return Outcome(bool(idle) and not set(gpus) & set(own), (*list(own.values())[:1], *list(gpus.values())[:1], *idle))


ELSE = (clock_retransmits, clock_fallback, clock_tiny, clock_starved, clock_core_full, clock_straggler)


def clock_no_overlap(ctx: Context) -> Outcome:
    """GPU and network work in turn, and nothing else explains it."""
    idle, together = _idle(ctx), _value(ctx, "correlation")
    if idle is None or together is None:
        return UNKNOWN
    if any(rule(ctx).holds for rule in ELSE):
        return Outcome(None, (together[1],))
    return Outcome(bool(idle) and together[0] <= -0.5, (together[1], *idle))


def clock_overlapped(ctx: Context) -> Outcome:
    """The GPUs compute while the network works: whatever it carries is hidden."""
    works, waits, busy = _value(ctx, "net_busy"), _value(ctx, "idle_in_net"), _value(ctx, "gpu_busy")
    if works is None or waits is None or busy is None:
        return UNKNOWN
    return Outcome(busy[0] >= 0.9 and waits[0] <= 0.1 and works[0] >= WORKS, (busy[1], waits[1]))


CLOCK: tuple[Callable[[Context], Outcome], ...] = (
    *ELSE, clock_nic_far, clock_process_far, clock_no_overlap, clock_overlapped,
)  # fmt: skip
RULES = {rule.__name__: rule for rule in CLOCK}
