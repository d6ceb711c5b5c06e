"""The least time, or the most bandwidth, that arithmetic allows. Pure maths, formulas as text.

Every figure is computed from the text of its own formula, so that what is printed is what was
calculated. Bandwidths are GB/s (1e9 bytes), peaks TFLOP/s, times ms or us as named.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .shapes import Shape

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_CALLS: dict[str, Callable[..., Any]] = {"min": min, "max": max}


def evaluate(formula: str, terms: dict[str, float]) -> float:
    """Value of an arithmetic expression over named terms: ``+ - * / **``, brackets, min and max."""

    def walk(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return terms[name]
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -walk(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return float(_BINARY[type(op)](walk(left), walk(right)))
            case ast.Call(func=ast.Name(id=name), args=args) if name in _CALLS:
                return float(_CALLS[name](*map(walk, args)))
        raise ValueError(f"not arithmetic: {formula}")

    return walk(ast.parse(formula, mode="eval").body)


@dataclass(frozen=True, slots=True)
class Figure:
    """A calculated figure with the formula that gave it."""

    value: float
    unit: str
    formula: str
    terms: dict[str, float]

    def shown(self) -> str:
        """``links * rate = 18 * 20.6 = 370.8 GB/s``, the terms named once."""
        named = ", ".join(f"{name} {value:,.6g}" for name, value in self.terms.items())
        return f"{self.formula} = {self.value:,.6g} {self.unit} ({named})"


def figure(formula: str, unit: str, **terms: float) -> Figure:
    """Evaluate `formula` over `terms`."""
    return Figure(evaluate(formula, dict(terms)), unit, formula, dict(terms))


# ---------------------------------------------------------------- collectives

_FACTORS = {
    "all_reduce": "2 * (n - 1) / n",
    "all_gather": "(n - 1) / n",
    "reduce_scatter": "(n - 1) / n",
    "alltoall": "(n - 1) / n",
    "gather": "(n - 1) / n",
    "scatter": "(n - 1) / n",
    "broadcast": "1",
    "reduce": "1",
    "sendrecv": "1",
}


def busbw_factor(collective: str, ranks: int) -> Figure:
    """busbw / algbw of nccl-tests (v2.19.6). Raises KeyError for another collective."""
    return figure(_FACTORS[collective], "count", n=ranks)


def ring_nvlink(links: int, rate: float) -> Figure:
    """Ring over NVLink: every link of a GPU carries a share of the ring."""
    return figure("links * rate", "GB/s", links=links, rate=rate)


def nvls(links: int, rate: float, ranks: int, efficiency: float) -> Figure:
    """All-reduce in the NVSwitch (NVLink SHARP).

    Each GPU sends its buffer once and its reduced share once: ``1 + 1/n`` buffers over the links, and
    busbw counts ``2 (n - 1) / n`` of them.
    """
    return figure(
        "links * rate * efficiency * 2 * (n - 1) / (n + 1)", "GB/s",
        links=links, rate=rate, efficiency=efficiency, n=ranks,
    )  # fmt: skip


def nic_bound(nics: int, gbits: float, nvlink: float) -> Figure:
    """Ring over several nodes: all that leaves a node goes through its adapters."""
    return figure("min(nics * gbits / 8, nvlink)", "GB/s", nics=nics, gbits=gbits, nvlink=nvlink)


def tree_two_nodes(nics: int, gbits: float, ranks: int) -> Figure:
    """Tree over two nodes: each byte crosses once each way, busbw still counts ``2 (n - 1) / n``."""
    return figure("nics * gbits / 8 * 2 * (n - 1) / n", "GB/s", nics=nics, gbits=gbits, n=ranks)


# NCCL src/graph/tuning.cc, LL protocol, us: base of a ring, and one hop over NVLink, PCIe, network.
LL_BASE, LL_HOP = 6.6, {"nvlink": 0.6, "pcie": 1.0, "net": 2.7}


def small_all_reduce(ranks: int, nodes: int = 1, link: str = "nvlink") -> Figure:
    """Latency of a small all-reduce as NCCL models its ring, in us. Launch and host time come on top."""
    return figure(
        "base + (2 * (n - 1) - 2 * (nodes - 1)) * hop + 2 * (nodes - 1) * net", "us",
        base=LL_BASE, n=ranks, nodes=nodes, hop=LL_HOP[link], net=LL_HOP["net"],
    )  # fmt: skip


def all_reduce_time(size: float, ranks: int, busbw: float, latency: float = 0.0) -> Figure:
    """Time of one all-reduce of `size` bytes, us: the latency floor or the transfer, whichever is longer."""
    return figure(
        "max(latency, 2 * (n - 1) / n * size / (busbw * 1e3))", "us",
        latency=latency, n=ranks, size=size, busbw=busbw,
    )  # fmt: skip


def tp_comms(shape: Shape, tokens: int, ranks: int, busbw: float, latency: float, dtype: float = 2.0) -> Figure:
    """Tensor parallelism: two all-reduces a layer over ``tokens x hidden``, ms a step."""
    size = tokens * shape.hidden * dtype
    return figure(
        "2 * layers * max(latency, 2 * (n - 1) / n * size / (busbw * 1e3)) / 1e3", "ms",
        layers=shape.layers, latency=latency, n=ranks, size=size, busbw=busbw,
    )  # fmt: skip


def collective_time(
    collective: str, count: float, size: float, ranks: int, busbw: float, latency: float = 0.0
) -> Figure:
    """Time of `count` collectives of `size` bytes each, ms: the latency floor or the transfer, whichever is longer."""
    factor = busbw_factor(collective, ranks).formula
    return figure(
        f"count * max(latency, {factor} * size / (busbw * 1e3)) / 1e3", "ms",
        count=count, latency=latency, n=ranks, size=size, busbw=busbw,
    )  # fmt: skip


def pipeline_bubble(stages: int, micro: float) -> Figure:
    """Share of a step that a pipeline stage idles: filling and draining, GPipe and 1F1B alike."""
    return figure("(stages - 1) / (micro + stages - 1)", "fraction", stages=stages, micro=micro)


# ---------------------------------------------------------------- kernels and copies


def gemm_flops(m: int, n: int, k: int) -> Figure:
    """Multiply and add count as two."""
    return figure("2 * m * n * k", "count", m=m, n=n, k=k)


def roofline(flops: float, size: float, peak: float, memory: float) -> Figure:
    """Least time of a kernel, ms: its arithmetic at the peak, or its bytes at the memory's rate."""
    return figure(
        "max(flops / (peak * 1e9), size / (memory * 1e6))", "ms", flops=flops, size=size, peak=peak, memory=memory
    )


