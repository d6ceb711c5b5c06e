"""What short code and short sentences imply: an unpinned copy, a timer that does not wait, how much overlaps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_SMALL = 1 << 16
_LOADER = regex(r"\bDataLoader\(")
_ASYNC = regex(r"\.(?:to|cuda|copy_)\([^\n]*non_blocking ?= ?True")


class LoaderCode:
    """Code that copies without blocking from a loader whose memory nobody pins."""

    name = "loader_code"
    needles: tuple[bytes, ...] = (b"non_blocking",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact, where the loader's call stands there whole and says nothing of pinning."""
        if b"pin_memory" in doc.head:
            return
        lines = excerpt(doc, _SMALL, 2000)
        at = next((i for i, line in enumerate(lines) if _LOADER.search(line.text)), None)
        copy = next((line for line in lines if _ASYNC.search(line.text)), None)
        if at is None or copy is None:
            return
        call = " ".join(line.text for line in lines[at : at + 6])
        call = call[call.index("DataLoader(") :]
        depth = 0
        for k, char in enumerate(call):
            depth += {"(": 1, ")": -1}.get(char, 0)
            if char == ")" and depth == 0:
                whole = call[:k]
                if "..." not in whole and "**" not in whole:
                    made = fact(doc, copy, "copy.unpinned_loader", copy.text.strip()[:120])
                    yield replace(made, spans=(*made.spans, doc.span(lines[at])))
                return


_TIMER = regex(
    r"\btime\.(?:time|perf_counter|monotonic)(?:_ns)?\(\)|\bperf_counter\(\)|std::chrono\S*::now\(\)|clock_gettime"
)
_WORK = regex(
    r"\b(?:dist|torch\.distributed)\.(?:all_reduce|all_gather\w*|reduce_scatter\w*|broadcast|all_to_all\w*)\("
    r"|\bnccl(?:AllReduce|AllGather|ReduceScatter|Broadcast)\(|<<<[^>]+>>>\s*\("
)
_WAITS = regex(
    r"synchronize|\.item\(\)|\.cpu\(\)|\.wait\(|barrier\(|cuda\.Event|cudaEvent|elapsed_time|do_bench|block_until_ready"
    r"|LAUNCH_BLOCKING|\.\.\.|\[…\]"
)


class UnsyncedTimer:
    """A host timer around work that is only enqueued, in code that waits nowhere."""

    name = "unsynced_timer"
    needles: tuple[bytes, ...] = (b"time.", b"perf_counter", b"chrono", b"clock_gettime")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact, where at least two readings of the clock stand around a collective or launch."""
        lines = excerpt(doc, 1 << 14, 200)
        if any(_WAITS.search(line.text) for line in lines):
            return
        clock = [i for i, line in enumerate(lines) for _ in _TIMER.finditer(line.text)]
        work = [i for i, line in enumerate(lines) if _WORK.search(line.text)]
        if len(clock) >= 2 and any(clock[0] <= i <= clock[-1] for i in work):
            yield fact(doc, lines[clock[-1]], "timing.unsynced", lines[clock[-1]].text.strip()[:120])


_COMM_TIME = r"(?:nccl|comm\w*|collectives?|all.?reduces?|通信)"
_HIDDEN = r"(?:overlap\w*|hidden|hides?|covered|under compute|重叠|掩盖|隐藏)"
_BOTH = regex(
    rf"(?P<what>{_COMM_TIME})[^\d\n]{{0,24}}(?P<all>\d+(?:\.\d+)?) ?(?P<u>ms|us|s)\b[^\d\n]{{0,40}}?"
    rf"(?:{_HIDDEN}[^\d\n]{{0,16}}(?P<a>\d+(?:\.\d+)?) ?(?P=u)\b"
    rf"|(?P<b>\d+(?:\.\d+)?) ?(?P=u)\b[^\d\n]{{0,24}}{_HIDDEN})",
    re.IGNORECASE,
)


class OverlapProse:
    """How long collectives took and how much of that was hidden, in one sentence."""

    name = "overlap_prose"
    needles: tuple[bytes, ...] = (b"overlap", b"hidden", b"Overlap", "重叠".encode(), "掩盖".encode(), "隐藏".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`train.overlap` as the quotient of the two."""
        for line in excerpt(doc, _SMALL, 2000):
            hit = _BOTH.search(line.text)
            if hit is None:
                continue
            whole, part = float(hit["all"]), float(hit["a"] or hit["b"])
            if whole <= 0 or part > whole or re.search(r"\b(?:not|non|un|no)[- ]?$", line.text[: hit.start()]):
                continue
            a, b = (_time(doc, line, v, name) for v, name in ((part, "hidden"), (whole, "all")))
            yield divided("train.overlap", (a, b), "fraction", spans=(doc.span(line),))
            return


def _time(doc: Document, line: Line, value: float, name: str) -> Fact:
    return fact(doc, line, "train.comm_part", value, "count", label=name)


_ACS = regex(r"setpci\b[^\n]*ACS", re.IGNORECASE)
_HEX = regex(r"^\s*([0-9a-f]{4})\s*$", re.IGNORECASE)
_REDIRECTS = 0x04 | 0x08 | 0x10  # request redirect, completion redirect, upstream forwarding


class AcsControl:
    """Values of the ACS control register as `setpci` prints them."""

    name = "acs_control"
    needles: tuple[bytes, ...] = (b"setpci",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`pci.acs_redirects` for the first register with a redirect bit."""
        asked = False
        for line in excerpt(doc, _SMALL, 2000):
            if _ACS.search(line.text):
                asked = "=" not in line.text[line.text.lower().rindex("acs") :]
                continue
            value = _HEX.match(line.text) if asked else None
            asked = value is not None
            if value is not None and int(value[1], 16) & _REDIRECTS:
                yield fact(doc, line, "pci.acs_redirects", value[1])
                return


_SPEED = regex(
    r"(?<![\w.:/])(?P<nic>(?:eno|ens|enp|eth|ib|bond|em|enP)\w*\d\w*)(?:\W{1,3}grep)?\W{1,3}(?:[Ss]peed\W{0,3})?(?P<v>\d{2,6})"
    r"(?: ?(?P<u>Mb/s|Mbps|Gb/s|Gbps|Gbit/s|G|GbE)\b|(?=\s+(?:UP|up|DOWN|full)\b))"
)


class InterfaceSpeeds:
    """Interfaces with their speed on one line, as loops over /sys/class/net or notes have them."""

    name = "interface_speeds"  # also `ethtool eno1 | grep Speed: 1000Mb/s`
    needles: tuple[bytes, ...] = (b"Mb/s", b"Mbps", b"/speed", b"Gb/s", b"Gbps", b"GbE")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.interface.speed` of each."""
        for line in excerpt(doc, _SMALL, 2000):
            if (hit := _SPEED.search(line.text)) is not None:
                value = float(hit["v"])
                mega = not (hit["u"] or "M").startswith("G")
                if mega and value % 1000 == 0 and value >= 1000:
                    yield Fact(
                        "net.interface.speed", value / 1000, "Gb/s", Subject(nic=hit["nic"]), (doc.span(line),),
                        kind="derived", formula="a / 1000",
                        inputs=(fact(doc, line, "net.interface.printed", value, "count", nic=hit["nic"]),),
                        status=doc.status,
                    )  # fmt: skip
                elif not mega:
                    yield fact(doc, line, "net.interface.speed", value, "Gb/s", nic=hit["nic"])


READERS: list[Reader] = [LoaderCode(), UnsyncedTimer(), OverlapProse(), AcsControl(), InterfaceSpeeds()]
