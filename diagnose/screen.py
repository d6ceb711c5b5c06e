"""The report as a person reads it at 3 a.m.: verdict, evidence with file:line, limit, next step, fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from .answer import asked, fix_text, ruled_reason, sureness, title_text, words
from .answer_facts import figure, in_list, origin, phrase, quoted_at, reason_text
from .catalogue import Catalogue
from .decision import lines as decision_lines
from .fold import folded
from .limits import is_floor
from .linebreak import wrapped
from .models import Evidence, Limit, NextProbe, Report, Stage
from .report_labels import labels
from .shell import broken
from .stages import METRICS, shown
from .units import duration, percent


class Terminal(Console):
    """A console whose reader may leave: `diagnose … | head` ends like any other run, not with an error of its own."""

    def on_broken_pipe(self) -> None:
        """Let the caller end the run: Rich would exit here with a status of its own."""
        raise BrokenPipeError

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else _PADDING.sub("", text)


_PADDING = re.compile(r"[ \t]+$", re.MULTILINE)  # Rich fills the cells of a table, also where nobody sees them


@dataclass(frozen=True)
class Prose:
    """Sentences in any language; Rich alone breaks Chinese at blanks, and puts commas at the start of a line.

    Attributes:
        bold: so many characters at its start are.
    """

    text: str
    style: str = ""
    bold: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self.text.isascii()
        for number, row in enumerate([self.text] if whole else wrapped(self.text, options.max_width, "")):
            text = Text(row, style=self.style, overflow="fold")
            if self.bold and not number:
                text.stylize("bold", 0, self.bold)
            yield text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, Text(self.text))


def labelled(lang: str, label: str, text: str) -> str:
    """``Risk: …``, with the colon of the language."""
    return f"{label}：{text}" if lang == "zh" else f"{label}: {text}"


_COLOUR = {"cause": "bold red", "healthy": "bold green", "inconclusive": "bold yellow"}
BAR = 20
LEAST = 0.005  # of the whole: a stage that is less is shown as 0 %
BESIDE = 110  # columns from which two languages stand side by side


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), Padding(body, (0, 0, 1, 2)))


def _evidence(items: list[Evidence], known: Mapping[str, Evidence], verbose: bool, cat: Catalogue, lang: str) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold", ratio=1)
    for item in items:
        said = in_list(item, cat, lang)
        quote = quoted_at(item, 400 if verbose else 140)
        if item.kind == "derived" and quote.startswith("{"):
            quote = ""  # what was worked out over a whole trace does not stand in the row that it points at
        rows: list[RenderableType] = []
        if quote and said.startswith("“"):
            rows.append(Prose(quote))  # a line of output says itself
        else:
            rows.append(Prose(said))
            if quote and quote != said:
                rows.append(Text(quote, style="dim", overflow="fold"))
        place = Text(origin(item, known), style="blue")
        if "simulated" in item.status:
            place.append("  " + labels(lang).simulated, style="magenta")
        table.add_row(item.id, Group(*rows, place))
    return table


def _once(items: list[Limit]) -> list[Limit]:
    """Figures without a ceiling once each, and behind those that have one."""
    bare = {x.what: x for x in reversed(items) if x.limit is None}
    return [*(x for x in items if x.limit is not None), *[x for x in items if bare.get(x.what) is x][:2]]


def bar(ratio: float) -> str:
    """A bar of 20 cells; a ratio above 1 fills it."""
    full = max(0, min(BAR, round(ratio * BAR)))
    return "█" * full + "░" * (BAR - full)


def _limits(items: list[Limit], cat: Catalogue, lang: str) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for item in items:
        what = phrase(cat, item.what) if lang == "zh" else item.what
        if item.limit is None or item.ratio is None:
            why = reason_text(cat, item.reason or "", lang)
            table.add_row(Group(Prose(what), Prose(why, "dim")), f"{figure(item.measured)} {item.unit}", "?", "")
        else:
            floor = is_floor(item)
            word = phrase(cat, "floor" if floor else "of") if lang == "zh" else "floor" if floor else "of"
            beside = f"{figure(item.measured)} {word} {figure(item.limit)} {item.unit}"
            table.add_row(Prose(what), beside, percent(item.ratio), bar(1 / item.ratio if floor else item.ratio))
    return table


def _stages(items: list[Stage], cat: Catalogue, lang: str) -> Table:
    """One row a stage: time, share, floor; a mean's stages add up, percentiles follow with -v."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for item in items:
        floor = f"floor {duration(item.floor)}" if item.floor else ""
        if item.stage == "residual" and abs(item.seconds) < 1e-6:
            continue  # the parts are all there is
        if item.seconds < 0 and abs(item.share or 0) < LEAST and item.stage != "residual":
            continue  # less than nothing: two clocks that agree
        note = "" if item.metric == last and item.stage != "residual" else item.note
        head = item.metric.upper() if item.metric != last else ""
        spent, part = shown(item)
        share = "" if item.share is None else percent(part)
        told = ", ".join(filter(None, [floor, note]))
        said = Text(phrase(cat, told) if lang == "zh" else told, style="dim")
        stage = phrase(cat, item.stage) if lang == "zh" else item.stage
        table.add_row(head, stage, duration(spent), share, said)
        last = item.metric
    return table


