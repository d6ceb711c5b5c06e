"""How one fact is said: the reading itself, a sentence around it, a limit, in either language.

Machine output stays what it is in both languages: it is quoted, shortened, and never translated.
"""

from __future__ import annotations

import math
import re

from .answer_fit import cut
from .answer_words import EN, Words
from .catalogue import Catalogue
from .document import printable
from .limits import is_floor, met
from .models import Evidence, Limit, Report

QUOTE = 64  # characters of machine output that one says aloud
STATEMENT = 100
_MINOR = 0.1  # of the whole: how far such a stage is from its floor explains nothing
_LONG = 10_000  # from here on all digits are said, not a power of ten
_PREFIX = re.compile(
    r"\[|[\[(<]?[\w.:/,+@=-]*\d[\w.:/,+@=-]*[\])>]?:?|\S*\]|\(?(?:INFO|WARN(?:ING)?|ERROR|DEBUG|NCCL|EE|\S+\.\w+)\)?:?"
)
_COMPARED = re.compile(r"(.+?): (\S+(?: \S+)?) with '(.*?)' beside (\S+(?: \S+)?) with '(.*?)'")
_DIGITS = re.compile(r"(?<=: )(?=\d+\.\d)(?:\d\.?){6,}(?: [^ \d]\S*)?$")
_SUMMED = {"peak": "at the peak", "total": "in all", "max": "at most", "min": "at least", "mean": "on average"}
_SUMMED_ZH = {"peak": "峰值", "total": "合计", "max": "最大", "min": "最小", "mean": "平均", "last": "最近一次"}
_SETTINGS = re.compile(r"^env\.var$|\.arg$|^(?:nccl|ucx|mpi|torch)\.(?:env|param|config)")


def where(item: Evidence) -> str:
    """``file:line`` of an evidence, or how it came about."""
    if item.capture is not None:
        return f"{item.capture.name}:{item.capture.line}"
    return item.formula or item.kind


def quoted(item: Evidence, width: int = 110) -> str:
    """The first line of the quote, cut to `width`."""
    text = printable(" ".join((item.quote or "").split()))
    return text if len(text) <= width else text[: width - 1] + "…"


def reference(item: Evidence) -> str:
    """``E3, file:line``, or the id alone for what was computed."""
    return f"{item.id}, {where(item)}" if item.capture is not None else item.id


def amount(item: Evidence) -> str:
    """The value with its unit, as one says it."""
    value = item.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    if item.unit == "fraction":
        return f"{value:.3g}" if abs(value) > 1.5 else f"{value * 100:.3g} %"
    shown = f"{value:,.0f}" if abs(value) >= _LONG else f"{value:.4g}"
    return shown if item.unit in (None, "count") else f"{shown} {item.unit}"


def in_percent(item: Evidence) -> str:
    """The statement; a share in percent."""
    if item.unit == "fraction" and item.statement.endswith(" fraction"):
        return item.statement.rpartition(": ")[0] + f": {amount(item)}"
    return _shortened(item, item.statement)


def _shortened(item: Evidence, text: str) -> str:
    """A figure that was worked out, with the digits that one reads: four."""
    found = _DIGITS.search(text)
    if found is None or item.kind != "derived" or not isinstance(item.value, float):
        return text
    if not math.isclose(float(found.group().split()[0]), item.value, rel_tol=1e-4):
        return text
    return text[: found.start()] + amount(item)


