"""Rows that fall into two groups by value, and the attribute that tells the groups apart.

A table of transfers, replicas or runs whose rates stand in two clusters has one cause with two states. The
attribute that has one state in each cluster names it: a NUMA node, a rack, a path, a NIC, or whether two ends
have the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import RULER, excerpt, fact, in_cells
from .generic_figures import Figure, Metric, cell, header_unit, name_metric

_LEAST = 1.25  # between the groups
_WITHIN = 1.3  # inside a group, and always less than half of the way between them
_LAST = regex(r"\s(ms|us|GB/s|MB/s|Gbps|tok/s)$")  # ``kv xfer ms``
_ARROW = regex(r"^([\w./@:-]+)\s*(?:->|→|=>|<->|↔)\s*([\w./@:-]+)$")
_AXES = (
    ("numa", r"numa|(?:gpu|mem(?:ory)?|cpu|nic|hca)[_ ]node|socket|cpu ?bind|mem ?bind|numactl|taskset|\bcores?\b|\bcpus?\b|affinity|绑核|cpu 核"),  # noqa: E501
    ("place", r"rack|zone|\baz\b|leaf|spine|clique|domain|switch|\bsite\b|\broom\b|cluster|region|subnet|\brail\b|nvl72|机架|可用区|机房"),  # noqa: E501
    ("mtu", r"\bmtu\b|active_mtu"),
    ("path", r"\bpath\b|topo|link type|\b(?:pix|pxb|phb|node|sys)\b"),
    ("nic", r"\bnic\b|\bhca\b|mlx5|net.?dev|interface|网卡"),
    ("width", r"width|lanes|\bx(?:1|2|4|8|16)\b|lnk|gen\b"),
    ("version", r"version|driver|image|build|commit|firmware|版本"),
    ("place", r"node|host|prefill|decode|from|\bto\b|src|dst|source|dest|peer|节点"),
)  # fmt: skip
_NAMED = tuple((name, regex(pattern, re.IGNORECASE)) for name, pattern in _AXES)
_PATH = regex(r"^(?:PIX|PXB|PHB|NODE|SYS|NV\d+)$")
_RUN = regex(r"^(?:run|trial|try|attempt|iter(?:ation)?|rep|#|no|idx|index|次|轮)\b\.?", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    cells: tuple[str, ...]
    line: Line


@dataclass(frozen=True)
class _Item:
    row: _Row
    figure: Figure
    level: float


@dataclass(frozen=True)
class _Attribute:
    """What is said of every row, and how the slow rows' words differ from the fast ones'."""

    axis: str
    name: str
    of: Callable[[_Row], str | None]


class SplitReader:
    """Two groups of rows and what sets them apart."""

    name = "splits"
    needles: tuple[bytes, ...] = (b"GB/s", b"Gb/s", b"Gbps", b" ms", b"(ms", b"tok/s", b"us", b"bw", b"ms", b"MB/s")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """At most one fact a table and attribute."""
        for head, rows in _blocks(excerpt(doc, 1 << 15, 300, plain=True)):
            yield from _split(doc, head, rows)


def _blocks(lines: list[Line]) -> Iterator[tuple[list[str], list[_Row]]]:
    """Lines of cells that stand together, with the line of words above them."""
    head: list[str] = []
    rows: list[_Row] = []
    for line in lines:
        text = line.text.strip().strip("|").strip()
        if text and RULER.match(text):
            continue
        parts = in_cells(text, empty=True) if text else []
        figures = [cell(c) for c in parts]
        if len(parts) >= 2 and any(figures) and not (not rows and not head and all(f is None for f in figures)):
            rows.append(_Row(tuple(parts), line))
            continue
        if len(rows) >= 4:
            yield head, rows
        rows, head = [], parts if len(parts) >= 2 else []
    if len(rows) >= 4:
        yield head, rows


def _columns(head: list[str], rows: list[_Row]) -> list[str]:
    """Names of the columns; a head with fewer words than the rows leaves the last ones without."""
    width = max(len(r.cells) for r in rows)
    return [*head[:width], *[""] * (width - len(head))]


def _measured(names: list[str], rows: list[_Row]) -> Iterator[tuple[int, Metric, list[_Item]]]:
    """Columns of figures of one kind that say how well something went."""
    for k, name in enumerate(names):
        if k == 0:
            continue
        unit = header_unit(name) or (hit[1] if (hit := _LAST.search(name)) else "")
        found = [(r, cell(r.cells[k], unit)) for r in rows if len(r.cells) > k]
        items = [_Item(r, f, _level(f)) for r, f in found if f is not None and f.value > 0]
        if len(items) < 4 or len(items) < 0.8 * len(rows) or len({_kind(i.figure) for i in items}) != 1:
            continue
        first = items[0].figure
        metric = name_metric(name, first.unit, first.raw, first.per)
        if metric.better is None and not (unit or first.unit):
            continue
        if metric.better is None and (first.unit or "") not in ("GB/s", "Gb/s", "ms", "us", "s", "tokens/s"):
            continue
        yield k, metric, items


def _kind(figure: Figure) -> str:
    return "time" if figure.unit in IN_MS else "rate" if figure.unit in ("GB/s", "Gb/s") else figure.unit or ""


def _level(figure: Figure) -> float:
    return figure.value * (IN_MS.get(figure.unit or "") or (0.125 if figure.unit == "Gb/s" else 1.0))


def _groups(items: list[_Item]) -> tuple[list[_Item], list[_Item]] | None:
    """The low and the high group, where one gap stands out."""
    order = sorted(items, key=lambda i: i.level)
    gaps = [(b.level / a.level, n) for n, (a, b) in enumerate(pairwise(order), 1)]
    gap, at = max(gaps)
    low, high = order[:at], order[at:]
    inside = max(low[-1].level / low[0].level, high[-1].level / high[0].level)
    if gap < _LEAST or inside > _WITHIN or inside - 1 > 0.5 * (gap - 1) or min(len(low), len(high)) < 2:
        return None
    return low, high


def _axis(*words: str) -> str:
    text = " ".join(words)
    if any(_PATH.match(w) for w in words):
        return "path"
    return next((name for name, pattern in _NAMED if pattern.search(text)), "other")


def _attributes(names: list[str], rows: list[_Row], skip: int) -> Iterator[_Attribute]:
    """Columns of words or small numbers, whether two of them agree, and the ends of an arrow."""
    plain: list[tuple[int, str]] = []
    for k, name in enumerate(names):
        values = [r.cells[k] for r in rows if len(r.cells) > k]
        if k == skip or len(values) < 4 or not 2 <= len(set(values)) <= len(values):
            continue
        if any((f := cell(v)) is not None and f.unit not in (None, "count") for v in values):
            continue
        if _RUN.match(name) and k == 0:
            continue
        plain.append((k, name))
        if len(set(values)) < len(values):
            yield _Attribute(_axis(name, *set(values)), name or f"column {k + 1}", _of(k))
    for (i, a), (j, b) in combinations(plain, 2):
        both = {r.cells[i] for r in rows if len(r.cells) > j}, {r.cells[j] for r in rows if len(r.cells) > j}
        if both[0] & both[1]:
            yield _Attribute(_axis(a, b), f"{a} and {b}", _agree(i, j))
        elif _inner(both[0]) & _inner(both[1]):
            yield _Attribute(_axis(a, b), f"{a} and {b}", _agree(i, j, inner=True))
    ends = [_ARROW.match(r.cells[0]) for r in rows]
    if all(ends):
        yield _Attribute("place", "ends", _end)


def _of(k: int) -> Callable[[_Row], str | None]:
    return lambda row: row.cells[k].lower() if len(row.cells) > k else None


_INNER = regex(r"[(@\[]\s*([\w./-]+)\s*[)\]]?$")


def _inner(values: set[str]) -> set[str]:
    """What stands in brackets behind names: ``p0 (gpu-a1)``."""
    return {m[1] for v in values if (m := _INNER.search(v)) is not None}


def _agree(i: int, j: int, inner: bool = False) -> Callable[[_Row], str | None]:
    def agree(row: _Row) -> str | None:
        if len(row.cells) <= max(i, j):
            return None
        ends = (_inner({row.cells[i]}), _inner({row.cells[j]})) if inner else (row.cells[i], row.cells[j])
        return "same" if ends[0] == ends[1] else "different"

    return agree


def _end(row: _Row) -> str:
    """One pair of ends; what it is grouped by shows only in the outcome."""
    return row.cells[0]


def _split(doc: Document, head: list[str], rows: list[_Row]) -> Iterator[Fact]:
    names = _columns(head, rows)
    for k, metric, items in _measured(names, rows):
        made = _groups(items)
        if made is None:
            continue
        low, high = made
        slow, fast = (low, high) if (metric.better or _better(items[0].figure)) == "higher" else (high, low)
        for found in _attributes(names, rows, k):
            words = _tells(found, slow, fast)
            if words is None:
                continue
            yield _fact(doc, found, metric, slow, fast, words)


def _better(figure: Figure) -> str:
    return "lower" if figure.unit in IN_MS else "higher"


def _tells(found: _Attribute, slow: list[_Item], fast: list[_Item]) -> tuple[str, str] | None:
    """The attribute's states in the two groups, where it has no state in both and is no mere name of a row."""
    a = [v for i in slow if (v := found.of(i.row)) is not None]
    b = [v for i in fast if (v := found.of(i.row)) is not None]
    if len(a) < 2 or len(b) < 2 or len(a) + len(b) < 0.75 * (len(slow) + len(fast)):
        return None
    if found.name == "ends":
        return _crossing(slow, fast)
    if set(a) & set(b):
        return None
    if found.axis == "other" and (len(set(a)) > 1 or len(set(b)) > 1):
        return None  # words that differ in every row tell nothing
    if len(set(a)) + len(set(b)) >= len(a) + len(b):
        return None
    return max(a, key=a.count), max(b, key=b.count)


