"""The generic reader: figures, small tables and comparisons out of any text.

It runs on every document. Structured logs belong to other readers: in a long document made of
log lines it only looks for error texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from diagnose.axes import OTHER, classify, names_axis
from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from . import generic_arithmetic, generic_errors, generic_prose
from .facts import excerpt
from .generic_compare import facts
from .generic_figures import Figure, Metric, cell, header_unit, name_metric, statistic, with_unit
from .generic_readings import Group, Reading, reading
from .generic_tables import Row, Table, matrices, tables

MAX_BYTES = 2 << 20
MAX_LINES = 4000
MAX_FACTS = 150
SMALL = 60  # lines up to which a document is taken as typed by hand


# Profiles list parts of one run, not settings of several.
_PROFILE = regex(
    r"function|self cpu|own ?time|(num|# of|nb) ?calls|instances|%mem|\bpid\b|command|\bpclk\b"
    r"|%(?:usr|user|sys|iowait|idle|util)\b|\bnode 0 +node 1\b.*\btotal\b",
    re.IGNORECASE,
)


class GenericReader:
    """Facts of hand-typed and unknown text."""

    name = "generic"
    needles: tuple[bytes, ...] = ()

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Comparisons first, then errors, then single figures, at most `MAX_FACTS`."""
        if doc.is_binary:
            return
        yield from generic_errors.errors(doc)
        lines = excerpt(doc, MAX_BYTES, MAX_LINES, plain=True)
        small = sum(1 for line in lines if line.text.strip()) <= SMALL
        if small:
            lines = [named(line) for line in lines]
        if not small and logged(lines):
            return
        yield from islice(_facts(doc, lines, small), MAX_FACTS)


def named(line: Line) -> Line:
    """``worker-2: 2.9 GB/s`` is a row of a list when nothing but the text says so, not a launcher's prefix."""
    mere = line.prefix[:1] not in ("", " ") and not any(c in line.prefix for c in "[(")  # beside a process it is one
    return replace(line, text=line.prefix + line.text) if mere else line


def logged(lines: list[Line]) -> bool:
    """Mostly lines of some program's log."""
    sample = lines[:400]
    return sum(1 for line in sample if generic_prose.LOG.search(line.text[:120])) > 0.4 * len(sample)


def _facts(doc: Document, lines: list[Line], small: bool) -> Iterator[Fact]:
    used = matrices(lines)
    found: list[Group] = []
    loose: list[Reading] = []
    for table in tables(lines, used) if b"NVIDIA-SMI" not in doc.head else ():
        made, readings = of_table(doc, table)
        if readings:
            used.update(table.lines)
            found.extend(made)
            loose.extend(readings)
    notes = generic_prose.notes(lines, used)
    found.extend(generic_prose.groups(doc, notes, small))
    derived = facts(found)
    yield from derived
    placed = {(m.span.line, m.figure.start, m.figure.text): m for g in found for m in g.members}
    plain = generic_prose.plain(doc, notes)
    singles = [*loose, *(placed.get((r.span.line, r.figure.start, r.figure.text), r) for r in plain)]
    yield from generic_arithmetic.arithmetic(derived, found, notes, singles)
    if small:
        yield from dict.fromkeys(r.fact for r in singles)


def of_table(doc: Document, table: Table) -> tuple[list[Group], list[Reading]]:
    """Groups down the columns and across the rows, and every figure on its own."""
    columns = [
        _metric_of(name, [r.figures[k] for r in table.rows], table.caption) for k, name in enumerate(table.columns)
    ]
    rows = [name_metric(r.label) for r in table.rows]
    row_known = [m.known or bool(statistic(r.label)) for m, r in zip(rows, table.rows, strict=True)]
    col_known = sum(m.known for m in columns)
    by_rows = sum(row_known) > 0 and sum(row_known) / len(rows) > col_known / max(1, len(columns))
    if _PROFILE.search(" ".join((table.corner, *table.columns))):
        return [], []
    groups: list[Group] = []
    loose: list[Reading] = []
    settings = _row_settings(table, columns)
    names = list(table.columns)
    wide = [_column_setting(table, k) for k in range(len(names))] if by_rows else names
    for k, name in enumerate(names):
        down = Group(columns[k], over=table.corner, context=table.caption, firm=True)
        for row, setting in zip(table.rows, settings, strict=True):
            figure = _by_row(row, k) if by_rows else row.figures[k]
            if figure is None:
                continue
            metric = _cell_metric(columns[k], row, name, figure, by_rows)
            item = reading(doc, row.line, figure, metric, name if by_rows else setting)
            loose.append(item)
            if not by_rows:
                down.members.append(item)
        if not by_rows:
            groups.append(down)
    for row in table.rows:
        groups.extend(_across(doc, table, row, columns, names, by_rows))
        if wide != names:
            groups.extend(_across(doc, table, row, columns, wide, by_rows))
    return groups, loose


