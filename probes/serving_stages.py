"""Where the time of a request goes: stage tables, lists in a line, `curl -w`, histograms of stages.

A stage is recognised by what it is called, in English or Chinese; its share is of the stated total,
or of the sum where at least three stages stand together. Only the largest share is a fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import divided, excerpt, in_cells
from .served import SCRAPE

_WORDS = (
    ("comm", r"all.?reduce|all.?gather|all.?to.?all|nccl|collective|通信"),
    ("total", r"\btotal\b|\bttft\b|\be2e\w*|end.?to.?end|overall|first (?:token|byte)|\bsum$|总|合计|首 ?(?:token|字|包)|全程"),  # noqa: E501
    ("transfer", r"\bkv\b.{0,12}(?:transfer|send|recv|receive|pull|push|fetch|load|xfer|migrat|handoff|copy|传输|拉取)|\bxfer\b|\bdecode transferred\b|transfer(?:ring)? (?:of )?kv|传输"),  # noqa: E501
    ("dns", r"\bdns\b|name.?lookup|name resolution|resolv(?:e|er|ing)\b|域名|解析"),
    ("tls", r"\btls\b|\bssl\b|handshake|appconnect|握手"),
    ("grammar", r"grammar|schema|\bfsm\b|xgrammar|outlines|guided|structured|constraint|automaton|约束|语法"),
    ("input", r"load ?\+ ?decod\w*|data ?load\w*|(?:image|video|jpe?g|frames?|audio|media)s?[ _-]*(?:decod|resiz|load|fetch|download)\w*|decord|resiz\w*|normaliz\w*|augment|图[像片](?:解码|预处理)|视频解码"),  # noqa: E501
    ("tokenize", r"tokeni[sz]|pre-?process|chat.?template|分词|\bencod(?:e|ing)\b|预处理|image (?:decode|resize)|validation"),  # noqa: E501
    ("compile", r"compil|captur|autotun|warm.?up|\bjit\b|编译|预热"),
    ("queue", r"queue|queuing|\b(?:prefill|decode) waiting\b|wait(?:ing)? (?:time|for (?:a )?(?:slot|sched|admission|batch))|admission|sched\w* wait|pending|排队|等待调度"),  # noqa: E501
    ("client", r"client|\bsdk\b|semaphore|connection pool|pool (?:wait|acquire)|客户端|连接池"),
    ("proxy", r"gateway|proxy|nginx|envoy|ingress|load.?balanc|\blb\b|\bauth\w*|rate.?limit|guardrail|moderation|网关|代理|鉴权"),  # noqa: E501
    ("connect", r"connect|\btcp\b|建连|连接"),
    ("prefill", r"prefill|prompt (?:eval|process)\w*|预填充"),
    ("decode", r"(?<!de)decode|decoding|generat|解码|生成"),
    ("network", r"network|transport|\brtt\b|on the wire|网络"),
    ("engine", r"engine|inference|forward|\bvit\b|\bllm\b|model|compute|server process|infer\b|推理"),
)  # fmt: skip
_NAMED = tuple((name, regex(pattern, re.IGNORECASE)) for name, pattern in _WORDS)
_NUMBER = r"\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?"
_UNIT = r"ms|us|µs|μs|seconds|secs?|s|毫秒|微秒|秒"
# a row of a table, or one `name 12 ms` of a list in a line
_ROW = regex(
    rf"^[\s>*|│-]*(?P<name>[A-Za-z_一-鿿](?:[^:=|,;\n(]|\([^)\n]*\)){{0,60}}?)(?:\s*[:=|│]+\s*|\s{{2,}}|\t+|(?<=\)) )(?P<cells>~?{_NUMBER}(?!\w{{3}}).*)$"  # noqa: E501
)
_CELL = regex(rf"(?<![\w.])~?({_NUMBER})\s*({_UNIT})?(?![\w%/])")
_ITEM = regex(
    rf"(?P<name>[A-Za-z_一-鿿][A-Za-z_ \-/.()一-鿿]{{0,40}}?)\s*[:=]?\s*~?(?P<value>{_NUMBER})\s*(?P<unit>{_UNIT})(?![\w/])",  # noqa: E501
    re.IGNORECASE,
)
# a key that ends in its unit: prefill_ms=44120, "queue_s": 0.3
_KEYED = regex(
    rf"(?P<name>[A-Za-z_]{{3,40}}?)_(?P<unit>ms|us|s|sec|seconds)[\"']?\s*[:=]\s*(?P<value>{_NUMBER})(?![\w%])"
)
# the ends of both, by which most lines are passed over
_TIMED = regex(rf"\d\s*(?:{_UNIT})(?![\w/])", re.IGNORECASE)
_KEY_END = regex(r"_(?:ms|us|s|sec|seconds)[\"']?\s*[:=]\s*\d")
_HEAD_UNIT = regex(r"(?:\(|\bin |,\s*|\s{2,}|\||^)(ms|us|µs|s|seconds|毫秒|秒)(?:\)|\s|\||,|$)")
_NOT_TIME = regex(r"tok/s|tokens?\b|MB|GB|%|req|count|次|batch", re.IGNORECASE)
_OTHER_UNIT = regex(r"\b(?:bytes|files|locks|processes|signals|tokens|pages|KB|KiB|MiB|GiB)\b|%")  # after the cells
_CURL = ("namelookup", "connect", "appconnect", "pretransfer", "starttransfer", "total")
_CURL_KEY = regex(rf"time_({'|'.join(_CURL)})\s*[:=]+\s*({_NUMBER})\s*(ms|s)?")
_CURL_FORMAT = regex(rf"%\{{time_({'|'.join(_CURL)})\}}")
_SERIES = regex(
    rf"(?P<family>[A-Za-z_:][\w:]*?)(?P<labels>\{{[^}}]*\}})?_(?P<kind>sum|count)(?P<after>\{{[^}}]*\}})?[\s=:]+(?P<value>{_NUMBER})"
    rf"(?:[,;\s]+_count[\s=:]+(?P<count>{_NUMBER}))?"
)
# parts of setting up a connection, whose shares need no unit
_BARE_HOP = regex(
    rf"(?P<name>\b(?:DNS(?: lookup)?|TCP(?: connect)?|connect|TLS(?: handshake)?|SSL)\b)\s*[:=]?\s*(?P<value>{_NUMBER})(?![\w%])",  # noqa: E501
    re.IGNORECASE,
)
_HOP = regex("DNS|TCP|connect|TLS|SSL", re.IGNORECASE)
_TRITON = regex(rf"nv_inference_(queue|compute_\w+|request)_duration_us(?:\{{[^}}]*\}})?\s+({_NUMBER})")
_LEAST_MS = 20.0  # below this no stage is worth a complaint


@dataclass(frozen=True)
class _Time:
    """A stage and how long it took."""

    stage: str
    name: str
    ms: float
    line: Line
    worked_out: bool = False  # a difference or a mean, printed nowhere
    bare: bool = False  # the text prints no unit: only shares can be told


@lru_cache(maxsize=1 << 12)  # a metrics page says the same names on each line
def stage_of(words: str) -> str | None:
    """The canonical stage that these words name."""
    return next((name for name, pattern in _NAMED if pattern.search(words)), None)


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _ms(value: float, unit: str) -> float | None:
    got = canonical(value, unit)
    return None if got is None else {"us": got[0] / 1e3, "ms": got[0], "s": got[0] * 1e3}.get(got[1])


class StagesReader:
    """The stages of a request and the share of the largest."""

    name = "serving_stages"
    needles: tuple[bytes, ...] = (
        b"ms", b" s", b"seconds", b"duration", "毫秒".encode(), "秒".encode(),
        b"ueue", b"okeniz", b"refill", b"namelookup", b"DNS", b"dns", b"rammar", b"chema", b"reprocess", b"_sum", b"nv_inference_",  # noqa: E501
        b"decord", b"decode", b"ateway", b"roxy", b"TLS", "排队".encode(), "分词".encode(), "预填充".encode(), "网关".encode(), "解析".encode(),  # noqa: E501
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of each block of stages that stands together."""
        if doc.head.startswith(SCRAPE.encode()):
            return  # a page of a window: what counts is the difference to its other page
        lines = [line for line in excerpt(doc, 1 << 16) if len(line.text) <= 400]
        for found in (*_tables(lines), *_columns(lines), *_lists(lines), _curl(lines), _histograms(lines)):
            yield from self._facts(doc, found)

    @staticmethod
    def _facts(doc: Document, found: list[_Time]) -> Iterator[Fact]:
        best: dict[str, _Time] = {}
        for item in found:
            if item.stage == "prompt":
                subject, span = Subject(label="prompt"), doc.span(item.line, item.name)
                yield Fact("serving.told", item.ms, "count", subject, (span,), status=doc.status)
                continue
            key = item.stage if item.stage != "other" else f"other {item.name}"
            if key not in best or item.ms > best[key].ms:
                best[key] = item
        whole = best.pop("total", None)
        if (
            not best
            or len(best) + (whole is not None) < 2
            or (whole is None and len(best) < 3 and not found[0].worked_out and not _media(found))
        ):
            return
        made = {stage: _fact(doc, t) for stage, t in best.items()}
        first = max(best, key=lambda key: best[key].ms)
        top = best[first]
        rest = sum(t.ms for t in best.values()) - top.ms
        if not top.bare:
            yield from made.values()
        if not top.bare and top.ms < (_LEAST_MS if top.stage != "comm" else 1.0):
            return
        if top.stage == "other" or len(made) > 26:
            return
        inputs = [made[first], *(f for s, f in made.items() if s != first)]
        if whole is not None and whole.ms >= 0.8 * top.ms:
            if whole.ms < top.ms:
                return
            yield divided("serving.stage_share", (made[first], _fact(doc, whole)), "fraction", Subject(label=top.stage))
        elif whole is None and top.ms + rest > 0:
            letters = "abcdefghijklmnopqrstuvwxyz"[: len(inputs)]
            yield Fact("serving.stage_share", top.ms / (top.ms + rest), "fraction", Subject(label=top.stage), kind="derived",  # noqa: E501
                       formula=f"a / ({' + '.join(letters)})", inputs=tuple(inputs), status=doc.status)  # fmt: skip


