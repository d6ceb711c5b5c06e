"""Figures that are slow by nature: the CPU reading mapped device memory, an all-to-all that leaves the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, excerpt, fact

_SMALL = 1 << 15
_LINES = 400
_COPY = regex(
    r"(?P<read>\bread BW\b|gdr_copy_from_mapping|(?:GPU|device|BAR1?) ?(?:->|→|to) ?(?:CPU|host)\b|\bD2H\b|DtoH|\bread\w*\b)"  # noqa: E501
    r"|(?P<write>\bwrite BW\b|gdr_copy_to_mapping|(?:CPU|host) ?(?:->|→|to) ?(?:GPU|device|BAR1?)\b|\bH2D\b|HtoD|\bwrit\w+\b)",  # noqa: E501
    re.IGNORECASE,
)
_RATE = regex(r"(?<![\w.])(?P<v>\d+(?:\.\d+)?)\s*(?P<u>[GM])i?B/s")
_MAPPED = regex(r"gdr_?copy|gdr_copy_(?:to|from)_mapping|\bBAR1?\b|write-combin|copybw", re.IGNORECASE)
_BY_ENGINE = regex(r"cudaMemcpy|cuMemcpy|nvbandwidth|bandwidthTest", re.IGNORECASE)


class MappedCopies:
    """`write BW: 12311.4MB/s`, `read BW: 571.9MB/s` of gdrcopy, or of a program that maps the BAR."""

    name = "mapped_copies"
    needles: tuple[bytes, ...] = (b"gdr", b"BAR", b"write-combin", b"write BW")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gdr.mapped_read` and `gdr.mapped_write`, the first of each."""
        lines = excerpt(doc, _SMALL, _LINES)
        if not any(_MAPPED.search(ln.prefix + ln.text) for ln in lines) and b"reading test, size=" not in doc.data:
            return
        seen: set[str] = set()
        for line in lines:
            text = line.prefix + line.text
            way, rate = _COPY.search(text), _RATE.search(text)
            if way is None or rate is None or _BY_ENGINE.search(text):
                continue
            name = "gdr.mapped_read" if way["read"] else "gdr.mapped_write"
            if name not in seen:
                seen.add(name)
                value = float(rate["v"])
                if rate["u"] == "M":
                    yield computed(doc, line, name, value / 1000, "GB/s", self.name)
                else:
                    yield fact(doc, line, name, value, "GB/s")


_ALLTOALL = regex(r"all[-_ ]?to[-_ ]?all|\ba2a\b", re.IGNORECASE)
_BUSBW = regex(r"(?<![\w.])(?P<v>\d+(?:\.\d+)?)\s*(?P<u>GB/s|Gb/s)?\s*(?:\(busbw\)|busbw)?\s*(?:\(.*)?$")
_RANKS = regex(r"(?<![\w.])(?P<a>\d{1,5}) ?(?:ranks|GPUs in all|卡)(?![\w])|\bnranks (?P<b>\d{1,5})", re.IGNORECASE)
_NIC = regex(
    r"(?:\b8 ?[x×] ?|one |own |each |一张 ?|\d GPUs?, )(?:(?:HDR|NDR|EDR|RoCE|CX-?\d|ConnectX-?\d) ?)?(?P<g>100|200|400|800) ?(?:G\b|Gb/s|Gbps|Gbit/s)",  # noqa: E501
    re.IGNORECASE,
)
NODES = regex(r"(?<![\w.])(?P<n>[2-9]|[1-9]\d{1,3}) ?(?:nodes?|hosts?|machines?|台|机|[x×] ?8\b)", re.IGNORECASE)


class AllToAllNotes:
    """An all-to-all's bus bandwidth with the ranks, machines and adapters it ran over."""

    name = "alltoall_notes"
    needles: tuple[bytes, ...] = (b"lltoall", b"ll-to-all", b"ll_to_all", b"a2a", b"LLTOALL")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The facts, where a line names the operation and a rate."""
        lines = excerpt(doc, _SMALL, _LINES)
        busbw = self._measured(lines)
        if busbw is None:
            return
        rate, line, unit = busbw
        if unit == "Gb/s":
            yield computed(doc, line, "alltoall.busbw", rate / 8, "GB/s", self.name)
        else:
            yield fact(doc, line, "alltoall.busbw", rate, "GB/s")
        for signal, pattern, unit in (("ranks", _RANKS, "count"), ("nodes", NODES, "count"), ("nic", _NIC, "Gb/s")):
            for line in lines:
                hit = pattern.search(line.prefix + line.text)
                if hit is not None:
                    yield fact(doc, line, f"alltoall.{signal}", float(next(g for g in hit.groups() if g)), unit)
                    break

    @staticmethod
    def _measured(lines: list[Line]) -> tuple[float, Line, str] | None:
        """The rate of the row that names the operation; a table of nccl-tests gives its own."""
        found: list[tuple[float, Line, str]] = []
        for line in lines:
            text = line.prefix + line.text
            if not _ALLTOALL.search(text) or re.search(r"one node|single node|单机|单节点", text) or "#" in text[:3]:
                continue
            hit = _BUSBW.search(text.rstrip())
            if hit is not None and float(hit["v"]) > 1 and not re.search(r"\d\s*[GMK]i?B?\s*$", text):
                found.append((float(hit["v"]), line, hit["u"] or "GB/s"))
        return found[0] if found else None


READERS: list[Reader] = [MappedCopies(), AllToAllNotes()]
