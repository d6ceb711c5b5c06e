"""Short outputs as people paste them: `ip -br`, sysfs NUMA files, `curl -w` on two paths, `kubectl top`,
`docker stats`, `perf stat`, `scontrol show node`, `nstat`, `netstat -s`, `ss -ti`, turbostat, cpupower,
`gdscheck -p`, mlxlink.

Source: iproute2 6.x (`ip`, `ss`, `nstat`), net-tools, curl, kubectl 1.3x, Docker CLI 27, Linux 6.x `tools/power`,
GPUDirect Storage 1.x `gdscheck`, MFT 4.x `mlxlink`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, fact, size

_MANY = 10_000  # segments from which a share of them says something
_NOTICED = 0.1  # seconds to the first byte that a user would notice


def _over(doc: Document, signal: str, label: str, part: tuple[Line, float], whole: tuple[Line, float],
          read: str, unit: str) -> Fact:  # fmt: skip
    """One figure over another, both as printed."""
    sides = tuple(
        fact(doc, line, read, value, unit, label=f"{label} {side}")
        for side, (line, value) in (("part", part), ("whole", whole))
    )
    return divided(signal, sides, "fraction", Subject(label=label), spans=sides[0].spans)


class BriefLinks:
    """`ip -br addr`, `ip -br link` and the state in `ip link`."""

    name = "ip_brief"
    needles: tuple[bytes, ...] = (b" UNKNOWN  ", b" state UP ", b" state DOWN ", b"NO-CARRIER")
    _brief = regex(
        r"^([A-Za-z][\w.-]{1,14}(?:@\w+)?)\s+(UP|DOWN|UNKNOWN|LOWERLAYERDOWN)(?:\s+[0-9a-f]+[.:][0-9a-f:./]+\b.*|\s*)$"
    )
    _long = regex(r"^(?:\d+:\s+)?([\w.-]+)(?:@\w+)?:\s+<([^>]*)>.*\bstate (UP|DOWN|UNKNOWN)\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The state of each interface; the loopback shows that the list is whole."""
        for line in doc.lines():
            hit = self._brief.match(line.text)
            if hit is not None:
                yield fact(doc, line, "net.interface.state", hit[2], nic=hit[1].split("@")[0])
            elif (hit := self._long.match(line.text)) is not None:
                yield fact(doc, line, "net.interface.state", hit[3], nic=hit[1])


