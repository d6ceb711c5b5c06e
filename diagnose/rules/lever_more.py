"""Named predicates over levers, continued: progress, overlap, neighbours on the CPU, a node left out, drivers, clocks.

As in `lever_tables`, what was turned is read in the words in which the worse row and the better one differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import lowest
from .lever_tables import Lever, Turn, turned, turns

_LEVERS: dict[str, tuple[Lever, ...]] = {
    "lever_progress": (
        Lever(
            worse=r"main loop|no progress|without|poll\w* (?:every|each|once|interval|at)|sleep|once (?:per|a|every)|prog\w*_thread ?= ?(?:false|0)|\boff\b|disabled|^\W*$|scheduler|per step",  # noqa: E501
            better=r"progress|prog_?thread|busy.?(?:poll|wait)|spin|\bevent|callback|get_new_notifs|notif",
        ),
        Lever(head=r"progress|prog_?thread", worse=r"off|no|false|0|disabled|without", better=r"on|yes|true|1|enabled"),
    ),
    "lever_async_transfer": (
        Lever(
            worse=r"^(?!.*(?:async|overlap|background|side stream))",
            better=r"(?<![a-z])async(?:hronous\w*)?(?![a-z])|\boverlap\w*|\bbackground\b|(?:side|second|own|separate) (?:thread|stream)",  # noqa: E501
            metric=r"time|tok|GB/s|req",
        ),
        Lever(
            worse=r"(?<!non-)(?<!non)\bblock(?:ing|s)?\b|(?<!a)\bsync|\bwait|serial|in turn|sequential|inline|one stream|同步|阻塞|串行",  # noqa: E501
            better=r"(?<![a-z])async(?:hronous\w*)?(?![a-z])|overlap|non-?blocking|pipelin|layer-?wise|background|prefetch|(?:separate|second|side|own|copy) (?:stream|thread)|at the end|deferred|异步|重叠|流水|逐层",  # noqa: E501
        ),
    ),
    "lever_binding": (
        Lever(
            worse=r"^(?!.*(?:cpunodebind|membind|physcpubind|numactl -[NmC]|-N ?\d|taskset)).*(?:no numactl|interleave|default|unbound|unpinned|no (?:bind|pin)|without|^\W*(?:no)?\W*$)",  # noqa: E501
            better=r"cpunodebind|membind|numactl -[NmC]|(?<!\w)-N ?\d|taskset|physcpubind",
            metric=r"time|tok|it/s|img|req|GB/s|samples|steps",
        ),
    ),
    "lever_cache": (
        Lever(
            worse=r"cache\w* ?[=:]? ?(?:false|off|no|none|0|disk)\b|no cach",
            better=r"cache\w* ?[=:]? ?(?:true|on|yes|ram|memory|1)\b|\bcached\b|cache in (?:ram|memory)",
            metric=r"^time|it/s|img|samples|step|epoch",
        ),
    ),
    "lever_disk": (
        Lever(
            head=r"\bfio\b|\bdd\b|disk|storage|randread|seq\w* read|read (?:bw|rate|speed)|iops",
            metric=r"epoch|step|load|time|it/s|img",
        ),
    ),
    "lever_other_load": (
        Lever(
            worse=r"\bstress(?:-ng)?\b|backup|(?<!torch.)(?<!torch_)\bcompil(?:e|ing|er)\b(?! a graph|_cache)|\bmake -j|\bzstd\b|\bgzip\b|\bcpu (?:burn|hog|load)|busy (?:host|cores|cpus?)|neighbou?r|other (?:jobs?|process(?:es)?|pods?|vms?) (?:on|running)|shared (?:cores|cpus?)|邻居|压测",  # noqa: E501
            better=r"\bnone\b|\bidle\b|\bquiet|isolat|own (?:cpuset|cores|cpus)|cpuset|dedicated|exclusive|stopped|paused|without|alone|finished|空闲|独占|停",  # noqa: E501
        ),
    ),
    "lever_gdr_module": (
        Lever(
            worse=r"^(?!.*(?<!no )(?<!without )(?:peer_?mem|gdr_?copy|gdrdrv|dma-?buf))",
            better=r"(?<!no )(?<!without )(?:peer[_-]?mem|gdr_?copy|gdrdrv|dma-?buf)",
        ),
    ),
    "lever_algorithm": (
        Lever(
            worse=r"default|\bauto\b|\bunset\b|tuner|as (?:is|shipped|found)|baseline|^\W*$",
            better=r"NCCL_(?:ALGO|PROTO)=|\b(?:ring|tree|nvls(?:tree)?|LL128|simple|collnet\w*|pat)\b",
            metric=r"GB/s|Gb/s|time|busbw|bandwidth",
        ),
        Lever(worse=r"\btuner\b", better=r"without|no tuner|^\W*$|default|\bunset\b"),
        Lever(worse=r"^(?!.*(?:without|no\b)).*\bwith\b", better=r"without (?:the )?tuner|no tuner"),
    ),
    "lever_clock": (
        Lever(
            head=r"^(?!.*(?:\bGPU power|power draw|draws?\b|consum|usage))",  # a reading; a cap is turned
            worse=r"\bon battery|battery|power (?:limit|cap)|\bcapped|\block(?:ed|ing)? (?:at|to|clock)|-lgc\b|-pl\b|\beco\b|quiet (?:mode|bios)|low.?power|\d\d\d? ?W\b|dust|clogged|省电|锁频|功耗墙|电池",  # noqa: E501
            better=r"charger|on AC|mains|plugged|\bdefault|unlock|uncapped|-rgc\b|reset|\bmax(?:imum)?\b|performance|no (?:limit|cap)|\d\d\d ?W\b|clean(?:ed)?|new fan|repast|解锁|默认|插电",  # noqa: E501
            metric=r"^(?!.*(?:clock|power))",
        ),
        Lever(worse=r"battery|电池", better=r"charger|on AC|mains|plugged|插电|电源"),
    ),
}


_LOOKS = regex(r"poll|tick|check[_ ]?(?:interval|period)|sleep|interval|scan", re.I)
_NUMBER = regex(r"^\W*(\d+(?:\.\d+)?)")


def looked_more_often(ctx: Context) -> Outcome:
    """The more often somebody looks for completion, the shorter the transfer seems."""
    for turn in turns(ctx):
        worse, better = _NUMBER.match(turn.worse), _NUMBER.match(turn.better)
        late = re.search(r"p50|p99|ms|time|latency|hand|ttft", turn.metric, re.I)
        if _LOOKS.search(turn.head) and worse and better and late and float(worse[1]) >= 2 * float(better[1]):
            return read.yes(turn.evidence)
    return UNKNOWN


_OTHERS = regex(
    r"\b(?:other|co-?located|neighbou?r\w*|foreign)\b.{0,16}(?:pods?|jobs?|process\w*|tenants?|containers?|vms?|load)",
    re.I,
)


def more_neighbours_slower(ctx: Context) -> Outcome:
    """With other pods that use the CPUs beside it, it is slower the more there are."""
    for turn in turns(ctx):
        worse, better = _NUMBER.match(turn.worse), _NUMBER.match(turn.better)
        named = re.search(r"\bcpu", f"{turn.head} {turn.worse} {turn.evidence.quote}", re.I)
        if _OTHERS.search(turn.head) and named and worse and better and float(worse[1]) > float(better[1]):
            return read.yes(turn.evidence)
    return UNKNOWN


_SPARE = regex(r"replac\w*|swapp\w*|exchang\w*|remov\w*|drain\w*|cordon\w*|换|替换|下线", re.I)


def spare_node_is_faster(ctx: Context) -> Outcome:
    """With one node replaced or taken out the same job is faster."""
    for value, item in ctx.numbers("rerun.gain"):
        said = item.subject.label or ""
        if value >= 1.15 and _SPARE.search(said) and _NODE.search(said):
            return read.yes(item)
    return UNKNOWN


def progress_is_no_lever(ctx: Context) -> Outcome:
    """With a progress thread the transfer takes as long as without."""
    found = ctx.of("compare.same", {"label": r"(?i)prog\w*[ _]?thread|progress"})
    apart = ctx.of("compare.ratio", {"label": r"(?i)prog\w*[ _]?thread|progress"})
    far = any(isinstance(e.value, (int, float)) and e.value >= 1.25 for e in apart)
    return read.yes(found[0]) if found and not far else UNKNOWN


_COPIES = regex(r"bandwidthtest|nvbandwidth|memcpy|h2d|d2h|stream|cudaMemcpy", re.I)
_PLACED = regex(r"taskset|numactl|cpunodebind|membind|--cpu", re.I)


def bound_copies_differ(ctx: Context) -> Outcome:
    """One test of copies, bound to two places: one is far slower."""
    for turn in turns(ctx):
        said = f"{turn.head} {turn.worse} {turn.better} {turn.evidence.quote}"
        cores = all(re.fullmatch(r"[\d,-]+", side.strip()) for side in (turn.worse, turn.better))
        placed = _PLACED.search(said) is not None or (cores and bool(ctx.of("host.cpu.allowed")))
        if turn.head.startswith("command ") and _COPIES.search(said) and placed:
            return read.yes(turn.evidence)
    return UNKNOWN


_OUT = regex(r"\b(?:without|except|excluding|exclude[sd]?|minus|w/o|no|drained|cordoned|replac\w+)\b|去掉|除", re.I)
_NODE = regex(r"\b(?!step|bs|tp|dp|pp|run|gen|v)[a-z][a-z-]*[-_]?\d{1,4}\b|\b(?:rank|gpu|node|host) ?\d{1,4}\b", re.I)


def _left_out(turn: Turn) -> tuple[str, str]:
    """The parts that the worse and the better row leave out, or ""."""

    def part(text: str) -> str:
        said = _OUT.search(text)
        named = _NODE.search(text, said.end()) if said else None
        return named.group().lower() if named else ""

    return part(turn.worse), part(turn.better)


def leaving_one_out_matters(ctx: Context) -> Outcome:
    """Without one node or rank the whole is faster, and without another it is as slow as with all."""
    for turn in turns(ctx, 1.15):
        worse, better = _left_out(turn)
        if worse and better and worse != better:
            return read.yes(turn.evidence)
    return UNKNOWN


_UCX = regex(r"\bucx\b|\bucx[_-]|libuc[ptsx]|hpc-?x", re.I)
_RELEASE = regex(r"(?<![\d.])v?(1\.\d{1,2}(?:\.\d+)?)(?![\d.]*\d)")


def _releases(turn: Turn) -> tuple[str, str]:
    found = [_RELEASE.search(side) for side in (turn.worse, turn.better)]
    first, second = (hit[1] if hit else "" for hit in found)
    return first, second


def _ucx_spoken_of(ctx: Context, turn: Turn) -> bool:
    beside = (turn.head, turn.worse, turn.better, turn.evidence.quote or "", ctx.symptom)
    return any(_UCX.search(text) for text in beside)


def ucx_release_decides(ctx: Context) -> Outcome:
    """The same work is that much slower with one release of UCX or of the package that holds it."""
    for turn in turns(ctx):
        worse, better = _releases(turn)
        both = all(_UCX.search(side) for side in (turn.worse, turn.better)) or _UCX.search(turn.head)
        if worse and better and worse != better and both:
            return read.yes(turn.evidence)
    return UNKNOWN


def ucx_release_fails(ctx: Context) -> Outcome:
    """Runs fail, hang or are wrong with one release of UCX and not with another."""
    for turn in turns(ctx):
        worse, better = _releases(turn)
        if turn.metric == "runs" and worse and better and worse != better and _ucx_spoken_of(ctx, turn):
            return read.yes(turn.evidence)
    return UNKNOWN


_MOVES = regex(r"\bucx|\bucp_|\bmpi|osu_|\bnixl\b|perftest", re.I)


def lever_gdr_ucx(ctx: Context) -> Outcome:
    """The module or library for direct access was the lever, and UCX or MPI moves the data."""
    found = _RULE["lever_gdr_module"](ctx)
    said = [ctx.symptom, *(e.quote or "" for e in found.used), *(e.subject.label or "" for e in found.used)]
    return found if found.holds and _MOVES.search(" ".join(said)) else UNKNOWN


def lever_gdr_nccl(ctx: Context) -> Outcome:
    """The module or library for direct access was the lever, and NCCL moves the data."""
    found = _RULE["lever_gdr_module"](ctx)
    said: list[Evidence] = [*found.used, *ctx.of("nccl.*")[:1], *ctx.of("nccl_tests.*")[:1]]
    text = " ".join([ctx.symptom, *(f"{e.quote} {e.subject.label} {e.signal}" for e in said)])
    named = re.search(r"nccl|all_?-?reduce|all_?-?gather|busbw", text, re.I) and not _MOVES.search(text)
    return found if found.holds and named else UNKNOWN


_RDMA = regex(r"\bRDMA\b|\bRoCE|infiniband|\bIB\b|\bEFA\b|\b[HN]DR\b|\bEDR\b|ConnectX|mlx5", re.I)


def socket_threads_though_rdma(ctx: Context) -> Outcome:
    """A profile shows NCCL's socket threads at work where an RDMA network is spoken of or listed."""
    seen = ctx.of("nccl.mark.socket_thread")
    listed = [*ctx.of("rdma.device"), *ctx.of("rdma.port"), *ctx.of("topo.gpu_nic")]
    return read.yes(*seen[:1], *listed[:1]) if seen and (listed or _RDMA.search(ctx.symptom)) else UNKNOWN


