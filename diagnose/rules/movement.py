"""Named predicates of the movement family."""

from __future__ import annotations

from collections.abc import Callable

from ..predicates import Context, Outcome

RULES: dict[str, Callable[[Context], Outcome]] = {}
