"""Named predicates over what does not fit: it spills into slower memory, and everything waits for that."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest, lowest
from .comparison import ratios

_SLOW = (
    "bad-tpot",
    "low-throughput",
    "high-ttft",
    "high-p99",
    "gpu-underutilized",
    "training-slow",
    "kernel-slow",
    "out-of-memory",
)


def layers_spill(ctx: Context) -> Outcome:
    """Part of the layers lies outside the GPU, its memory is full or too small, and nobody asked for fewer layers."""
    outside = ctx.numbers("gpu.layers_outside")
    apart = [n for n in outside if 0.02 <= n[0] <= 0.98]
    said = ctx.of("gpu.spilled")
    if not (apart or said) or not ctx.asks(*_SLOW):
        return UNKNOWN
    free = [
        (t, e) for t, e in ctx.numbers("gpu.memory.total") for u, _ in ctx.numbers("gpu.memory.used") if u < 0.7 * t
    ]  # fmt: skip
    if free:
        return read.no(free[0][1])
    whole = [e for v, e in outside if v == 0]
    worst = max(apart, key=lambda n: n[0], default=None)
    return read.yes(worst[1] if worst else None, *whole[:1], *said[:1])


def memory_lent_by_host(ctx: Context) -> Outcome:
    """The card's own memory is full and gigabytes of the host's stand in for what it lacks."""
    full = [n for n in ctx.numbers("gpu.dedicated_share") if n[0] >= 0.92]
    lent = [n for n in ctx.numbers("gpu.shared_used") if n[0] >= 0.8]
    little = [e for v, e in ctx.numbers("gpu.shared_used") if v < 0.5]
    if not lent:
        return UNKNOWN
    most = highest(lent)
    if full:
        return read.yes(most[1], full[0][1])
    # Without the card's own figure the other state is what shows it: with less, next to nothing is lent.
    return read.yes(most[1], little[0]) if little and most[0] >= 2 else UNKNOWN


def mapped_beyond_memory(ctx: Context) -> Outcome:
    """A mapped file is larger than the memory it is read through, and its pages are read again and again."""
    files, rams = ctx.numbers("host.mapped_file"), ctx.numbers("host.ram_said")
    rams = rams + ctx.numbers("host.memory.limit") or ctx.numbers("host.memory.total")
    again: list[Evidence] = [e for v, e in ctx.numbers("host.major_faults") if v >= 300]
    again += [e for v, e in ctx.numbers("host.blocks_in") if v >= 1e5]
    again += [e for v, e in ctx.numbers("host.refaults") if v >= 1e6]
    again += [e for v, e in ctx.numbers("host.cpu.iowait") if v >= 0.2]
    if not files or not rams:
        return UNKNOWN
    large, room = highest(files), lowest(rams)
    if large[0] < 0.95 * room[0]:
        return read.no(large[1], room[1])
    fits = [e for v, e in files if v < 0.95 * room[0]]
    apart = [r.evidence for r in ratios(ctx) if r.value >= 3] if fits else []
    return read.yes(large[1], room[1], *again[:1], *fits[:1]) if again or apart else UNKNOWN


_FALLBACK = r"sys(?:tem|mem)?[ -]?mem(?:ory)? fallback|sysmem fallback"


def fallback_hides_oom(ctx: Context) -> Outcome:
    """Without the driver's fallback to the host's memory the same work runs out of memory."""
    policy = [e for e in ctx.of("gpu.mark.sysmem_fallback") if re.search(_FALLBACK, e.quote or "", re.I)]
    oom = ctx.of("gpu.mark.oom*")
    return read.yes(policy[0], oom[0]) if policy and oom else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    layers_spill, memory_lent_by_host, mapped_beyond_memory, fallback_hides_oom,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
