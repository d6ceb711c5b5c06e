"""What the user says on the command line, as `stated` facts: targets, model, GPU, tensor parallel size.

Targets are then held against the evidence: goodput from single requests where a trace or a detailed result has
them, otherwise the percentiles that a benchmark printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from . import hardware
from .document import Document
from .errors import ParseError, UsageError
from .gather import Gathered, matching
from .models import Evidence, Fact, Subject

METRICS = ("ttft", "tpot", "itl", "e2e")
_TARGET = re.compile(r"(ttft|tpot|itl|e2e|e2el|latency)\s*(?:=|<=|<|:)\s*(\d+(?:\.\d+)?)\s*(ms|s|us)?")
_TO_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, None: 1.0, "": 1.0}
_STATS = ("p99", "p95", "p90", "median", "p50", "mean")  # the strictest one that was printed is judged
_LEAST = 5


def targets(text: str) -> dict[str, float]:
    """Targets in ms from ``ttft=500ms,tpot=20ms``.

    Raises:
        UsageError: a part that is no target.
    """
    out: dict[str, float] = {}
    for part in filter(None, re.split(r"[,;\s]+", text.strip().lower())):
        hit = _TARGET.fullmatch(part)
        if hit is None or float(hit[2]) <= 0:
            raise UsageError(f"--slo does not know {part!r}", "for example --slo ttft=500ms,tpot=20ms,e2e=5s")
        name = "e2e" if hit[1] in ("e2el", "latency") else hit[1]
        out[name] = float(hit[2]) * _TO_MS[hit[3]]
    return out


def _stated(signal: str, value: str | float, unit: str | None, label: str | None, text: str) -> Fact:
    return Fact(signal, value, unit, Subject(label=label), (), f"you said: {text}", kind="stated", status=("stated",))


def facts(params: Mapping[str, str]) -> list[Fact]:
    """Stated facts of the options ``slo``, ``model``, ``gpu`` and ``tp``.

    Raises:
        UsageError: an option that makes no sense.
    """
    out = [
        _stated("serving.slo", value, "ms", name, f"{name.upper()} of at most {value:g} ms")
        for name, value in targets(params.get("slo", "")).items()
    ]
    gpu = params.get("gpu", "")
    if gpu and gpu != "auto":
        found, assumed = hardware.meant(gpu)
        name = found.name if found else gpu
        out.append(_stated("gpu.name", name, None, None, assumed or f"the GPU is {name}"))
    model = params.get("model", "")
    if model and not Path(model).exists():
        out.append(_stated("serving.model", model, None, None, f"the model is {model}"))
    tp = params.get("tp", "")
    if tp:
        out.append(_stated("serving.arg", tp, None, "tensor-parallel-size", f"tensor parallel size {tp}"))
    return out


def evidence_path(params: Mapping[str, str]) -> list[str]:
    """A model's config that was named is evidence like any other file."""
    path = Path(params.get("model", "") or "-")
    if path.is_dir():
        path = path / "config.json"
    return [str(path)] if params.get("model") and path.is_file() else []


def again(evidence: Iterable[Evidence]) -> list[Fact]:
    """The stated facts of a report, as they were."""
    return [
        Fact(e.signal, e.value, e.unit, e.subject, (), e.statement, kind="stated", status=tuple(e.status))
        for e in evidence
        if e.kind == "stated"
    ]


def add(gathered: Gathered, stated: Iterable[Fact]) -> None:
    """Put stated facts beside what was read, with what follows from the targets among them."""
    given = list(stated)
    gathered.facts.extend(given)
    asked = {f.subject.label or "": f for f in given if f.signal == "serving.slo"}
    wanted = {name: asked[name] for name in METRICS if name in asked}  # in one order, whatever was typed
    if wanted:
        gathered.facts.extend([*_goodput(gathered.documents.values(), wanted), *_margins(gathered.facts, wanted)])


def requests(doc: Document) -> list[dict[str, float]]:
    """Times of the single requests in a document, in ms, from the reader that knows its format."""
    for reader in matching(doc):
        read = getattr(reader, "requests", None)
        if read is None:
            continue
        try:
            rows: list[dict[str, float]] = read(doc)
        except ParseError:
            continue
        if len(rows) >= _LEAST:
            return rows
    return []


def _goodput(documents: Iterable[Document], wanted: Mapping[str, Fact]) -> Iterator[Fact]:
    """Share of the requests that meet every target, and each."""
    for doc in documents:
        if doc.is_binary:
            continue
        rows = [r for r in requests(doc) if wanted.keys() & r.keys()]
        held = [name for name in wanted if sum(name in r for r in rows) >= _LEAST]
        if not held:
            continue
        rows = [r for r in rows if all(name in r for name in held)]
        good = {name: [r[name] <= float(wanted[name].value or 0) for r in rows] for name in held}
        each = [all(marks) for marks in zip(*good.values(), strict=True)]
        inputs = tuple(wanted[name] for name in held)
        said = ", ".join(f"{n.upper()} of at most {float(wanted[n].value or 0):g} ms" for n in held)
        missed = ", ".join(f"{good[n].count(False)} miss {n.upper()}" for n in held if False in good[n])
        yield Fact(
            "serving.goodput", each.count(True) / len(each), "fraction", Subject(label="all targets"), kind="derived",
            formula="reader:requests", inputs=inputs, status=doc.status,
            statement=f"{each.count(True)} of {len(each)} requests in {doc.name} have {said}"
            + (f"; {missed}" if missed else ""),
        )  # fmt: skip


def _margins(given: list[Fact], wanted: Mapping[str, Fact]) -> Iterator[Fact]:
    """What a benchmark printed over its target, by the strictest statistic of each run."""
    for name, target in wanted.items():
        runs: dict[tuple[str, str], dict[str, Fact]] = {}
        told: list[float] = []
        for fact in given:
            if fact.signal == f"serving.client.{name}" and fact.spans and isinstance(fact.value, (int, float)):
                word, _, number = (fact.subject.label or "").partition(" ")
                runs.setdefault((fact.spans[0].capture, number), {}).setdefault(word.lower(), fact)
        for (place, run), stats in runs.items():
            stat = next((s for s in _STATS if s in stats), None)
            if stat is None:
                continue
            measured, most = float(stats[stat].value or 0), float(target.value or 1)
            if any(math.isclose(measured, m, rel_tol=0.01) for m in told):
                continue  # the same run, printed and as JSON
            told.append(measured)
            verdict = "met" if measured <= most else f"missed, {measured / most:.2g} times it"
            yield Fact(
                "serving.slo_margin", measured / most, "count", Subject(label=f"{name} {stat} {run}".strip()),
                kind="derived", formula="a / b", inputs=(stats[stat], target), status=stats[stat].status,
                statement=f"{stat} {name.upper()} {measured:,.5g} ms beside a target of {most:g} ms in {place}: "
                f"{verdict}",
            )  # fmt: skip
