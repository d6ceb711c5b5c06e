"""Napkin arithmetic of a concept: named slots, computed for one GPU by the floors, never typed in.

A slot is one of three things::

    launch: {in: 5, unit: us, why: "assumed cost of one launch"}     # a stated assumption
    weights: {of: weight_read, model: llama-3.1-8b}                  # a function of `floors`
    share: {expr: "weights / (memory_gb * 1e9)", unit: fraction}     # arithmetic over slots and the GPU

What a function of the floors needs and the slot does not state comes from the GPU (peak, memory, links …).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import floors, hardware
from .errors import UsageError
from .floors import Figure
from .shapes import Shape, shape

DEFAULT_GPU = "h100"
# Names that several products share and that people say all the same: what is meant unless they say more.
_USUAL = {
    "h100": "h100 80gb hbm3", "a100": "a100-sxm4-80gb", "v100": "tesla v100-sxm2-32gb", "a800": "a800-sxm4-80gb",
    "gh200": "gh200 144g hbm3e", "h100 80gb": "h100 80gb hbm3", "a100 80gb": "a100-sxm4-80gb",
    "a100 40gb": "a100-sxm4-40gb",
}  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Figure]] = {
    f.__name__: f
    for f in (
        floors.all_reduce_time, floors.balance, floors.busbw_factor, floors.compute_bound_batch, floors.concurrency,
        floors.copy_time, floors.decode_floor, floors.gemm_flops, floors.hit_experts, floors.in_flight,
        floors.kv_per_token, floors.kv_tokens, floors.nic_bound, floors.nvls, floors.prefill_floor,
        floors.prefill_flops, floors.read_floor, floors.ring_nvlink, floors.roofline, floors.small_all_reduce,
        floors.tp_comms, floors.tree_two_nodes, floors.weight_read, floors.weights_stored,
    )
}  # fmt: skip

# SMs in use by product; whitepapers and data sheets of each chip
_SMS = {
    "Tesla V100-SXM2-16GB": 80, "Tesla V100-SXM2-32GB": 80, "Tesla V100-PCIE-16GB": 80, "Tesla V100-PCIE-32GB": 80,
    "Tesla T4": 40, "A100-SXM4-40GB": 108, "A100-SXM4-80GB": 108, "A100-PCIE-40GB": 108, "A100 80GB PCIe": 108,
    "A30": 56, "A40": 84, "A10": 72, "L4": 58, "L40": 142, "L40S": 142, "GeForce RTX 3090": 82,
    "GeForce RTX 4090": 128, "H100 80GB HBM3": 132, "H100 PCIe": 114, "H100 NVL": 132, "H200": 132, "H20": 78,
    "GH200 480GB": 132, "GH200 144G HBM3e": 132, "B200": 148,
}  # fmt: skip

# display unit -> (raw unit, divisor); without one the size of the figure decides
_SHOW: dict[str, tuple[str, float]] = {
    "B": ("B", 1), "KiB": ("B", 2**10), "MiB": ("B", 2**20), "GiB": ("B", 2**30), "kB": ("B", 1e3), "MB": ("B", 1e6),
    "GB": ("B", 1e9), "TB": ("B", 1e12), "us": ("us", 1), "ms": ("ms", 1), "s": ("s", 1), "%": ("fraction", 0.01),
    "GB/s": ("GB/s", 1), "Gb/s": ("Gb/s", 1), "TFLOP/s": ("TFLOP/s", 1), "tokens/s": ("tokens/s", 1),
    "Hz": ("Hz", 1), "W": ("W", 1), "count": ("count", 1), "fraction": ("fraction", 1), "GFLOP": ("count", 1e9),
    "TFLOP": ("count", 1e12), "kB/s": ("GB/s", 1e-6), "TB/s": ("GB/s", 1e3), "MB/s": ("GB/s", 1e-3),
    "days": ("s", 86400), "billion": ("count", 1e9), "million": ("count", 1e6), "rad": ("count", 1), "m": ("m", 1),
}  # fmt: skip
_LADDERS: dict[str, tuple[tuple[str, float], ...]] = {
    "B": (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)),
    "us": (("s", 1e6), ("ms", 1e3), ("us", 1)),
    "ms": (("s", 1e3), ("ms", 1), ("us", 1e-3)),
    "fraction": (("%", 0.01),),
}


class NotOnThisGpu(ValueError):
    """The GPU lacks what the arithmetic is about (no NVLink, no FP8, no BF16)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A figure of a concept, with the way it was found."""

    name: str
    value: float
    unit: str
    text: str
    formula: str
    terms: Mapping[str, float]
    why: str = ""

    def line(self) -> str:
        """One line of a napkin: the formula and what went into it."""
        # a text may say "70 billion" around its slot; here the bare count stands alone
        text = number(self.value) if self.unit == "count" and not self.text.endswith("FLOP") else self.text
        if not self.formula:
            return f"{self.name} = {f'{self.value:,.15g}' if self.unit == 'count' else text} ({self.why})"
        named = ", ".join(f"{k} {v:,.6g}" for k, v in self.terms.items())
        return f"{self.name} = {self.formula} = {text}" + (f" ({named})" if named else "")


def number(value: float) -> str:
    """Three significant digits, thousands set apart."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if value == 0:
        return "0"
    digits = f"{value:.3g}"
    if "e" not in digits:
        return f"{float(digits):,.0f}" if abs(value) >= 1000 else digits
    return f"{float(digits):,.0f}" if abs(value) >= 1 else f"{float(digits):f}".rstrip("0")


