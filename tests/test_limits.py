"""Limits: measured beside what THIS machine allows, or null with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.document import Document
from diagnose.gather import gather, number
from diagnose.limits import is_floor, limits, met
from diagnose.limits_collectives import ring_exists
from diagnose.models import CaptureRef, Evidence, Limit, Subject, Value

SHARED = Path(__file__).parents[1].parent / "shared" / "captures" / "h100x2"
H100 = "NVIDIA H100 80GB HBM3"


class Facts:
    """A handful of evidence, numbered as it comes."""

    def __init__(self) -> None:
        self.items: list[Evidence] = []

    def add(self, signal: str, value: Value, unit: str | None = None, *, file: str = "a", quote: str | None = None,
            **subject: object) -> Facts:  # fmt: skip
        self.items.append(
            Evidence(
                id=f"E{len(self.items) + 1}", kind="observed", signal=signal, value=value, unit=unit, quote=quote,
                subject=Subject.model_validate(subject), capture=CaptureRef(name=file, sha256="", line=1, bytes=(0, 1)),
            )
        )  # fmt: skip
        return self

    def gpus(self, count: int, name: str = H100) -> Facts:
        for i in range(count):
            self.add("gpu.name", name, gpu=i, host="n")
        return self.add("nccl_tests.nranks", float(count), "count")

    def links(self, matrix: dict[tuple[int, int], str]) -> Facts:
        for (a, b), kind in matrix.items():
            self.add("topo.link", kind, gpu=a, peer=b, file="topo")
        return self

    def mesh(self, count: int, kind: str) -> Facts:
        return self.links({(a, b): kind for a in range(count) for b in range(count) if a != b})

    def busbw(self, value: float, size: int = 1 << 30, op: str = "all_reduce") -> Facts:
        return self.add("nccl_tests.peak_busbw", value, "GB/s", label=f"{op} {size} B in-place")

    def all(self) -> list[Limit]:
        return limits(self.items)[0]

    def only(self) -> Limit:
        (got,) = self.all()
        return got


@pytest.mark.parametrize(
    ("facts", "what", "limit", "ratio"),
    [
        (Facts().gpus(2).mesh(2, "NV18").busbw(313.3), "all-reduce busbw, 2 GPUs, NV18, ring", 370.8, 0.845),
        (Facts().gpus(8).mesh(8, "NV18").busbw(366.0), "all-reduce busbw, 8 GPUs, NV18, ring", 370.8, 0.987),
        (Facts().gpus(8).mesh(8, "NV18").busbw(478.0), "all-reduce busbw, 8 GPUs, NV18, NVLS", 490.3, 0.975),
        (Facts().gpus(2).mesh(2, "NV18").busbw(27.5), "all-reduce busbw, 2 GPUs, NV18, ring", 370.8, 0.074),
        (Facts().gpus(2).mesh(2, "NV18").busbw(355.0, op="sendrecv"), "sendrecv busbw, 2 GPUs, NV18", 370.8, 0.957),
        (
            Facts().gpus(8, "NVIDIA A100-SXM4-80GB").mesh(8, "NV12").busbw(232.0),
            "all-reduce busbw, 8 GPUs, NV12, ring", 240.0, 0.967,
        ),
        (
            Facts().gpus(4, "NVIDIA A100-SXM4-40GB").mesh(4, "NV4").busbw(220.0),
            "all-reduce busbw, 4 GPUs, NV4, ring", 240.0, 0.917,
        ),
        (
            Facts().gpus(2, "NVIDIA GeForce RTX 3090").mesh(2, "NV4").busbw(42.0),
            "all-reduce busbw, 2 GPUs, NV4, ring", 48.0, 0.875,
        ),
        (
            Facts().gpus(8, "NVIDIA B200").mesh(8, "NV18").busbw(835.0),
            "all-reduce busbw, 8 GPUs, NV18, NVLS", 830.9, 1.005,
        ),
        (
            Facts().gpus(2, "NVIDIA GeForce RTX 4090").mesh(2, "PHB").busbw(10.0),
            "all-reduce busbw, 2 GPUs, PCIe 4.0 x16, PHB", 31.51, 0.317,
        ),
        (Facts().gpus(8, "NVIDIA L40S").busbw(18.0), "all-reduce busbw, 8 GPUs, PCIe 4.0 x16", 31.51, 0.571),
        (Facts().gpus(8, H100).busbw(95.0), "all-reduce busbw, 8 GPUs, NV18, ring", 370.8, 0.256),
    ],
)  # fmt: skip
def test_collective_ceilings_of_this_machine(facts: Facts, what: str, limit: float, ratio: float) -> None:
    got = facts.only()
    assert got.what == what
    assert got.limit == pytest.approx(limit, abs=0.1)
    assert got.ratio == pytest.approx(ratio, abs=0.002)
    assert got.reason is None
    assert got.limit_source and got.evidence


def test_the_source_is_a_reference_times_links() -> None:
    found, references = limits(Facts().gpus(2).mesh(2, "NV18").busbw(313.3).items)
    assert found[0].limit_source == "R1 x 18"
    assert (references[0].id, references[0].value) == ("R1", 20.6)
    assert "topo.h" in references[0].source


def test_a_cube_mesh_uses_all_six_links() -> None:
    pairs = {
        (0, 1): "NV1", (0, 2): "NV1", (0, 3): "NV2", (0, 4): "NV2", (1, 2): "NV2", (1, 3): "NV1", (1, 5): "NV2",
        (2, 3): "NV2", (2, 6): "NV1", (3, 7): "NV1", (4, 5): "NV1", (4, 6): "NV1", (4, 7): "NV2", (5, 6): "NV2",
        (5, 7): "NV1", (6, 7): "NV2",
    }  # fmt: skip
    everything = {(a, b): pairs.get((a, b), "SYS") for a in range(8) for b in range(a + 1, 8)}
    got = Facts().gpus(8, "Tesla V100-SXM2-32GB").links(everything).busbw(110.0).only()
    assert got.limit == 120
    assert "NV1/NV2" in got.what


def test_bridged_pairs_do_not_make_a_ring() -> None:
    links = {(0, 1): "NV12", (2, 3): "NV12", (0, 2): "SYS", (0, 3): "SYS", (1, 2): "SYS", (1, 3): "SYS"}
    got = Facts().gpus(4, "NVIDIA A100 80GB PCIe").links(links).busbw(20.0).only()
    assert got.what == "all-reduce busbw, 4 GPUs, PCIe 4.0 x16, SYS, NVLink between some pairs only"
    assert got.limit == pytest.approx(31.51)


@pytest.mark.parametrize(
    ("edges", "possible"),
    [
        ({(0, 1), (1, 2), (2, 3), (0, 3)}, True),
        ({(0, 1), (1, 2), (2, 3)}, False),
        ({(0, 1), (2, 3)}, False),
    ],
)
def test_rings(edges: set[tuple[int, int]], possible: bool) -> None:
    assert ring_exists([0, 1, 2, 3], edges) is possible


def test_the_pcie_slot_that_was_read_beats_the_product() -> None:
    facts = Facts().gpus(2, "NVIDIA GeForce RTX 4090").mesh(2, "PHB").busbw(6.0)
    for gpu, width in ((0, 16.0), (1, 8.0)):
        facts.add("gpu.pcie.gen", 1.0, "count", gpu=gpu).add("gpu.pcie.gen.max", 4.0, "count", gpu=gpu)
        facts.add("gpu.pcie.width", width, "count", gpu=gpu)
    got = facts.only()
    assert got.what == "all-reduce busbw, 2 GPUs, PCIe 4.0 x8, PHB"
    assert got.limit == pytest.approx(15.75, abs=0.01)


def test_an_idle_link_does_not_lower_the_ceiling() -> None:
    facts = Facts().add("gpu.name", H100, gpu=0).add("gpu.pcie.gen", 1.0, "count", gpu=0)
    got = facts.add("copy.bandwidth", 55.0, "GB/s", label="pinned h2d 256 MiB").only()
    assert got.what == "H2D copy, PCIe 5.0 x16"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (Facts().busbw(21.0), "no reading names the GPU"),
        (Facts().gpus(2, "H100").busbw(120.0), "does not name one product"),
        (Facts().gpus(2, "MI300X").busbw(120.0), "no entry"),
        (Facts().gpus(2, "MI300X").mesh(2, "NV18").busbw(120.0), "rate of a link is not known"),
        (Facts().gpus(2).mesh(2, "NV18").busbw(20.0, size=1 << 20), "latency still counts"),
        (
            Facts().add("nccl_tests.hosts", 2.0, "count").gpus(16).busbw(40.0),
            "number and rate of the network adapters",
        ),
        (
            Facts().add("gpu.name", H100, gpu=0).add("gpu.name", "NVIDIA L4", gpu=1).busbw(4.0),
            "the GPUs differ",
        ),
    ],
)
def test_what_is_not_known_is_null_with_a_reason(facts: Facts, says: str) -> None:
    got = facts.only()
    assert (got.limit, got.ratio) == (None, None)
    assert got.reason is not None and says in got.reason


def test_a_figure_out_of_reach_is_kept_and_doubted() -> None:
    got = Facts().gpus(2, "NVIDIA GeForce RTX 4090").mesh(2, "PHB").busbw(300.0).only()
    assert got.ratio is not None and got.ratio > 9
    assert got.reason is not None and "above its ceiling" in got.reason


def test_without_topology_the_lower_ceiling_that_fits_is_taken() -> None:
    assert Facts().gpus(2).busbw(313.0).only().limit == pytest.approx(370.8)
    assert Facts().gpus(2).busbw(100.0).only().limit == pytest.approx(123.6), "a board of four has no switch"
    bridge = Facts().gpus(2, "NVIDIA A100 80GB PCIe")
    assert bridge.busbw(20.0).only().limit == pytest.approx(31.51)
    assert Facts().gpus(2, "NVIDIA A100 80GB PCIe").busbw(200.0).only().limit == 240


def test_nccls_own_totals_serve_when_there_is_no_topology() -> None:
    facts = Facts().gpus(2).busbw(27.0)
    facts.add("nccl.topo.max_bw", 48.0, "GB/s", quote="=== System : maxBw 48.0 totalBw 370.8 ===")
    got = facts.only()
    assert (got.limit, got.what) == (370.8, "all-reduce busbw, 2 GPUs, NV18, ring")
    assert got.limit_source.endswith("totalBw")


def test_several_nodes_are_bound_by_their_adapters() -> None:
    def cluster(value: float) -> Facts:
        facts = Facts().add("nccl_tests.hosts", 3.0, "count").gpus(24, "NVIDIA A100-SXM4-40GB").busbw(value)
        for nic in range(4):
            facts.add("rdma.port.rate", 200.0, "Gb/s", nic=f"mlx5_{nic}", host="n")
        return facts

    got = cluster(96.0).only()
    assert got.what == "all-reduce busbw, 24 GPUs, 3 nodes, 4 x 200 Gb/s, ring"
    assert (got.limit, got.ratio) == (100.0, 0.96)


def test_tree_over_two_nodes_may_count_more_than_the_wire() -> None:
    facts = Facts().add("nccl_tests.hosts", 2.0, "count").gpus(16, "NVIDIA A100-SXM4-40GB").busbw(150.0)
    facts.add("rdma.port.rate", 200.0, "Gb/s", nic="mlx5_0").add("nccl.ib.devices", "[0]mlx5_0:1/IB [1]mlx5_1:1/IB "
                                                                "[2]mlx5_2:1/IB [3]mlx5_3:1/IB")  # fmt: skip
    got = facts.only()
    assert got.limit == pytest.approx(187.5)
    assert "tree" in got.what


def test_a_table_without_its_command_may_be_an_all_reduce() -> None:
    got = Facts().gpus(8).mesh(8, "NV18").busbw(480.0, op="collective").only()
    assert (got.what, got.ratio) == ("collective busbw, 8 GPUs, NV18, NVLS", pytest.approx(0.979, abs=0.001))


def test_a_figure_alone_bounds_the_link_class() -> None:
    got = Facts().busbw(846.8).only()
    assert got.limit is None and got.reason is not None
    assert "no reading names the GPU" in got.reason and "NVLink 5" in got.reason


def test_average_bandwidth_is_never_judged() -> None:
    assert Facts().gpus(2).mesh(2, "NV18").add("nccl_tests.avg_busbw", 78.0, "GB/s").all() == []


# ---------------------------------------------------------------- copies, RDMA, kernels, serving


def test_copies_beside_the_slot_and_the_memory() -> None:
    facts = Facts().add("gpu.name", H100, gpu=0)
    facts.add("copy.bandwidth", 55.1, "GB/s", label="pinned h2d 256 MiB")
    facts.add("copy.bandwidth", 7.5, "GB/s", label="pageable h2d 256 MiB")
    facts.add("copy.bandwidth", 55.2, "GB/s", label="pinned d2h 256 MiB")
    facts.add("copy.bandwidth", 3003.0, "GB/s", label="device d2d 1024 MiB")
    got = {item.what: item.ratio for item in facts.all()}
    assert got == {
        "H2D copy, PCIe 5.0 x16": pytest.approx(0.874, abs=0.002),
        "pageable copy H2D, PCIe 5.0 x16": pytest.approx(0.119, abs=0.002),
        "D2H copy, PCIe 5.0 x16": pytest.approx(0.876, abs=0.002),
        "device copy, H100 80GB HBM3": pytest.approx(0.896, abs=0.002),
    }
    assert not [what for what in got if "H2D copy" in what and "pageable" in what]


def test_small_copies_and_unknown_slots_have_no_ratio() -> None:
    small = Facts().add("gpu.name", H100, gpu=0).add("copy.bandwidth", 7.3, "GB/s", label="pinned h2d 64 KiB").only()
    assert small.limit is None and small.reason is not None and "small" in small.reason
    blind = Facts().add("copy.bandwidth", 55.0, "GB/s", label="pinned h2d 256 MiB").only()
    assert blind.limit is None and blind.reason is not None and "PCIe 4.0 x16" in blind.reason
    grace = Facts().add("gpu.name", "NVIDIA GH200 480GB").add("copy.bandwidth", 380.0, "GB/s", label="h2d").only()
    assert grace.limit is None and grace.reason is not None and "C2C" in grace.reason


def test_peer_copies() -> None:
    facts = Facts().add("gpu.name", H100, gpu=0).mesh(2, "NV18")
    got = facts.add("p2p.bandwidth", 395.2, "GB/s", gpu=0, peer=1, label="unidirectional").only()
    assert (got.what, got.limit) == ("peer copy, GPUs 0-1, NV18", 450.0)
    both = Facts().add("gpu.name", H100, gpu=0).mesh(2, "NV18")
    both.add("p2p.bandwidth", 780.0, "GB/s", gpu=0, peer=1, label="bidirectional")
    assert both.only().limit == 900.0


def test_rdma_beside_the_port() -> None:
    facts = Facts().add("rdma.port.rate", 400.0, "Gb/s", nic="mlx5_0")
    got = facts.add("rdma.perftest.bw", 15.2, "GB/s", label="ib_write_bw 65536 B").only()
    assert (got.what, got.limit, got.ratio) == ("RDMA write, 400 Gb/s", 50.0, 0.304)
    mixed = facts.add("rdma.port.rate", 100.0, "Gb/s", nic="mlx5_1").only()
    assert mixed.limit is None and mixed.reason is not None and "several rates" in mixed.reason


def test_gemm_beside_the_dense_peak() -> None:
    facts = Facts().add("gpu.name", H100, gpu=0).add("kernel.flops", 802.3, "TFLOP/s", label="gemm_bf16_8192")
    assert facts.only().ratio == pytest.approx(0.811, abs=0.001)
    unnamed = Facts().add("gpu.name", H100, gpu=0).add("kernel.flops", 6.3, "TFLOP/s", label="gemm_naive").only()
    assert unnamed.limit is None


def test_tpot_beside_the_weight_read() -> None:
    def server(**more: str) -> Facts:
        facts = Facts().add("gpu.name", H100, gpu=0).add("serving.weights", 15.0, "GiB")
        for flag, value in more.items():
            facts.add("serving.arg", value, label=flag.replace("_", "-"))
        facts.add("serving.client.tpot", 7.6, "ms", label="mean")
        return facts.add("serving.client.tpot", 7.0, "ms", label="median")

    got = server().only()
    assert (got.what, got.measured, got.unit) == ("TPOT of a decode step, weight read", 7.0, "ms")
    assert got.limit == pytest.approx(4.81, abs=0.01)
    assert got.ratio == pytest.approx(1.456, abs=0.001)
    assert is_floor(got) and met(got)
    for flags in ({"speculative_config": "{}"}, {"model": "mistralai/Mixtral-8x7B-v0.1"}):
        assert server(**flags).only().limit is None


LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "intermediate_size": 14336, "vocab_size": 128256}  # fmt: skip


def configured(**client: float) -> Facts:
    facts = Facts().add("gpu.name", H100, gpu=0).add("model.trait", "bfloat16", label="torch_dtype")
    for key, value in LLAMA.items():
        facts.add("model.size", float(value), "count", label=key)
    for name, reading in client.items():
        label = "median" if name in ("ttft", "tpot") else None
        facts.add(f"serving.client.{name}", reading, "ms" if label else "count", label=label)
    return facts


def test_floors_from_the_models_config() -> None:
    assert configured(tpot=7.0).only().limit == pytest.approx(4.48, abs=0.02)
    halved = configured(tpot=7.0).add("serving.arg", "2", label="tensor-parallel-size")
    assert halved.only().limit == pytest.approx(2.24, abs=0.02)
    got = configured(ttft=250.0, input_tokens=819200.0, prompts=100.0).only()
    assert got.what == "TTFT, prefill of 8192 tokens"
    assert (got.limit, got.ratio) == (pytest.approx(133.4, abs=0.5), pytest.approx(1.874, abs=0.01))
    cached = configured(ttft=250.0, input_tokens=819200.0, prompts=100.0)
    assert cached.add("serving.prefix_hit_rate", 0.8, "fraction").only().limit is None


def test_layers_that_are_not_modelled_give_no_floor() -> None:
    hybrid = configured(tpot=7.0).add("model.trait", "full_attention, linear_attention", label="layer_types")
    assert hybrid.all() == []


def test_a_disabled_peer_path_is_not_judged() -> None:
    facts = Facts().add("gpu.name", H100, gpu=0).mesh(2, "NV18")
    assert facts.add("p2p.bandwidth", 30.0, "GB/s", gpu=0, peer=1, label="unidirectional p2p disabled").all() == []


def test_met_reads_ceilings_and_floors_the_right_way_round() -> None:
    low = Facts().gpus(2).mesh(2, "NV18").busbw(27.0).only()
    high = Facts().gpus(2).mesh(2, "NV18").busbw(313.0).only()
    assert not met(low) and met(high)
    slow = Facts().add("gpu.name", H100).add("serving.weights", 15.0, "GiB")
    assert not met(slow.add("serving.client.tpot", 26.0, "ms", label="median").only())


@pytest.mark.skipif(not SHARED.exists(), reason="recorded captures are not beside this checkout")
@pytest.mark.parametrize(
    ("files", "what", "least", "most"),
    [
        (["nccl/00-baseline.log", "env/nvidia-smi-topo-m.txt"], "all-reduce busbw, 2 GPUs, NV18, ring", 0.75, 1.0),
        (["nccl/16-quiet.log", "env/nvidia-smi-topo-m.txt"], "all-reduce busbw, 2 GPUs, NV18, ring", 0.75, 1.0),
        (["nccl/14-json.json"], "all-reduce busbw, 2 GPUs, NV18, ring", 0.75, 1.0),
        (["nccl/10-sendrecv.log"], "sendrecv busbw, 2 GPUs, NV18", 0.75, 1.0),
        (["nccl/01-p2p-disable.log"], "all-reduce busbw, 2 GPUs, NV18, ring", 0.0, 0.1),
        (["nccl/08-socket-lo.log"], "all-reduce busbw, 2 GPUs, NV18, ring", 0.0, 0.05),
    ],
)
def test_recorded_captures(files: list[str], what: str, least: float, most: float) -> None:
    docs = [Document.of(name, (SHARED / name).read_bytes()) for name in files]
    found = [item for item in limits(number(gather(docs)))[0] if item.what == what]
    assert found and found[0].ratio is not None
    assert least <= found[0].ratio <= most
