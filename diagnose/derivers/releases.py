"""What changed by default between two releases of one component that are both in evidence (`playbooks/releases`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ..catalogue import catalogue
from ..models import Fact, Subject
from ..predicates import in_range, may_lie_in, parse_version

_SETTINGS = ("serving.arg", "env.var", "ucx.env")


def changes_between(facts: list[Fact], recognised: Mapping[str, bool]) -> Iterator[Fact]:
    """`release.change`: the cause that it speaks for as label, both versions quoted."""
    seen: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.signal == "version" and fact.spans and parse_version(str(fact.value)):
            seen.setdefault((fact.subject.label or "").lower(), []).append(fact)
    table = catalogue().changes
    if not any(len(found) > 1 and name in table for name, found in seen.items()):
        return
    settings = {f.subject.label or "" for f in facts if f.signal in _SETTINGS}
    for name, found in seen.items():
        ordered = sorted(found, key=lambda f: parse_version(str(f.value)))
        old, new = ordered[0], ordered[-1]
        for change in table.get(name, ()):
            at = f">={change.at}"
            if may_lie_in(parse_version(str(old.value)), at) or not in_range(parse_version(str(new.value)), at):
                continue
            if change.settled and any(re.search(change.settled, s, re.IGNORECASE) for s in settings):
                continue
            yield Fact(
                "release.change", change.what, None, Subject(label=change.cause), (old.spans[0], new.spans[0]),
                statement=f"between {name} {old.value} and {new.value}: {change.what}", status=new.status,
            )  # fmt: skip


DERIVERS: list[Callable[[list[Fact], dict[str, bool]], Iterator[Fact]]] = [changes_between]
