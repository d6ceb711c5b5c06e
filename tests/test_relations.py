"""Readings put into relation: what the readers find, and that a predicate fails on its own opposite."""

from __future__ import annotations

import pytest

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.gather import gather, number
from diagnose.predicates import Context, Outcome
from diagnose.rules import RULES


def context(*texts: str, symptom: str = "") -> Context:
    """Evidence of texts as pasted."""
    docs = [Document.of(f"t{i}", t.encode()) for i, t in enumerate(texts)]
    evidence = number(gather(docs))
    return Context(evidence, symptom=symptom)


def holds(rule: str, *texts: str, symptom: str = "") -> Outcome:
    return RULES[rule](context(*texts, symptom=symptom))


def labels(text: str, signal: str) -> list[str]:
    return [e.subject.label or "" for e in context(text).of(signal)]


NUMA = "core   numa of core   bw GB/s\n0      0              33.0\n16     0              33.3\n64     1              49.2\n80     1              49.1"  # noqa: E501
ZONES = "from zone   to zone   xfer p50\na           a         41 ms\nb           b         42 ms\na           b         390 ms\nb           a         388 ms"  # noqa: E501
PAIRS = "pair              p50\np0 -> d0          29 ms\np0 -> d2          121 ms\np1 -> d2          28 ms\np1 -> d0          122 ms"  # noqa: E501


@pytest.mark.parametrize(
    ("text", "axis"), [(NUMA, "numa"), (ZONES, "place"), (PAIRS, "place")], ids=["column", "two columns", "arrows"]
)
def test_two_groups_are_told_apart(text: str, axis: str) -> None:
    got = labels(text, "compare.split")
    assert got and all(label.startswith(f"{axis}|") for label in got)


@pytest.mark.parametrize(
    "text",
    [
        "core   numa of core   bw GB/s\n0      0              33.0\n16     1              33.3\n64     0              49.2\n80     1              49.1",  # noqa: E501
        "core   numa of core   bw GB/s\n0      0              30.0\n16     0              36.0\n64     1              43.0\n80     1              51.0",  # noqa: E501
        "size   x   bw GB/s\n4k     1   3.1\n64k    1   3.2\n1M     2   22.0\n16M    3   22.5",
    ],
    ids=["attribute in both groups", "no gap", "a sweep"],
)
def test_no_split_without_two_groups_and_an_attribute(text: str) -> None:
    assert labels(text, "compare.split") == []


def test_settings_of_two_columns_name_the_comparison() -> None:
    text = "mine                            friend\nctx: n_batch    = 512      = 512\nctx: flash_attn = 0        = 1\ntg128 @ d30000    11.2     48.3"  # noqa: E501
    assert any(x.startswith("attention_backend|") for x in labels(text, "compare.ratio"))
    same = text.replace("= 0        = 1", "= 1        = 1")
    assert not any(x.startswith("attention_backend|") for x in labels(same, "compare.ratio"))


ORDER = "timeline (ms)\nprefill kernels L0..L79     0.0 -> 1904.2\nnixl postXfer (L0)          {}\nNIC tx counter active       {} -> 3012"  # noqa: E501


def test_transfer_behind_compute_and_beside_it() -> None:
    late = context(ORDER.format(1905.0, 1905)).numbers("kv.post_delay")
    early = context(ORDER.format(40.0, 41)).numbers("kv.post_delay")
    assert late[0][0] > 0.95 and early[0][0] < 0.1


def test_iteration_record_of_the_engine() -> None:
    record = '{"Active Request Count":64,"Max Request Count":8,"Scheduled Requests":8,"Used KV cache blocks":724}'
    ctx = context(record)
    assert [v for v, _ in ctx.numbers("serving.waiting")] == [56.0]
    assert [v for v, _ in ctx.numbers("serving.max_num_seqs")] == [8.0]


