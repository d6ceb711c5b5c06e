"""Lines broken where a reader breaks them: at blanks, and between Chinese characters, never before a comma."""

from __future__ import annotations

import re
from unicodedata import east_asian_width


def wrapped(row: str, width: int, indent: str) -> list[str]:
    """Break a line at spaces, or between Chinese characters, which fill two columns each."""
    lines: list[str] = []
    lead = indent + " " * (len(row) - len(row.lstrip()))
    line, used = lead, len(lead)
    for piece in _pieces(row.strip()):
        wide = sum(2 if east_asian_width(c) in "WF" else 1 for c in piece.rstrip())
        if used + wide > width and line.strip():
            lines.append(line.rstrip())
            line, used = lead, len(lead)
        line += piece
        used += wide + len(piece) - len(piece.rstrip())
    return [*lines, line.rstrip()]


def _pieces(row: str) -> list[str]:
    """Words with the space behind them; single Chinese characters; punctuation is kept to what it closes or opens."""
    shut, opened = ",。;:、!?”)」，；：！？）》…", "“（《「"
    han = rf"[{opened}]*[\u2e80-\u9fff][{shut}]*"
    word = rf"[{opened}]*[^\s\u2e80-\u9fff{opened}，；：！？）。、”]+[{shut}]*"
    return re.findall(rf"(?:{han}|{word}|\S)\s*", row) or [row]
