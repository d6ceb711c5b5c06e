"""Prefill and decode apart, and a server split over GPUs: what their pages, logs and samples say, on short excerpts."""

from __future__ import annotations

import pytest
from diagnose.probes.nvidia_smi_csv import CsvReader

from diagnose.document import Document
from diagnose.engine import triage


def _page(output: int, *, queue: float, e2e: float, ttft: float, hits: int = 0, moved: float | None = None) -> str:
    """A page of vLLM after 40 requests of 1,000 tokens."""
    means = {
        "time_to_first_token_seconds": ttft, "e2e_request_latency_seconds": e2e, "request_queue_time_seconds": queue,
        "request_prefill_time_seconds": 0.02, "request_decode_time_seconds": 0.01 * (output - 1),
        "request_prompt_tokens": 1000, "request_generation_tokens": output,
    }  # fmt: skip
    if moved is not None:
        means["nixl_xfer_time_seconds"] = moved
        means["nixl_bytes_transferred"] = 128e6
    rows = [f'vllm:{name}_{part}{{model_name="m"}} {value}'
            for name, mean in means.items() for part, value in (("sum", mean * 40), ("count", 40.0))]  # fmt: skip
    rows += [
        f"process_start_time_seconds {1.79e9 + output}",  # what tells one server from another
        'vllm:external_prefix_cache_queries_total{model_name="m"} 40000.0',
        f'vllm:external_prefix_cache_hits_total{{model_name="m"}} {hits}',
        'vllm:nixl_num_failed_notifications_total{model_name="m"} 0.0',
        'vllm:nixl_num_failed_notifications_created{model_name="m"} 1.795374453383138e+09',
    ]
    return "\n".join(rows) + "\n"


def _ask(symptom: str, *texts: str):  # type: ignore[no-untyped-def]
    return triage(symptom, [Document.of(f"{i}.txt", t.encode()) for i, t in enumerate(texts)])


PREFILL = _page(1, queue=0.0, e2e=0.1, ttft=0.1)
BENCH = "============ Serving Benchmark Result ============\nSuccessful requests: 40\nMean TTFT (ms): 180.0\n"


def _stages(got) -> dict[str, float]:  # type: ignore[no-untyped-def]
    return {
        e.subject.label: round(float(e.value))
        for e in got.evidence
        if e.signal == "serving.stage_mean" and (e.subject.label or "").startswith("ttft: ")
    }


def test_the_prefill_server_is_a_stage_of_its_own() -> None:
    decode = _page(64, queue=0.03, e2e=0.7, ttft=0.06, hits=40000, moved=0.02)
    got = _stages(_ask("TTFT is high", PREFILL, decode, BENCH))
    assert got["ttft: prefill server"] == 100
    assert got["ttft: client and network"] == 20
    assert (got["ttft: queue"], got["ttft: KV transfer"]) == (10, 20)


def test_a_saturated_prefill_server_is_still_the_prefill_server() -> None:
    late = _page(1, queue=3.6, e2e=4.2, ttft=4.2)
    decode = _page(64, queue=0.03, e2e=0.7, ttft=0.06, hits=40000, moved=0.02)
    got = _stages(_ask("TTFT is high", late, decode, BENCH.replace("180.0", "4300.0")))
    assert (got["ttft: prefill server"], got["ttft: client and network"]) == (4200, 40)


def test_two_servers_of_whole_requests_are_no_pair() -> None:
    whole = _page(64, queue=0.0, e2e=0.7, ttft=0.06)
    assert "ttft: prefill server" not in _stages(_ask("TTFT is high", whole, _page(32, queue=0, e2e=0.4, ttft=0.05)))


@pytest.mark.parametrize(("hits", "named"), [(0, True), (39000, False)])
def test_a_decode_server_that_fetches_nothing_computes_again(hits: int, named: bool) -> None:
    decode = _page(64, queue=0.0, e2e=0.8, ttft=0.16, hits=hits)
    got = _ask("KV transfer is slow", PREFILL, decode).assessment
    assert (got.beliefs["nixl.misconfigured"].p >= 0.5) is named


