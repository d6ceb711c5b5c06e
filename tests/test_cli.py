"""Words on the command line, exit statuses, and clean output without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from diagnose import cli
from diagnose.cli import arrange
from diagnose.errors import UsageError
from diagnose.units import percent

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "evals" / "samples" / "nccl-p2p-disabled"


def run(*args: str, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "diagnose.cli", *args],
        input=stdin, capture_output=True, cwd=cwd or ROOT.parent, env={**os.environ, **env}, timeout=60,
    )  # fmt: skip


@dataclass(frozen=True)
class Said:
    """How a call ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """The command line in this process, without input."""
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        monkeypatch.chdir(ROOT.parent)

        def made(*args: str) -> Said:
            code = cli._run(list(args))
            return Said(code, *capsys.readouterr())

        yield made


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        (["TTFT is high"], ["triage", "TTFT is high"]),
        (["all-reduce", "is", "slow"], ["triage", "all-reduce", "is", "slow"]),
        (["causes"], ["causes"]),
        (["--evidence", "causes", "slow kernel"], ["triage", "--evidence", "causes", "slow kernel"]),
        (["--", "causes"], ["triage", "--", "causes"]),
        (["playbook", "list"], ["playbook", "list"]),
        (["--format", "json", "verify", "x"], ["--format", "json", "verify", "x"]),
        (["--version"], ["--version"]),
        (["--evidence=x", "hang"], ["triage", "--evidence=x", "hang"]),
    ],
)
def test_arrange(argv: list[str], want: list[str]) -> None:
    assert arrange(argv) == want


@pytest.mark.parametrize("word", ["cause", "playbok", "explian", "docter"])
def test_near_a_command_is_an_error_with_a_suggestion(word: str) -> None:
    with pytest.raises(UsageError) as err:
        arrange([word])
    assert "did you mean" in err.value.hint


def test_the_main_job_as_json() -> None:
    got = run("all-reduce between my two GPUs is slow", "-e", str(SAMPLE), "--offline", "-f", "json")
    assert got.returncode == 0, got.stderr.decode()
    report = json.loads(got.stdout)
    assert report["schema"] == "diagnose.report/v1" and report["verdict"] == "cause"
    assert report["findings"][0]["cause"] == "nccl.env_override"
    assert "nccl.p2p_disabled" in [f["cause"] for f in report["findings"]]
    assert got.stderr == b""


def test_a_pipe_is_evidence_and_gets_no_colour() -> None:
    got = run("all-reduce is slow", stdin=(SAMPLE / "nccl.log").read_bytes())
    assert got.returncode == 0 and b"\x1b" not in got.stdout and b"NCCL_P2P_DISABLE" in got.stdout
    assert [line for line in got.stdout.split(b"\n") if line != line.rstrip()] == []


def test_a_share_is_spelled_in_one_way() -> None:
    assert [percent(0.995, 1), percent(0.01, 2), percent(1), percent(0.3, 1), percent(0.2)] == [
        "99.5 %", "1 %", "100 %", "30 %", "20 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "langs"),
    [
        (["all-reduce 很慢"], ["en", "zh"]),
        (["all-reduce 很慢", "--lang", "en"], ["en"]),
        (["all-reduce is slow"], ["en"]),
    ],
)
def test_the_language_of_the_question(call: Callable[..., Said], args: list[str], langs: list[str]) -> None:
    got = call(*args, "-e", str(SAMPLE), "-f", "json")
    assert list(json.loads(got.out)["answer"]) == langs
    shown = call(*args, "-e", str(SAMPLE)).out
    assert ("置信度" in shown) == ("zh" in langs)


def test_fail_on(call: Callable[..., Said]) -> None:
    assert call("all-reduce is slow", "-e", str(SAMPLE), "--fail-on", "low", "-f", "json").code == 1


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["slow", "-e", "no/such/file"], 3, ""),
        (["slow", "--format", "yaml"], 3, "--format takes"),
        (["slow", "--no-such-flag"], 3, "diagnose:"),
        (["explain", "nccl.p2p_disable"], 3, "did you mean nccl.p2p_disabled"),
        (["verify", "no-such.json"], 3, "no-such.json"),
        (["the GPU makes a noise like the sea", "--offline"], 2, ""),
    ],
)
def test_exit_status_and_one_clear_line(call: Callable[..., Said], args: list[str], code: int, says: str) -> None:
    got = call(*args)
    assert got.code == code, got.err
    assert says in got.err and "Traceback" not in got.err


def test_local_settings_may_not_choose_more_than_presentation(
    call: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diagnose.toml").write_text('endpoint = "http://x"\n')
    monkeypatch.chdir(tmp_path)
    got = call("slow", "-e", str(SAMPLE))
    assert got.code == 3 and "only lang and format" in got.err


def test_verify_accepts_a_report_and_rejects_one_changed_digit(call: Callable[..., Said], tmp_path: Path) -> None:
    made = call("all-reduce is slow", "-e", str(SAMPLE), "-f", "json").out
    good = tmp_path / "good.json"
    good.write_text(made)
    assert call("verify", str(good), "-e", str(SAMPLE)).code == 0
    report = json.loads(made)
    report["answer"]["en"]["short"] = report["answer"]["en"]["short"].replace("1", "2", 1)
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(report))
    assert call("verify", str(bad), "-e", str(SAMPLE)).code == 1


def test_help_is_light() -> None:
    heavy = ("pydantic", "langgraph", "rich", "yaml", "openai")
    code = f"import sys, diagnose.cli; print([m for m in {heavy} if m in sys.modules])"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert got.stdout.strip() == "[]"


def test_ctrl_c_is_one_line_and_its_own_status() -> None:
    started = subprocess.Popen(
        [sys.executable, "-c", "import time, diagnose.triage as t, diagnose.cli as c\n"
         "t.run = lambda *a, **k: (print('started', flush=True), time.sleep(30))\nc.main(['slow'])"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT.parent,
    )  # fmt: skip
    assert started.stdout is not None and started.stdout.readline() == b"started\n"
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=30)
    assert started.returncode == 130 and err == b"diagnose: interrupted\n"
