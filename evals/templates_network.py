# ruff: noqa: E501 (lines as tools print them)
"""Mechanisms of collectives, links, UCX and KV transfers, as their tools print them."""

from __future__ import annotations

from .templates import Artifacts, Draw, mechanism

_NOISE = (
    "NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal net plugin.",
    "NCCL INFO cudaDriverVersion 12080",
    "NCCL INFO Setting affinity for GPU 0 to ffffffff",
    "NCCL INFO P2P Chunksize set to 524288",
    "NCCL INFO threadThresholds 8/8/64 | 16/8/64 | 512 | 512",
)


def _tag(d: Draw) -> str:
    return f"{d.host}:{d.num(100, 99999)}:{d.num(100, 99999)} [{d.num(0, 7)}] "


def _log(d: Draw, *lines: str) -> str:
    tag = _tag(d)
    return d.mixed([tag + x for x in lines], [tag + x for x in _NOISE])


def _version(d: Draw) -> str:
    return (
        d.pick("2.18.5", "2.20.5", "2.21.5", "2.22.3", "2.25.1", "2.26.2", "2.27.3")
        + "+cuda"
        + d.pick("12.2", "12.4", "12.8")
    )


def _sweep(d: Draw, peak: float) -> str:
    rows = ["#       size         count      type   redop    root     time   algbw   busbw #wrong"]
    for power in range(int(d.num(24, 26)), int(d.num(30, 33))):
        size = 2**power
        bus = peak * (1 - 0.4 * 2 ** (26 - power) if power > 26 else 0.55)
        alg = bus / 1.75
        rows.append(
            f"{size:>12} {size // 4:>13}     float     sum      -1 {size / alg / 1e3:>9.1f} {alg:>7.2f} {bus:>7.2f}      0"
        )
    return "\n".join(rows)


@mechanism(
    "nccl.transport.socket_fallback",
    "Training on two nodes runs at a fraction of the speed of one node.",
    "Multi-node all-reduce is ten times slower than expected, single node is fine.",
    "两个节点一起训练非常慢，单节点正常",
    also=("nccl.container_isolation",),
)
def sockets(d: Draw) -> Artifacts:
    nics = ",".join(f"mlx5_{i}" for i in range(int(d.num(2, 8))))
    world = 16
    lines = [f"NCCL version {_version(d)}", f"NCCL INFO NCCL_IB_HCA set to {nics}"]
    if d.sick:
        lines += [
            "NCCL INFO NET/IB : No device found.",
            f"NCCL INFO NET/Socket : Using [0]{d.pick('eth0', 'eno1', 'bond0')}:{d.ip}<0>",
            "NCCL INFO Using network Socket",
            "NCCL INFO Channel 00/0 : 7[7] -> 8[0] [receive] via NET/Socket/0",
        ]
    else:
        lines += [
            f"NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:{d.ip}<0>",
            "NCCL INFO Using network IB",
            "NCCL INFO Channel 00/0 : 7[7] -> 8[0] [receive] via NET/IB/0/GDRDMA",
        ]
    lines.append(
        f"NCCL INFO comm 0x5581 rank 0 nranks {world} cudaDev 0 busId 1000 nNodes 2 localRanks 8 - Init COMPLETE"
    )
    return [("nccl_log", _log(d, *lines))]


@mechanism(
    "nccl.env_override",
    "all-reduce inside one node is slow",
    "GPUs in one box exchange gradients far too slowly since the new job template.",
    "单机多卡 all-reduce 带宽很低",
    also=("nccl.p2p_disabled",),
)
def p2p_switched_off(d: Draw) -> Artifacts:
    if d.sick:
        name, value = d.pick(("NCCL_P2P_DISABLE", "1"), ("NCCL_P2P_LEVEL", "LOC"))
        lines = [
            f"NCCL INFO {name} set by environment to {value}",
            "NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct",
            "NCCL INFO Channel 01 : 1[1] -> 0[0] via SHM/direct/direct",
        ]
    else:
        lines = [
            "NCCL INFO NCCL_P2P_LEVEL set by environment to NVL",
            "NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
            "NCCL INFO Channel 01/0 : 1[1] -> 0[0] via P2P/CUMEM",
        ]
    topo = "        GPU0    GPU1    CPU Affinity\nGPU0     X      NV18    0-55\nGPU1    NV18     X      0-55"
    out = [("nccl_log", _log(d, f"NCCL version {_version(d)}", *lines)), ("topology", topo)]
    return out if d.pick(True, False) else [*out, ("nccl_tests", _sweep(d, d.either((8, 40), (360, 372), 1)))]


