"""The floors of one model on one GPU as a list of figures, each with its formula, terms and sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import floors, parallel
from .floors import Figure, figure
from .hardware import Gpu, Rate
from .models import Reference
from .parallel import Link, Plan
from .shapes import Shape

WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "mxfp4": 0.53125}
KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp32": 4.0}
USUAL_PREFILL = "large prefills reach 50 to 70 % of the dense peak, so 1.4 to 2 times this is usual"


@dataclass(frozen=True, slots=True)
class Ask:
    """What the floors are wanted for.

    Attributes:
        gpu: None where the product is not known. memory, peak, busbw: rates, measured or of the data sheet.
        why: why a rate is None, by its name.
    """

    shape: Shape
    gpu: Gpu | None
    tp: int
    weight_bytes: float
    kv_bytes: float
    input: int
    output: int
    users: int
    mem_util: float
    plan: Plan
    memory: Rate | None
    peak: Rate | None
    busbw: Rate | None
    why: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, or why there is none."""

    name: str
    what: str
    figure: Figure | None
    reason: str = ""
    sources: tuple[str, ...] = ()
    note: str = ""


@dataclass
class Sheet:
    """Rows and the references they rest on."""

    rows: list[Row] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)

    def cite(self, rate: Rate | None) -> tuple[str, ...]:
        """Id of the reference of a rate."""
        if rate is None:
            return ()
        for known in self.references:
            if (known.what, known.value, known.source) == (rate.what, rate.value, rate.source):
                return (known.id,)
        made = Reference(
            id=f"R{len(self.references) + 1}", what=rate.what, value=rate.value, unit=rate.unit, source=rate.source
        )
        self.references.append(made)
        return (made.id,)

    def add(
        self, name: str, what: str, got: Figure | None, reason: str = "", *rates: Rate | None, note: str = ""
    ) -> Figure | None:  # fmt: skip
        """Add a row; `reason` counts only where there is no figure."""
        sources = tuple(dict.fromkeys(s for r in rates for s in self.cite(r)))
        self.rows.append(Row(name, what, got, "" if got else reason, sources if got else (), note))
        return got


def build(ask: Ask) -> Sheet:
    """All floors of serving; a figure that lacks an input is a row with its reason."""
    sheet = Sheet()
    _model(sheet, ask)
    over = parallel.link(ask.gpu, ask.plan, ask.tp, 1, ask.busbw) if ask.tp > 1 else None
    _capacity(sheet, ask)
    comms = _all_reduce(sheet, ask, over)
    prefill = _prefill(sheet, ask)
    _decode(sheet, ask, over, comms, prefill)
    return sheet


