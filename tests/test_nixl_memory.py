"""The NIXL sweep through GPU memory: a simulated driver in place of libcuda, rows of both kinds read back."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from diagnose.probes import live_nixl, nixl_worker

from diagnose.document import Document
from diagnose.engine import report

ROWS = """# nixl sweep: UCX backend, VRAM to DRAM, two processes of one host, nixl 1.5.1
memory how block_bytes blocks per_transfer best_ms us_per_descriptor GB_per_s post_us
# from and to: GPU 0
VRAM>DRAM one_by_one 4096 64 1 1.280 20.00 0.205 120
VRAM>DRAM batched 4096 512 512 1.024 2.00 2.048 30
# data arrived: yes
"""


class SimulatedDriver:
    """libcuda with two GPUs: what was called, and memory that is a host buffer."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls, self.buffer = fails, [], ctypes.create_string_buffer(64)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> int:
            self.calls.append((name, args))
            if name == self.fails:
                return 2
            if name == "cuDeviceGetCount":
                args[0]._obj.value = 2
            elif name == "cuMemAlloc_v2":
                args[0]._obj.value = ctypes.addressof(self.buffer)
            elif name == "cuMemsetD8_v2":
                ctypes.memset(args[0].value, args[1].value, args[2].value)
            elif name == "cuMemcpyDtoH_v2":
                ctypes.memmove(args[0], args[1].value, args[2].value)
            return 0

        return call


def test_memory_of_a_gpu_is_filled_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimulatedDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    far = nixl_worker.memory("VRAM", 64, far=True)
    assert far.gpu == 1 and far.start() == b"\0" * 8
    far.fill()
    assert far.start() == b"\1" * 8 and nixl_worker.memory("VRAM", 64).gpu == 0


def test_a_driver_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimulatedDriver("cuMemAlloc_v2")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    with pytest.raises(OSError, match="cuMemAlloc_v2: CUDA error 2"):
        nixl_worker.GpuMemory(64)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nixl_worker.gpu_count() == 0


def test_rows_between_two_kinds_are_read() -> None:
    facts = list(live_nixl.SweepReader().parse(Document.of("x", ROWS.encode(), ("simulated",))))
    cost = {f.subject.label: f.value for f in facts if f.signal == "nixl.sweep.cost"}
    assert cost["VRAM>DRAM|batched|4096 B|512 a transfer"] == 2.0
    assert [(f.subject.label, f.value) for f in facts if f.signal == "nixl.sweep.batching"] == [
        ("VRAM>DRAM|4096", 10.0)
    ]


@pytest.mark.parametrize(("gpus", "judged"), [("GPU 0 and GPU 1", True), ("GPU 0 and GPU 0", False)])
def test_between_two_gpus_the_best_rate_stands_beside_their_links(gpus: str, judged: bool) -> None:
    """Within one GPU it is a copy of its own memory, which the links do not limit."""
    best = ("VRAM", "contiguous", 1 << 28, 1, 1, "0.757", "757.00", "354.638", 6)
    head = nixl_worker.HEAD + " UCX backend, VRAM to VRAM"
    rows = [head, nixl_worker.row(nixl_worker.COLUMNS), f"# from and to: {gpus}", nixl_worker.row(best)]
    sweep = "\n".join(rows)
    smi = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-87162aae-6d21-24be-b411-7c08a83a547c)\n"
    docs = [Document.of("sweep", sweep.encode() + b"\n"), Document.of("smi", smi.encode())]
    limits = {row.what: row for row in report("KV transfer is slow", docs).limits}
    row = limits.get("NIXL from GPU to GPU, best case")
    assert (row is not None) is judged
    if row is not None:
        assert (row.measured, row.limit) == (354.638, 450.0) and row.ratio == pytest.approx(354.638 / 450, abs=1e-4)
