"""Pictures of a GPU trace (Kineto, Nsight Systems): where the time went by rank, by step, and one step on its clock."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..models import Evidence, Report
from .plot import Bar, Lane, Part, bars, figure, lanes
from .svg import Drawing
from .words import say

KINDS = ("compute", "comm", "copy", "launch", "sync", "input", "host", "device")
IDLE = KINDS[3:]
MOST_RANKS, MOST_ROWS = 16, 24
_PAIR = re.compile(r"(\w+) ([\d.e+-]+)")
_TIMES = re.compile(r"([\d.]+(?:e-?\d+)?)-([\d.]+(?:e-?\d+)?)")
_Who = tuple[str, int, int]


def _who(item: Evidence) -> _Who:
    """The trace, its rank, its GPU: what keeps two timelines apart."""
    name = item.capture.name if item.capture else ""
    return name, -1 if item.subject.rank is None else item.subject.rank, item.subject.gpu or 0


def _called(who: _Who, all_: list[_Who], lang: str) -> str:
    name, rank, gpu = who
    said = say(lang, "gpu", gpu) if rank < 0 else say(lang, "rank", rank)
    twins = [w for w in all_ if (w[1] < 0, w[1] if w[1] >= 0 else w[2]) == (rank < 0, rank if rank >= 0 else gpu)]
    return f"{said}, {name.rpartition('/')[2]}" if len(twins) > 1 else said


def trace(report: Report, lang: str = "en") -> list[Drawing]:
    """What the traces of a report allow."""
    steps = _steps(report)
    found = (_idle(report, lang), _by_step(steps, lang), *_clocks(report, steps, lang))
    return [d for d in found if d is not None]


def _share(item: Evidence | None) -> float:
    return float(item.value) * 100 if item is not None and isinstance(item.value, int | float) else 0.0


def _idle(report: Report, lang: str) -> Drawing | None:
    """A bar for each GPU or rank: busy by what it did, idle by its reason."""
    shares: dict[_Who, dict[str, Evidence]] = {}
    for item in report.evidence:
        if item.signal.startswith("trace.") and item.subject.label is None:
            shares.setdefault(_who(item), {})[item.signal.removeprefix("trace.").removeprefix("idle.")] = item
    whole = sorted((w for w, s in shares.items() if "gpu_busy" in s and set(IDLE) <= set(s)), key=lambda w: w[1:])
    whole = whole[:MOST_RANKS]
    if not whole:
        return None
    rows, table = [], []
    for who in whole:
        mine, name = shares[who], _called(who, whole, lang)
        alone = {"comm": _share(mine.get("comm_exposed")), "copy": _share(mine.get("copy_exposed"))}
        values = {"compute": max(0.0, _share(mine["gpu_busy"]) - sum(alone.values()))} | alone
        values |= {k: _share(mine[k]) for k in IDLE}
        hints = {k: say(lang, f"kind.{k}") + f" {figure(v)} %" for k, v in values.items() if k != "compute"}
        parts = tuple(Part(n, values[k], hints.get(k, say(lang, "kind.compute"))) for n, k in enumerate(KINDS))
        rows.append(Bar(name, parts, say(lang, "busy", figure(_share(mine["gpu_busy"])))))
        cited = {"comm": mine.get("comm_exposed"), "copy": mine.get("copy_exposed")} | {k: mine[k] for k in IDLE}
        table += [(name, say(lang, f"kind.{k}"), f"{figure(values[k])} %", e.id)
                  for k, e in cited.items() if e is not None and values[k] > 0]  # fmt: skip
    names = [say(lang, f"kind.{k}") for k in KINDS]
    svg = bars("gpu-time", say(lang, "idle"), say(lang, "idle.desc", len(whole)), say(lang, "idle.axis"), names, rows,
               100.0)  # fmt: skip
    head = ("", say(lang, "stage"), say(lang, "share"), say(lang, "evidence"))
    return Drawing(svg, head, table)


def _steps(report: Report) -> dict[_Who, list[tuple[str, dict[str, float], Evidence]]]:
    out: dict[_Who, list[tuple[str, dict[str, float], Evidence]]] = {}
    for item in report.evidence:
        if item.signal == "trace.step_parts" and item.subject.label:
            parts = {k: float(v) for k, v in _PAIR.findall(str(item.value))}
            if {"span", "busy", *IDLE} <= set(parts):
                out.setdefault(_who(item), []).append((item.subject.label, parts, item))
    for mine in out.values():
        mine.sort(key=lambda s: (len(s[0]), s[0]))
    return dict(sorted(out.items(), key=lambda kv: kv[0][1:]))


def _parts(parts: dict[str, float], lang: str) -> Iterator[Part]:
    alone = {"comm": parts.get("comm_exposed", 0.0), "copy": parts.get("copy_exposed", 0.0)}
    for n, kind in enumerate(KINDS):
        if kind == "compute":
            yield Part(n, max(0.0, parts["busy"] - sum(alone.values())), say(lang, "kind.compute"))
        else:
            value = alone[kind] if kind in alone else parts[kind]
            yield Part(n, value, f"{say(lang, f'kind.{kind}')} {figure(value)} ms")


def _by_step(steps: dict[_Who, list[tuple[str, dict[str, float], Evidence]]], lang: str) -> Drawing | None:
    """A bar for each step of each rank."""
    rows, table = [], []
    all_ = list(steps)
    each = max(2, MOST_ROWS // max(len(all_), 1))
    for who, mine in list(steps.items())[:MOST_RANKS]:
        called = f"{_called(who, all_, lang)}, " if len(all_) > 1 else ""
        for label, parts, item in [s for s in mine if s[0].isdigit()][:each]:
            name = called + say(lang, "step", label)
            rows.append(Bar(name, tuple(_parts(parts, lang)), f"{figure(parts['span'])} ms"))
            table.append((name, f"{figure(parts['span'])} ms", f"{figure(parts['busy'])} ms", item.id))
    if len(rows) < 2:
        return None
    names = [say(lang, f"kind.{k}") for k in KINDS]
    svg = bars("steps", say(lang, "steps"), say(lang, "steps.desc", len(rows)), say(lang, "steps.axis"), names, rows)
    return Drawing(svg, ("", say(lang, "time"), say(lang, "busy.word"), say(lang, "evidence")), table)


def _clocks(
    report: Report, steps: dict[_Who, list[tuple[str, dict[str, float], Evidence]]], lang: str
) -> Iterator[Drawing]:
    """The typical step of each rank as lanes; of many ranks the one that communicated longest and the one least."""
    found: dict[_Who, dict[str, tuple[str, Evidence]]] = {}
    for item in report.evidence:
        if item.signal == "trace.lane" and item.subject.label:
            step, _, lane = item.subject.label.partition(": ")
            found.setdefault(_who(item), {})[lane] = (step, item)
    chosen = [w for w in steps if w in found]
    if len(chosen) > 2:
        ranked = sorted(chosen, key=lambda w: sum(p.get("comm", 0.0) for _, p, _ in steps[w]))
        chosen = [ranked[0], ranked[-1]]
    for number, who in enumerate(chosen):
        mine = found[who]
        label = next(iter(mine.values()))[0]
        parts = next((p for name, p, _ in steps[who] if name == label), None)
        if parts is None or parts["span"] <= 0:
            continue
        rows, table = [], []
        totals = {"compute": "compute", "comm": "comm", "exposed": "comm_exposed", "copy": "copy"}
        for kind, (lane, total) in enumerate(totals.items()):
            if lane in mine and parts.get(total):
                times = tuple((float(a), float(b)) for a, b in _TIMES.findall(str(mine[lane][1].value)))
                after = f"{figure(parts[total])} ms"
                rows.append(Lane(say(lang, f"lane.{lane}"), (0, 1, 1, 2)[kind], times, after))
                table.append((say(lang, f"lane.{lane}"), after, mine[lane][1].id))
        rows.append(_rest(mine, parts, lang))
        where = label if label.isdigit() else ""
        title = say(lang, "lanes" if where else "lanes.window")
        named = [_called(who, list(steps), lang)] if len(steps) > 1 or who[1] >= 0 else []
        named += [say(lang, "step", where)] if where else []
        svg = lanes(f"timeline-{number}", ": ".join([title, ", ".join(named)] if named else [title]),
                    say(lang, "lanes.desc", figure(parts["span"])), say(lang, "lanes.axis"), rows,
                    parts["span"])  # fmt: skip
        yield Drawing(svg, ("", say(lang, "time"), say(lang, "evidence")), table)


def _rest(mine: dict[str, tuple[str, Evidence]], parts: dict[str, float], lang: str) -> Lane:
    """When nothing ran: what the lanes leave; its name says the main reason."""
    busy = sorted((float(a), float(b)) for _, e in mine.values() for a, b in _TIMES.findall(str(e.value)))
    free, at = [], 0.0
    for a, b in [*busy, (parts["span"], parts["span"])]:
        if a - at > parts["span"] / 600:
            free.append((at, a))
        at = max(at, b)
    worst = max(IDLE, key=lambda k: parts[k])
    after = f"{figure(parts['idle'])} ms" if "idle" in parts else ""
    return Lane(say(lang, "lane.idle"), KINDS.index(worst), tuple(free), after)
