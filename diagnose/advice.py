"""What a change would buy: predicted effect, cost and rollback from the measured point and the floors.

Nothing is predicted without its inputs. Every figure of a text is an evidence: a reading, or a derived one whose
formula stands in the report, so that `verify` recomputes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import floors, limits_serving
from .hardware import nvlink_rate
from .limits_base import Book, product
from .models import Advice, Evidence, Limit, Subject

_CAPS = r"max-num-seqs|max-running-requests|max-batch-size|max-concurrent-requests"
_FULL = 0.9  # of the cache; beyond it requests are preempted
_MOST = 1024  # the largest limit that is proposed
_LOADED = 0.8  # of its throughput is what a replica is planned for
_GRAPHS = 2  # times the weight read: what healthy servers of small batches stay under


@dataclass
class Desk:
    """Evidence by signal, and the derived figures that are made from it on the way."""

    evidence: list[Evidence]
    limits: list[Limit]
    made: list[Evidence] = field(default_factory=list)
    book: Book = field(init=False)

    def __post_init__(self) -> None:
        self.book = Book(self.evidence)

    def one(self, signal: str, *labels: str | None) -> Evidence | None:
        """The reading of a signal that all documents agree on, the most precise one."""
        got = [e for v, e in self.book.numbers(signal) if v > 0 and (not labels or e.subject.label in labels)]
        if not got or max(map(number, got)) > 1.01 * min(map(number, got)):
            return None
        return max(got, key=lambda e: (len(repr(e.value)), e.id))

    def derive(self, what: str, formula: str, unit: str, *inputs: Evidence, statement: str = "") -> Evidence:
        """A predicted figure as evidence."""
        value = evaluate(formula, inputs)
        last = max((int(e.id[1:]) for e in (*self.evidence, *self.made) if e.id[1:].isdigit()), default=0)
        known = next((e for e in self.made if e.subject.label == what and e.formula == formula), None)
        if known is not None and known.inputs == [i.id for i in inputs]:
            return known
        item = Evidence(
            id=f"E{last + 1}", kind="derived", signal="serving.predicted", subject=Subject(label=what), value=value,
            unit=unit, formula=formula, inputs=[i.id for i in inputs],
            statement=statement or f"{what}: {said(value, unit)}",
            status=sorted({s for i in inputs for s in i.status}),
        )  # fmt: skip
        self.made.append(item)
        return item


def number(item: Evidence) -> float:
    """The figure of an evidence; figures that stand in options are text."""
    return float(str(item.value).replace(",", "")) if not isinstance(item.value, bool) else 0.0


def evaluate(formula: str, inputs: Iterable[Evidence]) -> float:
    """The value of a formula over the inputs."""
    from .arithmetic import evaluate as arithmetic

    return arithmetic(formula, [number(i) for i in inputs])


def said(value: float, unit: str) -> str:
    """A figure as one says it: two digits, or all before the point."""
    if unit == "fraction":
        return f"{value * 100:.0f} %"
    if unit == "ms" and abs(value) >= 1000:
        return f"{_digits(value / 1000)} s"
    return _digits(value) if unit == "count" else f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 10 or value == int(value) else f"{value:.1f}" if size >= 1 else f"{value:.2g}"


@dataclass(frozen=True)
class Point:
    """The measured operating point."""

    desk: Desk
    queue: Evidence | None
    tpot: Evidence | None
    prefill: Evidence | None
    prompt: Evidence | None
    answer: Evidence | None
    running: Evidence | None
    offered: Evidence | None
    pool: Evidence | None
    rate: float | None  # requests a second of an open loop
    seen_rate: Evidence | None = None  # ... as the server saw them come

    @classmethod
    def of(cls, desk: Desk) -> Point:
        """Read it from the evidence."""
        tpot = (
            desk.one("serving.server.tpot", "mean") or desk.one("serving.server.itl", "mean")
            or desk.one("serving.client.tpot", "mean")
        )  # fmt: skip
        rates = {str(e.value) for e in desk.book.of("serving.client.request_rate")}
        told = rates.pop() if len(rates) == 1 else ""
        seen = desk.one("serving.arrival_rate") if not rates and not told else None
        if seen is not None:
            told = repr(round(number(seen), 3))
        pool = min(desk.book.numbers("serving.kv_tokens"), key=lambda n: n[0], default=None)
        return cls(
            desk, desk.one("serving.server.queue", "mean"), tpot, _prefill(desk),
            desk.one("serving.server.prompt_tokens", "mean"), desk.one("serving.server.output_tokens", "mean"),
            _running(desk), _offered(desk), pool[1] if pool else None,
            float(told) if re.fullmatch(r"\d+(\.\d+)?", told) and float(told) > 0 else None, seen,
        )  # fmt: skip

    @property
    def length(self) -> Evidence | None:
        """Tokens of a whole request."""
        if self.prompt is None or self.answer is None:
            return None
        return self.desk.derive("tokens of a request", "a + b", "count", self.prompt, self.answer)


def _prefill(desk: Desk) -> Evidence | None:
    """Time of a prefill; where preempted requests wait in it, no more than the fastest requests took in all."""
    mean, fast = desk.one("serving.server.prefill", "mean"), desk.one("serving.unhindered_ttft")
    if mean is None or fast is None or number(fast) >= number(mean):
        return mean
    return desk.derive("prefill without preemption", "min(a, b)", "ms", mean, fast)


def _running(desk: Desk) -> Evidence | None:
    flight = {e.subject.label: e for e in desk.book.of("serving.in_flight")}
    whole, queue = flight.get("in the system"), flight.get("in the queue")
    if whole is not None and queue is not None:
        return desk.derive("running on the mean", "a - b", "count", whole, queue)
    return _peak(desk, "serving.running")


def _peak(desk: Desk, signal: str) -> Evidence | None:
    """The highest of all readings of a gauge."""
    got = [(v, e) for v, e in desk.book.numbers(signal) if v > 0 and e.subject.label == "peak"]
    return max(got, key=lambda n: n[0], default=(0.0, None))[1]


def _offered(desk: Desk) -> Evidence | None:
    """Requests at once that the clients would have running if they were let in."""
    peak = desk.one("serving.client.peak_concurrency")
    if peak is not None:
        return peak
    running, waiting = _peak(desk, "serving.running"), _peak(desk, "serving.waiting")
    if running is not None and waiting is not None:
        return desk.derive("offered at once", "a + b", "count", running, waiting)
    return next((e for e in desk.book.of("serving.in_flight") if e.subject.label == "in the system"), None)


def _cache_read(point: Point) -> tuple[float, str]:
    """Milliseconds that one more running request adds to a step by its cache alone, and what that rests on."""
    book = Book(point.desk.evidence)
    model, _ = limits_serving.model_shape(book)
    tp, _ = limits_serving.tensor_parallel(book)
    got = product(book)
    if model is None or got.gpu is None or point.prompt is None or point.answer is None:
        return 0.0, "reads of the cache not counted: model or GPU are not known"
    context = number(point.prompt) + number(point.answer) / 2
    each = floors.kv_per_token(model, limits_serving.kv_bytes(book), tp).value
    return round(context * each / (got.gpu.memory * 1e6), 6), ""


def _tpot_with(point: Point, running: Evidence) -> tuple[Evidence, str] | None:
    """TPOT with as many running: each one more adds its cache read, and its prefill to everybody's tokens.

    A step with a prefill in it takes the prefill's time instead of its own; a request sees the prefills of
    the others spread over its own tokens.
    """
    tpot, prefill, now, answer = point.tpot, point.prefill, point.running, point.answer
    if tpot is None or prefill is None or now is None or answer is None or number(answer) < 1:
        return None
    cache, missing = _cache_read(point)
    formula = f"a + max(b - c, 0) * ({cache} + max(d - a, 0) / e)"
    return point.desk.derive("TPOT afterwards", formula, "ms", tpot, running, now, prefill, answer), missing


def _open_loop(point: Point) -> Evidence | None:
    """Running requests at a fixed rate once nobody waits: Little's law with a TPOT that rises with them."""
    tpot, prefill, now, answer, rate = point.tpot, point.prefill, point.running, point.answer, point.rate
    if rate is None or tpot is None or prefill is None or now is None or answer is None:
        return None
    cache, _ = _cache_read(point)
    k = f"({cache} + max(c - a, 0) / d)"  # a: TPOT, b: running, c: prefill, d: output tokens
    left = f"1 - {k} * {rate} * d / 1000"
    if evaluate(left, (tpot, now, prefill, answer)) <= 0.05:
        return None  # no batch is large enough for this rate
    formula = f"{rate} * (c + d * (a - b * {k})) / 1000 / ({left})"
    return point.desk.derive("running afterwards", formula, "count", tpot, now, prefill, answer)


