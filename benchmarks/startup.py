"""CPU time and memory of short calls beside a bare interpreter: ``python benchmarks/startup.py [--runs 5]``.

The median of several runs is printed, and the least: a busy machine only ever adds to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

READINGS = """# backend: outlines
Throughput: 0.22 requests/s, 241.22 total tokens/s
First token latency(msecs):
count       10.000000
mean     38533.083248
# backend: xgrammar
Throughput: 0.94 requests/s, 1022.46 total tokens/s
First token latency(msecs):
count      10.000000
mean     4552.206317
"""
CHILD = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
    "use = resource.getrusage(resource.RUSAGE_CHILDREN); print(use.ru_utime + use.ru_stime, use.ru_maxrss)"
)


def cost(command: list[str], runs: int, cache: str) -> tuple[float, float, float]:
    """CPU seconds (median, least) and peak MiB of a command, over `runs` after one that fills the bytecode cache."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
    seen = []
    for _ in range(runs + 1):
        got = subprocess.run(
            [sys.executable, "-c", CHILD, *command], capture_output=True, text=True, check=True, env=env
        )
        seconds, peak = got.stdout.split()
        seen.append((float(seconds), int(peak) / 1024))
    warm = [s for s, _ in seen[1:]]
    return median(warm), min(warm), min(p for _, p in seen)


def main() -> None:
    """Print one row a call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    diagnose = [sys.executable, "-m", "diagnose.cli"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "readings.txt"
        place.write_text(READINGS)
        rows = {
            "python -c pass (reference)": [sys.executable, "-c", "pass"],
            "python -c 'import langgraph.graph' (reference)": [sys.executable, "-c", "import langgraph.graph"],
            "diagnose --help": [*diagnose, "--help"],
            "diagnose causes": [*diagnose, "causes"],
            "diagnose audit (this machine)": [*diagnose, "audit", "--fail-on", "never"],
            "diagnose 'first token slow' -e FILE": [*diagnose, "first token slow", "-e", str(place), "-f", "json"],
        }
        for name, command in rows.items():
            middle, least, peak = cost(command, runs, folder)
            print(f"{name:50s} {middle:5.2f} CPU s (least {least:.2f})  {peak:5.0f} MiB")


if __name__ == "__main__":
    main()