def _fact(doc: Document, time: _Time) -> Fact:
    if time.bare:
        subject = Subject(label=f"{time.stage}|{time.name[:40]}")
        return Fact("figure", time.ms, "count", subject, (doc.span(time.line, time.name),), status=doc.status)
    return Fact(
        "serving.stage", time.ms, "ms", Subject(label=f"{time.stage}: {time.name[:40]}"), (doc.span(time.line, time.name),),  # noqa: E501
        kind="derived" if time.worked_out else "observed", formula="reader:serving_stages" if time.worked_out else None,
        status=doc.status,
    )  # fmt: skip


def _tables(lines: list[Line]) -> Iterator[list[_Time]]:
    """Rows ``name  number…`` that stand together; of several columns the one with the largest sum."""
    rows: list[tuple[str, str, list[float], Line, bool]] = []
    unit = ""
    for line in [*lines, None]:
        text = line.text if line is not None else ""
        hit = _ROW.match(text)
        cells = _CELL.findall(hit["cells"]) if hit else []
        stage = (stage_of(hit["name"]) or "other") if hit and cells else None
        if (
            line is None
            or (not text.strip() and rows)
            or (not hit and not text.strip().startswith(("|", "-", "+", "=")) and len(rows) > 1)
        ):
            bare_rows = sum(r[4] for r in rows)
            if bare_rows and (bare_rows < len(rows) or len({r[0] for r in rows} - {"other", "total"}) < 3):
                rows = [r for r in rows if not r[4]]  # figures without a unit are times only among stages
            if len(rows) >= 2 and {r[0] for r in rows} - {"other", "total"}:
                width = min(len(r[2]) for r in rows)
                column = max(range(width), key=lambda i: sum(r[2][i] for r in rows))
                yield [_Time(stage_, name, values[column], at, bare=b) for stage_, name, values, at, b in rows]
            rows = []
        if line is None:
            break
        head = None if cells else _HEAD_UNIT.search(text)
        if head and "unlimited" not in text:  # /proc/PID/limits has a column of units, row by row
            unit = head[1]
        if hit is None or not cells or stage is None or _NOT_TIME.search(hit["name"]) or _OTHER_UNIT.search(text):
            continue
        own = _HEAD_UNIT.search(hit["name"])
        values = [_ms(_value(v), u or (own[1] if own else unit)) for v, u in cells if u or own or unit]
        bare = not values and len(cells) <= 6 and not any(u for _, u in cells)
        if bare:
            values = [_value(v) for v, _ in cells]
        if values and all(v is not None for v in values):
            rows.append((stage, hit["name"].strip(), [v for v in values if v is not None], line, bare))


