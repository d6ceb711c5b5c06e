"""Nsight Systems SQLite exports: the same timeline as a Kineto trace, read from the tables that are there.

Source: `nsys export --type sqlite`, schema 3.x (2020 to 2026). Every table and column is optional.
Tables that hold the environment of the profiled process (META_DATA_CAPTURE, TARGET_INFO_SYSTEM_ENV) are not read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from diagnose.document import Document, Span
from diagnose.errors import ParseError
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .timeline import COMM, COMPUTE, DEVICE_COPY, HOST_COPY, SYNC_CALLS, Timeline, Verdict, analyse, is_comm
from .timeline_steps import steps

_MAGIC = b"SQLite format 3\x00"
_MAX_ROWS = 5_000_000
_MOST_SECONDS = 120.0  # of queries on one export
_TO_DEVICE, _TO_HOST, _PEER = 1, 2, 10
_PAGEABLE = 0  # ENUM_CUDA_MEM_KIND


class NsysSqlite:
    """SQLite exports of nsys."""

    name = "nsys_sqlite"
    needles: tuple[bytes, ...] = (_MAGIC,)

    def owns(self, doc: Document) -> bool:
        """By the magic number."""
        return doc.head.startswith(_MAGIC)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Shares of the recorded time, by GPU.

        Raises:
            ParseError: it is no SQLite file that can be read.
        """
        if not doc.head.startswith(_MAGIC):
            return
        with TemporaryDirectory() as folder:
            path = Path(folder) / "export.sqlite"
            with path.open("wb") as out:
                for block in doc.chunks():
                    out.write(block)
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as base:
                    base.execute("PRAGMA trusted_schema = OFF")
                    limit = process_time() + _MOST_SECONDS
                    base.set_progress_handler(lambda: process_time() > limit, 100_000)
                    yield from _read(doc, base)
            except sqlite3.DatabaseError as err:
                raise ParseError("nsys_sqlite", f"not a readable SQLite export: {err}") from err


def _columns(base: sqlite3.Connection, table: str) -> set[str]:
    """Columns of a table; none of a view, whose query would be the author's own."""
    kind = base.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return {row[1] for row in base.execute(f"PRAGMA table_info({table})")} if kind == ("table",) else set()


