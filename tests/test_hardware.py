"""The hardware table: exact names, dense figures, sources; unknown means no number."""

from __future__ import annotations

import pytest

from diagnose import hardware


@pytest.mark.parametrize(
    ("name", "bf16", "memory", "links"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 3350, 18),
        ("NVIDIA H100 PCIe", 756, 2000, 12),
        ("NVIDIA H200", 989.4, 4800, 18),
        ("NVIDIA A100-SXM4-80GB", 312, 2039, 12),
        ("A100-SXM4-40GB", 312, 1555, 12),
        ("NVIDIA A100 80GB PCIe", 312, 1935, 12),
        ("NVIDIA L40S", 362.05, 864, 0),
        ("NVIDIA GeForce RTX 4090", 165.2, 1008, 0),
        ("NVIDIA B200", 2250, 8000, 18),
        ("Tesla V100-SXM2-16GB", None, 900, 6),
        ("NVIDIA L4", 121, 300, 0),
        ("8x NVIDIA H20", 148, 4000, 18),
        ("H100 SXM5", 989.4, 3350, 18),
        ("T4", None, 320, 0),
    ],
)
def test_products_by_the_name_nvidia_smi_prints(name: str, bf16: float | None, memory: float, links: int) -> None:
    gpu = hardware.gpu(name)
    assert gpu is not None
    assert (gpu.bf16, gpu.memory, gpu.links) == (bf16, memory, links)
    assert gpu.dense and gpu.source and gpu.power > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("H100", "several"),
        ("NVIDIA A100", "does not name one product"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG slice"),
        ("AMD Instinct MI300X", "no entry"),
        ("NVIDIA H1000", "no entry"),
        ("RTX PRO 6000 Blackwell", "three editions"),
    ],
)
def test_an_unknown_name_has_no_number_and_a_reason(name: str, says: str) -> None:
    assert hardware.gpu(name) is None
    reason = hardware.unknown(name)
    assert says in reason or "does not name one product" in reason


def test_memory_is_called_what_it_is() -> None:
    """Stacked memory is fast; a kind that does not fit its rate would be a slip of the table."""
    for gpu in hardware.GPUS.values():
        if gpu.form in ("workstation", "GeForce"):
            assert gpu.kind.startswith("GDDR"), gpu.name
        elif gpu.form == "SXM" or gpu.memory > 1800:
            assert gpu.kind.startswith("HBM"), gpu.name
    names = ("L40S", "L4", "H100", "A100 80GB PCIe", "4090")
    kinds = {name: found.kind for name in names if (found := hardware.meant(name)[0])}
    assert kinds == {"L40S": "GDDR6", "L4": "GDDR6", "H100": "HBM3", "A100 80GB PCIe": "HBM2e", "4090": "GDDR6X"}


def test_no_entry_carries_a_sparse_peak() -> None:
    """FP8 is twice FP16 on every product that has it; a sparse figure would break one of the two."""
    for gpu in hardware.GPUS.values():
        if gpu.fp8 is not None and gpu.tensor16 is not None:
            assert gpu.fp8 / gpu.tensor16 == pytest.approx(2.0, rel=0.02), gpu.name
        assert gpu.source.startswith("NVIDIA "), gpu.name
        assert (gpu.nvlink == 0) == (gpu.links == 0), gpu.name


def test_aliases_point_at_entries_and_ambiguous_names_do_not() -> None:
    assert set(hardware.ALIASES.values()) <= set(hardware.GPUS)
    assert not set(hardware.AMBIGUOUS) & (set(hardware.GPUS) | set(hardware.ALIASES))


def test_geforce_40_and_50_have_no_peer_access() -> None:
    for name in ("GeForce RTX 4090", "GeForce RTX 5090"):
        gpu = hardware.gpu(name)
        assert gpu is not None and gpu.p2p == "none"
    bridged = hardware.gpu("NVIDIA GeForce RTX 3090")
    assert bridged is not None and bridged.p2p == "nvlink"


@pytest.mark.parametrize(
    ("cc", "rate"), [(6.0, 18.0), (7.0, 20.0), (7.5, 20.0), (8.0, 20.0), (8.6, 12.0), (9.0, 20.6), (10.0, 40.1)]
)
def test_nvlink_collective_rates(cc: float, rate: float) -> None:
    got = hardware.nvlink_rate(cc)
    assert got is not None and got.value == rate and "topo.h" in got.source


def test_pcie_rates_round_to_the_known_ones() -> None:
    known = {(3, 16): 15.75, (4, 16): 31.51, (5, 16): 63.02, (2, 4): 2.0, (1, 1): 0.25}
    for (generation, width), value in known.items():
        got = hardware.pcie_rate(generation, width)
        assert got is not None and got.value == pytest.approx(value, abs=0.005)
    assert hardware.pcie_rate(9, 16) is None
    assert hardware.pcie_rate(4, 0) is None


def test_a_bandwidth_alone_names_no_more_than_a_link_class() -> None:
    assert "NVLink 5" in hardware.link_class(834)
    assert hardware.link_class(20) == ""
