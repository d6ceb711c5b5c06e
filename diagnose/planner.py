"""Which probe next: expected information per cost.

For a probe, gain is the sum over open hypotheses of the uncertainty p(1-p) times the share of
their undecided indicator weight that the probe's signals would decide; cost is declared seconds
times what the probe disturbs. Once a cause leads, only that and its strongest rival count: what is
still undecided about them, and reading again what the lead rests on. `explain` shows the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from .assess import WEIGHT, Assessment, Belief
from .catalogue import Catalogue
from .entries import ProbeSpec
from .models import Experiment, NextProbe, Unavailable
from .predicates import Context

SEEN = 0.2  # what a probe is still worth when its output is already among the inputs
DISTURBANCE = {"read": 1.0, "light": 3.0, "load": 10.0}
OPEN = 0.04  # uncertainty granted to a cause of this playbook about which nothing is known
LEAD = 1.0  # what confirming or refuting the leading cause is worth
AGAIN = 0.5  # share of an indicator's weight for reading again what already speaks for the lead


@dataclass(frozen=True)
class Option:
    """A probe with its worth."""

    spec: ProbeSpec
    gain: float
    cost: float
    separates: tuple[str, ...]

    @property
    def score(self) -> float:
        """Information per cost."""
        return self.gain / self.cost

    def explain(self) -> str:
        """The arithmetic, for ``-v``."""
        return f"{self.spec.name}: gain {self.gain:.3f} / cost {self.cost:.1f} = {self.score:.4f}"


def signals_of(when: Mapping[str, Any]) -> Iterator[str]:
    """Signals a condition looks at."""
    for key in ("all", "any"):
        for part in when.get(key, ()):
            yield from signals_of(part)
    if "not" in when:
        yield from signals_of(when["not"])
    for key in ("signal", "no", "absent", "spread"):
        if key in when:
            yield str(when[key])
    for name in when.get("ratio", ()):
        yield str(name)


def meets(signal: str, pattern: str) -> bool:
    """Do two names, each of which may end in ``*``, mean a common signal?"""
    if pattern.endswith("*") and signal.startswith(pattern[:-1]):
        return True
    return pattern.startswith(signal[:-1]) if signal.endswith("*") else signal == pattern


def among(signals: frozenset[str], patterns: tuple[str, ...]) -> frozenset[str]:
    """Those names that meet one of the patterns; plain ones, the most, are looked up."""
    found = signals.intersection(patterns)
    stems = tuple(p[:-1] for p in patterns if p.endswith("*"))
    more = [s for s in _starred(signals) if any(meets(s, p) for p in patterns)]
    return found.union(more, (s for s in signals if s.startswith(stems)) if stems else ())


@lru_cache(maxsize=16)
def _starred(signals: frozenset[str]) -> tuple[str, ...]:
    return tuple(s for s in signals if s.endswith("*"))


@dataclass(frozen=True)
class _Open:
    """What is undecided of a cause: each indicator's weight and the signals that would decide it, and its worth."""

    belief: Belief
    parts: tuple[tuple[float, tuple[str, ...]], ...]
    worth: float

    @classmethod
    def of(cls, belief: Belief) -> _Open:
        parts = ((WEIGHT[i.strength], tuple(signals_of(i.when))) for i in belief.undecided)
        return cls(belief, tuple(parts), max(belief.p * (1 - belief.p), OPEN))

    @cached_property
    def signals(self) -> frozenset[str]:
        """All of these signals."""
        return frozenset(signal for _, signals in self.parts for signal in signals)

    @classmethod
    def lead(cls, belief: Belief) -> _Open:
        """Of the leading cause also what it rests on: after the change that has to read otherwise."""
        rests = (
            (AGAIN * WEIGHT[t.indicator.strength], tuple(e.signal for e in t.used)) for t in belief.pro if t.counted
        )
        return cls(belief, (*cls.of(belief).parts, *rests), LEAD)

    def share(self, decided: frozenset[str]) -> float:
        """Share of the undecided weight that readings of these signals would decide."""
        if decided.isdisjoint(self.signals):
            return 0.0
        hit = sum(weight for weight, signals in self.parts if not decided.isdisjoint(signals))
        return hit / sum(weight for weight, _ in self.parts) if hit else 0.0


