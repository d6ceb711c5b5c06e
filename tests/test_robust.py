"""What the surroundings can take away: streams, disk, locale, modules, the user's patience. One clear line each."""

from __future__ import annotations

import getpass
import io
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from diagnose.evals.properties import faults

from diagnose import cli, graph, masking, triage
from diagnose.cassette import Cassette
from diagnose.document import Document
from diagnose.host import Host
from diagnose.live import Live
from diagnose.plugin import readers

LOG = "all_reduce_perf: busbw 3.1 GB/s\nnode0:1:1 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.\n"
SLOW = "all-reduce between two GPUs is slow"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    place = tmp_path / "x.log"
    place.write_text(LOG)
    return place


@pytest.fixture
def real_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


@pytest.mark.usefixtures("real_streams")
def test_closed_streams_lead_nowhere() -> None:
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
    cli._streams()
    print("x", file=sys.stdout)
    print("x", file=sys.stderr)
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.usefixtures("real_streams")
@pytest.mark.parametrize(("asked", "shown"), [("", "温度".encode()), ("ascii", b"\\u6e29\\u5ea6")])
def test_no_locale(asked: str, shown: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", asked)
    raw = io.BytesIO()
    sys.stdout = sys.stderr = io.TextIOWrapper(raw, "ascii")
    cli._streams()
    print("温度\udcff", end="", flush=True)
    assert raw.getvalue().startswith(shown)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(cli, "arrange", lambda argv: argv)
    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    assert cli._run(["causes"]) == cli.EXIT_ERROR
    assert capsys.readouterr().err == "diagnose: report.json: No space left on device\n"


def test_a_link_left_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("kept")
    folder = tmp_path / "x.cassette"
    folder.mkdir()
    (folder / "cassette.json.part").symlink_to(tmp_path / "theirs")
    Cassette.create(folder, "")
    assert (tmp_path / "theirs").read_text() == "kept" and (folder / "cassette.json").is_file()


def live(tmp_path: Path) -> Live:
    return Live(Host(), Cassette.create(tmp_path / "run.cassette", ""), known={})


@pytest.mark.parametrize("when", ["at once", "later"])
def test_state_that_cannot_be_kept_costs_no_verdict(
    when: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(session: graph.Session) -> object:
        if when == "at once":
            raise sqlite3.OperationalError("disk I/O error")
        saver = kept(session)
        held = sqlite3.connect(tmp_path / "run.sqlite")  # another run with the same file
        held.execute("BEGIN EXCLUSIVE")
        saver.conn.execute("PRAGMA busy_timeout = 0")
        held_open.append(held)
        return saver

    held_open: list[sqlite3.Connection] = []
    kept = graph.checkpointer
    monkeypatch.setattr(graph, "checkpointer", refused)
    report, complete = triage.investigate(SLOW, [str(log)], None, ("en",), read=str.upper, live=live(tmp_path))
    for connection in held_open:
        connection.close()
    assert complete and report.verdict == "cause"
    assert "the state of this run is not kept" in capsys.readouterr().err


NODES = ["_gather", "_route", "_assess", "_explain", "_verify", "_look"]


@pytest.mark.parametrize("read", [None, str.upper])
@pytest.mark.parametrize("node", NODES)
def test_ctrl_c_at_every_node(
    node: str, read: Callable[[str], str] | None, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(graph, node, stop)
    report, complete = triage.investigate(SLOW, [str(log)], None, ("en",), read=read, live=live(tmp_path))
    assert not complete and report.verdict == "cause"


def test_without_a_user_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise ModuleNotFoundError("No module named 'pwd'")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert masking._own_user() == ""


# --- what the fuzzer found

FOUND = {
    "nvidia_smi_nvlink": b"GPU 0: NVIDIA H100 (UUID: GPU-1)\n\t Link 0: 26.5.5662 GB/s\n\t Link 1: 26.562 GB/s\n",
    "nvidia_smi_mon": b"# gpu     pid  type   sm  mem  command\n    0   3390     C    -    1  VLLM::EngineCor\n",
}


@pytest.mark.parametrize("name", FOUND)
def test_what_the_fuzzer_found(name: str) -> None:
    reader = next(r for r in readers()[0] if r.name == name)
    assert faults(reader, FOUND[name]) == [] and list(reader.parse(Document.of("t", FOUND[name])))


@pytest.mark.parametrize("prefix", ["node12: (EngineCore_0 pid=71) ", "(EngineCore_0 pid=71) node12: "])
def test_a_pid_of_a_launcher_is_no_figure(prefix: str) -> None:
    text = "\n".join(prefix + x for x in ("busbw GB/s   32 MB   64 MB", "ring         12.5    33.1", "tree  9.5  30.5"))
    generic = next(r for r in readers()[0] if r.name == "generic")
    assert not [f for f in generic.parse(Document.of("t", text.encode())) if f.value == 71]
