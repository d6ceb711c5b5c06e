"""Running requests that stay at one number, saves that stop a run, and bindings against the side of the GPUs in use."""

from __future__ import annotations

import pytest
from diagnose.probes.host import HostReader
from diagnose.probes.plateau import PlateauRows
from diagnose.probes.prompt_code import ScatteredTurns
from diagnose.probes.saves import SavesReader
from diagnose.probes.serving_log import ServingLogReader

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact


def facts(reader: object, text: str) -> dict[str, Fact]:
    """The last fact of each signal."""
    made = reader.parse(Document.of("a.txt", text.encode()))  # type: ignore[attr-defined]
    return {f.signal: f for f in made}


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("max_over_time(vllm:num_requests_running[6h]) by (pod) -> 24, 24, 24", 24),
        ("min_over_time(vllm:num_requests_running[2h]) 96\nmax_over_time(vllm:num_requests_running[2h]) 96", 96),
        ("requests running   128   128   128   128", 128),
        ("The pods show exactly 50 running requests, all day.", 50),
        ("max_over_time(vllm:num_requests_running[6h]) by (pod) -> 24, 31, 19", None),
        ("min_over_time(vllm:num_requests_running[2h]) 12\nmax_over_time(vllm:num_requests_running[2h]) 96", None),
    ],
)
def test_rows_at_one_number(text: str, stays: int | None) -> None:
    """A row, two statistics that agree, or words; not a number that moves."""
    got = facts(PlateauRows(), text).get("serving.running_stays")
    assert (got.value if got else None) == stays


def _log(*running: int, waiting: int = 60) -> str:
    return "\n".join(
        f"Engine 000: Running: {n} reqs, Waiting: {waiting} reqs, GPU KV cache usage: 20%" for n in running
    )


def test_a_log_at_one_number() -> None:
    """Three lines at the maximum, while others wait."""
    assert facts(ServingLogReader(), _log(48, 48, 47, 48))["serving.running_stays"].value == 48
    assert "serving.running_stays" not in facts(ServingLogReader(), _log(48, 48, 48, 48, waiting=0))
    assert "serving.running_stays" not in facts(ServingLogReader(), _log(31, 48, 40, 22))


def test_a_plateau_outranks_load() -> None:
    """The queue is there because of the limit; with a full cache it is not."""
    free, full = _log(128, 128, 128, 128), _log(128, 128, 128, 128).replace("20%", "99%")
    assert triage("TTFT is 30 s", [Document.of("a", free.encode())]).assessment.accepted[0].cause.id == (
        "serving.max_num_seqs_low"
    )
    accepted = triage("TTFT is 30 s", [Document.of("a", full.encode())]).assessment.accepted
    assert "serving.max_num_seqs_low" not in [b.cause.id for b in accepted]


def test_saves() -> None:
    """Timers, durations, pairs of lines with the clock; the share where step and interval are known."""
    timer = (
        "elapsed time per iteration (ms): 7200.0 |\n  save-checkpoint ....: (209114.10, 209120.77)\n--save-interval 100"
    )
    got = facts(SavesReader(), timer)
    assert got["host.save.time"].value == pytest.approx(209.12077)
    assert got["host.save.share"].value == pytest.approx(209.12077 / (209.12077 + 720))
    pair = "20:11:09 [Torch] Saving /gpfs/a.pt...\n20:15:48 [Torch] Saved /gpfs/a.pt."
    assert facts(SavesReader(), pair)["host.save.time"].value == 279
    assert not facts(SavesReader(), "evaluate ....: (236101.92, 236108.40)\nLoaded checkpoint in 300 s")


def test_turns_on_other_replicas() -> None:
    """Turns that move and miss; not those that stay."""
    row = "conv=7 turn={n} upstream={at} prompt_tokens=4000 cached_tokens={hit}"
    moved = "\n".join(row.format(n=n, at=f"10.0.0.{n}:1", hit=0) for n in range(4))
    stayed = "\n".join(row.format(n=n, at="10.0.0.1:1", hit=0) for n in range(4))
    assert facts(ScatteredTurns(), moved)["serving.turns_scattered"].value == 3
    assert not facts(ScatteredTurns(), stayed)


@pytest.mark.parametrize(("gpus", "found"), [("4,5", True), ("0,1", False)])
def test_a_unit_on_the_far_node(gpus: str, found: bool) -> None:
    """NUMAMask of a unit counts against the GPUs that it uses, not against those of the machine."""
    unit = f"ExecStart=/opt/train --gpus {gpus}\nCPUAffinity=0-27\nNUMAMask=0\n"
    assert facts(HostReader(), unit)["host.numa.bind"].value == "0"
    topo = "".join(f"GPU{g}: NUMA Affinity {n}\n" for g, n in ((0, 0), (1, 0), (4, 1), (5, 1)))
    rates = "H2D pinned: 11.9 GB/s under the unit, 24.6 GB/s from a plain shell\n"
    got = triage("copies to the GPU are slow", [Document.of("a", (unit + topo + rates).encode())]).assessment.accepted
    assert ("host.numa_misplacement" in [b.cause.id for b in got]) is found
