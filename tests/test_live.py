"""Live runs over a recorded machine: what is probed, in which order, and when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from diagnose import runner
from diagnose.cassette import Cassette, played
from diagnose.collect import Capture, Collector
from diagnose.host import Host
from diagnose.live import Live, allowed
from diagnose.models import Report
from diagnose.triage import Reach, investigate

QUIET = "nvidia-smi is not installed here"


class Box(Host):
    """A machine with every tool; its probes are played back."""

    def find(self, tool: str) -> str | None:
        return f"/usr/bin/{tool}"


def machine(path: Path, captures: list[Capture], symptom: str = "all-reduce is slow") -> Path:
    made = Cassette.create(path, symptom)
    made.add(captures)
    return path


def run(recorded: Path, tmp: Path, symptom: str, level: str = "load", budget: float = 600) -> tuple[Report, Live]:
    live = Live(Box(), Cassette.create(tmp / "out.cassette", symptom), allowed(level), budget)
    live.known = played(recorded)
    report, complete = investigate(symptom, [], None, ("en",), live=live)
    assert complete
    return report, live


NCCL = """\
vm:10:10 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1
vm:10:10 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
vm:11:11 [1] NCCL INFO Channel 00 : 1[1] -> 0[0] via SHM/direct/direct
"""


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    return machine(
        tmp_path / "m.cassette",
        [
            Capture("env.dump", b"NCCL_P2P_DISABLE=1\n"),
            Capture("nvidia_smi.topo", b"\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X \n"),
            Capture("nccl.debug_log", NCCL.encode(), seconds=15),
            Capture("host.disk", b"Filesystem Type Size Used Avail Use% Mounted on\n", "df"),
        ],
    )


def test_reads_first_then_the_probe_that_decides_and_no_more(two_gpus: Path, tmp_path: Path) -> None:
    report, live = run(two_gpus, tmp_path, "all-reduce between my two GPUs is slow")
    assert report.verdict == "cause"
    assert report.findings[0].cause == "nccl.env_override"
    planned = [p.probe for p in report.path if p.step == "planned"]
    assert planned == ["nccl.debug_log"]
    assert {"env.dump", "nvidia_smi.topo"} <= set(live.ran)
    assert report.stats.probes_run == len(live.ran)
    assert {"live"} == {s for e in report.evidence if e.kind == "observed" for s in e.status}


def test_without_consent_a_light_probe_is_unavailable_and_says_what_it_needs(two_gpus: Path, tmp_path: Path) -> None:
    report, live = run(two_gpus, tmp_path, "all-reduce between my two GPUs is slow", level="read")
    assert "nccl.debug_log" not in live.ran
    assert live.why_not("nccl.debug_log") == "needs --allow light"
    assert report.verdict != "cause" or report.findings[0].confidence < 0.8


def test_the_budget_is_kept(two_gpus: Path, tmp_path: Path) -> None:
    _, live = run(two_gpus, tmp_path, "all-reduce between my two GPUs is slow", budget=5)
    assert "nccl.debug_log" not in live.ran
    assert "budget" in live.why_not("nccl.debug_log")


def test_ctrl_c_keeps_what_was_captured(two_gpus: Path, tmp_path: Path) -> None:
    live = Live(Box(), Cassette.create(tmp_path / "o.cassette", "x"), allowed("load"), 600)

    def stop(host: Host) -> list[Capture]:
        raise KeyboardInterrupt

    live.known = played(two_gpus) | {"nccl.debug_log": Collector("nccl.debug_log", lambda host: None, stop)}
    report, complete = investigate("all-reduce is slow", [], None, ("en",), live=live)
    assert not complete
    assert any(e.signal == "env.var" for e in report.evidence)
    listed = json.loads((tmp_path / "o.cassette" / "cassette.json").read_text())
    assert {c["probe"] for c in listed["captures"]} >= {"env.dump", "nvidia_smi.topo"}


def test_evidence_from_elsewhere_is_not_mixed_with_this_machine() -> None:
    assert not Reach().live(evidence=True)
    assert Reach().live(evidence=False)
    assert Reach(allow="read").live(evidence=True)
    assert Reach(params={"endpoint": "http://h"}).live(evidence=True)
    assert not Reach(offline=True).live(evidence=False)
    assert not Reach(replay="x").live(evidence=False)


def test_run_at_the_prompt_probes_and_assesses_again(two_gpus: Path, tmp_path: Path) -> None:
    from rich.console import Console

    from diagnose.session import Prompt

    report, live = run(two_gpus, tmp_path, "all-reduce between my two GPUs is slow", level="read")
    console = Console(record=True, width=100)
    talk = Prompt(report, console, live)
    assert talk.answer("run nccl.debug_log")
    said = console.export_text()
    assert "nccl.debug_log" in said and "now: cause" in said
    assert talk.report.findings[0].cause == "nccl.env_override"
    assert talk.answer("run nccl.tests")
    assert "cannot run here: not captured in this recording" in console.export_text() or "nccl.tests" not in live.known


def test_ctrl_c_waits_for_no_probe_and_leaves_no_program(tmp_path: Path) -> None:
    live = Live(Box(), Cassette.create(tmp_path / "o.cassette", "x"), allowed("load"), 600)
    begun, over = threading.Barrier(3), threading.Event()

    def program(host: Host) -> list[Capture]:
        begun.wait()
        runner.run(["sleep", "30"], timeout=40)
        try:
            runner.run(["sleep", "31"], timeout=40)
        finally:
            over.set()
        return []

    def request(host: Host) -> list[Capture]:
        begun.wait()
        time.sleep(30)
        return []

    def press() -> None:
        begun.wait()
        while not runner._running:
            time.sleep(0.01)
        (child,) = runner._running
        pressed.append(child)
        os.kill(os.getpid(), signal.SIGINT)

    pressed: list[subprocess.Popen[bytes]] = []
    threading.Thread(target=press, daemon=True).start()
    at = time.monotonic()
    names = ("nvidia_smi.q", "env.dump")
    with pytest.raises(KeyboardInterrupt):
        live.run([Collector(n, lambda host: None, c) for n, c in zip(names, (program, request), strict=True)])
    assert time.monotonic() - at < 10
    assert pressed[0].poll() is not None
    assert over.wait(10)
    assert not runner._running
