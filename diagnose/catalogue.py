"""Load and check the data of `playbooks/`: signals, marks, causes, playbook trees.

All of it is YAML with closed keys: a typo is an error with file, place and a near match, never a
rule that silently does not fire. Plugins add files through the entry-point group
``diagnose.causes`` (and its siblings), each naming a package folder of the same shape.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .chinese import set_natively
from .errors import CatalogueError
from .units import UNITS

Strength = Literal["decisive", "strong", "weak"]
T = TypeVar("T", bound="Data")
_BOUND = r"\s*(?:>=|<=|==|!=|>|<)\s*\d+(?:\.\d+)*\s*"
_CONTENT = ("signals", "marks", "causes", "trees", "probes", "axes", "questions", "wording", "versions", "releases")
AHEAD = frozenset(_CONTENT) - {"wording"} | {"words", "spoken"}  # what each run reads is parsed ahead
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
    text: str
    risk: str = ""
    rollback: str = ""


class FollowUpText(Data):
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


_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, takes a tenth of the time


def plain_yaml(text: str) -> Any:
    """Ordinary safe YAML, as fast as it can be had.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_SAFE)  # noqa: S506 (a safe loader)


class _Loader(_SAFE):  # type: ignore[misc]
    """Safe YAML in which only true and false are booleans: `no:` is a condition, `on` an ordinary word."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regex) for tag, regex in found if tag != "tag:yaml.org,2002:bool"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false|True|False)$"), list("tfTF"))


def from_yaml(data: bytes) -> Any:
    """What a file of the catalogue says.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(data.decode(), Loader=_Loader)  # noqa: S506 (a safe loader)


def digest(data: bytes) -> str:
    """By what a file is known in `parsed.json`."""
    return hashlib.sha256(data).hexdigest()[:32]


@lru_cache(maxsize=1)
def ahead() -> dict[str, dict[str, Any]]:
    """What `docs/generate.py` worked out of the packaged files before, for a fifth of each run's time.

    `files` holds contents by `digest`, so that a file that was changed since is simply not there and is parsed; keys
    are text, as JSON has them. `shaped` and `plain` are `marks.needles` by pattern.
    """
    place = files("diagnose.playbooks") / "parsed" / "parsed.json"
    made: dict[str, dict[str, Any]] = json.loads(place.read_bytes()) if place.is_file() else {}
    return {name: made.get(name, {}) for name in ("files", "shaped", "plain")}


def _roots() -> list[Traversable]:
    from .plugin import catalogue_roots

    return [files("diagnose.playbooks"), *catalogue_roots()]


def yaml_files(folder: str) -> Iterator[tuple[str, Any]]:
    """Name and content of each file of a folder of the catalogue, the packaged ones first, then those of plug-ins.

    Raises:
        CatalogueError: a file is no YAML.
    """
    for root in _roots():
        place = root / folder
        if not place.is_dir():
            continue
        for item in sorted(place.iterdir(), key=lambda t: t.name):
            if item.name.endswith(".yaml"):
                data = item.read_bytes()
                try:
                    known = ahead()["files"].get(digest(data)) if folder in AHEAD else None
                    loaded = from_yaml(data) if known is None else known
                except (yaml.YAMLError, UnicodeDecodeError) as err:
                    raise CatalogueError(f"{folder}/{item.name}", "syntax", str(err)) from err
                yield f"{folder}/{item.name}", loaded


def near(word: str, known: Iterable[str]) -> str:
    """``did you mean …`` or nothing."""
    hit = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"did you mean {hit[0]}?" if hit else ""


def build(model: type[T], file: str, where: str, raw: Any) -> T:
    """An entry of the catalogue as its model.

    Raises:
        CatalogueError: it breaks the contract; says the file, the entry and the field.
    """
    if not isinstance(raw, dict):
        raise CatalogueError(file, where, "expected a mapping")
    try:
        return model.model_validate(raw)
    except ValidationError as err:
        first = err.errors()[0]
        field = ".".join(str(p) for p in first["loc"])
        hint = near(str(first["loc"][-1]), model.model_fields) if first["loc"] else ""
        raise CatalogueError(file, f"{where}: {field}", first["msg"], hint) from err


