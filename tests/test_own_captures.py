"""Captures of one H100 with known states: what an outsider's traces and servers are judged to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diagnose.evals.case import own_captures
from diagnose.evals.run import engine, judge
from diagnose.probes.serving_procs import ServingProcsReader

from diagnose.document import Document
from diagnose.engine import triage

SAMPLE = (
    "own-kineto-fp32",
    "own-kineto2-gloo",
    "own-nccl-json-ll",
    "own-nccl-netib",
    "own-nccl-dup",
    "own-nccl-memcpy",
)  # a server costs 2 CPU s


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.id, marks=() if c.id in SAMPLE else pytest.mark.thorough) for c in own_captures()]
)
def test_known_states_are_named(case) -> None:  # type: ignore[no-untyped-def]
    _, outcome = judge("captures", case, engine)
    assert outcome.verdict == case.key.verdict
    assert case.key.verdict != "cause" or outcome.findings[0][0] in (case.key.label, *case.key.also)


def _series(*samples: dict[str, tuple[int, float]]) -> str:
    rows = [[{"name": n, "pid": pid, "cpu": cpu} for n, (pid, cpu) in s.items()] for s in samples]
    return "".join(json.dumps({"t": n, "procs": row}) + "\n" for n, row in enumerate(rows))


START = {"python3": (10, 100.0), "VLLM::EngineCore": (20, 0.0)}


def test_a_start_up_says_nothing_about_the_load() -> None:
    text = _series(START, START, *[{"python3": (10, 30.0), "VLLM::EngineCore": (20, 60.0)}] * 3)
    got = {f.subject.label: f.value for f in ServingProcsReader().parse(Document.of("x", text.encode()))}
    assert got == {"python3 10": 30.0, "VLLM::EngineCore 20": 60.0}


@pytest.mark.parametrize(("pid", "named"), [(10, True), (99, False)], ids=["front", "client"])
def test_only_a_process_older_than_its_engine_is_the_front(pid: int, named: bool) -> None:
    text = _series(*[{"python3": (pid, 99.0), "VLLM::EngineCore": (20, 40.0)}] * 4)
    got = triage("TTFT is high", [Document.of(str(Path("cpu.jsonl")), text.encode())]).assessment
    assert ("serving.api_server_cpu_bound" in [b.cause.id for b in got.accepted]) is named
