"""Named predicates over runs made again: what was changed, by its words, and traffic that takes the wrong interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, outcome
from .healthy import top_busbw
from .lever_tables import turns

_LEAST = 1.15
_MOST = 40.0  # a larger quotient sets two different things side by side

# What the words of the change name. The worse run is the one without it.
_LEVERS: dict[str, str] = {
    "rerun_algorithm": r"tuner|(?<![a-z])algo|\bring\b|\btree\b|(?<![a-z])nvls|(?<![a-z])proto|\bLL(?:128)?\b|\bsimple\b|collnet|nchannels|max_?ctas",  # noqa: E501
    "rerun_acs": r"\bACS\b|ECAP_ACS|setpci|iommu|vt-?d\b|pcie_acs|DMAR|redirect",
    "rerun_gdr": r"peer_?mem|nv_peer|dma-?buf|\bGDR\b|gpudirect",
    "rerun_binding": r"numactl|taskset|cpunodebind|membind|\bbind(?:ing)?\b|pinn(?:ed|ing) (?:to|the|each|on)|affinity|numa|local node|near(?:est)? (?:node|socket|cpu)|绑核|绑定|绑到",  # noqa: E501
    "rerun_mtu": r"\bMTU\b|jumbo|\b9000\b|\b9216\b",
    "rerun_roce": r"traffic class|(?<![a-z])TC\b|traffic_class|dscp|\bPFC\b|trust|lossless|no-?drop|GID_INDEX|\bgid\b|cma_roce_tos|ECN",  # noqa: E501
    "rerun_relaxed": r"relaxed.?order|PCI_WR_ORDERING|MaxReadReq|\bMRRS\b|max read request",
}
_VERSION = regex(r"\b(?:lib)?nccl\b[^\n]{0,24}?\d+\.\d+|\bNCCL_?VERSION", re.I)


def gains(ctx: Context) -> Iterator[tuple[float, str, Evidence]]:
    """How much better a changed run is, in what words, and what says so."""
    for value, item in ctx.numbers("rerun.gain"):
        if _LEAST <= value <= _MOST:
            yield value, item.subject.label or "", item
    yield from _beside_table(ctx)


def _beside_table(ctx: Context) -> Iterator[tuple[float, str, Evidence]]:
    """A changed run's bus bandwidth in a note beside the table of the run before."""
    table = top_busbw(ctx)
    if table is None or table[0] <= 0:
        return
    for value, item in ctx.numbers("rerun.figure"):
        unit, _, words = (item.subject.label or "").partition("|")
        if unit.lower() not in ("", "gb/s") or item.quote == table[1].quote:
            continue
        ratio = value / table[0]
        # A bare number may be anything; one of the same size as the table's is its like.
        if _LEAST <= ratio <= (_MOST if unit else 4.0):
            yield ratio, words, item


def faster_rerun(ctx: Context) -> Outcome:
    """The same run was clearly faster once something was changed: what was measured first is no ceiling."""
    return outcome([e for _, _, e in gains(ctx)][:2])


def _gained(ctx: Context, words: re.Pattern[str]) -> Outcome:
    """The run is faster after a change that is told in such words."""
    return outcome([e for _, said, e in gains(ctx) if words.search(said)][:2])


def _lever(name: str, words: re.Pattern[str]) -> Callable[[Context], Outcome]:
    def rule(ctx: Context) -> Outcome:
        return _gained(ctx, words)

    rule.__name__, rule.__doc__ = name, f"The run is faster once {name.removeprefix('rerun_')} is changed."
    return rule


def rerun_version(ctx: Context) -> Outcome:
    """The run is faster with another release of NCCL in its place."""
    return _gained(ctx, _VERSION)


def rerun_environment(ctx: Context) -> Outcome:
    """The run is faster once a variable of NCCL that was set is taken away."""
    taken = regex(
        r"(?:without|unset\w*|remov\w*|去掉|不设)[^\n]{0,30}NCCL_\w+|NCCL_\w+[^\n]{0,20}(?:unset|removed|去掉)", re.I
    )
    return _gained(ctx, taken)


_CONGESTED = regex(
    r"pause|\bdrops?\b|dropped|discard|\becn\b|\bcnps?\b|out.of.(?:order|seq)|retrans|uplink|xmit_?wait|buffer (?:use|occup)|queue depth"  # noqa: E501
    r"|(?:switch|port|eth\d|swp\d|link)\S*[^|]{0,12}\b(?:out|tx|util|load|busy)|丢包|拥塞|暂停帧|上联|利用率",
    re.I,
)
_FIRST = regex(r"\d[\d,]*(?:\.\d+)?")


def network_moves_with_it(ctx: Context) -> Outcome:
    """In the slow rows the network's own readings are a multiple of what they are in the fast ones."""
    found: dict[str, Evidence] = {}
    for turn in turns(ctx):
        worse, better = _FIRST.search(turn.worse), _FIRST.search(turn.better)
        if not _CONGESTED.search(turn.head) or _CONGESTED.search(turn.metric) or worse is None or better is None:
            continue
        high, low = (float(hit.group().replace(",", "")) for hit in (worse, better))
        if high > 0 and high >= 2 * low:
            found[turn.head] = turn.evidence
    return Outcome(True, tuple({e.id: e for e in found.values()}.values())) if found else UNKNOWN


