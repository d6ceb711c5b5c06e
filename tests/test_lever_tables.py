"""Small tables and pairs of commands: what was turned, and what it decides."""

from __future__ import annotations

import pytest
from diagnose.probes.levers import LeverCommands, LeverTables
from diagnose.probes.rank_lines import RankOperations, RankTimers

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.explain import findings


def _rows(text: str) -> set[str]:
    return {f.subject.label or "" for f in LeverTables().parse(Document.of("a.txt", text.encode()))}


def _first(symptom: str, text: str) -> str:
    read = triage(symptom, [Document.of("a.txt", text.encode())])
    got = read.assessment
    found = findings(got, read.context)
    return f"{got.verdict} {found[0].cause if found else ''}"


def test_head_and_both_settings_are_kept() -> None:
    table = "UCX_RNDV_THRESH   1 MB bw\ninf               5.1 GB/s\n8192              22.8 GB/s\n"
    assert _rows(table) == {"UCX_RNDV_THRESH|inf|8192|1 MB bw"}


@pytest.mark.parametrize(
    "table",
    [
        "launch     ulimit -l    UCX\nssh        unlimited    ok\nsrun       64           mem_reg failed\n",
        "| launch | ulimit -l | UCX |\n|---|---|---|\n| ssh | unlimited | ok |\n| srun | 64 | mem_reg failed |\n",
        "launch\tulimit -l\tUCX\nssh\tunlimited\tok\nsrun\t64\tmem_reg failed\n",
    ],
)
def test_words_are_an_outcome(table: str) -> None:
    assert "ulimit -l|64|unlimited|UCX" in _rows(table)


def test_a_long_cell_is_parted_under_its_head() -> None:
    table = (
        "NIC slot             GPU0-NIC topo       busbw\n"
        "slot 7 (CPU1)        SYS                 6.9 GB/s\n"
        "slot 2 (CPU0 switch) PIX                 11.9 GB/s\n"
    )
    assert "GPU0-NIC topo|SYS|PIX|busbw" in _rows(table)


@pytest.mark.parametrize(
    "table",
    [
        "UCX_TLS      bw\nrc           22.9 GB/s\nall          23.1 GB/s\n",  # as fast
        "node    state    firmware\nn01     ok       20.1\nn02     ok       20.2\n",  # nothing measured
        "just a line\nand  another one\n",
    ],
)
def test_no_row_where_nothing_is_apart(table: str) -> None:
    assert not any(label.startswith("UCX_TLS|rc|all") or "state" in label.split("|")[0] for label in _rows(table))


def test_two_commands_differ_in_one_word() -> None:
    text = "$ mpirun -x UCX_TLS=tcp,cuda_copy osu_bw | tail -1\n4194304  1123.8\n$ mpirun osu_bw | tail -1\n4194304  23120.4\n"  # noqa: E501
    found = [f.subject.label for f in LeverCommands().parse(Document.of("a.txt", text.encode()))]
    assert found == ["command osu_bw|-x UCX_TLS=tcp,cuda_copy||result"]
    other = text.replace("$ mpirun osu_bw", "$ mpirun osu_latency")  # two tools are no pair
    assert not list(LeverCommands().parse(Document.of("a.txt", other.encode())))


@pytest.mark.parametrize(
    ("symptom", "table", "want"),
    [
        ("UCX between GPUs of one node is slow", "UCX_TLS                  bw\nrc,cuda_copy             9.8 GB/s\nrc,cuda_copy,cuda_ipc    45.1 GB/s\n", "cause ucx.tls_restricted"),  # noqa: E501
        ("NCCL all-reduce fell from 230 to 20", "NCCL_P2P_DISABLE   busbw\n-                  231.0\n1                  19.6\n", "cause nccl.env_override"),  # noqa: E501
        ("no gain from the NVLink bridge", "host   nvlink links active   busbw\nw1     4 of 4                48.2\nw2     0 of 4                11.3\n", "cause nccl.nvlink_down"),  # noqa: E501
        ("TTFT got worse with more replicas", "router policy     TTFT p50\nround robin       1.42 s\nprefix aware      0.24 s\n", "cause serving.prefix_cache_miss"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_lever_names_the_cause(symptom: str, table: str, want: str) -> None:
    assert _first(symptom, table) == want


@pytest.mark.parametrize(
    ("symptom", "table", "never"),
    [
        ("UCX is slow", "UCX_TLS                  bw\nrc,cuda_copy,cuda_ipc    45.1 GB/s\nrc,cuda_copy             44.8 GB/s\n", "ucx.tls_restricted"),  # noqa: E501
        ("all-reduce is slow", "NCCL_P2P_DISABLE   busbw\n1                  231.0\n-                  19.6\n", "nccl.env_override"),  # noqa: E501
        ("which algorithm", "NCCL_IB_HCA   busbw\nmlx5_0        23.0\nmlx5_1        23.1\n", "nccl.transport.wrong_interface"),  # noqa: E501
        ("TTFT with two routers", "router policy     TTFT p50\nround robin       0.25 s\nprefix aware      0.24 s\n", "serving.prefix_cache_miss"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_lever_turned_the_other_way_or_without_effect_names_nothing(symptom: str, table: str, never: str) -> None:
    assert _first(symptom, table) != f"cause {never}"


def test_timers_across_ranks_are_ms_and_a_spread() -> None:
    text = " timers (min, max) across ranks (ms):\n    forward-compute ......: (400.00, 1200.00)\n    optimizer ......: (9.0, 9.3)\n"  # noqa: E501
    found = {f.subject.label: f.value for f in RankTimers().parse(Document.of("a.txt", text.encode()))}
    assert found["forward-compute"] == pytest.approx(3.0)
    assert found["optimizer"] == pytest.approx(1.033, abs=0.001)
    alone = text.replace("across ranks", "of rank 0")
    assert not list(RankTimers().parse(Document.of("a.txt", alone.encode())))


def test_rows_of_a_flight_recorder() -> None:
    head = "rank  seq  op                 state\n"
    rows = "0     512  nccl:_all_gather   started\n2     512  nccl:all_reduce    started\n"
    found = {str(f.value) for f in RankOperations().parse(Document.of("a.txt", (head + rows).encode()))}
    assert found == {"all_gather", "all_reduce"}
    same = rows.replace("all_reduce ", "all_gather ")
    assert not list(RankOperations().parse(Document.of("a.txt", (head + same).encode())))


@pytest.mark.parametrize(
    ("signal", "line", "near_miss"),
    [
        ("nccl.mark.init_profile", "97.2%  init_process_group -> TCPStore.wait", "3.1%  init_process_group -> TCPStore.wait"),  # noqa: E501
        ("nccl.mark.rank_elsewhere", "rank3 py-spy: save_checkpoint -> _write_shard", "saved with save_checkpoint in 3 s"),  # noqa: E501
        ("rdma.mark.port_rate_bare", "Rate: 200", "Rate: 200 tok/s"),
        ("ucx.mark.memtype_unsupported", "UCX ERROR memory type cuda not supported", "memory type host not supported"),
        ("ucx.mark.reregistered", "ibv_reg_mr calls per second: 3912", "ibv_reg_mr calls at start: 3912"),
        ("serving.mark.ar_share", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL   57.3%   10240", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL   7.3%   10240"),  # noqa: E501
    ],
)  # fmt: skip
def test_marks_and_their_near_misses(signal: str, line: str, near_miss: str) -> None:
    seen = [
        {e.signal for e in triage("slow", [Document.of("a.txt", (text + "\n").encode())]).evidence}
        for text in (line, near_miss)
    ]
    assert signal in seen[0] and signal not in seen[1]
