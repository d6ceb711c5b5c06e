"""Things that come in several and should be alike: ports of a host, limits of two shells, processes of one job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import computed, divided, excerpt, fact

_LINES = 2000
_SMALL = 1 << 16
_PORT = regex(
    r"(?<![\w./])(?P<nic>(?:mlx[45]_(?:bond_)?\d+|ib\d|hfi1_\d+|bnxt_re\d+|irdma\d+|rocep?\w*\d|ens\w+|enp\w+)(?:/\d)?)"
    r"\b(?P<rest>.*)$"
)
_RATE = regex(r"\brate:?\s+(?P<rate>\d{2,3})\b(?!\s?%)", re.IGNORECASE)
_WIDTH = regex(r"\b(?P<width>1|2|4|8|12)X\s?(?:[SDQFEHNX]DR(?:10)?\b|\s\d+(?:\.\d+)? Gbps)", re.IGNORECASE)


class PortSiblings:
    """Rate and width of ports that are listed one a line by their names."""

    name = "port_siblings"
    needles: tuple[bytes, ...] = (b"Rate", b"rate", b"DR)", b"X NDR", b"X HDR", b"X EDR", b"X  ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rdma.port.rate` and `rdma.port.width`."""
        host = None
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            port = _PORT.search(text)
            if port is None:
                head = re.match(r"^\W*(?:node|host)?[ :=]*([a-z][\w-]*\d+)\s*[:：]?\s*$", text, re.IGNORECASE)
                host = head[1] if head else host
                continue
            rate, width = _RATE.search(port["rest"]), _WIDTH.search(port["rest"])
            who = {"nic": port["nic"], "host": host}
            if rate is not None:
                yield fact(doc, line, "rdma.port.rate", float(rate["rate"]), "Gb/s", **who)
            if width is not None:
                yield fact(doc, line, "rdma.port.width", float(width["width"]), "count", **who)


_ASKED = regex(r"\bulimit\b(?:\s+-[HS])*\s+-(?P<which>[a-z])\b")
_ANSWER = regex(r"^\s*(?P<value>unlimited|infinity|\d{1,20})\s*(?P<unit>kbytes|kB|KiB|bytes)?\s*(?:#.*)?$")
_SAID = regex(
    r"(?:max )?locked[ -]?memory\b[^\d\n]{0,40}?(?P<value>unlimited|infinity|\d{1,20})\b\s*(?:\S+\s+)?(?P<unit>bytes)?"
    r"|locked-in-memory address space\s+(?P<soft>unlimited|\d{1,20})\s+\S+\s+bytes"
    r"|LimitMEMLOCK\s*=\s*(?P<set>\w+)|\bmemlock\s*[:=]\s*(?P<own>unlimited|-1|\d{1,20})",
    re.IGNORECASE,
)
_ROW = regex(
    r"locked[ -]?memory\W{0,3}\((?P<unit>kB|KiB|kbytes|bytes|B)\)[\s|:]+"
    r"(?P<cells>(?:unlimited|infinity|\d+)(?:[\s|]+(?:unlimited|infinity|\d+))+)",
    re.IGNORECASE,
)
_WHERE = regex(r"\b(srun|sbatch|salloc|ssh|docker|podman|kubectl|crictl|nerdctl|su|sudo|systemd-run|mpirun|qsub)\b")


