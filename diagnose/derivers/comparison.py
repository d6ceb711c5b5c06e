"""The same metric in two documents: one benchmark pasted twice, with something changed between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..axes import OTHER, classify
from ..catalogue import catalogue
from ..lazy import regex
from ..models import Fact, Subject

SAME = 1.10
MAX_DOCUMENTS = 4
_CONTEXT = ("version", "serving.arg", "env.var", "gpu.name")
_STATED = ("version", "gpu.name")  # always there, named or not
# what such a command prints is what there is, no measurement
_SHOWS = regex(r"[$#] (?:sudo )?(?:nvidia-smi|ib(?:stat|status|v_devinfo)|lspci|ethtool|lscpu|numactl|rdma|chronyc)\b")
Place = dict[str, list[Fact]]
Context = frozenset[tuple[str, str]]


def across_documents(facts: list[Fact], recognised: Mapping[str, bool]) -> Iterator[Fact]:
    """`compare.ratio` (and `compare.same`) for metrics that each of two to four documents gives once."""
    by: dict[tuple[str, str, str | None], Place] = {}
    for fact in facts:
        if (
            fact.kind == "observed"
            and fact.spans
            and isinstance(fact.value, (int, float))
            and not isinstance(fact.value, bool)
        ):
            key = _key(fact)
            if key is not None:
                by.setdefault(key, {}).setdefault(fact.spans[0].capture, []).append(fact)
    places = sorted({c for place in by.values() for c in place})
    context = {c: _context(facts, c) for c in places}
    widest: dict[str, tuple[float, list[Fact]]] = {}
    for (name, _subject, _unit), place in by.items():
        if not 2 <= len(place) <= MAX_DOCUMENTS:
            continue
        once = {c: got[0] for c, got in place.items() if len({f.value for f in got}) == 1}
        if len(once) != len(place):
            continue
        low, high = sorted(((float(f.value or 0), c) for c, f in once.items()))[:: len(once) - 1]
        if low[0] <= 0:
            continue
        lower, higher = context[low[1]], context[high[1]]
        made = list(_pair(name, once[low[1]], once[high[1]], _apart(lower, higher), _apart(higher, lower)))
        if made and (name not in widest or high[0] / low[0] > widest[name][0]):
            widest[name] = high[0] / low[0], made
    for _ratio, made in widest.values():
        yield from made


def _key(fact: Fact) -> tuple[str, str, str | None] | None:
    """What must be equal for two facts to measure the same thing."""
    if fact.signal == "figure":
        metric, _, own = (fact.subject.label or "").partition("|")
        if _SHOWS.match(own):
            return None
        return None if metric in ("count", "bytes", "fraction", "time") else (metric, "", fact.unit)
    declared = catalogue().signals.get(fact.signal)
    return (fact.signal, fact.subject.key(), fact.unit) if declared and declared.better else None


def _context(facts: Iterable[Fact], capture: str) -> Context:
    """Versions, flags and variables that a document shows, with what each is one of."""
    out = set()
    for fact in facts:
        if fact.signal in _CONTEXT and fact.spans and fact.spans[0].capture == capture:
            joint = {"serving.arg": "--{} {}", "env.var": "{}={}"}.get(fact.signal, "{} {}")
            kind = f"{fact.signal} {fact.subject.label or ''}" if fact.signal in _STATED else ""
            out.add((kind, joint.format(fact.subject.label or "", fact.value).strip()))
    return frozenset(out)


def _apart(mine: Context, other: Context) -> frozenset[str]:
    """What only one document shows. A flag that is not there is off; a version that is not named can be the same."""
    named = {kind for kind, _ in other}
    return frozenset(text for kind, text in mine - other if not kind or kind in named)


def _setting(fact: Fact, extra: frozenset[str]) -> str:
    _, _, own = (fact.subject.label or "").partition("|")
    return " ".join(filter(None, [own if fact.signal == "figure" else "", *sorted(extra)[:4]]))


def _pair(name: str, low: Fact, high: Fact, low_only: frozenset[str], high_only: frozenset[str]) -> Iterator[Fact]:
    left, right = _setting(low, low_only), _setting(high, high_only)
    axes = classify(left, right) if left.lower() != right.lower() else (OTHER,)
    if axes == (OTHER,) and low.signal != "figure":
        return
    better = _better(name)
    low_text, high_text = left.replace("|", "/")[:60] or "one text", right.replace("|", "/")[:60] or "another text"
    worse_low = better == "higher"
    worse, good = (low_text, high_text) if worse_low else (high_text, low_text)
    ratio = float(high.value or 0) / float(low.value or 1)
    figures = (low, high) if worse_low else (high, low)
    first, second = (f"{f.value:g} {f.unit or ''}".strip() for f in figures)
    for axis in axes:
        for signal in ("compare.ratio", "compare.same")[: 2 if ratio <= SAME else 1]:
            yield Fact(
                signal, ratio, "count", Subject(label=f"{axis}|{name}|{worse}|{good}"),
                (*high.spans[:1], *low.spans[:1]),
                f"{name}: {first} with '{worse}' beside {second} with '{good}'", kind="derived", formula="a / b",
                inputs=(high, low), status=high.status,
            )  # fmt: skip


def _better(name: str) -> str | None:
    signal = catalogue().signals.get(name)
    if signal is not None:
        return signal.better
    rows = catalogue().axes.get("metrics", {})
    row = rows.get(name) or rows.get(name.rpartition("_")[0]) or {}
    better = row.get("better")
    return str(better) if better else {"bandwidth": "higher"}.get(name)


DERIVERS: list[Callable[[list[Fact], dict[str, bool]], Iterable[Fact]]] = [across_documents]
