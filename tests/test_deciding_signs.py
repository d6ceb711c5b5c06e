"""Signs that decide: forms and twins of `evals/cases/weak_b.yaml`, and the readers they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnose.probes import load_check, moves, settled
from diagnose.probes.serving_moe import ServingMoeReader

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact

CASES = yaml.safe_load((Path(__file__).parents[1] / "evals" / "cases" / "weak_b.yaml").read_text(encoding="utf-8"))


def facts(reader: Any, text: str) -> dict[str, Any]:
    """Signal to value, as one reader gives them."""
    got: list[Fact] = list(reader.parse(Document.of("a.txt", text.encode())))
    return {fact.signal: fact.value for fact in got}


@pytest.mark.parametrize("case", CASES[::3], ids=lambda c: c["id"])
def test_form_and_twin(case: dict[str, Any]) -> None:
    """Every third: named where the sign stands, left open or healthy where it is turned round."""
    docs = [Document.of(f"{i}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]
    assessment = triage(case["symptom"], docs).assessment
    wanted = case.get("verdict", "cause")
    assert assessment.verdict == wanted
    if wanted == "cause":
        allowed = {case["root_cause"]["label"], *case["root_cause"]["also_accept"]}
        assert assessment.accepted[0].cause.id in allowed


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("  2000 requests in 30.0s, 1MB read\n  Non-2xx or 3xx responses: 500\n", 0.25),
        ("  [200] 10 responses\n  [503] 30 responses\n", 0.75),
        ("http_req_failed................: 97.40% ✓ 11688 ✗ 312\n", 0.974),
        ("Status Codes  [code:count]  200:60  429:40\n", 0.4),
        ("  Success rate: 4.00%\n", 0.96),
        ("    Aggregated   1000  960(96.00%)\n", 0.96),
    ],
)
def test_refused_answers(text: str, share: float) -> None:
    assert facts(load_check.LoadStatusReader(), text)["bench.failed_share"] == pytest.approx(share)


def test_negative_times_are_no_differences() -> None:
    reader = load_check.NegativeTimeReader()
    assert facts(reader, "req   ttft_s   e2e_s\n1     -0.402   2.1\n") == {"bench.negative_time": "-0.402"}
    assert facts(reader, "run   ttft_delta   e2e_delta\nA     -0.402   -2.1\n") == {}


def test_a_client_line_counts_only_where_its_arithmetic_holds() -> None:
    reader = load_check.ClientCountReader()
    assert facts(reader, "stream done in 8.40 s, 1530 tokens, 182.1 tok/s") == {"bench.counted_tokens": 1530.0}
    assert facts(reader, "warm-up 8.40 s, 1530 tokens cached, 61.0 tok/s") == {}


def test_running_that_falls_with_a_full_cache_went_back() -> None:
    line = "Running: {} reqs, Waiting: {} reqs, GPU KV cache usage: {}%\n"
    rows = ((98, 30, 99.1), (60, 68, 99.6), (97, 31, 99.2), (61, 67, 99.8))
    assert facts(moves.MovedBackReader(), "".join(line.format(*r) for r in rows)) == {"serving.moved_back": 2.0}
    ended = ((98, 30, 99.1), (60, 68, 71.0), (97, 31, 99.2))  # blocks came free: requests ended
    assert facts(moves.MovedBackReader(), "".join(line.format(*r) for r in ended)) == {}


def test_padding_needs_both_declarations() -> None:
    plain, padded = "__shared__ float t[32][32];\nkernel 1.90 ms\n", "__shared__ float t[32][33];\nkernel 0.60 ms\n"
    assert facts(moves.PadReader(), plain + padded)["kernel.pad_gain"] == pytest.approx(3.167, rel=1e-3)
    assert facts(moves.PadReader(), plain) == {}


def test_wavefronts_of_a_source_view() -> None:
    head = "# Source            L1 Wavefronts Shared  L1 Wavefronts Shared Ideal\n"
    text = head + "LDS.128 R4, [R2]   8,388,608             1,048,576\nLDG.E R8, [R4]     0                     0\n"
    assert facts(moves.WavefrontReader(), text)["kernel.excess_wavefronts"] == pytest.approx(0.875)


def test_the_busiest_expert_over_the_mean() -> None:
    reader = ServingMoeReader()
    text = "moe stats: rank 2 max expert load 9120 tokens, mean over ranks 1460 tokens\n"
    assert facts(reader, text)["serving.expert_peak"] == pytest.approx(6.247, rel=1e-3)
    assert "serving.expert_peak" not in facts(reader, "moe kernel max 9120 us, mean 1460 us\n")


def test_a_rate_without_a_variable() -> None:
    reader = settled.EnvControlReader()
    text = "as is: 6.8 GB/s\nwith NCCL_P2P_DISABLE unset: 229.0 GB/s\n"
    assert facts(reader, text)["env.control_gain"] == pytest.approx(33.676, rel=1e-3)
    assert facts(reader, text.replace("229.0", "6.9")) == {}


def test_the_tail_at_the_client_s_limit() -> None:
    reader = settled.CappedTailReader()
    assert facts(reader, "timeout=60\np90 60.0 s  p99 60.0 s\n") == {"bench.capped": 60.0}
    assert facts(reader, "timeout=60\np90 47.0 s  p99 52.0 s\n") == {}


def test_a_query_and_its_result() -> None:
    reader = settled.QueryReader()
    assert facts(reader, "rate(vllm:num_preemptions_total[5m])  6.8\n") == {"serving.preempted_growth": 2040.0}
    assert facts(reader, "rate(vllm:num_preemptions_total[5m])  0\n") == {}


def test_an_empty_list_of_links() -> None:
    reader = settled.EmptyNvlinkReader()
    head = "$ nvidia-smi nvlink -s\n"
    assert facts(reader, head + "(no output)\n") == {"nvlink.absent": "true"}
    assert facts(reader, head + "GPU 0: NVIDIA L40S\nGPU 1: NVIDIA L40S\n") == {"nvlink.absent": "true"}
    assert facts(reader, head + "GPU 0: NVIDIA A100\n  Link 0: 25 GB/s\nGPU 1: NVIDIA A100\n") == {}
    assert facts(reader, head + "[...]\n") == {}
