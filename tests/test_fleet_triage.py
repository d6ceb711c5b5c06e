"""A symptom asked of many nodes: the odd one is found, named, and the report still verifies against what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diagnose.probes.fleet_table import FleetReader

from diagnose import fleet_triage
from diagnose.cassette import Cassette, pack
from diagnose.collect import Capture
from diagnose.document import Document
from diagnose.errors import EXIT_ERROR, EXIT_INCONCLUSIVE, UsageError
from diagnose.fleet_models import Failed, Node
from diagnose.fleet_rank import compare
from diagnose.fleet_triage import Judged, Overview, judge, report, summary
from diagnose.inputs import open_inputs
from diagnose.models import Report
from diagnose.triage import Reach
from diagnose.triage import run as triage
from diagnose.verify import verify
from diagnose.verify_command import rerender

LOG = """\
node:101:101 [0] NCCL INFO NCCL version 2.28.9+cuda13.0
node:101:101 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.
node:101:101 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
node:101:101 [0] NCCL INFO Channel 01 : 0[0] -> 1[1] via SHM/direct/direct
"""
SYMPTOM = "all-reduce is slow"


def cassette(folder: Path, name: str, **captures: str) -> Path:
    made = Cassette.create(folder / "made" / f"{name}.cassette", "")
    made.add([Capture(probe.replace("__", "."), text.encode()) for probe, text in captures.items()])
    target = folder / f"{name}.cassette.zip"
    pack(made.path, target)
    return target


def bare(name: str, path: Path, verdict: str, confidence: float = 0.9, clock: float = 0.0) -> Judged:
    read: dict[tuple[str, str], Any] = {("gpu.name", "gpu 0"): ("H100", None), ("gpu.util", "gpu 0"): (1.0, None)}
    if clock:
        read["gpu.clock.sm", "gpu 0"] = (clock, "MHz")
    return Judged(name, path, verdict, confidence, Node(name, readings=read))


def fleet(judged: list[Judged], failed: list[Failed] | None = None) -> Overview:
    made = Overview(judged, failed or [])
    made.fleet = compare([j.node for j in judged], made.failed, [])
    return made


def test_the_node_with_the_cause_is_named_and_the_report_verifies(tmp_path: Path) -> None:
    odd = cassette(tmp_path, "node03", env__dump="NCCL_P2P_DISABLE=1\n", nccl__debug_log=LOG)
    rest = cassette(tmp_path, "node01", host__limits="Max open files 1024\n")
    found = judge(odd, SYMPTOM)
    assert isinstance(found, Judged) and found.verdict in ("nccl.env_override", "nccl.p2p_disabled")
    assert found.confidence >= 0.8
    other = judge(rest, SYMPTOM)
    assert isinstance(other, Judged) and other.verdict == "inconclusive"
    failed = [Failed(name="node09", reason="no answer within 120 s")]
    done = report(fleet([other, found], failed), SYMPTOM, ("en", "zh"), tmp_path)
    assert done.schema_ == "diagnose.report/v1" and done.verdict == "cause"
    assert done.findings[0].cause == found.verdict
    assert done.answer["en"].verdict.startswith("node03: ") and done.answer["zh"].verdict.startswith("node03: ")
    assert {i.name for i in done.inputs if i.sha256} == {
        "fleet.txt", "node03.cassette.zip!node03.cassette/captures/env.dump.txt",
        "node03.cassette.zip!node03.cassette/captures/nccl.debug_log.txt",
    }  # fmt: skip
    assert [(i.name, i.reason) for i in done.inputs if not i.sha256] == [("node09", "no answer within 120 s")]
    said = {e.signal: e for e in done.evidence if e.signal.startswith("fleet.")}
    assert said["fleet.subject"].subject.host == "node03" and said["fleet.failed"].subject.host == "node09"
    documents, _ = open_inputs([odd, tmp_path / "fleet.txt"], None)
    assert verify(json.loads(done.model_dump_json(by_alias=True)), documents, rerender) == []


def test_a_slow_node_is_named_where_nothing_else_is(tmp_path: Path) -> None:
    path = cassette(tmp_path, "x", host__limits="Max open files 1024\n")
    nodes = [bare(f"n{n}", path, "inconclusive", clock=1200.0 if n == 4 else 1965.0 + n) for n in range(12)]
    made = fleet(nodes)
    assert made.subject.name == "n4"
    done = report(made, "one of the nodes makes training slow", ("en",), tmp_path)
    assert [f.cause for f in done.findings] == ["nccl.straggler_rank"]
    assert done.answer["en"].verdict.startswith("n4: ")
    (proof,) = [e for e in done.evidence if e.signal == "fleet.slow_node"]
    assert proof.id in done.findings[0].evidence and proof.subject.host == "n4" and proof.value == 1.64
    assert "|1200 - 1970.5| / (1.4826 x MAD" in (proof.quote or "")


def test_nodes_that_are_alike_have_no_finding(tmp_path: Path) -> None:
    path = cassette(tmp_path, "x", host__limits="Max open files 1024\n")
    done = report(
        fleet([bare(f"n{n}", path, "inconclusive", clock=1965.0 + n) for n in range(12)]), SYMPTOM, ("en",), tmp_path
    )
    assert done.verdict == "inconclusive" and done.findings == []


def test_a_fleet_is_healthy_only_as_a_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The subject's health is not said of nodes that failed or stayed undecided."""
    from diagnose import engine

    real = engine.conclude

    def healthy(*args: Any) -> Any:
        got = real(*args)
        got.assessment.verdict, got.assessment.confidence = "healthy", 0.9
        return got

    monkeypatch.setattr(engine, "conclude", healthy)
    path = cassette(tmp_path, "x", host__limits="Max open files 1024\n")

    def verdict(*verdicts: str, failed: tuple[str, ...] = ()) -> str:
        judged = [bare(f"n{n}", path, v) for n, v in enumerate(verdicts)]
        made: Report = report(fleet(judged, [Failed(name=f, reason="gone") for f in failed]), "x", ("en",), tmp_path)
        return made.verdict

    assert verdict("healthy", "healthy") == "healthy"
    assert verdict("healthy", "inconclusive") == "inconclusive"
    assert verdict("healthy", "healthy", failed=("n9",)) == "inconclusive"


