"""Running suites: judging reports, failing engines, output formats, comparison, exit status."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from diagnose.evals import report as output
from diagnose.evals import run as runs
from diagnose.evals.case import Case
from diagnose.evals.run import Result, command, judge, run
from diagnose.evals.scoring import Key

from diagnose.document import Document
from diagnose.errors import UsageError
from diagnose.models import (
    CaptureRef,
    Evidence,
    Finding,
    Fix,
    Hypothesis,
    Report,
    SpanRef,
    Tool,
)


def answer(verdict: str, *causes: tuple[str, float], quote: str = "", at: tuple[int, int] = (0, 0)) -> Report:
    evidence = [
        Evidence(
            id="E1", kind="observed", signal="s", quote=quote,
            capture=CaptureRef(name="0-log.txt", sha256="", line=1, bytes=at),
            spans=[SpanRef(capture="0-log.txt", bytes=at, line=1, quote=quote)],
        ),
        Evidence(id="E2", kind="derived", signal="t", inputs=["E1"]),
    ] if quote else []  # fmt: skip
    findings = [
        Finding(cause=c, confidence=p, summary="", evidence=["E2"] if quote else [], fix=Fix(text=""))
        for c, p in causes
    ]
    return Report.model_validate(
        {
            "tool": Tool(version="0", catalogue="0"), "symptom": "", "playbook": "", "verdict": verdict,
            "confidence": causes[0][1] if causes else 0.7, "findings": findings, "evidence": evidence,
            "hypotheses": [Hypothesis(cause="z", p=0.1)],
        }
    )  # fmt: skip


CASE = Case("c", "slow", Key("a.right", evidence=("via SHM",)), (("0-log.txt", "x\nvia SHM/direct\ny"),))


def test_quotes_are_checked_against_the_bytes() -> None:
    def good(_symptom: str, _docs: list[Document]) -> Report:
        return answer("cause", ("a.right", 0.9), quote="via SHM/direct", at=(2, 16))

    def false(_symptom: str, _docs: list[Document]) -> Report:
        return answer("cause", ("a.right", 0.9), quote="via NET/IB", at=(2, 12))

    _, outcome = judge("s", CASE, good)
    assert (outcome.quotes, outcome.verbatim, outcome.cited, outcome.first) == (1, 1, 1.0, True)
    _, outcome = judge("s", CASE, false)
    assert (outcome.quotes, outcome.verbatim, outcome.cited) == (1, 0, 0.0)


def test_an_engine_that_fails_is_wrong_and_the_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path)

    def broken(_symptom: str, _docs: list[Document]) -> Report:
        raise ValueError("no")

    got = run((), [tmp_path], under_test=broken)
    assert got.scores[0].errors.hits == 2 and got.scores[0].first.hits == 0


def write(folder: Path) -> None:
    for name, label, text in (("one", "a.right", "via SHM"), ("two", "none.healthy", "busbw 312")):
        raw = {"id": name, "symptom": "s", "artifacts": [{"kind": "log", "text": f"{text}\nrest"}],
               "root_cause": {"label": label}, "evidence": [text]}  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(raw))


def keyword(_symptom: str, docs: list[Document]) -> Report:
    """An engine that knows two words."""
    text = b"".join(d.data for d in docs)
    if b"via SHM" in text:
        return answer("cause", ("a.right", 0.9))
    return answer("healthy") if b"busbw" in text else answer("inconclusive")


def stubborn(_symptom: str, _docs: list[Document]) -> Report:
    """An engine that always says the same."""
    return answer("cause", ("a.right", 0.9))


def scored(folder: Path, under_test: runs.Engine) -> Result:
    return run(("ablation",), [folder], under_test=under_test)


def test_ablation_tells_reading_from_guessing(tmp_path: Path) -> None:
    write(tmp_path)
    reads, guesses = scored(tmp_path, keyword), scored(tmp_path, stubborn)
    assert [s.suite for s in reads.scores] == [tmp_path.name, "ablation"]
    assert reads.scores[0].first.hits == 2 and guesses.scores[0].first.hits == 1
    kept = [r.scores[1].kept for r in (reads, guesses)]
    assert [k.hits for k in kept if k is not None] == [0, 1]
    assert guesses.scores[0].alarms.hits == 1
    overall = reads.overall
    assert overall is not None and overall.n == 2, "ablations are no part of the overall score"


def test_citations_tell_a_report_that_cites_all_it_rests_on(tmp_path: Path) -> None:
    raw = {"id": "x", "symptom": "s", "artifacts": [{"kind": "log", "text": "é\nvia SHM a\nother\nvia SHM b"}],
           "root_cause": {"label": "a.right"}, "evidence": []}  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(raw))

    def cites(*quotes: bytes) -> runs.Engine:
        def answers(_symptom: str, docs: list[Document]) -> Report:
            data = docs[0].data if docs else b""
            if b"via SHM" not in data:
                return answer("inconclusive")
            made = answer("cause", ("a.right", 0.9), quote="x")
            places = [(data.find(q), data.find(q) + len(q)) for q in quotes if q in data]
            spans = [SpanRef(capture=docs[0].name, bytes=p, line=1, quote=data[slice(*p)].decode()) for p in places]
            made.evidence[0].spans = spans
            return made

        return answers

    one, both = (
        run(("citations",), [tmp_path], under_test=e) for e in (cites(b"via SHM a"), cites(b"SHM a", b"SHM b"))
    )
    kept = [r.scores[1].kept for r in (one, both)]
    assert [(k.hits, k.n) for k in kept if k is not None] == [(1, 1), (0, 1)]


def test_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    got = scored(tmp_path, stubborn)
    made = output.as_json(got.scores, got.overall, "1", "abc")
    assert json.loads(json.dumps(made))["schema"] == "diagnose.eval/v1"
    assert [c["top1"] for c in made["suites"][0]["cases"]] == [True, False]
    tree = ElementTree.fromstring(output.junit(got.scores))
    first, ablated = tree.findall("testsuite")
    assert (first.get("tests"), first.get("failures")) == ("2", "1")
    assert ablated.get("failures") == "1", "a cause that outlives its lines is a failure"
    output.text(got.scores, got.overall)
    shown = capsys.readouterr().out
    assert "top-1" in shown and "want none.healthy" in shown and "1/2 50.0%" in shown


def test_comparison_names_what_changed(tmp_path: Path) -> None:
    write(tmp_path)
    old, new = (
        output.as_json(r.scores, r.overall, "1", "x") for r in (scored(tmp_path, keyword), scored(tmp_path, stubborn))
    )
    lines = list(output.differences(old, new))
    assert f"{tmp_path.name}: top1 2/2 -> 1/2" in lines
    assert any("worse: two: none.healthy 0.70 -> a.right 0.90" in line for line in lines)
    assert list(output.differences(old, old)) == []
    assert any("better" in line for line in output.differences(new, old))


def test_the_command_and_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    write(cases)
    monkeypatch.setattr(runs, "run", lambda names, paths, **kw: run(names, paths, under_test=stubborn, **kw))
    assert command([str(cases)], False, None, "json", 0.5) == 0
    earlier = tmp_path / "old.json"
    earlier.write_text(capsys.readouterr().out)
    assert command([str(cases)], True, earlier, "text", 0.6) == 1
    assert command([str(cases)], False, None, "junit", 0.0) == 0
    for words, compare, format_ in (
        (["nonsense"], None, "text"),
        ([str(cases)], None, "yaml"),
        ([str(cases)], tmp_path / "gone.json", "text"),
        ([str(cases)], cases / "one.json", "text"),
    ):
        with pytest.raises(UsageError):
            command(words, False, compare, format_, 0.0)


def test_nothing_to_run_is_said() -> None:
    with pytest.raises(UsageError, match="no cases found"):
        run((), ())


def test_the_engine_itself_answers(tmp_path: Path) -> None:
    write(tmp_path)
    got = run((), [tmp_path])
    assert got.scores[0].errors.hits == 0
    assert got.scores[0].verbatim.hits == got.scores[0].verbatim.n
