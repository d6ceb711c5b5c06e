"""Rules of the queue, the limits of running requests, KV space and the token budget."""

from __future__ import annotations

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import Reading, lowest
from .serving_mech import preemptions_rare as rare


def cap_binds(ctx: Context) -> Outcome:
    """Requests wait while as many run as the limit allows and the KV cache has room."""
    waiting, running, cap, kv = read.waiting(ctx), read.running(ctx), read.cap(ctx), read.kv(ctx)
    if waiting is None or cap is None:
        return UNKNOWN
    if waiting[0] < 1 or (kv is not None and kv[0] >= read.ROOMY):
        return read.no(waiting[1])
    if running is None:
        return UNKNOWN
    if 0.95 * cap[0] <= running[0] <= 1.05 * cap[0]:
        return read.yes(waiting[1], running[1], cap[1], kv[1] if kv else None)
    return read.no(running[1], cap[1])


def cap_below_load(ctx: Context) -> Outcome:
    """The limit of running requests is far below what the client keeps in flight, and first tokens wait for it."""
    cap, flight = read.cap(ctx), read.top(ctx, "serving.client.peak_concurrency")
    ttft, tpot = (
        read.top(ctx, "serving.client.ttft", "^(median|mean)"),
        read.low(ctx, "serving.client.tpot", "^(median|mean)"),
    )
    kv = read.kv(ctx)
    if cap is None or flight is None or ttft is None or tpot is None:
        return UNKNOWN
    if kv is not None and kv[0] >= read.ROOMY:
        return read.no(kv[1])
    if cap[0] <= 32 and flight[0] >= 1.5 * cap[0] and ttft[0] >= 10 * max(tpot[0], 1.0):
        return read.yes(cap[1], flight[1], ttft[1], tpot[1])
    return read.no(cap[1], flight[1])


def cap_suspicious(ctx: Context) -> Outcome:
    """Few run and others wait while the KV cache is mostly empty; the limit itself is not shown."""
    waiting, running, kv = read.waiting(ctx), read.running(ctx), read.kv(ctx)
    if waiting is None or running is None or kv is None or read.cap(ctx) is not None:
        return UNKNOWN
    if (
        waiting[0] >= max(4, running[0] / 2)
        and 1 <= running[0] < read.BUSY
        and kv[0] < 0.5
        and _budget_binds(ctx) is None
    ):
        return read.yes(waiting[1], running[1], kv[1])
    return read.no(waiting[1])


def _budget_binds(ctx: Context) -> tuple[Reading, Reading] | None:
    """Prompts that alone fill the token budget of a step."""
    budget, prompt = read.budget(ctx), read.prompt(ctx)
    return (budget, prompt) if budget is not None and prompt is not None and prompt[0] >= 0.5 * budget[0] else None


def budget_small(ctx: Context) -> Outcome:
    """A usual prompt needs several steps because the token budget of a step is small."""
    budget, prompt = read.budget(ctx), read.prompt(ctx)
    if budget is None:
        return UNKNOWN
    if prompt is None:
        return UNKNOWN
    if budget[0] <= 1024 and prompt[0] >= 3 * budget[0]:
        return read.yes(budget[1], prompt[1])
    return read.no(budget[1], prompt[1])


def budget_tiny(ctx: Context) -> Outcome:
    """A token budget that no prompt of ordinary length fits, whatever the prompts were."""
    budget = [b for b in read.option(ctx, read.BUDGETS) if b[0] >= 16]
    if not budget:
        return UNKNOWN
    least = lowest(budget)
    return read.yes(least[1]) if least[0] <= 512 else read.no(least[1])


def kv_pressure(ctx: Context) -> Outcome:
    """Requests wait, or were preempted, with the KV cache about full."""
    waiting, kv, lost = read.waiting(ctx), read.kv(ctx), read.top(ctx, "serving.preemptions")
    if lost is not None and lost[0] > 0 and not rare(ctx).holds:
        full = kv[1] if kv and kv[0] >= read.ROOMY else None  # a scrape at rest shows neither
        return read.yes(lost[1], full, waiting[1] if waiting and waiting[0] >= 1 else None)
    if waiting is None or kv is None:
        return UNKNOWN
    if waiting[0] >= 1 and kv[0] >= read.FULL:
        return read.yes(waiting[1], kv[1])
    return read.no(waiting[1], kv[1])