def test_the_summary_is_read_back() -> None:
    path = Path("unused")
    judged = [bare(f"n{n}", path, "healthy", clock=1200.0 if n == 4 else 1965.0 + n) for n in range(20)]
    for n, one in enumerate(judged):
        one.node.readings["version", "label nccl"] = ("2.27.3" if n == 7 else "2.28.9", None)
        one.node.readings["nvlink.links", "gpu 0"] = (12.0 if n == 8 else 18.0, "count")
        one.node.readings["gpu.temperature", "gpu 0"] = (95.0 if n == 9 else 40.0 + n % 3, "C")
    text = summary(fleet(judged, [Failed(name="n99", reason="ssh: refused: now")]))
    facts = list(FleetReader().parse(Document.of("fleet.txt", text.encode())))
    assert [(f.signal, f.value, f.subject.host, f.subject.label) for f in facts] == [
        ("fleet.subject", "healthy", "n8", None),
        ("fleet.verdict", 20.0, None, "healthy"),
        ("fleet.slow_node", 1.5, "n8", "nvlink.links gpu 0"),
        ("fleet.slow_node", 1.65, "n4", "gpu.clock.sm gpu 0"),
        ("fleet.outlier", 95.0, "n9", "gpu.temperature gpu 0"),
        ("fleet.mixed", "2.27.3", "n7", "version nccl"),
        ("fleet.failed", "ssh: refused: now", "n99", None),
    ]
    assert "16 and" not in text and "and 4 more" in text


def test_words_that_do_not_go_together(tmp_path: Path) -> None:
    def go(evidence: list[str], **reach: Any) -> int:
        return triage(
            [SYMPTOM], evidence, reach=Reach(**reach), lang="en", format_="json", fail_on="never", ask=False,
            verbose=False, fleet=str(tmp_path),
        )  # fmt: skip

    (tmp_path / "log").write_text("x")
    for evidence, reach in (([str(tmp_path / "log")], {}), ([], {"allow": "load"}), ([], {"replay": "x"})):
        with pytest.raises(UsageError, match="--fleet"):
            go(evidence, **reach)


def test_the_command_over_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "nodes"
    folder.mkdir()
    cassette(folder, "a", host__limits="Max open files 1024\n")
    (folder / "b 2.zip").write_bytes(b"PK no")
    (folder / "made").rename(tmp_path / "made")

    def go(format_: str) -> int:
        return fleet_triage.run(
            str(folder), SYMPTOM, langs=("en",), format_=format_, fail_on="never", verbose=False, limit=5
        )  # fmt: skip

    assert go("json") == EXIT_INCONCLUSIVE
    out = capsys.readouterr()
    made = json.loads(out.out)
    assert made["schema"] == "diagnose.report/v1" and "fleet.txt is in" in out.err
    assert [i["name"] for i in made["inputs"] if not i["sha256"]] == ["b_2"]
    (folder / "a.cassette.zip").unlink()
    assert go("text") == EXIT_ERROR
    assert "failed b_2:" in capsys.readouterr().out
