"""Throughput on a long NCCL log beside naive ways to read it: ``python benchmarks/nccl_log.py [LOG] [--megabytes 50]``.

Without a log one is made: the lines a job of many ranks prints at start, each rank its own.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from diagnose.probes.nccl_log import NcclLogReader

from diagnose.document import Document
from diagnose.gather import Gathered, matching, read_document, scanner

LINES = (
    "node{n}:{p}:{p} [{g}] NCCL INFO NCCL_IB_HCA set by environment to mlx5_{g}",
    "node{n}:{p}:{p} [{g}] NCCL INFO NET/IB : Using [0]mlx5_{g}:1/IB [RO]; OOB eth0:10.0.{n}.{g}<0>",
    "node{n}:{p}:{p} [{g}] NCCL INFO comm 0x7f{p:x} rank {r} nRanks 512 nNodes 64 localRanks 8 localRank {g} MNNVL 0",
    "node{n}:{p}:{p} [{g}] NCCL INFO Channel {c:02d}/0 : {r}[{g}] -> {q}[{h}] via P2P/CUMEM",
    "node{n}:{p}:{p} [{g}] NCCL INFO Channel {c:02d}/0 : {r}[{g}] -> {q}[{h}] [send] via NET/IB/{g}/GDRDMA",
    "node{n}:{p}:{p} [{g}] NCCL INFO AllReduce: {b} Bytes -> Algo RING proto SIMPLE channel{{Lo..Hi}}={{0..{c}}}",
    "node{n}:{p}:{p} [{g}] NCCL INFO Trees [{c}] {q}/-1/-1->{r}->{g} [1] {q}/-1/-1->{r}->{h}",
)
NAIVE = re.compile(
    r"^(?P<host>\S+?):(?P<pid>\d+):(?P<tid>\d+) \[(?P<gpu>\d+)\] NCCL (?P<level>INFO|WARN|TRACE) (?P<text>.*)$"
)


def make(place: Path, megabytes: int) -> None:
    """Write a log of about the given size."""
    with place.open("w") as out:
        turn = 0
        while out.tell() < megabytes * 1_000_000:
            for rank in range(512):
                n, g = divmod(rank, 8)
                values = {"n": n, "g": g, "h": (g + 1) % 8, "r": rank, "q": (rank + 1) % 512, "p": 9000 + rank}
                out.writelines(f"{x.format(**values, c=turn % 32, b=1 << turn % 30)}\n" for x in LINES)
            turn += 1


def naive(place: Path) -> int:
    """One regular expression a line, one dictionary a line."""
    with place.open(errors="replace") as lines:
        return sum(1 for line in lines if (hit := NAIVE.match(line)) and hit.groupdict())


def grep(place: Path) -> int:
    """`grep -c`, for scale."""
    got = subprocess.run(["grep", "-c", "via NET", place], capture_output=True, text=True, check=False)
    return int(got.stdout)


def marks(doc: Document) -> int:
    """The catalogue's marks over every line."""
    return sum(1 for _ in scanner().scan(doc))


def whole(doc: Document) -> int:
    """Every matching reader and the marks."""
    out = Gathered()
    read_document(doc, out)
    return len(out.facts)


def timed(what: str, size: int, work: Callable[[], int]) -> None:
    """Print CPU seconds, children included, and MB a second."""
    own, sub = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    made = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = time.process_time() - own + after.ru_utime + after.ru_stime - sub.ru_utime - sub.ru_stime
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:38s} {spent:6.2f} CPU s {size / 1e6 / max(spent, 1e-3):8.1f} MB/s {peak:5.0f} MiB peak  {made} found")


def main() -> None:
    """Read one log in every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.log or Path(folder) / "nccl.log"
        if options.log is None:
            make(place, options.megabytes)
        doc = Document(place.name, lambda: place.open("rb"), place.stat().st_size, "")
        matching(Document.of("warm up", b"NCCL INFO"))
        scanner()
        timed("grep -c (reference)", doc.size, lambda: grep(place))
        timed("a regular expression a line (reference)", doc.size, lambda: naive(place))
        timed("reader nccl_log", doc.size, lambda: sum(1 for _ in NcclLogReader().parse(doc)))
        timed("marks", doc.size, lambda: marks(doc))
        timed("all readers and marks", doc.size, lambda: whole(doc))


if __name__ == "__main__":
    main()
