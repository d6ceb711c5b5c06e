"""A trace on the wall clock: what the GPU did in each quarter of a second, to be put beside counters of the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from .timeline import COMM, Cover, Timeline

BIN = 0.25  # seconds, as the table of the host has them
LEAST, MOST = 4, 240  # bins: a shorter trace has nothing to compare, of a longer one the first minute will do
_BASE = re.compile(r'"baseTimeNanoseconds": ?(\d+)')
_EPOCH_US = 1e15  # an absolute time in microseconds is above this since 2001
# what a bin says: GPU computes; only communication runs, so that somebody waits for it; nothing runs at all
ROLES = ("compute", "exposed", "unfed")


def base_us(header: str, first: float) -> float | None:
    """What has to be added to a time of the trace to get microseconds since 1970; None where nobody says."""
    hit = _BASE.search(header)
    if hit is not None:
        return int(hit[1]) / 1e3
    return 0.0 if first > _EPOCH_US else None


def series(header: str, line: Timeline, low: float, high: float) -> Iterator[tuple[str, str]]:
    """Role and points (JSON pairs of epoch second and share), for a window that is long enough."""
    base = base_us(header, low)
    width = BIN * 1e6
    if base is None or (high - low) / width < LEAST:
        return
    rows = range(len(line.gpu_start))
    everything = Cover((line.gpu_start[i], line.gpu_end[i]) for i in rows)
    own = Cover((line.gpu_start[i], line.gpu_end[i]) for i in rows if line.gpu_kind[i] != COMM)
    points: dict[str, list[list[float]]] = {role: [] for role in ROLES}
    for k in range(min(MOST, int((high - low) / width))):
        start, end = low + k * width, low + (k + 1) * width
        busy, mine = everything.within(start, end) / width, own.within(start, end) / width
        when = round((base + start + width / 2) / 1e6, 3)
        for role, share in zip(ROLES, (mine, busy - mine, 1.0 - busy), strict=True):
            points[role].append([when, round(max(0.0, share), 4)])
    for role in ROLES:
        yield role, json.dumps(points[role], separators=(",", ":"))
