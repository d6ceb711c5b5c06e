"""Runs that were made again with one thing changed, where the note says in its own words what that was.

``with the tuner plugin renamed away: 478.9`` beside a table, one command twice with another between, a row for each
release of a library. The words stay with the gain, so that a rule can tell which lever they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, divided, excerpt, fact

_SMALL = 1 << 15
_LINES = 200
_LEAST = 1.15
_UNIT = r"GB/s|Gb/s|Gbit/s|Gbits/sec|MB/s|TFLOPS|TFLOP/s|it/s|img/s|samples/s|tok(?:ens)?/s|ms|us|s(?:/step|/it)?"
_VALUE = rf"(?P<v>\d[\d,]*(?:\.\d+)?)\s*(?P<u>{_UNIT})?(?![\w%.:/-])"
_CHANGED = regex(
    r"^\W*(?P<what>(?:[\w ,]{0,30}?\b)?(?:with(?:out)?|after|once|when|disabling|removing|renaming|unsetting|setting"
    r"|switching|no more|-?minus|去掉|换成|改成|关掉|禁用|恢复)(?:[^:=→>\n]|(?<=\w)=(?=\w)){2,90}?"
    r"|[^:：=→>\n]{2,90}?(?:之后|以后|后)"
    # A machine of the same kind is a control as well.
    r"|(?:the |an? )?(?:sister|other|another|good|neighbou?r\w*|old|reference|known[- ]good|second) (?:box|node|host|machine|rack|server|cluster)\b"  # noqa: E501
    r"[^:=→>\n]{0,60}?)"
    rf"\s*(?::|=|->|→|=>|：|gives|reaches|it is|is)\s*(?:busbw|bus bandwidth|step|~|about)?\s*{_VALUE}"
    r"(?(u)|\s*(?:$|[;,(，。（]))",
    re.IGNORECASE,
)
_LOG = regex(r"NCCL (?:INFO|WARN)|^\s*#|^\s*\d+\s+\d+\s+\w+\s+\w+\s|\]:|^\s*\[")
_LESS = frozenset(("ms", "us", "s", "s/step", "s/it"))
_BASE = regex(
    rf"^\W*(?P<what>before|baseline|currently|now|today|as (?:is|found|shipped|delivered)|default|at first|改前|之前|现状|默认)\b[^\n\d]{{0,60}}{_VALUE}",  # noqa: E501
    re.IGNORECASE,
)
_FROM_TO = regex(rf"(?<![\w.])(?P<a>\d[\d,]*(?:\.\d+)?) ?(?P<au>{_UNIT})? ?(?:->|→|=>|to) ?{_VALUE}", re.IGNORECASE)
_DONE = regex(
    r"\b(?:after|with(?:out)?|when|once|by|via|removing|disabling|setting|switching|moving|pinning|加|改|去掉|关|换|绑)\b|改|去掉|关掉|换成|绑",
    re.I,
)
_RESULT = regex(
    rf"^(?P<left>.{{3,160}}?)\s*(?:->|→|=>|:|：|=|\s{{2,}}|\s(?=[a-z]+ \d))\s*(?:(?:bus_?bw|alg_?bw|bw|bandwidth|step|time|latency)[ =:]+)?{_VALUE}\s*(?P<rest>\(.*\)|#.*|//.*)?\s*$"  # noqa: E501
)
_ENDS = regex(rf"{_VALUE}\s*(?:\(.*\)|#.*|//.*)?\s*$")  # as `_RESULT` does, which takes long to find out
_WIDE = regex(r"\s{5,}")  # the gaps of a table: the wider they are, the more ways there are to split it
# Words of a line that measures; the lines of a status dump repeat too, section by section.
_MEASURES = regex(
    r"_perf\b|_bw\b|_lat\b|perftest|osu_|iperf|bandwidth|busbw|throughput|latency|GB/s|tok\w*/s|step|train\w*\.py|torchrun|mpirun|srun|bench",
    re.I,
)
_RATED = regex(rf"\d\s*(?:{_UNIT})\s*(?:$|\(|#|//)", re.IGNORECASE)
_VERSIONED = regex(
    r"^\W*(?:lib)?(?P<lib>nccl|ucx|torch|pytorch|cuda|driver|nixl|openmpi|hpc-?x|rccl)\b(?:[\w-]*)(?:\.so)?[ .=@vV_:-]{0,3}"  # noqa: E501
    r"(?P<ver>\d+(?:\.\d+){1,3})(?:[-+.]\w+)?\s*[:|=]?\s+(?P<rest>\d.*)$",
    re.IGNORECASE,
)
_CELL = regex(r"^\d[\d,]*(?:\.\d+)?$")
_HIGHER = regex(r"GB/s|Gb/s|busbw|algbw|bandwidth|throughput|it/s|img/s|samples/s|tok\w*/s|TFLOP|带宽|吞吐", re.I)
_LOWER = regex(r"\b(?:ms|us|µs|latency|time|seconds|s/step|s/it)\b|\((?:s|ms|us)\)|耗时|时间|延迟", re.I)


def _text(line: Line) -> str:
    return re.sub(r"\s+", " ", (line.prefix + line.text).strip())


class ControlReader:
    """A figure behind the words that say what was changed for it."""

    name = "reruns"
    needles: tuple[bytes, ...] = (
        b"with", b"With", b"other ", b"sister", b"neighbo", b"reference", b"good ",
        b"after", b"After", b"once", b"when", b"isabl", b"emov", b"->", b"=>",
        "→".encode(), "后".encode(), "去掉".encode(), "换成".encode(), "改成".encode(), "关掉".encode(), "恢复".encode(),  # noqa: E501
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rerun.figure`; `rerun.gain` where the line, or one above it, also tells of the run before."""
        base: tuple[float, str, Line] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _LOG.search(text):
                continue
            if (arrow := _FROM_TO.search(text)) is not None:
                if _DONE.search(text):
                    yield from _gain(
                        doc,
                        (amount(arrow["a"]), line),
                        (amount(arrow["v"]), line),
                        arrow["u"] or arrow["au"] or "",
                        text,
                    )
                continue
            if (first := _BASE.match(text)) is not None:
                base = amount(first["v"]), first["u"] or "", line
                continue
            hit = _CHANGED.match(text)
            if hit is None:
                continue
            unit = hit["u"] or ""
            yield fact(
                doc,
                line,
                "rerun.figure",
                amount(hit["v"]),
                "count",
                around=hit["v"],
                label=f"{unit}|{_text(line)[:140]}",
            )
            if base is not None and base[1] == unit:
                yield from _gain(doc, (base[0], base[2]), (amount(hit["v"]), line), unit, text)


