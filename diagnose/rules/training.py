"""Named predicates of the training family: profiles, traces of several ranks, single kernels, copy benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest
from .kernel_variants import KERNEL_VARIANT_RULES
from .kernels import KERNEL_RULES
from .training_notes import TRAINING_NOTE_RULES

_SYNC_OPS = r"aten::(?:item|_local_scalar_dense|nonzero|is_nonzero|equal)$|cuda(?:Stream|Device|Event)Synchronize"
_LOADER = r"dataloader|_next_data|_get_data"
_READBACK = r"device.?to.?host|dtoh"


def _best(ctx: Context, signal: str, label: str = "") -> tuple[float, Evidence] | None:
    """Largest reading of a signal whose label fits."""
    found = [n for n in ctx.numbers(signal) if re.search(label, n[1].subject.label or "", re.IGNORECASE)]
    return highest(found) if found else None


def _per_rank(ctx: Context, signal: str) -> list[tuple[float, Evidence]]:
    return sorted(ctx.numbers(signal), key=lambda n: n[0])


def _least(ctx: Context, signal: str, bound: float) -> Outcome:
    """Does a share reach `bound` on the rank where it is smallest? A rank that waits shows another's fault."""
    got = _per_rank(ctx, signal)
    if not got or ctx.numbers("trace.unsteady"):  # a rank that still starts up holds all others
        return UNKNOWN
    return Outcome(got[0][0] >= bound, tuple(e for _, e in got[:4]))


def idle_launch_most(ctx: Context) -> Outcome:
    """The launch rate leaves every profiled GPU idle half of the time."""
    return _least(ctx, "trace.idle.launch", 0.5)


def idle_launch_much(ctx: Context) -> Outcome:
    """The launch rate leaves every profiled GPU idle a fifth of the time."""
    return _least(ctx, "trace.idle.launch", 0.2)


def comm_exposed_most(ctx: Context) -> Outcome:
    """Even on the rank that waits least, communication runs alone a fifth of the time."""
    return _least(ctx, "trace.comm_exposed", 0.2)


def comm_mostly_exposed(ctx: Context) -> Outcome:
    """On the rank that waits least, half of the communication and a tenth of the time is exposed."""
    exposed, share = _per_rank(ctx, "trace.comm_exposed"), _per_rank(ctx, "trace.comm_share")
    if not exposed or not share:
        return UNKNOWN
    (e, ee), (s, se) = exposed[0], share[0]
    return Outcome(e >= 0.1 and s > 0 and e / s >= 0.5, (ee, se))


def sync_in_profile(ctx: Context) -> Outcome:
    """Synchronising calls fill a profile although the GPU is not busy."""
    share = _best(ctx, "profile.cpu_total", _SYNC_OPS) or _best(ctx, "profile.self_cpu", _SYNC_OPS)
    busy = _best(ctx, "profile.gpu_busy")
    if share is None or busy is None:
        return UNKNOWN
    return Outcome(share[0] >= 0.25 and busy[0] < 0.75, (share[1], busy[1]))


def sync_in_profile_alone(ctx: Context) -> Outcome:
    """Synchronising calls fill a profile that says nothing of the GPU."""
    if ctx.numbers("profile.gpu_busy"):
        return Outcome(False)
    share = _best(ctx, "profile.cpu_total", _SYNC_OPS) or _best(ctx, "profile.self_cpu", _SYNC_OPS)
    if share is None:
        return UNKNOWN
    return Outcome(share[0] >= 0.25, (share[1],))


def gpu_busy_in_profile(ctx: Context) -> Outcome:
    """GPU time nearly fills the profile: the CPU waits for the GPU, and rightly so."""
    busy = _best(ctx, "profile.gpu_busy")
    return UNKNOWN if busy is None else Outcome(busy[0] >= 0.9, (busy[1],))


def launch_in_profile(ctx: Context) -> Outcome:
    """Launching takes a leading share of CPU time, the GPU is mostly idle, nothing else waits."""
    busy = _best(ctx, "profile.gpu_busy")
    launch = _best(ctx, "profile.self_cpu", r"(?:cuda|hip|cu)Launch")
    if launch is None or busy is None:
        return UNKNOWN
    for signal, label in (("profile.cpu_total", _SYNC_OPS), ("profile.self_cpu", _LOADER)):
        other = _best(ctx, signal, label)
        if other is not None and other[0] >= 0.3:
            return Outcome(False, (other[1],))
    return Outcome(launch[0] >= 0.15 and busy[0] < 0.6, (launch[1], busy[1]))


def cpu_bound_profile(ctx: Context) -> Outcome:
    """Many operator calls, little GPU time, and neither input nor synchronisation to explain it."""
    busy = _best(ctx, "profile.gpu_busy")
    calls = ctx.numbers("profile.calls")
    if busy is None or not calls:
        return UNKNOWN
    most = highest(calls)
    waits = _best(ctx, "profile.cpu_total", _SYNC_OPS)
    loads = _best(ctx, "profile.self_cpu", _LOADER)
    if (waits and waits[0] >= 0.25) or (loads and loads[0] >= 0.2):
        return Outcome(False)
    return Outcome(busy[0] < 0.4 and most[0] >= 1000, (busy[1], most[1]))


