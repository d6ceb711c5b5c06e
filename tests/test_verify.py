"""A report must survive verification untouched, and no single changed digit may survive it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnose import gather
from diagnose.arithmetic import check_numerals, evaluate
from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.verify import verify
from diagnose.verify_command import rerender

SHARED = Path(__file__).parents[1].parent / "shared"
SECRET = "not-a-real-secret-0123456789abcdef"
TESTS = b"""# nThread 1 nGpus 2 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5
#
# Using devices
#  Rank  0 Group  0 Pid   4711 on      node0 device  0 [0x1b] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   4711 on      node0 device  1 [0x43] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
    67108864      16777216     float     sum      -1  19737.9    3.40    3.40      0  19700.1    3.41    3.41      0
   134217728      33554432     float     sum      -1  39245.8    3.42    3.42      0  39300.2    3.42    3.42      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 3.4125
#
"""
LOG = b"""node0:4711:4711 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.
node0:4711:4720 [0] NCCL INFO NCCL version 2.21.5+cuda12.4
node0:4711:4720 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
"""


def documents() -> list[Document]:
    return [Document.of("tests.txt", TESTS), Document.of("nccl.log", LOG)]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return make_report("all_reduce is slow", documents()).model_dump(mode="json", by_alias=True)


def test_untouched_report_verifies(report: dict[str, Any]) -> None:
    assert report["evidence"], "the readers must find something in this example"
    assert verify(report, documents(), rerender) == []


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths to every leaf of JSON data."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for n, value in enumerate(data):
            yield from places(value, (*path, n))
    else:
        yield path


def at(data: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


def other(value: Any) -> Any:
    """The same value with its last digit changed, or None if it has none."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value)
    hits = list(re.finditer(r"\d", text))
    if not hits:
        return None
    n = hits[-1].start()
    changed = text[:n] + str((int(text[n]) + 1) % 10) + text[n + 1 :]
    return type(value)(changed) if not isinstance(value, int) else int(changed)


CHECKED = {"quote", "value", "statement", "bytes", "line", "sha256", "inputs", "count", "measured", "limit", "ratio"}


def test_no_changed_digit_survives(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read = gather.gather(documents())  # of the same captures each time
    monkeypatch.setattr(gather, "gather", lambda docs: read)
    survived, tried = [], 0
    for path in places({k: report[k] for k in ("evidence", "limits", "answer", "references")}):
        named = path[0] in ("limits", "answer", "references") or any(p in CHECKED for p in path)
        changed = other(at(report, path))
        if changed is None or not named or path[-1] in ("what", "limit_source", "reason"):
            continue
        broken = copy.deepcopy(report)
        at(broken, path[:-1])[path[-1]] = changed
        tried += 1
        if not verify(broken, documents(), rerender):
            survived.append((path, at(report, path), changed))
    assert tried > 50
    assert survived == []


def test_changed_capture_is_seen(report: dict[str, Any]) -> None:
    changed = [Document.of("tests.txt", TESTS.replace(b"3.40    3.40", b"9.40    9.40")), Document.of("nccl.log", LOG)]
    assert any("sha256" in str(m) for m in verify(report, changed))


def test_missing_capture_is_said(report: dict[str, Any]) -> None:
    assert any("not at hand" in str(m) for m in verify(report, []))


def test_reference_to_unknown_evidence(report: dict[str, Any]) -> None:
    broken = copy.deepcopy(report)
    broken["checked"].append({"what": "x", "evidence": ["E999"]})
    assert any("E999" in str(m) for m in verify(broken, documents()))


def test_invented_evidence_is_seen(report: dict[str, Any]) -> None:
    broken = copy.deepcopy(report)
    fake = copy.deepcopy(next(e for e in report["evidence"] if e["kind"] == "observed"))
    fake["id"], fake["signal"] = "E998", "nccl.transport"
    fake["value"] = "NET/Socket"
    broken["evidence"].append(fake)
    assert any(m.where == "E998" for m in verify(broken, documents()))


def test_not_a_report() -> None:
    assert verify({"schema": "diagnose.report/v1"})


def test_masked_report_verifies_and_holds_no_secret() -> None:
    doc = Document.of("env.txt", b"NCCL_P2P_DISABLE=1\nEXAMPLE_API_TOKEN=" + SECRET.encode() + b"\nNCCL_DEBUG=INFO\n")
    made = make_report("slow all_reduce", [doc, *documents()])
    assert SECRET not in made.model_dump_json()
    data = made.model_dump(mode="json", by_alias=True)
    assert verify(data, [doc, *documents()], rerender) == []


@pytest.mark.parametrize(
    ("formula", "values", "want"),
    [
        ("a / b", [6, 3], 2),
        ("(a - b) * 2", [5, 1], 8),
        ("max(a, b, c) - min(a, b)", [1, 2, 7], 6),
        ("sum(a, b)", [1, 2], 3),
        ("-a + b/4", [1, 8], 1),
    ],
)
def test_formulas(formula: str, values: list[float], want: float) -> None:
    assert evaluate(formula, values) == want


REFUSED = ["a ** b", "__import__('os')", "a if b else a", "c", "a / (b - b)", "a.real", "min()", "a and b", "'x'", ""]


@pytest.mark.parametrize("formula", REFUSED)
def test_what_is_no_arithmetic_is_refused(formula: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        evaluate(formula, [1.0, 2.0])


VALUES: list[tuple[float, str | None]] = [
    (3.4, "GB/s"), (370.8, "GB/s"), (0.009, "fraction"), (18.0, "count"), (4.123, "s"), (1234.5, "tokens/s"),
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "The bus moves 3.4 GB/s of a possible 371 GB/s, that is 0.9 %.", "It takes 4.1 s (4123 ms).",
        "On H100 with NCCL 2.21.5 rank 3 (E7) the 18 links reach 370.8 GB/s.", "Run `nccl-tests -b 8 -e 512M` first.",
        "1. check\n2. repeat the 2nd step", "Qwen2.5-7B gives 1,234.5 tokens/s on GPU 0",
        "只有 3.4 GB/s，上限 370.8 GB/s。",
    ],
)  # fmt: skip
def test_backed_numerals_pass(text: str) -> None:
    assert check_numerals(text, VALUES) == []


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("The bus moves 3.5 GB/s.", "3.5 GB/s"), ("It takes 3.4 s.", "3.4 s"), ("about 17 links", "17 links"),
        ("that is 9 %", "9 %"), ("只有 3.6 GB/s", "3.6 GB/s"), ("1,235.5 tokens/s", "1,235.5 tokens/s"),
    ],
)  # fmt: skip
def test_unbacked_numerals_are_named(text: str, bad: str) -> None:
    assert check_numerals(text, VALUES) == [bad]


@pytest.mark.skipif(not SHARED.is_dir(), reason="captures are not here")
@pytest.mark.parametrize(
    "name", ["h100x2/nccl/14-json.json", "h100x2/vllm/tp2/server.log", "h100x2/env/nvidia-smi-q.txt"]
)
def test_reports_on_captures_verify(name: str) -> None:
    doc = Document.of("x", (SHARED / "captures" / name).read_bytes())
    made = make_report("slow", [doc])
    assert SECRET not in made.model_dump_json()
    assert verify(made.model_dump(mode="json", by_alias=True), [doc], rerender) == []
