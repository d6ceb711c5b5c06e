"""Rules, variables and texts hold in certain releases; with another one they do not count, and the report says so."""

from __future__ import annotations

import re

import pytest
from diagnose.probes.serving_versions import UpgradeReader

from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report
from diagnose.entries import Indicator
from diagnose.gather import gather, number
from diagnose.models import Evidence, Report, Subject
from diagnose.predicates import Context, may_lie_in, parse_version
from diagnose.rules import RULES

MTU = "NCCL WARN NET/IB : Got completion from peer 10.0.0.4<5> with status=5 opcode=48 len=0 vendor err 249 (Recv)"
CAP = "NCCL INFO NCCL_MAX_CTAS set by environment to 2.\nall_reduce_perf, 2 nodes, 8G: busbw 20 GB/s"


def run(symptom: str, *texts: str) -> Report:
    return report(symptom, [Document.of(f"a{n}", text.encode()) for n, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("version", "text", "want"),
    [
        ("2.20.3", ">=2.20.3,<2.24.3", True),
        ("2.24.3", ">=2.20.3,<2.24.3", False),
        ("2.20", ">=2.20.3", True),  # given too shortly to tell
        ("2.19", ">=2.20.3", False),
        ("", ">=2.20.3", True),
    ],
)
def test_a_short_version_leaves_the_rule_in_force(version: str, text: str, want: bool) -> None:
    assert may_lie_in(tuple(int(p) for p in version.split(".") if p), text) is want


def test_one_of_several_versions_is_enough() -> None:
    seen = [
        Evidence(id=f"E{n}", kind="observed", signal="version", value=v, subject=Subject(label="nccl"))
        for n, v in enumerate(("2.18.5", "2.21.5"))
    ]
    assert Context(seen).outside({"nccl": ">=2.20"}) is None
    assert Context(seen).outside({"nccl": ">=2.27"}) is not None
    assert Context(seen).outside({"ucx": ">=1.16"}) is None


@pytest.mark.parametrize(("version", "sure"), [("2.21.5", True), ("2.30.5", False)])
def test_a_sign_of_certain_releases_names_the_cause_there_only(version: str, sure: bool) -> None:
    got = run(
        "after the MTU of the switch was changed the collective between two nodes fails",
        f"NCCL version {version}+cuda12.4\n{MTU}",
    )
    found = [f for f in got.findings if f.cause == "net.wrong_mtu" and f.confidence >= 0.7]
    assert bool(found) is sure
    said = [r.because for r in got.ruled_out if r.cause == "net.wrong_mtu"]
    assert sure or any("2.30.5" in because for because in said) or got.findings[0].cause == "net.wrong_mtu"


@pytest.mark.parametrize(("version", "named"), [("2.12.12", False), ("2.18.5", True)])
def test_a_variable_that_the_release_does_not_read_is_no_override(version: str, named: bool) -> None:
    got = run("all_reduce between two nodes is slow", f"NCCL version {version}+cuda12.1\nn0:1:2 [0] {CAP}")
    assert ("nccl.env_override" in [f.cause for f in got.findings]) is named
    said = [h.because for h in got.red_herrings if "NCCL_MAX_CTAS" in h.text]
    assert bool(said) is not named
    assert named or "2.12.12" in said[0]


def test_a_bad_range_is_refused() -> None:
    with pytest.raises(ValueError, match="bad version range"):
        Indicator(when={}, strength="weak", versions={"nccl": "2.20"})


def test_every_range_of_the_catalogue_reads() -> None:
    cat = catalogue()
    assert cat.variables["NCCL_NVLS_ENABLE"] == {"nccl": ">=2.17.1"}
    assert any(m.versions for m in cat.marks)
    for entry in (*cat.marks, *(i for c in cat.causes.values() for i in c.indicators)):
        for text in entry.versions.values():
            may_lie_in((1,), text)


SET = "vllm serve m --gpu-memory-utilization 0.9"


def changes(*texts: str) -> set[str]:
    facts = gather([Document.of(f"c{n}", text.encode()) for n, text in enumerate(texts)]).facts
    return {f.subject.label or "" for f in facts if f.signal == "release.change"}


@pytest.mark.parametrize(
    ("texts", "cause", "named"),
    [
        (("vllm==0.18.0", "vllm==0.20.0"), "gpu.out_of_memory_capacity", True),
        (
            ("vllm==0.18.0", "vllm==0.20.0\nvllm serve m --gpu-memory-utilization 0.9"),
            "gpu.out_of_memory_capacity",
            False,
        ),
        (("vllm==0.20.0", "vllm==0.24.0"), "gpu.out_of_memory_capacity", False),
        (("vllm==0.20.0",), "gpu.out_of_memory_capacity", False),
        (("sglang 0.5.2 -> 0.5.3",), "serving.cold_start_compile", True),
        (("tensorrt_llm 0.21.0 -> 1.0.0",), "serving.engine_regression", True),
        (("[TensorRT-LLM] TensorRT-LLM version: 0.19.0", "tensorrt-llm==0.20.0"), "serving.engine_regression", True),
        (("tensorrt_llm 0.13.0 -> 0.14.0",), "gpu.out_of_memory_capacity", True),
        (("tensorrt_llm 0.13.0 -> 0.14.0", "trtllm-build --max_batch_size 64"), "gpu.out_of_memory_capacity", False),
        (("torch==2.2.2", "torch==2.3.1"), "nccl.straggler_rank", True),
        (("torch==2.2.2\nTORCH_NCCL_ENABLE_MONITORING=0", "torch==2.3.1"), "nccl.straggler_rank", False),
        (("torch==2.3.1", "torch==2.4.1"), "nccl.straggler_rank", False),
        (("nixl==0.3.1", "nixl==0.5.0"), "serving.kv_transfer_slow", True),
        (("# Library version: 1.15.0", "# Library version: 1.16.0"), "ucx.rndv_threshold", True),
        (("# Library version: 1.16.0", "# Library version: 1.17.0"), "ucx.rndv_threshold", False),
        (("NCCL version 2.21.5+cuda12.4", "NCCL version 2.22.3+cuda12.4"), "nccl.init_scaling", True),
        (("NCCL version 2.22.3+cuda12.4", "NCCL version 2.23.4+cuda12.4"), "nccl.init_scaling", False),
        (("vllm 0.8 -> 0.9.2",), "serving.kv_cache_exhausted", False),  # 0.8 may be any of them
    ],
)
def test_a_default_that_changed_between_two_releases(texts: tuple[str, ...], cause: str, named: bool) -> None:
    assert (cause in changes(*texts)) is named


def test_a_changed_default_is_a_weak_sign_where_the_question_fits() -> None:
    got = run("since the upgrade of vLLM the engine does not start: out of memory", "vllm==0.18.0", "vllm==0.20.0")
    assert got.verdict == "inconclusive"
    assert got.hypotheses[0].cause == "gpu.out_of_memory_capacity"
    assert not any(h.basis == "evidence" for h in run("ibv latency is high", "vllm==0.18.0", "vllm==0.20.0").hypotheses)


def test_every_change_says_where_it_was_read() -> None:
    for component, items in catalogue().changes.items():
        for item in items:
            assert parse_version(item.after) < parse_version(item.at), (component, item)
            assert item.source
            assert item.what
            assert not re.search(r"\d{2,}%", item.what)
            assert re.search("[一-鿿]", item.zh), item.what
            assert re.findall(r"\d+", item.zh) == re.findall(r"\d+", item.what), item.zh


def test_a_change_is_told_in_both_languages_and_not_by_its_quote_alone() -> None:
    texts = "vllm==0.18.0", "vllm==0.20.0\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    docs = [Document.of(f"a{n}", text.encode()) for n, text in enumerate(texts)]
    asked = "since the upgrade of vLLM the server does not start: out of memory"
    answer = report(asked, docs, langs=("en", "zh")).answer
    change = next(c for c in catalogue().changes["vllm"] if c.at == "0.20.0" and "share" in c.what)
    assert f"between vllm 0.18.0 and 0.20.0: {change.what}" in answer["en"].long
    assert f"从 vllm 0.18.0 到 0.20.0，{change.zh}" in answer["zh"].long
    assert change.what not in answer["zh"].long


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("vllm 0.9.2 → 0.11.0", {("vllm", "0.9.2"), ("vllm", "0.11.0")}),
        ("we upgraded NCCL from 2.18.5 to 2.20.5 on Monday", {("nccl", "2.18.5"), ("nccl", "2.20.5")}),
        ("PyTorch 从 2.3.1 升级到 2.7.0", {("torch", "2.3.1"), ("torch", "2.7.0")}),
        ("torch 2.3.1 -> torch 2.7.0", {("torch", "2.3.1"), ("torch", "2.7.0")}),
        ("UCX latency from 1.2 to 2.4 us", set()),
        ("NCCL busbw 10.5 -> 20.12 GB/s", set()),
        ("vllm 10.5 -> 20.12 ms", set()),
    ],
)
def test_both_ends_of_an_upgrade_are_versions(text: str, want: set[tuple[str, str]]) -> None:
    got = {(f.subject.label, str(f.value)) for f in UpgradeReader().parse(Document.of("u", text.encode()))}
    assert got == want


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (("NCCL version 2.19.3+cuda12.3", "note: works with NCCL 2.18.5"), True),
        (("known issue in NCCL 2.19; NCCL version 2.19.3+cuda12.3",), True),
        (("NCCL version 2.21.5+cuda12.3", "note: fixed in NCCL 2.21"), False),
        (("note: this was fixed in NCCL 2.21",), False),
    ],
)
def test_a_note_about_another_release_needs_the_one_at_hand(texts: tuple[str, ...], named: bool) -> None:
    seen = gather([Document.of(f"n{n}", text.encode()) for n, text in enumerate(texts)])
    assert (RULES["nccl_note_of_a_release"](Context(number(seen))).holds is True) is named