def _after(point: Point) -> Evidence | None:
    """How many would run if the limit did not hold them back."""
    got = _open_loop(point) if point.rate is not None else point.offered
    return got if got is not None and number(got) > 0 else None


def _most(point: Point, after: Evidence) -> Evidence:
    """How many run at times: arrivals of an open loop are random, so three deviations above the mean."""
    if point.rate is None:
        return after
    return point.desk.derive("running at most", f"a + 3 * {round(math.sqrt(number(after)), 3)}", "count", after)


def _first_token(point: Point) -> tuple[str, list[Evidence]] | None:
    """TTFT without the queue: its other stages added up.

    Where the queue grew the rest that no stage explains is left out: means of the queue are of those that finished.
    """
    stages = {
        (e.subject.label or "").removeprefix("ttft: "): e for e in point.desk.book.of("serving.stage_mean")
        if (e.subject.label or "").startswith("ttft: ")
    }  # fmt: skip
    total = next((e for e in point.desk.book.of("serving.stage_total") if e.subject.label == "ttft"), None)
    if total is None or point.prefill is None or not {"queue", "prefill"} <= stages.keys():
        return None
    left = {"queue", "prefill"} | ({"residual"} if point.seen_rate is not None else set())
    parts = [point.prefill, *(e for name, e in stages.items() if name not in left)]
    formula = " + ".join("abcdefghijklmnopqrstuvwxyz"[: len(parts)])
    then = point.desk.derive("TTFT afterwards", formula, "ms", *parts)
    if number(then) >= number(total):
        return None
    return f"TTFT {said(number(total), 'ms')} to about {said(number(then), 'ms')}", [total, then, *parts]


