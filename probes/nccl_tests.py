"""Reader of nccl-tests tables (2.9 to 2.19), of tables with the same columns, and of loose busbw printouts.

A row may be cut into pieces by log lines of the ranks, and a log line may start right behind a
number; the pieces are put together again. Columns are told by the header where there is one and
from the right otherwise, because `redop` and `root` come and go with the version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import compress, repeat

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.sieve import Sieve
from diagnose.units import canonical

from .nccl_tests_json import NcclTestsJsonReader

ROWS = 400  # rows reported per document
_TYPES = (
    "float|half|double|bfloat16|uint8|int8|int32|uint32|int64|uint64|int|char|fp8_e4m3|fp8_e5m2|f8e4m3|f8e5m2"
    "|fp32|fp16|bf16|float32|float16|f32|f16|f8"
)
_ROW = regex(rf"(?<!\S)(\d{{1,20}}(?:\.\d+)?[KMGT]?)\s+(\d+)\s+({_TYPES})\b(.*)$")
_BARE = regex(
    r"^\s*(?P<size>\d{1,14})\s+(?P<count>\d{1,13})\s+(?P<rest>(?:-?\d+(?:\.\d+)?(?:e[+-]?\d+)?\s*|N/A\s*){6,9})$"
)
_LOG = regex(r"\S*:\d+:\d+ \[\d*\] |\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]")
_LOG_HOST = regex(r"^([^\s:\[\]]+):\d+:\d+ \[\d*\] ")
_NUMBER = regex(r"^(?:[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|N/A|nan|inf)$", re.IGNORECASE)
_RANK = regex(
    r"#\s+Rank\s+(\d{1,9})\s+(?:Group\s+\d+\s+)?Pid\s+(\d+)\s+on\s+(\S+)\s+device\s+(\d+)(?:\s+\[[^\]]*\]\s+(\S.*?))?\s*$"
)
_PARAMS = regex(r"nThread\s+(\d+)\s+nGpus\s+(\d+)\s+minBytes\s+(\d+)\s+maxBytes\s+(\d+)")
_AVG = regex(r"#?\s*Avg bus bandwidth\s*:\s*(\d+(?:\.\d+)?)")
_BOUNDS = regex(r"Out of bounds values\s*:\s*(\d+)")
_NAME = regex(
    r"\b((?:all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|reduce|sendrecv|scatter|gather|hypercube)_perf)\b"
)
_LOOSE = regex(
    r"\b(?P<what>bus_?bw|busbw|alg_?bw|bus bandwidth|algorithm bandwidth)\b[^\d\n|]{0,24}?"
    r"(?P<value>\d++(?:\.\d++)?+)(?!\s*(?:[KMGT]i?B?|bytes)\b(?!/s|ps))\s*(?P<unit>[GMK]i?B(?:/s(?:ec)?|ps)|[GM]b(?:/s(?:ec)?|ps|it/s))?",
    re.IGNORECASE,
)
_LOOSE_AFTER = regex(
    r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>[GM]i?B(?:/s(?:ec)?|ps)|[GM]b(?:/s(?:ec)?|ps))\s*(?:of\s+)?"
    r"(?P<what>bus_?bw|busbw|alg_?bw|bus bandwidth)",
    re.IGNORECASE,
)
_LONG = 1 << 20  # bytes of a text, whose lines are not looked at one by one …
_MANY = 200  # … where so many in a stretch have a shape of which nothing is known
_TELLING = (
    rf"#|nthread|_perf|bus[_ ]?b|alg_?bw|algorithm b|\d[kmgt]?\s+\d+\s+(?:{_TYPES})\b",
    r":\d+:\d+ \[",
    r"\d\s+\d+\s+[\d.e+\-\sn/a]+$",
)
_COLUMNS = ("time", "algbw", "busbw", "#wrong", "error")
_SUFFIX = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass
class _Half:
    """One placement of one row."""

    place: str
    time: float | None
    algbw: float | None
    busbw: float | None
    wrong: float | None


@dataclass
class _Row:
    """A row being collected, possibly over several lines."""

    size: int
    type: str
    tokens: list[str]
    spans: list[Span] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)


def _value(token: str) -> float | None:
    if token.upper() == "N/A":
        return None
    number = float(token)
    return number if math.isfinite(number) else None


def halves(tokens: list[str], columns: list[str]) -> list[_Half]:
    """Numbers behind the type column to their placements; empty if they do not fit any known layout."""
    words = [t for t in tokens if not _NUMBER.match(t)]
    numbers = [t for t in tokens if _NUMBER.match(t)]
    if len(words) > 1:
        return []
    per = 0
    if columns:
        sides = columns.count("busbw") or 1
        per = len(columns) // sides
        root = len(numbers) - len(columns)
        if root not in (0, 1):
            per = 0
        elif root == 1:
            numbers = numbers[1:]
    if per == 0:
        if len(numbers) in (9, 7, 5, 17) or (len(numbers) == 4 and numbers[0] == "-1"):
            numbers = numbers[1:]
        per = {16: 8, 8: 4, 6: 3, 4: 4, 3: 3}.get(len(numbers), 0)
        if per == 0:
            return []
    has_wrong = per >= 4
    out = []
    for i in range(0, len(numbers) - per + 1, per):
        part = [_value(t) for t in numbers[i : i + per]]
        place = "out-of-place" if i == 0 else "in-place"
        out.append(_Half(place, part[0], part[1], part[2], part[3] if has_wrong else None))
    return out


@dataclass
class _Table:
    """State of one document."""

    doc: Document
    columns: list[str] = field(default_factory=list)
    row: _Row | None = None
    facts: list[Fact] = field(default_factory=list)
    rows: int = 0
    peak: Fact | None = None
    largest: tuple[int, Fact] | None = None
    wrong: Fact | None = None
    name: str = "collective"
    gpus: dict[tuple[str, str], Fact] = field(default_factory=dict)
    ranks: dict[tuple[int, str, str], Fact] = field(default_factory=dict)
    summaries: list[Fact] = field(default_factory=list)
    once: dict[str, Fact] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    repeats: dict[int, int] = field(default_factory=dict)

    def want(self) -> int:
        """How many tokens a whole row has behind its type, by the header; 0 if unknown."""
        return len(self.columns)

    def close(self) -> None:
        """The row in hand is over."""
        row, self.row = self.row, None
        if row is None:
            return
        parts = halves(row.tokens, self.columns)
        if not parts:
            self.doc.lines_skipped += 1
            return
        self.rows += 1
        self.repeats[row.size] = self.repeats.get(row.size, 0) + 1
        if self.rows > ROWS:
            return
        spans, status = tuple(row.spans[:4]), self.doc.status
        for part in parts:
            label = f"{self.name} {row.size} B {part.place}"
            span = self._span_of(part, spans)
            readings = (("busbw", part.busbw, "GB/s"), ("algbw", part.algbw, "GB/s"), ("time", part.time, "us"))
            for kind, value, unit in readings:
                if value is None:
                    continue
                fact = Fact(f"nccl_tests.{kind}", value, unit, Subject(label=label), span, status=status)
                self.facts.append(fact)
                if kind == "busbw":
                    self._rank(row.size, fact)
            if part.wrong:
                self.wrong = self.wrong or Fact(
                    "nccl_tests.wrong", part.wrong, "count", Subject(label=label), span, status=status
                )
        for rank, time in enumerate(row.ranks):
            label = f"{self.name} {row.size} B"
            self.facts.append(
                Fact("nccl_tests.rank_time", time, "us", Subject(rank=rank, label=label), spans[-1:], status=status)
            )

    @staticmethod
    def _span_of(part: _Half, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        """The pieces of the row, the one that shows this placement's time first."""
        if len(spans) == 1 or part.busbw is None:
            return spans
        shown = [s for s in spans if re.search(rf"(?<![\d.]){part.busbw:g}(?!\d)|{part.busbw:.2f}", s.quote)]
        last = shown[-1:] if part.place == "in-place" else shown[:1]
        return (*last, *(s for s in spans if s not in last))

    def _rank(self, size: int, fact: Fact) -> None:
        value = float(fact.value or 0)
        if self.peak is None or value > float(self.peak.value or 0):
            self.peak = fact
        if self.largest is None or size > self.largest[0]:
            self.largest = (size, fact)

    def open(self, line: Line, size: int, kind: str, rest: str) -> None:
        """A new row starts."""
        self.close()
        self.row = _Row(size, kind, [], [self.doc.span(line)])
        self.add(rest)

    def add(self, text: str) -> bool:
        """Tokens for the row in hand; False when they cannot belong to it."""
        if self.row is None:
            return False
        if hit := re.search(r"\S*=\[([^\]]*)\]", text):
            found = re.findall(r"\d+(?:\.\d+)?", hit[1])
            self.row.ranks = [float(f) for f in found]
            text = text[: hit.start()]
        self.row.tokens.extend(text.split())
        return True


