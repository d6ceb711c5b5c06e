"""Ceilings of copies, remote DMA and kernels: the slot, the link, the memory, the tensor cores.

Pageable copies are named apart (`pageable copy H2D`), because the driver's staging bounds them and
not the slot: a slow one says nothing about the slot.
"""

from __future__ import annotations

import re

from . import hardware
from .hardware import Gpu, Rate
from .lazy import regex
from .limits_base import TOLERANCE, Book, capture, product
from .limits_collectives import slot
from .models import Evidence

_DIRECTIONS = (
    ("H2D", regex(r"h(?:ost)?[ _-]?(?:2|to)[ _-]?d|cpu[ _-]?(?:->|to)[ _-]?gpu", re.I)),
    ("D2H", regex(r"d(?:evice)?[ _-]?(?:2|to)[ _-]?h|gpu[ _-]?(?:->|to)[ _-]?cpu", re.I)),
    ("device", regex(r"d(?:evice)?[ _-]?(?:2|to)[ _-]?d|local[ _-]copy|gpu[ _-]?(?:->|to)[ _-]?gpu", re.I)),
)
_SMALL = 4e6  # bytes below which start-up costs count in a single copy
_SIZE = regex(r"(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|KB|MB|GB|B)\b", re.I)
_SCALE = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_MATMUL = regex(r"gemm|matmul|cutlass|cublas|wgmma|xmma|nvjet", re.I)
_PRECISION = (
    ("fp8", regex(r"fp8|e4m3|e5m2", re.I)),
    ("bf16", regex(r"bf16|bfloat16", re.I)),
    ("fp16", regex(r"fp16|half|float16|hgemm|h\d+gemm", re.I)),
)


def judge(book: Book) -> None:
    """Copies between host and device, on the device, between devices; RDMA; kernels."""
    _host(book)
    _peer(book)
    _rdma(book)
    _ucx(book)
    _kernels(book)


def _best(items: list[tuple[float, Evidence]]) -> tuple[float, Evidence]:
    return max(items, key=lambda i: i[0])


def size_of(label: str) -> float:
    """Bytes that a label names, or 0."""
    hit = _SIZE.search(label)
    return float(hit[1]) * _SCALE[hit[2].lower()] if hit else 0.0


def _host(book: Book) -> None:
    groups: dict[tuple[str, str, str], list[tuple[float, Evidence]]] = {}
    for value, item in book.numbers("copy.bandwidth") + book.numbers("trace.pageable_rate"):
        label = item.subject.label or ""
        direction = next((name for name, pattern in _DIRECTIONS if pattern.search(label)), "")
        if not direction or value <= 0 or re.search(r"bidir|both", label, re.I):
            continue
        traced = item.signal == "trace.pageable_rate"
        pageable = "pageable" if traced or re.search(r"pageable|unpinned|non-?pinned", label, re.I) else ""
        groups.setdefault((direction, pageable, capture(item)), []).append((value, item))
    for (direction, pageable, _), items in groups.items():
        value, item = _best(items)
        if direction == "device":
            _device(book, value, item)
            continue
        got = product(book, item)
        what = f"{pageable} copy {direction}" if pageable else f"{direction} copy"
        if got.gpu is not None and got.gpu.c2c:
            reason = "the CPU is behind NVLink-C2C, whose copies are not modelled"
            book.ceiling(what, value, None, "GB/s", (item, *got.used), reason=reason)
            continue
        generation, width, used = slot(book, got.gpu)
        rate = hardware.pcie_rate(generation, width) if generation and width else None
        if rate is None:
            reason = "PCIe generation and width are not in the evidence"
            link = hardware.link_class(value)
            book.ceiling(what, value, None, "GB/s", (item, *got.used), reason=f"{reason}; {link}" if link else reason)
            continue
        small = 0 < max(size_of(i.subject.label or "") for _, i in items) < _SMALL
        reason = "the copies are small: start-up counts" if small else ""
        words = f"{what}, PCIe {generation}.0 x{width}"
        used = (item, *used, *(() if len(used) == 2 else got.used))
        if small:
            book.ceiling(words, value, None, "GB/s", used, reason=reason)
        else:
            book.ceiling(words, value, rate.value, "GB/s", used, book.cite(rate))


