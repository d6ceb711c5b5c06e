"""Named predicates of the serving family: prefix cache, speculation, kernels, clients, measurement, health."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..serving_roles import ENGINE, FRONT
from . import serving_mech as mech
from . import serving_prefix as prefix
from . import serving_queue as queue
from . import serving_read as read
from .base import highest


def prefix_off_repeats(ctx: Context) -> Outcome:
    """Prefix caching is off although prompts share a prefix."""
    off = prefix.switched_off(ctx)
    shared = [e for e in ctx.of("serving.bench_arg", {"label": "^dataset-name$"}) if "prefix" in str(e.value)]
    if off is None:
        return UNKNOWN
    return read.yes(off, shared[0]) if shared else Outcome(None, (off,))


def block_exceeds_prompt(ctx: Context) -> Outcome:
    """The cache keeps whole blocks only, and a block is longer than what prompts share."""
    block = read.top(ctx, "serving.attention_block")
    if block is None or block[0] < 128:
        return UNKNOWN
    prompt, hits = read.prompt(ctx), read.low(ctx, "serving.prefix_hit_rate")
    cached_none = next(iter(ctx.of("serving.mark.cached_none")), None)
    wanted = next((e for e in ctx.of("serving.arg", {"label": "^enable-prefix-caching$"}) if e.value == "true"), None)
    length = read.option(ctx, "^max-model-len$")
    short = length[0][1] if length and length[0][0] < 4 * block[0] else None
    counted = next(iter(ctx.of("serving.counter", {"label": "^prefix hits"})), None)
    asked = ctx.asks("high-ttft")
    if prompt is not None and prompt[0] < 2 * block[0]:
        return read.yes(block[1], prompt[1])
    if (hits is not None and hits[0] < 0.05) or cached_none or wanted or short or counted or asked:
        return read.yes(block[1], cached_none, wanted, short, counted, hits[1] if hits else None)
    return Outcome(None, (block[1],))


def hits_zero(ctx: Context) -> Outcome:
    """The prefix cache was asked and gave nothing, although it is on."""
    got = read.top(ctx, "serving.prefix_hit_rate")
    cached_none = next(iter(ctx.of("serving.mark.cached_none")), None)
    drawn = [e for e in ctx.of("serving.bench_arg", {"label": "^dataset-name$"}) if str(e.value) == "random"]
    if drawn:  # prompts drawn at random share nothing
        return read.no(drawn[0])
    if not mech.shares_prefix(ctx):
        return UNKNOWN
    if got is None and cached_none is not None:
        return read.yes(cached_none)
    asked = read.top(ctx, "serving.counter", "^prefix queries$")
    if got is None:
        return UNKNOWN
    return read.yes(got[1]) if got[0] < 0.01 and (asked is None or asked[0] > 0) else read.no(got[1])


def prefix_hits(ctx: Context) -> Outcome:
    """A good part of the prompts came from the prefix cache."""
    got = read.top(ctx, "serving.prefix_hit_rate")
    moved = [e for v, e in ctx.numbers("serving.counter", {"label": "^prefix hits$"}) if v > 0]
    if got is None and not moved:
        return UNKNOWN
    if got is not None and got[0] > 0.3:
        return read.yes(got[1])
    return read.yes(moved[0]) if moved and got is None else read.no(got[1] if got else None)


def custom_ar_off(ctx: Context) -> Outcome:
    """The engine's own all-reduce is off in a group of several GPUs."""
    off = next(iter(ctx.of("serving.mark.custom_ar_off")), None) or read.flag(ctx, "^disable-custom-all-reduce$")
    if off is None:
        return UNKNOWN
    sizes = read.option(ctx, read.TENSOR_PARALLEL)
    return read.no(sizes[0][1]) if sizes and max(s[0] for s in sizes) <= 1 else read.yes(off)


def acceptance_low(ctx: Context) -> Outcome:
    """Speculation whose drafts are mostly rejected."""
    rate, length = read.low(ctx, "serving.accept_rate"), read.low(ctx, "serving.accept_length", "^(min|last|window)?$")
    if rate is None and length is None:
        return UNKNOWN
    used = tuple(r[1] for r in (rate, length) if r is not None)
    low = (rate is not None and rate[0] < 0.4) or (length is not None and 0 < length[0] < 1.6)
    return read.yes(*used) if low else read.no(*used)