class LimitContexts:
    """`ulimit -l` as several shells, launchers or daemons answer it: each command with the answers below it."""

    name = "limit_contexts"
    needles: tuple[bytes, ...] = (b"ulimit", b"locked", b"MEMLOCK", b"memlock")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.limit.memlock` with the launcher as label, and `host.limit.locked` in bytes."""
        pending: list[str] = []
        where = ""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            asked = list(_ASKED.finditer(text))
            if asked:
                pending = [a["which"] for a in asked]
                where = hit[1] if (hit := _WHERE.search(text)) else "shell"
                tail = re.match(r"\W{0,3}(?:->|=>|:|=)\s*(unlimited|\d+)", text[asked[-1].end() :])
                if tail is not None and len(pending) == 1:
                    yield from _limit(doc, line, tail[1], "kbytes", where) if pending[0] == "l" else ()
                    pending = []
                continue
            answer = _ANSWER.match(text) if pending else None
            if answer is not None:
                if pending.pop(0) == "l":
                    yield from _limit(doc, line, answer["value"], answer["unit"] or "kbytes", where)
                continue
            pending = []
            if (row := _ROW.search(text)) is not None:  # one column for each way of starting it
                unit = "bytes" if row["unit"].lower() in ("bytes", "b") else "kbytes"
                for column, value in enumerate(re.findall(r"[a-z]+|\d+", row["cells"]), 1):
                    yield from _limit(doc, line, value, unit, f"column {column}")
                continue
            said = _SAID.search(text)
            if said is not None:
                value = said["value"] or said["soft"] or said["set"] or said["own"]
                yield from _limit(
                    doc, line, value, said["unit"] or ("bytes" if said["set"] or said["soft"] else "kbytes"), "said"
                )


def _limit(doc: Document, line: Line, value: str, unit: str, where: str) -> Iterator[Fact]:
    if not value.isdecimal():
        yield fact(doc, line, "host.limit.memlock", value, label=where)
        return
    scale = 1.0 if unit.lower() == "bytes" else 1024.0
    base = fact(doc, line, "host.limit.printed", float(value), "count", label=where)
    yield Fact(
        "host.limit.locked", float(value) * scale, "B", Subject(label=where), (doc.span(line),), kind="derived",
        formula=f"a * {scale:g}", inputs=(base,), status=doc.status,
    )  # fmt: skip


_ALONE = regex(
    r"\brank\W{0,3}0\b\W{0,4}(?:of|/|,)?\W{0,3}(?:world[_ ]?size|size|n_?ranks|np|total)?\W{0,3}1\b(?![\d.,]*\d)"
    r"|\b(?:process|rank) 0 of 1\b|\bworld[_ ]?size\W{0,3}1\b(?!\d)|\bnum_processes\W{1,3}1\b(?!\d)"
    r"|\bnranks 1\b(?!\d)|\bnum_machines\W{1,3}1\b(?!\d)",
    re.IGNORECASE,
)


# What tells processes apart; two lines that differ in nothing else come from one process twice.
_WHO = regex(
    r"cuda:\d+|\bGPU ?\d+|\bdevice\W{0,3}\d+|\blocal_rank\W{0,3}\d+|\bpid\W{0,3}\d+|\bon (?:host |node )?[\w.-]*\d"
    r"|^\W*(?!rank|world)[A-Za-z][\w.-]*?\d*(?=[\]:>|)]+ )|^\W*\d+(?:,\d+)?(?=[\]:>|)]+ ?)",
    re.IGNORECASE,
)


class LonelyRanks:
    """Processes that each believe to be the only one: rank 0 of 1, on this device and on that."""

    name = "lonely_ranks"
    needles: tuple[bytes, ...] = (b"rank", b"Rank", b"world", b"num_processes", b"of 1", b"num_machines")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One count, where lines say so that are alike but for the host, device or process."""
        shapes: dict[str, dict[str, Line]] = {}
        for line in excerpt(doc, 8 << 20, 20_000):
            text = line.prefix + line.text
            if len(text) < 400 and _ALONE.search(text) and (who := _WHO.findall(text)):
                shape = re.sub(r"\d+", "#", _WHO.sub("@", text))
                if len(shapes) < 200:
                    shapes.setdefault(shape, {}).setdefault("|".join(who).lower(), line)
        found = max(shapes.values(), key=len, default={})
        if len(found) >= 2:
            first, other = islice(found.values(), 2)
            made = computed(doc, first, "launch.lonely", float(len(found)), "count", self.name)
            yield replace(made, spans=(*made.spans, doc.span(other)))


_DOWN_UP = regex(
    r"(?<![\w.])(?P<down>\d{1,3}) ?x? ?(?:x ?\d+G\S* )?(?:downlinks?|host[- ](?:facing )?ports|server ports|下行\w*)"
    r"[^\n]{0,40}?(?<![\w.])(?P<up>\d{1,3}) ?x? ?(?:x ?\d+G\S* )?(?:uplinks?|spine ports|上行\w*)"
    # With the rate of a port between the number and its direction.
    r"|(?<![\w.])(?P<down2>\d{1,3}) ?[x×] ?\d+ ?G\S* ?(?:ports )?(?:down|to (?:hosts?|servers?)|host)\w*[^\n]{0,40}?"
    r"(?<![\w.])(?P<up2>\d{1,3}) ?[x×] ?\d+ ?G\S* ?(?:ports )?(?:up|to (?:the )?spines?|spine)",
    re.IGNORECASE,
)
_RATIO = regex(
    r"(?:oversubscri\w*|blocking|收敛比?|超分)[^\n\d]{0,20}(?P<a>\d+(?:\.\d+)?) ?[:：] ?1\b"
    r"|(?<![\d:])(?P<b>\d+(?:\.\d+)?) ?[:：] ?1 (?:oversubscri|blocking|tapered)",
    re.IGNORECASE,
)
_CALLS = regex(
    r"(?<![\w.])(?P<n>\d[\d,]{1,6}) ?[x×]? ?(?:nccl )?(?:all.?reduces?|all.?gathers?|collectives?|reduce.?scatters?)\b"
    r"(?: calls?| ops?)?(?: ?(?:per|/|each|every|a) ?(?:token|step|iter\w*|forward|layer))"
    r"|\b(?:per|each|every)[- ](?:token|step|iteration|forward|layer)\W{1,3}(?P<m>\d[\d,]{1,6}) ?(?:nccl )?(?:all.?reduces?|all.?gathers?|collectives?|reduce.?scatters?)\b",  # noqa: E501
    re.IGNORECASE,
)


class NetworkCounts:
    """Ports of a switch, and how many collectives a step or token has."""

    name = "network_counts"
    needles: tuple[bytes, ...] = (
        b"link",
        b"ports",
        b":1",
        b"down",
        b"spine",
        b" up",
        b" per ",
        b"per-",
        b"/token",
        b"/step",
        "收敛".encode(),
        "上行".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.oversubscription` and `message.calls_each`."""
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (hit := _DOWN_UP.search(text)) is not None and int(hit["up"] or hit["up2"]) > 0:
                down, up = (float(hit[k] or hit[f"{k}2"]) for k in ("down", "up"))
                a, b = (fact(doc, line, "net.ports", v, "count", label=k) for k, v in (("down", down), ("up", up)))
                yield divided("net.oversubscription", (a, b), spans=(doc.span(line),))
            elif (hit := _RATIO.search(text)) is not None:
                yield fact(doc, line, "net.oversubscription", float(hit["a"] or hit["b"]), "count")
            if (hit := _CALLS.search(text)) is not None:
                yield fact(doc, line, "message.calls_each", float((hit["n"] or hit["m"]).replace(",", "")), "count")


_LIBRARY = regex(r"(?<![\w.])(?P<path>/\S*?libnccl\.so[\w.]*)")
_IN_NAME = regex(r"libnccl\.so\.(2\.\d+\.\d+)")
_CODE = regex(r"nccl\.get_version\(\)|ncclGetVersion")
_NUMBER = regex(r"^\W*(2)(\d\d)(\d\d)\W*$")


class LibraryCopies:
    """Copies of NCCL by their paths, as a process has them mapped or a loader resolves them."""

    name = "library_copies"
    needles: tuple[bytes, ...] = (b"libnccl.so", b"nccl.get_version", b"ncclGetVersion")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.library`, and `version` where the name or the call tells it."""
        seen: set[str] = set()
        asked = False
        for line in excerpt(doc, 4 << 20):
            text = line.text
            if asked and (code := _NUMBER.match(text)) is not None:
                version = ".".join(str(int(part)) for part in code.groups())
                yield fact(doc, line, "nccl.version.code", version, label="nccl")
            asked = _CODE.search(text) is not None
            for hit in _LIBRARY.finditer(text) if "cannot open" not in text and "not found" not in text else ():
                if hit["path"] in seen or len(seen) > 8:
                    continue
                seen.add(hit["path"])
                yield fact(doc, line, "nccl.library", hit["path"])
                if (named := _IN_NAME.search(hit["path"])) is not None:
                    yield fact(doc, line, "version", named[1], label="nccl")


