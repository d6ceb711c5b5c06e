"""Arithmetic of the floors, against figures worked out by hand and published parameter counts."""

from __future__ import annotations

from typing import Any

import pytest

from diagnose import floors
from diagnose.shapes import Shape, shape

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
             "intermediate_size": 28672}  # fmt: skip
MISTRAL_7B = {**LLAMA_8B, "model_type": "mistral", "vocab_size": 32000}
MIXTRAL = {**MISTRAL_7B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
QWEN25_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_layer_freq": 1,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "vocab_size": 129280, "tie_word_embeddings": False, "quantization_config": {"quant_method": "fp8"},
}  # fmt: skip
H100 = {"peak": 989.4, "memory": 3350.0}


@pytest.mark.parametrize(
    ("config", "params", "tolerance"),
    [
        (LLAMA_8B, 8_030_261_248, 0.0),
        (LLAMA_70B, 70_553_706_496, 0.0),
        (MISTRAL_7B, 7_241_732_096, 0.0),
        (QWEN25_7B, 7_615_616_512, 0.0),
        (MIXTRAL, 46_702_792_704, 0.0),
        (QWEN3_30B_A3B, 30_532_122_624, 1e-4),
        (DEEPSEEK_V3, 671_026_419_200, 1e-4),
    ],
)
def test_parameter_counts_are_the_published_ones(config: dict[str, Any], params: int, tolerance: float) -> None:
    assert shape(config).params == pytest.approx(params, rel=tolerance or 1e-12)


def test_active_parameters_of_mixtures() -> None:
    assert shape(MIXTRAL).active_params == pytest.approx(12.75e9, rel=0.01)
    assert shape(DEEPSEEK_V3).active_params == pytest.approx(37e9, rel=0.02)


def test_a_tied_head_is_counted_once_and_read_once() -> None:
    tied, untied = shape({**LLAMA_8B, "tie_word_embeddings": True}), shape(LLAMA_8B)
    assert untied.params - tied.params == 128256 * 4096
    assert floors.weight_read(tied).value == floors.weight_read(untied).value


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({}, "num_hidden_layers"),
        ({"hidden_size": 8}, "num_hidden_layers"),
        ({**LLAMA_8B, "layer_types": ["linear_attention", "full_attention"]}, "not modelled"),
    ],
)
def test_what_is_not_modelled_is_named(config: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=missing if config else "hidden_size"):
        shape(config)


def test_kv_bytes_per_token() -> None:
    assert floors.kv_per_token(shape(LLAMA_8B)).value == 131_072
    assert floors.kv_per_token(shape(LLAMA_8B), kv_bytes=1).value == 65_536
    assert floors.kv_per_token(shape(LLAMA_8B), tp=8).value == 16_384
    assert floors.kv_per_token(shape(LLAMA_8B), tp=16).value == 16_384, "one KV head is copied, not halved"
    assert floors.kv_per_token(shape(DEEPSEEK_V3)).value == 61 * 576 * 2
    assert floors.kv_per_token(shape(DEEPSEEK_V3), tp=8).value == 61 * 576 * 2, "MLA's latent is not split"
    assert floors.kv_per_token(shape({**LLAMA_8B, "num_key_value_heads": 1}), tp=4).value == 16_384


def test_decode_of_8b_on_h100() -> None:
    model = shape(LLAMA_8B)
    assert floors.weight_read(model).value == pytest.approx(15.0e9, rel=0.002)
    alone = floors.decode_floor(model, **H100)
    assert alone.value == pytest.approx(4.5, abs=0.02)
    many = floors.decode_floor(model, **H100, batch=32, context=8192)
    assert many.value - alone.value == pytest.approx(10.3, abs=0.1)
    assert floors.decode_floor(model, **H100, tp=2).value == pytest.approx(alone.value / 2)