def test_a_counter_of_failures_at_zero_is_no_failure() -> None:
    signals = {e.signal for e in _ask("KV transfer is slow", PREFILL).evidence}
    assert "nixl.mark.no_notification" not in signals
    failed = PREFILL.replace('notifications_total{model_name="m"} 0.0', 'notifications_total{model_name="m"} 7.0')
    assert "nixl.mark.no_notification" in {e.signal for e in _ask("KV transfer is slow", failed).evidence}


@pytest.mark.parametrize(("ttft", "blamed"), [(0.05, True), (4.0, False)])
def test_small_pieces_do_not_explain_a_wait_elsewhere(ttft: float, blamed: bool) -> None:
    log = (
        "INFO 11-22 20:08:14 [metrics.py:103] KV Transfer metrics: Num successful transfers=3, "
        "Avg xfer time (ms)=14.3, "
        "P90 xfer time (ms)=16.1, Avg post time (ms)=6.8, P90 post time (ms)=7.3, Avg MB per transfer=188.0, "
        "Throughput (MB/s)=13084.3, Avg number of descriptors=3008.0\n"
    )
    decode = _page(64, queue=0.03, e2e=0.7, ttft=0.06, hits=40000, moved=0.0286)
    bench = BENCH.replace("180.0", str(1000 * (0.065 + ttft)))
    got = _ask("TTFT is high", _page(1, queue=0.0, e2e=ttft, ttft=ttft), decode, bench, log).assessment
    assert (got.beliefs["nixl.small_blocks"].p >= 0.5) is blamed


@pytest.mark.parametrize(("moved", "transfer"), [(29.0, True), (1.0, False)])
def test_who_waits_for_kv_waits_for_no_room(moved: float, transfer: bool) -> None:
    got = _ask("TTFT is high", _page(64, queue=30.0, e2e=31.0, ttft=30.1, moved=moved)).assessment
    assert (got.beliefs["serving.kv_transfer_slow"].p >= 0.8) is transfer
    assert (got.beliefs["serving.queueing_saturation"].p >= 0.5) is not transfer


LINE = (
    "INFO 11-22 19:11:40 [loggers.py:310] Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: "
    "0.0 tokens/s, Running: {running} reqs, Waiting: 35 reqs, {deferred}GPU KV cache usage: 40.9%, "
    "Prefix cache hit rate: 0.0%\n"
)


def test_deferred_requests_are_read() -> None:
    got = _ask("TTFT is high", LINE.format(running=0, deferred="Deferred: 35 reqs, "))
    assert [e.value for e in got.evidence if e.signal == "serving.deferred"] == [35]
    assert not any(t.indicator.when == {"python": "queue_waits_for_kv"}
                   for t in _ask("TTFT is high", LINE.format(running=90, deferred="")).assessment.beliefs[
                       "serving.queueing_saturation"].contra)  # fmt: skip


UCX = (
    "[1795374429.47] [vm:4232 :0] ucp_worker.c:1997 UCX  INFO  a intra-node cfg#2 rma_am(tcp/lo)  amo_am(tcp/lo)  "
    "am({})  ka(tcp/lo)\n"
)


@pytest.mark.parametrize(("lanes", "tcp"), [("tcp/lo cma/memory cuda_ipc/cuda", False), ("tcp/lo tcp/eth0", True)])
def test_the_fallback_lane_beside_a_faster_one_is_no_fallback(lanes: str, tcp: bool) -> None:
    got = _ask("KV transfer is slow", UCX.format(lanes)).assessment
    assert (got.beliefs["ucx.tcp_fallback"].p >= 0.5) is tcp


