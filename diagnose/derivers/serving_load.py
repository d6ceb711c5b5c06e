"""Arithmetic of load: how much was in flight, how full the limits were, and which of them binds.

Little's law needs no gauge: requests in the system are rate times time, so a client's result and the means of the
server's histograms say how many ran, even where both scrapes found an idle server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..derive import Deriver
from ..lazy import regex
from ..models import Fact, Subject
from ..units import percent
from .serving import buckets, by_server, last_and_first
from .stages import said, servers

_CAPS = regex(r"^(max-num-seqs|max-running-requests|max-batch-size|max-concurrent-requests)$")
WAITED = 0.1  # share of TTFT in the queue from which a limit is said to bind
WAITED_MS = 100.0
AT_ONCE = 20.0  # steps of decoding within which a first token came without waiting: its prefill takes some
FULL, ROOM = 0.9, 0.8  # of the KV cache
CHANGED, CHANGED_BY = 0.25, 4.0  # share and number of those in the system that a closed loop does not change by
FASTEST, SAMPLES = 0.05, 20.0  # of the requests: these waited for nobody; and how many have such a share
AT_CAP = 0.85  # of the limit, on the mean: a mean over ramp-up and drain lies below it


def _value(fact: Fact) -> float:
    return float(fact.value) if isinstance(fact.value, (int, float)) and not isinstance(fact.value, bool) else 0.0


def _one(facts: list[Fact], signal: str, *labels: str | None) -> Fact | None:
    """The reading of a signal if all documents agree on it (to one per cent)."""
    got = [f for f in facts if f.signal == signal and (not labels or f.subject.label in labels) and _value(f) > 0]
    if not got or max(map(_value, got)) > 1.01 * min(map(_value, got)):
        return None
    return max(got, key=lambda f: (len(repr(f.value)), f.spans[0].capture if f.spans else ""))


def cap(facts: list[Fact]) -> Fact | None:
    """The limit of running requests that the server was given or chose."""
    got = [f for f in facts if f.signal == "serving.max_num_seqs" and _value(f) >= 1]
    got += [
        f for f in facts
        if f.signal == "serving.arg" and _CAPS.match(f.subject.label or "") and re.fullmatch(r"\d+", str(f.value))
    ]  # fmt: skip
    return min(got, key=lambda f: float(str(f.value)), default=None)


def little(facts: list[Fact]) -> Iterator[Fact]:
    """Requests in flight, and of these in the queue, on the mean over a run."""
    rate = _one(facts, "serving.client.request_tput", None)
    if rate is None:
        return
    means = next(iter(servers(facts)), None)
    e2e = _one(facts, "serving.client.e2e", "mean") or (means.mean.get("e2e") if means else None)
    queue = means.mean.get("queue") if means else None
    for label, time in (("in the system", e2e), ("in the queue", queue)):
        if time is not None:
            value = _value(rate) * _value(time) / 1000
            yield Fact(
                "serving.in_flight", value, "count", Subject(label=label), kind="derived", formula="a * b / 1000",
                inputs=(rate, time), status=rate.status,
                statement=f"requests {label} on the mean: {value:.3g} (Little's law, "
                f"{_value(rate):.3g} req/s x {said(_value(time))})",
            )  # fmt: skip


def arrivals(facts: list[Fact]) -> Iterator[Fact]:
    """Requests that came a second, where the number in the system changed: so clients do not wait for each other.

    What came between two pages got its first token or waits for it.
    """
    for mine in by_server(facts).values():
        ends = last_and_first(mine, "ttft_count")
        if ends is None or ends[1] is None:
            continue
        last, first = (_of_page(facts, e) for e in (ends[0], ends[1]))
        if last is None or first is None:
            continue
        (after, ran, at), (before, _, since) = last, first
        grown, time = _value(after) - _value(before), _value(at) - _value(since)
        if time <= 0 or abs(grown) < max(CHANGED_BY, CHANGED * (_value(after) + _value(ran))):
            continue
        inputs = (ends[0], ends[1], after, before, at, since)
        yield Fact(
            "serving.arrival_rate", (_value(inputs[0]) - _value(inputs[1]) + grown) / time, "req/s", kind="derived",
            formula="(a - b + c - d) / (e - f)", inputs=inputs, status=after.status,
        )  # fmt: skip


def _of_page(facts: list[Fact], counter: Fact) -> tuple[Fact, Fact, Fact] | None:
    """Waiting, running and the time of the page that a counter stands on."""
    page = counter.spans[0].capture
    got = []
    for signal in ("serving.waiting", "serving.running", "serving.scraped"):
        here = [f for f in facts if f.signal == signal and f.spans and f.spans[0].capture == page]
        if len(here) != 1:
            return None
        got.append(here[0])
    return got[0], got[1], got[2]


def unhindered(facts: list[Fact]) -> Iterator[Fact]:
    """TTFT of those that waited for nobody, where requests were preempted: then time in prefill holds waiting too."""
    if not any(f.signal == "serving.preemptions" and f.subject.label == "total" and _value(f) > 0 for f in facts):
        return
    pages = [f for f in facts if f.signal == "serving.histogram" and f.subject.label == "ttft" and f.spans]
    page = max(pages, key=lambda f: buckets(str(f.value)).get("+Inf", 0.0), default=None)
    if page is None:
        return
    counts = buckets(str(page.value))
    total = counts.pop("+Inf", 0.0)
    edge = min((float(e) * 1000 for e, n in counts.items() if n >= FASTEST * total), default=None)
    if total >= SAMPLES and edge:
        yield Fact(
            "serving.unhindered_ttft", edge, "ms", kind="derived", formula="reader:serving_load", inputs=(page,),
            status=page.status, statement=f"TTFT of the fastest twentieth of {total:g} requests: at most {said(edge)}",
        )  # fmt: skip


def demand(facts: list[Fact]) -> Iterator[Fact]:
    """KV cache that the requests ask for over what there is."""
    tokens = [f for f in facts if f.signal == "serving.kv_tokens" and _value(f) > 0]
    means = next((s for s in servers(facts) if {"prompt_tokens", "output_tokens"} <= s.mean.keys()), None)
    flight = next((f for f in facts if f.signal == "serving.in_flight" and f.subject.label == "in the system"), None)
    if not tokens or means is None or flight is None:
        return
    pool = min(tokens, key=_value)
    prompt, answer = means.mean["prompt_tokens"], means.mean["output_tokens"]
    value = _value(flight) * (_value(prompt) + _value(answer)) / _value(pool)
    yield Fact(
        "serving.kv_demand", value, "fraction", kind="derived", formula="a * (b + c) / d",
        inputs=(flight, prompt, answer, pool), status=flight.status,
        statement=f"KV cache wanted by all requests in flight: {percent(value)} of what there is",
    )  # fmt: skip


def preempted(facts: list[Fact]) -> Iterator[Fact]:
    """Preemptions a finished request."""
    lost = next((f for f in facts if f.signal == "serving.preemptions" and f.subject.label == "total"), None)
    done = next((f for f in facts if f.signal == "serving.finished"), None)
    if lost is not None and done is not None and _value(lost) > 0 and _value(done) > 0:
        yield Fact("serving.preemption_rate", _value(lost) / _value(done), "count", kind="derived", formula="a / b",
                   inputs=(lost, done), status=lost.status)  # fmt: skip


def _queued(facts: list[Fact]) -> list[Fact]:
    """Readings that say requests waited: time in the queue beside TTFT, or many waiting at the worst moment."""
    for server in servers(facts):
        queue, ttft = server.mean.get("queue"), server.mean.get("ttft")
        if queue is not None and ttft is not None:
            if _value(queue) >= max(WAITED_MS, WAITED * _value(ttft)):
                return [queue, ttft]
            return []
        if 0 < server.ms("ttft") <= AT_ONCE * server.ms("itl"):
            return []  # a gauge shows who came within the last step; nobody waited for longer
    return [f for f in facts if f.signal == "serving.waiting" and f.subject.label == "peak" and _value(f) >= 1][:1]


def binds(facts: list[Fact]) -> Iterator[Fact]:
    """Which limit holds requests back: the cache, the limit of running requests, or neither (so: compute)."""
    queued = _queued(facts)
    if not queued:
        return
    running, used = _running(facts)
    limit = cap(facts)
    usage = max((f for f in facts if f.signal == "serving.kv_usage"), key=_value, default=None)
    wanted = next((f for f in facts if f.signal == "serving.kv_demand"), None)
    allowed = float(str(limit.value)) if limit is not None else 0.0
    full = usage is not None and _value(usage) >= FULL
    # an idle scrape says nothing of the cache under load; then the demand of what ran does
    loaded = usage if usage is not None and _value(usage) > 0.02 else wanted
    answer, why = "", list(queued)
    if limit is not None and running >= AT_CAP * allowed and (loaded is None or _value(loaded) < ROOM):
        answer, why = "max-num-seqs", [*why, limit, *used, *([loaded] if loaded else [])]
    elif full and usage is not None:
        answer, why = "KV cache", [*why, usage]
    elif wanted is not None and loaded is wanted and _value(wanted) >= 1:
        answer, why = "KV cache", [*why, wanted]
    elif limit is not None and loaded is not None and running and running < 0.5 * allowed and _value(loaded) < 0.5:
        answer, why = "compute", [*why, limit, *used, loaded]
    if answer:
        yield Fact(
            "serving.binds", answer, None, kind="derived", formula="reader:serving_load",
            inputs=tuple(dict.fromkeys(why)), status=queued[0].status, statement=_bound(answer, why),
        )  # fmt: skip


def _bound(answer: str, why: list[Fact]) -> str:
    """The limit with its value where it has one, and what waits."""
    value = next((f" {f.value}" for f in why if f.subject.label == answer), "")
    waits = next((f for f in why if f.signal == "serving.waiting"), None)
    return f"limit that holds requests back: {answer}{value}" + (f", {_value(waits):g} waiting" if waits else "")


def _running(facts: list[Fact]) -> tuple[float, list[Fact]]:
    """Requests running: at the worst moment, else on the mean by Little's law."""
    peak = [f for f in facts if f.signal == "serving.running" and f.subject.label == "peak" and _value(f) >= 1]
    if peak:
        best = max(peak, key=_value)
        return _value(best), [best]
    flight = {f.subject.label: f for f in facts if f.signal == "serving.in_flight"}
    if "in the system" in flight and "in the queue" in flight:
        both = [flight["in the system"], flight["in the queue"]]
        return _value(both[0]) - _value(both[1]), both
    return 0.0, []


def load(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Load of a run, limits in use, and which binds."""
    made: list[Fact] = []
    for step in (little, arrivals, demand, preempted, unhindered, binds):
        made.extend(step([*facts, *made]))
    return made


DERIVERS: list[Deriver] = [load]
