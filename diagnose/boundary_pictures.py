"""Pictures of data paths on this machine, as Mermaid text and as SVG: each hop present, absent or unknown, with its
evidence.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from .boundary_words import said
from .errors import InputError, UsageError
from .fold import columns, folded, padded
from .hardware import Gpu
from .hardware import gpu as sheet
from .models import Report
from .pictures import paths
from .pictures.flow import STATES, Hop, Picture, chain
from .pictures.flow import draw as drawn
from .pictures.paths import Known
from .pictures.words import say

_STYLES = {
    True: "fill:#d7f0dd,stroke:#1a7f37",
    False: "fill:#fbdcdc,stroke:#b42318,stroke-dasharray: 4",
    None: "fill:#eeeeee,stroke:#6b7280,stroke-dasharray: 2",
}
# Largest shared memory of a block and registers of an SM, KiB, by compute capability (CUDA programming guide).
_SHARED = {7.0: 96, 7.5: 64, 8.0: 163, 8.6: 99, 8.7: 163, 8.9: 99, 9.0: 227, 10.0: 227, 12.0: 99}
_REGISTERS = 256
_CHANNEL = re.compile(r"Channel \d+/\d+ :((?:\s+\d+){2,})\s*$", re.MULTILINE)
PICTURES = (*paths.NAMES, "ring", "memory", "request")


class _Sources:
    """What pictures are made of: the machine's checks, and what was given beside them."""

    def __init__(self, data: dict[str, Any], evidence: str, lang: str) -> None:
        self.data, self.lang, self.log = data, lang, ""
        self.report: Report | None = None
        seen = re.match(r"NVML shows (\d+) x ([^,]+)", data["checks"]["gpu"]["evidence"])
        self.names = [seen.group(2)] * int(seen.group(1)) if seen else []
        if evidence:
            try:
                text = Path(evidence).read_text("utf-8", "replace")
            except OSError as err:
                raise InputError(f"cannot read {evidence}: {err.strerror}") from err
            if '"diagnose.report/v1"' in text[:2000]:
                from .report_file import load

                self.report = load(Path(evidence)).report
            else:
                self.log = text

    @property
    def product(self) -> Gpu | None:
        """The GPU's sheet."""
        return sheet(self.names[0]) if self.names else None

    def known(self, key: str) -> Known:
        """A check of this machine as a station; what one can do at most is from its sheet or its port."""
        product = self.product
        limit = ""
        if product is not None and key == "gpu":
            limit = f"{product.memory:g} GB/s ({product.source})"
        if product is not None and key == "pinned" and not product.c2c:
            limit = f"PCIe {product.pcie} x{product.width} ({product.source})"
        found = self.data["checks"].get(key)
        if found is None:
            return Known(limit=limit)
        return Known(found["has"], said(found["evidence"], self.lang), found.get("limit") or limit)


def _ring(src: _Sources) -> Picture:
    found = _CHANNEL.search(src.log)
    orders = [(found.group(1), " ".join(found.group().split()), "")] if found else []
    if src.report is not None:
        orders += [(str(e.value), e.quote or e.statement, e.id) for e in src.report.evidence if e.signal == "nccl.ring"]
    if (made := paths.ring(orders, src.lang)) is not None:
        return made
    why = say(src.lang, "ring.unknown")
    check = src.data["checks"]["gpu"]
    hops = [Hop(f"GPU {i}", True, name) for i, name in enumerate(src.names)]
    hops = hops or [Hop("GPU", check["has"], said(check["evidence"], src.lang))]
    count = len(hops)
    edges = [(i, (i + 1) % count, "?") for i in range(count)] if count > 1 else []
    return Picture(why, hops, edges, ring=True, missing=why)


def _memory(src: _Sources) -> Picture:
    if src.report is not None and (measured := paths.measured_memory(src.report.evidence, src.lang)) is not None:
        return measured
    product, zh = src.product, src.lang == "zh"
    names = ["寄存器", "shared memory", "L2 cache", "GPU 显存", "主机内存"] if zh else [
        "registers", "shared memory", "L2 cache", "GPU memory", "host memory"]  # fmt: skip
    title = say(src.lang, "memory")
    if product is None:
        gpu = src.data["checks"]["gpu"]
        unnamed = "what model the GPU is, these files do not say" if gpu["has"] else gpu["evidence"]
        why = said(f"no figures for {src.names[0]}" if src.names else unnamed, src.lang)
        return replace(chain(title, [Hop(n, None if gpu["has"] else False, why) for n in names]), missing=why)
    shared, capability = _SHARED.get(product.cc), f"compute capability {product.cc}"
    source = product.source_of()
    way = "NVLink-C2C" if product.c2c else f"PCIe {product.pcie} x{product.width}"
    texts = ("每个 SM {} KiB", "每个 block 最多 {} KiB", "{} GB {},{} GB/s") if zh else (
        "{} KiB an SM", "{} KiB a block at most", "{} GB {} at {} GB/s")  # fmt: skip
    hops = [
        Hop(names[0], True, capability, texts[0].format(_REGISTERS)),
        Hop(names[1], shared is not None or None, capability, texts[1].format(shared) if shared else ""),
        Hop(names[2], None, said("size and rate: diagnose microbench", src.lang)),
        Hop(names[3], True, source, texts[2].format(product.memory_gb, product.kind, f"{product.memory:g}")),
        Hop(names[4], True, source, way),
    ]
    return chain(f"{title}: {product.name}", hops)


