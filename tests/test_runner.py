"""The runner: limits hold, nothing is left behind, forbidden variables stay forbidden."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from diagnose import runner
from diagnose.errors import PermissionDenied, ToolMissing


def test_output_status_and_environment_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    code = "import os,sys; print(os.environ['NCCL_NVLS_ENABLE'], os.environ['NCCL_DEBUG']); sys.exit(3)"
    ran = runner.run(["python", "-c", code], timeout=20, env={"NCCL_DEBUG": "INFO"})
    assert ran.output == b"0 INFO\n"
    assert ran.status == 3
    assert ran.env == {"NCCL_DEBUG": "INFO"}
    assert ran.cut is None


@pytest.mark.parametrize("name", [*runner.INHERITED, "LD_PRELOAD", "PATH"])
def test_no_probe_sets_multicast_or_anything_outside_the_list(name: str) -> None:
    assert name not in runner.KNOBS
    with pytest.raises(ValueError, match=name):
        runner.run(["python", "-c", "pass"], timeout=5, env={name: "1"})


def _runs(pid: int) -> bool:
    """Is it there, and more than an entry that nobody has collected yet?"""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_a_late_program_ends_with_all_its_children() -> None:
    parent = "import subprocess, time; print(subprocess.Popen(['sleep', '301']).pid, flush=True); time.sleep(300)"
    for limit in (1.5, 6.0, 24.0):  # a busy machine takes a while to start a Python
        ran = runner.run([sys.executable, "-c", parent], timeout=limit)
        assert ran.status is None
        assert ran.cut is not None and f"{limit:g} s" in ran.cut
        if ran.output:
            break
    child = int(ran.output)
    until = time.monotonic() + 60
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _runs(child)


def test_a_talkative_program_is_cut_and_says_so() -> None:
    ran = runner.run(["python", "-c", "print('x' * 3_000_000)"], timeout=20, cap=1 << 20)
    assert len(ran.output) == 1 << 20
    assert ran.status == 0
    assert ran.cut == "output cut at 1 MiB of 2.9 MiB"


def test_missing_and_forbidden_programs(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="no-such-tool"):
        runner.run(["no-such-tool"], timeout=1)
    folder = tmp_path / "not-a-program"
    folder.write_text("x")
    folder.chmod(0o644)
    with pytest.raises((PermissionDenied, ToolMissing)):
        runner.run([str(folder)], timeout=1)
