"""Levers: what was turned to make the same work faster, and what that names; and neighbours named in the rows themselves."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .comparison import Ratio, ratios

_FRONT = regex(
    r"stream[-_ ]interval|api[-_ ]server[-_ ]count|uvicorn[- ]workers|frontend[-_ ](?:process|worker)|disable-frontend-multiprocessing|\buvloop\b|orjson|log[-_ ]requests",  # noqa: E501
    re.I,
)
_TOKENS = regex(
    r"tokenizer[-_ ](?:worker|pool|mode)|use_fast|skip[-_ ]tokenizer|fast tokenizer|detokenizer[-_ ]worker", re.I
)
_OVERLAP = regex(
    r"no_sync|bucket_cap|overlap[-_ ](?:comm|grad|param)|(?:forward|backward)_prefetch|limit_all_gathers|reduce_bucket|gradient_as_bucket",  # noqa: E501
    re.I,
)
_CORES = regex(
    r"\birqs?\b|irq[-_ ]?(?:affinity|balance)|isolcpus|taskset|cpuset|nohz_full|scaling_governor|cpu governor|C-?states?\b|intel_idle",  # noqa: E501
    re.I,
)
_TF32 = regex(r"tf32|matmul_precision", re.I)
_BLOCKS = regex(r"(?:blocks|CTAs)(?: ?/ ?| per )SM\W{0,3}(\d+)|(?:warps active|occupancy)\W{0,3}(\d+)", re.I)
_SPEED = regex(
    r"^(?:tpot|itl|ttft|throughput|decode|latency|e2e|time|step_time|iterations|flops|bandwidth|request_rate|compute_time|epoch)"
)


def _turned(ctx: Context, words: re.Pattern[str], least: float) -> list[Ratio]:
    """Comparisons of speed whose settings, or the line or head they stand in, name a lever."""
    swept = any(words.search(e.subject.label or "") for e in ctx.of("serving.swept"))
    out = []
    for ratio in ratios(ctx):
        named = words.search(f"{ratio.worse} {ratio.better}") or words.search(ratio.evidence.quote or "")
        if ratio.value >= least and _SPEED.search(ratio.metric) and ratio.axis != "expected" and (named or swept):
            out.append(ratio)
    return out


def front_end_lever(ctx: Context) -> Outcome:
    """Less work for the API server, or more of them, makes the same load faster."""
    got = _turned(ctx, _FRONT, 1.2)
    return read.yes(*(r.evidence for r in got[:2])) if got else UNKNOWN


def tokenizer_lever(ctx: Context) -> Outcome:
    """More or faster tokenizer processes make the same load faster."""
    got = _turned(ctx, _TOKENS, 1.3)
    return read.yes(*(r.evidence for r in got[:2])) if got else UNKNOWN


def overlap_lever(ctx: Context) -> Outcome:
    """What is turned moves or leaves out communication of the training step, and the step is shorter."""
    got = _turned(ctx, _OVERLAP, 1.15)
    if got:
        return read.yes(*(r.evidence for r in got[:2]))
    for item in ctx.of("figure"):
        quote = item.quote or ""
        if _OVERLAP.search(quote) and re.search(r"with(?:out)?\b|off\b|=\s*(?:True|False)|用|不用|关", quote):
            same = [
                (v, e) for v, e in ctx.numbers("figure", {"label": r"^(?:comm_time|step_time|time)"})
                if e.quote == quote and e.unit in ("s", "ms")
            ]  # fmt: skip
            values = sorted((v * (1000 if e.unit == "s" else 1) for v, e in same))
            if len(values) >= 3 and values[-1] >= 1.3 * values[0]:
                return read.yes(item)
    return UNKNOWN


def core_lever(ctx: Context) -> Outcome:
    """Which cores it runs on, or who else is served there, changes how late the work is."""
    got = [
        r
        for r in _turned(ctx, _CORES, 1.5)
        if not re.search("mem-?bind|cpuset-mems|interleave|numa", f"{r.worse} {r.better}", re.I)
    ]
    return read.yes(*(r.evidence for r in got[:2])) if got else UNKNOWN


def tf32_lever(ctx: Context) -> Outcome:
    """Matrix products in FP32 proper, several times slower than with TF32 allowed."""
    got = [r for r in _turned(ctx, _TF32, 1.8) if _TF32.search(f"{r.worse} {r.better}")]
    return read.yes(*(r.evidence for r in got[:2])) if got else UNKNOWN


def fewer_blocks_slower(ctx: Context) -> Outcome:
    """Rows name blocks or warps per SM, and the row with fewer takes longer."""
    for ratio in ratios(ctx):
        worse, better = _BLOCKS.search(ratio.worse), _BLOCKS.search(ratio.better)
        if (
            worse is None
            or better is None
            or not re.match("time|latency|compute_time|throughput|flops|bandwidth", ratio.metric)
        ):
            continue
        few, many = (float(next(g for g in hit.groups() if g)) for hit in (worse, better))
        if ratio.value >= 1.15 and few < many:
            return read.yes(ratio.evidence)
    return UNKNOWN


_PROGRAM = regex(
    r"\b([\w.-]+\.(?:py|sh|exe)|python\d?(?:\.\d+)?|pid ?\d+|EngineCore|[\w-]*(?:train|embed|etl|render|miner|jupyter)[\w-]*)\b",  # noqa: E501
    re.I,
)
_USES = regex(r"\bsm ?:? ?\d|\d ?%|MiB|GiB|busy|running|active|process|正在|进程", re.I)


def neighbour_in_the_slow_row(ctx: Context) -> Outcome:
    """The slow row names a program at work that the fast rows do not."""
    rows = {(e.subject.label or "").split("|")[-1]: e for e in ctx.of("figure")}
    for ratio in ratios(ctx):
        if ratio.value < 1.3 or not _SPEED.search(ratio.metric):
            continue
        lines = [
            f"{name} {row.quote or ''}" if (row := rows.get(name)) else name for name in (ratio.worse, ratio.better)
        ]
        slow, fast = ({m.lower() for m in _PROGRAM.findall(text)} for text in lines)
        listed = fast or re.search(r"process|pmon|running|apps?\b|进程", lines[1], re.I)
        if slow - fast and fast <= slow and _USES.search(lines[0]) and listed:
            return read.yes(ratio.evidence)
    return UNKNOWN


_EXPERTS = regex(r"expert|\bmoe\b|\bep\d*\b|deepseek|mixtral|专家", re.I)


def experts_skew(ctx: Context) -> Outcome:
    """With expert parallelism one GPU or rank is far busier than its peers."""
    asked = _EXPERTS.search(ctx.symptom) or ctx.of("serving.arg", {"label": "expert-parallel|^ep(?:-size)?$|eplb"})
    outliers = [
        e for v, e in ctx.numbers("spread.outlier", {"label": r"^(?:gpu|rank|node)\|(?:utilisation|time|step_time|count|compute_time|tokens)"})  # noqa: E501
        if v >= 1.6
    ]  # fmt: skip
    return read.yes(*outliers[:2]) if asked and outliers else UNKNOWN


_REAL = regex(r"\b(?:production|prod|real traffic|live|users?)\b|线上|生产|真实", re.I)
_LENGTH = regex(r"(?:input|prompt|in|输入)\D{0,12}(\d[\d,]*(?:\.\d+)?k?)", re.I)
_EACH = regex(r"(\d[\d,]*) ?(?:tokens? )?(?:per|each|/) ?(?:request|req|prompt)", re.I)


def _count(text: str) -> float:
    number = text.lower().replace(",", "")
    return float(number.rstrip("k")) * (1000 if number.endswith("k") else 1)


def bench_unlike_production(ctx: Context) -> Outcome:
    """The benchmark's prompts are a fraction of those that it is compared with."""
    if not re.search(r"bench|prod|real|压测|线上", ctx.symptom, re.I):
        return UNKNOWN
    real: tuple[float, Evidence] | None = None
    bench: tuple[float, Evidence] | None = None
    for item in ctx.evidence:
        quote = item.quote or ""
        if _REAL.search(quote) and (hit := _LENGTH.search(quote)):
            real = _count(hit[1]), item
        elif re.search("input|prompt", quote, re.I) and (hit := _EACH.search(quote)):
            bench = _count(hit[1]), item
    for value, item in ctx.numbers("serving.told", {"label": "^prompt$"}):
        quote = item.quote or ""
        if _REAL.search(quote):
            real = value, item
        elif re.search(r"bench|guidellm|genai-perf|aiperf|--data|压测", quote, re.I):
            bench = value, item
    sent = read.option(ctx, "^(random-input-len|synthetic-input-tokens-mean|input-len)$", "serving.bench_arg")
    bench = bench or (sent[0] if sent else None)
    if real is None or bench is None or min(real[0], bench[0]) <= 0:
        return UNKNOWN
    apart = max(real[0], bench[0]) / min(real[0], bench[0])
    return read.yes(bench[1], real[1]) if apart >= 4 else UNKNOWN


