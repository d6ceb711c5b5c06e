"""Comparisons: the same metric under two or more settings, as derived facts.

Every layout (tables, lists, headed blocks, prose) ends as `Group`s; what is said about a group
depends only on its metric, its settings and its figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from diagnose.axes import OTHER, amount, classify, common
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .generic_figures import Metric, statistic
from .generic_readings import SAME, Group, Reading, pair_facts, ratio, spans_of, tidy, worse_first
from .generic_spread import spread

KNEE = 1.8
NOISE = 0.01  # of a step, below which parts of it are alike however far apart their quotient is
EVEN = 1.05
MAX_MEMBERS = 24
_LOGGED_AT = regex(r"\[\w+\.py:\d+\]")
SUBJECT_AXES = ("gpu", "rank", "nic", "node", "request", "time")


def facts(groups: Iterable[Group]) -> list[Fact]:
    """Facts of all groups; of equal axis, metric and pair of settings only the widest is kept."""
    out: dict[tuple[str, str, str], Fact] = {}
    groups = [g for g in groups if not _logged_apart(g)]
    whole = _whole(groups)
    for group in groups:
        for fact in of_group(group):
            if _within_noise(fact, whole):
                continue
            label = fact.subject.label or ""
            axis, metric, *settings = (*label.split("|"), "")
            pair = "|".join(sorted(settings)) if fact.signal == "compare.ratio" else ""
            key = (fact.signal, f"{axis}|{metric}", pair)
            rival = out.get(key)
            if rival is None or float(fact.value or 0) > float(rival.value or 0):
                out[key] = fact
    return list(out.values())


def _logged_apart(group: Group) -> bool:
    """Lines that different places of one program logged: what each took is no setting of the others."""
    marks = [hit[0] for m in group.members if (hit := _LOGGED_AT.search(m.span.quote or "")) is not None]
    return len(marks) == len(group.members) > 1 and len(set(marks)) == len(marks)


def _whole(groups: Sequence[Group]) -> dict[tuple[str, str], float]:
    """The largest time of each row, by setting and printed unit: what its other times are parts of."""
    out: dict[tuple[str, str], float] = {}
    for group in groups:
        for member in group.members:
            if member.kind == "s":
                key = tidy(member.setting), member.figure.unit or ""
                out[key] = max(member.figure.value, out.get(key, 0.0))
    return out


def _within_noise(fact: Fact, whole: Mapping[tuple[str, str], float]) -> bool:
    """Ranks or GPUs whose times differ by next to nothing of the time that stands in the same rows."""
    axis = (fact.subject.label or "").split("|")[0]
    if fact.signal not in ("spread.outlier", "compare.ratio") or axis not in SUBJECT_AXES[:4] or len(fact.inputs) != 2:
        return False
    one, other = fact.inputs
    tops = [whole.get(((i.subject.label or "").partition("|")[2], i.unit or ""), 0.0) for i in fact.inputs]
    apart = abs(float(one.value or 0) - float(other.value or 0))
    even = one.unit == other.unit and max(tops) <= EVEN * min(tops)
    return even and apart < NOISE * min(tops) and float(fact.value or 0) > SAME


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


_GPUS = regex(
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


def ratio_facts(axis: str, group: Group, a: Reading, b: Reading) -> Iterator[Fact]:
    """What a pair says; for GPUs also how well they scale."""
    yield from pair_facts(axis, group, a, b)
    if axis == "ngpus" and group.metric.better:
        yield from _scaled(group, a, b)


def _scaled(group: Group, a: Reading, b: Reading) -> Iterator[Fact]:
    few, many = sorted((a, b), key=lambda r: gpus_of(r.setting) or 0)
    counts = gpus_of(few.setting), gpus_of(many.setting)
    if counts[0] and counts[1]:
        yield from scaling(group, counts[0], few, counts[1], many)


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
        yield ratio("compare.knee", name, group, *worse_first(group.metric, jump[1], jump[2]))
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
    if group.metric.better == "higher" and "_per_gpu" not in group.metric.name:
        value, formula, inputs = (
            more.level / one.level * few / many,
            f"a / b * {few:g} / {many:g}",
            (more.fact, one.fact),
        )
    elif group.metric.better == "higher":
        value, formula, inputs = more.level / one.level, "a / b", (more.fact, one.fact)
    else:
        value, formula, inputs = one.level / more.level, "a / b", (one.fact, more.fact)
    if (one.figure.unit or "") == (more.figure.unit or ""):
        yield Fact(
            "compare.scaling", value, "fraction", Subject(label=label), spans_of(one, more),
            f"efficiency per GPU, {tidy(more.setting)} beside {tidy(one.setting)}", kind="derived", formula=formula,
            inputs=inputs, status=one.status,
        )  # fmt: skip
