"""What a host is set to, for the audit: kernel settings, modules, interfaces, tools, virtualisation, clock.

The collector prints ``name value`` lines under one heading; the reader takes them and the output of
`timedatectl show`, `chronyc tracking`, `lsmod`, `uname` and `pip list`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from diagnose.collect import Capture, Collected, Collector
from diagnose.document import Document
from diagnose.host import Host
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact
from .host import cpu_list
from .live_host import STEERS

_HEAD = "# settings of this host"
TOOLS = (
    "nvidia-smi", "nsys", "ncu", "dcgmi", "lspci", "numactl", "ibstat", "ibv_devinfo", "ethtool", "ip", "ucx_info",
    "all_reduce_perf", "ib_write_bw", "py-spy", "perf", "nvcc", "chronyc", "gdb",
)  # fmt: skip
MODULES = (
    "nvidia", "nvidia_uvm", "nvidia_peermem", "nv_peer_mem", "gdrdrv", "nvidia_fs", "nouveau", "ib_core", "ib_uverbs",
    "mlx5_core", "mlx5_ib", "rdma_ucm", "efa", "bnxt_re", "irdma", "knem", "xpmem", "amdgpu",
)  # fmt: skip
# name -> file whose one line is the value
_FILES = {
    "clocksource": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "numa_balancing": "/proc/sys/kernel/numa_balancing",
    "transparent_hugepage": "/sys/kernel/mm/transparent_hugepage/enabled",
    "perf_event_paranoid": "/proc/sys/kernel/perf_event_paranoid",
    "ptrace_scope": "/proc/sys/kernel/yama/ptrace_scope",
    "overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "scaling_driver": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
    "scaling_governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "kernel": "/proc/sys/kernel/osrelease",
    "vendor": "/sys/class/dmi/id/sys_vendor",
    "product": "/sys/class/dmi/id/product_name",
}
_CONTAINERS = {"docker": "/.dockerenv", "podman": "/run/.containerenv", "apptainer": "/.singularity.d"}
_VIRTUAL = regex(
    r"qemu|kvm|bochs|vmware|virtualbox|xen|hvm domu|virtual machine|google compute|amazon ec2(?!.*metal)|openstack"
    r"|parallels|droplet|alibaba cloud ecs|firecracker",
    re.IGNORECASE,
)


def _line(host: Host, path: str) -> str:
    """First line of a file, or nothing."""
    for found in host.glob(path):
        try:
            return found.read_text("utf-8", "replace").strip().partition("\n")[0]
        except OSError:
            return ""
    return ""


def _settings(host: Host) -> Iterator[Collected]:
    lines = [_HEAD, f"system {sys.platform}"]
    lines += [f"{name} {value}" for name, path in _FILES.items() if (value := _line(host, path))]
    flags = next((x for x in _text(host, "/proc/cpuinfo").splitlines() if x.startswith(("flags", "Features"))), "")
    if flags:
        lines.append(f"hypervisor {'yes' if ' hypervisor' in flags else 'no'}")
    kinds = [kind for kind, path in _CONTAINERS.items() if host.glob(path)]
    kinds += ["kubernetes"] if "KUBERNETES_SERVICE_HOST" in host.environ else []
    lines.append(f"container {' '.join(kinds) or 'none'}")
    if modules := _text(host, "/proc/modules"):
        loaded = {row.split(" ", 1)[0] for row in modules.splitlines()}
        lines.append(f"modules {' '.join(m for m in MODULES if m in loaded) or 'none'}")
    if version := _line(host, "/proc/driver/nvidia/version"):
        lines.append(f"nvidia_module {'open' if 'Open Kernel' in version else 'proprietary'}")
    if hit := re.search(r"RmProfilingAdminOnly:\s*(\d)", _text(host, "/proc/driver/nvidia/params")):
        lines.append(f"profiling_admin_only {hit[1]}")
    for status in _text(host, "/proc/self/status").splitlines():
        if status.startswith("Cpus_allowed_list:"):
            lines.append(status.replace("\t", " "))
    lines += _interfaces(host)
    if host.root != Path("/"):
        yield Capture("host.settings", ("\n".join(lines) + "\n").encode(), started=time.time())
        return
    lines.append(f"environment {sum(STEERS.match(name) is not None for name in host.environ)} variables")
    lines += [f"tool {name} {shutil.which(name) or 'none'}" for name in TOOLS]
    yield Capture("host.settings", ("\n".join(lines) + "\n").encode("utf-8", "replace"), started=time.time())


def _text(host: Host, path: str) -> str:
    for found in host.glob(path):
        try:
            with found.open(encoding="utf-8", errors="replace") as stream:
                return stream.read(1 << 18)
        except OSError:
            return ""
    return ""


def _interfaces(host: Host) -> Iterator[str]:
    """Interfaces: name, ``device`` where hardware stands behind it, MTU, Mb/s, state."""
    for place in host.glob("/sys/class/net/*"):
        name = place.name
        if not re.fullmatch(r"[\w.@-]{1,20}", name) or not place.is_dir():
            continue
        kind = "device" if os.path.exists(place / "device") else "virtual"
        told = [_line(host, f"/sys/class/net/{name}/{what}") or "-" for what in ("mtu", "speed", "operstate")]
        yield f"interface {name} {kind} mtu {told[0]} Mb/s {told[1]} is {told[2]}"


def _always(host: Host) -> str | None:
    return None


# name -> (signal, numeric)
_NAMED = {
    "clocksource": "host.clocksource", "overcommit_memory": "host.overcommit", "scaling_driver": "host.cpu.freq_driver",
    "scaling_governor": "host.cpu.governor", "kernel": "host.kernel", "container": "host.container",
    "nvidia_module": "driver.module", "system": "host.system",
}  # fmt: skip
_COUNTED = {
    "numa_balancing": "host.numa.balancing", "perf_event_paranoid": "host.perf_paranoid",
    "ptrace_scope": "host.ptrace_scope", "profiling_admin_only": "gpu.profiling_admin_only",
    "environment": "host.environment",
}  # fmt: skip
_INTERFACE = regex(r"interface (\S+) (device|virtual) mtu (\S+) Mb/s (\S+) is (\S+)$")


class SettingsReader:
    """The list that `host.settings` makes."""

    name = "host_settings"
    needles: tuple[bytes, ...] = (_HEAD.encode(),)

    def owns(self, doc: Document) -> bool:
        """The list alone: names of tools and figures in it mean nothing to any other reader."""
        return doc.size < 1 << 16 and doc.data.startswith(_HEAD.encode()) and b"\n\n" not in doc.data.strip()

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the lines below the heading, up to an empty one."""
        inside = False
        for line in doc.lines():
            if line.text.startswith(_HEAD):
                inside = True
                continue
            if not inside:
                continue
            name, _, value = line.text.strip().partition(" ")
            if not value:
                inside = False
            elif name in _NAMED:
                yield fact(doc, line, _NAMED[name], value)
                if name == "kernel" and "microsoft" in value.lower():
                    yield fact(doc, line, "host.wsl", "WSL2" if "WSL2" in value else "WSL")
            elif name in _COUNTED and (hit := re.match(r"-?\d+", value)):
                yield fact(doc, line, _COUNTED[name], float(hit[0]), "count")
            elif name == "transparent_hugepage":
                chosen = re.search(r"\[(\w+)\]", value)
                yield fact(doc, line, "host.thp", chosen[1] if chosen else value)
            elif name == "hypervisor":
                yield fact(doc, line, "host.virtual", value, label="cpu")
            elif name in ("vendor", "product"):
                yield fact(doc, line, "host.virtual", "yes" if _VIRTUAL.search(value) else "no", label=name)
            elif name == "modules":
                yield fact(doc, line, "host.modules", value)
            elif name == "Cpus_allowed_list:":
                yield fact(doc, line, "host.cpu.allowed", value)
                yield computed(
                    doc, line, "host.cpu.allowed_count", float(cpu_list(value)), "count", self.name, label="affinity"
                )
            elif name == "tool":
                tool, _, path = value.partition(" ")
                yield fact(doc, line, "host.tool", path, label=tool)
            elif hit := _INTERFACE.match(line.text.strip()):
                who = {"nic": hit[1], "label": hit[2]}
                yield fact(doc, line, "net.interface", hit[5], **who)
                if hit[3].isdecimal():
                    yield fact(doc, line, "net.interface.mtu", float(hit[3]), "B", **who)
                if hit[4].isdecimal() and 0 < int(hit[4]) < 4_000_000:
                    yield fact(doc, line, "net.interface.rate", int(hit[4]) / 1000, "Gb/s", around=hit[4], **who)


