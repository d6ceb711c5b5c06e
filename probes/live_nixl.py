"""NIXL on this machine: real transfers between two processes, through host memory and, with a GPU, through its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import groupby

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document, Line
from diagnose.host import GPU_NODES, Host
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided
from .nixl_worker import COLUMNS, HEAD, PAIRS

_WORKER = ["python", "-P", "-m", "diagnose.probes.nixl_worker", "--memory"]
_ENV = {"NIXL_LOG_LEVEL": "WARN"}
_ROW = regex(
    r"^\s*((?:DRAM|VRAM)(?:>(?:DRAM|VRAM))?)\s+(\w+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\d+)\s*$"
)
_PLACE = regex(r"^# from and to: GPU (\d+) and GPU (\d+)$")
_END = regex(r"^# (data arrived|failed): (.*)$")


def _ready(host: Host) -> str | None:
    if importlib.util.find_spec("nixl") is None:
        return "the nixl wheels are not installed in this Python"
    return None if importlib.util.find_spec("numpy") else "nixl needs numpy, which is not installed in this Python"


def _kinds(host: Host) -> list[str]:
    there = any(host.glob(pattern) for pattern in GPU_NODES[:2])
    return list(PAIRS) if there else ["DRAM"]


def _bench(host: Host) -> Iterator[Collected]:
    for kind in _kinds(host):
        ran = host.run([*_WORKER, kind], timeout=60, env=_ENV)
        if HEAD.encode() in ran.output:
            yield Capture.of("nixl.bench", ran, kind)
        else:
            last = ran.output.decode("utf-8", "replace").strip().splitlines()
            yield NotCaptured("nixl.bench", (last[-1] if last else f"exit {ran.status}")[:200], kind)


class SweepReader:
    """The table of our own sweep: cost of a descriptor and rate, by block size and by how blocks are handed over."""

    name = "nixl_sweep"
    needles: tuple[bytes, ...] = (HEAD.encode(),)

    @staticmethod
    def owns(doc: Document) -> bool:
        """Nothing else reads a table whose rows differ on purpose: one that is slower is no finding."""
        return doc.head.startswith(HEAD.encode()) and COLUMNS[2].encode() in doc.head

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nixl.sweep.*` by case, and what batching saves at each block size."""
        rows: list[tuple[int, str, Fact]] = []
        for line in doc.lines():
            if (hit := _ROW.match(line.text)) is not None:
                made = self._row(doc, line, hit.groups())
                yield from made
                rows.append((int(hit[3]), f"{hit[1]} {hit[2]}" if hit[4] == hit[5] or hit[5] == "1" else "", made[0]))
            elif (place := _PLACE.match(line.text)) is not None:
                other = "two GPUs" if place[1] != place[2] else "one GPU"
                yield Fact("nixl.sweep.between", other, spans=(doc.span(line),), status=doc.status)
            elif (end := _END.match(line.text)) is not None:
                yield Fact("nixl.sweep.end", end[2][:200], None, Subject(label=end[1]), (doc.span(line),),
                           status=doc.status)  # fmt: skip
        for size, group in groupby(sorted(rows, key=lambda r: r[0]), key=lambda r: r[0]):
            by_way = {way: fact for _, way, fact in group}
            for kind in PAIRS:
                one, all_ = by_way.get(f"{kind} one_by_one"), by_way.get(f"{kind} batched")
                if one is not None and all_ is not None and all_.value:
                    yield divided("nixl.sweep.batching", (one, all_), subject=Subject(label=f"{kind}|{size}"))

    @staticmethod
    def _row(doc: Document, line: Line, cells: tuple[str, ...]) -> list[Fact]:
        kind, how, size, _, per, _, cost, rate, post = cells
        subject, span = Subject(label=f"{kind}|{how}|{size} B|{per} a transfer"), (doc.span(line),)
        return [
            Fact("nixl.sweep.cost", float(cost), "us", subject, span, status=doc.status),
            Fact("nixl.sweep.rate", float(rate), "GB/s", subject, span, status=doc.status),
            Fact("nixl.sweep.post", float(post), "us", subject, span, status=doc.status),
        ]


READERS = (SweepReader(),)

COLLECTORS = (
    Collector("nixl.bench", _ready, _bench, seconds=lambda host: 8.0 * len(_kinds(host)),
              commands=lambda host: [" ".join([*_WORKER, kind]) for kind in _kinds(host)]),
)  # fmt: skip
