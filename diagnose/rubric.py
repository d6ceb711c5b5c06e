"""Score a free-text answer against a concept's key points: deterministic, and hard to please with mere words.

A key point is written ``memory bandwidth|带宽 & weight|权重``: alternatives by ``|``, and every group joined by ``&``
must be said, within one sentence or two neighbouring ones. A point counts only where a *sentence* says it: a list of
terms, an echo of the question and an answer about everything earn little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

from .concepts import Concept, tokens

WEIGHTS = {"definition": 0.2, "mechanism": 0.35, "tradeoff": 0.15, "debug": 0.2, "honesty": 0.1}
POINTS_A_SENTENCE = 3  # what one sentence can really explain
MOST_TERMS = 0.8  # share of a sentence's letters that key terms may fill
LONGEST = 330  # words; a 90-second answer holds no more
_FUNCTION = frozenset(
    re.split(
        r"\s+",
        "a an and are as at be because before but by can do does each every for from has have if in into is it its "
        "more no not of on one only or so than that the their then there they this to until up was what when where "
        "which while who why will with you your we i my our per still both all must should would may "
        "these those here now such any some once just also",
    )
)
_ZH_FUNCTION = re.compile("[的了是在就要会把被和也都才再而与则使让从到用按每只又没不有比对看因所这那它先后给跟]")
_DENIED = re.compile(r"\b(?:not|no|never|wrong|myth|false|rather|n't)\b|错|不是|并非|不对|误解|而不")
_CJK = re.compile(r"[\u4e00-\u9fff]")
_LATIN = re.compile(r"[A-Za-z][A-Za-z0-9_.+#/-]*|\d+(?:\.\d+)?")
_ENDS = re.compile(r"(?<=[.!?;])\s+|[。!?;；\n]+")


@dataclass(frozen=True, slots=True)
class DimensionScore:
    """One dimension: which key points were made, which were not."""

    score: float
    made: tuple[str, ...]
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RubricScore:
    """Total from 0 to 1, its parts, and what was held against it: `listed`, `echo`, `wrong`, `scattered`, `long`."""

    total: float
    dimensions: dict[str, DimensionScore]
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def _pattern(point: str) -> tuple[re.Pattern[str], ...]:
    """One expression for each group of a key point; English terms match at the start of a word."""
    groups = []
    for group in point.split("&"):
        terms = [t.strip().lower() for t in group.split("|") if t.strip()]
        groups.append("|".join((r"(?<![a-z0-9])" if t[0].isascii() else "") + re.escape(t) for t in terms))
    return tuple(re.compile(g) for g in groups)


def sentences(text: str) -> list[str]:
    """The sentences of an answer."""
    return [s.strip() for s in _ENDS.split(text) if s and s.strip()]


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(tokens(text))


def size(text: str) -> float:
    """Length in English words; two Chinese characters count as one and a bit."""
    return len(_LATIN.findall(text)) + len(_CJK.findall(text)) / 1.7


@lru_cache(maxsize=4096)
def _said(sentence: str) -> bool:
    """Whether it reads as a sentence: long enough, and held together by small words."""
    latin, cjk = _LATIN.findall(sentence), len(_CJK.findall(sentence))
    if cjk >= 4 and cjk >= len(latin):
        return len(_ZH_FUNCTION.findall(sentence)) >= max(1, 0.03 * cjk)
    small = sum(w.lower() in _FUNCTION for w in latin)
    return len(latin) >= 4 and small >= 0.15 * len(latin)


@lru_cache(maxsize=4096)
def _listed(sentence: str) -> bool:
    """Whether it is an enumeration: eight or more scraps between commas."""
    scraps = [s for s in re.split(r"(?<!\d)[,，、/]|[,，、/](?!\d)| and | or |和|或", sentence) if s.strip()]
    return len(scraps) >= 8 and median(size(s) for s in scraps) <= 3.5


def _dense(sentence: str, terms: tuple[re.Pattern[str], ...]) -> bool:
    """Whether it is made of key terms and little else."""
    covered = {i for term in terms for m in term.finditer(sentence.lower()) for i in range(*m.span())}
    return len(covered) > MOST_TERMS * len(sentence.replace(" ", ""))


def _echo(sentence: str, question: frozenset[str]) -> bool:
    own = _words(sentence)
    return bool(own) and len(own & question) >= 0.75 * len(own)


def _wrong(sentence: str, claims: tuple[frozenset[str], ...]) -> bool:
    """Whether it repeats the concept's common wrong answer, and does not deny it."""
    own = _words(sentence)
    said = any(len(own & c) >= 0.75 * len(c) and len(own) <= 1.6 * len(c) for c in claims if c)
    return said and not _DENIED.search(sentence.lower())


def score(answer_text: str, concept: Concept) -> RubricScore:
    """Score an answer in English, Chinese or both."""
    points = {name: getattr(concept.rubric, name) for name in WEIGHTS}
    question = _words(concept.en.question + " " + concept.zh.question)
    claims = tuple(_words(w.wrong.says) for w in (concept.en, concept.zh))
    terms = tuple(g for side in points.values() for p in side for g in _pattern(p))
    notes: list[str] = []
    kept: list[str] = []  # a rejected sentence leaves a gap, so that its neighbours do not join
    for sentence in sentences(answer_text):
        listed = _listed(sentence) or _dense(sentence, terms)
        echo = _echo(sentence, question)
        wrong = _wrong(sentence, claims)
        notes += ["listed"] * listed + ["echo"] * echo + ["wrong"] * wrong
        kept.append("" if listed or echo or wrong or not _said(sentence) else sentence.lower())
    made = _made(kept, [p for side in points.values() for p in side])
    dimensions: dict[str, DimensionScore] = {}
    for name, side in points.items():
        hit = tuple(p for p in side if p in made)
        dimensions[name] = DimensionScore(len(hit) / len(side), hit, tuple(p for p in side if p not in made))
    total = sum(WEIGHTS[name] * d.score for name, d in dimensions.items())
    factor = _focus(kept, terms, notes)
    if "wrong" in notes:
        factor *= 0.8
    length = size(answer_text)
    if length > LONGEST:
        factor *= (LONGEST / length) ** 2
        notes.append("long")
    return RubricScore(round(total * factor, 4), dimensions, tuple(dict.fromkeys(notes)))


def _made(kept: list[str], points: list[str]) -> set[str]:
    """Key points that a sentence, or it and the next, makes; a sentence makes only so many."""
    made: set[str] = set()
    spent = [0] * len(kept)
    for point in dict.fromkeys(points):
        groups = _pattern(point)
        for i, sentence in enumerate(kept):
            after = kept[i + 1] if i + 1 < len(kept) else ""
            alone = bool(sentence) and all(g.search(sentence) for g in groups)
            pair = f"{sentence} {after}" if sentence and after and len(groups) > 1 else ""
            joined = bool(pair) and all(g.search(pair) for g in groups)
            if (alone or joined) and spent[i] < POINTS_A_SENTENCE:
                spent[i] += 1
                made.add(point)
                break
    return made


def _focus(kept: list[str], terms: tuple[re.Pattern[str], ...], notes: list[str]) -> float:
    """Less than one for an answer most of whose sentences have nothing to do with the question."""
    said = [s for s in kept if s]
    if len(said) < 5:
        return 1.0
    share = sum(any(t.search(s) for t in terms) for s in said) / len(said)
    if share >= 0.4:
        return 1.0
    notes.append("scattered")
    return share / 0.4