@mechanism(
    "nccl.p2p_broken_acs_iommu",
    "NCCL hangs right after init on a PCIe machine, all GPUs at 100%.",
    "Two-GPU test never prints a number; with one GPU it works.",
    "PCIe 机器上 NCCL 初始化后卡死，GPU 利用率 100%",
)
def acs(d: Draw) -> Artifacts:
    sign = "+" if d.sick else "-"
    line = f"                ACSCtl: SrcValid{sign} TransBlk- ReqRedir{sign} CmpltRedir{sign} UpstreamFwd{sign} EgressCtrl- DirectTrans-"
    head = f"# lspci -s {d.num(10, 99)}:0{d.num(0, 7)}.0 -vvv | grep ACSCtl"
    run = (
        "NCCL_P2P_DISABLE=1 ./all_reduce_perf -g 2   -> finishes\n./all_reduce_perf -g 2   -> hangs"
        if d.sick
        else (
            "./all_reduce_perf -g 2   -> finishes, 24.1 GB/s\nNCCL_P2P_DISABLE=1 ./all_reduce_perf -g 2   -> finishes, 11.8 GB/s"
        )
    )
    return [("lspci", f"{head}\n{line}"), ("other", run)]


@mechanism(
    "nccl.shm_too_small", "NCCL fails in a container while creating its communicator.", "容器里跑 NCCL 一启动就报错"
)
def shm(d: Draw) -> Artifacts:
    size = "64M" if d.sick else f"{d.num(32, 200)}G"
    df = f"Filesystem      Size  Used Avail Use% Mounted on\nshm             {size}     {'60M' if d.sick else '2.1G'}  {'4.0M' if d.sick else '30G'}  {d.either((92, 98), (2, 9))}% /dev/shm"
    need = d.pick(9637888, 33030528, 4194660)
    log = [
        "NCCL WARN Call to posix_fallocate failed : No space left on device",
        f"NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Ab3xQz (size {need})",
    ]
    if d.pick(True, False):
        log = [
            f"NCCL WARN Error: failed to extend /dev/shm/nccl-Ab3xQz to {need} bytes, error: No space left on device (28)"
        ]
    return [
        ("df", df),
        ("nccl_log", _log(d, *(log if d.sick else ["NCCL INFO comm 0x5 rank 0 nranks 2 cudaDev 0 - Init COMPLETE"]))),
    ]


@mechanism(
    "nccl.gdr_not_used",
    "Inter-node bandwidth is half of the NIC's although RDMA works.",
    "跨节点带宽只有网卡一半，RDMA 是通的",
)
def no_gdr(d: Draw) -> Artifacts:
    suffix = "" if d.sick else "/GDRDMA"
    lines = [
        f"NCCL version {_version(d)}",
        f"NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB ib0:{d.ip}<0>",
        "NCCL INFO Using network IB",
        f"NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0{suffix}",
        f"NCCL INFO Channel 01/0 : 0[0] -> 8[0] [send] via NET/IB/1{suffix}",
    ]
    if d.sick:
        lines.insert(3, "NCCL INFO NET/IB : GPU Direct RDMA Disabled for HCA 0 'mlx5_0'")
    topo = "        GPU0    NIC0    NIC1\nGPU0     X      PIX     PXB\nNIC0    PIX      X      PXB"
    modules = "$ lsmod | grep peermem\n" + (
        "" if d.sick else "nvidia_peermem         16384  0\nib_core 434176 8 nvidia_peermem"
    )
    return [("nccl_log", _log(d, *lines)), ("topology", topo), ("other", modules)]


