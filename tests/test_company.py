"""What stands beside a cause and is none: words that mean something else there."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage

RATES = "req rate (req/s)   completed (req/s)   TTFT p50\n4    4.0   0.18 s\n8    7.7   0.41 s\n16   7.9   71.6 s\n"
API = (
    "dp   api-server-count   req/s    engine busy\n1    1    38    97 %\n8    1    116    41 %\n8    8    291    96 %\n"
)
PROXY = (
    "config   out tok/s   mean TPOT\nTP=1 x1   231   31.2 ms\nTP=4 x1   262   29.8 ms\nTP=1 x4 ({})   911   31.9 ms\n"
)
BUDGET = (
    "max_num_batched_tokens   TTFT(10k)   GPU power\n512   3.9 s   310 W\n4096   1.2 s   640 W\n16384   1.1 s   690 W\n"
)
KERNEL = "balanced: 2.2 ms, 29.6 threads active per instruction\nrandom: 7.7 ms, 8.4 threads active per instruction\n"
PINNED = "x.cuda() from numpy array: 41.2 ms\nx.pin_memory().cuda(non_blocking=True): 11.8 ms\n"
FLOOD = "[812909.2] TCP: request_sock_TCP: Possible SYN flooding on port {}. Sending cookies.\n"
LOADED = """INFO 07-08 06:23:12 [default_loader.py:272] Loading weights took 1358.01 seconds
INFO 07-08 06:24:02 [monitor.py:34] torch.compile takes 41.20 s in total
INFO 07-08 06:24:31 [gpu_model_runner.py:2326] Graph capturing finished in 22 secs, took 1.90 GiB
"""
IMEX = "ls: cannot access '/dev/nvidia-caps-imex-channels': No such file or directory\n"


def accused(symptom: str, text: str) -> set[str]:
    return {b.cause.id for b in triage(symptom, [Document.of("note", text.encode())]).assessment.accepted}


@pytest.mark.parametrize(
    ("symptom", "text", "innocent"),
    [
        ("time to first token climbs at launch hour", RATES, "nccl.ib_link_error"),
        ("8x DP on one node scales to 3x only", API, "host.input_pipeline_bound"),
        ("TP4 slower than TP2", PROXY.format("nginx"), "serving.client_or_proxy"),
        ("TTFT for 10k prompts is high", BUDGET, "gpu.clock_throttled"),
        ("TTFT for 10k prompts is high", BUDGET, "serving.prefill_decode_interference"),
        ("the kernel got slower with random trees", KERNEL, "host.cpu_contention"),
        ("moving batches to the GPU takes 40% of the step", PINNED, "train.comm_not_overlapped"),
        ("the pod takes 25 minutes to start", LOADED, "serving.cold_start_compile"),
        ("training job takes 25 minutes to start", LOADED, "train.launch_bound"),
        ("job across two trays fails", IMEX, "env.gpu_hidden"),
        ("a worker died with a CUDA error", FLOOD.format(8000), "nccl.init_scaling"),
    ],
)
def test_not_accused(symptom: str, text: str, innocent: str) -> None:
    assert innocent not in accused(symptom, text)


def test_the_same_words_where_they_mean_it() -> None:
    hops = "direct to the pod: TTFT 0.2 s\nthrough nginx: TTFT 2.1 s\n"
    assert "serving.client_or_proxy" in accused("TTFT is high", hops)
    assert "nccl.init_scaling" in accused("init of 2048 ranks hangs", FLOOD.format(41721))
    loaders = "num_workers=0   3.1 it/s\nnum_workers=8   9.8 it/s\n"
    assert "host.input_pipeline_bound" in accused("GPU utilisation is low in training", loaders)


LOCAL = """{0}:3470:3470 [0] NCCL INFO ncclCommInitRank comm 0x1 rank 0 nranks 2 cudaDev 0 busId 1000 - Init COMPLETE
{1}:3471:3471 [1] NCCL INFO ncclCommInitRank comm 0x2 rank 1 nranks 2 cudaDev 1 busId 2000 - Init COMPLETE
{0}:3470:3470 [0] NCCL INFO Channel 00/0 : 1[1] -> 0[0] [receive] via NET/Socket/0
INFO 11-22 23:16:34 [api_utils.py:273] non-default args: {{'model': 'm', 'tensor_parallel_size': 2}}
"""


@pytest.mark.parametrize(("hosts", "spans"), [(("n1", "n1"), False), (("n1", "n2"), True)])
def test_sockets_within_a_host_are_no_second_node(hosts: tuple[str, str], spans: bool) -> None:
    belief = triage("TPOT is bad", [Document.of("log", LOCAL.format(*hosts).encode())]).assessment.beliefs
    said = {t.indicator.because for t in belief["serving.tp_comm_overhead"].pro}
    assert ("the tensor-parallel group spans nodes" in said) == spans
