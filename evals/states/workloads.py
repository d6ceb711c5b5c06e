"""Small training loops with one planted fault each, for recording states on a GPU host.

``python workloads.py NAME [--seconds 20]``. Each prints its step time and nothing that names the fault, which is in
the name; `healthy` is the same loop without one. Needs torch and a GPU, nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

WIDTH, BATCH = 4096, 512


def model(layers: int = 6) -> nn.Module:
    return nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(WIDTH, WIDTH), nn.GELU())])


def loop(step: Callable[[int], None], seconds: float) -> None:
    for n in range(5):
        step(n)
    torch.cuda.synchronize()
    begin, count = time.time(), 0
    while time.time() - begin < seconds:
        step(count)
        count += 1
        if count % 10 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{1e3 * (time.time() - begin) / max(count, 1):.2f} ms a step over {count} steps", flush=True)


def training(
    data: Callable[[int], torch.Tensor], after: Callable[[torch.Tensor], None] = lambda loss: None
) -> Callable[[int], None]:
    net = model().cuda().bfloat16()
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, fused=True)

    def step(n: int) -> None:
        loss = net(data(n)).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def healthy(seconds: float) -> None:
    batch = torch.randn(8 * BATCH, WIDTH, device="cuda", dtype=torch.bfloat16)
    loop(training(lambda n: batch), seconds)


class Slow(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> torch.Tensor:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:  # decoding
            pass
        return torch.zeros(WIDTH, dtype=torch.bfloat16)


def input_bound(seconds: float) -> None:
    source = iter(torch.utils.data.DataLoader(Slow(), batch_size=BATCH, num_workers=2))
    loop(training(lambda n: next(source).cuda()), seconds)


def launch_bound(seconds: float) -> None:
    xs = torch.randn(64, 256, device="cuda")

    def step(n: int) -> None:
        x = xs
        for _ in range(400):
            x = torch.tanh(x * 1.01 + 0.1)

    loop(step, seconds)


def sync_stalls(seconds: float) -> None:
    batch = torch.randn(2048, 16384, device="cuda", dtype=torch.bfloat16)

    def step(n: int) -> None:
        x = batch
        for _ in range(60):  # each kernel is ten times as long as its launch, so only the read-back makes it wait
            x = torch.tanh(x)
            if x[0, 0].item() > 2:
                raise SystemExit("diverged")

    with torch.no_grad():
        loop(step, seconds)


def pageable_copies(seconds: float) -> None:
    host = torch.zeros(4 * BATCH, WIDTH * 4, dtype=torch.bfloat16)  # not pinned

    def data(n: int) -> torch.Tensor:
        return host.to("cuda", non_blocking=True)[:, :WIDTH]

    loop(training(data), seconds)


def pinned_copies(seconds: float) -> None:
    host = torch.zeros(4 * BATCH, WIDTH * 4, dtype=torch.bfloat16).pin_memory()
    loop(training(lambda n: host.to("cuda", non_blocking=True)[:, :WIDTH]), seconds)


def _group() -> int:
    import torch.distributed as dist

    local = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(local)
    dist.init_process_group("nccl", device_id=torch.device("cuda", local))
    return local


def _ddp(seconds: float, overlap: bool, late: float) -> None:
    import torch.distributed as dist

    local = _group()
    net: nn.Module = model(10).cuda().bfloat16()
    batch = torch.randn(2 * BATCH, WIDTH, device="cuda", dtype=torch.bfloat16)
    if overlap:
        net = nn.parallel.DistributedDataParallel(net, device_ids=[local], gradient_as_bucket_view=True)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-6, fused=True)
    extra = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    def step(n: int) -> None:
        if late and local == 1:
            for _ in range(int(late)):
                extra @ extra
        net(batch).square().mean().backward()
        if not overlap:
            for p in net.parameters():
                dist.all_reduce(p.grad)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    # every rank does the same number of steps, or the last collective would hang
    for n in range(5):
        step(n)
    torch.cuda.synchronize()
    dist.barrier()
    begin = time.time()
    for n in range(20):
        step(n)
    torch.cuda.synchronize()
    each = (time.time() - begin) / 20
    count = torch.tensor([int(seconds / each)], device="cuda")
    dist.broadcast(count, 0)
    for n in range(int(count)):
        step(n)
    torch.cuda.synchronize()
    if local == 0:
        print(f"{1e3 * each:.2f} ms a step", flush=True)
    dist.destroy_process_group()


def ddp_overlap(seconds: float) -> None:
    _ddp(seconds, True, 0)


def no_overlap(seconds: float) -> None:
    _ddp(seconds, False, 0)


def straggler(seconds: float) -> None:
    _ddp(seconds, True, 12)


def tp_decode(seconds: float) -> None:
    """Decode steps of an 8B Llama shape split over all ranks: its GEMMs and 64 all-reduces in one CUDA graph."""
    import torch.distributed as dist

    local, world = _group(), int(os.environ["WORLD_SIZE"])
    hidden, inner, heads, kv, layers, vocabulary = 4096, 14336, 32, 8, 32, 128256

    def weight(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.01

    blocks = [
        (weight(hidden, (heads + 2 * kv) * 128 // world), weight(heads * 128 // world, hidden),
         weight(hidden, 2 * inner // world), weight(inner // world, hidden))
        for _ in range(layers)
    ]  # fmt: skip
    last = weight(hidden, vocabulary // world)

    def step(x: torch.Tensor) -> torch.Tensor:
        for qkv, out, up, down in blocks:
            y = (x @ qkv)[:, : heads * 128 // world] @ out
            dist.all_reduce(y)
            x = x + y
            y = (x @ up)[:, : inner // world] @ down
            dist.all_reduce(y)
            x = x + y
        return x @ last

    for batch in (1, 8, 32, 128):
        x = torch.randn(batch, hidden, device="cuda", dtype=torch.bfloat16)
        for _ in range(3):
            step(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(x)
        times = []
        for _ in range(60):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        if local == 0:
            size = 2 * (sum(w.numel() for block in blocks for w in block) + last.numel())
            what = f"TP {world}, batch {batch}, {size / 1e9:.3f} GB of weights a GPU"
            sums = f"{2 * layers} all-reduces of {2 * batch * hidden} B"
            print(f"tp_decode: {what}, {sums}: median {sorted(times)[30]:.3f} ms a step", flush=True)
    dist.destroy_process_group()


def busy(seconds: float) -> None:
    """A neighbour on the GPU named by BUSY_GPU."""
    device = f"cuda:{os.environ.get('BUSY_GPU', '0')}"
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    end = time.time() + seconds
    while time.time() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize(device)


NAMES = {
    f.__name__: f
    for f in (
        healthy, input_bound, launch_bound, sync_stalls, pageable_copies, pinned_copies, ddp_overlap, no_overlap,
        straggler, tp_decode, busy,
    )
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES))
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    NAMES[given.name](given.seconds)
    sys.stdout.flush()
