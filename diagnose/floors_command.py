"""`diagnose floors`: what a model needs and can reach at best on a GPU, every figure with its formula."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__, floors_sheet, hardware, nvml, parallel
from .errors import EXIT_OK, InputError, UsageError
from .floors import Figure
from .floors_sheet import KV_BYTES, WEIGHT_BYTES, Ask, Row, Sheet
from .hardware import Gpu, Rate
from .shapes import Shape, known_models, named, shape

SCHEMA = "diagnose.floors/v1"
_MAX_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    model: str
    gpu: str
    tp: int = 1
    dtype: str = ""
    kv_dtype: str = ""
    input: int = 2048
    output: int = 256
    users: int = 32
    mem_util: float = 0.9
    parallel: str = ""
    train: bool = False
    nodes: int = 1
    nic: float = 0.0
    nics: int = 8
    ceilings: str = ""


def _json(path: Path) -> Any:
    from .safe_json import loads

    try:
        if path.stat().st_size > _MAX_FILE:
            raise InputError(f"{path} is larger than a config or a result of a microbenchmark can be")
        return loads(path.read_bytes(), path.name)
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err


def read_model(name: str) -> Shape:
    """A model from its config.json, a folder that holds one, or a published name.

    Raises:
        UsageError: there is no such file or model, or the config does not give its shape.
        InputError, ParseError: the file cannot be read, or is no JSON.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        config = _json(path)
        if not isinstance(config, dict):
            raise UsageError(f"{path} is no config.json", "it should be the model's config with hidden_size and so on")
    else:
        found = named(name)
        if found is None:
            raise UsageError(f"no file and no known model {name!r}", f"known: {', '.join(sorted(known_models()))}")
        return found
    try:
        return shape(config)
    except ValueError as err:
        raise UsageError(f"{name}: {err}") from err


def this_gpu() -> tuple[str, str]:
    """Name of the first GPU of this machine by NVML, or why there is none."""
    try:
        with nvml.opened() as api:
            name = api.nvmlDeviceGetName(api.nvmlDeviceGetHandleByIndex(0))
    except nvml.NvmlGap as gap:
        return "", f"NVML does not name a GPU: {gap}" if gap.driver else f"no GPU here: {gap}"
    return (name.decode() if isinstance(name, bytes) else str(name)), ""


# Names of measured ceilings, as result files call them: class, pattern, unit.
_MEASURED = (
    ("memory", re.compile(r"memory|device.?copy|\bcopy\b|copy_coalesced|stream|triad|\bread\b", re.I), "GB/s"),
    ("bf16", re.compile(r"bf16|tensor|gemm|wgmma|matmul", re.I), "TFLOP/s"),
    ("fp8", re.compile(r"fp8|e4m3", re.I), "TFLOP/s"),
    ("busbw", re.compile(r"busbw|all.?reduce", re.I), "GB/s"),
)


def _named_figures(data: Any, name: str = "") -> Iterator[tuple[str, float, str]]:
    """Every ``{name, value, unit}`` of a result, however deep, and ``{"memory": {"value", "unit"}}``."""
    if isinstance(data, dict):
        unit = data.get("unit")
        value = next((data[k] for k in ("value", "measured", "median") if isinstance(data.get(k), (int, float))), None)
        label = next((str(data[k]) for k in ("name", "what", "kernel", "id") if isinstance(data.get(k), str)), name)
        if isinstance(unit, str) and value is not None and not isinstance(value, bool):
            yield label, float(value), unit
        for key, item in data.items():
            yield from _named_figures(item, str(key))
    elif isinstance(data, list):
        for item in data:
            yield from _named_figures(item, name)


def measured(path: str) -> dict[str, Rate]:
    """The best memory, tensor and all-reduce rates in a result file of a microbenchmark.

    Raises:
        UsageError: the file holds no such rate.
        InputError, ParseError: it cannot be read, or is no JSON.
    """
    best: dict[str, Rate] = {}
    for name, value, unit in _named_figures(_json(Path(path))):
        kind = next((k for k, pattern, u in _MEASURED if u == unit and pattern.search(name)), None)
        if kind == "memory" and re.search(r"h2d|d2h|host|pinned|pageable|peer|p2p|all.?reduce|busbw", name, re.I):
            kind = "busbw" if re.search(r"busbw|all.?reduce", name, re.I) else None
        if kind == "bf16" and re.search(r"fp8|e4m3", name, re.I):
            kind = "fp8"
        if kind is not None and value > 0 and (kind not in best or value > best[kind].value):
            best[kind] = Rate(f"measured here: {name}", value, unit, f"measured, {Path(path).name}")
    if not best:
        raise UsageError(f"{path} holds no ceiling", "expected objects with a name, a value and a unit")
    return best


