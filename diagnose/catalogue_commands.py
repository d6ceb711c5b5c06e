"""`causes`, `explain`, `playbook`, `probe list`, `schema`: the catalogue, readable."""

from __future__ import annotations

import json
from typing import Any

import typer

from .catalogue import catalogue, near
from .entries import Cause, Playbook
from .errors import UsageError
from .predicates import in_words


def _dump(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def _table(rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    from .screen import Terminal

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for index, _ in enumerate(rows[0] if rows else ()):
        table.add_column(no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Terminal(highlight=False, markup=False).print(table)


def causes(layer: str, format_: str) -> None:
    """All causes, by layer.

    Raises:
        UsageError: there is no such layer.
    """
    cat = catalogue()
    layers = sorted({c.layer for c in cat.causes.values()})
    if layer and layer not in layers:
        raise UsageError(f"no layer {layer!r}", near(layer, layers) or f"layers: {', '.join(layers)}")
    picked = [c for c in cat.causes.values() if not layer or c.layer == layer]
    picked.sort(key=lambda c: (c.layer, c.id))
    if format_ == "json":
        _dump(
            {"schema": "diagnose.causes/v1", "causes": [c.model_dump(mode="json", exclude_none=True) for c in picked]}
        )
        return
    _table([(c.id, c.severity, c.title) for c in picked])


def _cause(name: str) -> Cause:
    cat = catalogue()
    if name not in cat.causes:
        ends = [c for c in cat.causes if c.endswith("." + name)]
        if len(ends) == 1:
            return cat.causes[ends[0]]
        raise UsageError(
            f"no cause {name!r}", near(name, cat.causes) or "diagnose causes and diagnose audit --show list them"
        )
    return cat.causes[name]


def explain(name: str, lang: str, format_: str) -> None:
    """One cause, or one check of the audit, in full.

    Raises:
        UsageError: neither a cause nor a check has that id.
    """
    from . import checks

    if name in checks.load()[1]:
        from .audit_screen import explain as explain_check

        explain_check(checks.find(name), lang, format_)
        return
    cause = _cause(name)
    if format_ == "json":
        _dump({"schema": "diagnose.cause/v1", **cause.model_dump(mode="json", exclude_none=True)})
        return
    for one in ("en", "zh") if lang == "both" else (lang,):
        zh = cause.zh if one == "zh" else None
        fix = zh.fix if zh is not None and zh.fix is not None else cause.fix
        texts = {
            f: (getattr(zh, f) if zh is not None and getattr(zh, f) else getattr(cause, f))
            for f in ("title", "definition", "mechanism", "tradeoff", "verify")
        }
        label = (
            ("定义", "机理", "取舍", "修复", "风险", "回退", "验证")
            if one == "zh"
            else ("What", "How", "Trade-off", "Fix", "Risk", "Undo", "Check")
        )
        typer.echo(f"{cause.id}  ({cause.layer}, {cause.severity})\n{texts['title']}\n")
        for key, value in zip(
            label,
            (
                texts["definition"],
                texts["mechanism"],
                texts["tradeoff"],
                fix.text,
                fix.risk,
                fix.rollback,
                texts["verify"],
            ),
            strict=True,
        ):
            if value:
                typer.echo(f"{key}: {' '.join(value.split())}")
        typer.echo("")
    for indicator in cause.indicators:
        sign = "-" if indicator.against else "+"
        typer.echo(f"  {sign} {indicator.strength:9} {in_words(indicator.when)}")
    if cause.produces:
        typer.echo(f"  brings about: {', '.join(cause.produces)}")
    for decoy in cause.decoys:
        typer.echo(f"  not a sign: {decoy.text} ({decoy.because})")
    if cause.versions:
        typer.echo(f"  versions: {cause.versions}")


def playbook_list(format_: str) -> None:
    """All playbooks."""
    books = sorted(catalogue().playbooks.values(), key=lambda b: b.id)
    if format_ == "json":
        _dump({"schema": "diagnose.playbooks/v1", "playbooks": [b.model_dump(mode="json") for b in books]})
        return
    _table([(b.id, f"{b.title}. {b.question}") for b in books])


def _book(name: str) -> Playbook:
    books = catalogue().playbooks
    if name not in books:
        raise UsageError(f"no playbook {name!r}", near(name, books) or "diagnose playbook list")
    return books[name]


def playbook_show(name: str, as_mermaid: bool, format_: str) -> None:
    """One playbook as text, JSON or Mermaid.

    Raises:
        UsageError: there is no such playbook.
    """
    book = _book(name)
    if as_mermaid:
        from .playbook import mermaid

        typer.echo(mermaid(book))
        return
    if format_ == "json":
        _dump({"schema": "diagnose.playbook/v1", **book.model_dump(mode="json")})
        return
    typer.echo(f"{book.id}: {book.title}\n{book.question}\nstages: {' → '.join(book.stages)}\n")
    for number, step in enumerate(book.steps, 1):
        typer.echo(f"{number}. {step.id} [{step.stage}] {step.ask}\n   probe: {step.probe}")
        for branch in step.branches:
            typer.echo(f"   if {in_words(branch.when)} → {branch.to}{': ' + branch.says if branch.says else ''}")
        typer.echo(f"   else → {step.else_to}; unknown → {step.else_unknown}")
    if book.decides:
        typer.echo(f"\nWhat decides an unclear symptom: {book.decides}")


def probe_list(format_: str) -> None:
    """All probes."""
    specs = sorted(catalogue().probes.values(), key=lambda p: p.name)
    if format_ == "json":
        _dump({"schema": "diagnose.probes/v1", "probes": [p.model_dump(mode="json") for p in specs]})
        return
    _table([(p.name, p.footprint, f"{p.seconds:g} s", f"{p.what}\n$ {p.command}") for p in specs])


def schema(name: str) -> None:
    """JSON Schema of the report, the audit or the fleet, or the signal declarations.

    Raises:
        UsageError: there is no such schema.
    """
    if name in ("report", "audit", "fleet"):
        from .audit_models import Audit
        from .fleet_models import Fleet
        from .models import Model, Report

        known: dict[str, type[Model]] = {"report": Report, "audit": Audit, "fleet": Fleet}
        model = known[name]
        made = model.model_json_schema(by_alias=True)
        made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        made["$id"] = f"diagnose.{name}/v1"
        _dump(made)
    elif name == "signals":
        declared = catalogue().signals
        _dump(
            {
                "schema": "diagnose.signals/v1",
                "signals": [declared[n].model_dump(mode="json") for n in sorted(declared)],
            }
        )
    else:
        raise UsageError(f"no schema {name!r}", "report, audit, fleet or signals")
