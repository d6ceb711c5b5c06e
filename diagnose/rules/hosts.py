"""Named predicates of hosts: CPUs, NUMA, memory and storage held together."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest, outcome


def _cpus(ctx: Context) -> tuple[float, Evidence] | None:
    """CPUs that may be used: quota or affinity if known, else what the machine shows."""
    tight = [*ctx.numbers("host.cpu.quota"), *ctx.numbers("host.cpu.allowed_count")]
    if tight:
        return lowest(tight)
    shown = ctx.numbers("host.cpu.count")
    return highest(shown) if shown else None


def _served_at_once(ctx: Context) -> tuple[Evidence, ...]:
    """A watched server whose threads get a CPU when they want one: what else runs there does not slow it."""
    waits = ctx.numbers("host.process.wait")
    if not waits or not ctx.of("serving.scraped"):
        return ()
    worst = highest(waits)
    return (worst[1],) if worst[0] < 0.1 else ()


def served_at_once(ctx: Context) -> Outcome:
    """A server is watched, and its threads get a CPU when they want one."""
    free = _served_at_once(ctx)
    return Outcome(True, free) if free else UNKNOWN


def stalls_for_cpu(ctx: Context) -> Outcome:
    """Tasks stall for CPU, and where a server is watched its threads are among them."""
    stalls = ctx.numbers("host.psi", {"label": "^cpu"})
    if not stalls:
        return UNKNOWN
    worst, free = highest(stalls), _served_at_once(ctx)
    return Outcome(worst[0] >= 0.15 and not free, (worst[1], *free))


def load_above_cpus(ctx: Context) -> Outcome:
    """Load average or run queue clearly above the CPUs."""
    if free := _served_at_once(ctx):
        return Outcome(False, free)
    cpus = _cpus(ctx)
    loads = [*ctx.numbers("host.load"), *ctx.numbers("host.cpu.run_queue")]
    if cpus is None or not loads:
        return UNKNOWN
    load = highest(loads)
    return Outcome(load[0] > 1.3 * cpus[0], (load[1], cpus[1]))


def load_within_cpus(ctx: Context) -> Outcome:
    """The load stays well below the CPUs, much of them idles, and the question is whether they are too few."""
    cpus, loads, idle = _cpus(ctx), ctx.numbers("host.load"), ctx.numbers("host.cpu.idle")
    bad = ("host.cpu.throttled", "host.cpu.steal", "host.mark.cpu_starved", "host.cpu.softirq")
    asks = re.search(r"\bcpus?\b|\bload\b|\bcores?\b|负载|核", ctx.symptom, re.IGNORECASE)
    if cpus is None or not loads or not idle or asks is None or any(v > 0.02 for s in bad for v, _ in ctx.numbers(s)):
        return UNKNOWN
    load, least = highest(loads), lowest(idle)
    return Outcome(load[0] <= 0.7 * cpus[0] and least[0] >= 0.3, (load[1], cpus[1], least[1]))


def load_far_above_cpus(ctx: Context) -> Outcome:
    """… twice the CPUs or more."""
    got = load_above_cpus(ctx)
    if not got.holds:
        return got
    return Outcome(float(str(got.used[0].value)) >= 2 * float(str(got.used[1].value)), got.used)


def quota_far_below_cpus(ctx: Context) -> Outcome:
    """The quota is a small part of the CPUs that thread pools will count, and none was told so."""
    quotas, shown = ctx.numbers("host.cpu.quota"), ctx.numbers("host.cpu.count")
    if not quotas or not shown:
        return UNKNOWN
    quota, count = lowest(quotas), highest(shown)
    told = ctx.of("env.var", {"label": r"^(?:OMP|MKL|OPENBLAS)_NUM_THREADS$"})
    return Outcome(count[0] >= 4 * quota[0] and not told, (quota[1], count[1]))


def threads_above_cpus(ctx: Context) -> Outcome:
    """A thread variable asks for more threads than there are CPUs."""
    cpus = _cpus(ctx)
    asked = [
        (int(str(e.value)), e)
        for e in ctx.of("env.var", {"label": r"^(?:OMP|MKL|OPENBLAS)_NUM_THREADS$"})
        if str(e.value).isdigit()
    ]
    if cpus is None or not asked:
        return UNKNOWN
    most = highest(asked)
    return Outcome(most[0] >= 2 * cpus[0], (most[1], cpus[1]))


def native_threads_burn(ctx: Context) -> Outcome:
    """py-spy: always active, hardly ever with the GIL: native threads use the CPU up."""
    active, gil = ctx.numbers("host.pyspy.active"), ctx.numbers("host.pyspy.gil")
    if not active or not gil:
        return UNKNOWN
    return Outcome(active[0][0] >= 0.9 and gil[0][0] <= 0.3, (active[0][1], gil[0][1]))


def native_threads_many_cpus(ctx: Context) -> Outcome:
    """… in a process whose pool is sized by many visible CPUs, with no thread limit set."""
    burn, shown = native_threads_burn(ctx), ctx.numbers("host.cpu.count")
    if not burn.holds or not shown:
        return burn if burn.holds is False else UNKNOWN
    count = highest(shown)
    told = ctx.of("env.var", {"label": r"^OMP_NUM_THREADS$"})
    tops = [e for v, e in ctx.numbers("host.pyspy.function") if v >= 0.3]
    return Outcome(count[0] >= 32 and not told, (count[1], *tops[:1]))


def one_cpu_for_many(ctx: Context) -> Outcome:
    """A process is held to one or two CPUs on a machine that has many."""
    allowed = [
        (v, e) for v, e in ctx.numbers("host.cpu.allowed_count") if e.subject.label in ("affinity", "taskset", "cpuset")
    ]
    if not allowed:
        return UNKNOWN
    few = lowest(allowed)
    shown = ctx.numbers("host.cpu.count")
    return Outcome(few[0] <= 2 and (not shown or shown[0][0] >= 8), (few[1], *(e for _, e in shown[:1])))


def cpu_saturated(ctx: Context) -> Outcome:
    """All CPUs together have no idle time left."""
    idle = [(v, e) for v, e in ctx.numbers("host.cpu.idle") if not (e.subject.label or "").strip("Cpu").isdigit()]
    if not idle:
        return UNKNOWN
    low, free = lowest(idle), _served_at_once(ctx)
    if free:
        return Outcome(False, free)
    waiting = max((v for v, _ in ctx.numbers("host.cpu.iowait")), default=0.0)
    return Outcome(low[0] <= 0.05 and waiting < 0.2, (low[1],))


_CPU_SETTING = regex(
    r"thread|core|vcpu|cpus?\b\s*[=:]?\s*\d|\d\s*cpus?\b|quota|limit|pin|taskset|affinity|omp|nproc", re.IGNORECASE
)
_OF_A_KERNEL = regex(r"(?:/|per|in a) ?(?:instruction|warp|block|cta|sm)\b|thread ?block|threads active", re.I)
_SPEED = regex(
    r"time|goodput|latency|throughput|bandwidth|iterations|ttft|tpot|itl|e2e|prefill|rate|util", re.IGNORECASE
)


def _cpu_setting(ctx: Context, factor: float) -> Outcome:
    found = []
    for value, item in ctx.numbers("compare.ratio"):
        axis, metric, *settings = (item.subject.label or "|").split("|")
        if "progress" in (item.subject.label or ""):
            continue  # a library's progress thread polls for completions: no matter of CPUs
        if _OF_A_KERNEL.search(item.quote or ""):
            continue
        named = axis == "threads" or (axis == "cpu" and any(_CPU_SETTING.search(s) for s in settings))
        # a column headed by the thread variable: its settings are bare numbers, or "unset"
        named = named or (axis == "env" and bool(ctx.of("host.mark.thread_var")))
        if named and _SPEED.search(metric):
            found.append((value, item))
    return outcome([e for v, e in found if v >= factor], bool(found))


def cpu_setting_matters(ctx: Context) -> Outcome:
    """The same work is faster with another number of threads or CPUs."""
    return _cpu_setting(ctx, 1.3)


def cpu_setting_matters_much(ctx: Context) -> Outcome:
    """… by a large factor."""
    return _cpu_setting(ctx, 2.5)


def container_at_its_cpus(ctx: Context) -> Outcome:
    """A container or process uses as many CPUs as its quota grants."""
    quotas, used = ctx.numbers("host.cpu.quota"), ctx.numbers("host.process.cpu")
    if not quotas or not used:
        return UNKNOWN
    quota, most = lowest(quotas), highest(used)
    return Outcome(most[0] >= 0.93 * quota[0], (most[1], quota[1]))


def _cpu_set(text: str) -> set[int]:
    out: set[int] = set()
    for part in text.replace(" ", ",").split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            out |= set(range(int(low), int(high if high.isdigit() else low) + 1))
    return out


_ON_GPU = regex(r"\b(?:GPU|cuda)[ :]?(\d{1,2})\b", re.I)


def _used_gpus(ctx: Context) -> set[int]:
    """GPUs that the job was given, or the one that copies were timed on; empty where nothing says so."""
    given = [str(e.value) for e in ctx.of("env.var", {"label": "^(CUDA|HIP|NVIDIA)_VISIBLE_DEVICES$"})]
    given += [str(e.value) for e in ctx.of("container.gpus") if re.search(r"device=|\d,\d", str(e.value))]
    used = {
        int(n) for text in given for n in re.findall(r"(?<![\w.-])\d{1,2}(?![\w.-])", text.partition("=")[2] or text)
    }
    if used:
        return used
    timed = [e for s in ("copy.bandwidth", "figure") for v, e in ctx.numbers(s) if e.unit == "GB/s"]
    named = {int(n) for e in timed for n in _ON_GPU.findall(e.quote or "")}
    return named if len(named) == 1 else set()


def bound_to_far_node(ctx: Context) -> Outcome:
    """A process is bound to CPUs or memory of a node that is not its GPU's, and all GPUs named are far from it."""
    binds = ctx.of("host.numa.bind")
    nodes = ctx.numbers("gpu.numa") or [(v, e) for v, e in ctx.numbers("pci.numa") if v >= 0]
    near = [(_cpu_set(str(e.value)), e) for e in ctx.of("topo.cpu_affinity")]
    ranks = {e.subject.rank: e for e in binds if e.subject.rank is not None}
    if ranks:  # local ranks take the GPU of their number
        places = {e.subject.gpu: (v, e) for v, e in nodes}
        far_ranks = [(e, places[r][1]) for r, e in ranks.items() if r in places and str(int(places[r][0])) != e.value]
        return outcome([e for pair in far_ranks for e in pair], any(r in places for r in ranks))
    used = _used_gpus(ctx)
    if used & {e.subject.gpu for _, e in (*nodes, *near)}:
        nodes = [(v, e) for v, e in nodes if e.subject.gpu in used]
        near = [(s, e) for s, e in near if e.subject.gpu in used]
    bound = [e for e in binds if re.search(r"node|membind|mems|preferred|^m$|^N$|localalloc", e.subject.label or "")]
    if bound and nodes:
        wanted = {int(n) for e in bound for n in re.findall(r"\d+", str(e.value))}
        there = {int(v) for v, _ in nodes}
        if wanted and there and len(there) > 1 and len(wanted) < len(there):
            far = [e for v, e in nodes if int(v) not in wanted]
            return Outcome(bool(far), (*bound[:3], *far[:2]))
        if wanted and there:
            return Outcome(not wanted & there, (*bound[:3], nodes[0][1]))
    cpus = [(_cpu_set(str(e.value)), e) for e in ctx.of("host.cpu.allowed")]
    if cpus and near and len({frozenset(s) for s, _ in near}) == 1:
        far_set = next(((s, e) for s, e in cpus if not s & near[0][0]), cpus[0])
        return Outcome(not far_set[0] & near[0][0], (far_set[1], near[0][1]))
    return UNKNOWN


