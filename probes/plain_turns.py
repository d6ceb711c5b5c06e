"""Rows without a head that say what was set and how it went: ``progress thread   11 ms``, ``1.18.0: hangs 37 of 100``.

`levers` reads tables whose first line names the columns. Here the name stands first, the figures behind it, and the
unit may stand in the caption above (``16 MB all-reduce, busbw GB/s``). The outcome may be a share of runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import in_cells
from .generic_figures import Figure, figures, header_unit, name_metric, with_unit

_SMALL = 1 << 15
_LINES = 200
_ROWS = 12
_LEAST = 1.25
_RATES = frozenset(("GB/s", "Gb/s", "tokens/s", "req/s", "TFLOP/s"))
_PER_S = regex(r"/s(?:ec)?$|/秒$|^(?:fps|iops|pps)$", re.IGNORECASE)
_LOG = regex(r"NCCL (?:INFO|WARN)|^\W*\d{2,4}[-:/]\d\d[-:/]\d\d|^\s*\[|\b(?:INFO|WARNING|DEBUG|ERROR)\b")
# ``passes 100 of 100``, ``hangs 37 of 100``, ``checksum OK 171/200``
_SHARE = regex(
    r"\b(?P<what>pass\w*|ok|okay|success\w*|works?|correct|good|valid|clean|complet\w+|finish\w*"
    r"|hangs?|hung|fail\w*|crash\w*|errors?|abort\w*|wrong|corrupt\w*|segfaults?|timeouts?|通过|成功|失败|挂死|卡住)"
    r"\W{0,3}(?:in |on )?(?P<n>\d{1,6}) ?(?:of|/|out of|in) ?(?P<all>\d{1,6})\b"
    r"|\b(?P<n2>\d{1,6}) ?(?:of|/|out of) ?(?P<all2>\d{1,6})\s+(?:\w+ )?(?P<what2>pass\w*|ok|good|correct|success\w*|complet\w+|finish\w*|works?"  # noqa: E501
    r""
    r"|hangs?|hung|fail\w*|crash\w*|errors?|abort\w*|wrong|corrupt\w*|segfaults?|timeouts?)\b",
    re.IGNORECASE,
)
_BAD = regex(r"hang|hung|fail|crash|error|abort|wrong|corrupt|segfault|timeout|失败|挂死|卡住", re.IGNORECASE)
# What is there without a change: it is set against what is better even where something else is worse.
_BASE = regex(
    r"\b(?:default|baseline|before|now|today|current(?:ly)?|as (?:is|shipped|found|delivered)|auto|unset|stock|tuner)\b"
    r"|默认|现状|改前",
    re.IGNORECASE,
)
_COMMAND = regex(r"^\s*(?:\$|#|>) (?:sudo )?[a-z][\w./-]*(?: |$)")
_ERRORS = regex(r"\b(?:errors?|failures?|mismatch\w*|hangs?|crash\w*|corrupt\w*|wrong|incorrect)\b", re.IGNORECASE)
_COUNTED = regex(r"^(?P<name>\S.*?)(?:\s{2,}|\t|\s*\|\s*|: +)(?P<n>\d{1,7})\s*$")
_TRIM = regex(r"[\s:=|→>~≈,;-]+$")
_MEASURES = regex(
    r"\b(?:bus_?bw|alg_?bw|bandwidth|latency|step time|median|mean|avg|p\d\d|about|gives|reaches)\s*$", re.I
)
_WAY = regex(r"\W*(?:rx|tx|in|out|read|write|sent|recv|received|up|down)\W*$", re.I)  # of one link: no setting


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    levels: tuple[tuple[str, float], ...]  # what was measured, and how well it went: larger is better
    line: Line


class PlainTurns:
    """Rows of names and figures without a head: the worst, against every clearly better one."""

    name = "plain_turns"
    needles: tuple[bytes, ...] = (b"  ", b": ", b" -> ", "：".encode(), "→".encode(), b"\t", b" | ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`lever.row`, labelled ``caption|worse|better|measure``; the settings are the words in which the rows differ."""  # noqa: E501
        if doc.is_binary or doc.size > _SMALL or doc.head.lstrip()[:1] in (b"{", b"<"):
            return
        caption, block, done = "", list[_Row](), ""
        for line in islice(doc.lines(), _LINES):
            text = line.prefix + line.text
            row = None if _LOG.search(text) else _row(text, line, caption)
            if row is not None:
                block.append(_Row(f"{row.name} {done}".strip(), row.levels, line) if done else row)
                done = ""
                continue
            if block and _COMMAND.match(text):  # what was done between two rows belongs to the one below it
                done = text.strip(" $#")[:60]
                continue
            if text.strip():
                yield from _turned(doc, caption, block)
                caption, block = text.strip(), []
        yield from _turned(doc, caption, block)


