"""Named predicates of the serving family: the arithmetic of queues, KV space and token budgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome

Reading = tuple[float, Evidence]

_CAPS = r"^(max-num-seqs|max-running-requests|max-batch-size|max-concurrent-requests|parallel)$"
_BUDGETS = r"^(max-num-batched-tokens|chunked-prefill-size|max-prefill-tokens|max-num-tokens|max-batch-prefill-tokens)$"
_FRACTIONS = r"^(gpu-memory-utilization|mem-fraction-static|free-gpu-memory-fraction|kv-cache-free-gpu-mem(ory)?-fraction)$"
_PREFIX_OFF = r"^(no-enable-prefix-caching|disable-radix-cache)$"
FULL = 0.9  # share of the KV cache from which admission stalls on blocks
ROOMY = 0.8  # below this the KV cache is not what holds requests back
BUSY = 64  # running requests from which a queue is load, not a limit left low
SMALL_FRACTION = 0.6


def _yes(*used: Evidence | None) -> Outcome:
    return Outcome(True, _unique(used))


def _unique(used: Iterable[Evidence | None]) -> tuple[Evidence, ...]:
    out: dict[str, Evidence] = {}
    for item in used:
        if item is not None:
            out.setdefault(item.id, item)
    return tuple(out.values())


def _no(*used: Evidence | None) -> Outcome:
    return Outcome(False, _unique(used))


def _top(ctx: Context, signal: str, label: str | None = None) -> Reading | None:
    got = ctx.numbers(signal, {"label": label} if label else None)
    return max(got, key=lambda n: n[0]) if got else None


def _low(ctx: Context, signal: str, label: str | None = None) -> Reading | None:
    got = ctx.numbers(signal, {"label": label} if label else None)
    return min(got, key=lambda n: n[0]) if got else None


def _option(ctx: Context, label: str, signal: str = "serving.arg") -> list[Reading]:
    """Numeric values of an option."""
    out = []
    for item in ctx.of(signal, {"label": label}):
        text = str(item.value).replace(",", "")
        if re.fullmatch(r"\d+(\.\d+)?", text):
            out.append((float(text), item))
    return out


def _flag(ctx: Context, on: str, off: str = "") -> Evidence | None:
    """A bare or true flag named `on`, or one named `off` set to false."""
    for item in ctx.of("serving.arg", {"label": on}):
        if str(item.value).lower() in ("true", "1", "yes"):
            return item
    for item in ctx.of("serving.arg", {"label": off}) if off else []:
        if str(item.value).lower() in ("false", "0", "no"):
            return item
    return None


def _cap(ctx: Context) -> Reading | None:
    """The limit of running requests: the smallest that is stated."""
    stated = [*_option(ctx, _CAPS), *ctx.numbers("serving.max_num_seqs", {"label": "effective|configured"})]
    stated = [s for s in stated if s[0] >= 1]
    return min(stated, key=lambda s: s[0]) if stated else None


def _kv(ctx: Context) -> Reading | None:
    return _top(ctx, "serving.kv_usage")


def _waiting(ctx: Context) -> Reading | None:
    return _top(ctx, "serving.waiting")


def _running(ctx: Context) -> Reading | None:
    """Running requests at the moment with the most waiting, where that is known."""
    waiting = _waiting(ctx)
    if waiting is not None and waiting[1].capture is not None:
        for value, item in ctx.numbers("serving.running"):
            if item.capture is not None and item.capture.name == waiting[1].capture.name:
                return value, item
    return _top(ctx, "serving.running")


def _prompt(ctx: Context) -> Reading | None:
    """Prompt tokens of a usual request."""
    got = _top(ctx, "serving.server.prompt_tokens")
    if got is not None:
        return got
    told = _option(ctx, "^(random-input-len|synthetic-input-tokens-mean|input-len)$", "serving.bench_arg")
    return max(told, key=lambda n: n[0]) if told else None


def _lengths(ctx: Context) -> tuple[float, list[Evidence]] | None:
    """Tokens of a whole request, prompt and answer, as the client or the server counted them."""
    prompt, answer = _top(ctx, "serving.server.prompt_tokens"), _top(ctx, "serving.server.output_tokens")
    if prompt is not None and answer is not None:
        return prompt[0] + answer[0], [prompt[1], answer[1]]
    total = [_top(ctx, f"serving.client.{name}") for name in ("input_tokens", "output_tokens", "prompts")]
    if all(t is not None for t in total):
        values = [t for t in total if t is not None]
        if values[2][0] > 0:
            return (values[0][0] + values[1][0]) / values[2][0], [v[1] for v in values]
    return None


def _capacity(ctx: Context) -> Reading | None:
    """KV capacity in tokens, as logged or from blocks times block size."""
    got = _low(ctx, "serving.kv_tokens")
    if got is not None:
        return got
    blocks = _option(ctx, "^(num-gpu-blocks-override|num-gpu-blocks)$")
    size = _option(ctx, "^block-size$")
    if blocks and size:
        least = min(blocks, key=lambda b: b[0])
        return least[0] * size[0][0], least[1]
    return None


def cap_binds(ctx: Context) -> Outcome:
    """Requests wait while as many run as the limit allows and the KV cache has room."""
    waiting, running, cap, kv = _waiting(ctx), _running(ctx), _cap(ctx), _kv(ctx)
    if waiting is None or cap is None:
        return UNKNOWN
    if waiting[0] < 1 or (kv is not None and kv[0] >= ROOMY):
        return _no(waiting[1])
    if running is None:
        return UNKNOWN
    if 0.95 * cap[0] <= running[0] <= 1.05 * cap[0]:
        return _yes(waiting[1], running[1], cap[1], kv[1] if kv else None)
    return _no(running[1], cap[1])


def cap_below_load(ctx: Context) -> Outcome:
    """The limit of running requests is far below what the client keeps in flight, and first tokens wait for it."""
    cap, flight = _cap(ctx), _top(ctx, "serving.client.peak_concurrency")
    ttft, tpot = _top(ctx, "serving.client.ttft", "^(median|mean)"), _low(ctx, "serving.client.tpot", "^(median|mean)")
    kv = _kv(ctx)
    if cap is None or flight is None or ttft is None or tpot is None:
        return UNKNOWN
    if kv is not None and kv[0] >= ROOMY:
        return _no(kv[1])
    if cap[0] <= 32 and flight[0] >= 1.5 * cap[0] and ttft[0] >= 10 * max(tpot[0], 1.0):
        return _yes(cap[1], flight[1], ttft[1], tpot[1])
    return _no(cap[1], flight[1])


def cap_suspicious(ctx: Context) -> Outcome:
    """Running stands at a small number while others wait and the KV cache is mostly empty; the limit itself is not shown."""
    waiting, running, kv = _waiting(ctx), _running(ctx), _kv(ctx)
    if waiting is None or running is None or kv is None or _cap(ctx) is not None:
        return UNKNOWN
    if waiting[0] >= max(4, running[0] / 2) and 1 <= running[0] < BUSY and kv[0] < 0.5 and _budget_binds(ctx) is None:
        return _yes(waiting[1], running[1], kv[1])
    return _no(waiting[1])


def _budget(ctx: Context) -> Reading | None:
    stated = [*_option(ctx, _BUDGETS), *ctx.numbers("serving.max_batched_tokens")]
    stated = [s for s in stated if s[0] >= 16]
    return min(stated, key=lambda s: s[0]) if stated else None


def _budget_binds(ctx: Context) -> tuple[Reading, Reading] | None:
    """Prompts that alone fill the token budget of a step."""
    budget, prompt = _budget(ctx), _prompt(ctx)
    return (budget, prompt) if budget is not None and prompt is not None and prompt[0] >= 0.5 * budget[0] else None


def budget_small(ctx: Context) -> Outcome:
    """A usual prompt needs several steps because the token budget of a step is small."""
    budget, prompt = _budget(ctx), _prompt(ctx)
    if budget is None:
        return UNKNOWN
    if prompt is None:
        return UNKNOWN
    if budget[0] <= 1024 and prompt[0] >= 3 * budget[0]:
        return _yes(budget[1], prompt[1])
    return _no(budget[1], prompt[1])


def budget_tiny(ctx: Context) -> Outcome:
    """A token budget that no prompt of ordinary length fits, whatever the prompts were."""
    budget = [b for b in _option(ctx, _BUDGETS) if b[0] >= 16]
    if not budget:
        return UNKNOWN
    least = min(budget, key=lambda b: b[0])
    return _yes(least[1]) if least[0] <= 512 else _no(least[1])


def kv_pressure(ctx: Context) -> Outcome:
    """Requests wait, or were preempted, with the KV cache about full."""
    waiting, kv, lost = _waiting(ctx), _kv(ctx), _top(ctx, "serving.preemptions")
    if lost is not None and lost[0] > 0:
        return _yes(lost[1], kv[1] if kv else None, waiting[1] if waiting else None)
    if waiting is None or kv is None:
        return UNKNOWN
    if waiting[0] >= 1 and kv[0] >= FULL:
        return _yes(waiting[1], kv[1])
    return _no(waiting[1], kv[1])


def _kv_setting(ctx: Context) -> list[Evidence]:
    """Evidence that the KV space was configured small, or came out small for the lengths allowed."""
    profiled, override = _top(ctx, "serving.kv_blocks", "profiled"), _low(ctx, "serving.kv_blocks", "override")
    if profiled is not None and override is not None and override[0] < 0.5 * profiled[0]:
        return [override[1]]
    blocks = _option(ctx, "^num-gpu-blocks-override$")
    if blocks:
        return [blocks[0][1]]
    fractions = [f for f in _option(ctx, _FRACTIONS) if 0 < f[0] <= SMALL_FRACTION]
    if fractions:
        return [fractions[0][1]]
    whole = _low(ctx, "serving.max_concurrency")
    if whole is not None and whole[0] < 4:
        return [whole[1]]
    tokens, length = _low(ctx, "serving.kv_tokens"), _top(ctx, "serving.max_model_len")
    if tokens is not None and length is not None and tokens[0] < 4 * length[0]:
        return [tokens[1], length[1]]
    return []


def kv_configured_small(ctx: Context) -> Outcome:
    """The KV cache binds, and a setting or the maximum length explains why it is small."""
    setting = _kv_setting(ctx)
    if not setting:
        return UNKNOWN
    pressed = kv_pressure(ctx)
    waiting, kv = _waiting(ctx), _kv(ctx)
    if not pressed.holds and waiting is not None and kv is not None and waiting[0] >= 1 and kv[0] >= ROOMY:
        pressed = _yes(waiting[1], kv[1])
    if not pressed.holds:
        capacity, lengths, flight = _capacity(ctx), _lengths(ctx), _top(ctx, "serving.client.peak_concurrency")
        if capacity is not None and lengths is not None and flight is not None and capacity[0] < lengths[0] * flight[0]:
            pressed = _yes(capacity[1], flight[1], *lengths[1])
    return _yes(*setting, *pressed.used) if pressed.holds else Outcome(pressed.holds, _unique(setting))


def concurrency_below_load(ctx: Context) -> Outcome:
    """The cache holds fewer requests of full length than are offered at once."""
    whole, flight = _low(ctx, "serving.max_concurrency"), _top(ctx, "serving.client.peak_concurrency")
    waiting, running = _waiting(ctx), _running(ctx)
    offered = flight[0] if flight else (waiting[0] + running[0] if waiting and running else None)
    if whole is None or offered is None:
        return UNKNOWN
    used = (whole[1], flight[1] if flight else None, waiting[1] if waiting else None)
    return _yes(*used) if whole[0] < 0.5 * offered and kv_pressure(ctx).holds else _no(*used)


def waiting_with_room(ctx: Context) -> Outcome:
    """Requests wait while most of the KV cache stays free all the time."""
    waiting, kv = _waiting(ctx), _kv(ctx)
    if waiting is None or kv is None:
        return UNKNOWN
    return _yes(waiting[1], kv[1]) if waiting[0] >= 1 and kv[0] < 0.5 else _no(waiting[1], kv[1])


def burst(ctx: Context) -> Outcome:
    """All requests of a run were sent at once, and they queue."""
    rates = ctx.of("serving.client.request_rate") or ctx.of("serving.bench_arg", {"label": "^request-rate$"})
    sent, waiting, share = _top(ctx, "serving.client.prompts"), _waiting(ctx), _top(ctx, "serving.queue_share")
    limited = ctx.of("serving.client.concurrency")
    if not rates or sent is None:
        return UNKNOWN
    queued = (waiting is not None and waiting[0] >= 10) or (share is not None and share[0] >= 0.5)
    if str(rates[0].value).lower() == "inf" and sent[0] >= 64 and queued and not limited:
        return _yes(rates[0], sent[1], waiting[1] if waiting else None, share[1] if share else None)
    return _no(rates[0])


def saturated(ctx: Context) -> Outcome:
    """Many requests run and many wait, and no limit of the configuration explains it."""
    waiting, running = _waiting(ctx), _running(ctx)
    if waiting is None or running is None:
        return UNKNOWN
    if cap_binds(ctx).holds or kv_configured_small(ctx).holds:
        return _no(waiting[1])
    if waiting[0] >= 10 and running[0] >= BUSY and waiting[0] >= 0.2 * running[0]:
        kv = _kv(ctx)
        return _yes(waiting[1], running[1], kv[1] if kv else None)
    return _no(waiting[1], running[1])


def queue_dominates(ctx: Context) -> Outcome:
    """Most of the server's time to first token is spent in its queue."""
    share, ttft = _top(ctx, "serving.queue_share"), _top(ctx, "serving.server.ttft")
    queue = _top(ctx, "serving.server.queue")
    if share is None and queue is not None and ttft is not None and ttft[0] > 0:
        return _yes(queue[1], ttft[1]) if queue[0] >= 0.5 * ttft[0] and queue[0] >= 200 else _no(queue[1])
    if share is None:
        return UNKNOWN
    if share[0] >= 0.5 and (ttft is None or ttft[0] >= 200):
        return _yes(share[1], ttft[1] if ttft else None)
    return _no(share[1])


