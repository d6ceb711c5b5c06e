"""Small tables and pairs of commands that say what was turned and how it went, whatever the setting is called.

The generic reader compares settings on axes that it knows. Here the head of the column (or the words in which two
commands differ) stays with the two settings, so that a rule can tell what the lever was: ``UCX_TLS``, ``ulimit -l``,
``docker run args``. The outcome may be a figure or words: one row fails where another runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import RULER, excerpt
from .generic_figures import cell, header_unit, name_metric
from .generic_tables import Cell, split

_SMALL = 1 << 15
_LINES = 200
_ROWS = 12
_LEAST = 1.3
_FAILS = regex(
    r"\bfail|error|\bhang|\bhung|crash|abort|segmentation|segfault|sigsegv|\bdies?\b|killed|timed? ?out|no route|unreachable|"  # noqa: E501
    r"refused|cannot|can't|could not|network Socket|NET/Socket|wrong|corrupt|\bno row|never|\boom\b|not start|失败|报错|卡死|卡住|挂死|崩溃|超时|不通",  # noqa: E501
    re.I,
)
_RUNS = regex(
    r"^\W*(?:ok|okay|pass(?:es|ed)?|works?|runs?|good|fine|success\w*|trains?|finish\w*|complet\w*|done|yes|clean|正常|成功|通过|通)\b"
    r"|finish\w*$|\bok$|network (?:IB|AWS Libfabric)|NET/(?:IB|OFI)|/GDRDMA|P2P/",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    line: Line


class LeverTables:
    """Tables with a head: for the worst row and every clearly better one, each column in which they differ."""

    name = "lever_tables"
    needles: tuple[bytes, ...] = (b"  ", b"\t", b"|", b",")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`lever.row`: the worse row's setting, labelled ``head|worse|better|outcome``."""
        lines = excerpt(doc, _SMALL, _LINES, plain=True)
        i = 0
        while i + 2 < len(lines):
            head, rows = _table(lines, i)
            if len(rows) >= 2:
                yield from _turned(doc, head, rows)
            i += max(1, len(rows))


def _table(lines: list[Line], i: int) -> tuple[list[str], list[_Row]]:
    text = _bare(lines[i])
    kind, head = _split(text)
    tool = re.search(r"\bredop\b|\bPID\b|%CPU|\bIRQ\b|Self C(?:PU|UDA)", text)  # a tool's own output has its own reader
    if not kind or tool or not 2 <= len(head) <= 8 or len(text) > 240 or any(cell(c.text) for c in head[1:]):
        return [], []
    rows: list[_Row] = []
    for line in lines[i + 1 : i + 1 + _ROWS]:
        text = _bare(line)
        if RULER.match(text):
            continue
        same, cells = _split(text)
        if same != kind or not 2 <= len(cells) <= len(head) + 1:
            break
        rows.append(_Row(_placed(cells, head), line))
    return [c.text for c in head], rows


def _split(text: str) -> tuple[str, list[Cell]]:
    """As of other tables, and rows that commas part."""
    kind, cells = split(text)
    if kind or text.count(",") < 2 or ", " in text:
        return kind, cells
    out, at = [], 0
    for part in text.split(","):
        out.append(Cell(part.strip(), at, at + len(part)))
        at += len(part) + 1
    return "csv", out


def _bare(line: Line) -> str:
    return re.sub(r"^\s*#\s?", "", line.prefix + line.text)


def _placed(cells: list[Cell], head: list[Cell]) -> tuple[str, ...]:
    """One text a column: by count where it fits, else under the nearest head; a remark behind the row is dropped."""
    if len(cells) < len(head):
        cells = [part for item in cells for part in _parted(item, head)]
    if len(cells) >= len(head):
        return tuple(c.text for c in cells[: len(head)])
    texts = [""] * len(head)
    for item in cells:
        near = min(range(len(head)), key=lambda k: abs(head[k].start - item.start))
        texts[near] = texts[near] or item.text
    return tuple(texts)


def _parted(item: Cell, head: list[Cell]) -> Iterator[Cell]:
    """A cell so long that one blank parts it from the next column's."""
    for column in head[1:]:
        at = column.start - item.start
        blank = next((k for k in (at - 1, at, at + 1, at - 2) if 0 < k < len(item.text) and item.text[k] == " "), None)
        if blank is not None and (blank == at - 1 or cell(item.text[blank + 1 :]) is not None):
            yield Cell(item.text[:blank].rstrip(), item.start, item.start + blank)
            yield Cell(item.text[blank + 1 :], item.start + blank + 1, item.end)
            return
    yield item


def _levels(name: str, rows: list[_Row], column: int) -> list[float | None]:
    """How well each row went by this column, larger is better; a row that fails is at zero, one that runs is at one."""
    unit = header_unit(name)
    texts = [r.cells[column] for r in rows]
    found = [cell(t, unit) or cell(t.split(",")[0].split("(")[0], unit) for t in texts]
    known = next((f for f in found if f is not None and f.unit not in (None, "count")), next(filter(None, found), None))
    scale = {"s": 1e3, "us": 1e-3, "ns": 1e-6}  # a column may hold both milliseconds and seconds
    metric = name_metric(name, known.unit, known.raw, known.per) if known is not None else None
    out: list[float | None] = []
    for text, figure in zip(texts, found, strict=True):
        if _FAILS.search(text) and figure is None:
            out.append(0.0)
        elif figure is not None and metric is not None and metric.better is not None and figure.value > 0:
            level = figure.value * scale.get(figure.unit or "", 1.0)
            out.append(level if metric.better == "higher" else 1 / level)
        else:
            out.append(1.0 if figure is None and _RUNS.search(text) else None)
    return out


