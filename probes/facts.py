"""Small helpers of the text readers: lines of an excerpt, facts from a line, figures from a cell."""

from __future__ import annotations

import re
from itertools import islice
from math import nan
from typing import Any

from diagnose.document import Document, Line, Span
from diagnose.errors import ParseError
from diagnose.lazy import regex
from diagnose.models import NOBODY, Fact, Subject, Value
from diagnose.safe_json import loads

_NUMBER = regex(r"^[<>~]?\s*([-+]?\d[\d,]*(?:\.\d+)?)\s*([A-Za-z%/°]+[A-Za-z]*)?")
RULER = regex(r"^[\s|:+=_-]{3,}$")  # a line that rules off a table's head or foot
_TIME_OF_DAY = regex(r"(?<!\d)(\d{1,2}):(\d{2}):(\d{2})[.,](\d{1,6})")
_LABEL = regex(r'(\w+)="([^"]*)"')
_GAP = regex(r"\s{2,}|\t|\s*\|\s*")
_GIB = {
    "b": 2.0**-30, "": 2.0**-30, "k": 2.0**-20, "kb": 2.0**-20, "kib": 2.0**-20, "ki": 2.0**-20,
    "m": 2.0**-10, "mb": 2.0**-10, "mib": 2.0**-10, "mi": 2.0**-10, "bytes": 2.0**-30,
    "g": 1.0, "gb": 1.0, "gib": 1.0, "gi": 1.0, "t": 1024.0, "tb": 1024.0, "tib": 1024.0, "ti": 1024.0,
}  # fmt: skip


def excerpt(doc: Document, size: int, most: int | None = None, *, plain: bool = False) -> list[Line]:
    """Lines of an excerpt, which is what people paste and type; none of a long log or of a binary file.

    Words and rows without a format of their own mean something in a short text only. A long one has readers that know
    which program wrote it.

    Args:
        size: the most bytes that an excerpt has.
        most: this many lines from the first one; all without it.
        plain: none of a JSON object or of markup either, whose punctuation looks like columns.
    """
    if doc.is_binary or doc.size > size or (plain and doc.head.lstrip()[:1] in (b"{", b"<")):
        return []
    return list(islice(doc.lines(), most))


def fact(
    doc: Document,
    line: Line,
    signal: str,
    value: Value,
    unit: str | None = None,
    *,
    around: str | None = None,
    **who: Any,
) -> Fact:
    """An observed fact backed by one line; `who` are subject fields."""
    return Fact(signal, value, unit, Subject(**who), (doc.span(line, around),), status=doc.status)


def computed(doc: Document, line: Line, signal: str, value: float, unit: str, reader: str, **who: Any) -> Fact:
    """What `reader` counted or worked out from a line: the figure itself is printed nowhere."""
    return Fact(
        signal, value, unit, Subject(**who), (doc.span(line),), kind="derived", formula=f"reader:{reader}",
        status=doc.status,
    )  # fmt: skip


def divided(
    signal: str,
    sides: tuple[Fact, ...],
    unit: str = "count",
    subject: Subject = NOBODY,
    spans: tuple[Span, ...] = (),
    statement: str = "",
) -> Fact:
    """The first of two facts over the second: a figure that is printed nowhere, with both as its inputs."""
    a, b = sides
    value = float(a.value or 0) / float(b.value or 1)
    return Fact(
        signal, value, unit, subject, spans, statement, kind="derived", formula="a / b", inputs=sides, status=a.status
    )


def mapping(doc: Document, data: bytes | str) -> dict[str, Any] | None:
    """A JSON object, a whole document or a line of it; None, and a line skipped, where it is none."""
    try:
        made = loads(data)
    except ParseError:
        doc.lines_skipped += 1
        return None
    return made if isinstance(made, dict) else None


def whole(doc: Document) -> dict[str, Any] | None:
    """The document as one JSON object, as of `mapping`; a long log of objects shows at its first that it is none."""
    first, _, rest = doc.head.partition(b"\n")
    if rest.strip() and doc.size > len(doc.head):
        try:
            loads(first)
        except ParseError:
            pass
        else:
            doc.lines_skipped += 1
            return None
    return mapping(doc, doc.data)


def amount(text: str) -> float:
    """A printed number with separators of thousands; nan, which no fact keeps, where there is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return nan


def in_cells(row: str, empty: bool = False) -> list[str]:
    """The cells of a row whose columns two blanks, a tab or a bar part; with `empty` also those that hold nothing."""
    parts = (c.strip() for c in _GAP.split(row.strip().strip("|").strip()))
    return [c for c in parts if c or empty]


def time_of_day(text: str) -> float | None:
    """The first time of day with a fraction of a second, as logs stamp lines: ms since midnight."""
    hit = _TIME_OF_DAY.search(text)
    if hit is None:
        return None
    hours, minutes, seconds, part = hit.groups()
    return (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1e3 + float("0." + part) * 1e3


def metric_labels(text: str) -> dict[str, str]:
    """Labels of a sample in Prometheus' text format: ``model="m",le="0.5"``."""
    return dict(_LABEL.findall(text))


def number(cell: str) -> float | None:
    """Leading number of a cell, whatever its unit: ``81559 MiB`` -> 81559; None for ``N/A``."""
    hit = _NUMBER.match(cell.strip())
    return float(hit.group(1).replace(",", "")) if hit else None


def gib(amount: str | float, unit: str) -> float | None:
    """An amount of memory in GiB. Tools print binary sizes under both spellings, so MB counts as MiB."""
    factor = _GIB.get(unit.strip().lower())
    try:
        return None if factor is None else float(str(amount).replace(",", "")) * factor
    except ValueError:  # `1.2.3 GiB`, `... GB`: no amount
        return None


def size(text: str, default: str = "b") -> float | None:
    """``64M``, ``8Gi``, ``1.5 GiB`` in GiB."""
    hit = re.match(r"\s*([\d.,]+)\s*([A-Za-z]*)", text)
    if hit is None or not re.search(r"\d", hit.group(1)):
        return None
    return gib(hit.group(1), hit.group(2) or default)
