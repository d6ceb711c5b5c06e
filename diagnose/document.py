"""A piece of evidence as bytes: addressed by offset, read as a stream, cleaned line by line.

A `Document` is a capture as stored: after decompression, before text decoding. Every span
points into these bytes, so a reader never has to keep text to be able to quote it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import accumulate, compress, count
from operator import add
from typing import BinaryIO

QUOTE_CHARS = 400
NOVEL_FROM = 1 << 20  # from this size on, `novel` leaves repeats out …
NOVEL_MOST = 64  # … after so many lines that differ in digits only
_MANY_SHAPES = 10_000  # no program prints so many sentences: words vary in them
THIN_FROM = 2 << 20  # from this size on, `lines` gives …
_ALIKE_MOST = 20_000  # … so many lines of one shape
_MOST_LINES = 100_000  # of all shapes, then
_DROP = b"0123456789\r"
_LOWER = bytes(range(256)).lower()
_CLEARED = bytes(c for c in range(128) if c not in b"\t\n" and not 32 <= c < 127)
_ADDRESS = re.compile(rb"0x[0-9a-fA-F]+")
_CHUNK = 1 << 20
_MAX_LINE = 1 << 13  # a longer "line" is cut into pieces: minified text, on which patterns would take forever
_SEARCHED = 512  # a piece ends between words or cells, if there is a gap in its last bytes

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
# No number, gap or rule is this long; patterns that look for one would try every start and every end.
_RUN = re.compile(r"[\d.,]{200,}|\s{200,}|[^\w\s]{200,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # C1 too: a terminal takes U+009B for an escape
# What launchers put before a rank's line: Open MPI `[1,0]<stdout>:`, Ray `(head, rank=0, pid=1)`,
# torchrun `[rank0]:` / `[default0]:`, pdsh/srun/k8s `node0: `, `3: `, `[0] ` and `[node0:0]:`.
_LAUNCHER = re.compile(
    r"""^(?:\s*(?:
        \[\d+,\d+\]<std(?:out|err|diag)>:\s?
      | \[(?:rank|default|worker)[ _]?\d+\]:?\s?
      | \([A-Za-z0-9_-]{1,40}(?:,\s*\w+=[\w.-]+)*\s+(?:pid|ip|rank)=[\w.,= -]+\)\s?
      | \([A-Za-z0-9_-]{1,40},\s*(?:rank|pid|ip)=[\w.,= -]+\)\s?
      | \[[A-Za-z0-9_.-]{1,60}:\d+\]:\s?
      | (?:gpu|node|host|worker|compute|dgx|n|cn|nid)[-\w.]{0,40}\d:\s(?=\S)
      | \d{1,4}:\s(?=\S)
    ))+""",
    re.VERBOSE,
)


_CLEANED = rb"(?:\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_])|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f])*+"
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-_])")


def uncoloured(raw: bytes) -> bytes:
    """Text without terminal escapes, for a look at it: offsets are no longer those of the document."""
    return _ESCAPES.sub(b"", raw) if b"\x1b" in raw else raw


def shape(raw: bytes) -> bytes:
    """A line, or many, without digits and addresses, lower case."""
    if b"0x" in raw:
        raw = _ADDRESS.sub(b"", raw)
    return raw.translate(_LOWER, _DROP)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a document.

    Attributes:
        start, end: byte offsets of the raw line in the document, end-of-line excluded.
        number: 1-based.
        text: decoded, without ANSI escapes, control bytes and launcher prefix; tabs kept.
        prefix: the launcher prefix that was taken off, or "".
        by: what stood in front of all lines alike.
    """

    start: int
    end: int
    number: int
    text: str
    prefix: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a document that back a fact. `quote` is those bytes as UTF-8, at most 400 characters."""

    capture: str
    start: int
    end: int
    line: int
    quote: str


def _before_cleaning(raw: bytes, text: str) -> int:
    """Where a piece of a cleaned line stands in its bytes, or -1: colours and broken bytes may stand between."""
    letters = (rb"[\x80-\xff]{1,3}" if c == "\ufffd" else re.escape(c.encode()) for c in text[:64])
    hit = re.search(_CLEANED.join(letters), raw)
    return hit.start() if hit else -1


def printable(name: str) -> str:
    """Text that a terminal shows as it is: what would steer it, or hide, becomes a replacement mark."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else "\ufffd" for c in name.encode("utf-8", "replace").decode())


