"""A report told as a debug story: context, problem, action, depth, result, and a 60-second version.

Figures come from the report alone: what it quotes stands between backticks, every other numeral is one of its values,
and a sentence of the catalogue with any other figure in it is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .answer import fix_text, title_text
from .answer_facts import telling
from .arithmetic import Backing, check_numerals
from .catalogue import catalogue
from .document import printable
from .entries import Cause
from .errors import EXIT_OK, ReportError
from .models import Evidence, Limit, Report
from .practice_talk import SCHEMA, WIDTH, emit
from .units import percent

PARTS = ("context", "problem", "action", "depth", "result")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_NUMERAL = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
_MOST_STEPS, _MOST_FACTS, _MOST_OUT = 5, 3, 3
QUICK = 150  # words of the 60-second version


@dataclass(frozen=True)
class Frames:
    """The sentences around the report's own words, in one language."""

    titles: dict[str, str]
    quick: str
    asked: str
    inferred: str
    had: str
    measured: str
    no_limit: str
    seen: str
    unmeasured: str
    looked: str
    out: str
    live: str
    facts: str
    why: str
    odd: str
    cause: str
    healthy: str
    open: str
    fix: str
    predicted: str
    before: str
    check: str
    next: str
    join: str
    gap: str
    comma: str = ", "


EN = Frames(
    {"context": "Context", "problem": "Problem", "action": "Action", "depth": "Depth", "result": "Result"},
    "In 60 seconds",
    "The complaint was: “{symptom}”.", "Nobody had named a symptom; I was given the output and asked what is wrong.",
    "What I had to read: {names}.", "The measurement: {lines}.", "`{what}`: {measured} {unit}, no known limit",
    "What stood out first was {fact}.", "There was no figure to hold against a limit, only state.",
    "I went from the symptom down, one question at a time.", "I could rule out {items}.",
    "I ran {probes} on the machine for that.", "What decided it: {facts}.", "Why that happens: {text}",
    "I did not follow {items}.", "The cause: {title} (`{cause}`), at {p}.", "Nothing is wrong there, at {p}.",
    "The evidence does not decide it; leading is {lead}.", "The fix: {text}", "Predicted: {change}: {predicted}.",
    "After the change {after} {unit} instead of {before}.", "To be sure: {text}",
    "The next step would be `{probe}`: `{command}`.", "; ", " ",
)  # fmt: skip
ZH = Frames(
    {"context": "背景", "problem": "问题", "action": "行动", "depth": "深入", "result": "结果"},
    "60 秒版本",
    "收到的描述是：“{symptom}”。", "没有人说清症状，只给了输出，问哪里不对。",
    "手上有 {n} 份输出：{names}。", "测到的是：{lines}。", "`{what}`：{measured} {unit}，没有已知上限",
    "最先引人注意的是 {fact}。", "没有可以和上限比的数，只有状态。",
    "我从症状往下，一次只问一个问题。", "可以排除 {items}。",
    "为此在机器上跑了 {probes}。", "定案的是：{facts}。", "为什么会这样：{text}",
    "这些我没有追：{items}。", "原因：{title}（`{cause}`），把握 {p}。", "没有问题，把握 {p}。",
    "证据还定不了案，目前领先的是 {lead}。", "修复：{text}", "预计：{change}：{predicted}。",
    "改完是 {after} {unit}，之前是 {before}。", "怎么确认：{text}",
    "下一步是 `{probe}`：`{command}`。", "；", "", "、",
)  # fmt: skip


def values(report: Report) -> list[Backing]:
    """Every figure that a story may say."""
    out: list[Backing] = []
    for e in report.evidence:
        if isinstance(e.value, (int, float)) and not isinstance(e.value, bool):
            out.append((float(e.value), e.unit))
    out += [(r.value, r.unit) for r in report.references]
    for item in report.limits:
        out += [(item.measured, item.unit), *([(item.limit, item.unit)] if item.limit is not None else [])]
        out += [(item.ratio, "fraction")] if item.ratio is not None else []
    out += [(p, "fraction") for p in (report.confidence, *(f.confidence for f in report.findings))]
    out += [(h.p, "fraction") for h in report.hypotheses]
    for finding in report.findings[:1]:
        said = f"{finding.fix.text} {finding.fix.rollback} {finding.verify}"
        out += [(float(n), None) for n in _NUMERAL.findall(said)]
        out += [(float(v), None) for v in (finding.intervention or {}).values() if isinstance(v, float)]
    texts = " ".join([report.symptom, *(f"{a.change} {a.predicted}" for a in report.advice)])
    out += [(float(n), None) for n in _NUMERAL.findall(texts)]
    out.append((float(len([i for i in report.inputs if i.sha256])), "count"))
    return out


