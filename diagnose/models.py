"""Typed models: facts as readers make them, and the report (contract `diagnose.report/v1`).

`Fact` is what a reader yields: cheap, immutable, not yet numbered. `Evidence` is the same fact in
a report, with an id. Everything below `Evidence` is the JSON contract; consumers ignore unknown
keys, so keys may be added and never removed or retyped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .document import Span

Value = str | int | float | bool | None
Kind = Literal["observed", "derived", "absent", "stated"]
Verdict = Literal["cause", "healthy", "inconclusive"]
Severity = Literal["high", "medium", "low", "info"]


class Model(BaseModel):
    """Base of every report model: unknown keys are ignored on the way in."""

    model_config = ConfigDict(extra="ignore", frozen=False)


class Subject(BaseModel):
    """What a fact is about. Only what is known is set.

    Attributes:
        host, nic: names. rank, gpu, peer: indices (peer is a rank or a GPU index, like its signal says).
        label: whatever else tells two facts of one signal apart: a variable, a size, a kernel, a column.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str | None = None
    rank: int | None = None
    gpu: int | None = None
    nic: str | None = None
    peer: int | None = None
    label: str | None = None

    def key(self) -> str:
        """Stable text for sorting."""
        return "|".join("" if v is None else f"{v:>6}" for v in self.__dict__.values())


NOBODY = Subject()


@dataclass(frozen=True, slots=True)
class Fact:
    """One typed fact.

    Attributes:
        signal: declared dotted name.
        value: number in `unit`, or text, or bool.
        unit: from the closed list, or None.
        spans: the bytes that say so (observed), at least one.
        inputs, formula: for derived facts: the facts used, and the arithmetic over ``a, b, c …`` in
            their order (``a / b``), or ``reader:name`` when the figure aggregates a whole capture.
        searched: for absent facts: what was searched for, in which captures.
        count: how many identical readings this fact stands for.
    """

    signal: str
    value: Value
    unit: str | None = None
    subject: Subject = NOBODY
    spans: tuple[Span, ...] = ()
    statement: str = ""
    kind: Kind = "observed"
    formula: str | None = None
    inputs: tuple[Fact, ...] = ()
    reason: str | None = None
    searched: str | None = None
    count: int = 1
    status: tuple[str, ...] = ("provided",)


class SpanRef(Model):
    """Bytes of a capture, with their text."""

    capture: str
    bytes: tuple[int, int]
    line: int
    quote: str


class CaptureRef(Model):
    """First span of an evidence."""

    name: str
    sha256: str
    line: int
    bytes: tuple[int, int]


class Evidence(Model):
    """A numbered fact of a report."""

    id: str
    kind: Kind
    signal: str
    subject: Subject = NOBODY
    value: Value = None
    unit: str | None = None
    reason: str | None = None
    statement: str = ""
    quote: str | None = None
    capture: CaptureRef | None = None
    spans: list[SpanRef] = Field(default_factory=list)
    formula: str | None = None
    inputs: list[str] = Field(default_factory=list)
    searched: str | None = None
    count: int = 1
    status: list[str] = Field(default_factory=list)


class Fix(Model):
    """What takes the cause away, what that may break, and how to take it back."""

    text: str
    risk: str = ""
    rollback: str = ""


class Finding(Model):
    """A cause with what it rests on. `beside`: those of `evidence` that go with the reasons and weigh nothing."""

    cause: str
    confidence: float
    severity: Severity = "medium"
    status: Literal["inferred", "confirmed", "withdrawn"] = "inferred"
    summary: str
    because: str = ""  # what its strongest reason says
    evidence: list[str]
    beside: list[str] = Field(default_factory=list)
    against: list[str] = Field(default_factory=list)
    fix: Fix
    verify: str = ""
    intervention: dict[str, Value] | None = None

    @property
    def reasons(self) -> list[str]:
        """The evidence that the confidence rests on, decisive first."""
        return [i for i in self.evidence if i not in self.beside]


class ChainLink(Model):
    """One cause brings about another, or the symptom: ids of causes, `symptom` at the end of a chain."""

    from_: str = Field(alias="from")
    to: str
    because: str
    evidence: list[str] = Field(default_factory=list)

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)


class Hypothesis(Model):
    """A cause in question. Basis `question`: nothing read speaks for it, `p` is what the question's words suggest."""

    cause: str
    p: float
    basis: Literal["evidence", "question"] = "evidence"


class RuledOut(Model):
    """A cause that the question asks about and that the evidence speaks against."""

    cause: str
    because: str
    evidence: list[str] = Field(default_factory=list)


class RedHerring(Model):
    """A reading that looks alarming and is not, here."""

    text: str
    because: str
    evidence: list[str] = Field(default_factory=list)


class Checked(Model):
    """What was looked at and found in order."""

    what: str
    evidence: list[str] = Field(default_factory=list)


class Reference(Model):
    """A published or measured figure beside which a reading is held; `unit` is one of `units`."""

    id: str
    what: str
    value: float
    unit: str | None
    source: str


