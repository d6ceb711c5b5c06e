"""Figures of PyTorch's caching allocator over a run: tables, `memory_stats` keys, logged pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact, gib

_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("inactive_split", regex(r"inactive|split|non-?releasable|fragment", re.I)),
    ("retries", regex(r"retr(?:y|ies)", re.I)),
    ("ooms", regex(r"\boom", re.I)),
    ("reserved", regex(r"reserved|cached|segment", re.I)),
    ("allocated", regex(r"alloc|active|\bused\b", re.I)),
)
_CELL = regex(r"([\d][\d,]*(?:\.\d+)?)\s*([KMGT]i?B?\b)?")
_WORD = regex(r"[A-Za-z][\w.%/()-]*")
_KEY = regex(
    r"(?P<key>(?:max_)?(?:memory_)?(?:allocated|reserved|active|inactive_split)(?:_bytes)?(?:\.all\.(?:current|peak))?"
    r"|num_alloc_retries|num_ooms|alloc_retries)['\"]?(?:\s*[:=]\s*|\s{2,})(?P<n>\d[\d,_]*(?:\.\d+)?)\s*"
    r"(?P<u>[KMGT]i?B?\b)?", re.I,
)  # fmt: skip
_KEEP = 24


def _column(word: str) -> str | None:
    return next((name for name, pattern in _NAMES if pattern.search(word)), None)


def _to_gib(text: str, unit: str | None, default: str) -> float | None:
    got: float | None = gib(text.replace("_", ""), unit or default)
    return got


class AllocatorReader:
    """Rows of an allocator's history: what is allocated, reserved, split, and how often it had to retry."""

    name = "allocator"
    needles: tuple[bytes, ...] = (b"reserved", b"inactive_split", b"retries", b"Reserved", b"inactive")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.alloc.*`, sizes in GiB and counts; lines after the first 24 figures are left out."""
        header: list[tuple[str | None, str]] = []
        made = 0
        for line, may in told(doc.lines(), _KEY, *(pattern for _, pattern in _NAMES)):
            text = line.text
            if made >= _KEEP:
                break
            if len(text) > 400 or not (may or header):
                continue
            keys = list(_KEY.finditer(text))
            if len(keys) >= 2 or (keys and re.search(r"\.all\.|num_", text)):
                for hit in keys:
                    yield from self._key(doc, line, hit)
                    made += 1
                continue
            words = _WORD.findall(text)
            named = [_column(w) for w in words]
            if len({n for n in named if n}) >= 2 and not re.search(r"Tried to allocate|\d\s*[KMG]i?B", text):
                unit = next((u for w in words if (u := self._unit(w))), "")
                header = [
                    (n, self._unit(w) or unit) for n, w in zip(named, words, strict=True) if not self._only_unit(w)
                ]
                continue
            cells = _CELL.findall(text) if not re.search(r"\bOOM\b|tried|\bdied|fail", text, re.I) else []
            if header and len(cells) >= len(header) - 1 and len(cells) >= 2 and re.match(r"\W*[\w.:+-]", text):
                row = cells[: len(header)]
                for (name, unit), (value, own) in zip(header, row, strict=False):
                    if name is not None:
                        yield from self._cell(doc, line, name, value, own, unit)
                        made += 1
            elif text.strip() and not re.search(r"\d", text):
                header = []

    @staticmethod
    def _unit(word: str) -> str:
        hit = re.search(r"(?:^|[(_/])([KMGT]i?B)\)?$", word, re.I)
        return hit.group(1) if hit else ""

    @staticmethod
    def _only_unit(word: str) -> bool:
        return re.fullmatch(r"\(?[KMGT]i?B\)?", word, re.I) is not None

    def _cell(self, doc: Document, line: Line, name: str, value: str, own: str, unit: str) -> Iterator[Fact]:
        if name in ("retries", "ooms"):
            yield fact(doc, line, f"gpu.alloc.{name}", float(value.replace(",", "")), "count", label=value)
        elif (got := _to_gib(value, own or unit, "gib")) is not None:
            yield fact(doc, line, f"gpu.alloc.{name}", got, "GiB", label=value)

    def _key(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        key = hit.group("key").lower()
        if key.startswith("num_") or "retries" in key:
            name = "ooms" if "oom" in key else "retries"
            count = float(re.sub(r"[,_]", "", hit.group("n")) or 0)
            yield fact(doc, line, f"gpu.alloc.{name}", count, "count", label=key)
            return
        name = "inactive_split" if "inactive" in key else "reserved" if "reserved" in key else "allocated"
        default = "b" if len(re.sub(r"\D", "", hit.group("n"))) > 6 else "gib"
        if (got := _to_gib(hit.group("n").rstrip("."), hit.group("u"), default)) is not None:
            yield fact(doc, line, f"gpu.alloc.{name}", got, "GiB", label=key, around=key)


READERS: list[Reader] = [AllocatorReader()]
