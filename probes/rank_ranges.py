"""Ranges of ranks and hosts side by side: which of them works longer while the others wait, or is clocked lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_SMALL = 1 << 14
_LINES = 200
_NOTE = regex(r"\([^)]*\)|(?:\+-|\+/-|±)\s*\d+(?:\.\d+)?")
_RANGE = regex(
    r"(?<![\w.])(?P<ranks>ranks?|PEs?|workers?|卡)\s*(?P<a>\d{1,5})\s*(?:-|–|to|\.\.)\s*(?P<b>\d{1,5})(?!\s*(?:ms|s|us|%|GB))\b",
    re.I,
)
_TIME = regex(r"(?<![\w.:])(\d+(?:\.\d+)?)(?![\w.:]|-\d)(?:\s*(?:ms|us|s)\b)?")

_Cell = tuple[float, Line]


class RankRanges:
    """`ranks 24-31 611 ms` beside other ranges, in rows or on one line a metric."""

    name = "rank_ranges"
    needles: tuple[bytes, ...] = (b"rank", b"Rank", b"PE", b"worker", "卡".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`straggler.work` of the one range that works longer for as much as it waits less."""
        columns = self._columns(excerpt(doc, _SMALL, _LINES))
        names = sorted({n for c in columns for n in c})
        whole = [c for c in columns if len(c) == len(names)]
        if len(names) < 3:
            return
        for work in whole:
            for wait in whole:
                found = self._late(names, work, wait) if work is not wait else None
                if found is None:
                    continue
                late, peer = found
                inputs = tuple(
                    fact(doc, work[n][1], "figure", work[n][0], "ms", label=f"time|ranks {n}") for n in (late, peer)
                )
                waits = fact(doc, wait[late][1], "figure", wait[late][0], "ms", label=f"wait|ranks {late}")
                yield waits
                yield divided("straggler.work", inputs, subject=Subject(label=f"ranks {late}"))
                return

    @staticmethod
    def _columns(lines: list[Line]) -> list[dict[str, _Cell]]:
        """One mapping a metric, from range to its figure."""
        rows: dict[str, tuple[list[float], Line]] = {}
        columns: list[dict[str, _Cell]] = []
        for line in lines:
            text = _NOTE.sub(" ", line.prefix + line.text)
            hits = list(_RANGE.finditer(text))
            cells: dict[str, list[float]] = {}
            for hit, after in zip(hits, [*hits[1:], None], strict=False):
                part = text[hit.end() : after.start() if after is not None else None]
                cells[f"{hit['a']}-{hit['b']}"] = [float(n) for n in _TIME.findall(part)]
            if len(cells) == 1:
                name, values = next(iter(cells.items()))
                rows.setdefault(name, (values, line))
            elif len(cells) > 1 and all(values for values in cells.values()):
                columns.append({name: (values[0], line) for name, values in cells.items()})
        widths = {len(values) for values, _ in rows.values()}
        if len(rows) >= 3 and len(widths) == 1:
            columns += [{n: (v[k], line) for n, (v, line) in rows.items()} for k in range(widths.pop())]
        return columns

    @staticmethod
    def _late(names: list[str], work: dict[str, _Cell], wait: dict[str, _Cell]) -> tuple[str, str] | None:
        """The range that is late and one of its peers: it alone works longer, waits less, and the sums agree."""
        usual, idle = (median(c[n][0] for n in names) for c in (work, wait))
        late = [n for n in names if work[n][0] >= 1.15 * usual and wait[n][0] <= 0.6 * idle]
        sums = [work[n][0] + wait[n][0] for n in names]
        if len(late) != 1 or min(sums) <= 0 or max(sums) > 1.1 * min(sums) or idle < 0.05 * usual:
            return None
        peer = min((n for n in names if n != late[0]), key=lambda n: abs(work[n][0] - usual))
        return (late[0], peer) if work[peer][0] > 0 else None


_HOST = regex(
    r"[(\[#]\s*(?:on |host |node )?(?P<a>[a-zA-Z][\w-]*\d+|[a-zA-Z]+-[a-zA-Z0-9]+)\b"
    r"|^\s*(?:==+|--+|#+|\$)?\s*(?:on |host[: ]|node[: ])\s*(?P<b>[\w-]+)|\bssh (?P<c>[\w-]+) "
    r"|^\s*(?:==+|--+|##+)\s*(?P<d>[a-zA-Z][\w.-]*)\s*(?:==+|--+|##+|:)?\s*$",
    re.IGNORECASE,
)
_HEAD = regex(r"^\s*#?\s*(?:#Entity|Entity|gpu|ID)\b.*\b(?:SMCLK|pclk)\b", re.IGNORECASE)
_ROW = regex(r"^\s*(?:GPU )?\d{1,2}(?:\s+-?\d+(?:\.\d+)?)+\s*$")
_WORD = regex(r"[A-Za-z]\w*")
_COLUMN = {
    "smclk": "clock", "pclk": "clock", "tmptr": "heat", "gtemp": "heat", "power": "power", "pwr": "power",
    "powus": "power", "gputl": "use", "sm": "use",
}  # fmt: skip


class HostClocks:
    """Blocks of `dcgmi dmon` or `nvidia-smi dmon` rows, each below the name of its host."""

    name = "host_clocks"
    needles: tuple[bytes, ...] = (b"SMCLK", b"pclk")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.gpu_clock`, `host.gpu_heat` and `host.gpu_power` of each host: those of its first row."""
        host, columns = "", []
        seen: set[str] = set()
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _HEAD.match(text):
                columns = [_COLUMN.get(w.lower(), "") for w in _WORD.findall(text.replace("#", " "))]
            if (hit := _HOST.search(text)) is not None and not _ROW.match(text):
                named = next(g for g in hit.groups() if g)
                host = host if named.lower().startswith(("nvidia-", "dcgm")) else named
            elif columns and host and host not in seen and _ROW.match(text):
                seen.add(host)
                values = text.replace("GPU", " ").split()
                for name, value in zip(columns, values, strict=False):
                    if name:
                        yield _of_host(doc, line, name, float(value), host)


_UNIT = {"clock": "MHz", "heat": "C", "power": "W", "use": "count"}


def _of_host(doc: Document, line: Line, name: str, value: float, host: str) -> Fact:
    """One reading of a host's first GPU row."""
    return fact(doc, line, f"host.gpu_{name}", value, _UNIT[name], host=host, label=host)


READERS: list[Reader] = [RankRanges(), HostClocks()]
