"""Short network outputs: speeds that several `ethtool` calls print, nodes beside ranks, a link at rest and at work."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, fact

_LINES = 4000
_SMALL = 1 << 16
_ASKED = regex(r"\bethtool\s+(?P<nic>[a-zA-Z][\w.-]*\d\w*)\b|/sys/class/net/(?P<file>[\w.-]+)/speed\b")
_SETTINGS = regex(r"^\s*Settings for (?P<nic>[\w.-]+):")
_SPEED = regex(r"^\s*(?:Speed:\s*)?(?P<mega>\d{3,6})\s*(?P<unit>Mb/s)?\s*$")


class EthtoolSpeeds:
    """`Speed: 10000Mb/s` below the command or heading that names its interface; several commands answer in order."""

    name = "ethtool_speeds"
    needles: tuple[bytes, ...] = (b"Mb/s", b"/speed")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.interface.speed` of each interface."""
        waiting: list[str] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            named = _SETTINGS.match(text)
            if named:
                waiting = [named["nic"]]
                continue
            asked = [hit["nic"] or hit["file"] for hit in _ASKED.finditer(text)]
            if asked:
                waiting = asked
                continue
            hit = _SPEED.match(text) if waiting else None
            if hit is not None and (hit["unit"] or "Speed" not in text):
                value = float(hit["mega"])
                if value >= 1000 and value % 500 == 0:
                    nic = waiting.pop(0)
                    shown = fact(doc, line, "net.interface.printed", value, "count", nic=nic)
                    yield Fact(
                        "net.interface.speed", value / 1000, "Gb/s", Subject(nic=nic), (doc.span(line),),
                        kind="derived", formula="a / 1000", inputs=(shown,), status=doc.status,
                    )  # fmt: skip


_NODES = regex(
    r"(?<![\w.])(?P<a>[2-9]|[1-9]\d{1,3}) ?(?:nodes|hosts|machines)\b"
    r"(?=[^.;]{0,40}(?:GPUs?|ranks|[x×] ?\d|\d ?[x×] ?\w))"
    r"|(?:GPUs?|ranks)\b[^.;\d]{0,12}(?<![\w.])(?P<b>[2-9]|[1-9]\d{1,3}) ?(?:nodes|hosts|machines)\b"
    r"|(?<![\w.])(?P<c>[2-9]|[1-9]\d{1,3}) ?(?:nodes|hosts|machines) ?[x×*] ?\d",
    re.IGNORECASE,
)