def _asks(got: Assessment, ctx: Context) -> list[_Open]:
    """What the next probe is for: the lead and its rival once there is a lead, else every open cause."""
    if got.verdict == "cause":
        first = got.accepted[0]
        beside = {b.cause.id for b in got.accepted if (first.cause.id, b.cause.id) in got.links} | {first.cause.id}
        rivals = [b for b in got.beliefs.values() if b.p > 0.02 and b.cause.id not in beside]
        rival = sorted(rivals, key=lambda b: (-b.p, b.cause.id))[:1]
        return [_Open.lead(first), *(_Open.of(b) for b in rival)]
    return [_Open.of(b) for b in got.beliefs.values() if b.p > 0.02 or ctx.asks(*b.cause.playbooks)]


def options(cat: Catalogue, got: Assessment, ctx: Context) -> list[Option]:
    """Probes worth running, best first; ties break by name."""
    book = cat.playbooks.get(ctx.playbook)
    asked = {s.probe for s in book.steps} if book else set()
    seen = frozenset(e.signal for e in ctx.evidence)
    out: list[Option] = []
    asks = _asks(got, ctx)
    wanted = frozenset().union(*(item.signals for item in asks))
    # once something else than a server is at fault, and no server is in sight, its log is not the next thing to read
    no_server = got.verdict == "cause" and not any(s.startswith("serving.") for s in seen)
    for spec in cat.probes.values():
        gain, separates = 0.0, []
        decided = among(wanted, spec.provides)
        if spec.name not in asked:  # any table typed side by side compares: that is no reason to run this probe
            decided -= {"compare.ratio"}
        if no_server and spec.provides and spec.provides[0].startswith("serving."):
            continue
        for item in asks:
            belief = item.belief
            if share := item.share(decided):
                gain += share * item.worth
                separates.append((belief.p, belief.cause.id))
        if spec.name in asked:  # the tree asks for it; conditions in Python do not show which signals they read
            gain = max(gain, OPEN)
        if gain:
            separates.sort(key=lambda s: (-s[0], s[1]))
            bonus = 1.5 if spec.name in asked else 1.0
            if among(seen, spec.provides):
                bonus *= SEEN
            cost = (1.0 + spec.seconds) * DISTURBANCE[spec.footprint]
            out.append(Option(spec, gain * bonus, cost, tuple(c for _, c in separates[:4])))
    out.sort(key=lambda o: (-o.score, o.spec.name))
    return out


def next_probes(found: list[Option], most: int = 3) -> list[NextProbe]:
    """The best few, as the report lists them."""
    return [
        NextProbe(
            probe=o.spec.name, footprint=o.spec.footprint, seconds=o.spec.seconds,
            separates=list(o.separates), command=o.spec.command,
        )
        for o in [o for o in found if o.separates][:most]
    ]  # fmt: skip


def unavailable(cat: Catalogue, missing: list[str], reason: Callable[[str], str], most: int = 4) -> list[Unavailable]:
    """Probes the walk wanted and could not run, each with the experiment that would answer."""
    out: list[Unavailable] = []
    for name in dict.fromkeys(missing):
        spec = cat.probes.get(name)
        if spec is None:
            continue
        out.append(
            Unavailable(
                probe=name,
                reason=reason(name),
                enable=spec.enable or spec.needs or f"run it where the problem is: {spec.command}",
                experiment=Experiment(
                    hypothesis=spec.what, command=spec.command, metric=", ".join(spec.provides[:3]), expect=spec.expect
                ),
            )
        )
    return out[:most]
