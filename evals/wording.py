"""Fit the wording prior: ``python -m diagnose.evals.wording -o playbooks/wording/wording.json [PATH…]``.

Learns from the catalogue's texts and the cases of the given paths (default: this project's own
cases); needs scikit-learn (extra `dev`). Cases to be scored must not be among what was learnt from.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from diagnose.catalogue import Catalogue, catalogue
from diagnose.wording import scores, terms

from .case import Case, load, own_cases, shared

Sample = tuple[set[str], str]
SEEN = 3  # samples that a term must stand in
SOFTNESS = 1.5
LEAST = 0.06  # smaller weights are left out: a third of the size, the same answers (docs/notes.md)
FOLDS = 5


def texts(cat: Catalogue) -> list[Sample]:
    """What the catalogue itself says about each cause."""
    out: list[Sample] = []
    for cause in cat.causes.values():
        parts = [cause.title, cause.definition, cause.mechanism, cause.fix.text, *cause.cues]
        parts += [i.because for i in cause.indicators]
        if cause.zh is not None:
            parts += [cause.zh.title, cause.zh.definition, cause.zh.mechanism]
        out.append((terms(" ".join(parts)), cause.id))
        out.append((terms(" ".join(str(i.when) for i in cause.indicators).replace(".", " ")), cause.id))
    return out


def samples(cases: Iterable[Case]) -> list[Sample]:
    """Cases that name a cause."""
    return [(terms(c.text), c.key.label) for c in cases if c.key.verdict != "inconclusive"]


def fit(found: Sequence[Sample]) -> dict[str, Any]:
    """One linear support vector machine a cause, over terms seen in at least three samples."""
    from scipy.sparse import csr_matrix
    from sklearn.svm import LinearSVC

    seen = Counter(t for words, _ in found for t in words)
    kept = sorted(t for t, n in seen.items() if n >= SEEN)
    place = {t: i for i, t in enumerate(kept)}
    idf = [math.log((len(found) + 1) / (seen[t] + 0.5)) for t in kept]
    rows, columns, values = [], [], []
    for n, (words, _) in enumerate(found):
        known = sorted(place[t] for t in words if t in place)
        norm = math.sqrt(sum(idf[k] ** 2 for k in known)) or 1.0
        rows += [n] * len(known)
        columns += known
        values += [idf[k] / norm for k in known]
    matrix = csr_matrix((values, (rows, columns)), shape=(len(found), len(kept)))
    machine = LinearSVC(C=SOFTNESS, random_state=0).fit(matrix, [cause for _, cause in found])
    table: dict[str, list[float]] = {}
    for term, weights in zip(kept, machine.coef_.T, strict=True):
        strong = [(n, round(100 * float(w))) for n, w in enumerate(weights) if abs(w) >= LEAST]
        if strong:
            table[term] = [round(idf[place[term]], 2), *(x for pair in strong for x in pair)]
    bias = [round(float(b), 3) for b in machine.intercept_]
    return {"causes": [str(c) for c in machine.classes_], "bias": bias, "terms": table}


def hits(model: dict[str, Any], cases: Iterable[Case]) -> tuple[int, int, int]:
    """``(first right, in the first three, all)`` by words alone."""
    first = three = n = 0
    for case in cases:
        if case.key.verdict == "inconclusive":
            continue
        got = scores(case.text, model)
        ranked = sorted(got, key=lambda c: (-got[c], c))[:3]
        n += 1
        first += bool(ranked) and ranked[0] in case.key.accepted
        three += any(r in case.key.accepted for r in ranked)
    return first, three, n


class _Folds:
    """Models of the words, each fitted without a fifth of the sources that the shipped one learnt from."""

    @cached_property
    def cases(self) -> list[Case]:
        place = shared("incidents")
        return [*own_cases(), *(load(place) if place is not None else ())]

    @cached_property
    def fold(self) -> dict[str, int]:
        """Source -> fold."""
        return {source: n % FOLDS for n, source in enumerate(sorted({c.source for c in self.cases}))}

    def without(self, source: str) -> dict[str, Any] | None:
        """The model without a source and its fold, or None if nothing was learnt from it."""
        return self.model(self.fold[source]) if source in self.fold else None

    @cache  # noqa: B019 (one object a process)
    def model(self, left: int) -> dict[str, Any]:
        """The model without one fold."""
        rest = [c for c in self.cases if self.fold[c.source] != left]
        return fit([*texts(catalogue()), *samples(rest)])


_FOLDS = _Folds()


@contextmanager
def unlearnt(source: str) -> Iterator[None]:
    """While this lasts, the engine's words are those of the other sources: a case is not scored with its own."""
    model = _FOLDS.without(source) if source else None
    cat = catalogue()
    shipped = cat.wording
    try:
        cat.wording = shipped if model is None else model
        yield
    finally:
        cat.wording = shipped


def by_words(source: str, text: str) -> list[tuple[str, float]]:
    """Causes by the words alone, likeliest first, learnt from other sources than the case's."""
    model = (_FOLDS.without(source) if source else None) or catalogue().wording
    got = scores(text, model) if model else {}
    return sorted(got.items(), key=lambda item: (-item[1], item[0]))


def main(argv: Sequence[str] | None = None) -> None:
    """Fit and write, or cross-validate by file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("paths", nargs="*", type=Path)
    args = parser.parse_args(argv)
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in own_cases():
        groups["own"].append(case)
    for path in args.paths:
        groups[path.name].extend(load(path))
    base = texts(catalogue())
    for name, cases in groups.items():
        others = [c for other, found in groups.items() if other != name for c in found]
        first, three, n = hits(fit([*base, *samples(others)]), cases)
        print(f"{name}: words alone, fitted on the rest: top-1 {first}/{n}, top-3 {three}/{n}")
    if args.output:
        model = fit([*base, *samples(c for cases in groups.values() for c in cases)])
        args.output.write_text(json.dumps(model, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
