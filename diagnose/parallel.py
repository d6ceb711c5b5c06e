"""What a parallel layout costs: collectives of a step with bytes and time, pipeline bubble, memory of a GPU.

Ranks are laid out as the usual launchers do: tensor parallel innermost, then data, then pipeline.
The experts of a mixture are split `ep` ways when that is given, otherwise with the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import floors
from .errors import UsageError
from .floors import Figure, figure
from .hardware import Gpu, Rate, nvlink_rate, pcie_rate
from .shapes import Shape

_ITEM = re.compile(r"(dp|tp|pp|ep|fsdp|zero[123]?|micro)(?:=(\d+))?$")
# bytes of a layer's activations per token and hidden unit, as Korthikanti et al. 2022 count them, attention recomputed
_ACTIVATIONS = "Korthikanti et al., 2022, selective recomputation"
_ADAM = "Adam in mixed precision: FP32 master copy and two moments"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is spread over ranks.

    Attributes:
        zero: ZeRO stage, 3 for FSDP; 0 shards nothing. micro: micro-batches of a step, 0 for one a sequence.
        nodes, nics, gbits: hosts, adapters of a host, rate of one.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    ep: int = 1
    zero: int = 0
    micro: int = 0
    nodes: int = 1
    nics: int = 8
    gbits: float = 0.0

    @property
    def world(self) -> int:
        """All ranks."""
        return self.dp * self.tp * self.pp

    @property
    def per_node(self) -> int:
        """GPUs of a host."""
        return -(-self.world // self.nodes)


def parse(text: str, tp: int, nodes: int, nics: int, gbits: float) -> Plan:
    """A plan from ``dp=2,tp=8,pp=4,ep=8,fsdp``.

    Raises:
        UsageError: an item that is none, or sizes that do not go together.
    """
    said: dict[str, int] = {"tp": tp}
    zero = 0
    for item in filter(None, re.split(r"[,\s]+", text.lower())):
        hit = _ITEM.fullmatch(item)
        if hit is None:
            raise UsageError(f"--parallel does not know {item!r}", "for example --parallel dp=2,tp=8,pp=4,ep=8,fsdp")
        name, number = hit[1], int(hit[2]) if hit[2] else 0
        if name == "fsdp" or name.startswith("zero"):
            zero = 3 if name == "fsdp" else int(name[4:] or number or 1)
            if name == "fsdp" and number:
                said["dp"] = number
        elif number < 1:
            raise UsageError(f"--parallel {name} needs a number", f"for example {name}=8")
        else:
            said[name] = number
    plan = Plan(**said, zero=zero, nodes=nodes, nics=nics, gbits=gbits)
    if plan.dp * plan.tp % plan.ep:
        raise UsageError(f"ep={plan.ep} does not divide dp x tp = {plan.dp * plan.tp}")
    if plan.zero and plan.dp < 2:
        raise UsageError("sharding the optimizer needs data parallel ranks", "add dp=8, or fsdp=8")
    if plan.world < plan.nodes or plan.world % plan.nodes:
        raise UsageError(f"{plan.world} ranks do not fill {plan.nodes} nodes evenly")
    return plan


@dataclass(frozen=True, slots=True)
class Link:
    """What the members of a group talk over: its rate, or why there is none."""

    name: str
    rate: Figure | None
    latency: float
    sources: tuple[Rate, ...] = ()
    reason: str = ""


def link(gpu: Gpu | None, plan: Plan, size: int, stride: int, busbw: Rate | None = None) -> Link:
    """The slowest link of a group of `size` ranks, `stride` apart."""
    members = size if size * stride <= plan.per_node else max(1, plan.per_node // stride)
    inside = _inside(gpu, min(members, size), busbw)
    if members >= size:
        return inside
    hosts = -(-size // members)
    share = plan.per_node // members  # groups of this kind that leave a host side by side
    name = f"{plan.nics} x {plan.gbits:g} Gb/s between {hosts} hosts, shared by {share} groups"
    if plan.gbits <= 0:
        return Link(name, None, 0.0, reason="the group spans hosts: give --nic and --nics")
    terms = {"nics": plan.nics, "gbits": plan.gbits, "groups": share}
    if inside.rate is not None and members > 1:
        rate = figure("min(nics * gbits / 8 / groups, inside)", "GB/s", **terms, inside=inside.rate.value)
    else:
        rate = figure("nics * gbits / 8 / groups", "GB/s", **terms)
    return Link(name, rate, floors.small_all_reduce(size, hosts).value, inside.sources)


def _inside(gpu: Gpu | None, members: int, busbw: Rate | None) -> Link:
    """Within a host: measured, NVLink where the product has it, else its slot."""
    if gpu is None and busbw is None:
        return Link("within a host", None, 0.0, reason="the GPU's links are not known")
    wired = gpu is not None and gpu.links > 0 and (gpu.switched or members <= 2)
    kind = "nvlink" if wired else "pcie"
    latency = floors.small_all_reduce(members, 1, kind).value if members > 1 else 0.0
    if busbw is not None:
        return Link("measured", figure("measured", "GB/s", measured=busbw.value), latency, (busbw,))
    assert gpu is not None
    rate = nvlink_rate(gpu.cc)
    if wired and rate is not None:
        return Link(f"NV{gpu.links}", floors.ring_nvlink(gpu.links, rate.value), latency, (rate,))
    slot = pcie_rate(gpu.pcie, gpu.width)
    if gpu.p2p != "pcie" or slot is None:
        return Link("host memory", None, latency, reason=f"{gpu.name} has no peer access: all goes through host memory")
    return Link(slot.what, figure("slot", "GB/s", slot=slot.value), latency, (slot,))


@dataclass(frozen=True, slots=True)
class Collective:
    """One kind of collective of a step."""

    what: str
    kind: str
    ranks: int
    count: float
    size: Figure
    link: Link
    time: Figure | None

    @property
    def sent(self) -> Figure:
        """Bytes that a rank sends in a step."""
        factor = floors.busbw_factor(self.kind, self.ranks).formula
        return figure(f"count * {factor} * size", "B", count=self.count, n=self.ranks, size=self.size.value)


def _one(
    what: str, kind: str, ranks: int, count: float, size: Figure, over: Link, latency: bool = False
) -> Collective:  # fmt: skip
    time = None
    if over.rate is not None:
        low = over.latency if latency else 0.0
        time = floors.collective_time(kind, count, size.value, ranks, over.rate.value, low)
    return Collective(what, kind, ranks, count, size, over, time)


def stored(shape: Shape, plan: Plan) -> tuple[Figure, Figure]:
    """Parameters on one GPU before data-parallel sharding: the dense part, and the experts."""
    dense = figure("(dense + head + embedding) / (tp * pp)", "count", dense=shape.dense_params, head=shape.head_params,
                   embedding=shape.embedding_params, tp=plan.tp, pp=plan.pp)  # fmt: skip
    ways = plan.ep if plan.ep > 1 else plan.tp
    experts = figure("experts * one_expert / (ways * pp)", "count", experts=shape.experts,
                     one_expert=shape.expert_params_all_layers, ways=ways, pp=plan.pp)  # fmt: skip
    return dense, experts


def micro_batches(plan: Plan, sequences: int) -> int:
    """Micro-batches a replica runs in a step, one sequence each unless said otherwise."""
    return plan.micro or max(1, sequences // plan.dp)


def collectives(
    shape: Shape, plan: Plan, gpu: Gpu | None, *, train: bool, tokens: int, sequences: int, busbw: Rate | None = None
) -> Iterator[Collective]:
    """Collectives of a training step, or of a decode step.

    Args:
        tokens: of a sequence in training; of a decode step on one replica otherwise.
        sequences: of a training step over all replicas.
        busbw: a measured rate within a host, in place of the data sheet.
    """
    micro = micro_batches(plan, sequences) if train else 1
    each = tokens * max(1, sequences // (plan.dp * micro)) if train else tokens
    layers = shape.layers / plan.pp
    passes = 2 if train else 1  # forward, and backward
    slice_ = figure("tokens * hidden * 2", "B", tokens=each, hidden=shape.hidden)
    if plan.tp > 1:
        over = link(gpu, plan, plan.tp, 1, busbw)
        yield _one("tensor parallel: two a layer and pass", "all_reduce", plan.tp, 2 * passes * layers * micro, slice_,
                   over, True)  # fmt: skip
    if plan.ep > 1 and shape.experts:
        routed = figure("tokens * top * hidden * 2", "B", tokens=each, top=shape.active_experts, hidden=shape.hidden)
        over = link(gpu, plan, plan.ep, 1 if plan.ep > plan.dp else plan.tp, busbw)
        yield _one("expert parallel: dispatch and combine a layer and pass", "alltoall", plan.ep,
                   2 * passes * shape.expert_layers / plan.pp * micro, routed, over)  # fmt: skip
    if plan.pp > 1:
        over = link(gpu, plan, plan.pp, plan.tp * plan.dp, busbw)
        yield _one("pipeline: activations to the next stage a micro-batch and pass", "sendrecv", plan.pp,
                   passes * micro, slice_, over)  # fmt: skip
    if train and plan.dp > 1:
        yield from _data_parallel(shape, plan, gpu, micro, busbw)


def _data_parallel(
    shape: Shape, plan: Plan, gpu: Gpu | None, micro: int, busbw: Rate | None
) -> Iterator[Collective]:  # fmt: skip
    """Gradients and, where parameters are sharded, parameters; 16 bits each."""
    dense, experts = stored(shape, plan)
    held = figure("(dense + experts) * 2", "B", dense=dense.value, experts=experts.value)
    if plan.ep > 1 and shape.experts:  # experts are averaged over the few ranks that hold the same ones
        held = figure("dense * 2", "B", dense=dense.value)
    over = link(gpu, plan, plan.dp, plan.tp, busbw)
    if plan.zero == 0:
        yield _one("data parallel: gradients", "all_reduce", plan.dp, 1, held, over)
    elif plan.zero == 3:
        yield _one("FSDP, ZeRO-3: parameters, forward and backward", "all_gather", plan.dp, 2 * micro, held, over)
        yield _one("FSDP, ZeRO-3: gradients", "reduce_scatter", plan.dp, micro, held, over)
    else:
        yield _one(f"ZeRO-{plan.zero}: gradients", "reduce_scatter", plan.dp, 1, held, over)
        yield _one(f"ZeRO-{plan.zero}: updated parameters", "all_gather", plan.dp, 1, held, over)
    same = plan.dp * plan.tp // plan.ep
    if plan.ep > 1 and shape.experts and same > 1:
        own = figure("experts * 2", "B", experts=experts.value)
        yield _one("data parallel: gradients of the experts", "all_reduce", same, 1, own,
                   link(gpu, plan, same, plan.ep, busbw))  # fmt: skip


def memory(shape: Shape, plan: Plan, *, tokens: int, sequences: int) -> list[tuple[str, Figure, str]]:
    """Memory of one GPU in training: what, bytes, and what the count rests on."""
    dense, experts = stored(shape, plan)
    micro = micro_batches(plan, sequences)
    local = dense.value + experts.value

    def share(least: int) -> int:
        return plan.dp if plan.zero >= least else 1

    held = min(plan.pp, micro)  # 1F1B: the first stage holds as many micro-batches as there are stages
    rows = [
        ("weights, BF16", figure("params * 2 / shards", "B", params=local, shards=share(3)), ""),
        ("gradients, BF16", figure("params * 2 / shards", "B", params=local, shards=share(2)), ""),
        ("optimizer states", figure("params * 12 / shards", "B", params=local, shards=share(1)), _ADAM),
        (
            "activations",
            figure("tokens * hidden * (10 + 24 / tp) * layers / stages * held", "B",
                   tokens=tokens * max(1, sequences // (plan.dp * micro)), hidden=shape.hidden, tp=plan.tp,
                   layers=shape.layers, stages=plan.pp, held=held),
            _ACTIVATIONS,
        ),
    ]  # fmt: skip
    total = figure(" + ".join("abcd"), "B", **{name: row[1].value for name, row in zip("abcd", rows, strict=True)})
    return [*rows, ("all of it", total, "without fragmentation, communication buffers and the runtime")]


def step_flops(shape: Shape, tokens: float) -> Figure:
    """Arithmetic of a training step: forward once, backward twice; attention scores left out."""
    return figure("6 * active * tokens", "count", active=shape.active_params, tokens=tokens)
