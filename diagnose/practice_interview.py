"""An interview: questions of the concept bank, each followed three deep, free text scored by rubric.

Which questions come follows from the seed and from what went badly before; nothing is left to the clock.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import rubric
from .concepts import Concept, Filled, Rubric, concepts, filled, tokens
from .errors import EXIT_OK, UsageError
from .napkin import DEFAULT_GPU, pick_gpu
from .practice_store import Store
from .practice_talk import SCHEMA, Talk, emit
from .practice_words import say
from .units import percent

if TYPE_CHECKING:
    from .practice_llm import Examiner

DEPTH = 3
WEAK = 0.5  # a score below this is a weak spot
POOR = 0.25  # two answers in a row below this end a chain
_SKIP, _MODEL, _QUIT = ("skip", "跳过"), ("model", "参考答案"), ("quit", "exit", "q", "退出")
_RARE = re.compile(r"[^\d.]")


@dataclass
class Asked:
    """One chain: the scores of its answers, outermost first, None where a question was left."""

    concept: Concept
    scores: list[float | None] = field(default_factory=list)
    dimensions: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Mean of the answers given; a question left counts as nothing."""
        if not any(s is not None for s in self.scores):
            return None
        return sum(s or 0.0 for s in self.scores) / len(self.scores)


def chosen(track: str, seed: int, rounds: int, weak: dict[str, float]) -> list[Concept]:
    """The questions of one sitting: weak spots first (the weakest first), then new ones, then what went well."""
    pool = sorted((c for c in concepts().values() if track in ("", c.track)), key=lambda c: c.id)
    random.Random(seed).shuffle(pool)  # noqa: S311 (the order of questions is no secret)

    def rank(concept: Concept) -> tuple[int, float]:
        last = weak.get(concept.id)
        if last is None:
            return 1, 0.0
        return (0, last) if last < WEAK else (2, last)

    return sorted(pool, key=rank)[: max(1, rounds)]


def follow_up(concept: Concept, question: str, answer: str, other: str) -> Concept:
    """The concept with the follow-up in its place: key points are the telling words of the model answer.

    A follow-up has no rubric of its own, so each of its sentences is a point: two of its rarer words, said together.
    """
    points = tuple(_points(answer)) or (_quoted(tokens(answer)[:1]),)
    words = {"question": question, "follow_ups": concept.en.follow_ups}
    side = Rubric(definition=points, mechanism=points, tradeoff=points, debug=points, honesty=points)
    return concept.model_copy(
        update={
            "rubric": side,
            "en": concept.en.model_copy(update=words),
            "zh": concept.zh.model_copy(update={**words, "question": other}),
        }
    )


def _points(answer: str) -> Iterator[str]:
    for sentence in rubric.sentences(answer):
        telling = [t for t in dict.fromkeys(tokens(sentence)) if _RARE.search(t) and len(t) > 1]
        telling.sort(key=lambda t: (_common(t), -len(t), t))
        few = telling[:6]
        if len(few) >= 4:
            yield f"{_quoted(few[0::2])} & {_quoted(few[1::2])}"
        elif few:
            yield _quoted(few)


def _quoted(words: list[str]) -> str:
    return "|".join(w for w in words if not set(w) & set("|&")) or "?"


def _common(word: str) -> int:
    """In how many concepts a word stands."""
    from .concepts import word_index

    fields, _ = word_index()
    return sum(word in best for best in fields.values())


