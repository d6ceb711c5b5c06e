"""NCCL's topology and graph XML (`NCCL_TOPO_DUMP_FILE`, `NCCL_GRAPH_DUMP_FILE`).

Source: NCCL `src/graph/xml.cc`, `search.cc`. What the file says itself: link speed and width of each device, NVLinks
by target, NICs with speed and GPU Direct support. What follows from where devices stand: the path of each pair.
Lines are read one by one, so that a cut file gives what it still holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

_TAG = regex(r"<(/?)(system|cpu|pci|gpu|nic|net|nvlink|c2c|graph)\b([^>]*?)(/?)>")
_ATTRIBUTE = regex(r'(\w+)="([^"]*)"')
_NVSWITCH = "0x068000"


@dataclass
class _Device:
    """A GPU or a NIC: where it stands in the tree of CPUs and PCI bridges."""

    name: str
    path: tuple[tuple[int, str], ...]  # (serial number of the element, tag) from the CPU down
    line: Line
    links: dict[str, int] = field(default_factory=dict)  # NVLink target -> links
    bus: str = ""
    line_of: dict[str, Line] = field(default_factory=dict)
    summed: bool = False  # one target more than once


class NcclXml:
    """Devices, their links, and the path types of all pairs; the search results of a graph file."""

    name = "nccl_topology_xml"
    needles: tuple[bytes, ...] = (b"<gpu dev=", b"<graph id=", b"<net name=", b"<nvlink target=")

    def owns(self, doc: Document) -> bool:
        """The file as NCCL writes it."""
        return doc.head.lstrip()[:15] in (b"<system version", b"<graphs version") and doc.head.rstrip()[-1:] == b">"

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the tags as they stand, then the paths between devices."""
        stack: list[tuple[int, str, dict[str, str], Line]] = []
        gpus: list[_Device] = []
        nics: list[_Device] = []
        serial = 0
        for line in doc.lines():
            for hit in _TAG.finditer(line.text):
                close, tag, rest, alone = hit.groups()
                if close:
                    while stack and stack.pop()[1] != tag:
                        pass
                    continue
                serial += 1
                has = dict(_ATTRIBUTE.findall(rest))
                path = tuple((n, t) for n, t, _, _ in stack if t in ("cpu", "pci"))
                if tag == "graph":
                    yield from self._graph(doc, line, has)
                elif tag == "gpu" and "dev" in has:
                    parent = stack[-1] if stack and stack[-1][1] == "pci" else None
                    gpus.append(_Device(has["dev"], path, line, bus=parent[2].get("busid", "") if parent else ""))
                    yield from self._gpu(doc, line, has, parent)
                elif tag == "nvlink" and gpus:
                    count = has.get("count", "")
                    if count.isdecimal() and len(count) < 5:
                        target = "switch" if has.get("tclass") == _NVSWITCH else has.get("target", "")
                        device = gpus[-1]
                        device.summed |= target in device.links
                        device.links[target] = device.links.get(target, 0) + int(count)
                        device.line_of[target] = line
                elif tag == "net" and "name" in has:
                    nics.append(_Device(has["name"], path, line))
                    yield from self._net(doc, line, has)
                if not alone:
                    stack.append((serial, tag, has, line))
        yield from self._paths(doc, gpus, nics)

    @staticmethod
    def _gpu(
        doc: Document, line: Line, has: dict[str, str], parent: tuple[int, str, dict[str, str], Line] | None
    ) -> Iterator[Fact]:
        gpu = _int(has["dev"])
        if has.get("gdr") in ("0", "1"):
            yield fact(doc, line, "nccl.topo.gdr", has["gdr"], gpu=gpu, label="gpu")
        if parent is None:
            return
        _, _, pci, where = parent
        width, speed = pci.get("link_width", "0"), re.match(r"(\d+(?:\.\d+)?) GT/s", pci.get("link_speed", ""))
        bus = pci.get("busid")
        if width.isdecimal() and int(width) > 0:  # 0: the hypervisor does not say
            yield fact(
                doc, where, "nccl.topo.link_width", float(width), "count", around="link_width", gpu=gpu, label=bus
            )
            if speed is not None:
                yield fact(
                    doc,
                    where,
                    "nccl.topo.link_speed",
                    float(speed[1]),
                    "count",
                    around="link_speed",
                    gpu=gpu,
                    label=bus,
                )

    @staticmethod
    def _net(doc: Document, line: Line, has: dict[str, str]) -> Iterator[Fact]:
        nic = has["name"]
        if has.get("speed", "").isdecimal() and int(has["speed"]) > 0:
            yield fact(doc, line, "net.speed", int(has["speed"]) / 1000, "Gb/s", around="speed", nic=nic)
        rdma = has.get("guid", "0x0") not in ("0x0", "0")  # the socket transport has no GUID and never GPU Direct
        if rdma and has.get("gdr") in ("0", "1"):
            yield fact(doc, line, "nccl.topo.gdr", has["gdr"], nic=nic, label="net")

    @staticmethod
    def _graph(doc: Document, line: Line, has: dict[str, str]) -> Iterator[Fact]:
        channels = has.get("nchannels", "")
        if not channels.isdecimal() or channels == "0":
            return
        label = f"pattern {has.get('pattern', '?')}"
        yield fact(doc, line, "nccl.graph.channels", float(channels), "count", label=label)
        if "typeintra" in has:
            yield fact(doc, line, "nccl.graph.type", f"{has['typeintra']}/{has.get('typeinter', '?')}", label=label)

    @staticmethod
    def _paths(doc: Document, gpus: list[_Device], nics: list[_Device]) -> Iterator[Fact]:
        for gpu in gpus[:16]:
            if len(gpu.links) == 1 and not gpu.summed:  # several targets: the sum stands nowhere in the file
                target, links = next(iter(gpu.links.items()))
                yield fact(doc, gpu.line_of[target], "nvlink.links", float(links), "count", gpu=_int(gpu.name))
        for a, b in combinations(gpus[:16], 2):
            direct = max(a.links.get(b.bus, 0), b.links.get(a.bus, 0))
            through = min(a.links.get("switch", 0), b.links.get("switch", 0))
            links = direct or through
            target = b.bus if direct else "switch"
            line = a.line_of.get(target, a.line) if links else a.line
            kind = f"NV{links}" if links else _path(a.path, b.path)
            if kind is not None:
                yield fact(doc, line, "topo.link", kind, gpu=_int(a.name), peer=_int(b.name))
        for gpu in gpus[:16]:
            for nic in nics[:16]:
                if (kind := _path(gpu.path, nic.path)) is not None:
                    yield fact(doc, nic.line, "topo.gpu_nic", kind, gpu=_int(gpu.name), nic=nic.name)


def _path(a: tuple[tuple[int, str], ...], b: tuple[tuple[int, str], ...]) -> str | None:
    """Path type of two places in the tree, in the words of `nvidia-smi topo`.

    A device hangs under its own PCI element; a virtual NIC straight under the CPU has no place and no answer.
    """
    if not a or not b or a[0][1] != "cpu" or b[0][1] != "cpu" or len(a) < 2 or len(b) < 2:
        return None
    common = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if common == 0:
        return "SYS"
    if common == 1:
        return "PHB"
    hops = max(len(a), len(b)) - common - 1  # bridges between either device and the shared one
    return "PIX" if hops < 1 else "PXB"


def _int(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


READERS: list[Reader] = [NcclXml()]
