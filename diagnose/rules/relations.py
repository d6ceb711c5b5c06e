"""Named predicates that put two readings into relation: a rate with where it was taken, work done with work asked for.

Each holds only on arithmetic that the readings themselves give; a single reading never suffices.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import Reading, highest, lowest
from .comparison import Ratio, ratios
from .load_check import ASKS_FAILURE

# ---------------------------------------------------------------- where it was taken


def copies_split_by_numa(ctx: Context) -> Outcome:
    """Every GPU of one NUMA node copies slower than every GPU of another."""
    nodes = {e.subject.gpu: v for v, e in ctx.numbers("gpu.numa") if e.subject.gpu is not None}
    sides: dict[float, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("copy.bandwidth"):
        node = nodes.get(item.subject.gpu) if item.subject.gpu is not None else None
        if node is not None and value > 0 and "pageable" not in (item.subject.label or ""):
            sides.setdefault(node, []).append((value, item))
    if len(sides) < 2 or sum(len(s) for s in sides.values()) < 3:
        return UNKNOWN
    order = sorted(sides.values(), key=lambda s: max(v for v, _ in s))
    slow, fast = highest(order[0]), lowest(order[-1])
    even = all(max(v for v, _ in s) <= 1.2 * min(v for v, _ in s) for s in order)
    where = [e for v, e in ctx.numbers("gpu.numa") if e.subject.gpu in (slow[1].subject.gpu, fast[1].subject.gpu)]
    return Outcome(even and fast[0] >= 1.25 * slow[0], (slow[1], fast[1], *where[:2]))


_NETWORK = regex(r"ucx|ucp|mlx5|rdma|\bib_\w+|nixl|verbs|\bhca\b|\bnic\b|perftest", re.IGNORECASE)
_OTHERS = regex(r"nccl|all.?reduce|busbw|torchrun", re.IGNORECASE)
_SOCKETS = regex(r"numa|socket|core|cpu|taskset|bind|: ?(?:sys|node)\|", re.IGNORECASE)


def sockets_split_network(ctx: Context) -> Outcome:
    """Transfers over a NIC stand in two groups, and the slow one is that across the sockets."""
    found = [
        e for v, e in ctx.numbers("compare.split", {"label": r"^(numa|path)\|"})
        if v >= 1.25 and _SOCKETS.search(e.subject.label or "")
    ]  # fmt: skip
    if not found:
        return UNKNOWN
    words = " ".join([ctx.symptom, *(e.quote or "" for e in ctx.evidence), *(e.subject.label or "" for e in found)])
    return Outcome(bool(_NETWORK.search(words)) and not _OTHERS.search(words), tuple(found[:2]))


def sockets_split_host(ctx: Context) -> Outcome:
    """Copies or work of the host stand in two groups by NUMA node, and no network is in question."""
    found = [e for v, e in ctx.numbers("compare.split", {"label": r"^numa\|"}) if v >= 1.25]
    if not found:
        return UNKNOWN
    words = " ".join([ctx.symptom, *(e.quote or "" for e in ctx.evidence)])
    return Outcome(not _NETWORK.search(words) and not _OTHERS.search(words), tuple(found[:2]))


_LANES = regex(r"(?<![\w.])x(\d{1,2})\b")


def slow_gpu_is_narrow(ctx: Context) -> Outcome:
    """Of two devices the slow one has fewer lanes, about in proportion."""
    for item in ratios(ctx):
        lanes = [sorted({int(n) for n in _LANES.findall(side)}) for side in (item.worse, item.better)]
        said = f"{item.worse} {item.better} {item.evidence.quote}"
        link = re.search(
            r"GT/s|\bgen ?\d|pci|lnk|width|lanes?\b", said, re.IGNORECASE
        )  # "x8" alone may be eight clients
        if item.value < 1.5 or not all(lanes) or not link or not re.match("bandwidth|copy|time|latency", item.metric):
            continue
        quotient = max(lanes[1]) / min(lanes[0])
        if quotient >= 2 and 0.5 * quotient <= item.value <= 2 * quotient:
            return read.yes(item.evidence)
    return UNKNOWN


def rndv_off_copies(ctx: Context) -> Outcome:
    """The rendezvous protocol is pushed out of reach, and the time goes into copying."""
    high = [
        e for e in (*ctx.of("ucx.env", {"label": "RNDV_THRESH|ZCOPY_THRESH"}), *ctx.of("env.var", {"label": "RNDV_THRESH|ZCOPY_THRESH"}))  # noqa: E501
        if re.match(r"inf|\d{2,}\s*[mg]b?$|\d+g", str(e.value), re.IGNORECASE)
    ]  # fmt: skip
    busy = [
        e for v, e in ctx.numbers("figure")
        if e.unit == "fraction" and v >= 0.3 and re.search(r"memcpy|memmove|bcopy|__copy", e.quote or "")
    ]  # fmt: skip
    return read.yes(high[0], busy[0]) if high and busy else UNKNOWN


# ---------------------------------------------------------------- work done, work asked for

_OUTPUT = regex(r"generated|output|completion|decoded", re.IGNORECASE)
_TOKENS = regex(r"tokens|tok\b|toks\b", re.IGNORECASE)
_RATE = regex(r"/s|per s|throughput|\brate\b|speed|mean|median|avg|p\d\d", re.IGNORECASE)
_CLAIM = regex(r"request_rate|^time|e2e|throughput|latency|goodput")


def bench_unequal_work(ctx: Context) -> Outcome:
    """One run of the benchmark generated a multiple of the tokens of the other, and is held against it."""
    made: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure"):
        quote = item.quote or ""
        head = re.split(r"\s{2,}|\t|\||:", quote.strip())[0]
        if (
            item.unit == "count"
            and value >= 100
            and _OUTPUT.search(head)
            and _TOKENS.search(head)
            and not _RATE.search(head)
        ):
            made.setdefault(quote, []).append((value, item))
    for got in made.values():
        values = sorted(dict(got).items())
        if len(values) != 2 or values[1][0] < 1.5 * values[0][0]:
            continue
        apart = values[1][0] / values[0][0]
        found = [r for r in ratios(ctx) if _CLAIM.search(r.metric) and r.value >= 1.3]
        even = [r for r in ratios(ctx) if re.match("tpot|itl", r.metric) and r.value <= 1.12]
        follows = [r for r in found if 0.6 * apart <= r.value <= 1.6 * apart]
        if found and (even or follows):
            return read.yes(values[0][1], values[1][1], (even or follows)[0].evidence)
    return UNKNOWN


def bench_serves_cache(ctx: Context) -> Outcome:
    """A benchmark nearly all of whose prompt tokens came from the prefix cache, and that was no cache test."""
    if read.complains_of_latency(ctx):
        return UNKNOWN
    hit, sent = read.top(ctx, "serving.prefix_hit_rate"), read.top(ctx, "serving.client.prompts")
    asked = read.option(ctx, "^num-prompts?$", "serving.bench_arg")
    sent = sent or (asked[0] if asked else None)
    drawn = [str(e.value) for e in ctx.of("serving.bench_arg", {"label": "^dataset(-name)?$"})]
    if hit is None or sent is None or any("prefix" in d or "multi" in d for d in drawn):
        return UNKNOWN
    return read.yes(hit[1], sent[1]) if hit[0] >= 0.95 and sent[0] >= 20 else read.no(hit[1])


def most_requests_failed(ctx: Context) -> Outcome:
    """Half of a benchmark's requests or more failed, and the question is about its figures, not about the failures."""
    failed, done = read.top(ctx, "serving.client.failed"), read.top(ctx, "serving.client.prompts")
    asks = ASKS_FAILURE.search(ctx.symptom)
    if failed is None or done is None or asks is not None:
        return UNKNOWN
    return read.yes(failed[1], done[1]) if failed[0] >= done[0] and failed[0] >= 10 else read.no(failed[1])


