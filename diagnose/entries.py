"""What an entry of the catalogue is: signals, marks, causes, trees, questions and probes as data with closed keys.

`catalogue` reads them from `playbooks/`; a typo there is an error with file, place and a near match.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Strength = Literal["decisive", "strong", "weak"]
_BOUND = r"\s*(?:>=|<=|==|!=|>|<)\s*\d+(?:\.\d+)*\s*"
RANGE = re.compile(f"{_BOUND}(?:,{_BOUND})*")


def _ranges(given: dict[str, str]) -> dict[str, str]:
    bad = [text for text in given.values() if RANGE.fullmatch(text) is None]
    if bad:
        raise ValueError(f"bad version range {bad[0]!r}; like '>=2.19,<2.21'")
    return given


Versions = Annotated[dict[str, str], AfterValidator(_ranges)]  # component -> range


class Data(BaseModel):
    """Closed keys: anything undeclared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Signal(Data):
    """A kind of evidence.

    Attributes:
        what: one phrase, used in statements ("transport of a pair of ranks").
        type: of the value. unit: canonical unit, None for text and bool.
        subject: which subject fields a fact of this signal sets.
        group: independence group; only the strongest indicator of a group counts. Default: the name.
        better: direction that is good, or None.
    """

    name: str
    what: str
    type: Literal["text", "number", "bool"] = "text"
    unit: str | None = None
    subject: tuple[Literal["host", "rank", "gpu", "nic", "peer", "label"], ...] = ()
    group: str = ""
    better: Literal["higher", "lower"] | None = None


class Mark(Data):
    """A line that means something wherever it stands: a pattern searched in every line of every capture.

    Attributes:
        signal: the name; a mark declares its signal (type text unless `value` is numeric).
        pattern: Python regular expression, searched case-insensitively in the cleaned line.
        value: name or number of the group that holds the value; default: the matched text.
        unit: when the value is a number in this unit (already canonical), the fact is numeric.
        label: group whose text becomes the subject's label.
        rank, gpu: group whose number becomes that subject field.
        unless: pattern that vetoes the line.
        what: what the line says, in one clause, used in statements.
        keep: how many distinct facts of this mark to keep per document.
        versions: component and range of the releases whose source holds the text, as far as it was read.
    """

    signal: str
    what: str
    pattern: str
    unless: str | None = None
    value: str | int | None = None
    unit: str | None = None
    label: str | int | None = None
    rank: str | int | None = None
    gpu: str | int | None = None
    group: str = ""
    keep: int = 3
    versions: Versions = {}


class Indicator(Data):
    """One reason for or against a cause. See `predicates` for the grammar of `when`.

    Attributes:
        versions: component and range in which the rule holds; with another version in the evidence it does not count,
            and the report says so. Unknown versions leave it in force.
    """

    when: dict[str, Any]
    strength: Strength
    against: bool = False
    group: str = ""
    because: str = ""
    versions: Versions = {}


class FixText(Data):
    """What to change, what that may break, and how to undo it."""

    text: str
    risk: str = ""
    rollback: str = ""


class FollowUpText(Data):
    """A question that goes one step deeper, and its answer."""

    q: str
    a: str


class Zh(Data):
    """The Chinese of a cause; same keys as the English."""

    title: str = ""
    definition: str = ""
    mechanism: str = ""
    tradeoff: str = ""
    fix: FixText | None = None
    verify: str = ""
    follow_ups: tuple[FollowUpText, ...] = ()


class Decoy(Data):
    """Something that looks alarming beside this cause and is not."""

    when: dict[str, Any]
    text: str
    because: str


class Intervention(Data):
    """How a cause is put to the test on a live machine: measure again without the fault, at the same place.

    Attributes:
        probe: measures. metric: signal of the figure found. limit: how the ceiling's name in `limits` begins.
        without: patterns of environment variables to leave out. share: of the ceiling that is usual without the fault.
        twin: signal of the figure with the change, where `probe` measures the changed way itself and no variable goes.
        where: pattern of the label that readings of `twin` have. change: what is changed, in words.
    """

    probe: str
    metric: str
    limit: str
    without: tuple[str, ...] = ()
    share: float
    twin: str = ""
    where: str = ""
    change: str = ""


