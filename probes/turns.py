"""Who waits on whom, row by row: ranks whose work and wait add up, and work that starts when a transfer ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_RANK = regex(
    r"^\W*(?:rank|worker|node|gpu|host)[ _#-]?(?P<rank>\d{1,4})\b[\s:|]+(?:[^\W\d]{1,12}[ =:]{1,2})?(?P<a>\d+(?:\.\d+)?)(?: ?ms)?[\s|,/，]+(?:[^\W\d]{1,12}[ =:]{1,2})?(?P<b>\d+(?:\.\d+)?)(?: ?ms)?\s*\|?\s*$",  # noqa: E501
    re.IGNORECASE,
)


class RankSumReader:
    """Rows of two times whose sum is the same for all ranks: the one that works longest waits least."""

    name = "rank_sums"
    needles: tuple[bytes, ...] = (b"rank", b"Rank", b"worker", b"node", b"gpu", b"GPU")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One late rank of four or more."""
        rows: list[tuple[int, float, float, Line]] = []
        for line in excerpt(doc, 1 << 16):
            hit = _RANK.match(line.text)
            if hit and len(rows) < 1024:
                rows.append((int(hit["rank"]), float(hit["a"]), float(hit["b"]), line))
        if len(rows) < 4 or len({r[0] for r in rows}) != len(rows):
            return
        sums = [a + b for _, a, b, _ in rows]
        if max(sums) > 1.1 * min(sums):
            return
        for swapped in (False, True):
            pairs = [(n, b, a, line) if swapped else (n, a, b, line) for n, a, b, line in rows]
            usual, usual_wait = median(p[1] for p in pairs), median(p[2] for p in pairs)
            late = [p for p in pairs if p[1] >= 1.2 * usual and p[2] <= 0.6 * usual_wait]
            if len(late) != 1 or usual <= 0:
                continue
            peer = min((p for p in pairs if p is not late[0]), key=lambda p: abs(p[1] - usual))
            inputs = tuple(
                fact(doc, r[3], "figure", r[1], "ms", rank=r[0], label=f"time|rank {r[0]}") for r in (late[0], peer)
            )
            yield divided("straggler.work", inputs, subject=Subject(rank=late[0][0], label=f"rank {late[0][0]}"))
            return


_EVENT = regex(r"^\s*(?:\[|t ?= ?|\+)?\s*(?P<t>\d+(?:\.\d+)?)\]?\s*(?:ms|us|s)?[\s:|]+(?P<what>[A-Za-z一-鿿].*)$")
_MOVED = regex(
    r"(?:xfer|transfer|send|sent|push|pull|put|copy|kv|write|传输)[^\n]{0,30}(?:done|complete\w*|finish\w*|\bend\b|acked|arrived|完成|结束)",
    re.IGNORECASE,
)
_WORK = regex(r"(?:compute|forward|fwd|layer \d+ (?:start|begin)|attention|attn|gemm|prefill)\b|计算", re.IGNORECASE)
_ENDS = regex(r"done|complete|finish|\bend\b|post|poll|xfer|transfer|完成|结束", re.IGNORECASE)


class InTurnReader:
    """A trace in which each piece of compute starts at the moment that the transfer before it ended."""

    name = "in_turn"
    needles: tuple[bytes, ...] = (b"xfer", b"ransfer", b"send", b"push", b"copy", b"kv", b"KV", "传输".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """How often that happens, if it never goes otherwise."""
        moved: tuple[float, Line] | None = None
        together: list[tuple[Line, Line]] = []
        apart = 0
        last = 0.0
        for line in excerpt(doc, 1 << 16):
            hit = _EVENT.match(line.text)
            if hit is None:
                continue
            now = float(hit["t"])
            if _MOVED.search(hit["what"]):
                moved = (now, line)
            elif _WORK.search(hit["what"]) and not _ENDS.search(hit["what"]):
                if moved is not None and abs(now - moved[0]) <= 0.03 * max(now - last, 1.0):
                    together.append((moved[1], line))
                elif last:
                    apart += 1
                moved, last = None, now
        if len(together) >= 2 and not apart:
            yield Fact(
                "kv.in_turn", "compute starts when the transfer has ended", None, Subject(),
                tuple(doc.span(line) for pair in together[:2] for line in reversed(pair)),
                count=len(together), status=doc.status,
            )  # fmt: skip


READERS: list[Reader] = [RankSumReader(), InTurnReader()]
