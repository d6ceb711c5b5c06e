"""Two runs in two columns: the one setting that differs beside the measurement that differs.

Rows such as ``flash_attn = 0   = 1`` or ``power limit  700 W  500 W`` say how each column was set up; rows that
measure say how each did. Where one or two settings differ, they name the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.axes import OTHER, classify
from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import RULER, excerpt, in_cells
from .generic_compare import ratio_facts
from .generic_figures import cell, header_unit, name_metric, with_unit
from .generic_readings import Group, Reading, reading

_KEY = regex(r"^(?P<name>[^=]*\S)\s*=\s*(?P<value>[^=\s].*)$")
_TIGHT = regex(
    r"^(?P<name>[A-Za-z][^=:]*?[A-Za-z)%])\s(?P<value>\d[\d.,]*(?:\s?\w+)?)$"
)  # one blank between name and value
_STATE = regex(
    r"draw|usage|used|\bnow\b|current|slowdown|throttl|reason|temp|util", re.IGNORECASE
)  # a reading, no setting
_HEAD = regex(r"^\s{4,}\S")  # two names over two columns, nothing over the labels
_LEAST = 1.15
_MOST_SETTINGS = 2


@dataclass(frozen=True)
class _Row:
    label: str
    cells: tuple[str, str]
    line: Line


class ColumnsReader:
    """Settings and measurements of two runs side by side."""

    name = "columns"
    needles: tuple[bytes, ...] = (b"   ", b"\t", b"|")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """At most one comparison a setting and metric."""
        block: list[_Row] = []
        headed = False
        for line in [*excerpt(doc, 1 << 15, 200, plain=True), None]:
            row = _row(line) if line is not None else None
            if row is not None:
                block.append(row)
            elif line is not None and not block and _HEAD.match(line.text):
                headed = True
            elif line is None or not line.text.strip():
                yield from _compared(doc, block, headed)
                block, headed = [], False


def _row(line: Line) -> _Row | None:
    text = line.text.strip().strip("|").strip()
    if not text or RULER.match(text) or len(text) > 200:
        return None
    parts = in_cells(text)
    if len(parts) >= 2 and all(p.startswith(("=", ":")) for p in parts[1:]):
        bare = [p.lstrip("=: ").strip() for p in parts[1:]]
        if len(bare) == 2:  # the name stands alone before both values
            return _Row(parts[0], (bare[0], bare[1]), line)
        hit = _KEY.match(parts[0])
        return _Row(hit["name"], (hit["value"], bare[0]), line) if hit and len(bare) == 1 else None
    if len(parts) == 2 and (hit := _KEY.match(parts[0])) and "=" in parts[0] and "=" in parts[1]:
        other = _KEY.match(parts[1])
        if other and other["name"].split()[-1] == hit["name"].split()[-1]:
            return _Row(hit["name"], (hit["value"], other["value"]), line)
    if len(parts) == 2 and (hit := _TIGHT.match(parts[0])) is not None and parts[1][:1].isdecimal():
        return _Row(hit["name"], (hit["value"], parts[1]), line)
    return (
        _Row(parts[0].rstrip(":= "), (parts[1].lstrip("= "), parts[2].lstrip("= ")), line) if len(parts) == 3 else None
    )


def _measured(doc: Document, row: _Row) -> tuple[Group, Reading, Reading] | None:
    """Both cells of a row that says how well it went."""
    unit = header_unit(row.label)
    one, two = (cell(c, unit) for c in row.cells)
    if one is None or two is None:
        return None
    pair = (one, two)
    known = next((f for f in pair if f.unit not in (None, "count")), pair[0])
    metric = name_metric(row.label, known.unit, known.raw, known.per)
    if metric.better is None or min(f.value for f in pair) <= 0 or metric.name == "temperature":
        return None
    made = []
    for figure, words in zip(pair, row.cells, strict=True):
        if figure.unit is None and known.raw and (got := with_unit(figure.value, known.raw)):
            figure = type(figure)(figure.start, figure.end, figure.text, got[0], got[1], known.raw)
        made.append(reading(doc, row.line, figure, metric, words))
    return (Group(metric, firm=True, context=row.label), made[0], made[1]) if made[0].kind == made[1].kind else None


def _compared(doc: Document, rows: list[_Row], headed: bool) -> Iterator[Fact]:
    head = rows[0] if rows and not headed and not any(any(ch.isdecimal() for ch in c) for c in rows[0].cells) else None
    measured = [(r, m) for r in rows if (m := _measured(doc, r)) is not None]
    taken = {r.line.number for r, _ in measured}
    settings = [
        r for r in rows
        if r.line.number not in taken and r is not head and not _STATE.search(r.label) and r.cells[0].lower() != r.cells[1].lower()  # noqa: E501
        and not re.fullmatch(r"[-–—?]*", r.cells[0]) and not re.fullmatch(r"[-–—?]*", r.cells[1])
    ]  # fmt: skip
    plain = [m for m in measured if m[1][0].metric.name != "clock"]
    measured = plain or measured  # a clock is an effect only where nothing else was measured
    if not measured or not 1 <= len(settings) <= _MOST_SETTINGS:
        return
    for row in settings:
        name = row.label.rpartition(": ")[2] or row.label
        axis = next(iter(classify(f"{name} {row.cells[0]}", f"{name} {row.cells[1]}")), OTHER)
        if axis == OTHER:
            continue
        best: tuple[float, Group, Reading, Reading] | None = None
        for _, (group, a, b) in measured:
            apart = max(a.level, b.level) / min(a.level, b.level)
            if apart >= _LEAST and (best is None or apart > best[0]):
                best = apart, group, a, b
        if best is None:
            continue
        _, group, a, b = best
        named = [
            Reading(r.figure, r.metric, f"{name} {value}", r.span, r.status)
            for r, value in zip((a, b), row.cells, strict=True)
        ]
        for fact in ratio_facts(axis, group, named[0], named[1]):
            if fact.signal == "compare.ratio":
                yield fact


READERS: list[Reader] = [ColumnsReader()]