class Catalogue:
    """Everything in `playbooks/`, loaded lazily and checked once.

    Attributes:
        files: file of each cause and playbook that was loaded.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    @cached_property
    def marks(self) -> list[Mark]:
        out: list[Mark] = []
        for file, raw in yaml_files("marks"):
            for i, item in enumerate(raw or []):
                out.append(build(Mark, file, f"entry {i + 1}", item))
        return out

    @cached_property
    def signals(self) -> dict[str, Signal]:
        out: dict[str, Signal] = {}
        for file, raw in yaml_files("signals"):
            for name, item in (raw or {}).items():
                if name in out:
                    raise CatalogueError(file, name, "declared twice")
                out[name] = build(Signal, file, name, {"name": name, **(item or {})})
                unit = out[name].unit
                if unit is not None and unit not in UNITS:
                    raise CatalogueError(file, name, f"unit {unit} is not in the closed list")
        for question in self.questions:
            name = f"stated.{question.id}"
            out[name] = Signal(name=name, what=question.ask)
        for mark in self.marks:
            if mark.signal not in out:
                kind = "number" if mark.unit else "text"
                out[mark.signal] = Signal(
                    name=mark.signal, what=mark.what, type=kind, unit=mark.unit, group=mark.group or mark.signal
                )
        return out

    @cached_property
    def causes(self) -> dict[str, Cause]:
        out: dict[str, Cause] = {}
        for file, raw in yaml_files("causes"):
            for i, item in enumerate(raw or []):
                if isinstance(item, dict) and "zh" in item:
                    item = {**item, "zh": set_natively(item["zh"])}
                cause = build(Cause, file, f"entry {i + 1} ({(item or {}).get('id', '?')})", item)
                if cause.id in out:
                    raise CatalogueError(file, cause.id, "declared twice")
                self.files[cause.id] = file
                more = [*self._stated.get(cause.id, ()), *self._changed(cause)]
                out[cause.id] = cause.model_copy(update={"indicators": (*cause.indicators, *more)}) if more else cause
        for change in (c for found in self.changes.values() for c in found):
            if change.cause not in out:
                raise CatalogueError("releases", change.at, f"no cause {change.cause}", near(change.cause, out))
        return out

    def _changed(self, cause: Cause) -> list[Indicator]:
        """A weak indicator where a default that changed between two releases in evidence speaks for a cause."""
        if not any(c.cause == cause.id for found in self.changes.values() for c in found):
            return []
        seen = {"signal": "release.change", "where": {"label": f"^{re.escape(cause.id)}$"}}
        asked = [{"playbook": list(cause.playbooks)}] if cause.playbooks else []
        because = "a default that bears on it changed between the two releases"
        return [Indicator(when={"all": [seen, *asked]}, strength="weak", group="release", because=because)]

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        out: list[Question] = []
        for file, raw in yaml_files("questions"):
            out.extend(build(Question, file, f"entry {i + 1}", item) for i, item in enumerate(raw or []))
        return tuple(out)

    @cached_property
    def _stated(self) -> dict[str, list[Indicator]]:
        """Weak indicators that the questions' answers add to causes."""
        out: dict[str, list[Indicator]] = {}
        for question in self.questions:
            for option in question.options:
                for against, causes in ((False, option.for_), (True, option.against)):
                    for cause in causes:
                        made = Indicator(
                            when={"signal": f"stated.{question.id}", "equals": option.key},
                            strength="weak", against=against, because=f"you said: {option.text}",
                        )  # fmt: skip
                        out.setdefault(cause, []).append(made)
        return out

    @cached_property
    def playbooks(self) -> dict[str, Playbook]:
        out: dict[str, Playbook] = {}
        for file, raw in yaml_files("trees"):
            book = build(Playbook, file, str((raw or {}).get("id", "?")), raw)
            if book.id in out:
                raise CatalogueError(file, book.id, "declared twice")
            self.files[book.id] = file
            out[book.id] = book
        return out

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """What users call things: an idea and its terms (see `route`)."""
        out: dict[str, tuple[str, ...]] = {}
        for file, raw in yaml_files("words"):
            for name, terms in (raw or {}).items():
                if not isinstance(terms, str):
                    raise CatalogueError(file, name, "expected terms, comma between")
                out[name] = (*out.get(name, ()), *(t for term in terms.split(",") if (t := term.strip())))
        return out

    @cached_property
    def spoken_zh(self) -> dict[str, dict[str, str]]:
        """Chinese for what the report says in English: `signals` by name, `reasons` by text, `phrases` by pattern."""
        out: dict[str, dict[str, str]] = {"signals": {}, "reasons": {}, "phrases": {}}
        for _file, raw in yaml_files("spoken"):
            for section, said in (raw or {}).items():
                out.setdefault(section, {}).update(set_natively(said or {}))
        return out

    @cached_property
    def variables(self) -> dict[str, Versions]:
        """Environment variables that not every release of their component reads, with the range that does."""
        out: dict[str, Versions] = {}
        for file, raw in yaml_files("versions"):
            for component, names in (raw or {}).items():
                for name, range_ in (names or {}).items():
                    if RANGE.fullmatch(str(range_)) is None:
                        raise CatalogueError(file, name, f"bad version range {range_!r}")
                    out[name] = {component: str(range_)}
        return out

    @cached_property
    def changes(self) -> dict[str, tuple[Change, ...]]:
        """Changed defaults by component."""
        out: dict[str, tuple[Change, ...]] = {}
        for file, raw in yaml_files("releases"):
            for component, items in (raw or {}).items():
                made = (
                    build(Change, file, f"{component} {n + 1}", {**item, "zh": set_natively(item.get("zh", ""))})
                    for n, item in enumerate(items or ())
                )
                out[component] = (*out.get(component, ()), *made)
        return out

    @cached_property
    def probes(self) -> dict[str, ProbeSpec]:
        out: dict[str, ProbeSpec] = {}
        for file, raw in yaml_files("probes"):
            for i, item in enumerate(raw or []):
                spec = build(ProbeSpec, file, f"entry {i + 1}", item)
                out[spec.name] = spec
        return out

    @cached_property
    def axes(self) -> dict[str, Any]:
        """Lexicon of what two compared runs can differ in (see `probes.generic`)."""
        out: dict[str, Any] = {}
        for _file, raw in yaml_files("axes"):
            out.update(raw or {})
        return out

    @cached_property
    def wording(self) -> dict[str, Any]:
        """The fitted words of `diagnose.wording`; empty where none is shipped."""
        place = files("diagnose.playbooks") / "wording" / "wording.json"
        loaded: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.is_file() else {}
        return loaded

    @cached_property
    def version(self) -> str:
        """A short hash of the catalogue's content."""
        found = hashlib.sha256()
        for place in (root / folder for root in _roots() for folder in _CONTENT):
            for item in sorted(place.iterdir(), key=lambda t: t.name) if place.is_dir() else ():
                if item.name.endswith((".yaml", ".json")):
                    found.update(item.read_bytes())
        return found.hexdigest()[:12]


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The one catalogue of this process."""
    return Catalogue()
