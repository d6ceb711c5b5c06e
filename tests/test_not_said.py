"""What looks like a setting, an axis, a share or an error in a text and is none."""

from __future__ import annotations

import pytest
from diagnose.probes.generic_errors import errors
from diagnose.probes.serving_args import ServingArgsReader

from diagnose.axes import classify
from diagnose.document import Document
from diagnose.engine import report
from diagnose.gather import gather
from diagnose.predicates import Context, holds
from diagnose.rules import RULES


def options(text: str) -> dict[str, object]:
    return {f.subject.label or "": f.value for f in ServingArgsReader().parse(Document.of("x", text.encode()))}


@pytest.mark.parametrize(
    "text",
    [
        "1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)",
        "sglang: reduce --cuda-graph-max-bs (e.g., --cuda-graph-max-bs 16), disable CUDA graph by --disable-cuda-graph",
        "usage: vllm serve [-h] [--max-num-seqs MAX_NUM_SEQS] [--enforce-eager]",
        "  --max-model-len MAX_MODEL_LEN",
        "vllm serve: error: unrecognized arguments: --num-scheduler-steps 8",
        "api_server.py: error: argument --quantization/-q: invalid choice: 'foo' (choose from 'awq', 'gptq')",
        "ValueError: vLLM has no chunked prefill here, set --enable-chunked-prefill=False to go on",
        "WARNING --async-scheduling is not supported with pipeline parallel, disabled",
        "WARNING enforce_eager=True is ignored on this platform",
        "The default value of --max-num-batched-tokens is 8192 in vLLM",
    ],
)
def test_a_message_about_an_option_does_not_set_it(text: str) -> None:
    assert options(text) == {}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("vllm serve m --use-v2 --max-num-seqs 16 --enforce-eager", {"max-num-seqs": "16", "enforce-eager": "true"}),
        ("we set --max-num-seqs 16 in the unit file", {"max-num-seqs": "16"}),
        ("ValueError: max_num_seqs=300 must not exceed the budget", {"max-num-seqs": "300"}),
        ('command: ["--max-num-seqs", "8"]', {"max-num-seqs": "8"}),
        ("python -m sglang.launch_server --use-x --mem-fraction-static 0.6", {"mem-fraction-static": "0.6"}),
    ],
)
def test_an_option_that_is_set_is_read(text: str, want: dict[str, str]) -> None:
    assert want.items() <= options(text).items()


@pytest.mark.parametrize(
    ("one", "other", "power"),
    [
        ("300W", "700W", True),
        ("15W", "MAXN", True),
        ("450 w", "default", True),
        ("8w", "0w", False),
        ("16w", "base", False),
    ],
)
def test_watts_are_no_workers(one: str, other: str, power: bool) -> None:
    assert ("power" in classify(one, other)) is power


def test_unless_a_rule_that_found_nothing_does_not_object(monkeypatch: pytest.MonkeyPatch) -> None:
    from diagnose.predicates import UNKNOWN, Outcome

    ctx = Context([])
    for name, outcome, want in (("quiet", UNKNOWN, True), ("yes", Outcome(True), False), ("no", Outcome(False), True)):
        monkeypatch.setitem(RULES, name, lambda _ctx, outcome=outcome: outcome)
        assert holds({"not": {"python": name}}, ctx).holds is want


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("45.2%  8123456  640  12692.9  ncclDevKernel_AllReduce_Sum_bf16_RING_LL", True),
        ("38 % of the decode step in all-reduce", True),
        ("all-reduce takes 38% of the decode step", True),
        ("utilisation 95% during all_reduce", False),
        ("NCCL all-reduce should stay under 30% of the decode step", False),
        ("progress 35% |####   | 12/34 all_reduce_perf", False),
    ],
)
def test_a_share_of_all_reduce_is_measured(text: str, share: bool) -> None:
    seen = [f for f in gather([Document.of("x", text.encode())]).facts if f.signal == "serving.mark.ar_share"]
    assert bool(seen) is share


def test_descriptions_of_parameters_are_no_errors() -> None:
    text = b"""mca:mpi:base:param:mpi_abort_delay:help:If nonzero, print a message when abort operation is invoked
config:cli:--with-ucx --enable-warn --disable-debug
    MCA btl tcp: parameter "btl_tcp_progress_thread" cannot be changed
"""
    assert [*errors(Document.of("x", text))] == []
    assert [*errors(Document.of("x", b"mca_base_component: unable to open mca_pml_ucx: not found"))] != []


def test_what_speaks_against_a_cause_is_said_in_percent() -> None:
    got = report(
        "first token is slow", [Document.of("m", b"vllm:gpu_cache_usage_perc 0.005\nvllm:num_requests_waiting 0\n")]
    )
    said = " ".join(r.because for r in got.ruled_out)
    assert " fraction" not in said
    assert "0.5 %" in said


def marks(text: str) -> set[str]:
    return {f.signal for f in gather([Document.of("x", text.encode())]).facts if ".mark." in f.signal}


def test_lines_of_recent_engines() -> None:
    """vLLM counts preemptions of the interval in its line; caches of other kinds stand beside the one for prefixes."""
    line = (
        "INFO 11-02 10:00:00 [loggers.py:271] Engine 000: Avg prompt throughput: 120.3 tokens/s, "
        "Avg generation throughput: 812.4 tokens/s, Running: 48 reqs, Waiting: 30 reqs, {}GPU KV cache usage: 98.7%, "
        "Prefix cache hit rate: 12.1%{}"
    )
    assert "serving.mark.preempted" in marks(line.format("Deferred: 2 reqs, Preemptions: 4, ", ""))
    assert "serving.mark.preempted" not in marks(line.format("", ""))
    others = ", External prefix cache hit rate: 0.0%, MM cache hit rate: 0.0%"
    assert "serving.mark.cached_none" not in marks(line.format("", others))
    assert "serving.mark.cached_none" in marks(line.format("", "").replace("12.1%", "0.0%"))
    sglang = "Prefill batch, #new-seq: 1, #new-token: 512, #cached-token: 5, cuda graph: False, #queue-req: 0"
    assert "serving.mark.eager" not in marks(sglang)
