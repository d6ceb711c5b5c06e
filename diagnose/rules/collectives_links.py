"""Named predicates about links, topology and the network below the collectives."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import outcome
from .collectives_more import bridged, matrix
from .nccl_facts import NO_P2P_GPU, PCIE_GPU, SPEED, env, overrides, rdma_wanted, several_nodes, text_of

WITHOUT = (
    r"disable[d]?(?!\s*(?:=\s*0|is |was )?\s*(?:unset|removed|cleared|taken out|not set))(?:\s*=?\s*(?:1|true|on))?\b"
    r"|_DISABLE=1|\boff\b|without|w/o|\bno\b|=\s*(?:0|LOC)\b|shm|host|不用|关闭"
)


def no_nvlink_matrix(ctx: Context) -> Outcome:
    """The matrix names a path for every pair and none of them is NVLink."""
    links = ctx.of("topo.link") or ctx.of("nccl.topo.gpu_path")
    if not links or not ctx.asks(*SPEED):
        return UNKNOWN
    return Outcome(not any(text_of(e).startswith("NV") for e in links), tuple(links[:4]))


def something_measured(ctx: Context) -> Outcome:
    """Speed was measured at all; without that a topology is inventory."""
    names = ("compare.ratio", "compare.scaling", "nccl_tests.busbw", "p2p.bandwidth")
    return outcome([e for name in names for e in ctx.of(name)[:2]])


def no_nvlink_matrix_measured(ctx: Context) -> Outcome:
    """No pair has NVLink, and a measurement stands beside the matrix."""
    return _and_measured(ctx, no_nvlink_matrix(ctx))


def far_pair_measured(ctx: Context) -> Outcome:
    """The pairs are SYS, and a measurement stands beside the matrix."""
    return _and_measured(ctx, far_pair(ctx))


def _and_measured(ctx: Context, layout: Outcome) -> Outcome:
    measured = something_measured(ctx)
    return Outcome(True, (*layout.used, *measured.used[:2])) if layout.holds and measured.holds else UNKNOWN


def nvlink_uneven(ctx: Context) -> Outcome:
    """Some pairs have fewer NVLinks than others of the same machine, or none."""
    links = ctx.of("topo.link")
    counts = {int(m[1]) for e in links if (m := re.match(r"NV(\d+)$", text_of(e)))}
    plain = [e for e in links if not text_of(e).startswith("NV")]
    pairs = {pair for pair, e in matrix(ctx).items() if text_of(e).startswith("NV")}
    if bridged(pairs, {g for e in links for g in (e.subject.gpu, e.subject.peer) if g is not None}):
        return Outcome(False, tuple(links[:2]))
    if not counts or max(counts) < 4:  # bridges and cube meshes are uneven by design
        return UNKNOWN
    if len(counts) > 1 and max(counts) in (12, 18):
        low = [e for e in links if re.match(rf"NV(?!{max(counts)}$)", text_of(e))]
        return Outcome(True, tuple(low[:3]))
    if max(counts) in (12, 18) and plain and len({e.subject.gpu for e in links}) > 2:
        return Outcome(True, tuple(plain[:3]))
    return Outcome(False, tuple(links[:2]))


def far_pair(ctx: Context) -> Outcome:
    """The pairs that take part cross the sockets."""
    links = [e for e in ctx.of("topo.link") if text_of(e)]
    far = [e for e in links if text_of(e) == "SYS"]
    if not far or not ctx.asks(*SPEED):
        return UNKNOWN
    return Outcome(len(far) == len(links) or not any(text_of(e).startswith("NV") for e in links), tuple(far[:3]))


def nccl_path_crosses(ctx: Context) -> Outcome:
    """NCCL's own search crosses the sockets between GPUs and found no NVLink."""
    paths = ctx.of("nccl.topo.gpu_path")
    graphs = [e for e in ctx.of("nccl.graph.type") if text_of(e).startswith("SYS")]
    far = [e for e in paths if text_of(e) == "SYS"]
    if not (far or graphs) or any(text_of(e).startswith("NV") for e in paths):
        return UNKNOWN
    return Outcome(True, tuple([*graphs, *far][:3]))


