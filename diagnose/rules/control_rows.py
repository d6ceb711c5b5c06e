"""Named predicates over control rows: one thing was set otherwise and the figure came back.

A table or a line that varies one thing decides more than any log: what it varied is named, what it gave is measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..units import IN_MS
from . import serving_read as read
from .base import highest
from .comparison import ratios
from .lever_tables import Turn, turns

# ---------------------------------------------------------------- lines: with X it is fast again


def _controls(ctx: Context, lever: str) -> Iterator[tuple[float, str, bool, Evidence]]:
    for value, item in ctx.numbers("control.gain", {"label": f"^{lever}\\|"}):
        _, setting, peers = (item.subject.label or "").split("|")
        yield value, setting, peers == "peers", item


_NETWORK = regex(r"ib_(?:write|read|send)_|perftest|osu_|iperf|\bRDMA\b|(?-i:Gb/s|Gbit/s)", re.I)


def rebound_is_faster(ctx: Context) -> Outcome:
    """Bound to other cores and memory, the same work is faster; a test of the network is another matter."""
    for value, _, _, item in _controls(ctx, "binding"):
        if value >= 1.15 and not _NETWORK.search(item.quote or ""):
            return read.yes(item, *ctx.of("host.numa.bind")[:1])
    return UNKNOWN


_ONE = regex(r"^[\w.-]+(?::1)?:?$")


def _device(text: str) -> str:
    return re.sub(r":.*$", "", text)


def near_device_is_faster(ctx: Context) -> Outcome:
    """One network device serves every GPU; near it the rate is full, and far from it another device gives the same."""
    held = [e for e in ctx.of("ucx.env", {"label": "NET_DEVICES"}) if _ONE.match(str(e.value))]
    for value, setting, peers, item in _controls(ctx, "net_devices"):
        old = [e for e in held if _device(str(e.value)) != _device(setting)]
        if value >= 1.3 and peers and old:
            return read.yes(item, old[0])
    return UNKNOWN


def other_device_is_faster(ctx: Context) -> Outcome:
    """The same transfer is faster over another network device, and nothing shows the first one at that rate."""
    for value, _, peers, item in _controls(ctx, "net_devices"):
        if value >= 1.3 and not peers:
            return read.yes(item)
    return UNKNOWN


def _drifts(ctx: Context, names: str) -> Outcome:
    found = [e for v, e in ctx.numbers("version.drift", {"label": f"^(?:{names})"}) if v >= 2]
    return read.yes(found[0]) if found else UNKNOWN


def ucx_release_drifts(ctx: Context) -> Outcome:
    """Only UCX was swapped: one release gets slower as it runs, another stays."""
    return _drifts(ctx, "ucx|libucx|hpc-?x")


def nccl_release_drifts(ctx: Context) -> Outcome:
    """Only NCCL was swapped: one release gets slower as it runs, another stays."""
    return _drifts(ctx, "nccl|libnccl")


def engine_release_drifts(ctx: Context) -> Outcome:
    """Only the engine was swapped: one release gets slower as it runs, another stays."""
    return _drifts(ctx, "vllm|sglang|lmdeploy|tgi|llama|tensorrt|trt")


# ---------------------------------------------------------------- rows: what grows with what

_PROMPT_HEAD = regex(r"(?:prompt|input|context)[_ .-]*tok|tokens? in\b|\bisl\b|输入 ?token|提示.*token", re.I)
_FIRST_HEAD = regex(r"ttft|first token|prefill|首字|首 ?token", re.I)


def _amount(text: str) -> float | None:
    hit = re.match(r"\W*(\d[\d,]*(?:\.\d+)?) ?([kK])?", text)
    return float(hit[1].replace(",", "")) * (1000 if hit[2] else 1) if hit else None


def _both(first: str, second: str) -> tuple[float, float] | None:
    a, b = _amount(first), _amount(second)
    return (a, b) if a is not None and b is not None and min(a, b) > 0 else None


def prompt_tokens_set_ttft(ctx: Context) -> Outcome:
    """One idle server: the row with several times the prompt tokens has its first token later by about as much."""
    late: dict[str, float] = {}
    found = [t for t in turns(ctx) if t.evidence.signal == "lever.row"]
    for turn in found:
        sizes = _both(turn.worse, turn.better)
        if sizes is not None and _FIRST_HEAD.search(turn.head):
            late[str(turn.evidence.value)] = max(late.get(str(turn.evidence.value), 0.0), sizes[0] / sizes[1])
    waits = read.waiting(ctx)
    if waits is not None and waits[0] > 0:
        return UNKNOWN
    for turn in found:
        sizes = _both(turn.worse, turn.better)
        if sizes is None or not _PROMPT_HEAD.search(turn.head) or not _FIRST_HEAD.search(turn.metric):
            continue
        more = sizes[0] / sizes[1]
        slower = late.get(str(turn.evidence.value)) or _ttft_ratio(ctx, turn)
        if sizes[0] >= 6000 and more >= 4 and slower is not None and slower >= max(2.5, 0.4 * more):
            return read.yes(turn.evidence)
    return UNKNOWN


def _ttft_ratio(ctx: Context, turn: Turn) -> float | None:
    spans = {s.line for s in turn.evidence.spans}
    times = [
        v * (1000 if e.unit == "s" else 1) for v, e in ctx.numbers("figure", {"label": "^ttft"})
        if e.unit in ("s", "ms") and spans & {s.line for s in e.spans}
    ]  # fmt: skip
    return max(times) / min(times) if len(times) >= 2 and min(times) > 0 else None


def larger_budget_is_faster(ctx: Context) -> Outcome:
    """With the token budget that the server has, first tokens are late; with a larger one they are not."""
    held = dict((*read.option(ctx, read.BUDGETS), *ctx.numbers("serving.max_batched_tokens")))
    for turn in turns(ctx):
        sizes = _both(turn.worse, turn.better)
        if sizes is None or not re.search("ttft|first|prefill|prompt|throughput|首", turn.metric, re.I):
            continue
        named = re.search(r"batched|chunk|prefill[-_](?:size|token)|num[-_]tokens|budget", turn.head, re.I)
        plain = re.match(r"\W*(?:value|setting|size|tokens?|值)\b", turn.head, re.I)
        mine = held.get(sizes[0])
        if sizes[0] <= 1024 and sizes[1] >= 4 * sizes[0] and (named or (plain and mine is not None)):
            return read.yes(turn.evidence, *([mine] if mine is not None else []))
    return UNKNOWN


# ---------------------------------------------------------------- transfer and compute

_WITHOUT = regex(
    r"\b(?:no|without|w/o)\b.{0,12}(?:transfer|hand-?over|kv|push|send|xfer)|(?:transfer|hand-?over|push|xfer|send)\w* (?:is |was |switched |turned )?(?:off|disabled|removed|skipped|suppressed)"  # noqa: E501
    r"|prefill (?:alone|only)|compute only|不传|无传输",
    re.I,
)
_TIME = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?(ms|us|s)?\b(?! ?%)")
_TIME_HEAD = regex(r"ttft|total|wall|time|latency|e2e|\bms\b|耗时|时间|首", re.I)


def deferred_wait_is_free(ctx: Context) -> Outcome:
    """Three ways of one job: waiting for each transfer is long, waiting once at the end takes hardly more than none at all."""  # noqa: E501
    named: dict[str, dict[str, tuple[str, Evidence]]] = {}
    for turn in turns(ctx, 1.2):
        if turn.evidence.signal != "lever.row" or not _TIME_HEAD.search(turn.metric) or len(turn.evidence.spans) < 2:
            continue
        line = turn.evidence.spans[1].quote
        if not re.match(r"\W*\d", turn.better) and turn.better.strip("-– "):
            named.setdefault(turn.worse, {})[turn.better] = (line, turn.evidence)
    for rows in named.values():
        if not any(
            re.search(r"layer|transfer|hand-?over|kv|xfer|push|post|send", f"{k} {v[0]}", re.I) for k, v in rows.items()
        ):
            continue
        base = next((v for k, v in rows.items() if _WITHOUT.search(k)), None)
        late = next((v for k, v in rows.items() if not _WITHOUT.search(k)), None)
        if base is None or late is None:
            continue
        times = [_first_time(text) for text in (base[1].spans[0].quote, late[0], base[0])]
        if None in times:
            continue
        worst, once, none = (t for t in times if t is not None)
        if once <= 1.15 * none and worst >= 1.35 * none:
            return read.yes(base[1], late[1])
    return UNKNOWN


_DEFERRED = regex(r"at the end|behind|afterwards|later|async|collect|events|overlap|go on|最后|结束后|异步", re.I)


def deferring_gains_nothing(ctx: Context) -> Outcome:
    """Waiting once at the end takes as long as waiting each time, and without the transfer it is far shorter."""
    rows: dict[str, dict[str, tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(?:e2e|ttft|time|latency|prefill)[^|]*\|"}):
        metric, _, name = (item.subject.label or "").partition("|")
        rows.setdefault(f"{metric} {item.unit}", {})[name] = value, item
    for named in rows.values():
        late = [v for k, v in named.items() if _DEFERRED.search(k)]
        none = [v for k, v in named.items() if _WITHOUT.search(k)]
        worst = highest(named.values())
        if (
            late
            and none
            and late[0][1].id != worst[1].id
            and late[0][0] >= 0.88 * worst[0]
            and none[0][0] <= 0.75 * worst[0]
        ):
            return read.yes(worst[1], late[0][1], none[0][1])
    return UNKNOWN


def _first_time(text: str) -> float | None:
    """The first time of a row: a figure with its unit, else the first column of figures."""
    columns = re.split(r"\s{2,}|\t|\|", text.strip())
    for column in columns[1:] or columns:
        hit = _TIME.search(column)
        if hit is not None and (hit[2] or re.fullmatch(r"[\d.,]+", column.strip())):
            return float(hit[1].replace(",", "")) * IN_MS.get(hit[2] or "ms", 1.0)
    hits = [h for h in _TIME.finditer(text) if h[2]]
    return float(hits[0][1].replace(",", "")) * IN_MS.get(hits[0][2], 1.0) if hits else None


_MOVES = regex(
    r"transfer|nixl|mooncake|lmcache|kvbm|xfer|\bpull|\bpush|hand-?over|hand-?off|connector|rdma|\bucx\b|\bkv[ _](?:cache )?(?:mov|copy|send|load|recv|receiv|fetch|import)|传输|搬",  # noqa: E501
    re.I,
)
_ROUTER = regex(r"overlap[ _-]?(?:blocks?|score)|router[-_]mode|kv_router", re.I)
_MOVE_SIGNALS = ("nixl.*", "kv.*", "ucx.*", "rdma.*")


def something_is_transferred(ctx: Context) -> Outcome:
    """A transfer is spoken of, and not only a router's overlap of blocks."""
    for name in _MOVE_SIGNALS:
        if got := ctx.of(name):
            return read.yes(got[0])
    said = next((e for e in ctx.evidence if e.quote and _MOVES.search(e.quote)), None)
    if said is not None:
        return read.yes(said)
    routed = any(e.quote and _ROUTER.search(e.quote) for e in ctx.evidence)
    return Outcome(True) if _MOVES.search(ctx.symptom) and not routed else UNKNOWN


