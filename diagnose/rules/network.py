"""Named predicates of adapters and paths: emulated RDMA, small packets, a rate beside its port, stages that add up."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .comparison import ratios
from .healthy import faulty
from .nccl_facts import env, overrides, text_of

# ---------------------------------------------------------------- the adapter in use

_SOFT = regex(r"(?<![\w])(?:rxe|siw)(?:_?\w*\d|_\w+)(?::\d)?\b", re.IGNORECASE)


def ucx_on_soft_rdma(ctx: Context) -> Outcome:
    """UCX's lanes or its device list name an adapter that the kernel emulates (rxe, siw)."""
    lanes = [e for e in ctx.of("ucx.lane") if _SOFT.search(text_of(e))]
    named = [
        e for n in ("env.var", "ucx.env") for e in ctx.of(n, {"label": "^UCX_NET_DEVICES$"}) if _SOFT.search(text_of(e))
    ]
    return read.yes(*lanes[:2], *named[:1]) if lanes or named else UNKNOWN


def nccl_on_soft_rdma(ctx: Context) -> Outcome:
    """NCCL uses, or is told to use, an adapter that the kernel emulates."""
    used = [e for e in ctx.of("nccl.ib.devices") if _SOFT.search(text_of(e))]
    named = [e for e in env(ctx, "NCCL_IB_HCA") if _SOFT.search(text_of(e)) and not text_of(e).startswith("^")]
    return read.yes(*used[:1], *named[:1]) if used or named else UNKNOWN


_FAILED = (
    "nccl.mark.modify_qp", "nccl.mark.ib_retry", "nixl.mark.handshake", "nixl.mark.transfer_failure", "kv.mark.timeout",
)  # fmt: skip


def side_nic_given_to_transfer(ctx: Context) -> Outcome:
    """One side of the transfer is given the adapter for storage or management, and the connection fails."""
    failed = [e for name in _FAILED for e in ctx.of(name)]
    for mark in ctx.of("rdma.mark.side_nic"):
        name = mark.subject.label or ""
        for item in ctx.of("nixl.setting", {"label": "device|nic|hca"}):
            if name and failed and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text_of(item)):
                return read.yes(item, mark, failed[0])
    return UNKNOWN


def settings_differ_and_fail(ctx: Context) -> Outcome:
    """Both sides of the transfer name different adapters, and no connection comes about."""
    failed = [e for name in _FAILED[:3] for e in ctx.of(name)]
    values: dict[str, Evidence] = {}
    for item in ctx.of("nixl.setting", {"label": "ib-device|ib_device|hca"}):
        values.setdefault(text_of(item), item)
    return read.yes(*list(values.values())[:2], failed[0]) if len(values) == 2 and failed else UNKNOWN


_PORT_MISSING = regex(
    r"\b(?:rails?|ports?|links?|nics?|hcas?|adapters?|cables?)\b.{0,30}(?:missing|down|dark|dead|gone|lost|unused|idle|off)"
    r"|(?:missing|lost|dead|one|only \w+|some) (?:of \w+ )?(?:rails?|ports?|links?|nics?|hcas?|adapters?)"
    r"|(?:网口|端口|网卡|链路).{0,8}(?:掉|断|少|不)", re.IGNORECASE,
)  # fmt: skip


def asks_about_a_port(ctx: Context) -> Outcome:
    """The question itself misses a port; one that is down and that nobody misses is a spare."""
    return Outcome(_PORT_MISSING.search(ctx.symptom) is not None)


# ---------------------------------------------------------------- packets

_LOW = 0.85


def small_rdma_packets_cost(ctx: Context) -> Outcome:
    """Over Ethernet the RDMA MTU is at its smallest steps, and the test stays below the port's rate."""
    ethernet = [e for e in ctx.of("rdma.perftest.param", {"label": "^Link type$"}) if text_of(e) == "Ethernet"]
    ethernet += ctx.of("nccl.mark.ethernet_layer")
    sizes = [
        (float(hit[0]), e) for e in ctx.of("rdma.perftest.param", {"label": "^Mtu$"})
        if (hit := re.match(r"\d+", text_of(e)))
    ]  # fmt: skip
    sizes += [*ctx.numbers("rdma.mark.active_mtu"), *ctx.numbers("rdma.port.mtu")]
    small = [e for v, e in sizes if v <= 1024]
    rates = [r for name in ("net.interface.speed", "rdma.port.rate", "movement.named_rate") for r in ctx.numbers(name)]
    rates += [(v, e) for v, e in ctx.numbers("net.speed")]
    speeds = [(v * 8, e) for v, e in ctx.numbers("rdma.perftest.bw") if e.unit == "GB/s"]
    if not ethernet or not small or not rates or not speeds:
        return UNKNOWN
    rate, speed = max(rates, key=_first), max(speeds, key=_first)
    frames = [e for v, e in ctx.numbers("net.mtu") if v <= 1600]
    return Outcome(speed[0] / rate[0] < _LOW, (small[0], speed[1], rate[1], *frames[:1]))


