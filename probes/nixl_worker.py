"""Real NIXL transfers between two processes of this host: ``python -m diagnose.probes.nixl_worker``.

Runs as a process of its own, because some builds of the UCX backend crash while the interpreter ends: results are
printed first, then the process leaves without clean-up. Writes go to the other process through shared memory, TCP or
whatever UCX chooses under the environment it is given.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import multiprocessing as mp
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

HEAD = "# nixl sweep:"
TOTAL, TOTAL_GPU = 8 << 20, 256 << 20  # bytes of a side; between GPUs more, or starting a transfer is all one sees
MOST = 512  # blocks of one case
SINGLE = 64  # … where each block is a transfer of its own, which over TCP may take milliseconds
BLOCKS = (4096, 16384, 65536, 1 << 20)
BATCHES = (8, 64)
REPEAT = 5
ENOUGH = 0.4  # seconds: a case that takes longer is not repeated
WIDTH = 17
COLUMNS = ("memory", "how", "block_bytes", "blocks", "per_transfer", "best_ms", "us_per_descriptor", "GB_per_s",
           "post_us")  # fmt: skip
Blocks = list[tuple[int, int, int]]
Side = tuple[str, int, int]  # kind of memory, address, GPU


class HostMemory:
    """Zeroed host memory."""

    kind, gpu = "DRAM", 0

    def __init__(self, size: int) -> None:
        self.area = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.area))

    def fill(self) -> None:
        """Ones in every byte."""
        self.area[:] = b"\1" * len(self.area)

    def start(self) -> bytes:
        """The first bytes."""
        return bytes(self.area[:8])


class GpuMemory:
    """Zeroed memory of one GPU by the driver API alone; raises OSError where there is none."""

    kind = "VRAM"

    def __init__(self, size: int, gpu: int = 0) -> None:
        self.gpu, self.size, self._cuda = gpu, size, ctypes.CDLL("libcuda.so.1")
        device, self.context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(device), gpu)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self._do("cuCtxSetCurrent", self.context)
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self.address = int(address.value)
        self._set(0)

    def _do(self, name: str, *args: Any) -> None:
        if code := int(getattr(self._cuda, name)(*args)):
            raise OSError(f"{name}: CUDA error {code}")

    def _set(self, byte: int) -> None:
        self._do("cuMemsetD8_v2", ctypes.c_uint64(self.address), ctypes.c_ubyte(byte), ctypes.c_size_t(self.size))
        self._do("cuCtxSynchronize")

    def fill(self) -> None:
        """Ones in every byte."""
        self._set(1)

    def start(self) -> bytes:
        """The first bytes."""
        got = ctypes.create_string_buffer(8)
        self._do("cuMemcpyDtoH_v2", got, ctypes.c_uint64(self.address), ctypes.c_size_t(8))
        return got.raw


def gpu_count() -> int:
    """GPUs that the driver shows to this process; 0 without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return 0 if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) else count.value


def memory(kind: str, size: int, far: bool = False) -> HostMemory | GpuMemory:
    """Memory of one kind for one side of a sweep; the far side takes a second GPU where there is one."""
    return HostMemory(size) if kind == "DRAM" else GpuMemory(size, 1 if far and gpu_count() > 1 else 0)


def total(name: str) -> int:
    """Bytes of each side."""
    return TOTAL_GPU if "DRAM" not in PAIRS[name] else TOTAL


# What a sweep moves between, as its rows name it: memory of the side that writes, memory that is written to.
PAIRS = {
    "DRAM": ("DRAM", "DRAM"),
    "VRAM": ("VRAM", "VRAM"),
    "VRAM>DRAM": ("VRAM", "DRAM"),
    "DRAM>VRAM": ("DRAM", "VRAM"),
}


def _agent(name: str) -> Any:
    from nixl._api import nixl_agent, nixl_agent_config

    return nixl_agent(name, nixl_agent_config(backends=["UCX"], capture_telemetry=True))


def target(pipe: Connection, name: str) -> None:
    """The process that is written to."""
    agent = _agent("target")
    kind, size = PAIRS[name][1], total(name)
    area = memory(kind, size, far=True)
    agent.register_memory([(area.address, size, area.gpu, "")], kind)
    pipe.send((agent.get_agent_metadata(), area.address, area.gpu))
    agent.add_remote_agent(pipe.recv())
    while not pipe.poll(0):
        agent.get_new_notifs()  # this side makes progress only while it is asked to
        os.sched_yield()
    pipe.recv()
    pipe.send(area.start() == b"\1" * 8)
    time.sleep(0.05)
    os._exit(0)


def row(cells: Iterable[object]) -> str:
    """A line of the table."""
    return " ".join(f"{cell!s:>{WIDTH}}" for cell in cells)


