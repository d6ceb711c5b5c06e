"""What a finding cites beside its reasons: it belongs to them, and weighs nothing."""

from __future__ import annotations

import pytest

from diagnose.answer import render
from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report, triage
from diagnose.models import Report
from diagnose.verify import verify

RAILS = (
    "job.sh: NCCL_IB_HCA=mlx5_0\n",
    "counter               before        after\nmlx5_0 port_xmit_data 10233111902  151220944100\n"
    "mlx5_1 port_xmit_data 10101188812  10101188812\nmlx5_2 port_xmit_data 10099001287  10099001291\n"
    "mlx5_3 port_xmit_data 10007655100  10007655100\n",
)
KV = (
    "$ lsmod | grep nvidia_fs   (nothing)\nkvbm: GDS backend could not be created (nvidia-fs not loaded), "
    "disk tier uses POSIX\nrestore, 16 GiB: this host 1.3 GB/s   sister host 11.8 GB/s\n",
)


def _asked(symptom: str, texts: tuple[str, ...]) -> tuple[Report, list[Document]]:
    docs = [Document.of(f"{n}.txt", text.encode()) for n, text in enumerate(texts)]
    return report(symptom, docs), docs


def _quotes(got: Report, ids: list[str]) -> str:
    by_id = {e.id: e for e in got.evidence}
    todo, seen = list(ids), list[str]()
    while todo:
        item = by_id[todo.pop()]
        seen += [s.quote for s in item.spans]
        todo += item.inputs
    return "\n".join(seen)


@pytest.mark.parametrize(
    ("symptom", "texts", "cause", "line"),
    [
        ("4 NICs but only one NIC's worth of bandwidth", RAILS, "nccl.nic_misplaced", "NCCL_IB_HCA=mlx5_0"),
        ("KV restore from local NVMe is slow, CPUs busy", KV, "nixl.backend_fallback", "this host 1.3 GB/s"),
    ],
    ids=["option", "effect"],
)
def test_cited_beside_the_reasons(symptom: str, texts: tuple[str, ...], cause: str, line: str) -> None:
    got, docs = _asked(symptom, texts)
    lead = got.findings[0]
    assert lead.cause == cause
    assert line in _quotes(got, lead.beside) and line not in _quotes(got, lead.reasons)
    assert lead.evidence == [*lead.reasons, *lead.beside] and len(lead.evidence) <= 8
    assert not list(verify(got.model_dump(mode="json", by_alias=True), docs, None, again=False))


def test_weighs_and_says_nothing() -> None:
    got, docs = _asked("4 NICs but only one NIC's worth of bandwidth", RAILS)
    read = triage("4 NICs but only one NIC's worth of bandwidth", docs)
    assert got.findings[0].beside and got.confidence == round(read.assessment.confidence, 2)
    bare = got.model_copy(deep=True)
    bare.findings[0].evidence, bare.findings[0].beside = bare.findings[0].reasons, []
    assert render(bare, catalogue(), "en") == render(got, catalogue(), "en")


def test_a_red_herring_is_no_support() -> None:
    got, _ = _asked("KV restore from local NVMe is slow, CPUs busy", KV)
    herrings = {i for h in got.red_herrings for i in h.evidence}
    assert not herrings & set(got.findings[0].beside)


def test_a_single_reading_is_said_to_stand_alone() -> None:
    text = "# Configured with: --with-cuda=/usr/local/cuda --with-gdrcopy=/opt/gdrcopy\nucx_info: error while loading "
    text += "shared libraries: libgdrapi.so.1: cannot open shared object file: No such file or directory\n"
    got, _ = _asked("A UCX built for CUDA and gdrcopy shows no such transports on the test machine.", (text,))
    lead = got.findings[0]
    assert len(lead.reasons) == 1 and lead.beside
    lead.confidence = 0.7
    assert f"on {lead.reasons[0]} alone" in render(got, catalogue(), "en").short
