"""Named predicates of KV transfers: pieces, staging, side channel, stages."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome

_MOVES = regex(r"\bkv\b|transfers?\b|disagg|nixl|mooncake|prefill.{0,12}decode|\bp/?d\b|分离|传输", re.I)
_SMALL = 65536  # bytes per descriptor; below it submission costs more than moving on any RDMA or NVLink path


def small_descriptors(ctx: Context) -> Outcome:
    """A descriptor or operation moves few bytes."""
    found = [*ctx.numbers("kv.bytes_per_descriptor"), *ctx.numbers("compare.bytes_per_op")]
    if not found:
        return UNKNOWN
    hits = tuple(e for v, e in found if 0 < v <= _SMALL)
    return Outcome(bool(hits), hits or tuple(e for _, e in found))


def small_descriptors_cost(ctx: Context) -> Outcome:
    """Small descriptors, and their number or the posting time shows that they cost."""
    small = small_descriptors(ctx)
    if not small.holds:
        return small
    posting = tuple(e for v, e in ctx.numbers("kv.post_share") if v >= 0.25)
    many = tuple(e for v, e in ctx.numbers("kv.descriptors") if v >= 4096)
    larger = tuple(
        e for v, e in [*ctx.numbers("compare.bytes_per_op"), *ctx.numbers("kv.bytes_per_descriptor")] if v > 4 * _SMALL
    )
    if posting or many or larger:
        return Outcome(True, (*small.used, *posting, *many, *larger)[:5])
    return UNKNOWN


def descriptor_costs_more_than_its_bytes(ctx: Context) -> Outcome:
    """At the engine's block size a descriptor costs more on this host, even batched, than its bytes take to move."""
    sizes = [(v, e) for v, e in ctx.numbers("kv.bytes_per_descriptor") if v > 0]
    costs = ctx.numbers("nixl.sweep.cost", {"label": r"\|batched\|4096 B\|(?!1 )"})
    rates = [(v, e) for v, e in ctx.numbers("nixl.sweep.rate") if v > 0]
    if not sizes or not costs or not rates:
        return UNKNOWN
    size, cost, rate = min(sizes, key=_first), min(costs, key=_first), max(rates, key=_first)
    moving = size[0] / (rate[0] * 1e9) * 1e6
    return Outcome(cost[0] > moving, (size[1], cost[1], rate[1]))


def _first(pair: tuple[float, Evidence]) -> float:
    return pair[0]


def side_channel_local(ctx: Context) -> Outcome:
    """The NIXL side channel is bound to this host only."""
    found = [
        *ctx.of("nixl.setting", {"label": "SIDE_CHANNEL_HOST"}),
        *ctx.of("env.var", {"label": "SIDE_CHANNEL_HOST"}),
    ]
    if not found:
        return UNKNOWN
    hits = tuple(e for e in found if re.search(r"localhost|127\.0\.0\.1|0\.0\.0\.0", str(e.value)))
    return Outcome(bool(hits), hits or tuple(found))


def host_staged_kv(ctx: Context) -> Outcome:
    """The KV connector is told to go through host memory."""
    found = ctx.of("nixl.setting", {"label": "kv_buffer_device|use_host_buffer"})
    if not found:
        return UNKNOWN
    hits = tuple(e for e in found if str(e.value).lower() in ("cpu", "true"))
    return Outcome(bool(hits), hits or tuple(found))


def serial_stages(ctx: Context) -> Outcome:
    """Compute and transfer add up to the step, and the transfer is a good part of it."""
    found = ctx.numbers("kv.serial")
    if not found:
        return UNKNOWN
    value, item = found[0]
    inputs = [e for e in ctx.evidence if e.id in item.inputs]
    by_kind = {
        (e.subject.label or "").split(":")[0]: float(e.value) for e in inputs if isinstance(e.value, (int, float))
    }
    share = by_kind.get("transfer", 0.0) / max(by_kind.get("total", 1.0), 1e-9)
    return Outcome(0.93 <= value <= 1.06 and share >= 0.15, (item, *inputs))


def kv_transfer_ok(ctx: Context) -> Outcome:
    """KV transfers run at the rate of a fast NIC with few bytes wasted on posting, or take little of the TTFT.

    That answers a question about the transfer; a first token can be late for other reasons.
    """
    if not (ctx.asks("kv-transfer-slow") or _MOVES.search(ctx.symptom)):
        return UNKNOWN
    wrong = (
        "kv.post_delay", "kv.after_prefill", "kv.tick", "kv.poll_period", "kv.far_over_near", "kv.backlog", "kv.failed",
        "kv.config_differs", "kv.register_share", "movement.one_nic", "kv.mark.timeout",
    )  # fmt: skip
    seen = tuple(e for name in wrong for e in ctx.of(name))
    seen += tuple(e for v, e in ctx.numbers("serving.handed_over") if v < 0.5)  # what is not sent is not sent fast
    if seen:
        return Outcome(False, seen[:2])
    whole = [(v, e) for v, e in ctx.numbers("serving.stage_total") if e.subject.label == "ttft" and v > 0]
    moved = [(v, e) for v, e in ctx.numbers("serving.stage_mean") if e.subject.label == "ttft: KV transfer"]
    shares = ctx.numbers("kv.share")
    if whole and moved:  # of both servers' time to first token; `kv.share` is of the decode server's own
        shares = [(moved[0][0] / whole[0][0], e) for _, e in (moved[0], whole[0])]
    rates, posts = ctx.numbers("kv.throughput"), ctx.numbers("kv.post_share")
    fast = bool(rates) and min(v for v, _ in rates) >= 20
    if shares:  # where the rate is that of a fast NIC, a fifth of a short first token is still no long time
        few = 0.25 if fast else 0.1
        return Outcome(all(v < few for v, _ in shares), tuple(e for _, e in (*shares, *rates[:2])))
    if not rates:
        return UNKNOWN
    return Outcome(fast and all(v < 0.25 for v, _ in posts), tuple(e for _, e in rates)[:2])


RULES: dict[str, Callable[[Context], Outcome]] = {
    f.__name__: f
    for f in (
        small_descriptors,
        small_descriptors_cost,
        descriptor_costs_more_than_its_bytes,
        side_channel_local,
        host_staged_kv,
        serial_stages,
        kv_transfer_ok,
    )
}
