"""Predicates over comparisons: each must hold on its own shape and fail on its opposite."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.gather import gather, number
from diagnose.predicates import Context
from diagnose.rules.comparison import RULES

GPU_SLOW = "              this rig   reference\nprefill tok/s   421        463\ndecode tok/s    76         84"
DECODE_SLOW = "              eager     cuda graphs\nTTFT          212 ms    208 ms\nTPOT          41 ms     14 ms"
FIRST = "json schema: TTFT 21 s, TPOT 12.1 ms\nfree text:   TTFT 0.4 s, TPOT 12.0 ms"
HOP = "with nginx:\n  TTFT 4.1 s\n  ITL 3 ms\nwithout nginx:\n  TTFT 0.3 s\n  ITL 24 ms"
HOP_SLOW = "with nginx:\n  TTFT 4.1 s\n  ITL 44 ms\nwithout nginx:\n  TTFT 0.3 s\n  ITL 24 ms"
VERSION = "release 0.8.4\noutput throughput: 2100 tok/s\nrelease 0.9.1\noutput throughput: 900 tok/s"
SCALE_BAD = "1 GPU: 0.48 s/step\n4 GPUs: 0.92 s/step"
SCALE_GOOD = "1 GPU: 0.48 s/step\n4 GPUs: 0.50 s/step"
SATURATED = "concurrency  TTFT(ms)  tok/s\n1   92   71\n8   118   540\n16  4210   548\n32   11800   551"
IDLE = "concurrency  TTFT(ms)  tok/s\n1   92   71\n8   98   540\n16  101   1048\n32   109   2051"
STRAGGLER = "rank compute(ms) allreduce(ms)\n0 230 112\n1 231 111\n2 335 6\n3 229 112"
EVEN = "rank 0: 1.02 s\nrank 1: 1.01 s\nrank 2: 1.03 s\nrank 3: 1.04 s"
BLOCK = "First token latency(msecs):\ncount 10\nmean 38533.1\nstd 35.8\nmin 38491.8\nmax 38568.5"
SPREAD = "First token latency(msecs):\ncount 10\nmean 3853.1\nstd 1935.8\nmin 491.8\nmax 8568.5"
QUEUE = "request  TTFT\n1        0.4 s\n2        1.5 s\n3        2.6 s\n4        3.7 s\n5        4.9 s"
COLD = "request  latency\n1        41.0 s\n2        0.9 s\n3        1.0 s\n4        0.9 s"


@pytest.mark.parametrize(
    ("rule", "text", "want"),
    [
        ("uniform_loss", GPU_SLOW, True), ("uniform_loss", DECODE_SLOW, False), ("uniform_loss", "nothing", None),
        ("only_decode", DECODE_SLOW, True), ("only_decode", GPU_SLOW, False),
        ("only_first_token", FIRST, True), ("only_first_token", DECODE_SLOW, False),
        ("buffered_hop", HOP, True), ("buffered_hop", HOP_SLOW, False), ("buffered_hop", FIRST, None),
        ("version_only_change", VERSION, True), ("version_only_change", FIRST, None),
        ("more_gpus_not_faster", SCALE_BAD, True), ("more_gpus_not_faster", SCALE_GOOD, False),
        ("saturates", SATURATED, True), ("saturates", IDLE, False),
        ("one_outlier", STRAGGLER, True), ("one_outlier", EVEN, False), ("one_outlier", FIRST, None),
        ("others_wait_for_one", STRAGGLER, True), ("others_wait_for_one", EVEN, None),
        ("constant_delay", BLOCK, True), ("constant_delay", SPREAD, False),
        ("growing_queue", QUEUE, True), ("growing_queue", COLD, None),
        ("first_only", COLD, True), ("first_only", QUEUE, None),
    ],
)  # fmt: skip
def test_rule(rule: str, text: str, want: bool | None) -> None:
    evidence = number(gather([Document.of("a", text.encode())]))
    got = RULES[rule](Context(evidence))
    assert got.holds is want, [(e.signal, e.subject.label, e.value) for e in evidence]
    if want:
        assert got.used
