"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .bench.cli import bench_command
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_OK, DiagnoseError, UsageError
from .movement_cli import boundary_command, kv_command
from .recording_cli import cassette_app, probe_app, record_command

app = typer.Typer(
    name="diagnose",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help='Say what is slow and why, with evidence: diagnose "TTFT is high" --evidence server.log',
    epilog="Exit status: 0 done, 1 a finding at --fail-on or worse (also: verify or eval failed), 2 inconclusive, "
    "3 could not run, 130 interrupted. Anything that is no command is a symptom; a path that exists is evidence; "
    "piped input is read.",
)
playbook_app = typer.Typer(help="The debugging trees.", rich_markup_mode=None)
app.add_typer(playbook_app, name="playbook")
app.add_typer(probe_app, name="probe")
app.add_typer(cassette_app, name="cassette")

TRIAGE = "triage"
_FLEET = "ray, ray://HOST:PORT, slurm, hosts:node[01-64], hosts:FILE, or a folder of cassettes"

Format = Annotated[str, typer.Option("--format", "-f", help="text, json or md")]
Paths = Annotated[
    list[str] | None, typer.Option("--evidence", "-e", help="file, folder, archive or - ; repeat for more")
]


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        typer.echo(f"diagnose {__version__}")
        raise typer.Exit(EXIT_OK)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(EXIT_OK)


@app.command(TRIAGE)
def triage_command(
    words: Annotated[list[str] | None, typer.Argument(help="the symptom, in English or Chinese")] = None,
    evidence: Paths = None,
    offline: Annotated[bool, typer.Option("--offline", help="touch nothing on this machine but the evidence")] = False,
    replay: Annotated[str, typer.Option("--replay", help="a cassette, in place of this machine")] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", help="a running server, e.g. http://127.0.0.1:8000")] = "",
    prometheus: Annotated[str, typer.Option("--prometheus", help="a Prometheus that scrapes the server")] = "",
    window: Annotated[str, typer.Option("--window", help="how long to watch, or to look back: 10s, 30m")] = "",
    api_key_env: Annotated[str, typer.Option("--api-key-env", help="variable that holds the server's key")] = "",
    model: Annotated[str, typer.Option("--model", help="the model's config.json, for floors")] = "",
    gpu: Annotated[str, typer.Option("--gpu", help="GPU name for floors, or auto")] = "",
    tp: Annotated[int, typer.Option("--tp", help="tensor-parallel size, for floors")] = 0,
    pid: Annotated[int, typer.Option("--pid", help="the process that is slow")] = 0,
    command: Annotated[str, typer.Option("--command", help="the program that is slow, to be run and profiled")] = "",
    kernel: Annotated[str, typer.Option("--kernel", help="name of the kernel that is slow (regex, for ncu)")] = "",
    slo: Annotated[str, typer.Option("--slo", help="targets to judge by: ttft=500ms,tpot=20ms,e2e=5s")] = "",
    allow: Annotated[str, typer.Option("--allow", help="heaviest probes run without asking: read, light, load")] = "",
    budget: Annotated[float | None, typer.Option("--budget", help="seconds that probes may take together")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print every command, run none")] = False,
    sysfs_root: Annotated[str, typer.Option("--sysfs-root", help="a recorded tree in place of / for files")] = "",
    lang: Annotated[str, typer.Option("--lang", help="en, zh or both")] = "",
    format_: Format = "",
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="exit 1 on a finding this severe: info, low, medium, high, never")
    ] = "never",
    no_input: Annotated[bool, typer.Option("--no-input", help="never ask, no prompt after the verdict")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="all evidence, the planner's arithmetic")] = False,
    llm: Annotated[bool, typer.Option("--llm", help="a language model rewords and proposes, decides nothing")] = False,
    llm_model: Annotated[str, typer.Option("--llm-model", help="its name at the endpoint")] = "",
    llm_base_url: Annotated[str, typer.Option("--llm-base-url", help="its address: http://127.0.0.1:8000/v1")] = "",
    llm_key_env: Annotated[str, typer.Option("--llm-key-env", help="variable that holds its key")] = "",
    llm_dry_run: Annotated[bool, typer.Option("--llm-dry-run", help="show what would be sent, send nothing")] = False,
    fleet: Annotated[str, typer.Option("--fleet", help=f"many nodes: {_FLEET}")] = "",
    node_timeout: Annotated[float, typer.Option("--node-timeout", help="seconds for one node of a fleet")] = 120.0,
) -> None:
    """Find the cause of a symptom from the evidence at hand (the default command)."""
    from .triage import Reach, run

    said = {"endpoint": endpoint, "prometheus": prometheus, "window": window,
            "api-key-env": api_key_env, "model": model, "gpu": gpu,
            "tp": str(tp or ""), "pid": str(pid or ""), "slo": slo, "command": command, "kernel": kernel}  # fmt: skip
    params = {name: value for name, value in said.items() if value}
    reach = Reach(offline, allow, budget, params, replay, dry_run, sysfs_root)
    named = {"model": llm_model, "base_url": llm_base_url, "key_env": llm_key_env}
    raise typer.Exit(
        run(
            words or [], evidence or [], reach=reach, lang=lang, format_=format_, fail_on=fail_on,
            ask=not no_input, verbose=verbose, llm=_model(named, on=llm, dry_run=llm_dry_run),
            fleet=fleet, node_timeout=node_timeout,
        )
    )  # fmt: skip


