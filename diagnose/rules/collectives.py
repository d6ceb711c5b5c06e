"""Named predicates of the collectives family: what NCCL was told, what it then did, and how fast that is."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest, outcome
from .collectives_links import LINKS
from .collectives_more import MORE, varied
from .nccl_facts import COLLECTIVE_QUESTIONS, env, one_node, overrides, rdma_wanted, several_nodes, text_of
from .releases import one_after_the_other

_TRIED = regex(r"\b(?:with|after|adding|using)\s+(?:export )?NCCL_\w+=|(?:加上?|设置)\s*NCCL_", re.IGNORECASE)


def _not_tried_out(ctx: Context, items: list[Evidence]) -> list[Evidence]:
    """Without variables that the text itself varies or offers as the cure: they are somebody's experiment."""
    values: dict[str, set[str]] = {}
    for item in ctx.of("env.var"):
        values.setdefault((item.subject.label or "").upper(), set()).add(text_of(item))
    cured = bool(ctx.of("nccl.mark.p2p_off_cures"))
    axes = {(e.subject.label or "").split("|")[0] for e in ctx.of("compare.ratio")}
    kept = []
    for item in items:
        name = (item.subject.label or "").upper()
        trial = len(values[name]) > 1 or (cured and name == "NCCL_P2P_DISABLE")
        trial |= "algorithm" in axes and name in ("NCCL_ALGO", "NCCL_PROTO")
        trial |= varied(ctx, item)
        trial |= name in ("NCCL_TOPO_FILE", "NCCL_GRAPH_FILE") and _TRIED.search(item.quote or "") is not None
        if not trial:
            kept.append(item)
    return kept


def env_forbids(ctx: Context) -> Outcome:
    """A variable switches a fast path off or forces a slow one, and a collective is being asked about."""
    got = _not_tried_out(ctx, overrides(ctx))
    if not got or not ctx.asks(*COLLECTIVE_QUESTIONS):
        return UNKNOWN
    names = {(e.subject.label or "").upper() for e in got}
    # P2P off beside a comparison of runs with and without NVLink is the experiment's own switch.
    switched = any((e.subject.label or "").split("|")[0] in ("nvlink", "p2p") for e in ctx.of("compare.ratio"))
    if switched and names <= {"NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL"}:
        return UNKNOWN
    return Outcome(True, tuple(got[:6])) if _happened(ctx) else UNKNOWN


def env_stands(ctx: Context) -> Outcome:
    """A variable stands there that could slow a collective, and nothing shows what it did."""
    return outcome(_not_tried_out(ctx, overrides(ctx))[:6]) if ctx.asks(*COLLECTIVE_QUESTIONS) else UNKNOWN


def _happened(ctx: Context) -> bool:
    """Is anything here but settings and inventory: a time, a rate, a message? A figure in the question will do."""
    return bool(_SAID_PACE.search(ctx.symptom)) or any(
        not e.signal.startswith(_SETTINGS) and (e.signal != "figure" or e.unit in _PACE)
        for e in ctx.evidence
        if e.kind != "absent"
    )


_SETTINGS = (
    "env.var",
    "ucx.env",
    "serving.arg",
    "version",
    "gpu.name",
    "gpu.memory.total",
    "topo.",
    "model.",
    "container.",
    "net.adapter",
    "net.port_noted",
    "net.interface.",
    "movement.named_rate",
    "rdma.port.listed",
    "rdma.port.rate",
    "rdma.port.width",
)
_PACE = ("s", "ms", "us", "GB/s", "Gb/s", "tokens/s", "req/s", "TFLOP/s", "fraction")
_SAID_PACE = re.compile(r"\d\s*(?:[GMT]i?[Bb]/?(?:s|ps)|[mu]?s\b|%|x\b|tok|秒|毫秒|倍)", re.IGNORECASE)


def env_effect_seen(ctx: Context) -> Outcome:
    """The same log shows what the variable does: shared memory or sockets where P2P, RDMA or GDR would be."""
    names = {(e.subject.label or "").upper(): e for e in _not_tried_out(ctx, overrides(ctx))}
    slow = [e for e in ctx.of("nccl.transport") if re.match(r"SHM|NET/Socket", text_of(e))]
    used: list[Evidence] = []
    if names.keys() & {"NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE"} and slow:
        used = [*names.values(), *slow[:2]]
    sockets = [e for e in ctx.of("nccl.network") if text_of(e) == "Socket"]
    if names.keys() & {"NCCL_IB_DISABLE", "NCCL_NET", "NCCL_NET_PLUGIN"} and sockets:
        used = [*names.values(), *sockets[:1]]
    plain = [e for e in ctx.of("nccl.transport") if text_of(e).startswith("NET/") and "GDRDMA" not in text_of(e)]
    if "NCCL_NET_GDR_LEVEL" in names and plain:
        used = [*names.values(), *plain[:2]]
    forced = [e for e in ctx.of("nccl.algo") if re.search(r"/LL$|^TREE", text_of(e))]
    if names.keys() & {"NCCL_ALGO", "NCCL_PROTO"} and forced:
        used = [*names.values(), *forced[:2]]
    return outcome(used)


