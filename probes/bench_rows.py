"""What a microbenchmark reports, and the limits of the GPU it ran on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from diagnose import hardware, nvml

from .cuda_device import Device, Sample

# FP32 lanes and dense BF16 operations a clock of one multiprocessor, by compute capability.
# Source: CUDA C++ Programming Guide, arithmetic throughput; architecture whitepapers.
FP32_LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128,
              (10, 0): 128, (10, 3): 128, (12, 0): 128, (12, 1): 128}  # fmt: skip
TENSOR_OPS = {(8, 0): 2048, (9, 0): 4096, (10, 0): 8192}
BANK_BYTES = 128  # bytes a clock of one multiprocessor's shared memory: 32 banks of 4


@dataclass
class Row:
    """One measured figure.

    Attributes:
        name: unique. group: `memory`, `compute`, `launch`, `transfer`.
        value, unit: median; p10 and p90 in the same unit (p10 <= p90). reps: runs behind it.
        lower_is_better: for times.
        limit: of this GPU by its data sheet or geometry, same unit; `reason` where there is none.
        limit_now: the same at the clock read while it ran (`clock`, MHz).
        twin: name of the healthy row that this pathological one belongs to.
        checked: how the result was verified. params: sizes, bytes, registers.
    """

    name: str
    group: str
    what: str
    value: float
    unit: str
    p10: float
    p90: float
    reps: int
    checked: str
    lower_is_better: bool = False
    limit: float | None = None
    limit_source: str = ""
    reason: str | None = None
    limit_now: float | None = None
    clock: float | None = None
    twin: str | None = None
    params: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON object with ratios; figures rounded to what timing supports."""
        out = asdict(self)
        for key in ("value", "p10", "p90", "limit", "limit_now"):
            out[key] = None if out[key] is None else float(f"{out[key]:.5g}")
        for key, limit in (("ratio", self.limit), ("ratio_now", self.limit_now)):
            out[key] = round(self.value / limit, 4) if limit else None
        return out


def rate(sample: Sample, amount: float, **rest: Any) -> Row:
    """A row that is an amount (bytes, operations) over time: GB/s from bytes, TFLOP/s from operations."""
    scale = {"GB/s": 1e3, "TFLOP/s": 1e6, "Gop/s": 1e3}[rest["unit"]]
    values = [amount / (t * scale) for t in (sample.median, sample.quantile(0.9), sample.quantile(0.1))]
    return Row(value=values[0], p10=values[1], p90=values[2], reps=len(sample.times), **rest)


def duration(sample: Sample, per: float = 1.0, **rest: Any) -> Row:
    """A row that is a time, microseconds."""
    values = [t / per for t in (sample.median, sample.quantile(0.1), sample.quantile(0.9))]
    return Row(
        value=values[0], p10=values[1], p90=values[2], reps=len(sample.times), unit="us", lower_is_better=True, **rest
    )


@dataclass(frozen=True)
class Limit:
    """A ceiling and where it comes from."""

    value: float | None
    source: str
    now: float | None = None
    clock: float | None = None
    reason: str | None = None

    def on(self, row: Row) -> Row:
        """The row with this limit beside it."""
        row.limit, row.limit_source, row.reason = self.value, self.source, self.reason
        row.limit_now, row.clock = self.now, self.clock
        return row


class Nvml:
    """Clocks, link and neighbours of one GPU; what the driver does not tell is None."""

    def __init__(self, bus_id: str) -> None:
        self.api: Any = import_module("pynvml")
        self.handle: Any = None
        try:
            self.handle = nvml.start().nvmlDeviceGetHandleByPciBusId(bus_id)
        except (nvml.NvmlGap, self.api.NVMLError):
            self.handle = None

    def get(self, name: str, *args: Any) -> Any:
        """One reading, or None."""
        if self.handle is None:
            return None
        try:
            return getattr(self.api, f"nvmlDeviceGet{name}")(self.handle, *args)
        except (self.api.NVMLError, AttributeError):
            return None

    def clock(self, kind: str, most: bool = False) -> float | None:
        """``SM`` or ``MEM`` clock in MHz: now, or the highest."""
        got = self.get("MaxClockInfo" if most else "ClockInfo", getattr(self.api, f"NVML_CLOCK_{kind}"))
        return None if got is None else float(got)

    def pcie(self) -> tuple[int, int] | None:
        """Generation and width that the link can reach in this slot."""
        generation, width = self.get("MaxPcieLinkGeneration"), self.get("MaxPcieLinkWidth")
        return (int(generation), int(width)) if generation and width else None

    def processes(self) -> list[int]:
        """Ids of the compute processes on this GPU."""
        return [int(p.pid) for p in self.get("ComputeRunningProcesses") or []]

    def facts(self) -> dict[str, Any]:
        """What belongs beside every figure: driver, power limit, throttle reasons, temperature."""
        milliwatts = self.get("EnforcedPowerLimit")
        driver: Any = None
        if self.handle is not None:
            driver = self.api.nvmlSystemGetDriverVersion()
            driver = driver.decode() if isinstance(driver, bytes) else driver
        return {
            "driver": driver,
            "power_limit_w": None if milliwatts is None else milliwatts / 1e3,
            "temperature_c": self.get("Temperature", 0),
            "throttle_reasons": self.get("CurrentClocksThrottleReasons"),
            "max_sm_mhz": self.clock("SM", most=True),
            "max_memory_mhz": self.clock("MEM", most=True),
            "pcie": self.pcie(),
        }


