"""How a stream arrives at a client, and what a load test sends: held back to the end, in steps, one prompt again."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact

_SMALL = 1 << 15
_LINES = 300
_MS = {"ms": 1.0, "s": 1e3, "秒": 1e3, "毫秒": 1.0}

_STAMP = regex(r"^\W{0,3}(?P<t>\d{1,6}(?:\.\d{1,6}))\s*s?\W{0,3}\s*(?:data:|chunk|event|tok)")
_CALL = regex(
    r"^\W{0,4}(?:\$|>)?\s*curl\b|\bcurl -|^\s*#|^\W{0,3}(?:through|via|direct|straight|without|经过|直连|走)", re.I
)
_PAIR = regex(
    r"first (?:data|chunk|token|event|byte|delta)\w*\W{0,3}(?:at |after )?(?P<a>\d+(?:\.\d+)?) ?(?P<au>ms|s)\b.{0,40}?last (?:data|chunk|token|event|byte|delta)\w*\W{0,3}(?:at |after )?(?P<b>\d+(?:\.\d+)?) ?(?P<bu>ms|s)\b"  # noqa: E501
    r"|首(?:包|字|个 ?token|token|字节)\W{0,3}(?P<c>\d+(?:\.\d+)?) ?(?P<cu>ms|s|秒|毫秒).{0,30}?(?:末|尾|最后)(?:一个)?(?:包|字|token|字节)?\W{0,3}(?P<d>\d+(?:\.\d+)?) ?(?P<du>ms|s|秒|毫秒)",  # noqa: E501
    re.I,
)
_SERIES = regex(r"(?:(?<=[:：\s])|^)(?P<row>\d+(?:\.\d+)?(?:[\s,]+\d+(?:\.\d+)?){4,})\s*(?:s|ms)?\s*$")
_EACH = regex(r"each (?:chunk|event|token|line|delta)|arriv|chunk|stamp|到达|时间戳|每(?:个|行)", re.I)
_WORDED = regex(
    r"(?:first (?:byte|chunk|token|data)|ttfb|首(?:包|字节|字))\W{0,4}(?P<a>\d+(?:\.\d+)?) ?(?P<u>ms|s|秒).{0,40}?(?:(?P<held>all at once|all (?:tokens|chunks|events|data|the rest) (?:with)?in \d+ ?ms|in one (?:go|piece|lump)|at the end|one burst|一次性|一下子)|(?P<even>one by one|(?:tokens?|chunks?|events?) every \d+ ?ms|token by token|token-by-token|steadily|evenly|smooth\w*|incremental\w*|逐(?:字|个|token)))",  # noqa: E501
    re.I,
)
_ENCODED = regex(r"^\W{0,4}(?:\d+(?:\.\d+)?\s+)?[<\s]*content-encoding:\s*(?P<how>gzip|br|deflate|zstd)\b", re.I)


class ArrivalReader:
    """`stream.arrival`: first over last arrival of a stream, near one where somebody held it back until the end."""

    name = "stream_arrival"
    needles: tuple[bytes, ...] = (
        b"data:",
        b"chunk",
        b"first ",
        b"irst byte",
        b"TTFB",
        b"ttfb",
        "首".encode(),
        b"ontent-",
        b"event",
        b"GZip",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a stream; `stream.encoded` for a compressed one."""
        block: list[tuple[float, Line]] = []
        for line in excerpt(doc, _SMALL, 2000):
            text = line.prefix + line.text
            stamp = _STAMP.match(text)
            if stamp:
                block.append((float(stamp["t"]), line))
                continue
            if _CALL.search(text) and block:
                yield from self._made(doc, block)
                block = []
            yield from self._line(doc, line, text)
        yield from self._made(doc, block)

    def _made(self, doc: Document, block: list[tuple[float, Line]]) -> Iterator[Fact]:
        if len(block) >= 3 and block[-1][0] >= block[0][0] and block[-1][0] >= 1:
            yield self._fact(doc, block[0][0], block[-1][0], block[0][1], block[-1][1])

    def _line(self, doc: Document, line: Line, text: str) -> Iterator[Fact]:
        if hit := _ENCODED.search(text):
            yield fact(doc, line, "stream.encoded", hit["how"].lower())
        if hit := _PAIR.search(text):
            a, au, b, bu = (hit[k] or hit[o] for k, o in (("a", "c"), ("au", "cu"), ("b", "d"), ("bu", "du")))
            first, last = float(a) * _MS[au.lower()] / 1e3, float(b) * _MS[bu.lower()] / 1e3
            if 0 < first <= last >= 1:
                yield self._fact(doc, first, last, line, line)
        elif _EACH.search(text) and (hit := _SERIES.search(text)):
            row = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", hit["row"])]
            if row == sorted(row) and row[0] > 0:
                yield self._fact(doc, row[0], row[-1], line, line)
        else:
            for hit in _WORDED.finditer(text):
                kind = "held" if hit["held"] else "even"
                yield fact(doc, line, "stream.worded", kind, label=kind)

    @staticmethod
    def _fact(doc: Document, first: float, last: float, at: Line, end: Line) -> Fact:
        spans = (doc.span(at),) if at is end else (doc.span(at), doc.span(end))
        return Fact(
            "stream.arrival", round(first / last, 4), "fraction", Subject(label=f"{last:g} s"), spans, kind="derived",
            formula="reader:stream_arrival", status=doc.status,
        )  # fmt: skip


