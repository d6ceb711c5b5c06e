"""A user's kernel between the twins of a microbenchmark run on the same GPU."""

from __future__ import annotations

from collections.abc import Iterator

from ..derive import Deriver
from ..models import Fact, Subject

_MOST = 24  # facts: kernels times counters
NOTICED = 0.05  # of the way to the pathological twin


def _number(fact: Fact) -> float:
    return float(fact.value) if isinstance(fact.value, (int, float)) else 0.0


def place(facts: list[Fact], recognised: dict[str, bool]) -> Iterator[Fact]:
    """Place every counter that a twin pair is known by on the line from healthy (0) to pathological (1)."""
    profile: dict[tuple[str, str], Fact] = {}
    slower: list[tuple[str, str, Fact]] = []
    for fact in facts:
        if fact.signal in ("bench.profile", "bench.slower"):
            row, _, other = (fact.subject.label or "").partition("|")
            if fact.signal == "bench.profile":
                profile[row, other] = fact
            else:
                slower.append((row, other, fact))
    made = 0
    done: set[str] = set()
    for row, twin, factor in slower:
        for (name, signal), bad in profile.items():
            good = profile.get((twin, signal))
            if name != row or good is None or good.value == bad.value or signal in done:
                continue
            done.add(signal)  # one pair a counter: the first that was measured
            for kernel in facts:
                if kernel.signal != signal or kernel.kind != "observed" or made >= _MOST:
                    continue
                where = (_number(kernel) - _number(good)) / (_number(bad) - _number(good))
                if not NOTICED <= where <= 1.5:  # healthy, or outside of the pair, where the line says nothing
                    continue
                made += 1
                subject = Subject(label=f"{kernel.subject.label}|{signal}|{row}")
                yield Fact(
                    "bench.place", where, "fraction", subject, kind="derived", formula="(a - b) / (c - b)",
                    inputs=(kernel, good, bad), status=_status(kernel, good),
                )  # fmt: skip
                yield Fact(
                    "bench.cost", 1 + where * (_number(factor) - 1), "count", subject, kind="derived",
                    formula="1 + (a - b) / (c - b) * (d - 1)", inputs=(kernel, good, bad, factor),
                    status=_status(kernel, good),
                )  # fmt: skip


def _status(*facts: Fact) -> tuple[str, ...]:
    return tuple(sorted({s for f in facts for s in f.status}))


DERIVERS: list[Deriver] = [place]
