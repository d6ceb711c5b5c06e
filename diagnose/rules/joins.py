"""Named predicates that join facts of different places: a matrix and a log, two hosts, two shells, two runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest, outcome
from .comparison import ratios
from .nccl_facts import env, text_of

# ---------------------------------------------------------------- who uses which adapter


def _devices(ctx: Context) -> list[str]:
    """Names of the adapters in NCCL's own order."""
    for item in ctx.of("nccl.ib.devices"):
        names = re.findall(r"\[\d+\]([\w.-]+?):\d+", text_of(item))
        if names:
            return names
    return []


def _named(index: int, devices: list[str], nics: Iterable[str]) -> set[str]:
    """What a matrix may call NCCL's adapter of this index."""
    if devices:
        if index >= len(devices):
            return set()
        number = re.search(r"(\d+)$", devices[index])
        return {devices[index], f"NIC{number[1]}" if number and devices[index] not in nics else devices[index]}
    return {f"NIC{index}", f"mlx5_{index}"}


def nic_far_in_log(ctx: Context) -> Outcome:
    """By the log a GPU uses only adapters far from it in the matrix, although one is near; another GPU does not."""
    matrix: dict[int, dict[str, Evidence]] = {}
    for item in ctx.of("topo.gpu_nic"):
        if item.subject.gpu is not None and item.subject.nic:
            matrix.setdefault(item.subject.gpu, {})[item.subject.nic] = item
    uses: dict[tuple[str | None, int], list[Evidence]] = {}
    for item in ctx.of("nccl.nic_use"):
        if item.subject.gpu is not None:
            uses.setdefault((item.subject.host, item.subject.gpu), []).append(item)
    devices = _devices(ctx)
    far: list[Evidence] = []
    fits = False
    for (_, gpu), items in uses.items():
        row = matrix.get(gpu, {})
        near = [e for e in row.values() if text_of(e) in ("PIX", "PXB")]
        if not near:
            continue
        cells = [row[n] for e in items for n in _named(int(text_of(e)), devices, row) if n in row]
        if cells and all(text_of(c) in ("SYS", "NODE") for c in cells):
            far += [items[0], cells[0], near[0]]
        elif cells:
            fits = True  # index and matrix count alike
    if not far or not (fits or devices):
        return UNKNOWN
    return Outcome(True, tuple(far[:6]))


def nic_far_by_position(ctx: Context) -> Outcome:
    """The same, where only the adapters' order tells which of the matrix NCCL's index means."""
    row: dict[int, dict[str, Evidence]] = {}
    for item in ctx.of("topo.gpu_nic"):
        if item.subject.gpu is not None and item.subject.nic:
            row.setdefault(item.subject.gpu, {})[item.subject.nic] = item
    uses = ctx.of("nccl.nic_use")
    for gpu, mine in row.items():
        own = [e for e in uses if e.subject.gpu == gpu]
        near = [e for e in mine.values() if text_of(e) in ("PIX", "PXB")]
        cells = [mine[n] for e in own for n in _named(int(text_of(e)), _devices(ctx), mine) if n in mine]
        if near and cells and all(text_of(c) in ("SYS", "NODE") for c in cells):
            return Outcome(True, (own[0], cells[0], near[0]))
    return UNKNOWN


def slower_interface_used(ctx: Context) -> Outcome:
    """NCCL's sockets use an interface, and another one on the same host is five times as fast or more."""
    speeds = {e.subject.nic: (v, e) for v, e in ctx.numbers("net.interface.speed")}
    if len(speeds) < 2:
        return UNKNOWN
    top = highest(speeds.values())
    named = [*ctx.of("nccl.socket.interfaces"), *ctx.of("nccl.bootstrap.interface"), *env(ctx, "NCCL_SOCKET_IFNAME")]
    for item in named:
        name = re.match(r"(?:\[0\])?=?([\w.-]+)", text_of(item))
        own = speeds.get(name[1]) if name else None
        if own is not None and top[0] >= 5 * own[0]:
            return Outcome(True, (item, own[1], top[1]))
    return UNKNOWN


