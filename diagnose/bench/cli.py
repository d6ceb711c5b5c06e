"""The options of `diagnose bench`. Nothing heavy is imported here: this stands on the way to every `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench_command(
    endpoint: Annotated[str, typer.Option("--endpoint", help="the server, e.g. http://127.0.0.1:8000")],
    model: Annotated[str, typer.Option("--model", help="one of those it serves; else the first")] = "",
    rate: Annotated[str, typer.Option("--rate", help="requests a second, or inf for all at once [4]")] = "",
    concurrency: Annotated[
        int, typer.Option("--concurrency", help="so many waiting users; with --rate a cap, whose effect is told")
    ] = 0,
    num: Annotated[int, typer.Option("--num", help="requests that are measured")] = 200,
    input_: Annotated[int, typer.Option("--input", help="prompt tokens")] = 512,
    output: Annotated[int, typer.Option("--output", help="tokens to generate")] = 128,
    prefix: Annotated[int, typer.Option("--prefix", help="prompt tokens that all requests share")] = 0,
    burstiness: Annotated[
        float, typer.Option("--burstiness", help="1 Poisson, more is more regular, inf constant")
    ] = 1.0,
    ramp: Annotated[float, typer.Option("--ramp", help="seconds of rising rate before what is measured")] = 0.0,
    warmup: Annotated[int, typer.Option("--warmup", help="requests before it")] = 8,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds a request may take")] = 600.0,
    matrix: Annotated[bool, typer.Option("--matrix", help="128/512/2048 in x 64/128/512 out x 1/4/16 req/s")] = False,
    sweep: Annotated[str, typer.Option("--sweep", help="one axis, e.g. rate=1,4,16")] = "",
    find_saturation: Annotated[
        bool, typer.Option("--find-saturation", help="search for the highest rate within --slo")
    ] = False,
    slo: Annotated[str, typer.Option("--slo", help="e.g. ttft=500ms,tpot=20ms; gives goodput")] = "",
    attain: Annotated[float, typer.Option("--attain", help="share of requests that must be within --slo")] = 0.9,
    seed: Annotated[int, typer.Option("--seed", help="of the schedule and the prompts")] = 0,
    salt: Annotated[
        str, typer.Option("--salt", help="repeat the prompts of an earlier run; else new ones, for the prefix cache")
    ] = "",
    via: Annotated[str, typer.Option("--via", help="auto, embedded, vllm or aiperf")] = "auto",
    api: Annotated[str, typer.Option("--api", help="auto, completions or chat")] = "auto",
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="a folder, for vllm and aiperf")] = "",
    api_key_env: Annotated[str, typer.Option("--api-key-env", help="environment variable that holds the key")] = "",
    ca: Annotated[str, typer.Option("--ca", help="certificates to trust, a PEM file")] = "",
    allow: Annotated[str, typer.Option("--allow", help="load: agree to the load; else it is only described")] = "",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="folder for a result file a run")] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="folder for SVG plots")] = None,
    lang: Annotated[str, typer.Option("--lang", help="language of the plots: en or zh")] = "en",
    format_: Annotated[str, typer.Option("--format", "-f", help="text, json or md")] = "text",
) -> None:
    """Load an OpenAI-compatible server and measure TTFT, TPOT, throughput and goodput.

    Exit status: 0 done, 2 only described or the generator fell behind (invalid), 3 no server to measure,
    130 interrupted with what there was kept.
    """
    from .command import Options, run

    options = Options(
        endpoint=endpoint, model=model, rate=rate, concurrency=concurrency, num=num, input=input_,
        output=output, prefix=prefix, burstiness=burstiness, ramp=ramp, warmup=warmup,
        timeout=timeout, matrix=matrix, sweep=sweep, find_saturation=find_saturation, slo=slo,
        attain=attain, seed=seed, salt=salt, via=via, api=api, tokenizer=tokenizer,
        api_key_env=api_key_env, ca=ca, allow=allow, out=out, plots=plots, lang=lang, format=format_,
    )  # fmt: skip
    raise typer.Exit(run(options))
