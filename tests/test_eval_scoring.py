"""Scores on answers that are right, wrong, empty, sure, evasive, or that list everything."""

from __future__ import annotations

import pytest
from diagnose.evals.baselines import majority, nearest
from diagnose.evals.scoring import (
    HEALTHY,
    INCONCLUSIVE,
    Key,
    Outcome,
    Share,
    brier_of,
    calibration,
    score,
    wilson,
)

CAUSE = Key("a.right", ("a.also",))
WELL = Key(HEALTHY, (), "healthy")
OPEN = Key("a.right", (), INCONCLUSIVE)


def said(key: Key, *findings: tuple[str, float], verdict: str = "cause", confidence: float | None = None,
         hypotheses: tuple[tuple[str, float], ...] = ()) -> Outcome:  # fmt: skip
    sure = confidence if confidence is not None else (findings[0][1] if findings else 0.0)
    return Outcome("x", "s", key, verdict, sure, findings, hypotheses)


def open_(key: Key, *hypotheses: tuple[str, float]) -> Outcome:
    return said(key, verdict=INCONCLUSIVE, confidence=0.6, hypotheses=hypotheses)


@pytest.mark.parametrize(
    ("outcome", "first", "third", "sure_and_wrong"),
    [
        (said(CAUSE, ("a.right", 0.9)), True, True, False),
        (said(CAUSE, ("a.also", 0.9)), True, True, False),
        (said(CAUSE, ("b.wrong", 0.9), ("a.right", 0.6)), False, True, True),
        (said(CAUSE, ("b.wrong", 0.7)), False, False, False),
        (said(CAUSE, ("b", 0.9), ("c", 0.9), ("d", 0.9), ("a.right", 0.9)), False, False, True),
        (open_(CAUSE), False, False, False),
        (open_(CAUSE, ("b", 0.4), ("c", 0.3), ("a.right", 0.2)), False, True, False),
        (open_(CAUSE, ("b", 0.4), ("c", 0.3), ("d", 0.2), ("a.right", 0.1)), False, False, False),
        (said(WELL, verdict="healthy", confidence=0.9), True, True, False),
        (said(CAUSE, verdict="healthy", confidence=0.9), False, False, True),
        (open_(OPEN), True, True, False),
        (said(OPEN, ("a.right", 0.9)), False, False, True),
        (said(CAUSE, verdict="error"), False, False, False),
    ],
)
def test_right_wrong_and_open_answers(outcome: Outcome, first: bool, third: bool, sure_and_wrong: bool) -> None:
    assert (outcome.first, outcome.third, outcome.wrong_and_sure) == (first, third, sure_and_wrong)


def test_alarms_are_counted_on_healthy_cases_only() -> None:
    made = score("s", [said(WELL, ("b", 0.9)), said(WELL, verdict="healthy", confidence=0.9), open_(WELL),
                       said(CAUSE, ("b", 0.9))])  # fmt: skip
    assert made.alarms == Share(1, 3)
    also = Key(HEALTHY, ("a.also",), "healthy")
    assert not said(also, ("a.also", 0.6)).alarm, "the key takes it for right"


def test_listing_everything_is_seen_as_noise() -> None:
    everything = [(f"c.{i}", 0.9) for i in range(20)] + [("a.right", 0.9)]
    lister = score("s", [said(CAUSE, *everything)] * 4)
    terse = score("s", [said(CAUSE, ("a.right", 0.9))] * 4)
    assert (lister.first.hits, lister.third.hits, terse.first.hits) == (0, 0, 4)
    assert lister.noise is not None and terse.noise is not None
    assert lister.noise > 15 and terse.noise == 0
    assert lister.wrong_and_sure.hits == 4


def test_saying_nothing_scores_nothing_and_is_not_well_calibrated() -> None:
    silent = score("s", [open_(CAUSE)] * 5)
    assert (silent.first.hits, silent.answered, silent.right_of_answered.n) == (0, Share(0, 5), 0)
    assert silent.calibration.brier is None
    assert silent.brier == 0.5
    right, wrong = (score("s", [said(CAUSE, (c, 0.95))] * 5) for c in ("a.right", "b.wrong"))
    assert right.brier is not None and right.brier < 0.01
    assert wrong.brier is not None and wrong.brier > 0.9


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763), (0, 0, 0.0, 1.0)]
)
def test_wilson(hits: int, n: int, low: float, high: float) -> None:
    got = wilson(hits, n)
    assert got == (pytest.approx(low, abs=0.001), pytest.approx(high, abs=0.001))


def test_calibration_by_hand() -> None:
    got = calibration([(0.9, True), (0.9, True), (0.9, False), (0.1, False), (1.0, True)])
    assert got.brier == pytest.approx((0.01 + 0.01 + 0.81 + 0.01 + 0) / 5)
    assert [(b.low, b.right.n, b.right.hits) for b in got.bins] == [(0.1, 1, 0), (0.9, 4, 3)]
    assert got.ece == pytest.approx(1 / 5 * 0.1 + 4 / 5 * abs(0.925 - 0.75))
    assert calibration([]).brier is None
    assert brier_of([(1.0, 0.0)]) == 0 and brier_of([(0.0, 1.0)]) == 1 and brier_of([]) is None


def test_per_cause_rows_say_what_was_taken_for_what() -> None:
    made = score("s", [said(CAUSE, ("a.right", 0.9)), said(CAUSE, ("b", 0.7)), said(CAUSE, ("b", 0.9)), open_(OPEN)])
    rows = {r.cause: r for r in made.causes}
    assert rows["a.right"].first == Share(1, 3)
    assert rows["a.right"].taken_for == (("b", 2),)
    assert rows[INCONCLUSIVE].first == Share(1, 1)


def test_majority_guesses_from_the_other_cases() -> None:
    keys = [Key("x")] * 3 + [Key("y")]
    got = majority(keys)
    assert got.first == Share(3, 4)
    assert got.third == Share(3, 4), "nobody else has y"
    lonely = majority([Key("x"), Key("y")])
    assert lonely.first == Share(0, 2), "each case is judged by the others alone"


def test_nearest_neighbour_reads_words_and_respects_groups() -> None:
    texts = ["no space left on /dev/shm", "shm: no space left", "throttled by power cap", "power cap throttled clock"]
    keys = [Key("shm"), Key("shm"), Key("cap"), Key("cap")]
    assert nearest(texts, keys).first == Share(4, 4)
    assert nearest(texts, keys, ["g", "g", "h", "h"]).first == Share(0, 4), "a group does not help itself"


def test_kept_is_what_an_ablation_must_not_be() -> None:
    assert said(CAUSE, ("b", 0.9), ("a.right", 0.5)).kept
    assert not said(CAUSE, ("a.right", 0.49)).kept
    assert said(WELL, verdict="healthy", confidence=0.7).kept
    assert not open_(CAUSE, ("a.right", 0.45)).kept
