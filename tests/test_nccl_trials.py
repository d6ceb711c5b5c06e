"""Experiments, samples and paths: what the readers take from hand-typed text, and what the rules make of it."""

from __future__ import annotations

import pytest
from diagnose.probes.nccl_paths import LaunchReader, PairReader, PathReader
from diagnose.probes.nccl_samples import BatchCountReader, CounterTableReader, MessageSizeReader, RankTableReader
from diagnose.probes.nccl_trials import TrialReader, outcome

from diagnose.document import Document
from diagnose.engine import triage


def doc(text: str) -> Document:
    return Document.of("t.txt", text.encode())


def trials(text: str) -> set[tuple[str, str | None]]:
    return {(f.signal, f.subject.label) for f in TrialReader().parse(doc(text))}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("completes, 214 s", "ok"), ("no hang", "ok"), ("the hang is gone", "ok"), ("#wrong 0", "ok"), ("正常", "ok"),
        ("never completes", "bad"), ("still hangs", "bad"), ("还是卡住", "bad"), ("not work", "bad"), ("12.4 GB/s", ""),
    ],
)  # fmt: skip
def test_outcome(text: str, want: str) -> None:
    assert outcome(text) == want


def test_cure_in_a_table_and_what_does_not_help() -> None:
    got = trials("as is              hang\nNCCL_P2P_DISABLE=1  completes\nNCCL_SHM_DISABLE=1  hang\n")
    assert ("trial.helps", "NCCL_P2P_DISABLE=1") in got
    assert ("trial.no_help", "NCCL_SHM_DISABLE=1") in got


def test_versions_on_one_line() -> None:
    got = trials("nccl 2.18.1: segfault   2.18.5: OK   2.19.3: OK\n")
    assert ("trial.harms", "NCCL=2.18.1") in got
    assert ("trial.helps", "NCCL=2.19.3") in got


def test_arms_under_comments() -> None:
    row = "     1048576        262144     float     sum      -1     {t}   {a}   {b}   {w}     {t}   {a}   {b}   {w}\n"
    text = "# default\n" + row.format(t=33.1, a=31.68, b=55.44, w=1536) + "# NCCL_PROTO=Simple\n"
    text += row.format(t=39.8, a=26.35, b=46.11, w=0)
    assert ("trial.helps", "NCCL_PROTO=Simple") in trials(text)


@pytest.mark.parametrize(
    "text",
    [
        "NCCL_DEBUG=INFO\nNCCL_MAX_NCHANNELS=2\nNCCL_SOCKET_IFNAME=eth0\n",
        "export NCCL_P2P_DISABLE=1\nexport NCCL_DEBUG=WARN\n",
        "$ NCCL_P2P_DISABLE=1 ./all_reduce_perf -g 8\n",
        "NCCL 2.20.5 release notes: fixes a hang, works with more switches\n",
        "n:1:1 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.\n",
    ],
)
def test_a_list_of_settings_is_no_experiment(text: str) -> None:
    assert trials(text) == set()


def test_counters_before_and_after() -> None:
    text = "                 before         after\neth0 rx_bytes   1000000   9000001000000\nport_xmit_data   77   77\n"
    got = {f.subject.label: f.value for f in CounterTableReader().parse(doc(text))}
    assert got == {"eth0 rx_bytes": 9000000000000.0, "port_xmit_data": 0.0}
    assert not list(CounterTableReader().parse(doc("rx_bytes 10 20\n")))  # nobody says before and after


def test_late_rank_waits_least() -> None:
    text = (
        "rank   fwd+bwd   all_reduce   step\n 0      412        288         706\n 1      411        289         706\n"
    )
    late = list(
        RankTableReader().parse(doc(text + "[...]\n11      676         24         706\n12      411        289  706\n"))
    )
    assert [f.subject.label for f in late] == ["all_reduce|rank 11"]
    assert late[0].value == pytest.approx(288 / 24, rel=0.01)
    assert not list(RankTableReader().parse(doc(text + " 2      410        287         706\n")))


def test_sizes_and_batches() -> None:
    sizes = "all_reduce payload histogram\n<= 8 KB   1912 calls\n8-64 KB   744 calls\n> 1 MB   2 calls\n"
    assert next(iter(MessageSizeReader().parse(doc(sizes)))).value == pytest.approx(2656 / 2658)
    differ = list(BatchCountReader().parse(doc("batches this epoch: rank 0-6: 1171, rank 7: 1170\n")))
    assert differ and differ[0].value == 1
    assert not list(BatchCountReader().parse(doc("batches: rank 0: 1171, rank 1: 1171\n")))


def test_pings_and_mtus() -> None:
    text = (
        "$ ping -c2 -M do -s 1372 10.0.0.7\n1380 bytes from 10.0.0.7: time=0.3 ms\n$ ping -c2 -M do -s 1472 10.0.0.7\n"
    )
    text += "2 packets transmitted, 0 received, 100% packet loss\n$ cat /sys/class/net/eth0/mtu\n1500\n"
    got = {(f.signal, f.subject.label, f.value) for f in PathReader().parse(doc(text))}
    assert got == {("net.ping", "ok", 1372.0), ("net.ping", "lost", 1472.0), ("net.mtu", "eth0", 1500.0)}


def test_launch_and_adapters() -> None:
    text = "mpirun -np 16 -H a:8,b:8 alltoall_perf\n8 x 400 Gb/s per node\n"
    got = {f.signal: f.value for f in LaunchReader().parse(doc(text))}
    assert got == {"launch.hosts": 2.0, "net.adapters": 8.0, "net.adapter.rate": 400.0}


def test_pairs_and_rates() -> None:
    text = "pair 0,1 busbw 20.4 (PIX)\npair 0,4 busbw 9.8 (SYS)\ng01 Rate: 200\n"
    got = {(f.signal, f.subject.label, f.value) for f in PairReader().parse(doc(text))}
    assert got == {("path.bandwidth", "PIX", 20.4), ("path.bandwidth", "SYS", 9.8), ("net.rate", "g01", 200.0)}


BRIDGES = """        GPU0    GPU1    GPU2    GPU3
GPU0     X      NV12    NODE    NODE
GPU1    NV12     X      NODE    NODE
GPU2    NODE    NODE     X      NV12
GPU3    NODE    NODE    NV12     X
"""


@pytest.mark.parametrize(("visible", "found"), [("1,2", True), ("2,3", False)])
def test_the_pair_in_use_decides(visible: str, found: bool) -> None:
    text = f"CUDA_VISIBLE_DEVICES={visible}\n{BRIDGES}"
    got = triage("tensor parallel decode is slow", [doc(text)]).assessment
    assert any(b.cause.id == "nccl.topology_no_nvlink" for b in got.accepted) == found
    assert not any(b.cause.id == "nccl.nvlink_down" for b in got.accepted)


def test_still_counters_are_history() -> None:
    text = "                    before run   after run\n"
    text += "rx_discards_phy   1288123   1288123\nnp_cnp_sent   9120033   9120033\n"
    got = triage("all-reduce between nodes is slow", [doc(text)]).assessment
    assert not any(b.cause.id == "net.congestion" for b in got.accepted)
