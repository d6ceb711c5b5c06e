"""Arithmetic between figures that nobody printed: bytes per operation, common steps, bursts that fill a buffer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from diagnose.axes import OTHER, classify
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided
from .generic_figures import name_metric
from .generic_prose import Note
from .generic_readings import Group, Reading, tidy

_OPERATION = regex(
    r"\b(ops?|operations?|desc(riptor)?s?|transfers?|xfers?|ios?|messages?|msgs?|packets?)\b", re.IGNORECASE
)
_ITEM = regex(r"\b(chunk|event|message|delta|packet|line|token|frame)s?\b", re.IGNORECASE)
_BURST = regex(r"burst|at once|together|per read|per flush|per write|in one|group|batch|成批|一次", re.IGNORECASE)


def arithmetic(
    derived: Sequence[Fact], groups: Sequence[Group], notes: Sequence[Note], singles: Sequence[Reading]
) -> Iterator[Fact]:
    """All of them."""
    by_line = {
        (n.line.start, n.figure.start): r for n, r in zip(notes, singles[len(singles) - len(notes) :], strict=True)
    }
    yield from _per_op(notes, by_line)
    yield from _buffer(notes, by_line)
    yield from _printed(notes, by_line)
    yield from _multiples(groups)
    yield from _dispersion(singles)
    yield from _proportional(derived)


def _at(note: Note, by_line: dict[tuple[int, int], Reading]) -> Reading:
    return by_line[(note.line.start, note.figure.start)]


def _per_op(notes: Sequence[Note], by_line: dict[tuple[int, int], Reading]) -> Iterator[Fact]:
    """Printed (``16.1 kB/op``), or bytes over operations of the same line, or of a document that gives each once."""
    done: set[int] = set()
    for note in notes:
        if note.metric.name.startswith("bytes_per_op") and note.figure.unit in ("B", "GiB"):
            done.add(note.line.start)
            read = _at(note, by_line)
            value = read.level
            yield Fact(
                "compare.bytes_per_op", value, "B", Subject(label=tidy(note.lead or note.words or "op")), (read.span,),
                f"{note.figure.text} {note.figure.raw} per operation", status=read.status,
            )  # fmt: skip
    total = [
        n for n in notes if n.figure.unit in ("B", "GiB") and n.metric.name in ("bytes", "memory") and not n.figure.per
    ]
    counts = [
        n for n in notes
        if n.figure.unit in (None, "count") and n.figure.value >= 16 and _OPERATION.search(n.noun or n.name)
    ]  # fmt: skip
    for count in counts:
        same = [t for t in total if t.line.start == count.line.start]
        if count.line.start in done or not (same or len(total) == 1):
            continue
        a, b = _at((same or total)[0], by_line), _at(count, by_line)
        value = a.level / b.figure.value
        if value >= 1:
            formula = "a / b" if a.figure.unit == "B" else "a * 1073741824 / b"
            yield Fact(
                "compare.bytes_per_op", value, "B", Subject(label=tidy(count.noun or count.name)), (a.span, b.span),
                f"{a.figure.text} {a.figure.raw} over {b.figure.text} {tidy(count.noun)}",
                kind="derived", formula=formula, inputs=(a.fact, b.fact), status=a.status,
            )  # fmt: skip


def _buffer(notes: Sequence[Note], by_line: dict[tuple[int, int], Reading]) -> Iterator[Fact]:
    """Items per burst times the size of an item, where that is about a power of two: somebody's buffer."""
    sizes = [n for n in notes if n.figure.unit == "B" and n.figure.value < 65536 and _ITEM.search(n.line.text)]
    bursts = [
        n for n in notes
        if n.figure.unit in (None, "count") and n.figure.value >= 3
        and _ITEM.search(n.noun) and _BURST.search(n.line.text)
    ]  # fmt: skip
    best: tuple[float, Fact] | None = None
    for size in sizes:
        for burst in bursts:
            value = size.figure.value * burst.figure.value
            power = 2 ** round(math.log2(value))
            off = abs(value / power - 1)
            if 1024 <= power <= 1 << 20 and off <= 0.02 and (best is None or off < best[0]):
                a, b = _at(size, by_line), _at(burst, by_line)
                best = off, Fact(
                    "compare.buffer_size", value, "B", Subject(label=tidy(burst.noun)), (a.span, b.span),
                    f"{b.figure.text} {tidy(burst.noun)} of {a.figure.text} B arrive together", kind="derived",
                    formula="a * b", inputs=(a.fact, b.fact), status=a.status,
                )  # fmt: skip
    if best is not None:
        yield best[1]