def clean(raw: bytes, encoding: str = "utf-8") -> tuple[str, str]:
    """Decode one raw line and take off what is not the program's own text: ``(text, launcher prefix)``."""
    text = raw.decode(encoding, "replace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if not text.isprintable():
        text = _CONTROL.sub("", text.replace("\r", ""))
    if len(text) > 1000:
        text = _RUN.sub(_shorter, text)
    if text[:1] in "[(" or ": " in text[:64]:
        hit = _LAUNCHER.match(text)
        if hit and hit.end():
            return text[hit.end() :], hit.group()
    return text, ""


def _shorter(hit: re.Match[str]) -> str:
    """The start of a run, to the end of a cell."""
    run = hit.group()
    return run[: run.rfind(",", 0, 200) + 1 or 200]


@dataclass
class Shapes:
    """Whole lines, and their shapes: nothing is worked out for who does not ask."""

    lines: bytes

    @cached_property
    def text(self) -> bytes:
        """The shapes as one text."""
        return shape(uncoloured(self.lines))

    @cached_property
    def keys(self) -> list[str]:
        """The shapes one by one, a character for each byte: text that a `Sieve` takes."""
        return self.text.decode("latin-1").split("\n")

    @cached_property
    def by_key(self) -> dict[str, str]:
        """Of each shape a line, as of `low`."""
        return dict(zip(self.keys, self.low, strict=True))

    @cached_property
    def low(self) -> list[str]:
        """The lines themselves in lower case, without control bytes, a character for each byte."""
        return uncoloured(self.lines).translate(_LOWER, _CLEARED).decode("latin-1").split("\n")

    def holding(self, words: Iterable[bytes]) -> bytearray:
        """For each line 1 where one of the words stands in its shape: the text is searched, not each line."""
        text = self.text
        ends = list(accumulate(map(len, self), lambda at, size: at + size + 1, initial=0))[1:]
        out = bytearray(len(ends))
        for word in words:
            at = text.find(word)
            while at >= 0:
                line = bisect_right(ends, at)
                out[line] = 1
                at = text.find(word, ends[line])
        return out

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.text.split(b"\n"))


Block = tuple[Iterable[int], Iterable[int], Iterable[bytes], Shapes]  # numbers, offsets, raw lines, their shapes


def _pieces(raws: Iterable[bytes], offset: int, number: int) -> Iterator[Block]:
    """Lines some of which are too long, in pieces."""
    for raw in raws:
        start = 0
        while len(raw) - start > _MAX_LINE:
            size = _piece(raw, start)
            yield _single(number, offset + start, raw[start : start + size])
            start += size
        yield _single(number, offset + start, raw[start:])
        offset += len(raw) + 1
        number += 1


def _single(number: int, start: int, raw: bytes) -> Block:
    return (number,), (start,), (raw,), Shapes(raw)


def _piece(block: bytes, start: int) -> int:
    """Size of the next piece of a very long line: to the last gap, so that no figure is cut in two."""
    low, high = start + _MAX_LINE - _SEARCHED, start + _MAX_LINE
    gap = max(block.rfind(b" ", low, high), block.rfind(b",", low, high))
    return gap + 1 - start if gap >= 0 else _MAX_LINE


