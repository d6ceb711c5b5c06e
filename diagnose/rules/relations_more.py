"""More named predicates that relate readings: what a setting predicts with what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..units import IN_MS
from . import serving_read as read
from .base import highest
from .comparison import ratios


def _times(ctx: Context, label: str) -> list[tuple[float, Evidence]]:
    """Figures with a unit of time, in ms."""
    return [(v * IN_MS[e.unit], e) for v, e in ctx.numbers("figure", {"label": label}) if e.unit in IN_MS]


# ---------------------------------------------------------------- serving


def ttft_is_prefill_rate(ctx: Context) -> Outcome:
    """The late first token is the prompt's length over the rate at which prompts are processed, alone on the server."""
    prompt, rate = read.top(ctx, "serving.told", "^prompt$"), read.top(ctx, "serving.prompt_tput")
    running, waiting = read.top(ctx, "serving.running_span", "^max$"), read.waiting(ctx)
    if prompt is None or rate is None or rate[0] < 500 or prompt[0] < 8000:
        return UNKNOWN
    if (waiting is not None and waiting[0] > 0) or (running is not None and running[0] > 4):
        return UNKNOWN
    for value, item in _times(ctx, "^ttft"):
        if 0.7 <= value / (prompt[0] / rate[0] * 1e3) <= 1.4:
            return read.yes(item, prompt[1], rate[1])
    return UNKNOWN


def slots_full(ctx: Context) -> Outcome:
    """The server says that all its slots are busy, and it was given few."""
    busy, cap = next(iter(ctx.of("serving.mark.slots_busy")), None), read.cap(ctx)
    if busy is None:
        return UNKNOWN
    return read.yes(busy, cap[1]) if cap is not None and cap[0] <= 8 else Outcome(None, (busy,))


_LOOP = regex(
    r"\bvla\b|robot|control loop|servo|actuat|watchdog|deadline|\d+ ?hz\b|jetson|\borin\b|policy server|机械臂|机器人|控制",  # noqa: E501
    re.I,
)


def control_tail(ctx: Context) -> Outcome:
    """A loop with a deadline whose worst periods are a multiple of the usual one."""
    tails = ctx.numbers("stat.tail", {"label": "latency|time|period|step|loop|infer"})
    most, usual = _times(ctx, "_max"), _times(ctx, "_(?:p50|mean)")
    tails += [(m / u, e) for m, e in most for u, f in usual if u > 0 and e.quote == f.quote]
    if not tails:
        return UNKNOWN
    seen = " ".join([ctx.symptom, *(e.quote or "" for _, e in tails)])
    top = highest(tails)
    return Outcome(top[0] >= 1.8 and _LOOP.search(seen) is not None, (top[1],))


# ---------------------------------------------------------------- devices


def copy_matches_low_link(ctx: Context) -> Outcome:
    """Copies run at the rate of the low generation that the link shows: it is no saving of power at rest."""
    speed, width = read.low(ctx, "pci.link.speed"), read.low(ctx, "pci.link.width")
    most = read.top(ctx, "pci.link.speed.max")
    rates = [
        (v, e) for v, e in (*ctx.numbers("figure", {"label": "^bandwidth"}), *ctx.numbers("copy.bandwidth"))
        if e.unit == "GB/s" and re.search(r"h2d|d2h|htod|dtoh|host.to|bandwidthtest|nvbandwidth", f"{e.quote} {e.subject.label}", re.I)  # noqa: E501
    ]  # fmt: skip
    if speed is None or width is None or not rates:
        return UNKNOWN
    generation = hardware.PCIE_GTS.get(speed[0])
    slot = hardware.pcie_rate(generation, int(width[0])) if generation else None
    if slot is None or generation is None or (most is not None and most[0] <= speed[0]) or generation > 2:
        return UNKNOWN
    top = highest(rates)
    return Outcome(top[0] <= 1.05 * slot.value, (top[1], speed[1], width[1]))


def memory_on_far_node(ctx: Context) -> Outcome:
    """The process holds its memory on another NUMA node than its GPU's."""
    held = {e.subject.label or "": (v, e) for v, e in ctx.numbers("host.numa.process")}
    nodes = {int(v): e for v, e in ctx.numbers("gpu.numa")}
    total = sum(v for v, _ in held.values())
    if len(held) < 2 or len(nodes) != 1 or total <= 0:
        return UNKNOWN
    near = held.get(f"node {next(iter(nodes))}")
    far = highest(held.values())
    if near is None:
        return UNKNOWN
    return Outcome(near[0] < 0.2 * total, (far[1], near[1], next(iter(nodes.values()))))


