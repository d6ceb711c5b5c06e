"""Nothing that is read on a machine becomes an argument: a simulated host whose files and outputs are hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import pytest
from diagnose.probes import live_rdma

from diagnose import runner
from diagnose.collect import COLLECTING, Collector, collectors, declared
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.runner import Ran, check_env

MARK = "zq9"  # in everything that is hostile
HOSTILE = [f"; rm -rf {MARK}", f"$({MARK})", f"--{MARK}", f"`{MARK}`", f"-{MARK}\n--{MARK}", f"a|{MARK}&"]
PARAMS = {"command": "python train.py", "seconds": "1", "window": "0.1"}
FILES = (
    "proc/self/environ", "proc/self/limits", "proc/self/status", "proc/uptime", "proc/meminfo", "proc/modules",
    "proc/driver/nvidia/version", "sys/class/net/eth0/mtu", "sys/class/net/eth0/speed", "sys/fs/cgroup/cpu.max",
    "sys/class/infiniband/mlx5_0/ports/1/state", "sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_data",
    "sys/bus/pci/devices/0000:01:00.0/class", "dev/nvidia0", "etc/nccl.conf", "etc/os-release", "etc/ucx/ucx.conf",
)  # fmt: skip


class Simulated(Host):
    """A machine made up for this test: every program is there, none is started, each prints the same."""

    def __init__(self, root: Path, output: bytes) -> None:
        super().__init__(PARAMS, root)
        self.output, self.ran, self.gave = output, [], []

    ran: list[tuple[str, ...]]
    gave: list[Mapping[str, str]]

    def find(self, tool: str) -> str | None:
        return f"/usr/bin/{tool}"

    def run(
        self, argv: Sequence[str], *, timeout: float = 10.0, env: Mapping[str, str] | None = None, merge: bool = True
    ) -> Ran:
        check_env(env or {})
        self.ran.append(tuple(argv))
        self.gave.append(dict(env or {}))
        return Ran(tuple(argv), 0.0, 0.0, 0, self.output, dict(env or {}))


def machine(root: Path, hostile: bool) -> Simulated:
    said = "\n".join(HOSTILE) if hostile else "plain"
    for name in FILES:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"UCX_TLS={said}\n{said}\n")
    net = root / "sys/class/infiniband/mlx5_0/device/net"
    for name in ["eth0", *(h.replace("/", "") for h in HOSTILE if hostile)]:
        (net / name).mkdir(parents=True)
    return Simulated(root, (f"UCX_{said}=1\n{said}\n" * 3).encode())


def every() -> list[Collector]:
    """The collectors without the guard that keeps them off recorded trees; those in data too."""
    python = [item for module in COLLECTING for item in import_module(f"diagnose.probes.{module}").COLLECTORS]
    return python + [declared(item.spec) for item in collectors().values() if item.spec.run]


def started(host: Simulated, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """What all collectors would start on a host, ports and folders of their own aside."""
    for module in ("live_nccl", "live_bench"):
        monkeypatch.setattr(f"diagnose.probes.{module}.gpu_count", lambda: 2)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(runner.subprocess, "Popen", None)
    for item in every():
        try:
            if item.ready(host) is None:
                list(item.collect(host))
        except (ProbeError, OSError):
            continue
    return {tuple(re.sub(r"^\d{4,5}$", "PORT", re.sub(r"^/tmp/\S*?/", "", a)) for a in argv) for argv in host.ran}


def test_what_is_read_changes_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, hostile = machine(tmp_path / "plain", False), machine(tmp_path / "hostile", True)
    usual = started(plain, monkeypatch)
    assert len(usual) > 25 and any("eth0" in argv for argv in usual)  # it does look at names that the kernel gives
    assert started(hostile, monkeypatch) == usual
    for argv in hostile.ran:
        assert not any(MARK in word or "\n" in word for word in argv), argv
    assert not any(MARK in value for env in hostile.gave for value in env.values())


def test_the_check_sees_an_argument_that_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_rdma, "_INTERFACE", re.compile(r"(?s).*"))
    hostile = machine(tmp_path, True)
    started(hostile, monkeypatch)
    assert any(MARK in word for argv in hostile.ran for word in argv)
