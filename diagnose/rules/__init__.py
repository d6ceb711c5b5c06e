"""Named predicates: conditions that YAML cannot say. One module a family, each rule with a test.

A rule is a function ``(Context) -> Outcome``, registered by its name in its module's `RULES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module

from ..predicates import UNKNOWN, Context, Outcome

Rule = Callable[[Context], Outcome]

FAMILIES = (
    "collectives",
    "platform",
    "movement",
    "serving",
    "serving_live",
    "serving_prefix",
    "training",
    "comparison",
    "formats",
    "healthy",
    "joins",
    "joins_training",
    "reruns",
    "ceilings",
    "relations",
    "relations_more",
    "limits_met",
    "parts",
    "steps",
    "steady",
    "levers",
    "lever_tables",
    "control_rows",
    "control_load",
    "control_healthy",
    "defaults",
    "paths",
    "network",
    "releases",
    "clock",
)


def _guarded(rule: Rule) -> Rule:
    """A defect of one rule must not cost what the others find; it is said, and a test fails on the warning."""

    @wraps(rule)
    def safe(ctx: Context) -> Outcome:
        try:
            return rule(ctx)
        except (ArithmeticError, LookupError, TypeError, ValueError) as err:
            warnings.warn(f"rule {rule.__name__} failed: {err!r}", RuntimeWarning, stacklevel=2)
            return UNKNOWN

    return safe


RULES: dict[str, Rule] = {}
for _family in FAMILIES:
    RULES.update({name: _guarded(rule) for name, rule in import_module(f"{__name__}.{_family}").RULES.items()})
