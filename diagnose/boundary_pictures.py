"""Pictures of data paths on this machine, as Mermaid text: each hop present, absent or unknown, with its evidence."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, UsageError
from .hardware import gpu as sheet
from .host import Host

_CLASSES = {
    True: ("present", "fill:#d7f0dd,stroke:#1a7f37"),
    False: ("absent", "fill:#fbdcdc,stroke:#b42318,stroke-dasharray: 4"),
    None: ("unknown", "fill:#eeeeee,stroke:#6b7280,stroke-dasharray: 2"),
}
# Largest shared memory of a block and registers of an SM, KiB, by compute capability (CUDA programming guide).
_SHARED = {7.0: 96, 7.5: 64, 8.0: 163, 8.6: 99, 8.7: 163, 8.9: 99, 9.0: 227, 10.0: 227, 12.0: 99}
_REGISTERS = 256
_CHANNEL = re.compile(r"Channel \d+/\d+ :((?:\s+\d+){2,})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Hop:
    """One station of a path."""

    name: str
    has: bool | None
    evidence: str
    limit: str = ""


@dataclass(frozen=True)
class Picture:
    """Stations, and which leads to which."""

    title: str
    hops: list[Hop]
    edges: list[tuple[int, int, str]]


def _check(data: dict[str, Any], label: str, name: str, limit: str = "") -> Hop:
    found = data["checks"][name]
    return Hop(label, found["has"], found["evidence"], limit)


def _always(label: str, why: str) -> Hop:
    return Hop(label, True, why)


def _chain(title: str, hops: list[Hop]) -> Picture:
    return Picture(title, hops, [(i, i + 1, "") for i in range(len(hops) - 1)])


def _peer(data: dict[str, Any]) -> Hop:
    return _check(data, "peer host", "peer")


def _tcp(data: dict[str, Any], _: Host, __: str) -> Picture:
    return _chain(
        "TCP: every byte passes the CPU twice on each side",
        [
            _check(data, "GPU memory", "gpu"),
            _always("pinned host buffer", "a copy by the GPU's copy engine"),
            _always("socket and kernel TCP", "a copy by a core, then segments, interrupts and acknowledgements"),
            _always("Ethernet adapter", "any interface carries TCP"),
            _peer(data),
        ],
    )


def _rdma(data: dict[str, Any], _: Host, __: str) -> Picture:
    return _chain(
        "RDMA: the adapter reads and writes registered host memory",
        [
            _check(data, "registered host memory", "memlock"),
            _check(data, "verbs device", "verbs_nodes"),
            _check(data, "RDMA adapter", "rdma"),
            _peer(data),
        ],
    )


def _gpudirect(data: dict[str, Any], _: Host, __: str) -> Picture:
    return _chain(
        "GPUDirect RDMA: the adapter reads and writes GPU memory, no host buffer",
        [
            _check(data, "GPU memory", "gpu"),
            _check(data, "peer memory or dma-buf", "gpudirect"),
            _check(data, "one PCIe switch", "near_nic"),
            _check(data, "verbs device", "verbs_nodes"),
            _check(data, "RDMA adapter", "rdma"),
            _peer(data),
        ],
    )


def _control(data: dict[str, Any], _: Host, __: str) -> Picture:
    hops = [
        _check(data, "GPU kernel", "gpu"),
        _always("CPU proxy thread", "a core that waits for the GPU, posts and polls"),
        _check(data, "RDMA adapter", "rdma"),
        _check(data, "doorbell and queues in reach of the GPU (GDRCopy, GPUNetIO)", "gdrdrv"),
        _check(data, "adapter that a GPU can drive", "driven_nic"),
        _peer(data),
    ]
    edges = [(0, 1, "CPU-centric: flag in host memory"), (1, 2, "post, poll"), (2, 5, ""),
             (0, 3, "GPU-centric: post, poll"), (3, 4, "doorbell"), (4, 5, "")]  # fmt: skip
    return Picture("Who posts a message: CPU-centric beside GPU-centric", hops, edges)


def _kv(data: dict[str, Any], _: Host, __: str) -> Picture:
    hops = [
        _check(data, "engine: prefill worker", "vllm"),
        _check(data, "router (Dynamo, LMCache)", "dynamo"),
        _check(data, "NIXL", "nixl"),
        _check(data, "UCX", "ucx"),
        _check(data, "RDMA below UCX", "ucx_verbs"),
        _check(data, "GPU memory below UCX", "ucx_cuda"),
        _check(data, "RDMA adapter", "rdma"),
        _peer(data),
    ]
    edges = [(1, 0, "request"), (0, 2, "blocks as descriptors"), (2, 3, "one transfer"), (3, 4, "between hosts"),
             (3, 5, "between GPUs"), (4, 6, ""), (6, 7, "")]  # fmt: skip
    return Picture("KV cache from prefill to decode: engine, NIXL, UCX, wire", hops, edges)


def _ring(data: dict[str, Any], _: Host, log: str) -> Picture:
    found = _CHANNEL.search(log)
    names = _names(data)
    if found is not None:
        ranks = found.group(1).split()
        hops = [Hop(f"rank {r}", True, " ".join(found.group().split())) for r in ranks]
        title = "Ring all-reduce, the ring that NCCL printed"
    else:
        hops = [Hop(f"GPU {i}", True, name) for i, name in enumerate(names)]
        title = "Ring all-reduce, order not known: give NCCL's log (NCCL_DEBUG=INFO) with --evidence"
    if not hops:
        hops = [Hop("GPU", data["checks"]["gpu"]["has"], data["checks"]["gpu"]["evidence"])]
    count = len(hops)
    known = found is not None
    edges = [(i, (i + 1) % count, "" if known else "?") for i in range(count)] if count > 1 else []
    return Picture(title, hops, edges)


def _names(data: dict[str, Any]) -> list[str]:
    said = re.match(r"NVML shows (\d+) x ([^,]+)", data["checks"]["gpu"]["evidence"])
    return [said.group(2)] * int(said.group(1)) if said else []


def _memory(data: dict[str, Any], _: Host, __: str) -> Picture:
    names = _names(data)
    product = sheet(names[0]) if names else None
    if product is None:
        why = f"no figures for {names[0]}" if names else data["checks"]["gpu"]["evidence"]
        unknown = ["registers", "shared memory", "L2 cache", "GPU memory", "host memory over PCIe"]
        return _chain("CUDA memory hierarchy", [Hop(n, None if names else False, why) for n in unknown])
    shared = _SHARED.get(product.cc)
    source = product.source_of()
    hops = [
        Hop("registers", True, f"compute capability {product.cc}", f"{_REGISTERS} KiB an SM"),
        Hop("shared memory", shared is not None or None, f"compute capability {product.cc}",
            f"{shared} KiB a block at most" if shared else ""),
        Hop("L2 cache", None, "size and rate: diagnose microbench"),
        Hop("GPU memory", True, source, f"{product.memory_gb} GB at {product.memory:g} GB/s"),
        Hop("host memory", True, source,
            "NVLink-C2C" if product.c2c else f"PCIe generation {product.pcie}, {product.width} lanes"),
    ]  # fmt: skip
    return _chain(f"CUDA memory hierarchy of {product.name}, by its sheet", hops)


PICTURES = {"tcp": _tcp, "rdma": _rdma, "gpudirect": _gpudirect, "control": _control, "kv": _kv, "ring": _ring,
            "memory": _memory}  # fmt: skip


def mermaid(picture: Picture) -> str:
    """The picture as Mermaid text."""
    lines = ["flowchart LR"]
    for number, hop in enumerate(picture.hops):
        label = "<br/>".join(filter(None, [hop.name, hop.limit])).replace('"', "'")
        lines.append(f'  h{number}["{label}"]:::{_CLASSES[hop.has][0]}')
    for start, end, says in picture.edges:
        lines.append(f'  h{start} -- "{says}" --> h{end}' if says else f"  h{start} --> h{end}")
    lines += [f"  classDef {name} {style}" for name, style in _CLASSES.values()]
    return "\n".join(lines) + "\n"


def draw(name: str, data: dict[str, Any], host: Host, format_: str, evidence: str = "") -> str:
    """One picture with its table of hops, in a format of the command."""
    if name not in PICTURES:
        raise UsageError(f"--picture takes {', '.join(PICTURES)}, not {name!r}")
    try:
        log = Path(evidence).read_text("utf-8", "replace") if evidence else ""
    except OSError as err:
        raise InputError(f"cannot read {evidence}: {err.strerror}") from err
    picture = PICTURES[name](data, host, log)
    rows = [(h.name, _CLASSES[h.has][0], h.limit, h.evidence) for h in picture.hops]
    if format_ == "json":
        hops = [dict(zip(("hop", "state", "limit", "evidence"), row, strict=True)) for row in rows]
        made = {"schema": "diagnose.picture/v1", "picture": name, "title": picture.title, "hops": hops,
                "edges": [list(e) for e in picture.edges], "mermaid": mermaid(picture)}  # fmt: skip
        return json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    simulated = " (SIMULATED)" if "simulated" in data["host"]["taint"] else ""
    if format_ == "md":
        table = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
        head = "| hop | state | limit | evidence |\n|---|---|---|---|"
        return f"# {picture.title}{simulated}\n\n```mermaid\n{mermaid(picture)}```\n\n{head}\n{table}\n"
    width = max(len(row[0]) for row in rows)
    table = "\n".join(f"  {r[0]:{width}}  {r[1]:8} {r[2] + '; ' if r[2] else ''}{r[3]}" for r in rows)
    return f"{picture.title}{simulated}\n\n{mermaid(picture)}\n{table}\n"
