"""An engine's own statistics of its queue: TensorRT-LLM's iteration records, and tables of a load sweep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact, in_cells
from .generic_figures import Figure, cell, header_unit
from .plateau import plateau

# Both generations of names: the C++ log line and the JSON of `/metrics`.
_PAIR = regex(r"^\s*\"(?P<key>[\w ]{4,40})\"\s*:\s*(?P<value>\d{1,15}(?:\.\d{1,20})?)\s*,?\s*$")
_LAID = 4096
_FLOATS = 1e300  # no count and no time is larger; JSON has integers that no float holds
_ACTIVE = ("Active Request Count", "numActiveRequests")
_MOST = ("Max Request Count", "maxNumActiveRequests", "Max Request Count (MRC)")
_QUEUED = ("numQueuedRequests", "Queued Request Count")
_SCHEDULED = ("Scheduled Requests", "numScheduledRequests")
_TOKENS = ("maxNumTokensRuntime",)
_REUSED, _MISSED = ("reusedBlocks",), ("missedBlocks",)
_FEW = 256  # blocks; the share of fewer says nothing
_BATCHING = ("inflightBatchingStats", "kvCacheStats", "staticBatchingStats")


class IterationReader:
    """Requests that are in, that run, and the most that may run."""

    name = "trtllm_iterations"
    needles: tuple[bytes, ...] = (b"Active Request Count", b"numActiveRequests")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The record with the most requests waiting."""
        best: tuple[float, list[Fact]] | None = None
        held: list[tuple[float, Line]] = []
        for at, row in self._rows(doc):
            made = list(_record(doc, at, row))
            waiting = next((float(f.value or 0) for f in made if f.signal == "serving.waiting"), -1.0)
            if made and (best is None or waiting > best[0]):
                best = waiting, made
            if waiting > 0 and (running := _get(row, _SCHEDULED)) is not None and len(held) < _LAID:
                held.append((running[1], at(running[0])))
        if best is not None:
            yield from best[1]
        if (stays := plateau(held)) is not None:
            yield fact(doc, stays[1], "serving.running_stays", stays[0], "count")

    def _rows(self, doc: Document) -> Iterator[tuple[Callable[[str], Line], dict[str, Any]]]:
        """Each record with where its keys stand: in one line, or set out by `jq` over many."""
        laid: list[Line] = []
        for line in doc.lines():
            start = line.text.find("{")
            if start < 0 or not any(b.decode() in line.text for b in self.needles):
                if len(laid) < _LAID and _PAIR.match(line.text):
                    laid.append(line)
                continue
            try:
                rows = json.loads(f"[{line.text[start : line.text.rfind('}') + 1]}]")  # the page holds a list
            except (ValueError, RecursionError):
                doc.lines_skipped += 1
                continue
            yield from ((partial(_same, line), row) for row in rows if isinstance(row, dict))
        found: dict[str, tuple[Line, float]] = {}
        for line in laid:
            hit = _PAIR.match(line.text)
            if hit is None:
                continue
            if hit["key"] in found and hit["key"] in _ACTIVE:  # the next record
                yield partial(_beside, found), {key: value for key, (_, value) in found.items()}
                found = {}
            found.setdefault(hit["key"], (line, float(hit["value"])))
        if found:
            yield partial(_beside, found), {key: value for key, (_, value) in found.items()}


def _same(line: Line, _key: str) -> Line:
    return line


def _beside(found: dict[str, tuple[Line, float]], key: str) -> Line:
    return found[key][0]


def _get(row: dict[str, Any], names: tuple[str, ...]) -> tuple[str, float] | None:
    inner = [row, *(v for k in _BATCHING if isinstance(v := row.get(k), dict))]
    for found in inner:
        for name in names:
            value = found.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _FLOATS:
                return name, float(value)
    return None


def _record(doc: Document, at: Callable[[str], Line], row: dict[str, Any]) -> Iterator[Fact]:
    def fact(signal: str, got: tuple[str, float], label: str | None) -> Fact:
        span = doc.span(at(got[0]), f'"{got[0]}"')
        return Fact(signal, got[1], "count", Subject(label=label), (span,), status=doc.status)

    active, most, running = _get(row, _ACTIVE), _get(row, _MOST), _get(row, _SCHEDULED)
    queued = _get(row, _QUEUED)
    if most is not None:
        yield fact("serving.max_num_seqs", most, "effective")
    if (tokens := _get(row, _TOKENS)) is not None and tokens[1] > 0:
        yield fact("serving.max_batched_tokens", tokens, None)
    reused, missed = _get(row, _REUSED), _get(row, _MISSED)
    if reused is not None and missed is not None and reused[1] + missed[1] >= _FEW:
        a, b = fact("figure", reused, "kv blocks reused"), fact("figure", missed, "kv blocks missed")
        yield Fact(
            "serving.prefix_hit_rate", reused[1] / (reused[1] + missed[1]), "fraction", Subject(label="window"),
            kind="derived", formula="a / (a + b)", inputs=(a, b), status=doc.status,
        )  # fmt: skip
    if running is not None:
        yield fact("serving.running", running, "peak")
    if queued is not None and queued[1] > 0:
        yield fact("serving.waiting", queued, "peak")
    elif active is not None and running is not None and active[1] >= running[1]:
        a, b = fact("serving.in_flight", active, None), fact("serving.running", running, "peak")
        yield Fact(
            "serving.waiting", active[1] - running[1], "count", Subject(label="peak"), kind="derived", formula="a - b",
            inputs=(a, b), status=doc.status,
        )  # fmt: skip