def _model(named: dict[str, str], *, on: bool, dry_run: bool) -> Any:
    """The language model, if a flag or the user's own settings ask for one; a key that lies around asks for nothing."""
    from .config import table

    user = table("llm")
    if not (on or dry_run or user or any(named.values())):
        return None
    from .llm import options

    return options(named, user, on=on, dry_run=dry_run)


@app.command("resume")
def resume_command(
    path: Annotated[Path, typer.Argument(help="the cassette of an earlier run, as that run printed it")],
    allow: Annotated[str, typer.Option("--allow", help="heaviest probes run without asking: read, light, load")] = "",
    budget: Annotated[float | None, typer.Option("--budget", help="seconds that probes may take together")] = None,
    lang: Annotated[str, typer.Option("--lang", help="en, zh or both")] = "",
    format_: Format = "",
    no_input: Annotated[bool, typer.Option("--no-input", help="never ask, no prompt after the verdict")] = False,
) -> None:
    """Go on with a live run that was interrupted: what was captured stays, the rest is probed."""
    from .triage import Reach, run

    raise typer.Exit(
        run(
            [], [], reach=Reach(allow=allow, budget=budget, resume=str(path)), lang=lang, format_=format_,
            fail_on="never", ask=not no_input, verbose=False,
        )
    )  # fmt: skip


@app.command("verify")
def verify_command(
    report: Annotated[Path, typer.Argument(help="a report written with --format json")],
    evidence: Paths = None,
    format_: Format = "text",
) -> None:
    """Check a report offline: quotes against their captures, formulas, and the wording of the answer."""
    from .verify_command import run

    raise typer.Exit(run(report, evidence or [], format_))


@app.command("report")
def report_command(
    report: Annotated[Path, typer.Argument(help="a report or an audit written with --format json")],
    format_: Annotated[str, typer.Option("--format", "-f", help="html, md, sarif, junit or svg")] = "html",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write it to this file (svg: folder)")] = None,
    evidence: Paths = None,
    lang: Annotated[str, typer.Option("--lang", help="of the pictures (svg): en or zh")] = "",
) -> None:
    """A finished report for people and pipelines: one HTML page, Markdown, SARIF, JUnit, its pictures as SVG."""
    from .report_command import run

    raise typer.Exit(run(report, format_, output, evidence or [], lang))