def _gpu(asked: str) -> tuple[Gpu | None, str, str]:
    """The product, what was assumed, and why there is none."""
    if asked.lower() == "auto":
        name, reason = this_gpu()
        if not name:
            return None, "", f"--gpu auto: {reason}; name one with --gpu"
        found = hardware.gpu(name)
        return found, f"NVML names this GPU {name}", "" if found else hardware.unknown(name)
    found, assumed = hardware.meant(asked)
    return found, assumed, "" if found else hardware.unknown(asked)


def _ask(options: Options) -> tuple[Ask, list[str]]:
    """Inputs of the floors and what was assumed."""
    model = read_model(options.model)
    for name, table in (("dtype", WEIGHT_BYTES), ("kv_dtype", KV_BYTES)):
        said = getattr(options, name)
        if said and said.lower() not in table:
            raise UsageError(f"--{name.replace('_', '-')} takes {', '.join(table)}, not {said!r}")
    for name in ("tp", "input", "output", "users", "nodes", "nics"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{'concurrency' if name == 'users' else name} must be 1 or more")
    if not 0 < options.mem_util <= 1:
        raise UsageError("--mem-util is a share of the memory, above 0 and at most 1")
    assumed: list[str] = []
    weight_bytes = WEIGHT_BYTES[options.dtype.lower()] if options.dtype else model.weight_bytes
    if weight_bytes is None:
        weight_bytes = 2.0
        assumed.append("the config does not say the weights' type: bf16 assumed, say --dtype")
    kv_bytes = KV_BYTES[options.kv_dtype.lower() or "bf16"]
    gpu, note, reason = _gpu(options.gpu)
    assumed += [note] if note else []
    plan = parallel.parse(options.parallel, options.tp, options.nodes, options.nics, options.nic)
    if model.heads % plan.tp:
        raise UsageError(f"TP {plan.tp} does not divide {model.heads} heads", "engines refuse it")
    found = measured(options.ceilings) if options.ceilings else {}
    memory, peak = found.get("memory"), found.get("fp8" if weight_bytes == 1.0 else "bf16")
    why: dict[str, str] = {}
    if gpu is not None:
        memory = memory or Rate(f"memory bandwidth, {gpu.name} ({gpu.kind})", gpu.memory, "GB/s", gpu.source_of())
        peak = peak or _peak(gpu, weight_bytes, options.dtype)
    if memory is None:
        why["memory"] = reason
    if gpu is None:
        why["memory_gb"] = reason
    if peak is None:
        kind = "FP8" if weight_bytes == 1.0 else "16-bit"
        why["peak"] = reason or f"no dense {kind} peak of {gpu.name if gpu else options.gpu} is known"
    ask = Ask(model, gpu, plan.tp, weight_bytes, kv_bytes, options.input, options.output, options.users,
              options.mem_util, plan, memory, peak, found.get("busbw"), why)  # fmt: skip
    return ask, assumed


def _peak(gpu: Gpu, weight_bytes: float, dtype: str) -> Rate | None:
    """The dense peak that the weights' type multiplies at; weight-only types multiply in 16 bits."""
    if weight_bytes == 4.0:
        return None
    eight = weight_bytes == 1.0 and dtype.lower() != "int8"
    value = gpu.fp8 if eight else gpu.tensor16
    kind = "FP8" if eight else "16-bit"
    return Rate(f"dense {kind} peak, {gpu.name}", value, "TFLOP/s", gpu.source_of()) if value else None


def sections(options: Options) -> tuple[dict[str, Any], Ask, Sheet, list[tuple[str, list[Row]]]]:
    """Head, inputs and rows by section.

    Raises:
        UsageError: an option, the model or the GPU has no such value.
        InputError, ParseError: a file that they name cannot be read.
    """
    ask, assumed = _ask(options)
    sheet = floors_sheet.build(ask)
    parts: list[tuple[str, list[Row]]] = [("serving", list(sheet.rows))]
    if options.parallel or options.train:
        for section, row in floors_sheet.spread(ask, options.train):
            if parts[-1][0] != section:
                parts.append((section, []))
            parts[-1][1].append(row)
        over = (parallel.link(ask.gpu, ask.plan, n, stride, ask.busbw)
                for n, stride in ((ask.plan.tp, 1), (ask.plan.dp, ask.plan.tp)) if n > 1)  # fmt: skip
        for found in over:
            for rate in found.sources:
                sheet.cite(rate)
        if options.train:
            sheet.cite(ask.peak)
            parts = parts[1:]  # the floors of serving say nothing about training
    plan = ask.plan
    head: dict[str, Any] = {
        "schema": SCHEMA, "tool": __version__, "model": ask.shape.name, "gpu": ask.gpu.name if ask.gpu else None,
        "asked": {"model": options.model, "gpu": options.gpu, "dtype_bytes": ask.weight_bytes,
                  "kv_bytes": ask.kv_bytes, "input": ask.input, "output": ask.output, "concurrency": ask.users,
                  "mem_util": ask.mem_util, "train": options.train},
        "parallel": {"dp": plan.dp, "tp": plan.tp, "pp": plan.pp, "ep": plan.ep, "zero": plan.zero,
                     "world": plan.world, "nodes": plan.nodes, "nics": plan.nics, "gbits": plan.gbits},
        "assumed": assumed, "unavailable": next(iter(ask.why.values()), None),
    }  # fmt: skip
    return head, ask, sheet, parts


def _row(row: Row, section: str) -> dict[str, Any]:
    got = row.figure
    return {
        "section": section, "name": row.name, "what": row.what, "value": got.value if got else None,
        "unit": got.unit if got else None, "formula": got.formula if got else None,
        "terms": dict(got.terms) if got else {}, "sources": list(row.sources), "note": row.note,
        "reason": row.reason or None,
    }  # fmt: skip


_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "B": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "count": ((1e15, "x 10^15"), (1e12, "x 10^12"), (1e9, "x 10^9"), (1.0, "")),
    "ms": ((1e3, "s"), (1.0, "ms"), (1e-3, "us")),
    "us": ((1e6, "s"), (1e3, "ms"), (1.0, "us")),
}


