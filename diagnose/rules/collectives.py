"""Named predicates of the collectives family: what NCCL was told, what it then did, and how fast that is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome

COLLECTIVE_QUESTIONS = (
    "slow-allreduce", "collective-hang", "training-slow", "gpu-idle-network-busy", "bad-tpot", "low-throughput",
    "gpu-underutilized", "high-ttft", "environment", "kv-transfer-slow", "copy-slow", "high-p99", "",
)  # fmt: skip
_SPEED = ("slow-allreduce", "training-slow", "gpu-idle-network-busy", "bad-tpot", "low-throughput", "copy-slow",
          "gpu-underutilized", "kv-transfer-slow", "high-ttft", "high-p99")  # fmt: skip
_PCIE_GPU = re.compile(
    r"GeForce|\bRTX\b|\bA(?:10|16|2|30|40)\b|\bA4000|\bA[456]000|\bL4\b|\bL40S?\b|PCIe|\bT4\b|TITAN|Quadro|\bP4\b|\bP40\b|\bM40\b"
    r"|\bGTX\b|\bT1000",
    re.IGNORECASE,
)
_NO_P2P_GPU = re.compile(r"GeForce (?:RTX )?(?:[345]0[6-9]0|GTX|RTX [345]0[6-9]0)|RTX (?:40|50)[6-9]0", re.IGNORECASE)
_NEAR = re.compile(r"^(?:PIX|PXB|PHB|NODE|NV\d+|NVL|NVB)$")
_MANY_NODES = re.compile(
    r"multi-?node|inter-?node|cross-?node|two .{0,20}(?:nodes|machines|hosts|servers)"
    r"|(?:two|2|three|3|four|4|eight|8|16|32|\d+) (?:nodes|machines|servers|hosts)"
    r"|across (?:nodes|machines)|between (?:nodes|machines)|cluster|跨机|跨节点|多机|双机|两台|多节点",
    re.IGNORECASE,
)
_SWITCHES = ("NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_P2P_DIRECT_DISABLE")
_CHANNEL_CAPS = ("NCCL_MAX_NCHANNELS", "NCCL_MAX_NRINGS", "NCCL_MAX_CTAS")
_PREPARED = re.compile(r"NCCL_IB_(?:HCA|GID_INDEX|TC|SL|QPS|TIMEOUT)|FI_(?:PROVIDER|EFA)|NCCL_NET_GDR")
_OFF = {"0", "false", "off", "no", "disable", "disabled", ""}


def _value(item: Evidence) -> str:
    return str(item.value or "").strip().strip("'\"").rstrip(".")


def _env(ctx: Context, name: str) -> list[Evidence]:
    return [e for e in ctx.of("env.var") if (e.subject.label or "").upper() == name]


def _found(items: Iterable[Evidence]) -> Outcome:
    used = tuple(items)
    return Outcome(True, used[:6]) if used else UNKNOWN


def _on(item: Evidence) -> bool:
    return _value(item).lower() not in _OFF


def overrides(ctx: Context) -> list[Evidence]:
    """Variables that forbid or force what NCCL would have chosen itself."""
    out: list[Evidence] = []
    for item in ctx.of("env.var"):
        name, value = (item.subject.label or "").upper(), _value(item)
        low = value.lower()
        number = int(low) if low.lstrip("-").isdigit() else None
        if (
            (name in _SWITCHES and _on(item))
            or (name in ("NCCL_P2P_LEVEL", "NCCL_NET_GDR_LEVEL") and (low == "loc" or number == 0))
            or (name == "NCCL_NET" and low == "socket")
            or (name == "NCCL_NET_PLUGIN" and low in ("none", "socket"))
            or (name == "NCCL_SOCKET_IFNAME" and re.match(r"=?(?:lo|docker|virbr|br-|wl|tailscale)", low))
            or (name in ("NCCL_ALGO", "NCCL_PROTO") and low not in ("", "^ll128"))
            or (name in _CHANNEL_CAPS and number is not None and number <= 4)
            or (name == "NCCL_NTHREADS" and number is not None and number < 256)
            or (name == "NCCL_BUFFSIZE" and number is not None and number < 1 << 20)
            or (name in ("NCCL_TOPO_FILE", "NCCL_GRAPH_FILE", "NCCL_RINGS") and low not in ("", "/dev/null"))
            or (name == "NCCL_IB_PCI_RELAXED_ORDERING" and number == 0)
            or (name == "NCCL_NET_GDR_READ" and number == 0)
        ):  # fmt: skip
            out.append(item)
    return out


def _not_tried_out(ctx: Context, items: list[Evidence]) -> list[Evidence]:
    """Without variables that the text itself varies or offers as the cure: they are somebody's experiment."""
    values: dict[str, set[str]] = {}
    for item in ctx.of("env.var"):
        values.setdefault((item.subject.label or "").upper(), set()).add(_value(item))
    cured = bool(ctx.of("nccl.mark.p2p_off_cures"))
    axes = {(e.subject.label or "").split("|")[0] for e in ctx.of("compare.ratio")}
    kept = []
    for item in items:
        name = (item.subject.label or "").upper()
        trial = len(values[name]) > 1 or (cured and name == "NCCL_P2P_DISABLE")
        trial |= "algorithm" in axes and name in ("NCCL_ALGO", "NCCL_PROTO")
        if not trial:
            kept.append(item)
    return kept