class NodeWords:
    """ "16 ranks, 2 nodes", "2 nodes x 8 GPUs": how many machines a measurement spans, in a short text."""

    name = "node_words"
    needles: tuple[bytes, ...] = (b"nodes", b"hosts", b"machines")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`launch.hosts` where one number is named and no other."""
        lines = excerpt(doc, 1 << 14, _LINES)
        if not lines or not any(
            word in doc.data for word in (b"busbw", b"_perf", b"nGpus", b"all_reduce", b"all-reduce")
        ):
            return  # nothing is measured here that depends on it
        found: dict[str, Line] = {}
        for line in lines:
            if (hit := _NODES.search(line.text)) is not None:
                found.setdefault(next(g for g in hit.groups() if g), line)
        if len(found) == 1:
            value, line = next(iter(found.items()))
            yield fact(doc, line, "launch.hosts", float(value), "count")


_WHEN = regex(
    r"(?P<rest>\bidl(?:e|ing)\b|at rest|no load|not? (?:job|process)\w*|空闲|闲置|静止)"
    r"|(?P<work>\b(?:during|under|while|with|in) (?:\w+ ){0,2}(?:load|test|bench\w*|run\w*|copy|copies|training|work)\b"
    r"|\bduring \w+|\bbusy\b|\bloaded\b|\bunder load\b|跑起来|负载|运行时|压测)",
    re.IGNORECASE,
)
_GEN = regex(r"\bgen(?:eration)?(?:\.current)?\s*[:=]?\s*(?P<now>[1-6])\b", re.IGNORECASE)
_GEN_MAX = regex(r"\bgen(?:eration)?(?:\.max)\s*[:=]?\s*(?P<top>[1-6])\b|\bof (?:gen ?)?(?P<of>[3-6])\b", re.IGNORECASE)


class LinkAtRest:
    """`idle: gen 1, width 16` beside `during bandwidthTest: gen 4`: a link's generation in both states."""

    name = "link_at_rest"
    needles: tuple[bytes, ...] = (b"gen", b"Gen", b"GEN")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.state_note`, `gpu.state_gen` and the highest generation, where both states are there."""
        made: dict[str, list[Fact]] = {}
        for line in excerpt(doc, 1 << 13, _LINES):
            when, now = _WHEN.search(line.text), _GEN.search(line.text)
            if when is None or now is None:
                continue
            state = "rest" if when["rest"] else "work"
            if state in made:
                continue
            made[state] = [
                fact(doc, line, "gpu.state_note", when.group(), label=state),
                fact(doc, line, "gpu.state_gen", float(now["now"]), "count", label=state),
            ]
            if (top := _GEN_MAX.search(line.text)) is not None:
                made[state].append(fact(doc, line, "gpu.pcie.gen.max", float(top["top"] or top["of"]), "count"))
        if len(made) == 2:
            for facts in made.values():
                yield from facts


_ACTIVE_SPEED = regex(r"\bactive_speed:\s+(?P<gbps>\d+(?:\.\d+)?) Gbps")
_ACTIVE_WIDTH = regex(r"\bactive_width:\s+(?P<lanes>\d+)X")


class ActiveLanes:
    """`active_width: 4X` beside `active_speed: 50.0 Gbps` without the head of ibv_devinfo: rate is their product."""

    name = "active_lanes"
    needles: tuple[bytes, ...] = (b"active_speed",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rdma.port.rate` of the one port shown."""
        lines = excerpt(doc, _SMALL, _LINES)
        if not lines or b"hca_id" in doc.data:
            return
        speeds = [(hit, ln) for ln in lines if (hit := _ACTIVE_SPEED.search(ln.text))]
        widths = [(hit, ln) for ln in lines if (hit := _ACTIVE_WIDTH.search(ln.text))]
        if len(speeds) != 1 or len(widths) != 1:
            return
        (speed, a), (width, b) = speeds[0], widths[0]
        lane = fact(doc, a, "rdma.port.lane", float(speed["gbps"]), "Gb/s")
        lanes = fact(doc, b, "rdma.port.width", float(width["lanes"]), "count")
        yield lanes
        yield Fact(
            "rdma.port.rate", float(speed["gbps"]) * float(width["lanes"]), "Gb/s", Subject(),
            (doc.span(a), doc.span(b)), kind="derived", formula="a * b", inputs=(lane, lanes), status=doc.status,
        )  # fmt: skip


_CELL = regex(r"NV\d{1,2}|PIX|PXB|PHB|NODE|SYS")


class BareMatrix:
    """Rows of a topology matrix whose head was not pasted: the X of each row tells which column is its own."""

    name = "bare_matrix"
    needles: tuple[bytes, ...] = (b"GPU0 X", b"GPU0  X", b"GPU0\tX", b"GPU0   X", b"GPU0    X", b"GPU0\t X")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`topo.link` of pairs, where the rows are GPU0, GPU1, … in order and nothing else."""
        rows: list[tuple[Line, list[str]]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            words = line.text.split()
            if len(words) > 1 and words[0] == "GPU0" and words[1].startswith("GPU"):
                return  # the head is there
            if len(words) >= 3 and words[0] == f"GPU{len(rows)}" and words[1:].count("X") == 1:
                if words.index("X") != len(rows) + 1:
                    return
                rows.append((line, words[1:]))
        for gpu, (line, cells) in enumerate(rows):
            for peer, cell in enumerate(cells[: len(rows)]):
                if peer != gpu and _CELL.fullmatch(cell):
                    yield fact(doc, line, "topo.link", cell, gpu=gpu, peer=peer)


READERS: list[Reader] = [EthtoolSpeeds(), NodeWords(), LinkAtRest(), ActiveLanes(), BareMatrix()]