_DRAFTED = regex(r"\"numDraftTokens\"\s*:\s*(\d+)")
_ACCEPTED = regex(r"\"numAcceptedTokens\"\s*:\s*(\d+)")


class DraftReader:
    """Tokens drafted and accepted, of TensorRT-LLM's `specDecodingStats`."""

    name = "trtllm_drafts"
    needles: tuple[bytes, ...] = (b"numDraftTokens",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Share accepted in the record with the most drafted tokens."""
        best: tuple[float, float, Line] | None = None
        for line in doc.lines():
            drafted, accepted = _DRAFTED.search(line.text), _ACCEPTED.search(line.text)
            if drafted and accepted and float(drafted[1]) > (best[0] if best else 0.0):
                best = float(drafted[1]), float(accepted[1]), line
        if best is None or best[0] < 64:
            return
        made = tuple(
            Fact("figure", value, "count", Subject(label=name), (doc.span(best[2]),), status=doc.status)
            for name, value in (("tokens accepted", best[1]), ("tokens drafted", best[0]))
        )
        yield divided("serving.accept_rate", made, "fraction", spans=made[0].spans)


_HEADS = (
    ("offered", r"client|concurren|users?$|streams?|sessions?|in.?flight|offered|并发"),
    ("arrivals", r"^(?:rps|qps|req(?:uest)?s?/s|arrival|请求/秒)"),
    ("running", r"running"),
    ("waiting", r"waiting|pending|queue(?:d|[- ]?req)?(?: ?len\w*)?$|排队"),
    ("kv", r"\bkv\b|cache (?:usage|used)|token usage"),
    ("rate", r"tok|throughput|吞吐|req/s|done|served"),
    ("util", r"util|gpu ?%|sm ?%"),
)  # fmt: skip
_NAMED = tuple((name, regex(pattern, re.IGNORECASE)) for name, pattern in _HEADS)


class LoadTableReader:
    """``clients  running  waiting  kv%  tok/s``: does the number of running requests stop at a fixed value?"""

    name = "load_table"
    needles: tuple[bytes, ...] = (b"unning", b"RUNNING")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the row with the most waiting, and the value at which `running` stays."""
        kinds: list[str] = []
        units: list[str] = []
        rows: list[tuple[Line, dict[str, Figure]]] = []
        for line in excerpt(doc, 1 << 15, 300):
            parts = in_cells(line.text, empty=True)
            named = [next((n for n, p in _NAMED if p.search(c)), "") for c in parts]
            if not kinds:
                if len(parts) >= 3 and {"running", "waiting"} <= set(named) and not any(cell(c) for c in parts):
                    kinds, units = named, [header_unit(c) or ("%" if "%" in c else "") for c in parts]
                continue
            if len(parts) != len(kinds):
                continue
            got = {k: f for k, c, u in zip(kinds, parts, units, strict=True) if k and (f := cell(c, u)) is not None}
            if all(n in got and got[n].unit in (None, "count") for n in ("running", "waiting")):
                rows.append((line, got))
        yield from _swept(doc, rows)


def _swept(doc: Document, rows: list[tuple[Line, dict[str, Figure]]]) -> Iterator[Fact]:
    if len(rows) < 2:
        return

    def fact(signal: str, row: tuple[Line, dict[str, Figure]], key: str, label: str | None = None) -> Fact:
        figure = row[1][key]
        value = figure.value
        unit = figure.unit or "count"
        if key == "kv":
            value, unit = (value / 100 if unit == "count" and value > 1 else value), "fraction"
        return Fact(signal, value, unit, Subject(label=label), (doc.span(row[0], figure.text),), status=doc.status)

    top = max(rows, key=lambda r: r[1]["waiting"].value)
    if top[1]["waiting"].value < 1:
        return
    yield fact("serving.running", top, "running", "peak")
    yield fact("serving.waiting", top, "waiting", "peak")
    if "kv" in top[1]:
        yield fact("serving.kv_usage", top, "kv", "peak")
    for a, b in pairwise(rows):
        same = a[1]["running"].value == b[1]["running"].value > 0
        if same and b[1]["waiting"].value > 0 and a[1]["waiting"].value != b[1]["waiting"].value:
            yield fact("serving.running_stays", b, "running")
            return


_MIXED = regex(
    r"prefill\D{0,12}\d[\d,]*\D{1,12}?\+?\s*decod\w*\D{0,8}\d+.{0,40}?(?<![\d.])(\d[\d,]*(?:\.\d+)?) ?ms", re.IGNORECASE
)
_ALONE = regex(r"^(?!.*prefill).*?decod\w*\D{0,8}\d+.{0,40}?(?<![\d.])(\d[\d,]*(?:\.\d+)?) ?ms", re.IGNORECASE)


class StepsReader:
    """Steps that hold a prefill beside steps that only decode: how much later do the tokens come?"""

    name = "mixed_steps"
    needles: tuple[bytes, ...] = (b"refill",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The longest step of both kinds."""
        best: dict[bool, tuple[float, Line, str]] = {}
        for line in excerpt(doc, 1 << 15, 300):
            for mixed, pattern in ((True, _MIXED), (False, _ALONE)):
                hit = pattern.search(line.text)
                if hit is not None:
                    ms = float(hit[1].replace(",", ""))
                    if mixed not in best or ms > best[mixed][0]:
                        best[mixed] = (ms, line, hit[1])
        if len(best) < 2 or best[False][0] <= 0 or best[True][0] <= best[False][0]:
            return
        a, b = (
            Fact(
                "figure",
                best[k][0],
                "ms",
                Subject(label=f"itl|{name}"),
                (doc.span(best[k][1], best[k][2]),),
                status=doc.status,
            )
            for k, name in ((True, "step with prefill"), (False, "decode only"))
        )
        yield divided("serving.decode_stall", (a, b), subject=Subject(label="step with prefill"))


_CLOCK = regex(r"^\s*(\w+)\s*=\s*time\.(?:time|perf_counter|monotonic)\(\)")
_LOADS = regex(r"\bLLM\(|from_pretrained\(|\bEngine\(|AsyncLLM|load_model\(|create_engine|\bLlama\(|torch\.compile\(")


class TimedCodeReader:
    """A snippet that starts its clock before the model is loaded."""

    name = "timed_code"
    needles: tuple[bytes, ...] = (b"time.time()", b"perf_counter()", b"monotonic()")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The line that loads, if the clock runs meanwhile and its time divides something."""
        started: dict[str, Line | None] = {}
        for line in excerpt(doc, 1 << 15, 300):
            hit = _CLOCK.match(line.text)
            if hit is not None:
                started[hit[1]] = None
            elif _LOADS.search(line.text):
                started = {name: load or line for name, load in started.items()}
            else:
                for name, load in started.items():
                    if load is not None and re.search(rf"/\s*\(?.*-\s*{re.escape(name)}\b", line.text):
                        spans = (doc.span(load), doc.span(line))
                        yield Fact(
                            "serving.timed_load", load.text.strip()[:120], None, Subject(), spans, status=doc.status
                        )
                        return


_ACCEPTED = regex(r"accept", re.IGNORECASE)
_OF = regex(r"^(\d+(?:\.\d+)?)\s*(?:/|of)\s*(\d+(?:\.\d+)?)$")


class AcceptedReader:
    """A table with a column ``accepted/drafted``: the lowest share of drafts that were taken."""

    name = "accepted_table"
    needles: tuple[bytes, ...] = (b"ccept",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One rate."""
        column, best = -1, None
        for line in excerpt(doc, 1 << 15, 300):
            parts = in_cells(line.text, empty=True)
            named = [k for k, p in enumerate(parts) if _ACCEPTED.search(p) and "draft" in line.text.lower()]
            if named and not any(_OF.match(p) for p in parts):
                column = named[0]
            elif 0 <= column < len(parts) and (hit := _OF.match(parts[column])) and float(hit[2]) > 0:
                rate = float(hit[1]) / float(hit[2])
                if best is None or rate < best[0]:
                    best = (rate, line, hit)
        if best is None or best[0] > 1:
            return
        rate, line, hit = best
        span = doc.span(line, hit[0])
        a, b = (
            Fact("figure", float(hit[k]), "count", Subject(label=n), (span,), status=doc.status)
            for k, n in ((1, "accepted"), (2, "drafted"))
        )
        yield divided("serving.accept_rate", (a, b), "fraction", Subject(label="lowest"), spans=(span,))


READERS: list[Reader] = [
    IterationReader(),
    LoadTableReader(),
    StepsReader(),
    TimedCodeReader(),
    AcceptedReader(),
    DraftReader(),
]