def _turned(doc: Document, head: list[str], rows: list[_Row]) -> Iterator[Fact]:
    seen: set[str] = set()
    for column in range(len(head) - 1, 0, -1):
        levels = _levels(head[column], rows, column)
        ranked = sorted((level, k) for k, level in enumerate(levels) if level is not None)
        if len(ranked) < 2:
            continue
        low, worst = ranked[0]
        for level, good in reversed(ranked[1:]):
            if level < _LEAST * low or level == low:
                break
            for other, name in enumerate(head):
                one, two = rows[worst].cells[other].strip(), rows[good].cells[other].strip()
                if other == column or one.lower() == two.lower():
                    continue
                label = "|".join(part.replace("|", "/")[:70] for part in (name, one, two, head[column]))
                if label not in seen and len(seen) < 16:
                    seen.add(label)
                    yield _fact(doc, label, rows[worst].line, rows[good].line)


def _fact(doc: Document, label: str, worse: Line, better: Line) -> Fact:
    text = re.sub(r"\s+", " ", (worse.prefix + worse.text).strip())[:160]
    return Fact(
        "lever.row", text, None, Subject(label=label[:240]), (doc.span(worse), doc.span(better)), status=doc.status
    )


_TOOL = regex(
    r"\b(?P<tool>osu_(?:bi)?bw|osu_(?:multi_)?lat\w*|osu_mbw_mr|ucx_perftest|ib_(?:write|read|send)_(?:bw|lat)|nixlbench|p2pBandwidth\w*|bandwidthTest|nvbandwidth|iperf3?)\b"
)
_RESULT = regex(
    r"^\s*(?:\d[\d,]*\s+)?(?P<value>\d[\d,]*(?:\.\d+)?)\s*(?:[GM]B/s|[GM]b/s|Gbits/sec|us|usec|ms)?\s*(?:#.*)?$"
)


class LeverCommands:
    """The same tool run twice with one thing changed: the words in which the commands differ, and which was worse."""

    name = "lever_commands"
    needles: tuple[bytes, ...] = (
        b"osu_",
        b"perftest",
        b"_bw",
        b"_lat",
        b"iperf",
        b"nixlbench",
        b"nvbandwidth",
        b"bandwidthTest",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`lever.row` with the head ``command``."""
        runs: list[tuple[str, Line, float, Line]] = []
        command: tuple[str, Line] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            text = (line.prefix + line.text).strip()
            beside = [(left, hit, line) for left, hit in _beside(text)]
            runs += [(left, line, _number(hit), line) for left, hit, line in beside]
            if beside:
                command = None
            elif _TOOL.search(text):
                command = text, line
            elif command and (hit := _RESULT.match(text)):
                runs = [r for r in runs if r[0] != command[0]] + [(*command, _number(hit), line)]
        yield from _differ(doc, runs)


def _beside(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Commands with their results behind an arrow: ``numactl -N0 ib_write_bw -> 97.1 ; numactl -N1 … -> 61.0``."""
    tool = ""
    for part in re.split(r"\s*;\s+", text):
        arrow = re.match(r"^(?P<left>.*?)\s*(?:->|=>|→)\s*(?P<right>\d\S*.{0,12})$", part)
        if arrow is None or (hit := _RESULT.match(arrow["right"])) is None:
            return
        named = _TOOL.search(arrow["left"])
        tool = named["tool"] if named else tool
        if not tool:
            return
        yield arrow["left"] if named else f"{arrow['left']} {tool}", hit


def _number(hit: re.Match[str]) -> float:
    return float(hit["value"].replace(",", ""))


def _differ(doc: Document, runs: list[tuple[str, Line, float, Line]]) -> Iterator[Fact]:
    for i, (one, _, first, line) in enumerate(runs):
        for two, _, second, other in runs[i + 1 :]:
            tools = {hit["tool"] for t in (one, two) if (hit := _TOOL.search(t))}
            if len(tools) != 1 or min(first, second) <= 0 or max(first, second) < _LEAST * min(first, second):
                continue
            later = "lat" in next(iter(tools))
            worse_first = (first > second) if later else (first < second)
            (bad, bad_line), (good, good_line) = (
                ((one, line), (two, other)) if worse_first else ((two, other), (one, line))
            )
            left, right = _words(bad), _words(good)
            said = " ".join(w for w in left if w not in right), " ".join(w for w in right if w not in left)
            if any(said) and len(set(left) ^ set(right)) <= 8:
                yield _fact(
                    doc, f"command {next(iter(tools))}|{said[0][:80]}|{said[1][:80]}|result", bad_line, good_line
                )


def _words(text: str) -> list[str]:
    return text.split("|")[0].replace("$", " ").split()


READERS: list[Reader] = [LeverTables(), LeverCommands()]
