"""Kineto and nsys traces: where the time of a GPU went."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

import pytest
from diagnose.probes.kineto import KinetoReader, events
from diagnose.probes.nsys_sqlite import NsysSqlite
from diagnose.probes.timeline import COMM, COMPUTE, Timeline, analyse, is_comm, union

from diagnose.derivers.training import late_rank
from diagnose.document import Document
from diagnose.engine import triage
from diagnose.models import Fact, Subject

HERE = Path(__file__).parent / "data" / "kineto"
SHARED = Path(__file__).parents[1].parent / "shared" / "captures"


def read(data: bytes) -> dict[str, float]:
    return values(list(KinetoReader().parse(Document.of("t", data))))


def values(facts: list[Fact]) -> dict[str, float]:
    return {f.signal: float(f.value) for f in facts if isinstance(f.value, (int, float)) and f.subject.label is None}


def trace(*rows: dict[str, object], compact: bool = False) -> bytes:
    return json.dumps({"schemaVersion": 1, "traceEvents": list(rows)}, indent=None if compact else 1).encode()


def launch(at: float, correlation: int, cost: float = 5.0) -> dict[str, object]:
    return {
        "ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": at, "dur": cost,
        "args": {"correlation": correlation},
    }  # fmt: skip


def kernel(at: float, length: float, correlation: int, name: str = "gemm", stream: int = 7) -> dict[str, object]:
    return {
        "ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": stream, "ts": at, "dur": length,
        "args": {"correlation": correlation, "device": 0, "stream": stream},
    }  # fmt: skip


def wait(at: float, length: float) -> dict[str, object]:
    return {
        "ph": "X",
        "cat": "cuda_runtime",
        "name": "cudaStreamSynchronize",
        "pid": 1,
        "tid": 1,
        "ts": at,
        "dur": length,
    }


def test_excerpts_of_real_traces() -> None:
    healthy = read((HERE / "healthy_4steps.json").read_bytes())
    starved = read((HERE / "input_bound_4steps.json").read_bytes())
    assert healthy["trace.gpu_busy"] > 0.9
    assert starved["trace.gpu_busy"] < 0.1
    assert starved["trace.idle.input"] > 0.7
    assert starved["trace.idle.launch"] < 0.2


def test_every_figure_has_a_span_whose_bytes_are_the_quote() -> None:
    data = (HERE / "input_bound_4steps.json").read_bytes()
    facts = list(KinetoReader().parse(Document.of("t", data)))
    assert facts
    for fact in facts:
        for span in fact.spans:
            assert data[span.start : span.end].decode() == span.quote
            assert data.count(b"\n", 0, span.start) + 1 == span.line


def test_launches_that_lag_behind_short_kernels_are_launch_bound() -> None:
    rows = [r for i in range(200) for r in (launch(i * 20.0, i), kernel(i * 20.0 + 7, 3.0, i))]
    got = read(trace(*rows))
    assert got["trace.idle.launch"] > 0.8
    assert got["trace.queue_delay"] == pytest.approx(7.0)


def test_a_queue_that_is_ahead_is_not_launch_bound() -> None:
    rows = [r for i in range(200) for r in (launch(i * 8.0, i), kernel(100 + i * 31.0, 30.0, i))]
    got = read(trace(*rows))
    assert got["trace.idle.launch"] == 0
    assert got["trace.idle.device"] == pytest.approx(1 / 31, abs=0.01)


def test_waiting_after_each_kernel_costs_what_it_leaves_idle() -> None:
    rows = []
    for i in range(100):
        at = i * 200.0
        rows += [launch(at, i), kernel(at + 10, 100.0, i), wait(at + 6, 104.0)]
    got = read(trace(*rows))
    assert got["trace.idle.sync"] == pytest.approx(0.5, abs=0.03)
    assert got["trace.idle.launch"] < 0.03


def test_waiting_for_a_busy_gpu_costs_nothing() -> None:
    rows = []
    for i in range(100):
        at = i * 100.0
        rows += [launch(at - 150, i), kernel(at, 99.0, i), wait(at - 100, 95.0)]
    got = read(trace(*rows))
    assert got["trace.gpu_busy"] > 0.98
    assert got["trace.idle.sync"] < 0.02


def test_exposed_communication_is_only_what_nothing_else_covers() -> None:
    rows = []
    for i in range(50):
        at = i * 100.0
        rows += [launch(at - 200, 2 * i), kernel(at, 60.0, 2 * i), launch(at - 190, 2 * i + 1)]
        rows.append(kernel(at + 40, 60.0, 2 * i + 1, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 20))
    got = read(trace(*rows))
    assert got["trace.comm_share"] == pytest.approx(0.6, abs=0.02)
    assert got["trace.comm_exposed"] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    "name", ["cross_device_reduce_1stage<...>", "multimem_all_reduce_kernel", "ncclKernel_AllReduce_RING_LL"]
)
def test_custom_collectives_are_communication(name: str) -> None:
    assert is_comm(name)


@pytest.mark.parametrize("name", ["hipblas_gemm", "void at::native::reduce_kernel<512, 1>", "nvjet_sm90_tst_128x128"])
def test_compute_is_not_communication(name: str) -> None:
    assert not is_comm(name)


def test_compact_and_truncated_traces_read_alike() -> None:
    rows = [r for i in range(50) for r in (launch(i * 20.0, i), kernel(i * 20.0 + 7, 3.0, i))]
    whole, compact = read(trace(*rows)), read(trace(*rows, compact=True))
    assert whole == compact
    cut = read(trace(*rows)[:-400])
    assert cut["trace.idle.launch"] == pytest.approx(whole["trace.idle.launch"], abs=0.02)


def test_events_give_their_bytes() -> None:
    data = trace({"ph": "X", "name": "né"}, {"ph": "M"})
    doc = Document.of("t", data)
    assert [json.loads(data[a:b])["ph"] for _, a, b in events(doc)] == ["X", "M"]


def test_union_merges_overlaps() -> None:
    assert union([(0, 2), (1, 3), (5, 6)]) == [(0, 3), (5, 6)]


def test_several_streams_are_one_busy_gpu() -> None:
    line = Timeline()
    for start, end, kind in ((0.0, 50.0, COMPUTE), (25.0, 100.0, COMM)):
        line.gpu_start.append(start)
        line.gpu_end.append(end)
        line.gpu_kind.append(kind)
        line.gpu_launch.append(-1.0)
    got = analyse(line)
    assert got is not None
    assert got.busy == 1.0
    assert got.comm_exposed == 0.5


def export(path: Path, gap: int, pageable: bool) -> bytes:
    base = sqlite3.connect(path)
    base.executescript(
        """create table StringIds(id int, value text);
        insert into StringIds values(1,'cudaLaunchKernel_v7000'),(2,'gemm');
        create table CUPTI_ACTIVITY_KIND_KERNEL
            (start int,end int,deviceId int,correlationId int,globalPid int,shortName int);
        create table CUPTI_ACTIVITY_KIND_RUNTIME(start int,end int,globalTid int,correlationId int,nameId int);
        create table CUPTI_ACTIVITY_KIND_MEMCPY(start int,end int,deviceId int,copyKind int,srcKind int,dstKind int);"""
    )
    for i in range(300):
        at = i * gap
        base.execute("insert into CUPTI_ACTIVITY_KIND_RUNTIME values(?,?,?,?,1)", (at, at + 5000, (7 << 24) + 1, i))
        base.execute("insert into CUPTI_ACTIVITY_KIND_KERNEL values(?,?,0,?,?,2)", (at + 6000, at + 9000, i, 7 << 24))
    if pageable:
        base.execute("insert into CUPTI_ACTIVITY_KIND_MEMCPY values(10,20,0,1,0,2)")
    base.commit()
    base.close()
    return path.read_bytes()


def test_nsys_export_gives_the_same_shares(tmp_path: Path) -> None:
    facts = list(NsysSqlite().parse(Document.of("x", export(tmp_path / "a.sqlite", 12_000, True))))
    got = values(facts)
    assert got["trace.gpu_busy"] == pytest.approx(0.25, abs=0.01)
    assert got["trace.idle.launch"] == pytest.approx(0.75, abs=0.01)
    assert [f.value for f in facts if f.signal == "trace.pageable_copies"] == [1]


def test_a_broken_database_is_a_reason_and_no_crash() -> None:
    result = triage("training is slow", [Document.of("x", b"SQLite format 3\x00" + b"\x01" * 5000)])
    assert "SQLite" in (result.gathered.inputs[0].reason or "")


@pytest.mark.skipif(not SHARED.exists(), reason="captures are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "symptom", "cause"),
    [
        ("healthy", "is the GPU idle in training?", "none.healthy"),
        ("input_bound", "GPU utilisation is low in training", "host.input_pipeline_bound"),
        ("launch_bound", "GPU utilisation is low", "train.launch_bound"),
    ],
)
def test_known_states(name: str, symptom: str, cause: str) -> None:
    data = gzip.decompress((SHARED / "h100x2" / "kineto" / f"{name}.rank0.json.gz").read_bytes())
    got = triage(symptom, [Document.of(name, data)]).assessment
    assert (got.accepted[0].cause.id if got.accepted else "none." + got.verdict) == cause
    assert got.confidence >= 0.75  # a lonely sign stays below sure where the words speak for something else


@pytest.mark.skipif(not SHARED.exists(), reason="captures are not beside this checkout")
def test_a_waiting_rank_does_not_count_as_launch_bound() -> None:
    docs = [
        Document.of(f"r{i}", gzip.decompress((SHARED / f"h100x2/kineto/ddp_overlap.rank{i}.json.gz").read_bytes()))
        for i in (0, 1)
    ]
    result = triage("is gradient communication slowing us down?", docs)
    spread = [e for e in result.evidence if e.signal == "trace.comm_spread"]
    assert spread and float(spread[0].value or 0) > 2  # type: ignore[arg-type]
    assert "train.launch_bound" not in [b.cause.id for b in result.assessment.accepted]


def _shares(rank: int, busy: float, exposed: float) -> list[Fact]:
    where = Subject(rank=rank)
    return [Fact("trace.gpu_busy", busy, "fraction", where), Fact("trace.comm_exposed", exposed, "fraction", where)]


@pytest.mark.parametrize(
    ("ranks", "more", "late"),
    [
        ([(0.99, 0.90), (0.99, 0.01)], [], [1]),  # recorded: rank 1 was given work of its own
        ([(0.99, 0.45), (0.98, 0.40)], [], []),  # both wait: the link, not a rank
        ([(0.99, 0.05), (0.60, 0.02)], [], []),  # nobody waits
        ([(0.99, 0.40), (0.45, 0.02)], [], []),  # the other rank idles: it is late, but not by work on its GPU
        ([(0.99, 0.90), (0.99, 0.01)], ["ncclDevKernel_SendRecv(args)"], []),  # stages of a pipeline
    ],
)
def test_who_works_while_the_others_wait(ranks: list[tuple[float, float]], more: list[str], late: list[int]) -> None:
    facts = [f for rank, (busy, exposed) in enumerate(ranks) for f in _shares(rank, busy, exposed)]
    facts += [Fact("trace.kernel_share", 0.3, "fraction", Subject(label=name)) for name in more]
    got = list(late_rank(facts, {}))
    assert [f.subject.rank for f in got] == late
    assert all(f.value == pytest.approx(f.inputs[0].value / f.inputs[1].value) for f in got)
