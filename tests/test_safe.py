"""Hostile JSON becomes one `ParseError`; places are exact bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from diagnose import safe_json
from diagnose.errors import ParseError


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"{", b"\xff\xfe\x00", b"1" * 5000, b"", b"nope", b"\x80"],
)  # fmt: skip
def test_bad_json_is_one_parse_error(data: bytes) -> None:
    with pytest.raises(ParseError, match="JSON"):
        safe_json.loads(data)


def test_json_with_byte_order_mark() -> None:
    assert safe_json.loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def locate(data: bytes, path: tuple[str | int, ...], start: int = 0) -> safe_json.Place | None:
    return safe_json.locate_all(data, [path], start).get(path)


TREE: dict[str, Any] = {"a": [1, {"b": 'c"}', "d": {"e": 1.5, "é": [True, None]}}], "k": {"a": "x\\"}, "": []}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "path", [(), ("a",), ("a", 0), ("a", 1, "b"), ("a", 1, "d", "e"), ("a", 1, "d", "é", 1), ("k", "a"), ("",)]
)
def test_located_bytes_parse_to_the_value(path: tuple[str | int, ...], indent: int | None) -> None:
    text = b"some log line\n" + json.dumps(TREE, indent=indent).encode()
    place = locate(text, path, start=13)
    assert place is not None
    start, end, line = place
    want: Any = TREE
    for step in path:
        want = want[step]
    part = text[start:end]
    if path and isinstance(path[-1], str):
        assert json.loads(b"{" + part + b"}") == {path[-1]: want}
    else:
        assert json.loads(part) == want
    assert line == text.count(b"\n", 0, start) + 1


def test_path_that_is_not_there() -> None:
    assert locate(b'{"a": [1]}', ("a", 1)) is None
    assert locate(b'{"a": [1]}', ("a", 0, "b")) is None


@pytest.mark.parametrize("data", [b'{"a" 1}', b'{"a": 1', b'{"a": [1 2]}', b'{"a": "x', b"{a: 1}"])
def test_locating_in_broken_json_is_a_parse_error(data: bytes) -> None:
    with pytest.raises(ParseError):
        locate(data, ("a", 0))


def test_locating_is_linear() -> None:
    def seconds(n: int) -> float:
        data = b'{"t":[' + b",".join(b'{"n":%d,"s":"a,]}"}' % i for i in range(n)) + b"]}"
        before = time.thread_time()  # not the clock: others may have the processor meanwhile
        assert locate(data, ("t", n - 1, "n")) is not None
        return time.thread_time() - before

    small, large = min(seconds(2_000) for _ in range(3)), min(seconds(16_000) for _ in range(3))
    assert large < 24 * small
