"""What readers of pasted text take of a document: nothing of a long or binary one, else its first lines."""

from __future__ import annotations

import pytest
from diagnose.probes.facts import excerpt

from diagnose.document import Document
from diagnose.plugin import readers

ROWS = b"rank 0: 12 ms\nrank 1: 48 ms\n"


def _texts(data: bytes, size: int = 100, most: int | None = None, plain: bool = False) -> list[str]:
    return [line.text for line in excerpt(Document.of("a", data), size, most, plain=plain)]


def test_a_short_text_is_given_whole_or_to_the_line_asked_for() -> None:
    assert _texts(ROWS) == ["rank 0: 12 ms", "rank 1: 48 ms"] == _texts(ROWS, size=len(ROWS))
    assert _texts(ROWS, most=1) == ["rank 0: 12 ms"]


@pytest.mark.parametrize("data", [ROWS * 4, b"\x00\x01\x02\x03" * 9 + b"\nrank 0: 12 ms\n", b""])
def test_nothing_of_a_long_a_binary_or_an_empty_one(data: bytes) -> None:
    assert _texts(data) == []


def test_plain_is_neither_an_object_nor_markup() -> None:
    assert _texts(b'{"a": 1}\n') and not _texts(b' {"a": 1}\n', plain=True) and not _texts(b"<a>\n", plain=True)
    assert _texts(ROWS, plain=True)


def test_no_reader_stumbles_over_a_document_of_which_it_takes_nothing() -> None:
    binary = Document.of("a", b"\x00\x01\x02\x03" * 2000)
    for reader in readers()[0]:
        assert list(reader.parse(binary)) == []