def preempting(ctx: Context) -> Outcome:
    """Running requests lose their cache in operation, with an ordinary configuration and load."""
    lost, kv = _top(ctx, "serving.preemptions"), _kv(ctx)
    if lost is None:
        return UNKNOWN
    if lost[0] < 1:
        return _no(lost[1])
    return _no(lost[1]) if burst(ctx).holds else _yes(lost[1], kv[1] if kv else None)


def prefill_dominates(ctx: Context) -> Outcome:
    """Long prompts, and their prefill is what first tokens wait for."""
    prompt, ttft = _prompt(ctx), _top(ctx, "serving.server.ttft") or _top(ctx, "serving.client.ttft", "^(mean|median)")
    prefill, share = _top(ctx, "serving.server.prefill"), _top(ctx, "serving.prefill_share")
    if prompt is None or ttft is None:
        return UNKNOWN
    if prompt[0] < 2000 or ttft[0] < 500 or budget_small(ctx).holds:
        return _no(prompt[1], ttft[1])
    mostly = share is not None and share[0] >= 0.5
    backlog = prefill is not None and prefill[0] >= 500 and not cap_binds(ctx).holds and not kv_pressure(ctx).holds
    if mostly or backlog:
        return _yes(prompt[1], ttft[1], prefill[1] if prefill else None, share[1] if share else None)
    return _no(prompt[1], ttft[1]) if share is not None or prefill is not None else UNKNOWN


