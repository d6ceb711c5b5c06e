"""Rows without a head, where ranks stand, and what waits: each reader on a few lines, and its twin that says nothing."""  # noqa: E501

from __future__ import annotations

import pytest
from diagnose.probes import form_rows, host_waits, kv_moments, numa_rows, plain_turns, rank_lines, rank_standing

from diagnose.document import Document
from diagnose.engine import triage

READERS = [r for m in (plain_turns, rank_standing, host_waits, kv_moments, numa_rows) for r in m.READERS]

CASES = [
    ("lever.row", "NCCL_ALGO=Ring   88.7\ndefault      41.2\n", "16 MB all-reduce, busbw GB/s\n"),
    ("lever.row", "1.17.0: checksum OK 171/200\n1.18.1: checksum OK 200/200\n", ""),
    (
        "rank.collective",
        "=== rank 0\n  barrier (torch/distributed/distributed_c10d.py:4101)\n  save (t.py:2)\n"
        "=== rank 1\n  all_reduce (torch/distributed/distributed_c10d.py:2501)\n  step (t.py:8)\n",
        "",
    ),
    (
        "nccl.call_differs",
        "r0: NCCL INFO AllReduce: opCount 1f sendbuff 0x7f count 8 datatype 7 op 0 root 0 comm 0x5\n"
        "r1: NCCL INFO AllReduce: opCount 1f sendbuff 0x7f count 4 datatype 7 op 0 root 0 comm 0x5\n",
        "",
    ),
    ("nccl.branch_collective", "if dist.get_rank() == 0:\n    dist.all_reduce(x)\nlog(x)\n", ""),
    ("spread.outlier", "^^^^ Bottom 3 Ranks with lowest  Etpt(TF): 231.40/27, 399.80/14, 399.90/2,\n", ""),
    ("host.sched.delay", " python3:(64) | 301223.001 ms | 912003 | avg:   3.811 ms | max:  52.101 ms |\n", ""),
    ("host.numa.remote_share", " 41,203 node-loads\n 30,118 node-load-misses  #   73.10% of all node loads\n", ""),
    ("step.share", "Average Step Time: 184.3 ms\n  Input Time: 131.2 ms\n", ""),
    ("host.file.rate", "shard train-00412.tar: 1.07 GB in 40.8 s (26 MB/s)\n", ""),
    ("gpu.same_rate", "RTX 3060: 0.91 it/s\nH100:     0.92 it/s\n", ""),
    ("kv.post_delay", "req 31: prefill 0.000-0.412 s, kv send 0.413-0.731 s\n", ""),
    (
        "kv.notice_delay",
        "10:00:00.101 posted WRITE req=88\n10:00:00.199 state DONE req=88\n10:00:02.214 notif received req=88\n",
        "",
    ),
    ("kv.hidden_share", "KV transfer total 815 ms, overlapped with compute 4 ms\n", ""),
    ("kv.wait_share", "  71.3% of samples in wait_for_xfer\n", ""),
    (
        "numa.far_rows",
        "gpu  gpu_numa  mems_allowed  tok/s\n0  0  0  1904\n1  0  0  1911\n7  1  0  1340\n".replace("  ", "   "),
        "",
    ),
    (
        "numa.crossed",
        "taskset -c 0-31 (node 0):  GPU0 25.1 GB/s  GPU4 13.9 GB/s\ntaskset -c 32-63 (node 1): GPU0 14.2 GB/s  GPU4 25.2 GB/s\n",  # noqa: E501
        "",
    ),
]
QUIET = [
    "16 MB all-reduce, busbw GB/s\nNCCL_ALGO=Ring   88.7\ndefault      87.2\n",
    "=== rank 0\n  all_reduce (torch/distributed/distributed_c10d.py:2501)\n  step (t.py:8)\n"
    "=== rank 1\n  all_reduce (torch/distributed/distributed_c10d.py:2501)\n  step (t.py:8)\n",
    "r0: NCCL INFO AllReduce: opCount 1f sendbuff 0x7f count 8 datatype 7 op 0 root 0 comm 0x5\n"
    "r1: NCCL INFO AllReduce: opCount 1f sendbuff 0x7f count 8 datatype 7 op 0 root 0 comm 0x5\n",
    "dist.all_reduce(x)\nif dist.get_rank() == 0:\n    log(x)\n",
    "if rank == 0:\n    dist.broadcast(x, 0)\nelse:\n    dist.broadcast(y, 0)\n",
    "^^^^ Bottom 3 Ranks with lowest  Etpt(TF): 396.40/27, 399.80/14, 399.90/2,\n",
    "RTX 3060: 0.91 it/s\nH100:     9.92 it/s\n",
    "10:00:00.101 posted WRITE req=88\n10:00:00.199 state DONE req=88\n10:00:00.201 notif received req=88\n",
    "gpu   gpu_numa   mems_allowed   tok/s\n0   0   0   1904\n1   0   0   1911\n7   1   1   1340\n",
    "taskset -c 0-31 (node 0):  GPU0 25.1 GB/s  GPU4 25.0 GB/s\ntaskset -c 32-63 (node 1): GPU0 25.2 GB/s  GPU4 25.2 GB/s\n",  # noqa: E501
]


