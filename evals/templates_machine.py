# ruff: noqa: E501 (lines as tools print them)
"""Mechanisms of GPUs, hosts, training loops, kernels and installations, as their tools print them."""

from __future__ import annotations

from .templates import Artifacts, Draw, mechanism


@mechanism("gpu.clock_throttled", "One GPU is slower than its neighbours under full load.", "满载时有一张卡明显更慢")
def thermal(d: Draw) -> Artifacts:
    act = "Active" if d.sick else "Not Active"
    sm = d.either((900, 1300), (1950, 1980))
    return [
        (
            "nvidia_smi",
            f"""GPU 00000000:1B:00.0
    Clocks Event Reasons
        Idle                              : Not Active
        Applications Clocks Setting       : Not Active
        SW Power Cap                      : Not Active
        HW Slowdown                       : {act}
            HW Thermal Slowdown           : {act}
            HW Power Brake Slowdown       : Not Active
        SW Thermal Slowdown               : Not Active
    Utilization
        GPU                               : {d.num(97, 100)} %
    Temperature
        GPU Current Temp                  : {d.either((88, 94), (55, 66))} C
        GPU Slowdown Temp                 : 90 C
    Clocks
        SM                                : {sm} MHz
    Max Clocks
        SM                                : 1980 MHz""",
        )
    ]


@mechanism(
    "gpu.pcie_degraded",
    "Host-to-device copies on one card are a fraction of the others.",
    "有一张卡拷贝带宽只有别人的几分之一",
)
def pcie(d: Draw) -> Artifacts:
    width, speed = ("4", "16GT/s") if d.sick else ("16", "16GT/s")
    note = " (downgraded)" if d.sick else ""
    rows = [[i, f"{(d.num(5.8, 6.4, 1) if d.sick and i == 2 else d.num(24.6, 25.4, 1))} GB/s"] for i in range(4)]
    return [
        (
            "lspci",
            f"LnkCap:\tPort #0, Speed 16GT/s, Width x16, ASPM not supported\n\t\tLnkSta:\tSpeed {speed}, Width x{width}{note}",
        ),
        ("bandwidth", d.table(["GPU", "H2D pinned"], rows)),
    ]


@mechanism("gpu.ecc_or_xid", "Job dies and the GPU is gone from nvidia-smi.", "任务崩了，nvidia-smi 里卡也不见了")
def fallen(d: Draw) -> Artifacts:
    t = d.num(1000, 900000)
    sick = [
        f"[{t}.123456] NVRM: GPU at PCI:0000:4e:00: GPU-7d5f1b2c",
        f"[{t}.123460] NVRM: Xid (PCI:0000:4e:00): {d.pick(79, 79, 48, 95)}, pid='<unknown>', name=<unknown>, "
        + "GPU has fallen off the bus.",
    ]
    return [
        (
            "dmesg",
            "\n".join(
                sick
                if d.sick
                else [
                    f"[{t}.123456] nvidia 0000:4e:00.0: enabling device (0140 -> 0142)",
                    f"[{t}.2] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15",
                ]
            ),
        )
    ]


@mechanism(
    "gpu.contention", "Same job, same GPU model, half the speed on this machine.", "同样的任务在这台机器上只有一半速度"
)
def neighbour(d: Draw) -> Artifacts:
    a, b = int(d.num(1000, 50000)), int(d.num(50001, 99999))
    rows = [
        f"|    0   N/A  N/A          {a}      C   python train.py                          {d.num(21000, 30000)}MiB |"
    ]
    if d.sick:
        rows.append(
            f"|    0   N/A  N/A          {b}      C   /usr/bin/python3 other_user.py           {d.num(15000, 30000)}MiB |"
        )
    pmon = (
        f"# gpu         pid   type     sm    mem    enc    dec    jpg    ofa    command\n    0      {a}     C     {d.either((44, 55), (95, 98))}     20      -      -      -      -    python"
        + (
            f"\n    0      {b}     C     {d.num(42, 52)}     18      -      -      -      -    python3"
            if d.sick
            else ""
        )
    )
    return [
        (
            "nvidia_smi",
            "| Processes:                                                                              |\n"
            + "\n".join(rows),
        ),
        ("pmon", "$ nvidia-smi pmon -c 1\n" + pmon),
    ]


