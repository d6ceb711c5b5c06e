"""Lines as a program wrote them, out of lines that launchers, log collectors, terminals and pastes changed.

Something in front of a line is only taken off where a run of lines has it in one shape: alone, `node3: 12 GB/s` or
`3: 12` may well be a row of a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from itertools import groupby, pairwise

from .errors import ParseError
from .safe_json import loads

_MOST_LINE = 1 << 16  # of an object in which a collector keeps a line
SAMPLE = 400  # lines that decide which changes a document went through
_LAYERS = 5  # that stand around each other: collector, launcher, time
_START = 300  # bytes of a line in which a prefix ends
_FEW = 3  # lines that a rank or process has on average where it is a prefix; fewer, and it labels rows
_NEARLY = 0.9
_WIDTHS = (80, 100, 120, 132, 140, 150, 160, 180, 200, 240)  # of terminals
_CUTS = 4  # lines cut in a row of words that show a width which is none of these

_ESCAPE = rb"(?:\x1b|\^\[|\\(?:u001b|x1b|033|e)|\xef\xbf\xbd)"  # as it is, and as viewers show it
_SGR = rb"(?:" + _ESCAPE + rb"\[[0-9;]{0,12}[mK]|\[\d{1,3}(?:;\d{1,3}){0,4}m(?!\]))"
_ANSI = _SGR + rb"{0,6}"
_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_DAY = rb"\d{4}[-/]\d\d[-/]\d\d"
_ZONE = rb"(?:Z|[+-]\d\d:?\d\d|[ ]UTC)?"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ]{1,2}\d{1,2}"
_END = rb"(?:[ ]|$)"


@dataclass(frozen=True)
class _Prefix:
    """What may stand in front of lines; a group names the process, or is the number of the line.

    Attributes:
        run: lines in a row that it takes.
        who: a group names a rank, a node or a process.
        time: the program itself may have printed it.
        counted: a group is the number of the line.
        every: each line has the same; else it is a column.
    """

    pattern: re.Pattern[bytes]
    run: int = 2
    who: bool = False
    time: bool = False
    counted: bool = False
    every: bool = False


def _prefix(pattern: bytes, run: int = 2, **kind: bool) -> _Prefix:
    return _Prefix(re.compile(_ANSI + rb"(?:" + pattern + rb")" + _ANSI), run, **kind)


_PREFIXES = (
    _prefix(rb"\[(?:[\w.@-]{1,80}@)?(\d+,\d+)\]<std(?:out|err|diag)>:", who=True),
    _prefix(rb"\[((?:rank|default|worker)[ _]?\d+)\](?::[ ]?|[ ]|$)", who=True),
    _prefix(rb"(\([A-Za-z_][\w.:-]{0,60}(?:[ ][\w.-]{1,40})?,?[ ](?:\w+=[\w.:-]+(?:,[ ])?)*pid=\d+"
            rb"(?:,[ ]\w+=[\w.:-]+)*\))" + _ANSI + _END, who=True),
    _prefix(rb"(\[pod/[\w./-]{1,200}\])" + _END, who=True),
    _prefix(rb"(\[[A-Za-z][\w.-]{0,60}:\d{1,5}\]):" + _END, who=True),
    _prefix(rb"([A-Za-z][\w.-]{0,60}[-_]\d{1,4})[ ]+\|" + _ANSI + _END, who=True),
    _prefix(rb"((?:gpu|node|host|worker|compute|dgx|n|cn|nid)[-\w.]{0,40}\d):" + _END, 4, who=True),
    _prefix(rb"(\d{1,4}):" + _END, 4, who=True),
    _prefix(rb"((?:\d{1,3}\.){3}\d{1,3}|[a-z][a-z0-9]*(?:-[a-z0-9]+)*-\d+(?:\.[\w.-]+)?):" + _END, 4, who=True),
    _prefix(rb"([a-z][a-z0-9-]*-[a-z0-9]{8,10}-[a-z0-9]{5})[ ][\w-]{1,60}" + _ANSI + _END, who=True),
    _prefix(rb"([A-Za-z][\w.-]{1,60})[ ]{2,}\|" + _ANSI + _END, 4, every=True),
    _prefix(rb"(?:" + _MONTH + rb"[ ]" + _CLOCK + rb"|" + _DAY + rb"T" + _CLOCK + _ZONE + rb")"
            rb"[ ]([\w.-]{1,80})[ ][\w./@()-]{1,60}(?:\[\d+\])?:" + _END, who=True),
    _prefix(_DAY + rb"T" + _CLOCK + _ZONE + rb"[ ](?:stdout|stderr)[ ][FP]" + _END),
    _prefix(_DAY + rb"[T ]" + _CLOCK + _ZONE + _END, time=True),
    _prefix(rb"\[(?:" + _DAY + rb"[T ])?" + _CLOCK + _ZONE + rb"\]" + _END, time=True),
    _prefix(rb">{1,2}" + _END),
    _prefix(rb"[ ]{0,8}([-*+]|\xe2\x80\xa2)[ ]", every=True),
    _prefix(rb"[\w/.-]{1,200}\.(?:log|txt|out|err|sh|ya?ml|conf|cfg|env|json|toml|service|sbatch):(\d{1,7})[:-]"),
    _prefix(rb"[\w/.-]{0,200}[/.][\w/.-]{1,200}:(\d{1,7})[:-]", 3, counted=True),
    _prefix(rb"(\d{1,7})[:-](?!\d\d\b)", 4, counted=True),
    _prefix(rb"[ ]{1,5}(\d{1,6})\t", 3, counted=True),
)  # fmt: skip

# Behind a time: a level without its own time, so the whole line is the program's and its reader knows it.
_OWN = re.compile(
    rb"(?:[ ]*[-|][ ].{0,80}?|[\[ ]*)"
    rb"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b(?!.{0,12}\d\d:\d\d)",
    re.IGNORECASE,
)
_WORD = re.compile(rb"[A-Za-z]{2}")
_DEVICE = re.compile(rb"gpu[ _]?\d{1,2}", re.IGNORECASE)  # says of what a line speaks, even where all lines have it

_SAID = ("log", "message", "msg", "line", "textPayload")  # where collectors keep the line of a program
_AROUND = frozenset(
    (
        "stream", "time", "timestamp", "ts", "@timestamp", "@version", "tag", "tags", "host", "hostname", "service",
        "source", "ddsource", "ddtags", "status", "level", "severity", "kubernetes", "docker", "container", "namespace",
        "container_id", "container_name", "pod", "labels", "id", "_id", "date", "attrs", "logtag", "resource", "node",
        "insertId", "logName", "receiveTimestamp", "app", "application", "cluster", "region", "file", "filename",
    )
)  # fmt: skip
_SIGNS = str.maketrans("\u00a0\u2007\u202f\u2018\u2019\u201c\u201d", "   ''\"\"", "\u200b\u200e\u200f\u2060")
SIGN = re.compile(  # not the single quotes: programs set them themselves
    rb"\xc2\xa0|\xe2\x80[\x87\x8b\x8e\x8f\xaf\x9c\x9d]|\xe2\x81\xa0|&(?:lt|gt|amp|quot|nbsp|#39|#x27);"
)
_COLOUR = re.compile(_SGR)
_RESET = re.compile(_ESCAPE + rb"?\[(?:0(?:;0)?|39|22)m(?!\])|" + _ESCAPE + rb"\[m")


@dataclass(slots=True)
class Piece:
    """A line of the capture, as the view has it.

    Attributes:
        start, end: its bytes in the capture.
        text: what the view shows.
        skip: bytes at the start that `text` leaves out; -1 where it is not the rest, byte for byte.
        by, label: what stood in front of all lines alike, and what tells this one from its neighbours.
        joined: it goes on where the line before it was cut.
    """

    start: int
    end: int
    text: bytes
    skip: int = 0
    by: bytes = b""
    label: bytes = b""
    joined: bool = False


def pieces_of(data: bytes, most: int = -1) -> list[Piece]:
    """Lines of a capture, `most` of them."""
    out, at = [], 0
    for raw in data.removesuffix(b"\n").split(b"\n", most)[: most if most > 0 else None]:
        text = raw.rstrip(b"\r")
        out.append(Piece(at, at + len(text), text))
        at += len(raw) + 1
    return out


def cut_lines(data: bytes) -> list[int]:
    """Lines, counted from 0, that go on where a terminal cut the one before."""
    pieces = pieces_of(data)
    return [n for n, p in enumerate(pieces) if p.joined] if _rejoined(pieces) else []


def undone(pieces: list[Piece]) -> list[Piece]:
    """The lines with all that was done to them taken back; none where that is nothing."""
    kept = _unspaced(pieces)
    changed = len(kept) < len(pieces)
    changed |= _rejoined(kept)
    lines = [p for p in kept if not p.joined and p.text.strip()]
    for _ in range(_LAYERS):
        if not _unpacked(lines) and not any(_stripped(lines, prefix) for prefix in _PREFIXES):
            break
        changed = True
        lines = [p for p in lines if p.text.strip()]
    changed |= _uncoloured(lines)
    changed |= _dedented(lines)
    changed |= _ascii_signs(kept)
    return kept if changed else []


def _unspaced(pieces: list[Piece]) -> list[Piece]:
    """Without the blank line that follows every line."""
    full = [n for n, p in enumerate(pieces) if p.text.strip()]
    gaps = [b - a for a, b in pairwise(full)]
    if len(full) < 3 or sum(g % 2 == 0 for g in gaps) < _NEARLY * len(gaps):
        return pieces
    return [p for n, p in enumerate(pieces) if n >= full[0] and (n - full[0]) % 2 == 0]


def _rejoined(pieces: list[Piece]) -> bool:
    """Join lines that a terminal cut at its width: full ones whose next begins in the middle of a word."""
    widths = [_width(p.text) for p in pieces]
    width = max(widths, default=0)
    if width < _WIDTHS[0]:
        return False
    full = [
        n for n in range(1, len(pieces))
        if widths[n - 1] == width and pieces[n].text.strip() and not _bordered(pieces[n - 1].text, pieces[n].text)
    ]  # fmt: skip
    cut = [n for n in full if not _begins(pieces, n, widths[n] == width, len(full) < _CUTS)]
    within = [n for n in cut if _INSIDE.match(pieces[n - 1].text[-2:] + pieces[n].text[:2])]
    rows = len(cut) > 2 and len({width, *(widths[n] for n in cut)}) == 2  # of a table: one rest behind each
    if not rows and (len(cut) < 3 or len(within) < 0.6 * len(cut)):
        cut = within
    if len(cut) < (1 if width in _WIDTHS else _CUTS) or len(cut) < 0.5 * len(full):
        return False
    for n in cut:
        pieces[n].joined = True
    return True


# Two characters between which a word, a number or a command goes on
_INSIDE = re.compile(
    rb".[a-z][a-z]|.[A-Z][A-Za-z]|.\d[\d.,:%]|.[.,]\d|.\S \S|\S \S|.[-/_=(\"'\[{<@&%+~#$]\w"
    rb"|.\w[-/_=)\"'\]}>,;<@&%+(]|.[:.][/_-]|.[,;]\S|.\)[\].,;:/]"
)
_COLUMNS = re.compile(rb".*\S {2,}\S.*\S {2,}\S|[\w.]+, [^,]{1,30}, ")
_BORDER = re.compile(rb"[|+=_*#-]{2}")


def _width(text: bytes) -> int:
    """Characters that a terminal shows."""
    if b"\x1b" in text:
        text = _COLOUR.sub(b"", text)
    return len(text) if text.isascii() else len(text.decode("utf-8", "replace"))


def _bordered(before: bytes, text: bytes) -> bool:
    ends = before[-1:] in (b"|", b"+") or _BORDER.match(before, len(before) - 2) is not None
    return ends or _BORDER.match(text) is not None


def _begins(pieces: Sequence[Piece], n: int, full: bool, few: bool) -> bool:
    """Does a line begin with this one, as a row or the head of a table or a line of a log does?"""
    before, text = pieces[n - 1].text, pieces[n].text
    if few and _COLUMNS.match(text) and (text[:1] == b" " or not _COLUMNS.match(before)):
        return True
    after = pieces[n + 1].text if n + 1 < len(pieces) else b""
    if text[:1] == b" " and _COLUMNS.match(text):  # as many columns as a neighbour: rows, whose figures right-align
        near = [t for t in (before, after) if _COLUMNS.match(t)]
        if any(len(t.split()) == len(text.split()) for t in near):
            return True
    return _alike(before, text, full) or (not full and bool(after.strip()) and _alike(text, after, False))


def _alike(a: bytes, b: bytes, wide: bool) -> bool:
    """Do two lines begin in one way? Behind a gap only where both are `wide`."""
    one, two = a[:6].translate(_CLASSES), b[:6].translate(_CLASSES)
    if not one.strip():
        return wide
    return a[:4] == b[:4] or (one == two and one != b"a" * 6)


_CLASSES = bytes(48 if 48 <= c < 58 else 97 if chr(c).isalpha() else c for c in range(128)) + bytes(range(128, 256))


def _unpacked(lines: list[Piece]) -> bool:
    """Take a program's lines out of the objects in which a collector keeps them."""
    if not any(_said(p.text) is not None for p in lines[:SAMPLE]):
        return False
    said = [_said(p.text) for p in lines]
    found = [n for run in _runs(said) if len(run) >= min(2, len(lines)) for n in run]
    for n in found:
        lines[n].text, lines[n].skip = (said[n] or "").rstrip("\r\n").encode("utf-8", "replace"), -1
    return bool(found)


