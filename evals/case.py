"""A case, and where cases are read from: incident files, our own synthetic ones, captures and recordings.

Only this package reads answer keys; the engine gets a symptom and documents, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from diagnose.cassette import read as read_cassette
from diagnose.catalogue import plain_yaml
from diagnose.document import Document
from diagnose.errors import UsageError
from diagnose.inputs import open_inputs

from .scoring import HEALTHY, Key

_QUICK = 24  # cases a suite under --quick
_QUICK_BYTES = 1 << 20  # larger captures are left out there
_QUICK_RECORDED = 5  # recordings there, which take the most time


@dataclass(frozen=True)
class Case:
    """One question with its evidence and its key.

    Attributes:
        texts: ``(name, text)`` of pasted artifacts. paths: files and folders instead of texts.
        group: cases of one group share a thread. status: taint of the documents.
        source: what wrote the case: words are fitted without that when it is scored.
        kind: what was changed, in a suite made from others.
    """

    id: str
    symptom: str
    key: Key
    texts: tuple[tuple[str, str], ...] = ()
    paths: tuple[Path, ...] = ()
    group: str = ""
    status: tuple[str, ...] = ("provided",)
    source: str = ""
    kind: str = ""

    def documents(self) -> list[Document]:
        """The evidence as the engine gets it."""
        docs, _ = open_inputs([str(p) for p in self.paths], None) if self.paths else ([], [])
        return [*docs, *(Document.of(name, text.encode(), self.status) for name, text in self.texts)]

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
            return [replace(c, source=family(path.name)) for c in _listed(path.read_text("utf-8"))]
        return [replace(parse_incident(json.loads(path.read_text("utf-8"))), source=path.parent.name)]
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as err:
        raise UsageError(f"{path} is no case: {err}") from err


def _listed(text: str) -> list[Case]:
    return [parse_incident(raw, ("recorded", "simulated")) for raw in plain_yaml(text) or []]


def own_cases(name: str = "cases") -> list[Case]:
    """Synthetic cases shipped with the package: `cases`, or `held`, which nothing is tuned or fitted on."""
    return [*_shipped(name)]


@lru_cache(maxsize=2)
def _shipped(name: str) -> tuple[Case, ...]:
    folder: Traversable = files("diagnose.evals") / name
    if not folder.is_dir():
        return ()
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return tuple(replace(c, source=family(i.name)) for i in found for c in _listed(i.read_text("utf-8")))


def family(name: str) -> str:
    """Files of one family share an author: ``serving_more_b.yaml`` is of ``serving``."""
    stem = name.removesuffix(".yaml")
    return "blind" if stem.startswith("blind") else re.sub(r"(_more)?(_[a-z])?$", "", stem)


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


def own_captures() -> list[Case]:
    """This project's own captures of known state; a checkout has them, the wheel does not."""
    folder = Path(str(files("diagnose.evals") / "captures"))
    return captures(folder) if (folder / "KEY.json").is_file() else []


def cassettes() -> list[Case]:
    """Recorded machines of known state, shipped with the package: KEY.yaml lists the zips beside it.

    An entry has `file`, `root_cause` (label, also_accept), `verdict` and `taint`; its `symptom` is the one that the
    recording holds unless it gives another.
    """
    folder = Path(str(files("diagnose.evals") / "cassettes"))
    key = folder / "KEY.yaml"
    if not key.is_file():
        return []
    out = []
    for raw in plain_yaml(key.read_text("utf-8")) or []:
        path, root = folder / str(raw["file"]), raw["root_cause"]
        answer = Key(str(root["label"]), tuple(root.get("also_accept") or ()), str(raw["verdict"]))
        symptom = str(raw.get("symptom") or read_cassette(path).get("symptom", ""))
        taint = ("recorded", *(raw.get("taint") or ()))
        out.append(Case(path.stem, symptom, answer, paths=(path,), group=path.stem, status=taint))
    return out


def shared(name: str) -> Path | None:
    """A folder of cases beside the checkout or the working folder, if there is one."""
    checkout = Path(str(files("diagnose.evals"))).resolve().parent
    for base in (Path.cwd(), checkout):
        for place in (base / "shared" / name, base.parent / "shared" / name):
            if place.is_dir():
                return place
    return None


def sample(cases: Sequence[Case], n: int = _QUICK) -> list[Case]:
    """A fixed small sample: by hash of the id, without large captures."""
    small = [c for c in cases if sum(_bytes(p) for p in c.paths) <= _QUICK_BYTES]
    small.sort(key=lambda c: hashlib.sha256(c.id.encode()).digest())
    chosen = {c.id for c in [c for c in small if not c.paths][:n] + [c for c in small if c.paths][:_QUICK_RECORDED]}
    return [c for c in cases if c.id in chosen]


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.is_file() else 0
