"""Result blocks pasted one after another: the same rows again under another heading are two runs to compare.

Sources of the layouts: vLLM `benchmarks/benchmark_serving.py`, SGLang `bench_serving.py`, genai-perf, and notes that
copy their rows. A block ends where one of its row names comes again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.axes import OTHER, classify
from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt
from .generic_compare import ratio_facts
from .generic_figures import cell, header_unit, name_metric
from .generic_readings import Group, Reading, reading
from .generic_tables import matrices, tables

_ROW = regex(
    r"^\W*(?P<name>[A-Za-z][A-Za-z0-9 _()/%.\[\]-]{2,48}?)\s*[:=]\s{0,40}(?P<value>[~≈]?\d[\d.,]*\s?[\w/%]{0,10})\s*$"
)
_RULE = regex(r"^[\s=*_#+|-]*(?:serving benchmark result|benchmark (?:results?|summary))?[\s=*_#+|-]*$", re.IGNORECASE)
_LEAST_ROWS = 3
_MOST_BLOCKS = 6


@dataclass
class _Block:
    name: str = ""
    rows: dict[str, tuple[str, Line]] = field(default_factory=dict)


class BenchBlocksReader:
    """Ratios between two or more blocks of the same rows."""

    name = "bench_blocks"
    needles: tuple[bytes, ...] = (b"TTFT", b"TPOT", b"throughput", b"Throughput", b"atency")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The widest ratio of each row that says how well a run went."""
        blocks = [b for b in _blocks(excerpt(doc, 1 << 16)) if len(b.rows) >= _LEAST_ROWS]
        shared = set(blocks[0].rows).intersection(*(b.rows for b in blocks[1:])) if len(blocks) > 1 else set[str]()
        if len(shared) < _LEAST_ROWS or len(blocks) > _MOST_BLOCKS:
            return
        for n, block in enumerate(blocks, 1):
            block.name = block.name or f"run {n}"
        for name in blocks[0].rows:
            got = [_reading(doc, name, b) for b in blocks] if name in shared else []
            made = sorted((r for r in got if r is not None and r.level > 0), key=lambda r: r.level)
            if len(made) < 2 or made[0].metric.better is None or made[0].kind != made[-1].kind:
                continue
            axis = next(iter(classify(made[0].setting, made[-1].setting)), OTHER)
            yield from ratio_facts(axis, Group(made[0].metric, firm=True, context=name), made[0], made[-1])


def _blocks(lines: list[Line]) -> list[_Block]:
    out, heading = [_Block()], ""
    for line in lines:
        text = line.text
        row = _ROW.match(text)
        if row is None:
            if text.strip() and not _RULE.match(text):
                heading = text.strip(" #=*-:[]\t") if len(text) < 160 else ""
                if out[-1].rows:
                    out.append(_Block())
            continue
        name = " ".join(row["name"].lower().split())
        if name in out[-1].rows:
            out.append(_Block())
        if not out[-1].rows:
            out[-1].name, heading = heading, ""
        out[-1].rows[name] = (row["value"], line)
    return out


def _reading(doc: Document, name: str, block: _Block) -> Reading | None:
    text, line = block.rows[name]
    figure = cell(text, header_unit(name))
    if figure is None:
        return None
    return reading(doc, line, figure, name_metric(name, figure.unit, figure.raw, figure.per), block.name)


class SettingColumnsReader:
    """Columns that are settings of one kind over rows of growing load: each against the first, at the last row."""

    name = "setting_columns"
    needles: tuple[bytes, ...] = (b"/s", b"ms", b"TPOT", b"TTFT", b"GB")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """What holds at the largest load may be the reverse of what holds at the least."""
        lines = excerpt(doc, 1 << 15)
        for table in tables(lines, matrices(lines)):
            rows = [r for r in table.rows if _amount(r.label) is not None and all(r.figures)]
            if len(table.columns) < 3 or len(rows) < 2 or _amount(rows[-1].label) <= _amount(rows[0].label):  # type: ignore[operator]
                continue
            last = rows[-1]
            made = [
                reading(doc, last.line, f, name_metric(head, f.unit, f.raw, f.per), head)
                for head, f in zip(table.columns, last.figures, strict=True) if f is not None
            ]  # fmt: skip
            if len({(m.kind, m.metric.name) for m in made}) > 1 or made[0].metric.better is None or made[0].level <= 0:
                continue
            for other in made[1:]:
                axis = next(iter(classify(made[0].setting, other.setting)), OTHER)
                if axis != OTHER and other.level > 0:
                    yield from ratio_facts(axis, Group(made[0].metric, firm=True, context=last.label), made[0], other)


def _amount(label: str) -> float | None:
    hit = re.fullmatch(r"\D{0,12}(\d{1,7})\s*(k?)\b.{0,10}", label.strip(), re.IGNORECASE)
    return float(hit[1]) * (1000 if hit[2] else 1) if hit else None


READERS: list[Reader] = [BenchBlocksReader(), SettingColumnsReader()]
