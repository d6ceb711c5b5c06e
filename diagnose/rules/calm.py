"""Health by readings that answer the worry itself: gauges far from their limits, tests passed, a bet that pays."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from ..lazy import regex
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import lowest
from .comparison import ratios
from .control_healthy import CLAIMS
from .healthy import faulty
from .past import gpus_granted_since
from .training import step_is_compute

# ---------------------------------------------------------------- a server's gauges

_GAUGES = regex(
    r"wait(?:ing)?\b|queue|\bkv\b|cache|token usage|running|paused|retract|preempt|capacity|saturat|overload|fall over|max[-_]num|batch size|schedul"  # noqa: E501
    r"|排队|队列|缓存|占用|容量|并发|调度",
    re.I,
)
_HURTS = regex(
    r"\bslow|latenc|ttft|tpot|\bitl\b|p9\d|time-?outs?|timed out|hang|stall|late\b|drop|throughput (?:is |was )?(?:low|down|halv|only|bad)|low(?:er)? throughput|only \d"  # noqa: E501
    r"|no (?:more|gain|better|faster)|n[o']t (?:scale|grow|help|increase)"
    r"|underutili[sz]|idle|errors?\b|fail|reject|\b(?:429|503)\b|慢|延迟|超时|卡住|报错|吞吐(?:低|下降|上不去)",
    re.I,
)
_ROOM = 0.85  # of the cache or of the limit of running requests


def _only_gauges(ctx: Context) -> bool:
    """Is a gauge the worry, and nothing that users feel?"""
    asked = _GAUGES.search(ctx.symptom) is not None
    return asked and not _HURTS.search(ctx.symptom) and not CLAIMS.search(ctx.symptom)


def gauges_in_bounds(ctx: Context) -> Outcome:
    """A gauge is the worry, nothing that users feel; over several readings nothing waits and no limit is near."""
    waiting, kv, last = read.waiting(ctx), read.kv(ctx), read.top(ctx, "serving.running_span", "^last$")
    busiest = read.top(ctx, "serving.running_span", "^max$")
    if waiting is None or kv is None or last is None or busiest is None or last[0] < 1 or faulty(ctx):
        return UNKNOWN
    if not _only_gauges(ctx):
        return UNKNOWN
    where = waiting[1].capture.name if waiting[1].capture else ""
    lines = {e.capture.line for e in ctx.of("serving.*") if e.capture is not None and e.capture.name == where}
    if len(lines) < 2:
        return UNKNOWN  # one moment is no course
    cap, lost, share = read.cap(ctx), read.top(ctx, "serving.preemptions"), read.top(ctx, "serving.queue_share")
    near = cap is not None and busiest[0] > _ROOM * cap[0]
    waited = (lost is not None and lost[0] > 0) or (share is not None and share[0] > 0.1)
    said = ctx.of("serving.mark.preempted") or ctx.of("serving.mark.kv_full") or ctx.of("serving.paused")
    calm = waiting[0] <= max(1.0, 0.03 * busiest[0]) and kv[0] <= _ROOM
    return Outcome(calm and not near and not waited and not said, (waiting[1], kv[1], busiest[1]))


_WAITED_MS = 10.0
_MANY = 100.0


def queue_serves_at_once(ctx: Context) -> Outcome:
    """A queue is the worry, nothing that users feel; over many requests the mean time in it is next to nothing."""
    waiting, mean, running = read.waiting(ctx), read.top(ctx, "serving.server.queue"), read.running(ctx)
    counted = [n for n in ctx.numbers("serving.counter", {"label": "^queue_count$"}) if n[0] >= _MANY]
    if waiting is None or mean is None or running is None or not counted or faulty(ctx):
        return UNKNOWN
    if not _only_gauges(ctx):
        return UNKNOWN
    lost, kv = read.top(ctx, "serving.preemptions"), read.kv(ctx)
    full = (lost is not None and lost[0] > 0) or (kv is not None and kv[0] > _ROOM)
    calm = mean[0] <= _WAITED_MS and waiting[0] <= max(1.0, 0.03 * running[0])
    return Outcome(calm and not full, (waiting[1], mean[1], counted[0][1]))


# ---------------------------------------------------------------- a draft that pays

_DRAFT = regex(r"accept|draft|specul|\bmtp\b|eagle|medusa|投机|接受率|草稿", re.I)
_WITHOUT = regex(r"\bno\b|\boff\b|without|disabled|baseline|vanilla|plain|none|关|无|不开", re.I)


def speculation_pays(ctx: Context) -> Outcome:
    """Most of what is drafted is accepted, and with it tokens come clearly faster than without."""
    rates, found = ctx.numbers("serving.accept_rate"), [r for r in ratios(ctx) if r.axis == "spec_decode"]
    found = [r for r in found if re.match("tpot|itl|decode_throughput|e2e|latency", r.metric)]
    if not rates or not found or not _DRAFT.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    faster = all(r.value >= 1.2 and _WITHOUT.search(r.worse) and not _WITHOUT.search(r.better) for r in found)
    low = lowest(rates)
    return Outcome(faster and low[0] >= 0.5, (found[0].evidence, low[1]))


# ---------------------------------------------------------------- tests and events

_FIT = regex(
    r"\bfit\b|health|good\b|\bok\b|production|broken|fault|defect|\brma\b|replace|hardware|wrong|\bbad\b|dying|pass|体检|健康|正常|硬件|坏",
    re.I,
)
_OF_HARDWARE = regex(r"pcie|memory|diagnostic|stress|targeted|bandwidth|memtest|pulse", re.I)


def diagnostics_pass(ctx: Context) -> Outcome:
    """Whether the hardware is sound is the question, and the maker's own tests of it all pass."""
    passed = [e for e in ctx.of("dcgm.test_passed") if _OF_HARDWARE.search(e.subject.label or "")]
    failed = [e for s in ("dcgm.test_failed", "dcgm.health", "dcgm.said") for e in ctx.of(s)]
    if len(passed) < 3 or not _FIT.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(not failed, tuple((failed or passed)[:3]))


