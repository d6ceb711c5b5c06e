"""The server's own account of a run: its metrics before and after, as differences of sums and counts."""

from __future__ import annotations

import re
from typing import Any

from .wire import Client, WireError

# a stage by its name in the engines' histograms, in seconds
_STAGES = (
    "time_to_first_token_seconds", "request_queue_time_seconds", "queue_time_seconds", "request_prefill_time_seconds",
    "request_decode_time_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
)  # fmt: skip
_COUNTERS = ("num_preemptions_total", "prefix_cache_hits_total", "prefix_cache_queries_total")
_ROW = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+([0-9.eE+-]+|NaN)(?:\s+\d+)?$", re.MULTILINE)


async def scrape(client: Client) -> str:
    """The text of /metrics, or nothing where there is none."""
    try:
        response = await client.get("/metrics", 5.0)
    except WireError:
        return ""
    text = response.body.decode("utf-8", "replace")
    return text if response.status == 200 and "# TYPE" in text else ""


def _sums(text: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for hit in _ROW.finditer(text):
        if not hit[1].endswith("_bucket"):
            out[hit[1]] = out.get(hit[1], 0.0) + float(hit[2])
    return out


def account(before: str, after: str) -> dict[str, Any] | None:
    """Means over the window of every known stage; a counter that went back is a restart and gives nothing."""
    if not before or not after:
        return None
    old, new = _sums(before), _sums(after)
    delta = {k: v - old.get(k, 0.0) for k, v in new.items()}
    out: dict[str, Any] = {}
    for name in sorted(delta):
        stem = name.removesuffix("_count")
        if name != stem and stem.endswith(_STAGES) and delta[name] > 0 and delta.get(f"{stem}_sum", -1.0) >= 0:
            out[stem] = {"observations": int(delta[name]), "average_ms": delta[f"{stem}_sum"] / delta[name] * 1000}
        elif name.endswith(_COUNTERS) and delta[name] >= 0:
            out[name] = {"difference": delta[name]}
    return out or None