def _request(src: _Sources) -> Picture:
    """The way of a request: with the stages of a report, else with the programs that are installed."""
    from .pictures.report import request, stage_name

    if src.report is not None and (made := request(src.report, src.lang)) is not None:
        return made
    lang, why = src.lang, say(src.lang, "request.unknown")
    engine = src.known("vllm")
    stages = ("client and network", "tokenise", "queue", "prefill", "first token", "decode step")
    hops = [Hop(stage_name(s, lang), None, why) for s in stages]
    hops.insert(1, Hop("Dynamo / LMCache", *_of(src.known("dynamo"))))
    hops.insert(2, Hop("vLLM / SGLang / TensorRT-LLM", *_of(engine)))
    return chain(say(lang, "request"), hops)


def _of(known: Known) -> tuple[bool | None, str, str]:
    return known.has, known.evidence, known.limit


def make(name: str, src: _Sources) -> Picture:
    """One of `PICTURES`."""
    if name in paths.NAMES:
        return paths.picture(name, src.known, src.lang)
    return {"ring": _ring, "memory": _memory, "request": _request}[name](src)


def mermaid(picture: Picture) -> str:
    """The picture as Mermaid text."""
    lines = ["flowchart LR"]
    for number, hop in enumerate(picture.hops):
        label = "<br/>".join(filter(None, [hop.name, hop.limit])).replace('"', "'")
        lines.append(f'  h{number}["{label}"]:::{STATES[hop.has]}')
    for start, end, says in picture.edges:
        lines.append(f'  h{start} -- "{says}" --> h{end}' if says else f"  h{start} --> h{end}")
    lines += [f"  classDef {STATES[has]} {style}" for has, style in _STYLES.items()]
    return "\n".join(lines) + "\n"


def draw(name: str, data: dict[str, Any], format_: str, evidence: str = "", lang: str = "en") -> str:
    """One picture with its table of hops, in a format of the command.

    Raises:
        UsageError: there is no picture of that name.
        InputError: what it would show is not known of this machine.
    """
    if name not in PICTURES:
        raise UsageError(f"--picture takes {', '.join(PICTURES)}, not {name!r}")
    picture = _simulated(make(name, _Sources(data, evidence, lang)), data, lang)
    if format_ == "svg":
        made = drawn(name, picture, lang)
        if made is None:
            raise InputError(f"no picture {name}: {picture.missing or 'nothing is known of its stations'}")
        return made.svg.file()
    rows = [(h.name, h.state(lang), h.limit, h.evidence) for h in picture.hops]
    if format_ == "json":
        hops = [dict(zip(("hop", "state", "limit", "evidence"), row, strict=True)) for row in rows]
        shown = {"schema": "diagnose.picture/v1", "picture": name, "title": picture.title, "hops": hops,
                 "edges": [list(e) for e in picture.edges], "mermaid": mermaid(picture)}  # fmt: skip
        return json.dumps(shown, indent=1, ensure_ascii=False) + "\n"
    if format_ == "md":
        table = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
        names = [say(lang, key) for key in ("hop", "state", "most", "evidence")]
        head = "| " + " | ".join(names) + " |\n|---|---|---|---|"
        return f"# {picture.title}\n\n```mermaid\n{mermaid(picture)}```\n\n{head}\n{table}\n"
    from rich.cells import cell_len

    width = max(cell_len(row[0]) for row in rows)
    table = "\n".join(
        part
        for r in rows
        for part in folded(f"  {padded(r[0], width)}  {padded(r[1], 8)} {r[2] + '; ' if r[2] else ''}{r[3]}", columns())
    )
    return f"{picture.title}\n\n{mermaid(picture)}\n{table}\n"


def _simulated(picture: Picture, data: dict[str, Any], lang: str) -> Picture:
    if "simulated" not in data["host"]["taint"]:
        return picture
    return replace(picture, title=f"{picture.title} ({say(lang, 'simulated')})")


def write(folder: Path, data: dict[str, Any], evidence: str = "", lang: str = "en") -> list[str]:
    """All pictures as SVG and Mermaid files; gives what is said about each on the terminal.

    Raises:
        InputError: the folder cannot be written.
    """
    src, told = _Sources(data, evidence, lang), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:
            picture = _simulated(make(name, src), data, lang)
            made = drawn(name, picture, lang)
            if made is None:
                told.append(f"{name}: {say(lang, 'none')}: {picture.missing}")
                continue
            (folder / f"{name}.svg").write_text(made.svg.file(), "utf-8")
            (folder / f"{name}.mmd").write_text(mermaid(picture), "utf-8")
            told.append(str(folder / f"{name}.svg"))
    except OSError as err:
        raise InputError(f"{folder}: {err.strerror}") from err
    return told
