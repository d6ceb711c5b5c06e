"""Named predicates over typed notes about kernels: variants of one kernel, and rates beside the roof they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest
from .products import candidates

# A question about the hardware ("is it broken, the data sheet says more") as against one about the code.
_DOUBT = regex(
    r"spec\b|spec(?:ification|ified|s)\b|data ?sheet|advertis|market|leaflet|brochure|rated|promis|supposed"
    r"|broken|defect|faulty|degrad|thrott"
    r"|\brma\b|half of|(?:says|claims|quoted) |instead of|only (?:get|reach|see|show)|(?:gives?|reach(?:es)?"
    r"|shows?|gets?|at) only"
    r"|规格|标称|降频|坏了?|有问题|只有|宣传|官方|手册|达不到",
    re.IGNORECASE,
)
_GATHER = regex(r"gather|scatter|index|lookup|embedding|permut|查表|索引", re.IGNORECASE)
_ORDER = regex(
    r"sort|shuffl|grouped?\b|binn?ed|compact|mixed|by (?:type|kind|key|material|class|length"
    r"|branch)|排序|乱序|分组",
    re.IGNORECASE,
)
_NOT_A_KERNEL = regex(
    r"pcie|h2d|d2h|htod|dtoh|host|pinned|pageable|nvlink|nccl|busbw|algbw|p2p|peer|disk|read from|nfs|network"
    r"|nic\b|rdma",
    re.IGNORECASE,
)
_D2D = regex(
    r"d ?(?:2|to) ?d\b|dtod|device.?to.?device|devicetodevice|on.?device copy|显存内拷贝"
    r"|设备内拷贝|device copy",
    re.IGNORECASE,
)
_COUNTED_TWICE = regex(
    r"triad|stream|read ?\+ ?write|reads? .{0,8}writes?|both counted|traffic|babel|add\b"
    r"|scale\b",
    re.IGNORECASE,
)


def _variants(ctx: Context, signal: str) -> dict[str, list[Reading]]:
    """Readings of a signal by variant."""
    out: dict[str, list[Reading]] = {}
    for value, item in ctx.numbers(signal):
        out.setdefault((item.subject.label or "kernel").split("|")[0], []).append((value, item))
    return out


def _rows(ctx: Context, signal: str) -> list[tuple[Reading, Reading]]:
    """(reading, time) of each variant that has both, in the order of the text."""
    times = _variants(ctx, "kernel.time")
    pairs = [(found[0], times[label][0]) for label, found in _variants(ctx, signal).items() if label in times]
    return sorted(pairs, key=lambda p: p[0][1].capture.bytes[0] if p[0][1].capture else 0)


def occupancy_costs_time(ctx: Context) -> Outcome:
    """Over the variants of one kernel, time rises as occupancy falls, and nothing is spilled."""
    rows = _rows(ctx, "kernel.occupancy")
    if len(rows) < 2:
        return UNKNOWN
    rows.sort(key=lambda r: -r[0][0])
    (high, a), (fast, b) = rows[0]
    (low, c), (slow, d) = rows[-1]
    rising = all(x[1][0] <= 1.03 * y[1][0] for x, y in pairwise(rows))
    spilled = any(v >= 64 for v, _ in ctx.numbers("kernel.spill.bytes"))
    return Outcome(rising and low <= 0.5 and high >= 1.5 * low and slow >= 1.2 * fast and not spilled, (c, d, a, b))


def tail_wave(ctx: Context) -> Outcome:
    """One block more than fits a whole number of waves costs a wave more."""
    for signal in ("kernel.waves", "kernel.grid"):
        rows = sorted(_rows(ctx, signal), key=lambda r: r[0][0])
        sms = [v for v, _ in ctx.numbers("kernel.sms")]
        for (few, a), (many, b) in pairwise(rows):
            grows, costs = many[0] / few[0] if few[0] else 9.0, b[0] / a[0] if a[0] else 0.0
            edge = few[0] if signal == "kernel.waves" else few[0] / sms[0] if sms else 0.0
            if 1.0 < grows <= 1.1 and costs >= 1.3 and edge > 0.5 and abs(edge - round(edge)) <= 0.05:
                return Outcome(True, (many[1], b[1], few[1], a[1]))
    return UNKNOWN


def fewer_blocks_than_sms(ctx: Context) -> Outcome:
    """The grid has fewer blocks than the GPU has multiprocessors; other grids of the same work are faster or absent."""
    sms = ctx.numbers("kernel.sms")
    grids = ctx.numbers("kernel.grid")
    if not sms or not grids:
        return UNKNOWN
    small = [g for g in grids if g[0] <= 0.75 * sms[0][0]]
    return Outcome(bool(small), (*(e for _, e in small[:2]), sms[0][1]))


def layout_costs(ctx: Context) -> Outcome:
    """Layout or stride changes the speed, and it is not the order of work items that changes a branch."""
    found = [(v, e) for v, e in ctx.numbers("compare.ratio") if (e.subject.label or "").startswith("stride|")]
    found = [
        n
        for n in found
        if re.search(
            r"\|[^|]*(bandwidth|throughput|time|latency|rate"
            r"|flops)",
            n[1].subject.label or "",
        )
    ]
    if not found:
        return UNKNOWN
    order = ctx.numbers("kernel.active_threads") or ctx.numbers("kernel.warp_efficiency")
    kept = [
        (v, e) for v, e in found
        if not _ORDER.search(e.subject.label or "")
        or (not order and _GATHER.search(f"{e.subject.label} {ctx.symptom}"))
    ]  # fmt: skip
    good = tuple(e for v, e in kept if v > 1.8)
    return Outcome(bool(good), good[:3])


def order_costs(ctx: Context) -> Outcome:
    """Sorting or grouping the work items makes the kernel faster, and they are not gathered by index."""
    found = [
        (v, e) for v, e in ctx.numbers("compare.ratio")
        if _ORDER.search(e.subject.label or "")
        and re.search(r"time|throughput|rate|count", (e.subject.label or "||").split("|")[1])
    ]  # fmt: skip
    if not found:
        return UNKNOWN
    gathers = any(_GATHER.search(f"{e.subject.label} {ctx.symptom}") for _, e in found)
    good = tuple(e for v, e in found if v > 1.3)
    return Outcome(bool(good) and not gathers, good[:3])


def _products(ctx: Context) -> tuple[list[hardware.Gpu], tuple[Evidence, ...]]:
    """The one product of the evidence; several products are no product."""
    named: dict[str, tuple[hardware.Gpu, Evidence]] = {}
    for item in (*ctx.of("gpu.name"), *ctx.of("gpu.product")):
        got = hardware.gpu(str(item.value))
        if got is not None:
            named.setdefault(got.name, (got, item))
    if not named:
        asked, used = candidates(ctx)
        return (asked, used) if len(asked) == 1 else ([], ())
    if len(named) != 1:
        return [], ()
    got, item = next(iter(named.values()))
    return [got], (item,)


def _measured(ctx: Context, metric: str, stated: set[float]) -> list[Reading]:
    """Rates of the notes that are measurements of a kernel: no link, no stated peak."""
    out = []
    for value, item in [
        *ctx.numbers("figure"),
        *ctx.numbers("kernel.bandwidth" if metric == "bandwidth" else "kernel.flops"),
    ]:
        label = item.subject.label or ""
        # Decode in tokens a second, given as the bytes it reads, is a rate of the memory too.
        other = metric == "bandwidth" and item.unit == "GB/s" and label.startswith("throughput")
        if item.signal == "figure" and not other and not re.match(rf"{metric}(?:_mean|_p50)?(?:\||$)", label):
            continue
        words = f"{label} {item.quote or ''}"
        if value in stated or _NOT_A_KERNEL.search(words) or (metric == "bandwidth" and _D2D.search(words)):
            continue
        out.append((value, item))
    return out


def rate_at_memory_roof(ctx: Context) -> Outcome:
    """A kernel's rate is four fifths of the memory bandwidth of the one GPU named, or of the peak stated."""
    stated = [(v, e) for v, e in ctx.numbers("roof.stated") if e.subject.label == "memory"]
    found, named = _products(ctx)
    peaks: list[tuple[float, tuple[Evidence, ...]]] = [(v, (e,)) for v, e in stated]
    peaks += [(g.memory, named) for g in found]
    peaks += [(v, (e,)) for v, e in ctx.numbers("bench.bandwidth") if e.subject.label == "copy"]
    rates = _measured(ctx, "bandwidth", {v for v, _ in stated} | {g.memory for g in found})
    if not peaks or not rates:
        return UNKNOWN
    rates.sort(key=lambda r: -r[0])
    value, item = rates[0]
    for peak, used in peaks:
        if 0.8 <= value / peak <= 1.02:  # a plain copy reaches it too: what comes close is the kernel, or its control
            near = [e for v, e in rates[1:] if v / peak >= 0.8 and e.capture != item.capture]
            return Outcome(True, (item, *near[:1], *used))
    return Outcome(False, (item, *peaks[0][1]))


