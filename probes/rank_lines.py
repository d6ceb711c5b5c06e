"""Lines that start with a rank and name what it spent: `[rank2] step 812 wait_allreduce=0.004 data=0.438`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import computed, divided, excerpt, fact
from .nccl_samples import late

_WHO = regex(r"^\W*(?:\[?(?:local_|global_)?(?P<kind>rank|worker|gpu|node|host)[ _:=#-]{0,2}(?P<n>\d{1,4})\]?)", re.I)
_STEP = regex(r"\b(?:step|iter(?:ation)?|it)[ :=#]{1,2}(\d+)\b", re.IGNORECASE)
_PAIR = regex(
    r"(?<![\w.])(?P<name>[A-Za-z](?:(?! \d)[\w ./+-]){1,30}?)(?:\s?[:=]\s?(?P<v>\d+(?:\.\d+)?)\s?(?P<vu>ms|us|s|sec)?|\s(?P<w>\d+(?:\.\d+)?)\s?(?P<wu>ms|us|s))(?![\w.%])"  # noqa: E501
)


class RankLines:
    """The ranks of one step side by side: who waits least in the collective and works longest is the late one."""

    name = "rank_lines"
    needles: tuple[bytes, ...] = (b"rank", b"Rank", b"worker", b"node", b"gpu")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`straggler.late` of the first step that three ranks or more report."""
        steps: dict[tuple[str, str, tuple[str, ...]], list[tuple[str, list[float], Line]]] = {}
        for line in excerpt(doc, 4 << 20, 20_000):
            text = line.prefix + line.text
            who = _WHO.match(text) if len(text) < 400 else None
            if who is None:
                continue
            rest = text[who.end() :]
            step = _STEP.search(rest)
            pairs = list(_PAIR.finditer(_STEP.sub(" ", rest)))
            if len(pairs) < 2:
                continue
            names = tuple(p["name"].strip() for p in pairs)
            rows = steps.setdefault((who["kind"].lower(), step[1] if step else "", names), [])
            if all(r[0] != who["n"] for r in rows):
                rows.append((who["n"], [_ms(p) for p in pairs], line))
        for (kind, _, names), rows in steps.items():
            made = list(late(doc, [kind, *names], rows))
            made = made or list(_own_work(doc, kind, names, rows))
            if made:
                yield from made
                return


def _ms(pair: re.Match[str]) -> float:
    """In milliseconds where a unit is printed: one rank's line may say `10 ms` and another's `2.1 s`."""
    scale = {"s": 1e3, "sec": 1e3, "us": 1e-3}.get(pair["vu"] or pair["wu"] or "", 1.0)
    return float(pair["v"] or pair["w"]) * scale


_OWN = regex(r"data|load|forward|backward|\bfwd|\bbwd|comput|optim|augment|tokeni|checkpoint|save|gc\b|eval", re.I)
_WHOLE = regex(r"total|step|iter|wall|elapsed", re.I)


