"""The rubric: explanations score, words do not."""

from __future__ import annotations

from functools import cache

import pytest

from diagnose import concepts as bank
from diagnose import napkin
from diagnose.concepts import Concept
from diagnose.rubric import WEIGHTS, score

ALL = sorted(bank.concepts().values(), key=lambda c: c.id)
EACH = pytest.mark.parametrize("concept", ALL, ids=lambda c: c.id)
H100 = napkin.pick_gpu("H100")[0]


@cache
def _spoken(ident: str, lang: str) -> str:
    concept = bank.concepts()[ident]
    return bank.filled(concept, H100).say(concept.words(lang).long)


def _long(concept: Concept, lang: str) -> str:
    return _spoken(concept.id, lang)


def _terms(concept: Concept) -> list[str]:
    points = [p for name in WEIGHTS for p in getattr(concept.rubric, name)]
    return [t.strip() for p in points for g in p.split("&") for t in g.split("|")]


@EACH
def test_the_long_answer_scores_high(concept: Concept) -> None:
    for lang in bank.LANGS:
        result = score(_long(concept, lang), concept)
        assert result.total >= 0.85, [d.missed for d in result.dimensions.values()]


@EACH
def test_empty_and_echo_score_nothing(concept: Concept) -> None:
    for text in ("", "   \n", "?", concept.en.question, concept.zh.question, (concept.en.question + " ") * 3):
        assert score(text, concept).total <= 0.1, text


@EACH
def test_stuffed_keywords_score_low(concept: Concept) -> None:
    terms = _terms(concept)
    for text in (
        ", ".join(terms), " ".join(terms), "\n".join(terms), "、".join(terms), ". ".join(terms),
        "It is about " + ", ".join(terms) + " and so on.", "这和" + "、".join(terms) + "都有关系。",
    ):  # fmt: skip
        assert score(text, concept).total <= 0.35, text


@EACH
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.thorough)])
def test_another_concept_s_answer_scores_less(concept: Concept, every: int) -> None:
    own = score(_long(concept, "en"), concept).total
    at = ALL.index(concept)
    others = [score(_long(o, "en"), concept).total for i, o in enumerate(ALL) if i != at and (i + at) % every == 0]
    assert max(others, default=0) <= min(0.65, own - 0.2)


@EACH
def test_the_common_wrong_answer_is_held_against(concept: Concept) -> None:
    for lang in bank.LANGS:
        good = _long(concept, lang)
        wrong = bank.filled(concept, H100).say(concept.words(lang).wrong.says)
        both = score(f"{good} {wrong}", concept)
        assert both.total < score(good, concept).total or "wrong" not in both.notes
        assert score(wrong, concept).total <= 0.3
        assert "wrong" not in score(good, concept).notes


def test_a_repeated_wrong_claim_is_named_and_a_denied_one_is_not() -> None:
    concept = bank.concepts()["decode-memory-bound"]
    assert "wrong" in score("Decode is slow because the GPU has too few FLOPS.", concept).notes
    assert "wrong" not in score("Decode is not slow because the GPU has too few FLOPS.", concept).notes


def test_listing_everything_scores_low() -> None:
    layers = (
        "It could be the network, the KV cache, NCCL, PCIe, the tokenizer, CUDA graphs, the batch size, quantisation, "
        "the scheduler, memory bandwidth, NUMA, the proxy, the clocks, or the driver."
    )
    everything = " ".join(c.en.short for c in ALL)
    for concept in ALL:
        assert score(layers, concept).total <= 0.3, concept.id
        assert score(everything, concept).total <= 0.3, concept.id


def test_a_partial_answer_lies_between() -> None:
    concept = bank.concepts()["decode-memory-bound"]
    some = "Decode is bandwidth-bound because the weights have to be read from HBM on every step, for one token."
    assert 0.25 <= score(some, concept).total <= 0.7
    assert score(some, concept).total == score(some, concept).total
    missed = score(some, concept).dimensions["debug"].missed
    assert missed and not score(some, concept).dimensions["debug"].made


def test_the_parts_add_up() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    concept = bank.concepts()["kv-cache-size"]
    result = score(_long(concept, "zh"), concept)
    assert set(result.dimensions) == set(WEIGHTS) and not result.notes