def _device(book: Book, value: float, item: Evidence) -> None:
    """A copy on the device reads and writes; tools count the bytes once or twice."""
    got = product(book, item)
    if got.gpu is None:
        book.ceiling("device copy", value, None, "GB/s", (item, *got.used), reason=got.reason)
        return
    rate = _memory(got.gpu)
    once = value <= rate.value / 2 * TOLERANCE
    what = f"device copy, {got.gpu.name}" + (", bytes counted once" if once else "")
    limit, source = (rate.value / 2, f"{book.cite(rate)} / 2") if once else (rate.value, book.cite(rate))
    book.ceiling(what, value, limit, "GB/s", (item, *got.used), source)


def _memory(gpu: Gpu) -> Rate:
    return Rate(f"memory bandwidth, {gpu.name}", gpu.memory, "GB/s", gpu.source)


def _peer(book: Book) -> None:
    best: dict[tuple[int, int, str], tuple[float, Evidence]] = {}
    for value, item in book.numbers("p2p.bandwidth"):
        a, b = item.subject.gpu, item.subject.peer
        if a is None or b is None or a == b or value <= 0 or "disabled" in (item.subject.label or "").lower():
            continue
        both = "both ways" if re.search(r"bidir|both", item.subject.label or "", re.I) else ""
        key = (min(a, b), max(a, b), both)
        if key not in best or best[key][0] < value:
            best[key] = (value, item)
    for (a, b, both), (value, item) in list(best.items())[:16]:
        link = next((e for e in book.of("topo.link") if {e.subject.gpu, e.subject.peer} == {a, b}), None)
        got = product(book, item)
        suffix = f", {both}" if both else ""
        if link is not None and (hit := re.match(r"NV(\d+)$", str(link.value))) and got.gpu and got.gpu.nvlink:
            raw = hardware.NVLINK_RAW[got.gpu.nvlink]
            if got.gpu.cc == 8.6:
                raw = 14.0625
            rate = Rate(f"NVLink per-link rate, generation {got.gpu.nvlink}", raw, "GB/s", got.gpu.source)
            limit = raw * int(hit[1]) * (2 if both else 1)
            source = f"{book.cite(rate)} x {hit[1]}" + (" x 2" if both else "")
            what = f"peer copy, GPUs {a}-{b}, {link.value}{suffix}"
            book.ceiling(what, value, limit, "GB/s", (item, link, *got.used), source)
            continue
        generation, width, used = slot(book, got.gpu)
        rate_ = hardware.pcie_rate(generation, width) if generation and width and link is not None else None
        what = f"peer copy, GPUs {a}-{b}{suffix}"
        if rate_ is None or link is None:
            book.ceiling(what, value, None, "GB/s", (item,), reason="the link of the pair is not in the evidence")
            continue
        limit = rate_.value * (2 if both else 1)
        source = book.cite(rate_) + (" x 2" if both else "")
        words = f"peer copy, GPUs {a}-{b}, PCIe {generation}.0 x{width}, {link.value}{suffix}"
        book.ceiling(words, value, limit, "GB/s", (item, link, *used), source)


