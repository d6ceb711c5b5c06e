"""Scores as text, as JSON (`diagnose.eval/v1`) and as JUnit XML; differences to an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from diagnose.models import Report

from .case import Case
from .scoring import Baseline, Calibration, Mean, Outcome, Scores, Share, share

SCHEMA = "diagnose.eval/v1"


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def said(got: Share, interval: bool = True) -> str:
    """`hits/n share [interval]`."""
    if not got.n:
        return "–"
    low, high = got.interval
    return f"{got.hits}/{got.n} {_pct(got.value)}" + (f" [{low:.0%}, {high:.0%}]" if interval else "")


# ---------------------------------------------------------------- text


def text(scores: Sequence[Scores], overall: Scores | None, verbose: bool = False) -> None:
    """Print tables to standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    shown = [*scores, *([overall] if overall is not None and len(scores) > 1 else [])]
    table = Table(title="Scores, with Wilson 95 % intervals", show_edge=False)
    table.add_column("")
    for item in shown:
        table.add_column(f"{item.suite} ({item.n})", justify="right")
    for name, cell in _rows(shown):
        table.add_row(name, *cell)
    console.print(table)
    for item in scores:
        _baselines(console, item)
        if item.suite == "generated":
            families = sorted({o.key.label.split(".")[0] for o in item.outcomes})
            rows = ((f, share(o.first for o in item.outcomes if o.key.label.startswith(f + "."))) for f in families)
            console.print(
                "generated, by family: " + ", ".join(f"{f} {said(s, False)}" for f, s in rows), highlight=False
            )
        for word, groups in (
            ("by kind", item.kinds),
            ("by language", item.languages if len(item.languages) > 1 else ()),
        ):
            if groups:
                told = ", ".join(f"{name} {said(got, False)}" for name, got in groups)
                console.print(f"{item.suite}, {word}: {told}", highlight=False)
    whole = overall or scores[0]
    bins = Table(title=f"Reliability of answered cases ({whole.suite})", show_edge=False)
    for head in ("stated", "mean", "right"):
        bins.add_column(head, justify="right")
    for row in whole.calibration.bins:
        bins.add_row(f"{row.low:.1f}–{row.high:.1f}", f"{row.mean:.2f}", said(row.right))
    console.print(bins)
    causes = Table(title=f"By cause ({whole.suite})", show_edge=False)
    for head in ("cause", "top-1", "top-3", "belief", "taken for"):
        causes.add_column(head, justify="left" if head in ("cause", "taken for") else "right")
    for line in whole.causes:
        if verbose or line.first.hits < line.first.n:
            taken = ", ".join(f"{c} {n}" for c, n in line.taken_for)
            first, third = (said(s, False) for s in (line.first, line.third))
            causes.add_row(line.cause, first, third, f"{line.belief:.2f}", taken)
    if causes.row_count:
        console.print(causes)
    misses = [o for s in scores for o in s.outcomes if (s.kept is None and not o.first) or o.error]
    for item_ in misses[: None if verbose else 20]:
        console.print(f"{item_.suite}: {item_.id}: {failure(item_)}", highlight=False, markup=False)


def _rows(shown: Sequence[Scores]) -> Iterator[tuple[str, list[str]]]:
    plain = [s if s.kept is None else None for s in shown]
    pick: tuple[tuple[str, Any], ...] = (
        ("top-1", lambda s: said(s.first)),
        ("top-3", lambda s: said(s.third)),
        ("verdict", lambda s: said(s.verdict)),
        ("confidently wrong (>= 0.8)", lambda s: said(s.wrong_and_sure)),
        ("alarms on healthy", lambda s: said(s.alarms)),
        ("answered", lambda s: said(s.answered)),
        ("right of answered", lambda s: said(s.right_of_answered)),
        ("key evidence cited", lambda s: averaged(s.cited)),
        ("quotes that are key evidence", lambda s: averaged(s.precise)),
        ("chain sound", lambda s: said(s.chained)),
        ("rightly left open", lambda s: said(s.rightly_open)),
        ("findings not in key, a case", lambda s: "–" if s.noise is None else f"{s.noise:.2f}"),
        ("Brier, all cases", lambda s: "–" if s.brier is None else f"{s.brier:.3f}"),
        ("Brier of the majority label", lambda s: _guessed(s.baselines)),
        ("Brier, answered", lambda s: "–" if s.calibration.brier is None else f"{s.calibration.brier:.3f}"),
        ("ECE, answered", lambda s: _error(s.calibration)),
    )
    for name, cell in pick:
        yield name, ["–" if s is None else cell(s) for s in plain]
    yield "cause kept without its lines", ["–" if s.kept is None else said(s.kept) for s in shown]
    yield "quotes verbatim", [said(s.verbatim, False) for s in shown]
    yield "reports without unsupported claim", [said(s.supported, False) for s in shown]
    yield "engine failed", [said(s.errors, False) for s in shown]
    yield "CPU s, slowest", [f"{s.seconds:.1f}, {s.slowest:.2f}" for s in shown]


