"""Arithmetic on samples: percentiles, throughput, goodput, the self-check, and vLLM's result layout."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..units import percent
from .records import DEFINITIONS, Load, Outcome, Sample
from .target import Target

PERCENTILES = (50, 90, 95, 99)
LAG_LIMIT = 5.0  # ms
LAG_SHARE = 0.05  # of the median TTFT
LAG_LEAST = 0.5  # ms: below it, what a timer of the kernel can do would decide
CPU_LIMIT = 0.8  # of one core
SLO_NAMES = ("ttft", "tpot", "e2el")


def percentile(ordered: Sequence[float], p: float) -> float:
    """Linear interpolation between the closest ranks of a rising sequence."""
    rank = (len(ordered) - 1) * p / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def enough(count: int, p: float) -> bool:
    """Are there at least as many samples as one expects to need for a single one above this percentile?"""
    return count * (100 - p) >= 100 - 1e-9


def spread(values: Sequence[float], scale: float = 1000.0) -> dict[str, float | None]:
    """Mean, median, std and percentiles; those with too few samples behind them are None."""
    ordered = sorted(v * scale for v in values)
    if not ordered:
        return dict.fromkeys(("mean", "median", "std", *(f"p{p}" for p in PERCENTILES)))
    out: dict[str, float | None] = {
        "mean": statistics.fmean(ordered), "median": percentile(ordered, 50), "std": statistics.pstdev(ordered)
    }  # fmt: skip
    for p in PERCENTILES:
        out[f"p{p}"] = percentile(ordered, p) if enough(len(ordered), p) else None
    return out


def concurrency(samples: Sequence[Sample]) -> int:
    """The most requests that were under way at one moment."""
    edges = sorted([(s.began, 1) for s in samples if s.began] + [(s.ended, -1) for s in samples if s.began])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def under_way(samples: Sequence[Sample], at: int) -> int:
    """Requests due and not answered at a moment: what waits at the client counts too."""
    return sum(s.due <= at < s.ended for s in samples)


def meets(sample: Sample, slo: dict[str, float]) -> bool:
    """Is it within every part of the SLO (ms), counted from its due moment?"""
    if not sample.ok:
        return False
    seen = {"ttft": sample.ttft + sample.held, "tpot": sample.tpot or 0.0, "e2el": sample.e2el + sample.held}
    return all(seen[name] * 1000 <= limit for name, limit in slo.items())


def self_check(outcome: Outcome, load: Load, median_ttft_ms: float | None) -> dict[str, Any]:
    """Did the generator keep up? Bounds stand beside what was seen."""
    limit = LAG_LIMIT if median_ttft_ms is None else min(LAG_LIMIT, max(LAG_LEAST, LAG_SHARE * median_ttft_ms))
    timed = not math.isinf(load.rate)
    lags = sorted((s.woke - s.due) / 1e6 for s in outcome.samples if s.woke) if timed else []
    loop = sorted(lag * 1000 for lag in outcome.loop_lags)
    wall = max((outcome.end - outcome.begin) / 1e9, 1e-9)
    cpu = outcome.cpu / wall
    reasons = []
    for what, values in (("requests left late", lags), ("the event loop woke late", loop)):
        if values and percentile(values, 99) > limit:
            reasons.append(f"{what}: p99 {percentile(values, 99):.2f} ms, bound {limit:.2f} ms")
    if cpu > CPU_LIMIT:
        reasons.append(f"the generator used {percent(cpu)} of a core, bound {percent(CPU_LIMIT)}")
    return {
        "valid": not reasons,
        "reasons": reasons,
        "bound_ms": limit,
        "bound": f"the least of {LAG_LIMIT:g} ms and {percent(LAG_SHARE)} of the median TTFT, "
        f"not under {LAG_LEAST:g} ms",
        "send_lag_ms": _tail(lags),
        "loop_lag_ms": _tail(loop),
        "cpu_of_one_core": cpu,
        "connections_opened": outcome.opened,
        "connections_at_most": outcome.peak,
    }


def _tail(ordered: Sequence[float]) -> dict[str, float] | None:
    if not ordered:
        return None
    return {"p50": percentile(ordered, 50), "p99": percentile(ordered, 99), "max": ordered[-1], "count": len(ordered)}


def steady(outcome: Outcome, load: Load) -> dict[str, float] | None:
    """Throughput between the first and the last due moment of what is measured."""
    due = [s.due for s in outcome.samples if not s.ramp]
    if load.closed or math.isinf(load.rate) or len(due) < 2 or due[-1] <= due[0]:
        return None
    window = (due[-1] - due[0]) / 1e9
    tokens = sum(
        s.tokens / len(s.chunks) * sum(due[0] <= c < due[-1] for c in s.chunks) for s in outcome.samples if s.chunks
    )
    ended = sum(due[0] <= s.ended < due[-1] for s in outcome.samples if s.ok)
    middle = (due[0] + due[-1]) // 2
    return {
        "seconds": window,
        "output_tokens_per_s": tokens / window,
        "requests_per_s": ended / window,
        "under_way_middle": under_way(outcome.samples, middle),
        "under_way_last": under_way(outcome.samples, due[-1]),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def result(
    outcome: Outcome, load: Load, target: Target, slo: dict[str, float], detailed: bool = True
) -> dict[str, Any]:
    """One run as `vllm bench serve` writes it, with what it has no field for beside.

    Args:
        slo: limits in ms by name; goodput is given only with them.
        detailed: lists with an entry a request.
    """
    sent = [s for s in outcome.samples if not s.ramp]
    good = [s for s in sent if s.ok]
    begin = sent[0].due if sent else outcome.begin
    seconds = max((max((s.ended for s in sent), default=begin) - begin) / 1e9, 1e-9)
    out_tokens = sum(s.tokens for s in good)
    in_tokens = sum(s.prompt_tokens if s.prompt_tokens is not None else load.input for s in good)
    spreads = {
        "ttft": spread([s.ttft for s in good]),
        "tpot": spread([t for s in good if (t := s.tpot) is not None]),
        "itl": spread([g for s in good for g in s.gaps]),
        "e2el": spread([s.e2el for s in good]),
    }
    passed = sum(meets(s, slo) for s in sent) if slo else 0
    lost = 0 if outcome.interrupted else outcome.unsent  # what a dead server never got is a failure, Ctrl-C is not
    data: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai-chat" if target.api == "chat" else "openai",
        "backend": "diagnose",
        "label": load.name,
        "model_id": target.model,
        "tokenizer_id": None,
        "num_prompts": load.num,
        "request_rate": "inf" if math.isinf(load.rate) else load.rate,
        "burstiness": load.burstiness if math.isfinite(load.burstiness) else "inf",
        "max_concurrency": load.concurrency,
        "duration": seconds,
        "completed": len(good),
        "failed": len(sent) - len(good),
        "total_input_tokens": in_tokens,
        "total_output_tokens": out_tokens,
        "request_throughput": len(good) / seconds,
        "request_goodput": passed / seconds if slo else None,
        "output_throughput": out_tokens / seconds,
        "total_token_throughput": (in_tokens + out_tokens) / seconds,
        "max_concurrent_requests": concurrency(sent),
    }
    for name, values in spreads.items():
        data |= {f"{stat}_{name}_ms": value for stat, value in values.items()}
    data |= {
        "definitions": DEFINITIONS,
        "self_check": self_check(outcome, load, spreads["ttft"]["median"]),
        "engine": target.engine,
        "load": {
            "input": load.input, "output": load.output, "prefix": load.prefix, "seed": load.seed, "salt": load.salt,
            "ramp_s": load.ramp, "closed_loop": load.closed, "timeout_s": load.timeout,
        },
        "from_schedule": None if load.closed else {
            "ttft": spread([s.ttft + s.held for s in good]), "e2el": spread([s.e2el + s.held for s in good]),
        },
        "samples": {
            "ttft": len(good), "tpot": sum(s.tokens > 1 for s in good), "itl": sum(len(s.gaps) for s in good),
        },
        "steady": steady(outcome, load),
        "slo": {"limits_ms": slo, "met": passed, "of": len(sent) + lost} if slo else None,
        "accounting": _accounting(outcome, load, sent, good),
    }  # fmt: skip
    if detailed:
        data |= {
            "input_lens": [s.prompt_tokens if s.prompt_tokens is not None else load.input for s in sent],
            "output_lens": [s.tokens if s.ok else 0 for s in sent],
            "ttfts": [s.ttft if s.ok else 0.0 for s in sent],
            "itls": [s.gaps if s.ok else [] for s in sent],
            "latencies": [s.e2el if s.ok else 0.0 for s in sent],
            "start_times": [s.began / 1e9 for s in sent],
            "queue_times": [s.held if s.began else 0.0 for s in sent],
            "errors": [s.error for s in sent],
        }
    rounded: dict[str, Any] = _rounded(data)
    return rounded


def _accounting(outcome: Outcome, load: Load, sent: list[Sample], good: list[Sample]) -> dict[str, Any]:
    """Where every request and token went, in words that a reader can check against the totals."""
    chunks = sum(len(s.chunks) for s in good)
    fresh = [(s.connected - s.began) / 1e6 for s in good if not s.reused]
    roles = [(s.first - s.message) / 1e6 for s in good if s.first > s.message]
    counted = [s.prompt_tokens for s in good if s.prompt_tokens is not None]
    cached = [s.cached_tokens for s in good if s.cached_tokens is not None]
    return {
        "not_sent": outcome.unsent,
        "ramp_requests": sum(s.ramp for s in outcome.samples),
        "warmup_failed": outcome.warmup_failed,
        "failures": dict(Counter(s.kind or "empty" for s in sent if not s.ok)),
        "first_error": next((s.error for s in sent if not s.ok and s.kind != "unfinished"), None),
        "held_by_concurrency": sum((s.began - s.woke) > 1_000_000 for s in sent),
        "tokens_from": "usage" if all(s.usage_tokens is not None for s in good) else "chunks",
        "tokens_per_chunk": sum(s.tokens for s in good) / chunks if chunks else None,
        "shorter_than_asked": sum(s.tokens < load.output for s in good),
        "prompt_tokens": {"min": min(counted), "max": max(counted)} if counted else None,
        "cached_prompt_tokens": sum(cached) if cached else None,
        "messages_before_text": {"requests": len(roles), "median_ms": statistics.median(roles)} if roles else None,
        "connect": {"requests": len(fresh), "median_ms": statistics.median(fresh)} if fresh else None,
    }  # fmt: skip
