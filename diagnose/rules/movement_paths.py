"""Named predicates of paths: small GPU messages, TCP beside something better, one adapter of many, line rate."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest

_GPU = r"\bd ?[-_]? ?d\b|gpu|device|cuda|vram"
_HOST = r"\bh ?[-_]? ?h\b|host|cpu|dram|system"
_SPEEDS = ("rdma.perftest.bw", "ucx.perftest.bw", "mpi.osu")


def listing_lacks_gdrcopy(ctx: Context) -> Outcome:
    """UCX lists transports for CUDA and for RDMA and not gdr_copy, which carries small GPU messages."""
    found = ctx.of("ucx.transports")
    if not found:
        return UNKNOWN
    for item in found:
        names = str(item.value).split(",")
        if "gdr_copy" in names:
            return Outcome(False, (item,))
        if "cuda_copy" in names and any(n.startswith(("rc", "dc", "ud")) for n in names):
            return Outcome(True, (item,))
    return UNKNOWN


def tls_lacks_gdrcopy(ctx: Context) -> Outcome:
    """UCX_TLS names CUDA transports one by one and leaves gdr_copy out."""
    found = ctx.of("ucx.env", {"label": "^UCX_TLS$"})
    hits = [e for e in found if "cuda_copy" in str(e.value) and "gdr_copy" not in str(e.value)]
    hits += [e for e in found if str(e.value).startswith("^") and "gdr_copy" in str(e.value)]
    return Outcome(bool(hits), tuple(hits or found)) if found else UNKNOWN


def gpu_latency_far(ctx: Context) -> Outcome:
    """The same message takes three times as long, or longer, between GPU buffers than between host buffers."""
    found = list(ctx.numbers("mpi.gpu_over_host_latency"))
    for value, item in ctx.numbers("compare.ratio"):
        axis, metric, worse, better = ((item.subject.label or "") + "|||").split("|")[:4]
        if re.search("bandwidth|throughput", metric) or axis not in ("memory_kind", "gdr", "direction", "other", "gpu"):
            continue
        if re.search(_GPU, worse, re.I) and re.search(_HOST, better, re.I):
            found.append((value, item))
    if not found:
        return UNKNOWN
    good = tuple(e for v, e in found if v >= 3)
    return Outcome(bool(good), good or tuple(e for _, e in found)[:2])


def tcp_path_slow(ctx: Context) -> Outcome:
    """Rates stand beside their transports, and the one over TCP is a third or less of another."""
    rates = {e.subject.label: (v, e) for v, e in ctx.numbers("movement.path_rate")}
    if "tcp" not in rates or len(rates) < 2:
        return UNKNOWN
    best = highest(r for name, r in rates.items() if name != "tcp")
    slow = rates["tcp"]
    return Outcome(best[0] >= 3 * slow[0], (slow[1], best[1]))


def one_rail(ctx: Context) -> Outcome:
    """UCX is limited to one rail although several RDMA devices are there."""
    found = ctx.of("ucx.env", {"label": "^UCX_MAX_(?:RNDV|EAGER|RMA)_RAILS$|^UCX_MAX_RMA_LANES$"})
    if not found:
        return UNKNOWN
    single = tuple(e for e in found if str(e.value) == "1")
    listed = ("rdma.device", "rdma.port.state", "rdma.port.rate", "topo.gpu_nic")
    names = {e.subject.nic for name in listed for e in ctx.of(name)}
    names.discard(None)
    return Outcome(bool(single) and len(names) > 1, single or tuple(found))


_RATE_LINE = regex(r"\brate\W{1,3}\d|\b\d+X [SDQFEHNX]DR\b|active_speed|\bSpeed:", re.IGNORECASE)


def _measured(ctx: Context) -> list[tuple[float, Evidence]]:
    """Bandwidths that a benchmark of the network gave, in GB/s."""
    found = [(v, e) for name in _SPEEDS for v, e in ctx.numbers(name) if e.unit == "GB/s"]
    if ctx.of("rdma.mark.tool"):
        # a figure in Gb/s is kept in that unit
        for value, item in ctx.numbers("figure", {"label": "^(?:bandwidth|throughput)"}):
            if _RATE_LINE.search(item.quote or ""):
                continue  # what the port can do, not what was measured
            found += [(value / (8 if item.unit == "Gb/s" else 1), item)] if item.unit in ("GB/s", "Gb/s") else []
    return found


def perftest_at_rate(ctx: Context) -> Outcome:
    """A benchmark of the network reaches what the port's rate allows, and nothing beside it differs."""
    rates = [*ctx.numbers("rdma.port.rate"), *ctx.numbers("movement.named_rate")]
    if not rates and ctx.of("rdma.perftest.param", {"label": "^Link type$"}):
        rates = ctx.numbers("net.speed")  # RoCE: the interface's speed is the port's
    speeds = _measured(ctx)
    if not rates or not speeds:
        return UNKNOWN
    uneven = tuple(
        e
        for v, e in ctx.numbers("compare.ratio")
        if v > 1.3 and not re.match("message_size|block_size|batch|expected|measured_by", e.subject.label or "")
        and re.search(r"\|(?:bandwidth|latency|time|throughput|count)", e.subject.label or "")
    )  # fmt: skip
    uneven += tuple(e for name in ("movement.numa_split", "mpi.host_over_gpu") for v, e in ctx.numbers(name) if v > 1.2)
    uneven += tuple(e for v, e in ctx.numbers("mpi.osu.drop") if v > 1.3)
    rate, speed = highest(rates), highest(speeds)
    reached = speed[0] * 8 / rate[0]
    return Outcome(0.85 <= reached <= 1.03 and not uneven, (speed[1], rate[1], *uneven[:1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (
        listing_lacks_gdrcopy, tls_lacks_gdrcopy, gpu_latency_far, tcp_path_slow, one_rail, perftest_at_rate,
    )
}  # fmt: skip
