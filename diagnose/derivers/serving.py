"""Derived facts of the serving family: what two pages of one server's counters say about the time between them.

Counters only rise, so of several readings of one server the smallest is the earliest, whatever the
files are called. Pages belong to one server when they give the same process start time; pages
without one are taken together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..derive import Deriver
from ..models import Fact, Subject

_MILLI = frozenset(("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode", "inference", "process", "kv_transfer"))
_COUNTS = frozenset(("prompt_tokens", "output_tokens", "step_tokens", "computed_tokens"))
_MIN_REQUESTS = 1
_SAMPLES = 8  # of a histogram: fewer requests have no distribution
_FRONTEND = "dynamo_frontend_"


def tier(fact: Fact) -> str:
    """Which process counted: a frontend before the engines, or an engine. Both may be in one folder."""
    head = fact.spans[0].quote if fact.spans else tier(fact.inputs[0]) if fact.inputs else ""
    return "frontend" if head.startswith((_FRONTEND, "frontend")) else "engine"


def by_server(facts: Iterable[Fact]) -> dict[tuple[tuple[float, str], str], list[Fact]]:
    """Counters and histograms by server (its start, and its address where pages say it) and kind of process."""
    counters = [
        f for f in facts if f.signal in ("serving.counter", "serving.counter_time", "serving.histogram") and f.spans
    ]
    start: dict[str, float] = {}
    for fact in facts:
        if fact.signal == "serving.server_start" and isinstance(fact.value, float) and fact.spans:
            start[fact.spans[0].capture] = fact.value
    place = {f.spans[0].capture: f.subject.label or "" for f in facts if f.signal == "serving.scraped" and f.spans}
    known = set(start.values())
    alone = known.pop() if len(known) == 1 and not place else 0.0
    out: dict[tuple[tuple[float, str], str], list[Fact]] = defaultdict(list)
    for fact in counters:
        page = fact.spans[0].capture
        out[(start.get(page, alone), place.get(page, "")), tier(fact)].append(fact)
    return out


def last_and_first(facts: list[Fact], label: str) -> tuple[Fact, Fact | None] | None:
    """Latest and, if there is another reading, earliest reading of a counter."""
    got = sorted(
        (f for f in facts if f.subject.label == label and isinstance(f.value, float)), key=lambda f: float(f.value or 0)
    )
    if not got:
        return None
    return got[-1], got[0] if len(got) > 1 else None


def _mean(
    signal: str, total: tuple[Fact, Fact | None], count: tuple[Fact, Fact | None], scale: float, unit: str
) -> Fact | None:
    """``(sum - sum) / (count - count)``, in the unit of the signal."""
    times = f" * {scale:g}" if scale != 1 else ""
    if total[1] is not None and count[1] is not None:
        inputs: tuple[Fact, ...] = (total[0], total[1], count[0], count[1])
        formula = f"(a - b) / (c - d){times}"
        above, below = (float(f.value or 0) for f in inputs[:2])
        after, before = (float(f.value or 0) for f in inputs[2:])
    else:
        inputs, formula = (total[0], count[0]), f"a / b{times}"
        above, below, after, before = float(total[0].value or 0), 0.0, float(count[0].value or 0), 0.0
    if after - before < _MIN_REQUESTS:
        return None
    return Fact(signal, (above - below) / (after - before) * scale, unit, Subject(label="mean"), kind="derived",
                formula=formula, inputs=inputs, status=inputs[0].status)  # fmt: skip


def difference(signal: str, ends: tuple[Fact, Fact | None], unit: str, label: str | None) -> Fact:
    """What a counter grew by; all that it shows where it was read once."""
    last, first = ends
    if first is None:
        return Fact(
            signal,
            last.value,
            unit,
            Subject(label=label),
            kind="derived",
            formula="a",
            inputs=(last,),
            status=last.status,
        )
    return Fact(signal, float(last.value or 0) - float(first.value or 0), unit, Subject(label=label), kind="derived",
                formula="a - b", inputs=(last, first), status=last.status)  # fmt: skip


def _share(
    signal: str, top: tuple[Fact, Fact | None], bottom: tuple[Fact, Fact | None], label: str | None
) -> Fact | None:
    paired = top[1] is not None and bottom[1] is not None
    inputs = (
        tuple(f for f in (top[0], top[1], bottom[0], bottom[1]) if f is not None) if paired else (top[0], bottom[0])
    )
    values = [float(f.value or 0) for f in inputs]
    above, below = (values[0] - values[1], values[2] - values[3]) if paired else (values[0], values[1])
    if below <= 0:
        return None
    formula = "(a - b) / (c - d)" if paired else "a / b"
    return Fact(signal, above / below, "fraction", Subject(label=label), kind="derived", formula=formula, inputs=inputs,
                status=top[0].status)  # fmt: skip


def counters(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Means, shares and totals over the window that the pages span."""
    for mine in by_server(facts).values():
        made: dict[str, Fact] = {}
        for stem in (*sorted(_MILLI), *sorted(_COUNTS), "tokenize"):
            total, count = last_and_first(mine, f"{stem}_sum"), last_and_first(mine, f"{stem}_count")
            if total is None or count is None:
                continue
            unit = "count" if stem in _COUNTS else "ms"
            fact = _mean(f"serving.server.{stem}", total, count, 1000.0 if stem in _MILLI else 1.0, unit)
            if fact is not None:
                made[stem] = fact
                yield fact
            if stem == "ttft" and fact is not None:
                yield difference("serving.server.requests", count, "count", None)
        for part in ("queue", "prefill"):
            if part in made and "ttft" in made and float(made["ttft"].value or 0) > 0:
                value = float(made[part].value or 0) / float(made["ttft"].value or 1)
                yield Fact(f"serving.{part}_share", value, "fraction", kind="derived", formula="a / b",
                           inputs=(made[part], made["ttft"]), status=made[part].status)  # fmt: skip
        ends = last_and_first(mine, "preemptions")
        if ends is not None:
            yield difference("serving.preemptions", ends, "count", "total")
        ends = last_and_first(mine, "finished")
        if ends is not None:
            yield difference("serving.finished", ends, "count", None)
        for top, bottom, signal in (
            ("prefix hits", "prefix queries", "serving.prefix_hit_rate"),
            ("external hits", "external queries", "serving.external_hit_rate"),
            ("accepted tokens", "draft tokens", "serving.accept_rate"),
        ):
            above, below = last_and_first(mine, top), last_and_first(mine, bottom)
            share = _share(signal, above, below, "window") if above and below else None
            if share is not None:
                yield share
        yield from _histograms(mine)


