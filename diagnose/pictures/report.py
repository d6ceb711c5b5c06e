"""Pictures of a report: made only where its evidence holds what they show."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..hardware import BANDS
from ..models import Evidence, Report, Stage
from ..stages import METRICS
from .flow import Hop, Picture, chain, draw
from .paths import paths
from .plot import Axes, Bar, Ceiling, Part, Point, bars, figure, lines, ticks
from .svg import Drawing, Svg, wide
from .trace import trace
from .words import say

MOST_SERIES, MOST_POINTS, MOST_GPUS = 4, 64, 16
_RING = re.compile(r"\bNV\d+, ring$")
_SIZED = re.compile(r"^(?P<what>.*?)\s*(?P<bytes>\d+) B\b\s*(?P<how>.*)$")


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


def bandwidth(report: Report, lang: str = "en") -> Drawing | None:
    """Bus bandwidth of nccl-tests over the message size, with the ceiling of the links where one is known."""
    found: dict[tuple[str, str], dict[int, Evidence]] = {}
    for item in report.evidence:
        hit = _SIZED.match(item.subject.label or "") if item.signal == "nccl_tests.busbw" else None
        if hit and item.capture and number(item.value) is not None:
            found.setdefault((item.capture.name, f"{hit['what']} {hit['how']}".strip()), {})[int(hit["bytes"])] = item
    kept = sorted((k for k, v in found.items() if len(v) > 1), key=lambda k: (-len(found[k]), k))[:MOST_SERIES]
    if not kept:
        return None
    several = len({name for name, _ in kept}) > 1
    made: dict[str, list[Point]] = {}
    rows: list[tuple[str, ...]] = []
    for name, what in kept:
        label = f"{what}, {name}" if several else what
        for count, item in sorted(found[name, what].items())[-MOST_POINTS:]:
            value = number(item.value) or 0.0
            hint = f"{size_text(count)}: {value:g} GB/s"
            made.setdefault(label, []).append(Point(math.log2(max(count, 1)), value, hint))
            rows.append((label, size_text(count), f"{value:g}", item.id))
    limit = next((x for x in report.limits if x.limit and x.unit == "GB/s" and "busbw" in x.what), None)
    ceiling = None
    if limit and limit.limit:
        usual = BANDS["nvlink ring"].healthy * limit.limit if _RING.search(limit.what) else None
        ceiling = Ceiling(limit.limit, say(lang, "limit", f"{limit.limit:g}"), usual, say(lang, "usual"))
    desc = say(lang, "bandwidth.desc", f"{max(p.y for line in made.values() for p in line):g}")
    if limit and ceiling:
        desc += " " + say(lang, "bandwidth.under", f"{limit.limit:g}")
    powers = sorted({p.x for line in made.values() for p in line})
    step = max(1, math.ceil((powers[-1] - powers[0]) / 7))
    marks = tuple((p, size_text(2**p)) for p in range(math.ceil(powers[0]), int(powers[-1]) + 1, step))
    svg = lines("bandwidth", say(lang, "bandwidth"), desc, Axes(say(lang, "size"), say(lang, "busbw"), marks), made,
                ceiling)  # fmt: skip
    return Drawing(svg, (say(lang, "series"), say(lang, "size"), "GB/s", say(lang, "evidence")), rows)


def latency(report: Report, lang: str = "en") -> Drawing | None:
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
    made: dict[str, list[Point]] = {}
    rows: list[tuple[str, ...]] = []
    for rate, name in runs:
        middle = next((times[name][k] for k in ("p50", "median", "mean") if k in times[name]), None)
        for label, got in ((say(lang, "middle"), middle), ("p99", times[name].get("p99"))):
            if got is not None:
                value = number(got.value) or 0.0
                made.setdefault(label, []).append(Point(rate, value, f"{rate:g} req/s: {figure(value)} ms"))
                rows.append((f"{got.subject.label}", f"{rate:g}", figure(value), got.id))
    made = {k: v for k, v in made.items() if len({p.x for p in v}) > 1}
    if not made:
        return None
    top = max(p.x for line in made.values() for p in line)
    axes = Axes(say(lang, "rate"), say(lang, "ttft.ms"), tuple((x, f"{x:g}") for x in ticks(top)))
    svg = lines("latency", say(lang, "latency"), say(lang, "latency.desc", len(runs)), axes, made)
    return Drawing(svg, ("TTFT", "req/s", "ms", say(lang, "evidence")), rows)


def _time(seconds: float) -> str:
    return f"{figure(seconds)} s" if abs(seconds) >= 1 else f"{figure(seconds * 1000)} ms"


def stages(report: Report, lang: str = "en") -> list[Drawing]:
    """The means of each latency as one stacked bar; below it what each stage takes at best, where that is known."""
    out = []
    for metric in METRICS:
        parts = [s for s in report.stages if s.metric == metric and s.share is not None and s.seconds > 0]
        if len(parts) < 2:
            continue
        unit, scale = ("s", 1.0) if sum(s.seconds for s in parts) >= 1 else ("ms", 1e3)
        kinds = [f"{stage_name(s.stage, lang)} {_time(s.seconds)}" for s in parts]
        measured = Bar(say(lang, "measured"), tuple(
            Part(k, s.seconds * scale, f"{s.stage}: {_time(s.seconds)}") for k, s in enumerate(parts)
        ))  # fmt: skip
        floors = tuple(Part(k, s.floor * scale, f"{s.stage}: {say(lang, 'floor')} {_time(s.floor)}")
                       for k, s in enumerate(parts) if s.floor)  # fmt: skip
        rows = [measured, Bar(say(lang, "floor"), floors)] if floors else [measured]
        whole = _time(sum(s.seconds for s in parts))
        name = "stages-" + metric.replace(" ", "-")
        desc = say(lang, "stages.desc", whole.replace(" ms", "")) if unit == "ms" else whole
        svg = bars(name, say(lang, metric), desc, unit, kinds, rows)
        head = (say(lang, "stage"), say(lang, "time"), say(lang, "floor"), say(lang, "evidence"))
        out.append(Drawing(svg, head, [_stage_row(s) for s in parts]))
    return out


def _stage_row(s: Stage) -> tuple[str, ...]:
    floor = "" if s.floor is None else _time(s.floor)
    return s.stage, _time(s.seconds), floor, s.evidence[0] if s.evidence else ""


_ZH_STAGES = {
    "client and network": "客户端与网络", "tokenise": "分词", "frontend and router": "前端与路由",
    "prefill server": "prefill 服务器",
    "before the queue": "入队之前", "queue": "排队", "first token": "首个 token", "KV transfer": "KV 传输",
    "decode step": "decode 一步", "inference": "推理", "residual": "其余", "whole": "合计",
}  # fmt: skip


def stage_name(name: str, lang: str) -> str:
    """A stage in the picture's language."""
    return _ZH_STAGES.get(name, name) if lang == "zh" else name


