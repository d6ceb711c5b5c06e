"""Figures that are none (``1.2.3``, ``...``, ``1e999``) cost no reader anything but the fact they stand in.

Each reader gets a text of its own in which every figure in turn is replaced; and where a reader still breaks on a
line, the other lines are read.
"""

# ruff: noqa: E501
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from diagnose.evals.case import own_cases
from diagnose.evals.properties import faults

from diagnose import gather, salvage
from diagnose.document import Document
from diagnose.errors import ParseError
from diagnose.models import Fact
from diagnose.plugin import Reader, readers

READERS = readers()[0]
ODD = (b"1.2.3", b"...", b"1e999", b"-", b"9" * 400, b",", "²".encode(), b"", b"1,,2")
FIGURE = re.compile(rb"\d+(?:[.,]\d+)*")
MOST = 1500  # bytes of a sample
SAMPLES = 2  # of a reader
FIGURES = 9  # of a sample


@cache
def texts() -> list[bytes]:
    """Small texts of the shipped cases and the test data, shortest first."""
    found = [p.read_bytes() for p in (Path(__file__).parent / "data").rglob("*") if p.is_file() and p.suffix != ".yaml"]
    found += [text.encode() for case in own_cases() for _, text in case.texts]
    return sorted({t for t in found if 40 < len(t) <= MOST}, key=lambda t: (len(t), t))


def _says(reader: Reader, data: bytes) -> bool:
    try:
        return any(True for _ in reader.parse(Document.of("t", data)))
    except ParseError:
        return False


@cache
def excerpts() -> list[bytes]:
    """Texts of several lines that stand in tests, shortest first."""
    found: set[bytes] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value.strip():
                found.add(node.value.encode())
    return sorted((t for t in found if 40 < len(t) <= MOST), key=lambda t: (len(t), t))


@cache
def samples(reader: Reader) -> list[bytes]:
    """Texts of which the reader makes something: of the cases and the test data, else of what tests hold."""
    return _samples(reader, texts()) or _samples(reader, excerpts())


def _samples(reader: Reader, among: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    for text in among:
        if any(n in text for n in reader.needles) and _says(reader, text):
            out.append(text)
            if len(out) == SAMPLES:
                break
    return out


def changed(text: bytes) -> Iterator[bytes]:
    """The text with one figure after the other replaced, each by another oddity."""
    hits = list(FIGURE.finditer(text))
    for n, hit in enumerate(hits[:: max(1, len(hits) // FIGURES)]):
        for odd in (ODD[n % len(ODD)], ODD[(n * 2 + 3) % len(ODD)]):
            yield text[: hit.start()] + odd + text[hit.end() :]


PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
def test_a_figure_that_is_none_breaks_no_reader(part: int) -> None:
    broken = []
    for reader in READERS[part::PARTS]:
        for text in samples(reader):
            for data in changed(text):
                try:
                    for fact in reader.parse(Document.of("t", data)):
                        assert isinstance(fact, Fact)
                except ParseError:
                    pass
                except Exception as err:
                    broken.append(f"{reader.name}: {type(err).__name__} {err}: {data[:200]!r}")
    assert broken == []


def test_every_reader_has_something_to_be_tried_on() -> None:
    without = {r.name for r in READERS if r.name != gather.GENERIC and not samples(r)}
    assert len(without) < 40, sorted(without)


# --- what was found, kept

FOUND = {
    "counter_table": [b"port_xmit_wait    " + b"0" * 200 + b" x\n", b"rx_packets " + b"1" * 400 + b"\n"],
    "kineto": [b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 5, "dur": 0, "tid": 7, "args": {}}]}'],
    "nsys_summary": [b"Time (%)  Total Time (ns)  Num Calls   Avg (ns)  Name\n7.3  9,812  1,402  1144.91152.0  cudaMemcpy\n"],
    "perftest": [b"#bytes #iterations BW peak[MB/sec] BW average[MB/sec] MsgRate[Mpps]\n 655 5000 0.11642.11 11640.85 0.1\n"],
    "nccl_inspector": [b'nccl_bus_bandwidth_gbs{rank="0",collective="AllReduce"} 671.2.3\n'],
    "host": [b"pid 1's current affinity list: 0-99999999999999999999999\npid 2's current affinity mask: 0-7\n"],
    "cuda_oom": [b"Tried to allocate 2.00 GiB. GPU 0\n512.71.20 MiB is reserved by PyTorch but unallocated.\n"],
    "clock": [b"#Entity   SMACT\nID\n\nGPU 0  0.5\n"],
    "gpu_list": [b"GPU 0: gen 41 x16\n"],
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name: str) -> None:
    reader = next(r for r in READERS if r.name == name)
    assert [f for data in FOUND[name] for f in faults(reader, data)] == []


# --- a reader that breaks


class Picky:
    """Says every line, and breaks on some."""

    name = "picky"
    needles = (b"say ",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        for line in doc.lines():
            if "bad" in line.text:
                raise ValueError("could not convert")
            if line.text.startswith("say "):
                yield Fact("figure", float(line.text[4:]), None, spans=(doc.span(line),))


def said(text: str) -> tuple[list[float], str]:
    facts, problem = salvage.read(Picky(), Document.of("t", text.encode()))
    assert all(f.spans[0].quote == text.splitlines()[f.spans[0].line - 1] for f in facts)
    return [float(f.value or 0) for f in facts], problem or ""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_bad_line_costs_itself_only(newline: str) -> None:
    text = newline.join(["say 1", "bad", "say 2", "say 3", "bad", "say 4"])
    facts, problem = salvage.read(Picky(), Document.of("t", text.encode()))
    assert [f.value for f in facts] == [1, 2, 3, 4]
    assert (problem or "").startswith("defect in reader picky: ValueError: could not convert") and "2, 5" in str(
        problem
    )


def test_a_reader_that_always_breaks_keeps_what_came_first() -> None:
    values, problem = said("say 1\n" + "bad\n" * 40 + "say 2\n")
    assert values == [1] and problem.endswith("could not convert")


def test_a_reader_that_works_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "_without", None)
    assert said("say 1\nsay inf\nsay 2\n") == ([1, 2], "")


def test_the_defect_is_shown_with_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "readers", lambda: ((Picky(),), ()))
    out = gather.Gathered()
    gather.read_document(Document.of("t", b"say 1\nbad\nsay 2\n"), out)
    assert [f.value for f in out.facts if f.signal == "figure"] == [1, 2]
    assert "read without line 2" in (out.inputs[0].reason or "")
