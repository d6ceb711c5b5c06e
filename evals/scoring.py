"""Scores of a diagnosis: what was right, how sure it was, and what guessing would have reached.

Pure functions over `Outcome`s; nothing here reads a file or runs the engine.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

SURE = 0.8
KEPT = 0.5
INCONCLUSIVE = "inconclusive"
HEALTHY = "none.healthy"


@dataclass(frozen=True)
class Key:
    """The answer key of a case.

    Attributes:
        label: the cause. also: causes that are as right. verdict: cause, healthy or inconclusive.
        evidence: substrings of the input that a right diagnosis has to rest on.
        beside: answers that name a second, independent fault; then both have to be among the first three.
    """

    label: str
    also: tuple[str, ...] = ()
    verdict: str = "cause"
    evidence: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def accepted(self) -> frozenset[str]:
        """Answers that count as right."""
        if self.verdict == INCONCLUSIVE:
            return frozenset([INCONCLUSIVE])
        return frozenset([self.label, *self.also, *self.beside])


@dataclass(frozen=True)
class Outcome:
    """What the engine said about one case.

    Attributes:
        verdict, confidence: of the report.
        findings: ``(cause, confidence)`` in the order given, empty unless the verdict is a cause.
        hypotheses: further ``(cause, p)``, best first.
        quotes, verbatim: spans cited, and how many of them are the bytes at their place.
        cited: share of the key's evidence found in quotes of the leading finding, or None without a key.
        precise: share of the leading finding's quotes that touch the key's evidence: low when all is quoted.
        unsupported: claims of the report that its own evidence or the input does not bear out.
        chained: does the chain lead from the leading finding to the symptom over links that the catalogue knows?
        kind, source, taint, language: what was changed, who wrote the case, what its documents are, of the symptom.
    """

    id: str
    suite: str
    key: Key
    verdict: str
    confidence: float
    findings: tuple[tuple[str, float], ...] = ()
    hypotheses: tuple[tuple[str, float], ...] = ()
    quotes: int = 0
    verbatim: int = 0
    cited: float | None = None
    seconds: float = 0.0
    error: str = ""
    precise: float | None = None
    unsupported: int = 0
    chained: bool | None = None
    kind: str = ""
    source: str = ""
    taint: tuple[str, ...] = ()
    language: str = "en"

    @property
    def ranked(self) -> tuple[str, ...]:
        """Answers in the order of belief: verdicts without a cause stand for themselves."""
        lead = [HEALTHY] if self.verdict == "healthy" else [c for c, _ in self.findings]
        if self.verdict == INCONCLUSIVE:
            lead = [INCONCLUSIVE]
        return tuple(dict.fromkeys([*lead, *(c for c, _ in self.hypotheses)]))

    @property
    def first(self) -> bool:
        """Is the leading answer right?"""
        return self.ranked[:1] != () and self.ranked[0] in self.key.accepted

    @property
    def third(self) -> bool:
        """Is a right answer among the first three? An open verdict takes up none of the three places."""
        ranked = [c for c in self.ranked if c != INCONCLUSIVE] if self.verdict == INCONCLUSIVE else list(self.ranked)
        if self.key.beside:
            return all(not to.isdisjoint(ranked[:3]) for to in ({self.key.label, *self.key.also}, set(self.key.beside)))
        return self.first or any(c in self.key.accepted for c in ranked[:3])

    @property
    def belief(self) -> float:
        """Probability given to the leading cause (or to health), also where the verdict was left open."""
        if self.verdict == "healthy":
            return self.confidence
        leads = self.findings or self.hypotheses
        return leads[0][1] if leads else 0.0

    @property
    def believed_right(self) -> bool:
        """Was what `belief` belongs to right?"""
        if self.verdict == "healthy":
            return HEALTHY in self.key.accepted
        leads = self.findings or self.hypotheses
        return bool(leads) and leads[0][0] in self.key.accepted

    @property
    def spread(self) -> tuple[float, float]:
        """Probabilities given to the likeliest right answer and to the likeliest wrong one."""
        beliefs: dict[str, float] = {}
        for cause, p in (*self.findings, *self.hypotheses):
            beliefs[cause] = max(p, beliefs.get(cause, 0.0))
        if self.verdict == "healthy":
            beliefs[HEALTHY] = self.confidence
        if self.verdict == INCONCLUSIVE:
            beliefs[INCONCLUSIVE] = 1.0 - max(beliefs.values(), default=0.0)
            if self.key.verdict != INCONCLUSIVE:
                del beliefs[INCONCLUSIVE]  # leaving it open claims nothing
        right = max((p for c, p in beliefs.items() if c in self.key.accepted), default=0.0)
        wrong = max((p for c, p in beliefs.items() if c not in self.key.accepted), default=0.0)
        return right, wrong

    @property
    def wrong_and_sure(self) -> bool:
        """The leading answer is a wrong one, said with confidence."""
        return self.verdict != INCONCLUSIVE and not self.first and self.belief >= SURE

    @property
    def kept(self) -> bool:
        """Is a right cause (or health) still held, at or above `KEPT`? Only ablations want that false."""
        if self.verdict == "healthy":
            return HEALTHY in self.key.accepted and self.confidence >= KEPT
        return any(c in self.key.accepted and p >= KEPT for c, p in self.findings)

    @property
    def rightly_open(self) -> bool:
        """Left open where that is the key's answer, or where the guess that was withheld would have been wrong."""
        return self.verdict == INCONCLUSIVE and (self.first or not self.believed_right)

    @property
    def alarm(self) -> bool:
        """Something was found where nothing is wrong."""
        return self.key.verdict == "healthy" and self.verdict == "cause" and not self.first


