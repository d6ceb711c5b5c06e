"""Processes of a server on this machine: who owns its port, their command lines, logs, CPU and GPUs."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from diagnose.collect import Capture, Collected, NotCaptured
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.lazy import regex
from diagnose.mask import mask

from .live_host import STEERS

HEAD, TAIL = 256 << 10, 2 << 20  # of a log: what was decided at the start, and what goes on now
RECENT = 600.0  # seconds; what a server was doing before that is not what is asked about now
_WHOLE = 64 << 20  # of a log that is searched for capacity
_SERVERS = regex(
    r"vllm|sglang|trtllm|tensorrt_llm|tritonserver|text-generation|llama-server|llama_cpp|dynamo|lmdeploy|torchrun"
    r"|deepspeed|ray::|mooncake|lmcache"
)
# A line of state, with its clock: vLLM's `MM-DD HH:MM:SS`, SGLang's `[YYYY-MM-DD HH:MM:SS]`; both in local time.
_STATE = regex(r"(?m)^.*?(\d{2}-\d{2} \d{2}:\d{2}:\d{2})\b.*(?:Avg prompt throughput|(?:Prefill|Decode) batch\b).*\n?")
_CAPACITY = regex(
    r"KV cache|[Mm]aximum concurrency|max_total_num_tokens|num_gpu_blocks|# ?GPU blocks|#tokens|kv blocks"
)
_SAME = ("DYN_FILE_KV", "DYN_NAMESPACE", "ETCD_ENDPOINTS", "NATS_SERVER", "DYN_DISCOVERY_BACKEND")
_SECRET = regex(
    r"(?i)(?<![\w-])(--?(?:[\w-]*(?:api[-_]?key|secret|password|passwd)"
    r"|(?:hf|auth|access|bearer)[-_]?token|token)[= ])\S+"
)
_GPU = (
    "timestamp,index,utilization.gpu,utilization.memory,memory.used,memory.total,clocks.sm,power.draw,temperature.gpu"
)
_MOST_PORTS = 16


def owner(port: int) -> psutil.Process | None:
    """The process that listens at a port here; None where that cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        for conn in psutil.net_connections(kind="tcp"):
            if conn.status == psutil.CONN_LISTEN and conn.laddr and conn.laddr.port == port and conn.pid:
                return psutil.Process(conn.pid)
    for process in psutil.process_iter():  # one's own processes, where the list of all is not allowed
        with contextlib.suppress(psutil.Error, OSError):
            if port in _listening(process):
                return process
    return None


def _listening(process: psutil.Process) -> list[int]:
    return sorted({c.laddr.port for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN})


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return " ".join(process.cmdline())
    return ""


