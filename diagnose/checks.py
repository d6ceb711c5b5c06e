"""The audit's checks: data in `playbooks/checks/*.yaml`, one file a group, and how one is decided.

A check is a statement about a machine that is wrong, or wasteful, when its condition holds. It is
decided only where the readings it `needs` are there: unknown is unknown, never unhealthy. What does
not apply (GPU checks on a machine without a GPU) is said apart from what is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

from pydantic import model_validator

from .catalogue import build, near, yaml_files
from .entries import Data
from .errors import CatalogueError, UsageError
from .models import Evidence, Severity
from .predicates import LEAVES, Context, Outcome, holds

Profile = Literal["inference", "training", "network"]
PROFILES: tuple[Profile, ...] = ("inference", "training", "network")
Status = Literal["finding", "passed", "unknown", "not_applicable"]
Text = tuple[str, str]  # English, Chinese
LANGS = ("en", "zh")


class Group(Data):
    """Checks of one part of a machine, with what they have in common."""

    id: str
    title: Text
    applies: dict[str, Any] | None = None
    profiles: tuple[Profile, ...] = PROFILES
    needs: tuple[str, ...] = ()
    source: str = ""


class Check(Data):
    """One check.

    Attributes:
        when: condition that makes it a finding (grammar in `predicates`); or `rule`, a function of `audit_rules`.
        needs: readings that decide it, as ``signal``, ``signal:label`` or alternatives ``a|b``. All must be there.
        applies: condition without which the check is beside the point (also where nothing says that it holds, so scope
            by `no` what is only ruled out by a reading); the group's where it has none.
        because: why it matters. source: where that is written down. versions: of what it holds for.
    """

    id: str
    title: Text
    severity: Severity
    when: dict[str, Any] | None = None
    rule: str = ""
    needs: tuple[str, ...]
    applies: dict[str, Any] | None = None
    profiles: tuple[Profile, ...] = PROFILES
    because: str
    fix: Text
    risk: str = ""
    source: str = ""
    versions: str = ""
    group: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Check:
        if (self.when is None) == (not self.rule):
            raise ValueError("a check has either `when` or `rule`")
        for condition in filter(None, (self.when, self.applies)):
            if not {*LEAVES, "all", "any", "not"} & set(condition):
                raise ValueError(f"no condition in {condition}")
        if not self.needs or not all(self.title) or not all(self.fix):
            raise ValueError("needs, title and fix are filled in")
        return self


@dataclass(frozen=True)
class Result:
    """What came of a check: `used` is the evidence it rests on, `reason` why it could not be decided."""

    check: Check
    status: Status
    used: tuple[Evidence, ...] = ()
    reason: str = ""


@lru_cache(maxsize=1)
def load() -> tuple[dict[str, Group], dict[str, Check]]:
    """Groups and checks by id, validated. Raises CatalogueError."""
    groups: dict[str, Group] = {}
    checks: dict[str, Check] = {}
    for file, raw in yaml_files("checks"):
        if not isinstance(raw, dict) or set(raw) != {"group", "checks"}:
            raise CatalogueError(file, "top", "expected `group` and `checks`")
        group = build(Group, file, "group", raw["group"])
        groups[group.id] = group
        shared = {"source": group.source, "applies": group.applies, "profiles": group.profiles, "needs": group.needs,
                  "group": group.id}  # fmt: skip
        for n, item in enumerate(raw["checks"] or [], 1):
            where = f"entry {n} ({(item or {}).get('id', '?')})"
            check = build(Check, file, where, {**shared, **(item or {})})
            if check.id in checks:
                raise CatalogueError(file, check.id, "declared twice")
            if not check.source:
                raise CatalogueError(file, check.id, "has no source")
            checks[check.id] = check
    return groups, checks


def find(name: str) -> Check:
    """A check by its id, or by the end of it. Raises UsageError."""
    _, checks = load()
    ends = [c for c in checks if c.endswith("." + name)]
    if name not in checks and len(ends) != 1:
        raise UsageError(f"no check {name!r}", near(name, checks) or "diagnose audit --show lists them")
    return checks.get(name) or checks[ends[0]]


def select(only: list[str], skip: list[str], profile: str) -> list[Check]:
    """Checks that the user asked for, in the order of the files. Raises UsageError for a pattern that fits none."""
    _, checks = load()
    if profile and profile not in PROFILES:
        raise UsageError(f"--profile takes {', '.join(PROFILES)}, not {profile!r}", near(profile, PROFILES))
    for pattern in (*only, *skip):
        if not any(_named(c, pattern) for c in checks.values()):
            raise UsageError(f"no check fits {pattern!r}", near(pattern, checks) or "diagnose audit --show lists them")
    return [
        c
        for c in checks.values()
        if (not only or any(_named(c, p) for p in only))
        and not any(_named(c, p) for p in skip)
        and (not profile or profile in c.profiles)
    ]


def _named(check: Check, pattern: str) -> bool:
    """Does a pattern mean this check: a glob over the id, an id's beginning, or a group?"""
    return fnmatchcase(check.id, pattern) or check.id.startswith(pattern + ".") or check.group == pattern


