"""Named predicates over a load test's own arithmetic: figures that cannot be the server's, whatever the server does."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest
from .comparison import ratios

# Codes by name: a plain `512` or `448` in a question is a number of users or of tokens.
ASKS_FAILURE = regex(
    r"fail|error|reject|refus|crash|time ?out|失败|报错|超时|拒绝"
    r"|\b(?:40[013489]|413|42[29]|499|50[0234]|529)\b(?! (?:users?|clients?|requests?|tokens?|tok|ms|seq|GB|并发|个))",
    re.I,
)
_LENGTH = regex(
    r"(?:output|answer|completion|generat\w*|out)[ _-]?(?:tok\w*|len\w*)"
    r"|(?:tokens|length)[ _-](?:out|generated)|输出(?:长度|token)",
    re.I,
)
_SERVING = ("high-ttft", "high-p99", "bad-tpot", "low-throughput")


def load_mostly_refused(ctx: Context) -> Outcome:
    """Most answers that the load generator counted were no success, and its rate is what is asked about."""
    bad = [(v, e) for v, e in ctx.numbers("bench.failed_share")]
    if not bad or ASKS_FAILURE.search(ctx.symptom):
        return UNKNOWN
    worst = highest(bad)
    return read.yes(worst[1]) if worst[0] >= 0.5 else read.no(worst[1])


def _asked(ctx: Context, option: str) -> float | None:
    got = read.option(ctx, f"^{option}$", "serving.bench_arg")
    return got[0][0] if len({v for v, _ in got}) == 1 else None


def load_too_short(ctx: Context) -> Outcome:
    """Fewer requests were sent than the concurrency that was asked for, so that it was never reached."""
    flight = [
        *read.option(ctx, "^(?:max-)?concurrency$", "serving.bench_arg"),
        *((float(str(e.value)), e) for e in ctx.of("serving.client.concurrency") if str(e.value).isdigit()),
    ]
    sent = [*read.option(ctx, "^num-prompts?$", "serving.bench_arg"), *ctx.numbers("serving.client.prompts")]
    if not flight or not sent or len({v for v, _ in flight}) > 1:
        return UNKNOWN
    most = highest(sent)
    enough = most[0] > 0.67 * flight[0][0] or any(v > most[0] for v, _ in ctx.numbers("serving.running"))
    return read.no(most[1]) if enough or not ctx.asks(*_SERVING) else read.yes(most[1], flight[0][1])


def in_flight_below_limit(ctx: Context) -> Outcome:
    """Many requests were sent, and the load generator never had nearly as many in flight as it was told to."""
    limit = [(float(str(e.value)), e) for e in ctx.of("serving.client.concurrency") if str(e.value).isdigit()]
    peak, sent = ctx.numbers("serving.client.peak_concurrency"), read.top(ctx, "serving.client.prompts")
    rate = [str(e.value) for e in ctx.of("serving.client.request_rate")]
    if len(limit) != 1 or len(peak) != 1 or sent is None or any(r != "inf" for r in rate):
        return UNKNOWN
    few = peak[0][0] <= 0.5 * limit[0][0] and sent[0] >= 4 * limit[0][0]
    return read.yes(peak[0][1], limit[0][1]) if few else read.no(peak[0][1])


def random_prompts_hit(ctx: Context) -> Outcome:
    """Random prompts share nothing, so that a cache which knows them has seen this very run before."""
    drawn = ctx.of("serving.bench_arg", {"label": "^dataset(-name)?$"})
    shared = ctx.of("serving.bench_arg", {"label": "prefix"})
    hit = read.top(ctx, "serving.prefix_hit_rate")
    if (
        not drawn
        or {str(e.value) for e in drawn} != {"random"}
        or shared
        or hit is None
        or read.complains_of_latency(ctx)
    ):
        return UNKNOWN
    return read.yes(hit[1], drawn[0]) if hit[0] >= 0.5 else read.no(hit[1])


def first_token_is_last(ctx: Context) -> Outcome:
    """Row by row the first token comes with the end of an answer of many tokens."""
    first: dict[str, tuple[float, Evidence]] = {}
    whole: dict[str, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure"):
        metric, _, row = (item.subject.label or "").partition("|")
        if item.unit in ("s", "ms") and metric in ("ttft", "e2e"):
            (first if metric == "ttft" else whole)[row] = (value * (1e3 if item.unit == "s" else 1), item)
    rows = [(first[r][0], whole[r][0], first[r][1], whole[r][1]) for r in first if r in whole and whole[r][0] >= 1000]
    if len(rows) < 2:
        return UNKNOWN
    together = [r for r in rows if 0.985 * r[1] <= r[0] <= r[1]]
    return read.yes(*together[0][2:]) if len(together) == len(rows) else read.no(rows[0][2])


def even_step_other_length(ctx: Context) -> Outcome:
    """Requests a second differ by as much as the length of the answers, at equal tokens a second and time per token."""
    found = ratios(ctx)
    asked = [r for r in found if r.metric.startswith("request_rate") and r.value >= 1.3]
    even = [r for r in found if re.match(r"(?:decode_)?throughput|tpot|itl", r.metric) and r.value <= 1.08]
    lengths = sorted(
        {
            v: e for v, e in ctx.numbers("figure", {"label": "^count"}) if _LENGTH.search(e.quote or "") and v >= 8
        }.items()
    )
    if not asked or not even or len(lengths) != 2:
        return UNKNOWN
    apart = lengths[1][0] / lengths[0][0]
    follows = 0.8 <= apart / asked[0].value <= 1.25
    return read.yes(asked[0].evidence, lengths[0][1], even[0].evidence) if follows else read.no(asked[0].evidence)


_DISAGREE = regex(r"disagree|differ|two tools|which (?:one|is)|contradict|对不上|不一致|哪个对", re.I)


def all_tokens_beside_output(ctx: Context) -> Outcome:
    """One tool counts prompt and answer together, the other the answer alone, and their figures are held together."""
    rows = [(v, e) for v, e in ctx.numbers("figure") if e.unit == "tokens/s"]
    both = [(v, e) for v, e in rows if re.search(r"total token|input ?\+ ?output|in ?\+ ?out", e.quote or "", re.I)]
    alone = [(v, e) for v, e in rows if re.search(r"\boutput\b|generat", e.quote or "", re.I) and (v, e) not in both]
    if not both or not alone or not _DISAGREE.search(ctx.symptom):
        return UNKNOWN
    return read.yes(both[0][1], alone[0][1]) if both[0][0] >= 1.1 * alone[0][0] else read.no(both[0][1])


def tokens_miscounted(ctx: Context) -> Outcome:
    """The client counted other tokens than the answer's own usage says, in one and the same answer."""
    said = dict(ctx.numbers("bench.usage_tokens"))
    counted = dict(ctx.numbers("bench.counted_tokens"))
    if len(said) != 1 or len(counted) != 1:
        return UNKNOWN
    (true, usage), (claimed, line) = *said.items(), *counted.items()
    return read.yes(line, usage) if max(true, claimed) >= 1.3 * min(true, claimed) else read.no(usage)


