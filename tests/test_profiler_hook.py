"""The hook that profiles a program that knows nothing of it. PyTorch is stood in for by a module of ten lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HOOK = Path(__file__).parents[1] / "probes/profiler_hook"
TORCH = """
class cuda:
    is_initialized = staticmethod(lambda: True)
    memory_stats = staticmethod(lambda: {})
class profiler:
    made = 0
    class ProfilerActivity: CPU, CUDA = "cpu", "cuda"
    class profile:
        def __init__(self, activities): profiler.made += 1; self.mine = profiler.made - 1
        def start(self): pass
        def stop(self): pass
        def export_chrome_trace(self, name):
            open(name, "w").write('{"cat": "kernel"}' if self.mine >= FIRST else '{"cat": "cpu_op"}')
"""


def profiled(tmp_path: Path, first: int) -> str:
    """Run a second of a program whose window number `first` is the first with a kernel in it."""
    (tmp_path / "torch.py").write_text(f"FIRST = {first}\n{TORCH}")
    env = os.environ | {"PYTHONPATH": f"{HOOK}{os.pathsep}{tmp_path}", "DIAGNOSE_TRACE": f"0.01,0.01,{tmp_path}/trace"}
    code = (
        "import torch, time, sitecustomize\nsitecustomize.GRID = 0.05\n"
        "end = time.time() + 1.2\nwhile time.time() < end: time.sleep(0.01)\n"
        "print(torch.profiler.made)"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert not ran.stderr
    (trace,) = tmp_path.glob("trace.*.json")
    return f"{ran.stdout.strip()} {trace.read_text()}"


def test_one_window_is_enough_when_a_kernel_ran_in_it(tmp_path: Path) -> None:
    assert profiled(tmp_path, 1) == '2 {"cat": "kernel"}'  # the first run takes up the start-up cost


def test_an_empty_window_is_followed_by_a_longer_one(tmp_path: Path) -> None:
    assert profiled(tmp_path, 2) == '3 {"cat": "kernel"}'


def test_it_gives_up_after_the_third(tmp_path: Path) -> None:
    assert profiled(tmp_path, 9) == '4 {"cat": "cpu_op"}'
