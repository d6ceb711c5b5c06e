"""Traffic by interface, as `sar`, counters read twice and hand-made lists give it; backlogs; calls by size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import amount, computed, divided, excerpt, fact, in_cells

_SMALL = 1 << 18
_LINES = 2000
_SAR = regex(r"\bIFACE\b.*\brxkB/s\b\s+txkB/s\b")
_IFACE = r"(?:mlx[45]_\w+|hsn\d|(?:en|eth|ib|bond|ens|eno|enp|roce|rdma|br|docker|virbr|wl)\w*[\d]\w*(?:\.\d+)?)"
_NIC = regex(rf"^(?:{_IFACE})$")
_TOTAL = regex(
    rf"(?<![\w/])(?P<nic>{_IFACE})\b(?![\w-]*:\d)[^\n]{{0,40}}?(?<![\w.])(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>Gb/s|Gbit/s|Gbps|GB/s|MB/s|MiB/s|kB/s|KB/s|Mb/s|Mbps|Mbit/s)\b"  # noqa: E501
)
_SCALE = {
    "gb/s": 0.125, "gbit/s": 0.125, "gbps": 0.125, "mb/s": 1e-3, "mib/s": 1.048576e-3, "kb/s": 1e-6,
    "mbps": 1.25e-4, "mbit/s": 1.25e-4,
}  # fmt: skip
_TWICE = regex(
    r"(?:/sys/class/(?:infiniband|net)/)?(?P<nic>"
    + _IFACE
    + r")\S*?[/ :]+(?:\S*/)?(?P<name>port_(?:xmit|rcv)_data|[rt]x_bytes(?:_phy)?|[rt]x_vport_rdma_\w*bytes)"
    r"\W+(?:before|t0|start|first)?\W*(?P<a>\d{3,})\W{1,12}(?:after|t1|end|then|[a-z]{0,6})?\W*(?P<b>\d{3,})\b",
    re.IGNORECASE,
)

# ``mlx5_0 port_xmit_data delta 0``
_STEP = regex(
    r"(?P<nic>(?:mlx\d|bnxt_re|irdma|rdmap|efa|hsn|qedr|ibp|roce)\w*)\S*?[/ :]+(?:\S*/)?(?P<name>port_(?:xmit|rcv)_data)\b"  # noqa: E501
    r"\W+(?:delta|diff|increase[ds]?|grew by|growth|\+|增量|增长)\W{0,3}(?P<d>\d[\d,]*)\b",
    re.IGNORECASE,
)


class TrafficReader:
    """How fast each interface sends or receives."""

    name = "traffic_rows"
    needles: tuple[bytes, ...] = (b"IFACE", b"b/s", b"B/s", b"bps", b"bit/s", b"_data", b"x_bytes", b"_bytes")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.traffic` of an interface, the larger direction; `counter.delta` of counters read twice on one line."""
        columns: list[str] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            words = text.split()
            if _SAR.search(text):
                columns = words[words.index("IFACE") :]
                continue
            at = next((k for k, w in enumerate(words[:4]) if _NIC.match(w)), None)
            if columns and at is not None and len(words) - at >= len(columns):
                row = dict(zip(columns, words[at:], strict=False))
                rate = max((amount(row.get(k, "0")) for k in ("rxkB/s", "txkB/s")), default=0.0)
                yield computed(
                    doc, line, "net.traffic", rate * 1024 / 1e9, "GB/s", self.name, nic=words[at], label="sar"
                )
            elif (both := _TWICE.search(text)) is not None:
                yield _delta(doc, line, both)
            elif (step := _STEP.search(text)) is not None:
                yield fact(
                    doc, line, "counter.delta", amount(step["d"]), "count", around=step["d"], label=step["name"].lower(),  # noqa: E501
                    nic=step["nic"],
                )  # fmt: skip
            elif (grown := _grown(text)) is not None:
                yield fact(doc, line, "counter.delta", amount(grown[1]), "count", around=grown[1], label=grown[0])
            elif not columns and (hit := _TOTAL.search(text)) is not None and _moving(text):
                scale = 1.0 if hit["u"] == "GB/s" else 1.25e-4 if hit["u"] == "Mb/s" else _SCALE[hit["u"].lower()]
                if hit["u"] == "MB/s":
                    scale = 1e-3
                value = amount(hit["v"]) * scale
                yield computed(doc, line, "net.traffic", value, "GB/s", self.name, nic=hit["nic"], label="noted")


