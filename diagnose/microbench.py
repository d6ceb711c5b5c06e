"""`diagnose microbench`: measured / limit / ratio of this GPU, each healthy kernel beside its pathological twin."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from . import __version__, nvml
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, UsageError
from .runner import run as run_program
from .units import percent

SCHEMA = "diagnose.microbench/v1"
START = 20.0  # seconds for a driver to come up and for the first compilation
FORMATS = ("text", "json", "md")
LEVELS = ("", "read", "light", "load")
WORKER = "diagnose.probes.microbench"
Row = dict[str, Any]


def entries() -> dict[str, Any]:
    """The benchmarks by name, in the order in which they run."""
    found: dict[str, Any] = import_module(WORKER).ENTRIES
    return found


def _physical(gpu: int) -> int | None:
    """Index that NVML gives the GPU that a CUDA program calls `gpu`, or None if it is hidden."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return gpu
    named = [part.strip() for part in shown.split(",") if part.strip()]
    if gpu >= len(named):
        return None
    return int(named[gpu]) if named[gpu].isdigit() else gpu  # a UUID: the worker finds it, NVML's index is not known


def missing(gpu: int) -> str:
    """Why nothing can be measured here and what would change that, or an empty text."""
    try:
        count = nvml.count()
    except nvml.NvmlGap as gap:
        return f"no NVIDIA GPU here ({gap}); available on a host with an NVIDIA GPU and its driver"
    index = _physical(gpu)
    if index is None:
        shown = os.environ["CUDA_VISIBLE_DEVICES"]
        return f"GPU {gpu} is hidden by CUDA_VISIBLE_DEVICES={shown}; available when that is unset"
    if index >= count:
        return f"there is no GPU {gpu} here: {count} present; choose one with --gpu"
    for module, package in (("cuda", "cuda-core"), ("cuda.core", "cuda-core"), ("cuda.bindings", "cuda-bindings")):
        if find_spec(module) is None:
            return f"{package} is not installed; available after: pip install cuda-core cuda-bindings nvidia-cuda-nvrtc"
    return ""


def neighbours(gpu: int) -> list[int]:
    """Processes that compute on that GPU now."""
    try:
        with nvml.opened() as api:
            handle = api.nvmlDeviceGetHandleByIndex(_physical(gpu) or 0)
            return [int(p.pid) for p in api.nvmlDeviceGetComputeRunningProcesses(handle)]
    except nvml.NvmlGap:
        return []


def plan(names: Sequence[str], gpu: int) -> str:
    """What a run would do: seconds, memory, what it disturbs, who computes there now."""
    known = entries()
    seconds = sum(known[n].seconds for n in names)
    memory = max(known[n].memory for n in names)
    disturbs = sorted({known[n].disturbs for n in names if known[n].disturbs})
    others = neighbours(gpu)
    return "\n".join(
        [
            f"would run on GPU {gpu}, about {seconds:.0f} s, at most {memory / 2**30:.1f} GiB and never more than "
            "40 % of its free memory; no setting is changed",
            f"benchmarks: {', '.join(names)}",
            f"disturbs: {'; '.join(disturbs)}",
            f"processes that compute there now: {', '.join(map(str, others)) or 'none'}",
        ]
    )


def choose(only: str) -> list[str]:
    """Names asked for, in running order.

    Raises:
        UsageError: a name is not in the list.
    """
    known = entries()
    wanted = [n.strip() for n in only.split(",") if n.strip()] or list(known)
    for name in wanted:
        if name not in known:
            from .catalogue import near

            raise UsageError(f"no microbenchmark {name!r}", near(name, list(known)) or f"known: {', '.join(known)}")
    return [n for n in known if n in wanted]


