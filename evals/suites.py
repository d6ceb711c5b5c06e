"""Where cases come from: incident files, our own synthetic cases, captures with known states, ablations.

Only this package reads answer keys; the engine gets a symptom and documents, nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from diagnose.document import Document
from diagnose.errors import UsageError
from diagnose.inputs import open_inputs
from diagnose.models import Report

from .scoring import HEALTHY, Key

SUITES = ("cases", "held", "incidents", "captures", "ablation", "citations")
DERIVED = ("ablation", "citations")  # made from the pasted cases of the other suites
_QUICK = 24  # cases a suite under --quick
_QUICK_BYTES = 2 << 20  # larger captures are left out there


@dataclass(frozen=True)
class Case:
    """One question with its evidence and its key.

    Attributes:
        texts: ``(name, text)`` of pasted artifacts. paths: files and folders instead of texts.
        group: cases of one group share a source. status: taint of the documents.
    """

    id: str
    symptom: str
    key: Key
    texts: tuple[tuple[str, str], ...] = ()
    paths: tuple[Path, ...] = ()
    group: str = ""
    status: tuple[str, ...] = ("provided",)

    def documents(self) -> list[Document]:
        """The evidence as the engine gets it."""
        if self.paths:
            docs, _ = open_inputs([str(p) for p in self.paths], None)
            return list(docs)
        return [Document.of(name, text.encode(), self.status) for name, text in self.texts]

    @property
    def text(self) -> str:
        """Symptom and artifacts, for baselines."""
        return "\n".join([self.symptom, *(t for _, t in self.texts)])


def parse_incident(raw: dict[str, Any], status: tuple[str, ...] = ("provided",)) -> Case:
    """A case from an incident's JSON, or from an entry of a cases file."""
    root = raw["root_cause"]
    label = str(root["label"])
    verdict = str(raw.get("verdict") or ("healthy" if label == HEALTHY else "cause"))
    key = Key(label, tuple(root.get("also_accept") or ()), verdict, tuple(raw.get("evidence") or ()))
    texts = tuple((f"{i}-{a['kind']}.txt", str(a["text"])) for i, a in enumerate(raw.get("artifacts") or []))
    source = raw.get("source")
    group = f"{source.get('repo', '')}/{source.get('thread', '')}" if isinstance(source, dict) else ""
    return Case(str(raw["id"]), str(raw.get("symptom") or ""), key, texts, group=group, status=status)


def load(path: Path) -> list[Case]:
    """Cases of a file or a folder: incident JSON, a YAML list of cases, or a KEY.json beside captures.

    Raises:
        UsageError: the file is none of these.
    """
    if path.is_dir():
        if (path / "KEY.json").is_file():
            return captures(path)
        found = sorted([*path.glob("*.json"), *path.glob("*.yaml")])
        if not found:
            raise UsageError(f"no cases in {path}", "incident *.json, cases *.yaml, or captures with a KEY.json")
        return [case for item in found for case in load(item)]
    if not path.is_file():
        raise UsageError(f"no such file or folder: {path}")
    if path.name == "KEY.json":
        return captures(path.parent)
    try:
        if path.suffix == ".yaml":
            return _listed(path.read_text("utf-8"))
        return [parse_incident(json.loads(path.read_text("utf-8")))]
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as err:
        raise UsageError(f"{path} is no case: {err}") from err


def _listed(text: str) -> list[Case]:
    return [parse_incident(raw, ("recorded", "simulated")) for raw in yaml.safe_load(text) or []]


def own_cases(name: str = "cases") -> list[Case]:
    """Synthetic cases shipped with the package: `cases`, or `held`, which nothing is tuned or fitted on."""
    folder: Traversable = files("diagnose.evals") / name
    if not folder.is_dir():
        return []
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [case for item in found for case in _listed(item.read_text("utf-8"))]


def captures(root: Path) -> list[Case]:
    """Captures of known state: KEY.json names files and folders below its own folder."""
    key = json.loads((root / "KEY.json").read_text("utf-8"))
    out = []
    for raw in key["cases"]:
        accept = [*raw["accept"], *(raw.get("also_accept") or [])]
        answer = Key(accept[0], tuple(accept[1:]), raw["verdict"])
        paths = tuple(root / name for name in raw["files"])
        out.append(Case(raw["id"], raw["symptom"], answer, paths=paths, group=raw["id"], status=("recorded",)))
    return out


