"""The concept bank (`playbooks/concepts`): what an engineer should be able to explain, and how to find it by words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, model_validator

from . import hardware, napkin
from .catalogue import listed
from .entries import Data, FollowUpText
from .errors import CatalogueError
from .napkin import NotOnThisGpu, Slot

Track = Literal["serving", "collectives", "network", "cuda", "architect", "training"]
Level = Literal["junior", "senior", "staff"]
TRACKS: tuple[Track, ...] = ("serving", "collectives", "network", "cuda", "architect", "training")
LEVELS: tuple[Level, ...] = ("junior", "senior", "staff")
LANGS = ("en", "zh")


class Wrong(Data):
    """What people commonly answer, and why it does not hold."""

    says: str
    because: str


class Words(Data):
    """A concept in one language; texts carry ``{slots}`` of the napkin.

    Attributes:
        short: two or three spoken sentences. long: 90 seconds of speech.
        measure: what to look at in what `Concept.run` prints.
    """

    question: str
    short: str
    long: str
    tradeoff: str
    measure: str
    wrong: Wrong
    follow_ups: tuple[FollowUpText, ...]

    def texts(self) -> list[str]:
        """Every text, in reading order."""
        said = [self.question, self.short, self.long, self.tradeoff, self.measure, self.wrong.says, self.wrong.because]
        return [*said, *(t for f in self.follow_ups for t in (f.q, f.a))]


class Rubric(Data):
    """Key points by dimension; `diagnose.rubric` says how a point is written and scored."""

    definition: tuple[str, ...]
    mechanism: tuple[str, ...]
    tradeoff: tuple[str, ...]
    debug: tuple[str, ...]
    honesty: tuple[str, ...]


class Source(Data):
    """A fact that is no arithmetic, and who says so, with the version."""

    fact: str
    by: str


class Concept(Data):
    """One question of the bank."""

    id: str
    track: Track
    level: Level
    aliases: tuple[str, ...] = ()
    napkin: dict[str, dict[str, Any]]
    run: str
    playbooks: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    sources: tuple[Source, ...]
    rubric: Rubric
    en: Words
    zh: Words

    @model_validator(mode="after")
    def _three_deep(self) -> Concept:
        for words in (self.en, self.zh):
            if len(words.follow_ups) != 3:
                raise ValueError("follow_ups: exactly three, each deeper")
        return self

    def words(self, lang: str) -> Words:
        """The texts in one language."""
        return self.zh if lang == "zh" else self.en


class Filled(Data):
    """A concept with its figures for one GPU."""

    concept: Concept
    gpu: str
    note: str = ""
    slots: dict[str, Any] = Field(default_factory=dict)

    def say(self, text: str) -> str:
        """A text of the concept with the figures in."""
        return " ".join(napkin.fill(text, self.slots).split())

    def napkin_lines(self) -> list[str]:
        """The arithmetic, one line a slot."""
        return napkin.lines(self.slots.values())


@lru_cache(maxsize=1)
def concepts() -> dict[str, Concept]:
    """All concepts by id.

    Raises:
        CatalogueError: a file breaks the contract.
    """
    out: dict[str, Concept] = {}
    for file, concept in listed("concepts", Concept):
        if concept.id in out:
            raise CatalogueError(file, concept.id, "declared twice")
        out[concept.id] = concept
    return out


def filled(concept: Concept, gpu: hardware.Gpu) -> Filled:
    """The concept with figures for `gpu`; where that GPU has none, for the default one, and it says so."""
    note = ""
    try:
        slots: dict[str, Slot] = napkin.compute(concept.napkin, gpu)
    except NotOnThisGpu as err:
        gpu, _ = napkin.pick_gpu(napkin.DEFAULT_GPU)
        slots, note = napkin.compute(concept.napkin, gpu), f"{err}; figures are for {gpu.name}"
    return Filled(concept=concept, gpu=gpu.name, note=note, slots=dict(slots))


# ---------------------------------------------------------------- finding by words

_STOP = frozenset(
    re.split(
        r"\s+",
        "a an and are as at be been but by can cannot could did do does doing for from get give had has have how i if "
        "in into is it its just like make makes me mean means much my no not of on one or our out over shall should so "
        "some than that the their them then there these they this those to too up us use used using very want was we "
        "were what when where which while who whom whose why will with would you your about tell explain describe "
        "really happens happen difference between versus vs keeps "
        "什么 怎么 为什 么是 如何 怎样 是什 么会 么样 一个 的时 时候 哪些 请问 可以 需要 以及 就是 "
        "这个 那个 不是 会不 为何 到底",
    )
)
_WORD = re.compile(r"[a-z0-9][a-z0-9.+#]*|[\u4e00-\u9fff]+")
_HALF = re.compile(r"(?<=[a-z0-9])[-/_](?=[a-z0-9])")


def _stem(word: str) -> str:
    for end, least in (("ing", 6), ("ies", 5), ("es", 5), ("ed", 5), ("s", 4)):
        if word.endswith(end) and len(word) >= least and not word.endswith("ss"):
            return word.removesuffix(end).rstrip("e") or word
    return word.rstrip("e") if len(word) > 4 else word


def tokens(text: str) -> list[str]:
    """Words that carry meaning: stemmed English, pairs of Chinese characters."""
    out: list[str] = []
    for word in _WORD.findall(_HALF.sub(" ", text.lower())):
        if word[0] >= "\u4e00":
            out += [p for i in range(len(word) - 1) if (p := word[i : i + 2]) not in _STOP]
        elif word not in _STOP:
            out.append(_stem(word.rstrip(".")))
    return out


@dataclass(frozen=True, slots=True)
class Hit:
    """How well a concept fits some words, 0 to 1."""

    score: float
    concept: Concept


ENOUGH = 0.42  # share of the query's weight that a concept must account for
_FIELDS = (1.0, 0.7, 0.35)  # question and aliases, terms of the rubric, short answers


@lru_cache(maxsize=1)
def word_index() -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Best field weight of each word in each concept, and how telling each word is."""
    fields: dict[str, dict[str, float]] = {}
    for concept in concepts().values():
        own = [concept.id.replace("-", " "), concept.en.question, concept.zh.question, *concept.aliases]
        points = [p for side in (concept.rubric.definition, concept.rubric.mechanism) for p in side]
        best: dict[str, float] = {}
        for weight, texts in zip(_FIELDS, (own, points, [concept.en.short, concept.zh.short]), strict=True):
            for word in (w for text in texts for w in tokens(text)):
                best.setdefault(word, weight)
        fields[concept.id] = best
    seen: dict[str, int] = {}
    for best in fields.values():
        for word in best:
            seen[word] = seen.get(word, 0) + 1
    return fields, {w: math.log(1 + len(fields) / n) for w, n in seen.items()}