def _kv_setting(ctx: Context) -> list[Evidence]:
    """Evidence that the KV space was configured small, or came out small for the lengths allowed."""
    profiled, override = read.top(ctx, "serving.kv_blocks", "profiled"), read.low(ctx, "serving.kv_blocks", "override")
    if profiled is not None and override is not None and override[0] < 0.5 * profiled[0]:
        return [override[1]]
    blocks = read.option(ctx, "^num-gpu-blocks-override$")
    if blocks:
        return [blocks[0][1]]
    fractions = [f for f in read.option(ctx, read.FRACTIONS) if 0 < f[0] <= read.SMALL_FRACTION]
    if fractions:
        return [fractions[0][1]]
    whole = read.low(ctx, "serving.max_concurrency")
    if whole is not None and whole[0] < 4:
        return [whole[1]]
    tokens, length = read.low(ctx, "serving.kv_tokens"), read.top(ctx, "serving.max_model_len")
    if tokens is not None and length is not None and tokens[0] < 4 * length[0]:
        return [tokens[1], length[1]]
    return []


_HELD = 0.4  # share of the cache in use on the mean; peaks lie higher


def kv_configured_small(ctx: Context) -> Outcome:
    """The KV cache binds, and a setting or the maximum length explains why it is small."""
    setting = _kv_setting(ctx)
    if not setting:
        return UNKNOWN
    pressed = kv_pressure(ctx)
    waiting, kv = read.waiting(ctx), read.kv(ctx)
    if not pressed.holds and waiting is not None and kv is not None and waiting[0] >= 1 and kv[0] >= read.ROOMY:
        pressed = read.yes(waiting[1], kv[1])
    if not pressed.holds:
        capacity, lengths, flight = (
            read.capacity(ctx),
            read.lengths(ctx),
            read.top(ctx, "serving.client.peak_concurrency"),
        )
        if capacity is not None and lengths is not None and flight is not None and capacity[0] < lengths[0] * flight[0]:
            rate, inside = read.top(ctx, "serving.client.request_tput"), read.top(ctx, "serving.server.inference")
            # who waits in the queue holds no KV: by Little's law so much of it is in use on the mean
            held = rate[0] * inside[0] / 1000 * lengths[0] if rate and inside else capacity[0]
            pressed = read.yes(capacity[1], flight[1], *lengths[1]) if held >= _HELD * capacity[0] else pressed
    return read.yes(*setting, *pressed.used) if pressed.holds else Outcome(pressed.holds, read.unique(setting))


def concurrency_below_load(ctx: Context) -> Outcome:
    """The cache holds fewer requests of full length than are offered at once."""
    whole, flight = read.low(ctx, "serving.max_concurrency"), read.top(ctx, "serving.client.peak_concurrency")
    waiting, running = read.waiting(ctx), read.running(ctx)
    offered = flight[0] if flight else (waiting[0] + running[0] if waiting and running else None)
    if whole is None or offered is None:
        return UNKNOWN
    used = (whole[1], flight[1] if flight else None, waiting[1] if waiting else None)
    return read.yes(*used) if whole[0] < 0.5 * offered and kv_pressure(ctx).holds else read.no(*used)


def waiting_with_room(ctx: Context) -> Outcome:
    """Requests wait while most of the KV cache stays free all the time."""
    waiting, kv = read.waiting(ctx), read.kv(ctx)
    if waiting is None or kv is None:
        return UNKNOWN
    return read.yes(waiting[1], kv[1]) if waiting[0] >= 1 and kv[0] < 0.5 else read.no(waiting[1], kv[1])


def few_fill_cache(ctx: Context) -> Outcome:
    """A handful of running requests fills the KV cache while others wait."""
    waiting, running, kv = read.waiting(ctx), read.running(ctx), read.kv(ctx)
    if waiting is None or running is None or kv is None:
        return UNKNOWN
    if waiting[0] >= 1 and 1 <= running[0] <= 16 and kv[0] >= read.FULL:
        return read.yes(waiting[1], running[1], kv[1])
    return read.no(running[1], kv[1])


def burst(ctx: Context) -> Outcome:
    """All requests of a run were sent at once, and they queue."""
    rates = ctx.of("serving.client.request_rate") or ctx.of("serving.bench_arg", {"label": "^request-rate$"})
    sent, waiting, share = (
        read.top(ctx, "serving.client.prompts"),
        read.waiting(ctx),
        read.top(ctx, "serving.queue_share"),
    )
    limited = ctx.of("serving.client.concurrency")
    if not rates or sent is None:
        return UNKNOWN
    queued = (waiting is not None and waiting[0] >= 10) or (share is not None and share[0] >= 0.5)
    if str(rates[0].value).lower() == "inf" and sent[0] >= 64 and queued and not limited:
        return read.yes(rates[0], sent[1], waiting[1] if waiting else None, share[1] if share else None)
    return read.no(rates[0])