def _guessed(baselines: Sequence[Baseline]) -> str:
    return next((f"{b.brier:.3f}" for b in baselines if b.name == "majority label" and b.brier is not None), "–")


def _error(got: Calibration) -> str:
    if got.ece is None:
        return "–"
    low, high = got.ece_interval
    return f"{got.ece:.3f} [{low:.3f}, {high:.3f}]"


def averaged(got: Mean) -> str:
    """`mean [interval]`."""
    if got.value is None:
        return "–"
    low, high = got.interval
    return f"{_pct(got.value)} [{low:.0%}, {high:.0%}]"


def _baselines(console: Any, item: Scores) -> None:
    for base in item.baselines:
        brier = "" if base.brier is None else f", Brier {base.brier:.3f}"
        console.print(
            f"{item.suite}: {base.name} would reach top-1 {said(base.first, False)}, "
            f"top-3 {said(base.third, False)}{brier}",
            highlight=False,
        )  # fmt: skip


def failure(item: Outcome) -> str:
    """What was wanted, and what came."""
    if item.error:
        return f"failed: {item.error}"
    wanted = item.key.verdict if item.key.verdict == "inconclusive" else item.key.label
    got = ", ".join(f"{c} {p:.2f}" for c, p in [*item.findings, *item.hypotheses][:3])
    return f"want {wanted}, got {item.verdict} ({got})"


def explain(case: Case, got: Report | None, outcome: Outcome) -> None:
    """Print one case with the evidence behind it; for development."""
    mark = "ok " if outcome.first else "3  " if outcome.third else "BAD"
    print(f"{mark} {case.id:45} {failure(outcome)}")
    for item in got.evidence if got is not None else ():
        print(f"      {item.id} {item.signal} {item.subject.label or ''} = {item.value} {item.unit or ''}")


# ---------------------------------------------------------------- JSON


def _share(got: Share) -> dict[str, Any]:
    low, high = got.interval
    return {"hits": got.hits, "n": got.n, "value": got.value, "interval": [round(low, 4), round(high, 4)]}


def _baseline(got: Baseline) -> dict[str, Any]:
    return {"name": got.name, "top1": _share(got.first), "top3": _share(got.third), "brier": got.brier}


def _mean(got: Mean) -> dict[str, Any]:
    return {"value": got.value, "interval": [round(x, 4) for x in got.interval], "n": got.n}


def _suite(item: Scores, cases: bool = True) -> dict[str, Any]:
    made: dict[str, Any] = {
        "suite": item.suite, "n": item.n, "top1": _share(item.first), "top3": _share(item.third),
        "verdict": _share(item.verdict), "confidently_wrong": _share(item.wrong_and_sure),
        "healthy_alarms": _share(item.alarms), "answered": _share(item.answered),
        "right_of_answered": _share(item.right_of_answered), "verbatim": _share(item.verbatim),
        "cited": _mean(item.cited), "precise": _mean(item.precise), "noise": item.noise,
        "rightly_open": _share(item.rightly_open), "supported": _share(item.supported), "chained": _share(item.chained),
        "languages": {name: _share(got) for name, got in item.languages},
        "kinds": {name: _share(got) for name, got in item.kinds}, "errors": _share(item.errors),
        "kept_without_evidence": _share(item.kept) if item.kept is not None else None,
        "brier": item.brier, "brier_answered": item.calibration.brier, "ece": item.calibration.ece,
        "ece_interval": [round(x, 4) for x in item.calibration.ece_interval],
        "reliability": [
            {"low": b.low, "high": b.high, "mean": round(b.mean, 4), "right": _share(b.right)}
            for b in item.calibration.bins
        ],
        "causes": [
            {"cause": c.cause, "top1": _share(c.first), "top3": _share(c.third), "belief": round(c.belief, 4),
             "taken_for": dict(c.taken_for)}
            for c in item.causes
        ],
        "baselines": [_baseline(b) for b in item.baselines],
        "seconds": round(item.seconds, 3), "slowest": round(item.slowest, 3),
    }  # fmt: skip
    if cases:
        made["cases"] = [_case(o) for o in item.outcomes]
    return made


