"""TensorRT-LLM as its releases print it: start of the PyTorch backend, iteration lines, YAML, `/prometheus/metrics`."""

from __future__ import annotations

import json

import pytest

from diagnose.document import Document
from diagnose.gather import gather

# The backend sets up a small cache to measure activations, then the one that it serves with.
START = """\
[TensorRT-LLM] TensorRT-LLM version: 1.1.0
[12/20/2025-04:20:19] [TRT-LLM] [I] PyTorchConfig(extra_resource_managers={}, use_cuda_graph=True, cuda_graph_batch_sizes=[1, 2, 4, 8], cuda_graph_max_batch_size=8, cuda_graph_padding_enabled=True, disable_overlap_scheduler=True, attn_backend='TRTLLM', kv_cache_dtype='auto', stream_interval=1)
[12/20/2025-04:20:19] [TRT-LLM] [I] ATTENTION RUNTIME FEATURES:  AttentionRuntimeFeatures(chunked_prefill=False, cache_reuse=False, has_speculative_draft_tokens=False, chunk_size=8192)
[TensorRT-LLM][INFO] Max KV cache blocks per sequence: 257 [window size=8224], tokens per block=32, primary blocks=257, secondary blocks=0, max sequence length=8224
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).
[12/20/2025-04:21:10] [TRT-LLM] [I] max_seq_len=8224, max_num_requests=64, max_num_tokens=8192, max_batch_size=64
[12/20/2025-04:21:51] [TRT-LLM] [I] Estimated max memory in KV cache : 5.95 GiB
[TensorRT-LLM][INFO] Max KV cache blocks per sequence: 2710 [window size=86720], tokens per block=32, primary blocks=2710, secondary blocks=0, max sequence length=86720
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (86720).
[12/20/2025-04:21:52] [TRT-LLM] [I] max_seq_len=86720, max_num_requests=64, max_num_tokens=8192, max_batch_size=64
"""  # noqa: E501
# The line of a step in three generations: until the middle of 2025, after it, and of 2026.
STEPS = (
    "[TRT-LLM] [I] iter = 301, global_rank = 0, rank = 0, currank_total_requests = 0/0, elapsed_time = 0.0125s, "
    "timestamp = 2025-06-20 10:00:00, num_scheduled_requests: 64, states = {'num_ctx_requests': 0, 'num_ctx_tokens': 0, 'num_generation_tokens': 64}",  # noqa: E501
    "[TRT-LLM] [I] iter = 301, global_rank = 0, rank = 0, currank_total_requests = 0/0, host_step_time = 12.5ms, "
    "prev_device_step_time = 11.25ms, timestamp = 2025-10-20 10:00:00, num_scheduled_requests: 64, states = {'num_ctx_requests': 0, 'num_ctx_tokens': 0, 'num_generation_tokens': 64}",  # noqa: E501
    "[TRT-LLM] [I] [_torch][RANK 0] iter = 301, global_rank = 0, rank = 0, num_scheduled_requests = 64, kv_cache_util = 0.875, "  # noqa: E501
    "currank_total_requests = 0/1, host_step_time = 12.5ms, prev_device_step_time = N/A, timestamp = 2026-08-19 14:11:49, "  # noqa: E501
    "states = {'num_ctx_requests': 0, 'num_ctx_tokens': 0, 'num_generation_tokens': 64, 'cached_kv_tokens': 0}",
)
YAML = """\
enable_chunked_prefill: true
cuda_graph_config:
  enable_padding: true
  max_batch_size: 8
kv_cache_config:
  enable_block_reuse: false
  max_tokens: 8192
max_batch_size: 64
disable_overlap_scheduler: true
"""
PAGE = """\
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 64.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 12.0
trtllm_max_num_active_requests{engine_type="trtllm",model_name="m"} 64.0
trtllm_max_num_tokens_runtime{engine_type="trtllm",model_name="m"} 8192.0
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="m"} 4000.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.75
trtllm_prompt_tokens_total{engine_type="trtllm",model_name="m"} 200000.0
trtllm_prompt_cached_tokens_total{engine_type="trtllm",model_name="m"} 10000.0
trtllm_generation_tokens_total{engine_type="trtllm",model_name="m"} 99999.0
trtllm_spec_decode_num_draft_tokens_total{engine_type="trtllm",model_name="m"} 1000.0
trtllm_spec_decode_num_accepted_tokens_total{engine_type="trtllm",model_name="m"} 300.0
trtllm_spec_decode_acceptance_length{engine_type="trtllm",model_name="m"} 1.9
"""


