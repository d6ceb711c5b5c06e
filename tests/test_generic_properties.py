"""What must hold of the generic reader on any text."""

from __future__ import annotations

import re
import time

import pytest
from diagnose.evals.forms import FORMS
from diagnose.probes.generic import MAX_FACTS, READERS
from diagnose.probes.generic_errors import KEEP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.models import Fact

WORDS = """
TTFT,TPOT,ITL,throughput,busbw,bandwidth,latency,step,rank,node,GPU,0,1,7,3.5,12,GB/s,0.3 s,24.8 GB/s,8K,-,:,|,;,vs
from,to,eager,graph,nginx,direct,release,0.2.7,version,mean,p99,std,(ms),tok/s,tokens/s,descriptors,16.1 kB/op,first
second,$,--flag=1,NCCL_X=2,#,=,~,->,91000-120000,µs,秒,带宽,延迟,10.0.0.1,2024-01-01,12:30:01,0x7f,1e5,error,WARN
Traceback,1 493ms
"""
TOKENS = [w.replace("1 493", "1,493") for w in re.split("[,\n]", WORDS.strip())]
LINES = st.lists(
    st.lists(st.sampled_from(TOKENS), max_size=9).flatmap(
        lambda words: st.sampled_from([" ", "  ", "\t", " | "]).map(lambda gap: gap.join(words))
    ),
    max_size=14,
)


def parse(text: str) -> list[Fact]:
    """Facts of the generic reader alone."""
    return list(READERS[0].parse(Document.of("t", text.encode("utf-8", "replace"))))


def check(facts: list[Fact], text: str) -> None:
    data = text.encode("utf-8", "replace")
    signals = catalogue().signals
    assert len(facts) <= MAX_FACTS + 2 * KEEP
    for fact in facts:
        assert fact.signal in signals
        for span in fact.spans:
            assert data[span.start : span.end].decode("utf-8", "replace") == span.quote
        if fact.signal == "figure":
            printed = [
                float(n.replace(",", ""))
                for n in re.findall(r"\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?", fact.spans[0].quote)
            ]
            shown = re.search(r": (\d[\d,.]*(?:[eE][-+]?\d+)?)", fact.statement[fact.statement.rfind(": ") :])
            assert shown and float(shown.group(1).replace(",", "")) in printed
        if fact.kind == "derived":
            assert fact.inputs and fact.formula
            if not fact.formula.startswith("reader:"):
                names = dict(zip("abcdef", (i.value for i in fact.inputs), strict=False))
                assert re.fullmatch(r"[a-f\d.eE+*/ -]+", fact.formula)
                assert eval(fact.formula, {}, names) == pytest.approx(fact.value)  # checked above: arithmetic only
        if fact.signal.startswith("compare.ratio"):
            assert float(fact.value or 0) >= 1 - 1e-9
            assert (fact.subject.label or "").count("|") == 3


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LINES)
def test_words_of_the_trade(lines: list[str]) -> None:
    text = "\n".join(lines)
    check(parse(text), text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=600))
def test_any_text(text: str) -> None:
    check(parse(text), text)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    list(READERS[0].parse(Document.of("t", data)))


ADVERSARIAL = [
    *("1" * 100_000, "1," * 50_000, "1.1" * 30_000, "a " * 50_000, " " * 100_000 + "x", "1 " * 50_000, "| " * 50_000),
    *("TTFT: " * 20_000, "1 GB/s " * 15_000, "- " * 50_000 + "1 s", "from 1 s to " * 9_000, "((((" * 25_000),
    *("=" * 100_000, "error " * 20_000, "a\t" * 50_000, "1  2  3  4\n" * 20_000, "a: 1 s\n" * 20_000),
    *("| a | 1 s |\n" * 20_000, "ab,1,2,3\n" * 20_000, "".join(f"node-{i}  {i} GB/s\n" for i in range(4000))),
    *("".join(f"k{i} " * 60 + "1 s\n" for i in range(900)), "".join("error: " + "x" * i + "\n" for i in range(2000))),
]


@pytest.mark.parametrize(("share", "most"), [(2, 1.5), pytest.param(1, 3.0, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("text", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_bounded_time(text: str, share: int, most: float) -> None:
    """Half of each takes half of the time, if the time grows with the text."""
    text = text[: len(text) // share]
    start = time.process_time()
    check(parse(text), text)
    assert time.process_time() - start < most


@pytest.mark.parametrize(
    "text",
    [
        "node0:101:201 [0] NCCL INFO Channel 00/02 :    0   1\nnode0:101:201 [0] NCCL INFO Channel 01/02 :    0   1",
        "GPU0     X      NV18\nGPU1    NV18     X",
        "2026-01-01 10:00:01 started\n2026-01-01 10:00:09 stopped",
        "   size  count  type redop root time algbw busbw\n"
        "1048576  262144  float  sum  -1  90.1  11.6  11.6\n2097152  524288  float  sum  -1  99.1  21.6  21.6",
        'vllm:num_requests_running{model="m"} 12.0\nvllm:num_requests_waiting{model="m"} 40.0',
        "p50 TPOT: 7.1 ms\nmedian TPOT: 7.1 ms",
        "import torch\nx = torch.zeros(1024, 1024)\ny = x * 2.0",
    ],
)
def test_no_comparison_where_none_is(text: str) -> None:
    assert [f for f in parse(text) if f.signal.startswith(("compare", "spread", "trend"))] == []


def test_errors_in_order_without_repeats() -> None:
    text = (
        "ok\nRuntimeError: CUDA error: out of memory\n"
        "worker 1 failed: connection refused\nworker 2 failed: connection refused\n"
        '0 errors\nTraceback (most recent call last):\n  File "a.py", line 3, in f\nValueError: bad shape 12\n'
    )
    got = [(f.signal, f.subject.label, f.value) for f in parse(text)]
    assert got == [
        ("text.error", "RuntimeError", "RuntimeError: CUDA error: out of memory"),
        ("text.error", None, "worker 1 failed: connection refused"),
        ("text.exception", "ValueError", "ValueError: bad shape 12"),
    ]


@pytest.mark.parametrize("name", ["grep -n", "cat -n", "pdsh", "compose, named", "launcher and time", "kubectl time"])
def test_an_error_alone_is_what_the_program_said(name: str) -> None:
    said = "worker failed: connection refused"
    (got,) = [f for f in parse(str(FORMS[name](said))) if f.signal == "text.error"]
    assert got.value == said and said in got.spans[0].quote


def test_progress_bar_is_no_series() -> None:
    bar = "\r".join(f" {i}%|█| {i}/16 [00:0{i}<00:1{i}, {9 / i:.2f}s/it]" for i in range(1, 9))
    assert [f for f in parse(bar) if f.signal.startswith(("compare", "trend"))] == []
