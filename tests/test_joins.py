"""Facts of different places side by side: what the readers take from short text, and what the rules conclude."""

from __future__ import annotations

import pytest
from diagnose.probes.code_notes import AcsControl, InterfaceSpeeds, LoaderCode, OverlapProse, UnsyncedTimer
from diagnose.probes.kernel_text import NcuText
from diagnose.probes.nccl_hosts import NetworkUse
from diagnose.probes.rank_lines import RankLines, RankOperations, RankRanges
from diagnose.probes.siblings import LibraryCopies, LimitContexts, LonelyRanks, NetworkCounts, PortSiblings

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.plugin import Reader


def facts(reader: Reader, text: str) -> list[tuple[str, object]]:
    doc = Document.of("t.txt", text.encode())
    return [(f.signal, round(f.value, 4) if isinstance(f.value, float) else f.value) for f in reader.parse(doc)]


def lead(symptom: str, *texts: str) -> str:
    docs = [Document.of(f"{i}.txt", t.encode()) for i, t in enumerate(texts)]
    got = triage(symptom, docs).assessment
    if got.verdict == "healthy":
        return "none.healthy"
    return got.accepted[0].cause.id if got.accepted else "inconclusive"


LOG = (
    "a:1:9 [0] NCCL INFO Channel 00/0 : 8[0] -> 0[0] [receive] via NET/IB/0/GDRDMA\n"
    "b:2:9 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [receive] via NET/IB/0\n"
)


def test_adapters_and_gdr_by_host() -> None:
    got = facts(NetworkUse(), LOG)
    assert got.count(("nccl.nic_use", "0")) == 2
    assert ("nccl.host_gdr", 1.0) in got and ("nccl.host_gdr", 0.0) in got
    assert facts(NetworkUse(), "a:1:9 [0] NCCL INFO Channel 00/0 : 8[0] -> 0[0] [receive] via NET/Socket/0\n") == []


def test_gdr_missing_on_one_host() -> None:
    assert lead("allreduce between two nodes slow", LOG) == "nccl.gdr_not_used"
    same = LOG.replace("via NET/IB/0\n", "via NET/IB/0/GDRDMA\n")
    assert lead("allreduce between two nodes slow", same) == "inconclusive"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("mlx5_0 rate 200 Gb/sec (4X HDR)\n", [("rdma.port.rate", 200.0), ("rdma.port.width", 4.0)]),
        ("x mlx5_2  1X  106.25 Gbps Active/ LinkUp\n", [("rdma.port.width", 1.0)]),
        ("the rate 200 of the node\n", []),
    ],
)
def test_ports(text: str, want: list[tuple[str, object]]) -> None:
    assert facts(PortSiblings(), text) == want


def test_one_narrow_port_among_alike() -> None:
    rows = "".join(f"mlx5_{i} rate {200 if i != 2 else 100} Gb/sec ({4 if i != 2 else 2}X HDR)\n" for i in range(4))
    assert lead("allreduce slow on this node", rows) in ("nccl.ib_link_error", "net.link_down")
    assert lead("allreduce slow on this node", rows.replace("100 Gb/sec (2X", "200 Gb/sec (4X")) == "inconclusive"


def test_limits_of_two_shells() -> None:
    got = facts(LimitContexts(), "$ ssh c31 ulimit -l\nunlimited\n$ srun bash -c 'ulimit -l; ulimit -n'\n64\n131072\n")
    assert ("host.limit.memlock", "unlimited") in got
    assert ("host.limit.locked", 65536.0) in got
    assert len(got) == 2  # the number of files is no answer to the question for locked memory


def test_lonely_ranks_differ_in_host_or_device() -> None:
    alone = "rank 0 / world_size 1 on cuda:0\nrank 0 / world_size 1 on cuda:1\n"
    assert facts(LonelyRanks(), alone) == [("launch.lonely", 2.0)]
    assert facts(LonelyRanks(), "rank 0 / world_size 1 on cuda:0\nrank 0 / world_size 1 on cuda:0\n") == []
    assert facts(LonelyRanks(), "rank 0 / world_size 16 on cuda:0\nrank 1 / world_size 16 on cuda:1\n") == []


def test_switch_ports_and_calls() -> None:
    assert ("net.oversubscription", 4.0) in facts(NetworkCounts(), "leaf: 16 downlinks x 400G, 4 uplinks x 400G\n")
    assert facts(NetworkCounts(), "oversubscription 3:1\n") == [("net.oversubscription", 3.0)]
    assert facts(NetworkCounts(), "160 allreduce per token\n") == [("message.calls_each", 160.0)]


