"""Which bytes went over which path: counters of a simulated NVML and tree, the account, what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diagnose.probes import path_bytes, path_counters
from diagnose.probes.path_counters import Counters, Watch, Work, lines, read

from diagnose import engine
from diagnose.document import Document


class SimulatedNvml:
    """Counters as a Hopper GPU has them: NVLink in KiB over all links, PCIe as a 32-bit count."""

    class NVMLError(Exception):
        """As pynvml's."""

    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX = 138
    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX = 139
    NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES = 202
    NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES = 204
    NVML_FI_DEV_PCIE_COUNT_TX_BYTES = 197
    NVML_FI_DEV_PCIE_COUNT_RX_BYTES = 198
    NVML_PCIE_UTIL_TX_BYTES = 0
    NVML_PCIE_UTIL_RX_BYTES = 1

    def __init__(self, kib: dict[int, int], aggregate: bool = True, per_link: bool = True) -> None:
        self.kib, self.aggregate, self.per_link = kib, aggregate, per_link

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetPcieReplayCounter(self, handle: int) -> int:
        return 3

    def nvmlDeviceGetPcieThroughput(self, handle: int, way: int) -> int:
        return 2_000_000 if way == 0 else 1_000_000  # KB/s

    def nvmlDeviceGetFieldValues(self, handle: int, asked: list[tuple[int, int]]) -> list[Any]:
        out = []
        for ident, scope in asked:
            whole = scope == 0xFFFFFFFF
            there = ident in self.kib and (self.aggregate if whole else self.per_link and scope < 2)
            amount = self.kib.get(ident, 0) // (1 if whole else 2)
            kind = 1 if ident in (197, 198) else 3
            value = SimpleNamespace(ullVal=amount, uiVal=amount & 0xFFFFFFFF)
            out.append(SimpleNamespace(nvmlReturn=0 if there else 3, valueType=kind, value=value))
        return out


def tree(root: Path, sent: int, again: int = 0) -> Path:
    files = {
        "sys/class/net/eth0/statistics/tx_bytes": sent, "sys/class/net/eth0/statistics/rx_bytes": sent // 2,
        "sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_data": sent // 4,
        "sys/class/infiniband/mlx5_0/ports/1/counters/port_rcv_data": 0,
    }  # fmt: skip
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/snmp").write_text(f"Tcp: RtoMin OutSegs RetransSegs\nTcp: 200 {sent // 1448} {again}\n")
    return root


def test_counters_of_a_tree_and_of_nvlink_in_bytes(tmp_path: Path) -> None:
    got = read(SimulatedNvml({138: 1000, 139: 500}), tree(tmp_path, 8000, 2))
    assert got.values["nvlink", "gpu0"] == {"tx": 1000 * 1024, "rx": 500 * 1024}
    assert got.values["nic", "eth0"] == {"tx": 8000, "rx": 4000}
    assert got.values["ib", "mlx5_0/1"] == {"tx": 8000, "rx": 0}
    assert got.values["tcp", "host"] == {"segments": 5, "retransmits": 2}
    assert got.values["pcie", "gpu0"] == {"replays": 3}


def test_without_the_sum_over_links_they_are_added_and_without_any_the_reason_is_said(tmp_path: Path) -> None:
    by_link = read(SimulatedNvml({138: 1000, 139: 500}, aggregate=False), tmp_path)
    assert by_link.values["nvlink", "gpu0"] == {"tx": 1000 * 1024, "rx": 500 * 1024}
    newer = read(SimulatedNvml({202: 7, 204: 9}), tmp_path)
    assert newer.values["nvlink", "gpu0"] == {"tx": 7, "rx": 9}
    none = read(SimulatedNvml({}), tmp_path)
    assert "NVLink byte counters" in none.unknown["nvlink", "gpu0"]
    assert read(None, tmp_path).unknown["nvlink", "gpu"] == "no NVIDIA driver"


def test_a_counter_of_32_bits_is_not_trusted(tmp_path: Path) -> None:
    got = read(SimulatedNvml({138: 1, 139: 1, 197: 10, 198: 10}), tmp_path)
    assert "tx" not in got.values["pcie", "gpu0"]


def test_a_counter_that_went_back_says_nothing() -> None:
    before, after = Counters({("nic", "eth0"): {"tx": 9, "rx": 1}}), Counters({("nic", "eth0"): {"tx": 2, "rx": 4}})
    assert after.since(before) == {("nic", "eth0"): {"rx": 3}}


def test_pcie_is_sampled_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_counters, "SETTLE", 0.0)
    watch = Watch(SimulatedNvml({138: 1, 139: 1}), tmp_path)
    while not watch.samples.get(("pcie", "gpu0"), {}).get("rx"):
        pass
    moved, _ = watch.stop(2.0)
    assert moved["pcie", "gpu0"]["sampled_tx"] == 4_000_000_000
    assert moved["pcie", "gpu0"]["sampled_rx"] == 2_000_000_000