def test_decode_turns_compute_bound_near_295() -> None:
    assert floors.compute_bound_batch(989.4, 3350).value == pytest.approx(295, abs=1)
    assert floors.balance(989.4, 3350).value == pytest.approx(295, abs=1)
    model = shape(LLAMA_8B)
    assert floors.decode_floor(model, **H100, batch=280).value == floors.decode_floor(model, **H100).value
    assert floors.decode_floor(model, **H100, batch=320).value > floors.decode_floor(model, **H100).value


def test_prefill_of_8192_tokens_takes_133_ms_at_the_peak() -> None:
    assert floors.prefill_flops(shape(LLAMA_8B), 8192).value == pytest.approx(1.32e14, rel=0.005)
    assert floors.prefill_floor(shape(LLAMA_8B), 8192, 989.4).value == pytest.approx(133, abs=1)


def test_mixtures_read_the_experts_that_are_hit() -> None:
    assert floors.hit_experts(8, 2, 1).value == 2
    assert floors.hit_experts(8, 2, 1000).value == pytest.approx(8)
    one, many = (floors.weight_read(shape(MIXTRAL), batch=b).value for b in (1, 256))
    assert one < 0.3 * many


@pytest.mark.parametrize(
    ("collective", "ranks", "factor"),
    [("all_reduce", 2, 1.0), ("all_reduce", 8, 1.75), ("all_gather", 8, 0.875), ("sendrecv", 8, 1.0)],
)
def test_busbw_factors(collective: str, ranks: int, factor: float) -> None:
    assert floors.busbw_factor(collective, ranks).value == factor


def test_collective_ceilings() -> None:
    assert floors.ring_nvlink(18, 20.6).value == pytest.approx(370.8)
    assert floors.ring_nvlink(12, 20.0).value == 240
    assert floors.nvls(18, 20.6, 8, 0.85).value == pytest.approx(490, abs=1)
    assert floors.nvls(18, 40.1, 8, 0.74).value == pytest.approx(831, abs=1)
    assert floors.nic_bound(8, 400, 370.8).value == pytest.approx(370.8)
    assert floors.nic_bound(4, 200, 240).value == 100
    assert floors.tree_two_nodes(4, 200, 16).value == pytest.approx(187.5)


def test_small_messages_and_tensor_parallel_comms() -> None:
    assert floors.small_all_reduce(8).value == pytest.approx(15.0)
    assert floors.small_all_reduce(16, nodes=2).value > floors.small_all_reduce(16).value
    step = floors.tp_comms(shape(LLAMA_70B), tokens=1, ranks=8, busbw=480, latency=15)
    assert step.value == pytest.approx(2.4), "80 layers x 2 x 15 us: latency, not bandwidth"
    big = floors.tp_comms(shape(LLAMA_70B), tokens=8192, ranks=8, busbw=480, latency=15)
    assert big.value > 50


def test_simple_floors() -> None:
    assert floors.gemm_flops(8192, 8192, 8192).value == 2 * 8192**3
    assert floors.roofline(2 * 8192**3, 3 * 2 * 8192**2, 989.4, 3350).value == pytest.approx(1.11, abs=0.01)
    assert floors.copy_time(1 << 30, 63.02).value == pytest.approx(17.04, abs=0.01)
    assert floors.in_flight(4, 2.5).value == 10
    assert floors.concurrency(floors.kv_tokens(40e9, 131072).value, 8192).value == pytest.approx(37.25, abs=0.01)


def test_a_formula_is_what_is_computed_and_shown() -> None:
    got = floors.ring_nvlink(18, 20.6)
    assert floors.evaluate(got.formula, got.terms) == got.value
    assert got.shown() == "links * rate = 370.8 GB/s (links 18, rate 20.6)"


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "[1]", "x if y else z"])
def test_only_arithmetic_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match="not arithmetic"):
        floors.evaluate(text, {"a": 1, "x": 1, "y": 1, "z": 1})


def test_shapes_read_nested_and_old_configs() -> None:
    nested: Shape = shape({"model_type": "vlm", "text_config": LLAMA_8B})
    assert nested.params == 8_030_261_248
    gpt2 = shape({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257,
                  "tie_word_embeddings": True})  # fmt: skip
    assert gpt2.params == pytest.approx(124e6, rel=0.02)