def slow_interface_carries(ctx: Context) -> Outcome:
    """... and NCCL says that sockets are its network."""
    got = slower_interface_used(ctx)
    sockets = [e for e in (*ctx.of("nccl.network"), *env(ctx, "NCCL_NET")) if text_of(e).lower() == "socket"]
    return Outcome(True, (*got.used, *sockets[:1])) if got.holds and sockets else UNKNOWN


def ranks_sit_in_different_collectives(ctx: Context) -> Outcome:
    """Some ranks stand still in one collective, some in another."""
    ops = {text_of(e).lower().replace("_", ""): e for e in ctx.of("rank.collective")}
    return Outcome(True, tuple(ops.values())[:4]) if len(ops) > 1 else UNKNOWN


_WITHOUT_ONE = regex(
    r"(?:without|excluding|except|minus|w/o|removing|removed|drained?|不含|去掉|拔掉|除了|排除)\W{0,3}(?:the )?"
    r"(?:(?:node|host|gpu|rank|n|worker|machine|cn|nid)[ _#-]?\w{0,4}\d+|[a-z][a-z-]*\d+)", re.IGNORECASE,
)  # fmt: skip
_PACE = regex(r"time|throughput|iterations|busbw|bandwidth|flops")


def faster_without_one(ctx: Context) -> Outcome:
    """Without one named node the rest is faster."""
    return outcome(
        r.evidence for r in ratios(ctx)
        if r.value >= 1.1 and _WITHOUT_ONE.search(r.better) and _PACE.search(r.metric)
    )  # fmt: skip


_OTHERS = regex(r"\bothers?\b|\brest\b|其它|其他|别的", re.IGNORECASE)
_ONE = regex(r"(?:node|host|gpu|rank|worker|machine|cn|nid)[ _#-]?\w{0,4}\d+|\b[a-z]{1,6}-?\d{1,4}\b", re.IGNORECASE)


def one_alone_is_slow(ctx: Context) -> Outcome:
    """A node by itself is slower than the others by themselves."""
    return outcome(
        r.evidence for r in ratios(ctx)
        if r.value >= 1.1 and _OTHERS.search(r.better) and _ONE.search(r.worse) and _PACE.search(r.metric)
    )  # fmt: skip


def hca_list_leaves_near_out(ctx: Context) -> Outcome:
    """NCCL_IB_HCA names adapters of one socket only, and the evidence lists those of the other."""
    lists = [e for e in env(ctx, "NCCL_IB_HCA") if not text_of(e).startswith("^")]
    places = ctx.of("rdma.mark.nic_numa")
    if not lists or not places:
        return UNKNOWN
    chosen = {n.split(":")[0] for n in text_of(lists[0]).lstrip("=").split(",")}
    by_node: dict[str, set[str]] = {}
    for item in places:
        for first, last, node in _RANGE.findall(f"{item.quote or ''}"):
            stem, low = first.rsplit("_", 1)
            high = int(last or low)
            by_node.setdefault(node, set()).update(f"{stem}_{k}" for k in range(int(low), min(high, int(low) + 64) + 1))
    if len(by_node) < 2 or not chosen <= set().union(*by_node.values()):
        return UNKNOWN
    empty = [node for node, names in by_node.items() if not names & chosen]
    return Outcome(bool(empty), (lists[0], places[0]))


_RANGE = regex(r"(\w+_\d+)(?:\s*(?:\.\.+|-|–|to)\s*(?:\w+_)?(\d+))?[^\n;,]{0,12}?numa\w*(?: node)?\W{0,3}(\d)", re.I)


def gdr_on_some_hosts(ctx: Context) -> Outcome:
    """On one host every network line carries GDRDMA, on another none does."""
    by_way: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("nccl.host_gdr"):
        by_way.setdefault(item.subject.label or "", []).append((value, item))
    for hosts in by_way.values():
        low, high = lowest(hosts), highest(hosts)
        if low[0] == 0.0 and high[0] == 1.0:
            return Outcome(True, (low[1], high[1]))
    return UNKNOWN