def find(query: str, among: Iterable[Concept] | None = None) -> list[Hit]:
    """Concepts by how much of the query they account for, best first; ties by id."""
    pool = list(concepts().values() if among is None else among)
    if query.strip().lower() in concepts():
        return [Hit(1.0, concepts()[query.strip().lower()])]
    fields, telling = word_index()
    unknown = math.log(1 + len(fields))
    asked = list(dict.fromkeys(tokens(query)))
    # a pair of Chinese characters across two words means nothing, so an unknown one weighs less than an unknown word
    mass = sum(telling.get(w, unknown / 3 if w[0] >= "\u4e00" else unknown) for w in asked)
    out: list[Hit] = []
    for concept in pool:
        best = fields[concept.id]
        got = sum(telling.get(w, 0.0) * best.get(w, 0.0) for w in asked)
        said = max(_overlap(asked, t) for t in (concept.en.question, concept.zh.question, *concept.aliases))
        out.append(Hit(0.9 * got / mass + 0.1 * said if mass else 0.0, concept))
    return sorted(out, key=lambda h: (-h.score, h.concept.id))


def nearest(query: str, hits: list[Hit], most: int = 3) -> list[Hit]:
    """What to offer where nothing matches: by shared words, then by likeness of letters."""

    def alike(hit: Hit) -> float:
        said = (hit.concept.en.question, hit.concept.zh.question, *hit.concept.aliases)
        return max(difflib.SequenceMatcher(None, query.lower(), text.lower()).ratio() for text in said)

    return sorted(hits, key=lambda h: (-h.score, -alike(h), h.concept.id))[:most]


def _overlap(asked: list[str], text: str) -> float:
    """Share of words that two phrases have in common."""
    own, other = set(asked), set(tokens(text))
    return len(own & other) / len(own | other) if own | other else 0.0