# ---------------------------------------------------------------- how many prompts differ

_COUNT = regex(r"^\s*(?P<n>\d{1,9})(?:\s+(?P<file>\S+\.\w{2,6}))?\s*$")
_ASKED = regex(r"sort -u[^|\n]*\|\s*wc -l|uniq\b[^|\n]*\|\s*wc -l|\bunique\b.*\bwc\b", re.I)
_ROWS = regex(r"\bwc -l\b")
_GROUPED = regex(r"uniq -c")
_GROUP = regex(r"^\s*(?P<n>\d{1,9})\s+\S+")
_DISTINCT = regex(
    r"(?:distinct|unique|different)\b[^\d\n]{0,40}?(?P<a>\d[\d,]*|one|a single) ?(?:of|out of|/|in) ?(?P<b>\d[\d,]*)"
    r"|(?P<c>\d[\d,]*|one|a single) (?:distinct|unique|different) (?:prompts?|questions?|requests?|inputs?|texts?|messages?)[^\n]{0,40}?(?:\b(?:of|in|out of|for|over|among)\b)[^\d\n]{0,20}(?P<d>\d[\d,]*)"  # noqa: E501
    r"|(?P<f>\d[\d,]*) (?:requests?|rows?|lines?|prompts?|samples?)[^\n]{0,20}?\b(?P<e>\d[\d,]*|one|a single|only one) (?:distinct|unique|different)"  # noqa: E501
    r"|(?P<h>\d[\d,]*) ?(?:条|个|行)(?:请求|prompt|样本|数据|问题)?[^\n]{0,12}?(?:去重后|不同的?|唯一)\D{0,8}(?P<g>\d[\d,]*)",  # noqa: E501
    re.I,
)
_PAIRS = (("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"))
_CONSTANT = regex(
    r"^\s*(?:const |let |var )?(?P<name>[A-Z][A-Z0-9_]*|prompt|question|payload|body|data)\s*=\s*(?:open\(|JSON\.stringify\(|[\"'f{]|Path\(|json\.|\()"  # noqa: E501
)
_SENT = regex(r"(?:\.post\(|requests?\.|completions?\.create|generate\(|http\.request|aiohttp|httpx|session\.)", re.I)
# These send one body to the end; what else they send comes from a script.
_ONE_BODY = regex(
    r"\b(?:hey|ab|bombardier|autocannon|oha|siege)\b(?=[^\n]* -[nczt] ?\d)(?![^\n]*(?:\.lua|targets))[^\n]*? (?:-D|-d|-p|-b|-f|--body(?:-file)?|--data|-T json -p)[ =]?\S+",  # noqa: E501
    re.I,
)
_DRAWN = regex(
    r"random|choice|sample|shuffle|uuid|itertools|cycle|dataset|next\(|\[i\]|\[idx|feeder|csv|SharedArray|__ITER|faker",
    re.I,
)
_LOAD = regex(
    r"locust|HttpUser|@task|k6|vus|asyncio\.gather|ThreadPool|for _ in range|concurren|wrk\b|hey\b|\bab -n|vegeta|autocannon|bombardier",  # noqa: E501
    re.I,
)


