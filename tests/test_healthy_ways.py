"""A worry that is explained away, its unhealthy twin, and the same with its ceiling left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diagnose.assess import HEALTHY
from diagnose.document import Document
from diagnose.engine import triage

CASES = yaml.safe_load((Path(__file__).parents[1] / "evals" / "cases" / "healthy_ways.yaml").read_text("utf-8"))
WAYS = (
    "algbw", "floor", "kvsize", "little", "pstate", "mig", "ecc", "context", "coldcache", "omp", "counter", "retry",
    "alloc", "dram", "scale", "batch", "longout", "moretok", "quantbatch", "spec", "bidir",
)  # fmt: skip


def _verdict(case: dict[str, Any]) -> tuple[str, str]:
    docs = [Document.of(f"a{i}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]
    got = triage(case["symptom"], docs).assessment
    return got.verdict, got.accepted[0].cause.id if got.accepted else HEALTHY


@pytest.mark.parametrize("way", WAYS)
def test_only_the_explained_one_is_healthy(way: str) -> None:
    """`-ok` is healthy; its twin with a figure that is not, and the one without a ceiling, are never."""
    verdicts = {c["id"].rsplit("-", 1)[1]: _verdict(c)[0] for c in CASES if c["id"].rsplit("-", 1)[0] == f"hw-{way}"}
    assert verdicts["ok"] == "healthy"
    assert "healthy" not in (verdicts["bad"], verdicts["unk"])