class NumaFiles:
    """NUMA nodes of PCI devices where the value stands on the line below the path."""

    name = "numa_files"
    needles: tuple[bytes, ...] = (b"/numa_node\n", b"/numa_node\r\n")
    _path = regex(r"/devices/\S*?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d)/numa_node\s*$")
    _value = regex(r"^\s*(-?\d{1,2})\s*$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A path, then its value."""
        device: str | None = None
        for line in doc.lines():
            if device is not None and (value := self._value.match(line.text)) is not None:
                yield fact(doc, line, "pci.numa", float(value[1]), "count", label=device)
            device = hit[1] if (hit := self._path.search(line.text)) is not None else None


class CurlPaths:
    """`curl -w` of one endpoint on two ways: when the first byte came, and when the last."""

    name = "curl_paths"
    needles: tuple[bytes, ...] = (b"time_starttransfer", b"ttfb", b"TTFB")
    _format = regex(r"%\{time_(\w+)\}")
    _keyed = regex(r"(?i:\b(?:time_)?(starttransfer|ttfb|total)\s*[:=]?\s*(\d+\.\d+)(?=s?\b))")
    _heads = regex(r"\btime_(\w+)")
    _url = regex(r"https?://[^\s'\"]+")
    _hop = regex(
        r"gateway|\bgw\b|proxy|nginx|ingress|envoy|istio|traefik|haproxy|balancer|\bl[7b]\b|\bvia\b|https://|网关|代理",
        re.I,
    )
    _direct = regex(
        r"direct|localhost|127\.0\.0\.1|\bpod\b|svc\.cluster|bypass|without|:(?:8000|8001|30000)\b|直连", re.I
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The slower first byte over the faster, where the slow way has a hop in it or the fast one has none."""
        runs = list(self._runs(doc))
        if len({where for where, _, _ in runs}) < 2:
            return
        slow, fast = max(runs, key=lambda r: r[2]), min(runs, key=lambda r: r[2])
        if (
            fast[2] <= 0
            or slow[2] - fast[2] < _NOTICED
            or not (self._hop.search(slow[0]) or self._direct.search(fast[0]))
        ):
            return
        if self._direct.search(slow[0]) and not self._direct.search(fast[0]):
            return
        sides = tuple(
            fact(doc, line, "serving.stage_total", v * 1000, "ms", label=f"first byte: {w[:60]}")
            for w, line, v in (slow, fast)
        )
        yield divided("proxy.first_byte", sides, subject=Subject(label="slower over faster"), spans=sides[0].spans)

    def _runs(self, doc: Document) -> Iterator[tuple[str, Line, float]]:
        """Way, line, and first byte in seconds."""
        if next(possible(doc.lines(), self._format, self._keyed, words=("time_starttransfer",)), None) is None:
            return
        where, order = "", list[str]()
        times: dict[str, float] = {}
        for line in doc.lines():
            text = line.text
            if (url := self._url.search(text)) is not None:
                where = f"{text[: url.start()][-40:] if not self._format.search(text) else ''}{url.group()}"
            heads = self._heads.findall(text) if "time_starttransfer" in text and not re.search(r"\d", text) else []
            if named := self._format.findall(text) or heads:
                order = named
                continue
            keyed = self._keyed.findall(text)
            label = re.match(r"\s*([^:%=]{2,40}?)\s*[:=]\s+time_", text)
            if keyed and label is not None:
                where = label[1]
            if not keyed and text.strip() and not re.search(r"\d\.\d", text) and len(text) < 80 and url is None:
                where = text.strip(" #-=:") or where
            numbers = re.findall(r"(?<![\w.])\d+\.\d+", self._url.sub("", text)) if order and not keyed else []
            if order and len(numbers) == len(order):
                times.update((k, float(v)) for k, v in zip(order, numbers, strict=True))
            times.update((k.lower().replace("ttfb", "starttransfer"), float(v)) for k, v in keyed)
            if "starttransfer" in times and ("total" in times or not order):
                yield where, line, times["starttransfer"]
                times = {}


class ContainerUse:
    """`docker stats` and `kubectl top pod`: memory against its limit, cores in use."""

    name = "container_use"
    needles: tuple[bytes, ...] = (b"MEM USAGE / LIMIT", b"MEMORY(bytes)")
    _docker = regex(r"\s(\d[\d.]*\s?[KMG]i?B) / (\d[\d.]*\s?[KMGT]i?B)\s+\d[\d.]*%")
    _top = regex(r"^\s*(?:[\w-]+\s+)?([a-z0-9][\w.-]*)\s+(\d+)m\s+(\d+)Mi\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A row a container."""
        for line in doc.lines():
            if (hit := self._docker.search(line.text)) is not None:
                used, limit = size(hit[1]), size(hit[2])
                if used is not None and limit:
                    yield _over(doc, "container.memory_share", "docker stats", (line, used), (line, limit),
                                "container.memory", "GiB")  # fmt: skip
            elif (hit := self._top.match(line.text)) is not None:
                yield fact(doc, line, "host.process.cpu", int(hit[2]) / 1000, "count", label=hit[1][:60])


class Retransmits:
    """`nstat`, `netstat -s` and `ss -ti`: what TCP sent again, over what it sent."""

    name = "tcp_retransmits"
    needles: tuple[bytes, ...] = (b"TcpRetransSegs", b"segments retransmit", b"bytes_retrans:")
    _sent = regex(r"^\s*TcpOutSegs\s+(\d+)|^\s*(\d+) segments sent out\b")
    _again = regex(r"^\s*TcpRetransSegs\s+(\d+)|^\s*(\d+) segments retransmit")
    _flow = regex(r"\bbytes_sent:(\d+)\b.*?\bbytes_retrans:(\d+)\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A share for the host, and that of the worst connection."""
        sent: tuple[Line, float] | None = None
        again: tuple[Line, float] | None = None
        flows: list[tuple[Line, float, float]] = []
        for line in doc.holding("OutSegs", "RetransSegs", "segments", "bytes_retrans"):
            if (hit := self._sent.match(line.text)) is not None:
                sent = line, float(hit[1] or hit[2])
            elif (hit := self._again.match(line.text)) is not None:
                again = line, float(hit[1] or hit[2])
            elif (hit := self._flow.search(line.text)) is not None and int(hit[1]) > _MANY * 1448:
                flows.append((line, float(hit[2]), float(hit[1])))
        signal = "net.tcp.retransmit_share"
        if sent is not None and again is not None and sent[1] > _MANY and again[1] <= sent[1]:
            yield _over(doc, signal, "host", again, sent, "counter.read", "count")
        if flows:
            line, part, whole = max(flows, key=lambda f: f[1] / f[2])
            yield _over(doc, signal, "connection", (line, part), (line, whole), "counter.read", "count")


class CpuClock:
    """turbostat and cpupower: the clock that busy cores run at, or are allowed, over the nominal or the highest."""

    name = "cpu_clock"
    needles: tuple[bytes, ...] = (b"Bzy_MHz", b"frequency should be within")
    _highest = regex(r"hardware limits:\s*[\d.]+ [MG]Hz - ([\d.]+) ([MG]Hz)")
    _policy = regex(r"frequency should be within\s+[\d.]+ [MG]Hz and ([\d.]+) ([MG]Hz)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """turbostat's summary row, when the cores are busy; cpupower's policy."""
        heads: list[str] = []
        summed = False
        highest: tuple[Line, float] | None = None
        for line in doc.lines():
            cells = line.text.split()
            if "Bzy_MHz" in cells:
                heads, summed = cells, False
            elif heads and not summed and len(cells) >= heads.index("Bzy_MHz") + 2 and cells[0] == "-":
                row = dict(zip(heads, cells, strict=False))
                if all(re.fullmatch(r"\d+(\.\d+)?", row.get(k, "")) for k in ("Busy%", "Bzy_MHz", "TSC_MHz")):
                    summed = True
                    if float(row["Busy%"]) >= 30 and float(row["TSC_MHz"]) > 0:
                        pair = (line, float(row["Bzy_MHz"])), (line, float(row["TSC_MHz"]))
                        yield _over(doc, "host.cpu.clock_share", "busy over nominal", *pair, "counter.read", "count")
            elif (hit := self._highest.search(line.text)) is not None:
                highest = line, _mhz(hit)
            elif (hit := self._policy.search(line.text)) is not None and highest is not None and highest[1] > 0:
                yield _over(doc, "host.cpu.clock_share", "policy over hardware", (line, _mhz(hit)), highest,
                            "counter.read", "count")  # fmt: skip


def _mhz(hit: re.Match[str]) -> float:
    return float(hit[1]) * (1000 if hit[2] == "GHz" else 1)


class HostLoad:
    """Processor time of `perf stat`, and the load in `scontrol show node`."""

    name = "host_load_notes"
    needles: tuple[bytes, ...] = (b"CPUs utilized", b"CPULoad=")
    _perf = regex(r"\btask-clock\b.*#\s+(\d+\.\d+) CPUs utilized")
    _load = regex(r"\bCPUTot=(\d+)\s+CPULoad=(\d+\.\d+)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A line each."""
        for line in doc.holding("CPUs utilized", "CPULoad="):
            if (hit := self._perf.search(line.text)) is not None:
                yield fact(doc, line, "host.process.cpu", float(hit[1]), "count", label="perf stat")
            elif (hit := self._load.search(line.text)) is not None:
                yield fact(doc, line, "host.cpu.count", float(hit[1]), "count")
                yield fact(doc, line, "host.load", float(hit[2]), "count")


class GdsCheck:
    """`gdscheck -p`: compatibility mode is allowed by default and means something only where nothing is supported."""

    name = "gdscheck"
    needles: tuple[bytes, ...] = (b"use_compat_mode", b"allow_compat_mode")
    _row = regex(r"^\s*(NVMe(?: P2PDMA|OF)?|SCSI|ScaleFlux CSD|NVMesh|DDN EXAScaler|IBM Spectrum Scale|NFS|BeeGFS"
                 r"|WekaFS|Lustre|Userspace RDMA)\s*:\s*(Supported|Unsupported)\b")  # fmt: skip
    _compat = regex(r"properties\.(?:use|allow)_compat_mode\s*:\s*true")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The first unsupported row, when none is supported and the library may fall back."""
        rows: list[tuple[Line, str, str]] = []
        compat = False
        for line in doc.lines():
            if (hit := self._row.match(line.text)) is not None:
                rows.append((line, hit[1], hit[2]))
            compat = compat or self._compat.search(line.text) is not None
        if rows and compat and all(state == "Unsupported" for _, _, state in rows):
            line, name, state = rows[0]
            yield fact(doc, line, "nixl.gds_unsupported", state, label=name)


class LinkWidth:
    """mlxlink: lanes of an InfiniBand port."""

    name = "mlxlink_width"
    needles: tuple[bytes, ...] = (b"Operational Info",)
    _speed = regex(r"^\s*Speed\s*:\s*IB-([SFEHNX]DR)\b")
    _width = regex(r"^\s*Width\s*:\s*(\d+)x\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One lane is no port's full width; two are a split port's."""
        speed: str | None = None
        for line in doc.lines():
            if (hit := self._speed.match(line.text)) is not None:
                speed = hit[1]
            elif speed is not None and (hit := self._width.match(line.text)) is not None:
                if hit[1] == "1":
                    yield fact(doc, line, "net.mark.rate_low", hit[0].strip(), label=speed)
                speed = None


READERS: list[Reader] = [
    BriefLinks(), NumaFiles(), CurlPaths(), ContainerUse(), Retransmits(), CpuClock(), HostLoad(), GdsCheck(),
    LinkWidth(),
]  # fmt: skip
