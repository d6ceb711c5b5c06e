"""Where the time of a request goes, on the mean: parts that add up to the whole, with an explicit rest.

Means add, percentiles do not: parts of a mean are differences of sums over differences of counts, and
what an engine does not expose is `residual`. The tiers of one request lie inside each other: what the client
saw contains the frontend's time, that contains the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..derive import Deriver
from ..models import Fact, Subject
from .serving import Window, by_server, tier, window

_SERVER = "serving.server."
_FETCHED = "serving.external_hit_rate"
_SLACK = 0.02  # share by which parts may exceed the whole before they are not of the same requests
_SAME_COUNT = 0.05  # share by which a client's and a server's numbers of requests may differ: warm-up, one probe
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def said(ms: float) -> str:
    """A time as one says it."""
    return f"{ms / 1000:.3g} s" if abs(ms) >= 1000 else f"{ms:.3g} ms"


@dataclass
class _Server:
    """Mean times of one process, and how many requests they are means of."""

    tier: str
    place: str = ""  # its address, where the page says it
    mean: dict[str, Fact] = field(default_factory=dict)
    requests: Fact | None = None
    prefill: _Server | None = None  # the server that computes this one's prompts
    arriving: Fact | None = None  # mean time in which a prompt's KV arrives here
    fetched: Fact | None = None  # share of the tokens not cached here that came from elsewhere

    def ms(self, stem: str) -> float:
        """A mean, 0 where there is none."""
        fact = self.mean.get(stem)
        return float(fact.value or 0) if fact else 0.0

    @property
    def count(self) -> float:
        """Requests behind the means."""
        return float(self.requests.value or 0) if self.requests else 0.0

    @property
    def window(self) -> str:
        """Over which time the means are."""
        fact = self.mean.get("ttft") or next(iter(self.mean.values()))
        if fact.kind != "derived":
            return "as stated"
        return "between two scrapes" if len(fact.inputs) >= 4 else "since the server started"


def servers(facts: list[Fact]) -> list[_Server]:
    """Means by process, the busiest first; means that somebody wrote down count as one process a document."""
    home = {id(f): key for key, mine in by_server(facts).items() for f in mine}
    found: dict[object, _Server] = {}
    for fact in facts:
        if not fact.signal.startswith((_SERVER, _FETCHED)) or not isinstance(fact.value, float):
            continue
        stem = fact.signal.removeprefix(_SERVER)
        if fact.kind == "derived" and fact.inputs:
            key: object = home.get(id(fact.inputs[0]), home.get(id(_first(fact.inputs[0]))))
        elif fact.subject.label == "mean" and fact.spans:
            key = fact.spans[0].capture
        else:
            continue
        if key is None:
            continue
        place = key[0][1] if isinstance(key, tuple) else ""
        server = found.setdefault(key, _Server(tier(fact), place))
        if stem == "requests":
            server.requests = fact
        elif stem == _FETCHED:
            server.fetched = fact
        else:
            server.mean.setdefault(stem, fact)
    return sorted((s for s in found.values() if s.mean), key=lambda s: (-s.count, -s.ms("e2e"), -s.ms("ttft")))


def _first(fact: Fact) -> Fact:
    """The reading at the bottom of a sum."""
    return _first(fact.inputs[0]) if fact.inputs else fact


def _client(facts: list[Fact], signal: str, server: _Server | None) -> Fact | None:
    """The client's mean, if there is one run and it is of the requests that the server counted."""
    got = [f for f in facts if f.signal == signal and f.subject.label == "mean" and isinstance(f.value, float)]
    if not got:
        return None
    values = [float(f.value or 0) for f in got]
    if max(values) > 1.01 * min(values):  # several runs: which one the pages are about is not known
        return None
    best = max(got, key=lambda f: (len(repr(f.value)), f.spans[0].capture if f.spans else ""))
    sent = [float(f.value or 0) for f in facts if f.signal == "serving.client.prompts" and isinstance(f.value, float)]
    if server is None or not sent or not server.count:
        return best
    return best if abs(server.count - max(sent)) <= max(2.0, _SAME_COUNT * max(sent)) else None


