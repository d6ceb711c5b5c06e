"""Failures that end with the process they hit: once they are long past, they explain nothing of today."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of failure.

    Attributes:
        words: literals of its lines, one of which stands in each. over: words of lines that end the state.
        signals: beginnings of the names of what is read from its lines.
        asks: words of a question about such a failure itself, however old.
    """

    words: tuple[str, ...]
    signals: tuple[str, ...]
    asks: str = ""
    over: tuple[str, ...] = ()


_MEMORY = r"memory|\boom|kill|died?\b|dies\b|crash|restart|内存|显存|崩|重启"
_HANGS = r"hang|hung|stuck|time[- ]?d? ?out|timeout|crash|died?\b|dies\b|fail|abort|卡住|卡死|超时|挂|崩"
KINDS = {
    "gpu memory": Kind(
        ("CUDA out of memory", "OutOfMemoryError", "Tried to allocate"), ("gpu.oom.", "gpu.mark.oom"),
        _MEMORY,
    ),
    "host memory": Kind(
        ("OOMKilled", "oom-kill", "Out of memory: Kill", "Killed process", "oom_reaper"),
        ("host.oom_kill", "host.mark.oomkilled", "host.mark.exit_137"), _MEMORY,
    ),
    "watchdog": Kind(
        ("Watchdog caught collective", "collective operation timeout"), ("torch.mark.watchdog",), _HANGS
    ),
    "transport": Kind(
        ("Got completion", "transport retry counter"), ("nccl.mark.ib_retry", "nccl.first_error", "nccl.warn"),
        _HANGS,
    ),
    "link": Kind(
        ("Link down", "Link is Down", "lost carrier", "carrier lost", "Lost carrier"), ("net.mark.link_down",),
        over=("Link up", "Link is Up", "gained carrier", "Gained carrier", "carrier acquired"),
    ),
    "scheduler": Kind(("FailedScheduling", "Insufficient nvidia.com"), ("env.mark.unschedulable",)),
}  # fmt: skip
LONG = 86400.0  # seconds to the end of a log from which a failure in it is long past
