"""Microkernels of arithmetic, control flow and launching, each healthy one beside its pathological twin."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from .bench_rows import Ceilings, Entry, Row, duration, rate
from .cuda_device import FLOAT, INT, LONG, UINT, CudaError, Device, Launch, NotHere, Sample, call, constant

MASK = (1 << 32) - 1
MATRIX = 4096  # rows and columns of the FP32 product


def fma(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """FP32 multiply-adds, sixteen chains a thread."""
    blocks, block, turns = device.sms * 8, 256, 1024
    with device.memory() as memory:
        out = memory.alloc(blocks * block * 4)

        def launch(a: float, b: float, count: int) -> Launch:
            return device.kernel(
                "compute", "fma_peak", blocks, block, (LONG, out), (FLOAT, a), (FLOAT, b), (INT, count)
            )

        launch(1.0, 1.0, 64)()  # every chain grows by one a step: exact in FP32
        if set(memory.floats(out, blocks * block)) != {float(sum(range(16)) + 16 * 16 * 64)}:
            raise CudaError("wrong result of fma: the chains do not add up")
        work = launch(0.999, 0.5, turns)
        sample = device.time(work, reps=10)
        clock = ceilings.under_load(work, "SM", sample.median)
        yield ceilings.fp32(clock).on(
            rate(sample, 2.0 * 16 * 16 * turns * blocks * block, name="fma", group="compute", unit="TFLOP/s",
                 what="FP32 multiply-add, registers only", checked="exact sums with a = b = 1")
        )  # fmt: skip


def tensor(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """BF16 tensor cores: mma.sync on every chip since Ampere, wgmma on Hopper."""
    if device.cc < (8, 0):
        raise NotHere(f"compute capability {device.cc[0]}.{device.cc[1]} has no BF16 tensor cores")
    paths = [("tensor_mma", "tensor", "mma_peak", "", 8, 256, 2048, 8 * 16 * 8 * 16 // 32, 4 * 8 * 16)]
    if device.cc == (9, 0):
        paths.append(("tensor_wgmma", "wgmma", "wgmma_peak", "a", 1, 256, 4096, 4 * 64 * 256 * 16 // 128, 128 * 4 * 16))
    for name, stem, entry, suffix, per_sm, block, turns, per_thread, ones_per_turn in paths:
        blocks = device.sms * per_sm
        function = device.function(stem, entry, arch_suffix=suffix)
        with device.memory() as memory:
            out = memory.alloc(blocks * block * 4)
            # With all operands one, each of a thread's sums grows by the depth of the products.
            device.launch(function, blocks, block, (LONG, out), (UINT, 1), (INT, 16))()
            got = set(memory.floats(out, blocks * block))
            if got != {float(ones_per_turn * 16)}:
                raise CudaError(f"wrong result of {name}: {sorted(got)[:3]} where {ones_per_turn * 16} is due")
            work = device.launch(function, blocks, block, (LONG, out), (UINT, 0), (INT, turns))
            sample = device.time(work, reps=10)
            clock = ceilings.under_load(work, "SM", sample.median)
        row = rate(
            sample, 2.0 * per_thread * turns * blocks * block, name=name, group="compute", unit="TFLOP/s",
            what=f"BF16 tensor cores, {'wgmma' if suffix else 'mma.sync'}, random operands",
            checked="exact sums with operands of one",
        )  # fmt: skip
        ceilings.tensor(clock).on(row)
        if not suffix and device.cc[0] >= 9:
            row.params["note"] = "mma.sync is not this chip's fastest path"
        yield row


def matmul(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """FP32 product: tiled in shared memory and registers, and one element a thread."""
    n = MATRIX
    with device.memory() as memory:
        a, b, c, bad, small = (memory.alloc(size) for size in (n * n * 4, n * n * 4, n * n * 4, 8, 169 * 4))
        for pointer, p, q in ((a, 7, 3), (b, 5, 11)):
            device.kernel("matmul", "fill_matrix", device.sms * 8, 256, (LONG, pointer), (INT, n), (INT, p), (INT, q))()
        memory.store(small, struct.pack("169f", *_expected(n)))
        check = device.kernel(
            "matmul", "check_product", device.sms * 8, 256, (LONG, c), (INT, n), (LONG, small), (LONG, bad)
        )
        operands = ((LONG, c), (LONG, a), (LONG, b), (INT, n))
        for name, what, grid, block, twin in (
            (
                "matmul_tiled",
                "FP32 product, tiles in shared memory and registers",
                (n // 128, n // 128),
                (256, 1),
                None,
            ),
            ("matmul_naive", "FP32 product, one element a thread", (n // 32, n // 8), (32, 8), "matmul_tiled"),
        ):
            launch = device.kernel("matmul", name, grid, block, *operands)
            call("cuMemsetD8", c, 255, n * n * 4)
            launch()
            memory.expect(check, bad, name)
            sample = device.time(launch, reps=6, warm_up=1)
            clock = ceilings.under_load(launch, "SM", sample.median)
            yield ceilings.fp32(clock).on(
                rate(sample, 2.0 * n**3, name=name, group="compute", unit="TFLOP/s", twin=twin, what=what,
                     checked="every element, exact", params={"n": n})
            )  # fmt: skip


def _expected(n: int) -> list[float]:
    """The product's 13 x 13 values: entries are (row p + column q) mod 13 - 6, so they repeat with the row."""
    left = [[(i * 7 + k * 3) % 13 - 6 for k in range(n)] for i in range(13)]
    right = [[(k * 5 + j * 11) % 13 - 6 for k in range(n)] for j in range(13)]
    return [float(sum(x * y for x, y in zip(row, col, strict=True))) for row in left for col in right]


