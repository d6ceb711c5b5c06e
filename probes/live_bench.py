"""Copies and peer copies of this machine, by our own microbenchmarks (no nvbandwidth needed)."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.host import Host

from .live_nccl import gpu_count

_SECONDS = 20.0


def _argv(host: Host, names: str) -> list[str]:
    gpu = host.params.get("device", "0")
    return ["python", "-P", "-m", "diagnose.cli", "microbench", "--allow", "load", "--gpu", gpu, "--only", names,
            "--format", "json"]  # fmt: skip


def _copies_ready(host: Host) -> str | None:
    return None if gpu_count() else "no NVIDIA GPU is visible here"


def _peer_ready(host: Host) -> str | None:
    count = gpu_count()
    return None if count > 1 else f"a peer copy needs two GPUs; this machine shows {count or 'none'}"


def _run(host: Host, probe: str, names: str) -> Iterator[Collected]:
    ran = host.run(_argv(host, names), timeout=120, merge=False)
    if ran.output.lstrip()[:1] == b"{":
        yield Capture.of(probe, ran)
    else:
        yield NotCaptured(probe, f"the microbenchmark gave no result (exit {ran.status})")


def _copies(host: Host) -> Iterator[Collected]:
    yield from _run(host, "copy.bench", "host,overlap")


def _peer(host: Host) -> Iterator[Collected]:
    yield from _run(host, "p2p.test", "peer")


COLLECTORS = (
    Collector("copy.bench", _copies_ready, _copies, seconds=lambda host: _SECONDS,
              commands=lambda host: [" ".join(_argv(host, "host,overlap"))]),
    Collector("p2p.test", _peer_ready, _peer, seconds=lambda host: _SECONDS,
              commands=lambda host: [" ".join(_argv(host, "peer"))]),
)  # fmt: skip