def spoken(got: Figure) -> str:
    """A figure at three or four digits in the size that reads well."""
    if got.unit == "fraction":
        return f"{got.value * 100:.3g} %"
    scales = _SCALES.get(got.unit, ((1.0, got.unit),))
    size, unit = next(((s, u) for s, u in scales if abs(got.value) >= s), scales[-1])
    value = got.value / size
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{digits} {unit}".strip()


def _title(head: dict[str, Any]) -> str:
    plan = head["parallel"]
    layout = " ".join(f"{k.upper()} {plan[k]}" for k in ("dp", "tp", "pp", "ep") if plan[k] > 1) or "one GPU"
    return f"{head['model']} on {head['gpu'] or head['asked']['gpu']}, {layout}"


def text(head: dict[str, Any], sheet: Sheet, parts: list[tuple[str, list[Row]]]) -> str:
    """For a terminal: figure, then its formula with terms, then sources."""
    lines = [_title(head), *(f"  assumed: {a}" for a in head["assumed"])]
    lines += [f"  unavailable: {head['unavailable']}"] if head["unavailable"] else []
    lines.append("")
    for section, rows in parts:
        lines.append(section)
        for row in rows:
            if row.figure is None:
                lines.append(f"  {'-':>14}  {row.what}: {row.reason}")
                continue
            cited = f"  [{', '.join(row.sources)}]" if row.sources else ""
            lines.append(f"  {spoken(row.figure):>14}  {row.what}{cited}")
            lines.append(f"  {'':>14}    = {row.figure.shown()}")
            if row.note:
                lines.append(f"  {'':>14}    {row.note}")
        lines.append("")
    lines += [f"{r.id}  {r.what}: {r.value:g} {r.unit} ({r.source})" for r in sheet.references]
    return "\n".join(lines).rstrip() + "\n"


def markdown(head: dict[str, Any], sheet: Sheet, parts: list[tuple[str, list[Row]]]) -> str:
    """The same as Markdown tables."""
    lines = [f"# {_title(head)}", "", *(f"- assumed: {a}" for a in head["assumed"])]
    for section, rows in parts:
        lines += ["", f"## {section}", "", "| figure | what | formula | source |", "|---|---|---|---|"]
        for row in rows:
            value, formula = ("–", row.reason) if row.figure is None else (spoken(row.figure), row.figure.shown())
            what = f"{row.what}; {row.note}" if row.note else row.what
            lines.append(f"| {value} | {what} | `{formula}` | {', '.join(row.sources)} |")
    lines += ["", *(f"- {r.id}: {r.what}, {r.value:g} {r.unit} ({r.source})" for r in sheet.references)]
    return "\n".join(lines) + "\n"


def run(options: Options, format_: str) -> int:
    """Print the floors.

    Raises:
        UsageError: an option, the model or the GPU has no such value.
        InputError, ParseError: a file that they name cannot be read.
    """
    if format_ not in ("text", "json", "md"):
        raise UsageError(f"--format takes text, json or md, not {format_!r}")
    head, _, sheet, parts = sections(options)
    if format_ == "json":
        head["figures"] = [_row(row, section) for section, rows in parts for row in rows]
        head["references"] = [r.model_dump() for r in sheet.references]
        print(json.dumps(head, indent=1))
    else:
        print((markdown if format_ == "md" else text)(head, sheet, parts), end="")
    return EXIT_OK
