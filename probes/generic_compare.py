"""Comparisons: the same metric under two or more settings, as derived facts.

Every layout (tables, lists, headed blocks, prose) ends as `Group`s; what is said about a group
depends only on its metric, its settings and its figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from statistics import median

from diagnose.probes.generic_figures import Figure, Metric, statistic

from diagnose.axes import OTHER, amount, classify, common
from diagnose.document import Document, Line, Span
from diagnose.models import Fact, Subject

SAME = 1.10
KNEE = 1.8
MAX_MEMBERS = 24
SUBJECT_AXES = ("gpu", "rank", "nic", "node", "request", "time")
# Units of one kind and the factor to the first of them, so that 790 ms and 1.3 s compare.
_KIND = {
    "s": ("s", 1.0), "ms": ("s", 1e-3), "us": ("s", 1e-6), "GB/s": ("GB/s", 1.0), "Gb/s": ("GB/s", 0.125),
    "B": ("B", 1.0), "GiB": ("B", 1024.0**3),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A figure with its place, what it measures, and the setting it was taken under."""

    figure: Figure
    metric: Metric
    setting: str
    span: Span
    status: tuple[str, ...] = ("provided",)

    @cached_property
    def fact(self) -> Fact:
        """The figure as a fact."""
        label = f"{self.metric.name}|{tidy(self.setting)}" if self.setting else self.metric.name
        unit = self.figure.unit or "count"
        said = f"{self.metric.name}{f' ({tidy(self.setting)})' if self.setting else ''}: {self.figure.text}"
        return Fact(
            "figure", self.figure.value, unit, Subject(label=label), (self.span,),
            f"{said} {self.figure.raw}".strip(), status=self.status,
        )  # fmt: skip

    @property
    def kind(self) -> str:
        """Kind of unit; only readings of one kind compare."""
        unit = self.figure.unit or "count"
        return _KIND.get(unit, (unit, 1.0))[0]

    @property
    def level(self) -> float:
        """Value in the unit of its kind."""
        return self.figure.value * _KIND.get(self.figure.unit or "count", ("", 1.0))[1]


@dataclass
class Group:
    """One metric under several settings, in the order of the text.

    Attributes:
        over: what the settings are called, where the text says so.
        context: what else was fixed (the row of a table), for the statement only.
        firm: the text itself sets the settings side by side (table, headed blocks); an unknown axis still counts.
    """

    metric: Metric
    members: list[Reading] = field(default_factory=list)
    over: str = ""
    context: str = ""
    firm: bool = False


def tidy(text: str, limit: int = 48) -> str:
    """A setting as it stands in a label."""
    return " ".join(text.replace("|", "/").split()).strip(" :;,#=>*`\"'")[:limit]


def reading(doc: Document, line: Line, figure: Figure, metric: Metric, setting: str) -> Reading:
    """A reading that quotes its line."""
    return Reading(figure, metric, " ".join(setting.split())[:160], doc.span(line, figure.text), doc.status)


def facts(groups: Iterable[Group]) -> list[Fact]:
    """Facts of all groups; of equal axis, metric and pair of settings only the widest is kept."""
    out: dict[tuple[str, str, str], Fact] = {}
    for group in groups:
        for fact in of_group(group):
            label = fact.subject.label or ""
            axis, metric, *settings = (*label.split("|"), "")
            pair = "|".join(sorted(settings)) if fact.signal == "compare.ratio" else ""
            key = (fact.signal, f"{axis}|{metric}", pair)
            rival = out.get(key)
            if rival is None or float(fact.value or 0) > float(rival.value or 0):
                out[key] = fact
    return list(out.values())


def of_group(group: Group) -> Iterator[Fact]:
    """What one group says."""
    members = _distinct(group)[:MAX_MEMBERS]
    if len(members) < 2 or len({m.kind for m in members}) > 1:
        return
    shared, rest = common([m.setting for m in members])
    over = group.over or shared
    steps = [amount(r or m.setting) for r, m in zip(rest, members, strict=True)]
    if len(members) >= 3 and all(s is not None for s in steps):
        yield from _sweep(group, members, [s for s in steps if s is not None], over)
        return
    named = classify(members[0].setting, members[1].setting, over)
    if len(members) >= 3 and named and named[0] in SUBJECT_AXES:
        yield from spread(group, members, named[0])
        if named[0] in ("request", "time"):
            return
    yield from _pairs(group, members, over)


