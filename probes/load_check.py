"""What load generators print that makes their own figures void: refused answers, times below zero, miscounted tokens.

Layouts: wrk and wrk2, ab, hey and oha, k6, locust, vegeta, JMeter's summariser; `pidstat` and `top` rows of a client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact, in_cells

_SMALL = 256 << 10  # results of a run are short; a log of requests is another format
_DONE = regex(
    r"^\s*(?P<n>\d[\d,]*) requests in \d|^Complete requests:\s+(?P<ab>\d+)|^\s*Requests\s+\[total[^\]]*\]\s+(?P<v>\d+)"
)
_BAD = regex(r"^\s*Non-2xx (?:or 3xx )?responses:\s+(?P<n>\d[\d,]*)")
_CODE = regex(r"^\s*\[(?P<code>\d{3})\]\s+(?P<n>\d[\d,]*) responses")
_CODES = regex(r"^Status Codes\s+\[code:count\]\s+(?P<all>(?:\d+:\d+\s*)+)")
_SHARE = regex(
    r"^\s*http_req_failed\.*:\s+(?P<k6>\d+(?:\.\d+)?)%|^\s*Aggregated\s+\d+\s+\d+\((?P<locust>\d+(?:\.\d+)?)%\)"
    r"|^summary [+=].*\bErr:\s+\d+ \((?P<jmeter>\d+(?:\.\d+)?)%\)|^\s*Success rate:\s+(?P<oha>\d+(?:\.\d+)?)%"
)


class LoadStatusReader:
    """`bench.failed_share`: answers that were no success, of all that a load generator counts."""

    name = "load_status"
    needles: tuple[bytes, ...] = (
        b"Non-2xx", b"responses", b"http_req_failed", b"Aggregated", b"Err:", b"Success rate:", b"Status Codes",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Shares as printed, or counts of one run over its total."""
        total, codes, last = 0.0, dict[str, float](), None
        for line in excerpt(doc, _SMALL):
            text = line.text
            if hit := _DONE.search(text):
                total = amount(next(g for g in hit.groups() if g))
            elif (hit := _BAD.match(text)) and total > 0:
                yield self._made(doc, line, amount(hit["n"]) / total)
            elif hit := _CODE.match(text):
                codes[hit["code"]], last = amount(hit["n"]), line
            elif hit := _CODES.match(text):
                pairs = [p.split(":") for p in hit["all"].split()]
                yield from self._coded(doc, line, {c: float(n) for c, n in pairs})
            elif hit := _SHARE.match(text):
                kind = next(k for k, g in hit.groupdict().items() if g)
                share = float(hit[kind]) / 100
                yield self._made(doc, line, 1 - share if kind == "oha" else share)
        if last is not None:
            yield from self._coded(doc, last, codes)

    @staticmethod
    def _made(doc: Document, line: Line, share: float) -> Fact:
        return computed(doc, line, "bench.failed_share", round(min(share, 1.0), 4), "fraction", "load_status")

    def _coded(self, doc: Document, line: Line, codes: dict[str, float]) -> Iterator[Fact]:
        if sum(codes.values()) > 0:
            bad = sum(n for code, n in codes.items() if not code.startswith(("2", "3")))
            yield self._made(doc, line, bad / sum(codes.values()))


_TIME = regex(r"ttft|tpot|itl|latenc|first[ _-]?token|elapsed|duration|e2e|queue(?:d|_time| time)", re.I)
_BELOW = regex(r"^-\d+(?:\.\d+)?\s*(?:ms|s|us)?$")
_INLINE = regex(
    r"(?:ttft|tpot|itl|latency|e2e|queue_time|first[ _-]token(?:[ _-]time)?)\w*(?:\s*\([a-z]+\))?\s*[=:]\s*"
    r"(?P<v>-\d+(?:\.\d+)?)\s*(?:ms|s|us)?(?![\w.])",
    re.I,
)


class NegativeTimeReader:
    """`bench.negative_time`: a latency below zero, which two clocks or a wrong event make, never a server."""

    name = "negative_time"
    needles: tuple[bytes, ...] = (b" -", b"=-", b":-", b"\t-", b"|-", b",-")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """In a column whose head is a time, or behind its name."""
        head: list[str] = []
        for line in excerpt(doc, _SMALL):
            text = line.prefix + line.text
            cells = in_cells(text)
            if len(cells) >= 2 and any(map(_TIME.search, cells)) and not any(c[0].isdigit() for c in cells if c):
                head = cells
                continue
            if head and len(cells) == len(head):
                for name, cell in zip(head, cells, strict=True):
                    if (
                        _TIME.search(name)
                        and _BELOW.match(cell)
                        and not re.search(r"delta|diff|change|Δ|vs", name, re.I)
                    ):
                        yield fact(doc, line, "bench.negative_time", cell, around=cell, label=name)
            elif (hit := _INLINE.search(text)) is not None and not re.search(r"delta|diff|change", text, re.I):
                yield fact(doc, line, "bench.negative_time", hit["v"], around=hit["v"])