def _signals(text: str) -> set[str]:
    doc = Document.of("a.txt", text.encode())
    return {f.signal for r in READERS if any(n in doc.data for n in r.needles) for f in r.parse(doc)}


@pytest.mark.parametrize(("signal", "text", "before"), CASES)
def test_what_decides_is_read(signal: str, text: str, before: str) -> None:
    assert signal in _signals(before + text)


@pytest.mark.parametrize("text", QUIET)
def test_the_twin_says_nothing(text: str) -> None:
    assert _signals(text) <= {"kv.event", "rank.reading", "lever.row"} - ({"lever.row"} if "busbw" in text else set())


def _led(symptom: str, text: str) -> str:
    made = triage(symptom, [Document.of("a.txt", text.encode())]).assessment
    return made.accepted[0].cause.id if made.accepted else made.verdict


@pytest.mark.parametrize(
    ("symptom", "text", "twin", "cause"),
    [
        (
            "mid-size all-reduce is slow on 16 nodes",
            "16 MB all-reduce, busbw GB/s\ndefault          41.2\nNCCL_ALGO=NVLSTree   121.3\n",
            "16 MB all-reduce, busbw GB/s\ndefault         120.2\nNCCL_ALGO=NVLSTree   121.3\n",
            "nccl.algorithm_choice",
        ),
        (
            "64-node job slow since Monday",
            "all 64: 3.11 s/step\nall except node041: 2.24 s/step\nall except node012: 3.10 s/step\n",
            "all 64: 3.11 s/step\nall except node041: 3.12 s/step\nall except node012: 3.10 s/step\n",
            "nccl.straggler_rank",
        ),
        (
            "wrong results in the halo exchange with UCX",
            "UCX 1.15.0: checksum OK 200/200\nUCX 1.17.0: checksum OK 171/200\n",
            "UCX 1.15.0: checksum OK 171/200\nUCX 1.17.0: checksum OK 172/200\n",
            "ucx.library_bug",
        ),
        (
            "KV handoff takes long in disaggregated serving",
            "progress          handoff p50\nmain loop only    104 ms\nprogress thread    11 ms\n",
            "progress          handoff p50\nmain loop only    104 ms\nprogress thread   103 ms\n",
            "nixl.completion",
        ),
        (
            "all-reduce on two nodes fluctuates",
            "stress-ng --cpu 96     21.4 GB/s\nnone                   91.2 GB/s\n",
            "stress-ng --cpu 96     91.0 GB/s\nnone                   91.2 GB/s\n",
            "host.cpu_contention",
        ),
    ],
)
def test_what_was_turned_decides(symptom: str, text: str, twin: str, cause: str) -> None:
    assert _led(symptom, text) == cause
    assert _led(symptom, twin) != cause


MORE = [
    ("straggler.late", "".join(f"[rank{r}] barrier wait {0.2 if r == 5 else 811.0 + r} ms\n" for r in range(6))),
    ("spread.outlier", "gemm TFLOP/s per GPU\nn1: 671 668 672 670\nn2: 669 431 671 668\n"),
    (
        "spread.outlier",
        "[rank6] step 450: dataloader 2.1 s, total 2.9 s\n[rank0] step 450: dataloader 0.01 s, total 2.9 s\n"
        "[rank1] step 450: dataloader 0.01 s, total 2.9 s\n",
    ),
    ("host.io.wait", "9921 be/4  ml   0.00 B/s  212.40 M/s  0.00 %  97.21 %  python train.py\nIO>\n"),
    ("epoch.data_share", "epoch 0: 5120 s  (data 4310 s)\n"),
    ("gpu.clock.sm", "GPU[0]\t\t: sclk clock level: 1: (700Mhz)\n"),
    (
        "kv.in_turn",
        "layer 0 kv written, waiting for completion\nlaunching layer 1\nlayer 1 kv written, waiting for completion\n"
        "launching layer 2\n",
    ),
    (
        "kv.sum_share",
        "        prefill   transfer   ttft\n1k      41 ms     22 ms     64 ms\n8k     330 ms    171 ms    503 ms\n",
    ),
    ("kv.notice_delay", "t=9.6 ms   port idle from here\nt=200.4 ms  poll #2 -> DONE\n"),
]


