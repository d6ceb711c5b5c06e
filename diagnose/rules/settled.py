"""Named predicates that hold one stated figure against another: client and server, limit and model, targets."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .healthy import faulty
from .nccl_facts import env
from .products import product

_BEST = regex(r"max|peak|total", re.IGNORECASE)  # a best second of a run is above what a log averages over ten


def client_above_server(ctx: Context) -> Outcome:
    """One stream alone, and its client counts more tokens a second than the engine says it makes."""
    inner = read.top(ctx, "serving.gen_tput")
    running = read.top(ctx, "serving.running")
    if inner is None or running is None or running[0] != 1 or inner[0] <= 0:
        return UNKNOWN
    several = [e for v, e in ctx.numbers("serving.client.peak_concurrency") if v > 1]
    if several or ctx.of("serving.client.request_rate"):  # a log's averages over ten seconds miss parts of such a run
        return UNKNOWN
    outer = [
        (v, e)
        for v, e in ctx.numbers("figure")
        if e.unit == "tokens/s" and "generation throughput" not in (e.quote or "") and "prompt" not in (e.quote or "")
        and not _BEST.search(f"{e.subject.label} {e.quote}")
    ]  # fmt: skip
    over = [(v, e) for v, e in outer if v >= 1.4 * inner[0]]
    return read.yes(over[0][1], inner[1]) if over else UNKNOWN


_LACKS = regex(r"\bonly\b|instead|others?\b|expect|should|published|reference|below|只有|别人|应该", re.I)


def nvls_switched_off(ctx: Context) -> Outcome:
    """NVLink SHARP is switched off, and the node reaches what a ring gives and not what the switch adds."""
    if not _LACKS.search(ctx.symptom):
        return UNKNOWN  # a choice that nobody complains of
    off = [e for e in env(ctx, "NCCL_NVLS_ENABLE") if str(e.value) == "0"]
    got, peak = product(ctx), ctx.numbers("nccl_tests.peak_busbw")
    if not off or got is None or not peak or got[0].cc < 9 or got[0].links < 12:
        return UNKNOWN
    if any(v < 8 for v, _ in (*ctx.numbers("nccl_tests.nranks"), *ctx.numbers("nccl.nranks"))):
        return UNKNOWN  # few GPUs gain little by the switch
    ring = 25.0 * got[0].links * (2 if got[0].nvlink >= 5 else 1)
    ok = 0.65 * ring <= max(v for v, _ in peak) <= 0.95 * ring
    return read.yes(off[0], peak[0][1]) if ok else read.no(off[0])


def control_without_variable(ctx: Context) -> Outcome:
    """Without a variable it is faster, and the variable is set."""
    for _, item in sorted(ctx.numbers("env.control_gain"), key=lambda n: -n[0]):
        held = env(ctx, item.subject.label or "")
        if held:
            return read.yes(item, held[0])
    return UNKNOWN


def logging_costs(ctx: Context) -> Outcome:
    """With all of NCCL's log it is slower than with its warnings alone."""
    for item in ctx.of("lever.row"):
        parts = (item.subject.label or "").split("|")
        loud = len(parts) == 4 and re.search(r"NCCL_DEBUG=(?:TRACE|INFO)", parts[1])
        if loud and not re.search(r"NCCL_DEBUG=(?:TRACE|INFO)", parts[2]):
            return read.yes(item)
    return UNKNOWN


def bytes_beside_bits(ctx: Context) -> Outcome:
    """A rate in gigabytes is held against a port's gigabits, and is what the port carries."""
    said = {float(n) for n in re.findall(r"(?<![\d.])\d{1,3}(?:\.\d+)?(?![\d.]*\d)", ctx.symptom)}
    ports = [(v, e) for v, e in ctx.numbers("rdma.port.rate") if v in said]
    for value, item in ctx.numbers("nccl_tests.peak_busbw"):
        named = any(abs(n - value) <= max(0.6, 0.01 * value) for n in said)
        for port, at in ports:
            if named and 0.85 * port <= 8 * value <= port:
                return read.yes(item, at)
    return UNKNOWN


_OURS = regex(r"^\W*(?:measured|ours?|here|we get|we see|achieved|got|this (?:node|server|machine)|实测|我们)\b", re.I)
_THEIRS = regex(
    r"^\W*(?:published|reference|vendor|data ?sheet|paper|model card|documented|release notes|leaderboard|官方|参考)",
    re.I,
)
_LATE = regex(r"slow(?:er|ed)?\b(?! ?\?)|dropp|degrad|regress|worse|变慢|下降", re.I)


