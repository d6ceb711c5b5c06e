"""Which bytes went over which path: the account that our own sweep makes around a run of known bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided, fact
from .path_counters import HEAD

_RUN = regex(r"# path run: op=(\w+) size=(\d+) times=(\d+) ranks=(\d+) seconds=(\d+(?:\.\d+)?)")
_NEEDS = regex(r"# path needs \w+: rank=(\d+) all=(\d+)")
_PATH = regex(r"# path (nvlink|pcie|nic|ib|tcp) (\S+): (?:unknown, (.+)|(\w+=.*))$")
_VALUE = regex(r"(\w+)=(\d+)")
_GPU = regex(r"gpu(\d+)$")
_BYTES = ("tx", "rx", "raw_tx", "raw_rx", "sampled_tx", "sampled_rx")
CARRIES = 0.5  # of the bytes that the algorithm needs: a path that shows less did not carry them


class PathBytesReader:
    """Counter differences beside the bytes that the algorithm needs, and the path that carried them."""

    name = "path_bytes"
    needles: tuple[bytes, ...] = (HEAD.encode(),)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`path.expected`, `path.moved`, `path.share`, `path.rate`, `path.carried`."""
        seconds: Fact | None = None
        needed: dict[str, Fact] = {}
        moved: list[Fact] = []
        for line in doc.lines():
            if (run := _RUN.match(line.text)) is not None:
                yield from _carried(moved)
                needed, moved = {}, []
                label = f"{run[1]} of {run[2]} B, {run[3]} times, {run[4]} ranks"
                seconds = fact(doc, line, "path.seconds", float(run[5]), "s", around=run[5], label=label)
                yield seconds
            elif (said := _NEEDS.match(line.text)) is not None:
                for label, figure in (("rank", said[1]), ("all", said[2])):
                    needed[label] = fact(doc, line, "path.expected", float(figure), "B", label=label)
                yield from needed.values()
            elif (hit := _PATH.match(line.text)) is not None and needed and seconds is not None:
                if hit[3]:
                    yield fact(doc, line, "path.unread", hit[3], label=f"{hit[1]} {hit[2]}")
                    continue
                for made in _device(doc, line, hit[1], hit[2], needed, seconds):
                    moved += [made] if made.signal == "path.share" else []
                    yield made
        yield from _carried(moved)


def _device(doc: Document, line: Line, path: str, name: str, needed: dict[str, Fact], seconds: Fact) -> Iterator[Fact]:
    gpu = _GPU.match(name)
    for key, figure in _VALUE.findall(line.text):
        who = Subject(gpu=int(gpu[1]), label=f"{path} {key}") if gpu else Subject(nic=name, label=f"{path} {key}")
        if key in _BYTES:
            bytes_ = Fact("path.moved", float(figure), "B", who, (doc.span(line),), status=doc.status)
            yield bytes_
            whole = needed["rank" if gpu else "all"]
            if whole.value:
                yield divided("path.share", (bytes_, whole), subject=who)
            if float(seconds.value or 0) > 0:
                yield Fact("path.rate", float(figure) / float(seconds.value or 1) / 1e9, "GB/s", who, kind="derived",
                           formula="a / b / 1e9", inputs=(bytes_, seconds), status=doc.status)  # fmt: skip
        elif key in ("replays", "retransmits") and int(figure):
            yield Fact("path.repeated", float(figure), "count", who, (doc.span(line),), status=doc.status)


def _carried(shares: list[Fact]) -> Iterator[Fact]:
    """The devices that show the bytes of the run; of PCIe the sampled rate decides, because its counters may wrap."""
    best: dict[str, Fact] = {}
    sampled = {f.subject.gpu for f in shares if (f.subject.label or "").startswith("pcie sampled")}
    for item in shares:
        path, _, key = (item.subject.label or "").partition(" ")
        if key.startswith("raw") or (path == "pcie" and key in ("tx", "rx") and item.subject.gpu in sampled):
            continue
        name = path if item.subject.nic is None else f"{path} {item.subject.nic}"
        if float(item.value or 0) >= CARRIES and float(item.value or 0) > float(best.get(name, _NOTHING).value or 0):
            best[name] = item
    if shares:
        found = sorted(best, key=lambda n: (-float(best[n].value or 0), n))
        inputs = tuple(best[n] for n in found) or tuple(shares[:2])
        yield Fact("path.carried", " + ".join(found) or "none of those counted", None, kind="derived",
                   formula="reader:path_bytes", inputs=inputs, status=inputs[0].status)  # fmt: skip


_NOTHING = Fact("path.share", 0.0)
_SMI_GPU = regex(r"^\s*GPU (\d+):")
_SMI_DATA = regex(r"^\s*Link (\d+): (Data|Raw) (Tx|Rx): (\d+) KiB$", re.IGNORECASE)


class NvlinkCountersReader:
    """`nvidia-smi nvlink -gt d`: bytes over all links of a GPU since the driver was loaded, reading by reading."""

    name = "nvlink_counters"
    needles: tuple[bytes, ...] = (b"Data Tx:", b"Data Rx:", b"Raw Tx:")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nvlink.data` of each GPU, way and reading; a GPU that comes again begins the next reading."""
        gpu: int | None = None
        seen: dict[int | None, int] = {}
        sums: dict[tuple[int | None, str, int], list[tuple[float, Line]]] = {}
        for line in doc.lines():
            text = line.prefix + line.text
            if (head := _SMI_GPU.match(text)) is not None:
                gpu = int(head[1])
                seen[gpu] = seen.get(gpu, 0) + 1
            elif (hit := _SMI_DATA.match(line.text)) is not None:
                way = f"{hit[3].lower()}" if hit[2].lower() == "data" else f"raw {hit[3].lower()}"
                sums.setdefault((gpu, way, seen.get(gpu, 1)), []).append((float(hit[4]) * 1024, line))
        for (who, way, reading), cells in sums.items():
            spans = (doc.span(cells[0][1]), doc.span(cells[-1][1]))
            subject = Subject(gpu=who, label=f"{way}, reading {reading}")
            yield Fact("nvlink.data", sum(v for v, _ in cells), "B", subject, spans, kind="derived",
                       formula="reader:nvlink_counters", status=doc.status)  # fmt: skip


READERS = (PathBytesReader(), NvlinkCountersReader())
