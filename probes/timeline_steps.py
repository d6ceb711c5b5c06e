"""A timeline cut into its steps: where the time of each went, and what ran when in a typical one.

A step begins on the GPU with the first thing that the host launched in it, and ends where the next one begins, the
last with the window. Without profiled steps the window is one. Times are in ms; lanes count from the start of the step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from .timeline import COMM, COMPUTE, DEVICE_COPY, HOST_COPY, Timeline, gaps, host_side, union, why, window

MOST_STEPS = 8
MOST_PIECES = 120  # of a lane; closer ones are drawn as one
FINEST = 600  # what is shorter than this part of a step is not drawn by itself
WHOLE = "window"
_LANES = {"compute": (COMPUTE, DEVICE_COPY), "comm": (COMM,), "copy": (HOST_COPY,)}
_Times = list[tuple[float, float]]


@dataclass(frozen=True)
class Step:
    """A step by its number among the profiled ones. `parts`: name -> ms; the span is busy time plus idle time."""

    name: str
    parts: dict[str, float]
    lanes: dict[str, _Times]

    def readings(self) -> Iterator[tuple[str, str, str]]:
        """Signal, label and text: parts as ``span 12.5 busy 9.1 …``, lanes as ``0-1.25 3.5-4``."""
        yield "trace.step_parts", self.name, " ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        for name, times in self.lanes.items():
            yield "trace.lane", f"{self.name}: {name}", " ".join(f"{a:.4g}-{b:.4g}" for a, b in times) or "none"


def bounds(line: Timeline, order: list[int]) -> list[tuple[str, float, float]]:
    """Steps of the steady window: name, start, end."""
    low, high = window(line)
    profiled = sorted(line.steps)
    first = 1 if len(profiled) >= 3 else 0
    begun = [s for s, _ in profiled]
    starts: dict[int, float] = {}
    for i in order:
        step = bisect_right(begun, line.gpu_launch[i]) - 1
        if step >= first and line.gpu_launch[i] <= profiled[step][1]:
            starts.setdefault(step, line.gpu_start[i])
            if len(starts) > MOST_STEPS:
                break  # of the rest nothing is told
    cut = sorted(starts.items())
    if not cut or [s for _, s in cut] != sorted(s for _, s in cut):
        return [(WHOLE, low, high)]
    ends = [*(s for _, s in cut[1:]), high]
    named = [(str(n + 1), a, b) for (n, a), b in zip(cut, ends, strict=True) if a < b]
    return named[:MOST_STEPS] or [(WHOLE, low, high)]


def steps(line: Timeline) -> list[Step]:
    """The first steps of the window; only the one in the middle by length has lanes."""
    order = sorted(range(len(line.gpu_start)), key=line.gpu_start.__getitem__)
    cut = bounds(line, order)
    begins = [line.gpu_start[i] for i in order]
    longest = max(e - s for s, e in zip(line.gpu_start, line.gpu_end, strict=True))
    host = host_side(line, window(line)[1])
    typical = sorted(cut, key=lambda s: (s[2] - s[1], s[0]))[len(cut) // 2][0]
    out = []
    for name, low, high in cut:
        rows = order[bisect_right(begins, low - longest - 1) : bisect_right(begins, high)]
        busy = {lane: _busy(line, rows, kinds, low, high) for lane, kinds in _LANES.items()}
        parts = {"span": high - low, "busy": _sum(_together(busy))}
        parts |= {lane: _sum(times) for lane, times in busy.items()}
        for lane in ("comm", "copy"):
            parts[f"{lane}_exposed"] = parts["busy"] - _sum(_together(busy, but=lane))
        idle, _ = gaps(line, rows, low, high, host)
        after = bisect_right(begins, high)
        reached = max([low, *(line.gpu_end[i] for i in rows)])
        if reached < high:  # the gap goes on into the next step: what ends it says why
            last = max(rows, key=line.gpu_end.__getitem__, default=-1)
            late = why(line, order[after], last, reached, begins[after], *host) if after < len(order) else "device"
            idle[late] += high - reached
        parts["idle"] = high - low - parts["busy"]
        parts |= idle
        lanes = {}
        if name == typical:
            lanes = {lane: _coarse(times, low, high) for lane, times in busy.items()}
            lanes["exposed"] = _coarse(_alone(busy), low, high)
        out.append(Step(name, {k: v / 1e3 for k, v in parts.items()}, lanes))
    return out


def _sum(times: _Times) -> float:
    return sum(b - a for a, b in times)


def _busy(line: Timeline, rows: list[int], kinds: tuple[int, ...], low: float, high: float) -> _Times:
    """When anything of some kinds ran, cut to a window."""
    inside = ((max(line.gpu_start[i], low), min(line.gpu_end[i], high)) for i in rows if line.gpu_kind[i] in kinds)
    return union((a, b) for a, b in inside if a < b)


def _together(busy: dict[str, _Times], but: str = "") -> _Times:
    """When anything ran at all, or anything but one lane."""
    return union(sorted(t for lane, times in busy.items() if lane != but for t in times))


def _alone(busy: dict[str, _Times]) -> _Times:
    """When communication ran and nothing else."""
    others = _together(busy, but="comm")
    ends = [b for _, b in others]
    out: _Times = []
    for start, end in busy["comm"]:
        at = bisect_right(ends, start)
        while at < len(others) and others[at][0] < end:
            if others[at][0] > start:
                out.append((start, others[at][0]))
            start = max(start, others[at][1])
            at += 1
        if start < end:
            out.append((start, end))
    return out


def _coarse(times: _Times, low: float, high: float) -> _Times:
    """Times from the start of the step in ms, joined until there are few enough to be kept and seen."""
    apart = (high - low) / FINEST
    while True:
        out: _Times = []
        for a, b in times:
            if out and a - out[-1][1] < apart:
                out[-1] = (out[-1][0], b)
            else:
                out.append((a, b))
        if len(out) <= MOST_PIECES:
            return [((a - low) / 1e3, (b - low) / 1e3) for a, b in out]
        apart *= 2