def _row(text: str, line: Line, caption: str) -> _Row | None:
    share = _SHARE.search(text)
    if share is not None:
        done, whole = float(share["n"] or share["n2"]), float(share["all"] or share["all2"])
        name = _TRIM.sub("", text[: share.start()])
        if not name or not 0 <= done <= whole or whole < 2:
            return None
        bad = _BAD.search(share["what"] or share["what2"]) is not None
        return _Row(name, (("runs", 1 - done / whole if bad else done / whole),), line)
    if len(text) > 200:
        return None
    counted = _COUNTED.match(text.strip()) if _ERRORS.search(caption) else None
    if counted is not None:
        return _Row(counted["name"].strip(), (("runs", 1 / (1 + int(counted["n"]))),), line)
    found: list[tuple[str, float]] = []
    name, behind = "", 0
    for figure in figures(text, 10):
        words = text[behind : figure.start]
        level = _level(figure, words, caption, text)
        if level is None:
            continue
        if not found:
            name = _MEASURES.sub("", _TRIM.sub("", text[: figure.start]))
        found.append(level)
        behind = figure.end
    name = _TRIM.sub("", name).strip()
    return _Row(name, tuple(found), line) if found and re.search(r"[^\W\d]", name) else None


def _level(figure: Figure, words: str, caption: str, text: str) -> tuple[str, float] | None:
    if text[: figure.start].endswith("=") or figure.value <= 0:
        return None
    unit, value = figure.unit, figure.value
    last = not text[figure.end :].strip(" \t)*.;")
    if unit is None and last and re.search(r"(?:\s{2}|[:=→>]\s?|\t|\|\s?)$", text[: figure.start]):
        spelled = header_unit(re.sub(r"(?<=\w)\(s\)|[:,]\s*$", "", caption))
        made = with_unit(value, spelled) if spelled else None
        if made is not None:
            value, unit = made
            words = f"{caption} {words}"
    metric = name_metric(words.strip(), unit, figure.raw, figure.per)
    if unit in IN_MS:
        return f"time {figure.per}".strip(), 1 / (value * IN_MS[unit])
    if unit in _RATES:
        return unit, value
    if unit == "count" and _PER_S.search(figure.raw):
        return figure.raw.lower(), value
    rated = metric.counts or (last and not metric.name.startswith("time"))
    if unit is None and metric.known and metric.better and rated:
        return metric.name, value if metric.better == "higher" else 1 / value
    return None


def _turned(doc: Document, caption: str, rows: list[_Row]) -> Iterator[Fact]:
    if not 2 <= len(rows) <= _ROWS or len(in_cells(caption)) >= 3:  # a head of columns: `levers` reads such tables
        return
    seen: set[str] = set()
    for k in range(max(len(r.levels) for r in rows)):
        known = [(r.levels[k][1], i, r) for i, r in enumerate(rows) if len(r.levels) > k]
        kinds = {r.levels[k][0] for _, _, r in known}
        if len(known) < 2 or len(kinds) != 1:
            continue
        kind = next(iter(kinds))
        low = min(level for level, _, _ in known)
        for bad, _, worse in sorted(known, key=lambda p: p[:2]):
            if bad > low and _BASE.search(worse.name) is None:
                continue
            for level, _, good in sorted(known, key=lambda p: -p[0]):
                if level < _LEAST * bad and not (kind == "runs" and level == 1.0 and bad <= 0.97):
                    break
                if bad == 0 and level < 0.5:
                    continue
                parts = caption, _apart(worse.name, good.name), _apart(good.name, worse.name), kind
                if _WAY.match(parts[1]) and _WAY.match(parts[2]):
                    continue
                label = "|".join(part.replace("|", "/")[:70] for part in parts)
                if label not in seen and len(seen) < 12:
                    seen.add(label)
                    yield _fact(doc, label, worse.line, good.line)


def _fact(doc: Document, label: str, worse: Line, better: Line) -> Fact:
    said = re.sub(r"\s+", " ", (worse.prefix + worse.text).strip())[:160]
    return Fact("lever.row", said, None, Subject(label=label), (doc.span(worse), doc.span(better)), status=doc.status)


def _apart(one: str, other: str) -> str:
    """The words of `one` that `other` lacks; all of them where it lacks none that differ."""
    there = set(re.split(r"[\s,;]+", other.lower()))
    return " ".join(w for w in one.split() if w.lower().strip(",;") not in there).strip(" :;,")


READERS: list[Reader] = [PlainTurns()]
