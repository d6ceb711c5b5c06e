"""Lines picked by many literals at once: the same as one by one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from diagnose import gather, marks
from diagnose.document import Document, Line
from diagnose.marks import admits, gates, needles, possible
from diagnose.sieve import Sieve, Sorter, least, literal, ordered, standing

WORDS = (b"alpha", b"beta", b"gam", b"ma(", b"[x]", "通信".encode(), b"alp", b"e b")


def _lines(count: int, seed: int = 1) -> list[bytes]:
    draw = random.Random(seed)
    return [b" ".join(draw.choices((*WORDS, b"zz", b"a.b", b"\xff"), k=draw.randrange(5))) for _ in range(count)]


def test_a_sieve_keeps_what_holds_a_literal() -> None:
    lines = [line.decode("latin-1") for line in _lines(500)]
    kept = Sieve(map(literal, least(WORDS)))(lines)
    assert kept == [x for x in lines if any(w.decode("latin-1") in x for w in WORDS)]
    assert 0 < len(kept) < len(lines)
    assert Sieve([])(lines) == []


def test_least_leaves_out_what_holds_another() -> None:
    assert set(least(WORDS)) == set(WORDS) - {b"alpha"}


@pytest.mark.parametrize("size", [30, 40_000])
def test_what_stands_in_a_text(size: int) -> None:
    text = b"\n".join(b"zz %d" % n for n in range(size)) + b"\nbeta\r\nma("
    wanted = {*WORDS, b"beta\r\n", b"zz", b"beta\n"}
    assert standing(wanted, text) == {w for w in wanted if w in text} == {b"beta", b"ma(", b"beta\r\n", b"zz"}


def test_a_sorter_says_what_each_line_may_meet() -> None:
    needs = [needles(p) for p in ("alpha.*beta", "gam|通信", r"(?:alp|zz) \S+ (?:beta|ma\()", r"\d", "zz")]
    lines = sorted({line.decode("latin-1") for line in _lines(3000)})
    got = Sorter(needs).sort(lines)
    for line in lines:
        expected = [n for n, need in enumerate(needs) if need and re.search(ordered(need), line)]
        assert got.get(line, []) == expected
        assert all(admits(gates(needs[n]), line.encode("latin-1")) for n in expected)


def test_marks_of_a_long_text_are_those_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(__file__).parent / "data"
    texts = [p.read_bytes() for p in sorted(place.glob("nccl*/*.txt"))[:6]] + [b"NCCL WARN Timeout waiting H200 \xff\n"]
    doc = Document.of("x", b"\n".join(texts))
    plain = list(gather.scanner().scan(doc))
    monkeypatch.setattr(marks, "_SORTED_FROM", 0)
    assert list(gather.scanner().scan(doc)) == plain != []


def test_readers_of_a_long_text_are_those_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"node1:1:1 [0] NCCL INFO Bootstrap : Using eth0\nvLLM KV cache usage: 3%\n" * 9
    plain = [r.name for r in gather.matching(Document.of("x", text))]
    monkeypatch.setattr(gather, "_SIFTED_FROM", 0)
    assert [r.name for r in gather.matching(Document.of("x", text))] == plain
    assert len(plain) > 1


def test_possible_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_FEW", 2)
    lines = [Line(0, 0, n, text) for n, text in enumerate(("an Xid 3", "", "xid", "通信 1", "4 (ms)", "no", "no"))]
    found = possible(iter(lines), re.compile(r"\bXid\b"), re.compile("通信"), words=("s)",))
    assert [x.number for x in found] == [0, 2, 3, 4]
    assert list(possible(iter(lines), re.compile(r"\d"))) == lines


def test_every_mark_has_a_literal_or_it_is_tried_on_every_line() -> None:
    assert [r.mark.signal for r in gather.scanner()._ready if not r.needles and not r.names] == []
