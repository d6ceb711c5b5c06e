"""Run one reader over one document. A line on which the reader breaks costs that line, not what the others say."""

from __future__ import annotations

import math

from .document import Document
from .errors import ParseError
from .models import Fact
from .plugin import Reader

DEFECT = "defect"  # starts the reason of an input on which a reader broke
MOST_BYTES = 1 << 18  # of a document that is read again; a reader that breaks has run over it some 15 times by then
MOST_LINES = 4  # that are left out


def finite(fact: Fact) -> bool:
    """False for a figure that overflowed, or that a tool printed as nan or inf: no measurement, nothing to compare."""
    return not (isinstance(fact.value, float) and not math.isfinite(fact.value)) and all(map(finite, fact.inputs))


def read(reader: Reader, doc: Document) -> tuple[list[Fact], str | None]:
    """What a reader finds, and what went wrong; a defect is said even where nothing was lost but the line itself."""
    facts, err = _attempt(reader, doc)
    if err is None:
        return facts, None
    if isinstance(err, ParseError):
        return facts, str(err)
    problem = f"{DEFECT} in reader {reader.name}: {type(err).__name__}: {err}"
    rest, numbers = _without(reader, doc)
    if len(rest) < len(facts) or not numbers:
        return facts, problem
    return rest, f"{problem}; read without line {', '.join(map(str, numbers))}"


def _attempt(reader: Reader, doc: Document) -> tuple[list[Fact], Exception | None]:
    facts: list[Fact] = []
    try:
        facts.extend(f for f in reader.parse(doc) if finite(f))
    except Exception as err:  # a defect of one reader must not cost what the others found; the caller shows it
        return facts, err
    return facts, None


def _without(reader: Reader, doc: Document) -> tuple[list[Fact], list[int]]:
    """Facts of the text less the lines that break the reader, and those lines; none where that does not help.

    The first such line ends the shortest beginning of the text that breaks. It is blanked, so that places stay.
    """
    if doc.size > MOST_BYTES or doc.encoding != "utf-8" or doc.is_binary:
        return [], []
    data = bytearray(doc.data)
    ends = [0, *(at for at, byte in enumerate(data, 1) if byte == 0x0A), len(data)]
    blank: dict[int, tuple[int, int]] = {}

    def attempt(lines: int) -> tuple[list[Fact], Exception | None]:
        return _attempt(reader, doc.again(bytes(data[: ends[lines]])))

    while len(blank) < MOST_LINES:
        low, high = 0, len(ends) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _broken(attempt(middle)[1]) else (middle, high)
        start, end = ends[high - 1], ends[high]
        blank[high] = start, end
        data[start:end] = b"".join(b"\n" if byte == 0x0A else b" " for byte in data[start:end])
        facts, err = attempt(len(ends) - 1)
        if not _broken(err):
            kept = [f for f in facts if not any(_touches(f, *place) for place in blank.values())]
            return kept, sorted(blank)
    return [], []


def _broken(err: Exception | None) -> bool:
    return err is not None and not isinstance(err, ParseError)


def _touches(fact: Fact, start: int, end: int) -> bool:
    """Would a quote show a line as blank that is not?"""
    return any(s.start < end and start < s.end for s in fact.spans) or any(_touches(f, start, end) for f in fact.inputs)
