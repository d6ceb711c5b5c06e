"""Microbenchmarks without a GPU: compiled for real targets, run on the CPU, read back, and refused politely."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from diagnose.probes import bench_rows, cuda_device, microkernels, microkernels_compute, microkernels_transfer
from diagnose.probes import microbench as suite
from diagnose.probes.bench_json import MicrobenchJson

from diagnose import microbench
from diagnose.document import Document
from diagnose.engine import triage
from diagnose.errors import EXIT_ERROR, EXIT_INCONCLUSIVE, EXIT_OK, ParseError, UsageError
from diagnose.runner import Ran

HERE = Path(__file__).parent


def _files() -> list[str]:
    folder = Path(str(import_module("importlib.resources").files("diagnose.kernels")))
    return sorted(f.stem for f in folder.glob("*.cu"))


NEEDS = {"wgmma": ("sm_90a",), "copy_bulk": ("sm_90", "sm_100")}


@pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-core is not installed: device code is not compiled here")
@pytest.mark.parametrize("stem", _files())
def test_device_code_compiles_for_every_generation(stem: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    for arch in NEEDS.get(stem, ("sm_80", "sm_90", "sm_100")):
        assert cuda_device.compile_cubin(stem, arch)[:4] == b"\x7fELF"


@pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-core is not installed: device code is not compiled here")
def test_broken_device_code_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "source", lambda stem: "__global__ void k() { nonsense(); }")
    with pytest.raises(cuda_device.CudaError, match="nonsense"):
        cuda_device.compile_cubin.__wrapped__("broken", "sm_90")


def test_without_cuda_core_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(cuda_device.ToolMissing, match="cuda-core") as err:
        cuda_device._core.__wrapped__()
    assert "pip install" in err.value.hint


@lru_cache(maxsize=1)
def _emulator() -> Any:
    spec = spec_from_file_location("emulator", HERE / "cuda_emulator.py")
    assert spec is not None and spec.loader is not None
    emulator = module_from_spec(spec)
    spec.loader.exec_module(emulator)
    return emulator


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device layer on a driver that runs kernels on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: kernels cannot run on the CPU")
    driver = _emulator().Driver(tmp_path, cuda_device.source, 1 << 19, devices=2)
    monkeypatch.setattr(cuda_device, "_driver", lambda: driver)
    monkeypatch.setattr(cuda_device, "compile_cubin", lambda stem, arch, registers=None: f"{stem}|{registers}".encode())
    monkeypatch.setattr(bench_rows.Ceilings, "under_load", lambda *args, **kwargs: None)
    monkeypatch.setattr(microkernels_transfer, "SIZES", (4096, 8192))
    monkeypatch.setattr(microkernels_transfer, "MIB", 1024)
    monkeypatch.setattr(microkernels_compute, "MATRIX", 128)
    monkeypatch.setattr(microkernels, "TOKENS", (1, 16))
    return driver


ON_CPU = {
    "occupancy": ("read_latency", ["occupancy_full", "occupancy_low"]),
    "transpose": ("transpose_conflict", ["transpose_padded", "transpose_conflict", "transpose_direct"]),
    "kv": ("gather", ["kv_contiguous", "kv_paged_1", "kv_paged_16"]),
    "matmul": ("matmul_tiled", ["matmul_tiled", "matmul_naive"]),
    "read": ("read_random", ["read_coalesced", "read_strided", "read_random"]),
    "host": ("", ["pinned_h2d_4MiB", "pinned_h2d_8MiB", "pinned_d2h_4MiB", "pinned_d2h_8MiB", "pageable_h2d_4MiB",
                  "pageable_h2d_8MiB", "pageable_d2h_4MiB", "pageable_d2h_8MiB"]),
    "peer": ("", ["peer_write", "peer_read", "peer_both", "peer_latency"]),
    "launch": ("", ["sync_empty", "launch", "launch_and_wait", "launch_graph"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_CPU)
def test_kernels_grids_and_checks_belong_together(name: str, emulated: Any) -> None:
    device = cuda_device.Device(0)
    rows = list(suite.ENTRIES[name].run(device, bench_rows.Ceilings(device)))
    assert [r.name for r in rows] == ON_CPU[name][1]
    assert all(r.value > 0 and r.p10 <= r.p90 and (r.limit or r.reason) for r in rows)
    assert not emulated.live  # everything is freed


@pytest.mark.parametrize("name", [n for n, (kernel, _) in ON_CPU.items() if kernel])
def test_a_kernel_that_does_not_do_its_work_gives_no_figure(name: str, emulated: Any) -> None:
    emulated.spoil.add(ON_CPU[name][0])
    device = cuda_device.Device(0)
    rows = []
    with pytest.raises(cuda_device.CudaError, match="wrong result"):
        rows.extend(suite.ENTRIES[name].run(device, bench_rows.Ceilings(device)))
    assert not emulated.live


def test_one_gpu_has_no_peer_and_that_is_no_failure(emulated: Any) -> None:
    emulated.devices = 1
    device = cuda_device.Device(0)
    with pytest.raises(cuda_device.NotHere, match="two"):
        list(suite.ENTRIES["peer"].run(device, bench_rows.Ceilings(device)))


def test_more_than_its_share_of_memory_is_refused(emulated: Any) -> None:
    device = cuda_device.Device(0)
    with device.memory() as memory, pytest.raises(cuda_device.CudaError, match="40%"):
        memory.alloc(emulated.free // 2)


def test_buffers_that_would_sit_in_the_l2_are_refused(emulated: Any) -> None:
    device = cuda_device.Device(0)
    emulated.free = 100_000
    with pytest.raises(cuda_device.CudaError, match="L2"):
        device.fit(1 << 30, 2)


def test_expected_values_of_the_checks() -> None:
    words = 1000
    assert microkernels._sum_of_pattern(words) == sum(
        (i * cuda_device.ODD + cuda_device.SEED) % 2**32 for i in range(words)
    ) % (2**32)
    n = 26
    a = [[(i * 7 + k * 3) % 13 - 6 for k in range(n)] for i in range(n)]
    b = [[(k * 5 + j * 11) % 13 - 6 for j in range(n)] for k in range(n)]
    expected = microkernels_compute._expected(n)
    for i, j in ((0, 0), (3, 20), (25, 14)):
        assert sum(a[i][k] * b[k][j] for k in range(n)) == expected[i % 13 * 13 + j % 13]


def test_limits_of_an_h100_and_of_an_unknown_gpu() -> None:
    class H100:
        cc, sms, name, bus_id = (9, 0), 132, "NVIDIA H100 80GB HBM3", "0000:00:00.0"

    got = bench_rows.Ceilings(H100())  # type: ignore[arg-type]
    got.nvml.clock = lambda kind, most=False: 1980.0  # type: ignore[method-assign]
    assert got.memory().value == 3350
    assert got.fp32(1980.0).value == pytest.approx(66.9, abs=0.05)
    assert got.tensor(1755.0).value == 989.4
    assert got.tensor(1755.0).now == pytest.approx(948.9, abs=0.1)
    assert got.shared().value == pytest.approx(33454, abs=1)
    assert got.nvlink().value == 450
    H100.name = "Some Card"
    other = bench_rows.Ceilings(H100())  # type: ignore[arg-type]
    assert other.memory().value is None and "no entry" in str(other.memory().reason)


GPU = {"index": 0, "name": "X", "multiprocessors": 132, "driver": "580", "max_sm_mhz": 1980.0, "max_memory_mhz": None,
       "unknown": None}  # fmt: skip


def _line(**message: Any) -> str:
    return json.dumps(message)


def _row(name: str, value: float, **more: Any) -> dict[str, Any]:
    rest = {"group": "memory", "what": "w", "unit": "GB/s", "checked": "all", **more}
    return bench_rows.Row(name=name, value=value, p10=value, p90=value, reps=3, **rest).to_json()


def _runs(*outputs: tuple[int | None, list[str]]) -> Any:
    """A runner that plays one output after another and remembers what it was asked."""
    left, asked = list(outputs), []

    def run(argv: Any, **kwargs: Any) -> Ran:
        asked.append(list(argv))
        status, lines = left.pop(0)
        cut = None if status is not None else "ended at its limit of 9 s"
        return Ran(tuple(argv), 0.0, 1.0, status, "\n".join(lines).encode(), {}, cut)

    run.asked = asked  # type: ignore[attr-defined]
    return run


def test_a_benchmark_that_dies_takes_only_itself_along(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _runs(
        (
            -11,
            [
                _line(event="gpu", gpu=GPU),
                _line(event="begin", name="copy"),
                _line(event="row", row=_row("copy", 3000.0, limit=3350.0)),
                _line(event="end", name="copy", seconds=1.0),
                _line(event="begin", name="read"),
                "Fatal: something on stderr",
            ],
        ),
        (
            None,
            [
                _line(event="begin", name="kv"),
                _line(event="row", row=_row("kv_contiguous", 2900.0)),
                _line(event="row", row=_row("kv_paged_1", 1450.0, twin="kv_contiguous")),
                _line(event="end", name="kv", seconds=1.0),
                _line(event="begin", name="peer"),
                _line(event="skipped", name="peer", reason="one GPU is visible"),
                _line(event="end", name="peer", seconds=0.0),
                _line(event="begin", name="fma"),
            ],
        ),
    )
    monkeypatch.setattr(microbench, "run_program", run)
    got = microbench.measure(["copy", "read", "kv", "peer", "fma"], 0)
    assert [r["name"] for r in got["rows"]] == ["copy", "kv_contiguous", "kv_paged_1"]
    assert got["rows"][0]["ratio"] == 0.8955 and got["rows"][2]["slower"] == 2.0
    assert {f["name"] for f in got["failed"]} == {"read", "fma"}
    assert "something on stderr" in got["failed"][0]["reason"] and "limit of 9 s" in got["failed"][1]["reason"]
    assert run.asked[1][-3:] == ["kv", "peer", "fma"]
    assert got["skipped"] == [{"name": "peer", "reason": "one GPU is visible"}]
    text = microbench.render(got, "json")
    assert json.loads(text)["schema"] == "diagnose.microbench/v1"
    assert "copy" in microbench.render(got, "md")


def test_a_driver_that_does_not_start_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microbench, "run_program", _runs((3, [_line(event="unavailable", reason="no driver")])))
    got = microbench.measure(["copy"], 0)
    assert not got["rows"] and "no driver" in got["failed"][0]["reason"]


def test_without_a_gpu_one_line_and_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    if not microbench.missing(0):
        pytest.skip("there is a GPU here")
    assert microbench.run("", False, 0, "load", "text", None) == EXIT_ERROR
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "available" in err
    assert "GB/s" not in err


def test_without_consent_it_says_what_it_would_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(microbench, "missing", lambda gpu: "")
    monkeypatch.setattr(microbench, "neighbours", lambda gpu: [4711])
    monkeypatch.setattr(microbench, "run_program", lambda *a, **k: pytest.fail("ran without consent"))
    for allow in ("", "read", "light"):
        assert microbench.run("copy,fma", False, 0, allow, "text", None) == EXIT_INCONCLUSIVE
    err = capsys.readouterr().err
    assert "--allow load" in err and "6 s" in err and "4711" in err and "GiB" in err


def test_list_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert microbench.run("", True, 0, "", "text", None) == EXIT_OK
    assert len(capsys.readouterr().out.splitlines()) == len(suite.ENTRIES)
    assert microbench.choose("fma,copy") == ["copy", "fma"]
    with pytest.raises(UsageError, match="cpy"):
        microbench.choose("cpy")
    assert sum(e.seconds for e in suite.ENTRIES.values()) <= 90


def _result(**gpu: Any) -> bytes:
    rows = [
        {**_row("copy", 3051.0, limit=3350.0, limit_source="sheet"), "slower": None},
        {**_row("read_coalesced", 2900.0, params={"profile": {"kernel.sectors_per_request": 4}}), "slower": None},
        {**_row("read_strided", 290.0, twin="read_coalesced", params={"profile": {"kernel.sectors_per_request": 32}}),
         "slower": 10.0},
    ]  # fmt: skip
    facts = {"index": 0, "name": "NVIDIA H100 80GB HBM3", **gpu}
    result = {"gpu": facts, "rows": rows, "failed": [], "skipped": [], "notes": [], "seconds": {}}
    return microbench.render(result, "json").encode()


def test_reader_quotes_every_figure() -> None:
    doc = Document.of("m", _result())
    facts = list(MicrobenchJson().parse(doc))
    got = {(f.signal, f.subject.label): f for f in facts}
    assert got["bench.bandwidth", "copy"].value == 3051.0
    assert got["bench.ratio", "copy"].value == 0.9107
    assert got["bench.slower", "read_strided|read_coalesced"].value == 10.0
    assert got["gpu.name", None].value == "NVIDIA H100 80GB HBM3"
    for fact in facts:
        span = fact.spans[0]
        assert doc.data[span.start : span.end].decode() == span.quote
        assert str(fact.value).removesuffix(".0") in span.quote


@pytest.mark.parametrize("cut", [b'{"schema": "diagnose.microbench/v1"', b'{"schema": "diagnose.microbench/v1"}'])
def test_what_is_cut_is_a_parse_error(cut: bytes) -> None:
    with pytest.raises(ParseError, match="microbench"):
        list(MicrobenchJson().parse(Document.of("m", cut)))


def test_pathological_twins_are_nobodys_fault() -> None:
    got = triage("this kernel is slow", [Document.of("m.json", _result())])
    assert got.assessment.verdict == "inconclusive" and not got.assessment.accepted


def test_a_kernel_is_placed_between_the_twins() -> None:
    from diagnose.derive import derive
    from diagnose.models import Fact, Subject

    facts = list(MicrobenchJson().parse(Document.of("m.json", _result())))
    mine = Fact("kernel.sectors_per_request", 18.0, "count", Subject(label="gather_rows"))
    healthy = Fact("kernel.sectors_per_request", 4.5, "count", Subject(label="copy"))
    assert not [f for f in derive([*facts, healthy], {}) if f.signal.startswith("bench.")]
    got = {f.signal: f for f in derive([*facts, mine], {}) if f.signal.startswith("bench.")}
    assert got["bench.place"].value == 0.5
    assert got["bench.cost"].value == pytest.approx(5.5)