def _first(pair: tuple[float, Evidence]) -> float:
    return pair[0]


# ---------------------------------------------------------------- a rate beside what it could be

_EVEN = regex(r"message_size|block_size|batch|expected|measured_by|direction|repeat")


def rate_beside_its_port(ctx: Context) -> Outcome:
    """A bandwidth stands on the line that names the port's rate, and reaches it; nothing beside it differs."""
    good: tuple[Evidence, ...] = ()
    for rate, named in ctx.numbers("movement.named_rate"):
        for value, item in ctx.numbers("figure", {"label": "^(?:bandwidth|throughput)"}):
            if item.unit not in ("GB/s", "Gb/s") or not _one_line(item, named) or _is_the_rate(item, rate):
                continue
            reached = value * (8 if item.unit == "GB/s" else 1) / rate
            if reached < _LOW:
                return Outcome(False, (item, named))
            if reached <= 1.03:
                good = (item, named)
    apart = [r for r in ratios(ctx) if r.value > 1.2 and _EVEN.match(r.axis) is None]
    if not good or faulty(ctx):
        return UNKNOWN
    return Outcome(not apart, (*good, *(r.evidence for r in apart[:1])))


_BENCH = regex(
    r"iperf|\[SUM\]|\b(?:sender|receiver)\b|nixlbench|ucx_perftest|ib_(?:write|read|send)_bw|osu_\w*bw|aggregate|gdsio",
    re.IGNORECASE,
)


def network_at_its_rate(ctx: Context) -> Outcome:
    """A network benchmark reaches the rate of one port, or of all adapters counted; nothing beside it differs."""
    single = [
        (v, e) for name in ("rdma.port.rate", "net.interface.speed", "net.port_noted") for v, e in ctx.numbers(name)
    ]
    count, each = ctx.numbers("net.adapters"), ctx.numbers("net.adapter.rate")
    whole = [(each[0][0] * count[0][0], each[0][1])] if len(count) == 1 and len(each) == 1 else []
    speeds = [
        (v * 8, e) for name in ("rdma.perftest.bw", "ucx.perftest.bw") for v, e in ctx.numbers(name) if e.unit == "GB/s"
    ]
    tool = bool(ctx.of("rdma.mark.tool"))
    for value, item in ctx.numbers("figure", {"label": "^(?:bandwidth|throughput)"}):
        told = _BENCH.search(f"{item.subject.label} {item.quote or ''}")
        if any(_is_the_rate(item, v) for v, _ in (*single, *whole)):
            continue
        if item.unit in ("GB/s", "Gb/s") and (told or (tool and whole)):
            speeds.append((value * (8 if item.unit == "GB/s" else 1), item))
    if not speeds or not (single or whole) or faulty(ctx) or len({v for v, _ in single}) > 1:
        return UNKNOWN
    speed = max(speeds, key=_first)
    met = [(v, e) for v, e in (*single, *whole) if _LOW <= speed[0] / v <= 1.03]
    apart = [r for r in ratios(ctx) if r.value > 1.2 and _EVEN.match(r.axis) is None]
    uneven = [e for name in ("movement.numa_split", "mpi.host_over_gpu") for v, e in ctx.numbers(name) if v > 1.2]
    if not met:
        return Outcome(False, (speed[1], (single or whole)[0][1]))
    return Outcome(not apart and not uneven, (speed[1], met[0][1], *uneven[:1], *(r.evidence for r in apart[:1])))


_RATE_WORDS = regex(r"\brate\W{1,3}\d|\b(?:active_)?(?:speed|width)\b|\bstate\b|linkup|\bport \d+\b|==>", re.IGNORECASE)


def _is_the_rate(item: Evidence, rate: float) -> bool:
    """Does a figure only repeat what the port can do? That is inventory, no measurement."""
    return item.value in (rate, rate / 8) or _RATE_WORDS.search(item.quote or "") is not None


def _one_line(a: Evidence, b: Evidence) -> bool:
    if a.capture is None or b.capture is None:
        return False
    return (a.capture.sha256, a.capture.line) == (b.capture.sha256, b.capture.line)


