"""Health by a state that explains itself: a card without work, a slice of one, memory held, counters that stand."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest
from .control_healthy import CLAIMS, unlike_work
from .healthy import faulty
from .products import BARE, candidates, product

_ABOUT_CLOCK = regex(r"clock|mhz|\bp[5-9]\b|pstate|power state|watts?\b|频率|降频|功耗", re.I)


def _rows(ctx: Context, signal: str) -> dict[str, tuple[str | float, Evidence]]:
    """Readings by GPU, or by line where the row does not say which."""
    out: dict[str, tuple[str | float, Evidence]] = {}
    for item in ctx.of(signal):
        line = item.capture.line if item.capture else 0
        if isinstance(item.value, str | float | int):
            key = f"gpu {item.subject.gpu}" if item.subject.gpu is not None else f"line {line}"
            out[key] = (item.value, item)
    return out


def idle_among_busy(ctx: Context) -> Outcome:
    """Low clocks are those of the one card without work or memory in use, beside cards that work."""
    use, memory = _rows(ctx, "gpu.util"), _rows(ctx, "gpu.memory.used")
    held = [e for e in ctx.of("gpu.throttle") if "idle" not in (e.subject.label or "")]
    if len(use) < 2 or not _ABOUT_CLOCK.search(ctx.symptom) or held or faulty(ctx):
        return UNKNOWN
    clocks, states = _rows(ctx, "gpu.clock.sm"), _rows(ctx, "gpu.pstate")
    top = max((float(v) for v, _ in clocks.values()), default=0.0)
    low = {g: e for g, (v, e) in clocks.items() if float(v) < 0.7 * top}
    low |= {g: e for g, (v, e) in states.items() if re.fullmatch(r"P([5-9]|1\d)", str(v))}
    busy = [e for v, e in use.values() if float(v) >= 0.4]
    if not low or not busy:
        return UNKNOWN
    rests = all(g in use and float(use[g][0]) <= 0.02 and float(memory.get(g, (0.0,))[0]) < 2.0 for g in low)
    first = next(iter(low))
    return Outcome(rests, (low[first], *([use[first][1]] if first in use else []), busy[0]))


_SLICE = regex(r"(?<![\w.])(?P<g>[1-7])g\.(?P<gb>\d{1,3})gb\b", re.I)
_SLICE_RATE = (0.75, 1.05)


def slice_gives_its_share(ctx: Context) -> Outcome:
    """A slice of a card passes what its share of the card's memory passes."""
    got = product(ctx)
    parts = {
        (int(h["g"]), float(h["gb"])): e for e in ctx.of("gpu.mark.mig_slice") for h in _SLICE.finditer(e.quote or "")
    }
    if got is None or len(parts) != 1:
        return UNKNOWN
    (_, size), said = next(iter(parts.items()))
    rates = [
        (v, e) for v, e in (*ctx.numbers("figure", {"label": "^bandwidth"}), *ctx.numbers("kernel.bandwidth"))
        if e.unit == "GB/s"
    ]  # fmt: skip
    if not rates:
        return UNKNOWN
    # Memory comes in eighths: 1g.10gb of 80 GB is one, 3g.40gb four.
    share = round(8 * size / got[0].memory_gb) / 8
    low = lowest(rates)
    met = share > 0 and _SLICE_RATE[0] <= low[0] / (share * got[0].memory) <= _SLICE_RATE[1]
    return Outcome(met, (low[1], said, *got[1]))


_MISSING = regex(
    r"only|instead of|missing|reports?\b|dead|less than|where (?:is|are|did)|retired|smaller|cheat|lost|gone|shows? up|少|只(?:有|看到|显示|剩|认)|缺|不足|去哪|被谁|吃", re.I  # noqa: E501
)  # fmt: skip
_ECC_TAKES = ("GDDR6", "GDDR6X", "GDDR7")  # an eighth of a half: 15 of 16 stay