def request(report: Report, lang: str = "en") -> Picture | None:
    """The way of a request to its first token and on, each station with the time it took."""
    first = [s for s in report.stages if s.metric == "ttft" and s.share is not None and s.seconds > 0]
    if len(first) < 2:
        return None
    by_id = {e.id: e for e in report.evidence}
    longest = max(first, key=lambda s: s.seconds)

    def hop(s: Stage, name: str) -> Hop:
        hidden = s.stage == "residual"
        took = _time(s.seconds)
        said = say(lang, "of", took, figure((s.share or 0.0) * 100)) if s.metric == "ttft" else took
        if s.floor:
            said += f"; {say(lang, 'floor')} {_time(s.floor)}"
        ids = tuple(i for i in s.evidence[:1] if i in by_id)
        if hidden:
            return Hop(name, None, say(lang, "not exposed"), said, ids, "rest")
        word = "longest" if s is longest else "measured"
        return Hop(name, True, by_id[ids[0]].statement if ids else "", said, ids, word)

    hops = [hop(s, stage_name(s.stage, lang)) for s in first]
    later = [s for s in report.stages if s.metric == "tpot" and s.seconds > 0 and s.stage != "residual"]
    hops += [hop(s, say(lang, "each token") + f": {stage_name(s.stage, lang)}") for s in later]
    return chain(say(lang, "request"), hops)


def _request(report: Report, lang: str) -> Drawing | None:
    made = request(report, lang)
    return draw("request", made, lang) if made is not None else None


# --- topology


@dataclass(frozen=True)
class Edge:
    """A link between two GPUs; `bad` where a finding rests on it."""

    a: tuple[float, float]
    b: tuple[float, float]
    kind: str
    bad: str = ""

    @property
    def style(self) -> str:
        """Class of its line."""
        if self.bad:
            return "badedge"
        if self.kind.startswith("NV"):
            return "nvlink"
        return "pcie" if self.kind in ("PIX", "PXB") else "far"


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


