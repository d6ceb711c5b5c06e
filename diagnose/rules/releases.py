"""Which release printed this: a text that the version in the evidence does not hold comes from another copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from ..catalogue import Catalogue, catalogue
from ..entries import Mark
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome

_STEP = regex(
    r"\b(?:before|after|previously|upgraded|downgraded|rolled back|bumped)\b|\d\s*(?:->|→|=>)\s*v?\d|升级|之前|之后",
    re.IGNORECASE,
)


def one_after_the_other(items: Iterable[Evidence]) -> bool:
    """Do the lines say that one release followed the other? Then they do not run side by side."""
    return any(_STEP.search(e.quote or "") for e in items)


@lru_cache(maxsize=64)
def _of(cat: Catalogue, component: str) -> list[Mark]:
    """Marks that only some releases of a component print."""
    return [mark for mark in cat.marks if component in mark.versions]


def _foreign(ctx: Context, component: str) -> Iterator[Evidence]:
    for mark in _of(catalogue(), component):
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


def nccl_note_of_a_release(ctx: Context) -> Outcome:
    """A note says that another NCCL than the one at hand behaves, or calls the one at hand defective."""
    running = {".".join(re.findall(r"\d+", str(e.value))[:2]): e for e in ctx.of("version", {"label": "^nccl$"})}
    for note in ctx.of("nccl.mark.known_bug"):
        named = set(re.findall(r"\b2\.\d+", note.quote or ""))
        defect = re.search(r"regression|known (?:bug|issue)", note.quote or "", re.IGNORECASE)
        if len(named) > 1:
            return Outcome(True, (note,))
        fits = [e for v, e in running.items() if named and (v in named) == bool(defect)]
        if fits:
            return Outcome(True, (note, fits[0]))
    return UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    "nccl_note_of_a_release": nccl_note_of_a_release,
} | {
    f"{component}_text_of_another_release": _rule(component)
    for component in ("nccl", "ucx", "nixl", "vllm", "sglang", "torch")
}