def port_below_siblings(ctx: Context) -> Outcome:
    """A minority of ports that should be alike runs at half the rate or width of the others, or less."""
    for signal in ("rdma.port.rate", "rdma.port.width"):
        kinds: dict[str, dict[str, tuple[float, Evidence]]] = {}
        for value, item in ctx.numbers(signal):  # mlx5_bond_0 is no sibling of mlx5_0
            stem = re.sub(r"\d+", "", item.subject.nic or "")
            kinds.setdefault(stem, {})[item.subject.key()] = (value, item)
        for ports in kinds.values():
            values = list(ports.values())
            top = max(v for v, _ in values)
            low = [e for v, e in values if 0.2 * top <= v <= 0.55 * top]
            if len(values) >= 3 and low and 2 * len(low) < len(values):
                return Outcome(True, (*low[:2], next(e for v, e in values if v == top)))
    return UNKNOWN


# ---------------------------------------------------------------- limits of two shells

_LITTLE = 256 * 2**20  # of locked memory: a few queue pairs with their buffers need more


def _own_words(ctx: Context) -> list[Evidence]:
    """What UCX itself says; the limit and a verbs call that fails are anybody's."""
    return [e for e in ctx.of("ucx.*") if not e.signal.startswith("ucx.mark.memlock") or "UCX" in (e.quote or "")]


def memlock_of_ucx(ctx: Context) -> Outcome:
    """It is UCX that pins memory here."""
    return outcome(_own_words(ctx))


def _of_ucx(ctx: Context) -> bool:
    """Does UCX speak here and NCCL not?"""
    return bool(_own_words(ctx)) and not any(ctx.of(s) for s in ("nccl.warn", "nccl.transport", "nccl.network"))


def memlock_little(ctx: Context) -> Outcome:
    """Some process may lock only a few MiB."""
    if _of_ucx(ctx):
        return UNKNOWN
    return outcome(e for v, e in ctx.numbers("host.limit.locked") if v <= _LITTLE)


def memlock_differs(ctx: Context) -> Outcome:
    """One shell may lock what it wants, another next to nothing."""
    little = memlock_little(ctx).used
    free = [e for e in ctx.of("host.limit.memlock") if re.match(r"unlimited|infinity", text_of(e), re.IGNORECASE)]
    free += [e for v, e in ctx.numbers("host.limit.locked") if v >= 64 * _LITTLE]
    return Outcome(True, (*little[:2], *free[:1])) if little and free else UNKNOWN


_FAILS = regex(r"fail|error|crash|abort|\bdies?\b|falls? over|refus|hang|报错|失败|出错|崩|起不来", re.I)


def memlock_differs_and_fails(ctx: Context) -> Outcome:
    """… and what was started with next to nothing fails, over a network that pins memory."""
    differs = memlock_differs(ctx)
    if any(str(e.value) == "Socket" for e in ctx.of("nccl.network")) or ctx.of("nccl.mark.ib_no_device"):
        return Outcome(False)
    return differs if differs.holds and (_FAILS.search(ctx.symptom) or ctx.of("text.error")) else UNKNOWN


def memlock_and_verbs_fail(ctx: Context) -> Outcome:
    """Little memory may be locked, and a verbs call that locks memory fails."""
    little = memlock_little(ctx)
    failed = [
        e
        for e in (*ctx.of("nccl.warn"), *ctx.of("text.error"), *ctx.of("ucx.mark.memlock_verbs"))
        if _VERBS.search(f"{e.value} {e.quote or ''}")
    ]
    return Outcome(True, (*little.used[:2], *failed[:1])) if little.holds and failed else UNKNOWN


_VERBS = regex(
    r"ibv_(?:create_(?:qp|cq|srq|comp)|reg_\w*mr|alloc_pd)|mlx5dv_create|fi_mr_reg|Cannot allocate memory"
    r"|Couldn't (?:register|allocate|create)",
    re.I,
)


def memlock_unlimited_everywhere(ctx: Context) -> Outcome:
    """Every shell that was asked may lock what it wants."""
    free = [e for e in ctx.of("host.limit.memlock") if re.match(r"unlimited|infinity", text_of(e), re.IGNORECASE)]
    return Outcome(not memlock_little(ctx).holds, tuple(free[:2])) if free else UNKNOWN


# ---------------------------------------------------------------- sets of GPUs, products, containers

_GPU_LIST = regex(r"(?<![\w.])(\d{1,2}(?:\s?,\s?\d{1,2})+)(?![\w.])")


