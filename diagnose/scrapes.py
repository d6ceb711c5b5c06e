"""Pages of metrics as a live run takes them: which engine, what moved between two of them, and the text to keep."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .probes.served import SCRAPE
from .probes.serving_names import GAUGES

FULL = 1 << 20  # pages up to this size are kept as they are
# what a page's series start with, and which engine that is; a frontend's own name comes before its engine's
_ENGINES = (
    ("dynamo_frontend_", "dynamo"), ("vllm:", "vllm"), ("sglang:", "sglang"), ("smg_", "sglang-router"),
    ("trtllm_", "tensorrt-llm"), ("nv_trt_llm_", "tensorrt-llm"), ("tgi_", "tgi"), ("lmdeploy:", "lmdeploy"),
    ("llamacpp:", "llama.cpp"), ("dynamo_component_", "dynamo"), ("nv_inference_", "triton"),
)  # fmt: skip
FAMILIES = tuple(start for start, _ in _ENGINES)
_KEPT = (*FAMILIES, "dynamo_", "process_", "http_request")
_ROW = re.compile(
    rb"^([A-Za-z_:][\w:]*(?:\{[^\n]*\})?)[ \t]+([0-9.eE+-]+|[+-]?Inf|NaN)(?:[ \t]+-?\d+)?[ \t]*\r?$", re.M
)
_COUNTS = re.compile(rb"(?:_total|_count|_sum|_bucket)(?:\{|$)")
# counters that rise when a request comes or ends
_REQUESTS = re.compile(
    rb"(?:time_to_first_token_seconds_count|request_success(?:_total)?|[_:]requests(?:_started)?_total|num_requests_total"
    rb"|e2e_request_latency_seconds_count|request_(?:count|duration(?:_seconds)?_count)|prompt_tokens_total)(?:\{|$)"
)
_LOOKS = re.compile(rb"method=\"(?:GET|HEAD|OPTIONS)\"")
_BUSY = re.compile(
    rb"(?:num_requests_(?:running|waiting)|num_(?:running|queue)_reqs|(?:inflight|active|queued)_requests"
    rb"|tgi_(?:queue|batch_current)_size)(?:\{|$)"
)
_START = b"process_start_time_seconds"


@lru_cache(maxsize=1)
def _gauges() -> frozenset[str]:
    return frozenset(name.partition("@")[0] for name in GAUGES)


@dataclass(frozen=True)
class Page:
    """One page of metrics, when and where it was taken."""

    body: bytes
    place: str
    at: float

    @cached_property
    def rows(self) -> dict[bytes, float]:
        """Series and their values."""
        return {key: float(value) for key, value in _ROW.findall(self.body)}

    @property
    def engine(self) -> str:
        """Which server counts like this; "" is none that is known."""
        return next((name for start, name in _ENGINES if _has(self.body, start)), "")

    @property
    def busy(self) -> float:
        """Requests that run or wait."""
        return sum(value for key, value in self.rows.items() if _BUSY.search(key) and value == value)

    def reset_since(self, before: Page) -> bool:
        """Did counters go back: another process, or the same one started again?"""
        for key, value in self.rows.items():
            old = before.rows.get(key)
            if old is None:
                continue
            if key.startswith(_START) and abs(value - old) > 1:
                return True
            if value < old and _COUNTS.search(key):
                return True
        return False

    def requests_since(self, before: Page) -> float:
        """How far the busiest counter of requests went on; who only looks (a monitor, this tool) is no request."""
        return max(
            (
                v - before.rows.get(k, 0.0)
                for k, v in self.rows.items()
                if _REQUESTS.search(k) and not _LOOKS.search(k) and v == v
            ),
            default=0.0,
        )

    def first_series(self) -> str:
        """The first name on the page, to say what it is when it is not known."""
        return next(iter(self.rows), b"nothing").decode("ascii", "replace")[:60]

    def kept(self, part: str) -> tuple[bytes, str | None]:
        """The page as it is kept, and what was left out: a large one keeps the families of inference servers."""
        head = header(self.place, self.at, part)
        if len(self.body) <= FULL:
            return head + self.body, None
        lines = self.body.splitlines(keepends=True)
        starts = tuple(f.encode() for f in _KEPT)
        some = [line for line in lines if line.startswith(starts)]
        cut = f"{len(some)} of {len(lines)} lines: what inference servers count"
        return head + b"".join(some), cut if len(some) < len(lines) else None

    def gauges(self) -> bytes:
        """The lines of gauges that readers know: a page of a timeline."""
        known = _gauges()
        lines = [
            m.group() for m in _ROW.finditer(self.body) if m[1].partition(b"{")[0].decode("ascii", "replace") in known
        ]
        return b"".join(line.rstrip(b"\r") + b"\n" for line in lines)


def _has(body: bytes, start: str) -> bool:
    raw = start.encode()
    return body.startswith(raw) or b"\n" + raw in body


def header(place: str, at: float, part: str) -> bytes:
    """The first line of a page that is kept."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    return f"{SCRAPE}{place} at {at:.3f} ({when}), {part}\n".encode()


def timeline(pages: Iterable[tuple[float, bytes]], place: str) -> bytes:
    """Gauges of several moments, one after the other."""
    out = bytearray()
    for at, text in pages:
        out += header(place, at, "gauges") if not out else b"# at %.3f\n" % at
        out += text
    return bytes(out)
