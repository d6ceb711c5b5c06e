"""Named predicates of health: a measurement within its band, or a reading that explains the worry away.

Each one is vetoed by signs of a fault in the same evidence (`faulty`), because a false all-clear costs as much as a
false alarm. A product may be named by the question; every judged figure comes from the evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import floors, hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest
from .comparison import Ratio, ratios
from .products import candidates, product

LOAD_AXES = ("concurrency", "batch", "prompt_length", "output_length", "message_size", "request", "cold_warm")
_BROKEN = ("gpu.xid.hardware", "gpu.mark.fallen", "gpu.mark.ecc", "pci.link.limited", "spread.outlier")

# Ceilings that a sound path need not come near: shared memory copies twice, a staged transfer goes over the host.
_ROUGH = ("UCX between two processes", "UCX between GPUs, without cuda_ipc", "PCIe of GPU")


def faulty(ctx: Context) -> bool:
    """Does anything here speak of a fault: a figure far from its limit, wrong results, an outlier, an error?"""
    if any(v > 0 for v, _ in ctx.numbers("nccl_tests.wrong")) or any(ctx.of(s) for s in _BROKEN):
        return True
    for item in ctx.limits:
        if item.what.startswith(_ROUGH):
            continue
        floor = item.unit == "ms"  # times stay above their limit, rates below
        if item.ratio is not None and (item.ratio > 1.8 if floor else item.ratio < 0.6):
            return True
    return False


def _differences(ctx: Context, least: float) -> list[Ratio]:
    """Comparisons, other than sweeps over the load, whose settings differ by a factor."""
    return [r for r in ratios(ctx) if r.axis not in LOAD_AXES and r.value >= least]


# ---------------------------------------------------------------- against a reference, against a trial

QUANTITY = regex(r"bandwidth|busbw|algbw|throughput|flops|utilisation|ttft|tpot|itl|latency|e2e|time")
_ASKS_REFERENCE = regex(
    r"reference|expect|spec\b|data ?sheet|baseline|vendor|nominal|supposed|normal|\bok\b|fine\b|healthy|right\?|losing"
    r"|alarm|alert|worr|broken|正常|参考|标称|预期|告警|报警|有问题|坏", re.I,
)  # fmt: skip


def meets_reference(ctx: Context) -> Outcome:
    """Every figure that stands beside its reference is within a tenth of it, and the question is about that."""
    found = [r for r in ratios(ctx) if r.axis == "expected" and QUANTITY.search(r.metric)]
    if not found or not _ASKS_REFERENCE.search(ctx.symptom):
        return UNKNOWN
    met = all(r.value <= 1.1 for r in found) and not _differences(ctx, 1.2) and not faulty(ctx)
    return Outcome(met, tuple(r.evidence for r in found[:3]))


_WORDS = regex(r"[a-z]{4,}")
_COMMON = frozenset(
    [
        "with", "without", "from", "after", "before", "that", "this", "default", "warning", "info", "error", "using",
        "used", "performance", "mean", "median", "tokens", "output", "input", "request", "requests", "throughput",
        "file", "found", "might", "could",
    ]
)  # fmt: skip
_ASKS_WARNING = regex(r"warn|message|complain|log says|prints|advis|hint|告警|警告|提示|日志", re.I)


def warning_without_effect(ctx: Context) -> Outcome:
    """What the warning warns of was changed, and nothing that was measured moved."""
    warnings = [e for e in ctx.evidence if ".mark." in e.signal and e.quote]
    trials = [r for r in ratios(ctx) if r.axis not in (*LOAD_AXES, "expected") and QUANTITY.search(r.metric)]
    if not warnings or not trials or not _ASKS_WARNING.search(ctx.symptom):
        return UNKNOWN
    if any(r.value > 1.03 for r in trials) or faulty(ctx):
        return Outcome(False, tuple(r.evidence for r in trials[:2]))
    for warning in warnings:
        words = set(_WORDS.findall((warning.quote or "").lower())) - _COMMON
        # A setting that names nothing of the warning tried something else.
        same = [r for r in trials if words & set(_WORDS.findall(f"{r.worse} {r.better}".lower().replace("_", " ")))]
        if same:
            return Outcome(True, (warning, *(r.evidence for r in same[:2])))
    return UNKNOWN


# ---------------------------------------------------------------- states that look like faults


def power_cap_at_default(ctx: Context) -> Outcome:
    """Only the software power cap is active, at the default limit; the draw or a reference shows full work."""
    reasons = ctx.of("gpu.throttle")
    caps = [e for e in reasons if e.subject.label == "sw_power_cap"]
    limits, defaults = ctx.numbers("gpu.power.limit"), ctx.numbers("gpu.power.default")
    if not caps or len(caps) < len([e for e in reasons if "idle" not in (e.subject.label or "")]) or not limits:
        return UNKNOWN
    low, usual = lowest(limits), max(defaults, key=lambda n: n[0], default=None)
    if (
        usual is None
        or low[0] < 0.97 * usual[0]
        or re.search(r"power|cap\b|throttl|功耗|降频", ctx.symptom, re.I) is None
    ):
        return UNKNOWN
    references = [r for r in ratios(ctx) if r.axis == "expected" and QUANTITY.search(r.metric)]
    apart = [r for r in _differences(ctx, 1.05) if QUANTITY.search(r.metric)]
    if apart or faulty(ctx) or any(r.value > 1.03 for r in references):
        return Outcome(False, (low[1],))
    drawn = ctx.numbers("gpu.power")
    drawn += [n for n in ctx.numbers("figure", {"label": "^power"}) if re.search("draw|usage", n[1].quote or "", re.I)]
    full = [e for v, e in drawn if v >= 0.93 * low[0]]
    used = [*full[:1], *(r.evidence for r in references[:1])]
    return Outcome(True, (caps[0], low[1], *used)) if used else UNKNOWN


def random_prompts_cannot_hit(ctx: Context) -> Outcome:
    """The load sends random prompts that share nothing, and with a shared prefix the cache does hit."""
    rates = [v for v, e in ctx.numbers("figure") if (e.subject.label or "").startswith("hit_rate")]
    hits = [e for v, e in ctx.numbers("figure") if (e.subject.label or "").startswith("hit_rate") and v >= 0.1]
    load = [e for e in ctx.of("serving.bench_arg", {"label": "^dataset(-name)?$"}) if str(e.value).startswith("random")]
    none = [e for v, e in ctx.numbers("serving.prefix_hit_rate") if v <= 0.01]
    asked = re.search(r"prefix|cach|hit.?rate|命中|前缀|缓存", ctx.symptom, re.I)
    if (
        not load
        or not none
        or asked is None
        or ctx.of("serving.arg", {"label": "^(no-enable-prefix-caching|disable-radix-cache)$"})
    ):
        return UNKNOWN
    return Outcome(True, (load[0], none[0], hits[0])) if hits and min(rates) <= 0.01 else UNKNOWN


def card_at_rest(ctx: Context) -> Outcome:
    """Low clocks of a card that does nothing, asked about as such."""
    asked = re.search(
        r"\bidl(?:e|ing)\b|at rest|no (?:job|load|process)|nothing runs|空闲|闲置|没有(?:任务|负载)", ctx.symptom, re.I
    )
    about = re.search(r"clock|mhz|\bp[58]\b|频率|降频|pstate|power state", ctx.symptom, re.I)
    use = ctx.numbers("gpu.util")
    states = [e for e in ctx.of("gpu.pstate") if re.fullmatch(r"P([5-9]|1\d)", str(e.value))]
    held = [e for e in ctx.of("gpu.throttle") if "idle" not in (e.subject.label or "")]
    if asked is None or about is None or not use or not states or held or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 0.02 for v, _ in use), (use[0][1], states[0]))


_ASKS_WHETHER = regex(
    r"(?:^|[.,;:] *)(?:is|are|do we have|any)\b.*(?:straggl|slow(?:er)?|outlier|behind)|straggler\?|是否|是不是|有没有",
    re.I,
)
_WHOLE_STEP = regex(r"(?:rank|gpu|node|host)\|(?:step_|iteration_)?time")


def peers_are_even(ctx: Context) -> Outcome:
    """Whether one of several is slower was asked, and all of them take the same time."""
    asked = _ASKS_WHETHER.search(ctx.symptom)
    # The whole step: parts of it may be even while another part is the complaint.
    even = [(v, e) for v, e in ctx.numbers("spread.even") if _WHOLE_STEP.match(e.subject.label or "")]
    about = re.search(
        r"straggl|one of|some (?:rank|gpu|node)|which (?:rank|gpu|node)|any (?:rank|gpu|node)|慢卡|掉队|某",
        ctx.symptom,
        re.I,
    )
    apart = [r for r in _differences(ctx, 1.1) if r.axis != "other"]  # two columns of a table are no peers
    if asked is None or about is None or not even or apart or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 1.03 for v, _ in even), tuple(e for _, e in even[:2]))


# ---------------------------------------------------------------- rates near what the hardware gives

_TO_FROM = regex(
    r"h(?:ost)?[ _-]?(?:2|to)[ _-]?d|d(?:evice)?[ _-]?(?:2|to)[ _-]?h|htod|dtoh|cpu[ _-]?(?:->|to)[ _-]?gpu", re.I
)
_OTHER_COPY = regex(r"pageable|unpinned|bidir", re.I)


def copies_fill_the_slot(ctx: Context) -> Outcome:
    """Copies between host and GPU reach their band of a slot that runs at full generation and width."""
    rates = [
        (v, e) for v, e in ctx.numbers("copy.bandwidth")
        if _TO_FROM.search(e.subject.label or "") and not _OTHER_COPY.search(e.subject.label or "")
    ]  # fmt: skip
    speeds, widths = ctx.numbers("pci.link.speed"), ctx.numbers("pci.link.width")
    by_driver = not speeds and not widths
    if by_driver:
        speeds, widths = ctx.numbers("gpu.pcie.gen"), ctx.numbers("gpu.pcie.width")
    if not rates or not speeds or not widths or faulty(ctx):
        return UNKNOWN
    speed, width = lowest(speeds), lowest(widths)
    generation = int(speed[0]) if by_driver else hardware.PCIE_GTS.get(speed[0])
    rate = hardware.pcie_rate(generation, int(width[0])) if generation else None
    limits = ("gpu.pcie.gen.max", "gpu.pcie.width.max") if by_driver else ("pci.link.speed.max", "pci.link.width.max")
    tops = [v for s in limits for v, _ in ctx.numbers(s)]
    got = product(ctx)
    want = (got[0].pcie, got[0].width) if got else (4, 16)  # a slower slot needs to be known as the card's own
    if generation is None or rate is None or generation < want[0] or width[0] < want[1]:
        return UNKNOWN
    if any(top not in (speed[0], width[0]) for top in tops):
        return UNKNOWN
    band = hardware.BANDS.get(f"pcie {generation}")
    low = lowest(rates)
    return Outcome(band is not None and band.floor <= low[0] / rate.value <= 1.0, (low[1], speed[1], width[1]))


_PARAMETERS = regex(r"(?<![\w.])(\d+(?:\.\d+)?) ?b(?![\w])", re.I)
WEIGHT_BYTES = ((2.0, regex(r"bf16|fp16|bfloat16|float16|half\b", re.I)), (1.0, regex(r"fp8|int8|w8a8", re.I)))
_FOUR = regex(r"int4|w4a16|awq|gptq|4.?bit|q4_|nf4|fp4", re.I)
SPARSE = regex(r"moe|mixtral|deepseek|\d+x\d+b|a\d+b|expert|speculat|draft|eagle|\bmtp\b", re.I)
_TP = regex(r"\btp ?[=:]? ?(\d)\b|tensor[- ]parallel(?:[- ]size)?[ =:]+(\d)", re.I)
_WEIGHT_BAND = (0.95, 1.5)


def decode_reads_the_weights(ctx: Context) -> Outcome:
    """A token takes about what reading the stated weights takes, for every model whose line says size and precision."""
    times = [
        (v, e) for v, e in ctx.numbers("figure")
        if re.match(r"(?:tpot|itl)(?:_mean|_median|_p50)?(?:\||$)", e.subject.label or "") and e.unit == "ms"
    ]  # fmt: skip
    got = product(ctx)
    seen = " ".join(f"{e.value} {e.quote or ''}" for e in ctx.of("serving.arg"))
    if got is None or not times or got[0].c2c or SPARSE.search(f"{seen} {ctx.symptom}") or faulty(ctx):
        return UNKNOWN
    judged: list[tuple[float, Evidence]] = []
    for value, item in times:
        line = item.quote or ""
        sizes = {float(n) for n in _PARAMETERS.findall(line)}
        precision = next((size for size, words in WEIGHT_BYTES if words.search(line)), None)
        if len(sizes) != 1 or precision is None or SPARSE.search(line) or _FOUR.search(line):
            continue
        hit = _TP.search(line) or _TP.search(seen)
        ranks = int(hit[1] or hit[2]) if hit else 1
        floor = floors.read_floor(sizes.pop() * 1e9 * precision / max(ranks, 1), got[0].memory)
        judged.append((value / floor.value, item))
    if not judged:
        return UNKNOWN
    good = all(_WEIGHT_BAND[0] <= ratio <= _WEIGHT_BAND[1] for ratio, _ in judged)
    return Outcome(good, (*(e for _, e in judged[:3]), *got[1]))


_WIDE = regex(
    r"\b(?:[2-9]|\d{2,3}|two|four|several|multi(?:ple)?)[ -]?(?:nodes?|hosts?|machines?|servers?)|inter-?node"
    r"|between nodes|跨机|多机|两台|节点间", re.I,
)  # fmt: skip


def single_node(ctx: Context) -> bool:
    """Neither a count of hosts nor the question speaks of several machines."""
    nodes = [v for s in ("nccl.nnodes", "nccl_tests.hosts", "launch.hosts") for v, _ in ctx.numbers(s)]
    wire = [e for e in ctx.of("nccl.transport") if str(e.value).startswith("NET/IB") and "GDRDMA" in str(e.value)]
    return not any(n > 1 for n in nodes) and not wire and _WIDE.search(ctx.symptom) is None


def top_busbw(ctx: Context) -> tuple[float, Evidence] | None:
    """The bus bandwidth at the largest size in GB/s; the peak where sizes are not told."""
    peaks = ctx.numbers("nccl_tests.largest_busbw") or ctx.numbers("nccl_tests.peak_busbw")
    return highest(peaks) if peaks else None


def busbw_of_the_product(ctx: Context) -> Outcome:
    """In one machine the bus bandwidth is in the band of the ring over this product's NVLinks."""
    got, peak = product(ctx), top_busbw(ctx)
    if got is None or peak is None or not got[0].switched or not single_node(ctx) or faulty(ctx):
        return UNKNOWN
    rate = hardware.nvlink_rate(got[0].cc)
    if rate is None or any(str(e.value).startswith(("SHM", "NET")) for e in ctx.of("nccl.transport")):
        return UNKNOWN
    ring = floors.ring_nvlink(got[0].links, rate.value).value
    return Outcome(peak[0] >= hardware.BANDS["nvlink ring"].healthy * ring, (peak[1], *got[1]))


