"""Named predicates on what the kernel's files say of RDMA: MTU, GIDs, device nodes, locked memory, GPU memory."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest

_TINY = 1 << 20  # bytes of locked memory with which not even one queue pair and its buffers can be made


def _active(ctx: Context) -> dict[tuple[str | None, str | None], Evidence]:
    """Ports that are up, by adapter and port."""
    ports = (e for e in ctx.of("rdma.port.state") if e.value == "ACTIVE")
    return {(e.subject.nic, e.subject.label): e for e in ports}


def rdma_mtu_differs(ctx: Context) -> Outcome:
    """RoCE ports of one machine sit on interfaces whose MTU differs by a factor of two or more."""
    found = ctx.numbers("rdma.netdev.mtu")
    if len(found) < 2:
        return UNKNOWN
    low, high = lowest(found), highest(found)
    return Outcome(high[0] >= 2 * low[0], (low[1], high[1]))


def _without_gid(ctx: Context) -> tuple[list[Evidence], int]:
    """Active RoCE ports without a GID of version 2 that can be routed, and how many active RoCE ports there are."""
    active = _active(ctx)
    layers = {(e.subject.nic, e.subject.label): e for e in ctx.of("rdma.port.layer") if e.value == "Ethernet"}
    gids: dict[tuple[str | None, str | None], list[Evidence]] = {}
    for item in ctx.of("rdma.gid"):
        at = (item.subject.label or "").partition(" index ")[0]
        gids.setdefault((item.subject.nic, at), []).append(item)
    ports = [key for key in layers if key in active]
    bare = []
    for key in ports:
        own = gids.get(key, [])
        if not any(_routable(str(e.value)) for e in own):
            bare += [layers[key], *own[:1]]
    return bare if gids else [], len(ports)


def _routable(gid: str) -> bool:
    version, _, rest = gid.partition(" ")
    return version == "v2" and not rest.startswith("fe80")


def roce_gid_missing(ctx: Context) -> Outcome:
    """No RoCE port that is up has an address that RoCE v2 could be routed by."""
    bare, ports = _without_gid(ctx)
    if not ports:
        return UNKNOWN
    return Outcome(len({e.subject.nic for e in bare}) == ports, tuple(bare[:4])) if bare else Outcome(False)


def roce_gid_missing_on_some(ctx: Context) -> Outcome:
    """Some RoCE ports that are up lack an address that the others have."""
    bare, ports = _without_gid(ctx)
    if ports < 2:
        return UNKNOWN
    return Outcome(0 < len({e.subject.nic for e in bare}) < ports, tuple(bare[:4]))


def verbs_without_nodes(ctx: Context) -> Outcome:
    """The kernel shows RDMA ports that are up, and no process here may open a verbs device."""
    nodes, active = ctx.of("rdma.device_nodes"), list(_active(ctx).values())
    if not nodes or not active:
        return UNKNOWN
    return Outcome(not any("uverbs" in str(e.value) for e in nodes), (nodes[0], *active[:2]))


def _memlock(ctx: Context) -> list[tuple[float, Evidence]]:
    out = []
    for item in ctx.of("host.limit.memlock"):
        number = re.search(r"\d+", str(item.value))
        # only the kernel's own table says bytes; `ulimit -l` speaks of KiB
        if number and "unlimited" not in str(item.value) and "Max locked memory" in (item.quote or ""):
            out.append((float(number.group()), item))
    return out


def memlock_too_small_for_rdma(ctx: Context) -> Outcome:
    """RDMA ports are up, and this process may lock next to nothing."""
    limits, active = _memlock(ctx), list(_active(ctx).values())
    if not limits or not active or any(e.value is True for e in ctx.of("host.cap.ipc_lock")):
        return UNKNOWN
    least = lowest(limits)
    return Outcome(least[0] <= _TINY, (least[1], active[0]))


def gpu_memory_out_of_reach(ctx: Context) -> Outcome:
    """GPUs and RDMA ports that are up, and neither a peer-memory module nor dma-buf between them."""
    said, active = ctx.of("rdma.gpudirect"), list(_active(ctx).values())
    if not said or not active or not ctx.of("topo.gpu_nic"):
        return UNKNOWN
    return Outcome(all(e.value == "none" for e in said), (said[0], active[0]))


def nics_far_from_gpus(ctx: Context) -> Outcome:
    """Every GPU reaches every adapter only through the other socket."""
    pairs = [e for e in ctx.of("topo.gpu_nic") if e.subject.gpu is not None and e.subject.nic]
    if not pairs or not _active(ctx):
        return UNKNOWN
    return Outcome(all(e.value == "SYS" for e in pairs), tuple(pairs[:3]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (
        rdma_mtu_differs,
        roce_gid_missing,
        roce_gid_missing_on_some,
        verbs_without_nodes,
        memlock_too_small_for_rdma,
        gpu_memory_out_of_reach,
        nics_far_from_gpus,
    )
}
