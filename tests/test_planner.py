"""The next probe: what would settle an open question, or confirm and refute a lead."""

from __future__ import annotations

from pathlib import Path

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report
from diagnose.inputs import open_inputs

SAMPLE = Path(__file__).parents[1] / "evals" / "samples" / "nccl-p2p-disabled"


def test_after_a_verdict_the_next_probe_is_about_the_lead() -> None:
    docs, _ = open_inputs([str(SAMPLE)], None)
    got = report("all-reduce between the two GPUs is slow", docs)
    lead = got.findings[0]
    assert (lead.cause, lead.confidence >= 0.9) == ("nccl.env_override", True)
    assert got.next_probes and all(p.separates[0] == lead.cause for p in got.next_probes[:1])
    offered = {s for p in got.next_probes for s in p.separates}
    assert len(offered - {f.cause for f in got.findings}) <= 1, "the lead, its chain, and one rival"


def test_nothing_read_leaves_what_the_question_suggests_and_says_so() -> None:
    got = report("all-reduce is slow", [])
    assert got.verdict == "inconclusive" and got.hypotheses
    assert {h.basis for h in got.hypotheses} == {"question"}
    assert not any(h.cause in got.answer["en"].short for h in got.hypotheses), "no cause is said to lead"
    assert got.next_probes


def test_something_read_that_decides_nothing_leaves_the_questions_causes_open() -> None:
    got = report("all-reduce is slow", [Document.of("a.txt", b"NCCL version 2.27.3+cuda12.9\n")])
    assert got.verdict == "inconclusive" and got.hypotheses
    assert {h.cause for h in got.hypotheses} <= set(catalogue().causes)


def test_a_kernel_s_next_probe_is_no_request_through_a_proxy() -> None:
    text = b"smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct  %  12.5\n"
    got = report("this kernel is slow", [Document.of("ncu.txt", text)])
    served = {n for n, p in catalogue().probes.items() if p.provides and p.provides[0].startswith("serving.")}
    assert got.verdict == "cause", got.answer["en"].verdict
    assert not {p.probe for p in got.next_probes} & served