_CELL_ONLY = regex(rf"~?({_NUMBER})\s*({_UNIT})?")


def _columns(lines: list[Line]) -> Iterator[list[_Time]]:
    """A table whose columns are stages, one request or step a row: the row that took longest."""
    head: list[tuple[str, str, str]] = []
    best: tuple[float, list[_Time]] | None = None
    for line in [*lines, None]:
        parts = in_cells(line.text, empty=True) if line is not None else []
        cells = [_CELL_ONLY.fullmatch(p) for p in parts]
        if head and line is not None and len(parts) == len(head) and sum(c is not None for c in cells) >= 3:
            row = _stage_row(line, head, cells)
            total = sum(t.ms for t in row if t.stage not in ("total", "prompt"))
            if row and (best is None or total > best[0]):
                best = total, row
            continue
        if best is not None:
            yield best[1]
        best, head = None, []
        if len(parts) < 2:
            continue
        named = [(stage_of(p) or "", p, u[1] if (u := _HEAD_UNIT.search(p)) else "") for p in parts]
        stages = {n[0] for n in named} - {"", "total"}
        head = (
            named
            if len(stages) >= 2 and not any(cells) and not any(_NOT_STAGE.search(n[1]) for n in named if n[0])
            else []
        )


_PROMPT_LENGTH = regex(r"prompt (?:tokens|length|len)|input (?:tokens|length|len)|\bisl\b|输入长度", re.IGNORECASE)
_NOT_STAGE = regex(r"tok/s|/s\b|%|share|MB|GB|batch size", re.IGNORECASE)