def env_forbids(ctx: Context) -> Outcome:
    """A variable switches a fast path off or forces a slow one, and a collective is being asked about."""
    got = _not_tried_out(ctx, overrides(ctx))
    if not got or ctx.playbook not in COLLECTIVE_QUESTIONS:
        return UNKNOWN
    names = {(e.subject.label or "").upper() for e in got}
    # P2P off beside a comparison of runs with and without NVLink is the experiment's own switch.
    switched = any((e.subject.label or "").split("|")[0] in ("nvlink", "p2p") for e in ctx.of("compare.ratio"))
    if switched and names <= {"NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL"}:
        return UNKNOWN
    return Outcome(True, tuple(got[:6]))


def env_effect_seen(ctx: Context) -> Outcome:
    """The same log shows what the variable does: shared memory or sockets where P2P, RDMA or GDR would be."""
    names = {(e.subject.label or "").upper(): e for e in overrides(ctx)}
    slow = [e for e in ctx.of("nccl.transport") if re.match(r"SHM|NET/Socket", _value(e))]
    used: list[Evidence] = []
    if names.keys() & {"NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE"} and slow:
        used = [*names.values(), *slow[:2]]
    sockets = [e for e in ctx.of("nccl.network") if _value(e) == "Socket"]
    if names.keys() & {"NCCL_IB_DISABLE", "NCCL_NET", "NCCL_NET_PLUGIN"} and sockets:
        used = [*names.values(), *sockets[:1]]
    plain = [e for e in ctx.of("nccl.transport") if _value(e).startswith("NET/") and "GDRDMA" not in _value(e)]
    if "NCCL_NET_GDR_LEVEL" in names and plain:
        used = [*names.values(), *plain[:2]]
    forced = [e for e in ctx.of("nccl.algo") if re.search(r"/LL$|^TREE", _value(e))]
    if names.keys() & {"NCCL_ALGO", "NCCL_PROTO"} and forced:
        used = [*names.values(), *forced[:2]]
    return _found(used)


