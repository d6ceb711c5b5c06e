"""Recorded trees in place of a machine: each fault is found as such, healthy ones are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diagnose.probes.live_rdma import sysfs
from diagnose.probes.rdma_sysfs import SysfsReader

from diagnose.cassette import Cassette
from diagnose.document import Document
from diagnose.host import Host
from diagnose.live import Live
from diagnose.models import Report
from diagnose.triage import investigate

from .trees import tree

NCCL, UCX, HANG = "NCCL all-reduce between two nodes is slow", "UCX transfers are slow", "NCCL hangs at start over RoCE"


def examined(root: Path, symptom: str, work: Path) -> Report:
    host = Host.at({}, root)
    live = Live(host, Cassette.create(work / "run.cassette", symptom, host.taint))
    report, _ = investigate(symptom, [], None, ("en",), None, live)
    return report


FAULTS = [
    ("port_down", NCCL, "net.link_down"),
    ("wrong_mtu", NCCL, "net.wrong_mtu"),
    ("gid_missing", HANG, "nccl.roce_misconfigured"),
    ("storm", NCCL, "net.congestion"),
    ("memlock", UCX, "ucx.memlock_limit"),
    ("memlock", HANG, "nccl.memlock_limit"),
    ("container", UCX, "nccl.container_isolation"),
    ("misplaced", NCCL, "nccl.nic_misplaced"),
    ("gdr_off", UCX, "ucx.gdr_missing"),
    ("gdr_off", NCCL, "nccl.gdr_not_used"),
]


@pytest.mark.parametrize(("name", "symptom", "cause"), FAULTS)
def test_fault_is_named(name: str, symptom: str, cause: str, tmp_path: Path) -> None:
    report = examined(tree(tmp_path / "root", name), symptom, tmp_path)
    assert report.verdict == "cause", [(h.cause, h.p) for h in report.hypotheses[:4]]
    assert report.findings[0].cause == cause
    assert all({"recorded", "simulated"} <= set(e.status) for e in report.evidence if e.kind == "observed")
    assert "simulated" in report.answer["en"].boundary


TREES, ASKED = ["ib", "roce", "ib_odd", "quiet"], [NCCL, UCX, HANG, "KV transfer is slow, decode waits"]


@pytest.mark.parametrize(  # each tree under half of the questions, each question on half of the trees
    ("name", "symptom"),
    [
        pytest.param(name, symptom, marks=() if (i + j) % 2 == 0 else pytest.mark.thorough)
        for i, name in enumerate(TREES)
        for j, symptom in enumerate(ASKED)
    ],
)
def test_healthy_is_left_alone(name: str, symptom: str, tmp_path: Path) -> None:
    report = examined(tree(tmp_path / "root", name), symptom, tmp_path)
    assert report.findings == []


def test_a_tree_stands_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")  # of this machine, and none of the tree's business
    root = tree(tmp_path / "root", "ib")
    (tmp_path / "secret").write_text("4: ACTIVE\n")
    (root / "sys/class/infiniband/mlx5_9/ports/1").mkdir(parents=True)
    (root / "sys/class/infiniband/mlx5_9/ports/1/state").symlink_to(tmp_path / "secret")
    report = examined(root, UCX, tmp_path)
    text = report.model_dump_json()
    assert "mlx5_0" in text and "mlx5_9" not in text and "UCX_TLS" not in text
    cassette = (tmp_path / "run.cassette" / "cassette.json").read_text("utf-8")
    assert '"argv": []' in cassette and "ucx_info" not in {c["argv"][0] for c in _captures(cassette) if c["argv"]}


def _captures(text: str) -> list[dict[str, list[str]]]:
    return list(json.loads(text)["captures"])


def test_the_tree_has_an_environment_of_its_own(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "ib")
    (root / "proc/self/environ").write_bytes(b"UCX_TLS=tcp,self\0HOME=/home/user\0")
    report = examined(root, UCX, tmp_path)
    assert report.findings[0].cause == "ucx.tls_restricted"


def test_each_gpu_is_told_its_adapter(tmp_path: Path) -> None:
    report = examined(tree(tmp_path / "root", "roce"), UCX, tmp_path)
    near = {e.subject.gpu: e.value for e in report.evidence if e.signal == "rdma.near"}
    assert near == {0: "mlx5_0 (PIX)", 1: "mlx5_1 (PIX)"} or near == {}


def test_congestion_control_is_read_where_the_kernel_shows_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "roce")
    for side, on in (("np", {3}), ("rp", set())):
        for priority in range(8):
            path = root / f"sys/class/net/ens1np0/ecn/roce_{side}/enable/{priority}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{int(priority in on)}\n")
    place = root / "sys/class/infiniband/mlx5_0/tc/1/traffic_class"
    place.parent.mkdir(parents=True)
    place.write_text("Global tclass=106\n")
    doc = Document.of("sysfs.txt", sysfs(Host.at({}, root)))
    facts = {(f.signal, f.subject.nic, f.subject.label): f.value for f in SysfsReader().parse(doc)}
    assert facts["rdma.ecn", "ens1np0", "roce_np"] == "on for 3"
    assert facts["rdma.ecn", "ens1np0", "roce_rp"] == "off"
    assert facts["rdma.tos", "mlx5_0", "traffic class"] == "106"
