"""Copy rates as people note them: one line a GPU, or a small table with a column a direction."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import excerpt

_WAY = regex(
    r"(?P<h2d>h2d|htod|host[ _-]?(?:to|2|->)[ _-]?d\w*)|(?P<d2h>d2h|dtoh|d\w*[ _-]?(?:to|2|->)[ _-]?host)", re.I
)
_RATE = regex(r"(?<![\d.])(\d+(?:\.\d+)?)\s*(GB/s|GiB/s|MB/s|MiB/s)", re.I)
_UNIT = regex(r"(G|M)i?B(?:/s|ps)", re.I)
_WHO = regex(r"^\W*(?:gpu|rank|card|device|dev|cuda|卡)?[ :#_-]*(\d{1,2})(?=\W|$)", re.I)
_ROW = regex(r"^\W*(?:gpu|rank|card|device|dev|卡)?[ :#_-]*(\d{1,2})[\s,|:]+(\S.*)$", re.I)
_CELL = regex(r"(?<![\d.])(\d+(?:\.\d+)?)(?![\d.]*\s*(?:%|MHz|W\b|C\b))")
_SMALL = 200_000


def _kind(text: str) -> str:
    return "pageable" if re.search(r"pageable|unpinned|non-?pinned|锁页前", text, re.I) else "pinned"


class CopyNotes:
    """Rates between host and device, by GPU where one is named."""

    name = "copy_notes"
    needles: tuple[bytes, ...] = (
        b"h2d",
        b"H2D",
        b"d2h",
        b"D2H",
        b"HtoD",
        b"DtoH",
        b"htod",
        b"dtoh",
        b"ost to ",
        b"ost-to-",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`copy.bandwidth` in GB/s, labelled with direction and kind of memory; none of a profiler's own tables."""
        lines = excerpt(doc, _SMALL)
        if not lines or b"memcpy CE" in doc.data or b"Memory Transfers" in doc.data:
            return
        columns: list[tuple[str, float]] = []
        for line in lines:
            text = line.text
            ways = list(_WAY.finditer(text))
            rates = list(_RATE.finditer(text))
            if ways and rates:
                yield from self._line(doc, line, ways, rates)
                continue
            if ways and not re.search(r"\d\.\d", text):
                columns = self._header(text)
                continue
            row = _ROW.match(text)
            if columns and row is not None:
                cells = [float(c) for c in _CELL.findall(row.group(2))]
                if len(cells) >= len(columns):
                    for (way, scale), value in zip(columns, cells, strict=False):
                        if way and value > 0:
                            yield self._fact(doc, line, way, "pinned", value * scale, int(row.group(1)))
            elif text.strip() and not re.fullmatch(r"[\W_]+", text):
                columns = []

    @staticmethod
    def _header(text: str) -> list[tuple[str, float]]:
        """Directions of the columns after the first; other columns keep their place."""
        words = [w for w in re.split(r"\s{2,}|\t|\||,|(?<=\))\s|\s+(?=[hd]2[hd])", text.strip()) if w.strip()]
        if len(words) == 1:
            words = text.split()
        out = []
        for word in words[1:]:
            hit = _WAY.search(word)
            unit = _UNIT.search(word) or _UNIT.search(text)
            scale = 1e-3 if unit and unit.group(1).upper() == "M" else 1.0
            out.append((("h2d" if hit.group("h2d") else "d2h") if hit else "", scale))
        return out if any(way for way, _ in out) and _UNIT.search(text) else []

    def _line(self, doc: Document, line: Line, ways: list[re.Match[str]], rates: list[re.Match[str]]) -> Iterator[Fact]:
        who = _WHO.match(line.text)
        for rate in rates[:4]:
            before = [w for w in ways if w.start() < rate.start()]
            way = (before or ways)[-1 if before else 0]
            got = canonical(float(rate.group(1)), rate.group(2))
            if got is None:
                continue
            named = "gpu" in line.text[:8].lower() or "rank" in line.text[:8].lower() or "卡" in line.text[:6]
            gpu = int(who.group(1)) if who and named else None
            if gpu is None and "pinned" not in line.text.lower():
                continue
            yield self._fact(doc, line, "h2d" if way.group("h2d") else "d2h", _kind(line.text), got[0], gpu)

    @staticmethod
    def _fact(doc: Document, line: Line, way: str, kind: str, value: float, gpu: int | None) -> Fact:
        who = Subject(gpu=gpu, label=f"{way} {kind}")
        return Fact("copy.bandwidth", value, "GB/s", who, (doc.span(line),), status=doc.status)


READERS: list[Reader] = [CopyNotes()]