def nic_far(ctx: Context) -> Outcome:
    """Every GPU's path to the network crosses the socket or the host bridge, or the NIC in use is not the near one."""
    paths = [e for e in ctx.of("topo.gpu_nic") if text_of(e)]
    if not paths or not ctx.asks(*SPEED, "ucx-slow-path"):
        return UNKNOWN
    near = [e for e in paths if text_of(e) in ("PIX", "PXB")]
    used = " ".join(text_of(e) for e in [*ctx.of("nccl.ib.devices"), *env(ctx, "NCCL_IB_HCA")])
    if used:
        mine = [e for e in paths if e.subject.nic and re.search(rf"\b{re.escape(e.subject.nic)}\b", used)]
        wanted = {int(g) for e in env(ctx, "CUDA_VISIBLE_DEVICES") for g in re.findall(r"\d+", text_of(e))}
        for gpu in sorted({e.subject.gpu for e in near if e.subject.gpu is not None}):
            taken = [e for e in mine if e.subject.gpu == gpu]
            if taken and (not wanted or gpu in wanted) and all(text_of(e) in ("SYS", "NODE") for e in taken):
                better = [e for e in near if e.subject.gpu == gpu]
                return Outcome(True, (*taken[:2], *better[:1], *env(ctx, "NCCL_IB_HCA")[:1]))
    nodes = several_nodes(ctx)
    if near or nodes is None:
        return UNKNOWN
    far = [e for e in paths if text_of(e) in ("SYS", "NODE")]
    return Outcome(len(far) == len(paths), tuple(far[:3]))


def retry_on_ethernet(ctx: Context) -> Outcome:
    """The peer does not answer, and the link layer is Ethernet."""
    retry = [*ctx.of("nccl.mark.ib_retry"), *ctx.of("nccl.mark.modify_qp")]
    layer = ctx.of("nccl.mark.ethernet_layer")
    return Outcome(True, (*retry[:2], *layer[:1])) if retry and layer else UNKNOWN


def retry_on_infiniband(ctx: Context) -> Outcome:
    """The peer does not answer, and nothing says that the link layer is Ethernet."""
    retry = ctx.of("nccl.mark.ib_retry")
    if not retry:
        return UNKNOWN
    return Outcome(not ctx.of("nccl.mark.ethernet_layer"), tuple(retry[:2]))


def gid_index_wrong(ctx: Context) -> Outcome:
    """A GID index is forced to 0 on RoCE, where entry 0 is link-local RoCE v1."""
    forced = [e for e in env(ctx, "NCCL_IB_GID_INDEX") if text_of(e) == "0"]
    trouble = [*ctx.of("nccl.mark.ib_retry"), *ctx.of("nccl.mark.modify_qp"), *ctx.of("nccl.mark.ethernet_layer")]
    return Outcome(True, (*forced[:1], *trouble[:2])) if forced and trouble else UNKNOWN


_LISTED = regex(r"(?:^|\s)([a-z]+)[\w.-]*(?:@\w+)?:\s+(?:<|flags=)")


def mtu_differs(ctx: Context) -> Outcome:
    """Different MTUs on interfaces that should agree: no loopback, no bridge, none down, no two kinds of one host."""
    seen: dict[float, Evidence] = {}
    for value, item in ctx.numbers("net.mark.mtu"):
        quote = item.quote or ""
        if 576 <= value <= 10_000 and not re.search(
            r"\blo\b|docker|br-|veth|virbr|max_mtu|maxmtu|minmtu|state DOWN", quote
        ):
            seen.setdefault(value, item)
    if len(seen) < 2:
        return UNKNOWN
    low, high = min(seen), max(seen)
    if high < 2 * low:  # 1450 beside 1500 is an overlay
        return UNKNOWN
    kinds = {hit[1] for v in (low, high) if (hit := _LISTED.search(seen[v].quote or "")) is not None}
    if len(kinds) == 2:  # an onboard port beside the adapter for data, Ethernet beside IPoIB
        return UNKNOWN
    return Outcome(True, (seen[low], seen[high]))


def path_mtu_fails(ctx: Context) -> Outcome:
    """Large packets do not pass."""
    return outcome(ctx.of("net.mark.too_long")[:2])


def tcp_blocked_host_up(ctx: Context) -> Outcome:
    """The host answers pings and a TCP port does not, or one port answers and another is silent.

    Where one port answers, a refusal at another only says that nobody listens there.
    """
    dead = [
        e
        for s in ("net.mark.no_route", "net.mark.timed_out", "net.mark.port_blocked", "net.mark.refused")
        for e in ctx.of(s)
    ]
    silent = [e for e in dead if e.signal != "net.mark.refused" and "refused" not in text_of(e)]
    for alive, failed in ((ctx.of("net.mark.ping_ok"), dead), (ctx.of("net.mark.port_open"), silent)):
        if alive and failed:
            return Outcome(True, (*failed[:2], *alive[:1]))
    return UNKNOWN


