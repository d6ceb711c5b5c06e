"""The command line of `diagnose probe`, `record` and `cassette`; each imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

probe_app = typer.Typer(help="The probes and what they cost.", rich_markup_mode=None)
cassette_app = typer.Typer(help="Recorded machines.", rich_markup_mode=None)

Format = Annotated[str, typer.Option("--format", "-f", help="text, json or md")]


@probe_app.command("list")
def probe_list(format_: Format = "text") -> None:
    """All probes: what they read, what they cost, the command to run."""
    from . import catalogue_commands as c

    c.probe_list(format_)


@probe_app.command("run")
def probe_run(
    name: Annotated[str, typer.Argument(help="a name from `diagnose probe list`")],
    allow: Annotated[str, typer.Option("--allow", help="read, light or load")] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", help="a running server")] = "",
    command: Annotated[str, typer.Option("--command", help="the program to run or profile")] = "",
    kernel: Annotated[str, typer.Option("--kernel", help="kernel name (regex, for ncu)")] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="keep the captures in this cassette folder")] = "",
) -> None:
    """Run one probe here and print what it captured, masked."""
    from .record import probe_run as go

    said = {"endpoint": endpoint, "command": command, "kernel": kernel}
    raise typer.Exit(go(name, allow, {k: v for k, v in said.items() if v}, output))


@probe_app.command("new")
def probe_new(
    name: Annotated[str, typer.Argument(help="lower-case letters, digits and _")],
    output: Annotated[str, typer.Option("--output", "-o", help="the folder to write")] = "",
) -> None:
    """Write a plugin that works, to start from: reader, collector, signal, cause, test."""
    from .probe_new import new

    raise typer.Exit(new(name, output))


def record_command(
    output: Annotated[str, typer.Option("--output", "-o", help="folder, or .zip, to write")] = "machine.cassette",
    playbook: Annotated[str, typer.Option("--playbook", help="only what this playbook reads")] = "",
    symptom: Annotated[str, typer.Option("--symptom", help="what was slow, kept with the recording")] = "",
    allow: Annotated[str, typer.Option("--allow", help="heaviest probes to record: read, light, load")] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", help="a running server to record too")] = "",
    command: Annotated[str, typer.Option("--command", help="the program to run or profile")] = "",
    print_script: Annotated[bool, typer.Option("--print-script", help="a shell script that records by hand")] = False,
) -> None:
    """Record this machine's state into a cassette: bug report, evaluation case and drill in one file."""
    from . import record as r

    if print_script:
        raise typer.Exit(r.print_script(playbook))
    params = {k: v for k, v in {"endpoint": endpoint, "command": command}.items() if v}
    raise typer.Exit(r.record(output, playbook, symptom, allow, params))


@cassette_app.command("show")
def cassette_show(path: Annotated[str, typer.Argument(help="folder or zip")]) -> None:
    """What a cassette holds, and what could not be captured."""
    from .record import show

    raise typer.Exit(show(path))


@cassette_app.command("diff")
def cassette_diff(
    first: Annotated[str, typer.Argument(help="folder or zip")],
    second: Annotated[str, typer.Argument(help="folder or zip")],
) -> None:
    """What differs between two recordings; exit 1 when something does."""
    from .record import diff

    raise typer.Exit(diff(first, second))


@cassette_app.command("redact")
def cassette_redact(
    path: Annotated[str, typer.Argument(help="a cassette: folder or zip")],
    output: Annotated[str, typer.Option("--output", "-o", help="folder, or .zip, to write")],
    word: Annotated[list[str] | None, typer.Option("--word", help="a further word to take out; repeat")] = None,
) -> None:
    """A copy that is masked again by today's rules, with further words taken out."""
    from .record import redact

    raise typer.Exit(redact(path, word or [], output))
