"""Reach nodes with `ssh` or `srun`: argv lists, a limit for each, and nothing left running.

A launcher yields an `Outcome` for each node as it comes, and for every node exactly one. Closing the
iterator ends all it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from . import hostlist
from .errors import ToolMissing, UsageError
from .fleet_payload import CAP, FRAME
from .mask import mask
from .runner import POSIX, Sink

AT_ONCE = 32  # ssh processes side by side
CONNECT = 10  # seconds for reaching a node
GRACE = 5.0  # seconds beyond a node's own limit before its process is ended
KILL_AFTER = 2.0  # seconds between asking a process group to end and killing it
END = f"{FRAME} end".encode()
_TICK = 0.05
_LABEL = re.compile(rb"(?m)^ *(\d+): ?(.*)$")
_NOISE = re.compile(r"Warning: Permanently added|^\s*$|^\*|^Connection to .* closed")


@dataclass(frozen=True)
class Outcome:
    """What came of a node: what it wrote, or None with the reason."""

    node: str
    output: bytes | None
    reason: str = ""


class Launcher(Protocol):
    """Something that runs one script on every node."""

    nodes: list[str]

    def commands(self) -> list[str]:
        """What would run here, to be shown."""
        ...

    def run(self, script: str, limit: float) -> Iterator[Outcome]:
        """Run `script` everywhere, `limit` seconds at most on each."""
        ...


# --- processes


@dataclass
class Child:
    """A process with a group of its own, its output drained as it comes."""

    node: str
    process: subprocess.Popen[bytes]
    out: Sink
    err: Sink
    deadline: float
    asked: float = 0.0  # when it was asked to end

    @classmethod
    def start(cls, node: str, argv: Sequence[str], script: IO[bytes], limit: float, cap: int = CAP) -> Child:
        """Start `argv` with `script` as its standard input."""
        path = shutil.which(argv[0])
        if path is None:
            raise ToolMissing(f"{argv[0]} is not installed here")
        process = subprocess.Popen(  # noqa: S603 (an argv list; names of hosts are checked)
            [path, *argv[1:]], stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=POSIX
        )  # fmt: skip
        return cls(
            node, process, Sink(process.stdout, cap), Sink(process.stderr, 1 << 16), time.monotonic() + limit
        )  # fmt: skip

    def done(self) -> bool:
        """Has it ended? One that is past its limit is asked to, and killed after a while."""
        if self.process.poll() is not None:
            return True
        now = time.monotonic()
        if not self.asked and now > self.deadline:
            self.asked = now
            self.signal(signal.SIGTERM)
        elif self.asked and now > self.asked + KILL_AFTER:
            self.signal(signal.SIGKILL)
        return False

    def signal(self, number: int) -> None:
        """To the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if POSIX:
                os.killpg(self.process.pid, number)
            else:
                self.process.kill()

    def close(self) -> None:
        """Take what is left of the output; what outlived the process is ended with its group."""
        for sink in (self.out, self.err):
            sink.join(0.5)
        if self.out.is_alive() or self.err.is_alive():
            self.signal(signal.SIGKILL)
        for sink in (self.out, self.err):
            sink.join(0.5)
            if not sink.is_alive():
                sink.stream.close()

    def complaint(self) -> str:
        """The last line of standard error that says something."""
        lines = bytes(self.err.kept).decode("utf-8", "replace").splitlines()
        told = [line.strip() for line in lines if not _NOISE.search(line)]
        return mask(told[-1][:200]) if told else ""


def end_all(children: Sequence[Child]) -> None:
    """Ask all to end, and kill those that do not."""
    for child in children:
        child.signal(signal.SIGTERM)
    until = time.monotonic() + KILL_AFTER
    while time.monotonic() < until and any(c.process.poll() is None for c in children):
        time.sleep(_TICK)
    for child in children:
        child.signal(signal.SIGKILL)
        child.process.wait()
        child.close()


def _script_file(script: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="diagnose-", suffix=".sh")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(script)
    return Path(name)


# --- ssh


