"""From symptom and endpoint to the cause: a real frontend and mocked engines with planted faults, under load.

``pytest -m live``. Needs ``DYNAMO_PYTHON`` (an interpreter with ai-dynamo) and ``DYNAMO_MODEL`` (a folder with config
and tokenizer). With ``DIAGNOSE_CASSETTES`` naming a folder, each state's masked recording is kept there as a zip.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from diagnose.cassette import pack
from diagnose.live_run import prepare
from diagnose.models import Report
from diagnose.triage import Reach, investigate

PYTHON, MODEL = os.environ.get("DYNAMO_PYTHON", ""), os.environ.get("DYNAMO_MODEL", "")
KEEP = os.environ.get("DIAGNOSE_CASSETTES", "")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not (PYTHON and MODEL), reason="DYNAMO_PYTHON and DYNAMO_MODEL are not set"),
]
HOST = "127.0.0.1"
HOSTS = ("DYN_HTTP_HOST", "DYN_TCP_RPC_HOST", "DYN_SYSTEM_HOST", "DYN_TCP_RESPONSE_STREAM_HOST")
SLOW = ["--kv-transfer-bandwidth", "0.2", "--kv-bytes-per-token", "131072", "--num-gpu-blocks-override", "2048"]
FAST = ["64" if option == "0.2" else option for option in SLOW]
ROOM = ["--max-num-seqs", "64", "--num-gpu-blocks-override", "4096"]
# name: workers' options, load (rate, input, output), the cause ("" for healthy)
STATES: dict[str, tuple[list[list[str]], tuple[str, str, str], str]] = {
    "dynamo-few-seqs": (
        [["--engine-type", "vllm", "--max-num-seqs", "1", "--num-gpu-blocks-override", "2048"]],
        ("5", "128", "32"), "serving.max_num_seqs_low",
    ),
    "dynamo-few-kv-blocks": (
        [["--engine-type", "vllm", "--max-num-seqs", "64", "--num-gpu-blocks-override", "80"]],
        ("4", "256", "64"), "serving.kv_capacity_low",
    ),
    "dynamo-slow-kv-transfer": (
        [["--engine-type", "vllm", "--disaggregation-mode", "prefill", "--bootstrap-ports", "{port}", *SLOW],
         ["--engine-type", "vllm", "--disaggregation-mode", "decode", *SLOW]],
        ("2", "1024", "32"), "serving.kv_transfer_slow",
    ),
    "dynamo-sglang-few-seqs": (
        [["--engine-type", "sglang", "--max-num-seqs", "2", "--num-gpu-blocks-override", "2048"]],
        ("6", "128", "64"), "serving.max_num_seqs_low",
    ),
    "dynamo-healthy": ([["--engine-type", "vllm", *ROOM]], ("4", "256", "64"), ""),
    "dynamo-sglang-healthy": ([["--engine-type", "sglang", *ROOM]], ("4", "256", "64"), ""),
}  # fmt: skip


def _free() -> int:
    """A free port below 32768: the workers read theirs as a signed number of 16 bits."""
    for port in random.sample(range(20_000, 32_000), 50):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port
    raise AssertionError("no free port")


@pytest.fixture
def dynamo(tmp_path: Path) -> Iterator[Callable[[list[list[str]]], str]]:
    """Starts a frontend with mocked workers; gives its address."""
    children: list[subprocess.Popen[bytes]] = []

    def start(workers: list[list[str]]) -> str:
        port = _free()
        env = {
            **os.environ, "DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": str(tmp_path / "kv"), "HF_HUB_OFFLINE": "1",
            "DYN_REQUEST_PLANE": "tcp", "DYN_EVENT_PLANE": "zmq", **dict.fromkeys(HOSTS, HOST),
        }  # fmt: skip
        (tmp_path / "kv").mkdir()

        def run(name: str, argv: list[str], **more: str) -> None:
            with (tmp_path / f"{name}.log").open("wb") as log:
                children.append(subprocess.Popen([PYTHON, "-m", *argv], env=env | more, stdout=log, stderr=log))

        run("frontend", ["dynamo.frontend", "--http-port", str(port)])
        for number, options in enumerate(workers):
            given = [o.format(port=_free()) for o in options]
            common = ["--model-path", MODEL, "--model-name", "m", "--block-size", "16"]
            run(f"worker{number}", ["dynamo.mocker", *common, *given], DYN_SYSTEM_PORT=str(_free()))
        url = f"http://{HOST}:{port}"
        for _ in range(60):
            try:
                with urlopen(f"{url}/v1/models", timeout=2) as response:
                    if json.loads(response.read())["data"] or not workers:
                        return url
            except (URLError, OSError):
                pass
            time.sleep(0.5)
        raise AssertionError(
            (tmp_path / ("worker0.log" if workers else "frontend.log")).read_text(errors="replace")[-3000:]
        )

    yield start
    for child in children:
        child.terminate()
    for child in children:
        child.wait(20)


def _load(url: str, rate: str, size: str, answer: str) -> subprocess.Popen[bytes]:
    """The embedded generator, in a process of its own."""
    argv = [
        sys.executable, "-m", "diagnose.cli", "bench", "--endpoint", url, "--allow", "load", "--via", "embedded",
        "--rate", rate, "--input", size, "--output", answer, "--num", str(int(rate) * 60), "--format", "json",
    ]  # fmt: skip
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _under_way(url: str) -> None:
    """Wait until the load is on."""
    for _ in range(80):
        with urlopen(f"{url}/metrics", timeout=5) as response:
            text = response.read().decode()
        started = [x for x in text.splitlines() if x.startswith("dynamo_frontend_requests_started_total")]
        if sum(float(x.rpartition(" ")[2]) for x in started) > 12:  # more than the warm-up
            return
        time.sleep(0.5)
    raise AssertionError("no load came")


def _judge(symptom: str, url: str, allow: str = "") -> tuple[Report, Path]:
    live = prepare(symptom, Reach(params={"endpoint": url, "window": "10s"}, allow=allow), False)
    made, complete = investigate(symptom, [], None, ("en",), live=live)
    assert complete
    return made, live.cassette.path


@pytest.mark.parametrize("name", STATES)
def test_state(
    name: str, dynamo: Callable[[list[list[str]]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    workers, load, cause = STATES[name]
    url = dynamo(workers)
    bench = _load(url, *load)
    try:
        _under_way(url)
        made, path = _judge("TTFT is high", url)
    finally:
        bench.kill()
        bench.wait(20)
    if KEEP:
        pack(path, Path(KEEP) / f"{name}.zip")
    lead = made.findings[0].cause if made.findings else ""
    assert (made.verdict, lead) == ("cause" if cause else "healthy", cause), [h.cause for h in made.hypotheses]
    for metric in {s.metric for s in made.stages if s.share is not None}:
        assert sum(s.share or 0 for s in made.stages if s.metric == metric) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("link", "found"), [(SLOW, True), (FAST, False)], ids=["slow", "fast"])
def test_kv_transfer_from_endpoint_to_cause(
    link: list[str], found: bool, dynamo: Callable[[list[list[str]]], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Asked about the transfer itself: prefill and decode workers behind a frontend, a slow link and a fast one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    prefill = ["--engine-type", "vllm", "--disaggregation-mode", "prefill", "--bootstrap-ports", "{port}", *link]
    url = dynamo([prefill, ["--engine-type", "vllm", "--disaggregation-mode", "decode", *link]])
    bench = _load(url, "2", "1024", "32")
    try:
        _under_way(url)
        made, _ = _judge("KV transfer is slow, decode waits", url)
    finally:
        bench.kill()
        bench.wait(20)
    share = [float(str(e.value)) for e in made.evidence if e.signal == "kv.share"]
    if found:
        assert made.findings[0].cause == "serving.kv_transfer_slow" and max(share) > 0.5
    else:
        assert "serving.kv_transfer_slow" not in [f.cause for f in made.findings] and max(share, default=0) < 0.1


def test_an_idle_server_and_requests_of_its_own(
    dynamo: Callable[[list[list[str]]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the window: undecided; `client.direct` then measures what a few requests of its own take."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url = dynamo([["--engine-type", "vllm", *ROOM]])
    made, path = _judge("TTFT is high", url)
    if KEEP:
        pack(path, Path(KEEP) / "dynamo-idle.zip")
    assert (made.verdict, made.findings) == ("inconclusive", [])
    assert "no request came" in made.unavailable[0].reason


def test_one_slow_worker_of_two_is_placed(
    dynamo: Callable[[list[list[str]]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    alike = ["--engine-type", "vllm", *ROOM]
    url = dynamo([alike, [*alike, "--speedup-ratio", "0.1"]])
    bench = _load(url, "6", "256", "64")
    try:
        _under_way(url)
        made, _ = _judge("TTFT is high", url)
    finally:
        bench.kill()
        bench.wait(20)
    assert (made.verdict, made.findings) == ("inconclusive", [])
    assert "the place is: a first token takes" in made.answer["en"].verdict


def test_requests_for_a_model_that_is_not_served(
    dynamo: Callable[[list[list[str]]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url, over = dynamo([["--engine-type", "vllm", *ROOM]]), threading.Event()

    def ask() -> None:
        body = json.dumps({"model": "another", "prompt": "hi", "max_tokens": 4}).encode()
        while not over.wait(0.3):
            with contextlib.suppress(HTTPError):
                urlopen(Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"}), timeout=5).close()

    client = threading.Thread(target=ask)
    client.start()
    try:
        made, _ = _judge("TTFT is high", url)
    finally:
        over.set()
        client.join(20)
    assert [f.cause for f in made.findings][:1] == ["serving.misconfigured"]


def test_a_frontend_without_a_worker_says_so(
    dynamo: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made, _ = _judge("TTFT is high", dynamo([]))
    assert made.verdict == "inconclusive" and "lists no model" in made.answer["en"].verdict