@app.command("causes")
def causes_command(
    layer: Annotated[str, typer.Option("--layer", help="only this layer")] = "",
    format_: Format = "text",
) -> None:
    """List the cause catalogue."""
    from . import catalogue_commands as c

    c.causes(layer, format_)


@app.command("explain")
def explain_command(
    cause: Annotated[str, typer.Argument(help="an id from `diagnose causes` or `diagnose audit --show`")],
    lang: Annotated[str, typer.Option("--lang", help="en, zh or both")] = "en",
    format_: Format = "text",
) -> None:
    """Explain one cause (mechanism, signs, decoys, fix) or one check of the audit."""
    from . import catalogue_commands as c

    c.explain(cause, lang, format_)


@app.command("ask")
def ask_command(
    words: Annotated[list[str] | None, typer.Argument(help="a question, in English or Chinese, or an id")] = None,
    gpu: Annotated[str, typer.Option("--gpu", help="figures for this GPU: H100, H200, A100, L40S, B200 …")] = "",
    lang: Annotated[str, typer.Option("--lang", help="en, zh or both")] = "",
    level: Annotated[str, typer.Option("--level", help="junior, senior or staff")] = "",
    track: Annotated[str, typer.Option("--track", help="serving, collectives, network, cuda …")] = "",
    list_: Annotated[bool, typer.Option("--list", help="all questions of the bank")] = False,
    format_: Format = "",
) -> None:
    """Explain a concept: answer, arithmetic for your GPU, trade-off, how to measure it, what they ask next."""
    from .ask_command import run

    raise typer.Exit(run(words or [], gpu=gpu, lang=lang, level=level, track=track, list_=list_, format_=format_))


@app.command("practice")
def practice_command(
    words: Annotated[list[str] | None, typer.Argument(help="drill, interview, or story REPORT.json")] = None,
    list_: Annotated[bool, typer.Option("--list", help="the drills, or the questions")] = False,
    drill: Annotated[str, typer.Option("--drill", help="a name from --list, or a cassette of your own")] = "",
    track: Annotated[str, typer.Option("--track", help="serving, collectives, network, cuda, architect …")] = "",
    lang: Annotated[str, typer.Option("--lang", help="en or zh")] = "",
    seed: Annotated[int, typer.Option("--seed", help="which drill, which questions")] = 1,
    script: Annotated[str, typer.Option("--script", help="lines to play, a file or -")] = "",
    rounds: Annotated[int, typer.Option("--rounds", help="questions of an interview")] = 3,
    restart: Annotated[bool, typer.Option("--restart", help="begin a drill anew that was left half way")] = False,
    llm: Annotated[bool, typer.Option("--llm", help="a model asks back in an interview; the score is not its")] = False,
    llm_model: Annotated[str, typer.Option("--llm-model", help="its name at the endpoint")] = "",
    llm_base_url: Annotated[str, typer.Option("--llm-base-url", help="its address: http://127.0.0.1:8000/v1")] = "",
    llm_key_env: Annotated[str, typer.Option("--llm-key-env", help="variable that holds its key")] = "",
    format_: Format = "",
) -> None:
    """Practise: an incident on a recorded machine, interview questions, or a report told as a story."""
    from .practice import run

    named = {"model": llm_model, "base_url": llm_base_url, "key_env": llm_key_env}
    raise typer.Exit(
        run(
            words or [], list_=list_, drill=drill, track=track, lang=lang, seed=seed, script=script, format_=format_,
            rounds=rounds, restart=restart, llm=_model(named, on=llm, dry_run=False),
        )
    )  # fmt: skip


@playbook_app.command("list")
def playbook_list(format_: Format = "text") -> None:
    """All playbooks with the question each answers."""
    from . import catalogue_commands as c

    c.playbook_list(format_)


@playbook_app.command("show")
def playbook_show(
    name: Annotated[str, typer.Argument(help="an id from `diagnose playbook list`")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="as a Mermaid graph")] = False,
    format_: Format = "text",
) -> None:
    """One playbook: its steps, what each reads, where each leads."""
    from . import catalogue_commands as c

    c.playbook_show(name, mermaid, format_)


