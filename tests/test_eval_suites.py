"""Loading cases, taking their decisive lines out, sampling; keys stay in the evaluation package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diagnose.evals import suites
from diagnose.evals.ablation import ablate, contradict, silence_repeats, without
from diagnose.evals.case import Case, load, own_cases, sample
from diagnose.evals.scoring import HEALTHY, INCONCLUSIVE, Key
from diagnose.evals.suites import collect

from diagnose.errors import UsageError

ROOT = Path(__file__).parents[1]
INCIDENT = {
    "id": "i-1", "source": {"repo": "o/r", "thread": "issues/1"}, "symptom": "slow",
    "artifacts": [{"kind": "nccl_log", "text": "a line\nvia SHM/direct/direct\nlast"}, {"kind": "env", "text": "X=1"}],
    "root_cause": {"label": "nccl.p2p_disabled", "also_accept": ["nccl.env_override"]},
    "evidence": ["via SHM", "X=1"],
}  # fmt: skip


def test_an_incident_file(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(INCIDENT))
    (case,) = load(tmp_path / "one.json")
    assert (case.id, case.symptom, case.group) == ("i-1", "slow", "o/r/issues/1")
    assert case.key == Key("nccl.p2p_disabled", ("nccl.env_override",), "cause", ("via SHM", "X=1"))
    first, second = case.documents()
    assert (first.data, second.data) == (b"a line\nvia SHM/direct/direct\nlast", b"X=1")
    assert case.key.label not in case.text, "the key is no part of what is read"


def test_a_cases_file_is_marked_simulated(tmp_path: Path) -> None:
    (tmp_path / "family.yaml").write_text(
        "- id: c-1\n  symptom: 慢\n  artifacts: [{kind: log, text: 'x'}]\n  root_cause: {label: none.healthy}\n"
        "- id: c-2\n  symptom: s\n  artifacts: []\n  root_cause: {label: a.b}\n  verdict: inconclusive\n"
    )
    well, open_ = load(tmp_path)
    assert (well.key.verdict, well.key.accepted) == ("healthy", {HEALTHY})
    assert (open_.key.verdict, open_.key.accepted) == (INCONCLUSIVE, {INCONCLUSIVE})
    assert "simulated" in well.documents()[0].status


def test_captures_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("one")
    (tmp_path / "logs" / "b.log").write_text("two")
    key = {"id": "k", "symptom": "?", "files": ["logs"], "accept": ["a"], "also_accept": ["b"], "verdict": "cause"}
    (tmp_path / "KEY.json").write_text(json.dumps({"cases": [key]}))
    (case,) = load(tmp_path)
    assert case.key.accepted == {"a", "b"}
    assert sorted(d.data for d in case.documents()) == [b"one", b"two"]
    assert load(tmp_path / "KEY.json") == [case]


@pytest.mark.parametrize("text", ["{}", "[1]", "not json"])
def test_a_file_that_is_no_case_is_refused(tmp_path: Path, text: str) -> None:
    bad = tmp_path / "x.json"
    bad.write_text(text)
    with pytest.raises(UsageError):
        load(bad)


def test_missing_paths_and_suites_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such"):
        load(tmp_path / "gone")
    with pytest.raises(UsageError, match="no cases"):
        load(tmp_path)
    with pytest.raises(UsageError, match="nonsense"):
        list(collect(["nonsense"], (), False))


@pytest.mark.parametrize(
    ("needles", "left"),
    [
        (["two"], "one\nthree\ntwin"),
        (["tw"], "one\nthree"),
        (["two\nthree"], "one\ntwin"),
        (["one", "three"], "two\ntwin"),
        (["absent", " "], "one\ntwo\nthree\ntwin"),
        (["one", "t"], ""),
    ],
)
def test_lines_that_hold_the_evidence_go(needles: list[str], left: str) -> None:
    assert without("one\ntwo\nthree\ntwin", needles) == left


def test_ablation_of_a_case() -> None:
    case = suites.parse_incident(INCIDENT)
    got = ablate(case)
    assert got is not None
    assert got.texts == (("0-nccl_log.txt", "a line\nlast"),), "an artifact with nothing left is gone"
    assert got.key == case.key
    unkeyed = suites.parse_incident({**INCIDENT, "evidence": ["nowhere to be found"]})
    assert ablate(unkeyed) is None


def test_ablation_follows_from_the_paths_given(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(INCIDENT))
    got = dict(collect(["ablation"], [tmp_path], False))
    assert [c.id for c in got["ablation"]] == ["i-1 ablated"]


def test_own_cases_ship_and_are_well_formed() -> None:
    found = own_cases()
    assert found
    ids = [c.id for c in found]
    assert len(ids) == len(set(ids))
    assert [c.id for c in found if c.key.verdict == "cause" and not c.key.label] == []
    lost = [c.id for c in found if any(e not in c.text for e in c.key.evidence)]
    assert lost == [], "evidence must be a substring of an artifact"


def test_samples_are_small_and_stable(tmp_path: Path) -> None:
    big = tmp_path / "big.log"
    big.write_bytes(b"x" * (3 << 20))
    many = [Case(f"c{i}", "s", Key("a")) for i in range(100)]
    picked = sample([*many, Case("big", "s", Key("a"), paths=(big,))])
    assert len(picked) == 24
    assert picked == sample([*many, Case("big", "s", Key("a"), paths=(big,))])
    assert "big" not in {c.id for c in picked}


def test_only_the_evaluation_reads_answer_keys() -> None:
    """Engine, readers and catalogue must not know that keys exist."""
    words = ("root_cause", "KEY.json", "also_accept", "diagnose.evals.suites")
    guilty = [
        f"{path.relative_to(ROOT)}: {word}"
        for folder in ("diagnose", "probes", "playbooks")
        for pattern in ("*.py", "*.yaml")
        for path in (ROOT / folder).rglob(pattern)
        for word in words
        if word in path.read_text("utf-8")
    ]
    assert guilty == []


def _case(text: str, *evidence: str, verdict: str = "cause") -> Case:
    return Case("c", "slow", Key("a.b", (), verdict, evidence), (("log", text),))


def test_what_says_the_same_again_goes_too() -> None:
    table = "size busbw\n1024 3.1\n2048 3.3\n4096 3.2\n\nother 1 2 text"
    assert silence_repeats(_case(table, "2048 3.3")).texts[0][1] == "size busbw\n\nother 1 2 text", (
        "the rest of the table"
    )  # type: ignore[union-attr]
    warned = "hit config.recompile_limit (8)\nfine\nerror: config.recompile_limit reached\nXid 79 here\nXid 80 here"
    assert silence_repeats(_case(warned, "hit config")).texts[0][1] == "fine\nXid 79 here\nXid 80 here"  # type: ignore[union-attr]
    assert silence_repeats(_case(warned, "Xid 79")).texts[0][1].count("\n") == 2, "another number, the same line"  # type: ignore[union-attr]


def test_the_decisive_reading_turned_round() -> None:
    state = contradict(_case("x\nNCCL_P2P_DISABLE set by environment to 1\nvia SHM/direct", "to 1", "via SHM"))
    assert state is not None and state.texts[0][1] == "x\nNCCL_P2P_DISABLE set by environment to 0\nvia P2P/CUMEM"
    row = contradict(_case("direct 60 tokens 0.5 s\nproxy  60 tokens 16.5 s", "proxy  60"))
    assert row is not None and row.texts[0][1].split("\n")[1] == "proxy  60 tokens 0.5 s"
    assert contradict(_case("a word only", "word")) is None, "nothing mechanical about it"
    assert contradict(_case("x=1", "x=1", verdict="healthy")) is None


def test_recorded_machines_are_named_by_a_key_and_are_there() -> None:
    found = suites.cassettes()
    assert len({c.id for c in found}) == len(found) >= 15
    for case in found:
        assert case.symptom and case.documents(), case.id
        assert all("recorded" in d.status for d in case.documents())
    assert {c.key.verdict for c in found} == {"cause", "healthy", "inconclusive"}
