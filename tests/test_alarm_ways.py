"""What is past, small beside its whole, or of another kind names no cause; its unhealthy twin does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnose.probes.past_events import PastEvents
from diagnose.probes.rank_lines import RankTimers
from diagnose.probes.serving_metrics import ServingMetricsReader

from diagnose.assess import HEALTHY
from diagnose.document import Document
from diagnose.engine import triage

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "evals" / "cases" / "alarm_ways.yaml").read_text("utf-8")
)
# What explains the worry or is undecidable, and what looks the same and is a fault.
PAIRS = (
    ("ibstat-unused", "port-same-kind"), ("k8s-past", "k8s-still-pending"), ("k8s-restart", "pod-killed-again"),
    ("ucx-lanes", "ucx-all-tcp"), ("preempt-old", "preempting-now"), ("straggler-not", "straggler-is"),
    ("u-oomold", "oom-old-asked"), ("u-linkflap", "link-stays-down"), ("loss-straggle", "megatron-late"),
    ("dcgm-dmon", "tensor-idle"), ("numastat", "numa-misses"), ("tgi", "queue-long"),
    ("ucx-warn-unused", "ucx-typo"), ("u-oldnccl", "ib-retry-now"), ("u-counters-zh", "discards-many"),
    ("shm-single", "shm-tiny"),
)  # fmt: skip


def _verdict(name: str) -> tuple[str, str, dict[str, Any]]:
    case = next(c for c in CASES if c["id"] == f"aw-{name}")
    docs = [Document.of(f"a{i}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]
    got = triage(case["symptom"], docs).assessment
    return got.verdict, got.accepted[0].cause.id if got.accepted else HEALTHY, case


OPEN = (("chunked-zh", "objective-missed"), ("loadavg-lb", "proxy-holds"), ("nixlbench", "nixl-flat"))


@pytest.mark.parametrize(("calm", "other"), OPEN)
def test_only_what_reaches_its_limit_is_healthy(calm: str, other: str) -> None:
    assert _verdict(calm)[0] == "healthy"
    assert _verdict(other)[0] != "healthy"


@pytest.mark.parametrize(("calm", "fault"), PAIRS)
def test_only_the_twin_names_a_cause(calm: str, fault: str) -> None:
    verdict, _, case = _verdict(calm)
    assert verdict == case["verdict"] != "cause"
    verdict, cause, case = _verdict(fault)
    key = case["root_cause"]
    assert verdict == "cause"
    assert cause in (key["label"], *key["also_accept"])


def _past(text: str) -> list[str]:
    return [str(f.subject.label) for f in PastEvents().parse(Document.of("a.log", text.encode()))]


OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def test_a_failure_is_past_by_its_date_and_the_last_one() -> None:
    """A day on, in each style of date; without a date, again later, or a link that never came back: not past."""
    assert _past(f"2026-01-02 10:00:00 {OOM}\n2026-01-09 10:00:00 step 50\n") == ["gpu memory"]
    assert _past(f"Jan  2 10:00:00 n1 {OOM}\nJan  9 10:00:00 n1 step 50\n") == ["gpu memory"]
    assert _past(f"2026-01-02 10:00:00 {OOM}\n2026-01-02 23:00:00 step 50\n") == []
    assert _past(f"2026-01-02 10:00:00 {OOM}\n{OOM}\n2026-01-09 10:00:00 step 50\n") == []
    assert _past(f"2026-01-02 10:00:00 {OOM}\n2026-01-09 09:00:00 {OOM}\n2026-01-09 10:00:00 step 50\n") == []
    down, up = "eth1: NIC Link is Down", "eth1: NIC Link is Up"
    assert _past(f"2026-01-02 10:00:00 {down}\n2026-01-02 10:00:09 {up}\n2026-01-09 10:00:00 ok\n") == ["link"]
    assert _past(f"2026-01-02 10:00:00 {down}\n2026-01-09 10:00:00 ok\n") == []


def test_timers_apart_by_nothing_of_the_step_say_nothing() -> None:
    head = "(min, max) time across ranks (ms):\n"
    whole = "    forward-backward ....: (402.11, 402.93)\n"

    def spread(row: str) -> list[str]:
        found = RankTimers().parse(Document.of("a.log", f"{head}{whole}{row}".encode()))
        return [str(f.subject.label) for f in found]

    assert spread("    batch-generator ....: (0.41, 1.10)\n") == ["forward-backward"]
    assert spread("    batch-generator ....: (0.41, 181.10)\n") == ["forward-backward", "batch-generator"]


def test_a_counter_that_stands_is_read_at_both_ends() -> None:
    page = 'vllm:num_preemptions_total{model_name="m"} 31\nvllm:num_requests_running{model_name="m"} 4\n'
    for pages, count in ((page, 1), (page + page, 2)):
        facts = list(ServingMetricsReader().parse(Document.of("m.txt", pages.encode())))
        assert sum(f.signal == "serving.counter" and f.subject.label == "preemptions" for f in facts) == count
