"""Which adapter each process opened, what calls cost per message, and phases that take turns on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, computed, divided, excerpt, fact, in_cells

_SMALL = 1 << 16
_LINES = 1000
_DEVICE = regex(
    r"(?<![\w])((?:mlx[45]|mlx5_bond|bnxt_re|irdma|efa|hns|roce\w{0,12}|rdmap\w{0,12}|hsn|cxi|ibp\w{0,12})_?\d+)(?::\d)?(?![\w])"
)
_PROCESS = regex(
    r"\b(?P<kind>PE|rank|GPU|proc(?:ess)?|worker|local_rank)[\"' _#:=]{0,4}(?P<n>\d{1,5})\b|^\s*(?P<row>\d{1,4})\s",
    re.I,
)
_ROW_HEAD = regex(r"\b(?:rank|PE|proc\w*|worker)\b.*\b(?:device|hca|nic|adapter|dev|网卡)\b", re.I)
_SAME = regex(
    r"\b(?P<a>\d+)\s*-\s*(?P<b>\d+)\b[^\n]{0,20}\b(?:same|likewise|ditto)|\b(?:the )?(?:rest|others?)\b[^\n]{0,12}\bsame",  # noqa: E501
    re.I,
)
_COUNT = regex(r"grep -c\s*['\"]?(?:ACTIVE|Up|PORT_ACTIVE)\b['\"]?\s*(?:#|->|:|=>|→)?\s*(?P<n>\d+)?\s*$", re.I)
_LISTED = regex(
    r"\b(?:active|up|available) (?:HCAs?|devices?|ports?|adapters?|NICs?)\b|(?:HCAs?|devices?|ports?|adapters?|NICs?|网卡)\b[^\n]{0,20}\b(?:active|up|available)\b",  # noqa: E501
    re.I,
)
_SHOWN = regex(r"\blink (?P<a>\w+)/\d+ state ACTIVE|\b(?P<b>[a-z]\w+_\w+) port \d ==> \S+ \(Up\)")
FEWEST = 3


class DeviceOfProcess:
    """`PE 3 dev mlx5_0`, `rank 5 … selected HCA mlx5_3`, rows of rank and device: do all of them use one adapter?"""

    name = "device_of_process"
    needles: tuple[bytes, ...] = (b"mlx", b"bnxt", b"irdma", b"efa", b"roce", b"rdmap", b"hsn", b"cxi", b"ibp")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rdma.processes_on_one` where no process uses another one; `rdma.devices_up` as counted or listed."""
        users: dict[str, dict[int, Line]] = {}
        told, in_rows, asked = 0, False, False
        up: dict[str, Line] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if asked and re.fullmatch(r"\s*\d{1,3}\s*", text):
                yield fact(doc, line, "rdma.devices_up", float(text), "count", label="active")
            counted = _COUNT.search(text)
            asked = counted is not None and counted["n"] is None
            if counted is not None and counted["n"]:
                yield fact(doc, line, "rdma.devices_up", float(counted["n"]), "count", label="active")
            named = list(dict.fromkeys(_DEVICE.findall(text)))
            if _LISTED.search(text) and len(named) > 1:
                up |= dict.fromkeys(named, line)
            if (shown := _SHOWN.search(text)) is not None:
                up[shown["a"] or shown["b"]] = line
            if _ROW_HEAD.search(text) and not named:
                in_rows = True
            who = _PROCESS.search(text)
            if who is not None and len(named) == 1 and (who["n"] or in_rows):
                users.setdefault(named[0], {}).setdefault(int(who["n"] or who["row"]), line)
            elif users and (more := _SAME.search(text)) is not None:
                told += int(more["b"]) - int(more["a"]) + 1 if more["a"] else 1
        if up:
            yield computed(
                doc, next(iter(up.values())), "rdma.devices_up", float(len(up)), "count", self.name, label="listed"
            )
        if len(users) == 1:
            device, lines = next(iter(users.items()))
            if len(lines) >= FEWEST:
                yield Fact(
                    "rdma.processes_on_one", float(len(lines) + told), "count", Subject(label=device, nic=device),
                    tuple(doc.span(at) for at in list(lines.values())[:4]), kind="derived",
                    formula=f"reader:{self.name}", status=doc.status,
                )  # fmt: skip


