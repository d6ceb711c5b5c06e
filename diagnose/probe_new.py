"""`diagnose probe new NAME`: a plugin that works, to start from: reader, collector, signal, cause, test.

The files are written as they are here; nothing is generated later. See docs/extending.md.
"""

from __future__ import annotations

import re
from pathlib import Path

from .errors import EXIT_OK, UsageError

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "diagnose-{dashed}"
version = "0.1.0"
description = "The {name} probe for diagnose"
requires-python = ">=3.11"
dependencies = ["gpu-diagnose"]

[project.entry-points."diagnose.probes"]
{name} = "{module}:readers"

[project.entry-points."diagnose.collectors"]
{name} = "{module}:collectors"

[project.entry-points."diagnose.causes"]
{name} = "{module}"

[tool.setuptools.package-data]
"{module}" = ["*/*.yaml"]
"""

_MODULE = '''\
"""The {name} probe: what touches the machine, and what reads its output, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from diagnose.collect import Capture, Collected, Collector
from diagnose.document import Document
from diagnose.host import Host
from diagnose.models import Fact
from diagnose.plugin import API

DIAGNOSE_API = API
TOOL = "{name}-tool"  # the program that is run
_LINE = re.compile(r"{name} errors: (\\d+)")


class {klass}Reader:
    """Bytes to facts, pure: the same for a live run and for a pasted log."""

    name = "{name}"
    needles = (b"{name} errors:",)  # any of these bytes in a document makes `parse` run

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One `{name}.errors` a line that says so."""
        for line in doc.lines():
            if hit := _LINE.search(line.text):
                yield Fact("{name}.errors", float(hit[1]), "count", spans=(doc.span(line),), status=doc.status)


def _ready(host: Host) -> str | None:
    return None if host.find(TOOL) else f"{{TOOL}} is not installed here"


def _collect(host: Host) -> Iterator[Collected]:
    yield Capture.of("{name}.status", host.run([TOOL, "--status"], timeout=10))


def readers() -> Iterable[{klass}Reader]:
    """Entry point `diagnose.probes`."""
    return [{klass}Reader()]


readers.DIAGNOSE_API = API  # type: ignore[attr-defined]


def collectors() -> Iterable[Collector]:
    """Entry point `diagnose.collectors`."""
    return [Collector("{name}.status", _ready, _collect)]
'''

_SIGNALS = "{name}.errors: {{what: errors that {name} counts, type: number, unit: count, better: lower}}\n"

_PROBES = """\
- name: {name}.status
  what: what {name} counts
  footprint: read
  seconds: 1
  command: {name}-tool --status
  provides: [{name}.errors]
  enable: {name}-tool on the machine
  expect: zero, and not rising
"""

_CAUSES = """\
- id: plugin.{name}_errors
  layer: plugin
  severity: medium
  title: {klass} counts errors
  definition: The {name} device reports errors while the job runs.
  mechanism: Say here in three to five sentences how such errors make a job slow.
  playbooks: [slow-allreduce]
  indicators:
    - {{when: {{signal: {name}.errors, above: 100}}, strength: decisive, because: "the counter is far above zero"}}
  fix: {{text: "Say what to change", risk: "what may go wrong", rollback: "how to undo it"}}
  verify: The counter stays where it is over a run.
"""

_TEST = '''\
"""The {name} plugin: its reader reads, its cause is found, a healthy reading raises no alarm."""

from __future__ import annotations

import {module}
from diagnose.document import Document
from diagnose.gather import gather


def facts(text: str) -> list[tuple[str, object]]:
    doc = Document.of("sample.txt", text.encode())
    return [(f.signal, f.value) for f in {module}.{klass}Reader().parse(doc)]


def test_the_reader_reads_and_quotes() -> None:
    doc = Document.of("sample.txt", b"x\\n{name} errors: 412\\n")
    (fact,) = {module}.{klass}Reader().parse(doc)
    assert (fact.signal, fact.value) == ("{name}.errors", 412.0)
    assert fact.spans[0].quote == "{name} errors: 412"


def test_other_text_is_left_alone() -> None:
    assert facts("nothing of the kind") == []
    assert gather([Document.of("a.txt", b"nothing")]).facts is not None
'''


def new(name: str, output: str) -> int:
    """Write the plugin into a new folder; returns the exit status.

    Raises:
        UsageError: the name does not fit a module, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name):
        raise UsageError(f"{name!r} is no name for a probe", "lower-case letters, digits and _, e.g. my_nic")
    root = Path(output or f"diagnose-{name.replace('_', '-')}")
    if root.exists():
        raise UsageError(f"{root} exists", "name another folder with -o")
    module = f"diagnose_{name}"
    words = {
        "name": name, "dashed": name.replace("_", "-"), "module": module,
        "klass": "".join(p.capitalize() for p in name.split("_")),
    }  # fmt: skip
    files = {
        "pyproject.toml": _PYPROJECT, f"{module}/__init__.py": _MODULE, f"{module}/signals/{name}.yaml": _SIGNALS,
        f"{module}/probes/{name}.yaml": _PROBES, f"{module}/causes/{name}.yaml": _CAUSES,
        f"tests/test_{name}.py": _TEST,
    }  # fmt: skip
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.format(**words), "utf-8")
    print(f"{root}: a reader, a collector, a signal, a probe, a cause and a test\n  pip install -e {root} pytest")
    print(f"  pytest {root}\n  diagnose doctor")
    return EXIT_OK