def mixed_prompts(ctx: Context) -> Outcome:
    """A few prompts are many times longer than the usual one, and steps with them are slow."""
    mix, tail = _top(ctx, "serving.prompt_mix"), _top(ctx, "serving.step_tail")
    if mix is None:
        return UNKNOWN
    if mix[0] >= 10 and (tail is None or tail[0] >= 4) and not kv_pressure(ctx).holds:
        return _yes(mix[1], tail[1] if tail else None)
    return _no(mix[1])


def prefix_off_repeats(ctx: Context) -> Outcome:
    """Prefix caching is off although prompts share a prefix."""
    off = _flag(ctx, _PREFIX_OFF, "^(enable-prefix-caching|enable-block-reuse|enable-kv-cache-reuse)$")
    off = off or next(iter(ctx.of("serving.mark.prefix_off")), None)
    shared = [e for e in ctx.of("serving.bench_arg", {"label": "^dataset-name$"}) if "prefix" in str(e.value)]
    if off is None:
        return UNKNOWN
    return _yes(off, shared[0]) if shared else Outcome(None, (off,))


def block_exceeds_prompt(ctx: Context) -> Outcome:
    """The cache keeps whole blocks only, and a block is longer than what prompts share."""
    block = _top(ctx, "serving.attention_block")
    if block is None or block[0] < 128:
        return UNKNOWN
    prompt, hits = _prompt(ctx), _low(ctx, "serving.prefix_hit_rate")
    cached_none = next(iter(ctx.of("serving.mark.cached_none")), None)
    wanted = next((e for e in ctx.of("serving.arg", {"label": "^enable-prefix-caching$"}) if e.value == "true"), None)
    length = _option(ctx, "^max-model-len$")
    short = length[0][1] if length and length[0][0] < 4 * block[0] else None
    counted = next(iter(ctx.of("serving.counter", {"label": "^prefix hits"})), None)
    asked = ctx.playbook == "high-ttft"
    if prompt is not None and prompt[0] < 2 * block[0]:
        return _yes(block[1], prompt[1])
    if (hits is not None and hits[0] < 0.05) or cached_none or wanted or short or counted or asked:
        return _yes(block[1], cached_none, wanted, short, counted, hits[1] if hits else None)
    return Outcome(None, (block[1],))