def client_slower(ctx: Context) -> Outcome:
    """The client sees a much later first token than the server gave."""
    client, server = read.top(ctx, "serving.client.ttft", "^mean$"), read.top(ctx, "serving.server.ttft", "^mean$")
    if client is None or server is None:
        return UNKNOWN
    sent, counted = read.top(ctx, "serving.client.prompts"), read.top(ctx, "serving.server.requests")
    if sent is not None and counted is not None and abs(counted[0] - sent[0]) > max(2.0, 0.25 * sent[0]):
        return UNKNOWN  # means of other requests: an hour of traffic beside one benchmark
    if client[0] >= 1.5 * server[0] and client[0] - server[0] >= 100:
        return read.yes(client[1], server[1])
    return read.no(client[1], server[1])


def first_request_slow(ctx: Context) -> Outcome:
    """Only the first request of a run is slow."""
    first, growth = read.top(ctx, "serving.client.first_request"), read.top(ctx, "serving.client.ttft_growth")
    if first is None:
        return UNKNOWN
    if first[0] >= 5 and (growth is None or growth[0] < 2):
        return read.yes(first[1])
    return read.no(first[1])


def ttft_grows(ctx: Context) -> Outcome:
    """TTFT grows over the requests of a run: they queue behind each other."""
    growth = read.top(ctx, "serving.client.ttft_growth")
    if growth is None:
        return UNKNOWN
    return read.yes(growth[1]) if growth[0] >= 3 else read.no(growth[1])


def uniform_ttft(ctx: Context) -> Outcome:
    """TTFT is long and the same for all: one blocking piece of work, neither a queue nor prefill."""
    for std, item in ctx.numbers("serving.client.ttft", {"label": "^std"}):
        suffix = (item.subject.label or "")[3:]
        for mean, other in ctx.numbers("serving.client.ttft", {"label": "^mean"}):
            together = item.spans[0].capture == other.spans[0].capture  # not the mean of another back end
            if together and (other.subject.label or "")[4:] == suffix and mean >= 2000 and std < 0.03 * mean:
                return read.yes(item, other)
    return UNKNOWN


def quant_explicit(ctx: Context) -> Outcome:
    """The plain AWQ or GPTQ kernel is asked for by name."""
    for item in ctx.of("serving.arg", {"label": "^quantization$"}):
        if str(item.value).lower() in ("awq", "gptq"):
            good = ctx.of("serving.mark.marlin_ok")
            return read.no(good[0]) if good else read.yes(item)
    return UNKNOWN


def eager(ctx: Context) -> Outcome:
    """CUDA graphs are switched off on a GPU server."""
    on_cpu = any("CPU KV cache" in (e.quote or "") for e in ctx.of("serving.kv_tokens"))
    flag = read.flag(ctx, "^(enforce-eager|disable-cuda-graph)$", "^use-cuda-graph$")
    mark = next(iter([*ctx.of("serving.mark.cudagraph_none"), *ctx.of("serving.mark.eager")]), None)
    if flag is None and mark is None:
        return UNKNOWN
    return read.no(flag or mark) if on_cpu else read.yes(flag, mark)


def eager_effect(ctx: Context) -> Outcome:
    """Without graphs, and the weights are read far below what any data-centre GPU gives."""
    rate = read.top(ctx, "serving.weight_rate")
    if rate is None or not eager(ctx).holds:
        return UNKNOWN
    return read.yes(rate[1]) if rate[0] < 900 else read.no(rate[1])


def graph_batch_exceeded(ctx: Context) -> Outcome:
    """More requests decode than the largest captured graph covers."""
    captured = [
        *ctx.numbers("serving.graph_batch"),
        *read.option(ctx, "^(cuda-graph-max-bs(-decode)?|max-cudagraph-capture-size)$"),
    ]
    largest = max(captured, key=lambda r: r[0], default=None)
    offered = max(
        [r for r in (read.top(ctx, "serving.running"), read.top(ctx, "serving.decode_batch")) if r is not None],
        key=lambda r: r[0], default=None,
    )  # fmt: skip
    if largest is None or offered is None:
        return UNKNOWN
    # a step of hundreds of requests is no longer bound by launches
    return (
        read.yes(largest[1], offered[1]) if 1.1 * largest[0] < offered[0] and largest[0] < 200 else read.no(largest[1])
    )


def _pid(evidence: Evidence) -> int | None:
    """The process id behind a label such as ``python3 519``."""
    hit = re.search(r"\s(\d+)$", evidence.subject.label or "")
    return int(hit.group(1)) if hit else None


