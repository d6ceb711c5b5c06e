"""From evidence to ranked causes. Deterministic, small, and explainable term by term.

For each cause the log-odds are a prior plus, for each independence group, the strongest indicator
for it, minus the same against it. Confidence 0.8 and above needs one decisive or two independent
strong indicators and nothing decisive against. `produces` links accepted causes into chains; the
root leads, because that is what has to be changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .catalogue import Catalogue
from .entries import Cause, Indicator, Signal
from .marks import admits, gates, needles
from .models import Evidence
from .predicates import Context, Outcome, holds, needs, pattern
from .wording import MOST_BYTES

HEALTHY = "none.healthy"
ACCEPT = 0.5  # probability from which a cause is a finding
SURE = 0.8

# Weights in log-odds. Fitted by cross-validation over sources (docs/notes.md), then fixed.
WEIGHT = {"decisive": 5.2, "strong": 2.7, "weak": 0.9}
AGAINST = {"decisive": 7.0, "strong": 2.7, "weak": 0.9}
PRIOR_LISTED = -3.2  # a cause that this playbook asks about
PRIOR_OTHER = -3.8  # any other cause of the catalogue
CUE = 0.7  # the symptom's own words make the cause likelier; never enough by themselves
CHAIN = 1.0  # an accepted cause lends this to what it produces
# Fitted by cross-validation grouped by source: 776 cases answered by a catalogue that had not yet seen them, words
# fitted without their family. 8 of 10 folds choose 1.3 or 1.4; log loss 0.332 -> 0.321 (docs/notes.md, "Calibration").
TEMPERATURE = 1.3
# A shift by words (diagnose.wording) from which they clearly speak for a cause. On the same cases a single decisive
# sign was right in 188 of 196 where the words agreed and in 57 of 72 where they spoke for another cause.
WORDS_SPEAK = 0.8
WORDS_APART = 1.0  # … and speak for this one by less than the other by so much


@dataclass
class Term:
    """One indicator that fired."""

    indicator: Indicator
    group: str
    used: tuple[Evidence, ...]
    counted: bool = False


@dataclass
class Belief:
    """What is held about one cause, with every term of the sum."""

    cause: Cause
    ctx: Context = field(repr=False)
    p: float = 0.0
    score: float = 0.0
    prior: float = 0.0
    pro: list[Term] = field(default_factory=list)
    contra: list[Term] = field(default_factory=list)
    outdated: list[tuple[Term, Evidence]] = field(default_factory=list)  # would hold, but not for this version

    lonely: bool = False  # one single reason, while the words used speak for something else

    @cached_property
    def undecided(self) -> list[Indicator]:
        """Indicators of which nothing here says whether they hold."""
        return [i for i in self.cause.indicators if holds(i.when, self.ctx).holds is None]

    @property
    def named(self) -> bool:
        """Is there a reason that could name the cause? Words and weak signs never suffice."""
        return not {"decisive", "strong"}.isdisjoint(self.strengths())

    @property
    def evidence(self) -> list[Evidence]:
        """Evidence of the counted indicators, strongest first, without repeats."""
        order = {"decisive": 0, "strong": 1, "weak": 2}
        out: dict[str, Evidence] = {}
        for term in sorted(self.pro, key=lambda t: order[t.indicator.strength]):
            for item in term.used:
                out.setdefault(item.id, item)
        return list(out.values())

    def strengths(self, against: bool = False) -> list[str]:
        """Strengths of the counted terms."""
        return [t.indicator.strength for t in (self.contra if against else self.pro) if t.counted]

    @property
    def decisive(self) -> bool:
        """One decisive or two independent strong reasons, nothing decisive against."""
        got = self.strengths()
        return ("decisive" in got or got.count("strong") >= 2) and "decisive" not in self.strengths(True)


@dataclass
class Assessment:
    """The outcome: everything the report is written from."""

    beliefs: dict[str, Belief]
    accepted: list[Belief]  # findings, in order: root of the leading chain first
    links: list[tuple[str, str]]  # produces-links among the accepted, cause to cause
    healthy: Belief | None
    verdict: str
    confidence: float


def _sum(terms: list[Term], weights: dict[str, float]) -> float:
    best: dict[str, Term] = {}
    for term in terms:
        rival = best.get(term.group)
        if rival is None or weights[term.indicator.strength] > weights[rival.indicator.strength]:
            best[term.group] = term
    for term in best.values():
        term.counted = True
    return sum(weights[t.indicator.strength] for t in best.values())


def _group(signal: str, signals: Mapping[str, Signal]) -> str:
    declared = signals.get(signal)
    return declared.group or signal if declared is not None else signal


class _Known:
    """What is asked of a cause each time, made ready: its indicators with their needs, its cues with their literals."""

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.indicators = [(i, needs(i.when)) for i in cause.indicators]
        self.cues = [(cue, gates(needles(cue, plain=True))) for cue in cause.cues]

    def cued(self, ctx: Context) -> bool:
        """Do the symptom's own words name the cause?"""
        return any(
            admits(literals, ctx.lower) and pattern(cue, re.IGNORECASE).search(ctx.symptom)
            for cue, literals in self.cues
        )


