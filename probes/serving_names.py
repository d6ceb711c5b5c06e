"""One vocabulary for what the `/metrics` pages of five engines call differently (docs/serving-signals.md)."""

from __future__ import annotations

# canonical label -> names, without `_total`; the label after `@` is a filter ``key=value`` on the series
_GAUGES = {
    "running": "vllm:num_requests_running sglang:num_running_reqs trtllm_num_requests_running tgi_batch_current_size"
    " nv_trt_llm_request_metrics@request_type=scheduled lmdeploy:num_requests_running"
    " llamacpp:requests_processing",
    "waiting": "vllm:num_requests_waiting sglang:num_queue_reqs trtllm_num_requests_waiting tgi_queue_size"
    " dynamo_frontend_queued_requests nv_trt_llm_request_metrics@request_type=waiting lmdeploy:num_requests_waiting"
    " llamacpp:requests_deferred nv_inference_pending_request_count",
    "swapped": "vllm:num_requests_swapped",
    "deferred": "vllm:num_requests_waiting_by_reason@reason=deferred",
    "kv_usage": "vllm:kv_cache_usage_perc vllm:gpu_cache_usage_perc sglang:token_usage trtllm_kv_cache_utilization"
    " dynamo_component_kvstats_gpu_cache_usage_percent dynamo_component_gpu_cache_usage_percent"
    " nv_trt_llm_kv_cache_block_metrics@kv_cache_block_type=fraction llamacpp:kv_cache_usage_ratio",
    "prefix_hit_rate": "vllm:gpu_prefix_cache_hit_rate sglang:cache_hit_rate trtllm_kv_cache_hit_rate"
    " dynamo_component_kvstats_gpu_prefix_cache_hit_rate trtllm_kv_cache_iter_reuse_rate",
    "accept_length": "sglang:spec_accept_length trtllm_spec_decode_acceptance_length",
    "gen_tput": "sglang:gen_throughput vllm:avg_generation_throughput_toks_per_s llamacpp:predicted_tokens_seconds",
    "max_num_seqs": "dynamo_frontend_model_max_num_seqs sglang:max_running_requests trtllm_max_num_active_requests",
    "max_batched_tokens": "dynamo_frontend_model_max_num_batched_tokens trtllm_max_num_tokens_runtime",
    "kv_blocks": "trtllm_kv_cache_max_blocks dynamo_frontend_model_total_kv_blocks"
    " dynamo_component_kvstats_total_blocks",
    "kv_tokens": "sglang:max_total_num_tokens",
}
_COUNTERS = {
    "preemptions": "vllm:num_preemptions sglang:num_retracted_reqs sglang:num_retracted_requests",
    "prefix queries": "vllm:prefix_cache_queries vllm:gpu_prefix_cache_queries",
    "prefix hits": "vllm:prefix_cache_hits vllm:gpu_prefix_cache_hits",
    "external queries": "vllm:external_prefix_cache_queries",
    "external hits": "vllm:external_prefix_cache_hits",
    "cached tokens": "sglang:cached_tokens vllm:prompt_tokens_cached trtllm_prompt_cached_tokens",
    "prompt tokens": "vllm:prompt_tokens sglang:prompt_tokens trtllm_prompt_tokens llamacpp:prompt_tokens",
    "generation tokens": "vllm:generation_tokens sglang:generation_tokens trtllm_generation_tokens"
    " dynamo_frontend_output_tokens",
    "draft tokens": "vllm:spec_decode_num_draft_tokens trtllm_spec_decode_num_draft_tokens",
    "accepted tokens": "vllm:spec_decode_num_accepted_tokens trtllm_spec_decode_num_accepted_tokens",
    "drafts": "vllm:spec_decode_num_drafts sglang:spec_verify_calls",
    "aborted": "sglang:num_aborted_requests vllm:request_success@finished_reason=abort dynamo_frontend_disconnected_clients",  # noqa: E501
    "finished": "vllm:request_success sglang:num_requests tgi_request_success trtllm_request_success"
    " dynamo_frontend_requests@status=success",
    # what was not served; of answers over HTTP those to a monitor are left out
    "refused": "http_requests@status=4xx",
    "failed": "http_requests@status=5xx dynamo_frontend_requests@status=error",
    "unknown model": "dynamo_frontend_failures@class=NotFound",
    "kv reused blocks": "trtllm_kv_cache_reused_blocks",
    "kv missed blocks": "trtllm_kv_cache_missed_blocks",
}
_HISTOGRAMS = {
    "ttft": "vllm:time_to_first_token_seconds sglang:time_to_first_token_seconds trtllm_time_to_first_token_seconds"
    " dynamo_frontend_time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds vllm:time_per_output_token_seconds sglang:inter_token_latency_seconds"
    " sglang:time_per_output_token_seconds trtllm_time_per_output_token_seconds dynamo_frontend_inter_token_latency_seconds"  # noqa: E501
    " tgi_request_mean_time_per_token_duration",
    "e2e": "vllm:e2e_request_latency_seconds sglang:e2e_request_latency_seconds trtllm_e2e_request_latency_seconds"
    " dynamo_frontend_request_duration_seconds tgi_request_duration",
    "queue": "vllm:request_queue_time_seconds sglang:queue_time_seconds trtllm_request_queue_time_seconds"
    " tgi_request_queue_duration",
    "prefill": "vllm:request_prefill_time_seconds trtllm_request_prefill_time_seconds"
    " sglang:per_stage_req_latency_seconds@stage=prefill_forward",
    "decode": "vllm:request_decode_time_seconds trtllm_request_decode_time_seconds",
    "inference": "vllm:request_inference_time_seconds trtllm_request_inference_time_seconds"
    " tgi_request_inference_duration",
    "tpot": "vllm:request_time_per_output_token_seconds sglang:request_time_per_output_token_seconds",
    # what happens before the queue and between prefill and decode, where an engine says it
    "process": "tgi_request_validation_duration sglang:per_stage_req_latency_seconds@stage=request_process",
    "kv_transfer": "sglang:per_stage_req_latency_seconds@stage=prefill_transfer_kv_cache",
    "computed_tokens": "vllm:request_prefill_kv_computed_tokens",
    "prompt_tokens": "vllm:request_prompt_tokens sglang:prompt_tokens_histogram dynamo_frontend_input_sequence_tokens"
    " tgi_request_input_length",
    "output_tokens": "vllm:request_generation_tokens sglang:generation_tokens_histogram"
    " dynamo_frontend_output_sequence_tokens tgi_request_generated_tokens",
    "step_tokens": "vllm:iteration_tokens_total vllm:iteration_tokens",
    "tokenize": "dynamo_frontend_tokenizer_latency_ms@operation=tokenize",
}

SECONDS = frozenset(("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode", "inference", "process", "kv_transfer"))
BUCKETED = frozenset(("ttft", "itl", "prompt_tokens", "tpot", "e2e", "queue", "prefill", "decode"))
GAUGE_UNITS = {"kv_usage": "fraction", "prefix_hit_rate": "fraction", "gen_tput": "tokens/s"}


def _table(raw: dict[str, str]) -> dict[str, tuple[str, tuple[str, str] | None]]:
    out: dict[str, tuple[str, tuple[str, str] | None]] = {}
    for label, names in raw.items():
        for name in names.split():
            name, _, where = name.partition("@")
            key, _, value = where.partition("=")
            out[name if not where else f"{name}@{value}"] = (label, (key, value) if where else None)
    return out


GAUGES, COUNTERS, HISTOGRAMS = _table(_GAUGES), _table(_COUNTERS), _table(_HISTOGRAMS)