def hits_zero(ctx: Context) -> Outcome:
    """The prefix cache was asked and gave nothing, although it is on."""
    got = _top(ctx, "serving.prefix_hit_rate")
    cached_none = next(iter(ctx.of("serving.mark.cached_none")), None)
    drawn = [e for e in ctx.of("serving.bench_arg", {"label": "^dataset-name$"}) if str(e.value) == "random"]
    if drawn:  # prompts drawn at random share nothing
        return _no(drawn[0])
    if got is None and cached_none is not None:
        return _yes(cached_none)
    asked = _top(ctx, "serving.counter", "^prefix queries$")
    if got is None:
        return UNKNOWN
    return _yes(got[1]) if got[0] < 0.01 and (asked is None or asked[0] > 0) else _no(got[1])


def prefix_hits(ctx: Context) -> Outcome:
    """A good part of the prompts came from the prefix cache."""
    got = _top(ctx, "serving.prefix_hit_rate")
    moved = [e for v, e in ctx.numbers("serving.counter", {"label": "^prefix hits$"}) if v > 0]
    if got is None and not moved:
        return UNKNOWN
    if got is not None and got[0] > 0.3:
        return _yes(got[1])
    return _yes(moved[0]) if moved and got is None else _no(got[1] if got else None)


def custom_ar_off(ctx: Context) -> Outcome:
    """The engine's own all-reduce is off in a group of several GPUs."""
    off = next(iter(ctx.of("serving.mark.custom_ar_off")), None) or _flag(ctx, "^disable-custom-all-reduce$")
    if off is None:
        return UNKNOWN
    sizes = _option(ctx, "^(tensor-parallel-size|tp-size|tp)$")
    return _no(sizes[0][1]) if sizes and max(s[0] for s in sizes) <= 1 else _yes(off)


