"""The rings that NCCL prints at the start: ``Channel 00/04 :  0 2 1 3``, the order in which ranks pass data on."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact

from .facts import fact

_ORDER = regex(r"\bChannel (\d+)/\d+\s*:((?:\s+\d+){2,})\s*$")
MOST = 4  # orders that differ; a job of many rings says little more with each
MOST_RANKS = 64


class RingReader:
    """Orders of rings, each once."""

    name = "nccl_rings"
    needles = (b" Channel ", b"Channel 0")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.ring` of the first channel that has an order, for the orders that differ."""
        seen: set[str] = set()
        for line in doc.lines():
            hit = _ORDER.search(line.text)
            if hit is None:
                continue
            ranks = hit[2].split()
            order = " ".join(ranks)
            if order in seen or len(ranks) > MOST_RANKS or len(set(ranks)) < len(ranks):
                continue
            seen.add(order)
            yield fact(doc, line, "nccl.ring", order, label=f"channel {hit[1]}")
            if len(seen) == MOST:
                return
