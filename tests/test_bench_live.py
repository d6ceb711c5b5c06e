"""`diagnose bench` against a real frontend and a mocked engine: ``pytest -m live``.

Needs ``DYNAMO_PYTHON`` (an interpreter with ai-dynamo) and ``DYNAMO_MODEL`` (a folder with config and tokenizer).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from diagnose.bench.command import Options, run

PYTHON, MODEL = os.environ.get("DYNAMO_PYTHON", ""), os.environ.get("DYNAMO_MODEL", "")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not (PYTHON and MODEL), reason="DYNAMO_PYTHON and DYNAMO_MODEL are not set"),
]
HOST = "127.0.0.1"
HOSTS = ("DYN_HTTP_HOST", "DYN_TCP_RPC_HOST", "DYN_SYSTEM_HOST", "DYN_TCP_RESPONSE_STREAM_HOST")


def _free() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def dynamo(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a frontend with one mocked worker; gives its address."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*args: str) -> str:
        port = _free()
        env = {
            **os.environ, "DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": str(tmp_path / "kv"), "HF_HUB_OFFLINE": "1",
            "DYN_REQUEST_PLANE": "tcp", "DYN_EVENT_PLANE": "zmq",
            **dict.fromkeys(HOSTS, HOST),
        }  # fmt: skip
        (tmp_path / "kv").mkdir()
        worker = ["--model-path", MODEL, "--model-name", "m", "--engine-type", "vllm", "--block-size", "16", *args]
        with (tmp_path / "log").open("wb") as log:
            for argv in (["dynamo.frontend", "--http-port", str(port)], ["dynamo.mocker", *worker]):
                children.append(subprocess.Popen([PYTHON, "-m", *argv], env=env, stdout=log, stderr=log))
        url = f"http://{HOST}:{port}"
        for _ in range(120):
            try:
                with urlopen(f"{url}/v1/models", timeout=2) as response:
                    if json.loads(response.read())["data"]:
                        return url
            except (URLError, OSError):
                pass
            time.sleep(0.5)
        raise AssertionError((tmp_path / "log").read_text(errors="replace")[:4000])

    yield start
    for child in children:
        child.terminate()
    for child in children:
        child.wait(20)


def measured(capsys: pytest.CaptureFixture[str], url: str, **options: object) -> dict[str, object]:
    base = {"num": 40, "rate": "8", "input": 128, "output": 32, "allow": "load", "via": "embedded", "format": "json"}
    assert run(Options(url, **(base | options))) in (0, 2)  # type: ignore[arg-type]
    data: dict[str, object] = json.loads(capsys.readouterr().out)
    assert (data["completed"], data["failed"]) == (40, 0)
    return data


def test_a_real_frontend_is_measured_and_agrees_with_its_own_metrics(
    dynamo: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = measured(capsys, dynamo("--max-num-seqs", "64", "--num-gpu-blocks-override", "2048"))
    assert data["engine"] == "dynamo" and data["total_output_tokens"] == 40 * 32
    assert data["accounting"]["shorter_than_asked"] == 0  # type: ignore[index]
    assert -1 < data["server"]["client_minus_server_ttft_ms"] < 100  # type: ignore[index]


def test_few_sequences_show_as_a_growing_queue(dynamo: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    data = measured(capsys, dynamo("--max-num-seqs", "1", "--num-gpu-blocks-override", "2048"))
    assert data["mean_ttft_ms"] > data["mean_e2el_ms"] / 2  # type: ignore[operator]
    assert data["steady"]["under_way_last"] > data["steady"]["under_way_middle"]  # type: ignore[index]
