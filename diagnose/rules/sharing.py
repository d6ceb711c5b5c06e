"""Who else is there: a card that works for somebody, an adapter for all, a late host, pages on the GPU's side."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import median

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest, lowest
from .comparison import ratios
from .nccl_facts import text_of

# ---------------------------------------------------------------- a card that works for somebody else

_BUSY = 0.5


def one_card_works_alone(ctx: Context) -> Outcome:
    """Of the GPUs of a slow collective one computes for a process and another rests without one.

    A collective's kernels keep all of its GPUs busy together, so the one at work does something else. The listing must
    show the collective's GPUs and no others.
    """
    ranks = ctx.numbers("nccl_tests.nranks") or ctx.numbers("nccl.nranks")
    slow = [x for x in ctx.limits if x.ratio is not None and x.ratio < 0.6 and "busbw" in x.what]
    use = {e.subject.gpu: (v, e) for v, e in ctx.numbers("gpu.util") if e.subject.gpu is not None}
    if not ranks or not slow or len(use) != max(v for v, _ in ranks):
        return UNKNOWN
    owners = {e.subject.gpu: e for e in ctx.of("gpu.process") if not (e.subject.label or "").endswith(" G")}
    works = [e for gpu, (v, e) in use.items() if v >= 0.9 and gpu in owners]
    rests = [e for gpu, (v, e) in use.items() if v <= 0.1 and gpu not in owners]
    if not works or not rests:
        return UNKNOWN
    return Outcome(True, (owners[works[0].subject.gpu], works[0], rests[0]))


def busy_without_own_work(ctx: Context) -> Outcome:
    """The card computes and holds memory at a moment at which, by the text, nothing of one's own runs."""
    use = [*ctx.numbers("gpu.util"), *ctx.numbers("dcgm.active", {"label": "^(?:SM|GR)"})]
    held = [e for v, e in ctx.numbers("gpu.memory.used") if v >= 1]
    if not use or not held or any(v < _BUSY for v, _ in use) or ctx.of("gpu.mark.under_load"):
        return UNKNOWN
    own = [e for v, e in ctx.numbers("gpu.alloc.allocated") if v > 0]
    mine = [e for e in ctx.of("gpu.process") if not (e.subject.label or "").endswith(" G")]
    nobody = ctx.of("gpu.mark.nobody") + [e for v, e in ctx.numbers("host.own_processes") if v == 0]
    if not nobody:  # this process holds nothing, and the card's list shows no other
        empty = [e for v, e in ctx.numbers("gpu.alloc.allocated") if v == 0]
        nobody = [*empty[:1], *ctx.of("gpu.mark.no_compute_process")[:1]] if empty else []
    if not nobody or own or mine:
        return UNKNOWN
    return Outcome(True, (nobody[0], use[0][1], held[0]))


_UNEVEN = 1.8  # times the power; ranks of one healthy server lay within 1.1 (docs/notes.md)


def tensor_parallel_peer_works_more(ctx: Context) -> Outcome:
    """Of the GPUs among which every layer is split one draws far more power: it works for somebody else too."""
    split = read.option(ctx, read.TENSOR_PARALLEL)
    draws: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("gpu.power"):
        if item.subject.gpu is not None and not item.subject.label:
            draws[item.subject.gpu] = (value, item)
    use = {e.subject.gpu: v for v, e in ctx.numbers("gpu.util") if not e.subject.label}
    if not split or len(draws) < 2 or len(draws) != split[0][0]:
        return UNKNOWN
    (most, high), (least, low) = highest(draws.values()), lowest(draws.values())
    busy = use.get(high.subject.gpu, 0.0) >= 0.9 and use.get(low.subject.gpu, 0.0) >= 0.1
    return Outcome(busy and most >= _UNEVEN * least, (high, low, split[0][1]))


def time_grows_with_tenants(ctx: Context) -> Outcome:
    """What one program takes grows like the number of programs on the card."""
    hits = ctx.numbers("gpu.tenants_scaling")
    return Outcome(any(v >= 0.7 for v, _ in hits), tuple(e for _, e in hits)) if hits else UNKNOWN


# ---------------------------------------------------------------- one adapter for all


def one_adapter_for_all(ctx: Context) -> Outcome:
    """All processes that are listed opened one adapter, while others are up."""
    users = [(v, e) for v, e in ctx.numbers("rdma.processes_on_one") if v >= 3]
    up = [(v, e) for v, e in ctx.numbers("rdma.devices_up") if v >= 3]
    up += [(v, e) for v, e in ctx.numbers("net.adapters") if v >= 3]
    if not users:
        per: dict[str, dict[int, Evidence]] = {}
        for item in ctx.of("nccl.nic_use"):
            if item.subject.gpu is not None:
                per.setdefault(f"{item.subject.host}|{item.value}", {}).setdefault(item.subject.gpu, item)
        hosts = {key.split("|")[0] for key in per}
        listed = [e for e in ctx.of("nccl.ib.devices") if len(re.findall(r"\[\d+\]", text_of(e))) >= 4]
        alone = [list(gpus.values()) for key, gpus in per.items() if len(gpus) >= 4]
        if not alone or len(per) != len(hosts) or not listed:
            return UNKNOWN
        return Outcome(True, (*alone[0][:3], listed[0]))
    return Outcome(True, (users[0][1], up[0][1])) if up else UNKNOWN


