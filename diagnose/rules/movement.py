"""Named predicates of the movement family: transports allowed and used, devices, descriptors, stages."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, parse_version
from . import movement_fabric, movement_kv, movement_paths
from .releases import one_after_the_other

_RDMA = regex(r"^(?:rc|dc|ud|ib|srd|gga|ugni|cxi)(?:_\w+)?$")
_GPU_COPY = {"cuda", "cuda_copy", "rocm", "rocm_copy", "ze", "ze_copy"}
_ONE_HOST = regex(
    r"nv-?link|same[ -](?:node|host|machine)|intra|single (?:node|host)|inside|within (?:a|the|one) (?:node|host)"
    r"|机内|同机|单机",
    re.IGNORECASE,
)
_NETWORK = regex(r"\b(?:ib|rdma|roce|hcas?|infiniband|mlx\w*|connectx\S*|[hnex]dr\d*)\b", re.IGNORECASE)
_COLLECTIVE = regex(
    r"nccl|all.?reduce|all.?gather|all.?to.?all|collective|train|\bddp|fsdp|busbw|ranks?\b|集合|训练", re.IGNORECASE
)
_BRIDGES = regex(r"^tcp/(?:docker|virbr|veth|br-|cni|flannel|cali|cilium|tun|tailscale|podman|lxc|weave)")


def _tls(ctx: Context) -> list[tuple[bool, list[str], Evidence]]:
    """Every UCX_TLS that was set to something else than all: (is a list of exclusions, names, evidence)."""
    out = []
    for item in [*ctx.of("ucx.env", {"label": "^UCX_TLS$"}), *ctx.of("env.var", {"label": "^UCX_TLS$"})]:
        text = str(item.value).strip("\"' ")
        names = [n.strip().lstrip("\\") for n in text.lstrip("^").split(",") if n.strip()]
        if names and names != ["all"]:
            out.append((text.startswith("^"), names, item))
    return out


def _restricted(ctx: Context, lacking: Callable[[bool, list[str]], bool]) -> Outcome:
    found = _tls(ctx)
    if not found:
        return UNKNOWN
    hits = tuple(item for excluded, names, item in found if lacking(excluded, names))
    return Outcome(bool(hits), hits or tuple(item for _, _, item in found))


def _lacks_rdma(excluded: bool, names: list[str]) -> bool:
    if excluded:
        return "ib" in names or {"rc", "dc", "ud"} <= {n.split("_")[0] for n in names}
    return "all" not in names and not any(_RDMA.match(n) for n in names)


def _lacks_copy(excluded: bool, names: list[str]) -> bool:
    if excluded:
        return bool(_GPU_COPY & set(names))
    return "all" not in names and not _GPU_COPY & set(names)


def _lacks_ipc(excluded: bool, names: list[str]) -> bool:
    if excluded:
        return "cuda_ipc" in names or "cuda" in names
    return "all" not in names and not {"cuda_ipc", "cuda"} & set(names)


def tls_lacks_rdma(ctx: Context) -> Outcome:
    """UCX_TLS leaves no RDMA transport."""
    return _restricted(ctx, _lacks_rdma)


def tls_lacks_gpu_copy(ctx: Context) -> Outcome:
    """UCX_TLS leaves no transport that copies GPU memory."""
    return _restricted(ctx, _lacks_copy)


def tls_lacks_ipc(ctx: Context) -> Outcome:
    """UCX_TLS leaves no CUDA IPC, so no NVLink inside a node."""
    return _restricted(ctx, _lacks_ipc)


def tls_bars_ipc_asked(ctx: Context) -> Outcome:
    """CUDA IPC is excluded by name, and GPUs of one host are what the question is about."""
    got = _restricted(ctx, lambda excluded, names: excluded and bool({"cuda_ipc", "cuda"} & set(names)))
    return Outcome(bool(_ONE_HOST.search(ctx.symptom)), got.used) if got.holds else got


def tls_set(ctx: Context) -> Outcome:
    """UCX_TLS is set to a choice of transports."""
    return _restricted(ctx, lambda _excluded, _names: True)


def rdma_here(ctx: Context) -> Outcome:
    """An RDMA port that is active, or a UCX or NCCL reading that names one."""
    active = tuple(e for e in ctx.of("rdma.port.state") if e.value == "ACTIVE")
    rated = tuple(ctx.of("rdma.port.rate"))
    found = (
        active
        or rated
        or tuple(ctx.of("rdma.device"))
        or tuple(ctx.of("rdma.mark.hcas"))
        or tuple(ctx.of("topo.gpu_nic"))[:2]
    )
    return Outcome(True, found[:3]) if found else UNKNOWN


_OTHER_LANE = regex(
    r"\b(?:am|am_bw|rma|rma_bw|device)\([^)]*\b(?:cma|sysv|posix|xpmem|knem|cuda_ipc|rocm_ipc|rc|dc|ud|srd)\w*/"
)


def tcp_lane(ctx: Context) -> Outcome:
    """A data lane runs over TCP and none of the same kind over anything better."""
    groups: dict[str, list[Evidence]] = {}
    for item in ctx.of("ucx.lane"):
        groups.setdefault(item.subject.label or "", []).append(item)
    if not groups:
        return UNKNOWN
    hits: list[Evidence] = []
    for label, items in groups.items():
        kind = label.split("|")[0]
        if kind in ("ka", "amo", "amo_am", "stream") or not kind:
            continue
        if kind == "rma_am":  # the fallback lane of every endpoint; another lane beside it carries what it can reach
            items = [e for e in items if not _OTHER_LANE.search(e.spans[0].quote if e.spans else "")]
        if items and all(str(e.value).startswith("tcp/") for e in items):
            hits.extend(items)
    return Outcome(bool(hits), tuple(hits or [e for items in groups.values() for e in items])[:4])


def tcp_lane_remote(ctx: Context) -> Outcome:
    """The same for a peer on another node, by UCX's own word."""
    got = tcp_lane(ctx)
    hits = tuple(e for e in got.used if "inter-node" in (e.subject.label or ""))
    return Outcome(True, hits) if got.holds and hits else Outcome(None if got.holds else got.holds, got.used)