def network_moves_in_two_ways(ctx: Context) -> Outcome:
    """Two readings of the network or more, pauses and losses say, go with the slow rows."""
    heads = set()
    used: dict[str, Evidence] = {}
    for turn in turns(ctx):
        got = network_moves_with_it(Context([turn.evidence]))
        if got.holds and _CONGESTED.search(turn.head):
            heads.add(turn.head)
            used[turn.evidence.id] = turn.evidence
    return Outcome(True, tuple(used.values())[:3]) if len(heads) >= 2 else UNKNOWN


# ---------------------------------------------------------------- traffic by interface

_BUSY = 0.1  # GB/s: a plain interface that moves this is at work
_SILENT = 0.02  # of that: an adapter that moves less carries nothing of it
_VERBS = regex(r"^(?:mlx|ib|hsn|roce|rdma|efa|irdma|bnxt_re)", re.I)
_WORDS_BYTES = 4  # port_xmit_data counts words of four bytes


def ethernet_carries_it(ctx: Context) -> Outcome:
    """A plain interface moves the bytes of the run while the RDMA ports stand still."""
    rates = ctx.numbers("net.traffic")
    plain = [(v, e) for v, e in rates if not _VERBS.match(e.subject.nic or "")]
    still = [(v * _WORDS_BYTES, e) for v, e in ctx.numbers("counter.delta", {"label": r"^port_(?:xmit|rcv)_data$"})]
    quiet = [(v, e) for v, e in rates if _VERBS.match(e.subject.nic or "")]
    if not plain or not (still or quiet):
        return UNKNOWN
    most = highest(plain)
    silent = all(v < 1e8 for v, _ in still) and all(v <= _SILENT * most[0] for v, _ in quiet)
    used = (most[1], *(e for _, e in (still or quiet)[:2]))
    return Outcome(most[0] >= _BUSY and silent, used)


def two_networks_in_two_logs(ctx: Context) -> Outcome:
    """One log went over the RDMA plugin, another, of the same job, finds no adapter and names sockets."""
    fast = [e for e in ctx.of("nccl.network") if re.search(r"Libfabric|OFI|\bIB\b|RDMA", str(e.value))]
    fast += ctx.of("nccl.ofi.provider")
    slow = ctx.of("nccl.socket.interfaces") or [e for e in ctx.of("nccl.network") if str(e.value) == "Socket"]
    lost = ctx.of("nccl.mark.ib_no_device") or ctx.of("nccl.mark.plugin_missing")
    return Outcome(True, (slow[0], fast[0], lost[0])) if fast and slow and lost else UNKNOWN


# ---------------------------------------------------------------- processes


def all_on_one_node(ctx: Context) -> Outcome:
    """All processes may run on one list of CPUs only, and some GPUs are near others."""
    lists = ctx.numbers("host.pinned_processes")
    near = ctx.of("topo.cpu_affinity")
    if len(lists) != 1 or lists[0][0] < 2 or not near:
        return UNKNOWN
    own = _cpus(lists[0][1].subject.label or "")
    far = [e for e in near if not own & _cpus(str(e.value))]
    close = [e for e in near if own & _cpus(str(e.value))]
    return Outcome(bool(far and close), (lists[0][1], *far[:1], *close[:1])) if own else UNKNOWN


def _cpus(text: str) -> frozenset[int]:
    out: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal() and (not high or high.isdecimal()) and int(high or low) < 1 << 14:
            out.update(range(int(low), int(high or low) + 1))
    return frozenset(out)


def one_rank_works_elsewhere(ctx: Context) -> Outcome:
    """A rank's stack stands in work of the host while other ranks wait in a collective."""
    waiting = [e for e in ctx.of("torch.watchdog") if e.subject.rank is not None]
    for item in ctx.of("rank.stack_elsewhere"):
        others = [e for e in waiting if e.subject.rank != item.subject.rank] or ctx.of("rank.waits_in")
        if others:
            return Outcome(True, (item, others[0]))
    return UNKNOWN


def mtu_below_its_peer(ctx: Context) -> Outcome:
    """Of two hosts the one with the smaller active MTU has the lower bandwidth."""
    sizes = ctx.numbers("rdma.mark.active_mtu")
    rates = ctx.numbers("figure", {"label": "^(?:bandwidth|busbw|throughput)"})
    by_line = {}
    for value, item in sizes:
        beside = [r for r, e in rates if e.capture and item.capture and e.capture.line == item.capture.line]
        if beside:
            by_line[value] = (max(beside), item)
    if len(by_line) < 2:
        return UNKNOWN
    small, large = min(by_line), max(by_line)
    slower = by_line[small][0] * 1.05 <= by_line[large][0]
    return Outcome(large >= 2 * small and slower, (by_line[small][1], by_line[large][1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    **{name: _lever(name, regex(words, re.I)) for name, words in _LEVERS.items()},
    **{
        rule.__name__: rule
        for rule in (
            faster_rerun, rerun_version, rerun_environment, network_moves_with_it, network_moves_in_two_ways,
            ethernet_carries_it, two_networks_in_two_logs, all_on_one_node, one_rank_works_elsewhere,
            mtu_below_its_peer,
        )
    },
}  # fmt: skip
