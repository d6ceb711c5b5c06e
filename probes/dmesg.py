"""Kernel messages: Xid, SXid, PCIe AER, out-of-memory kills."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

# Xid -> (class, meaning). Source: NVIDIA "Xid Errors" (docs.nvidia.com/deploy/xid-errors), and nverror.h of the open
# kernel modules, 515.43.04 to 595.45.04: a number keeps its meaning there; 108, 126 and 136 on are younger than 515.
XIDS: dict[int, tuple[str, str]] = {
    8: ("application", "GPU stopped processing (timeout)"),
    13: ("application", "graphics engine exception"),
    31: ("application", "MMU fault: illegal address"),
    32: ("hardware", "invalid or corrupted push buffer stream"),
    38: ("driver", "driver firmware error"),
    43: ("application", "GPU stopped processing: the application's channel was reset"),
    44: ("hardware", "graphics engine fault during context switch"),
    45: ("application", "preemptive channel removal, follows another error"),
    46: ("hardware", "GPU stopped processing"),
    48: ("hardware", "double-bit ECC error"),
    54: ("hardware", "auxiliary power is not connected to the board"),
    56: ("hardware", "display engine error"),
    61: ("hardware", "internal micro-controller breakpoint or warning"),
    62: ("hardware", "internal micro-controller halt"),
    63: ("hardware", "row remapping or page retirement recorded"),
    64: ("hardware", "row remapping or page retirement failed"),
    66: ("driver", "illegal access by driver"),
    68: ("application", "video processor exception"),
    69: ("application", "graphics engine class error"),
    73: ("application", "video encoder error"),
    74: ("nvlink", "NVLink error"),
    79: ("hardware", "GPU has fallen off the bus"),
    80: ("hardware", "corrupted data sent to GPU"),
    92: ("hardware", "high rate of single-bit ECC errors"),
    94: ("hardware", "contained ECC error"),
    95: ("hardware", "uncontained ECC error"),
    108: ("nvlink", "NVLink translation failed at the remote end"),
    109: ("application", "context switch timeout"),
    110: ("hardware", "security fault"),
    119: ("driver", "GSP RPC timeout"),
    120: ("driver", "GSP error"),
    121: ("nvlink", "C2C link corrected error"),
    122: ("driver", "SPI PMU RPC read failure"),
    123: ("driver", "SPI PMU RPC write failure"),
    124: ("driver", "SPI PMU RPC erase failure"),
    125: ("hardware", "inforom error"),
    126: ("application", "copy engine exception"),
    136: ("nvlink", "NVLink failed to train"),
    137: ("nvlink", "NVLink privilege error: remote access refused"),
    140: ("hardware", "unrecovered ECC error"),
    143: ("hardware", "GPU initialisation failure"),
    144: ("nvlink", "NVLink SAW error"),
    145: ("nvlink", "NVLink RLW error"),
    146: ("nvlink", "NVLink TLW error"),
    147: ("nvlink", "NVLink TREX error"),
    148: ("nvlink", "NVLink NVLPW_CTRL error"),
    149: ("nvlink", "NVLink NETIR error"),
    150: ("nvlink", "NVLink MSE error"),
    151: ("hardware", "key rotation error"),
    154: ("hardware", "recovery action changed"),
    155: ("nvlink", "NVLink software-defined error"),
    156: ("hardware", "resource retirement event"),
    157: ("hardware", "resource retirement failure"),
    158: ("hardware", "fatal timeout of the GPU"),
    159: ("hardware", "CHI non-data error"),
    160: ("hardware", "channel retirement event"),
    161: ("hardware", "channel retirement failure"),
    167: ("hardware", "fatal PCIe timeout"),
    171: ("hardware", "uncorrectable DRAM ECC error"),
    172: ("hardware", "uncorrectable SRAM ECC error"),
    173: ("nvlink", "C2C link failed"),
    175: ("hardware", "memory subsystem error"),
}
_XID = regex(r"\bXid\b\s*\((?:PCI:)?([^)]*)\)?:?\s*(\d{1,3})\b[,:]?\s*(.*)", re.I)
_XID_SHORT = regex(
    r"\bXid(?:CriticalError)?(?:\s+errors?)?(?:\s+(?:code|event|number))?\s*[:=#]?\s*(\d{1,3})\b(?![.\d])(.*)", re.I
)
_NO_XID = regex(r"\bno xid|xid errors?\s*[:=]\s*0\b", re.I)
_XID_METRIC = regex(r'^DCGM_FI_DEV_XID_ERRORS\{[^}]*?gpu="?(\d+)"?[^}]*\}\s+(\d+)')
_SXID = regex(r"\bSXid\s*\((?:PCI:)?([^)]*)\):\s*(\d+),?\s*(.*)", re.I)
_AER = regex(
    r"(?:AER: )?(?P<many>Multiple )?(?P<severity>Corrected|Correctable|Uncorrected|Uncorrectable|Fatal)"
    r"(?: \((?P<fatal>Fatal|Non-Fatal)\))? error (?:message )?received",
    re.I,
)
_BUS = regex(
    r"PCIe Bus Error: severity=(Corrected|Correctable|Uncorrected|Uncorrectable)(?: \(([\w-]+)\))?, type=([\w ]+)", re.I
)
_DETAIL = regex(
    r"\[\s*(\d{1,2})\]\s*(RxErr|BadTLP|BadDLLP|Rollover|Timeout|NonFatalErr|Receiver Error|Bad TLP|Bad DLLP|"
    r"RELAY_NUM Rollover|REPLAY_NUM Rollover|Replay Timer Timeout|Surprise Down Error|Surprise Link Down|SDES|"
    r"Data Link Protocol|DLP|Completion Timeout|CmpltTO|Poisoned TLP|TLP|Malformed TLP|MalfTLP|Unsupported Request|"
    r"UnsupReq|ACS Violation|ACSViol|Flow Control Protocol|Completer Abort|CmpltAbrt|Unexpected Completion)",
    re.I,
)
_OOM = regex(r"(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process (\d+) \(([^)]*)\)", re.I)
_OOM_KILL = regex(r"oom-kill:constraint=(\w+).*?task=([^,]+)", re.I)
_INVOKED = regex(r"(\S+) invoked oom-killer", re.I)
_PATTERNS = (_XID, _XID_SHORT, _XID_METRIC, _SXID, _AER, _BUS, _DETAIL, _OOM, _OOM_KILL, _INVOKED)


class KernelReader:
    """dmesg and journal lines, whatever stands before them."""

    name = "dmesg"
    needles: tuple[bytes, ...] = (
        b"Xid", b"XID", b"xid", b"AER", b"PCIe Bus Error", b"oom-kill", b"Out of memory: Kill",
        b"Memory cgroup out of memory", b"Replay Timer", b"Surprise Down", b"Bad TLP", b"BadTLP",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact for all lines that say the same of the same device; its count says how many."""
        kept: dict[tuple[object, ...], Fact] = {}
        for line in possible(doc.lines(), *_PATTERNS):
            for made in self._line(doc, line):
                key = (made.signal, made.value, made.subject)
                old = kept.get(key)
                kept[key] = replace(old, count=old.count + 1) if old else made
        yield from kept.values()

    def _line(self, doc: Document, line: Line) -> Iterator[Fact]:
        text = line.text
        if (hit := _SXID.search(text)) is not None:
            yield fact(doc, line, "gpu.sxid", hit.group(3)[:120] or "SXid", label=hit.group(2), around="SXid")
        elif (hit := _XID.search(text)) is not None:
            yield from self._xid(doc, line, int(hit.group(2)), hit.group(3))
        elif (hit := _XID_METRIC.match(text)) is not None:
            if hit.group(2) != "0":
                yield from self._xid(doc, line, int(hit.group(2)), "", int(hit.group(1)))
        elif (hit := _XID_SHORT.search(text)) is not None and int(hit.group(1)) in XIDS and not _NO_XID.search(text):
            yield from self._xid(doc, line, int(hit.group(1)), hit.group(2))
        if (hit := _BUS.search(text)) is not None:
            label = f"{hit.group(1)} {hit.group(2) or ''} {hit.group(3)}"
            yield fact(doc, line, "pci.aer", _severity(hit.group(1)), label=re.sub(r"\s+", " ", label).strip())
        elif (hit := _AER.search(text)) is not None and re.search(r"AER|pcieport", text):
            yield fact(doc, line, "pci.aer", _severity(hit.group("severity")), label=hit.group("fatal") or "")
        if (hit := _DETAIL.search(text)) is not None:
            yield fact(doc, line, "pci.aer.detail", hit.group(2), label=hit.group(1))
        if (hit := _OOM.search(text)) is not None:
            yield fact(doc, line, "host.oom_kill", hit.group(2), label=hit.group(2))
        elif (hit := _OOM_KILL.search(text)) is not None:
            yield fact(doc, line, "host.oom_kill.constraint", hit.group(1))
        elif (hit := _INVOKED.search(text)) is not None:
            yield fact(doc, line, "host.oom_kill", f"{hit.group(1)} invoked oom-killer", label=hit.group(1))

    def _xid(self, doc: Document, line: Line, code: int, rest: str, gpu: int | None = None) -> Iterator[Fact]:
        kind, meaning = XIDS.get(code, ("other", "Xid without an entry in the table"))
        said = re.sub(r"pid='?[^,']*'?,\s*|name=[^,]*,\s*", "", rest).strip(" ,:")[:120]
        if code == 154 and re.search(r"\(None\)|to 0x0\b", rest):
            kind = "other"  # the recovery action was taken back
        if kind == "application" and re.search(r"fallen off|ECC|uncorrectable", rest, re.I):
            kind = "hardware"
        who: dict[str, Any] = {"gpu": gpu, "label": str(code)}
        yield fact(doc, line, "gpu.xid", said or meaning, around="Xid", **who)
        if kind != "other":
            yield fact(doc, line, f"gpu.xid.{kind}", meaning, around="Xid", **who)