def _runs(found: Sequence[object]) -> list[list[int]]:
    """Places next to each other that have something."""
    return [list(g) for has, g in groupby(range(len(found)), lambda n: found[n] is not None) if has]


def _said(raw: bytes) -> str | None:
    if len(raw) > _MOST_LINE or raw.lstrip()[:1] != b"{" or raw.rstrip()[-1:] != b"}":
        return None
    try:
        made = loads(raw)
    except ParseError:
        return None
    if not isinstance(made, dict):
        return None
    keys = [k for k in _SAID if isinstance(made.get(k), str)]
    if len(keys) != 1 or len(made) < 3 or not made.keys() - {keys[0]} <= _AROUND:
        return None
    text: str = made[keys[0]]
    return text


def _stripped(lines: list[Piece], prefix: _Prefix) -> bool:
    """Take a prefix off the lines that have it, if it is one."""
    if not any(prefix.pattern.match(p.text, 0, _START) for p in lines[:SAMPLE]):
        return False
    hits = [prefix.pattern.match(p.text, 0, _START) for p in lines]
    needed = min(prefix.run, max(len(lines), 1 if prefix.run == 2 else 2))
    runs = [[(lines[n], hit) for n in run if (hit := hits[n])] for run in _runs(hits) if len(run) >= needed]
    if prefix.counted:
        runs = [run for run in runs if _numbered(run)]
    chosen = [one for run in runs for one in run]
    if not chosen or not _is_prefix(prefix, chosen, len(lines)):
        return False
    label = prefix.who and (len({hit[1] for _, hit in chosen}) > 1 or _DEVICE.fullmatch(chosen[0][1][1]) is not None)
    for piece, hit in chosen:
        piece.text = piece.text[hit.end() :]
        piece.skip += hit.end() if piece.skip >= 0 else 0
        if label:
            piece.label += hit[0]
        else:
            piece.by += hit[0]
    return True