_KNOWN: dict[int, _Known] = {}  # by identity: the cause within keeps it its own


def believe(cause: Cause, ctx: Context, signals: Mapping[str, Signal]) -> Belief:
    """Evaluate the indicators of one cause; an indicator's group is its own, else that of its first signal."""
    belief = Belief(cause, ctx)
    known = _KNOWN.get(id(cause)) or _KNOWN.setdefault(id(cause), _Known(cause))
    here = ctx.here
    for indicator, wanted in known.indicators:
        for names in wanted:
            if names.isdisjoint(here):
                break
        else:
            got = holds(indicator.when, ctx)
            if got.holds:
                _count(belief, indicator, got, signals)
    prior = PRIOR_LISTED if not cause.playbooks or ctx.asks(*cause.playbooks) else PRIOR_OTHER
    if known.cued(ctx):
        prior += CUE
    prior += ctx.wording.get(cause.id, 0.0)
    belief.prior = prior
    belief.score = prior + _sum(belief.pro, WEIGHT) - _sum(belief.contra, AGAINST)
    elsewhere = ctx.loudest >= WORDS_SPEAK and ctx.wording.get(cause.id, 0.0) <= ctx.loudest - WORDS_APART
    telling = [t for t in belief.pro if t.counted and t.indicator.strength != "weak"]
    belief.lonely = elsewhere and len(telling) == 1 and _worded(telling[0], ctx)
    return belief


def _count(belief: Belief, indicator: Indicator, got: Outcome, signals: Mapping[str, Signal]) -> None:
    """Put down an indicator that holds."""
    group = indicator.group or (_group(got.used[0].signal, signals) if got.used else str(indicator.when))
    term = Term(indicator, group, got.used)
    other = belief.ctx.outside(indicator.versions) if indicator.versions else None
    if other is not None:
        belief.outdated.append((term, other))
    else:
        (belief.contra if indicator.against else belief.pro).append(term)


def _worded(term: Term, ctx: Context) -> bool:
    """Did the words come from the text this sign stands in? Words of a short note say nothing about a long log."""
    return all(ctx.extent.get(s.capture, 0) <= MOST_BYTES for e in term.used for s in e.spans)


def _probability(belief: Belief, extra: float = 0.0) -> float:
    if not belief.evidence:
        return 0.0  # a prior alone is never a belief worth showing
    p = 1.0 / (1.0 + math.exp(-(belief.score + extra) / TEMPERATURE))
    if belief.decisive and not belief.lonely:
        return p
    return min(p, SURE - 0.01 if belief.named else ACCEPT - 0.01)


def prior_probability(belief: Belief) -> float:
    """How likely the question and the symptom's words alone make a cause."""
    return 1.0 / (1.0 + math.exp(-belief.prior / TEMPERATURE))


def assess(cat: Catalogue, ctx: Context) -> Assessment:
    """Rank all causes and decide the verdict."""
    beliefs = {c.id: believe(c, ctx, cat.signals) for c in cat.causes.values()}
    for belief in beliefs.values():
        belief.p = _probability(belief)
    for belief in list(beliefs.values()):
        for other in belief.cause.produces:
            target = beliefs.get(other)
            if belief.p >= ACCEPT and target is not None and target.pro and target.p < ACCEPT:
                target.p = _probability(target, CHAIN)
    healthy = beliefs.pop(HEALTHY, None)
    hits = sorted(
        (b for b in beliefs.values() if b.p >= ACCEPT), key=lambda b: (-b.p, -len(b.pro), -b.prior, b.cause.id)
    )
    accepted, links = _order(hits)
    if healthy is not None and healthy.p >= ACCEPT and not (accepted and accepted[0].p > healthy.p):
        return Assessment(beliefs, [], [], healthy, "healthy", healthy.p)
    if accepted:
        return Assessment(beliefs, accepted, links, healthy, "cause", accepted[0].p)
    rest = max((b.p for b in beliefs.values()), default=0.0)
    return Assessment(beliefs, [], [], healthy, "inconclusive", round(1.0 - rest, 4))


def _order(hits: list[Belief]) -> tuple[list[Belief], list[tuple[str, str]]]:
    """Root first: follow `produces` up from the likeliest, then list each chain below its root."""
    ids = {b.cause.id: b for b in hits}
    links = [(b.cause.id, other) for b in hits for other in b.cause.produces if other in ids]
    above: dict[str, list[str]] = {}
    for source, target in links:
        above.setdefault(target, []).append(source)

    def root(ident: str, seen: frozenset[str] = frozenset()) -> str:
        parents = [p for p in above.get(ident, []) if p not in seen and ids[p].p >= 0.6 * ids[ident].p]
        if not parents:
            return ident
        best = max(parents, key=lambda p: (ids[p].p, p))
        return root(best, seen | {ident})

    out: list[Belief] = []
    for belief in hits:
        for ident in (root(belief.cause.id), belief.cause.id):
            if ids[ident] not in out:
                out.append(ids[ident])
    return out, links
