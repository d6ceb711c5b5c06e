"""Names in archives, no /proc, no room on the disk, Ctrl-C where a live run asks and probes, inputs beyond memory."""

# ruff: noqa: E501
from __future__ import annotations

import gzip
import os
import re
import resource
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import psutil
import pytest

from diagnose import graph, inputs, triage
from diagnose.cassette import Cassette, played
from diagnose.collect import Capture, collect, collectors
from diagnose.host import Host
from diagnose.inputs import open_inputs
from diagnose.live import Live, allowed

LINE = b"h1:4:9 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1\n"
ODD = ["A.log", "a.log", "/abs.log", "C:\\abs.log", "..\\up.log", "x\x1b[2Jy.log", "two\nlines.log", "\u202egol.x", "dir/../../up.log"]  # fmt: skip


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_in_archives(kind: str, tmp_path: Path) -> None:
    place = tmp_path / f"x.{kind}"
    if kind == "tar":
        with tarfile.open(place, "w") as tar:
            for n, name in enumerate(ODD):
                info = tarfile.TarInfo(name)
                body = LINE + b"%d\n" % n
                info.size = len(body)
                tar.addfile(info, BytesIO(body))
    else:
        with zipfile.ZipFile(place, "w") as box:
            for n, name in enumerate(ODD):
                box.writestr(zipfile.ZipInfo(name), LINE + b"%d\n" % n)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    docs, refused = open_inputs([place])
    names = [d.name for d in docs]
    assert len(set(names)) == len(names) == 5 and {f"x.{kind}!A.log", f"x.{kind}!a.log"} <= set(names)
    assert len(refused) == 4 and all("points out" in (r.reason or "") for r in refused)
    assert all(name.isprintable() for name in (*names, *(r.name for r in refused)))
    assert {d.data[-2:-1] for d in docs} == {b"0", b"1", b"5", b"6", b"7"}
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_no_room_for_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "IN_MEMORY", 1000)
    place, good = tmp_path / "x.gz", tmp_path / "good.log"
    place.write_bytes(gzip.compress(os.urandom(200_000)))
    good.write_bytes(LINE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (50_000, limits[1])
    )  # writing on gives EFBIG, as a full disk gives ENOSPC
    try:
        docs, refused = open_inputs([place, good])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [d.name for d in docs] == ["good.log"]
    assert [r.name for r in refused] == ["x.gz"] and "File too large" in (refused[0].reason or "")


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is to be seen, and none of the files: probes that read say so, one line each."""

    def hidden(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc")

    for name in ("process_iter", "pids", "virtual_memory", "cpu_times"):
        monkeypatch.setattr(psutil, name, hidden)
    bare = Host({}, tmp_path)  # an empty tree: neither /proc nor /sys
    for item in collectors().values():
        if item.files:
            for got in collect(item, bare):
                assert isinstance(got, Capture) or got.reason, item.probe


# --- Ctrl-C


class Box(Host):
    """A machine with every tool; its probes are played back."""

    def find(self, tool: str) -> str | None:
        return f"/usr/bin/{tool}"


def stop(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("node", ["_consent", "_probe", "StepNode"])
def test_ctrl_c_where_a_live_run_asks_probes_and_walks(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    made = Cassette.create(tmp_path / "m.cassette", "all-reduce is slow")
    made.add([Capture("env.dump", b"NCCL_P2P_DISABLE=1\n"), Capture("nccl.debug_log", LINE, seconds=15),
              Capture("nvidia_smi.topo", b"\tGPU0\tGPU1\nGPU0\t X \tNV18\nGPU1\tNV18\t X \n")])  # fmt: skip
    if node == "StepNode":
        monkeypatch.setattr(graph.StepNode, "__call__", stop)
    else:
        monkeypatch.setattr(graph, node, stop)
    live = Live(Box(), Cassette.create(tmp_path / "out.cassette", "x"), allowed("load"), 600)
    live.known = played(tmp_path / "m.cassette")
    report, complete = triage.investigate("all-reduce between my two GPUs is slow", [], None, ("en",), live=live)
    assert not complete and any(e.signal == "env.var" for e in report.evidence)


def test_graph_and_plain_walk_agree_on_a_live_run(tmp_path: Path) -> None:
    """Probes that the planner chooses run in both; only with somebody to ask it is LangGraph that walks."""
    made = Cassette.create(tmp_path / "m.cassette", "all-reduce is slow")
    made.add([Capture("env.dump", b"NCCL_P2P_DISABLE=1\n"), Capture("nccl.debug_log", LINE, seconds=15)])
    reports = []
    for name, read in (("walk", None), ("graph", str.upper)):
        live = Live(Box(), Cassette.create(tmp_path / name / "out.cassette", "x"), allowed("load"), 600)
        live.known = played(tmp_path / "m.cassette")
        report, complete = triage.investigate("all-reduce is slow", [], None, ("en",), read=read, live=live)
        assert complete and "nccl.debug_log" in live.ran
        assert live.cassette.path.with_suffix(".sqlite").exists() == (name == "graph")
        reports.append(report.model_dump(mode="json", exclude={"stats"}))
    assert reports[0] == reports[1]


def test_a_run_in_which_nobody_is_asked_imports_no_langgraph() -> None:
    for module in (graph, triage):
        assert not re.search(r"^(?:from|import) lang", Path(str(module.__file__)).read_text("utf-8"), re.MULTILINE)


# --- far more than memory


@pytest.mark.skipif("DIAGNOSE_BIG" not in os.environ, reason="minutes of CPU, 2 GB of disk: set DIAGNOSE_BIG=1")
@pytest.mark.parametrize("way", ["path", "stdin"])
def test_two_gigabytes_in_half_a_gigabyte(way: str, tmp_path: Path) -> None:
    """Opt-in: `DIAGNOSE_BIG=1 pytest -n 0 -k two_gigabytes`; 4 GB of disk for standard input."""
    place = tmp_path / "big.log"
    rows = (b"n%d:%d:9 [%d] NCCL INFO Channel 00/0 : %d[0] -> 1[1] via P2P/CUMEM/read/%d\n" % (i % 64, i, i % 8, i, i) for i in range(200_000))  # fmt: skip
    block = b"".join(rows)
    with place.open("wb") as out:
        out.write(LINE)
        while out.tell() < 2 << 30:
            out.write(block)
    child = (
        "import resource, sys; from diagnose.cli import _run; code = _run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    given = str(place) if way == "path" else "-"
    with place.open("rb") as stream:
        got = subprocess.run([sys.executable, "-c", child, "all-reduce is slow", "-e", given, "--offline", "-f", "json"],
                             stdin=stream, capture_output=True, timeout=3000, cwd=tmp_path)  # fmt: skip
    assert got.returncode in (0, 1, 2) and b"NCCL_P2P_DISABLE" in got.stdout, got.stderr[-400:]
    assert int(got.stderr.split()[-1]) < 512 << 10
