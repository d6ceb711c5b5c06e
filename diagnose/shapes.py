"""The shape of a transformer from its Hugging Face config: parameters by role, KV cache width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

_PLAIN_MLP = frozenset(["gpt2", "opt", "gpt_neox", "gptj", "falcon", "phi", "bloom", "starcoder2"])
# Layers that keep a state instead of a KV cache; their parameters are not modelled here.
_STATEFUL = frozenset(["mamba", "mamba2", "linear_attention", "recurrent", "conv"])


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that the floors need.

    Attributes:
        kv_layers: layers with a KV cache. kv_latent: width of MLA's latent and rope vector, or 0.
        dense_params: matrices and norms that every token reads, without experts, embedding and head.
        expert_params_all_layers: one routed expert, summed over the `expert_layers` that have experts.
        head_params, embedding_params: output projection and input table (the same one when tied).
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    kv_layers: int
    kv_latent: int
    attention_dim: float
    dense_params: int
    experts: int
    active_experts: int
    expert_params_all_layers: int
    weight_bytes: float | None = None
    expert_layers: int = 0

    @property
    def attention_kind(self) -> str:
        """How keys and values are shared between heads."""
        if self.kv_latent:
            return "MLA"
        return "MHA" if self.kv_heads == self.heads else "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def head_params(self) -> int:
        """Output projection."""
        return self.vocab * self.hidden

    @property
    def embedding_params(self) -> int:
        """Input table, when it is a table of its own."""
        return 0 if self.tied else self.head_params

    @property
    def params(self) -> int:
        """All parameters."""
        return (
            self.dense_params + self.experts * self.expert_params_all_layers + self.head_params + self.embedding_params
        )

    @property
    def prefill_params(self) -> int:
        """Parameters each prompt token is multiplied with; the head sees the last token only."""
        return self.dense_params + self.active_experts * self.expert_params_all_layers

    @property
    def active_params(self) -> int:
        """Parameters each generated token is multiplied with."""
        return self.prefill_params + self.head_params


def shape(config: Mapping[str, Any]) -> Shape:
    """Read a config.json.

    Raises:
        ValueError: names what is missing, or what this model has that is not modelled.
    """
    text = config.get("text_config")
    c: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    kinds = c.get("layer_types") or c.get("layers_block_type") or []
    odd = sorted(_STATEFUL & {str(k) for k in kinds})
    if odd:
        raise ValueError(f"layers of kind {odd[0]} are not modelled")

    def need(*names: str) -> int:
        for name in names:
            if isinstance(c.get(name), int):
                return int(c[name])
        raise ValueError(f"config has no {names[0]}")

    def get(*names: str) -> int:
        return next((int(c[n]) for n in names if isinstance(c.get(n), int)), 0)

    hidden, layers = need("hidden_size", "n_embd", "d_model"), need("num_hidden_layers", "n_layer")
    heads = need("num_attention_heads", "n_head")
    kv_heads = get("num_key_value_heads") or (1 if c.get("multi_query") else heads)
    head_dim = get("head_dim") or hidden // heads
    latent = get("kv_lora_rank") + get("qk_rope_head_dim") if get("kv_lora_rank") else 0
    attention, width = _attention(get, hidden, heads, kv_heads, head_dim)
    if c.get("attention_bias") or c.get("model_type") in ("qwen2", "qwen2_moe"):
        attention += (heads + 2 * kv_heads) * head_dim  # q, k and v have a bias there
    matrices = 2 if c.get("model_type") in _PLAIN_MLP else 3
    experts = get("num_local_experts", "num_experts", "n_routed_experts")
    sparse = _sparse_layers(c, layers) if experts else 0
    one = matrices * hidden * (get("moe_intermediate_size") or need("intermediate_size", "n_inner")) if experts else 0
    shared = matrices * hidden * _shared_width(get)
    dense_mlp = matrices * hidden * (get("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden)
    dense = layers * (attention + 2 * hidden) + hidden + (layers - sparse) * dense_mlp
    dense += sparse * (shared + hidden * experts)
    return Shape(
        name=str(c.get("_name_or_path") or c.get("model_type") or "model"), layers=layers, hidden=hidden, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim, vocab=need("vocab_size"), tied=bool(c.get("tie_word_embeddings", False)),
        kv_layers=layers, kv_latent=latent, attention_dim=width, dense_params=dense, experts=experts,
        active_experts=get("num_experts_per_tok", "experts_per_token"), expert_params_all_layers=sparse * one,
        weight_bytes=_weight_bytes(c), expert_layers=sparse,
    )  # fmt: skip


def _attention(get: Any, hidden: int, heads: int, kv_heads: int, head_dim: int) -> tuple[int, float]:
    """Parameters of one attention layer, and the mean width of a head in its two products."""
    rank = get("kv_lora_rank")
    if not rank:
        return hidden * head_dim * (2 * heads + 2 * kv_heads), float(head_dim)
    nope, rope, value = get("qk_nope_head_dim"), get("qk_rope_head_dim"), get("v_head_dim")
    queries = get("q_lora_rank")
    if queries:
        q = hidden * queries + queries * heads * (nope + rope) + queries
    else:
        q = hidden * heads * (nope + rope)
    kv = hidden * (rank + rope) + rank * heads * (nope + value) + rank
    return q + kv + heads * value * hidden, (nope + rope + value) / 2


def _sparse_layers(c: Mapping[str, Any], layers: int) -> int:
    """How many layers have routed experts."""
    first = int(c.get("first_k_dense_replace") or 0)
    step = int(c.get("decoder_sparse_step") or c.get("moe_layer_freq") or 1)
    plain = set(c.get("mlp_only_layers") or [])
    if "decoder_sparse_step" in c:
        return sum((i + 1) % step == 0 and i not in plain for i in range(layers))
    return sum(i >= first and i % step == 0 for i in range(layers))


def _shared_width(get: Any) -> int:
    width = get("shared_expert_intermediate_size") or get("n_shared_experts") * get("moe_intermediate_size")
    return int(width)


def _weight_bytes(c: Mapping[str, Any]) -> float | None:
    """Bytes a weight of the matrices takes, from the quantisation or the dtype; None when unsaid."""
    quant = c.get("quantization_config")
    if isinstance(quant, Mapping):
        method = str(quant.get("quant_method", "")).lower()
        if isinstance(quant.get("bits"), int):
            return float(quant["bits"]) / 8
        if "fp8" in method or "fbgemm" in method:
            return 1.0
        if "mxfp4" in method:
            return 0.53125  # 4 bits and one scale of 8 bits for 32 weights
        return None
    dtype = str(c.get("torch_dtype") or c.get("dtype") or "")
    return {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "float8_e4m3fn": 1.0}.get(dtype)


@lru_cache(maxsize=1)
def known_models() -> dict[str, dict[str, Any]]:
    """Configs of published models by name."""
    from .catalogue import plain_yaml

    out: dict[str, dict[str, Any]] = {}
    folder = files("diagnose.playbooks") / "shapes"
    for item in sorted(folder.iterdir(), key=lambda p: p.name) if folder.is_dir() else []:
        if item.name.endswith(".yaml"):
            out |= plain_yaml(item.read_text("utf-8")) or {}
    return out


def _plain(name: str) -> str:
    """A model's name without owner, punctuation and the words that do not change its shape."""
    last = name.strip().rstrip("/").lower().rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9]|meta-|-?(?:instruct|chat|hf|base|it)(?:-|$)", "", re.sub(r"-v0?\.\d$", "", last))


def named(name: str) -> Shape | None:
    """The published model of exactly this name; a quantised or otherwise altered one is another model."""
    key = _plain(name)
    for known, config in known_models().items():
        if _plain(known) == key:
            return shape(config)
    return None
