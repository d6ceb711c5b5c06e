"""Named predicates over GPUs without NVLink whose exchange runs at what a PCIe slot carries."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, outcome
from .nccl_facts import SPEED, text_of
from .products import product

_SHARE = (0.25, 1.15)  # of the slot's payload rate; a ring over a root complex reaches from a quarter on


def _exchanged(ctx: Context) -> list[tuple[float, Evidence]]:
    """Rates of an exchange between GPUs, GB/s."""
    made = [*ctx.numbers("nccl_tests.peak_busbw"), *ctx.numbers("p2p.bandwidth")]
    for value, item in ctx.numbers("figure"):
        label = (item.subject.label or "").split("|")[0]
        if item.unit == "GB/s" and (label.startswith("busbw") or _names_exchange(item.quote or "")):
            made.append((value, item))
    return made


def _names_exchange(text: str) -> bool:
    low = text.lower()
    return any(word in low for word in ("allreduce", "all-reduce", "all_reduce", "nccl", "busbw", "p2p", "peer"))


def _at_slot_rate(ctx: Context, rate: float) -> list[Evidence]:
    made = _exchanged(ctx)
    if not made or max(v for v, _ in made) > _SHARE[1] * rate:
        return []
    best = highest(made)
    return [best[1]] if best[0] >= _SHARE[0] * rate else []


# whoever holds the rate against the slot's own asks whether it is as good as a slot gets
_KNOWS = regex(r"pcie ?(?:gen ?)?[345]|\bx16\b|\bfine\b(?!-)|normal|expected|all right|正常", re.I)


def slot_is_the_link(ctx: Context) -> Outcome:
    """The product has no NVLink, several of them exchange, and they reach what its slot carries."""
    got = product(ctx)
    empty = ctx.of("nvlink.absent")
    if got is None or (got[0].links and not empty) or got[0].c2c or not ctx.asks(*SPEED):
        return UNKNOWN
    if any(text_of(e).startswith("NV") for e in ctx.of("topo.link")) or ctx.of("nvlink.links"):
        return UNKNOWN
    if _KNOWS.search(ctx.symptom):
        return UNKNOWN
    rate = hardware.pcie_rate(got[0].pcie, got[0].width)
    met = _at_slot_rate(ctx, rate.value) if rate is not None else []
    return outcome([*empty, *got[1][:2], *met]) if met else UNKNOWN


def no_nvlink_in_graph(ctx: Context) -> Outcome:
    """The fastest link of NCCL's own topology is a slot's, and the exchange inside the machine runs at its rate."""
    most = ctx.numbers("nccl.topo.max_bw")
    kinds = [e for e in ctx.of("nccl.graph.type") if text_of(e).split("/")[0] in ("PIX", "PXB", "PHB", "SYS")]
    got = product(ctx)
    if not most or not kinds or max(v for v, _ in most) > 64 or not ctx.asks(*SPEED) or (got and got[0].links):
        return UNKNOWN
    met = _at_slot_rate(ctx, max(v for v, _ in most) * 1.35)
    return outcome([most[0][1], kinds[0], *met]) if met else UNKNOWN


_SEVERAL = regex(
    r"\b(?:two|three|four|[2-9]|1\d|multi|inter|cross)[- ]?(?:nodes?|hosts?|machines?|servers?)\b"
    r"|(?:两|双|多|跨|[2-9]) ?(?:台|机|节点)",
    re.I,
)


def one_host_of_several(ctx: Context) -> Outcome:
    """The test was to run over several hosts, and its first, second and last ranks are on one and the same."""
    nodes = ctx.numbers("nccl.nnodes")
    if nodes and max(v for v, _ in nodes) == 1 and _SEVERAL.search(ctx.symptom) and _exchanged(ctx):
        whole = [e for v, e in ctx.numbers("nccl.nranks") if v >= 2]
        return outcome((nodes[0][1], *whole[:1])) if whole else UNKNOWN
    hosts = ctx.numbers("nccl_tests.hosts")
    ranks = [e for e in ctx.of("nccl_tests.rank") if e.subject.rank is not None]
    if not hosts or not ranks or not _SEVERAL.search(ctx.symptom) or ctx.of("nccl_tests.rank0_copies"):
        return UNKNOWN
    last = max(ranks, key=lambda e: e.subject.rank or 0)
    alone = max(v for v, _ in hosts) == 1 and (last.subject.rank or 0) >= 3
    return outcome((hosts[0][1], last)) if alone else UNKNOWN


_PORT = regex(r"\bSpeed\s*:\s*\d+ ?[MG]b/s|\bethtool\b|\d+ ?GbE\b|\bRate: ?\d+", re.I)
_STREAMS = regex(
    r"\b(?:[2-9]|\d\d) (?:parallel )?(?:streams?|connections?|flows?|threads?|processes)|-P ?\d|\bSUM\b", re.I
)
_WIRE = regex(r"nic\b|\blink\b|cable|RoCE|perftest|ib_\w+_bw|\bport\b|iperf|ethernet|GbE|网卡|链路", re.I)


def streams_fill_the_port(ctx: Context) -> Outcome:
    """One stream does not fill the port, several do: the wire is in order."""
    rates = [(v, e) for v, e in ctx.numbers("figure") if e.unit == "Gb/s"]
    port = [(v, e) for v, e in rates if _PORT.search(e.quote or "") and not _STREAMS.search(e.quote or "")]
    port += [(v, e) for v, e in ctx.numbers("net.interface.speed")]
    many = [(v, e) for v, e in rates if _STREAMS.search(e.quote or "")]
    many += [(8 * v, e) for v, e in ctx.numbers("rdma.perftest.bw")]
    if not port or not many or not _WIRE.search(ctx.symptom):
        return UNKNOWN
    most = max(v for v, _ in port)
    full = [e for v, e in many if 0.88 * most <= v <= most]
    return outcome((full[0], port[0][1])) if full else UNKNOWN


_FASTEST = 2000.0  # GB/s, above what any GPU of today exchanges


def beyond_the_links(ctx: Context) -> Outcome:
    """A collective is said to be faster than the links of the product, so that its time was not taken."""
    made = [m for m in _exchanged(ctx) if not m[1].signal.startswith("p2p")]
    got = product(ctx)
    most = _FASTEST
    if got is not None and got[0].links and got[0].nvlink in hardware.NVLINK_RAW:
        most = min(most, 1.6 * got[0].links * hardware.NVLINK_RAW[got[0].nvlink])
    over = [e for v, e in made if v > most]
    return outcome(over[:2]) if over else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (slot_is_the_link, no_nvlink_in_graph, one_host_of_several, beyond_the_links, streams_fill_the_port)
}