SWEEP = "clients  running  waiting  kv%  tok/s\n16       16       0        6    820\n64       32       32       {0}   1604\n128      {1}      96       {0}   1601"  # noqa: E501
CASES = [
    ("running_stays", (SWEEP.format(11, 32),), (SWEEP.format(97, 32),), ""),
    (
        "bench_unequal_work",
        (
            "                        a         b\nTotal generated tokens  256000    14210\nBenchmark duration (s)  128.8     14.3\nMean TPOT (ms)          19.9      19.7",  # noqa: E501
        ),
        (
            "                        a         b\nTotal generated tokens  256000    255100\nBenchmark duration (s)  128.8     14.3\nMean TPOT (ms)          19.9      19.7",  # noqa: E501
        ),
        "",
    ),
    (
        "pool_holds_one",
        (
            "Maximum concurrency for 3072 tokens per request: 1.11x\nRunning: 1 reqs, Pending: 1 reqs, GPU KV cache usage: 71.5%",  # noqa: E501
        ),
        (
            "Maximum concurrency for 3072 tokens per request: 9.11x\nRunning: 1 reqs, Pending: 1 reqs, GPU KV cache usage: 71.5%",  # noqa: E501
        ),
        "",
    ),
    (
        "slow_gpu_is_narrow",
        ("gpu   lnk cur          h2d\n0     16.0 GT/s x16    25.1 GB/s\n2     16.0 GT/s x4     6.3 GB/s",),
        ("gpu   lnk cur          h2d\n0     16.0 GT/s x16    25.1 GB/s\n2     16.0 GT/s x16    6.3 GB/s",),
        "",
    ),
    (
        "memory_is_cache",
        (
            "       total  used  free  shared  buff/cache  available\nMem:   1007   118   4     33      884         848\nSwap:  0 0 0\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=1\npgmajfault 1\noom_kill 0\n$ cat /proc/pressure/memory\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=10221",  # noqa: E501
        ),
        (
            "       total  used  free  shared  buff/cache  available\nMem:   1007   118   4     33      884         48\nSwap:  0 0 0\n$ cat /proc/pressure/memory\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=10221",  # noqa: E501
        ),
        "only 4 GB free",
    ),
    (
        "rate_beside_perftest",
        ("nixlbench WRITE   46.3 GB/s\nib_write_bw -d mlx5_0   46.6 GB/s",),
        ("nixlbench WRITE   16.3 GB/s\nib_write_bw -d mlx5_0   46.6 GB/s",),
        "",
    ),
    (
        "knee_at_threshold",
        ("msg     latency us\n4096    3.2\n8191    4.4\n8192    19.8\n16384   21.0\nUCX_RNDV_THRESH=8192",),
        ("msg     latency us\n4096    3.2\n8191    4.4\n8192    19.8\n16384   21.0\nUCX_RNDV_THRESH=65536",),
        "",
    ),
    (
        "ttft_is_prefill_rate",
        (
            "Received request prompt_tokens=181004\nEngine 000: Avg prompt throughput: 15230.4 tokens/s, Avg generation throughput: 0.1 tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 31.2%\nTTFT: 12.1 s",  # noqa: E501
        ),
        (
            "Received request prompt_tokens=18100\nEngine 000: Avg prompt throughput: 15230.4 tokens/s, Avg generation throughput: 0.1 tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 31.2%\nTTFT: 12.1 s",  # noqa: E501
        ),
        "",
    ),
]


@pytest.mark.parametrize(("rule", "good", "bad", "symptom"), CASES, ids=[c[0] for c in CASES])
def test_predicate_and_its_opposite(rule: str, good: tuple[str, ...], bad: tuple[str, ...], symptom: str) -> None:
    assert holds(rule, *good, symptom=symptom).holds is True
    assert holds(rule, *bad, symptom=symptom).holds is not True


def test_a_count_of_clients_is_no_link_width() -> None:
    text = (
        "client              req/s   TTFT p50\nPython asyncio x1    41      4.2 s\nPython asyncio x8    212     0.4 s"
    )
    assert holds("slow_gpu_is_narrow", text).holds is not True


def test_versions_that_fail_and_work() -> None:
    text = "1.13.1  OK (200/200)\n1.14.0  hang in ucp_ep_flush, 37/200\n1.14.1  OK (200/200)"
    assert [e.value for e in context(text).of("compare.version_outcome")] == ["1.14.0"]
    assert context(text.replace("hang in ucp_ep_flush, 37/200", "OK")).of("compare.version_outcome") == []


def test_a_clock_that_runs_while_the_model_loads() -> None:
    late = "t0 = time.time()\nllm = LLM(model)\nout = llm.generate(p)\nprint(n / (time.time() - t0))"
    right = "llm = LLM(model)\nt0 = time.time()\nout = llm.generate(p)\nprint(n / (time.time() - t0))"
    assert context(late).of("serving.timed_load") and not context(right).of("serving.timed_load")


def test_steps_with_prefill_stall_decoding() -> None:
    text = "step: prefill 16384 tok + decode 30, took 702 ms\nstep: decode 31, took 17 ms"
    assert context(text).numbers("serving.decode_stall")[0][0] == pytest.approx(702 / 17)


def test_slow_copies_of_one_numa_node_are_not_the_slot() -> None:
    table = "GPU  H2D GB/s   numactl --show\n0    49.8       cpubind: 0  membind: 0\n3    49.7       cpubind: 0  membind: 0\n4    19.9       cpubind: 0  membind: 0\n7    20.2       cpubind: 0  membind: 0"  # noqa: E501
    topo = "\tGPU0\tGPU3\tGPU4\tGPU7\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tNV18\tNV18\tNV18\t0-55\t0\nGPU3\tNV18\t X \tNV18\tNV18\t0-55\t0\nGPU4\tNV18\tNV18\t X \tNV18\t56-111\t1\nGPU7\tNV18\tNV18\tNV18\t X \t56-111\t1"  # noqa: E501
    docs = [Document.of(str(i), t.encode()) for i, t in enumerate((table, topo))]
    got = triage("GPUs 4-7 copy slowly", docs)
    assert got.assessment.accepted[0].cause.id == "host.numa_misplacement"
