"""Readers and rules over parts of a request, what spills, and the same thing in two states: by their arithmetic."""

from __future__ import annotations

import pytest
from diagnose.probes import model_rows, overflow, request_spans, stream_arrival, twin_states

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact

READERS = [r for m in (overflow, request_spans, stream_arrival, twin_states, model_rows) for r in m.READERS]


def facts(text: str, signal: str) -> list[Fact]:
    """What the readers make of a text."""
    doc = Document.of("note.txt", text.encode())
    return [f for r in READERS for f in r.parse(doc) if f.signal == signal]


TREE = "trace 7f\nchat            9.0s\n  vector.search  {a}s\n  llm.generate   {b}s\n"


@pytest.mark.parametrize(
    ("text", "signal", "values"),
    [
        ("load_tensors: offloaded 20/40 layers to GPU\n", "gpu.layers_outside", [0.5]),
        ("llama3:70b  42 GB  25%/75% CPU/GPU  8192\n", "gpu.layers_outside", [0.25]),
        ("{0: 30, 'cpu': 10}\n", "gpu.layers_outside", [0.25]),
        ("context  layers on GPU  tok/s\n4096   40/40   31\n32768  30/40   9\n", "gpu.layers_outside", [0.0, 0.25]),
        ("Dedicated GPU memory 7.6/8.0 GB\nShared GPU memory 3.5/31.9 GB\n", "gpu.shared_used", [3.5]),
        ("Dynamic Shared Memory Per Block  Kbyte/block  98.30\n", "gpu.shared_used", []),
        ("model file 231 GB, RAM 128 GB, mmap on\n", "host.ram_said", [128.0]),
        (TREE.format(a=7.2, b=1.5), "request.other_share", [0.8]),
        (TREE.format(a=1.0, b=7.8), "request.other_share", []),
        ('x_seconds_bucket{le="1"} 50\nx_seconds_bucket{le="5"} 150\nx_seconds_bucket{le="+Inf"} 200\n', "histogram.beyond", [0.25]),  # noqa: E501
        ("first data: 8.0 s, last data: 8.0 s\n", "stream.arrival", [1.0]),
        ("$ sort -u p.jsonl | wc -l ; wc -l p.jsonl\n4\n400 p.jsonl\n", "bench.distinct_share", [0.01]),
        ("3 distinct prompts in 600 requests\n", "bench.distinct_share", [0.005]),
        ("event gaps (ms): 0 0 30 0 30 30 0 30\n", "stream.gap", [30.0]),
        ("read /nfs/a 80 s\nsame files on local nvme 8 s\n", "storage.gain", [10.0]),
        ("/lustre: load 100 s\ncp to /tmp: cp 98 s, load 10 s\n", "storage.gain", [10.0]),
        ("idle: PCIe x16 4.0 @ x16 1.1\nrender running: PCIe x16 4.0 @ x16 4.0\n", "link.gen", [1.0, 4.0, 4.0]),
        ("Enqueue Time: mean = 1.9 ms\nGPU Compute Time: mean = 2.0 ms\n", "launch.enqueue_share", [0.95]),
        ("| qwen3moe 30B.A3B | 17.0 GiB | 30 B | tg128 | 150.0 |\nQwen3-8B 16 GB 50 tok/s\n", "model.row", [50.0]),
    ],
)  # fmt: skip
def test_a_reader_reads_its_arithmetic(text: str, signal: str, values: list[float]) -> None:
    got = [float(f.value) for f in facts(text, signal) if isinstance(f.value, float)]
    assert sorted(got) == pytest.approx(sorted(values), abs=2e-3)


def test_share_of_a_sparse_model() -> None:
    assert model_rows.active_share("Qwen3-30B-A3B") == pytest.approx(0.1)
    assert model_rows.active_share("Mixtral-8x7B, 47 GB") == pytest.approx(12.9 / 46.7)
    assert model_rows.active_share("Llama-3.1-8B") == 1.0


def verdict(symptom: str, *texts: str) -> tuple[str, str]:
    """Verdict and leading cause."""
    got = triage(symptom, [Document.of(f"n{i}.txt", t.encode()) for i, t in enumerate(texts)]).assessment
    return got.verdict, got.accepted[0].cause.id if got.accepted else ""


GAPS = "direct, no proxy\nMean acceptance length: 2.5\ngap between events p50 30.0 ms\ntime per token {} ms (speculation off: 27.0 ms)\n"  # noqa: E501
STATES = "--query-gpu=pstate,pcie.link.gen.current,pcie.link.gen.max,utilization.gpu\nP8, 1, 4, 0 %\nP0, {}, 4, 96 %\n"


@pytest.mark.parametrize(
    ("symptom", "text", "expected"),
    [
        ("tokens come in clumps, is something buffering?", GAPS.format("12.0"), ("healthy", "none.healthy")),
        ("tokens come in clumps, is something buffering?", GAPS.format("24.0"), ("inconclusive", "")),
        ("the card shows PCIe gen 1, is the slot bad?", STATES.format(4), ("healthy", "none.healthy")),
        (
            "H2D shows 380 GB/s, can that be real?", "NVIDIA GH200 480GB\nhost_to_device_memcpy_ce 380.0 GB/s\n",
            ("healthy", "none.healthy"),
        ),
        (
            "H2D shows 38 GB/s, can that be real?", "NVIDIA GH200 480GB\nhost_to_device_memcpy_ce 38.0 GB/s\n",
            ("inconclusive", ""),
        ),
    ],
)  # fmt: skip
def test_what_only_looks_odd(symptom: str, text: str, expected: tuple[str, str]) -> None:
    assert verdict(symptom, text)[0] == expected[0]


def test_a_quantile_is_cut_only_where_much_lies_above() -> None:
    rows = 'req_seconds_bucket{{le="1"}} 500\nreq_seconds_bucket{{le="2"}} {}\nreq_seconds_bucket{{le="+Inf"}} 10000\n'
    asked = "p99 is a flat line at exactly 2 s although users wait longer"
    assert verdict(asked, rows.format(4000)) == ("cause", "serving.benchmark_artifact")
    assert verdict(asked, rows.format(9990))[0] == "inconclusive"
