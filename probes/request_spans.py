"""Parts of one request as traces print them, and histograms that end too early to tell.

A trace names its spans as its author liked; only what is the model's is known by name. The total is the span that
holds the others, or the sum where a flat list has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, excerpt, fact

_SMALL = 1 << 15
_LINES = 300
_MS = {"ms": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "seconds": 1e3, "us": 1e-3, "µs": 1e-3, "秒": 1e3, "毫秒": 1.0}
_TIME = r"(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>ms|us|µs|secs?|seconds|s|毫秒|秒)(?![\w/])"
_ROW = regex(
    rf"^(?P<lead>[\s|├└│─┬╰╭┆+*>`.·-]*)(?P<name>[^\s\d|├└│─][^\n]*?)(?:\s{{2,}}|\s*[:：=|]\s*|\s+|\t){_TIME}(?P<tail>[^\n]*)$",
    re.I,
)
_JSON_NAME = regex(r'"(?:name|span|operation(?:Name)?|span_name)"\s*:\s*"(?P<n>[^"]+)"')
_JSON_TIME = regex(
    r'"(?:duration|latency|elapsed|dur|took|time)(?:_?(?P<u>ms|s|us|Ms))?"\s*:\s*"?(?P<v>\d[\d.]*) ?(?P<w>ms|us|s)?',
    re.I,
)
_SPAN_COLUMNS = regex(r"^\W*(?:span|operation|step|stage)\b.*\b(?:duration|took|elapsed|time)\b", re.I)
_MODEL = regex(
    r"llm|generat|vllm|sglang|\btgi\b|ollama|openai|gpt|llama(?![-_ ]?index)|qwen|mistral|claude|completions?\b|first[ _.-]?token|ttft|prefill|decod|inference|model(?! ?rout)|大模型|模型|推理|首 ?(?:个 ?)?(?:token|字)|生成",  # noqa: E501
    re.I,
)
# What stands around the model, whatever models it runs itself.
_SIDE = regex(
    r"embed|rerank|retriev|search|vector|\btool|guard|moderat|database|\bsql\b|cache|检索|向量|重排|意图|工具", re.I
)
_QUEUE = regex(r"queue|\bwait(?:ing)?\b|排队", re.I)
_ENGINE = regex(
    r"queue|sched|prefill|decod|tokeni[sz]|detok|sampl|forward|first[ _.-]?token|kv|批|排队|batch|engine|itl|tpot", re.I
)
# What is no part of serving one request: starting, training and moving data have causes of their own.
_NOT_REQUEST = regex(
    r"load|download|compil|warm|captur|import|\binit|copy|copies|transfer|nccl|all_?reduce|backward|optimi[sz]er|forward|step|epoch|kernel|memcpy|checkpoint|\bp\d\d|mean|median|avg|tokens?/s|batch|weights|gradient|barrier|加载|编译|下载|拷贝|训练",
    re.I,
)
_PAIR = regex(
    rf"(?<![\w.])(?P<n>[A-Za-z\u4e00-\u9fff][\w.\u4e00-\u9fff-]*?)(?:_(?:time|latency|duration))?\s?[=:：]\s?{_TIME}"
)
_WHOLE = regex(
    r"^(?:total|sum|overall|end[- ]to[- ]end|e2e|whole|trace|root|request|合计|总(?:计|耗时|时间|共)?|共|整体|全链路)",
    re.I,
)
_TRACE_WORD = regex(
    r"\btrac(?:e|ing)|span|链路|waterfall|jaeger|tempo|zipkin|langfuse|langsmith|phoenix|datadog|otel|breakdown|耗时分(?:布|解)|one request|一次请求|per request|[├└│]",  # noqa: E501
    re.I,
)
_HEAD_TOTAL = regex(rf"(?:共|total|in all|合计|took|overall|sum)\W{{0,4}}(?:time )?{_TIME}", re.I)


@dataclass(frozen=True, slots=True)
class _Span:
    depth: int
    name: str
    ms: float
    line: Line


class SpanShareReader:
    """`request.other_share`: the largest part of a request that is not the model's, where the model's part is there."""

    name = "span_share"
    needles: tuple[bytes, ...] = tuple(
        w.encode() for w in ("llm", "LLM", "enerat", "model", "Model", "oken", "模型", "推理", "hat", "ompletion", "GPT", "nference")  # noqa: E501
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a trace."""
        lines = excerpt(doc, _SMALL, _LINES)
        spans, head = self._spans(lines)
        got = _leading(spans, head)
        if got is None:
            yield from self._queued(doc, spans)
            return
        other, total, model = got
        inputs = tuple(
            fact(doc, s.line, "request.span", s.ms, "ms", label=f"{kind}|{s.name[:60]}")
            for kind, s in (("other", other), ("model", model))
        )
        yield from inputs
        yield Fact(
            "request.other_share", round(other.ms / total, 4), "fraction", Subject(label=other.name[:60]),
            (doc.span(other.line), doc.span(model.line)), kind="derived", formula="reader:span_share",
            status=doc.status,
        )  # fmt: skip

    @staticmethod
    def _queued(doc: Document, spans: list[_Span]) -> Iterator[Fact]:
        """The share of a queue below the model's span."""
        if not 3 <= len(spans) <= 40 or not any(_MODEL.search(s.name) for s in spans):
            return
        whole = max(spans, key=lambda s: s.ms)
        waits = [s for s in spans if s is not whole and s.depth > whole.depth and _QUEUE.search(s.name)]
        if waits and whole is spans[0]:
            most = max(waits, key=lambda s: s.ms)
            yield Fact(
                "serving.stage_share", round(most.ms / whole.ms, 4), "fraction", Subject(label="queue"),
                (doc.span(most.line), doc.span(whole.line)), kind="derived", formula="reader:span_share",
                status=doc.status,
            )  # fmt: skip

    @staticmethod
    def _spans(lines: list[Line]) -> tuple[list[_Span], float]:
        out: list[_Span] = []
        head, trace, columns = 0.0, False, 0
        for line in lines:
            text = line.prefix + line.text
            pairs = list(_PAIR.finditer(text)) if len(text) < 600 else []
            if len(pairs) >= 3:  # a line of its own for each request: one stands for all
                whole = max((amount(h["v"]) * _MS[h["u"].lower()] for h in pairs), default=0.0)
                return [
                    _Span(0 if _WHOLE.match(h["n"]) else 1, h["n"], amount(h["v"]) * _MS[h["u"].lower()], line)
                    for h in sorted(pairs, key=lambda h: _WHOLE.match(h["n"]) is None)
                ], whole if any(_WHOLE.match(h["n"]) for h in pairs) else 0.0
            trace = trace or _TRACE_WORD.search(text) is not None
            name, took = _JSON_NAME.search(text), _JSON_TIME.search(text)
            if name and took:
                unit = (took["u"] or took["w"] or "ms").lower()
                out.append(
                    _Span(0 if '"parent' not in text else 1, name["n"], amount(took["v"]) * _MS.get(unit, 1.0), line)
                )
                trace = True
                continue
            columns = 12 if _SPAN_COLUMNS.search(text) else columns - 1
            if columns > 0 and (cells := re.split(r"\s{2,}|\t|\|", text.rstrip(" |"))) and len(cells) >= 3:
                last = re.fullmatch(_TIME, cells[-1].strip())
                if last is not None:
                    depth = len(text) - len(text.lstrip(" |├└│─"))
                    label = next(c for c in cells if c.strip(" |├└│─"))
                    out.append(_Span(depth, label.strip(" |├└│─"), amount(last["v"]) * _MS[last["u"].lower()], line))
                    trace = True
                    continue
            hit = _ROW.match(text)
            if hit is None or len(text) > 200:
                continue
            total = _HEAD_TOTAL.search(text)
            if total is not None and _TRACE_WORD.search(text) and "├" not in text:
                head = amount(total["v"]) * _MS[total["u"].lower()]
                if not _WHOLE.match(hit["name"]):
                    continue
            label = re.sub(r"\s{2,}", " ", hit["name"]).strip(" :：|")
            out.append(_Span(len(hit["lead"]), label, amount(hit["v"]) * _MS[hit["u"].lower()], line))
        return (out if trace or _flat(out) else []), head


