"""Advice and targets: predictions by hand, nothing without inputs, every numeral backed, and it all verifies."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from diagnose import said
from diagnose.advice import advise
from diagnose.answer_facts import limit_line
from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import conclude, told
from diagnose.engine import report as make_report
from diagnose.errors import UsageError
from diagnose.gather import gather, number
from diagnose.limits import limits
from diagnose.models import Advice, Evidence, Fact, Report
from diagnose.screen import show
from diagnose.verify import verify

SHARED = Path(__file__).parents[1].parent / "shared"
H100 = SHARED / "captures" / "h100x2"
SMI = "| NVIDIA-SMI 580.10   Driver Version: 580.10   CUDA Version: 13.0 |\n|   0  NVIDIA H100 80GB HBM3   On  |\n"


def documents(*texts: str) -> list[Document]:
    return [Document.of(f"d{i}.txt", t.encode()) for i, t in enumerate(texts)]


def page(n: int, queue: float, model: str = "llama-3-8b") -> str:
    """A vLLM page after n requests of 512 in, 128 out: prefill 30 ms, TPOT 7 ms."""
    decode = 127 * 0.007
    each = {
        "time_to_first_token_seconds": queue + 0.04, "request_queue_time_seconds": queue,
        "request_prefill_time_seconds": 0.03, "request_decode_time_seconds": decode,
        "request_inference_time_seconds": decode + 0.03, "e2e_request_latency_seconds": queue + 0.04 + decode,
        "request_time_per_output_token_seconds": 0.007, "request_prompt_tokens": 512, "request_generation_tokens": 128,
    }  # fmt: skip
    rows = ["process_start_time_seconds 5"]
    for name, value in each.items():
        labels = f'{{engine="0",model_name="{model}"}}'
        rows += [f"vllm:{name}_sum{labels} {value * n}", f"vllm:{name}_count{labels} {n}"]
    return "\n".join(rows) + "\n"


def bench(rate: str | float, tput: float, e2e: float, peak: float) -> str:
    return json.dumps({
        "request_rate": rate, "completed": 60, "request_throughput": tput, "mean_e2el_ms": e2e,
        "max_concurrent_requests": peak,
    }, indent=1)  # fmt: skip


ARGS = "vllm serve llama-3-8b --max-num-seqs 4\n"
LOG = "INFO [kv_cache_utils.py:2177] GPU KV cache size: 462,944 tokens\n"


def made(*texts: str, causes: tuple[str, ...]) -> tuple[list[Advice], dict[str, Evidence]]:
    evidence = number(gather(documents(*texts)))
    known, _ = limits(evidence)
    advice, more = advise(evidence, known, causes)
    return advice, {e.subject.label or "": e for e in more}


def full(symptom: str, docs: list[Document], stated: list[Fact] | None = None) -> Report:
    """A report as the command makes it, verified."""
    read = gather(docs)
    said.add(read, stated or [])
    got = told(conclude(symptom, read))
    found = verify(got.model_dump(mode="json", by_alias=True), docs)
    assert not found, [str(f) for f in found]
    return got


def test_a_limit_of_four_with_sixty_waiting() -> None:
    # 60 requests kept in flight, 4 run: queue 13.6 s of 14.5 s
    rate = 4 / 0.929  # completions a second of four slots
    queue = 60 / rate - 0.929 - 0.01
    run = bench("inf", rate, (queue + 0.04 + 0.889) * 1000, 60)
    advice, figure = made(page(60, queue), ARGS, LOG, SMI, run, causes=("serving.max_num_seqs_low",))
    (one,) = advice
    assert one.change == "--max-num-seqs 4 to 64" and one.rollback == "--max-num-seqs 4"
    assert "to about 0 ms" in one.predicted and "TPOT 7" in one.predicted and "KV cache" in one.predicted
    # each one more running adds its cache (576 tokens x 131,072 B at 3,350 GB/s) and its prefill over 128 tokens
    extra = 576 * 131072 / 3350e6 + (30 - 7) / 128
    running = rate * (0.04 + 0.889)
    assert figure["TPOT afterwards"].value == pytest.approx(7 + (60 - running) * extra, rel=1e-4)
    assert figure["share of the cache afterwards"].value == pytest.approx(60 * 640 / 462944)


def test_at_a_fixed_rate_little_s_law_says_how_many_will_run() -> None:
    run = bench(8.0, 4.3, 9000.0, 40)
    _, figure = made(page(60, 8.0), ARGS, LOG, SMI, run, causes=("serving.max_num_seqs_low",))
    running, tpot = float(figure["running afterwards"].value or 0), float(figure["TPOT afterwards"].value or 0)
    assert running == pytest.approx(8.0 * (30 + 128 * tpot) / 1000, rel=1e-3)  # consistent with itself


def test_a_cache_too_small_for_it_bounds_the_limit() -> None:
    small = LOG.replace("462,944", "12,800")
    run = bench("inf", 4.3, 14000.0, 60)
    (one,), figure = made(page(60, 13.0), ARGS, small, SMI, run, causes=("serving.max_num_seqs_low",))
    assert one.change == "--max-num-seqs 4 to 18"
    assert figure["requests that the cache holds"].value == pytest.approx(0.9 * 12800 / 640)


def test_without_inputs_there_is_no_advice() -> None:
    assert made(ARGS, causes=("serving.max_num_seqs_low",))[0] == []
    assert made(page(60, 13.0), ARGS, causes=("serving.cuda_graphs_off", "serving.kv_capacity_low"))[0] == []
    assert made(page(60, 13.0), ARGS, causes=())[0] == []
    assert made(page(60, 13.0), ARGS, causes=("nccl.env_override",))[0] == []


def test_an_unknown_model_is_said_to_miss_the_cache_s_part() -> None:
    run = bench("inf", 4.3, 14000.0, 60)
    (one,), _ = made(page(60, 13.0, model="mine"), ARGS.replace("llama-3-8b", "mine"), LOG, SMI, run,
                     causes=("serving.max_num_seqs_low",))  # fmt: skip
    assert "not known" in one.cost


def test_a_changed_numeral_does_not_survive() -> None:
    docs = documents(page(60, 13.0), ARGS, LOG, SMI, bench("inf", 4.3, 14000.0, 60))
    data = full("TTFT is high", docs).model_dump(mode="json", by_alias=True)
    assert data["advice"], "the limit should lead here"
    worse = copy.deepcopy(data)
    worse["advice"][0]["predicted"] = worse["advice"][0]["predicted"].replace("13 s", "17 s")
    assert worse != data
    assert any("nothing it cites backs" in str(m) for m in verify(worse, docs))
    worse = copy.deepcopy(data)
    worse["advice"][0]["cost"] = "none"
    assert any("advice 1" in str(m) for m in verify(worse, docs))


@pytest.mark.parametrize(
    ("text", "want"),
    [("ttft=500ms,tpot=20ms", {"ttft": 500, "tpot": 20}), ("ttft<=0.5s", {"ttft": 500}), ("e2el=5s", {"e2e": 5000})],
)
def test_targets(text: str, want: dict[str, float]) -> None:
    assert said.targets(text) == want


@pytest.mark.parametrize("text", ["ttft", "speed=3", "ttft=0ms", "tpot=fast"])
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        said.targets(text)


def test_goodput_is_counted_from_single_requests() -> None:
    rows = [{"ttft_ms": 900 if i % 10 == 0 else 100, "tpot_ms": 30 if i % 4 == 0 else 8} for i in range(40)]
    docs = documents("\n".join(map(json.dumps, rows)))
    got = full("TTFT misses its SLO", docs, said.facts({"slo": "ttft=500ms,tpot=20ms"}))
    (good,) = [e for e in got.evidence if e.signal == "serving.goodput"]
    want = sum(r["ttft_ms"] <= 500 and r["tpot_ms"] <= 20 for r in rows)
    assert good.value == pytest.approx(want / 40)
    assert "4 miss TTFT" in good.statement and "10 miss TPOT" in good.statement


def test_a_detailed_benchmark_has_single_requests_too() -> None:
    result = {"ttfts": [0.1] * 9 + [0.9], "itls": [[0.01] * 9] * 10, "output_lens": [10] * 10, "mean_ttft_ms": 180.0,
              "p99_ttft_ms": 900.0}  # fmt: skip
    docs = documents(json.dumps(result, indent=1))
    got = full("TTFT misses its SLO", docs, said.facts({"slo": "ttft=500ms,tpot=20ms"}))
    (good,) = [e for e in got.evidence if e.signal == "serving.goodput"]
    assert good.value == pytest.approx(0.9)
    (margin,) = [e for e in got.evidence if e.signal == "serving.slo_margin"]
    assert margin.value == pytest.approx(1.8) and "missed" in margin.statement


def test_a_goodput_that_was_made_up_does_not_survive() -> None:
    rows = [{"ttft_ms": 100 + i, "tpot_ms": 8} for i in range(40)]
    docs = documents("\n".join(map(json.dumps, rows)))
    data = full("slow", docs, said.facts({"slo": "ttft=120ms"})).model_dump(mode="json", by_alias=True)
    for e in data["evidence"]:
        if e["signal"] == "serving.goodput":
            e["value"] = 1.0
    assert verify(data, docs)


def test_model_gpu_and_ranks_that_are_said_give_floors() -> None:
    stated = said.facts({"gpu": "H100", "tp": "2", "model": "llama-3-8b"})
    got = full("TPOT is high", documents(page(60, 0.001, model="mine")), stated)
    (step,) = [s for s in got.stages if s.stage == "decode step"]
    assert step.floor == pytest.approx(15.0098e9 / 2 / 3350e9 + 576 * 65536 / 3350e9, rel=1e-3)


@pytest.mark.skipif(not H100.is_dir(), reason="captures are not here")
def test_recorded_states_are_predicted_within_their_healthy_twin() -> None:
    base = H100 / "vllm"
    smi = (H100 / "env/nvidia-smi.txt").read_text()
    texts = [p.read_text() for p in sorted((base / "eager/healthy").glob("*.prom"))]
    texts += [(base / "eager/healthy/bench.json").read_text(), (base / "eager/serve_args.txt").read_text(), smi]
    (one,), figure = made(*texts, causes=("serving.cuda_graphs_off",))
    healthy = json.loads((base / "default/healthy/bench.json").read_text())["mean_tpot_ms"]
    assert float(figure["floor of the step"].value or 0) < healthy
    assert healthy < float(figure["TPOT with graphs at most"].value or 0)
    assert "--enforce-eager" in one.rollback


RECORDED = Path(__file__).parents[1] / "evals" / "cassettes"
PARTS = ("vllm.metrics.", "serving.args.command_line", "query-gpu.txt")


@pytest.mark.parametrize(
    ("name", "cause", "change", "ttft", "tpot"),
    [  # what the same load gave once the limit was gone, in ms
        ("h100-vllm-few-seqs.zip", "serving.max_num_seqs_low", "--max-num-seqs 4 to ", 39, 7.17),
        ("h100-vllm-few-kv-blocks.zip", "serving.kv_capacity_low", "drop --num-gpu-blocks-override ", 43, 7.56),
    ],
)
def test_what_two_pages_of_a_real_server_predict_came_true(
    name: str, cause: str, change: str, ttft: float, tpot: float
) -> None:
    with zipfile.ZipFile(RECORDED / name) as box:
        texts = [box.read(n).decode() for n in box.namelist() if any(p in n for p in PARTS)]
    (one,), figure = made(*texts, causes=(cause,))
    assert one.change.startswith(change) and one.predicted.startswith("TTFT ")
    for label, truth in (("TTFT afterwards", ttft), ("TPOT afterwards", tpot)):
        got = float(figure[label].value or 0)
        assert got == pytest.approx(truth, rel=0.25) or (truth == ttft and abs(got - truth) < 20), label


def test_clients_that_wait_for_each_other_have_no_rate() -> None:
    def at(n: int, waiting: int, second: float) -> str:
        gauges = "".join(
            f'vllm:num_requests_{k}{{engine="0"}} {v}\n' for k, v in (("running", 4), ("waiting", waiting))
        )
        return f"# diagnose scrape of h:1 at {second:.3f} (2026-01-01T00:00:00Z), start\n{page(n, 3.0)}{gauges}"

    def rates(waiting: int) -> list[Evidence]:
        got = number(gather(documents(at(40, 10, 100.0), at(80, waiting, 110.0))))
        return [e for e in got if e.signal == "serving.arrival_rate"]

    assert rates(12) == []
    (rate,) = rates(30)
    assert rate.value == pytest.approx((40 + 20) / 10)


def test_times_are_held_against_a_floor_and_what_was_read_is_not_called_unread() -> None:
    with zipfile.ZipFile(RECORDED / "h100-vllm-few-seqs.zip") as box:
        docs = [Document.of(n, box.read(n)) for n in box.namelist() if any(p in n for p in (*PARTS, "vllm.log"))]
    got = make_report("TTFT is high", docs)
    answer = got.answer["en"]
    assert "max-num-seqs 4" in answer.verdict
    # a prefill of 1 % of TTFT and a step near its floor explain nothing
    assert "ceiling" not in answer.short + answer.long
    assert "vllm.metrics" not in {u.probe for u in got.unavailable}
    floors = [x for x in got.limits if x.ratio is not None]
    assert floors and "floor" in limit_line(floors[0]) and "1 request " in " ".join(x.what for x in floors)
    screen = Console(file=io.StringIO(), width=120)
    show(got, catalogue(), screen)
    assert " fraction\n" not in screen.file.getvalue()  # type: ignore[attr-defined]
