"""Series over time from any tool, on one clock: GPU busy, network, PCIe, packets, retransmissions, waits, cores.

Our own table is CSV, a row a sample, rates over the time since the row before:

    # one clock: 12 samples, 0.25 s apart, monotonic, from 2026-01-05 10:00:00.250 epoch=1767607200.250
    # place nic eth0 node=1
    # place gpu gpu0 node=0
    t [s],gpu0 busy [%],pcie0 tx [GB/s],nic eth0 tx [GB/s],nic eth0 tx [packets/s],tcp retransmits [1/s],core max [%]
    0.00,96,1.20,0.02,14,0,31

Beside it: `nvidia-smi dmon -o T`, `sar -n DEV|ETCP`, `ifstat -t`, `dcgmi dmon`, and any table whose first column is a
time. A series becomes one fact, its points as JSON text; `diagnose.derivers.clock` puts series side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.units import canonical

from .facts import excerpt, fact

HEAD = "# one clock:"
LEAST, MOST = 4, 240  # points of a series
Key = tuple[str, str]  # role, device
_TOOLS = (HEAD.encode(), b"IFACE", b"retrans/s", b"KB/s in", b"#Time", b"#Entity")
_LARGEST, _TYPED = 1 << 23, 1 << 16  # bytes: of what a tool recorded, and of what somebody typed or cut out of a log

_START = regex(r"# one clock: .* from \d{4}-\d\d-\d\d (\d\d:\d\d:\d\d(?:\.\d+)?)(?: epoch=(\d+\.?\d*))?")
_PLACE = regex(r"# place (nic|gpu|process) (\S+) node=(-?\d+)")
_TIME = regex(r"^(?:\d{4}-\d\d-\d\d[T ])?(\d{1,2}):(\d\d):(\d\d(?:\.\d+)?)\s*([AP]M)?$", re.IGNORECASE)
_UNIT = regex(r"[\[(]\s*([^\])]+?)\s*[\])]|(?<=[\w ])\b([kKMG]i?[Bb](?:it)?(?:/s|ps)|ms|us|s|KB|KiB|MB)\s*$|(%)")
_CELL = regex(r"^[<~≈]?\s*(-?\d[\d,]*(?:\.\d+)?)\s*(%|[A-Za-z/]+)?$")
_GAP = regex(r"\s*[|,;\t]\s*|\s{2,}")
_HEAD_TIME = regex(r"^(?:t|time|ts|timestamp|sec|secs|seconds|elapsed|clock|时间|时刻|秒)\b|^(?:时间|时刻|秒)", re.I)
_NUMBERED = regex(r"(?:gpu|rank|pcie|dev|card)[ _-]?(\d+)", re.IGNORECASE)
# Role of a column by its name, the first that fits. A column of an unknown role is left out.
_ROLES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (role, regex(pattern, re.IGNORECASE))
    for role, pattern in (
        ("retransmits", r"re-?trans|\bretx\b|rexmit|out_of_seq|重传"),
        ("segments", r"segments?\b|\bsegs\b"),
        ("size", r"(?:bytes?|[km]i?b|size)\s*(?:/|per)\s*(?:msg|message|transfer|xfer|op|desc|send|wqe)"
                 r"|(?:msg|message|transfer|xfer|block|desc\w*|chunk|send)s?[ _]*(?:size|bytes)|(?:传输|消息)大小"),
        ("transfers", r"(?:msgs?|messages|transfers|xfers|ops|sends|descs|descriptors|wqes)\s*(?:/|per)\s*s"),
        ("payload", r"payload|useful|goodput|\bapp\b|application|有效"),
        ("wait", r"(?:nccl|collective|all.?reduce|all.?gather|comm)\w*[ _].*(?:wait|exposed)|wait.*(?:nccl|collective)"
                 r"|rank[ _]?\d+[ _]wait|集合通信等待"),
        ("gap", r"sched\w*|run.?q\w*|run.?delay|ready.*no cpu|调度"),
        ("softirq", r"soft.?irq|%soft|ksoftirqd"),
        ("core", r"(?:core|proxy|progress|polling|poller|irq)\b.*|busiest cpu"),
        ("packets", r"p(?:ac)?kts?\b|packets|pck/s"),
        ("pcie", r"pcie|\brxpci\b|\btxpci\b|\bpci[tr]x\b"),
        ("nvlink", r"nvlink"),
        ("power", r"power|\bpwr\b|\bwatts?\b"),
        ("memory", r"^gpu\d*[ _.]mem|\bmem\b"),
        ("gpu", r"(?:gpu|sm)[ _-]?\d*[ _.]?(?:util\w*|busy|active|act|%|sm|tl)|^gpu[ _-]?\d*$|^sm$|\bgputl\b"
                r"|GPU ?(?:利用率|占用)"),
        ("ib", r"\bib\b|\bmlx\d|\brdma\b|\broce\b|infiniband"),
        ("net", r"\bnic\b|\bnet\w*|\beth\w*|\bens\w*|\benp\w*|\bbond\d*|\blo\b|\bwire\b|[rt]xkb|\b[rt]x\b"
                r"|网络|网卡|带宽"),
    )
)  # fmt: skip
_DCGM = {"GPUTL": ("gpu", "fraction", 0.01), "GRACT": ("gpu", "fraction", 1.0), "SMACT": ("gpu", "fraction", 1.0),
         "PCITX": ("pcie", "GB/s", 1e-9), "PCIRX": ("pcie", "GB/s", 1e-9), "NVLTX": ("nvlink", "GB/s", 1e-9),
         "NVLRX": ("nvlink", "GB/s", 1e-9)}  # fmt: skip
_RATED = ("net", "ib", "pcie", "nvlink", "payload")
_OURS = regex(r"^(?:nic|ib) (\S+) [rt]x ")  # a column of our own table
_DEVICE = regex(r"\b(mlx\d_\d(?:/\d)?|eth\d\w*|ens\w+|enp\w+|bond\d+|ib\d+|lo)\b", re.IGNORECASE)


@dataclass
class Series:
    """One quantity over time, and the lines it stands in."""

    role: str
    device: str = ""
    unit: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def add(self, when: float, value: float, line: Line) -> None:
        """A sample; of two at one moment (both directions, several queues) the larger counts."""
        if self.points and self.points[-1][0] == when:
            self.points[-1] = (when, max(self.points[-1][1], value))
        else:
            self.points.append((when, value))
        self.lines.append(line)


@dataclass(frozen=True)
class Column:
    """What a column holds: role and device, and what its figures are multiplied with."""

    role: str
    device: str
    unit: str
    factor: float = 1.0


def seconds(text: str) -> float | None:
    """A time of the day, or seconds."""
    hit = _TIME.match(text.strip())
    if hit is not None:
        hour = int(hit[1]) % 12 + (12 if hit[4].upper() == "PM" else 0) if hit[4] else int(hit[1])
        return hour * 3600 + int(hit[2]) * 60 + float(hit[3])
    try:
        return float(text.strip().removesuffix("s").strip())
    except ValueError:
        return None


def column(name: str, sample: str = "") -> Column | None:
    """What a column is, by its name and, where the name has no unit, by the unit in its first cell."""
    role = next((r for r, pattern in _ROLES if pattern.search(name)), None)
    if role is None:
        return None
    said = _UNIT.search(name)
    unit = next((g for g in said.groups() if g), "") if said else ""
    if not unit and (hit := _CELL.match(sample.strip())) is not None:
        unit = hit[2] or ""
    number, named = _NUMBERED.search(name), _OURS.match(name) or _DEVICE.search(name)
    device = number[1] if number else named[1] if named else ""
    if role in ("core", "softirq") and "%" not in unit:
        return None
    if role in ("gpu", "memory", "core", "softirq"):
        return Column(role, device, "fraction", 0.01) if unit in ("%", "") else None
    if role in _RATED:
        if "pack" in unit or "pck" in unit:
            return Column("packets", device, "1/s")
        got = canonical(1.0, unit)
        if got is None or got[1] not in ("GB/s", "Gb/s"):
            return None
        return Column(role, device, "GB/s", got[0] / (8.0 if got[1] == "Gb/s" else 1.0))
    if role == "size":
        got = canonical(1.0, unit) if unit else (1.0, "B")
        return Column(role, device, "B", got[0]) if got and got[1] == "B" else None
    if role in ("wait", "gap"):
        if unit == "%":
            return Column(role, device, "fraction", 0.01)
        got = canonical(1.0, unit.partition("/")[0]) if unit else None
        scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
        return Column(role, device, "s", got[0] * scale[got[1]]) if got and got[1] in scale else None
    return Column(role, device, unit or "1/s")


class ClockReader:
    """Series over time: our own table, `dmon`, `sar`, `ifstat`, `dcgmi dmon`, tables that begin with a time."""

    name = "clock"
    needles: tuple[bytes, ...] = (*_TOOLS, b"ime", b"t [s]", b"t(s)", b"t,", b"sec", b"\xe6\x97\xb6")

    @staticmethod
    def owns(doc: Document) -> bool:
        """Our own table from end to end: rows differ because time passes, so no reader may compare them."""
        return doc.head.startswith(HEAD.encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`clock.series` by role and device; `clock.place` where the table says on which node a device is."""
        by_tool = any(needle in doc.head for needle in _TOOLS)
        found: dict[Key, Series] = {}
        state = _State()
        for line in excerpt(doc, _LARGEST if by_tool else _TYPED):
            if (begun := _START.match(line.text)) is not None:
                state.begin = seconds(begun[1]) or 0.0
                if begun[2]:
                    yield fact(doc, line, "clock.epoch", float(begun[2]), "s")
                    yield fact(doc, line, "clock.begin", begun[1])
            if (place := _PLACE.match(line.text)) is not None:
                who = _subject(place[2].removeprefix("gpu") if place[1] == "gpu" else place[2], place[1])
                yield Fact("clock.place", float(place[3]), "count", who, (doc.span(line),), status=doc.status)
                continue
            for spec, when, value in state.take(line):
                series = found.setdefault((spec.role, spec.device), Series(spec.role, spec.device, spec.unit))
                series.add(when, value * spec.factor, line)
        for (role, device), series in found.items():
            if len(series.points) < LEAST or any(b[0] < a[0] for a, b in pairwise(series.points)):
                continue
            points = _thin(series.points)
            said = json.dumps([[round(t, 3), round(v, 6)] for t, v in points], separators=(",", ":"))
            ends = (doc.span(series.lines[0]), doc.span(series.lines[-1]))
            yield Fact("clock.series", said, None, _subject(device, role), ends, status=doc.status, count=len(points))


