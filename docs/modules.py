"""Which module lies in which layer, and which imports that allows. `docs/architecture.md` prints it, a test holds it.

A module may import its own layer and those below. An import within a function counts as well: a layer is what a module
may know of, not when it is loaded. Imports for type checking only do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"diagnose": "", "probes": "probes.", "evals": "evals."}
APART = ("evals/states/", "probes/profiler_hook/")  # run by other Pythons, import nothing of ours


@dataclass(frozen=True)
class Layer:
    """`modules` are globs over names without ``diagnose.``, ``:`` is the package; the first layer that fits has one."""

    name: str
    holds: str
    modules: str


# From the bottom up.
LAYERS = (
    Layer(
        "ground",
        "Bytes, errors, units, models, masking: usable anywhere, know nothing of GPUs.",
        ": errors units lazy document document_* models mask mask_shapes masking arithmetic safe_json unpack "
        "inputs progress runner fanout hostlist config chinese linebreak shell",
    ),
    Layer(
        "knowledge",
        "The catalogue and what its conditions mean; hardware, floors and ceilings. No input, no output.",
        "entries catalogue plugin axes marks sieve predicates rules rules.* derive hardware shapes floors parallel "
        "limits limits_* past wording napkin concepts serving_roles",
    ),
    Layer(
        "machine",
        "Everything that touches a machine or a server: programs, files, HTTP, load.",
        "host collect endpoint nvml bench bench.wire bench.sse bench.ticks bench.records bench.target bench.schedule "
        "bench.drive bench.prompts bench.metrics bench.server bench.embedded",
    ),
    Layer(
        "probes",
        "Collectors, which use the machine, beside readers, which turn bytes into facts.",
        "probes probes.* scrapes",
    ),
    Layer(
        "engine",
        "Facts to verdict, one way, without input or output.",
        "gather salvage derivers derivers.* assess route playbook beside explain stages answer answer_* advice "
        "decision planner report engine verify said ask llm_check",
    ),
    Layer(
        "recordings",
        "Live runs and machines as files; the engine, asked again after each probe; the rules of the audit.",
        "cassette live intervene graph record microbench checks audit_rules audit_rules.* audit_models fleet_models "
        "practice_machine",
    ),
    Layer(
        "forms",
        "What people and programs read: screen, page, pictures, SARIF, JUnit, model.",
        "screen markdown report_excerpts report_file report_item report_labels report_page sarif junit pictures "
        "pictures.* audit_screen fleet_screen fold report_fleet catalogue_commands session llm llm_client llm_prompts",
    ),
    Layer("commands", "One module a command, and what only it needs.", "*"),
)
CLI = "cli"  # above all, imported by nothing
EXAMINER = "evals"  # knows all, and is known by nothing: the engine must not meet its own examiner


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def files() -> dict[str, Path]:
    """Name without ``diagnose.`` -> file."""
    out: dict[str, Path] = {}
    for folder, prefix in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if not relative.startswith(APART):
                parts = [p for p in path.relative_to(ROOT / folder).with_suffix("").parts if p != "__init__"]
                out[(prefix + ".".join(parts)).rstrip(".")] = path
    return out


def layer(name: str) -> int:
    """Index of the layer of a module; the command line and the examiner lie above all."""
    if name == CLI or name.split(".")[0] == EXAMINER:
        return len(LAYERS)
    return next(i for i, found in enumerate(LAYERS) if any(fnmatchcase(name or ":", m) for m in found.modules.split()))


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case) and not only_for_types(child):
            yield from walk(child)


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a module imports, by its syntax."""
    out: set[str] = set()
    inside = (f"diagnose.{name}" if name else "diagnose").split(".")
    if path.name != "__init__.py":
        inside.pop()
    for node in walk(parsed(path)):
        if isinstance(node, ast.Import):
            asked = [alias.name for alias in node.names]
        else:
            start = inside[: len(inside) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            asked = [f"{base}.{alias.name}" for alias in node.names]
            asked = [a if a.removeprefix("diagnose.") in known else base for a in asked]
        out |= {a.removeprefix("diagnose").removeprefix(".") for a in asked if a.split(".")[0] == "diagnose"}
    return {found for found in out if found in known and found != name}


def graph() -> dict[str, set[str]]:
    known = files()
    return {name: imports(name, path, known) for name, path in known.items()}


def wrong(found: dict[str, set[str]]) -> list[str]:
    """Imports that go up."""
    return [
        f"{name or 'diagnose'} ({layer_name(name)}) imports {used} ({layer_name(used)})"
        for name, targets in sorted(found.items())
        for used in sorted(targets)
        if layer(used) > layer(name)
        or (used.split(".")[0] == EXAMINER and name.split(".")[0] != EXAMINER)
        or used == CLI
    ]


def cycles(found: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or around: each group sorted; empty where no way leads back."""
    reached = {name: below(name, found) for name in found}
    knots = {tuple(sorted(o for o in reached[name] if name in reached[o])) for name in found}
    return [list(knot) for knot in sorted(knots) if knot]


def below(name: str, found: dict[str, set[str]]) -> set[str]:
    """All that a module imports, directly or through others; itself where that leads back to it."""
    out: set[str] = set()
    queue = list(found.get(name, ()))
    while queue:
        if (used := queue.pop()) not in out:
            out.add(used)
            queue += found.get(used, ())
    return out


def layer_name(name: str) -> str:
    index = layer(name)
    return LAYERS[index].name if index < len(LAYERS) else name.split(".")[0]


def listed() -> list[str]:
    """The map: a heading a layer, a line a module."""
    out: list[str] = []
    known = files()
    for index in reversed(range(len(LAYERS))):
        out += [f"### {index + 1}. {LAYERS[index].name}", "", LAYERS[index].holds, ""]
        for name, path in known.items():
            if layer(name) == index:
                told = (ast.get_docstring(parsed(path)) or "").split("\n\n")[0]
                out.append(f"- `{name or 'diagnose'}`: {' '.join(told.split())}")
        out.append("")
    return out[:-1]
