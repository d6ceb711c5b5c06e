"""How one fact is said: the reading itself, a sentence around it, a limit, in either language.

Machine output stays what it is in both languages: it is quoted, shortened, and never translated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from .answer_fit import cut
from .answer_terms import alike, aloud, metric, named, restates, sized, split
from .answer_words import EN, Words
from .catalogue import Catalogue
from .document import printable
from .limits import is_floor, met
from .models import Evidence, Limit, Report
from .units import percent

MOST_PLACES = 2  # of what a figure was worked out from

QUOTE = 64  # characters of machine output that one says aloud
STATEMENT = 100
_BETWEEN = re.compile(r"between (\S+) (\S+) and (\S+): ")
_MINOR = 0.1  # of the whole: how far such a stage is from its floor explains nothing
_LONG = 10_000  # from here on all digits are said, not a power of ten
_PREFIX = re.compile(
    r"\[|[\[(<]?[\w.:/,+@=-]*\d[\w.:/,+@=-]*[\])>]?:?|\S*\]|\(?(?:INFO|WARN(?:ING)?|ERROR|DEBUG|NCCL|EE|\S+\.\w+)\)?:?"
)
_COMPARED = re.compile(r"(.+?)( at .+?)?: (\S+(?: \S+)?) with '(.*?)' beside (\S+(?: \S+)?) with '(.*?)'")
_UNITS = ("B", "GiB", "fraction", "s", "ms", "us", "GB/s", "tokens/s", "FLOP/s")
_DIGITS = re.compile(r"(?<=: )(?=\d+\.\d)(?:\d\.?){6,}(?: [^ \d]\S*)?$")
_SUMMED = {"peak": " at the peak", "total": " in all", "max": " at most", "min": " at least", "mean": " on average",
           "last": " most recently", "as written": "", "repeated": "", "held": "", "kernel": ""}  # fmt: skip
_SUMMED_ZH = {"peak": "峰值", "total": "合计", "max": "最大", "min": "最小", "mean": "平均", "last": "最近一次",
              "as written": "", "repeated": "", "held": "", "kernel": ""}  # fmt: skip
_AMOUNT = re.compile(
    r"[(\[]?\d[\d.,]*(?:%|W|C|V|[kMGT]?i?B(?:/s)?|[num]?s|[MG]?Hz|tok/s)[)\]]?[,;:]?"
)  # no time, no process
_FILE = re.compile(r"\S*\w\.(?:cc|cu|cpp|c|h|py):\d+\]?:?")
_FEW = 5  # words: fewer say nothing by themselves
_NAMED = 32  # characters of a text value that is said as it is
_SETTINGS = re.compile(r"^env\.var$|\.arg$|^(?:nccl|ucx|mpi|torch)\.(?:env|param|config)")


def where(item: Evidence) -> str:
    """``file:line`` of an evidence, or how it came about."""
    if item.capture is not None:
        return f"{item.capture.name}:{item.capture.line}"
    return item.formula or item.kind


def origin(item: Evidence, known: Mapping[str, Evidence]) -> str:
    """Where an evidence stands; of one that was worked out the formula, and where what goes in stands."""
    if item.capture is not None or not item.inputs:
        return where(item)
    places = dict.fromkeys(where(e) for e in _leaves(item, known))
    more = " …" if len(places) > MOST_PLACES else ""
    return f"{where(item)} ← {', '.join(list(places)[:MOST_PLACES])}{more}" if places else where(item)


def _leaves(item: Evidence, known: Mapping[str, Evidence]) -> Iterator[Evidence]:
    """The readings at the bottom of what was worked out."""
    for ident in item.inputs:
        below = known.get(ident)
        if below is not None and below.capture is not None:
            yield below
        elif below is not None:
            yield from _leaves(below, known)


def quoted(item: Evidence, width: int = 110) -> str:
    """The first line of the quote, cut to `width`."""
    text = printable(" ".join((item.quote or "").split()))
    return text if len(text) <= width else text[: width - 1] + "…"


def quoted_at(item: Evidence, width: int) -> str:
    """The quote, cut to `width` about the reading where that stands further back than so."""
    text = printable(" ".join((item.quote or "").split()))
    if len(text) <= width:
        return text
    value = item.value
    forms = [str(item.subject.label or ""), str(value)]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        forms = [f"{v:{f}}" for v in (value, value * 100) for f in ("g", ",.0f", ".0f", ".1f", ".2f")]
    for form in filter(None, forms):
        found = re.search(rf"(?<![\w.]){re.escape(form)}(?![\w.]?\d)", text)
        if found:
            if found.end() < width:
                break
            start = max(0, min(found.start() - width // 3, len(text) - width + 1))
            start = text.find(" ", start, found.start()) + 1 or start
            return "…" + cut(text[start:], width - 1)
    return text[: width - 1] + "…"


def reference(item: Evidence) -> str:
    """``E3, file:line``, or the id alone for what was computed."""
    if item.capture is None:
        return item.id
    return f"{item.id}, {item.capture.name.rpartition('/')[2]}:{item.capture.line}"  # the folders are not said aloud


def amount(item: Evidence) -> str:
    """The value with its unit, as one says it."""
    value = item.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    if item.unit == "fraction":
        return f"{value:.3g}" if abs(value) > 1.5 else f"{value * 100:.{3 if abs(value) >= 0.01 else 1}g} %"
    if item.unit in ("B", "ms", "us"):
        return sized(value, item.unit)
    if item.unit == "GiB" and abs(value) < 1:
        return f"{value * 1024:.4g} MiB"
    ratio = item.kind == "derived" and item.unit in (None, "count") and abs(value) < 1000
    shown = f"{value:,.0f}" if abs(value) >= _LONG else f"{value:.{3 if ratio else 4}g}"
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


def in_list(item: Evidence, cat: Catalogue, lang: str) -> str:
    """The fact as it stands in a list of evidence; what was compared or worked out with its figure."""
    if lang == "zh":
        return reading(item, cat, lang)
    return said_statement(item, cat) if item.kind == "derived" else in_percent(item)


def said_statement(item: Evidence, cat: Catalogue | None = None, gpus: str = "") -> str:
    """The statement as it is said: shares in percent, what was compared in words; its middle left out where long.

    Args:
        gpus: indices to name instead of the item's own, where several read the same.
    """
    text = re.sub(r" ([,;])", r"\1", item.statement.rstrip("。."))
    if told := _COMPARED.fullmatch(text):
        text = _compared(item, told, cat)
    elif (item.unit == "fraction" and text.endswith(" fraction")) or re.search(r": \d[\d.]*e\+\d+( \S+)?$", text):
        text = text.rpartition(": ")[0] + f": {amount(item)}"
    text = _figured(item, aloud(_placed(item, _shortened(item, text), gpus)))
    text = named(text, cat) if cat is not None else text
    if len(text) <= STATEMENT:
        return text
    head, sep, tail = text.rpartition(": ")
    if sep and len(tail) <= STATEMENT // 2:
        return f"{cut(head, STATEMENT - len(tail))}: {tail}"
    return cut(text, STATEMENT)


def _compared(item: Evidence, told: re.Match[str], cat: Catalogue | None) -> str:
    """Two figures of one metric under two settings."""
    name, where_, worse, a, better, b = told.groups()
    axis = (item.subject.label or "").partition("|")[0].replace("_", " ")
    at = f"at {axis}" if re.fullmatch(r"[\d.,]+", a) and re.fullmatch(r"[a-z ]{3,20}", axis) else "with"
    worse, better = alike(worse, better)
    name = metric(name, cat)
    name += "" if restates(where_ or "", name) else cut(where_ or "", STATEMENT // 3)
    return f"{cut(name, STATEMENT // 2)} is {worse} {at} {cut(a, 32)} and {better} {at} {cut(b, 32)}"


def _placed(item: Evidence, text: str, gpus: str) -> str:
    """``PCIe lanes now, gpu 1, board A: 4`` as ``PCIe lanes now: 4 on GPU 1 (board A)``."""
    who = item.subject.model_dump()
    told = [f"{name} {value}" if name != "label" else str(value) for name, value in who.items() if value is not None]
    head, sep, tail = text.rpartition(": ")
    if isinstance(item.value, float) and tail == f"{item.value:g} {item.unit}".removesuffix(" count"):
        tail = amount(item)  # a statement made by rule, whose figure may be rounded as others are
    tailed = ", " + ", ".join(told)
    if not sep or not told or not head.endswith(tailed):
        return head + sep + tail
    called = {"gpu": f"GPU {who['gpu']}", "rank": f"rank {who['rank']}", "peer": f"with peer {who['peer']}"}
    if gpus:
        called["gpu"] = f"GPUs {gpus}"
    places = [called.get(n, str(v)) for n, v in who.items() if v is not None and n != "label"]
    head, label = head[: -len(tailed)], _label(item)
    after = _SUMMED.get(label)
    if after is None and label:
        head += f" ({aloud(label.replace('|', ', '))})"
    return f"{head}: {tail}{' on ' + ', '.join(places) if places else ''}{after or ''}"


def _label(item: Evidence) -> str:
    """What else a fact is about, where that is no mere number of ours and says no word twice."""
    label = printable(item.subject.label or "")
    first, _, second = label.partition(": ")
    said = label.lower() in item.statement.partition(f", {label}")[0].lower().split()
    return "" if label.isdigit() or said else first if first == second else label


def _figured(item: Evidence, text: str) -> str:
    """A sentence about a figure that was worked out, with that figure if it does not say it."""
    value = item.value
    if item.kind != "derived" or isinstance(value, bool) or not isinstance(value, (int, float)) or ": " in text:
        return text
    if _COMPARED.fullmatch(item.statement.rstrip("。.")) or (item.unit not in _UNITS and re.search(r"\d", text)):
        return text
    figures = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
    told = any(math.isclose(n, v, rel_tol=0.02) for n in figures for v in (value, value * 100))
    return text if told or amount(item).partition(" ")[0] in text else f"{text}: {amount(item)}"


def reading(item: Evidence, cat: Catalogue | None = None, lang: str = "en", gpus: str = "") -> str:
    """The fact itself, as short as it can be said: ``NCCL_P2P_DISABLE=1``, ``--max-num-seqs 4``, a quote, a figure."""
    label = item.subject.label or ""
    if item.signal == "env.var":
        return printable(f"{label}={item.value}")
    if item.signal == "serving.arg":
        return printable(f"--{label}" + ("" if item.value in (True, "true") else f" {item.value}"))
    if item.signal == "version":
        return printable(f"{label} {item.value}")
    if _SETTINGS.search(item.signal) and label and f"{label}=" in (item.quote or ""):
        return printable(f"{label}={item.value}")
    if item.signal == "release.change":
        return _change(item, cat, lang)
    if lang == "zh":
        return _zh(item, cat, gpus)
    if item.kind in ("derived", "absent") or not item.quote or _speaks(item):
        return _equals(item, said_statement(item, cat, gpus))
    return f"“{core(item)}”"


def _speaks(item: Evidence) -> bool:
    """Is the statement clearer than the line? It is for a figure, and for a word in a row of a table or a log."""
    if item.unit:
        return item.statement.rstrip("。.")[-1:].isascii() and _told(item)
    return _is_name(item) and item.statement.endswith(f": {item.value}")


def _is_name(item: Evidence) -> bool:
    """A model, a state, a path type: a value of a word or three, not a sentence and not what the fact is called."""
    value = item.value
    if not isinstance(value, str) or len(value) > _NAMED or value.count(" ") > 3:
        return False
    return value.lower() not in item.statement.removesuffix(f": {value}").lower()


def opaque(item: Evidence) -> bool:
    """Does its reading mean little to who does not know what it is a sign of?"""
    if _SETTINGS.search(item.signal) or item.signal in ("serving.arg", "version", "release.change") or item.unit:
        return False
    if item.kind != "observed" or not item.quote:
        return False
    return _speaks(item) or len(re.findall(r"[A-Za-z]{2,}", core(item))) < _FEW


def _equals(item: Evidence, text: str) -> str:
    """``copy bandwidth: 4.8 GB/s``, to stand behind a colon: ``copy bandwidth = 4.8 GB/s``."""
    head, sep, tail = text.rpartition(": ")
    value = sep and (re.match(r"[-+]?\d", tail) or (_is_name(item) and tail.startswith(str(item.value))))
    return f"{head} = {tail}" if value else text


def _change(item: Evidence, cat: Catalogue | None, lang: str) -> str:
    """A changed default with the releases that it lies between; its quote is but the version."""
    said = {c.what: c.zh for found in cat.changes.values() for c in found} if cat is not None and lang == "zh" else {}
    told = _BETWEEN.match(item.statement)
    if told is None or not said.get(str(item.value)):
        return printable(item.statement)
    return printable(f"从 {told[1]} {told[2]} 到 {told[3]}，{said[str(item.value)]}")


def _told(item: Evidence) -> bool:
    """Does the statement say its figure? That of a mark only says what it means."""
    return not item.quote or bool(re.search(r"\d", item.statement)) or isinstance(item.value, str)


def _in_front(word: str) -> bool:
    return bool(_PREFIX.fullmatch(word)) and not _AMOUNT.fullmatch(word)


def core(item: Evidence) -> str:
    """What a line says, without the time, process and level in front of it where it is long; its value stands in it."""
    text = quoted(item, 400).replace("“", '"').replace("”", '"')  # ours say where the quote begins and ends
    words = text.split(" ")
    first = 0
    while len(" ".join(words[first:])) > QUOTE and first < len(words) - 3 and _in_front(words[first]):
        first += 1
    if first and _FILE.fullmatch(words[first - 1]) and len(" ".join(words[first - 1 :])) <= QUOTE + QUOTE // 4:
        first -= 1  # which source file says so, where all that it says is an error
    told = re.sub(r"^(?:\{\}|[,;:}\])])[,;:\s]*", "", " ".join(words[first:]))  # what is left of something cut
    short = told if len(told) <= QUOTE + QUOTE // 4 and first and _FILE.fullmatch(words[first]) else cut(told, QUOTE)
    value = item.value if isinstance(item.value, str) else ""
    if 4 <= len(value) <= QUOTE // 2 and value not in short and value in told:
        return "…" + cut(told[told.index(value) :], QUOTE)
    return short


def _zh(item: Evidence, cat: Catalogue | None, gpus: str) -> str:
    label = _label(item)
    known = cat.spoken_zh["signals"] if cat is not None else {}
    if item.signal == "compare.ratio" and label.count("|") == 3:
        axis, name, worse, better = (cut(p, 40) for p in label.split("|"))
        worse, better = (f"{axis}={p}" if p.isdigit() else p for p in (worse, better))
        name = metric(name, cat, "zh") or "指标"
        if told := _COMPARED.fullmatch(item.statement.rstrip("。.")):
            at, (slow, fast) = told[2], alike(told[3], told[5])
            # A phrase of the text itself is quoted; a length or a count is not.
            place = "" if restates(at or "", metric(label.split("|")[1])) else (at or "").removeprefix(" at ")
            at = f"（“{place}”）" if place.count(" ") > 3 else f"（{place}）" if place else ""
            name += " " if name.isascii() and not at else ""
            return f"{name}{at}在“{worse}”下为 {slow}，在“{better}”下为 {fast}"
        return f"{name}在“{worse}”和“{better}”之间差 {float(item.value or 0):.3g} 倍"
    if item.signal == "figure" and cat is not None:
        name, _, label = label.partition("|")
        known = {"figure": metric(name, cat, "zh")}
    if item.signal in known:
        gpu = gpus.replace(" and ", "、").replace(", ", "、") or ("" if item.subject.gpu is None else item.subject.gpu)
        said = _SUMMED_ZH.get(label, cut(aloud(label.replace("|", "，")), 32))
        said = cat.spoken_zh["metrics"].get(label, said) if cat is not None else said
        if label.count("|") == 3:
            said = "{}对比{}".format(*(f"“{cut(p, 32)}”" for p in label.split("|")[2:]))
        about = f"（{said}）" if said and (said.count(" ") < 4 or "|" in label) else ""  # a clause of ours is no name
        who = [*filter(None, (item.subject.host, item.subject.nic))]
        who += [f"{what} {n}" for what, n in (("rank", item.subject.rank), ("GPU", gpu)) if n not in (None, "")]
        who += [f"到 {item.subject.peer}"] if item.subject.peer is not None else []
        name = known[item.signal].removeprefix("GPU " if gpu not in (None, "") else "\0")
        is_ = "为 " if about or isinstance(item.value, str) else " "
        is_ = " " + is_ if is_ != " " and not about and name[-1].isascii() else is_
        return f"{''.join(f'{w} ' for w in who)}{name}{about}{is_}{amount(item)}"
    # a figure worked out over a whole trace or table does not stand in the row that it points at
    if item.quote and not (item.kind == "derived" and item.quote.lstrip().startswith("{")):
        return f"“{core(item)}”"
    return f"“{said_statement(item, cat)}”"


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

    What several GPUs read alike is told once for all of them; a figure that was told, in whatever words, and a second
    comparison of one metric are left out.

    Args:
        known: what has been said already; a reading in it is not told again.
    """
    told: dict[str, list[str]] = {}
    figures: dict[object, str] = {}
    for group in _alike(items):
        item = group[0]
        gpus = sorted({e.subject.gpu for e in group if e.subject.gpu is not None})
        fact = reading(item, cat, lang, _listed(gpus) if len(gpus) > 1 else "")
        same = _figure_of(item)
        if fact not in known and (same is None or figures.get(same, item.signal) == item.signal):
            frame = _frame(item, w)
            if frame == w.derived and not told and not known:
                frame = w.computed
            if item.kind == "derived" and fact.startswith("“"):
                frame = w.line
            elif frame == w.line and not fact.startswith("“"):
                frame = w.reading
            told.setdefault(frame, []).append(f"{fact} [{'; '.join(reference(e) for e in group)}]")
            known += fact
        if same is not None:
            figures[same] = "" if item.signal == "compare.ratio" else item.signal
    return [frame.format(facts=w.join.join(facts)) for frame, facts in told.items()]


