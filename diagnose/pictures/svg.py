"""A small SVG writer: every text is escaped, every picture carries its title and a description, output never varies.

Colours live in `templates/picture.css`, without variables, so that viewers other than browsers show them too. A file
carries that style itself; a page carries it once for all its pictures.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from xml.sax.saxutils import escape, quoteattr

from ..report_excerpts import visible

FONT = 13  # px; what `wide` counts with
FILLS = 8  # classes c0 … c7 of the style, each with a hatching of its own
_HATCH = (
    "",
    "M0 8L8 0",
    "M0 0L8 8",
    "M4 0V8",
    "M0 4H8",
    "M0 8L8 0M0 0L8 8",
    "M4 0V8M0 4H8",
    "M2 2h2v2h-2zM6 6h2v2h-2z",
)


@lru_cache(maxsize=1)
def style() -> str:
    """The style sheet of all pictures."""
    return files("diagnose").joinpath("templates", "picture.css").read_text("utf-8")


def wide(text: str, size: float = FONT) -> float:
    """About how wide a text comes out, a little generous, so that nothing is laid over anything."""
    return sum(1.02 if unicodedata.east_asian_width(c) in "WF" else 0.62 for c in text) * size


def wrap(text: str, width: float, most: int = 3, size: float = FONT) -> list[str]:
    """Text in lines that fit; what does not fit in `most` lines ends with an ellipsis."""
    lines, line = [], ""
    for word in _words(text):
        if line and wide(line + word.rstrip(), size) > width:
            lines.append(line.rstrip())
            line = ""
        while wide(word.rstrip(), size) > width:
            cut = next(n for n in range(len(word), 0, -1) if n == 1 or wide(word[:n], size) <= width)
            lines.append(word[:cut])
            word = word[cut:]
        line += word
    lines += [line.rstrip()] if line.strip() else []
    if len(lines) > most:
        lines = lines[:most]
        while wide(lines[-1] + "…", size) > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines


def _words(text: str) -> Iterable[str]:
    """Where a line may break: after a gap, and between any two Chinese characters."""
    word = ""
    for c in text:
        if unicodedata.east_asian_width(c) in "WF" and unicodedata.category(c) != "Po":
            if word:
                yield word
            word = c
        else:
            word += c
            if c == " ":
                yield word
                word = ""
    if word:
        yield word


def _figure(value: float | str) -> str:
    return f"{round(value, 1):g}" if isinstance(value, int | float) else visible(value)


@dataclass
class Svg:
    """A picture in the making, in the order of its parts.

    Attributes:
        name: of the file, and the stem of ids inside.
        title, desc: what a screen reader says.
    """

    name: str
    title: str
    desc: str
    width: float
    height: float
    parts: list[str] = field(default_factory=list)
    hatched: set[int] = field(default_factory=set)

    def add(self, tag: str, text: str | None = None, hint: str = "", **attrs: float | str | None) -> None:
        """One element. Attribute names: `class_` for class, `_` for `-`; None is left out; `hint` shows on hovering."""
        said = "".join(
            f" {k.rstrip('_').replace('_', '-')}={quoteattr(_figure(v))}" for k, v in attrs.items() if v is not None
        )
        inner = f"<title>{escape(visible(hint))}</title>" if hint else ""
        inner += escape(visible(text)) if text is not None else ""
        self.parts.append(f"<{tag}{said}>{inner}</{tag}>" if inner else f"<{tag}{said}/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str, hint: str = "") -> None:
        """A line."""
        self.add("line", hint=hint, class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)

    def text(self, x: float, y: float, text: str, class_: str = "", anchor: str = "") -> None:
        """One line of text; `y` is its foot."""
        self.add("text", text, class_=class_ or None, x=x, y=y, text_anchor=anchor or None)

    def lines(self, x: float, y: float, rows: Iterable[str], class_: str = "", anchor: str = "") -> float:
        """Lines below each other; gives the foot of the next one."""
        for row in rows:
            self.text(x, y, row, class_, anchor)
            y += FONT + 4
        return y

    def fill(self, x: float, y: float, width: float, height: float, number: int, hint: str = "") -> None:
        """A bar in one of the colours, with its hatching, so that it is told apart without colour."""
        number %= FILLS
        width = max(width, 0.5)
        self.add("rect", hint=hint, class_=f"c{number}", x=x, y=y, width=width, height=height)
        if _HATCH[number]:
            self.hatched.add(number)
            self.add("rect", fill=f"url(#{self.name}-h{number})", x=x, y=y, width=width, height=height)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, class_: str = "arrow") -> None:
        """A line with a head."""
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1.0
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        bx, by = x2 - 8 * ux, y2 - 8 * uy
        self.line(x1, y1, bx, by, class_)
        corners = ((x2, y2), (bx - 4 * uy, by + 4 * ux), (bx + 4 * uy, by - 4 * ux))
        self.add("polygon", class_="head", points=" ".join(f"{_figure(x)},{_figure(y)}" for x, y in corners))

    def key(self, x: float, y: float, entries: Iterable[tuple[int, str]], width: float) -> float:
        """A legend of fills in as many rows as it takes; gives the top of what follows."""
        left = x
        for number, text in entries:
            size = 26 + wide(text) + 16
            if left > x and left + size > x + width:
                left, y = x, y + FONT + 8
            self.fill(left, y, 18, 12, number)
            self.text(left + 24, y + 11, text)
            left += size
        return y + FONT + 10

    def inline(self, prefix: str = "") -> str:
        """For a page that carries the style; `prefix` keeps ids apart from those of other pictures."""
        return self._made(f"{prefix}{self.name}", "")

    def file(self) -> str:
        """A file of its own, with its title to be seen."""
        rows = wrap(self.title, self.width - 16, 2)
        head = len(rows) * (FONT + 4) + 8
        shown = "".join(
            f'<text class="strong" x="8" y="{18 + n * (FONT + 4)}">{escape(visible(row))}</text>'
            for n, row in enumerate(rows)
        )
        style_ = f'<style>{style()}</style><rect class="ground" width="100%" height="100%"/>{shown}'
        made = self._made(self.name, style_, head)
        size = f'xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height + head:g}"'
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + made.replace("<svg ", f"<svg {size} ", 1)

    def _made(self, name: str, first: str, down: int = 0) -> str:
        hatch = "".join(
            f'<pattern id="{name}-h{n}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<path class="stroke" d="{_HATCH[n]}"/></pattern>'
            for n in sorted(self.hatched)
        )
        inner = "\n".join(p.replace(f"url(#{self.name}-h", f"url(#{name}-h") if "url(#" in p else p for p in self.parts)
        inner = f'<g transform="translate(0 {down})">\n{inner}\n</g>' if down else inner
        return (
            f'<svg class="pic" viewBox="0 0 {self.width:g} {self.height + down:g}" role="img" '
            f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(visible(self.title))}</title>'
            f'<desc id="{name}-d">{escape(visible(self.desc))}</desc>{first}'
            f"{f'<defs>{hatch}</defs>' if hatch else ''}\n{inner}\n</svg>\n"
        )


@dataclass
class Drawing:
    """A picture and its rows, for those who do not see it. The last cell of a row is an id of evidence, or empty."""

    svg: Svg
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """Its name, fit for a file."""
        return self.svg.name

    @property
    def title(self) -> str:
        """What it shows."""
        return self.svg.title