@dataclass
class _Chain:
    """The parts of one metric, in the order in which they happen."""

    metric: str
    window: str
    parts: list[tuple[str, Fact]] = field(default_factory=list)

    def add(self, stage: str, fact: Fact | None) -> None:
        """A stage whose mean is a reading of its own."""
        if fact is not None:
            self.parts.append((stage, fact))

    def minus(self, stage: str, whole: Fact | None, *less: Fact | None) -> None:
        """A stage that is a difference of readings; left out when it is clearly negative."""
        used = [f for f in less if f is not None]
        if whole is None:
            return
        value = float(whole.value or 0) - sum(float(f.value or 0) for f in used)
        if value < -_SLACK * float(whole.value or 0):
            return
        self.parts.append((stage, self._difference(stage, whole, used)))

    def _difference(self, stage: str, whole: Fact, used: list[Fact]) -> Fact:
        value = float(whole.value or 0) - sum(float(f.value or 0) for f in used)
        inputs = (whole, *used)
        return Fact(
            "serving.stage_mean", value, "ms", Subject(label=f"{self.metric}: {stage}"), kind="derived",
            formula=" - ".join(_LETTERS[: len(inputs)]), inputs=inputs, status=whole.status,
            statement=f"{self.metric.upper()}, {stage}: {said(value)} on the mean, {self.window}",
        )  # fmt: skip

    def close(self, total: Fact) -> Iterator[Fact]:
        """Facts of the parts and of what is left; nothing when the parts exceed the whole."""
        whole = float(total.value or 0)
        known = [f for _, f in self.parts]
        if not known or whole <= 0 or sum(float(f.value or 0) for f in known) > (1 + _SLACK) * whole:
            return
        yield Fact(
            "serving.stage_total", whole, "ms", Subject(label=self.metric), kind="derived", formula="a",
            inputs=(total,), status=total.status,
            statement=f"mean {self.metric.upper()}: {said(whole)}, {self.window}",
        )  # fmt: skip
        for stage, fact in self.parts:
            if fact.signal == "serving.stage_mean":
                yield fact
                continue
            value = float(fact.value or 0)
            yield Fact(
                "serving.stage_mean", value, "ms", Subject(label=f"{self.metric}: {stage}"), kind="derived",
                formula="a", inputs=(fact,), status=fact.status,
                statement=f"{self.metric.upper()}, {stage}: {said(value)} on the mean, {self.window}",
            )  # fmt: skip
        if len(known) < len(_LETTERS):
            yield self._difference("residual", total, known)


def _prefill_of(engine: _Server | None, engines: list[_Server]) -> _Server | None:
    """The server that computes the prompts for this one, where prefill and decode are apart: one token each."""
    if engine is None or engine.ms("output_tokens") <= 1:
        return None
    near = [
        s for s in engines
        if s is not engine and s.ms("output_tokens") == 1 and "e2e" in s.mean
        and abs(s.count - engine.count) <= max(2.0, _SAME_COUNT * engine.count)
    ]  # fmt: skip
    return near[0] if len(near) == 1 else None


def _engine_parts(chain: _Chain, engine: _Server) -> None:
    """Stages up to the first token that an engine times."""
    mean = engine.mean
    if "process" in mean:
        chain.add("before the queue", mean["process"])
    elif {"e2e", "queue"} <= mean.keys() and ("inference" in mean or {"prefill", "decode"} <= mean.keys()):
        inside = (mean["inference"],) if "inference" in mean else (mean["prefill"], mean["decode"])
        chain.minus("API server", mean["e2e"], mean["queue"], *inside)
    _wait(chain, engine)
    chain.add("prefill", mean.get("prefill"))
    chain.add("KV transfer", mean.get("kv_transfer") or engine.arriving)


def _wait(chain: _Chain, engine: _Server) -> None:
    """Time in the queue, less that for a prompt's KV to arrive, which vLLM counts as waiting."""
    queue = engine.mean.get("queue")
    if queue is not None and engine.arriving is not None:
        if float(queue.value or 0) > float(engine.arriving.value or 0):
            chain.minus("queue", queue, engine.arriving)
    else:
        chain.add("queue", queue)


