"""Lines of a document, split and shaped a stretch at a time."""

from __future__ import annotations

import random

import pytest

from diagnose.document import _MAX_LINE, Document, shape

TEXTS = {
    "plain": b"node0:9000 [0] NCCL INFO comm 0x7fAb rank 3\nnode1:9001 [1] NCCL INFO comm 0x7fcd rank 4\n",
    "no newline at the end": b"a 1\nb 2",
    "carriage returns": b"a 1\r\n\r\nb 2\r\n",
    "empty": b"",
    "only newlines": b"\n\n\n",
    "not text": bytes(range(256)) * 3,
}


def _made(seed: int) -> bytes:
    """Short lines with a few that are longer than a line may be, and longer than a chunk."""
    rng = random.Random(seed)
    lines = []
    for _ in range(300):
        size = rng.choice((0, 3, 40, 90, 90, 90, _MAX_LINE - 1, _MAX_LINE, _MAX_LINE + 1, 3 * _MAX_LINE))
        lines.append(bytes(rng.choice(b"abcXYZ0123 ,x\r") for _ in range(min(size, 90))).ljust(size, b"q"))
    lines.insert(150, b"z, " * 500_000)
    return b"\n".join(lines)


@pytest.mark.parametrize("data", [*TEXTS.values(), _made(1), _made(2)], ids=[*TEXTS, "made 1", "made 2"])
def test_pieces_cover_the_document_and_stand_where_they_say(data: bytes) -> None:
    doc = Document.of("x", data)
    rows = list(doc.raw_lines())
    assert [(n, s, r) for n, s, r, _ in doc.shaped_lines()] == rows
    end = 0
    for number, start, raw in rows:
        assert data[start : start + len(raw)] == raw
        assert number == data.count(b"\n", 0, start) + 1
        assert len(raw) <= _MAX_LINE and b"\n" not in raw
        assert data[end:start] in (b"", b"\n")
        end = start + len(raw)
    assert data[end:] in (b"", b"\n")
    pieces = [r for _, _, r in rows]
    if data and max(map(len, data.split(b"\n"))) <= _MAX_LINE:
        assert pieces == data.split(b"\n")[: len(pieces)]


@pytest.mark.parametrize("data", [*TEXTS.values(), _made(3)], ids=[*TEXTS, "made"])
def test_shapes_made_together_are_those_made_one_by_one(data: bytes) -> None:
    assert all(key == shape(raw) for _, _, raw, key in Document.of("x", data).shaped_lines())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_shapes_of_wide_text(encoding: str) -> None:
    data = "\ufeffRank 3 waits\r\nRank 4 waits\r\n".encode(encoding)
    keys = [key for _, _, _, key in Document.of("x", data).shaped_lines()]
    assert [k.removeprefix("\ufeff".encode()) for k in keys[:2]] == [b"rank  waits", b"rank  waits"]


def test_lines_holding_a_word() -> None:
    doc = Document.of("x", b"pid 7 KV Transfer took 3 s\nnothing\npid 12 kv transfer took 5 s\n")
    assert [line.number for line in doc.holding("KV Transfer")] == [1, 3]
    assert not list(doc.holding("absent"))


def test_novel_leaves_out_what_only_differs_in_digits_and_addresses() -> None:
    rows = [f"rank {i} at 0x{i:x}" for i in range(100_000)]
    doc = Document.of("x", "\n".join([*rows[:50_000], "one of its kind", *rows[50_000:]]).encode())
    kept = [line.text for line in doc.novel()]
    assert len(kept) == 65 and "one of its kind" in kept
