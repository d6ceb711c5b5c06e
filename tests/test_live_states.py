"""States of a watched server that live runs met, as the pages and tables they left: each verdict, and why."""

from __future__ import annotations

from pathlib import Path

from diagnose.probes.kv_flow import OrderReader

from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.models import Report
from diagnose.scrapes import Page, header
from diagnose.verify import verify

NO_GPU = "# device nodes of GPUs\n/dev/nvidia[0-9]* none\n/dev/nvidiactl none\nnvidia-smi none\n"
PRESSED = "/proc/pressure/cpu\nsome avg10=52.10 avg60=53.16 avg300=51.53 total=29762275801\n"
_EDGES = (0.02, 0.04, 0.06, 0.1, 0.25, 1.0, 2.5)


def buckets(name: str, mean: float, n: float) -> list[str]:
    rows = [f'{name}_bucket{{le="{edge}"}} {n if mean <= edge else 0:g}' for edge in _EDGES]
    return [*rows, f'{name}_bucket{{le="+Inf"}} {n:g}', f"{name}_sum {mean * n}", f"{name}_count {n:g}"]


def page(
    n: float, *, ttft: float = 0.04, itl: float = 0.01, waiting: float = 0, running: float = 3, kv: float = 0.05
) -> list[str]:
    """A page of a worker after `n` requests of 500 + 64 tokens."""
    return [
        f"vllm:num_requests_running {running:g}", f"vllm:num_requests_waiting {waiting:g}",
        f"vllm:kv_cache_usage_perc {kv}",
        *buckets("vllm:time_to_first_token_seconds", ttft, n),
        *buckets("vllm:inter_token_latency_seconds", itl, n * 63),
        f"vllm:request_prompt_tokens_sum {500 * n}", f"vllm:request_prompt_tokens_count {n}",
        f"vllm:request_generation_tokens_sum {64 * n}", f"vllm:request_generation_tokens_count {n}",
    ]  # fmt: skip


def window(place: str, first: list[str], last: list[str]) -> dict[str, str]:
    """Two pages of a server, ten seconds apart, as a live run keeps them."""
    return {
        f"{place}.{part}": header(place, at, part).decode() + "\n".join(rows) + "\n"
        for part, at, rows in (("start", 1000.0, first), ("end", 1010.0, last))
    }


def threads(wait: float) -> str:
    return (
        "# the server's processes over 10.0 s; 100 is one core; %wait: its worst thread\n"
        "  PID  THREADS  CPUS      RES  %wait   %CPU  Command\n"
        f"13743       20     2     211m  {wait:5.1f}    6.2  python_engine\n"
    )


def judged(texts: dict[str, str], symptom: str = "TTFT is high") -> Report:
    docs = [Document.of(name, text.encode()) for name, text in texts.items()]
    made = make_report(symptom, docs)
    assert not verify(made.model_dump(mode="json", by_alias=True), docs)
    return made


def lead(made: Report) -> tuple[str, str]:
    return made.verdict, made.findings[0].cause if made.findings else ""


def test_a_busy_machine_is_no_cause_where_the_servers_threads_get_their_cpu() -> None:
    calm = window("127.0.0.1:8321", page(10), page(50))
    assert lead(judged(calm | {"cpu.txt": PRESSED, "use.txt": threads(4.8)})) == ("healthy", "")
    starved = judged(calm | {"cpu.txt": PRESSED, "use.txt": threads(34.0)})
    assert lead(starved) == ("cause", "host.cpu_contention")


def test_two_that_come_together_are_no_queue() -> None:
    """Three wait in the last page; by Little's law 0.16 wait for a first token on the mean."""
    assert judged(window("127.0.0.1:8321", page(10), page(50, waiting=3))).verdict == "healthy"
    slow = judged(window("127.0.0.1:8321", page(10, ttft=0.9), page(50, ttft=0.9, waiting=3)))
    assert slow.verdict != "healthy"


def test_a_pool_with_room_does_not_bind() -> None:
    """45 requests fit, 33 run, and more than a third of the cache is free: nobody waits for it."""
    serve = "python -m engine --num-gpu-blocks-override 1600 --block-size 16 --max-num-seqs 64\n"
    roomy = window("127.0.0.1:8321", page(10, running=33, kv=0.69), page(50, running=33, kv=0.69))
    assert "serving.kv_capacity_low" not in {f.cause for f in judged(roomy | {"cmd.txt": serve}).findings}
    full = window(
        "127.0.0.1:8321", page(10, running=44, kv=0.97, waiting=30), page(50, running=44, kv=0.97, waiting=30)
    )
    assert "serving.kv_capacity_low" in {f.cause for f in judged(full | {"cmd.txt": serve}).findings}