def launch_in_api(ctx: Context) -> Outcome:
    """Launch calls lead the API table and are cheap each: a call that waits for a full queue takes far longer."""
    share, avg, calls = (_best(ctx, f"api.{k}", r"Launch(?:Cooperative)?Kernel") for k in ("share", "avg", "calls"))
    if share is None or calls is None:
        return UNKNOWN
    if avg is not None and avg[0] > 30:
        return Outcome(False, (avg[1],))
    return Outcome(share[0] >= 0.4 and calls[0] >= 5000, (share[1], calls[1]))


def short_kernels(ctx: Context) -> Outcome:
    """The leading kernels last a few microseconds and are launched by the ten thousand; or a trace says so."""
    median = _best(ctx, "trace.kernel_median")
    if median is not None:
        return Outcome(median[0] < 6, (median[1],))
    shares = {e.subject.label: (v, e) for v, e in ctx.numbers("kernel.share")}
    lead = [label for label, (v, _) in shares.items() if v >= 0.1] or list(shares)[:1]
    avg = {e.subject.label: (v, e) for v, e in ctx.numbers("kernel.avg")}
    calls = {e.subject.label: v for v, e in ctx.numbers("kernel.calls")}
    lead = [k for k in lead if k in avg and k in calls]
    if not lead:
        return UNKNOWN
    return Outcome(all(avg[k][0] < 5 and calls[k] >= 5000 for k in lead), tuple(avg[k][1] for k in lead[:3]))


def tiny_readbacks(ctx: Context) -> Outcome:
    """The CPU waits in synchronisations, and as many few-byte copies come back from the GPU."""
    waits = _best(ctx, "api.share", r"cuda(?:Stream|Device|Event)Synchronize|cudaMemcpy(?!Async)")
    reads, length = _best(ctx, "memop.calls", _READBACK), _best(ctx, "memop.avg", _READBACK)
    if waits is None or reads is None or length is None:
        return UNKNOWN
    return Outcome(waits[0] >= 0.3 and reads[0] >= 100 and length[0] <= 10, (waits[1], reads[1], length[1]))


def frequent_frees(ctx: Context) -> Outcome:
    """cudaMalloc or cudaFree lead the API time over many calls: every one of them waits for the device."""
    for label in (r"cudaFree", r"cudaMalloc(?!Host|Async)"):
        share, calls = _best(ctx, "api.share", label), _best(ctx, "api.calls", label)
        if share and calls and share[0] >= 0.2 and calls[0] >= 200:
            return Outcome(True, (share[1], calls[1]))
    return UNKNOWN if not ctx.numbers("api.share") else Outcome(False)


def compiles_again_and_again(ctx: Context) -> Outcome:
    """One function is compiled three times or more."""
    counts: dict[str, list[Evidence]] = {}
    for item in ctx.of("train.mark.xla_compile"):
        name = re.search(r"jit[(_](\w+)|Compiling (\w+)", str(item.value))
        counts.setdefault(name.group(1) or name.group(2) if name else "", []).append(item)
    if not counts:
        return UNKNOWN
    items = max(counts.values(), key=lambda v: sum(e.count for e in v))
    return Outcome(sum(e.count for e in items) >= 3, tuple(items[:3]))


def compiled_is_slower(ctx: Context) -> Outcome:
    """Of two settings, the compiled one loses."""
    found = [(v, e) for v, e in ctx.numbers("compare.ratio") if (e.subject.label or "").startswith("compile|")]
    if not found:
        return UNKNOWN
    slow = [
        e
        for v, e in found
        if v >= 1.1
        and re.search(r"compil", (e.subject.label or "").split("|")[2], re.I)
        and not re.search(
            r"\bno[ t]|without|w/o|eager|disabled|dynamic=true", (e.subject.label or "").split("|")[2], re.I
        )
    ]
    return Outcome(bool(slow), tuple(slow[:2]))


def _steps(ctx: Context, signal: str) -> tuple[float, Evidence] | None:
    return _best(ctx, signal, r"time|iter|step|latency|throughput")


def only_first_step_slow(ctx: Context) -> Outcome:
    """Only the first of many steps is slow, and nothing is compiled again later."""
    first = _steps(ctx, "trend.first_outlier")
    if first is None:
        return UNKNOWN
    again = ctx.of("train.mark.recompile*") or ctx.of("train.mark.retracing") or ctx.of("trend.period")
    return Outcome(first[0] >= 3 and not again, (first[1],))


def bursts_of_workers(ctx: Context) -> Outcome:
    """Every n-th step is slow: what n loader workers deliver together is used up together."""
    got = _steps(ctx, "trend.period")
    return UNKNOWN if got is None else Outcome(2 <= got[0] <= 64, (got[1],))


