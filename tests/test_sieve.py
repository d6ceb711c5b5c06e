"""Lines picked by many literals at once: the same as one by one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from diagnose.probes import allocator, container, host_load, nccl_tests, serving_args, serving_bench
from diagnose.probes.facts import whole

from diagnose import document, gather, marks, sieve
from diagnose.document import Document, Line
from diagnose.marks import admits, gates, needles, possible, told
from diagnose.models import Fact
from diagnose.salvage import read
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


def test_told_lines_come_all_with_what_may_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_FEW", 2)
    texts = ("a 通信 7 b", "b 7 通信", "took 3", "TOOK", "| x", "", "7 ms", "7  s")
    lines = [Line(0, 0, n, text) for n, text in enumerate(texts)]
    got = list(told(lines, re.compile("通信 \\d"), words=("took", "|"), also=r"^\d ms$"))
    assert [line for line, _ in got] == lines
    assert [may for _, may in got] == [True, False, True, True, True, False, True, False]
    assert all(may for _, may in told(lines[:1], re.compile("xyz")))


def test_patterns_told_together_leave_most_lines_out() -> None:
    lines = [Line(0, 0, n, f"{n:x} of no meaning (here) - at all: {n}") for n in range(marks._FEW)]
    for patterns in (
        host_load._PATTERNS,
        container._PATTERNS,
        serving_args._TELLING,
        (allocator._KEY, *(p for _, p in allocator._NAMES)),
        (serving_bench._STAT, serving_bench._JSON, serving_bench._BLOCK, *(p for p, _, _ in serving_bench._PLAIN)),
    ):
        assert not list(possible(lines, *patterns))


def test_a_long_text_says_what_a_short_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(__file__).parent / "data"
    files = sorted(p for p in place.rglob("*.txt") if p.stat().st_size < 30_000)[::5]
    texts = [p.read_bytes() for p in files]
    texts += [b'{"ttft": 3}\n{"completed": 7}\n', b"1024 256 float sum -1 10 2.0 3.0 0\n#\n 64 16 1 1 1 0 1 1 1 0\n"]

    named = "serving_bench serving_args host_load container gpu_list nvidia_smi_csv allocator nccl_tests step_phases"
    named += " rdma_port driver_halves other_accelerator generic dmesg serving_log env llama_cpp torch_profiler_table"
    readers = [r for r in gather.readers()[0] if r.name in named.split()]

    def facts() -> list[list[Fact]]:
        docs = [Document.of("x", text) for text in texts]
        marked = list(gather.scanner().scan(Document.of("x", b"\n".join(texts[::6]))))
        return [*([f for r in readers for f in read(r, d)[0]] for d in docs), marked]

    plain = facts()
    for module, name in (
        (marks, "_FEW"),
        (sieve, "_MANY"),
        (marks, "_SORTED_FROM"),
        (nccl_tests, "_LONG"),
        (nccl_tests, "_MANY"),
    ):
        monkeypatch.setattr(module, name, int(name == "_FEW"))
    for text, before, after in zip([*texts, b"marks"], plain, facts(), strict=True):
        assert after == before, text[:200]
    assert len(files) > 10 and len(readers) == 18


def test_what_is_new_of_a_long_text_is_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("THIN_FROM", 0),
        ("NOVEL_FROM", 0),
        ("NOVEL_MOST", 3),
        ("_ALIKE_MOST", 9),
        ("_MANY_SHAPES", 5),
    ):
        monkeypatch.setattr(document, name, value)
    draw = random.Random(3)
    text = "\n".join(f"{draw.choice('abcdefgh')} {draw.choice('xyz')} {n}" for n in range(400)).encode()
    for most in (1000, 40, 12):
        monkeypatch.setattr(document, "_MOST_LINES", most)
        doc = Document.of("x", text)
        assert list(doc.novel()) == doc._few(3)[0]
        assert list(doc.lines()) == doc._few(9)[0]
        assert len(doc._few(3)[0]) < len(doc._few(9)[0]) or most == 12


def test_a_long_log_of_objects_is_not_read_as_one() -> None:
    log = Document.of("x", b'{"a": 1}\n' * 9000)
    assert whole(log) is None and log.lines_skipped == 1 and "data" not in log.__dict__
    one = Document.of("x", b'{"a":\n1}' + b" \n" * 40_000)
    assert whole(one) == {"a": 1}


def test_bytes_stand_across_pieces() -> None:
    doc = Document.of("x", b"x" * ((1 << 20) - 3) + b"needle")
    assert doc.holds(b"needle") and not doc.holds(b"needles")


def test_every_mark_has_a_literal_or_it_is_tried_on_every_line() -> None:
    assert [r.mark.signal for r in gather.scanner()._ready if not r.needles and not r.names] == []
