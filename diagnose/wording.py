"""A prior from words: which causes people describe in words like these.

A linear classifier over words and word pairs, fitted on this project's own cases and on the
catalogue's texts (`evals/wording.py`; never on what it is scored on). It shifts the prior of a
cause by a bounded amount, so that it orders hypotheses and settles near ties; it is no evidence,
and no verdict rests on it alone. Numbers are not words: no figure takes part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .document import Document
from .document_plain import plain

MOST_BYTES = 8192  # longer documents are logs, whose words are their program's, not the case's
TEMPERATURE = 0.1  # of the margins: log loss over cases whose source was left out (docs/notes.md, "Calibration")
GAIN = 0.5
LOWEST, HIGHEST = 0.0, 1.6
ENOUGH = 30  # known terms from which the shift counts in full: one sentence names the right cause in a fifth of cases

_WORD = re.compile(r"[a-z][a-z0-9]+")  # parts of an identifier are words of their own
_HAN = re.compile(r"[\u4e00-\u9fff]+")


def terms(text: str) -> set[str]:
    """Words, pairs of neighbouring words, and pairs of Chinese characters."""
    text = text.lower()
    words = _WORD.findall(text)
    out = set(words)
    out.update(f"{a} {b}" for a, b in pairwise(words))
    for run in _HAN.findall(text):
        out.update(run[i : i + 2] for i in range(len(run) - 1))
    return out


def text_of(symptom: str, docs: Iterable[Document]) -> str:
    """The symptom and every short text document."""
    parts = [symptom]
    for doc in docs:
        if doc.size <= MOST_BYTES and not doc.is_binary:
            parts.append("\n".join(line.text for line in plain(doc).lines()))
    return "\n".join(parts)


def scores(text: str, model: Mapping[str, Any]) -> dict[str, float]:
    """Margin of every cause, as `margins`."""
    return margins(sorted(t for t in terms(text) if t in model["terms"]), model)


def margins(known: Sequence[str], model: Mapping[str, Any]) -> dict[str, float]:
    """Margin of every cause: ``bias + sum over known terms of idf * weight / norm``; {} where no term is known.

    Args:
        model: ``causes``; ``bias`` of each; ``terms``: term -> [idf, number of a cause, hundredfold weight, …], where
            small weights are left out.
    """
    table = model["terms"]
    norm = math.sqrt(sum(table[t][0] ** 2 for t in known))
    if not norm:
        return {}
    out = list(model["bias"])
    for term in known:
        idf, *weights = table[term]
        for number, weight in zip(weights[::2], weights[1::2], strict=True):
            out[number] += idf * weight / (100 * norm)
    return dict(zip(model["causes"], out, strict=True))


def shifts(text: str, model: Mapping[str, Any]) -> dict[str, float]:
    """Log-odds by which the words shift the prior of each cause, within [0, 1.6]: never against, less if few."""
    known = sorted(t for t in terms(text) if t in model["terms"]) if model else []
    got = margins(known, model) if known else {}
    if not got:
        return {}
    top = max(got.values())
    odds = {cause: math.exp((s - top) / TEMPERATURE) for cause, s in got.items()}
    whole = sum(odds.values())
    heard = min(1.0, len(known) / ENOUGH)
    out: dict[str, float] = {}
    for cause, value in odds.items():
        raw = GAIN * (math.log(max(value / whole, 1e-9)) + math.log(len(odds)))
        out[cause] = round(heard * max(LOWEST, min(HIGHEST, raw)), 3)
    return out
