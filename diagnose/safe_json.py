"""JSON from strangers: bounded size and depth, and where in the bytes a value stands.

`loads` gives the values; `locate_all` finds the bytes of some of them, so that a reading taken from a
parsed document can still be quoted. Both are linear in the size of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import ParseError

MAX_BYTES = 64 << 20
MAX_DEPTH = 200

Key = str | int
Place = tuple[int, int, int]  # first byte, byte after the last, 1-based line

_SPACE = re.compile(rb"[\s\xef\xbb\xbf]*")  # a byte-order mark counts as space
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[-+.\w]+")
_ENDLESS = b"0" * 300  # no figure is that long; as a float it would overflow
_SAME_DIGIT = bytes.maketrans(b"123456789", b"000000000")
_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def loads(data: bytes | str, tool: str = "json", max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a JSON document.

    Args:
        data: the whole document; bytes may be UTF-8 with or without a byte-order mark, or UTF-16/32.
        tool: name of the reader, for the error.
        max_bytes: larger documents are refused.
        max_depth: deeper nesting is refused.

    Raises:
        ParseError: not JSON, too big or too deep.
    """
    if len(data) > max_bytes:
        raise ParseError(tool, f"JSON of {len(data)} bytes is over the limit of {max_bytes}")
    try:
        text = data.decode(json.detect_encoding(data)) if isinstance(data, bytes) else data
        if _ENDLESS in text.encode("utf-8", "replace").translate(_SAME_DIGIT):
            raise ParseError(tool, "JSON with a figure of 300 digits or more")
        value = json.loads(text)
    except json.JSONDecodeError as err:
        raise ParseError(tool, f"not JSON ({err.msg})", err.lineno) from err
    except RecursionError as err:
        raise ParseError(tool, f"JSON nested deeper than {max_depth} levels") from err
    except ValueError as err:  # undecodable bytes, or an integer of thousands of digits
        raise ParseError(tool, f"not JSON ({err})") from err
    level = [value]
    for _ in range(max_depth + 1):
        level = [c for v in level for c in _children(v)]
        if not level:
            return value
    raise ParseError(tool, f"JSON nested deeper than {max_depth} levels")


def _children(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [c for c in inner if isinstance(c, (dict, list))]


def locate_all(
    data: bytes, paths: Iterable[Sequence[Key]], start: int = 0, tool: str = "json"
) -> dict[tuple[Key, ...], Place]:
    """Bytes of values, in one pass: path -> ``(start, end, line)``; paths that are not there are left out.

    A span covers ``"key": value`` where the last step is a key, the bare value where it is an index.

    Args:
        data: UTF-8 text that holds JSON.
        paths: keys and indices from the outermost value inward; empty for the whole value.
        start: byte at which the JSON begins, when other text stands before it.
        tool: name of the reader, for the error.

    Raises:
        ParseError: not JSON as far as the walk goes.
    """
    wanted: dict[tuple[Key, ...], bool] = {}
    for path in paths:
        for n in range(len(path)):
            wanted.setdefault(tuple(path[:n]), False)
        wanted[tuple(path)] = True
    found: dict[tuple[Key, ...], tuple[int, int]] = {}
    _Scan(data, wanted, found, tool).value(start, (), None)
    out: dict[tuple[Key, ...], Place] = {}
    at, line = 0, 1
    for place, (first, last) in sorted(found.items(), key=lambda item: item[1]):
        line += data.count(b"\n", at, first)
        at = first
        out[place] = (first, last, line)
    return out


class _Scan:
    """A walk that descends only into what is wanted and skips the rest at regex speed."""

    def __init__(
        self, data: bytes, wanted: dict[tuple[Key, ...], bool], found: dict[tuple[Key, ...], tuple[int, int]], tool: str
    ) -> None:
        self.data, self.wanted, self.found, self.tool = data, wanted, found, tool
        self.parents = {path[:-1] for path in wanted if path}

    def fail(self, at: int) -> ParseError:
        return ParseError(self.tool, "not JSON", self.data.count(b"\n", 0, at) + 1)

    def space(self, at: int) -> int:
        hit = _SPACE.match(self.data, at)
        return hit.end() if hit else at

    def string(self, at: int) -> int:
        hit = _STRING.match(self.data, at)
        if hit is None:
            raise self.fail(at)
        return hit.end()

    def skip(self, at: int) -> int:
        """End of the value at `at`."""
        head = self.data[at : at + 1]
        if head == b'"':
            return self.string(at)
        if head not in (b"{", b"["):
            hit = _SCALAR.match(self.data, at)
            if hit is None:
                raise self.fail(at)
            return hit.end()
        depth = 0
        for hit in _NESTING.finditer(self.data, at):
            token = hit.group()
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return hit.end()
        raise self.fail(len(self.data))

    def value(self, at: int, path: tuple[Key, ...], key_at: int | None) -> int:
        """Walk the value at `at`; note it if wanted. Returns its end."""
        at = self.space(at)
        report = self.wanted.get(path)
        head = self.data[at : at + 1]
        if path in self.parents and head in (b"{", b"["):
            end = self.members(at, path, head == b"{")
        else:
            end = self.skip(at)
        if report and path not in self.found:
            self.found[path] = (at if key_at is None else key_at, end)
        return end

    def members(self, at: int, path: tuple[Key, ...], is_object: bool) -> int:
        close = b"}" if is_object else b"]"
        at, index = self.space(at + 1), 0
        while self.data[at : at + 1] != close:
            key: Key = index
            key_at = None
            if is_object:
                key_at, stop = at, self.string(at)
                key = loads(self.data[at:stop], self.tool)
                at = self.space(stop)
                if self.data[at : at + 1] != b":":
                    raise self.fail(at)
                at = self.space(at + 1)
            child = (*path, key)
            at = self.value(at, child, key_at) if child in self.wanted else self.skip(at)
            at, index = self.space(at), index + 1
            sep = self.data[at : at + 1]
            if sep == b",":
                at = self.space(at + 1)
            elif sep != close:
                raise self.fail(at)
        return at + 1