def _rdma(book: Book) -> None:
    groups: dict[tuple[str, str], list[tuple[float, Evidence]]] = {}
    for value, item in book.numbers("rdma.perftest.bw"):
        label = (item.subject.label or "").lower()
        verb = next((v for v in ("write", "read", "send") if v in label), "")
        if value > 0:
            groups.setdefault((verb, capture(item)), []).append((value, item))
    rates = [r for r in book.numbers("rdma.port.rate") if r[0] > 0]
    distinct = {r[0] for r in rates}
    for (verb, _), items in groups.items():
        value, item = _best(items)
        what = f"RDMA {verb}".strip()
        if len(distinct) != 1:
            reason = "ports of several rates: which one?" if rates else "the rate of the port is not in the evidence"
            book.ceiling(what, value, None, "GB/s", (item,), reason=reason)
            continue
        both = 2 if re.search(r"bidir|both", item.subject.label or "", re.I) else 1
        rate, says = rates[0]
        source = f"{says.id} / 8" + (" x 2" if both == 2 else "")
        words = f"{what}, {rate:g} Gb/s" + (", both ways" if both == 2 else "")
        book.ceiling(words, value, rate / 8 * both, "GB/s", (item, says), source)


def _ucx(book: Book) -> None:
    """Two processes of one host: a core's own copy bounds host memory, NVLink or the slot what is between GPUs."""
    copies = book.numbers("host.memcpy")
    for value, item in copies[:1]:
        near = [n for n in book.numbers("ucx.perftest.bw") if capture(n[1]) == capture(item) and n[0] > 0]
        near = [n for n in near if "bandwidth" in (n[1].subject.label or "").lower()]
        if near:
            rate, best = _best(near)
            size = size_of(best.subject.label or "")
            what = f"UCX between two processes, host memory, {size:.0f} B"
            book.ceiling(
                what, rate, value, "GB/s", (best, item), f"{item.id}: one copy by one core, measured beside it"
            )
    for rate, item in book.numbers("ucx.gpu_rate"):
        label, got = item.subject.label or "", product(book)
        staged = label.startswith("without")
        links = {str(e.value) for e in book.of("topo.link")}
        if got.gpu is not None and got.gpu.links and links and all(x.startswith("NV") for x in links) and not staged:
            per = hardware.NVLINK_RAW[got.gpu.nvlink]
            lanes = min(got.gpu.links, *(int(x[2:]) for x in links if x[2:].isdigit()))
            book.ceiling(f"UCX between GPUs, {label}", rate, per * lanes, "GB/s", (item, *got.used),
                         f"{lanes} links x {per:g} GB/s, one direction ({got.gpu.source_of()})")  # fmt: skip
            continue
        generation, width, said = slot(book, got.gpu)
        known = hardware.pcie_rate(generation, width) if generation and width else None
        book.ceiling(f"UCX between GPUs, {label}", rate, known.value if known else None, "GB/s", (item, *said),
                     book.cite(known) if known else "", None if known else "links and slot are not known")  # fmt: skip


def _kernels(book: Book) -> None:
    for value, item in book.numbers("kernel.flops")[:12]:
        label = item.subject.label or ""
        got = product(book, item)
        if not _MATMUL.search(label):
            continue
        kind = next((name for name, pattern in _PRECISION if pattern.search(label)), "")
        what = f"GEMM TFLOP/s, {label}"
        peak = None
        if got.gpu is not None:
            peak = {"fp8": got.gpu.fp8, "bf16": got.gpu.bf16, "fp16": got.gpu.tensor16}.get(kind)
        if got.gpu is None or peak is None:
            reason = got.reason or ("the precision is not named" if not kind else f"no {kind} peak in the table")
            book.ceiling(what, value, None, "TFLOP/s", (item, *got.used), reason=reason)
            continue
        rate = Rate(f"dense {kind} peak, {got.gpu.name}", peak, "TFLOP/s", got.gpu.source)
        book.ceiling(what, value, peak, "TFLOP/s", (item, *got.used), book.cite(rate))
    for value, item in sorted(book.numbers("kernel.bandwidth"), key=lambda n: -n[0])[:6]:
        got = product(book, item)
        if got.gpu is not None:
            rate = _memory(got.gpu)
            what = f"kernel memory rate, {item.subject.label}"
            book.ceiling(what, value, rate.value, "GB/s", (item, *got.used), book.cite(rate))
