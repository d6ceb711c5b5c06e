"""Stations and what leads to which: each present, absent or not known, with its limit and what says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .svg import FONT, Drawing, Svg, wide, wrap
from .words import say

WIDTH, GAP, AISLE, LINE = 640, 34, 14, FONT + 4
MOST_RING = 32
STATES = {True: "present", False: "absent", None: "unknown"}
_MARKS = {True: ("✓", "good"), False: ("✗", "bad"), None: ("?", "soft")}
_WORDS = {"measured": ("", "soft"), "longest": ("▶", "strong")}  # a time is neither good nor bad
_BOXES = {"measured": "node", "longest": "longest"}


@dataclass(frozen=True)
class Hop:
    """One station. `ids`: evidences of a report that say so. `word`: its state, where presence is no question."""

    name: str
    has: bool | None
    evidence: str
    limit: str = ""
    ids: tuple[str, ...] = ()
    word: str = ""

    def state(self, lang: str = "en") -> str:
        """Its state in a word."""
        return say(lang, self.word or STATES[self.has])


@dataclass(frozen=True)
class Picture:
    """Stations, and which leads to which. `ring`: they stand in a circle, in this order."""

    title: str
    hops: list[Hop]
    edges: list[tuple[int, int, str]]
    ring: bool = False
    missing: str = ""  # why the stations do not make a picture


def chain(title: str, hops: list[Hop]) -> Picture:
    """One station after the other."""
    return Picture(title, hops, [(i, i + 1, "") for i in range(len(hops) - 1)])


def draw(name: str, picture: Picture, lang: str = "en") -> Drawing | None:
    """The picture, or None where there is nothing to be drawn."""
    hops = picture.hops
    if not hops or picture.missing or (picture.ring and not 1 < len(hops) <= MOST_RING):
        return None
    counts = [sum(h.has is s for h in hops) for s in (True, False, None)]
    plain = picture.ring or any(h.word for h in hops)
    desc = say(lang, "stations" if plain else "path.desc", len(hops), *counts)
    svg = _circle(name, picture, desc) if picture.ring else _layers(name, picture, desc, lang)
    if picture.ring:
        return Drawing(svg)
    rows = [(h.name, h.state(lang), h.limit, h.ids[0] if h.ids else h.evidence) for h in hops]
    return Drawing(svg, tuple(say(lang, k) for k in ("hop", "state", "value", "evidence")), rows)


def _levels(count: int, edges: list[tuple[int, int, str]]) -> list[list[int]]:
    """Stations by their longest way from a beginning."""
    level = [0] * count
    for _ in range(count):
        for a, b, _says in edges:
            level[b] = max(level[b], min(level[a] + 1, count - 1))
    return [[i for i in range(count) if level[i] == n] for n in range(max(level) + 1)]


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def _texts(hop: Hop, width: float, lang: str) -> list[tuple[str, str]]:
    """Lines of a box with their class."""
    room = width - 20
    said = [(row, "strong") for row in wrap(hop.name, room, 2)]
    if wide(hop.name) + wide(_state(hop, lang)[0], FONT * 1.08) + 20 > room:  # else it stands in the same line
        said.append(_state(hop, lang))
    said += [(row, "") for row in wrap(hop.limit, room, 2)] if hop.limit else []
    return said + [(row, "soft") for row in wrap(hop.evidence, room, 2 if width > 400 else 3)]


def _state(hop: Hop, lang: str) -> tuple[str, str]:
    mark, class_ = _WORDS.get(hop.word, _MARKS[hop.has])
    return f"{mark} {hop.state(lang)}".strip(), class_


def _layers(name: str, picture: Picture, desc: str, lang: str) -> Svg:
    svg = Svg(name, picture.title, desc, WIDTH, 0)
    boxes: dict[int, _Box] = {}
    said: dict[int, list[tuple[str, str]]] = {}
    y = 8.0
    levels = [row for row in _levels(len(picture.hops), picture.edges) if row]
    for row in levels:
        width = (WIDTH - 16 - AISLE * (len(row) - 1)) / len(row)
        said |= {i: _texts(picture.hops[i], width, lang) for i in row}
        height = max(len(said[i]) for i in row) * LINE + 14
        for place, i in enumerate(row):
            boxes[i] = _Box(8 + place * (width + AISLE), y, width, height)
        y += height + GAP
    for a, b, says in picture.edges:
        _edge(svg, boxes[a], boxes[b], says)
    for i, box in boxes.items():
        hop = picture.hops[i]
        look = _BOXES.get(hop.word, STATES[hop.has])
        svg.add("rect", class_=look, x=box.x, y=box.y, width=box.width, height=box.height, rx=6, hint=hop.evidence)
        foot = box.y + LINE + 3
        if _state(hop, lang) not in said[i]:
            svg.text(box.x + box.width - 10, foot, *_state(hop, lang), "end")
        for text, class_ in said[i]:
            svg.text(box.x + 10, foot, text, class_)
            foot += LINE
    svg.height = y - GAP + 8
    return svg


def _edge(svg: Svg, a: _Box, b: _Box, says: str) -> None:
    """An arrow, straight down where one box lies above the other."""
    low, high = max(a.x, b.x), min(a.x + a.width, b.x + b.width)
    if low < high:
        start = stop = next((x for x in (b.middle, a.middle) if low <= x <= high), (low + high) / 2)
    else:
        start, stop = a.middle, b.middle
    svg.arrow(start, a.y + a.height, stop, b.y)
    if says:
        middle, y = (start + stop) / 2, (a.y + a.height + b.y) / 2 + 4
        if middle + 8 + wide(says) > WIDTH:
            svg.text(middle - 8, y, says, "halo", "end")
        else:
            svg.text(middle + 8, y, says, "halo")


def _circle(name: str, picture: Picture, desc: str) -> Svg:
    count = len(picture.hops)
    radius = 60.0 if count == 2 else max(100.0, count * 13.0)
    wide_, high = 78.0, 30.0
    cx, cy = WIDTH / 2, radius + high + 6
    evidence = wrap(next((h.evidence for h in picture.hops if h.evidence), ""), WIDTH - 20, 2)
    svg = Svg(name, picture.title, desc, WIDTH, cy + radius + high + 12 + len(evidence) * LINE)
    spread = min(2.0, (WIDTH / 2 - wide_ / 2 - 8) / radius)
    at = [
        (cx + radius * spread * math.cos(2 * math.pi * i / count - math.pi / 2),
         cy + radius * math.sin(2 * math.pi * i / count - math.pi / 2))
        for i in range(count)
    ]  # fmt: skip
    for a, b, _says in picture.edges:
        (x1, y1), (x2, y2) = _between(at[a], at[b], wide_, high), _between(at[b], at[a], wide_, high)
        apart = 8.0 if count == 2 else 0.0  # there and back, side by side
        shift = apart if a < b else -apart
        svg.arrow(x1 + shift, y1, x2 + shift, y2)
    for (x, y), hop in zip(at, picture.hops, strict=True):
        svg.add("rect", class_="node", x=x - wide_ / 2, y=y - high / 2, width=wide_, height=high, rx=5)
        svg.text(x, y + 5, wrap(hop.name, wide_ - 6, 1)[0], "", "middle")
    svg.lines(10, svg.height - len(evidence) * LINE + 6, evidence, "soft")
    return svg


def _between(a: tuple[float, float], b: tuple[float, float], width: float, height: float) -> tuple[float, float]:
    """Where the line from the middle of box `a` to `b` leaves the box."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    share = min((width / 2 + 3) / abs(dx) if dx else 9e9, (height / 2 + 3) / abs(dy) if dy else 9e9)
    return a[0] + dx * share, a[1] + dy * share
