"""Health by a law: a latency that its tokens explain, a load as Little has it, a gain that batching takes away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from .. import floors
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..units import IN_MS
from . import serving_read as read
from .base import Reading, lowest
from .healthy import SPARSE, faulty
from .limits_met import _DECODE
from .products import candidates

_STAT = regex(r"_(mean|median|p\d+|max|min|avg)$")
_MADE = regex(
    r"(?:output|completion|generated|answer|reply|out)\w*[ _.-]*(?:tok|len)|tokens? (?:out|generated)|输出|生成", re.I
)


def _kind(metric: str, item: Evidence) -> str:
    if item.unit in IN_MS:
        for name, pattern in (("e2e", "e2e|latency"), ("ttft", "ttft"), ("tpot", "tpot|itl"), ("queue", "queue")):
            if re.match(pattern, metric):
                return name
    if item.unit in (None, "count") and re.match("tokens|decode_throughput|count", metric):
        return "tokens" if _MADE.search(item.quote or "") else ""
    return ""


def by_setting(ctx: Context) -> dict[str, dict[str, Reading]]:
    """Latencies in ms and generated tokens, by the setting or the percentile they belong to."""
    out: dict[str, dict[str, Reading]] = {}
    for value, item in ctx.numbers("figure"):
        metric, _, name = (item.subject.label or "").partition("|")
        kind, stat = _kind(metric, item), _STAT.search(metric)
        if kind and value > 0:
            key = name or (stat[1] if stat else "")
            out.setdefault(key, {}).setdefault(kind, (value * IN_MS.get(item.unit or "", 1.0), item))
    for value, item in ctx.numbers("request.field"):
        kind, _, key = (item.subject.label or "").partition("|")
        out.setdefault(f"request {key}", {}).setdefault(kind, (value, item))
    return out


_ABOUT_FIRST = regex(r"ttft|first token|prefill|首(?:字| ?token)", re.I)


def length_explains(ctx: Context) -> Outcome:
    """What takes longer generates more tokens, at the same time per token, and these times add up to it."""
    rows = [
        (r["e2e"], r["tokens"], r["tpot"], r.get("ttft")) for r in by_setting(ctx).values() if {"e2e", "tokens", "tpot"} <= set(r)  # noqa: E501
    ]  # fmt: skip
    if len(rows) < 2 or _ABOUT_FIRST.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    rows.sort(key=lambda r: r[0][0])
    short, long = rows[0], rows[-1]
    if long[0][0] < 1.2 * short[0][0]:
        return UNKNOWN
    sums = [(e2e[0], tokens[0] * tpot[0] + (ttft[0] if ttft else 0.0)) for e2e, tokens, tpot, ttft in rows]
    even = max(r[2][0] for r in rows) <= 1.08 * min(r[2][0] for r in rows)
    late = any(r[3] is not None and r[3][0] > 0.15 * r[0][0] for r in rows)
    met = even and not late and all(0.85 <= total / e2e <= 1.15 for e2e, total in sums)
    return Outcome(met, read.unique((long[0][1], short[0][1], long[1][1], short[1][1], long[2][1])))


_IN_FLIGHT = regex(
    r"in flight|at (?:the same time|once)|concurren|running|in the engine|堆积|积压|pil(?:e|ing) up|active (?:requests|sequences)|simultaneous|并发|同时|在跑|在飞",  # noqa: E501
    re.I,
)


_NO_GAIN = regex(
    r"(?:adding|more|extra|second|doubl\w+) (?:\w+ ){0,2}(?:gpus?|nodes?|replicas?|cards?)"
    r"|does(?: not|n.t) (?:change|scale|grow|help)"
    r"|no (?:gain|effect)|加(?:卡|机|副本)",
    re.I,
)


def in_flight_by_little(ctx: Context) -> Outcome:
    """As many requests run as arrive a second times the seconds that each takes, and none waits."""
    runs, waits, kv = (
        read.top(ctx, "serving.running"),
        read.top(ctx, "serving.waiting"),
        read.top(ctx, "serving.kv_usage"),
    )
    rates = [n for n in ctx.numbers("figure", {"label": "^request_rate"}) if n[0] > 0]
    times = [
        (v * IN_MS[e.unit or ""], e) for v, e in ctx.numbers("figure", {"label": "^(?:e2e|latency)(?:_mean|_avg)?(?:\\||$)"})  # noqa: E501
        if e.unit in IN_MS
    ]  # fmt: skip
    if runs is None or waits is None or not rates or not times or not _IN_FLIGHT.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    if _NO_GAIN.search(ctx.symptom):
        return UNKNOWN  # the law holds there as well, and says nothing of what keeps it from growing
    if waits[0] > 0 or (kv is not None and kv[0] >= read.FULL) or len({v for v, _ in rates}) > 1:
        return UNKNOWN
    law = floors.in_flight(rates[0][0], times[0][0] / 1000).value
    return Outcome(0.8 <= runs[0] / law <= 1.25, (runs[1], waits[1], rates[0][1], times[0][1]))


# ---------------------------------------------------------------- more users at once

_EACH = regex(
    r"per[- ](?:user|request|stream|chat|client)|each (?:user|request|chat|one|client)|every (?:user|chat)|single user|alone|scheduler"  # noqa: E501
    r"|slower (?:with|the more|when more)|with (?:more )?\d* ?(?:users|chats|clients|streams|requests)|per-?stream|单(?:用户|路|个)|每(?:个|路|人)|并发",  # noqa: E501
    re.I,
)


def _totals(ctx: Context) -> list[tuple[float, float, Evidence]]:
    """Users and the tokens a second of all of them; beside a column per user the larger figure is that."""
    out: dict[float, Reading] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(?:decode_)?throughput(?:_mean)?\|"}):
        size = re.match(r"\D{0,16}?(\d{1,5})\b(?![.\d])", (item.subject.label or "").split("|")[1])
        if size and item.unit == "tokens/s" and float(size[1]) > 0:
            key = float(size[1])
            if key not in out or out[key][0] < value:
                out[key] = value, item
    return [(n, *out[n]) for n in sorted(out)]


def each_slower_all_faster(ctx: Context) -> Outcome:
    """A user's tokens come slower with more users, and all of them together get far more: a step serves them all."""
    rows = _totals(ctx)
    waits = read.top(ctx, "serving.waiting")
    first = [
        v * IN_MS[e.unit or ""]
        for v, e in ctx.numbers("figure", {"label": r"^ttft[^|]*\|\D{0,16}\d"})
        if e.unit in IN_MS
    ]
    if len(rows) < 3 or not _EACH.search(ctx.symptom) or faulty(ctx) or (waits is not None and waits[0] > 0):
        return UNKNOWN
    if first and max(first) > max(1000.0, 6 * min(first)):
        return UNKNOWN
    # Each doubling of the users brings a quarter more or better, up to the largest load that was asked about.
    grows = all(b[1] / a[1] >= (b[0] / a[0]) ** 0.35 for a, b in pairwise(rows))
    sized = rows[-1][1] >= 1.5 * rows[0][1] and rows[-1][1] <= 1.1 * rows[0][1] * rows[-1][0] / rows[0][0]
    return Outcome(grows and sized, (rows[0][2], rows[-1][2]))


