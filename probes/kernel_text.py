"""Printed reports about single kernels: ncu's console pages, nvprof metric tables, `ptxas -v`, Triton's counts.

Source: Nsight Compute CLI output 2019 to 2026; nvprof `--metrics`; ptxas `-v`; triton `CompiledKernel.n_spills`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .kernel_metrics import METRICS, STALL, Reading, facts, number, sentences, short

_HEADS = (
    regex(
        r"^\s{0,6}(?P<name>[\w~:<>(][^|]{0,400}?)\s*"
        r"(?:\(\d+, ?\d+, ?\d+\) ?x ?\(\d+, ?\d+, ?\d+\)|, \d{4}-\w{3}-\d\d [\d:]+), Context"
    ),
    regex(r"^\s*Kernel(?: Name)?: *(?P<name>\S.{0,300})$"),
    regex(r"^\s{0,6}(?P<name>[\w:<>]+(?:\([^)]*\))?),? +(?:Block Size|Grid Size|block|grid) ?[=:]? ?\("),
)
_NAMES = sorted(METRICS, key=len, reverse=True)
_METRIC = regex(
    r"^\s*(?:[|>*-]\s*)?(?:\d+\s+)?("
    + "|".join(re.escape(n) for n in _NAMES)
    + r"|"
    + STALL.pattern
    + r")(?![\w.])(?P<rest>.*)$",
    re.IGNORECASE,
)
_TYPED = regex(
    r"(?<![\w.])(?:" + "|".join(re.escape(n) for n in _NAMES if "_" in n or " " in n) + r")(?![\w.])", re.IGNORECASE
)


def covered(text: str) -> bool:
    """Is this a line of a tool: one metric and its figures? Several metrics on a line were typed by hand."""
    hit = _METRIC.match(text)
    return hit is not None and _TYPED.search(hit.group("rest")) is None


_BY_LOWER = {n.lower(): n for n in METRICS}
_NUMBER = regex(
    r"(?<![\w.])(?:(?:Low|Mid|High|Max|Idle) \((\d+)\)|(\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?))"
    r"(?:\s?(%|ns|us|ms|s)(?![\w/]))?"
)
_UNIT = regex(r"(?<![\w/])(%|nsecond|usecond|msecond|second|ns|us|ms)(?![\w/])")
_OTHER_UNIT = regex(r"(?<!\w)[KMGT]?i?byte/s(?:econd)?|[KMGT]B/s", re.IGNORECASE)
_REMARK = regex(
    r"[a-z]{4,} [a-z]{2,}"
    r"|(?<!Low )(?<!Mid )(?<!High )(?<!Max )(?<!Idle )\((?!\d+\))"
)  # words after the figure
_LIMIT = regex(r"^\s*Block Limit (Registers|Shared Mem|Warps|SM|Barriers|Blocks)\s+(?:block\s+)?(\d+)\s*$")
_RULE = regex(r"^\s*(?:OPT|WRN|INF|ERR|WARNING|Est\. (?:Local )?Speedup|-)\b|^\s*-{3,}|^\s*Section:")


class NcuText:
    """Nsight Compute's console output and nvprof's metric tables, whole or a few lines of them."""

    name = "ncu_text"
    needles: tuple[bytes, ...] = tuple(
        n.encode()
        for n in (
            "Section:",
            "Throughput",
            "Occupancy",
            "_efficiency",
            "bank conflict",
            "pct_of_peak",
            "per_inst_executed",
            "excessive",
            "__",
            "Threads Per Warp",
            "Registers Per Thread",
            "SOL ",
            "threads being active",
            "cycles being stalled",
            "_occupancy",
            "_utilization",
            "occupancy",
            "This kernel",
            "OPT ",
        )
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Figures by kernel, then the sentences of the rules."""
        if doc.head.lstrip()[:1] in b'{["' and b'"Metric Name"' not in doc.head and b'"ph"' in doc.head:
            return
        kernel = "kernel"
        readings: dict[str, list[Reading]] = {}
        limits: dict[str, list[tuple[int, str, Line]]] = {}
        said: set[tuple[str, str | None]] = set()
        paragraph: list[Line] = []
        for line in doc.lines():
            text = line.text
            head = next((h for p in _HEADS if (h := p.match(text))), None)
            if head is not None:
                yield from self._speak(doc, kernel, paragraph, said)
                paragraph = []
                kernel = short(head.group("name"))
                continue
            metric = _METRIC.match(text)
            if metric is not None and covered(text):
                reading = self._reading(doc, line, metric)
                if reading is not None:
                    readings.setdefault(kernel, []).append(reading)
                    continue
            if (limit := _LIMIT.match(text)) is not None:
                limits.setdefault(kernel, []).append((int(limit.group(2)), limit.group(1).lower(), line))
                continue
            if not text.strip() or _RULE.match(text):
                yield from self._speak(doc, kernel, paragraph, said)
                paragraph = []
            if text.strip() and len(text) < 4000:
                paragraph = [*paragraph[-7:], line]
        yield from self._speak(doc, kernel, paragraph, said)
        for name, items in readings.items():
            yield from facts(name, items, doc.status)
        for name, found in limits.items():
            least = min(found, key=lambda f: f[:2])
            if len(found) >= 2:
                yield Fact(
                    "kernel.occupancy.limit",
                    least[1],
                    None,
                    Subject(label=name),
                    (doc.span(least[2]),),
                    status=doc.status,
                )

    @staticmethod
    def _reading(doc: Document, line: Line, hit: re.Match[str]) -> Reading | None:
        rest = hit.group("rest")
        name = hit.group(1)
        name = _BY_LOWER.get(name.lower(), name)
        first = _NUMBER.search(rest)
        cut = _REMARK.search(rest, first.end()) if first else None
        rest = rest[: cut.start()] if cut else rest
        numbers = list(_NUMBER.finditer(rest))
        if not numbers or len(rest) > 200 or _OTHER_UNIT.search(rest):
            return None
        last = numbers[-1]
        unit = last.group(3) or next(iter(_UNIT.findall(rest)), "")
        kind = METRICS.get(name, ("", "plain"))[1]
        if (kind == "pct" and unit != "%") or (kind == "share" and unit == "%"):
            return None
        value = number(last.group(1) or last.group(2))
        return None if value is None else Reading(name, value, unit, (doc.span(line),))

    @staticmethod
    def _speak(doc: Document, kernel: str, lines: list[Line], said: set[tuple[str, str | None]]) -> Iterator[Fact]:
        if not lines:
            return
        text = " ".join(part.text.strip() for part in lines)
        if not re.search(
            r"occupan|sector|conflict|wavefront|threads being|stalled|multiprocessors|waves|utiliz|spill", text
        ):
            return
        for fact in sentences(kernel, text, _tight(doc, lines), doc.status):
            key = (fact.signal, fact.subject.label)
            if key not in said:
                said.add(key)
                yield fact