def test_one_release_after_the_other_is_no_mismatch() -> None:
    lines = "NCCL version 2.20.5+cuda12.4, 410 ms/step", "NCCL version 2.26.2+cuda12.6, 470 ms/step"
    upgrade = run("training is slower since the upgrade", f"before: {lines[0]}\nafter: {lines[1]}")
    assert "nccl.version_mismatch" not in [f.cause for f in upgrade.findings]
    hosts = run("all_reduce fails between two hosts", *(f"h: {line.split(',')[0]}" for line in lines))
    assert "nccl.version_mismatch" in [f.cause for f in hosts.findings]


def test_an_option_of_another_release_sets_nothing() -> None:
    command = "vllm serve m --num-scheduler-steps 8"
    facts = number(gather([Document.of("c", f"vLLM API server version 0.11.0\n{command}".encode())]))
    ctx = Context(facts)
    assert not ctx.of("serving.arg", {"label": "num-scheduler-steps"})
    older = number(gather([Document.of("c", f"vLLM API server version 0.6.6\n{command}".encode())]))
    assert Context(older).of("serving.arg", {"label": "num-scheduler-steps"})


@pytest.mark.parametrize(
    ("version", "text", "signal", "label", "read"),
    [
        ("tensorrt_llm==0.20.0", "trtllm-serve m --use_cuda_graph false", "serving.arg", "use-cuda-graph", True),
        ("tensorrt_llm==1.0.0", "trtllm-serve m --use_cuda_graph false", "serving.arg", "use-cuda-graph", False),
        ("tensorrt_llm==0.21.0", "cuda_graph_config:\n  enable_padding: true", "serving.arg", "enable-padding", False),
        ("tensorrt_llm==1.1.0", "cuda_graph_config:\n  enable_padding: true", "serving.arg", "enable-padding", True),
        ("# Library version: 1.12.1", "UCX_RNDV_FRAG_MEM_TYPE=host", "env.var", "UCX_RNDV_FRAG_MEM_TYPE", False),
        ("# Library version: 1.18.0", "UCX_RNDV_FRAG_MEM_TYPE=host", "env.var", "UCX_RNDV_FRAG_MEM_TYPE", True),
        ("torch==2.7.1", "TORCH_NCCL_AVOID_RECORD_STREAMS=1", "env.var", "TORCH_NCCL_AVOID", True),
        ("torch==2.8.0", "TORCH_NCCL_AVOID_RECORD_STREAMS=1", "env.var", "TORCH_NCCL_AVOID", False),
    ],
)
def test_a_setting_counts_where_the_release_reads_it(
    version: str, text: str, signal: str, label: str, read: bool
) -> None:
    ctx = Context(number(gather([Document.of("c", f"{version}\n{text}\n".encode())])))
    assert bool(ctx.of(signal, {"label": label})) is read


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("RuntimeError: Unrecognized CachingAllocator option: expandable_segments", True),
        ("RuntimeError: Unrecognized key 'per_process_memory_fraction' in Accelerator allocator config.", True),
        ("RuntimeError: Unrecognized CachingAllocator option: expandable_segmnets", False),
    ],
)
def test_an_option_that_the_allocator_refuses_is_a_matter_of_releases_where_another_knows_it(
    line: str, known: bool
) -> None:
    named = [f.cause for f in run("training does not start", line).findings if f.confidence >= 0.5]
    assert (named == ["env.version_conflict"]) is known