@dataclass(frozen=True)
class Share:
    """``hits of n`` with Wilson's 95 % interval."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        """The share, or None of nothing."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval, 95 %."""
        return wilson(self.hits, self.n)


def brier_of(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Mean of ``((1 - p right)^2 + (p wrong)^2) / 2``: leaving a case open costs a half, being sure and wrong 1."""
    got = [((1 - right) ** 2 + wrong**2) / 2 for right, wrong in pairs]
    return sum(got) / len(got) if got else None


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion; ``(0, 1)`` of nothing."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % bootstrap interval over cases."""

    value: float | None
    interval: tuple[float, float]
    n: int


def mean(values: Sequence[float]) -> Mean:
    """Mean of some figures; ``(0, 1)`` is the interval of none."""
    if not values:
        return Mean(None, (0.0, 1.0), 0)
    return Mean(sum(values) / len(values), bootstrap(values, lambda drawn: sum(drawn) / len(drawn)), len(values))


_RESAMPLED = 400
_T = TypeVar("_T")


def bootstrap(items: Sequence[_T], figure: Callable[[Sequence[_T]], float]) -> tuple[float, float]:
    """95 % interval of a figure over cases drawn again with replacement; the draws are always the same."""
    draw = random.Random(0)  # noqa: S311 (no secret)
    got = sorted(figure(draw.choices(items, k=len(items))) for _ in range(_RESAMPLED))
    return got[round(0.025 * _RESAMPLED)], got[round(0.975 * _RESAMPLED) - 1]


def share(flags: Iterable[bool]) -> Share:
    """How many of the flags are set."""
    got = list(flags)
    return Share(sum(got), len(got))


# ---------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Bin:
    """One row of the reliability table."""

    low: float
    high: float
    mean: float
    right: Share


@dataclass(frozen=True)
class Calibration:
    """How well the stated probabilities hold."""

    brier: float | None
    ece: float | None
    bins: tuple[Bin, ...]
    ece_interval: tuple[float, float] = (0.0, 1.0)


def _ece(pairs: Sequence[tuple[float, bool]], bins: int) -> float:
    sums: dict[int, float] = defaultdict(float)
    for p, hit in pairs:
        sums[min(int(p * bins), bins - 1)] += p - hit
    return sum(abs(s) for s in sums.values()) / len(pairs)


def calibration(pairs: Sequence[tuple[float, bool]], bins: int = 10) -> Calibration:
    """Brier score, expected calibration error and the reliability table of ``(probability, came true)``."""
    if not pairs:
        return Calibration(None, None, ())
    brier = sum((p - hit) ** 2 for p, hit in pairs) / len(pairs)
    groups: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for p, hit in pairs:
        groups[min(int(p * bins), bins - 1)].append((p, hit))
    rows = []
    for index in sorted(groups):
        members = groups[index]
        mean = sum(p for p, _ in members) / len(members)
        right = share(hit for _, hit in members)
        rows.append(Bin(index / bins, (index + 1) / bins, mean, right))
    return Calibration(brier, _ece(pairs, bins), tuple(rows), bootstrap(pairs, lambda drawn: _ece(drawn, bins)))


# ---------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Baseline:
    """What a method that knows nothing reaches, each case judged by the others."""

    name: str
    first: Share
    third: Share
    brier: float | None


def answer_of(key: Key) -> str:
    """The label that a guesser has to produce."""
    return INCONCLUSIVE if key.verdict == INCONCLUSIVE else key.label


@dataclass(frozen=True)
class CauseRow:
    """How one label fares."""

    cause: str
    first: Share
    third: Share
    belief: float
    taken_for: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Scores:
    """Everything that is printed for one suite.

    Attributes:
        answered: cases with a verdict other than inconclusive, and of those the right ones in `right_of_answered`.
        kept: for ablation, cases that keep their cause although its lines are gone.
        brier: over all cases, open ones included; `calibration` is over the answered ones.
        noise: findings beyond the first that are not in the key, per case with findings.
        rightly_open: of the cases left open, those where no answer was right or the likeliest one was wrong.
        supported: reports in which nothing is claimed that the evidence does not bear out. chained: see `Outcome`.
        languages: top-1 by the language of the symptom. kinds: top-1 (or kept) by the kind of change.
    """

    suite: str
    n: int
    first: Share
    third: Share
    verdict: Share
    wrong_and_sure: Share
    alarms: Share
    answered: Share
    right_of_answered: Share
    verbatim: Share
    cited: Mean
    precise: Mean
    noise: float | None
    rightly_open: Share
    supported: Share
    chained: Share
    languages: tuple[tuple[str, Share], ...]
    kinds: tuple[tuple[str, Share], ...]
    errors: Share
    brier: float | None
    calibration: Calibration
    causes: tuple[CauseRow, ...]
    baselines: tuple[Baseline, ...] = ()
    kept: Share | None = None
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: tuple[Outcome, ...] = field(default=(), repr=False)


def score(
    suite: str, outcomes: Sequence[Outcome], baselines: tuple[Baseline, ...] = (), kept: Share | None = None
) -> Scores:
    """All scores of a suite."""
    right = [o for o in outcomes if o.first]
    with_findings = [o for o in outcomes if o.findings]
    extra = [sum(c not in o.key.accepted for c, _ in o.findings[1:]) for o in with_findings]
    spans = Share(sum(o.verbatim for o in outcomes), sum(o.quotes for o in outcomes))
    judged = [o for o in outcomes if o.key.verdict != INCONCLUSIVE]
    answered = [o for o in judged if o.verdict != INCONCLUSIVE]
    return Scores(
        suite=suite,
        n=len(outcomes),
        first=share(o.first for o in outcomes),
        third=share(o.third for o in outcomes),
        verdict=share(o.verdict == o.key.verdict for o in outcomes),
        wrong_and_sure=share(o.wrong_and_sure for o in outcomes),
        alarms=share(o.alarm for o in outcomes if o.key.verdict == "healthy"),
        answered=Share(len(answered), len(judged)),
        right_of_answered=share(o.first for o in answered),
        verbatim=spans,
        cited=mean([o.cited for o in right if o.cited is not None]),
        precise=mean([o.precise for o in right if o.precise is not None]),
        noise=sum(extra) / len(extra) if extra else None,
        rightly_open=share(o.rightly_open for o in outcomes if o.verdict == INCONCLUSIVE),
        supported=share(o.unsupported == 0 for o in outcomes if not o.error),
        chained=share(o.chained for o in outcomes if o.chained is not None),
        languages=_by((o.language, o.first) for o in outcomes),
        kinds=_by((o.kind, o.first if kept is None else o.kept) for o in outcomes),
        errors=share(bool(o.error) for o in outcomes),
        brier=brier_of(o.spread for o in outcomes),
        calibration=calibration([(o.belief, o.believed_right) for o in answered]),
        causes=per_cause(outcomes),
        baselines=baselines,
        kept=kept,
        seconds=sum(o.seconds for o in outcomes),
        slowest=max((o.seconds for o in outcomes), default=0.0),
        outcomes=tuple(outcomes),
    )


def _by(flags: Iterable[tuple[str, bool]]) -> tuple[tuple[str, Share], ...]:
    """Shares by group, in alphabetical order; what is of no group is left out."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, flag in flags:
        if name:
            groups[name].append(flag)
    return tuple((name, share(groups[name])) for name in sorted(groups))


def per_cause(outcomes: Sequence[Outcome]) -> tuple[CauseRow, ...]:
    """One row a label of the key, in alphabetical order."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for item in outcomes:
        groups[answer_of(item.key)].append(item)
    rows = []
    for cause in sorted(groups):
        members = groups[cause]
        confused = Counter((o.ranked or ("nothing",))[0] for o in members if not o.first)
        taken_for = sorted(confused.items(), key=lambda c: (-c[1], c[0]))[:3]
        belief = sum(o.belief for o in members) / len(members)
        rows.append(
            CauseRow(cause, share(o.first for o in members), share(o.third for o in members), belief, tuple(taken_for))
        )
    return tuple(rows)
