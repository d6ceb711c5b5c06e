"""What PyTorch prints about its collectives, by release: timeouts, desync report, warnings that are none."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import report
from diagnose.gather import gather, number
from diagnose.models import Report
from diagnose.predicates import Context
from diagnose.rules import RULES

AT = "[rank3]:[E1120 10:31:02.1 ProcessGroupNCCL.cpp:632]"
WORK = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=512, OpType=ALLREDUCE, NumelIn=1048576, NumelOut=1048576, Timeout(ms)=600000) ran for 600029 milliseconds before timing out."  # noqa: E501
# The prefix of a line in 2.0, 2.3, 2.4 and since 2.5; where the last work stands in 2.3 to 2.5 and since 2.6.
PREFIXES = ("[Rank 3]", "[PG 0 Rank 3]", "[PG 0 (default_pg) Rank 3]", "[PG ID 0 PG GUID 0(default_pg) Rank 3]")
LASTS = (
    "[PG 0 Rank 3] Timeout at NCCL work: 512, last enqueued NCCL work: 515, last completed NCCL work: 511.",
    "[PG ID 0 PG GUID 0 Rank 3]  failure detected by watchdog at work sequence id: 512 PG status: last enqueued work: 515, last completed work: 511",  # noqa: E501
)
SHAPES = """\
[E ProcessGroupNCCL.cpp:828] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, TensorShape=[64, 8], Timeout(ms)=1800000) ran for 1806214 milliseconds before timing out.
[E ProcessGroupNCCL.cpp:828] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, TensorShape=[64, 4], Timeout(ms)=1800000) ran for 1806230 milliseconds before timing out.
"""  # noqa: E501
LAGGING = """\
\t - [0] Timeout at collective: ALLREDUCE, #512
\t - To our best knowledge, the lagging/dead/mismatched ranks that caused the desync are:
\t     [7] finished collective #511, but didn't join collective #512 (count from 1)
\t - Snapshot of ranks' latest states:
\t   #511 finished ranks:
\t     [7] finished BROADCAST
\t   #512 started ranks:
\t     [0, 1, 2, 3, 4, 5, 6] started ALLREDUCE
"""
TOGETHER = """\
\t - To our best knowledge, the lagging/dead/mismatched ranks that caused the desync are:
\t   - [0, 1, 2, 3, 4, 5, 6, 7] joined but didn't finish collective #512 (count from 1)
\t - Snapshot of ranks' latest states:
\t   #512 started ranks:
\t     [0, 1, 2, 3, 4, 5, 6, 7] started ALLREDUCE
"""
APART = TOGETHER.replace(", 7] started ALLREDUCE", "] started ALLREDUCE\n\t     [7] started BROADCAST")
HARMLESS = """\
[rank0]:[W1120 10:31:02.1 ProcessGroupNCCL.cpp:4561] [PG ID 0 PG GUID 0 Rank 0]  using GPU 0 to perform barrier as devices used by this process are currently unknown. This can potentially cause a hang if this rank to GPU mapping is incorrect.
[rank1]:[W1120 10:31:02.1 ProcessGroupNCCL.cpp:3684] An unbatched P2P op (send/recv) was called on this ProcessGroup with size 8. In lazy initialization mode, this will result in a new 2-rank NCCL communicator to be created.
[rank0]:[W1120 10:31:02.1 ProcessGroupNCCL.cpp:1250] Warning: WARNING: destroy_process_group() was not called before program exit, which can leak resources.
[rank2]:[W1120 10:31:02.1 ProcessGroupNCCL.cpp:4718]  Guessing device ID based on global rank. This can cause a hang if rank to GPU mapping is heterogeneous. You can specify device_id in init_process_group()
"""  # noqa: E501


def context(text: str) -> Context:
    return Context(number(gather([Document.of("log", text.encode())])))


def run(symptom: str, text: str) -> Report:
    return report(symptom, [Document.of("log", text.encode())])


@pytest.mark.parametrize("differ", [True, False])
def test_up_to_2_0_a_work_tells_its_shape(differ: bool) -> None:
    ctx = context(SHAPES if differ else SHAPES.replace("[64, 4]", "[64, 8]"))
    assert [e.value for e in ctx.of("torch.watchdog")] == ["ALLREDUCE 64x8", f"ALLREDUCE 64x{4 if differ else 8}"]
    assert (RULES["ranks_in_different_collectives"](ctx).holds is True) is differ


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_rank_is_read_in_every_generation_of_the_prefix(prefix: str) -> None:
    (item,) = context(f"[E ProcessGroupNCCL.cpp:828] {prefix} {WORK}").of("torch.watchdog")
    assert (item.subject.rank, item.subject.label, item.value) == (3, "SeqNum=512", "ALLREDUCE 1048576")


@pytest.mark.parametrize("line", LASTS)
def test_the_last_work_is_read_in_every_generation(line: str) -> None:
    ctx = context(f"{AT} {line}")
    assert [v for v, _ in ctx.numbers("torch.enqueued")] == [515.0]
    assert [v for v, _ in ctx.numbers("torch.completed")] == [511.0]


@pytest.mark.parametrize(
    ("text", "numbers", "operations"),
    [(LAGGING, True, False), (TOGETHER, False, False), (APART, False, True)],
)
def test_a_desync_report_says_where_the_ranks_stand(text: str, numbers: bool, operations: bool) -> None:
    ctx = context(text)
    assert (RULES["ranks_at_different_numbers"](ctx).holds is True) is numbers
    assert (RULES["ranks_in_different_collectives"](ctx).holds is True) is operations


def test_ranks_in_different_operations_are_named() -> None:
    got = run("training hangs after some hours, then the watchdog kills it", APART)
    assert got.findings[0].cause == "nccl.collective_mismatch"
    assert run("training hangs after some hours", TOGETHER).verdict == "inconclusive"


def test_warnings_that_are_none_place_no_rank_in_a_collective() -> None:
    assert not context(HARMLESS + f"{AT} [Rank 3] {WORK}").of("rank.collective")
    got = run("training hangs", HARMLESS)
    assert got.verdict == "inconclusive"
    assert [h.because for h in got.red_herrings] == ["they stand in logs of healthy runs too"]


def test_deterministic_mode_takes_multicast_away() -> None:
    line = "[W1120 10:31:02.1 ProcessGroupNCCL.cpp:990] torch deterministic mode is enabled, disabling NVLS algorithm in NCCL which can lead to non-deterministic reduction."  # noqa: E501
    got = run("all_reduce is slower than on the other cluster", line)
    assert "nccl.algorithm_choice" in [h.cause for h in (*got.findings, *got.hypotheses)]


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: [3] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: Socket Timeout",  # noqa: E501
        "torch.distributed.DistStoreError: wait timeout after 600000ms, keys: /default_pg/0//cuda//0",
    ],
)
def test_a_rank_that_never_came_to_the_store_is_a_weak_sign(line: str) -> None:
    assert context(line).of("nccl.mark.store_wait")
    got = run("training hangs at init", line)
    assert got.verdict == "inconclusive"
    assert got.hypotheses[0].cause == "nccl.collective_mismatch"


SORTED = '{"entries": [{"collective_seq_id": 511, "profiling_name": "nccl:all_reduce", "input_sizes": [[8, 4]], "state": "completed"}, {"collective_seq_id": 512, "duration_ms": 0, "input_sizes": [[8, 4]], "profiling_name": "nccl:all_reduce", "state": "scheduled"}], "pg_status": {"0": {"last_completed_collective": 511, "last_enqueued_collective": 515, "last_started_collective": 512}}}'  # noqa: E501
PRINTED = "{'record_id': 7, 'pg_id': 0, 'process_group': ('0', 'default_pg'), 'collective_seq_id': 512, 'p2p_seq_id': 0, 'op_id': 512, 'profiling_name': 'nccl:all_reduce', 'input_sizes': [[8, 4]], 'state': 'scheduled', 'retired': False}"  # noqa: E501
DONE = PRINTED.replace("scheduled", "completed").replace("512", "511") + ", "
OLD = "{'record_id': 7, 'pg_id': 0, 'seq_id': 512, 'op_id': 512, 'profiling_name': 'nccl:all_reduce', 'input_sizes': [[8, 4]], 'state': 'started'}"  # noqa: E501


@pytest.mark.parametrize(
    ("text", "value"),
    [(SORTED, "ALL_REDUCE 32"), (PRINTED, "ALL_REDUCE"), (DONE + PRINTED, "ALL_REDUCE"), (OLD, "ALL_REDUCE")],
)
def test_a_flight_recorder_is_read_as_json_and_as_python_prints_it(text: str, value: str) -> None:
    ctx = context(text)
    assert [(e.subject.label, e.value) for e in ctx.of("torch.watchdog")] == [("SeqNum=512", value)]
    assert [v for v, _ in ctx.numbers("torch.completed")] == ([511.0] if "pg_status" in text else [])
    assert not context(text.replace("scheduled", "completed").replace("started'", "completed'")).of("torch.watchdog")
