"""Things that move: running requests that go back to the queue, revisions of a deployment; AMD's LDS counters."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import pairwise

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact

_STATE = (
    regex(
        r"Running: (?P<run>\d+) reqs?,(?: Swapped: \d+ reqs?,)? (?:Waiting|Pending): (?P<wait>\d+) reqs?,[^\n]*?"
        r"KV cache usage: (?P<kv>\d+(?:\.\d+)?)%"
    ),
    regex(r"#running-req: (?P<run>\d+)[^\n]*?token usage: (?P<use>[01](?:\.\d+)?)[^\n]*?#queue-req: (?P<wait>\d+)"),
)
_FULL = 0.95
_LARGEST = 16 << 20


class MovedBackReader:
    """`serving.moved_back`: running falls by a fifth, waiting rises by as much, and the cache stays full.

    A request that ends gives its blocks back and lets another in, so that a cache which stays full with fewer requests
    was taken by those that remain.
    """

    name = "moved_back"
    needles: tuple[bytes, ...] = (b"KV cache usage:", b"#queue-req")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Counted over a log, quoted where it happens first."""
        if doc.size > _LARGEST:
            return
        before: tuple[int, int] | None = None
        times, first = 0, None
        for line in doc.holding("Running: ", "#running-req"):
            hit = next((h for p in _STATE if (h := p.search(line.text))), None)
            if hit is None:
                continue
            has = hit.groupdict()
            run, wait = int(has["run"]), int(has["wait"])
            full = float(has["kv"]) / 100 if has.get("kv") else float(has.get("use") or 0)
            if full < _FULL:
                before = None
                continue
            if before is not None:
                fell, rose = before[0] - run, wait - before[1]
                if fell >= max(4, 0.2 * before[0]) and rose >= 0.7 * fell:
                    times, first = times + 1, first or line
            before = (run, wait)
        if first is not None:
            yield computed(doc, first, "serving.moved_back", float(times), "count", self.name)


_PREEMPTED = regex(r"\bpreempt(?:ed|ions?)\w*(?:[ _]total)?\s*[=: ]\s*(?P<n>\d[\d,]*)\b(?!\.\d|\s*%)", re.I)
_BLOCKS = regex(r"\b(?:kv|cache)\b[^\n]{0,16}?\bblocks?\b[^\n\d]{0,24}(?P<a>\d{2,})\s*/\s*(?P<b>\d{2,})\b", re.I)
_PAUSED = regex(r"\bpaused(?:_req\w*)?\s*[=:]\s*(?P<n>\d+)\b", re.I)
_USED = regex(r"\bkv[_ ](?:cache[_ ])?(?:used?|usage|util\w*)\s*[=:]\s*(?P<v>\d+(?:\.\d+)?)\s*%", re.I)


class PressureLineReader:
    """Rows that people type of a server under pressure: preempted so far, blocks in use of all, paused requests."""

    name = "pressure_lines"
    needles: tuple[bytes, ...] = (b"reempt", b"paused", b"blocks", b"kv_us")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Growth from the first to the last line; the fullest cache; the most paused."""
        counts: list[tuple[float, Line]] = []
        used: list[tuple[float, Line]] = []
        paused: list[tuple[float, Line, str]] = []
        for line in excerpt(doc, 64 << 10):
            text = line.prefix + line.text
            if hit := _PREEMPTED.search(text):
                counts.append((amount(hit["n"]), line))
            if (hit := _BLOCKS.search(text)) and 0 < float(hit["b"]) >= float(hit["a"]):
                used.append((float(hit["a"]) / float(hit["b"]), line))
            if hit := _USED.search(text):
                used.append((float(hit["v"]) / 100, line))
            if (hit := _PAUSED.search(text)) and re.search(r"\b(?:kv|iter|queue|active|running)", text):
                paused.append((float(hit["n"]), line, hit.group()))
        rising = len(counts) >= 2 and all(a[0] <= b[0] for a, b in pairwise(counts))
        if rising and counts[-1][0] > counts[0][0]:
            grown = counts[-1][0] - counts[0][0]
            yield computed(doc, counts[-1][1], "serving.preempted_growth", grown, "count", self.name)
        if used and (counts or paused):
            most = max(used, key=lambda u: u[0])
            yield computed(doc, most[1], "serving.kv_usage", round(most[0], 4), "fraction", self.name, label="peak")
        if paused:
            number, at, around = max(paused, key=lambda p: p[0])
            yield fact(doc, at, "serving.paused", number, "count", around=around)


_HISTORY = regex(r"^REVISION\s+CHANGE-CAUSE\s*$")
_REVISION = regex(r"^\s*(?P<rev>\d{1,4})\s+\S.*?(?P<image>[\w./-]+:v?\d[\w.+-]*)")


class RolloutReader:
    """`rollout.image`: which image each revision of `kubectl rollout history` runs."""

    name = "rollout"
    needles: tuple[bytes, ...] = (b"CHANGE-CAUSE",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rows under the head."""
        inside = False
        for line in doc.lines():
            if _HISTORY.match(line.text):
                inside = True
            elif inside and (hit := _REVISION.match(line.text)):
                yield fact(doc, line, "rollout.image", hit["image"], around=hit["image"], label=hit["rev"])
            else:
                inside = inside and bool(line.text.strip())