def measure(names: Sequence[str], gpu: int) -> dict[str, Any]:
    """Run the benchmarks in a process of their own; one that dies is reported, and the rest run in a new one."""
    known = entries()
    result: dict[str, Any] = {"gpu": None, "rows": [], "failed": [], "skipped": [], "notes": [], "seconds": {}}
    todo = list(names)
    while todo:
        limit = START + sum(3 * known[n].seconds + 5 for n in todo)
        # -P: a folder called diagnose in the working directory must not stand in for the installed package.
        ran = run_program(["python", "-P", "-m", WORKER, str(gpu), *todo], timeout=limit, env={"PYTHONUNBUFFERED": "1"})
        said = len(result["notes"])
        begun, over = _read(ran.output, result)
        end = _last_words(ran.status, ran.cut, result["notes"][said:])
        if begun is None and not over:
            result["failed"].append({"name": "start", "reason": end})
            break
        if begun is not None:
            if not any(f["name"] == begun for f in result["failed"]):
                result["failed"].append({"name": begun, "reason": end})
            over.append(begun)
        todo = [n for n in todo if n not in over]
    _add_ratios(result["rows"])
    return result


def _read(output: bytes, result: dict[str, Any]) -> tuple[str | None, list[str]]:
    """Add a worker's lines to the result; the benchmark it was in when it ended, and those that were over."""
    inside: str | None = None
    over: list[str] = []
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            message = json.loads(line)
            event = message["event"]
        except (ValueError, TypeError, KeyError):
            if line.strip():
                result["notes"].append(line.strip()[:300])
            continue
        if event == "gpu":
            result["gpu"] = result["gpu"] or message["gpu"]
        elif event == "begin":
            inside = message["name"]
        elif event == "row":
            result["rows"].append(message["row"])
        elif event in ("failed", "skipped"):
            result[event].append({"name": message["name"], "reason": message["reason"]})
        elif event == "unavailable":
            result["notes"].append(message["reason"])
        elif event == "end":
            result["seconds"][message["name"]] = message["seconds"]
            over.append(message["name"])
            inside = None
    return inside, over


def _last_words(status: int | None, cut: str | None, said: list[str]) -> str:
    return f"{cut or f'the process ended with status {status}'}: {said[-1] if said else 'it said nothing'}"


def _add_ratios(rows: list[Row]) -> None:
    """How many times slower a pathological row is than its twin."""
    by_name = {r["name"]: r for r in rows}
    for row in rows:
        healthy = by_name.get(row["twin"] or "")
        row["slower"] = None
        if healthy and row["value"] and healthy["value"]:
            ratio = row["value"] / healthy["value"]
            row["slower"] = round(ratio if row["lower_is_better"] else 1 / ratio, 2)