class Interview:
    """One sitting."""

    def __init__(self, talk: Talk, picked: list[Concept], examiner: Examiner | None = None) -> None:
        self.talk, self.picked, self.examiner = talk, picked, examiner
        self.lang = talk.lang
        self.done: list[Asked] = []
        self.gone = False
        self._gpu, _ = pick_gpu(DEFAULT_GPU)

    def _say(self, what: str, **slots: object) -> str:
        return say(self.lang, what, **slots)

    def hold(self) -> None:
        """Ask everything, until the player goes away."""
        lines = self.talk.lines(lambda: "")
        self.talk.say([self._say("i_start", n=len(self.picked))])
        for n, concept in enumerate(self.picked, 1):
            head = self._say("i_question", n=n, of=len(self.picked), track=concept.track, level=concept.level)
            self.talk.say(["", head])
            self._chain(concept, lines)
            if self.gone:
                return

    def _chain(self, concept: Concept, lines: Iterator[str]) -> None:
        """A question and what is asked next, deeper each time."""
        full, words = filled(concept, self._gpu), concept.words(self.lang)
        chain = Asked(concept)
        poor = 0
        for depth in range(DEPTH + 1):
            if depth == 0:
                question, model, judged = full.say(words.question), full.say(words.long), concept
            else:
                follow = words.follow_ups[depth - 1]
                question, model = full.say(follow.q), full.say(follow.a)
                judged = follow_up(concept, question, model, question)
                self.talk.say([self._say("i_follow", depth=depth)])
            self.talk.say([question])
            answer = self._answer(lines, model)
            if self.gone:
                break
            got = rubric.score(answer, judged) if answer else None
            chain.scores.append(got.total if got else None)
            if got is not None:
                if depth == 0:
                    chain.dimensions = {name: d.score for name, d in got.dimensions.items()}
                self.talk.say([self._say("i_score", score=got.total), *self._react(got, full, depth)])
                if self.examiner is not None and self.talk.shows:
                    asked = self.examiner.ask(question, model, answer, self.lang)
                    self.talk.say([self._say("i_examiner", text=asked)] if asked else [])
            poor = poor + 1 if got is None or got.total < POOR else 0
            if poor == 2 and depth < DEPTH:
                self.talk.say([self._say("i_moving")])
                break
        if chain.scores:
            self.done.append(chain)

    def _answer(self, lines: Iterator[str], model: str) -> str:
        """The answer, or nothing when the question is left."""
        for line in lines:
            text = line.strip()
            if text.lower() in _QUIT:
                break
            if text.lower() in _SKIP:
                return ""
            if text.lower() in _MODEL:
                self.talk.say([self._say("i_model", text=model)])
                return ""
            if text:
                return text
        self.gone = True
        return ""

    def _react(self, got: rubric.RubricScore, full: Filled, depth: int) -> list[str]:
        """What the interviewer says of an answer: the gravest thing, and what is missing most."""
        wrong = full.concept.words(self.lang).wrong
        for note in ("wrong", "listed", "echo", "scattered", "long"):
            if note in got.notes:
                return [self._say(f"i_{note}", because=full.say(wrong.because))]
        if depth:
            return []
        missing = [n for n, d in got.dimensions.items() if not d.made]
        missing.sort(key=lambda n: -rubric.WEIGHTS[n])
        return [self._say(f"i_{missing[0]}")] if missing else [self._say("i_fine")] if got.total >= 0.7 else []

    def result(self) -> dict[str, Any]:
        """The sitting as data."""
        rows = [
            {"concept": a.concept.id, "track": a.concept.track, "score": round(a.score, 4), "answers": a.scores,
             "dimensions": a.dimensions}
            for a in self.done if a.score is not None
        ]  # fmt: skip
        weak = [a.concept.id for a in self.done if a.score is not None and a.score < WEAK]
        return {
            "schema": SCHEMA,
            "kind": "interview",
            "asked": [c.id for c in self.picked],
            "answers": rows,
            "weak": weak,
        }

    def summary(self) -> list[str]:
        """The end of the talk."""
        answered = [(a, a.score) for a in self.done if a.score is not None]
        if not answered:
            return ["", self._say("i_none")]
        out = ["", f"── {self._say('i_end')} " + "─" * 40]
        for chain, score in answered:
            given = sum(s is not None for s in chain.scores)
            out.append(self._say("i_row", concept=chain.concept.id, score=score, answers=given))
        known = [a.dimensions for a, _ in answered if a.dimensions]
        means = {n: sum(d[n] for d in known) / len(known) for n in rubric.WEIGHTS} if known else {}
        if means:
            rows = ", ".join(f"{self._say(n)} {percent(v)}" for n, v in means.items())
            out.append(self._say("i_dimensions", rows=rows))
        if weak := [a.concept.id for a, score in answered if score < WEAK]:
            out.append(self._say("i_weak", names=", ".join(weak)))
            out.append(self._say("d_read", commands=" · ".join(f"diagnose ask {name}" for name in weak[:3])))
        return out


def run(talk: Talk, *, track: str, seed: int, rounds: int, list_: bool, examiner: Examiner | None = None) -> int:
    """Hold an interview, and remember what went badly.

    Raises:
        UsageError: no question of that track.
    """
    with closing(Store()) as store:
        weak = store.weak()
        picked = chosen(track, seed, len(concepts()) if list_ else rounds, weak)
        if not picked:
            raise UsageError(f"no question of track {track}", "diagnose ask --list")
        if list_ and not talk.shows:
            emit({"schema": SCHEMA, "kind": "list", "questions": [c.id for c in picked]})
            return EXIT_OK
        if list_:
            for concept in picked:
                last = percent(weak[concept.id]) if concept.id in weak else ""
                print(f"{concept.id:32}{last:>5}  {concept.words(talk.lang).question}")
            return EXIT_OK
        if store.note:
            talk.say([say(talk.lang, "memory", why=store.note)])
        held = Interview(talk, picked, examiner)
        try:
            held.hold()
        finally:  # what was answered counts, also when Ctrl-C ends the talk
            for chain in held.done:
                if chain.score is not None:
                    store.remember(chain.concept.id, chain.score)
    talk.say(held.summary())
    if not talk.shows:
        emit(held.result())
    return EXIT_OK
