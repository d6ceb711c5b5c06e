"""`diagnose bench`: from options to runs, and from runs to a report, files and an exit status."""

from __future__ import annotations

import dataclasses
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer

from ..errors import EXIT_ERROR, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_OK, DiagnoseError, UsageError
from ..progress import Progress
from ..units import percent
from . import plan, plots, show
from .embedded import Embedded
from .external import AiPerf, VllmBench, key_in_environment, missing
from .records import Load, Result, dump
from .wire import Origin

VIA = ("auto", "embedded", "vllm", "aiperf")
FORMATS = ("text", "json", "md")
APIS = ("auto", "completions", "chat")
RATE = 4.0
TOOLS = {"vllm": VllmBench, "aiperf": AiPerf}


class Generator(Protocol):
    """Whatever can make a run."""

    name: str

    def measure(self, load: Load) -> Result:
        """One run."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True)
class Options:
    """The command line, as given."""

    endpoint: str
    model: str = ""
    rate: str = ""
    concurrency: int = 0
    num: int = 200
    input: int = 512
    output: int = 128
    prefix: int = 0
    burstiness: float = 1.0
    ramp: float = 0.0
    warmup: int = 8
    timeout: float = 600.0
    matrix: bool = False
    sweep: str = ""
    find_saturation: bool = False
    slo: str = ""
    attain: float = plan.ATTAIN
    seed: int = 0
    salt: str = ""
    via: str = "auto"
    api: str = "auto"
    tokenizer: str = ""
    api_key_env: str = ""
    ca: str = ""
    allow: str = ""
    out: Path | None = None
    plots: Path | None = None
    lang: str = "en"
    format: str = "text"


@dataclass
class Work:
    """What is to be done: runs, or a search from the first of them."""

    loads: list[Load]
    slo: dict[str, float]
    search: bool


def work(options: Options) -> Work:
    """Check the options and turn them into runs.

    Raises:
        UsageError: they do not make sense, alone or together.
    """
    choices = (("via", options.via, VIA), ("format", options.format, FORMATS), ("api", options.api, APIS),
               ("lang", options.lang, ("en", "zh")))  # fmt: skip
    for name, value, known in choices:
        if value not in known:
            raise UsageError(f"--{name} {value!r}", f"one of {', '.join(known)}")
    counts = {"num": (options.num, 1), "input": (options.input, 1), "output": (options.output, 1),
              "prefix": (options.prefix, 0), "concurrency": (options.concurrency, 0),
              "warmup": (options.warmup, 0), "ramp": (options.ramp, 0)}  # fmt: skip
    for name, (number, least) in counts.items():
        if not number >= least:
            raise UsageError(f"--{name} {number}: at least {least}")
    if not options.timeout > 0 or not options.burstiness > 0 or not 0 < options.attain <= 1:
        raise UsageError("--timeout and --burstiness must be above 0, --attain above 0 and at most 1")
    if options.prefix > options.input:
        raise UsageError("--prefix cannot be longer than --input")
    if sum((options.matrix, bool(options.sweep), options.find_saturation)) > 1:
        raise UsageError("only one of --matrix, --sweep and --find-saturation")
    Origin.parse(options.endpoint)
    limits = plan.slo(options.slo)
    if options.find_saturation and not limits:
        raise UsageError("--find-saturation needs a limit to search for", "--slo ttft=500ms,tpot=20ms")
    rate = plan.rate(options.rate) if options.rate else (math.inf if options.concurrency else RATE)
    if options.find_saturation and math.isinf(rate):
        rate = RATE  # with --concurrency alone: the cap stays, the search starts at the usual rate
    base = Load(
        input=options.input, output=options.output, rate=rate, concurrency=options.concurrency or None,
        num=options.num, burstiness=options.burstiness, ramp=options.ramp, prefix=options.prefix,
        warmup=options.warmup, seed=options.seed, salt=options.salt or secrets.token_hex(4), timeout=options.timeout,
    )  # fmt: skip
    if options.matrix:
        return Work(plan.matrix(base), limits, False)
    if options.sweep:
        return Work(plan.sweep(base, options.sweep), limits, False)
    return Work([base], limits, options.find_saturation)


def preview(options: Options, todo: Work) -> str:
    """What would be sent, for someone who has not agreed to it yet."""
    lines = [f"this would load {options.endpoint} (footprint: load); nothing was sent"]
    for load in todo.loads:
        pace = (
            "all at once"
            if math.isinf(load.rate)
            else f"at {load.rate:g} req/s, {load.num / load.rate + load.ramp:.0f} s"
        )
        if load.closed:
            pace = f"by {load.concurrency} users, one after another"
        size = f"{load.input} tokens in, {load.output} out"
        lines.append(f"  {load.num} requests of {size}, {pace}; {load.warmup} before as warm-up")
    if todo.search:
        lines.append(
            f"  again at other rates, at most {plan.MOST_RUNS} runs of {plan.TRIAL_SECONDS:g} s or more, "
            f"until the highest rate with {percent(options.attain)} within {options.slo} is known"
        )
    total = sum(load.num + load.warmup for load in todo.loads)
    tokens = sum((load.num + load.warmup) * (load.input + load.output) for load in todo.loads)
    lines.append(f"  {'at least ' if todo.search else ''}{total:,} requests, {tokens:,} tokens in all")
    return "\n".join(lines)


def generator(options: Options, own: Embedded, slo: dict[str, float], todo: Work) -> tuple[Generator, str]:
    """The one to use, and a line on why it is not another one.

    Raises:
        UsageError: the one that was asked for is not available.
    """
    if options.via == "embedded":
        return own, ""
    names = ["vllm", "aiperf"] if options.via == "auto" else [options.via]
    whys = []
    for name in names:
        why = missing(name, options.tokenizer, options.api_key_env)
        if not why and options.ramp:
            why = f"--ramp is not available with {name}"
        if not why and name == "aiperf" and (todo.slo or options.prefix):
            why = "--slo and --prefix are not available with aiperf"
        if not why:
            return TOOLS[name](options.endpoint, own.target.model, own.target.api, options.tokenizer, slo, own.say), ""
        whys.append(why)
    if options.via != "auto":
        raise UsageError(f"--via {options.via}: {whys[0]}", "--via embedded")
    return own, f"embedded generator: {'; '.join(whys)}"


def run(options: Options) -> int:
    """Run it all; returns the exit status."""
    todo = work(options)
    if options.allow != "load":
        typer.echo(preview(options, todo))
        typer.echo("run it with: --allow load", err=True)
        return EXIT_INCONCLUSIVE
    key = key_in_environment(options.api_key_env)
    results: list[Result] = []
    found: plan.Saturation | None = None
    failure: DiagnoseError | None = None
    interrupted = False
    notes: list[str] = []
    with Progress() as progress:
        progress.say("server")
        own = Embedded(
            options.endpoint, model=options.model, api=options.api, key=key, ca=options.ca or None, slo=todo.slo,
            timeout=options.timeout, say=progress.say,
        )  # fmt: skip
        try:
            source, why = generator(options, own, todo.slo, todo)
            notes += [*own.target.notes, *([why] if why else [])]

            def measure(load: Load) -> Result:
                result = source.measure(load)
                results.append(result)
                if options.out is not None:
                    show.write(options.out, result)
                return result

            if todo.search:
                base = todo.loads[0]
                found = plan.Saturation()
                plan.search(lambda r: measure(plan.runs_for(base, r)), base.rate, options.attain, found)
            else:
                for load in todo.loads:
                    if (last := measure(load)).interrupted or last.died:
                        break
        except KeyboardInterrupt:
            interrupted = True
        except DiagnoseError as err:  # what was measured before it is kept
            failure = err
        finally:
            own.close()
    _report(options, results, found, notes)
    if failure is not None:
        raise failure
    if interrupted or any(r.interrupted for r in results):
        return EXIT_INTERRUPTED
    if died := next((r.died for r in results if r.died), ""):
        typer.echo(f"diagnose: {died}", err=True)
        return EXIT_ERROR
    if results and not any(r.data.get("completed") for r in results):
        typer.echo("diagnose: no request was answered", err=True)
        return EXIT_ERROR
    return EXIT_OK if all(r.valid for r in results) else EXIT_INCONCLUSIVE


def _report(options: Options, results: Sequence[Result], found: plan.Saturation | None, notes: list[str]) -> None:
    for note in notes:
        typer.echo(note, err=True)
    if not results:
        return
    if options.format == "json":
        typer.echo(_json(results, found), nl=False)
    elif options.format == "md":
        typer.echo(show.markdown(results, found, options.attain))
    else:
        show.text(results, found, options.attain)
    sys.stdout.flush()
    if options.out is not None:
        typer.echo(f"written: {options.out}/", err=True)
    if options.plots is not None:
        drawn = plots.draw(results, options.plots, options.lang)
        typer.echo(
            f"plots: {', '.join(map(str, drawn))}" if drawn else "no plots: they need two runs on one axis", err=True
        )


def _json(results: Sequence[Result], found: plan.Saturation | None) -> str:
    if len(results) == 1 and found is None:
        return dump(results[0].data)
    data: dict[str, Any] = {"schema": "diagnose.bench/v1"}
    if found is not None:
        data["saturation"] = dataclasses.asdict(found)
    return dump(data | {"runs": [r.data for r in results]})