@mechanism(
    "nccl.straggler_rank",
    "Every step waits for somebody; step time of the job is 30% above that of its best node.",
    "训练总有一个节点拖后腿",
)
def straggler(d: Draw) -> Artifacts:
    slow = int(d.num(0, 7))
    base = d.num(180, 900)
    rows = [
        [i, f"{base * (d.num(1.45, 1.9, 2) if d.sick and i == slow else d.num(0.98, 1.02, 3)):.0f} ms"]
        for i in range(8)
    ]
    return [("other", d.table(["rank", "forward+backward"], rows))]


@mechanism(
    "nccl.collective_mismatch",
    "Job hangs at a random step until the watchdog kills it.",
    "训练跑到一半卡住，最后 watchdog 超时",
    also=("nccl.straggler_rank",),
)
def mismatch(d: Draw) -> Artifacts:
    seq, other = int(d.num(100, 9000)), int(d.num(2, 7))
    numel = int(d.num(1, 900)) * 1024
    kinds = ("ALLREDUCE", "ALLGATHER") if d.sick else ("ALLREDUCE", "ALLREDUCE")
    if not d.sick:
        return [
            (
                "torch_log",
                "\n".join(
                    f"[rank{r}]: step {seq + i} loss {d.num(1, 3, 3)} {d.num(0.4, 0.42, 3)} s"
                    for i in range(4)
                    for r in (0, other)
                ),
            )
        ]
    lines = [
        f"[rank{r}]:[E ProcessGroupNCCL.cpp:607] [Rank {r}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum={seq}, OpType={k}, NumelIn={numel // (i + 1)}, NumelOut={numel}, Timeout(ms)=600000) ran for 600{d.num(10, 99)} milliseconds before timing out."
        for i, (r, k) in enumerate(zip((0, other), kinds, strict=True))
    ]
    return [("torch_log", "\n".join(lines))]


@mechanism(
    "nccl.roce_misconfigured",
    "RoCE cluster: job dies with a network error after init.",
    "RoCE 集群训练一开始就报网络错误",
    also=("nccl.ib_link_error", "net.firewall", "nccl.env_override"),
)
def roce_gid(d: Draw) -> Artifacts:
    gid = int(d.num(0, 1)) if d.sick else 3
    show = f"DEV     PORT    INDEX   GID                                     IPv4            VER     DEV\nmlx5_0  1       0       fe80:0000:0000:0000:b859:9fff:fe11:2233                 v1      ens1np0\nmlx5_0  1       1       fe80:0000:0000:0000:b859:9fff:fe11:2233                 v2      ens1np0\nmlx5_0  1       3       0000:0000:0000:0000:0000:ffff:0a00:0105 {d.ip}  v2      ens1np0"
    log = [f"NCCL INFO NCCL_IB_GID_INDEX set by environment to {gid}."]
    if d.sick:
        log += [
            f"NCCL WARN NET/IB : Got completion from peer {d.ip}<{d.num(30000, 60000)}> with status=12 opcode=0 len=0 vendor err 129 (Recv) localGid fe80::b859:9fff:fe11:2233 remoteGidsfe80::b859:9fff:fe44:5566"
        ]
    else:
        log += ["NCCL INFO Using network IB", "NCCL INFO comm 0x5581 rank 0 nranks 16 cudaDev 0 - Init COMPLETE"]
    return [("show_gids", show), ("nccl_log", _log(d, *log))]


@mechanism(
    "nccl.memlock_limit",
    "NCCL cannot register memory on the new nodes.",
    "新节点上 NCCL 报注册内存失败",
    also=("ucx.memlock_limit",),
)
def memlock(d: Draw) -> Artifacts:
    limit = d.pick("64", "65536", "8192") if d.sick else "unlimited"
    log = (
        "NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory"
        if d.sick
        else "NCCL INFO Using network IB"
    )
    return [("nccl_log", _log(d, log)), ("other", f"$ ulimit -l\n{limit}")]


