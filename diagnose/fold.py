"""Lines of a page at the width of the terminal that shows them; what goes into a pipe or a file stays whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from .linebreak import wrapped

WIDEST = 120


def columns() -> int:
    """Columns of the terminal, or of COLUMNS; 0 where nothing is to be broken."""
    return min(shutil.get_terminal_size((0, 0)).columns, WIDEST)


def folded(text: str, width: int) -> Iterator[str]:
    """A line broken at `width` columns, what follows set in by two more; a command stays whole, so that it copies."""
    from rich.cells import cell_len

    head = len(text) - len(text.lstrip())
    room = width - head - 2
    if room < 20 or cell_len(text) <= width or text[head:].startswith("$"):
        yield text
        return
    for number, line in enumerate(wrapped(text[head:], room, "")):
        yield " " * (head + (2 if number else 0)) + line


def padded(text: str, width: int) -> str:
    """Text with blanks up to `width` columns; a Chinese character takes two."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))
