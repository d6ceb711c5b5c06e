"""Figures among their neighbours: each rule on a text that holds it, and on its opposite."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.gather import gather, number
from diagnose.predicates import Context, Outcome
from diagnose.rules import RULES, _guarded

SWEEP = "streams   ms/step\n 8   9.0\n 32   10.1\n 33   {}\n 64   24.1\n\ncuda_graph_config:\n  max_batch_size: 32"
TRACE = "decode 24 seqs 19 ms\ndecode 24 seqs 19 ms\nprefill 1 seq 14211 tok {} ms\ndecode 25 seqs 20 ms"
TP = "7B on A10G\ntp   tok/s\n1    33.9\n2    38.1\n4    {}\n2 independent replicas of tp=1: 67.6 tok/s total"
NODES = "layout             tok/s\nTP8 (one node)     48\nTP16 over 2 nodes  {}"
RUNS = """old
Successful requests:        1000
Total generated tokens:     256000
Output token throughput (tok/s): 3120.4
Mean TPOT (ms):             18.20
new
Successful requests:        1000
Total generated tokens:     {}
Output token throughput (tok/s): 1044.9
Mean TPOT (ms):             {}"""
HITS = "hour   hit rate   TTFT\n08     88 %       0.3 s\n12     9 %        {} s"
POOL = """[TensorRT-LLM][INFO] TRTGptModel maxNumSequences: 64
[TensorRT-LLM][INFO] Number of blocks in KV cache primary pool: {}
[TensorRT-LLM][INFO] Max KV cache pages per sequence: 64"""
WAITS = "aten::nonzero   calls 1,280   CPU total {} ms\nSelf CUDA time total: 301 ms\nwall 1.02 s"
LAUNCH = "cudaLaunchKernel    {}ms   0.0us   29120\nSelf CPU time total: 455.0ms\nSelf CUDA time total: 61.2ms"
MATH = "aten::_scaled_dot_product_attention_math     7.91s     {}%     40\naten::softmax     0.02s     0.9%     40"

PAIRS = [
    ("graph_edge", SWEEP.format("22.4"), SWEEP.format("10.3")),
    ("stalled_by_prefill", TRACE.format("903"), TRACE.format("38")),
    ("replicas_scale", TP.format("29.5"), TP.format("120.0")),
    ("tp_without_links", TP.format("29.5"), TP.format("120.0")),
    ("tp_over_nodes_slower", NODES.format("9"), NODES.format("90")),
    ("runs_differ_in_output", RUNS.format("61377", "17.95"), RUNS.format("255000", "17.95")),
    ("runs_differ_in_output", RUNS.format("61377", "17.95"), RUNS.format("61377", "71.00")),
    ("hits_move_ttft", HITS.format("3.9"), HITS.format("0.2")),
    ("pages_hold_few", POOL.format("276"), POOL.format("4096")),
    ("readbacks_fill_the_wall", WAITS.format("702"), WAITS.format("22")),
    ("launches_outlast_kernels", LAUNCH.format("151.4"), LAUNCH.format("20.1")),
    ("attention_unfused", MATH.format("86.1"), MATH.format("4.1")),
]


def holds(rule: str, text: str, symptom: str = "") -> bool:
    """Does a rule hold over a text as pasted?"""
    return bool(RULES[rule](Context(number(gather([Document.of("t", text.encode())])), symptom=symptom)).holds)


@pytest.mark.parametrize(("rule", "text", "opposite"), PAIRS, ids=[f"{p[0]}-{n}" for n, p in enumerate(PAIRS)])
def test_holds_and_not_on_the_opposite(rule: str, text: str, opposite: str) -> None:
    assert holds(rule, text) and not holds(rule, opposite)


GATEWAY = "           TTFT p50   ITL p50\ndirect     142 ms     15.1 ms\nvia envoy  {} ms     15.1 ms"
PODS = "          run1   run2   run3\nnode1    4021   3988   4040\nnode2    {}   4035   3902"
CARD = "bf16 matmul: {} TFLOPS on this card, 705-718 on the other seven"
QUOTA = "nr_periods 912001\nnr_throttled {}\nthrottled_usec 91022"
STEP = "step {n} | 1.02 s/step | MFU {mfu}% | data_time 0.003 s | exposed comm 2.1%"


@pytest.mark.parametrize(
    ("rule", "symptom", "text", "opposite"),
    [
        ("suspect_changes_nothing", "is the gateway adding latency?", GATEWAY.format("145"), GATEWAY.format("190")),
        ("repeats_overlap", "is node2 sick?", PODS.format("3990"), PODS.format("2100")),
        ("like_its_peers", "is this card broken?", CARD.format("712"), CARD.format("512")),
        ("throttling_negligible", "is it throttling?", QUOTA.format("14"), QUOTA.format("400000")),
        (
            "mfu_in_band", "is our training healthy?",
            "\n".join(STEP.format(n=n, mfu="52.6") for n in (1, 2, 3)), "\n".join(STEP.format(n=n, mfu="9.1") for n in (1, 2, 3)),  # noqa: E501
        ),
    ],
)  # fmt: skip
def test_healthy_only_where_it_is_shown(rule: str, symptom: str, text: str, opposite: str) -> None:
    assert holds(rule, text, symptom) and not holds(rule, opposite, symptom)
    assert not holds(rule, text, "it is three times slower than last week")  # a claim that even figures leave open


def test_a_version_beside_a_metric_is_no_length() -> None:
    text = "version   tok/s   TPOT\n0.8.5     4110    15.2\n0.9.0     2925    21.7"
    assert triage("upgraded, same flags", [Document.of("t", text.encode())]).assessment.verdict in (
        "cause",
        "inconclusive",
    )


def test_columns_of_one_unit_share_it() -> None:
    text = (
        "batch   fp16 tok/s   gptq int4 tok/s (kernel: exllama)   gptq_marlin\n1   41   88   95\n64   2010   702   3350"
    )
    found = gather([Document.of("t", text.encode())]).facts
    labels = {f.subject.label or "" for f in found if f.signal == "compare.ratio"}
    assert any("gptq int4" in label and label.endswith("|fp16 tok/s") for label in labels)


def test_a_defect_of_one_rule_is_said_and_costs_nothing() -> None:
    def broken(_: Context) -> Outcome:
        return Outcome(bool(float("0.8.5")))

    with pytest.warns(RuntimeWarning, match="rule broken failed"):
        assert _guarded(broken)(Context([])).holds is None