def acceptance_low(ctx: Context) -> Outcome:
    """Speculation whose drafts are mostly rejected."""
    rate, length = _low(ctx, "serving.accept_rate"), _low(ctx, "serving.accept_length", "^(min|last|window)?$")
    if rate is None and length is None:
        return UNKNOWN
    used = tuple(r[1] for r in (rate, length) if r is not None)
    low = (rate is not None and rate[0] < 0.4) or (length is not None and 0 < length[0] < 1.6)
    return _yes(*used) if low else _no(*used)


def client_slower(ctx: Context) -> Outcome:
    """The client sees a much later first token than the server gave."""
    client, server = _top(ctx, "serving.client.ttft", "^mean$"), _top(ctx, "serving.server.ttft", "^mean$")
    if client is None or server is None:
        return UNKNOWN
    if client[0] >= 1.5 * server[0] and client[0] - server[0] >= 100:
        return _yes(client[1], server[1])
    return _no(client[1], server[1])


def first_request_slow(ctx: Context) -> Outcome:
    """Only the first request of a run is slow."""
    first, growth = _top(ctx, "serving.client.first_request"), _top(ctx, "serving.client.ttft_growth")
    if first is None:
        return UNKNOWN
    if first[0] >= 5 and (growth is None or growth[0] < 2):
        return _yes(first[1])
    return _no(first[1])