def slow_set_crosses(ctx: Context) -> Outcome:
    """Of two sets of GPUs the slower has a pair across the sockets and the faster has none."""
    links = {
        frozenset((e.subject.gpu, e.subject.peer)): e for e in ctx.of("topo.link")
        if e.subject.gpu is not None and e.subject.peer is not None
    }  # fmt: skip
    far = {pair for pair, e in links.items() if text_of(e) == "SYS"}
    if not far:
        return UNKNOWN

    def crossing(text: str) -> tuple[bool, Evidence | None] | None:
        hit = _GPU_LIST.search(text)
        if hit is None:
            return None
        gpus = [int(g) for g in hit[1].split(",")]
        pairs = [frozenset((a, b)) for i, a in enumerate(gpus) for b in gpus[i + 1 :]]
        over = [p for p in pairs if p in far]
        return bool(over), links[over[0]] if over else None

    for ratio in ratios(ctx):
        if ratio.value < 1.2:
            continue
        slow, fast = crossing(ratio.worse), crossing(ratio.better)
        if slow is not None and fast is not None and slow[0] and not fast[0] and slow[1] is not None:
            return Outcome(True, (ratio.evidence, slow[1]))
    return UNKNOWN


def pcie_beside_sxm(ctx: Context) -> Outcome:
    """The same chip as a PCIe card here and on an NVLink board there, and the collectives' shares are far apart."""
    kinds: dict[str, list[Evidence]] = {}
    for item in (*ctx.of("gpu.name"), *ctx.of("gpu.product")):
        got = hardware.gpu(text_of(item))
        if got is not None and (chip := re.search(r"[ABHV]\d{2,3}", got.name)):
            kinds.setdefault(f"{chip.group()} {'slot' if got.form == 'PCIe' else 'board'}", []).append(item)
    both = [k for k in kinds if k.endswith("slot") and k.replace("slot", "board") in kinds]
    comm = [(v, e) for v, e in ctx.numbers("figure") if (e.subject.label or "").startswith("comm_time") and v > 0]
    rates = [(v, e) for v, e in ctx.numbers("figure") if (e.subject.label or "").startswith("busbw") and v > 0]
    comm = comm if len(comm) >= 2 else rates
    if not both or len(comm) < 2:
        return UNKNOWN
    low, high = lowest(comm), highest(comm)
    same = low[1].unit == high[1].unit and high[0] >= 2 * low[0]
    return Outcome(same, (kinds[both[0]][0], high[1], low[1]))


def containers_split_gpus(ctx: Context) -> Outcome:
    """Containers of one machine hold different GPUs, and ranks reach each other through memory or the network."""
    sets = {re.sub(r"[^\d,]", "", text_of(e)): e for e in ctx.of("container.gpus")}
    sets.pop("", None)
    slow = [e for e in ctx.of("nccl.transport") if re.match(r"SHM|NET/", text_of(e))]
    if len(sets) < 2 or not slow:
        return UNKNOWN
    members = [set(k.split(",")) for k in sets]
    apart = not members[0] & members[1]
    return Outcome(apart, (*list(sets.values())[:2], slow[0]))


# ---------------------------------------------------------------- scaling and sizes


def init_grows(ctx: Context) -> Outcome:
    """Setting up takes longer and longer as ranks are added."""
    grown = [r for r in ratios(ctx) if r.axis == "ngpus" and r.metric.startswith("init_time") and r.value >= 2.5]
    slow = [
        e for v, e in ctx.numbers("figure")
        if (e.subject.label or "").startswith("init_time") and v >= {"s": 20.0, "ms": 2e4}.get(e.unit or "", 1e9)
    ]  # fmt: skip
    return Outcome(True, (grown[0].evidence, slow[-1])) if grown and slow else UNKNOWN


_ASKS_SCALING = regex(
    r"scal(?:e|es|ing)|going from|linear|per.?gpu|efficien|\blost\b|\blose|worr|normal|expect"
    r"|\btimes (?:as fast|faster)|speed-?up|\d+ ?(?:to|->|→) ?\d+ ?(?:gpus?|卡)|线性|扩展|加速比|损失", re.IGNORECASE,
)  # fmt: skip


