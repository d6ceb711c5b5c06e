"""The report as a person reads it at 3 a.m.: verdict, evidence with file:line, limit, next step, fix."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .answer import quoted, where, words
from .catalogue import Catalogue
from .models import Evidence, Limit, Report

_COLOUR = {"cause": "bold red", "healthy": "bold green", "inconclusive": "bold yellow"}
BAR = 20


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), Padding(body, (0, 0, 1, 2)))


def _evidence(items: list[Evidence], verbose: bool) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold", ratio=1)
    for item in items:
        body = Text(item.statement)
        quote = quoted(item, 400 if verbose else 140)
        if quote and quote != item.statement:
            body.append("\n" + quote, style="dim")
        body.append(f"\n{where(item)}", style="blue")
        if "simulated" in item.status:
            body.append("  simulated", style="magenta")
        table.add_row(item.id, body)
    return table


def bar(ratio: float) -> str:
    """A bar of 20 cells; a ratio above 1 fills it."""
    full = max(0, min(BAR, round(ratio * BAR)))
    return "█" * full + "░" * (BAR - full)


def _limits(items: list[Limit]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for item in items:
        if item.limit is None or item.ratio is None:
            table.add_row(item.what, f"{item.measured:g} {item.unit}", "?", Text(item.reason or "", style="dim"))
        else:
            table.add_row(
                item.what, f"{item.measured:g} of {item.limit:g} {item.unit}", f"{item.ratio:.0%}", bar(item.ratio)
            )
    return table


def show(report: Report, cat: Catalogue, console: Console, verbose: bool = False) -> None:
    """Print the report to `console`; width, colour and pipes are the console's business."""
    for lang, answer in report.answer.items():
        w = words(lang)
        console.print(Text(answer.verdict, style=_COLOUR[report.verdict]))
        head = f"{report.playbook} · {report.symptom}" if report.symptom else report.playbook
        if report.symptom_inferred:
            head += " · inferred from the evidence" if lang == "en" else " · 由证据推断"
        console.print(Text(head, style="dim"))
        console.print()
        _body(report, console, verbose)
        if report.findings:
            fix = report.findings[0].fix
            lead = cat.causes.get(report.findings[0].cause)
            if lang == "zh" and lead is not None and lead.zh is not None and lead.zh.fix is not None:
                text, risk, back = lead.zh.fix.text, lead.zh.fix.risk, lead.zh.fix.rollback
            else:
                text, risk, back = fix.text, fix.risk, fix.rollback
            rows = [Text(text)]
            if risk:
                rows.append(Text(f"{'Risk' if lang == 'en' else '风险'}: {risk}", style="dim"))
            if back:
                rows.append(Text(f"{'Undo' if lang == 'en' else '回退'}: {back}", style="dim"))
            rows.append(Text(f"{'Check' if lang == 'en' else '验证'}: {answer.validate_}", style="dim"))
            console.print(_section("Fix" if lang == "en" else "修复", Group(*rows)))
        if report.next_probes and (report.verdict != "healthy" or verbose):
            rows2: list[RenderableType] = []
            for probe in report.next_probes if verbose else report.next_probes[:1]:
                rows2.append(Text(f"$ {probe.command}", style="green"))
                rows2.append(
                    Text(f"{probe.probe}, {probe.footprint}, about {probe.seconds:g} s; separates {', '.join(probe.separates)}", style="dim")
                )
            console.print(_section("Next step" if lang == "en" else "下一步", Group(*rows2)))
        console.print(_section("Say it" if lang == "en" else "口头回答", Text(answer.long if verbose else answer.short)))
        console.print(Text(f"{'Boundary' if lang == 'en' else '边界'}: {answer.boundary}", style="dim"))
        _ = w


def _body(report: Report, console: Console, verbose: bool) -> None:
    by_id = {e.id: e for e in report.evidence}
    for finding in report.findings:
        items = [by_id[i] for i in finding.evidence if i in by_id]
        title = f"{finding.cause}  {finding.confidence:.2f}  {finding.severity}"
        console.print(_section(title, Group(Text(finding.summary), _evidence(items if verbose else items[:3], verbose))))
    if report.verdict == "healthy":
        ids = list(dict.fromkeys(i for c in report.checked for i in c.evidence))
        items = [by_id[i] for i in ids if i in by_id]
        told = [Text(f"✓ {c.what}") for c in report.checked[:5]]
        console.print(_section("Checked", Group(*told, _evidence(items if verbose else items[:3], verbose))))
    if report.limits:
        worst = sorted(report.limits, key=lambda x: (x.ratio is None, x.ratio or 0.0))
        console.print(_section("Measured / limit", _limits(worst if verbose else worst[:4])))
    if report.verdict != "cause" and report.hypotheses:
        table = Table(box=None, show_header=False, pad_edge=False)
        for h in report.hypotheses:
            table.add_row(f"{h.p:.2f}", h.cause)
        console.print(_section("Still open", table))
    if report.ruled_out:
        lines = [Text.assemble((r.cause, "bold"), f"  {r.because} {' '.join(r.evidence[:2])}") for r in report.ruled_out]
        console.print(_section("Ruled out", Group(*lines)))
    if report.red_herrings:
        lines = [Text.assemble((r.text, "bold"), f"  {r.because} {' '.join(r.evidence[:1])}") for r in report.red_herrings]
        console.print(_section("Looks bad, is not", Group(*lines)))
    odd = [i for i in report.inputs if i.sha256 is None or (verbose and i.reason)]
    if odd:
        console.print(_section("Inputs", Group(*(Text(f"{i.name}: {i.reason}") for i in odd[:8]))))
