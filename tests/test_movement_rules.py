"""Predicates and causes of data movement: each can fail, and inventory alone stays undecided."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import Triage, triage
from diagnose.models import Evidence, Subject
from diagnose.predicates import Context
from diagnose.rules.movement import RULES

CASES = Path(__file__).parents[1] / "evals" / "cases" / "movement.yaml"
DATA = Path(__file__).parent / "data"


def context(*items: tuple[str, object, str | None, str | None], symptom: str = "", playbook: str = "") -> Context:
    made = [
        Evidence(id=f"E{i}", kind="observed", signal=s, value=v, subject=Subject(label=label, nic=nic))  # type: ignore[arg-type]
        for i, (s, v, label, nic) in enumerate(items, 1)
    ]
    return Context(made, playbook, symptom)


def tls(value: str) -> Context:
    return context(("ucx.env", value, "UCX_TLS", None))


@pytest.mark.parametrize(
    ("value", "rdma", "copy", "ipc"),
    [
        ("all", None, None, None),
        ("rc,cuda_copy,cuda_ipc,sm,self", False, False, False),
        ("tcp,sockcm,cuda_copy,cuda_ipc", True, False, False),
        ("rc_x,self", False, True, True),
        ("^ib", True, False, False),
        ("^cuda_ipc", False, False, True),
        ("dc_mlx5,cuda", False, False, False),
    ],
)
def test_what_a_list_of_transports_leaves_out(value: str, rdma: object, copy: object, ipc: object) -> None:
    ctx = tls(value)
    got = [RULES[n](ctx).holds for n in ("tls_lacks_rdma", "tls_lacks_gpu_copy", "tls_lacks_ipc")]
    assert got == [rdma, copy, ipc]


def test_tcp_lane_needs_every_data_lane_on_tcp() -> None:
    mixed = context(
        ("ucx.lane", "tcp/eth0", "am|inter-node", None), ("ucx.lane", "rc_mlx5/mlx5_0:1", "am|inter-node", None)
    )
    assert RULES["tcp_lane"](mixed).holds is False
    keepalive = context(("ucx.lane", "tcp/eth0", "ka|inter-node", None))
    assert RULES["tcp_lane"](keepalive).holds is False
    slow = context(("ucx.lane", "tcp/eth0", "rma_am|inter-node", None))
    assert RULES["tcp_lane"](slow).holds is True and RULES["tcp_lane_remote"](slow).holds is True
    assert RULES["tcp_lane_remote"](context(("ucx.lane", "tcp/lo", "tag|intra-node", None))).holds is None


def test_chosen_device_against_the_others() -> None:
    chosen = ("ucx.env", "mlx5_2:1", "UCX_NET_DEVICES", None)
    fast, slow = ("rdma.port.rate", 400.0, None, "mlx5_0"), ("rdma.port.rate", 100.0, None, "mlx5_2")
    assert RULES["device_is_poor"](context(chosen, fast, slow)).holds is True
    assert RULES["device_is_poor"](context(chosen, fast, ("rdma.port.rate", 400.0, None, "mlx5_2"))).holds is False
    assert RULES["device_is_poor"](context(chosen, ("rdma.port.state", "DOWN", None, "mlx5_2"))).holds is True
    assert RULES["device_is_socket"](context(chosen)).holds is False
    assert RULES["device_is_socket"](context(("ucx.env", "eth0,bond0", "UCX_NET_DEVICES", None))).holds is True


def test_partial_listing_decides_nothing() -> None:
    assert RULES["listing_lacks_rdma"](context(("ucx.transports", "cuda_copy,cuda_ipc", None, None))).holds is None
    assert RULES["listing_lacks_rdma"](context(("ucx.transports", "cma,posix,self,sysv,tcp", None, None))).holds is True
    bare = context(("ucx.transports", "cma,posix,self,sysv,tcp", None, None), ("host.gpu_nodes", "none", None, None))
    assert RULES["listing_lacks_cuda_asked"](bare).holds is None  # where no GPU is, no build lists a transport for one
    assert RULES["listing_lacks_cuda"](context(("ucx.transports", "cuda_copy,self,tcp", None, None))).holds is False


def test_build_without_cuda_counts_only_where_gpu_memory_is_asked() -> None:
    item = ("ucx.build", "unmentioned", "cuda", None)
    assert RULES["build_lacks_cuda"](context(item)).holds is False
    assert RULES["build_lacks_cuda"](context(item, symptom="crash with a device pointer")).holds is True
    assert RULES["build_lacks_cuda"](context(item, ("mpi.cuda_support", "yes", None, None))).holds is True


@pytest.mark.parametrize(
    ("value", "holds"),
    [("inf", True), ("16", True), ("8192", False), ("auto", False), ("host:auto,cuda:inf", True), ("1mb", True)],
)
def test_rendezvous_threshold(value: str, holds: bool) -> None:
    assert RULES["rndv_forced"](context(("ucx.env", value, "UCX_RNDV_THRESH", None))).holds is holds


def test_small_pieces_cost_only_when_many_or_slow_to_post() -> None:
    small = ("kv.bytes_per_descriptor", 16384.0, None, None)
    assert RULES["small_descriptors_cost"](context(small)).holds is None
    assert RULES["small_descriptors_cost"](context(small, ("kv.descriptors", 80000.0, None, None))).holds is True
    assert RULES["small_descriptors_cost"](context(small, ("kv.post_share", 0.5, None, None))).holds is True
    assert RULES["small_descriptors"](context(("kv.bytes_per_descriptor", 1e6, None, None))).holds is False


def test_memlock_unlimited_is_not_low() -> None:
    assert RULES["memlock_low"](context(("host.limit.memlock", "unlimited", None, None))).holds is False
    assert RULES["memlock_low"](context(("host.limit.memlock", "65536", None, None))).holds is True


def ask(symptom: str, *texts: str) -> Triage:
    return triage(symptom, [Document.of(f"{i}", t.encode()) for i, t in enumerate(texts)])


def lead(result: Triage) -> str:
    got = result.assessment
    return got.accepted[0].cause.id if got.verdict == "cause" else got.verdict


def test_cases_of_the_family() -> None:
    wrong = []
    for case in yaml.safe_load(CASES.read_text("utf-8")):
        got = lead(ask(case["symptom"], *(a["text"] for a in case["artifacts"])))
        root, verdict = case["root_cause"], case.get("verdict")
        good = [verdict] if verdict in ("healthy", "inconclusive") else [root["label"], *root.get("also_accept", [])]
        if got not in good and verdict != "healthy":
            wrong.append((case["id"], got))
    assert len(wrong) <= 2, wrong


def test_a_restricted_list_leads_the_fallback_it_causes() -> None:
    result = ask(
        "UCX between nodes is slow",
        "UCX_TLS=tcp,cuda_copy\nUCX INFO a inter-node cfg#1 rma_am(tcp/eth0) am(tcp/eth0)\n"
        "link mlx5_0/1 state ACTIVE physical_state LINK_UP",
    )
    ids = [b.cause.id for b in result.assessment.accepted]
    assert ids[0] == "ucx.tls_restricted" and "ucx.tcp_fallback" in ids


def test_real_failures_of_nixl_name_the_list() -> None:
    log = (DATA / "nixl" / "ucx_tls_posix_self.log").read_text("utf-8")
    assert lead(ask("creating the nixl agent fails", log)) == "ucx.tls_restricted"


def test_inventory_and_harmless_lines_decide_nothing() -> None:
    for text in (
        (DATA / "ucx" / "ucx_info_d.apt1.13.txt").read_text("utf-8"),
        "[1] [vm:1:0] rdmacm_cm.c:928 UCX DIAG rdma_create_event_channel failed: No such device",
        "UCX_TLS=all UCX_NET_DEVICES=all UCX_RNDV_THRESH=auto",
        "nvidia_uvm 1 2\nnvidia 54071296 61 nvidia_uvm\nlsmod | grep nvidia",
        "Max locked memory         unlimited            unlimited            bytes",
    ):
        assert not lead(ask("is our transfer ok?", text)).startswith(("ucx.", "nixl.")), text[:60]


def test_every_cause_is_bilingual_and_whole() -> None:
    mine = [
        c
        for c in catalogue().causes.values()
        if c.id.startswith(("ucx.", "nixl.")) or c.id == "serving.kv_transfer_slow"
    ]
    assert len(mine) == 20
    for cause in mine:
        assert cause.zh and cause.zh.title and cause.zh.mechanism and cause.zh.fix and cause.zh.verify, cause.id
        assert len(cause.follow_ups) == 3 == len(cause.zh.follow_ups) and cause.playbooks and cause.references, cause.id
        assert cause.fix.risk and cause.fix.rollback and cause.tradeoff, cause.id