def _select(base: sqlite3.Connection, table: str, wanted: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    """Rows of a table; a column that this export lacks reads as NULL."""
    known = _columns(base, table)
    if not {"start", "end"} <= known:
        return
    fields = ", ".join(f'"{c}"' if c in known else "NULL" for c in wanted)
    yield from base.execute(f"SELECT {fields} FROM {table} ORDER BY start LIMIT {_MAX_ROWS}")  # noqa: S608 (fixed names)


def _num(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _read(doc: Document, base: sqlite3.Connection) -> Iterator[Fact]:
    if "start" not in _columns(base, "CUPTI_ACTIVITY_KIND_KERNEL"):
        return
    names = (
        {int(_num(i)): str(v) for i, v in base.execute("SELECT id, value FROM StringIds")}
        if _columns(base, "StringIds")
        else {}
    )
    launches: dict[tuple[int, int], float] = {}
    costs: list[float] = []
    syncs: list[tuple[float, float]] = []
    graphs = 0
    for start, end, name_id, correlation, thread in _select(
        base, "CUPTI_ACTIVITY_KIND_RUNTIME", ("start", "end", "nameId", "correlationId", "globalTid")
    ):
        name = names.get(int(_num(name_id)), "")
        bare = name.split("_v")[0]
        if "Launch" in name or "Memcpy" in name or "Memset" in name:
            launches[_process(thread), int(_num(correlation))] = _num(start) / 1e3
            if "Launch" in name:
                costs.append((_num(end) - _num(start)) / 1e3)
            graphs += "GraphLaunch" in name
        if bare in SYNC_CALLS or name in SYNC_CALLS:
            syncs.append((_num(start) / 1e3, _num(end) / 1e3))
    inputs = [
        (_num(start) / 1e3, _num(end) / 1e3)
        for start, end, text, text_id in _select(base, "NVTX_EVENTS", ("start", "end", "text", "textId"))
        if end is not None
        and "data" in (label := str(text or names.get(int(_num(text_id)), "")).lower())
        and ("load" in label or label in ("data", "next_data"))
    ]
    lines: dict[int, Timeline] = {}
    totals: dict[int, dict[str, float]] = {}
    pageable: dict[tuple[int, str], int] = {}

    def row(device: object, start: object, end: object, kind: int, process: object, correlation: object) -> Timeline:
        line = lines.setdefault(int(_num(device)), Timeline())
        line.gpu_start.append(_num(start) / 1e3)
        line.gpu_end.append(_num(end) / 1e3)
        line.gpu_kind.append(kind)
        line.gpu_launch.append(launches.get((_process(process), int(_num(correlation))), -1.0))
        return line

    for start, end, device, name_id, correlation, process in _select(
        base, "CUPTI_ACTIVITY_KIND_KERNEL", ("start", "end", "deviceId", "shortName", "correlationId", "globalPid")
    ):
        name = names.get(int(_num(name_id)), "kernel")
        row(device, start, end, COMM if is_comm(name) else COMPUTE, process, correlation)
        mine = totals.setdefault(int(_num(device)), {})
        mine[name] = mine.get(name, 0.0) + (_num(end) - _num(start)) / 1e3
    for start, end, device, kind, src, dst, correlation, process in _select(
        base,
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        ("start", "end", "deviceId", "copyKind", "srcKind", "dstKind", "correlationId", "globalPid"),
    ):
        code = int(_num(kind))
        line = row(
            device,
            start,
            end,
            HOST_COPY if code in (_TO_DEVICE, _TO_HOST) else COMM if code == _PEER else DEVICE_COPY,
            process,
            correlation,
        )
        if code == _TO_DEVICE:
            line.to_device.add(len(line.gpu_start) - 1)
        side = src if code == _TO_DEVICE else dst
        if code in (_TO_DEVICE, _TO_HOST) and side is not None and int(_num(side)) == _PAGEABLE:
            way = (int(_num(device)), "h2d" if code == _TO_DEVICE else "d2h")
            pageable[way] = pageable.get(way, 0) + 1
    for start, end, device, correlation, process in _select(
        base, "CUPTI_ACTIVITY_KIND_MEMSET", ("start", "end", "deviceId", "correlationId", "globalPid")
    ):
        row(device, start, end, DEVICE_COPY, process, correlation)
    for device, line in sorted(lines.items()):
        line.launch_cost.extend(costs)
        line.syncs, line.inputs = syncs, inputs
        verdict = analyse(line)
        if verdict is not None and verdict.kernels:
            mine_pages = {way: n for (d, way), n in pageable.items() if d == device}
            yield from _facts(doc, device, verdict, totals.get(device, {}), mine_pages, graphs)
            yield from _steps(doc, device, line)


def _process(identifier: object) -> int:
    """globalTid and globalPid agree above their lowest 24 bits."""
    return int(_num(identifier)) >> 24


def _facts(
    doc: Document, device: int, got: Verdict, totals: dict[str, float], pageable: dict[str, int], graphs: int
) -> Iterator[Fact]:
    span = (Span(doc.name, 0, 15, 1, "SQLite format 3"),)

    def fact(signal: str, value: float, unit: str, label: str | None = None) -> Fact:
        return Fact(
            signal,
            round(value, 6),
            unit,
            Subject(gpu=device, label=label),
            span,
            kind="derived",
            formula="reader:nsys_sqlite",
            status=doc.status,
        )

    yield fact("trace.gpu_busy", got.busy, "fraction")
    for kind, share in got.idle.items():
        yield fact(f"trace.idle.{kind}", share, "fraction")
    if got.comm > 0:
        yield fact("trace.comm_share", got.comm, "fraction")
        yield fact("trace.comm_exposed", got.comm_exposed, "fraction")
    yield fact("trace.copy_exposed", got.copy_exposed, "fraction")
    yield fact("trace.graph_launches", graphs, "count")
    for signal, value in (
        ("kernel_median", got.kernel_median),
        ("queue_delay", got.queue_delay),
        ("launch_median", got.launch_median),
    ):
        if value is not None:
            yield fact(f"trace.{signal}", value, "us")
    for way, count in pageable.items():
        yield fact("trace.pageable_copies", count, "count", way)
    whole = sum(totals.values())
    for name, time in sorted(totals.items(), key=lambda kv: -kv[1])[:4]:
        yield fact("trace.kernel_share", time / whole if whole else 0.0, "fraction", name[:80])


def _steps(doc: Document, device: int, line: Timeline) -> Iterator[Fact]:
    span = (Span(doc.name, 0, 15, 1, "SQLite format 3"),)
    for step in steps(line):
        for signal, label, text in step.readings():
            who = Subject(gpu=device, label=label)
            yield Fact(signal, text, None, who, span, kind="derived", formula="reader:nsys_sqlite", status=doc.status)


READERS: list[Reader] = [NsysSqlite()]
