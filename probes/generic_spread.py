"""Several alike (ranks, GPUs, hosts) and ordered lists (requests, steps): who differs, and how it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from diagnose.axes import amount, common
from diagnose.models import Fact, Subject

from .generic_readings import Group, Reading, pair_facts, quotient, spans_of, tidy


def _called(axis: str, setting: str) -> str:
    """One of many as one says it: ``rank 2``, where a table says ``2``."""
    name = tidy(setting)
    return f"{axis} {name}" if name.isdigit() else name


def _subject(axis: str, label: str, setting: str) -> Subject:
    step = amount(common([setting, f"{axis} x"])[1][0] or setting)
    digits = "".join(c for c in setting if c.isdecimal())
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
            yield from pair_facts(axis, group, low, high)
    else:
        middle = median(levels)
        center = min(good, key=lambda m: abs(m.level - middle))
        for member in sorted(good, key=lambda m: -max(m.level / middle, middle / m.level))[:2]:
            off = max(member.level / center.level, center.level / member.level)
            if off >= 1.25 and sum(1 for v in levels if max(v / middle, middle / v) >= 1.25) <= max(1, len(good) // 3):
                top, bottom = (member, center) if member.level > center.level else (center, member)
                said = f"{_called(axis, member.setting)}: {group.metric.name} {member.figure.text} {member.figure.raw}"
                yield Fact(
                    "spread.outlier", off, "count", _subject(axis, f"{name}|{tidy(member.setting)}", member.setting),
                    spans_of(member, center), f"{said}, median {center.figure.text}", kind="derived",
                    formula=quotient(top, bottom), inputs=(top.fact, bottom.fact), status=member.status,
                )  # fmt: skip
        yield from pair_facts(axis, group, low, high)
    if len(good) >= 4 and high.level / low.level <= 1.15:
        yield Fact(
            "spread.even", high.level / low.level, "count", Subject(label=name), spans_of(high, low),
            f"{group.metric.name} is about the same for all {axis}s", kind="derived", formula=quotient(high, low),
            inputs=(high.fact, low.fact), status=low.status,
        )  # fmt: skip


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
            signal, top.level / bottom.level, "count", Subject(label=name), spans_of(top, bottom), said, kind="derived",
            formula=quotient(top, bottom), inputs=(top.fact, bottom.fact), status=top.status,
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
            "trend.period", gap, "count", Subject(label=name), spans_of(*(items[i] for i in peaks[:3])),
            "outliers come back with a fixed period", kind="derived", formula="reader:period",
            inputs=tuple(items[i].fact for i in peaks[:3]), status=items[0].status,
        )  # fmt: skip
