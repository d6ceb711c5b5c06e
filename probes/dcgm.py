"""DCGM: exporter metrics, `dcgmi dmon`, `dcgmi nvlink -s|-e`, `dcgmi health -c`, `dcgmi diag`.

Source: NVIDIA DCGM 3 and 4 (`dcgm_fields.h`, `dcgmi`), dcgm-exporter. Fields are mapped to the signals that the readers
of nvidia-smi use, so that the same causes read both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact


@dataclass(frozen=True)
class _Field:
    """Where a field goes: signal, unit, factor; `only_above` leaves out counters that say nothing at zero."""

    signal: str
    unit: str
    factor: float = 1.0
    label: str | None = None
    only_above: float | None = None


_PERCENT, _MIB, _NS = 0.01, 1 / 1024, 1e-3
_FIELDS: dict[str, _Field] = {
    "GPU_TEMP": _Field("gpu.temperature", "C"),
    "MEMORY_TEMP": _Field("gpu.temperature", "C", label="memory"),
    "POWER_USAGE": _Field("gpu.power", "W"),
    "POWER_MGMT_LIMIT": _Field("gpu.power.limit", "W"),
    "POWER_MGMT_LIMIT_DEF": _Field("gpu.power.default", "W"),
    "ENFORCED_POWER_LIMIT": _Field("gpu.power.limit", "W"),
    "SM_CLOCK": _Field("gpu.clock.sm", "MHz"),
    "MEM_CLOCK": _Field("gpu.clock.mem", "MHz"),
    "GPU_UTIL": _Field("gpu.util", "fraction", _PERCENT),
    "MEM_COPY_UTIL": _Field("gpu.util.mem", "fraction", _PERCENT),
    "FB_USED": _Field("gpu.memory.used", "GiB", _MIB),
    "FB_FREE": _Field("gpu.memory.free", "GiB", _MIB),
    "PCIE_REPLAY_COUNTER": _Field("gpu.pcie.replays", "count", only_above=0),
    "CLOCKS_EVENT_REASON_SW_POWER_CAP_NS": _Field("gpu.throttle.time", "us", _NS, "sw_power_cap", only_above=0),
    "CLOCKS_EVENT_REASON_SYNC_BOOST_NS": _Field("gpu.throttle.time", "us", _NS, "sync_boost", only_above=0),
    "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS": _Field(
        "gpu.throttle.time", "us", _NS, "sw_thermal_slowdown", only_above=0
    ),
    "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS": _Field(
        "gpu.throttle.time", "us", _NS, "hw_thermal_slowdown", only_above=0
    ),
    "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": _Field(
        "gpu.throttle.time", "us", _NS, "hw_power_brake_slowdown", only_above=0
    ),
    "PCIE_LINK_GEN": _Field("gpu.pcie.gen", "count"),
    "PCIE_MAX_LINK_GEN": _Field("gpu.pcie.gen.max", "count"),
    "PCIE_LINK_WIDTH": _Field("gpu.pcie.width", "count"),
    "PCIE_MAX_LINK_WIDTH": _Field("gpu.pcie.width.max", "count"),
    "ECC_DBE_VOL_TOTAL": _Field("gpu.ecc.uncorrected", "count", label="volatile"),
    "ECC_DBE_AGG_TOTAL": _Field("gpu.ecc.uncorrected", "count", label="aggregate", only_above=0),
    "ECC_SBE_VOL_TOTAL": _Field("gpu.ecc.corrected", "count", label="volatile", only_above=0),
    "ECC_SBE_AGG_TOTAL": _Field("gpu.ecc.corrected", "count", label="aggregate", only_above=0),
    "UNCORRECTABLE_REMAPPED_ROWS": _Field("gpu.remap.rows", "count", label="uncorrectable", only_above=0),
    "CORRECTABLE_REMAPPED_ROWS": _Field("gpu.remap.rows", "count", label="correctable", only_above=0),
    # the driver counts nanoseconds since DCGM 3; older notes say microseconds, so only long times are told apart
    "THERMAL_VIOLATION": _Field("dcgm.violation", "count", label="thermal", only_above=0),
    "POWER_VIOLATION": _Field("dcgm.violation", "count", label="power", only_above=0),
    "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": _Field("nvlink.errors", "count", label="CRC FLIT", only_above=0),
    "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": _Field("nvlink.errors", "count", label="CRC data", only_above=0),
    "NVLINK_REPLAY_ERROR_COUNT_TOTAL": _Field("nvlink.errors", "count", label="replay", only_above=0),
    "NVLINK_RECOVERY_ERROR_COUNT_TOTAL": _Field("nvlink.errors", "count", label="recovery", only_above=0),
    "PROF_GR_ENGINE_ACTIVE": _Field("dcgm.active", "fraction", label="graphics engine"),
    "PROF_SM_ACTIVE": _Field("dcgm.active", "fraction", label="SM"),
    "PROF_SM_OCCUPANCY": _Field("dcgm.active", "fraction", label="SM occupancy"),
    "PROF_PIPE_TENSOR_ACTIVE": _Field("dcgm.active", "fraction", label="tensor"),
    "PROF_DRAM_ACTIVE": _Field("dcgm.active", "fraction", label="DRAM"),
}
_SHORT = {
    "SMACT": "PROF_SM_ACTIVE",
    "SMOCC": "PROF_SM_OCCUPANCY",
    "TENSO": "PROF_PIPE_TENSOR_ACTIVE",
    "GRACT": "PROF_GR_ENGINE_ACTIVE",
    "DRAMA": "PROF_DRAM_ACTIVE",
    "GPUTL": "GPU_UTIL",
    "MCUTL": "MEM_COPY_UTIL",
    "TMPTR": "GPU_TEMP",
    "MMTMP": "MEMORY_TEMP",
    "POWER": "POWER_USAGE",
    "SMCLK": "SM_CLOCK",
    "MMCLK": "MEM_CLOCK",
    "FBUSD": "FB_USED",
    "FBFRE": "FB_FREE",
    "PCIRC": "PCIE_REPLAY_COUNTER",
    "PVIOL": "POWER_VIOLATION",
    "TVIOL": "THERMAL_VIOLATION",
    "DBEVL": "ECC_DBE_VOL_TOTAL",
    "SBEVL": "ECC_SBE_VOL_TOTAL",
}
# bits of the clock event reasons, as in nvml.h
_REASONS = {
    0x1: "idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
_METRIC = regex(
    r"^(?:[\d:TZ.+-]{5,}\s+)?DCGM_FI_(?:DEV_)?([A-Z_0-9]+)(?:\{([^}]*)\})?\s+(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
)
_GPU_LABEL = regex(r'\bgpu="?(\d+)')
_HOST_LABEL = regex(r'\bHostname="([^"]+)"')
_NONE = 9e17  # DCGM's blank values lie above


class DcgmMetrics:
    """dcgm-exporter text."""

    name = "dcgm_exporter"
    needles: tuple[bytes, ...] = (b"DCGM_FI_",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the fields we know; the mask of clock reasons is taken apart."""
        for line in doc.lines():
            hit = _METRIC.match(line.text)
            if hit is None:
                continue
            labels = hit[2] or ""
            gpu, host = _GPU_LABEL.search(labels), _HOST_LABEL.search(labels)
            who: dict[str, Any] = {"gpu": int(gpu[1]) if gpu else None, "host": host[1] if host else None}
            if hit[1] in ("CLOCK_THROTTLE_REASONS", "CLOCKS_EVENT_REASONS"):
                mask = float(hit[3])
                for bit, reason in _REASONS.items():
                    if mask < 1 << 32 and int(mask) & bit:
                        yield fact(doc, line, "gpu.throttle", "active", around=hit[3], label=reason, **who)
            elif hit[1] in ("ROW_REMAP_FAILURE", "ROW_REMAP_PENDING") and float(hit[3]) > 0:
                signal = "gpu.remap.failure" if hit[1].endswith("FAILURE") else "gpu.remap.pending"
                yield fact(doc, line, signal, "Yes", around=hit[3], label="row remap", **who)
            else:
                yield from _put(doc, line, hit[1], float(hit[3]), who)