class Story:
    """A report, told in one language."""

    def __init__(self, report: Report, lang: str) -> None:
        self.report, self.lang = report, lang
        self.f = ZH if lang == "zh" else EN
        self.values = values(report)
        self.by_id = {e.id: e for e in report.evidence}
        lead = report.findings[0] if report.findings else None
        self.cause: Cause | None = catalogue().causes.get(lead.cause) if lead else None

    def backed(self, text: str) -> str:
        """A text of the catalogue without the sentences whose figures are not the report's."""
        kept = [s for s in _SENTENCE.split(text) if s and not check_numerals(s, self.values)]
        return self.f.gap.join(s.strip() for s in kept)

    def parts(self) -> dict[str, str]:
        """The five parts."""
        made = {name: [t for t in getattr(self, f"_{name}")() if t] for name in PARTS}
        return {name: self.f.gap.join(sentences) for name, sentences in made.items()}

    def quick(self) -> str:
        """What fits into a minute: complaint, measurement, what decided it, cause, fix."""
        start = 0 if telling(self.report) else 1  # without a limit the problem is told by the first fact
        said = [*self._context()[:1], *self._problem()[:1], *self._verdict()]
        said += [self._facts(2, start), self._why(1), *self._result()[1:2]]
        out: list[str] = []
        for sentence in dict.fromkeys(filter(None, said)):
            if _size(" ".join([*out, sentence])) > QUICK:
                break
            out.append(sentence)
        return self.f.gap.join(out)

    def _context(self) -> list[str]:
        r, f = self.report, self.f
        names = [i.name.rpartition("/")[2] for i in r.inputs if i.sha256]
        shown = f.comma.join(f"`{printable(n)}`" for n in names[:4]) + (" …" if len(names) > 4 else "")
        first = f.inferred if r.symptom_inferred else f.asked.format(symptom=_code(r.symptom))
        return [first, f.had.format(n=len(names), names=shown) if names else ""]

    def _problem(self) -> list[str]:
        told = telling(self.report)
        if told:
            return [self.f.measured.format(lines=self.f.join.join(self._limit(x) for x in told))]
        facts = self._decisive()
        return [self.f.seen.format(fact=self._fact(facts[0])) if facts else self.f.unmeasured]

    def _action(self) -> list[str]:
        r, f, cat = self.report, self.f, catalogue()
        steps = {s.id: s.ask for s in cat.playbooks[r.playbook].steps} if r.playbook in cat.playbooks else {}
        ran = [f"`{p.probe}`" for p in r.path if p.step == "planned" and p.probe]
        asks = [self.backed(steps[p.step]) for p in r.path if p.step in steps][:_MOST_STEPS]
        out = [f.looked, *(a for a in asks if self.lang == "en")]
        out.append(f.live.format(probes=f.comma.join(dict.fromkeys(ran))) if ran else "")
        gone = [f"`{x.cause}`" for x in r.ruled_out[:_MOST_OUT]]
        out.append(f.out.format(items=f.comma.join(gone)) if gone else "")
        return out

    def _depth(self) -> list[str]:
        odd = [f"“{self.backed(h.text)}”" for h in self.report.red_herrings[:2] if self.backed(h.text)]
        return [self._facts(_MOST_FACTS), self._why(6), self.f.odd.format(items=self.f.comma.join(odd)) if odd else ""]

    def _result(self) -> list[str]:
        r, f = self.report, self.f
        out = self._verdict()
        if self.cause is None or r.verdict != "cause":
            nxt = r.next_probes[0] if r.next_probes and r.verdict == "inconclusive" else None
            return [*out, f.next.format(probe=nxt.probe, command=_code(nxt.command)) if nxt else ""]
        text = self.backed(fix_text(self.cause, self.lang)[0])
        out.append(f.fix.format(text=text or f"`diagnose explain {self.cause.id}`"))
        told = r.findings[0].intervention or {}
        if "after" in told:
            after, before = (f"{float(str(told[k])):.4g}" for k in ("after", "before"))
            out.append(f.before.format(after=after, before=before, unit=told["unit"]))
        for advice in r.advice[:1]:
            line = f.predicted.format(change=advice.change.rstrip("."), predicted=advice.predicted.rstrip("."))
            out.append(self.backed(line))
        zh = self.cause.zh if self.lang == "zh" else None
        check = self.backed((zh.verify if zh else "") or self.cause.verify)
        return [*out, f.check.format(text=check) if check else ""]

    def _verdict(self) -> list[str]:
        r, f = self.report, self.f
        p = percent(r.confidence)
        if r.verdict == "cause" and self.cause is not None:
            title = self.backed(title_text(self.cause, self.lang)).rstrip("。.") or self.cause.id
            p = percent(r.findings[0].confidence)
            return [f.cause.format(title=title, cause=self.cause.id, p=p)]
        if r.verdict == "healthy":
            return [f.healthy.format(p=p)]
        lead = f"`{r.hypotheses[0].cause}`" if r.hypotheses else "—"
        return [f.open.format(lead=lead)]

    def _decisive(self) -> list[Evidence]:
        ids = [i for f in self.report.findings[:1] for i in f.reasons]
        ids = ids or [i for c in self.report.checked for i in c.evidence]
        return [self.by_id[i] for i in dict.fromkeys(ids) if i in self.by_id]

    def _facts(self, most: int, start: int = 0) -> str:
        facts = list(dict.fromkeys(self._fact(e) for e in self._decisive()))[start : start + most]
        return self.f.facts.format(facts=self.f.join.join(facts)) if facts else ""

    def _why(self, most: int) -> str:
        if self.cause is None or self.report.verdict != "cause":
            return ""
        zh = self.cause.zh if self.lang == "zh" else None
        text = self.backed((zh.mechanism if zh else "") or self.cause.mechanism)
        kept = [s for s in _SENTENCE.split(text) if s][:most]
        return self.f.why.format(text=self.f.gap.join(kept)) if kept else ""

    def _fact(self, e: Evidence) -> str:
        """What was read: the quote itself, or the figure with what it is."""
        if e.kind == "observed" and e.quote:
            line = max(e.quote.split("\n"), key=lambda row: len(row.strip()))
            return f"`{_code(line, 90)}`"
        signal = catalogue().signals.get(e.signal)
        what = signal.what if signal else e.signal
        if isinstance(e.value, (int, float)) and not isinstance(e.value, bool):
            unit = "" if e.unit in (None, "count", "fraction") else f" {e.unit}"
            shown = f"{e.value * 100:.3g} %" if e.unit == "fraction" else f"{e.value:.4g}{unit}"
            return f"{what}: {shown}"
        return f"{what}: `{_code(str(e.value))}`"

    def _limit(self, item: Limit) -> str:
        if item.limit is None or item.ratio is None:
            return self.f.no_limit.format(what=_code(item.what), measured=f"{item.measured:.4g}", unit=item.unit)
        shown = f"{item.measured:.4g} {item.unit} / {item.limit:.4g} {item.unit} ({percent(item.ratio)})"
        return f"`{_code(item.what)}`: {shown}"


