"""The grammar of `when`: conditions over evidence, three-valued, each saying what it used.

Leaves (one mapping each):

    {signal: NAME, TEST…, where: {label: REGEX, gpu: 0, …}}   any evidence of NAME passes every TEST
    {no: NAME, where: …}                     no evidence of NAME here
    {absent: NAME, given: READER}            none, although a document READER recognises is complete
    {version: COMPONENT, range: ">=2.19,<2.21"}
    {limit: TEXT, below: 0.6}                measured / limit of a limit whose `what` contains TEXT
    {ratio: [NAME_A, NAME_B], above: 1.5}    quotient of two signals (largest of each)
    {spread: NAME, above: 1.5}               largest / smallest over subjects
    {compare: AXIS, metric: REGEX, above: 1.3}   two settings on one axis, worse / better
    {playbook: [ids]}                        the question that is being asked
    {recognised: [readers]}                  one of these formats is among the inputs
    {python: NAME}                           a named predicate: one of `RULES`, which `diagnose.rules` fills

TESTs: equals, one_of, matches, below, above, at_least, at_most, count_at_least; several are
and-ed. `signal` may end in `*`. Combine with {all: […]}, {any: […]}, {not: leaf}; `all` and `any`
hold leaves and `not`. Anything deeper is a named Python predicate with a test. `{not: {python: …}}`
means *unless*: a rule that found nothing to decide on does not object.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, wraps
from typing import Any, TypeVar

from .errors import CatalogueError
from .models import Evidence, Limit
from .past import KINDS

LEAVES = (
    "signal", "no", "absent", "version", "limit", "ratio", "spread", "compare", "playbook",
    "recognised", "python",
)  # fmt: skip
OTHER_AXIS = "other"  # two settings whose difference the lexicon does not know
_NUMERIC: dict[str, Callable[[float, float], bool]] = {
    "below": operator.lt,
    "above": operator.gt,
    "at_least": operator.ge,
    "at_most": operator.le,
}
_VARIABLES = ("env.var", "ucx.env", "serving.arg")
_TESTS = (*_NUMERIC, "equals", "one_of", "matches", "count_at_least")
_EXTRA: dict[str, tuple[str, ...]] = {
    "signal": ("where", *_TESTS),
    "no": ("where", *_TESTS),
    "absent": ("given", "where"),
    "version": ("range",),
    "limit": tuple(_NUMERIC),
    "ratio": (*_NUMERIC, "where"),
    "spread": (*_NUMERIC, "where"),
    "compare": ("metric", "where", *_NUMERIC),
    "playbook": (),
    "recognised": (),
    "python": (),
}


# The standard cache holds 512 patterns, fewer than the catalogue has.
pattern = lru_cache(maxsize=None)(re.compile)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`holds` is True, False, or None where nothing here can decide; `used` is the evidence."""

    holds: bool | None
    used: tuple[Evidence, ...] = ()


_T = TypeVar("_T")
UNKNOWN = Outcome(None)
_YES, _NO = Outcome(True), Outcome(False)


