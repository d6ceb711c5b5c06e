"""Sampled readings: `nvidia-smi --query-gpu|--query-compute-apps --format=csv`, `dmon`, `pmon`.

Of many samples one GPU keeps the row under the highest load (which is what its clocks and its link
mean anything under), the lowest SM clock seen under load, and every clock event reason seen there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import fact, number

# bit -> reason of clocks_event_reasons.active (nvml.h)
REASON_BITS = {
    0x1: "gpu_idle", 0x2: "applications_clocks_setting", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
    0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}  # fmt: skip
_LOADED = 0.8  # utilisation from which a clock counts as a clock under load
_Key = tuple[str, str | None]  # signal and label
_Numbers = dict[_Key, tuple[float, str]]

# column of --query-gpu or dmon -> (signal, unit, factor, label)
_COLUMNS: dict[str, tuple[str, str, float, str | None]] = {
    "pcie.link.gen.current": ("gpu.pcie.gen", "count", 1, None),
    "pcie.link.gen.gpucurrent": ("gpu.pcie.gen", "count", 1, None),
    "pcie.link.gen.max": ("gpu.pcie.gen.max", "count", 1, None),
    "pcie.link.gen.gpumax": ("gpu.pcie.gen.max", "count", 1, "device"),
    "pcie.link.gen.hostmax": ("gpu.pcie.gen.max", "count", 1, "host"),
    "pcie.link.width.current": ("gpu.pcie.width", "count", 1, None),
    "pcie.link.width.max": ("gpu.pcie.width.max", "count", 1, None),
    "clocks.current.sm": ("gpu.clock.sm", "MHz", 1, None), "clocks.sm": ("gpu.clock.sm", "MHz", 1, None),
    "clocks.current.graphics": ("gpu.clock.sm", "MHz", 1, None), "clocks.gr": ("gpu.clock.sm", "MHz", 1, None),
    "clocks.max.sm": ("gpu.clock.sm.max", "MHz", 1, None), "clocks.max.graphics": ("gpu.clock.sm.max", "MHz", 1, None),
    "clocks.max.gr": ("gpu.clock.sm.max", "MHz", 1, None),
    "clocks.current.memory": ("gpu.clock.mem", "MHz", 1, None), "clocks.mem": ("gpu.clock.mem", "MHz", 1, None),
    "clocks.max.memory": ("gpu.clock.mem.max", "MHz", 1, None), "clocks.max.mem": ("gpu.clock.mem.max", "MHz", 1, None),
    "clocks.applications.graphics": ("gpu.clock.app", "MHz", 1, "graphics"),
    "clocks.applications.gr": ("gpu.clock.app", "MHz", 1, "graphics"),
    "clocks.default_applications.graphics": ("gpu.clock.app.default", "MHz", 1, "graphics"),
    "temperature.gpu.tlimit": ("gpu.temperature.headroom", "C", 1, None),
    "temperature.gpu": ("gpu.temperature", "C", 1, None), "temperature.memory": ("gpu.temperature", "C", 1, "memory"),
    "power.draw": ("gpu.power", "W", 1, None), "power.draw.average": ("gpu.power", "W", 1, None),
    "power.draw.instant": ("gpu.power", "W", 1, None),
    "power.limit": ("gpu.power.limit", "W", 1, None), "enforced.power.limit": ("gpu.power.limit", "W", 1, None),
    "power.default_limit": ("gpu.power.default", "W", 1, None), "power.max_limit": ("gpu.power.max", "W", 1, None),
    "utilization.gpu": ("gpu.util", "fraction", 0.01, None), "utilization.memory": ("gpu.util.mem", "fraction", 0.01,
    None),
    "memory.total": ("gpu.memory.total", "GiB", 1 / 1024, None), "memory.used": ("gpu.memory.used", "GiB", 1 / 1024,
    None),
    "memory.free": ("gpu.memory.free", "GiB", 1 / 1024, None),
    "ecc.errors.uncorrected.volatile.total": ("gpu.ecc.uncorrected", "count", 1, "volatile"),
    "ecc.errors.uncorrected.aggregate.total": ("gpu.ecc.uncorrected", "count", 1, "aggregate"),
    "ecc.errors.corrected.volatile.total": ("gpu.ecc.corrected", "count", 1, "volatile"),
    "remapped_rows.uncorrectable": ("gpu.remap.rows", "count", 1, "uncorrectable"),
    "remapped_rows.correctable": ("gpu.remap.rows", "count", 1, "correctable"),
}  # fmt: skip
_TEXT_COLUMNS = {
    "name": "gpu.name", "gpu_name": "gpu.name", "pstate": "gpu.pstate", "persistence_mode": "gpu.persistence",
    "compute_mode": "gpu.compute_mode", "mig.mode.current": "gpu.mig", "gpu_recovery_action": "gpu.recovery_action",
}  # fmt: skip
_DMON: dict[str, tuple[str, str, float, str | None]] = {
    "pwr": ("gpu.power", "W", 1, None), "gtemp": ("gpu.temperature", "C", 1, None),
    "temp": ("gpu.temperature", "C", 1, None), "mtemp": ("gpu.temperature", "C", 1, "memory"),
    "sm": ("gpu.util", "fraction", 0.01, None), "mem": ("gpu.util.mem", "fraction", 0.01, None),
    "mclk": ("gpu.clock.mem", "MHz", 1, None), "pclk": ("gpu.clock.sm", "MHz", 1, None),
    "pviol": ("gpu.throttle.power_violation", "fraction", 0.01, None),
    "tviol": ("gpu.throttle.thermal_violation", "count", 1, None),
    "fb": ("gpu.memory.used", "GiB", 1 / 1024, None), "dbecc": ("gpu.ecc.uncorrected", "count", 1, "dmon"),
    "sbecc": ("gpu.ecc.corrected", "count", 1, "dmon"), "pci": ("gpu.pcie.replays", "count", 1, "dmon"),
    "rxpci": ("gpu.pcie.traffic", "GB/s", 1e-3, "rx"), "txpci": ("gpu.pcie.traffic", "GB/s", 1e-3, "tx"),
}  # fmt: skip
_HEADER = (  # holds of each line that names a column
    rf"(?i:(?:^|[,|])\s*(?:{'|'.join(map(re.escape, (*_COLUMNS, *_TEXT_COLUMNS)))})\s*(?:[\[,|]|$)"
    r"|clocks_(?:event|throttle)_reasons\.|used_(?:gpu_)?memory|--query-)"
)
_REASON = regex(r"clocks_(?:event|throttle)_reasons\.(\w+)")
_WORKING, _FEW = 0.1, 3  # share of a sample; so few samples show no state of a series
_WORST = ("gpu.throttle.thermal_violation", "gpu.throttle.power_violation", "gpu.pcie.replays")


@dataclass
class _Samples:
    """Rows of one GPU: each the line, its numbers by (signal, label), its texts and active reasons."""

    rows: list[tuple[Line, _Numbers, dict[str, str], set[str]]] = field(default_factory=list)

    def facts(self, doc: Document, gpu: int | None) -> Iterator[Fact]:
        util = ("gpu.util", None)
        line, numbers, texts, _ = self.rows[self._typical()]
        for (signal, label), (value, unit) in numbers.items():
            if signal not in _WORST:
                yield fact(doc, line, signal, value, unit, gpu=gpu, label=label)
        for signal in _WORST:
            seen = [(r[1][key][0], r[0], key[1]) for r in self.rows for key in r[1] if key[0] == signal]
            if seen:
                value, where, label = max(seen, key=lambda s: s[0])
                unit = next(r[1][(signal, label)][1] for r in self.rows if (signal, label) in r[1])
                yield fact(doc, where, signal, value, unit, gpu=gpu, label=label)
        for signal, text in texts.items():
            yield fact(doc, line, signal, text, gpu=gpu)
        reasons: dict[str, list[Line]] = {}
        for where, values, _, active in self.rows:
            if values.get(util, (1.0, ""))[0] > 0.1 or len(self.rows) == 1:
                for reason in active:
                    reasons.setdefault(reason, []).append(where)
        for reason, lines in sorted(reasons.items()):
            made = fact(doc, lines[0], "gpu.throttle", "active", gpu=gpu, label=reason)
            yield Fact(
                made.signal, made.value, made.unit, made.subject, made.spans, count=len(lines), status=doc.status
            )
        loaded = [
            (row[1][("gpu.clock.sm", None)][0], row[0])
            for row in self.rows
            if row[1].get(util, (0.0, ""))[0] >= _LOADED and ("gpu.clock.sm", None) in row[1]
        ]
        if len(loaded) > 1:
            low, where = min(loaded, key=lambda x: x[0])
            yield fact(doc, where, "gpu.clock.sm", low, "MHz", gpu=gpu, label="lowest under load")
        shares = [(row[1][util][0], row[0]) for row in self.rows if util in row[1]]
        if len(shares) >= 5:
            mean = sum(s for s, _ in shares) / len(shares)
            spans = (doc.span(shares[0][1]), doc.span(shares[-1][1]))
            yield Fact(
                "gpu.util", round(mean, 4), "fraction", Subject(gpu=gpu, label="mean of samples"), spans,
                kind="derived",
                formula="reader:nvidia_smi_csv", count=len(shares), status=doc.status,
            )  # fmt: skip

    def _typical(self) -> int:
        """The sample that stands for all: of those with the highest load the one in the middle, by clock and power.

        Where hardly any has that load, the middle of all that work: a clock dips for a moment when a burst begins.
        """
        util = [row[1].get(("gpu.util", None), (-1.0, ""))[0] for row in self.rows]
        busiest = [i for i, share in enumerate(util) if share >= max(util) - 0.05]
        working = [i for i, share in enumerate(util) if share > _WORKING]
        if len(busiest) < _FEW <= len(working):
            busiest = working

        def state(i: int) -> tuple[float, float, int]:
            numbers = self.rows[i][1]
            clock, power = (numbers.get((name, None), (-1.0, ""))[0] for name in ("gpu.clock.sm", "gpu.power"))
            return clock, power, -i

        return sorted(busiest, key=state)[len(busiest) // 2]


class CsvReader:
    """`--query-gpu` with or without header and units, one or many samples."""

    name = "nvidia_smi_csv"
    needles: tuple[bytes, ...] = (
        b"pcie.link", b"clocks", b"utilization.gpu", b"power.draw", b"memory.used", b"memory.total",
        b"used_gpu_memory", b"temperature.gpu", b"--query-gpu", b"ecc.errors", b"pstate", b"power.limit",
        b"remapped_rows",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.*` of each GPU: of many samples the typical one under load, and the worst of what should stay low."""
        columns: list[str] = []
        per: dict[object, _Samples] = {}
        order: list[object] = []
        loose = 0
        for line, may in told(doc.lines(), also=_HEADER):
            text = line.text
            if not may and not columns:
                continue
            asked = re.search(r"--query-(?:gpu|compute-apps)=([\w.,]+)", text)
            if asked:
                columns = asked.group(1).split(",")
                loose = 0
                continue
            cells = [c.strip() for c in text.split(",")]
            if len(cells) == 1 and "|" in text:
                cells = [c.strip() for c in text.strip(" |").split("|")]
            names = [re.sub(r"\s*\[.*?\]$", "", c).strip().lower() for c in cells]
            known = sum(n in _COLUMNS or n in _TEXT_COLUMNS or bool(_REASON.match(n)) for n in names)
            if known >= 1 and known >= 0.3 * len(names) and not any(n in ("p0", "p8") for n in names):
                columns, loose = names, 0
                continue
            if "used_gpu_memory" in names or "used_memory" in names:
                columns = names
                continue
            if not columns or len(cells) != len(columns) or (len(cells) < 2 and not re.match(r"^[\d.]+\b", text)):
                continue
            row = dict(zip(columns, cells, strict=True))
            if "pid" in row:
                yield from self._app(doc, line, row)
                continue
            key, loose = self._gpu(row, loose)
            if key not in per:
                per[key] = _Samples()
                order.append(key)
            per[key].rows.append(self._row(line, row))
            if "driver_version" in row and len(per[key].rows) == 1:
                yield fact(doc, line, "version", row["driver_version"], label="driver")
        for i, key in enumerate(order):
            yield from per[key].facts(doc, key if isinstance(key, int) else i)

    def _gpu(self, row: dict[str, str], loose: int) -> tuple[object, int]:
        index = row.get("index", row.get("gpu", ""))
        if index.isdecimal():
            return int(index), loose
        for name in ("uuid", "gpu_uuid", "pci.bus_id", "gpu_bus_id"):
            if row.get(name):
                return row[name], loose
        if "timestamp" in row:
            return 0, loose
        return loose, loose + 1

    def _row(self, line: Line, row: dict[str, str]) -> tuple[Line, _Numbers, dict[str, str], set[str]]:
        numbers: _Numbers = {}
        texts: dict[str, str] = {}
        active: set[str] = set()
        for name, cell in row.items():
            if (hit := _REASON.match(name)) is not None:
                if hit.group(1) == "active" and re.match(r"0x[0-9a-f]+$", cell, re.I):
                    active |= {why for bit, why in REASON_BITS.items() if int(cell, 16) & bit}
                elif cell.lower() == "active":
                    active.add(hit.group(1))
            elif name in _COLUMNS:
                signal, unit, factor, label = _COLUMNS[name]
                if (value := number(cell)) is not None:
                    numbers[(signal, label)] = (value * factor, unit)
            elif name in _TEXT_COLUMNS and cell and not cell.startswith("["):
                texts[_TEXT_COLUMNS[name]] = cell
        return line, numbers, texts, active

    def _app(self, doc: Document, line: Line, row: dict[str, str]) -> Iterator[Fact]:
        name = row.get("process_name", row.get("name", ""))
        index = row.get("gpu_index", row.get("index", ""))
        card = "" if index.isdecimal() else row.get("gpu_uuid", row.get("gpu_bus_id", ""))
        who: dict[str, Any] = {
            "gpu": int(index) if index.isdecimal() else None,
            "label": f"{card} {row['pid']} C".strip(),
        }
        if not row["pid"].isdecimal():
            return
        yield fact(doc, line, "gpu.process", name or "unknown", **who)
        held = number(row.get("used_gpu_memory", row.get("used_memory", "")))
        if held is not None:
            yield fact(doc, line, "gpu.process.memory", held / 1024, "GiB", **who)