def _code(text: str, width: int = 200) -> str:
    """A text of the report as it may stand between backticks."""
    plain = printable(" ".join(text.split())).replace("`", "'")
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _size(text: str) -> float:
    from .rubric import size

    return size(text)


def read(path: Path) -> Report:
    """A report from its file.

    Raises:
        ReportError: it cannot be read, or is none.
    """
    from pydantic import ValidationError

    from .safe_json import loads

    try:
        raw = loads(path.read_bytes())
        return Report.model_validate(raw)
    except OSError as err:
        raise ReportError(f"{path}: {err.strerror}") from err
    except (ValueError, ValidationError) as err:
        raise ReportError(
            f"{path.name} is no report", "write one with: diagnose … --format json > report.json"
        ) from err


def told(report: Report, langs: tuple[str, ...]) -> dict[str, Any]:
    """The story as data."""
    out = {}
    for lang in langs:
        story = Story(report, lang)
        out[lang] = {**story.parts(), "quick": story.quick()}
    return {"schema": SCHEMA, "kind": "story", "verdict": report.verdict, "story": out}


def run(path: Path, langs: tuple[str, ...], format_: str) -> int:
    """Tell a report."""
    from .linebreak import wrapped

    made = told(read(path), langs)
    if format_ == "json":
        emit(made)
        return EXIT_OK
    for lang in langs:
        frames = ZH if lang == "zh" else EN
        for name in (*PARTS, "quick"):
            head = frames.quick if name == "quick" else frames.titles[name]
            print(f"{head}\n" + "\n".join(wrapped(made["story"][lang][name], WIDTH, "  ")) + "\n")
    return EXIT_OK
