"""Named predicates about experiments, samples of counters, the GPUs that take part, and the way between hosts."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..limits_collectives import ring_exists
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest, outcome
from .nccl_facts import SPEED, env, overrides, text_of

_TRIALS = ("trial.helps", "trial.faster", "trial.no_help", "trial.setting", "trial.slower")
_PHYSICAL = regex(r"^(?:eth|ens|enp|eno|em\d|bond|ib\d|mlx)")
_OVERLAY = regex(r"vxlan|flannel|geneve|genev|^cali|^wg|^tun|ipip|^gre|cilium|weave|antrea", re.IGNORECASE)
_DROPS = regex(r"discard|out_of_seq|packet_seq|out_of_buffer|retrans|drop|timeout|rnr", re.IGNORECASE)
_MARKS = regex(r"cnp|ecn|pause|xmit_?wait", re.IGNORECASE)
_ERRORS = regex(r"symbol|rcv_?err|crc|recover|integrity|link_?err|overrun", re.IGNORECASE)


def _near(one: Evidence, other: Evidence) -> bool:
    """The same place, or the line above in a row that was broken."""
    a, b = one.capture, other.capture
    return a is not None and b is not None and a.name == b.name and abs(a.line - b.line) <= 1


def varied(ctx: Context, item: Evidence) -> bool:
    """Does a variable stand in one arm of an experiment, and not as the arm that is worse?"""
    label = f"{(item.subject.label or '').upper()}={text_of(item)}".lower()
    for ratio in ctx.of("compare.ratio"):
        parts = (ratio.subject.label or "").lower().split("|")
        if isinstance(ratio.value, float) and ratio.value > 1.1 and label in parts[-1] and label not in parts[-2]:
            return True
    for signal in _TRIALS:
        for trial in ctx.of(signal):
            if (trial.subject.label or "").lower() == label and _near(trial, item):
                worse = signal == "trial.slower" or any(
                    label in part.lower()
                    for e in ctx.of("compare.ratio")
                    if isinstance(e.value, float) and e.value > 1.15
                    for part in (e.subject.label or "").split("|")[2:3]
                )
                return not worse
    return False


def held_overrides(ctx: Context) -> list[Evidence]:
    """Overrides that are not merely somebody's experiment."""
    return [e for e in overrides(ctx) if not varied(ctx, e)]


def p2p_switched_off(ctx: Context) -> Outcome:
    """A variable that stands there switches peer access off."""
    return outcome(e for e in held_overrides(ctx) if (e.subject.label or "").upper().startswith("NCCL_P2P_"))


# The head of a table, or of a run, of trials.
_COLUMNS = regex(r"^\s*[\w.]+ {2,}\S.* {2,}[\w.]*\s*NCCL_\w+=|^\s*#+\s*NCCL_\w+=\S+\s*$")


def algorithm_forced(ctx: Context) -> Outcome:
    """Algorithm, protocol or channels are forced, not just tried."""
    names = re.compile(r"^NCCL_(?:ALGO|PROTO|(?:MAX|MIN)_(?:NCHANNELS|CTAS)|NTHREADS|BUFFSIZE)$")
    # A line that says what the run gave with it is an attempt, not a setting left behind.
    tries = {(t.capture.name, t.capture.line) for t in ctx.of("rerun.figure") if t.capture}
    kept = [e for e in ctx.of("env.var") if not (e.capture and (e.capture.name, e.capture.line) in tries)]
    kept = [e for e in kept if _COLUMNS.search(e.quote or "") is None]
    return outcome(e for e in kept if names.match((e.subject.label or "").upper()) and not varied(ctx, e))


def board_guessed_under_override(ctx: Context) -> Outcome:
    """The ceiling is that of the smaller board of a product, which nothing shows, and a variable holds the rate down.

    A forced protocol reaches about as much over eighteen links as a healthy run over six.
    """
    guessed = [x for x in ctx.limits if "board without NVSwitch" in x.what]
    held = algorithm_forced(ctx)
    return Outcome(True, held.used) if guessed and held.holds else UNKNOWN


