"""Captures of the user's own command (``--command``): PyTorch profiler, Nsight Compute, Nsight Systems, NCCL's log.

Binary reports are kept as the text that the vendor's tool prints of them; a profiler trace is kept
as it is, cut to what fits.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.host import Host
from diagnose.runner import Ran

DELAY, WINDOW = 3.0, 0.5  # seconds on the GPU before a trace may start (thrice that if unsteady); its length
_NEEDS = 20.0  # seconds of steps in which a trace surely fits: the wait, CUPTI's start-up (5 s seen), the common second
_NSYS_DELAY = 5.0  # it counts from the start of the program, imports included
_MOST_TRACE = 192 << 20
_HOOK = Path(__file__).parent / "profiler_hook"
_RUN = 120.0


def command(host: Host) -> list[str]:
    """The user's command as an argv list; empty when none was given."""
    return shlex.split(host.params.get("command", ""))


def _need_command(host: Host) -> str | None:
    return None if command(host) else "it needs a command to profile: --command 'python train.py'"


def _kineto_ready(host: Host) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed in this Python"
    return _need_command(host)


def _seconds(host: Host) -> float:
    return float(host.params.get("seconds", "0")) or DELAY + WINDOW + 20


def _kineto(host: Host) -> Iterator[Collected]:
    with tempfile.TemporaryDirectory(prefix="diagnose-") as folder:
        delay = host.params.get("delay", f"{DELAY:g}")
        path = os.pathsep.join(filter(None, [str(_HOOK), host.environ.get("PYTHONPATH", "")]))
        env = {"PYTHONPATH": path, "DIAGNOSE_TRACE": f"{delay},{WINDOW:g},{folder}/trace"}
        ran = host.run(command(host), timeout=_seconds(host) + 60, env=env)
        if ran.output.strip():
            yield Capture.of("kineto.trace", ran, "output")
        found = sorted(Path(folder).glob("trace.*.json"))
        for number, file in enumerate(found):
            data = file.read_bytes() if file.stat().st_size <= _MOST_TRACE else b""
            part = f"rank {number}" if len(found) > 1 else ""
            if not data:
                why = f"the trace has {file.stat().st_size >> 20} MiB; profile a shorter time"
                yield NotCaptured("kineto.trace", why, part)
            elif b'"cat": "kernel"' not in data:
                yield NotCaptured("kineto.trace", "no kernel ran on the GPU while the trace was taken", part)
            else:
                yield Capture("kineto.trace", data, part, argv=ran.argv, started=ran.started, seconds=ran.seconds,
                              status=ran.status)  # fmt: skip
        if not found:
            why = f"the command never used the GPU through PyTorch, or not for long enough ({_NEEDS:g} s of steps do)"
            yield NotCaptured("kineto.trace", f"{why}: {_tail(ran)}")


def _tail(ran: Ran) -> str:
    lines = ran.output.decode("utf-8", "replace").strip().splitlines()
    return (lines[-1] if lines else f"exit {ran.status}")[:200]


def _ncu_ready(host: Host) -> str | None:
    return _need_command(host) if host.find("ncu") else "ncu (Nsight Compute) is not installed here"


def _ncu_argv(host: Host) -> list[str]:
    kernel = host.params.get("kernel", "")
    chosen = ["-k", f"regex:{kernel}"] if kernel else []
    return ["ncu", "--set", "full", "--csv", "--page", "raw", "--clock-control", "none", *chosen,
            "--launch-skip", host.params.get("skip", "2"), "-c", "3", *command(host)]  # fmt: skip


def _ncu(host: Host) -> Iterator[Collected]:
    ran = host.run(_ncu_argv(host), timeout=_RUN)
    if b"ERR_NVGPUCTRPERM" in ran.output:
        why = "this user may not read GPU performance counters (ERR_NVGPUCTRPERM)"
        yield NotCaptured(
            "ncu.kernel", why, enable="run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
        )
    elif ran.output.strip():
        yield Capture.of("ncu.kernel", ran)


def _nsys_ready(host: Host) -> str | None:
    return _need_command(host) if host.find("nsys") else "nsys (Nsight Systems) is not installed here"


def _nsys_argv(host: Host, out: str) -> list[str]:
    return ["nsys", "profile", "-t", "cuda,nvtx,osrt", "--delay", f"{_NSYS_DELAY:g}", "--duration", f"{WINDOW:g}",
            "--force-overwrite", "true", "-o", out, *command(host)]  # fmt: skip


def _nsys(host: Host) -> Iterator[Collected]:
    with tempfile.TemporaryDirectory(prefix="diagnose-") as folder:
        out = f"{folder}/run"
        ran = host.run(_nsys_argv(host, out), timeout=_RUN)
        stats = host.run(["nsys", "stats", "--format", "csv", f"{out}.nsys-rep"], timeout=_RUN)
        if stats.output.strip() and not stats.status:
            yield Capture.of("nsys.capture", stats)
        else:
            yield NotCaptured("nsys.capture", f"nsys made no report: {_tail(ran)}")


COLLECTORS = (
    Collector("kineto.trace", _kineto_ready, _kineto, seconds=_seconds,
              commands=lambda host: [f"{shlex.join(command(host))}   # with PyTorch's profiler for {WINDOW:g} s"]),
    Collector("ncu.kernel", _ncu_ready, _ncu, commands=lambda host: [shlex.join(_ncu_argv(host))]),
    Collector("nsys.capture", _nsys_ready, _nsys, commands=lambda host: [shlex.join(_nsys_argv(host, "run"))]),
)  # fmt: skip