def tcp_proto(ctx: Context) -> Outcome:
    """The protocol table puts large messages on TCP."""
    found = ctx.of("ucx.proto")
    if not found:
        return UNKNOWN
    hits = tuple(e for e in found if re.search(r"\| tcp/", str(e.value)) and "wireup" not in (e.subject.label or ""))
    return Outcome(bool(hits), hits[:3] or tuple(found[:3]))


def bridge_lane(ctx: Context) -> Outcome:
    """Traffic goes over a container or virtual bridge."""
    found = ctx.of("ucx.lane")
    if not found:
        return UNKNOWN
    hits = tuple(e for e in found if _BRIDGES.match(str(e.value)))
    return Outcome(bool(hits), hits or tuple(found[:3]))


def lanes_on_one_nic(ctx: Context) -> Outcome:
    """Several processes put their remote lanes on one RDMA device although there are more."""
    lanes = [
        e for e in ctx.of("ucx.lane")
        if (e.subject.label or "").split("|")[0] in ("rma", "am", "tag") and "intra" not in (e.subject.label or "")
        and _RDMA.match(str(e.value).split("/")[0])
    ]  # fmt: skip
    devices = {
        e.subject.nic for s in ("rdma.device", "rdma.port.state", "rdma.port.rate", "topo.gpu_nic") for e in ctx.of(s)
    }
    devices.discard(None)
    if not lanes or len(devices) < 2:
        return UNKNOWN
    used = {str(e.value).split("/")[1].split(":")[0] for e in lanes}
    users = max(e.count for e in lanes)
    return Outcome(len(used) == 1 and users >= 3, tuple(lanes[:3]))


