"""How GPUs, NICs and CPUs are wired: `nvidia-smi topo -m`, `topo -p2p`, `nvlink -s|-e|-c`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import fact

_CELL = r"(?:X|NV\d+|PIX|PXB|PHB|NODE|SYS|SOC|C2C|N/A)"
_NODE = regex(r"^(?:GPU\d+|NIC\d+|mlx\d+_\w+|rocep\w+|ibp\w+|bnxt_re\w*|irdma\w*|hfi1_\d+|efa_\d+)$")
_LEGEND = regex(r"(?:^|\s)(NIC\d+)\s*:\s*([A-Za-z]\w*)(?=\s|$|,)")
_P2P = {"OK", "CNS", "GNS", "TNS", "NS", "U", "DR"}


class TopologyReader:
    """The matrix of `topo -m`, also cut short, and that of `topo -p2p`."""

    name = "nvidia_smi_topo"
    needles: tuple[bytes, ...] = (b"GPU0\t", b"GPU0 ", b"GPU1\t", b"GPU1 ", b" X ", b"\tX\t")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`topo.link`, `topo.gpu_nic` and `topo.p2p` of pairs as printed; CPUs and NUMA node of each GPU."""
        columns: list[str] = []
        affinity: list[str] = []
        kind = "r"
        nics = {m[1]: m[2] for line in doc.lines() if "NIC" in line.text for m in _LEGEND.finditer(line.text)}
        for line in doc.lines():
            text = line.text
            if (asked := re.search(r"topo\s+-p2p\s+(\w+)", text)) is not None:
                kind = asked.group(1)
                continue
            words = text.split()
            heads = [w for w in words if _NODE.match(w)]
            bare = bool(heads) and words[0] == heads[0] and not re.search(rf"\s{_CELL}(?:\s|$)", text)
            if bare and (len(heads) >= 2 or "Affinity" in text):
                columns = heads
                rest = text[text.rfind(heads[-1]) + len(heads[-1]) :].strip()
                affinity = [c.strip() for c in re.split(r"\t+|\s{2,}", rest) if c.strip()]
                if not any(w in _P2P for w in words[1:]):
                    continue
            if not columns or not words or words[0] not in {*columns, *heads} or len(words) < 2:
                continue
            cells = words[1:]
            if any(c in _P2P for c in cells) and all(c in _P2P or c == "X" for c in cells[: len(columns)]):
                yield from self._p2p(doc, line, words[0], columns, cells, kind)
            elif re.match(rf"{_CELL}$", cells[0]):
                yield from self._row(doc, line, words[0], columns, cells, affinity, nics)

    def _row(
        self, doc: Document, line: Line, name: str, columns: list[str], cells: list[str], affinity: list[str],
        nics: dict[str, str],
    ) -> Iterator[Fact]:  # fmt: skip
        if not name.startswith("GPU"):
            return
        gpu = int(name[3:])
        for column, cell in zip(columns, cells, strict=False):
            if not re.match(rf"{_CELL}$", cell) or cell in ("X", "N/A"):
                continue
            if column.startswith("GPU"):
                yield fact(doc, line, "topo.link", cell, gpu=gpu, peer=int(column[3:]))
            else:
                yield fact(doc, line, "topo.gpu_nic", cell, gpu=gpu, nic=nics.get(column, column))
        rest = cells[len(columns) :]
        if len(cells) < len(columns) or not rest:
            return
        if affinity[:1] == ["CPU Affinity"] and re.match(r"[\d,-]+$", rest[0]):
            yield fact(doc, line, "topo.cpu_affinity", rest[0], gpu=gpu)
            if "NUMA Affinity" in affinity and len(rest) > 1 and rest[1].isdecimal():
                yield fact(doc, line, "gpu.numa", float(rest[1]), "count", gpu=gpu)

    def _p2p(
        self, doc: Document, line: Line, name: str, columns: list[str], cells: list[str], kind: str
    ) -> Iterator[Fact]:
        for column, cell in zip(columns, cells, strict=False):
            if cell != "X" and column.startswith("GPU") and name.startswith("GPU"):
                yield fact(doc, line, "topo.p2p", cell, gpu=int(name[3:]), peer=int(column[3:]), label=kind)


_GPU = regex(r"^\s*GPU\s+(\d+)\s*:")
_LINK = regex(r"^\s*Link\s+(\d+)\s*:\s*(.+?)\s*$")
_RATE = regex(r"^(\d+(?:\.\d+)?)\s*GB/s$")
_COUNTER = regex(r"^((?:Replay|Recovery|CRC|FLIT|Data|Effective|Symbol|Tx|Rx|Link)[\w /-]*?)\s*:\s*(\d+)$", re.I)