def _is_prefix(prefix: _Prefix, chosen: list[tuple[Piece, re.Match[bytes]]], lines: int) -> bool:
    rests = [p.text[hit.end() : hit.end() + _START] for p, hit in chosen]
    if prefix.time:
        own = sum(1 for r in rests if _OWN.match(r))
        words = sum(1 for r in rests if _WORD.search(r))
        return own < 0.5 * len(rests) and (words > 0.5 * len(rests) or _WORD.search(rests[0]) is not None)
    if prefix.every:
        return len(chosen) == lines and len({hit[1] for _, hit in chosen}) == 1
    if prefix.who:
        names = {hit[1] for _, hit in chosen}
        return len(names) == 1 or len(chosen) >= _FEW * len(names)
    return True


def _numbered(run: list[tuple[Piece, re.Match[bytes]]]) -> bool:
    """Are these numbers of lines, not ranks, batches or times?"""
    numbers = [int(hit[1]) for _, hit in run]
    if any(a >= b for a, b in pairwise(numbers)):
        return False
    rests = [p.text[hit.end() : hit.end() + _START] for p, hit in run]
    sizes = all(n % max(numbers[0], 1) == 0 for n in numbers)
    flush = sum(1 for r in rests if r[:1] not in (b" ", b""))
    long = sum(map(len, rests)) > 20 * len(rests)
    return run[0][1][0][-1:] == b"\t" or (long and (flush > 0.3 * len(rests) or not sizes))


