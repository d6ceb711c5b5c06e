"""Load generators whose tables `serving_bench` does not hold: aiperf and genai-perf CSV, guidellm, llmperf.

Source: aiperf and genai-perf CSV exporters; guidellm 0.2 to 0.5 console tables (`benchmark/outputs/console.py`) and its
JSON; llmperf `token_benchmark_ray.py`. Figures keep the meaning of their tool; the quoted row names the metric.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import fact, whole

_METRICS = tuple(
    (regex(pattern, re.IGNORECASE), signal)
    for pattern, signal in (
        (r"time to first (?:output )?token|\bTTFT", "ttft"),
        (r"inter[- ]token latency|\bITL", "itl"),
        (r"time per output token|\bTPOT", "tpot"),
        (r"request latency|req latency|end[_ -]to[_ -]end", "e2e"),
    )
)
_STATS = {
    "avg": "mean",
    "mean": "mean",
    "mdn": "median",
    "med": "median",
    "median": "median",
    "std": "std",
    "stddev": "std",
    "min": "min",
    "max": "max",
}
_PLAIN = (
    (regex(r"^output token throughput \(tok", re.I), "output_tput", "tokens/s"),
    (regex(r"^request throughput \(", re.I), "request_tput", "req/s"),
    (regex(r"^request count", re.I), "prompts", "count"),
    (regex(r"^(?:error request count|number of errored requests)", re.I), "failed", "count"),
)
_UNIT = regex(r"\((ms|s|sec|seconds)\)", re.IGNORECASE)


def _metric(text: str) -> str | None:
    return next((name for pattern, name in _METRICS if pattern.search(text)), None)


def _stat(text: str) -> str | None:
    low = text.strip().lower()
    return _STATS.get(low) or (low if re.fullmatch(r"p\d{2}(?:\.\d+)?", low) else None)


_FIGURE = regex(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?|-?\.\d+", re.ASCII)


def _number(text: str) -> float | None:
    hit = _FIGURE.fullmatch(text.strip())
    return float(hit.group().replace(",", "")) if hit is not None else None


class PerfCsv:
    """`profile_export*.csv` of aiperf and genai-perf: a metric a row, statistics as columns."""

    name = "aiperf_csv"
    needles: tuple[bytes, ...] = (b"Metric,avg,", b"Metric,Value")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A fact a statistic."""
        stats: list[str | None] = []
        for line in doc.lines():
            if line.text.startswith("Metric,"):
                stats = [_stat(c) for c in line.text.split(",")[1:]]
                continue
            try:
                row = next(csv.reader([line.text], strict=True), []) if stats else []
            except csv.Error:  # a stray quote: which figure is in which column, nobody knows
                doc.lines_skipped += 1
                continue
            if len(row) < 2:
                continue
            metric, unit = _metric(row[0]), _UNIT.search(row[0])
            if metric is not None and "second" not in row[0].lower().split("(")[0]:
                scale = 1000.0 if unit is not None and unit[1].lower().startswith("s") else 1.0
                for stat, cell in zip(stats, row[1:], strict=False):
                    if stat is not None and (value := _number(cell)) is not None:
                        yield fact(doc, line, f"serving.client.{metric}", value * scale, "ms", label=stat)
            for pattern, signal, plain_unit in _PLAIN:
                if pattern.search(row[0]) and (value := _number(row[1])) is not None:
                    yield fact(doc, line, f"serving.client.{signal}", value, plain_unit)


@dataclass(frozen=True)
class _Column:
    metric: str  # empty: none that we know
    stat: str
    scale: float