@dataclass
class Context:
    """Everything a condition may look at. Built once per assessment."""

    evidence: list[Evidence]
    playbook: str = ""  # the one that is walked
    symptom: str = ""
    limits: list[Limit] = field(default_factory=list)
    recognised: dict[str, bool] = field(default_factory=dict)  # reader -> all its documents whole
    asked: frozenset[str] = frozenset()  # all playbooks the symptom may mean; `playbook` is among them
    wording: dict[str, float] = field(default_factory=dict)  # shift of each cause's prior by the words used
    _index: dict[str, list[Evidence]] = field(default_factory=dict)
    _seen: dict[str, list[Evidence]] = field(default_factory=dict, init=False)  # without what is noted as absent
    _told: dict[str, Outcome] = field(default_factory=dict, init=False)  # by named predicates
    _worked: dict[object, Any] = field(default_factory=dict, init=False)  # out by `once`

    def __post_init__(self) -> None:
        self.asked |= {self.playbook}
        for item in self.evidence:
            self._index.setdefault(item.signal, []).append(item)
            if item.kind != "absent":
                self._seen.setdefault(item.signal, []).append(item)

    def of(self, signal: str, where: Mapping[str, Any] | None = None) -> list[Evidence]:
        """Evidence of a signal (``a.b.*`` for all below a.b) whose subject fits `where`."""
        if signal.endswith("*"):
            stem = signal[:-1]
            hits = [e for name in self._index if name.startswith(stem) for e in self._seen.get(name, ())]
        elif signal in self._seen:
            hits = [*self._seen[signal]]
        else:
            return []
        if signal in _VARIABLES and self.unread:
            hits = [e for e in hits if e.id not in self.unread]
        if self.passed:
            hits = [e for e in hits if not self._over(e)]
        return [e for e in hits if _fits(e, where)] if where else hits

    def told(self, rule: str) -> Outcome:
        """What a named predicate says."""
        got = self._told.get(rule)
        if got is None:
            got = self._told[rule] = RULES[rule](self)
        return got

    @cached_property
    def unread(self) -> dict[str, tuple[Evidence, Evidence, str]]:
        """What is set and the release at hand does not read, by evidence id: it, version, range that does."""
        from .catalogue import catalogue

        known = catalogue().variables
        out: dict[str, tuple[Evidence, Evidence, str]] = {}
        for item in (e for name in _VARIABLES for e in self._index.get(name, ())):
            name = item.subject.label or ""
            versions = known.get(name if item.signal == "serving.arg" else name.upper())
            other = self.outside(versions) if versions else None
            if versions and other is not None:
                out[item.id] = (item, other, versions[(other.subject.label or "").lower()])
        return out

    @cached_property
    def passed(self) -> dict[str, tuple[str, ...]]:
        """Beginnings of signals that tell of failures long past, by capture; none that the question is about."""
        out: dict[str, tuple[str, ...]] = {}
        for item in self._index.get("event.past", ()):
            kind = KINDS.get(item.subject.label or "")
            if (
                kind is not None
                and item.capture is not None
                and not (kind.asks and pattern(kind.asks, re.IGNORECASE).search(self.symptom))
            ):
                out[item.capture.name] = (*out.get(item.capture.name, ()), *kind.signals)
        return out

    def _over(self, item: Evidence) -> bool:
        return item.capture is not None and item.signal.startswith(self.passed.get(item.capture.name, ("\0",)))

    @cached_property
    def here(self) -> frozenset[str]:
        """Signals of which there is evidence, and the questions asked: see `needs`."""
        return frozenset((*self._seen, *map(_book, self.asked)))

    @cached_property
    def lower(self) -> bytes:
        """The symptom as literals are looked for in it."""
        return self.symptom.lower().encode("utf-8", "replace")

    @cached_property
    def loudest(self) -> float:
        """The largest shift by words."""
        return max(self.wording.values(), default=0.0)

    @cached_property
    def extent(self) -> dict[str, int]:
        """How far into each capture evidence was found, in bytes: at least so long it is."""
        out: dict[str, int] = {}
        for item in self.evidence:
            for span in item.spans:
                out[span.capture] = max(span.bytes[1], out.get(span.capture, 0))
        return out

    def asks(self, *playbooks: str) -> bool:
        """Is one of these the question?"""
        return not self.asked.isdisjoint(playbooks)

    def numbers(self, signal: str, where: Mapping[str, Any] | None = None) -> list[tuple[float, Evidence]]:
        """Numeric readings of a signal."""
        if signal not in self._seen and not signal.endswith("*"):
            return []
        return [
            (float(e.value), e)
            for e in self.of(signal, where)
            if isinstance(e.value, (int, float)) and not isinstance(e.value, bool)
        ]

    def version(self, component: str) -> tuple[tuple[int, ...], Evidence] | None:
        """The highest version seen of a component (signal `version`, subject label)."""
        seen = [
            (parse_version(str(e.value)), e)
            for e in self.of("version")
            if (e.subject.label or "").lower() == component.lower()
        ]
        return max(seen, key=lambda s: s[0]) if seen else None

    def outside(self, versions: Mapping[str, str]) -> Evidence | None:
        """The version that says that a rule of these releases does not hold here; None where it may."""
        for component, text in versions.items():
            seen = [e for e in self.of("version") if (e.subject.label or "").lower() == component]
            if seen and not any(may_lie_in(parse_version(str(e.value)), text) for e in seen):
                return seen[0]
        return None


def once(work: Callable[[Context], _T]) -> Callable[[Context], _T]:
    """What several rules read out of the evidence, worked out once a context; nobody changes what it gives."""

    @wraps(work)
    def known(ctx: Context) -> _T:
        if work not in ctx._worked:
            ctx._worked[work] = work(ctx)
        made: _T = ctx._worked[work]
        return made

    return known


Rule = Callable[[Context], Outcome]
RULES: dict[str, Rule] = {}  # named predicates; whoever judges by the catalogue imports `diagnose.rules`


