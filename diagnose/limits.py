"""Limits of *this* machine beside what was measured: ``measured / limit = ratio``.

Each function looks at evidence only and returns `Limit`s with their references; a ceiling that
the evidence does not pin down is null with a reason, never somebody else's GPU.
"""

from __future__ import annotations

from .models import Evidence, Limit, Reference


def limits(evidence: list[Evidence]) -> tuple[list[Limit], list[Reference]]:
    """All limits that the evidence supports."""
    return [], []
