"""Named predicates over tables of GPUs and over runs side by side: which column explains the odd one out."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import median

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest, lowest, outcome

_SPEED = regex(
    r"time|latency|throughput|bandwidth|flops|iterations|rate|ttft|tpot|itl|e2e|prefill|decode|goodput", re.I
)
_QUOTIENTS = (2, 4, 8, 16)


def _by_gpu(ctx: Context, signal: str) -> dict[tuple[str, int], Reading]:
    """The middle one of each GPU's readings, servers (captures) apart: one sample of a series shows no state."""
    per: dict[tuple[str, int], list[Reading]] = {}
    for value, item in ctx.numbers(signal):
        if item.subject.gpu is not None and item.subject.label in (None, ""):
            per.setdefault((item.capture.name if item.capture else "", item.subject.gpu), []).append((value, item))
    return {who: sorted(got, key=lambda r: r[0])[len(got) // 2] for who, got in per.items()}


def _working(ctx: Context) -> dict[tuple[str, int], Reading]:
    """SM clocks of GPUs that are not at rest: busy, or clocked far above the lowest state."""
    utils = _by_gpu(ctx, "gpu.util")
    out: dict[tuple[str, int], Reading] = {}
    for who, reading in _by_gpu(ctx, "gpu.clock.sm").items():
        util = utils.get(who)
        if (util is not None and util[0] >= 0.5) or (util is None and reading[0] >= 400):
            out[who] = reading
    return out


def clock_and_heat(ctx: Context) -> Outcome:
    """Of several working GPUs one is clocked lower and is also the hottest, or draws clearly less power."""
    clocks = _working(ctx)
    if len(clocks) < 2 or len({str(e.value) for e in ctx.of("gpu.name")}) > 1:
        return UNKNOWN
    middle = median(v for v, _ in clocks.values())
    heats, watts = _by_gpu(ctx, "gpu.temperature"), _by_gpu(ctx, "gpu.power")
    hits: list[Evidence] = []
    for who, (value, item) in clocks.items():
        if value > 0.87 * middle:
            continue
        others = [v for other, (v, _) in heats.items() if other != who]
        if who in heats and others and heats[who][0] >= max(others) + 5:
            hits += [item, heats[who][1]]
        rest = [v for other, (v, _) in watts.items() if other != who]
        if who in watts and rest and watts[who][0] <= 0.8 * median(rest):
            hits += [item, watts[who][1]]
    return outcome(hits, True)


def slow_gpu_low_clock(ctx: Context) -> Outcome:
    """The GPU that lags in the measurement is the one with the lower clock."""
    clocks = _working(ctx)
    slow = [
        e for v, e in ctx.numbers("spread.outlier", {"label": r"^(?:gpu|rank)\|"})
        if _SPEED.search((e.subject.label or "").split("|")[1])
    ]  # fmt: skip
    if len(clocks) < 2 or not slow:
        return UNKNOWN
    middle = median(v for v, _ in clocks.values())
    hits = [
        e
        for odd in slow
        for (_, gpu), (value, item) in clocks.items()
        if gpu in (odd.subject.gpu, odd.subject.rank) and value <= 0.9 * middle
        for e in (odd, item)
    ]
    return outcome(hits, True)


def memory_clock_low(ctx: Context) -> Outcome:
    """The memory clock is well below its highest although the SM clock is that of a working card."""
    tops, sm = _by_gpu(ctx, "gpu.clock.mem.max"), _working(ctx)
    clocks = _by_gpu(ctx, "gpu.clock.mem")
    # an explicit maximum; else what another card of this list reaches
    best = max((v for v, _ in clocks.values()), default=0.0)
    hits: list[Evidence] = []
    known = False
    for who, (value, item) in clocks.items():
        speed = sm.get(who)
        if speed is None or speed[0] < 900:
            continue
        top = tops.get(who, (best, item))
        known = True
        if value < 0.88 * top[0]:
            hits += [item, *([top[1]] if top[1] is not item else [])]
    return outcome(hits, known)


def _copies(ctx: Context) -> dict[str, dict[int, Reading]]:
    """Copy rates by direction and memory kind, then by GPU."""
    out: dict[str, dict[int, Reading]] = {}
    for value, item in ctx.numbers("copy.bandwidth"):
        if item.subject.gpu is not None and value > 0:
            group = out.setdefault(item.subject.label or "", {})
            old = group.get(item.subject.gpu)
            if old is None or value > old[0]:
                group[item.subject.gpu] = (value, item)
    return out


def _odd(ctx: Context) -> list[tuple[float, Evidence, Evidence]]:
    """(factor below its peers, the odd GPU, a peer) of copies and of listed bandwidths."""
    out: list[tuple[float, Evidence, Evidence]] = []
    for label, group in _copies(ctx).items():
        if len(group) < 3 or "pageable" in label:
            continue
        middle = median(v for v, _ in group.values())
        slow = [r for r in group.values() if r[0] < 0.75 * middle]
        peer = min(group.values(), key=lambda r: abs(r[0] - middle))
        if 1 <= len(slow) <= len(group) // 3:
            out += [(middle / v, e, peer[1]) for v, e in slow]
    for value, item in ctx.numbers("spread.outlier", {"label": r"^(?:gpu|rank)\|(?:bandwidth|throughput)"}):
        if re.search(r"h2d|d2h|host|pci|copy|memcpy|拷贝", f"{item.quote or ''} {ctx.symptom}", re.I):
            out.append((value, item, item))
    return out


def copies_at_quotient(ctx: Context) -> Outcome:
    """One GPU's copies run at a half, a quarter or an eighth of its peers': lanes or a generation are missing."""
    seen = _odd(ctx)
    if not seen and not _copies(ctx):
        return UNKNOWN
    hits = [e for f, odd, peer in seen if any(abs(f / q - 1) <= 0.12 for q in _QUOTIENTS) for e in (odd, peer)]
    return outcome(hits, True)


def copies_far_below(ctx: Context) -> Outcome:
    """… by more than any placement of memory costs."""
    hits = [e for f, odd, peer in _odd(ctx) if f >= 3 for e in (odd, peer)]
    return outcome(hits, bool(_copies(ctx)))


def clock_ratio_explains(ctx: Context) -> Outcome:
    """Two machines, cards or states: the measured speeds stand in the ratio of their clocks."""
    clocks = [
        (v, e) for v, e in ctx.numbers("compare.ratio")
        if (e.subject.label or "||").split("|")[1] == "clock" and v >= 1.12
    ]  # fmt: skip
    for signal in ("gpu.clock.sm", "gpu.clock.mem"):
        got = [r for r in ctx.numbers(signal) if r[0] >= 400]
        if len(got) >= 2:
            low, high = lowest(got), highest(got)
            if high[0] >= 1.12 * low[0]:
                clocks.append((high[0] / low[0], low[1]))
    speeds = [
        (v, e) for v, e in ctx.numbers("compare.ratio")
        if v >= 1.1 and _SPEED.search((e.subject.label or "||").split("|")[1])
    ]  # fmt: skip
    if not clocks or not speeds:
        return UNKNOWN
    hits = [e for c, clock in clocks for s, speed in speeds if abs(s / c - 1) <= 0.12 for e in (clock, speed)]
    return outcome(hits, True)


def clock_at_its_top(ctx: Context) -> Outcome:
    """The worry is heat or throttling, and a card at work holds its clock, with no reason against it active."""
    asked = re.search(r"\bhot\b|therm|throttl|temperature|\bclock|\d ?°?C\b|降频|温度|过热", ctx.symptom, re.I)
    tops, powers, limits = (_by_gpu(ctx, f"gpu.{n}") for n in ("clock.sm.max", "power", "power.limit"))
    utils = _by_gpu(ctx, "gpu.util")
    if asked is None or not tops:
        return UNKNOWN
    good: list[Evidence] = []
    low: list[Evidence] = []
    for who, (value, item) in _by_gpu(ctx, "gpu.clock.sm").items():
        power, limit, util, top = powers.get(who), limits.get(who), utils.get(who), tops.get(who)
        drawn = power is not None and limit is not None and power[0] >= 0.6 * limit[0]
        if top is None or not (drawn or (util is not None and util[0] >= 0.8)):
            continue
        (good if value >= 0.93 * top[0] else low).append(item)
    reasons = [e for e in ctx.of("gpu.throttle") if e.subject.label not in ("sw_power_cap", "gpu_idle", "idle")]
    if not good:
        return UNKNOWN
    return Outcome(not low and not reasons, tuple((low or reasons or good)[:3]))


_PRECISION = regex(r"\b(?:bf16|bfloat16|fp16|float16|half|hgemm)\b", re.I)
_FP8 = regex(r"\bfp8|e4m3\b", re.I)


def _product(ctx: Context) -> tuple[hardware.Gpu, Evidence] | None:
    said = (*ctx.of("gpu.name"), *ctx.of("gpu.product"))
    named = {got.name: (got, e) for e in said if (got := hardware.gpu(str(e.value))) is not None}
    return next(iter(named.values())) if len(named) == 1 else None


def gemm_at_its_peak(ctx: Context) -> Outcome:
    """Large matrix products reach the share of this very product's dense peak that such products reach."""
    got = _product(ctx)
    rates = [(v, e) for v, e in ctx.numbers("figure", {"label": r"^flops"}) if e.unit == "TFLOP/s"]
    rates += ctx.numbers("kernel.flops")
    if got is None or not rates:
        return UNKNOWN
    best = highest(rates)
    said = f"{best[1].quote or ''} {best[1].subject.label or ''}"
    peak = got[0].fp8 if _FP8.search(said) else got[0].tensor16 if _PRECISION.search(said) else None
    if peak is None:
        return UNKNOWN
    return Outcome(0.68 <= best[0] / peak <= 1.03, (best[1], got[1]))


def few_corrected_errors(ctx: Context) -> Outcome:
    """The worry is ECC, and all that was counted are a few corrected errors: nothing uncorrected, pending or failed."""
    corrected, bad = ctx.numbers("gpu.ecc.corrected"), ctx.numbers("gpu.ecc.uncorrected")
    asked = re.search(r"ecc|sbe|correct|replace|\brma\b|defect|faulty|broken|坏|换卡|纠错|报修|告警", ctx.symptom, re.I)
    if asked is None or not corrected or not bad:
        return UNKNOWN
    worse = [
        *(e for v, e in bad if v > 0),
        *(e for e in (*ctx.of("gpu.remap.pending"), *ctx.of("gpu.remap.failure")) if str(e.value).lower() == "yes"),
        *ctx.of("gpu.xid.hardware"), *ctx.of("gpu.mark.ecc"), *ctx.of("gpu.mark.fallen"),
    ]  # fmt: skip
    some = [e for v, e in corrected if 0 < v <= 1000]
    return Outcome(bool(some) and not worse, tuple((worse or [*some, bad[0][1]])[:4]))


_D2D = regex(r"device[ _-]?to[ _-]?device|deviceToDevice|\bd2d\b|dtod|显存内|设备内", re.I)
_BOTH_COUNTED = regex(r"triad|stream|babelstream|read \+ write|reads? (?:and|\+) writes?|all bytes|读写", re.I)


def device_copy_counts_twice(ctx: Context) -> Outcome:
    """A copy within the GPU moves every byte twice: its rate times two is what the memory gives."""
    rates = [(v, e) for v, e in ctx.numbers("figure") if e.unit == "GB/s" and v >= 50]
    rates += ctx.numbers("kernel.bandwidth") + ctx.numbers("copy.bandwidth")
    once = [(v, e) for v, e in rates if _D2D.search(f"{e.quote or ''} {e.subject.label or ''}")]
    if not once:
        return UNKNOWN
    got = _product(ctx)
    if got is not None:
        hits = [e for v, e in once if 0.78 <= 2 * v / got[0].memory <= 1.03]
        return Outcome(bool(hits), tuple([*hits[:1], got[1]] if hits else [once[0][1]]))
    whole = [(v, e) for v, e in rates if _BOTH_COUNTED.search(e.quote or "") and not _D2D.search(e.quote or "")]
    hits = [e for v, a in once for w, b in whole if 0.85 <= 2 * v / w <= 1.12 for e in (a, b)]
    return outcome(hits, bool(whole))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        clock_and_heat, slow_gpu_low_clock, memory_clock_low, copies_at_quotient, copies_far_below,
        clock_at_its_top, clock_ratio_explains, gemm_at_its_peak, few_corrected_errors, device_copy_counts_twice,
    )
}  # fmt: skip
