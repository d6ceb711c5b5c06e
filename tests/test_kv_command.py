"""`diagnose kv`: blocks to descriptors, bytes, time; nothing invented where a rate is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diagnose.errors import UsageError
from diagnose.kv_command import Options, figures, run

LLAMA = Options("llama-3-8b", input=4096, tp=2, link=50.0, gpu="H100")


def values(options: Options) -> dict[str, float]:
    return {name: made.value for name, _, made in figures(options)[0]}


def test_llama_by_hand() -> None:
    got = values(LLAMA)
    assert got["kv_per_token"] == 2 * 32 * 4 * 128 * 2  # 8 KV heads over two ranks, bf16
    assert got["bytes"] == 256 * 2**20
    assert got["descriptors"] == 256 * 32 * 2
    assert got["bytes_per_descriptor"] == 16 * 4 * 128 * 2
    assert got["wire_time"] == pytest.approx(256 * 2**20 / 50e6)
    assert 0 < got["ttft_share"] < 1


def test_posting_can_be_the_limit() -> None:
    got = values(Options("llama-3-8b", tp=2, link=50.0, cost=7.0))
    assert got["time"] == got["post_time"] == pytest.approx(16384 * 7 / 1e3)
    assert got["post_time"] > got["wire_time"]
    assert "bound by posting descriptors" in figures(Options("llama-3-8b", tp=2, link=50.0, cost=7.0))[1]


def test_larger_blocks_are_fewer() -> None:
    small, large = values(LLAMA), values(Options("llama-3-8b", block_size=128, tp=2, link=50.0))
    assert small["descriptors"] == 8 * large["descriptors"] and small["bytes"] == large["bytes"]
    assert values(Options("llama-3-8b", engine="sglang"))["blocks"] == 4096


def test_nothing_is_invented() -> None:
    rows, remarks = figures(Options("llama-3-8b"))
    assert not {"wire_time", "time", "ttft_share"} & {name for name, _, _ in rows}
    assert any("no --link" in r for r in remarks)


def test_cost_from_a_sweep(tmp_path: Path) -> None:
    from .test_movement_live import SWEEP

    path = tmp_path / "sweep.txt"
    path.write_text(SWEEP)
    rows = {n: (w, f) for n, w, f in figures(Options("llama-3-8b", link=50.0, sweep=str(path)))[0]}
    assert rows["post_time"][1].terms["cost"] == 7.17 and "measured" in rows["post_time"][0]
    path.write_text("nothing")
    with pytest.raises(UsageError):
        figures(Options("llama-3-8b", link=50.0, sweep=str(path)))


@pytest.mark.parametrize(
    "options", [Options("llama-3-8b", engine="x"), Options("llama-3-8b", tp=3), Options("no-such-model")]
)
def test_wrong_use_is_said(options: Options) -> None:
    with pytest.raises(UsageError):
        figures(options)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(LLAMA, "json")
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "diagnose.kv/v1" and data["figures"]["bytes"]["unit"] == "B"


def test_the_sum_stands_first_in_figures_that_people_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist gives its workers 80; a pipe has none
    assert run(Options("llama-3.1-8b", input=4096, link=25.0, gpu="H100"), "text") == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "536,870,912 B (512 MiB) a rank in 16,384 descriptors at most, 21.47 ms to move at best, 25.7 %"
    )
    assert "e+0" not in said and " count" not in said and "fraction" not in said