def _flat(spans: list[_Span]) -> bool:
    """Rows without any word of tracing: parts only where they add up to the first or the last of them."""
    if len(spans) < 3:
        return False
    shares = [float(h[1]) for s in spans if (h := re.search(r"(?<![\d.])(\d{1,2}(?:\.\d+)?) ?%", s.name))]
    if len(shares) == len(spans) and 96 <= sum(shares) <= 104:
        return True
    whole = max(spans, key=lambda s: s.ms)
    rest = sum(s.ms for s in spans if s is not whole)
    deep = [s for s in spans if s.depth > whole.depth]
    return whole in (spans[0], spans[-1]) and (0.85 * whole.ms <= rest <= 1.1 * whole.ms or len(deep) == len(spans) - 1)


def _leading(spans: list[_Span], head: float) -> tuple[_Span, float, _Span] | None:
    """The part of a request that leads and is not the model's, the whole, and the model's largest part."""
    if not 3 <= len(spans) <= 40 or any(s.ms < 0 for s in spans):
        return None
    whole = max(spans, key=lambda s: s.ms)
    others = [s for s in spans if s is not whole]
    tree = whole is spans[0] and (
        all(s.depth > whole.depth for s in others) or sum(s.ms for s in others) >= 0.6 * whole.ms
    )
    named = _WHOLE.match(whole.name) is not None
    if head and head >= whole.ms:
        total, parts = head, spans
    elif tree or named:
        total, parts = whole.ms, others
    else:
        total, parts = sum(s.ms for s in spans), spans
    first = [s for s in parts if s.ms <= total]
    base = min((s.depth for s in first), default=0)
    inside: list[_Span] = []  # below a span of the model everything is the model's
    model_depth: int | None = None
    mine: list[_Span] = []
    for span in first:
        if model_depth is not None and span.depth > model_depth:
            inside.append(span)
            continue
        model_depth = span.depth if _MODEL.search(span.name) and not _SIDE.search(span.name) else None
        if model_depth is not None:
            mine.append(span)
    rest = [s for s in first if s not in inside and s not in mine and not _ENGINE.search(s.name)]
    if not mine or not rest or any(_NOT_REQUEST.search(s.name) for s in (*mine, *rest)):
        return None
    if sum(s.ms for s in first if s.depth == base) > 1.25 * total:
        return None
    other, model = max(rest, key=lambda s: s.ms), max(mine, key=lambda s: s.ms)
    held = [
        s for s in first if s not in inside and s is not other and _ENGINE.search(s.name) and not _MODEL.search(s.name)
    ]
    if sum(s.ms for s in (*mine, *held)) > 0.45 * total:
        return None
    return other, total, model


