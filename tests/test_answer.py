"""Spoken answers: their length, their own words, and one structure in both languages, over the whole catalogue."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache

import pytest
from diagnose.evals.case import Case, own_cases

from diagnose.answer import render, words
from diagnose.answer_facts import support
from diagnose.answer_fit import LONG, SHORT, Part, cut, fit, spoken
from diagnose.answer_terms import alike, aloud, metric
from diagnose.catalogue import catalogue
from diagnose.document import Document
from diagnose.engine import report as make_report
from diagnose.engine import told, triage
from diagnose.models import Answer, Report

LANGS = ("en", "zh")
HEALTHY = "none.healthy"
HAN = re.compile(r"[一-鿿]")


@lru_cache(maxsize=1)
def reports() -> dict[str, Report]:
    """A report for every cause: of its own cases the first that is found, and of health and of nothing decided."""
    by_label: dict[str, list[Case]] = defaultdict(list)
    for case in own_cases("cases"):
        by_label[case.key.label if case.key.verdict != "inconclusive" else "inconclusive"].append(case)
    out: dict[str, Report] = {}
    for label, cases in sorted(by_label.items()):
        for case in cases[:6]:
            got = make_report(case.symptom, case.documents(), (), LANGS)
            name = (
                got.findings[0].cause if got.verdict == "cause" else {"healthy": HEALTHY}.get(got.verdict, got.verdict)
            )
            if name == label:
                out[label] = got
                break
    return out


def spoken_texts() -> list[tuple[str, str, Answer]]:
    return [(name, lang, r.answer[lang]) for name, r in reports().items() for lang in LANGS]


def test_every_cause_is_answered_from_evidence() -> None:
    missing = set(catalogue().causes) - set(reports())
    assert len(missing) <= 2, f"no case of these is found: {missing}"
    assert {HEALTHY, "inconclusive"} <= set(reports())


def test_lengths_hold() -> None:
    """Half a minute and a minute and a half, and enough said in them."""
    wrong = []
    for name, lang, answer in spoken_texts():
        short, long = spoken(answer.short, lang), spoken(answer.long, lang)
        few = 0.35 if name != "inconclusive" else 0.1
        if not few * SHORT[lang] <= short <= SHORT[lang] or not few * LONG[lang] <= long <= LONG[lang]:
            wrong.append((name, lang, short, long))
    assert wrong == []


def test_the_long_answer_holds_what_a_long_answer_needs() -> None:
    cat = catalogue()
    for name, lang, answer in spoken_texts():
        if name in (HEALTHY, "inconclusive"):
            continue
        cause = cat.causes[name]
        text = cause.zh if lang == "zh" else cause
        assert text is not None
        assert text.definition in answer.long and text.mechanism in answer.long, (name, lang)
        assert text.verify.rstrip("。.").lower() in answer.long.lower(), (name, lang)
        report = reports()[name]
        if report.limits and any(x.ratio is not None for x in report.limits):
            assert any(f"{x.measured:g}" in answer.long for x in report.limits), (name, lang)


def test_all_sentences_are_whole() -> None:
    for name, lang, answer in spoken_texts():
        for text in (answer.verdict, answer.short, answer.long, *(f.a for f in answer.follow_ups)):
            assert text.rstrip().endswith((".", "。", "?", "?", "`.", ")")), (name, lang, text[-60:])
            bare = re.sub(r"“[^”]*”|`[^`]*`", "-", text)
            assert "  " not in bare and ".." not in bare.replace("...", "") and "。。" not in bare, (name, lang, text)


def sentences(text: str, lang: str) -> list[str]:
    found = re.split(r"(?<=[。!?])" if lang == "zh" else r"(?<=[.!?])\s+(?=[A-Z“`-])", text)
    return [s.strip() for s in found if s.strip()]


def test_no_sentence_is_shared_by_more_than_three_causes() -> None:
    """What is said about a cause is said about that cause; the boundary is about the inputs and stands apart."""
    said: dict[str, set[str]] = defaultdict(set)
    for name, lang, answer in spoken_texts():
        if name == "inconclusive":
            continue
        for text in (answer.verdict, answer.short, answer.long, *(f"{f.q} {f.a}" for f in answer.follow_ups)):
            for sentence in sentences(text, lang):
                said[sentence].add(name)
    shared = {s: sorted(n) for s, n in said.items() if len(n) > 3}
    assert shared == {}


def test_no_sentence_of_the_catalogue_is_shared() -> None:
    said: dict[str, set[str]] = defaultdict(set)
    for cause in catalogue().causes.values():
        assert cause.zh is not None and cause.zh.fix is not None
        for lang, of in (("en", cause), ("zh", cause.zh)):
            fix = of.fix
            assert fix is not None
            texts = [of.definition, of.mechanism, of.tradeoff, fix.text, fix.risk, fix.rollback, of.verify]
            for text in (*texts, *(t for f in of.follow_ups for t in (f.q, f.a))):
                for sentence in sentences(text, lang):
                    said[sentence].add(cause.id)
    shared = {s: sorted(n) for s, n in said.items() if len(n) > 3 and s.rstrip("。.") not in ("none", "无")}
    assert shared == {}


def test_both_languages_are_complete() -> None:
    cat = catalogue()
    for cause in cat.causes.values():
        zh = cause.zh
        assert zh is not None and zh.fix is not None, cause.id
        for text in (zh.title, zh.definition, zh.mechanism, zh.tradeoff, zh.verify, zh.fix.text, zh.fix.rollback):
            assert HAN.search(text), (cause.id, text)
        assert len(zh.follow_ups) == len(cause.follow_ups) >= 3, cause.id
        assert all(HAN.search(f.q) and HAN.search(f.a) for f in zh.follow_ups), cause.id


def test_what_the_chinese_answer_needs_is_translated() -> None:
    """Why something is healthy, and what only looks bad, has its Chinese in playbooks/spoken."""
    cat = catalogue()
    reasons, signals = cat.spoken_zh["reasons"], cat.spoken_zh["signals"]
    healthy = [i.because for i in cat.causes[HEALTHY].indicators if not i.against and i.because]
    decoys = [t for c in cat.causes.values() for d in c.decoys for t in (d.text, d.because)]
    wanted = [t for t in (*healthy, *decoys) if not t.startswith("you said")]
    assert [t for t in wanted if t not in reasons] == []
    assert [s for s in signals if s not in cat.signals] == []
    against = {i.because for c in cat.causes.values() for i in c.indicators if i.against and i.because}
    assert [t for t in sorted(against) if t not in reasons and not t.startswith("you said")] == []
    assert set(cat.spoken_zh["probes"]) == set(cat.probes)
    assert set(cat.spoken_zh["metrics"]) == set(cat.axes["metrics"])


def test_chinese_answers_are_chinese() -> None:
    """Outside quotes, code and terms no English clause is left: four plain words in a row."""
    clause = re.compile(r"(?:\b[a-z]{2,}\b[ ,]+){4,}[a-z]{2,}")
    leaks = []
    for name, report in reports().items():
        answer = report.answer["zh"]
        for text in (answer.verdict, answer.short, answer.long):
            bare = re.sub(r"“[^”]*”|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|[((][^))]*[))]", "", text)
            for hit in clause.finditer(bare):
                leaks.append((name, hit.group()))
    assert leaks == []


def sample() -> list[Case]:
    """Sixty of our own cases, over all families."""
    return sorted(own_cases("cases"), key=lambda c: c.id)[::27][:60]


@lru_cache(maxsize=1)
def sampled() -> list[tuple[Case, Report, Report]]:
    """Each in English and in Chinese."""
    read = [(case, triage(case.symptom, case.documents())) for case in sample()]
    return [(case, *(told(found, (), (lang,)) for lang in LANGS)) for case, found in read]  # type: ignore[misc]


def test_no_english_is_left_in_chinese_answers() -> None:
    """Six English words in a row outside quotes, code and ids: in no text that is said, follow-ups and boundary too."""
    run = re.compile(r"(?:(?<![\w.-])[A-Za-z][a-z']*[ ,]+){5,}[a-z]+")
    leaks = []
    for case, _, report in sampled():
        answer = report.answer["zh"]
        said = [answer.verdict, answer.short, answer.long, answer.boundary, answer.validate_]
        for text in (*said, *(f"{f.q} {f.a}" for f in answer.follow_ups)):
            bare = re.sub(r"“[^”]*”|`[^`]*`|\[[^\]]*\]", "-", text)
            leaks += [(case.id, hit.group()) for hit in run.finditer(bare)]
    assert leaks == []


def test_parity_of_languages() -> None:
    """The same verdict, evidence and structure, whichever language is asked for."""
    assert len(sampled()) == 60
    for case, english, chinese in sampled():
        made = {"en": english, "zh": chinese}
        en, zh = (made[lang].model_dump(exclude={"answer", "lang"}) for lang in LANGS)
        assert en == zh, case.id
        one, two = made["en"].answer["en"], made["zh"].answer["zh"]
        assert [f.level for f in one.follow_ups] == [f.level for f in two.follow_ups], case.id
        first = re.compile(r"\bE\d+\b")
        assert first.findall(one.verdict) == first.findall(two.verdict), case.id
        assert bool(one.long) and bool(two.long) and bool(one.boundary) == bool(two.boundary)


def test_levels_of_follow_ups() -> None:
    for name, lang, answer in spoken_texts():
        assert {f.level for f in answer.follow_ups} == {1, 2, 3}, (name, lang)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TTFT 134,173 ms", "TTFT 134.2 s"),
        ("collective 8589934592 B out-of-place", "collective 8 GiB out-of-place"),
        ("a transfer moves 2048 B", "a transfer moves 2048 B"),
        ("38533.1 ms at 16100 B/s", "38.53 s at 16100 B/s"),
    ],
)
def test_figures_are_said_in_units_people_say(text: str, said: str) -> None:
    assert aloud(text) == said


def test_metrics_have_the_names_people_say() -> None:
    cat = catalogue()
    assert [metric(n) for n in ("ttft_mean", "bytes_per_op", "step_time", "ITL p99")] == [
        "mean TTFT", "bytes per operation", "step time", "ITL p99"
    ]  # fmt: skip
    assert [metric(n, cat, "zh") for n in ("ttft_p99", "step_time_mean", "request_rate")] == [
        "P99 TTFT", "平均单步耗时", "请求速率"
    ]  # fmt: skip
    assert alike("38533.1 ms", "4552.21 ms") == ("38.53 s", "4.552 s")


def test_what_gpus_read_alike_is_told_once() -> None:
    lines = "\n".join(
        f"| {n}  NVIDIA GeForce RTX 3090   On  | 00000000:0{n + 1}:00.0 Off |  N/A |\n"
        "| 30%   55C    P2   249W / 250W |  20000MiB / 24576MiB |     99%      Default |"
        for n in range(2)
    )
    report = make_report("tokens per second are low", [Document.of("smi.txt", lines.encode())], (), LANGS)
    same = [e for e in report.evidence if e.subject.gpu in (0, 1) and e.unit == "W" and e.value == 250.0]
    assert len(same) >= 2, "the sample is read"
    told = support(same, words("en"), catalogue(), "en")
    assert len(told) == 1 and "GPUs 0 and 1" in told[0] and told[0].count("250") == 1


def test_nothing_is_said_to_be_certain() -> None:
    for name, lang, answer in spoken_texts():
        assert not re.search(r"(?:confidence|置信度) 1\.00", answer.verdict + answer.long), (name, lang)


def test_fitting_drops_by_rank_and_whole() -> None:
    parts = [Part(0, ("one two three.",)), Part(2, ("four five six seven.",)), Part(1, ("a b c d e f.", "eight."))]
    assert fit(parts, 20, "en") == ["one two three.", "four five six seven.", "a b c d e f."]
    assert fit(parts, 9, "en") == ["one two three.", "a b c d e f."]
    assert fit(parts, 5, "en") == ["one two three.", "eight."]
    assert fit(parts, 1, "en") == ["one two three."]
    assert spoken("TTFT 是 3.5 秒", "zh") == 6
    assert cut("a long line of output", 10) == "a long…"


@pytest.mark.parametrize("secret", ["hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"])
def test_an_answer_about_a_masked_line_verifies(secret: str) -> None:
    """The quote is cut around the secret; the answer is worded from what is left."""
    from diagnose.verify import verify
    from diagnose.verify_command import rerender

    text = f"NCCL_P2P_DISABLE=1 HF_TOKEN={secret} torchrun train.py\n# Avg bus bandwidth    : 3.4\n"
    docs = [Document.of("run.sh", text.encode())]
    made = make_report("all_reduce is slow", docs, (), LANGS).model_dump(mode="json", by_alias=True)
    assert secret not in str(made)
    assert verify(made, docs, rerender) == []


def test_a_cause_without_evidence_in_the_report_is_still_said() -> None:
    cat = catalogue()
    bare = reports()["net.firewall"].model_copy(deep=True)
    bare.evidence = []
    for lang in LANGS:
        answer = render(bare, cat, lang)
        assert answer.verdict and answer.long


def test_chinese_on_the_screen_is_broken_where_a_reader_breaks_it() -> None:
    """Both languages, narrow and wide: no row begins with a comma, and nothing is wider than the window."""
    import io
    from unicodedata import east_asian_width

    from diagnose.screen import Terminal, show

    report = reports()["nccl.env_override"]
    for width in (80, 120):
        out = io.StringIO()
        show(report, catalogue(), Terminal(file=out, width=width, highlight=False))
        rows = out.getvalue().splitlines()
        assert any("中文理解" in row for row in rows)
        for row in rows:
            assert not re.match(r"\s*[，。；：！？）”、]", row), row
            assert sum(2 if east_asian_width(c) in "WF" else 1 for c in row) <= width, row
