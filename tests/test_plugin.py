"""A third-party package with a reader, a collector, signals, a mark, a cause and a playbook, as if built in."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from diagnose import catalogue, check, collect, doctor, engine, gather, live_run, plugin, triage
from diagnose.document import Document
from diagnose.errors import CatalogueError
from diagnose.route import route
from diagnose.verify import verify

DATA = Path(__file__).parent / "data" / "plugin"
CACHES = (plugin.installed, plugin.readers, catalogue.catalogue, collect.collectors, gather.scanner)
ENTRIES = [
    EntryPoint("acme", "acme_link:readers", "diagnose.probes"),
    EntryPoint("acme", "acme_link:collectors", "diagnose.collectors"),
    EntryPoint("acme", "acme_link", "diagnose.causes"),
]
SICK = b"acmectl status\nport 0  lanes 16/16  replays 0\nport 1  lanes 4/16  replays 3\n"
WELL = b"acmectl status\nport 0  lanes 16/16  replays 0\nport 1  lanes 16/16  replays 0\n"


def entries(monkeypatch: pytest.MonkeyPatch, *more: EntryPoint) -> None:
    found = [*ENTRIES, *more]
    monkeypatch.setattr(plugin, "entry_points", lambda group: [e for e in found if e.group == group])
    for cached in CACHES:
        cached.cache_clear()


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as pip would leave it: importable, with its entry points."""
    monkeypatch.syspath_prepend(str(DATA))
    importlib.invalidate_caches()
    entries(monkeypatch)
    yield
    monkeypatch.undo()
    sys.modules.pop("acme_link", None)
    for cached in CACHES:
        cached.cache_clear()


def test_everything_that_a_plugin_brings_is_used() -> None:
    words = "the acme link between my cards is slow"
    assert route(catalogue.catalogue(), words) == "acme-link-slow"
    sick = [Document.of("status.txt", SICK)]
    got = engine.report(words, sick)
    assert (got.verdict, got.playbook, got.findings[0].cause) == ("cause", "acme-link-slow", "acme.lanes_down")
    assert got.findings[0].confidence >= 0.8
    assert [step.step for step in got.path] == ["lanes"]
    assert got.inputs[0].recognised_as == "acmectl"
    assert not verify(got.model_dump(mode="json", by_alias=True), sick), (
        "derived facts of a plugin verify as built-in ones do"
    )
    assert "port 1" in got.answer["en"].short + got.answer["en"].long
    well = engine.report(words, [Document.of("status.txt", WELL)])
    assert well.verdict != "cause" and not well.findings
    mark = engine.report(words, [Document.of("job.log", b"[host1] acme: port 1 retrained at x4\n")])
    assert mark.evidence[0].signal == "acme.mark.retrain"
    assert mark.next_probes[0].probe == "acme.status", "a strong sign alone is open, and its own probe decides"
    assert "acme.status" in collect.collectors()


def test_a_rule_that_nobody_wrote_is_one_line_with_file_and_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(DATA / "acme_link", tmp_path / "acme_link")
    place = tmp_path / "acme_link/causes/acme.yaml"
    text = place.read_text()
    more = "    - {when: {python: nvlink_unevenn}, strength: weak, because: it is uneven}\n"
    place.write_text(text.replace("  indicators:\n", "  indicators:\n" + more))
    sys.modules.pop("acme_link", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    entries(monkeypatch)
    with pytest.raises(CatalogueError, match=r"acme\.yaml: acme\.lanes_down: no predicate nvlink_unevenn") as got:
        engine.report("the acme link is slow", [Document.of("status.txt", SICK)])
    assert got.value.hint == "did you mean nvlink_uneven?"


def test_what_was_recorded_is_kept_where_the_judgement_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    live, kept = object(), list[object]()

    def fails(*_: object) -> None:
        raise CatalogueError("acme.yaml", "acme.lanes_down", "no predicate nobody")

    monkeypatch.setattr(live_run, "prepare", lambda *_: live)
    monkeypatch.setattr(live_run, "finish", lambda run, complete: kept.append((run, complete)))
    monkeypatch.setattr(triage, "investigate", fails)
    monkeypatch.setattr(triage, "_piped", lambda: None)
    reach = triage.Reach(allow="read")
    with pytest.raises(CatalogueError):
        triage.run(["slow"], [], reach=reach, lang="en", format_="text", fail_on="never", ask=False, verbose=False)
    assert kept == [(live, False)]


def test_its_chinese_is_spoken() -> None:
    got = engine.report("acme link 慢", [Document.of("status.txt", SICK)], langs=("zh",))
    assert got.findings[0].cause == "acme.lanes_down" and "AcmeLink 端口有 lane 掉线" in got.answer["zh"].long


def test_the_catalogue_with_it_is_sound_and_doctor_is_content() -> None:
    assert not [line for line in check.check_all(catalogue.catalogue()) if "acme" in line]
    ok, text = doctor._plugins()
    assert ok, text


def test_a_cause_is_less_than_forty_lines_of_data() -> None:
    assert len((DATA / "acme_link/causes/acme.yaml").read_text().splitlines()) < 40


def test_plugins_that_do_not_load_are_left_out_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = ("diagnose.probes", "diagnose.collectors", "diagnose.causes")
    values = ("no_such_module:readers", "json:loads", "json")
    entries(monkeypatch, *(EntryPoint(f"broken {value}", value, group) for group in groups for value in values))
    ok, text = doctor._plugins()
    assert not ok
    for group in groups:
        for value in values:
            assert f"{group}: broken {value}:" in text
    assert "acme.lanes_down" in catalogue.catalogue().causes and "acme.status" in collect.collectors()
