"""Copies between host and GPU that this tool times itself, as recorded on an H200 (PCIe 5.0 x16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.document import Document
from diagnose.engine import triage

ROWS = (Path(__file__).parent / "data/microbench/h200-copies.json").read_bytes()
TRACE = b"  cudaMemcpyAsync HtoD (Pageable -> Device)   88.0%  12.1s\n"


@pytest.mark.parametrize(
    ("symptom", "rows", "verdict"),
    [
        ("copies are slow", ROWS, "healthy"),
        ("H2D copies run at 6 GB/s", ROWS, "inconclusive"),  # the machine is well, and what was seen is not explained
        ("copies are slow", ROWS.replace(b"55.129", b"25.129").replace(b"55.303", b"25.303"), "inconclusive"),
    ],
)
def test_pinned_copies_of_the_machine(symptom: str, rows: bytes, verdict: str) -> None:
    got = triage(symptom, [Document.of("copies", rows)])
    assert got.assessment.verdict == verdict
    assert {x.what for x in got.limits} >= {"microbenchmark pinned H2D", "microbenchmark pinned D2H"}


def test_what_is_known_of_the_program_comes_first() -> None:
    got = triage("copies are slow", [Document.of("copies", ROWS), Document.of("profile", TRACE)])
    assert got.assessment.verdict != "healthy"