def cut_at_a_timeout(ctx: Context) -> Outcome:
    """Streams end at the same round number of seconds that a hop is configured with."""
    limits = [e for e in ctx.of("serving.mark.hop_timeout")]  # noqa: C416
    settings = {e.quote for e in limits}
    ends = [
        (v, e) for v, e in ctx.numbers("figure")
        if e.unit == "s" and e.quote not in settings and re.search(r"closed|reset|cut|abort|disconnect|terminated|timed out|断", e.quote or "", re.I)  # noqa: E501
    ]  # fmt: skip
    for item in limits:
        said = {float(n) for n in re.findall(r"\d+(?:\.\d+)?", item.quote or "")}
        near = [e for v, e in ends if any(abs(v - n) <= 0.02 * n for n in said if n >= 5)]
        if near:
            return read.yes(item, *near[:2])
    return UNKNOWN


def _frames(ctx: Context, words: str) -> Outcome:
    """Does a running thread stand in such code?"""
    got = [e for e in ctx.of("profile.active_frame") if re.search(words, str(e.value), re.I)]
    return read.yes(*got[:2]) if got else UNKNOWN


def front_end_holds_gil(ctx: Context) -> Outcome:
    """A dump of stacks finds the thread that runs in the code of the API server."""
    return _frames(
        ctx,
        r"entrypoints/|serving_chat|serving_completion|api_server|starlette|uvicorn|fastapi|pydantic|openai/protocol|output_processor|http_server|orjson",
    )


def loader_decodes(ctx: Context) -> Outcome:
    """A dump of stacks finds data workers decoding or transforming samples, or the loop waiting for them."""
    return _frames(
        ctx,
        r"PIL/|torchvision/transforms|cv2|albumentations|_utils/(?:fetch|collate)|dataloader\.py.*(?:_get_data|_try_get)|librosa|decord",
    )


def grammar_holds_cpu(ctx: Context) -> Outcome:
    """A dump of stacks finds the running thread in the code of the grammar."""
    return _frames(ctx, r"xgrammar|outlines|llguidance|lm_?format|structured_output|guided_decoding|constrained/")


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    front_end_lever, tokenizer_lever, overlap_lever, core_lever, tf32_lever, fewer_blocks_slower, neighbour_in_the_slow_row, experts_skew,  # noqa: E501
    bench_unlike_production, cut_at_a_timeout, front_end_holds_gil, loader_decodes, grammar_holds_cpu,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
