"""Phases of a training step: `time: 1.07, data_time: 0.83`, `fwd: 212 | bwd_allreduce: 868`, one phase a line.

Source: the loops of pytorch/examples imagenet, mmengine, detectron2, timm; DeepSpeed `utils/timer.py`; Megatron-LM
`timers.py`; Lightning `profilers/simple.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject

from .facts import fact

_PHASES: tuple[tuple[str, str], ...] = (
    (
        "data",
        r"data(?:[ _-]?"
        r"(?:time|load(?:ing|er)?(?:[ _-]?(?:time|wait|next))?|wait|fetch|prep\w*|iter))?"
        r"|dataloader(?:[ _]\w+)?|batch[-_ ]generator"
        r"|fetch(?:[ _]batch)?|get_batch|next_batch|load(?:ing)?[ _](?:data|batch)"
        r"|(?:time )?wait(?:ing|ed)?(?: time)?(?: (?:for|on))? (?:the )?(?:next )?(?:batch|data|input|loader)"
        r"|next\((?:\w+)\)|(?:取|读|等(?:待)?) ?(?:数据|batch)|input[ _]time|data wait|input pipeline"
        r"|train_dataloader_next|数据(?:加载|读取|准备)?",
    ),
    ("h2d", r"h2d(?:[ _]copy)?|to[_ ]device|to[_ ]gpu|host.?to.?device"),
    (
        "comm",
        r"(?:bwd|backward)_all_?reduce(?:_microstep)?|(?:exposed )?all[-_ ]?reduce(?: \(exposed\)| exposed)?"
        r"|grad(?:ient)?s?[_ -]?(?:all[-_ ]?reduce|sync\w*|reduce)|all-grads-sync"
        r"|(?:exposed )?comm(?:unication)?(?:[_ ]time)?|reduce.?scatter|params-all-gather|nccl|通信",
    ),
    ("inner", r"(?:bwd|backward)_inner(?:_microstep)?"),
    (
        "compute",
        r"(?:forward|fwd) ?(?:\+|and|&|/|-) ?(?:backward|bwd)(?: ?(?:\+|and|&) ?\w+)*"
        r"|(?:前向|forward) ?(?:\+|和|、|与) ?(?:反向|backward)|compute(?:[_ ]time)?|train(?:ing)?[_ ]step"
        r"|model time|gpu time|计算",
    ),
    ("forward", r"forward(?:[-_ ](?:pass|compute|time))?|fwd(?:_microstep)?|前向"),
    ("backward", r"backward(?:[-_ ](?:pass|compute|time))?|bwd(?:_microstep)?|反向"),
    ("optimizer", r"optim(?:izer)?(?:[-_ ]step)?|step_microstep|opt[_ ]step|优化器"),
    (
        "total",
        r"(?:step|iter(?:ation)?|batch|total|elapsed)(?:[-_ ]?time)?(?: per (?:step|iteration))?"
        r"|time|每步|一步|单步|总(?:时间|耗时)",
    ),
)
_PATTERN = regex(
    r"(?<![\w./-])(?:" + "|".join(f"(?P<{name}>{body})" for name, body in _PHASES) + r")"
    r"\)?(?:\s*\((?P<nameunit>ms|s|us)\))?\s{0,3}(?:[:=|]|\.{3,}:|\btakes?\b|\btook\b)?\s{0,12}\(?"
    r"(?P<num>\d+(?:\.\d+)?)\s?(?P<unit>ms|seconds|secs?|s|us|毫秒|秒)?(?![\w%.]"
    r"|\s?(?:[KMGT]i?B|samples|images|img|tok|it)\b)",
    re.IGNORECASE,
)
_WIDE = (  # holds of each line in which `_PATTERN` is found
    rf"(?i:(?:{'|'.join(body for _, body in _PHASES)})\)?(?:\s*\((?:ms|s|us)\))?"
    r"\s*(?:[:=|]|\.+:|\btakes?\b|\btook\b)?\s*\(?"
    r"\d+(?:\.\d+)?\s?(?:ms|seconds|secs?|s|us|毫秒|秒)?(?:[^\w%.]|$))"
)
_OF = regex(
    r"\s*(?:out )?(?:of|/|占)\s*(?:the |a |every )?(?P<num>\d+(?:\.\d+)?)\s?(?P<unit>ms|s|us|秒|毫秒)\b", re.IGNORECASE
)
_LINE_UNIT = regex(r"\((?:in )?(ms|s|us)\)|time \((ms|s)\)", re.IGNORECASE)
_LIGHTNING = regex(r"(?:train_dataloader_next|_DataFetcher|fetch_next)[^|]*\|.*\|\s*(?P<pct>\d+(?:\.\d+)?)\s*\|?\s*$")
_TO_MS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "sec": 1e3, "secs": 1e3, "seconds": 1e3, "秒": 1e3, "毫秒": 1.0}
_PARTS = ("data", "h2d", "comm", "forward", "backward", "compute", "optimizer")


@dataclass(frozen=True, slots=True)
class _Reading:
    phase: str
    value: float  # as printed
    unit: str | None
    line: Line


class StepPhases:
    """Shares of a step. Many alike lines become one reading: the one with the median share of the largest phase."""

    name = "step_phases"
    needles: tuple[bytes, ...] = (
        b"NCCL",
        b"nccl",
        b"compute",
        b"next(",
        "通信".encode(),
        "计算".encode(),
        b"data_time",
        b"Data",
        b"data",
        b"fwd",
        b"forward",
        b"Forward",
        b"allreduce",
        b"backward",
        b"optimizer",
        b"dataloader",
        "数据".encode(),
        "前向".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of one representative group of phases."""
        groups: list[dict[str, _Reading]] = []
        running: dict[str, _Reading] = {}
        last = -9
        above: str | None = None
        for line in possible(doc.lines(), _LIGHTNING, words=("s)",), also=_WIDE):
            if len(line.text) > 600:
                continue
            if line.text.rstrip().endswith(":") and (said := _LINE_UNIT.search(line.text)) is not None:
                above = next(filter(None, said.groups()), None)  # "(min, max) time across ranks (ms):"
            if (hit := _LIGHTNING.search(line.text)) is not None:
                yield fact(doc, line, "step.share", float(hit.group("pct")) / 100, "fraction", label="data")
                continue
            found = _readings(line, above)
            if len(found) >= 2:
                groups.append(found)
            elif found:
                if line.number - last > 3 or next(iter(found)) in running:
                    groups.append(running)
                    running = {}
                running.update(found)
                last = line.number
            if len(groups) > 5000:
                break
        groups.append(running)
        ready = [(share, g) for g in groups if (share := _lead(g)) is not None]
        if not ready:
            return
        ready.sort(key=lambda s: s[0])
        yield from _facts(doc, ready[len(ready) // 2][1], len(ready))


def _readings(line: Line, above: str | None = None) -> dict[str, _Reading]:
    out: dict[str, _Reading] = {}
    spoken = _LINE_UNIT.search(line.text)
    default = next(filter(None, spoken.groups()), None) if spoken else above
    for hit in _PATTERN.finditer(line.text):
        phase = str(hit.lastgroup and next(n for n, _ in _PHASES if hit.group(n)))
        unit = hit.group("unit") or hit.group("nameunit") or default
        if phase == "total" and unit is None and "." not in hit.group("num"):
            continue  # "step 200" counts, it does not measure
        out.setdefault(phase, _Reading(phase, float(hit.group("num")), unit.lower() if unit else None, line))
        whole = _OF.match(line.text, hit.end()) if phase in ("data", "comm", "h2d") and unit else None
        if whole is not None:
            out.setdefault("total", _Reading("total", float(whole["num"]), whole["unit"].lower(), line))
    return out


def _ms(group: dict[str, _Reading]) -> dict[str, float] | None:
    """Readings in ms; a unit that one reading names holds for those beside it; none at all means seconds."""
    named = [r.unit for r in group.values() if r.unit]
    fallback = named[0] if named else "s"
    if len({_TO_MS[u] for u in named}) > 1 and any(r.unit is None for r in group.values()):
        return None
    return {name: r.value * _TO_MS[r.unit or fallback] for name, r in group.items()}


def _lead(group: dict[str, _Reading]) -> float | None:
    """Share of data or communication, whichever is there; None if this is no breakdown of a step."""
    parts = [p for p in _PARTS if p in group]
    if not ({"data", "comm", "h2d"} & set(parts)) or len(parts) + ("total" in group) < 2:
        return None
    ms = _ms(group)
    if ms is None:
        return None
    whole = _whole(ms)
    lead = max(ms.get(p, 0.0) for p in ("data", "comm", "h2d"))
    return lead / whole if whole > 0 and lead <= whole else None


def _whole(ms: dict[str, float]) -> float:
    """Length of the step: printed, or the sum of its disjoint phases."""
    parts = sum(v for p, v in ms.items() if p in _PARTS and not (p == "comm" and "inner" in ms))
    return ms["total"] if ms.get("total", 0.0) >= 0.9 * parts else parts


def _beside(ms: dict[str, float], others: list[str]) -> list[str] | None:
    """Phases beside communication, if together with it they outlast the printed step: then some of it is hidden."""
    rest = sum(ms[p] for p in others)
    known = "total" in ms and "comm" in ms and "inner" not in ms and {"compute", "forward", "backward"} & set(others)
    return others if known and 0 < rest <= ms["total"] < 0.98 * (rest + ms["comm"]) else None


def _exposed(doc: Document, facts: dict[str, Fact], others: list[str], count: int) -> Fact:
    """Communication that nothing hides: what the other phases leave of the step."""
    inputs = (facts["total"], *(facts[p] for p in others))
    letters = " + ".join("bcdefghij"[: len(others)])
    length, rest = float(inputs[0].value or 0), sum(float(f.value or 0) for f in inputs[1:])
    return Fact(
        "step.share", (length - rest) / length, "fraction", Subject(label="comm"), facts["comm"].spans,
        kind="derived", formula=f"(a - ({letters})) / a", inputs=inputs, count=count, status=doc.status,
    )  # fmt: skip


def _facts(doc: Document, group: dict[str, _Reading], count: int) -> Iterator[Fact]:
    ms = _ms(group)
    if ms is None:
        return
    facts = {
        name: Fact(
            "step.phase", ms[name], "ms", Subject(label=name), (doc.span(r.line),), count=count, status=doc.status
        )
        for name, r in group.items()
    }
    parts = [p for p in _PARTS if p in facts and not (p == "comm" and "inner" in facts)]
    use_total = ms.get("total", 0.0) >= 0.9 * sum(ms[p] for p in parts)
    yield from (f for name, f in facts.items() if name != "total" or use_total)
    whole = [facts["total"]] if use_total else [facts[p] for p in parts]
    length = sum(float(f.value or 0) for f in whole)
    letters = "bcdefghij"[: len(whole)]
    others = _beside(ms, [p for p in parts if p != "comm"])
    if others is not None:
        yield _exposed(doc, facts, others, count)
        return
    for name in _PARTS:
        if name in facts and length > 0:
            formula = f"a / ({' + '.join(letters)})" if len(whole) > 1 else "a / b"
            yield Fact(
                "step.share",
                ms[name] / length,
                "fraction",
                Subject(label=name),
                facts[name].spans,
                kind="derived",
                formula=formula,
                inputs=(facts[name], *whole),
                count=count,
                status=doc.status,
            )