_VERSUS = regex(
    r"(?P<a>[\w./+-]+(?: [\w./+-]+)?) (?:vs\.?|versus|over|than|compared (?:to"
    r"|with)) (?P<b>[\w./+-]+(?: [\w./+-]+)?)",
    re.IGNORECASE,
)


def _printed(notes: Sequence[Note], by_line: dict[tuple[int, int], Reading]) -> Iterator[Fact]:
    """``cost, cuda_ipc vs rc_x   ~20x``: a ratio that the text itself states."""
    for note in notes:
        hit = (
            _VERSUS.search(note.line.text) if note.figure.raw.lower() in ("x", "×") and note.figure.value >= 1 else None
        )
        if hit is None:
            continue
        axis = classify(hit.group("a"), hit.group("b")) or (OTHER,)
        faster = re.search(r"faster|higher|more (through|band)|speed-?up|better", note.line.text, re.IGNORECASE)
        worse, better = ("b", "a") if faster else ("a", "b")
        metric = name_metric(note.line.text)
        name = metric.name if metric.known else "time"
        read = _at(note, by_line)
        yield Fact(
            "compare.ratio", note.figure.value, "count",
            Subject(label=f"{axis[0]}|{name}|{tidy(hit.group(worse))}|{tidy(hit.group(better))}"), (read.span,),
            f"stated: {note.figure.text}x, {tidy(hit.group())}", status=read.status,
        )  # fmt: skip


def _multiples(groups: Sequence[Group]) -> Iterator[Fact]:
    """Whole numbers that are all multiples of one step that is no accident of round figures."""
    seen: set[tuple[str, int]] = set()
    for group in groups:
        items = [
            m for m in group.members if m.figure.unit in (None, "count") and not m.figure.raw and m.figure.value > 0
        ]
        values = [int(m.figure.value) for m in items if m.figure.value == int(m.figure.value)]
        if len(values) < 3 or len(values) != len(items) or len(set(values)) < 3:
            continue
        step = math.gcd(*values)
        if step < 8 or step % 10 == 0 or all(v & (v - 1) == 0 for v in values) or (group.metric.name, step) in seen:
            continue
        seen.add((group.metric.name, step))
        yield Fact(
            "compare.multiple", step, "count", Subject(label=group.metric.name), tuple(m.span for m in items[:4]),
            "all readings are multiples of this step", kind="derived", formula="reader:gcd",
            inputs=tuple(m.fact for m in items), status=items[0].status,
        )  # fmt: skip


def _dispersion(singles: Sequence[Reading]) -> Iterator[Fact]:
    """Standard deviation over mean, high percentile over median, of one metric and setting."""
    by: dict[tuple[str, str, str], dict[str, Reading]] = {}
    for item in singles:
        base, _, stat = item.metric.name.rpartition("_")
        if stat in ("mean", "std", "p50", "p95", "p99", "max"):
            by.setdefault((base, item.setting, item.kind), {}).setdefault(stat, item)
    for (base, setting, _), stats in by.items():
        label = f"{base}|{tidy(setting)}" if setting else base
        for signal, top, bottom, unit in (
            ("stat.cv", stats.get("std"), stats.get("mean"), "fraction"),
            (
                "stat.tail",
                stats.get("p99") or stats.get("p95") or stats.get("max"),
                stats.get("p50") or stats.get("mean"),
                "count",
            ),
        ):
            if top is None or bottom is None or bottom.level <= 0 or top.figure.unit != bottom.figure.unit:
                continue
            if top is stats.get("max") and top.figure.unit not in ("us", "ms", "s"):
                continue  # the largest of clocks, watts and sizes is a rating as often as a reading
            yield divided(
                signal,
                (top.fact, bottom.fact),
                unit,
                Subject(label=label),
                spans=(top.span, bottom.span),
                statement=f"{base}: {top.figure.text} over {bottom.figure.text}",
            )


def _proportional(derived: Sequence[Fact]) -> Iterator[Fact]:
    """Throughput that falls exactly as the acceptance does is explained by it."""
    ratios = {f.subject.label or "": f for f in derived if f.signal == "compare.ratio" and float(f.value or 0) >= 1.1}
    for label, accepted in ratios.items():
        axis, metric, worse, better = label.split("|")
        if not metric.startswith("acceptance_length"):
            continue
        for other, fact in ratios.items():
            a, m, w, b = other.split("|")
            if "throughput" in m and (a, w, b) == (axis, worse, better):
                value = float(fact.value or 0) / float(accepted.value or 1)
                if 0.9 <= value <= 1.1:
                    yield divided(
                        "compare.proportional",
                        (fact, accepted),
                        subject=Subject(label=f"{axis}|{m}|{metric}"),
                        spans=(*fact.spans, *accepted.spans)[:4],
                        statement=f"{m} and {metric} fall by the same factor",
                    )