@mechanism(
    "nccl.nvlink_down",
    "One GPU of the box drags all collectives.",
    "有一张卡 NVLink 好像不正常，all-reduce 变慢",
    also=("gpu.ecc_or_xid",),
)
def nvlink_down(d: Draw) -> Artifacts:
    dead = set(d.random.sample(range(18), int(d.num(1, 4)))) if d.sick else set()
    rows = ["GPU 3: NVIDIA H100 80GB HBM3 (UUID: GPU-1b2c)"]
    rows += [f"\t Link {i}: " + ("<inactive>" if i in dead else "26.562 GB/s") for i in range(18)]
    return [
        ("nvidia_smi", "$ nvidia-smi nvlink -s\n" + "\n".join(rows)),
        ("nccl_tests", _sweep(d, d.either((90, 200), (362, 371), 1))),
    ]


@mechanism(
    "nccl.topology_no_nvlink",
    "Two-GPU data parallel hardly beats one GPU.",
    "双卡训练几乎没有加速",
    also=("train.comm_not_overlapped",),
)
def no_nvlink(d: Draw) -> Artifacts:
    link = d.pick("PHB", "NODE", "PIX") if d.sick else "NV12"
    topo = f"\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \t{link}\t0-31\nGPU1\t{link}\t X \t0-31"
    single = d.num(20, 60, 1)
    rows = [["1 GPU", single], ["2 GPUs", round(single * d.either((1.02, 1.2), (1.9, 1.97), 2), 1)]]
    return [("topology", "$ nvidia-smi topo -m\n" + topo), ("other", d.table(["setup", "samples/s"], rows))]


@mechanism(
    "nccl.benchmark_artifact",
    "Our 16-GPU NCCL test shows only intra-node numbers.",
    "两台机器跑 nccl-tests 结果看着不对",
)
def not_mpi(d: Draw) -> Artifacts:
    a, b = d.host, d.host + "b"
    if d.sick:
        one = [
            f"#  Rank  0 Group  0 Pid {d.num(1000, 9999)} on {h} device  0 [0x07] NVIDIA A100-SXM4-80GB\n# Avg bus bandwidth    : {d.num(200, 235, 3)}"
            for h in (a, b)
        ]
        return [
            (
                "nccl_tests",
                f"mpirun -np 2 -H {a}:1,{b}:1 ./build/all_reduce_perf -b 8M -e 1G -f 2 -g 1\n" + "\n".join(one),
            )
        ]
    ranks = "\n".join(
        f"#  Rank  {i} Group  0 Pid {d.num(1000, 9999)} on {h} device  0 [0x07] NVIDIA A100-SXM4-80GB"
        for i, h in enumerate((a, b))
    )
    return [
        (
            "nccl_tests",
            f"mpirun -np 2 -H {a}:1,{b}:1 ./build/all_reduce_perf -b 8M -e 1G -f 2 -g 1\n{ranks}\n# Avg bus bandwidth    : {d.num(20, 24, 3)}",
        )
    ]


@mechanism(
    "nccl.ib_link_error",
    "Long trainings die with an IB error every few hours.",
    "训练跑几小时就因为 IB 报错挂掉",
    also=("net.link_down",),
)
def ib_flap(d: Draw) -> Artifacts:
    n = d.num(3, 40)
    counters = "\n".join(
        f"{k}:{'.' * (32 - len(k))}{v}"
        for k, v in (
            ("SymbolErrorCounter", d.num(200, 65535) if d.sick else 0),
            ("LinkErrorRecoveryCounter", n if d.sick else 0),
            ("LinkDownedCounter", d.num(2, 12) if d.sick else 0),
        )
    )
    log = ["NCCL WARN NET/IB : mlx5_2:1 Got async event : port error"] if d.sick else ["NCCL INFO Using network IB"]
    return [("perfquery", "# Port counters: Lid 41 port 1\n" + counters), ("nccl_log", _log(d, *log))]


@mechanism(
    "net.wrong_mtu",
    "Large transfers between two nodes stall, pings are fine.",
    "大包传不过去，小包正常",
    also=("nccl.ib_link_error",),
)
def mtu(d: Draw) -> Artifacts:
    a, b = ("9000", "1500") if d.sick else ("9000", "9000")
    ip = "\n".join(
        f"{h}: 4: {d.pick('ens1np0', 'eth2')}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {m} qdisc mq state UP"
        for h, m in (("hostA", a), ("hostB", b))
    )
    ping = f"$ ping -M do -s 8972 {d.ip}\n" + (
        "ping: local error: message too long, mtu=1500"
        if d.sick
        else "8980 bytes from peer: icmp_seq=1 ttl=64 time=0.12 ms"
    )
    return [("ip_link", ip), ("ping", ping)]