@pytest.mark.parametrize(
    ("op", "ranks", "rank", "all_"),
    [("all_reduce", 4, 150, 600), ("all_reduce", 2, 100, 200), ("all_gather", 4, 75, 300), ("sendrecv", 4, 100, 400),
     ("broadcast", 4, 100, 300)],
)  # fmt: skip
def test_bytes_that_a_ring_needs(op: str, ranks: int, rank: int, all_: int) -> None:
    work = Work(op, 50, 2, ranks)
    assert (work.by_rank, work.by_all) == (rank, all_)


WORK = Work("all_reduce", 1 << 28, 1000, 4)
NEED = WORK.by_rank


@dataclass
class Account:
    """A simulated account of 1,000 all-reduces of 256 MiB on four ranks."""

    seconds: float = 1.2
    moved: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    unknown: dict[tuple[str, str], str] = field(default_factory=dict)

    def text(self) -> str:
        return "\n".join(lines(WORK, self.seconds, self.moved, self.unknown)) + "\n"


def facts(text: str) -> dict[tuple[str, str | None], Any]:
    doc = Document.of("x", text.encode(), ("simulated",))
    return {(f.signal, f.subject.label): f.value for f in path_bytes.PathBytesReader().parse(doc)}


def nvlink(share: float) -> dict[tuple[str, str], dict[str, int]]:
    return {("nvlink", f"gpu{i}"): {"tx": int(NEED * share), "rx": int(NEED * share)} for i in range(4)}