def rate_at_compute_roof(ctx: Context) -> Outcome:
    """Matrix products reach two thirds of the dense peak of this very product, or of the dense peak stated."""
    stated = [(v, e) for v, e in ctx.numbers("roof.stated") if e.subject.label == "compute"]
    found, named = _products(ctx)
    rates = _measured(ctx, "flops", {v for v, _ in stated})
    if not rates or not (found or stated):
        return UNKNOWN
    value, item = highest(rates)
    words = f"{item.quote or ''} {item.subject.label or ''} {ctx.symptom}".lower()
    kind = (
        "fp8"
        if re.search(r"fp8|e4m3|int8", words)
        else "fp16"
        if re.search(r"fp16|half|hgemm", words)
        else "bf16"
        if "bf16" in words
        else ""
    )
    peaks: list[tuple[float, tuple[Evidence, ...]]] = []
    for gpu in found:
        peak = {"fp8": gpu.fp8, "fp16": gpu.tensor16, "bf16": gpu.bf16}.get(kind)
        if peak:
            peaks.append((peak, named))
    if not peaks:
        peaks = [(v, (e,)) for v, e in stated]
    for peak, used in peaks:
        if 0.66 <= value / peak <= 1.02:
            return Outcome(True, (item, *used))
    return Outcome(False, (item,)) if peaks else UNKNOWN


