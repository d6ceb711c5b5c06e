"""A worry that is explained away, its unhealthy twin, and the same with its ceiling left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnose.probes.quantities import BabelStreamReader, CounterPairsReader, RequestFieldsReader

from diagnose.assess import HEALTHY
from diagnose.document import Document
from diagnose.engine import triage

CASES = yaml.safe_load((Path(__file__).parents[1] / "evals" / "cases" / "healthy_ways.yaml").read_text("utf-8"))
TARGETS = ("offered", "slo", "days", "temp", "links", "tp", "p95")  # what was asked of it
WAYS = (
    "algbw", "floor", "kvsize", "little", "pstate", "mig", "ecc", "context", "coldcache", "omp", "counter", "retry",
    "alloc", "dram", "scale", "batch", "longout", "moretok", "quantbatch", "spec", "bidir",
)  # fmt: skip


def _verdict(case: dict[str, Any]) -> tuple[str, str]:
    docs = [Document.of(f"a{i}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]
    got = triage(case["symptom"], docs).assessment
    return got.verdict, got.accepted[0].cause.id if got.accepted else HEALTHY


@pytest.mark.parametrize("way", WAYS)
def test_only_the_explained_one_is_healthy(way: str) -> None:
    """`-ok` is healthy; its twin with a figure that is not, and the one without a ceiling, are never."""
    verdicts = {c["id"].rsplit("-", 1)[1]: _verdict(c)[0] for c in CASES if c["id"].rsplit("-", 1)[0] == f"hw-{way}"}
    assert verdicts["ok"] == "healthy"
    assert "healthy" not in (verdicts["bad"], verdicts["unk"])


@pytest.mark.parametrize("way", TARGETS)
def test_only_what_keeps_its_target_is_healthy(way: str) -> None:
    """So it is with an objective, an offered load, a level over time, a tail, a limit of heat, a link's rate."""
    verdicts = {c["id"].rsplit("-", 1)[1]: _verdict(c)[0] for c in CASES if c["id"].rsplit("-", 1)[0] == f"hw-pb-{way}"}
    assert verdicts["ok"] == "healthy" != verdicts["bad"]


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c["id"].startswith(("hw-fb-", "hw-fc-")) and c["verdict"] != "healthy"],
    ids=lambda c: c["id"],
)
def test_nothing_is_healthy_that_should_not_be(case: dict[str, Any]) -> None:
    """Twins and cut cases in other words: whatever is said of them, it is not that nothing is wrong."""
    assert _verdict(case)[0] != "healthy"


def _read(reader: Any, text: str) -> list[tuple[str, object, str | None, str | None]]:
    return [(f.signal, f.value, f.unit, f.subject.label) for f in reader.parse(Document.of("a.txt", text.encode()))]


def test_request_fields_by_name() -> None:
    """Units stand in the names; the shortest and the longest request are kept whole."""
    text = "".join(
        f'{{"id": {i}, "output_tokens": {n}, "ttft_ms": 120, "itl_ms": 20.0, "latency_s": {0.12 + n * 0.02:.2f}}}\n'
        for i, n in enumerate((100, 900, 300))
    )
    facts = _read(RequestFieldsReader(), text)
    assert ("request.field", 18120.0, "ms", "e2e|longest") in facts
    assert ("request.field", 100.0, "count", "tokens|shortest") in facts
    assert ("request.field", 20.0, "ms", "tpot|longest") in facts


def test_counters_printed_twice() -> None:
    """The second reading less the first; a counter that stands once says nothing."""
    text = "# 08:00\nrx_crc_errors: 41\nPCIe replays: 7\n# 20:00\nrx_crc_errors: 44\nPCIe replays: 7\ntx_drops: 3\n"
    growth = {
        label: value for signal, value, _, label in _read(CounterPairsReader(), text) if signal == "counter.growth"
    }
    assert growth == {"rx_crc_errors": 3.0, "pcie replays": 0.0}


def test_babelstream_rates_of_a_gpu() -> None:
    """MB/s of 1e6; the same table of a CPU is not read."""
    table = "Function    MBytes/sec  Min (sec)\nTriad       1762310.4   0.00731\n"
    triad = _read(BabelStreamReader(), "Using CUDA device NVIDIA A100-SXM4-80GB\n" + table)[0]
    assert triad[2:] == ("GB/s", "Triad") and triad[1] == pytest.approx(1762.31, rel=1e-4)
    assert _read(BabelStreamReader(), table) == []


def test_a_port_below_its_rate_is_not_healthy() -> None:
    """A wire that is filled at a tenth of what the card has."""
    text = "[SUM] 0.00-30.00 sec  3.29 GBytes  941 Mbits/sec  0  sender\nSettings for eno1:\n\tSpeed: 1000Mb/s\n"
    case = {"symptom": "The copy between two boxes stops at 0.11 GB/s; the card is 10G?", "artifacts": [{"text": text}]}
    assert _verdict(case)[0] != "healthy"


def test_p8_of_the_row_that_rests() -> None:
    """Rows that do not say which GPU they are: the state of rest belongs to the row without use."""
    rows = "".join(
        f"| 30%   {t}C    {p}             {w}W / 350W |  {m}MiB / 46068MiB |     {u}%      Default |\n"
        for t, p, w, m, u in ((61, "P0", 301, 41022, 99), (33, "P8", 18, 3, 0), (60, "P0", 298, 41022, 98))
    )
    case = {"symptom": "One of our L40S shows P8 and 18 watts, the rest P0. Dying?", "artifacts": [{"text": rows}]}
    assert _verdict(case)[0] == "healthy"
