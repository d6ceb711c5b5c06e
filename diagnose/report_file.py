"""A finished report, audit or fleet as other people's systems want it: one list of items, whichever of them it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from . import report_fleet
from .audit_models import Audit
from .errors import ReportError
from .fleet_models import Fleet
from .models import Evidence, InputRef, Report
from .report_item import Item
from .safe_json import loads

REPORT, AUDIT, FLEET = "diagnose.report/v1", "diagnose.audit/v1", "diagnose.fleet/v1"
_VERDICTS = {"cause": "a cause was found", "healthy": "nothing is wrong", "inconclusive": "not decided"}


@dataclass
class Loaded:
    """A report as it was read: one of `report`, `audit` and `fleet` is there, `data` is the JSON of the file."""

    data: dict[str, Any]
    report: Report | None = None
    audit: Audit | None = None
    fleet: Fleet | None = None
    items: list[Item] = field(default_factory=list)
    by_id: dict[str, Evidence] = field(default_factory=dict)

    @property
    def standing(self) -> list[Item]:
        """Items that no experiment has refuted."""
        return [i for i in self.items if i.status != "withdrawn"]

    @property
    def single(self) -> Iterator[Item]:
        """The standing items, those of a fleet apart for each node."""
        for item in self.standing:
            if not item.nodes:
                yield item
            for node, ident in zip(item.nodes, item.evidence, strict=False):
                yield replace(item, nodes=(node,), evidence=(ident,))

    @property
    def inputs(self) -> list[InputRef]:
        """What was read, and what was refused; of a fleet the nodes that gave no result."""
        if isinstance(self._made, Fleet):
            return list(report_fleet.silent(self._made))
        return self._made.inputs

    @property
    def version(self) -> str:
        """Of the program that wrote it."""
        return self._made.tool.version

    @property
    def langs(self) -> list[str]:
        """Languages it speaks, the first one first."""
        if self.fleet is not None:
            return ["en"]
        if self.report is not None:
            return list(self.report.answer) or ["en"]
        assert self.audit is not None
        return ["en", "zh"] if self.audit.lang == "both" else [self.audit.lang]

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        if self.report is not None:
            answers = list(self.report.answer.values())
            return answers[0].verdict if answers else _VERDICTS[self.report.verdict]
        if self.fleet is not None:
            return report_fleet.headline(self.fleet)
        assert self.audit is not None
        return f"{len(self.items)} finding(s) on {self.audit.machine}" if self.items else "No finding."

    @property
    def _made(self) -> Report | Audit | Fleet:
        made = self.report or self.audit or self.fleet
        assert made is not None
        return made


def load(path: Path) -> Loaded:
    """Read a report, an audit or a fleet. Raises ReportError with one clear line."""
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise ReportError(f"{path}: {err.strerror}") from err
    data = loads(raw)
    kind = data.get("schema") if isinstance(data, dict) else None
    if kind not in (REPORT, AUDIT, FLEET):
        raise ReportError(f"{path}: neither a {REPORT} nor a {AUDIT} or {FLEET} file", "write one with --format json")
    try:
        return of(data)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "report"
        raise ReportError(f"{path}: {where}: {first['msg']}", "diagnose schema report prints the contract") from err


def of(data: dict[str, Any]) -> Loaded:
    """JSON data of a report, an audit or a fleet, parsed."""
    if data.get("schema") == FLEET:
        fleet = Fleet.model_validate(data)
        found, told = report_fleet.items(fleet)
        return Loaded(data, fleet=fleet, items=found, by_id={e.id: e for e in told})
    if data.get("schema") == AUDIT:
        audit = Audit.model_validate(data)
        out = Loaded(data, audit=audit, items=_checks(audit))
        out.by_id = {e.id: e for e in audit.evidence}
        return out
    report = Report.model_validate(data)
    out = Loaded(data, report=report, items=_causes(report))
    out.by_id = {e.id: e for e in report.evidence}
    return out


def _causes(report: Report) -> list[Item]:
    return [
        Item(
            f.cause, f.summary, f.severity, tuple(f.evidence), f.confidence, tuple(f.against), because=f.because,
            fix=f.fix.text, risk=f.fix.risk, undo=f.fix.rollback, verify=f.verify, status=f.status,
        )
        for f in report.findings
    ]  # fmt: skip


def _checks(audit: Audit) -> list[Item]:
    return [
        Item(
            f.check, _said(f.title), f.severity, tuple(f.evidence), because=f.because,
            fix=_said(f.fix.text), risk=f.fix.risk, source=f.source,
        )
        for f in audit.findings
    ]  # fmt: skip


def _said(texts: dict[str, str]) -> str:
    return texts.get("en") or next(iter(texts.values()), "")
