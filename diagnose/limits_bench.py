"""Ceilings that were measured on this GPU: microbenchmarks beside their limits, kernels beside microbenchmarks."""

from __future__ import annotations

from .limits_base import TOLERANCE, Book

_HEADLINES = ("copy", "fma", "tensor_wgmma", "tensor_mma", "matmul_torch", "shared_spread", "peer_write")
_MOST = 6


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
    copies = [(v, e) for v, e in book.numbers("bench.bandwidth") if e.subject.label == "copy"]
    if not copies:
        return
    best, copy = max(copies, key=lambda c: c[0])
    for value, item in sorted(book.numbers("kernel.bandwidth"), key=lambda n: -n[0])[:_MOST]:
        what = f"kernel memory rate, {item.subject.label}, beside the measured copy"
        book.ceiling(what, value, best, "GB/s", (item, copy), copy.id)
