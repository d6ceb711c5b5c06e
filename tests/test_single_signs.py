"""One sign alone names no cause where it is a setting, a table's head or a timeout; with its effect it does."""

from __future__ import annotations

import pytest
from diagnose.evals.ablation import ablate_cited
from diagnose.evals.case import Case
from diagnose.evals.scoring import Key

from diagnose.document import Document
from diagnose.engine import report, triage

FIREWALL = "torchrun over two nodes hangs at start"
TIMEOUT = "n2:8:80 [0] socket.cc:484 NCCL WARN socketStartConnect: Connect to 10.8.0.5<38211> failed : timed out\n"
OPEN = "$ nc -zv 10.8.0.5 29500\nConnection to 10.8.0.5 29500 port [tcp/*] succeeded!\n"
REFUSED = OPEN + "connect to 10.8.0.5 port 38211: Connection refused\n"
ITEM = "for x, y in loader:\n    loss = step(x, y)\n    running += loss.item()\n"
RARELY = "with logging every step 212 ms/step, with logging every 100 steps 149 ms/step\n"
TINY = "vllm serve m --enable-chunked-prefill --max-num-batched-tokens 256\n"
STEPS = "steps per prompt 128, 150 ms each\n"
MODULE = "$ lsmod | grep nvidia_peermem\n$\n"
BUFFERS = "ucx_perftest -t tag_bw -s 67108864\n-m host,host     24312 MB/s\n-m cuda,cuda      5904 MB/s\n"
CRASH = "[n1:7:0:7] Caught signal 11 (Segmentation fault: invalid permissions for mapped object at address 0x7f1c)\n"
FRAMES = " 1 0x1a0b61 __memcpy_avx_unaligned_erms()\n 2 0x18f7a ucp_dt_pack()\n"
HOT = "Temperature\n    GPU Current Temp                  : 91 C\n    GPU T.Limit Temp                  : -3 C\n"
CLOCKS = "Clocks\n    SM                                : 1095 MHz\nMax Clocks\n    SM                  : 1980 MHz\n"
EXPOSED = (
    "bucket_cap_mb   step ms   comm exposed ms   comm kernel total ms\n25               318        19          141\n"
)
TREE = "size     2.18.3    2.22.3    2.22.3 NCCL_ALGO=Tree\n1M        4.1       4.0        4.2\n"
DOWNS = "LinkErrorRecoveryCounter:........0\nLinkDownedCounter:...............2\n"
EXIT = "Last State:     Terminated\n  Exit Code:    137\n"
DRIFT = (
    "ITL p50 ms by uptime     1h      6h      20h\n"
    "sglang 0.4.9            10.0    13.1    24.9\nsglang 0.4.9            10.0    10.1    10.1\n"
)


def held(symptom: str, text: str) -> dict[str, float]:
    got = triage(symptom, [Document.of("a.txt", text.encode())]).assessment
    return {b.cause.id: b.p for b in got.accepted}


@pytest.mark.parametrize(
    ("cause", "symptom", "alone", "effect"),
    [
        ("net.firewall", FIREWALL, TIMEOUT, OPEN),
        ("train.sync_stalls", "GPU idle gaps every step", ITEM, RARELY),
        ("serving.batched_tokens_low", "long prompts: late first token", TINY, STEPS),
        ("ucx.gdr_missing", "UCX: GPU buffers between hosts have a quarter of the bandwidth", MODULE, BUFFERS),
    ],
)
def test_an_effect_makes_it_decisive(cause: str, symptom: str, alone: str, effect: str) -> None:
    assert cause not in held(symptom, alone)
    assert held(symptom, effect + alone).get(cause, 0.0) >= 0.7


@pytest.mark.parametrize(
    ("cause", "symptom", "text"),
    [
        ("ucx.no_cuda_support", "osu_bw with D D crashes", CRASH + FRAMES),
        ("gpu.clock_throttled", "one node is slower at the same job", HOT + CLOCKS),
    ],
)
def test_decisive_with_what_stands_beside_it(cause: str, symptom: str, text: str) -> None:
    assert held(symptom, text).get(cause, 0.0) >= 0.8


@pytest.mark.parametrize(
    ("cause", "symptom", "text"),
    [
        ("train.comm_not_overlapped", "DDP training step got slower", EXPOSED),
        ("nccl.algorithm_choice", "64 MB all-reduce is slow", TREE),
        ("nccl.ib_link_error", "allreduce jitter on one InfiniBand port", DOWNS),
        ("net.firewall", FIREWALL, REFUSED),
        ("host.memory_pressure", "pod restarts every night", EXIT),
        ("serving.engine_regression", "ITL gets worse during the day", DRIFT),
    ],
)
def test_no_cause_by_itself(cause: str, symptom: str, text: str) -> None:
    assert cause not in held(symptom, text)


def test_citations_count_a_reading_once() -> None:
    text = "start\nNVRM: Xid (PCI:0000:9a:00): 79, pid=1\nNVRM: Xid (PCI:0000:9a:00): 79, pid=2\nend"
    case = Case("x", "GPU lost", Key("gpu.ecc_or_xid"), (("0-dmesg.txt", text),))
    cut = ablate_cited(case, report(case.symptom, case.documents()))
    assert cut is not None and cut.texts == (("0-dmesg.txt", "start\nend"),)
