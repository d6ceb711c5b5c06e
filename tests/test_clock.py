"""GPU idle while the network is busy, on one clock: tables of several tools (simulated), what they give together."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from diagnose.probes import live_clock
from diagnose.probes.clock import ClockReader, column, seconds
from diagnose.probes.path_counters import Counters

from diagnose import engine
from diagnose.derivers.clock import lag, pearson
from diagnose.document import Document

QUESTION = "GPUs are idle but the network is busy"


def turns(n: int = 24) -> list[bool]:
    """Six samples of compute, six of communication, in turn."""
    return [i % 12 >= 6 for i in range(n)]


def table(columns: dict[str, Any], busy: tuple[float, float] = (95, 4), net: tuple[float, float] = (0.1, 11.5)) -> str:
    """Our own table: GPU and network in turn, and further columns as (value while computing, value meanwhile)."""
    names = ["t [s]", "gpu0 busy [%]", "gpu1 busy [%]", "nic eth0 tx [GB/s]", *columns]
    rows = [
        [i * 0.25, busy[c], busy[c], net[c], *(v[c] for v in columns.values())] for i, c in enumerate(turns())
    ]  # fmt: skip
    head = "# one clock: 24 samples, 0.25 s apart, monotonic, from 2026-01-05 10:00:00.000 epoch=1767603600.000"
    return "\n".join([head, ",".join(names), *(",".join(map(str, r)) for r in rows)]) + "\n"


def judged(*texts: str, symptom: str = QUESTION) -> Any:
    return engine.report(symptom, [Document.of(f"{i}.txt", t.encode(), ("simulated",)) for i, t in enumerate(texts)])


def first(*texts: str, symptom: str = QUESTION) -> str:
    got = judged(*texts, symptom=symptom)
    return got.findings[0].cause if got.findings else got.verdict


def value(report: Any, signal: str) -> float:
    return float(next(e.value for e in report.evidence if e.signal == signal))


def test_shares_correlation_and_rate() -> None:
    got = judged(table({}))
    assert value(got, "clock.net_busy") == 0.5 and value(got, "clock.idle_in_net") == 1.0
    assert value(got, "clock.gpu_busy") == pytest.approx(0.495)
    assert value(got, "clock.correlation") == pytest.approx(-1.0)
    assert value(got, "clock.net_rate") == pytest.approx(11.5)


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({}, "train.comm_not_overlapped"),
        ({"tcp segments [1/s]": (2e4, 9e5), "tcp retransmits [1/s]": (0, 9000)}, "net.congestion"),
        ({"msgs/s": (100, 2_000_000)}, "nccl.small_message_latency"),
        ({"bytes/transfer": (4096, 4096)}, "nccl.small_message_latency"),
        ({"ib mlx5_0/1 tx [GB/s]": (0, 0)}, "nccl.transport.socket_fallback"),
        ({"rank0 nccl wait [%]": (60, 64), "rank1 nccl wait [%]": (61, 66), "rank2 nccl wait [%]": (2, 3)},
         "nccl.straggler_rank"),
        ({"run delay [%]": (12, 45), "core max [%]": (100, 100)}, "host.cpu_contention"),
    ],
)  # fmt: skip
def test_what_goes_with_it_names_the_cause(columns: dict[str, Any], wanted: str) -> None:
    assert first(table(columns)) == wanted


def test_the_same_table_about_kv_transfers_names_the_causes_of_those() -> None:
    asked = "KV transfer is slow, decode waits"
    assert first(table({"bytes/transfer": (4096, 4096)}), symptom=asked) == "nixl.small_blocks"
    assert first(table({}), symptom=asked) == "nixl.no_overlap"


def test_nodes_of_adapter_and_gpu_count() -> None:
    places = "# place nic eth0 node=1\n# place gpu gpu0 node=0\n# place gpu gpu1 node=0\n"
    text = table({"tcp retransmits [1/s]": (0, 0)}).replace("t [s]", places + "t [s]", 1)
    got = judged(text)
    assert "nccl.nic_misplaced" in {f.cause for f in got.findings} | {h.cause for h in got.hypotheses}


def test_busy_gpus_beside_a_busy_network_are_healthy() -> None:
    assert judged(table({}, busy=(97, 96))).verdict == "healthy"


def test_idle_gpus_and_a_quiet_network_say_nothing() -> None:
    assert judged(table({}, busy=(3, 2), net=(0.001, 0.002))).findings == []


DMON = """#Time        gpu    pwr  gtemp  mtemp     sm    mem  rxpci  txpci
#HH:MM:SS    Idx      W      C      C      %      %   MB/s   MB/s
"""
SAR = """Linux 5.15.0-91-generic (node1)  01/05/26  _x86_64_ (128 CPU)