def _effects(point: Point, after: Evidence, pool: Evidence | None) -> tuple[list[str], list[Evidence], str]:
    """What changes when `after` requests run: queue, TPOT, share of the cache."""
    texts, used, note = [], [after, *([point.seen_rate] if point.seen_rate else [])], ""
    first = _first_token(point)
    if first is not None:
        texts.append(first[0])
        used += first[1]
    if point.queue is not None:
        texts.append(_no_queue(point.queue))
        used += _queue(point, point.queue)
    tpot = _tpot_with(point, after)
    if tpot is not None and point.tpot is not None:
        texts.append(f"TPOT {said(number(point.tpot), 'ms')} to {said(number(tpot[0]), 'ms')}")
        used += [point.tpot, tpot[0]]
        note = tpot[1]
    length = point.length
    if pool is not None and length is not None and point.running is not None:
        now = point.desk.derive("share of the cache now", "a * b / c", "fraction", point.running, length, pool)
        then = point.desk.derive("share of the cache afterwards", "a * b / c", "fraction", after, length, pool)
        shares = [said(number(share), "fraction") for share in (now, then)]
        if shares[0] != shares[1]:
            texts.append("KV cache " + " to ".join(shares))
            used += [now, then]
    return texts, used, note


def _queue(point: Point, now: Evidence) -> list[Evidence]:
    """The time in the queue, and none of it."""
    return [now, point.desk.derive("queue afterwards", "a * 0", "ms", now)]


def _no_queue(now: Evidence) -> str:
    return f"queue {said(number(now), 'ms')} to about 0 ms"


def _raise_limit(point: Point) -> Advice | None:
    """`--max-num-seqs` up to what is offered, or to what the cache holds."""
    caps = [
        e for e in point.desk.book.of("serving.arg")
        if re.fullmatch(_CAPS, e.subject.label or "") and re.fullmatch(r"\d+", str(e.value))
    ]  # fmt: skip
    cap = min(caps, key=number, default=None)
    after = _after(point)
    if cap is None or after is None or number(after) <= number(cap):
        return None
    most = _most(point, after)
    wanted = min(_MOST, 2 ** math.ceil(math.log2(number(most))))
    fits = None
    if point.pool is not None and point.length is not None:
        fits = point.desk.derive("requests that the cache holds", f"{_FULL} * a / b", "count", point.pool, point.length)
        wanted = min(wanted, int(number(fits)))
        if number(fits) < number(after):
            after = fits
    if wanted <= number(cap):
        return None
    limit = point.desk.derive("limit proposed", str(wanted), "count")
    texts, used, note = _effects(point, after, point.pool)
    if not texts:
        return None
    return Advice(
        change=f"--{cap.subject.label} {cap.value} to {said(number(limit), 'count')}", predicted=", ".join(texts),
        cost="; ".join(filter(None, ["every running request waits a little longer for each token", note])),
        rollback=f"--{cap.subject.label} {cap.value}", evidence=_ids([cap, limit, *used, *([fits] if fits else [])]),
    )  # fmt: skip


