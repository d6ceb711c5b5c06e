"""The collecting half of a probe: what touches the machine, and returns captures.

Most probes are commands and files, declared as `run` in playbooks/probes/*.yaml. One that needs
Python is a `Collector` in a module of probes/, listed in `COLLECTING`:

    COLLECTORS = (Collector("server.metrics", ready, collect),)

`ready(host)` gives None, or the reason why it cannot run here; `collect(host)` yields captures.
Neither changes a setting of the machine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module

from .catalogue import catalogue
from .document import Document
from .entries import Command, ProbeSpec
from .errors import ProbeError, ToolMissing
from .host import Host
from .plugin import installed
from .runner import Ran

# Modules of probes/ with a `COLLECTORS`; imported only by a live run.
COLLECTING: tuple[str, ...] = (
    "live_host", "host_settings", "live_nccl", "live_profile", "live_ucx", "live_rdma", "live_nixl", "live_server",
    "live_client", "live_repeat", "live_bench", "live_clock", "pci_acs",
)  # fmt: skip


@dataclass(frozen=True)
class Capture:
    """Raw output with where it comes from.

    Attributes:
        probe: name of the probe. part: tells several captures of one probe apart ("", "topo -m", "window 2").
        params: what identifies the run beside the probe's name.
        argv: what ran, or () for files and requests. env: what differed. started: epoch seconds. status: exit status.
        cut: why it is not complete, or None.
        taint: ``live``, ``simulated`` …
    """

    probe: str
    data: bytes
    part: str = ""
    params: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0
    status: int | None = 0
    cut: str | None = None
    taint: tuple[str, ...] = ("live",)

    @property
    def sha256(self) -> str:
        """Of the bytes as they stand."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def name(self) -> str:
        """File name in a cassette: the probe, the part, and the parameters' hash where there are any."""
        words = "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{self.probe}.{self.part}".strip("."))
        if self.params:
            told = repr(sorted(self.params.items())).encode()
            words += "." + hashlib.sha256(told).hexdigest()[:8]
        return words[:120] + ".txt"

    def document(self) -> Document:
        """The capture as readers take it."""
        made = Document.of(self.name, self.data, tuple(sorted(self.taint)))
        made.cut = self.cut
        return made

    @classmethod
    def of(cls, probe: str, ran: Ran, part: str = "", params: dict[str, str] | None = None) -> Capture:
        """What a program printed."""
        return cls(
            probe, ran.output, part, params or {}, ran.argv, ran.env, ran.started, ran.seconds, ran.status, ran.cut
        )


@dataclass(frozen=True)
class NotCaptured:
    """A part of a probe that gave nothing, and why."""

    probe: str
    reason: str
    part: str = ""
    enable: str = ""


Collected = Capture | NotCaptured


@dataclass(frozen=True)
class Collector:
    """A probe's collecting half in Python."""

    probe: str
    ready: Callable[[Host], str | None]
    collect: Callable[[Host], Iterable[Collected]]
    # seconds it would take with this host's parameters; the declared ones where there is none
    seconds: Callable[[Host], float] | None = None
    commands: Callable[[Host], list[str]] | None = None  # for --dry-run
    files: bool = False  # it reads files only, all through the host, so that a recorded tree will do

    @property
    def spec(self) -> ProbeSpec:
        """What the catalogue says of it."""
        return catalogue().probes[self.probe]

    def cost(self, host: Host) -> float:
        """Expected seconds."""
        return self.seconds(host) if self.seconds else self.spec.seconds

    def shown(self, host: Host) -> list[str]:
        """What would be run, for consent and --dry-run."""
        return self.commands(host) if self.commands else [self.spec.command]


@dataclass(frozen=True)
class _Declared:
    """Commands and files of a probe in data."""

    spec: ProbeSpec

    def ready(self, host: Host) -> str | None:
        """Ready when any part can run."""
        reasons = [why for part in self.spec.run if (why := _missing(part, host)) is not None]
        if len(reasons) < len(self.spec.run):
            return None
        return "; ".join(dict.fromkeys(reasons))

    def collect(self, host: Host) -> Iterator[Collected]:
        """Run each part; one that cannot run says so and does not stop the others."""
        for part in self.spec.run:
            if (why := _missing(part, host)) is not None:
                yield NotCaptured(self.spec.name, why, part.label)
            elif part.argv:
                try:
                    ran = host.run(part.argv, timeout=part.timeout)
                except ProbeError as err:
                    yield NotCaptured(self.spec.name, err.message, part.label)
                    continue
                if ran.output.strip():
                    yield Capture.of(self.spec.name, ran, part.label)
                else:
                    yield NotCaptured(self.spec.name, f"{part.argv[0]} printed nothing (exit {ran.status})", part.label)
            else:
                started = time.time()
                data = host.files(part.files)
                yield Capture(
                    self.spec.name, data, part.label, started=started, seconds=round(time.time() - started, 3)
                )

    def commands(self, host: Host) -> list[str]:
        """One line a part."""
        return [part.shown for part in self.spec.run]


def _missing(part: Command, host: Host) -> str | None:
    """Why a part cannot run here, or None."""
    if part.argv:
        return None if host.find(part.argv[0]) else f"{part.argv[0]} is not installed here"
    if not any(host.glob(p) for p in part.files):
        return f"there is no {part.files[0]} here"
    return None


def declared(spec: ProbeSpec) -> Collector:
    """The collector of a probe whose commands and files are data."""
    made = _Declared(spec)
    return Collector(spec.name, made.ready, made.collect, commands=made.commands, files=True)


@lru_cache(maxsize=1)
def collectors() -> dict[str, Collector]:
    """All collectors by probe: those in data, then built-in and installed Python ones (which win)."""
    found: dict[str, Collector] = {}
    for spec in catalogue().probes.values():
        if spec.run:
            found[spec.name] = declared(spec)
    for module in COLLECTING:
        for item in import_module(f"diagnose.probes.{module}").COLLECTORS:
            found[item.probe] = item
    for made in installed("diagnose.collectors")[0]:
        found.update({item.probe: item for item in made})
    return {name: item if item.files else _guarded(item) for name, item in found.items()}


def _guarded(item: Collector) -> Collector:
    """A collector that asks the machine itself stays away from a recorded tree, which is another machine's."""

    def ready(host: Host) -> str | None:
        return "a recorded tree holds files only; this needs the machine itself" if host.recorded else item.ready(host)

    return replace(item, ready=ready)


def collect(collector: Collector, host: Host) -> list[Collected]:
    """Run one collector; what goes wrong becomes a `NotCaptured`, never an exception."""
    why = collector.ready(host)
    if why is not None:
        return [NotCaptured(collector.probe, why, enable=collector.spec.enable)]
    out: list[Collected] = []
    try:
        for item in collector.collect(host):
            if host.recorded and isinstance(item, Capture):
                item = replace(item, taint=host.taint)
            out.append(item)
    except ToolMissing as err:
        out.append(NotCaptured(collector.probe, err.message, enable=collector.spec.enable))
    except ProbeError as err:
        out.append(NotCaptured(collector.probe, err.message))
    except OSError as err:
        out.append(NotCaptured(collector.probe, f"{err.strerror or err}"))
    return out