def _crossing(slow: list[_Item], fast: list[_Item]) -> tuple[str, str] | None:
    """Each end is fast with some and slow with others: it is the pair that matters."""
    pairs = [[(m.group(1), m.group(2)) for i in group if (m := _ARROW.match(i.row.cells[0]))] for group in (slow, fast)]
    for side in (0, 1):
        mixed = {p[side] for p in pairs[0]} & {p[side] for p in pairs[1]}
        if not mixed:
            return None
    return " -> ".join(pairs[0][0]), " -> ".join(pairs[1][0])


def _fact(
    doc: Document, found: _Attribute, metric: Metric, slow: list[_Item], fast: list[_Item], words: tuple[str, str]
) -> Fact:
    """The groups' middle rows beside each other."""
    picked = []
    for group in (slow, fast):
        middle = median(i.level for i in group)
        picked.append(min(group, key=lambda i: abs(i.level - middle)))
    top, bottom = sorted(picked, key=lambda i: -i.level)
    factor = top.level / top.figure.value / (bottom.level / bottom.figure.value)
    inputs = tuple(
        fact(
            doc, i.row.line, "figure", i.figure.value, i.figure.unit or "count", around=i.figure.text,
            label=f"{metric.name}|{i.row.cells[0][:40]}",
        )
        for i in (top, bottom)
    )  # fmt: skip
    name = found.name.replace("|", "/")[:40]
    return Fact(
        "compare.split", top.level / bottom.level, "count",
        Subject(label=f"{found.axis}|{metric.name}|{name}: {words[0][:40]}|{words[1][:40]}"),
        tuple(doc.span(i.row.line, i.figure.text) for i in (picked[0], picked[1])),
        f"{metric.name} stands in two groups, which {name} tells apart", kind="derived",
        formula="a / b" if abs(factor - 1) < 1e-9 else f"a * {factor:.12g} / b", inputs=inputs, status=doc.status,
    )  # fmt: skip


