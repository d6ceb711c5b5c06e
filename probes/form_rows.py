"""Rows that tell more by their order or their columns: intervals, temperatures beside clocks, errors by release.

Also what a shell prints of processes that share a core, of system calls and of the scheduler's queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import amount, computed, excerpt, fact, in_cells
from .generic_figures import cell, header_unit

_SMALL = 1 << 16
_LINES = 600
_SPAN = regex(r"^\W*(?P<a>\d+(?:\.\d+)?)\s+(?P<b>\d+(?:\.\d+)?)\s+(?P<rest>.*[A-Za-z].*)$")
_MOVE = regex(r"\bkv\b|transfer|xfer|\bwrite\b|\bread\b|send|recv|push|pull|nixl|rdma|memcpy|copy|传输", re.I)
_WORK = regex(r"kernel|comput|forward|prefill|gemm|attention|mlp|decode|计算", re.I)


class IntervalRows:
    """Rows of a start, an end and what ran: how much of the transfers' time compute ran as well."""

    name = "interval_rows"
    needles: tuple[bytes, ...] = (b"start", b"Start", b"begin", b"t0")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.hidden_share`."""
        head = False
        rows: list[tuple[float, float, bool, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            head = head or re.search(r"\b(?:start|begin|t0)\b.{0,12}\b(?:end|stop|t1|finish)\b", text, re.I) is not None
            hit = _SPAN.match(text) if head else None
            if hit is None or float(hit["b"]) <= float(hit["a"]):
                continue
            move, work = _MOVE.search(hit["rest"]), _WORK.search(hit["rest"])
            if move or work:
                rows.append((float(hit["a"]), float(hit["b"]), move is not None and work is None, line))
        moves = [r for r in rows if r[2]]
        works = [r for r in rows if not r[2]]
        if len(moves) < 2 or len(works) < 2:
            return
        whole = sum(b - a for a, b, _, _ in moves)
        hidden = sum(max(0.0, min(b, d) - max(a, c)) for a, b, _, _ in moves for c, d, _, _ in works)
        yield Fact(
            "kv.hidden_share", round(min(1.0, hidden / whole), 6), "fraction", Subject(label="intervals"),
            (doc.span(moves[0][3]), doc.span(works[-1][3])), kind="derived", formula="reader:interval_rows",
            status=doc.status,
        )  # fmt: skip


_PARTS = regex(
    r"(?P<all>\d[\d,]*(?:\.\d+)?) ?(?P<u>ms|us|s)\b\W{0,3}\((?P<parts>[^()]*\d[^()]*)\)|=\s*(?P<sum>[^=\n]*\+[^=\n]*)$"
)
_PART = regex(r"(?P<name>[A-Za-z][\w +/.-]*?)\W{0,3}(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>ms|us|s)\b")


class TotalsOfParts:
    """``530 ms (attention+mlp 317 ms, connector save 212 ms)``: the transfer is a part of the whole."""

    name = "totals_of_parts"
    needles: tuple[bytes, ...] = (b" ms (", b"ms (", b" s (", b"us (")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`kv.sum_share`, one where work and transfer add up to the total."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _PARTS.search(line.prefix + line.text)
            if hit is None or not hit["parts"]:
                continue
            parts = [(p["name"], amount(p["v"]) * IN_MS.get(p["u"], 1.0)) for p in _PART.finditer(hit["parts"])]
            whole = amount(hit["all"]) * IN_MS.get(hit["u"], 1.0)
            move = [
                v
                for n, v in parts
                if re.search(r"connector|\bkv\b|transfer|xfer|save|load_kv|store|offload|push|pull", n, re.I)
            ]
            adds = whole > 0 and abs(sum(v for _, v in parts) - whole) <= 0.03 * whole
            if len(parts) >= 2 and move and adds and 0.15 * whole <= max(move) < 0.95 * whole:
                yield computed(doc, line, "kv.sum_share", 1.0, "fraction", self.name, label="parts of one step")
                return


_STRACE = regex(
    r"^\s*(?P<p>\d+\.\d+)\s+(?P<s>\d+\.\d+)\s+(?P<us>\d+)\s+(?P<n>\d+)\s+(?:\d+\s+)?(?P<call>[a-z_]\w*)\s*$"
)
_FILE_CALLS = (
    "read",
    "pread64",
    "preadv",
    "readv",
    "openat",
    "open",
    "newfstatat",
    "fstat",
    "stat",
    "lstat",
    "getdents64",
    "fsync",
    "write",
    "pwrite64",
    "statx",
)


class SystemCalls:
    """`strace -c`: file calls that take milliseconds each and most of the time."""

    name = "strace_summary"
    needles: tuple[bytes, ...] = (b"usecs/call",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.syscall.slow` in ms a call."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _STRACE.match(line.prefix + line.text)
            if (
                hit
                and hit["call"] in _FILE_CALLS
                and float(hit["p"]) >= 40
                and int(hit["us"]) >= 2000
                and int(hit["n"]) >= 50
            ):
                yield fact(
                    doc, line, "host.syscall.slow", int(hit["us"]) / 1e3, "ms", around=hit["us"], label=hit["call"]
                )
                return


