"""What guessing would have reached on the same cases, each judged by the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .scoring import Baseline, Key, answer_of, brier_of, share


def majority(keys: Sequence[Key]) -> Baseline:
    """Always the labels most frequent among the other cases."""
    counts = Counter(answer_of(k) for k in keys)
    first, third, spreads = [], [], []
    for key in keys:
        rest = counts.copy()
        rest[answer_of(key)] -= 1
        total = max(len(keys) - 1, 1)
        best = sorted((c for c in rest if rest[c] > 0), key=lambda c: (-rest[c], c))
        first.append(bool(best) and best[0] in key.accepted)
        third.append(any(c in key.accepted for c in best[:3]))
        right = max((rest[c] / total for c in best if c in key.accepted), default=0.0)
        spreads.append((right, max((rest[c] / total for c in best if c not in key.accepted), default=0.0)))
    return Baseline("majority label", share(first), share(third), brier_of(spreads))


_WORD = re.compile(r"[A-Za-z_][\w.:/-]{1,40}|[一-鿿]")


def _terms(text: str) -> Counter[str]:
    return Counter(w.lower() for w in _WORD.findall(text))


def nearest(texts: Sequence[str], keys: Sequence[Key], groups: Sequence[str] = ()) -> Baseline:
    """Labels of the most similar other cases by TF-IDF; cases of one group do not help each other."""
    bags = [_terms(t) for t in texts]
    spread = Counter(term for bag in bags for term in bag)
    weight = {term: math.log((1 + len(bags)) / (1 + n)) + 1 for term, n in spread.items()}
    vectors: list[dict[str, float]] = []
    for bag in bags:
        raw = {t: (1 + math.log(c)) * weight[t] for t, c in bag.items()}
        norm = math.sqrt(sum(v * v for v in raw.values())) or 1.0
        vectors.append({t: v / norm for t, v in raw.items()})
    first, third, spreads = [], [], []
    for i, key in enumerate(keys):
        near = sorted(
            (-sum(v * vectors[j].get(t, 0.0) for t, v in vectors[i].items()), j)
            for j in range(len(keys))
            if j != i and (not groups or not groups[i] or groups[i] != groups[j])
        )
        labels = list(dict.fromkeys(answer_of(keys[j]) for _, j in near))[:3]
        hit = bool(labels) and labels[0] in key.accepted
        first.append(hit)
        third.append(any(c in key.accepted for c in labels))
        likeness = -near[0][0] if near else 0.0
        spreads.append((likeness, 0.0) if hit else (0.0, likeness))
    return Baseline("nearest neighbour", share(first), share(third), brier_of(spreads))


def words_only(ranked: Iterable[Sequence[tuple[str, float]]], keys: Sequence[Key]) -> Baseline:
    """The cause that the words alone make likeliest.

    Args:
        ranked: for each case ``(cause, score)``, best first, by words that have not learnt from its source.
    """
    first, third = [], []
    for best, key in zip(ranked, keys, strict=True):
        labels = [cause for cause, _ in best[:3]]
        first.append(labels[:1] != [] and labels[0] in key.accepted)
        third.append(any(label in key.accepted for label in labels))
    return Baseline("words only", share(first), share(third), None)
