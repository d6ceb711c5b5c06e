"""Changed cases: what is changed, what is left alone, and which cases are drawn."""

from __future__ import annotations

import random
import re

import pytest
from diagnose.evals.case import Case
from diagnose.evals.changed import changed
from diagnose.evals.joined import both, decoys, herrings, noisy, pairs
from diagnose.evals.mutations import FOLLOWS, STAYS, Mutation
from diagnose.evals.scoring import HEALTHY, INCONCLUSIVE, Key

from diagnose.catalogue import catalogue
from diagnose.models import Evidence, Finding, Fix, Report, SpanRef, Subject, Tool

BY_NAME = {m.name: m for m in (*STAYS, *FOLLOWS)}


def _case(*texts: str, label: str = "gpu.contention", verdict: str = "cause", name: str = "c") -> Case:
    named = tuple((f"{i}-other.txt", t) for i, t in enumerate(texts))
    return Case(name, "node-17 is slow", Key(label, (), verdict, ("25 GB/s",)), named)


def _made(kind: Mutation, case: Case, got: Report | None = None) -> str:
    made = kind.change(case, got, random.Random(1))
    return "\n--\n".join(t for _, t in made.texts) if made is not None else ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("copy 25 GB/s, wait 1500 ms", "copy 200 Gb/s, wait 1.5 s"),
        ("link 200Gb/s", "link 25 Gb/s".replace("Gb", "GB")),
        ("took 0.5us each", "took 0.0005 ms each"),
        ("12:00:01 INFO took 25 ms", ""),
        ("$ iblinkinfo\n4X 106.25 Gb/s", ""),
        ("PCIE-25 GB/s", ""),
    ],
)
def test_units_of_figures_typed_by_hand(text: str, wanted: str) -> None:
    assert _made(BY_NAME["units"], _case(text)) == wanted


def test_settings_are_shuffled_and_two_values_of_one_name_are_not() -> None:
    text = "\n".join(f"NCCL_VAR{i}={i}" for i in range(8))
    made = _made(BY_NAME["order"], _case(text))
    assert made != text and sorted(made.split("\n")) == sorted(text.split("\n"))
    assert _made(BY_NAME["order"], _case("NCCL_A=1\nNCCL_A=2\nNCCL_A=3")) == ""


def test_ranks_and_hosts_are_renamed_the_same_way_everywhere() -> None:
    made = _made(BY_NAME["ranks"], _case("rank 0 waits\nrank 3 late\n[rank3]: gone"))
    assert made == "rank 3 waits\nrank 0 late\n[rank0]: gone"
    assert _made(BY_NAME["ranks"], _case("0[0] -> 1[1]\nrank 0\nrank 1")) == "", "a channel numbers them too"
    case = _case("node-17 late\nnode-18 fine", "node-17 again")
    got = BY_NAME["hosts"].change(case, None, random.Random(1))
    assert got is not None and "node-17" not in got.text
    new = got.texts[0][1].split()[0]
    assert got.texts[1][1] == f"{new} again" and got.symptom == f"{new} is slow"
    assert _made(BY_NAME["hosts"], _case("NUMA node0 CPU(s): 0-55\nNUMA node1")) == ""


def test_only_evidence_that_is_still_there_stays_in_the_key() -> None:
    got = BY_NAME["units"].change(_case("copy 25 GB/s"), None, random.Random(1))
    assert got is not None and got.key.evidence == () and got.kind == "units"


def _answer(text: str) -> Report:
    """An answer that rests on the ratio of the two figures in the rows of a text."""
    figures = []
    for i, hit in enumerate(re.finditer(r"(?m)^.* (\d+) GB/s$", text)):
        span = SpanRef(capture="0-other.txt", bytes=hit.span(), line=i + 1, quote=hit[0])
        subject = Subject(label=f"bandwidth|row {i}")
        figures.append(
            Evidence(id=f"E{i}", kind="observed", signal="figure", value=float(hit[1]), spans=[span], subject=subject)
        )
    ratio = Evidence(id="R", kind="derived", signal="compare.ratio", value=2.0, formula="a / b", inputs=["E0", "E1"])
    return Report(
        tool=Tool(version="0", catalogue="0"), symptom="", playbook="copy-slow", verdict="cause", confidence=0.9,
        findings=[Finding(cause="a.b", confidence=0.9, summary="", evidence=["R"], fix=Fix(text=""))],
        evidence=[*figures, ratio],
    )  # fmt: skip


def test_figures_of_a_comparison() -> None:
    text = "near 50 GB/s\nfar 25 GB/s"
    assert _made(BY_NAME["together"], _case(text), _answer(text)) == "near 40.00 GB/s\nfar 20.00 GB/s"
    assert _made(BY_NAME["figures"], _case(text), _answer(text)) == "near 25.25 GB/s\nfar 25 GB/s"
    three = text + "\nfarther 20 GB/s"
    assert _made(BY_NAME["figures"], _case(three), _answer(three)) == "", "the third row would still say it"


def test_the_other_language_asks_the_same_question() -> None:
    got = BY_NAME["language"].change(_case("x"), _answer("a 1 GB/s\nb 2 GB/s"), random.Random(1))
    assert got is not None and re.search("[一-鿿]", got.symptom)


def test_decoys_are_distinct_and_fit_some_cause() -> None:
    found = decoys()
    assert len(found) >= 40 and len({d.id for d in found}) == len(found)
    for decoy in found:
        assert decoy.text.strip() and any(not re.search(decoy.not_for, c) for c in catalogue().causes)


def test_noise_is_added_and_nothing_is_lost() -> None:
    case = _case("first", "last")
    (got,) = herrings(case, 1)
    assert got.key == case.key and len(got.texts) == 3
    assert "first" in got.text and "last" in got.text and len(got.text) > len(case.text) + 20
    assert list(herrings(case, 1)) == [got] and list(herrings(case, 2)) != [got]
    well = noisy(_case("fine", label=HEALTHY, verdict="healthy"), 1)
    assert len(well.texts) == 6 and well.key.accepted == {HEALTHY, INCONCLUSIVE}


def test_two_faults_are_of_different_families() -> None:
    one, two, three = (
        _case(n, label=label, name=n)
        for n, label in (("a", "nccl.p2p_disabled"), ("b", "host.storage_slow"), ("d", "nccl.memlock_limit"))
    )
    joined = both(one, two)
    assert joined.key.label == "nccl.p2p_disabled" and joined.key.beside == ("host.storage_slow",)
    assert [t for _, t in joined.texts] == ["a", "b"] and len({n for n, _ in joined.texts}) == 2
    assert list(pairs([one, three], lambda _: True)) == []
    assert [c.id for c in pairs([one, two], lambda _: True)] == ["a & b"]
    assert list(pairs([one, two], lambda c: c.id == "a")) == [], "both have to be right by themselves"


def test_the_draw_is_the_same_for_a_seed_and_leaves_out_what_is_wrong() -> None:
    cases = [_case(f"copy {i} GB/s", name=f"c{i}") for i in range(2, 90)]
    answer = _answer("a 1 GB/s\nb 2 GB/s")

    def draw(seed: int, right: bool = True) -> list[str]:
        return [c.id for c in changed("mutations", cases, lambda _: answer if right else None, seed, True)]

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, right=False) == []
    kinds = [i.partition("~")[2] for i in draw(1)]
    assert kinds.count("units") == 3, "so many of each kind"
