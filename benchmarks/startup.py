"""CPU time and memory of short calls beside a bare interpreter: ``python benchmarks/startup.py [--runs 5]``.

`--torch PYTHON` adds `torch.utils.collect_env` of that interpreter (this one's, where it has torch). The median of
several runs is printed, and the least: a busy machine only ever adds to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from measure import cost, warm

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


def main() -> None:
    """Print one row a call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--torch", default=sys.executable if find_spec("torch") else "", help="a Python with torch")
    options = parser.parse_args()
    diagnose = [sys.executable, "-m", "diagnose.cli"]
    env, kept = warm()
    with kept, tempfile.TemporaryDirectory() as folder:
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
        if options.torch:
            rows["python -m torch.utils.collect_env (reference)"] = [options.torch, "-m", "torch.utils.collect_env"]
        for name, command in rows.items():
            cost(command, env=env)  # fills the bytecode cache
            got = cost(command, options.runs, env)
            print(f"{name:50s} {got.seconds:5.2f} CPU s (least {got.least:.2f})  {got.mib:5.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
