"""Small tables that people type from counters and ranks: before and after, and who computes while others wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import amount, divided, fact, in_cells

_WHEN = regex(
    r"\b(?:before|after|start|end|t ?= ?\d+|t[01]\b|delta|diff|growth|first|second|\+\d+ ?s)\b|[+Δ]|前|后"
    r"|增量",
    re.IGNORECASE,
)
_PAIR = regex(
    r"^\s*(?P<name>[A-Za-z][\w ./:-]*?[\w)])(?:\s*+[:=|]\s++|\s++)(?:\|\s*+)?(?P<a>\d[\d,]*+)\s*+(?:(?:->|→|=>|\||to"
    r"|,)\s*+)?(?:\|\s*+)?(?P<b>\d[\d,]*+)"
    r"(?:\s*+(?:\|\s*+)?\(?[+Δ]?\s*+(?P<d>-?\d[\d,]*+)?\)?)?\s*+(?:\|\s*+)?$"
)
_ARROW = regex(r"(?P<name>[A-Za-z]\w*)\s*[:=]?\s+(?P<a>\d[\d,]*)\s*(?:->|→|=>|⇒)\s*(?P<b>\d[\d,]*)")
_FAR_ARROW = regex(
    r"(?<!\w)(?P<name>(?:port|tx|rx|np|rp|out|local|symbol|link)_\w+)\b[^\d\n]{0,48}?[:=]\s*(?P<a>\d[\d,]*)\s*(?:->|→|=>|⇒)\s*"
    r"(?P<b>\d[\d,]*)"
)
_PLUS = regex(
    r"(?P<name>[A-Za-z]\w*(?:_\w+|Errors?|Wait|Discards|Counter"
    r"|Downed))\s*[:=]?\s+\+\s?(?P<d>\d[\d,]*)\b"
)
_COUNTER = regex(
    r"bytes|packets|xmit|rcv|discard|error|err\b|drop|pause|cnp|ecn|retrans|downed|symbol|out_of|timeout|seq"
    r"|rnr|recover|wait|crc|buffer",
    re.IGNORECASE,
)
_NIC = regex(
    r"\b((?:mlx[45]_(?:bond_)?\w+|bnxt_re\w*|irdma\w*|rocep\w+|ibp\w+|hfi1_\d+|efa_\d+|rdmap\w+"
    r"|en[a-z]\w*|eth\d+|ib\d+|bond\d+))\b"
)
_FIRST = regex(
    r"^\W*(?:local[ _-]?|global[ _-]?)?(rank|ranks|node|host|gpu|worker|server|机器|节点"
    r"|卡)\b",
    re.IGNORECASE,
)
_WAIT = regex(
    r"all.?reduce|all.?gather|reduce.?scatter|all.?to.?all|nccl|comm|wait|barrier|sync|collective|exposed|通信|等待"
    r"|集合",
    re.IGNORECASE,
)
_WORK = regex(
    r"fwd|bwd|forward|backward|comput|calc|\bfw\b|\bbw\b|gemm|kernel|data|load|gpu time|计算|前向|反向"
    r"|数据",
    re.IGNORECASE,
)
_CELL = regex(r"^[~≈]?(\d[\d,]*(?:\.\d+)?)(?:\s?(?:ms|us|s|%|GB/s))?$")
LINES = 400


class CounterTableReader:
    """Two readings of one counter on a line: how much it grew."""

    name = "counter_table"
    needles = (
        b"bytes",
        b"xmit",
        b"rcv",
        b"discard",
        b"err",
        b"Err",
        b"pause",
        b"cnp",
        b"packets",
        b"downed",
        b"Symbol",
        b"out_of",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`counter.delta` for each row; a header or an arrow tells that the numbers are a before and an after."""
        header = False
        nic = ""
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                return
            text = line.text
            if len(_WHEN.findall(text)) >= 2 and not _PAIR.match(text) and not _FAR_ARROW.search(text):
                header = True
                continue
            if named := _NIC.search(text):
                nic = named[1]
            hits = list(_ARROW.finditer(text))
            if not any(_COUNTER.search(hit["name"]) for hit in hits):
                hits = list(_FAR_ARROW.finditer(text))
            if not hits and header and (row := _PAIR.match(text)):
                hits = [row]
            for hit in hits:
                if _COUNTER.search(hit["name"]):
                    yield self._delta(doc, line, hit["name"], hit["a"], hit["b"], nic)
            for hit in _PLUS.finditer(text) if not hits else ():
                if _COUNTER.search(hit["name"]):
                    yield fact(
                        doc, line, "counter.delta", amount(hit["d"]), "count", label=hit["name"], nic=nic or None
                    )

    @staticmethod
    def _delta(doc: Document, line: Line, name: str, before: str, after: str, nic: str) -> Fact:
        label = re.sub(r"\s+", " ", name.strip())
        span = (doc.span(line),)
        subject = Subject(label=label, nic=nic or None)
        a = Fact("counter.after", amount(after), "count", subject, span, status=doc.status)
        b = Fact("counter.before", amount(before), "count", subject, span, status=doc.status)
        return Fact(
            "counter.delta", amount(after) - amount(before), "count", subject, span, kind="derived", formula="a - b",
            inputs=(a, b), status=doc.status,
        )  # fmt: skip


