"""Nsight Compute exports: `--csv --page raw` (a kernel a row), `--csv --page details` (a metric a row), and .ncu-rep.

Source: Nsight Compute CLI 2022 to 2026. Reports are read with NVIDIA's `ncu-report` package if that is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from diagnose.document import Document, Span
from diagnose.errors import ParseError
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided
from .kernel_metrics import METRICS, STALL, Reading, facts, number, sentences, short

_CELL = regex(r'"((?:[^"]|"")*)"|([^,"]*)')
_KEEP = 12  # kernels
_LONGEST = 1 << 20  # bytes of one row
_EXCESS = (  # printed total and printed excess, of which the share is what counts
    (
        "derived__memory_l2_theoretical_sectors_global_excessive",
        "memory_l2_theoretical_sectors_global",
        "kernel.excess_sectors",
    ),
    ("derived__memory_l1_wavefronts_shared_excessive", "memory_l1_wavefronts_shared", "kernel.excess_wavefronts"),
)
_TIMES = ("gpu__time_duration.sum", "Duration", "gpu__time_duration.avg")
Cell = tuple[str, int, int]  # text, and its byte range


def cells(raw: bytes, start: int) -> list[Cell]:
    """Split a CSV line, keeping where each cell stands."""
    text, out, pos = raw.decode("latin-1"), [], 0
    while pos <= len(text):
        hit = _CELL.match(text, pos)
        if hit is None:
            break
        quoted = hit.group(1) is not None
        value = hit.group(1).replace('""', '"') if quoted else hit.group(2)
        low = hit.start(1) if quoted else hit.start(2)
        out.append((value, start + low, start + (hit.end(1) if quoted else hit.end(2))))
        pos = hit.end()
        if pos >= len(text) or text[pos] != ",":
            break
        pos += 1
    return out


class NcuCsv:
    """CSV of ncu, wide or long."""

    name = "ncu_csv"
    needles: tuple[bytes, ...] = (b'"Kernel Name"', b"Kernel Name,")

    def owns(self, doc: Document) -> bool:
        """The export from its first lines on: progress lines of ncu may stand before the header."""
        at = doc.head.find(b'"ID","Process ID"')
        return at == 0 or (at > 0 and doc.head[:at].lstrip()[:2] in (b"==", b'"='))

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the kernels that take most of the time, a kernel once."""
        header: list[Cell] = []
        units: list[str] = []
        kernels: dict[str, tuple[str, list[Reading]]] = {}
        advice: list[Fact] = []
        for line, start, raw in _rows(doc):
            if b"Kernel Name" in raw and not header:
                found = cells(raw.rstrip(b"\r"), start)
                header = found if any(c[0] == "Kernel Name" for c in found) else []
                head_line = line
                continue
            if not header or not raw.strip():
                continue
            row = cells(raw.rstrip(b"\r"), start)
            names = [c[0] for c in header]
            least = names.index("Metric Value") + 1 if "Metric Value" in names else len(header)
            if not least <= len(row) <= len(header):
                doc.lines_skipped += raw[:1] == b'"' and raw[:3] != b'"=='
                continue
            if not units and not row[0][0]:
                units = [c[0] for c in row]
                continue
            kernel = row[names.index("Kernel Name")][0]
            ident = row[0][0] if names[0] == "ID" else str(line)
            mine = kernels.setdefault(ident, (kernel, []))[1]
            if "Metric Name" in names:
                at = {n: row[names.index(n)] for n in ("Metric Name", "Metric Unit", "Metric Value") if n in names}
                value = number(at["Metric Value"][0]) if "Metric Value" in at else None
                metric, unit = at["Metric Name"][0], at.get("Metric Unit", ("", 0, 0))[0]
                if (
                    value is not None
                    and _wanted(metric)
                    and not (METRICS.get(metric, ("", ""))[1] == "pct" and unit != "%")
                ):
                    mine.append(
                        Reading(
                            metric,
                            value,
                            unit,
                            (_span(doc, at["Metric Value"], line), _span(doc, at["Metric Name"], line)),
                        )
                    )
                if "Rule Description" in names and len(row) > names.index("Rule Description"):
                    rule = row[names.index("Rule Description")]
                    if rule[0]:
                        advice.extend(
                            sentences(
                                _label(kernel, ident), rule[0], doc.bytes_span(rule[1], rule[2], line), doc.status
                            )
                        )
            else:
                for n, (cell, head) in enumerate(zip(row, header, strict=True)):
                    value = number(cell[0]) if _wanted(head[0]) and cell[0] else None
                    if value is not None:
                        unit = units[n] if units else ""
                        mine.append(
                            Reading(head[0], value, unit, (_span(doc, cell, line), _span(doc, head, head_line)))
                        )
        yield from advice[:60]
        yield from _kernels(kernels, doc.status)


