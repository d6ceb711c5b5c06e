"""Tables and lines of training runs: PyTorch profiler tables, cProfile, py-spy, phases of a step.

Source: torch/autograd/profiler_util.py (`_build_table`), Python's `pstats`, py-spy's `top`, the training loops of
pytorch/examples, mmengine, detectron2, timm, DeepSpeed (`utils/timer.py`) and Megatron-LM (`timers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS, canonical

from .facts import divided
from .step_phases import StepPhases

_VALUE = regex(
    r"(?<![\w:.#<(])(-?\d[\d,]*(?:\.\d+)?)\s?(%|ns|us|μs|µs|ms|s|[KMG]?b|[KMGT]?B)?(?=\s|\||$)|(?<=\s)--(?=\s|$)"
)
_COLUMNS = regex(
    r"Self (?:CPU|CUDA|GPU|XPU|Device|HIP)(?: time)?(?: total)?(?: %| Mem)?"
    r"|(?:CPU|CUDA|GPU|XPU|Device|HIP) (?:total|time avg|Mem)(?: %)?"
    r"|(?:# of |Number of )?Calls|Total [KMGT]?FLOPs",
    re.IGNORECASE,
)
_DEFAULT = ["self cpu %", "self cpu", "cpu total %", "cpu total", "cpu time avg"]
_FOOT = regex(r"(Self )?(CPU|CUDA|GPU|Device|XPU) time total: *(\d+(?:\.\d+)?) ?(us|ms|s)\b", re.IGNORECASE)
_KNOWN_ROW = regex(
    r"aten::|cuda(?:Launch|Stream|Device|Memcpy|Event|Free|Malloc|Graph)"
    r"|enumerate\(|DataLoader|nccl:|Memcpy |Optimizer\."
)
_KEEP = 14


def _column(name: str) -> str:
    """One spelling a column: the device is `cuda`, `time`/`total` of the self columns are dropped."""
    name = re.sub(r"gpu|xpu|device|hip", "cuda", name.lower())
    name = re.sub(r"^(self (?:cpu|cuda))(?: time)?(?: total)?", r"\1", name)
    return "calls" if "calls" in name else name


def number(text: str) -> float:
    """A printed number, thousands separators taken out."""
    return float(text.replace(",", ""))


class ProfilerTable:
    """`key_averages().table()` of PyTorch, whole or a few rows of it."""

    name = "torch_profiler_table"
    needles: tuple[bytes, ...] = (
        b"Self CPU",
        b"aten::",
        b"enumerate(DataLoader)",
        b"CPU time total",
        b"cudaLaunchKernel",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Shares of operators, and GPU time beside CPU time."""
        columns: list[str] = _DEFAULT
        kept: dict[tuple[str, str], Fact] = {}
        totals: dict[str, Fact] = {}
        for line in possible(doc.lines(), _FOOT, words=("CPU", "%")):
            text = line.text
            if "CPU" in text and len(found := _COLUMNS.findall(text)) >= 3:
                columns = [_column(c) for c in found]
                continue
            if (foot := _FOOT.search(text)) is not None:
                yield from self._total(doc, line, foot, totals)
                continue
            for fact in self._row(doc, line, columns):
                kept.setdefault((fact.signal, fact.subject.label or ""), fact)
        ranked = sorted(kept.values(), key=lambda f: -float(f.value or 0) if f.unit == "fraction" else 0.0)
        names: list[str] = []
        for fact in ranked:
            label = fact.subject.label or ""
            if label not in names and len(names) < _KEEP:
                names.append(label)
        yield from (f for f in kept.values() if f.subject.label in names)
        if "cpu" in totals and "cuda" in totals and float(totals["cpu"].value or 0) > 0:
            cuda, cpu = totals["cuda"], totals["cpu"]
            yield divided("profile.gpu_busy", (cuda, cpu), "fraction", spans=cuda.spans)

    @staticmethod
    def _total(doc: Document, line: Line, foot: re.Match[str], totals: dict[str, Fact]) -> Iterator[Fact]:
        device = "cpu" if foot.group(2).upper() == "CPU" else "cuda"
        got = canonical(float(foot.group(3)), foot.group(4).lower())
        if got is None or device in totals:
            return
        value = got[0] * IN_MS[got[1]]
        signal = "profile.cpu_time" if device == "cpu" else "profile.gpu_time"
        fact = Fact(signal, value, "ms", spans=(doc.span(line),), status=doc.status)
        totals[device] = fact
        yield fact

    @staticmethod
    def _row(doc: Document, line: Line, columns: list[str]) -> Iterator[Fact]:
        text = line.text
        first = re.search(r"(?<=[\s|])\d[\d,.]*%", text)
        if first is None:
            return
        name = text[: first.start()].strip(" |\t")
        if not name or len(name) > 120 or not (_KNOWN_ROW.search(name) or columns is not _DEFAULT):
            return
        cells = list(_VALUE.finditer(text, first.start()))
        if len(cells) < 2:
            return
        subject = Subject(label=name)
        wanted = {
            "self cpu %": "profile.self_cpu",
            "cpu total %": "profile.cpu_total",
            "self cuda %": "profile.gpu_share",
        }
        for column, cell in zip(columns, cells, strict=False):
            if cell.group(1) is None:
                continue
            if column in wanted and cell.group(2) == "%":
                value = round(number(cell.group(1)) / 100, 8)
                if value >= 0.01:
                    yield Fact(wanted[column], value, "fraction", subject, (doc.span(line),), status=doc.status)
            elif column == "calls" and cell.group(2) is None:
                yield Fact(
                    "profile.calls", number(cell.group(1)), "count", subject, (doc.span(line),), status=doc.status
                )


