"""RDMA as the kernel shows it in files: ports, GIDs, counters, PCI paths, modules, limits.

Lines are ``path:value`` as ``grep -H .`` prints them, and ``path -> target`` for links, whoever made them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

READING = "# reading "  # before each of two readings of the counters
PLACES = "# RDMA ports, interfaces and places"
NODES = "# device nodes of RDMA:"
_PORT_LINE = regex(r"^(?:\S*/)?infiniband/([\w.-]+)/ports/(\d+)/([\w/]+):(.*)$")
_DEVICE_LINK = regex(r"^(?:\S*/)?infiniband/([\w.-]+)/device -> (\S+)$")
_GPU_LINK = regex(r"^/sys/bus/pci/devices/(\S+) -> (\S+)  # GPU (\d+)$")
_NUMA = regex(r"^(?:\S*/)?(?:infiniband/([\w.-]+)/device|pci/devices/([\da-f:.]+))/numa_node:(-?\d+)$")
_NETDEV = regex(r"^(?:\S*/)?class/net/([\w.@-]+)/(mtu|speed|operstate):(.*)$")
_ECN = regex(r"^(?:\S*/)?class/net/([\w.@-]+)/ecn/roce_(np|rp)/enable/(\d):([01])$")
_CLASS = regex(
    r"^(?:\S*/)?(?:infiniband/([\w.-]+)/tc/\d+/traffic_class|rdma_cm/([\w.-]+)/ports/\d+/default_roce_tos):(.*\d)\s*$"
)
_DRIVER = regex(r"^(?:/proc/driver/nvidia/version:)?NVRM version: NVIDIA UNIX (Open Kernel Module)?")
_MODULE = regex(r"^(nvidia_peermem|nv_peer_mem|gdrdrv|nvidia) \d+ -?\d+ ")
_CAPS = regex(r"^/proc/self/status:CapEff:\s*([\da-f]+)$")
_IPC_LOCK = 1 << 14  # who has this capability is not held to the limit of locked memory
_KERNEL = regex(r"^/proc/version:Linux version (\d+)\.(\d+)")
_STATE = {"1": "DOWN", "2": "INIT", "3": "ARMED", "4": "ACTIVE"}
_ZERO = regex(r"^(?:0000:){7}0000$|^fe80:(?:0000:){3}(?:0000:){3}0000$")
_BRIDGE = re.compile(r"^[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.\d$")
DATA = ("port_rcv_data", "port_xmit_data")


@dataclass
class _Port:
    """What the lines say of one port."""

    lines: dict[str, tuple[str, Line]] = field(default_factory=dict)
    gids: dict[int, dict[str, tuple[str, Line]]] = field(default_factory=dict)

    def says(self, name: str) -> str:
        return self.lines[name][0] if name in self.lines else ""

    @property
    def used(self) -> bool:
        """Has it carried data, or had a link that it lost? Without counters nobody can say that it has not."""
        seen = [self.says(n) for n in (*DATA, "link_downed") if self.says(n)]
        return not seen or any(v != "0" for v in seen)


@dataclass
class _Tree:
    ports: dict[tuple[str, str], _Port] = field(default_factory=dict)
    links: dict[str, tuple[str, Line]] = field(default_factory=dict)
    gpus: dict[int, tuple[str, Line]] = field(default_factory=dict)
    numa: dict[str, str] = field(default_factory=dict)
    netdevs: dict[str, dict[str, tuple[str, Line]]] = field(default_factory=dict)
    nodes: Line | None = None
    driver: tuple[bool, Line] | None = None
    modules: dict[str, Line] = field(default_factory=dict)
    kernel: tuple[tuple[int, int], Line] | None = None
    caps: tuple[str, Line] | None = None
    ecn: dict[tuple[str, str], list[tuple[int, bool, Line]]] = field(default_factory=dict)  # interface and side
    classes: list[tuple[str, str, Line]] = field(default_factory=list)
    counters: dict[tuple[str, str, str], list[tuple[float, Line]]] = field(default_factory=dict)


class SysfsReader:
    """Files below ``/sys/class/infiniband`` and what stands beside them."""

    name = "rdma_sysfs"
    needles: tuple[bytes, ...] = (b"/ports/", b"infiniband/", NODES.encode(), b"NVRM version: NVIDIA UNIX", b"CapEff:")

    @staticmethod
    def owns(doc: Document) -> bool:
        """What our collectors print: states and places are no figures to compare, and of two readings of all
        counters only the growth tells something, each by itself is history.
        """
        if doc.head.startswith(PLACES.encode()):
            return True
        return doc.head.startswith(READING.encode()) and b"\n" + READING.encode() + b"2" in doc.data

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of ports, GIDs, interfaces, places and growing counters."""
        tree = _Tree()
        for line in doc.lines():
            _take(tree, line)
        for (nic, port), got in tree.ports.items():
            yield from _port(doc, nic, port, got)
        yield from _netdevs(doc, tree)
        yield from _congestion_control(doc, tree)
        yield from _counters(doc, tree)
        yield from _places(doc, tree)
        yield from _direct(doc, tree)
        if tree.caps is not None:
            held = bool(int(tree.caps[0], 16) & _IPC_LOCK)
            yield Fact("host.cap.ipc_lock", held, spans=(doc.span(tree.caps[1]),), status=doc.status)
        if tree.nodes is not None:
            value = tree.nodes.text.removeprefix(NODES).strip()
            yield Fact("rdma.device_nodes", value, spans=(doc.span(tree.nodes),), status=doc.status)


