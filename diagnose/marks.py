"""Search every line of every document for the catalogue's marks, at log speed.

Two filters keep this fast. A mark's regular expression yields literals one of which any match
must contain; and lines are keyed by their *shape* (the line without digits and addresses, so that
ranks, ports and sizes vanish): candidates are worked out once per shape and reused
for the hundreds of thousands of lines that differ only in numbers. In a long text, whose lines may
differ in words too, a `Sorter` finds the candidates of a whole block of lines at once.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, compress, filterfalse, islice, repeat
from typing import Any

from .catalogue import ahead
from .document import Document, Line, Shapes, Span, shape, uncoloured
from .entries import Mark
from .lazy import regex
from .models import Fact, Subject
from .sieve import Need, Sieve, Sorter, least, ordered
from .sieve import literal as spelt

_PATIENCE, _PATIENCE_BLIND = (
    500,
    64,
)  # the lines of one shape differ in digits: a pattern without any misses all or none
_FIGURES = re.compile(r"(?<!\\){[\d,]+}|\\\d")  # repetition and references are no digits of the line
_MANY_SHAPES = 30_000
_MOST_WORDS = 200_000
_HEX = "0123456789abcdef"
_OFTEN = 200  # lines on which a mark was tried, after which literals are sought before its pattern
_FEW = 5_000  # lines that are tried faster than a `Sieve` is made for them
_SORTED_FROM = 1 << 20  # bytes of a text: what a `Sorter` compiles takes longer than to read a shorter one
_Identity = tuple["str | float", "str | None", "int | None", "int | None"]  # value, label, rank, GPU

Gate = tuple["tuple[bytes, ...]", "tuple[tuple[Gate, ...], ...]"]  # one of the literals, or all of one of the others


def _need(tree: Any, plain: bool = False, least: int = 2) -> Need:
    """Literals of so many shaped bytes at least that any match of a parsed pattern contains; `plain`: with digits."""
    out: list[Any] = []
    run = ""

    def flush() -> None:
        nonlocal run
        low = run.lower()
        shaped = low.encode() if plain else shape(low.removesuffix("0x").encode())  # an address may begin there
        if len(shaped) >= least:
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
            out.extend(_need(inner, plain, least))
            continue
        if not plain and run.lower().rstrip(_HEX)[-1:] not in "x" and _digits(op, arg):
            continue  # gone from a shape, so that what stands around them meets; within an address all of it is gone
        flush()
        if op is sre.BRANCH:
            options = tuple(_need(branch, plain, least) for branch in arg[1])
            if all(options):
                out.append(options)
        elif op is sre.IN and all(o is sre.LITERAL and a > 127 for o, a in arg):  # one of some Chinese characters
            out.append(tuple((chr(a).encode(),) for _, a in arg))
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and arg[0] >= 1:
            out.extend(_need(list(arg[2]), plain, least))
    flush()
    return tuple(out)


def _digits(op: Any, arg: Any) -> bool:
    """Is this part of a pattern figures and nothing else?"""
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return len(arg[2]) == 1 and _digits(*arg[2][0])
    return op is sre.IN and all(o is sre.CATEGORY and a is sre.CATEGORY_DIGIT for o, a in arg)


def needles(pattern: str, plain: bool = False) -> Need:
    """What a line must hold for the pattern to be worth trying; empty if it has no usable literal."""
    known = ahead()["plain" if plain else "shaped"].get(pattern)
    return parsed(pattern, plain) if known is None else _as_need(known)


def parsed(pattern: str, plain: bool = False, least: int = 2) -> Need:
    """`needles`, worked out anew."""
    return _need(list(sre_parser.parse(pattern, re.IGNORECASE)), plain, least)


def _as_need(told: list[Any]) -> Need:
    """A `Need` as JSON has it."""
    return tuple(part.encode() if isinstance(part, str) else tuple(map(_as_need, part)) for part in told)


def gates(need: Need) -> tuple[Gate, ...]:
    """A `Need` as it is asked fast: what has the fewest alternatives first."""
    made = [_gate((part,) if isinstance(part, bytes) else part) for part in need]
    return tuple(sorted(made, key=lambda gate: len(gate[0]) + 9 * len(gate[1])))


def _gate(options: tuple[bytes | Need, ...]) -> Gate:
    single: list[bytes] = []
    several: list[tuple[Gate, ...]] = []
    for option in options:
        if isinstance(option, bytes):
            single.append(option)
        elif len(option) == 1 and isinstance(option[0], bytes):
            single.append(option[0])
        else:
            several.append(gates(option))
    return tuple(dict.fromkeys(single)), tuple(several)


def admits(need: tuple[Gate, ...], shaped: bytes) -> bool:
    """Could a line of this shape match?"""
    for single, several in need:
        for literal in single:
            if literal in shaped:
                break
        else:
            for other in several:
                if admits(other, shaped):
                    break
            else:
                return False
    return True


def primary(need: Need) -> tuple[bytes, ...]:
    """The most telling set of literals of which a matching line holds at least one; empty if there is none."""
    sets = [(part,) if isinstance(part, bytes) else _either(part) for part in need]
    return max(sets, key=lambda s: min(map(len, s)), default=())


def _either(options: tuple[Need, ...]) -> tuple[bytes, ...]:
    return tuple(literal for option in options for literal in primary(option))


def told(
    lines: Iterable[Line], *patterns: re.Pattern[str], words: Iterable[str] = (), also: str = ""
) -> Iterator[tuple[Line, bool]]:
    """Each line, and whether a pattern may be found or a word stand in it, whatever its case.

    `also` is one more pattern, without lookaround, for a `Sieve` as it is. Of a short text, or where a pattern has no
    literal, each line may be one.
    """
    lines = iter(lines)
    some = list(islice(lines, _FEW))
    needs = [parsed(p.pattern, plain=True, least=1) for p in patterns] if len(some) == _FEW else []
    if len(some) < _FEW or not all(needs):
        yield from ((line, True) for line in chain(some, lines))
        return
    some += lines
    either = [*(ordered(need, _spelt) for need in needs), *map(re.escape, words)]
    kept = deque(
        Sieve([*([f"(?i:{'|'.join(either)})"] * bool(either)), *([also] * bool(also))])([x.text for x in some])
    )
    for line in some:
        may = bool(kept) and kept[0] == line.text
        if may:
            kept.popleft()
        yield line, may


def _spelt(text: bytes) -> str:
    return re.escape(text.decode())


def possible(
    lines: Iterable[Line], *patterns: re.Pattern[str], words: Iterable[str] = (), also: str = ""
) -> Iterator[Line]:
    """Lines in which, as far as is `told`, a pattern may be found or a word stands."""
    return (line for line, may in told(lines, *patterns, words=words, also=also) if may)


def grams(text: bytes, size: int = 3) -> set[bytes]:
    """All runs of so many bytes."""
    return {text[i : i + size] for i in range(len(text) - size + 1)}


class _Ready:
    """A mark with its prefilter; the pattern is compiled when a line first gets past that."""

    def __init__(self, mark: Mark, place: int) -> None:
        self.mark, self.place = mark, place
        self.patience = _PATIENCE if re.search("[0-9]", _FIGURES.sub("", mark.pattern)) else _PATIENCE_BLIND
        self.needles = needles(mark.pattern)
        self.gates = gates(self.needles)
        # a name that is mostly digits has no shape: "H200"
        self.names = () if self.needles else primary(needles(mark.pattern, plain=True))
        self.tried = 0  # lines

    @cached_property
    def search(self) -> re.Pattern[str]:
        return re.compile(self.mark.pattern, re.IGNORECASE)

    @cached_property
    def plain(self) -> tuple[Gate, ...]:
        """What must stand in a line, digits included: found sooner than the pattern fails."""
        return gates(needles(self.mark.pattern, plain=True))

    @cached_property
    def exact(self) -> Sieve | None:
        """Keeps lines (in lower case, a character for each byte) in which all literals stand, single letters too."""
        need = parsed(self.mark.pattern, plain=True, least=1)
        return Sieve([ordered(need)]) if need else None

    @cached_property
    def exact_shape(self) -> Sieve | None:
        """The same of shapes, from which addresses are gone."""
        need = parsed(self.mark.pattern, least=1) if "x" not in self.mark.pattern.lower() else ()
        return Sieve([ordered(need)]) if need else None

    @cached_property
    def veto(self) -> re.Pattern[str] | None:
        return re.compile(self.mark.unless, re.IGNORECASE) if self.mark.unless else None


@dataclass(frozen=True, eq=False)
class _Sought:
    """A literal, the word of it that is looked for first, and the marks that need it."""

    word: bytes
    literal: bytes
    items: list[_Ready]


_Asked = tuple[int, int, bytes, str, tuple[_Ready, ...]]  # number, offset, raw line, its shape, marks it may meet


def _stands(item: _Ready, lower: bytes) -> bool:
    return not item.names or any(name in lower for name in item.names)


class _Known:
    """Marks that may be met by lines of the shapes seen so far.

    One that was tried on `patience` lines of a shape in vain is not tried on that shape again.
    """

    def __init__(self) -> None:
        self.ready: dict[str, tuple[_Ready, ...]] = {}
        self._vain: dict[tuple[str, int], int] = {}

    def limit(self) -> None:
        """Forgets everything once it is too much."""
        if len(self.ready) > _MANY_SHAPES:
            self.ready.clear()
            self._vain.clear()

    def missed(self, key: str, item: _Ready) -> None:
        if key not in self.ready:
            return
        tries = self._vain[key, item.place] = self._vain.get((key, item.place), 0) + 1
        if tries >= item.patience:
            self.ready[key] = tuple(r for r in self.ready[key] if r is not item)


class Scanner:
    """Compiled marks. One per process; build it from `catalogue().marks`."""

    def __init__(self, marks: list[Mark]) -> None:
        self._ready = [_Ready(mark, place) for place, mark in enumerate(marks)]
        self._of = {mark.signal: mark for mark in reversed(marks)}

        self._sorter = Sorter([r.needles for r in self._ready])
        self._always = [r for r in self._ready if not r.needles]
        index: dict[bytes, list[_Ready]] = {}
        for item in self._ready:
            for literal in primary(item.needles):
                index.setdefault(literal, []).append(item)
        # A literal is looked for only in lines one of whose words holds the rarest three bytes of its longest word.
        words = {literal: max(literal.split(), key=len, default=b"") for literal in index}
        usual = Counter(gram for word in words.values() for gram in grams(word))
        self._index: dict[bytes, list[_Sought]] = {}
        for literal, items in index.items():
            rarest = min(grams(words[literal]), key=lambda gram: (usual[gram], gram), default=words[literal])
            self._index.setdefault(rarest, []).append(_Sought(words[literal], literal, items))
        self._short = [s for gram in [*self._index] if len(gram) < 2 for s in self._index.pop(gram)]
        self._dull: set[bytes] = set()  # words that no literal has
        self._told: dict[bytes, tuple[_Sought, ...]] = {}  # words that some have

    def _sought(self, words: list[bytes]) -> set[_Sought]:
        """Literals that have one of the words."""
        out: set[_Sought] = set()
        for word in words:
            if word in self._dull:
                continue
            told = self._told.get(word)
            if told is None:
                if len(self._dull) + len(self._told) > _MOST_WORDS:
                    self._dull.clear()
                    self._told.clear()
                hits = self._index.keys() & (grams(word) | grams(word, 2))
                told = tuple(s for gram in hits for s in self._index[gram] if s.word in word)
                if told:
                    self._told[word] = told
                else:
                    self._dull.add(word)
            out.update(told)
        return out

    def candidates(self, shaped: bytes) -> tuple[_Ready, ...]:
        """Marks that could match a line of this shape, less those that have no shape."""
        words = shaped.split()
        sought = () if self._dull.issuperset(words) else self._sought(words)
        found: dict[int, _Ready] = {}
        for one in (*self._short, *sought):
            if one.literal in shaped:
                found.update((r.place, r) for r in one.items if admits(r.gates, shaped))
        return tuple(r for _, r in sorted(found.items())) if found else ()

    def _named(self, lower: bytes) -> tuple[_Ready, ...]:
        """Marks without a shape whose names stand in this text."""
        return tuple(r for r in self._always if _stands(r, lower))

    def _by_line(self, doc: Document, known: _Known) -> Iterator[_Asked]:
        """Lines with the marks that each may meet, worked out once a shape."""
        plain = doc.encoding == "utf-8"
        for numbers, starts, raws, shapes in doc.blocks():
            known.limit()
            named = self._named(uncoloured(shapes.lines).lower())
            for number, start, raw, key in zip(numbers, starts, raws, shapes.keys, strict=False):
                ready = known.ready.get(key)
                if ready is None:
                    ready = known.ready[key] = self.candidates(key.encode("latin-1"))
                if named:
                    lower = uncoloured(raw if plain else shapes.lines).lower()
                    ready = (*ready, *(r for r in named if _stands(r, lower)))
                if ready:
                    yield number, start, raw, key, ready

    def _by_block(self, doc: Document, known: _Known) -> Iterator[_Asked]:
        """The same of a long text, worked out for many lines at once.

        What is found of a shape that stands there once is not kept: it holds of that line alone, all literals of a
        usual mark being asked of it.
        """
        sorter = self._sorter.again()
        for numbers, starts, raws, shapes in doc.blocks():
            known.limit()
            times = Counter(filterfalse(known.ready.__contains__, shapes.keys))
            often = [key for key, n in times.items() if n > 1]
            places = sorter.sort(often, self._sifted_shapes)
            known.ready.update((key, self._at(places.get(key, ()))) for key in often)
            single = sorter.sort([key for key, n in times.items() if n == 1], partial(self._sifted, shapes))
            alone = {key: self._at(where) for key, where in single.items()}
            named = self._naming(shapes)
            texts: Iterable[str] = shapes.low if named else repeat("")
            told = zip(map(known.ready.get, shapes.keys), map(alone.__contains__, shapes.keys), strict=True)
            met = [a or b for a, b in told] if not named else repeat(True)
            lines = compress(zip(numbers, starts, raws, shapes.keys, texts, strict=False), met)
            for number, start, raw, key, text in lines:
                ready = known.ready.get(key) or alone.get(key, ())
                if text in named:
                    ready = (*ready, *named[text])
                if ready:
                    yield number, start, raw, key, ready

    def _at(self, places: Iterable[int]) -> tuple[_Ready, ...]:
        return tuple(self._ready[n] for n in places)

    def _sifted(self, shapes: Shapes, place: int, keys: list[str]) -> list[str]:
        """Those of some shapes in whose lines all literals of a mark stand, in order."""
        exact = self._ready[place].exact
        if exact is None:
            return keys
        kept = {*exact([shapes.by_key[key] for key in keys])}
        return [key for key in keys if shapes.by_key[key] in kept]

    def _sifted_shapes(self, place: int, keys: list[str]) -> list[str]:
        """Those of some shapes in which all literals of a mark stand, in order; true of all their lines."""
        exact = self._ready[place].exact_shape
        return keys if exact is None else exact(keys)

    def _naming(self, shapes: Shapes) -> dict[str, tuple[_Ready, ...]]:
        """Lines in which names of marks without a shape stand."""
        named = self._named(uncoloured(shapes.lines).lower())
        with_name = Sieve(map(spelt, least(name for r in named for name in r.names)))(shapes.low) if named else []
        return {text: tuple(r for r in named if _stands(r, text.encode("latin-1"))) for text in with_name}

    def scan(self, doc: Document) -> Iterator[Fact]:
        """Facts of all marks in `doc`; at most `keep` distinct facts a mark, their repeats counted."""
        known = _Known()
        kept: dict[str, dict[_Identity, Span]] = {}
        counts: dict[tuple[str, _Identity], int] = {}
        long = doc.encoding == "utf-8" and doc.size > _SORTED_FROM
        for number, start, raw, key, ready in (self._by_block if long else self._by_line)(doc, known):
            line = doc.line(number, start, raw)
            if _MANUAL.match(line.text) or (any(map(line.text.__contains__, _COUNTED)) and _NEVER.match(line.text)):
                continue
            for item in ready:
                found = _match(line.text, item)
                if found is None:
                    known.missed(key, item)
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

# A sample of a Prometheus page that tells when a counter was made, or that it never counted: no event either.
_COUNTED = ("_created", "_total")
_NEVER = regex(
    r"\s*[A-Za-z_:][\w:]*(?:_created(?:\{.*\})?\s+[\d.e+]+|_total(?:\{.*\})?\s+0(?:\.0+)?)(?:\s+\d{10,})?\s*$"
)


def _match(text: str, item: _Ready) -> tuple[_Identity, str] | None:
    """What a matching line says, and the text to centre a long quote on."""
    if item.names:
        lower = text.lower().encode()
        if not any(name in lower for name in item.names):
            return None
    item.tried += 1
    if item.tried > _OFTEN and not admits(item.plain, text.lower().encode()):
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