def _alike(items: list[Evidence]) -> list[list[Evidence]]:
    """Items in their order, those that differ in the GPU only together."""
    out: dict[object, list[Evidence]] = {}
    for item in items:
        who = item.subject
        alone = item.id if who.gpu is None or item.kind == "absent" else ""
        rest = (who.host, who.rank, who.nic, who.peer, who.label)
        out.setdefault((alone, item.signal, item.value, item.unit, rest), []).append(item)
    return list(out.values())


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def _figure_of(item: Evidence) -> object:
    """What makes two facts one figure: the same amount of a unit, or a metric that was compared."""
    if item.signal == "compare.ratio":
        return split((item.subject.label or "").split("|")[1])[0] if "|" in (item.subject.label or "") else None
    plain = isinstance(item.value, bool) or not isinstance(item.value, (int, float))
    return None if plain or item.unit in (None, "count") else (f"{item.value:.4g}", item.unit)


def _frame(item: Evidence, w: Words) -> str:
    if item.kind == "absent":
        return w.absent
    if item.signal == "release.change":
        return w.release
    if item.signal == "compare.ratio":
        return w.compared
    if item.kind == "derived" and not (item.unit == "count" and float(str(item.value or 0)).is_integer()):
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
        ratio=percent(limit.ratio), times=f"{limit.ratio:.1f}",
    )  # fmt: skip