def env_effect_measured(ctx: Context) -> Outcome:
    """… and the collective itself was measured at less than half of what its path allows."""
    seen = env_effect_seen(ctx)
    low = [x for x in ctx.limits if x.ratio is not None and x.ratio < 0.5 and "busbw" in x.what]
    if not seen.holds or not low:
        return UNKNOWN
    return outcome([e for e in ctx.evidence if e.id in low[0].evidence][:2])


def p2p_off_cures(ctx: Context) -> Outcome:
    """The run goes well without peer access, and nothing shows that it goes well with it too."""
    cured = [
        *ctx.of("nccl.mark.p2p_off_cures"),
        *ctx.of("trial.helps", {"label": r"^NCCL_P2P_(DISABLE=1|LEVEL=(LOC|0))"}),
    ]
    if not cured or any(_WENT_WELL.search(e.quote or "") for e in ctx.evidence):
        return UNKNOWN
    return Outcome(True, tuple(cured[:2]))


# A run of the same test without any variable, that came to its end with a figure.
_WENT_WELL = re.compile(
    r"^(?!.*NCCL_)\W*(?:\./|\S*/)?\w+_perf\b.*\b(?:finish\w*|ok|works?|pass\w*|complete\w*)\W+[\d.]+ ?GB/s",
    re.IGNORECASE | re.MULTILINE,
)


def interface_named_and_missing(ctx: Context) -> Outcome:
    """NCCL_SOCKET_IFNAME (or its relatives) is set and nothing matches it."""
    named = [
        e
        for n in ("NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_HCA", "TP_SOCKET_IFNAME")
        for e in env(ctx, n)
    ]
    missing = [*ctx.of("nccl.mark.no_interface"), *ctx.of("nccl.mark.bad_family"), *ctx.of("nccl.mark.gloo_address")]
    return Outcome(True, (*missing[:2], *named[:2])) if named and missing else UNKNOWN


def ib_hca_named_and_missing(ctx: Context) -> Outcome:
    """NCCL_IB_HCA names devices and NCCL finds none, while verbs devices are listed elsewhere."""
    named, none = env(ctx, "NCCL_IB_HCA"), ctx.of("nccl.mark.ib_no_device")
    listed = [*ctx.of("rdma.device"), *ctx.of("rdma.port"), *ctx.of("rdma.state")]
    return Outcome(True, (*none[:1], *named[:1], *listed[:1])) if named and none and listed else UNKNOWN


def perhaps_many_nodes(ctx: Context) -> Outcome:
    """Nothing says that only one node takes part."""
    return Outcome(not one_node(ctx).holds)


SLOW_TCP = 2.0  # GB/s; RDMA ports that GPUs are given do more


def sockets_between_nodes(ctx: Context) -> Outcome:
    """NCCL uses its socket transport and several nodes take part."""
    plain = [e for e in ctx.of("nccl.transport") if text_of(e).startswith("NET/Socket")]
    sockets = [e for e in ctx.of("nccl.network") if text_of(e) == "Socket"]
    slow = [e for value, e in ctx.numbers("nccl_tests.busbw") if 0 < value < SLOW_TCP]
    if slow and not ctx.of("nccl.ib.devices") and not ctx.of("nccl.network"):
        sockets = [*ctx.of("nccl.socket.interfaces")[:1], slow[-1]]
    return _between_nodes(ctx, [*plain[:2], *sockets[:2]])


def sockets_listed(ctx: Context) -> Outcome:
    """NCCL lists interfaces for sockets and names no other network; old versions list them in any case."""
    if ctx.of("nccl.ib.devices") or ctx.of("nccl.network"):
        return UNKNOWN
    return _between_nodes(ctx, ctx.of("nccl.socket.interfaces")[:1])


def _between_nodes(ctx: Context, sockets: list[Evidence]) -> Outcome:
    """These signs of sockets, where several nodes take part."""
    if not sockets:
        return UNKNOWN
    nodes = several_nodes(ctx)
    if one_node(ctx).holds or nodes is None:
        return Outcome(False, tuple(sockets[:1]))
    return Outcome(True, (*sockets, nodes) if isinstance(nodes, Evidence) else tuple(sockets))