_RATED = regex(r"tok(?:en)?s?\s?/\s?s|req\w*\s?/\s?s|per second|throughput|TPS|吞吐|每秒", re.IGNORECASE)


def bench_one_at_a_time(ctx: Context) -> Outcome:
    """Throughput of one request at a time held against a figure taken at many."""
    flight = [
        *((float(str(e.value)), e) for e in ctx.of("serving.client.concurrency") if str(e.value).isdigit()),
        *read.option(ctx, "^max-concurrency$", "serving.bench_arg"),
    ]
    if not flight or lowest(flight)[0] > 1:
        return UNKNOWN
    # beside a rate: "Maximum concurrency for 20,000 tokens" of a server says what would fit, not what was measured
    claim = regex(r"(?<![\w-])(?:concurrency|concurrent|clients|batch(?: size)?|并发)\D{0,12}(\d{2,5})\b", re.I)
    for item in ctx.evidence:
        got = claim.search(item.quote or "")
        if (
            got
            and _RATED.search(item.quote or "")
            and int(got[1]) >= 16
            and item.capture
            and flight[0][1].capture
            and item.quote != flight[0][1].quote
        ):
            return read.yes(flight[0][1], item)
    return UNKNOWN


# ---------------------------------------------------------------- admission


_HALF = 0.5  # of the cache


