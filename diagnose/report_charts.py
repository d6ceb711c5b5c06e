"""Drawings of a report as geometry: bandwidth over size, latency over rate, GPUs and their links.

A drawing is made only where the evidence holds what it shows; the page's template turns it into SVG, so
that every word in it is escaped like the rest. Each also carries its rows, for those who do not see it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .models import Evidence, Report

WIDTH, HEIGHT = 520, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
MOST_SERIES, MOST_POINTS, MOST_GPUS = 4, 64, 16
_SIZED = re.compile(r"^(?P<what>.*?)\s*(?P<bytes>\d+) B\b\s*(?P<how>.*)$")


@dataclass(frozen=True)
class Series:
    """A line of points; `marks` are (x, y, hint) in the drawing's coordinates."""

    name: str
    path: str
    marks: tuple[tuple[float, float, str], ...]


@dataclass
class Plot:
    """Two axes. `kind` names its words in `report_labels`; `ceiling` is the height of a limit, with its label."""

    kind: str
    unit: str
    describe: str
    series: list[Series] = field(default_factory=list)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    ceiling: tuple[float, str] | None = None
    head: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class Edge:
    """A link between two GPUs; `bad` where a finding rests on it."""

    a: tuple[float, float]
    b: tuple[float, float]
    kind: str
    style: str  # nvlink, pcie, far
    bad: str = ""

    @property
    def label(self) -> tuple[float, float]:
        """Where its name stands: not in the middle, where the links of many GPUs cross."""
        share = 0.5 if self.a[1] == self.b[1] else 0.6
        x, y = (round(a * share + b * (1 - share), 1) for a, b in zip(self.a, self.b, strict=True))
        return x, y - 10


@dataclass
class Topology:
    """GPUs on a circle and what joins them."""

    describe: str
    height: int = HEIGHT
    nodes: list[tuple[float, float, str]] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def styles(self) -> list[str]:
        """Styles of lines that it has, for its legend."""
        there = {"badedge" if e.bad else e.style for e in self.edges}
        return [s for s in ("badedge", "nvlink", "pcie", "far") if s in there]


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        got = float(value)
    except ValueError:
        return None
    return got if math.isfinite(got) else None