def far_binding_is_slow(ctx: Context) -> Outcome:
    """… and the same copy or work is clearly faster without this binding or under another."""
    far = bound_to_far_node(ctx)
    if not far.holds:
        return far
    rows: dict[str, list[tuple[float, Evidence]]] = {}
    for signal in ("copy.bandwidth", "figure"):
        for value, item in ctx.numbers(signal):
            if item.unit == "GB/s" and item.quote and value > 0:
                rows.setdefault(item.quote, []).append((value, item))
    for row in rows.values():
        low, high = lowest(row), highest(row)
        if 1.3 <= high[0] / low[0] <= 6:
            return Outcome(True, (*far.used, low[1], high[1]))
    return Outcome(None, far.used)


def numa_misses(ctx: Context) -> Outcome:
    """A good part of a node's allocations were meant for another node."""
    hits = {e.subject.label: (v, e) for v, e in ctx.numbers("host.numa.hit")}
    found = [
        e
        for v, e in ctx.numbers("host.numa.miss")
        for h in [hits.get(e.subject.label)]
        if h is not None and v > 0.1 * h[0] and v > 1e5
    ]
    return outcome(found, bool(hits))


# a setting that says where CPUs or memory are: "cores 0-63 (node0)", "membind=1", "socket 0"
_PLACED = regex(
    r"(?:cores?|cpus?|mem\w*|bind\w*|bound|pinned|process|buffers?|socket|numa)\b[^|]{0,24}"
    r"(?:node|socket|numa|\d+ ?- ?\d+)|socket ?\d|numa ?\d|membind|cpunodebind",
    re.IGNORECASE,
)