def device_copy_at_rate(ctx: Context) -> Outcome:
    """A copy on the device whose bytes, counted for reading and writing, come near the memory's rate."""
    copies = [
        (v, e) for v, e in ctx.numbers("figure")
        if (e.subject.label or "").startswith("bandwidth") and _D2D.search(f"{e.subject.label} {e.quote or ''}")
    ]  # fmt: skip
    stated = [(v, e) for v, e in ctx.numbers("roof.stated") if e.subject.label == "memory"]
    copies = [c for c in copies if c[0] not in {v for v, _ in stated}]
    if not copies:
        return UNKNOWN
    value, item = highest(copies)
    found, named = _products(ctx)
    peaks: list[tuple[float, tuple[Evidence, ...]]] = [(g.memory, named) for g in found] + [
        (v, (e,)) for v, e in stated
    ]
    for peak, used in peaks:
        if 0.72 <= 2 * value / peak <= 1.0 or 0.85 <= value / peak <= 1.0:
            return Outcome(True, (item, *used))
    for rate, other in ctx.numbers("figure"):
        words = f"{other.subject.label} {other.quote or ''}"
        kernel = words.startswith("bandwidth") and _COUNTED_TWICE.search(words)
        if kernel and 0.85 <= 2 * value / rate <= 1.15:
            return Outcome(True, (item, other))
    return Outcome(False, (item,)) if peaks else UNKNOWN


def doubts_hardware(ctx: Context) -> Outcome:
    """The question is whether the hardware is all right, not what the kernel is limited by."""
    return Outcome(_DOUBT.search(ctx.symptom) is not None)


KERNEL_VARIANT_RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        occupancy_costs_time, tail_wave, fewer_blocks_than_sms, layout_costs, order_costs, rate_at_memory_roof,
        rate_at_compute_roof, device_copy_at_rate, doubts_hardware,
    )
}  # fmt: skip
