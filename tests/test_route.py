"""Routing: tired engineers' wording, both languages, typos; ambiguity is said; evidence alone routes too."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from diagnose.catalogue import Catalogue, catalogue, plain_yaml
from diagnose.errors import CatalogueError
from diagnose.models import Evidence
from diagnose.route import Lexicon, asked, decides, infer, ranking, route, words

DATA = Path(__file__).parent / "data" / "route"
SHARED = Path(__file__).parents[1].parent / "shared"


def phrases(name: str) -> list[tuple[str, str]]:
    known: dict[str, list[str]] = plain_yaml((DATA / name).read_text("utf-8"))
    return [(want, text) for want, texts in known.items() for text in texts]


DEV, HELD = phrases("dev.yaml"), phrases("held.yaml")


@pytest.mark.parametrize("known", [DEV, HELD])
def test_enough_phrases_in_both_languages(known: list[tuple[str, str]]) -> None:
    assert len(known) >= 70
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in text) for _, text in known) >= len(known) / 3
    assert {want for want, _ in known} == set(catalogue().playbooks)


@pytest.mark.parametrize(("want", "text"), DEV)
def test_phrase(want: str, text: str) -> None:
    assert route(catalogue(), text) == want, ranking(catalogue(), text)[:3]


def test_phrases_nobody_tuned_for() -> None:
    wrong = [(want, text) for want, text in HELD if route(catalogue(), text) != want]
    assert len(wrong) <= 0.08 * len(HELD), wrong


def test_a_clear_symptom_has_a_clear_winner() -> None:
    clear = [len(asked(catalogue(), text)) == 1 for _, text in HELD]
    assert sum(clear) >= 0.85 * len(clear)


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ("TTFT　ＨＩＧＨ", ["ttft", "high"]),
        ("1,800 tok/s, can't grow", ["1800", "tok", "s", "|", "cant", "grow"]),
        ("首token慢，但decode快", ["首", "token", "慢", "|", "|", "decode", "快"]),
        ("8xH100 at 1.2 GHz.", ["8x", "h100", "at", "1.2", "ghz", "|"]),
    ],
)
def test_words(raw: str, want: list[str]) -> None:
    assert words(raw) == want


def test_terms_bend_but_do_not_break() -> None:
    lexicon = Lexicon({"slow": ("slow*", "cant get above #"), "first": ("first .. request*",), "tput": ("throughput",)})
    assert lexicon.found("slowly") == {"slow": {0}}
    assert lexicon.found("it can't get above 40") == {"slow": {0}}
    assert lexicon.found("fine, the first few requests") == {"first": {1}}
    assert lexicon.found("first, some requests") == {}  # a term ends where its clause ends
    assert lexicon.found("troughput") == {"tput": {0}}
    assert lexicon.found("not slow") == {}


def test_words_that_are_no_misspelling() -> None:
    lexicon = Lexicon(catalogue().words)
    for word in ("deepseek", "decide", "exists", "seed", "root", "warning", "requested", "streams"):
        assert lexicon.spelt(word) in (word, word.removesuffix("s"))
    assert lexicon.spelt("bandwith") == "bandwidth"


def test_trees_only_use_ideas_that_have_words() -> None:
    used = {
        name.strip()
        for book in catalogue().playbooks.values()
        for entries in book.symptoms.values()
        for entry in entries
        for name in entry.replace("&", "+").split("+")
    }
    assert used <= set(catalogue().words)
    assert len(set(catalogue().words) - used) <= 3  # names only, so that they count as spelt right


def test_an_idea_without_words_is_an_error() -> None:
    cat = Catalogue()
    book = catalogue().playbooks["high-ttft"].model_copy(update={"symptoms": {5: ("ttf",)}})
    cat.__dict__["playbooks"] = {"high-ttft": book}
    with pytest.raises(CatalogueError) as caught:
        ranking(cat, "ttft")
    assert "ttft" in caught.value.hint


def test_nothing_said_gives_a_playbook_all_the_same() -> None:
    assert route(catalogue(), "help") in catalogue().playbooks
    assert route(catalogue(), "") in catalogue().playbooks


def test_a_stray_word_leaves_it_to_the_evidence() -> None:
    assert route(catalogue(), "job is slow", seen("gpu.oom.requested", "gpu.oom.free")) == "out-of-memory"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("prefill is fast but decode crawls", "bad-tpot"),
        ("decode is fine, the first token is late", "high-ttft"),
        ("首字正常，但是吐字很慢", "bad-tpot"),
        ("all_reduce is slow", "slow-allreduce"),
        ("all_reduce never returns", "collective-hang"),
        ("training is slow because of all-reduce", "training-slow"),
        ("training hangs in all-reduce", "collective-hang"),
        ("no OOM, only slow kernels", "kernel-slow"),
        ("nccl import error at startup", "environment"),
        ("throughput is low, no errors", "low-throughput"),
        ("low gpu utilization while the nics are at line rate", "gpu-idle-network-busy"),
    ],
)
def test_precedence(text: str, want: str) -> None:
    assert route(catalogue(), text) == want, ranking(catalogue(), text)[:3]


def test_ambiguous_symptom_says_what_would_decide() -> None:
    lines = decides(catalogue(), "ttft and tpot are both bad")
    assert len(lines) == 2 and all(len(line) > 40 for line in lines)
    assert set(asked(catalogue(), "ttft and tpot are both bad")) == {"high-ttft", "bad-tpot"}
    assert decides(catalogue(), "all_reduce_perf busbw is low") == []


def test_a_long_symptom_costs_little() -> None:
    text = " ".join(text for _, text in HELD[:40])
    start = time.process_time()
    ranking(catalogue(), text)
    assert time.process_time() - start < 1


def seen(*signals: str) -> list[Evidence]:
    return [Evidence(id=f"E{n}", kind="observed", signal=s) for n, s in enumerate(signals, 1)]


@pytest.mark.parametrize(
    ("signals", "want"),
    [
        (["version", "env.var", "nccl_tests.busbw", "nccl.transport"], "slow-allreduce"),
        (["serving.client.ttft", "serving.client.tpot", "serving.client.output_tput"], "low-throughput"),
        (["gpu.oom.requested", "gpu.oom.free", "version"], "out-of-memory"),
        (["nccl.mark.ib_retry", "nccl.warn", "version"], "collective-hang"),
        (["ucx.transports", "ucx.build", "version"], "ucx-slow-path"),
        (["kv.throughput", "kv.descriptors", "nixl.mark.fallback"], "kv-transfer-slow"),
        (["trace.gpu_busy", "trace.idle.input", "trace.step"], "training-slow"),
        (["kernel.occupancy", "kernel.dram"], "kernel-slow"),
        (["copy.bandwidth", "gpu.pcie.width"], "copy-slow"),
        (["version", "env.mark.no_gpu"], "environment"),
        ([], "environment"),
    ],
)
def test_inferred_from_evidence(signals: list[str], want: str) -> None:
    assert infer(seen(*signals)) == want


@pytest.mark.skipif(not SHARED.is_dir(), reason="incidents are not here")
def test_sanity_on_recorded_incidents() -> None:
    known = [json.loads(p.read_text("utf-8")) for p in sorted((SHARED / "incidents").glob("*.json"))]
    known = [k for k in known if "playbook" in k]
    right = sum(route(catalogue(), k["symptom"]) == k["playbook"] for k in known)
    assert right > 0.9 * len(known)
