"""Byte counters of each path that data can take here: NVLink, PCIe, network interfaces, RDMA ports, TCP.

Read before and after a run of known bytes, they say which path the bytes took, whatever a library's log says.
NVML comes as an argument, so that tests put a simulated one in its place. Everything is read only.

The lines made here, one a device, are read back by `path_bytes`:

    # path run: op=all_reduce size=268435456 times=1300 ranks=4 seconds=1.5120
    # path needs ring: rank=523449139200 all=2093796556800 rank_formula=2*(n-1)/n*size*times
    # path nvlink gpu0: tx=523449139200 rx=523449139200 raw_tx=… raw_rx=…
    # path pcie gpu0: tx=… rx=… sampled_tx=… sampled_rx=… replays=0
    # path nic eth0: tx=… rx=… tx_packets=… rx_packets=…
    # path ib mlx5_0/1: tx=… rx=…
    # path tcp host: segments=… retransmits=…
    # path nvlink gpu1: unknown, Not Supported
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD = "# path run:"
Device = tuple[str, str]  # path and device: ("nvlink", "gpu0")
_ALL_LINKS = 0xFFFFFFFF  # NVML's scope for all NVLinks of a GPU together
_MOST_LINKS = 18
_KIB = 1024
# What a GPU counts, in the order of preference: name here, NVML's constant, bytes a unit.
_NVLINK = (
    (("tx", "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", _KIB), ("rx", "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX", _KIB),
     ("raw_tx", "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX", _KIB),
     ("raw_rx", "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX", _KIB)),
    (("tx", "NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES", 1), ("rx", "NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES", 1)),
)  # fmt: skip
_PCIE = (("tx", "NVML_FI_DEV_PCIE_COUNT_TX_BYTES", 1), ("rx", "NVML_FI_DEV_PCIE_COUNT_RX_BYTES", 1))
_NARROW = 1  # NVML_VALUE_TYPE_UNSIGNED_INT: wraps after 4 GiB, which a GPU moves in a tenth of a second
_UNION = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal"}
_IB_UNIT = 4  # port_xmit_data and port_rcv_data count words of four bytes
QUIET = 1 << 20  # a network device that moved less than this in a run is left out
SETTLE = 0.1  # seconds after a run until its last bytes are counted


@dataclass
class Counters:
    """All counters at one moment; `unknown` says which could not be read, and why."""

    values: dict[Device, dict[str, int]] = field(default_factory=dict)
    unknown: dict[Device, str] = field(default_factory=dict)

    def since(self, earlier: Counters) -> dict[Device, dict[str, int]]:
        """What was counted in between; a counter that went back was reset and says nothing."""
        out: dict[Device, dict[str, int]] = {}
        for device, now in self.values.items():
            before = earlier.values.get(device, {})
            out[device] = {k: v - before[k] for k, v in now.items() if k in before and v >= before[k]}
        return out


def read(nvml: Any = None, root: Path = Path("/")) -> Counters:
    """Everything that can be read now; with `nvml` (initialised) the GPUs too."""
    out = Counters()
    for device, values in (*_interfaces(root), *_rdma(root), *_tcp(root)):
        out.values[device] = values
    if nvml is None:
        out.unknown["nvlink", "gpu"] = out.unknown["pcie", "gpu"] = "no NVIDIA driver"
        return out
    for index in range(int(nvml.nvmlDeviceGetCount())):
        _gpu(out, nvml, nvml.nvmlDeviceGetHandleByIndex(index), f"gpu{index}")
    return out


def start_nvml() -> Any:
    """The NVML module, initialised; None where there is no driver or no binding."""
    from diagnose import nvml

    try:
        return nvml.start()
    except nvml.NvmlGap:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _interfaces(root: Path) -> Iterator[tuple[Device, dict[str, int]]]:
    for place in sorted((root / "sys/class/net").glob("*/statistics")):
        names = {"tx": "tx_bytes", "rx": "rx_bytes", "tx_packets": "tx_packets", "rx_packets": "rx_packets"}
        values = {k: n for k, leaf in names.items() if (n := _number(place / leaf)) is not None}
        yield ("nic", place.parent.name), values


def _rdma(root: Path) -> Iterator[tuple[Device, dict[str, int]]]:
    for place in sorted((root / "sys/class/infiniband").glob("*/ports/*/counters")):
        words = {"tx": "port_xmit_data", "rx": "port_rcv_data"}
        values = {k: n * _IB_UNIT for k, leaf in words.items() if (n := _number(place / leaf)) is not None}
        plain = {"tx_packets": "port_xmit_packets", "rx_packets": "port_rcv_packets"}
        values |= {k: n for k, leaf in plain.items() if (n := _number(place / leaf)) is not None}
        yield ("ib", f"{place.parts[-4]}/{place.parts[-2]}"), values


def _tcp(root: Path) -> Iterator[tuple[Device, dict[str, int]]]:
    """`/proc/net/snmp`: a line of names, then a line of figures."""
    try:
        rows = [x.split() for x in (root / "proc/net/snmp").read_text().splitlines() if x.startswith("Tcp:")]
    except OSError:
        return
    if len(rows) == 2:
        said = dict(zip(rows[0], rows[1], strict=False))
        names = {"segments": "OutSegs", "retransmits": "RetransSegs"}
        yield ("tcp", "host"), {k: int(said[n]) for k, n in names.items() if said.get(n, "").isdecimal()}


def _gpu(out: Counters, nvml: Any, handle: Any, name: str) -> None:
    for fields in _NVLINK:
        got = _fields(nvml, handle, fields, (_ALL_LINKS,)) or _fields(nvml, handle, fields, range(_MOST_LINKS))
        if got:
            out.values["nvlink", name] = got
            break
    else:
        out.unknown["nvlink", name] = "NVML gives no NVLink byte counters for it"
    pcie = _fields(nvml, handle, _PCIE, (0,), wide=True)
    try:
        pcie["replays"] = int(nvml.nvmlDeviceGetPcieReplayCounter(handle))
    except nvml.NVMLError as err:
        out.unknown["pcie", name] = str(err)
    out.values["pcie", name] = pcie


def _fields(
    nvml: Any, handle: Any, fields: Sequence[tuple[str, str, int]], scopes: Sequence[int], wide: bool = False
) -> dict[str, int]:
    """Fields of one GPU summed over `scopes`; those that NVML does not have are left out."""
    known = [(name, getattr(nvml, symbol), unit) for name, symbol, unit in fields if hasattr(nvml, symbol)]
    asked = [(ident, scope) for _, ident, _ in known for scope in scopes]
    if not asked:
        return {}
    try:
        answers = list(nvml.nvmlDeviceGetFieldValues(handle, asked))
    except nvml.NVMLError:
        return {}
    out: dict[str, int] = {}
    for at, (name, _, unit) in enumerate(known):
        mine = answers[at * len(scopes) : (at + 1) * len(scopes)]
        good = [a for a in mine if a.nvmlReturn == 0 and not (wide and a.valueType == _NARROW)]
        if good:
            out[name] = sum(int(getattr(a.value, _UNION.get(a.valueType, "ullVal"))) for a in good) * unit
    return out


class Watch:
    """Counters around a run, and PCIe throughput sampled beside it (NVML gives a rate over 20 ms, no count)."""

    def __init__(self, nvml: Any = None, root: Path = Path("/")) -> None:
        self.nvml, self.root = nvml, root
        self.samples: dict[Device, dict[str, list[float]]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.before = read(nvml, root)
        self._thread.start()

    def _sample(self) -> None:
        if self.nvml is None:
            return
        ways = {"tx": self.nvml.NVML_PCIE_UTIL_TX_BYTES, "rx": self.nvml.NVML_PCIE_UTIL_RX_BYTES}
        handles = [self.nvml.nvmlDeviceGetHandleByIndex(i) for i in range(int(self.nvml.nvmlDeviceGetCount()))]
        while not self._end.is_set():
            for index, handle in enumerate(handles):
                for way, ident in ways.items():
                    try:
                        rate = float(self.nvml.nvmlDeviceGetPcieThroughput(handle, ident)) * 1e3  # KB/s
                    except self.nvml.NVMLError:
                        return
                    self.samples.setdefault(("pcie", f"gpu{index}"), {}).setdefault(way, []).append(rate)

    def stop(self, seconds: float) -> tuple[dict[Device, dict[str, int]], dict[Device, str]]:
        """What moved, and what is not known; `seconds` is how long the run itself took."""
        self._end.set()
        self._thread.join(5)
        time.sleep(SETTLE)
        after = read(self.nvml, self.root)
        moved = after.since(self.before)
        for device, ways in self.samples.items():
            for way, rates in ways.items():
                moved.setdefault(device, {})[f"sampled_{way}"] = round(sum(rates) / len(rates) * seconds)
        return moved, after.unknown


@dataclass(frozen=True)
class Work:
    """A run of known bytes: an operation of `size` bytes, so many times, on so many ranks."""

    op: str
    size: int
    times: int
    ranks: int

    @property
    def formula(self) -> str:
        """Bytes that a rank sends by a ring."""
        if self.op == "all_reduce":
            return "2*(n-1)/n*size*times"
        return "size*times" if self.op in ("sendrecv", "broadcast") else "(n-1)/n*size*times"

    @property
    def by_rank(self) -> int:
        """Bytes that a rank sends by a ring: what the algorithm needs, without protocol overhead."""
        whole, n = self.size * self.times, self.ranks
        if self.op == "all_reduce":
            return 2 * (n - 1) * whole // n
        return whole if self.op in ("sendrecv", "broadcast") else (n - 1) * whole // n

    @property
    def by_all(self) -> int:
        """Bytes that all send together, over a path that they share; a broadcast ends at its last rank."""
        return self.by_rank * (self.ranks - 1 if self.op == "broadcast" else self.ranks)


def lines(work: Work, seconds: float, moved: dict[Device, dict[str, int]], unknown: dict[Device, str]) -> Iterator[str]:
    """The account of a run, as `path_bytes` reads it."""
    run = f"op={work.op} size={work.size} times={work.times} ranks={work.ranks} seconds={seconds:.4f}"
    yield f"{HEAD} {run}"
    yield f"# path needs ring: rank={work.by_rank} all={work.by_all} rank_formula={work.formula}"
    for (path, name), values in sorted(moved.items()):
        if values and (path not in ("nic", "ib") or max(values.get("tx", 0), values.get("rx", 0)) >= QUIET):
            yield f"# path {path} {name}: " + " ".join(f"{k}={v}" for k, v in values.items())
    for (path, name), why in sorted(unknown.items()):
        yield f"# path {path} {name}: unknown, {' '.join(why.split())}"