_LSMOD = regex(r"^(\w+)\s+\d+\s+\d+(?:\s+[\w,]+)?\s*$")
_HYPERVISOR = regex(r"^\s*Hypervisor vendor:\s+(\S.*)$")
_WSL = regex(r"Linux (?:version )?\S*.*\d[\w.-]*-(?:WSL2|microsoft)[\w.-]*", re.IGNORECASE)
_NTP = regex(r"^\s*(?:NTPSynchronized=|System clock synchronized:\s*)(yes|no)\s*$")
_LEAP = regex(r"^\s*Leap status\s*:\s*(.+?)\s*$")
_OFFSET = regex(r"^\s*System time\s*:\s*(\d+(?:\.\d+)?) seconds (?:slow|fast) of NTP time")
_PACKAGE = regex(r"^((?:nvidia|torch|vllm|sglang|triton|cupy|jax|flash|numpy|cuda)[\w.-]*)\s+(\d[\w.+!-]*)\s*$", re.I)
_DMESG = regex(r"^\[\s*\d+\.\d{6}\]\s|^\[(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} +\d+ [\d:]+ \d{4}\]\s")
_OMPI = regex(r"^\s*(?:export )?(OMPI_MCA_(?:btl|pml))=(\S+)\s*$")
_WDDM = regex(r"\bWDDM\b")


