"""Single kernels: ncu in all its forms, nvprof, ptxas, Triton; and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.probes.kernel_metrics import short
from diagnose.probes.kernel_text import NcuText, Ptxas
from diagnose.probes.ncu import NcuCsv, NcuReport, cells

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact

HERE = Path(__file__).parent / "data" / "nsight"


def lead(symptom: str, text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    got = triage(symptom, [Document.of("k", data)]).assessment
    return got.accepted[0].cause.id if got.accepted else got.verdict


def facts(reader: NcuText | Ptxas | NcuCsv, text: str) -> dict[str, Fact]:
    return {f.signal: f for f in reader.parse(Document.of("k", text.encode()))}


@pytest.mark.parametrize(
    ("kernel", "cause"),
    [
        ("copy_strided", "cuda.uncoalesced_access"),
        ("transpose_conflict", "cuda.bank_conflicts"),
        ("fma_bound", "cuda.compute_bound"),
        ("copy_coalesced", "cuda.memory_bound"),
    ],
)
def test_kernels_of_known_states(kernel: str, cause: str) -> None:
    assert lead(f"why is kernel {kernel} slow?", (HERE / "ncu_raw_columns.csv").read_bytes()) == cause


def test_raw_csv_quotes_the_cell_and_its_header() -> None:
    data = (HERE / "ncu_raw_columns.csv").read_bytes()
    for fact in NcuCsv().parse(Document.of("k", data)):
        if fact.kind == "observed":
            value, header = fact.spans
            assert data[value.start : value.end].decode() == value.quote
            assert data[header.start : header.end].decode() == header.quote


def test_details_csv_gives_figures_and_rules() -> None:
    got = facts(NcuCsv(), (HERE / "ncu_details.csv").read_text())
    assert got["kernel.occupancy"].value == pytest.approx(0.1673)
    assert "registers" in str(got["kernel.occupancy.limit"].value)


def test_cells_keep_commas_and_quotes() -> None:
    assert [c[0] for c in cells(b'"a,b","x ""y""",3,', 10)] == ["a,b", 'x "y"', "3", ""]
    assert cells(b'"a,b"', 10)[0][1:] == (11, 14)


def test_a_report_without_its_reader_says_how_to_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ncu_report", None)
    result = triage("kernel is slow", [Document.of("r.bin", b"NVR\x00\x02\x00\x00\x00" + b"\x01" * 100)])
    assert "--page raw" in (result.gathered.inputs[0].reason or "")
    assert NcuReport().owns(Document.of("r", b"NVR\x00"))


RULE = """\
    WRN   The memory access pattern for shared loads might not be optimal and causes on average a {ways} - way
          bank conflict across all 1048576 shared load requests.This results in 7340032 bank conflicts, which
          represent {share}% of the overall 8388608 wavefronts for shared loads.
"""


def test_wrapped_sentences_are_one() -> None:
    got = facts(NcuText(), RULE.format(ways="8.0", share="87.50"))
    assert got["kernel.conflict_ways"].value == 8.0
    assert got["kernel.excess_wavefronts"].value == 0.875


def test_mild_conflicts_do_not_lead() -> None:
    assert (
        lead("is this kernel slow?", RULE.format(ways="1.1", share="9.10").replace("WRN", "INF"))
        != "cuda.bank_conflicts"
    )


def test_nvprof_takes_the_average() -> None:
    got = facts(
        NcuText(),
        "    Kernel: foo(float*)\n  10  gld_efficiency  Global Memory Load Efficiency  10.00%  90.00%  25.00%\n",
    )
    assert got["kernel.load_efficiency"].value == 0.25
    assert got["kernel.load_efficiency"].subject.label == "foo"


def test_rates_are_not_shares() -> None:
    assert "kernel.memory" not in facts(NcuText(), "    Memory Throughput      Gbyte/s       345.14\n    Section: x\n")


PTXAS = """ptxas info    : Compiling entry function '_Z8attn_fwdPKfPf' for 'sm_80'
    64 bytes stack frame, {spill} bytes spill stores, {spill} bytes spill loads
ptxas info    : Used {regs} registers, 392 bytes cmem[0]
"""


@pytest.mark.parametrize(
    ("spill", "regs", "want"),
    [
        (1896, 255, "cuda.register_spill"),
        (128, 255, "cuda.register_spill"),
        (28, 40, "healthy"),
        (0, 255, "inconclusive"),
    ],
)
def test_spills_are_judged_with_registers(spill: int, regs: int, want: str) -> None:
    assert lead("the kernel spills, is that why it is slow?", PTXAS.format(spill=spill, regs=regs)) == want


def test_mangled_names() -> None:
    got = facts(Ptxas(), PTXAS.format(spill=400, regs=255))
    assert got["kernel.spill.bytes"].subject.label == "attn_fwd"


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("void at::native::(anonymous namespace)::multi_tensor<int>(T1)", "at::native::multi_tensor"),
        ("std::enable_if<!T7, void>::type internal::gemvx::kernel<int>(T13)", "internal::gemvx::kernel"),
        ("copy_strided(const float *, float *)", "copy_strided"),
    ],
)
def test_short_names(name: str, want: str) -> None:
    assert short(name) == want


OCCUPANCY = """    Memory Throughput      %  {memory}
    Compute (SM) Throughput  %  {sm}
    DRAM Throughput        %  {memory}
    Theoretical Occupancy  %  18.75
    Achieved Occupancy     %  18.31
"""


def test_occupancy_matters_only_below_the_roofs() -> None:
    assert lead("kernel is slow", OCCUPANCY.format(memory="12.0", sm="9.0")) == "cuda.low_occupancy"
    assert lead("kernel is slow", OCCUPANCY.format(memory="30.0", sm="92.0")) == "cuda.compute_bound"
    assert lead("kernel is slow", OCCUPANCY.format(memory="91.0", sm="20.0")) == "cuda.memory_bound"


def test_a_row_of_two_thousand_cells_is_read_whole() -> None:
    """`--set full --page raw --csv` has rows of tens of kilobytes."""
    other = [f"l1tex__filler_metric_number_{n}.sum" for n in range(2000)]
    head = ["ID", "Kernel Name", *other[:1000], "dram__throughput.avg.pct_of_peak_sustained_elapsed", *other[1000:]]
    unit = ["", "", *[""] * 1000, "%", *[""] * 1000]
    row = ["0", "add(float*)", *["1"] * 1000, "91.5", *["1"] * 1000]
    text = "\n".join(",".join(f'"{c}"' for c in cells) for cells in (head, unit, row)) + "\n"
    doc = Document.of("a.csv", text.encode())
    (fact,) = [f for f in NcuCsv().parse(doc) if f.signal == "kernel.dram"]
    assert fact.value == 0.915 and fact.spans[0].quote == "91.5" and not doc.lines_skipped