def buckets(text: str) -> dict[str, float]:
    """Edge to cumulative count, as the reader keeps a histogram."""
    out: dict[str, float] = {}
    for part in text.split():
        edge, _, number = part.rpartition(":")
        try:
            out[edge] = float(number)
        except ValueError:
            continue
    return out


@dataclass(frozen=True)
class Window:
    """What a histogram counted between its first reading and its last.

    Attributes:
        edges: ``(upper edge, requests up to it)``, ascending; the last edge is infinite.
        total: requests in all. inputs: the last reading, and the first where there are two.
    """

    edges: list[tuple[float, float]]
    total: float
    inputs: tuple[Fact, ...]


def window(facts: list[Fact], stem: str) -> Window | None:
    """The window of one histogram; None where it is not among the facts or counted too few to say anything."""
    got = [(buckets(str(f.value)), f) for f in facts if f.signal == "serving.histogram" and f.subject.label == stem]
    got.sort(key=lambda g: g[0].get("+Inf", 0.0))
    if not got:
        return None
    (now, last), before = got[-1], got[0][0] if len(got) > 1 else {}
    total = now.get("+Inf", 0.0) - before.get("+Inf", 0.0)
    edges = sorted((float(e), n - before.get(e, 0.0)) for e, n in now.items())
    return Window(edges, total, (last, got[0][1]) if len(got) > 1 else (last,)) if total >= _SAMPLES else None


def _histograms(facts: list[Fact]) -> Iterable[Fact]:
    """Median and largest bucket of a histogram's window; bounds, so ratios are rough by construction."""
    for stem, signal in (("itl", "serving.step_tail"), ("prompt_tokens", "serving.prompt_mix")):
        seen = window(facts, stem)
        if seen is None:
            continue
        edges = seen.edges[:-1]
        usual = next((e for e, n in edges if n >= 0.5 * seen.total), None)
        # the lower edge of the last bucket that holds anything: no request was below it
        top = max((edges[i - 1][0] for i in range(1, len(edges)) if edges[i][1] > edges[i - 1][1]), default=None)
        if usual is not None and top is not None and usual > 0:
            last = seen.inputs[0]
            yield Fact(signal, top / usual, "count", kind="derived", formula="reader:serving_histogram",
                       inputs=seen.inputs, spans=last.spans, status=last.status)  # fmt: skip


def weight_rate(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Weights of one GPU over the time of a token: the memory rate of decoding, whatever the GPU."""
    weights = [f for f in facts if f.signal == "serving.weights" and isinstance(f.value, float)]
    step = [f for f in facts if f.signal == "serving.server.itl" and isinstance(f.value, float)]
    step = step or [
        f for f in facts
        if f.signal in ("serving.client.tpot", "serving.client.itl") and f.subject.label in ("median", "mean", "p50")
        and isinstance(f.value, float)
    ]  # fmt: skip
    if weights and step and float(step[0].value or 0) > 0:
        size, time = weights[0], step[0]
        value = float(size.value or 0) * 1.073741824 / float(time.value or 1) * 1000
        yield Fact("serving.weight_rate", value, "GB/s", kind="derived", formula="a * 1.073741824 / b * 1000",
                   inputs=(size, time), status=size.status)  # fmt: skip


DERIVERS: list[Deriver] = [counters, weight_rate]
