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
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from . import hostlist
from .errors import PermissionDenied, ToolMissing, UsageError
from .fleet_payload import CAP, FRAME
from .mask import mask
from .runner import POSIX, Sink, run

AT_ONCE = 32  # ssh processes side by side
CONNECT = 10  # seconds for reaching a node
AGAIN = 40  # seconds until Slurm has freed the nodes of a step that did not start
GRACE = 5.0  # seconds beyond a node's own limit before its process is ended
KILL_AFTER = 2.0  # seconds between asking a process group to end and killing it
END = f"{FRAME} end".encode()
_TICK = 0.05
_LABEL = re.compile(rb"(?m)^ *(\d+): ?(.*)$")
_DOWN = re.compile(r"down|unk|inval|future|\*")  # also for a job that holds it; `*`: it does not answer
_CLOSED = re.compile(rf"{_DOWN.pattern}|drain|fail|maint|reboot|block")  # starts nothing new
_UNSTARTED = re.compile(r"(Task launch for .*? failed on node ([\w.-]+):[^\n]*)")
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
        """Start `argv` with `script` as its standard input.

        Raises:
            ToolMissing: the program is not installed.
        """
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

    def said(self) -> str:
        """What it wrote to standard error."""
        return bytes(self.err.kept).decode("utf-8", "replace")

    def complaint(self) -> str:
        """The last line of standard error that says something."""
        told = [line.strip() for line in self.said().splitlines() if not _NOISE.search(line)]
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
        """See `Launcher`. All names are checked before the first node is reached.

        Raises:
            UsageError: one is no host name.
            ToolMissing: ssh is not installed.
        """
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

    A node that Slurm knows to be down would have the whole step refused, and one that turns out to be dead at its start
    takes the others with it: the first is left out, after the second the others are started once more.

    Attributes:
        spec: the list of nodes as Slurm writes it.
    """

    nodes: list[str]
    spec: str

    def argv(self, nodes: Sequence[str] = (), wait: int = 0) -> list[str]:
        """The command: inside an allocation beside its job (`--overlap`), outside of one at once or not at all."""
        n, spec = len(nodes or self.nodes), ",".join(nodes) or self.spec
        inside = ["--overlap"] if os.environ.get("SLURM_JOB_ID") else [f"--immediate={wait or CONNECT}"]
        return ["srun", f"--nodes={n}", f"--ntasks={n}", "--ntasks-per-node=1", f"--nodelist={spec}", "--label",
                "--no-kill", "--kill-on-bad-exit=0", "--wait=0", *inside, "sh", "-s"]  # fmt: skip

    def commands(self) -> list[str]:
        """See `Launcher`."""
        return [" ".join(self.argv())]

    def run(self, script: str, limit: float) -> Iterator[Outcome]:
        """See `Launcher`."""
        out = self._unable()
        yield from (Outcome(node, None, why) for node, why in out.items())
        left = [n for n in self.nodes if n not in out]
        path = _script_file(script)
        try:
            for again in (False, True):
                if not left:
                    return
                told: set[str] = set()
                named = left if again or out else ()
                child = yield from self._step(named, path, limit, told, AGAIN if again else CONNECT)
                left = [n for n in left if n not in told]
                dead = {name: why for why, name in _UNSTARTED.findall(child.said())}
                if again or child.asked or not dead.keys() & set(left):
                    break
                yield from (Outcome(n, None, mask(dead[n].strip()[:200])) for n in left if n in dead)
                left = [n for n in left if n not in dead]
        finally:
            path.unlink(missing_ok=True)
        yield from (Outcome(node, None, self._why(child, node, limit)) for node in left)

    def _step(
        self, nodes: Sequence[str], path: Path, limit: float, told: set[str], wait: int
    ) -> Generator[Outcome, None, Child]:
        """One `srun`; `told` gets the nodes that answered."""
        with path.open("rb") as stream:
            child = Child.start("srun", self.argv(nodes, wait), stream, limit + wait + GRACE, 8 * CAP)
        try:
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
            if child.process.poll() is None:
                end_all([child])
        return child

    def _unable(self) -> dict[str, str]:
        """Nodes that Slurm itself says cannot start anything, with its reason; none where it cannot be asked."""
        inside = bool(os.environ.get("SLURM_JOB_ID"))
        try:
            ran = run(["sinfo", "--noheader", "--Node", f"--nodes={self.spec}", "--format=%N|%T|%E"], timeout=CONNECT)
        except (ToolMissing, PermissionDenied):
            return {}
        rows = [line.split("|", 2) for line in ran.output.decode("utf-8", "replace").splitlines()]
        states = {row[0].strip(): row[1:] for row in rows if len(row) == 3}
        if ran.status or not states:
            return {}
        out = {n: "Slurm knows no node of this name" for n in self.nodes if n not in states}
        for node, (state, reason) in states.items():
            if node in self.nodes and (_DOWN if inside else _CLOSED).search(state):
                why = "" if reason.strip() in ("none", "") else f": {reason.strip()}"
                out[node] = mask(f"Slurm has it as {state.rstrip('*~#!%$@^-+')}{why}"[:200])
        return out

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
        named = [ln for ln in child.said().splitlines() if re.search(rf"(?<![\w.-]){re.escape(node)}(?![\w-])", ln)]
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
