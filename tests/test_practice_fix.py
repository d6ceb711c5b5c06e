"""What a drill says of a proposed fix, and of the reply to what would change one's mind."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from diagnose.catalogue import catalogue
from diagnose.practice_card import WEIGHTS
from diagnose.practice_drill import Drill
from diagnose.practice_fix import HEALTHY, known, score

examiner: Any = import_module("diagnose.evals.drills")
ROOT = Path(__file__).parents[1]
P2P = "four-gpus-half-asleep"


def test_the_catalogues_own_fix_is_one() -> None:
    """Every cause has lines to be scored by, and what the catalogue says passes in both languages."""
    causes = {c for c in catalogue().causes if c != HEALTHY}
    assert set(known()) == causes
    low = []
    for name in sorted(causes):
        cause = catalogue().causes[name]
        assert cause.zh is not None and cause.zh.fix is not None
        for fix, check, back, test in (
            (cause.fix, cause.verify, "Roll back", "Check"), (cause.zh.fix, cause.zh.verify, "回滚", "验证"),
        ):  # fmt: skip
            text = "。".join((fix.text.rstrip(".。"), f"{back}: {fix.rollback}".rstrip(".。"), f"{test}: {check}"))
            if score(text, [name]).total < 0.99:
                low.append((name, back, score(text, [name])))
    assert low == []


@pytest.mark.parametrize(
    ("cause", "line", "text", "change"),
    [
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "unset NCCL_P2P_DISABLE", 1.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "do not set NCCL_P2P_DISABLE any more", 1.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "把 NCCL_P2P_DISABLE 去掉", 1.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "unset NCCL_IB_HCA", 0.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "unset NCCL_P2P_DISABLE and set NCCL_BUFFSIZE=8388608", 0.5),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "do not unset NCCL_P2P_DISABLE", 0.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "reboot the node", 0.0),
        ("nccl.env_override", "NCCL_P2P_DISABLE=1", "", 0.0),
        ("serving.max_num_seqs_low", "--max-num-seqs 4", "raise --max-num-seqs to 64", 1.0),
        ("serving.max_num_seqs_low", "--max-num-seqs 4", "lower --max-num-seqs to 2", 0.0),
        ("serving.max_num_seqs_low", "--max-num-seqs 4", "把并发上限调大", 1.0),
        ("serving.max_num_seqs_low", "--max-num-seqs 4", "lower gpu-memory-utilization", 0.0),
        ("serving.kv_cache_exhausted", "", "run fewer requests at once, about 20", 1.0),
        ("serving.cuda_graphs_off", "--enforce-eager", "drop --enforce-eager from the command line", 1.0),
        ("host.pageable_copies", "", "pin_memory=True in the loader", 1.0),
        ("host.pageable_copies", "", "重启一下机器", 0.0),
        ("gpu.clock_throttled", "", "nvidia-smi -rgc", 1.0),
        ("gpu.contention", "", "move the other job to another GPU", 1.0),
        ("nccl.shm_too_small", "", "docker run --shm-size=8g", 1.0),
        ("net.wrong_mtu", "", "set MTU 9000 everywhere on the path", 1.0),
        ("serving.engine_regression", "", "go back to the release before", 1.0),
        ("gpu.driver_mismatch", "", "reload the module after the upgrade, or reboot", 1.0),
        ("gpu.ecc_or_xid", "", "reboot", 0.0),
    ],
)
def test_the_change(cause: str, line: str, text: str, change: float) -> None:
    assert score(text, [cause], [line]).change == change


def test_what_an_output_would_show_is_no_change() -> None:
    told = "nvidia-smi topo -p2p r would show OK, so the driver offers peer access"
    assert score(told, ("nccl.p2p_disabled",)).change == 0.0


def test_rollback_and_check_count_beside_the_right_change() -> None:
    line = ["NCCL_P2P_DISABLE=1"]
    bare = score("unset NCCL_P2P_DISABLE", ["nccl.env_override"], line)
    undo = score("unset NCCL_P2P_DISABLE; export it again to roll back", ["nccl.env_override"], line)
    full = score(
        "unset NCCL_P2P_DISABLE; export it again to roll back; check that the via lines say P2P",
        ["nccl.env_override"], line,
    )  # fmt: skip
    assert (bare.total, undo.total, full.total) == (0.6, 0.8, 1.0)
    zh = score("去掉 NCCL_P2P_DISABLE，回滚时重新导出，再确认 via 行变成 P2P", ["nccl.env_override"], line)
    assert zh.total == 1.0
    wrong = score("unset NCCL_IB_HCA; set it again to roll back; check the via lines", ["nccl.env_override"], line)
    assert wrong.total == 0.0 and wrong.rollback, "undoing the wrong thing is worth nothing"
    vague = score("raise --max-num-seqs; roll back", ["serving.max_num_seqs_low"])
    assert vague.rollback == 0.5 and vague.check == 0.0


def test_any_right_cause_will_do_and_health_needs_no_fix() -> None:
    one = score("let one container see all GPUs", ["nccl.env_override", "nccl.p2p_disabled"], ["NCCL_P2P_DISABLE=1"])
    assert one.change == 1.0
    assert score("", [HEALTHY]).total == 1.0 and score("nothing, keep it as the baseline", [HEALTHY]).total == 1.0
    assert score("raise --max-num-seqs", [HEALTHY]).total == 0.0


@lru_cache(maxsize=1)
def setup() -> Any:
    return examiner.setup(P2P, "en")


def played(*lines: str) -> Any:
    one = Drill(setup())
    for line in lines:
        one.feed(line)
    assert one.finished
    return examiner.card(one.setup, one.done)


def test_the_fix_is_part_of_the_score() -> None:
    look = ("env", "evidence NCCL_P2P_DISABLE=1", "answer nccl.env_override 0.9", "done")
    best = played(*look, "unset NCCL_P2P_DISABLE; set it again to roll back; rerun and see P2P in the via lines")
    poor, none = played(*look, "reboot"), played(*look, "done")
    assert best.yours.fix == 1.0 and poor.yours.fix == none.yours.fix == 0.0
    assert best.yours.total - poor.yours.total == pytest.approx(WEIGHTS["fix"])
    assert best.planner.fix == 1.0 and sum(WEIGHTS.values()) == pytest.approx(1)
    wrong = played("env", "answer gpu.ecc_or_xid 0.9", "done", "drain the node and replace the board")
    assert wrong.yours.fix == 0.0, "the right fix of the wrong cause"


def test_the_interviewer_asks_before_it_is_over() -> None:
    drill = Drill(setup())
    assert "change your mind" in drill.feed("answer nccl.p2p_disabled 0.7")[0] and drill.finished and not drill.over
    said = drill.feed("nvidia-smi -q, if it shows a thermal slowdown")
    assert "tells it apart" in said[0] and "what do you change" in said[1]
    drill.feed("unset NCCL_P2P_DISABLE")
    assert drill.over and drill.done.minds == {"nccl.p2p_disabled": 1.0}
    assert played("answer nccl.p2p_disabled 0.7", "nvlink status", "done").yours.doubt == 1.0, (
        "made for nccl.nvlink_down"
    )
    assert played("answer nccl.p2p_disabled 0.7", "the p2p matrix", "done").yours.doubt == 0.5, "its own sign only"
    hunch = Drill(examiner.setup(P2P, "zh"), "zh")
    hunch.feed("answer nccl.p2p_disabled 0.7")
    assert "感觉不算实验" in hunch.feed("凭感觉")[0] and hunch.done.minds == {"nccl.p2p_disabled": 0.0}


def test_a_recording_of_the_user_has_hints_and_a_red_herring() -> None:
    own = examiner.setup(str(ROOT / "evals" / "cassettes" / "h100-hidden-gpu.zip"), "zh")
    assert len(own.hints) == 3 == len(set(own.hints)) and "env.dump" in own.hints[1]
    assert own.herring is not None and own.herring.says and own.herring.because
    assert own.herring.probe in own.machine.by_probe
    drill = Drill(own, "zh")
    for line in ("env", "answer env.gpu_hidden 0.8", "done", "unset CUDA_VISIBLE_DEVICES"):
        drill.feed(line)
    assert examiner.card(own, drill.done).yours.fix >= 0.6