def saturated(ctx: Context) -> Outcome:
    """Many requests run and many wait, and no limit of the configuration explains it."""
    waiting, running = read.waiting(ctx), read.running(ctx)
    if waiting is None:
        return UNKNOWN
    if running is None:  # a long queue is load, unless a limit is known to be the reason
        small = read.cap(ctx) is not None or ctx.told("running_stays").holds or kv_configured_small(ctx).holds
        return read.yes(waiting[1]) if waiting[0] >= 50 and not small else read.no(waiting[1])
    lost = [*ctx.of("serving.mark.preempted"), *ctx.of("serving.mark.kv_full"), *ctx.of("serving.paused")]
    if cap_binds(ctx).holds or ctx.told("running_stays").holds or kv_configured_small(ctx).holds or lost:
        return read.no(waiting[1], *lost[:1])
    if waiting[0] >= 10 and running[0] >= read.BUSY and waiting[0] >= 0.2 * running[0]:
        kv = read.kv(ctx)
        return read.yes(waiting[1], running[1], kv[1] if kv else None)
    return read.no(waiting[1], running[1])


def queue_dominates(ctx: Context) -> Outcome:
    """Most of the server's time to first token is spent in its queue."""
    share, ttft = read.top(ctx, "serving.queue_share"), read.top(ctx, "serving.server.ttft")
    queue = read.top(ctx, "serving.server.queue")
    if share is None and queue is not None and ttft is not None and ttft[0] > 0:
        return read.yes(queue[1], ttft[1]) if queue[0] >= 0.5 * ttft[0] and queue[0] >= 200 else read.no(queue[1])
    if share is None:
        return UNKNOWN
    if share[0] >= 0.5 and (ttft is None or ttft[0] >= 200):
        return read.yes(share[1], ttft[1] if ttft else None)
    return read.no(share[1])


def preempting(ctx: Context) -> Outcome:
    """Running requests lose their cache in operation, with an ordinary configuration and load."""
    lost, kv = read.top(ctx, "serving.preemptions"), read.kv(ctx)
    if lost is None:
        return UNKNOWN
    if lost[0] < 1 or rare(ctx).holds:
        return read.no(lost[1])
    return read.no(lost[1]) if burst(ctx).holds else read.yes(lost[1], kv[1] if kv and kv[0] >= read.ROOMY else None)


def prefill_dominates(ctx: Context) -> Outcome:
    """Long prompts, and their prefill is what first tokens wait for."""
    prompt, ttft = (
        read.prompt(ctx),
        read.top(ctx, "serving.server.ttft") or read.top(ctx, "serving.client.ttft", "^(mean|median)"),
    )
    prefill, share = read.top(ctx, "serving.server.prefill"), read.top(ctx, "serving.prefill_share")
    if prompt is None or ttft is None:
        return UNKNOWN
    if prompt[0] < 2000 or ttft[0] < 500 or budget_small(ctx).holds:
        return read.no(prompt[1], ttft[1])
    mostly = share is not None and share[0] >= 0.5
    backlog = prefill is not None and prefill[0] >= 500 and not cap_binds(ctx).holds and not kv_pressure(ctx).holds
    if mostly or backlog:
        return read.yes(prompt[1], ttft[1], prefill[1] if prefill else None, share[1] if share else None)
    return read.no(prompt[1], ttft[1]) if share is not None or prefill is not None else UNKNOWN


def mixed_prompts(ctx: Context) -> Outcome:
    """A few prompts are many times longer than the usual one, and steps with them are slow."""
    mix, tail = read.top(ctx, "serving.prompt_mix"), read.top(ctx, "serving.step_tail")
    if mix is None:
        return UNKNOWN
    if mix[0] >= 10 and (tail is None or tail[0] >= 4) and not kv_pressure(ctx).holds:
        return read.yes(mix[1], tail[1] if tail else None)
    return read.no(mix[1])


def budget_raises(ctx: Context) -> Outcome:
    """A larger token budget was better."""
    return read.setting(ctx, r"batched.?tokens|chunk\w*.?(prefill)?.?size|prefill.?tokens|max.?num.?tokens", True, 1.15)


def budget_hurts(ctx: Context) -> Outcome:
    """A larger token budget made tokens later."""
    return read.setting(ctx, r"batched.?tokens|chunk\w*.?(prefill)?.?size|prefill.?tokens", False, 1.15)


def cap_raises(ctx: Context) -> Outcome:
    """A larger limit of running requests was better."""
    return read.setting(ctx, r"max.?num.?seqs|max.?running|max.?batch.?size|max.?concurrent.?req", True, 1.15)


def memory_raises(ctx: Context) -> Outcome:
    """More memory for the KV cache was better."""
    return read.setting(ctx, r"gpu.?mem\w*.?util|mem.?fraction|num.?gpu.?blocks|free.?gpu.?mem", True, 1.15)


QUEUE = (
    cap_binds,
    cap_below_load,
    cap_suspicious,
    budget_small,
    budget_tiny,
    kv_pressure,
    kv_configured_small,
    concurrency_below_load,
    waiting_with_room,
    few_fill_cache,
    burst,
    saturated,
    queue_dominates,
    preempting,
    prefill_dominates,
    mixed_prompts,
    budget_raises,
    budget_hurts,
    cap_raises,
    memory_raises,
)
