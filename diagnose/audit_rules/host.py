"""Rules about CPUs, memory, variables that name devices, the network, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, parse_version
from .base import OK, env, found, gpus

FAST = 25.0  # Gb/s from which an interface is meant for data


# --- CPUs and memory


def _cpus(text: str) -> set[int]:
    out: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit() and (not high or high.isdigit()):
            out.update(range(int(low), int(high or low) + 1))
    return out


def cpus_far_from_gpu(ctx: Context) -> Outcome:
    """This process may use no CPU that is near a GPU."""
    mine = ctx.of("host.cpu.allowed")
    near = [e for e in ctx.of("topo.cpu_affinity") if _cpus(str(e.value))]
    if not mine or not near:
        return UNKNOWN
    own = _cpus(str(mine[0].value))
    return found([e for far in near if not own & _cpus(str(far.value)) for e in (far, mine[0])])


def few_cpus_per_gpu(ctx: Context) -> Outcome:
    """Fewer than two CPUs a GPU for what runs here."""
    cards = len(gpus(ctx))
    readings = [*ctx.numbers("host.cpu.quota"), *ctx.numbers("host.cpu.allowed_count"), *ctx.numbers("host.cpu.count")]
    if not cards or not readings:
        return UNKNOWN
    value, item = min(readings, key=lambda r: r[0])
    return Outcome(value < 2 * cards, (item,))


def threads_beyond_cpus(ctx: Context) -> Outcome:
    """OMP_NUM_THREADS is larger than the CPUs that this process may use."""
    threads = env(ctx, "OMP_NUM_THREADS")
    if threads is None:
        return OK
    readings = [*ctx.numbers("host.cpu.quota"), *ctx.numbers("host.cpu.allowed_count"), *ctx.numbers("host.cpu.count")]
    if not readings or not str(threads.value).isdigit():
        return UNKNOWN
    value, item = min(readings, key=lambda r: r[0])
    return Outcome(int(str(threads.value)) > value, (threads, item))


def quota_unseen_by_threads(ctx: Context) -> Outcome:
    """The CPU quota is far below the CPUs that libraries count, and no variable limits their threads."""
    quota, count = ctx.numbers("host.cpu.quota"), ctx.numbers("host.cpu.count")
    if not count:
        return UNKNOWN
    if not quota or env(ctx, "OMP_NUM_THREADS") is not None:
        return OK
    low, total = min(quota, key=lambda r: r[0]), max(count, key=lambda r: r[0])
    return Outcome(low[0] * 2 <= total[0], (low[1], total[1]))


def memlock_small_for_rdma(ctx: Context) -> Outcome:
    """RDMA adapters are there, and little memory may be locked."""
    if not ctx.of("rdma.device") and not ctx.of("rdma.port.state"):
        return UNKNOWN
    got = [e for e in ctx.of("host.limit.memlock") if e.subject.label is None]
    small = [e for e in got if re.fullmatch(r"\d+", str(e.value)) and int(str(e.value)) < 1 << 26]
    return found(small, bool(got))


def shm_small(ctx: Context) -> Outcome:
    """Several GPUs, and the 64 MB of shared memory that a container gets unasked."""
    size = ctx.numbers("host.shm.size")
    if len(gpus(ctx)) < 2 or not size:
        return UNKNOWN
    return found(e for v, e in size if v < 0.9)


def numa_balancing_with_gpus(ctx: Context) -> Outcome:
    """The kernel moves pages between several NUMA nodes of a GPU host."""
    nodes = ctx.numbers("host.numa.nodes")
    got = ctx.numbers("host.numa.balancing")
    if not nodes or not got:
        return UNKNOWN
    return found(e for v, e in got if v >= 1 and max(n for n, _ in nodes) > 1)


# --- variables that name devices


def _indices(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def visible_beyond_count(ctx: Context) -> Outcome:
    """CUDA_VISIBLE_DEVICES names an index that no GPU has; it and what follows are ignored."""
    chosen = env(ctx, "CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return OK
    names = gpus(ctx)
    if not names:
        return UNKNOWN
    wrong = [i for i in _indices(str(chosen.value)) if i.isdigit() and int(i) >= len(names)]
    return Outcome(bool(wrong), (chosen,))


def visible_none(ctx: Context) -> Outcome:
    """CUDA_VISIBLE_DEVICES hides every GPU."""
    chosen = env(ctx, "CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return OK
    return Outcome(str(chosen.value).strip() in ("", "-1", "none", "None", "NoDevFiles"), (chosen,))


def visible_part(ctx: Context) -> Outcome:
    """CUDA_VISIBLE_DEVICES leaves some GPUs out."""
    chosen = env(ctx, "CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return OK
    named = _indices(str(chosen.value))
    return Outcome(0 < len(named) < len(gpus(ctx)) and named != ["-1"], (chosen,))


def _interface_named(variable: str) -> Callable[[Context], Outcome]:
    """A variable names an interface that is not here (NCCL's syntax: prefixes, ``=`` exact, ``^`` excluded)."""

    def rule(ctx: Context) -> Outcome:
        chosen = env(ctx, variable)
        if chosen is None:
            return OK
        here = {e.subject.nic for e in [*ctx.of("net.interface"), *ctx.of("net.mtu")] if e.subject.nic}
        here |= {e.subject.label for e in ctx.of("net.mtu") if e.subject.label}
        text = str(chosen.value).strip()
        if not here or text.startswith("^"):
            return UNKNOWN if not here else OK
        exact = text.startswith("=")
        wanted = [w.partition(":")[0] for w in _indices(text.lstrip("="))]
        fits = any(n == w or (not exact and n.startswith(w)) for n in here if n for w in wanted)
        return Outcome(not fits, (chosen,))

    return rule


def _adapters_named(variable: str) -> Callable[[Context], Outcome]:
    """A variable names RDMA adapters none of which is here."""

    def rule(ctx: Context) -> Outcome:
        chosen = env(ctx, variable)
        if chosen is None:
            return OK
        here = {e.subject.nic for s in ("rdma.device", "rdma.port.state", "rdma.port.rate") for e in ctx.of(s)}
        here |= {e.subject.nic for e in [*ctx.of("net.interface"), *ctx.of("topo.gpu_nic")]}
        text = str(chosen.value).strip()
        if not (here - {None}) or text.startswith("^") or text in ("all", ""):
            return UNKNOWN if text and not text.startswith("^") and text != "all" else OK
        exact = text.startswith("=")
        wanted = [w.partition(":")[0] for w in _indices(text.lstrip("="))]
        fits = any(n == w or (not exact and n.startswith(w)) for n in here if n for w in wanted)
        return Outcome(not fits, (chosen,))

    return rule


def socket_interface_virtual(ctx: Context) -> Outcome:
    """NCCL_SOCKET_IFNAME chooses loopback or a container bridge."""
    chosen = env(ctx, "NCCL_SOCKET_IFNAME")
    if chosen is None:
        return OK
    text = str(chosen.value).lstrip("=")
    return Outcome(
        not text.startswith("^") and re.match(r"(?:lo|docker|virbr|cni|veth)\d*\b", text) is not None, (chosen,)
    )


# --- network


def _ports(ctx: Context, signal: str) -> dict[tuple[str | None, str | None], Evidence]:
    return {(e.subject.nic, e.subject.label): e for e in ctx.of(signal)}


def port_waits_for_manager(ctx: Context) -> Outcome:
    """The cable is up and the port is not active: nobody manages the subnet."""
    physical = _ports(ctx, "rdma.port.phys")
    state = _ports(ctx, "rdma.port.state")
    hits = [
        e
        for key, e in state.items()
        if re.search(r"INIT|ARMED", str(e.value), re.I)
        or (
            key in physical
            and re.search(r"link_?up", str(physical[key].value), re.I)
            and "DOWN" in str(e.value).upper()
        )
    ]
    return found(hits, bool(state))


def port_without_cable(ctx: Context) -> Outcome:
    """A port is down."""
    state = _ports(ctx, "rdma.port.state")
    return found([e for e in state.values() if "DOWN" in str(e.value).upper()], bool(state))


def port_rates_differ(ctx: Context) -> Outcome:
    """Active ports of one layer run at different rates."""
    state, layer = _ports(ctx, "rdma.port.state"), _ports(ctx, "rdma.port.layer")
    rates: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("rdma.port.rate"):
        key = (item.subject.nic, item.subject.label)
        if key in state and "ACTIVE" not in str(state[key].value).upper():
            continue
        rates.setdefault(str(layer[key].value) if key in layer else "", []).append((value, item))
    hits: list[Evidence] = []
    for group in rates.values():
        low, high = min(group, key=lambda r: r[0]), max(group, key=lambda r: r[0])
        if low[0] < high[0]:
            hits += [low[1], high[1]]
    return found(hits, any(len(g) > 1 for g in rates.values()))


def port_mtu_low(ctx: Context) -> Outcome:
    """A port's MTU is below what it can do."""
    top = _ports(ctx, "rdma.port.mtu_max")
    pairs = [(v, e, top[k]) for v, e in ctx.numbers("rdma.port.mtu") if (k := (e.subject.nic, e.subject.label)) in top]
    hits = [x for v, e, m in pairs if isinstance(m.value, (int, float)) and v < m.value for x in (e, m)]
    return found(hits, bool(pairs))


def _fast(ctx: Context) -> dict[str | None, tuple[float, Evidence]]:
    """MTU of fast interfaces that are up."""
    rate = {e.subject.nic: v for v, e in ctx.numbers("net.interface.rate")}
    up = {e.subject.nic for e in ctx.of("net.interface") if e.value == "up"}
    return {
        e.subject.nic: (v, e)
        for v, e in ctx.numbers("net.interface.mtu")
        if e.subject.nic in up and rate.get(e.subject.nic, 0) >= FAST
    }


def fast_interface_small_mtu(ctx: Context) -> Outcome:
    """A fast interface with the MTU of an office network."""
    got = _fast(ctx)
    return found([e for v, e in got.values() if v <= 1500], bool(got))


def fast_interfaces_differ(ctx: Context) -> Outcome:
    """Fast interfaces of one host have different MTUs."""
    got = sorted(_fast(ctx).values(), key=lambda r: r[0])
    return UNKNOWN if len(got) < 2 else Outcome(got[0][0] < got[-1][0], (got[0][1], got[-1][1]))


def gpu_far_from_nics(ctx: Context) -> Outcome:
    """As many adapters as GPUs, and a GPU whose nearest one is behind the other socket."""
    rank = {"PIX": 0, "PXB": 1, "PHB": 2, "NODE": 3, "SYS": 4}
    best: dict[int | None, Evidence] = {}
    nics = set()
    for item in ctx.of("topo.gpu_nic"):
        nics.add(item.subject.nic)
        kept = best.get(item.subject.gpu)
        if kept is None or rank.get(str(item.value), 9) < rank.get(str(kept.value), 9):
            best[item.subject.gpu] = item
    if not best or len(nics) < len(best):
        return UNKNOWN
    return found(e for e in best.values() if str(e.value) in ("SYS", "NODE"))


def no_way_to_gpu_memory(ctx: Context) -> Outcome:
    """RDMA adapters and GPUs, a proprietary driver module, and nvidia_peermem is not loaded."""
    if not ctx.of("rdma.device") and not ctx.of("rdma.port.state"):
        return UNKNOWN
    modules, kind = ctx.of("host.modules"), ctx.of("driver.module")
    missing = [e for e in ctx.of("rdma.module.missing") if e.subject.label in ("nvidia_peermem", "nv_peer_mem")]
    if not kind or not (modules or missing):
        return UNKNOWN
    absent = bool(missing) or not any(re.search(r"nvidia_peermem|nv_peer_mem", str(e.value)) for e in modules)
    return Outcome(absent and kind[0].value == "proprietary", (kind[0], *missing[:1], *modules[:1]))


# --- what was expected


def _expected(
    signal: str, count: Callable[[Context], tuple[int, tuple[Evidence, ...]] | None]
) -> Callable[[Context], Outcome]:
    def rule(ctx: Context) -> Outcome:
        wanted, got = ctx.numbers(signal), count(ctx)
        if not wanted or got is None:
            return UNKNOWN
        return Outcome(got[0] != int(wanted[0][0]), (*got[1][:3], wanted[0][1]))

    return rule


def _count_gpus(ctx: Context) -> tuple[int, tuple[Evidence, ...]] | None:
    names = gpus(ctx)
    if names:
        return len(names), tuple(e for _, e in ctx.numbers("gpu.count"))[:1] or tuple(names.values())[:1]
    nodes = ctx.of("host.gpu_nodes")
    return (0, tuple(nodes[:1])) if nodes and nodes[0].value == "none" else None


def _count_nics(ctx: Context) -> tuple[int, tuple[Evidence, ...]] | None:
    seen = {e.subject.nic: e for s in ("rdma.device", "rdma.port.state", "rdma.port.rate") for e in ctx.of(s)}
    seen.pop(None, None)
    if seen:
        return len(seen), tuple(seen.values())
    nothing = ctx.of("rdma.none")
    modules = [e for e in ctx.of("host.modules") if "ib_core" not in str(e.value)]
    return (0, tuple([*nothing, *modules][:1])) if nothing or modules else None


def expected_versions(ctx: Context) -> Outcome:
    """A component has another version than expected (`--expect driver=580,torch=2.11,gpu=H100`)."""
    hits: list[Evidence] = []
    known = False
    for wish in ctx.of("expect.value"):
        name, want = wish.subject.label or "", str(wish.value)
        if name == "gpu":
            seen = list(gpus(ctx).values())
            wrong = [e for e in seen if want.lower() not in str(e.value).lower()]
        else:
            label = {"cuda": "torch-cuda"}.get(name, name)
            seen = [e for e in ctx.of("version") if e.subject.label == label]
            need = parse_version(want)
            wrong = [e for e in seen if parse_version(str(e.value))[: len(need)] != need]
        known |= bool(seen)
        hits += [*wrong[:2], wish] if wrong else []
    return found(hits, known)


RULES: Mapping[str, Callable[[Context], Outcome]] = {
    **{
        rule.__name__: rule
        for rule in (
            cpus_far_from_gpu,
            few_cpus_per_gpu,
            threads_beyond_cpus,
            quota_unseen_by_threads,
            memlock_small_for_rdma,
            shm_small,
            numa_balancing_with_gpus,
            visible_beyond_count,
            visible_none,
            visible_part,
            socket_interface_virtual,
            port_waits_for_manager,
            port_without_cable,
            port_rates_differ,
            port_mtu_low,
            fast_interface_small_mtu,
            fast_interfaces_differ,
            gpu_far_from_nics,
            no_way_to_gpu_memory,
            expected_versions,
        )
    },
    "socket_interface_missing": _interface_named("NCCL_SOCKET_IFNAME"),
    "gloo_interface_missing": _interface_named("GLOO_SOCKET_IFNAME"),
    "ib_adapters_missing": _adapters_named("NCCL_IB_HCA"),
    "ucx_devices_missing": _adapters_named("UCX_NET_DEVICES"),
    "gpu_count_expected": _expected("expect.gpus", _count_gpus),
    "nic_count_expected": _expected("expect.nics", _count_nics),
}
