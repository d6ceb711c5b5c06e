"""This machine as collectors see it: programs, files, the environment, HTTP. Tests put another in its place.

`root` lets a recorded tree (``--sysfs-root``) stand in for ``/sys`` and ``/proc``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import runner
from .runner import Ran

GPU_NODES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost*")  # NVIDIA, AMD, WSL2, Jetson
FILE_CAP = 1 << 20  # bytes of one file that is read
SIMULATED = ".simulated"


def _entries(path: Path) -> list[str]:
    """The entries of an ``environ`` file: separated by NUL as the kernel writes it, or one a line."""
    try:
        text = path.read_bytes()[:FILE_CAP].decode("utf-8", "replace")
    except OSError:
        return []
    return [item for item in text.replace("\0", "\n").splitlines() if item]


@dataclass
class Host:
    """The machine a probe looks at.

    Attributes:
        params: what the user said: ``endpoint``, ``prometheus``, ``model``, ``gpu``, ``pid``, ``peer``, ``command`` …
        root: prefix for absolute paths; "/" is this machine itself.
        earlier: an earlier snapshot of the same tree, for counters: a recorded tree may hold ``t0/`` and ``t1/``.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path("/")
    earlier: Path | None = None
    left_out: frozenset[str] = frozenset()  # variables of the environment that children do not get

    @classmethod
    def at(cls, params: Mapping[str, str], root: Path) -> Host:
        """A machine, or a recorded tree: with two snapshots the later one is looked at, beside the earlier one."""
        if (root / "t0").is_dir() and (root / "t1").is_dir():
            return cls(params, root / "t1", root / "t0")
        return cls(params, root)

    @property
    def recorded(self) -> bool:
        """Is it a tree of files in place of this machine?"""
        return self.root != Path("/")

    @property
    def taint(self) -> tuple[str, ...]:
        """What every capture of it is marked with; a tree that was made up holds a file ``.simulated``."""
        if not self.recorded:
            return ("live",)
        made_up = any((p / SIMULATED).exists() for p in (self.root, self.root.parent if self.earlier else self.root))
        return ("recorded", "simulated") if made_up else ("recorded",)

    def without(self, names: Iterable[str]) -> Host:
        """The same machine, with variables left out for whatever it runs."""
        return replace(self, left_out=self.left_out | frozenset(names))

    def find(self, tool: str) -> str | None:
        """Path of a program, or None; none belongs to a recorded tree."""
        return None if self.recorded else runner.find(tool)

    def run(
        self, argv: Sequence[str], *, timeout: float = 10.0, env: Mapping[str, str] | None = None, merge: bool = True
    ) -> Ran:
        """See `runner.run`."""
        return runner.run(argv, timeout=timeout, env=env, merge=merge, without=self.left_out)

    def glob(self, pattern: str) -> list[Path]:
        """Existing paths for an absolute pattern, sorted; a link that leads out of a recorded tree is none of its."""
        if not any(c in pattern for c in "*?["):
            path = self.root / pattern.lstrip("/")
            found = [path] if path.exists() else []
        else:
            try:
                found = sorted(self.root.glob(pattern.lstrip("/")))
            except OSError:
                return []
        return [path for path in found if self._inside(path)] if self.recorded else found

    def _inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):  # a loop of links
            return False

    def real(self, path: Path) -> str:
        """Where a path leads, as the machine itself calls it."""
        if not self.recorded:
            return str(path.resolve())
        return "/" + path.resolve().relative_to(self.root.resolve()).as_posix()

    def shown(self, path: Path) -> str:
        """A path as the machine itself calls it."""
        return "/" + path.relative_to(self.root).as_posix() if self.recorded else str(path)

    def files(self, patterns: Iterable[str]) -> bytes:
        """Contents of text files: ``path:line`` for a file of one line, ``==> path <==`` before a longer one.

        That is how ``grep -H .`` and ``tail`` print them, so the same readers serve both. Unreadable ones are left out.
        """
        out = bytearray()
        for path in (p for pattern in patterns for p in self.glob(pattern)):
            try:
                with path.open("rb") as stream:
                    text = stream.read(FILE_CAP)
            except OSError:
                continue
            name = self.shown(path).encode()
            body = text.rstrip(b"\n\0")
            if b"\n" in body:
                out += b"==> %s <==\n%s\n\n" % (name, body)
            elif body:
                out += b"%s:%s\n" % (name, body)
        return bytes(out)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of this process, less what is left out; of a recorded tree its ``/proc/self/environ``."""
        if self.recorded:
            pairs = (item.partition("=") for path in self.glob("/proc/self/environ") for item in _entries(path))
            return {name: value for name, eq, value in pairs if eq}
        return {name: value for name, value in os.environ.items() if name not in self.left_out}
