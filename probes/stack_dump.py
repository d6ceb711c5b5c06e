"""Stacks of running threads: `py-spy dump`, `faulthandler`; the frames of the thread that has the interpreter lock.

Source: py-spy `src/dump.rs` (``Thread 812 (active+gil): "MainThread"``), CPython `Lib/faulthandler`.
"""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

_THREAD = regex(r"^\s*Thread \S+ \((?P<state>[\w+]+)\)")
_CURRENT = regex(r"^\s*Current thread 0x[0-9a-f]+")
_FRAME = regex(
    r"^\s{2,}(?P<name>[\w<>.]+) \((?P<file>[\w./<>-]+\.pyx?)(?::\d+)?\)|^\s+File \"(?P<path>[^\"]+)\", line \d+ in (?P<func>\w+)"  # noqa: E501
)
_DEPTH = 6


class StackDumpReader:
    """The upper frames of threads that were running when the dump was taken."""

    name = "stack_dump"
    needles: tuple[bytes, ...] = (b"(active", b"Current thread 0x")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a frame, its value ``file function``."""
        depth = _DEPTH
        seen: set[str] = set()
        for line in doc.lines():
            thread = _THREAD.match(line.text)
            if thread or _CURRENT.match(line.text):
                depth = 0 if thread is None or "active" in thread["state"] else _DEPTH
                continue
            frame = _FRAME.match(line.text) if depth < _DEPTH else None
            if frame is None:
                continue
            depth += 1
            said = f"{frame['file'] or frame['path']} {frame['name'] or frame['func']}"
            if said not in seen and len(seen) < 40:
                seen.add(said)
                yield fact(doc, line, "profile.active_frame", said, label=str(depth))


READERS: list[Reader] = [StackDumpReader()]
