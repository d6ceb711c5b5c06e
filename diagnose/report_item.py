"""What every form of a report lists: a finding, whichever command made it."""

from __future__ import annotations

from dataclasses import dataclass

from .models import Severity


@dataclass(frozen=True)
class Item:
    """A finding: of a cause (`diagnose`) or of a check (`diagnose audit`); texts in the report's first language.

    Attributes:
        nodes: of a fleet, those it is about; `evidence` then has one entry for each of them.
    """

    id: str
    title: str
    severity: Severity
    evidence: tuple[str, ...]
    confidence: float | None = None
    against: tuple[str, ...] = ()
    because: str = ""
    fix: str = ""
    risk: str = ""
    undo: str = ""
    verify: str = ""
    source: str = ""
    status: str = "inferred"
    nodes: tuple[str, ...] = ()