def _rows(doc: Document) -> Iterator[tuple[int, int, bytes]]:
    """Whole lines: the document hands long ones out in pieces, and a row of `--set full` has two thousand cells."""
    held: tuple[int, int, bytes] | None = None
    for line, start, raw in doc.raw_lines():
        if held is not None and held[0] == line and len(held[2]) < _LONGEST:
            held = (line, held[1], held[2] + raw)
            continue
        if held is not None:
            yield held
        held = (line, start, raw)
    if held is not None:
        yield held


def _wanted(metric: str) -> bool:
    return metric in METRICS or STALL.fullmatch(metric) is not None or any(metric in e for e in _EXCESS)


def _label(kernel: str, ident: str) -> str:
    return f"{short(kernel)}#{ident}" if ident else short(kernel)


def _span(doc: Document, cell: Cell, line: int) -> Span:
    return Span(doc.name, cell[1], cell[2], line, cell[0][:400])


def _time(readings: list[Reading]) -> float:
    return next((r.value for name in _TIMES for r in readings if r.metric == name), 0.0)


def _kernels(kernels: dict[str, tuple[str, list[Reading]]], status: tuple[str, ...]) -> Iterator[Fact]:
    """The longest launches; launches of one kernel that take about the same time are one reading."""
    order = sorted(kernels.items(), key=lambda kv: -_time(kv[1][1]))
    taken: list[tuple[str, float]] = []
    for ident, (kernel, readings) in order:
        time = _time(readings)
        if len(taken) >= _KEEP or any(k == kernel and abs(t - time) <= 0.1 * t for k, t in taken):
            continue
        taken.append((kernel, time))
        label = _label(kernel, ident)
        yield from facts(label, readings, status)
        by_name = {r.metric: r for r in readings}
        for part, whole, signal in _EXCESS:
            if part in by_name and whole in by_name and by_name[whole].value >= 1000:
                pair = tuple(
                    Fact(
                        "kernel.wavefronts" if "wavefronts" in whole else "kernel.sectors",
                        r.value,
                        "count",
                        Subject(label=f"{label}|{what}"),
                        r.spans,
                        status=status,
                    )
                    for r, what in ((by_name[part], "excessive"), (by_name[whole], "all"))
                )
                yield divided(signal, pair, "fraction", Subject(label=label), spans=by_name[part].spans)


class NcuReport:
    """Binary .ncu-rep files."""

    name = "ncu_report"
    needles: tuple[bytes, ...] = (b"NVR\x00", b"NVR\x01")

    def owns(self, doc: Document) -> bool:
        """By the magic number."""
        return doc.head[:3] == b"NVR"

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Metrics of the longest kernels. Raises ParseError where the reader package is missing."""
        if doc.head[:3] != b"NVR":
            return
        try:
            ncu_report: Any = import_module("ncu_report")
        except ImportError as err:
            hint = "pip install ncu-report, or export it with: ncu --import FILE --csv --page raw"
            raise ParseError("ncu_report", f"a binary Nsight Compute report needs its reader: {hint}") from err
        with NamedTemporaryFile(suffix=".ncu-rep") as copy:
            Path(copy.name).write_bytes(doc.data)
            context = ncu_report.load_report(copy.name)
            kernels: dict[str, tuple[str, list[Reading]]] = {}
            span = (doc.bytes_span(0, min(doc.size, 4), 1),)
            for r in range(context.num_ranges()):
                group = context.range_by_idx(r)
                for i in range(min(group.num_actions(), 2000)):
                    action = group.action_by_idx(i)
                    readings = []
                    for metric in (*METRICS, *(e for x in _EXCESS for e in x[:2])):
                        got = action.metric_by_name(metric) if "__" in metric else None
                        value = got.value() if got is not None else None
                        if got is not None and isinstance(value, (int, float)):
                            readings.append(Reading(metric, float(value), str(got.unit() or ""), span))
                    kernels[f"{r}.{i}" if context.num_ranges() > 1 else str(i)] = (action.name(), readings)
        for fact in _kernels(kernels, doc.status):
            yield _aggregated(fact)


def _aggregated(fact: Fact) -> Fact:
    """A figure out of a binary container: no text to quote, so it counts as the reader's own."""
    return Fact(
        fact.signal,
        fact.value,
        fact.unit,
        fact.subject,
        fact.spans,
        kind="derived",
        formula="reader:ncu_report",
        status=fact.status,
    )


READERS: list[Reader] = [NcuCsv(), NcuReport()]
