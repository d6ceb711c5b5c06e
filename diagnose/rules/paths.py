"""Named predicates about which path the bytes took: counters beside the log and the matrix of the links."""

from __future__ import annotations

from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest

SILENT = 2.0**26  # bytes: a sweep moves thousands of times as many
TWICE = (1.6, 2.6)  # LL sends a flag with every word of data, so the wire carries twice the bytes


def _carried(ctx: Context) -> tuple[list[str], list[Evidence]]:
    """Paths that counters show, and who says so; empty where several runs or none were counted."""
    said = ctx.of("path.carried")
    return (str(said[0].value).split(" + "), said) if len(said) == 1 else ([], said)


def _nvlink(ctx: Context) -> list[tuple[float, Evidence]]:
    return ctx.numbers("path.share", {"label": "^nvlink tx$"})


def _beside(ctx: Context) -> Outcome:
    """Every pair has NVLink, its counters can be read, and the bytes went through the slots or the loopback."""
    paths, said = _carried(ctx)
    links, counted = ctx.of("topo.link"), _nvlink(ctx)
    if not paths or not links or not counted or not all(str(e.value).startswith("NV") for e in links):
        return UNKNOWN
    return Outcome(set(paths) <= {"pcie", "nic lo"}, (said[0], highest(counted)[1], links[0]))


def bytes_beside_nvlink(ctx: Context) -> Outcome:
    """All pairs have NVLink, the bytes went another way, and no log claims peer access."""
    got = _beside(ctx)
    return got if got.holds and not _peers(ctx) else Outcome(None if got.holds else got.holds, got.used)


def peer_bytes_beside_nvlink(ctx: Context) -> Outcome:
    """The log claims peer access and the matrix NVLink, and the bytes went over PCIe: the links carry nothing."""
    got = _beside(ctx)
    peers = _peers(ctx)
    return Outcome(True, (*got.used, *peers[:1])) if got.holds and peers else UNKNOWN


def _peers(ctx: Context) -> list[Evidence]:
    return [e for e in ctx.of("nccl.transport") if str(e.value).startswith("P2P")]


def bytes_over_tcp_not_rdma(ctx: Context) -> Outcome:
    """An RDMA port is up, or the log names one, and the bytes went over a network interface."""
    paths, said = _carried(ctx)
    ports = [e for e in ctx.of("rdma.port.state") if e.value == "ACTIVE"]
    named = [e for e in ctx.of("nccl.transport") if str(e.value).startswith("NET/IB")]
    if not paths or not (ports or named):
        return UNKNOWN
    over = any(p.startswith("nic") for p in paths) and not any(p.startswith("ib") for p in paths)
    return Outcome(over, (said[0], *named[:1], *ports[:1]))


def bytes_sent_twice(ctx: Context) -> Outcome:
    """NVLink carried about twice what the algorithm needs: the protocol sends a flag with each word."""
    counted = _nvlink(ctx)
    if not counted:
        return UNKNOWN
    share, item = highest(counted)
    return Outcome(TWICE[0] <= share <= TWICE[1], (item,))


def nvlink_silent(ctx: Context) -> Outcome:
    """All pairs have NVLink, a collective ran between two readings of the counters, and they hardly moved."""
    links, said = ctx.of("topo.link"), ctx.numbers("nvlink.moved", {"label": "^(tx|rx)$"})
    ran = [e for v, e in ctx.numbers("nccl_tests.busbw") if v > 0]
    if not said or not links or not ran or not all(str(e.value).startswith("NV") for e in links):
        return UNKNOWN
    most = highest(said)
    return Outcome(most[0] < SILENT, (most[1], links[0], ran[0]))


PATHS: tuple[Callable[[Context], Outcome], ...] = (
    bytes_beside_nvlink, peer_bytes_beside_nvlink, bytes_over_tcp_not_rdma, bytes_sent_twice, nvlink_silent,
)  # fmt: skip
RULES = {rule.__name__: rule for rule in PATHS}