@dataclass
class Ssh:
    """One `ssh` a node, some at once; one that could not be reached is tried once more."""

    nodes: list[str]
    at_once: int = AT_ONCE
    retries: int = 1

    def argv(self, node: str) -> list[str]:
        """The command for a node; `--` keeps a name from being an option."""
        return ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT}", "--", node, "sh -s"]

    def commands(self) -> list[str]:
        """One line, as all are alike."""
        return [" ".join(self.argv(self.nodes[0])) + (f"   (and {len(self.nodes) - 1} more)" if self.nodes[1:] else "")]

    def run(self, script: str, limit: float) -> Iterator[Outcome]:
        """See `Launcher`."""
        for node in self.nodes:
            if not hostlist.valid(node):
                raise UsageError(f"{node[:80]!r} is no host name", hostlist.HINT)
        if shutil.which("ssh") is None:
            raise ToolMissing("ssh is not installed here")
        path = _script_file(script)
        todo = [(node, 0) for node in reversed(self.nodes)]
        running: dict[str, tuple[Child, int]] = {}
        try:
            while todo or running:
                while todo and len(running) < self.at_once:
                    node, tries = todo.pop()
                    with path.open("rb") as stream:
                        child = Child.start(node, self.argv(node), stream, limit + CONNECT + GRACE)
                    running[node] = (child, tries)
                ended = [pair for pair in running.values() if pair[0].done()]
                for child, tries in ended:
                    del running[child.node]
                    child.close()
                    unreached = child.process.returncode == 255 and not child.out.total and not child.asked
                    if unreached and tries < self.retries:
                        todo.insert(0, (child.node, tries + 1))
                    else:
                        yield self._outcome(child, tries, limit)
                if not ended:
                    time.sleep(_TICK)
        finally:
            end_all([child for child, _ in running.values()])
            path.unlink(missing_ok=True)

    @staticmethod
    def _outcome(child: Child, tries: int, limit: float) -> Outcome:
        if child.asked:
            return Outcome(child.node, None, f"no answer within {limit:g} s")
        if child.process.returncode == 255 and not child.out.total:
            why = child.complaint() or "ssh could not reach it"
            return Outcome(child.node, None, f"{why} ({tries + 1} attempts)" if tries else why)
        output = bytes(child.out.kept)
        if f"{FRAME} begin".encode() not in output and child.process.returncode:
            return Outcome(child.node, None, f"exit {child.process.returncode}: {child.complaint()}".rstrip(": "))
        if child.out.cut:
            return Outcome(child.node, None, child.out.cut)
        return Outcome(child.node, output)


# --- srun


@dataclass
class Srun:
    """One `srun` over all nodes, a task on each; it labels the lines, and each node says its name.

    Attributes:
        spec: the list of nodes as Slurm writes it.
    """

    nodes: list[str]
    spec: str

    def argv(self) -> list[str]:
        """The command: inside an allocation beside its job (`--overlap`), outside of one at once or not at all."""
        n = len(self.nodes)
        inside = ["--overlap"] if os.environ.get("SLURM_JOB_ID") else [f"--immediate={CONNECT}"]
        return ["srun", f"--nodes={n}", f"--ntasks={n}", "--ntasks-per-node=1", f"--nodelist={self.spec}", "--label",
                "--no-kill", "--kill-on-bad-exit=0", "--wait=0", *inside, "sh", "-s"]  # fmt: skip

    def commands(self) -> list[str]:
        """See `Launcher`."""
        return [" ".join(self.argv())]

    def run(self, script: str, limit: float) -> Iterator[Outcome]:
        """See `Launcher`."""
        path = _script_file(script)
        told: set[str] = set()
        child: Child | None = None
        try:
            with path.open("rb") as stream:
                child = Child.start("srun", self.argv(), stream, limit + CONNECT + GRACE, 8 * CAP)
            over = False
            while not over:
                over = child.done()
                if over:
                    child.close()
                if over or child.out.kept.count(END) > len(told):
                    for node, output in self._parted(bytes(child.out.kept)):
                        if node not in told and (over or END in output):
                            told.add(node)
                            yield Outcome(node, output)
                time.sleep(0 if over else 4 * _TICK)
        finally:
            if child is not None and child.process.poll() is None:
                end_all([child])
            path.unlink(missing_ok=True)
        for node in self.nodes:
            if node not in told:
                yield Outcome(node, None, self._why(child, node, limit))

    def _parted(self, output: bytes) -> Iterator[tuple[str, bytes]]:
        """Output by node; a task whose script never began is left out."""
        parts: dict[bytes, list[bytes]] = {}
        for label, line in _LABEL.findall(output):
            parts.setdefault(label, []).append(line)
        known = {n.partition(".")[0]: n for n in self.nodes} | {n: n for n in self.nodes}
        for lines in parts.values():
            begun = next((ln for ln in lines if ln.startswith(f"{FRAME} begin ".encode())), b"")
            name = begun.decode("utf-8", "replace").rpartition(" ")[2]
            node = known.get(name) or known.get(name.partition(".")[0])
            if node:
                yield node, b"\n".join(lines)

    @staticmethod
    def _why(child: Child, node: str, limit: float) -> str:
        lines = bytes(child.err.kept).decode("utf-8", "replace").splitlines()
        named = [ln for ln in lines if re.search(rf"(?<![\w.-]){re.escape(node)}(?![\w-])", ln)]
        if named:
            return mask(named[-1].strip()[:200])
        if child.asked:
            return f"no answer within {limit:g} s"
        return child.complaint() or f"srun ended with exit {child.process.returncode} and nothing from this node"


def slurm_nodes(spec: str) -> Srun:
    """Nodes of the named list, or of the allocation this runs in. Raises UsageError."""
    spec = spec or os.environ.get("SLURM_JOB_NODELIST", "") or os.environ.get("SLURM_NODELIST", "")
    if not spec:
        raise UsageError(
            "no Slurm allocation here", "run it inside salloc or sbatch, or name the nodes: --fleet 'slurm:node[01-04]'"
        )
    return Srun(hostlist.expand(spec), spec)
