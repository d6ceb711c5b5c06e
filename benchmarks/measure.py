"""CPU seconds and peak memory of a piece of work, each in a process of its own so that peaks do not mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# around any program: what it and its children used
_AROUND = (
    "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE);"
    "use = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(json.dumps([use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, done.returncode, done.stdout.decode()]))"
)


@dataclass(frozen=True)
class Cost:
    """CPU seconds (median and least of the runs), the least peak in MiB, what the last run printed."""

    seconds: float
    least: float
    mib: float
    said: str


def cost(command: Sequence[str], runs: int = 1, env: Mapping[str, str] | None = None) -> Cost:
    """What a program costs, children and interpreter start included."""
    seen = []
    for _ in range(runs):
        got = subprocess.run(
            [sys.executable, "-c", _AROUND, *command], capture_output=True, text=True, check=True, env=env
        )
        seconds, mib, status, said = json.loads(got.stdout)
        if status:
            raise SystemExit(f"{' '.join(command)[:200]} ended with {status}\n{got.stderr[-2000:]}")
        seen.append((seconds, mib, said))
    times = [s for s, _, _ in seen]
    return Cost(median(times), min(times), min(m for _, m, _ in seen), seen[-1][2])


def warm() -> tuple[dict[str, str], tempfile.TemporaryDirectory[str]]:
    """An environment in which bytecode is kept, as it is for an installed tool, and the folder it is kept in."""
    folder = tempfile.TemporaryDirectory()
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": folder.name}, folder
