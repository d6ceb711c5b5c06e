"""The documentation says what is: generated pages are current, commands parse, links lead on, the tutorial runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from diagnose.catalogue import catalogue
from diagnose.cli import _run, app, arrange
from diagnose.route import route

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "reference")]
FENCE = re.compile(r"(<!-- not run -->\n)?```(\w*)\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current(generate: ModuleType) -> None:
    assert not generate.outdated(), "python docs/generate.py"


def test_every_variable_and_setting_that_the_code_reads_is_described(generate: ModuleType) -> None:
    from diagnose import config, graph, llm

    built = {"DIAGNOSE_LANG", "DIAGNOSE_FORMAT"} | {"LANGSMITH_TRACING", "LANGSMITH_TRACING_V2"}
    built |= {"LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"}
    assert generate.variables() | built == set(generate.VARIABLES)
    text = Path(str(graph.__file__)).read_text()
    assert all(name in text for name in built if name.startswith("LANG"))
    source = Path(str(llm.__file__)).read_text()
    keys = set(re.findall(r'user\.get\("(\w+)"', source)) | {"model", "base_url", "key_env"}
    assert {f"llm.{key}" for key in keys} | set(config.PRESENTATION) == set(generate.SETTINGS)


def test_no_module_imports_a_layer_above_it(generate: ModuleType) -> None:
    modules = generate.modules()
    found = modules.graph()
    assert len(found) > 300 and sum(map(len, found.values())) > 1000
    assert not modules.wrong(found), "up is not allowed; a new module is named in docs/modules.py"
    assert modules.wrong({"models": {"screen"}, "engine": {"evals.run"}, "live": {"cli"}, "screen": {"models"}}) == [
        "engine (engine) imports evals.run (evals)",
        "live (recordings) imports cli (cli)",
        "models (ground) imports screen (forms)",
    ]


def test_no_modules_import_each_other(generate: ModuleType) -> None:
    modules = generate.modules()
    assert not modules.cycles(modules.graph()), "what both need belongs below them"
    around = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}
    assert modules.cycles(around) == [["a", "b", "c"]]


def test_the_map_names_only_modules_that_exist(generate: ModuleType) -> None:
    modules = generate.modules()
    names = list(modules.files())
    for layer in modules.LAYERS:
        for pattern in layer.modules.split():
            assert any(fnmatchcase(name or ":", pattern) for name in names), pattern


# --- pages of the playbooks


@pytest.mark.parametrize("name", sorted(catalogue().playbooks))
def test_a_playbook_has_a_short_page_that_names_only_its_own(name: str) -> None:
    text = (DOCS / "howto" / f"{name}.md").read_text()
    assert 30 <= text.count("\n") <= 60
    for part in ("**When.**", "**Bring, or run on the host.**", "## Reading the answer", "## What it cannot show"):
        assert part in text
    own = {c.id for c in catalogue().causes.values() if name in c.playbooks}
    by_hand = re.sub(r"<!-- generated.*?<!-- end -->", "", text, flags=re.S)
    rows = [line.split("|")[1] for line in by_hand.splitlines() if line.startswith("| `")]
    compared = {cause for row in rows for cause in re.findall(r"`([\w.]+)`", row)}
    assert compared <= own, compared - own
    commands = list(typed(by_hand))
    assert len(commands) == 3
    symptoms = [c[1] for c in commands if len(c) > 1 and " " in c[1]]
    assert symptoms
    for words in symptoms:
        assert route(catalogue(), words) == name, words


# --- commands and links


def typed(text: str) -> Iterator[list[str]]:
    """Words of every `diagnose` command of a page's shell blocks."""
    for _, kind, block in FENCE.findall(text):
        if kind not in ("sh", "bash"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("'\\''", ""), comments=True)
            part: list[str] = []
            for word in [*words, ";"]:
                if word in ("|", "&&", ";", "||"):
                    if part[:1] == ["diagnose"]:
                        yield part
                    part = []
                else:
                    part.append(word)


@cache
def whole() -> Any:
    return get_command(app)


def understood(words: list[str]) -> None:
    """Parse a command line as the program would, without running it."""
    args = words[1:]
    if ">" in args:
        args = args[: args.index(">")]
    command = whole()
    if args[:1] == ["--version"]:
        return
    args = arrange(args) if args else ["triage"]
    while hasattr(command, "commands"):
        command = command.commands[args[0]]
        args = args[1:]
    command.make_context("diagnose", args)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in typed(page.read_text()):
        understood(words)


def test_every_link_leads_to_a_file() -> None:
    lost = []
    for page in [*PAGES, *(DOCS / "reference").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith("http") and not (page.parent / target).exists():
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert not lost


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        todo += [
            (page.parent / t).resolve()
            for t in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
            if not t.startswith("http")
        ]
    assert set(DOCS.rglob("*.md")) <= seen, {p.name for p in DOCS.rglob("*.md")} - {p.name for p in seen}


# --- the tutorial


def steady(text: str) -> list[str]:
    """Lines without what may move: ids of evidence, probabilities, spaces."""
    text = re.sub(r"\bE\d+\b", "E", re.sub(r"\b[01]\.\d\d\b", "p", text))
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_tutorial_runs_and_prints_what_it_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    ran = shown = 0
    printed = ""
    for skipped, kind, block in FENCE.findall((DOCS / "tutorial.md").read_text()):
        if kind == "sh":
            printed = ""
            if skipped or "machine.zip" in block:
                continue
            for line in block.splitlines():
                code = _run(shlex.split(line)[1:])
                out = capsys.readouterr()
                assert code in (0, 1, 2), out.err
                printed += out.out
                ran += 1
        elif printed:
            got = iter(steady(printed))
            for want in steady(block):
                if want != "…":
                    assert any(want in line for line in got), f"not (or not here) in the output: {want}"
                    shown += 1
    assert ran >= 4 and shown >= 20


def test_the_tutorials_other_blocks_name_what_exists() -> None:
    text = (DOCS / "tutorial.md").read_text()
    assert len(re.findall("<!-- not run -->", text)) == 5
    for cause in re.findall(r"\b(?:nccl|serving|cuda)\.[a-z][\w.]*[a-z]\b", text):
        assert cause in catalogue().causes or cause == "nccl.log" or cause == "nccl.conf", cause
    for path in re.findall(r"evals/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path
