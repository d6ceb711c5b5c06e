"""Failures that end with the process they hit: once they are long past, they explain nothing of today."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure.

    Attributes:
        words: literals of its lines, one of which stands in each. over: words of lines that end the state.
        signals: beginnings of the names of what is read from its lines.
        asks: questions that are about such a failure itself, however old.
    """

    words: tuple[str, ...]
    signals: tuple[str, ...]
    asks: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


KINDS = {
    "gpu memory": Kind(
        ("CUDA out of memory", "OutOfMemoryError", "Tried to allocate"), ("gpu.oom.", "gpu.mark.oom"),
        ("out-of-memory",),
    ),
    "host memory": Kind(
        ("OOMKilled", "oom-kill", "Out of memory: Kill", "Killed process", "oom_reaper"),
        ("host.oom_kill", "host.mark.oomkilled", "host.mark.exit_137"), ("out-of-memory",),
    ),
    "watchdog": Kind(
        ("Watchdog caught collective", "collective operation timeout"), ("torch.mark.watchdog",), ("collective-hang",)
    ),
    "transport": Kind(
        ("Got completion", "transport retry counter"), ("nccl.mark.ib_retry", "nccl.mark.completion"),
        ("collective-hang",),
    ),
    "link": Kind(
        ("Link down", "Link is Down", "lost carrier", "carrier lost", "Lost carrier"), ("net.mark.link_down",),
        over=("Link up", "Link is Up", "gained carrier", "Gained carrier", "carrier acquired"),
    ),
    "scheduler": Kind(("FailedScheduling", "Insufficient nvidia.com"), ("env.mark.unschedulable",)),
}  # fmt: skip
LONG = 86400.0  # seconds to the end of a log from which a failure in it is long past
