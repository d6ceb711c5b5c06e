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


@dataclass
class Host:
    """The machine a probe looks at.

    Attributes:
        params: what the user said: ``endpoint``, ``prometheus``, ``model``, ``gpu``, ``pid``, ``peer``, ``command`` …
        root: prefix for absolute paths; "/" is this machine itself.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path("/")
    left_out: frozenset[str] = frozenset()  # variables of the environment that children do not get

    def without(self, names: Iterable[str]) -> Host:
        """The same machine, with variables left out for whatever it runs."""
        return replace(self, left_out=self.left_out | frozenset(names))

    def find(self, tool: str) -> str | None:
        """Path of a program, or None; none belongs to a recorded tree."""
        return runner.find(tool) if self.root == Path("/") else None

    def run(
        self, argv: Sequence[str], *, timeout: float = 10.0, env: Mapping[str, str] | None = None, merge: bool = True
    ) -> Ran:
        """See `runner.run`."""
        return runner.run(argv, timeout=timeout, env=env, merge=merge, without=self.left_out)

    def glob(self, pattern: str) -> list[Path]:
        """Existing paths for an absolute pattern, sorted."""
        if not any(c in pattern for c in "*?["):
            path = self.root / pattern.lstrip("/")
            return [path] if path.exists() else []
        try:
            return sorted(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []

    def shown(self, path: Path) -> str:
        """A path as the machine itself calls it."""
        return str(path) if self.root == Path("/") else "/" + str(path.relative_to(self.root))

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
        """The environment of this process, less what is left out."""
        return {name: value for name, value in os.environ.items() if name not in self.left_out}