# ---------------------------------------------------------------- histograms that end too early

_BUCKET = regex(r"^(?P<name>[A-Za-z_:][\w:]*_bucket)\{(?P<labels>[^}]*)\}\s+(?P<v>[\d.eE+]+)")
_TIMES = regex(
    r"second|_ms\b|_ms_|millis|latency|duration|time|ttft|tpot|itl|^table$", re.I
)  # counts of tokens end early, too
_LE = regex(r'le="(?P<le>[^"]+)"')
_LE_HEAD = regex(r"^\W*(?:le|bucket|upper|bound|上界|桶)\b|^\W*(?:le|桶)\s", re.I)
_LE_ROW = regex(
    r"^\W{0,4}(?:le ?=? ?|<=? ?)?[\"']?(?P<le>\d+(?:\.\d+)?|\+?Inf|∞)[\"']?(?: ?(?:ms|s))?[\s|:,]+(?P<v>\d[\d,]*)\b"
)
_ROW_MEAN = regex(r"\b(?:avg|average|mean)\b[\"']?|平均", re.I)
_ROW_TAIL = regex(r"\bp ?9\d(?:\.\d)?\b", re.I)
_ROW_TIME = regex(r"(?<![\w.])(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b")
_QUANTILE = regex(
    r"histogram_quantile\( ?0?(?P<q>\.\d+).{0,200}?(?:->|=>|=|：|:)\s*(?P<v>\d+(?:\.\d+)?)(?![\w.]*[\"'\]])\s*s?\s*$",
    re.I,
)
_MEAN = regex(
    r"_sum\b.{0,120}?/.{0,120}?_count\b.{0,80}?(?:->|=>|=|：|:)\s*(?P<v>\d+(?:\.\d+)?)(?![\w.]*[\"'\]])\s*s?\s*$", re.I
)


