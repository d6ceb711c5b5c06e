"""From what the user typed to a playbook; no model, both languages."""

from __future__ import annotations

import re

from .catalogue import Catalogue


def route(cat: Catalogue, symptom: str) -> str:
    """The id of the playbook whose symptom patterns fit best (most patterns; then file order)."""
    best, score = "", 0
    for book in cat.playbooks.values():
        got = sum(bool(re.search(p, symptom, re.IGNORECASE)) for p in (*book.symptoms, *book.symptoms_zh))
        if got > score:
            best, score = book.id, got
    return best