_DYING = regex(r"ecc|hardware|dying|dead|rma|dmesg|kernel log|硬件|坏|报修", re.I)


def no_error_counted(ctx: Context) -> Outcome:
    """Whether the hardware is failing is the question, and neither memory errors nor remapped rows were counted."""
    counts = [*ctx.numbers("gpu.ecc.corrected"), *ctx.numbers("gpu.ecc.uncorrected"), *ctx.numbers("gpu.remap.rows")]
    kinds = {e.signal for _, e in counts}
    slow = re.search(r"slow|throughput|hang|crash|\bxid\b|fell|lost|慢|卡|崩", ctx.symptom, re.I)
    if len(kinds) < 2 or not _DYING.search(ctx.symptom) or slow or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    bad = [
        e for s in ("gpu.remap.pending", "gpu.remap.failure") for e in ctx.of(s) if str(e.value).lower() in ("yes", "1")
    ]  # fmt: skip
    said = [e for s in ("gpu.xid*", "gpu.mark.ecc", "gpu.mark.fallen", "pci.aer*") for e in ctx.of(s)]
    return Outcome(not bad and not said and all(v == 0 for v, _ in counts), tuple(e for _, e in counts[:4]))


_EVENTS = regex(r"schedul|\bpull|events?\b|pending|back-?off|kubectl|still|调度|事件|拉取", re.I)


def pod_runs_since(ctx: Context) -> Outcome:
    """The events that worry are those of the start; the pod has its node, and what it serves does not wait."""
    since, share, waiting = gpus_granted_since(ctx), read.top(ctx, "serving.queue_share"), read.waiting(ctx)
    if not since.holds or not _EVENTS.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    served = (share is not None and share[0] <= 0.1) or (waiting is not None and waiting[0] == 0)
    return Outcome(True, since.used) if served else UNKNOWN


_TENSOR = regex(r"tensor|starv|utili[sz]|\bsm\b|occup|busy|flops|利用率|喂不饱", re.I)


def tensor_cores_busy(ctx: Context) -> Outcome:
    """On every GPU the SMs hardly rest and the tensor cores work as much of the time as large models make them."""
    shares: dict[str, list[float]] = {}
    for value, item in ctx.numbers("dcgm.active"):
        shares.setdefault(item.subject.label or "", []).append(value)
    if not {"SM", "tensor"} <= set(shares) or not _TENSOR.search(ctx.symptom) or CLAIMS.search(ctx.symptom):
        return UNKNOWN
    if faulty(ctx):
        return UNKNOWN
    busy = min(shares["SM"]) >= 0.8 and min(shares["tensor"]) >= 0.38 and max(shares["SM"]) <= 1.0
    even = max(shares["tensor"]) <= 1.1 * min(shares["tensor"])
    seen = [e for n in ("SM", "tensor") for _, e in ctx.numbers("dcgm.active", {"label": f"^{n}$"})[:1]]
    return Outcome(busy and even, tuple(seen))