def _severity(word: str) -> str:
    return "uncorrected" if word.lower() in ("uncorrected", "uncorrectable", "fatal") else "corrected"


_DEVICE = regex(r"^(?:-*\[?)?((?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])\s+(.+)$", re.I)
_LNKCAP = regex(r"LnkCap:.*?Speed (\d+(?:\.\d+)?)\s*GT/s(?:[^,]*)?,\s*Width x(\d+)", re.I)
_LNKSTA = regex(
    r"LnkSta:\s*Speed (\d+(?:\.\d+)?)\s*GT/s\s*(\((?:downgraded|ok|strange|overdriven)\))?,?\s*Width x(\d+)", re.I
)
_ACS = regex(r"ACSCtl:\s*(.+)$")
_LIMITED = regex(
    r"(?:^|\s)(?:\w+ )?((?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]):.*?(\d+(?:\.\d+)?) Gb/s available PCIe "
    r"bandwidth, limited by "
    r"(\d+(?:\.\d+)?) GT/s PCIe x(\d+) link(?: at \S+)? \(capable of (\d+(?:\.\d+)?) Gb/s with (\d+(?:\.\d+)?) GT/s PCIe x(\d+) link\)",  # noqa: E501
        re.I,
)  # fmt: skip
_NUMA = regex(r"/devices/[^ ]*?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d)/numa_node\s*[:=]?\s*(-?\d+)")
_CMDLINE = regex(r"(?:Command line:|/proc/cmdline|GRUB_CMDLINE_LINUX\w*=|^BOOT_IMAGE=)\s*(.*)")