def copy_time(size: float, rate: float) -> Figure:
    """Least time to move `size` bytes, ms."""
    return figure("size / (rate * 1e6)", "ms", size=size, rate=rate)


def balance(peak: float, memory: float) -> Figure:
    """FLOP a byte at which a GPU turns from memory-bound to compute-bound."""
    return figure("peak * 1e3 / memory", "count", peak=peak, memory=memory)


def compute_bound_batch(peak: float, memory: float, weight_bytes: float = 2.0) -> Figure:
    """Batch from which decode of a dense model is bound by arithmetic: 2 FLOP a token and weight."""
    return figure(
        "peak * 1e3 / memory * weight_bytes / 2", "count", peak=peak, memory=memory, weight_bytes=weight_bytes
    )


# ---------------------------------------------------------------- serving


def weight_read(shape: Shape, batch: int = 1, weight_bytes: float = 2.0) -> Figure:
    """Bytes of weights that a decode step reads; the input embedding is a row lookup and left out."""
    experts = hit_experts(shape.experts, shape.active_experts, batch).value if shape.experts else 0.0
    return figure(
        "(dense + experts * one_expert) * weight_bytes + head * 2", "B",
        dense=shape.dense_params, experts=experts, one_expert=shape.expert_params_all_layers,
        weight_bytes=weight_bytes, head=shape.head_params,
    )  # fmt: skip


def weights_stored(shape: Shape, weight_bytes: float = 2.0, tp: int = 1) -> Figure:
    """Bytes of weights on ONE GPU of a tensor-parallel group; embedding and head stay in 16 bits."""
    return figure(
        "((dense + experts * one_expert) * weight_bytes + (head + embedding) * 2) / tp", "B",
        dense=shape.dense_params, experts=shape.experts, one_expert=shape.expert_params_all_layers,
        weight_bytes=weight_bytes, head=shape.head_params, embedding=shape.embedding_params, tp=tp,
    )  # fmt: skip


def kv_free(memory_gb: float, share: float, weights: float) -> Figure:
    """Bytes left for the KV cache at best: activations, graphs and the runtime take a few GiB more."""
    return figure("memory_gb * 2 ** 30 * share - weights", "B", memory_gb=memory_gb, share=share, weights=weights)


def hit_experts(experts: int, active: int, tokens: int) -> Figure:
    """Distinct experts that `tokens` tokens are expected to hit in a layer, routing taken as uniform."""
    return figure("experts * (1 - (1 - active / experts) ** tokens)", "count",
                  experts=experts, active=active, tokens=tokens)  # fmt: skip


