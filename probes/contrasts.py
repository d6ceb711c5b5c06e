"""Lines or rows that time the same work in two ways, where the words say what was changed.

The generic reader compares settings on named axes. Here the words of the slower line and of the faster line
together name a mechanism: padded against unpadded tiles, made-up against decoded input, logging against none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import divided, excerpt, fact
from .generic_tables import tables

_SMALL = 64 << 10
_TIME = regex(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?(ns|us|µs|μs|ms|s|sec|min|h|毫秒|秒|分钟)(?: ?/ ?(?:step|it"
    r"|iter|iteration|batch|epoch|步))?(?![\w/])"
)
_RATE = regex(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?((?:GB|TB|it|iters?|img|imgs|images|samples|clips|frames|seqs?|tok(?:ens)?"
    r"|batches|examples|steps)/s(?:ec)?"
    r"|TFLOP/?s|TFLOPS|GFLOPS|fps|(?:样本|图|张|步|条)/秒)(?:/GPU)?(?![\w])",
    re.IGNORECASE,
)
_TO = regex(r"^\s*(?:->|→|=>|to|down to|降到|变成|到)\s*$", re.IGNORECASE)
_MS = {
    "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "毫秒": 1.0, "s": 1e3, "sec": 1e3, "秒": 1e3,
    "min": 6e4, "分钟": 6e4, "h": 3.6e6,
}  # fmt: skip

# name, words of the slower line, words of the faster line
_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "padding",
        r"\[\w+\]\[\w+\](?!\s*\+)|\bunpadded|no(?:t|n)?[- ]?padd|without (?:padding|swizzl)|conflict(?!.free)"
        r"|stride (?:8|16|32|64)\b|naive",
        r"\[\w+\]\[\w+ ?\+ ?\w+\]|\[(?:16|32|64|128)\]\[(?:17|33|65|129|36|40|72)\]|\bpadd?(?:ed|ing)?\b"
        r"|\bpad ?[=+]|swizzl|conflict[- ]?free|no conflicts?"
        r"|步长从 ?\d+ ?(?:改成|改为|变成) ?\d*[13579](?!\d)|加(?:了)?(?:一列)? ?pad",
    ),
    (
        "layout",
        r"(?:tid|threadIdx\.x|lane|idx) ?\* ?\w|\bapart\b|\bstrid(?:e|ed)\b(?! ?=? ?1\b)|\baos\b"
        r"|array of structs|column[- ]?(?:wise|major)|non-?contig"
        r"|permute|transposed? (?:view|read|write)|uncoalesc|non-?coalesc|scatter|random (?:access|order|ind)"
        r"|跨步|不连续|按列",
        r"\+ ?(?:tid|threadIdx\.x|lane|idx)\b|neighbou?ring (?:threads, neighbou?ring )?words|\bsoa\b"
        r"|struct of arrays|row[- ]?(?:wise|major)|\bcontig"
        r"|(?<!un)(?<!non-)coalesced|linear|sequential|stride ?=? ?1\b|连续|合并|按行",
    ),
    (
        "order",
        r"unsorted|random|mixed|shuffled|unbalanced|irregular|if/else|branch(?:y|es|ing)\b|diverg|as (?:read|is)"
        r"|乱序|随机|未排序",
        r"(?<!un)sorted|(?<!un)balanced|grouped|binned|compact(?:ed|ion)|branch-?(?:less|free)|predicat|uniform"
        r"|排序|排好|分组",
    ),
    (
        "input",
        r"real|jpe?g|decod|\bcpu\b|nfs|\bs3\b|disk|online|on the fly|imagenet|dataset|dataloader|workers"
        r"|tokeni[sz]|augment|在线|读取|真实|解码|原始",
        r"synthetic|random (?:tensors?|data|input|images)|dummy|fake|cached|same batch|fixed batch|one batch"
        r"|no (?:decod|load|augment|data)|without (?:load|decod|data)"
        r"|\bdali\b|nvdec|nvjpeg|pre-?(?:decoded|tokenized|tokenised|processed|computed)|in (?:ram|memory)"
        r"|/dev/shm|同一个 ?batch|固定 ?batch|不取数据|预解码|预处理好|合成|随机数据|缓存",
    ),
    (
        "sync",
        r"\.item\(|\.cpu\(|\.tolist\(|\.nonzero\(|print|log(?:ging)?(?:_every(?:_n_steps)?| every"
        r"| interval)?(?: step)?[ =:]{0,3}1\b|log(?:ging)? (?:loss )?(?:every|each|per) (?:step|iter)"
        r"|(?:every|each) (?:step|iter)|synchronize|launch_blocking ?= ?1|empty_cache|detect_anomaly|每步(?:打印"
        r"|记录|同步|调用)|nan.?check|每个 ?step",
        r"detach|every (?:\d{2,}|n)\b|(?:log_every(?:_n_steps)?|log(?:ging)?_interval"
        r"|logging_steps)[ =:]{0,3}\d{2,}|每 ?\d{2,} ?步|without|去掉|removed|disabled|commented|no (?:item"
        r"|print|log|sync)"
        r"|torch\.where|on (?:the )?gpu|异步|launch_blocking ?= ?0|unset|off\b",
    ),
    (
        "launches",
        r"\beager\b|foreach ?= ?false|for[- ]?loop|unfused|without (?:cuda ?)?graph|no (?:cuda ?)?graph"
        r"|one by one|per[- ]tensor|逐个|不用 ?(?:cuda ?)?graph",
        r"cuda ?graph|graph replay|reduce-overhead|foreach ?= ?true|(?<!un)fused|multi_?tensor|(?:with|\+) graph"
        r"|make_graphed|batched|max-autotune|vmap",
    ),
    (
        "splitting",
        r"split(?:[-_ ]?(?:kv|k))? ?[=:]? ?1\b|no split|without split|num_splits ?= ?1\b|one (?:block|cta) per"
        r"|不切分",
        r"split(?:[-_ ]?(?:kv|k))? ?[=:]? ?(?:[2-9]|\d{2,})\b|num_splits ?= ?(?:[2-9]|\d{2,})|flash-?decoding"
        r"|stream-?k|切分",
    ),
    (
        "shapes",
        r"dynamic ?= ?false|static shapes?|unpadded|variable (?:len|shape|size)|变长|不定长|raw lengths?",
        r"dynamic ?= ?true|mark_dynamic|padded to|padding to|bucket|fixed (?:len|shape|size)|补齐|定长|分桶",
    ),
)
_COMPILED = tuple((name, regex(worse, re.I), regex(better, re.I)) for name, worse, better in _WORDS)


@dataclass(frozen=True, slots=True)
class _Run:
    words: str
    level: float  # larger is worse
    text: str
    value: float
    unit: str
    line: Line


class Contrasts:
    """What changed between the slower and the faster way, by its words."""

    name = "contrasts"
    needles: tuple[bytes, ...] = (
        b" ms", b" us", b" s", b"/s", b"ms/", b"s/", b"FLOPS", b"fps", "/秒".encode(), b"ms ", b" min", b"(ms)",
        b"ms\n",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a mechanism."""
        lines = [line for line in excerpt(doc, _SMALL, 400, plain=True) if line.text.strip()]
        if len(lines) > 80:
            return
        runs, steps = list(_runs(lines)), _steps(lines)
        for name, worse, better in _COMPILED:
            made = _contrast(doc, name, runs, worse, better)
            if made is not None:
                yield made
            else:
                yield from _changed(doc, name, steps, better)