_REGISTERS = (
    r"(?:cu(?:da)?Ipc(?:Open|Close)MemHandle|ibv_(?:exp_)?(?:de)?reg_(?:dmabuf_)?mr(?:_iova2?)?|fi_mr_reg|"
    r"cu(?:da)?(?:Mem)?Host(?:Unr|R)egister|cuMemHostRegister|nvidia_p2p_get_pages|gdr_pin_buffer)"
)
_CALL = regex(rf"(?P<name>{_REGISTERS})(?:_v\d)?\b", re.I)
_CALLS = regex(
    r"\s*(?:\bcalls?\b|\bcount\b|次数|\btimes\b)?[\]:=\s]+(?P<n>\d[\d,]*)(?![\d.,]*\s*(?:ms|us|s|ns|%)\b)(?:\s*(?:calls?|times|次|x)\b)?",
    re.I,
)
_TOOK = regex(r"(?:total|sum|took|cum\w*|共)\W{0,3}(?P<t>\d[\d,]*(?:\.\d+)?)\s*(?P<u>ms|us|s)\b", re.I)
_MESSAGES = regex(
    r"\b(?:messages?|transfers?|puts?|gets?|writes?|sends?|xfers?|requests|copies|cuMemcpyDtoDAsync|ibv_post_send)\b(?: (?:sent|completed|done|posted|issued))?\W{1,40}(?P<n>\d[\d,]{2,})\b(?!\.)|(?P<m>\d[\d,]{2,}) (?:messages|transfers|puts|gets|writes|sends|xfers)\b",  # noqa: E501
    re.I,
)
_TIME_KEY = regex(r"(?:time|total|sum)_?(?P<u>ms|us|s)\b", re.I)
_TIME_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


# a row of `strace -c` or `ltrace -c`: share, seconds, microseconds a call, calls, function
_SUMMARY = regex(r"^\s*\d+\.\d+\s+(?P<s>\d+\.\d+)\s+\d+\s+(?P<n>\d+)\s+(?:\d+\s+)?(?P<name>\w+)\s*$")
_SENDS = regex(r"put|get|send|write|post_xfer|Dto[DH]Async", re.IGNORECASE)