@app.command("schema")
def schema_command(
    name: Annotated[str, typer.Argument(help="report, audit, fleet or signals")] = "report",
) -> None:
    """Print a JSON Schema (report, audit, fleet) or the declared signals (signals)."""
    from . import catalogue_commands as c

    c.schema(name)


@app.command("audit")
def audit_command(
    evidence: Paths = None,
    replay: Annotated[str, typer.Option("--replay", help="a cassette, in place of this machine")] = "",
    fleet: Annotated[str, typer.Option("--fleet", help=f"many nodes: {_FLEET}")] = "",
    node_timeout: Annotated[float, typer.Option("--node-timeout", help="seconds for one node of a fleet")] = 120.0,
    show: Annotated[bool, typer.Option("--show", help="list the checks, run none")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="checks by id, glob or group; repeat")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="checks to leave out; repeat")] = None,
    expect: Annotated[str, typer.Option("--expect", help="gpus=8,nics=8,gpu=H100,driver=580,torch=2.11")] = "",
    profile: Annotated[str, typer.Option("--profile", help="inference, training or network")] = "",
    baseline: Annotated[str, typer.Option("--baseline", help="an earlier audit: say what changed since")] = "",
    save_baseline: Annotated[str, typer.Option("--save-baseline", help="write this audit to a file")] = "",
    record: Annotated[
        str,
        typer.Option("--record", help="keep what was read as a cassette folder; of a fleet, one cassette a node in it"),
    ] = "",
    sysfs_root: Annotated[str, typer.Option("--sysfs-root", help="a recorded tree in place of / for files")] = "",
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="exit 1 on a finding this severe: info, low, medium, high, never")
    ] = "high",
    lang: Annotated[str, typer.Option("--lang", help="en, zh or both")] = "",
    format_: Format = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="every check, and what was not read")] = False,
) -> None:
    """Say what is wrong or wasteful about this machine, without a symptom."""
    from .audit import Options, run
    from .config import load
    from .emit import LANGS

    settings = load({"lang": lang, "format": format_})
    if settings.lang not in LANGS:
        raise UsageError(f"--lang takes {', '.join(LANGS)}, not {settings.lang!r}")
    options = Options(tuple(only or ()), tuple(skip or ()), profile, expect, baseline, LANGS[settings.lang])
    if fleet:
        from .fleet import run as run_fleet

        raise typer.Exit(
            run_fleet(fleet, options, fail_on=fail_on, format_=settings.format, save=save_baseline,
                      limit=node_timeout, keep=record)
        )  # fmt: skip
    raise typer.Exit(
        run(
            evidence or [], replay, options, sysfs_root=sysfs_root, record=record, save=save_baseline,
            fail_on=fail_on, format_=settings.format, show=show, verbose=verbose,
        )
    )  # fmt: skip


@app.command("microbench")
def microbench_command(
    only: Annotated[str, typer.Option("--only", help="names from --list, separated by commas")] = "",
    list_: Annotated[bool, typer.Option("--list", help="what there is, with seconds and memory")] = False,
    gpu: Annotated[int, typer.Option("--gpu", help="index of the GPU")] = 0,
    allow: Annotated[str, typer.Option("--allow", help="needs load: it takes the GPU for about a minute")] = "",
    format_: Format = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the result to this file")] = None,
) -> None:
    """Measure this GPU's real limits: bandwidth, arithmetic, launches, copies, each beside its limit and its twin."""
    from .microbench import run

    raise typer.Exit(run(only, list_, gpu, allow, format_, output))


