"""What must hold of every reader on any bytes: only `ParseError`, verbatim quotes, no invented number."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from diagnose.evals.properties import fault, faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diagnose.document import Document
from diagnose.errors import ParseError
from diagnose.gather import finite, matching, scanner
from diagnose.models import Fact
from diagnose.plugin import Reader, readers

ROOT = Path(__file__).parents[1]
READERS = readers()[0]
NEEDLES = sorted({n for r in READERS for n in r.needles})


@lru_cache(maxsize=1)
def corpus() -> list[bytes]:
    """Real captures and excerpts of the tests, and what the synthetic cases paste."""
    files = sorted(p for p in (ROOT / "tests/data").rglob("*") if p.is_file() and p.stat().st_size < 20_000)
    out = [p.read_bytes() for p in files if p.suffix != ".yaml"]
    for place in sorted((ROOT / "evals/cases").glob("*.yaml")):
        for case in yaml.load(place.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            out += [a["text"].encode() for a in case["artifacts"]]
    return out


# --- what is done to captures ---------------------------------------------------------------------

Mutation = Callable[[bytes, int], bytes]
_PREFIXES = (
    b"[1,3]<stdout>:",
    b"(EngineCore_0 pid=71) ",
    b"2026-01-02T03:04:05Z ",
    b"node12: ",
    b"> ",
    b"[rank7]:",
    b"| ",
)
_ODD = (
    "nan",
    "-",
    "1e999",
    "9" * 20,
    "²",
    "٣",
    "1,,2",
    "0",
    "-0.0",
    "inf",
    "1.2.3",
    "0x",
    "½",
    "９",
    "1_0",
    "",
    "NaN%",
    "007",
)


def _lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")


def _interleave(data: bytes, n: int) -> bytes:
    mine, other = _lines(data), _lines(corpus()[n % len(corpus())])
    return b"\n".join(x for pair in zip(mine, other, strict=False) for x in pair)


def _swap_numbers(data: bytes, n: int) -> bytes:
    """Every third number or so becomes something that is hardly one."""
    at = iter(range(n, 1 << 62))
    odd = [o.encode() for o in _ODD]
    return re.sub(rb"\d+(?:\.\d+)?", lambda m: odd[i % len(odd)] if (i := next(at)) % 3 == 0 else m.group(), data)


MUTATIONS: dict[str, Mutation] = {
    "truncate": lambda data, n: data[: n % (len(data) + 1)],
    "behead": lambda data, n: data[n % (len(data) + 1) :],
    "cut": lambda data, n: data[: (a := n % (len(data) + 1))] + data[a + n % 97 :],
    "interleave": _interleave,
    "prefix": lambda data, n: b"\n".join(_PREFIXES[n % len(_PREFIXES)] + x for x in _lines(data)),
    "indent": lambda data, n: b"\n".join(b" \t"[n % 2 :][:1] * (n % 9) + x for x in _lines(data)),
    "crlf": lambda data, n: data.replace(b"\n", b"\r\n"),
    "ansi": lambda data, n: re.sub(rb"(\d+|[A-Z]\w+)", b"\x1b[1;3%dm\\1\x1b[0m" % (n % 8), data),
    "utf16": lambda data, n: data.decode("utf-8", "replace").encode(("utf-16", "utf-16-le", "utf-16-be")[n % 3]),
    "numbers": _swap_numbers,
    "digits": lambda data, n: data.translate(
        bytes.maketrans(b"0123456789", bytes(48 + (d * 7 + n) % 10 for d in range(10)))
    ),
    "join": lambda data, n: data.replace(b"\n", (b" ", b"", b"\r", b"\\n")[n % 4]),
    "repeat": lambda data, n: b"\n".join([data[:3000]] * (n % 6 + 1)),
    "reverse": lambda data, n: b"\n".join(reversed(_lines(data))),
    "drop": lambda data, n: b"\n".join(x for i, x in enumerate(_lines(data)) if (i * 7919 + n) % 4),
    "garble": lambda data, n: bytes(b ^ 0x80 if (i * 31 + n) % 41 == 0 else b for i, b in enumerate(data)),
    "quote": lambda data, n: b'{"log": "' + data.replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"}',
    "shout": lambda data, n: data.upper() if n % 2 else data.lower(),
}


@lru_cache(maxsize=1)
def starts() -> list[bytes]:
    """The corpus, every twelfth of it: enough to start from."""
    return corpus()[::12]


# --- the properties -------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.thorough)])
def test_corpus_is_read_without_fault(every: int) -> None:
    part = corpus()[2::every] if every > 1 else corpus()  # others than those that are damaged below
    assert [f for data in part for r in matching(Document.of("t", data)) for f in faults(r, data)] == []


CHANGES = st.lists(st.tuples(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 1 << 20)), min_size=1, max_size=3)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET, derandomize=True)
@given(st.integers(0, 1 << 16), CHANGES)
def test_damaged_captures(which: int, changes: list[tuple[str, int]]) -> None:
    data = starts()[which % len(starts())]
    for name, n in changes:
        data = MUTATIONS[name](data, n)
    assert [f for r in matching(Document.of("t", data)) for f in faults(r, data)] == []


PIECES = st.one_of(st.sampled_from(NEEDLES), st.binary(max_size=30), st.text(max_size=20).map(str.encode))


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET, derandomize=True)
@given(st.lists(PIECES, max_size=30), st.sampled_from([b"", b" ", b"\n", b": ", b"=1\n", b" 7 "]))
def test_needles_in_noise(pieces: list[bytes], glue: bytes) -> None:
    data = glue.join(pieces)
    assert [f for r in READERS for f in faults(r, data)] == []


# What makes patterns backtrack. A longer line reaches readers in pieces of 8 KiB, so time grows with the bytes. Half of
# that has a quarter of the time: what grows faster than by the square is found all the same.
LONG = [
    (p * 8192)[:8192]
    for p in (b" ", b"1", b"1,", b"a=1 ", b"[", b"(", b'{"a":', b"| 1 ", b"\n" + b" " * 15, b"--x y ", b": 1 ms, ")
]


def _read(reader: Reader, data: bytes) -> None:
    with contextlib.suppress(ParseError):
        for _ in reader.parse(Document.of("t", data)):
            pass


@pytest.mark.parametrize(("size", "most"), [(4096, 0.75), pytest.param(8192, 3.0, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("filler", LONG, ids=[repr(f[:6]) for f in LONG])
def test_time_is_bounded(filler: bytes, size: int, most: float) -> None:
    """No reader's patterns run away on a long line, wherever its needle stands in it."""
    for reader in READERS:
        for needle in (*reader.needles[:1], b""):
            start = time.process_time()
            faults(reader, needle + filler[:size] + needle)
            assert time.process_time() - start < most, (reader.name, needle)


@settings(max_examples=100, deadline=None, suppress_health_check=QUIET, derandomize=True)
@given(st.integers(0, 1 << 16), CHANGES)
def test_marks_on_damaged_captures(which: int, changes: list[tuple[str, int]]) -> None:
    data = starts()[which % len(starts())]
    for name, n in changes:
        data = MUTATIONS[name](data, n)
    doc = Document.of("t", data)
    wrong = [fault(f, data, doc.encoding) for f in scanner().scan(doc) if finite(f)]
    assert [w for w in wrong if w] == []


def test_a_made_up_figure_is_a_fault() -> None:
    doc = Document.of("t", b"busbw 12.5 GB/s\n")
    span = doc.bytes_span(0, 15, 1)
    assert fault(Fact("nccl_tests.busbw", 12.5, "GB/s", spans=(span,)), doc.data, "utf-8") is None
    assert "quote" in (fault(Fact("nccl_tests.busbw", 13.5, "GB/s", spans=(span,)), doc.data, "utf-8") or "")
    assert not finite(Fact("nccl_tests.busbw", math.inf, "GB/s", spans=(span,)))
