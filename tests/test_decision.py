"""Decisions: the critical path first, figures filled in from the evidence, and only where one was asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diagnose import engine
from diagnose.cassette import Cassette
from diagnose.catalogue import catalogue
from diagnose.decision import asked, decide, decisions, lines
from diagnose.document import Document
from diagnose.host import Host
from diagnose.live import Live
from diagnose.triage import investigate

from .trees import tree


@pytest.mark.parametrize(
    ("symptom", "topic"),
    [
        ("should we use GPUNetIO?", "gpunetio"),
        ("is IBGDA worth it for our MoE dispatch", "gpunetio"),
        ("该不该上 GPUDirect RDMA", "gpudirect"),
        ("Should we move KV with NIXL?", "nixl"),
        ("值得做 PD 分离吗", "disaggregation"),
    ],
)
def test_topic_is_recognised(symptom: str, topic: str) -> None:
    found = asked(symptom)
    assert found is not None and found["id"] == topic


@pytest.mark.parametrize(
    "symptom", ["NIXL transfers are slow", "GPUDirect is off", "TTFT is high", "disaggregated decode waits"]
)
def test_a_symptom_is_no_question(symptom: str) -> None:
    assert asked(symptom) is None
    assert decide(symptom, [], "en") is None


def test_data_holds_together() -> None:
    signals = catalogue().signals
    for row in decisions():
        assert row["path"]["en"] and row["path"]["zh"]
        for number in row["numbers"]:
            assert number["signal"] in signals, number["signal"]
            assert len({"above", "below", "matches"} & set(number)) == 1


def test_nothing_measured_is_measure_first() -> None:
    made = decide("should we use GPUNetIO?", [], "en")
    assert made is not None and made.stand == "measure_first"
    assert all(f.holds is None and f.measured is None for f in made.figures)
    assert lines(made, "en")[2] == "Critical path:"
    zh = decide("should we use GPUNetIO?", [], "zh")
    assert zh is not None and "先测量" in lines(zh, "zh")[0]


def test_large_messages_speak_against() -> None:
    log = (
        "KV Transfer metrics: Avg xfer time (ms)=300, Avg post time (ms)=2, Avg MB per transfer=512, "
        "Throughput (MB/s)=17000, Avg number of descriptors=64"
    )
    report = engine.report("should we use GPUNetIO?", [Document.of("log", log.encode())])
    assert report.decision is not None and report.decision.stand == "not_now"
    figure = next(f for f in report.decision.figures if f.needed.startswith("kv.bytes_per_descriptor"))
    assert figure.holds is False and set(figure.evidence) <= {e.id for e in report.evidence}


def test_this_machine_fills_it_in(tmp_path: Path) -> None:
    host = Host.at({}, tree(tmp_path / "root", "gdr_off"))
    symptom = "should we use GPUNetIO?"
    live = Live(host, Cassette.create(tmp_path / "run.cassette", symptom, host.taint))
    report, _ = investigate(symptom, [], None, ("en",), None, live)
    assert report.decision is not None and report.decision.stand == "not_now"
    holds = {f.needed.split()[0]: f.holds for f in report.decision.figures}
    assert holds == {"kv.post_share": None, "kv.bytes_per_descriptor": None, "rdma.near": True, "rdma.gpudirect": False}


def test_the_answer_is_the_decision_and_no_list_of_causes() -> None:
    none = Document.of("rdma.txt", b"$ ibv_devinfo\nNo IB devices found\n")
    wanted = {
        "should we use NIXL?": "not now (1 of 3 fail, 2 of 3 not measured).",
        "should we use GPUDirect RDMA?": "not now (2 of 3 fail, 1 of 3 not measured).",
    }
    for symptom, said in wanted.items():
        made = engine.report(symptom, [none], [], ("en", "zh"))
        assert made.verdict == "inconclusive" and all(h.basis == "evidence" for h in made.hypotheses)
        assert made.answer["en"].verdict.endswith(said) and made.answer["en"].short.startswith(
            made.answer["en"].verdict
        )
        assert "现在不做" in made.answer["zh"].verdict and "个未测量" in made.answer["zh"].verdict


def test_the_chinese_decision_is_chinese() -> None:
    """Outside names, signals and commands no English clause is left."""
    clause = re.compile(r"(?:\b[a-z]{2,}\b[ ,]+){4,}[a-z]{2,}")
    for row in decisions():
        made = decide(f"should we use {row['title']['en']}?", [], "zh")
        assert made is not None
        assert [x for x in lines(made, "zh") if clause.search(x)] == []