# ---------------------------------------------------------------- the head of the prompt


def head_varies_and_misses(ctx: Context) -> Outcome:
    """The code puts what varies before what is shared, and hardly anything comes from the cache."""
    code = ctx.of("prompt.head_varies")
    shares = ctx.numbers("serving.cached_share")
    rates = list(ctx.numbers("serving.prefix_hit_rate", {"label": "^(?:max|last|window)$"}))
    missed = [e for v, e in (*shares, *rates) if v <= 0.05]
    hit = [e for v, e in (*shares, *rates) if v > 0.3]
    return read.yes(code[0], missed[0]) if code and missed and not hit else UNKNOWN


_MISMATCH = regex(
    r"block[ _-]?size\W{0,3}(?:mismatch|differ|does not match|!=)|block[ _-]?size \d+ (?:does not|doesn't|did not) match|mismatch\w* block[ _-]?size",  # noqa: E501
    re.I,
)


def blocks_of_two_sizes(ctx: Context) -> Outcome:
    """The router counts in blocks of one size and the workers in another: nothing they report fits."""
    said = next((e for e in ctx.evidence if e.quote and _MISMATCH.search(e.quote)), None)
    mine = dict(read.option(ctx, "^(?:block-size|page-size)$"))
    routed = dict(read.option(ctx, "^(?:router-)?(?:kv-cache-block-size|kv-block-size)$"))
    if said is not None:
        return read.yes(said, *list(routed.values())[:1], *list(mine.values())[:1])
    if not routed or not mine or set(routed) & set(mine) or not ctx.of("serving.arg", {"label": "router-mode"}):
        return UNKNOWN
    better = [r.evidence for r in ratios(ctx) if r.value >= 1.3]
    return read.yes(next(iter(routed.values())), next(iter(mine.values()))) if better else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    rebound_is_faster, near_device_is_faster, other_device_is_faster, ucx_release_drifts, nccl_release_drifts,
    engine_release_drifts, prompt_tokens_set_ttft, larger_budget_is_faster,
    deferred_wait_is_free, deferring_gains_nothing, something_is_transferred,
    head_varies_and_misses, blocks_of_two_sizes,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
