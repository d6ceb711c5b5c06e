"""Rows that name two NUMA nodes each, a GPU's and that of its process or memory, and matrices of bindings and GPUs.

A row whose nodes differ is misplaced; whether that costs anything, its figure says beside those of the rows that agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, in_cells
from .generic_figures import cell, figures, header_unit, name_metric

_SMALL = 1 << 15
_LINES = 300
_LEAST = 1.15
_GPU = regex(r"gpu.{0,12}(?:numa|node|socket)|(?:numa|node|socket).{0,8}gpu|^gpu_?numa|GPU ?所在", re.I)
_OWN = regex(
    r"(?:cpu|mem\w*|proc\w*|pid|pinn?ed|buffer|host|task|rank|thread|bound|bind|page\w*|worker).{0,16}(?:numa|node|socket|bind|bound)"
    r"|(?:numa|node|socket).{0,10}(?:cpu|mem|proc|bind|bound|buffer)|^mems?_allowed|^(?:mem)?bind(?:ing)?$|内存所在",
    re.I,
)
_NODE = regex(r"^\W*(?:numa|node|socket|N|cpu)?[ _:-]?(?P<n>\d)\W*$", re.I)


class NumaRows:
    """Tables with a column for the GPU's node and one for that of the process or its memory."""

    name = "numa_rows"
    needles: tuple[bytes, ...] = (b"numa", b"NUMA", b"node", b"socket", b"mems_allowed")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`numa.far_rows`: the best of the rows whose nodes differ beside the worst of those that agree."""
        lines = excerpt(doc, _SMALL, _LINES, plain=True)
        for i, line in enumerate(lines):
            head = in_cells(line.prefix + line.text)
            gpu = next((k for k, h in enumerate(head) if _GPU.search(h)), None)
            own = next((k for k, h in enumerate(head) if k != gpu and _OWN.search(h) and not _GPU.search(h)), None)
            if gpu is None or own is None or len(head) < 3:
                continue
            rows: list[tuple[bool, list[str], Line]] = []
            for other in lines[i + 1 : i + 40]:
                cells = in_cells(other.prefix + other.text)
                if set("".join(cells)) <= set("-+=| "):
                    continue
                if len(cells) != len(head):
                    break
                a, b = _NODE.match(cells[gpu]), _NODE.match(cells[own])
                if a is None or b is None:
                    break
                rows.append((a["n"] != b["n"], cells, other))
            yield from self._compare(doc, head, rows, {gpu, own})
            return

    @staticmethod
    def _compare(
        doc: Document, head: list[str], rows: list[tuple[bool, list[str], Line]], skip: set[int]
    ) -> Iterator[Fact]:
        for k in range(len(head) - 1, 0, -1):
            unit = header_unit(head[k])
            found = [
                (far, f, at) for far, cells, at in rows if k not in skip and (f := cell(cells[k], unit)) is not None
            ]
            if len(found) < 3 or len({far for far, _, _ in found}) != 2:
                continue
            metric = name_metric(head[k], found[0][1].unit, found[0][1].raw, found[0][1].per)
            if metric.better is None or min(f.value for _, f, _ in found) <= 0:
                continue
            higher = metric.better == "higher"
            far_ = [(f.value, at) for far, f, at in found if far]
            near = [(f.value, at) for far, f, at in found if not far]
            pick = (max, min) if higher else (min, max)
            best_far, worst_near = pick[0](far_, key=lambda p: p[0]), pick[1](near, key=lambda p: p[0])
            ratio = worst_near[0] / best_far[0] if higher else best_far[0] / worst_near[0]
            if ratio >= _LEAST:
                yield _gap(doc, "numa.far_rows", ratio, best_far[1], worst_near[1], metric.name, "numa_rows")
                return


_BOUND = regex(r"numactl|cpunodebind|membind|taskset|\bnuma\b|\bnode ?\d|socket ?\d|\bcpus? \d+-\d+", re.I)
_KEY = regex(r"\b(?P<gpu>gpu ?\d{1,2}|cuda:\d{1,2}|nic ?\d{1,2}|mlx5_\d+)\W{0,3}$", re.I)


class NumaMatrix:
    """Lines of one binding each, with a figure a GPU: near ones are fast under one and slow under the other."""

    name = "numa_matrix"
    needles: tuple[bytes, ...] = (b"GPU", b"gpu", b"cuda:")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`numa.crossed`: how much slower the slowest GPU is under the far binding, where others are slower under the other."""  # noqa: E501
        rows: list[tuple[dict[str, float], Line]] = []
        head: list[str] = []
        for line in excerpt(doc, _SMALL, _LINES, plain=True):
            text = line.prefix + line.text
            cells = in_cells(text)
            names = [re.sub(r"\W", "", c.lower()) for c in cells if re.fullmatch(r"(?:gpu|cuda:?) ?\d{1,2}", c, re.I)]
            if len(names) >= 2 and len(names) >= len(cells) - 1:
                head = names
                continue
            if _BOUND.search(text) is None and not (head and rows):
                continue
            found = self._keyed(text) or self._under(cells, head)
            if len(found) >= 2:
                rows.append((found, line))
        for (one, line), (two, other) in combinations(rows, 2):
            both = [k for k in one if k in two and min(one[k], two[k]) > 0]
            up = [one[k] / two[k] for k in both if one[k] >= 1.2 * two[k]]
            down = [two[k] / one[k] for k in both if two[k] >= 1.2 * one[k]]
            if up and down:
                yield _gap(doc, "numa.crossed", max(*up, *down), line, other, "binding and GPU", "numa_matrix")
                return

    @staticmethod
    def _keyed(text: str) -> dict[str, float]:
        out: dict[str, float] = {}
        for figure in figures(text, 40):
            named = _KEY.search(text[: figure.start])
            if named is not None and figure.unit in ("GB/s", "Gb/s", "ms", "us"):
                out[re.sub(r"\W", "", named["gpu"].lower())] = figure.value
        return out

    @staticmethod
    def _under(cells: list[str], head: list[str]) -> dict[str, float]:
        values = [f.value for c in cells if (f := cell(c)) is not None]
        return dict(zip(head, values[-len(head) :], strict=True)) if head and len(values) >= len(head) else {}


def _gap(doc: Document, signal: str, ratio: float, far: Line, near: Line, label: str, reader: str) -> Fact:
    return Fact(
        signal, round(ratio, 6), "count", Subject(label=label), (doc.span(far), doc.span(near)), kind="derived",
        formula=f"reader:{reader}", status=doc.status,
    )  # fmt: skip


READERS: list[Reader] = [NumaRows(), NumaMatrix()]