def _tight(doc: Document, lines: list[Line]) -> Span:
    return doc.bytes_span(lines[0].start, lines[-1].end, lines[0].number)


class Ptxas:
    """`ptxas -v` and what Triton, Inductor and CUTLASS print of a compiled kernel's registers and spills."""

    name = "ptxas"
    needles: tuple[bytes, ...] = (b"ptxas", b"spill", b"n_regs", b"Used ", b"registers")
    _entry = regex(r"(?:Compiling entry function|Function properties for) '?([\w$.]+)")
    _regs = regex(
        r"\bUsed (\d+) registers|n_reg(?:ister)?s\W{1,4}(\d+)|(\d+) registers? ?(?:/|per) ?thread"
        r"|num_regs\W{1,4}(\d+)|(?<!\w)regs?[:=] ?(\d+)",
        re.I,
    )
    _bytes = regex(r"(\d+) bytes spill stores(?:, (\d+) bytes spill loads)?", re.I)
    _count = regex(
        r"n_spills?\W{1,4}(\d+)|(?<!\w)(?:num_)?spills?[:=] ?(\d+)|(\d+) (?:register )?spills?\b"
        r"|(\d+) spilled registers",
        re.I,
    )
    _name = regex(r"^\s*([A-Za-z_][\w.:<>]*(?:\s+\w+ ?= ?\w+)*)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Registers and spills of each kernel."""
        if doc.size > 64 << 20:
            return
        kernel: str | None = None
        for line in doc.lines():
            text = line.text
            if "spill" not in text and "reg" not in text.lower() and "unction" not in text:
                continue
            if (entry := self._entry.search(text)) is not None:
                kernel = _demangle(entry.group(1))
            spills, regs = self._bytes.search(text), self._regs.search(text)
            count = None if spills else self._count.search(text)
            if not (spills or count or (regs and ("ptxas" in text or "n_reg" in text or "Used" in text))):
                continue
            label = kernel or self._label(text)
            spans = (doc.span(line),)
            if spills is not None and int(spills.group(1)) + int(spills.group(2) or 0):
                yield Fact(
                    "kernel.spill.bytes", float(spills.group(1)), "B", Subject(label=label), spans, status=doc.status
                )
            if count is not None:
                yield Fact(
                    "kernel.spill.count",
                    float(next(g for g in count.groups() if g)),
                    "count",
                    Subject(label=label),
                    spans,
                    status=doc.status,
                )
            if regs is not None:
                yield Fact(
                    "kernel.registers",
                    float(next(g for g in regs.groups() if g)),
                    "count",
                    Subject(label=label),
                    spans,
                    status=doc.status,
                )

    def _label(self, text: str) -> str:
        cut = re.split(r"n_reg|n_spill|spill|[:,|]\s", text, maxsplit=1)[0].strip(" :,|-")
        return cut[:60] or "kernel"


def _demangle(name: str) -> str:
    """The innermost name of an Itanium-mangled symbol: enough to tell kernels apart."""
    hit = re.match(r"_Z(?:N(?:\w*?))??(\d+)", name)
    if hit is None:
        return name[:60]
    size = int(hit.group(1))
    return name[hit.end() : hit.end() + size] or name[:60]


READERS: list[Reader] = [NcuText(), Ptxas()]
