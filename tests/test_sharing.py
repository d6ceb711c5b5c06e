"""Who shares what, and what is left out: readers and rules, each with its counterpart that must stay silent."""

from __future__ import annotations

import pytest
from diagnose.probes import answers, device_use, hardware_ways, rank_ranges, security_groups

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact
from diagnose.plugin import Reader

READERS: list[Reader] = [
    r for m in (answers, device_use, hardware_ways, rank_ranges, security_groups) for r in m.READERS
]


def read(text: str) -> dict[str, list[Fact]]:
    """Facts of a text by signal."""
    data = text.encode()
    out: dict[str, list[Fact]] = {}
    for reader in READERS:
        if any(n in data for n in reader.needles):
            for fact in reader.parse(Document.of("sample", data)):
                out.setdefault(fact.signal, []).append(fact)
    return out


@pytest.mark.parametrize(
    ("text", "signal", "value"),
    [
        ("ranks 0-7 500 200\nranks 8-15 502 198\nranks 16-23 690 15\n", "straggler.work", 690 / 502),
        ("rank 0 dev mlx5_0\nrank 1 dev mlx5_0\nrank 2 dev mlx5_0\n", "rdma.processes_on_one", 3.0),
        ("ibv_reg_mr calls 5000 total 3.1 s\nmessages sent 5000\n", "register.per_message", 1.0),
        ("jobs on the GPU   s/epoch\n1   60\n4   231\n", "gpu.tenants_scaling", 231 / 240),
        ("write BW: 9000MB/s\nreading test, size=4096\nread BW: 500MB/s\n", "gdr.mapped_read", 0.5),
        ("$ pgrep -u kim python | wc -l\n0\n", "host.own_processes", 0.0),
        ("alltoall_perf 4G busbw 52.4\n", "alltoall.busbw", 52.4),
        ("# (h1, job)\n#Entity SMCLK TMPTR POWER\nGPU 0 1200 88 400\n", "host.gpu_clock", 1200.0),
    ],
)
def test_value(text: str, signal: str, value: float) -> None:
    """Each reader finds its figure."""
    (found,) = read(text)[signal]
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("ranks 0-7 500 200\nranks 8-15 502 198\nranks 16-23 505 196\n", "straggler.work"),
        ("rank 0 dev mlx5_0\nrank 1 dev mlx5_1\nrank 2 dev mlx5_0\n", "rdma.processes_on_one"),
        ("jobs on the GPU   tok/s\n1   60\n4   231\n", "gpu.tenants_scaling"),
        ("cudaMemcpy HtoD 25 GB/s\ncudaMemcpy DtoH 25 GB/s\n", "gdr.mapped_read"),
    ],
)
def test_silent(text: str, signal: str) -> None:
    """Even ranks, two adapters, a rate of a server and the copy engine say nothing here."""
    assert signal not in read(text)


def test_group_rules() -> None:
    """Each rule of a security group with its protocol and whom it admits."""
    text = (
        "IpPermissions:\n- IpProtocol: tcp\n  IpRanges: []\n- IpProtocol: '-1'\n  UserIdGroupPairs: [{GroupId: sg-1}]\n"
    )
    rules = read(text)["net.group_rule"]
    assert [(f.value, f.subject.label) for f in rules] == [("tcp", "range"), ("-1", "group")]


def named(symptom: str, *texts: str) -> set[str]:
    """Causes that are accepted; the verdict where there is none."""
    got = triage(symptom, [Document.of(f"a{i}.txt", t.encode()) for i, t in enumerate(texts)]).assessment
    return {b.cause.id for b in got.accepted} or {got.verdict}


BUSY = "utilization.gpu [%], memory.used [MiB]\n97 %, 17204 MiB\n96 %, 17204 MiB\n"


@pytest.mark.parametrize(
    ("symptom", "text", "cause"),
    [
        ("my job is slow", BUSY + "nothing of mine started yet\n", "gpu.contention"),
        ("my job is slow", BUSY, "inconclusive"),
        (
            "no RDMA in our image",
            "rdma_cm uverbs0\nlibibverbs: Warning: no userspace device-specific driver found for uverbs0\n",
            "env.missing_dependency",
        ),
        (
            "all-to-all crawls",
            "PE 0 dev mlx5_0\nPE 1 dev mlx5_0\nPE 2 dev mlx5_0\nPE 3 dev mlx5_0\nrdma link | grep -c ACTIVE\n8\n",
            "nccl.nic_misplaced",
        ),
        ("training is slow", BUSY + "the GPU is idle between the steps\n", "inconclusive"),
        (
            "is the image complete?",
            "uverbs0\nlibibverbs: Warning: couldn't load driver 'libqedr-rdmav34.so': cannot open shared object file\n",
            "inconclusive",
        ),
        (
            "all-to-all crawls",
            "PE 0 dev mlx5_0\nPE 1 dev mlx5_0\nPE 2 dev mlx5_0\nPE 3 dev mlx5_0\nrdma link | grep -c ACTIVE\n1\n",
            "inconclusive",
        ),
        ("alltoall is low", "2 nodes x 8 GPUs, 8x400G\nalltoall_perf 4G busbw 19 GB/s\n", "inconclusive"),
        ("alltoall is low", "2 nodes x 8 GPUs, 8x400G\nalltoall_perf 4G busbw 84 GB/s\n", "healthy"),
    ],
)
def test_named(symptom: str, text: str, cause: str) -> None:
    """The cause follows from the mechanism, and not without it."""
    assert cause in named(symptom, text)
