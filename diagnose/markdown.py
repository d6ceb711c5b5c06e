"""The report as Markdown, for an issue or a chat."""

from __future__ import annotations

from .answer import asked, fix_text, limit_line, ruled_reason, where, words
from .answer_facts import in_list, phrase, quoted_at
from .catalogue import catalogue
from .decision import lines as decision_lines
from .models import Report
from .stages import shown
from .units import percent


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(report: Report) -> str:
    """One document: what was found, in the first language; the answer in each language that was asked for."""
    cat = catalogue()
    lang, *_ = report.answer
    w, colon = words(lang), "：" if lang == "zh" else ": "
    out = [f"## {report.answer[lang].verdict}", "", f"*{report.playbook}*: {report.symptom}", ""]
    for number, (one, answer) in enumerate(report.answer.items()):
        title = w.l_say if number == 0 else w.l_other
        out += [f"### {title}", "", answer.short, "", f"<details><summary>{words(one).l_longer}</summary>", ""]
        out += [answer.long, "", "</details>", ""]
    if report.decision is not None:
        out += ["```text", *decision_lines(report.decision, lang), "```", ""]
    out += _evidence(report, lang)
    out += [f"- {limit_line(item, w, cat, lang)}" for item in report.limits[:8]]
    if report.limits:
        out.append("")
    parts = [s for s in report.stages if s.share is not None]
    if parts:
        heads = (
            ("指标", "阶段", "秒", "占比", "下限") if lang == "zh" else ("metric", "stage", "seconds", "share", "floor")
        )
        out += [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
        for part in parts:
            floor = "" if part.floor is None else f"{part.floor:.4g}"
            spent, share = shown(part)
            stage = phrase(cat, part.stage) if lang == "zh" else part.stage
            out.append(f"| {part.metric} | {stage} | {spent:.4g} | {percent(share, 1)} | {floor} |")
        out.append("")
    if report.findings and report.findings[0].cause in cat.causes:
        text, risk, undo = fix_text(cat.causes[report.findings[0].cause], lang)
        advised = ((w.l_fix, text), (w.l_risk, risk), (w.l_undo, undo), (w.l_check, report.answer[lang].validate_))
        out += [*(f"- **{label}**{colon}{body}" for label, body in advised if body), ""]
    for a in report.advice:
        told_zh = [phrase(cat, t) if lang == "zh" else t for t in (a.change, a.predicted, a.cost, a.rollback)]
        out.append(("- **{}**：{}（{}；{}）" if lang == "zh" else "- **{}**: {} ({}; {})").format(*told_zh))
    if report.advice:
        out.append("")
    by_id = {e.id: e for e in report.evidence}
    if ruled := [r for r in report.ruled_out if asked(r)]:
        told = [f"- {r.cause}{colon}{_cell(ruled_reason(r, by_id, cat, lang))}" for r in ruled]
        out += [f"**{w.l_ruled}**", "", *told, ""]
    for probe in report.next_probes[:1]:
        out += [f"**{w.l_next}**", "", "```sh", probe.command, "```", ""]
    for answer in report.answer.values():
        out += [f"**{f.q}** {f.a}\n" for f in answer.follow_ups]
        out += [f"_{answer.boundary}_", ""]
    return "\n".join(out)


def _evidence(report: Report, lang: str) -> list[str]:
    by_id = {e.id: e for e in report.evidence}
    cited = list(dict.fromkeys(i for f in report.findings for i in f.evidence))
    cited = cited or list(dict.fromkeys(i for c in report.checked for i in c.evidence))
    if not cited:
        return []
    heads = ("编号", "说的是", "出处", "原文") if lang == "zh" else ("id", "says", "where", "quote")
    out = [f"| {' | '.join(heads)} |", "|---|---|---|---|"]
    for ident in cited:
        if item := by_id.get(ident):
            said = in_list(item, catalogue(), lang)
            quote = f"`{_cell(quoted_at(item, 110)).replace('`', chr(39))}`" if item.quote else ""
            out.append(f"| {item.id} | {_cell(said)} | {_cell(where(item))} | {quote} |")
    return [*out, ""]