def show(report: Report, cat: Catalogue, console: Console, verbose: bool = False) -> None:
    """Print the report to `console`; width, colour and pipes are the console's business.

    With two languages the report is in the first one, and its answer stands in the other beside it.
    """
    lang, *others = report.answer
    w = words(lang)
    for one in (lang, *others):
        console.print(Prose(report.answer[one].verdict, _COLOUR[report.verdict]))
    parts = [report.playbook, report.symptom, w.l_inferred if report.symptom_inferred else ""]
    console.print(Text(" · ".join(p for p in parts if p), style="dim"))
    console.print()
    if report.decision is not None:
        folds = (part for line in decision_lines(report.decision, lang) for part in folded(line, console.width))
        console.print("\n".join(folds) + "\n", markup=False, highlight=False, soft_wrap=True)
    _findings(report, cat, console, lang, verbose)
    _context(report, cat, console, lang, verbose)
    if report.findings:
        _fix(report, cat, console, lang)
    if report.next_probes and (report.verdict != "healthy" or verbose):
        console.print(Text(w.l_next, style="bold"))
        for probe in report.next_probes if verbose else report.next_probes[:1]:
            _probe(probe, console, lang)
        console.print()
    told = [Prose(a.long if verbose else a.short) for a in report.answer.values()]
    if others and console.width >= BESIDE:
        table = Table(box=None, pad_edge=False, padding=(0, 2), expand=True)
        for title in (w.l_say, w.l_other):
            table.add_column(title, ratio=1, overflow="fold", header_style="bold")
        table.add_row(*told)
        console.print(Padding(table, (0, 0, 1, 0)))
    else:
        for title, text in zip((w.l_say, w.l_other), told, strict=False):
            console.print(_section(title, text))
    for one in report.answer:
        console.print(Prose(labelled(one, words(one).l_boundary, report.answer[one].boundary), "dim"))


def _probe(probe: NextProbe, console: Console, lang: str) -> None:
    """A command as it can be copied: broken where a shell reads on, whole where it has lines of its own."""
    w = words(lang)
    if "\n" in probe.command:
        console.print(Text(probe.command, style="green"), soft_wrap=True)
    else:
        for n, row in enumerate(broken(probe.command, console.width - 6)):
            lead = "  " if row.startswith("#") else "    " if n else "  $ "
            console.print(Text(lead + row, style="green"), soft_wrap=True)
    frame = w.l_separates if len(probe.separates) > 1 else w.l_settles
    told = frame.format(
        probe=probe.probe, footprint=labels(lang).footprint[probe.footprint], seconds=f"{probe.seconds:g}",
        causes=("、" if lang == "zh" else ", ").join(probe.separates),
    )  # fmt: skip
    console.print(Padding(Prose(told, "dim"), (0, 0, 0, 2)))


def show_model(report: Report, console: Console, verbose: bool = False) -> None:
    """What a model added: its wording as far as it held, its proposals, and what became of the rest."""
    for lang, answer in report.answer.items():
        if f"{lang} short: reworded" in (report.stats.llm or "") or f"{lang} long: reworded" in (
            report.stats.llm or ""
        ):
            console.print(_section(words(lang).l_model, Prose(answer.long if verbose else answer.short)))
    for item in report.proposals:
        line = f"{item.kind}: {item.value}" + (f"  {item.where}" if item.where else "")
        console.print(Text(f"{item.status} by the model, weighs nothing  {line}", style="dim"))
    console.print(Text(report.stats.llm or "", style="dim"))