class Limit(Model):
    """A measurement beside its ceiling or floor; `limit` is null with a `reason` when unknown."""

    what: str
    measured: float
    limit: float | None
    unit: str
    ratio: float | None
    evidence: list[str] = Field(default_factory=list)
    limit_source: str = ""
    reason: str | None = None


class Stage(Model):
    """A part of a latency; stages of a mean add up, those of a percentile do not (`note` says so).

    Attributes:
        metric: ``ttft``, ``tpot``, ``e2e``, ``ttft tail`` (means), ``ttft p99`` (an upper bound).
    """

    metric: str
    stage: str
    seconds: float
    share: float | None = None
    floor: float | None = None
    evidence: list[str] = Field(default_factory=list)
    note: str = ""


class Advice(Model):
    """A change with what it is predicted to do; `evidence` holds the arithmetic."""

    change: str
    predicted: str
    cost: str = ""
    rollback: str = ""
    evidence: list[str] = Field(default_factory=list)


class PathStep(Model):
    """A step of the playbook as it was walked: the probe it read, what came out, and why."""

    step: str
    probe: str | None
    outcome: str
    because: str
    evidence: list[str] = Field(default_factory=list)


class InputRef(Model):
    """A piece of evidence: the reader that knew it, or the reason why it was not read; `sha256` is of its bytes."""

    name: str
    sha256: str | None
    recognised_as: str | None
    reason: str | None = None
    lines_skipped: int = 0


class Experiment(Model):
    """What to run by hand: the command, the signals it gives, and what they would be."""

    hypothesis: str
    command: str
    metric: str
    expect: str


class Unavailable(Model):
    """A probe that was wanted and could not run, and what would enable it."""

    probe: str
    reason: str
    enable: str
    experiment: Experiment | None = None


class NextProbe(Model):
    """A probe worth running next: about how many seconds it takes, and the causes that it tells apart."""

    probe: str
    footprint: Literal["read", "light", "load"]
    seconds: float
    separates: list[str]
    command: str


class Proposal(Model):
    """What a language model proposed; it weighs nothing. `where` says which line of a capture a quote was found in."""

    kind: Literal["question", "evidence", "hypothesis", "probe"]
    value: str
    where: str = ""
    strength: Literal["weak"] = "weak"
    status: Literal["proposed", "unverified"] = "proposed"


class FollowUp(Model):
    """A question that comes next, with its answer: the higher the level, the deeper it goes."""

    level: int
    q: str
    a: str


class Answer(Model):
    """The report in spoken words of one language. `boundary` says what it does not cover."""

    verdict: str
    short: str
    long: str
    validate_: str = Field(alias="validate")
    boundary: str
    follow_ups: list[FollowUp] = Field(default_factory=list)

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)


class Tool(Model):
    """What made the report: the versions of the program and of its catalogue."""

    version: str
    catalogue: str


class Stats(Model):
    """What it took: probes run live and their seconds; the language model, where one was asked."""

    probes_run: int = 0
    seconds: float = 0.0
    llm: str | None = None


class DecisionFigure(Model):
    """A figure that a decision rests on: what it must be, and what it was. `holds`: None where it was not measured."""

    what: str
    needed: str
    measured: str | None = None
    holds: bool | None = None
    evidence: list[str] = Field(default_factory=list)
    how: str = ""


class Decision(Model):
    """An answer to "should we use X". `stand`: prototype, measure_first or not_now."""

    topic: str
    title: str
    stand: Literal["prototype", "measure_first", "not_now"]
    path: list[str]
    figures: list[DecisionFigure]
    costs: str
    not_when: str
    prototype: dict[str, str]


class Report(Model):
    """Contract 1. `diagnose schema report` prints its JSON Schema."""

    schema_: str = Field(default="diagnose.report/v1", alias="schema")
    tool: Tool
    symptom: str
    symptom_inferred: bool = False
    playbook: str
    lang: str = "en"
    verdict: Verdict
    confidence: float
    findings: list[Finding] = Field(default_factory=list)
    chain: list[ChainLink] = Field(default_factory=list)
    hypotheses: list[Hypothesis] = Field(default_factory=list)
    ruled_out: list[RuledOut] = Field(default_factory=list)
    red_herrings: list[RedHerring] = Field(default_factory=list)
    checked: list[Checked] = Field(default_factory=list)
    evidence: list[Evidence] = Field(default_factory=list)
    references: list[Reference] = Field(default_factory=list)
    limits: list[Limit] = Field(default_factory=list)
    stages: list[Stage] = Field(default_factory=list)
    advice: list[Advice] = Field(default_factory=list)
    path: list[PathStep] = Field(default_factory=list)
    inputs: list[InputRef] = Field(default_factory=list)
    unavailable: list[Unavailable] = Field(default_factory=list)
    next_probes: list[NextProbe] = Field(default_factory=list)
    decision: Decision | None = None
    proposals: list[Proposal] = Field(default_factory=list)
    answer: dict[str, Answer] = Field(default_factory=dict)
    stats: Stats = Field(default_factory=Stats)

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)