def sockets_though_rdma_wanted(ctx: Context) -> Outcome:
    """Sockets are used although RDMA was prepared, on several nodes or with the NICs named."""
    sockets = [e for e in [*ctx.of("nccl.network"), *ctx.of("nccl.transport")] if "Socket" in text_of(e)]
    wanted = rdma_wanted(ctx)
    if not sockets or not wanted.holds or one_node(ctx).holds:
        return UNKNOWN
    return Outcome(True, (*sockets[:2], *wanted.used[:2]))


def code_diverges(ctx: Context) -> Outcome:
    """Code that branches on the rank and calls collectives."""
    branch, call = ctx.of("nccl.mark.rank_branch"), ctx.of("nccl.mark.code_collective")
    return Outcome(True, (*branch[:1], *call[:1])) if branch and call else UNKNOWN


def stuck_after_init(ctx: Context) -> Outcome:
    """Every rank finished its initialisation and nothing followed."""
    done = ctx.of("nccl.init.complete")
    if not done or not ctx.asks("collective-hang") or ctx.of("nccl_tests.busbw") or ctx.of("nccl.warn"):
        return UNKNOWN
    return Outcome(True, tuple(done[:3]))


def versions_differ(ctx: Context) -> Outcome:
    """Two NCCL versions appear in what was given, as in a log of several hosts."""
    seen: dict[str, Evidence] = {}
    for item in ctx.of("version"):
        if (item.subject.label or "").lower() == "nccl":
            short = ".".join(re.findall(r"\d+", text_of(item))[:3])
            seen.setdefault(short, item)
    for item in ctx.of("nccl.version.torch"):
        seen.setdefault(".".join(re.findall(r"\d+", text_of(item))), item)
    if any((e.subject.label or "").split("|")[0] == "version" for e in ctx.of("compare.ratio")):
        return UNKNOWN
    if one_after_the_other(seen.values()):
        return UNKNOWN
    return Outcome(True, tuple(seen.values())[:3]) if len(seen) > 1 else UNKNOWN


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
    return outcome([*copies, *summaries, *ctx.of("nccl_tests.avg_busbw")[:2]])


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
    top = highest(sizes)
    return Outcome(True, (top[2], *(s[2] for s in sizes[:2])))


def average_quoted(ctx: Context) -> Outcome:
    """The average over all sizes is far below what the same table reaches."""
    average, peak = ctx.numbers("nccl_tests.avg_busbw"), ctx.numbers("nccl_tests.peak_busbw")
    if not average or not peak:
        return UNKNOWN
    asked = re.search(r"\baverage|\bavg|平均", ctx.symptom, re.IGNORECASE)
    if peak[0][0] < 40 and re.search(r"nvswitch|nvlink|sxm|hgx|dgx", ctx.symptom, re.IGNORECASE):
        return UNKNOWN  # a tenth of what NVLinks carry is no plateau
    return Outcome(bool(asked) and peak[0][0] > 2 * average[0][0], (average[0][1], peak[0][1]))


def low_latency_protocol_at_large_sizes(ctx: Context) -> Outcome:
    """LL carries large messages, which costs half the bandwidth."""
    bad = []
    for item in ctx.of("nccl.algo"):
        hit = re.search(r" (\d+) B$", item.subject.label or "")
        if hit and int(hit[1]) >= 32 << 20 and text_of(item).endswith("/LL"):
            bad.append(item)
    return outcome(bad[:2])


def one_channel(ctx: Context) -> Outcome:
    """Large messages use one or two channels."""
    few = [e for v, e in ctx.numbers("nccl.channels", {"label": "coll"}) if v <= 2]
    return outcome(few[:2])


def ranks_uneven(ctx: Context) -> Outcome:
    """The same operation takes one rank much longer than another."""
    by_size: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("nccl_tests.rank_time"):
        by_size.setdefault(item.subject.label or "", []).append((value, item))
    for group in by_size.values():
        low, high = lowest(group), highest(group)
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
            by_number.setdefault(number[1], {}).setdefault(text_of(item), item)
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
        low, high = lowest(by_rank.values()), highest(by_rank.values())
        return Outcome(True, (low[1], high[1]))
    return UNKNOWN


def init_is_slow(ctx: Context) -> Outcome:
    """Setting up the communicator takes long."""
    slow = [e for s in ("nccl.init.time", "nccl.mark.init_time") for v, e in ctx.numbers(s) if v >= 20]
    return outcome(slow[:2])


