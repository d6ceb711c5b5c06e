"""Prometheus as the source: a look back over a window, as two pages of each server, so that the same readers apply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from diagnose.collect import Capture, Collected, NotCaptured
from diagnose.endpoint import Endpoint, seconds, usable
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.scrapes import FAMILIES, header

WINDOW = 1800.0
POINTS = 60  # samples of a window
METRICS = "vllm.metrics"
_MOST = 16  # servers
_OWN = frozenset(("__name__", "instance", "job"))
_COUNTS = ("_total", "_count", "_sum", "_bucket")
QUERY = '{__name__=~"(' + "|".join(FAMILIES) + ').+"}'
Point = tuple[float, float]


def metrics(host: Host) -> Iterator[Collected]:
    """Pages of all inference servers that Prometheus knows.

    Raises:
        ProbeError: it does not answer as Prometheus does, or has no series of an inference server.
    """
    end = Endpoint.of(host.params, "prometheus")
    window = seconds(host.params.get("window", ""), WINDOW)
    step = max(15.0, window / POINTS)
    now = time.time()
    series = _ask(end, now - window, now, step)
    servers: dict[str, list[tuple[dict[str, str], list[Point]]]] = {}
    for labels, points in series:
        servers.setdefault(labels.get("instance", "unknown"), []).append((labels, points))
    if not servers:
        raise ProbeError(f"{end.place}: Prometheus has no series of an inference server in the last {window:g} s")
    for number, (place, mine) in enumerate(sorted(servers.items())[:_MOST], 1):
        yield from _server(place, mine, number if len(servers) > 1 else 0, window, step, end)
    if len(servers) > _MOST:
        yield NotCaptured(
            METRICS, f"{len(servers) - _MOST} more servers in Prometheus are left out", "prometheus servers"
        )


def _ask(end: Endpoint, begin: float, now: float, step: float) -> list[tuple[dict[str, str], list[Point]]]:
    path = f"/api/v1/query_range?query={quote(QUERY)}&start={begin:.3f}&end={now:.3f}&step={step:g}"
    answer = end.get([path], 30.0)[0]
    if answer.status == 400 and b'"error"' in answer.body:
        raise ProbeError(f"{end.place}: Prometheus refuses the query: {answer.error}")
    if answer.cut:
        raise ProbeError(f"{end.place}: more series than can be read ({answer.cut}): take a shorter --window")
    body = usable(answer, end.place)
    try:
        data = json.loads(body)
        rows = data["data"]["result"]
        return [(_labels(row["metric"]), _points(row["values"])) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ProbeError(f"{end.place}: answers, but not like Prometheus") from err


def _labels(raw: dict[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in raw.items()}


def _points(raw: list[list[Any]]) -> list[Point]:
    return [(float(at), float(value)) for at, value in raw]


def increase(points: list[Point]) -> tuple[float, int]:
    """How far a counter rose, and how often it began anew; what it counted after each reset is added."""
    total, resets = 0.0, 0
    for (_, old), (_, new) in pairwise(points):
        if new < old:
            resets += 1
            total += new
        else:
            total += new - old
    return total, resets


def _text(labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in sorted(labels.items()) if k not in _OWN)
    return f"{labels['__name__']}{{{inside}}} {value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _server(
    place: str, mine: list[tuple[dict[str, str], list[Point]]], number: int, window: float, step: float, end: Endpoint
) -> Iterator[Collected]:
    """Start, end and gauges of one server."""
    first, last, resets, moved = [], [], 0, 0.0
    gauges: dict[float, list[str]] = {}
    taken: set[float] = set()
    for labels, points in mine:
        points = [p for p in points if p[1] == p[1]]
        if not points or "__name__" not in labels:
            continue
        taken.update(at for at, _ in points)
        if labels["__name__"].endswith(_COUNTS):
            rise, again = increase(points)
            resets = max(resets, again)
            first.append(_text(labels, points[0][1]))
            last.append(_text(labels, points[0][1] + rise))
            if labels["__name__"].endswith(("_count", "_total")):
                moved = max(moved, rise)
        else:
            for at, value in points:
                gauges.setdefault(at, []).append(_text(labels, value))
    if not taken:
        return
    begin, stop = min(taken), max(taken)
    head = f"prometheus {number} ".replace(" 0 ", " ") if number else "prometheus "
    params = {"window": f"{window:g}"}
    argv = (f"GET {end.origin.url}/api/v1/query_range?query={QUERY}&step={step:g}",)
    cut = (
        f"a counter was reset {resets} times inside the window: the rises before and after are added up"
        if resets
        else None
    )
    name = place.replace(" ", "_")
    for rows, at, part in ((first, begin, "start"), (last, stop, "end")):
        data = header(name, at, f"{part}, from Prometheus") + "".join(sorted(rows)).encode()
        yield Capture(METRICS, data, head + part, params, argv, started=at, cut=cut if part == "end" else None)
    lines = b"".join(b"# at %.3f\n%s" % (at, "".join(sorted(rows)).encode()) for at, rows in sorted(gauges.items()))
    yield Capture(METRICS, header(name, begin, "gauges, from Prometheus") + lines, head + "gauges", params, argv,
                  started=begin, seconds=stop - begin)  # fmt: skip
    if cut:
        yield NotCaptured(METRICS, f"{place}: {cut}", head + "reset")
    expected = window / step
    if len(taken) < 0.9 * expected:
        why = f"{place}: samples at {len(taken)} of {expected:.0f} moments of the window, the rest are gaps"
        yield NotCaptured(METRICS, why, head + "gaps")
    if moved < 1:
        yield NotCaptured(METRICS, f"{place}: no request came or ended in the last {window:g} s", head + "traffic")
