"""Readers and window arithmetic of the serving family, on excerpts of real captures and on typed lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.probes.serving_args import ServingArgsReader
from diagnose.probes.serving_bench import ServingBenchReader
from diagnose.probes.serving_log import ServingLogReader
from diagnose.probes.serving_metrics import ServingMetricsReader
from diagnose.probes.serving_moe import ServingMoeReader
from diagnose.probes.serving_procs import ServingProcsReader

from diagnose.derivers.serving import counters
from diagnose.document import Document
from diagnose.models import Fact

DATA = Path(__file__).parent / "data" / "serving"


def read(reader: object, text: str | bytes, name: str = "x") -> dict[tuple[str, str | None], object]:
    raw = text.encode() if isinstance(text, str) else text
    return {(f.signal, f.subject.label): f.value for f in reader.parse(Document.of(name, raw))}  # type: ignore[attr-defined]


def test_args_of_a_wrapped_command_line() -> None:
    got = read(ServingArgsReader(), "vllm serve m \\\n  --max-num-seqs=4 \\\n  --enforce-eager \\\n  --port 8000\n")
    assert got["serving.arg", "max-num-seqs"] == "4"
    assert got["serving.arg", "enforce-eager"] == "true"
    assert got["serving.arg", "port"] == "8000"


def test_args_of_a_kubernetes_list() -> None:
    got = read(ServingArgsReader(), 'args:\n  - --max-num-seqs\n  - "4"\n  - --disable-log-requests\n  - --model=m\n')
    assert got["serving.arg", "max-num-seqs"] == "4"
    assert got["serving.arg", "disable-log-requests"] == "true"


def test_args_of_the_client_are_not_the_servers() -> None:
    got = read(ServingArgsReader(), "vllm bench serve --model m --request-rate 8 --max-concurrency 16\n")
    assert got["serving.bench_arg", "request-rate"] == "8"
    assert not [key for key in got if key[0] == "serving.arg"]


def test_advice_and_results_are_no_options() -> None:
    text = (
        'Try increasing `gpu_memory_utilization`. Consider using --max-model-len 4096\n{"max_concurrent_requests": 5}\n'
    )
    assert read(ServingArgsReader(), text) == {}


def test_thousands_separators_are_kept_whole() -> None:
    assert read(ServingArgsReader(), "max_model_len: 32,768\n")["serving.arg", "max-model-len"] == "32,768"


def test_switch_in_a_table_takes_no_figure() -> None:
    assert read(ServingArgsReader(), "--enforce-eager      38.2\n")["serving.arg", "enforce-eager"] == "true"


def test_log_excerpt_gives_the_decisive_moment() -> None:
    got = read(ServingLogReader(), (DATA / "vllm-0.26-tinykv.log").read_bytes())
    assert got["version", "vllm"] == "0.26.0"
    assert got["serving.kv_tokens", None] == 22400.0
    assert got["serving.kv_blocks", "override"] == 1400.0
    assert got["serving.max_concurrency", "requests"] == 1.12
    assert (got["serving.running", "peak"], got["serving.waiting", "peak"]) == (17.0, 30.0)
    assert got["serving.kv_usage", "peak"] == pytest.approx(0.996)


@pytest.mark.parametrize(
    ("line", "running", "waiting", "usage"),
    [
        ("Avg generation throughput: 9 tokens/s, Running: 8 reqs, Swapped: 0 reqs, Pending: 120 reqs, GPU KV cache usage: 99.1%,",  # noqa: E501
         8.0, 120.0, 0.991),
        ("Decode batch, #running-req: 50, #token: 12345, token usage: 0.97, cuda graph: True, gen throughput (token/s): 1.4, #queue-req: 77",  # noqa: E501
         50.0, 77.0, 0.97),
        ("waiting=120 running=8 kv usage 31%", 8.0, 120.0, 0.31),
        ('{"numActiveRequests": 64, "numQueuedRequests": 311}', 64.0, 311.0, None),
    ],
)  # fmt: skip
def test_periodic_lines_of_several_engines(line: str, running: float, waiting: float, usage: float | None) -> None:
    got = read(ServingLogReader(), line + "\n")
    assert got["serving.running", "peak"] == running
    assert got["serving.waiting", "peak"] == waiting
    assert got.get(("serving.kv_usage", "peak")) == (pytest.approx(usage) if usage is not None else None)


def test_prose_about_running_is_no_reading() -> None:
    assert read(ServingLogReader(), "The job is running: 3 nodes are up\n") == {}


def test_metrics_map_old_and_new_names() -> None:
    old = read(ServingMetricsReader(), "vllm:gpu_cache_usage_perc 0.5\nvllm:num_requests_waiting 3\n")
    new = read(ServingMetricsReader(), 'vllm:kv_cache_usage_perc{engine="0"} 0.5\nsglang:num_queue_reqs{a="b"} 3.0\n')
    assert old == new


def test_metrics_of_two_engines_add_up() -> None:
    text = 'vllm:num_requests_waiting{engine="0"} 3\nvllm:num_requests_waiting{engine="1"} 4\n'
    facts = list(ServingMetricsReader().parse(Document.of("m", text.encode())))
    total = next(f for f in facts if f.subject.label == "peak")
    assert total.value == 7.0
    assert total.formula == "a + b"


def test_metrics_help_and_html_yield_nothing() -> None:
    text = "# HELP vllm:num_requests_waiting Number of requests\n<html>vllm:num_requests_waiting</html>\n"
    assert read(ServingMetricsReader(), text) == {}


def window(first: str, second: str) -> dict[str, Fact]:
    facts: list[Fact] = []
    for name in (first, second):
        doc = Document.of(name, (DATA / f"vllm-0.26-{name}.prom").read_bytes())
        facts.extend(ServingMetricsReader().parse(doc))
    return {f.signal: f for f in counters(facts, {})}


@pytest.mark.parametrize("order", [("before", "after"), ("after", "before")])
def test_window_does_not_depend_on_names_or_order(order: tuple[str, str]) -> None:
    got = window(*order)
    assert got["serving.server.requests"].value == 90.0
    assert got["serving.server.queue"].value == pytest.approx(2817.99, rel=1e-3)
    assert got["serving.queue_share"].value == pytest.approx(0.98, abs=0.01)
    assert got["serving.preemptions"].value == 41.0
    assert got["serving.server.queue"].formula == "(a - b) / (c - d) * 1000"


def test_bench_console() -> None:
    got = read(ServingBenchReader(), (DATA / "vllm-0.26-bench.txt").read_bytes())
    assert got["serving.client.ttft", "p99"] == 7947.37
    assert got["serving.client.peak_concurrency", None] == 50.0


def test_bench_pandas_block_and_second_run() -> None:
    text = "First token latency(msecs):\ncount 10.0\nmean 38533.0\nstd 35.8\nFirst token latency(msecs):\nmean 4552.2\n"
    got = read(ServingBenchReader(), text)
    assert got["serving.client.ttft", "mean"] == 38533.0
    assert got["serving.client.ttft", "mean #2"] == 4552.2


def test_bench_lists_show_growth() -> None:
    text = '{"ttfts": [0.1, 0.1, 0.2, 0.4, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8], "mean_ttft_ms": 860.0}'
    got = read(ServingBenchReader(), text)
    assert got["serving.client.ttft_growth", None] == 17.0


def test_bench_broken_json_is_no_error() -> None:
    assert read(ServingBenchReader(), '{"ttfts": [0.1, 0.2') == {}


def test_experts_of_a_table() -> None:
    facts = list(ServingMoeReader().parse(Document.of("m", b"tokens per EP rank\nrank 0  1,000\nrank 1  3,000\n")))
    assert [(f.subject.rank, f.value) for f in facts] == [(0, 1000.0), (1, 3000.0)]


def test_processes_keep_the_busiest_reading() -> None:
    text = '{"procs": [{"name": "a", "pid": 1, "cpu": 5.0, "affinity": 1}]}\n{"procs": [{"name": "a", "pid": 1, "cpu": 99.0}]}\nnoise\n'  # noqa: E501
    got = read(ServingProcsReader(), text)
    assert got["serving.proc.cpu", "a 1"] == 99.0
    assert got["serving.proc.affinity", "a 1"] == 1.0


def test_lines_that_are_passed_over_as_alike_hide_no_option() -> None:
    rows = "".join(f"12:0{n % 10} step {n} took {n}.5 ms, loss=0.{n}, max_norm: {n}\n" for n in range(40))
    command = "vllm serve m \\\n  --max-num-seqs 8 \\\n"
    got = read(ServingArgsReader(), f"{rows}{command}{rows}max_num_seqs=9 took 1.5 ms\n{rows}  --block-size 32\n")
    assert got == read(ServingArgsReader(), f"{command}max_num_seqs=9 took 1.5 ms\n12:01 step\n  --block-size 32\n")
    assert {k[1] for k in got} >= {"max-num-seqs", "block-size"}
