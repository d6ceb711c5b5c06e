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
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import ValidationError

from .chinese import set_natively
from .entries import RANGE, Cause, Change, Data, Indicator, Mark, Playbook, ProbeSpec, Question, Signal, Versions
from .errors import CatalogueError
from .units import UNITS

T = TypeVar("T", bound="Data")
_CONTENT = ("signals", "marks", "causes", "trees", "probes", "axes", "questions", "wording", "versions", "releases")
AHEAD = frozenset(_CONTENT) - {"wording"} | {"words", "spoken"}  # what each run reads is parsed ahead

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


def listed(folder: str, model: type[T]) -> Iterator[tuple[str, T]]:
    """Entries with an id and Chinese texts, each with its file; the Chinese is set as Chinese is printed.

    Raises:
        CatalogueError: one breaks the contract.
    """
    for file, raw in yaml_files(folder):
        for i, item in enumerate(raw or []):
            ident = "?"
            if isinstance(item, dict):
                ident = item.get("id", ident)
                if "zh" in item:
                    item = {**item, "zh": set_natively(item["zh"])}
            yield file, build(model, file, f"entry {i + 1} ({ident})", item)


class Catalogue:
    """Everything in `playbooks/`, loaded lazily and checked once.

    Attributes:
        files: file of each cause and playbook that was loaded.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    @cached_property
    def marks(self) -> list[Mark]:
        """Lines that mean something wherever they stand, in the order of files.

        Raises:
            CatalogueError: a file breaks its contract.
        """
        out: list[Mark] = []
        for file, raw in yaml_files("marks"):
            for i, item in enumerate(raw or []):
                out.append(build(Mark, file, f"entry {i + 1}", item))
        return out

    @cached_property
    def signals(self) -> dict[str, Signal]:
        """Signals by name, declared in `signals/`, by a mark or by a question.

        Raises:
            CatalogueError: one is declared twice, or its unit is not in the closed list of `units`.
        """
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
        """Causes by id, with what questions and changed defaults add to their indicators.

        Raises:
            CatalogueError: one is declared twice, or a changed default names none.
        """
        out: dict[str, Cause] = {}
        for file, cause in listed("causes", Cause):
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
        """What only the user can answer."""
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
        """Trees by id.

        Raises:
            CatalogueError: one is declared twice.
        """
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
        """What users call things: an idea and its terms (see `route`).

        Raises:
            CatalogueError: the terms of an idea are no text.
        """
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
        """Environment variables that not every release of their component reads, with the range that does.

        Raises:
            CatalogueError: a range of versions is none.
        """
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
        """Probes by name; of two declarations the later holds, so that a plugin may replace one."""
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