def _subject(device: str, role: str) -> Subject:
    if device.isdecimal() and role != "wait":
        return Subject(gpu=int(device), label=role)
    if device.isdecimal():
        return Subject(rank=int(device), label=role)
    return Subject(nic=device or None, label=role)


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST` points, each the mean of its neighbours."""
    step = -(-len(points) // MOST)
    parts = [points[i : i + step] for i in range(0, len(points), step)]
    return [(p[0][0], sum(v for _, v in p) / len(p)) for p in parts]


class _State:
    """Which table the lines are in, and the samples of each row."""

    def __init__(self) -> None:
        self.kind, self.names, self.columns = "", list[str](), dict[int, Column]()
        self.clock = self.begin = 0.0
        self.pending: list[str] = []

    def take(self, line: Line) -> Iterator[tuple[Column, float, float]]:
        """Samples of one line; a head changes the table."""
        text = line.text.strip()
        if not text:
            return
        words = text.lstrip("#").split()
        if self._tool_head(text, words):
            return
        if self.kind in ("sar", "dmon", "ifstat", "dcgmi"):
            yield from getattr(self, f"_{self.kind}")(text, words)
            return
        cells = [c.strip() for c in _GAP.split(text.strip("|# "))]
        if len(cells) >= 2 and _HEAD_TIME.match(cells[0]):
            self.kind, self.names, self.columns, self.pending = "table", cells, {}, cells
        elif self.kind == "table" and len(cells) == len(self.names) and (when := seconds(cells[0])) is not None:
            if self.pending:
                made = {i: column(n, cells[i]) for i, n in enumerate(self.names) if i}
                self.columns, self.pending = {i: c for i, c in made.items() if c is not None}, []
            for i, spec in self.columns.items():
                if (value := _figure(cells[i])) is not None:
                    yield spec, self.begin + when, value
        elif self.kind == "table" and not re.fullmatch(r"[-|:+= ]+", text):
            self.kind = ""

    def _tool_head(self, text: str, words: list[str]) -> bool:
        bare = [w for w in words if _TIME.match(w) is None and w.upper() not in ("AM", "PM")]
        if ("IFACE" in bare and "rxkB/s" in bare) or {"retrans/s", "isegerr/s"} <= set(bare):
            self.kind, self.names = "sar", bare
            return True
        if text.startswith("#") and words and words[0] == "Time" and "gpu" in words:
            self.kind, self.names = "dmon", words
            return True
        if text.startswith("#") and words and words[0].startswith("HH:MM:SS") and self.kind == "dmon":
            return True
        if text.startswith("#Entity"):
            self.kind, self.names, self.clock = "dcgmi", words[1:], 0.0
            return True
        if (
            words
            and words[0] in ("Time", "HH:MM:SS")
            and ("KB/s" in words or self.kind == "ifstat" or _only_nics(words))
        ):
            self.kind = "ifstat"
            self.names = words[1:] if words[0] == "Time" else self.names
            return True
        return False

    def _sar(self, text: str, words: list[str]) -> Iterator[tuple[Column, float, float]]:
        clock = " ".join(words[:2]) if len(words) > 1 and words[1].upper() in ("AM", "PM") else words[0]
        when = seconds(clock) if ":" in clock else None
        rest = words[len(clock.split()) :]
        if when is None or len(rest) != len(self.names):
            return
        row = dict(zip(self.names, rest, strict=True))
        nic = row.get("IFACE", "")
        role = "net"  # also of ib0: an interface counts IP packets, what RDMA moves only the port's own counters know
        wanted = {"rxkB/s": (role, 1.024e-6), "txkB/s": (role, 1.024e-6), "rxpck/s": ("packets", 1.0),
                  "txpck/s": ("packets", 1.0), "retrans/s": ("retransmits", 1.0)}  # fmt: skip
        for name, (kind, factor) in wanted.items():
            if nic != "lo" and (value := _figure(row.get(name, ""))) is not None:
                yield Column(kind, nic, "GB/s" if kind == role else "1/s", factor), when, value

    def _dmon(self, text: str, words: list[str]) -> Iterator[tuple[Column, float, float]]:
        when = seconds(words[0])
        if when is None or len(words) != len(self.names):
            return
        row = dict(zip(self.names, words, strict=True))
        wanted = {"sm": ("gpu", "fraction", 0.01), "rxpci": ("pcie", "GB/s", 1e-3), "txpci": ("pcie", "GB/s", 1e-3),
                  "mem": ("memory", "fraction", 0.01), "pwr": ("power", "W", 1.0)}  # fmt: skip
        for name, (role, unit, factor) in wanted.items():
            if (value := _figure(row.get(name, ""))) is not None:
                yield Column(role, row["gpu"], unit, factor), when, value

    def _dcgmi(self, text: str, words: list[str]) -> Iterator[tuple[Column, float, float]]:
        """It prints no time: rows are a second apart unless it was told otherwise, so only their order counts."""
        if len(words) != len(self.names) + 2 or words[0] != "GPU" or not words[1].isdecimal():
            return
        self.clock += 1.0 if words[1] == "0" else 0.0
        for name, cell in zip(self.names, words[2:], strict=True):
            if name in _DCGM and (value := _figure(cell)) is not None:
                role, unit, factor = _DCGM[name]
                yield Column(role, words[1], unit, factor), self.clock, value

    def _ifstat(self, text: str, words: list[str]) -> Iterator[tuple[Column, float, float]]:
        when = seconds(words[0])
        if when is None or len(words) != 1 + 2 * len(self.names):
            return
        for i, nic in enumerate(self.names):
            for cell in words[1 + 2 * i : 3 + 2 * i]:
                if nic != "lo" and (value := _figure(cell)) is not None:
                    yield Column("net", nic, "GB/s", 1.024e-6), when, value


def _only_nics(words: list[str]) -> bool:
    return len(words) > 1 and all(_DEVICE.fullmatch(w) for w in words[1:])


def _figure(cell: str) -> float | None:
    hit = _CELL.match(cell.strip())
    return float(hit[1].replace(",", "")) if hit else None


READERS = (ClockReader(),)
