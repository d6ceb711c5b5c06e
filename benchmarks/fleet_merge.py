"""Merge and rank the audits of many nodes: ``python benchmarks/fleet_merge.py [--nodes 1000] [--seed 1]``.

The audits are made from one recorded machine with small variations and some planted faults; they are marked
simulated and stand for the amount of work, not for what fleets look like. Prints seconds and peak memory, and
whether exactly the planted nodes were named.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diagnose import audit, fleet, fleet_screen

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "cassettes" / "h100x2-idle.cassette"
FAULTS = {  # of a node: signal, subject, value
    17: ("gpu.temperature", "gpu 1", 93.0),
    404: ("nvlink.links", "gpu 0", 12.0),
    500: ("version", "label driver", "570.86.15"),
    733: ("gpu.power.limit", "gpu 0", 500.0),
}
LIMIT_SECONDS, LIMIT_MIB = 10.0, 500.0


def varied(made: dict[str, Any], number: int, draw: random.Random) -> dict[str, Any]:
    """A copy whose readings of the moment differ a little, with the fault planted for this node."""
    planted = FAULTS.get(number)
    readings = []
    for reading in made["readings"]:
        value = reading["value"]
        if reading["signal"] in audit.MOMENT and isinstance(value, float) and value:
            value = round(value * draw.gauss(1.0, 0.02), 3)
        if planted is not None and planted[:2] == (reading["signal"], reading["subject"]):
            value = planted[2]
        readings.append({**reading, "value": value})
    return {**made, "readings": readings, "machine": "simulated"}


def main() -> int:
    """Generate, merge, rank, print; 1 where a limit is missed or the wrong nodes are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = json.loads(audit.audit(audit.opened([], str(RECORDED)), audit.Options()).model_dump_json(by_alias=True))
        for n in range(given.nodes):
            (folder / f"node{n:04d}.json").write_text(json.dumps(varied(made, n, draw)))
        size = sum(p.stat().st_size for p in folder.iterdir()) / 2**20
        begin, cpu = time.monotonic(), time.process_time()
        merged = fleet.merged(fleet.read_all(fleet.entries(folder), audit.Options()), [])
        page = fleet_screen.page(merged, "en", markdown=False)
        wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    named = {o.node for o in merged.outliers} | {n for m in merged.mixed for who in m.others.values() for n in who}
    planted = {f"node{n:04d}" for n in FAULTS if n < given.nodes}
    print(f"{given.nodes} simulated audits, {size:.0f} MiB: {wall:.2f} s, {cpu:.2f} CPU s, peak {peak:.0f} MiB")
    print(f"named: {', '.join(sorted(named))} (planted: {', '.join(sorted(planted))}); page of {len(page)} characters")
    return int(named != planted or wall > LIMIT_SECONDS or peak > LIMIT_MIB)


if __name__ == "__main__":
    sys.exit(main())
