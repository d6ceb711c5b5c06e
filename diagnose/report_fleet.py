"""A fleet's audit as findings: one for a check, for readings that stand apart, for a setting that differs."""

from __future__ import annotations

from collections.abc import Iterator

from .fleet_models import Fleet
from .models import CaptureRef, Evidence, InputRef, Severity, SpanRef, Subject
from .report_item import Item

MISSING = "expected, and not there"


def items(fleet: Fleet) -> tuple[list[Item], list[Evidence]]:
    """Findings, the worst first, each with the nodes it is about and what says so on each of them."""
    out: list[Item] = []
    told: list[Evidence] = []

    def add(ident: str, title: str, severity: Severity, rows: list[tuple[str, str, SpanRef | None]], fix: str) -> None:
        first = len(told)
        for number, (node, statement, span) in enumerate(rows, first + 1):
            told.append(_evidence(f"N{number}", ident, node, statement, span))
        out.append(
            Item(ident, title, severity, tuple(e.id for e in told[first:]), fix=fix, nodes=tuple(r[0] for r in rows))
        )

    if fleet.missing:
        rows: list[tuple[str, str, SpanRef | None]] = [(n, f"{n}: {MISSING}", None) for n in fleet.missing]
        add("fleet.missing", "Nodes that were expected are not there", "high", rows, "")
    for check in fleet.checks:
        title = check.title.get("en", check.check)
        rows = [(n, f"{n}: {title}", check.where.get(n)) for n in check.nodes]
        add(check.check, title, check.severity, rows, check.fix.get("en", ""))
    for signal in dict.fromkeys(o.signal for o in fleet.outliers):
        mine = [o for o in fleet.outliers if o.signal == signal]
        slow = any(o.slow for o in mine)
        title = f"{signal} {'is lower than on' if slow else 'stands apart from'} nodes with the same GPUs"
        rows = [
            (o.node, f"{o.node} {o.subject}: {o.value:g}{f' {o.unit}' if o.unit else ''}, median {o.median:g} of "
             f"{o.compared}" + (f"; {o.formula} = {o.deviations:g} > {o.needed:g}" if o.deviations is not None else ""),
             None)
            for o in mine
        ]  # fmt: skip
        add(f"fleet.apart.{signal}", title, "medium" if slow else "low", rows, "")
    for mixed in fleet.mixed:
        rows = [
            (n, f"{n}: {value[:80]}; {str(mixed.usual)[:80]} on {mixed.nodes} nodes", None)
            for value, names in mixed.others.items()
            for n in names
        ]
        subject = mixed.subject.removeprefix("label ")
        ident = ".".join(filter(None, ("fleet.mixed", mixed.signal, subject.replace(" ", "_"))))
        add(ident, f"{' '.join(filter(None, (mixed.signal, subject)))} is not the same on all nodes", "low", rows, "")
    return out, told


def silent(fleet: Fleet) -> Iterator[InputRef]:
    """Nodes that gave no result."""
    for failed in fleet.failed:
        yield InputRef(name=failed.name, sha256=None, recognised_as=None, reason=failed.reason)


def headline(fleet: Fleet) -> str:
    """The fleet in a sentence."""
    bad = sum(c.severity in ("high", "medium") for c in fleet.checks) + bool(fleet.missing)
    found = f"{bad} finding{'s' if bad > 1 else ''}" if bad else "nothing"
    said = [f"{len(fleet.nodes)} node{'s' * (len(fleet.nodes) != 1)} read: {found} of high or medium severity"]
    said += [f"slow: {', '.join(fleet.slow[:8])}"] if fleet.slow else []
    said += [f"readings that stand apart: {len(fleet.outliers)}"] if fleet.outliers else []
    said += [f"no result from {', '.join(f.name for f in fleet.failed[:8])}"] if fleet.failed else []
    said += [f"missing: {', '.join(fleet.missing[:8])}"] if fleet.missing else []
    return "; ".join(said)


def _evidence(ident: str, signal: str, node: str, statement: str, span: SpanRef | None) -> Evidence:
    made = Evidence(id=ident, kind="observed", signal=signal, subject=Subject(host=node), statement=statement)
    if span is not None:
        made.quote, made.spans = span.quote, [span]
        made.capture = CaptureRef(name=span.capture, sha256="", line=span.line, bytes=span.bytes)
    return made