def shown(value: float, unit: str, show: str = "", exact: bool = False) -> str:
    """A figure as it is spoken: scaled, rounded, with its unit."""
    if show:
        raw, factor = _SHOW[show]
        if raw != unit:
            raise ValueError(f"{show} does not show {unit}")
    else:
        ladder = _LADDERS.get(unit, ((unit, 1.0),))
        show, factor = next(((u, f) for u, f in ladder if abs(value) >= f * 0.9995), ladder[-1])
    scaled = value / factor
    digits = f"{scaled:,.15g}" if exact else number(scaled)
    if show in ("count", "fraction", "billion", "million"):
        return digits
    return f"{digits}%" if show == "%" else f"{digits} {show}"


@lru_cache(maxsize=1)
def models() -> dict[str, Shape]:
    """Shapes that concepts may name."""
    from .catalogue import yaml_files

    return {name: shape(config) for _, raw in yaml_files("shapes") for name, config in raw.items()}


def pick_gpu(name: str) -> tuple[hardware.Gpu, str]:
    """The product, and a note where the name was not exact.

    Raises:
        UsageError: no such product in the table.
    """
    meant = _USUAL.get(name.strip().lower(), "")
    found = hardware.gpu(meant or name)
    if found is None:
        raise UsageError(hardware.unknown(name), "for example --gpu H100, H200, A100, L40S, B200")
    return found, f"{name.strip()}: {found.name}" if meant else ""


def gpu_terms(gpu: hardware.Gpu) -> dict[str, float | None]:
    """What a formula may say about the GPU; None where the product has none."""
    link = hardware.nvlink_rate(gpu.cc) if gpu.links else None
    sharp = hardware.nvls_efficiency(gpu.cc) if gpu.links else None
    pcie = hardware.pcie_rate(gpu.pcie, gpu.width)
    return {
        "memory": gpu.memory, "memory_gb": float(gpu.memory_gb), "bf16": gpu.bf16, "fp8": gpu.fp8, "peak": gpu.bf16,
        "power": float(gpu.power), "links": float(gpu.links) if gpu.links else None,
        "rate": link.value if link else None, "raw_rate": hardware.NVLINK_RAW.get(gpu.nvlink),
        "efficiency": sharp.value if sharp else None, "pcie": pcie.value if pcie else None,
        "sm_count": float(_SMS[gpu.name]) if gpu.name in _SMS else None,
    }  # fmt: skip


def _names(formula: str) -> list[str]:
    found = [n.id for n in ast.walk(ast.parse(formula, mode="eval")) if isinstance(n, ast.Name)]
    return [n for n in dict.fromkeys(found) if n not in ("min", "max")]


def compute(entries: Mapping[str, Mapping[str, Any]], gpu: hardware.Gpu) -> dict[str, Slot]:
    """All slots of a concept, in order.

    Raises:
        NotOnThisGpu: a figure of the GPU is needed that it does not have.
        ValueError: an entry is not well formed.
    """
    terms = gpu_terms(gpu)
    known: dict[str, float] = {}
    out: dict[str, Slot] = {}

    def value(name: str) -> float:
        if name in known:
            return known[name]
        if name not in terms:
            raise ValueError(f"no slot or GPU figure {name!r}")
        found = terms[name]
        if found is None:
            raise NotOnThisGpu(f"{gpu.name}: no figure for {name}")
        return found

    for name, entry in entries.items():
        show = str(entry.get("show", ""))
        if "in" in entry:
            unit, raw = str(entry.get("unit", "count")), float(entry["in"])
            text = shown(raw, unit, show or (unit if unit in _SHOW and unit != "fraction" else ""), exact=True)
            slot = Slot(name, raw, unit, text, "", {}, str(entry.get("why", "")))
        elif "expr" in entry:
            formula = str(entry["expr"])
            fig = floors.figure(formula, str(entry.get("unit", "count")), **{n: value(n) for n in _names(formula)})
            slot = Slot(name, fig.value, fig.unit, shown(fig.value, fig.unit, show), fig.formula, fig.terms)
        else:
            fig = _call(entry, value)
            slot = Slot(name, fig.value, fig.unit, shown(fig.value, fig.unit, show), fig.formula, fig.terms)
        known[name], out[name] = slot.value, slot
    return out


def _call(entry: Mapping[str, Any], value: Callable[[str], float]) -> Figure:
    function = FUNCTIONS.get(str(entry.get("of")))
    if function is None:
        raise ValueError(f"no formula {entry.get('of')!r}")
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "shape":
            given[name] = models()[str(entry["model"])]
        elif name in entry:
            said = entry[name]
            given[name] = value(said) if isinstance(said, str) and name not in ("collective", "link") else said
            if name in ("tp", "ranks", "active", "experts", "tokens", "batch") and float(given[name]).is_integer():
                given[name] = int(given[name])
        elif parameter.default is inspect.Parameter.empty:
            given[name] = value(name)
    if function is floors.small_all_reduce and given.get("link", "nvlink") == "nvlink":
        value("links")  # its constants are those of NVLink hops
    return function(**given)


def fill(text: str, slots: Mapping[str, Slot]) -> str:
    """Put the figures into a text. Raises KeyError for a slot that does not exist."""
    return text.format_map({name: slot.text for name, slot in slots.items()})


def lines(slots: Iterable[Slot]) -> list[str]:
    """The napkin, line by line."""
    return [slot.line() for slot in slots]
