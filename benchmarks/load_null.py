"""Null test of the embedded load generator: a stub with known delays must come back as those delays.

``python benchmarks/load_null.py [--rates 5,20,50] [--ttft 50] [--gap 10]``. Per rate: the median TTFT and TPOT beside
what the stub was told, what it says it did, and the generator's own check. A run that the check calls invalid is made
again, a few times, since a busy machine disturbs both sides. Ends with 1 if a valid run is off by more than a
millisecond, or none is valid.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from diagnose.bench.embedded import Embedded
from diagnose.bench.records import Load

STUB = Path(__file__).parents[1] / "tests" / "stub_openai.py"
CHUNKS = 16
BOUND_MS = 1.0


def told(url: str, skip: int) -> tuple[float, int]:
    """Median first delay (ms) that the stub says it made since `skip` answers, and how many answers there are."""
    with urlopen(f"{url}/stub/delays", timeout=10) as response:
        delays = json.loads(response.read())
    return statistics.median(d[0] for d in delays[skip:]) * 1000, len(delays)


def main() -> int:
    """Print a row a rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="5,20,50")
    parser.add_argument("--ttft", type=float, default=50.0, help="ms")
    parser.add_argument("--gap", type=float, default=10.0, help="ms")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--tries", type=int, default=4)
    args = parser.parse_args()
    command = [sys.executable, str(STUB), "--ttft", str(args.ttft / 1000), "--gap", str(args.gap / 1000)]
    stub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bad = 0
    try:
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{stub.stdout.readline().strip()}"
        own = Embedded(url)
        skip = told(url, 0)[1]
        heads = ("req/s", "TTFT p50", "error", "stub did", "TPOT p50", "error", "lag p99", "CPU", "self-check")
        print("{:>6} {:>9} {:>7} {:>9} {:>9} {:>7} {:>8} {:>5}  {}".format(*heads))
        for rate in (float(r) for r in args.rates.split(",")):
            for _ in range(args.tries):
                data = own.measure(Load(input=64, output=CHUNKS, rate=rate, num=args.num)).data
                did, skip = told(url, skip)
                ttft, tpot, check = data["median_ttft_ms"], data["median_tpot_ms"], data["self_check"]
                print(
                    f"{rate:6g} {ttft:9.2f} {ttft - args.ttft:+7.2f} {did:9.2f} {tpot:9.2f} {tpot - args.gap:+7.2f} "
                    f"{check['send_lag_ms']['p99']:8.2f} {check['cpu_of_one_core']:5.0%}  "
                    f"{'valid' if check['valid'] else 'invalid: ' + '; '.join(check['reasons'])}",
                    flush=True,
                )
                if check["valid"]:
                    bad += abs(ttft - args.ttft) > BOUND_MS
                    break
            else:
                bad += 1
        own.close()
    finally:
        stub.kill()
        stub.wait()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