_PLAIN_PRODUCT = re.compile(r"sgemm|_ffma\b|_f32f32_f32f32_f32|simt_\w*gemm", re.IGNORECASE)


def plain_products_fill_the_trace(ctx: Context) -> Outcome:
    """A busy GPU spends half of its kernel time in matrix products on the FP32 pipe, beside its tensor cores.

    Kernel names: cuBLAS prints ``…f32f32_f32f32_f32…_ffma`` and ``sgemm`` for FP32; ``…tf32…``, ``s1688``, ``nvjet``
    and ``hgmma`` run on tensor cores.
    """
    busy, shares = _per_rank(ctx, "trace.gpu_busy"), ctx.numbers("trace.kernel_share")
    plain = [n for n in shares if _PLAIN_PRODUCT.search(n[1].subject.label or "")]
    if not busy or not shares:
        return UNKNOWN
    ranks = len({e.subject.rank for _, e in shares})
    good = busy[0][0] >= 0.8 and sum(v for v, _ in plain) >= 0.5 * ranks
    return Outcome(good, tuple(e for _, e in [*plain[:3], busy[0]]) if plain else (busy[0][1],))


def gpu_fully_used(ctx: Context) -> Outcome:
    """Every profiled GPU works almost all of the time, on its tensor cores, not on exposed communication or copies."""
    busy = _per_rank(ctx, "trace.gpu_busy")
    if not busy or busy[0][1].kind != "derived":
        return UNKNOWN
    exposed = [n for s in ("trace.comm_exposed", "trace.copy_exposed") for n in ctx.numbers(s)]
    good = busy[0][0] >= 0.85 and all(v <= 0.1 for v, _ in exposed)
    if plain_products_fill_the_trace(ctx).holds:
        good = False
    return Outcome(good, tuple(e for _, e in [*busy[:3], *exposed[:2]]))


def input_copied_in_line(ctx: Context) -> Outcome:
    """Copies from pinned memory to the device run while nothing computes, for a third of the time or more."""
    exposed = _per_rank(ctx, "trace.copy_exposed")
    if not exposed or ctx.numbers("trace.pageable_copies") or ctx.numbers("trace.unsteady"):
        return UNKNOWN
    return Outcome(exposed[0][0] >= 0.3, (exposed[0][1],))


def step_is_compute(ctx: Context) -> Outcome:
    """A printed breakdown: forward, backward and optimizer make the step; input, copies and communication do not."""
    shares = {e.subject.label: (v, e) for v, e in ctx.numbers("step.share")}
    if "data" not in shares or not {"forward", "backward", "compute"} & set(shares):
        return UNKNOWN
    rest = sum(shares[k][0] for k in ("data", "h2d", "comm") if k in shares)
    return Outcome(rest <= 0.1, tuple(e for _, e in shares.values()))


def only_pinned_copies(ctx: Context) -> Outcome:
    """Rates are known and all from pinned memory."""
    labels = [e for _, e in ctx.numbers("copy.bandwidth")]
    if not labels:
        return UNKNOWN
    return Outcome(all("pinned" in (e.subject.label or "") for e in labels), tuple(labels[:3]))


def copies_lose_overlap(ctx: Context) -> Outcome:
    """Compute and copies together take as long as the longer when pinned, and far longer when pageable."""
    times = {e.subject.label: (v, e) for v, e in ctx.numbers("copy.time")}
    if "both_pinned" not in times or "both_pageable" not in times:
        return UNKNOWN
    (fast, a), (slow, b) = times["both_pinned"], times["both_pageable"]
    return Outcome(slow > 1.5 * fast, (b, a))


def pageable_time_matters(ctx: Context) -> Outcome:
    """A trace in which copies stand exposed, and they use pageable memory."""
    pages, exposed = _best(ctx, "trace.pageable_copies"), _best(ctx, "trace.copy_exposed")
    if pages is None or exposed is None:
        return UNKNOWN
    return Outcome(exposed[0] >= 0.1, (pages[1], exposed[1]))


RULES: dict[str, Callable[[Context], Outcome]] = (
    {
        rule.__name__: rule
        for rule in (
            idle_launch_most,
            idle_launch_much,
            comm_exposed_most,
            comm_mostly_exposed,
            sync_in_profile,
            sync_in_profile_alone,
            gpu_busy_in_profile,
            launch_in_profile,
            cpu_bound_profile,
            launch_in_api,
            short_kernels,
            tiny_readbacks,
            frequent_frees,
            compiles_again_and_again,
            compiled_is_slower,
            only_first_step_slow,
            bursts_of_workers,
            gpu_fully_used,
            plain_products_fill_the_trace,
            input_copied_in_line,
            step_is_compute,
            only_pinned_copies,
            copies_lose_overlap,
            pageable_time_matters,
        )
    }
    | KERNEL_RULES
    | KERNEL_VARIANT_RULES
    | TRAINING_NOTE_RULES
)