def interface_named_and_missing(ctx: Context) -> Outcome:
    """NCCL_SOCKET_IFNAME (or its relatives) is set and nothing matches it."""
    named = [
        e
        for n in ("NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "TP_SOCKET_IFNAME")
        for e in _env(ctx, n)
    ]
    missing = [*ctx.of("nccl.mark.no_interface"), *ctx.of("nccl.mark.bad_family"), *ctx.of("nccl.mark.gloo_address")]
    return Outcome(True, (*missing[:2], *named[:2])) if named and missing else UNKNOWN


def ib_hca_named_and_missing(ctx: Context) -> Outcome:
    """NCCL_IB_HCA names devices and NCCL finds none, while verbs devices are listed elsewhere."""
    named, none = _env(ctx, "NCCL_IB_HCA"), ctx.of("nccl.mark.ib_no_device")
    listed = [*ctx.of("rdma.device"), *ctx.of("rdma.port"), *ctx.of("rdma.state")]
    return Outcome(True, (*none[:1], *named[:1], *listed[:1])) if named and none and listed else UNKNOWN


def several_nodes(ctx: Context) -> Evidence | bool | None:
    """Evidence that more than one node takes part; True where only the question says so; None if not."""
    for signal in ("nccl.nnodes", "nccl_tests.hosts"):
        for value, item in ctx.numbers(signal):
            if value > 1:
                return item
    for item in ctx.of("nccl.transport"):
        if _value(item).startswith("NET/"):
            return item
    return True if _MANY_NODES.search(ctx.symptom) else None


def one_node(ctx: Context) -> Outcome:
    """The log itself says that there is one node, so the network does not matter."""
    nodes = ctx.numbers("nccl.nnodes")
    if not nodes or any(e for e in ctx.of("nccl.transport") if _value(e).startswith("NET/")):
        return UNKNOWN
    return Outcome(all(v == 1 for v, _ in nodes), tuple(e for _, e in nodes[:1]))


def perhaps_many_nodes(ctx: Context) -> Outcome:
    """Nothing says that only one node takes part."""
    return Outcome(not one_node(ctx).holds)


def sockets_between_nodes(ctx: Context) -> Outcome:
    """NCCL uses its socket transport and several nodes take part."""
    plain = [e for e in ctx.of("nccl.transport") if _value(e).startswith("NET/Socket")]
    sockets = [e for e in ctx.of("nccl.network") if _value(e) == "Socket"]
    if not plain and not sockets:
        return UNKNOWN
    nodes = several_nodes(ctx)
    if one_node(ctx).holds or nodes is None:
        return Outcome(False, tuple(sockets[:1]))
    extra = (nodes,) if isinstance(nodes, Evidence) else ()
    return Outcome(True, (*plain[:2], *sockets[:1], *extra))


def rdma_wanted(ctx: Context) -> Outcome:
    """Somebody prepared RDMA: HCAs named, RDMA variables set, verbs devices or EFA listed."""
    named = [
        e for e in ctx.of("env.var")
        if _PREPARED.match((e.subject.label or "").upper())
        or ((e.subject.label or "").upper() == "NCCL_IB_DISABLE" and not _on(e))
    ]  # fmt: skip
    listed = [*ctx.of("rdma.device"), *ctx.of("rdma.port"), *ctx.of("topo.gpu_nic")]
    return _found([*named[:3], *listed[:2]])


def sockets_though_rdma_wanted(ctx: Context) -> Outcome:
    """Sockets are used although RDMA was prepared, on several nodes or with the NICs named."""
    sockets = [e for e in [*ctx.of("nccl.network"), *ctx.of("nccl.transport")] if "Socket" in _value(e)]
    wanted = rdma_wanted(ctx)
    if not sockets or not wanted.holds or one_node(ctx).holds:
        return UNKNOWN
    return Outcome(True, (*sockets[:2], *wanted.used[:2]))


def verbs_hidden(ctx: Context) -> Outcome:
    """The verbs device files are missing where a container runs or RDMA was prepared; on any other machine that is inventory."""
    missing = [*ctx.of("nccl.mark.no_infiniband_dev"), *ctx.of("nccl.mark.ib_devices_empty"), *ctx.of("rdma.none")]
    if not missing:
        return UNKNOWN
    inside = [*ctx.of("nccl.mark.container_command"), *ctx.of("nccl.mark.net_plugin_failed"), *rdma_wanted(ctx).used]
    said = re.search(r"container|docker|\bpods?\b|kube|image|podman|容器|镜像", ctx.symptom, re.IGNORECASE)
    return Outcome(True, (*missing[:2], *inside[:2])) if inside or said else UNKNOWN


def _direction(ctx: Context, axis: str, without: str) -> list[tuple[bool, Evidence]]:
    """Comparisons on an axis as ``(is the setting without it the worse one?, evidence)``; undecidable ones are left out."""
    out = []
    for item in ctx.of("compare.ratio"):
        parts = (item.subject.label or "").split("|")
        if len(parts) < 4 or parts[0] != axis or not isinstance(item.value, (int, float)) or item.value < 1.15:
            continue
        worse, better = (bool(re.search(without, p, re.IGNORECASE)) for p in (parts[2], parts[3]))
        if worse != better:
            out.append((worse, item))
    return out


_WITHOUT = (
    r"disable[d]?(?:\s*=?\s*(?:1|true|on))?\b|_DISABLE=1|\boff\b|without|w/o|\bno\b|=\s*(?:0|LOC)\b|shm|host|不用|关闭"
)


def p2p_is_slower(ctx: Context) -> Outcome:
    """The same work is slower with peer access than without it."""
    return _found(e for worse, e in _direction(ctx, "p2p", _WITHOUT) if not worse)


def gdr_is_slower(ctx: Context) -> Outcome:
    """The same work is slower with GPUDirect RDMA than without it."""
    return _found(e for worse, e in _direction(ctx, "gdr", _WITHOUT) if not worse)


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


def code_diverges(ctx: Context) -> Outcome:
    """Code that branches on the rank and calls collectives."""
    branch, call = ctx.of("nccl.mark.rank_branch"), ctx.of("nccl.mark.code_collective")
    return Outcome(True, (*branch[:1], *call[:1])) if branch and call else UNKNOWN


def gdr_not_used_though_near(ctx: Context) -> Outcome:
    """RDMA without GDRDMA although a NIC is next to a GPU."""
    plain = [e for e in ctx.of("nccl.transport") if re.match(r"NET/(?!Socket)", _value(e)) and "GDR" not in _value(e)]
    near = [e for e in ctx.of("topo.gpu_nic") if _value(e) in ("PIX", "PXB")]
    return Outcome(True, (*plain[:2], *near[:2])) if plain and near else UNKNOWN


def rdma_without_gdr(ctx: Context) -> Outcome:
    """Some channel runs over RDMA, and none of them with GDRDMA."""
    rdma = [e for e in ctx.of("nccl.transport") if re.match(r"NET/(?!Socket)", _value(e))]
    if not rdma:
        return UNKNOWN
    return Outcome(all("GDR" not in _value(e) for e in rdma), tuple(rdma[:3]))


def shm_though_near(ctx: Context) -> Outcome:
    """Shared memory between GPUs that share a switch or NVLink, and no variable asks for it."""
    shm = [e for e in ctx.of("nccl.transport") if _value(e).startswith("SHM")]
    near = [e for e in [*ctx.of("topo.link"), *ctx.of("nccl.topo.gpu_path")] if re.match(r"PIX|PXB|NV", _value(e))]
    told = [e for e in overrides(ctx) if "P2P" in (e.subject.label or "").upper()]
    return Outcome(True, (*shm[:2], *near[:2])) if shm and near and not told else UNKNOWN


def shm_between_gpus(ctx: Context) -> Outcome:
    """Shared memory is the transport between local GPUs."""
    return _found([e for e in ctx.of("nccl.transport") if _value(e).startswith("SHM")][:3])


def geforce_without_p2p(ctx: Context) -> Outcome:
    """GeForce cards without NVLink between them: the stock driver offers no PCIe peer access."""
    cards = [e for e in ctx.of("gpu.name") if _NO_P2P_GPU.search(_value(e))]
    links = ctx.of("topo.link")
    if not cards or ctx.playbook not in _SPEED or any(_value(e).startswith("NV") for e in links):
        return UNKNOWN
    if any(_value(e).startswith("P2P") for e in ctx.of("nccl.transport")) or not (
        links or ctx.of("nccl_tests.rank") or ctx.of("nccl.transport")
    ):
        return UNKNOWN
    return Outcome(True, (*cards[:2], *links[:2]))


def pcie_gpus_silent(ctx: Context) -> Outcome:
    """PCIe GPUs, the test's or NCCL's header, and not one result: the first peer transfer never ends."""
    cards = [e for e in ctx.of("gpu.name") if _PCIE_GPU.search(_value(e))]
    header = [*ctx.of("nccl_tests.rank"), *ctx.of("nccl.init.complete")]
    if not cards or not header or ctx.playbook != "collective-hang":
        return UNKNOWN
    if ctx.of("nccl_tests.busbw") or ctx.of("nccl.warn") or several_nodes(ctx) not in (None,):
        return Outcome(False, tuple(cards[:1]))
    return Outcome(True, (*cards[:2], *header[:2], *ctx.of("nccl.network")[:1]))


def stuck_after_init(ctx: Context) -> Outcome:
    """Every rank finished its initialisation and nothing followed."""
    done = ctx.of("nccl.init.complete")
    if not done or ctx.playbook != "collective-hang" or ctx.of("nccl_tests.busbw") or ctx.of("nccl.warn"):
        return UNKNOWN
    return Outcome(True, tuple(done[:3]))


def peer_pairs_and_hang(ctx: Context) -> Outcome:
    """Peer access is claimed for some pairs and collectives hang or crawl."""
    can, cannot = ctx.of("nccl.mark.can_access_peer"), ctx.of("nccl.mark.cannot_access_peer")
    if not can or ctx.playbook != "collective-hang":
        return UNKNOWN
    return Outcome(True, (*can[:2], *cannot[:2]))


def no_nvlink_matrix(ctx: Context) -> Outcome:
    """The matrix names a path for every pair and none of them is NVLink."""
    links = ctx.of("topo.link") or ctx.of("nccl.topo.gpu_path")
    if not links or ctx.playbook not in _SPEED:
        return UNKNOWN
    return Outcome(not any(_value(e).startswith("NV") for e in links), tuple(links[:4]))


def nvlink_uneven(ctx: Context) -> Outcome:
    """Some pairs have fewer NVLinks than others of the same machine, or none."""
    links = ctx.of("topo.link")
    counts = {int(m[1]) for e in links if (m := re.match(r"NV(\d+)$", _value(e)))}
    plain = [e for e in links if not _value(e).startswith("NV")]
    if not counts or max(counts) < 4:  # bridges and cube meshes are uneven by design
        return UNKNOWN
    if len(counts) > 1 and max(counts) in (12, 18):
        low = [e for e in links if re.match(rf"NV(?!{max(counts)}$)", _value(e))]
        return Outcome(True, tuple(low[:3]))
    if max(counts) in (12, 18) and plain and len({e.subject.gpu for e in links}) > 2:
        return Outcome(True, tuple(plain[:3]))
    return Outcome(False, tuple(links[:2]))


def far_pair(ctx: Context) -> Outcome:
    """The pairs that take part cross the sockets."""
    links = [e for e in ctx.of("topo.link") if _value(e)]
    far = [e for e in links if _value(e) == "SYS"]
    if not far or ctx.playbook not in _SPEED:
        return UNKNOWN
    return Outcome(len(far) == len(links) or not any(_value(e).startswith("NV") for e in links), tuple(far[:3]))


def nccl_path_crosses(ctx: Context) -> Outcome:
    """NCCL's own search crosses the sockets between GPUs and found no NVLink."""
    paths = ctx.of("nccl.topo.gpu_path")
    graphs = [e for e in ctx.of("nccl.graph.type") if _value(e).startswith("SYS")]
    far = [e for e in paths if _value(e) == "SYS"]
    if not (far or graphs) or any(_value(e).startswith("NV") for e in paths):
        return UNKNOWN
    return Outcome(True, tuple([*graphs, *far][:3]))


def nic_far(ctx: Context) -> Outcome:
    """Every GPU's path to the network crosses the socket or the host bridge, or the NIC in use is not the near one."""
    paths = [e for e in ctx.of("topo.gpu_nic") if _value(e)]
    if not paths or ctx.playbook not in (*_SPEED, "ucx-slow-path"):
        return UNKNOWN
    near = [e for e in paths if _value(e) in ("PIX", "PXB")]
    used = " ".join(_value(e) for e in [*ctx.of("nccl.ib.devices"), *_env(ctx, "NCCL_IB_HCA")])
    if used:
        mine = [e for e in paths if e.subject.nic and re.search(rf"\b{re.escape(e.subject.nic)}\b", used)]
        wanted = {int(g) for e in _env(ctx, "CUDA_VISIBLE_DEVICES") for g in re.findall(r"\d+", _value(e))}
        for gpu in sorted({e.subject.gpu for e in near if e.subject.gpu is not None}):
            taken = [e for e in mine if e.subject.gpu == gpu]
            if taken and (not wanted or gpu in wanted) and all(_value(e) in ("SYS", "NODE") for e in taken):
                better = [e for e in near if e.subject.gpu == gpu]
                return Outcome(True, (*taken[:2], *better[:1], *_env(ctx, "NCCL_IB_HCA")[:1]))
    nodes = several_nodes(ctx)
    if near or nodes is None:
        return UNKNOWN
    far = [e for e in paths if _value(e) in ("SYS", "NODE")]
    return Outcome(len(far) == len(paths), tuple(far[:3]))


def versions_differ(ctx: Context) -> Outcome:
    """Two NCCL versions appear in what was given, as in a log of several hosts."""
    seen: dict[str, Evidence] = {}
    for item in ctx.of("version"):
        if (item.subject.label or "").lower() == "nccl":
            short = ".".join(re.findall(r"\d+", _value(item))[:3])
            seen.setdefault(short, item)
    if any((e.subject.label or "").split("|")[0] == "version" for e in ctx.of("compare.ratio")):
        return UNKNOWN
    return Outcome(True, tuple(seen.values())[:3]) if len(seen) > 1 else UNKNOWN


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
    forced = [e for e in _env(ctx, "NCCL_IB_GID_INDEX") if _value(e) == "0"]
    trouble = [*ctx.of("nccl.mark.ib_retry"), *ctx.of("nccl.mark.modify_qp"), *ctx.of("nccl.mark.ethernet_layer")]
    return Outcome(True, (*forced[:1], *trouble[:2])) if forced and trouble else UNKNOWN


def mtu_differs(ctx: Context) -> Outcome:
    """Different MTUs on interfaces that should agree; loopback and bridges are left out."""
    seen: dict[float, Evidence] = {}
    for value, item in ctx.numbers("net.mark.mtu"):
        quote = item.quote or ""
        if 576 <= value <= 10_000 and not re.search(r"\blo\b|docker|br-|veth|virbr|max_mtu|maxmtu|minmtu", quote):
            seen.setdefault(value, item)
    if len(seen) < 2:
        return UNKNOWN
    low, high = min(seen), max(seen)
    if high < 2 * low:  # 1450 beside 1500 is an overlay
        return UNKNOWN
    return Outcome(True, (seen[low], seen[high]))


def path_mtu_fails(ctx: Context) -> Outcome:
    """Large packets do not pass."""
    return _found(ctx.of("net.mark.too_long")[:2])


def tcp_blocked_host_up(ctx: Context) -> Outcome:
    """The host answers pings, a TCP port does not."""
    alive = ctx.of("net.mark.ping_ok")
    dead = [
        e
        for s in ("net.mark.no_route", "net.mark.refused", "net.mark.timed_out", "net.mark.port_blocked")
        for e in ctx.of(s)
    ]
    return Outcome(True, (*dead[:2], *alive[:1])) if alive and dead else UNKNOWN


def congested(ctx: Context) -> Outcome:
    """Drops or retransmissions, and congestion notifications or pauses beside them."""
    drops, marks = ctx.of("net.mark.drops"), ctx.of("net.mark.cnp")
    return Outcome(True, (*drops[:3], *marks[:2])) if drops and marks else UNKNOWN


def separate_runs(ctx: Context) -> Outcome:
    """Rank 0 exists more than once, or a summary was printed once per host: each machine tested itself."""
    copies = [e for v, e in ctx.numbers("nccl_tests.rank0_copies") if v > 1]
    summaries = [e for v, e in ctx.numbers("nccl_tests.summaries") if v > 1]
    nodes = several_nodes(ctx)
    if summaries and not copies and nodes is None and not _hosts_in_lines(ctx):
        return UNKNOWN  # the same machine tested twice
    if any(v > 1 for v, _ in ctx.numbers("nccl.nnodes")):
        return UNKNOWN
    if not copies and not summaries:
        return UNKNOWN
    return _found([*copies, *ctx.of("nccl_tests.avg_busbw")[:2], *summaries])


def _hosts_in_lines(ctx: Context) -> bool:
    return len({e.subject.host for e in ctx.of("nccl.init.*") + ctx.of("nccl_tests.rank") if e.subject.host}) > 1


def only_small_sizes(ctx: Context) -> Outcome:
    """A table that stops at sizes where latency, not bandwidth, is measured."""
    sizes = []
    for value, item in ctx.numbers("nccl_tests.busbw"):
        if hit := re.search(r" (\d+) B ", item.subject.label or ""):
            sizes.append((int(hit[1]), value, item))
    if len({s for s, _, _ in sizes}) < 2 or max(s for s, _, _ in sizes) > 1 << 20:
        return UNKNOWN
    top = max(sizes, key=lambda s: s[0])
    return Outcome(True, (top[2], *(s[2] for s in sizes[:2])))


def average_quoted(ctx: Context) -> Outcome:
    """The average over all sizes is far below what the same table reaches."""
    average, peak = ctx.numbers("nccl_tests.avg_busbw"), ctx.numbers("nccl_tests.peak_busbw")
    if not average or not peak:
        return UNKNOWN
    asked = re.search(r"\baverage|\bavg|平均", ctx.symptom, re.IGNORECASE)
    return Outcome(bool(asked) and peak[0][0] > 2 * average[0][0], (average[0][1], peak[0][1]))


def low_latency_protocol_at_large_sizes(ctx: Context) -> Outcome:
    """LL carries large messages, which costs half the bandwidth."""
    bad = []
    for item in ctx.of("nccl.algo"):
        hit = re.search(r" (\d+) B$", item.subject.label or "")
        if hit and int(hit[1]) >= 32 << 20 and _value(item).endswith("/LL"):
            bad.append(item)
    return _found(bad[:2])


def one_channel(ctx: Context) -> Outcome:
    """Large messages use one or two channels."""
    few = [e for v, e in ctx.numbers("nccl.channels", {"label": "coll"}) if v <= 2]
    return _found(few[:2])


def ranks_uneven(ctx: Context) -> Outcome:
    """The same operation takes one rank much longer than another."""
    by_size: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("nccl_tests.rank_time"):
        by_size.setdefault(item.subject.label or "", []).append((value, item))
    for group in by_size.values():
        low, high = min(group, key=lambda g: g[0]), max(group, key=lambda g: g[0])
        if len(group) > 1 and low[0] > 0 and high[0] > 1.5 * low[0]:
            return Outcome(True, (high[1], low[1]))
    return UNKNOWN


def ranks_very_uneven(ctx: Context) -> Outcome:
    """One rank takes more than twice as long as another for the same operation."""
    got = ranks_uneven(ctx)
    if not got.holds:
        return UNKNOWN
    high, low = (float(e.value or 0) for e in got.used)
    return Outcome(high > 2 * low, got.used)


def ranks_in_different_collectives(ctx: Context) -> Outcome:
    """At the same sequence number ranks wait in different operations or with different sizes."""
    by_number: dict[str, dict[str, Evidence]] = {}
    for item in ctx.of("torch.watchdog"):
        number = re.search(r"SeqNum=(\d+)", item.subject.label or "")
        if number:
            by_number.setdefault(number[1], {}).setdefault(_value(item), item)
    for group in by_number.values():
        if len(group) > 1:
            return Outcome(True, tuple(group.values())[:4])
    return UNKNOWN


def ranks_at_different_numbers(ctx: Context) -> Outcome:
    """Ranks have enqueued or are stuck at different sequence numbers."""
    stuck: dict[str, Evidence] = {}
    for item in ctx.of("torch.watchdog"):
        if number := re.search(r"SeqNum=(\d+)", item.subject.label or ""):
            stuck.setdefault(number[1], item)
    if len(stuck) > 1:
        return Outcome(True, tuple(stuck.values())[:4])
    queued = ctx.numbers("torch.enqueued")
    by_rank = {e.subject.rank: (v, e) for v, e in queued}
    values = {v for v, _ in by_rank.values()}
    if len(by_rank) > 1 and len(values) > 1:
        low, high = min(by_rank.values(), key=lambda p: p[0]), max(by_rank.values(), key=lambda p: p[0])
        return Outcome(True, (low[1], high[1]))
    return UNKNOWN


def init_is_slow(ctx: Context) -> Outcome:
    """Setting up the communicator takes long."""
    slow = [e for s in ("nccl.init.time", "nccl.mark.init_time") for v, e in ctx.numbers(s) if v >= 20]
    return _found(slow[:2])


def init_slow_and_many_ranks(ctx: Context) -> Outcome:
    """Setting up takes long, and hundreds of ranks take part or the bootstrap is most of it."""
    slow = init_is_slow(ctx)
    many = [e for v, e in ctx.numbers("nccl.nranks") if v >= 256]
    boot = [e for v, e in ctx.numbers("nccl.init.bootstrap") if v >= 10]
    if not slow.holds or not (many or boot):
        return UNKNOWN
    return Outcome(True, (*slow.used, *many[:1], *boot[:1]))


# Bus bandwidth at large sizes that a healthy machine reaches inside one node, GB/s, by GPU: the lower of the published
# floors (docs/limits.md) and ring rates, so that a machine above it needs no explanation.
_HEALTHY = (
    (re.compile(r"GB[23]00|\bB[23]00\b"), 550.0), (re.compile(r"H100 80GB HBM3|H100 SXM|\bH200\b|\bGH200"), 290.0),
    (re.compile(r"H800"), 120.0), (re.compile(r"A100-SXM|A100 SXM"), 185.0), (re.compile(r"A800-SXM"), 120.0),
    (re.compile(r"V100-SXM"), 105.0),
)  # fmt: skip


def healthy_collective(ctx: Context) -> Outcome:
    """The table reaches what this GPU's links allow, and no element is wrong."""
    peaks = ctx.numbers("nccl_tests.largest_busbw") or ctx.numbers("nccl_tests.peak_busbw")
    if not peaks or any(v for v, _ in ctx.numbers("nccl_tests.wrong")):
        return UNKNOWN
    value, item = max(peaks, key=lambda p: p[0])
    cards = ctx.of("gpu.name")
    for card in cards:
        for pattern, floor in _HEALTHY:
            if pattern.search(_value(card)):
                nodes = [v for s in ("nccl.nnodes", "nccl_tests.hosts") for v, _ in ctx.numbers(s)]
                if nodes and max(nodes) > 1 and value < floor:
                    return UNKNOWN  # between nodes the NIC decides
                return Outcome(value >= floor, (item, card))
    # Above what any Hopper ring reaches only the newest NVLink generations lie.
    return Outcome(True, (item, *cards[:1])) if value >= 430 else UNKNOWN


def healthy_limit(ctx: Context) -> Outcome:
    """A measured bus bandwidth is close to the ceiling worked out for this machine."""
    for item in ctx.limits:
        if item.ratio is not None and "busbw" in item.what.lower() and item.ratio >= 0.7:
            by_id = {e.id: e for e in ctx.evidence}
            return Outcome(True, tuple(by_id[i] for i in item.evidence if i in by_id)[:3])
    return UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        env_forbids, env_effect_seen, interface_named_and_missing, ib_hca_named_and_missing, one_node,
        perhaps_many_nodes,
        sockets_between_nodes, rdma_wanted, sockets_though_rdma_wanted, gdr_not_used_though_near, rdma_without_gdr,
        shm_though_near, shm_between_gpus, geforce_without_p2p, pcie_gpus_silent, stuck_after_init, peer_pairs_and_hang,
        no_nvlink_matrix, nvlink_uneven, far_pair, nccl_path_crosses, nic_far, versions_differ, retry_on_ethernet,
        retry_on_infiniband, gid_index_wrong, mtu_differs, path_mtu_fails, tcp_blocked_host_up, congested, separate_runs,
        only_small_sizes, average_quoted, low_latency_protocol_at_large_sizes, one_channel, ranks_uneven,
        ranks_very_uneven, verbs_hidden, p2p_is_slower, gdr_is_slower, p2p_sample_broken, code_diverges,
        ranks_in_different_collectives, ranks_at_different_numbers, init_is_slow, init_slow_and_many_ranks,
        healthy_collective, healthy_limit,
    )
}  # fmt: skip