def pool_holds_one(ctx: Context) -> Outcome:
    """As many requests run as the cache holds of full length, and others wait, for all that is known of its room."""
    holds, running, waiting = read.low(ctx, "serving.max_concurrency"), read.running(ctx), read.waiting(ctx)
    if holds is None or running is None or waiting is None:
        return UNKNOWN
    kv = read.kv(ctx)
    if kv is not None and kv[0] < _HALF:  # they are shorter than the longest that may come, and it has room for more
        return read.no(holds[1], kv[1])
    few = holds[0] < 4 and 1 <= running[0] <= holds[0] + 1
    return read.yes(holds[1], running[1], waiting[1]) if few and waiting[0] >= 1 else read.no(holds[1], running[1])


def _at_a_set_number(ctx: Context) -> Reading | None:
    """One look at a server: as many run as a power of two, twice as many wait, and little KV is used."""
    running, waiting, kv = read.running(ctx), read.waiting(ctx), read.kv(ctx)
    if running is None or waiting is None or kv is None or read.cap(ctx) is not None or ctx.of("kv.*"):
        return None
    seen = {v for s in ("serving.running", "serving.running_span") for v, _ in ctx.numbers(s)}
    lost = [v for v, _ in ctx.numbers("serving.preemptions") if v > 0]
    set_so = running[0] in (16, 32, 64, 128) and seen == {running[0]}
    return running if set_so and waiting[0] >= 2 * running[0] and kv[0] < 0.4 and not lost else None


def running_stays(ctx: Context) -> Outcome:
    """Running requests stop at one number while more wait and the cache has room."""
    stays, waiting, kv = read.top(ctx, "serving.running_stays"), read.waiting(ctx), read.kv(ctx)
    stays = stays or _at_a_set_number(ctx)
    if stays is None or waiting is None:
        return UNKNOWN
    if waiting[0] < 1:
        return read.no(waiting[1])
    told = [
        *read.option(ctx, r"^max-(?:num-seqs|running-requests)$"),
        *ctx.numbers("serving.max_num_seqs", {"label": "configured"}),
    ]
    if told and min(v for v, _ in told) > 1.05 * stays[0]:
        return Outcome(None, (stays[1], told[0][1]))  # the limit that is told is another
    busy = [e for v, e in ctx.numbers("figure") if (e.subject.label or "").startswith("utilisation") and v >= 0.95]
    if (kv is not None and kv[0] >= read.ROOMY) or (kv is None and busy):
        return read.no(stays[1], kv[1] if kv else busy[0])
    return read.yes(stays[1], waiting[1], kv[1] if kv else None) if kv is not None else Outcome(None, (stays[1],))


# ---------------------------------------------------------------- gaps


def steps_of_launches(ctx: Context) -> Outcome:
    """No graph is launched, and the GPU works for less than half of a step's time."""
    none = next(iter(ctx.of("serving.mark.graph_launches_none")), None)
    busy = [(v, e) for v, e in ctx.numbers("figure", {"label": "^compute_time"}) if "step" in (e.quote or "").lower()]
    whole = [
        (v, e)
        for v, e in ctx.numbers("figure", {"label": "^(step_time|time|tpot|itl)"})
        if "step" in (e.quote or "").lower()
    ]
    if none is None or not busy or not whole:
        return UNKNOWN
    work, wall = lowest(busy), highest(whole)
    if work[1].unit != wall[1].unit:
        return UNKNOWN
    return read.yes(none, work[1], wall[1]) if work[0] <= 0.5 * wall[0] else read.no(work[1], wall[1])


