"""`diagnose boundary`: the matrix holds together, tells the truth of a tree, and is quick on a bare machine."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from diagnose.probes import machine

from diagnose import runner
from diagnose.boundary import examine, judged, matrix, powershell, run
from diagnose.boundary_pictures import PICTURES, draw
from diagnose.boundary_words import HERE, NOT, TOOLS, notes
from diagnose.errors import UsageError
from diagnose.fold import folded
from diagnose.host import Host
from diagnose.runner import Ran

from .trees import tree

HAN = re.compile(r"[\u4e00-\u9fff]")
WANTED = {"cuda", "nsight", "nccl-multi-gpu", "nccl-multi-node", "ucx", "rdma", "roce", "gpudirect-rdma", "nixl",
          "gpunetio", "vllm", "disaggregation"}  # fmt: skip


@lru_cache
def _ran(argv: tuple[str, ...]) -> Ran:
    return runner.run(argv, timeout=20)


@pytest.fixture(autouse=True)
def _each_program_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ucx_info` measures its clock for a third of a second, whatever tree is looked at."""
    monkeypatch.setattr(Host, "run", lambda self, argv, **how: _ran(tuple(argv)))


def test_matrix_holds_together() -> None:
    known = set(machine.checks(Host()))
    rows = matrix()
    assert {r["id"] for r in rows} == WANTED
    for row in rows:
        assert {*row["needs"], *row["tools"]} <= known, row["id"]
        assert set(row["experiment"]) == {"hypothesis", "command", "metric", "expect", "failure"}
        zh = row["experiment_zh"]
        assert {"hypothesis", "metric", "expect", "failure"} <= set(zh) <= set(row["experiment"])
        assert all(HAN.search(text) for text in zh.values()), row["id"]
        assert set(row["counterparts_zh"]) == set(row["counterparts"])
        assert set(row["counterparts"]) == {"rocm", "metal", "vulkan", "webgpu"}


def test_status_follows_the_checks() -> None:
    yes, no, dim = machine.Check(True, "yes"), machine.Check(False, "no", "driver", "get it"), machine.Check(None, "?")
    row = {"needs": ["a", "b"], "tools": ["a"]}
    assert judged(row, {"a": yes, "b": yes}).status == HERE
    got = judged(row, {"a": yes, "b": no})
    assert (got.status, got.missing[0]["kind"], got.missing[0]["get"]) == (TOOLS, "driver", "get it")
    assert judged(row, {"a": no, "b": yes}).status == NOT
    assert judged(row, {"a": yes, "b": dim}).missing[0]["kind"] == "not known"


TREES = """ib gpudirect yes; gdr_off gpudirect no; ib_odd gpudirect yes; ib infiniband yes; roce infiniband no;
roce roce yes; container verbs_nodes no; ib verbs_nodes yes; memlock memlock no; ib_odd memlock yes; 
misplaced near_nic no; ib near_nic yes; ib two_gpus yes; ib nixl unknown"""


@pytest.mark.parametrize("case", [c.strip() for c in TREES.split(";")])
def test_checks_of_a_tree(case: str, tmp_path: Path) -> None:
    name, check, wanted = case.split()
    has = {"yes": True, "no": False, "unknown": None}[wanted]
    data = examine(Host.at({}, tree(tmp_path, name)))
    assert data["checks"][check]["has"] is has
    assert data["host"]["taint"] == ["recorded", "simulated"]


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_picture_shows_what_is_there(name: str, tmp_path: Path) -> None:
    host = Host.at({}, tree(tmp_path, "gdr_off"))
    made = json.loads(draw(name, examine(host), "json"))
    assert made["hops"] and made["mermaid"].startswith("flowchart")
    states = {h["hop"]: h["state"] for h in made["hops"]}
    if name == "gpudirect":
        assert states["peer memory or dma-buf"] == "absent" and states["RDMA adapter"] == "present"
    assert "SIMULATED" in draw(name, examine(host), "text")


def test_ring_is_the_one_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "nccl.log"
    log.write_text("h:1:1 [0] NCCL INFO Channel 00/02 :    0   2   1   3\n")
    made = json.loads(draw("ring", examine(Host()), "json", str(log)))
    assert [h["hop"] for h in made["hops"]] == ["rank 0", "rank 2", "rank 1", "rank 3"]
    assert made["edges"][-1][:2] == [3, 0]


def test_unknown_picture_is_refused() -> None:
    with pytest.raises(UsageError):
        draw("cat", examine(Host()), "text")


def test_powershell_form() -> None:
    assert powershell("NCCL_DEBUG=INFO prog -x") == "$env:NCCL_DEBUG='INFO'; prog -x"


def test_command_is_quick() -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begin = spent()
    argv = [sys.executable, "-m", "diagnose.cli", "boundary", "-f", "json"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert spent() - begin < 8  # CPU seconds, of which it takes one or two: the clock also counts who else runs
    data = json.loads(ran.stdout)
    assert data["schema"] == "diagnose.boundary/v1" and len(data["parts"]) == len(WANTED)


@pytest.mark.parametrize("format_", ["text", "md"])
def test_forms_for_the_eye(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(format_, "", "", "en", "") == 0
    assert "GPUDirect RDMA" in capsys.readouterr().out


_MORE = ["ib", "container", "memlock", "misplaced", "gdr_off", ""]


@pytest.mark.parametrize("name", ["roce", "here", *(pytest.param(n, marks=pytest.mark.thorough) for n in _MORE)])
def test_the_chinese_matrix_is_chinese(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside commands no English clause is left, whatever was found on the machine."""
    clause = re.compile(r"(?:\b[a-z]{2,}\b[ ,]+){4,}[a-z]{2,}|\b(?:not|missing|none|needs?)\b")
    (tmp_path / "sys").mkdir()
    root = "" if name == "here" else str(tree(tmp_path, name) if name else tmp_path)
    for form in ("text", "md"):
        assert run(form, "", root, "zh", "") == 0
        said = [x for x in capsys.readouterr().out.splitlines() if not re.match(r" *\$|[a-z_]+ |NCCL|UCX_", x)]
        assert [x for x in said if clause.search(x)] == [] and any("预期" in x for x in said)
    for picture in PICTURES:
        assert run("text", picture, root, "zh", "") == 0
        rows = [x for x in capsys.readouterr().out.splitlines() if re.match(r"  \S.*  (?:有|无|未知)", x)]
        assert [x for x in rows if clause.search(x)] == []


def test_lines_break_at_the_width_and_commands_stay_whole() -> None:
    long = "  missing (driver): " + "no such thing here " * 6
    assert all(len(x) <= 60 for x in folded(long, 60)) and len(list(folded(long, 60))) > 2
    assert list(folded("    $ " + "word " * 40, 60)) == ["    $ " + "word " * 40]
    assert list(folded(long, 0)) == [long]
    assert all(2 * len(x.strip()) <= 60 for x in folded("  " + "拷贝" * 60, 60))


def test_each_kind_of_machine_has_its_note_in_both_languages() -> None:
    kinds = ["WSL2", "Windows", "container", "virtual machine", "macOS", "Jetson", "recorded tree"]
    assert len(notes(kinds)) == len(notes(kinds, zh=True)) == len(kinds)
    assert all(HAN.search(text) for text in notes(kinds, zh=True))