class Sweep:
    """The side that writes, and times."""

    def __init__(self, agent: Any, name: str, local: Side, remote: Side, peer: str) -> None:
        self.agent, self.name, self.local, self.remote, self.peer = agent, name, local, remote, peer
        self.post = 0.0

    def descs(self, side: Side, blocks: Blocks) -> Any:
        """Descriptors of blocks in the memory of one side."""
        kind, base, gpu = side
        return self.agent.get_xfer_descs([(base + at, size, gpu) for at, size, _ in blocks], kind)

    def finish(self, handle: Any) -> None:
        """Post a prepared transfer and poll until it is done.

        Raises:
            RuntimeError: it ended in another state than ``DONE``.
        """
        state = self.agent.transfer(handle)
        while state == "PROC":
            state = self.agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"a transfer ended as {state}")

    def send(self, blocks: Blocks) -> None:
        """Write blocks in one transfer that is prepared for it alone."""
        handle = self.agent.initialize_xfer(
            "WRITE", self.descs(self.local, blocks), self.descs(self.remote, blocks), self.peer
        )
        self.finish(handle)
        self.post += float(self.agent.get_xfer_telemetry(handle).postDuration)
        self.agent.release_xfer_handle(handle)

    def each(self, blocks: Blocks, per: int) -> None:
        """Write blocks in transfers of `per` blocks, one after another."""
        for start in range(0, len(blocks), per):
            self.send(blocks[start : start + per])

    def reregister(self, blocks: Blocks) -> None:
        """Write blocks one by one, each registered before and deregistered after."""
        for at, size, _ in blocks:
            kind, base, gpu = self.local
            own = self.agent.register_memory([(base + at, size, gpu, "")], kind)
            self.send([(at, size, 0)])
            self.agent.deregister_memory(own)

    def prepared(self, blocks: Blocks) -> Callable[[], None]:
        """All blocks in one transfer whose lists are prepared once: what is to be timed."""
        local = self.agent.prep_xfer_dlist("NIXL_INIT_AGENT", self.descs(self.local, blocks))
        remote = self.agent.prep_xfer_dlist(self.peer, self.descs(self.remote, blocks))
        order = list(range(len(blocks)))

        def run() -> None:
            handle = self.agent.make_prepped_xfer("WRITE", local, order, remote, order, self.peer)
            self.finish(handle)
            self.post += float(self.agent.get_xfer_telemetry(handle).postDuration)
            self.agent.release_xfer_handle(handle)

        return run

    def timed(self, how: str, blocks: Blocks, per: int, run: Callable[[], None]) -> str:
        """A row of the table: the fastest of a few runs in ms, a block in µs, GB/s, and NIXL's own posting time."""
        spans = []
        for _ in range(REPEAT):
            self.post = 0.0
            begin = time.perf_counter()
            run()
            spans.append(time.perf_counter() - begin)
            if spans[-1] > ENOUGH:
                break
        seconds, count, size = min(spans), len(blocks), blocks[0][1]
        cells = (self.name, how, size, count, per, f"{seconds * 1e3:.3f}", f"{seconds / count * 1e6:.2f}",
                 f"{size * count / seconds / 1e9:.3f}", f"{self.post:.0f}")  # fmt: skip
        return row(cells)

    def rows(self) -> Iterator[str]:
        """The cases: block size, blocks a transfer, contiguity, prepared lists, registration again and again."""
        whole = total(self.name)
        for size in BLOCKS:
            count = min(MOST, whole // size)
            blocks: Blocks = [(i * size, size, 0) for i in range(count)]
            single = blocks[:SINGLE]
            yield self.timed("one_by_one", single, 1, partial(self.each, single, 1))
            yield self.timed("batched", blocks, count, partial(self.send, blocks))
            yield self.timed("prepared", blocks, count, self.prepared(blocks))
            if size == BLOCKS[0]:
                for per in BATCHES:
                    yield self.timed("batched", blocks, per, partial(self.each, blocks, per))
                # every second block first, so that neighbours cannot be merged
                apart = blocks[::2] + blocks[1::2]
                yield self.timed("scattered", apart, count, partial(self.send, apart))
                yield self.timed("reregistered", single, 1, partial(self.reregister, single))
        yield self.timed("contiguous", [(0, whole, 0)], 1, partial(self.send, [(0, whole, 0)]))


def sweep(name: str) -> Iterator[str]:
    """Lines of the table for one pair of memories."""
    near, far = PAIRS[name]
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=target, args=(there, name), daemon=True)
    other.start()
    agent = _agent("initiator")
    size = total(name)
    area = memory(near, size)
    area.fill()
    agent.register_memory([(area.address, size, area.gpu, "")], near)
    if not here.poll(30):
        raise RuntimeError("the other process did not come up")
    metadata, remote, gpu = here.recv()
    here.send(agent.get_agent_metadata())
    peer = agent.add_remote_agent(metadata)
    said = peer if isinstance(peer, str) else peer.decode()
    work = Sweep(agent, name, (near, area.address, area.gpu), (far, remote, gpu), said)
    work.send([(0, BLOCKS[0], 0)])  # the connection is made by the first transfer
    if gpus := [f"GPU {n}" for kind, n in ((near, area.gpu), (far, gpu)) if kind == "VRAM"]:
        yield f"# from and to: {' and '.join(gpus)}"
    yield from work.rows()
    here.send("end")
    yield f"# data arrived: {'yes' if here.poll(10) and here.recv() else 'NO'}"


def main() -> None:
    """Print the table, then leave without clean-up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", default="DRAM", choices=sorted(PAIRS))
    name = parser.parse_args().memory
    code = 0
    try:
        from importlib.metadata import version

        print(f"{HEAD} UCX backend, {' to '.join(PAIRS[name])}, two processes of one host, nixl {version('nixl')}")
        print(row(COLUMNS), flush=True)
        for line in sweep(name):
            print(line, flush=True)
    except Exception as err:  # whatever a backend raises is the result here
        print(f"# failed: {type(err).__name__}: {err}")
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
