"""JUnit XML: a test case for every cause or check that was looked at, so that a pipeline shows it like a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .answer import quoted, where
from .audit_models import Audit
from .document import printable
from .fleet_models import Fleet
from .models import InputRef, Report
from .report_file import Loaded
from .report_item import Item

# what XML 1.0 cannot hold, even escaped
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(loaded: Loaded) -> str:
    """The document. Findings fail, what was ruled out or holds passes, what could not be decided is skipped.

    A finding for information passes, with what it says; an input or a node that could not be read is an error.
    """
    if loaded.fleet is not None:
        name, cases, seconds = "diagnose.fleet", list(_nodes(loaded, loaded.fleet)), 0.0
    elif loaded.report is not None:
        name, cases = f"diagnose.{loaded.report.playbook}", list(_causes(loaded, loaded.report))
        seconds = loaded.report.stats.seconds
    else:
        assert loaded.audit is not None
        name, cases = "diagnose.audit", list(_checks(loaded, loaded.audit))
        seconds = loaded.audit.stats.seconds
    cases += [_unread(item) for item in loaded.inputs if item.sha256 is None]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(c.find("failure") is not None for c in cases)),
        "errors": str(sum(c.find("error") is not None for c in cases)),
        "skipped": str(sum(c.find("skipped") is not None for c in cases)),
        "time": f"{seconds:.3f}",
    }
    root = Element("testsuites", {"name": "diagnose"} | {k: v for k, v in counts.items() if k != "skipped"})
    suite = SubElement(root, "testsuite", {"name": _text(name), **counts})
    suite.extend(cases)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _text(text: str) -> str:
    """Text that XML can hold and a terminal shows as it is."""
    return "\n".join(printable(line) for line in _ILLEGAL.sub("\ufffd", text).split("\n"))


def _case(suite: str, name: str) -> Element:
    return Element("testcase", {"classname": _text(suite), "name": _text(name), "time": "0"})


def _failed(case: Element, item: Item, loaded: Loaded) -> None:
    lines = [f"{item.id} ({item.severity})", item.title]
    for ident in item.evidence:
        if known := loaded.by_id.get(ident):
            lines.append(f"{known.id} {where(known)}: {known.statement}  {quoted(known)}".rstrip())
    lines += [f"{label}: {value}" for label, value in (("fix", item.fix), ("risk", item.risk), ("check", item.verify))
              if value]  # fmt: skip
    if item.severity == "info":
        SubElement(case, "system-out").text = _text("\n".join(lines))
        return
    failure = SubElement(case, "failure", {"message": _text(item.title or item.id), "type": _text(item.severity)})
    failure.text = _text("\n".join(lines))


def _unread(item: InputRef) -> Element:
    case = _case("diagnose.input", item.name)
    SubElement(case, "error", {"message": _text(item.reason or "not read"), "type": "unread"})
    return case


def _nodes(loaded: Loaded, fleet: Fleet) -> Iterator[Element]:
    """Every node that was read, then each finding on each node."""
    for node in fleet.nodes:
        yield _case("diagnose.fleet", node.name)
    for item in loaded.single:
        case = _case(f"diagnose.fleet.{item.nodes[0]}", item.id)
        _failed(case, item, loaded)
        yield case


def _skipped(case: Element, reason: str) -> None:
    SubElement(case, "skipped", {"message": _text(reason)})


def _causes(loaded: Loaded, report: Report) -> Iterator[Element]:
    suite = f"diagnose.{report.playbook}"
    verdict = _case(suite, "verdict")
    if report.verdict == "inconclusive":
        _skipped(verdict, loaded.headline)
    else:
        SubElement(verdict, "system-out").text = _text(loaded.headline)
    yield verdict
    for item in loaded.standing:
        case = _case(suite, item.id)
        _failed(case, item, loaded)
        yield case
    for ruled in report.ruled_out:
        case = _case(suite, ruled.cause)
        SubElement(case, "system-out").text = _text(f"ruled out: {ruled.because}")
        yield case
    for checked in report.checked:
        yield _case(suite, checked.what)
    for gap in report.unavailable:
        case = _case(suite, f"probe {gap.probe}")
        _skipped(case, gap.reason)
        yield case


def _checks(loaded: Loaded, audit: Audit) -> Iterator[Element]:
    found = {item.id: item for item in loaded.standing}
    for check in audit.checks:
        case = _case(f"diagnose.audit.{check.group}", check.id)
        if check.id in found:
            _failed(case, found.pop(check.id), loaded)
        elif check.status != "passed":
            _skipped(case, f"{check.status.replace('_', ' ')}: {check.reason or 'no reading'}")
        yield case
    for item in found.values():  # a finding whose check is not listed is still a finding
        case = _case("diagnose.audit", item.id)
        _failed(case, item, loaded)
        yield case
