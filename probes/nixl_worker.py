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
TOTAL = 8 << 20
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


def host_memory(size: int) -> tuple[int, Any]:
    """Address of zeroed host memory, and what keeps it alive."""
    area = mmap.mmap(-1, size)
    return ctypes.addressof(ctypes.c_char.from_buffer(area)), area


def gpu_memory(size: int) -> tuple[int, Any]:
    """Address of memory of GPU 0 by the driver API alone; raises OSError where there is none."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, address = ctypes.c_void_p(), ctypes.c_uint64()
    steps: tuple[Callable[[], int], ...] = (
        lambda: int(cuda.cuInit(0)),
        lambda: int(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)),
        lambda: int(cuda.cuCtxSetCurrent(context)),
        lambda: int(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))),
    )
    for step in steps:
        if (code := step()) != 0:
            raise OSError(f"CUDA error {code}")
    return int(address.value), context


MEMORY: dict[str, Callable[[int], tuple[int, Any]]] = {"DRAM": host_memory, "VRAM": gpu_memory}


def _agent(name: str) -> Any:
    from nixl._api import nixl_agent, nixl_agent_config

    return nixl_agent(name, nixl_agent_config(backends=["UCX"], capture_telemetry=True))


def target(pipe: Connection, memory: str) -> None:
    """The process that is written to."""
    agent = _agent("target")
    address, keep = MEMORY[memory](TOTAL)
    agent.register_memory([(address, TOTAL, 0, "")], memory)
    pipe.send((agent.get_agent_metadata(), address))
    agent.add_remote_agent(pipe.recv())
    while not pipe.poll(0):
        agent.get_new_notifs()  # this side makes progress only while it is asked to
        os.sched_yield()
    pipe.recv()
    right = memory != "DRAM" or bytes(keep[:8]) == b"\1" * 8
    pipe.send(right)
    time.sleep(0.05)
    os._exit(0)


def row(cells: Iterable[object]) -> str:
    """A line of the table."""
    return " ".join(f"{cell!s:>{WIDTH}}" for cell in cells)


class Sweep:
    """The side that writes, and times."""

    def __init__(self, agent: Any, memory: str, local: int, remote: int, peer: str) -> None:
        self.agent, self.memory, self.local, self.remote, self.peer = agent, memory, local, remote, peer
        self.post = 0.0
        self.registered: Any = None

    def descs(self, base: int, blocks: Blocks) -> Any:
        return self.agent.get_xfer_descs([(base + at, size, 0) for at, size, _ in blocks], self.memory)

    def finish(self, handle: Any) -> None:
        state = self.agent.transfer(handle)
        while state == "PROC":
            state = self.agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"a transfer ended as {state}")

    def send(self, blocks: Blocks) -> None:
        handle = self.agent.initialize_xfer(
            "WRITE", self.descs(self.local, blocks), self.descs(self.remote, blocks), self.peer
        )
        self.finish(handle)
        self.post += float(self.agent.get_xfer_telemetry(handle).postDuration)
        self.agent.release_xfer_handle(handle)

    def each(self, blocks: Blocks, per: int) -> None:
        for start in range(0, len(blocks), per):
            self.send(blocks[start : start + per])

    def reregister(self, blocks: Blocks) -> None:
        for at, size, _ in blocks:
            own = self.agent.register_memory([(self.local + at, size, 0, "")], self.memory)
            self.send([(at, size, 0)])
            self.agent.deregister_memory(own)

    def prepared(self, blocks: Blocks) -> Callable[[], None]:
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
        spans = []
        for _ in range(REPEAT):
            self.post = 0.0
            begin = time.perf_counter()
            run()
            spans.append(time.perf_counter() - begin)
            if spans[-1] > ENOUGH:
                break
        seconds, count, size = min(spans), len(blocks), blocks[0][1]
        cells = (self.memory, how, size, count, per, f"{seconds * 1e3:.3f}", f"{seconds / count * 1e6:.2f}",
                 f"{size * count / seconds / 1e9:.3f}", f"{self.post:.0f}")  # fmt: skip
        return row(cells)

    def rows(self) -> Iterator[str]:
        """The cases: block size, blocks a transfer, contiguity, prepared lists, registration again and again."""
        for size in BLOCKS:
            count = min(MOST, TOTAL // size)
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
        yield self.timed("contiguous", [(0, TOTAL, 0)], 1, partial(self.send, [(0, TOTAL, 0)]))


def sweep(memory: str) -> Iterator[str]:
    """Lines of the table for one kind of memory."""
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=target, args=(there, memory), daemon=True)
    other.start()
    agent = _agent("initiator")
    local, keep = MEMORY[memory](TOTAL)
    if memory == "DRAM":
        keep[:] = b"\1" * TOTAL
    agent.register_memory([(local, TOTAL, 0, "")], memory)
    if not here.poll(30):
        raise RuntimeError("the other process did not come up")
    metadata, remote = here.recv()
    here.send(agent.get_agent_metadata())
    peer = agent.add_remote_agent(metadata)
    work = Sweep(agent, memory, local, remote, peer if isinstance(peer, str) else peer.decode())
    work.send([(0, BLOCKS[0], 0)])  # the connection is made by the first transfer
    yield from work.rows()
    here.send("end")
    yield f"# data arrived: {'yes' if here.poll(10) and here.recv() else 'NO'}"


def main() -> None:
    """Print the table, then leave without clean-up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", default="DRAM", choices=sorted(MEMORY))
    memory = parser.parse_args().memory
    code = 0
    try:
        from importlib.metadata import version

        print(f"{HEAD} UCX backend, {memory} to {memory}, two processes of one host, nixl {version('nixl')}")
        print(row(COLUMNS), flush=True)
        for line in sweep(memory):
            print(line, flush=True)
    except Exception as err:  # whatever a backend raises is the result here
        print(f"# failed: {type(err).__name__}: {err}")
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