def _device_choice(ctx: Context) -> list[tuple[list[str], Evidence]]:
    found = [*ctx.of("ucx.env", {"label": "^UCX_NET_DEVICES$"}), *ctx.of("env.var", {"label": "^UCX_NET_DEVICES$"})]
    out = []
    for item in found:
        names = [n.split(":")[0] for n in str(item.value).strip("\"' ").split(",") if n]
        if names and names != ["all"]:
            out.append((names, item))
    return out


def device_is_poor(ctx: Context) -> Outcome:
    """UCX_NET_DEVICES names a port that is down, far from the GPU, or half as fast as another one."""
    chosen = _device_choice(ctx)
    if not chosen:
        return UNKNOWN
    rates = {e.subject.nic: (v, e) for v, e in ctx.numbers("rdma.port.rate")}
    best = max((v for v, _ in rates.values()), default=0.0)
    for names, item in chosen:
        for name in names:
            down = [e for e in ctx.of("rdma.port.state") if e.subject.nic == name and e.value != "ACTIVE"]
            if down:
                return Outcome(True, (item, down[0]))
        mine = [rates[n] for n in names if n in rates]
        if mine and sum(v for v, _ in mine) <= best / 2:
            return Outcome(True, (item, *[e for _, e in mine][:2]))
        near = [e for e in ctx.of("topo.gpu_nic") if e.value in ("PIX", "PXB")]
        far = [e for e in ctx.of("topo.gpu_nic") if e.subject.nic in names and e.value in ("SYS", "NODE")]
        if near and far and not any(e.subject.nic in names for e in near):
            return Outcome(True, (item, far[0], near[0]))
    return Outcome(False, tuple(item for _, item in chosen)) if rates else UNKNOWN


def device_is_socket(ctx: Context) -> Outcome:
    """UCX_NET_DEVICES names only network interfaces, which leaves TCP."""
    chosen = _device_choice(ctx)
    if not chosen:
        return UNKNOWN
    socket = re.compile(r"^(?:eth|en[ospx]|bond\d|ib\d|ibs|ibp\d+s\d+$|docker|lo$|wlan|br-|virbr|team)")
    hits = tuple(item for names, item in chosen if all(socket.match(n) for n in names))
    return Outcome(bool(hits), hits or tuple(item for _, item in chosen))


def _listed(ctx: Context, pattern: str) -> Outcome:
    """False when the transports listed hold one that fits, True when the list looks whole and holds none."""
    found = ctx.of("ucx.transports")
    if not found:
        return UNKNOWN
    for item in found:
        names = str(item.value).split(",")
        if any(re.match(pattern, n) for n in names):
            return Outcome(False, (item,))
        if len(names) >= 3 and {"self", "tcp", "sysv", "posix"} & set(names):
            return Outcome(True, (item,))
    return UNKNOWN


def listing_lacks_cuda(ctx: Context) -> Outcome:
    """`ucx_info -d` lists transports and none for CUDA."""
    return _listed(ctx, r"cuda|gdr_copy|rocm|ze")


def listing_lacks_rdma(ctx: Context) -> Outcome:
    """`ucx_info -d` lists transports and none for RDMA."""
    return _listed(ctx, r"rc|dc|ud|srd|gga")


def _gpu_asked(ctx: Context) -> tuple[bool, tuple[Evidence, ...]]:
    seen = (
        tuple(e for e in ctx.of("mpi.cuda_support") if e.value == "yes") + tuple(ctx.of("gpu.name"))
        + tuple(e for e in ctx.of("mpi.build", {"label": "cuda"}) if e.value == "with")
    )  # fmt: skip
    words = re.search(r"gpu|cuda|device (?:pointer|buffer|memor)|\bD D\b|显存|kv\b|nixl", ctx.symptom, re.IGNORECASE)
    return bool(seen or words), seen[:2]