def _own_work(
    doc: Document, kind: str, names: tuple[str, ...], rows: list[tuple[str, list[float], Line]]
) -> Iterator[Fact]:
    """Work of its own that takes one rank far longer than the others, and a good part of the step that all have."""
    if len(rows) < 3:
        return
    whole = [
        max(r[1][k] for r in rows) for k, name in enumerate(names) if _WHOLE.search(name) and not _OWN.search(name)
    ]
    for k, name in enumerate(names):
        if not _OWN.search(name):
            continue
        who, own, line = max(rows, key=lambda r: r[1][k])
        others = sorted((r for r in rows if r[0] != who), key=lambda r: r[1][k])
        usual = others[len(others) // 2]
        base = max(whole) if whole else max(sum(r[1]) for r in rows)
        near = others[-1][1][k] <= 1.3 * max(usual[1][k], 0.02 * base)
        if usual[1][k] > 0 and near and own[k] - others[-1][1][k] >= 0.15 * base:
            a, b = (
                fact(doc, r[2], "rank.reading", r[1][k], "count", label=f"{name}|{kind} {r[0]}")
                for r in ((who, own, line), usual)
            )
            yield divided(
                "spread.outlier",
                (a, b),
                subject=Subject(label=f"{kind}|{name}|{kind} {who}"),
                spans=(doc.span(line), doc.span(usual[2])),
            )
            return


_LONE = regex(
    r"(?P<name>(?:barrier|all_?-?reduce|sync\w*|collective|nccl|comm)[\w ./+-]{0,20}?(?:wait\w*|time|spent|took)?)\s*[:=]?\s*"  # noqa: E501
    r"(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|us|s)\b",
    re.I,
)


class RankWaits:
    """Lines `[rank5] barrier wait 0.2 ms`: the one that hardly waits is the one that the others wait for."""

    name = "rank_waits"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`straggler.late`, where each line holds one figure, all others are alike and ten times larger."""
        rows: dict[str, tuple[float, Line]] = {}
        for line in excerpt(doc, 1 << 16, 600):
            text = line.prefix + line.text
            who = _WHO.match(text) if len(text) < 200 else None
            hits = list(_LONE.finditer(text[who.end() :])) if who else []
            if who is not None and len(hits) == 1:
                rows.setdefault(who["n"], (float(hits[0]["v"]) * IN_MS.get(hits[0]["u"], 1.0), line))
        if len(rows) < 3:
            return
        order = sorted(rows.items(), key=lambda r: r[1][0])
        low, rest = order[0], [r[1] for r in order[1:]]
        if low[1][0] > 0 and rest[0][0] >= max(10 * low[1][0], 5.0) and rest[-1][0] <= 1.3 * rest[0][0]:
            a = fact(doc, rest[0][1], "rank.wait", rest[0][0], "count", label="the others")
            b = fact(doc, low[1][1], "rank.wait", low[1][0], "count", label=f"rank {low[0]}")
            yield divided(
                "straggler.late",
                (a, b),
                subject=Subject(label=f"wait|rank {low[0]}"),
                spans=(doc.span(low[1][1]), doc.span(rest[0][1])),
            )


_ROW = regex(
    r"^\W*(?P<who>[A-Za-z][\w.-]{0,30}?)\s*[:|=]?\s+(?P<values>\d+(?:\.\d+)?(?:[\s|,]+\d+(?:\.\d+)?){0,15})\s*\|?\s*$"
)
_MEASURE = regex(r"TFLOP\w*(?:/s)?|GB/s|gemm|matmul|MHz|busbw|ms\b|it/s|tok/s|img/s|bandwidth|clock", re.I)


class HostRows:
    """A row of one reading a GPU for each host: one GPU of one host is far below all others."""

    name = "host_rows"
    needles: tuple[bytes, ...] = (b"TFLOP", b"GB/s", b"gemm", b"GEMM", b"MHz", b"busbw", b"it/s", b"tok/s", b"atmul")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`spread.outlier` of that GPU."""
        rows: list[tuple[str, list[float], Line]] = []
        measure = ""
        for line in excerpt(doc, 1 << 15, 300):
            text = line.prefix + line.text
            hit = _ROW.match(text)
            if hit is not None:
                values = [float(v) for v in re.split(r"[\s|,]+", hit["values"]) if v]
                if not rows or len(rows[0][1]) == len(values):
                    rows.append((hit["who"], values, line))
                    continue
            if rows:
                break
            named = _MEASURE.search(text)
            measure = named.group() if named else measure
        values_ = sorted(v for _, vs, _ in rows for v in vs)
        single = len(rows[0][1]) == 1 if rows else False
        if (
            len(rows) < (4 if single else 2)
            or not measure
            or len(values_) < (4 if single else 8)
            or re.fullmatch("(?i)ms", measure)
        ):
            return
        usual = values_[len(values_) // 2]
        if values_[0] <= 0 or values_[0] > 0.8 * usual or values_[1] < 0.93 * usual or values_[-1] > 1.07 * usual:
            return
        who, values, line = next(r for r in rows if values_[0] in r[1])
        a = fact(doc, line, "rank.reading", usual, "count", label="the others")
        b = fact(doc, line, "rank.reading", values_[0], "count", around=f"{values_[0]:g}", label=who)
        yield Fact(
            "spread.outlier", usual / values_[0], "count",
            Subject(label=f"node|{measure}|{who} number {values.index(values_[0])}"), (doc.span(line),), kind="derived",
            formula="reader:host_rows", inputs=(b, a) if str(usual) in line.text else (b,), status=doc.status,
        )  # fmt: skip


_RANKS = regex(
    r"^\W*(?:\w+[ :]+)?\[?ranks?[ _:=#]{0,2}"
    r"(?P<who>\d{1,4}(?:\s*(?:,|-|–|\.\.+|to|and|&)\s*\d{1,4})*)\]?\b(?P<rest>.*)$",
    re.IGNORECASE,
)
_OP = regex(
    # `(send/recv)` and `perform barrier` are words of PyTorch's warnings, no place where a rank sits
    r"(?<!perform )(?<![A-Za-z0-9])_?(?P<op>all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|barrier|send|recv|isend"  # noqa: E501
    r"|irecv)(?:_\w+)?\b(?!/)(?<!/recv)",
    re.IGNORECASE,
)
_STUCK = re.compile(
    rb"py-?spy|nccl:|stack|stuck|hang|hung|block|wait|sits?\b|traceback|gdb|frozen|freez|watchdog|timeout|dump",
    re.IGNORECASE,
)


class RankOperations:
    """In which collective each rank sits: `ranks 0-5: all_to_all_single`, `rank 3: barrier`."""

    name = "rank_operations"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.collective` for two operations or more, in text that speaks of a standstill."""
        if not _STUCK.search(doc.head):
            return
        found: dict[str, Fact] = {}
        for line in excerpt(doc, 1 << 16, 400):
            text = line.prefix + line.text
            who = (_RANKS.match(text) or _FLIGHT.match(text)) if len(text) < 300 else None
            operation = _OP.search(who["rest"]) if who is not None else None
            if who is None or operation is None:
                continue
            name = operation["op"].lower().replace("_", "")
            found.setdefault(name, fact(doc, line, "rank.collective", operation["op"], label=f"rank {who['who']}"))
        if len(found) >= 2:
            yield from found.values()


# A row of a flight recorder's table: rank, number of the collective, operation
_FLIGHT = regex(r"^\s*(?P<who>\d{1,5})\s+(?P<seq>\d{1,12})\s+nccl:_?(?P<rest>\w+.*)$")
_TIMER = regex(
    r"^\s*(?P<name>[a-z][\w -]{2,40}?)\s*\.{2,}:?\s*\(\s*(?P<low>\d+(?:\.\d+)?),\s*(?P<high>\d+(?:\.\d+)?)\s*\)"
)


_FELT = 0.005  # of the longest timer, below which nobody feels that ranks are apart
_ALIKE = 1.1


class RankTimers:
    """Megatron's timers as `(min, max) across ranks`: how far the ranks are apart in each."""

    name = "rank_timers"
    needles: tuple[bytes, ...] = (b"across ranks",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.timer_spread`, the largest over the smallest rank."""
        inside = False
        longest = 0.0
        found: dict[str, tuple[float, Fact]] = {}
        for line in islice(doc.lines(), 20000):
            text = line.prefix + line.text
            if "across ranks" in text:
                inside = "min, max" in text or "(min" in text
            hit = _TIMER.match(text) if inside else None
            if hit is not None and float(hit["low"]) > 0:
                ratio = float(hit["high"]) / float(hit["low"])
                made = computed(doc, line, "rank.timer_spread", ratio, "count", self.name, label=hit["name"].strip())
                apart = float(hit["high"]) - float(hit["low"])
                longest = max(longest, float(hit["high"]))
                found[hit["name"].strip()] = apart, made
        small = _FELT * longest
        yield from (made for apart, made in found.values() if apart >= small or float(made.value or 0) <= _ALIKE)


_RANGE = regex(r"(\d{1,5})(?:\s*(?:-|–|\.\.+|to)\s*(\d{1,5}))?")
_SPAN = regex(r"^[\s:|=]{0,40}(?P<a>\d+(?:\.\d+)?)(?:\s*(?:-|–|\.\.+)\s*(?P<b>\d+(?:\.\d+)?))?\s?(?:ms|s|us)?\s*$")


class RankRanges:
    """Rows of ranges of ranks, of which one is a single rank far off: `ranks 0..76  0-6`, `rank 77  341`."""

    name = "rank_ranges"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`spread.outlier` of the lone rank beside the largest usual reading."""
        rows: list[tuple[int, str, float, str, Line]] = []
        for line in excerpt(doc, 1 << 16, 400):
            text = line.prefix + line.text
            who = _RANKS.match(text) if len(text) < 120 else None
            span = _SPAN.match(who["rest"]) if who is not None else None
            if who is None or span is None:
                continue
            count = sum(int(b or a) - int(a) + 1 for a, b in _RANGE.findall(who["who"]))
            printed = span["b"] or span["a"]
            rows.append((count, who["who"], float(printed), printed, line))
        lone = [r for r in rows if r[0] == 1]
        many = [r for r in rows if r[0] > 1]
        if len(lone) != 1 or not many or sum(r[0] for r in many) < 3:
            return
        usual = max(many, key=lambda r: r[2])
        if usual[2] <= 0 or lone[0][2] < 1.25 * usual[2]:
            return
        a, b = (
            fact(doc, r[4], "rank.reading", r[2], "count", around=r[3], label=f"rank {r[1]}") for r in (lone[0], usual)
        )
        yield divided(
            "spread.outlier",
            (a, b),
            subject=Subject(label=f"rank|time|rank {lone[0][1]}", rank=int(lone[0][1])),
            spans=(doc.span(lone[0][4]), doc.span(usual[4])),
        )


_LISTED = regex(r"(?<![\w.:])(?P<r>\d{1,4}):(?P<v>\d+\.\d+)(?![\w:.])")
_WAITING = regex(r"wait|sync|barrier|all.?reduce|collective|nccl|comm|idle|等待|通信", re.I)
_WORKING = regex(r"comput|step|forward|backward|gemm|data|optim|iter|work|计算", re.I)


class RankLists:
    """Lists `0:2.91 1:2.92 … 6:0.02` under a line that says what was timed by rank."""

    name = "rank_lists"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`straggler.late` where all but one wait, `spread.outlier` where one works far longer."""
        caption = ""
        rows: dict[str, tuple[float, Line]] = {}
        for line in excerpt(doc, 1 << 14, 200):
            text = line.prefix + line.text
            hits = list(_LISTED.finditer(text))
            if len(hits) >= 4:
                for hit in hits:
                    rows.setdefault(hit["r"], (float(hit["v"]), line))
            elif rows:
                break
            elif re.search("rank", text, re.I):
                caption = text
        order = sorted(rows.items(), key=lambda r: r[1][0])
        if len(order) < 4 or not caption:
            return
        low, high, usual = order[0], order[-1], order[len(order) // 2]
        waits = _WAITING.search(caption) is not None
        one = low if waits else high
        near = order[1:] if waits else order[:-1]
        alike = near[-1][1][0] <= 1.15 * near[0][1][0]
        apart = usual[1][0] / low[1][0] if waits and low[1][0] > 0 else high[1][0] / usual[1][0] if usual[1][0] else 0.0
        if not alike or apart < (5 if waits else 1.25) or not (waits or _WORKING.search(caption)):
            return
        a = fact(doc, usual[1][1], "rank.reading", usual[1][0], "count", label=f"rank {usual[0]}")
        b = fact(doc, one[1][1], "rank.reading", one[1][0], "count", label=f"rank {one[0]}")
        yield Fact(
            "straggler.late" if waits else "spread.outlier", apart, "count",
            Subject(label=f"wait|rank {one[0]}" if waits else f"rank|time|rank {one[0]}"), (doc.span(one[1][1]),),
            kind="derived", formula="a / b", inputs=(a, b) if waits else (b, a), status=doc.status,
        )  # fmt: skip


READERS: list[Reader] = [
    RankLists(),
    RankLines(),
    RankWaits(),
    HostRows(),
    RankOperations(),
    RankTimers(),
    RankRanges(),
]
