"""Real UCX tools and real NIXL transfers, where their wheels are installed (`.ci/run` installs them)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from diagnose.probes import live_ucx
from diagnose.probes.live_ucx import joined, pair, tool

from diagnose import engine
from diagnose.collect import Capture, collect, collectors
from diagnose.document import Document
from diagnose.host import Host
from diagnose.models import Report

needs_ucx = pytest.mark.skipif(tool(Host(), "ucx_perftest") is None, reason="no UCX tools, no libucx wheel")
needs_nixl = pytest.mark.skipif(
    importlib.util.find_spec("nixl") is None or importlib.util.find_spec("numpy") is None, reason="no nixl wheels"
)
UCX = ("env.dump", "ucx.info", "ucx.proto")
SIZES = (1 << 16, 1 << 20)  # of those that a run measures


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UCX_TLS", "UCX_NET_DEVICES", "UCX_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def seen(symptom: str, *probes: str) -> Report:
    captures = [c for name in probes for c in collect(collectors()[name], Host()) if isinstance(c, Capture)]
    assert captures
    return engine.report(symptom, [c.document() for c in captures])


def causes(report: Report) -> list[str]:
    return [f.cause for f in report.findings]


@needs_ucx
def test_default_is_no_fault() -> None:
    report = seen("UCX transfers are slow", *UCX)
    assert causes(report) == []
    assert {"ucx.build", "ucx.transports", "ucx.lane", "ucx.proto"} <= {e.signal for e in report.evidence}


@needs_ucx
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("UCX_TLS", "tcp", "ucx.tls_restricted"),
        ("UCX_TLS", "tcp,self", "ucx.tls_restricted"),
        ("UCX_TSL", "tcp", "ucx.env_typo"),
        ("UCX_TCP_RX_SEG_SIZ", "8k", "ucx.env_typo"),
    ],
)
def test_setting_is_found(name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    probes = UCX[:2] if wanted == "ucx.env_typo" else UCX  # what UCX then chooses is as it was
    assert causes(seen("UCX transfers are slow", *probes))[0] == wanted


@needs_ucx
def test_missing_transport_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "rc,self")
    report = seen("UCX cannot reach its peer", *UCX)
    assert causes(report)[0] in ("ucx.tls_restricted", "ucx.tcp_fallback")
    assert any("transport 'rc' is not available" in (e.quote or "") for e in report.evidence)


def test_a_recorded_busy_cpu_is_no_fault_of_the_transport() -> None:
    place = Path(__file__).parent / "data" / "ucx" / "busy_tag_lat.tcp.client.txt"
    report = engine.report("UCX transfers are slow", [Document.of("perftest.txt", place.read_bytes())])
    assert causes(report)[:1] == ["host.cpu_contention"]


@contextmanager
def busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@needs_ucx
@pytest.mark.thorough  # by default the recorded one above: this one keeps all CPUs busy for ten seconds and more
def test_a_busy_cpu_is_found_and_is_no_fault_of_the_transport() -> None:
    # few enough messages that they end on the busiest machine, enough that both sides lose the CPU some times
    for messages in (20_000, 100_000, 400_000):  # whether the CPU is lost within milliseconds is chance
        with busy(3 * len(os.sched_getaffinity(0))):
            server, client = pair(Host(), "tag_lat", 8, messages)
        text = joined("tag_lat", 8, server, client)
        report = engine.report("UCX transfers are slow", [Document.of("perftest.txt", text)])
        final = re.search(rb"^Final: +\d+ +([\d.]+) +([\d.]+)", text, re.M)
        if final and float(final[2]) > 12 * float(final[1]):
            break
    else:
        pytest.skip("the scheduler gave both sides a core for as long as they ran: there is nothing to find")
    assert causes(report)[:1] == ["host.cpu_contention"], text.decode()


@needs_ucx
def test_loopback_is_measured_beside_a_plain_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_ucx, "_VOLUME", 1 << 26)  # an eighth of what a measurement takes
    monkeypatch.setattr(live_ucx, "_LATENCY_SECONDS", 0.02)
    monkeypatch.setattr(live_ucx, "_SIZES", SIZES)
    report = seen("UCX transfers are slow", "ucx.perftest")
    rates = {e.subject.label: e.value for e in report.evidence if e.signal == "ucx.perftest.bw"}
    assert {f"tag match bandwidth, Send host, Recv host, {n} B" for n in SIZES} <= set(rates)
    assert any(e.signal == "host.memcpy" for e in report.evidence)
    assert not [c for c in causes(report) if c.startswith("ucx.")]


@needs_nixl
def test_batching_is_told_in_nixl_s_own_numbers() -> None:
    report = seen("KV transfer is slow, decode waits", "nixl.bench")
    cost = {e.subject.label: e.value for e in report.evidence if e.signal == "nixl.sweep.cost"}
    assert cost["DRAM|one_by_one|4096 B|1 a transfer"] > 0
    batching = [e for e in report.evidence if e.signal == "nixl.sweep.batching"]
    assert batching and all(e.formula == "a / b" and len(e.inputs) == 2 for e in batching)
    assert any(e.signal == "nixl.sweep.end" and e.value == "yes" for e in report.evidence)
    assert causes(report) == []  # that this host has a cost per descriptor is no finding by itself


@needs_nixl
def test_transport_without_failure_handling_breaks_nixl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "posix,self")
    assert causes(seen("NIXL agent creation fails", "env.dump", "nixl.bench"))[0] == "ucx.tls_restricted"


SWEEP = """# nixl sweep: UCX backend, DRAM to DRAM, two processes of one host, nixl 1.5.1
 memory how block_bytes blocks per_transfer best_ms us_per_descriptor GB_per_s post_us
 DRAM one_by_one 4096 64 1 1.494 23.35 0.175 900
 DRAM batched 4096 512 512 3.671 7.17 0.571 3000
 DRAM contiguous 8388608 1 1 0.580 580.0 14.463 210
# data arrived: yes
"""


def test_sweep_beside_an_engine_s_blocks_decides() -> None:
    log = (
        "KV Transfer metrics: Avg xfer time (ms)=300, Avg post time (ms)=60, Avg MB per transfer=128, "
        "Throughput (MB/s)=426, Avg number of descriptors=8192"
    )
    both = [Document.of("sweep.txt", SWEEP.encode()), Document.of("log.txt", log.encode())]
    report = engine.report("KV transfer is slow, decode waits", both)
    assert causes(report)[0] == "nixl.small_blocks"
    assert causes(engine.report("KV transfer is slow, decode waits", both[:1])) == []
