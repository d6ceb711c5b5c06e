"""Figures of lists, headed blocks and prose: which words name the metric, which the setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from diagnose.axes import OTHER, classify, common
from diagnose.document import Document, Line
from diagnose.lazy import regex

from .generic_figures import Figure, Metric, figures, header_unit, name_metric, statistic, with_unit
from .generic_readings import Group, Reading, reading

MAX_LINE = 1000
LOG = regex(
    r"^\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:+Z-]*\]?|\[?\d\d:\d\d:\d\d[.,\d]*\]?"
    r"|[A-Z]\d{4} \d\d:\d\d:\d\d\S*|"
    r"(?:INFO|WARNING|WARN|ERROR|DEBUG|TRACE)\b)|\bNCCL (?:INFO|TRACE|WARN)\b|^\[\s*\d+\.\d{6}\]|\[\w+\.py:\d+\]"
)
_PREFIX = regex(
    r"^\s*(?:\(\w+ pid=\d+\)\s*)?(?:(?:INFO|WARNING|ERROR|DEBUG)\s*:?\s+)?(?:\[?\d{4}-\d\d-\d\d[T ]"
    r"|\d\d-\d\d )?(?:\d\d:\d\d:\d\d[\d.,+Z]*\]?)?"
    r"(?:\s*(?:INFO|WARNING|ERROR|DEBUG)\b:?)?(?:\s*\[[\w./]+\.py:\d+\])?\s*(?:Engine \d+:)?\s*"
)
_SKIP = regex(
    r"\bNCCL (?:INFO|TRACE|WARN)\b|^\s*#\s*(?:HELP|TYPE)\b|^\s*[a-zA-Z_:][\w:]*\{|^[a-z_:]+_(?:sum|count|total"
    r"|bucket|created)\s+[\d.]|^\s*\||(?:\"[^\"]*\"[^\"]*){3}|NVRM|\bXid\b|0x[0-9a-f]{6,}|^\s*File \"|^\s*at\s"
    r"|\b(?:float|half|bfloat16|int8|uint8|int32|double)\s+(?:sum|prod|max|min|none|avg)\b|LnkSta|LnkCap|ACSCtl"
    r"|inet6? |SpecDecoding metrics|nThread \d|minBytes|nranks \d"
    r"|^\s*(?:import|def|class|return)\b.*[:(]|^\s*from \S+ import|^\s*(?:for|if|while|with)\b.*:\s*(?:#.*)?$"
    r"|<\d+>|\\$",
)
_PROGRESS = regex(r"\d+/\d+ \[\d+:\d+<")
_COMMAND = regex(
    r"^\s*[$>]\s|^\s*--?[a-z]|^\s*(?:export\s+)?[A-Z][A-Z0-9_]{2,}=|^\s*(?:docker|vllm|python3?|torchrun|mpirun"
    r"|srun)\s|\s--[a-z]"
)
_BULLET = regex(r"^\s*(?:[-*•·–]\s+|\(?\d{1,2}[.)]\s+|\([a-z]\)\s+)")
_LEADS = (
    regex(r"^(?P<lead>[^\t:：]{1,80}?)\s*[:：]\s*(?P<rest>\S.*)$"),
    regex(r"^(?P<lead>[^\t:：]{1,80}?)(?:\s+[-–—]\s+|\t+|\s{2,}|\s*(?:=>|->|→)\s*)(?P<rest>\S.*)$"),
)
_CUT = regex(
    r"[,;]\s+|[，；。、]\s*|\.\s+|\s\|\s|\s{3,}|\s+(?:vs\.?|versus|against|but|while|whereas|and|compared (?:to"
    r"|with)|instead of|→|->)\s+",
    re.IGNORECASE,
)
_FROM_TO = regex(r"^\s*(?:to|->|→|=>|down to|up to|到|变成|降到|升到|涨到)\s*$", re.IGNORECASE)
_COUNTED = regex(
    r"^\s*-?((?:[a-z]+ ){0,2}?(?:ops?|operations?|desc(?:riptor)?s?|chunks?|requests?|reqs?|messages?|msgs?"
    r"|blocks?|transfers?"
    r"|packets?|events?|layers?|kernels?|launches|deltas?|reads?|writes?|ios?))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Note:
    """A figure of a line: `words` name it, `lead` stands before the colon, `block` and `heading` place it."""

    figure: Figure
    metric: Metric
    words: str
    lead: str
    heading: str
    caption: str
    block: int
    line: Line
    noun: str = ""
    clause: int = 0

    @property
    def name(self) -> str:
        """All words on the line that tell it apart."""
        return f"{self.lead} {self.words}".strip()


@lru_cache(maxsize=4096)
def strip(text: str) -> str:
    """A line without log prefix and bullet."""
    hit = _PREFIX.match(text)
    if hit and hit.end() and LOG.search(text[:80]):
        text = text[hit.end() :]
    return _BULLET.sub("", text, count=1).strip()


def skipped(line: Line) -> bool:
    """Lines that other readers own, code, addresses."""
    return len(line.text) > MAX_LINE or _SKIP.search(line.text) is not None


def notes(lines: list[Line], used: set[int]) -> list[Note]:
    """Figures of all lines not `used` by tables, with their headings."""
    out: list[Note] = []
    heading, caption, block = "", "", 0
    shape = _headings(lines, used)
    for i, line in enumerate(lines):
        if i in used or not line.text.strip():
            continue
        kind = shape.get(i)
        if kind == "heading":
            joined = i and shape.get(i - 1) == "heading"
            heading = f"{heading} {line.text.strip()}" if joined else line.text.strip()
            caption = ""
            block += 1
        elif kind == "caption":
            caption = line.text.strip()
        elif not skipped(line):
            out.extend(_line(line, heading, caption, block))
    return out


def _headings(lines: list[Line], used: set[int]) -> dict[int, str]:
    """Which lines head what follows: a setting (`heading`) or a metric (`caption`)."""
    out: dict[int, str] = {}
    for i, line in enumerate(lines):
        text = line.text.strip()
        if i in used or not text or len(text) > 200:
            continue
        found = figures(text)
        if _COMMAND.search(text) and not any(f.unit not in (None, "count") or f.raw for f in found):
            out[i] = "heading"
            continue
        marked = text[0] in "#=*>[" or text.endswith((":", "：")) or text.startswith(("--- ", "== "))
        short = len(text) <= 80 and not text.endswith((".", "。"))
        if len(text.split()) > 12 or not (marked or (short and not found) or _bare_title(text, found)):
            continue
        metric = name_metric(text)
        if found and any(f.unit not in (None, "count") for f in found):
            if not text.endswith((":", "：")):
                continue
        elif found and metric.known and not marked:
            continue
        alone = len(text.split()) <= 6 and classify(text, "")[:1] == (OTHER,)
        if metric.known and (text.endswith((":", "：")) or header_unit(text) or alone) and not found:
            out[i] = "caption"
        elif marked or not found or _bare_title(text, found):
            out[i] = "heading"
    return out


def _bare_title(text: str, found: list[Figure]) -> bool:
    """``release 0.3.2``, ``2 GPUs``: words that alone name a setting."""
    if len(text) > 60 or any(f.unit not in (None, "count") for f in found) or name_metric(text).known or "=" in text:
        return False
    return not re.search(r"[:：]\s*\S", text) and classify(text, "")[:1] not in ((OTHER,), ("flag",), ())


def _line(line: Line, heading: str, caption: str, block: int) -> Iterator[Note]:
    text = strip(line.text)
    found = figures(text)
    if not found:
        return
    lead, start, gap = "", 0, False
    for pattern in _LEADS:
        hit = pattern.match(text)
        if hit is None:
            continue
        rest = hit.start("rest")
        later = [f for f in found if f.start >= rest]
        inside = any(not _sets(f, later[0] if later else f) for f in found if f.start < rest)
        if later and not inside:
            lead, start, found = hit.group("lead").strip(), rest, later
            gap = pattern is _LEADS[1]
            break
    cuts = [c.span() for c in _CUT.finditer(text, start)]
    cuts = [c for c in cuts if not any(f.start < c[1] and c[0] < f.end for f in found)]
    if gap:
        cuts = _labelled(text, start, cuts, found)
    spans = list(zip([start, *(c[1] for c in cuts)], [*(c[0] for c in cuts), len(text)], strict=True))
    last: tuple[Metric, str | None] | None = None
    for k, (a, b) in enumerate(spans):
        mine = [f for f in found if a <= f.start < b]
        if k and gap:
            lead = ""  # a label before a gap names the figure beside it, not the next one
        anchors = [
            f for f in mine if f.unit not in (None, "count") or f.raw not in ("", *"kKmM")
        ]  # plain numbers belong to the words
        for n, figure in enumerate(mine):
            others = [f for f in (anchors if figure in anchors else mine) if f is not figure]
            left = max((f.end for f in others if f.end <= figure.start), default=a)
            right = min((f.start for f in others if f.start >= figure.end), default=b)
            before, after = text[left : figure.start].strip(" ~≈:=("), text[figure.end : right].strip(" ).")
            after = f"{_adjective(text, figure)} {after}".strip()
            if n and _FROM_TO.match(before):
                before = ""
            words = before if len(others) and before else f"{before} {after}".strip()
            noun = _counted(text, figure, lead or before)
            metric = _metric(figure, words, lead, caption, last, text, a)
            if metric is None:
                if noun and figure.unit in (None, "count"):
                    yield Note(
                        figure, Metric("count", None, False), words, lead, heading, caption, block, line, noun, k
                    )
                continue
            if metric.known:
                last = metric, figure.unit
            if (
                figure.unit is None
                and (unit := header_unit(caption) or header_unit(lead))
                and (made := with_unit(figure.value, unit))
            ):
                figure = Figure(figure.start, figure.end, figure.text, made[0], made[1], unit)
            yield Note(figure, metric, words, lead, heading, caption, block, line, noun, k)


def _labelled(text: str, start: int, cuts: list[tuple[int, int]], found: list[Figure]) -> list[tuple[int, int]]:
    """Without the gaps between a label and its figure: ``first call   41 s   second call   0.03 s``."""
    out: list[tuple[int, int]] = []
    begin = start
    for a, b in cuts:
        measured = any(begin <= f.start < a and f.unit not in (None, "count") for f in found)
        if text[a:b].isspace() and not measured:
            continue
        out.append((a, b))
        begin = b
    return out


def _sets(figure: Figure, first: Figure) -> bool:
    """Can a figure before the colon be the setting: a count, a power, a clock, a size beside something else?"""
    return figure.unit in (None, "count") or (
        figure.unit in ("W", "MHz", "B", "GiB", "C") and figure.unit != first.unit
    )


def _adjective(text: str, figure: Figure) -> str:
    """``output`` of ``113.31 output tokens/s``."""
    inside = text[figure.start + len(figure.text) : figure.end].split()
    return inside[0] if len(inside) == 2 and inside[0].isalpha() and inside[0].lower() != figure.raw.lower() else ""


def _counted(text: str, figure: Figure, before: str) -> str:
    """What a bare number counts: the noun behind it, or the label before it."""
    hit = _COUNTED.match(text[figure.end : figure.end + 40])
    if hit:
        return hit.group(1)
    return before if _COUNTED.match(before + " ") and not re.search(r"size|time|rate", before) else ""


def _metric(
    figure: Figure,
    words: str,
    lead: str,
    caption: str,
    last: tuple[Metric, str | None] | None,
    text: str,
    clause: int,
) -> Metric | None:
    """The metric of a figure in prose, or None for a bare number that nothing names."""
    unit = figure.unit
    unitless = unit in (None, "count") and not figure.raw
    for said in filter(None, (words, f"{lead} {words}".strip() if lead else "")):
        got = name_metric(said, unit, figure.raw, figure.per)
        if got.known:
            before = text[max(0, figure.start - 3) : figure.start]
            near = " ".join(text[clause : figure.start].split()[-2:])  # busbw 268
            named = name_metric(near).known if near else False
            assigned = got.counts and (named or re.search(r"[:=：]\s*~?$|\s{2,}$|\t$", before) is not None)
            return got if not unitless or assigned or "." in figure.text or header_unit(lead) else None
    if caption:
        if lead.lower() == "count":
            return None
        got = name_metric(f"{caption} {lead} {words}", unit, figure.raw, figure.per)
        if got.known and (not unitless or header_unit(caption)):
            return got
    if unitless:
        return None
    if last is not None and last[1] == unit:
        stat = statistic(words)
        if stat and len(words.split()) <= 2:
            base = last[0].name.rpartition("_")[0] if statistic(last[0].name.rpartition("_")[2]) else last[0].name
            return replace(last[0], name=f"{base}_{stat}")
        if not words or (len(words.split()) <= 5 and classify(words, "")[:1] not in ((OTHER,), ())):
            return last[0]
    got = name_metric(words, unit, figure.raw, figure.per)
    return replace(got, known=got.known or unit in ("tokens/s", "req/s"))


def groups(doc: Document, found: list[Note], small: bool) -> Iterator[Group]:
    """Comparable readings of the notes: within a line, within a block, across headed blocks."""
    if small:
        yield from _within_lines(doc, found)
    by_line: dict[tuple[int, str], int] = {}
    for note in found:
        key = (note.line.start, _key(note))
        by_line[key] = by_line.get(key, 0) + 1
    single = [n for n in found if by_line[(n.line.start, _key(n))] == 1 and n.metric.name != "count"]
    yield from _within_blocks(doc, single, small)
    yield from _across(doc, [n for n in single if small or _COMMAND.search(n.heading)])
    if small:
        yield from _described(doc, single)


def _key(note: Note) -> str:
    return f"{note.metric.name}|{'r' if note.figure.unit is None else ''}"


def _within_lines(doc: Document, found: list[Note]) -> Iterator[Group]:
    lines: dict[tuple[int, str], list[Note]] = {}
    for note in found:
        if note.metric.name != "count":
            lines.setdefault((note.line.start, note.metric.name), []).append(note)
    for items in lines.values():
        if not 2 <= len(items) <= 16 or _PROGRESS.search(items[0].line.text):
            continue
        a, b = items[0], items[1]
        text = strip(a.line.text)
        gap = text[a.figure.end : b.figure.start]
        if len(items) == 2 and _FROM_TO.match(gap) and a.figure.unit is not None:
            rest = text[: a.figure.start] + " " + text[b.figure.end :]
            yield Group(a.metric, [_reading(doc, a, "before"), _reading(doc, b, "after")], over=rest, firm=True)
            continue
        apart = len({n.clause for n in items}) == len(items) or classify(a.words, b.words)[:1] == ("direction",)
        if apart and len({n.words.lower() for n in items}) == len(items):
            yield Group(a.metric, [_reading(doc, n, n.words or n.lead) for n in items], over=a.lead)
        elif len(items) >= 4 and len({n.words.lower() for n in items[1:]}) == 1:
            order = [_reading(doc, n, f"request {k}") for k, n in enumerate(items, 1)]
            yield Group(a.metric, order, over="request")


_RANK = regex(r"^\W*(?:local_|global_)?(?:rank|worker|node|host)[ _:=#-]{0,2}(\d{1,4})\b", re.I)


def _reading(doc: Document, note: Note, setting: str) -> Reading:
    return reading(doc, note.line, note.figure, note.metric, setting)


def _within_blocks(doc: Document, found: list[Note], small: bool) -> Iterator[Group]:
    """Lists under one heading; in a long text only such as name alike subjects (ranks, hosts)."""
    blocks: dict[tuple[int, str, str], list[Note]] = {}
    for note in found:
        blocks.setdefault((note.block, note.caption, note.metric.name), []).append(note)
    for items in blocks.values():
        names = [n.name.lower() for n in items]
        if len(items) >= 4 and len(set(names)) == 1:
            if any(_PROGRESS.search(n.line.text) for n in items):
                continue  # averages of a progress bar
            if len({r[1] for n in items if (r := _RANK.match(n.line.prefix + n.line.text))}) > 1:
                continue  # ranks side by side, which are no requests in a row
            yield Group(
                items[0].metric, [_reading(doc, n, f"request {k}") for k, n in enumerate(items, 1)], over="time"
            )
        elif len(items) >= 2 and len(set(names)) > 1:
            if not small and len({re.sub(r"\d+", "#", n) for n in names}) > 1:
                continue
            shared = common([n.name for n in items])[0]
            led = len({n.lead.lower() for n in items if n.lead}) == len(items)
            if not items[0].metric.known and not _alike(items, found, led):
                continue
            members = [_reading(doc, n, n.lead if led else n.name) for n in items]
            yield Group(items[0].metric, members, over=shared, firm=items[0].metric.known)


def _alike(items: list[Note], found: list[Note], led: bool) -> bool:
    """Figures that only their unit names compare where their lines are built alike."""
    if led and len({n.words.lower() for n in items}) == 1:
        return True
    built: dict[int, list[str]] = {n.line.start: [] for n in items}
    for note in found:
        if note.line.start in built:
            built[note.line.start].append(note.metric.name)
    return len({tuple(names) for names in built.values()}) == 1


def _across(doc: Document, found: list[Note]) -> Iterator[Group]:
    """The same words under different headings."""
    same: dict[tuple[str, str], list[Note]] = {}
    for note in found:
        if note.heading:
            same.setdefault((note.metric.name, f"{note.caption} {note.name}".lower().strip()), []).append(note)
    for items in same.values():
        if len({n.block for n in items}) >= 2:
            yield Group(items[0].metric, [_reading(doc, n, n.heading) for n in items], firm=True)


def _described(doc: Document, found: list[Note]) -> Iterator[Group]:
    """Figures under one heading only: kept for comparisons with another document."""
    heads = {n.heading for n in found}
    if len(heads) == 1 and (head := next(iter(heads))):
        for note in found:
            yield Group(note.metric, [_reading(doc, note, head)])


def plain(doc: Document, found: Iterable[Note]) -> Iterator[Reading]:
    """Every figure on its own, its setting being the words beside the metric."""
    for note in found:
        setting = note.lead if note.lead and not name_metric(note.lead).known and not statistic(note.lead) else ""
        yield _reading(doc, note, setting or note.heading or (note.noun if note.metric.name == "count" else ""))