_NAMED = regex(
    r"^\W*(?P<name>[a-z]\w*(?:cnp|ecn|pause|discard|drop|wait|out_of|retrans)\w*|\w*(?:cnp|pause)_\w+)\b(?P<rest>.*)$",
    re.I,
)
_WINDOW = regex(r"delta|diff|increase|growth|per (?:min|s|hour)|/ ?(?:s|min)\b|增量|增长", re.I)
_PART = regex(r"(?<![\w.])[A-Za-z][A-Za-z \-]{2,30}[ :=]+(\d[\d,]*)(?![\w.:])")


def _grown(text: str) -> tuple[str, str] | None:
    """A counter's growth in two circumstances on one line: the larger, where it is a multiple of the other."""
    hit = _NAMED.match(text)
    if hit is None or _WINDOW.search(text) is None:
        return None
    parts = sorted(_PART.findall(hit["rest"]), key=amount)
    if len(parts) < 2 or amount(parts[-1]) < max(1000.0, 20 * amount(parts[0])):
        return None
    return hit["name"], parts[-1]


_MOVING = regex(
    r"\b[rt]x\b|\bin\b|\bout\b|sent|recv|receiv|transmit|traffic|util|busy|throughput|xmit|rcv|流量|发送|接收", re.I
)
_TOOL = regex(r"iperf|perftest|ib_\w+_(?:bw|lat)|\bspeed\b|capable|max|link|qperf|busbw", re.I)


def _moving(text: str) -> bool:
    return _MOVING.search(text) is not None and _TOOL.search(text) is None


def _delta(doc: Document, line: Line, hit: re.Match[str]) -> Fact:
    who = Subject(nic=hit["nic"], label=hit["name"])
    ends = tuple(
        fact(
            doc, line, "counter.read", amount(hit[k]), "count", around=hit[k], nic=hit["nic"],
            label=f"{hit['name']} {k}",
        )
        for k in ("b", "a")
    )  # fmt: skip
    return Fact(
        "counter.delta", amount(hit["b"]) - amount(hit["a"]), "count", who, (doc.span(line),), kind="derived",
        formula="a - b", inputs=ends, status=doc.status,
    )  # fmt: skip


_OVERFLOW = regex(
    r"(?:TcpExt)?Listen(?:Overflows|Drops)[\s:=]+(?P<a>\d+)|(?P<b>\d+) (?:times the listen queue of a socket overflowed|SYNs to LISTEN sockets (?:dropped|ignored))"  # noqa: E501
)
_LISTEN = regex(r"^\s*(?:tcp\s+)?LISTEN\s+(?P<have>\d+)\s+(?P<most>\d+)\s+\S+:\d+")


