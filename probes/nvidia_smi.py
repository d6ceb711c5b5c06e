"""What monitors print about GPUs: nvidia-smi's table, gpustat, nvtop's line, hand-made lists of the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact, gib, in_cells

_HEAD = regex(r"NVIDIA-SMI\s+([\d.]+).*?Driver Version:\s*([\d.]+)(?:.*?CUDA Version:\s*([\d.]+))?", re.I)
_NAME = regex(
    r"^\W*(\d{1,2})\s+((?:NVIDIA|Tesla|GeForce|Quadro|GRID|TITAN|RTX|Graphics Device|[AHBL]\d{2,3}|ERR!)[^|]*?)"
    r"\s+(On|Off|N/A|WDDM|TCC|MCDM)\s*\|?\s*([0-9A-Fa-f]{4,8}:[0-9A-Fa-f:.]+)?(.*)$"
)
_POWER = regex(
    r"(?:(\d+)%|N/A|ERR!)?\s+(\d+)C\s+(P\d{1,2})\s+(?:(\d+(?:\.\d+)?)W|N/A|ERR!)\s*/\s*(?:(\d+(?:\.\d+)?)W|N/A|ERR!)"
)
_MEMORY = regex(r"(\d+)\s*MiB\s*/\s*(\d+)\s*MiB")
_UTIL = regex(r"\b(\d{1,3})%\s+(Default|E\. ?Process|E\. ?Thread|Exclusive_\w+|Prohibited)")
_PROCESS = regex(
    r"^\W*(\d{1,2})\s+(?:(?:N/A|\d+)\s+(?:N/A|\d+)\s+)?(\d{2,8})\s+(C\+G|M\+C|C|G)\s+(\S.*?)\s+(\d+)\s*MiB\s*\|?\s*$"
)
_MIG = regex(r"^\|\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\|\s+(\d+)MiB\s*/\s*(\d+)MiB")
_MIG_MODE = regex(r"^\|\s+\|\s+\|\s+(Disabled|Enabled\*?|N/A)\s*\|\s*$")
_GPUSTAT = regex(
    r"^\W*\[(\d+)\]\s+(.+?)\s*\|\s*(\d+)\s*['°]C\b,\s*(?:\d+ %,\s*)?(\d+|"
    r"\?\?)\s*%.*?\|\s*(\d+)\s*/\s*(\d+)\s*MB\s*\|?(.*)$"
)


class TableReader:
    """The default output of nvidia-smi, all layouts, and gpustat."""

    name = "nvidia_smi"
    needles: tuple[bytes, ...] = (
        b"NVIDIA-SMI",
        b"ERR!",
        b"MiB /",
        b"'C,",
        b"Persistence-M",
        b"GPU Memory",
        b"MiB |",
        b"P0 ",
        b"P2 ",
        b"P8 ",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.*` of each GPU and its processes, `gpu.count` of the rows, versions of the head."""
        gpu: int | None = None
        seen: set[int] = set()
        last: Line | None = None
        for line in doc.lines():
            text = line.text
            if (hit := _HEAD.search(text)) is not None:
                for label, value in (("nvidia-smi", 1), ("driver", 2), ("cuda-driver", 3)):
                    if hit.group(value):
                        yield fact(doc, line, "version", hit.group(value), label=label)
                continue
            if (hit := _NAME.match(text)) is not None:
                gpu = int(hit.group(1))
                seen.add(gpu)
                last = line
                yield from self._name(doc, line, gpu, hit)
                continue
            if (hit := _MIG.match(text)) is not None:
                used, total = gib(hit.group(5), "MiB"), hit.group(6)
                yield fact(
                    doc, line, "gpu.mig.device", f"{used:g} of {total} MiB", gpu=int(hit.group(1)), label=hit.group(4)
                )
                continue
            if (hit := _GPUSTAT.match(text)) is not None:
                yield from self._gpustat(doc, line, hit)
                continue
            if (hit := _PROCESS.match(text)) is not None:
                who: dict[str, Any] = {"gpu": int(hit.group(1)), "label": f"{hit.group(2)} {hit.group(3)}"}
                yield fact(doc, line, "gpu.process", hit.group(4), **who)
                yield fact(doc, line, "gpu.process.memory", gib(hit.group(5), "MiB"), "GiB", **who)
                continue
            if gpu is not None or _POWER.search(text):
                yield from self._second(doc, line, gpu)
        if last is not None:
            yield computed(doc, last, "gpu.count", float(len(seen)), "count", self.name)

    def _name(self, doc: Document, line: Line, gpu: int, hit: re.Match[str]) -> Iterator[Fact]:
        if "ERR!" in hit.group(2):
            yield fact(doc, line, "gpu.error_field", "ERR!", gpu=gpu)
        else:
            yield fact(doc, line, "gpu.name", hit.group(2).strip(), gpu=gpu)
        if hit.group(3) in ("On", "Off"):
            yield fact(doc, line, "gpu.persistence", hit.group(3), gpu=gpu)
        ecc = re.search(r"\|\s*(\d+|ERR!)\s*\|?\s*$", hit.group(5) or "")
        if ecc and ecc.group(1).isdecimal():
            yield fact(doc, line, "gpu.ecc.uncorrected", float(ecc.group(1)), "count", gpu=gpu, label="volatile")
        elif ecc:
            yield fact(doc, line, "gpu.error_field", "ERR!", gpu=gpu)

    def _second(self, doc: Document, line: Line, gpu: int | None) -> Iterator[Fact]:
        text = line.text
        power, memory, util = _POWER.search(text), _MEMORY.search(text), _UTIL.search(text)
        if power:
            yield fact(doc, line, "gpu.temperature", float(power.group(2)), "C", gpu=gpu)
            yield fact(doc, line, "gpu.pstate", power.group(3), gpu=gpu)
            for group, signal in ((4, "gpu.power"), (5, "gpu.power.limit")):
                if power.group(group):
                    yield fact(doc, line, signal, float(power.group(group)), "W", gpu=gpu)
        elif "ERR!" in text and "|" in text:
            yield fact(doc, line, "gpu.error_field", "ERR!", gpu=gpu)
        if memory and (power or util or "|" in text):
            yield fact(doc, line, "gpu.memory.used", float(memory.group(1)) / 1024, "GiB", gpu=gpu)
            yield fact(doc, line, "gpu.memory.total", float(memory.group(2)) / 1024, "GiB", gpu=gpu)
        if util:
            yield fact(doc, line, "gpu.util", float(util.group(1)) / 100, "fraction", gpu=gpu)
            yield fact(doc, line, "gpu.compute_mode", util.group(2), gpu=gpu)
        mig = _MIG_MODE.match(text)
        if mig and mig.group(1) != "N/A":
            yield fact(doc, line, "gpu.mig", mig.group(1), gpu=gpu)

    def _gpustat(self, doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        gpu = int(hit.group(1))
        yield fact(doc, line, "gpu.name", hit.group(2), gpu=gpu)
        yield fact(doc, line, "gpu.temperature", float(hit.group(3)), "C", gpu=gpu)
        if hit.group(4).isdecimal():
            yield fact(doc, line, "gpu.util", float(hit.group(4)) / 100, "fraction", gpu=gpu)
        yield fact(doc, line, "gpu.memory.used", float(hit.group(5)) / 1024, "GiB", gpu=gpu)
        yield fact(doc, line, "gpu.memory.total", float(hit.group(6)) / 1024, "GiB", gpu=gpu)
        for who, held in re.findall(r"([\w./:-]+)\((\d+)M\)", hit.group(7)):
            yield fact(doc, line, "gpu.process", who, gpu=gpu, label=who)
            yield fact(doc, line, "gpu.process.memory", float(held) / 1024, "GiB", gpu=gpu, label=who)


# Gen 3 x16 | PCIe GEN 3@16x | PCIe 4.0 x8 | Gen4x16 | gen 2, x4 | Gen5 ×16
_LINK = regex(
    r"(?:\bgen(?:eration)?\s*[:=.]?\s*(?P<a>[1-6])|pci-?e(?:xpress)?\s*v?(?P<b>[1-6])\.0)(?!\d)"
    r"(?:\s*(?:@|/|,|\(|link)\s*|\s*)(?:[x×]\s?(?P<c>1|2|4|8|16)\b|(?P<d>1|2|4|8|16)\s?[x×])",
    re.I,
)
_LANES = regex(
    r"(?:[x×](?P<now>\d{1,2})\s+lanes?\s+negotiated|(?:link )?width\s*[:=]?\s*[x×]?(?P<now2>\d{1,2})x?)", re.I
)
_LANES_MAX = regex(r"(?:max|up to|of|capable)\w*\s*(?:width\s*)?[:=]?\s*[x×](\d{1,2})\b", re.I)
_GEN_MAX = regex(r"(?:\bgen(?:eration)?\s+(?:up to|max)|max(?:imum)?\s+gen)\s*[:=]?\s*([1-6])\b", re.I)
_MAXISH = regex(r"(?:max\w*|capable(?: of)?|up to|supports?|rated|of)[\s:(=]*(?:pci-?e\s*)?$", re.I)
_DEVICE = regex(r"\b(?:GPU|Device|Card)\s*#?\s*(\d{1,2})\b", re.I)
_MODEL = regex(r"\b((?:NVIDIA |Tesla |GeForce |Quadro )[A-Z0-9][\w ./-]*?)(?=\s*(?:\||\]|\(UUID|,|$))")
_WATTS = (
    (regex(r"default(?:[ _]power)?(?:[ _]limit)?\s*[=:]?\s*(\d+(?:\.\d+)?)\s*W\b", re.I), "gpu.power.default"),
    (regex(r"max(?:[ _]power)?(?:[ _]limit)?\s*[=:]\s*(\d+(?:\.\d+)?)\s*W\b", re.I), "gpu.power.max"),
    (
        regex(
            r"(?<!default )(?<!max )(?:power[ _]?(?:limit|cap)|\blimit|\bcap(?:ped)?(?: at)?)\s*[=:]?\s*(\d+(?:\.\d+)?)\s*W\b",  # noqa: E501
            re.I,
        ),
        "gpu.power.limit",
    ),
    (regex(r"(?:current_draw|power[ _]draw|draw|drawing)\s*[=:]?\s*(\d+(?:\.\d+)?)\s*W\b", re.I), "gpu.power"),
    (regex(r"\bPOW\s+(\d+)\s*/\s*\d+\s*W", re.I), "gpu.power"),
    (regex(r"\bPOW\s+\d+\s*/\s*(\d+)\s*W", re.I), "gpu.power.limit"),
)


_DIGIT = regex(r"\d")
_HINT = regex(r"PCI|[Pp]ci|[Gg]en|GEN|lanes|[Ww]idth|imit|[Pp]ower|POW|GPU|Device|DEVICE|[Cc]ard|[Dd]raw|\bcap|\d W\b")


class ListReader:
    """One-line and prose descriptions of cards (nvtop, reports of wrappers, hand-typed tables)."""

    name = "gpu_list"
    needles: tuple[bytes, ...] = (
        b"PCI",
        b"Pci",
        b"pci",
        b"Gen ",
        b"Gen1",
        b"Gen2",
        b"Gen3",
        b"Gen4",
        b"Gen5",
        b"GEN ",
        b"gen ",
        b"limit=",
        b" W",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.pcie.*`, power in W and names, of the GPU that the line or the one above it names."""
        gpu: int | None = None
        header: list[str] = []
        for line, may in told(doc.novel(), also=_HINT.pattern):
            text = line.text
            if len(text) > 600 or "LnkSta" in text or "LnkCap" in text or text.lstrip()[:1] == "<":
                continue
            if ":" in text and re.search(r"\s{2,}:\s", text):  # the query's own layout, read by its reader
                continue
            if not (may and _HINT.search(text)):
                if not text.strip():
                    gpu = None
                elif not _DIGIT.search(text):
                    header = in_cells(text)
                continue
            device = _DEVICE.search(line.prefix + text)
            if device:
                gpu = int(device.group(1))
                if (model := _MODEL.search(text)) is not None and not text.lstrip().startswith("#"):
                    yield fact(doc, line, "gpu.name", model.group(1).strip(), gpu=gpu)
                if (driver := re.search(r"\bdriver[ =:]+(\d{3}\.[\d.]+)", text)) is not None:
                    yield fact(doc, line, "version", driver.group(1), label="driver")
            elif not text.strip():
                gpu = None
            links = list(_LINK.finditer(text))
            if links:
                yield from self._links(doc, line, gpu if device or text[:1].isspace() else None, links, header)
            yield from self._lanes(doc, line, gpu)
            if re.search(r"power|limit|watt|\bPOW\b|\bcap", text, re.I):
                for pattern, signal in _WATTS:
                    if (hit := pattern.search(text)) is not None and float(hit.group(1)) >= 20:
                        yield fact(doc, line, signal, float(hit.group(1)), "W", gpu=gpu)
            cells = in_cells(text)
            if cells and not links and not any(ch.isdecimal() for ch in "".join(cells[1:])):
                header = cells

    def _links(
        self, doc: Document, line: Line, gpu: int | None, links: list[re.Match[str]], header: list[str]
    ) -> Iterator[Fact]:
        text = line.text
        plain = [m for m in links if not _MAXISH.search(text[: m.start()])]
        for hit in links:
            own = gpu
            before = list(_DEVICE.finditer(text[: hit.start()]))
            if before:
                own = int(before[-1].group(1))
            top = hit not in plain
            label = None
            if len(plain) > 1 and not top:
                columns = header[-len(plain) :] if len(header) >= len(plain) else []
                at = plain.index(hit)
                label = columns[at] if columns else f"column {at + 1}"
                if len(before) == len(plain):
                    label = None
            gen, lanes = hit.group("a") or hit.group("b"), hit.group("c") or hit.group("d")
            end = ".max" if top else ""
            yield fact(doc, line, f"gpu.pcie.gen{end}", float(gen), "count", gpu=own, label=label)
            yield fact(doc, line, f"gpu.pcie.width{end}", float(lanes), "count", gpu=own, label=label)

    def _lanes(self, doc: Document, line: Line, gpu: int | None) -> Iterator[Fact]:
        text = line.text
        now = _LANES.search(text)
        if now is None or not re.search(r"pci|lanes|link", text, re.I):
            return
        lanes = float(now.group("now") or now.group("now2"))
        if lanes not in (1, 2, 4, 8, 16, 32):
            return
        yield fact(doc, line, "gpu.pcie.width", lanes, "count", gpu=gpu)
        if (top := _LANES_MAX.search(text)) is not None:
            yield fact(doc, line, "gpu.pcie.width.max", float(top.group(1)), "count", gpu=gpu)
        if (gen := _GEN_MAX.search(text)) is not None:
            yield fact(doc, line, "gpu.pcie.gen.max", float(gen.group(1)), "count", gpu=gpu)


READERS: list[Reader] = [TableReader(), ListReader()]
