"""The report as one HTML page: nothing is fetched, every word from outside is escaped, under 1 MB.

The page's own policy allows only the style and the script that it was made with, by their hashes. Text goes
through `visible`, so no colour code and no direction mark of a log acts in the browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from .answer import fix_text, ruled_reason, title_text, where
from .answer_facts import in_list, reason_text
from .audit_models import AuditCheck
from .catalogue import Catalogue, catalogue
from .document import Document
from .errors import ToolMissing
from .models import Evidence, Report, Stage
from .pictures.report import drawings
from .pictures.svg import Drawing
from .pictures.svg import style as picture_style
from .report import referred
from .report_excerpts import BUDGET, Excerpt, excerpts, visible
from .report_file import Loaded
from .report_item import Item
from .report_labels import labels
from .stages import METRICS, shown
from .units import duration, percent

MAX_BYTES = 1_000_000
MOST_JSON = 450_000  # characters of the JSON in the page


@dataclass(frozen=True)
class FindingView:
    """A finding in the page's language."""

    item: Item
    title: str
    facts: list[Evidence]
    fix: str
    risk: str
    undo: str
    verify: str


@dataclass(frozen=True)
class StageRow:
    """A stage and its bar: shares of the whole at which it starts and how wide it is; `bad` is far above its floor."""

    stage: Stage
    time: str
    share: str
    floor: str
    start: float
    width: float
    mark: float | None
    bad: bool


@dataclass(frozen=True)
class Metric:
    """A latency and its stages."""

    name: str
    total: str
    note: str
    rows: list[StageRow]


