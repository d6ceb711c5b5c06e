"""`diagnose kv`: the KV cache of a request as descriptors and bytes, the time to move it, and its share of TTFT."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import __version__, floors, hardware
from .errors import EXIT_OK, InputError, UsageError
from .floors import Figure, figure
from .floors_command import read_model, this_gpu
from .floors_sheet import KV_BYTES
from .fold import columns, folded
from .shapes import Shape
from .units import percent

SCHEMA = "diagnose.kv/v1"
# Tokens of a block by default, and regions of memory a layer has: keys and values apart, or one latent vector (MLA).
ENGINES = {"vllm": 16, "sglang": 1}
SMALL = 65536  # bytes: below it posting usually costs more than moving on RDMA and NVLink paths


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    model: str
    engine: str = "vllm"
    block_size: int = 0
    input: int = 4096
    tp: int = 1
    link: float = 0.0
    kv_dtype: str = "bf16"
    gpu: str = ""
    cost: float = 0.0
    sweep: str = ""


def _sweep(path: str) -> tuple[float, str]:
    """Least cost of a batched descriptor in the output of the nixl.bench probe, us."""
    from .document import Document
    from .gather import gather

    try:
        data = Path(path).read_bytes()[: 1 << 20]
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err
    facts = gather([Document.of(Path(path).name, data)]).facts
    costs = [f for f in facts if f.signal == "nixl.sweep.cost" and "|batched|4096 B|" in (f.subject.label or "")]
    if not costs:
        raise UsageError(f"{path} holds no NIXL sweep", "diagnose probe run nixl.bench --allow load > sweep.txt")
    least = min(costs, key=lambda f: float(f.value or 0))
    return float(least.value or 0), f"measured: {least.subject.label}"


def _checked(options: Options) -> tuple[Shape, int, float]:
    if options.engine not in ENGINES:
        raise UsageError(f"--engine takes {', '.join(ENGINES)}, not {options.engine!r}")
    if options.kv_dtype.lower() not in KV_BYTES:
        raise UsageError(f"--kv-dtype takes {', '.join(KV_BYTES)}, not {options.kv_dtype!r}")
    for name in ("input", "tp"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be 1 or more")
    if options.link < 0 or options.cost < 0 or options.block_size < 0:
        raise UsageError("--link, --cost and --block-size are not negative")
    model = read_model(options.model)
    if model.heads % options.tp:
        raise UsageError(f"TP {options.tp} does not divide {model.heads} heads", "engines refuse it")
    return model, options.block_size or ENGINES[options.engine], KV_BYTES[options.kv_dtype.lower()]


def figures(options: Options) -> tuple[list[tuple[str, str, Figure]], list[str]]:
    """Named figures with what they say, and remarks on what is not known.

    Raises:
        UsageError: an option has no such value, or the file named for costs holds none.
        InputError, ParseError: a file that they name cannot be read.
    """
    model, block, width = _checked(options)
    out: list[tuple[str, str, Figure]] = []
    remarks: list[str] = []

    def add(name: str, what: str, made: Figure) -> float:
        out.append((name, what, made))
        return made.value

    regions = 1 if model.kv_latent else 2
    token = add("kv_per_token", "KV cache of a token on one rank", floors.kv_per_token(model, width, options.tp))
    size = add(
        "bytes", "KV cache of the prompt on one rank", figure("token * tokens", "B", token=token, tokens=options.input)
    )
    blocks = -(-options.input // block)
    add(
        "blocks",
        "blocks of the prompt",
        Figure(blocks, "count", "ceil(tokens / block)", {"tokens": options.input, "block": block}),
    )
    pieces = add(
        "descriptors", "descriptors of a rank at most: one a block, layer and region; neighbours may be merged",
        figure("blocks * layers * regions", "count", blocks=blocks, layers=model.kv_layers, regions=regions),
    )  # fmt: skip
    piece = add(
        "bytes_per_descriptor", "bytes of a descriptor",
        figure("token * block / (layers * regions)", "B",
               token=token, block=block, layers=model.kv_layers, regions=regions),
    )  # fmt: skip
    if not options.link:
        remarks.append("no --link (GB/s of each rank's path): no time")
        return out, remarks
    wire = add(
        "wire_time", "time on the path at its rate", figure("size / (link * 1e6)", "ms", size=size, link=options.link)
    )
    cost, source = (options.cost, "--cost") if options.cost else _sweep(options.sweep) if options.sweep else (0.0, "")
    even = add(
        "even_cost", "cost of a descriptor at which posting takes as long as the path",
        figure("wire / descriptors * 1e3", "us", wire=wire, descriptors=pieces),
    )  # fmt: skip
    total = wire
    if cost:
        post = add(
            "post_time",
            f"posting, batched ({source})",
            figure("descriptors * cost / 1e3", "ms", descriptors=pieces, cost=cost),
        )
        total = add(
            "time",
            "expected: the larger of the two, as they overlap",
            figure("max(wire, post)", "ms", wire=wire, post=post),
        )
        bound = "posting descriptors" if post > wire else "the path"
        remarks.append(f"bound by {bound}")
    else:
        remarks.append(
            f"above {even:.3g} us a descriptor posting is the limit: measure it, "
            "diagnose probe run nixl.bench --allow load"
        )
    if piece < SMALL:
        larger = -(-SMALL // max(int(piece), 1)) * block
        remarks.append(
            f"{piece:,.0f} B a descriptor is small: blocks of {larger} tokens, or layers in one block, reach 64 KiB"
        )
    name = this_gpu()[0] if options.gpu == "auto" else options.gpu
    product = hardware.meant(name)[0] if name else None
    peak = product.tensor16 if product else None
    if peak is None:
        remarks.append(
            "no share of TTFT: name a GPU with --gpu"
            if not name
            else f"no share of TTFT: no dense peak of {name} is known"
        )
        return out, remarks
    prefill = add(
        "prefill_floor", "least time of the prefill", floors.prefill_floor(model, options.input, peak, options.tp)
    )
    add(
        "ttft_share", "share of TTFT if the transfer follows the prefill, both at their least",
        figure("time / (time + prefill)", "fraction", time=total, prefill=prefill),
    )  # fmt: skip
    return out, remarks


def _said(value: float, unit: str = "") -> str:
    """A figure as a person reads it: bytes in full and in MiB, shares in percent, whole numbers whole."""
    if unit == "fraction":
        return percent(value, 1)
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if unit == "B" and value >= 1 << 20:
        text += f" B ({value / (1 << 20):,.4g} MiB)"
        return text
    return f"{text} {unit}" if unit not in ("", "count") else text


def _sum(rows: list[tuple[str, str, Figure]]) -> str:
    """What all rows come to, in a line."""
    by = {name: figure for name, _, figure in rows}
    took = by.get("time") or by.get("wire_time")
    told = f"{_said(by['bytes'].value, 'B')} a rank in {_said(by['descriptors'].value)} descriptors at most"
    if took is not None:
        told += f", {_said(took.value, 'ms')} to move at best"
    if "ttft_share" in by:
        told += f", {_said(by['ttft_share'].value, 'fraction')} of TTFT"
    return told


def run(options: Options, format_: str) -> int:
    """Print the figures.

    Raises:
        UsageError, InputError, ParseError: as of `figures`; UsageError also for a format that is none.
    """
    if format_ not in ("text", "json", "md"):
        raise UsageError(f"--format takes text, json, md, not {format_!r}")
    rows, remarks = figures(options)
    if format_ == "json":
        data: dict[str, Any] = {
            "schema": SCHEMA, "tool": {"version": __version__}, "model": options.model, "engine": options.engine,
            "figures": {name: {"what": what, **asdict(made)} for name, what, made in rows},
            "remarks": remarks,
        }  # fmt: skip
        sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    elif format_ == "md":
        table = "\n".join(f"| {w} | {_said(f.value, f.unit)} | `{f.formula}` |" for _, w, f in rows)
        notes = "\n".join(f"- {r}" for r in remarks)
        head = f"# KV transfer of {options.model}\n\n{_sum(rows)}\n\n| what | value | formula |\n|---|---|---|"
        sys.stdout.write(f"{head}\n{table}\n\n{notes}\n")
    else:
        lines = [_sum(rows), *remarks, ""]
        for _, what, made in rows:
            terms = ", ".join(f"{name} {_said(value)}" for name, value in made.terms.items())
            lines += [f"{what}: {_said(made.value, made.unit)}", f"  {made.formula} ({terms})"]
        sys.stdout.writelines(f"{part}\n" for line in lines for part in folded(line, columns()))
    return EXIT_OK