@mechanism(
    "gpu.out_of_memory_capacity",
    "CUDA out of memory when loading the model.",
    "加载模型时显存不够",
    also=("gpu.out_of_memory_fragmentation",),
)
def oom(d: Draw) -> Artifacts:
    free = d.num(12, 300, 2)
    if d.sick:
        return [
            (
                "torch_log",
                f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {d.num(1, 4, 2)} GiB. GPU 0 has a total capacity of 23.64 GiB of which {free} MiB is free. Process {d.num(100, 9999)} has 23.2 GiB memory in use. Of the allocated memory {d.num(22, 22.8, 2)} GiB is allocated by PyTorch, and {d.num(10, 60, 2)} MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
            )
        ]
    return [
        (
            "torch_log",
            f"max_memory_allocated {d.num(9, 12, 1)} GiB, max_memory_reserved {d.num(12.2, 13, 1)} GiB of 79.1 GiB",
        )
    ]


@mechanism(
    "gpu.out_of_memory_fragmentation",
    "OOM after hours although usage per step is the same.",
    "跑几个小时后 OOM，每步显存都一样",
    also=(),
)
def fragments(d: Draw) -> Artifacts:
    if d.sick:
        return [
            (
                "torch_log",
                f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {d.num(1, 2, 2)} GiB. GPU 0 has a total capacity of 79.10 GiB of which {d.num(100, 600, 2)} MiB is free. Of the allocated memory {d.num(48, 55, 2)} GiB is allocated by PyTorch, and {d.num(18, 26, 2)} GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
            )
        ]
    return [("torch_log", f"step 12000 memory allocated 52.1 GiB reserved 53.{d.num(0, 9)} GiB of 79.1 GiB")]


@mechanism(
    "gpu.driver_mismatch", "nvidia-smi stopped working after last night's update.", "昨晚更新后 nvidia-smi 不能用了"
)
def driver(d: Draw) -> Artifacts:
    new = f"5{d.num(50, 75)}.{d.num(50, 170)}"
    if d.sick:
        return [
            (
                "shell",
                f"$ nvidia-smi\nFailed to initialize NVML: Driver/library version mismatch\nNVML library version: {new}\n$ cat /proc/driver/nvidia/version\nNVRM version: NVIDIA UNIX x86_64 Kernel Module  535.{d.num(100, 180)}.03",
            )
        ]
    return [
        (
            "shell",
            f"$ nvidia-smi --query-gpu=driver_version --format=csv\ndriver_version\n{new}.05\n$ cat /proc/driver/nvidia/version\nNVRM version: NVIDIA UNIX x86_64 Kernel Module  {new}.05",
        )
    ]


@mechanism(
    "host.cpu_contention",
    "Inference in the pod stutters although the GPU is idle most of the time.",
    "容器里推理一卡一卡的，GPU 大部分时间空闲",
)
def quota(d: Draw) -> Artifacts:
    periods = int(d.num(20000, 90000))
    throttled = int(periods * d.either((0.55, 0.9), (0, 0.002), 4))
    stat = f"$ cat /sys/fs/cgroup/cpu.stat\nusage_usec {d.num(10**9, 9 * 10**9)}\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {throttled * 60000}"
    return [
        ("cgroup", stat),
        ("cgroup", f"$ cat /sys/fs/cgroup/cpu.max\n{d.pick(200000, 400000) if d.sick else 'max'} 100000"),
        ("shell", "$ nproc\n128"),
    ]


@mechanism(
    "host.input_pipeline_bound", "GPU utilisation is a saw-tooth during training.", "训练时 GPU 利用率锯齿状", also=()
)
def loader(d: Draw) -> Artifacts:
    compute = d.num(0.18, 0.3, 3)
    data = compute * d.either((2, 5), (0.01, 0.03), 2)
    rows = [
        ["num_workers=2", f"{compute + data:.3f} s/it"],
        ["num_workers=16", f"{compute + (data * 0.3):.3f} s/it"],
        ["synthetic data", f"{compute:.3f} s/it"],
    ]
    return [
        ("other", d.table(["setting", "step time"], rows)),
        (
            "train_log",
            f"step 200 | data_time {data:.3f} s | forward_backward {compute:.3f} s | total {data + compute:.3f} s",
        ),
    ]


