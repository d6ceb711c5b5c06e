"""One piece of work in a process of its own, ours or the reference beside it: ``python benchmarks/work.py NAME FILE``.

Prints a JSON object of figures; `run` compares those that both sides print.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

_VIA = re.compile(r"NCCL INFO Channel \d+/\d+ : (\d+)\[\w+\] -> (\d+)\[\w+\](?: \[(?:send|receive)\])? via (.*)$")
_ENV = re.compile(r"NCCL INFO (NCCL_\w+) set by environment to (\S+)")


def _gathered(place: Path) -> list[tuple[str, object, str | None, int]]:
    from diagnose.document import Document
    from diagnose.gather import Gathered, read_document

    out = Gathered()
    read_document(Document(place.name, lambda: place.open("rb"), place.stat().st_size, ""), out)
    return [(f.signal, f.value, f.subject.label, f.count) for f in out.facts]


def log(place: Path) -> dict[str, float]:
    """The NCCL log by every reader and all marks."""
    facts = _gathered(place)
    names: Counter[tuple[str | None, object]] = Counter()
    for signal, value, label, count in facts:
        if signal == "env.var":  # said by two readers
            names[label, value] = max(names[label, value], count)
    return {
        "lines with a transport": sum(n for s, _, _, n in facts if s == "nccl.transport"),
        "lines with a variable": names.total(),
    }


def log_naive(place: Path) -> dict[str, float]:
    """Every line through two regular expressions, every hit counted in a dictionary."""
    seen: Counter[tuple[str, ...]] = Counter()
    with place.open(errors="replace") as lines:
        for line in lines:
            if hit := _VIA.search(line) or _ENV.search(line):
                seen[hit.groups()] += 1
    return {
        "lines with a transport": sum(n for k, n in seen.items() if len(k) == 3),
        "lines with a variable": sum(n for k, n in seen.items() if len(k) == 2),
    }


def lines(place: Path) -> dict[str, float]:
    """A log of no known program by every reader and all marks."""
    return {"facts": len(_gathered(place))}


def lines_naive(place: Path) -> dict[str, float]:
    """One regular expression of eight words a line."""
    seen = 0
    wanted = re.compile("timeout|timed out|out of memory|NCCL WARN|Xid|Traceback|unreachable|No space", re.IGNORECASE)
    with place.open(errors="replace") as text:
        for line in text:
            seen += wanted.search(line) is not None
    return {"lines with a word": seen}


def table(place: Path) -> dict[str, float]:
    """The nccl-tests table by its reader."""
    from diagnose.probes.nccl_tests import NcclTestsReader

    from diagnose.document import Document

    facts = NcclTestsReader().parse(Document(place.name, lambda: place.open("rb"), place.stat().st_size, ""))
    return {"highest busbw": max(float(f.value or 0) for f in facts if f.signal == "nccl_tests.busbw")}


def table_naive(place: Path) -> dict[str, float]:
    """Rows split at blanks, a dictionary a row."""
    rows = []
    with place.open() as lines:
        for line in lines:
            cells = line.split()
            if len(cells) == 13 and cells[0].isdecimal():
                rows.append({"size": int(cells[0]), "out": float(cells[7]), "in": float(cells[11])})
    return {"highest busbw": max(max(r["out"], r["in"]) for r in rows)}


def trace(place: Path) -> dict[str, float]:
    """The Kineto trace by its reader."""
    from diagnose.probes.kineto import KinetoReader

    from diagnose.document import Document

    facts = list(KinetoReader().parse(Document(place.name, lambda: place.open("rb"), place.stat().st_size, "")))
    share = max(float(f.value or 0) for f in facts if f.signal == "trace.kernel_share")
    return {"largest kernel's share": round(share, 3)}


def trace_naive(place: Path) -> dict[str, float]:
    """`json.loads`, then one sum a kernel."""
    spent: Counter[str] = Counter()
    for event in json.loads(place.read_bytes())["traceEvents"]:
        if event.get("cat") == "kernel":
            spent[event["name"]] += event["dur"]
    return {"largest kernel's share": round(max(spent.values()) / sum(spent.values()), 3)}


def trace_hta(place: Path) -> dict[str, float]:
    """HolisticTraceAnalysis: temporal and kernel breakdown."""
    from hta.trace_analysis import TraceAnalysis

    made = TraceAnalysis(trace_files={0: str(place)}, trace_dir=str(place.parent), include_last_profiler_step=True)
    made.get_temporal_breakdown(visualize=False)
    _, kernels = made.get_gpu_kernel_breakdown(visualize=False, duration_ratio=1.0, num_kernels=1000)
    spent = kernels[kernels["kernel_type"] != "MEMORY"]["sum (us)"]  # whole microseconds
    return {"largest kernel's share": round(float(spent.max() / spent.sum()), 3)}


def audits(folder: Path) -> dict[str, float]:
    """All audits merged and ranked."""
    from diagnose import audit, fleet

    merged = fleet.merged(fleet.read_all(fleet.entries(folder), audit.Options()), [])
    return {"nodes": len(list(folder.iterdir())), "named": len({o.node for o in merged.outliers})}


def audits_naive(folder: Path) -> dict[str, float]:
    """`json.load` of each, and a table of all readings as CSV in memory."""
    import io

    out = csv.writer(io.StringIO())
    files = list(folder.iterdir())
    for place in files:
        for reading in json.loads(place.read_text())["readings"]:
            out.writerow((place.stem, reading["signal"], reading["subject"], reading["value"]))
    return {"nodes": len(files)}


def cases(_: Path) -> dict[str, float]:
    """Every 40th of the shipped cases through the whole engine."""
    from diagnose.evals.suites import own_cases

    from diagnose.engine import report

    chosen = own_cases()[::40]
    verdicts = Counter(report(c.symptom, c.documents()).verdict for c in chosen)
    return {"cases": len(chosen), "with a cause": verdicts["cause"]}


def cases_naive(_: Path) -> dict[str, float]:
    """The same cases, their texts put into words only."""
    from diagnose.evals.suites import own_cases

    chosen = own_cases()[::40]
    words = Counter(w for c in chosen for w in re.findall(r"\w+", c.text))
    return {"cases": len(chosen), "words": len(words)}


WORK: dict[str, Callable[[Path], dict[str, float]]] = {
    f.__name__: f
    for f in (
        log,
        log_naive,
        lines,
        lines_naive,
        table,
        table_naive,
        trace,
        trace_naive,
        trace_hta,
        audits,
        audits_naive,
        cases,
        cases_naive,
    )
}

if __name__ == "__main__":
    print("\n" + json.dumps(WORK[sys.argv[1]](Path(sys.argv[2]))))
