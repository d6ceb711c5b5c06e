"""A finished report or audit as other people's systems want it: one list of items, whichever of the two it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .audit_models import Audit
from .errors import ReportError
from .models import Evidence, InputRef, Report, Severity
from .safe_json import loads

REPORT, AUDIT = "diagnose.report/v1", "diagnose.audit/v1"
_VERDICTS = {"cause": "a cause was found", "healthy": "nothing is wrong", "inconclusive": "not decided"}


@dataclass(frozen=True)
class Item:
    """A finding: of a cause (`diagnose`) or of a check (`diagnose audit`); texts in the report's first language."""

    id: str
    title: str
    severity: Severity
    evidence: tuple[str, ...]
    confidence: float | None = None
    against: tuple[str, ...] = ()
    because: str = ""
    fix: str = ""
    risk: str = ""
    undo: str = ""
    verify: str = ""
    source: str = ""
    status: str = "inferred"


@dataclass
class Loaded:
    """A report as it was read: exactly one of `report` and `audit` is there, `data` is the JSON of the file."""

    data: dict[str, Any]
    report: Report | None = None
    audit: Audit | None = None
    items: list[Item] = field(default_factory=list)
    by_id: dict[str, Evidence] = field(default_factory=dict)

    @property
    def standing(self) -> list[Item]:
        """Items that no experiment has refuted."""
        return [i for i in self.items if i.status != "withdrawn"]

    @property
    def inputs(self) -> list[InputRef]:
        """What was read, and what was refused."""
        return self._made.inputs

    @property
    def version(self) -> str:
        """Of the program that wrote it."""
        return self._made.tool.version

    @property
    def langs(self) -> list[str]:
        """Languages it speaks, the first one first."""
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
        assert self.audit is not None
        return f"{len(self.items)} finding(s) on {self.audit.machine}" if self.items else "No finding."

    @property
    def _made(self) -> Report | Audit:
        made = self.report or self.audit
        assert made is not None
        return made


def load(path: Path) -> Loaded:
    """Read a report or an audit. Raises ReportError with one clear line."""
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise ReportError(f"{path}: {err.strerror}") from err
    data = loads(raw)
    kind = data.get("schema") if isinstance(data, dict) else None
    if kind not in (REPORT, AUDIT):
        raise ReportError(f"{path}: neither a {REPORT} nor a {AUDIT} file", "write one with --format json")
    try:
        return of(data)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "report"
        raise ReportError(f"{path}: {where}: {first['msg']}", "diagnose schema report prints the contract") from err


def of(data: dict[str, Any]) -> Loaded:
    """JSON data of a report or an audit, parsed."""
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
            f.cause, f.summary, f.severity, tuple(f.evidence), f.confidence, tuple(f.against),
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
