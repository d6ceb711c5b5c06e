"""Rules, variables and texts hold in certain releases; with another one they do not count, and the report says so."""

from __future__ import annotations

import pytest

from diagnose.catalogue import Indicator, catalogue
from diagnose.document import Document
from diagnose.engine import report
from diagnose.models import Evidence, Report, Subject
from diagnose.predicates import Context, may_lie_in

MTU = "NCCL WARN NET/IB : Got completion from peer 10.0.0.4<5> with status=5 opcode=48 len=0 vendor err 249 (Recv)"
CAP = "NCCL INFO NCCL_MAX_CTAS set by environment to 2.\nall_reduce_perf, 2 nodes, 8G: busbw 20 GB/s"


def run(symptom: str, *texts: str) -> Report:
    return report(symptom, [Document.of(f"a{n}", text.encode()) for n, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("version", "text", "want"),
    [
        ("2.20.3", ">=2.20.3,<2.24.3", True),
        ("2.24.3", ">=2.20.3,<2.24.3", False),
        ("2.20", ">=2.20.3", True),  # given too shortly to tell
        ("2.19", ">=2.20.3", False),
        ("", ">=2.20.3", True),
    ],
)
def test_a_short_version_leaves_the_rule_in_force(version: str, text: str, want: bool) -> None:
    assert may_lie_in(tuple(int(p) for p in version.split(".") if p), text) is want


def test_one_of_several_versions_is_enough() -> None:
    seen = [
        Evidence(id=f"E{n}", kind="observed", signal="version", value=v, subject=Subject(label="nccl"))
        for n, v in enumerate(("2.18.5", "2.21.5"))
    ]
    assert Context(seen).outside({"nccl": ">=2.20"}) is None
    assert Context(seen).outside({"nccl": ">=2.27"}) is not None
    assert Context(seen).outside({"ucx": ">=1.16"}) is None


@pytest.mark.parametrize(("version", "sure"), [("2.21.5", True), ("2.30.5", False)])
def test_a_sign_of_certain_releases_names_the_cause_there_only(version: str, sure: bool) -> None:
    got = run(
        "after the MTU of the switch was changed the collective between two nodes fails",
        f"NCCL version {version}+cuda12.4\n{MTU}",
    )
    found = [f for f in got.findings if f.cause == "net.wrong_mtu" and f.confidence >= 0.7]
    assert bool(found) is sure
    said = [r.because for r in got.ruled_out if r.cause == "net.wrong_mtu"]
    assert sure or any("2.30.5" in because for because in said) or got.findings[0].cause == "net.wrong_mtu"


@pytest.mark.parametrize(("version", "named"), [("2.12.12", False), ("2.18.5", True)])
def test_a_variable_that_the_release_does_not_read_is_no_override(version: str, named: bool) -> None:
    got = run("all_reduce between two nodes is slow", f"NCCL version {version}+cuda12.1\nn0:1:2 [0] {CAP}")
    assert ("nccl.env_override" in [f.cause for f in got.findings]) is named
    said = [h.because for h in got.red_herrings if "NCCL_MAX_CTAS" in h.text]
    assert bool(said) is not named
    assert named or "2.12.12" in said[0]


def test_a_bad_range_is_refused() -> None:
    with pytest.raises(ValueError, match="bad version range"):
        Indicator(when={}, strength="weak", versions={"nccl": "2.20"})


def test_every_range_of_the_catalogue_reads() -> None:
    cat = catalogue()
    assert cat.variables["NCCL_NVLS_ENABLE"] == {"nccl": ">=2.17.1"}
    assert any(m.versions for m in cat.marks)
    for entry in (*cat.marks, *(i for c in cat.causes.values() for i in c.indicators)):
        for text in entry.versions.values():
            may_lie_in((1,), text)