def front_busy(ctx: Context) -> Outcome:
    """A front-end process is at one core while the engine's process is not.

    An interpreter without a name of its own is the front only where it started before its engine: the client that
    measures is a ``python3`` too, and starts last.
    """
    procs = ctx.numbers("serving.proc.cpu")
    engine = [p for p in procs if ENGINE.search(p[1].subject.label or "")]
    first = min((pid for _, e in engine if (pid := _pid(e)) is not None), default=None)
    front = [
        p
        for p in procs
        if FRONT.search(p[1].subject.label or "")
        or (re.search(r"python", p[1].subject.label or "", re.I) and (first is None or (_pid(p[1]) or 0) < first))
    ]
    if not front or not engine:
        return UNKNOWN
    busy, core = highest(front), highest(engine)
    return read.yes(busy[1], core[1]) if busy[0] >= 95 and core[0] < 80 else read.no(busy[1], core[1])


def general_attention_chosen(ctx: Context) -> Outcome:
    """A portable attention kernel was asked for by name, prompts are long, and the GPU is not AMD's.

    On AMD and on GPUs without FlashAttention the Triton kernel is the default, and nobody has to ask for it.
    """
    asked = [
        e
        for e in (
            *ctx.of("serving.arg", {"label": "^((prefill-|decode-)?attention-backend)$"}),
            *ctx.of("env.var", {"label": "^VLLM_ATTENTION_BACKEND$"}),
        )
        if re.search(r"^[\"']?triton", str(e.value), re.I)
    ]
    if not asked:
        return UNKNOWN
    if any(re.search(r"\bMI\d|Radeon|Instinct|\bT4\b|V100|RTX 20", str(e.value)) for e in ctx.of("gpu.name")):
        return read.no(asked[0])
    long = read.prompt(ctx)
    return read.yes(asked[0], long[1]) if long is not None and long[0] >= 2000 else read.no(asked[0])


def rate_behind_semaphore(ctx: Context) -> Outcome:
    """A request rate and a concurrency limit together: the clock may start after the wait for a slot."""
    rate = [e for e in ctx.of("serving.bench_arg", {"label": "^request-rate$"}) if str(e.value).lower() != "inf"]
    rate = rate or [e for e in ctx.of("serving.client.request_rate") if str(e.value).lower() != "inf"]
    limit = ctx.of("serving.bench_arg", {"label": "^max-concurrency$"}) or ctx.of("serving.client.concurrency")
    if not rate or not limit:
        return UNKNOWN
    return read.yes(rate[0], limit[0])


_NO_STEP = 1.0  # ms a token, below which no decode step took place


def not_streamed(ctx: Context) -> Outcome:
    """The first token arrives together with the last."""
    ttft, whole = next(
        (
            pair for label in ("^mean$", "^median$")
            if all(pair := (read.top(ctx, "serving.client.ttft", label), read.low(ctx, "serving.client.e2e", label)))
        ), (None, None),
    )  # fmt: skip
    tokens, sent = read.top(ctx, "serving.client.output_tokens"), read.top(ctx, "serving.client.prompts")
    if ttft is None or whole is None or tokens is None or sent is None or sent[0] <= 0:
        return UNKNOWN
    length = tokens[0] / sent[0]
    if length < 8:
        return read.no(ttft[1])
    # a long wait before the first token is most of a request too: what tells is the time left for all the others
    at_once = ttft[0] >= 0.97 * whole[0] and (whole[0] - ttft[0]) / (length - 1) < _NO_STEP
    return read.yes(ttft[1], whole[1]) if at_once else read.no(ttft[1])


def tp_hurts(ctx: Context) -> Outcome:
    """More tensor parallelism was slower, at the end of the sweep or anywhere in it."""
    got = read.setting(ctx, r"^(tp|ngpus)\|", False, 1.03)
    if got.holds or not any((e.subject.label or "").startswith(("tp|", "ngpus|")) for e in ctx.of("compare.ratio")):
        return got
    rows = []
    for value, item in ctx.numbers("figure"):
        metric, _, size = (item.subject.label or "").rpartition("|")
        if re.search(r"tpot|itl|latency|ttft", metric) and (number := read.numbers(size)) is not None:
            rows.append((number, value, item))
    rows.sort(key=lambda r: r[0])
    for (small, before, first), (large, after, second) in pairwise(rows):
        if large > small and after > 1.1 * before:
            return read.yes(first, second)
    return UNKNOWN


