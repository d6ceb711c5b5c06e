"""Triage of documents in one call, without the graph: the same steps, for evaluation and embedding.

The graph (`diagnose.graph`) runs these functions as nodes; a test holds that both give one report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import route as routing
from .assess import Assessment, assess
from .catalogue import catalogue
from .document import Document
from .gather import Gathered, gather, number
from .limits import limits
from .models import Evidence, InputRef, Limit, Reference, Report
from .playbook import walk
from .predicates import Context
from .report import OFFLINE, build, finished
from .rules import registered
from .wording import shifts, text_of


@dataclass
class Triage:
    """Everything the explanation needs."""

    symptom: str
    inferred: bool
    playbook: str
    gathered: Gathered
    evidence: list[Evidence]
    limits: list[Limit]
    references: list[Reference]
    context: Context
    assessment: Assessment


def triage(symptom: str, docs: Iterable[Document]) -> Triage:
    """Assess `docs` for `symptom`. Pure: touches nothing but the documents."""
    return conclude(symptom, gather(docs))


def conclude(symptom: str, gathered: Gathered) -> Triage:
    """Assess what was gathered."""
    cat = catalogue()
    registered(cat)
    evidence = number(gathered)
    known, references = limits(evidence)
    inferred = not symptom.strip()
    asked = [routing.infer(evidence)] if inferred else routing.asked(cat, symptom, evidence)
    playbook = asked[0]
    if inferred and playbook in cat.playbooks:
        symptom = cat.playbooks[playbook].question
    ctx = Context(evidence, playbook, "" if inferred else symptom, known, gathered.recognised, frozenset(asked))
    ctx.wording = shifts(text_of("" if inferred else symptom, gathered.documents.values()), cat.wording)
    return Triage(symptom, inferred, playbook, gathered, evidence, known, references, ctx, assess(cat, ctx))


def report(
    symptom: str, docs: Iterable[Document], rejected: Iterable[InputRef] = (), langs: tuple[str, ...] = ("en",)
) -> Report:
    """The masked report of a triage."""
    return told(triage(symptom, docs), rejected, langs)


def told(got: Triage, rejected: Iterable[InputRef] = (), langs: tuple[str, ...] = ("en",)) -> Report:
    """The masked report of an assessment."""
    cat = catalogue()
    book = cat.playbooks.get(got.playbook)
    steps = walk(book, got.context) if book else []
    inputs = sorted([*got.gathered.inputs, *rejected], key=lambda i: i.name)
    made = build(
        cat, got.context, got.assessment, inputs, got.references, [s.record() for s in steps],
        [s.step.probe for s in steps if not s.known], got.symptom, got.inferred, langs, lambda probe: OFFLINE, {},
    )  # fmt: skip
    return finished(made, cat, got.gathered.documents.values())
