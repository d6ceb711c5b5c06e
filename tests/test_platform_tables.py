"""Tables of GPUs, allocator histories, CPUs against ranks: the rule holds, and a near miss of it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.engine import Triage, triage
from diagnose.rules import RULES

FILES = sorted((Path(__file__).parents[1] / "evals" / "cases").glob("platform_more_?.yaml"))
CASES: list[dict[str, Any]] = [case for place in FILES for case in plain_yaml(place.read_text("utf-8"))]


def run(symptom: str, *texts: str) -> Triage:
    return triage(symptom, [Document.of(f"{i}", t.encode()) for i, t in enumerate(texts)])


def holds(rule: str, got: Triage) -> bool | None:
    return RULES[rule](got.context).holds


@pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])
def test_case(case: dict[str, Any]) -> None:
    got = run(case["symptom"], *(a["text"] for a in case["artifacts"])).assessment
    wanted = case["root_cause"]["label"]
    assert got.verdict == case.get("verdict", "cause")
    if got.verdict == "cause":
        assert got.accepted[0].cause.id in (wanted, *case["root_cause"].get("also_accept", []))


def matrix(*rates: float) -> str:
    return (
        "Running host_to_device_memcpy_ce.\nmemcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)\n           "
        + "         ".join(map(str, range(len(rates)))) + "\n 0     " + "     ".join(map(str, rates)) + "\n"
    )  # fmt: skip


def test_a_quarter_is_lanes_and_a_few_per_cent_are_nothing() -> None:
    assert holds("copies_at_quotient", run("copies", matrix(55.3, 55.2, 13.7, 55.3)))
    assert not holds("copies_at_quotient", run("copies", matrix(55.3, 55.2, 51.0, 55.3)))
    assert not holds("copies_at_quotient", run("copies", matrix(25.0, 25.1, 13.0, 13.1))), "a side, not one card"


def table(*rows: str) -> str:
    return "step  allocated  reserved  inactive_split  num_alloc_retries\n" + "\n".join(rows) + "\n"


def test_reserve_that_outgrows_is_fragmentation_and_growth_of_both_is_not() -> None:
    grown = run("oom", table("1 41.2 GiB 44.0 GiB 2.1 GiB 0", "9 41.9 GiB 78.0 GiB 33.0 GiB 61"))
    assert holds("reserve_outgrows", grown) and not holds("allocated_fills", grown)
    both = run("oom", table("1 41.2 GiB 44.0 GiB 2.1 GiB 0", "9 76.0 GiB 78.0 GiB 1.0 GiB 2"))
    assert not holds("reserve_outgrows", both) and holds("allocated_fills", both)


def message(asked: str, allocated: str, idle: str) -> str:
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {asked}. GPU 0 has a total capacity of "
        f"79.25 GiB of which 58.94 MiB is free. "
        f"Of the allocated memory {allocated} is allocated by PyTorch, and {idle} is "
        "reserved by PyTorch but unallocated."
    )


def test_reserve_counts_only_where_it_is_a_share_of_the_card() -> None:
    crumbs = run("oom", message("172.00 MiB", "78.31 GiB", "211.54 MiB"))
    assert holds("oom_capacity", crumbs) and not holds("oom_fragmentation", crumbs)
    plenty = run("oom", message("6.00 GiB", "66.00 GiB", "12.00 GiB"))
    assert holds("oom_fragmentation", plenty) and not holds("oom_capacity", plenty)


def test_cpus_against_ranks() -> None:
    few = run("slow", "Cpus_allowed_list:\t0-3\n", "#SBATCH --gres=gpu:8\n#SBATCH --ntasks-per-node=8\n")
    assert holds("cpus_below_ranks", few)
    enough = run("slow", "Cpus_allowed_list:\t0-95\n", "#SBATCH --gres=gpu:8\n#SBATCH --ntasks-per-node=8\n")
    assert not holds("cpus_below_ranks", enough)


def test_halves_of_a_driver() -> None:
    module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n"
    assert holds("driver_halves_differ", run("smi fails", module + "NVML library version: 535.216\n"))
    assert not holds("driver_halves_differ", run("smi fails", module + "NVML library version: 535.183\n"))


def test_no_gpu_is_hidden_only_where_nothing_else_is_to_blame() -> None:
    line = "RuntimeError: No CUDA GPUs are available\n"
    assert holds("only_hidden", run("no gpu", line))
    assert not holds("only_hidden", run("no gpu", line + "The NVIDIA driver on your system is too old (found 11040)\n"))
    prompt = ">>> torch.cuda.is_available()\n{}\n"
    assert holds("only_hidden", run("no gpu", prompt.format("False")))
    assert not holds("only_hidden", run("no gpu", prompt.format("True")))


def test_inventory_of_sockets_is_no_placement() -> None:
    got = run(
        "数据加载慢", "CPU(s):      256\nNUMA node(s):   2\nNUMA node0 CPU(s):  0-63\nNUMA node1 CPU(s):  64-127\n"
    )
    assert got.assessment.verdict == "inconclusive"


def test_four_processes_on_four_cards_share_none() -> None:
    """`--query-compute-apps` names cards by UUID; only two processes on the same one contend."""
    head = "gpu_uuid, pid, process_name, used_gpu_memory [MiB]\n"
    cards = [f"GPU-398cde98-4041-6645-d18d-f4062691440{n}" for n in range(4)]
    apart = head + "".join(f"{card}, 306{n}, VLLM::EngineCore, 74396 MiB\n" for n, card in enumerate(cards))
    together = head + "".join(f"{cards[0]}, 306{n}, VLLM::EngineCore, 34396 MiB\n" for n in range(2))

    def shared(text: str) -> bool:
        got = triage("TPOT is bad", [Document.of("apps.csv", text.encode())])
        return bool(RULES["shared_by_processes"](got.context).holds)

    assert not shared(apart) and shared(together)


def test_one_sample_of_a_series_is_no_state() -> None:
    head = "timestamp, index, utilization.gpu [%], clocks.current.sm [MHz], power.draw [W], temperature.gpu\n"
    rows = [
        f"2026/11/22 10:12:{43 + t}.504, {gpu}, 100 %, {1590 if (t, gpu) == (6, 3) else 1980} MHz, "
        f"{501 if (t, gpu) == (6, 3) else 440 + 10 * gpu}.00 W, {45 + 5 * gpu}\n"
        for t in range(9)
        for gpu in range(4)
    ]
    got = triage("TPOT is bad", [Document.of("use.csv", (head + "".join(rows)).encode())])
    assert not RULES["clock_and_heat"](got.context).holds