class HistogramEndReader:
    """`histogram.beyond`: the share of all observations above the last finite bucket, where every quantile is cut."""

    name = "histogram_end"
    needles: tuple[bytes, ...] = (b"_bucket", b"+Inf", b"Inf", "桶".encode(), b"_quantile", b"ucket")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a series; `histogram.mean_ratio` where a mean stands beside a quantile that is below it."""
        series: dict[tuple[str, str], list[tuple[float, float, Line]]] = {}
        table = 0
        quantile: tuple[float, Line] | None = None
        mean: tuple[float, Line] | None = None
        noted: dict[str, tuple[float, Line]] = {}
        buckets = False
        for line in excerpt(doc, 1 << 20, 20000):
            text = line.prefix + line.text
            if hit := _BUCKET.match(text):
                le = _LE.search(hit["labels"])
                if le:
                    key = hit["name"], _LE.sub("", hit["labels"])
                    series.setdefault(key, []).append((_bound(le["le"]), float(hit["v"]), line))
                continue
            table = 20 if _LE_HEAD.search(text) else table - 1
            if table > 0 and (row := _LE_ROW.match(text)):
                series.setdefault(("table", ""), []).append((_bound(row["le"]), amount(row["v"]), line))
            timed = _ROW_TIME.findall(text)
            if (
                len(timed) == 1
                and len(text) < 120
                and (_ROW_MEAN.search(text) is None) != (_ROW_TAIL.search(text) is None)
            ):
                figure = float(timed[0][0]) * _MS[timed[0][1]] / 1e3
                if _ROW_MEAN.search(text):
                    noted["mean"] = figure, line
                else:
                    noted["tail"] = figure, line
            buckets = buckets or re.search(r"bucket|histogram|\ble=|桶", text, re.I) is not None
            if found := _QUANTILE.search(text):
                quantile = float(found["v"]), line
            elif found := _MEAN.search(text):
                mean = float(found["v"]), line
        if buckets and len(noted) == 2 and noted["mean"][0] > noted["tail"][0]:
            quantile, mean = quantile or noted["tail"], mean or noted["mean"]
        for (name, _), rows in list(series.items())[:200]:
            finite = [r for r in rows if r[0] != float("inf")]
            whole = [r for r in rows if r[0] == float("inf")]
            if _TIMES.search(name) is None or len(finite) < 2 or not whole or whole[-1][1] < 100:
                continue
            last = max(finite, key=lambda r: r[0])
            share = 1 - last[1] / whole[-1][1]
            if 0.01 < share <= 1:
                yield Fact(
                    "histogram.beyond", round(share, 4), "fraction", Subject(label=f"{name}|{last[0]:g}"),
                    (doc.span(last[2]), doc.span(whole[-1][2])), kind="derived", formula="reader:histogram_end",
                    status=doc.status,
                )  # fmt: skip
        if quantile and mean and quantile[0] > 0:
            yield Fact(
                "histogram.mean_ratio", round(mean[0] / quantile[0], 4), "count", Subject(),
                (doc.span(quantile[1]), doc.span(mean[1])), kind="derived", formula="reader:histogram_end",
                status=doc.status,
            )  # fmt: skip


def _bound(text: str) -> float:
    try:
        return float("inf") if "nf" in text.lower() or text == "∞" else float(text)
    except ValueError:
        return float("inf")


READERS: list[Reader] = [SpanShareReader(), HistogramEndReader()]