def congested(ctx: Context) -> Outcome:
    """Drops or retransmissions, and congestion notifications or pauses beside them."""
    drops, marks = ctx.of("net.mark.drops"), ctx.of("net.mark.cnp")
    return Outcome(True, (*drops[:3], *marks[:2])) if drops and marks else UNKNOWN


def gdr_not_used_though_near(ctx: Context) -> Outcome:
    """RDMA without GDRDMA although a NIC is next to a GPU."""
    plain = [e for e in ctx.of("nccl.transport") if re.match(r"NET/(?!Socket)", text_of(e)) and "GDR" not in text_of(e)]
    near = [e for e in ctx.of("topo.gpu_nic") if text_of(e) in ("PIX", "PXB")]
    return Outcome(True, (*plain[:2], *near[:2])) if plain and near else UNKNOWN


def rdma_without_gdr(ctx: Context) -> Outcome:
    """Some channel runs over RDMA, and none of them with GDRDMA."""
    rdma = [e for e in ctx.of("nccl.transport") if re.match(r"NET/(?!Socket)", text_of(e))]
    if not rdma:
        return UNKNOWN
    return Outcome(all("GDR" not in text_of(e) for e in rdma), tuple(rdma[:3]))


def gdr_is_slower(ctx: Context) -> Outcome:
    """The same work is slower with GPUDirect RDMA than without it."""
    return outcome(e for worse, e in direction(ctx, "gdr", WITHOUT) if not worse)


def p2p_is_slower(ctx: Context) -> Outcome:
    """The same work is slower with peer access than without it."""
    return outcome(e for worse, e in direction(ctx, "p2p", WITHOUT) if not worse)


def p2p_sample_broken(ctx: Context) -> Outcome:
    """The peer-to-peer sample: enabled latency in milliseconds, or enabled bandwidth below disabled."""
    late = [
        e for v, e in ctx.numbers("p2p.latency")
        if v > 500 and e.subject.gpu != e.subject.peer and "disabled" not in (e.subject.label or "")
    ]  # fmt: skip
    if late:
        return Outcome(True, tuple(late[:2]))
    plain: dict[tuple[int | None, int | None], tuple[float, Evidence]] = {}
    for v, e in ctx.numbers("p2p.bandwidth"):
        if "disabled" in (e.subject.label or "") and "bi" not in (e.subject.label or "").split("directional")[0]:
            plain[(e.subject.gpu, e.subject.peer)] = (v, e)
    for v, e in ctx.numbers("p2p.bandwidth"):
        pair = (e.subject.gpu, e.subject.peer)
        label = e.subject.label or ""
        if "disabled" in label or "enabled" not in label or pair[0] == pair[1] or pair not in plain:
            continue
        if v < 0.6 * plain[pair][0]:
            return Outcome(True, (e, plain[pair][1]))
    return UNKNOWN


def direction(ctx: Context, axis: str, without: str) -> list[tuple[bool, Evidence]]:
    """Comparisons on an axis as ``(is the setting without it the worse one?, evidence)``, where that can be told."""
    out = []
    for item in ctx.of("compare.ratio"):
        parts = (item.subject.label or "").split("|")
        if len(parts) < 4 or parts[0] != axis or not isinstance(item.value, (int, float)) or item.value < 1.15:
            continue
        worse, better = (bool(re.search(without, p, re.IGNORECASE)) for p in (parts[2], parts[3]))
        if worse != better:
            out.append((worse, item))
    return out


def one_hca_for_many(ctx: Context) -> Outcome:
    """One HCA is named for a node with four GPUs or more."""
    named = [e for e in env(ctx, "NCCL_IB_HCA") if re.fullmatch(r"=?[a-z]+\d*_\d+(?::\d)?", text_of(e))]
    many = [e for s in ("nccl.local_ranks", "gpu.count") for v, e in ctx.numbers(s) if v >= 4]
    for item in ctx.of("nccl.transport"):
        rank, peer = item.subject.rank, item.subject.peer
        if rank is not None and peer is not None and text_of(item).startswith("NET/") and abs(rank - peer) >= 4:
            many.append(item)
    return Outcome(True, (*named[:1], *many[:1])) if named and many else UNKNOWN


