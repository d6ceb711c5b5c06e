"""Run a program for a probe: an argv list, a time limit, a cap on its output, and nothing left behind.

Never a shell. What a child sees of the environment is this process's own, plus knobs from `KNOBS`.
`INHERITED` names settings that are passed on untouched and are never a knob: on shared hosts NVLink
multicast can take GPUs out of service, so nothing here may turn it on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from .errors import PermissionDenied, ToolMissing

INHERITED = ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS")
# What a probe may set for its own child: verbosity, placement, and the reversible knobs of interventions.
KNOBS = frozenset(
    [
        "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE",
        "NCCL_IB_DISABLE", "NCCL_NET", "NCCL_NET_GDR_LEVEL", "NCCL_SOCKET_IFNAME", "NCCL_ALGO", "NCCL_PROTO",
        "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS", "NCCL_MAX_CTAS", "NCCL_NTHREADS", "NCCL_BUFFSIZE",
        "NCCL_RAS_ENABLE", "NCCL_CUMEM_ENABLE", "NCCL_CUMEM_HOST_ENABLE", "NCCL_TOPO_DUMP_FILE", "NCCL_GRAPH_DUMP_FILE",
        "UCX_TLS", "UCX_NET_DEVICES", "UCX_LOG_LEVEL", "UCX_PROTO_INFO", "UCX_PROTO_ENABLE", "UCX_RNDV_THRESH",
        "UCX_RNDV_SCHEME", "UCX_MAX_RNDV_RAILS", "UCX_TCP_MAX_CONN_RETRIES", "NIXL_LOG_LEVEL",
        "NIXL_TELEMETRY_ENABLE", "NIXL_TELEMETRY_DIR", "CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING",
        "CUDA_DEVICE_MAX_CONNECTIONS", "OMP_NUM_THREADS", "TORCH_LOGS", "TORCH_NCCL_TRACE_BUFFER_SIZE", "LC_ALL",
        "LANG", "PYTHONUNBUFFERED", "PYTHONPATH", "DIAGNOSE_TRACE", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE",
        "LOCAL_RANK",
    ]
)  # fmt: skip
CAP = 16 << 20  # bytes of output kept; what comes after is read, counted and dropped
GRACE = 2.0  # seconds between asking a process group to end and killing it
POSIX = os.name == "posix"
_running: set[subprocess.Popen[bytes]] = set()
_ending = threading.Event()


@dataclass(frozen=True)
class Ran:
    """One finished program.

    Attributes:
        argv: as run. env: what differed from this process's environment.
        started: seconds since the epoch. seconds: wall time.
        status: exit status; None when it was killed at its time limit.
        output: standard output and error in the order they came, at most `CAP` bytes.
        cut: why the output is not complete, or None.
    """

    argv: tuple[str, ...]
    started: float
    seconds: float
    status: int | None
    output: bytes
    env: dict[str, str] = field(default_factory=dict)
    cut: str | None = None


def find(tool: str) -> str | None:
    """Path of a program, or None. An interpreter named ``python`` is this one."""
    return sys.executable if tool == "python" else shutil.which(tool)


def check_env(env: Iterable[str]) -> None:
    """Raises ValueError for a variable that no probe may set."""
    for name in env:
        if name in INHERITED or name not in KNOBS:
            raise ValueError(f"{name} is not a knob that a probe may set")


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cap: int = CAP,
    cwd: str | None = None,
    merge: bool = True,
    without: Iterable[str] = (),
) -> Ran:
    """Run `argv` to its end or its time limit.

    Args:
        timeout: seconds, after which the whole process group is ended.
        env: knobs on top of this process's environment.
        cap: bytes of output to keep.
        merge: standard error with the output (else dropped).
        without: knobs of this process's environment that the child does not get.

    Raises:
        ToolMissing: the program is not there. PermissionDenied: it may not be run. ValueError: a forbidden variable.
        KeyboardInterrupt: Ctrl-C, or the run that a thread belongs to was ended.
    """
    extra = dict(env or {})
    left_out = frozenset(without)
    check_env([*extra, *left_out])
    path = find(argv[0])
    if path is None:
        raise ToolMissing(f"{argv[0]} is not installed here")
    _go_on()
    started = time.time()
    begin = time.monotonic()
    try:
        child = subprocess.Popen(  # noqa: S603 (argv list of a probe, never a shell)
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k not in left_out} | extra,
            cwd=cwd,
            start_new_session=POSIX,
            creationflags=0 if POSIX else getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except PermissionError as err:
        raise PermissionDenied(f"{argv[0]} may not be run: {err.strerror}") from err
    except OSError as err:
        raise ToolMissing(f"{argv[0]} does not start: {err.strerror}") from err
    sink = Sink(child.stdout, cap)
    _running.add(child)
    try:
        _go_on()  # it may have been started while all others were ended
        status: int | None = child.wait(timeout)
        late = False
    except subprocess.TimeoutExpired:
        _end(child)
        status, late = None, True
    except BaseException:  # Ctrl-C above all: nothing that was started outlives us
        _end(child)
        raise
    finally:
        _running.discard(child)
    sink.finish(child)
    cut = f"ended at its limit of {timeout:g} s" if late else sink.cut
    changed = extra | dict.fromkeys(sorted(left_out), "(left out)")
    return Ran(tuple(argv), started, time.monotonic() - begin, status, bytes(sink.kept), changed, cut)


def end_all() -> None:
    """End whatever runs, and what other threads would start next, until `resume`.

    Ctrl-C reaches the main thread alone, and children are process groups of their own.
    """
    _ending.set()
    enders = [threading.Thread(target=_end, args=(child,)) for child in [*_running]]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join()


def resume() -> None:
    """Let threads start programs again."""
    _ending.clear()


def _go_on() -> None:
    """Raises KeyboardInterrupt in a thread whose run was ended: a probe of several programs starts no further one."""
    if _ending.is_set() and threading.current_thread() is not threading.main_thread():
        raise KeyboardInterrupt


class Sink(threading.Thread):
    """Drains a pipe, so that a talkative child never blocks, and keeps the first `cap` bytes."""

    def __init__(self, stream: IO[bytes] | None, cap: int) -> None:
        super().__init__(daemon=True)
        assert stream is not None
        self.stream, self.cap, self.kept, self.total = stream, cap, bytearray(), 0
        self.start()

    def run(self) -> None:
        """Read to the end, so that the program never waits; keep the first `cap` bytes."""
        while block := os.read(self.stream.fileno(), 1 << 16):
            self.total += len(block)
            self.kept += block[: max(0, self.cap - len(self.kept))]

    def finish(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the end of the output; a grandchild that kept the pipe open is ended with the group."""
        self.join(GRACE)
        if self.is_alive():
            _end(child)
            self.join(GRACE)
        if not self.is_alive():
            self.stream.close()

    @property
    def cut(self) -> str | None:
        """Says how much was dropped, if anything."""
        if self.total <= self.cap:
            return None
        return f"output cut at {self.cap >> 20} MiB of {self.total / (1 << 20):.1f} MiB"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole group: ask, wait `GRACE`, kill."""
    if not POSIX:
        taskkill = shutil.which("taskkill")
        if taskkill:
            subprocess.run([taskkill, "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)  # noqa: S603
        child.kill()
        child.wait()
        return
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sig)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        if sig == signal.SIGTERM and not _alive(child.pid):
            break
    child.wait()


def _alive(group: int) -> bool:
    """Is anything of the process group left? The leader itself may be gone while its children live on."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
