"""Request traces: one request a line, as JSON or CSV, with times in columns named by whoever wrote them.

The shape over the requests is what counts: TTFT that grows with the index is a queue, only the first is a cold
start, and queue time beside TTFT says which part is waiting.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, fact

_NAMES = (
    ("ttft", regex(r"^(?:time_?to_?first_?token|ttft|first_token(?:_latency|_time)?)$")),
    (
        "queue",
        regex(r"^(?:queue(?:d|_?time|_?wait|ing)?|time_in_queue|wait(?:ing)?(?:_time)?|request_queue_time)$"),
    ),
    ("prefill", regex(r"^prefill(?:_time|_latency)?$")),
    ("tpot", regex(r"^(?:tpot|time_per_output_token|decode_per_token)$")),
    ("itl", regex(r"^(?:itl|inter_token_latency)$")),
    ("e2e", regex(r"^(?:e2e(?:_latency)?|request_latency|total(?:_time|_latency)?|latency)$")),
)
_SUFFIX = regex(r"(?:_|\b)(ms|s|sec|secs|seconds|millis)$|\((ms|s)\)$|(Ms)$")
_LEAST = 5  # requests; fewer are a table that the generic reader compares
_SIGNAL = {"queue": "serving.server.queue", "prefill": "serving.server.prefill"}


def column(name: str) -> tuple[str, float | None] | None:
    """What a column is, and what makes it milliseconds; None for the factor where the name has no unit."""
    name = name.strip().strip('"')
    unit = _SUFFIX.search(name)
    stem = (
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name[: unit.start()] if unit else name)
        .lower()
        .strip("_ ")
        .replace(" ", "_")
    )
    what = next((key for key, pattern in _NAMES if pattern.match(stem)), None)
    if what is None:
        return None
    word = next((g for g in unit.groups() if g), "") if unit else ""
    return what, None if not word else (1.0 if word.lower() in ("ms", "millis") else 1000.0)


@dataclass
class _Trace:
    """Readings of the requests in order of their lines."""

    times: dict[str, list[tuple[float, Line]]] = field(default_factory=dict)
    scale: dict[str, float | None] = field(default_factory=dict)

    def add(self, name: str, value: object, line: Line) -> None:
        known = column(name)
        if known is None or isinstance(value, bool):
            return
        try:
            figure = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return
        self.scale.setdefault(known[0], known[1])
        self.times.setdefault(known[0], []).append((figure, line))


_MOST = 64 << 20


def _read(doc: Document) -> _Trace:
    """All readings of a document's requests."""
    trace = _Trace()
    head: list[str] = []
    for line in doc.lines():
        text = line.text.strip()
        if text.startswith("{") and text.endswith(("}", "},")):
            try:
                row = json.loads(text.rstrip(","))
            except (ValueError, RecursionError):
                doc.lines_skipped += 1
                continue
            for key, value in row.items() if isinstance(row, dict) else ():
                trace.add(key, value, line)
        elif head and text.count(",") == len(head) - 1:
            for key, value in zip(head, next(csv.reader([text])), strict=False):
                trace.add(key, value, line)
        elif text.count(",") >= 2 and sum(column(c) is not None for c in text.split(",")) >= 2:
            head = text.split(",")
        else:
            head = head if not text else []
    return trace


class RequestTrace:
    """Means, medians and tails of a trace, growth over the index, and the share of the queue."""

    name = "request_trace"
    needles: tuple[bytes, ...] = (b"ttft", b"TTFT", b"queue", b"first_token", b"prefill_time", b"firstToken")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """JSON lines, or CSV under a head that names two of the columns."""
        if doc.size <= _MOST:
            yield from self._facts(doc, _read(doc))

    def requests(self, doc: Document) -> list[dict[str, float]]:
        """Times of every single request, in ms."""
        return requests(doc) if doc.size <= _MOST else []

    @staticmethod
    def _facts(doc: Document, trace: _Trace) -> Iterator[Fact]:
        summary: dict[str, Fact] = {}
        for what, readings in trace.times.items():
            if len(readings) < _LEAST:
                continue
            scale = _scale(trace, what)
            signal = _SIGNAL.get(what, f"serving.client.{what}")
            ordered = sorted(readings, key=lambda r: r[0])
            for label, at in (("median", len(ordered) // 2), ("max", len(ordered) - 1)):
                value, line = ordered[at]
                made = fact(doc, line, signal, round(value * scale, 6), "ms", label=label)
                summary[f"{what} {label}"] = made
                yield made
        ttft, queue = summary.get("ttft median"), summary.get("queue median")
        if ttft is not None and queue is not None and ttft.value:
            share = float(queue.value or 0) / float(ttft.value)
            if share <= 1.2:
                yield divided(
                    "serving.queue_share", (queue, ttft), "fraction", Subject(label="trace"), spans=queue.spans
                )
        yield from _tail(doc, trace)
        times = [v for v, _ in trace.times.get("ttft", [])]
        if len(times) < 8 or min(times) <= 0 or math.isinf(max(times)):
            return
        span = (doc.span(trace.times["ttft"][0][1]), doc.span(trace.times["ttft"][-1][1]))
        fifth, middle = max(2, len(times) // 5), statistics.median(times)
        for signal, number, unit in (
            ("ttft_growth", statistics.median(times[-fifth:]) / statistics.median(times[:fifth]), "count"),
            ("first_request", times[0] / middle, "count"),
            ("ttft_spread", statistics.pstdev(times) / statistics.fmean(times), "fraction"),
        ):
            yield Fact(
                f"serving.client.{signal}",
                round(number, 3),
                unit,
                Subject(),
                span,
                kind="derived",
                formula="reader:request_trace",
                status=doc.status,
            )


_TAIL_OF = 20  # requests; the slowest tenth of fewer is one request


def _scale(trace: _Trace, what: str) -> float:
    """What makes a column milliseconds: nobody waits 50 s for a tenth of all tokens, so small bare figures are s."""
    scale = trace.scale.get(what)
    if scale is not None:
        return scale
    return 1000.0 if max((v for v, _ in trace.times.get(what, [])), default=0.0) < 50 else 1.0


def requests(doc: Document) -> list[dict[str, float]]:
    """Times of every single request of a trace, in ms; what a goodput is counted from."""
    trace = _read(doc)
    scales = {what: _scale(trace, what) for what in trace.times}
    rows: dict[int, dict[str, float]] = {}
    for what, readings in trace.times.items():
        for value, line in readings:
            rows.setdefault(line.number, {})[what] = value * scales[what]
    return [rows[number] for number in sorted(rows)]


def _tail(doc: Document, trace: _Trace) -> Iterator[Fact]:
    """Means over the slowest tenth of the requests, by TTFT: of the same requests, so their stages add up."""
    ttft = trace.times.get("ttft", [])
    if len(ttft) < _TAIL_OF:
        return
    slow = sorted(ttft, key=lambda r: r[0])[-(len(ttft) // 10) :]
    lines = {line.number for _, line in slow}
    for what in ("ttft", "queue", "prefill"):
        values = [v for v, line in trace.times.get(what, []) if line.number in lines]
        if len(values) == len(slow):
            yield Fact(
                "serving.tail", statistics.fmean(values) * _scale(trace, what), "ms", Subject(label=what),
                (doc.span(slow[0][1]), doc.span(slow[-1][1])), kind="derived", formula="reader:request_trace",
                count=len(slow), status=doc.status,
            )  # fmt: skip


READERS: list[Reader] = [RequestTrace()]