def one_rank_measured(ctx: Context) -> Outcome:
    """The bandwidth test ran over one GPU: nothing crosses a link, and its bus bandwidth is nought by definition."""
    peak = _rates(ctx)
    ranks = ctx.numbers("nccl_tests.nranks") or ctx.numbers("nccl.nranks") or ctx.numbers("nccl_tests.gpus")
    if not ranks or not peak:
        return UNKNOWN
    most, fastest = highest(ranks), highest(peak)
    return Outcome(most[0] == 1 and fastest[0] == 0, (most[1], fastest[1]))


def _rates(ctx: Context) -> list[tuple[float, Evidence]]:
    return [
        n for s in ("nccl_tests.largest_busbw", "nccl_tests.peak_busbw", "nccl_tests.avg_busbw") for n in ctx.numbers(s)
    ]


def tried_override_is_worse(ctx: Context) -> Outcome:
    """With the variable the run fails or is slow, without it not."""
    worse = [*ctx.of("trial.harms"), *ctx.of("trial.slower")]
    removed = r"^env\|[^|]*\|(?:NCCL|GLOO)_\w+=[^|]*\|[^|]*(?:remov|unset|without|not set|去掉|删)"
    beside = [e for v, e in ctx.numbers("compare.ratio", {"label": removed}) if v >= 1.3]
    if beside:
        return outcome(beside)
    # Both runs set it: which value is better is a choice, not something left over.
    chosen = {(e.subject.label or "").split("=")[0] for s in ("trial.faster", "trial.helps") for e in ctx.of(s)}
    return outcome(
        e for e in worse
        if re.match(r"(?:NCCL|GLOO)_", e.subject.label or "")
        and not re.search("default|默认", str(e.value), re.IGNORECASE)
        and (e.subject.label or "").split("=")[0] not in chosen
    )  # fmt: skip


def used_sets(ctx: Context) -> list[tuple[frozenset[int], Evidence]]:
    """GPUs that take part, as the text says: visible devices, or the device list of nccl-tests."""
    out = []
    for item in env(ctx, "CUDA_VISIBLE_DEVICES"):
        if re.fullmatch(r"\d+(?:,\d+)+", text_of(item)):
            out.append((frozenset(int(g) for g in text_of(item).split(",")), item))
    listed = {e.subject.gpu: e for e in ctx.of("gpu.name") if e.subject.gpu is not None and e.subject.host}
    if len(listed) > 1 and not out:
        out.append((frozenset(g for g in listed if g is not None), next(iter(listed.values()))))
    return out


def matrix(ctx: Context) -> dict[tuple[int, int], Evidence]:
    """What `topo -m` prints for each pair of GPUs, the lower index first."""
    out: dict[tuple[int, int], Evidence] = {}
    for e in ctx.of("topo.link"):
        if e.subject.gpu is not None and e.subject.peer is not None:
            out[(min(e.subject.gpu, e.subject.peer), max(e.subject.gpu, e.subject.peer))] = e
    return out


def used_pair_without_nvlink(ctx: Context) -> Outcome:
    """The GPUs that take part are not joined by NVLink, although others of this machine are."""
    links = matrix(ctx)
    edges = {pair for pair, e in links.items() if text_of(e).startswith("NV")}
    if not edges or not ctx.asks(*SPEED):
        return UNKNOWN
    seen = {g for pair in links for g in pair}
    for gpus, item in used_sets(ctx):
        inside = [pair for pair in links if pair[0] in gpus and pair[1] in gpus]
        whole = len(inside) == len(gpus) * (len(gpus) - 1) // 2  # no row of the matrix was cut
        if gpus < seen and whole and not ring_exists(sorted(gpus), {p for p in inside if p in edges}):
            lacking = [links[p] for p in inside if p not in edges]
            return Outcome(True, (item, *lacking[:2], links[min(edges)]))
    return UNKNOWN


