"""Figures of a kernel as people type them: `DRAM 91.7 %`, `9 active threads/warp`, a small table of variants.

Names follow Nsight Compute, nvprof and everyday speech; `kernel_text` reads the tools' own output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from diagnose.document import Document, Line, Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, fact
from .generic_tables import Table, tables
from .kernel_text import covered

_SMALL = 48 << 10  # typed by hand, not logged
_MOST = 80

# signal, kind, name. Kinds: pct needs a percent sign or a share written 0.xx; number takes what stands there.
_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "kernel.active_threads",
        "lanes",
        r"(?:avg\.? |average |mean )?active (?:threads|lanes) ?(?:/|per|of a|in a|in each|a) ?(?:warp|inst\w*)"
        r"|(?:active )?(?:threads|lanes)(?: active)? ?(?:/|per|in each) ?(?:warp )?inst\w*|(?:threads"
        r"|lanes) active ?(?:/|per) ?warp"
        r"|(?:smsp__)?thread_inst_executed_per_inst_executed(?:\.ratio)?|(?:每个? ?warp|平均)?活跃线程数?",
    ),
    (
        "kernel.warp_efficiency",
        "pct",
        r"warp[_ ](?:execution[_ ])?eff(?:iciency|\.)?|sim[dt] (?:lane )?(?:efficiency|util\w*)"
        r"|lane (?:efficiency|util\w*)"
        r"|active lanes|warp ?(?:执行)?效率|线程束(?:执行)?效率",
    ),
    (
        "kernel.branch_efficiency",
        "pct",
        r"branch[_ ]eff(?:iciency|\.)?|(?:smsp__sass_average_)?branch_targets_threads_uniform(?:\.pct)?"
        r"|uniform branch(?:es| targets)?|分支效率",
    ),
    (
        "kernel.load_efficiency",
        "pct",
        r"gld[_ ]?eff(?:iciency|\.)?|(?:global )?(?:memory )?load eff(?:iciency|\.)|coalescing(?: (?:efficiency"
        r"|ratio))?"
        r"|合并(?:访问)?(?:效?率|比例)|(?:全局)?(?:加载|load)效率",
    ),
    (
        "kernel.store_efficiency",
        "pct",
        r"gst[_ ]?eff(?:iciency|\.)?|(?:global )?(?:memory )?store eff(?:iciency|\.)|(?:全局)?(?:存储|store)效率",
    ),
    (
        "kernel.sectors_per_request",
        "number",
        r"sectors? ?(?:/|per) ?req(?:uest|\.)?s?|(?:gld|gst|global(?: load| store)?)[_ ](?:transactions"
        r"|txns?)[_ ]?(?:/|per)[_ ]?"
        r"(?:req(?:uest)?|access)|每(?:个)?(?:请求|request)(?:的)? ?sectors?(?: ?数)?"
        r"|每(?:个)?(?:请求|request) ?(?=\d+ ?个? ?sector)",
    ),
    (
        "kernel.bytes_per_sector",
        "number",
        r"(?:used |useful |utili[sz]ed )?bytes(?: used| useful| utili[sz]ed)? ?(?:/|per|of(?: each| every)?|in a) ?"
        r"(?:32[- ]?b(?:yte)? )?sector",
    ),
    ("kernel.excess_sectors", "pct", r"excess(?:ive)? sectors|wasted (?:sectors|traffic|bytes)"),
    (
        "kernel.conflicts_per_request",
        "number",
        r"(?:shared )?(?:ld |st |load |store )?bank conflicts? ?(?:/|per) ?(?:req(?:uest)?|access|inst\w*|load"
        r"|store)",
    ),
    (
        "kernel.conflict_ways",
        "number",
        r"(?:shared (?:memory )?(?:load |store )?(?:wavefronts?|transactions?)|wavefronts?)"
        r" ?(?:/|per) ?(?:shared )?(?:req(?:uest)?|access"
        r"|load|store)"
        r"|每(?:个)?(?:请求|request|次访问) ?(?=\d+ ?个? ?wavefront)",
    ),
    ("kernel.excess_wavefronts", "pct", r"excess(?:ive)? wavefronts|conflicting wavefronts"),
    ("kernel.shared_efficiency", "pct", r"shared[_ ](?:memory )?eff(?:iciency|\.)?"),
    (
        "kernel.spill.bytes",
        "bytes",
        r"lmem(?: ?(?:/|per) ?thread)?|local mem(?:ory)?(?: ?(?:/|per) ?thread)?|stack frame"
        r"|spill(?:ed)?(?: (?:stores?|loads?|bytes))?"
        r"|本地内存|局部内存|(?:寄存器)?溢出",
    ),
    ("kernel.spill.count", "spills", r"n_?spills?|#? ?spills|spill count|spilled registers|溢出数"),
    (
        "kernel.spill.traffic",
        "pct",
        r"local_memory_overhead|local memory overhead|local (?:memory )?(?:share"
        r"|traffic)",
    ),
    ("kernel.registers", "number", r"(?:regs?|registers)(?: ?(?:/|per) ?(?:thread|th))|n_?regs|寄存器(?:数|/线程)?"),
    (
        "kernel.occupancy",
        "pct",
        r"(?:achieved |theoretical |theor\.? |sm |warp )?occupancy|\bocc\.?(?=[ :=]+\d)|(?:实际|理论)?占用率",
    ),
    ("kernel.waves", "number", r"waves?(?: ?(?:/|per) ?(?:sm|multiprocessor))?"),
    (
        "kernel.dram",
        "pct",
        r"dram(?:[ _](?:throughput|util\w*|bw|bandwidth|busy|sol))?|hbm(?: (?:bw|bandwidth|util\w*|throughput))?"
        r"|(?:device |global )?mem(?:ory)? (?:bw|bandwidth)(?: util\w*)?|显存带宽(?:利用率)?|带宽利用率",
    ),
    ("kernel.memory", "pct", r"mem(?:ory)? (?:throughput|sol|pipes?(?: busy)?)|访存吞吐"),
    (
        "kernel.sm",
        "pct",
        r"smsp?__(?:inst_executed_)?pipe_(?:fma|fp64|fp16|alu)[\w.]*|(?:compute|sm)(?: \(sm\))? (?:throughput"
        r"|sol)|(?:fma|fp32|fp64|alu|xu|int32)(?:[ _](?:heavy"
        r"|lite))? ?pipe(?:line)?"
        r"(?: (?:util\w*|busy|active))?|计算吞吐|\bsm(?=[ :=]+\d[\d.]* ?%[^\n]*\bdram\b)"
        r"|(?<=%)[^\w]{1,4}\bsm(?=[ :=]+\d[\d.]* ?%)",
    ),
    (
        "kernel.tensor",
        "pct",
        r"smsp?__(?:inst_executed_)?pipe_tensor[\w.]*|tensor(?:[ -]?(?:core|pipe)s?)?(?: pipe)?(?: (?:active"
        r"|util\w*|busy|throughput))?|(?:hmma"
        r"|wgmma)(?: pipe)?(?: util\w*)?",
    ),
)
_NUMBER = r"(?P<{p}n>\d[\d,]*(?:\.\d+)?)\s?(?P<{p}u>%|bytes?\b|[KM]i?B\b|B\b)?"
_AFTER = (
    r"(?:\s?\([^()\n]{0,24}\))?(?:\s?\[%?\])?(?:\s|[:=~≈<>→|]|->|\b(?:is|was|of|only|about|at|just|drops to"
    r"|falls to)\b|约|为|仅|只有|是)"
    r"{0,12}(?:(?:avg|mean|average|平均)\W{1,3})?"
)
_BEFORE = regex(_NUMBER.format(p="b") + r"\s?(?:%\s?)?(?:of 32 )?$")
_OTHERS = regex(r"(?:kv|cache|queue|slot|buffer|room|link|batch|disk|cpu|pipeline)[ -]?$", re.IGNORECASE)
_COMPILED = tuple(
    (signal, kind, regex(rf"(?<![\w.])(?:{words})(?![\w])", re.IGNORECASE)) for signal, kind, words in _WORDS
)
_FOLLOWS = regex(_AFTER + _NUMBER.format(p="a"), re.IGNORECASE)
_OF_32 = regex(
    r"(?<![\d.])(\d{1,2}(?:\.\d+)?) ?(?:/|of|out of)(?: the)? ?32 (?:active )?(?:threads"
    r"|lanes)",
    re.IGNORECASE,
)
_OF_BYTES = regex(r"(?<![\d.])(\d{1,2}(?:\.\d+)?) ?(?:/|of|out of)(?: the)? ?32 bytes", re.IGNORECASE)
_IDEAL = regex(
    r"(?<![\d.])(\d{1,2}(?:\.\d+)?) sectors? ?(?:/|per) ?req\w*[^\d\n]{0,6}(?:ideal\w*|min\w*|optimal|expected"
    r"|instead of|vs\.?|against|should be|where)[^\d\n]{0,12}(\d{1,2}(?:\.\d+)?)(?![\d.])",
    re.IGNORECASE,
)
_SHARE_USED = regex(
    r"(?<![\d.])(\d{1,3}(?:\.\d+)?) ?% of (?:the |all )?(?:global )?(?:bytes|data|traffic|sectors?)\b[^\n%]{0,32}"
    r"\b(?:utili[sz]ed|used|useful|needed)\b",
    re.IGNORECASE,
)
_WAYS = regex(
    r"(?<![\d.])(\d{1,2}(?:\.\d+)?) ?- ?way (?:shared[- ]memory )?(?:bank )?conflict"
    r"|(\d{1,2}) ?路(?:bank ?)?冲突",
    re.IGNORECASE,
)
_GRID = regex(
    r"(?<!\w)grid(?:size"
    r"|dim)?(?: size)? ?[=:]? ?[(\[{<]{1,3} ?(\d+) ?[,x] ?(\d+)(?: ?[,x] ?(\d+))?",
    re.IGNORECASE,
)
_TRIPLE = regex(r"^\(? ?(\d+) ?[,x] ?(\d+)(?: ?[,x] ?(\d+))? ?\)?$")
_BLOCKS = regex(
    r"(?<![\w.])(\d{1,6}) (?:thread ?)?(?:blocks?|ctas?)\b(?: of \d+ threads)?[^.\n\d]{0,24}?(?:on|for|over"
    r"|vs\.?|against|than|[,;]|/|for the|on the)"
    r" ?(?:a |an |the )?[^.\n\d]{0,12}(\d{2,3}) SMs?\b",
    re.IGNORECASE,
)
_SMS = regex(
    r"(?<![\w.])(\d{2,3}) ?(?:个 ?)?SMs?\b|(?:#|number of"
    r"|num_?) ?SMs\W{0,3}(?:SM\s+)?(\d{2,3})\b",
    re.IGNORECASE,
)
_HEAD = regex(r"^\s*([A-Za-z_][\w:]{4,60})(?:<[^>]*>)?(?:\([^)]*\))?(?=\s{2,}|:\s)")
_TIMES = {"s": 1e6, "sec": 1e6, "ms": 1e3, "us": 1.0, "µs": 1.0, "μs": 1.0, "ns": 1e-3}
_TIME_HEAD = regex(
    r"(?:^|[\s(\[/_])(ns|us|µs|μs|ms|s|sec)\b\)?\]?$|^(?:kernel[ _])?(?:time|duration"
    r"|runtime)",
    re.IGNORECASE,
)
_WAVEFRONTS = regex(
    r"(?P<n>\d[\d,]*(?:\.\d+)?) ?(?P<nu>[KMG])? (?:wavefronts?|transactions?)[^\d\n]{0,12}(?:ideal(?:ly)?|min(?:imum"
    r"|imal)?|expected|instead of|requests?|理想|理论)"
    r"[^\d\n]{0,6}(?P<i>\d[\d,]*\.\d+|\d[\d,]*\d|\d) ?(?P<iu>[KMG])?(?![\w])",
    re.IGNORECASE,
)
_SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_COMPILER = regex(
    r"ptxas|bytes stack frame|bytes spill (?:stores|loads)|n_spills?\b"
    r"|bytes cmem"
)  # lines of another reader
_TRACE = regex(r"SrcMemType|Throughput +SrcMem|SSMem|GridXYZ|Num Calls|Instances", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Said:
    signal: str
    value: float
    unit: str  # as printed, "%" or a byte unit


def _known(signal: str, kind: str, text: str, unit: str) -> _Said | None:
    """A reading if number and unit fit what the name measures."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    unit = unit.lower()
    if kind == "pct":
        if unit == "%" and value <= 100.5:
            return _Said(signal, round(value / 100, 12), "fraction")
        return _Said(signal, value, "fraction") if not unit and 0 < value < 1 and "." in text else None
    if kind == "lanes":
        return _Said(signal, value, "count") if not unit and 1 <= value <= 32 else None
    if kind == "bytes":
        scale = {"b": 1, "byte": 1, "bytes": 1, "kb": 1e3, "kib": 1024}.get(unit)
        return _Said(signal, value * scale, "B") if scale and value > 0 else None
    if unit:
        return None
    if kind == "spills":
        return _Said(signal, value, "count") if 0 < value < 100_000 and value.is_integer() else None
    if signal == "kernel.bytes_per_sector":
        return _Said(signal, value, "B") if 0 < value <= 32 else None
    most = {"kernel.waves": 10_000.0, "kernel.registers": 255.0}.get(signal, 33.0)
    return _Said(signal, value, "count") if 0 < value <= most else None


