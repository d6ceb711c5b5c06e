"""The catalogue is whole: every id, every reference, both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diagnose.catalogue import Catalogue, ahead, catalogue
from diagnose.check import check_all
from diagnose.marks import needles, parsed

CAUSES = [
    "nccl.transport.socket_fallback",
    "nccl.transport.wrong_interface",
    "nccl.p2p_disabled",
    "nccl.p2p_broken_acs_iommu",
    "nccl.shm_too_small",
    "nccl.gdr_not_used",
    "nccl.topology_cross_numa",
    "nccl.topology_no_nvlink",
    "nccl.nvlink_down",
    "nccl.version_mismatch",
    "nccl.small_message_latency",
    "nccl.straggler_rank",
    "nccl.collective_mismatch",
    "nccl.roce_misconfigured",
    "nccl.ib_link_error",
    "nccl.env_override",
    "nccl.fabric_manager",
    "nccl.memlock_limit",
    "nccl.nic_misplaced",
    "nccl.container_isolation",
    "nccl.algorithm_choice",
    "nccl.init_scaling",
    "nccl.library_bug",
    "ucx.tcp_fallback",
    "ucx.no_cuda_support",
    "ucx.tls_restricted",
    "ucx.registration_overhead",
    "ucx.gdr_missing",
    "ucx.wrong_device",
    "ucx.cross_numa",
    "ucx.memlock_limit",
    "ucx.rndv_threshold",
    "ucx.version_mismatch",
    "ucx.library_bug",
    "serving.queueing_saturation",
    "serving.long_prompt_prefill",
    "serving.prefill_decode_interference",
    "serving.kv_cache_exhausted",
    "serving.kv_capacity_low",
    "serving.max_num_seqs_low",
    "serving.batched_tokens_low",
    "serving.api_server_cpu_bound",
    "serving.tokenizer_bound",
    "serving.cold_start_compile",
    "serving.cuda_graphs_off",
    "serving.tp_comm_overhead",
    "serving.prefix_cache_miss",
    "serving.spec_decode_low_acceptance",
    "serving.structured_output_overhead",
    "serving.quant_kernel_slow",
    "serving.attention_backend_slow",
    "serving.kv_transfer_slow",
    "serving.client_or_proxy",
    "serving.moe_imbalance",
    "serving.benchmark_artifact",
    "serving.engine_regression",
    "gpu.clock_throttled",
    "gpu.contention",
    "gpu.pcie_degraded",
    "gpu.ecc_or_xid",
    "gpu.driver_mismatch",
    "gpu.out_of_memory_fragmentation",
    "host.cpu_contention",
    "host.numa_misplacement",
    "host.input_pipeline_bound",
    "host.pageable_copies",
    "host.memory_pressure",
    "host.storage_slow",
    "train.comm_not_overlapped",
    "train.launch_bound",
    "train.sync_stalls",
    "train.recompilation",
    "cuda.uncoalesced_access",
    "cuda.bank_conflicts",
    "cuda.register_spill",
    "cuda.low_occupancy",
    "cuda.divergence",
    "cuda.memory_bound",
    "cuda.compute_bound",
    "nixl.backend_fallback",
    "nixl.small_blocks",
    "nixl.registration_overhead",
    "nixl.misconfigured",
    "net.congestion",
    "net.wrong_mtu",
    "net.link_down",
    "net.firewall",
    "gpu.out_of_memory_capacity",
    "nccl.benchmark_artifact",
    "none.healthy",
    "env.missing_dependency",
    "env.version_conflict",
    "env.gpu_hidden",
    "serving.misconfigured",
    "serving.control_loop_jitter",
    "ucx.env_typo",
    "nixl.no_overlap",
    "nixl.placement",
    "nixl.completion",
]
PLAYBOOKS = [
    "high-ttft",
    "bad-tpot",
    "high-p99",
    "low-throughput",
    "slow-allreduce",
    "collective-hang",
    "ucx-slow-path",
    "kv-transfer-slow",
    "gpu-idle-network-busy",
    "gpu-underutilized",
    "kernel-slow",
    "copy-slow",
    "training-slow",
    "out-of-memory",
    "gpunetio-evaluation",
    "control-loop-latency",
    "environment",
]


def test_every_stable_id_is_there() -> None:
    assert set(CAUSES) <= set(catalogue().causes)
    assert set(PLAYBOOKS) == set(catalogue().playbooks)


def test_every_reference_resolves() -> None:
    assert check_all(catalogue()) == []


@pytest.mark.parametrize("ident", CAUSES)
def test_a_cause_can_be_found_fixed_and_explained(ident: str) -> None:
    cause = catalogue().causes[ident]
    strengths = [i.strength for i in cause.indicators if not i.against]
    assert "decisive" in strengths or strengths.count("strong") >= 2, "could never be named with confidence"
    assert all(i.because for i in cause.indicators)
    assert len(cause.follow_ups) >= 3
    zh = cause.zh
    assert zh is not None and zh.title and zh.mechanism and zh.fix and len(zh.follow_ups) >= 3


def test_engine_code_never_reads_an_answer_key() -> None:
    root = Path(__file__).parents[1]
    for path in [*root.glob("diagnose/**/*.py"), *root.glob("probes/**/*.py")]:
        text = path.read_text("utf-8")
        assert not re.search(r"root_cause|also_accept|KEY\.json", text), path


def test_what_is_parsed_ahead_says_what_the_files_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is current is held by `test_docs`; here that models come out the same, trees' whole numbers included."""
    names = ("marks", "signals", "causes", "playbooks", "words", "probes", "axes", "questions", "changes", "variables")
    assert len(ahead()["files"]) > 50 and ahead()["shaped"]
    quick = {name: getattr(Catalogue(), name) for name in names}
    needs = [(needles(m.pattern), needles(m.pattern, plain=True)) for m in catalogue().marks]
    monkeypatch.setattr("diagnose.catalogue.ahead", lambda: {"files": {}})
    assert quick == {name: getattr(Catalogue(), name) for name in names}
    assert needs == [(parsed(m.pattern), parsed(m.pattern, plain=True)) for m in catalogue().marks]


def test_every_declared_signal_is_made_somewhere() -> None:
    """By its name in the code or the catalogue's data, or by an f-string: ``f"clock.{name}"``, ``f"{kind}.share"``."""
    root = Path(__file__).parents[1]
    code = [p for folder in ("probes", "diagnose") for p in (root / folder).rglob("*.py")]
    code = [p for p in code if p.parent.name not in ("rules", "audit_rules")]
    data = [p for folder in ("axes", "marks", "releases") for p in (root / "playbooks" / folder).glob("*.yaml")]
    text = "".join(p.read_text() for p in (*code, *data))
    words = set(re.findall(r"[\w.]+", text))
    heads, tails = (tuple(set(re.findall(shape, text))) for shape in (r'f"([a-z_]+\.[a-z_.]*)\{', r'f"\{\w+\}(\.\w+)"'))
    asked = {f"stated.{question.id}" for question in catalogue().questions}
    rest = set(catalogue().signals) - words - asked
    assert not [name for name in rest if not name.startswith(heads) and not name.endswith(tails)]
