"""What was turned names the cause; a neighbour in the slow rows; stacks of running threads."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.gather import gather, number
from diagnose.predicates import Context
from diagnose.rules import RULES


def holds(rule: str, text: str, symptom: str = "") -> bool:
    """Does a rule hold over a text as pasted?"""
    return bool(RULES[rule](Context(number(gather([Document.of("t", text.encode())])), symptom=symptom)).holds)


STREAM = "--stream-interval   tok/s    ITL p50\n1                   7,900    121 ms\n10                  {}   {} ms"
PROFILE = (
    "ncclDevKernel_AllReduce: 8 per step x 118 ms = 944 ms of 1,720 ms; with model.no_sync(): 1 x 120 ms, step {} ms"
)
TF32 = "8192^3 fp32: 19.1 TFLOP/s\nwith allow_tf32=True: {} TFLOP/s"
BLOCKS = "stages   blocks/SM   time\n2        2           1.10 ms\n4        1           {} ms"
ROWS = "time     TPOT   pmon\n12:25    12 ms  EngineCore sm 71\n12:30    {} ms  EngineCore sm 48, {}etl_embed.py sm 44"
EXPERTS = "gpu   sm_util   tokens/step\n0     98 %      {}\n1     {} %      2,950\n2     {} %      2,910\n3     {} %      3,011"  # noqa: E501
BENCH = "Total input tokens: 32768   ({} per request)\nproduction: input 4,000 / output 400 per request"
CUT = "ALB idle_timeout.timeout_seconds = 60\ncurl: (18) transfer closed   at {} s"
DUMP = 'Thread 812 ({}): "MainThread"\n    stream_generator (vllm/entrypoints/openai/serving_chat.py:702)'


@pytest.mark.parametrize(
    ("rule", "symptom", "text", "opposite"),
    [
        ("front_end_lever", "", STREAM.format("14,400", "66"), STREAM.format("7,950", "120")),
        ("overlap_lever", "", PROFILE.format("901"), PROFILE.replace("no_sync", "forward").format("901")),
        ("tf32_lever", "", TF32.format("131"), TF32.format("19.2")),
        ("fewer_blocks_slower", "", BLOCKS.format("1.71"), BLOCKS.format("0.90")),
        ("neighbour_in_the_slow_row", "", ROWS.format("26", ""), ROWS.format("12", "")),
        ("experts_skew", "one EP rank is late", EXPERTS.format("9,211", 36, 35, 37), EXPERTS.format("2,990", 97, 98, 97)),  # noqa: E501
        ("bench_unlike_production", "bench and prod differ", BENCH.format("64"), BENCH.format("3900")),
        ("cut_at_a_timeout", "", CUT.format("60.1"), CUT.format("17.2")),
        ("front_end_holds_gil", "", DUMP.format("active+gil"), DUMP.format("idle")),
    ],
)  # fmt: skip
def test_a_lever_names_its_cause(rule: str, symptom: str, text: str, opposite: str) -> None:
    assert holds(rule, text, symptom) and not holds(rule, opposite, symptom)


def test_a_timeout_alone_cuts_nothing() -> None:
    assert not holds("cut_at_a_timeout", "proxy_pass http://llm;\nproxy_read_timeout 3600s;")


def test_a_bench_beside_nothing_real_is_left_alone() -> None:
    assert not holds("bench_unlike_production", BENCH.format("64"), "p99 is high")


COMMAND = (
    "vLLM API server version {}\nvllm serve /m --max-model-len 16384{}\n"
    "every request starts with the same system prompt of 3000 tokens"
)


@pytest.mark.parametrize(
    ("version", "more", "want"),
    [("0.6.3", "", True), ("0.6.3", " --enable-prefix-caching", False), ("0.9.1", "", False)],
)
def test_a_default_holds_for_its_releases_only(version: str, more: str, want: bool) -> None:
    docs = [Document.of("t", COMMAND.format(version, more).encode())]
    got = triage("TTFT is high, the same system prompt is computed again for every request", docs).assessment
    belief = got.beliefs["serving.prefix_cache_miss"]
    terms = [t for t in belief.pro if t.indicator.when.get("python") == "prefix_cache_off_by_default"]
    assert bool(terms) is want


def test_a_variable_of_older_releases_is_no_evidence() -> None:
    text = "vLLM API server version {}\nexport VLLM_ATTENTION_BACKEND=XFORMERS"
    found = [
        triage("decode is slow", [Document.of("t", text.format(v).encode())]).assessment.beliefs[
            "serving.attention_backend_slow"
        ]
        for v in ("0.9.1", "0.27.0")
    ]
    assert found[0].pro and not found[1].pro
