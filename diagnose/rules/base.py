"""What the rules of all families share: a reading with its value, and an outcome from what was found."""

from __future__ import annotations

from collections.abc import Iterable

from ..models import Evidence
from ..predicates import UNKNOWN, Outcome

Reading = tuple[float, Evidence]  # as `Context.numbers` gives them; the unit is the signal's
MOST = 6  # pieces of evidence that one outcome cites


def outcome(hits: Iterable[Evidence], known: bool = False) -> Outcome:
    """True with this evidence; without any it is false where the readings were `known`, else unknown."""
    used = tuple(hits)[:MOST]
    return Outcome(True, used) if used else Outcome(False) if known else UNKNOWN