def _enlarge_cache(point: Point) -> Advice | None:
    """A cache for all that is offered at once."""
    after, length = _after(point), point.length
    if after is None or length is None or point.pool is None:
        return None
    most = _most(point, after)
    wanted = point.desk.derive("tokens of cache wanted", f"a * b / {_FULL}", "count", most, length)
    if number(wanted) <= number(point.pool):
        return None
    option = next((e for e in point.desk.book.of("serving.arg") if e.subject.label == "num-gpu-blocks-override"), None)
    share = next((e for e in point.desk.book.of("serving.arg")
                  if e.subject.label in ("gpu-memory-utilization", "mem-fraction-static")), None)  # fmt: skip
    how, back = "more memory for the cache (shorter maximum length, FP8 cache, more GPUs)", "restore the former setting"
    if option is not None:
        how, back = f"drop --num-gpu-blocks-override {option.value}", f"--num-gpu-blocks-override {option.value}"
    elif share is not None:
        how, back = f"raise --{share.subject.label} from {share.value}", f"--{share.subject.label} {share.value}"
    texts, used, note = _effects(point, after, None)
    texts.append(f"cache {said(number(point.pool), 'count')} to at least {said(number(wanted), 'count')} tokens")
    told = [e for e in (option or share,) if e is not None]
    return Advice(
        change=how, predicted=", ".join(texts), rollback=back,
        cost="; ".join(filter(None, ["memory that nothing else may use", note])),
        evidence=_ids([*told, point.pool, wanted, *used]),
    )  # fmt: skip


def _graphs(point: Point) -> Advice | None:
    """CUDA graphs on: between the floor of the step and twice that."""
    limit = next((x for x in point.desk.limits if x.what.startswith(("decode stage", "TPOT of a decode step"))
                  and x.limit and x.ratio), None)  # fmt: skip
    if limit is None or limit.limit is None or point.tpot is None or number(point.tpot) <= _GRAPHS * limit.limit:
        return None
    low = point.desk.derive("floor of the step", f"{limit.limit}", "ms")
    high = point.desk.derive("TPOT with graphs at most", f"{_GRAPHS} * {limit.limit}", "ms")
    eager = any(e.subject.label == "enforce-eager" for e in point.desk.book.of("serving.arg"))
    return Advice(
        change="CUDA graphs on", rollback="--enforce-eager" if eager else "the former setting",
        predicted=f"TPOT {said(number(point.tpot), 'ms')} to between {said(number(low), 'ms')} and "
        f"{said(number(high), 'ms')}",
        cost="a longer start-up and a few GiB for the graphs",
        evidence=_ids([point.tpot, low, high, *_named(point, limit)]),
    )  # fmt: skip


def _named(point: Point, limit: Limit) -> list[Evidence]:
    return [e for e in point.desk.evidence if e.id in limit.evidence]


def _replicas(point: Point) -> Advice | None:
    """As many replicas as the offered rate needs; for a burst, no more in flight than run anyway."""
    done = point.desk.one("serving.client.request_tput", None)
    if done is None or point.queue is None:
        return None
    if point.rate is not None and point.rate > number(done):
        count = math.ceil(point.rate / (_LOADED * number(done)))
        if count < 2:
            return None
        share = point.desk.derive("rate of one replica planned for", f"{_LOADED} * a", "req/s", done)
        need = point.desk.derive("replicas", str(count), "count")
        told = point.desk.book.of("serving.client.request_rate")[:1]
        return Advice(
            change=f"{count} replicas, or {said(number(share), 'req/s')} at most for this one",
            predicted=_no_queue(point.queue),
            cost="GPUs, or requests turned away", rollback="remove them",
            evidence=_ids([done, share, need, *_queue(point, point.queue), *told]),
        )  # fmt: skip
    if point.running is None or number(point.running) < 1:
        return None
    return Advice(
        change=f"no more than {said(number(point.running), 'count')} requests in flight at the client or gateway",
        predicted=f"{_no_queue(point.queue)} in the engine, still {said(number(done), 'req/s')}",
        cost="requests wait or are refused before the server instead", rollback="remove the cap",
        evidence=_ids([point.running, done, *_queue(point, point.queue)]),
    )  # fmt: skip