def _fits(item: Evidence, where: Mapping[str, Any]) -> bool:
    for key, want in where.items():
        got = getattr(item.subject, key, None)
        if key == "label":
            if pattern(str(want), re.IGNORECASE).search(got or "") is None:
                return False
        elif got != want:
            return False
    return True


def parse_version(text: str) -> tuple[int, ...]:
    """``2.28.9+cuda13.0`` -> (2, 28, 9)."""
    hit = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(p) for p in hit.group().split(".")) if hit else ()


@lru_cache(maxsize=512)
def _range(text: str) -> tuple[tuple[Callable[[Any, Any], bool], tuple[int, ...]], ...]:
    ops: dict[str, Callable[[Any, Any], bool]] = {
        ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
        ">": operator.gt, "<": operator.lt,
    }  # fmt: skip
    out = []
    for part in text.split(","):
        hit = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)\s*([\d.]+)\s*", part)
        if hit is None:
            raise ValueError(f"bad version range {text!r}")
        out.append((ops[hit.group(1)], parse_version(hit.group(2))))
    return tuple(out)


def in_range(version: tuple[int, ...], text: str) -> bool:
    """Does a version lie in ``>=2.19,<2.21``? Compared to the length the bound gives."""
    return all(op(version[: len(bound)], bound) for op, bound in _range(text))


def may_lie_in(version: tuple[int, ...], text: str) -> bool:
    """Like `in_range`, but true where the version is given too shortly to tell: 2.20 beside ``>=2.20.3``."""
    return all(
        op(version[: len(bound)], bound) or (len(version) < len(bound) and version == bound[: len(version)])
        for op, bound in _range(text)
    )


def check(when: Mapping[str, Any], file: str, where: str, signals: Mapping[str, Any]) -> None:
    """Refuse a condition that could never fire: unknown leaf, test or signal. Raises CatalogueError."""
    from .catalogue import catalogue, near

    if len(when) == 1 and (key := next(iter(when))) in ("all", "any", "not"):
        parts = [when[key]] if key == "not" else when[key]
        for part in parts:
            if key != "not" and len(part) == 1 and "not" in part:
                part = part["not"]
            if any(k in part for k in ("all", "any", "not")):
                raise CatalogueError(
                    file, where, "conditions nest one level deep", "write a named predicate in diagnose/rules/"
                )
            check(part, file, where, signals)
        return
    kind = next((k for k in when if k in LEAVES), None)
    if kind is None:
        raise CatalogueError(file, where, f"no condition in {dict(when)}", near(next(iter(when), ""), LEAVES))
    for key in when:
        if key != kind and key not in _EXTRA[kind]:
            raise CatalogueError(file, where, f"{kind} does not take {key}", near(key, _EXTRA[kind]))
    if "matches" in when:
        re.compile(str(when["matches"]))
    names: Iterable[str] = ()
    if kind in ("signal", "no", "absent", "spread"):
        names = (when[kind],)
    elif kind == "ratio":
        names = when[kind]
    for name in names:
        if not (name in signals or (name.endswith("*") and any(s.startswith(name[:-1]) for s in signals))):
            raise CatalogueError(file, where, f"undeclared signal {name}", near(name, signals))
    if kind == "version":
        _range(when["range"])
    if kind == "compare":
        known = (*catalogue().axes, OTHER_AXIS)
        for axis in _listed(when["compare"]):
            if axis not in known:
                raise CatalogueError(file, where, f"unknown axis {axis}", near(axis, known))
    if kind == "python" and when["python"] not in RULES:
        raise CatalogueError(file, where, f"no predicate {when['python']}", near(when["python"], RULES))


def holds(when: Mapping[str, Any], ctx: Context) -> Outcome:
    """Evaluate a condition."""
    made = _MADE.get(id(when))
    if made is None:
        made = _MADE[id(when)] = when, _made(when)
    return made[1](ctx)


Condition = Callable[[Context], Outcome]
Test = Callable[[Evidence], bool]
# Made once from the catalogue's mappings and kept by identity: the mapping beside it keeps the identity its own.
_MADE: dict[int, tuple[Mapping[str, Any], Condition]] = {}

Needs = tuple[frozenset[str], ...]


