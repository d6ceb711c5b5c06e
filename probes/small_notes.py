"""Short outputs and retyped lines: a GPU in a line, mlxlink, `ip -s link`, `ss -ti`, nfsiostat, locust, Slurm TRES."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact, gib


class GpuNotes:
    """`GPU2 96% 93C 645MHz 180W`, one a line or several in a row: at least two readings with their units."""

    name = "gpu_notes"
    needles: tuple[bytes, ...] = (b"MHz", b"Mhz", b"mhz")
    _gpu = regex(r"\bGPU[ #_-]?(\d{1,2})\b(?!\s*(?:ms|us|s|GB|%|MHz|W|C)\b)", re.IGNORECASE)
    _temp = regex(r"(?<![\d.])(\d{2,3})\s?(?:°\s?C|C|℃|degC)\b", re.IGNORECASE)
    _clock = regex(r"(?<![\d.])(\d{3,4})\s?MHz(?!\s*(?:mem|max|/))(?:\s*\(?(?:of|/)\s*\d+)?", re.IGNORECASE)
    _memory_clock = regex(r"\bmem\w*(?: clocks?)?\s*[:=@]?\s*$", re.IGNORECASE)
    _power = regex(r"(?<![\d.])(\d{2,4}(?:\.\d+)?)\s?W(?:\s?/\s?(\d{2,4}(?:\.\d+)?)\s?W)?\b")
    _util = regex(r"(?<![\d.])(\d{1,3})\s?%")
    _used = regex(r"(?<![\d.])(\d+(?:\.\d+)?)\s?(MiB|GiB|GB|MB)?\s?/\s?(\d+(?:\.\d+)?)\s?(MiB|GiB|GB|MB)\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A GPU's readings stand between its name and the next one's."""
        if b"NVIDIA-SMI" in doc.head or b"DCGM_FI" in doc.head:
            return
        for line in doc.lines():
            if "hz" not in line.text.lower():
                continue
            names = list(self._gpu.finditer(line.text))
            for name, after in zip(names, [*names[1:], None], strict=False):
                part = line.text[name.end() : after.start() if after is not None else None]
                found = list(self._readings(doc, line, part, int(name[1])))
                if len(found) >= 2:
                    yield from found

    def _readings(self, doc: Document, line: Line, part: str, gpu: int) -> Iterator[Fact]:
        if (hit := self._temp.search(part)) is not None:
            yield fact(doc, line, "gpu.temperature", float(hit[1]), "C", gpu=gpu)
        clock = next((h for h in self._clock.finditer(part) if not self._memory_clock.search(part[: h.start()])), None)
        if clock is not None:
            yield fact(doc, line, "gpu.clock.sm", float(clock[1]), "MHz", gpu=gpu)
        if (hit := self._power.search(part)) is not None:
            yield fact(doc, line, "gpu.power", float(hit[1]), "W", gpu=gpu)
            if hit[2]:
                yield fact(doc, line, "gpu.power.limit", float(hit[2]), "W", gpu=gpu)
        shares = [h for h in self._util.finditer(part) if not re.search(r"(?:mem\w*|fan)\W*$", part[: h.start()], re.I)]
        if len(shares) == 1:
            yield fact(doc, line, "gpu.util", float(shares[0][1]) / 100, "fraction", gpu=gpu)
        if (hit := self._used.search(part)) is not None:
            used, total = gib(hit[1], hit[2] or hit[4]), gib(hit[3], hit[4])
            if used is not None and total is not None and total > 1:
                yield fact(doc, line, "gpu.memory.used", used, "GiB", gpu=gpu)
                yield fact(doc, line, "gpu.memory.total", total, "GiB", gpu=gpu)


