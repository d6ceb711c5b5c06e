"""What a GPU did and why it waited, from intervals alone: shared by the Kineto and the Nsight Systems reader.

Definitions, all over one window of one GPU (times in us):

- busy: union of kernel, copy and memset intervals over all streams; idle: the rest.
- exposed communication: time in which communication kernels run and nothing else does.
- An idle gap ends with an event. If that event was launched before the gap began, the device made the gap. Otherwise
  the host was late: it waited for input (a data-loader range covers the gap, or the gap is long and ends with a copy
  to the device), or it did something that launches nothing (`host`), or it was launching or waiting for the GPU.
- Of the last kind, what synchronisation costs is min(time blocked in it, idle time): without it a step takes the
  longer of the host's own work and the GPU's. What remains is the launch rate.
- Without marked steps, gaps that come once (start-up, the profiler itself) and fill a good part of the trace say
  nothing about a step: the window is what they leave, and `unsteady` is the share that they took.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from statistics import median

from diagnose.lazy import regex

COMPUTE, COMM, HOST_COPY, DEVICE_COPY = range(4)
_COMM = regex(
    r"nccl|rccl|all_?reduce|cross_device_reduce|multimem_|reduce_?scatter|all_?gather|nvshmem|deep_?ep|all_?to_?all|quick_?reduce"
    r"|mscclpp|one_shot_|two_shot_|SendRecv",
    re.IGNORECASE,
)
SYNC_CALLS = frozenset(
    f"{prefix}{name}{suffix}"
    for prefix in ("cuda", "hip")
    for name in ("DeviceSynchronize", "StreamSynchronize", "EventSynchronize", "Memcpy", "Free", "StreamWaitValue")
    for suffix in ("", "_v3020", "_v3020_ptsz", "_v2")
) | {"cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize", "cuMemcpyDtoH_v2", "cuMemcpyHtoD_v2"}
IDLE = ("launch", "sync", "input", "host", "device")
LONG_GAP = 500.0  # us; shorter gaps are not blamed on the data loader without seeing it
QUEUED = 2.0  # us before the gap began: launched in time
ONCE = 0.05  # of the window: a longer gap that has no like is not part of the loop
UNSTEADY = 0.2  # share of a trace in such gaps from which they are left out
FEWEST = 20  # GPU events that must be left


@lru_cache(maxsize=1 << 15)
def is_comm(name: str) -> bool:
    """Is a kernel communication: NCCL/RCCL, and the custom all-reduces of inference engines."""
    return _COMM.search(name) is not None


def union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge intervals that are sorted by start."""
    out: list[tuple[float, float]] = []
    low, high = 0.0, -1.0
    for start, end in intervals:
        if start > high:
            if high > low or out or high >= 0:
                out.append((low, high))
            low, high = start, end
        elif end > high:
            high = end
    if high >= 0:
        out.append((low, high))
    return [i for i in out if i[1] >= i[0]]


def length(intervals: list[tuple[float, float]], low: float, high: float) -> float:
    """Total length inside a window."""
    return sum(max(0.0, min(end, high) - max(start, low)) for start, end in intervals)


class Cover:
    """Fast length of a union of intervals inside a window."""

    def __init__(self, intervals: Iterable[tuple[float, float]]) -> None:
        merged = union(sorted(intervals))
        self._start = array("d", (i[0] for i in merged))
        self._end = array("d", (i[1] for i in merged))

    def within(self, low: float, high: float) -> float:
        """Covered part of ``[low, high)``."""
        total, k = 0.0, max(0, bisect_left(self._start, low) - 1)
        while k < len(self._start) and self._start[k] < high:
            total += max(0.0, min(self._end[k], high) - max(self._start[k], low))
            k += 1
        return total


@dataclass
class Timeline:
    """Events of one GPU and of the host threads that feed it. Indices of the `gpu_*` columns belong together."""

    gpu_start: array[float] = field(default_factory=lambda: array("d"))
    gpu_end: array[float] = field(default_factory=lambda: array("d"))
    gpu_kind: array[int] = field(default_factory=lambda: array("b"))
    gpu_launch: array[float] = field(default_factory=lambda: array("d"))  # start of the launch call, -1 unknown
    launch_cost: array[float] = field(default_factory=lambda: array("d"))  # durations of launch calls
    to_device: set[int] = field(default_factory=set)  # rows that copy from the host
    syncs: list[tuple[float, float]] = field(default_factory=list)
    inputs: list[tuple[float, float]] = field(default_factory=list)
    ops: list[tuple[float, float]] = field(default_factory=list)  # host work that is seen; empty: unknown
    steps: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Verdict:
    """Shares of the window, and rows that show them."""

    low: float
    high: float
    steps: int
    busy: float
    comm: float
    comm_exposed: float
    copy_exposed: float
    idle: dict[str, float]  # launch, sync, input, host, device
    worst_gap: dict[str, int]  # kind -> row that ends the longest gap of it
    kernels: int
    kernel_median: float | None
    queue_delay: float | None
    launch_median: float | None
    syncs: int
    step_median: float | None
    unsteady: float = 0.0  # share of the trace before and after the window, where gaps that came once are left out

    @property
    def span(self) -> float:
        """Window length, us."""
        return self.high - self.low


def window(line: Timeline) -> tuple[float, float]:
    """From the second profiled step (the first warms up the profiler) to the last GPU event."""
    steps = sorted(line.steps)
    high = max(line.gpu_end)
    low = steps[1][0] if len(steps) >= 3 else min(min(line.gpu_start), steps[0][0] if steps else min(line.gpu_start))
    return (low, high) if low < high else (min(line.gpu_start), high)