def prompts_cut(ctx: Context) -> Outcome:
    """The prompts of the run are far shorter than the lengths asked for."""
    length, number = _asked(ctx, "random-input-len"), _asked(ctx, "num-prompts")
    total, done = read.top(ctx, "serving.client.input_tokens"), read.top(ctx, "serving.client.prompts")
    if length is None or total is None or done is None or (number is not None and done[0] > number):
        return UNKNOWN
    # SGLang draws lengths evenly below the one given, which halves the mean
    return read.yes(total[1], done[1]) if total[0] <= 0.35 * length * done[0] else read.no(total[1])


def rate_is_not_its_parts(ctx: Context) -> Outcome:
    """Tokens over seconds of the same result are not the rate that it prints."""
    made, took = ctx.numbers("serving.client.output_tokens"), ctx.numbers("serving.client.duration")
    rate = ctx.numbers("serving.client.output_tput")
    if not len(made) == len(took) == len(rate) == 1 or took[0][0] <= 0 or made[0][0] < 1000:
        return UNKNOWN
    real = made[0][0] / took[0][0]
    apart = max(real, rate[0][0]) / max(min(real, rate[0][0]), 1e-9)
    used = (rate[0][1], made[0][1], took[0][1])
    return read.yes(*used) if apart >= 1.5 else read.no(*used)


def client_is_full(ctx: Context) -> Outcome:
    """The load generator fills its core while the server has no queue or measures far less."""
    busy = [e for v, e in ctx.numbers("bench.client_cpu") if v >= 0.93]
    if not busy:
        return UNKNOWN
    queue = read.top(ctx, "serving.waiting")
    inner = read.low(ctx, "serving.server.ttft", "mean|^$") or read.low(ctx, "serving.server.ttft")
    outer = [
        v * (1e3 if e.unit == "s" else 1)
        for v, e in ctx.numbers("figure")
        if (e.subject.label or "").startswith("ttft")
    ]
    outer += [v for v, _ in ctx.numbers("serving.client.ttft", {"label": "^mean"})]
    if inner is not None and outer:
        return read.yes(busy[0], inner[1]) if max(outer) >= 2.5 * inner[0] else read.no(inner[1])
    return read.yes(busy[0], queue[1]) if queue is not None and queue[0] < 1 else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {f.__name__: f for f in (
    load_mostly_refused, in_flight_below_limit, even_step_other_length, all_tokens_beside_output,
    load_too_short, random_prompts_hit,
    first_token_is_last, tokens_miscounted, prompts_cut,
    rate_is_not_its_parts, client_is_full,
)}  # fmt: skip
