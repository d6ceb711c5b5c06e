"""What a path carried by its own counter, beside the ceiling of that path."""

from __future__ import annotations

from . import hardware
from .limits_base import Book, product
from .limits_collectives import slot
from .models import Evidence


def judge(book: Book) -> None:
    """The busiest GPU's NVLinks and slot, one direction; of a network interface its speed."""
    got = product(book)
    for path, keys in (("nvlink", ("nvlink tx",)), ("pcie", ("pcie sampled_tx", "pcie tx"))):
        rows = [(v, e) for key in keys for v, e in book.numbers("path.rate") if e.subject.label == key]
        shares = {(e.subject.gpu, e.subject.label): v for v, e in book.numbers("path.share")}
        rows = [(v, e) for v, e in rows if shares.get((e.subject.gpu, e.subject.label), 0) >= 0.5]
        if not rows:
            continue
        value, item = max(rows, key=lambda r: r[0])
        what = f"{'NVLink' if path == 'nvlink' else 'PCIe'} of GPU {item.subject.gpu} by its counter, one direction"
        if path == "pcie":
            generation, width, said = slot(book, got.gpu)
            rate = hardware.pcie_rate(generation, width) if generation and width else None
            book.ceiling(what, value, rate.value if rate else None, "GB/s", (item, *said),
                         book.cite(rate) if rate else "", None if rate else "the slot is not known")  # fmt: skip
        elif got.gpu is not None and got.gpu.links:
            _beside_links(book, what, value, item, got.gpu, got.used)
        else:
            book.ceiling(what, value, None, "GB/s", (item,), reason=got.reason or "it has no NVLink by its sheet")
    between = [(v, e) for v, e in book.numbers("nixl.sweep.rate") if (e.subject.label or "").startswith("VRAM|")]
    linked = any(e.value == "two GPUs" for e in book.of("nixl.sweep.between"))
    if between and linked and got.gpu is not None and got.gpu.links:
        value, item = max(between, key=lambda r: r[0])
        _beside_links(book, "NIXL from GPU to GPU, best case", value, item, got.gpu, got.used)
    speeds = {e.subject.nic: (v, e) for v, e in book.numbers("net.speed")}
    for value, item in book.numbers("path.rate"):
        if item.subject.label == "nic tx" and item.subject.nic in speeds:
            speed, said_ = speeds[item.subject.nic]
            book.ceiling(f"{item.subject.nic} by its counter, one direction", value, speed / 8, "GB/s", (item, said_))


def _beside_links(
    book: Book, what: str, value: float, item: Evidence, gpu: hardware.Gpu, used: tuple[Evidence, ...]
) -> None:
    """A rate beside all NVLinks of a GPU, one direction."""
    per = hardware.NVLINK_RAW[gpu.nvlink]
    source = f"{gpu.links} links x {per:g} GB/s ({gpu.source_of()})"
    book.ceiling(what, value, per * gpu.links, "GB/s", (item, *used), source)
