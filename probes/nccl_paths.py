"""The way between hosts as people check it: pings, MTUs by interface, hosts of a launch, adapters, pairs of GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import computed, excerpt, fact
from .nccl_rings import RingReader

LINES = 2000
_PING = regex(
    r"\bping\b.*?(?:-M\s*(?:do|want)|-D\b|-f\b)?.*?\s-[sl]\s*(\d{2,5})\b"
    r"|\bping\b.*\bDF\b.*?(\d{3,5})",
    re.IGNORECASE,
)
_SIZED = regex(
    r"(?:payload|size|-s|ping|DF)\D{0,12}(\d{3,5})\s*(?:B|bytes|字节)?\W{1,6}(?P<how>ok|works?|passes|pass"
    r"|replies|\d/\d received|fails?|lost|no reply|timeout|times out|dropped|100% (?:packet )?loss|"
    r"不通|通|丢)",
    re.IGNORECASE,
)
_REPLY = regex(r"bytes from |[1-9]\d* (?:packets )?received|\b0% (?:packet )?loss", re.IGNORECASE)
_LOST = regex(
    r"\b0 (?:packets )?received|100% (?:packet )?loss|[Mm]essage too long|local error"
    r"|[Ff]rag(?:mentation)? needed|no (?:reply|answer)|timeout",
    re.IGNORECASE,
)
_IP_LINK = regex(r"^\s*\d+:\s+([\w.-]+)(?:@\S+)?:\s+<.*?\bmtu\s+(\d+)")
_IFCONFIG = regex(r"^\s*([a-z][\w.-]+):?\s.*\b(?:mtu|MTU)[ :=](\d{3,5})\b")
_SYSFS = regex(r"/sys/class/net/([\w.-]+)/mtu\b(?:\D{1,4}(\d{3,5})\s*$)?")
_PMTU = regex(r"\bpmtu\s+(\d{3,5})\b", re.IGNORECASE)
_NAMED = regex(r"\bip\s.*\b(?:link|addr)\s+(?:show|ls)\s+(?:dev\s+)?([\w.-]+)")
_BARE = regex(r"^\s*(?:.*\bmtu\s+)?(\d{3,5})\s*$")
_LAUNCH = regex(
    r"(?:^|\s)(?:-H|--host|-host|--hosts)[ =](\S+)|--nnodes[ =](\d+)|(?:^"
    r"|\s)-N ?(\d+)\b.*\bsrun|\bsrun\b.*\s-N ?(\d+)\b|--nodes[ =](\d+)|#SBATCH.*(?:-N|--nodes)[ =](\d+)"
)
_NIC_WORDS = regex(
    r"\b(\d{1,2})\s?[x×*]\s?(?:\w+[- ]){0,3}?(?:(?P<name>NDR|HDR|EDR|FDR|XDR)\s?(?P<named>\d{2,3})?"
    r"|(?P<rate>\d{2,3})\s?(?:G\b|Gb/?s?|GbE|Gbps|Gbit/s))",
)
_COUNTED = regex(r"(?:ibstat|ibstatus|ibv_devinfo).*grep\s+-c\s+.*?(\d{2,3})\b")


def _answered(doc: Document, asked: tuple[float, Line], line: Line, how: str) -> Fact:
    """A ping with the line that says how it went."""
    spans = (doc.span(asked[1]), doc.span(line))
    return Fact("net.ping", asked[0], "B", Subject(label=how), spans, status=doc.status)


class PathReader:
    """Pings that forbid fragmentation, and MTUs with the name of their interface."""

    name = "net_path"
    needles = (b"ping", b"PING", b"mtu", b"MTU", b"DF")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.ping` (size, how it went) and `net.mtu`."""
        asked: tuple[float, Line] | None = None
        named = ""
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                return
            text = line.prefix + line.text
            if hit := _PING.search(text):
                asked = (float(hit[1] or hit[2]), line)
                tail = text[hit.end() :]
                if re.search(
                    r"\b(?:ok|works?|fine|reply|通过)\b|正常"
                    r"|\b通",
                    tail,
                    re.IGNORECASE,
                ) and not re.search(r"not|no |不", tail):
                    yield fact(doc, line, "net.ping", asked[0], "B", label="ok")
                    asked = None
                elif re.search(
                    r"\b(?:fail\w*|lost|no (?:reply|answer)|time\w*|drop\w*|hangs?)\b|100%|不通"
                    r"|丢",
                    tail,
                    re.IGNORECASE,
                ):
                    yield fact(doc, line, "net.ping", asked[0], "B", label="lost")
                    asked = None
            elif asked is not None and _LOST.search(text):
                yield _answered(doc, asked, line, "lost")
                asked = None
            elif asked is not None and _REPLY.search(text):
                yield _answered(doc, asked, line, "ok")
                asked = None
            else:
                for sized in _SIZED.finditer(text):
                    how = sized["how"]
                    good = re.match(r"ok|work|pass|repl|[1-9]|通", how, re.IGNORECASE) and not how.startswith("100")
                    yield fact(doc, line, "net.ping", float(sized[1]), "B", label="ok" if good else "lost")
            if hit := _IP_LINK.match(text) or _IFCONFIG.match(text):
                yield fact(doc, line, "net.mtu", float(hit[2]), "B", label=hit[1])
                named = ""
                continue
            if hit := _SYSFS.search(text):
                named = hit[1]
                if hit[2]:
                    yield fact(doc, line, "net.mtu", float(hit[2]), "B", label=named)
                    named = ""
                continue
            if hit := _NAMED.search(text):
                named = hit[1]
                continue
            for pmtu in _PMTU.findall(text):
                yield fact(doc, line, "net.path_mtu", float(pmtu), "B")
            if named and (hit := _BARE.match(text)):
                yield fact(doc, line, "net.mtu", float(hit[1]), "B", label=named)
            named = ""


