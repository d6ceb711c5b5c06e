"""What does not fit spills into slower memory: layers on the host, shared memory of Windows, files larger than RAM."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact, size

_SMALL = 1 << 17
_LINES = 600

_SPLITS = (
    regex(r"\boffload(?:ed|ing) (?P<on>\d+)/(?P<all>\d+) layers", re.I),
    regex(r"layers\.model=(?P<all>\d+)\b.*?layers\.offload=(?P<on>\d+)", re.I),
    regex(r"\b(?P<on>\d+) ?(?:of|/) ?(?P<all>\d+) (?:\w+ ){0,2}(?:layers?|blocks?|层)\b[^\n]{0,24}?(?:GPU|VRAM|CUDA|显卡|显存)", re.I),  # noqa: E501
)  # fmt: skip
_SHARE = regex(r"(?<![\d.])(?P<cpu>\d{1,2})%/(?P<gpu>\d{1,2})% CPU/GPU", re.I)
_MAP = regex(r"\{[^{}]*['\"]?(?:cpu|disk)['\"]?\s*:\s*\d+[^{}]*\}")
_ENTRY = regex(r"['\"]?(?P<where>cuda:\d|\d|cpu|disk)['\"]?\s*:\s*(?P<n>\d+)\b")
_SAID = regex(
    r"parameters are on the meta device because they were offloaded|modules? (?:are|were|is) (?:dispatched|offloaded) (?:on|to) the (?:CPU|disk)"  # noqa: E501
    r"|(?:offload\w*|spill\w*|moved) (?:\w+ ){0,4}(?:layers?|experts?|weights|parameters|modules?) (?:\w+ ){0,2}to (?:the )?(?:CPU|RAM|host|disk|system)"  # noqa: E501
    r"|(?:layers?|weights|experts?|权重|层)[^\n]{0,16}(?:放|卸载|溢出|落)(?:到|在)了? ?(?:CPU|内存|主存|磁盘)",
    re.I,
)  # fmt: skip
_HEAD = regex(r"(?:layers?|blocks?|层)[^|\t]{0,12}(?:GPU|VRAM|offload|显卡|显存)|(?:GPU|offloaded)[ _-]layers?", re.I)
_CELL = regex(r"(?<![\w./])(?P<on>\d{1,3})/(?P<all>\d{1,3})(?![\w./])")


class LayerSplitReader:
    """`gpu.layers_outside`: the share of a model's layers that the GPU does not hold."""

    name = "layer_split"
    needles: tuple[bytes, ...] = (b"ayers", b"CPU/GPU", b"meta device", b"'cpu'", b'"cpu"', b"ffload", "层".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a line, shares of nothing and of all included."""
        table = 0
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            table = 8 if _HEAD.search(text) else max(0, table - 1)
            share = self._share(text, table > 0)
            if share is not None:
                yield computed(doc, line, "gpu.layers_outside", round(share, 4), "fraction", "layer_split")
            elif hit := _SAID.search(text):
                yield fact(doc, line, "gpu.spilled", hit.group()[:80])

    @staticmethod
    def _share(text: str, table: bool) -> float | None:
        if hit := _SHARE.search(text):
            return float(hit["cpu"]) / 100
        shapes = (*_SPLITS, _CELL) if table else _SPLITS
        for shape in shapes:
            if (hit := shape.search(text)) and 0 <= int(hit["on"]) <= int(hit["all"]) >= 8:
                return 1 - int(hit["on"]) / int(hit["all"])
        if hit := _MAP.search(text):
            counts = {e["where"]: int(e["n"]) for e in _ENTRY.finditer(hit.group())}
            outside, whole = sum(counts.get(k, 0) for k in ("cpu", "disk")), sum(counts.values())
            return outside / whole if whole >= 8 and len(counts) >= 2 else None
        return None


_N = r"(?P<{0}>\d[\d,]*(?:\.\d+)?) ?(?P<{1}>[KMGT]i?B|[KMGT]\b|bytes|字节)?"
_DEDICATED = regex(
    rf"(?:dedicated|专用)[\w %()*\\:=]{{0,32}}?(?:memory|usage|显存|内存|GPU)?[\w ]{{0,8}}?\s*[:：=]?\s*{_N.format('a', 'au')} ?(?:/|of) ?{_N.format('b', 'bu')}", re.I  # noqa: E501
)  # fmt: skip
_SHARED = regex(
    rf"(?:shared|共享)[\w %()*\\:]{{0,32}}?(?:memory|usage|显存|内存|GPU)[\w ]{{0,8}}?\s*[:：=]?\s*{_N.format('a', 'au')}", re.I  # noqa: E501
)  # fmt: skip
_DYNAMIC = regex(rf"(?:memory used \(dynamic\)|\bdynamic)\s*[:=]?\s+{_N.format('a', 'au')}(?=\s|$|,)", re.I)
_PLACE = regex(
    r"shared memory per block|shared mem(?:ory)? ?\(?(?:static|dynamic|carve)|/dev/shm|shm|Kbyte/block|bank", re.I
)


class SharedMemoryReader:
    """Memory of a card under Windows: how full its own is, and how much of the host's is lent to it."""

    name = "wddm_memory"
    needles: tuple[bytes, ...] = (b"hared", b"SHARED", b"ynamic", "共享".encode(), b"edicated")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.dedicated_share` and `gpu.shared_used`; several states in one line are several facts."""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _PLACE.search(text):
                continue
            for hit in _DEDICATED.finditer(text):
                held, whole = _gib(hit["a"], hit["au"] or hit["bu"]), _gib(hit["b"], hit["bu"])
                if whole > 0 and held <= 1.05 * whole:
                    yield computed(doc, line, "gpu.dedicated_share", round(held / whole, 4), "fraction", self.name)
            for hit in (*_SHARED.finditer(text), *_DYNAMIC.finditer(text)):
                unit = hit["au"] or next((u for u in re.findall(r"\b[GM]i?B\b", text)), "bytes")
                value = _gib(hit["a"], unit)
                if value < 4096:
                    yield computed(doc, line, "gpu.shared_used", round(value, 4), "GiB", self.name)


def _gib(text: str, unit: str | None) -> float:
    got = size(text.replace(",", "") + ("B" if unit in (None, "bytes", "字节") else str(unit)))
    return got or 0.0


_FILE = regex(
    rf"(?:(?:model|corpus|dataset|index|weights?|gguf|checkpoint|file|模型|数据集?|索引|语料)(?: ?(?:files?|size|on disk|文件|大小))?|[\w.-]+\.(?:gguf|bin|npy|safetensors|mmap|idx|dat|arrow))\W{{0,4}}(?:is |about |约 ?|有 ?)?{_N.format('a', 'au')}",  # noqa: E501
    re.I,
)
_LISTED = regex(
    r"^[-l][rwx-]{9}\S?\s+\d+\s+\S+\s+\S+\s+(?P<a>\d[\d.]*)(?P<au>[KMGT])?\s+(?:.*?\s)?\S*\.(?:gguf|bin|npy|safetensors|mmap|idx|dat|arrow)\b"
)
_RAM = regex(
    rf"(?:\bRAM\b|host memory|system memory|physical memory|memory\.max|MemTotal|内存(?:上限|限制)?|物理内存)\W{{0,4}}(?:is |only |共 ?|只有 ?|limit )?{_N.format('a', 'au')}",  # noqa: E501
    re.I,
)
_RAM_AFTER = regex(rf"{_N.format('a', 'au')} (?:of )?(?:RAM|system memory|内存)\b", re.I)
_FREE = regex(r"^Mem:\s+(?P<a>\d+)\s+\d+\s+\d+")
_FAULTS = regex(
    r"(?<![a-z])(?:maj(?:or)?[ _-]?(?:page )?f(?:au)?lts?(?:/s)?(?: per second)?|majflt/s|缺页(?:中断)?|主缺页)\W{0,4}(?P<a>\d[\d,.]*)(?P<k>k)?"  # noqa: E501
    r"|(?P<b>\d[\d,.]*)(?P<kb>k)? (?:major (?:page )?faults?|maj(?:or)?[ _-]?fl(?:au)?ts?)", re.I,
)  # fmt: skip
_BLOCKS_IN = regex(r"\bbi\b\W{0,4}(?P<a>\d{5,})|(?:pgpgin/s|rkB/s)\W{1,4}(?P<b>\d{5,})")
_REFAULT = regex(r"(?:workingset_refault(?:_file)?|pgmajfault)\W{1,3}(?P<a>\d{5,})")


class MappedFileReader:
    """Sizes of a mapped file and of the memory it is read through, and pages that had to be read again."""

    name = "mapped_file"
    needles: tuple[bytes, ...] = (
        b"mmap",
        b"maj",
        b"refault",
        b"RAM",
        b"Mem:",
        b"MemTotal",
        b".gguf",
        "缺页".encode(),
        "内存".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.mapped_file`, `host.ram_said`, `host.major_faults` a second, `host.refaults` in all."""
        heads: list[str] = []
        unit = "K"
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if hit := re.search(r"\bfree -(?:\w*)([gmbkh])", text):
                unit = hit[1].upper()
            yield from self._sizes(doc, line, text, unit)
            if hit := _FAULTS.search(text):
                count = amount((hit["a"] or hit["b"]).rstrip(".,")) * (1000 if hit["k"] or hit["kb"] else 1)
                yield computed(doc, line, "host.major_faults", count, "count", self.name)
            if hit := _BLOCKS_IN.search(text):
                yield computed(doc, line, "host.blocks_in", amount(hit["a"] or hit["b"]), "count", self.name)
            if hit := _REFAULT.search(text):
                yield computed(doc, line, "host.refaults", amount(hit["a"]), "count", self.name)
            cells = text.split()
            if "majflt/s" in cells:
                heads = cells
            elif heads and len(cells) >= len(heads) - 2:
                at = heads.index("majflt/s") - len(heads)
                if re.fullmatch(r"\d+(?:\.\d+)?", cells[at] if -at <= len(cells) else ""):
                    yield computed(doc, line, "host.major_faults", float(cells[at]), "count", self.name)

    @staticmethod
    def _sizes(doc: Document, line: Line, text: str, unit: str) -> Iterator[Fact]:
        for signal, shapes in (("host.mapped_file", (_LISTED, _FILE)), ("host.ram_said", (_RAM, _RAM_AFTER, _FREE))):
            for shape in shapes:
                for hit in shape.finditer(text):
                    given = hit.groupdict().get("au")
                    if given is None and shape not in (_FREE, _LISTED) and amount(hit["a"]) < 1e8:
                        continue
                    value = _gib(hit["a"], unit if shape is _FREE else given)
                    if value >= 1:
                        yield computed(doc, line, signal, round(value, 3), "GiB", "mapped_file")


READERS: list[Reader] = [LayerSplitReader(), SharedMemoryReader(), MappedFileReader()]
