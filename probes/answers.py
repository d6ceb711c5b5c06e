"""What an interpreter answered, memory nodes without CPUs, and how long work takes by how many share a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact, in_cells

_SMALL = 1 << 16
_LINES = 1000
_ASKED = regex(r"^\s*(?:>>>|In \[\d+\]:|\$ python\d? -c .*print\()\s*(?P<what>\S.*)$")
_CALL = regex(
    r"[\w.]*\b(is_nccl_available|is_gloo_available|is_mpi_available|is_ucc_available|mem_get_info|utilization)\(\d?\)"
)
_OUT = regex(r"^\s*(?:Out\[\d+\]:\s*)?\(?(?P<cells>(?:True|False|\d+)(?:\s*,\s*(?:True|False|\d+))*)\)?\s*$")


class InterpreterAnswers:
    """`>>> torch.cuda.mem_get_info()` and the line below it."""

    name = "interpreter_answers"
    needles: tuple[bytes, ...] = (b"_available()", b"mem_get_info", b"utilization(")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`env.component` of what a build says to hold; `gpu.memory.used` and `gpu.util` as the device reports them."""
        asked: list[str] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (question := _ASKED.match(text)) is not None:
                asked = [hit[1] for hit in _CALL.finditer(question["what"])]
                continue
            answer = _OUT.match(text) if asked else None
            if answer is not None:
                yield from self._answered(doc, line, asked, re.split(r"\s*,\s*", answer["cells"]))
            asked = []

    def _answered(self, doc: Document, line: Line, asked: list[str], cells: list[str]) -> Iterator[Fact]:
        if asked == ["mem_get_info"] and len(cells) == 2 and cells[1].isdigit():
            free, total = int(cells[0]), int(cells[1])
            if 0 <= free <= total:
                yield computed(doc, line, "gpu.memory.used", (total - free) / 2**30, "GiB", self.name)
        elif asked == ["utilization"] and len(cells) == 1 and cells[0].isdigit() and int(cells[0]) <= 100:
            yield computed(doc, line, "gpu.util", int(cells[0]) / 100, "fraction", self.name)
        elif len(asked) == len(cells):
            for name, value in zip(asked, cells, strict=True):
                if name.startswith("is_") and value in ("True", "False"):
                    yield fact(doc, line, "env.component", value.lower(), label=name[3:].removesuffix("_available"))


_COUNTED = regex(
    r"(?:\bpgrep\b|\bps (?:-?aux|-ef)\b|query-compute-apps|\bsqueue -u|fuser)[^\n]*(?:\bwc -l|grep -c\b|pgrep -c)"
    r"|\bpgrep -c\b"
)
_PLAIN = regex(r"^\s*(\d{1,4})\s*$")
_PROMPT = regex(r"^\s*(?:[\w.@:~-]+)?[$#>] ?\S|^\S+@\S+[#$]")


