"""Readers of UCX, RDMA tools, MPI and KV transfers, on real captures and on the tools' formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.document import Document
from diagnose.models import Fact
from diagnose.plugin import readers

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[1].parent / "shared" / "captures" / "cpu-box"


def facts(text: str | bytes, *names: str) -> list[Fact]:
    doc = Document.of("x", text.encode() if isinstance(text, str) else text)
    picked = [r for r in readers()[0] if r.name in names and any(n in doc.data for n in r.needles)]
    return [fact for reader in picked for fact in reader.parse(doc)]


def values(got: list[Fact], signal: str) -> dict[str | None, object]:
    return {f.subject.label: f.value for f in got if f.signal == signal}


def test_protocol_tables_with_and_without_header_row() -> None:
    new = facts((DATA / "ucx" / "perftest22_tag_bw.tcp.client.txt").read_bytes(), "ucx")
    old = facts((DATA / "ucx" / "perftest_tag_bw.tcp.client.txt").read_bytes(), "ucx")
    for got in (new, old):
        protocols = values(got, "ucx.proto")
        assert protocols and all(str(v).endswith("| tcp/lo") for v in protocols.values())
        assert values(got, "ucx.env")["UCX_TLS"] == "tcp"
    assert values(new, "version")["ucx"] == "1.22.0" and values(old, "version")["ucx"] == "1.13.1"
    rate = next(f for f in new if f.signal == "ucx.perftest.bw")
    assert rate.value == pytest.approx(1412.04 * 2**20 / 1e9) and rate.unit == "GB/s"


def test_contention_shows_as_mean_above_median() -> None:
    got = facts((DATA / "ucx" / "busy_tag_lat.tcp.client.txt").read_bytes(), "ucx")
    ratio = next(f for f in got if f.signal == "ucx.perftest.mean_over_median")
    assert ratio.value == pytest.approx(259.099 / 5.833) and [i.value for i in ratio.inputs] == [259.099, 5.833]
    quiet = facts((DATA / "ucx" / "perftest22_tag_bw.tcp.client.txt").read_bytes(), "ucx")
    assert not [f for f in quiet if f.signal == "ucx.perftest.mean_over_median"]


def test_build_and_listing() -> None:
    build = values(facts((DATA / "ucx" / "ucx_info_v.libucx-cu12-1.22.0.txt").read_bytes(), "ucx"), "ucx.build")
    assert build == {"cuda": "with", "verbs": "without", "gdrcopy": "unmentioned"}
    listed = facts((DATA / "ucx" / "ucx_info_d.apt1.13.txt").read_bytes(), "ucx")
    assert values(listed, "ucx.transports")[None] == "cma,posix,self,sysv,tcp"
    cut = facts("# Configured with: --enable-mt --with-verbs [...]", "ucx")
    assert values(cut, "ucx.build") == {"verbs": "with"}  # what is cut away may name CUDA


def test_a_dump_of_defaults_is_no_environment() -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared captures")
    for name in ("ucx_info_c.apt1.13.txt", "ucx_info_f.libucx-cu12-1.22.0.txt"):
        assert not facts((SHARED / "ucx" / name).read_bytes(), "ucx"), name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mpirun -x UCX_TLS=rc,sm,self ./a.out", "rc,sm,self"),
        ('os.environ["UCX_TLS"] = "tcp,cuda_copy"', "tcp,cuda_copy"),
        ("  - name: UCX_TLS\n    value: ^cuda_ipc", "^cuda_ipc"),
        ('  - {name: UCX_TLS, value: "tcp"}', "tcp"),
    ],
)
def test_where_variables_are_set(text: str, value: str) -> None:
    assert values(facts(text, "ucx"), "ucx.env")["UCX_TLS"].strip(",") == value  # type: ignore[union-attr,attr-defined]


def test_slips_of_the_pen_and_real_names() -> None:
    assert values(facts("UCX_NET_DEVICE=mlx5_0:1", "ucx"), "ucx.env.typo") == {"UCX_NET_DEVICES": "UCX_NET_DEVICE"}
    for real in ("UCX_RC_TIMEOUT=1m", "UCX_DC_TIMEOUT=1m", "UCX_MODULES=all", "UCX_IB_TM=y", "UCX_HOME=/opt/ucx"):
        assert not values(facts(real, "ucx"), "ucx.env.typo"), real
    line = (
        "UCX WARN transport 'cuda_icp' is not available, please use one or more of: cma, cuda_copy, cuda_ipc, rc, tcp"
    )
    assert values(facts(line, "ucx"), "ucx.tls.typo") == {"cuda_ipc": "cuda_icp"}
    assert not values(facts(line.replace("cuda_icp", "rc_x"), "ucx"), "ucx.tls.typo")


def test_lanes_of_info_and_debug_lines() -> None:
    info = "[1] [n0:5:0] ucp_worker.c:1991 UCX INFO  a inter-node cfg#1 rma_am(tcp/eth0) am(tcp/eth0 rc_mlx5/mlx5_0:1) ka(tcp/eth0)"  # noqa: E501
    assert values(facts(info, "ucx"), "ucx.lane") == {
        "rma_am|inter-node": "tcp/eth0", "am|inter-node": "rc_mlx5/mlx5_0:1", "ka|inter-node": "tcp/eth0",
    }  # fmt: skip
    debug = (
        "UCX DEBUG lane[0]:  2:tcp/eno1.0 md[1] -> md[1]/tcp am am_bw#0\n"
        "UCX DEBUG lane[1]:  3:ud/mlx5_0:1.0 md[2] wireup"
    )
    assert values(facts(debug, "ucx"), "ucx.lane") == {"lanes|": "tcp/eno1"}


def test_ports_of_all_tools() -> None:
    text = (
        "CA 'mlx5_0'\n\tPort 1:\n\t\tState: Active\n\t\tPhysical state: LinkUp\n\t\tRate: 400\n"
        "hca_id:\tmlx5_1\n\t\tport:\t1\n\t\t\tstate:\t\t\tPORT_DOWN (1)\n\t\t\tactive_mtu:\t\t1024 (3)\n"
        "\t\t\tmax_mtu:\t\t4096 (5)\n"
        "link mlx5_2/1 state ACTIVE physical_state LINK_UP netdev eth2\n"
        "Infiniband device 'mlx5_3' port 1 status:\n\tstate:\t\t 4: ACTIVE\n\trate:\t\t 100 Gb/sec (4X EDR)\n"
    )
    got = facts(text, "rdma_port")
    assert {f.subject.nic: f.value for f in got if f.signal == "rdma.port.state"} == {
        "mlx5_0": "ACTIVE", "mlx5_1": "DOWN", "mlx5_2": "ACTIVE", "mlx5_3": "ACTIVE",
    }  # fmt: skip
    assert {f.subject.nic: f.value for f in got if f.signal == "rdma.port.rate"} == {"mlx5_0": 400.0, "mlx5_3": 100.0}
    assert [f.value for f in got if f.signal.startswith("rdma.port.mtu")] == [1024.0, 4096.0]
    for name in ("ibv_devinfo.txt", "ibstatus.txt"):
        assert [f.signal for f in facts((DATA / "rdma" / name).read_bytes(), "rdma_port")] == ["rdma.none"]


def test_perftest_units() -> None:
    gbits = (
        " #bytes #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n 65536 5000 394.2 393.6 0.75\n"
    )
    mib = (
        " #bytes #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   MsgRate[Mpps]\n"
        " 65536 5000 11000.1 10998.2 0.17\n"
    )
    assert facts(gbits, "perftest")[-1].value == pytest.approx(393.6 / 8)
    assert facts(mib, "perftest")[-1].value == pytest.approx(10998.2 * 2**20 / 1e9)
    report = '"MsgSize": 65536,\n"n_iterations": 5000,\n"BW_peak": 0.00,\n"BW_average": 196.80,\n"MsgRate": 0.375366'
    assert facts(report, "perftest")[-1].value == pytest.approx(24.6)  # its rate shows that these are Gb/s


def test_module_that_was_looked_for() -> None:
    gone = facts("$ lsmod | grep nvidia_peermem\n$ ls", "rdma_host")
    assert values(gone, "rdma.module.missing") == {"nvidia_peermem asked": "nvidia_peermem"}
    there = facts("$ lsmod | grep peermem\nnvidia_peermem         16384  0\n", "rdma_host")
    assert not values(there, "rdma.module.missing") and "nvidia_peermem" in values(there, "rdma.module")


def test_counters_keep_what_is_not_zero() -> None:
    got = facts(
        "mlx5_0: symbol_error: 0\nout_of_sequence: 91\nPortXmitWait:....................5120\n", "rdma_counters"
    )
    assert values(got, "rdma.counter") == {"out_of_sequence": 91.0, "port_xmit_wait": 5120.0}


def test_bandwidth_that_falls_with_size() -> None:
    table = "# OSU MPI Bandwidth Test v7.3\n# Size      Bandwidth (MB/s)\n8192  8000.0\n16384  4000.0\n32768  9000.0\n"
    drop = [f for f in facts(table, "osu") if f.signal == "mpi.osu.drop"]
    assert [(f.subject.label, f.value) for f in drop] == [("Bandwidth|8192|16384", 2.0)]
    assert not [f for f in facts(table.replace("4000.0", "7900.0"), "osu") if f.signal == "mpi.osu.drop"]


def test_transfer_statistics_and_their_arithmetic() -> None:
    line = (
        "KV Transfer metrics: Num successful transfers=12, Avg xfer time (ms)=400.0, P90 xfer time (ms)=455.0, "
        "Avg post time (ms)=260.0, P90 post time (ms)=280.4, Avg MB per transfer=1250.0, Throughput (MB/s)=3125.0, "
        "Avg number of descriptors=80000.0"
    )
    got = facts(line, "kv_transfer")
    assert next(f for f in got if f.signal == "kv.bytes_per_descriptor").value == pytest.approx(16384)
    assert next(f for f in got if f.signal == "kv.post_share").value == pytest.approx(0.65)
    metrics = "\n".join(
        f'vllm:nixl_{name}_{part}{{engine="0"}} {value}'
        for name, total in (("bytes_transferred", 1e9), ("num_descriptors", 1e5), ("xfer_time_seconds", 2.0))
        for part, value in (("sum", total), ("count", 10.0))
    )
    got = facts(metrics, "kv_transfer")
    assert next(f for f in got if f.signal == "kv.bytes_per_descriptor").value == pytest.approx(1e4)
    assert next(f for f in got if f.signal == "kv.throughput").value == pytest.approx(0.5)


def test_typed_figures_are_read_and_times_are_not_descriptors() -> None:
    got = facts(
        "descriptors per transfer       91,000-120,000\npayload per transfer           ~4.9 GB\n", "kv_transfer"
    )
    assert values(got, "kv.descriptors") == {"as written": 91000.0}
    assert next(f for f in got if f.signal == "kv.bytes_per_descriptor").value == pytest.approx(4.9e9 / 91000)
    assert not facts("one transfer with 4096 descriptors : 9.8 ms", "kv_transfer")


def test_stages_share_and_serial() -> None:
    got = facts("stage   p50 (ms)\nprefill  310.4\nkv transfer  1892.0\nTTFT  2242.8\n", "kv_stages")
    assert next(f for f in got if f.signal == "kv.share").value == pytest.approx(1892.0 / 2242.8)
    got = facts("prefill compute 210 ms, kv push 190 ms, request total 402 ms", "kv_stages")
    assert next(f for f in got if f.signal == "kv.serial").value == pytest.approx(400 / 402)
    assert not facts("prefill 310 ms, decode 20 ms", "kv_stages")


def test_real_nixl_benchmark_shows_batching() -> None:
    got = facts((DATA / "nixl" / "default.json").read_bytes(), "nixl_json")
    ratio = next(f for f in got if f.signal == "kv.batching")
    assert ratio.value == pytest.approx(0.5711379826556771 / 0.17544662967979757)


def test_every_fact_quotes_or_derives() -> None:
    for path in sorted(DATA.glob("*/*")):
        if path.parent.name not in ("ucx", "rdma", "nixl"):
            continue
        doc = Document.of(path.name, path.read_bytes())
        for reader in readers()[0]:
            if reader.name in ("ucx", "rdma_port", "kv_transfer", "nixl_json", "perftest", "openmpi", "osu"):
                for fact in reader.parse(doc):
                    assert fact.spans or fact.inputs, (path.name, fact.signal)
                    for span in fact.spans:
                        assert doc.read(span.start, span.end).decode("utf-8", "replace")[:400] == span.quote
