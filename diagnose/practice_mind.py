"""What a player says would change their mind: does it tell the hypothesis from a rival?

Rivals are the causes that the same question asks about. A reply has to name an output, or a sign in words; and what it
would read has to be a sign of a rival, or one against the hypothesis: a further sign of the hypothesis is half of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from . import route
from .catalogue import catalogue
from .concepts import tokens
from .entries import Cause
from .planner import meets, signals_of
from .practice_fix import names
from .practice_machine import Machine, asked

APART, OWN = 1.0, 0.5
_ENOUGH = 2  # telling words shared with a cause where no reading of the probe is known to be its sign
_COMMON = 0.1  # a word that more causes than this share tells nothing


@dataclass(frozen=True)
class Mind:
    """What a reply is worth.

    Attributes:
        about: the output or the sign it names. rival: the cause it would speak for.
        wanted: signs of the hypothesis, to be said where the reply is worth nothing.
    """

    value: float
    about: str = ""
    rival: str = ""
    wanted: tuple[str, ...] = ()


def rivals(symptom: str, lead: str) -> list[str]:
    """The other causes that a question asks about."""
    cat = catalogue()
    book = route.asked(cat, symptom, [])[0]
    return sorted(c.id for c in cat.causes.values() if c.id != lead and book in c.playbooks)


def weigh(text: str, lead: str, others: list[str], machine: Machine) -> Mind:
    """Is there an output or a sign in this reply on which the hypothesis and a rival differ?"""
    cat = catalogue()
    cause = cat.causes[lead]
    own = _signals(cause, against=False)
    wanted = tuple(own[:3])
    probes = asked(text, machine).probes
    called = {w for p in probes for w in tokens(f"{p} {cat.probes[p].command}".replace("_", " ").replace(".", " "))}
    words, knobs = set(tokens(text)) - called, names(text)
    about = probes[0] if len(probes) == 1 else ""
    mine = len(words & _words(lead))
    if _against(cause, probes, words):
        return Mind(APART, about or "that", "", wanted)
    best = (False, 0, "")
    for rival in others:
        theirs = [s for s in _signals(cat.causes[rival], against=False) if s not in own]
        shared = len(words & _words(rival)) + len(knobs & _knobs(rival) - _knobs(lead)) * _ENOUGH
        read = bool(shared) and any(_reads(p, theirs) for p in probes)
        if shared > mine and (read or shared >= _ENOUGH):
            best = max(best, (read, shared, rival))
    if best[2]:
        return Mind(APART, about or "that", best[2], wanted)
    for probe in probes:
        made_for = [r for r in others if _reads(probe, _signals(cat.causes[r], against=False, least=("decisive",)))]
        if len(made_for) == 1 and not _reads(probe, own):  # what it is made for goes without saying
            return Mind(APART, about, made_for[0], wanted)
    if mine >= _ENOUGH or knobs & _knobs(lead) or any(_reads(p, own) for p in probes):
        return Mind(OWN, about or "that", "", wanted)
    return Mind(0.0, about, "", wanted)


def _against(cause: Cause, probes: tuple[str, ...], words: set[str]) -> bool:
    """Does it name a reading that speaks against the hypothesis?"""
    for item in cause.indicators:
        said = set(tokens(item.because)) if item.against and item.strength != "weak" else set()
        shared = len(words & said)
        if shared >= _ENOUGH and (2 * shared >= len(said) or any(_reads(p, [*signals_of(item.when)]) for p in probes)):
            return True
    return False


def _signals(cause: Cause, *, against: bool, least: tuple[str, ...] = ("decisive", "strong")) -> list[str]:
    """Signals of the reasons that weigh, for a cause or against it."""
    picked = (i for i in cause.indicators if i.against == against and i.strength in least)
    return list(dict.fromkeys(s for i in picked for s in signals_of(i.when)))


def _reads(probe: str, signals: list[str]) -> bool:
    return any(meets(s, p) for s in signals for p in catalogue().probes[probe].provides)


@lru_cache(maxsize=1)
def _all_words() -> dict[str, frozenset[str]]:
    """Words that title, definition and signs of a cause use, without those that many causes use."""
    said: dict[str, set[str]] = {}
    for cause in catalogue().causes.values():
        zh = cause.zh
        texts = [cause.id, cause.title, cause.definition, *(i.because for i in cause.indicators if not i.against)]
        texts += [zh.title, zh.definition] if zh else []
        said[cause.id] = set(tokens(" ".join(texts).replace("_", " ").replace(".", " ")))
    count: dict[str, int] = {}
    for words in said.values():
        for word in words:
            count[word] = count.get(word, 0) + 1
    most = _COMMON * len(said)
    return {c: frozenset(w for w in words if count[w] <= most) for c, words in said.items()}


def _words(cause_id: str) -> frozenset[str]:
    return _all_words()[cause_id]


@lru_cache(maxsize=256)
def _knobs(cause_id: str) -> frozenset[str]:
    """Settings that the signs of a cause name."""
    return frozenset(n for i in catalogue().causes[cause_id].indicators for n in names(f"{i.when} {i.because}"))
