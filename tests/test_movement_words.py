"""Figures of data movement as people type them: each reader finds what is there and stays silent where it is not."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact
from diagnose.plugin import readers


def facts(text: str, name: str) -> dict[str, Fact]:
    reader = next(r for r in readers()[0] if r.name == name)
    doc = Document.of("a.txt", text.encode())
    assert any(n in doc.data for n in reader.needles), "no needle: the reader would never run"
    return {f.signal: f for f in reader.parse(doc)}


TICKS = """kv transfer, seen
4 MB    0.3 ms   50.4 ms
128 MB  3.1 ms   50.9 ms
1 GB   22.8 ms   51.1 ms
3 GB   66.0 ms  100.7 ms
"""


def test_durations_on_the_ticks_of_a_period() -> None:
    assert facts(TICKS, "kv_completion")["kv.tick"].value == 50.0
    grown = TICKS.replace("50.9", "97.3").replace("51.1", "412.0").replace("100.7", "1208.2")
    assert "kv.tick" not in facts(grown, "kv_completion")


@pytest.mark.parametrize(
    ("code", "period"),
    [
        ("while agent.check_xfer_state(h) != 'DONE':\n    time.sleep(0.02)", 20.0),
        ("while (!done(getXferStatus(h)))\n  std::this_thread::sleep_for(std::chrono::milliseconds(5));", 5.0),
        ("kv_poll_interval_ms: 100", 100.0),
        ("time.sleep(5)  # let the server start", None),
    ],
)
def test_a_loop_that_looks_now_and_then(code: str, period: float | None) -> None:
    got = facts(code, "kv_completion").get("kv.poll_period")
    assert (got and got.value) == period


def test_posting_after_the_last_layer() -> None:
    late = "prefill: layer 0 done  30\nlayer 79 done  2,480\nfirst WRITE posted  2,481"
    assert facts(late, "kv_order")["kv.post_delay"].value == pytest.approx(1.0, abs=0.01)
    early = late.replace("2,481", "35")
    assert float(facts(early, "kv_order")["kv.post_delay"].value or 0) < 0.01


def test_pairs_on_two_hosts_against_pairs_on_one() -> None:
    head = "replica   prefill node   decode node   ms\n"
    rows = "d0   n01   n01   8.1\nd1   n02   n02   8.4\nd2   n01   n07   46.0\n"
    assert facts(head + rows, "kv_pairs")["kv.far_over_near"].value == pytest.approx(46.0 / 8.4)
    assert facts(head + rows.replace("46.0", "8.8"), "kv_pairs") == {}


def test_sides_that_do_not_fit() -> None:
    two = "prefill: vllm serve M --block-size 128 # kv_connector\ndecode: vllm serve M --block-size {}\n"
    assert facts(two.format(16), "kv_sides")["kv.config_differs"].subject.label == "block-size"
    assert facts(two.format(128), "kv_sides") == {}


def test_back_end_other_than_asked_for() -> None:
    text = '"backends": ["LIBFABRIC"]\nNIXL INFO Backend {} was instantiated\n'
    assert facts(text.format("UCX"), "kv_backend")["nixl.backend_other"].value == "UCX"
    assert facts(text.format("LIBFABRIC"), "kv_backend") == {}


def test_backlog_needs_to_exceed_what_runs() -> None:
    line = "Decode batch. #running-req: {}, #transfer-req: 70, #queue-req: 0"
    assert facts(line.format(9), "kv_backlog")["kv.backlog"].value == 70
    assert facts(line.format(60), "kv_backlog") == {}


def test_one_adapter_of_many() -> None:
    text = "tx GB/s\nmlx5_0 24.1\nmlx5_1 {0}\nmlx5_2 {0}\n"
    assert facts(text.format("0.0"), "nic_traffic")["movement.one_nic"].subject.nic == "mlx5_0"
    assert facts(text.format("23.8"), "nic_traffic") == {}


def test_effect_of_a_variable() -> None:
    text = "MB/s\nUCX_RNDV_SCHEME=auto   9120\nUCX_RNDV_SCHEME=get_zcopy  18240\n"
    got = facts(text, "ucx_env_effect")["ucx.env_effect"]
    assert got.value == 2.0 and got.subject.label == "UCX_RNDV_SCHEME"
    assert facts("UCX_TLS=rc\nUCX_LOG_LEVEL=warn\n", "ucx_env_effect") == {}


@pytest.mark.parametrize(
    ("text", "who", "share"),
    [
        ("register_memory  214 ms\ntransfer + wait  20 ms\nderegister_memory  26 ms", "nixl", 12.0),
        ("step    us\nucp_mem_map  2,000\nucp_put_nbx + flush  1,000\n", "ucx", 2.0),
    ],
)
def test_registration_beside_its_transfer(text: str, who: str, share: float) -> None:
    got = facts(text, "registration")["kv.register_share"]
    assert (got.subject.label, got.value) == (who, share)


def test_pieces_and_waits() -> None:
    got = facts("kv onboard: 40,960 copies of 8 KiB, 161 ms", "pieces")
    assert got["kv.bytes_per_descriptor"].value == 8192 and got["kv.descriptors"].value == 40960
    assert facts("a few copies of 8 KiB in a transfer", "pieces") == {}
    got = facts("2.5 GiB per request\ndecode waited for remote KV 1.25 s", "kv_wait")
    assert got["kv.throughput"].value == pytest.approx(2.147, abs=0.01)


@pytest.mark.parametrize(
    ("value", "slips"), [("rc,cuda_cpy,gdrcopy", {"cuda_cpy", "gdrcopy"}), ("rc_x,cuda_copy,sm,self,ud", set())]
)
def test_slips_in_ucx_tls(value: str, slips: set[str]) -> None:
    reader = next(r for r in readers()[0] if r.name == "ucx")
    doc = Document.of("a", f"export UCX_TLS={value}".encode())
    assert {f.value for f in reader.parse(doc) if f.signal == "ucx.tls.typo"} == slips


PERFTEST = """ Link type       : IB
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 65536      5000             {0}             {0}               0.75
        Rate: 400
"""


@pytest.mark.parametrize(("gbps", "verdict"), [("393.90", "healthy"), ("121.00", "inconclusive")])
def test_perftest_beside_the_rate_of_its_port(gbps: str, verdict: str) -> None:
    got = triage("is ib_write_bw good on this 400G link?", [Document.of("a", PERFTEST.format(gbps).encode())])
    assert got.assessment.verdict == verdict


STATS = (
    "KV Transfer metrics: Num successful transfers=210, Avg xfer time (ms)=24.1, P90 xfer time (ms)=27.0,"
    " Avg post time (ms)=1.1, P90 post time (ms)=1.4, Avg MB per transfer=1024.0, Throughput (MB/s)=42489.6,"
    " Avg number of descriptors=640.0"
)


def test_transfers_at_rate_are_healthy_unless_something_else_shows() -> None:
    symptom = "is the KV transfer of our prefill/decode setup slow?"
    assert triage(symptom, [Document.of("a", STATS.encode())]).assessment.verdict == "healthy"
    both = f"{STATS}\nlayer 0 done  30\nlayer 79 done  2480\nfirst kv WRITE posted  2481\n"
    got = triage(symptom, [Document.of("a", both.encode())]).assessment
    assert got.verdict == "cause" and got.accepted[0].cause.id == "nixl.no_overlap"
