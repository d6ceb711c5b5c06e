"""Named predicates over what moves with a revision, what a server was left with, and strides of shared memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import median

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import highest

_REV = regex(r"\brev(?:ision)?\.? ?#?(?P<n>\d{1,4})\b", re.I)


def rollout_slower(ctx: Context) -> Outcome:
    """Rates beside revisions of a deployment, of which one image is slower than the image before."""
    images = {e.subject.label or "": (str(e.value), e) for e in ctx.of("rollout.image")}
    by: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure"):
        hit = _REV.search(item.quote or "")
        if hit and hit["n"] in images and item.unit in ("tokens/s", "req/s") and value > 0:
            by.setdefault(images[hit["n"]][0], []).append((value, item))
    if len(by) != 2:
        return UNKNOWN
    (_, slow), (_, fast) = sorted(by.items(), key=lambda b: median(v for v, _ in b[1]))
    apart = min(v for v, _ in fast) / max(v for v, _ in slow)
    newest = [name for name, _ in (images[n] for n in sorted(images, key=int))]
    used = (slow[0][1], fast[0][1], *(e for _, e in list(images.values())[:2]))
    late = newest.index(next(n for n, got in by.items() if got is slow)) > 0
    return read.yes(*used) if apart >= 1.15 and late else read.no(*used)


_LOST = regex(
    r"forget|forgot|ignore|lost|miss|nonsense|wrong|wors|cut|trunc|context|hallucin|garbage|long (?:prompt|document)"
    r"|answer|忘|丢|截断|胡说|上下文|答非",
    re.I,
)


def prompt_is_cut(ctx: Context) -> Outcome:
    """Prompts are cut to the context, and what is asked about is what is answered."""
    cut = ctx.of("serving.mark.prompt_cut")
    return read.yes(cut[0]) if cut and _LOST.search(ctx.symptom) else UNKNOWN


def offload_left_on(ctx: Context) -> Outcome:
    """Weights in host memory cross PCIe for every token: an option asks for it, and the link is busy."""
    asked = [(v, e) for v, e in read.option(ctx, "^cpu-offload-gb$") if v > 0]
    if not asked or not ctx.asks("bad-tpot", "low-throughput", "gpu-underutilized", "high-p99"):
        return UNKNOWN
    traffic = [e for v, e in ctx.numbers("gpu.pcie.traffic", {"label": "rx"}) if v >= 5]
    return read.yes(asked[0][1], *traffic[:1]) if traffic else UNKNOWN


_LOOPBACK = regex(r"^(?:127\.\d|localhost\b|\[?::1\b)")
_MEET = r"^(?:data-parallel-address|dist-init-addr|master-addr|nccl-init-addr|head-addr)$"


def loopback_for_others(ctx: Context) -> Outcome:
    """Parts on several hosts are to meet, and one of them is given the loopback address."""
    given = ctx.of("serving.arg", {"label": _MEET})
    inner = [e for e in given if _LOOPBACK.match(str(e.value))]
    outer = [e for e in given if not _LOOPBACK.match(str(e.value))]
    nodes = [e for v, e in read.option(ctx, "^(?:nnodes|num-nodes)$") if v >= 2]
    away = [*outer, *nodes, *ctx.of("serving.arg", {"label": "^headless$"})]
    return read.yes(inner[0], away[0]) if inner and away else UNKNOWN


_ROW = regex(r"\|\s*(\d{1,3})\s*$")


def odd_stride_is_free(ctx: Context) -> Outcome:
    """Time grows with strides of a power of two and is back at an odd one: banks do that, sectors do not."""
    axes = [e for e in ctx.of("compare.ratio") if (e.subject.label or "").startswith("stride|")]
    if not axes:
        return UNKNOWN
    rows: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure"):
        if hit := _ROW.search(item.subject.label or ""):
            rows.setdefault(int(hit[1]), (value, item))
    odd = [(n, *rows[n]) for n in sorted(rows) if n % 2 and n >= 3]
    if not odd:
        return UNKNOWN
    base = rows[1][0] if 1 in rows else min(v for _, v, _ in odd)
    even = [(v, e) for n, (v, e) in rows.items() if n % 8 == 0]
    if not even or base <= 0:
        return UNKNOWN
    worst = highest(even)
    free = [e for _, v, e in odd if v <= 1.25 * base]
    return read.yes(worst[1], free[0]) if worst[0] >= 2 * base and len(free) == len(odd) else read.no(worst[1])


RULES: dict[str, Callable[[Context], Outcome]] = {f.__name__: f for f in (
    rollout_slower, prompt_is_cut, offload_left_on, loopback_for_others, odd_stride_is_free,
)}  # fmt: skip
