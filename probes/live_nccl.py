"""NCCL on this machine: a sweep of one collective, quiet and with NCCL's own log.

nccl-tests runs where it is installed, else our own sweep over torch in the same columns.

The quiet run measures, the run with the log explains: a log at INFO costs nothing on the path, but
its lines tear the table apart, so that figures are read from the quiet one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document
from diagnose.host import Host
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided

_WORKER = ["python", "-P", "-m", "diagnose.probes.nccl_sweep_worker"]
_TESTS = {"all_reduce": "all_reduce_perf", "sendrecv": "sendrecv_perf", "all_gather": "all_gather_perf",
          "reduce_scatter": "reduce_scatter_perf", "alltoall": "alltoall_perf"}  # fmt: skip
_DEBUG = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,ENV,NET,GRAPH,P2P,SHM,TUNING"}
_LOCKSTEP = regex(r"# lockstep (\d+) own=(\d+(?:\.\d+)?) waits=(\d+(?:\.\d+)?)")
_MOST, _LEAST = 1 << 30, 1 << 26
_OWN = 1536 << 20  # bytes of a GPU that a process of its own takes for CUDA and NCCL, generously
_BUFFERS = 4  # a sweep holds at most so many of its largest size
_FAILED = b"OutOfMemoryError"
_SWEEP_SECONDS, _LOG_SECONDS, _BYTES_SECONDS = 90.0, 60.0, 45.0


def gpu_count() -> int:
    """GPUs that NVML shows; 0 without a driver."""
    from diagnose import nvml

    try:
        return nvml.count()
    except nvml.NvmlGap:
        return 0


def _ready(host: Host) -> str | None:
    count = gpu_count()
    if count < 2:
        return f"a collective needs two GPUs; this machine shows {count or 'none'}"
    if largest() < _LEAST:
        return f"the GPUs are full: {_OWN + _BUFFERS * _LEAST >> 20} MiB must be free on each; run it without the job"
    if any(host.find(tool) for tool in _TESTS.values()) or importlib.util.find_spec("torch") is not None:
        return None
    return "neither nccl-tests nor PyTorch is installed in this Python"


def largest() -> int:
    """Bytes of the largest size that fits beside what runs on the GPUs: a power of two up to 1 GiB."""
    from diagnose import nvml

    try:
        room = max(0, nvml.least_free() - _OWN) // _BUFFERS
    except nvml.NvmlGap:
        return _MOST
    return min(_MOST, 1 << max(room, 1).bit_length() - 1)


def _op(host: Host) -> str:
    return host.params.get("collective", "all_reduce")


def _tool(host: Host) -> str:
    """The program of nccl-tests for what is asked, where it is installed."""
    tool = _TESTS.get(_op(host), "")
    return tool if tool and host.find(tool) else ""


def _command(host: Host, least: int, step: int, quiet: bool) -> list[str]:
    """A sweep from `least` bytes up (below 1 GiB the ceiling is not quite reached); a quiet one measures more."""
    most = str(largest())
    if tool := _tool(host):
        return [tool, "-b", str(least), "-e", most, "-f", str(step), "-g", str(gpu_count())]
    command = [*_WORKER, "--op", _op(host), "-b", str(least), "-e", most, "-f", str(step)]
    return [*command, "--lockstep", "--bytes"] if quiet else [*command, "--bytes"]


def _bytes_command(host: Host) -> list[str]:
    """Beside nccl-tests the bytes are counted around our own run: how often a tool repeats differs by version."""
    if not _tool(host) or importlib.util.find_spec("torch") is None:
        return []
    return [*_WORKER, "--op", _op(host), "-e", str(largest()), "--no-table", "--bytes"]


def _sweep(host: Host) -> Iterator[Collected]:
    yield from _run(host, "nccl.tests", _command(host, 8, 4, True), {}, _SWEEP_SECONDS)
    if command := _bytes_command(host):
        yield from _run(host, "nccl.tests", command, {}, _BYTES_SECONDS, "bytes")


def _log(host: Host) -> Iterator[Collected]:
    yield from _run(host, "nccl.debug_log", _command(host, 64, 16, False), _DEBUG, _LOG_SECONDS)


def _run(
    host: Host, probe: str, command: list[str], env: dict[str, str], seconds: float, part: str = ""
) -> Iterator[Collected]:
    ran = host.run(command, timeout=seconds, env=env)
    if _FAILED in ran.output:  # memory that somebody took meanwhile; what this probe lacked is no finding
        yield NotCaptured(probe, "the GPUs' memory ran out under the sweep: something else holds it", part)
    elif ran.output.strip():
        yield Capture.of(probe, ran, part, params={"op": _op(host)})
    else:
        yield NotCaptured(probe, f"{command[0]} printed nothing (exit {ran.status})", part)


def _sweep_shown(host: Host) -> list[str]:
    return [" ".join(c) for c in (_command(host, 8, 4, True), _bytes_command(host)) if c]


def _log_shown(host: Host) -> list[str]:
    return [" ".join([*(f"{k}={v}" for k, v in _DEBUG.items()), *_command(host, 64, 16, False)])]


class LockstepReader:
    """The lockstep part of our own sweep: the same work on every rank, and how long each took for it."""

    name = "nccl_lockstep"
    needles: tuple[bytes, ...] = (b"# lockstep ",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.lockstep.compute` and `.wait` by rank, and their spread, slowest over quickest."""
        computes: list[Fact] = []
        for line in doc.lines():
            if (hit := _LOCKSTEP.match(line.text)) is None:
                continue
            who, span = Subject(rank=int(hit[1])), (doc.span(line),)
            computes.append(Fact("nccl.lockstep.compute", float(hit[2]), "ms", who, span, status=doc.status))
            yield computes[-1]
            yield Fact("nccl.lockstep.wait", float(hit[3]), "ms", who, span, status=doc.status)
        if len(computes) > 1:
            slow = max(computes, key=lambda f: float(f.value or 0))
            quick = min(computes, key=lambda f: float(f.value or 0))
            if quick.value:
                yield divided("nccl.lockstep.spread", (slow, quick), subject=slow.subject)


READERS = (LockstepReader(),)

COLLECTORS = (
    Collector("nccl.tests", _ready, _sweep, seconds=lambda host: 25.0, commands=_sweep_shown),
    Collector("nccl.debug_log", _ready, _log, seconds=lambda host: 15.0, commands=_log_shown),
)
