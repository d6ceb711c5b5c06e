"""Readers of the formats that belong to no family: samples in the tools' own layout, cut text, foreign documents."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from diagnose.probes.nsys import NsysSummary

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report
from diagnose.gather import Gathered, read_document
from diagnose.models import Fact, Value
from diagnose.plugin import Reader

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[1].parent / "shared" / "captures"
MODULES = (
    "nccl_ras", "nccl_inspector", "nccl_xml", "dcgm", "gpu_tools", "engine_lines", "load_tools", "request_trace",
    "proxy", "small_notes",
)  # fmt: skip
READERS: list[Reader] = [r for m in MODULES for r in import_module(f"diagnose.probes.{m}").READERS]


def read(name: str, text: str | None = None) -> list[Fact]:
    data = text.encode() if text is not None else (DATA / "formats" / f"{name}.txt").read_bytes()
    return [fact for reader in READERS if any(n in data for n in reader.needles) for fact in reader.parse(doc(data))]


def doc(data: bytes) -> Document:
    return Document.of("sample", data)


def values(facts: list[Fact], signal: str, **who: object) -> list[Value]:
    return [f.value for f in facts if f.signal == signal and all(getattr(f.subject, k) == v for k, v in who.items())]


@pytest.mark.parametrize("name", sorted(p.stem for p in (DATA / "formats").iterdir()))
def test_facts_are_declared_and_quoted(name: str) -> None:
    data = (DATA / "formats" / f"{name}.txt").read_bytes()
    facts = read(name)
    assert facts or name == "ibv_devinfo_v"
    for fact in facts:
        declared = catalogue().signals[fact.signal]
        assert declared.unit == fact.unit, fact
        assert isinstance(fact.value, float | int if declared.type == "number" else str), fact
        assert fact.spans or fact.inputs
        for span in fact.spans:
            assert data[span.start : span.end].decode() == span.quote


@pytest.mark.parametrize("name", sorted(p.stem for p in (DATA / "formats").iterdir()))
def test_cut_anywhere_still_reads(name: str) -> None:
    data = (DATA / "formats" / f"{name}.txt").read_bytes()
    for part in range(1, 12):
        for piece in (data[: len(data) * part // 12], data[len(data) * part // 12 :]):
            for reader in READERS:
                list(reader.parse(doc(piece)))


def test_ras_names_the_dead_and_the_missing() -> None:
    facts = read("ras_text")
    assert values(facts, "nccl.ras.lost", host="10.0.0.13") == ["dead"]
    assert values(facts, "nccl.ras.missing_rank", rank=21) == ["21"]
    assert values(facts, "nccl.ras.comm") == ["RUNNING INCOMPLETE"]
    assert values(read("ras_json"), "nccl.ras.lost", rank=1) == ["no answer"]


def test_ras_lag_is_the_difference_of_two_readings() -> None:
    lag = next(f for f in read("ras_mismatch") if f.signal == "nccl.ras.lag")
    assert (lag.value, lag.subject.rank, lag.formula) == (238, 12, "a - b")
    assert [i.value for i in lag.inputs] == [6650, 6412]


def test_ras_json_counts_behind() -> None:
    rank = '{{"rank": {r}, "status": {{"async_error": 0}}, "collective_counts": {{"AllReduce":\n {n}}}}}'
    ranks = ",\n".join(rank.format(r=r, n=100 if r else 40) for r in range(4))
    facts = read("", f'{{"communicators": [{{"missing_ranks_count": 0, "ranks": [{ranks}]}}]}}')
    assert values(facts, "nccl.ras.lag", rank=0) == [60]


def test_healthy_ras_says_nothing_of_ranks() -> None:
    text = "Group  Comms\n    0         8         4         1         4        32   RUNNING      OK\n"
    assert {f.signal for f in read("", text)} == {"nccl.ras.comm"}


def test_inspector_spread_over_ranks() -> None:
    facts = read("inspector")
    assert values(facts, "nccl.inspector.busbw", rank=5) == [110.3]
    assert values(facts, "nccl.inspector.spread") == [pytest.approx(261974 / 61974)]
    assert values(read("inspector_prom"), "nccl.inspector.busbw", gpu=0) == [678.263]


def test_topology_xml_paths_follow_the_tree() -> None:
    facts = read("topo_xml")
    assert values(facts, "topo.gpu_nic", gpu=0) == ["PIX"]
    assert values(facts, "topo.gpu_nic", gpu=1) == ["SYS"]
    assert values(facts, "topo.link", gpu=0, peer=1) == ["NV12"]
    assert values(facts, "nccl.topo.link_width", gpu=0) == [4]
    assert values(facts, "nccl.topo.gdr", nic="mlx5_0") == ["0"]
    assert values(facts, "net.speed", nic="mlx5_0") == [200]


def test_guidellm_columns_stand_under_their_groups() -> None:
    new, old = read("guidellm"), read("guidellm_old")
    assert values(new, "serving.client.ttft", label="p95 throughput") == [33211.2]
    assert values(new, "serving.client.e2e", label="median synchronous") == [1500]
    assert values(old, "serving.client.ttft", label="p99 throughput") == [36131.2]
    assert values(old, "serving.client.tpot", label="p99 synchronous") == [11.6]


def test_guidellm_json_quotes_the_figure() -> None:
    one = '{"metrics": {"time_to_first_token_ms": {"successful": {"mean": %s, "percentiles": {"p99": %s}}}, "request_latency": {"successful": {"mean": 1.5}}}}'  # noqa: E501
    text = '{"benchmarks": [' + one % (31.5, 40.25) + ",\n" + one % (900.5, 1800.75) + "]}"
    facts = read("", text)
    assert values(facts, "serving.client.ttft", label="p99 #2") == [1800.75]
    assert values(facts, "serving.client.e2e", label="mean #1") == [1500]
    assert all(f.spans[0].quote.split(":")[0] in ('"mean"', '"p99"') for f in facts)


def test_load_tools() -> None:
    aiperf, llmperf = read("aiperf_csv"), read("llmperf")
    assert values(aiperf, "serving.client.ttft", label="p99") == [1100.12]
    assert values(aiperf, "serving.client.output_tput") == [1712.33]
    assert values(llmperf, "serving.client.ttft", label="p99") == [4112]
    assert values(llmperf, "serving.client.failed") == [3]


def test_request_trace_shape() -> None:
    facts = read("trace_jsonl")
    assert values(facts, "serving.queue_share") == [pytest.approx(720 / 805)]
    assert values(facts, "serving.client.ttft_growth") == [9.276]
    csv = "id,ttft_s,queue_time_s\n" + "\n".join(f"{i},{1.5 + i % 2},0.1" for i in range(9))
    assert values(read("", csv), "serving.client.ttft", label="median") == [1500]
    assert values(read("", csv), "serving.server.queue", label="median") == [100]


def test_proxies() -> None:
    assert values(read("nginx"), "proxy.setting", label="buffering") == ["on"]
    assert values(read("ingress"), "proxy.setting", label="buffering") == ["on"]
    assert values(read("envoy"), "proxy.setting", label="compression") == ["on"]
    assert values(read("haproxy"), "proxy.setting", label="connection limit") == ["16"]
    plain = "server {\n  location / {\n    proxy_pass http://vllm;\n  }\n}\n"
    assert values(read("", plain), "proxy.setting", label="buffering") == ["default"]
    off = plain.replace("proxy_pass", "# proxy_buffering on;\n    proxy_buffering off;\n    proxy_pass")
    assert values(read("", off), "proxy.setting", label="buffering") == ["off"]


def test_dcgm() -> None:
    metrics = read("dcgm_metrics")
    assert values(metrics, "gpu.temperature", gpu=0) == [91]
    assert values(metrics, "gpu.throttle", label="hw_thermal_slowdown") == ["active"]
    assert values(read("dcgm_dmon"), "dcgm.active", gpu=1, label="SM") == [0.981]
    assert values(read("dcgmi_nvlink"), "nvlink.inactive", gpu=1, label="4") == ["down"]
    assert values(read("dcgmi_health"), "nvlink.inactive", gpu=3, label="2") == ["down"]
    diag = read("dcgmi_diag")
    assert values(diag, "dcgm.test_failed", label="Targeted Power", gpu=5) == ["Fail - GPU: 5"]
    assert "row remapping failed" in str(values(diag, "dcgm.said", label="Error")[0])


def test_dcgm_counters_at_zero_say_nothing() -> None:
    text = 'DCGM_FI_DEV_PCIE_REPLAY_COUNTER{gpu="0"} 0\nDCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{gpu="0"} 0\n'
    assert read("", text) == []
    # beside corrected errors it matters that none was left uncorrected
    assert values(read("", 'DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu="0"} 0\n'), "gpu.ecc.uncorrected") == [0.0]


def test_engines() -> None:
    llama = read("llamacpp")
    assert values(llama, "engine.layers_on_gpu", label="of 33") == [12]
    assert values(llama, "serving.prompt_tput", label="median") == [139.76]
    assert values(llama, "engine.prompt_redone") == ["forcing full prompt re-processing"]
    assert values(read("llamacpp_old"), "engine.no_gpu") == ["not compiled with GPU offload support"]
    assert values(read("tgi"), "serving.server.queue") == [pytest.approx(9812.233441)]
    trt = read("trtllm")
    assert values(trt, "serving.kv_tokens") == [12288]
    assert values(trt, "serving.max_num_seqs", label="effective") == [8]
    assert values(trt, "engine.host_step") == [61.2]


def test_newer_iteration_line_of_tensorrt_llm() -> None:
    text = (
        "[TRT-LLM] [I] iter = 7, global_rank = 0, rank = 0, num_scheduled_requests = 60, kv_cache_util = 0.125, "
        "currank_total_requests = 1/8, host_step_time = 9.5ms, prev_device_step_time = 9.1ms, timestamp = x"
    )
    facts = read("", text)
    assert values(facts, "serving.running", label="peak") == [60]
    assert values(facts, "serving.kv_usage", label="median") == [0.125]


def test_small_tools() -> None:
    assert values(read("nvtop"), "gpu.util", gpu=0) == [1]
    assert values(read("nvtop"), "gpu.memory.total", gpu=0) == [80]
    assert values(read("lstopo"), "topo.gpu_nic", gpu=1) == ["SYS", "PIX"]
    assert values(read("nvbandwidth_json"), "copy.bandwidth", gpu=1) == [12.81]
    assert values(read("triton_autotune"), "triton.autotunes", label="matmul_kernel") == [2]
    assert values(read("memsummary"), "gpu.cache.retries") == [214]
    assert values(read("memsummary"), "gpu.cache.idle_share") == [pytest.approx((78212 - 31201) / 78212)]


def test_gpus_in_a_row() -> None:
    facts = read("oneline")
    assert values(facts, "gpu.clock.sm", gpu=2) == [645]
    assert values(facts, "gpu.temperature", gpu=3) == [70]
    assert read("", "the GPU 0 clock is at 1410 MHz of 1980 MHz\n") == []


def test_short_reports() -> None:
    assert values(read("mlxlink"), "net.advice") == ["Bad signal integrity"]
    assert values(read("mlxlink"), "rdma.counter", label="link_downed") == [12]
    assert values(read("iplink"), "net.interface.lost", nic="ens1f0np0", label="rx dropped") == [91223]
    assert values(read("sclog"), "slurm.option", label="TRES gres/gpu") == ["16"]
    assert values(read("nfsiostat"), "host.disk.await", label="nfs /data") == [412.1]
    assert values(read("locust"), "serving.client.e2e", label="median") == [7122]
    assert values(read("sglang_bench"), "serving.accept_length") == [1.13]


def test_healthy_link_report_is_silent() -> None:
    text = "Effective Physical Errors : 0\nLink Down Counter : 0\nRecommendation : No issue was observed.\n"
    assert read("", text) == []


def test_sglang_result_alone_is_no_artifact() -> None:
    got = report("is this SGLang result plausible?", [doc((DATA / "formats" / "sglang_bench.txt").read_bytes())])
    assert "serving.benchmark_artifact" not in [f.cause for f in got.findings]


@pytest.mark.parametrize(("name", "vendor"), [("rocm", "AMD"), ("metal", "Apple"), ("vulkan", "Vulkan")])
def test_other_accelerators_are_told(name: str, vendor: str) -> None:
    assert values(read(name), "host.accelerator") == [vendor]


def test_vulkan_on_nvidia_is_nvidia() -> None:
    assert read("", "ggml_vulkan: 0 = NVIDIA L4 (NVIDIA) | uma: 0 | fp16: 1\n") == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="captures are not here")
def test_no_false_starts_on_captures() -> None:
    fired: set[str] = set()
    for path in sorted(SHARED.rglob("*")):
        if not path.is_file() or path.suffix == ".gz" or path.stat().st_size > 4 << 20:
            continue
        data = path.read_bytes()
        for reader in READERS:
            if any(n in data for n in reader.needles) and list(reader.parse(Document.of(path.name, data))):
                fired.add(f"{reader.name} {path.name}")
    assert fired == {"nccl_topology_xml 18-topo.xml", "nccl_topology_xml 18-graph.xml"}


def test_ncu_report_is_read_or_says_what_is_missing() -> None:
    path = SHARED / "cpu-box" / "nsight" / "public" / "cuda_learning_mojo_profile.ncu-rep"
    if not path.is_file():
        pytest.skip("captures are not here")
    out = Gathered()
    read_document(Document.of("x", path.read_bytes()), out)
    made = [f for f in out.facts if f.signal == "kernel.registers"]
    reason = out.inputs[0].reason or ""
    assert made or "pip install ncu-report" in reason


@pytest.mark.parametrize(
    ("name", "symptom", "cause"),
    [
        ("ras_mismatch", "job stuck in all-reduce on 32 GPUs", "nccl.straggler_rank"),
        ("ingress", "streaming answers arrive all at once", "serving.client_or_proxy"),
        ("dcgmi_nvlink", "all-reduce is slow on one node", "nccl.nvlink_down"),
        ("tgi", "time to first token is high", "serving.queueing_saturation"),
        ("memsummary", "out of memory although there should be room", "gpu.out_of_memory_fragmentation"),
        ("nvbandwidth_json", "copies to the second GPU are slow", "gpu.pcie_degraded"),
    ],
)
def test_what_they_decide(name: str, symptom: str, cause: str) -> None:
    got = report(symptom, [doc((DATA / "formats" / f"{name}.txt").read_bytes())])
    assert [f.cause for f in got.findings][:1] == [cause]


@pytest.mark.parametrize("name", ["lstopo", "aiperf_csv", "rocm", "ibv_devinfo_v", "trtllm"])
def test_inventory_decides_nothing(name: str) -> None:
    got = report("all-reduce over two nodes is slow", [doc((DATA / "formats" / f"{name}.txt").read_bytes())])
    assert got.verdict == "inconclusive"


@pytest.mark.parametrize(
    "row",
    [
        'Time To First Token (ms),321.45,45.12,"1,234."56",900.1',
        'Time To First Token (ms),321.4_5,"1,1"1002600.1,.12"',
    ],
)
def test_a_stray_quote_mark_makes_no_figure(row: str) -> None:
    text = f"Metric,avg,min,max,p99\n{row}\n"
    printed = set(re.findall(r"[\d.]+", row))
    assert {f"{float(v):g}" for f in read("x", text) for v in [f.value or 0]} <= {
        f"{float(p):g}" for p in printed if p.strip(".")
    }


def test_averages_of_mpstat_are_no_comparison() -> None:
    """Its columns are read by name; the time in the head is no column of the `Average:` rows."""
    head = "12:00:01 PM  CPU    %usr   %nice    %sys %iowait    %irq   %soft  %steal  %guest  %gnice   %idle\n"
    rows = ("all   12.34    0.00    3.10    0.20    0.00    1.50    0.00    0.00    0.00   82.86\n",
            "  0   10.00    0.00    2.00    0.00    0.00   88.00    0.00    0.00    0.00    0.00\n")  # fmt: skip
    text = head + "".join(f"12:00:02 PM  {r}" for r in rows) + "\n" + "".join(f"Average:     {r}" for r in rows)
    out = Gathered()
    read_document(doc(text.encode()), out)
    assert not [f for f in out.facts if f.signal in ("compare.ratio", "figure")]
    assert values(out.facts, "host.cpu.softirq") == [0.88] and values(out.facts, "host.cpu.user", label=None) == [
        0.1234
    ]


@pytest.mark.parametrize("blank", [" ", "\u202f", "\xa0", ","])
def test_thousands_apart_in_nsys_stats(blank: str) -> None:
    text = (" ** CUDA API Summary (cuda_api_sum):\n\n Time (%)  Total Time (ns)  Num Calls   Avg (ns)  Med (ns)  Name\n"
            "     71.2    1 234 567 890      1 024  1 205 632.7        900  cudaStreamSynchronize\n")  # fmt: skip
    facts = list(NsysSummary().parse(doc(re.sub(r"(?<=\d) (?=\d{3})", blank, text).encode())))
    assert values(facts, "api.calls") == [1024.0] and values(facts, "api.avg") == [pytest.approx(1205.6327)]
