"""When things happen in a KV transfer: events of a request, completion seen by polling, pairs near and far."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount, divided, excerpt, fact, time_of_day

_DURATION = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(ms|us|µs|s|sec|seconds|毫秒|秒)(?![\w/])")
_BYTES = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*([KMG]i?B)\b(?!/s)", re.I)
_HEAD_MS = regex(r"[(（\[,]\s*(ms|us|s|毫秒)\b[^)）\]]{0,24}[)）\]]|\b(?:in|单位)\s*[:：]?\s*(ms|us|毫秒)\b")
_NUMBER = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?![\w.]*[A-Za-z_])")
_FACTOR = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "毫秒": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3, "秒": 1e3}
_MOST_LINES = 400  # such tables are typed; a long text is a log with readers of its own


def _short(doc: Document) -> list[Line]:
    lines = excerpt(doc, 1 << 16)
    return lines if len(lines) <= _MOST_LINES else []


# --- completion

_POLLED = regex(
    r"check_xfer_state|get_?xfer_?status|check_(?:remote_)?(?:status|xfer\w*)|get_(?:new_)?notifs|get_finished"
    r"|\bpoll\w*\(|(?:xfer|transfer|handle|kv|recv|load)\w*\.?_?(?:done|is_done|ready|complete\w*|finished|status)\b"
    r"|is_(?:done|complete\w*|finished)\(|getXferStatus|KVPoll|\b(?:DONE|PROC)\b",
    re.I,
)
_MOVING = regex(r"\bkv|xfer|transfer|nixl|mooncake|notif|\bpoll|传输|descriptor|runnable|handoff|migrat", re.I)
_SLEEP = regex(
    r"sleep\(\s*(?:std::chrono::)?(?:(milliseconds|microseconds|seconds)\()?(\d*\.?\d+)"
    r"|sleep_for\(\s*(?:std::chrono::)?(milliseconds|microseconds|seconds)[({]\s*(\d*\.?\d+)|\busleep\(\s*(\d+)"
    r"|sleep_for\(\s*(\d+)(ms|us|s)"
)
_INTERVAL = regex(
    r"\b(?:\w*poll\w*|\w*completion\w*|notif\w*|check)[_\- .]?(?:interval|period|every|sleep|delay|tick)\w*?"
    r"(_?(?:ms|us|s|sec|seconds))?\b\W{1,6}(\d*\.?\d+)\s*(ms|us|s|sec|seconds)?\b",
    re.I,
)
_PERIODS = (1000.0, 500.0, 250.0, 200.0, 100.0, 50.0, 40.0, 30.0, 25.0, 20.0, 10.0, 5.0)


def _sleep_ms(hit: re.Match[str]) -> float:
    unit, plain, chrono, amount_, micro, short, suffix = hit.groups()
    if micro:
        return float(micro) / 1e3
    if short:
        return float(short) * _FACTOR[suffix]
    word = unit or chrono
    scale = {"milliseconds": 1.0, "microseconds": 1e-3, "seconds": 1e3, None: 1e3}[word]
    return float(plain or amount_) * scale


class CompletionReader:
    """A loop that asks now and then whether a transfer is done, and durations that end on its ticks."""

    name = "kv_completion"
    needles = (b"sleep", b"interval", b"period", b"ms", "毫秒".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        lines = _short(doc)
        yield from self._loops(doc, lines)
        rows = list(self._rows(lines)) if any(_MOVING.search(line.text) for line in lines) else []
        if len(rows) >= 3:
            yield from self._ticks(doc, rows)

    @staticmethod
    def _loops(doc: Document, lines: list[Line]) -> Iterator[Fact]:
        for i, line in enumerate(lines):
            slept = _SLEEP.search(line.text)
            if slept:
                near = lines[max(0, i - 4) : i + 4]
                asked = next((n for n in near if _POLLED.search(n.text)), None)
                if asked is not None:
                    yield fact(doc, line, "kv.poll_period", _sleep_ms(slept), "ms", label="sleep between polls")
                    return
            said = _INTERVAL.search(line.text)
            if said and re.search(r"xfer|transfer|kv|notif|nixl|complet|poll", line.text, re.I):
                unit = (said.group(3) or (said.group(1) or "").strip("_") or "").lower()
                value = float(said.group(2))
                # a bare figure: fractions are seconds, whole numbers milliseconds
                scale = _FACTOR.get(unit, 1e3 if "." in said.group(2) and value < 5 else 1.0)
                yield fact(doc, line, "kv.poll_period", value * scale, "ms", label="polling interval")
                return

    @staticmethod
    def _rows(lines: list[Line]) -> Iterator[tuple[Line, float | None, list[float]]]:
        """(line, bytes, durations in ms) of rows that hold a duration."""
        scale: float | None = None
        for line in lines:
            head = _HEAD_MS.search(line.text)
            times = [amount(n) * _FACTOR[u] for n, u in _DURATION.findall(line.text)]
            if head and not times and re.search(r"[A-Za-z一-鿿]{3}", line.text):
                scale = _FACTOR[head.group(1) or head.group(2)]
                continue
            size = _BYTES.search(line.text)
            got = canonical(amount(size.group(1)), size.group(2)) if size else None
            moved = None if got is None else got[0] * (2**30 if got[1] == "GiB" else 1.0)
            if not times and scale is not None:
                rest = _BYTES.sub(" ", line.text)
                times = [amount(n) * scale for n in _NUMBER.findall(rest)][-2:]
            if times:
                yield line, moved, times

    @staticmethod
    def _ticks(doc: Document, rows: list[tuple[Line, float | None, list[float]]]) -> Iterator[Fact]:
        seen = [max(times) for _, _, times in rows]
        wire = [min(times) for _, _, times in rows if len(times) > 1]
        sizes = [moved for _, moved, _ in rows if moved]
        varied = [v for v in (wire if len(wire) == len(rows) else sizes) if v > 0]
        if len(varied) != len(rows) or max(varied) < 4 * min(varied) or min(seen) <= 0:
            return
        # durations that grow with the work are the work's own
        if max(seen) / min(seen) > 0.5 * max(varied) / min(varied):
            return
        for period in _PERIODS:
            slack = min(0.06 * period + 1.0, 0.15 * period)
            if all(s >= 0.97 * period and (s + 0.03 * period) % period <= slack + 0.03 * period for s in seen):
                late = median(s - w for s, w in zip(seen, wire, strict=False)) if wire else period
                if late < 0.25 * period:
                    return
                inputs = tuple(
                    fact(doc, line, "kv.stage", max(times), "ms", label=f"row {i}: seen as done")
                    for i, (line, _, times) in enumerate(rows[:6], 1)
                )
                yield Fact(
                    "kv.tick", period, "ms", Subject(label="durations end on multiples"), kind="derived",
                    formula="reader:kv_completion", inputs=inputs, status=doc.status,
                )  # fmt: skip
                return


# --- the order of events

_STAMP = regex(r"^\s*(?:\[[A-Za-z][^\]\d]*\d*\]\s*)?\W{0,2}(?:t\s*[=+]\s*)?\+?(\d[\d,]*(?:\.\d+)?)\s*(ms|us|s)?\b\W")
_TAIL = regex(r"(?:^|[\s=:@|+≈~])(\d[\d,]*(?:\.\d+)?)\s*(ms|us|s)?\s*(?:\(.*\))?\s*$")
_DONE = (
    r"(?:done|ready|comput\w*|finish\w*|end\w*|complet\w*|saved?|written|available|ret(?:urn|ire)\w*"
    r"|完成|结束|就绪)"
)
_BEGIN = r"(?:post\w*|start\w*|submit\w*|issu\w*|begin\w*|begun|launch\w*|kick\w*|first byte|init\w*|发起|开始|提交)"
_MOVE = (
    r"(?:writes?|reads?|xfers?|transfers?|sends?|push\w*|pull\w*|puts?|gets?|nixl|rdma"
    r"|kv (?:copy|load|send|transfer)|传输)"
)
_EVENTS = (
    ("moved", rf"(?:last |final |all |kv |nixl |rdma )*{_MOVE}\b.{{0,30}}\b{_DONE}|传输(?:完成|结束)"),
    ("posted", (
        rf"(?:first |kv |nixl |rdma )*{_MOVE}\b.{{0,24}}\b{_BEGIN}|{_BEGIN}\W.{{0,20}}\b{_MOVE}"
        r"|(?:发起|开始).{0,6}传输"
    )),
    ("layer_first", rf"\bprefill\b.{{0,16}}\b{_BEGIN}|prefill (?:开始)|(?:\blayers?[ _#]*0*[01]\b|\bfirst layer|第[一0 ]*层).{{0,40}}{_DONE}"),  # noqa: E501
    ("layer_last", (
        rf"(?:\blayers?[ _#]*\d{{2,3}}\b|\blast layer|最后一层).{{0,40}}{_DONE}"
        rf"|(?:prefill|forward)\b.{{0,24}}\b{_DONE}|prefill (?:完成|结束)"
    )),
    ("token", r"first token|ttft|首\s*token|decode (?:step|start\w*|begin\w*)"),
)  # fmt: skip
_NAMED = [(name, regex(pattern, re.I)) for name, pattern in _EVENTS]


@dataclass(frozen=True)
class _Event:
    ms: float
    line: Line


def _when(text: str, unit: float) -> float | None:
    if (clock := time_of_day(text)) is not None:
        return clock
    hit = _STAMP.match(text) or _TAIL.search(text)
    return None if hit is None else amount(hit.group(1)) * (_FACTOR[hit.group(2)] if hit.group(2) else unit)


# `prefill kernels   0.0 -> 1904.2`: an interval of work or of a transfer
_INTERVAL_OF = regex(
    r"(?<![\w.-])(?P<a>\d[\d,]*(?:\.\d+)?)\s*(?:ms|us|s)?\s*(?:->|→|–|\.\.+|-|to)\s*(?P<b>\d[\d,]*(?:\.\d+)?)"
    r"(?!\d|[\w.]*[A-Za-z_:]|\s+\d\d?:\d\d)"  # a date with its time is no interval: `INFO 11-22 19:14:46`
)
_WORK = regex(r"prefill|forward|comput|kernels?\b|gemm|attention|layers?\b|计算", re.I)
_COMPUTE_HEAD = regex(r"comput|prefill|forward|计算", re.I)
_WIRE = regex(rf"\b{_MOVE}\b|post_?xfer|\bnic\b|\btx\b|\bkv\b|传输", re.I)
_NOTHING = regex(r"(?<![\d.])0(?:\.0+)?\s*(?:[KMG]i?)?[Bb](?:/s)?(?![\w/])|\bidle\b|no traffic|空闲", re.I)


class OrderReader:
    """Events of one request with their times: is KV sent while layers compute, or after the last one?"""

    name = "kv_order"
    head: bool | None = None  # of a table of intervals: does compute come before the transfer?
    needles = (b"layer", b"prefill", b"Prefill", "传输".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document, only where a layer, the end of prefill and the start of a transfer have times."""
        unit = 1.0
        found: dict[str, _Event] = {}
        self.head = None
        for line in _short(doc):
            text = line.text
            head = _HEAD_MS.search(text)
            if head and not found:
                unit = _FACTOR[head.group(1) or head.group(2)]
            if self._interval(line, unit, found) or self._columns(line, unit, found):
                continue
            kinds = [name for name, pattern in _NAMED if pattern.search(text)]
            # one event a line; `first` of a sequence of posts and the latest completion
            if not kinds or text.count(",") > 3:
                continue
            ms = _when(text, unit)
            if ms is None:
                continue
            kind = kinds[0]
            if kind not in found or kind in ("layer_last", "moved"):
                found[kind] = _Event(ms, line)
        yield from self._late(doc, found)

    def _interval(self, line: Line, unit: float, found: dict[str, _Event]) -> bool:
        """A line with one start and end: of compute, or of a transfer."""
        spans = list(_INTERVAL_OF.finditer(line.text))
        work, wire = _WORK.search(line.text), _WIRE.search(line.text)
        if work and wire and len(spans) == 1 and not line.text[: spans[0].start()].strip():
            # behind an interval that heads the line, what is named first is what it did: `send layer 0`
            work, wire = (work, None) if work.start() < wire.start() else (None, wire)
        if len(spans) != 1 or (work is None) == (wire is None) or _NOTHING.search(line.text):
            return False
        a, b = (amount(spans[0][k]) * unit for k in ("a", "b"))
        named = work or wire
        if (
            b <= a
            or named is None
            or (line.text[: spans[0].start()].strip() == "" and named.start() > spans[0].end() + 8)
        ):
            return False  # a range of something else heads the line
        self._took(found, line, a, b, work is not None)
        return True

    def _columns(self, line: Line, unit: float, found: dict[str, _Event]) -> bool:
        """A row of a table with a start and end of compute, and of the transfer, as its head names them."""
        spans = list(_INTERVAL_OF.finditer(line.text))
        if not spans:
            places = [m.start() for p in (_COMPUTE_HEAD, _WIRE) if (m := p.search(line.text))]
            self.head = places[0] < places[1] if len(places) == 2 else None
            return False
        if len(spans) != 2 or self.head is None:
            return False
        for hit, first in zip(spans, (True, False), strict=True):
            a, b = (amount(hit[k]) * unit for k in ("a", "b"))
            if b > a:
                self._took(found, line, a, b, first == self.head)
        return True

    @staticmethod
    def _took(found: dict[str, _Event], line: Line, a: float, b: float, work: bool) -> None:
        start, end = ("layer_first", "layer_last") if work else ("posted", "moved")
        if start not in found or found[start].ms > a:
            found[start] = _Event(a, line)
        if end not in found or found[end].ms < b:
            found[end] = _Event(b, line)

    @staticmethod
    def _late(doc: Document, found: dict[str, _Event]) -> Iterator[Fact]:
        first, last, posted = found.get("layer_first"), found.get("layer_last"), found.get("posted")
        moved = found.get("moved")
        if last is None or posted is None:
            return

        def seen(label: str, event: _Event) -> Fact:
            return fact(doc, event.line, "kv.event", event.ms, "ms", label=label)

        a, b = seen("last layer done", last), seen("transfer posted", posted)
        if first is not None and first.ms < last.ms:
            c = seen("first layer done", first)
            yield from (a, b, c)
            yield Fact(
                "kv.post_delay", (posted.ms - first.ms) / (last.ms - first.ms), "fraction",
                Subject(label="of the layers' time, until the first post"), kind="derived",
                formula="(a - b) / (c - b)", inputs=(b, c, a), status=doc.status,
            )  # fmt: skip
        elif moved is not None and moved.ms > posted.ms >= last.ms:
            d = seen("transfer done", moved)
            yield from (a, b, d)
            yield Fact(
                "kv.after_prefill", moved.ms - last.ms, "ms", Subject(label="transfer behind prefill"),
                kind="derived", formula="a - b", inputs=(d, a), status=doc.status,
            )  # fmt: skip


