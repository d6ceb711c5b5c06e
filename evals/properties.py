"""What must hold of every fact a reader makes, whatever the bytes: declared, verbatim, no invented number.

The tests draw bytes with Hypothesis, `fuzz` lets coverage lead; both ask the same questions.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterator

from diagnose.arithmetic import close, evaluate
from diagnose.catalogue import catalogue
from diagnose.document import QUOTE_CHARS, Document, clean
from diagnose.errors import ParseError
from diagnose.models import Fact
from diagnose.plugin import Reader
from diagnose.salvage import finite
from diagnose.units import UNITS

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d[\d,_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+")
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:\.\d+)?(?!\d)")  # thousands by blanks
_CLOCK = re.compile(r"(?:(\d+)[-d ]+)?(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?")
_AGE = re.compile(r"(?:(\d+)\s?d)?\s*(?:(\d+)\s?h)?\s*(?:(\d+)\s?m(?:in)?)?\s*(?:([\d.]+)\s?s)?", re.IGNORECASE)
# InfiniBand generations name a rate as "four" names a number.
_RATES = {"sdr": 10, "ddr": 20, "qdr": 40, "fdr": 56, "edr": 100, "hdr": 200, "ndr": 400, "xdr": 800}
_WORDS = _RATES | {"one": 1, "two": 2, "three": 3, "four": 4, "eight": 8, "一": 1, "两": 2, "三": 3, "四": 4, "八": 8}
# Factors between a printed figure and its canonical unit: powers of ten and 1024, bits, minutes, hours, days.
_SCALES = sorted(
    ten * math.log(10) + kilo * math.log(1024) + math.log(other)
    for ten in range(-12, 13)
    for kilo in range(-4, 5)
    for other in (1, 8, 1 / 8, 60, 3600, 86400, 1 / 60)
)


def printed(quote: str) -> Iterator[float]:
    """Every number that a reader of the quote would see."""
    for hit in _NUMBER.finditer(quote):
        text = hit.group()
        if text.startswith("0x"):
            yield float(int(text, 16))
            continue
        for form in {text, text.replace(",", ""), text.replace("_", ""), *text.split(","), text.replace(",", ".")}:
            try:
                yield float(form)
            except ValueError:
                continue
    yield from map(float, re.findall(r"\d+", quote))
    for grouped in _GROUPED.findall(quote):
        yield float(re.sub(r"\s", "", grouped))
    for days, hours, minutes, seconds in _CLOCK.findall(quote):
        yield int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds or 0)
        yield int(hours) * 60 + float(f"{minutes}")
    for parts in _AGE.findall(quote):
        if any(parts):
            d, h, m, s = (float(p.strip(".") or 0) for p in parts)
            yield d * 86400 + h * 3600 + m * 60 + s
    yield from (n for word, n in _WORDS.items() if word in quote.lower())


def backed(value: float, quotes: list[str]) -> bool:
    """Is the value one of the printed numbers, in another unit?"""
    for quote in quotes:
        for number in printed(quote):
            if value == number:
                return True
            if not value or not number or math.isinf(number):
                continue
            scale = math.log(abs(value) / number) if abs(value) / number > 0 else -math.inf
            at = bisect.bisect(_SCALES, scale)
            if any(abs(scale - s) < 1e-6 for s in _SCALES[max(0, at - 1) : at + 1]):
                return True
    return False


def fault(fact: Fact, data: bytes, encoding: str) -> str | None:
    """What is wrong with a fact, or None."""
    declared = catalogue().signals.get(fact.signal)
    if declared is None:
        return "undeclared signal"
    if fact.unit is not None and fact.unit not in UNITS:
        return f"unit {fact.unit}"
    if declared.type == "number" and declared.unit is not None and fact.unit not in (declared.unit, None):
        return f"unit {fact.unit}, declared {declared.unit}"
    for span in fact.spans:
        if not 0 <= span.start <= span.end <= len(data) or len(span.quote) > QUOTE_CHARS:
            return "span out of bounds"
        if data[span.start : span.end].decode("utf-8", "replace") != span.quote:
            return "quote is not verbatim"
        if encoding == "utf-8" and data.count(b"\n", 0, span.start) + 1 != span.line and len(data) < 1 << 16:
            return f"line {span.line} is wrong"
    value = fact.value
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fact.kind == "observed":
        if not fact.spans:
            return "observed without a quote"
        quotes = [clean(s.quote.replace("\0", "").encode())[0] for s in fact.spans]
        if encoding != "utf-8":  # damage within a wide character joins digits that the reader saw apart
            quotes += [data[s.start : s.end].decode(encoding, "replace") for s in fact.spans]
        numeric &= all(
            s.end - s.start < QUOTE_CHARS - 4 for s in fact.spans
        )  # else the figure may stand behind the cut
        numeric &= encoding == "utf-8" or not any("\x1b" in s.quote for s in fact.spans)  # escapes of half a character
        if numeric and not backed(float(value), quotes):  # type: ignore[arg-type]
            return f"{value} does not stand in the quote"
    if fact.kind == "derived":
        if not fact.formula:
            return "derived without a formula"
        if numeric and not fact.formula.startswith("reader:"):
            if not fact.inputs:
                return "derived without inputs"
            made = evaluate(fact.formula, [float(i.value) for i in fact.inputs])  # type: ignore[arg-type]
            if not close(made, float(value)):  # type: ignore[arg-type]
                return f"{fact.formula} gives {made}, not {value}"
    return next((f for f in (fault(i, data, encoding) for i in fact.inputs) if f), None)


def faults(reader: Reader, data: bytes) -> list[str]:
    """Everything a reader gets wrong on these bytes."""
    doc = Document.of("t", data)
    out = []
    try:
        for fact in filter(finite, reader.parse(doc)):
            if wrong := fault(fact, data, doc.encoding):
                quote = fact.spans[0].quote if fact.spans else ""
                out.append(f"{reader.name}: {fact.signal} = {fact.value} {fact.unit}: {wrong}: {quote!r}")
    except ParseError:
        pass
    return out
