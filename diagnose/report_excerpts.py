"""Captures beside a report: the lines it cites, with some around them, as text that is safe to pass on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .document import Document, clean
from .lazy import regex
from .mask import secrets
from .models import Evidence, InputRef

AROUND = 3  # lines shown before and after a cited one
MASK_AROUND = 40  # lines read around it, so that a secret of many lines is seen whole
MOST_LINES = 400  # of one capture
WIDTH = 500  # characters of a line
_COLOUR = regex(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
BUDGET = 300_000  # characters of all captures together


@dataclass(frozen=True)
class Row:
    """One line. `ids` are the evidences that cite it; `gap` says that lines were left out before it."""

    number: int
    text: str
    ids: tuple[str, ...] = ()
    gap: bool = False


@dataclass
class Excerpt:
    """The cited part of one capture. `note` says why it is less than the capture, or not from it."""

    name: str
    rows: list[Row] = field(default_factory=list)
    note: str = ""


def visible(text: str) -> str:
    """Text as it is, without what a terminal or a browser would act on (colour codes, direction marks)."""
    if text.isprintable():
        return text
    text = _COLOUR.sub("", text)
    return "".join(c if c.isprintable() or c in "\t\n" else " " if c.isspace() else "\ufffd" for c in text)


def excerpts(
    cited: Iterable[Evidence], inputs: Iterable[InputRef], documents: Iterable[Document], budget: int = BUDGET
) -> list[Excerpt]:
    """One excerpt a cited capture, those with most citations first; the quotes alone where it is not at hand."""
    quotes: dict[str, dict[int, dict[str, str]]] = {}
    for item in cited:
        for span in item.spans:
            quotes.setdefault(span.capture, {}).setdefault(max(span.line, 1), {})[item.id] = span.quote
    sums = {i.name: i.sha256 for i in inputs}
    at_hand = {d.name: d for d in documents}
    out = []
    for name in sorted(quotes, key=lambda n: (-len(quotes[n]), n)):
        lines = dict(sorted(quotes[name].items())[:MOST_LINES])
        doc = at_hand.get(name)
        if doc is None:
            made = _quoted(name, lines, "Only the quoted lines: the capture was not at hand when this page was made.")
        elif doc.sha256 != sums.get(name):
            made = _quoted(name, lines, "Only the quoted lines: the capture has changed since the report was made.")
        elif doc.is_binary:
            made = _quoted(name, lines, "Only what was read from it: the capture is no text.")
        else:
            made = _read(doc, lines)
        if len(quotes[name]) > len(lines):
            made.note = f"{made.note} {len(quotes[name]) - len(lines)} cited lines are left out.".strip()
        out.append(made)
        budget = _fit(made, budget)
    return out


def _fit(excerpt: Excerpt, budget: int) -> int:
    """Keep what the budget allows, cited lines before those around them; returns what is left of it."""
    size = sum(len(r.text) + 60 for r in excerpt.rows)
    if size > budget:
        excerpt.rows = [r for r in excerpt.rows if r.ids]
        excerpt.note = f"{excerpt.note} Lines around the cited ones are left out to keep the page small.".strip()
        kept: list[Row] = []
        for row in excerpt.rows:
            if budget < len(row.text) + 60:
                break
            budget -= len(row.text) + 60
            kept.append(row)
        excerpt.rows = kept
        return budget
    return budget - size


def _quoted(name: str, lines: Mapping[int, Mapping[str, str]], note: str) -> Excerpt:
    rows, last = [], 0
    for number, ids in lines.items():
        text = max(ids.values(), key=len)
        rows.append(Row(number, visible(clean(text.encode())[0] or text), tuple(ids), gap=number > last + 1))
        last = number
    return Excerpt(name, rows, note)


def _read(doc: Document, lines: Mapping[int, Mapping[str, str]]) -> Excerpt:
    wanted = {n for line in lines for n in range(line - AROUND, line + AROUND + 1)}
    wide = {n for line in lines for n in range(line - MASK_AROUND, line + MASK_AROUND + 1)}
    stop, raws = max(wide), dict[int, str]()
    for number, _, raw in doc.raw_lines():
        if number > stop:
            break
        if number in wide and len(raws.get(number, "")) < 1 << 16:  # a very long line comes in pieces
            text, prefix = clean(raw.rstrip(b"\r\n") if doc.encoding == "utf-8" else raw, doc.encoding)
            raws[number] = raws.get(number, "") + prefix + text
    safe = masked(raws)
    rows, last = [], 0
    for number in sorted(wanted & safe.keys()):
        ids = lines.get(number, {})
        text = _window(safe[number], ids.values())
        rows.append(Row(number, visible(text), tuple(ids), gap=number > last + 1))
        last = number
    return Excerpt(doc.name, rows, doc.cut or "")


def _window(text: str, quotes: Iterable[str]) -> str:
    """The part of a long line that holds the first quote."""
    if len(text) <= WIDTH:
        return text
    at = next((found for q in quotes if (found := text.find(q[:80])) >= 0), 0)
    start = max(0, at - 80)
    return ("…" if start else "") + text[start : start + WIDTH] + ("…" if start + WIDTH < len(text) else "")


def masked(lines: dict[int, str]) -> dict[int, str]:
    """The lines without secrets: found in each stretch as a whole, and then wherever they stand again."""
    words: dict[str, str] = {}
    out: dict[int, str] = {}
    for stretch in _stretches(sorted(lines)):
        text = "\n".join(lines[n] for n in stretch)
        for start, end, kind in reversed(secrets(text)):
            if end - start >= 8:
                words.setdefault(text[start:end], kind)
            text = f"{text[:start]}[masked: {kind}]" + "\n" * text.count("\n", start, end) + text[end:]
        out.update(zip(stretch, text.split("\n"), strict=True))
    for number, text in out.items():
        for word, kind in words.items():
            if word in text:
                out[number] = text = text.replace(word, f"[masked: {kind}]")
    return out


def _stretches(numbers: list[int]) -> list[list[int]]:
    out: list[list[int]] = []
    for number in numbers:
        if out and out[-1][-1] == number - 1:
            out[-1].append(number)
        else:
            out.append([number])
    return out