def needs(when: Mapping[str, Any]) -> Needs:
    """Sets of names of which a condition needs one each: without it in `Context.here` it does not hold."""
    if "all" in when:
        return tuple(names for part in when["all"] for names in needs(part))
    if "any" in when:
        parts = [needs(part) for part in when["any"]]
        return (frozenset().union(*(part[0] for part in parts)),) if all(parts) else ()
    kind = next(k for k in (*LEAVES, "not") if k in when)
    if kind == "playbook":
        return (frozenset(map(_book, _listed(when[kind]))),)
    if kind in ("signal", "spread", "ratio"):
        return tuple(frozenset((name,)) for name in _listed(when[kind]) if not name.endswith("*"))
    return {"version": (frozenset(("version",)),), "compare": (frozenset(("compare.ratio",)),)}.get(kind, ())


def _book(ident: str) -> str:
    return f"?{ident}"


def _made(when: Mapping[str, Any]) -> Condition:
    """A condition as a function."""
    if "all" in when:
        return _all(tuple(map(_made, when["all"])))
    if "any" in when:
        return _any(tuple(map(_made, when["any"])))
    if "not" in when:
        return _not(_made(when["not"]), "python" in when["not"])
    return _LEAF[next(k for k in when if k in LEAVES)](when)


def _all(parts: tuple[Condition, ...]) -> Condition:
    def condition(ctx: Context) -> Outcome:
        used: tuple[Evidence, ...] = ()
        unknown = False
        for part in parts:
            got = part(ctx)
            if got.holds is False:
                return got
            unknown |= got.holds is None
            used += got.used
        return UNKNOWN if unknown else Outcome(True, used)

    return condition


def _any(parts: tuple[Condition, ...]) -> Condition:
    def condition(ctx: Context) -> Outcome:
        outcomes = [part(ctx) for part in parts]
        hits = [o for o in outcomes if o.holds]
        if hits:
            return Outcome(True, tuple(e for o in hits for e in o.used))
        if all(o.holds is False for o in outcomes):
            return Outcome(False, tuple(e for o in outcomes for e in o.used))
        return UNKNOWN

    return condition


def _not(part: Condition, unless: bool) -> Condition:
    def condition(ctx: Context) -> Outcome:
        got = part(ctx)
        return UNKNOWN if got.holds is None and not unless else Outcome(not got.holds, got.used)

    return condition


def _tests(when: Mapping[str, Any]) -> Test:
    """All TESTs of a leaf in one."""
    tests = tuple(_test(kind, bound) for kind, bound in when.items() if kind in _TESTS)
    if len(tests) == 1:
        return tests[0]
    return lambda item: all(test(item) for test in tests)


def _test(kind: str, bound: Any) -> Test:
    if kind in _NUMERIC:
        compared = _NUMERIC[kind]

        def numeric(item: Evidence) -> bool:
            value = item.value
            return isinstance(value, (int, float)) and not isinstance(value, bool) and compared(value, bound)

        return numeric
    if kind == "equals":
        return lambda item: item.value == bound or str(item.value).lower() == str(bound).lower()
    if kind == "one_of":
        listed = frozenset(str(b).lower() for b in bound)
        return lambda item: str(item.value).lower() in listed
    if kind == "matches":
        return lambda item: pattern(str(bound), re.IGNORECASE).search(str(item.value)) is not None
    return lambda item: item.count >= bound


def _signal(when: Mapping[str, Any]) -> Condition:
    name, where, passes = when["signal"], when.get("where"), _tests(when)
    exact = None if name.endswith("*") else name

    def condition(ctx: Context) -> Outcome:
        found = ctx.of(name, where) if exact is None or exact in ctx._seen else ()
        if not found:
            return UNKNOWN
        good = tuple(e for e in found if passes(e))
        return Outcome(True, good[:6]) if good else Outcome(False, tuple(found[:3]))

    return condition


def _no(when: Mapping[str, Any]) -> Condition:
    name, where, passes = when["no"], when.get("where"), _tests(when)

    def condition(ctx: Context) -> Outcome:
        found = tuple(e for e in ctx.of(name, where) if passes(e))
        return Outcome(False, found[:3]) if found else Outcome(True)

    return condition


def _absent(when: Mapping[str, Any]) -> Condition:
    name, where, reader = when["absent"], when.get("where"), when["given"]

    def condition(ctx: Context) -> Outcome:
        if not ctx.recognised.get(reader):
            return UNKNOWN
        found = ctx.of(name, where)
        if found:
            return Outcome(False, tuple(found[:3]))
        return Outcome(True, tuple(e for e in ctx._index.get(name, []) if e.kind == "absent"))

    return condition


def _version(when: Mapping[str, Any]) -> Condition:
    component, text = when["version"], when["range"]

    def condition(ctx: Context) -> Outcome:
        got = ctx.version(component)
        return UNKNOWN if got is None else Outcome(in_range(got[0], text), (got[1],))

    return condition