_SPARES_READS = regex(r"awq|gptq|int[48]|fp8|w[48]a\d+|4.?bit|8.?bit|quant|marlin|nf4|q4|量化", re.I)
_SPARES_STEPS = regex(r"specul|\bspec\b|draft|eagle|medusa|\bmtp\b|n-?gram|\bon\b|\bk ?=|投机|推测", re.I)


def _gains(ctx: Context) -> Iterator[tuple[float, float, Evidence]]:
    """(batch, plain over spared, evidence) of comparisons between a plain and a sparing way of one step."""
    spec = bool(ctx.of("serving.accept_length") or ctx.of("serving.accept_rate")) or _SPARES_STEPS.search(ctx.symptom)
    pattern = _SPARES_STEPS if spec else _SPARES_READS
    for name in ("compare.ratio", "compare.same"):
        for value, item in ctx.numbers(name):
            parts = (item.subject.label or "").split("|")
            if len(parts) != 4 or not re.match(
                "tpot|itl|time|step_time|latency|throughput|decode_throughput", parts[1]
            ):
                continue
            worse, better = (pattern.search(p) is not None for p in parts[2:])
            size = re.match(r"\W*(?:(?:batch|bs|concurrency|users|并发)\W{0,3})?(\d{1,5})\b", item.quote or "", re.I)
            if worse != better and size is not None:
                yield float(size[1]), value if better else 1 / value, item