_NUMA = regex(r"numa|socket|bind|affinity|绑核|跨节点", re.I)


def numa_misses_few(ctx: Context) -> Outcome:
    """Counters of misses look large, and are a hundredth of the allocations of their node or less."""
    hits = {e.subject.label: v for v, e in ctx.numbers("host.numa.hit")}
    misses, others = ctx.numbers("host.numa.miss"), ctx.numbers("host.numa.other")
    if not misses or not others or not _NUMA.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    few = all(v <= 0.01 * hits.get(e.subject.label, 0.0) for v, e in (*misses, *others))
    return Outcome(few, (misses[0][1], *[e for _, e in ctx.numbers("host.numa.hit")][:1]))


_CACHED = regex(r"fragment|reserved|leak|cache|碎片|预留|缓存", re.I)


def reserve_serves(ctx: Context) -> Outcome:
    """Reserved memory above what is allocated is the worry, and no allocation ever failed or was tried twice."""
    failed, again = ctx.numbers("gpu.cache.ooms"), ctx.numbers("gpu.cache.retries")
    if not failed or not again or not _CACHED.search(ctx.symptom) or ctx.of("gpu.oom.requested") or faulty(ctx):
        return UNKNOWN
    if ctx.of("gpu.mark.oom"):
        return UNKNOWN
    return Outcome(all(v == 0 for v, _ in (*failed, *again)), (failed[0][1], again[0][1]))


_STRAGGLER = regex(r"straggl|slow(?:er|est)? (?:gpu|rank|card|node)|uneven|慢卡|掉队", re.I)


def timers_are_even(ctx: Context) -> Outcome:
    """Whether a rank lags is the question, and every timer differs between ranks by a few percent at most."""
    apart = ctx.numbers("rank.timer_spread")
    if len(apart) < 3 or not _STRAGGLER.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 1.08 for v, _ in apart), tuple(e for _, e in apart[:3]))


# ---------------------------------------------------------------- small beside its whole

_PROXY = regex(r"proxy|nginx|gateway|ingress|\bhops?\b|envoy|代理|网关", re.I)


def proxy_adds_nothing(ctx: Context) -> Outcome:
    """The proxy is suspected, and nearly all of a request's time is the server's behind it."""
    shares = ctx.numbers("proxy.share")
    if not shares or not _PROXY.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 0.02 for v, _ in shares), (shares[0][1],))


_SHM = regex(r"\bshm\b|shared memory|共享内存", re.I)
_AMPLE = 8.0  # GiB


def shm_has_room(ctx: Context) -> Outcome:
    """Shared memory is the worry; gigabytes of it are free, and nothing says that it was refused."""
    sizes, used = ctx.numbers("host.shm.size"), ctx.numbers("host.shm.used")
    bad = [e for s in ("nccl.mark.shm_failed", "host.mark.shm_bus_error") for e in ctx.of(s)]
    if not sizes or not used or bad or not _SHM.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    size, share = lowest(sizes), max(used, key=lambda n: n[0])
    return Outcome(size[0] * (1 - share[0]) >= _AMPLE and share[0] <= 0.5, (size[1], share[1]))


_REPLAY = regex(r"replay|riser|pci-?e|cable|slot|插槽|重放", re.I)


def replays_few(ctx: Context) -> Outcome:
    """A few packets were sent again since the driver was loaded, over a link at its full generation and width."""
    counts = ctx.numbers("gpu.pcie.replays")
    ends = [(ctx.numbers(f"gpu.pcie.{n}"), ctx.numbers(f"gpu.pcie.{n}.max")) for n in ("gen", "width")]
    if not counts or not all(a and b for a, b in ends) or not _REPLAY.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    if re.search(r"slow|low\b|drop|half|GB/s|慢", ctx.symptom, re.I) or CLAIMS.search(ctx.symptom):
        return UNKNOWN
    full = all(lowest(now)[0] >= lowest(top)[0] for now, top in ends)
    return Outcome(full and all(v <= 20 for v, _ in counts), (counts[0][1], *(now[0][1] for now, _ in ends)))


_BLOCKS = regex(r"block|small|size|\d ?[kK]i?B?\b|小块", re.I)