def _distinct(group: Group) -> list[Reading]:
    """One reading a setting: of repeats the median one."""
    by: dict[str, list[Reading]] = {}
    for member in group.members:
        by.setdefault(member.setting.lower(), []).append(member)
    return [sorted(same, key=lambda r: r.level)[(len(same) - 1) // 2] for same in by.values()]


def _pairs(group: Group, members: Sequence[Reading], over: str) -> Iterator[Fact]:
    """Per axis the clearest pair: fewest axes apart, then widest."""
    best: dict[str, tuple[tuple[int, float], Reading, Reading]] = {}
    for a, b in _couples(members):
        if a.level <= 0 or b.level <= 0 or _only_statistics(a.setting, b.setting):
            continue
        axes = classify(a.setting, b.setting, over)
        ratio = max(a.level, b.level) / min(a.level, b.level)
        for axis in axes:
            if _natural(axis, group.metric, a, b):
                continue
            if axis == OTHER and not (group.firm and group.metric.known and ratio >= 1.2):
                continue
            if ratio < 1.02 and not group.metric.better:
                continue
            apart = common([a.setting, b.setting])[1]
            rank = (-sum(len(r.split()) for r in apart), ratio)
            if axis not in best or rank > best[axis][0]:
                best[axis] = (rank, a, b)
    for axis, (_, a, b) in best.items():
        yield from ratio_facts(axis, group, a, b)
    if "ngpus" not in best and group.metric.better == "higher":
        for a, b in combinations(members[:4], 2):
            if "ngpus" in classify(a.setting, b.setting, over):
                yield from _scaled(group, a, b)


def _couples(members: Sequence[Reading]) -> Iterator[tuple[Reading, Reading]]:
    """All pairs of a few; of many, those with the first and with the extremes."""
    if len(members) <= 8:
        yield from combinations(members, 2)
        return
    ends = {0, *(members.index(pick(members, key=lambda m: m.level)) for pick in (min, max))}
    for i in sorted(ends):
        yield from ((members[i], m) for k, m in enumerate(members) if k != i)


def _natural(axis: str, metric: Metric, a: Reading, b: Reading) -> bool:
    """More users, a larger batch or more GPUs give more in total: no reading for or against anything."""
    if axis not in ("concurrency", "batch", "ngpus") or metric.better != "higher":
        return False
    rest = common([a.setting, b.setting])[1]
    sizes = [
        gpus_of(m.setting) if axis == "ngpus" else amount(r or m.setting) for r, m in zip(rest, (a, b), strict=True)
    ]
    if sizes[0] is None or sizes[1] is None:
        return False
    return (sizes[0] < sizes[1]) == (a.level < b.level)


def _only_statistics(a: str, b: str) -> bool:
    """Median beside P99 of one run are no two settings."""
    rest = common([a, b])[1]
    return all(statistic(r) and len(r.split()) <= 2 for r in rest)


_GPUS = re.compile(
    r"(?P<n>\d{1,5})\s*(?:[x×](?![a-z0-9])|:|-?\s?(?:gpus?|cards?|nodes?|ranks?|卡|机|个))|(?P<one>\b(?:single"
    r"|one)\b|单)|(?P<two>\b(?:two|dual|both)\b|双)",
    re.IGNORECASE,
)


def gpus_of(setting: str) -> int | None:
    """``2x H100`` -> 2, ``single GPU`` -> 1, ``8`` -> 8."""
    step = amount(setting)
    if step is not None:
        return int(step)
    hit = _GPUS.search(setting)
    if hit is None:
        return None
    return int(hit.group("n")) if hit.group("n") else 1 if hit.group("one") else 2


def worse_first(metric: Metric, a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """``(worse, better)``; where the direction is unknown the larger reading counts as worse."""
    return (a, b) if (a.level >= b.level) != (metric.better == "higher") else (b, a)


def ratio_facts(axis: str, group: Group, a: Reading, b: Reading) -> Iterator[Fact]:
    """`compare.ratio`, and `compare.same` where nothing changes."""
    worse, better = worse_first(group.metric, a, b)
    fact = _ratio("compare.ratio", axis, group, worse, better)
    yield fact
    if float(fact.value or 0) <= SAME:
        yield replace(fact, signal="compare.same")
    if axis == "ngpus" and group.metric.better:
        yield from _scaled(group, a, b)


def _scaled(group: Group, a: Reading, b: Reading) -> Iterator[Fact]:
    few, many = sorted((a, b), key=lambda r: gpus_of(r.setting) or 0)
    counts = gpus_of(few.setting), gpus_of(many.setting)
    if counts[0] and counts[1]:
        yield from scaling(group, counts[0], few, counts[1], many)


def _ratio(signal: str, axis: str, group: Group, worse: Reading, better: Reading) -> Fact:
    top, bottom = (worse, better) if worse.level >= better.level else (better, worse)
    factor = top.level / top.figure.value / (bottom.level / bottom.figure.value)
    formula = "a / b" if abs(factor - 1) < 1e-9 else f"a * {factor:.12g} / b"
    value = top.level / bottom.level
    label = f"{axis}|{group.metric.name}|{tidy(worse.setting) or 'unnamed'}|{tidy(better.setting) or 'unnamed'}"
    where = f" at {tidy(group.context)}" if group.context else ""
    said = (
        f"{group.metric.name}{where}: {worse.figure.text} {worse.figure.raw} with '{tidy(worse.setting)}' beside "
        f"{better.figure.text} {better.figure.raw} with '{tidy(better.setting)}'"
    )
    return Fact(
        signal, value, "count", Subject(label=label), _spans(top, bottom), " ".join(said.split()), kind="derived",
        formula=formula, inputs=(top.fact, bottom.fact), status=worse.status,
    )  # fmt: skip


def _spans(*readings: Reading) -> tuple[Span, ...]:
    return tuple(dict.fromkeys(r.span for r in readings))


def _sweep(group: Group, members: Sequence[Reading], steps: Sequence[float], over: str) -> Iterator[Fact]:
    """Settings that are numbers: extremes, knees, insensitivity, scaling; lists of alike subjects as spreads."""
    axis = classify(members[0].setting, members[1].setting, over)[:1] or (OTHER,)
    name = axis[0]
    if name in SUBJECT_AXES:
        yield from spread(group, members, name)
        return
    if name == OTHER and not (group.firm and group.metric.known):
        return
    good = [(s, m) for s, m in sorted(zip(steps, members, strict=True), key=lambda p: p[0]) if m.level > 0]
    if len(good) < 2:
        return
    low, high = min(good, key=lambda p: p[1].level)[1], max(good, key=lambda p: p[1].level)[1]
    natural = _natural(name, group.metric, low, high) and high.level > SAME * low.level
    for fact in [] if natural else ratio_facts(name, group, low, high):
        if fact.signal == "compare.ratio":
            yield fact
        elif fact.signal == "compare.same":
            label = f"{name}|{group.metric.name}|{tidy(good[0][1].setting)}|{tidy(good[-1][1].setting)}"
            yield replace(fact, signal="compare.flat", subject=Subject(label=label))
    jump = max(
        ((_jump(group.metric, x, y), x[1], y[1]) for x, y in pairwise(good)),
        key=lambda j: j[0],
    )
    if jump[0] >= KNEE and len(good) >= 3:
        yield _ratio("compare.knee", name, group, *worse_first(group.metric, jump[1], jump[2]))
    if name == "ngpus" and group.metric.better:
        yield from scaling(group, good[0][0], good[0][1], good[-1][0], good[-1][1])


def _jump(metric: Metric, x: tuple[float, Reading], y: tuple[float, Reading]) -> float:
    """How much worse the next setting is than its size explains."""
    (sx, rx), (sy, ry) = x, y
    if metric.better == "higher":
        return rx.level / ry.level
    grown = max(sy / sx, 1.0) if sx > 0 else 1.0
    return ry.level / rx.level / grown


def scaling(group: Group, few: float, one: Reading, many: float, more: Reading) -> Iterator[Fact]:
    """Per-GPU efficiency of `many` beside `few`: throughput per GPU, or steps of the same size per GPU."""
    if few <= 0 or many <= few or not group.metric.name.startswith(("throughput", "iterations", "step_time", "flops")):
        return
    label = f"ngpus|{group.metric.name}|{tidy(more.setting)}|{tidy(one.setting)}"
    if group.metric.better == "higher":
        value, formula, inputs = (
            more.level / one.level * few / many,
            f"a / b * {few:g} / {many:g}",
            (more.fact, one.fact),
        )
    else:
        value, formula, inputs = one.level / more.level, "a / b", (one.fact, more.fact)
    if (one.figure.unit or "") == (more.figure.unit or ""):
        yield Fact(
            "compare.scaling", value, "fraction", Subject(label=label), _spans(one, more),
            f"efficiency per GPU, {tidy(more.setting)} beside {tidy(one.setting)}", kind="derived", formula=formula,
            inputs=inputs, status=one.status,
        )  # fmt: skip


def _subject(axis: str, label: str, setting: str) -> Subject:
    step = amount(common([setting, f"{axis} x"])[1][0] or setting)
    digits = "".join(c for c in setting if c.isdigit())
    index = int(step) if step is not None else int(digits) if 0 < len(digits) <= 4 else None
    return Subject(
        label=label, gpu=index if axis == "gpu" else None, rank=index if axis == "rank" else None,
        host=tidy(setting) if axis == "node" else None,
    )  # fmt: skip


def spread(group: Group, members: Sequence[Reading], axis: str) -> Iterator[Fact]:
    """Several alike: who differs, or that none does; for ordered lists growth, first outlier, period."""
    good = [m for m in members if m.level > 0]
    if len(good) < 3:
        return
    levels = [m.level for m in good]
    low, high = good[levels.index(min(levels))], good[levels.index(max(levels))]
    name = f"{axis}|{group.metric.name}"
    if axis in ("request", "time"):
        yield from trends(name, good)
        if len(good) <= 4:
            yield from ratio_facts(axis, group, low, high)
    else:
        middle = median(levels)
        center = min(good, key=lambda m: abs(m.level - middle))
        for member in sorted(good, key=lambda m: -max(m.level / middle, middle / m.level))[:2]:
            off = max(member.level / center.level, center.level / member.level)
            if off >= 1.25 and sum(1 for v in levels if max(v / middle, middle / v) >= 1.25) <= max(1, len(good) // 3):
                top, bottom = (member, center) if member.level > center.level else (center, member)
                yield Fact(
                    "spread.outlier", off, "count", _subject(axis, f"{name}|{tidy(member.setting)}", member.setting),
                    _spans(member, center), f"{tidy(member.setting)}: {group.metric.name} {member.figure.text} "
                    f"{member.figure.raw}, median {center.figure.text}", kind="derived", formula=_over(top, bottom),
                    inputs=(top.fact, bottom.fact), status=member.status,
                )  # fmt: skip
        yield from ratio_facts(axis, group, low, high)
    if len(good) >= 4 and high.level / low.level <= 1.15:
        yield Fact(
            "spread.even", high.level / low.level, "count", Subject(label=name), _spans(high, low),
            f"{group.metric.name} is about the same for all {axis}s", kind="derived", formula=_over(high, low),
            inputs=(high.fact, low.fact), status=low.status,
        )  # fmt: skip


def _over(top: Reading, bottom: Reading) -> str:
    factor = top.level / top.figure.value / (bottom.level / bottom.figure.value)
    return "a / b" if abs(factor - 1) < 1e-9 else f"a * {factor:.12g} / b"


def _shift(levels: Sequence[float], i: int) -> float:
    """Ratio of the levels before and after `i`, 0 where either side is uneven."""
    before, after = levels[:i], levels[i:]
    if max(before) > 1.25 * min(before) or max(after) > 1.25 * min(after):
        return 0.0
    a, b = median(before), median(after)
    return max(a / b, b / a)


def trends(name: str, items: Sequence[Reading]) -> Iterator[Fact]:
    """An ordered list: steady growth, only the first apart, outliers that come back with a period."""
    levels = [m.level for m in items]
    if len(items) < 4 or min(levels) <= 0:
        return

    def fact(signal: str, top: Reading, bottom: Reading, said: str) -> Fact:
        return Fact(
            signal, top.level / bottom.level, "count", Subject(label=name), _spans(top, bottom), said, kind="derived",
            formula=_over(top, bottom), inputs=(top.fact, bottom.fact), status=top.status,
        )  # fmt: skip

    rises = sum(1 for a, b in pairwise(levels) if b >= 0.98 * a)
    if levels[-1] >= 1.8 * levels[0] and rises >= 0.85 * (len(levels) - 1) and max(levels) <= 1.1 * levels[-1]:
        yield fact("trend.growth", items[-1], items[0], "grows along the list, last over first")
    later = median(levels[1:])
    near = min(items[1:], key=lambda m: abs(m.level - later))
    if levels[0] >= 2 * later and max(levels[1:]) <= 1.6 * later:
        first = fact("trend.first_outlier", items[0], near, "only the first differs, first over median of the rest")
        yield first
        metric = name.partition("|")[2]
        yield replace(first, signal="compare.ratio", subject=Subject(label=f"cold_warm|{metric}|first|later"))
    cut = max(range(2, len(levels) - 1), key=lambda i: _shift(levels, i))
    if len(levels) >= 5 and _shift(levels, cut) >= 1.4:
        ends = [
            min(half, key=lambda m: abs(m.level - median(x.level for x in half))) for half in (items[:cut], items[cut:])
        ]
        top, bottom = sorted(ends, key=lambda m: -m.level)
        yield fact("trend.step", top, bottom, f"changes its level after {cut} readings and stays there")
    middle = median(levels)
    peaks = [i for i, v in enumerate(levels) if v > 2 * middle]
    gaps = {b - a for a, b in pairwise(peaks)}
    if len(peaks) >= 3 and len(gaps) == 1 and (gap := gaps.pop()) >= 2:
        yield Fact(
            "trend.period", gap, "count", Subject(label=name), _spans(*(items[i] for i in peaks[:3])),
            "outliers come back with a fixed period", kind="derived", formula="reader:period",
            inputs=tuple(items[i].fact for i in peaks[:3]), status=items[0].status,
        )  # fmt: skip
