"""SARIF 2.1.0: a rule is a cause or a check, a region is the line of the capture that says so."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .document import printable
from .models import Severity, SpanRef
from .report_file import Loaded
from .report_item import Item

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVEL: dict[Severity, str] = {"high": "error", "medium": "warning", "low": "note", "info": "note"}
MOST_PLACES = 50


def sarif(loaded: Loaded) -> dict[str, Any]:
    """A log with one run. What is no finding (healthy, not decided) is a notification of the run."""
    names = list(dict.fromkeys(i.name for i in loaded.inputs))
    index = {name: n for n, name in enumerate(names)}
    ids = list(dict.fromkeys(item.id for item in loaded.standing))
    driver: dict[str, Any] = {"name": "diagnose", "version": loaded.version}
    if loaded.standing:
        known = {item.id: item for item in reversed(loaded.standing)}
        driver["rules"] = [_rule(known[i]) for i in ids]
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "invocations": [_invocation(loaded, index)],
        "results": [_result(item, loaded, ids.index(item.id), index) for item in loaded.single],
    }
    if loaded.inputs:
        run["artifacts"] = _artifacts(loaded, names)
    if loaded.report is not None:
        run["properties"] = {"symptom": printable(loaded.report.symptom), "playbook": loaded.report.playbook,
                             "verdict": loaded.report.verdict, "confidence": loaded.report.confidence}  # fmt: skip
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def uri(name: str) -> str:
    """A capture's name as a relative reference; what stands before ``!`` is the archive."""
    return quote(name.lstrip("/") or "input", safe="/!")


def _rule(item: Item) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": item.id,
        "shortDescription": {"text": item.title or item.id},
        "defaultConfiguration": {"level": LEVEL[item.severity]},
    }
    if item.because:
        rule["fullDescription"] = {"text": item.because}
    told = [item.fix, item.risk and f"Risk: {item.risk}", item.undo and f"Undo: {item.undo}",
            item.verify and f"Check: {item.verify}"]  # fmt: skip
    if any(told):
        rule["help"] = {"text": "\n".join(t for t in told if t)}
    return rule


def _result(item: Item, loaded: Loaded, rule: int, index: dict[str, int]) -> dict[str, Any]:
    said = [loaded.by_id[i] for i in item.evidence if i in loaded.by_id]
    places = []
    for evidence in said:
        for span in evidence.spans[:3]:
            places.append(_place(span, printable(evidence.statement or evidence.signal), index))
    proof = "; ".join(printable(e.statement) for e in said[:3] if e.statement)
    title = item.title or item.id
    result: dict[str, Any] = {
        "ruleId": item.id,
        "ruleIndex": rule,
        "kind": "fail",
        "level": LEVEL[item.severity],
        "message": {"text": f"{title}. {proof}" if proof else title},
        "properties": {"evidence": list(item.evidence)},
    }
    if item.confidence is not None:
        result["properties"]["confidence"] = item.confidence
    if item.nodes:
        name = item.nodes[0]
        place = places[0] if places else {"message": {"text": proof or title}}
        places = [place | {"logicalLocations": [{"name": name, "fullyQualifiedName": name, "kind": "resource"}]}]
        result["message"]["text"] = proof or f"{name}: {title}"
    if places:
        result["locations"] = places[:1]
    if places[1:MOST_PLACES]:
        result["relatedLocations"] = [place | {"id": n} for n, place in enumerate(places[1:MOST_PLACES], 1)]
    return result


def _place(span: SpanRef, message: str, index: dict[str, int]) -> dict[str, Any]:
    artifact: dict[str, Any] = {"uri": uri(span.capture)}
    if span.capture in index:
        artifact["index"] = index[span.capture]
    first, last = span.bytes
    region: dict[str, Any] = {"snippet": {"text": printable(span.quote)}}
    if span.line >= 1:
        region["startLine"] = span.line
    if 0 <= first <= last:
        region |= {"byteOffset": first, "byteLength": last - first}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}, "message": {"text": message}}


def _artifacts(loaded: Loaded, names: list[str]) -> list[dict[str, Any]]:
    sums = {i.name: i.sha256 for i in loaded.inputs}
    out: list[dict[str, Any]] = []
    for name in names:
        item: dict[str, Any] = {"location": {"uri": uri(name)}}
        if known := sums[name]:
            item["hashes"] = {"sha-256": known}
        out.append(item)
    return out


def _invocation(loaded: Loaded, index: dict[str, int]) -> dict[str, Any]:
    """Whether it worked, what it could not read, and the verdict where that is no finding."""
    notes: list[dict[str, Any]] = []
    if not loaded.standing:
        notes.append({"level": "note", "message": {"text": printable(loaded.headline)}})
    for item in loaded.inputs:
        if item.sha256 is None:
            place = {"physicalLocation": {"artifactLocation": {"uri": uri(item.name), "index": index[item.name]}}}
            text = f"not read: {printable(item.reason or 'no reason given')}"
            notes.append({"level": "warning", "message": {"text": text}, "locations": [place]})
    worked = bool(loaded.fleet.nodes) if loaded.fleet else not loaded.inputs or any(i.sha256 for i in loaded.inputs)
    out: dict[str, Any] = {"executionSuccessful": worked}
    if notes:
        out["toolExecutionNotifications"] = notes
    return out
