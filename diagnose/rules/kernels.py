"""Named predicates over the figures of single kernels. All readings of one kernel are judged together.

Thresholds: a global access should use most of its 32-byte sectors; a conflict-free shared access is one wavefront; a
kernel at 80 % of a roof (DRAM, SM) is called bound by it, as Nsight Compute does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from math import inf

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest

ROOF = 0.8
_Kernel = dict[str, list[tuple[float, Evidence]]]


def _kernels(ctx: Context) -> Iterator[tuple[str, _Kernel]]:
    """Kernels with their readings; those that the question names if it names some, else those that take time."""
    found: dict[str, _Kernel] = {}
    for item in ctx.of("kernel.*"):
        if isinstance(item.value, (int, float)) and not isinstance(item.value, bool):
            label = (item.subject.label or "kernel").split("|")[0]
            found.setdefault(label, {}).setdefault(item.signal, []).append((float(item.value), item))
    asked = ctx.symptom.lower()
    named = {k: v for k, v in found.items() if _named(k, asked)}
    if named:
        found = named
    longest = max((_most(v, "kernel.time") or 0.0 for v in found.values()), default=0.0)
    for label, kernel in found.items():
        time = _most(kernel, "kernel.time")
        if time is None or time >= 0.1 * longest:
            yield label, kernel


def _named(label: str, asked: str) -> bool:
    stem = re.split(r"[^\w]", label.lower().rsplit("::", 1)[-1])[0]
    return len(stem) >= 6 and stem not in ("kernel", "elementwise") and stem in asked


def _extreme(pick: Callable[[list[float]], float], kernel: _Kernel, *signals: str) -> float | None:
    values = [v for s in signals for v, _ in kernel.get(s, [])]
    return pick(values) if values else None


_most, _least = partial(_extreme, max), partial(_extreme, min)


def _cite(kernel: _Kernel, *signals: str) -> tuple[Evidence, ...]:
    return tuple(e for s in signals for _, e in kernel.get(s, []))


def _any(ctx: Context, judge: Callable[[_Kernel], tuple[bool, tuple[Evidence, ...]] | None]) -> Outcome:
    """True with the evidence of the kernels it holds for; False if it could be judged and never held."""
    used: list[Evidence] = []
    judged = False
    for _, kernel in _kernels(ctx):
        got = judge(kernel)
        if got is None:
            continue
        judged = True
        if got[0]:
            used.extend(got[1])
    if used:
        return Outcome(True, tuple(used[:8]))
    return Outcome(False) if judged else UNKNOWN


_COALESCING = (
    "kernel.load_efficiency",
    "kernel.store_efficiency",
    "kernel.excess_sectors",
    "kernel.sectors_per_request",
)


def _wasted(kernel: _Kernel) -> float | None:
    """Share of global traffic that is fetched or written and not used."""
    used = _least(kernel, "kernel.load_efficiency", "kernel.store_efficiency")
    excess = _most(kernel, "kernel.excess_sectors")
    sectors = _most(kernel, "kernel.sectors_per_request")
    wasted = [w for w in (1 - used if used is not None and used > 0 else None, excess) if w is not None]
    if sectors is not None and sectors >= 24:
        wasted.append(1 - 8 / sectors)
    if wasted:
        return max(wasted)
    return 0.0 if sectors is not None else None


def _compute_only(kernel: _Kernel) -> bool:
    memory = _most(kernel, "kernel.memory", "kernel.dram")
    return (_most(kernel, "kernel.sm") or 0.0) >= ROOF and memory is not None and memory < 0.4


def _uncoalesced(ctx: Context, least: float, below: float) -> Outcome:
    """A kernel wastes such a share of its global traffic, and memory is what it waits for."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        wasted = _wasted(kernel)
        if wasted is None:
            return None
        return least <= wasted < below and not _compute_only(kernel), _cite(kernel, *_COALESCING)

    return _any(ctx, judge)


def kernel_uncoalesced(ctx: Context) -> Outcome:
    """Half of a kernel's global traffic or more is not used, and memory is what it waits for."""
    return _uncoalesced(ctx, 0.5, inf)


def kernel_partly_uncoalesced(ctx: Context) -> Outcome:
    """Nearly a third to a half of it is not used."""
    return _uncoalesced(ctx, 0.3, 0.5)


_BANK = ("kernel.excess_wavefronts", "kernel.conflict_ways", "kernel.shared_efficiency")


def _conflicting(kernel: _Kernel) -> float | None:
    """Share of shared-memory wavefronts that conflicts cause."""
    ways, shared = _most(kernel, "kernel.conflict_ways"), _least(kernel, "kernel.shared_efficiency")
    got = [
        w
        for w in (_most(kernel, "kernel.excess_wavefronts"), 1 - 1 / ways if ways and ways >= 1 else None)
        if w is not None
    ]
    if shared is not None and 0 < shared < 0.3:
        got.append(1 - shared)
    return max(got) if got else None


