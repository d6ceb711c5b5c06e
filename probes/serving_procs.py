"""CPU of server processes over a run: JSON lines ``{"t":…, "procs": [{"name", "cpu", "affinity"}]}`` and `top` rows.

Of a series a process gets its median over the samples in which the engine works: a start-up, an import or the bench
client's own beginning keeps a core busy for a moment and says nothing about the load. One sample, or no engine seen at
work: the busiest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader
from diagnose.serving_roles import ENGINE, SERVING

from .facts import fact

# PID USER PR NI VIRT RES SHR S %CPU %MEM TIME+ COMMAND
_TOP = regex(
    r"^\s*\d+\s+\S+\s+(?:rt|-?\d+)\s+-?\d+\s+\S+\s+\S+\s+\S+\s+[A-Z]\s+(?P<cpu>\d+(?:\.\d+)?)\s+[\d.]+\s+\S+\s+(?P<name>.+?)\s*$"
)
# pidstat: TIME [AM|PM] UID PID %usr %system %guest %wait %CPU CPU Command
_PIDSTAT = regex(
    r"^\s*(?:[\d:]+|Average:)(?:\s+[AP]M)?\s+\d+\s+\d+(?:\s+[\d.]+){3,4}\s+(?P<cpu>\d+(?:\.\d+)?)\s+(?:\d+|-)\s+(?P<name>\S.*?)\s*$"
)
WORKS = 20  # percent of a core from which an engine has requests


def _sustained(samples: list[tuple[float, Line, str]], loaded: set[int]) -> tuple[float, Line, str]:
    """The sample that stands for a process: the upper median under load, the busiest where no load was seen."""
    under = sorted((s for s in samples if s[1].number in loaded), key=lambda s: s[0])
    return under[len(under) // 2] if len(under) > 2 else max(samples, key=lambda s: s[0])


class ServingProcsReader:
    """The busiest reading of each process, and the cores it may use."""

    name = "serving_procs"
    needles: tuple[bytes, ...] = (b'"procs"', b"%CPU")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Yield at most eight processes, busiest first."""
        best: dict[str, tuple[float, Line, str]] = {}
        series: dict[str, list[tuple[float, Line, str]]] = {}
        loaded: set[int] = set()  # lines in which an engine works
        cores: dict[str, tuple[int, Line]] = {}
        for line in doc.lines():
            text = line.text
            if text.startswith("{") and '"procs"' in text:
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError):
                    doc.lines_skipped += 1
                    continue
                for proc in row.get("procs") or []:
                    if not isinstance(proc, dict) or not isinstance(proc.get("cpu"), int | float):
                        continue
                    name = f"{proc.get('name', '?')} {proc.get('pid', '')}".strip()
                    series.setdefault(name, []).append((float(proc["cpu"]), line, f'"cpu": {proc["cpu"]}'))
                    if proc["cpu"] >= WORKS and ENGINE.search(name):
                        loaded.add(line.number)
                    if isinstance(proc.get("affinity"), int):
                        cores.setdefault(name, (proc["affinity"], line))
                continue
            hit = _TOP.match(text) or _PIDSTAT.match(text)
            if hit and SERVING.search(hit.group("name")):
                name = hit.group("name")[:60]
                if name not in best or float(hit.group("cpu")) > best[name][0]:
                    best[name] = (float(hit.group("cpu")), line, hit.group("cpu"))
        best |= {name: _sustained(samples, loaded) for name, samples in series.items()}
        for name, (cpu, line, around) in sorted(best.items(), key=lambda kv: -kv[1][0])[:8]:
            yield fact(doc, line, "serving.proc.cpu", cpu, "count", around=around, label=name)
            if name in cores:
                yield fact(
                    doc,
                    cores[name][1],
                    "serving.proc.affinity",
                    float(cores[name][0]),
                    "count",
                    around='"affinity"',
                    label=name,
                )


READERS: list[Reader] = [ServingProcsReader()]
