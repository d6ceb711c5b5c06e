"""Check a report against the captures it was made from, without trusting any of its fields.

Quotes are compared byte for byte; the captures are read again and every value, absence, limit and
reference must come out the same; formulas are recomputed from the report's own inputs; every id
that is mentioned must exist; answers are rendered again, or, where a model wrote them, every
numeral must be backed (`check_numerals`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from .arithmetic import check_numerals, close, evaluate
from .catalogue import catalogue
from .document import QUOTE_CHARS, Document
from .llm_check import Checker, backing, unbacked
from .models import Answer, Evidence, Limit, Report, SpanRef

Rerender = Callable[[dict[str, Any]], dict[str, Any]]
MASKED = "[masked:"
_STATED = ("stated",)


@dataclass(frozen=True)
class Mismatch:
    """One thing in a report that is not what the captures say."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def verify(
    report: dict[str, Any],
    documents: Iterable[Document] = (),
    rerender: Rerender | None = None,
    *,
    again: bool = True,
) -> list[Mismatch]:
    """Everything in `report` that does not hold.

    Args:
        report: a `diagnose.report/v1` as JSON data.
        documents: the captures, opened again (`inputs.open_inputs`).
        rerender: renders the answers again from the report's typed parts; None leaves that out.
        again: run the readers over the captures once more and compare every value.
    """
    try:
        parsed = Report.model_validate(report)
    except ValidationError as err:
        first = err.errors()[0]
        return [Mismatch(".".join(str(p) for p in first["loc"]) or "report", first["msg"])]
    docs = list(documents)
    out = [*_ids(parsed), *_inputs(parsed, docs), *_quotes(parsed, docs), *_arithmetic(parsed), *_advice(parsed),
           *_proposals(parsed, docs), *(_texts(parsed) if rerender is None else ())]  # fmt: skip
    if again and docs and _same_inputs(parsed, docs):
        out += _read_again(parsed, docs)
    if rerender is not None:
        out += _rendered(report, parsed, rerender)
    return out


# --- what needs no captures ------------------------------------------------------------------


def _mentions(report: Report) -> Iterator[tuple[str, list[str]]]:
    """Every list of evidence ids in a report, with where it stands."""
    for f in report.findings:
        yield f"finding {f.cause}", [*f.evidence, *f.against]
    named: dict[str, Iterable[Any]] = {
        "chain": report.chain, "ruled out": report.ruled_out, "red herring": report.red_herrings,
        "checked": report.checked, "limit": report.limits, "stage": report.stages, "advice": report.advice,
        "path": report.path,
    }  # fmt: skip
    for where, items in named.items():
        for n, item in enumerate(items, 1):
            yield f"{where} {n}", item.evidence
    for e in report.evidence:
        yield e.id, e.inputs


def _ids(report: Report) -> Iterator[Mismatch]:
    known: set[str] = set()
    for e in report.evidence:
        if e.id in known:
            yield Mismatch(e.id, "two evidences share this id")
        known.add(e.id)
    for where, ids in _mentions(report):
        for ident in ids:
            if ident not in known:
                yield Mismatch(where, f"refers to {ident}, which is not in the report")


def _arithmetic(report: Report) -> Iterator[Mismatch]:
    by_id = {e.id: e for e in report.evidence}
    for e in report.evidence:
        if e.kind != "derived":
            continue
        if not e.formula:
            yield Mismatch(e.id, "derived, and no formula")
            continue
        if e.formula.startswith("reader:") or isinstance(e.value, (str, bool)) or e.value is None:
            continue
        values = [by_id[i].value for i in e.inputs if i in by_id]
        if any(isinstance(v, (str, bool)) or v is None for v in values):
            yield Mismatch(e.id, f"formula {e.formula} over something that is no number")
            continue
        try:
            got = evaluate(e.formula, [float(v) for v in values if v is not None])
        except ValueError as err:
            yield Mismatch(e.id, f"formula {e.formula}: {err}")
            continue
        if not close(got, float(e.value)):
            yield Mismatch(e.id, f"{e.formula} gives {got:g}, the report says {e.value}")
    for n, limit in enumerate(report.limits, 1):
        where = f"limit {n}"
        if limit.limit is None:
            if limit.ratio is not None or not limit.reason:
                yield Mismatch(where, "no limit is known, so it needs a reason and no ratio")
        elif limit.ratio is None:
            continue
        elif limit.limit == 0 or not close(limit.measured / limit.limit, limit.ratio, _slack(limit)):
            yield Mismatch(where, f"{limit.measured:g} / {limit.limit:g} is not {limit.ratio:g}")


def _slack(limit: Limit) -> float:
    """How far a ratio may be from the quotient when ceiling and ratio were rounded for printing."""
    if not limit.limit or limit.ratio is None:
        return 0.0
    return _rounding(limit.ratio) + abs(limit.ratio) * _rounding(limit.limit) / abs(limit.limit)