class PciReader:
    """`lspci -vvv` (links, ACS), the kernel's bandwidth warning, the kernel command line."""

    name = "lspci"
    needles: tuple[bytes, ...] = (
        b"LnkSta", b"LnkCap", b"ACSCtl", b"available PCIe bandwidth", b"numa_node", b"Command line:", b"cmdline",
        b"GRUB_CMDLINE", b"BOOT_IMAGE=",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`pci.*` of each device: speed in GT/s and width in lanes, now and at most; states of ACS with a count."""
        device = ""
        acs: dict[str, Fact] = {}
        for line in doc.lines():
            text = line.text
            if (hit := _DEVICE.match(text)) is not None:
                device = f"{hit.group(1)} {hit.group(2)}"[:100]
            if (cap := _LNKCAP.search(text)) is not None:
                yield fact(doc, line, "pci.link.speed.max", float(cap.group(1)), "count", label=device)
                yield fact(doc, line, "pci.link.width.max", float(cap.group(2)), "count", label=device)
            elif (sta := _LNKSTA.search(text)) is not None:
                yield fact(doc, line, "pci.link.speed", float(sta.group(1)), "count", label=device)
                yield fact(doc, line, "pci.link.width", float(sta.group(3)), "count", label=device)
                if re.search(rf"Width x{sta.group(3)} \(downgraded\)", text):
                    yield fact(doc, line, "pci.link.limited", f"width x{sta.group(3)} (downgraded)", label=device)
            elif (ctl := _ACS.search(text)) is not None:
                state = "on" if re.search(r"(?:ReqRedir|CmpltRedir|UpstreamFwd)\+", ctl.group(1)) else "off"
                old = acs.get(state)
                acs[state] = (
                    replace(old, count=old.count + 1) if old else fact(doc, line, "pci.acs", state, label=device)
                )
            if (hit := _LIMITED.search(text)) is not None:
                dev, now, _, lanes, _, _, full = hit.groups()
                yield fact(doc, line, "pci.link.width", float(lanes), "count", label=dev)
                yield fact(doc, line, "pci.link.width.max", float(full), "count", label=dev)
                yield fact(doc, line, "pci.link.limited", f"{now} Gb/s", label=dev)
            if (hit := _NUMA.search(text)) is not None:
                yield fact(doc, line, "pci.numa", float(hit.group(2)), "count", label=hit.group(1))
            if (hit := _CMDLINE.search(text)) is not None and len(hit.group(1)) > 3:
                yield fact(doc, line, "host.kernel.cmdline", hit.group(1)[:300])
        yield from acs.values()


READERS: list[Reader] = [KernelReader(), PciReader()]
