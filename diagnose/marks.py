"""Search every line of every document for the catalogue's marks, at log speed.

Two filters keep this fast. A mark's regular expression yields literals one of which any match
must contain; and lines are keyed by their *shape* (the line without digits and addresses, so that
ranks, ports and sizes vanish): candidates are worked out once per shape and reused
for the hundreds of thousands of lines that differ only in numbers.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from .catalogue import Mark
from .document import Document, Span, shape
from .lazy import regex
from .models import Fact, Subject

_PATIENCE, _PATIENCE_BLIND = (
    500,
    64,
)  # the lines of one shape differ in digits: a pattern without any misses all or none
_FIGURES = re.compile(r"(?<!\\){[\d,]+}|\\\d")  # repetition and references are no digits of the line
_MOST_SHAPES = 200_000
_Identity = tuple["str | float", "str | None", "int | None", "int | None"]  # value, label, rank, GPU

# What a matching line must hold: literals (all of them) and alternatives (one of each, itself a Need).
Need = tuple["bytes | tuple[Need, ...]", ...]


def _need(tree: Any, plain: bool = False) -> Need:
    """Literals of at least two shaped bytes that any match of a parsed pattern contains; `plain`: with their digits."""
    out: list[Any] = []
    run = ""

    def flush() -> None:
        nonlocal run
        shaped = run.lower().encode() if plain else shape(run.encode())
        if len(shaped) >= 2:
            out.append(shaped)
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
            out.extend(_need(inner, plain))
            continue
        flush()
        if op is sre.BRANCH:
            options = tuple(_need(branch, plain) for branch in arg[1])
            if all(options):
                out.append(options)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and arg[0] >= 1:
            out.extend(_need(list(arg[2]), plain))
    flush()
    return tuple(out)


def needles(pattern: str, plain: bool = False) -> Need:
    """What a line must hold for the pattern to be worth trying; empty if it has no usable literal."""
    return _need(list(sre_parser.parse(pattern, re.IGNORECASE)), plain)


def admits(need: Need, shaped: bytes) -> bool:
    """Could a line of this shape match?"""
    for part in need:
        if isinstance(part, bytes):
            if part not in shaped:
                return False
        elif not any(admits(option, shaped) for option in part):
            return False
    return True


def primary(need: Need) -> tuple[bytes, ...]:
    """The most telling set of literals of which a matching line holds at least one; empty if there is none."""
    sets = [(part,) if isinstance(part, bytes) else _either(part) for part in need]
    return max(sets, key=lambda s: min(map(len, s)), default=())


def _either(options: tuple[Need, ...]) -> tuple[bytes, ...]:
    return tuple(literal for option in options for literal in primary(option))


def _grams(text: bytes) -> set[bytes]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


class _Ready:
    """A mark with its prefilter; the pattern is compiled when a line first gets past that."""

    def __init__(self, mark: Mark, place: int) -> None:
        self.mark, self.place = mark, place
        self.patience = _PATIENCE if re.search("[0-9]", _FIGURES.sub("", mark.pattern)) else _PATIENCE_BLIND
        self.needles = needles(mark.pattern)
        # a name that is mostly digits has no shape: "H200"
        self.names = () if self.needles else tuple(n.decode() for n in primary(needles(mark.pattern, plain=True)))

    @cached_property
    def search(self) -> re.Pattern[str]:
        return re.compile(self.mark.pattern, re.IGNORECASE)

    @cached_property
    def veto(self) -> re.Pattern[str] | None:
        return re.compile(self.mark.unless, re.IGNORECASE) if self.mark.unless else None


class Scanner:
    """Compiled marks. One per process; build it from `catalogue().marks`."""

    def __init__(self, marks: list[Mark]) -> None:
        self._ready = [_Ready(mark, place) for place, mark in enumerate(marks)]
        self._of = {mark.signal: mark for mark in reversed(marks)}

        self._always = [r for r in self._ready if not r.needles]
        index: dict[bytes, list[_Ready]] = {}
        for item in self._ready:
            for literal in primary(item.needles):
                index.setdefault(literal, []).append(item)
        # A literal is looked for only in lines that hold its rarest three bytes.
        usual = Counter(gram for literal in index for gram in _grams(literal))
        self._index: dict[bytes, list[tuple[bytes, list[_Ready]]]] = {}
        for literal, items in index.items():
            rarest = min(_grams(literal), key=lambda gram: (usual[gram], gram), default=b"")
            self._index.setdefault(rarest, []).append((literal, items))

    def candidates(self, shaped: bytes) -> tuple[_Ready, ...]:
        """Marks that could match a line of this shape."""
        found = {r.place: r for r in self._always}
        for gram in (self._index.keys() & _grams(shaped)) | {b""}:
            for literal, items in self._index.get(gram, ()):
                if literal in shaped:
                    found.update((r.place, r) for r in items)
        return tuple(r for _, r in sorted(found.items()) if admits(r.needles, shaped))

    def scan(self, doc: Document) -> Iterator[Fact]:
        """Facts of all marks in `doc`; at most `keep` distinct facts a mark, their repeats counted.

        A mark that tried `patience` lines of one shape in vain is not tried on that shape again.
        """
        cache: dict[bytes, tuple[_Ready, ...]] = {}
        vain: dict[tuple[bytes, int], int] = {}
        kept: dict[str, dict[_Identity, Span]] = {}
        counts: dict[tuple[str, _Identity], int] = {}
        for number, start, raw, key in doc.shaped_lines():
            ready = cache.get(key)
            if ready is None:
                if len(cache) > _MOST_SHAPES:
                    cache.clear()
                    vain.clear()
                ready = cache[key] = self.candidates(key)
            if not ready:
                continue
            line = doc.line(number, start, raw)
            if _MANUAL.match(line.text):
                continue
            for item in ready:
                found = _match(line.text, item)
                if found is None:
                    tries = vain[key, id(item)] = vain.get((key, id(item)), 0) + 1
                    if tries >= item.patience:
                        cache[key] = tuple(r for r in cache[key] if r is not item)
                    continue
                identity, around = found
                mine = kept.setdefault(item.mark.signal, {})
                if identity not in mine:
                    if len(mine) >= item.mark.keep:
                        continue
                    mine[identity] = doc.span(line, around)
                place = (item.mark.signal, identity)
                counts[place] = counts.get(place, 0) + 1
        for signal, mine in kept.items():
            mark = self._of[signal]
            for identity, span in mine.items():
                value, label, rank, gpu = identity
                yield Fact(
                    signal, value, mark.unit, Subject(label=label, rank=rank, gpu=gpu), (span,), mark.what,
                    count=counts[signal, identity], status=doc.status,
                )  # fmt: skip


# Open MPI prints thousands of parameters with their help texts and defaults: a manual, not an event.
_MANUAL = regex(r"\s*(?:mca:\S+?:(?:help|enumerator)\b|MCA [\w ]+: (?:parameter|informational) .*data source: default)")


def _match(text: str, item: _Ready) -> tuple[_Identity, str] | None:
    """What a matching line says, and the text to centre a long quote on."""
    if item.names:
        lower = text.lower()
        if not any(name in lower for name in item.names):
            return None
    hit = item.search.search(text)
    if hit is None or (item.veto is not None and item.veto.search(text)):
        return None
    mark = item.mark
    got = (hit.group(mark.value) if mark.value is not None else hit.group()) or ""
    value: str | float = got.strip()[:200]
    if mark.unit is not None:
        try:
            value = float(got.replace(",", ""))
        except ValueError:
            return None
    label = hit.group(mark.label) if mark.label is not None else None
    return (value, label, _int(hit, mark.rank), _int(hit, mark.gpu)), hit.group()[:60]


def _int(hit: re.Match[str], group: str | int | None) -> int | None:
    got = hit.group(group) if group is not None else None
    return int(got) if got and got.isdigit() else None