def used_pair_crosses(ctx: Context) -> Outcome:
    """The GPUs that take part lie on both sockets, while others of this machine do not."""
    links = matrix(ctx)
    if not ctx.asks(*SPEED) or all(text_of(e) == "SYS" for e in links.values()):
        return UNKNOWN
    for gpus, item in used_sets(ctx):
        inside = [e for pair, e in links.items() if pair[0] in gpus and pair[1] in gpus]
        if inside and all(text_of(e) == "SYS" for e in inside):
            return Outcome(True, (item, *inside[:2]))
    return UNKNOWN


def nvlink_in_use(ctx: Context) -> Outcome:
    """NVLink joins the GPUs of this question, as far as the evidence says which those are."""
    links = [e for e in ctx.of("topo.link") if text_of(e).startswith("NV")]
    if not links:
        return UNKNOWN
    others = used_pair_without_nvlink, used_pair_crosses, plain_path_slower
    return Outcome(not any(rule(ctx).holds for rule in others), tuple(links[:3]))


def bridged(edges: set[tuple[int, int]], gpus: set[int]) -> bool:
    """NVLink joins the GPUs into several groups of one size, each complete: bridges, by design."""
    groups: list[set[int]] = []
    for gpu in sorted(gpus):
        mates = {b if a == gpu else a for a, b in edges if gpu in (a, b)} | {gpu}
        if mates not in groups:
            groups.append(mates)
    sizes = {len(g) for g in groups}
    disjoint = sum(len(g) for g in groups) == len(gpus)
    return disjoint and len(groups) > 1 and (len(sizes) == 1 or sizes == {1, 2}) and max(sizes) in (2, 4)


def traffic_on_sockets(ctx: Context) -> Outcome:
    """During the collective an Ethernet interface carries the bytes and the RDMA ports carry none."""
    deltas = ctx.numbers("counter.delta")
    plain = [
        (v, e) for v, e in deltas
        if re.search(
            r"(?:rx|tx|recv|sent)\w*[ _]?(?:bytes|packets)"
            r"|bytes", e.subject.label or "", re.IGNORECASE) and v > 1e7
        and not re.search(r"rdma|roce|vport_rdma|mlx5_\d", f"{e.subject.label}", re.IGNORECASE)
    ]  # fmt: skip
    verbs = [
        (v, e) for v, e in deltas
        if re.search(
            r"(?:xmit|rcv)_?(?:data|pkts|packets)|rdma\w*_(?:bytes|packets)|roce\w*_(?:bytes"
            r"|pack)", e.subject.label or "", re.IGNORECASE)
    ]  # fmt: skip
    if not plain or not verbs:
        return UNKNOWN
    most = highest(plain)
    return Outcome(all(v < 0.01 * most[0] for v, _ in verbs), (most[1], *(e for _, e in verbs[:2])))


def rails_uneven(ctx: Context) -> Outcome:
    """Some RDMA ports carry the bytes, others of the node none."""
    verbs = [
        (v, e) for v, e in ctx.numbers("counter.delta") if re.search(
            r"(?:xmit|rcv)_?(?:data"
            r"|pkts)", e.subject.label or "", re.IGNORECASE)
    ]  # fmt: skip
    if len({e.subject.nic for _, e in verbs}) < 2:
        return UNKNOWN
    most = highest(verbs)
    idle = [e for v, e in verbs if v < 0.01 * most[0]]
    return Outcome(True, (most[1], *idle[:3])) if most[0] > 1e6 and idle else UNKNOWN


def _growing(ctx: Context, pattern: re.Pattern[str], least: float) -> list[Evidence]:
    return [e for v, e in ctx.numbers("counter.delta") if v >= least and pattern.search(e.subject.label or "")]


def drops_grow(ctx: Context) -> Outcome:
    """Drop or retransmission counters grew between two readings."""
    return outcome(_growing(ctx, _DROPS, 100))


def pauses_grow(ctx: Context) -> Outcome:
    """Congestion notifications or pauses grew between two readings."""
    return outcome(_growing(ctx, _MARKS, 1000))


def errors_grow(ctx: Context) -> Outcome:
    """Error counters of the link grew between two readings."""
    return outcome(_growing(ctx, _ERRORS, 1))


