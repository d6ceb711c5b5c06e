"""The shipped trees are sound, their probes and signals exist, walks decide from evidence, Mermaid draws."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

import diagnose.rules  # noqa: F401 (registers the predicates that branches name)
from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.entries import Playbook
from diagnose.models import Evidence
from diagnose.playbook import CONCLUDE, decide, faults, mermaid, walk
from diagnose.predicates import Context, check

IDS = [
    "high-ttft", "bad-tpot", "high-p99", "low-throughput",
    "slow-allreduce", "collective-hang", "ucx-slow-path", "kv-transfer-slow",
    "gpu-idle-network-busy", "gpu-underutilized", "kernel-slow", "copy-slow",
    "training-slow", "out-of-memory", "gpunetio-evaluation", "control-loop-latency",
    "environment",
]  # fmt: skip


def test_all_ids_are_there() -> None:
    assert sorted(catalogue().playbooks) == sorted(IDS)


@pytest.mark.parametrize("name", IDS)
def test_tree_is_sound(name: str) -> None:
    book = catalogue().playbooks[name]
    assert faults(book) == []
    assert 5 <= len(book.steps) <= 9
    assert book.title and book.title_zh and book.question.endswith("?") and book.decides
    for step in book.steps:
        assert step.probe in catalogue().probes
        assert step.ask.endswith("?")
        for branch in step.branches:
            check(branch.when, name, step.id, catalogue().signals)
            assert branch.says
        for signal in step.reads:
            assert any(fnmatchcase(s, signal) for s in catalogue().signals), f"{name} {step.id}: {signal}"


@pytest.mark.parametrize("name", IDS)
def test_every_path_ends_in_conclude(name: str) -> None:
    book = catalogue().playbooks[name]
    steps = {s.id: s for s in book.steps}

    def ends(at: str, left: int) -> bool:
        if at == CONCLUDE:
            return True
        step = steps[at]
        targets = {b.to for b in step.branches} | {step.else_to, step.else_unknown}
        return left > 0 and all(ends(t, left - 1) for t in targets)

    assert ends(book.steps[0].id, len(steps))


def test_probes_are_complete_and_provide_declared_signals() -> None:
    for spec in catalogue().probes.values():
        assert spec.seconds > 0 and spec.command and spec.enable and spec.expect and spec.provides
        for name in spec.provides:
            assert any(fnmatchcase(s, name) for s in catalogue().signals), f"{spec.name}: {name}"
        assert not any(w in spec.command for w in ("NCCL_NVLS_ENABLE", "DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS"))


def tree(*steps: dict[str, Any]) -> Playbook:
    return Playbook.model_validate(
        {"id": "t", "title": "t", "question": "?", "symptoms": {1: ["x"]}, "stages": ["a"], "steps": list(steps)}
    )


def step(ident: str, to: str, unknown: str = "", **more: Any) -> dict[str, Any]:
    base = {"id": ident, "stage": "a", "ask": "Is it?", "probe": "p", "else_to": to, "else_unknown": unknown or to}
    return {**base, **more}


@pytest.mark.parametrize(
    ("book", "word"),
    [
        (tree(step("one", "two"), step("two", "one")), "circle"),
        (tree(step("one", "conclude"), step("two", "conclude")), "never reached"),
        (tree(step("one", "conclud")), "did you mean conclude"),
        (tree(step("one", "conclude"), step("one", "conclude")), "twice"),
        (tree(step("one", "conclude", stage="b")), "unknown stage"),
    ],
)
def test_unsound_tree_is_named(book: Playbook, word: str) -> None:
    assert any(word in line for line in faults(book)), faults(book)


ON = {"when": {"signal": "nccl.transport", "matches": "Socket"}, "to": "two", "says": "Sockets."}
BOOK = tree(step("one", "conclude", "three", branches=[ON]), step("two", "conclude"), step("three", "conclude"))


def context(*values: str) -> Context:
    seen = enumerate(values, 1)
    return Context([Evidence(id=f"E{n}", kind="observed", signal="nccl.transport", value=v) for n, v in seen])


def test_branches_are_three_valued() -> None:
    yes = decide(BOOK.steps[0], context("P2P/IPC", "NET/Socket/0"))
    assert (yes.to, yes.known, yes.because) == ("two", True, "Sockets.") and [e.id for e in yes.used] == ["E2"]
    no = decide(BOOK.steps[0], context("P2P/IPC"))
    assert (no.to, no.known) == ("conclude", True)
    unknown = decide(BOOK.steps[0], context())
    assert (unknown.to, unknown.known, unknown.used) == ("three", False, ())


def test_walk_records_the_path() -> None:
    assert [d.step.id for d in walk(BOOK, context("NET/Socket/0"))] == ["one", "two"]
    assert [d.step.id for d in walk(BOOK, context())] == ["one", "three"]
    record = walk(BOOK, context("NET/Socket/0"))[0].record()
    assert record.evidence == ["E1"] and record.probe == "p" and record.because == "Sockets."


@pytest.mark.parametrize("name", IDS)
def test_walk_without_evidence_ends(name: str) -> None:
    path = walk(catalogue().playbooks[name], Context([], name))
    assert path[-1].to == CONCLUDE and not any(d.used for d in path)


def test_walk_on_a_log_says_sockets() -> None:
    from diagnose.engine import triage

    log = b"node0:1:2 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [receive] via NET/Socket/0\n"
    got = triage("all_reduce_perf busbw is low", [Document.of("x", log)])
    says = [d.because for d in walk(catalogue().playbooks["slow-allreduce"], got.context)]
    assert "Ranks talk over TCP sockets." in says


@pytest.mark.parametrize("name", IDS)
def test_mermaid(name: str) -> None:
    book = catalogue().playbooks[name]
    lines = mermaid(book).splitlines()
    assert lines[0] == "flowchart TD"
    assert all(line.count('"') % 2 == 0 for line in lines)
    assert sum("{" in line for line in lines) == len(book.steps)
    assert any("conclude" in line for line in lines)
