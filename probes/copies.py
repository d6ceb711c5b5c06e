"""Copy and kernel benchmarks: bandwidthTest, nvbandwidth, p2pBandwidthLatencyTest, JSON lines of micro benchmarks.

Source: NVIDIA cuda-samples (bandwidthTest, p2pBandwidthLatencyTest), NVIDIA/nvbandwidth 0.8 (`output.cpp`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import divided, fact, mapping

_DIRECTION = (
    ("h2d", r"host[ _-]*to[ _-]*device|\bh2d\b|htod"),
    ("d2h", r"device[ _-]*to[ _-]*host|\bd2h\b|dtoh"),
    ("d2d", r"device[ _-]*to[ _-]*device|\bd2d\b|dtod"),
)


def direction(text: str) -> str | None:
    """``h2d``, ``d2h``, ``d2d`` or None."""
    return next((name for name, pattern in _DIRECTION if re.search(pattern, text, re.IGNORECASE)), None)


class BandwidthTest:
    """The CUDA sample bandwidthTest: pinned and pageable copies by transfer size."""

    name = "bandwidth_test"
    needles: tuple[bytes, ...] = (b"Memory Transfers", b"bandwidthTest")
    _row = regex(r"^\s*(\d+)\s+(\d+(?:\.\d+)?)\s*$")
    _csv = regex(
        r"bandwidthTest-(\w+)-(Pinned|Paged|Pageable), Bandwidth = (\d+(?:\.\d+)?) (MB/s|GB/s).*?Size = (\d+) bytes",
        re.IGNORECASE,
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a row."""
        way, kind, unit = "", "", "GB/s"
        made: list[Fact] = []
        for line in doc.lines():
            text = line.text
            way = direction(text) or way if "andwidth" in text else way
            if (hit := re.search(r"(PINNED|PAGEABLE) Memory Transfers", text)) is not None:
                kind = hit.group(1).lower()
            if (head := re.search(r"Bandwidth\((MB/s|GB/s)\)", text)) is not None:
                unit = head.group(1)
            csv = self._csv.search(text)
            row = self._row.match(text) if way and kind else None
            if csv is not None:
                got = canonical(float(csv.group(3)), csv.group(4))
                kind_seen = "pinned" if csv.group(2).lower() == "pinned" else "pageable"
                label = f"{direction(csv.group(1)) or csv.group(1).lower()} {kind_seen} {csv.group(5)} B"
            elif row is not None:
                got, label = canonical(float(row.group(2)), unit), f"{way} {kind} {row.group(1)} B"
            else:
                continue
            if got is not None:
                made.append(fact(doc, line, "copy.bandwidth", got[0], got[1], label=label))
        yield from made[:40]
        yield from pinned_gain(made)


