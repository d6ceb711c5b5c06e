"""Notes about processes: where a rank's stack stands, which CPUs all ranks share, how a cache of kernels grows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, divided, excerpt, fact

_SMALL = 1 << 17
_LINES = 1000
_OF_RANK = regex(
    r"(?:py-?spy|stack|traceback|gdb|where|堆栈)[^\n]{0,60}?\brank[ _#:=]?(?P<a>\d+)\b|^\W*\[?rank[ _#:=]?(?P<b>\d+)\]?\W{0,4}(?:\([^)]*\)|stack|py-?spy|is in|at)?\W*$",  # noqa: E501
    re.IGNORECASE,
)
_FRAME = regex(r"^\s*(?:File \")?[\w<>.]+\"? ?(?:\(|, line)[^\n]*|^\s+[\w<>.]+ \([\w./<>-]+\.pyx?:?\d*\).*$")
_COLLECTIVE = regex(
    r"all_?reduce|all_?gather|reduce_scatter|\bbarrier\b|broadcast|all_?to_?all|nccl|\.wait\(|_wait\b|synchronize|c10d|work\.wait",
    re.IGNORECASE,
)
_HOST_WORK = regex(
    r"\b(?:generate|run_eval|evaluat\w*|eval_\w+|validat\w*|save_\w+|_save\w*|torch\.save|save|dump|serialize\w*|upload\w*|download\w*|wandb\w*"
    r"|tokeni[sz]\w*|read\w*|load_\w+|_load\w*|open|recv|sleep|gc_collect|collect|decode_\w+|plot\w*|log_\w+|compute_metrics|boto\w*|push_to_hub)\b",
    re.IGNORECASE,
)
_REACH = 14


class RankStacks:
    """The stack of one rank, when none of its frames is a collective."""

    name = "rank_stack"
    needles: tuple[bytes, ...] = (b"py-spy", b"stack", b"rank", b"Rank", b"gdb", "堆栈".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rank.stack_elsewhere`, whose value is the frame that works."""
        lines = excerpt(doc, _SMALL, _LINES)
        for n, line in enumerate(lines):
            hit = _OF_RANK.search(line.prefix + line.text)
            if hit is None:
                continue
            frames: list[Line] = []
            for other in lines[n + 1 : n + 1 + _REACH]:
                if _OF_RANK.search(other.prefix + other.text):
                    break
                if _FRAME.match(other.text):
                    frames.append(other)
            busy = next((f for f in frames if _HOST_WORK.search(f.text.split("#")[0])), None)
            if busy is None or any(_COLLECTIVE.search(f.text.split("#")[0]) for f in frames):
                continue
            rank = int(hit["a"] or hit["b"])
            yield fact(doc, busy, "rank.stack_elsewhere", busy.text.split("#")[0].strip()[:100], rank=rank)


_LIST = regex(
    r"^\s*(?P<n>\d{1,4})?\s*(?:pid \S+'s )?(?:current )?(?:cpu )?affinity list:\s*(?P<list>[\d,-]+)\s*$|Cpus_allowed_list:\s*(?P<all>[\d,-]+)\s*$",  # noqa: E501
    re.IGNORECASE,
)
_GPU_ROW = regex(r"^\W*GPU ?(?P<gpu>\d+)\b[^\n]*?\s(?P<cpus>\d+-\d+(?:,\d+-\d+)*)\s+(?P<node>\d)(?:\s+N/A)?\s*$")


class PinnedRanks:
    """Processes with one list of CPUs, and rows of `topo -m` whose cells were cut out."""

    name = "pinned_ranks"
    needles: tuple[bytes, ...] = (b"affinity list", b"Cpus_allowed_list", b"CPU Affinity")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.pinned_processes` for each list; CPUs and node of GPUs where the matrix is not whole."""
        lines = excerpt(doc, _SMALL, _LINES)
        if not lines:
            return
        lists: dict[str, list[tuple[int, Line]]] = {}
        cut = b"..." in doc.data or "…".encode() in doc.data
        for line in lines:
            text = line.prefix + line.text
            if (hit := _LIST.search(text)) is not None:
                lists.setdefault(hit["list"] or hit["all"], []).append((int(hit["n"] or 1), line))
            elif cut and (row := _GPU_ROW.match(text)) is not None:
                yield fact(doc, line, "topo.cpu_affinity", row["cpus"], gpu=int(row["gpu"]))
                yield fact(doc, line, "gpu.numa", float(row["node"]), "count", gpu=int(row["gpu"]))
        for cpus, found in lists.items():
            yield Fact(
                "host.pinned_processes", float(sum(n for n, _ in found)), "count", Subject(label=cpus),
                tuple(doc.span(at) for _, at in found[:3]), kind="derived", formula="reader:pinned_ranks",
                status=doc.status,
            )  # fmt: skip


_CACHE = regex(
    r"\.triton|triton[ _/-]?cache|torchinductor|inductor[ _/-]?cache|nvrtc|jit[ _-]?cache|kernel[ _-]?cache|ComputeCache|compiled (?:kernels|graphs)|cubins?\b|编译缓存",  # noqa: E501
    re.IGNORECASE,
)
_COUNTED = regex(r"(?<![\w.:/-])(\d[\d,]*)(?![\w.:/%-])")
_STEPS = regex(
    r"(?:after|at|step|iter\w*|epoch|第)\s*(?:step|iter\w*|epoch)?\s*\d[\d,]*\s*(?:steps?|iters?|min|步)?",
    re.IGNORECASE,
)


class CacheGrowth:
    """How many compiled kernels a cache holds, at moments told on one line."""

    name = "cache_growth"
    needles: tuple[bytes, ...] = (b"triton", b"cache", b"Cache", b"nductor", b"compiled", b"cubin", "缓存".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`train.cache_growth`: the last count over the first."""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _CACHE.search(text) is None:
                continue
            counts = _COUNTED.findall(_STEPS.sub(" ", text))
            values = [amount(c) for c in counts]
            if len(values) < 2 or values != sorted(values) or values[0] <= 0 or values[-1] < 3 * values[0]:
                continue
            last, first = (
                fact(doc, line, "train.cache_entries", v, "count", label=name)
                for v, name in ((values[-1], "last"), (values[0], "first"))
            )
            yield divided("train.cache_growth", (last, first), spans=(doc.span(line),))
            return


READERS: list[Reader] = [RankStacks(), PinnedRanks(), CacheGrowth()]