def said_statement(item: Evidence) -> str:
    """The statement as it is said: shares in percent, what was compared in words; its middle left out where long."""
    text = re.sub(r" ([,;])", r"\1", item.statement.rstrip("。."))
    if told := _COMPARED.fullmatch(text):
        name, worse, a, better, b = told.groups()
        axis = (item.subject.label or "").partition("|")[0].replace("_", " ")
        at = f"at {axis}" if re.fullmatch(r"[\d.,]+", a) and re.fullmatch(r"[a-z ]{3,20}", axis) else "with"
        text = f"{cut(name, STATEMENT // 2)} is {worse} {at} {cut(a, 32)} and {better} {at} {cut(b, 32)}"
    elif (item.unit == "fraction" and text.endswith(" fraction")) or re.search(r": \d[\d.]*e\+\d+( \S+)?$", text):
        text = text.rpartition(": ")[0] + f": {amount(item)}"
    text = _shortened(item, text)
    head, sep, tail = text.rpartition(": ")
    name, _, label = head.rpartition(", ")
    if sep and label in _SUMMED and name:
        text = f"{name}: {tail} {_SUMMED[label]}"
    if len(text) <= STATEMENT:
        return text
    head, sep, tail = text.rpartition(": ")
    if sep and len(tail) <= STATEMENT // 2:
        return f"{cut(head, STATEMENT - len(tail))}: {tail}"
    return cut(text, STATEMENT)


def reading(item: Evidence, cat: Catalogue | None = None, lang: str = "en") -> str:
    """The fact itself, as short as it can be said: ``NCCL_P2P_DISABLE=1``, ``--max-num-seqs 4``, a quote, a figure."""
    label = item.subject.label or ""
    if item.signal == "env.var":
        return printable(f"{label}={item.value}")
    if item.signal == "serving.arg":
        return printable(f"--{label}" + ("" if item.value in (True, "true") else f" {item.value}"))
    if item.signal == "version":
        return printable(f"{label} {item.value}")
    if lang == "zh":
        return _zh(item, cat)
    if item.kind in ("derived", "absent") or (
        item.unit and item.statement.rstrip("。.")[-1:].isascii() and _told(item)
    ):
        return said_statement(item)
    return f"“{core(item)}”" if item.quote else said_statement(item)


def _told(item: Evidence) -> bool:
    """Does the statement say its figure? That of a mark only says what it means."""
    return not item.quote or bool(re.search(r"\d", item.statement)) or isinstance(item.value, str)


def core(item: Evidence) -> str:
    """What a line says, without the time, process and level in front of it where it is long."""
    text = quoted(item, 400).replace("“", '"').replace("”", '"')  # ours say where the quote begins and ends
    words = text.split(" ")
    first = 0
    while len(" ".join(words[first:])) > QUOTE and first < len(words) - 3 and _PREFIX.fullmatch(words[first]):
        first += 1
    return cut(" ".join(words[first:]), QUOTE)


def _zh(item: Evidence, cat: Catalogue | None) -> str:
    label = printable(item.subject.label or "")
    known = cat.spoken_zh["signals"] if cat is not None else {}
    if item.signal == "compare.ratio" and label.count("|") == 3:
        _, metric, worse, better = (cut(p, 40) for p in label.split("|"))
        if told := _COMPARED.fullmatch(item.statement.rstrip("。.")):
            _, slow, _, fast, _ = told.groups()
            return f"{metric or '指标'} 在“{worse}”下为 {slow}，在“{better}”下为 {fast}"
        return f"{metric or '指标'} 在“{worse}”和“{better}”之间差 {amount(item)} 倍"
    if item.signal in known:
        about = "".join(
            f"（{name}{value}）"
            for name, value in (("", _SUMMED_ZH.get(label, cut(label, 32))), ("GPU ", item.subject.gpu))
            if value not in ("", None)
        )
        return f"{known[item.signal]}{about} {amount(item)}"
    if item.quote:
        return f"“{core(item)}”"
    return f"“{said_statement(item)}”"


def cite(item: Evidence, cat: Catalogue | None = None, lang: str = "en") -> str:
    """``statement [E3, file:line]``, with the quote where the statement does not repeat it."""
    if lang == "zh":
        return f"{reading(item, cat, lang)} [{reference(item)}]"
    if item.signal in ("env.var", "serving.arg", "version"):
        return f"{reading(item, cat, lang)} [{item.id}, {where(item)}]"
    quote = quoted(item).replace("“", '"').replace("”", '"')
    body = item.statement.rstrip("。.")
    if item.kind == "observed" and quote and str(item.value) not in body:
        body = f"{body}: “{quote}”"
    return f"{body} [{item.id}, {where(item)}]"