def _rounding(value: float) -> float:
    """Half a unit of the last decimal that a figure was printed with."""
    text = repr(value)
    return 0.5 * 10.0 ** -len(text.partition(".")[2]) if "e" not in text else 0.0


def _advice(report: Report) -> Iterator[Mismatch]:
    """Every numeral of an advice is one of the figures it cites."""
    by_id = {e.id: e for e in report.evidence}
    for n, item in enumerate(report.advice, 1):
        cited = [by_id[i] for i in item.evidence if i in by_id]
        values = [(float(str(e.value)), e.unit or "count") for e in cited if _numeral(e.value)]
        for numeral in check_numerals(f"{item.change}; {item.predicted}; {item.rollback}", values):
            yield Mismatch(f"advice {n}", f"nothing it cites backs {numeral!r}")


def _numeral(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)


def _texts(report: Report) -> Iterator[Mismatch]:
    """Numerals of text that a model wrote, where the answer cannot be rendered again for comparison."""
    if not report.stats.llm:
        return
    values = backing(report)
    for lang, answer in report.answer.items():
        for name, text in answer.model_dump(exclude={"follow_ups"}).items():
            for numeral in check_numerals(str(text), values):
                yield Mismatch(f"answer {lang} {name}", f"nothing in the report backs {numeral!r}")
        for follow in answer.follow_ups:
            for numeral in check_numerals(follow.a, values):
                yield Mismatch(f"answer {lang} follow-up {follow.level}", f"nothing in the report backs {numeral!r}")


def _proposals(report: Report, docs: list[Document]) -> Iterator[Mismatch]:
    """A quote that a model pointed to stands in its capture."""
    by_name = {d.name: d for d in docs}
    for n, item in enumerate(report.proposals, 1):
        doc = by_name.get(item.where.rpartition(":")[0])
        if item.kind == "evidence" and doc is not None and item.value.encode() not in doc.read(0, doc.size):
            yield Mismatch(f"proposal {n}", f"is not in {doc.name}")


def _rendered(report: dict[str, Any], parsed: Report, rerender: Rerender) -> Iterator[Mismatch]:
    again = rerender(report)
    for lang, answer in report.get("answer", {}).items():
        made = again.get(lang, {})
        for name in sorted({*answer, *made}):
            if answer.get(name) == made.get(name):
                continue
            if parsed.stats.llm and name in ("short", "long"):  # in a model's words: each sentence must hold by itself
                checker = Checker.of(parsed, Answer.model_validate(made))
                for why in unbacked([str(answer.get(name))], checker):
                    yield Mismatch(f"answer {lang} {name}", why)
            else:
                yield Mismatch(f"answer {lang} {name}", "is not what the report's own parts render to")


# --- captures --------------------------------------------------------------------------------


def _same_inputs(report: Report, docs: list[Document]) -> bool:
    """Are all captures of the report at hand, so that it can be read again as a whole?"""
    have = {(d.name, d.sha256) for d in docs}
    return all((i.name, i.sha256) in have for i in report.inputs if i.sha256)


def _inputs(report: Report, docs: list[Document]) -> Iterator[Mismatch]:
    by_name = {d.name: d for d in docs}
    for item in report.inputs:
        doc = by_name.get(item.name)
        if item.sha256 and doc is not None:
            with doc.opener() as stream:
                got = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
            if got != item.sha256:
                yield Mismatch(item.name, "the capture has changed: its sha256 is not the report's")


def _quotes(report: Report, docs: list[Document]) -> Iterator[Mismatch]:
    shas = {i.name: i.sha256 for i in report.inputs}
    by_name = {d.name: d for d in docs}
    by_sha = {d.sha256: d for d in docs}
    wanted: dict[str, list[tuple[str, SpanRef]]] = {}
    missing: set[str] = set()
    for e in report.evidence:
        if e.kind == "observed" and not e.spans and MASKED[1:-1] not in (e.reason or ""):
            yield Mismatch(e.id, "observed, and no bytes say so")
        if e.spans:
            yield from _first(e, shas)
        for span in e.spans:
            doc = by_name.get(span.capture) or by_sha.get(shas.get(span.capture) or "")
            if doc is None:
                missing.add(span.capture)
            else:
                wanted.setdefault(doc.name, []).append((e.id, span))
    for name in sorted(missing):
        yield Mismatch(name, "this capture is not at hand (give it with --evidence), its quotes are not checked")
    for name, spans in wanted.items():
        doc = by_name[name]
        lines = _lines(doc, [s.bytes[0] for _, s in spans])
        for ident, span in spans:
            start, end = span.bytes
            if not 0 <= start < end <= doc.size or end - start > 4 * QUOTE_CHARS:
                yield Mismatch(ident, f"bytes {start}-{end} are not in {name}")
            elif doc.read(start, end).decode("utf-8", "replace") != span.quote:
                yield Mismatch(ident, f"the quote is not what stands at bytes {start}-{end} of {name}")
            elif span.line not in lines[start]:
                yield Mismatch(ident, f"the quote stands in line {min(lines[start])} of {name}, not {span.line}")