def downs_grow(ctx: Context) -> Outcome:
    """The port lost its link between two readings."""
    return outcome(_growing(ctx, re.compile(r"down", re.IGNORECASE), 1))


def counters_still(ctx: Context) -> Outcome:
    """Drop and pause counters did not move between two readings: what they hold is history."""
    kept = [
        (v, e)
        for v, e in ctx.numbers("counter.delta")
        if re.search(f"{_DROPS.pattern}|{_MARKS.pattern}", e.subject.label or "", re.I)
    ]
    # ``(+210k/s)`` beside a counter: it grows at another time than that of the reading without change
    if any(re.search(r"\+\s?[1-9][\d.,]*[kM]?\s?/\s?s\b", e.quote or "") for e in ctx.of("rdma.counter")):
        return Outcome(False)
    if kept:
        return Outcome(all(v == 0 for v, _ in kept), tuple(e for _, e in kept[:3]))
    read: dict[tuple[str, str], list[float]] = {}
    for value, item in ctx.numbers("rdma.counter"):
        read.setdefault((item.subject.nic or "", item.subject.label or ""), []).append(value)
    twice = [values for values in read.values() if len(values) > 1]
    return Outcome(all(len(set(v)) == 1 for v in twice)) if twice else UNKNOWN


def counters_may_grow(ctx: Context) -> Outcome:
    """Nothing says that the counters stood still, or that they are nothing among the packets of the port."""
    return Outcome(not counters_still(ctx).holds and not _among_packets(ctx))


_RARE = 1e-6  # of the packets; RDMA suffers from a loss a hundred times as large


def _among_packets(ctx: Context) -> bool:
    passed = ctx.numbers("net.packets")
    counted = [n for s in ("net.mark.drops", "net.mark.cnp") for n in ctx.numbers(s)]
    return bool(passed and counted) and all(v <= _RARE * highest(passed)[0] for v, _ in counted)


def ping_sizes(ctx: Context) -> Outcome:
    """Small packets pass without fragmentation, larger ones that the MTU promises do not."""
    good = [(v, e) for v, e in ctx.numbers("net.ping", {"label": "^ok$"})]
    lost = [(v, e) for v, e in ctx.numbers("net.ping", {"label": "^lost$"})]
    if not good or not lost:
        return UNKNOWN
    top, low = highest(good), lowest(lost)
    return Outcome(top[0] < low[0] <= 9000, (top[1], low[1]))


def overlay_too_large(ctx: Context) -> Outcome:
    """An overlay's MTU leaves no room for its own header on the interface below."""
    below = [(v, e) for v, e in ctx.numbers("net.mtu") if _PHYSICAL.match(e.subject.label or "")]
    above = [(v, e) for v, e in ctx.numbers("net.mtu") if _OVERLAY.search(e.subject.label or "")]
    if not below or not above:
        return UNKNOWN
    low, high = lowest(below), highest(above)
    return Outcome(high[0] > low[0] - 20, (high[1], low[1]))


def mtu_of_hosts_differs(ctx: Context) -> Outcome:
    """The same interface, or interfaces of one kind, have MTUs that do not fit together."""
    named = [(v, e) for v, e in ctx.numbers("net.mtu") if _PHYSICAL.match(e.subject.label or "") and v >= 1280]
    by_name: dict[str, list[tuple[float, Evidence]]] = {}
    for v, e in named:
        by_name.setdefault(e.subject.label or "", []).append((v, e))
    for got in by_name.values():
        low, high = lowest(got), highest(got)
        if high[0] > 1.5 * low[0]:
            return Outcome(True, (low[1], high[1]))
    return UNKNOWN


def rule_and_silence(ctx: Context) -> Outcome:
    """A policy or filter stands beside a connection that gets no answer."""
    rule = ctx.of("net.mark.rule")
    dead = [
        e for s in ("net.mark.timed_out", "net.mark.no_route", "net.mark.refused", "net.mark.port_blocked",
                    "net.mark.efa_unresponsive") for e in ctx.of(s)
    ]  # fmt: skip
    return Outcome(True, (*rule[:2], *dead[:2])) if rule and dead else UNKNOWN