def decompose(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """TTFT, TPOT and the whole request by stage."""
    found = servers(facts)
    fronts = [s for s in found if s.tier == "frontend"]
    engines = [s for s in found if s.tier == "engine"]
    front = fronts[0] if fronts else None
    engine = engines[0] if engines and (len(engines) == 1 or front is None) else None
    if engine is not None and engine.ms("output_tokens") == 1:  # the one that decodes is what the user waits for
        engine = next((s for s in engines if _prefill_of(s, engines) is engine), engine)
    if engine is not None:
        engine.prefill = _prefill_of(engine, engines)
        engine.arriving = _arriving(facts, engine)
        yield from _handed_over(engine)
    yield from _ttft(facts, front, engine)
    yield from _tpot(facts, front, engine)
    yield from _e2e(facts, front, engine)


def _handed_over(engine: _Server) -> Iterator[Fact]:
    """Of the prompts that another server computed, the share that this one fetched instead of computing it again."""
    if engine.prefill is None or engine.fetched is None:
        return
    inputs = (engine.fetched, engine.prefill.mean["output_tokens"], engine.mean["output_tokens"])
    yield Fact(
        "serving.handed_over", engine.fetched.value, "fraction", kind="derived", formula="a", inputs=inputs,
        status=engine.fetched.status,
        statement=f"{float(engine.fetched.value or 0):.0%} of the prompt tokens that the decode server had not cached "
        "came from the server that prefills",
    )  # fmt: skip


def _arriving(facts: list[Fact], engine: _Server) -> Fact | None:
    """Mean time of a KV transfer of this server, by its own page, if it fits into its queue."""
    queue = engine.mean.get("queue")
    if queue is None:
        return None
    pages = {s.capture for f in queue.inputs for s in f.spans}
    own = [
        f for f in facts
        if f.signal == "kv.xfer_time" and isinstance(f.value, float) and f.spans and f.spans[0].capture in pages
        and "_seconds" in (f.subject.label or "")
    ]  # fmt: skip
    best = max(own, key=lambda f: float(f.value or 0), default=None)
    return best if best is not None and float(best.value or 0) <= 1.02 * engine.ms("queue") else None


def _outer(
    chain: _Chain, facts: list[Fact], stem: str, front: _Server | None, engine: _Server | None
) -> Fact | None:  # fmt: skip
    """Add what lies outside the engine; returns the outermost mean."""
    inner = engine.mean.get(stem) if engine else None
    middle = front.mean.get(stem) if front else None
    server = middle or inner
    if server is None:
        return None
    client = _client(facts, f"serving.client.{stem}", front or engine)
    before = len(chain.parts)
    prefill = engine.prefill if engine is not None and front is None and stem in ("ttft", "e2e") else None
    if client is not None and prefill is not None:
        chain.minus("client and network", client, server, prefill.mean["e2e"])
        if len(chain.parts) > before:
            chain.add("prefill server", prefill.mean["e2e"])
    elif client is not None:
        chain.minus("client and network", client, server)
    total = client if client is not None and len(chain.parts) > before else server
    if front is not None and middle is not None and inner is not None:
        tokenise = front.mean.get("tokenize") if stem == "ttft" else None
        gap = float(middle.value or 0) - float(inner.value or 0)
        if tokenise is not None and float(tokenise.value or 0) <= gap:
            chain.add("tokenise", tokenise)
            chain.minus("frontend and router", middle, inner, tokenise)
        else:
            chain.minus("frontend and router", middle, inner)
    return total


def _ttft(facts: list[Fact], front: _Server | None, engine: _Server | None) -> Iterator[Fact]:
    for whole in (True, False):  # without the API server's share where that does not fit
        chain = _Chain("ttft", (engine or front or _Server("")).window if engine or front else "")
        total = _outer(chain, facts, "ttft", front, engine)
        if total is None:
            return
        if engine is not None and "ttft" in engine.mean:
            _engine_parts(chain, engine)
            if not whole:
                chain.parts = [p for p in chain.parts if p[0] != "API server"]
        made = list(chain.close(total))
        if made:
            yield from made
            return


def _tpot(facts: list[Fact], front: _Server | None, engine: _Server | None) -> Iterator[Fact]:
    """Per request where the engine counts so (as clients do), else pooled over all tokens."""
    for stem in ("tpot", "itl"):
        chain = _Chain("tpot", (engine or front or _Server("")).window if engine or front else "")
        total = _outer(chain, facts, stem, front, engine)
        if total is None:
            continue
        inner = engine.mean.get(stem) if engine else None
        chain.add("decode step", inner or (front.mean.get(stem) if front else None))
        yield from chain.close(total)
        return


def _e2e(facts: list[Fact], front: _Server | None, engine: _Server | None) -> Iterator[Fact]:
    if engine is None and front is None:
        return
    chain = _Chain("e2e", (engine or front or _Server("")).window)
    total = _outer(chain, facts, "e2e", front, engine)
    if total is None or engine is None:
        return
    mean = engine.mean
    chain.add("before the queue", mean.get("process"))
    _wait(chain, engine)
    chain.add("KV transfer", engine.arriving)
    if {"prefill", "decode"} <= mean.keys():
        chain.add("prefill", mean["prefill"])
        chain.add("decode", mean["decode"])
    elif "inference" in mean:
        chain.add("inference", mean["inference"])
    elif "ttft" in mean and "queue" not in mean and "e2e" in mean:
        chain.add("first token", mean["ttft"])
        chain.minus("decode", mean["e2e"], mean["ttft"])
    yield from chain.close(total)


# ---------------------------------------------------------------- percentiles and tails

_METRIC = {"ttft": "ttft", "queue": "ttft", "prefill": "ttft", "tpot": "tpot", "itl": "tpot", "e2e": "e2e"}
_STAGE = {"ttft": "whole", "queue": "queue", "prefill": "prefill", "tpot": "whole", "itl": "whole", "e2e": "whole"}
_TAIL_SAMPLES = 100  # fewer requests have no p99


def percentiles(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Bounds of p50 and p99 of each stage from histogram buckets: between two edges, and never additive."""
    for (_, kind), mine in by_server(facts).items():
        done: set[tuple[str, str]] = set()
        for stem, metric in _METRIC.items():
            seen = window(mine, stem) if (metric, _STAGE[stem]) not in done else None
            if seen is None:
                continue
            done.add((metric, _STAGE[stem]))
            for share in (0.5, 0.99) if seen.total >= _TAIL_SAMPLES else (0.5, 0.9):
                yield _bound(metric, _STAGE[stem], kind, share, seen)


def _bound(metric: str, stage: str, kind: str, share: float, seen: Window) -> Fact:
    edges, last = seen.edges, seen.inputs[0]
    at = next((i for i, (_, n) in enumerate(edges) if n >= share * seen.total), len(edges) - 1)
    low, high = (edges[at - 1][0] if at else 0.0) * 1000, edges[at][0] * 1000
    open_end = high == float("inf")
    where = f"above {said(low)}" if open_end else f"between {said(low)} and {said(high)}"
    name = f"p{share * 100:g}"
    return Fact(
        "serving.stage_percentile", low if open_end else high, "ms",
        Subject(label=f"{metric} {name}: {stage}{' of the frontend' if kind == 'frontend' else ''}"), kind="derived",
        formula="reader:serving_histogram", inputs=seen.inputs, spans=last.spans, status=last.status,
        statement=f"{name} of {metric.upper()}, {stage}: {where} (bounds of a bucket, {seen.total:g} requests; "
        "percentiles of stages do not add up)",
    )  # fmt: skip


def tails(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """The slowest requests of a trace by stage: their own means, so they add up again."""
    by_place: dict[str, dict[str, Fact]] = {}
    for fact in facts:
        if fact.signal == "serving.tail" and fact.spans and fact.subject.label:
            by_place.setdefault(fact.spans[0].capture, {})[fact.subject.label] = fact
    for got in list(by_place.values())[:1]:
        if "ttft" not in got:
            continue
        chain = _Chain("ttft tail", f"over the slowest {got['ttft'].count} requests")
        for stage in ("queue", "prefill"):
            chain.add(stage, got.get(stage))
        yield from chain.close(got["ttft"])


DERIVERS: list[Deriver] = [decompose, percentiles, tails]
