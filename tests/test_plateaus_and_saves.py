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


def accepted(symptom: str, text: str) -> tuple[str, list[str]]:
    """The verdict and the causes."""
    got = triage(symptom, [Document.of("a.txt", text.encode())]).assessment
    return got.verdict, [b.cause.id for b in got.accepted]


@pytest.mark.parametrize(("busbw", "verdict"), [("38.41", "healthy"), ("20.10", "inconclusive")])
def test_the_wire_of_an_instance(busbw: str, verdict: str) -> None:
    """Four EFA devices carry 50 GB/s; most of that is healthy, a part of it is not."""
    log = (
        "n1:1:2 [0] NCCL INFO NET/OFI Selected Provider is efa (found 4 nics)\n"
        "n1:1:2 [0] NCCL INFO Channel 00/0 : 8[0] -> 0[0] [receive] via NET/AWS Libfabric/0/GDRDMA\n"
        f"  1073741824  268435456  float  sum  -1  52410  20.49  {busbw}  0  52388  20.50  {busbw}  0\n"
    )
    assert accepted("2 nodes p4d reach only this, should be 400 Gbit", log)[0] == verdict


@pytest.mark.parametrize(("uplinks", "found"), [("99 12 98 0 100 47 99 3", True), ("61 60 62 61 60 61 62 60", False)])
def test_uplinks(uplinks: str, found: bool) -> None:
    """Full ways beside idle ones; not ways that share the load."""
    got = accepted("all-reduce is slow on 16 nodes", f"leaf3 uplink swp49..swp56 util %:  {uplinks}\n")[1]
    assert ("net.congestion" in got) is found


@pytest.mark.parametrize(("many", "found"), [(187, True), (389, False)])
def test_pairs_across_switches(many: int, found: bool) -> None:
    """One pair alone is fast, many at once are not."""
    rows = f"1 pair, cross-leaf             390    390    390\n16 pairs at once, cross-leaf   {many}    {many}    390\n"
    assert ("net.congestion" in accepted("all-reduce over two leaves is slow", "Gb/s\n" + rows)[1]) is found


@pytest.mark.parametrize(("inside", "found"), [("65536", True), ("unlimited", False)])
def test_two_ways_of_starting_it(inside: str, found: bool) -> None:
    """The daemon's limit, where the shell has none."""
    row = "Max locked memory         {0}                {0}                bytes\n"
    text = "# in srun\n" + row.format(inside) + "# in ssh\n" + row.format("unlimited")
    got = accepted("srun jobs fail at NCCL init, over ssh the same works", text)[1]
    assert ("nccl.memlock_limit" in got) is found


@pytest.mark.parametrize(("running", "cause"), [(32, "serving.max_num_seqs_low"), (97, "serving.queueing_saturation")])
def test_one_look_at_a_set_number(running: int, cause: str) -> None:
    """A power of two with many waiting and the cache free is a limit; another number is load."""
    assert accepted("TTFT is 30 s", _log(running, waiting=300))[1][:1] == [cause]


def test_a_larger_limit_that_is_told() -> None:
    """Where the limit is told and lies far above, it is not what binds."""
    text = "non-default args: {'max_num_seqs': 512}\n" + _log(48, 48, 48, 48)
    assert "serving.max_num_seqs_low" not in accepted("TTFT is 30 s", text)[1]