_BUCKET = regex(r"^\s*(?P<low>\d+)\s*->\s*(?P<high>\d+)\s*:\s*(?P<n>\d+)\b")


class RunQueue:
    """A histogram of `runqlat`: how long the middle one of all ready tasks waited for a CPU."""

    name = "runqlat"
    needles: tuple[bytes, ...] = (b"runqlat",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.sched.delay`, the lower end of the bucket that holds the median."""
        rows: list[tuple[int, int, Line]] = []
        scale = 1e-3
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if re.search(r"\bmsecs\b", text):
                scale = 1.0
            if (hit := _BUCKET.match(text)) is not None:
                rows.append((int(hit["low"]), int(hit["n"]), line))
        whole, seen = sum(n for _, n, _ in rows), 0
        for low, n, line in rows:
            seen += n
            if whole >= 100 and seen * 2 >= whole:
                yield computed(doc, line, "host.sched.delay", low * scale, "ms", self.name, label="runqlat median")
                return


_TOP_HEAD = regex(r"^\s*PID\b(?=.*\s(?:P|PSR)\s).*%CPU", re.I)


class SharedCores:
    """`top` or `ps` with the processor's column: busy processes that sit on one core and share it."""

    name = "shared_cores"
    needles: tuple[bytes, ...] = (b"%CPU",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.cpu.shared`: the processes on a core that is full, none of which gets much more than its part."""
        head: list[str] = []
        found: dict[str, list[tuple[float, Line]]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            words = text.split()
            if _TOP_HEAD.match(text):
                head = words
                continue
            if not head or len(words) < len(head) or not words[0].isdecimal():
                continue
            row = dict(zip(head, words, strict=False))
            core, used = row.get("P") or row.get("PSR") or "", row.get("%CPU", "")
            if core.isdecimal() and re.fullmatch(r"\d+(?:\.\d+)?", used) and float(used) >= 10:
                found.setdefault(core, []).append((float(used), line))
        for core, rows in found.items():
            total = sum(u for u, _ in rows)
            if len(rows) >= 2 and 90 <= total <= 110 and max(u for u, _ in rows) <= 80:
                yield Fact(
                    "host.cpu.shared", float(len(rows)), "count", Subject(label=f"core {core}"),
                    tuple(doc.span(at) for _, at in rows[:3]), kind="derived", formula="reader:shared_cores",
                    status=doc.status,
                )  # fmt: skip


_HOT = regex(r"temp|°C|温度", re.I)
_CLOCK = regex(r"clock|\bMHz|\bclk\b|freq|频率", re.I)


class HeatRows:
    """A table over time in which a clock falls as the temperature rises."""

    name = "heat_rows"
    needles: tuple[bytes, ...] = (b"temp", b"Temp", "温度".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.clock_falls`: the highest clock over that of the hottest rows."""
        head: list[str] = []
        rows: list[tuple[float, float, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            cells = in_cells(line.prefix + line.text)
            if (
                len(cells) >= 3
                and any(_HOT.search(c) for c in cells)
                and any(_CLOCK.search(c) for c in cells)
                and not rows
            ):
                head = cells
                continue
            if head and len(cells) == len(head):
                hot = next(k for k, h in enumerate(head) if _HOT.search(h))
                clock = next(k for k, h in enumerate(head) if _CLOCK.search(h))
                pair = [re.match(r"\W*(\d+(?:\.\d+)?)", cells[k]) for k in (hot, clock)]
                if pair[0] and pair[1]:
                    rows.append((float(pair[0][1]), float(pair[1][1]), line))
        if len(rows) < 3:
            return
        hottest, coolest = max(rows, key=lambda r: (r[0], -r[1])), min(rows, key=lambda r: r[0])
        if hottest[0] >= 80 and hottest[0] - coolest[0] >= 10 and coolest[1] >= 1.15 * hottest[1] > 0:
            yield Fact(
                "gpu.clock_falls", round(coolest[1] / hottest[1], 6), "count", Subject(label="hotter and slower"),
                (doc.span(hottest[2]), doc.span(coolest[2])), kind="derived", formula="reader:heat_rows",
                status=doc.status,
            )  # fmt: skip


_PLACES = regex(
    r"\bGPUs? ?(?P<a>\d{1,2})(?: ?(?:-|–|to|\.\.) ?(?P<b>\d{1,2}))?(?: (?:are|is|sits?|lies?|hangs?|belongs?|attached))? ?(?:on|near|at|to|under|=|->|:)? ?"  # noqa: E501
    r"(?:\([\da-f:.]+\) ?)?\(?(?:NUMA[ _]?)?(?:node|socket)[ =:]?(?P<n>\d)\b|GPU ?(?P<c>\d{1,2})(?:-(?P<d>\d{1,2}))? ?在 ?(?:NUMA ?)?(?:node|节点) ?(?P<m>\d)",  # noqa: E501
    re.I,
)


class PlacesOfGpus:
    """Words that say which GPUs hang on which node."""

    name = "gpu_places"
    needles: tuple[bytes, ...] = (b"node", b"NUMA", b"socket")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.numa`."""
        for line in excerpt(doc, 1 << 14, 200):
            for hit in _PLACES.finditer(line.prefix + line.text):
                low, node = int(hit["a"] or hit["c"]), float(hit["n"] or hit["m"])
                for gpu in range(low, int(hit["b"] or hit["d"] or low) + 1) if low < 16 else ():
                    yield fact(doc, line, "gpu.numa", node, "count", gpu=gpu)


_WAITED = regex(
    r"(?:data\w*|loader|input|batch)[/_. -]{0,2}(?:wait\w*|load\w*|fetch\w*|time\w*)(?:[/_. ]?\w+){0,3}\W{1,3}(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b"  # noqa: E501
    r"|time[/_.](?:data|load\w*|input)\W{1,4}(?P<v3>\d+\.\d+)|wait\w*[/_. -](?:for[/_. -])?(?:data|batch|input|loader)(?:[/_. ]?\w+){0,2}\W{1,3}(?P<v2>\d+(?:\.\d+)?) ?(?P<u2>ms|s)\b",  # noqa: E501
    re.I,
)
_COMPUTED = regex(
    r"(?:comput\w*|forward\w*|train\w*|gpu|model|fwd\w*|step)[/_. -]{0,2}(?:time|wall|s\b|ms\b)?(?:[/_. ]?\w+){0,3}\W{1,3}(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b",  # noqa: E501
    re.I,
)


_PLAIN_WORK = regex(r"time[/_.](?:forward|fwd|compute|model|train|backward)\W{1,4}(?P<v>\d+\.\d+)", re.I)


class WaitBesideWork:
    """One line of a trainer's metrics with the wait for data and the time of compute."""

    name = "wait_beside_work"
    needles: tuple[bytes, ...] = (b"wait", b"Wait", b"data", b"loader")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`input.wait_over_work`."""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            wait = _WAITED.search(text)
            if wait is None:
                continue
            if wait["v3"]:  # a dictionary of figures in one unit
                plain = _PLAIN_WORK.search(text)
                if plain is not None and float(plain["v"]) > 0:
                    ratio = round(float(wait["v3"]) / float(plain["v"]), 6)
                    yield computed(doc, line, "input.wait_over_work", ratio, "count", self.name)
                    return
                continue
            rest = text[: wait.start()] + " " * (wait.end() - wait.start()) + text[wait.end() :]
            work = _COMPUTED.search(rest)
            if work is None:
                continue
            a = float(wait["v"] or wait["v2"]) * IN_MS[(wait["u"] or wait["u2"]).lower()]
            b = float(work["v"]) * IN_MS[work["u"].lower()]
            if b > 0:
                yield computed(doc, line, "input.wait_over_work", round(a / b, 6), "count", self.name)
                return


_GREW = regex(
    r"\b(?:ens|eno|enp|eth|bond|em)\w*\b.*\b(?:tx|rx)_bytes\b\W{1,6}(?P<n>\d+(?:\.\d+)?) ?(?P<u>[GT])i?B\b", re.I
)
_SS = regex(r"\bESTAB\b.*\bbytes_(?:sent|acked):(?P<n>\d+)")


class HeavyStreams:
    """`ss -ti`: what TCP connections sent."""

    name = "tcp_streams"
    needles: tuple[bytes, ...] = (b"bytes_sent:", b"bytes_acked:", b"x_bytes")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.tcp.sent` of the largest connection, in bytes."""
        best: tuple[int, Line] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _SS.search(line.prefix + line.text)
            if hit is not None and (best is None or int(hit["n"]) > best[0]):
                best = int(hit["n"]), line
            if (grown := _GREW.search(line.prefix + line.text)) is not None:
                many = float(grown["n"]) * {"g": 1e9, "t": 1e12}[grown["u"].lower()]
                yield computed(doc, line, "net.tcp.sent", many, "B", self.name, label="interface")
                return
        if best is not None:
            yield fact(doc, best[1], "net.tcp.sent", float(best[0]), "B", around=str(best[0]))


_DOCKER = regex(r"^\s*\S+(?:\s+\S+)?\s+(?P<cpu>\d+\.\d+)%\s+[\d.]+[KMG]i?B ?/ ?[\d.]+[KMGT]i?B")
_NANO = regex(r"\{\{\s*\.HostConfig\.(?P<what>NanoCpus|CpuQuota)\s*\}\}")


class ContainerCores:
    """`docker stats` and `docker inspect -f`: the cores that a container uses and those it is granted."""

    name = "container_cores"
    needles: tuple[bytes, ...] = (b"CPU %", b"HostConfig")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.process.cpu`, `host.cpu.quota`."""
        asked = ""
        stats = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            stats = stats or ("CPU %" in text and "MEM USAGE" in text)
            if stats and (hit := _DOCKER.match(text)) is not None and float(hit["cpu"]) >= 50:
                yield fact(doc, line, "host.process.cpu", float(hit["cpu"]) / 100, "count", label="container")
            if asked and re.fullmatch(r"\s*\d{5,12}\s*", text):
                granted = int(text) / (1e9 if asked == "NanoCpus" else 1e5)
                yield fact(doc, line, "host.cpu.quota", granted, "count", label="container")
            form = _NANO.search(text)
            asked = form["what"] if form else ""


_PAUSE = regex(
    r"\brank[ _:=]?(?P<r>\d+)\]?\b[^\n]{0,40}?\b(?P<what>gc\.collect\(?\)?|garbage collection|checkpoint\w*|sav(?:e|ing)\w*|eval\w*|upload\w*|logging|wandb\w*|recompil\w*|empty_cache\(?\)?|data\w* reload)"  # noqa: E501
    r"[^\n\d]{0,30}(?P<s>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b(?:[^\n]{0,20}\bstep[ =:#]*(?P<step>\d+))?",
    re.I,
)
_LONG = regex(
    r"\brank[ _:=]?(?P<r>\d+)\]?\b[^\n]{0,24}?(?:step[ =:#]*(?P<step>\d+))?[^\n]{0,12}\b(?:all_?-?reduce|all_?-?gather|reduce_?-?scatter|barrier|nccl|comm\w*)\b[^\n\d]{0,16}(?P<s>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b",  # noqa: E501
    re.I,
)


class PausesOfRanks:
    """One rank's pause is as long as another's wait in a collective that is else short."""

    name = "rank_pauses"
    needles: tuple[bytes, ...] = (b"rank", b"Rank")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.pause` as a part of the others' wait."""
        pauses: list[tuple[str, float, str, Line]] = []
        waits: list[tuple[str, float, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (hit := _PAUSE.search(text)) is not None:
                pauses.append((hit["r"], float(hit["s"]) * IN_MS[hit["u"].lower()], hit["what"], line))
            elif (hit := _LONG.search(text)) is not None:
                waits.append((hit["r"], float(hit["s"]) * IN_MS[hit["u"].lower()], line))
        if not pauses or len(waits) < 2:
            return
        long, short = max(waits, key=lambda w: w[1]), min(waits, key=lambda w: w[1])
        who = next((p for p in pauses if p[0] != long[0] and 0.75 * long[1] <= p[1] <= 1.1 * long[1]), None)
        if who is not None and long[1] >= 4 * short[1]:
            yield Fact(
                "rank.pause", round(who[1] / long[1], 6), "fraction", Subject(label=who[2], rank=int(who[0])),
                (doc.span(who[3]), doc.span(long[2])), kind="derived", formula="reader:rank_pauses", status=doc.status,
            )  # fmt: skip


_PICKED = regex(r"^(?:picked|chosen|selected|used|choice|in use|tuner|default|auto|选择|所选)\w*", re.I)


class PickedColumns:
    """Tables with a column an algorithm and one that names what was picked: what does the choice cost?"""

    name = "picked_columns"
    needles: tuple[bytes, ...] = (b"picked", b"chosen", b"selected", b"used", b"default", b"auto", b"choice")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`choice.cost`: the picked one's time over the best one's, of the row where that is most."""
        head: list[str] = []
        worst: tuple[float, Line] | None = None
        for line in excerpt(doc, 1 << 14, 200, plain=True):
            cells = in_cells(line.prefix + line.text)
            if len(cells) >= 3 and any(_PICKED.match(c) for c in cells) and not any(cell(c) for c in cells):
                head = cells
                continue
            if not head or len(cells) != len(head):
                continue
            at = next(k for k, h in enumerate(head) if _PICKED.match(h))
            figures = {
                h.lower(): f for h, c in zip(head, cells, strict=True) if (f := cell(c, header_unit(h))) is not None
            }
            own = figures.get(cells[at].lower().strip())
            alike = [f for f in figures.values() if own is not None and f.unit == own.unit and f.value > 0]
            if own is None or own.unit not in ("us", "ms", "s", "GB/s") or len(alike) < 2:
                continue
            values = [f.value for f in alike]
            cost = max(values) / own.value if own.unit == "GB/s" else own.value / min(values)
            if worst is None or cost > worst[0]:
                worst = cost, line
        if worst is not None:
            yield computed(
                doc, worst[1], "choice.cost", round(worst[0], 6), "count", self.name, label=" ".join(head)[:80]
            )


_MAPS = regex(r"^\s*[0-9a-f]{8,16} \S+.*?(?P<n>(?:\bN\d=\d+ ?)+)")


class NumaMaps:
    """`/proc/PID/numa_maps`: on which node the pages of the largest areas lie."""

    name = "numa_maps"
    needles: tuple[bytes, ...] = (b" N0=", b" N1=")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.numa.process` of each node, in GiB of pages of 4 KiB."""
        pages: dict[str, int] = {}
        first: Line | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _MAPS.match(line.prefix + line.text)
            for node, count in re.findall(r"N(\d)=(\d+)", hit["n"]) if hit else ():
                pages[node] = pages.get(node, 0) + int(count)
                first = first or line
        if first is not None and sum(pages.values()) >= 1 << 18:
            for node in sorted({"0", "1", *pages}):
                held = pages.get(node, 0) / (1 << 18)
                yield computed(doc, first, "host.numa.process", held, "GiB", self.name, label=f"node {node}")


READERS: list[Reader] = [
    PickedColumns(),
    NumaMaps(),
    ContainerCores(),
    IntervalRows(), TotalsOfParts(), SystemCalls(), RunQueue(), SharedCores(), HeatRows(), PlacesOfGpus(),
    WaitBesideWork(), HeavyStreams(), PausesOfRanks(),
]  # fmt: skip