def size_text(count: float) -> str:
    """``256 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:g} {unit}"
        count /= 1024
    return ""


def ticks(top: float, about: int = 5) -> list[float]:
    """Round values from 0 to at least `top`."""
    raw = max(top, 1e-9) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def _plot(
    plot: Plot, lines: dict[str, list[tuple[float, float, str]]], x_ticks: Sequence[tuple[float, str]],
    ceiling: tuple[float, str] | None = None,
) -> Plot:  # fmt: skip
    """Scale points (x, y, hint) into the drawing."""
    points = [p for line in lines.values() for p in line]
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    marks = ticks(max([p[1] for p in points] + ([ceiling[0]] if ceiling else [])))

    def at_x(x: float) -> float:
        return round(LEFT + (x - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT), 1)

    def at_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - y / marks[-1] * (HEIGHT - TOP - BOTTOM), 1)

    for name, line in lines.items():
        placed = tuple((at_x(x), at_y(y), hint) for x, y, hint in sorted(line))
        plot.series.append(Series(name, " ".join(f"{x},{y}" for x, y, _ in placed), placed))
    plot.x_ticks = [(at_x(x), text) for x, text in x_ticks if low <= x <= high]
    plot.y_ticks = [(at_y(y), f"{y:g}") for y in marks]
    if ceiling:
        plot.ceiling = (at_y(ceiling[0]), ceiling[1])
    return plot


# --- bandwidth over size


def bandwidth(report: Report) -> Plot | None:
    """Bus bandwidth of nccl-tests over the message size, with the ceiling of the links where one is known."""
    lines: dict[tuple[str, str], dict[int, Evidence]] = {}
    for item in report.evidence:
        hit = _SIZED.match(item.subject.label or "") if item.signal == "nccl_tests.busbw" else None
        if hit and item.capture and number(item.value) is not None:
            lines.setdefault((item.capture.name, f"{hit['what']} {hit['how']}".strip()), {})[int(hit["bytes"])] = item
    kept = sorted((k for k, v in lines.items() if len(v) > 1), key=lambda k: (-len(lines[k]), k))[:MOST_SERIES]
    if not kept:
        return None
    several = len({name for name, _ in kept}) > 1
    made: dict[str, list[tuple[float, float, str]]] = {}
    rows: list[tuple[str, ...]] = []
    for name, what in kept:
        label = f"{what}, {name}" if several else what
        for count, item in sorted(lines[name, what].items())[-MOST_POINTS:]:
            value = number(item.value) or 0.0
            made.setdefault(label, []).append((math.log2(max(count, 1)), value, f"{size_text(count)}: {value:g} GB/s"))
            rows.append((label, size_text(count), f"{value:g}", item.id))
    limit = next((x for x in report.limits if x.limit and x.unit == "GB/s" and "busbw" in x.what), None)
    ceiling = (limit.limit, f"limit {limit.limit:g} GB/s") if limit and limit.limit else None
    best = max(p[1] for line in made.values() for p in line)
    told = f"Bus bandwidth over message size; the highest point is {best:g} GB/s"
    plot = Plot(
        "bandwidth", "GB/s", f"{told}, the {ceiling[1]}." if ceiling else f"{told}.",
        head=("series", "size", "GB/s", "evidence"), rows=rows,
    )  # fmt: skip
    powers = sorted({p[0] for line in made.values() for p in line})
    step = max(1, math.ceil((powers[-1] - powers[0]) / 6))
    return _plot(
        plot, made, [(p, size_text(2**p)) for p in range(math.ceil(powers[0]), int(powers[-1]) + 1, step)], ceiling
    )


# --- latency over rate


def latency(report: Report) -> Plot | None:
    """TTFT of several runs of a benchmark client over the rate of each."""
    rates: dict[str, float] = {}
    times: dict[str, dict[str, Evidence]] = {}
    for item in report.evidence:
        if item.capture is None:
            continue
        name, value = item.capture.name, number(item.value)
        if value is None:
            continue
        if item.signal == "serving.client.request_rate" or (
            item.signal == "serving.client.request_tput" and name not in rates
        ):
            rates[name] = value
        elif item.signal == "serving.client.ttft" and item.subject.label in ("p50", "median", "mean", "p99"):
            times.setdefault(name, {})[item.subject.label] = item
    runs = sorted((rates[n], n) for n in times if n in rates)[:MOST_POINTS]
    made: dict[str, list[tuple[float, float, str]]] = {}
    rows: list[tuple[str, ...]] = []
    for rate, name in runs:
        middle = next((times[name][k] for k in ("p50", "median", "mean") if k in times[name]), None)
        for label, got in (("p50 / mean", middle), ("p99", times[name].get("p99"))):
            if got is not None:
                value = number(got.value) or 0.0
                made.setdefault(label, []).append((rate, value, f"{rate:g} req/s: {value:.4g} ms"))
                rows.append((f"{got.subject.label}", f"{rate:g}", f"{value:.4g}", got.id))
    made = {k: v for k, v in made.items() if len({p[0] for p in v}) > 1}
    if not made:
        return None
    top = max(p[0] for line in made.values() for p in line)
    plot = Plot(
        "latency", "ms", f"Time to first token of {len(runs)} runs over their request rate.",
        head=("TTFT", "req/s", "ms", "evidence"), rows=rows,
    )  # fmt: skip
    return _plot(plot, made, [(x, f"{x:g}") for x in ticks(top)])


# --- topology


def _style(kind: str) -> str:
    if kind.startswith("NV"):
        return "nvlink"
    return "pcie" if kind in ("PIX", "PXB") else "far"


def _pair(item: Evidence) -> tuple[int, int] | None:
    who = item.subject
    first = who.gpu if who.gpu is not None else who.rank
    if first is None or who.peer is None or first == who.peer:
        return None
    return min(first, who.peer), max(first, who.peer)


def _blamed(report: Report, gpus: set[int]) -> dict[tuple[int, int], str]:
    """Pairs that a finding rests on, with the reading; ranks count as GPUs where there is one machine."""
    by_id = {e.id: e for e in report.evidence}
    hosts = {e.subject.host for e in report.evidence if e.signal == "nccl_tests.rank"}
    out: dict[tuple[int, int], str] = {}
    for finding in report.findings:
        for ident in finding.evidence:
            item = by_id.get(ident)
            pair = _pair(item) if item else None
            if item is None or pair is None or not set(pair) <= gpus:
                continue
            if item.subject.gpu is None and len(hosts) > 1:
                continue
            if item.signal.startswith(("topo.", "nccl.transport")):
                out.setdefault(pair, str(item.value))
    return out


def topology(report: Report) -> Topology | None:
    """The matrix of `nvidia-smi topo -m` as a drawing, with the links that a finding rests on marked."""
    links: dict[tuple[int, int], Evidence] = {}
    for item in report.evidence:
        pair = _pair(item) if item.signal == "topo.link" else None
        if pair:
            links.setdefault(pair, item)
    gpus = {g for pair in links for g in pair}
    if not links or len(gpus) > MOST_GPUS:
        return None
    places = _circle(sorted(gpus))
    blamed = _blamed(report, gpus)
    made = Topology("", HEIGHT if len(gpus) > 2 else 80)
    made.nodes = [(x, y, f"GPU {g}") for g, (x, y) in places.items()]
    for (a, b), item in sorted(links.items(), key=lambda kv: (kv[0] in blamed, kv[0])):
        kind, bad = str(item.value), blamed.get((a, b), "")
        made.edges.append(Edge(places[a], places[b], kind, _style(kind), bad))
        made.rows.append((f"GPU {a}", f"GPU {b}", kind, bad if bad != kind else ("cited" if bad else ""), item.id))
    told = "; ".join(f"GPU {a} to GPU {b}: {text}" for (a, b), text in sorted(blamed.items())[:4])
    made.describe = f"{len(gpus)} GPUs and their links." + (f" A finding rests on {told}." if told else "")
    return made


def _circle(gpus: Iterable[int]) -> dict[int, tuple[float, float]]:
    names = list(gpus)
    if len(names) == 2:
        return {names[0]: (60.0, 45.0), names[1]: (460.0, 45.0)}
    out = {}
    for i, gpu in enumerate(names):
        turn = 2 * math.pi * i / len(names) - math.pi / 2
        out[gpu] = (round(260 + 150 * math.cos(turn), 1), round(140 + 108 * math.sin(turn), 1))
    return out
