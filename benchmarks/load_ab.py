"""The embedded load generator beside `vllm bench serve`: A-B-A-B on one warm server, the same load for both.

``python benchmarks/load_ab.py --endpoint URL --tokenizer FOLDER [--rate 4] [--num 100]``. Requests come at equal
distances, so that both make the same schedule. Start the server without a prefix cache: `vllm bench serve` repeats
its prompts.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

from diagnose.bench.embedded import Embedded
from diagnose.bench.external import VllmBench
from diagnose.bench.records import Load
from diagnose.bench.server import account

BOUND = 0.03
FIGURES = ("median_ttft_ms", "median_tpot_ms", "mean_ttft_ms", "mean_tpot_ms", "p99_ttft_ms")


def metrics(endpoint: str) -> str:
    """The server's /metrics."""
    with urlopen(f"{endpoint}/metrics", timeout=10) as response:
        return str(response.read(), "utf-8")


def server_ttft(before: str, after: str) -> float:
    """Mean TTFT (ms) that the server saw in between; NaN if it does not say."""
    stages = account(before, after) or {}
    return next((s["average_ms"] for n, s in stages.items() if n.endswith("time_to_first_token_seconds")), math.nan)


def main() -> int:
    """Print a row a run, then the ratio of both tools' medians; 1 if they differ by more than 3 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--input", type=int, default=512)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    load = Load(args.input, args.output, args.rate, num=args.num, burstiness=math.inf, warmup=0)
    own = Embedded(args.endpoint)
    other = VllmBench(args.endpoint, own.target.model, own.target.api, args.tokenizer, None)
    seen: dict[str, list[dict[str, Any]]] = {own.name: [], other.name: []}
    print(f"engine {own.target.engine}, rate {args.rate:g}, {args.num} requests, {args.input} in, {args.output} out")
    heads = (*(f.removesuffix("_ms") for f in FIGURES), "server TTFT", "difference")
    print(f"{'':10}" + "".join(f"{h:>13}" for h in heads), " self-check")
    own.measure(replace(load, num=8, salt="first"))
    for number in range(args.rounds):
        for tool in (own, other):
            before = metrics(args.endpoint)
            data = tool.measure(replace(load, salt=str(number))).data
            data["server_ttft"] = server_ttft(before, metrics(args.endpoint))
            data["difference"] = data["mean_ttft_ms"] - data["server_ttft"]
            seen[tool.name].append(data)
            check = data.get("self_check") or {}
            note = "valid" if check.get("valid") else "; ".join(check.get("reasons", ["none"]))
            figures = [data.get(f) for f in (*FIGURES, "server_ttft", "difference")]
            row = "".join(f"{f:13.3f}" if f is not None else f"{'-':>13}" for f in figures)
            print(f"{tool.name:10}{row}  {note}, {data['completed']} of {data['num_prompts']}", flush=True)
    print(f"prompts of the embedded generator: {seen[own.name][0]['accounting']['prompt_tokens']}")
    bad = 0
    for figure in FIGURES[:2]:
        a, b = (statistics.median(d[figure] for d in seen[name]) for name in (own.name, other.name))
        bad += abs(a / b - 1) > BOUND
        print(f"{figure}: embedded {a:.3f}, vllm {b:.3f}, {a / b - 1:+.1%}")
    a, b = (statistics.median(d["difference"] for d in seen[name]) for name in (own.name, other.name))
    print(f"mean TTFT, client minus server, which leaves the server's own drift out: embedded {a:.3f}, vllm {b:.3f} ms")
    own.close()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