def size_is_nominal(ctx: Context) -> Outcome:
    """The memory shown is the product's own, in binary units and less what ECC keeps; nothing is retired."""
    got = product(ctx)
    totals = ctx.numbers("gpu.memory.total")
    about = re.search(r"memor|\bG(?:i?B)?\b|显存|内存", ctx.symptom, re.I)
    if got is None or not totals or about is None or not _MISSING.search(ctx.symptom):
        return UNKNOWN
    if any(ctx.of(s) for s in ("gpu.process.memory", "gpu.oom.requested", "gpu.xid.hardware", "gpu.mark.ecc")):
        return UNKNOWN
    used = [v for v, _ in ctx.numbers("gpu.memory.used") if v > 1.5]
    shares = [v / got[0].memory_gb for v, _ in totals]
    least = 0.925 if got[0].kind in _ECC_TAKES else 0.955
    return Outcome(all(least <= s <= 1.005 for s in shares) and not used, (totals[0][1], *got[1]))


_LEAK = regex(r"leak|memory|\bG(?:i?B)?\b|grow|显存|内存|泄漏", re.I)


def context_only(ctx: Context) -> Outcome:
    """Processes without any tensor hold some hundred MiB each, which is the CUDA context and its kernels."""
    each = ctx.numbers("gpu.process.memory")
    zero = [
        e for v, e in ctx.numbers("figure", {"label": "^memory"})
        if v == 0 and re.search(r"memory_allocated|memory_reserved|allocated|已分配", e.quote or "", re.I)
    ]  # fmt: skip
    zero += [e for v, e in ctx.numbers("gpu.alloc.allocated") if v == 0]
    if not each or not zero or not _LEAK.search(ctx.symptom) or ctx.of("gpu.oom.requested"):
        return UNKNOWN
    return Outcome(all(0.05 <= v <= 1.2 for v, _ in each), (each[0][1], zero[0]))


_AT_STEP = regex(r"\W*(?:step|iter(?:ation)?)\W{0,3}(\d{1,7})\b", re.I)
_WARM = 0.005