RECORD = {
    "inflightBatchingStats": {"numContextRequests": 1, "numPausedRequests": 4, "numScheduledRequests": 48},
    "kvCacheStats": {"maxNumBlocks": 1000, "missedBlocks": 300, "reusedBlocks": 900, "usedNumBlocks": 990},
    "maxNumActiveRequests": 64, "maxNumTokensRuntime": 8192, "numActiveRequests": 60, "numQueuedRequests": 120,
}  # fmt: skip


def facts(text: str) -> dict[tuple[str, str | None], list[object]]:
    out: dict[tuple[str, str | None], list[object]] = {}
    for fact in gather([Document.of("log", text.encode())]).facts:
        out.setdefault((fact.signal, fact.subject.label), []).append(fact.value)
    return out


def test_the_cache_that_serves_is_read_not_the_one_that_measures() -> None:
    got = facts(START)
    assert got["serving.kv_tokens", None] == [86720.0]
    assert got["serving.kv_memory", None] == [5.95]
    assert got["serving.max_model_len", None] == [86720.0]
    assert got["serving.kv_blocks", "profiled"] == [2710.0]
    assert got["serving.kv_blocks_per_request", None] == [2710.0]
    assert got["engine.block_reuse", None] == ["off"]
    assert got["serving.arg", "cuda-graph-max-batch-size"] == ["8"]
    assert ("serving.arg", "max-batch-size") not in got or got["serving.arg", "max-batch-size"] == ["64"]


@pytest.mark.parametrize("line", STEPS)
def test_a_step_is_read_in_every_generation(line: str) -> None:
    got = facts(line + "\n" + line.replace("iter = 301", "iter = 302"))
    assert got["engine.host_step", "median"] == [12.5]
    assert got["serving.running", "peak"] == [64.0]
    assert ("serving.kv_usage" in {name for name, _ in got}) is ("kv_cache_util" in line)


def test_sizes_of_graphs_and_of_the_pool_are_not_the_servers() -> None:
    got = facts(YAML)
    assert got["serving.arg", "max-batch-size"] == ["64"]
    assert got["serving.arg", "cuda-graph-config.max-batch-size"] == ["8"]
    assert got["serving.arg", "disable-overlap-scheduler"] == ["true"]
    assert ("serving.told", "output") not in got
    call = "LLM(max_batch_size=64, cuda_graph_config=CudaGraphConfig(batch_sizes=None, max_batch_size=8))"
    assert facts(call)["serving.arg", "max-batch-size"] == ["64"]


def test_its_own_page_of_metrics() -> None:
    got = facts(PAGE)
    assert got["serving.max_num_seqs", "effective"] == [64.0]
    assert got["serving.max_batched_tokens", None] == [8192.0]
    assert got["serving.kv_blocks", "in use"] == [4000.0]
    assert got["serving.counter", "generation tokens"] == [99999.0]
    assert got["serving.counter", "cached tokens"] == [10000.0]
    assert got["serving.accept_rate", "window"] == [0.3]
    assert got["serving.accept_length", None] == [1.9]


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        ("[WARNING] Timed out waiting for context KV cache transfer after 1000 milliseconds.", "kv.mark.timeout"),
        ("AssertionError: fail to schedule any pending request, probably run out of resource.", "serving.mark.kv_full"),
        (
            "num_fitting_reqs=0 and fitting_disagg_gen_init_requests is empty, may not have enough kvCache",
            "serving.mark.kv_full",
        ),
        ("AssertionError: Impossible to fit in any sequence in kvCache", "serving.mark.kv_too_small"),
        (
            "The sum of prompt length (72417.0), query length (0) should not exceed max_num_tokens (8192)",
            "serving.mark.too_long_request",
        ),
    ],
)  # fmt: skip
def test_what_it_refuses(line: str, mark: str) -> None:
    assert (mark, None) in facts(line)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_record_of_a_step_is_read_in_one_line_and_as_jq_sets_it_out(indent: int | None) -> None:
    got = facts(json.dumps([RECORD, {**RECORD, "numQueuedRequests": 3}], indent=indent))
    assert 120.0 in got["serving.waiting", "peak"]
    assert 48.0 in got["serving.running", "peak"]
    assert got["serving.max_batched_tokens", None] == [8192.0]
    assert got["serving.prefix_hit_rate", "window"] == [0.75]
    few = {**RECORD, "kvCacheStats": {"missedBlocks": 30, "reusedBlocks": 0}}
    assert ("serving.prefix_hit_rate", "window") not in facts(json.dumps(few, indent=indent))