@mechanism(
    "host.pageable_copies", "Asynchronous copies do not overlap with compute.", "non_blocking 拷贝没有和计算重叠"
)
def pageable(d: Draw) -> Artifacts:
    kind = "Pageable" if d.sick else "Pinned"
    rows = f" Time (%)  Total Time (ns)  Count  Avg (ns)   Operation\n {d.num(80, 95, 1)}  {d.num(10**8, 9 * 10**8)}  400  {d.num(10**5, 10**6, 1)}  [CUDA memcpy Host-to-Device]\n\nStart (ns)  Duration (ns)  Bytes (MB)  Throughput (GB/s)  SrcMemKd  DstMemKd\n{d.num(10**6, 10**7)}  {d.num(10**6, 2 * 10**6)}  33.55  {d.either((5, 9), (24, 26), 2)}  {kind}  Device"
    return [
        ("nsys", rows),
        (
            "code",
            "loader = DataLoader(ds, batch_size=64, num_workers=8, pin_memory=%s)\nx = x.to('cuda', non_blocking=True)"
            % (not d.sick),
        ),
    ]


@mechanism("host.memory_pressure", "The worker disappears without a Python traceback.", "进程没有任何报错就消失了")
def killed(d: Draw) -> Artifacts:
    if d.sick:
        return [
            (
                "dmesg",
                f"[{d.num(1000, 99999)}.5] Memory cgroup out of memory: Killed process {d.num(1000, 99999)} (python) total-vm:{d.num(10**8, 2 * 10**8)}kB, anon-rss:{d.num(6 * 10**7, 9 * 10**7)}kB, file-rss:120kB, shmem-rss:0kB, UID:0 pgtables:1200kB oom_score_adj:985",
            )
        ]
    return [
        (
            "shell",
            f"$ free -g\n               total        used        free      shared  buff/cache   available\nMem:            1007         {d.num(90, 200)}         600           2         250         {d.num(780, 880)}\nSwap:              0           0           0",
        )
    ]


@mechanism("host.storage_slow", "Checkpoint loading takes many minutes.", "加载 checkpoint 要好几分钟", also=())
def storage(d: Draw) -> Artifacts:
    gb = d.num(130, 145, 1)
    rate = d.either((0.12, 0.35), (5.2, 6.5), 2)
    io = f"Device            r/s     rkB/s   rrqm/s  %rrqm r_await rareq-sz  aqu-sz  %util\nnfs0         {d.num(200, 900, 2)}  {rate * 1e6:.2f}     0.00   0.00  {d.either((80, 240), (0.3, 0.9), 2)}   512.00   {d.either((30, 64), (0.5, 2), 2)}  {d.either((99, 100), (10, 30), 2)}"
    return [
        ("vllm_log", f"INFO {d.clock} [default_loader.py:262] Loading weights took {gb / rate:.2f} seconds"),
        ("iostat", io),
        ("shell", f"$ du -sh model/\n{gb:.0f}G\tmodel/"),
    ]


@mechanism(
    "host.numa_misplacement",
    "Copies to half of the GPUs are slower unless the process is bound.",
    "不绑核的话一半的卡拷贝变慢",
    also=(),
)
def numa(d: Draw) -> Artifacts:
    near = d.num(52, 55, 1)
    rows = [
        ["numactl --cpunodebind=0 --membind=0", f"{near} GB/s"],
        ["numactl --cpunodebind=1 --membind=1", f"{near * d.either((0.4, 0.65), (0.98, 1.01), 2):.1f} GB/s"],
    ]
    return [
        ("other", d.table(["binding (GPU 0 is on NUMA node 0)", "H2D pinned"], rows)),
        ("topology", "\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-47\t0"),
    ]


@mechanism(
    "train.sync_stalls", "GPU has gaps every step, the CPU seems to wait.", "每步 GPU 都有空隙，CPU 在等", also=()
)
def sync(d: Draw) -> Artifacts:
    share = d.either((55, 75), (0.5, 2), 1)
    api = f" Time (%)  Total Time (ns)  Num Calls   Avg (ns)    Name\n {share}  {d.num(10**9, 9 * 10**9)}  {d.num(2000, 9000)}  {d.num(10**5, 10**6, 1)}  cudaStreamSynchronize\n {100 - share - 5:.1f}  {d.num(10**8, 10**9)}  {d.num(90000, 200000)}  5200.0  cudaLaunchKernel"
    code = "for x, y in loader:\n    loss = step(x, y)\n" + (
        "    running += loss.item()\n    print(loss.item(), grad_norm.item())"
        if d.sick
        else "    running += loss.detach()"
    )
    return [("nsys", api), ("code", code)]