def gain_fades_with_batch(ctx: Context) -> Outcome:
    """Reading fewer weights, or several tokens a step, gains much for one user and nothing once arithmetic binds."""
    rows = sorted({(n, round(g, 4)): (n, g, e) for n, g, e in _gains(ctx)}.values(), key=lambda r: r[0])
    if len(rows) < 2 or faulty(ctx) or rows[0][0] > 8 or rows[-1][0] < 32:
        return UNKNOWN
    low = read.low(ctx, "serving.accept_length")
    drafts = low is None or low[0] >= 1.8  # a draft that is never taken has its own cause
    small, large = rows[0][1], rows[-1][1]
    met = small >= 1.5 and 0.92 <= large <= 0.75 * small and all(g >= 0.92 for _, g, _ in rows) and drafts
    return Outcome(met, (rows[0][2], rows[-1][2]))


# ---------------------------------------------------------------- weights and cache


def rows_read_their_weights(ctx: Context) -> Outcome:
    """Rows of models or formats with the size of their weights: a token of each takes what reading them takes."""
    gpus, named = candidates(ctx)
    sizes = {
        (e.subject.label or "").split("|")[1]: (v * (1.0 if e.unit == "B" else 2.0**30), e)
        for v, e in ctx.numbers("figure", {"label": r"^bytes\|."}) if e.unit in ("B", "GiB")
    }  # fmt: skip
    times = {
        (e.subject.label or "").split("|")[1]: (v * IN_MS[e.unit or ""], e)
        for v, e in ctx.numbers("figure", {"label": r"^(?:tpot|itl)(?:_mean|_median|_p50)?\|."}) if e.unit in IN_MS
    }  # fmt: skip
    both = [(sizes[k], times[k]) for k in sizes if k in times and sizes[k][0] >= 5e8]
    several = [v for v, _ in (*ctx.numbers("serving.running"), *ctx.numbers("serving.tp_noted")) if v > 1]
    if not gpus or not both or several or any(g.c2c for g in gpus) or faulty(ctx) or SPARSE.search(ctx.symptom):
        return UNKNOWN
    if any(SPARSE.search(e.quote or "") for _, (_, e) in both):
        return UNKNOWN
    shares = [t[0] / floors.read_floor(s[0], g.memory).value for s, t in both for g in gpus]
    return Outcome(all(_DECODE[0] <= r <= _DECODE[1] for r in shares), (*(t[1] for _, t in both[:3]), *named[:1]))


_ASKS_ROOM = regex(
    r"fit|room|cache size|kv (?:cache|size|capacity|space)|capacity|tokens? (?:only|fit)|where (?:did|does|is) .*memor|too (?:small|few|little)|tiny|remain|left|cache|容量|放(?:得)?下|装|太小",  # noqa: E501
    re.I,
)


def cache_is_the_rest(ctx: Context) -> Outcome:
    """Weights and cache together are the card; the tokens are that room over the bytes of one; and nobody waits."""
    room, tokens, weights = (
        read.top(ctx, "serving.kv_memory"),
        read.top(ctx, "serving.kv_tokens"),
        read.top(ctx, "serving.weights"),
    )
    gpus, named = candidates(ctx)
    used, waits = read.top(ctx, "serving.kv_usage"), read.top(ctx, "serving.waiting")
    if room is None or tokens is None or weights is None or not _ASKS_ROOM.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    said = re.search(r"(?<![\d.])(\d{2,3}) ?(?:GB|GiB|G)\b", ctx.symptom)
    whole = min((g.memory_gb for g in gpus), default=float(said[1]) if said else 0.0)
    if whole <= 0 or used is None or waits is None:
        return UNKNOWN
    filled = (room[0] + weights[0]) / whole >= 0.8
    calm = waits[0] == 0 and used[0] < 0.8 and not ctx.of("serving.preemptions")
    return Outcome(filled and calm, (room[1], tokens[1], weights[1], used[1], waits[1], *named[:1]))


def memory_busy_in_decode(ctx: Context) -> Outcome:
    """While single tokens are generated the memory is nearly always busy, which leaves the SMs waiting for weights."""
    busy = [n for n in ctx.numbers("dcgm.active", {"label": "^DRAM"}) if n[0] <= 1.0]
    runs, prompts = read.top(ctx, "serving.running"), read.top(ctx, "serving.prompt_tput")
    said = re.search(r"decod|generat|single (?:user|stream|request)|one (?:user|chat)|解码|生成", ctx.symptom, re.I)
    single = runs is not None and 1 <= runs[0] <= 16 and (prompts is None or prompts[0] < 100)
    if not busy or not (single or said) or faulty(ctx):
        return UNKNOWN
    worst = lowest(busy)
    return Outcome(worst[0] >= 0.75, read.unique((worst[1], runs[1] if runs else None)))


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    length_explains, in_flight_by_little, each_slower_all_faster, gain_fades_with_batch, rows_read_their_weights,
    cache_is_the_rest, memory_busy_in_decode,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
