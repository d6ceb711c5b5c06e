"""Open MPI over UCX: `ompi_info`, configure lines, error blocks, and tables of the OSU micro-benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount, divided, excerpt

_CUDA = regex(r"mpi_built_with_cuda_support:value:(true|false)|CUDA support:\s*(yes|no)\b|MPI extensions:.*\b(cuda)\b")
_BUILD = regex(r"--(with|without)-(cuda|ucx|verbs)\b(=no\b)?")
_COMPONENT = regex(r"^\s*MCA (pml|btl|osc|mtl|accelerator): (\w+) \(|mca:(pml|btl|osc|mtl|accelerator):(\w+):version")
_ASKED = regex(r"Component:\s+(\S+)")
_FRAMEWORK = regex(r"Framework:\s+(\S+)")
_OSU_HEAD = regex(r"#\s*OSU MPI(?:-CUDA|-ROCM)?\s+(.*?)\s+(?:Test|v\d)")
_OSU_COLUMNS = regex(r"#\s*Size\s+(Bandwidth|Latency|Avg Lat\w*)\s*\(([^)]+)\)")
_SIZE_COLUMNS = regex(
    r"^\W*(?:msg |message )?size\s*(?:\((?:b|bytes)\))?\s+(?:bandwidth\s*)?\(?([MG]i?B/s)\)?\s*$", re.IGNORECASE
)
_OSU_ROW = regex(r"^\s*(\d+)\s+(\d+(?:\.\d+)?)(?:\s|$)")
_DROP = 1.25  # a bandwidth falling this much from one size to the next is a step, not noise


class MpiReader:
    """What Open MPI says about its UCX and CUDA parts."""

    name = "openmpi"
    needles = (b"mpi_built_with_cuda", b"CUDA support", b"Open MPI", b"--with-ucx", b"MCA ", b"mca:", b"Framework:")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        framework = ""
        seen: set[tuple[str, str]] = set()
        for line in doc.lines():
            text = line.text
            cuda = _CUDA.search(text)
            if cuda:
                yes = (cuda.group(1) or cuda.group(2) or "yes") in ("true", "yes")
                yield Fact("mpi.cuda_support", "yes" if yes else "no", None, spans=(doc.span(line),), status=doc.status)
            if "--with-ucx" in text or ("Configure command" in text or "'--with" in text):
                for hit in _BUILD.finditer(text):
                    value = "without" if hit.group(1) == "without" or hit.group(3) else "with"
                    subject = Subject(label=hit.group(2))
                    yield Fact("mpi.build", value, None, subject, (doc.span(line, hit.group()),), status=doc.status)
            part = _COMPONENT.search(text)
            if part:
                name = (part.group(1) or part.group(3), part.group(2) or part.group(4))
                if name not in seen:
                    seen.add(name)
                    yield Fact(
                        "mpi.component", name[1], None, Subject(label=name[0]), (doc.span(line),), status=doc.status
                    )
            version = re.search(r"^\s*Open MPI:\s+v?(\d+\.\d+\.\d+)|Open MPI\)? v?(\d+\.\d+\.\d+)", text)
            if version:
                number = version.group(1) or version.group(2)
                yield Fact("version", number, None, Subject(label="openmpi"), (doc.span(line),), status=doc.status)
            named = _FRAMEWORK.search(text)
            if named:
                framework = named.group(1)
            asked = _ASKED.search(text)
            if asked and framework:
                subject = Subject(label=f"{framework} not found")
                yield Fact("mpi.component", asked.group(1), None, subject, (doc.span(line),), status=doc.status)
                framework = ""


class OsuReader:
    """OSU tables: the largest size, and steps down in bandwidth."""

    name = "osu"
    needles = (b"OSU MPI", b"# Size", b"ucx", b"UCX", b"osu_", b"tag_bw", b"put_bw")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        test, unit = "OSU", ""
        rows: list[tuple[int, float, Line]] = []
        for line in doc.lines():
            text = line.text
            head = _OSU_HEAD.search(text)
            if head:
                yield from self._table(doc, test, unit, rows)
                test, unit, rows = head.group(1), "", []
                continue
            plain = None if _OSU_COLUMNS.search(text) else _SIZE_COLUMNS.match(text)
            if plain:
                yield from self._table(doc, test, unit, rows)
                test, unit, rows = "bandwidth", plain.group(1), []
                continue
            columns = _OSU_COLUMNS.search(text)
            if columns:
                yield from self._table(doc, test, unit, rows)
                unit, rows = columns.group(2), []
                continue
            row = _OSU_ROW.match(text) if unit else None
            if row:
                rows.append((int(row.group(1)), float(row.group(2)), line))
        yield from self._table(doc, test, unit, rows)

    @staticmethod
    def _table(doc: Document, test: str, unit: str, rows: list[tuple[int, float, Line]]) -> Iterator[Fact]:
        if not rows or not unit:
            return

        def fact(size: int, value: float, line: Line) -> Fact | None:
            got = canonical(value, unit)
            if got is None:
                return None
            return Fact(
                "mpi.osu", got[0], got[1], Subject(label=f"{test}|{size}"), (doc.span(line),), status=doc.status
            )

        last = fact(*rows[-1])
        if last:
            yield last
        if "B/s" not in unit:
            return
        for small, large in pairwise(rows):
            if large[0] < 1024 or large[1] <= 0 or small[1] / large[1] < _DROP:
                continue
            a, b = fact(*small), fact(*large)
            if a and b:
                yield divided("mpi.osu.drop", (a, b), subject=Subject(label=f"{test}|{small[0]}|{large[0]}"))


_PAIR = regex(
    r"(?P<host>\bH[ -]?H\b|\bhost\s*(?:->|→)\s*host\b|\bH2H\b|\bhost (?:buffers?|memory|to host)|\bhost[- ]host\b"
    r"|\bDRAM\b|cpu (?:buffers?|memory))"
    r"|(?P<gpu>\bD[ -]?D\b|\b(?:cuda|gpu|device)\s*(?:->|→)\s*(?:cuda|gpu|device)\b|\bD2D\b"
    r"|\bdevice (?:buffers?|memory|to device)|\b(?:gpu|cuda) (?:buffers?|memory)"
    r"|\bVRAM\b|--use_cuda|device[- ]device)",
    re.IGNORECASE,
)
_RATE = regex(r"(\d[\d,]*(?:\.\d+)?)\s*([MG]i?B/s(?:ec)?|Gb/s(?:ec)?|Gbps|Gbit/s)", re.IGNORECASE)


_LATENCY = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(us|µs|usec|ms)\b")


class MemoryReader:
    """The same transfer between host buffers and between GPU buffers, as people put them side by side."""

    name = "memory_kinds"
    needles = (
        b"H H",
        b"D D",
        b"use_cuda",
        b"host buffer",
        b"host memory",
        b"GPU buffer",
        b"DRAM",
        b"VRAM",
        b"host",
        b"device buffer",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document: the best rate of either kind, and their quotient."""
        best: dict[str, Fact] = {}
        lat: dict[str, Fact] = {}
        for line in excerpt(doc, 1 << 18):
            kinds = {hit.lastgroup for hit in _PAIR.finditer(line.text)}
            latency = _LATENCY.findall(line.text)
            if len(kinds) == 1 and len(latency) == 1 and (kind := str(next(iter(kinds)))) not in lat:
                us = amount(latency[0][0]) * (1e3 if latency[0][1] == "ms" else 1.0)
                lat[kind] = Fact(
                    "mpi.memory_latency", us, "us", Subject(label=kind), (doc.span(line),), status=doc.status
                )
            rates = _RATE.findall(line.text)
            got = canonical(float(rates[-1][0].replace(",", "")), rates[-1][1]) if rates else None
            if len(kinds) != 1 or got is None:
                continue
            value = got[0] / 8 if got[1] == "Gb/s" else got[0]
            kind = str(kinds.pop())
            if kind not in best or value > float(best[kind].value or 0):
                best[kind] = Fact(
                    "mpi.memory_bw", value, "GB/s", Subject(label=kind), (doc.span(line),), status=doc.status
                )
        near, far = lat.get("host"), lat.get("gpu")
        if near and far and float(near.value or 0) > 0:
            yield from (near, far)
            yield divided("mpi.gpu_over_host_latency", (far, near))
        host, gpu = best.get("host"), best.get("gpu")
        if host and gpu and float(gpu.value or 0) > 0:
            yield from (host, gpu)
            yield divided("mpi.host_over_gpu", (host, gpu))