def numa_slower_side(ctx: Context) -> Outcome:
    """The same work is clearly slower under one NUMA binding than under another."""
    found = []
    for v, e in ctx.numbers("compare.ratio"):
        axis, metric, *settings = (e.subject.label or "|").split("|")
        placed = len(settings) == 2 and all(_PLACED.search(s) for s in settings)
        if (axis == "numa" or placed) and _SPEED.search(metric):
            found.append((v, e))
    return outcome([e for v, e in found if v >= 1.15], bool(found))


def memory_exhausted(ctx: Context) -> Outcome:
    """Hardly any host memory is available."""
    total, left = ctx.numbers("host.memory.total"), ctx.numbers("host.memory.available")
    if not total or not left:
        return UNKNOWN
    most, least = highest(total), lowest(left)
    return Outcome(least[0] < 0.03 * most[0], (least[1], most[1]))


def swapping(ctx: Context) -> Outcome:
    """Pages move in and out of swap all the time."""
    seen = [*ctx.numbers("host.swap.in"), *ctx.numbers("host.swap.out")]
    return outcome([e for v, e in seen if v >= 1000], bool(seen))


def swap_in_use(ctx: Context) -> Outcome:
    """A good part of swap is in use while memory is short."""
    used, total = ctx.numbers("host.swap.used"), ctx.numbers("host.swap.total")
    if not used or not total:
        return UNKNOWN
    left, whole = ctx.numbers("host.memory.available"), ctx.numbers("host.memory.total")
    short = bool(left and whole) and left[0][0] < 0.1 * whole[0][0]
    return Outcome(used[0][0] >= 0.3 * total[0][0] and used[0][0] >= 1 and short, (used[0][1], total[0][1]))


