"""Rules that place a figure among its neighbours: an edge beside a limit, a wait beside its step, a run beside a run."""  # noqa: E501

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

_GRAPH_SIZES = r"^(?:cuda-graph-max-bs(?:-decode)?|cuda-graph-config\.max-batch-size|max-seq-len-to-capture|cuda-graph-bs|cudagraph-capture-sizes|max-cudagraph-capture-size|cuda-graph-batch-sizes)$"  # noqa: E501
_EDGE = regex(
    r"^(?:concurrency|batch|request|other)\|(?:step_time|tpot|itl|latency|time|decode)[^|]*\|\D*(\d+)\D*\|\D*(\d+)\D*$"
)


def graph_edge(ctx: Context) -> Outcome:
    """The step gets longer at one batch more than the largest captured graph."""
    sizes = [*read.option(ctx, _GRAPH_SIZES), *ctx.numbers("serving.graph_batch")]
    for value, item in (*ctx.numbers("compare.knee"), *ctx.numbers("compare.ratio")):
        edge = _EDGE.match(item.subject.label or "")
        if edge is None or value < 1.3:
            continue
        first, last = sorted(int(n) for n in edge.groups())
        at = next((e for size, e in sizes if first <= size < last <= 1.3 * size + 1), None)
        if at is not None:
            return read.yes(item, at)
    return UNKNOWN


_PREFILL_STEP = regex(r"\b(?:prefill|extend|context phase|ctx)\b|预填充", re.IGNORECASE)
_PREFILL_TOKENS = regex(r"\b(?:ctx|context|prefill|prompt|extend)[_ ]?(?:tokens?|len)\W{1,3}(\d{1,7})\b", re.IGNORECASE)
_DECODE_STEP = regex(r"\b(?:decode|generation|gen)\b|解码", re.IGNORECASE)