# ---------------------------------------------------------------- routing


def hits_lost_by_routing(ctx: Context) -> Outcome:
    """The same prompts hit with one replica and hardly with several, or as often as chance sends them home."""
    rates = [
        (v, e) for v, e in ctx.numbers("figure")
        if (e.subject.label or "").startswith("hit_rate") and 0 < v <= 1 and e.unit == "fraction"
    ] or ctx.numbers("serving.prefix_hit_rate")  # fmt: skip
    spreads = [*ctx.of("serving.mark.router_spreads"), *ctx.of("serving.mark.no_affinity")]
    if not rates or not spreads:
        return UNKNOWN
    low, high = lowest(rates), highest(rates)
    if low[0] <= 0.35 and high[0] >= max(0.05, 2.5 * low[0]):  # where none ever hits there is nothing to lose
        return read.yes(low[1], high[1], spreads[0])
    for value, item in ctx.numbers("serving.replicas"):
        if value >= 2 and 0.5 / value <= high[0] <= 1.6 / value and high[0] <= 0.6:
            return read.yes(high[1], item, spreads[0])
    return Outcome(None, (spreads[0],))


# ---------------------------------------------------------------- outside the engine

_IMAGE = regex(r"image|PIL|resize|rescale|cv2|decord|video|jpe?g|pixel|vision_process", re.IGNORECASE)


def media_before_engine(ctx: Context) -> Outcome:
    """A profile of the server's Python is images being decoded and resized."""
    frames = [(v, e) for v, e in ctx.numbers("profile.python") if _IMAGE.search(e.subject.label or "")]
    total = sum(v for v, _ in frames)
    text = [e for v, e in ctx.numbers("profile.python") if re.search("tokeniz|encode_batch", e.subject.label or "")]
    if not frames:
        return UNKNOWN
    return read.yes(*(e for _, e in frames[:3])) if total >= 0.5 and not text else read.no(frames[0][1])


# ---------------------------------------------------------------- healthy

_ACCEPTANCE = regex(
    r"accept|sign.?off|as good as|is (?:it|this|the new \w+) (?:ok|fine|healthy|good)|验收|是否正常", re.IGNORECASE
)
_MEMORY_ASKED = regex(r"free|memory|ram\b|swap|cache|oom|内存|缓存|swap", re.IGNORECASE)
_MORE = regex(
    r"reference|expected|baseline|spec|yesterday|vendor|line.?rate|nominal|perftest|ib_\w+_bw|参考|基线|预期|标称",
    re.IGNORECASE,
)
_FAIL = (
    "gpu.xid.hardware",
    "gpu.mark.fallen",
    "gpu.mark.ecc",
    "host.oom_kill",
    "host.mark.oomkilled",
    "oom.*",
    "gpu.oom",
)


def memory_is_cache(ctx: Context) -> Outcome:
    """Little is free because files are cached; most of the memory is available, and nobody waits for memory."""
    left, total = ctx.numbers("host.memory.available"), ctx.numbers("host.memory.total")
    if not left or not total or not _MEMORY_ASKED.search(ctx.symptom) or any(ctx.of(s) for s in _FAIL):
        return UNKNOWN
    calm = [e for v, e in ctx.numbers("host.psi", {"label": "^memory"}) if v <= 0.01]
    calm += [e for v, e in ctx.numbers("host.memory.events", {"label": "^oom"}) if v == 0]
    moved = [*ctx.numbers("host.swap.in"), *ctx.numbers("host.swap.out")]
    waits = [e for v, e in ctx.numbers("host.psi", {"label": "^memory"}) if v > 0.02]
    calm += [e for v, e in moved if v == 0]
    calm += ctx.of("host.mark.no_swapping")
    least, most = lowest(left), highest(total)
    if waits or any(v > 0 for v, _ in moved) or least[0] < 0.3 * most[0]:
        return Outcome(False, (least[1],))
    return Outcome(True, (least[1], most[1], *calm[:2])) if calm else Outcome(None, (least[1],))