def replication(ask: Ask) -> int:
    """How many ranks hold the same KV head (or the same latent)."""
    if ask.shape.kv_latent:
        return ask.tp
    return max(1, ask.tp // ask.shape.kv_heads)


def _model(sheet: Sheet, ask: Ask) -> None:
    s = ask.shape
    sheet.add("parameters", "parameters", figure(
        "dense + experts * one_expert + head + embedding", "count", dense=s.dense_params, experts=s.experts,
        one_expert=s.expert_params_all_layers, head=s.head_params, embedding=s.embedding_params))  # fmt: skip
    sheet.add("active", "parameters that a generated token is multiplied with", figure(
        "dense + active * one_expert + head", "count", dense=s.dense_params, active=s.active_experts,
        one_expert=s.expert_params_all_layers, head=s.head_params))  # fmt: skip
    sheet.add("weights", f"weights on one GPU, TP {ask.tp}", floors.weights_stored(s, ask.weight_bytes, ask.tp))
    copies = replication(ask)
    note = f"{s.attention_kind}, {s.heads} heads, {s.kv_heads} KV heads"
    if s.kv_latent:
        note = f"MLA: a latent of {s.kv_latent} a layer, not split" + (
            f", copied to {ask.tp} ranks" if copies > 1 else ""
        )
    elif copies > 1:
        note += f": more ranks than KV heads, each head is kept {copies} times"
    sheet.add("kv_per_token", "KV cache a token on one GPU", floors.kv_per_token(s, ask.kv_bytes, ask.tp), note=note)


def _capacity(sheet: Sheet, ask: Ask) -> None:
    value = {r.name: r.figure.value for r in sheet.rows if r.figure}
    each = value["kv_per_token"]
    length = ask.input + ask.output
    sheet.add("kv_wanted", f"KV cache of {ask.users} requests of {length} tokens", figure(
        "users * length * each", "B", users=ask.users, length=length, each=each))  # fmt: skip
    reason = ask.why.get("memory_gb", "the size of the GPU's memory is not known")
    if ask.gpu is None:
        for name, what in (("kv_free", "memory for the KV cache"), ("kv_tokens", "tokens that fit"),
                           ("concurrency", f"requests of {length} tokens that fit")):  # fmt: skip
            sheet.add(name, what, None, reason)
        return
    size = Rate(f"memory of {ask.gpu.name}, its GB taken as GiB", ask.gpu.memory_gb, "GiB", ask.gpu.source)
    free = floors.kv_free(ask.gpu.memory_gb, ask.mem_util, value["weights"])
    note = "at best: activations, graphs and the runtime take a few GiB more"
    if free.value <= 0:
        short = f"the weights alone need {value['weights'] / 2**30:.1f} GiB: more GPUs, or fewer bits"
        sheet.add("kv_free", "memory for the KV cache", free, note=short)
        sheet.add("kv_tokens", "tokens that fit", None, "the weights do not fit")
        sheet.add("concurrency", f"requests of {length} tokens that fit", None, "the weights do not fit")
        return
    sheet.add("kv_free", "memory for the KV cache", free, "", size, note=note)
    tokens = floors.kv_tokens(free.value, each)
    sheet.add("kv_tokens", "tokens that fit", tokens, "", size)
    fits = floors.concurrency(tokens.value, length)
    said = f"{ask.users} asked for: " + (
        "they fit" if fits.value >= ask.users else "they do not fit, requests will wait"
    )
    sheet.add("concurrency", f"requests of {length} tokens that fit", fits, "", size, note=said)


def _all_reduce(sheet: Sheet, ask: Ask, over: Link | None) -> Figure | None:
    """Rows of tensor-parallel communication; returns the cost of a decode step."""
    if over is None:
        return None
    reason = over.reason
    rates = over.sources
    sheet.add("link", f"link of {ask.tp} GPUs: {over.name}", over.rate, reason, *rates)
    names = (("all_reduce", f"one all-reduce of a decode step, {ask.users} tokens"),
             ("all_reduce_step", "all-reduces of a decode step, two a layer"),
             ("all_reduce_prefill", f"all-reduces of a prefill of {ask.input} tokens"))  # fmt: skip
    if over.rate is None:
        for name, what in names:
            sheet.add(name, what, None, reason)
        return None
    size, busbw = ask.users * ask.shape.hidden * 2.0, over.rate.value
    note = "NCCL's own model of a ring; the engine's one-shot all-reduce of small messages is faster"
    sheet.add(*names[0], floors.all_reduce_time(size, ask.tp, busbw, over.latency), "", *rates, note=note)
    step = floors.tp_comms(ask.shape, ask.users, ask.tp, busbw, over.latency)
    sheet.add(*names[1], step, "", *rates)
    sheet.add(*names[2], floors.tp_comms(ask.shape, ask.input, ask.tp, busbw, over.latency), "", *rates)
    return step


def _prefill(sheet: Sheet, ask: Ask) -> Figure | None:
    sheet.add("prefill_flops", f"arithmetic of a prefill of {ask.input} tokens",
              floors.prefill_flops(ask.shape, ask.input))  # fmt: skip
    what = f"prefill of {ask.input} tokens"
    if ask.peak is None:
        return sheet.add("prefill", what, None, ask.why["peak"])
    least = floors.prefill_floor(ask.shape, ask.input, ask.peak.value, ask.tp)
    return sheet.add("prefill", what, least, "", ask.peak, note=USUAL_PREFILL)


def _decode(
    sheet: Sheet, ask: Ask, over: Link | None, comms: Figure | None, prefill: Figure | None
) -> None:  # fmt: skip
    s, context = ask.shape, ask.input + ask.output / 2
    names = {
        "decode_weights": "reading the weights once: a decode step of one user, no context",
        "decode_kv": f"reading the cache of {ask.users} users at {context:g} tokens",
        "decode": f"decode step of {ask.users} users at {context:g} tokens, communication included",
        "decode_one": f"decode step of one user at {context:g} tokens, communication included",
        "tokens_per_s": f"tokens a second of {ask.users} users at best",
        "requests_per_s": f"requests a second of {ask.users} users at best (Little's law)",
        "compute_bound": "batch from which decode is bound by arithmetic, weights alone",
        "compute_bound_at": f"the same with the cache read at {context:g} tokens",
    }
    if ask.memory is None:
        for name, what in names.items():
            sheet.add(name, what, None, ask.why["memory"])
        return
    memory, kv = ask.memory.value, floors.kv_per_token(s, ask.kv_bytes, ask.tp).value
    read = floors.weight_read(s, 1, ask.weight_bytes)
    alone = figure("weights / tp / (memory * 1e6)", "ms", weights=read.value, tp=ask.tp, memory=memory)
    sheet.add("decode_weights", names["decode_weights"], alone, "", ask.memory)
    sheet.add("decode_kv", names["decode_kv"], figure(
        "users * context * kv / (memory * 1e6)", "ms", users=ask.users, context=context, kv=kv, memory=memory),
        "", ask.memory)  # fmt: skip
    if ask.peak is None or (over is not None and comms is None):
        reason = ask.why["peak"] if ask.peak is None else (over.reason if over else "")
        for name in list(names)[2:]:
            sheet.add(name, names[name], None, reason)
        return
    peak, rates = ask.peak.value, (ask.memory, ask.peak, *(over.sources if over else ()))
    single = floors.tp_comms(s, 1, ask.tp, over.rate.value, over.latency).value if over and over.rate else 0.0
    step = floors.decode_floor(s, peak, memory, ask.users, context, ask.tp, ask.weight_bytes, ask.kv_bytes,
                               comms.value if comms else 0.0)  # fmt: skip
    one = floors.decode_floor(s, peak, memory, 1, context, ask.tp, ask.weight_bytes, ask.kv_bytes, single)
    sheet.add("decode", names["decode"], step, "", *rates)
    sheet.add("decode_one", names["decode_one"], one, "", *rates)
    sheet.add("tokens_per_s", names["tokens_per_s"], figure(
        "users / step * 1e3", "tokens/s", users=ask.users, step=step.value), "", *rates)  # fmt: skip
    if prefill is not None:
        sheet.add("requests_per_s", names["requests_per_s"], floors.request_rate(
            ask.users, prefill.value, ask.output, step.value), "", *rates)  # fmt: skip
    bound = floors.compute_bound_batch(peak, memory, ask.weight_bytes)
    if s.experts:
        bound = floors.compute_bound_mixture(s, peak, memory, ask.weight_bytes)
    sheet.add("compute_bound", names["compute_bound"], bound, "", ask.peak, ask.memory)
    turns = floors.compute_bound_at(s, peak, memory, context, ask.tp, ask.weight_bytes, ask.kv_bytes)
    sheet.add("compute_bound_at", names["compute_bound_at"], turns,
              "never: a user's own cache takes longer to read than its token takes to calculate",
              ask.peak, ask.memory)  # fmt: skip


def spread(ask: Ask, train: bool) -> Iterator[tuple[str, Row]]:
    """Rows of a parallel layout: section and row; `sheet` ids are added by the caller."""
    plan, s = ask.plan, ask.shape
    tokens = ask.input if train else max(1, ask.users // plan.dp)
    unit = "training step" if train else "decode step"
    for got in parallel.collectives(s, plan, ask.gpu, train=train, tokens=tokens, sequences=ask.users, busbw=ask.busbw):
        note = f"{got.kind} of {got.ranks} ranks, {got.count:g} a {unit}, {got.size.value:,.6g} B each, {got.link.name}"
        yield "collectives", Row(f"sent: {got.what}", f"{got.what}: bytes a rank sends", got.sent, note=note)
        yield "collectives", Row(f"time: {got.what}", f"{got.what}: time", got.time, got.link.reason)
    if plan.pp > 1:
        micro = parallel.micro_batches(plan, ask.users) if train else min(plan.pp, max(1, ask.users // plan.dp))
        yield "pipeline", Row("bubble", f"pipeline bubble, {plan.pp} stages, {micro} micro-batches",
                              floors.pipeline_bubble(plan.pp, micro))  # fmt: skip
    if not train:
        dense, experts = parallel.stored(s, plan)
        yield "memory", Row("weights", "weights on one GPU", figure(
            "(dense + experts) * weight_bytes", "B", dense=dense.value, experts=experts.value,
            weight_bytes=ask.weight_bytes))  # fmt: skip
        return
    for what, got_bytes, note in parallel.memory(s, plan, tokens=ask.input, sequences=ask.users):
        yield "memory", Row(what, f"{what} on one GPU", got_bytes, note=note)
    flops = parallel.step_flops(s, ask.input * ask.users)
    yield "compute", Row("step_flops", "arithmetic of a training step", flops)
    least = None
    if ask.peak is not None:
        least = figure("flops / (world * peak * 1e9)", "ms", flops=flops.value, world=plan.world, peak=ask.peak.value)
    yield "compute", Row("step", f"training step on {plan.world} GPUs, nothing but arithmetic", least,
                         ask.why.get("peak", ""), note="40 to 55 % of the peak is a good training run")  # fmt: skip
