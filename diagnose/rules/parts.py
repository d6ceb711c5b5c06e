"""Parts of a service that bound, miss or wait for each other: a pool's size, a place to meet, a port, a stop token."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest, lowest
from .serving import experts_uneven

# Connections that a client holds at once where nobody says otherwise (documentation of each library).
_POOLS = {"aiohttp": 100, "httpx": 100, "requests": 10, "urllib3": 10}


def _pinned(ctx: Context) -> tuple[float, Evidence, Evidence] | None:
    """Requests that run, where that number stays and nothing waits."""
    waiting, most = read.waiting(ctx), read.top(ctx, "serving.running_span", "^max$") or read.running(ctx)
    last = read.top(ctx, "serving.running_span", "^last$")
    if waiting is None or waiting[0] > 0 or most is None or most[0] < 4:
        return None
    if last is not None and last[0] < 0.95 * most[0]:
        return None
    return most[0], most[1], waiting[1]


def client_bound_reached(ctx: Context) -> Outcome:
    """As many requests run as the client or a pool lets through, and none waits in the engine."""
    pinned = _pinned(ctx)
    if pinned is None:
        return UNKNOWN
    for value, item in ctx.numbers("client.bound"):
        chosen = any(str(e.value) == f"{value:.0f}" for e in ctx.of("serving.client.concurrency"))
        if chosen and re.search(rf"(?<![\d.,]){value:.0f}(?![\d.,])", ctx.symptom):
            continue  # whoever names the concurrency of the load knows of it, and asks for something else
        if 0.93 * value <= pinned[0] <= 1.01 * value:
            return read.yes(item, pinned[1], pinned[2])
    for item in ctx.of("client.pool_default"):
        if _POOLS.get(str(item.value)) == pinned[0]:
            return read.yes(item, pinned[1], pinned[2])
    return UNKNOWN


_OFFERED = regex(
    r"(?P<n>\d{2,5}) ?(?:concurren\w+|users?|clients?|threads?|workers?|requests?|streams?|connections?|sessions?|vus?\b|个?(?:并发|请求|用户|线程|连接))"  # noqa: E501
    r"|(?:并发|concurrency|users|max-num-seqs)\D{0,8}(?P<m>\d{2,5})", re.I,
)  # fmt: skip


def running_below_offer(ctx: Context) -> Outcome:
    """The same number of requests runs all the time, none waits in the engine, and more are said to be offered."""
    pinned = _pinned(ctx)
    if pinned is None or read.top(ctx, "serving.running_span", "^last$") is None:
        return UNKNOWN
    offered = [float(h["n"] or h["m"]) for h in _OFFERED.finditer(ctx.symptom)]
    return Outcome(any(v >= 1.5 * pinned[0] for v in offered) or None, (pinned[1], pinned[2]))


# ---------------------------------------------------------------- answers that never stop

_LONG = regex(
    r"latenc|slow|takes|seconds|\d ?s\b|never stop|run(?:s|ning)? on|until|continu|max_tokens|limit|ramble|endless|repeat|made-up|延迟|跑满|不停|停不下|一直|慢", re.I,  # noqa: E501
)  # fmt: skip


def answers_run_to_limit(ctx: Context) -> Outcome:
    """Nearly every answer ends at its length limit."""
    ends = {str(e.value): e for e in ctx.of("serving.finish")}
    length, stop = ends.get("length"), ends.get("stop")
    if length is None:
        return UNKNOWN
    others = stop.count if stop is not None else 0
    return Outcome(length.count >= 3 and length.count >= 9 * others, (length, *([stop] if stop else [])))


def never_stops(ctx: Context) -> Outcome:
    """… and the token with which the model closes its turn is no stop token, or the model goes on with the next turn."""  # noqa: E501
    differs, on = ctx.of("serving.stop_differs"), ctx.of("serving.turns_run_on")
    ended = ctx.of("serving.finish", {"label": "^length$"})
    if not (differs or on) or not ended:
        return UNKNOWN
    few = answers_run_to_limit(ctx)
    if few.holds is False and sum(e.count for e in ctx.of("serving.finish")) > 3:
        return Outcome(False, few.used)
    return read.yes(*differs[:1], *on[:1], ended[0])


def runs_to_limit_and_slow(ctx: Context) -> Outcome:
    """Answers end at their limit, and how long or slow they are is the complaint."""
    got = answers_run_to_limit(ctx)
    total = sum(e.count for e in ctx.of("serving.finish"))
    if not got.holds or total < 20 or not _LONG.search(ctx.symptom) or ctx.of("serving.bench_arg"):
        return Outcome(got.holds and None, got.used)
    return got


# ---------------------------------------------------------------- parts that look for each other in different places


def parts_apart(ctx: Context) -> Outcome:
    """Each part is registered in a place where the other is not."""
    spaces: dict[str, dict[str, Evidence]] = {}
    for item in ctx.of("registration.part"):
        spaces.setdefault(str(item.value), {})[item.subject.label or ""] = item
    if len(spaces) < 2:
        return _settings_apart(ctx)
    names = [frozenset(parts) for parts in spaces.values()]
    # Two whole deployments beside each other hold the same parts; here one place lacks what the other has.
    apart = all(not a & b for n, a in enumerate(names) for b in names[n + 1 :])
    looked = any(
        re.search(r"watch|look|subscrib|0 instances|wait", e.quote or "", re.I)
        for p in spaces.values()
        for e in p.values()
    )
    used = [next(iter(p.values())) for p in spaces.values()]
    return Outcome(apart or looked, tuple(used[:4]))


def _settings_apart(ctx: Context) -> Outcome:
    values: dict[str, dict[str, Evidence]] = {}
    for item in ctx.of("registration.setting"):
        values.setdefault(item.subject.label or "", {})[str(item.value)] = item
    for found in values.values():
        if len(found) == 2:
            return read.yes(*found.values())
    return UNKNOWN


_UNMET = regex(
    r"idle|0 ?%|never|nothing|no (?:request|prefill|traffic|error|worker)|not (?:get|receiv|us|found|see)|receives?|unused|空闲|没有|收不到|一直|不走|都在|none of|ignored", re.I,  # noqa: E501
)  # fmt: skip


def parts_never_meet(ctx: Context) -> Outcome:
    """… and one of them gets no work."""
    got = parts_apart(ctx)
    return got if got.holds and _UNMET.search(ctx.symptom) else Outcome(got.holds and None, got.used)


# ---------------------------------------------------------------- the port in use


def slow_port_chosen(ctx: Context) -> Outcome:
    """UCX is told, or seen, to use a port far slower than others of the machine."""
    from .movement import _device_choice

    chosen = [(n, item) for names, item in _device_choice(ctx) for n in names]
    for lane in ctx.of("ucx.lane"):
        hit = re.search(r"/([\w.]+):\d", str(lane.value))
        chosen += [(hit[1], lane)] if hit else []
    noted = {e.subject.nic: (v, e) for v, e in (*ctx.numbers("rdma.port.rate"), *ctx.numbers("net.port_noted"))}
    named = {n for n, _ in chosen}
    others = [e for e in ctx.of("rdma.port.listed") if e.subject.nic not in named]
    for name, item in chosen:
        mine = noted.get(name)
        if mine is None:
            continue
        faster = [e for n, (v, e) in noted.items() if n not in named and v >= 2 * mine[0]]
        if faster:
            return read.yes(item, mine[1], faster[0])
        # Compute networks are faster than this: a slow port of an adapter beside several others serves something else.
        if mine[0] <= 50 and len({e.subject.nic for e in others}) >= 2:
            return read.yes(item, mine[1], others[0])
    return UNKNOWN


# ---------------------------------------------------------------- pieces


def _bytes(name: str) -> float | None:
    hit = re.search(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?(B|KB|KiB|K|MB|MiB|M)?\b", name.strip(), re.I)
    if hit is None:
        return None
    scale = {"": 1.0, "b": 1.0, "kb": 1024.0, "kib": 1024.0, "k": 1024.0, "mb": 2.0**20, "mib": 2.0**20, "m": 2.0**20}
    return float(hit[1].replace(",", "")) * scale[(hit[2] or "").lower()]


def own_pieces_slow(ctx: Context) -> Outcome:
    """A sweep over sizes is slow at the size of this system's own pieces and fast at large ones."""
    own = [(v, e) for v, e in ctx.numbers("kv.bytes_per_descriptor") if v < 1 << 20]
    rates: dict[float, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(?:bandwidth|throughput|bw)[^|]*\|\s*\d"}):
        size = _bytes((item.subject.label or "").split("|")[1])
        if size:
            rates[size] = (value, item)
    for value, item in ctx.numbers("nixl.bench.bw", {"label": r"block \d+"}):
        hit = re.search(r"block (\d+)", item.subject.label or "")
        if hit:
            rates.setdefault(float(hit[1]), (value, item))
    if not own or len(rates) < 3:
        return UNKNOWN
    piece = lowest(own)
    best = highest(rates.values())
    near = [r for size, r in rates.items() if size <= 1.3 * piece[0]]
    if not near:
        return UNKNOWN
    here = highest(near)
    return read.yes(piece[1], here[1], best[1]) if here[0] <= 0.35 * best[0] else read.no(piece[1], here[1])


# ---------------------------------------------------------------- a rank that has more to do


def hot_rank_has_more(ctx: Context) -> Outcome:
    """The late rank is the one that was given most tokens: the work is uneven, not the machine."""
    uneven = experts_uneven(ctx)
    if not uneven.holds:
        return uneven
    hot = uneven.used[0].subject.rank
    late = [
        e for s in ("spread.outlier", "straggler.late", "nccl.lockstep.spread") for e in ctx.of(s)
        if e.subject.rank == hot or re.search(rf"\b(?:rank |gpu )?{hot}$", e.subject.label or "")
    ]  # fmt: skip
    return read.yes(*uneven.used, *late[:1]) if late else Outcome(None, uneven.used)


# ---------------------------------------------------------------- an address that means another machine

_APART = regex(
    r"another (?:node|host|machine|server)|cross|two (?:nodes|hosts|machines)|across|remote|inter-?node|multi-?node|different (?:node|host)|other (?:node|host)|intra-node ok|跨机|跨节点|两台|另一台", re.I,  # noqa: E501
)  # fmt: skip


def loopback_between_hosts(ctx: Context) -> Outcome:
    """The place to meet is the loopback address, and the two sides are on different machines."""
    found = ctx.of("nixl.mark.loopback_peer")
    if not found:
        return UNKNOWN
    return Outcome(_APART.search(ctx.symptom) is not None or None, tuple(found[:3]))


# ---------------------------------------------------------------- a first call that pays for setting up


def only_first_size_slow(ctx: Context) -> Outcome:
    """Of a whole sweep only the very first measurement is slow; the same size in place, and larger ones, are fast."""
    rows: dict[float, dict[str, tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("nccl_tests.time"):
        hit = re.search(r" (\d+) B (out-of-place|in-place)$", item.subject.label or "")
        if hit and value > 0:
            rows.setdefault(float(hit[1]), {})[hit[2]] = (value, item)
    both = [rows[size] for size in sorted(rows) if len(rows[size]) == 2]
    if len(both) < 3:
        return UNKNOWN
    ratios = [r["out-of-place"][0] / r["in-place"][0] for r in both]
    used = (both[0]["out-of-place"][1], both[0]["in-place"][1])
    return Outcome(ratios[0] >= 5 and all(0.7 <= r <= 1.4 for r in ratios[1:]), used)


# ---------------------------------------------------------------- compiled while requests wait


def compiled_after_ready(ctx: Context) -> Outcome:
    """Kernels are compiled after the server said that it was ready."""
    for made in ctx.of("serving.mark.compiling"):
        for ready in ctx.of("serving.mark.ready"):
            if not made.spans or not ready.spans or made.spans[0].capture != ready.spans[0].capture:
                continue
            if made.spans[0].bytes[0] > ready.spans[0].bytes[0]:
                return read.yes(made, ready)
    return UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        client_bound_reached, running_below_offer, answers_run_to_limit, never_stops, runs_to_limit_and_slow, parts_apart,  # noqa: E501
        parts_never_meet, slow_port_chosen, own_pieces_slow, hot_rank_has_more, only_first_size_slow, compiled_after_ready, loopback_between_hosts,  # noqa: E501
    )
}  # fmt: skip