class DistinctPromptReader:
    """`bench.distinct_share`: how many of the prompts of a load differ from each other."""

    name = "distinct_prompts"
    needles: tuple[bytes, ...] = (
        b"uniq",
        b"hey ",
        b"ab -",
        b"oha ",
        b"bombardier",
        b"autocannon",
        b"siege ",
        b"sort -u",
        b"istinct",
        b"ifferent",
        "去重".encode(),
        "不同".encode(),
        b"post(",
        b"POST",
        b"create(",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """From a count of the lines, from words, or from code that sends one constant."""
        lines = excerpt(doc, _SMALL, _LINES)
        yield from self._worded(doc, lines)
        yield from self._counted(doc, lines)
        yield from self._coded(doc, lines)
        for line in lines:
            if hit := _ONE_BODY.search(line.prefix + line.text):
                yield fact(doc, line, "bench.one_prompt", hit.group()[:80])

    @staticmethod
    def _worded(doc: Document, lines: list[Line]) -> Iterator[Fact]:
        for line in lines:
            for hit in _DISTINCT.finditer(line.prefix + line.text):
                for small, large in _PAIRS:
                    if hit[small] and hit[large]:
                        few = amount(hit[small]) if hit[small][0].isdigit() else 1.0
                        many = amount(hit[large])
                        if 0 < few <= many >= 20:
                            yield computed(
                                doc, line, "bench.distinct_share", round(few / many, 5), "fraction", "distinct_prompts"
                            )

    @staticmethod
    def _counted(doc: Document, lines: list[Line]) -> Iterator[Fact]:
        for at, line in enumerate(lines):
            text = line.prefix + line.text
            if _GROUPED.search(text):
                sizes = []
                for row in lines[at + 1 : at + 12]:
                    hit = _GROUP.match(row.prefix + row.text)
                    if hit is None:
                        break
                    sizes.append((int(hit["n"]), row))
                if (
                    sizes
                    and sum(n for n, _ in sizes) >= 20
                    and max(n for n, _ in sizes) >= 0.5 * sum(n for n, _ in sizes)
                ):
                    share = len(sizes) / sum(n for n, _ in sizes)
                    yield computed(
                        doc, sizes[0][1], "bench.distinct_share", round(share, 5), "fraction", "distinct_prompts"
                    )
                return
            if _ASKED.search(text):
                bare = [
                    (int(h["n"]), r) for r in lines[at + 1 : at + 4] if (h := _COUNT.match(r.prefix + r.text)) is not None  # noqa: E501
                ]  # fmt: skip
                if len(bare) == 2 and _ROWS.search(text):
                    few, many = sorted(bare, key=lambda b: b[0])
                    if few[0] >= 1 and many[0] >= 20:
                        yield computed(
                            doc,
                            few[1],
                            "bench.distinct_share",
                            round(few[0] / many[0], 5),
                            "fraction",
                            "distinct_prompts",
                        )
                return

    @staticmethod
    def _coded(doc: Document, lines: list[Line]) -> Iterator[Fact]:
        text = "\n".join(line.prefix + line.text for line in lines)
        if _SENT.search(text) is None or _LOAD.search(text) is None or _DRAWN.search(text):
            return
        for line in lines:
            hit = _CONSTANT.match(line.prefix + line.text)
            if hit is None:
                continue
            used = [
                other for other in lines
                if other is not line and re.search(rf"(?<![\w\"']){hit['name']}(?![\w\"'])", other.text)
                and re.search(r"prompt|messages|content|json|data|body", other.text)
            ]  # fmt: skip
            if used and re.search(
                r"prompt|question|text|messages|payload|body|content", hit["name"] + used[0].text, re.I
            ):
                yield Fact(
                    "bench.one_prompt",
                    hit["name"],
                    None,
                    Subject(),
                    (doc.span(line), doc.span(used[0])),
                    status=doc.status,
                )
                return


# ---------------------------------------------------------------- steps of several tokens

_GAPS = regex(
    r"(?:gaps?|intervals?|itl|deltas?|间隔)[^\d\n]{0,24}(?P<row>\d+(?:\.\d+)?(?: ?ms)?(?:[\s,、/]+\d+(?:\.\d+)?(?: ?ms)?){5,})",  # noqa: E501
    re.I,
)
_PER_EVENT = regex(
    r"(?:tokens?|字) ?(?:per|/|in (?:each|every|one)) ?(?:sse )?(?:event|chunk|data|frame|message|flush)\w*\W{0,24}(?:mean|avg|average|p50|median)?\W{0,3}(?P<a>\d+(?:\.\d+)?)"  # noqa: E501
    r"|(?:mean|avg|average)? ?(?P<b>\d+(?:\.\d+)?) tokens? (?:per|in (?:each|every|one)) (?:sse )?(?:event|chunk|frame|step|message)", re.I,  # noqa: E501
)  # fmt: skip


class StreamStepReader:
    """`stream.gap` of a stream in which some tokens come together, and `stream.step_tokens`, how many do."""

    name = "stream_steps"
    needles: tuple[bytes, ...] = (b"gap", b"nterval", b"ITL", b"itl", "间隔".encode(), b"event", b"chunk")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """From a row of gaps with zeros among them, and from words."""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if len(text) > 400:
                continue
            if hit := _GAPS.search(text):
                row = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", hit["row"])]
                high = [n for n in row if n > 0.1 * max(row)]
                if len(high) <= 0.8 * len(row) and max(high) <= 1.3 * min(high):
                    yield computed(doc, line, "stream.gap", statistics.median(high), "ms", self.name)
                    yield computed(doc, line, "stream.step_tokens", round(len(row) / len(high), 3), "count", self.name)
            elif hit := _PER_EVENT.search(text):
                yield computed(doc, line, "stream.step_tokens", float(hit["a"] or hit["b"]), "count", self.name)


READERS: list[Reader] = [ArrivalReader(), DistinctPromptReader(), StreamStepReader()]