_VERBS = regex(r"^(?:ib|hsn)", re.I)
_PLAIN = regex(r"^(?:bond|eno|em\d|mgmt|oob|stor|br|docker)", re.I)


def lane_on_plain_port(ctx: Context) -> Outcome:
    """The lane is on the port of a bond or of an onboard interface while ports of InfiniBand interfaces are listed."""
    by_nic = {e.subject.nic: e for e in [*ctx.of("rdma.port.netdev"), *ctx.of("rdma.port.listed")] if e.subject.nic}
    wide = [e for e in by_nic.values() if _VERBS.match(str(e.value))]
    for lane in ctx.of("ucx.lane"):
        hit = re.search(r"/([\w-]+):\d", str(lane.value))
        port = by_nic.get(hit[1]) if hit else None
        if port is not None and _PLAIN.match(str(port.value)) and wide:
            return read.yes(lane, port, wide[0])
    return UNKNOWN


def first_epoch_waits(ctx: Context) -> Outcome:
    """The first epoch gives much of its time to data and a later one hardly any: memory holds what storage gave once."""  # noqa: E501
    shares: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("epoch.data_share"):
        shares.setdefault(int(item.subject.label or 0), (value, item))
    if len(shares) < 2 or min(shares) > 1:
        return UNKNOWN
    first = shares.pop(min(shares))
    later = lowest(shares.values())
    return Outcome(first[0] >= 0.35 and later[0] <= 0.1, (first[1], later[1]))


