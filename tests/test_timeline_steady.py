"""What part of a trace without marked steps is its loop."""

from __future__ import annotations

from diagnose.probes.timeline import Timeline, analyse


def line(*events: tuple[float, float]) -> Timeline:
    got = Timeline()
    for start, size in events:
        got.gpu_start.append(start)
        got.gpu_end.append(start + size)
        got.gpu_kind.append(0)
        got.gpu_launch.append(-1)
    return got


BEGIN = 9000.0
LOOP = [(BEGIN + 100.0 * n, 90.0) for n in range(40)]


def test_gaps_that_come_once_are_left_out_and_told() -> None:
    start_up = [(0.0, 50.0), (5000.0, 50.0)]
    got = analyse(line(*start_up, *LOOP))
    assert got is not None and (got.low, got.high) == (BEGIN, 12990.0)
    assert round(got.busy, 2) == 0.9
    assert round(got.unsteady, 3) == round(9000 / 12990, 3)


def test_gaps_of_every_step_are_the_loop() -> None:
    waits = [(1000.0 * n + 100.0 * k, 90.0) for n in range(8) for k in range(4)]  # 600 us of waiting a step
    got = analyse(line(*waits))
    assert got is not None and got.unsteady == 0 and got.busy < 0.4


def test_marked_steps_are_believed() -> None:
    marked = line((0.0, 50.0), *LOOP)
    marked.steps = [(0.0, 9000.0), (9000.0, 11000.0)]
    got = analyse(marked)
    assert got is not None and got.unsteady == 0 and got.low == 0.0
