"""`diagnose bench` against a stub server here: what it counts, what it says, how it ends. No time is asserted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diagnose.bench.command import Options, run
from diagnose.bench.embedded import Embedded
from diagnose.bench.records import Load
from diagnose.errors import ProbeError, UsageError

STUB = Path(__file__).parent / "stub_openai.py"
Start = Callable[..., str]
SMALL = {
    "num": 24,
    "rate": "200",
    "input": 40,
    "output": 4,
    "warmup": 2,
    "allow": "load",
    "via": "embedded",
    "format": "json",
}


@pytest.fixture
def stub() -> Iterator[Start]:
    """Starts stubs; gives their address."""
    children: list[subprocess.Popen[str]] = []

    def start(*args: str) -> str:
        child = subprocess.Popen([sys.executable, str(STUB), "--ttft", "0.01", "--gap", "0.002", *args],
                                 stdout=subprocess.PIPE, text=True)  # fmt: skip
        children.append(child)
        assert child.stdout is not None
        return f"http://127.0.0.1:{child.stdout.readline().strip()}"

    yield start
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def measured(capsys: pytest.CaptureFixture[str], url: str, **options: object) -> tuple[int, dict[str, object], str]:
    status = run(Options(url, **(SMALL | options)))  # type: ignore[arg-type]
    seen = capsys.readouterr()
    return status, json.loads(seen.out), seen.err


def test_every_request_is_answered_and_counted(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    status, data, _ = measured(capsys, stub(), slo="e2el=60s")
    assert status in (0, 2)  # 2: this machine was too busy to keep up, which the result says
    assert (status == 0) == data["self_check"]["valid"]  # type: ignore[index]
    assert (data["completed"], data["failed"], data["total_output_tokens"]) == (24, 0, 24 * 4)
    assert data["slo"]["met"] == 24 and data["model_id"] == "stub"  # type: ignore[index]
    assert data["accounting"]["tokens_from"] == "usage"  # type: ignore[index]
    assert data["ttfts"] and min(data["ttfts"]) >= 0.01  # type: ignore[call-overload]


def test_prompts_have_the_asked_length_where_the_server_counts(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, _ = measured(capsys, stub("--mode", "tokenize"), input=77)
    assert data["accounting"]["prompt_tokens"] == {"min": 77, "max": 77}  # type: ignore[index]
    assert data["prompt_sizing"]["method"].startswith("exact")  # type: ignore[index]
    assert data["server"]["client_minus_server_ttft_ms"] > 0  # type: ignore[index]


def test_without_tokenize_lengths_are_fitted_on_usage(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, _ = measured(capsys, stub(), input=77)  # two tokens a word and three more
    assert data["accounting"]["prompt_tokens"] == {"min": 77, "max": 77}  # type: ignore[index]
    assert data["prompt_sizing"]["method"].startswith("fitted")  # type: ignore[index]


def test_prompts_follow_seed_and_salt(stub: Start) -> None:
    import asyncio

    from diagnose.bench.prompts import prompts

    own = Embedded(stub())
    try:

        def made(**change: object) -> list[str]:
            load = Load(input=40, prefix=20, **({"seed": 1, "salt": "a"} | change))  # type: ignore[arg-type]
            return asyncio.run(prompts(own._client, own.target, own._sizer, load, 5))[0]

        assert made() == made() and made() != made(seed=2) and made() != made(salt="b")
        heads = {" ".join(text.split()[:8]) for text in made()}
        assert len(heads) == 1 and len(set(made())) == 5  # a shared beginning, then their own
    finally:
        own.close()


def test_chunks_of_several_tokens_are_told_apart(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, _ = measured(capsys, stub("--per-chunk", "2"), output=8)
    assert data["accounting"]["tokens_per_chunk"] == 2  # type: ignore[index]
    assert data["samples"] == {"ttft": 24, "tpot": 24, "itl": 24 * 3}


def test_a_server_without_completions_is_asked_over_chat(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, _ = measured(capsys, stub("--mode", "chat"))
    assert data["endpoint_type"] == "openai-chat" and data["completed"] == 24
    assert data["accounting"]["messages_before_text"]["requests"] > 0  # type: ignore[index]


def test_a_strict_server_is_asked_for_less_and_that_is_said(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, err = measured(capsys, stub("--mode", "strict"))
    assert data["completed"] == 24 and data["accounting"]["tokens_from"] == "chunks"  # type: ignore[index]
    assert "refuses ignore_eos" in err and "no usage" in err


def test_failures_are_counted_by_kind(stub: Start, capsys: pytest.CaptureFixture[str]) -> None:
    _, data, _ = measured(capsys, stub("--mode", "fails"))
    assert data["completed"] == 16 and data["failed"] == 8
    assert data["accounting"]["failures"] == {"http 500": 8}  # type: ignore[index]


def test_a_server_that_dies_midway_leaves_a_partial_result(
    stub: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, data, err = measured(capsys, stub("--mode", "dies", "--after", "20"), num=60, out=tmp_path)
    assert status == 3 and "the server is gone: nothing listens" in err
    done, failed = int(str(data["completed"])), int(str(data["failed"]))
    assert 0 < done < 20 and done + failed + data["accounting"]["not_sent"] == 60  # type: ignore[index]
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["completed"] == done


@pytest.mark.parametrize(
    ("mode", "said"),
    [("html", "HTML, not an OpenAI-compatible API"), ("key", "HTTP 401: the server asks for a key")],
)
def test_what_is_no_server_to_measure_says_so_in_a_line(stub: Start, mode: str, said: str) -> None:
    with pytest.raises(ProbeError) as err:
        run(Options(stub("--mode", mode), allow="load"))
    assert said in err.value.message and "\n" not in err.value.message


def test_a_key_is_sent_and_never_shown(
    stub: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_KEY", "sesame")
    status = run(Options(stub("--mode", "key"), api_key_env="BENCH_KEY", **SMALL))  # type: ignore[arg-type]
    seen = capsys.readouterr()
    assert status in (0, 2) and json.loads(seen.out)["completed"] == 24
    assert "sesame" not in seen.out + seen.err


def test_a_dead_port_and_a_wrong_model(stub: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ProbeError, match="nothing listens"):
            run(Options(url, allow="load"))
    with pytest.raises(UsageError, match="no model 'other'"):
        run(Options(stub(), model="other", allow="load"))


@pytest.mark.parametrize(
    ("scheme", "reply", "hint"),
    [("http", b"\x15\x03\x01\x00\x02\x02\x46", "https://"), ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "http://")],
)
def test_the_wrong_scheme_is_named(scheme: str, reply: bytes, hint: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            conn, _ = server.accept()
            with conn:
                conn.recv(4096)
                conn.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ProbeError) as err:
            run(Options(f"{scheme}://127.0.0.1:{server.getsockname()[1]}", allow="load"))
        thread.join()
    assert hint in err.value.hint


def test_a_sweep_writes_a_file_a_run_and_a_table(
    stub: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = SMALL | {"sweep": "rate=100,200", "format": "md", "out": tmp_path, "plots": tmp_path}
    run(Options(stub(), **options))  # type: ignore[arg-type]
    seen = capsys.readouterr()
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["in40-out4-rate100.json", "in40-out4-rate200.json"]
    assert "| in40-out4-rate100" in seen.out and "- tpot: (last token minus first token)" in seen.out
    assert list(tmp_path.glob("*.svg")) or "no plots" in seen.err


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_what_was_measured(stub: Start, tmp_path: Path) -> None:
    code = "import sys; from diagnose.cli import main; main(sys.argv[1:])"
    argv = ["bench", "--endpoint", stub(), "--allow", "load", "--via", "embedded", "--rate", "50", "--num", "3000",
            "--input", "20", "--output", "4", "-f", "json", "-o", str(tmp_path)]  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    url = argv[2]
    for _ in range(300):  # until the load runs
        if _answered(url) > 30:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and "interrupted" in err and "Traceback" not in err
    data = json.loads(out)
    assert data["completed"] > 0 and data["accounting"]["not_sent"] > 0
    assert json.loads((tmp_path / "in20-out4-rate50.json").read_text())["completed"] == data["completed"]


def _answered(url: str) -> int:
    from urllib.request import urlopen

    with urlopen(f"{url}/stub/delays", timeout=5) as response:
        return len(json.loads(response.read()))


def test_vllm_is_used_where_it_is_installed(
    stub: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program on the path is a stub of `vllm bench serve`: it only writes down what it was called with."""
    tool = tmp_path / "vllm"
    tool.write_text(f"""#!{sys.executable}
import json, sys
a = sys.argv
out = a[a.index("--result-dir") + 1] + "/" + a[a.index("--result-filename") + 1]
rate = float(a[a.index("--request-rate") + 1])
json.dump({{"backend": "openai", "completed": 5, "failed": 0, "num_prompts": 5, "duration": 2.0, "request_rate": rate,
           "request_goodput": 2.5 if rate < 20 else 0.1, "p50_ttft_ms": 9.0, "generated_texts": ["x"]}}, open(out, "w"))
""")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = SMALL | {"via": "auto", "tokenizer": str(tmp_path), "num": 5}
    assert run(Options(stub(), **options)) == 0  # type: ignore[arg-type]
    data = json.loads(capsys.readouterr().out)
    assert data["backend"] == "openai" and data["p50_ttft_ms"] == 9.0 and "generated_texts" not in data
    search = options | {"find_saturation": True, "slo": "ttft=1s", "rate": "4"}
    assert run(Options(stub(), **search)) == 0  # type: ignore[arg-type]
    found = json.loads(capsys.readouterr().out)["saturation"]
    assert found["taken"] < 20 <= found["refused"]


def test_a_tool_that_fails_gives_its_last_error(stub: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vllm"
    tool.write_text("#!/bin/sh\necho 'ValueError: no tokenizer here'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ProbeError, match="status 1: ValueError: no tokenizer here"):
        run(Options(stub(), **(SMALL | {"via": "vllm", "tokenizer": str(tmp_path)})))  # type: ignore[arg-type]