class LaunchReader:
    """How many hosts a launch names, and how many adapters of which rate somebody writes down."""

    name = "launch"
    needles = (
        b"mpirun",
        b"torchrun",
        b"srun",
        b"SBATCH",
        b"nnodes",
        b"NDR",
        b"HDR",
        b"EDR",
        b"XDR",
        b"Gb",
        b"GbE",
        b"Rate: ",
        b"0G",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`launch.hosts`, `net.adapters` (count) with `net.adapter.rate`."""
        counted: tuple[float, Line] | None = None
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                return
            text = line.prefix + line.text
            if hit := _LAUNCH.search(text):
                if hit[1]:
                    hosts = len({h.split(":")[0] for h in hit[1].split(",") if h})
                    if hosts > 1:
                        yield Fact(
                            "launch.hosts", float(hosts), "count", Subject(), (doc.span(line, hit[1]),), kind="derived",
                            formula="reader:launch", status=doc.status,
                        )  # fmt: skip
                else:
                    value = next(g for g in hit.groups()[1:] if g)
                    yield fact(doc, line, "launch.hosts", float(value), "count")
            if counted is not None and (got := re.match(r"^\s*(\d{1,2})\s*$", text)):
                yield fact(doc, line, "net.adapters", float(got[1]), "count")
                yield fact(doc, counted[1], "net.adapter.rate", counted[0], "Gb/s")
                counted = None
            elif not text.strip().isdecimal():
                counted = None
            if hit := _COUNTED.search(text):
                counted = (float(hit[1]), line)
            elif (hit := _NIC_WORDS.search(text)) and "NCCL INFO" not in text:
                rate = hit["rate"] or hit["named"]
                if rate and 10 <= float(rate) <= 800 and float(hit[1]) <= 32:
                    yield fact(doc, line, "net.adapters", float(hit[1]), "count")
                    yield fact(doc, line, "net.adapter.rate", float(rate), "Gb/s")


_LINK = regex(r"\b(NV\d{1,2}|PIX|PXB|PHB|NODE|SYS)\b")
_SPEED = regex(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(GB/s)?(?![\w.]*[=/,])")
_TEST_ROW = regex(r"^\s*\d+\s+\d+\s+[a-z]\w+\s+\w+\s+-?\d+\s+[\d.]+\s+[\d.]+\s+(\d+(?:\.\d+)?)\b")
_RATE = regex(r"^\s*(\S{0,80}?[A-Za-z]\S{0,80}?)[:\s]+(?:\S{1,80}\s+){0,2}?Rate:?\s*(\d{2,3})\b")


class PairReader:
    """Bandwidth of a pair of GPUs beside the path between them, and port rates host by host."""

    name = "gpu_pairs"
    needles = (b"SYS", b"NODE", b"PIX", b"PXB", b"PHB", b"NV", b"Rate", b"nvlink", b"NVLink")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`path.bandwidth` (path as label) and `net.rate` (host as label)."""
        unit = links_up = False
        above = ""  # the path that a heading names
        for n, line in enumerate(doc.lines()):
            if n > 200:
                return
            text = line.prefix + line.text
            if above and (row := _TEST_ROW.match(text)):
                yield fact(doc, line, "path.bandwidth", float(row[1]), "GB/s", label=above)
                continue
            if re.match(r"\s*(?:#|//|==|--|\*)", text) or text.rstrip().endswith(":"):
                heads = _LINK.findall(text)
                above = heads[0] if len(heads) == 1 else above if not heads else ""
            unit |= re.search(r"GB/s|busbw|bandwidth|带宽", text, re.IGNORECASE) is not None
            if re.search(r"nvlink.*(?:grep\s+-c|wc\s+-l|links? up|active)|active (?:nv)?links", text, re.IGNORECASE):
                links_up = True
            elif links_up and (hit := re.match(r"^\s*GPU ?(\d+)\W+(\d{1,2})(?:\s*/\s*\d+)?\s*$", text)):
                yield fact(doc, line, "nvlink.links_up", float(hit[2]), "count", gpu=int(hit[1]))
            if hit := _RATE.match(text):
                yield fact(doc, line, "net.rate", float(hit[2]), "Gb/s", label=hit[1])
            links = _LINK.findall(text)
            if len(links) != 1 or not unit or "NCCL INFO" in text:
                continue
            plain = re.sub(
                r"\S+=\S+|GPU ?\d+(?:\s*(?:[-,<>→↔]+|to|and)\s*(?:GPU ?)?\d+)*"
                r"|\b\d+\s*(?:[-,<>→↔]+)\s*\d+\b|\(?\bNV\d+\b|-[a-z] \S+|\d+\s*[KMG]i?B?\b(?!/s)",
                " ",
                text,
            )
            values = [float(v) for v, _ in _SPEED.findall(plain)]
            values = [float(v) for v, u in _SPEED.findall(plain) if u] or values
            if len(values) == 1 and 0.1 <= values[0] <= 2000:
                yield fact(doc, line, "path.bandwidth", values[0], "GB/s", label=links[0])


# Adapters of a machine and the rate of each, Gb/s: the vendors' pages of the instance types.
_INSTANCES = {
    "p3dn.24xlarge": (1, 100), "p4d.24xlarge": (4, 100), "p4de.24xlarge": (4, 100), "p5.48xlarge": (32, 100),
    "p5e.48xlarge": (32, 100), "p5en.48xlarge": (16, 200), "g4dn.12xlarge": (1, 50), "g4dn.metal": (1, 100),
    "g5.12xlarge": (1, 40), "g5.24xlarge": (1, 50), "g5.48xlarge": (1, 100), "g6.12xlarge": (1, 40),
    "g6.48xlarge": (1, 100), "g6e.12xlarge": (1, 100), "g6e.24xlarge": (1, 200), "g6e.48xlarge": (4, 100),
    "a3-highgpu-8g": (4, 200), "a3-megagpu-8g": (8, 200), "a3-ultragpu-8g": (8, 400),
    "Standard_ND96asr_v4": (8, 200), "Standard_ND96amsr_A100_v4": (8, 200), "Standard_ND96isr_H100_v5": (8, 400),
}  # fmt: skip
_TYPE = regex("|".join(re.escape(name) for name in sorted(_INSTANCES, key=len, reverse=True)))
_FOUND = regex(r"[Pp]rovider is efa\b[^\n]*\(found (\d{1,2}) nics?\)")
_EFA_RATE = {4: 100.0, 32: 100.0, 16: 200.0}  # by their number: p4d, p5, p5en


class CloudPorts:
    """Adapters of an instance type that is named, or that the EFA plugin counts."""

    name = "cloud_ports"
    needles = (b"xlarge", b"a3-", b"Standard_ND", b"g4dn.metal", b"rovider is efa")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.adapters` and `net.adapter.rate`, unless the text counts them itself."""
        if any(_NIC_WORDS.search(line.text) for line in excerpt(doc, 1 << 15, 200)):
            return
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                return
            count, rate = 0, 0.0
            if (hit := _FOUND.search(line.text)) is not None:
                count, rate = int(hit[1]), _EFA_RATE.get(int(hit[1]), 0.0)
            elif (hit := _TYPE.search(line.text)) is not None:
                count, rate = _INSTANCES[hit[0]]
            if count and rate:
                yield computed(doc, line, "net.adapters", float(count), "count", self.name)
                yield computed(doc, line, "net.adapter.rate", float(rate), "Gb/s", self.name)
                return


READERS = [PathReader(), LaunchReader(), PairReader(), RingReader(), CloudPorts()]
