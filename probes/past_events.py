"""Failures in a dated log that ended long before the log does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from diagnose.document import Document, Line
from diagnose.document_plain import Plain
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.past import KINDS, LONG, Kind
from diagnose.plugin import Reader

from .facts import computed

_TAIL = 1 << 12
_FRONT = 100  # characters of a line in which its date stands
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ISO = regex(r"(?<!\d)(?P<y>20\d\d)[-/.](?P<m>\d\d)[-/.](?P<d>\d\d)[T ](?P<t>\d\d:\d\d)")
_NAMED = regex(
    rf"\b(?P<m>{'|'.join(_MONTHS)})\s{{1,2}}(?P<d>\d{{1,2}}),? (?:(?P<y2>20\d\d) )?(?P<t>\d\d:\d\d):\d\d"
    r"(?: (?:UTC )?(?P<y>20\d\d)\b)?"
)


def _dates(text: str) -> list[tuple[bool, datetime]]:
    """Moments in a text; the flag tells those without a year from the others."""
    out = []
    for hit in (*_ISO.finditer(text), *_NAMED.finditer(text)):
        got = hit.groupdict()
        year = got["y"] or got.get("y2")
        month = f"{_MONTHS.index(got['m']) + 1:02}" if got["m"] in _MONTHS else got["m"]
        try:
            when = datetime.fromisoformat(f"{year or 2000}-{month}-{int(got['d']):02}T{got['t']}")
        except ValueError:
            continue
        out.append((year is not None, when))
    return out


def _front(line: Line) -> tuple[bool, datetime] | None:
    return next(iter(_dates(f"{line.prefix}{line.by}{line.text}"[:_FRONT])), None)


class PastEvents:
    """Kinds of failure all of whose lines are dated, and long before the end."""

    name = "past_events"
    needles: tuple[bytes, ...] = tuple(w.encode() for kind in KINDS.values() for w in kind.words)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`event.past` of each kind: seconds from its last line to the last date of the text."""
        whole = doc.whole if isinstance(doc, Plain) else doc  # a view lacks what stands in front of all lines
        ends = _dates(whole.read(max(0, whole.size - _TAIL), whole.size).decode("utf-8", "replace"))
        if not ends:
            return
        for name, kind in KINDS.items():
            last = self._last(doc, kind)
            if last is None:
                continue
            line, (full, when) = last
            age = max(((e - when).total_seconds() for known, e in ends if known is full), default=0.0)
            if age > LONG:
                yield computed(doc, line, "event.past", age, "s", self.name, label=name)

    @staticmethod
    def _last(doc: Document, kind: Kind) -> tuple[Line, tuple[bool, datetime]] | None:
        """Its last line and date; none where one has no date, or the state that it began was not ended."""
        last: tuple[Line, tuple[bool, datetime]] | None = None
        ended = not kind.over
        for line in doc.holding(*kind.words, *kind.over):
            ended |= any(w in line.text for w in kind.over)
            if any(w in line.text for w in kind.words):
                when = _front(line)
                if when is None or (last is not None and when[0] is not last[1][0]):
                    return None
                last, ended = (line, when), not kind.over
        return last if ended else None


READERS: list[Reader] = [PastEvents()]
