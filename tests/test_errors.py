"""Errors cross process boundaries: a worker's error that cannot be made again would hang its pool."""

from __future__ import annotations

import ast
import copy
import pickle
from importlib import import_module
from pathlib import Path

import pytest

from diagnose import errors
from diagnose.errors import CatalogueError, ParseError

ROOT = Path(__file__).parents[1]
BUILTIN = ("Exception", "ValueError", "RuntimeError", "OSError")


def _own() -> list[tuple[str, str]]:
    """Module and name of every exception class in the sources."""
    classes: dict[str, tuple[str, list[str]]] = {}
    for folder in ("diagnose", "probes", "evals"):
        for place in sorted((ROOT / folder).rglob("*.py")):
            text = place.read_text("utf-8")
            if (folder == "evals" and "states" in place.parts) or "(" not in text:
                continue
            module = ".".join(place.relative_to(ROOT).with_suffix("").parts)
            for line in (x for x in text.splitlines() if x.startswith("class ") and "(" in x):
                node = ast.parse(line + " ...").body[0] if line.endswith(":") else None
                if isinstance(node, ast.ClassDef):
                    bases = [ast.unparse(b).rpartition(".")[2] for b in node.bases]
                    classes[node.name] = (module if folder == "diagnose" else f"diagnose.{module}", bases)

    def raised(name: str) -> bool:
        return name in BUILTIN or (name in classes and any(map(raised, classes[name][1])))

    return sorted((module, name) for name, (module, _) in classes.items() if raised(name))


def _made(kind: type[Exception]) -> Exception:
    if issubclass(kind, CatalogueError):
        return kind("causes/x.yaml", "a.b", "no title", "write one")
    if issubclass(kind, ParseError):
        return kind("nccl_tests", "no table", 7)
    try:
        return kind("it broke", "try again")
    except TypeError:  # it has no hint of its own
        return kind("it broke")


def test_every_class_is_looked_at() -> None:
    assert len(_own()) > 12 and ("diagnose.errors", "ParseError") in _own()


@pytest.mark.parametrize(("module", "name"), _own(), ids=[name for _, name in _own()])
def test_an_error_survives_the_way_between_processes(module: str, name: str) -> None:
    first = _made(getattr(import_module(module), name))
    for again in (pickle.loads(pickle.dumps(first)), copy.copy(first)):
        assert type(again) is type(first) and str(again) == str(first) and again.args == first.args
        assert vars(again) == vars(first)


def test_the_hint_and_the_place_come_along() -> None:
    again = pickle.loads(pickle.dumps(CatalogueError("a.yaml", "x", "no title", "write one")))
    assert (again.file, again.where, again.problem, again.hint) == ("a.yaml", "x", "no title", "write one")
    assert again.exit_code == errors.EXIT_ERROR