def init_slow_and_many_ranks(ctx: Context) -> Outcome:
    """Setting up takes long, and hundreds of ranks take part or the bootstrap is most of it."""
    slow = init_is_slow(ctx)
    many = [e for v, e in ctx.numbers("nccl.nranks") if v >= 256]
    boot = [e for v, e in ctx.numbers("nccl.init.bootstrap") if v >= 10]
    if not slow.holds or not (many or boot):
        return UNKNOWN
    return Outcome(True, (*slow.used, *many[:1], *boot[:1]))


def two_versions_logged(ctx: Context) -> Outcome:
    """Two ranks print different NCCL versions in their logs."""
    got = versions_differ(ctx)
    if not got.holds:
        return UNKNOWN
    return Outcome(all(re.search(r"NCCL version|nccl\.version\(\)", e.quote or "") for e in got.used), got.used)


def other_column_quoted(ctx: Context) -> Outcome:
    """The question quotes the table's algbw or its average, and busbw at the large sizes is far above it."""
    asked = [float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", ctx.symptom)]
    peak = ctx.numbers("nccl_tests.largest_busbw")
    if not asked or not peak or any(abs(a - peak[0][0]) < 0.02 * peak[0][0] for a in asked):
        return UNKNOWN
    for signal in ("nccl_tests.algbw", "nccl_tests.avg_busbw"):
        for value, item in ctx.numbers(signal):
            if value <= 1 or peak[0][0] <= 1.4 * value or not any(abs(a - value) < 0.015 * value for a in asked):
                continue
            own = [v for v, e in ctx.numbers("nccl_tests.busbw") if e.capture == item.capture]
            if signal.endswith("avg_busbw") or not own or max(own) > 1.3 * value:
                return Outcome(True, (item, peak[0][1]))
    return UNKNOWN


# Bus bandwidth at large sizes that a healthy machine reaches inside one node, GB/s, by GPU: the lower of the published
# floors (docs/limits.md) and ring rates, so that a machine above it needs no explanation.
_MESH = 105.0  # eight V100 with direct links only
_HEALTHY = (
    (regex(r"GB[23]00|\bB[23]00\b"), 550.0), (regex(r"H100 80GB HBM3|H100 SXM|\bH200\b|\bGH200"), 290.0),
    (regex(r"H800"), 120.0), (regex(r"A100-SXM|A100 SXM"), 185.0), (regex(r"A800-SXM"), 120.0),
    (regex(r"V100-SXM"), 105.0),
)  # fmt: skip


def healthy_collective(ctx: Context) -> Outcome:
    """The table reaches what this GPU's links allow, and no element is wrong."""
    peaks = ctx.numbers("nccl_tests.largest_busbw") or ctx.numbers("nccl_tests.peak_busbw")
    if re.search(r"hang|hung|stuck|freez|never (?:end|finish|return)|卡住|卡死|不动", ctx.symptom, re.IGNORECASE):
        return UNKNOWN
    if not peaks or any(v for v, _ in ctx.numbers("nccl_tests.wrong")):
        return UNKNOWN
    value, item = highest(peaks)
    cards = [*ctx.of("gpu.name"), *ctx.of("nccl.mark.board")]
    mesh = [e for e in ctx.of("topo.link") if text_of(e) in ("NV1", "NV2", "SYS", "NODE", "PHB")]
    if {"NV1", "NV2"} <= {text_of(e) for e in mesh} and value >= _MESH:
        return Outcome(True, (item, *mesh[:3]))
    for card in cards:
        for pattern, floor in _HEALTHY:
            if pattern.search(text_of(card)):
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
        env_forbids,
        env_effect_seen,
        interface_named_and_missing,
        ib_hca_named_and_missing,
        one_node,
        perhaps_many_nodes,
        sockets_between_nodes,
        sockets_listed,
        env_stands,
        p2p_off_cures,
        env_effect_measured,
        rdma_wanted,
        sockets_though_rdma_wanted,
        code_diverges,
        stuck_after_init,
        versions_differ,
        separate_runs,
        only_small_sizes,
        average_quoted,
        low_latency_protocol_at_large_sizes,
        one_channel,
        ranks_uneven,
        ranks_very_uneven,
        ranks_in_different_collectives,
        ranks_at_different_numbers,
        init_is_slow,
        init_slow_and_many_ranks,
        two_versions_logged,
        other_column_quoted,
        healthy_collective,
        healthy_limit,
        *LINKS,
        *MORE,
    )
}
