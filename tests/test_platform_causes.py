"""Causes of the platform family: every case names its cause, and a near miss of each rule stays silent."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.engine import Triage, triage

CASES = Path(__file__).parents[1] / "evals" / "cases"
OURS = ("gpu.", "host.cpu", "host.numa", "host.memory", "host.storage", "env.")


@lru_cache(maxsize=1)
def cases() -> dict[str, dict[str, Any]]:
    return {c["id"]: c for f in CASES.glob("platform_?.yaml") for c in plain_yaml(f.read_text("utf-8"))}


def run(symptom: str, *texts: str) -> Triage:
    return triage(symptom, [Document.of(f"{i}", t.encode()) for i, t in enumerate(texts)])


def believed(got: Triage) -> dict[str, float]:
    return {c: b.p for c, b in got.assessment.beliefs.items() if b.p >= 0.5 and c.startswith(OURS)}


@pytest.mark.parametrize("name", sorted(cases()))
def test_case(name: str) -> None:
    case = cases()[name]
    got = run(case["symptom"], *(a["text"] for a in case["artifacts"]))
    held = believed(got)
    if case.get("verdict") in ("healthy", "inconclusive"):
        assert not held
        return
    assert held.get(case["root_cause"]["label"], 0) >= 0.5, held
    cited = " ".join(s.quote for b in got.assessment.accepted for e in b.evidence for s in e.spans)
    assert any(part in cited for part in case["evidence"])


@pytest.mark.parametrize(
    ("symptom", "text"),
    [
        ("slow decode", "index, clocks.current.sm [MHz], clocks.max.sm [MHz], utilization.gpu [%]\n0, 345 MHz, 1980 "
                        "MHz, 0 %\n"),
        ("slow training", "power.draw [W], power.limit [W], clocks.current.sm [MHz], clocks.max.sm [MHz], "
                          "utilization.gpu [%]\n"
                          "349.1 W, 350.00 W, 1290 MHz, 2520 MHz, 100 %\n"),
        ("copies are slow", "pstate, utilization.gpu, pcie.link.gen.current, pcie.link.gen.max, "
                            "pcie.link.width.current, pcie.link.width.max\n"
                            "P8, 0 %, 1, 4, 16, 16\n"),
        ("GPU is busy", "|    0   N/A  N/A      2231      G   /usr/lib/xorg/Xorg       120MiB |\n|    0   N/A  N/A  "
                        "   41822      C   python   9000MiB |\n"),
        ("training slow", "|  0   N/A  N/A  100  C  python  9000MiB |\n|  1   N/A  N/A  101  C  python  9000MiB |\n"),
        ("hang", "NVRM: Xid (PCI:0000:3b:00): 45, pid=1, Ch 0000001\n"),
        ("slow", "ECC Errors\n    Volatile\n        Double Bit ECC    : 0\n        SRAM Correctable  : 2\n"),
        ("slow", "PyTorch version: 2.5.1+cu124\nNvidia driver version: 535.183.01\nIs CUDA available: True\n"),
        ("bad TPOT", "CPU(s):    128\n$ cat /sys/fs/cgroup/cpu.max\n12800000 100000\n"),
        ("bad TPOT", "nr_periods 120331\nnr_throttled 40\n"),
        ("slow", "top - 14:02 up 1 day, load average: 30.1, 28, 27\n%Cpu(s): 42.1 us,  1.8 sy,  0.0 ni, 56.1 id,  "
                 "0.0 wa,  0.0 hi,  0.0 si,  0.0 st\n$ nproc\n64\n"),
        ("slow", "Mem:  251Gi  230Gi  2.1Gi  7.2Mi  18Gi  19Gi\nSwap: 8.0Gi  12Mi  8.0Gi\n"),
        ("training hangs", "NCCL INFO dlvsym failed on mlx5dv_reg_dmabuf_mr - libmlx5.so: undefined symbol: "
                           "mlx5dv_reg_dmabuf_mr, version MLX5_1.25\n"),
        ("no RDMA", "modprobe: FATAL: Module nvidia_peermem not found in directory /lib/modules/6.8.0\n"),
        ("server slow to start", "Loading weights took 3.21 seconds\nModel loading took 14.98 GiB and 4.10 seconds\n"),
    ],
)  # fmt: skip
def test_near_misses_stay_silent(symptom: str, text: str) -> None:
    assert not believed(run(symptom, text))


def test_without_its_decisive_line_a_case_becomes_inconclusive() -> None:
    case = cases()["cpu-nr-throttled"]
    text = "\n".join(x for x in case["artifacts"][0]["text"].splitlines() if "throttled" not in x)
    assert not believed(run(case["symptom"], text))


def test_the_same_message_tells_fragmentation_from_shortage() -> None:
    text = cases()["oom-frag-new"]["artifacts"][0]["text"]
    more = text.replace("18.12 GiB is reserved", "1.12 GiB is reserved")
    assert set(believed(run("OOM", text))) == {"gpu.out_of_memory_fragmentation"}
    assert set(believed(run("OOM", more))) == {"gpu.out_of_memory_capacity"}


def test_own_process_in_a_container_is_not_a_neighbour() -> None:
    got = run("OOM", "Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 13.31 MiB is "
                     "free. Process 2345 has 23.62 GiB "
                     "memory in use. Of the allocated memory 23.01 GiB is allocated by PyTorch, and 4.20 MiB is "
                     "reserved by PyTorch but unallocated.")  # fmt: skip
    assert set(believed(got)) == {"gpu.out_of_memory_capacity"}


def test_states_of_rest_are_named_for_the_healthy_verdict() -> None:
    from diagnose.rules import RULES

    for name, rule in (
        ("ok-gen1-idle", "pcie_idle_gen_only"),
        ("ok-sw-power-cap", "sw_power_cap_only"),
        ("ok-535-cu124", "driver_serves_cuda"),
    ):
        case = cases()[name]
        assert RULES[rule](run(case["symptom"], *(a["text"] for a in case["artifacts"])).context).holds, rule
