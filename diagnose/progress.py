"""Progress on standard error: a spinner on a terminal, nothing in a pipe, after the first second only."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

QUIET_SECONDS = 1.0


class Progress:
    """Context manager; `say` names what runs now. Shows nothing for work that ends within a second."""

    def __init__(self) -> None:
        self._text = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown = False
        self._busy = threading.Lock()

    def say(self, text: str) -> None:
        """Name the current work."""
        self._text = text

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the line free while the user is asked."""
        self._busy.acquire()
        try:
            if self._shown:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
            yield
        finally:
            self._busy.release()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self) -> None:
        start = time.monotonic()
        while not self._stop.wait(0.2):
            elapsed = time.monotonic() - start
            if elapsed >= QUIET_SECONDS:
                self._shown = True
                with self._busy:
                    sys.stderr.write(f"\r\x1b[K{self._text} … {elapsed:.0f} s")
                    sys.stderr.flush()
