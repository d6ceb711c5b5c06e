"""Lines over an axis, and stacked bars: scaled, with marks of the axes, a legend that fits, and no overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import FONT, Svg, wide, wrap

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, FOOT = 60, 20, 48
ROW, BAR = 30, 20


@dataclass(frozen=True)
class Point:
    """A reading; `crossed` is one that its maker takes back."""

    x: float
    y: float
    hint: str
    crossed: bool = False


@dataclass(frozen=True)
class Ceiling:
    """The most that can be, with its label; `usual` is where healthy runs begin, where that is published."""

    value: float
    label: str
    usual: float | None = None
    usual_label: str = ""


@dataclass(frozen=True)
class Axes:
    """What the axes are called, and where the horizontal one has its marks."""

    x: str
    y: str
    x_ticks: tuple[tuple[float, str], ...] = ()


def figure(value: float) -> str:
    """A figure as it is read: four digits, never an exponent where one can do without."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def ticks(top: float, about: int = 5) -> list[float]:
    """Round values from 0 to at least `top`."""
    raw = max(top, 1e-9) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def lines(
    name: str, title: str, desc: str, axes: Axes, series: dict[str, list[Point]],
    ceiling: Ceiling | None = None, note: str = "",
) -> Svg:  # fmt: skip
    """Series as lines, told apart by dashes and by the shape of their points as well as by colour."""
    svg = Svg(name, title, desc, WIDTH, HEIGHT)
    top = _names(svg, list(series), note) + 12
    svg.text(8, top, axes.y, "soft")
    top += 12
    points = [p for line in series.values() for p in line]
    low, high = min(p.x for p in points), max(p.x for p in points)
    marks = ticks(max([p.y for p in points] + ([ceiling.value] if ceiling else [])))
    foot = HEIGHT - FOOT

    def at_x(x: float) -> float:
        return LEFT + 8 + (x - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT - 16)

    def at_y(y: float) -> float:
        return foot - y / marks[-1] * (foot - top)

    for y in marks:
        svg.line(LEFT, at_y(y), WIDTH - RIGHT, at_y(y), "axis" if y == 0 else "grid")
        svg.text(LEFT - 6, at_y(y) + 4, figure(y), "tick", "end")
    _x_axis(svg, [(at_x(x), text) for x, text in axes.x_ticks if low <= x <= high], foot)
    svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, axes.x, "soft", "middle")
    if ceiling:
        high_y, width = at_y(ceiling.value), WIDTH - LEFT - RIGHT
        svg.add("rect", class_="beyond", x=LEFT, y=top - 6, width=width, height=max(high_y - top + 6, 1))
        if ceiling.usual is not None:
            svg.add("rect", class_="usual", x=LEFT, y=high_y, width=width, height=at_y(ceiling.usual) - high_y)
            svg.line(LEFT, at_y(ceiling.usual), WIDTH - RIGHT, at_y(ceiling.usual), "usualedge")
        svg.line(LEFT, high_y, WIDTH - RIGHT, high_y, "ceiling")
    for number, line in enumerate(series.values()):
        placed = [(at_x(p.x), at_y(p.y), p) for p in sorted(line, key=lambda p: p.x)]
        svg.add("polyline", class_=f"s{number}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in placed))
        for x, y, p in placed:
            _dot(svg, number, x, y, p.hint, p.crossed)
    if ceiling:
        svg.text(LEFT + 8, at_y(ceiling.value) + 17, ceiling.label, "bad halo")
        if ceiling.usual is not None:
            svg.text(LEFT + 8, max(at_y(ceiling.usual) - 5, at_y(ceiling.value) + 34), ceiling.usual_label, "good halo")
    return svg


def _names(svg: Svg, names: Sequence[str], note: str) -> float:
    """The legend of lines, each with its dashes and its point; gives the foot of the last row."""
    x, y = 8.0, 16.0
    for number, name in enumerate(names):
        shown = wrap(name, WIDTH - 70, 1)[0] if name else ""
        if not shown:
            continue
        size = 46 + wide(shown) + 14
        if x > 8 and x + size > WIDTH:
            x, y = 8.0, y + FONT + 7
        svg.line(x, y - 4, x + 34, y - 4, f"s{number}")
        _dot(svg, number, x + 17, y - 4, "", False)
        svg.text(x + 42, y, shown)
        x += size
    if note:
        y += FONT + 7
        _dot(svg, 0, 16, y - 4, "", True)
        svg.text(28, y, note, "soft")
    return y + 8


def _dot(svg: Svg, number: int, x: float, y: float, hint: str, crossed: bool) -> None:
    shape = number % 4
    if crossed:
        svg.add("path", class_="cross", d=f"M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12", hint=hint)
    elif shape == 0:
        svg.add("circle", class_=f"c{number}", cx=x, cy=y, r=4, hint=hint)
    elif shape == 1:
        svg.add("rect", class_=f"c{number}", x=x - 4, y=y - 4, width=8, height=8, hint=hint)
    else:
        tip = -5 if shape == 2 else 5
        d = f"M{x:.1f} {y + tip:.1f}L{x - 5:.1f} {y - tip * 0.8:.1f}L{x + 5:.1f} {y - tip * 0.8:.1f}Z"
        svg.add("path", class_=f"c{number}", d=d, hint=hint)


def _x_axis(svg: Svg, marks: Sequence[tuple[float, str]], foot: float) -> None:
    """Marks below the axis; a name that would run into the one before it is left out."""
    reached = -1e9
    for x, text in marks:
        svg.line(x, foot, x, foot + 5, "axis")
        half = wide(text) / 2
        if x - half > reached + 4:
            svg.text(x, foot + 20, text, "tick", "middle")
            reached = x + half


def _end(svg: Svg, left: float, right: float, marks: Sequence[tuple[float, str]], foot: float, axis: str) -> None:
    """The axis below rows with its marks and its name, where the picture ends."""
    svg.line(left, foot, right, foot, "axis")
    _x_axis(svg, marks, foot)
    svg.text((left + right) / 2, foot + 40, axis, "soft", "middle")
    svg.height = foot + 50


@dataclass(frozen=True)
class Part:
    """A piece of a bar. `kind` is the place of its name in the legend."""

    kind: int
    value: float
    hint: str


@dataclass(frozen=True)
class Bar:
    """A stacked bar with its name, and what stands behind it."""

    name: str
    parts: tuple[Part, ...]
    after: str = ""


def bars(name: str, title: str, desc: str, axis: str, kinds: Sequence[str], rows: Sequence[Bar],
         most: float = 0.0) -> Svg:  # fmt: skip
    """Bars below each other. `most` fixes the end of the axis (a share ends at 100 %)."""
    svg = Svg(name, title, desc, WIDTH, 0)
    used = sorted({p.kind for row in rows for p in row.parts if p.value > 0})
    top = svg.key(8, 8, [(k, kinds[k]) for k in used], WIDTH - 16) + 4
    left = 16 + min(170.0, max(wide(row.name) for row in rows))
    behind = max([wide(row.after, FONT * 1.08) for row in rows]) + 10
    right = WIDTH - max(behind, 28)
    marks = ticks(most or max(sum(p.value for p in row.parts) for row in rows), 5)
    end = most or marks[-1]
    foot = top + len(rows) * ROW + 2

    def at(value: float) -> float:
        return left + value / end * (right - left)

    shown = [m for m in marks if m <= end * 1.0001]
    for mark in shown:
        svg.line(at(mark), top - 2, at(mark), foot, "grid")
    for number, row in enumerate(rows):
        y, start = top + number * ROW, 0.0
        svg.text(left - 8, y + 15, wrap(row.name, left - 16, 1)[0] if row.name else "", "", "end")
        for part in row.parts:
            if part.value > 0:
                svg.fill(at(start), y, at(start + part.value) - at(start), BAR, part.kind, part.hint)
                start += part.value
        if row.after:
            svg.text(at(start) + 6, y + 15, row.after, "strong")
    _end(svg, left, right, [(at(m), figure(m)) for m in shown], foot, axis)
    return svg


@dataclass(frozen=True)
class Lane:
    """Times in which something ran, from the start of the picture; `kind` is the fill."""

    name: str
    kind: int
    times: tuple[tuple[float, float], ...]
    after: str = ""


def lanes(name: str, title: str, desc: str, axis: str, rows: Sequence[Lane], end: float) -> Svg:
    """What ran when: a row for each lane; an empty row is a lane in which nothing ran."""
    svg = Svg(name, title, desc, WIDTH, 0)
    left = 16 + min(190.0, max(wide(row.name) for row in rows))
    right = WIDTH - max([wide(row.after) for row in rows] + [10.0]) - 10
    top, marks = 10, [m for m in ticks(end) if m <= end]
    foot = top + len(rows) * ROW + 2

    def at(value: float) -> float:
        return left + value / end * (right - left)

    for mark in marks:
        svg.line(at(mark), top - 2, at(mark), foot, "grid")
    for number, row in enumerate(rows):
        y = top + number * ROW
        svg.text(left - 8, y + 15, wrap(row.name, left - 16, 1)[0], "", "end")
        svg.line(left, y + BAR / 2, right, y + BAR / 2, "grid")
        for start, stop in row.times:
            svg.fill(at(start), y, at(stop) - at(start), BAR, row.kind)
        svg.text(right + 8, y + 15, row.after)
    _end(svg, left, right, [(at(m), figure(m)) for m in marks], foot, axis)
    return svg