def test_copies_of_the_library() -> None:
    got = facts(LibraryCopies(), "/opt/a/libnccl.so.2.16.5\n/usr/b/libnccl.so.2\nnccl.get_version()\n21605\n")
    assert ("version", "2.16.5") in got and ("nccl.version.code", "2.16.5") in got


def test_code_without_pinning_and_without_waiting() -> None:
    code = "dl = DataLoader(ds, batch_size=8{})\nfor x in dl:\n    x = x.to('cuda', non_blocking=True)\n"
    assert len(facts(LoaderCode(), code.format(""))) == 1
    assert facts(LoaderCode(), code.format(", pin_memory=True")) == []
    timed = "t = time.time()\ndist.all_reduce(x)\n{}print(time.time() - t)\n"
    assert len(facts(UnsyncedTimer(), timed.format(""))) == 1
    assert facts(UnsyncedTimer(), timed.format("torch.cuda.synchronize()\n")) == []


def test_overlap_in_a_sentence() -> None:
    assert ("train.overlap", 0.1154) in facts(OverlapProse(), "nccl 总时长 182 ms，其中与计算重叠 21 ms\n")
    assert facts(OverlapProse(), "comm 182 ms, overlap enabled, step 410 ms\n")[:1] != [("train.overlap", 1.0)]


def test_acs_register_and_interface_speeds() -> None:
    assert facts(AcsControl(), "$ setpci -s 40:01.1 ECAP_ACS+6.w\n001d\n") == [("pci.acs_redirects", "001d")]
    assert facts(AcsControl(), "$ setpci -s 40:01.1 ECAP_ACS+6.w\n0000\n") == []
    assert facts(InterfaceSpeeds(), "eno1: 1000Mb/s full\n") == [("net.interface.speed", 1.0)]


def test_ranks_on_lines() -> None:
    rows = "".join(
        f"[rank{r}] step 8 wait={0.41 if r != 2 else 0.004} data={0.03 if r != 2 else 0.44}\n" for r in range(4)
    )
    assert [s for s, _ in facts(RankLines(), rows)] == ["straggler.late"]
    assert facts(RankLines(), rows.replace("0.004", "0.41").replace("0.44", "0.03")) == []
    assert facts(RankRanges(), "ranks 0..76   0-6\nrank 77      341\nranks 78..127  0-7\n") == [
        ("spread.outlier", 48.7143)
    ]
    stuck = "py-spy on all ranks:\nranks 0-5: all_to_all_single\nranks 6,7: all_reduce\n"
    assert len(facts(RankOperations(), stuck)) == 2
    assert facts(RankOperations(), "ranks 0-5: all_to_all_single\nranks 6,7: all_reduce\n") == []


@pytest.mark.parametrize(
    ("text", "signal", "value"),
    [
        (
            "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum 33,554,432\n"
            "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum 1,048,576\n",
            "kernel.sectors_per_request",
            32.0,
        ),
        (
            "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum 7,340,032\n"
            "smsp__inst_executed_op_shared_ld.sum 1,048,576\n",
            "kernel.conflict_ways",
            8.0,
        ),
        (
            "smsp__thread_inst_executed.sum 6,710,886\nsmsp__inst_executed.sum 1,048,576\n",
            "kernel.active_threads",
            6.4,
        ),
    ],
)
def test_quotients_of_counters(text: str, signal: str, value: float) -> None:
    assert (signal, value) in facts(NcuText(), text)


def test_scaling_that_holds_is_healthy_and_one_that_does_not_is_none() -> None:
    rows = "GPUs   samples/s   per GPU\n16     5,120       320\n32     10,210      319\n64     {}      {}\n"
    asked = "16 to 64 GPUs, throughput is not linear, is it the network?"
    assert lead(asked, rows.format("20,220", "316")) == "none.healthy"
    assert lead(asked, rows.format("9,220", "144")) != "none.healthy"


def test_separate_runs_are_never_healthy() -> None:
    text = "".join(
        f"#  Rank  0 Group  0 Pid {4000 + i} on  gx{i} device  0 [0x0f] NVIDIA H100 80GB HBM3\n"
        "  8589934592  2147483648  float  sum  -1  31601  271.8  475.7  0\n"
        for i in (1, 2)
    )  # fmt: skip
    assert lead("16 GPU all_reduce gives 475 GB/s over 100G", text) == "nccl.benchmark_artifact"
