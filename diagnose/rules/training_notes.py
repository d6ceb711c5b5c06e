"""Named predicates over typed notes about training loops: what was switched, and what the step did then."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest, lowest


def _best(ctx: Context, signal: str) -> Reading | None:
    """Largest reading of a signal."""
    return max(ctx.numbers(signal), key=lambda n: n[0], default=None)


def faster_gpu_same_step(ctx: Context) -> Outcome:
    """Another GPU does the kernels in much less time, and the step takes as long."""
    ratios = {(e.subject.label or ""): (v, e) for v, e in ctx.numbers("compare.ratio")}
    for label, (value, step) in ratios.items():
        axis, metric, *settings = [*label.split("|"), ""]
        if axis not in ("gpu", "node", "version", "other") or "step_time" not in metric or value > 1.15:
            continue
        for other, (gain, kernels) in ratios.items():
            parts = other.split("|")
            same = parts[0] == axis and set(parts[2:4]) == set(settings[:2])
            if same and re.search(r"compute|kernel|gpu", parts[1]) and gain >= 1.6:
                return Outcome(True, (kernels, step))
    return UNKNOWN if not ratios else Outcome(False)


_MODEL = regex(r"\b(?:rtx|gtx|tesla|quadro)? ?(?:[ahlvtb]\d{1,3}s?|\d0[5-9]0|titan)\b", re.IGNORECASE)


def gpu_swap_same_step(ctx: Context) -> Outcome:
    """On a faster GPU the step takes as long, and that GPU is less busy."""
    by_gpu: dict[str, dict[str, Reading]] = {}
    for value, item in ctx.numbers("figure"):
        metric, _, setting = (item.subject.label or "").partition("|")
        if metric in ("step_time", "utilisation", "iterations") and _MODEL.search(setting):
            by_gpu.setdefault(setting, {})[metric] = (value, item)
    found = [g for g in by_gpu.values() if "utilisation" in g and len(g) > 1]
    if len(found) < 2:
        return UNKNOWN
    low, high = min(found, key=lambda g: g["utilisation"][0]), max(found, key=lambda g: g["utilisation"][0])
    pace = "step_time" if "step_time" in low and "step_time" in high else "iterations"
    if pace not in low or pace not in high or low["utilisation"][0] <= 0:
        return UNKNOWN
    same = 0.87 <= low[pace][0] / high[pace][0] <= 1.15
    used = (low[pace][1], high[pace][1], low["utilisation"][1])
    return Outcome(same and high["utilisation"][0] >= 1.6 * low["utilisation"][0], used)


def gaps_exceed_kernels(ctx: Context) -> Outcome:
    """Kernels of a few microseconds with gaps between them that are as long."""
    gap, median = _best(ctx, "trace.kernel_gap"), _best(ctx, "trace.kernel_median")
    if gap is None or median is None:
        return UNKNOWN
    return Outcome(median[0] < 12 and gap[0] >= 0.8 * median[0], (gap[1], median[1]))


def fewer_kernels_faster(ctx: Context) -> Outcome:
    """The same work in far fewer kernels takes far less time."""
    counts = [
        n
        for n in ctx.numbers("figure")
        if re.search(
            r"^count\|.*(kernel|launch)|^(kernel"
            r"|launch)\w*",
            n[1].subject.label or "",
        )
    ]
    counts += ctx.numbers("trace.kernels_per_step")
    times = [
        n for n in ctx.numbers("compare.ratio")
        if re.search(r"foreach|fused?\b|multi.?tensor|graph|compile|batched|for.?loop"
        r"|vmap", n[1].subject.label or "", re.I)
        and re.search(r"time|latency|throughput|iterations", (n[1].subject.label or "||").split("|")[1])
    ]  # fmt: skip
    if len(counts) < 2 or not times:
        return UNKNOWN
    low, high = lowest(counts), highest(counts)
    best = highest(times)
    return Outcome(high[0] >= 4 * max(low[0], 1) and high[0] >= 500 and best[0] >= 1.3, (best[1], high[1], low[1]))


_NO_COMM = regex(
    r"no_?sync|(?:without|no|skip\w*|w/o|disabl\w*) (?:the )?(?:grad\w* )?(?:all.?reduce|comm\w*|reduction"
    r"|sync(?:hroni[sz]ation)?\b)"
    r"|(?:all.?reduce|comm\w*|grad\w* sync) (?:off|disabled|skipped|removed|commented)|(?:不|去掉"
    r"|关闭)(?:做)?(?:梯度)?(?:通信|同步|all-?reduce)",
    re.IGNORECASE,
)


def faster_without_comm(ctx: Context) -> Outcome:
    """The step is a third longer or more with its reductions than without them."""
    steps: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure"):
        metric = (item.subject.label or "").split("|")[0]
        if metric in ("step_time", "time", "iterations", "throughput", "epoch_time") and value > 0:
            steps.setdefault(f"{metric} {item.unit}", []).append((value, item))
    for metric, found in steps.items():
        bare = [n for n in found if _NO_COMM.search(n[1].subject.label or "")]
        whole = [n for n in found if n not in bare]
        if not bare or not whole:
            continue
        rate = metric.startswith(("iterations", "throughput"))
        best = (max if rate else min)(bare, key=lambda n: n[0])
        worst = (min if rate else max)(whole, key=lambda n: n[0])
        gain = best[0] / worst[0] if rate else worst[0] / best[0]
        return Outcome(gain >= 1.3, (worst[1], best[1]))
    return UNKNOWN


_PINNED = regex(
    r"pinned|pin_memory(?!\W{1,3}(?:false|0))|page-?locked|MallocHost|HostAlloc"
    r"|HostRegister|锁页",
    re.IGNORECASE,
)
_PAGEABLE = regex(
    r"pageable|unpinned|not pinned|malloc\(|\bmalloc\b|std::vector|new (?:float|char)|numpy|\bnp\."
    r"|pin_memory\W{1,3}(?:false|0)|普通内存|可换页",
    re.IGNORECASE,
)


def pinned_lines_faster(ctx: Context) -> Outcome:
    """The line about pinned memory gives a rate far above the line about ordinary memory."""
    rates = [
        n for n in (*ctx.numbers("figure"), *ctx.numbers("copy.bandwidth"))
        if n[1].unit == "GB/s" and n[0] > 0 and not re.search(r"peak|spec|theor", n[1].quote or "", re.IGNORECASE)
    ]  # fmt: skip
    slow, fast = [], []
    for value, item in rates:
        words = f"{item.subject.label or ''} {item.quote or ''}"
        pageable, pinned = _PAGEABLE.search(words), _PINNED.search(words)
        if pageable and not re.search(
            r"pinned|pin_memory\(\)|MallocHost"
            r"|HostAlloc",
            words.replace("unpinned", ""),
            re.IGNORECASE,
        ):
            slow.append((value, item))
        elif pinned:
            fast.append((value, item))
    if not slow or not fast:
        return UNKNOWN
    low, high = highest(slow), highest(fast)
    return Outcome(high[0] >= 1.5 * low[0], (low[1], high[1]))


def names_serving(ctx: Context) -> Outcome:
    """The question is about an inference engine, which has causes of its own."""
    return Outcome(
        re.search(
            r"\b(?:vllm|sglang|trt-?llm|tgi|ttft|tpot|serving|decode latency|decode step"
            r"|tokens?/s)\b",
            ctx.symptom,
            re.IGNORECASE,
        )
        is not None
    )


def asks_about_comm(ctx: Context) -> Outcome:
    """The question is whether communication slows training down."""
    said = re.search(r"nccl|comm|all-?reduce|gradient|network|通信|梯度|网络", ctx.symptom, re.IGNORECASE)
    return Outcome(said is not None and ctx.asks("training-slow", "gpu-idle-network-busy", "slow-allreduce"))


def asks_about_input(ctx: Context) -> Outcome:
    """The question is whether the input pipeline is to blame."""
    return Outcome(
        re.search(
            r"data ?load|input pipeline|loader|waiting for data|storage|disks?\b|nvme|iostat|i/o\b|存储|磁盘"
            r"|数据(?:加载|读取)",
            ctx.symptom,
            re.IGNORECASE,
        )
        is not None
    )


def period_is_workers(ctx: Context) -> Outcome:
    """Slow steps return with the number of loader workers: what they deliver together is used up together."""
    workers = {v: e for v, e in ctx.numbers("train.num_workers") if v >= 2}
    for value, item in (*ctx.numbers("train.slow_period"), *ctx.numbers("trend.period")):
        if value in workers:
            return Outcome(True, (item, workers[value]))
    return UNKNOWN


def gpu_busy_said(ctx: Context) -> Outcome:
    """Someone read off a trace that kernels fill the step."""
    busy = [n for n in ctx.numbers("trace.gpu_busy") if n[1].kind != "derived"]
    comm = [n for s in ("trace.comm_exposed", "trace.comm_share", "train.overlap") for n in ctx.numbers(s)]
    if not busy or comm:
        return UNKNOWN
    return Outcome(
        min(v for v, _ in busy) >= 0.95
        and re.search(
            r"trace|step|timeline|nsys"
            r"|profile",
            busy[0][1].quote or "",
        )
        is not None,
        (busy[0][1],),
    )


TRAINING_NOTE_RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        faster_gpu_same_step,
        gpu_swap_same_step,
        gaps_exceed_kernels,
        fewer_kernels_faster,
        faster_without_comm,
        pinned_lines_faster,
        names_serving,
        asks_about_comm,
        asks_about_input,
        period_is_workers,
        gpu_busy_said,
    )
}
