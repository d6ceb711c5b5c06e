"""A sweep of one collective over sizes with `torch.distributed`, printed in the columns of nccl-tests.

Run as a program: ``python -m diagnose.probes.nccl_sweep_worker --op all_reduce --gpus 0,1``. Needs
torch with NCCL; of this package only the byte counters, where it is there. One process a GPU; CUDA events around each
iteration; the time of a row is the mean over ranks of each rank's mean, as nccl-tests has it.
After the table stands what each rank saw at the largest size, then on request a lockstep part (fixed
matrix products, then one all-reduce, a step) that shows a rank which is slower than the others, and the
byte counters of NVLink, PCIe and network around a run of known bytes.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Any

OPS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv", "broadcast")
_BLANK, _COLUMNS = " " * 62, "    time   algbw   busbw  #wrong"
_HEAD = "\n".join(
    [
        f"#{_BLANK}out-of-place                       in-place          ",
        f"#       size         count      type   redop    root {_COLUMNS} {_COLUMNS}",
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)"
        "             (us)  (GB/s)  (GB/s)",
    ]
)
LOCKSTEP_STEPS, LOCKSTEP_SIDE, LOCKSTEP_BYTES = 20, 4096, 1 << 26
COUNTED_BYTES, COUNTED_US, COUNTED_MOST = 1 << 28, 1.5e6, 20000  # of the run whose bytes are counted


def factor(op: str, ranks: int) -> float:
    """busbw / algbw as in nccl-tests' PERFORMANCE.md."""
    if op == "all_reduce":
        return 2 * (ranks - 1) / ranks
    return (ranks - 1) / ranks if op in ("all_gather", "reduce_scatter", "alltoall") else 1.0