@pytest.mark.parametrize(("code", "kind"), [(126, "application"), (108, "nvlink"), (136, "nvlink"), (171, "hardware")])
def test_xids_are_named_as_in_the_driver(code: int, kind: str) -> None:
    line = f"NVRM: Xid (PCI:0000:0f:00): {code}, pid=77, name=python"
    seen = {f.signal for f in gather([Document.of("dmesg", line.encode())]).facts}
    assert f"gpu.xid.{kind}" in seen


PREEMPTED = "Sequence group 5 is preempted by PreemptionMode.RECOMPUTE mode because there is not enough KV cache space."


@pytest.mark.parametrize(
    ("component", "version", "line", "foreign"),
    [
        ("vllm", "0.10.2", PREEMPTED, False),
        ("vllm", "0.13.0", PREEMPTED, True),
        ("vllm", "0.11.2", "Enforce eager set, overriding optimization level to -O0", True),
        ("vllm", "0.12.0", "Enforce eager set, overriding optimization level to -O0", False),
        ("sglang", "0.4.3", "KV cache pool is full. Retract requests. #retracted_reqs: 3", True),
        ("sglang", "0.4.6.post5", "KV cache pool is full. Retract requests. #retracted_reqs: 3", False),
        ("torch", "2.7.1+cu126", "torch deterministic mode is enabled, disabling NVLS algorithm in NCCL", True),
        ("torch", "2.9.1+cu128", "torch deterministic mode is enabled, disabling NVLS algorithm in NCCL", False),
        ("torch", "2.6.0+cu124", "Heartbeat monitor timed out! Process will be terminated", True),
        ("torch", "2.2.2", "[Rank 3] NCCL watchdog thread terminated with exception: CUDA error", False),
        ("torch", "2.3.1", "[Rank 3] NCCL watchdog thread terminated with exception: CUDA error", True),
        ("torch", "2.5.1", "[PG ID 0 PG GUID 0 Rank 3] Timeout at NCCL work: 12, last enqueued NCCL work: 14", False),
        ("torch", "2.6.0", "[PG ID 0 PG GUID 0 Rank 3] Timeout at NCCL work: 12, last enqueued NCCL work: 14", True),
        ("torch", "2.4.1", "PG status: last enqueued work: 14, last completed work: 12", True),
        ("torch", "2.0.1", "WorkNCCL(SeqNum=3, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=1)", True),
        ("torch", "2.6.0", "torch._dynamo hit config.cache_size_limit (8)", False),
        ("torch", "2.9.1", "torch._dynamo hit config.cache_size_limit (8)", True),
        ("torch", "2.9.1", "torch._dynamo hit config.recompile_limit (8)", False),
    ],
)
def test_engines_texts_belong_to_releases(component: str, version: str, line: str, foreign: bool) -> None:
    seen = gather([Document.of("log", f"{component}=={version}\n{line}\n".encode())])
    got = RULES[f"{component}_text_of_another_release"](Context(number(seen)))
    assert (got.holds is True) is foreign