def _number_test(when: Mapping[str, Any]) -> Callable[[float], bool]:
    tests = tuple((_NUMERIC[kind], bound) for kind, bound in when.items() if kind in _NUMERIC)
    return lambda value: all(compared(value, bound) for compared, bound in tests)


def _limit(when: Mapping[str, Any]) -> Condition:
    what, passes = when["limit"].lower(), _number_test(when)

    def condition(ctx: Context) -> Outcome:
        known = [item for item in ctx.limits if item.ratio is not None and what in item.what.lower()]
        if not known:
            return UNKNOWN
        by_id = {e.id: e for e in ctx.evidence}
        good = [item for item in known if item.ratio is not None and passes(item.ratio)]
        used = tuple(by_id[i] for item in good or known for i in item.evidence if i in by_id)
        return Outcome(bool(good), used[:4])

    return condition


def _ratio(when: Mapping[str, Any]) -> Condition:
    names, where, passes = when["ratio"], when.get("where"), _number_test(when)

    def condition(ctx: Context) -> Outcome:
        top, bottom = (ctx.numbers(name, where) for name in names)
        if not top or not bottom:
            return UNKNOWN
        a, b = max(top, key=lambda n: n[0]), max(bottom, key=lambda n: n[0])
        return UNKNOWN if b[0] == 0 else Outcome(passes(a[0] / b[0]), (a[1], b[1]))

    return condition


def _spread(when: Mapping[str, Any]) -> Condition:
    name, where, passes = when["spread"], when.get("where"), _number_test(when)

    def condition(ctx: Context) -> Outcome:
        got = ctx.numbers(name, where)
        if len({e.subject.key() for _, e in got}) < 2:
            return UNKNOWN
        low, high = min(got, key=lambda n: n[0]), max(got, key=lambda n: n[0])
        return UNKNOWN if low[0] <= 0 else Outcome(passes(high[0] / low[0]), (low[1], high[1]))

    return condition


def _compare(when: Mapping[str, Any]) -> Condition:
    """Facts `compare.ratio`: value = worse / better, subject.label = ``axis|metric|worse|better``."""
    axes, metric, where, passes = _listed(when["compare"]), when.get("metric"), when.get("where"), _number_test(when)

    def condition(ctx: Context) -> Outcome:
        found = [
            (value, e)
            for value, e in ctx.numbers("compare.ratio", where)
            if (e.subject.label or "").split("|")[0] in axes
        ]
        if metric is not None:
            found = [f for f in found if pattern(metric, re.I).search((f[1].subject.label or "||").split("|")[1])]
        if not found:
            return UNKNOWN
        good = tuple(e for value, e in found if passes(value))
        return Outcome(True, good[:4]) if good else Outcome(False, tuple(e for _, e in found[:3]))

    return condition


def _listed(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _playbook(when: Mapping[str, Any]) -> Condition:
    books = frozenset(_listed(when["playbook"]))
    return lambda ctx: _NO if ctx.asked.isdisjoint(books) else _YES


def _recognised(when: Mapping[str, Any]) -> Condition:
    readers = _listed(when["recognised"])
    return lambda ctx: _YES if any(r in ctx.recognised for r in readers) else _NO


def _python(when: Mapping[str, Any]) -> Condition:
    rule = when["python"]
    return lambda ctx: ctx._told.get(rule) or ctx.told(rule)


def named(when: Mapping[str, Any]) -> Iterator[str]:
    """Predicates that a condition names."""
    for key, value in when.items():
        if key == "python":
            yield value
        elif key in ("all", "any", "not"):
            for part in [value] if key == "not" else value:
                yield from named(part)


def in_words(when: Mapping[str, Any]) -> str:
    """A condition in words short enough for a list."""
    if "all" in when:
        return " and ".join(in_words(p) for p in when["all"])
    if "any" in when:
        return " or ".join(in_words(p) for p in when["any"])
    if "not" in when:
        return f"not ({in_words(when['not'])})"
    kind = next(iter(when))
    rest = " ".join(f"{k} {v}" for k, v in when.items() if k != kind)
    return f"{kind} {when[kind]}{' ' + rest if rest else ''}"


_LEAF: dict[str, Callable[[Mapping[str, Any]], Condition]] = {
    "signal": _signal, "no": _no, "absent": _absent, "version": _version, "limit": _limit,
    "ratio": _ratio, "spread": _spread, "compare": _compare, "playbook": _playbook,
    "recognised": _recognised, "python": _python,
}  # fmt: skip
