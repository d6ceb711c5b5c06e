"""`diagnose practice`: drills, interviews, stories; all by script, none with a clock."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from diagnose import cli
from diagnose.arithmetic import check_numerals
from diagnose.catalogue import catalogue
from diagnose.concepts import concepts
from diagnose.models import Report
from diagnose.practice_drill import Drill, named
from diagnose.practice_interview import WEAK, chosen
from diagnose.practice_machine import aliases, asked
from diagnose.practice_plan import plan, whole
from diagnose.practice_store import Store
from diagnose.practice_story import PARTS, Story, values
from diagnose.practice_talk import Talk
from diagnose.practice_words import say

ROOT = Path(__file__).parents[1]
P2P = "four-gpus-half-asleep"
SMALL = "half-the-ranks-limp"
examiner: Any = import_module("diagnose.evals.drills")

GOOD = """\
show me the topology
env
evidence NCCL_P2P_DISABLE=1
hypothesis nccl.env_override 0.7
because nvidia-smi -q would show a thermal slowdown
看一下 NCCL 日志
evidence via SHM/direct/direct
fix unset NCCL_P2P_DISABLE; set it again to roll back; rerun and check the via lines
answer nccl.env_override 0.95
"""


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIAGNOSE_PRACTICE", str(tmp_path / "practice.sqlite"))


def practise(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = cli._run(["practice", *args])
    return code, capsys.readouterr().out


def script(tmp_path: Path, text: str) -> str:
    file = tmp_path / "script.txt"
    file.write_text(text, "utf-8")
    return str(file)


def scored(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, drill: str = P2P, *more: str) -> Any:
    code, out = practise(capsys, "--drill", drill, "--script", script(tmp_path, text), "--format", "json", *more)
    assert code == 0
    return json.loads(out)


# ---------------------------------------------------------------- drills


def test_every_drill_is_whole() -> None:
    """Hints, languages, a red herring on output that exists, a key, and lines that decide it."""
    found = examiner.specs()
    assert len(found) >= 12
    assert {"serving", "collectives", "network", "cuda", "architect"} <= {s.track for s in found.values()}
    for name, spec in found.items():
        setup = examiner.setup(name, "en")
        key, keyed = examiner.key(setup)
        assert keyed, name
        assert key.verdict != "cause" or key.label in catalogue().causes, name
        assert spec.herring in setup.machine.by_probe, name
        assert set(spec.same.values()) <= set(setup.machine.by_probe), name
        proof = list(examiner._proof(setup.machine, key))
        assert proof and len(proof) >= len(spec.proof), name
        par = min(sum(catalogue().probes[p].seconds for p in {pl.probe for pl in places}) for _, places in proof)
        assert par < spec.limit, name
        for lang in ("en", "zh"):
            told = examiner.setup(name, lang)
            words = " ".join([told.title, told.symptom, *told.hints[:2]])
            assert key.label not in words, name
            assert bool(re.search("[一-鿿]", told.title)) == (lang == "zh"), name


def test_a_good_answer_scores_well_and_equal_answers_score_equal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = scored(capsys, tmp_path, GOOD), scored(capsys, tmp_path, GOOD)
    assert first["score"] == second["score"]
    assert first["finished"] and first["keyed"] and first["cause"] == "nccl.env_override"
    assert first["score"]["total"] > 0.95
    assert first["skipped"] is None and not first["uncited"]
    assert [s["probe"] for s in first["planner_path"]] and first["planner"]["cause"] == 1.0
    zh = scored(capsys, tmp_path, GOOD, P2P, "--lang", "zh")
    assert zh["score"] == first["score"], "the language does not count"


def test_each_part_of_the_score_can_fall(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    best = scored(capsys, tmp_path, GOOD)["score"]
    guess = scored(capsys, tmp_path, "answer nccl.env_override 0.95\ndone\n")
    assert guess["score"]["cause"] == 1.0 and guess["score"]["path"] == guess["score"]["cost"] == 0.0
    assert guess["score"]["evidence"] == 0.0 and guess["skipped"]["probe"] == "env.dump"
    wrong = scored(capsys, tmp_path, GOOD.replace("nccl.env_override", "gpu.ecc_or_xid"))["score"]
    assert wrong["cause"] < 1 and wrong["calibration"] < 0.3 and wrong["total"] < best["total"] - 0.3
    doubt = scored(capsys, tmp_path, GOOD.replace("override 0.95", "override 0.5"))["score"]
    assert doubt["calibration"] < best["calibration"] and doubt["cause"] == 1.0
    waste = scored(capsys, tmp_path, "pip list\ncpu\ndisk\nhint\nhint\n" + GOOD)["score"]
    assert waste["cost"] < best["cost"] and waste["cause"] == 1.0
    lazy = scored(capsys, tmp_path, re.sub("evidence.*\n", "", GOOD))
    assert lazy["score"]["evidence"] == 0.0 and lazy["uncited"]


def test_the_planner_is_scored_by_the_same_scorer() -> None:
    """A player who says exactly what the planner reports gets exactly its cause, evidence and calibration."""
    setup = examiner.setup(SMALL, "en")
    key, _ = examiner.key(setup)
    made = plan(setup.machine, setup.symptom, setup.limit).report
    again = Report.model_validate(made.model_dump(by_alias=True))
    its, mine = (replace(examiner._outcome(setup, key, r), seconds=0.0) for r in (made, again))
    assert its == mine and mine.first and mine.verbatim == mine.quotes > 0
    forged = again.model_copy(deep=True)
    for item in forged.evidence:
        item.spans = [s.model_copy(update={"quote": s.quote + "9"}) for s in item.spans]
    assert examiner._outcome(setup, key, forged).verbatim == 0


def test_only_what_is_asked_for_is_shown_and_paid_once() -> None:
    drill = Drill(examiner.setup(P2P, "en"))
    said = "\n".join(drill.feed("nvidia-smi topo -m"))
    assert "NV18" in said and "NCCL_P2P_DISABLE" not in said and "239 s left" in said
    assert drill.done.asked == ["nvidia_smi.topo"]
    assert "have nvidia_smi.topo already" in drill.feed("topology")[0] and drill.done.spent == 1
    assert "stands in nothing" in drill.feed('evidence "NCCL_P2P_DISABLE=1"')[0], "not seen yet"
    assert drill.feed("env | grep NCCL_P2P")[1].endswith("NCCL_P2P_DISABLE=1")
    assert drill.feed('evidence "NCCL_P2P_DISABLE=1"')[0].startswith("Kept")
    assert "cost nothing" in drill.feed("ibstat")[0] and drill.done.spent == 2
    assert "do not know" in drill.feed("tell me your star sign")[0]
    assert drill.feed("nccl tests")[0].startswith("[nccl.debug_log"), "its figures stand in that log"


def test_a_page_fits_the_terminal() -> None:
    drill = Drill(examiner.setup(P2P, "en"))
    for line in ("看一下 NCCL 日志", "more", "nvidia-smi", "nvidia-smi -q", "more", "probes", "help", "grep NCCL"):
        said = drill.feed(line)
        assert len(said) <= 22 or line == "probes"
        assert all(len(row) <= 79 for row in said if not row.startswith("Interviewer")), line
        assert not any("\x1b" in row for row in said)


def test_a_long_line_is_cut_around_the_word() -> None:
    drill = Drill(examiner.setup("one-after-the-other", "en"))
    said = drill.feed("engine log | grep 'max_num_seqs: 1,'")
    assert any("max_num_seqs: 1," in row and len(row) <= 79 for row in said)
    assert drill.feed("evidence max_num_seqs: 1,")[0].startswith("Kept: E2:12")


@pytest.mark.parametrize(
    ("words", "probe"),
    [
        ("show me the topology", "nvidia_smi.topo"), ("nvidia-smi", "nvidia_smi.q"), ("NCCL.TESTS", "nccl.tests"),
        ("dmesg -T", "dmesg.xid"), ("环境变量", "env.dump"), ("who is on the gpu?", "nvidia_smi.processes"),
        ("check the kv cache size", "kv.capacity"), ("$ numactl -H", "host.numa"), ("服务日志", "vllm.log"),
        ("看一下 NCCL 日志", "nccl.debug_log"), ("locked memory limit", "host.limits"),
        ("status of the nvlink", "nvidia_smi.nvlink"),
    ],
)  # fmt: skip
def test_probes_are_asked_for_in_words(words: str, probe: str) -> None:
    assert asked(words, examiner.setup(P2P, "en").machine).probes == (probe,)


def test_the_console_knows_every_probe() -> None:
    assert set(aliases()) <= set(catalogue().probes)
    assert len(aliases()) >= len(catalogue().probes) - 4  # a new probe is also found by what it says of itself


def test_the_interviewer_answers_back() -> None:
    drill = Drill(examiner.setup(P2P, "en"))
    assert "Which line" in drill.feed("hypothesis nccl.p2p_disabled 0.9")[1]
    assert "change your mind" not in drill.feed("hypothesis nccl.p2p_disabled 0.5")[1]
    assert "What did you read" in drill.feed("hypothesis nccl.p2p_disabled 0.4")[1]
    assert "Is it out" in drill.feed("hypothesis gpu.clock_throttled 0.2")[1]
    assert "would not move" in drill.feed("because ulimit")[0]
    assert "would confirm" in drill.feed("because nvidia-smi would show throttle reasons")[0]
    assert drill.done.minds == {"gpu.clock_throttled": 0.5}, "a reading of its own sign only"
    assert "speak for nccl.p2p_disabled" in drill.feed("because env shows NCCL_P2P_DISABLE")[0]
    assert drill.done.minds == {"gpu.clock_throttled": 1.0}
    assert "feeling" in drill.feed("because I feel it")[0]
    assert drill.feed("nvidia-smi")[-1].startswith("Interviewer: "), "the red herring"
    assert "No cause" in drill.feed("answer the moon 0.9")[0] and not drill.over
    assert "How sure" in drill.feed("answer nccl.p2p_disabled")[0] and not drill.over


def test_a_doubt_about_another_hypothesis_does_not_spare_the_question() -> None:
    drill = Drill(examiner.setup("the-gpu-that-is-there", "en"))
    for line in ("hypothesis env.version_conflict 0.4", "because pip check would complain"):
        drill.feed(line)
    asked = drill.feed("answer env.gpu_hidden 0.9")
    assert asked == [say("en", "ask_mind")] and not drill.over


def test_a_debrief_is_turned_page_by_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": turned.append(prompt) or "")
    talk = Talk("", True, "en")
    talk._keys = True
    talk.pages([f"line {n}" for n in range(50)])
    assert len(turned) == 2 and capsys.readouterr().out.count("\n") == 50
    talk._keys = False
    talk.pages(["x"] * 50)
    assert len(turned) == 2


def test_hints_climb_and_time_stops_hard() -> None:
    drill = Drill(examiner.setup("the-gpu-that-is-there", "zh"), "zh")
    assert drill.setup.limit == 90
    hints = [drill.feed("提示")[0] for _ in range(3)]
    assert len(set(hints)) == 3 and drill.done.spent == 60
    assert drill.feed("hint") == ["没有更多提示了。"]
    drill.feed("假设 env.gpu_hidden 0.6")
    drill.done.spent = 89.5
    assert drill.feed("env")[0].startswith("停：")
    assert drill.over and drill.finished and drill.done.answer == ("env.gpu_hidden", 0.6)
    assert drill.feed("env") == []


def test_causes_are_named_in_words() -> None:
    assert named("nccl.p2p_disabled") == named("p2p disabled") == "nccl.p2p_disabled"
    assert named("healthy") == named("没问题") == "none.healthy"
    assert named("nccl") is None and named("") is None


def test_a_healthy_machine_can_be_called_healthy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "nccl log\nevidence Avg bus bandwidth\nanswer healthy 0.9\n"
    got = scored(capsys, tmp_path, text, "is-it-slow-at-all")
    assert got["score"]["cause"] == 1.0 and got["score"]["total"] > 0.9
    alarm = scored(capsys, tmp_path, "answer nccl.env_override 0.9\ndone\n", "is-it-slow-at-all")
    assert alarm["score"]["cause"] == 0.0


def test_a_cassette_of_the_user_is_a_drill(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = ROOT / "evals" / "cassettes" / "h100-hidden-gpu.zip"
    got = scored(capsys, tmp_path, "env\nanswer env.gpu_hidden 0.8\ndone\n", str(own))
    assert got["finished"] and got["keyed"] is False and got["cause"] == "env.gpu_hidden"
    assert got["score"]["cause"] == 1.0
    code, _ = practise(capsys, "--drill", "no-such-drill")
    assert code == 3


def test_a_hostile_cassette_shows_nothing_from_outside(tmp_path: Path) -> None:
    from diagnose.errors import InputError
    from diagnose.practice_machine import Machine

    (tmp_path / "secret.txt").write_text("secret")
    box = tmp_path / "bad.cassette"
    box.mkdir()
    index = {"schema": "diagnose.cassette/v1", "captures": [{"probe": "env.dump", "file": "../secret.txt"}]}
    (box / "cassette.json").write_text(json.dumps(index))
    with pytest.raises(InputError):
        Machine.of_cassette(box)


def test_the_debrief_says_path_and_skipped_step(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "nvidia-smi\nanswer gpu.clock_throttled 0.9\nraise the clock\n"
    code, out = practise(capsys, "--drill", P2P, "--script", script(tmp_path, text))
    assert code == 0
    flat = " ".join(out.split())
    for wanted in ("Debrief", "Planner's path: env.dump", "The step you skipped: env.dump", "NCCL_P2P_DISABLE=1",
                   "Red herring", "Rollback", "diagnose explain nccl.env_override", "planner"):  # fmt: skip
        assert wanted in flat
    assert all(len(line) <= 79 for line in out.splitlines())


# ---------------------------------------------------------------- state


def test_a_drill_goes_on_where_it_was_left(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    lines = GOOD.splitlines()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines[:4]) + "\nquit\n"))
    code, out = practise(capsys, "--drill", P2P)
    assert code == 0 and "Debrief" not in out
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines[4:]) + "\n"))
    code, out = practise(capsys, "--drill", P2P, "--format", "json")
    two = json.loads(out)
    assert two["finished"] and two["score"] == scored(capsys, tmp_path, GOOD)["score"]
    assert Store().lines(P2P) == [], "a finished drill is forgotten"


def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "DIAGNOSE_PRACTICE": str(tmp_path / "p.sqlite"), "PYTHONUNBUFFERED": "1"}
    code = "from diagnose.cli import main; main(['practice', '--drill', 'half-the-ranks-limp'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as player:  # fmt: skip
        assert player.stdin is not None and player.stdout is not None
        player.stdin.write("topology\nhypothesis nccl.nic_misplaced 0.6\n")
        player.stdin.flush()
        for line in player.stdout:
            if "Noted" in line:
                break
        time.sleep(0.3)
        player.send_signal(signal.SIGINT)
        player.stdin.close()
        player.wait(20)
        assert player.returncode == 130
        player.stdout.read()
    assert Store(tmp_path / "p.sqlite").lines(SMALL) == ["topology", "hypothesis nccl.nic_misplaced 0.6"]


def test_a_read_only_home_falls_back_to_memory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIAGNOSE_PRACTICE", str(tmp_path / "file" / "practice.sqlite"))
    code, out = practise(capsys, "--drill", SMALL, "--script", script(tmp_path, "topology\nquit\n"))
    assert code == 0 and "Nothing can be kept here" in " ".join(out.split())


# ---------------------------------------------------------------- interview


def test_a_model_answer_passes_and_terms_do_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from diagnose.concepts import filled
    from diagnose.napkin import pick_gpu

    concept = chosen("collectives", 7, 1, {})[0]
    full = filled(concept, pick_gpu("H100")[0])
    words = concept.en
    say = [full.say(words.long), *(full.say(f.a) for f in words.follow_ups)]
    args = ("interview", "--track", "collectives", "--seed", "7", "--rounds", "1", "--format", "json")
    _, out = practise(capsys, *args, "--script", script(tmp_path, "\n".join(say)))
    good = json.loads(out)
    assert good["asked"] == [concept.id] and len(good["answers"][0]["answers"]) == 4, "three deep"
    assert good["answers"][0]["score"] > 0.6 and not good["weak"]
    (tmp_path / "practice.sqlite").unlink()
    terms = ", ".join(re.split(r"[|&]", " | ".join(concept.rubric.mechanism)))
    _, out = practise(capsys, *args, "--script", script(tmp_path, f"{terms}\nno idea\n"))
    bad = json.loads(out)
    assert bad["weak"] == [concept.id] and bad["answers"][0]["score"] < 0.3
    assert len(bad["answers"][0]["answers"]) == 2, "two poor answers end a chain"


def test_weak_spots_come_first_and_the_seed_decides_the_rest() -> None:
    plain = [c.id for c in chosen("", 3, 10, {})]
    assert plain == [c.id for c in chosen("", 3, 10, {})] != [c.id for c in chosen("", 4, 10, {})]
    low, good = plain[9], plain[0]
    again = [c.id for c in chosen("", 3, 10, {low: WEAK - 0.1, good: 0.9})]
    assert again[0] == low and good not in again
    assert {c.track for c in chosen("cuda", 1, 50, {})} == {"cuda"}


def test_weak_spots_are_remembered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ("interview", "--seed", "5", "--rounds", "2")
    code, out = practise(capsys, *args, "--lang", "zh", "--script", script(tmp_path, "不知道\n不知道\nmodel\nskip\n"))
    assert code == 0 and "薄弱" in out and "参考答案" in out
    first = chosen("", 5, 2, {})[0].id
    assert Store().weak()[first] < WEAK
    assert chosen("", 99, 1, Store().weak())[0].id == first


# ---------------------------------------------------------------- story


@pytest.mark.parametrize("name", [P2P, "is-it-slow-at-all", "three-at-a-time", SMALL, "one-gpu-four-tenants"])
def test_every_number_of_a_story_is_the_reports(name: str) -> None:
    setup = examiner.setup(name, "en")
    report = whole(setup.machine, setup.symptom)
    for lang in ("en", "zh"):
        story = Story(report, lang)
        parts = {**story.parts(), "quick": story.quick()}
        assert set(PARTS) < set(parts)
        known = values(report)
        for part, text in parts.items():
            assert text, part
            assert check_numerals(text.replace(report.symptom, ""), known) == [], (part, text)
        quotes = re.findall(r"`([^`]*)`", " ".join(parts.values()))
        said = json.dumps(report.model_dump(by_alias=True), ensure_ascii=False)
        said = " ".join(said.replace("\\n", " ").replace("\\t", " ").replace('\\"', '"').split())
        for quote in quotes:
            assert quote.rstrip("…") in said or quote.startswith("diagnose explain"), quote
        changed = re.sub(r"(\d)(?= %)", lambda m: str((int(m[1]) + 3) % 10), parts["result"], count=1)
        assert changed == parts["result"] or check_numerals(changed, known), "one changed digit fails"


def test_a_minute_is_a_minute(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from diagnose.rubric import size

    setup = examiner.setup(P2P, "en")
    file = tmp_path / "report.json"
    file.write_text(whole(setup.machine, setup.symptom).model_dump_json(by_alias=True))
    code, out = practise(capsys, "story", str(file), "--format", "json")
    made = json.loads(out)["story"]
    assert code == 0 and set(made) == {"en", "zh"}
    for lang in made:
        assert 40 <= size(made[lang]["quick"]) <= 150
        assert re.search("[一-鿿]", made[lang]["result"]) is not None or lang == "en"
    assert practise(capsys, "story", str(tmp_path / "none.json"))[0] == 3
    assert practise(capsys, "story")[0] == 3


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = practise(capsys, "--list", "--track", "cuda", "--lang", "zh")
    assert code == 0 and "the-gpu-that-is-there" in out and P2P not in out
    code, out = practise(capsys, "interview", "--list", "--track", "network")
    assert code == 0 and len(out.splitlines()) == sum(c.track == "network" for c in concepts().values())
    assert practise(capsys, "--track", "cooking")[0] == 3
    assert practise(capsys, "nonsense")[0] == 3