def gdr_on_some_ranks(ctx: Context) -> Outcome:
    """Ranks in the same place on their machines send through the same adapter, some with GDRDMA and some without."""
    seen: dict[tuple[int, str], dict[bool, Evidence]] = {}
    for item in ctx.of("nccl.transport"):
        hit = re.match(r"NET/(?:IB|OFI)/(\d+)(?:\(\d+\))?(/GDRDMA)?", str(item.value))
        if hit is not None and item.subject.rank is not None:
            seen.setdefault((item.subject.rank % 8, hit[1]), {})[hit[2] is not None] = item
    both = next((s for s in seen.values() if len(s) == 2), None)
    return read.yes(both[False], both[True]) if both else UNKNOWN


def streams_though_rdma_rests(ctx: Context) -> Outcome:
    """TCP connections carried gigabytes while the RDMA ports counted nothing."""
    heavy = [e for v, e in ctx.numbers("net.tcp.sent") if v >= 5e9]
    still = ctx.of("rdma.mark.port_rests") or [
        e for v, e in ctx.numbers("counter.delta", {"label": "port_xmit_data"}) if v == 0
    ]
    return read.yes(heavy[0], still[0]) if heavy and still else UNKNOWN


_BYTES = regex(r"^(?:\w+ )?(\d+) ?B?(?: out-of-place)?$")