def compare(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Our figures beside another program's of the same run."""
    by_name = {r["name"]: r for r in rows}
    out = []
    for ours, theirs, what in (
        ("copy", "copy_torch", "copy kernel / PyTorch's copy"),
        ("copy", "copy_driver", "copy kernel / the driver's copy"),
    ):
        if ours in by_name and theirs in by_name:
            a, b = by_name[ours]["value"], by_name[theirs]["value"]
            out.append({"what": what, "rows": [ours, theirs], "ratio": round(a / b, 4)})
    return out


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


HEAD = ("what", "measured", "p10-p90", "limit", "ratio", "at clock", "x slower than its twin")


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    unit = "" if row["unit"] == "fraction" else f" {row['unit']}"
    share = "" if row["ratio"] is None else percent(row["ratio"], 1)
    now = "" if row["ratio_now"] is None else f"{percent(row['ratio_now'], 1)} at {row['clock']:.0f} MHz"
    twin = f"{row['slower']:g}x  {row['twin']}" if row["slower"] else ""
    return (
        f"{row['name']}: {row['what']}", _figure(row["value"]) + unit, f"{_figure(row['p10'])}-{_figure(row['p90'])}",
        _figure(row["limit"]) or "-", share, now, twin,
    )  # fmt: skip


def render(result: dict[str, Any], format_: str) -> str:
    """The result as text, Markdown or JSON (one row a line, so that a row can be quoted)."""
    if format_ == "json":
        return _json(result)
    gpu, rows = result["gpu"], [cells(r) for r in result["rows"]]
    table = [HEAD, *rows]
    lines: list[str] = []
    if gpu:
        lines.append(
            f"{gpu['name']}, {gpu['multiprocessors']} SM, driver {gpu['driver']}, highest clocks "
            f"{_figure(gpu['max_sm_mhz'])} / {_figure(gpu['max_memory_mhz'])} MHz"
        )
        if gpu["unknown"]:
            lines.append(f"no limits of the product: {gpu['unknown']}")
    if format_ == "md":
        lines = [*lines, "", "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        lines += ["| " + " | ".join(c.replace("|", "/") for c in row) + " |" for row in rows]
    elif rows:
        widths = [max(len(r[i]) for r in table) for i in range(len(HEAD))]
        lines += ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table]
    lines.append("")
    lines += [f"{c['what']}: {percent(c['ratio'], 1)}" for c in compare(result["rows"])]
    reasons = {r["reason"]: r["name"] for r in reversed(result["rows"]) if r["limit"] is None and r["reason"]}
    lines += [f"no limit for {name} and its like: {reason}" for reason, name in reasons.items()]
    lines += [f"not available here: {f['name']}: {f['reason']}" for f in result["skipped"]]
    lines += [f"not measured: {f['name']}: {f['reason']}" for f in result["failed"]]
    return "\n".join(lines) + "\n"


def _json(result: dict[str, Any]) -> str:
    rows = ",\n  ".join(json.dumps(r, ensure_ascii=False) for r in result["rows"])
    rest = {
        "failed": result["failed"], "skipped": result["skipped"], "compared": compare(result["rows"]),
        "seconds": result["seconds"], "notes": result["notes"],
    }  # fmt: skip
    head = {"schema": SCHEMA, "tool": {"version": __version__}, "status": ["live"], "gpu": result["gpu"]}
    text = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    text.append(f'"rows": [\n  {rows}\n ]')
    text += [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in rest.items()]
    return "{" + ",\n ".join(text) + "}\n"


def listing(format_: str) -> str:
    """All benchmarks with their cost."""
    known = entries().values()
    if format_ == "json":
        rows = [{"name": e.name, "what": e.what, "seconds": e.seconds, "memory_bytes": e.memory,
                 "disturbs": e.disturbs, "footprint": "load"} for e in known]  # fmt: skip
        return json.dumps({"schema": SCHEMA, "benchmarks": rows}, indent=1) + "\n"
    return "".join(f"{e.name:12} {e.seconds:4.0f} s  {e.what}\n" for e in known)


def run(only: str, list_: bool, gpu: int, allow: str, format_: str, output: Path | None) -> int:
    """Measure and print; exit 0 measured, 1 some failed, 2 not allowed, 3 not possible here.

    Raises:
        UsageError: an option has no such value.
    """
    if format_ not in FORMATS:
        raise UsageError(f"unknown format {format_!r}", f"one of {', '.join(FORMATS)}")
    if allow not in LEVELS:
        raise UsageError(f"unknown footprint {allow!r}", "one of read, light, load")
    names = choose(only)
    if list_:
        typer.echo(listing(format_), nl=False)
        return EXIT_OK
    if why := missing(gpu):
        print(f"diagnose: microbench: {why}", file=sys.stderr)
        return EXIT_ERROR
    if allow != "load":
        print(f"diagnose: microbench needs --allow load\n{plan(names, gpu)}", file=sys.stderr)
        return EXIT_INCONCLUSIVE
    result = measure(names, gpu)
    text = render(result, format_)
    if output is not None:
        output.write_text(text, "utf-8")
    else:
        typer.echo(text, nl=False)
    if not result["rows"]:
        reasons = "; ".join(dict.fromkeys(f["reason"] for f in result["failed"]))
        print(f"diagnose: microbench: nothing measured: {reasons}", file=sys.stderr)
        return EXIT_ERROR
    for failed in result["failed"]:
        print(f"diagnose: microbench: {failed['name']}: {failed['reason']}", file=sys.stderr)
    return EXIT_FINDING if result["failed"] else EXIT_OK
