"""ACS from configuration space: the capability chain, what is not to be read, recorded trees (simulated registers)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from diagnose.probes.dmesg import PciReader
from diagnose.probes.pci_acs import AcsReader, bridges, control, lines, worded

from diagnose.cassette import Cassette
from diagnose.document import Document
from diagnose.host import Host
from diagnose.live import Live
from diagnose.triage import investigate

from .trees import tree

AER, ACS = 0x0001, 0x000D
REDIRECTS = 0x1D  # SrcValid, ReqRedir, CmpltRedir, UpstreamFwd


def space(*caps: tuple[int, int], size: int = 4096) -> bytes:
    """Configuration space with extended capabilities (id, control) one after the other."""
    out = bytearray(size)
    for i, (ident, value) in enumerate(caps):
        at, following = 0x100 + 0x48 * i, 0x100 + 0x48 * (i + 1) if i + 1 < len(caps) else 0
        struct.pack_into("<IHH", out, at, ident | 1 << 16 | following << 20, 0x5F, value)
    return bytes(out)


def test_the_register_is_found_behind_another_capability() -> None:
    assert control(space((AER, 7), (ACS, REDIRECTS))) == REDIRECTS
    assert worded(REDIRECTS) == "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-"
    assert control(space((AER, 7))) is None and control(bytes(4096)) is None and control(b"\xff" * 4096) is None


def test_without_the_extended_part_nobody_can_say() -> None:
    with pytest.raises(ValueError, match="64 of 4096 bytes"):
        control(space((ACS, 1), size=4096)[:64])


def test_a_chain_that_runs_in_a_circle_or_out_of_the_space_ends() -> None:
    circle, beyond = bytearray(4096), bytearray(0x104 + 4)
    struct.pack_into("<I", circle, 0x100, AER | 0x100 << 20)
    struct.pack_into("<I", beyond, 0x100, AER | 0xFFC << 20)
    assert control(bytes(circle)) is None and control(bytes(beyond)) is None


def recorded(tmp_path: Path, config: bytes | None) -> Path:
    root = tree(tmp_path / "root", "ib")
    for address in bridges(Host.at({}, root)) if config is not None else ():
        place = next((root / "sys/devices").glob(f"**/{address}"))
        (place / "config").write_bytes(config or b"")
    return root


def test_bridges_above_gpus_and_adapters_of_a_recorded_tree(tmp_path: Path) -> None:
    host = Host.at({}, recorded(tmp_path, space((ACS, REDIRECTS))))
    found = bridges(host)
    assert found["0000:15:01.0"] == ["0000:18:00.0", "0000:19:00.0"] and found["0000:17:00.0"] == ["0000:18:00.0"]
    text = "\n".join(lines(host))
    doc = Document.of("x", text.encode())
    assert [f.value for f in PciReader().parse(doc) if f.signal == "pci.acs"] == ["on"]
    assert not list(AcsReader().parse(doc))


def test_unknown_is_said_bridge_by_bridge(tmp_path: Path) -> None:
    for config in (space((ACS, REDIRECTS))[:64], None):
        doc = Document.of("x", "\n".join(lines(Host.at({}, recorded(tmp_path / str(bool(config)), config)))).encode())
        unread = list(AcsReader().parse(doc))
        assert len(unread) == len(bridges(Host.at({}, tmp_path / str(bool(config)) / "root"))) == 8
        assert not [f for f in PciReader().parse(doc) if f.signal == "pci.acs"]


def test_a_recorded_tree_with_redirects_is_named(tmp_path: Path) -> None:
    root = recorded(tmp_path, space((ACS, REDIRECTS)))
    live = Live(Host.at({}, root), Cassette.create(tmp_path / "run.cassette", "x", ("recorded", "simulated")))
    report, _ = investigate("NCCL all-reduce is slow, P2P between GPUs crawls", [], None, ("en",), None, live)
    assert report.findings[0].cause == "nccl.p2p_broken_acs_iommu"
