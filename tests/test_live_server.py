"""Server probes against a stub: every failure one clear line, partial results kept, and a report made all the same."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from diagnose.probes.live_process import without_past
from diagnose.probes.live_prometheus import increase
from diagnose.probes.live_repeat import REQUESTS, RepeatReader

from diagnose.collect import Capture, Collected, NotCaptured, collect, collectors
from diagnose.document import Document
from diagnose.endpoint import Endpoint, seconds
from diagnose.engine import report
from diagnose.errors import UsageError
from diagnose.host import Host
from diagnose.models import Report
from diagnose.scrapes import Page

STUB = runpy.run_path(str(Path(__file__).parent / "stub_metrics.py"))
stub, vllm = STUB["stub"], STUB["vllm"]


def got(url: str, probe: str = "vllm.metrics", **params: str) -> tuple[list[Capture], dict[str, str]]:
    """Captures, and what was said of those that are missing, by part."""
    items = collect(collectors()[probe], Host({"endpoint": url, "window": "2s"} | params))
    return split(items)


def split(items: Iterable[Collected]) -> tuple[list[Capture], dict[str, str]]:
    found = list(items)
    said = {i.part: i.reason for i in found if isinstance(i, NotCaptured)}
    assert all("\n" not in reason and len(reason) < 400 for reason in said.values())
    return [i for i in found if isinstance(i, Capture)], said


def judged(captures: list[Capture], symptom: str = "TTFT is high") -> Report:
    return report(symptom, [c.document() for c in captures])


def free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_window_is_two_pages_whose_difference_is_what_happened_in_it() -> None:
    # 1000 requests before the window queued for 9 s each; those within it do not
    def page(look: int, _: float) -> str:
        old = vllm(1000, queue=9.0)
        return old if look == 1 else _added(old, vllm(20 * look))

    with stub(page) as url:
        captures, said = got(url)
    assert [c.part for c in captures][:2] == ["start", "end"] and not said
    means = {
        (e.signal, e.subject.label): e.value
        for e in judged(captures).evidence
        if e.signal.startswith("serving.server.")
    }
    assert means["serving.server.ttft", "mean"] == pytest.approx(50.0)
    assert means["serving.server.queue", "mean"] == pytest.approx(0.0)
    assert not [f for f in judged(captures).findings if "max_num_seqs" in f.cause or "queue" in f.cause]


def _added(old: str, new: str) -> str:
    """Counters of two pages added up; gauges of the second."""
    rows = []
    for a, b in zip(old.splitlines(), new.splitlines(), strict=True):
        name, _, value = b.rpartition(" ")
        total = float(a.rpartition(" ")[2]) + float(value)
        rows.append(f"{name} {total}" if "_sum{" in name or "_count{" in name or "_total{" in name else b)
    return "\n".join(rows) + "\n"


def test_a_dead_endpoint_is_one_line_and_says_nothing_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free()}"
    captures, said = got(url)
    assert not captures and "nothing listens there" in said[""]
    made, text = _live(url, tmp_path, monkeypatch)
    assert (made.verdict, made.findings) == ("inconclusive", [])
    assert made.unavailable[0].probe == "vllm.metrics" and "nothing listens there" in made.unavailable[0].reason
    assert "nothing listens there" in text


def _live(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Report, str]:
    """A whole live run, as the command makes it."""
    from diagnose.live_run import prepare
    from diagnose.triage import Reach, investigate

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    reach = Reach(params={"endpoint": url, "window": "1s"})
    made, complete = investigate("TTFT is high", [], None, ("en",), live=prepare("TTFT is high", reach, False))
    assert complete
    return made, made.answer["en"].verdict


def test_a_server_without_traffic_is_undecided_and_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub(lambda look, _: vllm(1000, running=0, queue=9.0)) as url:
        made, text = _live(url, tmp_path, monkeypatch)
    assert (made.verdict, made.findings) == ("inconclusive", [])
    assert "no request came or ended" in text and "diagnose bench --endpoint" in text


def test_requests_that_all_still_run_ask_for_a_longer_window() -> None:
    with stub(lambda look, _: vllm(1000, running=3)) as url:
        _, said = got(url)
    assert "take a longer --window" in said["traffic"]


def test_a_web_page_for_metrics_is_told_from_metrics() -> None:
    with stub(lambda *_: "<!DOCTYPE html><html>hello</html>", media="text/html") as url:
        captures, said = got(url)
    assert not captures and "HTML, no metrics" in said[""]


def test_something_else_on_the_port() -> None:
    with stub(lambda *_: '{"hello": "world"}', media="application/json") as url:
        assert "answers, but not with metrics" in got(url)[1][""]
    with stub(lambda *_: "", status=404) as url:
        assert "HTTP 404" in got(url)[1][""] and "--enable-metrics" in got(url)[1][""]


def test_metrics_of_no_known_server_are_kept_and_said() -> None:
    with stub(lambda look, _: f"node_cpu_seconds_total {look}\nnode_load1 2\n") as url:
        captures, said = got(url)
    assert captures and "no known inference server" in said["engine"] and "node_cpu_seconds_total" in said["engine"]


def test_a_redirect_is_not_followed() -> None:
    with stub(lambda *_: vllm(1)) as target, stub(lambda *_: "", redirect=target) as url:
        captures, said = got(url)
    assert not captures and "not followed" in said[""]


def test_a_key_comes_from_the_environment_and_is_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "sesame-open")
    with stub(lambda look, _: vllm(10 * look), key="sesame-open") as url:
        assert "--api-key-env" in got(url)[1][""]
        captures, said = got(url, **{"api-key-env": "STUB_KEY"})
    assert captures and not said
    assert not any(b"sesame-open" in c.data or "sesame-open" in repr(c) for c in captures)
    with pytest.raises(UsageError, match="NO_SUCH"):
        Endpoint.of({"endpoint": "http://127.0.0.1:1", "api-key-env": "NO_SUCH"})


def test_no_tls_at_the_other_end() -> None:
    with stub(lambda *_: vllm(1)) as url:
        _, said = got(url.replace("http://", "https://"))
    assert "no TLS connection" in said[""] or "closed" in said[""]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free()}")
    with stub(lambda look, _: vllm(10 * look)) as url:
        assert got(url)[0]


def test_a_server_that_dies_midway_leaves_what_there_was() -> None:
    with stub(lambda look, _: vllm(10 * look), dies_after=2) as url:
        captures, said = got(url, window="3s")
    assert {c.part for c in captures} >= {"start", "end"}
    assert said["end"].startswith("the server stopped answering")
    assert any(e.signal == "serving.server.ttft" for e in judged(captures).evidence)


@pytest.mark.parametrize("told", [True, False])
def test_counters_that_reset_give_no_negative_and_no_absurd_rate(told: bool) -> None:
    """The server starts again inside the window; `told`: its page has the time of its start."""

    def page(look: int, _: float) -> str:
        text = vllm(5000 + look, queue=9.0, start=1.7e9) if look == 1 else vllm(10 * look, start=1.8e9)
        return text if told else text.partition("\n")[2]

    with stub(page) as url:
        captures, said = got(url, window="3s")
    assert "counters were reset" in said["reset"]
    numbers = [e for e in judged(captures).evidence if isinstance(e.value, float) and e.signal.startswith("serving.")]
    assert all(float(e.value or 0) >= 0 for e in numbers)
    ttft = [e.value for e in numbers if e.signal == "serving.server.ttft"]
    assert ttft == [pytest.approx(50.0)]


def test_ten_megabytes_of_metrics_take_bounded_time() -> None:
    filler = "".join(
        f'http_request_duration_seconds_bucket{{handler="/v1/{n}",le="{k}",method="POST"}} {n}\n'
        for n in range(1400)
        for k in range(100)
    )
    assert len(filler) > 10 << 20
    with stub(lambda look, _: filler + vllm(10 * look)) as url:
        began = time.process_time()
        captures, said = got(url)
        assert {c.part for c in captures} == {"start", "end"} and not said
        judged(captures)
        assert time.process_time() - began < 60  # about 5 alone


def test_large_pages_keep_what_inference_servers_count() -> None:
    filler = "".join(f'other_total{{n="{n}"}} 1\n' for n in range(60_000))
    data, cut = Page((filler + vllm(3)).encode(), "127.0.0.1:1", 0.0).kept("start")
    assert len(data) < 1 << 14 and b"vllm:num_requests_running" in data and cut is not None and "lines" in cut


def test_two_workers_are_not_taken_for_one() -> None:
    """Counters of two servers far apart: a difference between them would be absurd."""
    texts = [("10.0.0.1:9000", 100.0, 110.0), ("10.0.0.2:9000", 9000.0, 9020.0)]
    captures = []
    for place, before, after in texts:
        for count, part in ((before, "start"), (after, "end")):
            page = "\n".join(vllm(count).splitlines()[1:]) + "\n"
            captures.append(Capture("vllm.metrics", Page(page.encode(), place, 1.0).kept(part)[0], f"{place} {part}"))
    counts = sorted(e.value for e in judged(captures).evidence if e.signal == "serving.server.requests")
    assert counts == [10.0, 20.0]


VLLM = {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm"}]}, "/version": {"version": "0.26.0"}}
SGLANG = {"mem_fraction_static": 0.85, "max_running_requests": 8, "chunked_prefill_size": 2048, "version": "0.5.3"}


@pytest.mark.parametrize(
    ("paths", "engine", "version"),
    [
        (VLLM, "vllm", "0.26.0"),
        ({"/get_server_info": SGLANG}, "sglang", "0.5.3"),
        ({"/info": {"model_id": "m", "max_concurrent_requests": 128, "version": "3.0.1"}}, "tgi", "3.0.1"),
        ({"/health": {"status": "healthy", "endpoints": ["dyn://dynamo.backend.generate"]}}, "dynamo", None),
        ({"/v1/models": {"data": [{"id": "m", "owned_by": "somebody"}]}}, None, None),
    ],
)  # fmt: skip
def test_engine_and_version_are_recognised_from_what_is_served(
    paths: dict[str, object], engine: str | None, version: str | None
) -> None:
    with stub(lambda *_: "", paths=paths) as url:
        captures, _ = got(url, "serving.args")
    served = next(c for c in captures if c.part == "served")
    if engine is None:
        assert b"engine unknown" in served.data
    evidence = judged([served]).evidence
    assert [e.value for e in evidence if e.signal == "serving.engine"] == ([engine] if engine else [])
    told = [e.value for e in evidence if e.signal == "version" and e.subject.label == engine]
    assert told == ([version] if version else [])


def test_options_that_a_server_tells_are_read() -> None:
    with stub(lambda *_: "", paths={"/get_server_info": SGLANG}) as url:
        captures, _ = got(url, "serving.args")
    options = {e.subject.label: e.value for e in judged(captures).evidence if e.signal == "serving.arg"}
    assert options["max-running-requests"] == "8"


def test_the_process_behind_the_port_is_found() -> None:
    with stub(lambda *_: "", paths={"/v1/models": {"data": []}}) as url:
        captures, said = got(url, "serving.args")
        used, _ = got(url, "server.use", window="1s")
    assert any(c.part == "command line" for c in captures), said
    cpu = next(c for c in used if c.part == "cpu").data.decode()
    assert f"\n{os.getpid():5d} " in cpu and "%wait" in cpu


def test_a_log_of_now_leaves_out_the_state_of_this_morning() -> None:
    now = time.mktime((2027, 1, 1, 0, 5, 0, 0, 1, -1))
    start = "INFO 12-31 20:00:01 [core.py:1] GPU KV cache size: 190,000 tokens\n"
    past = "INFO 12-31 23:50:00 [loggers.py:310] Engine 000: Avg prompt throughput: 9.0 tokens/s, Waiting: 495 reqs\n"
    sglang = "[2026-12-31 23:58:00 TP0] Decode batch. #running-req: 3, #token: 5, #queue-req: 0\n"
    late = past.replace("12-31 23:50:00", "01-01 00:04:30")
    odd = past.replace("12-31", "02-31")  # no such day: nobody can say when, so it stays
    text = start + past + sglang + odd + late
    assert without_past(text, now) == (start + sglang + odd + late, 1)
    assert without_past(text, now + 300) == (start + odd + late, 2)


def test_a_path_that_is_elsewhere_is_not_looked_for_here() -> None:
    host = Host({"endpoint": "http://192.0.2.7:8000"})
    assert "elsewhere" in str(collectors()["vllm.log"].ready(host))
    assert "elsewhere" in str(collectors()["server.use"].ready(host))


def test_lengths_of_time() -> None:
    assert [seconds(t, 10.0) for t in ("", "10s", "30m", "90", "1.5h")] == [10.0, 10.0, 1800.0, 90.0, 5400.0]
    for wrong in ("soon", "0", "-3s"):
        with pytest.raises(UsageError):
            seconds(wrong, 10.0)


# ---------------------------------------------------------------- Prometheus


def series(name: str, values: list[float], instance: str = "a:8000", **labels: str) -> dict[str, object]:
    now = time.time()
    step = 30.0
    points = [[now - step * (len(values) - n), str(v)] for n, v in enumerate(values)]
    return {"metric": {"__name__": name, "instance": instance, "job": "x"} | labels, "values": points}


def prometheus(rows: list[dict[str, object]], window: str = "3m") -> tuple[list[Capture], dict[str, str]]:
    data = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
    with stub(lambda *_: "", paths={"/api/v1/query_range": data}) as url:
        return split(collect(collectors()["vllm.metrics"], Host({"prometheus": url, "window": window})))


def counted(values: list[float], instance: str = "a:8000") -> list[dict[str, object]]:
    return [
        series("vllm:time_to_first_token_seconds_count", values, instance),
        series("vllm:time_to_first_token_seconds_sum", [v * 0.2 for v in values], instance),
        series("vllm:request_queue_time_seconds_count", values, instance),
        series("vllm:request_queue_time_seconds_sum", [v * 0.15 for v in values], instance),
        series("vllm:num_requests_waiting", [0, 7, 3, 0], instance),
    ]


def test_prometheus_gives_two_pages_of_each_server() -> None:
    captures, said = prometheus([*counted([100, 120, 150, 180]), *counted([9000, 9010, 9020, 9030], "b:8000")])
    assert len(captures) == 6 and "gaps" not in " ".join(said)
    evidence = judged(captures).evidence
    assert sorted(e.value for e in evidence if e.signal == "serving.server.requests") == [30.0, 80.0]
    assert max(e.value for e in evidence if e.signal == "serving.waiting") == 7.0  # type: ignore[type-var]
    assert {round(float(e.value or 0), 3) for e in evidence if e.signal == "serving.server.ttft"} == {200.0}


def test_prometheus_adds_up_over_resets_and_says_so() -> None:
    captures, said = prometheus(counted([100, 120, 10, 40]))
    assert any("reset 1 times" in reason for reason in said.values())
    evidence = judged(captures).evidence
    assert [e.value for e in evidence if e.signal == "serving.server.requests"] == [60.0]
    assert increase([(0, 100), (1, 120), (2, 10), (3, 40)]) == (60.0, 1)


def test_prometheus_with_gaps_says_so() -> None:
    _, said = prometheus(counted([100, 120, 130, 140]), window="30m")
    assert any("gaps" in reason for reason in said.values())


def test_prometheus_without_a_server_and_what_is_no_prometheus() -> None:
    assert "no series of an inference server" in prometheus([])[1][""]
    with stub(lambda *_: "", paths={"/api/v1/query_range": {"hello": 1}}) as url:
        _, said = split(collect(collectors()["vllm.metrics"], Host({"prometheus": url})))
    assert "not like Prometheus" in said[""]


def test_what_is_kept_is_json_and_text_only(tmp_path: Path) -> None:
    """A cassette of a watched server names no key and no user, and is read back."""
    from diagnose.cassette import Cassette, read

    with stub(lambda look, _: vllm(10 * look)) as url:
        captures, _ = got(url)
    kept = Cassette.create(tmp_path / "x.cassette", "TTFT is high")
    kept.add(captures)
    assert len(read(tmp_path / "x.cassette")["captures"]) == len(captures)
    assert json.dumps(kept.index())


# ---------------------------------------------------------------- requests of its own


def test_a_few_requests_show_what_lies_between_client_and_server() -> None:
    """The stub of an engine says 50 ms for each first token; the rest of what the client waited is the way."""
    script = Path(__file__).parent / "stub_openai.py"
    argv = [sys.executable, str(script), "--ttft", "0.05", "--mode", "tokenize"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            url = f"http://127.0.0.1:{int(child.stdout.readline())}"
            captures, said = got(url, "client.direct")
        finally:
            child.kill()
    assert [c.part for c in captures] == ["start", "end", "result"] and not said
    made = judged(captures)
    stages = {s.stage: s.seconds for s in made.stages if s.metric == "ttft" and s.share is not None}
    client = [e.value for e in made.evidence if e.signal == "serving.client.ttft" and e.subject.label == "mean"]
    assert sum(stages.values()) * 1000 == pytest.approx(float(client[0] or 0))
    assert stages["residual"] == pytest.approx(0.05) and stages["client and network"] > 0


def test_a_server_without_a_cache_answers_both_times_alike() -> None:
    """The stub of an engine takes 50 ms for every first token, new or again."""
    script = Path(__file__).parent / "stub_openai.py"
    argv = [sys.executable, str(script), "--ttft", "0.05", "--mode", "tokenize"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            captures, said = got(f"http://127.0.0.1:{int(child.stdout.readline())}", "client.repeat")
        finally:
            child.kill()
    (capture,) = captures
    facts = list(RepeatReader().parse(Document.of("repeat", capture.data)))
    (ratio,) = [f.value for f in facts if f.signal == "serving.repeat.ratio"]
    assert not said and len(facts) == 2 * REQUESTS + 1 and ratio == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("name", ["client.direct", "client.repeat"])
def test_what_would_run_is_shown_without_a_server(name: str) -> None:
    probe = collectors()[name]
    assert probe.ready(Host()) and "http://HOST:PORT" in " ".join(probe.commands(Host()))


def test_requests_of_its_own_need_a_server() -> None:
    captures, said = got(f"http://127.0.0.1:{free()}", "client.direct")
    assert not captures and "nothing listens" in said[""]