class InventoryReader:
    """Lines of common tools that say what kind of host this is."""

    name = "host_inventory"
    needles: tuple[bytes, ...] = (
        b"Used by", b"Hypervisor vendor", b"icrosoft", b"NTPSynchronized", b"clock synchronized", b"Leap status",
        b"Package", b"WDDM", b"] NVRM", b"Command line:", b"pci 0000", b"Linux version", b"[    ",
        b"OMPI_MCA_",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts in order."""
        table = modules = logged = False
        loaded: list[str] = []
        first = None
        for line in doc.lines():
            text = line.prefix + line.text
            if text.startswith("Module") and "Used by" in text:
                modules, first = True, line
            elif modules and (hit := _LSMOD.match(text)):
                loaded.append(hit[1])
            elif re.match(r"\s*Package\s+Version\b", text):
                table = True
            elif table and (hit := _PACKAGE.match(text)):
                yield fact(doc, line, "pip.package", hit[2], label=hit[1].lower(), around=hit[1])
            elif hit := _HYPERVISOR.match(text):
                yield fact(doc, line, "host.virtual", "yes", label=hit[1])
            elif hit := _NTP.match(text):
                yield fact(doc, line, "clock.synchronized", hit[1])
            elif hit := _LEAP.match(text):
                yield fact(doc, line, "clock.synchronized", "no" if "Not" in hit[1] else "yes")
            elif hit := _OFFSET.match(text):
                yield fact(doc, line, "clock.offset", float(hit[1]), "s")
            elif not logged and _DMESG.match(text):
                logged = True
                yield fact(doc, line, "host.kernel.log", "read")
            elif "WSL" in text or "icrosoft" in text:
                if _WSL.search(text):
                    yield fact(doc, line, "host.wsl", "WSL2" if "WSL2" in text else "WSL")
            elif hit := _OMPI.match(text):
                yield fact(doc, line, "env.var", hit[2], label=hit[1], around=hit[1])
            elif _WDDM.search(text):
                yield fact(doc, line, "driver.model", "WDDM")
        if first is not None:
            kept = " ".join(m for m in MODULES if m in loaded) or "none"
            yield fact(doc, first, "host.modules", kept)


COLLECTORS = (Collector("host.settings", _always, _settings),)
READERS: list[Reader] = [SettingsReader(), InventoryReader()]
