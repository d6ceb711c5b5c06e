"""What a finding cites beside its reasons: lines that belong to them and weigh nothing.

Facts that the catalogue names for the cause, an option that is set here and that the cause is about, the part of a
reason that stands here without the rest, what the cause led to further down the chain, and the widest comparison
where no reason is a figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .assess import Assessment, Belief
from .models import Evidence
from .predicates import Context, holds, pattern

MOST = 3  # beside the reasons
MOST_CITED = 8  # with them
_OPTIONS = ("env.var", "ucx.env", "serving.arg", "nixl.setting", "container.flag", "host.numa.bind")
_SHORTEST = 4  # letters of a name that is looked for in a text
_TELLING = ("signal", "compare", "ratio", "spread", "limit")
_WIDE = (1.3, 100.0)  # a comparison that shows an effect; wider, it compares two kinds of thing
_METRIC = re.compile(r"\|[^|]*(?:time|latency|ttft|tpot|itl|e2e|prefill|bandwidth|bw|throughput|rate|iterations)")
_TYPED = re.compile(r"\s*[$#]\s")  # a command as it was typed: it says what was asked, not what was found


def beside(got: Assessment, belief: Belief, reasons: list[Evidence], ctx: Context) -> list[Evidence]:
    """Evidence that goes with the reasons of a finding, on lines that these do not quote; the closest first."""
    by_id = {e.id: e for e in ctx.evidence}
    taken = set().union(*(_lines(e, by_id) for e in reasons))
    apart = {e.id for t in belief.contra for e in t.used}
    for decoy in belief.cause.decoys:
        apart |= {e.id for e in holds(decoy.when, ctx).used}
    out: list[Evidence] = []
    for item in _candidates(got, belief, reasons, ctx):
        lines = _lines(item, by_id)
        if len(out) == min(MOST, MOST_CITED - len(reasons)):
            break
        if item.id not in apart and lines and not lines <= taken:
            out.append(item)
            taken |= lines
    return out


def _candidates(got: Assessment, belief: Belief, reasons: list[Evidence], ctx: Context) -> Iterator[Evidence]:
    yield from (e for name in belief.cause.beside for e in ctx.of(name)[:2])
    yield from _options(belief, ctx)
    yield from _parts(belief, ctx)
    yield from _effects(got, belief)
    if not any(_number(e) for e in reasons):
        wide = [w for w in ctx.numbers("compare.ratio") if _WIDE[0] <= w[0] <= _WIDE[1] and _measured(w[1])]
        yield from (e for _, e in sorted(wide, key=lambda w: -w[0])[:1])


def _measured(item: Evidence) -> bool:
    """Is it speed that a comparison is about?"""
    return _METRIC.search(item.subject.label or "") is not None


def _options(belief: Belief, ctx: Context) -> Iterator[Evidence]:
    """Options set here that the cause is about: its own texts name them."""
    cause = belief.cause
    said = " ".join((cause.fix.text, cause.definition, cause.mechanism))
    for signal in _OPTIONS:
        for item in ctx.of(signal):
            name = item.subject.label or ""
            if len(name) >= _SHORTEST and pattern(rf"(?<!\w){re.escape(name)}(?![\w-])").search(said):
                yield item


def _parts(belief: Belief, ctx: Context) -> Iterator[Evidence]:
    """Facts that a reason asks for and that are here, where something else it asks for is not."""
    fired = {id(t.indicator) for t in belief.pro}
    for indicator in belief.cause.indicators:
        if not indicator.against and id(indicator) not in fired:
            for part in _leaves(indicator.when):
                outcome = holds(part, ctx)
                if outcome.holds:
                    yield from [e for e in outcome.used if not _TYPED.match(e.quote or "")][:2]


def _leaves(when: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    parts = when.get("all") or when.get("any") or [when]
    return [p for p in parts if any(k in p for k in _TELLING)]


def _effects(got: Assessment, belief: Belief) -> Iterator[Evidence]:
    """The leading reasons of what this cause led to here."""
    led = {target for source, target in got.links if source == belief.cause.id}
    for other in got.accepted:
        if other.cause.id in led:
            yield from other.evidence[:2]


def _number(item: Evidence) -> bool:
    return isinstance(item.value, (int, float)) and not isinstance(item.value, bool)


def _lines(item: Evidence, by_id: Mapping[str, Evidence]) -> set[tuple[str, int]]:
    """Lines that an evidence, or what it is derived from, quotes."""
    out = {(s.capture, s.line) for s in item.spans}
    for ident in item.inputs:
        if ident in by_id:
            out |= _lines(by_id[ident], by_id)
    return out