@mechanism(
    "train.launch_bound",
    "Small model, GPU at 30%, one CPU core at 100%.",
    "小模型训练 GPU 利用率只有 30%",
    also=("train.sync_stalls",),
)
def launch(d: Draw) -> Artifacts:
    ms = d.num(30, 45, 1)
    rows: list[list[object]] = [
        ["eager", f"{ms} ms", d.num(4000, 9000)],
        ["CUDA graph", f"{ms * d.either((0.25, 0.4), (0.98, 1.0), 2):.1f} ms", "same"],
    ]
    return [
        ("other", d.table(["mode", "step time", "kernels per step"], rows)),
        (
            "profile",
            f"kernels: mean duration {d.either((3, 6), (400, 900), 1)} us; launch interval {d.num(7, 9, 1)} us; GPU busy {d.either((25, 38), (97, 99))} %",
        ),
    ]


@mechanism(
    "train.recompilation", "torch.compile gets slower and slower with our batches.", "torch.compile 之后越跑越慢"
)
def recompiles(d: Draw) -> Artifacts:
    if not d.sick:
        return [("torch_log", "\n".join(f"step {i} seq 2048 time {d.num(0.30, 0.31, 3)} s" for i in range(100, 106)))]
    n = int(d.pick(8, 16, 64))
    return [
        (
            "torch_log",
            f"W{d.num(1000, 1200)} {d.clock}.113 torch/_dynamo/convert_frame.py:906] [0/{n}] torch._dynamo hit config.recompile_limit ({n})\n    function: 'forward' (model.py:{d.num(10, 400)})\n    last reason: 0/{n - 1}: tensor 'L['x']' size mismatch at index 1. expected {d.num(100, 500)}, actual {d.num(501, 900)}",
        )
    ]


@mechanism(
    "train.comm_not_overlapped",
    "Scaling from 1 to 8 GPUs is poor, profile shows all-reduce after backward.",
    "多卡扩展性差，all-reduce 都在 backward 之后",
    also=("nccl.topology_no_nvlink",),
)
def exposed(d: Draw) -> Artifacts:
    comm = d.num(90, 160, 1)
    rows = [
        ["forward", "110 ms"],
        ["backward", "220 ms"],
        ["all-reduce (exposed)", f"{comm if d.sick else 6.0} ms"],
        ["optimizer", "15 ms"],
    ]
    return [
        ("other", d.table(["phase", "time"], rows)),
        ("code", f"DDP(model, bucket_cap_mb={10000 if d.sick else 25})"),
    ]


def _ncu(*rows: tuple[str, str, object]) -> str:
    return "\n".join(f"    {name:<35} {unit:>12} {value:>14}" for name, unit, value in rows)


@mechanism("cuda.uncoalesced_access", "Kernel runs at a fraction of memory bandwidth.", "kernel 带宽利用率很低")
def uncoalesced(d: Draw) -> Artifacts:
    used = d.either((4, 8), (31, 32), 1)
    ncu = _ncu(
        ("DRAM Throughput", "%", d.num(80, 88, 2) if d.sick else d.num(50, 62, 2)),
        ("Sectors/Req", "", d.either((24, 32), (4, 4), 2)),
        ("L1/TEX Hit Rate", "%", d.num(1, 4, 2)),
    )
    note = (
        f"    OPT   The memory access pattern for global loads from L1TEX might not be optimal. On average, only {used} of the 32 bytes transmitted per sector are utilized by each thread."
        if d.sick
        else ""
    )
    rows = [["row-major", f"{d.num(1.0, 1.1, 2)} ms"], ["column-major", f"{d.either((8, 12), (1.0, 1.1), 2)} ms"]]
    return [("ncu", ncu + "\n" + note), ("other", d.table(["layout", "kernel time"], rows))]


