"""Health is claimed from a measurement in its band, and taken back when the same text shows a fault."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage


def verdict(symptom: str, text: str) -> str:
    return triage(symptom, [Document.of("paste", text.encode())]).assessment.verdict


CAP = """\
        SW Power Cap                      : Active
        HW Slowdown                       : Not Active
        HW Thermal Slowdown               : {heat}
    Current Power Limit                   : {limit} W
    Default Power Limit                   : 400.00 W
step time measured 0.512 s, reference 0.509 s
"""
CAP_ASK = "Training: the monitor alarms because the software power cap is active on our A100s. Is the step slow?"


def test_power_cap_at_the_default_limit() -> None:
    assert verdict(CAP_ASK, CAP.format(limit="400.00", heat="Not Active")) == "healthy"


@pytest.mark.parametrize(("limit", "heat"), [("250.00", "Not Active"), ("400.00", "Active")])
def test_power_cap_that_is_lower_or_hot_is_no_health(limit: str, heat: str) -> None:
    assert verdict(CAP_ASK, CAP.format(limit=limit, heat=heat)) != "healthy"


MOE = """\
WARNING [fused_moe.py:945] Using default MoE config. Performance might be sub-optimal!
              default config   tuned moe config
Output tok/s  {}             5110
Mean TPOT ms  {}             18.2
"""


@pytest.mark.parametrize(("rate", "tpot", "healthy"), [("5080", "18.3", True), ("3900", "24.0", False)])
def test_warning_whose_cure_changes_nothing(rate: str, tpot: str, healthy: bool) -> None:
    got = verdict("vLLM prints a MoE warning at start, does it cost throughput?", MOE.format(rate, tpot))
    assert (got == "healthy") is healthy


TRIAL = """\
WARNING [fused_moe.py:945] Using default MoE config. Performance might be sub-optimal!
              swap 4        swap 0
Output tok/s  5080          5110
"""


def test_a_trial_of_something_else_clears_no_warning() -> None:
    assert verdict("vLLM prints a MoE warning at start, does it cost throughput?", TRIAL) != "healthy"


SLOT = """\
Running device_to_host_memcpy_ce.
memcpy CE CPU(row) <- GPU(column) bandwidth (GB/s)
           0         1
 0     {rate}     {rate}
LnkSta: Speed {speed}GT/s, Width x16
"""


@pytest.mark.parametrize(
    ("rate", "speed", "healthy"),
    [("26.31", 16, True), ("55.10", 32, True), ("26.31", 32, False), ("11.90", 16, False), ("12.60", 8, False)],
)
def test_copies_against_the_slot(rate: str, speed: int, healthy: bool) -> None:
    got = verdict("D2H copies are slow, half of the advertised PCIe bandwidth", SLOT.format(rate=rate, speed=speed))
    assert (got == "healthy") is healthy


def test_a_slot_below_the_cards_own_generation_is_no_health() -> None:
    text = SLOT.format(rate="26.31", speed=16)
    assert verdict("H100 80GB HBM3: D2H copies are slow, is that all PCIe gives?", text) != "healthy"


TPOT = """\
max concurrency 1, input 512, output 512
Qwen2.5-32B-Instruct {dtype} TP={tp}   Mean TPOT (ms): {tpot}
"""
TPOT_ASK = "Qwen 32B on {} GPUs gives one user few tokens per second. Why is decode so slow per token?"


@pytest.mark.parametrize(
    ("dtype", "tp", "tpot", "product", "healthy"),
    [
        ("bf16", 2, "11.5", "H100 SXM", True),
        ("bf16", 2, "34.0", "H100 SXM", False),
        ("fp8", 1, "12.1", "H100 SXM", True),
        ("bf16", 4, "12.4", "A100-SXM4-80GB", False),
        ("bf16", 2, "11.5", "H100", False),
    ],
)
def test_token_time_against_the_weights(dtype: str, tp: int, tpot: str, product: str, healthy: bool) -> None:
    got = verdict(TPOT_ASK.format(product), TPOT.format(dtype=dtype, tp=tp, tpot=tpot))
    assert (got == "healthy") is healthy


NCCL = """\
n1:11:21 [0] NCCL INFO Using network Socket
n1:11:21 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via {way}
n1:11:21 [0] NCCL INFO 24 coll channels, 0 collnet channels, 0 nvls channels, 32 p2p channels
 4294967296    1073741824     float     sum      -1   32391  132.60  {bus}    {wrong}   32402  132.55  {bus}    {wrong}
