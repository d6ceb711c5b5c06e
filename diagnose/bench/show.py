"""Results for a reader: one run in full with its definitions, several as a table, and files that others can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..units import percent
from .plan import Saturation
from .records import DEFINITIONS, Result, dump

STATS = ("mean", "p50", "p90", "p95", "p99")
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2EL"}


def write(folder: Path, result: Result) -> Path:
    """One file a run, and what was recorded beside it; the name is that of the load."""
    folder.mkdir(parents=True, exist_ok=True)
    name = str(result.data.get("label") or "result")
    path = folder / f"{name}.json"
    path.write_text(dump(result.data), "utf-8")
    for ending, text in result.files.items():
        (folder / f"{name}.{ending}").write_text(text, "utf-8")
    return path


def figure(value: Any, digits: int = 2) -> str:
    """A number as people read it; a dash where there is none."""
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "-"


def verdict(result: Result) -> str:
    """One line on whether the run can be believed."""
    check = result.data.get("self_check")
    if not isinstance(check, dict):
        return f"self-check: none, {result.data.get('backend', 'this tool')} gives no account of itself"
    lag, loop = check["send_lag_ms"], check["loop_lag_ms"]
    seen = [
        f"left late p99 {figure(lag['p99'])} ms" if lag else "",
        f"loop p99 {figure(loop['p99'])} ms" if loop else "",
    ]
    text = ", ".join(s for s in [*seen, f"CPU {percent(check['cpu_of_one_core'])} of a core"] if s)
    if check["valid"]:
        return f"self-check: valid ({text}; bound {check['bound_ms']:.2f} ms)"
    return f"self-check: INVALID, measure elsewhere or less: {'; '.join(check['reasons'])}"


def remarks(result: Result) -> list[str]:
    """What a reader must know before using the figures."""
    data = result.data
    acc = data.get("accounting") or {}
    out = []
    if result.died:
        out.append(f"stopped early: {result.died}; {acc.get('not_sent', 0)} requests were never sent")
    if result.interrupted:
        out.append(f"interrupted: partial, {acc.get('not_sent', 0)} requests were never sent")
    if acc.get("failures"):
        kinds = ", ".join(f"{n} x {kind}" for kind, n in acc["failures"].items())
        out.append(f"failures: {kinds}" + (f"; first: {acc['first_error']}" if acc.get("first_error") else ""))
    if acc.get("warmup_failed"):
        out.append(f"{acc['warmup_failed']} warm-up requests failed")
    if acc.get("held_by_concurrency"):
        out.append(
            f"{acc['held_by_concurrency']} requests waited at the client for --concurrency {data['max_concurrency']}"
        )
    if acc.get("shorter_than_asked"):
        out.append(
            f"{acc['shorter_than_asked']} answers are shorter than the {data['load']['output']} tokens asked for"
        )
    if acc.get("tokens_from") == "chunks":
        out.append("output tokens are chunks: the server sends no usage")
    elif (acc.get("tokens_per_chunk") or 1.0) > 1.05:
        out.append(f"{acc['tokens_per_chunk']:.2f} tokens a chunk: ITL is a gap between chunks, not tokens")
    if acc.get("cached_prompt_tokens"):
        share = acc["cached_prompt_tokens"] / max(1, data["total_input_tokens"])
        out.append(f"the server took {percent(share)} of the prompt tokens from its prefix cache")
    if sizing := data.get("prompt_sizing"):
        span = acc.get("prompt_tokens")
        seen = f"; the server saw {span['min']} to {span['max']}" if span else ""
        out.append(f"prompt length: {sizing['method']}{seen}")
    server = data.get("server") or {}
    if "client_minus_server_ttft_ms" in server:
        out.append(f"mean TTFT, client minus server: {figure(server['client_minus_server_ttft_ms'])} ms")
    return out


def rows(result: Result) -> list[tuple[str, ...]]:
    """Latencies of one run, in ms, each with its definition."""
    data = result.data
    out: list[tuple[str, ...]] = [("ms", *STATS, "definition")]
    for key, name in NAMES.items():
        definition = DEFINITIONS[key] if data.get("backend") == "diagnose" else f"as {data.get('backend')} defines it"
        out.append((name, *(figure(data.get(f"{s}_{key}_ms")) for s in STATS), definition))
        due = (data.get("from_schedule") or {}).get(key)
        if due:
            out.append((f"{name} from due", *(figure(due.get(s)) for s in STATS), DEFINITIONS["from_schedule"]))
    return out


def totals(result: Result) -> list[tuple[str, str, str]]:
    """Counts and throughput with their definitions."""
    data = result.data
    own = data.get("backend") == "diagnose"
    window = data.get("steady")
    out = [
        ("completed", f"{data.get('completed')} of {data.get('num_prompts')}, {data.get('failed')} failed", ""),
        ("duration", f"{figure(data.get('duration'))} s", ""),
        (
            "requests",
            f"{figure(data.get('request_throughput'))} req/s",
            DEFINITIONS["request_throughput"] if own else "",
        ),
        (
            "output",
            f"{figure(data.get('output_throughput'), 1)} tokens/s",
            DEFINITIONS["output_throughput"] if own else "",
        ),
    ]
    if window:
        out.append(("output, steady", f"{figure(window['output_tokens_per_s'], 1)} tokens/s", DEFINITIONS["steady"]))
    if data.get("slo"):
        kept = data["slo"]
        limits = ", ".join(f"{k} {v:g} ms" for k, v in kept["limits_ms"].items())
        seen = f"{figure(data['request_goodput'])} req/s, {kept['met']} of {kept['of']}"
        out.append(("goodput", seen, f"within {limits}; {DEFINITIONS['goodput']}"))
    return out


def summary_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a run; an exclamation mark stands behind a run that is not valid."""
    out: list[tuple[str, ...]] = [
        ("run", "ok", "req/s", "out tok/s", "TTFT p50, p99 ms", "TPOT p50, p99 ms", "goodput req/s")
    ]
    for r in results:
        d = r.data
        out.append((
            f"{d.get('label')}{'' if r.valid else ' !'}",
            f"{d.get('completed')}/{(d.get('completed') or 0) + (d.get('failed') or 0)}",
            figure(d.get("request_throughput")), figure(d.get("output_throughput"), 1),
            f"{figure(d.get('p50_ttft_ms'), 1)}, {figure(d.get('p99_ttft_ms'), 1)}",
            f"{figure(d.get('p50_tpot_ms'))}, {figure(d.get('p99_tpot_ms'))}", figure(d.get("request_goodput")),
        ))  # fmt: skip
    return out