def support(items: list[Evidence], w: Words, cat: Catalogue, lang: str, known: str = "") -> list[str]:
    """Sentences around facts, one a kind; what kind of fact it is decides how it is told.

    Args:
        known: what has been said already; a reading in it is not told again.
    """
    told: dict[str, list[str]] = {}
    for item in items:
        fact = reading(item, cat, lang)
        if fact not in known:
            frame = w.computed if item.kind == "derived" and not told and not known else _frame(item, w)
            told.setdefault(frame, []).append(f"{fact} [{reference(item)}]")
            known += fact
    return [frame.format(facts=w.join.join(facts)) for frame, facts in told.items()]


def _frame(item: Evidence, w: Words) -> str:
    if item.kind == "absent":
        return w.absent
    if item.kind == "derived":
        return w.derived
    if _SETTINGS.search(item.signal):
        return w.setting
    if item.unit or isinstance(item.value, (int, float)):
        return w.figure
    return w.line


def reason_text(cat: Catalogue, text: str, lang: str) -> str:
    """A reason of the report in one language; an English one that has no Chinese is quoted."""
    if lang != "zh":
        return text
    known = cat.spoken_zh["reasons"]
    if text in known:
        return known[text]
    parts = text.split("; ")
    said = [known.get(p) or phrase(cat, p) for p in parts]
    if said and said[0] != parts[0]:
        return "；".join(s if re.search(r"[一-鿿]", s) else f"“{s}”" for s in said)
    return text if re.search(r"[一-鿿]", text) else f"“{text}”"


def phrase(cat: Catalogue, text: str) -> str:
    """An English text made of fixed phrases and figures, in Chinese; what no phrase fits stays."""
    for english, chinese in cat.spoken_zh["phrases"].items():
        text = re.sub(english, chinese, text)
    return text.replace(", ", "，").replace("; ", "；") if re.search(r"[一-鿿]", text) else text


def limit_line(limit: Limit, w: Words = EN, cat: Catalogue | None = None, lang: str = "en") -> str:
    """``all-reduce busbw, 2 GPUs, NV18: 27.1 of 370.8 GB/s (7 %)`` or why there is no ceiling."""
    what = phrase(cat, limit.what) if lang == "zh" and cat is not None else limit.what
    if limit.limit is None or limit.ratio is None:
        why = limit.reason or ""
        return w.no_limit.format(
            what=what, measured=f"{limit.measured:g}", unit=limit.unit,
            why=reason_text(cat, why, lang) if cat is not None else why,
        )  # fmt: skip
    frame = w.floor if is_floor(limit) else w.limit
    return frame.format(
        what=what, measured=figure(limit.measured), limit=figure(limit.limit), unit=limit.unit,
        ratio=f"{limit.ratio:.0%}", times=f"{limit.ratio:.1f}",
    )  # fmt: skip


def figure(value: float) -> str:
    """A figure beside its limit: four digits tell them apart."""
    return f"{value:.0f}" if abs(value) >= _LONG else f"{value:.4g}"


def telling(report: Report) -> list[Limit]:
    """Limits worth saying: those that back the verdict, the most telling first."""
    small = {s.floor for s in report.stages if s.floor and s.share is not None and s.share < _MINOR}
    known = [x for x in report.limits if x.ratio is not None and not (x.limit and x.limit / 1000 in small)]
    if report.verdict == "cause":  # a time that is near its floor is not what is wrong
        known = [x for x in known if not (is_floor(x) and met(x))]
    known.sort(key=lambda x: (abs((x.ratio or 1.0) - 1.0) * (-1 if report.verdict == "cause" else 1), x.what))
    return known[:2] or [x for x in report.limits if x.ratio is None][:1]


def names_of(report: Report, cat: Catalogue) -> list[str]:
    """Causes found that the catalogue knows."""
    return [f.cause for f in report.findings if f.cause in cat.causes]