def _call(op: str, size: int, rank: int, ranks: int, in_place: bool) -> tuple[Any, int] | None:
    """A closure that does the collective once, and the elements that the table names; None where there is none."""
    import torch
    import torch.distributed as dist

    count = max(size // 4, ranks)
    share = max(count // ranks, 1)
    whole = torch.ones(share * ranks, dtype=torch.float32, device="cuda")
    part = torch.ones(share, dtype=torch.float32, device="cuda")
    if op == "all_reduce":
        data = torch.ones(count, dtype=torch.float32, device="cuda")
        return (lambda: dist.all_reduce(data)), count
    if in_place:
        return None
    if op == "all_gather":
        return (lambda: dist.all_gather_into_tensor(whole, part)), share
    if op == "reduce_scatter":
        return (lambda: dist.reduce_scatter_tensor(part, whole)), share
    if op == "alltoall":
        other = torch.empty_like(whole)
        return (lambda: dist.all_to_all_single(other, whole)), share
    if op == "broadcast":
        data = torch.ones(count, dtype=torch.float32, device="cuda")
        return (lambda: dist.broadcast(data, 0)), count
    out, into = torch.ones(count, device="cuda"), torch.empty(count, device="cuda")

    def exchange() -> None:
        pair = [
            dist.P2POp(dist.isend, out, (rank + 1) % ranks),
            dist.P2POp(dist.irecv, into, (rank - 1) % ranks),
        ]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return exchange, count


def _timed(call: Any, warm: int, iterations: int) -> float:
    """Mean microseconds of one call, by CUDA events."""
    import torch
    import torch.distributed as dist

    for _ in range(warm):
        call()
    dist.barrier()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(iterations):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e3 / iterations


def _gathered(value: float, ranks: int) -> list[float]:
    import torch
    import torch.distributed as dist

    out = torch.zeros(ranks, dtype=torch.float64, device="cuda")
    dist.all_gather_into_tensor(out, torch.tensor([value], dtype=torch.float64, device="cuda"))
    return [float(x) for x in out.cpu()]


def rank_main(local: int, args: argparse.Namespace, gpus: list[int]) -> None:
    """One rank."""
    import torch
    import torch.distributed as dist

    ranks = len(gpus)
    torch.cuda.set_device(gpus[local])
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ["MASTER_PORT"] = str(args.port)
    dist.init_process_group("nccl", rank=local, world_size=ranks, device_id=torch.device("cuda", gpus[local]))
    sizes = []
    size = args.minbytes
    while size <= args.maxbytes:
        sizes.append(size)
        size *= args.factor
    ids = [""] * ranks
    name = torch.cuda.get_device_name()
    bus = getattr(torch.cuda.get_device_properties(gpus[local]), "pci_bus_id", 0)
    dist.all_gather_object(ids, f"#  Rank {local:2d} Group  0 Pid {os.getpid():6d} on {socket.gethostname():>10.10} "
                                f"device {gpus[local]:2d} [0x{bus:02x}] {name}")  # fmt: skip
    head = local == 0
    if head and args.table:
        version = ".".join(map(str, torch.cuda.nccl.version()))
        print(f"# Sweep over torch.distributed {torch.__version__}, NCCL version {version}")
        print(f"# Collective test starting: {args.op}_perf")
        print(f"# nThread 1 nGpus 1 minBytes {args.minbytes} maxBytes {args.maxbytes} step: {args.factor}(factor) "
              f"warmup iters: {args.warm} iters: {args.iters} agg iters: 1 validation: 1 graph: 0")  # fmt: skip
        print("#\n# Using devices\n" + "\n".join(ids) + "\n#\n" + _HEAD, flush=True)
    shown: list[float] = []
    last: list[float] = []
    for size in sizes if args.table else ():
        cells, count = [], 0
        iterations = args.iters if size < 1 << 26 else max(5, args.iters // 4)
        for in_place in (False, True):
            made = _call(args.op, size, local, ranks, in_place)
            if made is None:
                cells.append(f"{'N/A':>8}{'N/A':>8}{'N/A':>8}{'N/A':>8}")
                continue
            call, count = made
            times = _gathered(_timed(call, args.warm, iterations), ranks)
            mean = sum(times) / ranks
            moved = max(size // 4, 1) * 4
            bandwidth = moved / mean / 1e3
            bus_bandwidth = bandwidth * factor(args.op, ranks)
            cells.append(f"{mean:9.2f}{bandwidth:8.2f}{bus_bandwidth:8.2f}{0:8d}")
            shown.append(bus_bandwidth)
            last = times
            del made, call
        if head:
            redop = "sum" if args.op in ("all_reduce", "reduce_scatter") else "none"
            print(f"{size:12d}{count:14d}{'float':>10}{redop:>8}{-1:8d} {cells[0]}  {cells[1]}", flush=True)
    if args.table:
        _verdict(local, ranks, shown, last)
    if args.lockstep:
        _lockstep(local, ranks)
    if args.bytes:
        _counted(args.op, min(args.maxbytes, COUNTED_BYTES), local, ranks)
    dist.barrier()
    dist.destroy_process_group()


def _verdict(local: int, ranks: int, shown: list[float], last: list[float]) -> None:
    """The last lines of the table."""
    import torch
    import torch.distributed as dist

    check = torch.full((1024,), float(local + 1), device="cuda")
    dist.all_reduce(check)
    wrong = int((check != ranks * (ranks + 1) / 2).sum())
    if local == 0:
        print(f"# Out of bounds values : {wrong} {'OK' if not wrong else 'FAILED'}")
        print(f"# Avg bus bandwidth    : {sum(shown) / max(1, len(shown)):.4f}")
        print("#\n# Time by rank at the largest size")
        for rank, value in enumerate(last):
            print(f"# rank {rank}: {value:.1f} us")


def _counters() -> Any:
    """The module that reads byte counters, or None where this file runs without its package."""
    try:
        from diagnose.probes import path_counters
    except ImportError:
        print("# counters of paths: this package is not installed beside torch")
        return None
    return path_counters


def _counted(op: str, size: int, local: int, ranks: int) -> None:
    """Counters of every path before and after the same operation many times: which way the bytes went."""
    import torch.distributed as dist

    made = _call(op, size, local, ranks, False)
    if made is None:
        return
    call = made[0]
    once = sum(_gathered(_timed(call, 5, 5), ranks)) / ranks
    times = int(max(20, min(COUNTED_MOST, COUNTED_US / once)))  # the same figure on every rank
    counters = _counters() if local == 0 else None
    watch = counters.Watch(counters.start_nvml()) if counters else None
    dist.barrier()
    seconds = _timed(call, 0, times) * times / 1e6
    if counters and watch:
        moved, unknown = watch.stop(seconds)
        print("\n".join(counters.lines(counters.Work(op, size, times, ranks), seconds, moved, unknown)), flush=True)


def _lockstep(local: int, ranks: int) -> None:
    """Each step the same matrix products on every rank, then one all-reduce: who computes longer, who waits."""
    import torch
    import torch.distributed as dist

    a = torch.randn(LOCKSTEP_SIDE, LOCKSTEP_SIDE, dtype=torch.bfloat16, device="cuda")
    data = torch.ones(LOCKSTEP_BYTES // 4, device="cuda")
    marks = []
    for step in range(LOCKSTEP_STEPS + 3):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        events[0].record()
        b = a
        for _ in range(8):
            b = (a @ b).clamp_(-1, 1)
        events[1].record()
        dist.all_reduce(data)
        events[2].record()
        data.fill_(1.0)
        if step >= 3:
            marks.append(events)
    torch.cuda.synchronize()
    compute = sum(e[0].elapsed_time(e[1]) for e in marks) / len(marks)
    wait = sum(e[1].elapsed_time(e[2]) for e in marks) / len(marks)
    computes, waits = _gathered(compute, ranks), _gathered(wait, ranks)
    if local == 0:
        print(f"# Lockstep, the same work on every rank, mean ms of {LOCKSTEP_STEPS} rounds")
        for rank in range(ranks):
            print(f"# lockstep {rank} own={computes[rank]:.3f} waits={waits[rank]:.3f}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Parse, spawn one process a GPU, print."""
    parser = argparse.ArgumentParser(prog="nccl_sweep_worker", description=__doc__.partition("\n")[0])
    parser.add_argument("--op", choices=OPS, default="all_reduce")
    parser.add_argument("--gpus", default="")
    parser.add_argument("-b", "--minbytes", type=int, default=8)
    parser.add_argument("-e", "--maxbytes", type=int, default=1 << 30)
    parser.add_argument("-f", "--factor", type=int, default=4)
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--iters", type=int, default=20)
    parser.add_argument("--lockstep", action="store_true")
    parser.add_argument("--bytes", action="store_true", help="counters of each path around a run of known bytes")
    parser.add_argument("--no-table", dest="table", action="store_false")
    args = parser.parse_args(argv)
    import torch
    import torch.multiprocessing as mp

    there = torch.cuda.device_count()
    gpus = [int(g) for g in args.gpus.split(",") if g] or list(range(there))
    if len(gpus) < 2 or max(gpus) >= there:
        print(f"# needs two GPUs or more; PyTorch sees {there}")
        return 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        args.port = free.getsockname()[1]
    mp.spawn(rank_main, (args, gpus), nprocs=len(gpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
