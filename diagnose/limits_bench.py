"""Ceilings that were measured on this GPU: microbenchmarks beside their limits, kernels beside microbenchmarks."""

from __future__ import annotations

from .lazy import regex
from .limits_base import TOLERANCE, Book
from .models import Evidence

_HEADLINES = ("copy", "fma", "tensor_wgmma", "tensor_mma", "matmul_torch", "shared_spread", "peer_write")
_MOST = 6
_PINNED = regex(r"^pinned_(h2d|d2h)_(?:16|256)MiB$")  # start-up no longer counts at these sizes


def judge(book: Book) -> None:
    """Rows of a microbenchmark run, then the user's kernels beside the measured copy."""
    for measured, ceiling in (("bench.bandwidth", "bench.limit.bandwidth"), ("bench.compute", "bench.limit.compute")):
        limits = {e.subject.label: (v, e) for v, e in book.numbers(ceiling)}
        for value, item in book.numbers(measured):
            label = item.subject.label or ""
            if label in _HEADLINES and label in limits:
                limit, source = limits[label]
                if value > TOLERANCE * limit:
                    continue  # faster than the hardware: work was optimised away, so it is no measurement
                unit = item.unit or ""
                book.ceiling(f"microbenchmark {label}", value, limit, unit, (item, source), source.id)
    _host_copies(book)
    copies = [(v, e) for v, e in book.numbers("bench.bandwidth") if e.subject.label == "copy"]
    if not copies:
        return
    best, copy = max(copies, key=lambda c: c[0])
    for value, item in sorted(book.numbers("kernel.bandwidth"), key=lambda n: -n[0])[:_MOST]:
        what = f"kernel memory rate, {item.subject.label}, beside the measured copy"
        book.ceiling(what, value, best, "GB/s", (item, copy), copy.id)


def _host_copies(book: Book) -> None:
    """The best pinned copy each way beside its slot: what this machine can do, whatever a program makes of it."""
    slots = {e.subject.label: (v, e) for v, e in book.numbers("bench.limit.bandwidth")}
    best: dict[str, tuple[float, Evidence]] = {}
    for value, item in book.numbers("bench.bandwidth"):
        hit = _PINNED.match(item.subject.label or "")
        if hit and item.subject.label in slots and value > best.get(hit[1], (0.0, item))[0]:
            best[hit[1]] = value, item
    for way, (value, item) in best.items():
        limit, source = slots[item.subject.label]
        book.ceiling(f"microbenchmark pinned {way.upper()}", value, limit, "GB/s", (item, source), source.id)
