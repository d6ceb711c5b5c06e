"""Which release printed this: a text that the version in the evidence does not hold comes from another copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome


def _foreign(ctx: Context, component: str) -> Iterator[Evidence]:
    from ..catalogue import catalogue

    for mark in catalogue().marks:
        if component not in mark.versions:
            continue
        # Entries may share a signal: it is this one's text that counts.
        seen = [e for e in ctx.of(mark.signal) if re.search(mark.pattern, e.quote or "", re.IGNORECASE)]
        version = ctx.outside({component: mark.versions[component]}) if seen else None
        if version is not None:
            yield from (seen[0], version)


def _rule(component: str) -> Callable[[Context], Outcome]:
    def rule(ctx: Context) -> Outcome:
        used = tuple(_foreign(ctx, component))
        return Outcome(True, used[:4]) if used else UNKNOWN

    return rule


RULES: dict[str, Callable[[Context], Outcome]] = {
    f"{component}_text_of_another_release": _rule(component) for component in ("nccl", "ucx", "nixl")
}