def _dedented(lines: list[Piece]) -> bool:
    """Take off the gap in front of all lines."""
    if len(lines) < 2:
        return False
    size = min(len(p.text) - len(p.text.lstrip()) for p in lines)
    gap = lines[0].text[:size]
    if not gap or any(p.skip < 0 or not p.text.startswith(gap) for p in lines):
        return False
    for piece in lines:
        piece.text, piece.skip = piece.text[size:], piece.skip + size
    return True


def _uncoloured(pieces: list[Piece]) -> bool:
    """Without what is left of colours where the escape got lost: `[36m(pid=7)[0m`, `^[[1m`."""
    found = [p for p in pieces if b"m" in p.text and b"\x1b" not in p.text and _RESET.search(p.text)]
    for piece in found:
        piece.text, piece.skip = _COLOUR.sub(b"", piece.text), -1
    return bool(found)


def _ascii_signs(pieces: list[Piece]) -> bool:
    """Quotes, gaps and HTML entities as programs write them."""
    if not any(SIGN.search(p.text) for p in pieces):
        return False
    for piece in pieces:
        if not piece.text.isascii() or b"&" in piece.text:
            text = unescape(piece.text.decode("utf-8", "replace")).translate(_SIGNS).encode()
            if text != piece.text:
                piece.text, piece.skip = text, -1
    return True
