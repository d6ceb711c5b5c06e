"""The audit's report, contract `diagnose.audit/v1`. Consumers ignore unknown keys; keys are added, never retyped."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from .checks import Status
from .models import Evidence, InputRef, Model, Severity, Stats, Tool, Value


class AuditFix(Model):
    """By language; one that was not asked for is absent."""

    text: dict[str, str]
    risk: str = ""


class AuditFinding(Model):
    """A check whose condition holds."""

    check: str
    group: str
    severity: Severity
    title: dict[str, str]
    because: str
    evidence: list[str]
    fix: AuditFix
    source: str = ""


class AuditCheck(Model):
    """What came of one check."""

    id: str
    group: str
    severity: Severity
    status: Status
    reason: str | None = None
    evidence: list[str] = Field(default_factory=list)


class Reading(Model):
    """One value of the machine: what a baseline keeps and a fleet compares."""

    signal: str
    subject: str
    value: Value
    unit: str | None = None


class Drift(Model):
    """What changed since the baseline; a check's values are its states."""

    kind: str  # "check" or "reading"
    what: str
    subject: str = ""
    before: Value = None
    after: Value = None


class NotAvailable(Model):
    """A probe that gave nothing, and why."""

    probe: str
    reason: str
    enable: str = ""


class Audit(Model):
    """Contract of `diagnose audit --format json`; `diagnose schema audit` prints its JSON Schema."""

    schema_: str = Field(default="diagnose.audit/v1", alias="schema")
    tool: Tool
    lang: str = "en"
    machine: str
    profile: str | None = None
    findings: list[AuditFinding] = Field(default_factory=list)
    checks: list[AuditCheck] = Field(default_factory=list)
    counts: dict[str, int] = Field(default_factory=dict)
    drift: list[Drift] | None = None
    readings: list[Reading] = Field(default_factory=list)
    evidence: list[Evidence] = Field(default_factory=list)
    inputs: list[InputRef] = Field(default_factory=list)
    unavailable: list[NotAvailable] = Field(default_factory=list)
    stats: Stats = Field(default_factory=Stats)

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)