def signals(check: Check) -> set[str]:
    """Signals that a check reads or needs."""
    out = {one.partition(":")[0] for need in check.needs for one in need.split("|")}
    for condition in filter(None, (check.when, check.applies)):
        out |= _mentioned(condition)
    return out


def _mentioned(when: dict[str, Any]) -> set[str]:
    if "not" in when:
        return _mentioned(when["not"])
    if parts := when.get("all") or when.get("any"):
        return set().union(*map(_mentioned, parts))
    out = {when[k] for k in ("signal", "no", "absent", "spread") if k in when}
    return out | set(when.get("ratio", ())) | ({"version"} if "version" in when else set())


def there(need: str, ctx: Context) -> bool:
    """Is one of the alternatives of a need among the readings?"""
    for one in need.split("|"):
        signal, _, label = one.partition(":")
        if any(not label or (e.subject.label or "").lower() == label for e in ctx.of(signal)):
            return True
    return False


def decide(check: Check, ctx: Context) -> Result:
    """Finding, passed, unknown or beside the point."""
    from .audit_rules import RULES

    if check.applies is not None and not (got := holds(check.applies, ctx)).holds:
        return Result(check, "not_applicable", got.used)
    missing = [need for need in check.needs if not there(need, ctx)]
    if missing:
        return Result(check, "unknown", reason=", ".join(n.replace("|", " or ") for n in missing))
    if check.rule:
        outcome = RULES[check.rule](ctx)
        if outcome.holds is None:
            return Result(check, "unknown", outcome.used, "the readings do not decide it")
    else:
        assert check.when is not None
        outcome = holds(check.when, ctx)
        if outcome.holds is None:  # what it needs was read, and the alarming reading is not among it
            outcome = Outcome(False)
    return Result(check, "finding" if outcome.holds else "passed", outcome.used)


def faults() -> list[str]:
    """Problems that only show beside the rest of the catalogue; empty when the checks are sound."""
    from .audit_rules import RULES
    from .catalogue import catalogue
    from .predicates import check as sound

    known = catalogue().signals
    out: list[str] = []
    for item in load()[1].values():
        for condition in filter(None, (item.when, item.applies)):
            try:
                sound(condition, "checks", item.id, known)
            except (CatalogueError, ValueError) as err:
                out.append(str(err))
        if item.rule and item.rule not in RULES:
            out.append(f"{item.id}: no rule {item.rule} {near(item.rule, RULES)}")
        for signal in sorted(signals(item)):
            if signal not in known and not (signal.endswith("*") and any(s.startswith(signal[:-1]) for s in known)):
                out.append(f"{item.id}: undeclared signal {signal} {near(signal, known)}")
    return out
