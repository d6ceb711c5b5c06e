"""Named predicates: conditions that YAML cannot say. One module a family, each rule with a test.

A rule is a function ``(Context) -> Outcome``, registered by its name in its module's `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..predicates import Context, Outcome

Rule = Callable[[Context], Outcome]

FAMILIES = (
    "collectives",
    "platform",
    "movement",
    "serving",
    "serving_live",
    "training",
    "comparison",
    "formats",
    "healthy",
    "joins",
    "joins_training",
    "relations",
    "relations_more",
    "limits_met",
    "parts",
    "steps",
    "steady",
    "levers",
    "defaults",
    "paths",
    "network",
    "releases",
    "clock",
)

RULES: dict[str, Rule] = {}
for _family in FAMILIES:
    RULES.update(import_module(f"{__name__}.{_family}").RULES)
