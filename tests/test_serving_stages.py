"""Stages of TTFT, TPOT and the whole request: sums by hand, tiers, percentiles, tails, and what verifies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.engine import triage
from diagnose.models import Report, Stage
from diagnose.verify import verify

SHARED = Path(__file__).parents[1].parent / "shared"
H100 = SHARED / "captures" / "h100x2"


def page(names: dict[str, tuple[float, float]], *extra: str, start: float = 100.0) -> str:
    """A metrics page: histogram name to sum and count."""
    lines = [f"process_start_time_seconds {start}"]
    for name, (total, count) in names.items():
        lines += [f'{name}_sum{{model_name="m"}} {total}', f'{name}_count{{model_name="m"}} {count}']
    return "\n".join([*lines, *extra]) + "\n"


def vllm(n: int, scale: float = 1.0, **more: str) -> str:
    """A vLLM page after `n` requests: TTFT 500, queue 300, prefill 150, decode 2000, e2e 2490, TPOT 10 ms."""
    each = {
        "time_to_first_token": 0.5, "request_queue_time": 0.3, "request_prefill_time": 0.15,
        "request_decode_time": 2.0, "request_inference_time": 2.15, "e2e_request_latency": 2.49,
        "request_time_per_output_token": 0.010,
    }  # fmt: skip
    names = {f"vllm:{k}_seconds": (v * n * scale, float(n)) for k, v in each.items()}
    return page(names, *more.values())


def bench(n: int, ttft: float, **more: float) -> str:
    """A result in the layout of `vllm bench serve`."""
    return json.dumps({"completed": n, "mean_ttft_ms": ttft, "mean_tpot_ms": 10.5, **more}, indent=1)


def report(*texts: str, symptom: str = "TTFT is high") -> Report:
    got = make_report(symptom, [Document.of(f"d{i}.txt", t.encode()) for i, t in enumerate(texts)])
    found = verify(got.model_dump(mode="json", by_alias=True),
                   [Document.of(f"d{i}.txt", t.encode()) for i, t in enumerate(texts)])  # fmt: skip
    assert not found, found
    return got


def of(got: Report, metric: str) -> dict[str, Stage]:
    return {s.stage: s for s in got.stages if s.metric == metric}


def whole(got: Report, metric: str) -> float:
    return next(
        float(e.value or 0) for e in got.evidence if e.signal == "serving.stage_total" and e.subject.label == metric
    )


def test_parts_of_a_window_add_up_to_the_client_s_mean() -> None:
    got = report(vllm(100), vllm(150), bench(50, 520.0))
    parts = of(got, "ttft")
    assert {k: round(v.seconds, 6) for k, v in parts.items()} == {
        "client and network": 0.02, "API server": 0.04, "queue": 0.3, "prefill": 0.15, "residual": 0.01,
    }  # fmt: skip
    assert math.fsum(s.seconds for s in parts.values()) == pytest.approx(whole(got, "ttft") / 1000, rel=1e-12)
    assert parts["queue"].share == pytest.approx(0.3 / 0.52, abs=1e-4)
    assert "not exposed" in parts["residual"].note and "two scrapes" in parts["queue"].note
    assert round(of(got, "tpot")["client and network"].seconds, 6) == 0.0005


def test_only_the_window_counts() -> None:
    before = vllm(100, scale=9.0)  # an hour of worse requests before the run
    lines = []
    for line in before.splitlines():
        name, _, value = line.rpartition(" ")
        more = next((x.rpartition(" ")[2] for x in vllm(50).splitlines() if x.rpartition(" ")[0] == name), "0")
        lines.append(line if name.startswith("process") else f"{name} {float(value) + float(more)}")
    got = of(report(before, "\n".join(lines) + "\n"), "ttft")
    assert got["queue"].seconds == pytest.approx(0.3) and got["prefill"].seconds == pytest.approx(0.15)


def test_one_scrape_is_since_the_start_and_says_so() -> None:
    parts = of(report(vllm(40)), "ttft")
    assert "since the server started" in parts["queue"].note
    assert "client and network" not in parts
    assert math.fsum(s.seconds for s in parts.values()) == pytest.approx(0.5)


def test_a_client_of_other_requests_is_not_subtracted_from() -> None:
    assert "client and network" not in of(report(vllm(100), vllm(400), bench(50, 520.0)), "ttft")


def test_a_counter_that_was_reset_gives_no_negative_stage() -> None:
    got = report(vllm(100), vllm(20))
    assert all(s.seconds > -1e-9 for s in got.stages)


def test_parts_that_exceed_the_whole_are_not_shown() -> None:
    odd = page({"vllm:time_to_first_token_seconds": (1.0, 10), "vllm:request_queue_time_seconds": (9.0, 10)})
    assert not of(report(odd), "ttft")


def test_engines_with_other_names() -> None:
    trt = page({
        "trtllm_time_to_first_token_seconds": (10.0, 10), "trtllm_request_queue_time_seconds": (6.0, 10),
        "trtllm_request_prefill_time_seconds": (3.0, 10), "trtllm_e2e_request_latency_seconds": (50.0, 10),
    })  # fmt: skip
    parts = of(report(trt), "ttft")
    assert (parts["queue"].seconds, parts["prefill"].seconds) == (pytest.approx(0.6), pytest.approx(0.3))
    assert parts["residual"].seconds == pytest.approx(0.1)
    tgi = page({
        "tgi_request_duration": (50.0, 10), "tgi_request_validation_duration": (1.0, 10),
        "tgi_request_queue_duration": (9.0, 10), "tgi_request_inference_duration": (39.0, 10),
    })  # fmt: skip
    parts = of(report(tgi), "e2e")
    assert parts["before the queue"].seconds == pytest.approx(0.1) and parts["inference"].seconds == pytest.approx(3.9)
    assert parts["residual"].seconds == pytest.approx(0.1)
    sglang = page({"sglang:time_to_first_token_seconds": (10.0, 10), "sglang:queue_time_seconds": (7.0, 10)},
                  'sglang:per_stage_req_latency_seconds_sum{stage="prefill_forward"} 2.0',
                  'sglang:per_stage_req_latency_seconds_count{stage="prefill_forward"} 10')  # fmt: skip
    parts = of(report(sglang), "ttft")
    assert parts["queue"].seconds == pytest.approx(0.7) and parts["prefill"].seconds == pytest.approx(0.2)


def test_a_frontend_before_the_engine_is_a_tier_of_its_own() -> None:
    front = page({"dynamo_frontend_time_to_first_token_seconds": (5.5, 10)},
                 'dynamo_frontend_tokenizer_latency_ms_sum{operation="tokenize"} 200',
                 'dynamo_frontend_tokenizer_latency_ms_count{operation="tokenize"} 10')  # fmt: skip
    engine = page(
        {"vllm:time_to_first_token_seconds": (5.0, 10), "vllm:request_queue_time_seconds": (3.0, 10)}, start=7
    )
    parts = of(report(front, engine), "ttft")
    assert {k: round(v.seconds, 6) for k, v in parts.items()} == {
        "tokenise": 0.02, "frontend and router": 0.03, "queue": 0.3, "residual": 0.2,
    }  # fmt: skip


def test_percentiles_are_bounds_and_say_that_they_do_not_add() -> None:
    edges = ((0.1, 20), (0.5, 150), (1.0, 199), ("+Inf", 200))
    rows = [f'vllm:request_queue_time_seconds_bucket{{model_name="m",le="{e}"}} {n}' for e, n in edges]
    got = report(vllm(200, rows="\n".join(rows)))
    p50, p99 = of(got, "ttft p50")["queue"], of(got, "ttft p99")["queue"]
    assert (p50.seconds, p99.seconds, p99.share) == (0.5, 1.0, None)
    assert "do not add up" in p99.note
    said = next(e.statement for e in got.evidence if e.id == p99.evidence[0])
    assert "between 500 ms and 1 s" in said and "200 requests" in said


def trace(n: int = 100) -> str:
    """Requests whose slowest tenth waits."""
    rows = [{"i": i, "ttft_ms": 100 + (900 if i % 10 == 9 else 0), "queue_ms": 900 if i % 10 == 9 else 10,
             "prefill_ms": 60, "tpot_ms": 8 if i % 4 else 30} for i in range(n)]  # fmt: skip
    return "\n".join(map(json.dumps, rows)) + "\n"


def test_the_tail_is_taken_apart_from_single_requests_only() -> None:
    got = report(trace(), symptom="P99 TTFT is high")
    parts = of(got, "ttft tail")
    assert parts["queue"].seconds == pytest.approx(0.9) and parts["prefill"].seconds == pytest.approx(0.06)
    assert math.fsum(s.seconds for s in parts.values()) == pytest.approx(1.0)
    assert "slowest 10 requests" in parts["queue"].note
    assert not of(report(trace(12), symptom="P99 TTFT is high"), "ttft tail")


def facts(*texts: str) -> dict[tuple[str, str | None], Any]:
    got = triage("TTFT is high", [Document.of(f"d{i}.txt", t.encode()) for i, t in enumerate(texts)])
    return {(e.signal, e.subject.label): e.value for e in got.evidence}


def test_little_s_law_says_which_limit_binds_although_both_scrapes_are_idle() -> None:
    run = bench(50, 520.0, request_throughput=2.0, mean_e2el_ms=2500.0)
    got = facts(vllm(100), vllm(150), run, "vllm serve m --max-num-seqs 5\n")
    assert got["serving.in_flight", "in the system"] == pytest.approx(5.0)
    assert got["serving.in_flight", "in the queue"] == pytest.approx(0.6)
    assert got["serving.binds", None] == "max-num-seqs"
    roomy = facts(vllm(100), vllm(150), run, "vllm serve m --max-num-seqs 256\n")
    assert ("serving.binds", None) not in roomy  # nothing says how full the cache was


def test_no_wait_no_limit_that_binds() -> None:
    quick = page({"vllm:time_to_first_token_seconds": (5.0, 100), "vllm:request_queue_time_seconds": (0.1, 100)})
    assert ("serving.binds", None) not in facts(quick, "vllm serve m --max-num-seqs 1\n")


def test_what_is_worked_out_does_not_vote_for_a_question() -> None:
    docs = [Document.of("a", vllm(100).encode()), Document.of("b", vllm(150).encode())]
    assert triage("", docs).playbook == "high-ttft"  # most of TTFT is queue


@pytest.mark.skipif(not H100.is_dir(), reason="captures are not here")
@pytest.mark.parametrize(
    ("state", "most"),
    [("default/saturation", "queue"),
     pytest.param("default/healthy", "prefill", marks=pytest.mark.thorough),
     pytest.param("tp2/healthy", "prefill", marks=pytest.mark.thorough),
     pytest.param("eager/healthy", "prefill", marks=pytest.mark.thorough),
     pytest.param("tinykv/kv-exhausted", "queue", marks=pytest.mark.thorough)],
)  # fmt: skip
def test_recorded_servers(state: str, most: str) -> None:
    folder = H100 / "vllm" / state
    paths = [
        *folder.glob("*.prom"),
        folder / "bench.json",
        folder.parent / "serve_args.txt",
        H100 / "env/nvidia-smi.txt",
    ]
    got = report(*(p.read_text() for p in sorted(paths)))
    for metric in ("ttft", "tpot", "e2e"):
        parts = of(got, metric)
        assert math.fsum(s.seconds for s in parts.values()) == pytest.approx(whole(got, metric) / 1000, rel=1e-12)
        assert abs(parts["residual"].share or 0) <= 0.2
    parts = of(got, "ttft")
    assert max(parts, key=lambda s: parts[s].seconds) == most
    floor = of(got, "tpot")["decode step"].floor or 0
    if state == "default/healthy":
        assert 0.0044 < floor < 0.0048 and 0.0045 < (parts["prefill"].floor or 0) < 0.006
    assert 0 < floor < of(got, "tpot")["decode step"].seconds