def scaling_holds(ctx: Context) -> Outcome:
    """From few GPUs to many at least nine tenths of each one's speed stay, and that was the question."""
    scaled = [(v, e) for v, e in ctx.numbers("compare.scaling") if v <= 1.2]
    if not scaled or _ASKS_SCALING.search(ctx.symptom) is None:
        return UNKNOWN
    outlier = [*ctx.numbers("spread.outlier"), *ctx.numbers("straggler.late")]
    if outlier or any(v > 0 for v, _ in ctx.numbers("nccl_tests.wrong")):
        return Outcome(False, tuple(e for _, e in scaled[:1]))
    return Outcome(all(v >= 0.9 for v, _ in scaled), tuple(e for _, e in scaled[:2]))


def scaling_poor(ctx: Context) -> Outcome:
    """Adding GPUs costs a quarter of each one's speed or more."""
    scaled = ctx.numbers("compare.scaling")
    return Outcome(any(v < 0.75 for v, _ in scaled), tuple(e for _, e in scaled[:2])) if scaled else UNKNOWN


_CALL = regex(r"all.?reduce|all.?gather|reduce.?scatter|collective|nccl|message|通信", re.IGNORECASE)


def many_small_calls(ctx: Context) -> Outcome:
    """Collectives that each take microseconds, thousands of them, are a fifth of the time or more."""
    counts = {e.subject.label: (v, e) for v, e in ctx.numbers("kernel.calls") if _CALL.search(e.subject.label or "")}
    for value, item in ctx.numbers("kernel.avg"):
        label = item.subject.label
        micro = value * {"ms": 1e3, "s": 1e6}.get(item.unit or "", 1.0)
        share = [v for v, e in ctx.numbers("kernel.share") if e.subject.label == label]
        if label in counts and counts[label][0] >= 5000 and micro <= 80 and any(s >= 0.2 for s in share):
            return Outcome(True, (item, counts[label][1]))
    return UNKNOWN


def small_payload(ctx: Context) -> Outcome:
    """The size of a collective is said, and it is a few KB."""
    sizes = [
        (v * (2**30 if e.unit == "GiB" else 1), e) for v, e in ctx.numbers("figure")
        if e.unit in ("B", "GiB")
        and _CALL.search(e.quote or "")
        and re.match(r"bytes|memory", e.subject.label or "")
    ]  # fmt: skip
    return Outcome(all(v <= 128 * 1024 for v, _ in sizes), tuple(e for _, e in sizes[:2])) if sizes else UNKNOWN


def counted_calls(ctx: Context) -> Outcome:
    """So many collectives a step or token, each of some microseconds."""
    return outcome(ctx.of("message.calls_each"))


def rank0_on_hosts(ctx: Context) -> Outcome:
    """Rank 0 announces itself on several hosts."""
    zero = {e.subject.host: e for e in ctx.of("nccl_tests.rank") if e.subject.rank == 0 and e.subject.host}
    return Outcome(True, tuple(zero.values())[:3]) if len(zero) > 1 else UNKNOWN


def nccl_twice(ctx: Context) -> Outcome:
    """Two copies of NCCL lie in different places, and both are in use."""
    copies: dict[str, Evidence] = {}
    for item in ctx.of("nccl.library"):
        copies.setdefault(text_of(item).rsplit("/", 1)[0], item)
    return Outcome(True, tuple(copies.values())[:3]) if len(copies) > 1 else UNKNOWN


def oversubscribed(ctx: Context) -> Outcome:
    """A switch has far fewer lanes up than down."""
    return outcome(e for v, e in ctx.numbers("net.oversubscription") if v >= 1.9)


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        nic_far_in_log, nic_far_by_position, slower_interface_used, slow_interface_carries,
        ranks_sit_in_different_collectives, faster_without_one, one_alone_is_slow, hca_list_leaves_near_out,
        gdr_on_some_hosts, port_below_siblings, memlock_little, memlock_differs, memlock_differs_and_fails,
    memlock_of_ucx, memlock_and_verbs_fail,
        memlock_unlimited_everywhere, slow_set_crosses, pcie_beside_sxm, containers_split_gpus, init_grows,
        scaling_holds, scaling_poor, many_small_calls, small_payload, counted_calls, rank0_on_hosts, nccl_twice,
        oversubscribed,
    )
}  # fmt: skip
