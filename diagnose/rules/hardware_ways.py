"""Health by what the hardware does: an uncached read, an all-to-all between machines, an idle card at full clock."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .healthy import faulty
from .nccl_facts import text_of

_READ_BAND = (0.1, 1.5)  # GB/s: loads from uncached, write-combined memory, a few in flight
_WRITES = 5.0  # GB/s from which stores combine as they should


def mapped_read_is_uncached(ctx: Context) -> Outcome:
    """The CPU's reads of mapped device memory are slow while its writes stream: no cache holds that memory."""
    reads, writes = ctx.numbers("gdr.mapped_read"), ctx.numbers("gdr.mapped_write")
    if not reads or not writes or faulty(ctx):
        return UNKNOWN
    (read, a), (write, b) = reads[0], writes[0]
    return Outcome(True, (a, b)) if _READ_BAND[0] <= read <= _READ_BAND[1] and write >= _WRITES else UNKNOWN


_NODES = regex(r"(?<![\w.])(\d{1,4}) ?(?:nodes?|hosts?|machines?|台|机\b|[x×] ?8\b)|双机", re.IGNORECASE)
_NIC = regex(r"(?<![\w.])(?:8 ?[x×] ?)?(100|200|400|800) ?G(?:b|bps|b/s)?\b", re.IGNORECASE)
_OWN = regex(r"all[-_ ]?to[-_ ]?all|\ba2a\b", re.IGNORECASE)


def _ceiling(ctx: Context) -> tuple[float, float, tuple[Evidence, ...]] | None:
    """Measured bus bandwidth of an all-to-all, its ceiling through one adapter a GPU, and what says so."""
    rates, ranks = ctx.numbers("alltoall.busbw"), ctx.numbers("alltoall.ranks")
    nodes, nics = ctx.numbers("alltoall.nodes"), ctx.numbers("alltoall.nic")
    said, rate = _NODES.search(ctx.symptom), _NIC.search(ctx.symptom)
    count = nodes[0][0] if nodes else float(said[1] or 2) if said else 0.0
    nic = nics[0][0] if nics else float(rate[1]) if rate else 0.0
    if not rates or count < 2 or not nic:
        return None
    total = ranks[0][0] if ranks else 8 * count
    near = total / count
    if near < 2 or near != int(near):
        return None
    # (n - near)/n of each rank's data leaves the machine; busbw counts (n - 1)/n of it
    value, item = rates[0]
    return value, nic / 8 * (total - 1) / (total - near), (item, *(e for _, e in (*ranks[:1], *nodes[:1], *nics[:1])))


def alltoall_at_its_rails(ctx: Context) -> Outcome:
    """What leaves the machine goes through one adapter a GPU, and the all-to-all comes near that ceiling."""
    got = _ceiling(ctx)
    if got is None or not _OWN.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(True, got[2]) if 0.7 <= got[0] / got[1] <= 1.06 else UNKNOWN


def alltoall_below_its_rails(ctx: Context) -> Outcome:
    """The all-to-all stays clearly below what its adapters carry."""
    got = _ceiling(ctx)
    return UNKNOWN if got is None else Outcome(got[0] < 0.6 * got[1], got[2])


_AFTER = regex(
    r"\bidl(?:e|ing)\b|\bended\b|\bexit\w*|finished|nothing runs|(?:at|in) rest|awake|no (?:job|process)|stuck process|leak|zombie|nobody|no (?:requests?|traffic|users?)|never (?:go|drop|enter)"  # noqa: E501
    r"|\bP0\b|空闲|闲置|僵尸|结束后|没有任务", re.IGNORECASE,
)  # fmt: skip
_WATTS = regex(r"\d ?W\b|watts?|power|\bP0\b|clock|mhz|功耗|瓦|时钟|频率", re.IGNORECASE)
_SERVER = regex(r"vllm|sglang|trtllm|tritonserver|text-generation|llama|ollama|lmdeploy|dynamo", re.IGNORECASE)
_AWAKE = 1000.0  # MHz
_IDLE_WATTS = 180.0  # a board without work at full clock draws up to about a fifth of its limit


def idle_at_full_clock(ctx: Context) -> Outcome:
    """Without work, memory or process a card may keep its clock: P0 is a permission and the power is that of rest."""
    use, held, watts = (ctx.numbers(f"gpu.{n}") for n in ("util", "memory.used", "power"))
    states = [e for e in ctx.of("gpu.pstate") if text_of(e) == "P0"]
    states = states or [e for v, e in ctx.numbers("gpu.clock.sm") if v >= _AWAKE]
    served = [e for e in ctx.of("gpu.process") if _SERVER.search(text_of(e))]  # it holds its memory and its context
    if not use or not held or not watts or not states or faulty(ctx) or len(served) < len(ctx.of("gpu.process")):
        return UNKNOWN
    if not _AFTER.search(ctx.symptom) or not _WATTS.search(ctx.symptom):
        return UNKNOWN
    rests = (
        all(v <= 0.02 for v, _ in use)
        and (bool(served) or all(v < 1 for v, _ in held))
        and all(v <= _IDLE_WATTS for v, _ in watts)
    )
    return Outcome(rests, (states[0], use[0][1], watts[0][1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (mapped_read_is_uncached, alltoall_at_its_rails, alltoall_below_its_rails, idle_at_full_clock)
}
