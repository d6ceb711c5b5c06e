"""Named predicates over one request: whose part of it leads, how it arrives, and what its figures can tell at all."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .healthy import faulty

_SERVING = ("high-ttft", "high-p99", "bad-tpot", "low-throughput", "gpu-underutilized", "environment", "")


def another_part_leads(ctx: Context) -> Outcome:
    """Most of a request's time is a part that is not the model's, and the model's part is there and small."""
    leads = [e for v, e in ctx.numbers("request.other_share") if v >= 0.5]
    mine = ctx.of("request.span", {"label": r"^model\|"})
    busy = [v for v, _ in ctx.numbers("serving.waiting") if v >= 8]
    return read.yes(leads[0], *mine[:1]) if leads and not busy and ctx.asks(*_SERVING) else UNKNOWN


_FLAT = regex(
    r"flat|exactly|how (?:can|is it possible)|怎么会|pinned|constant|stuck|never (?:moves?|changes?|above|exceeds?|goes|higher)|no matter|whatever|cap(?:s|ped)?\b|plateau|ceiling|same value|always|straight line"  # noqa: E501
    r"|disagree|contradict|(?:does|do)n.t match|lying|lies\b|wrong|impossible|differs?|一条(?:直)?线|不动|不变|恒定|封顶|卡在|固定|一直是|对不上|不一致|不对|哪个",  # noqa: E501
    re.I,
)
_SHOWN = regex(
    r"grafana|dashboard|panel|histogram|quantile|percentile|prometheus|slo\b|chart|graph|metric|监控|面板|图|分位|直方",
    re.I,
)
_PERCENTILE = regex(r"\bp ?(\d{2}(?:\.\d)?)\b|(\d{2}(?:\.\d)?)(?:th)? percentile|(\d{2}) ?分位", re.I)


def quantile_is_cut(ctx: Context) -> Outcome:
    """More lies above the last finite bucket than the quantile leaves, so the quantile shows the bucket's bound."""
    ends = {float((e.subject.label or "|0").rsplit("|", 1)[1]) for e in ctx.of("histogram.beyond")}
    said = {float(n) for n in re.findall(r"(?<![\w.])(\d+(?:\.\d+)?) ?(?:s\b|sec|秒)", ctx.symptom)}
    shown = _SHOWN.search(ctx.symptom) or _PERCENTILE.search(ctx.symptom)
    if shown is None or not (_FLAT.search(ctx.symptom) or ends & said):
        return UNKNOWN
    asked = [float(next(g for g in h.groups() if g)) for h in _PERCENTILE.finditer(ctx.symptom)]
    least = 1 - max(asked, default=99.0) / 100
    beyond = [e for v, e in ctx.numbers("histogram.beyond") if v >= max(1.5 * least, 0.015)]
    above = [e for v, e in ctx.numbers("histogram.mean_ratio") if v >= 1.1]
    return read.yes(*beyond[:1], *above[:1]) if beyond or above else UNKNOWN


def held_by_a_hop(ctx: Context) -> Outcome:
    """The same stream arrives token by token one way, and another way nothing until everything."""
    arrivals = [(v, v * float((e.subject.label or "0 s").split()[0]), e) for v, e in ctx.numbers("stream.arrival")]
    held = [(first, e) for v, first, e in arrivals if v >= 0.85]
    even = [(first, e) for v, first, e in arrivals if v <= 0.75]
    for late, item in held:
        for soon, other in even:
            if late >= max(0.5, 3 * soon):
                return read.yes(item, other)
    kinds = {str(e.value): e for e in ctx.of("stream.worded")}
    if {"held", "even"} <= set(kinds):
        return read.yes(kinds["held"], kinds["even"])
    encoded = ctx.of("stream.encoded")
    return read.yes(held[0][1], encoded[0]) if held and encoded else UNKNOWN


def load_is_one_prompt(ctx: Context) -> Outcome:
    """A load sends hardly any different prompts, and nearly all of their tokens come from the cache."""
    few = [e for v, e in ctx.numbers("bench.distinct_share") if v <= 0.05] + ctx.of("bench.one_prompt")
    hits = [e for s in ("serving.prefix_hit_rate", "serving.cached_share") for v, e in ctx.numbers(s) if v >= 0.9]
    hits += [
        e for v, e in ctx.numbers("figure")
        if e.unit == "fraction" and v >= 0.9 and re.search(r"hit[ _-]?(?:rate|ratio)|cached|命中", e.quote or "", re.I)
    ]  # fmt: skip
    return read.yes(few[0], hits[0]) if few and hits else UNKNOWN


_LUMPS = regex(
    r"\b0 ?ms\b|\bzeros?\b|clump|burst|lump|chunk|bunch|group|several (?:tokens|words)|batch|two (?:or three )?(?:tokens|words)|at once|jerky|stutter|buffer|metric|uneven|irregular"  # noqa: E501
    r"|攒|一卡|蹦|一次.{0,4}(?:两|三|几)|成批|不均匀|抖|缓冲|很怪|奇怪",
    re.I,
)
_GAP = regex(r"gap|interval|between|间隔|event|step|chunk", re.I)
_STEP = (0.85, 1.18)


def event_is_one_step(ctx: Context) -> Outcome:
    """Tokens come together as many as one verified step accepts, one step apart, and each is cheaper than before."""
    tokens = [n for n in ctx.numbers("serving.accept_length", {"label": "^(?:max|last)?$|max"}) if n[0] >= 1.4]
    tokens += [n for n in ctx.numbers("stream.step_tokens") if n[0] >= 1.4]
    tokens += [n for n in ctx.numbers("figure", {"label": "^accept"}) if n[0] >= 1.4]
    if not tokens or not _LUMPS.search(ctx.symptom) or faulty(ctx) or ctx.of("serving.mark.proxy_buffers"):
        return UNKNOWN
    figures = [
        (v * (1e3 if e.unit == "s" else 1.0), e) for v, e in ctx.numbers("figure")
        if e.unit in ("ms", "s") and v > 0
    ]  # fmt: skip
    gaps = list(ctx.numbers("stream.gap"))
    gaps += [
        n for n in figures if _GAP.search(f"{n[1].quote} {n[1].subject.label}") or "time" in (n[1].subject.label or "")
    ]
    for count, said in tokens:
        for gap, at in gaps:
            for each, one in figures:
                if _STEP[0] <= gap / each / count <= _STEP[1] and one.id != at.id:
                    slower = [
                        e for v, e in figures if v > 1.15 * each and e.id not in (at.id, one.id) and v <= 1.4 * gap
                    ]
                    if slower:
                        return read.yes(said, at, one, slower[0])
    return UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    another_part_leads, quantile_is_cut, held_by_a_hop, load_is_one_prompt, event_is_one_step,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
