"""Nsight Systems and nvprof summaries as text, markdown or CSV.

Source: `nsys stats` reports cuda_api_sum, cuda_gpu_kern_sum, cuda_gpu_mem_time_sum (2020 to 2026); nvprof.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount
from .kernel_metrics import short
from .timeline import is_comm

_HEAD = regex(r"Time ?\(%\).{0,40}Total Time")
_NVPROF = regex(
    r"^\s*(GPU activities:|API calls:)?\s+(\d+(?:\.\d+)?)%\s+(\d+(?:\.\d+)?)(ns|us|ms|s)\s+(\d+)\s+(\d+(?:\.\d+)?)(ns|us|ms|s)"  # noqa: E501
    r"(?:\s+[\d.]+(?:ns|us|ms|s)){2}\s+(\S.*)$"
)
_NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
_ROW = regex(rf"^[\s|]*{_NUMBER}[\s|]+{_NUMBER}[\s|]+{_NUMBER}[\s|]+{_NUMBER}((?:[\s|]+[\d,.]+)*)[\s|]+(\S.*?)[\s|]*$")
_GAP = regex(r"\s{2,}|\s*\|\s*")  # between columns
_GROUPED = regex(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")  # thousands, where blanks set them apart
_CSV = regex(r'^"?(\d+(?:\.\d+)?)"?,"?(\d+)"?,"?(\d+)"?,"?(\d+(?:\.\d+)?)"?,(?:"?[\d.]*"?,){1,4}(.+)$')
_API = regex(r"^(?:cuda|cu|nvtx|ncclGroup)[A-Z]\w+")
_COPY = regex(r"\[CUDA mem(?:cpy|set)", re.IGNORECASE)
_TITLES = (
    ("api", "cuda_api_sum|cudaapisum|CUDA API Summary|CUDA API Statistics"),
    ("kernel", "gpukernsum|gpu_kern_sum|Kernel Summary|CUDA Kernel Statistics"),
    ("copy", "mem_time_sum|gpumemtimesum|MemOps Summary|Memory Operation Statistics"),
    ("other", r"\((?:nvtx|osrt|mem_size|dx|vulkan|opengl|um_|gpu_kern_gb|openmp)\w*\)|NVTX|OS Runtime|by Size"),
)
_TOP = 8


@dataclass(frozen=True, slots=True)
class _Row:
    kind: str
    share: float
    calls: float
    avg_us: float
    name: str
    line: Line


class NsysSummary:
    """Summary tables: where CUDA API time, kernel time and copy time go."""

    name = "nsys_summary"
    needles: tuple[bytes, ...] = (
        b"Total Time (ns)",
        b"Time (%)",
        b"Time(%)",
        b"GPU activities:",
        b"API calls:",
        b"cuda_api_sum",
        b"cuda_gpu_kern_sum",
        b"cudaLaunchKernel",
        b"cudaStreamSynchronize",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The leading rows of each table."""
        kind, scale = "", 1e-3
        rows: list[_Row] = []
        for line in doc.lines():
            text = line.text
            title = next((k for k, pattern in _TITLES if re.search(pattern, text)), None) if len(text) < 200 else None
            if title and not _ROW.match(text):
                kind = title
            if _HEAD.search(text):
                unit = re.search(r"Total Time ?\((\w+)\)", text)
                got = canonical(1.0, unit.group(1)) if unit else None
                scale = got[0] * {"us": 1.0, "ms": 1e3, "s": 1e6}.get(got[1], 1e-3) if got else 1e-3
                if "Operation" in text:
                    kind = "copy" if kind != "other" else kind
                elif "Num Calls" in text and "Name" in text:
                    kind = kind or "api"
                elif "Instances" in text and "Name" in text and kind not in ("other",):
                    kind = "kernel"
                continue
            row = self._nvprof(line) or self._row(line, kind, scale)
            if row is not None:
                rows.append(row)
        yield from _facts(doc, rows)

    @staticmethod
    def _nvprof(line: Line) -> _Row | None:
        hit = _NVPROF.match(line.text)
        if hit is None:
            return None
        name = hit.group(8)
        got = canonical(float(hit.group(6)), hit.group(7))
        if got is None:
            return None
        kind = "copy" if _COPY.search(name) else "api" if _API.match(name) else "kernel"
        return _Row(
            kind,
            float(hit.group(2)) / 100,
            float(hit.group(5)),
            got[0] * {"us": 1.0, "ms": 1e3, "s": 1e6}[got[1]],
            name,
            line,
        )

    @staticmethod
    def _row(line: Line, kind: str, scale: float) -> _Row | None:
        text = line.text
        hit = _CSV.match(text)
        if hit is not None:
            share, calls, avg, name = hit.group(1), hit.group(3), hit.group(4), hit.group(5).strip().strip('"')
        else:
            cells = _GAP.split(text.strip()) if _GROUPED.search(text) else []
            hit = _ROW.match(_GROUPED.sub("", text) if len(cells) >= 5 else text)
            if hit is None:
                return None
            share, calls, avg, name = hit.group(1), hit.group(3), hit.group(4), hit.group(6)
        share_value = float(share.replace(",", ""))
        if share_value > 100 or (kind == "" and not (_API.match(name) or _COPY.search(name))) or kind == "other":
            return None
        actual = "copy" if _COPY.search(name) else "api" if _API.match(name) else kind
        return _Row(
            actual,
            round(share_value / 100, 8),
            float(calls.replace(",", "")),
            amount(avg) * scale,
            name,
            line,
        )


def _facts(doc: Document, rows: list[_Row]) -> Iterator[Fact]:
    prefix = {"api": "api", "kernel": "kernel", "copy": "memop"}
    for kind, stem in prefix.items():
        mine = sorted((r for r in rows if r.kind == kind), key=lambda r: -r.share)
        for row in mine[:_TOP]:
            label = row.name[:80] if kind != "kernel" else short(row.name)
            subject, spans = Subject(label=label), (doc.span(row.line),)
            yield Fact(f"{stem}.share", row.share, "fraction", subject, spans, status=doc.status)
            yield Fact(f"{stem}.avg", row.avg_us, "us", subject, spans, status=doc.status)
            yield Fact(f"{stem}.calls", row.calls, "count", subject, spans, status=doc.status)
    comm = [r for r in rows if r.kind == "kernel" and is_comm(r.name)]
    if comm:
        yield Fact(
            "kernel.comm_share",
            sum(r.share for r in comm),
            "fraction",
            spans=(doc.span(max(comm, key=lambda r: r.share).line),),
            kind="derived",
            formula="reader:nsys_summary",
            status=doc.status,
        )


READERS: list[Reader] = [NsysSummary()]