def _put(doc: Document, line: Line, name: str, value: float, who: dict[str, Any]) -> Iterator[Fact]:
    known = _FIELDS.get(name)
    if known is None or abs(value) >= _NONE or (known.only_above is not None and value <= known.only_above):
        return
    yield fact(doc, line, known.signal, value * known.factor, known.unit, label=known.label, **who)


class DcgmDmon:
    """`dcgmi dmon -e …`: field names in the head, a GPU a row."""

    name = "dcgmi_dmon"
    needles: tuple[bytes, ...] = (b"#Entity", b"# Entity")
    _row = regex(r"^\s*GPU\s+(\d+)\s+(\S.*)$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The last row of a GPU counts: dmon repeats."""
        names: list[str] = []
        last: dict[int, tuple[Line, list[str]]] = {}
        for line in doc.lines():
            if re.match(r"^\s*#\s?Entity", line.text):
                names = line.text.replace("#", " ").split()[1:]
            elif names and (hit := self._row.match(line.text)) is not None:
                last[int(hit[1])] = (line, hit[2].split())
        for gpu, (line, cells) in last.items():
            for name, cell in zip(names, cells, strict=False):
                field = _SHORT.get(name, name)
                if field in _FIELDS and re.fullmatch(r"-?\d+(?:\.\d+)?", cell):
                    yield from _put(doc, line, field, float(cell), {"gpu": gpu})


class DcgmReports:
    """`dcgmi nvlink -s|-e`, `dcgmi health -c` and `dcgmi diag`: what is down, what failed, and why."""

    name = "dcgmi_report"
    needles: tuple[bytes, ...] = (
        b"NvLink Link Status",
        b"NVLINK Error Counts",
        b"Health Monitor Report",
        b"| Diagnostic ",
        b"gpuId ",
    )
    _gpu = regex(r"^\s*gpuId\s+(\d+)\s*:\s*(.*)$")
    _switch = regex(r"^\s*(?:physicalId|NvSwitches)\b")
    _links = regex(r"^\s*(?:[UDX_]\s+){1,}[UDX_]\s*$")
    _cells = regex(r"^\s*\|(.*)\|([^|]*)\|\s*$")
    _link_down = regex(r"\bGPU (\d+)'s NvLink link (\d+) is currently down")
    _which = regex(r"\bGPUs?[: ]+(\d+)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Link letters under a GPU; rows of a report; a cell that continues on the next line is one text."""
        gpu: int | None = None
        rows: list[tuple[Line, str, str]] = []
        for line in doc.lines():
            text = line.text
            if (hit := self._gpu.match(text)) is not None:
                gpu = int(hit[1])
                yield from self._down(doc, line, gpu, hit[2])
            elif self._switch.match(text):
                gpu = None
            elif gpu is not None and self._links.match(text):
                yield from self._down(doc, line, gpu, text)
            elif (cells := self._cells.match(text)) is not None:
                left, right = cells[1].strip(), cells[2]
                if not left.strip("| ") and rows:
                    last = rows[-1]
                    rows[-1] = (last[0], last[1], last[2] + right.rstrip())
                else:
                    rows.append((line, left, right.rstrip()))
        for line, left, right in rows:
            yield from self._report(doc, line, left, re.sub(r"\s+", " ", right).strip(" |"))

    def _down(self, doc: Document, line: Line, gpu: int, letters: str) -> Iterator[Fact]:
        states = letters.split()
        if not states or not set(states) <= set("UDX_"):
            return
        for link, state in enumerate(states):
            if state == "D":
                yield fact(doc, line, "nvlink.inactive", "down", gpu=gpu, label=str(link))
        if up := states.count("U"):
            yield computed(doc, line, "nvlink.up", float(up), "count", "dcgmi_report", gpu=gpu)

    def _report(self, doc: Document, line: Line, left: str, right: str) -> Iterator[Fact]:
        test = left.strip("+-> |")
        for down in self._link_down.finditer(right):
            yield fact(doc, line, "nvlink.inactive", "down", gpu=int(down[1]), label=down[2])
        which = self._which.search(right)
        gpu = int(which[1]) if which else None
        if re.match(r"Fail\b", right) and test:
            yield fact(doc, line, "dcgm.test_failed", right[:200], gpu=gpu, label=test)
        elif (re.match(r"Pass\b", right) or (test == "Overall Health" and right == "Healthy")) and test:
            yield fact(doc, line, "dcgm.test_passed", right[:60], gpu=gpu, label=test)
        elif test in ("Error", "Errors", "Warning") and right and right not in ("Failure", "Warning"):
            yield fact(doc, line, "dcgm.said", right[:300], gpu=gpu, label=test)
        elif (hit := re.match(r"(Failure|Warning)\b\s*(.*)", right)) is not None and test:
            yield fact(doc, line, "dcgm.health", hit[1], gpu=gpu, label=test)
            if hit[2]:
                yield fact(doc, line, "dcgm.said", hit[2][:300], gpu=gpu, label=test)


class DcgmLinkErrors:
    """`dcgmi nvlink -e`: error counters of a GPU's links; at zero they say nothing."""

    name = "dcgmi_link_errors"
    needles: tuple[bytes, ...] = (b"NVLINK Error Counts",)
    _gpu = regex(r"^\s*\|\s*GPU (\d+)\s*\|")
    _count = regex(r"\|\s*(CRC FLIT|CRC Data|Replay|Recovery) Error\s*\|\s*([1-9]\d*)\s*\|")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A row a counter, below the row that names the GPU."""
        gpu: int | None = None
        for line in doc.lines():
            if (hit := self._gpu.match(line.text)) is not None:
                gpu = int(hit[1])
            elif (hit := self._count.search(line.text)) is not None:
                yield fact(doc, line, "nvlink.errors", float(hit[2]), "count", gpu=gpu, label=hit[1])


READERS: list[Reader] = [DcgmMetrics(), DcgmDmon(), DcgmReports(), DcgmLinkErrors()]
