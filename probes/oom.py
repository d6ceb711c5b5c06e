"""CUDA out-of-memory messages of every PyTorch generation, of engines, and `memory_summary`, as figures.

A failure is one event: all its figures share the subject's label (``1``, ``2`` …), so that a rule
compares numbers that belong together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact, gib

_N = r"(?<![\d.,])(\d[\d,]*(?:\.\d+)?)\s*([KMGT]i?B|bytes|B)"
_START = regex(rf"Tried to allocate\s+{_N}", re.I)
_FIGURES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("requested", _START),
    ("total", regex(rf"(?:total capac(?:i)?ty of|GPU \d+;)\s*{_N}(?: total capacity)?", re.I)),
    ("free", regex(rf"of which\s+{_N} is free|[;(]\s*{_N} free\b", re.I)),
    ("own", regex(rf"this process has\s+{_N} memory in use", re.I)),
    (
        "allocated",
        regex(rf"(?:Of the allocated memory\s+)?{_N} is allocated by PyTorch|{_N} already allocated", re.I),
    ),
    ("private_pools", regex(rf"with\s+{_N} allocated in private pools", re.I)),
    ("reserved_unallocated", regex(rf"{_N} is reserved by PyTorch but unallocated", re.I)),
    ("reserved", regex(rf"{_N} (?:reserved in total by PyTorch|cached)\b", re.I)),
)
_OTHER = regex(rf"Process (\d+) has\s+{_N} memory in use", re.I)
_GPU = regex(r"\bGPU (\d+)\b")
_HAND = regex(
    r"\b(?:torch\.cuda\.)?(?:max_)?(?P<what>memory_allocated|memory_reserved|allocated|reserved(?: but "
    r"unallocated)?|requested|free)"
    r"(?:\(\w*\))?\s*[:=|]?\s*(?P<n>\d[\d,]*(?:\.\d+)?)\s*(?P<u>[KMGT]i?B)\b", re.I,
)  # fmt: skip
_SUMMARY = regex(rf"^\|\s*(Allocated memory|GPU reserved memory|Non-releasable memory)\s*\|\s*{_N}\s*\|", re.I)
_VLLM_FREE = regex(
    r"Free memory on device\s*(?:cuda:(\d+))?\s*\((\d+(?:\.\d+)?)/(\d+(?:\.\d+)?) GiB\) on startup is less than desired GPU memory "  # noqa: E501
    r"utilization \((\d+(?:\.\d+)?), (\d+(?:\.\d+)?) GiB\)", re.I,
)  # fmt: skip


class OomReader:
    """Figures of failed allocations."""

    name = "cuda_oom"
    needles: tuple[bytes, ...] = (
        b"Tried to allocate", b"already allocated", b"reserved by PyTorch", b"Free memory on device",
        b"GPU reserved memory", b"memory_reserved", b"memory_allocated",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.oom.*` in GiB of the first four failures, of vLLM's check at start-up and of typed figures."""
        event, left = 0, 0
        gpu: int | None = None
        seen: set[str] = set()
        last: tuple[object, ...] = ()
        for line in doc.lines():
            text = line.text
            if (hit := _VLLM_FREE.search(text)) is not None:
                yield from self._vllm(doc, line, hit)
                continue
            if _START.search(text):
                event, left, seen = event + 1, 8, set()
                gpu = int(g.group(1)) if (g := _GPU.search(text)) else None
                if event > 4 or last == (key := (gpu, *re.findall(r"[\d.]+ [KMG]i?B", text))):
                    left = 0  # the same failure on other ranks, or once more in the traceback
                    continue
                last = key
            elif left > 0 and (g := _GPU.search(text)) is not None and gpu is None:
                gpu = int(g.group(1))
            if left > 0:
                left -= 1
                yield from self._message(doc, line, str(event), gpu, seen)
            elif (hit := _SUMMARY.match(text)) is not None:
                what = {"a": "allocated", "g": "reserved", "n": "reserved_unallocated"}[hit.group(1)[0].lower()]
                if (value := gib(hit.group(2), hit.group(3))) is not None:
                    yield fact(doc, line, f"gpu.oom.{what}", value, "GiB", label="summary")
            else:
                yield from self._hand(doc, line)

    def _message(self, doc: Document, line: Line, label: str, gpu: int | None, seen: set[str]) -> Iterator[Fact]:
        for what, pattern in _FIGURES:
            hit = pattern.search(line.text)
            if hit is None or what in seen:
                continue
            got = [g for g in hit.groups() if g is not None]
            if (value := gib(got[0], got[1])) is not None:
                seen.add(what)
                yield fact(doc, line, f"gpu.oom.{what}", value, "GiB", around=hit.group()[:40], gpu=gpu, label=label)
        for pid, amount, unit in _OTHER.findall(line.text):
            if (value := gib(amount, unit)) is not None and pid not in seen:
                seen.add(pid)
                who = f"{label} pid {pid}"
                yield fact(doc, line, "gpu.oom.other", value, "GiB", around=f"Process {pid}", gpu=gpu, label=who)

    def _vllm(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        gpu = int(hit.group(1)) if hit.group(1) else None
        for what, group in (("free", 2), ("total", 3), ("wanted_share", 5)):
            yield fact(doc, line, f"gpu.oom.{what}", float(hit.group(group)), "GiB", gpu=gpu, label="startup")

    def _hand(self, doc: Document, line: Line) -> Iterator[Fact]:
        if not re.search(r"memory_(?:allocated|reserved)|reserved", line.text):
            return
        for hit in _HAND.finditer(line.text):
            what = hit.group("what").lower().removeprefix("memory_")
            what = "reserved_unallocated" if "unallocated" in what else what
            if (value := gib(hit.group("n"), hit.group("u"))) is not None:
                yield fact(doc, line, f"gpu.oom.{what}", value, "GiB", label="typed")


READERS: list[Reader] = [OomReader()]
