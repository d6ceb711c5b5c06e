"""Documents: spans are exact bytes, lines are clean, strange encodings and lengths do no harm."""

from __future__ import annotations

import pytest

from diagnose.document import QUOTE_CHARS, Document, clean, shape, uncoloured


def test_lines_carry_byte_offsets_and_numbers() -> None:
    data = "één\r\ntwo\n\nlast".encode()
    doc = Document.of("x", data)
    lines = list(doc.lines())
    assert [x.text for x in lines] == ["één", "two", "", "last"]
    assert [x.number for x in lines] == [1, 2, 3, 4]
    assert [data[x.start : x.end].decode() for x in lines] == ["één", "two", "", "last"]


@pytest.mark.parametrize(
    ("raw", "text", "prefix"),
    [
        ("[1,0]<stdout>:NCCL INFO x", "NCCL INFO x", "[1,0]<stdout>:"),
        ("[rank3]: Traceback", "Traceback", "[rank3]: "),
        ("node12: NCCL WARN y", "NCCL WARN y", "node12: "),
        ("3: hello", "hello", "3: "),
        ("(RayWorker pid=12, ip=10.0.0.1) msg", "msg", "(RayWorker pid=12, ip=10.0.0.1) "),
        ("\x1b[31mred\x1b[0m text", "red text", ""),
        ("bell\x07 and nul\x00", "bell and nul", ""),
        ("12:30:01 not a rank", "12:30:01 not a rank", ""),
        ("NCCL WARN: x", "NCCL WARN: x", ""),
    ],
)
def test_clean(raw: str, text: str, prefix: str) -> None:
    assert clean(raw.encode()) == (text, prefix)


def test_utf16_is_read_and_spans_are_its_bytes() -> None:
    data = "NCCL WARN one\nNCCL WARN zwei ü\n".encode("utf-16")
    doc = Document.of("x", data)
    lines = list(doc.lines())
    assert [x.text for x in lines] == ["NCCL WARN one", "NCCL WARN zwei ü"]
    assert data[lines[1].start : lines[1].end].decode("utf-16-le") == "NCCL WARN zwei ü"


def test_invalid_utf8_does_not_stop_reading() -> None:
    doc = Document.of("x", b"ok\n\xff\xfe bad \x80 bytes\nend\n")
    assert [x.text for x in doc.lines()][::2] == ["ok", "end"]
    line = list(doc.lines())[1]
    span = doc.span(line)
    assert doc.read(span.start, span.end).decode("utf-8", "replace") == span.quote


@pytest.mark.parametrize("unit", ["x", "é", "温", "🙂", "\xff"])
def test_long_quote_is_cut_on_a_character_and_stays_verbatim(unit: str) -> None:
    data = (unit * 2000 + "\n").encode("latin-1" if unit == "\xff" else "utf-8")
    doc = Document.of("x", data)
    (line,) = doc.lines()
    span = doc.span(line)
    assert 0 < len(span.quote) <= QUOTE_CHARS
    assert doc.read(span.start, span.end).decode("utf-8", "replace") == span.quote


def test_span_of_a_long_line_holds_what_was_asked_for() -> None:
    data = b"a" * 3000 + b" needle " + b"b" * 3000
    doc = Document.of("x", data)
    (line,) = doc.lines()
    span = doc.span(line, "needle")
    assert "needle" in span.quote and data[span.start : span.end].decode() == span.quote


def test_endless_line_is_read_in_pieces_that_cover_it() -> None:
    data = b"x" * 300_000
    pieces = list(Document.of("x", data).raw_lines())
    assert b"".join(p for _, _, p in pieces) == data
    assert all(data[start : start + len(p)] == p for _, start, p in pieces)


@pytest.mark.parametrize(
    ("data", "binary"),
    [
        (b"plain text\n", False), (bytes(range(256)) * 20, True), 
        ("中文日志".encode() * 9, False), (b"\x7fELF" + b"\0" * 99, True)],
)  # fmt: skip
def test_binary_is_told_from_text(data: bytes, binary: bool) -> None:
    assert Document.of("x", data).is_binary is binary


def test_a_very_long_line_comes_in_pieces_that_cut_no_figure() -> None:
    data = b"head\n" + b"123456 " * 4000 + b"\nlast"
    lines = list(Document.of("x", data).lines())
    assert b"".join(data[x.start : x.end] for x in lines[1:-1]) == b"123456 " * 4000
    assert {w for x in lines[1:-1] for w in x.text.split()} == {"123456"}
    assert [lines[0].number, {x.number for x in lines[1:-1]}, lines[-1].number] == [1, {2}, 3]


def test_runs_that_are_no_figure_are_shortened() -> None:
    (line,) = Document.of("x", b"a" + b" " * 5000 + b"b" + b"1,22," * 200 + b"333").lines()
    assert line.text.split()[0] == "a" and len(line.text) < 500 and line.text.endswith("22,") and line.end == 6005


@pytest.mark.parametrize("said", ["Tried \x1b[31mto allocate\x1b[0m 2.00 GiB", "Tried to al\x07locate 2.00 GiB"])
def test_span_of_a_long_line_holds_what_was_asked_for_under_colours(said: str) -> None:
    doc = Document.of("t", ("x" * 900 + " " + said + " y" * 400 + "\n").encode())
    line = next(iter(doc.lines()))
    span = doc.span(line, "Tried to allocate 2.00 GiB")
    assert "2.00 GiB" in span.quote and doc.data[span.start : span.end].decode() == span.quote


def test_lines_that_hold_a_word_are_those_in_which_it_stands() -> None:
    text = b"Total 12\n\n\x1b[3mab\x1b[0m total\r\nzz 0x1f\nAB9C\nlast"
    doc = Document.of("a", text)
    for words in (("total",), ("ab", "last"), ("abc",), ("none",), ("zz", "b")):
        kept = [line.number for line in doc.holding(*words)]
        shapes = [shape(uncoloured(raw)) for raw in text.split(b"\n")]
        assert kept == [n for n, key in enumerate(shapes, 1) if any(w.encode() in key for w in words)]
