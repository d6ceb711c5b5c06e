"""Floors of serving: what a decode step must read, whatever the engine does.

The weights that the engine reports for one GPU over the memory's rate bound the time of a step from
below. Speculation makes several tokens a step and a mixture reads only the experts that are hit, so
neither gets a floor from the weights alone.
"""

from __future__ import annotations

import re

from . import floors
from .hardware import Rate
from .limits_base import Book, capture, product
from .models import Evidence

_MIXTURE = re.compile(
    r"moe|mixtral|deepseek[_-]?(?:v[23]|r1)|gpt[_-]?oss|a\d+b\b|8x\d+b|scout|maverick|kimi|glm-?4\.5", re.I
)
_SPECULATION = re.compile(r"speculative|num-speculative|draft|eagle|mtp", re.I)
_KEY = ("median", "p50", "mean", "")


def judge(book: Book) -> None:
    """TPOT beside the weight read."""
    weights = book.one("serving.weights")
    got = product(book)
    for value, item in _tpot(book):
        what = "TPOT, weight read of a step"
        if weights is None:
            continue  # nothing in the evidence says how much a step must read
        used: tuple[Evidence, ...] = (item, weights[1], *got.used)
        reason = _unfit(book)
        if got.gpu is None or reason:
            book.floor(what, value, None, "ms", used, reason=reason or got.reason)
            continue
        rate = Rate(f"memory bandwidth, {got.gpu.name}", got.gpu.memory, "GB/s", got.gpu.source)
        least = floors.read_floor(weights[0] * 2**30, rate.value)
        source = f"{weights[1].id} x 2^30 B / {book.cite(rate)}"
        book.floor(what, value, least.value, "ms", used, source)


def _tpot(book: Book) -> list[tuple[float, Evidence]]:
    """One reading a capture: the median where there is one."""
    best: dict[str, tuple[int, float, Evidence]] = {}
    for value, item in book.numbers("serving.client.tpot"):
        label = (item.subject.label or "").lower()
        order = next((i for i, k in enumerate(_KEY) if label == k), None)
        if order is None or value <= 0:
            continue
        rival = best.get(capture(item))
        if rival is None or order < rival[0]:
            best[capture(item)] = (order, value, item)
    return [(value, item) for _, value, item in best.values()]


def _unfit(book: Book) -> str:
    """Why the weights alone are no floor here, or nothing."""
    for item in (*book.of("serving.architecture"), *book.of("serving.arg")):
        label = item.subject.label or ""
        if item.signal == "serving.arg" and _SPECULATION.search(label):
            return "speculative decoding makes several tokens a step"
        names = item.signal == "serving.architecture" or label in ("model", "served-model-name", "model-path")
        if names and _MIXTURE.search(str(item.value)):
            return "a mixture of experts reads only the experts that are hit"
    if book.of("serving.accept_length") or book.of("serving.accept_rate"):
        return "speculative decoding makes several tokens a step"
    return ""