def _take(tree: _Tree, line: Line) -> None:
    text = line.text
    if (hit := _PORT_LINE.match(text)) is not None:
        port = tree.ports.setdefault((hit[1], hit[2]), _Port())
        where, value = hit[3], hit[4].strip()
        folder, _, leaf = where.rpartition("/")
        if folder in ("counters", "hw_counters"):
            port.lines[leaf] = (value, line)
            if value.isdecimal():
                tree.counters.setdefault((hit[1], hit[2], leaf), []).append((float(value), line))
        elif folder in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
            port.gids.setdefault(int(leaf), {})[folder.rpartition("/")[2]] = (value, line)
        else:
            port.lines[where] = (value, line)
    elif (hit := _DEVICE_LINK.match(text)) is not None:
        tree.links[hit[1]] = (hit[2], line)
    elif (hit := _GPU_LINK.match(text)) is not None:
        tree.gpus[int(hit[3])] = (hit[2], line)
    elif (hit := _NUMA.match(text)) is not None:
        tree.numa[hit[1] or hit[2]] = hit[3]
    elif (hit := _NETDEV.match(text)) is not None:
        tree.netdevs.setdefault(hit[1], {})[hit[2]] = (hit[3].strip(), line)
    elif (hit := _ECN.match(text)) is not None:
        tree.ecn.setdefault((hit[1], hit[2]), []).append((int(hit[3]), hit[4] == "1", line))
    elif (hit := _CLASS.match(text)) is not None:
        tree.classes.append((hit[1] or hit[2], hit[3].split()[-1].rpartition("=")[2], line))
    elif text.startswith(NODES):
        tree.nodes = line
    elif (hit := _DRIVER.match(text)) is not None:
        tree.driver = (hit[1] is not None, line)
    elif (hit := _MODULE.match(text)) is not None:
        tree.modules.setdefault(hit[1], line)
    elif (hit := _CAPS.match(text)) is not None:
        tree.caps = (hit[1], line)
    elif (hit := _KERNEL.match(text)) is not None:
        tree.kernel = ((int(hit[1]), int(hit[2])), line)


