"""Questions: asked only where answers part hypotheses; an answer is weak and says who said it."""

from __future__ import annotations

from diagnose.ask import choose, converse
from diagnose.catalogue import catalogue
from diagnose.models import Hypothesis
from diagnose.triage import investigate

OPEN = [Hypothesis(cause="serving.queueing_saturation", p=0.3), Hypothesis(cause="serving.long_prompt_prefill", p=0.2)]


def test_the_question_that_parts_the_hypotheses_comes_first() -> None:
    picked = choose(catalogue(), OPEN)
    assert 1 <= len(picked) <= 3
    assert picked[0].id in {"load", "stage"}


def test_nothing_open_nothing_asked() -> None:
    assert choose(catalogue(), []) == []


def test_answers_become_stated_facts_and_silence_does_not() -> None:
    replies = iter(["1", "", "9"])
    facts = converse(catalogue(), OPEN, "en", lambda text: next(replies))
    assert [f.kind for f in facts] == ["stated"]
    assert facts[0].statement.startswith("you said: ")


def test_an_answer_alone_never_decides() -> None:
    report, _ = investigate("TTFT is high", [], None, ("en",), lambda text: "1")
    assert report.verdict == "inconclusive"
    assert [e.kind for e in report.evidence] and {e.kind for e in report.evidence} == {"stated"}


def test_every_cause_named_by_a_question_exists() -> None:
    cat = catalogue()
    named = {c for q in cat.questions for o in q.options for c in (*o.for_, *o.against)}
    assert named <= set(cat.causes)
