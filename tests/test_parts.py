"""Readers and rules of parts: what bounds them, where they meet, and floors joined with named products."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage

RUNNING = "Engine 000: Avg generation throughput: 3120.9 tokens/s, Running: {n} reqs, Waiting: {w} reqs, GPU KV cache usage: 17.8%\n"  # noqa: E501


def _lead(symptom: str, *texts: str) -> str:
    docs = [Document.of(f"a{i}.txt", text.encode()) for i, text in enumerate(texts)]
    got = triage(symptom, docs).assessment
    return "none.healthy" if got.verdict == "healthy" else got.accepted[0].cause.id if got.accepted else got.verdict


@pytest.mark.parametrize(
    ("running", "waiting", "limit", "want"),
    [(64, 0, 64, "serving.client_or_proxy"), (40, 0, 64, "inconclusive"), (64, 9, 64, "other")],
)
def test_a_pool_bounds_only_where_it_is_reached_and_nothing_waits(
    running: int, waiting: int, limit: int, want: str
) -> None:
    lines = 2 * RUNNING.format(n=running, w=waiting)
    got = _lead("throughput stays flat", lines, f"sem = asyncio.Semaphore({limit})\n")
    assert got == want or (want == "other" and got != "serving.client_or_proxy")


def test_whole_deployments_beside_each_other_are_no_mismatch() -> None:
    parts = "instances/{a}/backend/generate:1\ninstances/{a}/prefill/generate:2\n"
    apart = "instances/prod/backend/generate:1\ninstances/dev/prefill/generate:2\n"
    symptom = "prefill workers stay idle, no errors"
    assert _lead(symptom, apart) == "serving.misconfigured"
    assert _lead(symptom, parts.format(a="prod") + parts.format(a="dev")) == "inconclusive"


@pytest.mark.parametrize(("ms", "want"), [(13.3, "none.healthy"), (40.0, "inconclusive")])
def test_a_token_is_held_against_its_weights(ms: float, want: str) -> None:
    text = (
        f"model file 8.99 GB\neval time = {ms * 512:.1f} ms / 512 runs ({ms} ms per token)\nRTX 3090, no throttling\n"
    )
    assert _lead("only a few tokens a second on one 3090, is that normal?", text) == want


def test_a_rank_with_more_tokens_is_no_straggler() -> None:
    rows = "".join(
        f"{n}  {1990 if n == 2 else 505}  {790 if n == 2 else 210}  {40 if n == 2 else 640}\n" for n in range(8)
    )
    table = "rank  routed tokens  expert GEMM (us)  a2a wait (us)\n" + rows.replace("  ", "     ")
    assert _lead("dispatch is slow on 7 of 8 ranks", table) == "serving.moe_imbalance"
