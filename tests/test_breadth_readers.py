"""Pages of monitors and short pasted outputs: what each says, and that its healthy twin alarms nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnose.probes import dcgm, monitor_pages, pasted_tools, serving_stages

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact, Value

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "data" / "monitors" / "excerpts.yaml").read_text(encoding="utf-8")
)
READERS = (*monitor_pages.READERS, *pasted_tools.READERS)


def read(text: str) -> list[Fact]:
    data = text.encode()
    made = Document.of("sample", data)
    return [f for reader in READERS if any(n in data for n in reader.needles) for f in reader.parse(made)]


def values(text: str, signal: str, **who: object) -> list[Value]:
    return [
        f.value for f in read(text) if f.signal == signal and all(getattr(f.subject, k) == v for k, v in who.items())
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["id"]))
def test_an_excerpt_says_what_it_says(case: dict[str, Any]) -> None:
    got = triage(case["symptom"], [Document.of("pasted.txt", case["text"].encode())]).assessment
    leading = got.accepted[0].cause.id if got.accepted else "none"
    assert leading == case["cause"], [(b.cause.id, round(b.p, 2)) for b in got.accepted]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["id"]))
def test_facts_are_declared(case: dict[str, Any]) -> None:
    for fact in read(case["text"]):
        for each in (fact, *fact.inputs):
            declared = catalogue().signals[each.signal]
            assert declared.unit == each.unit, each
            assert isinstance(each.value, float | int if declared.type == "number" else str), each
            allowed = {k for k, v in each.subject.model_dump().items() if v is not None}
            assert allowed <= {*declared.subject, "label"}, each


def test_ports_of_node_exporter() -> None:
    text = (
        'node_infiniband_state_id{device="mlx5_2",port="1"} 1\n'
        'node_infiniband_rate_bytes_per_second{device="mlx5_0",port="1"} 5e+10\n'
        'node_infiniband_link_downed_total{device="mlx5_0",port="1"} 0\n'
        'node_infiniband_port_discards_transmitted_total{device="mlx5_0",port="1"} 812\n'
    )
    assert values(text, "rdma.port.state", nic="mlx5_2") == ["DOWN"]
    assert values(text, "rdma.port.rate", nic="mlx5_0") == [400.0]
    assert values(text, "rdma.counter") == [812.0]


def test_transfers_of_sglang() -> None:
    text = (
        'sglang:kv_transfer_speed_gb_s{engine_type="prefill"} 0.82\nsglang:kv_transfer_latency_ms{} 412.0\n'
        "sglang:kv_transfer_alloc_ms{} 3801.0\nsglang:num_running_reqs{} 3.0\nsglang:num_queue_reqs{} 0.0\n"
        "sglang:num_decode_transfer_queue_reqs{} 41.0\n"
    )
    assert values(text, "kv.throughput") == [0.82]
    assert values(text, "kv.xfer_time") == [412.0]
    assert values(text, "kv.stage", label="allocation") == [3801.0]
    assert values(text, "kv.backlog") == [41.0]
    assert values(text.replace("reqs{} 3.0", "reqs{} 64.0"), "kv.backlog") == []


def test_memory_is_held_against_the_limit_of_the_same_container() -> None:
    text = (
        'container_memory_working_set_bytes{container="a",pod="p"} 95\n'
        'container_spec_memory_limit_bytes{container="b",pod="p"} 100\n'
        'kube_pod_container_resource_limits{container="a",pod="p",resource="memory",unit="byte"} 190\n'
    )
    assert values(text, "container.memory_share") == [0.5]


def test_the_last_reading_of_a_series_counts() -> None:
    text = "ray_serve_deployment_queued_queries{} 84\nray_serve_deployment_queued_queries{} 12\n"
    assert values(text, "proxy.queued") == [12.0]


def test_shares_of_tcp() -> None:
    flow = "\t cubic rto:212 mss:1448 cwnd:10 bytes_sent:1000000000 bytes_retrans:20000000 bytes_acked:1\n"
    assert values(flow, "net.tcp.retransmit_share") == [0.02]
    assert values("TcpOutSegs  900 0.0\nTcpRetransSegs  400 0.0\n", "net.tcp.retransmit_share") == []


def test_states_of_interfaces() -> None:
    text = (
        "lo               UNKNOWN        127.0.0.1/8\neth0@if12        UP             10.1.0.11/24\n"
        "3: ib0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 4092 qdisc mq state DOWN mode DEFAULT\n"
    )
    assert values(text, "net.interface.state", nic="eth0") == ["UP"]
    assert values(text, "net.interface.state", nic="ib0") == ["DOWN"]
    assert values(text, "net.interface.state", nic="lo") == ["UNKNOWN"]


def test_numa_files_in_two_lines() -> None:
    text = "/sys/bus/pci/devices/0000:17:00.0/numa_node\n0\n/sys/bus/pci/devices/0000:98:00.0/numa_node\nsomething\n"
    assert values(text, "pci.numa", label="0000:17:00.0") == [0.0]
    assert values(text, "pci.numa", label="0000:98:00.0") == []


def test_clock_reasons_that_dcgm_counts_in_nanoseconds() -> None:
    text = (
        'DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS{gpu="3"} 90000000000\n'
        'DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS{gpu="3"} 0\nDCGM_FI_DEV_PCIE_LINK_WIDTH{gpu="3"} 8\n'
    )
    facts = list(dcgm.DcgmMetrics().parse(Document.of("sample", text.encode())))
    assert [(f.signal, f.subject.label, f.value) for f in facts] == [
        ("gpu.throttle.time", "hw_thermal_slowdown", 90_000_000.0),
        ("gpu.pcie.width", None, 8.0),
    ]


def test_waiting_for_prefill_is_no_prefill() -> None:
    """SGLang names its stages after what they lead to; the handshakes of disaggregation are none of ours."""
    stages = {"prefill_waiting": "queue", "prefill_forward": "prefill", "decode_transferred": "transfer"}
    text = "".join(
        f'sglang:per_stage_req_latency_seconds_sum{{stage="{s}"}} 9.0\n'
        f'sglang:per_stage_req_latency_seconds_count{{stage="{s}"}} 3\n'
        for s in (*stages, "prefill_bootstrap")
    )
    facts = serving_stages.READERS[0].parse(Document.of("sample", text.encode()))
    assert [(f.subject.label or "").split(":")[0] for f in facts if f.signal == "serving.stage"] == list(
        stages.values()
    )


def test_series_of_the_exporter_of_nvidia_smi() -> None:
    text = (
        'nvidia_smi_clocks_event_reasons_hw_thermal_slowdown{uuid="a"} 1\n'
        'nvidia_smi_clocks_throttle_reasons_hw_power_brake_slowdown{uuid="a"} 0\n'
        'nvidia_smi_ecc_errors_uncorrected_volatile_total{uuid="a"} 0\nhaproxy_backend_current_queue{proxy="v"} 84\n'
    )
    assert values(text, "gpu.throttle", label="hw_thermal_slowdown") == ["active"]
    assert [f.signal for f in read(text)] == ["gpu.throttle", "proxy.queued"]
