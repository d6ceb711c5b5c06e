"""Step times one by one: slow at the first sight of each input size, or slow with a fixed period.

A compiler that specialises on shapes is slow when a size is new and fast when it comes back; loader workers
deliver together, so that every n-th step waits. Both show in short hand-copied lists, also with steps left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact
from .generic_tables import tables

_SMALL = 512 << 10
_TIME = r"(?P<t>\d+(?:\.\d+)?) ?(?P<u>ms|s|sec|秒|毫秒)(?![\w/])"
_SIZE = (
    r"(?:seq(?:[_ ]?len(?:gth)?)?|len(?:gth)?|input(?:[_ ](?:shape|size|len))?|shape|size|bucket|tokens"
    r"|res(?:olution)?|imgsz"
    r"|batch[_ ](?:size|len|shape)|bs|max_len|序列长度|长度|尺寸|[TLSHWB])"
)
_KEY = regex(rf"(?<![\w.])(?:batch )?{_SIZE} ?[=:]? ?[\[(]?(?P<k>\d+(?: ?[,x×*] ?\d+)*)[\])]?", re.IGNORECASE)
_KEY_COLUMN = regex(rf"^{_SIZE}$|^n_?tokens$|^batch$|^(?:input|seq)\b.*(?:len|shape|size)", re.IGNORECASE)
_AFTER_KEY = regex(rf"[^\n]{{0,60}}?(?<![\w.]){_TIME}", re.IGNORECASE)
_NOT_TIMES = regex(r"^(?:epoch|loss|lr|grad|mem|tokens|gib|gb|count|graphs?|recompiles?|util)", re.IGNORECASE)
_MS = {"ms": 1.0, "毫秒": 1.0, "s": 1e3, "sec": 1e3, "秒": 1e3}
_STEP = regex(
    r"(?<![\w./])(?:it|iter(?:ation)?|step|batch|global_step)s?[ #:=_\]]{0,3}(?P<i>\d{1,8})\]?(?:/\d+)?\W{1,6}"
    r"(?:(?:time|took|dt|elapsed|step_time|iter_time)\W{0,3})?(?P<t>\d+(?:\.\d+)?) ?(?P<u>ms|s|sec|秒)?(?![\w/%])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Timed:
    key: str
    value: float
    unit: str  # "ms", or "count" where none is printed
    line: Line


class ShapeSeries:
    """Times of steps beside the size of their input."""

    name = "shape_series"
    needles: tuple[bytes, ...] = tuple(
        n.encode()
        for n in ("len", "seq", "shape", "size", "bucket", "tokens", "res", "imgsz", "T=", "L=", "S=", "长度", "尺寸")
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact where sizes are slow when new and fast when seen again."""
        lines = excerpt(doc, _SMALL, 3000)
        for series in (*_columns(lines), _prose(lines)):
            made = _first_sights(doc, series)
            if made is not None:
                yield made
                return


def _columns(lines: list[Line]) -> Iterator[list[_Timed]]:
    for table in tables(lines):
        names = [table.corner, *table.columns]
        order = [*range(1, len(names)), 0]  # a first column that is called `batch` may only count
        at = next((k for k in order if _KEY_COLUMN.match(names[k].strip())), None)
        if at is None:
            continue
        for k, name in enumerate(names):
            if k in (0, at) or _NOT_TIMES.match(name.strip()):
                continue
            out = []
            for row in table.rows:
                cells = [
                    row.label,
                    *(f.text if f else w for f, w in zip(row.figures, row.words or names, strict=False)),
                ]
                figure = row.figures[k - 1] if 0 < k <= len(row.figures) else None
                if figure is not None and at < len(cells):
                    scale = _MS.get(figure.raw.lower())
                    value = float(figure.text.replace(",", "")) * (scale or 1.0)
                    out.append(_Timed(cells[at], value, "ms" if scale else "count", row.line))
            yield out


def _prose(lines: list[Line]) -> list[_Timed]:
    out = []
    for line in lines:
        keys = list(_KEY.finditer(line.text)) if len(line.text) < 1000 else []
        ends = [*(k.start() for k in keys[1:]), len(line.text)][: len(keys)]
        for key, end in zip(keys, ends, strict=True):
            time = _AFTER_KEY.match(line.text[:end], key.end())
            if time is not None:
                out.append(_Timed(key["k"].strip(), float(time["t"]) * _MS[time["u"].lower()], "ms", line))
    return out