_COUNTED = regex(
    r"(?P<n>\d[\d,]*) (?:tokens|toks|chunks|events|deltas)\b"
    r"|(?:tokens|chunks|events|deltas)\w*\s*[=:]\s*(?P<m>\d[\d,]*)",
    re.I,
)
_USAGE = regex(r"""completion_tokens["']?\s*[=:]\s*(?P<n>\d+)|\beval_count["']?\s*[=:]\s*(?P<m>\d+)""")
_SPENT = regex(
    r"(?P<t>\d+(?:\.\d+)?) ?(?P<u>ms|s|sec|seconds)\b(?!/)|(?:time|elapsed|took)\w*\s*[=:]\s*(?P<b>\d+\.\d+)\b", re.I
)
_PACE = regex(
    r"(?P<r>\d+(?:\.\d+)?) ?(?:tok(?:en)?s?/s|t/s|tps)\b|(?:tok_?s|tps|tokens_per_s\w*)\s*[=:]\s*(?P<q>\d+(?:\.\d+)?)",
    re.I,
)


class TokenCountReader:
    """`bench.usage_tokens`: what an answer says of itself, to be held against `bench.counted_tokens` of its client."""

    name = "token_count"
    needles: tuple[bytes, ...] = (b"completion_tokens", b"eval_count")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A usage block counts once."""
        for line in excerpt(doc, _SMALL):
            for hit in _USAGE.finditer(line.prefix + line.text):
                said = float(hit["n"] or hit["m"])
                if said > 0:
                    yield fact(doc, line, "bench.usage_tokens", said, "count", around=hit.group())


class ClientCountReader:
    """The client's half of `TokenCountReader`, often in a text of its own."""

    name = "client_count"
    needles: tuple[bytes, ...] = (b"tok/s", b"tokens/s", b"t/s", b"tps", b"TPS", b"tok_s", b"toks/s", b"tokens_per_s")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One line that counts what came, times it and divides."""
        for line in excerpt(doc, _SMALL):
            text = line.prefix + line.text
            pace, count = _PACE.search(text), _COUNTED.search(text)
            if pace is None or count is None:
                continue
            rate, n = float(pace["r"] or pace["q"]), amount(count["n"] or count["m"])
            for hit in _SPENT.finditer(text):
                took = float(hit["t"] or hit["b"]) / (1000 if (hit["u"] or "").lower() == "ms" else 1)
                if took > 0 and n >= 16 and abs(n / took - rate) <= 0.03 * rate:
                    yield fact(doc, line, "bench.counted_tokens", n, "count", around=count.group())
                    break


_TOOLS = regex(
    r"load[_-]?gen|load[_-]?test|benchmark_serving|bench_serving|vllm bench|locust|guidellm|genai-perf|aiperf|llmperf"
    r"|\bk6\b|\bwrk2?\b|\bhey\b|\boha\b|bench(?:mark)?_?client|perf_analyzer|\bvegeta\b|jmeter|evalscope",
    re.I,
)


class ClientLoadReader:
    """`bench.client_cpu`: share of one core that the load generator's process takes, from `pidstat`, `top` or `ps`."""

    name = "client_load"
    needles: tuple[bytes, ...] = (b"%CPU",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rows under a head with %CPU; a process is known by its command, or by the command that chose it."""
        at, chosen = -1, False
        for line in excerpt(doc, _SMALL):
            text = line.prefix + line.text
            words = text.split()
            if "%CPU" in words:
                at = len(words) - words.index("%CPU")
                continue
            if re.match(r"\s*[$#] ", text):
                chosen, at = bool(re.search(r"-p\b", text) and _TOOLS.search(text)), -1
            elif 0 < at <= len(words) and (chosen or _TOOLS.search(text)):
                cell = (
                    words[-at]
                    if chosen
                    else next((w for w in words if re.fullmatch(r"(?:9\d|1\d\d)(?:\.\d+)?", w)), "")
                )
                if re.fullmatch(r"\d+(?:\.\d+)?", cell):
                    yield fact(doc, line, "bench.client_cpu", float(cell) / 100, "fraction", around=cell)


_ELEMENTS = regex(r"^\s*(?P<name>\w+)\s*=\s*[\w.]+\.(?:numel|nelement)\(\)\s*(?:#.*)?$")
_OVER_TIME = r"\b{}\s*/\s*(?:\w*(?:t|dt|time|elapsed|sec|dur|took)\w*)\b"
_DIRECT = regex(
    r"\.(?:numel|nelement)\(\)\s*/\s*\(?\w*(?:t|dt|time|elapsed|sec|dur|took)\w*\b(?![^\n]*(?:element_size|itemsize))",
    re.I,
)
_SIZED = regex(r"element_size|itemsize")
_AS_RATE = regex(r"1e-?9|GB|bandwidth|\bbw\b|1 ?<< ?30|2 ?\*\* ?30", re.I)


class ElementRateReader:
    """`bench.elements_as_bytes`: a script that divides a number of elements by time and prints it as bytes a second."""

    name = "element_rate"
    needles: tuple[bytes, ...] = (b"numel()", b"nelement()")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The line that divides, where neither it nor the one that counts knows an element's size."""
        names: list[str] = []
        for line in excerpt(doc, _SMALL):
            text = line.prefix + line.text
            if hit := _ELEMENTS.match(text):
                names.append(hit["name"])
            elif _AS_RATE.search(text) and not _SIZED.search(text) and self._divides(text, names):
                yield fact(doc, line, "bench.elements_as_bytes", "true")

    @staticmethod
    def _divides(text: str, names: list[str]) -> bool:
        return bool(_DIRECT.search(text)) or any(re.search(_OVER_TIME.format(re.escape(n)), text) for n in names)


_AT = regex(r"^\s*\[?(?P<t>\d+(?:\.\d+)?)\s*(?P<u>ms|s)?\]?\s+(?:data:)?")
_THINKS = regex(r"[\"']reasoning(?:_content)?[\"']\s*:\s*[\"'][^\"']")
_ANSWERS = regex(r"[\"']content[\"']\s*:\s*[\"'][^\"']")


class ReasoningStreamReader:
    """`stream.reasoning_lead`: a timed stream whose reasoning deltas come long before the first of the answer."""

    name = "reasoning_stream"
    needles: tuple[bytes, ...] = (b"reasoning",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Times stand before each event."""
        first: float | None = None
        for line in excerpt(doc, _SMALL):
            text = line.prefix + line.text
            at = _AT.match(text)
            if at is None or "{" not in text:
                continue
            now = float(at["t"]) / (1000 if at["u"] == "ms" else 1)
            if _THINKS.search(text):
                first = now if first is None else first
            elif first is not None and _ANSWERS.search(text):
                if now > 2 * first:
                    yield computed(doc, line, "stream.reasoning_lead", round(now - first, 3), "s", self.name)
                return


_ORDER = regex(r"\b(?P<a>\w+) (?:then|->|→|before|先) ?(?P<b>\w+)\b(?P<rest>[^\n]+)")
_RATE = regex(r"\b(?P<who>\w+)\W{1,3}(?P<v>\d+(?:\.\d+)?) ?(?:tok(?:ens?)?/s|req/s|t/s|samples/s|it/s)", re.I)


class OrderReader:
    """`bench.order_gain`: two runs in both orders, and the second is faster each time."""

    name = "run_order"
    needles: tuple[bytes, ...] = (b" then ", b"->", b" before ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rows ``A then B  A 10 tok/s  B 13 tok/s`` and the reverse."""
        gains: dict[tuple[str, str], tuple[float, Line]] = {}
        for line in excerpt(doc, _SMALL):
            hit = _ORDER.search(line.text)
            rates = {r["who"]: float(r["v"]) for r in _RATE.finditer(hit["rest"])} if hit else {}
            if hit and rates.get(hit["a"], 0) > 0 and hit["b"] in rates:
                gains[hit["a"], hit["b"]] = (rates[hit["b"]] / rates[hit["a"]], line)
        for (a, b), (gain, line) in gains.items():
            back = gains.get((b, a))
            if back is not None and min(gain, back[0]) > 1:
                yield computed(doc, line, "bench.order_gain", round(min(gain, back[0]), 3), "count", self.name)
                return


_LIST = regex(r"(?P<name>\w*(?:time|lat|dur|elapsed|iter|ms|sec)\w*)\W{0,4}[=:]\s*\[(?P<all>\s*\d[\d.,\s]*)\]", re.I)
_MEAN = regex(r"\b(?:mean|avg|average)\b[^\n\d]{0,20}(?P<v>\d+(?:\.\d+)?)", re.I)


class ListMeanReader:
    """`bench.mean_with_first`: a quoted mean that is that of a list whose first entry is far above all others."""

    name = "list_mean"
    needles: tuple[bytes, ...] = (b"mean", b"avg", b"verage")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The mean is printed near the list, in its unit or in one of a thousand."""
        lines = excerpt(doc, _SMALL)
        for at, line in enumerate(lines):
            listed = _LIST.search(line.prefix + line.text)
            values = [float(v) for v in re.findall(r"\d+(?:\.\d+)?", listed["all"])] if listed else []
            if len(values) < 5 or values[0] < 5 * max(values[1:]) or max(values[1:]) <= 0:
                continue
            mean = sum(values) / len(values)
            for near in lines[max(0, at - 3) : at + 4]:
                hit = _MEAN.search(near.prefix + near.text)
                if hit and any(abs(float(hit["v"]) - mean * k) <= 0.02 * mean * k for k in (1, 1e3, 1e-3)):
                    ratio = mean / median(values[1:])
                    yield computed(doc, near, "bench.mean_with_first", round(ratio, 3), "count", self.name)
                    return


READERS: list[Reader] = [
    ListMeanReader(), ReasoningStreamReader(), OrderReader(),
    LoadStatusReader(), ElementRateReader(), NegativeTimeReader(), TokenCountReader(), ClientCountReader(),
    ClientLoadReader(),
]  # fmt: skip