def pinned_buffer_faster(ctx: Context) -> Outcome:
    """The same copy from a pinned buffer is a multiple faster."""
    pinned = regex(r"pin_?memory|\bpinned\b|page.?locked|host_?alloc|hostregister|锁页", re.I)
    for item in ratios(ctx):
        copies = re.search("bandwidth|^time|rate", item.metric)
        if item.value >= 1.5 and copies and pinned.search(item.better) and not pinned.search(item.worse):
            return read.yes(item.evidence)
    return UNKNOWN


# ---------------------------------------------------------------- movement


def knee_at_threshold(ctx: Context) -> Outcome:
    """Latency jumps at the very message size to which the rendezvous threshold was set."""
    for item in (*ctx.of("ucx.env", {"label": "RNDV_THRESH"}), *ctx.of("env.var", {"label": "UCX_RNDV_THRESH"})):
        hit = re.match(r"(\d+)\s*([kKmM]?)", str(item.value))
        if hit is None:
            continue
        size = int(hit[1]) * {"": 1, "k": 1024, "m": 1 << 20}[hit[2].lower()]
        for value, knee in ctx.numbers("compare.knee", {"label": r"^message_size\|"}):
            at = (knee.subject.label or "").split("|")[2]
            number = read.numbers(at)
            if value >= 1.8 and number is not None and 0.9 <= number / size <= 1.1:
                return read.yes(knee, item)
    return UNKNOWN


def management_lane(ctx: Context) -> Outcome:
    """The data goes over the adapter that the notes call the one for storage or management."""
    ports = [e for e in ctx.of("rdma.port.netdev") if re.match(r"stor|mgmt|oob|data0?stor|nfs|bmc", str(e.value), re.I)]
    for port in ports:
        for lane in ctx.of("ucx.lane"):
            if port.subject.nic and re.search(rf"/{re.escape(port.subject.nic)}(?::|\b)", str(lane.value)):
                return read.yes(lane, port)
    for mark in ctx.of("rdma.mark.side_nic"):
        name = mark.subject.label or ""
        for lane in ctx.of("ucx.lane"):
            if name and re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", str(lane.value)):
                return read.yes(lane, mark)
    return UNKNOWN


def gpu_buffers_slower(ctx: Context) -> Outcome:
    """The same transfer is slower between GPU buffers than between host buffers."""
    host = ctx.numbers("figure", {"label": r"^bandwidth\|.*\bhost\b"})
    gpu = ctx.numbers("figure", {"label": r"^bandwidth\|.*(?:\b(?:cuda|gpu|device|vram)\b|--use_cuda)"})
    if not host or not gpu or host[0][1].unit != gpu[0][1].unit:
        return UNKNOWN
    return Outcome(host[0][0] >= 1.4 * gpu[0][0], (host[0][1], gpu[0][1]))


def device_path_slower(ctx: Context) -> Outcome:
    """The adapter's memory domain registers host memory only, and GPU buffers move slower than host buffers."""
    mark, slower = next(iter(ctx.of("ucx.mark.md_host_only")), None), gpu_buffers_slower(ctx)
    return UNKNOWN if mark is None or slower.holds is None else Outcome(slower.holds, (mark, *slower.used))


def ipc_barred_and_slow(ctx: Context) -> Outcome:
    """CUDA IPC is left out of UCX_TLS, and GPUs joined by NVLink exchange data at the rate of a NIC or a slot."""
    from .movement import tls_lacks_ipc

    got = tls_lacks_ipc(ctx)
    rates = [
        (v, e) for v, e in ctx.numbers("figure", {"label": "^bandwidth"})
        if e.unit == "GB/s" and re.search(r"nvlink|\bNV\d+\b", e.quote or "", re.I)
    ]  # fmt: skip
    if not got.holds or not rates:
        return UNKNOWN
    top = highest(rates)
    return Outcome(top[0] < 50, (*got.used[:1], top[1]))


def mtu_setting_matters(ctx: Context) -> Outcome:
    """The pair with the larger MTU is faster."""
    small = [(v, e) for v, e in ctx.numbers("rdma.mark.active_mtu") if v < 4096]
    for item in ratios(ctx):
        if (
            item.value >= 1.15
            and re.search("mtu", f"{item.worse} {item.better}", re.I)
            and (small or item.axis == "mtu")
        ):
            return read.yes(item.evidence, small[0][1] if small else None)
    return UNKNOWN