def _congestion_control(doc: Document, tree: _Tree) -> Iterator[Fact]:
    """ECN of RoCE by priority, for the side that marks back (np) and the side that slows down (rp); traffic classes."""
    for (nic, side), rows in tree.ecn.items():
        on = [str(priority) for priority, enabled, _ in sorted(rows, key=lambda r: r[0]) if enabled]
        spans = (doc.span(rows[0][2]), doc.span(rows[-1][2]))
        who = Subject(nic=nic, label=f"roce_{side}")
        yield Fact("rdma.ecn", f"on for {' '.join(on)}" if on else "off", None, who, spans, status=doc.status)
    for nic, value, line in tree.classes:
        who = Subject(nic=nic, label="traffic class")
        yield Fact("rdma.tos", value, None, who, (doc.span(line),), status=doc.status)


def _port(doc: Document, nic: str, port: str, got: _Port) -> Iterator[Fact]:
    who = Subject(nic=nic, label=f"port {port}")

    def fact(signal: str, name: str, value: str | float, unit: str | None = None) -> Fact:
        return Fact(signal, value, unit, who, (doc.span(got.lines[name][1]),), status=doc.status)

    yield Fact("rdma.device", nic, None, Subject(nic=nic), (doc.span(_any(got)),), status=doc.status)
    state = _STATE.get(got.says("state")[:1], "")
    if state == "DOWN" and not got.used:
        # a second port without a cable is no fault: it never carried anything
        yield fact("rdma.port.unused", "state", state)
    elif state:
        yield fact("rdma.port.state", "state", state)
        if phys := got.says("phys_state"):
            yield fact("rdma.port.phys", "phys_state", re.sub(r"^\d+:\s*", "", phys).upper())
    if (rate := re.match(r"(\d+(?:\.\d+)?) Gb/sec", got.says("rate"))) is not None and state == "ACTIVE":
        yield fact("rdma.port.rate", "rate", float(rate[1]), "Gb/s")
    if (width := re.search(r"\((\d+)X", got.says("rate"))) is not None and state == "ACTIVE":
        yield fact("rdma.port.width", "rate", float(width[1]), "count")
    if layer := got.says("link_layer"):
        yield fact("rdma.port.layer", "link_layer", layer)
    for index, entry in sorted(got.gids.items()):
        gid = entry.get("gids", ("", None))[0]
        if not gid or _ZERO.match(gid):
            continue
        kind = "v2" if "v2" in entry.get("types", ("",))[0] else "v1" if "types" in entry else ""
        value = " ".join(filter(None, [kind, shown(gid), entry.get("ndevs", ("",))[0]]))
        spans = tuple(doc.span(line) for _, line in entry.values())
        subject = Subject(nic=nic, label=f"port {port} index {index}")
        yield Fact("rdma.gid", value, None, subject, spans, status=doc.status)


def _any(got: _Port) -> Line:
    return next(iter([*got.lines.values(), *(e for g in got.gids.values() for e in g.values())]))[1]


def shown(gid: str) -> str:
    """A GID, or the IPv4 address that it wraps."""
    if gid.startswith("0000:0000:0000:0000:0000:ffff:"):
        high, low = gid.split(":")[6:8]
        return ".".join(str(int(part, 16)) for part in (high[:2], high[2:], low[:2], low[2:]))
    return gid


def _netdevs(doc: Document, tree: _Tree) -> Iterator[Fact]:
    """MTU and speed of the interfaces that belong to RDMA ports over Ethernet."""
    for (nic, port), got in tree.ports.items():
        if got.says("link_layer") != "Ethernet" or _STATE.get(got.says("state")[:1]) != "ACTIVE":
            continue
        for name in sorted({e["ndevs"][0].split(".")[0] for e in got.gids.values() if "ndevs" in e}):
            own = tree.netdevs.get(name, {})
            who = Subject(nic=nic, label=f"port {port}")
            if "mtu" in own and own["mtu"][0].isdecimal():
                value, line = own["mtu"]
                yield Fact("rdma.netdev.mtu", float(value), "B", who, (doc.span(line),), status=doc.status)


