"""A fleet as data: contract `diagnose.fleet/v1`, and what is kept of a node while it is compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pydantic import ConfigDict, Field

from .models import Model, Severity, SpanRef, Tool, Value


class NodeResult(Model):
    """One node."""

    name: str
    hardware: str
    worst: Severity | None = None
    findings: dict[str, Severity] = Field(default_factory=dict)
    outliers: int = 0


class CheckResult(Model):
    """A check and the nodes on which it is a finding; `where` has the line that says so on each."""

    check: str
    severity: Severity
    title: dict[str, str]
    fix: dict[str, str]
    nodes: list[str]
    where: dict[str, SpanRef] = Field(default_factory=dict)


class Outlier(Model):
    """A reading far from its group's median.

    Attributes:
        deviations: robust standard ones, None where the others agree. needed: from which on it counts, by group size.
        formula: how far it is, in figures.
        slow: is it on the side that makes its node the slow one?
    """

    node: str
    hardware: str
    signal: str
    subject: str
    value: float
    unit: str | None
    median: float
    deviations: float | None
    needed: float | None = None
    formula: str = ""
    compared: int = 0
    slow: bool = False


class Mixed(Model):
    """A setting that most nodes share, and the nodes that have another value."""

    hardware: str | None
    signal: str
    subject: str
    usual: Value
    nodes: int
    others: dict[str, list[str]]


class Failed(Model):
    """A node that gave no result."""

    name: str
    reason: str


class Fleet(Model):
    """Contract of `diagnose audit --fleet … --format json`."""

    schema_: str = Field(default="diagnose.fleet/v1", alias="schema")
    tool: Tool
    nodes: list[NodeResult] = Field(default_factory=list)
    checks: list[CheckResult] = Field(default_factory=list)
    outliers: list[Outlier] = Field(default_factory=list)
    slow: list[str] = Field(default_factory=list)
    mixed: list[Mixed] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    failed: list[Failed] = Field(default_factory=list)
    cassettes: str | None = None

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)


@dataclass
class Node:
    """What is kept of a node's audit."""

    name: str
    findings: dict[str, Severity] = field(default_factory=dict)
    readings: dict[tuple[str, str], tuple[Value, str | None]] = field(default_factory=dict)
    where: dict[str, SpanRef] = field(default_factory=dict)

    @property
    def hardware(self) -> str:
        """Models and numbers of its GPUs."""
        names = Counter(str(v) for (signal, _), (v, _) in self.readings.items() if signal == "gpu.name")
        return ", ".join(f"{n}x {name}" for name, n in sorted(names.items())) or "no GPU"
