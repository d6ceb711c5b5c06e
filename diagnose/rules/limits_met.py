"""A figure that is just what the hardware must give: weights over bandwidth, arithmetic over the peak, rest and work."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable

from .. import floors
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest, lowest
from .healthy import SPARSE, faulty
from .products import candidates

_DOUBTS = regex(
    r"\?|？|\bonly\b|never exceeds|whatever|\bwhy\b|\bbug\b|\bwrong\b|\bbroken\b|expect|should|shouldn|claims?\b|normal|\boff\b|\bok\b|problem|fix|alert|repair|reseat|worse"  # noqa: E501
    r"|只有|正常|吗|问题|修", re.I,
)  # fmt: skip
_SAID_SIZE = regex(r"(?<![\w.])(\d{1,3}(?:\.\d+)?) ?B(?![a-zA-Z0-9/])")
_SAID_TP = regex(r"\bTP ?[=:]? ?(\d{1,2})\b", re.I)
_DECODE = (0.9, 1.65)  # measured over the time of reading the weights, kernels and KV cache included
_PREFILL = (0.35, 0.95)  # share of the dense peak; with tensor parallelism communication takes its part
_PREFILL_TP = 0.25


def _single(ctx: Context) -> bool:
    """One request at a time, nothing in the queue, nothing on the CPU."""
    many = [v for v, _ in (*ctx.numbers("serving.running"), *ctx.numbers("serving.running_span")) if v > 1]
    queued = [v for v, _ in ctx.numbers("serving.waiting") if v > 0]
    many += [v for v, _ in ctx.numbers("serving.client.peak_concurrency") if v > 1]
    many += [1.0 for e in ctx.of("serving.client.concurrency") if str(e.value) not in ("1", "1.0")]
    return not many and not queued and not ctx.of("serving.mark.few_layers_offloaded")


def _weights(ctx: Context) -> tuple[float, list[Evidence]] | None:
    """Bytes that a token reads: parts over devices add up, since layers run one after another."""
    parts = ctx.numbers("serving.weights_part", {"label": r"^[A-Za-z]+\d+$"})
    if parts:
        last = {e.subject.label: (v, e) for v, e in parts}
        return sum(v for v, _ in last.values()) * 2**30, [e for _, e in last.values()]
    whole = ctx.numbers("serving.weights_part", {"label": "^whole$"}) or ctx.numbers("serving.weights")
    if not whole:  # noted beside the figures: ``141 GB weights``
        noted = ctx.numbers("figure", {"label": r"^bytes\|weights?$"})
        whole = [(v / 2**30 if e.unit == "B" else v, e) for v, e in noted if e.unit in ("B", "GiB")]
    sizes = {round(v, 1) for v, _ in whole}
    return (whole[0][0] * 2**30, [whole[0][1]]) if len(sizes) == 1 else None


def _token_times(ctx: Context) -> list[tuple[float, Evidence]]:
    times = [(v, e) for v, e in ctx.numbers("serving.server.itl", {"label": "^(median|mean)"})]
    times += [(1000 / v, e) for v, e in ctx.numbers("serving.single_rate") if v > 0]
    if not times and {v for v, _ in ctx.numbers("serving.running")} == {1.0}:
        times = [(1000 / v, e) for v, e in ctx.numbers("serving.gen_tput", {"label": "^max$"}) if v > 0]
    if not times:
        times = [(v, e) for v, e in ctx.numbers("serving.client.tpot", {"label": "^(median|mean)"})]
    if not times:
        times = [
            (v, e)
            for v, e in ctx.numbers("figure", {"label": r"^(?:tpot|itl)(?:_mean|_median|_p50)?(?:\||$)"})
            if e.unit == "ms"
        ]
    return times


# What a worker says it loaded is its own share of a model that several hold.
_OF_ONE_RANK = regex(r"(?:weights|loading) took \d|Load weight end", re.I)


def decode_reads_its_weights(ctx: Context) -> Outcome:
    """A token of a single stream takes about what reading all its weights takes on this product."""
    gpus, named = candidates(ctx)
    size, times = _weights(ctx), _token_times(ctx)
    if not gpus or size is None or not times or not _single(ctx) or faulty(ctx) or SPARSE.search(ctx.symptom):
        return UNKNOWN
    if any(SPARSE.search(e.quote or "") for e in (*size[1], *ctx.of("serving.model_size"))) or any(g.c2c for g in gpus):
        return UNKNOWN
    whole = len(size[1]) == 1 and _OF_ONE_RANK.search(size[1][0].quote or "") is None
    ranks = _ranks(ctx) if whole else 1.0
    time = lowest(times)
    ratios = [time[0] / floors.read_floor(size[0] / ranks, g.memory).value for g in gpus]
    met = all(_DECODE[0] <= r <= _DECODE[1] for r in ratios)
    if met and not _DOUBTS.search(ctx.symptom):
        return UNKNOWN
    return Outcome(met, (time[1], *size[1][:4], *named))


def _ranks(ctx: Context) -> float:
    said = [v for v, _ in ctx.numbers("serving.tp_noted")]
    said += [v for v, _ in read.option(ctx, read.TENSOR_PARALLEL)]
    said += [float(h) for h in _SAID_TP.findall(ctx.symptom)]
    return max(said, default=1.0)


def _prompt_times(ctx: Context) -> list[tuple[float, float, Evidence]]:
    """(prompt tokens, seconds to the first token, evidence)."""
    out = []
    for value, item in ctx.numbers("figure", {"label": r"^ttft(?:_mean|_median|_p50)?\|"}):
        name = re.sub(r"[,\s]|tokens?|tok", "", (item.subject.label or "").split("|")[1].lower())
        length = re.fullmatch(r"(\d+(?:\.\d+)?)(k)?", name)
        if length:
            out.append((float(length[1]) * (1024 if length[2] else 1), value, item))
    told = ctx.numbers("serving.told", {"label": "^prompt$"})
    if not out and len({v for v, _ in told}) == 1:
        out = [(told[0][0], v, e) for v, e in ctx.numbers("figure", {"label": r"^ttft(?:_mean|_median|_p50)?(?:\||$)"})]
    done = []
    for tokens, value, item in out:
        seconds = value / 1000 if item.unit == "ms" else value if item.unit == "s" or value < 20 else value / 1000
        done.append((tokens, seconds, item))
    return done


def prefill_share_of_peak(ctx: Context) -> tuple[float, float, tuple[Evidence, ...]] | None:
    """Least and largest share of the dense peak over the products that may be meant, for the longest prompt."""
    gpus, named = candidates(ctx)
    times = [t for t in _prompt_times(ctx) if t[0] >= 2000 and t[1] > 0]
    seen = dict(ctx.numbers("serving.model_size"))
    sizes = set(seen) or {float(n) for n in _SAID_SIZE.findall(ctx.symptom)}
    if (
        not gpus
        or not times
        or len(sizes) != 1
        or SPARSE.search(ctx.symptom)
        or any(SPARSE.search(e.quote or "") for e in seen.values())
    ):
        return None
    tokens, seconds, item = highest(times)
    size = sizes.pop()
    peaks = [g.bf16 for g in gpus if g.bf16]
    if len(peaks) != len(gpus):
        return None
    ranks = _ranks(ctx)
    shares = [2 * size * 1e9 * tokens / (peak * 1e12 * ranks * seconds) for peak in peaks]
    return min(shares), max(shares), (item, *seen.values(), *named)


def prefill_near_peak(ctx: Context) -> Outcome:
    """A single request's first token comes when this product has done the arithmetic of its prompt, and that was doubted."""  # noqa: E501
    got = prefill_share_of_peak(ctx)
    if got is None or not _single(ctx) or faulty(ctx) or not _DOUBTS.search(ctx.symptom):
        return UNKNOWN
    least = _PREFILL_TP if _ranks(ctx) > 1 else _PREFILL[0]
    return Outcome(least <= got[0] and got[1] <= _PREFILL[1], got[2][:4])


