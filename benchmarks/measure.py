"""CPU seconds and peak memory of a piece of work, each in a process of its own so that peaks do not mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# around any program: what it and its children used
_AROUND = (
    "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE);"
    "use = resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(json.dumps([use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, done.returncode, done.stdout.decode()]))"
)


@dataclass(frozen=True)
class Cost:
    """CPU seconds (median and least of the runs), the least peak in MiB, what the last run printed."""

    seconds: float
    least: float
    mib: float
    said: str


def cost(command: Sequence[str], runs: int = 1, env: Mapping[str, str] | None = None) -> Cost:
    """What a program costs, children and interpreter start included."""
    seen = []
    for _ in range(runs):
        got = subprocess.run(
            [sys.executable, "-c", _AROUND, *command], capture_output=True, text=True, check=True, env=env
        )
        seconds, mib, status, said = json.loads(got.stdout)
        if status:
            raise SystemExit(f"{' '.join(command)[:200]} ended with {status}\n{got.stderr[-2000:]}")
        seen.append((seconds, mib, said))
    times = [s for s, _, _ in seen]
    return Cost(median(times), min(times), min(m for _, m, _ in seen), seen[-1][2])


def warm() -> tuple[dict[str, str], tempfile.TemporaryDirectory[str]]:
    """An environment in which bytecode is kept, as it is for an installed tool, and the folder it is kept in."""
    folder = tempfile.TemporaryDirectory()
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": folder.name}, folder


# in the child: the work alone, without what starting and importing cost
_READ = """
import json, pathlib, resource, sys, time
from diagnose.document import Document
from diagnose.gather import Gathered, matching, read_document, scanner
from diagnose.plugin import readers
name, place = sys.argv[1], pathlib.Path(sys.argv[2])
doc = Document(place.name, lambda: place.open("rb"), place.stat().st_size, "")
matching(Document.of("warm up", b"NCCL INFO")), scanner()
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()
if name == "whole":
    out = Gathered(); read_document(doc, out); found = out.facts
else:
    found = list(next(r for r in readers()[0] if r.name == name).parse(doc))
spent = time.process_time() - begin
print(json.dumps([spent, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(found),
                  {f.signal: f.value for f in found if not f.subject.label} if name != "whole" else {}]))
"""


@dataclass(frozen=True)
class Read:
    """CPU seconds of reading alone, MiB before and at the peak, facts found, those without a label by signal."""

    seconds: float
    before: float
    mib: float
    facts: int
    values: dict[str, object]


def read(reader: str, place: os.PathLike[str] | str) -> Read:
    """What one reader costs on one file; `whole` means every matching reader and the marks."""
    return Read(*json.loads(cost([sys.executable, "-c", _READ, reader, str(place)]).said))


NAIVE = """
import json, re, resource, sys, time
pattern, place = re.compile(sys.argv[1]), sys.argv[2]
begin, rows = time.process_time(), []
with open(place, errors="replace") as lines:
    for line in lines:
        if hit := pattern.match(line):
            rows.append(hit.groupdict())
print(json.dumps([time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(rows)]))
"""


def naive(pattern: str, place: os.PathLike[str] | str) -> tuple[float, float, int]:
    """CPU seconds, peak MiB and rows of one regular expression a line, one dictionary a match."""
    seconds, mib, rows = json.loads(cost([sys.executable, "-c", NAIVE, pattern, str(place)]).said)
    return seconds, mib, rows