"""
NCCL_ASK = "NCCL says it uses the socket network on our {}. Does all-reduce go over TCP?"


@pytest.mark.parametrize(
    ("machine", "way", "bus", "wrong", "healthy"),
    [
        ("DGX A100", "P2P/CUMEM", "231.5", 0, True),
        ("DGX A100", "P2P/CUMEM", "140.2", 0, False),
        ("DGX A100", "P2P/CUMEM", "231.5", 4, False),
        ("DGX H100", "P2P/CUMEM", "231.5", 0, False),
        ("DGX A100", "SHM/direct/direct", "21.5", 0, False),
        ("two nodes of DGX A100", "P2P/CUMEM", "231.5", 0, False),
    ],
)
def test_sockets_for_setup_only(machine: str, way: str, bus: str, wrong: int, healthy: bool) -> None:
    got = verdict(NCCL_ASK.format(machine), NCCL.format(way=way, bus=bus, wrong=wrong))
    assert (got == "healthy") is healthy


HITS = """\
Engine 000: Avg prompt throughput: 9011.9 tokens/s, Avg generation throughput: 2480.4 tokens/s, Running: 64 reqs, \
Waiting: 0 reqs, GPU KV cache usage: 31.2%, Prefix cache hit rate: 0.0%
vllm bench serve --dataset-name {data} --random-input-len 2048 --random-prefix-len 0 --num-prompts 500
{control}
"""


@pytest.mark.parametrize(
    ("data", "control", "healthy"),
    [
        ("random", "with a shared prefix of 1024 tokens: Prefix cache hit rate: 48.0%", True),
        ("random", "", False),
        ("sharegpt", "yesterday: Prefix cache hit rate: 48.0%", False),
    ],
)
def test_random_prompts_share_nothing(data: str, control: str, healthy: bool) -> None:
    ask = "prefix caching does nothing, hit rate is zero in the benchmark"
    got = verdict(ask, HITS.format(data=data, control=control))
    assert (got == "healthy") is healthy


REST = """\
|   0  NVIDIA A100-SXM4-80GB          On  |   00000000:07:00.0 Off |                    0 |
| N/A   31C    {state}              52W /  400W |      4MiB /  81920MiB |      {use}%      Default |
"""


@pytest.mark.parametrize(
    ("ask", "state", "use", "healthy"),
    [
        ("GPU is idle and its SM clock shows 210 MHz, is the GPU underutilized or throttled?", "P8", 0, True),
        ("GPU is idle and its SM clock shows 210 MHz, is the GPU underutilized or throttled?", "P8", 97, False),
        ("GPU underutilized in training, SM clock 210 MHz", "P8", 0, False),
    ],
)
def test_low_clocks_at_rest(ask: str, state: str, use: int, healthy: bool) -> None:
    assert (verdict(ask, REST.format(state=state, use=use)) == "healthy") is healthy


PEERS = "rank 0 step_time 0.512 s\nrank 1 step_time 0.511 s\nrank 2 step_time {} s\nrank 3 step_time 0.514 s\n"


@pytest.mark.parametrize(
    ("ask", "third", "healthy"),
    [
        ("Is one of our ranks a straggler in training?", "0.513", True),
        ("Is one of our ranks a straggler in training?", "0.790", False),
        ("Training is slow on all ranks", "0.513", False),
    ],
)
def test_even_peers(ask: str, third: str, healthy: bool) -> None:
    assert (verdict(ask, PEERS.format(third)) == "healthy") is healthy


REFERENCE = "            measured   reference\nprefill tok/s  {}     60900\ndecode tok/s   {}      9450\n"


@pytest.mark.parametrize(("prefill", "decode", "healthy"), [("61200", "9480", True), ("61200", "6100", False)])
def test_all_figures_meet_their_reference(prefill: str, decode: str, healthy: bool) -> None:
    got = verdict("Is our throughput normal compared with the vendor's reference?", REFERENCE.format(prefill, decode))
    assert (got == "healthy") is healthy
