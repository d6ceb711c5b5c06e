"""Transfers: host and device over the link, copies beside compute, and between GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .bench_rows import Ceilings, Entry, Limit, Row, duration, rate
from .cuda_device import FLOAT, INT, LONG, SEED, CudaError, Device, NotHere, Sample, call

KIB, MIB = 1 << 10, 1 << 20
SIZES = (64 * KIB, MIB, 16 * MIB, 256 * MIB)
BOUNCED = "every word compared after a copy there and back"


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def _wall(work: Callable[[], None], reps: int) -> Sample:
    """Host time of a call that returns when the copy is done, microseconds."""
    times = []
    for rep in range(reps + 2):
        begin = time.perf_counter()
        work()
        call("cuStreamSynchronize", 0)
        if rep >= 2:
            times.append((time.perf_counter() - begin) * 1e6)
    return Sample(tuple(times))


def host_copies(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """Host to device and back, from pageable and from pinned memory, by size."""
    limit = ceilings.pcie()
    largest = SIZES[-1]
    with device.memory() as memory:
        gpu = memory.filled(largest)
        pattern = memory.filled(largest)
        for kind, host in (("pinned", memory.pinned(largest)), ("pageable", memory.pageable(largest))):
            call("cuMemcpyDtoH", host, pattern, largest)
            call("cuMemsetD8", gpu, 0, largest)
            call("cuMemcpyHtoD", gpu, host, largest)
            memory.expect_pattern(gpu, largest, f"{kind} copies, there and back")
            for direction in ("h2d", "d2h"):
                for size in SIZES:
                    yield limit.on(_host_copy(device, kind, direction, gpu, host, size))


def _host_copy(device: Device, kind: str, direction: str, gpu: int, host: int, size: int) -> Row:
    function, ends = ("cuMemcpyHtoD", (gpu, host)) if direction == "h2d" else ("cuMemcpyDtoH", (host, gpu))
    reps = 5 if size == SIZES[-1] else 15
    label = f"{direction}_{_size(size).replace(' ', '')}"
    way = "host to device" if direction == "h2d" else "device to host"
    # Pinned copies are asynchronous: events time them. Pageable ones are staged by the host.
    if kind == "pinned":
        sample = device.time(lambda: call(f"{function}Async", *ends, size, 0), reps=reps)
    else:
        sample = _wall(lambda: call(function, *ends, size), reps)
    return rate(
        sample, size, name=f"{kind}_{label}", group="transfer", unit="GB/s", checked=BOUNCED,
        twin=None if kind == "pinned" else f"pinned_{label}", what=f"{kind} memory, {way}, {_size(size)}",
        params={"bytes": size, "clock": "events" if kind == "pinned" else "host"},
    )  # fmt: skip


@contextmanager
def _streams(count: int) -> Iterator[list[Any]]:
    """Streams that do not wait for the default one."""
    streams = [call("cuStreamCreate", 1) for _ in range(count)]
    try:
        yield streams
    finally:
        for stream in streams:
            call("cuStreamDestroy", stream)


def overlap(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """A pinned copy beside a kernel on another stream: the share of the shorter one that is hidden."""
    size, reps = 256 * MIB, 7
    with device.memory() as memory, _streams(2) as (one, two):
        gpu, out = memory.alloc(size), memory.alloc(device.sms * 8 * 256 * 4)
        hosts = {"pinned": memory.pinned(size), "pageable": memory.pageable(size)}

        def kernel_of(turns: int) -> Callable[[Any], None]:
            return device.kernel(
                "compute", "fma_peak", device.sms * 8, 256, (LONG, out), (FLOAT, 0.999), (FLOAT, 0.5), (INT, turns)
            )

        def wall(*work: Callable[[], None]) -> float:
            times = []
            for _ in range(reps):
                device.sync()
                begin = time.perf_counter()
                for step in work:
                    step()
                device.sync()
                times.append((time.perf_counter() - begin) * 1e6)
            return sorted(times)[reps // 2]

        def copy(host: int, stream: Any) -> Callable[[], None]:
            return lambda: call("cuMemcpyHtoDAsync", gpu, host, size, stream)

        probe = kernel_of(1024)
        probe(one)
        per_turn = wall(lambda: probe(one)) / 1024
        for kind, host in hosts.items():
            alone = wall(copy(host, two))
            kernel = kernel_of(max(1, int(alone / per_turn)))  # as long as the copy
            compute = wall(lambda k=kernel: k(one))  # type: ignore[misc]
            # The copy first: a pageable one holds the host until it is staged, so that the kernel starts late.
            both = wall(copy(host, two), lambda k=kernel: k(one))  # type: ignore[misc]
            hidden = max(0.0, min(1.0, (alone + compute - both) / min(alone, compute)))
            yield Row(
                name=f"overlap_{kind}", group="transfer", unit="fraction", value=hidden, p10=hidden, p90=hidden,
                reps=reps, what=f"share of a {kind} copy hidden behind a kernel as long", checked="host clock",
                limit=1.0, limit_source="all of it", twin=None if kind == "pinned" else "overlap_pinned",
                params={"copy_us": round(alone, 1), "kernel_us": round(compute, 1), "both_us": round(both, 1)},
            )  # fmt: skip


def peer(device: Device, ceilings: Ceilings) -> Iterator[Row]:
    """To the next GPU: bandwidth one way and both ways, and the latency of 8 bytes."""
    if device.count < 2:
        raise NotHere("one GPU is visible: a copy between GPUs needs two")
    other = Device((device.index + 1) % device.count)
    direct = all(int(call("cuDeviceCanAccessPeer", a.handle, b.handle)) for a, b in ((device, other), (other, device)))
    if direct:
        for here, there in ((device, other), (other, device)):
            here.use()
            try:
                call("cuCtxEnablePeerAccess", there.context, 0)
            except CudaError as err:
                if "ALREADY_ENABLED" not in err.message:
                    raise
    size = device.fit(512 * MIB, 4)
    pair = f"GPU {device.index} and {other.index}"
    try:
        other.use()
        with other.memory() as far:
            theirs = far.filled(size, SEED + 1), far.alloc(size)
            other.sync()
            device.use()
            with device.memory() as near:
                ours = near.filled(size), near.alloc(size)
                device.sync()
                limit = _peer_limit(ceilings, direct)
                rows = list(_peer_rows(device, other, ours, theirs, size, direct, limit, pair))
                near.expect_pattern(ours[1], size, "peer copy, towards this GPU", SEED + 1)
            other.use()
            far.expect_pattern(theirs[1], size, "peer copy, away from this GPU")
    finally:
        device.use()
    yield from rows


def _peer_limit(ceilings: Ceilings, direct: bool) -> Limit:
    if not direct:
        return Limit(None, "", reason="no peer access: the copy goes through host memory")
    product = ceilings.product
    if product is not None and product.switched and product.links:
        return ceilings.nvlink()
    return Limit(None, "", reason="peer access is there, but the path (NVLink bridge or PCIe) is not known from here")


def _peer_rows(
    device: Device,
    other: Device,
    ours: tuple[int, int],
    theirs: tuple[int, int],
    size: int,
    direct: bool,
    limit: Limit,
    pair: str,
) -> Iterator[Row]:
    def away(amount: int = size, stream: Any = 0) -> None:
        call("cuMemcpyPeerAsync", theirs[1], other.context, ours[0], device.context, amount, stream)

    def back(amount: int = size, stream: Any = 0) -> None:
        call("cuMemcpyPeerAsync", ours[1], device.context, theirs[0], other.context, amount, stream)

    how = "peer to peer" if direct else "through the host"
    checked = "every word compared"
    for name, what, work in (
        ("peer_write", f"{pair}: to the other", away),
        ("peer_read", f"{pair}: from the other", back),
    ):
        yield limit.on(
            rate(device.time(work, reps=8), size, name=name, group="transfer", unit="GB/s", checked=checked,
                 what=f"{pair}: {what}, {how}", params={"bytes": size})
        )  # fmt: skip
    with _streams(2) as (one, two):

        def both() -> None:
            away(stream=one)
            back(stream=two)

        row = rate(
            _both_wall(device, both, 8), 2 * size, name="peer_both", group="transfer", unit="GB/s", checked=checked,
            what=f"{pair}: both ways at once, sum", params={"bytes": 2 * size},
        )  # fmt: skip
        row.limit, row.limit_source, row.reason = limit.value and 2 * limit.value, limit.source, limit.reason
        if limit.value:
            row.limit_source = f"2 x ({limit.source})"
        yield row
    row = duration(device.time(lambda: away(8), reps=50), name="peer_latency", group="transfer", checked="events",
                   what=f"{pair}: copy of 8 bytes, {how}")  # fmt: skip
    row.reason = "no published figure"
    yield row


def _both_wall(device: Device, work: Callable[[], None], reps: int) -> Sample:
    times = []
    for rep in range(reps + 2):
        device.sync()
        begin = time.perf_counter()
        work()
        device.sync()
        if rep >= 2:
            times.append((time.perf_counter() - begin) * 1e6)
    return Sample(tuple(times))


ENTRIES = (
    Entry("host", "pageable and pinned copies both ways over sizes", host_copies, 8, 512 * MIB, "takes the PCIe link"),
    Entry("overlap", "copies beside compute", overlap, 4, 300 * MIB, "takes the PCIe link and all multiprocessors"),
    Entry("peer", "copies between two GPUs", peer, 3, 1 << 30, "takes the link between two GPUs, and memory on both"),
)  # fmt: skip