def test_one_slow_worker_of_two_is_no_health_and_its_place_is_said() -> None:
    texts = window("127.0.0.1:8321", page(10), page(50)) | window(
        "127.0.0.1:8322", page(10, ttft=0.8, itl=0.2), page(50, ttft=0.8, itl=0.2)
    )
    made = judged(texts)
    assert lead(made) == ("inconclusive", "")
    assert "800 ms on the mean at 127.0.0.1:8322, 40 ms at 127.0.0.1:8321" in made.answer["en"].verdict
    # a prefill worker hands over after the first token, so the two do not do the same
    prefill = [r for r in page(50, ttft=0.8) if "inter_token" not in r]
    before = [r for r in page(10, ttft=0.8) if "inter_token" not in r]
    apart = judged(window("127.0.0.1:8321", page(10), page(50)) | window("127.0.0.1:8322", before, prefill))
    assert "serving.worker_spread" not in {e.signal for e in apart.evidence}


def frontend(served: float, unknown: float) -> list[str]:
    """A frontend that answered so many, and so many with: no such model."""
    name, rest = "dynamo_frontend_requests_total", 'endpoint="completions",request_type="stream"'
    return [
        f'{name}{{{rest},error_type="",model="m",status="success"}} {served:g}',
        f'{name}{{{rest},error_type="not_found",model="unknown_model",status="error"}} {unknown:g}',
        f'dynamo_frontend_failures_total{{class="NotFound",reason="request.not_found"}} {unknown:g}',
    ]


def test_requests_for_a_model_that_is_not_served() -> None:
    made = judged(window("127.0.0.1:8320", frontend(40, 4), frontend(40, 60)))
    assert lead(made) == ("cause", "serving.misconfigured")
    assert "56 of 56" in made.answer["en"].verdict
    few = judged(window("127.0.0.1:8320", frontend(40, 4), frontend(400, 12)))
    assert "serving.misconfigured" not in {f.cause for f in few.findings}


def http(ok: int, refused: int, looked: int) -> list[str]:
    path = 'handler="/v1/completions",method="POST"'
    return [
        f'http_requests_total{{{path},status="2xx"}} {ok}', f'http_requests_total{{{path},status="4xx"}} {refused}',
        f'http_requests_total{{handler="/v1/models",method="GET",status="2xx"}} {looked}',
        f'http_requests_total{{handler="/favicon.ico",method="GET",status="4xx"}} {looked}',
        f'vllm:request_success_total{{finished_reason="length"}} {ok}',
    ]  # fmt: skip


def test_refusals_are_those_of_clients_and_not_of_who_looks() -> None:
    made = judged(window("127.0.0.1:8100", [*page(10), *http(10, 0, 1)], [*page(10), *http(10, 30, 9)]))
    assert lead(made) == ("cause", "serving.misconfigured")
    looked = judged(window("127.0.0.1:8100", [*page(10), *http(10, 0, 1)], [*page(50), *http(50, 0, 90)]))
    assert not {e.signal for e in looked.evidence} & {"serving.refused", "serving.refused_share"}


def test_who_only_looks_is_no_traffic() -> None:
    first, last = ("\n".join(http(10, 0, n)).encode() + b"\n" for n in (1, 9))
    assert Page(last, "x", 1.0).requests_since(Page(first, "x", 0.0)) == 0
    more = "\n".join(http(12, 0, 9)).encode() + b"\n"
    assert Page(more, "x", 1.0).requests_since(Page(first, "x", 0.0)) == 2


def test_a_watched_server_is_there_to_see_without_a_gpu() -> None:
    texts = window("127.0.0.1:8100", page(10), page(10)) | {
        "devices.txt": "# device nodes of GPUs\n/dev/nvidia[0-9]* none\n/dev/nvidiactl none\nnvidia-smi none\n"
    }
    assert "shows no GPU" not in judged(texts).answer["en"].verdict


