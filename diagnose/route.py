"""From what the user typed to a playbook; no model, both languages."""

from __future__ import annotations

import re
from collections import Counter

from .catalogue import Catalogue
from .models import Evidence


def route(cat: Catalogue, symptom: str) -> str:
    """The id of the playbook whose symptom patterns fit best (most patterns; then file order)."""
    best, score = "", 0
    for book in cat.playbooks.values():
        got = sum(bool(re.search(p, symptom, re.IGNORECASE)) for p in (*book.symptoms, *book.symptoms_zh))
        if got > score:
            best, score = book.id, got
    return best


def infer(evidence: list[Evidence]) -> str:
    """The playbook that the evidence itself asks for, when no symptom was given."""
    votes = Counter(book for item in evidence for book in _OF_SIGNAL.get(item.signal.split(".")[0], ()))
    return votes.most_common(1)[0][0] if votes else "environment"


_OF_SIGNAL = {
    "nccl": ("slow-allreduce",), "ucx": ("ucx-slow-path",), "nixl": ("kv-transfer-slow",), "serving": ("high-ttft",),
    "train": ("training-slow",), "cuda": ("kernel-slow",), "gpu": ("gpu-underutilized",), "oom": ("out-of-memory",),
}  # fmt: skip
