"""Samples of this machine on one clock: GPUs, PCIe, network, RDMA, TCP and cores, a row every quarter of a second.

Everything is read from NVML and from files; nothing is started. The table is described in `clock`. What a program
says of itself (waits in collectives, sizes of transfers) is not to be seen from here: its trace or its log says that.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.host import GPU_NODES, Host

from .clock import HEAD, LEAST
from .path_counters import Counters, read, start_nvml

STEP = 0.25
WINDOW = 2.0
_MOST_WINDOW = 60.0
_MOST_GPUS = 16
_TICK = 100.0  # of /proc/stat, by convention of the kernel's interface
_VIRTUAL = re.compile(r"^(?:lo|docker|br-|veth|virbr|ifb|cni|flannel|cali|tun|tap|dummy|sit|ip6)")


def _window(host: Host) -> float:
    said = re.fullmatch(r"(\d+(?:\.\d+)?)s?", host.params.get("window", ""))
    return max(LEAST * STEP, min(float(said[1]), _MOST_WINDOW)) if said else WINDOW


def _cores(root: Path) -> dict[str, tuple[float, float]]:
    """Of each core the time it worked, and that in soft interrupts, in seconds since boot."""
    out: dict[str, tuple[float, float]] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/stat").read_text().splitlines():
            words = line.split()
            if line.startswith("cpu") and words[0] != "cpu" and len(words) > 7:
                user, nice, system, _, _, irq, soft = (float(w) / _TICK for w in words[1:8])
                out[words[0]] = (user + nice + system + irq + soft, soft)
    return out


def _delays(pids: list[int]) -> float:
    """Seconds that threads of these processes were ready and had no CPU: the thread that waited most counts."""
    worst = 0.0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                worst = max(worst, int(path.read_text().split()[1]) / 1e9)
    return worst


class _Gpus:
    """GPUs by NVML, each asked in a thread of its own: PCIe throughput takes 20 ms a direction."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        count = min(_MOST_GPUS, int(nvml.nvmlDeviceGetCount())) if nvml else 0
        self.handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        self.pool = ThreadPoolExecutor(max(1, count))

    def pids(self) -> list[int]:
        """Processes that compute on a GPU now."""
        out: set[int] = set()
        for handle in self.handles:
            with contextlib.suppress(self.nvml.NVMLError):
                out |= {int(p.pid) for p in self.nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        return sorted(out)

    def row(self) -> dict[str, float]:
        """What each GPU does now."""
        out: dict[str, float] = {}
        for made in self.pool.map(self._one, range(len(self.handles))):
            out |= made
        return out

    def _one(self, index: int) -> dict[str, float]:
        handle, nvml, out = self.handles[index], self.nvml, {}
        with contextlib.suppress(nvml.NVMLError):
            out[f"gpu{index} busy [%]"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        with contextlib.suppress(nvml.NVMLError):
            out[f"gpu{index} power [W]"] = float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
        for way, name in ((nvml.NVML_PCIE_UTIL_TX_BYTES, "tx"), (nvml.NVML_PCIE_UTIL_RX_BYTES, "rx")):
            with contextlib.suppress(nvml.NVMLError):
                out[f"pcie{index} {name} [GB/s]"] = float(nvml.nvmlDeviceGetPcieThroughput(handle, way)) * 1e3 / 1e9
        return out

    def places(self, root: Path) -> Iterator[str]:
        """NUMA node of each GPU."""
        for index, handle in enumerate(self.handles):
            with contextlib.suppress(self.nvml.NVMLError, OSError, ValueError):
                bus = self.nvml.nvmlDeviceGetPciInfo(handle).busId
                text = (bus.decode() if isinstance(bus, bytes) else str(bus)).lower()[-12:]
                yield f"# place gpu gpu{index} node={int((root / f'sys/bus/pci/devices/{text}/numa_node').read_text())}"


def rates(before: Counters, now: Counters, seconds: float) -> dict[str, float]:
    """Cells of a row from two readings of the counters."""
    out: dict[str, float] = {}
    for (path, name), moved in now.since(before).items():
        shown = f"{path}{name.removeprefix('gpu')}" if path in ("nvlink", "pcie") else f"{path} {name}"
        if path == "tcp":
            out |= {f"tcp {key} [1/s]": value / seconds for key, value in moved.items()}
        elif path != "nic" or not _VIRTUAL.match(name):
            for key, value in moved.items():
                if key in ("tx", "rx") and path != "pcie":
                    out[f"{shown} {key} [GB/s]"] = value / seconds / 1e9
                elif key.endswith("packets"):
                    out[f"{shown} {key[:2]} [packets/s]"] = value / seconds
    return out


def _core_cells(
    before: dict[str, tuple[float, float]], now: dict[str, tuple[float, float]], dt: float
) -> dict[str, float]:
    work = [now[c][0] - before[c][0] for c in now if c in before]
    soft = [now[c][1] - before[c][1] for c in now if c in before]
    if not work:
        return {}
    return {"core max [%]": min(100.0, 100 * max(work) / dt), "softirq max [%]": min(100.0, 100 * max(soft) / dt)}


def _nic_places(root: Path) -> Iterator[str]:
    for kind in ("net", "infiniband"):
        for path in sorted((root / "sys/class" / kind).glob("*/device/numa_node")):
            name = path.parts[-3]
            with contextlib.suppress(OSError, ValueError):
                # a port of an RDMA device is named with its number in the table
                ports = sorted(p.name for p in (root / "sys/class/infiniband" / name / "ports").glob("*"))
                for shown in [f"{name}/{p}" for p in ports] if kind == "infiniband" else [name]:
                    yield f"# place nic {shown} node={int(path.read_text())}"


def _process_places(pids: list[int], root: Path) -> Iterator[str]:
    """NUMA nodes of the CPUs that the processes may run on, where those are of one node."""
    nodes: dict[int, int] = {}
    for path in (root / "sys/devices/system/node").glob("node*/cpulist"):
        with contextlib.suppress(OSError, ValueError):
            for part in path.read_text().strip().split(","):
                low, _, high = part.partition("-")
                nodes |= dict.fromkeys(range(int(low), int(high or low) + 1), int(path.parent.name[4:]))
    for pid in pids:
        with contextlib.suppress(OSError):
            mine = {nodes.get(cpu) for cpu in os.sched_getaffinity(pid)}
            if len(mine) == 1 and None not in mine:
                yield f"# place process {pid} node={mine.pop()}"


def samples(nvml: Any, window: float, root: Path = Path("/")) -> Iterator[str]:
    """Lines of the table: a row every quarter of a second, all columns read within it."""
    gpus = _Gpus(nvml)
    pids = gpus.pids()
    begin = time.monotonic()
    when = begin
    before, cores, delay = read(nvml, root), _cores(root), _delays(pids)
    rows: list[tuple[float, dict[str, float]]] = []
    while when - begin < window:
        time.sleep(max(0.0, STEP - (time.monotonic() - when)))
        cells = gpus.row()
        now_counters, now_cores, now_delay, now = read(nvml, root), _cores(root), _delays(pids), time.monotonic()
        dt = now - when
        cells |= rates(before, now_counters, dt) | _core_cells(cores, now_cores, dt)
        if pids:
            cells["run delay [%]"] = min(100.0, 100 * max(0.0, now_delay - delay) / dt)
        rows.append((now - begin, cells))
        before, cores, delay, when = now_counters, now_cores, now_delay, now
    gpus.pool.shutdown(wait=False)
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    zero = time.time() - (time.monotonic() - begin)
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(zero))}.{int(zero % 1 * 1e3):03d}"
    yield f"{HEAD} {len(rows)} samples, {STEP} s apart, monotonic, from {stamp} epoch={zero:.3f}"
    yield from (*_nic_places(root), *gpus.places(root), *_process_places(pids, root))
    yield ",".join(["t [s]", *names])
    for when, cells in rows:
        yield ",".join([f"{when:.2f}", *(f"{cells[n]:.5g}" if n in cells else "-" for n in names)])


def _ready(host: Host) -> str | None:
    if not host.glob("/sys/class/net/*"):
        return "no network interface is to be seen"
    if "window" not in host.params and not any(host.glob(pattern) for pattern in GPU_NODES):
        return "no GPU is to be seen here: name a window to sample network and cores alone"
    return None


def _collect(host: Host) -> Iterator[Collected]:
    begin = time.time()
    nvml = start_nvml()
    if nvml is None:
        yield NotCaptured("host.clock", "no NVIDIA driver: the table has no GPU columns", "gpu")
    text = "\n".join(samples(nvml, _window(host))) + "\n"
    yield Capture("host.clock", text.encode(), started=begin, seconds=round(time.time() - begin, 3))


COLLECTORS = (
    Collector("host.clock", _ready, _collect, seconds=lambda host: _window(host) + 0.5,
              commands=lambda host: [f"read NVML, /proc and /sys every {STEP} s for {_window(host):g} s"]),
)  # fmt: skip
