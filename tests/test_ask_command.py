"""`diagnose ask` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from diagnose.cli import _run
from diagnose.linebreak import wrapped

QUESTION = "Why is decode memory-bound?"


def _ask(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = _run(["ask", *args])
    got = capsys.readouterr()
    return code, got.out + got.err


def test_a_question_is_answered_with_its_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, QUESTION, "--gpu", "H100")
    assert code == 0
    assert "4.48 ms" in out and "memory 3,350" in out and "H100 80GB HBM3" in out
    assert "ncu " in out and "1. At which batch" in out and "3. Tensor parallelism" in out


def test_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, QUESTION, "--lang", "both")
    assert code == 0 and QUESTION in out and "为什么 decode" in out


def test_json_is_a_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, QUESTION, "--gpu", "A100", "--format", "json", "--lang", "both")
    data: dict[str, Any] = json.loads(out)
    assert code == 0 and data["schema"] == "diagnose.ask/v1" and data["matched"] is True
    assert data["id"] == "decode-memory-bound" and data["gpu"] == "A100-SXM4-80GB" and data["notes"]
    step = next(s for s in data["napkin"] if s["name"] == "step")
    assert (
        step["value"] == pytest.approx(15009837056 / 2039e6, rel=1e-3) and step["shown"] in data["answer"]["zh"]["long"]
    )
    assert len(data["answer"]["en"]["follow_ups"]) == 3


def test_nothing_matches_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, "best pizza in rome")
    assert code == 2 and "Nothing in the bank" in out and len(out.splitlines()) == 5
    code, out = _ask(capsys, "best pizza in rome", "-f", "json")
    data = json.loads(out)
    assert code == 2 and data["matched"] is False and len(data["nearest"]) == 3


def test_list_by_track_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, "--list", "--track", "serving", "--level", "junior")
    assert code == 0 and "kv-cache-size" in out and "moe-decode" not in out
    assert all("serving, junior" in line for line in out.splitlines())


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, "kv-cache-size", "-f", "md")
    assert code == 0 and out.startswith("## ") and "```sh" in out


@pytest.mark.parametrize(
    "args",
    [
        (), ("x", "--gpu", "H1000"), ("x", "--lang", "fr"), ("x", "--level", "guru"), ("x", "--track", "net"),
        ("x", "-f", "xml"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    code, out = _ask(capsys, *args)
    assert code == 3 and "Traceback" not in out


def test_a_gpu_that_lacks_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = _ask(capsys, QUESTION, "--gpu", "V100")
    assert code == 0 and "figures are for H100 80GB HBM3" in out


def test_lines_fit_the_window() -> None:
    row = "量化权重以后 decode 的下限从 4.48 ms 降到 1.4 ms,收益来自字节数。" * 4
    assert all(sum(2 if c >= "\u2e80" else 1 for c in line) <= 62 for line in wrapped(row, 60, "  "))
    assert "".join(wrapped(row, 60, "")).replace(" ", "") == row.replace(" ", "")


def test_no_line_begins_with_closing_punctuation() -> None:
    text = "这里没有问题：busbw 就是该有的水平（置信度 0.94），于是“RDMA 在用（中转）”就排除了！看 NCCL_P2P_DISABLE=1。"
    for width in range(12, 60):
        rows = wrapped(text, width, "")
        assert "".join(r.replace(" ", "") for r in rows) == text.replace(" ", "")
        assert not any(r[0] in "，。；：！？）”" or r[-1] in "（“" for r in rows), (width, rows)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from diagnose.cli import _run; _run(['ask', 'kv-cache-size', '-f', 'json']); "
        "heavy = ('langgraph', 'openai', 'networkx', 'rich.table', 'sqlite3'); "
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