_NODE = regex(
    r"\b(?:socket|numa(?:[ _-]?node)?|cpunodebind|node)\s*[=#:]?\s*(\d)\b"
    r"|(?:taskset -c|--physcpubind[= ]|--cpu-set|--cpu-list|\bcores?|\bcpus?)\s*[=:]?\s*(\d+(?:-\d+)(?:,\d+-\d+)*)\b",
    re.IGNORECASE,
)


_RATE_UNIT = regex(r"[MG]i?B/s(?:ec)?|Gb/s(?:ec)?|Gbps|Gbit/s", re.IGNORECASE)


class NumaRateReader:
    """The same RDMA or UCX test from different sockets, one line each."""

    name = "numa_rates"
    needles = (b"ocket", b"umactl", b"NUMA", b"numa", b"taskset", b"cores", b"cpus", b"cpu-set")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document: the best rate of each node, and the quotient of the extremes."""
        best: dict[str, Fact] = {}
        unit = ""
        for line in excerpt(doc, 1 << 16):
            node, rates = _NODE.search(line.text), _RATE.findall(line.text)
            head = _RATE_UNIT.search(line.text)
            if node is None:
                unit = head.group() if head and not rates else unit
                continue
            # several runs of one binding stand in a row under a common unit
            plain = re.findall(r"(?<=\s)\d[\d,]*\.\d+(?=\s|$)", line.text) if unit and not rates else []
            if len(rates) > 1 or not (rates or plain):
                continue
            text, spelling = rates[0] if rates else (max(plain, key=amount), unit)
            got = canonical(amount(text), spelling)
            if got is None:
                continue
            value = got[0] / 8 if got[1] == "Gb/s" else got[0]
            name = f"node {node.group(1)}" if node.group(1) else f"cpus {node.group(2)}"
            if name not in best or value > float(best[name].value or 0):
                best[name] = Fact(
                    "movement.numa_rate", value, "GB/s", Subject(label=name), (doc.span(line),), status=doc.status
                )
        if len(best) < 2:
            return
        order = sorted(best.values(), key=lambda f: -float(f.value or 0))
        yield from order
        if float(order[-1].value or 0) > 0:
            yield divided("movement.numa_split", (order[0], order[-1]))


READERS: list[Reader] = [MpiReader(), OsuReader(), MemoryReader(), NumaRateReader()]
