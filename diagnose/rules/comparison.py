"""Named predicates over comparisons: which metrics moved together and which stayed (docs/comparisons.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, once

PREFILL = regex(r"^(ttft|prefill|prompt_throughput)")
DECODE = regex(r"^(tpot|itl|decode_throughput)")
STREAM = regex(r"^(tpot|itl|decode_throughput|latency)")
MOVED = 1.2
SAME = 1.12


@dataclass(frozen=True, slots=True)
class Ratio:
    """A `compare.ratio` with its label taken apart."""

    axis: str
    metric: str
    worse: str
    better: str
    value: float
    evidence: Evidence

    @property
    def pair(self) -> tuple[str, frozenset[str]]:
        """Axis and the two settings, whichever is worse."""
        return self.axis, frozenset((self.worse, self.better))


@once
def ratios(ctx: Context) -> list[Ratio]:
    """All comparisons of the evidence."""
    out = []
    for value, item in ctx.numbers("compare.ratio"):
        parts = (item.subject.label or "").split("|")
        if len(parts) == 4:
            axis, metric, worse, better = parts
            out.append(Ratio(axis, metric, worse, better, value, item))
    return out


def _together(ctx: Context, first: re.Pattern[str], second: re.Pattern[str]) -> list[tuple[Ratio, Ratio]]:
    """Ratios of two kinds of metric between the same two settings."""
    found = ratios(ctx)
    return [
        (a, b) for a in found for b in found
        if first.search(a.metric) and second.search(b.metric) and a.pair == b.pair
    ]  # fmt: skip


def _decide(pairs: list[tuple[Ratio, Ratio]], test: Callable[[Ratio, Ratio], bool]) -> Outcome:
    if not pairs:
        return UNKNOWN
    good = [p for p in pairs if test(*p)]
    a, b = (good or pairs)[0]
    return Outcome(bool(good), (a.evidence, b.evidence))


def uniform_loss(ctx: Context) -> Outcome:
    """Prefill and decode slowed by about the same factor: the whole GPU is slower (clocks, power, another tenant)."""
    return _decide(
        _together(ctx, PREFILL, DECODE),
        lambda a, b: a.worse == b.worse and min(a.value, b.value) >= 1.04 and 0.85 <= a.value / b.value <= 1.18,
    )


def only_decode(ctx: Context) -> Outcome:
    """Decode slowed, prefill did not: launch overhead, memory bandwidth or small-message communication."""
    return _decide(_together(ctx, PREFILL, DECODE), lambda a, b: a.value <= SAME and b.value >= MOVED)


def only_first_token(ctx: Context) -> Outcome:
    """The first token is late and the rest is not."""
    return _decide(_together(ctx, re.compile("^ttft"), DECODE), lambda a, b: a.value >= 1.5 and b.value <= MOVED)


def buffered_hop(ctx: Context) -> Outcome:
    """Through a hop the first token is later and the gaps are *smaller*: somebody collects before passing on."""
    pairs = [p for p in _together(ctx, re.compile("^ttft"), STREAM) if p[0].axis == "proxy"]
    return _decide(pairs, lambda a, b: a.value >= 1.5 and b.value >= MOVED and a.worse != b.worse)


def version_only_change(ctx: Context) -> Outcome:
    """A version differs, the metric got worse, and no other setting was seen to make a difference."""
    found = [r for r in ratios(ctx) if r.value >= 1.15]
    mine = [r for r in found if r.axis == "version"]
    if not mine:
        return UNKNOWN
    # Sweeps over load or size, and flags that belong to the version itself, are no rival explanations.
    harmless = {"version", "flag", "env", "concurrency", "prompt_length", "output_length", "batch", "message_size"}
    rivals = [r for r in found if r.axis not in harmless and r.value >= mine[0].value]
    return Outcome(not rivals, tuple(r.evidence for r in (rivals or mine)[:3]))


def more_gpus_not_faster(ctx: Context) -> Outcome:
    """Adding GPUs brought little, or made it slower."""
    found = ctx.numbers("compare.scaling")
    if not found:
        return UNKNOWN
    low = [e for value, e in found if value <= 0.7]
    return Outcome(bool(low), tuple(low or [e for _, e in found])[:3])


def saturates(ctx: Context) -> Outcome:
    """With more load the latency climbs while throughput stays: past the knee."""
    latency = [
        r for r in ratios(ctx)
        if r.axis in ("concurrency", "batch") and re.search("^(ttft|e2e|latency|queue_time)", r.metric)
    ]  # fmt: skip
    if not latency:
        return UNKNOWN
    knees = [
        e for _, e in ctx.numbers("compare.knee", {"label": r"^(concurrency|batch)\|(ttft|e2e|latency|queue_time)"})
    ]
    good = [r.evidence for r in latency if r.value >= 5]
    return Outcome(bool(good), tuple(good or [latency[0].evidence])[:2] + tuple(knees[:1]))


def one_outlier(ctx: Context) -> Outcome:
    """One rank, GPU, NIC or node differs from its peers."""
    found = [e for _, e in ctx.numbers("spread.outlier", {"label": r"^(rank|gpu|node|nic)\|"})]
    even = [e for _, e in ctx.numbers("spread.even", {"label": r"^(rank|gpu|node|nic)\|"})]
    if found:
        return Outcome(True, tuple(found[:3]))
    return Outcome(False, tuple(even[:2])) if even else UNKNOWN


def others_wait_for_one(ctx: Context) -> Outcome:
    """The subject that computes longest spends the least time in collectives: its peers wait for it there."""
    late = {
        (e.subject.label or "").split("|")[-1]: e
        for _, e in ctx.numbers("spread.outlier", {"label": r"\|(time|compute_time|step_time|data_time)"})
    }
    waits = ctx.numbers("spread.outlier", {"label": r"\|comm_time"})
    if not late or not waits:
        return UNKNOWN
    both = [(late[name], e) for _, e in waits if (name := (e.subject.label or "").split("|")[-1]) in late]
    return Outcome(bool(both), both[0] if both else (waits[0][1],))


def constant_delay(ctx: Context) -> Outcome:
    """A latency of seconds that is the same for every request: one blocking step, not a queue."""
    found = ctx.numbers("stat.cv", {"label": "^(ttft|latency|e2e)"})
    if not found:
        return UNKNOWN
    even = [e for value, e in found if value <= 0.02]
    return Outcome(bool(even), tuple(even or [e for _, e in found])[:2])


def growing_queue(ctx: Context) -> Outcome:
    """Latency grows with the position in the list of requests."""
    found = [e for _, e in ctx.numbers("trend.growth", {"label": r"^request\|(ttft|e2e|latency|queue_time)"})]
    return Outcome(True, tuple(found[:2])) if found else UNKNOWN


def first_only(ctx: Context) -> Outcome:
    """Only the first request, step or run is slow."""
    found = [e for _, e in ctx.numbers("trend.first_outlier")]
    found += [
        r.evidence
        for r in ratios(ctx)
        if r.axis == "cold_warm" and r.value >= 3 and re.search("first|cold|1|首", r.worse)
    ]
    return Outcome(True, tuple(found[:3])) if found else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        uniform_loss, only_decode, only_first_token, buffered_hop, version_only_change, more_gpus_not_faster, saturates,
        one_outlier, others_wait_for_one, constant_delay, growing_queue, first_only,
    )
}  # fmt: skip