def said(text: str) -> Iterator[_Said]:
    """Kernel figures of a line of prose."""
    seen: set[str] = set()
    for signal, kind, words in _COMPILED:
        for hit in words.finditer(text):
            if signal in seen or _OTHERS.search(text[: hit.start()]):
                continue
            after = _FOLLOWS.match(text, hit.end())
            got = _known(signal, kind, after["an"], after["au"] or "") if after else None
            if got is None and (before := _BEFORE.search(text[: hit.start()].rstrip(" \t") + "")) is not None:
                got = _known(signal, kind, before["bn"], before["bu"] or "")
            if got is not None:
                seen.add(signal)
                yield got
    if "kernel.conflict_ways" not in seen and (many := _WAVEFRONTS.search(text)) is not None:
        top, low = (
            float(many[k].replace(",", "")) * _SCALE[(many[u] or "").upper()] for k, u in (("n", "nu"), ("i", "iu"))
        )
        if 1.0 <= top / max(low, 1.0) <= 33:
            seen.add("kernel.conflict_ways")
            yield _Said("kernel.conflict_ways", top / low, "computed")
    for pattern, signal in ((_IDEAL, "kernel.excess_sectors"), (_SHARE_USED, "kernel.load_efficiency")):
        beside = pattern.search(text) if signal not in seen else None
        if beside is None:
            continue
        if pattern is _SHARE_USED:
            yield _Said(signal, round(float(beside[1]) / 100, 12), "fraction")
        elif float(beside[2]) <= float(beside[1]) <= 32:
            yield _Said(signal, 1 - float(beside[2]) / float(beside[1]), "computed")
    for pattern, signal, unit in (
        (_OF_32, "kernel.active_threads", "count"), (_OF_BYTES, "kernel.bytes_per_sector", "B"),
        (_WAYS, "kernel.conflict_ways", "count"),
    ):  # fmt: skip
        if signal not in seen and (one := pattern.search(text)) is not None:
            yield _Said(signal, float(next(g for g in one.groups() if g)), unit)