def _split_prefill(point: Point) -> Advice | None:
    """Twice the tensor parallel ranks: half the arithmetic of a prefill, and its all-reduces."""
    limit = next((x for x in point.desk.limits if x.what.startswith("prefill stage") and x.limit), None)
    book = Book(point.desk.evidence)
    model, _ = limits_serving.model_shape(book)
    tp, _ = limits_serving.tensor_parallel(book)
    got = product(book)
    tokens = point.desk.one("serving.server.computed_tokens", "mean") or point.prompt
    if (
        limit is None
        or limit.limit is None
        or model is None
        or got.gpu is None
        or tokens is None
        or point.prefill is None
    ):
        return None
    rate = nvlink_rate(got.gpu.cc) if got.gpu.switched and got.gpu.links else None
    if rate is None or model.heads % (2 * tp):
        return None
    busbw = floors.ring_nvlink(got.gpu.links, rate.value).value
    comms = round(floors.tp_comms(model, round(number(tokens)), 2 * tp, busbw, 0.0).value, 3)
    after = point.desk.derive("prefill with twice the ranks", f"a / 2 + {comms}", "ms", point.prefill)
    if number(after) >= number(point.prefill):
        return None
    now, then = (point.desk.derive(f"tensor parallel ranks {when}", str(n), "count")
                 for when, n in (("now", tp), ("afterwards", 2 * tp)))  # fmt: skip
    return Advice(
        change=f"tensor parallel {tp} to {2 * tp}",
        predicted=f"prefill {said(number(point.prefill), 'ms')} to {said(number(after), 'ms')}",
        cost="twice the GPUs a replica", rollback=f"tensor parallel {tp}",
        evidence=_ids([point.prefill, tokens, after, now, then]),
    )  # fmt: skip


def _nearer_client(point: Point) -> Advice | None:
    """What the server itself measured is what is left without client, proxy and network."""
    outside = next((e for e in point.desk.book.of("serving.stage_mean")
                    if e.subject.label == "ttft: client and network"), None)  # fmt: skip
    total = next((e for e in point.desk.book.of("serving.stage_total") if e.subject.label == "ttft"), None)
    if outside is None or total is None or number(outside) < 0.2 * number(total):
        return None
    inside = point.desk.derive("TTFT at the server", "a - b", "ms", total, outside)
    return Advice(
        change="take the client or proxy out of the way (more client processes, streaming without buffering)",
        predicted=f"TTFT {said(number(total), 'ms')} to about {said(number(inside), 'ms')}, what the server measured",
        cost="none at the server", rollback="the former client", evidence=_ids([total, outside, inside]),
    )  # fmt: skip


def _ids(items: Iterable[Evidence]) -> list[str]:
    return list(dict.fromkeys(e.id for e in items))


_FOR: dict[str, Callable[[Point], Advice | None]] = {
    "serving.max_num_seqs_low": _raise_limit,
    "serving.kv_capacity_low": _enlarge_cache,
    "serving.kv_cache_exhausted": _enlarge_cache,
    "serving.cuda_graphs_off": _graphs,
    "serving.queueing_saturation": _replicas,
    "serving.long_prompt_prefill": _split_prefill,
    "serving.client_or_proxy": _nearer_client,
}


def advise(evidence: list[Evidence], limits: list[Limit], causes: Iterable[str]) -> tuple[list[Advice], list[Evidence]]:
    """Advice for accepted causes, most likely first, and the derived evidence that its figures rest on."""
    wanted = [make for cause in causes if (make := _FOR.get(cause))]
    if not wanted:
        return [], []
    desk = Desk(evidence, limits)
    point = Point.of(desk)
    if wanted[0] is not _replicas:  # where a limit holds requests back, more servers are not what is missing
        wanted = [w for w in wanted if w is not _replicas]
    out = [a for make in dict.fromkeys(wanted) if (a := make(point)) is not None]
    cited = {i for a in out for i in a.evidence}
    for item in reversed(desk.made):  # an intermediate figure counts when something that counts was made from it
        if item.id in cited:
            cited.update(item.inputs)
    kept = [e for e in desk.made if e.id in cited]
    return out, kept
