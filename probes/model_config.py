"""A model's config.json (Hugging Face): the sizes that decide weights, KV cache and arithmetic.

Sizes of a vision or audio tower are left out: of nested configs only `text_config` counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diagnose.document import Document
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.safe_json import loads, locate_all

SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "moe_intermediate_size", "shared_expert_intermediate_size", "num_local_experts", "num_experts", "n_routed_experts",
    "n_shared_experts", "num_experts_per_tok", "experts_per_token", "first_k_dense_replace", "moe_layer_freq",
    "decoder_sparse_step", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "ffn_dim", "max_position_embeddings", "sliding_window",
)  # fmt: skip
TRAITS = ("model_type", "torch_dtype", "dtype", "tie_word_embeddings")
KINDS = ("layer_types", "layers_block_type")  # lists: what kinds of layers there are
QUANTISED = ("quant_method", "bits")


class ModelConfigReader:
    """config.json as a document of its own."""

    name = "model_config"
    needles: tuple[bytes, ...] = (b'"num_hidden_layers"', b'"n_layer"')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact for each size and trait."""
        if doc.head.lstrip()[:1] != b"{" or doc.size > 1 << 20:
            return
        config: Any = loads(doc.data, self.name)
        if not isinstance(config, dict):
            return
        paths: dict[tuple[str, ...], tuple[str, Any]] = {}
        for prefix in ((), ("text_config",), ("quantization_config",)):
            place = config.get(prefix[0]) if prefix else config
            wanted = QUANTISED if prefix == ("quantization_config",) else (*SIZES, *TRAITS)
            if isinstance(place, dict):
                for key in wanted:
                    if isinstance(place.get(key), (int, str)):
                        paths[*prefix, key] = (key, place[key])
                for key in KINDS:
                    if isinstance(place.get(key), list):
                        paths[*prefix, key] = (key, ", ".join(sorted({str(k) for k in place[key]})))
        if any(p[0] == "text_config" for p in paths):
            nested = {key for path, (key, _) in paths.items() if path[0] == "text_config"}
            paths = {p: v for p, v in paths.items() if p[0] == "text_config" or v[0] not in nested}
        places = locate_all(doc.data, list(paths))
        for path, (key, value) in paths.items():
            found = places.get(path)
            if found is None:
                continue
            start, end, line = found
            span = (doc.bytes_span(start, end, line),)
            if isinstance(value, int) and not isinstance(value, bool):
                yield Fact("model.size", float(value), "count", Subject(label=key), span, status=doc.status)
            else:
                yield Fact("model.trait", str(value), None, Subject(label=key), span, status=doc.status)


READERS: list[Reader] = [ModelConfigReader()]
