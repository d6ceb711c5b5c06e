"""`diagnose floors`: figures against arithmetic done by hand, and what it says without hardware."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diagnose import floors_command, hardware
from diagnose.errors import UsageError
from diagnose.floors import evaluate
from diagnose.floors_command import Options
from diagnose.shapes import known_models, named, shape


def figures(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON output, and its figures by name."""
    floors_command.run(Options(**{"model": "llama-3-8b", "gpu": "H100 SXM", **options}), "json")
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "diagnose.floors/v1"
    return data, {f["name"]: f for f in data["figures"]}


def test_8b_on_h100(capsys: pytest.CaptureFixture[str]) -> None:
    _, got = figures(capsys)
    # (8.03e9 - 0.525e9 of the input embedding) * 2 B / 3350 GB/s
    assert got["decode_weights"]["value"] == pytest.approx(7_504_924_672 * 2 / 3350e6, rel=1e-9)
    assert 4.4 < got["decode_weights"]["value"] < 4.8
    assert got["kv_per_token"]["value"] == 2 * 32 * 8 * 128 * 2 == 131072
    assert got["compute_bound"]["value"] == pytest.approx(989.4e3 / 3350)
    assert got["decode_kv"]["value"] == pytest.approx(32 * 2176 * 131072 / 3350e6)


def test_capacity_is_what_an_engine_found_within_a_few_per_cent(capsys: pytest.CaptureFixture[str]) -> None:
    # vLLM on this product with 0.92 of the memory printed 462,944 tokens; a ceiling lies a little above
    _, got = figures(capsys, mem_util=0.92)
    assert 462_944 <= got["kv_tokens"]["value"] <= 462_944 * 1.06


def test_every_figure_follows_from_its_formula_and_cites_its_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    data, got = figures(capsys, tp=2, parallel="dp=2,tp=2", users=16)
    known = {r["id"] for r in data["references"]}
    assert [n for n, one in got.items() if one["value"] is None] == ["compute_bound_at"]
    for one in got.values():
        if one["value"] is None:
            continue
        assert one["value"] == pytest.approx(evaluate(one["formula"], one["terms"]))
        assert set(one["sources"]) <= known
        if {"memory", "peak", "memory_gb"} & set(one["terms"]):
            assert one["sources"], one["name"]


def test_nvlink_of_h100_carries_370_8(capsys: pytest.CaptureFixture[str]) -> None:
    _, got = figures(capsys, tp=2)
    assert got["link"]["value"] == pytest.approx(370.8)
    # 64 all-reduces of at least 7.8 us
    assert got["all_reduce_step"]["value"] == pytest.approx(64 * 7.8 / 1e3)
    # a prefill moves 2048 x 4096 x 2 B, 64 times
    assert got["all_reduce_prefill"]["value"] == pytest.approx(64 * 2048 * 4096 * 2 / 370.8e6)


@pytest.mark.parametrize(
    ("model", "tp", "each", "note"),
    [
        ("llama-3-8b", 8, 2 * 32 * 1 * 128 * 2, "8 KV heads"),
        ("qwen2.5-7b", 7, 2 * 28 * 1 * 128 * 2, "4 KV heads"),
        ("qwen3-30b-a3b", 8, 2 * 48 * 1 * 128 * 2, "kept 2 times"),
    ],
)
def test_kv_heads_are_shared_out_then_copied(
    capsys: pytest.CaptureFixture[str], model: str, tp: int, each: int, note: str
) -> None:
    _, got = figures(capsys, model=model, tp=tp)
    assert got["kv_per_token"]["value"] == each
    assert note in got["kv_per_token"]["note"]


def test_the_latent_of_mla_is_not_split(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"hidden_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048,
              "vocab_size": 1000, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
              "v_head_dim": 128, "torch_dtype": "bfloat16"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, got = figures(capsys, model=str(tmp_path), tp=4)
    assert got["kv_per_token"]["value"] == 4 * 576 * 2
    assert "copied to 4 ranks" in got["kv_per_token"]["note"]
    assert shape(config).attention_kind == "MLA"


def test_fp8_halves_cache_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    _, wide = figures(capsys)
    _, slim = figures(capsys, dtype="fp8", kv_dtype="fp8")
    assert slim["kv_per_token"]["value"] == wide["kv_per_token"]["value"] / 2
    assert slim["prefill"]["value"] == pytest.approx(wide["prefill"]["value"] / 2, rel=1e-3)
    assert slim["decode_weights"]["value"] < 0.6 * wide["decode_weights"]["value"]


def test_unknown_hardware_gives_no_figure_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    data, got = figures(capsys, gpu="H900")
    assert got["decode"]["value"] is None and "H900" in got["decode"]["reason"]
    assert got["kv_tokens"]["value"] is None
    assert got["kv_per_token"]["value"] == 131072  # needs no hardware
    assert data["gpu"] is None and "H900" in data["unavailable"]


def test_a_name_that_several_products_share_is_said_to_be_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    data, got = figures(capsys, gpu="H100")
    assert data["gpu"] == "H100 80GB HBM3" and "PCIe" in data["assumed"][0]
    assert got["decode"]["value"] is not None
    assert hardware.gpu("H100") is None  # read from evidence it still names no product


def test_auto_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors_command, "this_gpu", lambda: ("", "no GPU here: library not found"))
    data, got = figures(capsys, gpu="auto")
    assert "no GPU here" in data["unavailable"] and got["decode"]["value"] is None


