"""CPU time of each step of a diagnosis over shipped cases, beside a plain reference for each.

``python benchmarks/steps.py [EVERY]`` takes every EVERY-th case and prints a JSON list of rows.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeVar

from diagnose.evals.case import Case
from diagnose.evals.suites import own_cases

from diagnose import engine
from diagnose import route as routing
from diagnose.answer import render
from diagnose.assess import assess
from diagnose.catalogue import Catalogue, catalogue
from diagnose.gather import gather, number
from diagnose.models import Report
from diagnose.verify import verify

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """Milliseconds of CPU a case: ours (median and 95th percentile) and the reference (median)."""

    name: str
    cases: int
    ms: float
    most: float
    reference: str
    reference_ms: float


REFERENCES = {
    "route": "the words of all questions sought in the symptom",
    "gather": "the words of the text counted",
    "assess": "the evidence to JSON and back",
    "explain": "the report to JSON and back",
    "render": "the report to indented JSON",
    "verify": "the report validated by its model",
}


class Clock:
    """CPU milliseconds by name, one a case."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def run(self, name: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        made = work()
        self.spent[name].append((time.process_time() - start) * 1e3)
        return made


def _steps(case: Case, cat: Catalogue, words: set[str], clock: Clock, beside: Clock) -> None:
    docs, text, symptom = case.documents(), case.text, case.symptom
    gathered = clock.run("gather", lambda: gather(docs))
    evidence = number(gathered)
    clock.run("route", lambda: routing.asked(cat, symptom, evidence))
    got = engine.conclude(symptom, gathered)
    clock.run("assess", lambda: assess(cat, got.context))
    made = clock.run("explain", lambda: engine.told(got))
    clock.run("render", lambda: render(made, cat, "en"))
    clock.spent["explain"][-1] -= clock.spent["render"][-1]  # which is part of it
    told = made.model_dump(mode="json", by_alias=True)
    clock.run("verify", lambda: verify(told, docs, again=False))
    beside.run("gather", lambda: Counter(re.findall(r"\w+", text)))
    beside.run("route", lambda: [word for word in words if word in symptom.lower()])
    beside.run("assess", lambda: json.loads(json.dumps([e.model_dump(mode="json") for e in evidence])))
    beside.run("explain", lambda: json.loads(json.dumps(told)))
    beside.run("render", lambda: json.dumps(told, indent=2))
    beside.run("verify", lambda: Report.model_validate(told))


def measured(every: int) -> list[Step]:
    """All steps over every so many cases; the first case warms up what is made once a process."""
    cat = catalogue()
    words = {word for book in cat.playbooks.values() for word in book.question.lower().split()}
    chosen = own_cases()[::every]
    clock, beside = Clock(), Clock()
    for case in [chosen[0], *chosen]:
        _steps(case, cat, words, clock, beside)
    return [
        Step(name, len(chosen), median(spent), sorted(spent)[int(0.95 * len(spent))], REFERENCES[name], median(other))
        for name in REFERENCES
        for spent, other in [(clock.spent[name][1:], beside.spent[name][1:])]
    ]


if __name__ == "__main__":
    print(json.dumps([asdict(step) for step in measured(int(sys.argv[1]) if sys.argv[1:] else 20)]))
