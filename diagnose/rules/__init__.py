"""Named predicates: conditions that YAML cannot say. One module a family, each rule with a test.

A rule is a function ``(Context) -> Outcome``, listed by its name in its module's `RULES`. Importing this package
registers all of them (`predicates.RULES`); conditions name them as ``{python: NAME}``.
"""

from __future__ import annotations

import warnings
from functools import lru_cache, wraps
from importlib import import_module

from ..catalogue import Catalogue, near
from ..errors import CatalogueError
from ..predicates import RULES, UNKNOWN, Context, Outcome, Rule, named

__all__ = ["FAMILIES", "RULES", "Rule", "registered"]

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
    "healthy_laws",
    "healthy_states",
    "healthy_targets",
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
    "lever_more",
    "control_rows",
    "control_load",
    "control_healthy",
    "defaults",
    "paths",
    "network",
    "releases",
    "clock",
    "sharing",
    "left_out",
    "hardware_ways",
    "overflow",
    "request_parts",
    "twin_states",
    "load_check",
    "moves",
    "slots",
    "settled",
    "disaggregated",
    "past",
    "calm",
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


for _family in FAMILIES:
    RULES.update({name: _guarded(rule) for name, rule in import_module(f"{__name__}.{_family}").RULES.items()})


@lru_cache(maxsize=4)
def registered(cat: Catalogue) -> None:
    """Refuse a catalogue that names a predicate which nobody wrote. Raises CatalogueError."""
    asked = [(c.id, i.when) for c in cat.causes.values() for i in c.indicators]
    asked += [(c.id, d.when) for c in cat.causes.values() for d in c.decoys]
    asked += [(b.id, branch.when) for b in cat.playbooks.values() for s in b.steps for branch in s.branches]
    for ident, when in asked:
        for name in named(when):
            if name not in RULES:
                raise CatalogueError(cat.files[ident], ident, f"no predicate {name}", near(name, RULES))