def page(loaded: Loaded, documents: Iterable[Document] = ()) -> str:
    """The page. With the captures at hand it quotes them at the cited lines.

    Raises:
        ToolMissing: jinja2 is not installed.
    """
    try:
        import_module("jinja2")
    except ModuleNotFoundError as err:
        raise ToolMissing("the HTML report needs jinja2", 'pip install "gpu-diagnose[report]"') from err
    docs = list(documents)
    drawn = drawings(loaded.report, loaded.langs[0]) if loaded.report is not None else []
    drawn = [d for d in drawn if not d.name.startswith("stages-")]  # the page has them as a table with bars
    cited = _cited(loaded, {row[-1] for d in drawn for row in d.rows})
    budget, room = BUDGET, MOST_JSON
    while True:
        text = _render(loaded, drawn, cited, excerpts(cited, loaded.inputs, docs, budget), room)
        if len(text.encode()) < MAX_BYTES or not budget:
            return text
        budget, room = (budget // 2, room // 2) if budget > 10_000 else (0, 0)


def _cited(loaded: Loaded, drawn: set[str]) -> list[Evidence]:
    """Evidence that something in the report, or a drawing of it, points to."""
    if loaded.report is not None:
        ids = set(referred(loaded.report)) | drawn
    else:
        ids = {i for item in loaded.items for i in item.evidence}
    return [e for e in loaded.by_id.values() if e.id in ids]


def _render(loaded: Loaded, drawn: list[Drawing], cited: list[Evidence], shown: list[Excerpt], room: int) -> str:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    env = Environment(
        loader=PackageLoader("diagnose", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else "" if value is None else value,
    )  # fmt: skip
    env.filters["svg"] = Markup  # pictures escape their texts themselves
    css, script = _packaged("report.css") + picture_style(), _packaged("report.js")
    w = labels(loaded.langs[0])
    data, note = _data(loaded, cited, w, room)
    report, audit = loaded.report, loaded.audit
    cat, lang = catalogue(), loaded.langs[0]
    values: dict[str, Any] = {
        "said": lambda text: spoken(cat, text, lang), "out": lambda x: ruled_reason(x, loaded.by_id, cat, lang),
        "told": lambda e: _told(cat, e, lang),
        "policy": f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'",
        "css": Markup(css), "script": Markup(script), "data": Markup(data), "data_note": note,  # noqa: S704 (data: _json)
        "w": w, "words": {lang: labels(lang) for lang in loaded.langs}, "langs": loaded.langs,
        "headline": loaded.headline, "r": report, "audit": audit, "version": loaded.version,
        "headlines": [(lang, a.verdict) for lang, a in report.answer.items()] if report else [],
        **_chip(loaded, w),
        "confidence": report.confidence if report else None,
        "subtitle": " · ".join(filter(None, (report.symptom, report.playbook))) if report else _machine(loaded),
        "inferred": bool(report and report.symptom_inferred),
        "findings": _findings(loaded), "limits": _limits(report) if report else [],
        "stages": _stages(report) if report else [],
        "drawings": drawn,
        "checks": _checks(loaded), "cited": cited, "excerpts": shown, "inputs": loaded.inputs,
        "anchors": {e.id: f"ev{n}" for n, e in enumerate(cited)},
        "lines": _lines(cited, shown), "where": where, "bounds": _bounds,
    }  # fmt: skip
    values["sections"] = _sections(values, w)
    return env.get_template("report.html.j2").render(values)


def _packaged(name: str) -> str:
    return files("diagnose").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can close the element or turn the text around."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(loaded: Loaded, cited: list[Evidence], w: SimpleNamespace, room: int) -> tuple[str, str]:
    """The report itself for programs, as large as there is room for."""
    text = _json(loaded.data)
    if len(text) <= room:
        return text, w.whole
    ids = {e.id for e in cited}
    kept = [e for e in loaded.data.get("evidence", []) if e.get("id") in ids]
    text = _json(loaded.data | {"evidence": kept})
    return (text, w.cut) if len(text) <= room else ("null", w.none)


def _chip(loaded: Loaded, w: SimpleNamespace) -> dict[str, str]:
    """The verdict in a word, and the class that colours it."""
    if loaded.report is not None:
        return {"verdict": loaded.report.verdict, "chip": getattr(w, loaded.report.verdict)}
    worst = next((s for s in ("high", "medium", "low", "info") if any(i.severity == s for i in loaded.items)), "")
    return {"verdict": worst or "healthy", "chip": w.worst.format(w.severity[worst]) if worst else w.clean}


def _machine(loaded: Loaded) -> str:
    if loaded.fleet is not None:
        return f"{len(loaded.fleet.nodes)} nodes"
    assert loaded.audit is not None
    return " · ".join(filter(None, (loaded.audit.machine, loaded.audit.profile)))


def _findings(loaded: Loaded) -> list[FindingView]:
    """Findings with the catalogue's words where they are known in the page's language."""
    lang, out = loaded.langs[0], []
    causes = catalogue().causes if lang == "zh" and loaded.report is not None else {}
    for item in loaded.items:
        facts = [loaded.by_id[i] for i in item.evidence if i in loaded.by_id]
        title, fix, risk, undo, verify = item.title, item.fix, item.risk, item.undo, item.verify
        if item.id in causes:
            cause = causes[item.id]
            title = title_text(cause, lang)
            fix, risk, undo = fix_text(cause, lang)
            verify = cause.zh.verify if cause.zh is not None and cause.zh.verify else verify
        elif loaded.audit is not None and lang == "zh":
            found = next(f for f in loaded.audit.findings if f.check == item.id)
            title, fix = found.title.get(lang, title), found.fix.text.get(lang, fix)
        out.append(FindingView(item, title, facts, fix, risk, undo, verify))
    return out


def _limits(report: Report) -> list[Any]:
    return sorted(report.limits, key=lambda x: (x.ratio is None, x.ratio or 0.0))


def _bounds(share: float) -> float:
    return max(0.0, min(1.0, share))


def _stages(report: Report) -> list[Metric]:
    """Means as bars one after another; percentiles do not add up and are left to the JSON."""
    out = []
    for name in METRICS:
        parts = [s for s in report.stages if s.metric == name and s.share is not None]
        parts = [s for s in parts if s.stage != "residual" or abs(s.share or 0) >= 0.0005]
        whole = sum(s.seconds for s in parts)
        if not parts or whole <= 0:
            continue
        start, rows = 0.0, []
        for s in parts:
            spent, share = shown(s)
            width = spent / whole
            rows.append(
                StageRow(
                    stage=s, time=duration(spent), share=percent(share, 1),
                    floor="" if s.floor is None else duration(s.floor), start=start, width=max(width, 0.002),
                    mark=start + s.floor / whole if s.floor else None,
                    bad=s.floor is not None and width >= 0.5 and s.seconds > 2 * s.floor,
                )
            )  # fmt: skip
            start += width
        notes = dict.fromkeys(s.note for s in parts if s.note)
        out.append(Metric(name.upper() if len(name) <= 4 else name, duration(whole), "; ".join(notes), rows))
    return out


def _told(cat: Catalogue, item: Evidence, lang: str) -> str:
    """What an evidence says; in Chinese a line of output says itself, below."""
    said = in_list(item, cat, lang) if lang == "zh" or item.kind == "derived" else item.statement
    return "" if said.startswith("“") and item.quote else said or item.signal


def spoken(cat: Catalogue, text: str, lang: str) -> str:
    """A text of the report in the page's language; English that has no Chinese stays as it is."""
    told = reason_text(cat, text, lang)
    return text if told == f"“{text}”" else told


def _checks(loaded: Loaded) -> list[tuple[str, list[AuditCheck]]]:
    if loaded.audit is None:
        return []
    by: dict[str, list[AuditCheck]] = {}
    for check in loaded.audit.checks:
        by.setdefault(check.status, []).append(check)
    return [(s, by[s]) for s in ("finding", "passed", "unknown", "not_applicable") if s in by]


def _lines(cited: Iterable[Evidence], shown: list[Excerpt]) -> dict[str, str]:
    """Anchor of the line that each evidence quotes, where the page shows that line."""
    places = {(x.name, row.number): f"c{n}-L{row.number}" for n, x in enumerate(shown) for row in x.rows}
    out = {}
    for item in cited:
        if item.capture and (anchor := places.get((item.capture.name, max(item.capture.line, 1)))):
            out[item.id] = anchor
    return out


def _sections(values: dict[str, Any], w: SimpleNamespace) -> list[tuple[str, str]]:
    """Entries of the contents, those that the template makes."""
    r: Report | None = values["r"]
    there: list[tuple[str, str, Any]] = [
        ("findings", w.findings, values["findings"]),
        ("open", w.open, r and r.verdict != "cause" and r.hypotheses),
        ("checked", w.checked, r and r.verdict == "healthy" and r.checked),
        ("next", w.next, r and r.verdict != "healthy" and r.next_probes),
        ("stages", w.stages, values["stages"]), ("limits", w.limits, values["limits"]),
        ("drawings", w.drawings, values["drawings"]), ("chain", w.chain, r and r.chain),
        ("ruled", w.ruled, r and (r.ruled_out or r.red_herrings)), ("checks", w.checks, values["audit"]),
        ("say", w.say, r and r.answer), ("evidence", w.evidence, values["cited"]),
        ("captures", w.captures, values["excerpts"]),
    ]  # fmt: skip
    return [(anchor, text) for anchor, text, here in there if here]