@pytest.mark.parametrize(
    ("head", "named"),
    [("WARNING 11-22 19:06:14 [import_utils.py:408] ", False), ("", True), ("ERROR 11-22 19:06:14 [core.py:9] ", True)],
)
def test_a_module_that_a_program_can_do_without_is_not_missing(head: str, named: bool) -> None:
    got = _ask("it does not start", f"{head}ModuleNotFoundError: No module named 'nixl_ep_cu13'\n").assessment
    assert (got.beliefs["env.missing_dependency"].p >= 0.5) is named


SAMPLES = "timestamp, index, utilization.gpu [%], memory.used [MiB], power.draw [W], clocks.current.sm [MHz]\n"


def _samples(*rows: tuple[int, int, float, int]) -> str:
    return SAMPLES + "".join(f"2026/11/22 19:08:{n:02d}.0, {g}, {u} %, 50000 MiB, {w} W, {c} MHz\n"
                             for n, (g, u, w, c) in enumerate(rows))  # fmt: skip


def test_one_dip_of_a_clock_is_not_the_state_of_a_series() -> None:
    text = _samples((0, 21, 358, 1815), (0, 24, 273, 1935), (0, 61, 237, 1965), (0, 94, 322, 1470), (0, 0, 120, 1980))
    got = [f.value for f in CsvReader().parse(Document.of("x", text.encode()))
           if f.signal == "gpu.clock.sm" and f.subject.label is None]  # fmt: skip
    assert got == [1935]


@pytest.mark.parametrize(("watts", "named"), [(690.0, True), (270.0, False)])
def test_a_rank_whose_gpu_draws_far_more_has_company(watts: float, named: bool) -> None:
    rows = [row for _ in range(4) for row in ((0, 95, 260.0, 1980), (1, 100, watts, 1500))]
    got = _ask("TPOT is bad", "vllm serve m --tensor-parallel-size 2\n", _samples(*rows)).assessment
    assert (got.beliefs["gpu.contention"].p >= 0.5) is named


def _bench(ttft: float, e2e: float) -> str:
    return (
        "============ Serving Benchmark Result ============\nSuccessful requests: 40\nTotal generated tokens: 2560\n"
        f"Mean TTFT (ms): {ttft}\nMean E2EL (ms): {e2e}\n"
    )


@pytest.mark.parametrize(("e2e", "at_once"), [(30_600.0, False), (30_002.0, True)])
def test_a_long_wait_with_steps_after_it_is_streamed(e2e: float, at_once: bool) -> None:
    belief = _ask("TTFT is high", _bench(30_000.0, e2e)).assessment.beliefs["serving.benchmark_artifact"]
    assert any(t.indicator.when == {"python": "serving_not_streamed"} for t in belief.pro) is at_once


@pytest.mark.parametrize(
    ("symptom", "blamed"), [("TPOT is bad", False), ("the benchmark's TTFT is far below production's", True)]
)
def test_a_warm_cache_explains_no_slow_token(symptom: str, blamed: bool) -> None:
    counts = {"queries": 30000.0, "hits": 29100.0}
    page = "".join(f'vllm:prefix_cache_{name}_total{{model_name="m"}} {n}\n' for name, n in counts.items())
    args = "vllm bench serve --dataset-name random --num-prompts 60 --request-rate 4\n"
    got = _ask(symptom, page, args, _bench(40.0, 900.0)).assessment
    assert (got.beliefs["serving.benchmark_artifact"].p >= 0.5) is blamed


def test_a_transfer_that_is_a_small_part_of_the_first_token_answers_a_question_about_transfers_only() -> None:
    decode = _page(32, queue=0.01, e2e=0.4, ttft=0.05, hits=40000, moved=0.006)
    asked = {q: _ask(q, PREFILL, decode, BENCH).assessment for q in ("KV transfer is slow", "TTFT is high")}
    assert [a.verdict == "healthy" for a in asked.values()] == [True, False]
    late = _page(32, queue=0.01, e2e=0.8, ttft=0.45, hits=40000, moved=0.3)
    assert _ask("KV transfer is slow", PREFILL, late, BENCH).assessment.verdict != "healthy"