_ECHO = regex(
    r"\b(?:echo|printenv)\s+[\"']?\$?\{?(?P<name>(?:UCX|NCCL|OMPI|OMP|GLOO|CUDA|FI|NIXL|VLLM|SGLANG)_[A-Z0-9_]+)\}?[\"']?\s*$"
)
_VALUE = regex(r"^\s*(?P<value>[\w.:,^/*=-]{1,120})\s*$")


class Echoed:
    """A variable that a shell was asked for, and its answer on the next line."""

    name = "echoed"
    needles: tuple[bytes, ...] = (b"echo", b"printenv")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`env.var`, or `ucx.env` where UCX reads it."""
        asked: tuple[str, Line] | None = None
        for line in doc.lines() if doc.size <= _SMALL else ():
            text = line.prefix + line.text
            answer = _VALUE.match(text) if asked else None
            if asked and answer is not None:
                signal = "ucx.env" if asked[0].startswith("UCX_") else "env.var"
                span = (doc.span(asked[1]), doc.span(line))
                yield Fact(signal, answer["value"], None, Subject(label=asked[0]), span, status=doc.status)
            hit = _ECHO.search(text)
            asked = (hit["name"], line) if hit else None


READERS: list[Reader] = [Echoed(), LibraryCopies(), PortSiblings(), LimitContexts(), LonelyRanks(), NetworkCounts()]
