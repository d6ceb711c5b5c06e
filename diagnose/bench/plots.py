"""Plots of benchmark runs as SVG: latency and throughput over rate, TTFT by stage and over input, TPOT over batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..pictures.plot import Axes, Bar, Part, Point, bars, figure, lines, ticks
from ..pictures.report import stage_name
from ..pictures.svg import Svg
from ..pictures.words import say
from .records import Result

_Axis = Callable[[dict[str, Any]], float | None]
MOST_LINES = 4  # that a plot tells apart
MOST_BARS = 27  # the runs of a matrix


def _rate(data: dict[str, Any]) -> float | None:
    value = data.get("request_rate")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _batch(data: dict[str, Any]) -> float | None:
    """Requests under way on average, by Little's law: requests a second times their time."""
    tput, time = data.get("request_throughput"), data.get("mean_e2el_ms")
    return tput * time / 1000 if tput and time else None


def _input(data: dict[str, Any]) -> float | None:
    value = (data.get("load") or {}).get("input")
    return float(value) if value else None


_TTFT = (("TTFT p50", "p50_ttft_ms"), ("TTFT p99", "p99_ttft_ms"))
_TPOT = (("TPOT p50", "p50_tpot_ms"), ("TPOT p99", "p99_tpot_ms"))
# file, words of the x axis, how x is read, words of the y axis, series
_PLOTS: tuple[tuple[str, str, _Axis, str, tuple[tuple[str, str], ...]], ...] = (
    ("latency-over-rate", "offered", _rate, "ttft.ms", _TTFT),
    ("tpot-over-rate", "offered", _rate, "tpot.ms", _TPOT),
    ("throughput-over-rate", "offered", _rate, "output", (("", "output_throughput"),)),
    ("ttft-over-input", "input", _input, "ttft.ms", _TTFT),
    ("tpot-over-batch", "batch", _batch, "tpot.ms", _TPOT),
)
_SKIP: dict[_Axis, set[str]] = {_rate: {"rate"}, _input: {"in"}, _batch: {"rate", "conc"}}


def _parts(data: dict[str, Any]) -> dict[str, Any]:
    load = data.get("load") or {}
    named = {"in": load.get("input"), "out": load.get("output"), "rate": data.get("request_rate"),
             "conc": data.get("max_concurrency")}  # fmt: skip
    return {k: v for k, v in named.items() if v is not None}


def _family(data: dict[str, Any], axis: _Axis) -> str:
    """What runs on one line have in common."""
    return " ".join(f"{k} {v}" for k, v in _parts(data).items() if k not in _SKIP[axis])


def plots(results: Sequence[Result], lang: str = "en") -> list[Svg]:
    """What the runs allow: a line needs two points, bars need stages that were measured."""
    made = [_plot(results, *spec, lang) for spec in _PLOTS]
    return [svg for svg in (*made, _stages(results, lang)) if svg is not None]


def _plot(
    results: Sequence[Result], name: str, x_words: str, axis: _Axis, y_words: str,
    wanted: tuple[tuple[str, str], ...], lang: str,
) -> Svg | None:  # fmt: skip
    found: dict[str, dict[str, list[Point]]] = {}
    for result in results:
        x = axis(result.data)
        for label, key in wanted:
            value = result.data.get(key)
            if x is not None and isinstance(value, int | float):
                point = Point(x, float(value), f"{figure(x)}: {figure(value)}", crossed=not result.valid)
                found.setdefault(_family(result.data, axis), {}).setdefault(label, []).append(point)
    series = {
        f"{label} {family if len(found) > 1 else ''}".strip() or family: points
        for family, by in found.items()
        for label, points in by.items()
        if len({p.x for p in points}) > 1
    }
    if not series:
        return None
    series = dict(list(series.items())[:MOST_LINES])
    points = [p for line in series.values() for p in line]
    low, high = min(p.x for p in points), max(p.x for p in points)
    marks = sorted({p.x for p in points}) if len({p.x for p in points}) <= 8 else [t for t in ticks(high) if t >= low]
    axes = Axes(say(lang, x_words), say(lang, y_words), tuple((m, figure(m)) for m in marks))
    note = say(lang, "crossed") if any(p.crossed for p in points) else ""
    return lines(name, say(lang, name), say(lang, "runs.desc", len(results)), axes, series, note=note)


# suffix of a histogram of the server -> stage
_STAGES = (("request_queue_time_seconds", "queue"), ("queue_time_seconds", "queue"),
           ("request_prefill_time_seconds", "prefill"))  # fmt: skip
_ORDER = ("client and network", "queue", "prefill", "residual")


def stages(data: dict[str, Any]) -> dict[str, float]:
    """Parts of a run's mean TTFT in ms: the client's, those the server times, and what it does not expose."""
    server = data.get("server")
    whole = data.get("mean_ttft_ms")
    if not isinstance(server, dict) or not isinstance(whole, int | float):
        return {}
    out: dict[str, float] = {}
    for suffix, stage in _STAGES:
        item = next((v for k, v in server.items() if k.endswith(suffix) and isinstance(v, dict)), None)
        if item is not None and "average_ms" in item:
            out.setdefault(stage, float(item["average_ms"]))
    if not out:
        return {}
    client = server.get("client_minus_server_ttft_ms")
    if isinstance(client, int | float):
        out["client and network"] = max(0.0, float(client))
    out["residual"] = whole - sum(out.values())
    return {k: out[k] for k in _ORDER if k in out} if out["residual"] >= 0 else {}


def _stages(results: Sequence[Result], lang: str) -> Svg | None:
    """The mean TTFT of each run by its stages."""
    rows = []
    names = [stage_name(s, lang) for s in _ORDER]
    for result in results:
        found = stages(result.data)
        if found:
            parts = tuple(Part(_ORDER.index(k), v, f"{stage_name(k, lang)}: {figure(v)} ms") for k, v in found.items())
            called = " ".join(f"{k} {v}" for k, v in _parts(result.data).items())
            rows.append(Bar(called, parts, f"{figure(float(result.data['mean_ttft_ms']))} ms"))
    if not rows:
        return None
    desc = say(lang, "runs.desc", len(rows))
    return bars("ttft-stages", say(lang, "ttft-stages"), desc, "ms", names, rows[:MOST_BARS])


def draw(results: Sequence[Result], folder: Path, lang: str = "en") -> list[Path]:
    """Write the plots that the runs allow."""
    out = []
    for svg in plots(results, lang):
        folder.mkdir(parents=True, exist_ok=True)
        out.append(folder / f"{svg.name}.svg")
        out[-1].write_text(svg.file(), "utf-8")
    return out
