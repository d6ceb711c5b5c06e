"""Readings: a figure with its metric and setting; groups of them; the ratio of two as a fact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from diagnose.document import Document, Line, Span
from diagnose.models import Fact, Subject

from .generic_figures import Figure, Metric

SAME = 1.10

# Units of one kind and the factor to the first of them, so that 790 ms and 1.3 s compare.
_KIND = {
    "s": ("s", 1.0), "ms": ("s", 1e-3), "us": ("s", 1e-6), "GB/s": ("GB/s", 1.0), "Gb/s": ("GB/s", 0.125),
    "B": ("B", 1.0), "GiB": ("B", 1024.0**3),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A figure with its place, what it measures, and the setting it was taken under."""

    figure: Figure
    metric: Metric
    setting: str
    span: Span
    status: tuple[str, ...] = ("provided",)

    @cached_property
    def fact(self) -> Fact:
        """The figure as a fact."""
        label = f"{self.metric.name}|{tidy(self.setting)}" if self.setting else self.metric.name
        unit = self.figure.unit or "count"
        said = f"{self.metric.name}{f' ({tidy(self.setting)})' if self.setting else ''}: {self.figure.text}"
        return Fact(
            "figure", self.figure.value, unit, Subject(label=label), (self.span,),
            f"{said} {self.figure.raw}".strip(), status=self.status,
        )  # fmt: skip

    @property
    def kind(self) -> str:
        """Kind of unit; only readings of one kind compare."""
        unit = self.figure.unit or "count"
        return _KIND.get(unit, (unit, 1.0))[0]

    @property
    def level(self) -> float:
        """Value in the unit of its kind."""
        return self.figure.value * _KIND.get(self.figure.unit or "count", ("", 1.0))[1]


@dataclass
class Group:
    """One metric under several settings, in the order of the text.

    Attributes:
        over: what the settings are called, where the text says so.
        context: what else was fixed (the row of a table), for the statement only.
        firm: the text itself sets the settings side by side (table, headed blocks); an unknown axis still counts.
    """

    metric: Metric
    members: list[Reading] = field(default_factory=list)
    over: str = ""
    context: str = ""
    firm: bool = False


def tidy(text: str, limit: int = 48) -> str:
    """A setting as it stands in a label."""
    return " ".join(text.replace("|", "/").split()).strip(" :;,#=>*`\"'")[:limit]


def reading(doc: Document, line: Line, figure: Figure, metric: Metric, setting: str) -> Reading:
    """A reading that quotes its line."""
    return Reading(figure, metric, " ".join(setting.split())[:160], doc.span(line, figure.text), doc.status)


def worse_first(metric: Metric, a: Reading, b: Reading) -> tuple[Reading, Reading]:
    """``(worse, better)``; where the direction is unknown the larger reading counts as worse."""
    return (a, b) if (a.level >= b.level) != (metric.better == "higher") else (b, a)


def pair_facts(axis: str, group: Group, a: Reading, b: Reading) -> Iterator[Fact]:
    """`compare.ratio`, and `compare.same` where nothing changes."""
    fact = ratio("compare.ratio", axis, group, *worse_first(group.metric, a, b))
    yield fact
    if float(fact.value or 0) <= SAME:
        yield replace(fact, signal="compare.same")


def ratio(signal: str, axis: str, group: Group, worse: Reading, better: Reading) -> Fact:
    """The larger over the smaller reading of one metric, labelled ``axis|metric|worse setting|better setting``."""
    top, bottom = (worse, better) if worse.level >= better.level else (better, worse)
    value = top.level / bottom.level
    label = f"{axis}|{group.metric.name}|{tidy(worse.setting) or 'unnamed'}|{tidy(better.setting) or 'unnamed'}"
    where = f" at {tidy(group.context)}" if group.context else ""
    said = (
        f"{group.metric.name}{where}: {worse.figure.text} {worse.figure.raw} with '{tidy(worse.setting)}' beside "
        f"{better.figure.text} {better.figure.raw} with '{tidy(better.setting)}'"
    )
    return Fact(
        signal, value, "count", Subject(label=label), spans_of(top, bottom), " ".join(said.split()), kind="derived",
        formula=quotient(top, bottom), inputs=(top.fact, bottom.fact), status=worse.status,
    )  # fmt: skip


def spans_of(*readings: Reading) -> tuple[Span, ...]:
    """Lines of the readings, each once."""
    return tuple(dict.fromkeys(r.span for r in readings))


def quotient(top: Reading, bottom: Reading) -> str:
    """Formula of a / b, in one unit."""
    factor = top.level / top.figure.value / (bottom.level / bottom.figure.value)
    return "a / b" if abs(factor - 1) < 1e-9 else f"a * {factor:.12g} / b"
