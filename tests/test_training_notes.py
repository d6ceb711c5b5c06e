"""Typed notes about kernels and training loops: what is read, and which cause it leads to."""

from __future__ import annotations

import pytest
from diagnose.probes.contrasts import Contrasts
from diagnose.probes.kernel_words import KernelWords
from diagnose.probes.peaks import StatedPeaks
from diagnose.probes.step_series import OverlapColumn, ShapeSeries, StepSeries

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact


def doc(text: str) -> Document:
    return Document.of("note", text.encode())


def facts(reader: object, text: str) -> dict[str, Fact]:
    return {f.signal: f for f in reader.parse(doc(text))}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "signal", "value"),
    [
        ("random: 7.7 ms, 8.4 threads active per instruction", "kernel.active_threads", 8.4),
        ("7 of 32 threads do anything", "kernel.active_threads", 7.0),
        ("gld eff. 100 %  DRAM 91.7 %  SM 22.4 %", "kernel.dram", 0.917),
        ("sectors/request (global loads): 31.6 (4 would be ideal)", "kernel.sectors_per_request", 31.6),
        ("bytes used per 32-byte sector: 4.0", "kernel.load_efficiency", 0.125),
        ("a 16-way bank conflict", "kernel.conflict_ways", 16.0),
        ("1.31 M requests, 20.96 M wavefronts (ideal 1.31 M)", "kernel.conflict_ways", 16.0),
        ("registers/thread 255, local memory per thread 1904 bytes", "kernel.spill.bytes", 1904.0),
        ("split_kv=1   grid=(8,1,1)   0.41 ms", "kernel.grid", 8.0),
        ("launched 24 blocks of 64 threads; 132 SMs", "kernel.sms", 132.0),
        ("占用率 25%   3.92 ms", "kernel.occupancy", 0.25),
    ],
)
def test_spoken_figures(text: str, signal: str, value: float) -> None:
    assert facts(KernelWords(), text)[signal].value == pytest.approx(value)


@pytest.mark.parametrize("text", ["KV occupancy 93 %", "queue occupancy: 80%", "the grid was up 12 %", "8 CPU threads"])
def test_other_peoples_words(text: str) -> None:
    assert not facts(KernelWords(), text)


def test_peaks() -> None:
    got = facts(StatedPeaks(), "NVIDIA A100-SXM4-80GB, peak 2039 GB/s")
    assert got["gpu.product"].value == "A100-SXM4-80GB"
    assert got["roof.stated"].value == 2039
    assert "roof.stated" not in facts(StatedPeaks(), "it reaches 1755 GB/s")


def test_new_shapes_are_slow() -> None:
    slow = "len=17: 22.1 s, len=23: 21.8 s, len=17: 0.03 s, len=31: 22.9 s, len=23: 0.03 s"
    assert facts(ShapeSeries(), slow)["train.first_of_shape"].value == pytest.approx(21.8 / 0.03)
    assert not facts(ShapeSeries(), slow.replace("22.9", "0.04").replace("21.8", "0.04"))


def test_period() -> None:
    text = " | ".join(f"it {i} {1.3 if i % 8 == 1 else 0.14}" for i in range(16, 36))
    assert facts(StepSeries(), text)["train.slow_period"].value == 8
    assert not facts(StepSeries(), text.replace("1.3", "0.14"))


def test_overlap_column() -> None:
    text = "rank  comp_comm_overlap_pctg\n  0     4.1\n  1     4.3\n"
    assert facts(OverlapColumn(), text)["train.overlap"].value == pytest.approx(0.043)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("float As[32][32];      3.71 ms\nfloat As[32][32 + 1];  1.66 ms\n", "padding"),
        ("AoS   3.9 ms\nSoA   1.0 ms\n", "layout"),
        ("real images   410 img/s\nsynthetic   985 img/s\n", "input"),
        ("每步打印 loss:    0.247 s/step\n每 50 步打印一次: 0.181 s/step\n", "sync"),
        ("把步长从 16 改成 17: 0.92 ms -> 0.44 ms\n", "padding"),
    ],
)
def test_contrasts(text: str, name: str) -> None:
    gains = [f for f in Contrasts().parse(doc(text)) if f.signal == "variant.gain"]
    assert name in [f.subject.label for f in gains]


def test_no_gain_no_contrast() -> None:
    assert not list(Contrasts().parse(doc("real images   980 img/s\nsynthetic   985 img/s\n")))
    assert not list(Contrasts().parse(doc("real images   985 img/s\nsynthetic   410 img/s\n")))


@pytest.mark.parametrize(
    ("symptom", "text", "cause"),
    [
        ("is this kernel slow?", "sorted  1.6 ms  active threads/warp 30\nas read  6.2 ms  active threads/warp 7\n",
         "cuda.divergence"),
        ("why is the kernel slow?", "tiles  waves  ms\n 132   1.00  0.51\n 133   1.01  0.98\n 264   2.00  1.00\n",
         "cuda.low_occupancy"),
        ("can this kernel be made faster?", "NVIDIA H200 (4.8 TB/s): gemv 4.20 TB/s\n", "cuda.memory_bound"),
        ("GEMM only 292 TFLOPS, the data sheet says 733", "NVIDIA L40S, bf16 8192^3: 291.4 TFLOPS\n", "none.healthy"),
        ("GEMM gives only 60 TFLOPS, why?", "NVIDIA L40S, bf16 8192^3: 60 TFLOPS\n", "none.inconclusive"),
        ("device copy slow?", "GPU 0: NVIDIA H100 80GB HBM3\ncudaMemcpy D2D 4 GiB: 1338 GB/s\n", "none.healthy"),
    ],
)  # fmt: skip
def test_leads(symptom: str, text: str, cause: str) -> None:
    got = triage(symptom, [doc(text)]).assessment
    assert (got.accepted[0].cause.id if got.accepted else f"none.{got.verdict}") == cause
