"""Routing: tired engineers' wording, both languages, typos; ambiguity is said; evidence alone routes too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diagnose.catalogue import catalogue
from diagnose.models import Evidence
from diagnose.route import decides, infer, normal, ranking, route

SHARED = Path(__file__).parents[1].parent / "shared"

PHRASES = """
high-ttft | TTFT is high
high-ttft | time to first token went from 200ms to 6 seconds
high-ttft | first token takes forever with long prompts
high-ttft | users wait 10s before anything streams, then it is fast
high-ttft | prefix caching seems dead, same system prompt every time
high-ttft | requests queue up although the gpu looks idle-ish
high-ttft | first request after restart takes a minute
high-ttft | json schema requests wait 30s before they start
high-ttft | prompt processing is slow on 32k context
high-ttft | through nginx the answer arrives all at once
high-ttft | 首token很慢
high-ttft | 首字延迟太高了，要等七八秒
high-ttft | 请求一直排队，半天才出第一个字
high-ttft | 前缀缓存完全不命中
high-ttft | prefill 太慢
bad-tpot | TPOT doubled after upgrade
bad-tpot | ITL is 80ms, should be 20
bad-tpot | decode is slow, only 12 tok/s on an H100
bad-tpot | generation speed dropped to 5 tokens/s
bad-tpot | inter-token latency got worse with tp=4
bad-tpot | speculative decoding makes it slower
bad-tpot | awq model slower than fp16
bad-tpot | output stutters, text pauses mid sentence
bad-tpot | acceptance rate is low with eagle3
bad-tpot | per token latency is bad under tensor parallel
bad-tpot | decoding speed is terrible on two 3090s
bad-tpot | 解码很慢，每个token要100ms
bad-tpot | 生成速度只有 8 tok/s
bad-tpot | 吐字很卡，一顿一顿的
bad-tpot | 量化后模型反而变慢了
high-p99 | p99 latency is ten times p50
high-p99 | tail latency spikes every few minutes
high-p99 | most requests are fine but some take 30 seconds
high-p99 | latency spikes on one replica
high-p99 | sporadic slow requests, median is great
high-p99 | P99 TTFT explodes while the mean is fine
high-p99 | every few minutes a request stalls for seconds
high-p99 | 尾延迟很高，p50 正常
high-p99 | 偶尔有请求特别慢，有毛刺
high-p99 | 时快时慢，抖动很大
low-throughput | throughput is half of what the blog says
low-throughput | troughput plateaus at 40 concurrent users
low-throughput | server only does 3 req/s
low-throughput | we can't get above 900 tokens per second total throughput
low-throughput | more concurrency does not give more tokens
low-throughput | kv cache is full and requests get preempted
low-throughput | vllm offline batch inference is slower than expected
low-throughput | qps won't go up past 10
low-throughput | 吞吐上不去
low-throughput | 压测吞吐只有预期一半
low-throughput | 并发一高吞吐就掉
slow-allreduce | all_reduce_perf shows 3.4 GB/s busbw on two H100
slow-allreduce | allreduce is slow
slow-allreduce | nccl bandwidth across nodes is terrible
slow-allreduce | nccl-tests: only 40 GB/s, expected 370
slow-allreduce | all-gather half the bus bandwidth of last week
slow-allreduce | alltoall is slow on 16 nodes
slow-allreduce | reduce scatter slower than it should be over nvlink
slow-allreduce | inter-node bandwidth is far below 400G
slow-allreduce | collectives got slower after we added a second switch
slow-allreduce | allreduse bandwith is low
slow-allreduce | nccl 带宽很低
slow-allreduce | 多机 all-reduce 很慢，跑不满 IB
slow-allreduce | 卡间通信带宽只有 5GB/s
collective-hang | nccl hangs at init
collective-hang | training hangs at the first all_reduce
collective-hang | watchdog timeout on rank 12
collective-hang | NCCL error: unhandled system error on multi node job
collective-hang | all_reduce_perf prints the header and then nothing
collective-hang | job stuck in init_process_group
collective-hang | ranks deadlock after a few hundred steps
collective-hang | multi-node run dies with remote process exited
collective-hang | barrier never returns
collective-hang | Got completion with error 12 then nccl aborts
collective-hang | ddp freezes with two gpus
collective-hang | nccl 卡住不动
collective-hang | 多机训练跑着跑着就卡死了，nccl 超时
collective-hang | all_reduce 挂死
ucx-slow-path | UCX is using tcp instead of infiniband
ucx-slow-path | ucx_perftest only 1 GB/s
ucx-slow-path | osu_bw with cuda buffers is slow
ucx-slow-path | dask over ucx does not get infiniband speed
ucx-slow-path | openmpi bandwidth is terrible between gpus
ucx-slow-path | UCX 走了 TCP，很慢
ucx-slow-path | mpi 带宽很低
kv-transfer-slow | kv cache transfer takes longer than prefill
kv-transfer-slow | NIXL transfers are slow
kv-transfer-slow | disaggregated prefill: decode waits for the KV
kv-transfer-slow | PD disagg handoff takes 2 seconds
kv-transfer-slow | kv offload to cpu is slow to load back
kv-transfer-slow | lmcache retrieval is slow
kv-transfer-slow | mooncake kv transfer at 2 GB/s over 400G
kv-transfer-slow | PD 分离后 KV 传输太慢
kv-transfer-slow | kv cache 传输占了大部分时间
gpu-idle-network-busy | gpus are idle while the network is saturated
gpu-idle-network-busy | GPU utilization is low and the NICs are at line rate
gpu-idle-network-busy | GPUs sit waiting on communication most of the step
gpu-idle-network-busy | multi-node job leaves gpus idle 80% of the time, roce traffic is high
gpu-idle-network-busy | GPU 空闲，网络打满
gpu-idle-network-busy | GPU利用率很低但是网卡流量很大
gpu-underutilized | gpu utilization is only 30%
gpu-underutilized | GPU util stuck at 40%
gpu-underutilized | one of the cards is slower than the others
gpu-underutilized | clocks drop to 1200 MHz under load
gpu-underutilized | gpu is throttling
gpu-underutilized | power draw never exceeds 200W
gpu-underutilized | gpu utilisation low, cpu at 100%
gpu-underutilized | GPU 利用率上不去
gpu-underutilized | 显卡降频了
gpu-underutilized | gpu 跑不满
kernel-slow | my cuda kernel is slow
kernel-slow | matmul kernel only reaches 30% of peak
kernel-slow | bank conflicts in shared memory?
kernel-slow | triton kernel slower than torch
kernel-slow | occupancy is 12%
kernel-slow | kernel has register spilling
kernel-slow | transpose kernel gets 200 GB/s
kernel-slow | 这个算子很慢
kernel-slow | 核函数性能差，访存没有合并
copy-slow | cudaMemcpy is slow
copy-slow | H2D copies only 3 GB/s
copy-slow | host to device bandwidth is 1.5 GB/s
copy-slow | async copies don't overlap with compute
copy-slow | card runs at PCIe gen1 x4
copy-slow | pinned memory is not faster
copy-slow | moving tensors to the gpu with .to('cuda') takes most of the time
copy-slow | 主机到GPU拷贝很慢
copy-slow | cudaMemcpyAsync 没有重叠，拷贝慢
training-slow | training is slow
training-slow | step time doubled after the upgrade
training-slow | fine-tuning on two gpus is slower than on one
training-slow | DDP does not scale
training-slow | dataloader is the bottleneck in our training
training-slow | torch.compile keeps recompiling, training is slower than eager
training-slow | samples/s dropped by half on 4 nodes
training-slow | MFU is 12%
training-slow | fsdp iteration takes 3x longer with 8 nodes
training-slow | 训练很慢，每个step要3秒
training-slow | 两张卡训练反而比一张卡慢
training-slow | 微调速度太慢
out-of-memory | CUDA out of memory
out-of-memory | OOM after a few hours
out-of-memory | pod gets OOMKilled
out-of-memory | torch.OutOfMemoryError although 10GB are free
out-of-memory | memory fragmentation?
out-of-memory | model does not fit on 24GB vram
out-of-memory | 显存不足
out-of-memory | 跑一会就爆显存
gpunetio-evaluation | would GPUNetIO help us?
gpunetio-evaluation | is DOCA gpu-initiated networking worth it here
gpunetio-evaluation | should we use IBGDA for deepep
gpunetio-evaluation | 值不值得上 DOCA GPUNetIO
control-loop-latency | control loop misses its deadline
control-loop-latency | robot policy inference jitters at 50 Hz
control-loop-latency | 1 kHz loop has 3 ms spikes
control-loop-latency | real-time control thread late by 5ms
control-loop-latency | 机器人控制周期抖动
control-loop-latency | 控制环偶尔超期
environment | container does not see the GPU
environment | no CUDA-capable device is detected
environment | vllm fails to start in docker
environment | driver version is insufficient for CUDA runtime
environment | undefined symbol ncclCommRegister when importing torch
environment | EFA provider not found in the image
environment | ImportError: libcudart.so.12: cannot open shared object file
environment | GPU has fallen off the bus
environment | ucx was built with cuda but shows no cuda transports
environment | server aborts at startup in kubernetes
environment | 容器里看不到 GPU
environment | 驱动版本不匹配，起不来
environment | 找不到 libnccl.so
bad-tpot | After moving to v0.9 the same model on the same card streams about half as fast
bad-tpot | Single user chat on a 70B AWQ checkpoint crawls at 9 t/s on two 4090s
high-ttft | An operator sees 20 s until the first chunk shows up for 60k-token documents; afterwards it streams quickly
high-ttft | Cold pods answer the very first call after about a minute, later ones in 300 ms
low-throughput | SGLang handles 12 parallel users fine but the 13th always waits; GPU memory is plenty
low-throughput | Total tokens/s stays flat whether we send 32 or 256 clients
low-throughput | A MoE model on 8 GPUs gives less total output than the dense one
training-slow | Our 4-node pretraining job is at 18% MFU, single node is at 45%
training-slow | Every 8th batch takes four times as long as the others when training a vision model
training-slow | Steps got slower after turning on torch.compile with varying sequence lengths
gpu-idle-network-busy | nsys shows 70% of each iteration in NCCL kernels, SMs do nothing useful, IB ports near line rate
collective-hang | NCCL init works on one node but with two nodes rank 8 reports connection refused
collective-hang | torchrun on 2x8 GPUs gets stuck after 'Init COMPLETE'
collective-hang | A 64-GPU job stops after 40 minutes with 'Watchdog caught collective operation timeout'
slow-allreduce | Two A100 servers over 200G RoCE reach only 2.5 GB/s in sendrecv_perf
slow-allreduce | Eight L40S: all_gather tops out at 9 GB/s, we expected twice that
slow-allreduce | Small all-reduces take 60 us, is that normal?
environment | import vllm fails with undefined symbol after pip upgrade
environment | The pod never starts: nvidia-smi works on the host, not in the container
environment | vllm serve exits immediately complaining about tensor parallel size
environment | NCCL says no such device although ibstat is green on the host
out-of-memory | Engine refuses to start: not enough room for the KV cache at 128k context
out-of-memory | DataLoader worker is killed by signal: Bus error
out-of-memory | The fine-tune dies at step 900 although nvidia-smi shows 6 GB left
copy-slow | Feeding frames to the card takes 20 ms each, cudaMemcpyAsync blocks
copy-slow | nvbandwidth reports 6 GB/s host to device on one of eight cards
gpu-underutilized | nvidia-smi shows 99% util but only 140 W of 700 W and half the usual speed
gpu-underutilized | GPU 3 is consistently 20% slower than its seven siblings
kernel-slow | ncu says 35% memory throughput and 20% compute for our layernorm
kernel-slow | Column-wise read of a matrix is 8x slower than row-wise
ucx-slow-path | mpirun with device buffers gets 1.2 GB/s between two nodes on HDR
ucx-slow-path | UCX_TLS was set years ago, intra-node GPU messages crawl
kv-transfer-slow | Decode pods sit waiting for blocks from prefill pods, NIC is nearly idle
kv-transfer-slow | With LMCache offload a cache hit is slower than recomputing
high-p99 | One in fifty chat turns takes 12 s, the rest 400 ms
high-p99 | Latency is bimodal: 300ms or 4s
control-loop-latency | VLA policy on Jetson misses the 20 ms budget now and then
gpunetio-evaluation | Does kernel-initiated RDMA pay off for our 4 KB messages?
low-throughput | 并发 64 以后总 tokens/s 不再增长
high-ttft | 长文档要等二十秒才开始输出，之后很快
bad-tpot | 升级之后单用户生成速度降了一半
collective-hang | 双机 torchrun 停在初始化，一直没反应
slow-allreduce | 8 卡 L20 all-reduce 只有 12GB/s
training-slow | 四机训练比单机还慢
environment | pip 升级后 import vllm 报 undefined symbol
copy-slow | 数据搬到显卡要 20ms，异步拷贝不生效
out-of-memory | 启动时报 KV cache 空间不够
"""
CASES = [tuple(p.strip() for p in line.split("|", 1)) for line in PHRASES.strip().splitlines()]


def test_enough_phrases_in_both_languages() -> None:
    assert len(CASES) >= 120
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in text) for _, text in CASES) >= 30
    assert {want for want, _ in CASES} == set(catalogue().playbooks)


@pytest.mark.parametrize(("want", "text"), CASES)
def test_phrase(want: str, text: str) -> None:
    assert route(catalogue(), text) == want, ranking(catalogue(), text)[:3]


@pytest.mark.parametrize(
    ("raw", "want"),
    [("TTFT　ＨＩＧＨ", "ttft high"), ("troughput is low", "throughput is low"), ("trainings", "trainings")],
)
def test_normalised(raw: str, want: str) -> None:
    assert normal(raw) == want


def test_nothing_said_gives_a_playbook_all_the_same() -> None:
    assert route(catalogue(), "help") in catalogue().playbooks
    assert route(catalogue(), "") in catalogue().playbooks


def test_ambiguous_symptom_says_what_would_decide() -> None:
    lines = decides(catalogue(), "ttft and tpot are both bad")
    assert len(lines) == 2 and all(len(line) > 40 for line in lines)
    assert decides(catalogue(), "all_reduce_perf busbw is low") == []


def seen(*signals: str) -> list[Evidence]:
    return [Evidence(id=f"E{n}", kind="observed", signal=s) for n, s in enumerate(signals, 1)]


@pytest.mark.parametrize(
    ("signals", "want"),
    [
        (["version", "env.var", "nccl_tests.busbw", "nccl.transport"], "slow-allreduce"),
        (["serving.client.ttft", "serving.client.tpot", "serving.client.output_tput"], "low-throughput"),
        (["gpu.oom.requested", "gpu.oom.free", "version"], "out-of-memory"),
        (["nccl.mark.ib_retry", "nccl.warn", "version"], "collective-hang"),
        (["ucx.transports", "ucx.build", "version"], "ucx-slow-path"),
        (["kv.throughput", "kv.descriptors", "nixl.mark.fallback"], "kv-transfer-slow"),
        (["trace.gpu_busy", "trace.idle.input", "trace.step"], "training-slow"),
        (["kernel.occupancy", "kernel.dram"], "kernel-slow"),
        (["copy.bandwidth", "gpu.pcie.width"], "copy-slow"),
        (["version", "env.mark.no_gpu"], "environment"),
        ([], "environment"),
    ],
)
def test_inferred_from_evidence(signals: list[str], want: str) -> None:
    assert infer(seen(*signals)) == want


@pytest.mark.skipif(not SHARED.is_dir(), reason="incidents are not here")
def test_sanity_on_recorded_incidents() -> None:
    known = [json.loads(p.read_text("utf-8")) for p in sorted((SHARED / "incidents").glob("*.json"))]
    known = [k for k in known if "playbook" in k]
    right = sum(route(catalogue(), k["symptom"]) == k["playbook"] for k in known)
    assert right > 0.85 * len(known)