def ttft_grows(ctx: Context) -> Outcome:
    """TTFT grows over the requests of a run: they queue behind each other."""
    growth = _top(ctx, "serving.client.ttft_growth")
    if growth is None:
        return UNKNOWN
    return _yes(growth[1]) if growth[0] >= 3 else _no(growth[1])


def uniform_ttft(ctx: Context) -> Outcome:
    """TTFT is long and the same for all: one blocking piece of work, neither a queue nor prefill of different prompts."""
    for std, item in ctx.numbers("serving.client.ttft", {"label": "^std"}):
        suffix = (item.subject.label or "")[3:]
        for mean, other in ctx.numbers("serving.client.ttft", {"label": "^mean"}):
            if (other.subject.label or "")[4:] == suffix and mean >= 2000 and std < 0.03 * mean:
                return _yes(item, other)
    return UNKNOWN


def quant_explicit(ctx: Context) -> Outcome:
    """The plain AWQ or GPTQ kernel is asked for by name."""
    for item in ctx.of("serving.arg", {"label": "^quantization$"}):
        if str(item.value).lower() in ("awq", "gptq"):
            good = ctx.of("serving.mark.marlin_ok")
            return _no(good[0]) if good else _yes(item)
    return UNKNOWN


def eager(ctx: Context) -> Outcome:
    """CUDA graphs are switched off on a GPU server."""
    on_cpu = any("CPU KV cache" in (e.quote or "") for e in ctx.of("serving.kv_tokens"))
    flag = _flag(ctx, "^(enforce-eager|disable-cuda-graph)$", "^use-cuda-graph$")
    mark = next(iter([*ctx.of("serving.mark.cudagraph_none"), *ctx.of("serving.mark.eager")]), None)
    if flag is None and mark is None:
        return UNKNOWN
    return _no(flag or mark) if on_cpu else _yes(flag, mark)


def eager_effect(ctx: Context) -> Outcome:
    """Without graphs, and the weights are read far below what any data-centre GPU gives."""
    rate = _top(ctx, "serving.weight_rate")
    if rate is None or not eager(ctx).holds:
        return UNKNOWN
    return _yes(rate[1]) if rate[0] < 900 else _no(rate[1])


def graph_batch_exceeded(ctx: Context) -> Outcome:
    """More requests decode than the largest captured graph covers."""
    captured = [*ctx.numbers("serving.graph_batch"), *_option(ctx, "^(cuda-graph-max-bs(-decode)?|max-cudagraph-capture-size)$")]
    largest = max(captured, key=lambda r: r[0], default=None)
    offered = max(
        [r for r in (_top(ctx, "serving.running"), _top(ctx, "serving.decode_batch")) if r is not None],
        key=lambda r: r[0], default=None,
    )  # fmt: skip
    if largest is None or offered is None:
        return UNKNOWN
    # a step of hundreds of requests is no longer bound by launches
    return _yes(largest[1], offered[1]) if 1.1 * largest[0] < offered[0] and largest[0] < 200 else _no(largest[1])


def front_busy(ctx: Context) -> Outcome:
    """A front-end process is at one core while the engine's process is not."""
    procs = ctx.numbers("serving.proc.cpu")
    front = [p for p in procs if re.search(r"api|uvicorn|vllm serve|python", p[1].subject.label or "", re.I)]
    engine = [p for p in procs if re.search(r"EngineCore|Worker|scheduler", p[1].subject.label or "", re.I)]
    if not front or not engine:
        return UNKNOWN
    busy, core = max(front, key=lambda p: p[0]), max(engine, key=lambda p: p[0])
    return _yes(busy[1], core[1]) if busy[0] >= 95 and core[0] < 80 else _no(busy[1], core[1])