@mechanism(
    "ucx.tcp_fallback",
    "UCX transfer between GPUs of two nodes reaches TCP speed only.",
    "UCX 跨机传输只有 TCP 的速度",
    also=("ucx.tls_restricted",),
)
def ucx_tcp(d: Draw) -> Artifacts:
    lane = "tcp/eth0" if d.sick else "rc_mlx5/mlx5_0:1"
    log = f"[{d.num(1700000000, 1750000000)}.1] [{d.host}:{d.num(100, 9999)}:0] +----------------------------+\nucp_worker.c:1888 UCX  INFO    ep_cfg[2]: tag({lane}) rma_am({lane}) am({lane})"
    rows = [
        ["4 MB", f"{d.either((0.7, 1.15), (23.2, 24.4), 2)} GB/s"],
        ["64 MB", f"{d.either((0.9, 1.2), (23.8, 24.6), 2)} GB/s"],
    ]
    return [
        ("ucx_log", log),
        ("other", d.table(["size", "bandwidth"], rows)),
        ("other", "ibstat: mlx5_0 State: Active Rate: 200"),
    ]


@mechanism("ucx.no_cuda_support", "Passing GPU buffers to MPI crashes.", "MPI 传 GPU 显存直接崩溃")
def ucx_no_cuda(d: Draw) -> Artifacts:
    cuda = "" if d.sick else "\n#      Transport: cuda_copy\n#      Transport: cuda_ipc"
    info = f"$ ucx_info -d | grep Transport\n#      Transport: self\n#      Transport: tcp\n#      Transport: sysv\n#      Transport: posix\n#      Transport: rc_mlx5{cuda}"
    crash = f"[{d.host}:{d.num(1000, 9999)}:0:{d.num(1000, 9999)}] Caught signal 11 (Segmentation fault: invalid permissions for mapped object at address 0x7f{d.num(10, 99)}20000000)"
    return [("ucx_info", info), ("other", crash if d.sick else "osu_latency D D: 4 bytes 2.1 us")]


@mechanism(
    "nixl.small_blocks",
    "KV transfer between prefill and decode takes far longer than the link would need.",
    "PD 分离 KV 传输很慢，带宽远没跑满",
    also=("serving.kv_transfer_slow",),
)
def small_blocks(d: Draw) -> Artifacts:
    total = d.num(600, 2400)
    descs = int(total * 2**20 / (d.num(8, 24) * 1024)) if d.sick else int(d.num(60, 200))
    ms = d.num(400, 1500) if d.sick else total / 40
    return [
        (
            "vllm_log",
            f"INFO {d.clock} [metrics.py:96] KV Transfer metrics: Num successful transfers=1, Avg xfer time (ms)={ms:.1f}, P90 xfer time (ms)={ms * 1.2:.1f}, Avg post time (ms)={ms * d.either((0.4, 0.6), (0.01, 0.02), 2):.2f}, Avg MB per transfer={total}, Throughput (MB/s)={total / ms * 1e3:.1f}, Avg number of descriptors={descs}",
        )
    ]


@mechanism(
    "net.congestion", "All-reduce time varies from step to step on the shared fabric.", "共享网络上 all-reduce 时快时慢"
)
def congestion(d: Draw) -> Artifacts:
    def counters(at: str, plus: int) -> str:
        return f"$ ethtool -S ens1np0   # {at}\n     rx_prio3_pause: {1000 + plus * 20}\n     np_cnp_sent: {5000 + plus * 30}\n     rp_cnp_handled: {4000 + plus * 25}\n     rx_discards_phy: {plus}"

    grown = int(d.num(20000, 90000)) if d.sick else 0
    base = d.num(40, 90)
    steps = [[i, f"{base * (d.num(1, 3.5, 2) if d.sick else d.num(0.99, 1.01, 3)):.1f} ms"] for i in range(6)]
    return [
        ("ethtool", counters("t0", 0) + "\n" + counters("t0 + 30 s", grown)),
        ("other", d.table(["step", "all-reduce"], steps)),
    ]
