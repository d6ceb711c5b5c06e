"""Moments of one transfer: posted, done for one side, known to the other; and what a request did from when to when.

``req 31: prefill 0.000-0.412 s, kv send 0.413-0.731 s`` says that the transfer waited for the whole of prefill;
``check_xfer_state -> DONE`` at one side and ``notif received`` two seconds later that nobody looked in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import amount, excerpt, fact, in_cells, time_of_day
from .generic_figures import Figure, cell, header_unit

_SMALL = 1 << 16
_LINES = 600
_SPAN = regex(
    r"(?P<a>\d[\d,]*(?:\.\d+)?) ?(?:ms|us|s)? ?(?:-|–|->|→|\.\.+|to) ?(?P<b>\d[\d,]*(?:\.\d+)?) ?(?P<u>ms|us|s)?\b(?![.:]\d)"  # noqa: E501
)
_WORK = regex(r"prefill|forward|comput\w*|attention|layers?\b|计算", re.I)
_MOVE = regex(
    r"\bkv\b|send\w*|recv|receiv\w*|transfer\w*|xfer|writ\w+|push\w*|pull\w*|nixl|hand-?(?:off|over)|\bput|\bget\b|传输",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str
    start: float
    end: float
    line: Line


def _parts(line: Line) -> list[_Part]:
    """Work and transfers of one line, each with its start and end in milliseconds."""
    text = line.prefix + line.text
    out, behind = [], 0
    for hit in _SPAN.finditer(text):
        words = text[behind : hit.start()]
        behind = hit.end()
        work, move = _WORK.search(words), _MOVE.search(words)
        if (work is None) == (move is None):
            continue
        a, b = (amount(hit[k]) * IN_MS[hit["u"] or "ms"] for k in ("a", "b"))
        if b > a:
            out.append(_Part("work" if work else "move", a, b, line))
    return out


class RequestMoments:
    """Intervals of one request on one line: does its transfer begin while it computes?"""

    name = "request_moments"
    needles: tuple[bytes, ...] = (b"prefill", b"Prefill", b"forward", b"comput", "计算".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.post_delay` of the request whose transfer began earliest, as a part of its compute."""
        best: tuple[float, _Part, _Part] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            parts = _parts(line)
            work = [p for p in parts if p.kind == "work"]
            move = [p for p in parts if p.kind == "move"]
            if len(work) != 1 or not move:
                continue
            first = min(move, key=lambda p: p.start)
            delay = (first.start - work[0].start) / (work[0].end - work[0].start)
            # a load before compute is another matter
            if first.start >= work[0].start and (best is None or delay < best[0]):
                best = delay, work[0], first
        if best is None or best[0] > 3:
            return
        _, work_, move_ = best
        a = fact(doc, work_.line, "kv.event", work_.start, "ms", label="compute begins")
        b = fact(doc, work_.line, "kv.event", move_.start, "ms", label="transfer begins")
        c = fact(doc, work_.line, "kv.event", work_.end, "ms", label="compute ends")
        yield from (a, b, c)
        yield Fact(
            "kv.post_delay", (move_.start - work_.start) / (work_.end - work_.start), "fraction",
            Subject(label="of the compute time, until the transfer begins"), kind="derived",
            formula="(a - b) / (c - b)", inputs=(b, a, c), status=doc.status,
        )  # fmt: skip