def rate_behind_semaphore(ctx: Context) -> Outcome:
    """A request rate and a concurrency limit together: the clock may start after the wait for a slot."""
    rate = [e for e in ctx.of("serving.bench_arg", {"label": "^request-rate$"}) if str(e.value).lower() != "inf"]
    rate = rate or [e for e in ctx.of("serving.client.request_rate") if str(e.value).lower() != "inf"]
    limit = ctx.of("serving.bench_arg", {"label": "^max-concurrency$"}) or ctx.of("serving.client.concurrency")
    if not rate or not limit:
        return UNKNOWN
    return _yes(rate[0], limit[0])


def not_streamed(ctx: Context) -> Outcome:
    """The first token arrives together with the last."""
    ttft, whole = _top(ctx, "serving.client.ttft", "^(mean|median)$"), _low(ctx, "serving.client.e2e", "^(mean|median)$")
    tokens, sent = _top(ctx, "serving.client.output_tokens"), _top(ctx, "serving.client.prompts")
    if ttft is None or whole is None or tokens is None or sent is None or sent[0] <= 0:
        return UNKNOWN
    return _yes(ttft[1], whole[1]) if ttft[0] >= 0.97 * whole[0] and tokens[0] / sent[0] >= 8 else _no(ttft[1])


def _numbers(text: str) -> float | None:
    hit = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    return float(hit.group().replace(",", "")) if hit else None


def _swept(ctx: Context, words: str) -> bool:
    """Is an option named `words` the swept column of a table?"""
    return any(re.search(words, e.subject.label or "", re.IGNORECASE) for e in ctx.of("serving.swept"))


def _setting(ctx: Context, words: str, worse_is_less: bool, above: float) -> Outcome:
    """A comparison whose settings are values of an option named `words`, worse on the small (or large) side."""
    for ratio, item in ctx.numbers("compare.ratio"):
        label = item.subject.label or ""
        parts = label.split("|")
        named = re.search(words, label, re.IGNORECASE) or _swept(ctx, words)
        if len(parts) != 4 or ratio < above or not named:
            continue
        worse, better = _numbers(parts[2]), _numbers(parts[3])
        if worse is not None and better is not None and worse != better and (worse < better) == worse_is_less:
            return _yes(item)
    return UNKNOWN


def budget_raises(ctx: Context) -> Outcome:
    """A larger token budget was better."""
    return _setting(ctx, r"batched.?tokens|chunk\w*.?(prefill)?.?size|prefill.?tokens|max.?num.?tokens", True, 1.15)


def budget_hurts(ctx: Context) -> Outcome:
    """A larger token budget made tokens later."""
    return _setting(ctx, r"batched.?tokens|chunk\w*.?(prefill)?.?size|prefill.?tokens", False, 1.15)


def cap_raises(ctx: Context) -> Outcome:
    """A larger limit of running requests was better."""
    return _setting(ctx, r"max.?num.?seqs|max.?running|max.?batch.?size|max.?concurrent.?req", True, 1.15)


def memory_raises(ctx: Context) -> Outcome:
    """More memory for the KV cache was better."""
    return _setting(ctx, r"gpu.?mem\w*.?util|mem.?fraction|num.?gpu.?blocks|free.?gpu.?mem", True, 1.15)


def tp_hurts(ctx: Context) -> Outcome:
    """More tensor parallelism was slower, at the end of the sweep or anywhere in it."""
    got = _setting(ctx, r"^(tp|ngpus)\|", False, 1.03)
    if got.holds or not any((e.subject.label or "").startswith(("tp|", "ngpus|")) for e in ctx.of("compare.ratio")):
        return got
    rows = []
    for value, item in ctx.numbers("figure"):
        metric, _, size = (item.subject.label or "").rpartition("|")
        if re.search(r"tpot|itl|latency|ttft", metric) and (number := _numbers(size)) is not None:
            rows.append((number, value, item))
    rows.sort(key=lambda r: r[0])
    for (small, before, first), (large, after, second) in zip(rows, rows[1:], strict=False):
        if large > small and after > 1.1 * before:
            return _yes(first, second)
    return UNKNOWN


