# ruff: noqa: E501 (tables as printed)
"""Readers of NCCL logs, nccl-tests tables and torch.distributed watchdog lines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from diagnose.probes.nccl_log import NcclLogReader
from diagnose.probes.nccl_tests import NcclTestsReader, halves
from diagnose.probes.nccl_tests_json import NcclTestsJsonReader
from diagnose.probes.nccl_torch import TorchDistributedReader

from diagnose.document import Document
from diagnose.models import Fact
from diagnose.plugin import Reader

DATA = Path(__file__).parent / "data" / "nccl"
SHARED = Path(__file__).parents[1].parent / "shared" / "captures" / "h100x2"


def read(reader: Reader, text: str | bytes) -> list[Fact]:
    data = text.encode() if isinstance(text, str) else text
    facts = list(reader.parse(Document.of("x", data)))
    for fact in facts:
        for span in fact.spans:
            assert data[span.start : span.end].decode("utf-8", "replace").startswith(span.quote[:50])
    return facts


def values(facts: list[Fact], signal: str, label: str = "") -> list[object]:
    return [f.value for f in facts if f.signal == signal and label in (f.subject.label or "")]


def test_rows_cut_by_log_lines_are_put_together() -> None:
    facts = read(NcclTestsReader(), (DATA / "cut-table.log").read_bytes())
    assert values(facts, "nccl_tests.busbw", "536870912 B") == [312.52, 311.57]
    assert values(facts, "nccl_tests.time", "134217728 B") == [473.26, 473.48]
    assert values(facts, "nccl_tests.peak_busbw") == [312.52]
    assert values(facts, "nccl_tests.nranks") == [2.0]
    peak = next(f for f in facts if f.signal == "nccl_tests.peak_busbw")
    assert "312.52" in peak.spans[0].quote


@pytest.mark.skipif(not SHARED.exists(), reason="captures are not here")
def test_whole_baseline_has_fourteen_rows_with_both_halves() -> None:
    facts = read(NcclTestsReader(), (SHARED / "nccl/00-baseline.log").read_bytes())
    labels = {f.subject.label for f in facts if f.signal == "nccl_tests.busbw"}
    assert len({str(x).rsplit(" ", 1)[0] for x in labels}) == 14 and len(labels) == 28


@pytest.mark.parametrize(
    ("row", "busbw", "wrong"),
    [
        ("    67108864   8388608   float     sum      -1   3108.8  345.38  681.17      0   2924.7  367.13  724.06      0", [681.17, 724.06], 0.0),
        ("    67108864       8388608   float   1568.3   21.40   21.40  0e+00   1560.9   21.50   21.50  0e+00", [21.4, 21.5], 0.0),
        ("    67108864   8388608   half      -1   100.1   1.5   2.5    N/A   99   1.6   2.6    N/A", [2.5, 2.6], None),
        ("  8589934592  2147483648     float    sum      -1  20299  423.16  834.57      3  20006  429.37  846.82      0", [834.57, 846.82], 3.0),
        ("  1048576  262144  float  sum  -1  50.1 20.9 39.2 0 48 55 54 2.1 50.0 20.9 39.3 0 48 56 55 2.2", [39.2, 39.3], 0.0),
    ],
)  # fmt: skip
def test_layouts_without_header(row: str, busbw: list[float], wrong: float | None) -> None:
    facts = read(NcclTestsReader(), "x busbw\n" + row + "\n")
    assert values(facts, "nccl_tests.busbw") == busbw
    assert values(facts, "nccl_tests.wrong") == ([wrong] if wrong else [])


def test_halves_refuse_what_fits_no_layout() -> None:
    assert halves(["1", "2"], []) == []
    assert halves(["sum", "none", "1", "2", "3", "4"], []) == []


def test_two_summaries_and_two_ranks_zero_are_counted() -> None:
    text = (
        "#  Rank  0 Group  0 Pid   5011 on  n1 device  0 [0x0f] NVIDIA A100-SXM4-80GB\n"
        "#  Rank  0 Group  0 Pid   7123 on  n2 device  0 [0x0f] NVIDIA A100-SXM4-80GB\n"
        "# Avg bus bandwidth    : 121.3\n# Avg bus bandwidth    : 120.9\n"
    )
    facts = read(NcclTestsReader(), text)
    assert values(facts, "nccl_tests.rank0_copies") == [2.0]
    assert values(facts, "nccl_tests.summaries") == [2.0]
    assert values(facts, "nccl_tests.hosts") == [2.0]


def test_loose_busbw_only_as_printed_in_gigabytes() -> None:
    facts = read(NcclTestsReader(), " busbw: 20.878 GBps (167.0 Gbps)\n")
    assert values(facts, "nccl_tests.busbw") == [20.878]
    assert values(read(NcclTestsReader(), "busbw 167.0 Gbps\n"), "nccl_tests.busbw") == []


def test_json_quotes_variables_alone_and_never_a_token() -> None:
    text = (
        '{"args": ["all_reduce_perf"], "env": ["NCCL_DEBUG=WARN", "API_TOKEN=secret"], "nccl_version": 21805, "results": '
        '[{"size": 1024, "out_of_place": {"time": 10.5, "alg_bw": "nan", "bus_bw": 1.25, "nwrong": 0},'
        ' "in_place": {"cpu_time": 11, "alg_bw": 1.0, "bus_bw": 1.5, "nwrong": 2}}],'
        ' "average_bus_bandwidith": {"bandwidith": 1.375, "okay": "unchecked"}}'
    )
    facts = read(NcclTestsJsonReader(), text)
    assert values(facts, "nccl_tests.busbw") == [1.25, 1.5]
    assert values(facts, "nccl_tests.algbw") == [1.0]
    assert values(facts, "nccl_tests.wrong") == [2.0]
    assert values(facts, "nccl_tests.avg_busbw") == [1.375]
    assert values(facts, "version") == ["2.18.5"]
    assert not any("secret" in s.quote for f in facts for s in f.spans)


def test_log_names_transport_algorithm_version_and_first_error() -> None:
    facts = read(NcclLogReader(), (DATA / "cut-table.log").read_bytes())
    assert values(facts, "version", "nccl") == ["2.28.9+cuda13.0"]
    assert set(values(facts, "nccl.transport")) == {"P2P/direct pointer"}
    assert values(facts, "nccl.nnodes") == [1.0]
    assert values(facts, "nccl.init.time") == [0.94]
    assert "RING/SIMPLE" in values(facts, "nccl.algo", "536870912 B")
    bad = read(NcclLogReader(), (DATA / "bad-ifname.log").read_bytes())
    assert values(bad, "nccl.first_error") == ["Bootstrap : no socket interface found"]
    assert values(bad, "env.var", "NCCL_SOCKET_IFNAME") == ["ens99"]


def test_first_error_goes_by_time_and_leaves_followers_out() -> None:
    text = (
        "[2026-01-01 12:00:05] b:2:9 [0] proxy.cc:1533 NCCL WARN [Service thread] Could not receive type from localRank 0\n"
        "[2026-01-01 12:00:04] c:2:9 [1] transport/net_ib.cc:99 NCCL WARN NET/IB : Got completion with error 12, opcode 1\n"
        "[2026-01-01 12:00:01] a:2:9 [3] transport/net_ib.cc:93 NCCL WARN NET/IB : mlx5_5:1 Got async event : port error\n"
        "a:2:9 [3] misc/ibvwrap.cc:61 NCCL WARN Failed to open libibverbs.so[.1]\n"
    )
    facts = read(NcclLogReader(), text)
    first = next(f for f in facts if f.signal == "nccl.first_error")
    assert "port error" in str(first.value) and first.subject.host == "a"
    assert len(values(facts, "nccl.warn.follow_up")) == 1
    assert len(values(facts, "nccl.warn.benign")) == 1


@pytest.mark.parametrize(
    ("line", "transport"),
    [
        ("h:1:2 [0] NCCL INFO Ring 00 : 0[0] -> 1[1] via direct shared memory", "SHM/direct shared memory"),
        (
            "h:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/AWS Libfabric/0/GDRDMA(PCI)",
            "NET/AWS Libfabric/0/GDRDMA(PCI)",
        ),
        ("[0] NCCL INFO Channel 01 : 1[4000] -> 0[3000] via SHM/direct/direct", "SHM/direct/direct"),
        ("Channel 00/0 : 3[3] -> 2[2] via P2P/CUMEM/read", "P2P/CUMEM/read"),
        ("-1vm:1527:1546 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/IPC", "P2P/IPC"),
    ],
)
def test_transports_of_all_versions(line: str, transport: str) -> None:
    assert values(read(NcclLogReader(), line + "\n"), "nccl.transport") == [transport]


def test_truncated_and_foreign_text_is_no_error() -> None:
    for text in ("NCCL INFO Channel 00/0 : 0[", "NCCL INFO", "a WARN b\n", "12 34 float", "# Rank", "\x00NCCL WARN"):
        read(NcclLogReader(), text)
        read(NcclTestsReader(), text)
        read(TorchDistributedReader(), text)


def test_watchdog_ranks_numbers_and_operations() -> None:
    text = (
        "[rank3]:[E1 ProcessGroupNCCL.cpp:629] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=11, "
        "OpType=ALLREDUCE, NumelIn=4, NumelOut=4, Timeout(ms)=600000) ran for 600081 milliseconds before timing out.\n"
        "[PG ID 0 PG GUID 0(default_pg) Rank 5] last enqueued work: 12, last completed NCCL work: 10\n"
    )
    facts = read(TorchDistributedReader(), text)
    first = next(f for f in facts if f.signal == "torch.watchdog")
    assert (first.subject.rank, first.subject.label, first.value) == (3, "SeqNum=11", "ALLREDUCE 4")
    assert values(facts, "torch.enqueued") == [12.0]
    assert values(facts, "torch.completed") == [10.0]


def test_log_speed_and_bounded_output() -> None:
    data = (DATA / "cut-table.log").read_bytes() * 2500
    start = time.process_time()
    facts = list(NcclLogReader().parse(Document.of("x", data)))
    spent = time.process_time() - start
    assert len(facts) < 400
    assert len(data) / 1e6 / spent > 5  # a tenth of what an idle core does: guards against a regex per line
