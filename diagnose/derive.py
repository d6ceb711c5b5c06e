"""Facts that need more than one document, or more than one reader: ratios, differences, spreads.

Each family registers functions ``(facts, recognised) -> facts``; a derived fact names its inputs
and its formula, and `verify` recomputes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

from .models import Fact

Deriver = Callable[[list[Fact], dict[str, bool]], Iterable[Fact]]


def derive(facts: list[Fact], recognised: dict[str, bool]) -> list[Fact]:
    """Run all derivers over the observed facts."""
    out: list[Fact] = []
    for family in (
        "serving",
        "stages",
        "serving_load",
        "serving_live",
        "collectives",
        "training",
        "comparison",
        "microbench",
        "clock",
        "releases",
    ):
        for deriver in import_module(f"diagnose.derivers.{family}").DERIVERS:
            out.extend(deriver([*facts, *out], recognised))
    return out
