"""Where a practice's lines come from and go to: a keyboard, a pipe or a script; text, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import UsageError
from .linebreak import wrapped
from .practice_words import say

LANGS = ("en", "zh")
SCHEMA = "diagnose.practice/v1"
WIDTH = 79
PAGE = 22  # rows at a time: 24, less the line that asks and the one below it


class Talk:
    """Where lines come from and go to.

    Attributes:
        lang: of everything said. fresh: the lines are a script, which starts anew and is not asked for more.
    """

    def __init__(self, script: str, shows: bool, lang: str) -> None:
        self.lang = lang
        self.shows = shows
        self.fresh = bool(script)
        self._script = script
        self._keys = not script and sys.stdin.isatty()

    def lines(self, prompt: Callable[[], str]) -> Iterator[str]:
        """What the player types, or the script's lines, shown as if they had been typed.

        Raises:
            UsageError: the script cannot be read.
        """
        if self._keys:
            while True:
                try:
                    yield input(f"{prompt()}> " if self.shows else "")
                except EOFError:
                    sys.stdout.write("\n")
                    return
        elif self._script not in ("", "-"):
            try:
                text = Path(self._script).read_text("utf-8", "replace")
            except OSError as err:
                raise UsageError(f"{self._script}: {err.strerror}") from err
            yield from self._echo(iter(text.splitlines()), prompt)
        else:
            yield from self._echo((line.rstrip("\r\n") for line in sys.stdin), prompt)

    def _echo(self, lines: Iterator[str], prompt: Callable[[], str]) -> Iterator[str]:
        for line in lines:
            if line.strip() and not line.lstrip().startswith("#"):
                self.say([f"{prompt()}> {line.strip()}"])
                yield line

    def pages(self, lines: list[str]) -> None:
        """Print what is longer than a screen; a player at the keys turns its pages."""
        rows = [row for line in lines for row in self._broken(line)]
        for start in range(0, len(rows), PAGE):
            if start and self._keys and self.shows:
                try:
                    input(say(self.lang, "turn"))
                except EOFError:
                    self._keys = False
            self.say(rows[start : start + PAGE])

    @staticmethod
    def _broken(line: str) -> list[str]:
        return wrapped(line, WIDTH, "") if len(line) > WIDTH or not line.isascii() else [line]

    def say(self, lines: list[str]) -> None:
        """Print, broken at 79 columns."""
        if not self.shows:
            return
        for line in lines:
            print("\n".join(self._broken(line)))
        sys.stdout.flush()


def emit(value: dict[str, Any]) -> None:
    """One JSON document."""
    print(json.dumps(value, ensure_ascii=False, indent=1))