_IMAGE = regex(
    r"[\w.-]+/(?P<engine>lmdeploy|text-generation-inference|tensorrt-?llm\w*|tritonserver):v?(?P<number>\d+\.\d+(?:\.\w+)*)"
)
_ENGINE = {"text-generation-inference": "tgi", "lmdeploy": "lmdeploy", "tritonserver": "triton-server"}


class ImageReader:
    """`version` of an engine by the tag of its image."""

    name = "image_tag"
    needles: tuple[bytes, ...] = (b"lmdeploy:", b"text-generation-inference:", b"llm:", b"tritonserver:")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Each tag once."""
        seen: set[str] = set()
        for line in doc.holding("lmdeploy:", "inference:", "llm:", "tritonserver:"):
            for hit in _IMAGE.finditer(line.text):
                if hit.group() not in seen:
                    seen.add(hit.group())
                    label = _ENGINE.get(hit["engine"], "tensorrt-llm")
                    yield fact(doc, line, "version", hit["number"], around=hit["number"], label=label)


_LDS = regex(r"LDSBankConflict|LDS[ _]Bank[ _]Conflict", re.I)
_LDS_ROW = regex(r"(?:LDS ?Bank ?Conflicts?|Bank Conflict Rate)\W+(?P<v>\d+(?:\.\d+)?)[\s|]*(?:%|pct)", re.I)


class LdsReader:
    """`kernel.lds_conflict` of rocprof's CSV (a percentage of GPU time) or of a line with the same name and a share."""

    name = "lds"
    needles: tuple[bytes, ...] = (
        b"LDSBankConflict",
        b"SQ_LDS_BANK_CONFLICT",
        b"LDS Bank Conflict",
        b"LDS bank conflict",
        b"Bank Conflict Rate",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Derived percentage, or conflict cycles over active cycles."""
        head: list[str] = []
        for line in doc.lines():
            if "," in line.text and (_LDS.search(line.text) or "SQ_LDS_BANK_CONFLICT" in line.text):
                head = self._cells(doc, line)
            elif head and "," in line.text:
                yield from self._row(doc, line, dict(zip(head, self._cells(doc, line), strict=False)))
            elif hit := _LDS_ROW.search(line.text):
                yield fact(doc, line, "kernel.lds_conflict", float(hit["v"]) / 100, "fraction", around=hit["v"])

    @staticmethod
    def _cells(doc: Document, line: Line) -> list[str]:
        try:
            return [c.strip() for c in next(csv.reader([line.text], strict=True), [])]
        except csv.Error:
            doc.lines_skipped += 1
            return []

    def _row(self, doc: Document, line: Line, row: dict[str, str]) -> Iterator[Fact]:
        values = {k: float(v) for k, v in row.items() if re.fullmatch(r"\d+(?:\.\d+)?", v)}
        name = row.get("KernelName") or row.get("Kernel_Name") or next(iter(row.values()), "")
        direct = next((v for k, v in values.items() if _LDS.search(k)), None)
        if direct is not None:
            yield computed(doc, line, "kernel.lds_conflict", direct / 100, "fraction", self.name, label=name[:60])
        elif "SQ_LDS_BANK_CONFLICT" in values and values.get("SQ_LDS_IDX_ACTIVE", 0) > 0:
            share = values["SQ_LDS_BANK_CONFLICT"] / values["SQ_LDS_IDX_ACTIVE"]
            yield computed(doc, line, "kernel.lds_conflict", round(share, 4), "fraction", self.name, label=name[:60])


_WAVES = regex(r"L1 Wavefronts Shared(?: (?P<what>Ideal|Excessive))?")


_SAID = regex(r"^\W*Shared Memory (?P<what>Bank Conflicts|Wavefronts)\W+(?P<n>\d[\d,]*)\s*$", re.I)
_MEMORY_HEAD = regex(r"\bRequests\s+Wavefronts\s+%\s*Peak\s+Bank Conflicts\s*$")
_MEMORY_ROW = regex(r"^\s*(?P<what>Shared (?:Load|Store|Atomic)\w*(?: Matrix)?|Other|Total)\s+(?P<rest>\d.*)$")


class WavefrontReader:
    """`kernel.excess_wavefronts` of a source view: wavefronts of shared memory beside the ideal ones, line by line."""

    name = "wavefront_rows"
    needles: tuple[bytes, ...] = (b"L1 Wavefronts Shared", b"Bank Conflicts")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The columns stand last in the head and in the rows."""
        names: list[str] = []
        sums: dict[str, float] = {}
        first: Line | None = None
        inside = False
        said: dict[str, tuple[float, Line]] = {}
        for line in doc.lines():
            if hit := _SAID.match(line.text):
                said[hit["what"][:4].lower()] = amount(hit["n"]), line
            if _MEMORY_HEAD.search(line.text):
                inside = True
            elif inside and (hit := _MEMORY_ROW.match(line.text)):
                cells = [amount(c) for c in re.findall(r"\d[\d,]*(?:\.\d+)?", hit["rest"])]
                if len(cells) == 5 and cells[2] >= cells[4] and cells[2] > 0 and hit["what"] == "Total":
                    share = round(cells[4] / cells[2], 4)
                    yield computed(doc, line, "kernel.excess_wavefronts", share, "fraction", self.name)
            else:
                inside = inside and bool(line.text.strip())
            found = [h["what"] or "all" for h in _WAVES.finditer(line.text)]
            if len(found) >= 2 and line.text.rstrip().endswith(("Shared", "Ideal", "Excessive")):
                names = found
                continue
            values = re.findall(r"(?<![\w.])\d[\d,]*(?![\w.])", line.text)[-len(names) :] if names else []
            if names and len(values) == len(names):
                row = {n: amount(v) for n, v in zip(names, values, strict=True)}
                for key, value in row.items():
                    sums[key] = sums.get(key, 0.0) + value
                first = line if first is None and row.get("all", 0) > 0 else first
        if len(said) == 2 and said["wave"][0] >= said["bank"][0] > 0:
            share = round(said["bank"][0] / said["wave"][0], 4)
            yield computed(doc, said["bank"][1], "kernel.excess_wavefronts", share, "fraction", self.name)
        ideal = sums.get("Ideal", sums.get("all", 0.0) - sums.get("Excessive", 0.0))
        if first is not None and sums.get("all", 0) > 0 and ideal > 0:
            share = round(1 - ideal / sums["all"], 4)
            yield computed(doc, first, "kernel.excess_wavefronts", max(share, 0.0), "fraction", self.name)


_PAIR = regex(
    r"\bGPU ?(?P<a>\d{1,2}) ?(?:-|–|/|,|&|<->|↔|to) ?GPU ?(?P<b>\d{1,2})"
    r" ?[:=]? ?(?P<path>NV\d{1,2}|PIX|PXB|PHB|NODE|SYS)\b"
)
_SET = regex(r"[{(\[](?P<a>\d{1,2}), ?(?P<b>\d{1,2})[})\]] ?[:=]? ?(?P<v>\d+(?:\.\d+)?) ?GB/s")


class PairPathReader:
    """`topo.link` of pairs that are named in a line, and `path.bandwidth` of sets of two whose path is so known."""

    name = "pair_paths"
    needles: tuple[bytes, ...] = (
        b"GPU0-GPU",
        b"GPU1-GPU",
        b"GPU0 - ",
        b"GPU 0-GPU",
        b"GPU0/GPU",
        b"GPU0,GPU",
        b"GPU0 <->",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The pairs first: a rate may stand above them."""
        lines = excerpt(doc, 64 << 10)
        paths: dict[frozenset[int], str] = {}
        for line in lines:
            for hit in _PAIR.finditer(line.text):
                a, b = int(hit["a"]), int(hit["b"])
                paths[frozenset((a, b))] = hit["path"]
                yield fact(doc, line, "topo.link", hit["path"], around=hit.group(), gpu=a, peer=b)
        for line in lines if paths else ():
            for hit in _SET.finditer(line.text):
                path = paths.get(frozenset((int(hit["a"]), int(hit["b"]))))
                if path is not None:
                    label = f"{path} {hit['a']},{hit['b']}"
                    yield fact(doc, line, "path.bandwidth", float(hit["v"]), "GB/s", around=hit.group(), label=label)


_SHARED = regex(r"__shared__\s+[\w:<>]+\s+(?P<name>\w+)(?P<lead>(?:\[[^\]]+\])*)\[(?P<last>[^\]]+)\]\s*;")
_TAKES = regex(r"(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|us|µs)\b")
_PAD = regex(
    r"(?:smem|shared|tile)\b[^\n]{0,20}\bPAD(?:DING)?\s*[=: ]\s*(?P<pad>\d{1,2})\b"
    r"|\bsmem_pad\s*[=: ]\s*(?P<pad2>\d{1,2})\b",
    re.I,
)


_INDEXED = regex(
    r"\b(?:smem|shared|tile|s_\w+|sh_\w+|\w+_s|As|Bs)\[(?P<index>[^\]\n]*(?:row|col|threadIdx|lane|tid|ty|tx)[^\]\n]*)\]"
)


class PadReader:
    """`kernel.pad_gain`: the same shared array with and without a few elements more a row, and a time for each."""

    name = "shared_pad"
    needles: tuple[bytes, ...] = (b"__shared__", b"PAD", b"pad", b"^")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The time stands in the declaration's line or in one of the four below it."""
        seen: dict[bool, tuple[float, Line]] = {}
        kind: bool | None = None
        since = 0
        for line in excerpt(doc, 256 << 10):
            text = line.prefix + line.text
            if hit := _SHARED.search(text):
                kind, since = self._padded(hit["last"]), 0
            elif hit := _PAD.search(text):
                kind, since = int(hit["pad"] or hit["pad2"]) > 0, 0
            since += 1
            took = _TAKES.search(text)
            if took and (at := _INDEXED.search(text)):
                kind, since = "^" in at["index"], 0
            if kind is not None and took and since <= 5 and float(took["v"]) > 0:
                value = float(took["v"]) * (1e3 if took["u"] == "ms" else 1)
                seen.setdefault(kind, (value, line))
                kind = None
        if len(seen) == 2:
            plain, padded = seen[False], seen[True]
            gain = round(plain[0] / padded[0], 3)
            yield computed(doc, padded[1], "kernel.pad_gain", gain, "count", self.name)

    @staticmethod
    def _padded(last: str) -> bool:
        return bool(
            re.search(r"\+\s*(?:\d{1,2}|PAD\w*)\s*$", last) or (last.strip().isdigit() and int(last) % 8 in (1, 2, 4))
        )


READERS: list[Reader] = [
    MovedBackReader(),
    PressureLineReader(),
    RolloutReader(),
    ImageReader(),
    LdsReader(),
    PadReader(),
    WavefrontReader(),
    PairPathReader(),
]
