"""Readings that name a cause beside their near misses, which must stay silent."""

from __future__ import annotations

import pytest

from diagnose.axes import classify
from diagnose.document import Document
from diagnose.gather import gather


def _facts(text: str) -> list[tuple[str, str, object]]:
    got = gather([Document.of("note.txt", text.encode())])
    return [(f.signal, f.subject.label or "", f.value) for f in got.facts]


@pytest.mark.parametrize(
    ("signal", "fires", "silent"),
    [
        ("serving.mark.first_bad", "91bb07ae4d is the first bad commit", "the first bad commit we looked at was fine"),
        (
            "serving.mark.option_missing",
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "tool choice auto, --enable-auto-tool-choice was passed at start",
        ),
        (
            "serving.mark.same_prompt",
            "# sends the same 8k prompt 500 times",
            "# all users share the same system prompt",
        ),
        (
            "serving.mark.deadline",
            "Overrun might occur, Total time : 4911.102 us (Expected < 2000.000 us) --> Read time : 211.0 us",
            "deadline missed: 0",
        ),
        (
            "rdma.port.sent",
            "PortXmitWait 9\nPortXmitData            3120441102",
            "PortXmitWait 9, PortXmitData is counted in words of 4 bytes",
        ),
        (
            "gpu.mark.expandable_cures",
            "expandable_segments:True   61.0 GiB   跑完",
            "expandable_segments:True 第 9 步 OOM",
        ),
    ],
)
def test_marks_and_their_near_misses(signal: str, fires: str, silent: str) -> None:
    assert signal in {s for s, _, _ in _facts(fires + "\n")}
    assert signal not in {s for s, _, _ in _facts(silent + "\n")}


def test_short_options_of_numactl() -> None:
    found = {
        (label, value) for s, label, value in _facts("numactl -N0 -m 1 python worker.py\n") if s == "host.numa.bind"
    }
    assert found == {("N", "0"), ("m", "1")}


def test_phases_that_outlast_their_step_overlap() -> None:
    shares = {la: v for s, la, v in _facts("step 402 ms, compute 395 ms, communication 163 ms\n") if s == "step.share"}
    assert shares["comm"] == pytest.approx(7 / 402)
    serial = {la: v for s, la, v in _facts("step 402 ms, compute 239 ms, communication 163 ms\n") if s == "step.share"}
    assert serial["comm"] == pytest.approx(163 / 402)


@pytest.mark.parametrize(
    ("over", "axis"),
    [("threads/block", "kernel"), ("threads per block", "kernel"), ("threads", "threads"), ("OMP threads", "threads")],
)
def test_threads_of_a_block_are_no_threads_of_the_host(over: str, axis: str) -> None:
    assert classify("32", "256", over)[0] == axis


def test_gen_throughput_is_no_pcie_generation() -> None:
    assert "pcie" not in classify("before", "after", "gen throughput (token/s)")
    assert classify("3", "5", "PCIe gen")[0] == "pcie"
