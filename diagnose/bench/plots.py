"""Plots as SVG files, where matplotlib is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ToolMissing
from .records import Result

MISSING = "matplotlib is not installed: no plots"
HINT = 'pip install "gpu-diagnose[report]"'


def available() -> bool:
    """Is matplotlib here?"""
    return find_spec("matplotlib") is not None


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


# file, x axis, how x is read, [(label, key)] by panel with its unit
_TTFT = ("TTFT, ms", (("p50", "p50_ttft_ms"), ("p99", "p99_ttft_ms")))
_TPOT = ("TPOT, ms", (("p50", "p50_tpot_ms"), ("p99", "p99_tpot_ms")))
_OUTPUT = ("output tokens/s", (("", "output_throughput"),))
_PLOTS: tuple[tuple[str, str, Any, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]], ...] = (
    ("latency-over-rate", "offered rate, req/s", _rate, (_TTFT, _TPOT)),
    ("throughput-over-rate", "offered rate, req/s", _rate, (_OUTPUT,)),
    ("ttft-over-input", "input length, tokens", _input, (_TTFT,)),
    ("tpot-over-batch", "requests under way on average (req/s x E2EL)", _batch, (_TPOT,)),
)


def _family(data: dict[str, Any], axis: Any) -> str:
    """What runs on one line have in common."""
    load = data.get("load") or {}
    parts = {"in": load.get("input"), "out": load.get("output"), "rate": data.get("request_rate"),
             "conc": data.get("max_concurrency")}  # fmt: skip
    skip = {_rate: {"rate"}, _input: {"in"}, _batch: {"rate", "conc"}}[axis]
    return " ".join(f"{k} {v}" for k, v in parts.items() if k not in skip and v is not None)


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw what the runs allow: a plot needs two points on a line.

    Raises:
        ToolMissing: without matplotlib.
    """
    if not available():
        raise ToolMissing(MISSING, HINT)
    import_module("matplotlib").use("svg")
    pyplot = import_module("matplotlib.pyplot")
    out = []
    for name, label, axis, panels in _PLOTS:
        lines: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        for r in results:
            if (x := axis(r.data)) is not None:
                lines.setdefault(_family(r.data, axis), []).append((x, r.data | {"valid": r.valid}))
        lines = {k: sorted(v, key=lambda p: p[0]) for k, v in lines.items() if len({x for x, _ in v}) > 1}
        if not lines:
            continue
        fig, axes = pyplot.subplots(len(panels), 1, squeeze=False, figsize=(7, 3.2 * len(panels)), sharex=True)
        for (unit, series), ax in zip(panels, (row[0] for row in axes), strict=True):
            for family, points in lines.items():
                for stat, key in series:
                    drawn = [(x, d[key]) for x, d in points if isinstance(d.get(key), int | float)]
                    if drawn:
                        ax.plot(*zip(*drawn, strict=True), marker="o", label=f"{family} {stat}".strip())
                    crossed = [(x, d[key]) for x, d in points if not d["valid"] and isinstance(d.get(key), int | float)]
                    if crossed:
                        style = {"marker": "x", "color": "black", "linestyle": "", "zorder": 3}
                        ax.plot(*zip(*crossed, strict=True), **style)
            if any(not d["valid"] for points in lines.values() for _, d in points):
                ax.set_title("crossed out: the generator fell behind", fontsize="small")
            ax.set_ylabel(unit)
            ax.set_ylim(bottom=0)
            ax.legend(fontsize="x-small")
        axes[-1][0].set_xlabel(label)
        fig.tight_layout()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.svg"
        fig.savefig(path)
        pyplot.close(fig)
        out.append(path)
    return out