def _gain(
    doc: Document,
    before: tuple[float, Line],
    after: tuple[float, Line],
    unit: str,
    said: str,
    changed: Sequence[Line] = (),
) -> Iterator[Fact]:
    """How much better the second is; nothing where it is not, or where the unit does not say what is better."""
    if before[0] <= 0 or after[0] <= 0 or not (unit or _HIGHER.search(said) or _LOWER.search(said)):
        return
    less = unit in _LESS or (not unit and _HIGHER.search(said) is None)
    top, bottom = (before, after) if less else (after, before)
    if top[0] < _LEAST * bottom[0]:
        return
    inputs = tuple(
        fact(doc, at, "rerun.figure", v, "count", label=f"{unit}|{_text(at)[:140]}") for v, at in (top, bottom)
    )
    label = re.sub(r"\s+", " ", said.replace("|", "/").strip())[:200]
    yield divided(
        "rerun.gain",
        inputs,
        subject=Subject(label=label),
        spans=tuple(doc.span(line) for line in (after[1], before[1], *changed)),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    left: str
    value: float
    unit: str
    rest: str
    line: Line
    at: int


class RepeatReader:
    """One command or label twice with two results, and what stands between them."""

    name = "repeats"
    needles: tuple[bytes, ...] = (b"->", b"=>", b":", b"  ", "→".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rerun.gain`, labelled with the lines in between."""
        runs: list[_Run] = []
        texts: list[tuple[str, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = _text(line)
            worth = _ENDS.search(text) and (_MEASURES.search(text) or _RATED.search(text)) and not _LOG.search(text)
            hit = _RESULT.match(_WIDE.sub("    ", (line.prefix + line.text).strip())) if worth else None
            if hit is not None and (hit["u"] or _MEASURES.search(hit["left"])):
                left = re.sub(r"^\W+|\W+$|\s+", " ", hit["left"]).strip().lower()
                runs.append(_Run(left, amount(hit["v"]), hit["u"] or "", hit["rest"] or "", line, len(texts)))
            texts.append((text, line))
        for i, second in enumerate(runs):
            first = next((r for r in reversed(runs[:i]) if r.left == second.left and r.unit == second.unit), None)
            if first is None:
                continue
            taken = {r.at for r in runs}
            between = [t for n, t in enumerate(texts) if first.at < n < second.at and n not in taken and t[0]]
            said = " ; ".join([*(text for text, _ in between[-3:]), second.rest]).strip(" ;")
            if len(said) < 4 or second.value == first.value:
                continue
            timed = second.unit in _LESS or (
                not second.unit and re.search(r"lat\b|latency|time|\bms\b|\bus\b", second.left) is not None
            )
            unit = second.unit or ("ms" if timed else "GB/s")
            changed = [line for _, line in between[-1:]]
            yield from _gain(doc, (first.value, first.line), (second.value, second.line), unit, said, changed)


class VersionRows:
    """A row of results for each release of a library."""

    name = "version_rows"
    needles: tuple[bytes, ...] = (b"nccl", b"NCCL", b"ucx", b"UCX", b"torch", b"cuda", b"CUDA", b"driver", b"nixl",
                                  b"mpi", b"rccl", b"hpcx", b"HPC")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`lever.row`: the worst release against the best of its like."""
        rows: dict[str, list[tuple[str, float, Line]]] = {}
        words = ""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            hit = _VERSIONED.match(text)
            if hit is None:
                words += " " + text
                continue
            figures = []
            for part in re.split(r"[\s,;/|]+", hit["rest"]):
                if _CELL.match(part) is None:
                    words += f" {part}" if len(part) < 8 else ""
                    break
                figures.append(amount(part))
            if figures:
                rows.setdefault(hit["lib"].lower(), []).append((hit["ver"], median(figures), line))
        higher, lower = _HIGHER.search(words) is not None, _LOWER.search(words) is not None
        if higher == lower:
            return
        for lib, found in rows.items():
            low, high = min(found, key=lambda r: r[1]), max(found, key=lambda r: r[1])
            worse, better = (low, high) if higher else (high, low)
            if low[0] == high[0] or low[1] <= 0 or high[1] < 1.2 * low[1]:
                continue
            yield Fact(
                "lever.row", _text(worse[2])[:160], None,
                Subject(label=f"{lib}|{worse[0]}|{better[0]}|{'busbw' if higher else 'time'}"),
                (doc.span(worse[2]), doc.span(better[2])), status=doc.status,
            )  # fmt: skip


_ARM = regex(
    r"^\W*(?:export |-x |-e |\+ ?)?(?P<arm>[A-Z][A-Z0-9]*_[A-Z0-9_]+\s?=\s?[\w.,^:-]+(?:[ ,+]+[A-Z][A-Z0-9]*_[A-Z0-9_]+\s?=\s?[\w.,^:-]+)*)"  # noqa: E501
    rf"\s*[:|]?\s+(?:(?:busbw|step|time)\s*)?{_VALUE}\s*(?:\||$)"
)
_PLAIN = regex(
    r"^\W*(?P<arm>default\w*|as (?:deployed|is|shipped|found|before|delivered)|baseline|stock|current(?:ly)?|unset|none|no (?:env|variables?|settings?)"  # noqa: E501
    r"|nothing(?: set)?|production|现状|默认|不设)\b[^\d|:]{0,30}"
    rf"[:|]?\s+{_VALUE}\s*(?:\||$)",
    re.IGNORECASE,
)


class VariableRows:
    """A table of one figure a row, whose rows are variables that were set and the run without."""

    name = "variable_rows"
    needles: tuple[bytes, ...] = (b"NCCL_", b"UCX_", b"TORCH_", b"CUDA_", b"FI_", b"OMP_", b"VLLM_", b"PYTORCH_")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rerun.gain` of every row that is better than the one with nothing set."""
        words, base = "", None
        arms: list[tuple[str, float, str, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _LOG.search(text) and not _ARM.match(text):
                continue
            if (arm := _ARM.match(text)) is not None:
                arms.append((arm["arm"], amount(arm["v"]), arm["u"] or "", line))
            elif (plain := _PLAIN.match(text)) is not None:
                base = amount(plain["v"]), plain["u"] or "", line
            else:
                words += " " + text
        if base is None or not arms or (_HIGHER.search(words) is not None and _LOWER.search(words) is not None):
            return
        unit = base[1] or ("GB/s" if _HIGHER.search(words) else "ms" if _LOWER.search(words) else "")
        for name, value, own, line in arms:
            if unit and (own or unit) == unit:
                yield from _gain(doc, (base[0], base[2]), (value, line), unit, name)


READERS: list[Reader] = [ControlReader(), RepeatReader(), VersionRows(), VariableRows()]