def experts_uneven(ctx: Context) -> Outcome:
    """One expert or rank gets a multiple of the tokens of the usual one."""
    got = sorted(ctx.numbers("serving.expert_tokens"), key=lambda n: n[0])
    if len(got) < 3:
        return UNKNOWN
    middle, most = got[(len(got) - 1) // 2], got[-1]
    return _yes(most[1], middle[1]) if most[0] > 1.5 * middle[0] > 0 else _no(most[1], middle[1])


def workers_raise(ctx: Context) -> Outcome:
    """More API server processes were better."""
    return _setting(ctx, r"api.?server.?count|(api|frontend|http).{0,12}(workers|processes)", True, 1.15)


def _measured(ctx: Context) -> list[Evidence] | None:
    """The server was measured over enough requests, nothing waited, and the client agrees."""
    share, requests = _top(ctx, "serving.queue_share"), _top(ctx, "serving.server.requests")
    waiting = _waiting(ctx)
    if share is None and waiting is None or requests is None or requests[0] < 10 or (share is not None and share[0] > 0.1):
        return None
    growth, tail = _top(ctx, "serving.client.ttft_growth"), _top(ctx, "serving.client.ttft", "^p99$")
    if share is None and (tail is None or (growth is not None and growth[0] > 2)):
        return None
    lost = _top(ctx, "serving.preemptions")
    if (waiting is not None and waiting[0] > 0) or (lost is not None and lost[0] > 0):
        return None
    mix = _top(ctx, "serving.prompt_mix")
    if (mix is not None and mix[0] >= 10) or client_slower(ctx).holds or eager(ctx).holds or budget_small(ctx).holds:
        return None
    return list(_unique((share[1] if share else None, requests[1], waiting[1] if waiting else None)))


def healthy_serving_ttft(ctx: Context) -> Outcome:
    """Nothing queues, TTFT is the prefill, and its tail is short."""
    base, ttft = _measured(ctx), _top(ctx, "serving.server.ttft")
    if base is None or ttft is None:
        return UNKNOWN
    prompt, part = _prompt(ctx), _top(ctx, "serving.prefill_share")
    tail, usual = _top(ctx, "serving.client.ttft", "^p99$"), _low(ctx, "serving.client.ttft", "^(median|p50)$")
    if tail is not None and usual is not None and tail[0] > 4 * usual[0]:
        return _no(tail[1], usual[1])
    if prefill_dominates(ctx).holds or (part is not None and part[0] < 0.4) or prefix_off_repeats(ctx).holds:
        return _no(ttft[1])
    # a thousand prompt tokens in a second is slow even for a CPU; such a prefill is no healthy reading of a GPU
    if prompt is not None and ttft[0] > 1000 and prompt[0] < ttft[0]:
        return _no(ttft[1], prompt[1])
    return _yes(ttft[1], *base, prompt[1] if prompt else None)


def healthy_serving_tpot(ctx: Context) -> Outcome:
    """Tokens come evenly, and a step reads the weights at a rate that only healthy hardware gives."""
    base = _measured(ctx)
    rate = _top(ctx, "serving.weight_rate")
    if base is None or rate is None:
        return UNKNOWN
    tail, usual = _top(ctx, "serving.client.tpot", "^p99$"), _low(ctx, "serving.client.tpot", "^(median|p50)$")
    if tail is not None and usual is not None and tail[0] > 2 * usual[0]:
        return _no(tail[1], usual[1])
    return _yes(rate[1], *base, usual[1] if usual else None) if rate[0] >= 1200 else _no(rate[1])


RULES: dict[str, Callable[[Context], Outcome]] = {
    f"serving_{rule.__name__}": rule
    for rule in (
        cap_binds, cap_below_load, cap_suspicious, cap_raises, budget_small, budget_tiny, budget_raises, budget_hurts,
        kv_pressure, kv_configured_small, concurrency_below_load, memory_raises, waiting_with_room, burst, saturated, queue_dominates,
        preempting, prefill_dominates, mixed_prompts, prefix_off_repeats, block_exceeds_prompt, hits_zero,
        prefix_hits, custom_ar_off, acceptance_low, client_slower, first_request_slow, ttft_grows, uniform_ttft, quant_explicit, eager, eager_effect,
        graph_batch_exceeded, front_busy, rate_behind_semaphore, not_streamed, experts_uneven, tp_hurts, workers_raise,
    )
} | {"healthy_serving_ttft": healthy_serving_ttft, "healthy_serving_tpot": healthy_serving_tpot}  # fmt: skip