def far_path_slower(ctx: Context) -> Outcome:
    """Pairs on a path across the sockets are slower than pairs below one switch or bridge."""
    return _paths(ctx, ("SYS",), ("PIX", "PXB", "PHB", "NODE"))


def plain_path_slower(ctx: Context) -> Outcome:
    """Pairs without NVLink are slower than pairs with it."""
    return _paths(ctx, ("PIX", "PXB", "PHB", "NODE", "SYS"), ("NV",))


def _paths(ctx: Context, far: tuple[str, ...], near: tuple[str, ...]) -> Outcome:
    rates = ctx.numbers("path.bandwidth")
    slow = [(v, e) for v, e in rates if (e.subject.label or "").startswith(far)]
    fast = [(v, e) for v, e in rates if (e.subject.label or "").startswith(near)]
    if not slow or not fast:
        return UNKNOWN
    low, high = highest(slow), lowest(fast)
    return Outcome(high[0] > 1.15 * low[0], (low[1], high[1]))


def one_port_slow(ctx: Context) -> Outcome:
    """Of several hosts' ports a minority runs at half the rate of the others or less."""
    rates = ctx.numbers("net.rate")
    if len(rates) < 3:
        return UNKNOWN
    top = max(v for v, _ in rates)
    low = [(v, e) for v, e in rates if v <= 0.5 * top]
    if not low or 2 * len(low) > len(rates):
        return UNKNOWN
    return Outcome(True, (*(e for _, e in low[:2]), next(e for v, e in rates if v == top)))


def small_calls(ctx: Context) -> Outcome:
    """Nearly all calls of a step are small."""
    return outcome(e for v, e in ctx.numbers("message.small_share") if v >= 0.8)


def path_mtu_drops(ctx: Context) -> Outcome:
    """Along the path the MTU falls well below the interface's."""
    seen = [*ctx.numbers("net.path_mtu")]
    if len(seen) < 2:
        return UNKNOWN
    low, high = lowest(seen), highest(seen)
    return Outcome(high[0] > 1.2 * low[0], (high[1], low[1]))


def nvlink_counts_differ(ctx: Context) -> Outcome:
    """One GPU has fewer NVLinks up than its like."""
    got = ctx.numbers("nvlink.links_up")
    if len(got) < 2:
        return UNKNOWN
    top = max(v for v, _ in got)
    low = [e for v, e in got if v < top]
    return Outcome(bool(low), (*low[:3], next(e for v, e in got if v == top)))


def ethernet_figure(ctx: Context) -> Outcome:
    """Between nodes the rate at a large size is just what a 1, 10 or 25 Gb/s Ethernet port carries."""
    if not any(v > 1 for s in ("nccl_tests.hosts", "nccl.nnodes", "launch.hosts") for v, _ in ctx.numbers(s)):
        return UNKNOWN
    for value, item in ctx.numbers("nccl_tests.largest_busbw"):
        size = re.search(r" (\d+) B\b", item.subject.label or "")
        if size and int(size[1]) >= 16 << 20:
            near = any(low <= value <= high for low, high in ((0.09, 0.125), (0.9, 1.25), (2.2, 3.1)))
            return Outcome(near, (item,))
    return UNKNOWN


MORE: tuple[Callable[[Context], Outcome], ...] = (
    p2p_switched_off,
    algorithm_forced,
    board_guessed_under_override,
    one_rank_measured,
    tried_override_is_worse,
    used_pair_without_nvlink,
    used_pair_crosses,
    nvlink_in_use,
    traffic_on_sockets,
    rails_uneven,
    drops_grow,
    pauses_grow,
    errors_grow,
    downs_grow,
    counters_still,
    counters_may_grow,
    ping_sizes,
    path_mtu_drops,
    nvlink_counts_differ,
    ethernet_figure,
    far_path_slower,
    plain_path_slower,
    one_port_slow,
    small_calls,
    rule_and_silence,
    overlay_too_large,
    mtu_of_hosts_differs,
)