def verbs_hidden(ctx: Context) -> Outcome:
    """The verbs devices are missing where a container runs or RDMA was prepared; elsewhere that is inventory."""
    missing = [*ctx.of("nccl.mark.no_infiniband_dev"), *ctx.of("nccl.mark.ib_devices_empty"), *ctx.of("rdma.none")]
    if not missing or ctx.of("rdma.mark.no_userspace_driver"):  # the driver's library is missing, not the device
        return UNKNOWN
    inside = [*ctx.of("nccl.mark.container_command"), *ctx.of("nccl.mark.net_plugin_failed"), *rdma_wanted(ctx).used]
    said = re.search(r"container|docker|\bpods?\b|kube|image|podman|容器|镜像", ctx.symptom, re.IGNORECASE)
    return Outcome(True, (*missing[:2], *inside[:2])) if inside or said else UNKNOWN


def shm_though_near(ctx: Context) -> Outcome:
    """Shared memory between GPUs that share a switch or NVLink, and no variable asks for it."""
    shm = [e for e in ctx.of("nccl.transport") if text_of(e).startswith("SHM")]
    near = [e for e in [*ctx.of("topo.link"), *ctx.of("nccl.topo.gpu_path")] if re.match(r"PIX|PXB|NV", text_of(e))]
    told = [e for e in overrides(ctx) if "P2P" in (e.subject.label or "").upper()]
    return Outcome(True, (*shm[:2], *near[:2])) if shm and near and not told else UNKNOWN


def shm_between_gpus(ctx: Context) -> Outcome:
    """Shared memory is the transport between local GPUs."""
    return outcome([e for e in ctx.of("nccl.transport") if text_of(e).startswith("SHM")][:3])


def geforce_without_p2p(ctx: Context) -> Outcome:
    """GeForce cards without NVLink between them: the stock driver offers no PCIe peer access."""
    cards = [e for e in ctx.of("gpu.name") if NO_P2P_GPU.search(text_of(e))]
    links = ctx.of("topo.link")
    if not cards or not ctx.asks(*SPEED) or any(text_of(e).startswith("NV") for e in links):
        return UNKNOWN
    if any(text_of(e).startswith("P2P") for e in ctx.of("nccl.transport")) or not (
        links or ctx.of("nccl_tests.rank") or ctx.of("nccl.transport")
    ):
        return UNKNOWN
    return Outcome(True, (*cards[:2], *links[:2]))


def pcie_gpus_silent(ctx: Context) -> Outcome:
    """PCIe GPUs, the test's or NCCL's header, and not one result: the first peer transfer never ends."""
    cards = [e for e in ctx.of("gpu.name") if PCIE_GPU.search(text_of(e))]
    header = [*ctx.of("nccl_tests.rank"), *ctx.of("nccl.init.complete")]
    if not cards or not header or not ctx.asks("collective-hang"):
        return UNKNOWN
    if ctx.of("nccl_tests.busbw") or ctx.of("nccl.warn") or several_nodes(ctx) not in (None,):
        return Outcome(False, tuple(cards[:1]))
    return Outcome(True, (*cards[:2], *header[:2], *ctx.of("nccl.network")[:1]))


def peer_pairs_and_hang(ctx: Context) -> Outcome:
    """Peer access is claimed for some pairs and collectives hang or crawl."""
    can, cannot = ctx.of("nccl.mark.can_access_peer"), ctx.of("nccl.mark.cannot_access_peer")
    if not can or not ctx.asks("collective-hang"):
        return UNKNOWN
    return Outcome(True, (*can[:2], *cannot[:2]))


LINKS: tuple[Callable[[Context], Outcome], ...] = (
    no_nvlink_matrix,
    something_measured,
    no_nvlink_matrix_measured,
    far_pair_measured,
    nvlink_uneven,
    far_pair,
    nccl_path_crosses,
    nic_far,
    retry_on_ethernet,
    retry_on_infiniband,
    gid_index_wrong,
    mtu_differs,
    path_mtu_fails,
    tcp_blocked_host_up,
    congested,
    gdr_not_used_though_near,
    rdma_without_gdr,
    gdr_is_slower,
    p2p_is_slower,
    p2p_sample_broken,
    one_hca_for_many,
    verbs_hidden,
    shm_though_near,
    shm_between_gpus,
    geforce_without_p2p,
    pcie_gpus_silent,
    peer_pairs_and_hang,
)