@dataclass
class Document:
    """One capture.

    Args:
        name: relative to the path that was given; an archive member is ``outer!member``.
        opener: returns a fresh binary stream of the decompressed bytes at offset 0.
        size: decompressed size in bytes.
        sha256: of the decompressed bytes.
        status: taints, e.g. ``("provided",)`` or ``("recorded", "simulated")``.
        cut: why the document ends early (truncated gzip, size cap), or None.
    """

    name: str
    opener: Callable[[], BinaryIO]
    size: int
    sha256: str
    status: tuple[str, ...] = ("provided",)
    cut: str | None = None
    lines_skipped: int = 0
    recognised: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, data: bytes, status: tuple[str, ...] = ("provided",)) -> Document:
        """A document held in memory."""
        return cls(name, lambda: BytesIO(data), len(data), hashlib.sha256(data).hexdigest(), status)

    def again(self, data: bytes) -> Document:
        """The document with some of its bytes blanked or its end cut off; places stay."""
        return Document.of(self.name, data, self.status)

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB."""
        with self.opener() as stream:
            return stream.read(1 << 16)

    @cached_property
    def opening(self) -> str:
        """The first 64 KiB as text, without colours."""
        return uncoloured(self.head).decode(self.encoding, "replace")

    @cached_property
    def data(self) -> bytes:
        """All bytes. Only for small documents and formats that cannot be streamed."""
        with self.opener() as stream:
            return stream.read()

    @cached_property
    def encoding(self) -> str:
        """``utf-8``, or UTF-16 where a byte-order mark or a pattern of NULs says so."""
        head = self.head[:4096]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16-le" if head[:1] == b"\xff" else "utf-16-be"
        if len(head) >= 16:
            even, odd = head[0::2].count(0), head[1::2].count(0)
            half = len(head) // 2
            if odd > 0.7 * half and even < 0.1 * half:
                return "utf-16-le"
            if even > 0.7 * half and odd < 0.1 * half:
                return "utf-16-be"
        return "utf-8"

    @cached_property
    def is_binary(self) -> bool:
        """True for bytes that are no text in any encoding we read."""
        head = self.head[:8192]
        if self.encoding != "utf-8" or not head:
            return False
        odd = sum(head.count(c) for c in (*range(8), *range(14, 27), *range(28, 32)))
        return (head.count(0) > 0 and odd > 0.02 * len(head)) or odd > 0.2 * len(head)

    def chunks(self, size: int = _CHUNK) -> Iterator[bytes]:
        """The bytes in order, `size` at a time."""
        with self.opener() as stream:
            while block := stream.read(size):
                yield block

    def holds(self, text: bytes) -> bool:
        """Does this stand anywhere in the bytes? They are not kept for it."""
        if "data" in self.__dict__:
            return text in self.data
        rest = b""
        for block in self.chunks():
            if text in rest + block:
                return True
            rest = block[-len(text) :]
        return False

    def raw_lines(self) -> Iterator[tuple[int, int, bytes]]:
        """``(line number, byte offset, raw line without newline)``; a fast path for big logs."""
        for block in self.blocks():
            yield from zip(*block[:3], strict=False)

    def shaped_lines(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """`raw_lines` with the shape of each: the fastest way to pass over lines that differ in numbers only."""
        for block in self.blocks():
            yield from zip(*block, strict=False)

    def blocks(self) -> Iterator[Block]:
        """Stretches of lines, each split and shaped at once."""
        if self.encoding != "utf-8":
            for number, start, raw in self._wide_lines():
                yield (number,), (start,), (raw,), Shapes(raw.decode(self.encoding, "replace").encode())
            return
        rest, offset, number = b"", 0, 1
        for block in self.chunks():
            block = rest + block
            stop = block.rfind(b"\n") + 1
            whole, rest = block[:stop], block[stop:]
            raws = whole.split(b"\n")[:-1]
            if raws and max(map(len, raws)) > _MAX_LINE:
                yield from _pieces(raws, offset, number)
            else:
                starts = map(add, accumulate(map(len, raws), initial=offset), count())
                yield range(number, number + len(raws)), starts, raws, Shapes(whole)
            number, offset = number + len(raws), offset + stop
            while len(rest) > _MAX_LINE:
                size = _piece(rest, 0)
                yield _single(number, offset, rest[:size])
                rest, offset = rest[size:], offset + size
        if rest:
            yield _single(number, offset, rest)

    def _wide_lines(self) -> Iterator[tuple[int, int, bytes]]:
        """UTF-16: split on the two-byte newline at even offsets only."""
        newline = "\n".encode(self.encoding)
        data, pos, number = self.data[: 64 << 20], 0, 0
        while pos < len(data):
            hit = data.find(newline, pos)
            while hit >= 0 and hit % 2:
                hit = data.find(newline, hit + 1)
            stop = hit if hit >= 0 else len(data)
            number += 1
            for start in range(pos, max(stop, pos + 1), 2 * _MAX_LINE):
                yield number, start, data[start : min(stop, start + 2 * _MAX_LINE)]
            pos = stop + 2

    def lines(self) -> Iterator[Line]:
        """Cleaned lines; of a document of more than 2 MiB at most 20,000 of each shape."""
        return iter(self._kept if self.size <= THIN_FROM else self._thinned[0])

    def novel(self) -> Iterator[Line]:
        """Lines without the bulk of a long log: for readers of settings, versions and errors.

        In a document of more than 1 MiB a line is left out once 64 before it had its shape, or, where the shapes are
        too many to remember, each of its words.
        """
        return iter(self._novel) if self.size > NOVEL_FROM else self.lines()

    @cached_property
    def _novel(self) -> list[Line]:
        if self.size > THIN_FROM:
            lines, new = self._thinned
            if len(lines) < _MOST_LINES or all(new):
                return list(compress(lines, new))
        return self._few(NOVEL_MOST)[0]

    @cached_property
    def _thinned(self) -> tuple[list[Line], list[bool]]:
        return self._few(_ALIKE_MOST)

    def _few(self, alike: int) -> tuple[list[Line], list[bool]]:
        """Lines of which at most so many have one shape, and which of them are novel; what says nothing new is not."""
        seen: dict[bytes, int] = {}
        words: dict[bytes, int] = {}
        usual: set[bytes] = set()
        out: list[Line] = []
        new: list[bool] = []
        for number, start, raw, key in self.shaped_lines():
            times = seen.get(key, 0)
            if times >= alike:
                continue
            if len(seen) < _MANY_SHAPES or times:
                seen[key] = times + 1
            elif usual.issuperset(parts := key.split()):
                continue  # every line differs from all before it, in known words
            else:
                for word in parts:
                    known = words[word] = words.get(word, 0) + 1
                    if known >= NOVEL_MOST:
                        usual.add(word)
            out.append(self.line(number, start, raw))
            new.append(times < NOVEL_MOST)
            if len(out) >= _MOST_LINES:
                break
        return out, new

    def holding(self, *words: str) -> Iterator[Line]:
        """Cleaned lines that may hold one of the words: decided by shapes, so digits and case do not count."""
        wanted = {shape(w.encode()) for w in words}
        for numbers, starts, raws, shapes in self.blocks():
            here = [w for w in wanted if w in shapes.text]
            if here:
                found = shapes.holding(here)
                for number, start, raw in compress(zip(numbers, starts, raws, strict=False), found):
                    yield self.line(number, start, raw)

    @cached_property
    def _kept(self) -> list[Line]:
        return [self.line(number, start, raw) for number, start, raw in self.raw_lines()]

    def line(self, number: int, start: int, raw: bytes) -> Line:
        """A raw line, cleaned."""
        encoding = self.encoding
        body = raw.rstrip(b"\r\n") if encoding == "utf-8" else raw
        text, prefix = clean(body, encoding)
        if number == 1:
            text = text.lstrip("\ufeff")
        return Line(start, start + len(body), number, text, prefix)

    def read(self, start: int, end: int) -> bytes:
        """Bytes ``[start, end)``."""
        if "data" in self.__dict__:
            return self.data[start:end]
        with self.opener() as stream:
            if stream.seekable():
                stream.seek(start)
            else:
                left = start
                while left > 0 and (block := stream.read(min(left, _CHUNK))):
                    left -= len(block)
            return stream.read(end - start)

    def span(self, line: Line, around: str | None = None) -> Span:
        """The whole line as evidence, or, for a long line, a window of it that holds `around`."""
        start, end = line.start, line.end
        if end - start > QUOTE_CHARS and around:
            raw = self.read(start, end)
            at = raw.find(around.encode(self.encoding))
            if at < 0 and self.encoding == "utf-8":
                at = _before_cleaning(raw, around)
            if at > QUOTE_CHARS // 2:
                start += min(at - min(80, at), len(raw) - QUOTE_CHARS)
        return self.bytes_span(start, end, line.number)

    def bytes_span(self, start: int, end: int, line: int) -> Span:
        """A span of exact bytes, cut to 400 characters of quote (on a character boundary)."""
        raw = self.read(start, min(end, start + 4 * QUOTE_CHARS))
        quote = raw.decode("utf-8", "replace")
        if len(quote) > QUOTE_CHARS or end - start > len(raw):
            raw = raw[: len(quote[:QUOTE_CHARS].encode("utf-8", "ignore"))][:QUOTE_CHARS]
            while raw and raw.decode("utf-8", "ignore").encode() != raw and len(raw) > QUOTE_CHARS - 4:
                raw = raw[:-1]
            quote = raw.decode("utf-8", "replace")
            end = start + len(raw)
        return Span(self.name, start, end, line, quote)