def analyse(line: Timeline) -> Verdict | None:
    """Where the window of this GPU went. None without GPU events."""
    if not line.gpu_start:
        return None
    whole = low, high = window(line)
    if low >= high:
        return None
    order = sorted(range(len(line.gpu_start)), key=line.gpu_start.__getitem__)
    if not line.steps:
        low, high = steady(line, order, *whole)
    left_out = 1 - (high - low) / (whole[1] - whole[0])

    def covered(skip: frozenset[int]) -> float:
        rows = ((line.gpu_start[i], line.gpu_end[i]) for i in order if line.gpu_kind[i] not in skip)
        return length(union(rows), low, high)

    busy = covered(frozenset())
    idle, worst = gaps(line, order, low, high, host_side(line, high))
    span = high - low
    inside = [i for i in order if low <= line.gpu_start[i] <= high]
    kernels = [line.gpu_end[i] - line.gpu_start[i] for i in inside if line.gpu_kind[i] in (COMPUTE, COMM)]
    delays = [line.gpu_start[i] - line.gpu_launch[i] for i in inside if line.gpu_launch[i] >= 0]
    steps = sorted(line.steps)
    used = steps[1:] if len(steps) >= 3 else steps
    return Verdict(
        low,
        high,
        len(used),
        busy / span,
        covered(frozenset({COMPUTE, HOST_COPY, DEVICE_COPY})) / span,
        (busy - covered(frozenset({COMM}))) / span,
        (busy - covered(frozenset({HOST_COPY}))) / span,
        {k: v / span for k, v in idle.items()},
        worst,
        len(kernels),
        median(kernels) if kernels else None,
        median(delays) if delays else None,
        median(line.launch_cost) if line.launch_cost else None,
        sum(1 for s, e in line.syncs if low <= s and e <= high + 50.0),
        median([e - s for s, e in used]) if used else None,
        left_out,
    )


def steady(line: Timeline, order: list[int], low: float, high: float) -> tuple[float, float]:
    """The longest stretch without gaps that come once or twice, where those take a good part; else the window.

    A gap in which the loader was seen at work belongs to the loop, however short the trace.
    """
    inputs = Cover(line.inputs)
    spans = union((line.gpu_start[i], line.gpu_end[i]) for i in order if low <= line.gpu_start[i] <= high)
    gaps = sorted(((b[0] - a[1], n + 1) for n, (a, b) in enumerate(pairwise(spans))), reverse=True)
    first, last, lost = 0, len(spans), 0.0
    for rank, (gap, n) in enumerate(gaps):
        if not first < n < last:
            continue
        alike = sum(g >= gap / 2 for g, m in gaps[rank + 1 :] if first < m < last)
        seen = inputs.within(spans[n][0] - gap, spans[n][0]) > 0.5 * gap
        if seen or alike > 1 or gap < ONCE * (spans[last - 1][1] - spans[first][0]):
            break
        lost += gap
        if spans[n - 1][1] - spans[first][0] < spans[last - 1][1] - spans[n][0]:
            first = n
        else:
            last = n
    kept = spans[first][0], spans[last - 1][1]
    inside = sum(kept[0] <= line.gpu_start[i] < kept[1] for i in order)
    return kept if lost >= UNSTEADY * (high - low) and inside >= FEWEST else (low, high)


def host_side(line: Timeline, high: float) -> tuple[Cover, Cover, Cover]:
    """When the host loaded input, worked, and waited for the GPU."""
    return Cover(line.inputs), Cover(line.ops), Cover((s, e) for s, e in line.syncs if e < high)


def gaps(
    line: Timeline, order: list[int], low: float, high: float, host: tuple[Cover, Cover, Cover]
) -> tuple[dict[str, float], dict[str, int]]:
    """Idle time of a window by reason, and the row that ends the longest gap of each."""
    idle = dict.fromkeys(IDLE, 0.0)
    worst: dict[str, tuple[float, int]] = {}
    inputs, ops, waits = host
    reached, last = low, -1
    for i in order:
        start, end = line.gpu_start[i], line.gpu_end[i]
        if end < low or start > high:
            continue
        gap = start - reached
        if gap > 0:
            kind = why(line, i, last, reached, start, inputs, ops, waits)
            idle[kind] += gap
            if gap > worst.get(kind, (0.0, 0))[0]:
                worst[kind] = (gap, i)
        if end >= reached:
            reached, last = end, i
    lost = min(waits.within(low, high), idle["launch"])
    idle["sync"], idle["launch"] = lost, idle["launch"] - lost
    if "launch" in worst and lost > 0:
        worst.setdefault("sync", worst["launch"])
    return idle, {k: i for k, (_, i) in worst.items()}


def why(line: Timeline, row: int, last: int, start: float, end: float, inputs: Cover, ops: Cover, waits: Cover) -> str:
    """Reason of one gap between the rows `last` (-1: none) and `row`; `launch` stands for launching or waiting, told
    apart afterwards.

    What comes back to the device after a copy from it is no input: the host worked on what it had fetched.
    """
    launch = line.gpu_launch[row]
    if 0 <= launch <= start - QUEUED:
        return "device"
    late = launch if launch > start else end
    gap = late - start
    if gap <= 0:
        return "device"
    if inputs.within(start, late) > 0.5 * gap:
        return "input"
    fetched = last >= 0 and line.gpu_kind[last] == HOST_COPY and last not in line.to_device
    if row in line.to_device and fetched and end - start > LONG_GAP:
        return "host"
    if row in line.to_device and end - start > LONG_GAP and waits.within(start, late) < 0.5 * gap:
        return "input"
    if line.ops and gap > LONG_GAP and ops.within(start, late) + waits.within(start, late) < 0.5 * gap:
        return "host"
    return "launch"