def _runs(lines: list[Line]) -> Iterator[_Run]:
    """Lines with their time, or their rate; rows of a table with the unit of its head."""
    used: set[int] = set()
    for table in tables(lines):
        for row in table.rows:
            words = f"{row.label} {' '.join(row.words)}"
            for figure in row.figures:
                if figure is not None and figure.unit in IN_MS:
                    level = figure.value * IN_MS[figure.unit]
                    yield _Run(words, level, figure.text, level, "ms", row.line)
                    break
            else:
                rate = next(
                    (f for f in row.figures if f and (f.unit in ("GB/s", "tokens/s", "TFLOP/s") or "/" in f.raw)), None
                )
                if rate is None or rate.value <= 0:
                    continue
                yield _Run(words, 1 / rate.value, rate.text, rate.value, "count", row.line)
            used.add(row.line.number)
    for line in lines:
        if line.number in used or len(line.text) > 300:
            continue
        time, per = _TIME.search(line.text), _RATE.search(line.text)
        if time is not None and float(time.group(1).replace(",", "")) > 0:
            ms = float(time.group(1).replace(",", "")) * _MS[time.group(2)]
            yield _Run(_without(line.text, time), ms, time.group(), ms, "ms", line)
        elif per is not None and (value := float(per.group(1).replace(",", ""))) > 0:
            yield _Run(_without(line.text, per), 1 / value, per.group(), value, "count", line)


def _without(text: str, hit: re.Match[str]) -> str:
    """The words of a line, without what it measured."""
    return f"{text[: hit.start()]} {text[hit.end() :]}"


def _contrast(
    doc: Document, name: str, runs: list[_Run], worse: re.Pattern[str], better: re.Pattern[str]
) -> Fact | None:
    for unit in ("ms", "count"):
        mine = [r for r in runs if r.unit == unit]
        fast = [r for r in mine if better.search(r.words)]
        slow = [r for r in mine if worse.search(r.words) and r not in fast]
        if not slow or not fast:
            continue
        a = max(slow, key=lambda r: r.level)
        b = min(fast, key=lambda r: abs(r.level - median(f.level for f in fast)))
        if a.level < 1.1 * b.level:
            continue
        first, second = (a, b) if unit == "ms" else (b, a)
        inputs = tuple(
            fact(doc, r.line, "variant.run", r.value, unit, around=r.text, label=r.words.strip()[:80])
            for r in (first, second)
        )
        return divided("variant.gain", inputs, subject=Subject(label=name), spans=(doc.span(a.line), doc.span(b.line)))
    return None


_Step = tuple[Line, list[re.Match[str]]]


def _steps(lines: list[Line]) -> list[_Step]:
    """Lines with two times, of which the first became the second."""
    timed = [(line, list(_TIME.finditer(line.text))) for line in lines]
    return [
        (line, found) for line, found in timed
        if len(found) == 2 and _TO.match(line.text[found[0].end() : found[1].start()])
    ]  # fmt: skip


def _changed(doc: Document, name: str, lines: list[_Step], better: re.Pattern[str]) -> Iterator[Fact]:
    """``with padding: 3.7 ms -> 1.6 ms``: one line that says what was changed."""
    for line, found in lines:
        words = f"{line.text[: found[0].start()]} {line.text[found[1].end() :]}"
        one, two = (float(h.group(1).replace(",", "")) * _MS[h.group(2)] for h in found)
        if better.search(words) and two > 0 and one >= 1.15 * two:
            inputs = tuple(
                fact(doc, line, "variant.run", v, "ms", around=h.group(), label=w)
                for v, h, w in ((one, found[0], "before"), (two, found[1], "after"))
            )
            yield divided("variant.gain", inputs, subject=Subject(label=name), spans=(doc.span(line),))
            return


READERS: list[Reader] = [Contrasts()]