def shared(name: str) -> Path | None:
    """A folder of cases beside the checkout or the working folder, if there is one."""
    checkout = Path(str(files("diagnose.evals"))).resolve().parent
    for base in (Path.cwd(), checkout):
        for place in (base / "shared" / name, base.parent / "shared" / name):
            if place.is_dir():
                return place
    return None


# ---------------------------------------------------------------- ablation


def ablate(case: Case) -> Case | None:
    """The case without the lines that hold the key's evidence; None if the key names no line of it."""
    texts = [(name, without(text, case.key.evidence)) for name, text in case.texts]
    if tuple(texts) == case.texts:
        return None
    return replace(case, id=f"{case.id} ablated", texts=tuple((n, t) for n, t in texts if t.strip()))


def ablate_cited(case: Case, got: Report) -> Case | None:
    """The case without the lines that a report's own verdict cites; the key is what the report said."""
    if got.verdict == "inconclusive" or not case.texts:
        return None
    if got.findings:
        ids, label = set(got.findings[0].evidence), got.findings[0].cause
    else:
        ids, label = {i for item in got.checked for i in item.evidence}, HEALTHY
    spans = [s for e in got.evidence if e.id in backing(got, ids) for s in e.spans]
    texts = []
    for name, text in case.texts:
        cuts = [s.bytes for s in spans if s.capture == name]
        texts.append((name, _drop(text.encode(), cuts).decode()))
    key = Key(label, (), "healthy" if label == HEALTHY else "cause")
    return replace(case, id=f"{case.id} uncited", key=key, texts=tuple((n, t) for n, t in texts if t.strip()))


def backing(got: Report, ids: set[str]) -> set[str]:
    """Evidence and everything it is derived from."""
    by_id = {e.id: e for e in got.evidence}
    out, queue = set(ids), list(ids)
    while queue:
        item = by_id.get(queue.pop())
        fresh = [i for i in item.inputs if i not in out] if item else []
        out.update(fresh)
        queue += fresh
    return out


def without(text: str, needles: Sequence[str]) -> str:
    """`text` without every line that a needle touches; a needle may run over several lines."""
    data, cuts = text.encode(), []
    for needle in (n.rstrip("\n").encode() for n in needles if n.strip()):
        at = data.find(needle)
        while at >= 0:
            cuts.append((at, at + len(needle)))
            at = data.find(needle, at + 1)
    return _drop(data, cuts).decode()


def _drop(data: bytes, cuts: Sequence[tuple[int, int]]) -> bytes:
    """Lines that no ``(first byte, byte after the last)`` touches."""
    kept, start = [], 0
    for line in data.split(b"\n"):
        end = start + len(line) + 1
        if not any(first < end and start < last for first, last in cuts):
            kept.append(line)
        start = end
    return b"\n".join(kept)


# ---------------------------------------------------------------- collecting


def collect(names: Sequence[str], paths: Iterable[Path], quick: bool) -> Iterator[tuple[str, list[Case]]]:
    """``(suite, cases)`` in order. Derived suites follow from the pasted cases of all others; for `citations` the
    whole cases are given, because what to take out depends on the answer to them.

    Raises:
        UsageError: an unknown suite, or a path without cases.
    """
    unknown = [n for n in names if n not in SUITES]
    if unknown:
        raise UsageError(f"no suite {unknown[0]!r}", f"suites: {', '.join(SUITES)}; a path is a suite of its own")
    pasted: list[Case] = []
    for path in paths:
        found = load(path)
        pasted += [c for c in found if c.texts]
        yield path.name, sample(found) if quick else found
    for name in names:
        found = _suite(name)
        if name in DERIVED:
            base = pasted or [*own_cases(), *_suite("incidents")]
            found = base if name == "citations" else [a for c in base if (a := ablate(c)) is not None]
        else:
            pasted += [c for c in found if c.texts]
        if found:
            yield name, sample(found) if quick else found


def _suite(name: str) -> list[Case]:
    if name in ("cases", "held"):
        return own_cases(name)
    place = shared(name) if name not in DERIVED else None
    return load(place) if place is not None else []


def sample(cases: Sequence[Case]) -> list[Case]:
    """A fixed small sample: by hash of the id, without large captures."""
    small = [c for c in cases if sum(_bytes(p) for p in c.paths) <= _QUICK_BYTES]
    chosen = {c.id for c in sorted(small, key=lambda c: hashlib.sha256(c.id.encode()).digest())[:_QUICK]}
    return [c for c in small if c.id in chosen]


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.is_file() else 0