def _stage_row(line: Line, head: list[tuple[str, str, str]], cells: list[re.Match[str] | None]) -> list[_Time]:
    out: list[_Time] = []
    for (stage, name, unit), hit in zip(head, cells, strict=True):
        if hit is not None and _PROMPT_LENGTH.search(name):
            out.append(_Time("prompt", name, _value(hit[1]), line))
            continue
        if (
            hit is None
            or not stage
            or (
                re.search("token|prompt len|length", name, re.IGNORECASE)
                and stage != "tokenize"
                and "first" not in name
            )
        ):
            continue
        spelled = hit[2] or unit
        ms = _ms(_value(hit[1]), spelled) if spelled else _value(hit[1])
        if ms is not None:
            out.append(_Time(stage, name, ms, line, bare=not spelled))
    if (
        len({t.bare for t in out if t.stage != "prompt"}) > 1
    ):  # some cells print a unit, the others share the most frequent one
        units = [h[2] for h in cells if h is not None and h[2]]
        if len(set(units)) != 1:
            return []
        out = [replace(t, ms=_ms(t.ms, units[0]) or 0.0, bare=False) if t.bare else t for t in out]
    return out if len({t.stage for t in out} - {"total", "prompt"}) >= 2 else []


def _lists(lines: list[Line]) -> Iterator[list[_Time]]:
    """``queue 12 ms, tokenise 1900 ms, prefill 140 ms`` in one line."""
    for line in lines:
        found = []
        items = _ITEM.finditer(line.text) if _TIMED.search(line.text) else ()
        keyed = _KEYED.finditer(line.text) if _KEY_END.search(line.text) else ()
        for hit in (*items, *keyed):
            stage, ms = stage_of(hit["name"].replace("_", " ")), _ms(_value(hit["value"]), hit["unit"])
            if stage is not None and ms is not None:
                found.append(_Time(stage, hit["name"].strip(), ms, line))
        if (len({t.stage for t in found}) >= 3 or _media(found)) and len(found) <= 12:
            yield found
        elif not found and _HOP.search(line.text):
            bare = [
                _Time(stage_of(hit["name"]) or "", hit["name"].strip(), _value(hit["value"]), line, bare=True)
                for hit in _BARE_HOP.finditer(line.text)
            ]
            if len({t.stage for t in bare}) >= 2 and len(bare) >= 3:
                yield bare


