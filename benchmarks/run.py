"""All benchmarks beside their references, in CPU seconds and peak memory: ``python benchmarks/run.py``.

Each piece of work runs in a process of its own, ours and the reference one after the other on the same made input.
Writes `docs/benchmarks.md` and its picture. `--scale 0.2` makes smaller inputs; `--hta PYTHON` is an interpreter with
HolisticTraceAnalysis, `--torch PYTHON` one with torch; without them those rows are left out and the page says so.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleet_merge
import kineto
import long_logs
import nccl_log
from measure import Cost, cost, warm

from diagnose import __version__, audit
from diagnose.pictures.plot import Axes, Point, lines

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
TRACE = HERE.parent / "tests" / "data" / "kineto" / "healthy_4steps.json"
WORK = str(HERE / "work.py")


@dataclass(frozen=True)
class Side:
    """One command and what it printed."""

    name: str
    cost: Cost

    @property
    def figures(self) -> dict[str, float]:
        """What `work` printed last."""
        last = self.cost.said.strip().splitlines()[-1:]
        return json.loads(last[0]) if last and last[0].startswith("{") else {}


def _beside(mine: float, other: float) -> str:
    if mine == other:
        return f"{mine:g}"
    return f"{mine:g}, there {other:g}" if abs(mine - other) <= 0.03 * abs(other) else f"{mine:g} **and {other:g}**"


def row(what: str, size: str, ours: Side, reference: Side) -> str:
    """A row of the table; figures that both sides print must be equal."""
    mine, other = ours.figures, reference.figures
    same = [k for k in mine if k in other]
    said = "; ".join(f"{k} {_beside(mine[k], other[k])}" for k in same) or "-"
    faster = reference.cost.seconds / max(ours.cost.seconds, 0.01)
    return (
        f"| {what} | {size} | {ours.cost.seconds:.2f} | {ours.cost.mib:.0f} | {reference.name} | "
        f"{reference.cost.seconds:.2f} | {reference.cost.mib:.0f} | {faster:.2g} | {said} |"
    )


def table_of(place: Path, megabytes: float) -> None:
    """Tables as nccl-tests prints them, one after the other."""
    draw = random.Random(1)
    off = [draw.uniform(0.95, 1.05) for _ in range(34)]
    with place.open("w") as out:
        while out.tell() < megabytes * 1e6:
            out.write(
                "# nThread 1 nGpus 8 minBytes 1024 maxBytes 8589934592 step: 2(factor) warmup iters: 5 iters: 20\n"
            )
            for power in range(10, 34):
                size = 1 << power
                time = 20 + size / 4e5 * off[power]
                alg = size / time / 1e3
                half = f"{time:8.2f} {alg:7.2f} {alg * 1.75:7.2f}"
                out.write(f"{size:12d} {size // 4:12d}     float     sum      -1 {half}      0 {half}      0\n")
            out.write("# Out of bounds values : 0 OK\n#\n")


def audits_of(folder: Path, nodes: int) -> None:
    """Audits of a recorded machine, varied."""
    draw = random.Random(1)
    folder.mkdir()
    opened = audit.opened([], str(fleet_merge.RECORDED))
    made = json.loads(audit.audit(opened, audit.Options()).model_dump_json(by_alias=True))
    for n in range(nodes):
        (folder / f"node{n:04d}.json").write_text(json.dumps(fleet_merge.varied(made, n, draw)))


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--hta", default="")
    parser.add_argument("--torch", default="")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    env, kept = warm()
    rows: list[str] = []
    left: list[str] = []

    def work(name: str, place: Path, python: str = sys.executable, said: str = "") -> Side:
        return Side(said or name, cost([python, WORK, name, str(place)], env=env))

    def add(made: str) -> None:
        rows.append(made)
        print(made, flush=True)

    with kept, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cost([sys.executable, WORK, "cases", "-"], env=env)  # fills the bytecode cache
        short = Side("ours", cost([sys.executable, "-m", "diagnose.cli", "--help"], 3, env))
        add(
            row(
                "start-up, `--help`",
                "-",
                short,
                Side("bare `python -c pass`", cost([sys.executable, "-c", "pass"], 3, env)),
            )
        )
        if options.torch:
            collect = cost([options.torch, "-m", "torch.utils.collect_env"], 2, env)
            live = cost([sys.executable, "-m", "diagnose.cli", "audit", "--fail-on", "never"], 2, env)
            add(row("facts of this machine", "-", Side("audit", live), Side("`torch.utils.collect_env`", collect)))
        else:
            left.append("`torch.utils.collect_env` (no interpreter with torch was given)")
        place = folder / "nccl.log"
        nccl_log.make(place, max(1, int(50 * options.scale)))
        size = f"{place.stat().st_size / 1e6:.0f} MB"
        ours = work("log", place)
        add(
            row(
                "NCCL log, all readers and marks",
                size,
                ours,
                work("log_naive", place, said="two regular expressions a line"),
            )
        )
        grep = Side("`grep -c`", cost(["grep", "-c", "via NET", str(place)]))
        add(row("the same", size, ours, grep))
        for kind in long_logs.KINDS:
            place = folder / "long.log"
            long_logs.make(place, kind, 64 * options.scale)
            size = f"{place.stat().st_size / 1e6:.0f} MB"
            plain = work("lines_naive", place, said="one regular expression a line")
            add(row(f"log of distinct {kind}, all readers and marks", size, work("lines", place), plain))
        place = folder / "table.txt"
        table_of(place, 5 * options.scale)
        size = f"{place.stat().st_size / 1e6:.0f} MB"
        add(row("nccl-tests tables", size, work("table", place), work("table_naive", place, said="`str.split` a line")))
        place = folder / "trace.json"
        kineto.grown(TRACE.read_bytes(), max(1, int(50 * options.scale)), place)
        size = f"{place.stat().st_size / 1e6:.0f} MB"
        ours = work("trace", place)
        add(row("Kineto trace", size, ours, work("trace_naive", place, said="`json.loads`, one sum a kernel")))
        if options.hta:
            add(row("the same", size, ours, work("trace_hta", place, options.hta, "HolisticTraceAnalysis")))
        else:
            left.append("HolisticTraceAnalysis (no interpreter with it was given)")
        audits_of(folder / "fleet", max(10, int(1000 * options.scale)))
        ours, plain = (
            work("audits", folder / "fleet"),
            work("audits_naive", folder / "fleet", said="`json.loads` of each"),
        )
        add(row("fleet merge, simulated audits", f"{ours.figures['nodes']:g} nodes", ours, plain))
        shutil.rmtree(folder / "fleet")
        ours = work("cases", Path("-"))
        add(
            row(
                "eval cases, whole engine",
                f"{ours.figures['cases']:g}",
                ours,
                work("cases_naive", Path("-"), said="their words counted"),
            )
        )
        every = str(max(1, round(10 / options.scale)))
        steps = json.loads(cost([sys.executable, str(HERE / "steps.py"), every], env=env).said.splitlines()[-1])
        growth = {
            "NCCL log": grown(folder, options.scale, lambda place, size: nccl_log.make(place, max(1, int(size))), work),
            "distinct words": grown(
                folder, options.scale, lambda place, size: long_logs.make(place, "words", size), work, "lines"
            ),
        }
    write(options.out, rows, left, steps, growth)


def grown(
    folder: Path,
    scale: float,
    make: Callable[[Path, float], None],
    work: Callable[[str, Path], Side],
    name: str = "log",
) -> list[tuple[float, Cost]]:
    """A log at growing sizes."""
    out = []
    for megabytes in (5, 10, 20, 40, 80, 160):
        place = folder / "grow.log"
        make(place, megabytes * scale)
        out.append((place.stat().st_size / 1e6, work(name, place).cost))
        print(f"{out[-1][0]:.0f} MB: {out[-1][1].seconds:.2f} CPU s, {out[-1][1].mib:.0f} MiB", flush=True)
    return out


def write(
    folder: Path,
    rows: list[str],
    left: list[str],
    steps: list[dict[str, Any]],
    growth: dict[str, list[tuple[float, Cost]]],
) -> None:
    """The page and its picture."""
    sizes = next(iter(growth.values()))
    axes = Axes("MB of log", "CPU seconds", tuple((x, f"{x:.0f}") for x, _ in sizes))
    series = {
        name: [Point(x, c.seconds, f"{x:.0f} MB: {c.seconds:.2f} s") for x, c in grown]
        for name, grown in growth.items()
    }
    drawn = lines("growth", "CPU time by size of a log", "Lines that rise with the size of the log.", axes, series)
    (folder / "benchmarks-growth.svg").write_text(drawn.file(), "utf-8")
    grew = "\n".join(
        f"| {name} | {x:.0f} | {c.seconds:.2f} | {x / max(c.seconds, 0.01):.0f} | {c.mib:.0f} |"
        for name, grown in growth.items()
        for x, c in grown
    )
    stepped = "\n".join(
        f"| {s['name']} | {s['cases']} | {s['ms']:.2f} | {s['most']:.2f} | {s['reference']} | {s['reference_ms']:.2f} |"
        for s in steps
    )
    missing = f"\nLeft out: {', '.join(left)}.\n" if left else ""
    head = "| work | size | CPU s | MiB | reference | CPU s | MiB | times faster | figures of both |"
    (folder / "benchmarks.md").write_text(
        f"""# Benchmarks

Written by `python benchmarks/run.py` (version {__version__}). CPU seconds of user and system, interpreter
start included, and peak resident memory; each in a process of its own, ours and the reference on the same input in the
same run. A busy machine makes both slower, so compare within a row. Inputs are made, not recorded: they stand for an
amount of work. A figure in bold differs between the two by more than 3 %
(HolisticTraceAnalysis rounds each event down to whole microseconds).
{missing}
{head}
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The readers quote every figure and read many formats at once; a naive reference reads the one it was written for.

## Steps of a diagnosis

CPU milliseconds a shipped case, in one process after a first case; the report as English.

| step | cases | median | 95th percentile | reference | median |
|---|---|---|---|---|---|
{stepped}

## Growth with the size of the input

| log | MB | CPU s | MB/s | peak MiB |
|---|---|---|---|---|
{grew}

![CPU seconds by size of the log](benchmarks-growth.svg)
""",
        "utf-8",
    )


if __name__ == "__main__":
    main()