# ---------------------------------------------------------------- a host that is clocked lower


def host_clocked_lower(ctx: Context) -> Outcome:
    """The GPUs of one host run at a clearly lower clock than those of another, and hotter, so they do not rest."""
    clocks, heats, uses = (
        {e.subject.host: (v, e) for v, e in ctx.numbers(f"host.gpu_{name}")} for name in ("clock", "heat", "use")
    )
    if len(clocks) < 2:
        return UNKNOWN
    for host, (value, item) in clocks.items():
        others = [v for name, (v, _) in clocks.items() if name != host]
        if value > 0.87 * median(others):
            continue
        warm = [v for name, (v, _) in heats.items() if name != host]
        if host in heats and warm and heats[host][0] >= max(warm) + 5 and uses.get(host, (100.0,))[0] >= 50:
            peer = max((n for n in clocks if n != host), key=lambda n: clocks[n][0])
            return Outcome(True, (item, clocks[peer][1], heats[host][1]))
    return Outcome(False)


# ---------------------------------------------------------------- memory mapped or registered for each message

_MAPS = regex(r"^(?:cu(?:da)?Ipc(?:Open|Close)MemHandle|ibv_(?:de)?reg_mr|cu(?:da)?(?:Mem)?Host(?:Unr|R)egister)")


def mapping_dominates(ctx: Context) -> Outcome:
    """Most time in the CUDA API goes to opening and closing other processes' memory, thousands of times."""
    shares = [(v, e) for v, e in ctx.numbers("api.share") if _MAPS.match(e.subject.label or "")]
    calls = [v for v, e in ctx.numbers("api.calls") if _MAPS.match(e.subject.label or "")]
    if not shares:
        return UNKNOWN
    return Outcome(sum(v for v, _ in shares) >= 0.4 and max(calls, default=0) >= 500, tuple(e for _, e in shares[:2]))


def registered_per_message(ctx: Context) -> Outcome:
    """About every message has its own registration or mapping, and the calls are timed."""
    per = [(v, e) for v, e in ctx.numbers("register.per_message") if v >= 0.5]
    timed = [e for v, e in ctx.numbers("register.time") if v >= 0.5]
    return Outcome(True, (per[0][1], *timed[:1])) if per and timed else UNKNOWN


# ---------------------------------------------------------------- pages on the GPU's memory node

_COHERENT = regex(r"\bG[HB][23]00\b|grace[ -]?(?:hopper|blackwell)?|\bGH200\b", re.IGNORECASE)
_NEAR = regex(r"interleave|preferred|-i\b|-p\b|all\b", re.IGNORECASE)


def pages_on_gpu_node(ctx: Context) -> Outcome:
    """A policy spreads a CPU program's pages over the GPU's memory node, and with the CPU's node alone it is faster."""
    policies = [e for e in ctx.of("host.numa.policy") if text_of(e) == "all" or re.search(r"[1-9]", text_of(e))]
    bare = ctx.of("host.numa.without_cpus")
    known = _COHERENT.search(ctx.symptom) is not None or any(
        _COHERENT.search(text_of(e)) for n in ("gpu.name", "gpu.product", "host.cpu.model") for e in ctx.of(n)
    )
    if not policies or not (bare or known):
        return UNKNOWN
    cpuless = {text_of(e) for e in bare} or {str(n) for n in range(1, 64)}
    held = [(v, e) for v, e in ctx.numbers("host.numa.held") if e.subject.label in cpuless]
    total = sum(v for v, _ in ctx.numbers("host.numa.held"))
    there = [e for v, e in held if v >= 0.3 * total]
    faster = [r.evidence for r in ratios(ctx) if r.value > 1.2 and _NEAR.search(r.evidence.subject.label or "")]
    told = ctx.numbers("host.numa.rate")
    if told and max(v for v, _ in told) > 1.2 * min(v for v, _ in told):
        faster += [e for _, e in told[:2]]
    if not there and not faster:
        return UNKNOWN
    return Outcome(True, (policies[0], *there[:1], *faster[:1], *bare[:1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        busy_without_own_work, tensor_parallel_peer_works_more, one_card_works_alone, time_grows_with_tenants,
        one_adapter_for_all, host_clocked_lower, mapping_dominates, registered_per_message, pages_on_gpu_node,
    )
}  # fmt: skip