@mechanism("cuda.bank_conflicts", "Tiled transpose is slower than expected.", "共享内存版的转置反而不快")
def banks(d: Draw) -> Artifacts:
    n = d.either((8, 32), (1, 1), 1)
    note = (
        f"    OPT   The memory access pattern for shared loads might not be optimal and causes on average a {n} - way bank conflict across all {d.num(10**5, 10**6)} shared load requests.This results in {d.num(10**6, 10**7)} bank conflicts"
        if d.sick
        else "    INF   no bank conflicts"
    )
    rows = [["tile[32][32]", f"{d.either((2.6, 4), (1.01, 1.02), 2)} ms"], ["tile[32][33] (padded)", "1.00 ms"]]
    return [("ncu", note), ("other", d.table(["variant", "time"], rows))]


@mechanism("cuda.register_spill", "Kernel got slower after unrolling.", "循环展开之后 kernel 变慢了")
def spill(d: Draw) -> Artifacts:
    size = int(d.either((400, 2400), (0, 0)))
    return [
        (
            "ptxas",
            f"ptxas info    : Compiling entry function '_Z6kernelPKfPf' for 'sm_90'\nptxas info    : Function properties for _Z6kernelPKfPf\n    {size + 64 if d.sick else 0} bytes stack frame, {size} bytes spill stores, {size * 2} bytes spill loads\nptxas info    : Used {255 if d.sick else 96} registers, 400 bytes cmem[0]",
        ),
        ("other", f"before unroll 1.00 ms, after {d.either((1.6, 2.9), (0.8, 0.9), 2)} ms"),
    ]


@mechanism("cuda.divergence", "Branchy kernel is slow on mixed data.", "分支多的 kernel 在混合数据上很慢")
def divergent(d: Draw) -> Artifacts:
    threads = d.either((5, 11), (31, 32), 2)
    rows = [["random order", f"{d.either((4, 7), (1.0, 1.05), 2)} ms"], ["sorted by branch", "1.00 ms"]]
    return [
        (
            "ncu",
            _ncu(
                ("Avg. Active Threads Per Warp", "", threads),
                ("Avg. Not Predicated Off Threads Per Warp", "", round(threads * 0.93, 2)),
                ("Branch Efficiency", "%", d.either((52, 70), (99, 100), 2)),
            ),
        ),
        ("other", d.table(["input", "time"], rows)),
    ]


@mechanism("cuda.low_occupancy", "The kernel leaves most of the GPU idle.", "kernel 只用到 GPU 的一小部分", also=())
def tail(d: Draw) -> Artifacts:
    grid = int(d.either((8, 40), (4000, 9000)))
    return [
        (
            "ncu",
            _ncu(
                ("Grid Size", "", grid),
                ("Block Size", "", 128),
                ("# SMs", "SM", 132),
                ("Waves Per SM", "", round(grid / 132 / 8, 2)),
                ("Achieved Occupancy", "%", d.either((4, 7), (80, 92), 2)),
                ("Theoretical Occupancy", "%", 100),
            ),
        )
    ]


@mechanism(
    "env.gpu_hidden",
    "torch says no GPU although the machine has eight.",
    "机器有八张卡，torch 却说没有 GPU",
    also=("env.missing_dependency",),
)
def hidden(d: Draw) -> Artifacts:
    smi = "\n".join(f"GPU {i}: NVIDIA A100-SXM4-80GB (UUID: GPU-{d.num(10**7, 9 * 10**7)})" for i in range(8))
    value = d.pick('""', "-1") if d.sick else "0,1,2,3,4,5,6,7"
    return [
        ("shell", f"$ nvidia-smi -L\n{smi}"),
        (
            "shell",
            f"$ env | grep CUDA_VISIBLE\nCUDA_VISIBLE_DEVICES={value}\n$ python -c 'import torch; print(torch.cuda.is_available(), torch.cuda.device_count())'\n{'False 0' if d.sick else 'True 8'}",
        ),
    ]


@mechanism(
    "env.version_conflict",
    "Import fails since we installed another package.",
    "装了别的包之后 import 就报错",
    also=("env.missing_dependency",),
)
def abi(d: Draw) -> Artifacts:
    if not d.sick:
        return [("shell", "$ python -c 'import flash_attn; print(flash_attn.__version__)'\n2.7.4")]
    return [
        (
            "traceback",
            f'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\nImportError: /usr/local/lib/python3.1{d.num(0, 2)}/site-packages/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE',
        ),
        ("pip", f"torch                2.{d.num(5, 7)}.0\nflash-attn           2.5.{d.num(1, 8)}"),
    ]