_TREE, _RING = (regex(rf"NCCL_ALGO={name}\b", re.IGNORECASE) for name in ("Tree", "Ring"))
_DOUBT = regex(
    r"more than|above|exceed|higher than|beyond|too (?:good|high)|broken|wrong|impossible|超过|高于|不可能",
    re.IGNORECASE,
)


def tree_counts_more_than_the_wire(ctx: Context) -> Outcome:
    """Between two nodes Tree shows more bus bandwidth than the wire carries, and Ring shows the wire."""
    rows = [(v, e) for v, e in ctx.numbers("nccl_tests.busbw")]
    tree = [(v, e) for v, e in rows if _TREE.search(e.quote or "")]
    ring = [(v, e) for v, e in rows if _RING.search(e.quote or "")]
    count, rate = ctx.numbers("net.adapters"), ctx.numbers("net.adapter.rate")
    if not tree or not ring or not count or not rate or _DOUBT.search(ctx.symptom) is None:
        return UNKNOWN
    wire = count[0][0] * rate[0][0] / 8
    top, plain = max(tree, key=_first), max(ring, key=_first)
    met = wire < top[0] <= 2.05 * wire and _LOW <= plain[0] / wire <= 1.03
    return Outcome(met, (top[1], plain[1], rate[0][1]))


# ---------------------------------------------------------------- what an override costs


def _tried(ctx: Context, name: str) -> set[str]:
    """Values of a variable that the text shows."""
    return {str(e.value).lower() for e in ctx.of("env.var") if (e.subject.label or "").upper() == name}


def slower_with_override(ctx: Context) -> Outcome:
    """Of two measured settings the worse names a variable that overrides NCCL's choice, and the better does not."""
    names = {(e.subject.label or "").upper(): e for e in overrides(ctx)}
    for ratio in ratios(ctx):
        if ratio.value < 1.2 or not re.search("busbw|algbw|bandwidth|throughput|iterations|time|latency", ratio.metric):
            continue
        said = set(re.findall(r"NCCL_\w+", ratio.worse)) - set(re.findall(r"NCCL_\w+", ratio.better))
        # Several values of one variable are an experiment, nothing that was left behind.
        hits = [names[name] for name in sorted(said) if name in names and len(_tried(ctx, name)) < 2]
        if hits:
            return read.yes(ratio.evidence, *hits[:2])
    return UNKNOWN


def gdr_only_with_topology(ctx: Context) -> Outcome:
    """Channels get GPUDirect once a topology file is given: without it NCCL cannot see that NIC and GPU are near."""
    files = env(ctx, "NCCL_TOPO_FILE")
    ways = [e for e in ctx.of("nccl.transport") if text_of(e).startswith("NET/IB")]
    with_gdr = [e for e in ways if "GDRDMA" in text_of(e)]
    without = [e for e in ways if "GDRDMA" not in text_of(e)]
    if not files or not with_gdr or not without:
        return UNKNOWN
    tried = [e for e in files if re.search(r"\bwith\b|\bafter\b|加上?|设置", e.quote or "")]
    return read.yes(without[0], with_gdr[0], tried[0]) if tried else UNKNOWN


# ---------------------------------------------------------------- stages that add up


def first_token_is_the_sum(ctx: Context) -> Outcome:
    """Time to first token is prefill plus transfer, nothing less; a transfer longer than prefill is slow itself."""
    parts = {
        kind: (v, e) for v, e in ctx.numbers("serving.stage")
        if (kind := (e.subject.label or "").split(":")[0]) in ("prefill", "transfer", "total")
    }  # fmt: skip
    if len(parts) < 3 or parts["total"][0] <= 0:
        return UNKNOWN
    total = parts["total"][0]
    sum_ = (parts["prefill"][0] + parts["transfer"][0]) / total
    share = parts["transfer"][0] / total
    return Outcome(0.97 <= sum_ <= 1.02 and 0.15 <= share < 0.5, tuple(e for _, e in parts.values()))


def waits_outnumber_data(ctx: Context) -> Outcome:
    """A port could not send for more ticks than it sent words, and its counters of link errors stay small."""
    sent = [(v, e) for v, e in ctx.numbers("rdma.port.sent") if v > 0]
    waits = ctx.numbers("rdma.counter", {"label": "xmit_wait"})
    broken = [e for v, e in ctx.numbers("rdma.counter", {"label": "symbol|rcv_errors|link_down|recovery"}) if v >= 100]
    pairs = [(w, s) for w in waits for s in sent if (w[1].subject.nic or "") == (s[1].subject.nic or "")]
    if len(waits) != 1 or len(pairs) != 1 or broken:
        return UNKNOWN
    (wait, one), (data, other) = pairs[0]
    return Outcome(wait > data and wait >= 1e6, (one, other))