class MonReader:
    """`nvidia-smi dmon` and `pmon`."""

    name = "nvidia_smi_mon"
    needles: tuple[bytes, ...] = (b"# gpu", b"#gpu", b"# Idx", b"#Time ", b"#Date ", b"# Time ", b"# Date ",
                                  b"gpu   pid", b"gpu  pid", b"gpu\tpid", b"gpu     pid", b"gpu    pid")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.*` of each GPU as in a CSV; processes with their share of the SMs, the highest that was sampled."""
        columns: list[str] = []
        per: dict[int, _Samples] = {}
        procs: dict[tuple[int, str], tuple[float, Line, str]] = {}
        for line in doc.lines():
            words = line.text.lstrip("# ").split()
            typed = [w.lower() for w in words[:2]] == ["gpu", "pid"]  # `pmon` without its hash
            if line.text.lstrip().startswith("#") or typed:
                if words and "gpu" in (words[0].lower(), *(w.lower() for w in words[:3])):
                    columns = [w.lower() for w in words]
                continue
            if not columns or len(words) < len(columns):
                continue
            row = dict(zip(columns, words, strict=False))
            if not row["gpu"].isdecimal():
                continue
            gpu = int(row["gpu"])
            if "pid" in row:
                share = number(row.get("sm", "-"))
                name = " ".join(words[len(columns) - 1 :])
                share = -1.0 if share is None else share  # `-`: listed, no sample of it
                if row["pid"].isdecimal() and share >= procs.get((gpu, row["pid"]), (-1.0, line, ""))[0]:
                    procs[(gpu, row["pid"])] = (share, line, f"{row.get('type', 'C')} {name}")
                continue
            numbers: _Numbers = {}
            for column in columns:
                if column in _DMON and (value := number(row[column])) is not None:
                    signal, unit, factor, label = _DMON[column]
                    numbers[(signal, label)] = (value * factor, unit)
            per.setdefault(gpu, _Samples()).rows.append((line, numbers, {}, set()))
        for gpu, samples in per.items():
            yield from samples.facts(doc, gpu)
        sampled = {gpu for (gpu, _), (share, _, _) in procs.items() if share >= 0}
        for (gpu, pid), (share, line, name) in procs.items():
            kind, _, command = name.partition(" ")
            yield fact(doc, line, "gpu.process", command, gpu=gpu, label=f"{pid} {kind}")
            if (
                gpu in sampled
            ):  # beside a share of another process on that GPU, `-` is a process without samples: no work
                used = max(share, 0.0) / 100
                yield fact(doc, line, "gpu.process.sm", used, "fraction", gpu=gpu, label=f"{pid} {kind}")


READERS: list[Reader] = [CsvReader(), MonReader()]