def rate_beside_perftest(ctx: Context) -> Outcome:
    """The library moves data as fast as the plain RDMA test on the same NIC."""
    rates = [(v, e) for v, e in ctx.numbers("figure", {"label": "^bandwidth"}) if e.unit in ("GB/s", "Gb/s")]
    plain = [r for r in rates if re.search(r"\bib_(?:write|read|send)_bw|perftest -t|line.?rate", r[1].quote or "")]
    mine = [
        r
        for r in rates
        if re.search(r"nixl|ucx|mooncake|\bkv\b|libfabric|iperf|\btcp\b", r[1].quote or "", re.I) and r not in plain
    ]
    rest = [r for r in rates if r not in plain]
    if plain and not mine and len(rest) >= 3 and max(r[0] for r in rest) <= 1.05 * min(r[0] for r in rest):
        mine = rest  # pairs that are all as fast
    if not plain or not mine or len(rates) > 8:
        return UNKNOWN
    top, least = highest(plain), lowest(mine)
    if top[1].unit != least[1].unit:
        return UNKNOWN
    return Outcome(least[0] >= 0.92 * top[0] and min(r[0] for r in rates) >= 0.9 * top[0], (least[1], top[1]))


def _none_lost(ctx: Context) -> tuple[float, Evidence] | None:
    """A line that counts what was preempted or retracted, and counts none."""
    for value, item in ctx.numbers("figure"):
        if value == 0 and re.search(r"(?:retract|preempt)\w*[^\n:=]{0,24}[:=] ?0\b(?!\.)", item.quote or "", re.I):
            return value, item
    return None


def full_cache_no_harm(ctx: Context) -> Outcome:
    """The KV cache is well used, nothing was preempted, and nothing waits."""
    kv, waiting, lost = read.kv(ctx), read.waiting(ctx), read.top(ctx, "serving.preemptions") or _none_lost(ctx)
    if kv is None or waiting is None or lost is None or kv[0] < 0.8:
        return UNKNOWN
    asked = re.search(r"usage|alert|alarm|full|% ?kv|kv|告警|报警|占用", ctx.symptom, re.IGNORECASE)
    slow = [e for e in ctx.limits if e.ratio is not None and e.ratio > 2 and e.unit == "ms"]
    if waiting[0] > 0 or lost[0] > 0 or slow or asked is None:
        return Outcome(False, (waiting[1], lost[1]))
    return Outcome(True, (kv[1], waiting[1], lost[1]))


def several_meet_reference(ctx: Context) -> Outcome:
    """Three figures or more stand beside their reference, and each of them is within a twentieth of it."""
    found: dict[str, Ratio] = {}
    for item in ratios(ctx):
        asked = item.axis in ("node", "version") and _ACCEPTANCE.search(ctx.symptom) is not None
        if (asked or item.axis in ("expected", "time", "cold_warm")) and item.metric not in found:
            pair = f"{item.worse} {item.better}"
            if asked or item.axis == "expected" or _MORE.search(pair):
                found[item.metric] = item
    if len(found) < 3:
        return UNKNOWN
    others = [
        r for r in ratios(ctx) if r.value >= 1.15 and r.axis not in ("prompt_length", "concurrency", "message_size")
    ]
    met = all(r.value <= 1.05 for r in found.values()) and not others and not any(ctx.of(s) for s in _FAIL)
    return Outcome(met, tuple(r.evidence for r in list(found.values())[:4]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        copies_split_by_numa, sockets_split_network, sockets_split_host, slow_gpu_is_narrow, rndv_off_copies,
        rate_beside_perftest, full_cache_no_harm, bench_unequal_work, bench_serves_cache, bench_one_at_a_time, most_requests_failed, pool_holds_one, running_stays,  # noqa: E501
        hits_lost_by_routing, steps_of_launches, media_before_engine, memory_is_cache, several_meet_reference,
    )
}  # fmt: skip
