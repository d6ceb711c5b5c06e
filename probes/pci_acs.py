"""ACS of the bridges above GPUs and adapters, from their configuration space in sysfs, as `lspci -vvv` words it.

The kernel shows all 4096 bytes to root only, others get the first 64: then it is not known, and said so.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

HEAD = "# ACS of the bridges above GPUs and adapters, from their configuration space"
_EXTENDED, _END = 0x100, 0x1000  # where extended capabilities begin, and where configuration space ends
_ACS_ID, _CONTROL = 0x000D, 6
_FLAGS = ("SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans")
_MOST_CAPS = 64  # a chain that goes on longer runs in a circle
_GPU_VENDORS = ("0x10de", "0x1002")
_LSPCI = (["lspci", "-vvv"], ["lspci", "-tv"])
_UNREAD = regex(r"^\s+ACS not known: (.+)$")
_BRIDGE_LINE = regex(r"^([\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.\d) PCI bridge, above ")


def control(config: bytes) -> int | None:
    """The ACS control register in a configuration space.

    Returns:
        None where the device has no such capability.

    Raises:
        ValueError: the extended part was not read, so nobody can say.
    """
    if len(config) < _EXTENDED + 4:
        raise ValueError(f"{len(config)} of {_END} bytes may be read (the rest needs root)")
    at = _EXTENDED
    for _ in range(_MOST_CAPS):
        if not _EXTENDED <= at <= len(config) - 8:
            return None
        (head,) = struct.unpack_from("<I", config, at)
        if head in (0, 0xFFFFFFFF):
            return None
        if head & 0xFFFF == _ACS_ID:
            return int(struct.unpack_from("<H", config, at + _CONTROL)[0])
        at = head >> 20 & 0xFFC
    return None


def worded(value: int) -> str:
    """The register as lspci prints it."""
    return " ".join(f"{name}{'+' if value >> bit & 1 else '-'}" for bit, name in enumerate(_FLAGS))


def _ends(host: Host) -> Iterator[Path]:
    """GPUs and RDMA adapters among the PCI devices."""
    for path in host.glob("/sys/bus/pci/devices/*"):
        kind, vendor = _text(path / "class"), _text(path / "vendor")
        if vendor in _GPU_VENDORS and kind.startswith(("0x0300", "0x0302", "0x0380", "0x1200")):
            yield path
    yield from host.glob("/sys/class/infiniband/*/device")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def bridges(host: Host) -> dict[str, list[str]]:
    """Address of each bridge, with the addresses of GPUs and adapters below it."""
    out: dict[str, list[str]] = {}
    for end in _ends(host):
        parts = [p for p in host.real(end).split("/") if p.count(":") == 2 and "." in p]
        for above in parts[:-1]:
            if parts[-1] not in out.setdefault(above, []):
                out[above].append(parts[-1])
    return out


def lines(host: Host) -> Iterator[str]:
    """The account, a bridge two lines."""
    yield HEAD
    for address, below in sorted(bridges(host).items()):
        yield f"{address} PCI bridge, above {', '.join(sorted(below))}"
        found = host.glob(f"/sys/bus/pci/devices/{address}/config") or host.glob(f"/sys/devices/**/{address}/config")
        try:
            value = control(found[0].read_bytes()) if found else None
        except (OSError, ValueError) as err:
            yield f"\tACS not known: {err if isinstance(err, ValueError) else err.strerror}"
            continue
        if not found:
            yield "\tACS not known: its configuration space is not here"
        else:
            yield "\tno ACS capability" if value is None else f"\tACSCtl:\t{worded(value)}"


def _ready(host: Host) -> str | None:
    if bridges(host) or host.find("lspci"):
        return None
    return "no GPU and no RDMA adapter below a PCI bridge is to be seen, and lspci is not installed"


def _collect(host: Host) -> Iterator[Collected]:
    started = time.time()
    if bridges(host):
        yield Capture("pci.acs", ("\n".join(lines(host)) + "\n").encode(), "sysfs", started=started)
    else:
        yield NotCaptured("pci.acs", "no GPU and no RDMA adapter below a PCI bridge", "sysfs")
    for argv in _LSPCI:
        if not host.find(argv[0]):
            continue
        try:
            ran = host.run(argv, timeout=10)
        except ProbeError as err:
            yield NotCaptured("pci.acs", err.message, " ".join(argv))
            continue
        if ran.output.strip():
            yield Capture.of("pci.acs", ran, " ".join(argv))
        else:
            yield NotCaptured("pci.acs", f"lspci printed nothing (exit {ran.status})", " ".join(argv))


class AcsReader:
    """What could not be read; the registers themselves are read as those of lspci."""

    name = "pci_acs"
    needles: tuple[bytes, ...] = (HEAD.encode(),)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`pci.acs.unread` of each bridge."""
        bridge = ""
        for line in doc.lines():
            if (hit := _BRIDGE_LINE.match(line.text)) is not None:
                bridge = hit[1]
            elif (why := _UNREAD.match(line.text)) is not None:
                who = Subject(label=bridge)
                yield Fact("pci.acs.unread", why[1], None, who, (doc.span(line),), status=doc.status)


READERS = (AcsReader(),)

COLLECTORS = (
    Collector("pci.acs", _ready, _collect, files=True,
              commands=lambda host: ["read /sys/bus/pci/devices/*/config", *(" ".join(argv) for argv in _LSPCI)]),
)  # fmt: skip