_RANKS = regex(r"\b(\d{1,5}) ranks\b")
_ACROSS = regex(
    r"\b(?:[2-9]|\d{2,4}|two|four|pair|between|across|multi)\W?(?:of )?(?:nodes?|hosts?|machines?|boxes|servers?|vms?)"
    r"|inter-?node|\bpair\b|跨机|多机|两台|节点间|之间",
    re.I,
)


def _wire(ctx: Context) -> tuple[float, list[Evidence]] | None:
    """GB/s that the adapters of one machine carry together, each way."""
    each, count = ctx.numbers("net.adapter.rate"), ctx.numbers("net.adapters")
    if each and count and len({v for v, _ in each}) == len({v for v, _ in count}) == 1:
        return each[0][0] * count[0][0] / 8, [each[0][1], count[0][1]]
    names = {n for e in ctx.of("nccl.ib.devices") for n in re.findall(r"\[\d+\]([\w-]+:\d+)", str(e.value))}
    rates = [r for s in ("rdma.port.rate", "net.port_noted", "movement.named_rate") for r in ctx.numbers(s)]
    if names and rates and len({v for v, _ in rates}) == 1:
        return rates[0][0] * len(names) / 8, [rates[0][1], ctx.of("nccl.ib.devices")[0]]
    return None


def _over_the_wire(ctx: Context) -> tuple[float, tuple[Evidence, ...]] | None:
    """Bus bandwidth between machines over what the adapters of one carry."""
    wire, peaks = _wire(ctx), ctx.numbers("nccl_tests.largest_busbw") or ctx.numbers("nccl_tests.peak_busbw")
    if wire is None or not peaks or wire[0] <= 0:
        return None
    top = max(peaks, key=_first)
    ranks = [v for s in ("nccl.nranks", "nccl_tests.nranks") for v, _ in ctx.numbers(s)]
    said = " ".join([ctx.symptom, *(e.quote or "" for e in (*(e for _, e in peaks), *wire[1]))])
    ranks += [float(n) for n in _RANKS.findall(said)]
    nets = [e for e in ctx.of("nccl.transport") if text_of(e).startswith("NET/")]
    hosts = [v for s in ("nccl.nnodes", "nccl_tests.hosts", "launch.hosts") for v, _ in ctx.numbers(s)]
    if not nets and max([*hosts, 1]) < 2 and max([*ranks, 0]) <= 8 and _ACROSS.search(said) is None:
        return None
    return top[0] / wire[0], (top[1], *wire[1])


def busbw_fills_the_wire(ctx: Context) -> Outcome:
    """Between machines the bus bandwidth is most of what their adapters carry, with GPUDirect where that is told."""
    got = _over_the_wire(ctx)
    if got is None or faulty(ctx):
        return UNKNOWN
    staged = [
        e for e in ctx.of("nccl.transport") if re.match(r"NET/(?!Socket)", text_of(e)) and "GDR" not in text_of(e)
    ]
    return Outcome(0.7 <= got[0] <= 1.06 and not staged, got[1])


def busbw_far_below_the_wire(ctx: Context) -> Outcome:
    """Between machines the bus bandwidth is less than half of what their adapters carry."""
    got = _over_the_wire(ctx)
    return UNKNOWN if got is None else Outcome(got[0] < 0.5, got[1])


_INIT_ASKED = regex(r"\binit\w*|bootstrap|start-?up|初始化", re.I)
_NEVER_ENDS = regex(r"hang|hung|stuck|never|freez|卡住|卡死", re.I)


def init_time_is_usual(ctx: Context) -> Outcome:
    """Setting a communicator up takes the seconds that it takes with so many ranks."""
    took, ranks = ctx.numbers("nccl.init.time"), ctx.numbers("nccl.nranks")
    if not took or not ranks or not _INIT_ASKED.search(ctx.symptom) or _NEVER_ENDS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    most, many = max(took, key=_first), max(ranks, key=_first)
    return Outcome(most[0] <= 10 + many[0] / 100 and many[0] >= 8, (most[1], many[1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        ucx_on_soft_rdma, nccl_on_soft_rdma, side_nic_given_to_transfer, settings_differ_and_fail,
        asks_about_a_port, small_rdma_packets_cost, rate_beside_its_port, network_at_its_rate,
        busbw_fills_the_wire, busbw_far_below_the_wire, init_time_is_usual,
        tree_counts_more_than_the_wire, slower_with_override,
        gdr_only_with_topology, first_token_is_the_sum, waits_outnumber_data,
    )
}  # fmt: skip
