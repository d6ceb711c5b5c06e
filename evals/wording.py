"""Fit the wording prior: ``python -m diagnose.evals.wording -o playbooks/wording/wording.json [PATH…]``.

Learns from the catalogue's texts and the cases of the given paths (default: this project's own
cases). Cases to be scored must not be among them; `cross` scores each file with a model of the others.
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

from .suites import Case, load, own_cases, shared

Sample = tuple[set[str], str]


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
    """Weights of terms seen in at least three samples."""
    seen = Counter(t for words, _ in found for t in words)
    idf = {t: math.log((len(found) + 1) / (n + 0.5)) for t, n in seen.items() if n >= 3}
    of: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for words, cause in found:
        known = [t for t in words if t in idf]
        norm = math.sqrt(sum(idf[t] ** 2 for t in known)) or 1.0
        for term in known:
            of[cause][term] += idf[term] / norm
    table: dict[str, tuple[float, dict[str, float]]] = {t: (round(v, 3), {}) for t, v in sorted(idf.items())}
    sums: dict[str, float] = {}
    for cause, weights in sorted(of.items()):
        for term, weight in weights.items():
            table[term][1][cause] = round(weight, 3)
        sums[cause] = round(sum(weights.values()), 3)
    return {"terms": table, "sums": sums}


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
    """Models of the words, each fitted without one source of the cases that the shipped one learnt from."""

    @cached_property
    def cases(self) -> list[Case]:
        place = shared("incidents")
        return [*own_cases(), *(load(place) if place is not None else ())]

    @cached_property
    def texts(self) -> list[Sample]:
        return texts(catalogue())

    @cache  # noqa: B019 (one object a process)
    def without(self, source: str) -> dict[str, Any] | None:
        """The model without a source, or None if nothing was learnt from it."""
        rest = [c for c in self.cases if c.source != source]
        return fit([*self.texts, *samples(rest)]) if len(rest) < len(self.cases) else None


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