class GuideLlm:
    """guidellm's console tables: metric groups over statistics, a row a strategy or rate."""

    name = "guidellm"
    needles: tuple[bytes, ...] = (b"TTFT", b"Req Latency", b"Request Latency")
    _rule = regex(r"^[\s|=+-]+$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Columns are found by their place under the group heads, since groups span several of them."""
        heads: list[str] = []
        columns: list[_Column] = []
        for line in doc.lines():
            text = line.text
            if "|" not in text:
                heads, columns = [], []
                continue
            if self._rule.match(text):
                if heads and not columns:
                    columns = _columns(heads)
                    heads = []
                continue
            if columns:
                yield from self._row(doc, line, columns)
            else:
                heads.append(text)

    @staticmethod
    def _row(doc: Document, line: Line, columns: list[_Column]) -> Iterator[Fact]:
        name = line.text.strip().strip("|").split("|")[0].strip()
        cells = _cells(line.text)
        for number, column in enumerate(columns):
            if not column.metric or number >= len(cells):
                continue
            value = _number(cells[number])
            if value is not None:
                label = f"{column.stat} {name}".strip()
                yield fact(doc, line, f"serving.client.{column.metric}", value * column.scale, "ms", label=label)


def _cells(text: str) -> list[str]:
    """Cells after the first column; the outer bars are no cells."""
    return [c.strip() for c in text.strip().removeprefix("|").removesuffix("|").split("|")][1:]


def _columns(heads: list[str]) -> list[_Column]:
    """One entry for each column after the first, with an empty metric where we know none."""
    stats_row = next((h for h in reversed(heads) if sum(_stat(c) is not None for c in _cells(h)) >= 4), None)
    if stats_row is None:
        return []
    groups: list[str] = []
    for row in heads[: heads.index(stats_row)]:
        spans = _spans(row)
        groups = [f"{a} {b}".strip() for a, b in zip(groups, spans, strict=False)] if groups else spans
    out = []
    for number, cell in enumerate(_cells(stats_row)):
        group = groups[min(number, len(groups) - 1)] if groups else ""
        metric, stat = _metric(group), _stat(cell)
        seconds = re.search(r"\bsec\b|\(sec|\(s\)|\bs\b", group, re.IGNORECASE) is not None and "ms" not in group
        known = metric is not None and stat is not None
        out.append(_Column(metric if known and metric else "", stat or "", 1000.0 if seconds else 1.0))
    return out if any(c.metric for c in out) else []


def _spans(row: str) -> list[str]:
    """The group name of each column after the first: `A |||` stands over three of them."""
    body = row.strip().removeprefix("|")
    parts = re.findall(r"([^|]*)(\|+|$)", body)
    out: list[str] = []
    for text, bars in parts:
        if text.strip() or bars:
            out.extend([text.strip()] * max(1, len(bars)))
    return out[1:]


class GuideLlmJson:
    """guidellm's `benchmarks.json`: distributions of the successful requests of each benchmark."""

    name = "guidellm_json"
    needles: tuple[bytes, ...] = (b'"time_to_first_token_ms"',)
    _keys: ClassVar = {
        "time_to_first_token_ms": ("ttft", 1.0),
        "inter_token_latency_ms": ("itl", 1.0),
        "time_per_output_token_ms": ("tpot", 1.0),
        "request_latency": ("e2e", 1000.0),
    }

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The figure itself is quoted: it is looked for behind its key, in the order of the file."""
        if doc.size > 256 << 20:
            return
        data = whole(doc)
        benchmarks = data.get("benchmarks") if data is not None else None
        for number, one in enumerate(benchmarks if isinstance(benchmarks, list) else []):
            metrics = one.get("metrics") if isinstance(one, dict) else None
            for key, (metric, scale) in self._keys.items():
                found = (metrics or {}).get(key)
                part = (found.get("successful") or found) if isinstance(found, dict) else {}
                stats = {**part, **(part.get("percentiles") or {})} if isinstance(part, dict) else {}
                for stat in ("mean", "median", "p90", "p95", "p99"):
                    if isinstance(stats.get(stat), int | float):
                        span = self._span(doc, key, number, stat, stats[stat])
                        if span is not None:
                            label = f"{stat} #{number + 1}" if len(benchmarks or ()) > 1 else stat
                            yield Fact(
                                f"serving.client.{metric}",
                                float(stats[stat]) * scale,
                                "ms",
                                Subject(label=label),
                                (span,),
                                status=doc.status,
                            )

    @staticmethod
    def _span(doc: Document, key: str, number: int, stat: str, value: float) -> Span | None:
        at = -1
        for _ in range(number + 1):
            at = doc.data.find(f'"{key}"'.encode(), at + 1)
            if at < 0:
                return None
        hit = re.compile(rf'"{stat}"\s*:\s*{re.escape(json.dumps(value))}\b'.encode()).search(doc.data, at)
        if hit is None:
            return None
        return doc.bytes_span(hit.start(), hit.end(), doc.data.count(b"\n", 0, hit.start()) + 1)


class LlmPerf:
    """llmperf's summary: a metric name alone on a line, its statistics below."""

    name = "llmperf"
    needles: tuple[bytes, ...] = (
        b"inter_token_latency_s",
        b"ttft_s",
        b"end_to_end_latency_s",
        b"Overall Output Throughput",
    )
    _head = regex(r"^\s*(inter_token_latency_s|ttft_s|end_to_end_latency_s|\w+)\s*$")
    _row = regex(r"^\s+(p\d\d|mean|min|max|stddev)\s*=\s*(\d+(?:\.\d+)?)\s*$")
    _total = regex(
        r"^\W*(Overall Output Throughput|Number Of Errored Requests|Number Of Completed Requests):\s*(\d+(?:\.\d+)?)"
    )
    _json = regex(
        r'"results_(inter_token_latency_s|ttft_s|end_to_end_latency_s)_(?:quantiles_)?(p\d\d|mean|min|max|stddev)"\s*:\s*(\d+(?:\.\d+)?)'
    )
    _names: ClassVar = {"inter_token_latency_s": "itl", "ttft_s": "ttft", "end_to_end_latency_s": "e2e"}
    _totals: ClassVar = {
        "Overall Output Throughput": ("output_tput", "tokens/s"),
        "Number Of Errored Requests": ("failed", "count"),
        "Number Of Completed Requests": ("prompts", "count"),
    }

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Seconds become milliseconds."""
        metric: str | None = None
        for line in doc.lines():
            if (row := self._row.match(line.text)) is not None:
                if metric is not None:
                    yield fact(doc, line, f"serving.client.{metric}", float(row[2]) * 1000, "ms", label=_stat(row[1]))
                continue
            for hit in self._json.finditer(line.text):
                yield fact(
                    doc,
                    line,
                    f"serving.client.{self._names[hit[1]]}",
                    float(hit[3]) * 1000,
                    "ms",
                    around=hit[0],
                    label=_stat(hit[2]),
                )
            if (head := self._head.match(line.text)) is not None:
                metric = self._names.get(head[1])
            if (total := self._total.match(line.text)) is not None:
                signal, unit = self._totals[total[1]]
                yield fact(doc, line, f"serving.client.{signal}", float(total[2]), unit)


READERS: list[Reader] = [PerfCsv(), GuideLlm(), GuideLlmJson(), LlmPerf()]
