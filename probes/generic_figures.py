"""Figures with units out of any text, and the metric that the words around them name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from diagnose import units
from diagnose.catalogue import catalogue
from diagnose.lazy import regex

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.\d{1,12})?(?:[eE][-+]?\d{1,3})?"
# Rates outside the closed list of units; they count something per second.
_RATES = (
    "iterations/s", "iterations/sec", "iters/s", "iter/s", "it/s", "steps/s", "steps/sec", "samples/s", "samples/sec",
    "images/s", "images/sec", "imgs/s", "img/s", "img/sec", "ops/s", "ops/sec", "msgs/s", "msg/s", "frames/s", "fps",
    "batches/s", "seqs/s", "examples/s", "iops", "pps", "样本/秒",
)  # fmt: skip
_CJK = {"token/秒": "tokens/s", "tokens/秒": "tokens/s", "个token/秒": "tokens/s", "gb/秒": "GB/s", "请求/秒": "req/s"}
_SINGLE = frozenset("bchswx")  # one-letter spellings need care: "8B" is a model, "4 h" a unit, "x16" a width
_PER = (
    r"(?:\s?/\s?|\s+per\s+)(?P<per>it|iter|iteration|step|batch|tok|token|op|operation|call|desc|descriptor|req"
    r"|request"
    r"|image|sample|gpu|user|msg|layer|block|epoch|rank|chunk|transfer|packet|event)s?(?![A-Za-z/])"
)


def _alternation() -> str:
    words = {*units._SPELLINGS, *(s.lower() for s in units._CASED), *_RATES, *_CJK} - {"count", "fraction", "gb/sec."}
    return "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w)))


_CORE = (
    rf"(?P<number>{_NUMBER})"
    rf"(?:(?P<space>[ \u00a0]?)(?P<adj>(?:total|output|input|prompt|generated|decode"
    rf"|prefill)[ ])?(?P<unit>{_alternation()})"
    rf"(?:(?<=[^\x00-\x7f])|(?![A-Za-z0-9_/])|(?=(?:\s?/\s?|\s+per\s+)[a-z]))(?:{_PER})?"
    r"|(?P<mult>[kKM])(?![A-Za-z0-9_])"
    r"|-(?P<hyphen>byte|token|bit|way|node|GPU|gpu)(?![a-z])"
    r"|(?![A-Za-z0-9_]|\.\d|:\d|/\d|,\d))"
)
_FIGURE = regex(r"(?<![A-Za-z0-9_.])(?<![0-9][:/,+])(?<![A-Za-z0-9)\]]-)(?<![A-Za-z]/)" + _CORE, re.IGNORECASE)
_BARE = regex(_CORE, re.IGNORECASE)
_RANGE = regex(r"\s?(?:-|–|~|to|至|到)\s?(?=\d)")
_DATE = regex(r"\d{4}[-/]\d\d[-/]\d\d|\d{1,2}:\d\d(?::\d\d)?|0x[0-9a-fA-F]+|\d+(?:\.\d+){2,}")
_STAT = regex(
    r"\b(p\d{2}(?: ?9)?|median|mean|avg|average|max(?:imum)?|min(?:imum)?|std(?:dev)?|stddev|worst|best|peak)\b"
    r"|平均|中位|最大|最小",
    re.IGNORECASE,
)
_STATS = {
    "median": "p50", "avg": "mean", "average": "mean", "maximum": "max", "minimum": "min", "stddev": "std",
    "平均": "mean", "中位": "p50", "最大": "max", "最小": "min", "worst": "max", "best": "min", "peak": "max",
}  # fmt: skip
_NAMES = regex(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|--[a-z][\w-]+")
_EACH = regex(r"(?:/|\bper[ -]?|\beach ?)(?:gpu|card|rank|device|chip)\b|每卡|单卡", re.IGNORECASE)
_SPELT_RATE = regex(r"(?:^|[\s_(])(tok|tokens|req|it|img|GB|MB)s?_(?:per_)?s(?:ec)?$", re.IGNORECASE)
_TOKENS_OF = regex(r"\btok(?:en)?s?(?: routed)? ?(?:/|per) ?(?:step|rank|expert|gpu|iter)", re.IGNORECASE)
_SOFT = str.maketrans(dict.fromkeys("_:-.()[]{}=,", " "))
_BY_UNIT = {
    "s": "time", "ms": "time", "us": "time", "GB/s": "bandwidth", "Gb/s": "bandwidth", "B": "bytes", "GiB": "bytes",
    "fraction": "fraction", "tokens/s": "throughput", "req/s": "request_rate", "W": "power", "MHz": "clock",
    "C": "temperature", "TFLOP/s": "flops", "count": "count",
}  # fmt: skip
_UNIT_BETTER = {
    "time": "lower",
    "bandwidth": "higher",
    "throughput": "higher",
    "request_rate": "higher",
    "flops": "higher",
}
_TIME = ("s", "ms", "us")
_DIGIT = regex(r"\d")
_KNOWN = 2048  # texts of which it is kept what they say: readers of tables, notes and rows look at the same ones


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the text.

    Attributes:
        start, end: characters of the line, unit included. text: the number as printed.
        value, unit: canonical; unit is None where the text prints none.
        raw: the printed unit. per: what it is counted per ("it", "token", "op"), or "".
    """

    start: int
    end: int
    text: str
    value: float
    unit: str | None
    raw: str = ""
    per: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure measures.

    Attributes:
        name: from the lexicon, the statistic appended. better: direction that is good, or None.
        known: words said so, not only the unit. counts: it can be a plain number.
    """

    name: str
    better: str | None
    known: bool
    counts: bool = False


def number(text: str) -> float:
    """``3,496,896`` -> 3496896.0."""
    return float(text.replace(",", ""))


def with_unit(value: float, spelling: str) -> tuple[float, str] | None:
    """Canonical value of a printed unit, rates outside the closed list as ``count``."""
    low = spelling.lower().strip()
    if low in _RATES:
        return value, "count"
    made = units.canonical(value, _CJK.get(low, spelling.strip()))
    return (float(f"{made[0]:.12g}"), made[1]) if made else None


def figures(text: str, limit: int = 40) -> list[Figure]:
    """Figures of one line, in order; dates, clock times, addresses, versions and ids are none."""
    return [*_figures(text, limit)] if _DIGIT.search(text) else []


@lru_cache(maxsize=_KNOWN)
def _figures(text: str, limit: int) -> tuple[Figure, ...]:
    holes = [hit.span() for hit in _DATE.finditer(text)]
    out: list[Figure] = []
    for hit in _FIGURE.finditer(text):
        if any(a <= hit.start("number") < b for a, b in holes):
            continue
        found = _figure(hit)
        if found is None:
            continue
        upper = _upper(text, found) if found.unit in (None, "count") else None
        if upper is not None and upper.unit != found.unit:
            made = with_unit(found.value, upper.raw) if upper.raw else None
            value, unit = made or (found.value, upper.unit)
            found = Figure(found.start, found.end, found.text, value, unit, upper.raw, upper.per)
        out.extend([found, upper] if upper else [found])
        if len(out) >= limit:
            break
    return tuple(out)


def _upper(text: str, lower: Figure) -> Figure | None:
    """The upper end of a range that starts with `lower`."""
    dash = _RANGE.match(text, lower.end)
    hit = _BARE.match(text, dash.end()) if dash else None
    upper = _figure(hit) if hit else None
    return upper if upper is not None and upper.value > lower.value else None


def _figure(hit: re.Match[str]) -> Figure | None:
    printed, raw = hit.group("number"), hit.group("unit") or ""
    value = number(printed)
    start, end = hit.start(), hit.end()
    if mult := hit.group("mult"):
        return Figure(start, end, printed, value * (1e6 if mult == "M" else 1e3), "count", mult)
    if hyphen := hit.group("hyphen"):
        return Figure(start, end, printed, value, "B" if hyphen.lower() == "byte" else None, "")
    if raw.lower() in _SINGLE and not _single(raw, hit.group("space"), value, printed):
        return Figure(start, hit.end("number"), printed, value, None) if hit.group("space") else None
    if not raw:
        return Figure(start, end, printed, value, None)
    made = with_unit(value, raw)
    if made is None:
        return Figure(start, hit.end("number"), printed, value, None)
    return Figure(start, end, printed, made[0], made[1], raw, (hit.group("per") or "").lower())


def _single(raw: str, space: str | None, value: float, printed: str) -> bool:
    if raw in ("s", "W", "C"):
        return True
    if raw == "B":  # 8B and 70B name models; 512B and 247 B are sizes
        return bool(space) or value > 700 or (value >= 64 and "." not in printed and int(value) & (int(value) - 1) == 0)
    return raw in ("x", "h") and not space


@lru_cache(maxsize=1)
def _lexicon() -> tuple[tuple[str, str | None, re.Pattern[str], frozenset[str]], ...]:
    rows = catalogue().axes.get("metrics", {})
    return tuple(
        (name, row.get("better"), re.compile(row["match"], re.IGNORECASE), frozenset(row.get("units", ())))
        for name, row in rows.items()
    )


def statistic(words: str) -> str:
    """``p99``, ``mean``, ``max`` … named by the words, or ""."""
    hit = _STAT.search(words.translate(_SOFT))
    if hit is None:
        return ""
    word = hit.group().lower().replace(" ", "")
    return _STATS.get(word, "std" if word.startswith("std") else word)


@lru_cache(maxsize=4096)
def name_metric(words: str, unit: str | None = None, raw: str = "", per: str = "") -> Metric:
    """The metric that `words` (and a unit) name."""
    words = _NAMES.sub(" ", words[:160])  # NCCL_ALGO and --decode-… name settings, not what is measured
    said = f"{words[:160]} {raw}" if unit == "tokens/s" else words[:160]
    soft = said.translate(_SOFT)
    if unit is None and (spelled := header_unit(words)):
        unit = (with_unit(1.0, spelled) or (1.0, None))[1]
    stat = statistic(words[:160])
    tail = f"_{stat}" if stat else ""
    if unit in (None, "count") and _TOKENS_OF.search(words):
        return Metric("tokens" + tail, None, True, True)
    if per in ("tok", "token") and unit in _TIME:
        return Metric("tpot" + tail, "lower", True)
    if per in ("it", "iter", "iteration", "step", "batch") and unit in _TIME:
        return Metric("step_time" + tail, "lower", True)
    if per in (
        "op",
        "operation",
        "desc",
        "descriptor",
        "transfer",
        "request",
        "req",
        "msg",
        "packet",
        "block",
        "call",
    ) and unit in ("B", "GiB"):
        return Metric("bytes_per_op" + tail, "higher", True)
    if raw.lower() in _RATES:
        return Metric("iterations" + tail, "higher", True)
    for name, better, pattern, allowed in _lexicon():
        if unit is not None and allowed and unit not in allowed:
            continue
        if pattern.search(soft) or (name in ("tpot", "throughput", "iterations") and pattern.search(said)):
            if name in ("throughput", "iterations", "flops") and _EACH.search(said):
                name = f"{name}_per_gpu"  # does not grow with the number of GPUs
            return Metric(name + tail, better, True, not allowed or "count" in allowed)
    name = _BY_UNIT.get(unit or "count", "count")
    return Metric(name + tail, _UNIT_BETTER.get(name), False)


_SIZE_IN_HEAD = regex(r"(?<![\w.])\d+(?:\.\d+)? ?(?:[KMGT]i?B|bytes)\s*$", re.IGNORECASE)


_SET_IN_HEAD = regex(r"\(\s*[~@]?\d[\d.,]*\s*[^()\d\s][^()]{0,12}\)\s*$")


@lru_cache(maxsize=_KNOWN)
def header_unit(words: str) -> str:
    """Unit that a column head prints: ``TTFT (ms)``, ``busbw [GB/s]``, ``decode tok/s``, ``Idle %``; or ""."""
    for inner in re.findall(r"[(\[]([^()\[\]]{1,20})[)\]]", words[:200]):
        low = inner.strip().lower()
        if low in ("msecs", "msec") or (low and with_unit(1.0, inner) is not None):
            return str(inner).strip()
    if spelt := _SPELT_RATE.search(words.strip()[:200]):
        return f"{spelt[1]}/s"
    last = re.split(r"[\s,_]+", words.strip())[-1] if words.strip() else ""
    if _SIZE_IN_HEAD.search(words) or _SET_IN_HEAD.search(words):
        last = ""  # ``busbw 8 GB``: the size of a message; ``6 replicas (12 rps)``: the load that was set
    if len(last) > 1 or last in ("s", "%"):
        spelled = last.strip("()")
        if spelled not in ("min", "h", "c", "count", "fraction") and with_unit(1.0, spelled) is not None:
            return spelled
    # A rate needs no place of its own: ``int4 tok/s (kernel: exllama)``.
    rates = [w for w in words[:200].split() if "/s" in w and with_unit(1.0, w) is not None]
    return rates[0] if len(rates) == 1 else ""


_CELL = regex(rf"^[\s~≈<>≤≥+\u2192-]*(?:0 ?-> ?|-> ?)?(?P<number>{_NUMBER})\s*(?P<rest>[^\d\s].{{0,24}})?$")


@lru_cache(maxsize=_KNOWN)
def cell(text: str, head_unit: str = "") -> Figure | None:
    """The one figure that a table cell is, or None for a cell that is words."""
    text = text.strip().strip("*`")
    if not text or len(text) > 48:
        return None
    hit = _CELL.match(text)
    if hit is None:
        return None
    found = figures(text[hit.start("number") :])
    if not found or found[0].start != 0:
        return None
    rest = text[hit.start("number") + found[0].end :].strip()
    if rest and not re.match(r"^[(*±†!←<]|^\+?/?-", rest):
        return None
    if found[0].unit is None and head_unit:
        made = with_unit(found[0].value, head_unit)
        if made is not None:
            return Figure(0, len(text), found[0].text, made[0], made[1], head_unit, found[0].per)
    return found[0]