class NcclTestsReader:
    """nccl-tests stdout and relatives."""

    name = "nccl_tests"
    needles = (
        b"busbw", b"algbw", b"nThread", b"Avg bus bandwidth", b" float ", b" half ", b" bfloat16 ", b"_perf",
        b"# Using devices", b"# Rank ", b"#  Rank", b"#   Rank", b"bus bandwidth", b"bus_bw", b"Busbw", b"BusBW",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of all tables in `doc`."""
        if doc.head[:64].lstrip()[:1] == b"{" and b'"bus_bw"' in doc.head:
            return
        table = _Table(doc)
        wanted: dict[bytes, bool] = {}
        for number, start, raw, key, may in _lines(doc, wanted):
            if not may and table.row is None:
                continue
            want = wanted.get(key)
            if want is None:
                if len(wanted) > 50_000:
                    wanted.clear()
                want = wanted[key] = _wanted(key, raw)
                if not want and len(table.hosts) < 64 and (hit := _LOG_HOST.match(doc.line(number, start, raw).text)):
                    table.hosts.add(hit[1])
            if want:
                self._line(table, doc.line(number, start, raw))
        table.close()
        yield from _facts(table)

    def _line(self, table: _Table, line: Line) -> None:
        text = _before_log(line.text, table.hosts)
        if text is not None and not text.strip():
            return  # a log line of its own
        text = line.text if text is None else text
        if text.lstrip().startswith("#") or "nThread" in text:
            self._comment(table, line, text)
            return
        if hit := _ROW.search(text):
            table.open(line, _size(hit[1]), hit[3], hit[4])
            return
        tokens = text.split()
        if table.row is not None and tokens and all(_NUMBER.match(t) for t in tokens):
            table.row.spans.append(table.doc.span(line))
            table.add(text)
            return
        if table.row is not None and tokens and not tokens[0].startswith("["):
            table.close()
        if hit := _BARE.match(text):
            if table.columns:
                table.open(line, int(hit["size"]), "", hit["rest"])
                table.close()
            return
        self._loose(table, line, text)

    def _comment(self, table: _Table, line: Line, text: str) -> None:
        doc = table.doc
        lower = text.lower()
        if "busbw" in lower and "algbw" in lower and "time" in lower:
            table.close()
            names = re.findall(r"#wrong|i_\w+%?|[a-z]+", re.sub(r"\([^)]*\)", " ", lower.replace("# ", "  ")))
            first = next((i for i, n in enumerate(names) if n == "time"), 0)
            kept = [n for n in names[first:] if n in _COLUMNS or n.startswith("i_") or n == "wrong"]
            table.columns = kept
        elif hit := _RANK.search(text):
            rank, pid, host, device = int(hit[1]), hit[2], hit[3], int(hit[4])
            span = (doc.span(line),)
            table.ranks.setdefault(
                (rank, host, pid),
                Fact("nccl_tests.rank", host, None, Subject(rank=rank, host=host), span, status=doc.status),
            )
            if hit[5]:
                name = Fact("gpu.name", hit[5], None, Subject(host=host, gpu=device), span, status=doc.status)
                table.gpus.setdefault((host, hit[4]), name)
        elif hit := _PARAMS.search(text):
            for signal, value in (("nccl_tests.threads", hit[1]), ("nccl_tests.gpus", hit[2])):
                table.once.setdefault(signal, _fact(doc, line, signal, float(value), "count"))
            table.once.setdefault("nccl_tests.max_bytes", _fact(doc, line, "nccl_tests.max_bytes", float(hit[4]), "B"))
            if warm := re.search(r"warmup iters: (\d+)", text):
                table.once.setdefault(
                    "nccl_tests.warmup", _fact(doc, line, "nccl_tests.warmup", float(warm[1]), "count")
                )
        elif hit := _AVG.search(text):
            table.close()
            table.summaries.append(_fact(doc, line, "nccl_tests.avg_busbw", float(hit[1]), "GB/s"))
        elif hit := _BOUNDS.search(text):
            table.close()
            table.once.setdefault(
                "nccl_tests.out_of_bounds", _fact(doc, line, "nccl_tests.out_of_bounds", float(hit[1]), "count")
            )
        elif hit := re.search(r"nccl-tests version ([\d.]+)", text):
            version = Fact("version", hit[1], None, Subject(label="nccl-tests"), (doc.span(line),), status=doc.status)
            table.once.setdefault("version", version)
        else:
            self._loose(table, line, text)
        self._title(table, line, text)

    @staticmethod
    def _title(table: _Table, line: Line, text: str) -> None:
        if hit := _NAME.search(text):
            table.name = hit[1].removesuffix("_perf")
            fact = _fact(table.doc, line, "nccl_tests.collective", table.name, None)
            table.once.setdefault(f"nccl_tests.collective {table.name}", fact)

    def _loose(self, table: _Table, line: Line, text: str) -> None:
        """``busbw: 20.878 GBps`` and ``Avg bus bandwidth : 12`` outside a table."""
        self._title(table, line, text)
        if hit := _AVG.search(text):
            table.summaries.append(_fact(table.doc, line, "nccl_tests.avg_busbw", float(hit[1]), "GB/s"))
            return
        for pattern in (_LOOSE, _LOOSE_AFTER):
            for hit in pattern.finditer(text):
                got = canonical(float(hit["value"]), hit["unit"] or "GB/s")
                if got is None:
                    continue
                value, unit = (got[0] / 8, "GB/s") if got[1] == "Gb/s" else got
                if got[1] == "Gb/s" or abs(value - float(hit["value"])) > 1e-9:
                    continue  # only what stands there in GB/s is quoted; conversions are left to the generic reader
                kind = "busbw" if hit["what"].lower().startswith("bus") else "algbw"
                label = re.sub(r"\s+", " ", text.strip())[:80]
                fact = Fact(
                    f"nccl_tests.{kind}", value, unit, Subject(label=label), (table.doc.span(line, hit.group()),),
                    status=table.doc.status,
                )  # fmt: skip
                if fact not in table.facts and len(table.facts) < 3 * ROWS:
                    table.facts.append(fact)
                    if kind == "busbw":
                        table._rank(0, fact)


def _size(text: str) -> int:
    return int(float(text[:-1]) * _SUFFIX[text[-1]]) if text[-1] in _SUFFIX else int(float(text))


def _fact(doc: Document, line: Line, signal: str, value: str | float, unit: str | None) -> Fact:
    return Fact(signal, value, unit, Subject(), (doc.span(line),), status=doc.status)


def _lines(doc: Document, wanted: dict[bytes, bool]) -> Iterator[tuple[int, int, bytes, bytes, bool]]:
    """`Document.shaped_lines`, and whether a line may say something where no row is open; any of a short text may.

    Lines of shapes that are not `wanted` are not looked at.
    """
    sieve = Sieve(_TELLING) if doc.size > _LONG and doc.encoding == "utf-8" else None
    for numbers, starts, raws, shapes in doc.blocks():
        keys = list(shapes)
        asked = [wanted.get(key, True) for key in keys]
        may: Iterable[bool] = repeat(True)
        if sieve is not None and sum(asked) >= _MANY:
            may = map({*sieve([*compress(shapes.low, asked)])}.__contains__, shapes.low)
        yield from zip(numbers, starts, raws, keys, may, strict=False)


def _wanted(key: bytes, raw: bytes) -> bool:
    """Could a line of this shape be a piece of a table? Log lines with a wide gap before their head can."""
    at = key.find(b":: [")
    if at < 0 or b"NCCL" not in raw:
        return True
    return b"   " in key[:at]


def _before_log(text: str, hosts: set[str]) -> str | None:
    """What stands before a log line on the same line; "" for a log line alone, None for no log line."""
    hit = _LOG.search(text)
    if hit is None or ("NCCL" not in text[hit.start() :] and " WARN " not in text):
        return None
    word = hit.group()
    for host in sorted(hosts, key=len, reverse=True):
        if (at := word.find(host + ":")) >= 0:
            return text[: hit.start() + at]
    if letter := re.search(r"[A-Za-z\[]", word):
        return text[: hit.start() + letter.start()] if hit.start() else ""
    return text[: hit.start()]


def _facts(table: _Table) -> Iterator[Fact]:
    """Everything of a document, readings first."""
    yield from table.facts
    yield from table.once.values()
    yield from list(table.gpus.values())[:72]
    doc = table.doc
    if table.peak is not None:
        yield replace(table.peak, signal="nccl_tests.peak_busbw")
    if table.largest is not None:
        yield replace(table.largest[1], signal="nccl_tests.largest_busbw")
    if table.wrong is not None:
        yield table.wrong
    for fact in table.summaries[:8]:
        yield fact
    if len(table.summaries) > 1:
        spans = tuple(f.spans[0] for f in table.summaries[:6])
        yield Fact("nccl_tests.summaries", float(len(table.summaries)), "count", Subject(), spans, kind="derived",
                   formula="reader:nccl_tests", inputs=tuple(table.summaries[:8]), status=doc.status)  # fmt: skip
    if table.ranks:
        top = max(rank for rank, _, _ in table.ranks)
        fact = next(f for (rank, _, _), f in table.ranks.items() if rank == top)
        members = [f for (rank, _, _), f in table.ranks.items() if rank == 0]
        inputs = tuple(dict.fromkeys([*members[:4], fact]))
        yield from inputs
        yield Fact("nccl_tests.nranks", float(top + 1), "count", Subject(), fact.spans, kind="derived",
                   formula="reader:nccl_tests", inputs=inputs, status=doc.status)  # fmt: skip
        hosts = len({host for _, host, _ in table.ranks})
        yield Fact("nccl_tests.hosts", float(hosts), "count", Subject(), fact.spans, kind="derived",
                   formula="reader:nccl_tests", inputs=inputs, status=doc.status)  # fmt: skip
        if len(members) > 1:
            yield Fact(
                "nccl_tests.rank0_copies",
                float(len(members)),
                "count",
                Subject(),
                members[1].spans,
                kind="derived",
                formula="reader:nccl_tests",
                inputs=tuple(members[:4]),
                status=doc.status,
            )


READERS = [NcclTestsReader(), NcclTestsJsonReader()]