def _case(item: Outcome) -> dict[str, Any]:
    return {
        "id": item.id, "want": sorted(item.key.accepted), "verdict": item.verdict, "confidence": item.confidence,
        "ranked": list(item.ranked[:5]), "top1": item.first, "top3": item.third, "belief": item.belief,
        "cited": item.cited, "precise": item.precise, "seconds": round(item.seconds, 3), "error": item.error or None,
        "kept": item.kept, "alarm": item.alarm, "wrong_and_sure": item.wrong_and_sure, "unsupported": item.unsupported,
        "kind": item.kind, "source": item.source, "taint": list(item.taint), "language": item.language,
    }  # fmt: skip


def as_json(scores: Sequence[Scores], overall: Scores | None, version: str, catalogue: str) -> dict[str, Any]:
    """The whole result, `diagnose.eval/v1`."""
    return {
        "schema": SCHEMA,
        "tool": {"version": version, "catalogue": catalogue},
        "suites": [_suite(s) for s in scores],
        "overall": _suite(overall, cases=False) if overall is not None else None,
    }


# ---------------------------------------------------------------- JUnit


def junit(scores: Sequence[Scores]) -> str:
    """JUnit XML: a wrong leading answer is a failure, an engine that failed is an error."""
    out = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    for item in scores:
        bad = [o for o in item.outcomes if not _passed(item, o) and not o.error]
        broken = [o for o in item.outcomes if o.error]
        out.append(
            f"<testsuite name={quoteattr(item.suite)} tests='{item.n}' failures='{len(bad)}' "
            f"errors='{len(broken)}' time='{item.seconds:.3f}'>"
        )
        for one in item.outcomes:
            head = f"<testcase classname={quoteattr(item.suite)} name={quoteattr(one.id)} time='{one.seconds:.3f}'"
            if _passed(item, one):
                out.append(f"{head}/>")
                continue
            kind = "error" if one.error else "failure"
            out.append(f"{head}><{kind} message={quoteattr(failure(one))}>{escape(failure(one))}</{kind}></testcase>")
        out.append("</testsuite>")
    out.append("</testsuites>")
    return "\n".join(out)


def _passed(suite: Scores, item: Outcome) -> bool:
    return not item.error and (item.first if suite.kept is None else not item.kept)


# ---------------------------------------------------------------- comparison


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What changed since an earlier run: scores, then single cases, worse ones first."""
    before = {s["suite"]: s for s in old.get("suites", [])}
    for suite in new["suites"]:
        was = before.get(suite["suite"])
        if was is None:
            yield f"{suite['suite']}: new"
            continue
        for name in ("top1", "top3", "confidently_wrong", "healthy_alarms"):
            a, b = was[name], suite[name]
            if (a["hits"], a["n"]) != (b["hits"], b["n"]):
                yield f"{suite['suite']}: {name} {a['hits']}/{a['n']} -> {b['hits']}/{b['n']}"
        then = {c["id"]: c for c in was.get("cases", [])}
        both = [(then[c["id"]], c) for c in suite.get("cases", []) if c["id"] in then]
        for word, wanted in (("worse", True), ("better", False)):
            for a, b in both:
                if a["top1"] is wanted and b["top1"] is not wanted:
                    yield f"{suite['suite']}: {word}: {b['id']}: {_lead(a)} -> {_lead(b)}"
        gone = sorted(set(then) - {c["id"] for c in suite.get("cases", [])})
        if gone:
            yield f"{suite['suite']}: {len(gone)} cases are gone: {', '.join(gone[:3])}"


def _lead(case: dict[str, Any]) -> str:
    return f"{(case['ranked'] or ['nothing'])[0]} {case['belief']:.2f}"
