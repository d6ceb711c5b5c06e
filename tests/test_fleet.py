"""Recorded nodes side by side: who stands apart, what is mixed, who is missing."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from diagnose import audit, fleet
from diagnose.cassette import pack
from diagnose.errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, InputError, UsageError

IDLE = Path(__file__).parent / "data" / "cassettes" / "h100x2-idle.cassette"


@pytest.fixture(scope="module")
def healthy() -> dict[str, Any]:
    made = audit.audit(audit.opened([], str(IDLE)), audit.Options())
    loaded: dict[str, Any] = json.loads(made.model_dump_json(by_alias=True))
    return loaded


def put(folder: Path, name: str, made: dict[str, Any], **changes: Any) -> None:
    """An audit with readings changed: ``signal__subject=value`` with _ for blanks and dots as in `changes`' keys."""
    copy = json.loads(json.dumps(made))
    for reading in copy["readings"]:
        key = f"{reading['signal']}|{reading['subject']}"
        if key in changes:
            reading["value"] = changes[key]
    (folder / f"{name}.json").write_text(json.dumps(copy))


def test_one_node_stands_apart_and_others_are_missing(tmp_path: Path, healthy: dict[str, Any]) -> None:
    for n in range(1, 8):
        put(tmp_path, f"node{n:02d}", healthy)
    put(
        tmp_path, "node08", healthy,
        **{"gpu.temperature|gpu 1": 88.0, "nvlink.links|gpu 0": 12.0, "version|label driver": "570.86.15"},
    )  # fmt: skip
    (tmp_path / "node09.json").write_text('{"schema": "diagnose.audit/v1", "findings": [')
    (tmp_path / "notes.json").write_text('{"other": 1}')
    results = fleet.read_all(fleet.entries(tmp_path), audit.Options())
    made = fleet.compare(
        [r for r in results if isinstance(r, fleet.Node)], [r for r in results if isinstance(r, fleet.Failed)],
        fleet.names_of("node[08-11]"),
    )  # fmt: skip
    apart = {(o.node, o.signal, o.subject) for o in made.outliers}
    assert apart == {("node08", "gpu.temperature", "gpu 1"), ("node08", "nvlink.links", "gpu 0")}
    assert made.nodes[0].name == "node08"
    assert [(m.signal, m.subject, m.usual, m.others) for m in made.mixed] == [
        ("version", "label driver", "580.159.04", {"570.86.15": ["node08"]})
    ]
    assert made.missing == ["node10", "node11"]
    assert [f.name for f in made.failed] == ["node09"]


def test_equal_nodes_have_nothing_to_say(tmp_path: Path, healthy: dict[str, Any]) -> None:
    for n in range(6):
        put(tmp_path, f"n{n}", healthy)
    made = fleet.compare(
        [r for p in fleet.entries(tmp_path) if isinstance(r := fleet.node(p, audit.Options()), fleet.Node)], [], []
    )
    assert (made.outliers, made.mixed, made.missing, made.failed) == ([], [], [], [])
    assert {c.severity for c in made.checks} <= {"info"}


def test_a_busy_node_is_no_outlier_of_resting_ones(tmp_path: Path, healthy: dict[str, Any]) -> None:
    for n in range(6):
        put(tmp_path, f"n{n}", healthy)
    busy = {
        f"{s}|gpu {g}": v
        for g in (0, 1)
        for s, v in (("gpu.util", 1.0), ("gpu.power", 690.0), ("gpu.clock.sm", 1755.0))
    }
    put(tmp_path, "n6", healthy, **busy)
    nodes = [r for p in fleet.entries(tmp_path) if isinstance(r := fleet.node(p, audit.Options()), fleet.Node)]
    assert fleet.outliers("x", nodes) == []


def test_command_reads_cassettes_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        pack(IDLE, tmp_path / f"{name}.cassette.zip")
    options = audit.Options(langs=("en", "zh"))
    assert fleet.run(str(tmp_path), options, fail_on="high", format_="text") == EXIT_OK
    assert "2 nodes: 2 x [2x NVIDIA H100 80GB HBM3]" in capsys.readouterr().out
    more = audit.Options(expect="nodes=a+c[1-2],gpus=8")
    assert fleet.run(str(tmp_path), more, fail_on="never", format_="json") == EXIT_FINDING
    made = json.loads(capsys.readouterr().out)
    assert made["missing"] == ["c1", "c2"]
    assert [c["nodes"] for c in made["checks"] if c["check"] == "expect.gpus"] == [["a", "b"]]
    (tmp_path / "broken.zip").write_bytes(b"PK no")
    assert fleet.run(str(tmp_path), options, fail_on="high", format_="md") == EXIT_INCONCLUSIVE
    assert "broken" in capsys.readouterr().out


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    for text in ("node[1-x]", "node[", "node[1-999999999]"):
        with pytest.raises(UsageError):
            fleet.names_of(text)
    with pytest.raises(InputError):
        fleet.entries(tmp_path)
    for target in ("slurm", "ray://head:10001", "hosts:node[01-02]"):
        with pytest.raises(UsageError, match="no folder"):
            fleet.run(target, audit.Options(), fail_on="high", format_="text")
    (tmp_path / "x.json").write_text("[1")
    assert fleet.run(str(tmp_path), audit.Options(), fail_on="high", format_="text") == EXIT_ERROR


def test_a_thousand_nodes_take_seconds(tmp_path: Path, healthy: dict[str, Any]) -> None:
    texts = []
    for warm in (30.0, 31.0, 32.0, 33.0, 34.0, 91.0):
        put(tmp_path, "one", healthy, **{"gpu.temperature|gpu 0": warm})
        texts.append((tmp_path / "one.json").read_bytes())
    (tmp_path / "one.json").unlink()
    for n in range(1000):
        (tmp_path / f"node{n:04d}.json").write_bytes(texts[5 if n == 500 else n % 5])
    begin, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = fleet.read_all(fleet.entries(tmp_path), audit.Options())
    made = fleet.compare([r for r in results if isinstance(r, fleet.Node)], [], [])
    assert time.process_time() - begin < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500 * 1024
    assert len(made.nodes) == 1000
    assert {o.node for o in made.outliers} == {"node0500"}
