"""The report as Markdown, for an issue or a chat."""

from __future__ import annotations

from .answer import limit_line, quoted, where, words
from .decision import lines as decision_lines
from .models import Report


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(report: Report) -> str:
    """One document; a section per language of the answer."""
    by_id = {e.id: e for e in report.evidence}
    out: list[str] = []
    for lang, answer in report.answer.items():
        w = words(lang)
        out += [f"## {answer.verdict}", "", f"*{report.playbook}*: {report.symptom}", "", answer.short, ""]
        if report.decision is not None:
            out += ["```text", *decision_lines(report.decision, lang), "```", ""]
        cited = list(dict.fromkeys(i for f in report.findings for i in f.evidence))
        cited = cited or list(dict.fromkeys(i for c in report.checked for i in c.evidence))
        if cited:
            out += ["| id | says | where | quote |", "|---|---|---|---|"]
            for ident in cited:
                if item := by_id.get(ident):
                    quote = f"`{_cell(quoted(item)).replace('`', chr(39))}`" if item.quote else ""
                    out.append(f"| {item.id} | {_cell(item.statement)} | {_cell(where(item))} | {quote} |")
            out.append("")
        out += [f"- {limit_line(item, w)}" for item in report.limits[:8]]
        if report.limits:
            out.append("")
        parts = [s for s in report.stages if s.share is not None]
        if parts:
            out += ["| metric | stage | seconds | share | floor |", "|---|---|---|---|---|"]
            for part in parts:
                floor = "" if part.floor is None else f"{part.floor:.4g}"
                out.append(f"| {part.metric} | {part.stage} | {part.seconds:.4g} | {part.share:.1%} | {floor} |")
            out.append("")
        out += [f"- **{a.change}**: {a.predicted} ({a.cost}; {a.rollback})" for a in report.advice]
        if report.advice:
            out.append("")
        out += [answer.long, ""]
        out += [f"- **{r.cause}**: {r.because}" for r in report.ruled_out]
        if report.ruled_out:
            out.append("")
        for probe in report.next_probes[:1]:
            out += ["```sh", probe.command, "```", ""]
        out += [f"**{f.q}** {f.a}\n" for f in answer.follow_ups]
        out += [f"_{answer.boundary}_", ""]
    return "\n".join(out)