def test_a_date_is_no_interval_of_work() -> None:
    log = (
        "WARNING 11-22 19:14:46 [vllm.py:1703] Enforce eager set, disabling CUDAGraphs and JIT kernel warmup.\n"
        "INFO 11-22 19:15:08 [utils.py:347] Using LBHNC KV cache layout.\n"
    )
    assert list(OrderReader().parse(Document.of("server.log", log.encode()))) == []
    order = "prefill kernels   0.0 -> 1904.2\nnixl transfer   1910.0 -> 2400.0\n"
    assert {f.signal for f in OrderReader().parse(Document.of("o.txt", order.encode()))} >= {"kv.event"}


def test_a_part_below_nothing_is_shown_as_nothing(tmp_path: Path) -> None:
    from diagnose.models import Stage
    from diagnose.stages import shown

    assert shown(Stage(metric="tpot", stage="frontend and router", seconds=-4e-5, share=-0.005)) == (0.0, 0.0)
    assert shown(Stage(metric="tpot", stage="decode step", seconds=0.01, share=1.005)) == (0.01, 1.0)


def test_an_option_named_like_a_word_is_not_what_the_cause_is_about() -> None:
    """The cause's text says: a host thread. `--host 127.0.0.1` is none."""
    serve = "# command line\npython -m llama_cpp.server --model m.gguf --host 127.0.0.1 --port 8201 --n_threads 1\n"
    made = judged(window("127.0.0.1:8201", page(10), page(50)) | {"use.txt": threads(34.0), "cmd.txt": serve})
    cited = {e.subject.label for e in made.evidence if e.id in made.findings[0].evidence}
    assert lead(made) == ("cause", "host.cpu_contention") and "host" not in cited


def test_a_cache_that_a_slow_worker_fills_is_not_too_small() -> None:
    """Both were given the same; one is twenty times slower and fills up, the other has room."""
    serve = "python -m engine --num-gpu-blocks-override 2048 --block-size 16 --max-num-seqs 64\n"
    fast = window("127.0.0.1:8321", page(10), page(50))
    rows = [page(n, ttft=0.8, itl=0.2, running=44, kv=0.98, waiting=4) for n in (10, 50)]
    both = fast | window("127.0.0.1:8322", *rows)
    assert lead(judged(both | {"a.txt": serve, "b.txt": serve})) == ("inconclusive", "")
    small = serve.replace("2048", "60")
    assert lead(judged(both | {"a.txt": serve, "b.txt": small})) == ("cause", "serving.kv_capacity_low")


def test_who_waits_for_a_step_is_held_back_by_no_limit() -> None:
    texts = window("127.0.0.1:8321", page(10), page(50, waiting=2)) | {"cmd.txt": "engine --max-num-seqs 64\n"}
    assert "serving.binds" not in {e.signal for e in judged(texts).evidence}
    slow = window("127.0.0.1:8321", page(10, ttft=0.9), page(50, ttft=0.9, waiting=8))
    assert "serving.binds" in {e.signal for e in judged(slow | {"cmd.txt": "engine --max-num-seqs 64\n"}).evidence}


def test_a_figure_that_was_worked_out_says_from_which_lines() -> None:
    from diagnose.answer_facts import origin

    made = judged(window("127.0.0.1:8321", page(10), page(50)))
    known = {e.id: e for e in made.evidence}
    mean = next(e for e in made.evidence if e.signal == "serving.server.ttft")
    assert origin(mean, known).startswith("(a - b) / (c - d) * 1000 ← 127.0.0.1:8321.end:")
    assert "127.0.0.1:8321.start:" in origin(mean, known)
    read = next(e for e in made.evidence if e.capture is not None)
    assert (
        origin(read, known) == f"{read.capture.name if read.capture else ''}:{read.capture.line if read.capture else 0}"
    )


def test_what_is_said_of_a_server_is_said_in_chinese() -> None:
    from diagnose.probes.live_server import NO_MODEL, NO_TRAFFIC

    from diagnose.answer_facts import phrase
    from diagnose.catalogue import catalogue

    down = "http://127.0.0.1:8999: nothing listens there (is the server up, and is this its port?)"
    for text in (down, NO_MODEL, NO_TRAFFIC.format(window=10.0, url="http://127.0.0.1:8000"), "needs --allow light"):
        said = phrase(catalogue(), text)
        assert said != text and " the " not in said and "no " not in said
