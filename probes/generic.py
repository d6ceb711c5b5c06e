"""The generic reader: figures, small tables and comparisons out of any text.

It runs on every document. Structured logs belong to other readers: in a long document made of
log lines it only looks for error texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from diagnose.document import Document, Line
from diagnose.models import Fact
from diagnose.plugin import Reader

from . import generic_arithmetic, generic_errors, generic_prose
from .generic_compare import Group, Reading, facts, reading
from .generic_figures import Figure, Metric, name_metric, statistic
from .generic_tables import Row, Table, tables

MAX_BYTES = 2 << 20
MAX_LINES = 4000
MAX_FACTS = 150
SMALL = 60  # lines up to which a document is taken as typed by hand


class GenericReader:
    """Facts of hand-typed and unknown text."""

    name = "generic"
    needles: tuple[bytes, ...] = ()

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Comparisons first, then errors, then single figures, at most `MAX_FACTS`."""
        if doc.is_binary:
            return
        yield from generic_errors.errors(doc)
        if doc.size > MAX_BYTES or doc.head.lstrip()[:1] == b"{":
            return
        lines = list(islice(doc.lines(), MAX_LINES))
        small = sum(1 for line in lines if line.text.strip()) <= SMALL
        if not small and logged(lines):
            return
        yield from islice(_facts(doc, lines, small), MAX_FACTS)


def logged(lines: list[Line]) -> bool:
    """Mostly lines of some program's log."""
    sample = lines[:400]
    return sum(1 for line in sample if generic_prose.LOG.search(line.text[:120])) > 0.4 * len(sample)


def _facts(doc: Document, lines: list[Line], small: bool) -> Iterator[Fact]:
    used: set[int] = set()
    found: list[Group] = []
    loose: list[Reading] = []
    for table in tables(lines) if b"NVIDIA-SMI" not in doc.head else ():
        made, readings = of_table(doc, table)
        if readings:
            used.update(table.lines)
            found.extend(made)
            loose.extend(readings)
    notes = generic_prose.notes(lines, used)
    found.extend(generic_prose.groups(doc, notes, small))
    derived = facts(found)
    yield from derived
    singles = [*loose, *generic_prose.plain(doc, notes)]
    yield from generic_arithmetic.arithmetic(derived, found, notes, singles)
    if small:
        yield from dict.fromkeys(r.fact for r in singles)


def of_table(doc: Document, table: Table) -> tuple[list[Group], list[Reading]]:
    """Groups down the columns and across the rows, and every figure on its own."""
    columns = [_metric_of(name, [r.figures[k] for r in table.rows], table.caption) for k, name in enumerate(table.columns)]
    rows = [name_metric(r.label) for r in table.rows]
    row_known = [m.known or bool(statistic(r.label)) for m, r in zip(rows, table.rows, strict=True)]
    col_known = sum(m.known for m in columns)
    by_rows = sum(row_known) > 0 and sum(row_known) / len(rows) > col_known / max(1, len(columns))
    groups: list[Group] = []
    loose: list[Reading] = []
    for k, name in enumerate(table.columns):
        down = Group(columns[k], over=table.corner, context=table.caption, firm=True)
        for row in table.rows:
            figure = row.figures[k]
            if figure is None:
                continue
            metric = _cell_metric(columns[k], row, name, figure, by_rows)
            item = reading(doc, row.line, figure, metric, name if by_rows else row.label)
            loose.append(item)
            if not by_rows:
                down.members.append(item)
        if not by_rows:
            groups.append(down)
    for row in table.rows:
        groups.extend(_across(doc, table, row, columns, by_rows))
    return groups, loose


def _metric_of(name: str, cells: list[Figure | None], caption: str) -> Metric:
    first = next((c for c in cells if c is not None), None)
    unit, raw = (first.unit, first.raw) if first else (None, "")
    got = name_metric(name, unit, raw, first.per if first else "")
    if not got.known and caption:
        wide = name_metric(f"{caption} {name}", unit, raw)
        got = wide if wide.known else got
    return got


def _cell_metric(column: Metric, row: Row, name: str, figure: Figure, by_rows: bool) -> Metric:
    if not by_rows:
        return column
    got = name_metric(row.label, figure.unit, figure.raw, figure.per)
    return got if got.known else name_metric(f"{row.label} {name}", figure.unit, figure.raw, figure.per)


def _across(doc: Document, table: Table, row: Row, columns: list[Metric], by_rows: bool) -> Iterator[Group]:
    """Columns of one row that measure the same thing under different settings."""
    kinds: dict[str, Group] = {}
    for k, name in enumerate(table.columns):
        figure = row.figures[k]
        if figure is None:
            continue
        metric = _cell_metric(columns[k], row, name, figure, by_rows)
        over = table.corner if by_rows else ""
        group = kinds.setdefault(metric.name, Group(metric, over=over, context=row.label, firm=True))
        group.members.append(reading(doc, row.line, figure, metric, name))
    yield from (g for g in kinds.values() if len(g.members) > 1)


READERS: list[Reader] = [GenericReader()]