class GpuTrace:
    """Rows of nvprof's or nsys's GPU trace that give rate and memory kinds of a copy."""

    name = "gpu_trace"
    needles: tuple[bytes, ...] = (b"Pageable", b"Pinned")
    _row = regex(r"(\d+(?:\.\d+)?)\s?(GB/s|MB/s|GiB/s|MiB/s)\s+(Pageable|Pinned|Device)\s+(Pageable|Pinned|Device)")
    _kineto = regex(
        r"Memcpy (HtoD|DtoH) \((Pageable|Pinned|Device) -> (Pageable|Pinned|Device)\).{0,80}?(\d+(?:\.\d+)?)\s?(GB/s|MB/s)"  # noqa: E501
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """First copies of each kind."""
        kept: dict[str, list[Fact]] = {}
        for line in doc.lines():
            text = line.text
            if "Page" not in text and "Pinned" not in text:
                continue
            if (hit := self._row.search(text)) is not None:
                rate, unit, src, dst = hit.groups()
            elif (hit := self._kineto.search(text)) is not None:
                _, src, dst, rate, unit = hit.groups()
            else:
                continue
            got = canonical(float(rate), unit)
            if got is None or {src, dst} == {"Device"}:
                continue
            label = f"{'d2h' if src == 'Device' else 'h2d'} {(dst if src == 'Device' else src).lower()}"
            kept.setdefault(label, []).append(fact(doc, line, "copy.bandwidth", got[0], got[1], label=label))
        for facts in kept.values():
            yield from facts[:2]


class Matrices:
    """Matrices of nvbandwidth and p2pBandwidthLatencyTest."""

    name = "p2p_matrix"
    needles: tuple[bytes, ...] = (b"D\\D", b"memcpy_ce", b"memcpy_sm", b"bandwidth (GB/s)", b"GPU\\CPU")
    _title = regex(r"memcpy (?:CE|SM) |Matrix|P2P Connectivity|bandwidth \(GB/s\)|Running \w+", re.IGNORECASE)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A fact a cell; diagonal and N/A left out."""
        title, columns = "", 0
        for line in doc.lines():
            text = line.text
            if self._title.search(text):
                title, columns = (text.strip() if "Running" not in text or not title else title), 0
                continue
            tokens = text.replace("D\\D", " ").replace("GPU\\CPU", " ").replace("CPU", " ").replace("GPU", " ").split()
            if not tokens or not title:
                continue
            if columns == 0 and tokens == [str(i) for i in range(len(tokens))]:
                columns = len(tokens)
                continue
            if columns and len(tokens) == columns + 1 and tokens[0].isdecimal():
                yield from self._row(doc, line, title, int(tokens[0]), tokens[1:])
            elif columns and not tokens[0][:1].isdecimal():
                title = title if "SUM" not in text else ""

    @staticmethod
    def _row(doc: Document, line: Line, title: str, row: int, cells: list[str]) -> Iterator[Fact]:
        span = (doc.span(line),)
        lower = title.lower()
        for column, cell in enumerate(cells):
            try:
                value = float(cell)
            except (ValueError, RecursionError):
                continue
            if "connectivity" in lower:
                if row != column:
                    yield Fact(
                        "p2p.can_access", value == 1, None, Subject(gpu=row, peer=column), span, status=doc.status
                    )
            elif "cpu" in lower and "latency" not in lower:
                way = (
                    "h2d"
                    if re.search(r"cpu\(row\) *->|host_to_device", lower)
                    else "d2h"
                    if re.search(r"-> *cpu|cpu\(row\) *<-|device_to_host", lower)
                    else None
                )
                if way and value:
                    yield Fact(
                        "copy.bandwidth",
                        value,
                        "GB/s",
                        Subject(gpu=column, label=f"{way} pinned"),
                        span,
                        status=doc.status,
                    )
            elif row != column and value:
                mode = "bidirectional" if "bidirectional" in lower else "unidirectional"
                state = "disabled" if "disabled" in lower else "enabled"
                latency = "latency" in lower
                yield Fact(
                    "p2p.latency" if latency else "p2p.bandwidth",
                    value,
                    "us" if latency else "GB/s",
                    Subject(gpu=row, peer=column, label=f"{mode} p2p {state}"),
                    span,
                    status=doc.status,
                )


class MicroLines:
    """JSON lines of copy and kernel micro benchmarks."""

    name = "micro_bench"
    needles: tuple[bytes, ...] = (b'"gb_s"', b'"gb_per_s"', b'"gflop_per_s"', b'"tflop_s"', b'"both_pageable_ms"')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a line and figure."""
        made: list[Fact] = []
        if doc.size > 4 << 20:
            return
        for line in doc.lines():
            if not line.text.lstrip().startswith("{"):
                continue
            row = mapping(doc, line.text)
            if row is not None:
                made.extend(self._facts(doc, line, row))
        yield from made
        yield from pinned_gain(made)

    @staticmethod
    def _facts(doc: Document, line: Line, row: dict[str, object]) -> Iterator[Fact]:
        spans = (doc.span(line),)

        def num(key: str) -> float | None:
            value = row.get(key)
            return (
                float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
            )

        kind, way = str(row.get("kind", "")).lower(), str(row.get("dir", "")).lower()
        rate = num("gb_s") or num("gb_per_s") or num("bandwidth_gb_s")
        peer = re.fullmatch(r"(\d+)(?:to|->|_)(\d+)", way)
        if rate is not None and peer is not None:
            yield Fact(
                "p2p.bandwidth",
                rate,
                "GB/s",
                Subject(gpu=int(peer.group(1)), peer=int(peer.group(2)), label="unidirectional p2p enabled"),
                spans,
                status=doc.status,
            )
            if isinstance(row.get("can_access"), bool):
                yield Fact(
                    "p2p.can_access",
                    bool(row["can_access"]),
                    None,
                    Subject(gpu=int(peer.group(1)), peer=int(peer.group(2))),
                    spans,
                    status=doc.status,
                )
        elif rate is not None and kind and way:
            size = (
                f" {row['mib']:g} MiB"
                if isinstance(row.get("mib"), (int, float))
                else f" {row['bytes']} B"
                if "bytes" in row
                else ""
            )
            yield Fact("copy.bandwidth", rate, "GB/s", Subject(label=f"{way} {kind}{size}"), spans, status=doc.status)
        elif "kernel" in row:
            label = Subject(label=str(row["kernel"])[:60])
            if rate is not None and rate > 5:
                yield Fact("kernel.bandwidth", rate, "GB/s", label, spans, status=doc.status)
            if (flops := num("gflop_per_s")) is not None:
                yield Fact("kernel.flops", flops / 1e3, "TFLOP/s", label, spans, status=doc.status)
        elif (flops := num("tflop_s")) is not None:
            yield Fact("kernel.flops", flops, "TFLOP/s", Subject(label=kind or "gemm"), spans, status=doc.status)
        if kind == "overlap":
            for key in ("compute_ms", "copy_pinned_ms", "both_pinned_ms", "both_pageable_ms"):
                if (value := num(key)) is not None:
                    yield Fact(
                        "copy.time", value * 1e3, "us", Subject(label=key.removesuffix("_ms")), spans, status=doc.status
                    )


def pinned_gain(made: list[Fact]) -> Iterator[Fact]:
    """Pinned over pageable rate, for each direction at its largest common size."""
    by_label = {f.subject.label or "": f for f in made if f.signal == "copy.bandwidth"}
    done: set[str] = set()
    for label in reversed(list(by_label)):
        way = label.split(" ")[0]
        if " pinned" not in label or way in done:
            continue
        other = by_label.get(label.replace(" pinned", " pageable")) or by_label.get(label.replace(" pinned", " paged"))
        if other is not None and float(other.value or 0) > 0:
            done.add(way)
            fast = by_label[label]
            yield divided(
                "copy.pinned_gain",
                (fast, other),
                subject=Subject(label=label.replace(" pinned", "")),
                spans=other.spans,
            )


READERS: list[Reader] = [BandwidthTest(), GpuTrace(), Matrices(), MicroLines()]
