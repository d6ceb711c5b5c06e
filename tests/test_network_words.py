"""Short network outputs and what follows from them: speeds, nodes, a link at rest, pairs, ports, emulated RDMA."""

from __future__ import annotations

import pytest
from diagnose.probes import nccl_ras, net_words, pair_words

from diagnose.document import Document
from diagnose.engine import report
from diagnose.models import Fact, Report
from diagnose.plugin import Reader


def read(readers: list[Reader], text: str) -> list[Fact]:
    data = text.encode()
    doc = Document.of("sample", data)
    return [f for r in readers if any(n in data for n in r.needles) for f in r.parse(doc)]


def run(symptom: str, *texts: str) -> Report:
    return report(symptom, [Document.of(f"a{n}", text.encode()) for n, text in enumerate(texts)])


def lead(got: Report) -> str:
    return "none.healthy" if got.verdict == "healthy" else got.findings[0].cause if got.findings else ""


def test_several_ethtool_commands_answer_in_order() -> None:
    text = "$ ethtool eno1 | grep Speed ; ethtool ens9f0 | grep Speed\n  Speed: 10000Mb/s\n  Speed: 100000Mb/s\n"
    got = {f.subject.nic: f.value for f in read(net_words.READERS, text)}
    assert got == {"eno1": 10.0, "ens9f0": 100.0}


def test_lanes_times_lane_rate() -> None:
    text = "active_width: 4X (2)\nactive_speed: 50.0 Gbps (64)\n"
    rate = next(f for f in read(net_words.READERS, text) if f.signal == "rdma.port.rate")
    assert (rate.value, rate.formula) == (200.0, "a * b")
    assert not read(net_words.READERS, "hca_id: mlx5_0\n" + text)  # the reader of ibv_devinfo has it


def test_a_matrix_without_its_head() -> None:
    links = read(net_words.READERS, "GPU0 X NV4\nGPU1 NV4 X\n")
    assert [(f.subject.gpu, f.subject.peer, f.value) for f in links] == [(0, 1, "NV4"), (1, 0, "NV4")]
    assert not read(net_words.READERS, "GPU0 NV4 X\nGPU1 X NV4\n")


def test_the_machine_that_all_slow_pairs_share() -> None:
    text = "sendrecv GB/s\n" + "".join(f"n{a}-n{b} {20.1 if 4 in (a, b) else 46.0}\n" for a, b in PAIRS)
    outlier = next(f for f in read(pair_words.READERS, text) if f.signal == "spread.outlier")
    assert outlier.subject.label == "node|pair rate|n4"
    even = "sendrecv GB/s\n" + "".join(f"n{a}-n{b} 46.0\n" for a, b in PAIRS)
    assert not [f for f in read(pair_words.READERS, even) if f.signal == "spread.outlier"]


PAIRS = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]


def test_ranks_that_ras_lists_below_their_count() -> None:
    text = (
        "  Communicator ranks have different AllReduce operation counts\n"
        "  31 ranks have launched up to operation 10522\n  1 ranks have launched up to operation 10519\n"
        "  Rank 17 -- GPU 1 managed by process 88121 on node 10.4.0.3\n"
    )
    lag = next(f for f in read(nccl_ras.READERS, text) if f.signal == "nccl.ras.lag")
    assert (lag.value, lag.subject.rank) == (3, 17)


@pytest.mark.parametrize(
    ("want", "symptom", "texts"),
    [
        ("ucx.wrong_device", "UCX between two hosts is slow", ["ep_cfg[1]: tag(rc_verbs/rxe0:1)\nbw 0.9 GB/s"]),
        ("none.healthy", "is 24.3 GB/s all UCX can do?", ["ucx_perftest bandwidth: 24.3 GB/s (HDR200)"]),
        ("", "is UCX slow on this node?", ["mlx5_0 rate 200 Gb/sec (4X HDR)\nucx_perftest was installed"]),
        ("", "is 14.3 GB/s all UCX can do?", ["ucx_perftest bandwidth: 14.3 GB/s (HDR200)"]),
        (
            "net.link_down",
            "one rail is missing",
            ["mlx5_0 port 1 ==> ib0 (Up)\nmlx5_1 port 1 ==> ib1 (Down)\nmlx5_2 port 1 ==> ib2 (Up)"],
        ),
        (
            "",
            "all_reduce is slow",  # nobody misses the port
            ["mlx5_0 port 1 ==> ib0 (Up)\nmlx5_1 port 1 ==> ib1 (Down)\nmlx5_2 port 1 ==> ib2 (Up)"],
        ),
        (
            "net.wrong_mtu",
            "ib_write_bw between two servers is far below line rate",
            [
                " Link type       : Ethernet\n Mtu             : 1024[B]\n"
                " #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n"
                " 65536      5000             141.22             138.05              0.263310\n",
                "$ ethtool ens3f0np0 | grep Speed\n        Speed: 200000Mb/s",
            ],
        ),
        (
            "none.healthy",
            "100GbE between two workers: is the network slow?",
            ["iperf3 -P 8\n[SUM]  0.00-20.00 sec  94.1 Gbits/sec   sender", "$ ethtool ens1f0\n   Speed: 100000Mb/s"],
        ),
    ],
)
def test_what_follows(want: str, symptom: str, texts: list[str]) -> None:
    assert lead(run(symptom, *texts)) == want
