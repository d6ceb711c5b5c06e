"""What people type: tables, lists, headed blocks, prose. Each shape with the comparison that must come out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.gather import gather
from diagnose.models import Fact

SHAPES = plain_yaml((Path(__file__).parent / "data" / "generic" / "shapes.yaml").read_text("utf-8"))
DERIVED = ("compare", "spread", "trend", "stat")


def holds(facts: list[Fact], signal: str, label: str, value: float | None) -> bool:
    """Is there such a fact, within 2 %?"""
    return any(
        fact.signal == signal
        and re.search(label, fact.subject.label or "", re.IGNORECASE)
        and (value is None or abs(float(fact.value or 0) - value) <= 0.02 * abs(value))
        for fact in facts
    )


@pytest.mark.parametrize("shape", SHAPES, ids=[s["id"] for s in SHAPES])
def test_shape(shape: dict[str, Any]) -> None:
    facts = gather(Document.of(f"d{i}", t.encode()) for i, t in enumerate(shape["texts"])).facts
    got = [(f.signal, f.subject.label, f.value) for f in facts if f.signal.split(".")[0] in DERIVED]
    for signal, label, value in shape["want"]:
        assert holds(facts, signal, label, value), f"{signal} {label} {value} not in {got}"