def build_lacks_cuda(ctx: Context) -> Outcome:
    """UCX was configured without CUDA, and GPU memory is in question."""
    found = ctx.of("ucx.build", {"label": "^cuda$"})
    if not found:
        return UNKNOWN
    asked, seen = _gpu_asked(ctx)
    hits = tuple(e for e in found if e.value in ("without", "unmentioned"))
    return Outcome(bool(hits) and asked, (*(hits or tuple(found)), *seen))


def listing_lacks_cuda_asked(ctx: Context) -> Outcome:
    """No CUDA transport is listed, and GPU memory is in question."""
    got = listing_lacks_cuda(ctx)
    if not got.holds:
        return got
    if any(e.value == "none" for e in ctx.of("host.gpu_nodes")) and not ctx.of("gpu.name"):
        return UNKNOWN  # where no GPU is, no build lists a transport for one
    asked, seen = _gpu_asked(ctx)
    return Outcome(asked, (*got.used, *seen))


def build_lacks_verbs(ctx: Context) -> Outcome:
    """UCX was configured without verbs."""
    found = ctx.of("ucx.build", {"label": "^verbs$"})
    if not found:
        return UNKNOWN
    hits = tuple(e for e in found if e.value == "without")
    return Outcome(bool(hits), hits or tuple(found))


def build_lacks_verbs_asked(ctx: Context) -> Outcome:
    """UCX was configured without verbs, and RDMA is what the question is about."""
    got = build_lacks_verbs(ctx)
    return Outcome(bool(_NETWORK.search(ctx.symptom)), got.used) if got.holds else got


def md_lacks_cuda(ctx: Context) -> Outcome:
    """An RDMA memory domain registers host memory and not CUDA memory, while UCX has CUDA."""
    found = [
        e for e in ctx.of("ucx.md.memory") if re.match(r"mlx|ib|bnxt|irdma|efa|rocep|rdmap", e.subject.label or "")
    ]
    if not found:
        return UNKNOWN
    if listing_lacks_cuda(ctx).holds is not False:
        return UNKNOWN
    hits = tuple(e for e in found if "cuda" not in str(e.value))
    return Outcome(bool(hits), hits or tuple(found[:3]))


def two_versions(ctx: Context) -> Outcome:
    """Two UCX releases are in play."""
    found: dict[tuple[int, ...], Evidence] = {}
    for item in [*(e for e in ctx.of("version") if (e.subject.label or "").lower() == "ucx"), *ctx.of("ucx.headers")]:
        found.setdefault(parse_version(str(item.value))[:2], item)
    if not found or one_after_the_other(found.values()):
        return UNKNOWN
    return Outcome(len(found) > 1, tuple(found.values())[:3])


def _size(text: str) -> float | None:
    if text in ("inf", "infinity"):
        return float("inf")
    hit = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", text.lower())
    return float(hit.group(1)) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[hit.group(2)] if hit else None


def rndv_forced(ctx: Context) -> Outcome:
    """UCX_RNDV_THRESH is set where it keeps large messages eager or sends small ones by rendezvous."""
    found = ctx.of("ucx.env", {"label": "^UCX_RNDV_THRESH$"})
    schemes = ctx.of("ucx.env", {"label": "^UCX_RNDV_SCHEME$"})
    eager = ctx.of("ucx.env", {"label": "^UCX_ZCOPY_THRESH$"})
    if not found and not schemes and not eager:
        return UNKNOWN
    # sent as active messages, or never without a copy: large messages stay at the CPU's copy rate
    hits = [e for e in schemes if str(e.value).lower() in ("am", "rndv_am")]
    hits += [e for e in eager if str(e.value).lower() in ("inf", "infinity")]
    for item in found:
        sizes = [_size(part.split(":")[-1].strip()) for part in str(item.value).split(",")]
        if any(s is not None and (s >= 2**18 or s <= 512) for s in sizes):
            hits.append(item)
    return Outcome(bool(hits), tuple(hits or [*found, *schemes, *eager]))