def prefill_far_from_peak(ctx: Context) -> Outcome:
    """The first token takes many times the arithmetic of its prompt: its length is not the reason."""
    got = prefill_share_of_peak(ctx)
    return UNKNOWN if got is None else Outcome(got[1] < 0.1, got[2][:4])


_ABOUT_STATE = regex(r"clock|mhz|\bp[58]\b|pstate|power state|\bgen ?\d|pci-?e?|link|频率|降频|带宽", re.I)
_ALSO_SLOW = regex(r"slow|drops?\b|throughput (?:is|fell|down)|latency|regress|变慢|下降|吞吐", re.I)


def rest_and_work(ctx: Context) -> Outcome:
    """Low clocks and link are those of a card at rest; at work the same cards go up to what they can."""
    rest, work = ctx.of("gpu.state_note", {"label": "^rest$"}), ctx.of("gpu.state_note", {"label": "^work$"})
    if not rest or not work or not _ABOUT_STATE.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    if _ALSO_SLOW.search(ctx.symptom) or [e for e in ctx.of("gpu.throttle") if "idle" not in (e.subject.label or "")]:
        return UNKNOWN
    pairs = []
    for name, least in (("gpu.state_clock", 2.0), ("gpu.state_gen", 1.0)):
        low, high = (ctx.numbers(name, {"label": f"^{k}$"}) for k in ("rest", "work"))
        if low and high:
            pairs.append((high[0][0] >= least * low[0][0], low[0][1], high[0][1]))
    gens = [v for v, _ in ctx.numbers("gpu.state_gen", {"label": "^work$"})]
    tops = [v for v, _ in ctx.numbers("gpu.pcie.gen.max")]
    if not pairs or any(g < 3 for g in gens) or (gens and tops and min(gens) < max(tops)):
        return UNKNOWN
    return Outcome(all(p[0] for p in pairs), (rest[0], work[0], *pairs[0][1:]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (decode_reads_its_weights, prefill_near_peak, prefill_far_from_peak, rest_and_work)
}  # fmt: skip