def kv_per_token(shape: Shape, kv_bytes: float = 2.0, tp: int = 1) -> Figure:
    """KV cache bytes a token on ONE GPU of a tensor-parallel group.

    Heads are shared out, and copied once there are more ranks than KV heads; the latent vector of MLA is
    not split at all.
    """
    if shape.kv_latent:
        return figure("layers * latent * kv_bytes", "B",
                      layers=shape.kv_layers, latent=shape.kv_latent, kv_bytes=kv_bytes)  # fmt: skip
    heads = max(shape.kv_heads // tp, 1)
    return figure("2 * layers * heads * head_dim * kv_bytes", "B",
                  layers=shape.kv_layers, heads=heads, head_dim=shape.head_dim, kv_bytes=kv_bytes)  # fmt: skip


def kv_tokens(free: float, per_token: float) -> Figure:
    """Tokens that fit the free KV bytes of one GPU."""
    return figure("free / per_token", "count", free=free, per_token=per_token)


def concurrency(tokens: float, length: float) -> Figure:
    """Requests of `length` tokens that fit the KV cache."""
    return figure("tokens / length", "count", tokens=tokens, length=length)


def read_floor(size: float, memory: float) -> Figure:
    """Least time of a decode step, ms: what it must read on one GPU at the memory's rate."""
    return figure("size / (memory * 1e6)", "ms", size=size, memory=memory)


def decode_floor(
    shape: Shape, peak: float, memory: float, batch: int = 1, context: float = 0.0, tp: int = 1,
    weight_bytes: float = 2.0, kv_bytes: float = 2.0, comms: float = 0.0,
) -> Figure:  # fmt: skip
    """Least time of a decode step, ms: weights and KV read, or arithmetic, plus communication."""
    return figure(
        "max((weights / tp + batch * context * kv) / (memory * 1e6), 2 * active * batch / (tp * peak * 1e9)) + comms",
        "ms",
        weights=weight_read(shape, batch, weight_bytes).value, tp=tp, batch=batch, context=context,
        kv=kv_per_token(shape, kv_bytes, tp).value, memory=memory, active=shape.active_params, peak=peak, comms=comms,
    )  # fmt: skip


def prefill_flops(shape: Shape, tokens: int) -> Figure:
    """Arithmetic of a prefill: the matrices for every token, and causal attention."""
    return figure(
        "2 * matmul * tokens + 2 * layers * width * tokens ** 2", "count",
        matmul=shape.prefill_params, tokens=tokens, layers=shape.kv_layers,
        width=shape.heads * shape.attention_dim,
    )  # fmt: skip


def prefill_floor(shape: Shape, tokens: int, peak: float, tp: int = 1) -> Figure:
    """Least time of a prefill at the dense peak, ms; 50-70 % of the peak is usual."""
    return figure("flops / (tp * peak * 1e9)", "ms", flops=prefill_flops(shape, tokens).value, tp=tp, peak=peak)


ALL_EXPERTS = 10**9  # tokens that hit every expert of a layer


def compute_bound_mixture(shape: Shape, peak: float, memory: float, weight_bytes: float = 2.0) -> Figure:
    """Batch from which a mixture's decode is bound by arithmetic: all experts are read, a few of them are used."""
    return figure(
        "peak * 1e3 / memory * weights / (2 * active)", "count", peak=peak, memory=memory,
        weights=weight_read(shape, ALL_EXPERTS, weight_bytes).value, active=shape.active_params,
    )  # fmt: skip


def compute_bound_at(
    shape: Shape, peak: float, memory: float, context: float, tp: int = 1, weight_bytes: float = 2.0,
    kv_bytes: float = 2.0,
) -> Figure | None:  # fmt: skip
    """Batch at which a decode step's arithmetic overtakes its reading of weights AND cache; None: at no batch."""
    terms = {
        "weights": weight_read(shape, ALL_EXPERTS, weight_bytes).value, "tp": tp, "memory": memory, "peak": peak,
        "active": shape.active_params, "context": context, "kv": kv_per_token(shape, kv_bytes, tp).value,
    }  # fmt: skip
    each = "2 * active / (tp * peak * 1e9) - context * kv / (memory * 1e6)"
    if evaluate(each, terms) <= 0:
        return None
    return figure(f"weights / tp / (memory * 1e6) / ({each})", "count", **terms)


def request_rate(users: float, prefill: float, output: float, step: float) -> Figure:
    """Little's law backwards: requests a second of `users` in flight; times in ms."""
    return figure("users / (prefill + output * step) * 1e3", "req/s",
                  users=users, prefill=prefill, output=output, step=step)  # fmt: skip


def in_flight(rate: float, seconds: float) -> Figure:
    """Little's law: requests in the system at `rate` a second, `seconds` each."""
    return figure("rate * seconds", "count", rate=rate, seconds=seconds)