def saturation_text(found: Saturation, attain: float) -> str:
    """The search in one line."""
    if found.taken is None and not found.trials:
        return f"saturation: not known: {found.end}"
    taken = f"{found.taken:.3g} req/s" if found.taken else "no rate tried"
    refused = f", {found.refused:.3g} req/s is too much" if found.refused else ""
    return f"saturation: {taken} is taken with {percent(attain)} of requests within the SLO{refused} ({found.end})"


def _cells(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)


def markdown(results: Sequence[Result], found: Saturation | None, attain: float) -> str:
    """The report as Markdown."""
    parts = []
    if found is not None:
        parts.append(saturation_text(found, attain))
    if len(results) == 1:
        parts += [_cells([("", "value", "definition"), *totals(results[0])]), _cells(rows(results[0]))]
    elif results:
        parts.append(_cells(summary_rows(results)))
    for r in results:
        lead = f"{r.data.get('label')}: " if len(results) > 1 else ""
        parts.append("\n".join(f"- {lead}{text}" for text in [verdict(r), *remarks(r)]))
    if len(results) > 1:
        parts.append("\n".join(f"- {k}: {v}" for k, v in DEFINITIONS.items()))
    return "\n\n".join(parts)


def text(results: Sequence[Result], found: Saturation | None, attain: float) -> None:
    """The report on the terminal."""
    from rich.table import Table

    from ..screen import Terminal

    console = Terminal(highlight=False, markup=False)

    def table(lines: Sequence[Sequence[str]], head: bool) -> None:
        shown = Table(box=None, show_header=head, pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(lines[0]):
            plain = not number or not head
            shown.add_column(name, justify="left" if plain else "right", no_wrap=not number, overflow="fold")
        for line in lines[1:] if head else lines:
            shown.add_row(*line)
        console.print(shown)

    if found is not None:
        console.print(saturation_text(found, attain))
        for trial in found.trials:
            console.print(f"  {trial.rate:.3g} req/s: {'taken' if trial.taken else 'too much'}: {trial.why}")
    if len(results) == 1:
        table([(a, b) for a, b, _ in totals(results[0])], head=False)
        for name, _, definition in totals(results[0]):
            if definition:
                console.print(f"  {name}: {definition}", style="dim")
        short = [line[:-1] for line in rows(results[0])]
        console.print()
        table(short, head=True)
        for definition in dict.fromkeys(line[-1] for line in rows(results[0])[1:]):
            names = [line[0] for line in rows(results[0])[1:] if line[-1] == definition]
            console.print(f"  {', '.join(names)}: {definition}", style="dim")
    elif results:
        table(summary_rows(results), head=True)
        for key in ("ttft", "tpot", "output_throughput", "goodput"):
            console.print(f"  {key}: {DEFINITIONS[key]}", style="dim")
    if results:
        console.print(f"  percentiles: {DEFINITIONS['percentiles']}; a dash: too few samples for it", style="dim")
    for r in results:
        lead = f"{r.data.get('label')}: " if len(results) > 1 else ""
        for remark in [verdict(r), *remarks(r)] if len(results) == 1 or not r.valid or r.died else []:
            console.print(lead + remark)
