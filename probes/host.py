"""What a host or container has: CPUs, NUMA nodes, limits, memory, shared memory, cgroup files.

Every line form here is distinctive, so one pass with a table of patterns reads any mixture of
lscpu, numactl, nproc, taskset, ulimit, df, free, meminfo and cgroup files, whole or in part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact, number, size

MOST_CPUS = 1 << 16  # what no kernel has: a longer range is no list of CPUs


def cpu_list(text: str) -> int:
    """How many CPUs ``0-3,8,10-11`` names."""
    count = 0
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal() and (not high or high.isdecimal()):
            named = int(high) - int(low) + 1 if high else 1
            count += named if 0 < named <= MOST_CPUS else 0
    return count


_CPUS = regex(r"^\s*CPU\(s\):\s+(\d+)\s*$")
_MODEL = regex(r"^\s*Model name:\s+(\S.*?)\s*$")
_NODES = regex(r"^\s*(?:NUMA node\(s\):\s+(\d+)|available: (\d+) nodes? \()")
_NODE_CPUS = regex(r"^\s*(?:NUMA node(\d+) CPU\(s\):|node (\d+) cpus:)\s+([\d, -]+?)\s*$")
_BIND = regex(r"^\s*(physcpubind|cpubind|nodebind|membind):\s+([\d ]+?)\s*$")
_NPROC = regex(r"(?:^|\$\s*)nproc(?:\s+--all)?\s*(?:$|[:=>-]+\s*(\d+)\s*$)")
_AFFINITY = regex(
    r"(?:pid \d+'s )?(?:current |new )?(?:CPU )?affinity (?:(list):\s*([\d,-]+)|mask:\s*([0-9a-fA-F,]+))\s*$", re.I
)
_ALLOWED = regex(r"^\s*Cpus_allowed_list:\s*([\d,-]+)\s*$")
_TASKSET = regex(r"\btaskset\s+(?:-a\s+)?(?:-c\s+([\d,-]+)\b|-(?:cp|pc)\s+([\d,-]+)\s+\d+)")
_NUMACTL = regex(r"\bnumactl\s+((?:-{1,2}[\w-]+(?:[= ]\+?\d[\d,+-]*)?\s*)+)")
_NUMA_OPTION = regex(r"(?<!\S)(?:(--[\w-]+)[= ]|(-[NmCpi])[= ]?)(\d[\d,-]*)")
_CPUSET = regex(r"--cpuset-(mems|cpus)[= ]\"?(\d[\d,-]*)")
_UNIT = regex(r"^\s*(CPUAffinity|AllowedCPUs|NUMAMask|AllowedMemoryNodes)=(\d[\d, -]*?)\s*$")
_CGROUP_CPUS = regex(r"cpuset\.cpus(?:\.effective)?\W{0,3}(\d[\d,-]*)?\s*$")
_MEMS_ALLOWED = regex(r"^\s*Mems_allowed_list:\s*(\d[\d,-]*)\s*$")
_MPI_BOUND = regex(r"\brank (\d+) bound to (?:socket|package|NUMA) (\d)\[")
_ULIMIT = regex(r"^\s*(max locked memory|open files)\s*\(.*?-[ln]\)\s*(\S+)\s*$", re.I)
_PROC_LIMIT = regex(r"^\s*Max (locked memory|open files)\s+(\S+)\s+(\S+)", re.I)
_ULIMIT_CMD = regex(r"ulimit\s+-(l|n)\b\s*[:=>-]*\s*(\d+|unlimited)?\s*$")
_DF = regex(
    r"^\s*(\S+)\s+(?:(\w[\w.]+)\s+)?(\d+(?:\.\d+)?[KMGTP]?i?B?)\s+(\d+(?:\.\d+)?[KMGTP]?i?B?)\s+(\d+(?:\.\d+)?[KMGTP]?i?B?)\s+(\d+)%\s+(/"
    r"\S*)\s*$"
)
_FREE = regex(
    r"^\s*(Mem|Swap):\s+(\d+(?:\.\d+)?\w*)\s+(\d+(?:\.\d+)?\w*)\s+(\d+(?:\.\d+)?\w*)(?:\s+[\d.]+\w*\s+[\d.]+\w*\s+(\d+(?:\.\d+)?\w*))?"
)
_MEMINFO = regex(r"^\s*(MemTotal|MemAvailable|SwapTotal|SwapFree):\s+(\d+) kB")
_CPU_MAX = regex(r"(?:^|cpu\.max\s*[:=]?\s*|^\$?\s*)(\d{4,9})\s+(\d{4,7})\s*$")
_QUOTA = regex(r"cpu\.cfs_(quota|period)_us\s*[:=]?\s*(-?\d+)")
_THROTTLE = regex(r"^\s*(?:cpu\.stat:?\s*)?(nr_periods|nr_throttled|throttled_usec|throttled_time)\s*[:=]?\s*(\d+)\b")
_MEM_MAX = regex(r"memory\.(?:max|limit_in_bytes)\s*[:=]?\s*(\d{6,})")
_MEM_EVENT = regex(r"^\s*(?:memory\.events:?\s*)?(oom_kill|oom_group_kill|oom|max|high)\s+(\d+)\s*$")
_GOVERNOR = regex(r"scaling_governor\s*[:=]?\s*(\w+)|The governor \"(\w+)\"|cpu governor\s*[:=]\s*(\w+)", re.I)
_MOUNT = regex(
    r"^\s*(\S+:\S+|\S+)\s+(?:on\s+)?(/\S*)\s+(?:type\s+)?(nfs4?|cifs|lustre|fuse\.\w+|ceph|gpfs|beegfs|9p|overlay|"
    r"glusterfs|wekafs)\b"
)


# any line that one of the patterns reads holds one of these: what makes a log of a million lines cheap
_HINT = regex(
    r"CPU\(s\)|Model name|NUMA node|available: |cpus:|bind|nproc|ffinity|Cpus_allowed|taskset|numactl|ocked memory|"
    r"pen files|ulimit|% +/|Mem|Swap|cpu\.|memory\.|nr_|throttled|overnor|oom|max |high |\d{4} \d{4}|nfs|cifs|lustre|"
    r"cpuset|CPUAffinity|AllowedCPUs|NUMAMask|AllowedMemoryNodes|Mems_allowed|bound to |"
    r"fuse|ceph|gpfs|beegfs|9p|overlay|glusterfs|wekafs|^\s*(?:max|high)\b"
)


def _free_unit(total: str) -> str:
    """Unit of bare numbers: plain `free` counts KiB, `free -m` MiB, `free -g` GiB."""
    whole = number(total) or 0.0
    return "kib" if whole > 4e6 else "mib" if whole > 4e3 else "gib"


class HostReader:
    """Inventory of a host or container."""

    name = "host"
    needles: tuple[bytes, ...] = (
        b"--cpuset-", b"cpuset.cpus", b"CPUAffinity=", b"AllowedCPUs=", b"NUMAMask=", b"AllowedMemoryNodes=",
        b"Mems_allowed_list", b" bound to ", b"CPU(s):", b"NUMA node", b"available: ", b" cpus:",
        b"physcpubind", b"cpubind", b"nproc", b"affinity",
        b"Cpus_allowed_list",
        b"taskset", b"numactl", b"locked memory", b"open files", b"ulimit", b"% /", b"Mem:", b"MemTotal",
        b"MemAvailable", b"Swap:",
        b"cpu.max", b"cfs_quota", b"nr_throttled", b"nr_periods", b"memory.max", b"oom_kill", b"governor", b"/dev/shm",
        b" nfs", b"lustre",
        b"throttled_usec",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.*`: CPUs as counts and lists, memory in GiB, limits as printed, NUMA nodes, file systems."""
        scale = "kib"
        pending = ""  # the command whose bare answer is on the next line
        quota: float | None = None
        swap_total: float | None = None
        throttle: dict[str, tuple[float, Line]] = {}
        in_events = False
        for line, may in told(doc.novel(), also=_HINT.pattern):
            text = line.text
            if pending and (alone := text.strip()):
                yield from self._answer(doc, line, pending, alone)
                pending = ""
            if not (may and _HINT.search(text)):
                in_events = in_events and bool(text.strip())
                continue
            if (hit := _NPROC.search(text)) is not None:
                if hit.group(1):
                    yield fact(doc, line, "host.cpu.allowed_count", float(hit.group(1)), "count", label="nproc")
                else:
                    pending = "nproc --all" if "--all" in text else "nproc"
                continue
            if (hit := _ULIMIT_CMD.search(text)) is not None:
                kind = "memlock" if hit.group(1) == "l" else "nofile"
                if hit.group(2):
                    yield fact(doc, line, f"host.limit.{kind}", hit.group(2))
                else:
                    pending = f"ulimit {kind}"
                continue
            if re.search(r"cat\s+\S*cpu\.max", text) and "memory" not in text:
                pending = "cpu.max"
                continue
            if (hit := _CGROUP_CPUS.search(text)) is not None:
                if hit[1]:
                    yield fact(doc, line, "host.cpu.allowed", hit[1])
                pending = "" if hit[1] else "cpuset"
                continue
            if re.search(r"cat\s+\S*memory\.max\s*$", text):
                pending = "memory.max"
                continue
            if re.search(r"cat\s+\S*scaling_governor", text):
                pending = "governor"
                continue
            in_events = (in_events or "memory.events" in text) and bool(text.strip())
            if (hit := _THROTTLE.match(text)) is not None:
                throttle[hit.group(1)] = (float(hit.group(2)), line)
            elif (hit := _QUOTA.search(text)) is not None:
                if hit.group(1) == "quota":
                    quota = float(hit.group(2))
                    if quota > 0:
                        yield fact(doc, line, "host.cpu.quota", quota / 1e5, "count", label="cgroup")
            elif (hit := _MEM_EVENT.match(text)) is not None and (in_events or hit.group(1).startswith("oom_")):
                yield fact(doc, line, "host.memory.events", float(hit.group(2)), "count", label=hit.group(1))
            elif (hit := _FREE.match(text)) is not None:
                if hit.group(1) == "Mem":
                    scale = _free_unit(hit.group(2))
                yield from self._free(doc, line, hit, scale)
            elif (hit := _MEMINFO.match(text)) is not None:
                value = float(hit.group(2)) / 2**20
                if hit.group(1) == "SwapFree" and swap_total is not None:
                    yield computed(doc, line, "host.swap.used", round(swap_total - value, 6), "GiB", self.name)
                names = {
                    "MemTotal": "host.memory.total",
                    "MemAvailable": "host.memory.available",
                    "SwapTotal": "host.swap.total",
                }
                if hit.group(1) == "SwapTotal":
                    swap_total = value
                if hit.group(1) in names:
                    yield fact(doc, line, names[hit.group(1)], value, "GiB")
            else:
                yield from self._plain(doc, line)
        yield from self._throttled(doc, throttle)

    def _answer(self, doc: Document, line: Line, command: str, text: str) -> Iterator[Fact]:
        if command.startswith("nproc") and text.isdecimal():
            if command == "nproc":
                yield fact(doc, line, "host.cpu.allowed_count", float(text), "count", label="nproc")
            else:
                yield fact(doc, line, "host.cpu.count", float(text), "count")
        elif command.startswith("ulimit") and re.fullmatch(r"\d+|unlimited", text):
            yield fact(doc, line, f"host.limit.{command.split()[1]}", text)
        elif command == "cpu.max" and (hit := re.fullmatch(r"(\d+) (\d+)", text)):
            yield from self._quota(doc, line, hit)
        elif command == "memory.max" and text.isdecimal():
            yield fact(doc, line, "host.memory.limit", int(text) / 2**30, "GiB", label="cgroup")
        elif command == "cpuset" and re.fullmatch(r"\d[\d,-]*", text):
            yield fact(doc, line, "host.cpu.allowed", text)
        elif command == "governor" and text.isalpha():
            yield fact(doc, line, "host.cpu.governor", text)

    def _quota(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        """Cores that a quota over a period amounts to."""
        quota, period = float(hit.group(1)), float(hit.group(2))
        if period > 0:
            yield computed(doc, line, "host.cpu.quota", quota / period, "count", self.name, label="cgroup")

    def _plain(self, doc: Document, line: Line) -> Iterator[Fact]:
        text = line.text
        if (hit := _CPUS.match(text)) is not None:
            yield fact(doc, line, "host.cpu.count", float(hit.group(1)), "count")
        elif (hit := _MODEL.match(text)) is not None:
            yield fact(doc, line, "host.cpu.model", hit.group(1))
        elif (hit := _NODES.match(text)) is not None:
            yield fact(doc, line, "host.numa.nodes", float(hit.group(1) or hit.group(2)), "count")
        elif (hit := _NODE_CPUS.match(text)) is not None:
            cpus = hit.group(3) if "," in hit.group(3) or "-" in hit.group(3) else ",".join(hit.group(3).split())
            yield fact(doc, line, "host.numa.cpus", cpus, label=hit.group(1) or hit.group(2))
        elif (hit := _BIND.match(text)) is not None:
            yield fact(doc, line, "host.numa.bind", ",".join(hit.group(2).split()), label=hit.group(1))
        elif (hit := _AFFINITY.search(text)) is not None:
            count = cpu_list(hit.group(2)) if hit.group(1) else int("0" + hit.group(3).replace(",", ""), 16).bit_count()
            if hit.group(1):
                yield fact(doc, line, "host.cpu.allowed", hit.group(2))
            yield computed(doc, line, "host.cpu.allowed_count", float(count), "count", self.name, label="affinity")
        elif (hit := _ALLOWED.match(text)) is not None or (hit := _TASKSET.search(text)) is not None:
            label = "taskset" if "taskset" in text else "affinity"
            cpus = next(g for g in hit.groups() if g)
            yield fact(doc, line, "host.cpu.allowed", cpus)
            yield computed(doc, line, "host.cpu.allowed_count", float(cpu_list(cpus)), "count", self.name, label=label)
        elif (hit := _NUMACTL.search(text)) is not None:
            for long, short, value in _NUMA_OPTION.findall(hit.group(1)):
                yield fact(doc, line, "host.numa.bind", value, label=(long or short).lstrip("-"))
        elif (hit := _UNIT.match(text)) is not None:
            signal = "host.cpu.allowed" if "CPU" in hit[1] else "host.numa.bind"
            whose = None if "CPU" in hit[1] else "nodes of the unit"
            yield fact(doc, line, signal, ",".join(hit[2].replace(",", " ").split()), label=whose)
        elif (hit := _MEMS_ALLOWED.match(text)) is not None:
            yield fact(doc, line, "host.numa.bind", hit[1], label="mems allowed")
        elif (hit := _MPI_BOUND.search(text)) is not None:
            yield fact(doc, line, "host.numa.bind", hit[2], label="node of a rank", rank=int(hit[1]))
        elif "--cpuset-" in text:
            for kind, value in _CPUSET.findall(text):
                signal = "host.numa.bind" if kind == "mems" else "host.cpu.allowed"
                yield fact(doc, line, signal, value, label="cpuset-mems" if kind == "mems" else None)
        elif (hit := _ULIMIT.match(text)) is not None or (hit := _PROC_LIMIT.match(text)) is not None:
            kind = "memlock" if "locked" in hit.group(1).lower() else "nofile"
            yield fact(doc, line, f"host.limit.{kind}", hit.group(2))
        elif (hit := _DF.match(text)) is not None:
            yield from self._df(doc, line, hit)
        elif (hit := _CPU_MAX.search(text)) is not None and ("cpu.max" in text or hit.group(2) == "100000"):
            yield from self._quota(doc, line, hit)
        elif (hit := _MEM_MAX.search(text)) is not None and int(hit.group(1)) < 1 << 60:
            yield fact(doc, line, "host.memory.limit", int(hit.group(1)) / 2**30, "GiB", label="cgroup")
        elif (hit := _GOVERNOR.search(text)) is not None:
            yield fact(doc, line, "host.cpu.governor", next(g for g in hit.groups() if g))
        elif (hit := _MOUNT.match(text)) is not None:
            yield fact(doc, line, "host.filesystem", hit.group(3), label=hit.group(2))

    def _df(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        mount, total = hit.group(7), size(hit.group(3), "kib")
        if mount == "/dev/shm" and total is not None:  # noqa: S108 (a mount point in the text)
            yield fact(doc, line, "host.shm.size", total, "GiB", label=mount)
            yield fact(doc, line, "host.shm.used", float(hit.group(6)) / 100, "fraction", label=mount)
        elif float(hit.group(6)) >= 95:
            yield fact(doc, line, "host.disk.full", float(hit.group(6)) / 100, "fraction", label=mount)
        kind = hit.group(2) or ("nfs" if ":/" in hit.group(1) else "")
        if kind:
            yield fact(doc, line, "host.filesystem", kind, label=mount)

    def _free(self, doc: Document, line: Line, hit: re.Match[str], scale: str) -> Iterator[Fact]:
        total, used = size(hit.group(2), scale), size(hit.group(3), scale)
        if hit.group(1) == "Mem":
            if total is not None:
                yield fact(doc, line, "host.memory.total", total, "GiB")
            if hit.group(5) and (left := size(hit.group(5), scale)) is not None:
                yield fact(doc, line, "host.memory.available", left, "GiB")
        elif total:
            yield fact(doc, line, "host.swap.total", total, "GiB")
            if used is not None:
                yield fact(doc, line, "host.swap.used", used, "GiB")

    def _throttled(self, doc: Document, seen: dict[str, tuple[float, Line]]) -> Iterator[Fact]:
        if "nr_periods" in seen and "nr_throttled" in seen:
            periods, throttled = seen["nr_periods"], seen["nr_throttled"]
            if periods[0] > 0:
                spans = (doc.span(throttled[1]), doc.span(periods[1]))
                yield Fact(
                    "host.cpu.throttled", round(throttled[0] / periods[0], 6), "fraction", spans=spans, kind="derived",
                    formula="reader:host", status=doc.status,
                )  # fmt: skip
        for name, factor in (("throttled_usec", 1.0), ("throttled_time", 1e-3)):
            if name in seen and seen[name][0] > 0:
                yield fact(doc, seen[name][1], "host.cpu.throttled_time", seen[name][0] * factor, "us")


READERS: list[Reader] = [HostReader()]
