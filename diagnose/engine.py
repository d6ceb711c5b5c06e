"""Triage of documents in one call, without the graph: gather, number, limits, assess."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .assess import Assessment, assess
from .catalogue import catalogue
from .document import Document
from .gather import Gathered, gather, number
from .limits import limits
from .models import Evidence, Limit, Reference
from .predicates import Context
from .route import route


@dataclass
class Triage:
    """Everything the explanation needs."""

    symptom: str
    playbook: str
    gathered: Gathered
    evidence: list[Evidence]
    limits: list[Limit]
    references: list[Reference]
    context: Context
    assessment: Assessment


def triage(symptom: str, docs: Iterable[Document], playbook: str = "") -> Triage:
    """Assess `docs` for `symptom`. Pure: touches nothing but the documents."""
    cat = catalogue()
    playbook = playbook or route(cat, symptom)
    gathered = gather(docs)
    evidence = number(gathered)
    known, references = limits(evidence)
    ctx = Context(evidence, playbook, symptom, known, gathered.recognised)
    return Triage(symptom, playbook, gathered, evidence, known, references, ctx, assess(cat, ctx))
