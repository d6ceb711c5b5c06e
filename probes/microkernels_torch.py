"""PyTorch's own copy and matrix product, timed like ours in the same run, where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from .bench_rows import Ceilings, Entry, Row, rate
from .cuda_device import CudaError, Device, NotHere

GIB = 1 << 30


def _copy(torch: Any, device: Device, ceilings: Ceilings) -> Row:
    size = device.fit(4 * GIB, 2)
    src = torch.randint(0, 255, (size,), dtype=torch.uint8, device=f"cuda:{device.index}")
    dst = torch.empty_like(src)
    # On the default stream of both, where the events are.
    sample = device.time(lambda: dst.copy_(src), reps=12)
    if not torch.equal(src, dst):
        raise CudaError("wrong result of PyTorch's copy")
    return ceilings.memory().on(
        rate(
            sample, 2 * size, name="copy_torch", group="memory", unit="GB/s", checked="every byte compared",
            what=f"device copy by PyTorch {torch.__version__}", params={"bytes": size},
        )
    )  # fmt: skip


def _product(torch: Any, device: Device, ceilings: Ceilings) -> Row:
    n = 8192
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=f"cuda:{device.index}") for _ in range(2))
    out = a @ b

    def work() -> None:
        torch.matmul(a, b, out=out)

    sample = device.time(work, reps=12, warm_up=3)
    clock = ceilings.under_load(work, "SM", sample.median)
    reference = a[:64].float() @ b.float()
    error = float((out[:64].float() - reference).norm() / reference.norm())
    if not error < 1e-2:
        raise CudaError(f"wrong result of PyTorch's product: relative error {error:.2g}")
    return ceilings.tensor(clock).on(
        rate(
            sample, 2.0 * n**3, name="matmul_torch", group="compute", unit="TFLOP/s", params={"n": n},
            checked="64 rows against FP32", what=f"BF16 matrix product by PyTorch {torch.__version__}",
        )
    )  # fmt: skip


def torch_rows(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """What the framework reaches on this GPU: the yardstick of our own copy, and a real product's rate."""
    try:
        torch: Any = import_module("torch")
    except ImportError as err:
        raise NotHere("PyTorch is not installed: nothing to compare the copy with") from err
    try:
        for part in (_copy, _product):
            yield part(torch, device, ceilings)
            torch.cuda.empty_cache()
    finally:
        torch.cuda.empty_cache()


ENTRIES = (
    Entry(
        "torch", "PyTorch's copy and BF16 product, if it is installed", torch_rows, 12, 8 * GIB,
        "takes the memory bandwidth and the tensor cores",
    ),
)  # fmt: skip