def blocks_reach_the_port(ctx: Context) -> Outcome:
    """Small blocks of a sweep are the worry; each larger one is faster, and the largest fill the port."""
    rates = {
        int(hit[1]): (v, e) for v, e in ctx.numbers("nixl.bench.bw")
        if (hit := re.search(r"block (\d+)", e.subject.label or "")) is not None
    }  # fmt: skip
    ports = {v for v, _ in ctx.numbers("rdma.port.rate")}
    own = ctx.of("kv.bytes_per_descriptor") or ctx.of("nixl.xfer*")  # what the system itself sends is another question
    if len(rates) < 3 or len(ports) != 1 or own or not _BLOCKS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    order = [rates[size] for size in sorted(rates)]
    rises = all(b[0] >= 0.95 * a[0] for a, b in pairwise(order))
    return Outcome(rises and 0.85 <= 8 * order[-1][0] / ports.pop() <= 1.03, (order[-1][1], order[0][1]))


_EXPERTS = regex(r"experts?['s]* (?:load|token|histogram)|balanc|skew|hot experts?|专家|不均", re.I)


def experts_even(ctx: Context) -> Outcome:
    """Whether experts are loaded unevenly is the question, and the busiest has a tenth above the mean at most."""
    tokens = ctx.numbers("serving.expert_tokens")
    if len(tokens) < 4 or not _EXPERTS.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    top, mean = max(tokens, key=lambda n: n[0]), sum(v for v, _ in tokens) / len(tokens)
    return Outcome(top[0] <= 1.1 * mean, (top[1], lowest(tokens)[1]))


_FRONT = regex(r"api ?-?server|front-?end|tokeni[sz]|http|process|前端|进程", re.I)
_ENGINE = regex(r"engine|worker|\btp\d|scheduler", re.I)


def process_has_room(ctx: Context) -> Outcome:
    """A process of the server is feared to be the bottleneck; it takes part of a core, and requests do not wait."""
    busy = [n for n in ctx.numbers("serving.proc.cpu") if not _ENGINE.search(n[1].subject.label or "")]
    share, waiting = read.top(ctx, "serving.queue_share"), read.waiting(ctx)
    late = ctx.of("serving.client.ttft") or [e for v, e in ctx.numbers("host.process.wait") if v > 0.1]
    if not busy or share is None or late or not _FRONT.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    free = all(v <= 60 for v, _ in busy) and share[0] <= 0.1 and (waiting is None or waiting[0] <= 1)
    return Outcome(free, (busy[0][1], share[1]))


_WARNS = regex(r"warn|message|prints?\b|hint|告警|警告|提示", re.I)


def warned_part_is_small(ctx: Context) -> Outcome:
    """A warning of the launcher is the worry; the step is compute, and what it could slow takes nothing of it."""
    said = [*ctx.of("torch.mark.harmless"), *ctx.of("host.mark.thread_var")]
    step = step_is_compute(ctx)
    if not said or not step.holds or not _WARNS.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    totals = [v for v, _ in ctx.numbers("figure", {"label": r"^step_time\|total$"})]
    even = not totals or max(totals) <= 1.1 * min(totals)
    return Outcome(even, (said[0], *step.used[:2]))


_OPTICS = regex(r"\bber\b|\bfec\b|optic|transceiver|cable|errors?\b|误码|光模块|线缆", re.I)


def fec_corrects_all(ctx: Context) -> Outcome:
    """Raw errors of a link are what its code is for: none was left after it, and the link never went down."""
    left = [n for s in ("net.effective_errors", "net.symbol_errors") for n in ctx.numbers(s)]
    down = [e for v, e in ctx.numbers("net.mark.link_flaps") if v > 0]
    if len(left) < 2 or not _OPTICS.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(not down and all(v == 0 for v, _ in left), tuple(e for _, e in left[:2]))


def xid_of_an_application(ctx: Context) -> Outcome:
    """What the driver reported was a program's own fault, and the health watch finds the card sound."""
    well = ctx.of("dcgm.test_passed", {"label": "Overall Health"})
    own, other = (
        ctx.of("gpu.xid.application"),
        [e for n in ("hardware", "nvlink", "driver") for e in ctx.of(f"gpu.xid.{n}")],
    )
    if (
        not well
        or not own
        or other
        or not re.search(r"drain|node|\brma\b|replace|health|card|gpu|下线|换卡", ctx.symptom, re.I)
    ):
        return UNKNOWN
    return Outcome(True, (own[0], well[0])) if not CLAIMS.search(ctx.symptom) else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    gauges_in_bounds, queue_serves_at_once, numa_misses_few, reserve_serves, timers_are_even, speculation_pays,
    diagnostics_pass, no_error_counted, pod_runs_since, tensor_cores_busy, proxy_adds_nothing,
    shm_has_room, replays_few, blocks_reach_the_port, experts_even, process_has_room, xid_of_an_application,
    warned_part_is_small, fec_corrects_all,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
