"""From an assessment to the report's body: findings, chain, what was ruled out, what is a red herring.

Everything here selects and words what `assess` decided; it decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from .answer_facts import in_percent
from .assess import HEALTHY, Assessment, Belief, Term, prior_probability
from .beside import beside
from .catalogue import Catalogue
from .limits import met
from .models import (
    ChainLink,
    Checked,
    Evidence,
    Finding,
    Fix,
    Hypothesis,
    Limit,
    RedHerring,
    RuledOut,
)
from .predicates import Context, holds

SHOWN = 6  # reasons per finding; the strongest come first
SYMPTOM = "symptom"
_WHOSE = frozenset({"gpu.name", "nccl_tests.rank"})  # say whose reading it is: cited, and never first
_RANK = {"decisive": 0, "strong": 1, "weak": 2}


def findings(got: Assessment, ctx: Context) -> list[Finding]:
    """Accepted causes, root of the leading chain first."""
    return [_finding(got, b, ctx) for b in got.accepted]


def _finding(got: Assessment, belief: Belief, ctx: Context) -> Finding:
    cause = belief.cause
    reasons = sorted(belief.evidence[:SHOWN], key=lambda e: e.signal in _WHOSE)
    first = next((t.indicator.because for t in strongest(belief.pro)), "")
    more = [e.id for e in beside(got, belief, reasons, ctx)]
    return Finding(
        cause=cause.id,
        confidence=round(belief.p, 2),
        severity=cause.severity,
        summary=cause.title,
        because=first,
        evidence=[*(e.id for e in reasons), *more],
        beside=more,
        against=list(dict.fromkeys(e.id for t in belief.contra for e in t.used)),
        fix=Fix(**cause.fix.model_dump()),
        verify=cause.verify,
    )


def chain(got: Assessment) -> list[ChainLink]:
    """Links among the findings, then from the last effect of each chain to the symptom."""
    out: list[ChainLink] = []
    by_id = {b.cause.id: b for b in got.accepted}
    for source, target in got.links:
        out.append(_link(by_id[source], target, by_id[target]))
    sources = {s for s, _ in got.links}
    for belief in got.accepted:
        if belief.cause.id not in sources:
            out.append(_link(belief, SYMPTOM, belief))
    return out


def _link(source: Belief, to: str, shown: Belief) -> ChainLink:
    reasons = [t.indicator.because for t in strongest(shown.pro) if t.indicator.because]
    return ChainLink.model_validate(
        {
            "from": source.cause.id,
            "to": to,
            "because": reasons[0] if reasons else shown.cause.title,
            "evidence": [e.id for e in shown.evidence[:2]],
        }
    )


def strongest(terms: Iterable[Term]) -> list[Term]:
    """Terms by strength, in catalogue order within one strength."""
    return sorted(terms, key=lambda t: _RANK[t.indicator.strength])


def hypotheses(got: Assessment, most: int = 5) -> list[Hypothesis]:
    """What else is in question, likeliest first; where nothing is decided, what the question alone suggests, marked."""
    taken = {b.cause.id for b in got.accepted}
    shown = [
        Hypothesis(cause=b.cause.id, p=round(b.p, 3))
        for b in got.beliefs.values()
        if b.cause.id not in taken and b.p > 0.01
    ]
    if got.verdict == "inconclusive":
        known = {h.cause for h in shown}
        shown += [
            Hypothesis(cause=b.cause.id, p=round(prior_probability(b), 3), basis="question")
            for b in got.beliefs.values()
            if not b.pro and not b.contra and b.cause.id not in known
        ]
    ranked = sorted(shown, key=lambda h: (-h.p, h.cause))
    return [h for h in ranked[:most] if h.p > 0.01]


def ruled_out(got: Assessment, ctx: Context, most: int = 5) -> list[RuledOut]:
    """Causes this question asks about that evidence speaks against, or whose decisive sign is missing."""
    out: list[tuple[int, RuledOut]] = []
    taken = {b.cause.id for b in got.accepted}
    for belief in got.beliefs.values():
        cause = belief.cause
        if belief.outdated and cause.id not in taken:
            out.append((-1, _outdated(belief)))
            continue
        if cause.id in taken or belief.p >= 0.3 or (cause.playbooks and not ctx.asks(*cause.playbooks)):
            continue
        if belief.contra and strongest(belief.contra)[0].indicator.strength != "weak":
            term = strongest(belief.contra)[0]
            because = term.indicator.because or (in_percent(term.used[0]) if term.used else "")
            out.append((_RANK[term.indicator.strength], _ruled(cause.id, because, term.used)))
            continue
        for indicator in cause.indicators:
            if indicator.against or indicator.strength == "weak" or "signal" not in indicator.when:
                continue
            outcome = holds(indicator.when, ctx)
            if outcome.holds is False and outcome.used:
                seen = in_percent(outcome.used[0])
                out.append(
                    (
                        3,
                        _ruled(
                            cause.id, f"{indicator.because or 'its sign'} would be the sign; seen: {seen}", outcome.used
                        ),
                    )
                )
                break
    out.sort(key=lambda r: (r[0], r[1].cause))
    return [r for _, r in out[:most]]


def _outdated(belief: Belief) -> RuledOut:
    """A sign whose meaning other releases have."""
    term, version = belief.outdated[0]
    name = (version.subject.label or "").lower()
    because = (
        f"{term.indicator.because}: a sign with {name} {term.indicator.versions[name]}, and {version.value} runs here"
    )
    return _ruled(belief.cause.id, because, (*term.used[:2], version))


def _ruled(cause: str, because: str, used: tuple[Evidence, ...]) -> RuledOut:
    return RuledOut(cause=cause, because=because, evidence=[e.id for e in used[:3]])


def red_herrings(cat: Catalogue, got: Assessment, ctx: Context, most: int = 5) -> list[RedHerring]:
    """Readings that look alarming here and are not, unless a finding rests on them."""
    used = {e.id for b in got.accepted for e in b.evidence}
    out: dict[str, RedHerring] = {}
    for item, version, text in list(ctx.unread.values())[:2]:
        name, release = item.subject.label or "", f"{(version.subject.label or '').upper()} {version.value}"
        out[name] = RedHerring(
            text=f"{name} is set",
            because=f"{release} does not read it; releases {text} do",
            evidence=[item.id, version.id],
        )
    lead = {b.cause.id for b in got.accepted}
    for cause in sorted(cat.causes.values(), key=lambda c: (c.id not in lead, c.id)):
        for decoy in cause.decoys:
            outcome = holds(decoy.when, ctx)
            if outcome.holds and outcome.used and not used & {e.id for e in outcome.used}:
                out.setdefault(
                    decoy.text,
                    RedHerring(text=decoy.text, because=decoy.because, evidence=[e.id for e in outcome.used[:2]]),
                )
    return list(out.values())[:most]


def checked(got: Assessment, limits: list[Limit]) -> list[Checked]:
    """What was looked at and found in order: the reasons for health, and every limit that is met."""
    out: list[Checked] = []
    if got.healthy is not None and got.verdict == "healthy":
        for term in strongest(got.healthy.pro):
            out.append(Checked(what=term.indicator.because or HEALTHY, evidence=[e.id for e in term.used[:4]]))
    for limit in limits:
        if met(limit):
            out.append(
                Checked(
                    what=f"{limit.what}: {limit.measured:g} of {limit.limit:g} {limit.unit}",
                    evidence=limit.evidence[:4],
                )
            )
    return out
