"""Recorded nodes side by side: who stands apart, what is mixed, who is missing."""

from __future__ import annotations

import json
import random
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from diagnose import audit, fleet, fleet_rank, hostlist
from diagnose.cassette import pack
from diagnose.errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, InputError, UsageError
from diagnose.fleet_models import Fleet, Node

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


def read(folder: Path) -> Fleet:
    return fleet.merged([fleet.node(p, audit.Options()) for p in fleet.entries(folder)], [])


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
    made = fleet.merged(results, hostlist.expand("node[08-11]"))
    apart = {(o.node, o.signal, o.subject) for o in made.outliers}
    assert apart == {("node08", "gpu.temperature", "gpu 1"), ("node08", "nvlink.links", "gpu 0")}
    assert made.nodes[0].name == "node08"
    assert made.slow == ["node08"]  # for its links, not for its temperature
    assert {o.signal: o.formula for o in made.outliers}["nvlink.links"] == "|12 - 18|"
    assert [(m.signal, m.subject, m.usual, m.others) for m in made.mixed] == [
        ("version", "label driver", "580.159.04", {"570.86.15": ["node08"]})
    ]
    assert made.missing == ["node10", "node11"]
    assert [f.name for f in made.failed] == ["node09"]


def test_equal_nodes_have_nothing_to_say(tmp_path: Path, healthy: dict[str, Any]) -> None:
    for n in range(6):
        put(tmp_path, f"n{n}", healthy)
    made = read(tmp_path)
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
    assert read(tmp_path).outliers == []


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
    with pytest.raises(InputError):
        fleet.entries(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        fleet.run("slurms", audit.Options(), fail_on="high", format_="text")
    with pytest.raises(UsageError, match="host name"):
        fleet.run("hosts:-oProxyCommand=x", audit.Options(), fail_on="high", format_="text")
    (tmp_path / "x.json").write_text("[1")
    assert fleet.run(str(tmp_path), audit.Options(), fail_on="high", format_="text") == EXIT_ERROR


def test_equal_nodes_with_noise_raise_no_alarm(healthy: dict[str, Any]) -> None:
    """Readings of the moment drawn at random around one value: what is far from the median is so by chance."""
    moment = [r for r in healthy["readings"] if r["signal"] in audit.MOMENT and isinstance(r["value"], float)]
    assert len(moment) > 8
    draw = random.Random(7)
    for size in [4] * 120 + [8] * 60 + [64] * 8:
        nodes = []
        for n in range(size):
            noisy = {(r["signal"], r["subject"]): (r["value"] * draw.gauss(1.0, 0.03), r["unit"]) for r in moment}
            nodes.append(Node(f"n{n}", readings={("gpu.name", "gpu 0"): ("H100", None), **noisy}))
        assert fleet_rank.compare(nodes, [], []).outliers == []


def test_a_slow_clock_at_work_is_named_with_its_arithmetic(tmp_path: Path, healthy: dict[str, Any]) -> None:
    draw = random.Random(3)
    for n in range(8):
        work: dict[str, float] = {}
        for gpu in (0, 1):
            clock = 1200.0 if (n, gpu) == (5, 1) else 1980.0 - draw.choice((0, 0, 15, 15, 30, 45))
            work |= {f"gpu.util|gpu {gpu}": 0.98, f"gpu.clock.sm|gpu {gpu}": clock}
        put(tmp_path, f"n{n}", healthy, **work)
    made = read(tmp_path)
    (found,) = [o for o in made.outliers if o.slow]
    assert (found.node, found.signal, found.subject, made.slow) == ("n5", "gpu.clock.sm", "gpu 1", ["n5"])
    told = re.fullmatch(r"\|1200 - ([\d.]+)\| / \(1\.4826 x MAD ([\d.]+)\)", found.formula)
    assert told is not None and found.deviations is not None and found.needed == 11.2
    assert found.deviations == pytest.approx(abs(1200 - found.median) / (1.4826 * float(told[2])), rel=0.01)


def test_other_hardware_is_compared_with_its_like_only(healthy: dict[str, Any]) -> None:
    def node(n: int, gpu: str, watts: float) -> Node:
        return Node(
            f"n{n}", readings={("gpu.name", "gpu 0"): (gpu, None), ("gpu.power.limit", "gpu 0"): (watts, "W")}
        )  # fmt: skip

    mixture = [*(node(n, "H100", 700.0) for n in range(6)), *(node(n, "L40S", 350.0) for n in range(6, 9))]
    made = fleet_rank.compare(mixture, [], [])
    assert {n.hardware for n in made.nodes} == {"1x H100", "1x L40S"} and made.outliers == []
    made = fleet_rank.compare([*mixture, node(9, "H100", 350.0), node(10, "L40S", 300.0)], [], [])
    assert [(o.node, o.hardware) for o in made.outliers] == [("n9", "1x H100"), ("n10", "1x L40S")]


def test_the_minority_of_a_mixture_is_named() -> None:
    def node(n: int, **values: str) -> Node:
        said = {"driver": "580.1", "cuda": "13.0", "nccl": "2.28.9"} | values
        kernel, box = said.pop("kernel", "6.8.0"), said.pop("container", "docker")
        return Node(f"n{n}", readings={
            **{("version", f"label {k}"): (v, None) for k, v in said.items()}, ("host.kernel", ""): (kernel, None),
            ("host.container", ""): (box, None),
        })  # fmt: skip

    odd = [
        node(5, driver="570.2"), node(6, cuda="12.8"), node(7, nccl="2.27.3"), node(8, kernel="5.15.0"),
        node(9, container="none"),
    ]  # fmt: skip
    made = fleet_rank.compare([*(node(n) for n in range(5)), *odd], [], [])
    assert {(m.signal, m.subject.removeprefix("label ")): m.others for m in made.mixed} == {
        ("version", "driver"): {"570.2": ["n5"]}, ("version", "cuda"): {"12.8": ["n6"]},
        ("version", "nccl"): {"2.27.3": ["n7"]}, ("host.kernel", ""): {"5.15.0": ["n8"]},
        ("host.container", ""): {"none": ["n9"]},
    }  # fmt: skip


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
    made = fleet.merged(results, [])
    assert time.process_time() - begin < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500 * 1024
    assert len(made.nodes) == 1000
    assert {o.node for o in made.outliers} == {"node0500"}