def _blocks(hit: re.Match[str]) -> float:
    out = 1.0
    for part in hit.groups():
        out *= float(part or 1)
    return out


class KernelWords:
    """Figures of kernels in prose, in notes and in small tables of variants."""

    name = "kernel_words"
    needles: tuple[bytes, ...] = tuple(
        n.encode()
        for n in (
            "warp", "Warp", "lanes", "ccupancy", "sector", "Sector", "gld", "gst", "bank", "Bank", "lmem", "local mem",
            "local_mem", "DRAM", "dram", "HBM", "ensor", "grid", "Grid", "wave", "Wave", "SMs", " SM", "spill", "pipe",
            "fficiency", "stack frame", "inst_executed", "of 32", "占用率", "带宽", "线程",
            "wavefront", "regs", "transactions", "imt eff", "pilled", "pipe_",
            "共享内存",
        )
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Tables first; then lines that no tool's own format covers."""
        if doc.head.lstrip()[:1] in (b"{", b'"') or b"NVIDIA-SMI" in doc.head:
            return
        yield from islice(self._all(doc, excerpt(doc, _SMALL, 2000)), _MOST)

    def _all(self, doc: Document, lines: list[Line]) -> Iterator[Fact]:
        used: set[int] = set()
        for table in tables(lines):
            made = list(_of_table(doc, table))
            if made:
                used.update(line for line in table.lines)
                yield from made
        for i, line in enumerate(lines):
            text = line.text
            if i in used or len(text) > 600 or "|" in text[:3]:
                continue
            if (sms := _SMS.search(text)) is not None:
                count = next(g for g in sms.groups() if g)
                yield fact(doc, line, "kernel.sms", float(count), "count", around=sms.group())
            if covered(text) or _COMPILER.search(text):
                continue
            head = _HEAD.match(text)
            label = head.group(1) if head and not any(w.search(head.group(1)) for _, _, w in _COMPILED) else "kernel"
            yield from _facts(doc, line, label[:60], said(text))
            if (grid := _GRID.search(text) or _BLOCKS.search(text)) is not None:
                blocks = float(grid.group(1)) if grid.re is _BLOCKS else _blocks(grid)
                kind = (
                    "observed"
                    if len([g for g in grid.groups() if g and g != "1"]) <= 1 or grid.re is _BLOCKS
                    else "derived"
                )
                yield _grid(
                    doc.span(line, grid.group()), blocks, _setting(text, grid.start()) or label, kind, doc.status
                )


def _grid(span: Span, blocks: float, label: str, kind: str, status: tuple[str, ...]) -> Fact:
    """Blocks of a launch; a product of the printed sizes is the reader's own figure."""
    subject = Subject(label=label[:60])
    if kind == "observed":
        return Fact("kernel.grid", blocks, "count", subject, (span,), status=status)
    return Fact(
        "kernel.grid", blocks, "count", subject, (span,), kind="derived", formula="reader:kernel_words", status=status
    )


def _setting(text: str, end: int) -> str:
    """What stands before the grid on its line: ``split_kv=1``."""
    return text[:end].strip(" ,:-\t")[:40]


def _facts(doc: Document, line: Line, label: str, found: Iterator[_Said]) -> Iterator[Fact]:
    for item in found:
        if item.unit == "computed":
            yield Fact(
                item.signal, item.value, "fraction" if item.signal.endswith("sectors") else "count",
                Subject(label=label), (doc.span(line),), kind="derived", formula="reader:kernel_words",
                status=doc.status,
            )  # fmt: skip
            continue
        base = fact(doc, line, item.signal, item.value, item.unit, label=label)
        yield base
        yield from _implied(base, label)


def _implied(base: Fact, label: str) -> Iterator[Fact]:
    """Used share of a sector from its bytes; ways from conflicts beside the access itself."""
    value = float(base.value or 0)
    signal, made, unit, formula = {
        "kernel.bytes_per_sector": ("kernel.load_efficiency", value / 32, "fraction", "a / 32"),
        "kernel.conflicts_per_request": ("kernel.conflict_ways", value + 1, "count", "a + 1"),
    }.get(base.signal, ("", 0.0, "", ""))
    if signal:
        yield Fact(
            signal, made, unit, Subject(label=label), base.spans, kind="derived", formula=formula, inputs=(base,),
            status=base.status,
        )  # fmt: skip


def _column(name: str) -> tuple[str, str] | None:
    """Signal and kind of a column's head."""
    bare = re.sub(r"\s*[\[(][^\])]*[\])]\s*|\s*%\s*$", "", name.strip())
    for signal, kind, words in _COMPILED:
        if (hit := words.search(bare)) is not None and hit.end() - hit.start() >= 0.5 * len(bare):
            return signal, kind
    if re.fullmatch(r"(?:grid|blocks?|ctas?|tiles|#? ?blocks|thread blocks)(?: ?size| ?dim)?", bare, re.IGNORECASE):
        return "kernel.grid", "grid"
    return ("kernel.time", "time") if _TIME_HEAD.search(name.strip()) else None


def _of_table(doc: Document, table: Table) -> Iterator[Fact]:
    """A row is a variant. Without a column that only kernels have, the table is somebody else's."""
    if _TRACE.search(" ".join(table.columns)):
        return
    heads = [_column(c) for c in table.columns]
    corner = _column(table.corner) if table.corner else None
    own = [h for h in (*heads, corner) if h is not None and h[0] != "kernel.time"]
    if not own:
        return
    label_of: dict[str, int] = {}
    for row in table.rows:
        label = f"{row.label} {' '.join(w for w in row.words if w and not _TRIPLE.match(w))}".strip()[:60] or "kernel"
        label_of[label] = label_of.get(label, 0) + 1
        label = label if label_of[label] == 1 else f"{label} #{label_of[label]}"
        span = (doc.span(row.line),)
        if (
            corner is not None
            and corner[0] in ("kernel.grid", "kernel.waves")
            and row.label.replace(",", "").isdecimal()
        ):
            value = float(row.label.replace(",", ""))
            yield Fact(corner[0], value, "count", Subject(label=label), span, status=doc.status)
        cells = list(zip(heads, row.figures, row.words or ("",) * len(heads), table.columns, strict=True))
        for head, figure, word, column in cells:
            if head is None:
                continue
            signal, kind = head
            if kind == "grid":
                hit = _TRIPLE.match(word) if word else None
                if hit is not None:
                    yield _grid(span[0], _blocks(hit), label, "derived", doc.status)
                elif figure is not None and figure.unit in (None, "count"):
                    yield Fact("kernel.grid", figure.value, "count", Subject(label=label), span, status=doc.status)
                continue
            if figure is None:
                continue
            if kind == "time":
                unit = figure.raw or (m.group(1) if (m := _TIME_HEAD.search(column.strip())) else "")
                scale = _TIMES.get((unit or "").lower())
                if scale is not None:
                    value = float(figure.text.replace(",", "")) * scale
                    yield Fact("kernel.time", value, "us", Subject(label=label), span, status=doc.status)
                continue
            percent = "%" if "%" in (figure.raw, *column) or figure.unit == "fraction" else figure.raw
            got = _known(signal, kind, figure.text, percent)
            if got is not None:
                yield from _facts(doc, row.line, label, iter((got,)))


READERS: list[Reader] = [KernelWords()]
