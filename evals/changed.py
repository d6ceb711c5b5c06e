"""Which cases the suites of changed ones consist of: by a seed, so many of each kind, from cases that are right.

A change says something only about a case that is right without it, so the unchanged case is asked first.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence

from diagnose.models import Report

from . import joined
from .case import Case
from .mutations import FOLLOWS, STAYS, Mutation
from .scoring import HEALTHY

CHANGED = ("mutations", "mutations-follow", "herrings", "noisy", "two-faults")
KEPT = ("mutations-follow",)  # the cause must not be held any more
_EACH, _QUICK_EACH = 40, 3  # cases of each kind of mutation
_SOME, _QUICK_SOME = 120, 12  # cases with herrings, pairs of faults
_ASKED, _QUICK_ASKED = 500, 50  # cases asked for one kind whose change depends on the answer
_SMALL = 4 << 20  # bytes of a recording that noise is added to

Ask = Callable[["Case"], "Report | None"]


def changed(name: str, cases: Sequence[Case], ask: Ask, seed: int, quick: bool) -> Iterator[Case]:
    """The cases of one suite.

    Args:
        cases: whole ones. ask: the answer to a case, None where it is wrong.
    """
    each, some = (_QUICK_EACH, _QUICK_SOME) if quick else (_EACH, _SOME)
    if name == "noisy":
        well = [c for c in cases if c.key.label == HEALTHY and _bytes(c) <= _SMALL]
        yield from (joined.noisy(c, seed) for c in (_drawn(name, well, seed)[:some] if quick else well))
    elif name == "herrings":
        right = (c for c in _drawn(name, cases, seed) if c.texts and ask(c) is not None)
        yield from _first((h for c in right for h in joined.herrings(c, seed)), some)
    elif name == "two-faults":
        found = joined.pairs(_drawn(name, cases, seed), lambda c: ask(c) is not None)
        yield from _first(found, some)
    else:
        for kind in STAYS if name == "mutations" else FOLLOWS:
            yield from _first(_mutants(kind, _drawn(kind.name, cases, seed), ask, seed, quick), each)


def _mutants(kind: Mutation, cases: Sequence[Case], ask: Ask, seed: int, quick: bool) -> Iterator[Case]:
    asked = 0
    for case in cases:
        draw = random.Random(f"{seed} {kind.name} {case.id}")  # noqa: S311 (no secret)
        if kind.answered:
            asked += 1
            if asked > (_QUICK_ASKED if quick else _ASKED):
                return
            got = ask(case)
            made = kind.change(case, got, draw) if got is not None else None
        else:
            made = kind.change(case, None, draw)
            made = made if made is not None and ask(case) is not None else None
        if made is not None:
            yield made


def _drawn(word: str, cases: Sequence[Case], seed: int) -> list[Case]:
    """All cases, in an order that is always the same for a seed."""
    return sorted(cases, key=lambda c: hashlib.sha256(f"{word} {seed} {c.id}".encode()).digest())


def _first(cases: Iterator[Case], n: int) -> Iterator[Case]:
    yield from (case for _, case in zip(range(n), cases, strict=False))


def _bytes(case: Case) -> int:
    return sum(p.stat().st_size if p.is_file() else sum(f.stat().st_size for f in p.rglob("*")) for p in case.paths)