def sockets_only_for_setup(ctx: Context) -> Outcome:
    """NCCL names sockets as its network in one machine, and the data goes peer to peer, faster than any slot."""
    peak, slot = top_busbw(ctx), hardware.pcie_rate(5, 16)
    sockets = [e for e in ctx.of("nccl.network") if str(e.value) == "Socket"]
    ways = ctx.of("nccl.transport")
    asked = re.search(r"socket|network|plugin|nvlink", ctx.symptom, re.I)
    if peak is None or slot is None or not sockets or not ways or asked is None or faulty(ctx) or not single_node(ctx):
        return UNKNOWN
    if not all(str(e.value).startswith("P2P") for e in ways):
        return UNKNOWN
    known = busbw_of_the_product(ctx)
    if known.holds is False:
        return UNKNOWN
    if known.holds is None and re.search(r"[abhlv]\d{2,3}", ctx.symptom, re.I):
        rings = [
            floors.ring_nvlink(g.links, rate.value).value
            for g in candidates(ctx)[0]
            if g.switched and (rate := hardware.nvlink_rate(g.cc)) is not None
        ]
        if rings and peak[0] >= hardware.BANDS["nvlink ring"].healthy * max(rings):
            return Outcome(True, (peak[1], sockets[0], ways[0]))
        return UNKNOWN  # a name of several products: what it should reach is open
    # Without a known product only a figure beyond the slot says that NVLink carries.
    return Outcome(bool(known.holds) or peak[0] > slot.value * 2, (peak[1], sockets[0], ways[0]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        meets_reference, warning_without_effect, power_cap_at_default, random_prompts_cannot_hit, card_at_rest,
        peers_are_even, copies_fill_the_slot, decode_reads_the_weights, busbw_of_the_product, sockets_only_for_setup,
    )
}  # fmt: skip