# --- pairs near and far

_PLACE = regex(
    r"node|host|rack|zone|leaf|rail|pod|switch|domain|island|spine|\bfrom\b|\bto\b|src|dst|source|dest"
    r"|prefill|decode|机架|节点|可用区",
    re.I,
)
_ARROW = regex(r"([\w./@-]+)\s*(?:->|→|=>|<->|↔)\s*([\w./@-]+)")
_CELLS = regex(r"\s{2,}|\t|\s*\|\s*|\s*,\s+")
_RATE_HEAD = regex(r"[GMT]i?B/s|Gb(?:it)?/?p?s|Gbps|bandwidth|throughput|带宽", re.I)
_VALUE = regex(r"(\d[\d,]*(?:\.\d+)?)")


def _same(a: str, b: str) -> bool:
    """One host, or one rack where racks are written as host@rack or rack/host."""
    if a == b:
        return True
    if "@" in a and "@" in b:
        return a.split("@")[1] == b.split("@")[1]
    return "/" in a and "/" in b and a.split("/")[0] == b.split("/")[0]


class PairReader:
    """A table of transfers, one pair of ends a row: do the pairs on two hosts (racks, zones) differ from the others?"""

    name = "kv_pairs"
    needles = (
        b"node", b"host", b"rack", b"zone", b"rail", b"leaf", b"->", "→".encode(), "机架".encode(), "节点".encode(),
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One quotient: the far pairs' median over the near ones', where the two groups do not touch."""
        rows = list(self._rows(_short(doc)))
        near = [r for r in rows if r[1]]
        far = [r for r in rows if not r[1]]
        if not near or not far or len(rows) < 3:
            return
        rate = near[0][3]
        worst_near = (min if rate else max)(r[2] for r in near)
        best_far = (max if rate else min)(r[2] for r in far)
        low, high = (best_far, worst_near) if rate else (worst_near, best_far)
        if low <= 0 or high / low < 1.5:
            return

        pick = (min if rate else max)(near, key=lambda r: r[2]), (max if rate else min)(far, key=lambda r: r[2])
        a, b = (
            fact(doc, row[0], "kv.pair", row[2], "count", label=label)
            for row, label in ((pick[1], "far pair"), (pick[0], "near pair"))
        )
        inputs = (b, a) if rate else (a, b)
        yield from (a, b)
        yield divided("kv.far_over_near", inputs, subject=Subject(label="rate" if rate else "time"))

    @staticmethod
    def _rows(lines: list[Line]) -> Iterator[tuple[Line, bool, float, bool]]:
        columns: list[int] = []
        width, rate = 0, False
        for line in lines:
            text = line.text.strip().strip("|")
            arrow = _ARROW.search(text)
            if arrow and not re.search(r"gpu ?\d|h2d|d2h", text, re.I):
                rest = text[arrow.end() :]
                values = _VALUE.findall(_BYTES.sub(" ", rest))
                if values:
                    fast = bool(_RATE_HEAD.search(rest)) or (rate and not _DURATION.search(rest))
                    yield line, _same(*arrow.groups()), amount(values[-1]), fast
                    continue
            cells = [c for c in _CELLS.split(text) if c]
            numbers = [i for i, c in enumerate(cells) if re.fullmatch(r"[\d.,]+(?:\s*(?:ms|s|us|[GM]i?B/s|Gb/s))?", c)]
            if len(cells) >= 3 and not numbers and sum(bool(_PLACE.search(c)) for c in cells) >= 2:
                columns = [i for i, c in enumerate(cells) if _PLACE.search(c)]
                width, rate = len(cells), bool(_RATE_HEAD.search(text))
                continue
            if not arrow and len(cells) <= 2 and _RATE_HEAD.search(text):
                rate = True
            if not columns or abs(len(cells) - width) > 1 or not numbers:
                continue
            places = [cells[i] for i in columns if i < len(cells) and i not in numbers]
            # a row's name column ("decode-0") is a place by its header only: compare those that share a spelling
            stems = [re.sub(r"\d+\w?$", "", p) for p in places]
            pair = next(
                ((p, q) for i, p in enumerate(places) for j, q in enumerate(places) if i < j and stems[i] == stems[j]),
                None,
            )
            if pair is not None:
                yield line, _same(*pair), amount((_VALUE.findall(cells[numbers[-1]]) or ["0"])[0]), rate


READERS: list[Reader] = [CompletionReader(), OrderReader(), PairReader()]