10:00:00 AM     IFACE   rxpck/s   txpck/s    rxkB/s    txkB/s   rxcmp/s   txcmp/s  rxmcst/s   %ifutil
"""


def dmon_and_sar(hour: int = 10) -> tuple[str, str]:
    """Two tools that print the time of the day (simulated)."""
    one = DMON + "".join(
        f" {hour:02d}:00:{i:02d}   {g}  {120 if c else 600}   40    -   {3 if c else 97}    1   900   900\n"
        for i, c in enumerate(turns()) for g in (0, 1)
    )  # fmt: skip
    two = SAR + "".join(
        f"10:00:{i:02d} AM      eth0   {8e5 if c else 9:.2f}   {8e5 if c else 9:.2f}  {1.2e6 if c else 40:.2f}"
        f"  {1.2e6 if c else 40:.2f}      0.00      0.00      0.00      9.80\n"
        for i, c in enumerate(turns())
    )  # fmt: skip
    return one, two


def test_dmon_beside_sar() -> None:
    got = judged(*dmon_and_sar())
    assert value(got, "clock.idle_in_net") == 1.0 and value(got, "clock.net_rate") == pytest.approx(1.2288)
    assert value(got, "clock.packet_size") == pytest.approx(1536, rel=0.01)
    assert got.findings[0].cause == "train.comm_not_overlapped"


def test_tools_whose_clocks_share_nothing_are_not_joined() -> None:
    got = judged(*dmon_and_sar(hour=14))
    assert [e.value for e in got.evidence if e.signal == "clock.unaligned"] and got.findings == []


TYPED = """time   GPU util   NIC tx (GB/s)   payload (GB/s)  retrans/s  bytes/msg
0s     94%        0.3             0.2   3  262144
1s     4%         11.9            6.1   3  262144
2s     5%         11.8            6.1   3  262144
3s     92%        0.4             0.3   3  262144
4s     4%         11.9            6.1   3  262144
"""
IFSTAT = """  Time           eth0               ib0
HH:MM:SS   KB/s in  KB/s out   KB/s in  KB/s out
10:00:01   1200.00  1300.11  0.00 0.00
10:00:02   1200.00  1300.11  0.00 0.00
10:00:03   1200.00  1300.11  0.00 0.00
10:00:04   1200.00  1300.11  0.00 0.00
"""
DCGM = "#Entity   GPUTL        PCITX                 PCIRX\nID\n" + "GPU 0     95  1200000000  1300000000\n" * 4


def series(text: str) -> dict[tuple[str | None, Any], str]:
    doc = Document.of("x", text.encode(), ("simulated",))
    return {(f.subject.label, f.subject.gpu if f.subject.gpu is not None else f.subject.nic): str(f.value)
            for f in ClockReader().parse(doc)}  # fmt: skip


def test_typed_tables_ifstat_and_dcgmi() -> None:
    typed = series(TYPED)
    assert typed["gpu", None].startswith("[[0.0,0.94],[1.0,0.04]") and ("payload", None) in typed
    assert value(judged(TYPED), "clock.payload_share") == pytest.approx(6.1 / 11.87, rel=0.01)
    assert series(IFSTAT)["net", "eth0"].startswith("[[36001.0,0.001331]")
    assert series(DCGM)["pcie", 0].startswith("[[1.0,1.3],[2.0,1.3]")


def trace(base: int | None) -> str:
    """Six seconds of one GPU: 1.5 s of kernels, 1.5 s of a collective that nothing hides, twice (simulated)."""
    rows = []
    for k in range(600):
        name = "ncclDevKernel_AllReduce" if k // 150 % 2 else "ampere_gemm"
        rows.append({"ph": "X", "cat": "kernel", "name": name, "ts": k * 10_000.0, "dur": 9_900.0,
                     "args": {"device": 0, "correlation": k}})  # fmt: skip
    head = {"schemaVersion": 1, **({"baseTimeNanoseconds": base} if base else {}), "traceEvents": rows}
    return json.dumps(head)


def test_a_trace_is_put_on_the_host_s_clock() -> None:
    """The driver says busy all the time, since a waiting collective is a kernel; the trace knows better."""
    got = judged(table({}, busy=(99, 99)), trace(1_767_603_600_000_000_000))
    assert value(got, "clock.idle_in_net") >= 0.9 and value(got, "clock.exposed") > 0.9
    assert got.findings[0].cause == "train.comm_not_overlapped"
    elsewhere = judged(table({}, busy=(99, 99)), trace(1_700_000_000_000_000_000))
    assert [e.signal for e in elsewhere.evidence if e.signal == "clock.unaligned"]
    assert not [e for e in judged(trace(None)).evidence if e.signal == "clock.series"]


def test_names_and_units_of_columns() -> None:
    assert column("NIC rx Gb/s") and math.isclose(column("NIC rx Gb/s").factor, 0.125)  # type: ignore[union-attr]
    assert column("GPU 3 util", "88%").device == "3"  # type: ignore[union-attr]
    assert column("loss") is None and column("eth0 tx", "12") is None
    assert seconds("10:00:01 PM") == 22 * 3600 + 1 and seconds("0.25s") == 0.25 and seconds("step 3") is None


def test_lag_is_found_in_samples() -> None:
    one = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0.0]
    two = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1.0]
    assert lag(one, two, 3) == (1, pytest.approx(1.0))
    assert pearson([1, 1, 1], [1, 2, 3]) is None


def test_rates_from_two_readings() -> None:
    before = Counters({("nic", "eth0"): {"tx": 0, "rx": 0, "tx_packets": 0}, ("nic", "lo"): {"tx": 0},
                       ("tcp", "host"): {"segments": 0, "retransmits": 1}})  # fmt: skip
    now = Counters({("nic", "eth0"): {"tx": 10**9, "rx": 0, "tx_packets": 500}, ("nic", "lo"): {"tx": 10**9},
                    ("tcp", "host"): {"segments": 100, "retransmits": 2}})  # fmt: skip
    assert live_clock.rates(before, now, 0.5) == {
        "nic eth0 tx [GB/s]": 2.0, "nic eth0 rx [GB/s]": 0.0, "nic eth0 tx [packets/s]": 1000.0,
        "tcp segments [1/s]": 200.0, "tcp retransmits [1/s]": 2.0,
    }  # fmt: skip


def test_this_machine_gives_a_table_that_is_read_back() -> None:
    text = "\n".join(live_clock.samples(None, 1.0, Path("/"))) + "\n"
    assert {"core", "segments"} <= {label for label, _ in series(text)}
    assert judged(text).findings == []
