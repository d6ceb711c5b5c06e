"""Rules and causes of the collectives family on a few lines each."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Evidence, Subject
from diagnose.predicates import Context
from diagnose.rules import RULES


def context(*facts: tuple[str, object, Subject], playbook: str = "slow-allreduce", symptom: str = "") -> Context:
    evidence = [
        Evidence(id=f"E{i}", kind="observed", signal=signal, value=value, subject=subject, quote=str(value))
        for i, (signal, value, subject) in enumerate(facts, 1)
    ]
    return Context(evidence, playbook, symptom)


def var(name: str, value: str) -> tuple[str, object, Subject]:
    return ("env.var", value, Subject(label=name))


@pytest.mark.parametrize(
    ("name", "value", "forbids"),
    [
        ("NCCL_IB_DISABLE", "1", True), ("NCCL_IB_DISABLE", "0", None), ("NCCL_P2P_LEVEL", "LOC", True),
        ("NCCL_P2P_LEVEL", "SYS", None), ("NCCL_NVLS_ENABLE", "0", None), ("NCCL_MAX_NCHANNELS", "1", True),
        ("NCCL_MAX_NCHANNELS", "32", None), ("NCCL_SOCKET_IFNAME", "lo", True), ("NCCL_SOCKET_IFNAME", "eth0", None),
        ("NCCL_DEBUG", "INFO", None),
    ],
)  # fmt: skip
def test_only_variables_that_forbid_count(name: str, value: str, forbids: bool | None) -> None:
    measured = ("nccl_tests.busbw", 3.0, Subject())
    assert RULES["env_forbids"](context(var(name, value), measured)).holds is forbids


def test_a_variable_decides_only_beside_something_that_happened() -> None:
    off = var("NCCL_P2P_DISABLE", "1")
    alone = context(off, ("gpu.name", "TITAN RTX", Subject()), symptom="two GPUs are slow")
    assert RULES["env_forbids"](alone).holds is None and RULES["env_stands"](alone).holds
    assert RULES["env_forbids"](context(off, symptom="all-reduce reaches 3 GB/s only")).holds


def test_a_variable_with_two_values_is_an_experiment() -> None:
    assert RULES["env_forbids"](context(var("NCCL_ALGO", "RING"), var("NCCL_ALGO", "TREE"))).holds is None


def test_sockets_need_more_than_one_node() -> None:
    socket = ("nccl.network", "Socket", Subject())
    one = ("nccl.nnodes", 1.0, Subject())
    two = ("nccl.nnodes", 2.0, Subject())
    rule = RULES["sockets_between_nodes"]
    assert not rule(context(socket, one, symptom="two nodes are slow")).holds
    assert rule(context(socket, two)).holds
    assert not rule(context(socket)).holds


def test_mtu_differs_by_a_jump_and_not_by_an_overlay() -> None:
    def mtu(value: float, quote: str = "eth0: mtu") -> tuple[str, object, Subject]:
        return ("net.mark.mtu", value, Subject(label=quote))

    assert RULES["mtu_differs"](context(mtu(9000.0), mtu(1500.0))).holds
    assert not RULES["mtu_differs"](context(mtu(1450.0), mtu(1500.0))).holds


def test_direction_of_a_peer_comparison() -> None:
    def ratio(worse: str, better: str) -> Context:
        return context(("compare.ratio", 5.0, Subject(label=f"p2p|busbw|{worse}|{better}")))

    assert RULES["p2p_is_slower"](ratio("default", "NCCL_P2P_DISABLE=1")).holds
    assert not RULES["p2p_is_slower"](ratio("NCCL_P2P_DISABLE=1", "default")).holds


def lead(symptom: str, *texts: str) -> str:
    got = triage(symptom, [Document.of(f"{i}.txt", t.encode()) for i, t in enumerate(texts)]).assessment
    return got.accepted[0].cause.id if got.accepted else got.verdict


@pytest.mark.parametrize(
    ("symptom", "text", "cause"),
    [
        ("job dies", "NET/IB : Got completion with error 4, opcode 0, vendor err 81", "nccl.p2p_broken_acs_iommu"),
        ("init fails", "Error: failed to extend /dev/shm/nccl-a1 to 33030532 bytes", "nccl.shm_too_small"),
        ("CUDA fails", "Error 802: system not yet initialized", "nccl.fabric_manager"),
        ("hang", "RuntimeError: Detected mismatch between collectives on ranks.", "nccl.collective_mismatch"),
        ("large packets hang", "ping: local error: message too long, mtu=1500", "net.wrong_mtu"),
    ],
)  # fmt: skip
def test_one_decisive_line_is_enough(symptom: str, text: str, cause: str) -> None:
    assert lead(symptom, text) == cause


@pytest.mark.parametrize(
    "text",
    [
        "h:1:1 [0] misc/ibvwrap.cc:61 NCCL WARN Failed to open libibverbs.so[.1]",
        "h:1:1 [0] NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal implementation",
        "h:1:1 [0] NCCL INFO NCCL_IB_DISABLE set by environment to 0.",
        "ls: cannot access '/dev/infiniband': No such file or directory",
        "h:1:1 [0] NCCL WARN [Service thread] Could not receive type from localRank 0, res=3, closed=0",
    ],
)
def test_alarming_lines_that_mean_nothing_alone(text: str) -> None:
    assert lead("training is slow", text) == "inconclusive"