def stalled_by_prefill(ctx: Context) -> Outcome:
    """In a list of steps each decode step is short, except that a prefill stands between two of them, many times longer."""  # noqa: E501
    steps: dict[int, tuple[str, float, Evidence]] = {}
    for value, item in ctx.numbers("figure"):
        text, unit = item.quote or "", item.unit
        counted = _PREFILL_TOKENS.search(text)
        prefill, decode = _PREFILL_STEP.search(text), _DECODE_STEP.search(text)
        if counted is not None:  # a mixed step is a prefill where it has prompt tokens at all
            prefill, decode = (counted, None) if int(counted[1]) >= 256 else (None, counted)
        if unit not in ("ms", "s") or item.capture is None or bool(prefill) == bool(decode):
            continue
        steps[item.capture.bytes[0]] = ("p" if prefill else "d", value * (1000 if unit == "s" else 1), item)
    order = [steps[k] for k in sorted(steps)]
    kinds = "".join(s[0] for s in order)
    if len(order) < 4 or not re.search("dp+d", kinds):
        return UNKNOWN
    decodes = sorted(s[1] for s in order if s[0] == "d")
    usual = decodes[len(decodes) // 2]
    long = [s for n, s in enumerate(order) if s[0] == "p" and 0 < n < len(order) - 1 and s[1] >= 8 * usual > 0]
    return read.yes(*(s[2] for s in long[:2]), next(s[2] for s in order if s[0] == "d")) if long else UNKNOWN


def hits_move_ttft(ctx: Context) -> Outcome:
    """Over the same settings the first token comes later as fewer prompt tokens come from the cache."""
    found = ratios(ctx)
    for hit in (r for r in found if r.metric.startswith("hit_rate") and r.value >= 1.8):
        for late in (r for r in found if re.match("ttft|prefill|latency|e2e", r.metric) and r.value >= 1.8):
            if late.pair == hit.pair and late.worse == hit.worse:
                return read.yes(hit.evidence, late.evidence)
    return UNKNOWN


def queue_moves_ttft(ctx: Context) -> Outcome:
    """Over the same settings the first token comes later as more requests wait, and the cache hits as often."""
    found = ratios(ctx)
    if any(r.metric.startswith("hit_rate") and r.value >= 1.5 for r in found):
        return UNKNOWN
    for queue in (r for r in found if r.metric.startswith("waiting") and r.value >= 5):
        for late in (r for r in found if r.metric.startswith("ttft") and r.value >= 1.8):
            if late.pair == queue.pair and late.worse == queue.worse:
                return read.yes(queue.evidence, late.evidence)
    return UNKNOWN


_REPLICAS = regex(
    r"independent|replicas?|separate (?:instances|servers|copies)|(?:two|2|4|four) (?:instances|servers|copies)|data[- ]parallel|\bdp ?=? ?[248]\b|独立|副本",  # noqa: E501
    re.I,
)
_TP_OF = regex(r"\btp[ _=:-]*(?:size)?[ =:]*(\d{1,2})\b|tensor[- ]parallel(?:[- ]size)?[ =:]*(\d{1,2})\b", re.I)


def replicas_scale(ctx: Context) -> Outcome:
    """Independent copies of the model add up, one model over the same GPUs does not gain."""
    hurts = _tp_loses(ctx)
    if hurts is None:
        return UNKNOWN
    best, used = hurts
    for value, item in ctx.numbers("figure", {"label": r"^(?:decode_)?throughput"}):
        if _REPLICAS.search(item.quote or "") and value >= 1.4 * best:
            return read.yes(item, *used)
    return UNKNOWN


def _tp_loses(ctx: Context) -> tuple[float, tuple[Evidence, ...]] | None:
    """Best throughput of a sweep over TP whose largest size is not its fastest by far."""
    rows: dict[float, tuple[float, Evidence]] = {}
    compared = (*ctx.of("compare.ratio"), *ctx.of("compare.scaling"))
    swept = any((e.subject.label or "").startswith(("tp|", "ngpus|")) for e in compared)
    for value, item in ctx.numbers("figure", {"label": r"^(?:decode_)?throughput[^|]*\|"}):
        name = (item.subject.label or "").split("|")[1]
        size = _TP_OF.search(name)
        number = float(size[1] or size[2]) if size else read.numbers(name) if swept else None
        if number is not None and number in (1, 2, 4, 8, 16, 32) and not _REPLICAS.search(item.quote or ""):
            rows.setdefault(number, (value, item))
    if len(rows) < 2:
        return None
    small, large = rows[min(rows)], rows[max(rows)]
    if large[0] >= 1.25 * small[0]:
        return None
    return max(r[0] for r in rows.values()), (small[1], large[1])


def _bare(ctx: Context) -> Evidence | None:
    """What says that there is PCIe only between the GPUs: a board without links, or a line that says so."""
    names = [*ctx.of("gpu.name"), *ctx.of("gpu.product")]
    boards = [e for e in names if (g := hardware.gpu(str(e.value))) is not None and g.links == 0]
    said = [e for e in ctx.evidence if e.quote and _PCIE.search(e.quote) and not re.search("nvlink", e.quote, re.I)]
    return next(iter(boards or said), None)


def tp_without_links(ctx: Context) -> Outcome:
    """More tensor parallelism brings little or nothing, and the GPUs are known to have PCIe between them only."""
    got, bare = _tp_loses(ctx), _bare(ctx)
    return read.yes(*got[1], bare) if got is not None and bare is not None else UNKNOWN


def tp_slower_without_links(ctx: Context) -> Outcome:
    """Over PCIe alone, the most GPUs of the sweep are slower than fewer of them."""
    got, bare = _tp_loses(ctx), _bare(ctx)
    if got is None or bare is None:
        return UNKNOWN
    last = got[1][1].value
    return read.yes(*got[1], bare) if isinstance(last, int | float) and last < 0.97 * got[0] else UNKNOWN


_PCIE = regex(r"\bPCI-?e\b", re.I)
_NODES = regex(
    r"\b(?:2|two|3|4|multi(?:ple)?|across|over)[ -]?(?:\d )?(?:nodes?|hosts?|machines?)|跨机|两台|两机", re.I
)


def tp_over_nodes_slower(ctx: Context) -> Outcome:
    """A tensor-parallel group over several machines is slower than a smaller one within a machine."""
    rows: dict[tuple[str, int], list[tuple[float, float, Evidence]]] = {}
    place: dict[str, int] = {}
    for value, item in ctx.numbers("figure"):
        label, quote = item.subject.label or "", item.quote or ""
        metric = label.split("|")[0]
        size = _TP_OF.search(quote)
        if size is None or not re.match("(?:decode_)?throughput|tpot|itl", metric):
            continue
        key = f"{quote}|{metric}"
        place[key] = place.get(key, -1) + 1
        rows.setdefault((metric, place[key]), []).append((float(size[1] or size[2]), value, item))
    for (metric, _), got in rows.items():
        wide = [r for r in got if _NODES.search(r[2].quote or "")]
        near = (
            [r for r in got if not _NODES.search(r[2].quote or "") and r[0] <= max(w[0] for w in wide)] if wide else []
        )
        for w in wide:
            for n in near:
                ratio = n[1] / w[1] if "throughput" in metric else w[1] / n[1]
                if ratio >= 1.3 and w[1] > 0:
                    return read.yes(w[2], n[2])
    return UNKNOWN


def runs_differ_in_output(ctx: Context) -> Outcome:
    """Two runs of as many requests generated different amounts at the same time per token: their rates do not compare."""  # noqa: E501
    made = ctx.numbers("serving.client.output_tokens")
    values = sorted(dict(made).items(), key=lambda n: n[0])
    sent = {v for v, _ in ctx.numbers("serving.client.prompts")}
    if len(values) != 2 or len(sent) > 1 or values[1][0] < 1.4 * values[0][0]:
        return UNKNOWN
    steps = [v for v, e in ctx.numbers("serving.client.tpot", {"label": "^(?:mean|median)"}) if v > 0]
    steps += [v for v, e in ctx.numbers("serving.client.itl", {"label": "^(?:mean|median)"}) if v > 0 and not steps]
    if len(steps) < 2 or max(steps) > 1.25 * min(steps):
        return UNKNOWN
    return read.yes(values[0][1], values[1][1], *(e for _, e in ctx.numbers("serving.client.tpot")[:2]))


def rates_disagree(ctx: Context) -> Outcome:
    """One run wins in requests a second and loses in tokens a second, because its answers are shorter."""
    found = ratios(ctx)
    for asked in (r for r in found if r.metric.startswith("request_rate") and r.value >= 1.3):
        for made in (r for r in found if re.match("(?:decode_)?throughput", r.metric) and r.value >= 1.1):
            if made.pair == asked.pair and made.worse != asked.worse:
                return read.yes(asked.evidence, made.evidence)
    return UNKNOWN


def _rates(ctx: Context) -> list[tuple[str, Evidence]]:
    told = [*ctx.of("serving.bench_arg", {"label": "^request-rate$"}), *ctx.of("serving.client.request_rate")]
    return [(str(e.value).rstrip(":;,"), e) for e in told]


_LATE_ROW = regex(r"ttft|first token|e2e|latency", re.I)


def _apart(row: Evidence) -> float:
    """How far the two settings of a lever's row are apart in what was measured."""
    parts = (row.subject.label or "").split("|")
    found = [float(h[-1]) for p in parts[1:3] if (h := re.findall(r"\d+(?:\.\d+)?", p))]
    return max(found) / max(min(found), 1e-9) if len(found) == 2 else 0.0


def all_at_once(ctx: Context) -> Outcome:
    """Every request was sent at once, and at a finite rate the same server answers in time."""
    given = _rates(ctx)
    flood = [e for v, e in given if v in ("inf", "-1", "0")]
    calm = [e for v, e in given if re.fullmatch(r"\d+(?:\.\d+)?", v) and float(v) > 0]
    late = [r for r in ratios(ctx) if re.match("ttft|e2e|latency", r.metric) and r.value >= 5]
    if not flood or not calm:
        return UNKNOWN
    if not late:  # the two runs as prose: a lever beside each rate
        rows = [e for e in ctx.of("lever.row") if _LATE_ROW.search(e.subject.label or "")]
        return read.yes(flood[0], rows[0], calm[0]) if rows and _apart(rows[0]) >= 5 else UNKNOWN
    return read.yes(flood[0], late[0].evidence, calm[0])


_MATH = regex(r"scaled_dot_product_attention_math|SDPBackend\.MATH|_sdp?a_math\b", re.I)
_UNFUSED = regex(r"aten::softmax|aten::_softmax|aten::baddbmm|aten::bmm|masked_fill|scaled_masked_softmax", re.I)


def attention_unfused(ctx: Context) -> Outcome:
    """A profile shows attention as separate products and softmax over the whole matrix, at a large share of the time."""  # noqa: E501
    for signal in ("profile.gpu_share", "profile.self_cpu", "profile.cpu_total", "figure"):
        for value, item in ctx.numbers(signal):
            words = f"{item.subject.label or ''} {item.quote or ''}"
            if item.unit == "fraction" and value >= 0.3 and _MATH.search(words):
                return read.yes(item)
    parts: dict[str, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("profile.gpu_share") or ctx.numbers("profile.self_cpu"):
        if hit := _UNFUSED.search(item.subject.label or ""):
            parts.setdefault(hit.group().lower(), (value, item))
    total = sum(v for v, _ in parts.values())
    soft = any("softmax" in k for k in parts)
    if soft and len(parts) >= 2 and total >= 0.5:
        return read.yes(*(e for _, e in parts.values()))
    return UNKNOWN


_READBACK = regex(
    r"aten::(?:nonzero|item|_local_scalar_dense|is_nonzero|unique2?|masked_select|tolist|equal)\b|cuda(?:Stream|Device|Event)Synchronize"
    r"|\.item\(\)|\.cpu\(\)|\.tolist\(\)|torch\.cuda\.synchronize|Memcpy DtoH|cudaMemcpy\w*\W{1,4}D(?:evice)?(?:2|to)H",
    re.I,
)
_WALL = regex(r"\bwall\b|step(?: time)?\b|iteration|\bit\b|total time|elapsed|每步|总时间", re.I)


def readbacks_fill_the_wall(ctx: Context) -> Outcome:
    """Calls that wait for a value from the GPU take a large part of the wall time, while kernels take less than that."""  # noqa: E501
    times = [(v * IN_MS[e.unit], e) for v, e in ctx.numbers("figure") if e.unit in IN_MS]
    waits = [(v, e) for v, e in times if _READBACK.search(e.quote or "")]
    walls = [
        (v, e) for v, e in times
        if _WALL.search((e.quote or "").split(":")[0][:40]) and not _READBACK.search(e.quote or "")
    ]  # fmt: skip
    kernels = ctx.numbers("profile.gpu_time")
    if not waits or not walls:
        return UNKNOWN
    wait, wall = highest(waits), highest(walls)
    idle = not kernels or kernels[0][0] <= 0.75 * wall[0]
    return (
        read.yes(wait[1], wall[1], kernels[0][1] if kernels else None)
        if wait[0] >= 0.35 * wall[0] and idle
        else UNKNOWN
    )


_LAUNCH_ROW = regex(r"^\W*(?:cuda|hip|cu)(?:Graph)?LaunchKernel(?:ExC)?\b", re.I)


def launches_outlast_kernels(ctx: Context) -> Outcome:
    """Launch calls alone take about as long as, or longer than, all kernels of the profile."""
    busy, spent = ctx.numbers("profile.gpu_busy"), ctx.numbers("profile.gpu_time")
    rows = [
        (v * IN_MS[e.unit], e)
        for v, e in ctx.numbers("figure") if e.unit in IN_MS and _LAUNCH_ROW.search(e.quote or "")
    ]  # fmt: skip
    if not busy or not spent or not rows:
        return UNKNOWN
    row = highest(rows)
    return Outcome(busy[0][0] < 0.6 and row[0] >= 0.8 * spent[0][0], (row[1], busy[0][1], spent[0][1]))


def pages_hold_few(ctx: Context) -> Outcome:
    """Blocks of the pool over blocks of a longest request: fewer requests fit than the engine was built for."""
    blocks, each = read.low(ctx, "serving.kv_blocks"), read.top(ctx, "serving.kv_blocks_per_request")
    cap = read.cap(ctx)
    if blocks is None or each is None or cap is None or each[0] <= 0:
        return UNKNOWN
    fits = blocks[0] / each[0]
    return Outcome(fits < 0.35 * cap[0] and fits < 32, (blocks[1], each[1], cap[1]))


def slice_of_gpu(ctx: Context) -> Outcome:
    """The process runs on a MIG instance, a part of the GPU, and less speed than the whole one's is the complaint."""
    part = ctx.of("gpu.mark.mig_slice")
    if not part or any(str(e.value).startswith("7g") for e in part):
        return UNKNOWN
    return (
        read.yes(part[0])
        if ctx.asks(
            "low-throughput",
            "bad-tpot",
            "gpu-underutilized",
            "kernel-slow",
            "training-slow",
            "out-of-memory",
            "environment",
        )
        else UNKNOWN
    )


def slower_by_slices(ctx: Context) -> Outcome:
    """Rows of one sweep fall as the number of tenants grows."""
    for ratio in ratios(ctx):
        words = f"{ratio.worse} {ratio.better}"
        if ratio.value >= 1.4 and re.search(
            r"tenant|neighbo|shared with|others? (?:busy|active|running)|alone|exclusive|独占|共享", words, re.I
        ):
            return read.yes(ratio.evidence)
    return UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    graph_edge, stalled_by_prefill, hits_move_ttft, queue_moves_ttft, replicas_scale, tp_without_links, tp_slower_without_links, tp_over_nodes_slower, runs_differ_in_output,  # noqa: E501
    rates_disagree,     all_at_once, attention_unfused, readbacks_fill_the_wall, launches_outlast_kernels, pages_hold_few, slice_of_gpu, slower_by_slices,  # noqa: E501
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
