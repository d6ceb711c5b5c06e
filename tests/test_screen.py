"""What stands on the terminal: commands that copy, figures with what they are, nothing that nobody asked about."""

from __future__ import annotations

import subprocess
from io import StringIO

import pytest

from diagnose.answer_facts import core, opaque, quoted_at, reading
from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report
from diagnose.models import Evidence, Subject
from diagnose.screen import Terminal, show
from diagnose.shell import broken
from diagnose.triage import split

ACS = b"ACSCtl: SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-\n"
WIDTH = 80


def screen(symptom: str, text: bytes, lang: str = "en") -> str:
    out = StringIO()
    made = report(symptom, [Document.of("lspci.txt", text)], (), (lang,))
    show(made, catalogue(), Terminal(file=out, width=WIDTH, highlight=False))
    return out.getvalue()


def test_every_probe_command_is_one_that_a_shell_takes_whole_and_broken() -> None:
    for probe in catalogue().probes.values():
        if "\n" in probe.command:  # a piece of Python, shown as it is
            assert probe.command.startswith("#"), probe.name
            continue
        rows = broken(probe.command, WIDTH - 6)
        for text in (probe.command, "\n".join(rows)):
            got = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
            assert got.returncode == 0, (probe.name, got.stderr)


def test_a_broken_command_does_what_the_whole_one_does() -> None:
    command = (
        "for i in 1 2; do echo 'a  b; c' \"$i\"; done; echo $(echo x | tr x y) | sed 's/y/sudo z/'   # that is all"
    )
    rows = broken(command, 24)
    assert len(rows) > 3 and rows[-1].startswith("#")
    runs = [
        subprocess.run(["bash", "-c", t], capture_output=True, text=True, check=True)
        for t in (command, "\n".join(rows))
    ]
    assert runs[0].stdout == runs[1].stdout == "a  b; c 1\na  b; c 2\nsudo z\n"


def test_a_symptom_longer_than_a_file_name_is_a_symptom() -> None:
    symptom = "slow " * 100
    assert split([symptom], []) == (symptom.strip(), [])
    assert split(["x" * 300], []) == ("x" * 300, [])


def test_the_screen_says_why_and_leaves_out_what_nobody_asked() -> None:
    text = screen("inter-node runs crash as soon as GPUDirect RDMA is used", ACS)
    assert "Because: a bridge redirects peer traffic" in text
    assert "is in question here" not in text
    assert "for or against nccl.p2p_broken_acs_iommu" in text and "separates" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


def _fact(signal: str, value: object, statement: str, quote: str, **subject: object) -> Evidence:
    return Evidence.model_validate(
        {
            "id": "E1", "signal": signal, "value": value, "statement": statement, "kind": "observed", "quote": quote,
            "subject": Subject.model_validate(subject),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "node0:101:201 [2] transport/nvls.cc:244 NCCL WARN Cuda failure 1 'invalid argument'",
            "transport/nvls.cc:244 NCCL WARN Cuda failure 1 'invalid argument'",
        ),
        (
            "1.79551s 209.30ms 1.0000GB 4.7779GB/s Pageable Device Tesla V100-SXM2 1 7 [CUDA memcpy HtoD]",
            "1.79551s 209.30ms 1.0000GB 4.7779GB/s Pageable Device Tesla…",
        ),
    ],
)
def test_what_a_line_tells_is_not_cut_off_with_what_stands_in_front(line: str, said: str) -> None:
    assert core(_fact("nccl.mark.nvls_failed", True, "setting up NVLink multicast failed", line)) == said


def test_a_word_of_a_table_is_said_with_what_it_is() -> None:
    row = "GPU0 X PIX PIX SYS NODE 0-27,56-83 0"
    item = _fact("topo.link", "PIX", "link between two GPUs, gpu 0, peer 1: PIX", row, gpu=0, peer=1)
    assert reading(item, catalogue()) == "link between two GPUs = PIX on GPU 0, with peer 1"
    assert opaque(item) and opaque(_fact("ucx.mark.open", True, "Open MPI cannot open it", "Component: ucx"))
    setting = _fact("env.var", "1", "environment variable, NCCL_P2P_DISABLE: 1", "x", label="NCCL_P2P_DISABLE")
    assert not opaque(setting)


def test_a_long_line_is_shown_where_its_reading_stands() -> None:
    line = "a" * 20 + " " + "b=1 " * 60 + 'num_gpu_blocks_override="1400" ' + "c=2 " * 30
    item = _fact("serving.arg", "1400", "server option, num-gpu-blocks-override: 1400", line, label="num-gpu")
    assert "1400" in quoted_at(item, 140) and len(quoted_at(item, 140)) <= 140