def memory_levels_off(ctx: Context) -> Outcome:
    """Over many steps neither what is allocated nor what the allocator keeps grows."""
    rows: dict[int, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(?:memory|bytes)\|\D{0,8}\d{1,7}(?:\s*[kK])?$"}):
        step = re.search(r"\d+", (item.subject.label or "").split("|")[1])
        if step is not None and item.unit in ("B", "GiB"):
            rows.setdefault(int(step[0]), []).append((value, item))
    for value, item in ctx.numbers("figure", {"label": r"^(?:memory|bytes)$"}) if not rows else ():
        said = _AT_STEP.match(item.quote or "")
        if said is not None and item.unit in ("B", "GiB"):
            rows.setdefault(int(said[1]), []).append((value, item))
    settled = {n: got for n, got in rows.items() if n >= _WARM * max(rows)}
    rows = settled if len(settled) >= 3 else rows  # the first steps fill the cache
    if len(rows) < 3 or not _LEAK.search(ctx.symptom) or ctx.of("gpu.oom.requested") or faulty(ctx):
        return UNKNOWN
    first, last = rows[min(rows)], rows[max(rows)]
    if max(rows) < 5 * max(1, min(rows)) or len({len(r) for r in rows.values()}) != 1:
        return UNKNOWN
    pairs = zip(sorted(v for v, _ in first), sorted(v for v, _ in last), strict=True)
    return Outcome(all(b <= 1.03 * a for a, b in pairs), (first[0][1], last[0][1]))


_ABOUT_COUNTER = regex(
    r"counter|errors?\b|symbol|replay|retr|discard|drop|link.?down|flap|cable|non-?zero|not zero|计数|错误|丢包|重传|误码", re.I  # noqa: E501
)  # fmt: skip


def counters_stand_still(ctx: Context) -> Outcome:
    """Error counters that are not zero read the same twice: what happened lies before."""
    series: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("rdma.counter"):
        series.setdefault(item.subject.key(), []).append((value, item))
    twice = [s for s in series.values() if len(s) >= 2]
    if not twice or len(twice) != len(series) or not _ABOUT_COUNTER.search(ctx.symptom) or CLAIMS.search(ctx.symptom):
        return UNKNOWN
    if not any(v > 0 for s in twice for v, _ in s) or faulty(ctx) or ctx.of("nccl.mark.port_error"):
        return UNKNOWN
    grown = [e for v, e in ctx.numbers("counter.growth") if v > 0]
    still = all(len({v for v, _ in s}) == 1 for s in twice) and not grown
    return Outcome(still, tuple(e for s in twice[:2] for _, e in s[:2]))


def printed_twice_alike(ctx: Context) -> Outcome:
    """All counters that a text prints twice read the same, and at least one of them is not zero."""
    pairs = ctx.numbers("counter.growth")
    first = [v for v, _ in ctx.numbers("counter.reading")]
    if not pairs or not any(v > 0 for v in first) or not _ABOUT_COUNTER.search(ctx.symptom):
        return UNKNOWN
    if CLAIMS.search(ctx.symptom) or faulty(ctx) or ctx.of("nccl.mark.port_error"):
        return UNKNOWN
    return Outcome(all(v == 0 for v, _ in pairs), tuple(e for _, e in pairs[:3]))


_WIRE = regex(
    r"\b(?:box(?:es)?|hosts?|nodes?|machines?|servers?|network|nic|switch|port|ethernet|infiniband|roce|rdma|adapter|wire|\d+ ?G(?:bE|b|bps|bit)?)\b|网卡|网络|端口|交换机|万兆|两台|机器之间|节点",  # noqa: E501
    re.I,
)


def asks_about_the_wire(ctx: Context) -> Outcome:
    """The question is about what goes between machines, and not about a library above the wire."""
    above = ("slow-allreduce", "training-slow", "gpu-idle-network-busy", "kv-transfer-slow", "ucx-slow-path")
    if ctx.asks(*above) or ctx.of("nccl*"):
        return UNKNOWN
    return Outcome(True) if _WIRE.search(ctx.symptom) else UNKNOWN


_RATE = regex(r"\d\s?(?:[GM]i?B|[GM]b(?:it)?)\s?(?:/|p)\s?s", re.I)
_SLOT = regex(r"pci-?e|\bslots?\b|\blanes?\b|\bx(?:4|8|16)\b|riser|reseat|插槽|通道", re.I)


_OWN_COPIES = ("copy.*", "trace.*", "kernel.*", "p2p.*")


def slot_is_filled_here(ctx: Context) -> Outcome:
    """Pinned copies of this tool's own fill the slot both ways, and nothing is known of the program's copies.

    A figure in the question is such a copy: where it is low, the slot's rate explains it away no more.
    """
    ways = [x for x in ctx.limits if x.ratio is not None and x.what.startswith("microbenchmark pinned")]
    if len(ways) < 2 or _RATE.search(ctx.symptom) or any(ctx.of(s) for s in _OWN_COPIES):
        return UNKNOWN
    used = tuple(e for e in ctx.evidence if any(e.id in x.evidence for x in ways))
    return Outcome(all(x.ratio is not None and 0.75 <= x.ratio <= 1 for x in ways), used[:4])


def asks_about_the_slot(ctx: Context) -> Outcome:
    """The question is about the slot of a card."""
    return Outcome(True) if _SLOT.search(ctx.symptom) else UNKNOWN


_SAID_RATE = regex(r"(?<![\w.])(\d{1,3}) ?(?:G|Gb|Gbe|GbE|Gbit|Gbps|Gb/s|gigabit|-gigabit)\b(?! ?B)")


def port_below_the_said_rate(ctx: Context) -> Outcome:
    """The port runs at less than the question says it has: reaching that is no health."""
    ports = [n for s in ("rdma.port.rate", "net.interface.speed") for n in ctx.numbers(s) if n[0] > 0]
    said = [float(h) for h in _SAID_RATE.findall(ctx.symptom) if float(h) in (10, 25, 40, 50, 56, 100, 200, 400, 800)]
    if not ports or not said:
        return UNKNOWN
    best = highest(ports)
    return Outcome(best[0] < 0.9 * max(said), (best[1],))


# ---------------------------------------------------------------- a line that says what it should be

_SHEET = regex(
    r"^\W*(?:[\w.]+[ -]){0,4}?(?:data ?sheet|spec(?:ification|s)?\b|rated|nominal|vendor|manufacturer|advertised|sold as|标称|规格|官方|厂商)", re.I  # noqa: E501
)  # fmt: skip
_THEN = regex(
    r"^\W*(?:[\w.]+[ -]){0,4}?(?:accept(?:ance|ed)?\b|burn-?in|commission\w*|baseline|reference|last (?:week|month|quarter)|yesterday|previous\w*"  # noqa: E501
    r"|(?:sister|twin|neighbou?r\w*|other|second) (?:host|node|box|machine|site|card|cluster)|验收|基线|上(?:周|个?月)|另一(?:台|个)|参考)", re.I,  # noqa: E501
)  # fmt: skip
_INVENTORY = ("rdma.port.rate", "net.interface.speed", "pci.link.speed*", "pci.link.width*", "gpu.power.limit")
_MEASURED = regex(
    r"(?:bandwidth|throughput|decode_throughput|iterations|flops|request_rate|step_time|ttft|tpot|itl|latency|e2e|prefill)(?:_(?!per_)|\\||$)"
)
_WORRY = regex(
    r"\?|？|\bonly\b|just\b|normal|\bok\b|wrong|problem|broken|should|worr|吗|只有|正常|是否|是不是|有没有", re.I
)  # fmt: skip


def _base(item: Evidence) -> str:
    return re.sub(r"_(?:mean|median|p\d+|max|min|avg)$", "", (item.subject.label or "").split("|")[0])


def reaches_the_noted_line(ctx: Context) -> Outcome:
    """One line says what the thing is rated or was accepted at, and all other lines of that quantity are there."""
    named = {e.quote for s in _INVENTORY for e in ctx.of(s)}  # what a port or slot can do is no measurement
    figures = [
        (v, e) for v, e in ctx.numbers("figure")
        if _MEASURED.match(e.subject.label or "") and v > 0 and e.quote not in named
    ]  # fmt: skip
    noted = [
        (v, e, _SHEET.search(e.quote or ""))
        for v, e in figures
        if _SHEET.search(e.quote or "") or _THEN.search(e.quote or "")
    ]
    if len({(v, _base(e)) for v, e, _ in noted}) != 1 or not _WORRY.search(ctx.symptom) or CLAIMS.search(ctx.symptom):
        return UNKNOWN
    want, line, sheet = noted[0]
    own = [(v, e) for v, e in figures if _base(e) == _base(line) and e.unit == line.unit and e.quote != line.quote]
    own = own or [(v, e) for v, e in figures if _base(e) == _base(line) and e.quote != line.quote]
    if not own or faulty(ctx) or unlike_work(ctx, 1.15):
        return UNKNOWN
    if re.match("bandwidth|throughput|decode_throughput|iterations|flops|request_rate", _base(line)):
        least = 0.85 if sheet else 0.95
        met = all(v >= least * want for v, _ in own) and min(v for v, _ in own) <= 1.3 * want
    else:
        met = all(v <= 1.05 * want for v, _ in own) and max(v for v, _ in own) >= 0.7 * want
    return Outcome(met, (own[0][1], line))


def pair_copies_at_its_links(ctx: Context) -> Outcome:
    """Copies between two GPUs of a board with NVLink reach what one direction of its links gives."""
    gpus, named = candidates(ctx)
    one = [
        (v, e) for v, e in ctx.numbers("p2p.bandwidth")
        if not re.search("bidir|both|disabled", e.subject.label or "", re.I) and e.subject.gpu != e.subject.peer
    ]  # fmt: skip
    boards = [g for g in gpus if g.switched]
    sxm = re.search(r"sxm|[hd]gx", ctx.symptom, re.I)
    if not boards or not one or faulty(ctx) or (len(boards) != len(gpus) and sxm is None):
        return UNKNOWN
    ways = {g.links * hardware.NVLINK_RAW[g.nvlink] for g in boards if g.nvlink}
    if len(ways) > 1 and BARE.search(ctx.symptom) is None:
        return UNKNOWN
    low = lowest(one)
    met = bool(ways) and all(0.72 <= low[0] / way <= 1.0 for way in ways)
    return Outcome(met, (low[1], *named[:1])) if met else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    idle_among_busy, slice_gives_its_share, size_is_nominal, context_only, memory_levels_off, counters_stand_still, printed_twice_alike, asks_about_the_wire, asks_about_the_slot, slot_is_filled_here, port_below_the_said_rate,  # noqa: E501
    reaches_the_noted_line, pair_copies_at_its_links,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
