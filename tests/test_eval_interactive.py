"""Playing a recorded machine back: what is not probed is not known, and a trial's figures are not its state."""

from __future__ import annotations

import pytest
from diagnose.evals.case import cassettes
from diagnose.evals.interactive import play


@pytest.mark.parametrize(("name", "planned"), [("h100x4-p2p-disabled", ("nccl.debug_log",)), ("h100-hidden-gpu", ())])
def test_the_planner_finds_the_fault_and_stops(name: str, planned: tuple[str, ...]) -> None:
    (case,) = (c for c in cassettes() if c.id == name)
    run = play(case, compare=False)
    assert run.right, run
    assert run.planned == planned


def test_every_recording_is_listed_and_every_listed_one_is_there() -> None:
    found = cassettes()
    assert len(found) >= 12
    assert all(p.is_file() for c in found for p in c.paths)
    folder = found[0].paths[0].parent
    assert {p.name for p in folder.glob("*.zip")} == {p.name for c in found for p in c.paths}