def _at_roof(kernel: _Kernel) -> bool:
    return (_most(kernel, "kernel.dram") or 0.0) >= ROOF or (_most(kernel, "kernel.tensor") or 0.0) >= ROOF


def _bank_conflicts(ctx: Context, least: float, below: float) -> Outcome:
    """Conflicts cause such a share of a kernel's shared-memory wavefronts, and it is not at another roof."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        share = _conflicting(kernel)
        return None if share is None else (least <= share < below and not _at_roof(kernel), _cite(kernel, *_BANK))

    return _any(ctx, judge)


def kernel_bank_conflicts(ctx: Context) -> Outcome:
    """Half of a kernel's shared-memory wavefronts or more come from conflicts, and it is not at another roof."""
    return _bank_conflicts(ctx, 0.5, inf)


def kernel_some_bank_conflicts(ctx: Context) -> Outcome:
    """A quarter to a half of them come from conflicts."""
    return _bank_conflicts(ctx, 0.25, 0.5)


_SPILL = ("kernel.spill.bytes", "kernel.spill.count", "kernel.spill.requests", "kernel.registers")


def kernel_spills(ctx: Context) -> Outcome:
    """A kernel spills hundreds of bytes, or many values at the register ceiling."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        size = max(_most(kernel, "kernel.spill.bytes") or 0.0, 4 * (_most(kernel, "kernel.spill.count") or 0.0))
        if not any(s in kernel for s in _SPILL[:2]):
            return None
        registers = _most(kernel, "kernel.registers")
        return size >= 256 or (size >= 96 and registers is not None and registers >= 224), _cite(kernel, *_SPILL)

    return _any(ctx, judge)


def kernel_spill_requests(ctx: Context) -> Outcome:
    """The profiler counted local-memory requests of spills."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        requests = _most(kernel, "kernel.spill.requests")
        return None if requests is None else (requests >= 10_000, _cite(kernel, *_SPILL))

    return _any(ctx, judge)


def kernel_local_traffic(ctx: Context) -> Outcome:
    """Local memory, which a kernel has only for spills and indexed arrays, makes most of its memory instructions."""
    share = ctx.numbers("kernel.spill.traffic")
    if share:
        top = highest(share)
        return Outcome(top[0] >= 0.3, (top[1],))
    local, wide = ctx.numbers("kernel.local"), ctx.numbers("kernel.global")
    if not local:
        return UNKNOWN
    count, other = sum(v for v, _ in local), sum(v for v, _ in wide)
    return Outcome(count >= 100_000 and count >= 0.5 * other and bool(wide), tuple(e for _, e in [*local, *wide][:4]))


def kernel_spills_harmless(ctx: Context) -> Outcome:
    """A few spilled words in kernels that are far from the register ceiling: slow paths of sin, cos, division."""
    used: list[Evidence] = []
    for _, kernel in _kernels(ctx):
        size = max(_most(kernel, "kernel.spill.bytes") or 0.0, 4 * (_most(kernel, "kernel.spill.count") or 0.0))
        registers = _most(kernel, "kernel.registers")
        if size == 0:
            continue
        if (
            size > 64
            or registers is None
            or registers >= 128
            or (_most(kernel, "kernel.spill.requests") or 0) >= 10_000
        ):
            return Outcome(False, _cite(kernel, *_SPILL))
        used.extend(_cite(kernel, *_SPILL))
    return Outcome(True, tuple(used[:6])) if used else UNKNOWN


_OCCUPANCY = (
    "kernel.occupancy",
    "kernel.occupancy.theoretical",
    "kernel.waves",
    "kernel.dram",
    "kernel.sm",
    "kernel.memory",
)


def _latency_bound(kernel: _Kernel) -> bool | None:
    roofs = [_most(kernel, s) for s in ("kernel.dram", "kernel.sm", "kernel.memory", "kernel.tensor")]
    known = [r for r in roofs if r is not None]
    return max(known) < 0.6 if known else None


def kernel_low_occupancy(ctx: Context) -> Outcome:
    """Few warps are resident and no unit is near its peak."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        warps = _least(kernel, "kernel.occupancy", "kernel.occupancy.theoretical")
        idle = _latency_bound(kernel)
        if warps is None or idle is None:
            return None
        return warps < 0.3 and idle, _cite(kernel, *_OCCUPANCY)

    return _any(ctx, judge)


def kernel_small_grid(ctx: Context) -> Outcome:
    """The grid does not fill the GPU once, and no unit is near its peak."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        waves, blocks = _least(kernel, "kernel.waves"), _most(kernel, "kernel.grid")
        small = (waves is not None and waves < 0.5) or (blocks is not None and waves is None and blocks < 32)
        if waves is None and blocks is None:
            return None
        return bool(small and _latency_bound(kernel) is not False), _cite(
            kernel, "kernel.waves", "kernel.grid", "kernel.sm", "kernel.dram"
        )

    return _any(ctx, judge)