def _counters(doc: Document, tree: _Tree) -> Iterator[Fact]:
    """How much each counter grew between two readings; those that stood still are told where they ever counted."""
    kept = 0
    for (nic, _port_number, name), read in tree.counters.items():
        if len(read) < 2 or (read[0][0] == 0 and read[-1][0] == 0) or kept >= 300:
            continue
        kept += 1
        subject = Subject(nic=nic, label=name)
        before, after = (
            Fact("rdma.counter", value, "count", subject, (doc.span(line, name),), status=doc.status)
            for value, line in (read[0], read[-1])
        )
        yield Fact("counter.delta", read[-1][0] - read[0][0], "count", subject, kind="derived", formula="b - a",
                   inputs=(before, after), status=doc.status)  # fmt: skip


def _chain(real: str) -> list[str]:
    """Host bridge and bridges above a device, from its real path."""
    parts = real.strip("/").split("/")
    root = next((p for p in parts if p.startswith("pci")), "")
    return [root, *(p for p in parts[:-1] if _BRIDGE.match(p))]


def relation(a: str, b: str, same_node: bool | None) -> str:
    """How two PCI devices are joined, in the words of ``nvidia-smi topo -m``."""
    one, two = _chain(a), _chain(b)
    if one[0] and one[0] == two[0]:
        common = next((n for n, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))
        if common < 2:
            return "PHB"
        # one switch is an upstream bridge and a bridge for each port below it
        return "PIX" if max(len(one), len(two)) - common <= 1 else "PXB"
    return "NODE" if same_node else "SYS"


def _places(doc: Document, tree: _Tree) -> Iterator[Fact]:
    """`topo.gpu_nic` of each pair, and `rdma.near`: the adapters that each GPU should use."""
    order = ("PIX", "PXB", "PHB", "NODE", "SYS")
    for gpu, (place, line) in sorted(tree.gpus.items()):
        paths: dict[str, str] = {}
        for nic, (real, other) in sorted(tree.links.items()):
            nodes = tree.numa.get(place.rpartition("/")[2], "-1"), tree.numa.get(nic, "-2")
            known = nodes[0] == nodes[1] != "-1"
            if "-1" in nodes or "-2" in nodes:
                known = place.split("/pci")[0] == real.split("/pci")[0] and _chain(place)[0] == _chain(real)[0]
            paths[nic] = relation(place, real, known)
            spans = (doc.span(line), doc.span(other))
            yield Fact("topo.gpu_nic", paths[nic], None, Subject(gpu=gpu, nic=nic), spans, status=doc.status)
        if paths:
            best = min(paths.values(), key=order.index)
            near = [nic for nic, path in paths.items() if path == best]
            about = (doc.span(line), *(doc.span(tree.links[nic][1]) for nic in near[:4]))
            value = f"{', '.join(near)} ({best})"
            yield Fact("rdma.near", value, None, Subject(gpu=gpu), about, status=doc.status)


def _direct(doc: Document, tree: _Tree) -> Iterator[Fact]:
    """By what a NIC can reach GPU memory: the peer-memory module, dma-buf of the open kernel module, or nothing."""
    peer = tree.modules.get("nvidia_peermem") or tree.modules.get("nv_peer_mem")
    if peer is not None:
        yield Fact("rdma.gpudirect", "peer-memory module", spans=(doc.span(peer),), status=doc.status)
    elif tree.driver is not None and "nvidia" in tree.modules:
        opened, line = tree.driver
        new = tree.kernel is not None and tree.kernel[0] >= (5, 12)
        spans: tuple[Span, ...] = (doc.span(line), *((doc.span(tree.kernel[1]),) if tree.kernel else ()))
        if opened and (new or tree.kernel is None):
            yield Fact("rdma.gpudirect", "dma-buf", spans=spans, status=doc.status)
        else:
            spans += (doc.span(tree.modules["nvidia"]),)
            yield Fact("rdma.gpudirect", "none", spans=spans, status=doc.status)


READERS = (SysfsReader(),)