def version_decides(ctx: Context, words: str) -> Outcome:
    """One version fails where another does not, and `words` name the component."""
    found = ctx.of("compare.version_outcome")
    if not found:
        return UNKNOWN
    seen = " ".join([ctx.symptom, *(e.subject.label or "" for e in found), *(e.quote or "" for e in ctx.evidence)])
    return Outcome(re.search(words, seen, re.I) is not None, tuple(found[:2]))


def ucx_version_decides(ctx: Context) -> Outcome:
    """One version of UCX fails where another does not."""
    return version_decides(ctx, r"\bucx\b|\bucp_|\bucs_|\buct_|libuc[pst]")


def nccl_version_decides(ctx: Context) -> Outcome:
    """One version of NCCL fails where another does not."""
    return version_decides(ctx, r"\bnccl\b|libnccl")


def engine_version_decides(ctx: Context) -> Outcome:
    """One version of the engine fails where another does not."""
    return version_decides(ctx, r"vllm|sglang|trt-?llm|tensorrt|llama\.?cpp|\btgi\b")


_ENGINES = regex(r"^(?:vllm|sglang|trt-?llm|tensorrt-?llm|llama\.?cpp|tgi|lmdeploy)$", re.IGNORECASE)
_SERVED = regex(r"^(?:ttft|tpot|itl|decode_throughput|throughput|prompt_throughput|e2e|latency|request_rate|prefill)")
_PLAIN_AB = regex(
    r"\W*(?:(?:before|after)(?: the)? ?(?:change|upgrade|update|bump|switch)?|then|now|old|new"
    r"|升级前|升级后|之前|之后|前|后)\W*$",
    re.IGNORECASE,
)


def engine_alone_changed(ctx: Context) -> Outcome:
    """Before and after differ in the version of the engine and in no other component, and the rate went down."""
    seen: dict[str, dict[str, Evidence]] = {}
    for item in ctx.of("version"):
        seen.setdefault(item.subject.label or "", {}).setdefault(str(item.value), item)
    changed = {name: by for name, by in seen.items() if len(by) == 2 and name}
    if len(changed) != 1 or not all(_ENGINES.match(name) for name in changed):
        return UNKNOWN
    found = [r for r in ratios(ctx) if _SERVED.match(r.metric)]
    told = [r for r in found if _PLAIN_AB.match(r.worse) and _PLAIN_AB.match(r.better)]
    if not told or any(r not in told and r.value >= 1.15 for r in found):
        return UNKNOWN
    late = [r for r in told if r.value >= 1.15 and re.search("after|now|new|后", r.worse, re.IGNORECASE)]
    return Outcome(bool(late), (*next(iter(changed.values())).values(), (late or told)[0].evidence))


# ---------------------------------------------------------------- healthy


def reserved_as_set(ctx: Context) -> Outcome:
    """Memory in use is the share that the engine was told to reserve, and it does not grow."""
    shares = [s for s in read.option(ctx, read.FRACTIONS) if 0.3 <= s[0] <= 1]
    sizes = sorted(
        ((v, e) for v, e in ctx.numbers("figure", {"label": "^(bytes|memory)"}) if e.unit == "B"), key=lambda s: s[0]
    )
    asked = re.search(r"leak|memory|vram|\bGB\b|显存|内存", ctx.symptom, re.I)
    if not shares or len(sizes) < 3 or asked is None or any(ctx.of(s) for s in ("gpu.oom", "oom.*")):
        return UNKNOWN
    total, used = sizes[-1], sizes[:-1]
    apart = used[-1][0] / used[0][0] if used[0][0] > 0 else 9.0
    met = all(abs(v / total[0] - shares[0][0]) <= 0.04 for v, _ in used) and apart <= 1.02
    return Outcome(met, (used[0][1], used[-1][1], total[1], shares[0][1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        ttft_is_prefill_rate, slots_full, control_tail, copy_matches_low_link, memory_on_far_node, pinned_buffer_faster,
        knee_at_threshold, management_lane, device_path_slower, gpu_buffers_slower, ipc_barred_and_slow,
        mtu_setting_matters,
        ucx_version_decides, nccl_version_decides, engine_version_decides, engine_alone_changed, reserved_as_set,
    )
}  # fmt: skip
