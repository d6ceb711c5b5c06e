"""What the serving rules read out of evidence: queue, limits, KV space, lengths, swept options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest, lowest

CAPS = r"^(max-num-seqs|max-running-requests|max-batch-size|max-concurrent-requests|parallel)$"
TENSOR_PARALLEL = r"^(tensor-parallel-size|tp-size|tp)$"
BUDGETS = r"^(max-num-batched-tokens|chunked-prefill-size|max-prefill-tokens|max-num-tokens|max-batch-prefill-tokens)$"
FRACTIONS = (
    r"^(gpu-memory-utilization|mem-fraction-static|free-gpu-memory-fraction"
    r"|kv-cache-free-gpu-mem(ory)?-fraction|cache-max-entry-count)$"
)
PREFIX_OFF = r"^(no-enable-prefix-caching|disable-radix-cache)$"
FULL = 0.9  # share of the KV cache from which admission stalls on blocks
ROOMY = 0.8  # below this the KV cache is not what holds requests back
BUSY = 64  # running requests from which a queue is load, not a limit left low
SMALL_FRACTION = 0.6


def yes(*used: Evidence | None) -> Outcome:
    """The condition holds, by this evidence; None among it is left out."""
    return Outcome(True, unique(used))


def unique(used: Iterable[Evidence | None]) -> tuple[Evidence, ...]:
    """Each piece of evidence once, in order."""
    out: dict[str, Evidence] = {}
    for item in used:
        if item is not None:
            out.setdefault(item.id, item)
    return tuple(out.values())


def no(*used: Evidence | None) -> Outcome:
    """The condition does not hold, by this evidence."""
    return Outcome(False, unique(used))


def _extreme(sign: int, ctx: Context, signal: str, label: str | None = None) -> Reading | None:
    got = ctx.numbers(signal, {"label": label} if label else None)
    return max(got, key=lambda n: sign * n[0]) if got else None


top, low = partial(_extreme, 1), partial(_extreme, -1)


def option(ctx: Context, label: str, signal: str = "serving.arg") -> list[Reading]:
    """Numeric values of an option."""
    out = []
    for item in ctx.of(signal, {"label": label}):
        text = str(item.value).replace(",", "")
        if re.fullmatch(r"\d+(\.\d+)?", text):
            out.append((float(text), item))
    return out


def flag(ctx: Context, on: str, off: str = "") -> Evidence | None:
    """A bare or true flag named `on`, or one named `off` set to false."""
    for item in ctx.of("serving.arg", {"label": on}):
        if str(item.value).lower() in ("true", "1", "yes"):
            return item
    for item in ctx.of("serving.arg", {"label": off}) if off else []:
        if str(item.value).lower() in ("false", "0", "no"):
            return item
    return None


def cap(ctx: Context) -> Reading | None:
    """The limit of running requests: the smallest that is stated."""
    stated = [*option(ctx, CAPS), *ctx.numbers("serving.max_num_seqs", {"label": "effective|configured"})]
    stated = [s for s in stated if s[0] >= 1]
    return lowest(stated) if stated else None


def kv(ctx: Context) -> Reading | None:
    """The fullest KV cache, as a share from 0 to 1."""
    return top(ctx, "serving.kv_usage")


def waiting(ctx: Context) -> Reading | None:
    """The longest queue, in requests."""
    return top(ctx, "serving.waiting")


def running(ctx: Context) -> Reading | None:
    """Running requests at the moment with the most waiting, where that is known."""
    queued = waiting(ctx)
    if queued is not None and queued[1].capture is not None:
        for value, item in ctx.numbers("serving.running"):
            if item.capture is not None and item.capture.name == queued[1].capture.name:
                return value, item
    return top(ctx, "serving.running")


def prompt(ctx: Context) -> Reading | None:
    """Prompt tokens of a usual request."""
    got = top(ctx, "serving.server.prompt_tokens")
    if got is not None:
        return got
    told = option(ctx, "^(random-input-len|synthetic-input-tokens-mean|input-len)$", "serving.bench_arg")
    return highest(told) if told else None


def lengths(ctx: Context) -> tuple[float, list[Evidence]] | None:
    """Tokens of a whole request, prompt and answer, as the client or the server counted them."""
    prompt, answer = top(ctx, "serving.server.prompt_tokens"), top(ctx, "serving.server.output_tokens")
    if prompt is not None and answer is not None:
        return prompt[0] + answer[0], [prompt[1], answer[1]]
    total = [top(ctx, f"serving.client.{name}") for name in ("input_tokens", "output_tokens", "prompts")]
    if all(t is not None for t in total):
        values = [t for t in total if t is not None]
        if values[2][0] > 0:
            return (values[0][0] + values[1][0]) / values[2][0], [v[1] for v in values]
    return None


def capacity(ctx: Context) -> Reading | None:
    """KV capacity in tokens, as logged or from blocks times block size."""
    got = low(ctx, "serving.kv_tokens")
    if got is not None:
        return got
    blocks = option(ctx, "^(num-gpu-blocks-override|num-gpu-blocks)$")
    size = option(ctx, "^block-size$")
    if blocks and size:
        least = lowest(blocks)
        return least[0] * size[0][0], least[1]
    return None


def budget(ctx: Context) -> Reading | None:
    """The smallest cap of tokens in a step, where one is set; less than 16 is something else."""
    stated = [*option(ctx, BUDGETS), *ctx.numbers("serving.max_batched_tokens")]
    stated = [s for s in stated if s[0] >= 16]
    return lowest(stated) if stated else None


def numbers(text: str) -> float | None:
    """The first figure of a text, without separators of thousands."""
    hit = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    return float(hit.group().replace(",", "")) if hit else None


def swept(ctx: Context, words: str) -> bool:
    """Is an option named `words` the swept column of a table?"""
    return any(re.search(words, e.subject.label or "", re.IGNORECASE) for e in ctx.of("serving.swept"))


_USED = regex(r"power|temperature|clock|memory|utili")  # what a setting takes of the card, and no speed


def setting(ctx: Context, words: str, worse_is_less: bool, above: float) -> Outcome:
    """A comparison whose settings are values of an option named `words`, worse on the small (or large) side."""
    for ratio, item in ctx.numbers("compare.ratio"):
        label = item.subject.label or ""
        parts = label.split("|")
        named = re.search(words, label, re.IGNORECASE) or swept(ctx, words)
        if len(parts) != 4 or ratio < above or not named or _USED.match(parts[1]):
            continue
        worse, better = numbers(parts[2]), numbers(parts[3])
        if worse is not None and better is not None and worse != better and (worse < better) == worse_is_less:
            return yes(item)
    return UNKNOWN


_DOUBTED = regex(
    r"bench|measur|production|real|live|expect|too (?:good|low|fast)|than|differ|trust|believ|doubt|suspic|plausible"
    r"|压测|线上|生产|评测|基准|实测|对不上|不信|可疑|怀疑|太好",
    re.IGNORECASE,
)


def complains_of_latency(ctx: Context) -> bool:
    """Is it a latency that the question finds too high? A warm cache makes a first token early and explains none."""
    latency = ctx.asks("high-ttft", "bad-tpot", "high-p99", "kv-transfer-slow")
    return latency and not _DOUBTED.search(ctx.symptom)