def test_the_account_is_read_back_with_its_shares() -> None:
    got = facts(Account(moved=nvlink(1.01) | {("pcie", "gpu0"): {"sampled_tx": NEED // 100, "replays": 2}}).text())
    assert got["path.expected", "rank"] == NEED and got["path.expected", "all"] == 4 * NEED
    assert got["path.share", "nvlink tx"] == pytest.approx(1.01, rel=1e-3)
    assert got["path.rate", "nvlink tx"] == pytest.approx(NEED * 1.01 / 1.2 / 1e9, rel=1e-3)
    assert got["path.carried", None] == "nvlink" and got["path.repeated", "pcie replays"] == 2


def test_staging_over_the_host_shows_on_pcie_and_sockets_on_the_interface() -> None:
    slot = {("pcie", f"gpu{i}"): {"tx": 5 * NEED, "sampled_tx": NEED, "sampled_rx": NEED} for i in range(4)}
    assert facts(Account(moved=nvlink(0.0) | slot).text())["path.carried", None] == "pcie"
    loop = {("nic", "lo"): {"tx": 4 * NEED, "rx": 4 * NEED}}
    assert facts(Account(moved=slot | loop).text())["path.carried", None].split(" + ") == ["nic lo", "pcie"]
    quiet = Account(moved={("nic", "eth0"): {"tx": 5000, "rx": 5000}}, unknown={("nvlink", "gpu0"): "Not Supported"})
    assert facts(quiet.text())["path.unread", "nvlink gpu0"] == "Not Supported"


TOPO = """\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV18\tNV18\tNV18\t0-63\t0
GPU1\tNV18\t X \tNV18\tNV18\t0-63\t0
GPU2\tNV18\tNV18\t X \tNV18\t0-63\t0
GPU3\tNV18\tNV18\tNV18\t X \t0-63\t0
"""
LOG = "node1:10:20 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via {via}\n"


def report(account: Account, via: str) -> Any:
    texts = {"sweep.txt": account.text(), "topo.txt": TOPO, "nccl.log": LOG.format(via=via)}
    return engine.report("all-reduce is slow", [Document.of(n, t.encode()) for n, t in texts.items()])


def of(report: Any, signal: str) -> list[Any]:
    return [e for e in report.evidence if e.signal == signal]


def test_log_counters_and_matrix_that_agree_raise_nothing_and_stand_beside_the_ceiling() -> None:
    names = {("nvlink", f"gpu{i}"): {"tx": NEED, "rx": NEED} for i in range(4)}
    got = report(Account(moved=names), "P2P/CUMEM")
    assert [e.value for e in of(got, "path.agreement")] == ["agree"] and got.findings == []


def test_nvlink_by_log_and_matrix_but_bytes_over_pcie_is_a_finding() -> None:
    slot = {("pcie", f"gpu{i}"): {"sampled_tx": NEED, "sampled_rx": NEED} for i in range(4)}
    got = report(Account(moved=nvlink(0.0) | slot, seconds=20.0), "P2P/CUMEM")
    assert [e.value for e in of(got, "path.agreement")] == ["disagree"]
    assert got.findings[0].cause == "nccl.nvlink_down"
    assert (
        report(Account(moved=nvlink(0.0) | slot, seconds=20.0), "SHM/direct/direct").findings[0].cause
        == "nccl.p2p_disabled"
    )


def test_rdma_by_log_but_bytes_over_an_interface_is_a_finding() -> None:
    net = {("nic", "eth0"): {"tx": 4 * NEED, "rx": 4 * NEED}, ("pcie", "gpu0"): {"sampled_tx": NEED}}
    got = report(Account(moved=nvlink(0.0) | net, seconds=200.0), "NET/IB/0")
    assert [e.value for e in of(got, "path.agreement")] == ["disagree"]
    assert got.findings[0].cause == "nccl.transport.socket_fallback"


def test_shared_memory_by_log_and_pcie_by_counter_agree() -> None:
    slot = {("pcie", f"gpu{i}"): {"sampled_tx": NEED, "sampled_rx": NEED} for i in range(4)}
    assert [e.value for e in of(report(Account(moved=slot), "SHM/direct/direct"), "path.agreement")] == ["agree"]


def test_twice_the_bytes_speaks_for_the_protocol() -> None:
    got = report(Account(moved=nvlink(2.0)), "P2P/CUMEM")
    assert "nccl.algorithm_choice" in {f.cause for f in got.findings} | {h.cause for h in got.hypotheses}


def smi(kib: int) -> str:
    """`nvidia-smi nvlink -gt d` of two GPUs with two links."""
    return "".join(
        f"GPU {g}: NVIDIA H100 80GB HBM3 (UUID: GPU-{g})\n"
        + "".join(f"\t Link {n}: Data Tx: {kib} KiB\n\t Link {n}: Data Rx: {kib + 1} KiB\n" for n in range(2))
        for g in range(2)
    )


TABLE = """# Collective test starting: all_reduce_perf
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong
   268435456      67108864     float     sum      -1  20000.0   13.42   20.13       0  20000.0   13.42   20.13       0
"""


@pytest.mark.parametrize(("after", "cause"), [(1_000_010, "nccl.p2p_disabled"), (9_000_000, None)])
def test_counters_of_nvidia_smi_before_and_after(after: int, cause: str | None) -> None:
    text = smi(1_000_000) + TABLE + smi(after)
    docs = [Document.of("a.txt", text.encode()), Document.of("topo.txt", TOPO.encode())]
    got = engine.report("all-reduce is slow", docs)
    moved = {(e.subject.gpu, e.subject.label): e.value for e in of(got, "nvlink.moved")}
    assert moved[0, "tx"] == (after - 1_000_000) * 2 * 1024 and len(moved) == 4
    assert ("nccl.p2p_disabled" in [f.cause for f in got.findings]) == (cause is not None)