class RankTableReader:
    """One row a rank or node, columns of work and of waiting; rows may be left out."""

    name = "rank_table"
    needles = (
        b"rank",
        b"Rank",
        b"RANK",
        b"node",
        b"Node",
        b"host",
        b"Host",
        b"gpu",
        b"GPU",
        b"worker",
        "节点".encode(),
        "卡".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`straggler.late` for the row that works longest while all others wait."""
        header: list[str] = []
        rows: list[tuple[str, list[float], Line]] = []
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                break
            text = (line.prefix + line.text).replace("|", "  ")
            cells = [c for c in re.split(r"\s{2,}|\t|,\s*", text.strip()) if c]
            if _FIRST.match(text) and len(cells) >= 2 and not any(_CELL.match(c) for c in cells[1:]):
                yield from late(doc, header, rows)
                header, rows = cells, []
                continue
            row = [m[1] for c in cells[1:] if (m := _CELL.match(c))]
            if header and len(row) >= len(header) - 1 and len(cells) >= 2:
                rows.append((cells[0], [amount(v) for v in row], line))
            elif header and len(cells) == 1:
                words = text.split()
                values = [m[1] for w in words[1:] if (m := _CELL.match(w))]
                if len(values) >= len(header) - 1 and re.match(r"^[\w.-]+:?$", words[0]):
                    rows.append((words[0], [amount(v) for v in values], line))
        yield from late(doc, header, rows)


def late(doc: Document, header: list[str], rows: list[tuple[str, list[float], Line]]) -> Iterator[Fact]:
    """The late one waits least and works longest; both must show, or the waiting alone very clearly."""
    if len(rows) < 3:
        return
    names = header[1:]
    wait = [k for k, name in enumerate(names) if _WAIT.search(name)]
    work = [k for k, name in enumerate(names) if _WORK.search(name) and k not in wait]
    for k in wait:
        values = [r[1][k] for r in rows]
        middle = median(values)
        who, own, line = min(rows, key=lambda r: r[1][k])
        others = [r[1][k] for r in rows if r[0] != who]
        if middle <= 0 or own[k] > 0.7 * middle or min(others) < 0.7 * middle:
            continue
        usual = min((r for r in rows if r[0] != who), key=lambda r: abs(r[1][k] - middle))
        longer = [w for w in work if own[w] > 1.08 * median(r[1][w] for r in rows)]
        if work and not longer:
            continue
        subject = Subject(label=f"{names[k]}|{header[0]} {who}")
        a = fact(doc, usual[2], "rank.wait", usual[1][k], "count", label=f"{names[k]}|{header[0]} {usual[0]}")
        b = Fact("rank.wait", own[k], "count", subject, (doc.span(line),), status=doc.status)
        if own[k] <= 0:
            continue
        yield divided(
            "straggler.late",
            (a, b),
            subject=subject,
            spans=(doc.span(line), doc.span(usual[2])),
            statement=f"{header[0]} {who} waits least in {names[k]}" + (" and works longest" if longer else ""),
        )
        return


_SIZE_ROW = regex(
    r"^\s*(?:<=?|≤|up to|below|>=?|≥|over)?\s*(?:\d[\d.]*\s*[KMG]?i?B?\s*(?:-|–|to"
    r"|\.\.)\s*)?(?P<top>\d+(?:\.\d+)?)\s*(?P<unit>[KMG]?i?B?)\b[^\d\n]{0,24}?\s"
    r"[x×]?\s*(?P<n>\d[\d,]*)\s*(?:calls?|ops?|x|times|次|launches|messages|msgs)?\b",
    re.IGNORECASE,
)
_HISTOGRAM = regex(r"histogram|sizes?\b|payload|bucket|message|消息大小|分布", re.IGNORECASE)
_COLLECTIVE = regex(r"all.?reduce|all.?gather|reduce.?scatter|all.?to.?all|nccl|collective|通信", re.IGNORECASE)
_POWER = {"": 1.0, "K": 1024.0, "M": 1024.0**2, "G": 1024.0**3}
_SMALL = 256 * 1024.0


class MessageSizeReader:
    """How many collective calls there are of which size."""

    name = "message_sizes"
    needles = (b"KB", b"KiB", b"kB", b"calls", b"histogram", b"payload")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`message.small_share`: the share of calls up to 256 KiB."""
        active = False
        rows: list[tuple[float, float, Line]] = []
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                break
            if _HISTOGRAM.search(line.text) and _COLLECTIVE.search(line.text):
                active = True
                continue
            if not active or not (hit := _SIZE_ROW.match(line.text)):
                continue
            over = re.match(r"\s*(?:>|≥|over)", line.text) is not None
            size = float(hit["top"]) * _POWER[re.sub("[iBb]", "", hit["unit"]).upper()] * (1.01 if over else 1.0)
            rows.append((size, amount(hit["n"]), line))
        total = sum(count for _, count, _ in rows)
        if len(rows) < 2 or total < 20:
            return
        inputs = tuple(
            fact(doc, line, "message.calls", count, "count", label=f"{size:g} B") for size, count, line in rows[:8]
        )
        small = sum(count for size, count, _ in rows if size <= _SMALL)
        yield Fact("message.small_share", small / total, "fraction", Subject(), inputs[0].spans, kind="derived",
                   formula="reader:message_sizes", inputs=inputs, status=doc.status)  # fmt: skip


_OTHERS = regex(
    r"other (?:jobs?|traffic|tenants?|load|nodes)|neighbou?rs?|concurrent jobs?|jobs? running|background"
    r"|cross.?traffic|(?:storage|backup) (?:traffic|load)"
    r"|其[他它](?:作业|任务|流量)|并发(?:作业|任务)|背景流量",
    re.IGNORECASE,
)
_RESULT = regex(
    r"bus_?bw|alg_?bw|bandwidth|GB/s|throughput|tokens/s|step|time|latency|ms\b|带宽|耗时"
    r"|吞吐",
    re.IGNORECASE,
)


class NeighbourReader:
    """A table that sets a result beside what else runs: the more of the one, the worse the other."""

    name = "neighbour_table"
    needles = (
        b"other",
        b"Other",
        b"neighb",
        b"concurrent",
        b"background",
        b"jobs",
        "其他".encode(),
        "并发".encode(),
        "背景".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`load.slows`: result with little other traffic over result with much."""
        header: list[str] = []
        rows: list[tuple[list[float], Line]] = []
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                break
            cells = in_cells(line.prefix + line.text)
            if len(cells) >= 2 and any(_OTHERS.search(c) for c in cells) and any(_RESULT.search(c) for c in cells):
                header, rows = cells, []
                continue
            values = [_CELL.match(c) for c in cells]
            if header and len(cells) == len(header):
                rows.append(([amount(v[1]) if v else -1.0 for v in values], line))
        if len(rows) < 3:
            return
        load = next(k for k, c in enumerate(header) if _OTHERS.search(c))
        for k, name in enumerate(header):
            if k == load or not _RESULT.search(name) or any(r[0][k] <= 0 or r[0][load] < 0 for r in rows):
                continue
            quiet, busy = (f(rows, key=lambda r: r[0][load]) for f in (min, max))
            cut = (quiet[0][load] + busy[0][load]) / 2
            low = [r[0][k] for r in rows if r[0][load] <= cut]
            high = [r[0][k] for r in rows if r[0][load] > cut]
            slower = low and high and (min(low) > 1.1 * max(high) or min(high) > 1.1 * max(low))
            if not slower:
                continue
            inputs = tuple(
                fact(doc, r[1], "load.result", r[0][k], "count", label=f"{name}|{header[load]} {r[0][load]:g}")
                for r in sorted((quiet, busy), key=lambda r: -r[0][k])
            )
            spans = (doc.span(busy[1]), doc.span(quiet[1]))
            yield divided("load.slows", inputs, subject=Subject(label=f"{name}|{header[load]}"), spans=spans)
            return


_BATCHES = regex(
    r"\branks?[ _]?(?P<a>\d+)(?:\s*[-–~]\s*\d+)?\]?\s*[:=]?\s*(?:(?:len\()?[\w.]+\)?\s*[:=]\s*)?(?P<n>\d+)\s*(?P<what>batch\w*"  # noqa: E501
    r"|steps?|iter\w*|samples|micro\w*|个?batch)?",
    re.IGNORECASE,
)
_BATCH_WORD = regex(r"batch|steps? (?:this|per|in)|iterations|samples|len\(.*loader|个样本", re.IGNORECASE)


class BatchCountReader:
    """Ranks that have different numbers of batches: some call one collective more than others."""

    name = "rank_batches"
    needles = (b"batch", b"samples", b"iterations", b"len(")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.batches_differ` where they differ."""
        seen: dict[float, tuple[str, Line]] = {}
        for n, line in enumerate(doc.lines()):
            if n > LINES:
                break
            text = line.prefix + line.text
            if not _BATCH_WORD.search(text) or "Watchdog" in text:
                continue
            for hit in _BATCHES.finditer(text):
                seen.setdefault(amount(hit["n"]), (hit["a"], line))
        if not 2 <= len(seen) <= 4:
            return
        low, high = min(seen), max(seen)
        if low <= 0 or high > 1.5 * low:
            return
        inputs = tuple(
            fact(doc, seen[v][1], "rank.batches", v, "count", label=f"rank {seen[v][0]}") for v in (high, low)
        )
        yield Fact(
            "rank.batches_differ", high - low, "count", Subject(), inputs[1].spans, kind="derived", formula="a - b",
            inputs=inputs, status=doc.status,
        )  # fmt: skip


READERS = [CounterTableReader(), RankTableReader(), MessageSizeReader(), BatchCountReader(), NeighbourReader()]
