"""The suites: read as they are, made afresh, or made of others by taking lines out, turning them round, adding some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from diagnose.errors import UsageError

from .ablation import DERIVED, MADE
from .case import Case, cassettes, load, own_captures, own_cases, parse_incident, sample, shared
from .changed import CHANGED
from .generate import generated
from .injection import raw_cases

GENERATED = ("generated", "generated-well")
WHOLE = ("cases", "incidents", "captures", "cassettes", "injection", *GENERATED)
SUITES = (*WHOLE, *DERIVED, *CHANGED, "held")
_DERIVED_FROM = 300  # of our own cases that lines are taken out of, so that all suites end in bounded time
_OF_ALL = ("ablation-decisive",)  # a bar of one in twenty wants all of them: of 300 the interval is 6 points wide


def collect(
    names: Sequence[str], paths: Iterable[Path], quick: bool, seed: int = 1
) -> Iterator[tuple[str, list[Case]]]:
    """``(suite, cases)`` in order. Derived suites follow from the pasted cases of all others; for `citations` and those
    of `changed` the whole cases are given, because what to take out or change depends on the answer to them.

    Raises:
        UsageError: an unknown suite, or a path without cases.
    """
    unknown = [n for n in names if n not in SUITES]
    if unknown:
        raise UsageError(f"no suite {unknown[0]!r}", f"suites: {', '.join(SUITES)}; a path is a suite of its own")
    pasted: list[Case] = []
    given = False
    for path in paths:
        found, given = load(path), True
        pasted += [c for c in found if c.texts]
        yield path.name, sample(found) if quick else found
    for name in names:
        found = _suite(name) if name not in GENERATED else list(generated(seed, sick=name == "generated"))
        if name in CHANGED:
            found = pasted or [*own_cases(), *_suite("incidents")]
            found = [*found, *(c for s in ("captures", "cassettes") for c in _suite(s))] if name == "noisy" else found
            well = list(generated(seed, sick=False)) if name == "noisy" and not pasted else []
            if found:
                yield name, [*found, *well]
            continue
        if name in DERIVED:
            own = own_cases() if name in _OF_ALL else sample(own_cases(), _DERIVED_FROM)
            base = pasted if given and pasted else [*own, *_suite("incidents")]
            base = sample(base) if quick else base
            found = base if name == "citations" else [a for c in base if (a := MADE[name](c)) is not None]
        elif name not in GENERATED:
            pasted += [c for c in found if c.texts]
        if found:
            yield name, sample(found) if quick else found


def _suite(name: str) -> list[Case]:
    if name == "injection":
        return [parse_incident(raw, ("recorded", "simulated")) for raw in raw_cases()]
    if name in ("cases", "held"):
        return own_cases(name)
    if name == "cassettes":
        return cassettes()
    place = shared(name) if name not in (*DERIVED, *CHANGED) else None
    found = load(place) if place is not None else []
    return [*found, *own_captures()] if name == "captures" else found
