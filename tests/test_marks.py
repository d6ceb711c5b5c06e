"""Marks: the prefilter never loses a match, and repeats are counted, not repeated."""

from __future__ import annotations

import itertools
import re

import pytest
from diagnose.probes.nccl_log import TRANSPORTS, NcclLogReader
from hypothesis import given
from hypothesis import strategies as st

from diagnose.catalogue import catalogue
from diagnose.document import THIN_FROM, Document, shape
from diagnose.entries import Mark
from diagnose.gather import scanner
from diagnose.marks import Scanner, admits, gates, needles


def scan(text: str, *marks: Mark) -> list[tuple[str, object, str | None, int]]:
    facts = Scanner(list(marks)).scan(Document.of("x", text.encode()))
    return [(f.signal, f.value, f.subject.label, f.count) for f in facts]


def test_value_label_and_count() -> None:
    mark = Mark(signal="a", what="w", pattern=r"(NCCL_\w+) set by environment to (\S+)", label=1, value=2)
    text = "h:1:2 [0] NCCL INFO NCCL_IB_DISABLE set by environment to 1\n" * 3 + "noise\n"
    assert scan(text, mark) == [("a", "1", "NCCL_IB_DISABLE", 3)]


def test_numbers_differ_within_one_shape() -> None:
    mark = Mark(signal="a", what="w", pattern=r"error 12\b")
    assert scan("got error 4\ngot error 12\n", mark) == [("a", "error 12", None, 1)]


def test_a_name_of_digits_is_found() -> None:
    mark = Mark(signal="a", what="w", pattern=r"\b(H200|B\d00)\b", value=1)
    assert scan("one h200 here\n0xH200\nx200 H20\n", mark) == [("a", "h200", None, 1)]
    mark = Mark(signal="a", what="w", pattern=r"\b(?:H200|H800)\b")
    assert scan("one h200 here\nx200 H20\n", mark) == [("a", "h200", None, 1)]


def test_a_pattern_about_digits_is_tried_longer_on_one_shape() -> None:
    blind = Mark(signal="a", what="w", pattern=r"took(\d+)s{1,2}\b", value=1)
    sighted = Mark(signal="b", what="w", pattern=r"took([5-9]\d*)s\b", value=1)
    found = scan("took1s\n" * 400 + "took7s\n", blind, sighted)
    assert found == [("a", "1", None, 400), ("a", "7", None, 1), ("b", "7", None, 1)]
    assert scan("tooks\n" * 400 + "took7s\n", blind, sighted) == [("b", "7", None, 1)]


def test_unless_vetoes() -> None:
    mark = Mark(signal="a", what="w", pattern="Failed to open", unless="harmless")
    assert scan("Failed to open x (harmless)\n", mark) == []


def test_numeric_value_must_parse() -> None:
    mark = Mark(signal="a", what="w", pattern=r"size (\S+) bytes", value=1, unit="B")
    assert scan("size 1,024 bytes\nsize many bytes\n", mark) == [("a", 1024.0, None, 1)]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"Sequence group \d+ is preempted", "Sequence group 221 is preempted by"),
        (r"(?:GPU|gpu) fallen off the bus|Surprise Down", "xx Surprise Down Error"),
        (r"a{2,}bcd?fail", "aabcfail"),
        (r"\bXid\b.*: (79|74),", "NVRM: Xid (PCI:0000:02:00): 79, GPU"),
        (r"(foo|bar)?bazqux", "bazqux"),
    ],
)
def test_prefilter_admits_what_matches(pattern: str, line: str) -> None:
    assert re.search(pattern, line, re.IGNORECASE)
    assert admits(gates(needles(pattern)), shape(line.encode()))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"\]\S+:\d+/IB", "Using [0]mlx5_0:1/IB"),
        (r"\d+x\d+ GPUs", "a node of 10x8 GPUs"),
        (r"at 0x\d+ end", "at 0x12 end"),
        (r"rank \d*b", "rank 12b"),
    ],
)
def test_figures_within_a_pattern_part_nothing(pattern: str, line: str) -> None:
    """What stands around them is one literal, but for what an address may swallow."""
    assert re.search(pattern, line)
    assert admits(gates(needles(pattern)), shape(line.encode()))
    assert needles(r"via NET/\d+/GDR") == (b"via net//gdr",)


def test_every_catalogue_mark_compiles_and_has_a_prefilter() -> None:
    slow = [m.signal for m in catalogue().marks if not needles(m.pattern)]
    assert len(slow) <= 3, f"patterns without a literal slow every line down: {slow}"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_scanning_any_text_raises_nothing_and_quotes_it(text: str) -> None:
    data = text.encode()
    marks = [Mark(signal="a", what="w", pattern=r"[a-z]{3,}"), Mark(signal="b", what="w", pattern=r"error \d+")]
    for fact in Scanner(marks).scan(Document.of("x", data)):
        span = fact.spans[0]
        assert data[span.start : span.end].decode("utf-8", "replace") == span.quote


def test_a_long_log_in_which_every_line_differs() -> None:
    """Lines that differ in words are many shapes: what is rare among them is found, what readers keep is bounded."""
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
    told = itertools.cycle(itertools.permutations(words[:40], 3))
    rows = [f"t={n} {' '.join(next(told))} value 0x{n * 7919:x}" for n in range(60_000)]
    rows[50_000] = "n3:9:9 [3] NCCL WARN Error: failed to extend /dev/shm/nccl-f3 to 4194660 bytes"
    doc = Document.of("t", "\n".join(rows).encode())
    assert doc.size > THIN_FROM
    assert {f.spans[0].line for f in scanner().scan(doc)} == {50_001}
    read = [line.number for line in doc.lines()]
    assert len(read) < 20_000 and 50_001 in read
    assert 50_001 in [line.number for line in doc.novel()]


def test_transports_of_a_long_log_are_bounded() -> None:
    rows = (f"n1:{n}:9 [0] NCCL INFO Channel 00/0 : {n}[0] -> 1[1] via P2P/CUMEM/x/{n}" for n in range(70_000))
    facts = list(NcclLogReader().parse(Document.of("t", "\n".join(rows).encode())))
    assert len(facts) == TRANSPORTS
