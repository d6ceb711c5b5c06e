"""A trial of a cause: what goes wrong in it, or Ctrl-C, never costs the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnose import intervene
from diagnose.cassette import Cassette
from diagnose.catalogue import catalogue
from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.errors import ToolMissing
from diagnose.host import Host
from diagnose.live import Live, allowed
from diagnose.models import Evidence, Limit

LIMIT = Limit(what="all-reduce busbw, 2 GPUs, NV18, ring", measured=27.1, limit=370.8, unit="GB/s", ratio=0.07)


def trial() -> intervene.Trial:
    spec = catalogue().causes["nccl.env_override"].intervention
    assert spec is not None
    return intervene.Trial("nccl.env_override", spec, ("NCCL_P2P_DISABLE",), LIMIT, 27.1)


def live(tmp_path: Path, collect: object) -> Live:
    made = Live(Host(), Cassette.create(tmp_path / "x.cassette", ""), allowed("load"), 60)
    item = Collector("nccl.tests", lambda host: None, collect)  # type: ignore[arg-type]
    made.known = {"nccl.tests": item}
    return made


def test_a_tool_that_is_gone_is_a_reason_and_no_exception(tmp_path: Path) -> None:
    def gone(host: Host) -> Iterator[Collected]:
        raise ToolMissing("all_reduce_perf is not installed here")
        yield

    figure, what = intervene.measure(trial(), live(tmp_path, gone))
    assert figure is None
    assert isinstance(what, NotCaptured) and "all_reduce_perf is not installed here" in what.reason


def test_the_trial_is_kept_apart_and_runs_without_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    seen: list[bool] = []

    def run(host: Host) -> Iterator[Collected]:
        seen.append("NCCL_P2P_DISABLE" in host.environ)
        yield Capture("nccl.tests", b"nothing of use\n")

    at = live(tmp_path, run)
    figure, what = intervene.measure(trial(), at)
    assert seen == [False] and figure is None
    assert isinstance(what, Capture) and what.params == {"without": "NCCL_P2P_DISABLE"}


def test_prediction_is_the_usual_share_of_the_ceiling() -> None:
    assert trial().predicted == pytest.approx(0.85 * 370.8)


def test_pageable_copies_are_tested_against_pinned_ones_of_the_same_machine(tmp_path: Path) -> None:
    cause = catalogue().causes["host.pageable_copies"]
    limit = Limit(
        what="pageable copy H2D, PCIe 5.0 x16", measured=9.1, limit=63.02, ratio=0.14, unit="GB/s", evidence=["E1"]
    )
    found = Evidence(id="E1", kind="observed", signal="trace.pageable_rate", value=9.1, unit="GB/s")
    planned = intervene.plan(cause, {}, [limit], [found])
    assert planned is not None and not planned.without and planned.predicted == pytest.approx(0.85 * 63.02)

    def run(host: Host) -> Iterator[Collected]:
        yield Capture("copy.bench", (Path(__file__).parent / "data/microbench/h100.json").read_bytes())

    at = live(tmp_path, run)
    at.known = {"copy.bench": at.known["nccl.tests"]}
    after, kept = intervene.measure(planned, at)
    assert after == 55.085  # pinned_h2d_256MiB, the best of the large sizes
    assert isinstance(kept, Capture) and not kept.params