def disk_saturated(ctx: Context) -> Outcome:
    """A disk is busy all the time and its requests wait."""
    util = {e.subject.label: (v, e) for v, e in ctx.numbers("host.disk.util")}
    waits = {e.subject.label: (v, e) for v, e in ctx.numbers("host.disk.await")}
    hits = [e for name, (v, e) in util.items() if v >= 0.9 and (name not in waits or waits[name][0] >= 10)]
    hits += [e for name, (v, e) in waits.items() if v >= 50 and name in util and util[name][0] >= 0.5]
    return outcome(hits, bool(util))


def weights_load_slowly(ctx: Context) -> Outcome:
    """Weights come in at a rate that no local disk has, or take minutes."""
    rates, times, shards = (ctx.numbers(f"host.{n}") for n in ("load_rate", "load_time", "shard_time"))
    hits = [e for v, e in rates if v < 0.25]
    if not rates:
        hits += [e for v, e in times if v >= 180]
    hits += [e for v, e in shards if v >= 20]
    return outcome(hits, bool(rates or times or shards))


def network_filesystem(ctx: Context) -> Outcome:
    """A network file system is mounted where data or models live, and something is slow there."""
    mounts = [
        e
        for e in ctx.of("host.filesystem")
        if re.match(r"nfs|cifs|lustre|fuse|ceph|gpfs|beegfs|9p|glusterfs|weka", str(e.value))
    ]
    slow = weights_load_slowly(ctx)
    waits = [e for v, e in ctx.numbers("host.cpu.iowait") if v >= 0.2]
    if not mounts:
        return UNKNOWN
    return Outcome(bool(slow.holds or waits or ctx.of("host.mark.task_blocked")), (*mounts[:2], *waits[:1]))