def _media(found: list[_Time]) -> bool:
    """Decoding of media beside the model, in three parts or more."""
    return len(found) >= 3 and "input" in {t.stage for t in found} and len({t.stage for t in found}) >= 2


def _curl(lines: list[Line]) -> list[_Time]:
    """`curl -w` prints times since the start: stages are their differences; the slowest request counts."""
    order: list[str] = []
    runs: list[tuple[dict[str, float], dict[str, Line]]] = []
    keyed: dict[str, float] = {}
    where: dict[str, Line] = {}
    for line in lines:
        timed = "time_" in line.text
        named = _CURL_FORMAT.findall(line.text) if timed else []
        if named:
            order = named
            continue
        for key, value, unit in _CURL_KEY.findall(line.text) if timed else ():
            if key in keyed:
                keyed, where = {}, {}
            keyed[key] = _value(value) / (1000 if unit == "ms" else 1)
            where[key] = line
            if key == "total" or len(keyed) == len(_CURL):
                runs.append((keyed, where))
        numbers = re.findall(r"(?<![\w.])\d+\.\d+", line.text) if order else []
        if order and len(numbers) == len(order):
            runs.append((dict(zip(order, map(float, numbers), strict=True)), dict.fromkeys(order, line)))
    if not runs:
        return []
    times, where = max(runs, key=lambda r: max(r[0].values()))
    out, before = [], 0.0
    for key, stage in (
        ("namelookup", "dns"),
        ("connect", "connect"),
        ("appconnect", "tls"),
        ("starttransfer", "engine"),
    ):
        if key in times and times[key] > 0:
            out.append(_Time(stage, key, max(times[key] - before, 0.0) * 1000, where[key], True))
            before = max(before, times[key])
    last = where[max(times, key=lambda key: times[key])]
    return [*out, _Time("total", "total", max(times.values()) * 1000, last, True)] if len(out) >= 2 else []


def _histograms(lines: list[Line]) -> list[_Time]:
    """Means of histograms whose name or label says which stage they time."""
    sums: dict[str, tuple[float, Line]] = {}
    counts: dict[str, float] = {}
    out: list[_Time] = []
    triton: dict[str, tuple[float, Line]] = {}
    for line in lines:
        series = "_sum" in line.text or "_count" in line.text
        for hit in _SERIES.finditer(line.text) if series else ():
            key = hit["family"] + (hit["labels"] or hit["after"] or "")
            if hit["kind"] == "sum":
                sums[key] = (_value(hit["value"]), line)
                if hit["count"]:
                    counts[key] = _value(hit["count"])
            else:
                counts[key] = _value(hit["value"])
        for name, value in _TRITON.findall(line.text) if "nv_inference_" in line.text else ():
            triton[name] = (_value(value), line)
    for key, (total, line) in sums.items():
        if counts.get(key, 0) < 1 or "tokens" in key.split("{")[0]:
            continue
        family, _, labels = key.partition("{")
        labelled = re.search(r'(?:stage|operation|phase|step)="([^"]+)"', labels)
        if labelled is not None and labelled[1].endswith(("_bootstrap", "_prepare")):  # handshakes of disaggregation
            continue
        stage = stage_of((labelled[1] if labelled else family).replace("_", " "))
        unit = "ms" if re.search(r"_ms$|millis", family) else "us" if re.search(r"_us$|micros", family) else "s"
        ms = _ms(total / counts[key], unit)
        if stage is not None and ms is not None and re.search(r"seconds|duration|latency|time|_ms|_us", family):
            out.append(_Time(stage, key[:60], ms, line, True))
    for name, (total, line) in triton.items():
        stage = {"queue": "queue", "request": "total"}.get(name, "engine")
        out.append(_Time(stage, f"nv_inference_{name}_duration_us", total / 1e3, line, True))
    # a stage of the front end may enclose what the workers call the first token: no total then, if it is the larger
    largest = max((t.ms for t in out if t.stage != "total"), default=0.0)
    kept = [t for t in out if t.stage != "total" or t.ms >= 0.95 * largest]
    shut = [replace(t, stage="engine") for t in out if t not in kept]
    return [*kept, *shut] if len(out) >= 2 else []


READERS: list[Reader] = [StagesReader()]