@app.command("mcp")
def mcp_command(
    root: Annotated[
        list[str] | None, typer.Option("--root", help="folder that evidence may lie in; repeat; default: here")
    ] = None,
    allow: Annotated[str, typer.Option("--allow", help="heaviest probes that clients may run: read, light, load")] = "",
    http: Annotated[bool, typer.Option("--http", help="serve on the loopback address, with a token")] = False,
    port: Annotated[int, typer.Option("--port", help="for --http; 0 takes a free one")] = 8765,
) -> None:
    """Serve the tool to an agent over the Model Context Protocol (stdio)."""
    from .mcp_command import run

    raise typer.Exit(run(root or [], allow, http, port))


@app.command("doctor")
def doctor_command(format_: Format = "text") -> None:
    """Check this installation: catalogue, plugins, what is available here."""
    from .doctor import run

    raise typer.Exit(run(format_))


@app.command("floors")
def floors_command(
    model: Annotated[str, typer.Option("--model", help="config.json, a folder with one, or a known name")],
    gpu: Annotated[str, typer.Option("--gpu", help="product name, or auto for this machine's")] = "auto",
    tp: Annotated[int, typer.Option("--tp", help="tensor parallel ranks")] = 1,
    dtype: Annotated[
        str, typer.Option("--dtype", help="of the weights: bf16, fp8, int4 …; default: the config's")
    ] = "",
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help="of the KV cache: bf16, fp8")] = "",
    input_: Annotated[int, typer.Option("--input", help="prompt tokens; sequence length in training")] = 2048,
    output: Annotated[int, typer.Option("--output", help="generated tokens")] = 256,
    concurrency: Annotated[int, typer.Option("--concurrency", help="requests at once; sequences of a step")] = 32,
    mem_util: Annotated[float, typer.Option("--mem-util", help="share of the memory that the engine may use")] = 0.9,
    parallel: Annotated[str, typer.Option("--parallel", help="dp=2,tp=8,pp=4,ep=8,fsdp (zero1, zero2, micro=8)")] = "",
    train: Annotated[bool, typer.Option("--train", help="a training step instead of serving")] = False,
    nodes: Annotated[int, typer.Option("--nodes", help="hosts")] = 1,
    nic: Annotated[float, typer.Option("--nic", help="Gb/s of an adapter")] = 0.0,
    nics: Annotated[int, typer.Option("--nics", help="adapters of a host")] = 8,
    ceilings: Annotated[str, typer.Option("--ceilings", help="JSON of measured rates, used before the sheet's")] = "",
    format_: Format = "text",
) -> None:
    """What a model needs and can reach at best on a GPU, every figure with its formula."""
    from .floors_command import Options, run

    raise typer.Exit(
        run(
            Options(model, gpu, tp, dtype, kv_dtype, input_, output, concurrency, mem_util, parallel, train, nodes,
                    nic, nics, ceilings),
            format_,
        )
    )  # fmt: skip


@app.command("eval")
def eval_command(
    suites: Annotated[list[str] | None, typer.Argument(help="incidents, captures, ablation … and paths")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a sample only")] = False,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="an earlier JSON result: exit 1 when worse beyond noise")
    ] = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="text, json or junit")] = "text",
    threshold: Annotated[float, typer.Option("--threshold", help="exit 1 if top-1 falls below")] = 0.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="every case with its reasons")] = False,
    seed: Annotated[int, typer.Option("--seed", help="of made and changed cases: other seed, other cases")] = 1,
    results: Annotated[Path | None, typer.Option("--results", help="write all figures and failures to a page")] = None,
) -> None:
    """Score the tool itself on recorded cases."""
    from importlib import import_module

    command = import_module("diagnose.evals.run").command  # the engine never imports its own examiner by name
    raise typer.Exit(command(suites or [], quick, compare, format_, threshold, verbose, seed, results))


app.command("record")(record_command)
app.command("bench")(bench_command)
app.command("boundary")(boundary_command)
app.command("kv")(kv_command)


def _command_names() -> list[str]:
    names = [c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands]
    return [*names, *(g.name or "" for g in app.registered_groups)]