class PythonProfile:
    """cProfile / pstats tables and `py-spy top`."""

    name = "python_profile"
    needles: tuple[bytes, ...] = (b"ncalls", b"tottime", b"%Own", b"function calls")
    _total = regex(r"function calls .{0,60}in (\d+(?:\.\d+)?) (?:CPU )?seconds")
    _row = regex(r"^\s*\d+(?:/\d+)?\s+(\d+(?:\.\d+)?)\s+[\d.]+\s+(\d+(?:\.\d+)?)\s+[\d.]+\s+(\S.*)$")
    _spy = regex(r"^\s*(\d+(?:\.\d+)?)%\s+(\d+(?:\.\d+)?)%\s+[\d.]+s?\s+[\d.]+s?\s+(\S.*)$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Share of the run time inside each leading function."""
        total: Fact | None = None
        rows: list[Fact] = []
        for line in doc.lines():
            if (hit := self._total.search(line.text)) is not None:
                total = Fact(
                    "profile.python_time",
                    float(hit.group(1)),
                    "s",
                    Subject(label="total"),
                    (doc.span(line),),
                    status=doc.status,
                )
            elif (hit := self._row.match(line.text)) is not None:
                rows.append(
                    Fact(
                        "profile.python_time",
                        float(hit.group(1)),
                        "s",
                        Subject(label=hit.group(3)[:120]),
                        (doc.span(line),),
                        status=doc.status,
                    )
                )
            elif (hit := self._spy.match(line.text)) is not None and float(hit.group(1)) >= 5:
                yield Fact(
                    "profile.python",
                    round(float(hit.group(1)) / 100, 8),
                    "fraction",
                    Subject(label=hit.group(3)[:120]),
                    (doc.span(line),),
                    status=doc.status,
                )
        if total is None or not float(total.value or 0):
            return
        yield total
        for row in sorted(rows, key=lambda f: -float(f.value or 0))[:5]:
            share = float(row.value or 0) / float(total.value or 1)
            if share < 0.05:
                break
            yield divided("profile.python", (row, total), "fraction", row.subject, spans=row.spans)


class TrainingProse:
    """Figures of a trace that people write down in a sentence: `median kernel 3.1 us`, `overlap with compute 3%`."""

    name = "training_prose"
    needles: tuple[bytes, ...] = (b"kernel", b"overlap", b"GPU busy", b"GPU idle", b"GPU active", b"Kernel", b"Overlap")
    _time = r"\W{1,4}(?P<v>\d+(?:\.\d+)?) ?(?P<u>us|µs|μs|ms|ns)\b"
    _pct = r"\W{1,4}(?P<v>\d+(?:\.\d+)?) ?(?P<u>%)"
    _rules: tuple[tuple[str, re.Pattern[str]], ...] = (
        (
            "trace.kernel_median",
            regex(
                r"(?:median|avg|average|mean|typical) (?:gpu )?kernels?(?: (?:time|duration|runtime"
                r"|length))?" + _time,
                re.I,
            ),
        ),
        (
            "trace.kernel_median",
            regex(r"kernel (?:time|duration|runtime)s?(?: \(?(?:median|avg|average|mean)\)?)" + _time, re.I),
        ),
        (
            "trace.kernel_median",
            regex(r"\bkernels?\b[^;\n]{0,50}?[,:(] ?(?:median|mean|avg\.?|average|typically)" + _time, re.I),
        ),
        (
            "trace.kernel_median",
            regex(
                r"\bkernels\b[^;\n\d]{0,16}(?P<v>\d+(?:\.\d+)?)(?:\s?[-–~]\s?\d+(?:\.\d+)?)? ?(?P<u>us|µs"
                r"|μs) each",
                re.I,
            ),
        ),
        (
            "trace.kernel_gap",
            regex(
                r"gaps?(?: (?:between|after|of|before)[^,;\n]{0,24}?)?(?: \(?(?:median|mean|avg\.?"
                r"|average)\)?)?" + _time,
                re.I,
            ),
        ),
        ("trace.kernel_gap", regex(r"(?:kernel ?间隔|间隙|空隙)(?:中位数|平均)?" + _time, re.I)),
        ("trace.kernel_median", regex(r"kernel ?(?:中位(?:数|耗时)?|平均(?:耗时|时长)?|耗时)" + _time, re.I)),
        ("trace.launch_median", regex(r"cudaLaunchKernel (?:avg|mean|median|time|takes?)" + _time, re.I)),
        ("trace.gpu_busy", regex(r"gpu (?:busy|active)(?: time| share| fraction| is)?" + _pct, re.I)),
        (
            "train.overlap",
            regex(r"overlap\w*(?: with comput\w+| ratio| fraction| percentage| of comm\w*)?" + _pct, re.I),
        ),
        (
            "trace.kernels_per_step",
            regex(r"kernels?(?: launches)?(?: per |/)(?:step|iter\w*)\W{1,4}(?P<v>\d[\d,]*)(?P<u>)\b", re.I),
        ),
        (
            "trace.kernels_per_step",
            regex(r"(?P<v>\d[\d,]*)(?P<u>) (?:cuda )?kernels?(?: launches)?(?: per |/)(?:step|iter\w*)", re.I),
        ),
    )

    _part = regex(  # "step 1.9 ms, sum of kernels 0.41 ms"
        r"(?:step|iter(?:ation)?)(?: time)?\W{1,3}(?P<s>\d+(?:\.\d+)?) ?(?P<su>ms|s)\b[^\n\d]{0,16}?"
        r"(?:(?:sum of )?(?:the |all )?(?:gpu )?kernels?(?: times?| total| sum)?|gpu (?:time|work))\W{1,4}"
        r"(?P<k>\d+(?:\.\d+)?) ?(?P<ku>ms|s)\b",
        re.IGNORECASE,
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Each figure once."""
        seen: set[str] = set()
        if doc.size > 1 << 20:
            return
        for line in doc.lines():
            for signal, rule in self._rules:
                hit = rule.search(line.text) if signal not in seen else None
                if hit is None:
                    continue
                got = canonical(number(hit.group("v")), hit.group("u") or "count")
                if got is None:
                    continue
                value, unit = (got[0] * 1e3, "us") if got[1] == "ms" else got
                seen.add(signal)
                yield Fact(signal, value, unit, spans=(doc.span(line, hit.group()),), status=doc.status)
            if "trace.gpu_busy" not in seen and (pair := self._part.search(line.text)) is not None:
                step, busy = (
                    Fact(
                        "step.phase", float(pair[k]) * IN_MS[pair[u]], "ms",
                        Subject(label=name), (doc.span(line, pair.group()),), status=doc.status,
                    )
                    for k, u, name in (("s", "su", "total"), ("k", "ku", "kernels"))
                )  # fmt: skip
                share = float(busy.value or 0) / float(step.value or 1)
                if 0 < share <= 1.02:
                    seen.add("trace.gpu_busy")
                    yield divided("trace.gpu_busy", (busy, step), "fraction", spans=busy.spans)


READERS: list[Reader] = [ProfilerTable(), PythonProfile(), StepPhases(), TrainingProse()]
