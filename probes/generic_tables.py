"""Small tables in any text: pipes, tabs, CSV, aligned columns, single-spaced words under a head."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.axes import OTHER, classify
from diagnose.document import Line
from diagnose.lazy import regex

from .facts import RULER
from .generic_figures import Figure, cell, header_unit, name_metric

MAX_COLUMNS = 16
MAX_ROWS = 200
_REMARK = regex(r"^(?:<-|<=|←|#|//|\()")
_GAP = regex(r"\t+| {2,}")
_MATRIX = regex(r"D\\D|GPU0\s+GPU1|\bredop\b|^\s*X\s|Proto\s+Recv-Q|^\s*Thread Stats\s+Avg", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell and where it stands in its line."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """`figures[i]` and `words[i]` belong to column `i`; the figure is None where the cell is words or missing."""

    label: str
    figures: tuple[Figure | None, ...]
    line: Line
    words: tuple[str, ...] = ()


@dataclass
class Table:
    """A head and its rows. `corner` names what the row labels are, `caption` is the line above."""

    corner: str
    columns: tuple[str, ...]
    caption: str
    rows: list[Row] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def split(text: str) -> tuple[str, list[Cell]]:
    """Cells of a line and how it is divided: ``pipe``, ``tab``, ``space``; or ("", [])."""
    if text.count("|") >= 2 or (text.lstrip().startswith("|") and "|" in text.strip()[1:]):
        return "pipe", _at(text, re.compile(r"\|"), edges=True)
    if "\t" in text.strip():
        return "tab", _at(text, re.compile(r"\t+"))
    if "  " in text.strip():
        return "space", _at(text, _GAP)
    return "", []


def _at(text: str, gap: re.Pattern[str], edges: bool = False) -> list[Cell]:
    out: list[Cell] = []
    pos = 0
    for hit in [*gap.finditer(text), None]:
        stop = hit.start() if hit else len(text)
        part = text[pos:stop]
        bare = part.strip()
        at = pos + len(part) - len(part.lstrip())
        if bare or (edges and pos > 0 and hit is not None):
            out.append(Cell(bare, at, at + len(bare)))
        pos = hit.end() if hit else stop
        if len(out) > MAX_COLUMNS:
            return []
    return out


def _is_head(cells: list[Cell], below: list[Cell]) -> bool:
    """A head has no figures; or its figures are settings beside a word that names them."""
    got = [cell(c.text) for c in cells]
    if not any(got):
        return True
    first_below = cell(below[0].text) if below else None
    bare = all(g is None or g.unit in (None, "count") for g in got)
    words = cells[0].text if got[0] is None else ""
    if not (bare and all(got[1:]) and words) or first_below is not None or name_metric(words).known:
        return False
    return bool(below) and name_metric(below[0].text).known


def matrices(lines: list[Line]) -> set[int]:
    """Lines of device-to-device matrices, which readers of their tools own."""
    out: set[int] = set()
    inside = False
    for i, line in enumerate(lines):
        inside = bool(_MATRIX.search(line.text[:200])) or (
            inside and bool(re.match(r"\s*(?:GPU|NIC)?\d+\s", line.text))
        )
        if inside:
            out.add(i)
    return out


def tables(lines: list[Line], skip: set[int] | frozenset[int] = frozenset()) -> Iterator[Table]:
    """Tables of a list of lines, in order."""
    i = 0
    while i + 1 < len(lines):
        if i in skip:
            i += 1
            continue
        made = _table(lines, i)
        if made is None:
            i += 1
            continue
        yield made
        i = made.lines[-1] + 1


def _table(lines: list[Line], i: int) -> Table | None:
    text = lines[i].text
    if len(text) > 400 or not text.strip() or RULER.match(text) or _MATRIX.search(text):
        return None
    kind, head = split(text)
    if not kind:
        return _csv(lines, i) or _words(lines, i)
    first = _next(lines, i + 1)
    if first is None:
        return None
    corner_gap = head[0].start if kind == "space" and head and head[0].start >= 4 else 0
    below_kind, below = _split_below(lines[first].text, corner_gap)
    if kind == "space" and len(below) not in (len(head), len(head) + 1):
        loose = _words(lines, i)  # ``BLOCK_M BLOCK_N num_warps   n_regs``: gaps of one blank and of more
        if loose is not None:
            return loose
    if below_kind != kind or not _is_head(head, below):
        return None
    measured = any(cell(c.text) for c in below[1:])
    width = len(below) if measured else max(len(below), len(head))
    if not _figures_below(lines, first, kind, width, corner_gap):
        return None
    shift = len(below) - len(head)
    if kind != "space" and shift:
        return None
    if shift == 1 or (kind == "pipe" and head and not head[0].text):
        corner, columns = "", head if shift == 1 else head[1:]
    elif len(head) >= 2:
        corner, columns = head[0].text, head[1:]
    else:
        return None
    table = Table(corner, tuple(c.text for c in columns), _caption(lines, i), lines=[i])
    heads = _shared_unit([c.text for c in columns])
    j: int | None = i + 1
    while j is not None and j < len(lines) and len(table.rows) < MAX_ROWS:
        if RULER.match(lines[j].text):
            table.lines.append(j)
            j += 1
            continue
        row_kind, cells = _split_below(lines[j].text, corner_gap)
        placed = _place(cells, columns, kind) if row_kind == kind else None
        if placed is None:
            break
        label, texts = placed
        found = tuple(cell(t, u) for t, u in zip(texts, heads, strict=True))
        table.lines.append(j)
        table.rows.extend(_composite(label, texts, heads, found, lines[j]))
        j += 1
    return table if any(any(r.figures) for r in table.rows) else None


def _shared_unit(names: list[str]) -> list[str]:
    """Units of the columns; a further setting of the same kind (``fp16 tok/s | int4 tok/s | gptq_marlin``) has theirs."""  # noqa: E501
    heads = [header_unit(name) for name in names]
    said = {h for h in heads if h}
    if len(said) != 1 or sum(map(bool, heads)) < 2 or all(heads):
        return heads
    known = next(name for name, head in zip(names, heads, strict=True) if head)
    return [
        head or ("" if name_metric(name).known or set(classify(name, known)) <= {OTHER} else next(iter(said)))
        for name, head in zip(names, heads, strict=True)
    ]


def _split_below(text: str, gap: int) -> tuple[str, list[Cell]]:
    """Cells of a row under a head that leaves `gap` characters for the labels; a label may fill them to the last."""
    kind, cells = split(text)
    if gap and cells and cells[0].start < gap < cells[0].end and text[gap - 1] == " " and text[gap] != " ":
        left, right = text[cells[0].start : gap].rstrip(), text[gap : cells[0].end]
        start = cells[0].start
        if left and cell(right) is not None and cell(left) is None:
            return kind or "space", [Cell(left, start, start + len(left)), Cell(right, gap, cells[0].end), *cells[1:]]
    return kind, cells


def _figures_below(lines: list[Line], i: int, kind: str, width: int, gap: int) -> bool:
    """One of the next rows of this width holds a figure: rows of words may come first."""
    for line in lines[i : i + 8]:
        if RULER.match(line.text):
            continue
        row_kind, cells = _split_below(line.text, gap)
        if row_kind == kind and 2 <= len(cells) < width and not any(cell(c.text) for c in cells[1:]):
            continue  # a remark takes the place of the figures: ``1   (does not fit)``
        if row_kind != kind or len(cells) != width:
            return False
        if any(cell(part) for c in cells[1:] for part in re.split(r"\s+/\s+", c.text)):
            return True
    return False


def _next(lines: list[Line], j: int) -> int | None:
    while j < len(lines) and RULER.match(lines[j].text):
        j += 1
    return j if j < len(lines) and lines[j].text.strip() else None


def _caption(lines: list[Line], i: int) -> str:
    above = lines[i - 1].text.strip() if i else ""
    return above if len(above) <= 120 and not split(above)[0] else ""


def _place(cells: list[Cell], columns: list[Cell], kind: str) -> tuple[str, list[str]] | None:
    """Row label and one text a column; by count, else by position. A remark behind the row is none of its cells."""
    if len(cells) == len(columns) + 2 and _REMARK.match(cells[-1].text):
        cells = cells[:-1]
    if len(cells) == len(columns) + 1:
        return cells[0].text, [c.text for c in cells[1:]]
    if kind != "space" or len(cells) < 2 or len(cells) > len(columns) + 1:
        return None
    texts = [""] * len(columns)
    for item in cells[1:]:
        near = min(
            range(len(columns)),
            key=lambda k: min(abs(columns[k].start - item.start), abs(columns[k].end - item.end)),
        )
        if texts[near]:
            return None
        texts[near] = item.text
    return cells[0].text, texts


def _composite(
    label: str, texts: list[str], heads: list[str], found: tuple[Figure | None, ...], line: Line
) -> Iterator[Row]:
    """``decode narr / code   76 / 95   83 / 108`` is two rows."""
    parts = [re.split(r"\s+/\s+", t) for t in texts]
    names = re.split(r"\s+/\s+", label)
    width = len(parts[0]) if parts else 0
    if any(found) or width < 2 or any(len(p) != width for p in parts):
        words = tuple("" if f else t for f, t in zip(found, texts, strict=True))
        yield Row(label, found, line, words)
        return
    shared = names[0].rsplit(" ", 1)[0] if " " in names[0] else ""
    for k in range(width):
        name = names[k] if len(names) == width else f"{label} {k + 1}"
        if k and shared and len(names) == width:
            name = f"{shared} {name}"
        yield Row(name, tuple(cell(p[k], u) for p, u in zip(parts, heads, strict=True)), line)


def _csv(lines: list[Line], i: int) -> Table | None:
    head = lines[i].text.strip()
    count = head.count(",")
    if not 1 <= count <= MAX_COLUMNS or any(cell(p) for p in head.split(",")) or len(head.split()) > 3 * (count + 1):
        return None
    rows: list[Row] = []
    names = [p.strip().strip('"') for p in head.split(",")]
    heads = [header_unit(n) for n in names[1:]]
    for line in lines[i + 1 : i + 1 + MAX_ROWS]:
        parts = [p.strip().strip('"') for p in line.text.split(",")]
        if len(parts) != count + 1:
            break
        found = tuple(cell(p, u) for p, u in zip(parts[1:], heads, strict=True))
        if not any(found):
            break
        words = tuple("" if f else t for f, t in zip(found, parts[1:], strict=True))
        rows.append(Row(parts[0], found, line, words))
    if len(rows) < 2:
        return None
    return Table(names[0], tuple(names[1:]), _caption(lines, i), rows, list(range(i, i + 1 + len(rows))))


def _words(lines: list[Line], i: int) -> Table | None:
    """A head of single words over rows of as many words, all but the first of them figures."""
    head = lines[i].text.split()
    if (
        not 2 <= len(head) <= 10
        or re.search(r"[=\\]", lines[i].text)
        or any(cell(w) for w in head)
        or lines[i].text.rstrip().endswith((":", ".", ","))
    ):
        return None
    heads = [header_unit(w) for w in head[1:]]
    rows: list[Row] = []
    for line in lines[i + 1 : i + 1 + MAX_ROWS]:
        parts = line.text.split()
        if len(parts) != len(head):
            break
        found = tuple(cell(p, u) for p, u in zip(parts[1:], heads, strict=True))
        if not all(found):
            break
        rows.append(Row(parts[0], found, line))
    if len(rows) < 2:
        return None
    return Table(head[0], tuple(head[1:]), _caption(lines, i), rows, list(range(i, i + 1 + len(rows))))