def test_measured_ceilings_come_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "micro.json"
    path.write_text(json.dumps({"rows": [
        {"name": "device copy", "measured": 3000.0, "unit": "GB/s"},
        {"name": "read", "measured": 3100.0, "unit": "GB/s"},
        {"name": "pinned H2D copy", "measured": 55.0, "unit": "GB/s"},
        {"name": "wgmma bf16", "measured": 700.0, "unit": "TFLOP/s"},
        {"name": "all-reduce busbw", "value": 310.0, "unit": "GB/s"},
    ]}))  # fmt: skip
    data, got = figures(capsys, ceilings=str(path), tp=2)
    assert got["decode_weights"]["terms"]["memory"] == 3100.0
    assert got["prefill"]["terms"]["peak"] == 700.0
    assert got["link"]["value"] == 310.0
    assert any("measured" in r["source"] for r in data["references"])
    _, blind = figures(capsys, ceilings=str(path), gpu="H900")
    assert blind["decode"]["value"] is not None and blind["kv_tokens"]["value"] is None


def test_training_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    args: dict[str, Any] = {"train": True, "input": 4096, "users": 64, "nodes": 4, "nic": 400.0}
    _, got = figures(capsys, model="llama-3-70b", parallel="dp=2,tp=8,pp=2", **args)
    tensor = next(v for k, v in got.items() if k.startswith("time: tensor"))
    # 4 all-reduces a layer, 40 layers on a stage, 32 micro-batches of one sequence, 2 * 7/8 of 64 MiB
    assert tensor["value"] == pytest.approx(4 * 40 * 32 * 2 * 7 / 8 * 4096 * 8192 * 2 / 370.8e6)
    assert got["bubble"]["value"] == pytest.approx(1 / 33)
    assert got["step_flops"]["value"] == pytest.approx(6 * 69.503e9 * 64 * 4096, rel=1e-4)
    share = got["optimizer states"]["value"]
    _, sharded = figures(capsys, model="llama-3-70b", parallel="dp=2,tp=8,pp=2,zero1", **args)
    assert sharded["optimizer states"]["value"] == share / 2
    assert sharded["weights, BF16"]["value"] == got["weights, BF16"]["value"]
    _, fsdp = figures(capsys, model="llama-3-70b", parallel="dp=2,tp=8,pp=2,fsdp", **args)
    assert fsdp["weights, BF16"]["value"] == got["weights, BF16"]["value"] / 2
    sent = {k: v["value"] for k, v in fsdp.items() if k.startswith("sent: FSDP")}
    assert sum(sent.values()) > got["sent: data parallel: gradients"]["value"]


def test_a_group_that_leaves_the_host_shares_the_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    _, got = figures(capsys, parallel="dp=16", train=True, nodes=2, nic=400.0, nics=8, users=16, input=2048)
    one = got["time: data parallel: gradients"]
    # one ring over all GPUs of both hosts: 8 x 50 GB/s would do more than NVLink
    assert one["terms"]["busbw"] == pytest.approx(370.8)
    _, got = figures(capsys, parallel="dp=2,tp=8", train=True, nodes=2, nic=400.0, nics=8, users=16, input=2048)
    assert got["time: data parallel: gradients"]["terms"]["busbw"] == pytest.approx(50.0)
    _, got = figures(capsys, parallel="dp=2,tp=8", train=True, nodes=2, users=16, input=2048)
    assert got["time: data parallel: gradients"]["value"] is None


def test_experts_travel_by_all_to_all(capsys: pytest.CaptureFixture[str]) -> None:
    _, got = figures(capsys, model="mixtral-8x7b" if "mixtral-8x7b" in known_models() else
                     "qwen3-30b-a3b", parallel="tp=8,ep=8", users=32)  # fmt: skip
    sent = next(v for k, v in got.items() if k.startswith("sent: expert"))
    assert sent["terms"]["n"] == 8 and "alltoall" in sent["note"]


@pytest.mark.parametrize(
    "bad",
    [
        {"model": "nothing-like-this"}, {"parallel": "qp=3"}, {"parallel": "dp"}, {"tp": 3}, {"mem_util": 1.5},
        {"dtype": "int3"}, {"parallel": "fsdp"}, {"parallel": "dp=3,tp=1", "nodes": 2}, {"tp": 0},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        floors_command.run(Options(**{"model": "llama-3-8b", "gpu": "H100 SXM", **bad}), "json")


@pytest.mark.parametrize("form", ["text", "md"])
def test_text_and_markdown_show_formula_and_source(capsys: pytest.CaptureFixture[str], form: str) -> None:
    floors_command.run(Options(model="llama-3-8b", gpu="H100 SXM", tp=2), form)
    out = capsys.readouterr().out
    assert "weights / tp / (memory * 1e6)" in out and "NCCL src/graph/topo.h" in out and "370.8" in out


@pytest.mark.parametrize(
    ("name", "layers"),
    [("meta-llama/Meta-Llama-3-8B-Instruct", 32), ("/models/llama3-8b", 32), ("Qwen/Qwen2.5-7B-Instruct", 28),
     ("mistralai/Mistral-7B-Instruct-v0.3", 32)],
)  # fmt: skip
def test_models_are_known_by_the_names_they_are_served_under(name: str, layers: int) -> None:
    got = named(name)
    assert got is not None and got.layers == layers


@pytest.mark.parametrize(
    "name", ["neuralmagic/Meta-Llama-3-8B-Instruct-FP8", "llama3-8b-awq", "my-model", "llama-3-80b"]
)
def test_other_models_are_not_taken_for_them(name: str) -> None:
    assert named(name) is None