class BacklogReader:
    """Connections that a full listen queue turned away: `nstat`, `netstat -s`, `ss -l`."""

    name = "listen_backlog"
    needles: tuple[bytes, ...] = (b"ListenOverflows", b"ListenDrops", b"listen queue", b"SYNs to LISTEN", b"LISTEN ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.backlog`; a queue that is fuller than its length counts too."""
        for line in islice(doc.lines(), _LINES):
            text = line.prefix + line.text
            if (hit := _OVERFLOW.search(text)) is not None and int(hit["a"] or hit["b"]) > 0:
                yield fact(doc, line, "net.backlog", float(hit["a"] or hit["b"]), "count", around=hit["a"] or hit["b"])
            elif (row := _LISTEN.match(text)) is not None and int(row["have"]) >= int(row["most"]) > 0:
                yield fact(doc, line, "net.backlog", float(row["have"]), "count", around=row["have"])


_HEAD = regex(r"\b(?:message|msg|buffer|tensor)?\s?size\b|\bbytes\b|大小", re.I)
_NAMES = (
    ("count", regex(r"count|calls|\bnum\b|#|次数|\bn\b", re.I)),
    ("total", regex(r"total|sum|总", re.I)),
    ("each", regex(r"avg|mean|average|per call|each|平均|median|p50", re.I)),
)
_SIZED = regex(
    r"^\W*(?:(?P<op>[A-Za-z_][\w.]*)\s*\|?\s+)?(?P<size>\d+(?:\.\d+)?)\s*(?P<u>[KMG]?i?B|bytes)\b\s*\|?\s*(?P<rest>\d.*)$"
)
_BYTES = {"b": 1.0, "bytes": 1.0, "kb": 1e3, "kib": 1024.0, "mb": 1e6, "mib": 2.0**20, "gb": 1e9, "gib": 2.0**30}
_LITTLE = 256 * 1024
_MANY = 500


class CallSizes:
    """Collectives by size, each with how many there were and how long they took."""

    name = "comm_sizes"
    needles: tuple[bytes, ...] = (b"Size", b"size", b"bytes", b"Bytes", "大小".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`message.small_time`: the share of small calls in the time of all."""
        order: list[tuple[str, str]] = []
        rows: list[tuple[float, Fact, Fact, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (size := _HEAD.search(text)) is not None and (made := _order(text[size.end() :])):
                order = made
            elif order and (hit := _SIZED.match(line.text)) is not None:
                row = _row(doc, line, hit, order)
                rows += [row] if row is not None else []
        if len(rows) < 2:
            return
        small = [r for r in rows if r[0] <= _LITTLE]
        calls = sum(float(r[1].value or 0) for r in small)
        whole = sum(float(r[2].value or 0) for r in rows)
        if small and calls >= _MANY and whole > 0:
            part = sum(float(r[2].value or 0) for r in small)
            yield Fact(
                "message.small_time", part / whole, "fraction", Subject(), tuple(doc.span(r[3]) for r in small[:3]),
                kind="derived", formula="reader:comm_sizes", inputs=tuple(f for r in rows[:8] for f in r[1:3]),
                status=doc.status,
            )  # fmt: skip


def _order(head: str) -> list[tuple[str, str]]:
    """What the columns behind the size hold, in their order, with the unit in brackets."""
    found = []
    for part in re.split(r"\s{2,}|\t|\|", head.strip()):
        name = next((n for n, words in _NAMES if words.search(part)), "")
        unit = re.search(r"\((us|ms|s)\)|\b(us|ms)\b", part)
        found.append((name, (unit[1] or unit[2]) if unit else ""))
    named = [n for n, _ in found]
    return found if "count" in named and ("total" in named or "each" in named) else []


def _row(
    doc: Document, line: Line, hit: re.Match[str], order: list[tuple[str, str]]
) -> tuple[float, Fact, Fact, Line] | None:
    size = float(hit["size"]) * _BYTES[hit["u"].lower()]
    cells = re.findall(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(us|ms|s)?(?![\w.])", hit["rest"])
    got = {name: (amount(v), u or unit) for (name, unit), (v, u) in zip(order, cells, strict=False) if name}
    if "count" not in got:
        return None
    count = got["count"][0]
    value, unit = got.get("total") or (got["each"][0] * count if "each" in got else 0.0, got.get("each", (0, "ms"))[1])
    label = f"{hit['size']} {hit['u']}"
    calls = fact(doc, line, "message.row", count, "count", label=label)
    time = computed(doc, line, "message.time", value * IN_MS.get(unit, 1.0), "ms", "comm_sizes", label=label)
    return (size, calls, time, line) if value > 0 and count > 0 else None


_ALONE = regex(
    r"\b(?:1|one|single) (?:pair|flow|stream|job|node|host|qp|rank)\b|\balone\b|\bsolo\b|单(?:独|对|流)", re.I
)
_MANY_AT_ONCE = regex(
    r"\b(?:[2-9]|\d{2,4}|all|many) (?:pairs|flows|streams|jobs|nodes|hosts|ranks)\b|at once|together|concurrent|simultan|in parallel|同时|并发",  # noqa: E501
    re.I,
)
_SUMMED = regex(r"aggregat|total|\bsum\b|总|合计", re.I)
_ROW = regex(
    r"^(?P<who>\S.*?)\s{2,}(?P<a>\d+(?:\.\d+)?) ?(?:[GM]i?[Bb](?:it)?/s|Gbps)?\s{2,}(?P<b>\d+(?:\.\d+)?) ?(?:[GM]i?[Bb](?:it)?/s|Gbps)?\s*$"  # noqa: E501
)


class ManyAtOnce:
    """Bandwidth of one pair alone and of each of many at once, in two columns."""

    name = "many_at_once"
    needles: tuple[bytes, ...] = (
        b"pair",
        b"flow",
        b"alone",
        b"at once",
        b"stream",
        b"jobs",
        b"together",
        "同时".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`load.slows` for the row that loses most."""
        found: list[tuple[float, re.Match[str], Line]] = []
        heads = 0
        for line in excerpt(doc, _SMALL, _LINES):
            text = (line.prefix + line.text).strip()
            cells = in_cells(text)
            alone = next((k for k, c in enumerate(cells) if _ALONE.search(c)), None)
            many = next((k for k, c in enumerate(cells) if k != alone and _MANY_AT_ONCE.search(c)), None)
            if alone is not None and many is not None and alone < many and not _SUMMED.search(text):
                heads += 1
            elif heads and (row := _ROW.match(text)) is not None and float(row["b"]) > 0:
                found.append((float(row["a"]) / float(row["b"]), row, line))
        if not found:
            return
        ratio, row, line = max(found, key=lambda f: f[0])
        if ratio < 1.3:
            return
        label = row["who"][:60]
        inputs = tuple(
            fact(doc, line, "load.result", float(row[k]), "count", around=row[k], label=f"{label} {k}") for k in "ab"
        )
        yield divided("load.slows", inputs, subject=Subject(label=label), spans=(doc.span(line),))


_FAR = regex(
    r"\b(?:cross|inter|across|over|different|two|four|several|\d)[- ]?(?:the )?"
    r"(?:leaf|leaves|leafs|racks?|pods?|spines?|switch(?:es)?|tor)\b|\bspine\b"
    r"|跨 ?(?:leaf|spine|交换机|机架|机柜|pod|tor)",
    re.I,
)
_PAIRS = regex(r"(?<![\w.])(\d{1,4}) ?(?:pairs?|flows?|streams?|hosts?|senders?)\b|(?<![\w.])(\d{1,4}) ?对")
_SINGLE = regex(r"\b(?:single|one|1) (?:pair|flow|stream|host)\b|\balone\b|by itself|单对|单流|单独", re.I)
_TOGETHER = regex(r"at once|at the same time|together|concurrent|simultan|in parallel|同时|并发", re.I)
_RATE = regex(r"(?<![\w.])(\d{1,4}(?:\.\d+)?)(?: ?[-–~] ?(\d{1,4}(?:\.\d+)?))? ?(?:Gb(?:it)?/s|Gbps|GB/s)", re.I)
_MEAN = regex(r"(?:\b(?:avg|average|mean)|平均)\W{0,3}(\d{1,4}(?:\.\d+)?)", re.I)
_THREE = regex(r"\s{2,}(\d{1,4}(?:\.\d+)?)\s{2,}(\d{1,4}(?:\.\d+)?)\s{2,}(\d{1,4}(?:\.\d+)?)\s*$")


class PairsAcross:
    """The path over the next tier of switches, with one pair on it and with many: rows or clauses, the figures last."""

    name = "pairs_across"
    needles: tuple[bytes, ...] = (b"pair", b"flow", b"stream", "对".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`load.slows`, what one pair gets alone over what each gets with the most others."""
        alone: tuple[float, str, Line] | None = None
        many: tuple[float, str, Line, int] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            text, across = line.prefix + line.text, False
            parts = re.split(r"[;；]|,(?= ?\d{1,4} ?(?:pairs|flows|streams))", text)
            for part in parts:
                across = _FAR.search(part) is not None or (across and "same" not in part.lower())
                told = self._rate(part)
                if not across or told is None or re.search(r"aggregat|total|\bsum\b|总", part, re.I):
                    continue
                pairs = max((int(a or b) for a, b in _PAIRS.findall(part)), default=1)
                if _SINGLE.search(part):
                    alone = alone or (*told, line)
                elif pairs > 1 and (many is None or pairs > many[3]):
                    many = *told, line, pairs
        if alone is None or many is None or many[0] <= 0 or alone[0] < 1.3 * many[0]:
            return
        inputs = tuple(
            fact(doc, line, "load.result", value, "count", around=text, label=f"across switches, {who}")
            for value, text, line, who in ((*alone, "alone"), (*many[:3], "at once"))
        )
        yield divided("load.slows", inputs, subject=Subject(label="across leaf switches|pairs at once"),
                      spans=(doc.span(many[2]), doc.span(alone[2])))  # fmt: skip

    @staticmethod
    def _rate(text: str) -> tuple[float, str] | None:
        """What each pair gets: the mean where it is told, of a row of least, mean and most the mean."""
        if (mean := _MEAN.search(text)) is not None:
            return float(mean[1]), mean[1]
        if (row := _THREE.search(text)) is not None and float(row[1]) <= float(row[2]) <= float(row[3]):
            return float(row[2]), row[2]
        hit = _RATE.search(text)
        return (float(hit[1]), hit[1]) if hit else None


_UPLINK = regex(r"up-?links?\b|\(up\)|spine|\bECMP\b|\bLAG\b|port-channel|上行|上联", re.I)
_PORT_SHARE = regex(r"(?<![\w.])(?:[A-Za-z]{1,12}[\d/:.]+|port \d+)\W{1,4}(\d{1,3}(?:\.\d+)?) ?%")
_PORT_RATE = regex(r"^\W*(?:[A-Za-z]{1,12}-?[\d/:.]+|port \d+)\s+\|?\s*(\d{1,4}(?:\.\d+)?)\b")
_BARE_SHARES = regex(
    r"(?:util\w*|%|利用率|load)[^\d\n]{0,12}((?:\d{1,3}(?:\.\d+)?%?[ ,]+){3,}\d{1,3}(?:\.\d+)?%?)\s*$", re.I
)
_WAITED = regex(r"(?:port_?xmit_?wait|XmitWait)\W{1,4}(\d+)", re.I)
_first = itemgetter(0)
_TICKS = 1e8  # of waiting for credits; a busy port has millions in a day


class UnevenUplinks:
    """Parallel ways up of one switch of which some are full and others idle: flows that hash onto the same ones."""

    name = "uneven_uplinks"
    needles: tuple[bytes, ...] = (
        b"plink",
        b"(up)",
        b"spine",
        b"Spine",
        b"ECMP",
        b"LAG",
        b"channel",
        "上行".encode(),
        "上联".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The share of the busiest over that of the idlest, of four ways and more."""
        shares: list[tuple[float, Line, str]] = []
        rates: list[tuple[float, Line, str]] = []
        waits: list[tuple[float, Line, str]] = []
        near = 0
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            near = 12 if _UPLINK.search(text) else near - 1
            if near < 0:
                continue
            if (row := _BARE_SHARES.search(text)) is not None:
                shares += [(float(n), line, n) for n in re.findall(r"\d+(?:\.\d+)?", row[1])]
            elif found := _PORT_SHARE.findall(text):
                shares += [(float(n), line, n) for n in found]
            elif (hit := _WAITED.search(text)) is not None:
                waits.append((float(hit[1]), line, hit[1]))
            elif (hit := _PORT_RATE.search(text)) is not None:
                rates.append((float(hit[1]), line, hit[1]))
        for rows, full, idle in ((shares, 90.0, 30.0), (rates, 90.0, 30.0), (waits, _TICKS, _TICKS / 100)):
            most, least = (max(rows, key=_first), min(rows, key=_first)) if rows else (None, None)
            if (
                most is None
                or least is None
                or len(rows) < 4
                or most[0] < full
                or (rows is not waits and most[0] > 101)
            ):
                continue
            if sum(r[0] <= idle for r in rows) < 2 or least[0] > 0.35 * most[0]:
                continue
            yield computed(doc, most[1], "net.uplinks_uneven", most[0] / max(least[0], 1.0), "count", self.name)
            return


READERS: list[Reader] = [TrafficReader(), BacklogReader(), CallSizes(), ManyAtOnce(), PairsAcross(), UnevenUplinks()]