def slow_disk_rate(ctx: Context) -> Outcome:
    """A storage test gives less than a SATA disk's rate."""
    seen = ctx.numbers("host.disk.rate")
    return outcome([e for v, e in seen if v < 0.2], bool(seen))


_HELD_SAVE = 60.0  # seconds; a run that stands so long for a save is missed by nobody
_AT_SAVES = regex(
    r"\bsav(?:e|es|ing)\b|checkpoint|ckpt|every \w+|periodic|regular|holes?\b|goodput|wall.?clock|\bday\b|ever so often"
    r"|\baverage\b.{0,40}\b(?:below|under|lower)|pauses?|freez|stalls?|保存|每隔|每到|周期|定期|断点|间隔|时间就",
    re.I,
)


def saves_stall(ctx: Context) -> Outcome:
    """A save stops the run for minutes: for a good part of it as far as that is known, and somebody noticed."""
    long, shares = ctx.numbers("host.save.time"), ctx.numbers("host.save.share")
    if not long:
        return UNKNOWN
    most = highest(long)
    if shares:
        share = highest(shares)
        return Outcome(share[0] >= 0.04 and most[0] >= 20, (share[1], most[1]))
    if most[0] < _HELD_SAVE:
        return Outcome(False, (most[1],))
    slow = [e for v, e in ctx.numbers("host.disk.rate") if v < 1.0]
    return Outcome(True, (most[1], *slow[:1])) if slow or _AT_SAVES.search(ctx.symptom) else Outcome(None, (most[1],))


def saves_are_short(ctx: Context) -> Outcome:
    """A save takes next to nothing of the run."""
    long, shares = ctx.numbers("host.save.time"), ctx.numbers("host.save.share")
    if not long:
        return UNKNOWN
    return Outcome(highest(shares)[0] < 0.015 if shares else highest(long)[0] < 10, (highest(long)[1],))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        served_at_once, stalls_for_cpu, load_above_cpus, load_within_cpus, load_far_above_cpus,
        quota_far_below_cpus, threads_above_cpus, native_threads_burn,
        native_threads_many_cpus, one_cpu_for_many, cpu_saturated, bound_to_far_node,
        far_binding_is_slow, numa_misses, numa_slower_side,
        memory_exhausted, swapping, swap_in_use, disk_saturated, weights_load_slowly, network_filesystem,
        slow_disk_rate, saves_stall, saves_are_short,
        cpu_setting_matters, cpu_setting_matters_much, container_at_its_cpus,
    )
}  # fmt: skip