def _fix(report: Report, cat: Catalogue, console: Console, lang: str) -> None:
    w = words(lang)
    lead = report.findings[0]
    text, risk, undo = fix_text(cat.causes[lead.cause], lang)
    rows = [Prose(text)]
    for label, value in ((w.l_risk, risk), (w.l_undo, undo), (w.l_check, report.answer[lang].validate_)):
        if value:
            whole = value if lang == "en" or value.endswith(("。", "）", "；")) else value + "。"
            rows.append(Prose(labelled(lang, label, whole), "dim"))
    console.print(_section(w.l_fix, Group(*rows)))


def _findings(report: Report, cat: Catalogue, console: Console, lang: str, verbose: bool) -> None:
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    for finding in report.findings:
        items = [by_id[i] for i in finding.evidence if i in by_id]
        title = f"{finding.cause}  {sureness(finding.confidence, w)}  {labels(lang).severity[finding.severity]}"
        why = cat.spoken_zh["reasons"].get(finding.because, "") if lang == "zh" else finding.because
        console.print(
            _section(
                title,
                Group(
                    Prose(title_text(cat.causes[finding.cause], lang)),
                    *([Prose(labelled(lang, w.l_why, why))] if why else []),
                    _evidence(items if verbose else items[:3], by_id, verbose, cat, lang),
                ),
            )
        )
    if report.verdict == "healthy":
        ids = list(dict.fromkeys(i for c in report.checked for i in c.evidence))
        items = [by_id[i] for i in ids if i in by_id]
        told = [Prose(f"✓ {reason_text(cat, c.what, lang)}") for c in report.checked[:5]]
        shown = _evidence(items if verbose else items[:3], by_id, verbose, cat, lang)
        console.print(_section(w.l_checked, Group(*told, shown)))


def _context(report: Report, cat: Catalogue, console: Console, lang: str, verbose: bool) -> None:
    w = words(lang)
    zh = lang == "zh"
    by_id = {e.id: e for e in report.evidence}
    means = [s for s in report.stages if s.metric in METRICS[:2] or (verbose and s.metric in METRICS)]
    if means:
        console.print(_section(w.l_stages, _stages(report.stages if verbose else means, cat, lang)))
    held = [e for e in report.evidence if e.signal in ("serving.goodput", "serving.slo_margin")]
    if held:
        console.print(_section(w.l_targets, Group(*(Prose(f"{e.statement}  {e.id}") for e in held[:8]))))
    if report.advice:
        told = []
        for a in report.advice:
            change, gain, cost, back = (
                phrase(cat, t) if zh else t for t in (a.change, a.predicted, a.cost, a.rollback)
            )
            rest = f"：{gain}（代价：{cost}；回退：{back}）" if zh else f": {gain}  (cost: {cost}; back: {back})"
            told.append(Prose(change + rest, bold=len(change)))
        console.print(_section(w.l_advice, Group(*told)))
    if report.limits:
        worst = sorted(
            report.limits if verbose else _once(report.limits), key=lambda x: (x.ratio is None, x.ratio or 0.0)
        )
        console.print(_section(w.l_limits, _limits(worst if verbose else worst[:4], cat, lang)))
    if report.verdict != "cause" and report.hypotheses:
        table = Table(box=None, show_header=False, pad_edge=False)
        for h in report.hypotheses:
            table.add_row(f"{h.p:.2f}", h.cause, Text(w.l_by_question if h.basis == "question" else "", style="dim"))
        console.print(_section(w.l_open, table))
    for label, rows in (
        (
            w.l_ruled,
            [(r.cause, ruled_reason(r, by_id, cat, lang), r.evidence) for r in report.ruled_out if verbose or asked(r)],
        ),
        (
            w.l_herring,
            [
                (reason_text(cat, r.text, lang), reason_text(cat, r.because, lang), r.evidence)
                for r in report.red_herrings
            ],
        ),
    ):
        if rows:
            lines = [Prose(f"{head}  {why} {' '.join(ids[:2])}", bold=len(head)) for head, why, ids in rows]
            console.print(_section(label, Group(*lines)))
    odd = [i for i in report.inputs if i.sha256 is None or (verbose and i.reason)]
    if odd:
        console.print(_section(w.l_inputs, Group(*(Prose(f"{i.name}: {i.reason}") for i in odd[:8]))))
