"""UCX between two processes beside the ceiling of its path: host memory, and GPU memory with and without cuda_ipc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diagnose.probes import live_ucx

from diagnose import engine
from diagnose.collect import Capture, NotCaptured
from diagnose.document import Document
from diagnose.host import Host
from diagnose.runner import Ran

# The columns of ucx_perftest 1.22: iterations, median, average and overall latency, then MB/s and messages a second.
FINAL = "Final:                    50      0.150   {us:8.3f}   {us:8.3f}    {mb:9.2f}   {mb:9.2f}       {n}       {n}\n"
HEAD = "| Test:         tag match bandwidth    |\n| Message size: 67108864               |\n"
TOPO = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-31\nGPU1\tNV18\t X \t0-31\n"
NAME = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n"


class SimulatedHost(Host):
    """A machine with two GPUs whose ucx_perftest answers from a table: with cuda_ipc fast, without it slow."""

    def glob(self, pattern: str) -> list[Path]:
        return [Path("/dev/nvidia0")] if "nvidia" in pattern else []

    def find(self, tool: str) -> str | None:
        return f"/usr/bin/{tool}"

    def run(self, argv: Any, *, timeout: float = 10.0, env: Any = None, merge: bool = True) -> Ran:
        if "127.0.0.1" not in argv:
            return Ran(tuple(argv), 0.0, 0.0, 0, HEAD.encode())
        if "cuda" not in argv:
            return Ran(tuple(argv), 0.0, 0.0, 0, b"")
        rate = 11_000.0 if (env or {}).get("UCX_TLS") == "^cuda_ipc" else 330_000.0
        return Ran(tuple(argv), 0.0, 0.0, 0, FINAL.format(us=64e6 / rate / 1e3, mb=rate, n=int(rate / 64)).encode())


def between(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(live_ucx.time, "sleep", lambda s: None)
    return list(live_ucx._between_gpus(SimulatedHost()))


def test_cuda_ipc_beside_staging_with_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UCX_TLS", raising=False)
    (made,) = between(monkeypatch)
    assert isinstance(made, Capture) and b"UCX_TLS=^cuda_ipc $ ucx_perftest" in made.data
    docs = [made.document(), Document.of("topo.txt", TOPO.encode()), Document.of("list.txt", NAME.encode())]
    report = engine.report("UCX transfers are slow", docs)
    rates = {str(e.subject.label).split(",")[0]: e.value for e in report.evidence if e.signal == "ucx.gpu_rate"}
    assert rates == {"as UCX chooses": pytest.approx(346.03), "without cuda_ipc": pytest.approx(11.53)}
    assert [e.value for e in report.evidence if e.signal == "ucx.ipc_gain"] == [pytest.approx(30.0, rel=0.01)]
    found = {x.limit for x in report.limits if x.what.startswith("UCX between GPUs")}
    assert 450.0 in found and len(found) == 2  # 18 links of NVLink 4, and the slot


def test_a_choice_of_the_user_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp,cuda_copy")
    (made,) = between(monkeypatch)
    assert isinstance(made, Capture) and b"^cuda_ipc" not in made.data


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Host, argv: Any, **more: Any) -> Ran:
        return Ran(tuple(argv), 0.0, 0.0, 1, b"ucx_perftest: ERROR unsupported memory type cuda\n")

    monkeypatch.setattr(SimulatedHost, "run", refused)
    (made,) = between(monkeypatch)
    assert isinstance(made, NotCaptured) and "unsupported memory type" in made.reason


def test_host_memory_stands_beside_a_core_s_own_copy() -> None:
    final = FINAL.format(us=200.0, mb=5000.0, n=5000)
    head = "# memcpy of 64 MiB on one core: 8.00 GB/s\n$ ucx_perftest -t tag_bw\n"
    text = head + HEAD.replace("67108864", "1048576 ") + final
    report = engine.report("UCX transfers are slow", [Document.of("x.txt", text.encode())])
    (limit,) = [x for x in report.limits if x.what.startswith("UCX between two processes")]
    assert limit.limit == 8.0 and limit.ratio == pytest.approx(5000 * 1.048576e-3 / 8, rel=1e-3)
