"""The graph: one node per step, the same report as the plain call, nothing sent anywhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from diagnose.catalogue import catalogue, plain_yaml
from diagnose.engine import report
from diagnose.inputs import open_inputs

SAMPLE = Path(__file__).parents[1] / "evals" / "samples" / "nccl-p2p-disabled"


def test_graph_and_plain_call_agree_and_open_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "x")
    from diagnose.graph import Session, build

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    docs, rejected = open_inputs([str(SAMPLE)], None)
    plain = report("all-reduce is slow", docs, rejected).model_dump(mode="json", by_alias=True)
    graph = build(["slow-allreduce"])
    state = {"symptom": "all-reduce is slow", "paths": [], "langs": ["en"], "path": [], "missing": []}
    walked = graph.invoke(state, context=Session(documents=docs, rejected=rejected))
    assert walked["mismatches"] == []
    assert walked["report"] == plain


def test_every_step_is_a_node() -> None:
    from diagnose.graph import playbook_graph

    for book in catalogue().playbooks.values():
        nodes = set(playbook_graph(book).get_graph().nodes)
        assert {s.id for s in book.steps} <= nodes


def test_studio_entry_point_compiles() -> None:
    from diagnose.graph import studio

    graph = studio()
    assert set(catalogue().playbooks) <= set(graph.get_graph().nodes)


def test_order_of_inputs_does_not_matter() -> None:
    docs, _ = open_inputs([str(SAMPLE)], None)
    one = report("all-reduce is slow", docs)
    two = report("all-reduce is slow", list(reversed(docs)))
    assert one == two


@pytest.mark.parametrize("file", ["serving_a", "movement", "platform_b", "training_a", "generic", "collectives_c"])
def test_graph_and_plain_call_agree_on_pasted_cases(file: str) -> None:
    """The command line takes the plain call where nothing is asked or probed; the graph must say the same."""

    from diagnose.document import Document
    from diagnose.graph import Session, build

    cases = plain_yaml((SAMPLE.parents[1] / "cases" / f"{file}.yaml").read_text("utf-8"))[:4]
    for case in cases:
        docs = [Document.of(f"{n}.txt", a["text"].encode()) for n, a in enumerate(case["artifacts"])]
        plain = report(case["symptom"], docs).model_dump(mode="json", by_alias=True)
        state = {"symptom": case["symptom"], "paths": [], "langs": ["en"]}
        walked = build([plain["playbook"]]).invoke(state, context=Session(documents=docs))
        assert walked["report"] == plain, case["id"]
        assert walked["mismatches"] == []