def edges(report: Report) -> tuple[dict[int, tuple[float, float]], list[tuple[tuple[int, int], Edge, str]]]:
    """Places of the GPUs of `nvidia-smi topo -m`, and their links with the evidence of each; blamed ones last."""
    links: dict[tuple[int, int], Evidence] = {}
    for item in report.evidence:
        pair = _pair(item) if item.signal == "topo.link" else None
        if pair:
            links.setdefault(pair, item)
    gpus = {g for pair in links for g in pair}
    if not links or len(gpus) > MOST_GPUS:
        return {}, []
    places, blamed = _circle(sorted(gpus)), _blamed(report, gpus)
    out = []
    for (a, b), item in sorted(links.items(), key=lambda kv: (kv[0] in blamed, kv[0])):
        out.append(((a, b), Edge(places[a], places[b], str(item.value), blamed.get((a, b), "")), item.id))
    return places, out


def topology(report: Report, lang: str = "en") -> Drawing | None:
    """The matrix of `nvidia-smi topo -m`, with the links that a finding rests on marked."""
    places, found = edges(report)
    if not found:
        return None
    styles = {e.style for _, e, _ in found}
    told = "; ".join(f"GPU {a} - GPU {b}: {e.bad}" for (a, b), e, _ in found if e.bad)
    desc = say(lang, "topology.desc", len(places)) + (" " + say(lang, "rests", told) if told else "")
    high = 90.0 if len(places) == 2 else 320.0
    svg = Svg("topology", say(lang, "topology"), desc, 640, 0)
    for _, e, _ in found:
        hint = e.kind if e.bad in ("", e.kind) else f"{e.kind}: {e.bad}"
        svg.line(*e.a, *e.b, e.style, hint)
    for _, e, _ in found:
        if e.bad or len(places) <= 4:
            share = 0.5 if len(places) == 2 else 0.6  # not in the middle, where links cross
            x, y = (p * share + q * (1 - share) for p, q in zip(e.a, e.b, strict=True))
            text = e.kind if e.bad in ("", e.kind) else f"{e.kind}, {say(lang, 'used', e.bad)}"
            svg.text(x, y - 10, text, "bad halo" if e.bad else "halo", "middle")
    for gpu, (x, y) in places.items():
        svg.add("rect", class_="node", x=x - 32, y=y - 15, width=64, height=30, rx=5)
        svg.text(x, y + 5, f"GPU {gpu}", "", "middle")
    svg.height = _legend(svg, [s for s in ("badedge", "nvlink", "pcie", "far") if s in styles], high, lang)
    rows = [(f"GPU {a}", f"GPU {b}", e.kind, (say(lang, "cited") if e.bad == e.kind else e.bad) if e.bad else "", i)
            for (a, b), e, i in found]  # fmt: skip
    return Drawing(svg, tuple(say(lang, k) for k in ("from", "to", "link", "finding", "evidence")), rows)


def _legend(svg: Svg, styles: Iterable[str], y: float, lang: str) -> float:
    x = 8.0
    for style in styles:
        size = 44 + wide(say(lang, style)) + 16
        if x > 8 and x + size > svg.width:
            x, y = 8.0, y + 22
        svg.line(x, y - 4, x + 34, y - 4, style)
        svg.text(x + 42, y, say(lang, style))
        x += size
    return y + 12


def _circle(gpus: Iterable[int]) -> dict[int, tuple[float, float]]:
    names = list(gpus)
    if len(names) == 2:
        return {names[0]: (60.0, 45.0), names[1]: (580.0, 45.0)}
    out = {}
    for i, gpu in enumerate(names):
        turn = 2 * math.pi * i / len(names) - math.pi / 2
        out[gpu] = (round(320 + 200 * math.cos(turn), 1), round(150 + 118 * math.sin(turn), 1))
    return out


def drawings(report: Report, lang: str = "en") -> list[Drawing]:
    """Everything that the evidence allows, in the order of a page."""
    singles: tuple[Callable[[Report, str], Drawing | None], ...] = (_request, bandwidth, latency)
    made = [*stages(report, lang), *(d for f in singles if (d := f(report, lang))), *trace(report, lang)]
    end = topology(report, lang)
    return [*made, *([end] if end else []), *paths(report, lang)]