def rcache_off(ctx: Context) -> Outcome:
    """A registration or mapping cache is switched off."""
    off = {"n", "no", "0", "off", "false"}
    hits = [
        e
        for e in ctx.of("ucx.env", {"label": r"RCACHE(?:_ENABLE)?$|_MEM_EVENTS$|_CUDA_IPC_CACHE$|MALLOC_HOOKS$"})
        if str(e.value).lower() in off
    ]  # fmt: skip
    hits += [e for e in ctx.of("ucx.env", {"label": "REG_METHODS$"}) if str(e.value).lower() == "direct"]
    hits += [e for e in ctx.of("ucx.env", {"label": "MMAP_HOOK_MODE$"}) if str(e.value).lower() == "none"]
    hits += [e for e in ctx.of("ucx.env", {"label": "RCACHE_MAX_(?:REGIONS|SIZE)$"}) if str(e.value) in ("0", "1")]
    return Outcome(True, tuple(hits)) if hits else UNKNOWN


def memlock_low(ctx: Context) -> Outcome:
    """The limit of locked memory is finite and small."""
    found = ctx.of("host.limit.memlock")
    if not found:
        return UNKNOWN
    hits = []
    for item in found:
        number = re.search(r"\d+", str(item.value))
        if number and "unlimited" not in str(item.value) and int(number.group()) <= 16777216:
            hits.append(item)
    return Outcome(bool(hits), tuple(hits or found)[:3])


_OTHER_WORK = (
    "ucx.env", "ucx.lane", "ucx.build", "ucx.transports", "ucx.proto", "mpi.*", "kv.*", "nixl.*", "rdma.perftest.*",
    "rdma.mark.tool",
)  # fmt: skip


def collectives_only(ctx: Context) -> Outcome:
    """NCCL is what runs or what is asked about, and nothing here is of UCX, MPI over it, or KV transfer."""
    named = re.search("nccl", ctx.symptom, re.IGNORECASE)  # then a plain RDMA test is a check on the side
    others = [name for name in _OTHER_WORK if not (named and name.startswith("rdma."))]
    if any(ctx.of(name) for name in others) or any("UCX" in (e.quote or "") for e in ctx.of("ucx.mark.*")):
        return Outcome(False)
    if re.search(r"\b(?:ucx|mpi|nixl)\b", ctx.symptom, re.IGNORECASE):
        return Outcome(False)
    # one line may say the same to both, that a module is missing: then the question decides
    both = not ctx.asks("slow-allreduce", "collective-hang", "training-slow")
    shared = {e.quote for e in ctx.of("ucx*") if both and "." in e.signal}
    seen = tuple(e for e in ctx.of("nccl*") if "." in e.signal and e.quote not in shared)[:2]
    # a question about RDMA is routed like one about collectives, for want of a better playbook
    asked = ctx.asks("slow-allreduce", "collective-hang", "training-slow") and _COLLECTIVE.search(ctx.symptom)
    return Outcome(True, seen) if seen or asked else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (
        tls_lacks_rdma, tls_lacks_gpu_copy, tls_lacks_ipc, tls_set, rdma_here, tcp_lane, tcp_lane_remote, tcp_proto,
        bridge_lane, lanes_on_one_nic, device_is_poor, device_is_socket, listing_lacks_cuda,
        listing_lacks_cuda_asked, listing_lacks_rdma, build_lacks_cuda, build_lacks_verbs, build_lacks_verbs_asked,
        md_lacks_cuda,
        tls_bars_ipc_asked, two_versions, rndv_forced, rcache_off, memlock_low, collectives_only,
    )
}  # fmt: skip
RULES.update(movement_fabric.RULES)
RULES.update(movement_kv.RULES)
RULES.update(movement_paths.RULES)