class NvlinkReader:
    """`nvidia-smi nvlink -s | -e | -c`: links kept as a count and the exceptions."""

    name = "nvidia_smi_nvlink"
    needles: tuple[bytes, ...] = (
        b"Link 0",
        b"Link 1",
        b"Link 2",
        b"Link 3",
        b"Link 4",
        b"Link 5",
        b"Link 6",
        b"Link 7",
        b"Link 8",
        b"inactive",
        b"inActive",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nvlink.links` that are up with their rates in GB/s, those that are not, and counters above zero."""
        gpu: int | None = None
        active: dict[int | None, list[tuple[float, Line]]] = {}
        for line in doc.lines():
            text = line.prefix + line.text
            if (head := _GPU.match(text)) is not None:
                gpu = int(head.group(1))
                if re.search(r"all links are inactive", text, re.I):
                    yield fact(doc, line, "nvlink.inactive", "inactive", gpu=gpu, label="all")
                continue
            if re.search(r"all links are inactive", text, re.I):
                yield fact(doc, line, "nvlink.inactive", "inactive", gpu=gpu, label="all")
                continue
            hit = _LINK.match(line.text)
            if hit is None:
                continue
            link, rest = hit.groups()
            rest = re.sub(r"^Link is\s+", "", rest.strip("<>").replace("supported:", "supported"))
            if rest.lower() in ("inactive", "disabled", "off", "down", "<inactive>"):
                yield fact(doc, line, "nvlink.inactive", rest.lower(), gpu=gpu, label=link)
            elif (rate := _RATE.match(rest)) is not None:
                active.setdefault(gpu, []).append((float(rate.group(1)), line))
            elif (counter := _COUNTER.match(rest)) is not None and float(counter.group(2)) > 0:
                label = f"{link} {counter.group(1)}"
                yield fact(doc, line, "nvlink.errors", float(counter.group(2)), "count", gpu=gpu, label=label)
            elif (can := re.match(r"P2P is supported\s*:?\s*(true|false)", rest, re.I)) is not None:
                yield fact(doc, line, "nvlink.p2p", can.group(1).lower(), gpu=gpu, label=link)
        for own, rows in active.items():
            rates = sorted({rate for rate, _ in rows})
            spans = (doc.span(rows[0][1]), doc.span(rows[-1][1]))
            yield Fact(
                "nvlink.links", float(len(rows)), "count", Subject(gpu=own), spans, kind="derived",
                formula="reader:nvidia_smi_nvlink", status=doc.status,
            )  # fmt: skip
            for speed in rates:
                where = next(line for r, line in rows if r == speed)
                yield fact(doc, where, "nvlink.rate", speed, "GB/s", gpu=own, label=f"{speed:g}")


_BARE = regex(rf"^GPU(\d+)\s+(?:{_CELL}\s+)+([\d,-]*\d-[\d,-]+)\s+(\d)\s+N/A\s*$")


class BareRowReader:
    """One row of the matrix, cut out without its head: the CPUs and the NUMA node still stand at its end."""

    name = "topo_row"
    needles: tuple[bytes, ...] = (b"GPU",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Nothing where a head is there."""
        rows: list[tuple[Line, re.Match[str]]] = []
        for line in doc.lines():
            if "Affinity" in line.text:
                return
            if line.text.startswith("GPU") and (hit := _BARE.match(line.text)) is not None:
                rows.append((line, hit))
        for line, hit in rows[:16]:
            yield fact(doc, line, "topo.cpu_affinity", hit[2], gpu=int(hit[1]))
            yield fact(doc, line, "gpu.numa", float(hit[3]), "count", gpu=int(hit[1]))


_EXCERPT = 1 << 18


class NodeOfGpu:
    """``GPU 5 -> numa_node: 1``: the node that sysfs gives for a GPU, written beside its index."""

    name = "gpu_numa_note"
    needles: tuple[bytes, ...] = (b"numa_node", b"NUMA", b"CPU Affinity")
    _note = regex(
        r"(?<![\w-])(?:GPU|cuda)[ :#]?(\d{1,2})\b(?![^\n]{0,30}(?:GPU|cuda)[ :#]?\d)[^\n\d]{0,16}"
        r"(?:numa_node|NUMA (?:node|Affinity|IDs? of closest CPU)|NUMA 节点)\W{0,4}(\d)\b"
    )
    _asked = regex(r"topo -C -i (\d{1,2})\b.*NUMA IDs? of closest CPU\W{1,4}(\d)\b")
    _path = regex(r"/numa_node\s+#\s*(?:GPU|cuda)[ :#]?(\d{1,2})\s*$")
    _near = regex(
        r"\bGPUs? ?(\d{1,2})(?: ?[-–] ?(\d{1,2}))?\W{1,3}(?:NUMA Affinity \d\W{1,3})?CPU Affinity"
        r"\W{1,3}(\d[\d,-]*)(?:\s*\(?NUMA\D{0,6}(\d))?"
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A machine without nodes prints -1, which is none."""
        asked: int | None = None
        whole = doc.size <= _EXCERPT  # where the answer may stand on the line below
        for line in doc.lines() if whole else doc.holding("NUMA", "numa_node", "CPU Affinity"):
            if whole and asked is not None and re.fullmatch(r"\s*\d\s*", line.text):
                yield fact(doc, line, "gpu.numa", float(line.text), "count", gpu=asked)
            asked = int(hit[1]) if (hit := self._path.search(line.text)) is not None else None
            if (hit := self._note.search(line.text) or self._asked.search(line.text)) is not None:
                yield fact(doc, line, "gpu.numa", float(hit[2]), "count", gpu=int(hit[1]))
            if (hit := self._near.search(line.text)) is not None and int(hit[2] or hit[1]) < 16:
                for gpu in range(int(hit[1]), int(hit[2] or hit[1]) + 1):
                    yield fact(doc, line, "topo.cpu_affinity", hit[3], gpu=gpu)
                    if hit[4]:
                        yield fact(doc, line, "gpu.numa", float(hit[4]), "count", gpu=gpu)


READERS: list[Reader] = [NodeOfGpu(), TopologyReader(), NvlinkReader(), BareRowReader()]
