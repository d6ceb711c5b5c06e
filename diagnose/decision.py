"""Answers to "should we use X": the critical path, figures that would justify it, costs, and a prototype.

The text is data (`playbooks/decisions`); a report fills in which figures were measured and what they say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from .catalogue import plain_yaml
from .lazy import regex
from .models import Decision, DecisionFigure, Evidence

_ASKED = regex(
    r"\bshould (?:we|i|you|they)\b|\bworth\b|\bdo (?:we|i) need\b|\bwould .{0,40}\bhelp\b|\bis it time\b|\bmake sense\b"
    r"|\bevaluat|要不要|是否|该不该|应不应该|应该用|该用|用不用|能不能|可以用|值得|值不值|有必要|需不需要",
    re.IGNORECASE,
)
_STEPS = ("hypothesis", "baseline", "microbenchmark", "change", "end_to_end", "failure", "rollout", "decide")
_STEPS_ZH = {
    "hypothesis": "假设", "baseline": "基线", "microbenchmark": "微基准", "change": "最小改动", "end_to_end": "端到端",
    "failure": "失败模式", "rollout": "推广与回退", "decide": "上线、迭代还是放弃",
}  # fmt: skip


@lru_cache(maxsize=1)
def decisions() -> list[dict[str, Any]]:
    """All decisions as data."""
    return list(plain_yaml((files("diagnose.playbooks") / "decisions" / "decisions.yaml").read_text("utf-8")))


def asked(symptom: str) -> dict[str, Any] | None:
    """The decision that a question is about, or None: a symptom that merely names a technique asks for no decision."""
    if not _ASKED.search(symptom):
        return None
    return next((d for d in decisions() if re.search(d["topic"], symptom, re.IGNORECASE)), None)


def _holds(number: dict[str, Any], item: Evidence) -> bool:
    if "matches" in number:
        return re.search(number["matches"], str(item.value)) is not None
    if isinstance(item.value, bool) or not isinstance(item.value, (int, float)):
        return False
    return bool(item.value > number["above"] if "above" in number else item.value < number["below"])


def _needed(number: dict[str, Any], lang: str) -> str:
    words = {"matches": "匹配", "above": "高于", "below": "低于"} if lang == "zh" else {}
    if "matches" in number:
        return f"{number['signal']} {words.get('matches', 'matches')} {number['matches']}"
    side = "above" if "above" in number else "below"
    return f"{number['signal']} {words.get(side, side)} {number[side]:g}"


def _figure(number: dict[str, Any], evidence: list[Evidence], lang: str) -> DecisionFigure:
    found = [e for e in evidence if e.signal == number["signal"]]
    met = [e for e in found if _holds(number, e)]
    lacking: list[Evidence] = []
    if not found and number["signal"].startswith("rdma."):  # what a machine without an adapter says of all of them
        lacking = [e for e in evidence if e.signal == "rdma.none"]
    shown = (met or found or lacking)[:3]
    return DecisionFigure(
        what=number["what"][lang],
        needed=_needed(number, lang),
        measured="; ".join(e.statement for e in shown) or None,
        holds=bool(met) if found or lacking else None,
        evidence=[e.id for e in shown],
        how=number["how"] if isinstance(number["how"], str) else number["how"][lang],
    )


def decide(symptom: str, evidence: list[Evidence], lang: str) -> Decision | None:
    """The decision a question asks for, filled in from the evidence; None for any other question."""
    row = asked(symptom)
    if row is None:
        return None
    lang = lang if lang in ("en", "zh") else "en"
    figures = [_figure(n, evidence, lang) for n in row["numbers"]]
    if any(f.holds is False for f in figures):
        stand = "not_now"
    elif all(f.holds for f in figures):
        stand = "prototype"
    else:
        stand = "measure_first"
    return Decision(
        topic=row["id"], title=row["title"][lang], stand=stand, path=row["path"][lang], figures=figures,
        costs=row["costs"][lang], not_when=row["not_when"][lang],
        prototype={step: row["prototype"][step][lang] for step in _STEPS},
    )  # fmt: skip


_WORDS = {
    "en": {"prototype": "build the prototype", "measure_first": "measure first", "not_now": "not now",
           "path": "Critical path", "figures": "What would justify it", "costs": "Costs", "not_when": "When not to",
           "plan": "Prototype", True: "holds", False: "does not hold", None: "not measured: "},
    "zh": {"prototype": "值得做原型", "measure_first": "先测量", "not_now": "现在不做", "path": "关键路径",
           "figures": "支持它需要的数字", "costs": "代价", "not_when": "什么时候不要用", "plan": "原型计划",
           True: "满足", False: "不满足", None: "未测量："},
}  # fmt: skip


def verdict(decision: Decision, lang: str) -> str:
    """The decision in a sentence: what to do, and how many of its figures hold, do not hold, or are not known."""
    zh = lang == "zh"
    w = _WORDS["zh" if zh else "en"]
    counts = [(said, sum(f.holds is holds for f in decision.figures)) for holds, said in _COUNTED["zh" if zh else "en"]]
    of = len(decision.figures)
    told = [said.format(n=n, of=of) for said, n in counts if n]
    titles: dict[str, str] = next((d["title"] for d in decisions() if d["id"] == decision.topic), {})
    title = titles.get("zh" if zh else "en", decision.title)
    if zh:
        return f"{title}：{w[decision.stand]}（{'，'.join(told)}）。"
    return f"{title}: {w[decision.stand]} ({', '.join(told)})."


_COUNTED: dict[str, tuple[tuple[bool | None, str], ...]] = {
    "en": ((True, "{n} of {of} conditions hold"), (False, "{n} of {of} fail"), (None, "{n} of {of} not measured")),
    "zh": ((True, "{of} 个条件中 {n} 个满足"), (False, "{of} 个中 {n} 个不满足"), (None, "{of} 个中 {n} 个未测量")),
}


def lines(decision: Decision, lang: str) -> list[str]:
    """The decision as lines of text, the critical path first."""
    w = _WORDS["zh" if lang == "zh" else "en"]
    out = [f"{decision.title}: {w[decision.stand]}", "", f"{w['path']}:", *(f"  {p}" for p in decision.path), ""]
    out.append(f"{w['figures']}:")
    for item in decision.figures:
        ids = ", ".join(item.evidence)
        said = f"{w[None]}{item.how}" if item.holds is None else f"{w[item.holds]} ({item.measured}; {ids})"
        out.append(f"  {item.what} [{item.needed}]: {said}")
    out += ["", f"{w['costs']}: {decision.costs}", f"{w['not_when']}: {decision.not_when}", "", f"{w['plan']}:"]
    names = _STEPS_ZH if lang == "zh" else {}
    out += [f"  {names.get(step, step.replace('_', ' '))}: {text}" for step, text in decision.prototype.items()]
    return out
