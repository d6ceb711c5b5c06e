"""Readers and rules that name a mechanism: stages, scheduler lines, releases, effective options, floors and rates."""

from __future__ import annotations

import pytest
from diagnose.probes.serving_llama import LlamaBenchReader
from diagnose.probes.serving_sched import SchedulerReader
from diagnose.probes.serving_stages import StagesReader, stage_of
from diagnose.probes.serving_versions import VersionReader

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.plugin import Reader


def facts(reader: Reader, text: str) -> dict[tuple[str, str | None], object]:
    """Values by signal and label."""
    return {(f.signal, f.subject.label): f.value for f in reader.parse(Document.of("a", text.encode()))}


def lead(symptom: str, *texts: str) -> str:
    """The leading cause, or the verdict."""
    got = triage(symptom, [Document.of(str(i), t.encode()) for i, t in enumerate(texts)]).assessment
    return got.accepted[0].cause.id if got.accepted else got.verdict


@pytest.mark.parametrize(
    ("words", "stage"),
    [("chat template", "tokenize"), ("分词", "tokenize"), ("time in queue", "queue"), ("排队", "queue"), ("namelookup", "dns"),  # noqa: E501
     ("KV transfer", "transfer"), ("grammar compile", "grammar"), ("API gateway", "proxy"), ("prompt eval time", "prefill"),  # noqa: E501
     ("lunch", None)],
)  # fmt: skip
def test_stages_are_known_by_their_words(words: str, stage: str | None) -> None:
    assert stage_of(words) == stage


@pytest.mark.parametrize(
    ("text", "stage", "share"),
    [
        ("queue 2 s, tokenize 6 s, prefill 2 s", "tokenize", 0.6),
        ("stage     ms\nqueue     100\nprefill   800\ntotal     1000\n", "prefill", 0.8),
        ("queue_ms=900 prefill_ms=50 decode_ms=50", "queue", 0.9),
        ("%{time_namelookup} %{time_connect} %{time_starttransfer} %{time_total}\n4.0 4.1 5.0 5.0\n", "dns", 0.8),
        ("x_stage_seconds_sum{stage=\"queue\"} 90\nx_stage_seconds_count{stage=\"queue\"} 10\n"
         "x_stage_seconds_sum{stage=\"prefill\"} 10\nx_stage_seconds_count{stage=\"prefill\"} 10\n", "queue", 0.9),
    ],
)  # fmt: skip
def test_the_share_of_the_longest_stage(text: str, stage: str, share: float) -> None:
    assert facts(StagesReader(), text)["serving.stage_share", stage] == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["queue 12 ms", "we wait 3 s for the queue of people", "prefill 61,200 tok/s\ndecode 9,480 tok/s\n"]
)
def test_no_share_of_one_stage_or_of_rates(text: str) -> None:
    assert not any(signal == "serving.stage_share" for signal, _ in facts(StagesReader(), text))


def test_decoding_stalls_after_long_prefills_only() -> None:
    decode = (
        "Decode batch. #running-req: 40, #token: 9, token usage: 0.2, gen throughput (token/s): {}, #queue-req: 0\n"
    )
    prefill = "Prefill batch. #new-seq: 1, #new-token: {}, #cached-token: 0, token usage: 0.2, #running-req: 40, #queue-req: 0\n"  # noqa: E501
    long = facts(SchedulerReader(), decode.format(1600.0) + prefill.format(16384) + decode.format(400.0))
    short = facts(SchedulerReader(), decode.format(1600.0) + prefill.format(128) + decode.format(400.0))
    assert long["serving.decode_stall", None] == pytest.approx(4.0)
    assert ("serving.decode_stall", None) not in short


def test_blocks_and_paused_requests_of_an_iteration() -> None:
    got = facts(
        SchedulerReader(), '{"usedNumBlocks": 50, "maxNumBlocks": 100, "tokensPerBlock": 32, "numPausedRequests": 7}'
    )
    assert got["serving.paused", "peak"] == 7
    assert got["serving.kv_usage", "peak"] == pytest.approx(0.5)
    assert got["serving.kv_tokens", None] == pytest.approx(3200)


@pytest.mark.parametrize(
    ("text", "prompt", "output"),
    [("1,500 tokens in, max_tokens 600", 1500, 600), ("in 256 out 512", 256, 512), ("prompts about 7,500 tokens, answers 500 tokens", 7500, 500),  # noqa: E501
     ("ISL 2k OSL 1k", 2000, 1000)],
)  # fmt: skip
def test_lengths_as_people_write_them(text: str, prompt: float, output: float) -> None:
    got = facts(SchedulerReader(), text)
    assert (got["serving.told", "prompt"], got["serving.told", "output"]) == (prompt, output)


def test_llama_bench_compares_what_differs_in_one_column() -> None:
    head = "| model | backend | ngl | test | t/s |\n| --- | --- | --- | --- | --- |\n"
    text = (
        head
        + "| m | CUDA | 99 | pp512 | 2000.0 ± 1.0 |\nbuild: aaaaaaa (b1)\n"
        + head
        + "| m | CUDA | 99 | pp512 | 1000.0 |\nbuild: bbbbbbb (b2)\n"
    )
    assert facts(LlamaBenchReader(), text)[
        "compare.ratio", "version|prompt_throughput|build bbbbbbb (b2)|build aaaaaaa (b1)"
    ] == pytest.approx(2.0)


def test_releases_are_no_figures() -> None:
    got = facts(
        VersionReader(),
        "vllm 0.8.5    Output token throughput (tok/s): 2400.0\nvllm 0.9.0    Output token throughput (tok/s): 1200.0\n",  # noqa: E501
    )
    assert got["compare.ratio", "version|decode_throughput|v0.9.0|v0.8.5"] == pytest.approx(2.0)
    assert not facts(VersionReader(), "vllm 0.8.5 gives 2400 tok/s\n")


@pytest.mark.parametrize(
    ("symptom", "texts", "cause"),
    [
        ("we asked for more", ("vllm serve m --data-parallel-size 8", "config: data_parallel_size=1, max_model_len=8192"), "serving.misconfigured"),  # noqa: E501
        ("throughput is low", ("vllm serve m --data-parallel-size 8", "config: data_parallel_size=8, max_model_len=8192"), "inconclusive"),  # noqa: E501
        ("is the preemption counter a problem?", ("vllm:num_preemptions_total 2\nvllm:request_success_total 90000\nvllm:num_requests_waiting 0\n",), "healthy"),  # noqa: E501
        ("slow answers under load", ("vllm:num_preemptions_total 900\nvllm:request_success_total 9000\nvllm:kv_cache_usage_perc 0.99\n",), "serving.kv_cache_exhausted"),  # noqa: E501
        ("TTFT is high", ("Prefill batch. #new-seq: 1, #new-token: 900, #cached-token: 0, token usage: 0.01, #running-req: 1, #queue-req: 0",), "inconclusive"),  # noqa: E501
        ("slow tokens with one user", ("model weights 16 GB, memory bandwidth 1000 GB/s, TPOT 17.5 ms",), "healthy"),
        ("only few run", ("GPU KV cache size: 16,000 tokens\nRunning: 4 reqs, Waiting: 60 reqs, GPU KV cache usage: 98.0%\n", "prompt 3,500 tokens, output 500 tokens"), "serving.kv_capacity_low"),  # noqa: E501
    ],
)  # fmt: skip
def test_joined_readings_name_the_mechanism(symptom: str, texts: tuple[str, ...], cause: str) -> None:
    assert lead(symptom, *texts) == cause
