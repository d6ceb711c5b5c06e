"""What the rules of all families share: a reading with its value, and an outcome from what was found."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, TypeVar

from ..models import Evidence
from ..predicates import UNKNOWN, Outcome

Reading = tuple[float, Evidence]  # as `Context.numbers` gives them; the unit is the signal's
MOST = 6  # pieces of evidence that one outcome cites
_Row = TypeVar("_Row", bound=tuple[Any, ...])


def lowest(readings: Iterable[_Row]) -> _Row:
    """The reading with the least value, whatever stands behind that; ValueError without any."""
    return min(readings, key=itemgetter(0))


def highest(readings: Iterable[_Row]) -> _Row:
    """The reading with the largest value, whatever stands behind that; ValueError without any."""
    return max(readings, key=itemgetter(0))


def outcome(hits: Iterable[Evidence], known: bool = False) -> Outcome:
    """True with this evidence; without any it is false where the readings were `known`, else unknown."""
    used = tuple(hits)[:MOST]
    return Outcome(True, used) if used else Outcome(False) if known else UNKNOWN