_AT = regex(r"^\W*(?:[A-Za-z][\w-]{1,16}\]?\s+)?(?:t ?[=+] ?)?\+?(\d[\d,]*(?:\.\d+)?) ?(ms|us|s)\b")
_WIRE_END = regex(
    r"\b(?:port|nic|wire|link|hca)\b[^\n]{0,40}\b(?:idle|quiet|silent|done|drained)|\b(?:bytes|[KMG]i?B)\b[^\n]{0,12}\b(?:sent|received|arrived|landed|moved)\b"
    r"|last (?:byte|packet|cqe|completion)|\bCQE\b|网口(?:空闲|停)|(?:发送|传输)完",
    re.I,
)
_LOOKED = regex(
    r"\b(?:poll\w*|check\w*|tick|get_xfer\w*|status)\b[^\n]{0,40}(?:->|→|=>|=|:|returns?|says)\W{0,2}(?:DONE|SUCCESS|complete)",
    re.I,
)
_POSTED = regex(r"\b(?:post\w*|submit\w*|start\w*|issu\w*|initiat\w*|launch\w*)\b", re.I)
_DONE = regex(
    r"\b(?:DONE|SUCCESS|NIXL_SUCCESS|complet\w+|finished|acked|last byte|bytes? (?:landed|arrived|on the wire end))\b|xfer.{0,12}done|完成",  # noqa: E501
    re.I,
)
_KNOWN = regex(
    r"\bcompletion\b[^\n]{0,16}\b(?:picked|noticed|seen|detected|observed|handled)|\b(?:noticed|detected|observed) (?:the )?(?:completion|done)\b|"  # noqa: E501
    r"\bnotif\w*[^\n]{0,24}\b(?:receiv\w*|seen|got|arriv\w*|deliver\w*|consum\w*|handl\w*|picked|processed)|(?:receiv\w*|got|saw|seen|picked up|handl\w*|processed) (?:the |a )?(?:notif\w*|completion)"  # noqa: E501
    r"|get_?(?:new_?)?notifs[^\n]{0,30}(?:[1-9]\d*\b|->)|\b(?:marked|set|moved) (?:as )?(?:ready|finished_recving|finished recving)|finished_recving|通知(?:到达|收到)|收到通知",  # noqa: E501
    re.I,
)
_OTHER = regex(r"no |not |without|never|未", re.I)
_ID = regex(r"\b(?:req(?:uest)?|room|xfer|handle|id|rid|transfer)[ _=:#-]{0,2}(?P<id>[\w-]*\d[\w-]*)", re.I)


def _moment(text: str) -> float | None:
    if (clock := time_of_day(text)) is not None:
        return clock
    at = _AT.match(text)
    return amount(at[1]) * IN_MS[at[2]] if at else None