@pytest.mark.parametrize(("signal", "text"), MORE)
def test_more_that_decides_is_read(signal: str, text: str) -> None:
    doc = Document.of("a.txt", text.encode())
    readers = [*READERS, *rank_lines.READERS]
    assert signal in {f.signal for r in readers if any(n in doc.data for n in r.needles) for f in r.parse(doc)}


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"[rank{r}] barrier wait {1.2 + r / 10} ms\n" for r in range(6)),
        "gemm TFLOP/s per GPU\nn1: 671 668 672 670\nn2: 669 664 671 668\n",
        "[rank6] step 450: dataloader 0.02 s, total 2.9 s\n[rank0] step 450: dataloader 0.01 s, total 2.9 s\n"
        "[rank1] step 450: dataloader 0.01 s, total 2.9 s\n",
    ],
)
def test_ranks_alike_are_no_stragglers(text: str) -> None:
    doc = Document.of("a.txt", text.encode())
    assert not {f.signal for r in rank_lines.READERS for f in r.parse(doc)} & {"straggler.late", "spread.outlier"}


FORMS = [
    (
        "kv.hidden_share",
        "start    end      what\n0.00     1.91     layer0 kernels\n1.92     3.60     layer0 kv write\n"
        "3.61     5.50     layer1 kernels\n5.51     7.21     layer1 kv write\n",
    ),
    ("kv.sum_share", "prefill step: 530 ms (attention+mlp 317 ms, connector save 212 ms, blocking)\n"),
    (
        "host.syscall.slow",
        "% time  seconds  usecs/call  calls errors syscall\n 93.11  812.220121   41203   19712      read\n",
    ),
    ("host.sched.delay", "# runqlat 5 1\n  0 -> 1 : 120 |\n  2048 -> 4095 : 140221 |**\n"),
    ("host.cpu.shared", "PID  P  %CPU COMMAND\n41210  3  50.1 a\n41877  3  49.6 b\n"),
    (
        "gpu.clock_falls",
        "min   temp   SM clock   tok/s\n1   62C   1980   5200\n3   81C   1800   4800\n5   87C   1410   3900\n",
    ),
    ("gpu.numa", "GPUs 4-7 are on node 1\n"),
    ("input.wait_over_work", "dataloader/wait_time_per_batch: 0.771 s  compute/time_per_batch: 0.318 s\n"),
    ("net.tcp.sent", "ESTAB 0 0 10.0.0.7:41 10.0.0.8:50 users:((python)) cubic rto:201 bytes_sent:918223112211\n"),
    (
        "rank.pause",
        "[rank 17] gc.collect() took 2.91 s at step 300\n[rank 0] step 300 all_reduce 3.02 s\n"
        "[rank 0] step 301 all_reduce 0.11 s\n",
    ),
    ("host.cpu.quota", "$ docker inspect -f '{{.HostConfig.NanoCpus}}' llm\n4000000000\n"),
]


@pytest.mark.parametrize(("signal", "text"), FORMS)
def test_forms_are_read(signal: str, text: str) -> None:
    doc = Document.of("a.txt", text.encode())
    found = {f.signal for r in form_rows.READERS if any(n in doc.data for n in r.needles) for f in r.parse(doc)}
    assert signal in found


@pytest.mark.parametrize(
    "text",
    [
        "% time  seconds  usecs/call  calls errors syscall\n 93.11  8.220121   41   19712      read\n",
        "PID  P  %CPU COMMAND\n41210  3  99.1 a\n41877  4  49.6 b\n",
        "min   temp   SM clock   tok/s\n1   62C   1980   5200\n3   81C   1980   5190\n5   83C   1965   5200\n",
        "[rank 17] gc.collect() took 0.01 s at step 300\n[rank 0] step 300 all_reduce 3.02 s\n"
        "[rank 0] step 301 all_reduce 0.11 s\n",
    ],
)
def test_their_twins_say_nothing(text: str) -> None:
    doc = Document.of("a.txt", text.encode())
    assert not [f for r in form_rows.READERS for f in r.parse(doc)]
