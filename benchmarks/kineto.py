"""CPU time and memory of the Kineto reader: ``python benchmarks/kineto.py TRACE.json[.gz] [--grow 190]``.

`--grow` repeats the events of a small trace until the file has that many MB, with shifted times and correlations.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import tempfile
import time
from pathlib import Path

from diagnose.probes.kineto import KinetoReader

from diagnose.document import Document


def grown(source: bytes, megabytes: int, target: Path) -> None:
    """Write a trace of about the given size to `target`."""
    trace = json.loads(source)
    rows = trace.pop("traceEvents")
    times = [r["ts"] for r in rows if isinstance(r.get("ts"), (int, float))]
    period = max(times) - min(times) + 1e5
    with target.open("w") as out:
        out.write(json.dumps(trace)[:-1] + ', "traceEvents": [\n')
        turn = 0
        while out.tell() < megabytes * 1_000_000:
            for row in rows:
                row = dict(row)
                if "ts" in row:
                    row["ts"] += turn * period
                args = row.get("args")
                if isinstance(args, dict) and "correlation" in args:
                    row["args"] = {**args, "correlation": args["correlation"] + turn * 10_000_000}
                out.write((",\n" if out.tell() > len(json.dumps(trace)) + 20 else "") + json.dumps(row, indent=1))
            turn += 1
        out.write("\n]}")


def main() -> None:
    """Read the trace once and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--grow", type=int, default=0, help="MB")
    options = parser.parse_args()
    raw = options.trace.read_bytes()
    data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "trace.json"
        if options.grow:
            grown(data, options.grow, place)
        else:
            place.write_bytes(data)
        del raw, data
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        document = Document(place.name, lambda: place.open("rb"), place.stat().st_size, "")
        start = time.process_time()
        facts = list(KinetoReader().parse(document))
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{document.size / 1e6:.0f} MB: {seconds:.1f} CPU s, {peak / 1024:.0f} MiB peak "
        f"({before / 1024:.0f} before), {len(facts)} facts"
    )


if __name__ == "__main__":
    main()
