"""The scorers against answers that try to please them: each gets what it deserves, and only a good one gets all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from diagnose.evals import run as runs
from diagnose.evals.baselines import words_only
from diagnose.evals.case import Case
from diagnose.evals.paired import Change, changes
from diagnose.evals.scoring import HEALTHY, Key, Scores, mean, score

from diagnose.document import Document
from diagnose.models import CaptureRef, ChainLink, Evidence, Finding, Fix, InputRef, Report, SpanRef, Tool

TEXT = "\n".join([
    "$ df -h /dev/shm", "shm 64M 64M 0 100% /dev/shm", *(f"INFO step {i} loss 2.{i}" for i in range(20)),
    "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)",
])  # fmt: skip
KEY = Key("nccl.shm_too_small", evidence=("shm 64M 64M 0 100%", "Error while creating shared memory segment"))
CASE = Case("c", "NCCL fails in the container with 8 GPUs", KEY, (("0-log.txt", TEXT),))
WELL = Case("w", "is it slow?", Key(HEALTHY, (), "healthy"), (("0-log.txt", "busbw 372 GB/s"),))
Said = Callable[[str, list[Document]], Report]


def _line(doc: Document, n: int, ident: str) -> Evidence:
    lines = doc.data.split(b"\n")
    start = sum(len(x) + 1 for x in lines[:n])
    at, quote = (start, start + len(lines[n])), lines[n].decode()
    return _quote(doc.name, at, quote, ident, n + 1)


def _quote(name: str, at: tuple[int, int], quote: str, ident: str, line: int = 1) -> Evidence:
    return Evidence(
        id=ident, kind="observed", signal="text.error", value=quote, quote=quote,
        capture=CaptureRef(name=name, sha256=SHA, line=line, bytes=at),
        spans=[SpanRef(capture=name, bytes=at, line=line, quote=quote)],
    )  # fmt: skip


SHA = Document.of("0-log.txt", TEXT.encode(), ("provided",)).sha256


def _report(verdict: str, causes: list[str], evidence: list[Evidence], confidence: float = 0.95) -> Report:
    ids = [e.id for e in evidence]
    return Report(
        tool=Tool(version="0", catalogue="0"), symptom="", playbook="", verdict=verdict, confidence=confidence,
        findings=[Finding(cause=c, confidence=confidence, summary="", evidence=ids, fix=Fix(text="")) for c in causes],
        chain=[ChainLink.model_validate({"from": c, "to": "symptom", "because": "", "evidence": ids}) for c in causes],
        evidence=evidence, inputs=[InputRef(name="0-log.txt", sha256=SHA, recognised_as=None)],
    )  # fmt: skip


def good(_symptom: str, docs: list[Document]) -> Report:
    last = docs[0].data.count(b"\n")
    return _report("cause", ["nccl.shm_too_small"], [_line(docs[0], 1, "E1"), _line(docs[0], last, "E2")])


def wrong(_symptom: str, docs: list[Document]) -> Report:
    return _report("cause", ["nccl.memlock_limit"], [_line(docs[0], 5, "E1")])


def empty(_symptom: str, _docs: list[Document]) -> Report:
    return _report("inconclusive", [], [], 0.0)


def lists_everything(_symptom: str, docs: list[Document]) -> Report:
    from diagnose.catalogue import catalogue

    causes = [c for c in sorted(catalogue().causes) if c != HEALTHY]
    return _report("cause", causes, [_line(docs[0], 0, "E1")])


def stuffs_quotes(_symptom: str, docs: list[Document]) -> Report:
    n = docs[0].data.count(b"\n") + 1
    return _report("cause", ["nccl.shm_too_small"], [_line(docs[0], i, f"E{i}") for i in range(n)])


def quotes_the_file(_symptom: str, docs: list[Document]) -> Report:
    text = docs[0].data.decode()
    return _report("cause", ["nccl.shm_too_small"], [_quote(docs[0].name, (0, len(docs[0].data)), text * 1, "E1")])


def copies_the_symptom(symptom: str, docs: list[Document]) -> Report:
    return _report("cause", ["nccl.shm_too_small"], [_quote(docs[0].name, (0, len(symptom)), symptom, "E1")])


def quotes_nothing(_symptom: str, _docs: list[Document]) -> Report:
    return _report("cause", ["nccl.shm_too_small"], [])


def scored(said: Said, case: Case = CASE) -> Scores:
    _, outcome = runs.judge("s", case, said)
    return score("s", [outcome])


def test_a_good_answer_gets_all() -> None:
    got = scored(good)
    documents = CASE.documents()
    assert runs.unsupported(good("", documents), documents) == []
    assert (got.first.hits, got.third.hits, got.chained.hits, got.supported.hits) == (1, 1, 1, 1)
    assert (got.cited.value, got.precise.value, got.verbatim.value) == (1.0, 1.0, 1.0)
    assert (got.wrong_and_sure.hits, got.noise) == (0, 0)


def test_a_wrong_answer_is_confidently_wrong_and_earns_no_evidence() -> None:
    got = scored(wrong)
    assert (got.first.hits, got.third.hits, got.wrong_and_sure.hits) == (0, 0, 1)
    assert got.cited.value is None, "evidence counts only where the answer is right"
    assert got.brier is not None and got.brier > 0.9


def test_saying_nothing_earns_nothing() -> None:
    got = scored(empty)
    assert (got.first.hits, got.third.hits, got.answered.hits, got.wrong_and_sure.hits) == (0, 0, 0, 0)
    assert got.brier == 0.5 and got.cited.value is None
    assert got.rightly_open.hits == 1, "it had no guess, so leaving it open hid nothing right"


def test_listing_everything_is_neither_right_nor_quiet() -> None:
    got = scored(lists_everything)
    assert (got.first.hits, got.third.hits, got.wrong_and_sure.hits) == (0, 0, 1)
    assert got.noise is not None and got.noise > 50
    assert scored(lists_everything, WELL).alarms.hits == 1


def test_stuffing_quotes_buys_recall_with_precision() -> None:
    got = scored(stuffs_quotes)
    assert got.cited.value == 1.0
    assert got.precise.value is not None and got.precise.value < 0.15
    whole = scored(quotes_the_file)
    assert whole.cited.value == 0.0, "a capture as one quote cites no line of it"


def test_the_symptom_is_no_evidence() -> None:
    got = scored(copies_the_symptom)
    assert (got.verbatim.value, got.supported.hits, got.cited.value, got.precise.value) == (0.0, 0, 0.0, 0.0)


def test_a_finding_without_a_reading_is_unsupported() -> None:
    got = scored(quotes_nothing)
    assert got.first.hits == 1 and (got.supported.hits, got.chained.hits) == (0, 0)


def test_two_faults_need_both() -> None:
    key = Key("nccl.shm_too_small", beside=("gpu.ecc_or_xid",))
    case = Case("two", "s", key, CASE.texts)
    one, both = (
        scored(lambda _s, docs, causes=causes: _report("cause", causes, [_line(docs[0], 1, "E1")]), case)  # type: ignore[misc]
        for causes in (["nccl.shm_too_small"], ["gpu.ecc_or_xid", "nccl.shm_too_small"])
    )
    assert (one.first.hits, one.third.hits, both.first.hits, both.third.hits) == (1, 0, 1, 1)


def test_words_alone_are_ranked_by_what_they_say() -> None:
    got = words_only([[("a", 0.9), ("b", 0.5)], [("b", 0.9)], []], [Key("a"), Key("a", ("b",)), Key("a")])
    assert (got.first.hits, got.third.hits, got.first.n) == (2, 2, 3)


def test_intervals_of_means() -> None:
    got = mean([0.0, 1.0] * 50)
    assert got.value == 0.5 and 0.38 < got.interval[0] < 0.5 < got.interval[1] < 0.62
    assert mean([]).value is None and mean([0.7] * 9).interval == (pytest.approx(0.7), pytest.approx(0.7))


def _run(*flags: bool) -> dict[str, object]:
    cases = [{"id": f"c{i}", "top1": f, "top3": True, "alarm": False, "kept": f} for i, f in enumerate(flags)]
    return {"suites": [{"suite": "s", "kept_without_evidence": None, "cases": cases}]}


def test_only_what_chance_would_not_do_is_a_regression() -> None:
    (few,) = changes(_run(*[True] * 10), _run(*[False] * 2, *[True] * 8))
    assert (few.worse, few.better, few.regression) == (2, 0, False)
    (many,) = changes(_run(*[True] * 10), _run(*[False] * 6, *[True] * 4))
    assert many.regression and many.chance == pytest.approx(0.5**6)
    assert list(changes(_run(True, False), _run(True, False))) == []
    assert not Change("s", "top1", 10, 9, 100).regression
    (gone,) = changes(_run(True, True), _run(False))
    assert gone.pairs == 1, "cases that are gone are not compared"
