"""Named predicates of training that join facts of different places: code and rates, kernels and peaks."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import outcome
from .comparison import ratios
from .nccl_facts import text_of

_BOUND = regex(r"numactl|membind|cpunodebind|taskset|绑核|绑定", re.IGNORECASE)


def numa_bind_cures(ctx: Context) -> Outcome:
    """With the process bound to a node the rate is given, and its memory lies on another node."""
    bound = [
        e for _, e in ctx.numbers("figure")
        if (e.subject.label or "").startswith("bandwidth") and _BOUND.search(f"{e.subject.label} {e.quote or ''}")
    ]  # fmt: skip
    skewed = [r.evidence for r in ratios(ctx) if r.axis == "numa" and r.metric in ("bytes", "memory") and r.value >= 5]
    return Outcome(True, (bound[0], skewed[0])) if bound and skewed else UNKNOWN


_FP32 = {  # TFLOP/s outside the tensor cores; sources: the products' data sheets
    "A100": 19.5, "H100 80GB HBM3": 66.9, "H100 PCIe": 51.2, "H200": 66.9, "V100-SXM": 15.7, "V100-PCIE": 14.0,
    "T4": 8.1, "A10G": 35.0, "A10": 31.2, "A30": 10.3, "A40": 37.4, "RTX A6000": 38.7, "L40S": 91.6, "L4": 30.3,
    "RTX 3090": 35.6, "RTX 4090": 82.6,
}  # fmt: skip


def _fp32_peak(ctx: Context) -> float | None:
    """Of the one product that is named, by the evidence or the question."""
    words = " ".join(text_of(e) for e in (*ctx.of("gpu.name"), *ctx.of("gpu.product"))) or ctx.symptom
    peaks = [peak for name, peak in _FP32.items() if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}", words)]
    return peaks[0] if peaks else None


def gemms_left_the_tensor_cores(ctx: Context) -> Outcome:
    """Plain FP32 matrix kernels carry the work, and either tensor-core kernels did before or the rate is their peak."""
    plain, tensor = ctx.of("kernel.mark.simt_gemm"), ctx.of("kernel.mark.tensor_gemm")
    peak = _fp32_peak(ctx)
    rates = [(v, e) for v, e in ctx.numbers("figure") if e.unit == "TFLOP/s"]
    at_peak = [e for v, e in rates if peak is not None and 0.7 <= v / peak <= 1.03]
    if not plain:
        return UNKNOWN
    if at_peak:
        return Outcome(True, (plain[0], *at_peak[:1], *tensor[:1]))
    faster = [r.evidence for r in ratios(ctx) if r.value >= 1.5 and re.match("flops|step_time|time", r.metric)]
    return Outcome(True, (plain[0], tensor[0], faster[0])) if tensor and faster else UNKNOWN


def compiles_at_later_step(ctx: Context) -> Outcome:
    """A step well after the start takes as long as the first one, and a compiler speaks."""
    said = [*ctx.of("train.mark.xla_compile"), *ctx.of("train.mark.recompile")]
    steps = [(v * (1e3 if e.unit == "s" else 1.0), e) for v, e in ctx.numbers("figure") if _STEP.match(_label(e))]
    late = [
        (v, e) for v, e in steps
        if (hit := re.search(r"(?:step|batch|iter\w*) (\d+)$", _label(e))) and int(hit[1]) > 5
    ]  # fmt: skip
    usual = min((v for v, _ in steps if v > 0), default=0.0)
    slow = [e for v, e in late if usual > 0 and v >= 10 * usual]
    return Outcome(True, (said[0], slow[0])) if said and slow else UNKNOWN


_STEP = regex(r"(?:step_time|time|compute_time)(?:\||$)")


def _label(item: Evidence) -> str:
    return item.subject.label or ""


def batch_is_free(ctx: Context) -> Outcome:
    """Four times the batch or more takes the same step."""
    for item in (*ctx.of("compare.same"), *ctx.of("compare.flat")):
        parts = _label(item).split("|")
        if len(parts) == 4 and parts[0] == "batch" and re.match(r"step_time|time|latency", parts[1]):
            sizes = [float(n[0]) for n in (re.findall(r"\d+(?:\.\d+)?", p) for p in parts[2:]) if n]
            if len(sizes) == 2 and max(sizes) >= 4 * min(sizes) > 0:
                return Outcome(True, (item,))
    return UNKNOWN


def batch_is_free_and_kernels_many(ctx: Context) -> Outcome:
    """... and a step is a thousand kernels or more."""
    free = batch_is_free(ctx)
    many = [e for v, e in ctx.numbers("trace.kernels_per_step") if v >= 1000]
    many += [e for v, e in ctx.numbers("figure") if _label(e).startswith("kernels|") and v >= 1000]
    return Outcome(True, (*free.used, many[0])) if free.holds and many else UNKNOWN


_PINNED = regex(r"pinned|pin_memory|page-?locked|MallocHost|HostAlloc|HostRegister|锁页", re.IGNORECASE)


def pinned_alone_is_fast(ctx: Context) -> Outcome:
    """What pinned memory reaches is given, and it is what a slot carries."""
    return outcome(
        e for v, e in ctx.numbers("figure")
        if e.unit == "GB/s" and v >= 10 and _label(e).startswith("bandwidth")
        and _PINNED.search(re.sub(r"unpinned|not pinned", "", f"{_label(e)} {e.quote or ''}", flags=re.IGNORECASE))
    )  # fmt: skip


_EVERY, _RARE = regex(r"\bevery (?:step|iteration|batch)|每步|每个 ?step"), regex(r"\bevery \d+|\brarely\b|每 ?\d+ ?步")


def syncs_cost(ctx: Context) -> Outcome:
    """Waiting for the GPU is a good part of the time, or the step is shorter where values are read back rarely."""
    waits = ctx.numbers("api.share", {"label": "Synchronize"})
    waits += [(v, e) for v, e in ctx.numbers("figure", {"label": "^fraction"}) if "Synchronize" in (e.quote or "")]
    hits = [e for v, e in waits if v >= 0.25]
    steps = ctx.numbers("figure", {"label": "^step_time"})
    often = [(v, e) for v, e in steps if _EVERY.search(_label(e)) and not _RARE.search(_label(e))]
    rarely = [(v, e) for v, e in steps if _RARE.search(_label(e))]
    hits += [a for v, a in often for w, b in rarely if a.unit == b.unit and v >= 1.15 * w]
    return outcome(hits, bool(waits or (often and rarely)))


def names_training(ctx: Context) -> Outcome:
    """The question is about training, or steps are what was measured."""
    said = re.search(
        r"\btrain|fine-?tun|\bddp\b|fsdp|megatron|deepspeed|\bepochs?\b|backward|gradient|weak scaling"
        r"|nccl-?tests?|_perf\b|训练|梯度",
        ctx.symptom,
        re.IGNORECASE,
    )
    steps = [e for _, e in ctx.numbers("figure") if re.match(r"(?:step_time|iterations|init_time)", _label(e))]
    return Outcome(bool(said or steps), tuple(steps[:1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        numa_bind_cures, gemms_left_the_tensor_cores, compiles_at_later_step, batch_is_free,
        batch_is_free_and_kernels_many, pinned_alone_is_fast, syncs_cost,
        names_training,
    )
}  # fmt: skip