_FLAGS = {
    "--list", "--show", "--offline", "--no-input", "--llm", "--llm-dry-run", "--verbose", "-v", "--version", "-h",
    "--help", "--install-completion", "--show-completion",
}  # fmt: skip


def arrange(argv: list[str]) -> list[str]:
    """Put the hidden default command in front of a symptom; refuse a near miss of a command name.

    Raises:
        UsageError: a single word that is almost a command.
    """
    if not argv:
        return [TRIAGE] if not sys.stdin.isatty() else []
    positional: list[str] = []
    skip = False
    forced = False
    for token in argv:
        if skip:
            skip = False
        elif token == "--":
            forced = True
            break
        elif token.startswith("-") and token != "-":
            skip = "=" not in token and token not in _FLAGS
        else:
            positional.append(token)
    names = _command_names()
    if not forced and positional and positional[0] in names:
        return argv
    if (
        not positional
        and not forced
        and argv[0] in ("--version", "-h", "--help", "--install-completion", "--show-completion")
    ):
        return argv
    if not forced and len(positional) == 1 and " " not in positional[0] and not os.path.exists(positional[0]):
        from .catalogue import near

        if hint := near(positional[0], names):
            raise UsageError(
                f"no command {positional[0]!r}", f"{hint} To report it as a symptom: diagnose -- {positional[0]}"
            )
    return [TRIAGE, *argv]


def _fail(message: str, hint: str = "") -> None:
    """One line and a hint; what was typed comes back in them, so they are masked as reports are."""
    from .document import printable
    from .mask import mask

    with contextlib.suppress(OSError):  # standard error may be closed or full: the exit status still says it
        for text in filter(None, (f"diagnose: {message}", hint and f"  {hint}")):
            print("\n".join(printable(line) for line in mask(text).split("\n")), file=sys.stderr)


def _streams() -> None:
    """Standard streams that can be written to: one that is closed leads nowhere, no character is too strange for one.

    Without this the next file to be opened would take the place of a closed stream. Where the locale says nothing
    (`LC_ALL=C`), text is UTF-8, as Python has it elsewhere.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the whole process)
        elif mode == "w" and hasattr(stream, "reconfigure"):
            plain = stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "iso-8859-1")
            unsaid = plain and not os.environ.get("PYTHONIOENCODING")
            stream.reconfigure(encoding="utf-8" if unsaid else stream.encoding, errors="backslashreplace")


def _drop_output() -> None:
    """What is still to be written is lost; a second failure at the end must not print a traceback."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process with the documented exit status."""
    _streams()
    gc.set_threshold(50_000)  # what imports make stays: looking through it again and again took a fifth of a short run
    sys.exit(_run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    try:
        code: Any = app(args=arrange(argv), standalone_mode=False, prog_name="diagnose")
        sys.stdout.flush()
        if code == EXIT_INTERRUPTED:  # newer typer returns Ctrl-C as a status instead of raising it
            _fail("interrupted")
        return int(code or 0)
    except DiagnoseError as err:
        _fail(err.message, err.hint)
        return err.exit_code
    except KeyboardInterrupt:
        _fail("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader went away
        _drop_output()
        return EXIT_OK
    except OSError as err:  # a full disk above all
        _drop_output()
        _fail(": ".join(filter(None, (str(err.filename or ""), err.strerror or type(err).__name__))))
        return EXIT_ERROR
    except Exception as err:
        if hasattr(err, "format_message"):  # typer's own usage errors, whichever click it carries
            _fail(str(err.format_message()), "diagnose --help")
            return EXIT_ERROR
        if err.__class__.__name__ == "Abort":
            return EXIT_INTERRUPTED
        if os.environ.get("DIAGNOSE_DEBUG"):
            raise
        _fail(f"defect: {type(err).__name__}: {err}", "set DIAGNOSE_DEBUG=1 to see where, and report it")
        return EXIT_ERROR


__all__ = ["EXIT_FINDING", "EXIT_INCONCLUSIVE", "app", "main"]

if __name__ == "__main__":
    main()
