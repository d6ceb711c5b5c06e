"""A document without what launchers, log collectors, terminals and pastes put around its lines.

`plain` gives a view on a document: its bytes are the program's own text, its spans are bytes of the capture, so a
quote stays verbatim. Readers see the view and need to know of none of this.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import replace
from functools import cached_property
from io import BytesIO

from .document import NOVEL_FROM, Document, Line, Span, uncoloured
from .document_undo import SAMPLE, SIGN, Piece, pieces_of, undone

MOST = 16 << 20  # bytes; in longer ones lines lose their launcher's prefix one by one, in `document.clean`


class Plain(Document):
    """The view. Offsets that readers hand in are of the view, spans that they get are of the capture."""

    whole: Document
    pieces: list[Piece]
    starts: list[int]

    @classmethod
    def on(cls, doc: Document, pieces: list[Piece]) -> Plain:
        """A view made of these lines."""
        parts: list[bytes] = []
        starts: list[int] = []
        at = 0
        for piece in pieces:
            if not piece.joined and parts:
                parts.append(b"\n")
                at += 1
            starts.append(at)
            parts.append(piece.text)
            at += len(piece.text)
        made = cls._of(doc, b"".join(parts) + b"\n")
        made.whole, made.pieces, made.starts = doc, pieces, starts
        return made

    @classmethod
    def _of(cls, doc: Document, data: bytes) -> Plain:
        return cls(doc.name, lambda: BytesIO(data), len(data), doc.sha256, doc.status, doc.cut)

    def again(self, data: bytes) -> Document:
        """The view with some of its bytes blanked or its end cut off."""
        made = self._of(self, data)
        made.whole, made.pieces, made.starts = self.whole, self.pieces, self.starts
        return made

    def line(self, number: int, start: int, raw: bytes) -> Line:
        """A line, with what stood in front of it where that tells it from its neighbours."""
        made = super().line(number, start, raw)
        piece = self.pieces[self._piece(start)]
        if piece.label or piece.by:
            label, by = (uncoloured(b).decode("utf-8", "replace") for b in (piece.label, piece.by))
            made = replace(made, prefix=label + made.prefix, by=by)
        return made

    def span(self, line: Line, around: str | None = None) -> Span:
        """As `Document.span`; of an escaped line, the bytes that hold `around`."""
        piece = self.pieces[self._piece(line.start)]
        if piece.skip < 0:
            inner = Line(piece.start, piece.end, 0, "")
            if around is not None and around.encode() not in self.whole.read(piece.start, piece.end):
                around = json.dumps(around, ensure_ascii=False)[1:-1]
            found = self.whole.span(inner, around)
            return replace(found, line=self._number(found.start))
        return super().span(line, around)

    def bytes_span(self, start: int, end: int, line: int) -> Span:
        """The bytes of the capture behind these bytes of the view."""
        first, last = self._source(start, False), self._source(max(end, start), True)
        return self.whole.bytes_span(first, max(first, last), self._number(first))

    def _piece(self, at: int) -> int:
        return max(0, bisect_right(self.starts, at) - 1)

    def _source(self, at: int, end: bool) -> int:
        n = self._piece(at - 1 if end and at else at)
        piece = self.pieces[n]
        if piece.skip < 0:
            return piece.end if end else piece.start
        return min(piece.start + piece.skip + at - self.starts[n], piece.end)

    def _number(self, at: int) -> int:
        return bisect_right(self._ends, at) + 1

    @cached_property
    def _ends(self) -> list[int]:
        """Where the second and every further line of the capture begins."""
        return [hit.end() for hit in re.finditer(rb"\n", self.whole.data)]


def plain(doc: Document) -> Document:
    """The document as its program wrote it; itself where nothing was put around its lines."""
    if doc.size > MOST or doc.encoding != "utf-8" or doc.is_binary:
        return doc
    typed = doc.size <= NOVEL_FROM and SIGN.search(doc.data)
    if not typed and not undone(pieces_of(doc.head, SAMPLE)):
        return doc
    pieces = undone(pieces_of(doc.data))
    return Plain.on(doc, pieces) if pieces else doc
