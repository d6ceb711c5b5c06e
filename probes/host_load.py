"""How busy a host is: top, uptime, vmstat, mpstat, pidstat, iostat, PSI, numastat, py-spy, dd and load times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import fact, number

_LOAD = regex(r"load averages?:\s*(\d+(?:\.\d+)?)(?=[\s,]|$)", re.I)
_TOP_CPU = regex(r"^\s*(%Cpu(?:\(s\)|\d+)|Cpu\(s\))\s*:\s*(.+)$", re.I)
_TOP_PART = regex(r"(\d+(?:\.\d+)?)\s*%?\s*(us|sy|ni|id|wa|hi|si|st)\b")
_TOP_HEAD = regex(r"^\s*(?:F\s+)?PID\s+USER\b.*%CPU", re.I)
_GIL = regex(r"GIL:\s*(\d+(?:\.\d+)?)%,\s*Active:\s*(\d+(?:\.\d+)?)%")
_PYSPY = regex(r"^\s*(\d+(?:\.\d+)?)%\s+(\d+(?:\.\d+)?)%\s+[\d.]+s\s+[\d.]+s\s+(\S.*?)\s*$")
_PSI = regex(r"^\s*(?:\S*(cpu|memory|io)\S*\s*[:=]?\s*)?(some|full)\s+avg10=(\d+(?:\.\d+)?)\s+avg60=(\d+(?:\.\d+)?)")
_PSI_FILE = regex(r"pressure/(cpu|memory|io)|(cpu|memory|io)\.pressure")
_NUMA = {"numa_hit": "host.numa.hit", "numa_miss": "host.numa.miss", "other_node": "host.numa.other"}
_NUMASTAT = regex(r"^\s*(numa_hit|numa_miss|numa_foreign|other_node|local_node)\s+([\d ]+?)\s*$")
_NUMA_PROCESS = regex(r"^\s*(Private|Total)\s+(\d+(?:\.\d+)?(?:\s+\d+(?:\.\d+)?)+)\s*$")
_NUMA_HEAD = regex(r"^\s+Node 0\s+Node 1\s.*Total\s*$")
_DD = regex(r"copied,\s*[\d.]+ s(?:econds)?,\s*(\d+(?:\.\d+)?)\s*([kMG]i?B/s)")
_FIO = regex(r"^\s*(READ|WRITE):\s*(?:io=\S+,\s*)?(?:bw|aggrb)=(\d+(?:\.\d+)?)\s*([KMG]i?B/s)")
_HDPARM = regex(r"Timing (?:buffered disk|cached) reads:.*=\s*(\d+(?:\.\d+)?)\s*(MB/sec)")
_LOAD_TIME = regex(
    r"(Loading (?:model )?weights|Model loading|Loading weights|load weight|Weights? "
    r"loading|(?:successfully )?loaded (?:a |the )?checkpoint|checkpoint (?:loaded|load(?:ing)?|restored?))"
    r"\b[^\n]*?\b(?:took|in)\s+(\d+(?:\.\d+)?)\s*(?:s|sec|seconds)\b",
    re.I,
)
_LOAD_BOTH = regex(
    r"(?:Model loading|Loading model weights) took (\d+(?:\.\d+)?) Gi?B(?: memory)? and (\d+(?:\.\d+)?) seconds", re.I
)
_SHARD = regex(r"checkpoint shards:.*?(\d+)/(\d+)\s*\[.*?(\d+(?:\.\d+)?)\s*s/it\]", re.I)
_STATS = regex(r"^\s*[0-9a-f]{12}\s+(\S+)\s+(\d+(?:\.\d+)?)%\s+[\d.]+\s?[KMGT]?i?B\s*/\s*[\d.]+\s?[KMGT]?i?B\s")
_CFS = regex(r"container_cpu_cfs_(throttled_)?periods_total(?:\{[^}]*\})?\s+(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_CPU_PARTS = {"us": "user", "sy": "system", "id": "idle", "wa": "iowait", "st": "steal", "si": "softirq"}
_MP_PARTS = {"%usr": "user", "%user": "user", "%sys": "system", "%system": "system", "%idle": "idle",
    "%iowait": "iowait",
             "%steal": "steal", "%soft": "softirq"}  # fmt: skip
_NEEDED = {"steal": 0.02, "softirq": 0.1, "iowait": 0.05}  # below this it is not worth a fact


# What a line holds that says something, outside a table: those of `docker stats` and py-spy have no other word.
_PATTERNS = (
    _LOAD,
    _CFS,
    _TOP_CPU,
    _GIL,
    _PSI_FILE,
    _PSI,
    _NUMASTAT,
    _DD,
    _FIO,
    _HDPARM,
    _LOAD_TIME,
    _LOAD_BOTH,
    _SHARD,
)
_WORDS = ("%", "PID", "swpd", "Node 0", "Per-node", "avg-cpu:")


@dataclass
class _Worst:
    """The most telling sample of a counter: highest, but for idle time the lowest."""

    value: float
    line: Line


class LoadReader:
    """Snapshots and samples of host load."""

    name = "host_load"
    needles: tuple[bytes, ...] = (
        b"load average", b"Cpu(s)", b"%Cpu", b"%CPU", b"procs --", b"swpd", b"%usr", b"%idle", b"%steal", b"%iowait",
        b"%util",
        b"avg10=", b"numa_miss", b"numa_hit", b"GIL:", b"%Own", b"copied,", b"bw=", b"aggrb=", b" took ", b"s/it]",
        b"oaded checkpoint", b"heckpoint loaded", b"heckpoint restored",
        b"Per-node process", b"Node 0",
        b"Timing ", b"cswch", b"MEM USAGE", b"_cfs_",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.*`; of a counter that was sampled many times the most telling sample."""
        columns: list[str] = []
        kind = ""
        psi = ""
        worst: dict[tuple[str, str | None, str], _Worst] = {}
        periods: dict[str, tuple[float, Line]] = {}
        functions = processes = 0
        for line, may in told(doc.lines(), *_PATTERNS, words=_WORDS):
            text = line.text
            if not may and not kind:
                continue
            if (hit := _LOAD.search(text)) is not None:
                yield fact(doc, line, "host.load", float(hit.group(1)), "count")
            if (hit := _STATS.match(text)) is not None:
                yield fact(doc, line, "host.process.cpu", float(hit.group(2)) / 100, "count", label=hit.group(1))
                continue
            if (hit := _CFS.search(text)) is not None:
                periods["throttled" if hit.group(1) else "all"] = (float(hit.group(2)), line)
                continue
            if (hit := _TOP_CPU.match(text)) is not None:
                yield from self._top(doc, line, hit)
                continue
            if (hit := _GIL.search(text)) is not None:
                yield fact(doc, line, "host.pyspy.gil", float(hit.group(1)) / 100, "fraction")
                yield fact(doc, line, "host.pyspy.active", float(hit.group(2)) / 100, "fraction")
                continue
            if (hit := _PYSPY.match(text)) is not None and functions < 8:
                functions += 1
                yield fact(
                    doc, line, "host.pyspy.function", float(hit.group(1)) / 100, "fraction", label=hit.group(3)[:120]
                )
                continue
            if (hit := _PSI_FILE.search(text)) is not None:
                psi = hit.group(1) or hit.group(2)
            if (hit := _PSI.match(text)) is not None:
                label = f"{hit.group(1) or psi or 'cpu'} {hit.group(2)}"
                yield fact(
                    doc, line, "host.psi", max(float(hit.group(3)), float(hit.group(4))) / 100, "fraction", label=label
                )
                continue
            if (hit := _NUMASTAT.match(text)) is not None:
                signal = _NUMA.get(hit.group(1))
                for node, count in enumerate(hit.group(2).split() if signal else []):
                    yield fact(doc, line, str(signal), float(count), "count", label=f"node {node}")
                continue
            if (
                kind == "numastat"
                and (hit := _NUMA_PROCESS.match(text)) is not None
                and hit.group(1) in ("Total", "Private")
            ):
                for node, held in enumerate(hit.group(2).split()[:-1]):
                    yield fact(doc, line, "host.numa.process", float(held) / 1024, "GiB", label=f"node {node}")
                kind = ""
                continue
            yield from self._storage(doc, line)
            header = self._header(text)
            if header:
                kind, columns = header
                continue
            words = text.split()
            if kind == "top" and len(words) >= len(columns) and words[0].isdecimal() and processes < 8:
                made = self._process(doc, line, columns, words)
                processes += len(made)
                yield from made
            elif kind in ("vmstat", "mpstat", "iostat", "pidstat") and columns:
                self._row(line, kind, columns, words, worst)
        if len(periods) == 2 and periods["all"][0] > 0:
            spans = (doc.span(periods["throttled"][1]), doc.span(periods["all"][1]))
            yield Fact(
                "host.cpu.throttled", round(periods["throttled"][0] / periods["all"][0], 6), "fraction", spans=spans,
                kind="derived", formula="reader:host_load", status=doc.status,
            )  # fmt: skip
        for (signal, who, unit), item in worst.items():
            yield fact(doc, item.line, signal, item.value, unit, label=who)

    def _header(self, text: str) -> tuple[str, list[str]] | None:
        words = text.lstrip("# ").split()
        if _TOP_HEAD.match(text):
            return "top", [w.lower() for w in words]
        if "swpd" in words and "free" in words:
            return "vmstat", words
        if "%idle" in words and ("CPU" in words or "%usr" in words) and "UID" not in words and "PID" not in words:
            return "mpstat", words
        if "PID" in words and ("%wait" in words or "%usr" in words):
            return "pidstat", words
        if "%util" in words:
            return "iostat", words
        if text.startswith("Per-node process memory") or _NUMA_HEAD.match(text):
            return "numastat", []
        if text.lstrip().startswith("avg-cpu:"):
            return "mpstat", words[1:]
        return None

    def _top(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        label = hit.group(1).strip("%") if hit.group(1)[-1].isdecimal() else None
        for share, part in _TOP_PART.findall(hit.group(2)):
            name = _CPU_PARTS.get(part)
            value = float(share) / 100
            if name and value >= _NEEDED.get(name, 0.0):
                yield fact(doc, line, f"host.cpu.{name}", value, "fraction", label=label)

    def _process(self, doc: Document, line: Line, columns: list[str], words: list[str]) -> list[Fact]:
        try:
            at = columns.index("%cpu")
        except ValueError:
            return []
        share = number(words[at])
        name = " ".join(words[len(columns) - 1 :])
        if share is None or share < 50:
            return []
        return [fact(doc, line, "host.process.cpu", share / 100, "count", label=f"{words[0]} {name}"[:80])]

    def _row(
        self, line: Line, kind: str, columns: list[str], words: list[str],
        worst: dict[tuple[str, str | None, str], _Worst],
    ) -> None:  # fmt: skip
        if len(words) < len(columns) - (1 if kind == "mpstat" else 0) or not any(w[:1].isdecimal() for w in words):
            return
        row = dict(zip(columns, words, strict=False))
        if len(words) < len(columns):
            row = dict(zip(columns[-len(words) :], words, strict=False))

        def keep(signal: str, value: float | None, unit: str, label: str | None = None) -> None:
            if value is None:
                return
            low = signal == "host.cpu.idle"
            old = worst.get((signal, label, unit))
            if old is None or (value < old.value if low else value > old.value):
                worst[(signal, label, unit)] = _Worst(value, line)

        if kind == "vmstat":
            for name, signal in (
                ("r", "host.cpu.run_queue"),
                ("b", "host.cpu.blocked"),
                ("si", "host.swap.in"),
                ("so", "host.swap.out"),
            ):
                keep(signal, number(row.get(name, "")), "count")
            for name, part in _CPU_PARTS.items():
                share = number(row.get(name, "")) if name != "si" else None  # here si is swap-in
                if share is not None and share / 100 >= _NEEDED.get(part, 0.0):
                    keep(f"host.cpu.{part}", share / 100, "fraction")
        elif kind == "mpstat":
            label = row.get("CPU")
            if label not in (None, "all") and number(row.get("%soft", "0")) == 0:
                return
            for name, part in _MP_PARTS.items():
                if name in row and (value := number(row[name])) is not None and value / 100 >= _NEEDED.get(part, 0.0):
                    keep(f"host.cpu.{part}", value / 100, "fraction", None if label == "all" else label)
        elif kind == "pidstat":
            name = row.get("Command", words[-1])
            # of a watched server (whose table has the CPUs) also that its threads do not wait
            if (wait := number(row.get("%wait", "-"))) is not None and (wait >= 5 or "CPUS" in row):
                keep("host.process.wait", wait / 100, "fraction", name)
                keep("host.process.cpus", number(row.get("CPUS", "-")), "count", name)
            if (cpu := number(row.get("%CPU", "-"))) is not None and cpu >= 50:
                keep("host.process.cpu", cpu / 100, "count", name)
        else:
            device = words[0]
            busy = number(row["%util"])
            keep("host.disk.util", busy / 100 if busy is not None else None, "fraction", device)
            for name in ("await", "r_await", "w_await"):
                keep("host.disk.await", number(row.get(name, "")), "ms", device)

    def _storage(self, doc: Document, line: Line) -> Iterator[Fact]:
        text = line.text
        for pattern, label in ((_DD, "dd"), (_HDPARM, "hdparm")):
            if (hit := pattern.search(text)) is not None and (
                rate := canonical(float(hit.group(1)), hit.group(2))
            ) is not None:
                yield fact(doc, line, "host.disk.rate", rate[0], "GB/s", label=label)
        if (hit := _FIO.match(text)) is not None and (rate := canonical(float(hit.group(2)), hit.group(3))) is not None:
            yield fact(doc, line, "host.disk.rate", rate[0], "GB/s", label=f"fio {hit.group(1).lower()}")
        if (hit := _LOAD_BOTH.search(text)) is not None:
            took = fact(doc, line, "host.load_time", float(hit.group(2)), "s", label="model loading")
            yield took
            if took.value:
                rate_value = float(hit.group(1)) * 1.073741824 / float(hit.group(2))
                yield Fact(
                    "host.load_rate", round(rate_value, 6), "GB/s", spans=took.spans, kind="derived",
                    formula="reader:host_load", status=doc.status,
                )  # fmt: skip
        elif (hit := _LOAD_TIME.search(text)) is not None:
            yield fact(doc, line, "host.load_time", float(hit.group(2)), "s", label=hit.group(1).lower())
        if (hit := _SHARD.search(text)) is not None:
            yield fact(doc, line, "host.shard_time", float(hit.group(3)), "s")


READERS: list[Reader] = [LoadReader()]
