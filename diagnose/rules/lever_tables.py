"""Named predicates over levers: what was turned, in the words of the table, and what made it better.

Each names the head of the column, the worse setting and the better one; the outcome is clearly apart in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, once
from . import serving_read as read
from .comparison import ratios


@dataclass(frozen=True, slots=True)
class Turn:
    """One setting against a better one; `metric` is the head of the outcome."""

    head: str
    worse: str
    better: str
    metric: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Lever:
    """What the head, the worse and the better setting say; a part that is empty may say anything."""

    head: str = ""
    worse: str = ""
    better: str = ""
    metric: str = ""

    def fits(self, turn: Turn) -> bool:
        """Do all the parts fit?"""
        parts = (self.head, turn.head), (self.worse, turn.worse), (self.better, turn.better), (self.metric, turn.metric)
        return all(not pattern or re.search(pattern, text, re.I) is not None for pattern, text in parts)


@once
def _rows(ctx: Context) -> list[Turn]:
    labels = [((item.subject.label or "").split("|"), item) for item in ctx.of("lever.row")]
    return [Turn(p[0], p[1], p[2], p[3], item) for p, item in labels if len(p) == 4]


@once
def _compared(ctx: Context) -> list[tuple[float, Turn]]:
    return [
        (ratio.value, Turn(ratio.axis, ratio.worse, ratio.better, ratio.metric, ratio.evidence))
        for ratio in ratios(ctx) if not re.match("count|bytes|fraction|memory", ratio.metric)
    ]  # fmt: skip


def turns(ctx: Context, least: float = 1.3) -> Iterator[Turn]:
    """Rows of tables and of commands, then comparisons of the generic reader (whose head is the axis)."""
    yield from _rows(ctx)
    yield from (turn for ratio, turn in _compared(ctx) if ratio >= least)


_NONE = r"^\W*(?:-|–|—|unset|none|not set|default|no|off|n/a|empty|without.*|\(none\)|\(unset\)|没有|不设|无|默认)?\W*$"

_LEVERS: dict[str, tuple[Lever, ...]] = {
    # --- collectives
    "lever_socket_path": (
        Lever(
            worse=r"NET/Socket|network Socket|^socket$|\bTCP sockets?\b",
            better=r"NET/IB|network IB|NET/OFI|AWS Libfabric|\bRDMA\b|\bEFA\b",
        ),
    ),
    "lever_container_flags": (
        Lever(
            better=r"--device[= ]\S*infiniband|/dev/infiniband|IPC_LOCK|--privileged|hostNetwork: ?true|--net(?:work)?[= ]host|rdma/\w+"  # noqa: E501
        ),
        Lever(
            head=r"layout|container|flag|docker|podman|pod",
            worse=r"\d+ (?:containers|pods).*(?:1 GPU|one GPU)|no --ipc",
            better=r"--ipc[= ]host|\b(?:1|one) (?:container|pod)",
        ),
    ),
    "lever_shm": (
        Lever(
            worse=r"^(?!.*(?:shm-size|--ipc))",
            better=r"shm[-_]?size|--ipc[= ]host|medium: ?Memory|tmpfs.*/dev/shm",
            metric=r"outcome|result|starts?|works|status|NCCL|job|run",
        ),
        Lever(head=r"\bshm", worse=r"\b(?:64 ?M|64 ?MiB|32 ?M)", better=r"\bG|[1-9]\d{2,}"),
    ),
    "lever_memlock": (
        Lever(head=r"ulimit -l|memlock|locked mem", worse=r"^\W*\d{1,8}\b", better=r"unlimited|infinity|-1|\d{7,}"),
    ),
    "lever_sockets": (
        Lever(
            head=r"sockets?|numa|cpus? (?:touched|used)",
            worse=r"both|two|cross|^2\b|0 ?[+,&] ?1|different|两",
            better=r"^one|^1\b|same|single|^0$|^1$|单",
        ),
        Lever(head=r"topo|path|link", worse=r"^\W*SYS\b", better=r"^\W*(?:PIX|PXB|PHB|NODE)\b"),
    ),
    "lever_nic_slot": (
        Lever(
            head=r"(?:gpu.{0,8}nic|nic.{0,8}gpu|hca|mlx).*|topo.*nic",
            worse=r"\b(?:SYS|NODE|PHB)\b",
            better=r"\b(?:PIX|PXB)\b",
        ),
        Lever(
            head=r"(?:nic|hca|adapter|card).{0,8}(?:slot|socket|numa|root)",
            worse=r"cpu ?1|far|other|numa ?1|remote",
            better=r"cpu ?0|near|same|numa ?0|local|switch",
        ),
    ),
    "lever_gid": (
        Lever(
            head=r"\bgid\b|GID_INDEX",
            better=r"^\W*\d",
            metric=r"ib_\w+|nccl|busbw|result|outcome|works|bandwidth|error",
        ),
        Lever(worse=r"RoCE ?v1|fe80:", better=r"RoCE ?v2|::ffff:"),
    ),
    "lever_hca": (
        Lever(
            head=r"NCCL_IB_HCA|SOCKET_IFNAME|^nic$",
            worse=r"unset|default|bond|mgmt|stor|docker|eno|br-|\(none\)|^-$",
            better=r"mlx5_\d|ens|ib\d|eth\d|bond\d",
        ),
    ),
    "lever_nccl_variable": (
        Lever(
            head=r"NCCL_(?:P2P|SHM|IB|NET|CUMEM|NVLS|COLLNET|BUFFSIZE|NTHREADS|M(?:AX|IN)_\w+|LL|CROSS|PXN|NCHANNELS)\w*",
            worse=r"^\W*(?:\w+=)?[\w.,]+\W*$",
            better=_NONE,
        ),
        Lever(worse=r"NCCL_(?:P2P|SHM|IB|NET)_(?:DISABLE=1|LEVEL=(?:LOC|0))|NCCL_NET=Socket", better=_NONE),
    ),
    "lever_nccl_version": (Lever(head=r"nccl", worse=r"^\W*v?2\.\d+\.\d+", better=r"^\W*v?2\.\d+\.\d+"),),
    # --- UCX
    "lever_ucx_version": (
        Lever(head=r"^\W*(?:ucx|hpc-?x|libucx)\b(?!_)", worse=r"^\W*v?[12]\.\d+", better=r"^\W*v?[12]\.\d+"),
    ),
    "lever_numa_commands": (
        Lever(
            head=r"^command ",
            worse=r"(?:-N|-m|cpunodebind|membind|taskset|NUMA)",
            better=r"(?:-N|-m|cpunodebind|membind|taskset|NUMA)",
        ),
    ),
    "lever_net_devices": (
        Lever(
            head=r"UCX_NET_DEVICES|\blane\b|hca|device",
            worse=r"unset|default|\(.*\)|bond|eth|eno|stor|mgmt|all",
            better=r"mlx5_\d+(?::1)?$",
        ),
        Lever(head=r"^command (?:osu|ucx|nixl)", worse=r"^(?!.*UCX_TLS)", better=r"UCX_NET_DEVICES=mlx5"),
    ),
    "lever_rndv": (
        Lever(head=r"RNDV_?(?:THRESH|SCHEME)|rendezvous"),
        Lever(worse=r"UCX_RNDV_THRESH="),
        Lever(better=r"UCX_RNDV_THRESH="),
    ),
    "lever_cuda_build": (
        Lever(worse=r"--without-cuda|without cuda|distro|apt|conda|stock", better=r"--with-cuda|with cuda|\+cuda"),
        Lever(head=r"grep.*cuda|cuda_?copy|cuda transports|cuda_ipc", worse=r"^0$|none|no", better=r"^[1-9]\d*$|yes"),
    ),
    "lever_fresh_buffers": (
        Lever(
            worse=r"\bnew\b|fresh|malloc|each|every iteration|different|realloc|not reused|unregistered|cold|每次",
            better=r"same|reuse|pool|once|persistent|pre-?registered|cached|warm|复用",
        ),
    ),
    "lever_gdr_buffers": (Lever(worse=r"\bD D\b|\bcuda\b|-m cuda|device", better=r"\bH H\b|\bhost\b|-m host"),),
    # --- serving
    "lever_router": (
        Lever(
            worse=r"round.?robin|random|least.?(?:conn|load|request)|power.?of.?two|轮询|随机",
            better=r"prefix|cache.?aware|sticky|session|affinity|consistent|kv.?(?:aware|router)|hash|亲和|粘",
            metric=r"^(?!.*(?:tpot|\bitl\b|inter.?token|hit_rate|cached))",
        ),
    ),
    "lever_preempted": (Lever(head=r"preempt|recompute|retract|swap(?:ped|s)?\b|抢占", worse=r"^[1-9]\d+"),),
}


def turned(name: str, levers: tuple[Lever, ...], least: float = 1.3) -> Callable[[Context], Outcome]:
    """The rule of this name: one of the levers was turned, and what it moved differs by `least` or more."""

    def rule(ctx: Context) -> Outcome:
        found = [t.evidence for t in turns(ctx, least) if any(lever.fits(t) for lever in levers)]
        return read.yes(*found[:2]) if found else UNKNOWN

    rule.__name__, rule.__doc__ = name, f"What was turned is `{name.removeprefix('lever_')}`, and it decides."
    return rule


_ITEM = regex(r"[\w/]+")


def lever_tls(ctx: Context) -> Outcome:
    """The worse list of transports lacks one of the better list, or stands where there is none."""
    for turn in turns(ctx):
        head = re.search(r"UCX_TLS", f"{turn.head} {turn.worse} {turn.better}")
        if head is None:
            continue
        worse, better = (re.sub(r"^.*UCX_TLS=|\s.*$", "", side) for side in (turn.worse, turn.better))
        listed = set(_ITEM.findall(worse.lower()))
        wider = set(_ITEM.findall(better.lower())) - {"unset", "default", "all", "none"}
        if listed and not listed & {"all", "unset", "default", "none"} and (not wider or wider - listed):
            return read.yes(turn.evidence)
    return UNKNOWN


def lever_nvlinks(ctx: Context) -> Outcome:
    """The worse machine has fewer NVLink links active than the better one of the same kind."""
    for turn in turns(ctx):
        if not re.search(r"links?\b", turn.head, re.I) or not re.search(r"nv", turn.head, re.I):
            continue
        counts = [re.match(r"\W*(\d+)(?: ?(?:of|/) ?(\d+))?", side) for side in (turn.worse, turn.better)]
        if counts[0] is None or counts[1] is None:
            continue
        few, many = int(counts[0][1]), int(counts[1][1])
        of = counts[0][2] or counts[1][1]
        if few < many and few < int(of) and (counts[0][2] or few > 0):
            return read.yes(turn.evidence)
    return UNKNOWN


_RATE = regex(r"^\W*(\d+(?:\.\d+)?)")


_ASKED = regex(r"req|\brps\b|\bqps\b|offered|arriv|sampl|frame|\b(?:hit|accept\w*|error|loss|drop) rate|请求", re.I)


def lever_port_rate(ctx: Context) -> Outcome:
    """One node's port runs at a part of its peers' rate, and it is slower by about as much."""
    for turn in turns(ctx):
        ported = re.search(r"\brate\b|ibstat|link speed|port speed|width|端口速率", turn.head, re.I)
        if not ported or _ASKED.search(turn.head):
            continue
        low, high = _RATE.match(turn.worse), _RATE.match(turn.better)
        rates = sorted(float(hit[1]) for hit in (low, high) if hit)
        if len(rates) == 2 and 0 < 1.9 * rates[0] <= rates[1]:
            return read.yes(turn.evidence)
    return UNKNOWN


_TIMED = regex(r"\((?:ms|us|s)\)|\b(?:ms|us|time|latency|seconds)\b|耗时|时间", re.I)  # a time is no number of calls
_COLLECTIVES = regex(r"all_?-?(?:reduce|gather)\w*|collectives|nccl calls|kernels?/step|buckets", re.I)


def lever_calls(ctx: Context) -> Outcome:
    """The better setting issues a fraction of the collectives for the same data, and they take far less time."""
    for turn in turns(ctx):
        many, few = _RATE.match(turn.worse.replace(",", "")), _RATE.match(turn.better.replace(",", ""))
        timed = re.search(r"comm|all_?-?reduce|nccl|time|ms|step", turn.metric, re.I)
        if (
            _COLLECTIVES.search(turn.head)
            and not _TIMED.search(turn.head)
            and many
            and few
            and timed
            and float(many[1]) >= 5 * float(few[1]) >= 5
        ):
            return read.yes(turn.evidence)
    return UNKNOWN


def hosts_have_two_versions(ctx: Context) -> Outcome:
    """torch reports another NCCL on one host than on another."""
    by_host = {e.subject.host: e for e in ctx.of("nccl.version.torch") if e.subject.host}
    values = {str(e.value): e for e in by_host.values()}
    return read.yes(*list(values.values())[:2]) if len(values) > 1 else UNKNOWN


def prefill_alone(ctx: Context) -> Outcome:
    """Large chunks of prompt follow each other while nothing else runs or waits."""
    chunks = [(v, e) for v, e in ctx.numbers("serving.prefill_chunk", {"label": "^(?:repeated|held)$"}) if v >= 2048]
    busy = read.top(ctx, "serving.running_span", "^max$")
    waiting = read.waiting(ctx)
    if not chunks or busy is None or busy[0] > 0 or (waiting is not None and waiting[0] > 0):
        return UNKNOWN
    return read.yes(chunks[0][1], busy[1])


_UCX = regex(r"\bucx|\bucp_|\buct_|\bib_md|\bmpi|\bpml\b|osu_|mem_reg failed", re.I)


def lever_memlock_ucx(ctx: Context) -> Outcome:
    """The limit on locked memory decides, and it is UCX or MPI that fails."""
    got = RULES["lever_memlock"](ctx)
    said = " ".join([ctx.symptom, *(f"{e.quote} {e.subject.label}" for e in got.used)])
    return Outcome(_UCX.search(said) is not None, got.used) if got.holds else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    **{name: turned(name, levers) for name, levers in _LEVERS.items()},
    **{
        rule.__name__: rule
        for rule in (
            lever_tls,
            lever_nvlinks,
            lever_port_rate,
            lever_memlock_ucx,
            lever_calls,
            prefill_alone,
            hosts_have_two_versions,
        )
    },
}