class LinkReports:
    """mlxlink, `ip -s link` and `ss -ti`: error and drop counters, and what the tool recommends."""

    name = "link_report"
    needles: tuple[bytes, ...] = (
        b"Link Down Counter",
        b"Troubleshooting Info",
        b"RX:",
        b"RX errors",
        b"rto:",
        b"BER  ",
    )
    _down = regex(r"Link Down Counter\s*:\s*(\d+)")
    _errors = regex(r"Effective Physical Errors\s*:\s*(\d+)")
    _advice = regex(r"Recommendation\s*:\s*(\S.*?)\s*$")
    _fine = regex(r"No issue was observed|^-+$", re.IGNORECASE)
    _name = regex(r"^\s*(?:\d+:\s+)?([\w.@-]+):\s+(?:<|flags=)")
    _head = regex(r"^\s*([RT]X):?\s+bytes\s+packets\s+errors\s+dropped\b")
    _row = regex(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\b")
    _ifconfig = regex(r"^\s*([RT]X) errors (\d+)\s+dropped (\d+)")
    _retrans = regex(r"\bretrans:\d+/(\d+)\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Counters at zero are left out."""
        nic: str | None = None
        way: str | None = None
        for line in doc.lines():
            text = line.text
            if (hit := self._name.match(text)) is not None:
                nic = hit[1]
            if (hit := self._down.search(text)) is not None and hit[1] != "0":
                yield fact(doc, line, "rdma.counter", float(hit[1]), "count", label="link_downed", nic=nic)
            if (hit := self._errors.search(text)) is not None and hit[1] != "0":
                yield fact(doc, line, "rdma.counter", float(hit[1]), "count", label="symbol_error (effective)", nic=nic)
            if (hit := self._advice.search(text)) is not None and not self._fine.search(hit[1]):
                yield fact(doc, line, "net.advice", hit[1][:120], nic=nic)
            if way is not None and (hit := self._row.match(text)) is not None:
                yield from self._counts(doc, line, nic, way, hit[3], hit[4])
            way = head[1] if (head := self._head.match(text)) is not None else None
            if (hit := self._ifconfig.match(text)) is not None:
                yield from self._counts(doc, line, nic, hit[1], hit[2], hit[3])
            if (hit := self._retrans.search(text)) is not None and int(hit[1]) > 0:
                yield fact(doc, line, "net.tcp.retransmits", float(hit[1]), "count")

    @staticmethod
    def _counts(doc: Document, line: Line, nic: str | None, way: str, errors: str, dropped: str) -> Iterator[Fact]:
        for what, number in (("errors", errors), ("dropped", dropped)):
            if int(number) > 0:
                yield fact(
                    doc, line, "net.interface.lost", float(number), "count", label=f"{way.lower()} {what}", nic=nic
                )


class Others:
    """nfsiostat, locust, the TRES line of Slurm, and the acceptance length of a benchmark."""

    name = "small_notes"
    needles: tuple[bytes, ...] = (b"avg exe (ms)", b"# reqs", b"TRES=", b"Accept length:", b'"accept_length"')
    _mount = regex(r"^(\S+:\S+) mounted on (\S+?):?\s*$")
    _nfs = regex(r"^\s*[\d.]+\s+[\d.]+\s+[\d.]+\s+\d+ \([\d.]+%\)\s+[\d.]+\s+(\d+(?:\.\d+)?)")
    _locust = regex(
        r"^\s*(?:GET|POST|PUT|grpc)\s+(\S+)\s+(\d+)\s+(\d+)\([\d.]+%\)\s*\|\s*(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s*\|\s*(\d+(?:\.\d+)?)"
    )
    _tres = regex(r"\bTRES=(\S+)")
    _accept = regex(r'^\s*Accept length:\s+(\d+(?:\.\d+)?)|"accept_length"\s*:\s*(\d+(?:\.\d+)?)')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Each line by itself, but for the mount that a row of nfsiostat belongs to."""
        mount: str | None = None
        for line in doc.lines():
            text = line.text
            if (hit := self._mount.match(text)) is not None:
                mount = hit[2]
            elif mount is not None and (hit := self._nfs.match(text)) is not None:
                yield fact(doc, line, "host.disk.await", float(hit[1]), "ms", label=f"nfs {mount}")
            elif (hit := self._locust.match(text)) is not None:
                for label, group in (("mean", 4), ("min", 5), ("max", 6), ("median", 7)):
                    yield fact(doc, line, "serving.client.e2e", float(hit[group]), "ms", label=label)
                yield fact(doc, line, "serving.client.failed", float(hit[3]), "count")
                yield fact(doc, line, "serving.client.request_tput", float(hit[8]), "req/s")
            elif (hit := self._tres.search(text)) is not None:
                for item in hit[1].split(","):
                    key, _, value = item.partition("=")
                    if key in ("cpu", "gres/gpu", "mem", "node") and value:
                        yield fact(doc, line, "slurm.option", value, label=f"TRES {key}")
            elif (hit := self._accept.search(text)) is not None:
                yield fact(
                    doc, line, "serving.accept_length", float(hit[1] or hit[2]), "count", around=hit[0], label="min"
                )


READERS: list[Reader] = [GpuNotes(), LinkReports(), Others()]