def divergence(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """The same work a thread with warps of one mind, and with 32 branches in each."""
    blocks, block, turns = device.sms * 4, 512, 512
    with device.memory() as memory:
        out, sums = memory.alloc(blocks * block * 4), memory.zeroed(8)
        for name, what, by_lane, twin in (
            ("branch_uniform", "32 branches, warps agree", 0, None),
            ("branch_divergent", "32 branches, one a lane", 1, "branch_uniform"),
        ):
            launch = device.kernel("compute", "branches", blocks, block, (LONG, out), (INT, by_lane), (INT, turns))
            launch()
            call("cuMemsetD8", sums, 0, 8)
            device.kernel("basics", "total", device.sms, 256, (LONG, out), (LONG, blocks * block), (LONG, sums))()
            if memory.word(sums) != _branch_sum(blocks, block, by_lane, turns * 16):
                raise CudaError(f"wrong result of {name}")
            sample = device.time(launch, reps=10)
            row = rate(sample, blocks * block * turns * 16.0, name=name, group="compute", unit="Gop/s", twin=twin,
                       what=what, checked="sum of all results",
                       params={"profile": {"kernel.active_threads": 1 if by_lane else 32}})  # fmt: skip
            row.reason = "integer multiply-adds in one chain a thread: no published rate"
            yield row


def _branch_sum(blocks: int, block: int, by_lane: int, steps: int) -> int:
    results = []
    for key in range(32):
        x = key
        for _ in range(steps):
            x = (x * 1664525 + 1013904223 + key) & MASK
        results.append(x)
    if by_lane:
        return sum(results) * (blocks * block // 32) & MASK
    return sum(results[(w + b) % 32] for b in range(blocks) for w in range(block // 32)) * 32 & MASK


def spill(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """Ninety-six live values a thread in registers, and the same code held to 32 registers."""
    blocks, block, turns = device.sms * 2, 256, 512
    with device.memory() as memory:
        out = memory.alloc(blocks * block * 4)
        for name, what, registers, twin in (
            ("registers", "96 live values a thread, in registers", None, None),
            ("registers_spilled", "same code at 32 registers a thread", 32, "registers"),
        ):
            function = device.function("spill", "live_values", registers=registers)
            local = device.function_attribute(function, "LOCAL_SIZE_BYTES")
            used = device.function_attribute(function, "NUM_REGS")
            if bool(local) != bool(twin):
                raise CudaError(f"{name}: the compiler left {local} bytes of local memory a thread: not the case meant")
            launch = device.launch(function, blocks, block, (LONG, out), (INT, turns))
            device.launch(function, blocks, block, (LONG, out), (INT, 3))()
            for thread in (1, blocks * block - 1):
                if memory.word(out + 4 * thread) != _live_values(thread, 3):
                    raise CudaError(f"wrong result of {name}")
            sample = device.time(launch, reps=8)
            row = rate(
                sample, blocks * block * turns * 96.0, name=name, group="compute", unit="Gop/s", twin=twin, what=what,
                checked="two threads, exact", params={"registers": used, "profile": {"kernel.spill.bytes": local}},
            )  # fmt: skip
            row.reason = "integer multiply-adds: no published rate"
            yield row


def _live_values(thread: int, turns: int) -> int:
    v = [(thread * 2654435761 + k) & MASK for k in range(96)]
    for _ in range(turns):
        for k in range(96):
            v[k] = (v[k] * 3 + v[(k + 37) % 96]) & MASK
    out = 0
    for x in v:
        out ^= x
    return out


def _wall(work: Launch, count: int, wait: bool, reps: int = 20) -> Sample:
    """Host time of `count` launches up to the end of the last, microseconds."""
    queue, finish = work.bare(), partial(call, "cuStreamSynchronize", 0)
    times = []
    for rep in range(reps + 3):
        finish()
        begin = time.perf_counter()
        for _ in range(count):
            queue()
            if wait:
                finish()
        finish()
        if rep >= 3:
            times.append((time.perf_counter() - begin) * 1e6)
    return Sample(tuple(times))


def launches(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """Empty kernels: one after another from the host, each waited for, and many in one graph; and an empty wait."""
    empty = device.kernel("basics", "nothing", 1, 32)
    call("cuStreamSynchronize", 0)
    times = []
    for _ in range(200):
        begin = time.perf_counter()
        call("cuStreamSynchronize", 0)
        times.append((time.perf_counter() - begin) * 1e6)
    common: dict[str, Any] = {"group": "launch", "checked": "host clock, Python's call included"}
    none = "no published figure: depends on the host"
    rows = [
        duration(Sample(tuple(times)), name="sync_empty", what="waiting for an idle stream", **common),
        duration(_wall(empty, 500, False), 500, name="launch", what="empty kernels queued back to back", **common),
        duration(_wall(empty, 20, True), 20, name="launch_and_wait", what="empty kernel and wait for it", **common),
    ]
    count = 200
    stream = call("cuStreamCreate", 1)
    call("cuStreamBeginCapture", stream, constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"))
    for _ in range(count):
        empty(stream)
    graph = call("cuStreamEndCapture", stream)
    ready = call("cuGraphInstantiate", graph, 0)
    try:
        times = []
        for rep in range(25):
            call("cuStreamSynchronize", stream)
            begin = time.perf_counter()
            call("cuGraphLaunch", ready, stream)
            call("cuStreamSynchronize", stream)
            if rep >= 5:
                times.append((time.perf_counter() - begin) * 1e6)
    finally:
        call("cuGraphExecDestroy", ready)
        call("cuGraphDestroy", graph)
        call("cuStreamDestroy", stream)
    rows.append(
        duration(Sample(tuple(times)), count, name="launch_graph", what=f"empty kernels, {count} in one graph, each",
                 **common)
    )  # fmt: skip
    rows[1].twin = "launch_graph"
    rows[2].twin = "launch_graph"
    for row in rows:
        row.reason = none
        yield row


ENTRIES = (
    Entry("fma", "FP32 multiply-add peak", fma, 2, 1 << 22, "takes all multiprocessors, raises power"),
    Entry("tensor", "BF16 tensor-core peak", tensor, 2, 1 << 22, "takes all multiprocessors, raises power"),
    Entry("matmul", "FP32 product, tiled and naive", matmul, 3, 200 << 20, "takes all multiprocessors"),
    Entry("divergence", "uniform and divergent branches", divergence, 1, 1 << 22, "takes all multiprocessors"),
    Entry("spill", "registers and register spills", spill, 1, 1 << 22, "takes all multiprocessors"),
    Entry("launch", "launch, graph-launch and wait latency", launches, 1, 0, "small"),
)