def as_published(ctx: Context) -> Outcome:
    """What was measured is what is published for the same thing, within seven percent, and nothing faulty shows."""
    rows = [
        (v, e)
        for v, e in ctx.numbers("figure")
        if v > 0 and re.search(r"through|busbw|flops|bandwidth|decode", e.subject.label or "")
    ]
    ours = [(v, e) for v, e in rows if _OURS.match(e.quote or "")]
    theirs = [(v, e) for v, e in rows if _THEIRS.match(e.quote or "")]
    if len(ours) != 1 or len(theirs) != 1 or _LATE.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    ratio = ours[0][0] / theirs[0][0]
    return read.yes(ours[0][1], theirs[0][1]) if 0.93 <= ratio <= 1.2 else read.no(ours[0][1])


_MEMORY = regex(
    r"\bfree\b.{0,30}memory|memory pressure|(?:out of|low|little|full) (?:memory|RAM)|内存(?:不足|压力|泄漏|不够|满)",
    re.I,
)


def memory_is_available(ctx: Context) -> Outcome:
    """Little is free because files are cached; most of the host's memory is available."""
    left, whole = read.low(ctx, "host.memory.available"), read.top(ctx, "host.memory.total")
    asked = _MEMORY.search(ctx.symptom) and not re.search(
        r"GPU memory|VRAM|显存|\bOOM\b|killed|pinned", ctx.symptom, re.I
    )
    if left is None or whole is None or not asked or faulty(ctx) or whole[0] <= 0:
        return UNKNOWN
    return read.yes(left[1], whole[1]) if left[0] >= 0.5 * whole[0] else read.no(left[1])


_SHORT = regex(r"\bonly\b|cut|truncat|short|stops?\b|ends?\b|incomplete|half|first \d+|截断|不完整|只有", re.I)


def replies_capped(ctx: Context) -> Outcome:
    """All replies end at their length limit, and a configuration names exactly that limit."""
    full = [e for e in ctx.of("serving.finish") if str(e.value) == "length"]
    made = ctx.numbers("bench.usage_tokens")
    set_to = ctx.numbers("serving.reply_limit")
    if not full or len({v for v, _ in made}) != 1 or not set_to or not _SHORT.search(ctx.symptom):
        return UNKNOWN
    met = [e for v, e in set_to if v == made[0][0]]
    return read.yes(met[0], full[0], made[0][1]) if met else UNKNOWN


_QUALITY = regex(
    r"quality|wrong|rubbish|garbage|nonsense|incoheren|beyond|long|degrad|repeat|falls apart|乱|质量|长文", re.I
)


def length_beyond_model(ctx: Context) -> Outcome:
    """The server takes longer texts than the model has positions for, by an override, and nothing scales them."""
    asked = read.option(ctx, "^(?:max-model-len|context-length)$")
    made = ctx.numbers("model.size", {"label": "^max_position_embeddings$"})
    forced = ctx.of("env.var", {"label": "ALLOW_LONG_MAX_MODEL_LEN|ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"})
    scaled = ctx.of("serving.arg", {"label": "rope-scaling|hf-overrides|json-model-override"})
    if not asked or not forced or scaled or not _QUALITY.search(ctx.symptom):
        return UNKNOWN
    if made and asked[0][0] <= made[0][0]:
        return read.no(asked[0][1])
    return read.yes(forced[0], asked[0][1], *(e for _, e in made[:1]))


def targets_met(ctx: Context) -> Outcome:
    """Each target that is stated beside its figure is met, and nothing waits or fails."""
    held = ctx.numbers("target.ratio")
    if not held or faulty(ctx) or any(v > 0 for v, _ in ctx.numbers("serving.waiting")):
        return UNKNOWN
    if any(v > 1 for v, _ in held):
        return read.no(*(e for v, e in held if v > 1))
    return read.yes(*(e for _, e in held[:2])) if max(v for v, _ in held) <= 0.9 else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (
        client_above_server,
        nvls_switched_off,
        control_without_variable,
        length_beyond_model,
        targets_met,
        logging_costs,
        bytes_beside_bits,
        as_published,
        replies_capped,
        memory_is_available,
    )
}