def figure(value: float) -> str:
    """A figure beside its limit: four digits tell them apart."""
    return f"{value:.0f}" if abs(value) >= _LONG else f"{value:.4g}"


_WELL = 0.6  # of a ceiling


def telling(report: Report) -> list[Limit]:
    """Limits worth saying: those that back the verdict, the most telling first."""
    small = {s.floor for s in report.stages if s.floor and s.share is not None and s.share < _MINOR}
    # a reason beside a ratio doubts it: what lies above its ceiling was not measured against that
    held = [x for x in report.limits if x.ratio is not None and x.reason is None]
    known = [x for x in held if not (x.limit and x.limit / 1000 in small)]
    if report.verdict == "cause":  # a time that is near its floor is not what is wrong
        known = [x for x in known if not (is_floor(x) and met(x))]
        own = {i for f in report.findings for i in f.reasons}  # a link that does well is no news beside another cause
        known = [x for x in known if is_floor(x) or (x.ratio or 0.0) < _WELL or own & set(x.evidence)]
    known.sort(key=lambda x: (abs((x.ratio or 1.0) - 1.0) * (-1 if report.verdict == "cause" else 1), x.what))
    return known[:2] or [x for x in report.limits if x.ratio is None][:1]


def names_of(report: Report, cat: Catalogue) -> list[str]:
    """Causes found that the catalogue knows."""
    return [f.cause for f in report.findings if f.cause in cat.causes]