class Ceilings:
    """Limits of this very GPU: its product by exact name, its geometry, its clocks."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.nvml = Nvml(device.bus_id)
        name = self.nvml.get("Name")
        self.name = (name.decode() if isinstance(name, bytes) else name) or device.name
        self.product = hardware.gpu(self.name)
        self.unknown = None if self.product else hardware.unknown(self.name)

    def under_load(self, work: Callable[[], None], kind: str = "SM", microseconds: float = 1000.0) -> float | None:
        """Clock in MHz while `work`, which takes `microseconds`, runs for a tenth of a second."""
        for _ in range(max(2, min(400, int(100_000 / max(microseconds, 1.0))))):
            work()
        time.sleep(0.05)  # clocks follow the load after some milliseconds
        got = self.nvml.clock(kind)
        self.device.sync()
        return got

    def memory(self, clock: float | None = None) -> Limit:
        """Device memory, read plus written bytes."""
        if self.product is None:
            return Limit(None, "", reason=self.unknown)
        most = self.nvml.clock("MEM", most=True)
        now = self.product.memory * clock / most if clock and most else None
        return Limit(self.product.memory, self.product.source, now, clock)

    def _per_clock(self, operations: float, source: str, clock: float | None) -> Limit:
        most = self.nvml.clock("SM", most=True)
        scale = self.device.sms * operations / 1e6  # operations a clock and SM x MHz -> 1e12/s
        if most is None:
            return Limit(None, "", scale * clock if clock else None, clock, "NVML gives no highest clock")
        text = f"{self.device.sms} SM x {operations:g} a clock x {most:g} MHz ({source})"
        return Limit(scale * most, text, scale * clock if clock else None, clock)

    def fp32(self, clock: float | None = None) -> Limit:
        """FP32 multiply-adds, TFLOP/s."""
        lanes = FP32_LANES.get(self.device.cc)
        if lanes is None:
            return Limit(None, "", reason=f"FP32 lanes of compute capability {self.device.cc} are not in the table")
        return self._per_clock(2 * lanes, "CUDA C++ Programming Guide", clock)

    def tensor(self, clock: float | None = None) -> Limit:
        """Dense BF16 with FP32 sums, TFLOP/s; the data sheet's figure is at its own boost clock."""
        ops = TENSOR_OPS.get(self.device.cc)
        now = self.device.sms * ops * clock / 1e6 if ops and clock else None
        if self.product is None or self.product.bf16 is None:
            return Limit(None, "", now, clock, self.unknown or f"no dense BF16 figure for {self.name}")
        return Limit(self.product.bf16, self.product.source, now, clock)

    def shared(self, clock: float | None = None) -> Limit:
        """Shared memory of all multiprocessors, GB/s."""
        got = self._per_clock(BANK_BYTES, "32 banks of 4 bytes", clock)
        up = 1e3  # TB/s -> GB/s
        return Limit(
            got.value * up if got.value else None, got.source, got.now * up if got.now else None, clock, got.reason
        )

    def pcie(self) -> Limit:
        """One direction of this GPU's link."""
        link = self.nvml.pcie()
        found = hardware.pcie_rate(*link) if link else None
        if found is None:
            return Limit(None, "", reason="NVML does not name the PCIe link")
        return Limit(found.value, f"{found.what} ({found.source})")

    def nvlink(self) -> Limit:
        """One direction of all NVLinks of this GPU together."""
        if self.product is None or not self.product.links:
            return Limit(None, "", reason=self.unknown or f"{self.name} has no NVLink")
        per = hardware.NVLINK_RAW[self.product.nvlink]
        return Limit(
            per * self.product.links, f"{self.product.links} NVLink {self.product.nvlink} x {per:g} GB/s, one direction"
        )


Bench = Callable[[Device, Ceilings], Iterator[Row]]


@dataclass(frozen=True)
class Entry:
    """A microbenchmark as listed: what it needs, so that consent can say what it costs."""

    name: str
    what: str
    run: Bench
    seconds: float = 2.0
    memory: int = 0  # bytes of device memory at most
    disturbs: str = ""