class NoticeDelay:
    """How long after a transfer was done the other side took note of it."""

    name = "notice_delay"
    needles: tuple[bytes, ...] = (
        b"notif",
        b"Notif",
        b"finished_recving",
        "通知".encode(),
        b"completion",
        b"DONE",
        b"SUCCESS",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.notice_delay` in ms, with what the transfer itself took where that is told."""
        posted: dict[str, tuple[float, Line]] = {}
        done: dict[str, tuple[float, Line]] = {}
        wire: set[str] = set()  # transfers whose bytes were seen to end
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            at = _moment(text)
            if at is None:
                continue
            named = _ID.search(text)
            ident = named["id"] if named else ""
            if _WIRE_END.search(text) and not _LOOKED.search(text):
                done[ident] = at, line
                wire.add(ident)
                continue
            looked = bool(wire) and _LOOKED.search(text) is not None
            if (looked or _KNOWN.search(text)) and not _OTHER.search(text):
                end = done.get(ident) or (next(iter(done.values())) if len(done) == 1 else None)
                if end is None or at <= end[0]:
                    continue
                begin = posted.get(ident) or posted.get("")
                own = end[0] - begin[0] if begin is not None and begin[0] < end[0] else None
                if at - end[0] < 20 or (own is not None and at - end[0] < 2 * own):
                    continue
                a = fact(doc, line, "kv.event", at, "ms", label="known to the other side")
                b = fact(doc, end[1], "kv.event", end[0], "ms", label="transfer done")
                yield from (a, b)
                yield Fact(
                    "kv.notice_delay", at - end[0], "ms", Subject(label="from done to known"), kind="derived",
                    formula="a - b", inputs=(a, b), status=doc.status,
                )  # fmt: skip
                return
            if _DONE.search(text) and not _OTHER.search(text):
                done[ident] = at, line
            elif _POSTED.search(text):
                posted.setdefault(ident, (at, line))


_HIDDEN = regex(
    r"(?P<what>(?:kv|xfer|transfers?|nixl|connector|传输)[^\d\n]{0,24})(?P<all>\d+(?:\.\d+)?) ?(?P<u>ms|us|s)\b[^\d\n]{0,40}?"  # noqa: E501
    r"(?:(?:overlap\w*|hidden|hides?|covered|under compute|重叠|掩盖|隐藏)[^\d\n]{0,20}(?P<a>\d+(?:\.\d+)?) ?(?P=u)\b"
    r"|(?:exposed|not (?:overlapped|hidden)|blocking|stall\w*|暴露|未掩盖)[^\d\n]{0,20}(?P<x>\d+(?:\.\d+)?) ?(?P=u)\b)",
    re.I,
)


class HiddenTransfer:
    """How long transfers took and how much of that compute hid, in one sentence."""

    name = "hidden_transfer"
    needles: tuple[bytes, ...] = (
        b"overlap",
        b"hidden",
        b"exposed",
        b"hid",
        "重叠".encode(),
        "掩盖".encode(),
        "暴露".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.hidden_share`."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _HIDDEN.search(line.prefix + line.text)
            whole = float(hit["all"]) if hit else 0.0
            if hit is None or whole <= 0:
                continue
            hidden = float(hit["a"]) if hit["a"] else whole - float(hit["x"])
            if 0 <= hidden <= whole:
                yield Fact(
                    "kv.hidden_share", round(hidden / whole, 6), "fraction", Subject(), (doc.span(line),), kind="derived",  # noqa: E501
                    formula="reader:hidden_transfer", status=doc.status,
                )  # fmt: skip
                return


_WAIT = r"wait_for_(?:xfer|layer|load|save|transfer|kv|recv)\w*|wait_(?:xfer|transfer|kv)\w*|_wait_for_\w*(?:xfer|kv|load)\w*|check_(?:remote_)?xfer_(?:state|done)|start_load_kv|recv_kv\w*|get_finished"  # noqa: E501
_SAMPLES = regex(
    rf"(?P<p>\d{{1,3}}(?:\.\d+)?) ?%[^\n]{{0,60}}\b(?:{_WAIT})\b|\b(?:{_WAIT})\b[^\n%]{{0,60}}?(?P<q>\d{{1,3}}(?:\.\d+)?) ?%"  # noqa: E501
    rf"|^\s*(?P<r>\d{{1,3}}\.\d)\s+[\d.,]+\s+\d+\s+(?:\S+\s+){{0,6}}?\S*?(?:{_WAIT})\b",
)


class WaitShare:
    """The part of a process's time that it stands in the function that waits for a transfer."""

    name = "kv_wait_share"
    needles: tuple[bytes, ...] = (b"wait_", b"xfer_", b"load_kv", b"recv_kv", b"get_finished")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.wait_share`, the largest."""
        best: tuple[float, Line] | None = None
        for line in excerpt(doc, 1 << 18, 4000):
            hit = _SAMPLES.search(line.prefix + line.text)
            if hit is not None:
                share = float(hit["p"] or hit["q"] or hit["r"])
                if share <= 100 and (best is None or share > best[0]):
                    best = share, line
        if best is not None:
            yield fact(doc, best[1], "kv.wait_share", best[0] / 100, "fraction", label="samples")


_TURN = regex(r"\blayers?[ _#=:]*(?P<n>\d{1,3})\b(?P<rest>.*)$", re.I)
_STANDS = regex(r"\bwait\w*|\bblock\w*|synchroni\w*|\bpoll\w*|等待", re.I)
_MOVES_ON = regex(
    r"(?:launch|start|comput|run|enqueu|forward|begin)\w*\W{0,4}(?:\w+ ){0,2}layers?[ _#=:]*(?P<next>\d{1,3})\b", re.I
)


class LayerTurns:
    """A log in which each layer is launched when the transfer of the one before is complete."""

    name = "layer_turns"
    needles: tuple[bytes, ...] = (b"layer", b"Layer")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.in_turn` of two layers or more."""
        waited: dict[int, Line] = {}
        turns: list[tuple[Line, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            on = _MOVES_ON.search(text)
            if on is not None and (before := waited.get(int(on["next"]) - 1)) is not None:
                turns.append((before, line))
            hit = _TURN.search(text)
            if hit is not None and _STANDS.search(hit["rest"]) and _MOVE.search(hit["rest"]):
                waited[int(hit["n"])] = line
        if len(turns) >= 2:
            first, then = turns[0]
            yield Fact(
                "kv.in_turn", float(len(turns)), "count", Subject(label="layers, each behind a transfer"),
                (doc.span(first), doc.span(then)), kind="derived", formula="reader:layer_turns", status=doc.status,
            )  # fmt: skip


_TOTAL = regex(r"\b(?:ttft|total|both|together|e2e|end.to.end|step|wall|sum|overall|combined)\b|总|合计", re.I)


class SumRows:
    """Rows with a time of work, one of the transfer and one of both: do they add up, or does one hide the other?"""

    name = "sum_rows"
    needles: tuple[bytes, ...] = (b"transfer", b"Transfer", b"xfer", b"kv", b"KV", b"send", b"recv", "传输".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.sum_share`: the least part of the smaller time that shows in the total, over the rows of a table."""
        head: list[str] = []
        shares: list[tuple[float, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            cells = in_cells(line.prefix + line.text)
            values = [cell(c, header_unit(h)) for c, h in zip(cells[-len(head) :], head, strict=False)] if head else []
            if head and len(cells) >= len(head) and sum(v is not None for v in values) >= 3:
                share = _share(head, [_ms(v) for v in values])
                if share is not None:
                    shares.append((share, line))
                continue
            if shares:
                break
            named = [bool(p.search(" ".join(cells))) for p in (_WORK, _MOVE, _TOTAL)]
            head = cells if all(named) and len(cells) >= 3 and not any(cell(c) for c in cells) else []
        if len(shares) >= 2:
            low, line = min(shares, key=lambda s: s[0])
            high = max(s for s, _ in shares)
            yield Fact(
                "kv.sum_share", round(low if low > 0.5 else high, 6), "fraction", Subject(label=f"{len(shares)} rows"),
                (doc.span(line),), kind="derived", formula="reader:sum_rows", status=doc.status,
            )  # fmt: skip


def _ms(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value * IN_MS.get(figure.unit or "ms", 1.0)


def _share(head: list[str], values: list[float | None]) -> float | None:
    found: dict[str, float] = {}
    for name, value in zip(head, values, strict=False):
        kind = (
            "total" if _TOTAL.search(name) else "work" if _WORK.search(name) else "move" if _MOVE.search(name) else ""
        )
        if kind and value and kind not in found:
            found[kind] = value
    if len(found) != 3 or min(found.values()) <= 0:
        return None
    small, large = sorted((found["work"], found["move"]))
    # a transfer that is a small part of the total tells nothing of how they stand to each other
    if small < 0.12 * large or not 0.97 * large <= found["total"] <= 1.15 * (small + large):
        return None
    return (found["total"] - large) / small


_PHASE = regex(
    r"^(?P<name>\w+)_(?:sum|total|seconds)\{[^}]*\b(?:phase|stage|state|kind|op)=\"(?P<phase>[^\"]+)\"[^}]*\}\s+(?P<v>\d+(?:\.\d+)?)\s*$"
)
_KV_WAIT = regex(r"wait\w*(?:kv|xfer|transfer|load|recv)|(?:kv|xfer|transfer|load|recv)\w*wait", re.I)


class PhaseShares:
    """A counter of seconds by phase: the part that is wait for a transfer."""

    name = "phase_shares"
    needles: tuple[bytes, ...] = (b'phase="', b'stage="', b'state="', b'kind="')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.wait_share`."""
        rows: dict[str, list[tuple[str, float, Line]]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _PHASE.match(line.text)
            if hit is not None:
                rows.setdefault(hit["name"], []).append((hit["phase"], float(hit["v"]), line))
        for found in rows.values():
            whole = sum(v for _, v, _ in found)
            waits = [(v, at) for name, v, at in found if _KV_WAIT.search(name)]
            if len(found) >= 2 and waits and whole > 0:
                yield Fact(
                    "kv.wait_share", round(sum(v for v, _ in waits) / whole, 6), "fraction", Subject(label="phases"),
                    (doc.span(waits[0][1]),), kind="derived", formula="reader:phase_shares", status=doc.status,
                )  # fmt: skip
                return


READERS: list[Reader] = [
    RequestMoments(),
    NoticeDelay(),
    HiddenTransfer(),
    WaitShare(),
    LayerTurns(),
    SumRows(),
    PhaseShares(),
]
