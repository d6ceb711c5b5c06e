"""Named predicates: CPUs that a job may use against what it starts, loads that get faster the second time."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest, lowest, outcome

_PERFORMANCE = regex(r"time|latency|throughput|bandwidth|iterations|ttft|tpot|itl|e2e|prefill|decode|rate|util", re.I)


def _granted(ctx: Context) -> list[Reading]:
    """CPUs of one process or container: affinity, quota, cpuset, the batch system's share."""
    out = [*ctx.numbers("host.cpu.quota")]
    out += [r for r in ctx.numbers("host.cpu.allowed_count") if r[1].subject.label != "nproc" or r[0] <= 32]
    return out


def _options(ctx: Context, names: str) -> list[Reading]:
    """Numbers given to options of the batch system, launcher or container: ``gpu:8`` -> 8."""
    out = []
    for signal in ("slurm.option", "serving.arg", "container.gpus"):
        for item in ctx.of(signal, {"label": names}):
            hit = re.search(r"(\d+)\s*(?:\(|$)", str(item.value))
            if hit is not None:
                out.append((float(hit.group(1)), item))
    return out


_RANKS = (
    r"^(?:ntasks-per-node|nproc[-_]per[-_]node|gres|gpus(?:-per-node)?|nvidia\.com/gpu|TresPerNode|Gres|num-processes)$"
)


def cpus_below_ranks(ctx: Context) -> Outcome:
    """The CPUs of the job are no more than the GPUs or ranks that it feeds."""
    granted, ranks = _granted(ctx), [r for r in _options(ctx, _RANKS) if 2 <= r[0] <= 16]
    if not granted or not ranks:
        return UNKNOWN
    few, many = lowest(granted), highest(ranks)
    # a task that is bound to its own two CPUs has as few as one that shares two with all others
    return Outcome(few[0] <= many[0] and few[0] <= 16, (few[1], many[1]))


def affinity_differs(ctx: Context) -> Outcome:
    """The same machine grants many CPUs in one way of starting and few in the other."""
    seen = [r for r in ctx.numbers("host.cpu.allowed_count") if r[0] >= 1]
    if len(seen) < 2:
        return UNKNOWN
    low, high = lowest(seen), highest(seen)
    return Outcome(low[0] <= 16 and high[0] >= 4 * low[0], (low[1], high[1]))


def few_cpus_and_slower(ctx: Context) -> Outcome:
    """Few CPUs for many ranks, or fewer than in the other way of starting, and the job is slow there."""
    short = cpus_below_ranks(ctx)
    other = affinity_differs(ctx)
    if not (short.holds or other.holds):
        return UNKNOWN if short.holds is None and other.holds is None else Outcome(False)
    if short.holds and other.holds:
        return Outcome(True, (*short.used, *other.used))
    slower = [
        e for v, e in ctx.numbers("compare.ratio")
        if v >= 1.2 and _PERFORMANCE.search((e.subject.label or "||").split("|")[1])
    ]  # fmt: skip
    used = short.used if short.holds else other.used
    return Outcome(bool(slower), (*used, *slower[:2]))


def workers_above_cpus(ctx: Context) -> Outcome:
    """Loader workers times ranks are a multiple of the CPUs that may be used."""
    granted = _granted(ctx) or ctx.numbers("host.cpu.count")
    workers = [r for r in ctx.numbers("host.workers") if r[0] >= 1]
    if not granted or not workers:
        return UNKNOWN
    ranks = max((v for v, _ in _options(ctx, _RANKS) if 1 <= v <= 16), default=1.0)
    few, many = lowest(granted), highest(workers)
    return Outcome(many[0] * ranks >= 2 * few[0], (many[1], few[1]))


def load_faster_again(ctx: Context) -> Outcome:
    """The same load takes a fraction of the time when the page cache holds the files."""
    groups: dict[str, list[Reading]] = {}
    for value, item in (*ctx.numbers("host.load_time"), *ctx.numbers("host.shard_time")):
        if value > 0:
            groups.setdefault(item.subject.label or "", []).append((value, item))
    hits: list[Evidence] = []
    for group in groups.values():
        low, high = lowest(group), highest(group)
        if high[0] >= 3 * low[0] and high[0] >= 30:
            hits += [high[1], low[1]]
    return outcome(hits, any(len(g) > 1 for g in groups.values()))


def network_volume_slow(ctx: Context) -> Outcome:
    """A network volume is mounted for models or data, and loading from there is measured slow."""
    kinds = re.compile(r"nfs|cifs|lustre|fuse|ceph|gpfs|beegfs")
    mounts = [*ctx.of("host.mark.network_volume"), *(e for e in ctx.of("host.filesystem") if kinds.match(str(e.value)))]
    if not mounts:
        return UNKNOWN
    slow = [e for v, e in ctx.numbers("host.load_rate") if v < 0.5]
    slow += [e for v, e in ctx.numbers("host.load_time") if v >= 120]
    slow += [e for v, e in ctx.numbers("host.shard_time") if v >= 10]
    again = load_faster_again(ctx)
    return Outcome(bool(slow or again.holds), (*mounts[:2], *slow[:2], *again.used[:2]))


def first_epoch_slow(ctx: Context) -> Outcome:
    """Only the epoch that reads from storage is slow: the first, or the one after the cache was dropped."""
    epochs: dict[int, Reading] = {}
    for value, item in ctx.numbers("figure", {"label": r"^epoch_time\|"}):
        hit = re.search(r"(\d{1,3})\s*$", item.subject.label or "")
        if hit is not None:
            epochs.setdefault(int(hit.group(1)), (value, item))
    if len(epochs) < 2 or min(epochs) > 1:
        return UNKNOWN
    first = epochs.pop(min(epochs))
    later = lowest(epochs.values())
    return Outcome(first[0] >= 1.6 * later[0], (first[1], later[1]))


def first_epoch_slow_from_network(ctx: Context) -> Outcome:
    """… and the data lies on a network volume, or the page cache is what differs."""
    slow = first_epoch_slow(ctx)
    why = [*ctx.of("host.mark.network_volume"), *ctx.of("host.mark.page_cache")]
    if not slow.holds:
        return slow
    return Outcome(bool(why), (*slow.used, *why[:2]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        cpus_below_ranks, affinity_differs, few_cpus_and_slower, workers_above_cpus, load_faster_again,
        network_volume_slow,
        first_epoch_slow,
        first_epoch_slow_from_network,
    )
}  # fmt: skip