class CountedProcesses:
    """`pgrep -u kim python | wc -l` and the number below it."""

    name = "counted_processes"
    needles: tuple[bytes, ...] = (b"pgrep", b"ps aux", b"ps -ef", b"query-compute-apps", b"squeue -u", b"fuser")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.own_processes`."""
        left = 0
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if _COUNTED.search(text):
                left = 2
            elif left and (number := _PLAIN.match(text)) is not None:
                yield fact(doc, line, "host.own_processes", float(number[1]), "count")
                left = 0
            else:
                left = 0 if _PROMPT.match(text) else max(0, left - 1)


_POLICY = regex(
    r"\bnumactl\b[^\n]*?\s(?:--interleave|-i|--preferred(?:-many)?|-p|-P|--membind|-m)[= ]\s*(?P<a>all|\d+(?:[,-]\d+)*)"
    r"|Mems_allowed_list:\s*(?P<b>\d+(?:[,-]\d+)*)|\bcpuset\.mems(?:\.effective)?\b\W+(?P<c>\d+(?:[,-]\d+)*)"
    r"|\bset_mempolicy\(MPOL_(?:INTERLEAVE|PREFERRED|BIND)[^\n]*?\[?(?P<d>\d+(?:,\d+)*)\]?"
)
_LIST = regex(r"^\s*(\d+(?:[,-]\d+)*)\s*$")
_NO_CPUS = regex(
    r"\bnode (?P<a>\d+) cpus:\s*$|\bNUMA node(?P<b>\d+) CPU\(s\):\s*$"
    r"|\bnode ?(?P<c>\d+)\b[^\n]*(?:no cpus?\b|without cpus?|HBM|GPU memory|显存|无 ?CPU)", re.I,
)  # fmt: skip
_HELD = regex(
    r"(?<![\w])(?:N|node ?)(?P<node>\d+)\s*[=: ]\s*(?P<size>\d[\d,]*(?:\.\d+)?)(?!\s*[-,]\s*\d)(?![\d.])(?! cpus)"
    r"(?:\s*(?:[KMG]i?B|pages))?", re.I,
)  # fmt: skip
_RATE_OF = regex(
    r"(?<![\w])(?:-i|--interleave|interleave|-m|--membind|membind|--preferred|preferred|-p)[ =](?P<nodes>all|\d+(?:[,-]\d+)*)"  # noqa: E501
    r"\s*[:：,)]?\s+(?P<rate>\d+(?:\.\d+)?)(?![\w.]*[-,]\d)"
)
_HOLDING = regex(r"numastat|numa_maps|^\s*N\d", re.I)
_NODES_HEAD = regex(r"^\s*(?:Node \d+\s*){2,}(?:Total)?\s*$")


class GpuMemoryNodes:
    """Memory nodes without CPUs (the GPU's own memory on coherent machines) and a policy that puts pages there."""

    name = "gpu_memory_nodes"
    needles: tuple[bytes, ...] = (
        b"numactl",
        b"Mems_allowed",
        b"cpuset.mems",
        b"numa_maps",
        b"numastat",
        b"set_mempolicy",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.numa.without_cpus`, `host.numa.policy` (its nodes) and `host.numa.held` of each node."""
        nodes: list[str] = []
        holding = asked = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (bare := _NO_CPUS.search(text)) is not None:
                yield fact(doc, line, "host.numa.without_cpus", bare["a"] or bare["b"] or bare["c"])
            if asked and (number := _LIST.match(text)) is not None:
                yield fact(doc, line, "host.numa.policy", number[1])
            asked = "cpuset.mems" in text
            if (policy := _POLICY.search(text)) is not None:
                yield fact(doc, line, "host.numa.policy", next(g for g in policy.groups() if g))
            for told in _RATE_OF.finditer(text):
                yield fact(doc, line, "host.numa.rate", float(told["rate"]), "count", label=told["nodes"])
            holding = holding or _HOLDING.search(text) is not None
            if _NODES_HEAD.match(text):
                nodes = re.findall(r"Node (\d+)", text)
                continue
            if nodes and re.match(r"\s*(?:Total|Private|Heap)\b", text):
                values = re.findall(r"\d[\d,]*(?:\.\d+)?", text)
                if text.lstrip().startswith("Total"):
                    for node, size in zip(nodes, values, strict=False):
                        yield fact(doc, line, "host.numa.held", amount(size), "count", label=node)
                continue
            if holding and "cpus" not in text and " size" not in text:
                for hit in _HELD.finditer(text):
                    yield fact(doc, line, "host.numa.held", amount(hit["size"]), "count", label=hit["node"])


_SHARERS = regex(
    r"(?P<who>trials?|users?|jobs?|pods?|notebooks?|tenants?|processes|procs|containers?|runs?|students?|clients on|people|任务数?|用户数?|进程数?)"  # noqa: E501
    r"\b[^\n|]{0,24}?\b(?:on|per|sharing|using|share)\b[^\n|]{0,12}?\b(?:gpus?|cards?|devices?|A100|H100|cuda)"
    r"|同卡|同一张卡|共享(?:同一)?(?:GPU|卡)", re.I,
)  # fmt: skip
_GPU_SAID = regex(r"cuda:0|one gpu|same gpu|same card|single gpu|\bgpu ?0\b|同一张卡", re.I)
_N_JOBS = regex(
    r"^\W*(?:n_jobs|jobs|trials|users|concurrent\w*|workers on gpu)\s*[=:]\s*(?P<n>\d{1,2})\W+(?P<t>\d+(?:\.\d+)?)\s*(?P<u>ms|s|min|h)\b",  # noqa: E501
    re.I,
)
_TOLD = regex(
    r"(?<![\w.:])(?P<n>\d{1,2}) (?:other )?(?:trials?|users?|jobs?|pods?|notebooks?|tenants?|processes|containers?|runs?|students?)"  # noqa: E501
    r" (?:on|share|sharing|using) (?:the |one |this |a )?(?:same )?(?:gpu|card|device|A100|H100)\b\D{1,24}?(?P<t>\d+(?:\.\d+)?)\s*(?:ms|s|sec|min|h)\b",  # noqa: E501
    re.I,
)
_SERVER = regex(
    r"vllm|sglang|trt-?llm|triton server|\btokens?\b|tok/s|\bttft\b|\brequests?\b|\bqps\b", re.I
)  # one engine, many users
_EACH = regex(
    r"(?:it|iter|step|sample|img|image|batch)\w*/s\b.*\b(?:per|each|a)\b|\b(?:per|each)\b.*(?:it|step|sample|img|batch)\w*/s\b",
    re.I,
)
_TIME_HEAD = regex(r"\b(?:s|sec\w*|ms|min\w*|hours?|h|time|epoch|step|latency|duration)\b|耗时|时间|秒|分钟", re.I)
_RATE_HEAD = regex(r"/s\b(?!/)|per sec|throughput|tok|samples|吞吐", re.I)
_NUMBER = regex(r"^\d+(?:\.\d+)?(?:\s*(?:ms|s|min|h))?$")


class CoTenants:
    """A table of how many trials, users or pods share a GPU, and how long each takes."""

    name = "co_tenants"
    needles: tuple[bytes, ...] = (b"gpu", b"GPU", b"card", b"cuda", "卡".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.tenants_scaling`: growth of the time over growth of the number, from fewest to most."""
        lines = excerpt(doc, _SMALL, _LINES)
        if not lines or _SERVER.search(doc.data.decode("utf-8", "replace")):
            return
        rows: dict[int, tuple[float, Line]] = {}
        noted: dict[int, tuple[float, Line]] = {}
        prose: dict[int, tuple[float, Line]] = {}
        rates = False
        columns: tuple[int, int] | None = None
        said = _GPU_SAID.search(doc.data.decode("utf-8", "replace")) is not None
        for line in lines:
            text = line.prefix + line.text
            if (told := _TOLD.search(text)) is not None:
                prose.setdefault(int(told["n"]), (float(told["t"]), line))
            if (hit := _N_JOBS.match(text)) is not None:
                noted.setdefault(int(hit["n"]), (float(hit["t"]), line))
                continue
            cells = in_cells(text)
            if _SHARERS.search(text) and len(cells) >= 2 and not any(_NUMBER.match(c) for c in cells):
                who = next((k for k, c in enumerate(cells) if _SHARERS.search(c)), None)
                times = [
                    k for k, c in enumerate(cells) if k != who and _TIME_HEAD.search(c) and not _RATE_HEAD.search(c)
                ]
                each = [k for k, c in enumerate(cells) if k != who and _EACH.search(c)]
                rates = not times and bool(each)
                columns = (who, (times or each)[-1]) if who is not None and (times or each) else None
                continue
            if columns is None or len(cells) <= max(columns):
                continue
            n, took = (cells[k] for k in columns)
            if re.fullmatch(r"\d{1,2}", n) and _NUMBER.match(took):
                rows.setdefault(int(n), (float(re.split(r"[^\d.]", took)[0]), line))
        for found in (rows, prose, noted if said else {}):
            yield from self._scaling(doc, found, rates and found is rows)

    @staticmethod
    def _scaling(doc: Document, rows: dict[int, tuple[float, Line]], rates: bool) -> Iterator[Fact]:
        few, many = min(rows, default=0), max(rows, default=0)
        slow, fast = (few, many) if rates else (many, few)
        if few < 1 or many < 2 * few or rows[fast][0] <= 0:
            return
        a, b = (
            fact(doc, rows[n][1], "gpu.tenants_time", rows[n][0], "count", label=f"{n} share") for n in (slow, fast)
        )
        c, d = (fact(doc, rows[n][1], "gpu.tenants", float(n), "count", label=f"{n} share") for n in (many, few))
        yield from (a, b, c, d)
        yield Fact(
            "gpu.tenants_scaling", (rows[slow][0] / rows[fast][0]) / (many / few), "count", Subject(), kind="derived",
            formula="(a / b) / (c / d)", inputs=(a, b, c, d), status=doc.status,
        )  # fmt: skip


READERS: list[Reader] = [InterpreterAnswers(), CountedProcesses(), GpuMemoryNodes(), CoTenants()]
