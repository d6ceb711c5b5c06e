"""What a finding cites beside its reasons: lines that belong to them and weigh nothing.

Facts that the catalogue names for the cause, an option that is set here and that the cause is about, the part of a
decisive reason that stands here without the rest, what the cause led to further down the chain, and the measured
effect where no reason is a figure.
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
_OF_ONE = 2  # lines of one source
_OPTIONS = ("env.var", "ucx.env", "serving.arg", "nixl.setting", "container.flag", "host.numa.bind")
_SHORTEST = 4  # letters of a name that is looked for in a text
_TELLING = ("signal", "compare", "ratio", "spread", "limit")
_WIDE = (1.3, 100.0)  # a comparison that shows an effect; wider, it compares two kinds of thing
_SPEED = re.compile(r"\w*(?:time|latency|ttft|tpot|itl|e2e|prefill|bandwidth|bw|throughput|rate|iterations)")
_CHANGE = re.compile(r"\d ?[^\s\d]{0,6} (?:->|→|=>) [^\s\d]{0,6}\d")  # 9.1 GB/s -> 41 GB/s
_TYPED = re.compile(r"\s*[$#]\s")  # a command as it was typed: it says what was asked, not what was found


def beside(got: Assessment, belief: Belief, reasons: list[Evidence], ctx: Context) -> list[Evidence]:
    """Evidence that goes with the reasons of a finding, on lines that these do not quote; the closest first."""
    by_id = {e.id: e for e in ctx.evidence}
    taken = set().union(*(_lines(e, by_id) for e in reasons))
    apart = {e.id for t in belief.contra for e in t.used}
    for decoy in belief.cause.decoys:
        apart |= {e.id for e in holds(decoy.when, ctx).used}
    room = min(MOST, MOST_CITED - len(reasons))
    out: list[Evidence] = []
    for source in _sources(got, belief, reasons, ctx):
        fresh = 0
        for item in source if len(out) < room else ():
            lines = _lines(item, by_id)
            if len(out) < room and fresh < _OF_ONE and item.id not in apart and lines and not lines <= taken:
                out.append(item)
                taken |= lines
                fresh += 1
    return out


def _sources(got: Assessment, belief: Belief, reasons: list[Evidence], ctx: Context) -> Iterator[Iterable[Evidence]]:
    """Where to look, in this order; the last two only where no reason is a figure."""
    for when in belief.cause.beside:
        outcome = holds(when, ctx)
        yield outcome.used if outcome.holds else ()
    yield _options(belief, ctx)
    fired = {id(t.indicator) for t in belief.pro}
    for indicator in belief.cause.indicators:
        if indicator.strength == "decisive" and not indicator.against and id(indicator) not in fired:
            yield from _parts(indicator.when, ctx)
    led = {target for source, target in got.links if source == belief.cause.id}
    for other in got.accepted:
        if other.cause.id in led:
            yield other.evidence[:_OF_ONE]
    if not any(_number(e) for e in reasons):
        wide = [w for w in ctx.numbers("compare.ratio") if _WIDE[0] <= w[0] <= _WIDE[1] and _speed(w[1])]
        yield [e for _, e in sorted(wide, key=lambda w: -w[0])[:1]]
        yield [e for e in ctx.of("figure") if _speed(e) and _CHANGE.search(e.quote or "")][:1]


def _options(belief: Belief, ctx: Context) -> Iterator[Evidence]:
    """Options set here that the cause is about: its own texts name them."""
    cause = belief.cause
    said = " ".join((cause.fix.text, cause.definition, cause.mechanism))
    for signal in _OPTIONS:
        for item in ctx.of(signal):
            name = item.subject.label or ""
            flag = "--" if name.isascii() and name.isalpha() and name.islower() else r"(?<!\w)"  # `host` is a word too
            if len(name) >= _SHORTEST and pattern(rf"{flag}{re.escape(name)}(?![\w-])").search(said):
                yield item


def _parts(when: Mapping[str, Any], ctx: Context) -> Iterator[Iterable[Evidence]]:
    """Facts that a condition asks for and that are here, where something else it asks for is not."""
    for part in when.get("all") or when.get("any") or [when]:
        if any(kind in part for kind in _TELLING):
            outcome = holds(part, ctx)
            yield [e for e in outcome.used if not _TYPED.match(e.quote or "")] if outcome.holds else ()


def _speed(item: Evidence) -> bool:
    """Is it speed that a figure, or a comparison, is about?"""
    parts = (item.subject.label or "").split("|")
    return _SPEED.match(parts[min(item.signal == "compare.ratio", len(parts) - 1)]) is not None


def _number(item: Evidence) -> bool:
    return isinstance(item.value, (int, float)) and not isinstance(item.value, bool)


def _lines(item: Evidence, by_id: Mapping[str, Evidence]) -> set[tuple[str, int]]:
    """Lines that an evidence, or what it is derived from, quotes."""
    out = {(s.capture, s.line) for s in item.spans}
    for ident in item.inputs:
        if ident in by_id:
            out |= _lines(by_id[ident], by_id)
    return out
