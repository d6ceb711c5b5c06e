"""The command line of `diagnose boundary` and `diagnose kv`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Format = Annotated[str, typer.Option("--format", "-f", help="text, json or md")]


def boundary_command(
    picture: Annotated[
        str, typer.Option("--picture", help="tcp, rdma, gpudirect, control, kv, ring, memory, request")
    ] = "",
    pictures: Annotated[Path | None, typer.Option("--pictures", help="folder for all of them, SVG and Mermaid")] = None,
    evidence: Annotated[
        str, typer.Option("--evidence", "-e", help="an NCCL log, for the ring; a report, for measured stages and rates")
    ] = "",
    sysfs_root: Annotated[str, typer.Option("--sysfs-root", help="a recorded tree in place of this machine")] = "",
    peer: Annotated[str, typer.Option("--peer", help="a second machine that experiments may count on")] = "",
    lang: Annotated[str, typer.Option("--lang", help="en or zh")] = "",
    format_: Annotated[str, typer.Option("--format", "-f", help="text, json or md; svg for a picture")] = "text",
) -> None:
    """What can be validated on this machine, what at tool level only, and the experiment for the rest."""
    from .boundary import run

    raise typer.Exit(run(format_, picture, sysfs_root, lang, peer, evidence, pictures))


def kv_command(
    model: Annotated[str, typer.Option("--model", help="config.json, a folder with one, or a known name")],
    engine: Annotated[str, typer.Option("--engine", help="vllm or sglang: how blocks lie in memory")] = "vllm",
    block_size: Annotated[int, typer.Option("--block-size", help="tokens of a block; 0: the engine's default")] = 0,
    input_: Annotated[int, typer.Option("--input", help="prompt tokens")] = 4096,
    tp: Annotated[int, typer.Option("--tp", help="tensor parallel ranks")] = 1,
    link: Annotated[float, typer.Option("--link", help="GB/s of the path of each rank")] = 0.0,
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help="of the KV cache: bf16, fp8")] = "bf16",
    gpu: Annotated[str, typer.Option("--gpu", help="product name, or auto: for the share of TTFT")] = "",
    cost: Annotated[float, typer.Option("--cost", help="us to post a descriptor")] = 0.0,
    sweep: Annotated[str, typer.Option("--sweep", help="output of the nixl.bench probe, for that cost")] = "",
    format_: Format = "text",
) -> None:
    """The KV cache of a request as descriptors and bytes, the time to move it, its share of TTFT."""
    from .kv_command import Options, run

    raise typer.Exit(run(Options(model, engine, block_size, input_, tp, link, kv_dtype, gpu, cost, sweep), format_))
