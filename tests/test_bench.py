"""The arithmetic of `diagnose bench`, under a clock that only moves when told; no time of this machine is asserted."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import selectors
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnose.probes.serving_bench import ServingBenchReader

from diagnose.bench import plan, show
from diagnose.bench.command import Options, preview, run, work
from diagnose.bench.drive import DEAD_AFTER, drive
from diagnose.bench.external import AiPerf, VllmBench, from_aiperf, key_in_environment, missing
from diagnose.bench.metrics import concurrency, enough, meets, percentile, result, self_check, spread
from diagnose.bench.records import Load, Outcome, Result, Sample
from diagnose.bench.schedule import schedule
from diagnose.bench.server import account
from diagnose.bench.sse import EventStream
from diagnose.bench.target import Collector, Target, refusal
from diagnose.bench.wire import Exchange, Origin, Response, WireError
from diagnose.document import Document
from diagnose.errors import UsageError

MS = 1_000_000
TARGET = Target("m", "stub", "completions")


class Clock:
    """Time that passes only while the loop would sleep."""

    now = 1000.0

    def loop(self) -> asyncio.AbstractEventLoop:
        clock = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                ready = super().select(0 if timeout is not None else None)
                if not ready and timeout is not None:
                    clock.now += max(timeout, 0.0)
                return ready

        class Loop(asyncio.SelectorEventLoop):
            def time(self) -> float:
                return clock.now

        return Loop(Selector())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    out = Clock()
    monkeypatch.setattr("time.perf_counter_ns", lambda: round(out.now * 1e9))
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    return out


class FakeClient:
    """Answers after known delays on the clock of the loop; `slots` at a time."""

    opened = peak = in_use = 0

    def __init__(
        self, clock: Clock, ttft: float, gap: float, chunks: int, slots: int = 1000, dead: int = 10**9
    ) -> None:
        self.clock, self.ttft, self.gap, self.chunks, self.dead = clock, ttft, gap, chunks, dead
        self.slots = asyncio.Semaphore(slots)
        self.seen = 0

    def frame(self, method: str, path: str, body: Any = None) -> bytes:
        return b""

    async def send(self, frame: bytes, *, timeout: float, on_event: Callable[[int, bytes], None]) -> Response:
        self.seen += 1
        if self.seen > self.dead:
            raise WireError("refused", "nothing listens")
        response = Response(status=200, began=round(self.clock.now * 1e9), reused=True)
        async with self.slots:
            for number in range(self.chunks):
                await asyncio.sleep(self.gap if number else self.ttft)
                end = "length" if number == self.chunks - 1 else None
                on_event(round(self.clock.now * 1e9), chunk(text="a", finish_reason=end))
        response.ended = round(self.clock.now * 1e9)
        return response


def chunk(**choice: Any) -> bytes:
    return json.dumps({"choices": [choice]}).encode()


def go(clock: Clock, client: FakeClient, load: Load) -> Outcome:
    loop = clock.loop()
    try:
        return loop.run_until_complete(drive(client, TARGET, load, ["x"] * 10_000))  # type: ignore[arg-type]
    finally:
        loop.close()


def sample(due: int, held: int, ttft: int, gaps: list[int], tokens: int | None = None) -> Sample:
    """A completed request; all in ms."""
    first = due + held + ttft
    stamps = [first + sum(gaps[:i]) for i in range(len(gaps) + 1)]
    out = Sample(0, due=due * MS, woke=due * MS, began=(due + held) * MS, first=first * MS, message=first * MS)
    out.chunks, out.last, out.ended = [s * MS for s in stamps], stamps[-1] * MS, stamps[-1] * MS
    out.usage_tokens = tokens
    return out


# --- schedule


def test_a_schedule_offers_the_rate_that_was_asked_for_whatever_the_draw() -> None:
    for burstiness in (0.2, 1.0, 8.0, math.inf):
        due = schedule(200, 4.0, burstiness, 0.0, random.Random(3))
        assert due[-1].at == pytest.approx(50.0)
        assert all(b.at >= a.at for a, b in itertools.pairwise(due))
    assert schedule(50, 4.0, 1.0, 0.0, random.Random(3)) == schedule(50, 4.0, 1.0, 0.0, random.Random(3))
    assert schedule(50, 4.0, 1.0, 0.0, random.Random(3)) != schedule(50, 4.0, 1.0, 0.0, random.Random(4))


def test_gaps_are_as_bursty_as_asked() -> None:
    def variation(burstiness: float) -> float:
        at = [d.at for d in schedule(20_000, 1.0, burstiness, 0.0, random.Random(1))]
        gaps = [b - a for a, b in itertools.pairwise(at)]
        return statistics.pstdev(gaps) / statistics.fmean(gaps)

    assert variation(1.0) == pytest.approx(1.0, rel=0.05)  # Poisson
    assert variation(4.0) == pytest.approx(0.5, rel=0.05)
    assert variation(math.inf) == pytest.approx(0.0, abs=1e-9)


def test_a_ramp_rises_in_a_line_and_is_marked() -> None:
    due = schedule(40, 10.0, math.inf, 4.0, random.Random(0))
    ramp = [d.at for d in due if d.ramp]
    assert len(ramp) == 20 and len(due) == 60
    assert ramp[-1] == pytest.approx(4.0)
    assert sum(a <= 2.0 for a in ramp) == 5  # a quarter of its requests in its first half
    assert due[-1].at == pytest.approx(8.0)


def test_inf_is_all_at_once() -> None:
    assert {d.at for d in schedule(5, math.inf, 1.0, 0.0, random.Random(0))} == {0.0}


# --- percentiles and layout


def test_percentiles_interpolate_between_ranks() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([0.0, 10.0], 99) == pytest.approx(9.9)
    assert percentile([7.0], 99) == 7.0


def test_a_percentile_without_enough_samples_is_refused() -> None:
    assert enough(100, 99) and not enough(99, 99) and enough(1000, 99.9) and not enough(999, 99.9)
    assert spread([0.001] * 99)["p99"] is None and spread([0.001] * 100)["p99"] == pytest.approx(1.0)
    assert spread([])["mean"] is None


def test_tpot_is_per_token_and_itl_is_per_chunk() -> None:
    one = sample(0, 0, 50, [20, 20, 20], tokens=13)  # 4 chunks that carry 13 tokens
    assert one.tpot == pytest.approx(0.060 / 12)
    assert one.gaps == pytest.approx([0.020] * 3)
    assert sample(0, 0, 50, [], tokens=1).tpot is None


def test_what_the_client_held_back_is_in_the_corrected_figures_only() -> None:
    load = Load(num=2, rate=10.0, concurrency=1, output=2)
    out = Outcome([sample(0, 0, 50, [10]), sample(100, 400, 50, [10])], 0, 560 * MS)
    data = result(out, load, TARGET, {"ttft": 100.0})
    assert data["mean_ttft_ms"] == pytest.approx(50)
    assert data["from_schedule"]["ttft"]["mean"] == pytest.approx(250)
    assert (data["slo"]["met"], data["slo"]["of"]) == (1, 2)  # the second met it from sending, not from when it was due
    assert data["duration"] == pytest.approx(0.560)
    assert data["request_goodput"] == pytest.approx(1 / 0.560, rel=1e-5)


def test_failures_stay_in_the_result() -> None:
    bad = Sample(1, due=10 * MS, woke=10 * MS, began=10 * MS, ended=20 * MS, kind="http 500", error="HTTP 500: no")
    out = Outcome([sample(0, 0, 5, [1]), bad], 0, 30 * MS, unsent=3, died="the server is gone")
    data = result(out, Load(num=5, rate=100.0), TARGET, {"ttft": 100.0})
    assert (data["completed"], data["failed"], data["accounting"]["not_sent"]) == (1, 1, 3)
    assert data["accounting"]["failures"] == {"http 500": 1}
    assert data["slo"] == {"limits_ms": {"ttft": 100.0}, "met": 1, "of": 5}
    assert data["errors"] == ["", "HTTP 500: no"] and data["ttfts"][1] == 0.0
    assert not meets(bad, {})


def test_a_run_without_an_answer_has_no_figures_and_says_so() -> None:
    data = result(Outcome([], 0, 0, unsent=4), Load(num=4), TARGET, {})
    assert data["mean_ttft_ms"] is None and data["completed"] == 0
    json.dumps(data, allow_nan=False)


def test_concurrency_counts_overlaps() -> None:
    assert concurrency([sample(0, 0, 10, [10]), sample(5, 0, 10, [10]), sample(20, 0, 10, [])]) == 2


def test_the_self_check_knows_a_late_client() -> None:
    load = Load(num=100, rate=100.0)
    late = [sample(10 * i, 0, 200, [5]) for i in range(100)]
    for s in late[:3]:
        s.woke += 8 * MS
    good = Outcome([sample(10 * i, 0, 200, [5]) for i in range(100)], 0, 1200 * MS, loop_lags=[0.0002] * 100)
    assert self_check(good, load, 200.0)["valid"]
    assert not self_check(Outcome(late, 0, 1200 * MS), load, 200.0)["valid"]
    busy = Outcome(good.samples, 0, 1200 * MS, cpu=1.1)
    assert "of a core" in self_check(busy, load, 200.0)["reasons"][0]
    slow = Outcome(good.samples, 0, 1200 * MS, loop_lags=[0.012] * 100)
    assert "event loop" in self_check(slow, load, 200.0)["reasons"][0]
    assert self_check(good, load, 20.0)["bound_ms"] == pytest.approx(1.0)  # 5 % of a small TTFT binds before 5 ms


# --- the generator under a fake clock


def test_an_open_loop_sends_when_due_while_the_server_queues(clock: Clock) -> None:
    """One slot, 0.2 s an answer, 10 requests a second: the queue grows, and the figures must show it."""
    load = Load(num=20, rate=10.0, burstiness=math.inf, output=2)
    out = go(clock, FakeClient(clock, 0.1, 0.1, 2, slots=1), load)
    data = result(out, load, TARGET, {})
    assert all(s.began == pytest.approx(s.due, abs=1000) for s in out.samples)
    expected = [100 + 100 * i for i in range(20)]  # each waits 0.1 s longer than the one before
    assert [s.ttft * 1000 for s in out.samples] == pytest.approx(expected, abs=0.1)
    assert data["mean_ttft_ms"] == pytest.approx(statistics.fmean(expected), abs=0.1)
    assert data["from_schedule"]["ttft"]["mean"] == pytest.approx(data["mean_ttft_ms"], abs=0.1)
    assert data["duration"] == pytest.approx(4.0, abs=0.001)
    assert data["self_check"]["valid"]


def test_a_cap_hides_the_queue_from_the_raw_figure_and_not_from_the_corrected_one(clock: Clock) -> None:
    load = Load(num=20, rate=10.0, burstiness=math.inf, concurrency=1, output=2)
    out = go(clock, FakeClient(clock, 0.1, 0.1, 2, slots=1), load)
    data = result(out, load, TARGET, {})
    assert data["mean_ttft_ms"] == pytest.approx(100, abs=0.1)
    assert data["from_schedule"]["ttft"]["mean"] == pytest.approx(1050, abs=0.1)
    assert data["accounting"]["held_by_concurrency"] == 19
    assert data["max_concurrent_requests"] == 1


def test_users_who_wait_have_no_schedule_to_be_late_for(clock: Clock) -> None:
    load = Load(num=12, concurrency=3, output=2)
    out = go(clock, FakeClient(clock, 0.1, 0.1, 2), load)
    data = result(out, load, TARGET, {})
    assert data["from_schedule"] is None and data["load"]["closed_loop"]
    assert data["duration"] == pytest.approx(0.8, abs=0.001)
    assert data["max_concurrent_requests"] == 3


def test_the_ramp_is_sent_and_not_measured(clock: Clock) -> None:
    load = Load(num=20, rate=10.0, ramp=2.0, output=1)
    out = go(clock, FakeClient(clock, 0.01, 0.0, 1), load)
    data = result(out, load, TARGET, {})
    assert len(out.samples) == 30 and data["completed"] == 20 and data["accounting"]["ramp_requests"] == 10


def test_a_dead_server_ends_the_run_and_counts_what_it_lost(clock: Clock) -> None:
    load = Load(num=100, rate=10.0, output=1)
    out = go(clock, FakeClient(clock, 0.01, 0.0, 1, dead=20), load)
    data = result(out, load, TARGET, {})
    assert out.died.startswith("the server is gone") and not out.interrupted
    assert (data["completed"], data["failed"], data["accounting"]["not_sent"]) == (
        20,
        DEAD_AFTER,
        100 - 20 - DEAD_AFTER,
    )


def test_an_interrupt_keeps_what_there_is(clock: Clock) -> None:
    load = Load(num=100, rate=10.0, burstiness=math.inf, output=1)
    loop = clock.loop()

    async def stopped() -> Outcome:
        task = asyncio.create_task(drive(FakeClient(clock, 0.35, 0.0, 1), TARGET, load, ["x"] * 100))  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(2.06, task.cancel)
        return await task

    out = loop.run_until_complete(stopped())
    loop.close()
    data = result(out, load, TARGET, {})
    assert out.interrupted and data["completed"] == 16
    assert data["accounting"]["failures"] == {"unfinished": 4} and data["accounting"]["not_sent"] == 80


# --- events and HTTP


def test_events_keep_the_time_of_their_first_byte_in_any_cut() -> None:
    stream = EventStream()
    assert stream.feed(1, b"data: {") == []
    assert stream.feed(2, b"}\r\n\r\n: ping\n\ndata: a\n") == [(1, b"{}")]
    assert stream.feed(3, b"data: b\n\ndata: [DONE]\n\nda") == [(2, b"a\nb"), (3, b"[DONE]")]
    assert stream.feed(4, b"ta:x\n\n") == [(3, b"x")]
    assert stream.feed(9, b"data: y\n\n") == [(9, b"y")]


def answer(cuts: Iterator[bytes] | list[bytes]) -> tuple[Exchange, list[tuple[int, bytes]]]:
    got: list[tuple[int, bytes]] = []
    exchange = Exchange(Response(), lambda at, data: got.append((at, data)))
    for stamp, part in enumerate(cuts):
        exchange.feed(stamp, part)
    return exchange, got


CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: a\n\n\r\n5;x=y\r\ndata:\r\n4\r\n b\n\n\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_a_chunked_answer_reads_the_same_in_any_cut(size: int) -> None:
    exchange, got = answer([CHUNKED[i : i + size] for i in range(0, len(CHUNKED), size)])
    assert exchange.done and exchange.keep and [d for _, d in got] == [b"a", b"b"]


def test_bodies_with_and_without_a_length() -> None:
    exchange, _ = answer([b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nab", b"cd"])
    assert exchange.done and bytes(exchange.response.body) == b"abcd"
    exchange, _ = answer([b"HTTP/1.1 200 OK\r\n\r\nab"])
    assert not exchange.done and not exchange.keep
    exchange.eof()
    assert exchange.done
    cut, _ = answer([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"])
    with pytest.raises(WireError, match="closed the connection"):
        cut.eof()


def test_what_is_no_http_says_what_it_may_be() -> None:
    with pytest.raises(WireError) as err:
        answer([b"\x15\x03\x01\x00\x02\x02"])
    assert "https://" in err.value.hint
    with pytest.raises(WireError, match="not in HTTP"):
        answer([b"SSH-2.0-OpenSSH_9\r\n"])


def test_addresses() -> None:
    assert Origin.parse("127.0.0.1:8000").url == "http://127.0.0.1:8000"
    assert Origin.parse("https://h/llm/v1/chat/completions").url == "https://h:443/llm"
    assert Origin.parse("http://[::1]:9").url == "http://[::1]:9"
    for bad in ("ftp://h", "http://u:p@h", "http://h:99999", "http://"):
        with pytest.raises(UsageError):
            Origin.parse(bad)


def collect(*events: tuple[int, bytes], status: int = 200) -> Sample:
    out = Sample(0)
    reader = Collector(out)
    for at, data in events:
        reader(at, data)
    reader.close(Response(status=status))
    return out


def test_a_role_alone_is_no_first_token() -> None:
    out = collect(
        (5, chunk(delta={"role": "assistant", "content": ""})),
        (9, chunk(delta={"content": "Hi"})),
        (12, chunk(delta={}, finish_reason="stop")),
        (13, b'{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}'),
        (14, b"[DONE]"),
    )
    assert (out.message, out.first, out.last, out.chunks, out.tokens, out.prompt_tokens) == (5, 9, 12, [9], 3, 7)
    assert out.ok


def test_reasoning_counts_as_output() -> None:
    assert collect((9, chunk(delta={"reasoning_content": "hm"})), (10, b"[DONE]")).first == 9


def test_what_makes_an_answer_a_failure() -> None:
    assert collect((1, chunk(text="a"))).kind == "closed"  # neither a finish reason nor [DONE]
    assert collect((1, chunk(text="", finish_reason="stop"))).kind == "empty"
    assert collect((1, b'{"error": {"message": "boom"}}')).error == "error in the stream: boom"
    assert collect((1, b"<html>")).kind == "protocol"
    assert collect(status=500).kind == "http 500"
    special = collect(
        (1, chunk(text="")), (2, chunk(text="", finish_reason="length")), (3, b'{"usage":{"completion_tokens":2}}')
    )
    assert special.ok and special.first == 1  # tokens that have no text


def test_refusals_are_one_line() -> None:
    html = Response(status=502, headers={"content-type": "text/html"}, body=bytearray(b"<html>\nBad"))
    assert refusal(html) == ("http 502", "HTTP 502: HTML, not an OpenAI-compatible API")
    body = bytearray(b'{"error": {"message": "a\\nb", "type": "x"}}')
    assert refusal(Response(status=400, body=body))[1] == "HTTP 400: a b"
    assert "key" in refusal(Response(status=401))[1]
    assert "not followed" in refusal(Response(status=307, headers={"location": "/x"}))[1]


# --- plans


def test_the_matrix_and_a_sweep() -> None:
    loads = plan.matrix(Load())
    assert len(loads) == 27 and len({load.name for load in loads}) == 27
    assert [load.rate for load in plan.sweep(Load(), "rate=1,4,inf")] == [1.0, 4.0, math.inf]
    assert [load.input for load in plan.sweep(Load(), "input=128,512")] == [128, 512]
    for bad in ("rate", "rate=", "rate=0", "rate=x", "input=1.5", "colour=1", "rate=nan"):
        with pytest.raises(UsageError):
            plan.sweep(Load(), bad)


def test_an_slo_has_units() -> None:
    assert plan.slo("ttft=0.5s, tpot=20ms") == {"ttft": 500.0, "tpot": 20.0}
    for bad in ("ttft=500", "itl=5ms", "x", "ttft=5.5.5ms"):
        with pytest.raises(UsageError):
            plan.slo(bad)


def trial(met: int, of: int = 100, middle: int = 4, last: int = 4, valid: bool = True) -> Result:
    window = {"under_way_middle": middle, "under_way_last": last}
    return Result({"slo": {"met": met, "of": of}, "steady": window, "self_check": {"valid": valid}})


@pytest.mark.parametrize("limit", [0.3, 3.0, 7.0, 150.0])
@pytest.mark.parametrize("start", [1.0, 4.0, 64.0])
def test_the_search_brackets_the_limit(limit: float, start: float) -> None:
    found = plan.Saturation()
    plan.search(lambda rate: trial(100 if rate <= limit else 50), start, 0.9, found)
    assert found.taken is not None and found.refused is not None
    assert found.taken <= limit < found.refused <= plan.CLOSE * found.taken
    assert len(found.trials) <= plan.MOST_RUNS


def test_the_search_stops_where_the_client_does_and_keeps_what_it_learnt() -> None:
    found = plan.Saturation()
    plan.search(lambda rate: trial(100, valid=rate < 30), 4.0, 0.9, found)
    assert found.taken == 16.0 and "client" in found.end
    found = plan.Saturation()
    plan.search(lambda rate: Result({}, died="gone"), 4.0, 0.9, found)
    assert found.end == "gone" and found.taken is None


def test_a_growing_queue_is_not_taken() -> None:
    assert not plan.judge(trial(100, middle=10, last=40), 4.0).taken
    assert plan.judge(trial(100, middle=10, last=12), 4.0).taken


# --- the server's account


def test_means_over_the_window_are_differences() -> None:
    name = "vllm:time_to_first_token_seconds"
    before = f'# TYPE {name} histogram\n{name}_sum{{m="a"}} 10\n{name}_count{{m="a"}} 100\n'
    after = f'# TYPE {name} histogram\n{name}_sum{{m="a"}} 13\n{name}_count{{m="a"}} 110\n'
    seen = account(before, after)
    assert seen is not None and seen[name] == {"observations": 10, "average_ms": pytest.approx(300)}
    assert account(after, before) is None  # a restart: counters went back
    assert account("", after) is None


# --- other tools


def test_vllm_is_called_with_a_list_and_the_same_load() -> None:
    load = Load(input=512, output=64, prefix=128, rate=4.0, concurrency=8, num=50, seed=3)
    argv = VllmBench("http://h:1", "m", "completions", "/tok", {"ttft": 500.0}).argv(load, "/tmp/x")
    pairs = dict(itertools.pairwise(argv))
    assert pairs["--random-input-len"] == "384" and pairs["--random-prefix-len"] == "128"
    assert pairs["--request-rate"] == "4" and pairs["--max-concurrency"] == "8" and pairs["--goodput"] == "ttft:500"
    assert "--ignore-eos" in argv and all(isinstance(a, str) for a in argv)


def test_aiperf_figures_keep_their_meaning_under_vllm_names() -> None:
    data = {
        "time_to_first_token": {"unit": "ms", "avg": 50.0, "p50": 40.0, "p99": 90.0, "std": 3.0},
        "inter_token_latency": {"unit": "ms", "avg": 7.0, "p50": 6.5},
        "request_count": {"avg": 20.0}, "request_throughput": {"avg": 4.0}, "output_token_throughput": {"avg": 512.0},
    }  # fmt: skip
    out = from_aiperf(data, Load(rate=4.0, num=20))
    assert out["mean_ttft_ms"] == 50 and out["median_tpot_ms"] == 6.5 and out["mean_itl_ms"] is None
    assert out["duration"] == pytest.approx(5.0) and out["completed"] == 20
    assert "--request-rate" in AiPerf("http://h", "m", "chat", "/t", None).argv(Load(rate=4.0), "/tmp/x")


def test_a_tool_that_is_not_here_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in missing("vllm", "", "")
    (tmp_path / "vllm").write_text("#!/bin/sh\n")
    (tmp_path / "vllm").chmod(0o755)
    assert "--tokenizer" in missing("vllm", "", "")
    assert "OPENAI_API_KEY" in missing("vllm", str(tmp_path), "OTHER")
    assert missing("vllm", str(tmp_path), "OPENAI_API_KEY") == ""


def test_a_key_comes_from_a_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", "sesame")
    assert key_in_environment("K") == "sesame" and key_in_environment("") is None
    monkeypatch.delenv("K")
    with pytest.raises(UsageError, match="K is not set"):
        key_in_environment("K")


# --- the command


def test_without_leave_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options("http://127.0.0.1:9", matrix=True)) == 2
    out = capsys.readouterr().out
    assert "nothing was sent" in out and out.count("requests of") == 27


def test_options_that_make_no_sense_are_refused() -> None:
    ok = {"endpoint": "http://h"}
    for bad in (
        {"via": "x"}, {"num": 0}, {"rate": "0"}, {"rate": "x"}, {"matrix": True, "sweep": "rate=1"}, {"ramp": -1.0},
        {"find_saturation": True}, {"prefix": 600}, {"format": "xml"}, {"endpoint": "ftp://h"}, {"slo": "ttft"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            work(Options(**(ok | bad)))  # type: ignore[arg-type]
    assert work(Options("h")).loads[0].rate == 4.0
    assert work(Options("h", concurrency=8)).loads[0].closed
    assert "again at other rates" in preview(*_both(Options("h", find_saturation=True, slo="ttft=1s")))


def _both(options: Options) -> tuple[Options, Any]:
    return options, work(options)


def test_prompts_differ_between_runs_unless_told() -> None:
    assert work(Options("h")).loads[0].salt != work(Options("h")).loads[0].salt
    assert work(Options("h", salt="abc")).loads[0].salt == "abc"


def test_the_reader_of_recorded_results_reads_what_is_written(tmp_path: Path) -> None:
    load = Load(num=120, rate=10.0, output=3, input=64)
    samples = [sample(100 * i, 0, 50 + i, [10, 12], tokens=3) for i in range(120)]
    data = result(Outcome(samples, 0, 13_000 * MS), load, TARGET, {"ttft": 100.0})
    path = show.write(tmp_path, Result(data, {"metrics-after.prom": "x"}))
    assert path.name == "in64-out3-rate10.json" and (tmp_path / "in64-out3-rate10.metrics-after.prom").exists()
    facts = list(ServingBenchReader().parse(Document.of(path.name, path.read_bytes())))
    seen = {(f.signal, f.subject.label): f.value for f in facts}
    assert seen["serving.client.ttft", "median"] == pytest.approx(109.5)
    assert seen["serving.client.ttft", "p99"] == pytest.approx(data["p99_ttft_ms"])
    assert seen["serving.client.tpot", "mean"] == pytest.approx(11.0)
    assert seen["serving.client.prompts", None] == 120 and seen["serving.client.failed", None] == 0
    assert not [f for f in facts if "#" in (f.subject.label or "")]  # no figure is met twice


def test_plots_need_two_points_and_show_what_was_measured(tmp_path: Path) -> None:
    from diagnose.bench import plots

    def at(rate: float, valid: bool = True) -> Result:
        data = {"request_rate": rate, "load": {"input": 8, "output": 4}, "p50_ttft_ms": 31.5 * rate}
        data |= {"mean_ttft_ms": 40.0, "request_throughput": rate, "mean_e2el_ms": 100.0, "p50_tpot_ms": 5.25}
        data |= {"output_throughput": 9.75}
        server = {"vllm:request_queue_time_seconds": {"average_ms": 11.5}, "client_minus_server_ttft_ms": 2.25}
        return Result(data | {"server": server, "self_check": {"valid": valid}})

    made = plots.draw([at(1.0), at(4.0, valid=False)], tmp_path)
    assert [p.stem for p in made] == [
        "latency-over-rate", "tpot-over-rate", "throughput-over-rate", "tpot-over-batch", "ttft-stages"
    ]  # fmt: skip
    texts = {p.stem: p.read_text("utf-8") for p in made}
    assert "4: 126</title>" in texts["latency-over-rate"] and 'class="cross"' in texts["latency-over-rate"]
    assert "queue: 11.5 ms" in texts["ttft-stages"] and "residual: 26.25 ms" in texts["ttft-stages"]
    assert [p.stem for p in plots.draw([at(1.0)], tmp_path)] == ["ttft-stages"]  # a line needs two points
    assert "吞吐随请求速率的变化" in [s.title for s in plots.plots([at(1.0), at(4.0)], "zh")]
    assert plots.stages({"mean_ttft_ms": 5.0, "server": None}) == {}
