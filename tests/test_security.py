"""Promises of docs/security.md that no other test holds."""

# ruff: noqa: E501
from __future__ import annotations

import ast
import asyncio
import os
import re
import socket
import sqlite3
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from diagnose.evals import licences

from diagnose import graph
from diagnose.cassette import Cassette
from diagnose.cli import _run
from diagnose.document import Document
from diagnose.errors import ParseError
from diagnose.host import Host
from diagnose.live import Live
from diagnose.mcp_server import MOST_BODY, guarded
from diagnose.plugin import readers

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "evals" / "samples" / "nccl-p2p-disabled"
SOURCES = [p for d in ("diagnose", "probes") for p in sorted((ROOT / d).rglob("*.py"))]


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No way out, and an environment that asks for several."""
    tried: list[str] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(repr(args[1:]))
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "true")
    for name in ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "x" * 20)
    for name in ("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT", "OPENAI_BASE_URL", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tried


@pytest.mark.parametrize(
    "words",
    [["all-reduce is slow", "-e", str(SAMPLE), "--offline", "--no-input"], ["audit", "-e", str(SAMPLE)],
     ["ask", "why is decode memory-bound"], ["causes"], ["doctor"], ["practice", "--list"],
     ["all-reduce is slow", "--dry-run", "--no-input"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_no_socket_without_being_asked(words: list[str], cut_off: list[str]) -> None:
    assert _run(words) in (0, 1, 2)
    assert cut_off == []


FORBIDDEN = ("os.system", "os.popen", "tempfile.mktemp", "eval", "exec", "pickle.loads", "marshal.loads")


@cache
def _calls(source: Path) -> list[ast.Call]:
    text = source.read_text("utf-8")
    if not re.search("shell|subprocess|" + "|".join(name.rpartition(".")[2] for name in FORBIDDEN), text):
        return []  # none of the calls that are looked for
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_shell_and_no_guessable_temporary_file() -> None:
    wrong = set()
    for source in SOURCES:
        for call in _calls(source):
            shell = any(k.arg == "shell" for k in call.keywords)
            if shell or _name(call.func) in FORBIDDEN:
                wrong.add(f"{source.name} {_name(call.func)}")
    assert wrong <= {"sitecustomize.py exec"}, wrong  # the hook hands on to the program's own file of that name


def test_programs_start_in_few_places() -> None:
    """Whatever starts a program elsewhere than in the runner is looked at by hand, and named here."""
    users = {s.name for s in SOURCES for c in _calls(s) if _name(c.func).startswith("subprocess.")}
    assert users <= {"runner.py", "fleet_launch.py", "fleet_ray.py", "external.py"}, users


def test_workers_do_not_import_from_the_working_directory() -> None:
    for source in SOURCES:
        text = source.read_text("utf-8")
        assert not re.search(r'"python", "-m"|sys\.executable, "-m"', text), source.name


def test_state_is_the_owners_alone(tmp_path: Path) -> None:
    run = Live(Host(), Cassette.create(tmp_path / "run.cassette", ""), known={})
    saver = graph.checkpointer(graph.Session(live=run))
    saver.conn.close()
    run.cassette.mapper.save(tmp_path / "names.json")
    for name in ("run.sqlite", "names.json"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600


def test_a_view_in_an_export_runs_no_query(tmp_path: Path) -> None:
    place = tmp_path / "x.sqlite"
    with sqlite3.connect(place) as base:
        endless = 'WITH RECURSIVE n(start, "end") AS (SELECT 1, 2 UNION ALL SELECT start + 1, 3 FROM n) SELECT * FROM n'
        base.execute(f"CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS {endless}")
    base.close()
    reader = next(r for r in readers()[0] if r.name == "nsys_sqlite")
    with suppress(ParseError):
        assert list(reader.parse(Document.of("x", place.read_bytes()))) == []


@pytest.mark.parametrize(
    ("headers", "sizes", "status"),
    [([], [1], 401), ([(b"authorization", b"Bearer no")], [1], 401), ([(b"content-length", b"%d" % (MOST_BODY + 1))], [1], 413),
     ([(b"content-length", b"x")], [1], 413), ([], [MOST_BODY, 1], 0), ([(b"content-length", b"5")], [5], 0)],
)  # fmt: skip
def test_requests_are_bounded_and_need_the_token(headers: list[Any], sizes: list[int], status: int) -> None:
    sent: list[Any] = []
    read: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        read.extend([await receive() for _ in sizes])

    async def send(message: Any) -> None:
        sent.append(message)

    parts = iter([{"type": "http.request", "body": b"x" * n} for n in sizes])

    async def receive() -> Any:
        return next(parts)

    known = [] if status == 401 else [(b"authorization", b"Bearer 0123456789abcdef")]
    asyncio.run(guarded(app, "0123456789abcdef")({"type": "http", "headers": [*headers, *known]}, receive, send))
    if status:
        assert sent[0]["status"] == status and not read
    else:
        over = sum(sizes) > MOST_BODY
        assert (read[-1]["type"] == "http.disconnect") is over


def test_every_promise_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(tests/\w+\.py)`", (ROOT / "docs" / "security.md").read_text("utf-8")))
    assert len(named) > 10 and all((ROOT / n).is_file() for n in named), named


def test_lock_and_licences_know_every_direct_dependency() -> None:
    wanted = set(licences.direct())
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    table = (ROOT / "docs" / "licences.md").read_text("utf-8")
    assert wanted <= locked and all(f"| {name} | " in table for name in wanted)
    assert "://" not in (ROOT / "requirements.lock").read_text()