def _first_sights(doc: Document, series: list[_Timed]) -> Fact | None:
    """At least two sizes slow when new, and what is seen again is fast."""
    seen: set[str] = set()
    new: list[_Timed] = []
    again: list[_Timed] = []
    for item in series:
        (again if item.key in seen else new).append(item)
        seen.add(item.key)
    if len(new) < 2 or not again or len({i.unit for i in series}) != 1 or min(i.value for i in series) <= 0:
        return None
    usual = median(i.value for i in again)
    slow = [i for i in new if i.value >= 3 * usual]
    calm = [i for i in again if i.value < 2 * usual]
    if len(slow) < 2 or len(slow) < 0.6 * len(new) or len(calm) < 0.8 * len(again):
        return None
    top, low = slow[1], min(again, key=lambda i: abs(i.value - usual))
    inputs = tuple(fact(doc, i.line, "train.shape_time", i.value, i.unit, label=i.key) for i in (top, low))
    return divided(
        "train.first_of_shape", inputs, subject=Subject(label=top.key), spans=(inputs[0].spans[0], inputs[1].spans[0])
    )


class StepSeries:
    """Times of numbered steps, several on a line or one a line, also with steps left out."""

    name = "step_series"
    needles: tuple[bytes, ...] = (b"it ", b"iter", b"Iter", b"step", b"Step", b"batch", b"Batch", b"it=")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The period of the slow steps."""
        found: dict[int, _Timed] = {}
        for line in excerpt(doc, _SMALL, 5000):
            for hit in _STEP.finditer(line.text) if len(line.text) < 2000 else ():
                if hit["u"] is None and "." not in hit["t"]:
                    continue
                scale = _MS.get((hit["u"] or "").lower(), 1.0)
                found.setdefault(int(hit["i"]), _Timed(hit["i"], float(hit["t"]) * scale, "ms", line))
        if len(found) < 6:
            return
        usual = median(i.value for i in found.values())
        slow = sorted(i for i, item in found.items() if item.value > 2 * usual)
        gaps = [b - a for a, b in pairwise(slow)]
        if len(slow) < 2 or len(slow) > 0.5 * len(found) or usual <= 0:
            return
        period = gcd(*gaps)
        between = [i for i in found if i % period != slow[0] % period]
        if 2 <= period <= 256 and period in gaps and between:
            spans = tuple(doc.span(found[i].line) for i in slow[:3])
            yield Fact(
                "train.slow_period", float(period), "count", Subject(label=f"{len(slow)} slow steps"),
                tuple(dict.fromkeys(spans)), kind="derived", formula="reader:step_series", status=doc.status,
            )  # fmt: skip


class OverlapColumn:
    """A column of overlap by rank, as trace analysers print it: `comp_comm_overlap_pctg`, `overlap %`."""

    name = "overlap_column"
    needles: tuple[bytes, ...] = (b"overlap", b"Overlap", "重叠".encode())
    _head = regex(
        r"overlap\w*[ _(\[]*(?:pct\w*|%|percent\w*|ratio|share|fraction)|重叠(?:率"
        r"|占?比)",
        re.IGNORECASE,
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a row."""
        for table in tables(excerpt(doc, _SMALL, 2000)):
            at = next((k for k, n in enumerate(table.columns) if self._head.search(n)), None)
            for row in table.rows[:16] if at is not None else ():
                figure = row.figures[at] if at is not None else None
                if figure is None:
                    continue
                share = "ratio" in table.columns[at or 0] or "fraction" in table.columns[at or 0]
                value = float(figure.text.replace(",", "")) / (1.0 if share else 100.0)
                if value <= 1.0:
                    who = Subject(label=f"{table.corner} {row.label}".strip()[:40])
                    yield Fact(
                        "train.overlap", round(value, 8), "fraction", who, (doc.span(row.line),), status=doc.status
                    )


READERS: list[Reader] = [ShapeSeries(), StepSeries(), OverlapColumn()]
