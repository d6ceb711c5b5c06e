"""The page of results: every part is there, failures are listed, and of the held set nothing but ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.evals.interactive import Run
from diagnose.evals.results import page, reliability
from diagnose.evals.run import command
from diagnose.evals.scoring import Key, Outcome, calibration, score, share

from diagnose.errors import UsageError


def _outcome(name: str, suite: str, cause: str, p: float = 0.9, kind: str = "") -> Outcome:
    return Outcome(name, suite, Key("a.right"), "cause", p, ((cause, p),), kind=kind)


def test_the_page_names_failures_and_keeps_the_held_set_closed() -> None:
    seen = score("cases", [_outcome("good", "cases", "a.right"), _outcome("bad-one", "cases", "b.wrong")])
    apart = score("held", [_outcome("h1", "held", "a.right"), _outcome("h2", "held", "b.secret")])
    gone = [_outcome("m ~units", "mutations-follow", "a.right", kind="units")]
    follow = score("mutations-follow", gone, kept=share(o.kept for o in gone))
    run = Run("box", True, "cause", "a.right", ("p.one", "p.two"), 12.0, ("p.one",), 4.0)
    made = page([seen, apart, follow], seen, "1", "2", [run], ([], 24))
    assert "- `bad-one`: want a.right, got cause (b.wrong 0.90)" in made
    assert "`h2`" in made and "b.secret" not in made
    assert "### mutations-follow: 1 of 1" in made and "units 1/1" in made
    assert "2 probes and 12 s" in made and "1 probes and 4 s" in made
    assert "0 of 24" in made and "sample" not in made
    assert "A sample only" in page([seen], seen, "1", "2", [], ([], 0), True)
    assert all(line.count("|") == 4 for line in made.split("\n") if line.startswith("| top-"))


def test_the_diagram_marks_what_was_stated_and_what_was_right() -> None:
    rows = list(reliability(calibration([(0.85, True)] * 3 + [(0.85, False)] * 3)))
    assert len(rows) == 2
    bar = rows[1].split()[2]
    assert bar.index("|") == round(0.85 * 30) and bar.count("#") == 15


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as wrong:
        command(["interactive", "h100x4-helthy"], False, None, "text", 0.0)
    assert "h100x4-healthy" in (wrong.value.hint or "")
    with pytest.raises(UsageError) as missing:
        command(["mutation"], False, None, "text", 0.0)
    assert "mutations" in (missing.value.hint or "") and not Path("mutation").exists()