def dip_in_the_sweep(ctx: Context) -> Outcome:
    """Bus bandwidth falls at two neighbouring sizes to less than two thirds of a smaller one, and then exceeds it."""
    rows: dict[float, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("nccl_tests.busbw"):
        hit = _BYTES.match(item.subject.label or "")
        if hit is not None:
            rows.setdefault(float(hit[1]), (value, item))
    order = [(size, *rows[size]) for size in sorted(rows)]
    for k in range(1, len(order) - 2):
        before = max(order[:k], key=lambda r: r[1])
        low = order[k : k + 2]
        later = max(order[k + 2 :], key=lambda r: r[1])
        if order[k][0] >= 1 << 18 and all(r[1] <= 0.7 * before[1] for r in low) and later[1] >= 1.2 * before[1]:
            return read.yes(low[0][2], before[2], later[2])
    return UNKNOWN


def lane_is_another_port(ctx: Context) -> Outcome:
    """The ports that lanes name are none of the slow ones: what is compared are rates of ports that are not used."""
    used = {re.sub(r"^[^/]*/|:\d+$", "", str(e.value)) for e in ctx.of("ucx.lane")}
    slow = [t for t in turns(ctx) if t.head == "nic" or re.match(r"Gb/s|bandwidth", t.metric)]
    named = [t for t in slow if re.fullmatch(r"\W*\w+\W*", t.worse) and t.worse.strip(" :") in used]
    ports = [t for t in slow if re.match(r"\W*(?:mlx|bnxt|ib|eth|en)\w+\W*$", t.worse)]
    return read.yes(*ctx.of("ucx.lane")[:1], ports[0].evidence) if used and ports and not named else UNKNOWN


_RULE = {name: turned(name, levers, 1.25) for name, levers in _LEVERS.items()}
RULES: dict[str, Callable[[Context], Outcome]] = {
    **{name: rule for name, rule in _RULE.items() if name != "lever_gdr_module"},
    **{
        rule.__name__: rule
        for rule in (
            progress_is_no_lever,
            looked_more_often,
            more_neighbours_slower,
            spare_node_is_faster,
            bound_copies_differ,
            ucx_release_decides,
            leaving_one_out_matters,
            ucx_release_fails,
            lever_gdr_ucx,
            lever_gdr_nccl,
            socket_threads_though_rdma,
            dip_in_the_sweep,
            lane_on_plain_port,
            streams_though_rdma_rests,
            gdr_on_some_ranks,
            first_epoch_waits,
            lane_is_another_port,
        )
    },
}
