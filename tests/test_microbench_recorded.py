"""A real run of the microbenchmarks on an H100, as evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.document import Document
from diagnose.engine import triage

RUN = Path(__file__).parent / "data" / "microbench" / "h100.json"


def facts() -> dict[tuple[str, str], float]:
    got = triage("copies are slow", [Document.of("h100.json", RUN.read_bytes())])
    return {(e.signal, e.subject.label or ""): float(e.value) for e in got.evidence if isinstance(e.value, float)}


def test_the_recorded_copy_reaches_what_was_promised() -> None:
    found = {label.split()[0]: value for (signal, label), value in facts().items() if signal == "bench.bandwidth"}
    assert found["copy"] == pytest.approx(3064.5, abs=0.1)
    assert found["copy"] >= 0.9 * 3350
    assert found["copy"] >= 0.97 * found["copy_torch"]


@pytest.mark.parametrize(
    ("symptom", "verdict"),
    [("copies are slow", "healthy"), ("GPU is idle", "inconclusive"), ("this kernel is slow", "inconclusive")],
)
def test_a_healthy_gpu_raises_no_alarm_and_clears_only_what_was_measured(symptom: str, verdict: str) -> None:
    got = triage(symptom, [Document.of("h100.json", RUN.read_bytes())])
    assert got.assessment.verdict == verdict
    assert not got.assessment.accepted