def _first(e: Evidence, shas: dict[str, str | None]) -> Iterator[Mismatch]:
    """The evidence's own quote and capture are those of its first span."""
    head = e.spans[0]
    if e.quote != head.quote:
        yield Mismatch(e.id, "its quote is not that of its first span")
    if e.capture is None:
        yield Mismatch(e.id, "has spans and no capture")
    elif (e.capture.name, e.capture.bytes, e.capture.line) != (head.capture, head.bytes, head.line):
        yield Mismatch(e.id, "its capture is not that of its first span")
    elif head.capture not in shas:
        yield Mismatch(e.id, f"quotes {head.capture}, which is not among the inputs")
    elif e.capture.sha256 != shas[head.capture]:
        yield Mismatch(e.id, f"its sha256 is not that of {head.capture}")


def _lines(doc: Document, starts: list[int]) -> dict[int, set[int]]:
    """Line numbers of offsets: by newlines, and, in UTF-16, as `Document.raw_lines` counts."""
    out: dict[int, set[int]] = {s: set() for s in starts}
    order = sorted(out)
    at = newlines = 0
    todo = iter(order)
    target = next(todo, None)
    for block in doc.chunks():
        while target is not None and target <= at + len(block):
            out[target].add(newlines + block.count(b"\n", 0, target - at) + 1)
            target = next(todo, None)
        newlines += block.count(b"\n")
        at += len(block)
    if doc.encoding != "utf-8":
        marks = iter(order)
        mark = next(marks, None)
        last = 1
        for number, start, _ in doc.raw_lines():
            while mark is not None and mark < start:
                out[mark].add(last)
                mark = next(marks, None)
            last = number
        while mark is not None:
            out[mark].add(last)
            mark = next(marks, None)
    return out


def _key(e: Evidence) -> tuple[str, ...]:
    where = e.capture.sha256 if e.capture and e.kind == "observed" else ""
    subject = {k: MASKED if isinstance(v, str) and MASKED in v else v for k, v in e.subject.model_dump().items()}
    return (e.kind, e.signal, json.dumps(subject), e.formula or "", where)


def _read_again(report: Report, docs: list[Document]) -> Iterator[Mismatch]:
    """Run the readers on the captures and compare values, absences, limits and references."""
    from . import said
    from .advice import advise
    from .gather import gather, number
    from .limits import limits
    from .stages import stages

    if report.tool.catalogue != catalogue().version:
        yield Mismatch("tool", "made with another catalogue; values are compared with what this one reads")
    names = {i.name for i in report.inputs if i.sha256}
    read = gather(d for d in docs if d.name in names)
    said.add(read, said.again(report.evidence))
    fresh = number(read)
    known, references = limits(fresh)
    parts = stages(fresh, known)
    advice, predicted = advise(fresh, known, [f.cause for f in report.findings])
    index: dict[tuple[str, ...], list[Evidence]] = {}
    for e in (*fresh, *predicted):
        index.setdefault(_key(e), []).append(e)
    for e in report.evidence:
        if e.kind in _STATED or MASKED in str(e.subject.label) or (isinstance(e.value, str) and MASKED in e.value):
            continue
        same = [f for f in index.get(_key(e), []) if _overlap(e, f)]
        if not same:
            yield Mismatch(e.id, f"reading the captures again gives no such {e.signal}")
        elif not any(_equal(e, f) for f in same):
            yield Mismatch(e.id, f"reading the captures again gives {_says(same[0])}, the report says {_says(e)}")
        elif e.statement not in {f.statement for f in same if _equal(e, f)} and MASKED not in e.statement:
            yield Mismatch(e.id, "its statement is not what its value says")
    yield from _compare("limit", report.limits, known)
    yield from _compare("reference", report.references, references)
    yield from _compare("stage", report.stages, parts)
    yield from _compare("advice", report.advice, advice)


def _compare(what: str, given: Iterable[Any], fresh: Iterable[Any]) -> Iterator[Mismatch]:
    again = [f.model_dump(mode="json") for f in fresh]
    for n, item in enumerate(given, 1):
        if item.model_dump(mode="json") not in again:
            yield Mismatch(f"{what} {n}", "is not what these captures give")


def _says(e: Evidence) -> str:
    parts = [str(e.value), e.unit or "", f"x{e.count}" if e.count > 1 else "", f"from {e.inputs}" if e.inputs else ""]
    return " ".join(filter(None, parts))


def _overlap(given: Evidence, fresh: Evidence) -> bool:
    if not given.spans or not fresh.spans:
        return True
    a, b = given.spans[0].bytes, fresh.spans[0].bytes
    return a[0] < b[1] and b[0] < a[1]


def _equal(given: Evidence, fresh: Evidence) -> bool:
    """Everything but the spans, which masking may have shortened and `_quotes` has compared."""
    names = ("value", "unit", "count", "searched", "inputs", "status")
    return all(getattr(given, n) == getattr(fresh, n) for n in names)
