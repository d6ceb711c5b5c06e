"""The reader of a model's config.json."""

from __future__ import annotations

import json

import pytest
from diagnose.probes.model_config import ModelConfigReader

from diagnose.document import Document
from diagnose.errors import ParseError
from diagnose.models import Fact

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "rope_theta": 500000.0,
}  # fmt: skip


def read(text: str) -> dict[str, Fact]:
    return {f.subject.label or "": f for f in ModelConfigReader().parse(Document.of("c", text.encode()))}


@pytest.mark.parametrize("indent", [None, 2])
def test_sizes_and_traits_are_quoted_where_they_stand(indent: int | None) -> None:
    text = json.dumps(CONFIG, indent=indent)
    got = read(text)
    assert set(got) == {"model_type", "hidden_size", "num_hidden_layers", "tie_word_embeddings", "torch_dtype"}
    assert (got["hidden_size"].signal, got["hidden_size"].value) == ("model.size", 4096.0)
    assert (got["tie_word_embeddings"].signal, got["tie_word_embeddings"].value) == ("model.trait", "False")
    for key, fact in got.items():
        span = fact.spans[0]
        assert text.encode()[span.start : span.end].decode() == span.quote
        assert f'"{key}"' in span.quote


def test_a_tower_does_not_hide_the_text_model() -> None:
    got = read(json.dumps({"hidden_size": 1, "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24},
                           "text_config": {"hidden_size": 5120, "num_hidden_layers": 64, "layer_types": ["b", "a"]},
                           "quantization_config": {"quant_method": "awq", "bits": 4}}))  # fmt: skip
    assert (got["hidden_size"].value, got["num_hidden_layers"].value) == (5120.0, 64.0)
    assert (got["bits"].value, got["quant_method"].value, got["layer_types"].value) == (4.0, "awq", "a, b")


@pytest.mark.parametrize("text", ['["num_hidden_layers"]', "num_hidden_layers: 32", ""])
def test_other_text_is_left_alone(text: str) -> None:
    assert read(text) == {}


def test_a_cut_config_is_an_error_of_the_reader() -> None:
    with pytest.raises(ParseError):
        read('{"num_hidden_layers": 32, "hidden')
