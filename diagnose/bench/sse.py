"""Server-sent events as they arrive, each with the time at which its first byte came."""

from __future__ import annotations


class EventStream:
    """Bytes in any cut become events; nothing is read twice."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._at: int | None = None  # when the first byte of the event in hand came

    def feed(self, stamp: int, data: bytes) -> list[tuple[int, bytes]]:
        """Take what arrived at `stamp`; give the events that are complete now as (time of first byte, data)."""
        if self._at is None:
            self._at = stamp
        rest = self._rest
        rest += data
        out: list[tuple[int, bytes]] = []
        begin = 0
        while (end := rest.find(b"\n", begin)) >= 0:
            line = bytes(rest[begin:end]).rstrip(b"\r")
            begin = end + 1
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                if self._data:
                    out.append((self._at, b"\n".join(self._data)))
                    self._data = []
                self._at = stamp  # whatever follows came with these bytes or later
        del rest[:begin]
        if not rest and not self._data:
            self._at = None
        return out