def kernel_occupancy_alone(ctx: Context) -> Outcome:
    """Occupancy is low and nothing says whether a unit is busy."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        warps = _least(kernel, "kernel.occupancy", "kernel.occupancy.theoretical")
        if warps is None:
            return None
        return warps < 0.3 and _latency_bound(kernel) is None, _cite(
            kernel, "kernel.occupancy", "kernel.occupancy.theoretical"
        )

    return _any(ctx, judge)


_DIVERGENCE = ("kernel.active_threads", "kernel.warp_efficiency", "kernel.branch_efficiency")


def _active(kernel: _Kernel) -> float | None:
    threads, share = _least(kernel, "kernel.active_threads"), _least(kernel, "kernel.warp_efficiency")
    got = [v for v in (threads / 32 if threads is not None else None, share) if v is not None and v > 0]
    return min(got) if got else None


def kernel_divergent(ctx: Context) -> Outcome:
    """Less than half of each warp's threads work, and memory is not the roof."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        share = _active(kernel)
        return None if share is None else (share <= 0.5 and not _at_roof(kernel), _cite(kernel, *_DIVERGENCE))

    return _any(ctx, judge)


def kernel_partly_divergent(ctx: Context) -> Outcome:
    """A good part of each warp is masked off, or many branches diverge."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        share, branches = _active(kernel), _least(kernel, "kernel.branch_efficiency")
        if share is None and branches is None:
            return None
        some = (share is not None and 0.5 < share <= 0.7) or (branches is not None and branches < 0.8)
        return some and not _at_roof(kernel), _cite(kernel, *_DIVERGENCE)

    return _any(ctx, judge)


def _wasteful(kernel: _Kernel) -> bool:
    return (_wasted(kernel) or 0.0) >= 0.3


def kernel_memory_roof(ctx: Context) -> Outcome:
    """DRAM runs at 80 % of its peak or more, on traffic that is used."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        dram, sm = _most(kernel, "kernel.dram"), _most(kernel, "kernel.sm")
        if dram is None:
            return None
        return dram >= ROOF and dram >= (sm or 0.0) and not _wasteful(kernel), _cite(kernel, "kernel.dram", "kernel.sm")

    return _any(ctx, judge)


def kernel_compute_roof(ctx: Context) -> Outcome:
    """The SM or its tensor pipe runs at 80 % of its peak or more, with whole warps."""

    def judge(kernel: _Kernel) -> tuple[bool, tuple[Evidence, ...]] | None:
        sm, tensor, dram = _most(kernel, "kernel.sm"), _most(kernel, "kernel.tensor"), _most(kernel, "kernel.dram")
        if sm is None and tensor is None:
            return None
        high = max(sm or 0.0, tensor or 0.0)
        conflicts = (_conflicting(kernel) or 0.0) >= 0.5
        return high >= ROOF and high > (dram or 0.0) and (_active(kernel) or 1.0) > 0.6 and not conflicts, _cite(
            kernel, "kernel.sm", "kernel.tensor", "kernel.dram"
        )

    return _any(ctx, judge)


def _variants(ctx: Context, worse: str, better: str, ratio: float) -> Outcome:
    """Two variants of one kernel in a benchmark, told apart by the words of their names."""
    rates = [(v, e, (e.subject.label or "").lower()) for v, e in ctx.numbers("kernel.bandwidth")]
    slow = [r for r in rates if re.search(worse, r[2])]
    fast = [r for r in rates if re.search(better, r[2]) and not re.search(worse, r[2])]
    pairs = [(f[0] / s[0], s[1], f[1]) for s in slow for f in fast if s[2].split("_")[0] == f[2].split("_")[0]]
    if not pairs:
        return UNKNOWN
    gain, low, high = highest(pairs)
    return Outcome(gain >= ratio, (low, high))


def variant_strided(ctx: Context) -> Outcome:
    """A strided or scattered variant reaches half of the rate of the contiguous one, or less."""
    return _variants(
        ctx, r"strid|uncoalesc|scatter|gather|random|misalign", r"coalesc|contig|linear|sequential|stride_?1$", 2.0
    )


def variant_conflict(ctx: Context) -> Outcome:
    """The padded or swizzled variant is a third faster than the one with conflicts."""
    return _variants(ctx, r"conflict|unpadded|nopad", r"pad|swizzl|noconflict|conflict_?free", 1.3)


KERNEL_RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        kernel_uncoalesced,
        kernel_partly_uncoalesced,
        kernel_bank_conflicts,
        kernel_some_bank_conflicts,
        kernel_spills,
        kernel_spill_requests,
        kernel_spills_harmless,
        kernel_local_traffic,
        kernel_low_occupancy,
        kernel_small_grid,
        kernel_occupancy_alone,
        kernel_divergent,
        kernel_partly_divergent,
        kernel_memory_roof,
        kernel_compute_roof,
        variant_strided,
        variant_conflict,
    )
}