_VERSION = regex(
    r"^[\s*>-]*(?:(?P<name>[A-Za-z][\w.-]{1,20})[ :=-]*)?v?(?P<version>\d+\.\d+(?:\.\d+)?[\w.+-]*)\s*[:|]?\s+(?P<rest>\S.*)$"  # noqa: E501
)
_FAILS = regex(
    r"\bhangs?\b|crash|fail|segfault|assert|corrupt|wrong|stuck|deadlock|abort|broken|error|(?<!0 of )(?<![\d/])[1-9]\d* ?(?:/|of|out of) ?\d+ (?:runs|times)|挂死|崩溃|卡死|报错",  # noqa: E501
    re.IGNORECASE,
)
_WORKS = regex(
    r"\bok\b|\bpass(?:es|ed)?\b|\bworks?\b|\bfine\b|\bclean\b|no (?:hang|crash|error|failure)s?|\b0 (?:of|/) ?\d+|正常|没问题",  # noqa: E501
    re.IGNORECASE,
)


class VersionReader:
    """Versions listed with how they did: some work and one does not."""

    name = "version_list"
    needles: tuple[bytes, ...] = (b"ang", b"rash", b"ail", b"ssert", b"egfault", "崩溃".encode(), "卡死".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The failing version, beside one that works."""
        bad: list[tuple[str, Line]] = []
        good: list[tuple[str, Line]] = []
        for line in excerpt(doc, 1 << 15, 200):
            hit = _VERSION.match(line.text)
            if hit is None or len(line.text) > 160:
                continue
            works, fails = _WORKS.search(hit["rest"]), _FAILS.search(hit["rest"])
            if works and (not fails or works.start() < fails.start()):
                good.append((hit["version"], line))
            elif fails:
                bad.append((hit["version"], line))
        if good and bad and {v for v, _ in good}.isdisjoint(v for v, _ in bad):
            yield Fact(
                "compare.version_outcome", bad[0][0], None, Subject(label=good[-1][0]),
                (doc.span(bad[0][1]), doc.span(good[-1][1])), f"{bad[0][0]} fails where {good[-1][0]} works",
                status=doc.status,
            )  # fmt: skip


READERS: list[Reader] = [SplitReader(), VersionReader()]
