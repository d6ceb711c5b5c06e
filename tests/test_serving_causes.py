"""Verdicts of the serving family: known captures, own cases, and what must stay inconclusive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.engine import triage

ROOT = Path(__file__).parents[1]
CAPTURES = ROOT.parent / "shared" / "captures"
FILES = sorted((ROOT / "evals" / "cases").glob("serving_?.yaml"))
CASES = [case for place in FILES for case in plain_yaml(place.read_text("utf-8"))]
KEY = json.loads((CAPTURES / "KEY.json").read_text())["cases"] if CAPTURES.is_dir() else []


def lead(symptom: str, docs: list[Document]) -> str:
    got = triage(symptom, docs).assessment
    if got.verdict == "cause":
        return got.accepted[0].cause.id
    return "none.healthy" if got.verdict == "healthy" else got.verdict


def documents(case: dict[str, object]) -> list[Document]:
    return [Document.of(f"{i}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]  # type: ignore[index,arg-type]


@pytest.mark.parametrize("case", [c for c in CASES if c.get("verdict") == "inconclusive"], ids=lambda c: c["id"])
def test_inventory_alone_is_inconclusive(case: dict[str, object]) -> None:
    assert lead(str(case["symptom"]), documents(case)) == "inconclusive"


DECISIVE = [
    ("kv_capacity_low", "TTFT is high", "--gpu-memory-utilization 0.3\nRunning: 14 reqs, Waiting: 41 reqs, GPU KV cache usage: 98.9%"),  # noqa: E501
    ("max_num_seqs_low", "TTFT is high", "vllm serve m --max-num-seqs 8\nRunning: 8 reqs, Waiting: 53 reqs, GPU KV cache usage: 6.3%"),  # noqa: E501
    ("queueing_saturation", "TTFT is high", "Running: 219 reqs, Waiting: 512 reqs, GPU KV cache usage: 74.0%"),
    ("kv_cache_exhausted", "slow", "Sequence group 7 is preempted by PreemptionMode.RECOMPUTE mode because there is not enough KV cache space."),  # noqa: E501
    ("misconfigured", "does not start", "ValueError: Total number of attention heads (64) must be divisible by tensor parallel size (6)."),  # noqa: E501
    ("cold_start_compile", "TTFT spikes", "Triton kernel JIT compilation during inference: _k. This causes a latency spike"),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(("cause", "symptom", "text"), DECISIVE)
def test_one_line_names_its_cause(cause: str, symptom: str, text: str) -> None:
    assert lead(symptom, [Document.of("a", text.encode())]) == f"serving.{cause}"


@pytest.mark.parametrize(
    "text",
    [
        "Running: 8 reqs, Waiting: 0 reqs, GPU KV cache usage: 6.3%\n--max-num-seqs 8",  # the limit is reached, nobody waits  # noqa: E501
        "Running: 61 reqs, Waiting: 0 reqs, GPU KV cache usage: 93.0%",  # a full cache in use
        "# HELP vllm:num_preemptions_total Cumulative number of preemptions; a request was preempted",
        "vllm serve m --gpu-memory-utilization 0.3",
    ],
)
def test_without_pressure_nothing_is_accused(text: str) -> None:
    assert lead("TTFT is high", [Document.of("a", text.encode())]) == "inconclusive"


_STATES = [c for c in KEY if c["id"].startswith(("vllm-", "cpu-fault"))]  # all of them: `diagnose eval captures`


@pytest.mark.skipif(not KEY, reason="needs the captures beside the repository")
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c["id"], marks=[pytest.mark.thorough] if n % 4 else []) for n, c in enumerate(_STATES)],
)
def test_known_states_of_real_servers(case: dict[str, object]) -> None:
    docs = []
    for name in case["files"]:  # type: ignore[attr-defined]
        place = CAPTURES / str(name)
        for file in sorted(f for f in place.rglob("*") if f.is_file()) if place.is_dir() else [place]:
            docs.append(Document.of(str(file.relative_to(CAPTURES)), file.read_bytes()))
    assert lead(str(case["symptom"]), docs) in [*case["accept"], *case.get("also_accept", [])]  # type: ignore[misc,attr-defined]