def experts_uneven(ctx: Context) -> Outcome:
    """One expert or rank gets a multiple of the tokens of the usual one."""
    got = sorted(ctx.numbers("serving.expert_tokens"), key=lambda n: n[0])
    if len(got) < 3:
        return UNKNOWN
    middle, most = got[(len(got) - 1) // 2], got[-1]
    return read.yes(most[1], middle[1]) if most[0] > 1.5 * middle[0] > 0 else read.no(most[1], middle[1])


def workers_raise(ctx: Context) -> Outcome:
    """More API server processes were better."""
    return read.setting(ctx, r"api.?server.?count|(api|frontend|http).{0,12}(workers|processes)", True, 1.15)


def _measured(ctx: Context) -> list[Evidence] | None:
    """The server was measured over enough requests, nothing waited, and the client agrees."""
    share, requests = read.top(ctx, "serving.queue_share"), read.top(ctx, "serving.server.requests")
    waiting = read.waiting(ctx)
    if (
        (share is None and waiting is None)
        or requests is None
        or requests[0] < 10
        or (share is not None and share[0] > 0.1)
    ):
        return None
    growth, tail = read.top(ctx, "serving.client.ttft_growth"), read.top(ctx, "serving.client.ttft", "^p99$")
    if share is None and (tail is None or (growth is not None and growth[0] > 2)):
        return None
    lost = read.top(ctx, "serving.preemptions")
    if (waiting is not None and waiting[0] > 0) or (lost is not None and lost[0] > 0):
        return None
    mix = read.top(ctx, "serving.prompt_mix")
    if (
        (mix is not None and mix[0] >= 10)
        or client_slower(ctx).holds
        or eager(ctx).holds
        or queue.budget_small(ctx).holds
    ):
        return None
    return list(read.unique((share[1] if share else None, requests[1], waiting[1] if waiting else None)))


def healthy_serving_ttft(ctx: Context) -> Outcome:
    """Nothing queues, TTFT is the prefill, and its tail is short."""
    base, ttft = _measured(ctx), read.top(ctx, "serving.server.ttft")
    if base is None or ttft is None:
        return UNKNOWN
    prompt, part = read.prompt(ctx), read.top(ctx, "serving.prefill_share")
    tail, usual = read.top(ctx, "serving.client.ttft", "^p99$"), read.low(ctx, "serving.client.ttft", "^(median|p50)$")
    if tail is not None and usual is not None and tail[0] > 4 * usual[0]:
        return read.no(tail[1], usual[1])
    unlike = (queue.prefill_dominates, prefix_off_repeats, prefix.off_and_prefill, general_attention_chosen)
    if (part is not None and part[0] < 0.4) or any(rule(ctx).holds for rule in unlike):
        return read.no(ttft[1])
    # a thousand prompt tokens in a second is slow even for a CPU; such a prefill is no healthy reading of a GPU
    if prompt is not None and ttft[0] > 1000 and prompt[0] < ttft[0]:
        return read.no(ttft[1], prompt[1])
    return read.yes(ttft[1], *base, prompt[1] if prompt else None)


def healthy_serving_tpot(ctx: Context) -> Outcome:
    """Tokens come evenly, and a step reads the weights at a rate that only healthy hardware gives."""
    base = _measured(ctx)
    rate = read.top(ctx, "serving.weight_rate")
    if base is None or rate is None:
        return UNKNOWN
    if general_attention_chosen(ctx).holds:
        return read.no(rate[1])
    tail, usual = read.top(ctx, "serving.client.tpot", "^p99$"), read.low(ctx, "serving.client.tpot", "^(median|p50)$")
    if tail is not None and usual is not None and tail[0] > 2 * usual[0]:
        return read.no(tail[1], usual[1])
    return read.yes(rate[1], *base, usual[1] if usual else None) if rate[0] >= 1200 else read.no(rate[1])


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    *queue.QUEUE,
    prefix_off_repeats,
    block_exceeds_prompt,
    hits_zero,
    prefix_hits,
    custom_ar_off,
    acceptance_low,
    client_slower,
    first_request_slow,
    ttft_grows,
    uniform_ttft,
    quant_explicit,
    eager,
    eager_effect,
    graph_batch_exceeded,
    front_busy,
    general_attention_chosen,
    rate_behind_semaphore,
    not_streamed,
    tp_hurts,
    experts_uneven,
    workers_raise,
)
RULES: dict[str, Callable[[Context], Outcome]] = {f"serving_{rule.__name__}": rule for rule in _ALL}
RULES |= mech.RULES
RULES |= {"healthy_serving_ttft": healthy_serving_ttft, "healthy_serving_tpot": healthy_serving_tpot}