class Cause(Data):
    """A catalogue entry. Adding one is data only. `beside`: facts that it is cited with and that weigh nothing."""

    id: str
    layer: str
    severity: Literal["high", "medium", "low", "info"] = "medium"
    title: str
    definition: str
    mechanism: str
    tradeoff: str = ""
    playbooks: tuple[str, ...] = ()
    cues: tuple[str, ...] = ()
    indicators: tuple[Indicator, ...] = ()
    produces: tuple[str, ...] = ()
    beside: tuple[dict[str, Any], ...] = ()
    decoys: tuple[Decoy, ...] = ()
    versions: str = ""
    fix: FixText
    verify: str
    follow_ups: tuple[FollowUpText, ...] = ()
    references: tuple[str, ...] = ()
    intervention: Intervention | None = None
    zh: Zh | None = None


class Branch(Data):
    """`when` holds -> go to step `to`."""

    when: dict[str, Any]
    to: str
    says: str = ""


class Step(Data):
    """One question of a playbook.

    Attributes:
        reads: signals that answer it (offline, a step reads evidence already parsed).
        probe: the probe that would fetch them; branches are tried in order, three-valued;
        else_to: where to go when no branch holds; else_unknown: when one cannot be decided.
    """

    id: str
    stage: str
    ask: str
    probe: str
    reads: tuple[str, ...] = ()
    branches: tuple[Branch, ...] = ()
    else_to: str
    else_unknown: str


class Change(Data):
    """What a release does differently by default, for questions that begin with an upgrade (`playbooks/releases`).

    Attributes:
        at, after: first release read that has it; last one read that has not.
        cause: what it speaks for, weakly. source: where it was read.
        settled: options and variables that decide it by hand.
        what, zh: the change in one clause, English and Chinese.
    """

    at: str
    after: str
    cause: str
    what: str
    source: str
    zh: str = ""
    settled: str = ""


class Playbook(Data):
    """A debugging tree. Every path ends in `conclude`.

    Attributes:
        symptoms: combinations of the ideas in `playbooks/words` by weight; what only one question uses weighs
            more, a negative weight speaks against. See `route`.
        decides: what would settle an unclear symptom that this tree shares with others.
        without_gpu: a machine without a GPU can answer the question too.
    """

    id: str
    title: str
    title_zh: str = ""
    question: str
    symptoms: dict[int, tuple[str, ...]]
    stages: tuple[str, ...]
    steps: tuple[Step, ...]
    decides: str = ""
    without_gpu: bool = False


class QuestionOption(Data):
    """One answer and the causes it speaks for and against."""

    key: str
    text: str
    text_zh: str
    for_: tuple[str, ...] = Field(default=(), alias="for")
    against: tuple[str, ...] = ()


class Question(Data):
    """Something only the user can say; see `ask`."""

    id: str
    ask: str
    ask_zh: str
    options: tuple[QuestionOption, ...]


class Command(Data):
    """One part of a probe that needs no Python: a program, or text files.

    Attributes:
        argv: program and arguments; never a shell. Starts after `timeout` seconds at the latest are over.
        files: globs of absolute paths, read as text.
        label: tells the parts of a probe apart.
    """

    argv: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    label: str = ""
    timeout: float = 10.0

    @model_validator(mode="after")
    def _one_of_both(self) -> Command:
        if bool(self.argv) == bool(self.files):
            raise ValueError("a part of `run` has either argv or files")
        return self

    @property
    def shown(self) -> str:
        """As one would type it."""
        return shlex.join(self.argv) if self.argv else "grep -H . " + " ".join(self.files)


class ProbeSpec(Data):
    """What a probe costs and how to run it; used for next steps and experiments, and run live where it has `run`."""

    name: str
    what: str
    footprint: Literal["read", "light", "load"]
    seconds: float
    command: str
    provides: tuple[str, ...]
    needs: str = ""
    enable: str = ""
    expect: str = ""
    run: tuple[Command, ...] = ()
    disturbs: str = ""  # what it may disturb, for the question of consent