class CallsPerMessage:
    """Counts of registration or mapping calls beside the count of messages, as tracers and notes give them."""

    name = "calls_per_message"
    needles: tuple[bytes, ...] = (b"Ipc", b"reg_mr", b"Register", b"fi_mr_reg", b"get_pages", b"pin_buffer")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`register.per_message`: calls of one function over messages; `register.time` where the text totals it."""
        calls: dict[str, tuple[float, Line]] = {}
        messages: list[tuple[float, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (row := _SUMMARY.match(text)) is not None:
                name = row["name"].removesuffix("_v2")
                if _CALL.fullmatch(name):
                    yield computed(doc, line, "register.time", float(row["s"]), "s", self.name, label=name)
                    calls.setdefault(name, (float(row["n"]), line))
                elif _SENDS.search(name):
                    messages.append((float(row["n"]), line))
                continue
            hits = list(_CALL.finditer(text))
            for hit, after in zip(hits, [*hits[1:], None], strict=False):
                part = text[hit.end() : after.start() if after is not None else None]
                before = text[max(0, hit.start() - 12) : hit.start()]
                keyed = _TIME_KEY.search(before)
                number = _CALLS.match(part)
                if keyed is not None and number is not None:
                    took = amount(number["n"]) * _TIME_UNIT[keyed["u"].lower()]
                    yield computed(doc, line, "register.time", took, "s", self.name, label=hit["name"])
                    continue
                if number is not None:
                    calls.setdefault(hit["name"], (amount(number["n"]), line))
                if (spent := _TOOK.search(part)) is not None:
                    took = amount(spent["t"]) * _TIME_UNIT[spent["u"].lower()]
                    yield computed(doc, line, "register.time", took, "s", self.name, label=hit["name"])
            if not hits and (told := _MESSAGES.search(text)) is not None:
                messages.append((amount(told["n"] or told["m"]), line))
        if not calls or not messages:
            return
        name, (count, at) = max(calls.items(), key=lambda item: item[1][0])
        total, where = max(messages, key=lambda item: item[0])
        if total <= 0:
            return
        a = fact(doc, at, "register.calls", count, "count", label=name)
        b = fact(doc, where, "register.messages", total, "count", label="messages")
        yield from (a, b)
        yield divided("register.per_message", (a, b), subject=Subject(label=name))


_COMPUTES = regex(r"^\W*(?:prefill|forward|compute|fwd|attention|gemm|计算|预填充)", re.I)
_MOVES = regex(r"^\W*(?:kv[ _-]?)?(?:cache )?(?:push|transfer|xfer|send|pull|write|read|put|传输|搬运)", re.I)
_WIRE_HEAD = regex(r"\b(?:nic|wire|net\w*|hca|rdma|ib|link|port)\b[ _]?(?:tx|xmit|rx|busy|util\w*|%)?|网卡", re.I)
_FIGURE = regex(r"^\s*([\d.]+)\s*(?:%|ms|[GM]b/s|[GM]B/s)?\s*$")
_SERIES = regex(r"^\W*(?:[\w ./]+[:=])?\s*((?:\d+(?:\.\d+)?[ ,]+){7,}\d+(?:\.\d+)?)\s*$")
_OF_WIRE = regex(r"xmit|\btx\b|nic|wire|rdma|port_|hca|网卡|出口", re.I)
_BAR = regex(r"^\s*(?P<what>[A-Za-z一-鿿][\w /-]*?)\s*[|:]?\s+(?P<bar>[#=█▇▆*>x-]{4,})\s*\|?\s*$")
_UNTIL = regex(
    r"(?:forward|prefill|compute|gpu|sm)\w*\b[^\n]{0,24}\b(?:until|till|ends?|ended|done|finished|直到|到)", re.I
)


class TakingTurns:
    """A table of phases with the wire's rate, or the wire's rate in bins: is it silent while the request computes?"""

    name = "taking_turns"
    needles: tuple[bytes, ...] = (b"prefill", b"Prefill", b"forward", b"ompute", "计算".encode(), "预填充".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.in_turn` where the wire is silent in compute and full in the transfer behind it."""
        column: int | None = None
        compute: tuple[float, Line] | None = None
        series: list[tuple[list[float], Line]] = []
        until: Line | None = None
        wired = False
        bars: dict[str, tuple[int, int, Line]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            wired = wired or _OF_WIRE.search(text) is not None
            if (hit := _SERIES.match(text)) is not None:
                series.append(([float(v) for v in re.split(r"[ ,]+", hit[1].strip())], line))
            if until is None and _UNTIL.search(text):
                until = line
            if (bar := _BAR.match(text)) is not None:
                kind = "work" if _COMPUTES.search(bar["what"]) else "wire" if _OF_WIRE.search(bar["what"]) else ""
                bars.setdefault(kind, (bar.start("bar"), bar.end("bar"), line))
            cells = in_cells(text)
            heads = [k for k, c in enumerate(cells) if _WIRE_HEAD.search(c) and not _FIGURE.match(c)]
            if len(cells) >= 3 and heads and not any(_FIGURE.match(c) for c in cells):
                column = heads[-1]
                continue
            if column is None or column >= len(cells) or (value := _FIGURE.match(cells[column])) is None:
                continue
            if _COMPUTES.search(cells[0]) and compute is None:
                compute = (float(value[1]), line)
            elif _MOVES.search(cells[0]) and compute is not None:
                if compute[0] <= 0.05 * float(value[1]):
                    yield self._found(doc, compute[1], line)
                return
        if "work" in bars and "wire" in bars and bars["wire"][0] >= bars["work"][1] - 1:
            yield self._found(doc, bars["work"][2], bars["wire"][2])
            return
        for values, line in series if until is not None and wired else ():
            if _rises_late(values):
                yield self._found(doc, line, until)
                return

    def _found(self, doc: Document, *lines: Line | None) -> Fact:
        spans = tuple(doc.span(at) for at in lines if at is not None)
        return Fact(
            "kv.in_turn", "the wire is silent until compute has ended", None, Subject(), spans, status=doc.status
        )


def _rises_late(values: list[float]) -> bool:
    """Silent for a good while, then full to the end."""
    top = max(values)
    silent = next((k for k, v in enumerate(values) if v > 0.05 * top), len(values))
    rest = values[silent:]
    return silent >= 4 and len(rest) >= 3 and sum(v >= 0.7 * top for v in rest) >= 0.7 * len(rest)


READERS: list[Reader] = [DeviceOfProcess(), CallsPerMessage(), TakingTurns()]