def _is_setting(label: str, metric: Metric) -> bool:
    """A row or column of figures that says how something was set up, not how it did."""
    return metric.name in ("power", "clock") or (not metric.known and names_axis(label))


def _row_settings(table: Table, columns: list[Metric]) -> list[str]:
    """Row labels with the words and settings of the row that differ; these alone where the label is a reading."""
    differ = [
        k for k in range(len(table.columns))
        if len({r.words[k].lower() for r in table.rows if r.words and r.words[k]}) > 1
    ]  # fmt: skip
    set_up = [
        k for k, name in enumerate(table.columns)
        if _is_setting(name, columns[k]) and len({f.text for r in table.rows if (f := r.figures[k])}) > 1
    ] if len(table.columns) > 1 and not names_axis(table.corner) else []  # fmt: skip
    out: list[str] = []
    for row in table.rows:
        said = [_worded(table.columns[k], row.words[k]) for k in differ if row.words]
        said += [f"{table.columns[k]} {f.text} {f.raw}".strip() for k in set_up if (f := row.figures[k])]
        words = " ".join(said)[:80]
        index = cell(row.label) is not None and classify("1", "2", table.corner)[0] == OTHER
        out.append(words if index and words else f"{row.label} {words}".strip())
    return out


def _worded(column: str, word: str) -> str:
    """``backward_prefetch BACKWARD_PRE``: a word alone does not say what it sets."""
    return f"{column} {word}" if word and len(column) <= 40 and names_axis(column) and not names_axis(word) else word


def _column_setting(table: Table, k: int) -> str:
    """A column's name with its words where those differ between columns: ``board A Gen 2 x4``."""
    words = [
        row.words[k] for row in table.rows
        if row.words and not any(row.figures) and row.words[k] and len(set(row.words)) > 1
    ]  # fmt: skip
    for row in table.rows:
        figure = row.figures[k]
        shown = {f.text for f in row.figures if f}
        if figure and len(shown) > 1 and _is_setting(row.label, name_metric(row.label, figure.unit, figure.raw)):
            words.append(f"{row.label} {figure.text} {figure.raw}".strip())
    return " ".join([table.columns[k], *words])[:120]


def _metric_of(name: str, cells: list[Figure | None], caption: str) -> Metric:
    first = next((c for c in cells if c is not None), None)
    unit, raw = (first.unit, first.raw) if first else (None, "")
    got = name_metric(name, unit, raw, first.per if first else "")
    if not got.known and caption:
        wide = name_metric(f"{caption} {name}", unit, raw)
        got = wide if wide.known else got
    return got


def _by_row(row: Row, k: int) -> Figure | None:
    """A cell in the unit that its row's label prints."""
    figure, unit = row.figures[k], header_unit(row.label)
    if figure is not None and figure.unit is None and not unit:  # ``TTFT   88.0 ms   87.4``
        printed = {f.raw for f in row.figures if f is not None and f.unit not in (None, "count") and f.raw}
        unit = printed.pop() if len(printed) == 1 else ""
    made = with_unit(figure.value, unit) if figure is not None and figure.unit is None and unit else None
    return replace(figure, value=made[0], unit=made[1], raw=unit) if figure is not None and made else figure


def _cell_metric(column: Metric, row: Row, name: str, figure: Figure, by_rows: bool) -> Metric:
    if not by_rows:
        return column
    got = name_metric(row.label, figure.unit, figure.raw, figure.per)
    return got if got.known else name_metric(f"{row.label} {name}", figure.unit, figure.raw, figure.per)


def _across(
    doc: Document, table: Table, row: Row, columns: list[Metric], names: list[str], by_rows: bool
) -> Iterator[Group]:
    """Columns of one row that measure the same thing under different settings."""
    kinds: dict[str, Group] = {}
    for k, name in enumerate(names):
        figure = _by_row(row, k) if by_rows else row.figures[k]
        if figure is None:
            continue
        metric = _cell_metric(columns[k], row, name, figure, by_rows)
        over = table.corner if by_rows else ""
        group = kinds.setdefault(metric.name, Group(metric, over=over, context=row.label, firm=True))
        group.members.append(reading(doc, row.line, figure, metric, name))
    yield from (g for g in kinds.values() if len(g.members) > 1)


READERS: list[Reader] = [GenericReader()]
