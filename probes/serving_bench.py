"""Results of load generators: vLLM and SGLang bench, aiperf/genai-perf, llmperf, pandas summaries; console and JSON.

TPOT and ITL keep the meaning of the tool that printed them; the quoted line names it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import whole

_METRIC = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2el": "e2e", "e2e latency": "e2e", "e2e": "e2e", "latency": "e2e",  # noqa: E501
           "tbt": "itl"}  # fmt: skip
_STAT = regex(
    r"^\W*(?:request )?(mean|median|std|min|max|avg|average|p\d{2}(?:\.\d+)?|p\d{2})\s+"
    r"(TTFT|TPOT|ITL|E2EL|E2E Latency|E2E|TBT)\s*(?:\((ms|s)\))?\s*[:=|]?\s*(\d[\d,]*(?:\.\d+)?)(?![\d.])\s*(?:(ms|s)\b)?",  # noqa: E501
    re.IGNORECASE,
)
_JSON = regex(r'"(mean|median|std|p\d{2}(?:\.\d+)?)_(ttft|tpot|itl|e2el|e2e_latency)_ms"\s*:\s*(\d+(?:\.\d+)?)')
# console or JSON key -> signal, unit
_PLAIN: tuple[tuple[re.Pattern[str], str, str | None], ...] = tuple(
    (regex(pattern, re.IGNORECASE), signal, unit)
    for pattern, signal, unit in (
        (r"(?:^\W*Successful requests:|\"completed\"\s*:)\s*(\d[\d,]*)", "serving.client.prompts", "count"),
        (r"(?:^\W*Failed requests:|\"failed\"\s*:)\s*(\d+)", "serving.client.failed", "count"),
        (r"(?:^\W*Benchmark duration \(s\):|^ ?\"duration\"\s*:)\s*(\d+(?:\.\d+)?)", "serving.client.duration", "s"),
        (r"(?:^\W*Total input tokens:|\"total_input_tokens\"\s*:)\s*(\d[\d,]*)", "serving.client.input_tokens", "count"),  # noqa: E501
        (r"(?:^\W*Total generated tokens:|\"total_output_tokens\"\s*:)\s*(\d[\d,]*)", "serving.client.output_tokens", "count"),  # noqa: E501
        (r"(?:^\W*Request throughput \(req/s\):|\"request_throughput\"\s*:)\s*(\d+(?:\.\d+)?)", "serving.client.request_tput", "req/s"),  # noqa: E501
        (r"(?:^\W*Output token throughput \(tok/s\):|\"output_throughput\"\s*:)\s*(\d+(?:\.\d+)?)", "serving.client.output_tput",  # noqa: E501
         "tokens/s"),
        (r"(?:^\W*Total Token throughput \(tok/s\):|\"total_token_throughput\"\s*:)\s*(\d+(?:\.\d+)?)", "serving.client.total_tput",  # noqa: E501
         "tokens/s"),
        (r"(?:^\W*Peak concurrent requests:|\"max_concurrent_requests\"\s*:)\s*(\d+(?:\.\d+)?)", "serving.client.peak_concurrency",  # noqa: E501
         "count"),
        (r"(?:^\W*Traffic request rate:|\"request_rate\"\s*:)\s*\"?(inf|\d+(?:\.\d+)?)(?!\.?\d)", "serving.client.request_rate", None),  # noqa: E501
        (r"(?:^\W*Maxi?m?u?m? request concurrency:|\"max_concurrency\"\s*:)\s*(\d+)", "serving.client.concurrency", None),  # noqa: E501
    )
)  # fmt: skip
_BLOCK = regex(
    r"^\W*(first token latency|time to first token|ttft|next token latency|inter[- ]token latency|tpot)\W*\(?(m?secs?|ms|s)\)?\W*$",  # noqa: E501
    re.I,
)
_BLOCK_ROW = regex(r"^\s*(count|mean|std|min|max|\d{2}%)\s*=?\s+(\d+(?:\.\d+)?)\s*$", re.I)
_AIPERF = regex(
    r"(Time to First Token|Inter Token Latency|Request Latency|Time Per Output Token)\s*\((ms|s)\)\W+([\d.,\s│┃|]+)",
    re.I,
)
_AIPERF_HEAD = regex(r"\b(avg|min|max|p\d\d|std)\b", re.I)
_AIPERF_KEYS = {"time_to_first_token": "ttft", "inter_token_latency": "itl", "request_latency": "e2e"}
_SPOKEN = {"first token latency": "ttft", "time to first token": "ttft", "ttft": "ttft", "request latency": "e2e",
           "time per output token": "tpot"}  # fmt: skip


def _stat(text: str) -> str:
    low = text.lower()
    return {"avg": "mean", "average": "mean"}.get(
        low, low.replace("%", "").join(("p", "")) if low[0].isdecimal() else low
    )


_LISTED = regex(r"\b(ttft|e2e|latenc(?:y|ies))\w*\W{0,4}[:=]\s*\[([\d.,\s]+)\]", re.IGNORECASE)


_MOST = 64 << 20
_BARS = ("│", "┃", "|")


class ServingBenchReader:
    """Latency statistics, rates and totals of one run; a second run in the same text gets ``#2`` labels."""

    name = "serving_bench"
    needles: tuple[bytes, ...] = (b"TTFT", b"ttft", b"TPOT", b"tpot", b"irst token", b"irst Token", b"Token Latency", b"token latency",  # noqa: E501
               b"time_to_first_token", b"latenc", b"e2e", b"Successful requests", b"request_throughput")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Yield what the run measured, then what the request-by-request lists add."""
        if doc.size > 256 << 20:
            return
        runs: dict[tuple[str, str | None], int] = {}
        same: set[tuple[str, str | None, object]] = set()

        def fact(
            signal: str, value: float | str, unit: str | None, label: str | None, line: Line, around: str
        ) -> Iterator[Fact]:
            if (signal, label, value) in same:
                return
            same.add((signal, label, value))
            number = runs[signal, label] = runs.get((signal, label), 0) + 1
            if number > 1:
                label = f"{label or ''} #{number}".strip()
            yield Fact(signal, value, unit, Subject(label=label), (doc.span(line, around),), status=doc.status)

        block: tuple[str, float] | None = None
        columns: list[str] = []
        patterns = (_STAT, _JSON, _LISTED, *(pattern for pattern, _, _ in _PLAIN), _BLOCK, _AIPERF)
        for line, may in told(doc.lines(), *patterns, words=_BARS):
            text = line.text
            if not may and block is None:
                continue
            hit = _STAT.match(text)
            if hit:
                stat, metric, unit, number, tail = hit.groups()
                scale = 1000.0 if (unit or tail or "ms").lower() == "s" else 1.0
                yield from fact(f"serving.client.{_METRIC[metric.lower()]}", float(number.replace(",", "")) * scale, "ms",  # noqa: E501
                                _stat(stat), line, hit.group())  # fmt: skip
                continue
            if '_ms"' in text:
                for hit in _JSON.finditer(text):
                    stat, metric, number = hit.groups()
                    yield from fact(
                        f"serving.client.{_METRIC[metric.replace('_', ' ')]}",
                        float(number),
                        "ms",
                        stat,
                        line,
                        hit.group(),
                    )
            if "[" in text and (listed := _LISTED.search(text)) and len(text) < 4096:
                values = [float(v) for v in re.findall(r"\d+(?:\.\d+)?", listed[2])]
                if len(values) >= 5 and statistics.median(values) > 0:
                    for signal, value in (
                        ("first_request", values[0] / statistics.median(values[1:])),
                        ("ttft_growth", statistics.median(values[-2:]) / max(statistics.median(values[:3]), 1e-9)),
                    ):
                        yield Fact(f"serving.client.{signal}", round(value, 3), "count", Subject(), (doc.span(line),), kind="derived",  # noqa: E501
                                   formula="reader:serving_bench", status=doc.status)  # fmt: skip
            for pattern, signal, plain_unit in _PLAIN:
                hit = pattern.search(text)
                if hit:
                    raw = hit.group(1).replace(",", "")
                    yield from fact(signal, float(raw) if plain_unit else raw, plain_unit, None, line, hit.group())
            hit = _BLOCK.match(text)
            if hit:
                metric = _SPOKEN.get(hit.group(1).lower(), "itl")
                block = (metric, 1000.0 if hit.group(2).lower().startswith("s") else 1.0)
                continue
            row = _BLOCK_ROW.match(text)
            if block and row:
                if row.group(1).lower() != "count":
                    yield from fact(
                        f"serving.client.{block[0]}",
                        float(row.group(2)) * block[1],
                        "ms",
                        _stat(row.group(1)),
                        line,
                        text,
                    )
                continue
            if text.strip() and not row:
                block = None
            if any(bar in text for bar in _BARS):
                names = _AIPERF_HEAD.findall(text)
                if len(names) >= 3 and "Latency" not in text:
                    columns = [n.lower() for n in names]
                hit = _AIPERF.search(text)
                if hit and columns:
                    metric = _SPOKEN.get(hit.group(1).lower(), "itl")
                    scale = 1000.0 if hit.group(2).lower() == "s" else 1.0
                    for name, number in zip(columns, re.findall(r"\d[\d,]*\.?\d*", hit.group(3)), strict=False):
                        yield from fact(f"serving.client.{metric}", float(number.replace(",", "")) * scale, "ms", _stat(name), line,  # noqa: E501
                                        number)  # fmt: skip
        if doc.size < 64 << 20 and doc.head[:1] == b"{":
            yield from self._lists(doc)

    def requests(self, doc: Document) -> list[dict[str, float]]:
        """Times of every request of a detailed result of `vllm bench serve`, in ms."""
        data = whole(doc) if doc.size < _MOST and doc.head[:1] == b"{" else None
        ttfts, gaps = (data.get("ttfts") or [], data.get("itls") or []) if data is not None else ([], [])
        lengths = (data.get("output_lens") if data is not None else None) or []
        rows = []
        for i, ttft in enumerate(ttfts):
            if not isinstance(ttft, int | float) or ttft <= 0:
                continue
            row = {"ttft": ttft * 1000.0}
            between = gaps[i] if i < len(gaps) and isinstance(gaps[i], list) else None
            if between is not None and all(isinstance(g, int | float) for g in between):
                decode = float(sum(between)) * 1000
                # chunks may carry several tokens: TPOT is over tokens, as the tool itself defines it
                tokens = lengths[i] if i < len(lengths) and isinstance(lengths[i], int) else len(between) + 1
                row |= {"e2e": row["ttft"] + decode, "tpot": decode / (tokens - 1) if tokens > 1 else 0.0}
            rows.append(row)
        return rows

    @staticmethod
    def _lists(doc: Document) -> Iterator[Fact]:
        """aiperf aggregates, and the shape of TTFT over the requests of a detailed result."""
        data = whole(doc)
        if data is None:
            return
        lines = {key: line for line in doc.lines() for key in (*_AIPERF_KEYS, "ttfts") if f'"{key}"' in line.text}
        for key, metric in _AIPERF_KEYS.items():
            got = data.get(key)
            if isinstance(got, dict) and key in lines:
                scale = 1000.0 if got.get("unit") in ("s", "sec", "seconds") else 1.0
                for stat in ("avg", "p50", "p99"):
                    if isinstance(got.get(stat), int | float):
                        yield Fact(f"serving.client.{metric}", got[stat] * scale, "ms", Subject(label=_stat(stat)),
                                   (doc.span(lines[key], f'"{key}"'),), status=doc.status)  # fmt: skip
        ttfts = [t for t in data.get("ttfts") or [] if isinstance(t, int | float) and t > 0]
        if len(ttfts) < 8 or "ttfts" not in lines:
            return
        span = (doc.span(lines["ttfts"], '"ttfts"'),)
        fifth = max(2, len(ttfts) // 5)
        middle = statistics.median(ttfts)
        for signal, value, unit in (
            ("ttft_growth", statistics.median(ttfts[-fifth:]) / statistics.median(ttfts[:fifth]), "count"),
            ("first_request", ttfts[0] / middle, "count"),
            ("ttft_spread", statistics.pstdev(ttfts) / statistics.fmean(ttfts), "fraction"),
        ):
            yield Fact(f"serving.client.{signal}", round(value, 3), unit, Subject(), span, kind="derived",
                       formula="reader:serving_bench", status=doc.status)  # fmt: skip


READERS: list[Reader] = [ServingBenchReader()]