def _environ(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def family(port: int) -> list[psutil.Process]:
    """The processes of a server: who owns the port, its children, and the workers of the same deployment."""
    main = owner(port)
    if main is None:
        return []
    found = [main]
    parent = None
    with contextlib.suppress(psutil.Error, OSError):
        parent = main.parent()
    if parent is not None and _SERVERS.search(" ".join(_line(parent).split()[:3])):  # what it runs, not its options
        found.insert(0, parent)  # an API server that an engine's launcher forked
    found += _workers(main)
    for process in list(found):
        with contextlib.suppress(psutil.Error, OSError):
            found += process.children(recursive=True)
    return list(dict.fromkeys(found))


def _workers(front: psutil.Process) -> list[psutil.Process]:
    """Dynamo's workers of the same deployment: the same place of discovery."""
    if "dynamo" not in _line(front):
        return []
    mine = _environ(front)
    out = []
    for process in psutil.process_iter():
        if process.pid != front.pid and "dynamo." in _line(process):
            theirs = _environ(process)
            if all(mine.get(name) == theirs.get(name) for name in _SAME):
                out.append(process)
    return out


def worker_ports(port: int) -> list[int]:
    """Ports at which workers behind a frontend may serve metrics."""
    main = owner(port)
    ports: list[int] = []
    for process in _workers(main) if main is not None else ():
        with contextlib.suppress(psutil.Error, OSError):
            named = _environ(process).get("DYN_SYSTEM_PORT", "")
            heard = _listening(process)
            ports += [int(named)] if named.isdecimal() and int(named) in heard else heard
    return list(dict.fromkeys(p for p in ports if p != port))[:_MOST_PORTS]


def _found(port: int) -> list[psutil.Process]:
    processes = family(port)
    if not processes:
        raise ProbeError(
            f"the process that listens at port {port} cannot be seen from here (another user or container)"
        )
    return processes


def _told(process: psutil.Process) -> str:
    return _SECRET.sub(r"\1***", mask(_line(process)))[:4000]


def servers() -> Iterator[Collected]:
    """Command lines of all servers and launchers that are known, when no port was named."""
    lines = set()
    for process in psutil.process_iter():
        line = _line(process)
        if process.pid != os.getpid() and _SERVERS.search(line) and "diagnose" not in line[:200]:
            lines.add(_told(process))
    if not lines:
        yield NotCaptured("serving.args", "no process of a known server or launcher runs here")
        return
    yield Capture("serving.args", ("\n".join(sorted(lines)) + "\n").encode("utf-8", "replace"), started=time.time())


def command_lines(port: int) -> Iterator[Collected]:
    """Command lines of one server's processes."""
    try:
        lines = list(dict.fromkeys(filter(None, map(_told, _found(port)))))
    except ProbeError as err:
        yield NotCaptured("serving.args", err.message, "command line")
        return
    text = "\n".join(lines) + "\n"
    yield Capture("serving.args", text.encode("utf-8", "replace"), "command line", started=time.time())


def environment(port: int) -> Iterator[Collected]:
    """Variables of GPU libraries that a server was started with, which need not be those of this shell."""
    main = owner(port)  # its children also hold what the engine sets for itself
    found = {n: v for n, v in _environ(main).items() if STEERS.match(n)} if main is not None else {}
    if not found:
        why = "no variable of a GPU library is set for the server, or its environment may not be read"
        yield NotCaptured("serving.args", why, "environment")
        return
    text = "".join(f"{name}={mask(value)}\n" for name, value in sorted(found.items()))
    yield Capture("serving.args", text.encode("utf-8", "replace"), "environment", started=time.time())


def _log_files(port: int) -> list[Path]:
    """Plain files that the output of a server's processes goes to."""
    out: dict[tuple[int, int], Path] = {}
    for process in _found(port):
        for number in (1, 2):
            path = Path(f"/proc/{process.pid}/fd/{number}")
            with contextlib.suppress(OSError):
                info = path.stat()
                if path.is_file() and os.access(path, os.R_OK) and info.st_size:
                    out.setdefault((info.st_dev, info.st_ino), path)
    return list(out.values())


def _need_files(port: int) -> list[Path]:
    files = _log_files(port)
    if not files:
        raise ProbeError(
            "its output goes to a terminal or a pipe: give the log with --evidence (kubectl logs, docker logs)"
        )
    return files


def without_past(text: str, now: float) -> tuple[str, int]:
    """A log without the lines of state from `RECENT` seconds before `now` (epoch) and earlier; how many were left out.

    A server's overload of this morning would else be found in its log, and named for the load of this moment.
    """
    today, dropped = time.localtime(now), 0

    def kept(hit: re.Match[str]) -> str:
        nonlocal dropped
        with contextlib.suppress(ValueError, OverflowError):  # a day that no calendar has
            told = time.mktime(time.strptime(f"{today.tm_year}-{hit[1]}", "%Y-%m-%d %H:%M:%S"))
            if told > now + 86400:  # the turn of the year
                told = time.mktime(time.strptime(f"{today.tm_year - 1}-{hit[1]}", "%Y-%m-%d %H:%M:%S"))
            if told < now - RECENT:
                dropped += 1
                return ""
        return hit[0]

    return _STATE.sub(kept, text), dropped


def logs(port: int) -> Iterator[Collected]:
    """The start and the end of each log, without the lines of state that are long past.

    Raises:
        ProbeError: the output of the server goes to no file, or the server is not found.
    """
    for number, path in enumerate(_need_files(port), 1):
        started = time.time()
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data, cut = stream.read(HEAD + TAIL), None
            if size > HEAD + TAIL:
                stream.seek(size - TAIL)
                end = stream.read(TAIL)
                data = data[:HEAD].rpartition(b"\n")[0] + b"\n" + end.partition(b"\n")[2]
                cut = f"the first {HEAD >> 10} KiB and the last {TAIL >> 20} MiB of {size / (1 << 20):.0f} MiB"
        text, past = without_past(data.decode("utf-8", "surrogateescape"), started)
        if past:
            data = text.encode("utf-8", "surrogateescape")
            cut = f"{cut or 'all'}; {past} lines of state older than {RECENT / 60:.0f} min left out"
        part = f"file {number}" if number > 1 else ""
        yield Capture("vllm.log", data, part, started=started, seconds=time.time() - started, cut=cut)


def capacity(port: int) -> Iterator[Collected]:
    """Lines of the logs that say how much the KV cache holds.

    Raises:
        ProbeError: as of `logs`.
    """
    kept: list[bytes] = []
    files = [p for p in _need_files(port) if p.stat().st_size > HEAD + TAIL]
    if not files:
        yield NotCaptured("kv.capacity", "the log is short: vllm.log holds all of it")
        return
    for path in files:
        with path.open("rb") as stream:
            lines = stream.read(_WHOLE).splitlines()
        kept += [line for line in lines if _CAPACITY.search(line.decode("utf-8", "replace"))][:40]
    if not kept:
        yield NotCaptured("kv.capacity", "the log says nothing of the KV cache's size")
        return
    yield Capture("kv.capacity", b"\n".join(kept) + b"\n", started=time.time())


def use(host: Host, port: int, window: float) -> Iterator[Collected]:
    """CPU of the server's processes, and GPUs each second, over a window.

    Raises:
        ProbeError: the server is not found.
    """
    processes = _found(port)
    seconds = max(2, round(window))
    watches = (
        ("gpu", [f"--query-gpu={_GPU}", "--format=csv", "-l", "1"]),
        ("processes", ["pmon", "-c", str(seconds)]),  # one sample may fall into a pause of the server
    )
    with ThreadPoolExecutor(len(watches)) as pool:
        gpus = [pool.submit(_gpus, host, seconds, *w) for w in watches] if host.find("nvidia-smi") else []
        started = time.time()
        before = {p.pid: (_times(p), _waits(p.pid)) for p in processes}
        time.sleep(window)
        spent = time.time() - started
        rows = [row for p in processes if (row := _row(p, *before[p.pid], spent)) is not None]
        if rows:
            head = f"# the server's processes over {spent:.1f} s; 100 is one core; %wait: its worst thread\n"
            head += "  PID  THREADS  CPUS      RES  %wait   %CPU  Command\n"
            text = head + "".join(rows) + _quota(processes[0])
            yield Capture("server.use", text.encode("utf-8", "replace"), "cpu", started=started, seconds=spent)
        else:
            yield NotCaptured("server.use", "the server's processes ended, or may not be read", "cpu")
        yield from (watched.result() for watched in gpus)


def _gpus(host: Host, seconds: int, part: str, words: list[str]) -> Collected:
    ran = host.run(["nvidia-smi", *words], timeout=seconds + 1)  # the former is ended by it
    if not ran.output.strip():
        return NotCaptured("server.use", f"nvidia-smi printed nothing (exit {ran.status})", part)
    return Capture("server.use", ran.output, part, argv=ran.argv, started=ran.started, seconds=ran.seconds, status=0)


def _times(process: psutil.Process) -> float | None:
    with contextlib.suppress(psutil.Error, OSError):
        times = process.cpu_times()
        return float(times.user + times.system)
    return None


def _waits(pid: int) -> dict[str, int]:
    """Nanoseconds that each thread was ready and had no CPU, as the kernel counts them."""
    out: dict[str, int] = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            out[path.parent.name] = int(path.read_text().split()[1])
    return out


def _row(process: psutil.Process, before: float | None, waited: dict[str, int], spent: float) -> str | None:
    now, waits = _times(process), _waits(process.pid)
    if before is None or now is None:
        return None
    with contextlib.suppress(psutil.Error, OSError):
        cpus = len(process.cpu_affinity() or ()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 0
        size = process.memory_info().rss >> 20
        share = 100 * (now - before) / max(spent, 1e-6)
        worst = max((ns - waited[t] for t, ns in waits.items() if t in waited), default=0) / 1e7 / max(spent, 1e-6)
        words = [w for w in _told(process).split()[:4] if not w.startswith("-")]  # options are serving.args' to tell
        name = "_".join(w.rpartition("/")[2] for w in words)[:60]
        threads = process.num_threads()
        return f"{process.pid:5d} {threads:8d} {cpus:5d} {size:7d}m {worst:6.1f} {share:6.1f}  {name}\n"
    return None


def _quota(process: psutil.Process) -> str:
    """The limit of CPU time that the process's group is under, as the kernel writes it."""
    with contextlib.suppress(OSError, psutil.Error, StopIteration):
        lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        own = next(x.partition("::")[2] for x in lines if x.startswith("0::"))
        for place in (Path("/sys/fs/cgroup" + own), Path("/sys/fs/cgroup")):
            file = place / "cpu.max"
            if file.is_file():
                return f"\n/sys/fs/cgroup/cpu.max:{file.read_text().strip()}\n"
    return ""
