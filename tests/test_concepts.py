"""The concept bank: complete in two languages, every figure computed or sourced, nothing said twice."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from diagnose import concepts as bank
from diagnose import hardware, napkin, rubric
from diagnose.catalogue import catalogue
from diagnose.concepts import Concept

ALL = sorted(bank.concepts().values(), key=lambda c: c.id)
GPUS = ("H100", "H200", "A100", "L40S", "B200", "RTX 4090", "V100", "L4")
EACH = pytest.mark.parametrize("concept", ALL, ids=lambda c: c.id)
SLOT = re.compile(r"\{(\w+)\}")
HAN = re.compile(r"[\u4e00-\u9fff]")
# a figure with a unit that stands in a text itself
FIGURE = re.compile(
    r"(?<![\w.{-])(\d[\d,.]*\d|\d)\s?(%|x\b|倍|[kMGT]i?B(?:/s)?\b|G(?:b|T)/s\b|TFLOP/s|us\b|ms\b|s\b|Hz\b|W\b|bits?\b|"
    r"-bit\b|bytes?\b|字节|位|tokens?\b|个|次|条|层|微秒|毫秒|seconds?|lanes?\b|warps?\b|threads?\b|registers?\b|links?\b)"
)


def test_the_bank_is_large_and_covers_every_track_and_level() -> None:
    assert len(ALL) >= 84
    tracks, levels = Counter(c.track for c in ALL), Counter(c.level for c in ALL)
    assert set(tracks) == set(bank.TRACKS) and min(tracks.values()) >= 13
    assert set(levels) == set(bank.LEVELS) and min(levels.values()) >= 15


@EACH
def test_every_slot_is_recomputed_for_every_gpu(concept: Concept) -> None:
    for name in GPUS:
        product, _ = napkin.pick_gpu(name)
        answer = bank.filled(concept, product)
        assert answer.gpu == product.name or answer.note
        for slot in answer.slots.values():
            if slot.formula:
                again = napkin.floors.evaluate(slot.formula, dict(slot.terms))
                assert slot.value == pytest.approx(again), slot.name
        for lang in bank.LANGS:
            for text in concept.words(lang).texts():
                assert "{" not in answer.say(text)
    assert any("in" not in e for e in concept.napkin.values()), "nothing is computed"


@EACH
def test_every_slot_is_used_in_both_languages(concept: Concept) -> None:
    fed = {w for e in concept.napkin.values() for v in e.values() for w in re.findall(r"[A-Za-z_]\w*", str(v))}
    for lang in bank.LANGS:
        said = {s for text in concept.words(lang).texts() for s in SLOT.findall(text)}
        assert said <= set(concept.napkin)
        assert not set(concept.napkin) - said - fed, lang


@EACH
def test_no_figure_without_a_slot_or_a_source(concept: Concept) -> None:
    facts = " ".join(s.fact for s in concept.sources).replace(",", "").replace(" ", "")
    for lang in bank.LANGS:
        for text in concept.words(lang).texts():
            for found in FIGURE.finditer(text):
                assert (found[1] + found[2]).replace(",", "") in facts, f"{lang}: {text[: found.end()][-60:]}"
    assert all(s.fact and s.by for s in concept.sources)


@EACH
def test_both_languages_are_complete_and_of_speaking_length(concept: Concept) -> None:
    answer = bank.filled(concept, napkin.pick_gpu("H100")[0])
    for lang in bank.LANGS:
        assert all(text.strip() for text in concept.words(lang).texts())
        assert len({f.q for f in concept.words(lang).follow_ups}) == 3
    long, short = (answer.say(t) for t in (concept.en.long, concept.en.short))
    assert 150 <= len(long.split()) <= 235
    assert len(short.split()) <= 75 and 2 <= len(rubric.sentences(short)) <= 4
    long, short = (answer.say(t) for t in (concept.zh.long, concept.zh.short))
    assert 190 <= len(HAN.findall(long)) <= 430
    assert 15 <= len(HAN.findall(short)) <= 130
    assert not HAN.search(" ".join(concept.en.texts()))
    assert all(HAN.search(t) for t in concept.zh.texts())


def test_no_sentence_is_shared() -> None:
    seen: dict[str, str] = {}
    for concept in ALL:
        for lang in bank.LANGS:
            for sentence in {s.lower() for t in concept.words(lang).texts() for s in rubric.sentences(t)}:
                if len(sentence) > 12:
                    assert seen.setdefault(sentence, concept.id) == concept.id, sentence


@EACH
def test_links_exist(concept: Concept) -> None:
    assert set(concept.causes) <= set(catalogue().causes)
    assert set(concept.playbooks) <= set(catalogue().playbooks)
    assert concept.causes or concept.playbooks
    assert concept.run.strip() and concept.sources


@EACH
def test_its_own_question_finds_it(concept: Concept) -> None:
    for asked in (concept.id, concept.en.question, concept.zh.question, *concept.aliases):
        hits = bank.find(asked)
        assert hits[0].concept.id == concept.id and hits[0].score >= bank.ENOUGH, asked


@pytest.mark.parametrize(
    ("query", "ident"),
    [
        ("why does decode saturate memory bandwidth", "decode-memory-bound"),
        ("decode 为什么卡在显存带宽", "decode-memory-bound"),
        ("what is the difference between TTFT and TPOT?", "ttft-tpot-itl"),
        ("is my KV cache too small, how many users fit", "kv-cache-size"),
        ("vLLM preempts my requests, what happens then", "kv-preemption"),
        ("投机解码什么时候会变慢", "speculative-decoding"),
        ("does int4 help prefill", "weight-quantisation"),
        ("why is speculative decoding slow at high batch", "speculative-decoding"),
        ("how does NCCL pick ring or tree", "ring-vs-tree"),
        ("why not use fp16 for training", "training-precision"),
        ("robot control loop latency budget", "vla-control-loop"),
        ("UCX falls back to TCP why", "ucx-transport-selection"),
        ("怎么定 checkpoint 频率", "checkpoint-and-failures"),
        ("RDMA 为什么比 TCP 快", "rdma-vs-tcp"),
        ("NIXL small blocks slow", "nixl-transfers"),
        ("Triton vs CUDA", "triton-programming-model"),
        ("is PXN useful", "rails-and-pxn"),
    ],
)
def test_other_words_find_it_too(query: str, ident: str) -> None:
    hit = bank.find(query)[0]
    assert hit.concept.id == ident and hit.score >= bank.ENOUGH


@pytest.mark.parametrize(
    "query", ["best pizza in rome", "今天天气怎么样", "", "who won the world cup", "的", "explain quantum entanglement"]
)
def test_what_is_not_there_is_not_found(query: str) -> None:
    assert bank.find(query)[0].score < bank.ENOUGH


def test_finding_is_deterministic() -> None:
    once = [(h.concept.id, h.score) for h in bank.find("NCCL all-reduce slow")]
    assert once == [(h.concept.id, h.score) for h in bank.find("NCCL all-reduce slow")]


def test_a_gpu_without_the_figure_says_so() -> None:
    entries = {"a": {"of": "ring_nvlink"}}
    with pytest.raises(napkin.NotOnThisGpu, match="RTX 4090"):
        napkin.compute(entries, napkin.pick_gpu("RTX 4090")[0])


def test_figures_follow_the_gpu() -> None:
    slow, fast = (bank.filled(bank.concepts()["decode-memory-bound"], napkin.pick_gpu(g)[0]) for g in ("A100", "H200"))
    assert slow.slots["step"].value / fast.slots["step"].value == pytest.approx(4800 / 2039)


@pytest.mark.parametrize(
    ("value", "unit", "show", "text"),
    [
        (15009837056, "B", "", "15 GB"), (131072, "B", "KiB", "128 KiB"), (0.0045, "ms", "", "4.5 us"),
        (0.954, "fraction", "", "95.4%"), (1234.5, "count", "", "1,230"), (12.0, "count", "", "12"),
        (0.000123, "count", "", "0.000123"), (51200, "us", "", "51.2 ms"), (0.9999, "ms", "", "1 ms"),
    ],
)  # fmt: skip
def test_figures_as_spoken(value: float, unit: str, show: str, text: str) -> None:
    assert napkin.shown(value, unit, show) == text


def test_a_napkin_line_shows_the_count_itself() -> None:
    entries = {"p": {"in": 70e9, "show": "billion", "why": "parameters"}, "half": {"expr": "p / 2", "show": "billion"}}
    slots = napkin.compute(entries, napkin.pick_gpu("H100")[0])
    assert [s.text for s in slots.values()] == ["70", "35"]
    first, second = napkin.lines(slots.values())
    assert first == "p = 70,000,000,000 (parameters)" and "= 35,000,000,000 (p 7e+10)" in second


def test_a_usual_name_is_resolved_and_said() -> None:
    product, note = napkin.pick_gpu("A100")
    assert product is hardware.gpu("A100-SXM4-80GB") and "A100-SXM4-80GB" in note
    assert napkin.pick_gpu("H200")[1] == ""
