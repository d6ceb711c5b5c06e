"""Search every line of every document for the catalogue's marks, at log speed.

Two filters keep this fast. A mark's regular expression yields literals one of which any match
must contain; and lines are keyed by their *shape* (the line without digits and the letters a-f,
so that addresses, ranks and sizes vanish): candidates are worked out once per shape and reused
for the hundreds of thousands of lines that differ only in numbers.
"""

from __future__ import annotations

import re
import re._constants as sre
import re._parser as sre_parser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .catalogue import Mark
from .document import Document, Line, clean
from .models import Fact, Subject

_DROP = b"0123456789abcdefABCDEF\r"
_LOWER = bytes(range(256)).lower()


def shape(raw: bytes) -> bytes:
    """A line without digits and hex letters, lower case."""
    return raw.translate(_LOWER, _DROP)


def _runs(tree: Any) -> list[set[str]]:
    """For a parsed pattern: alternatives sets of literals, each set such that a match contains one member."""
    out: list[set[str]] = []
    run = ""

    def flush() -> None:
        nonlocal run
        if len(run) >= 3:
            out.append({run})
        run = ""

    for op, arg in tree:
        if op is sre.LITERAL:
            run += chr(arg)
            continue
        if op is sre.SUBPATTERN:
            inner = list(arg[3])
            if all(o is sre.LITERAL for o, _ in inner):
                run += "".join(chr(a) for _, a in inner)
                continue
            flush()
            out.extend(_runs(inner))
            continue
        flush()
        if op is sre.BRANCH:
            options: set[str] = set()
            for branch in arg[1]:
                best = _best(_runs(branch))
                if best is None:
                    break
                options |= best
            else:
                out.append(options)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and arg[0] >= 1:
            out.extend(_runs(list(arg[2])))
    flush()
    return out


def _best(sets: list[set[str]]) -> set[str] | None:
    """The set whose shortest member is longest once digits and hex letters are gone."""

    def worth(options: set[str]) -> int:
        return min(len(shape(s.encode())) for s in options)

    ranked = sorted((s for s in sets if worth(s) >= 2), key=lambda s: (-worth(s), len(s)))
    return ranked[0] if ranked else None


def needles(pattern: str) -> tuple[bytes, ...] | None:
    """Shapes of which any matching line must contain one; None if the pattern has no usable literal."""
    best = _best(_runs(list(sre_parser.parse(pattern, re.IGNORECASE))))
    return tuple(sorted(shape(s.encode()) for s in best)) if best else None


@dataclass(frozen=True, slots=True)
class _Ready:
    mark: Mark
    search: re.Pattern[str]
    veto: re.Pattern[str] | None
    needles: tuple[bytes, ...] | None


class Scanner:
    """Compiled marks. One per process; build it from `catalogue().marks`."""

    def __init__(self, marks: list[Mark]) -> None:
        self._ready = [
            _Ready(
                mark,
                re.compile(mark.pattern, re.IGNORECASE),
                re.compile(mark.unless, re.IGNORECASE) if mark.unless else None,
                needles(mark.pattern),
            )
            for mark in marks
        ]

    def candidates(self, shaped: bytes) -> tuple[_Ready, ...]:
        """Marks that could match a line of this shape."""
        return tuple(r for r in self._ready if r.needles is None or any(n in shaped for n in r.needles))

    def scan(self, doc: Document) -> Iterator[Fact]:
        """Facts of all marks in `doc`; at most `keep` distinct facts a mark, repeats counted."""
        cache: dict[bytes, tuple[_Ready, ...]] = {}
        kept: dict[str, dict[tuple[object, ...], Fact]] = {}
        counts: dict[tuple[object, ...], int] = {}
        encoding = doc.encoding
        for number, start, raw in doc.raw_lines():
            key = shape(raw if encoding == "utf-8" else raw[::2])
            ready = cache.get(key)
            if ready is None:
                if len(cache) > 200_000:
                    cache.clear()
                ready = cache[key] = self.candidates(key)
            if not ready:
                continue
            body = raw.rstrip(b"\r")
            text, prefix = clean(body, encoding)
            line = Line(start, start + len(body), number, text, prefix)
            for item in ready:
                fact = self._match(doc, line, item)
                if fact is None:
                    continue
                identity = (fact.signal, fact.value, fact.subject)
                counts[identity] = counts.get(identity, 0) + 1
                mine = kept.setdefault(fact.signal, {})
                if identity not in mine and len(mine) < item.mark.keep:
                    mine[identity] = fact
        for mine in kept.values():
            for identity, fact in mine.items():
                yield replace(fact, count=counts[identity])

    def _match(self, doc: Document, line: Line, item: _Ready) -> Fact | None:
        hit = item.search.search(line.text)
        if hit is None or (item.veto is not None and item.veto.search(line.text)):
            return None
        mark = item.mark
        got = hit.group(mark.value) if mark.value is not None else hit.group()
        value: str | float = (got or "").strip()
        if mark.unit is not None:
            try:
                value = float(str(got).replace(",", ""))
            except ValueError:
                return None
        subject = Subject(
            label=hit.group(mark.label) if mark.label is not None else None,
            rank=_int(hit, mark.rank),
            gpu=_int(hit, mark.gpu),
        )
        return Fact(
            mark.signal, value if mark.unit else str(value)[:200], mark.unit, subject,
            (doc.span(line, hit.group()[:60]),), mark.what, status=doc.status,
        )  # fmt: skip


def _int(hit: re.Match[str], group: str | int | None) -> int | None:
    got = hit.group(group) if group is not None else None
    return int(got) if got and got.isdigit() else None
