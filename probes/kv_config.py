"""What the two sides of a KV transfer were told, which back end they got, and how many requests wait for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, fact

# Settings that have to agree between the side that fills the cache and the side that reads it.
_AGREE = regex(
    r"""(?:--|["']|\b)(block[-_]size|page[-_]size|kv[-_]cache[-_]dtype|kv[-_]connector|kv[-_]cache[-_]layout"""
    r"""|VLLM_KV_CACHE_LAYOUT|disaggregation[-_]transfer[-_]backend|kv[-_]transfer[-_]backend"""
    r"""|enable[-_]dp[-_]attention|kv[-_]parallel[-_]size|num[-_]layers|tokens[-_]per[-_]block|model[-_]dtype"""
    r"""|disaggregation[-_]bootstrap[-_]port)["']?\s*[=: ]\s*["']?([\w./-]+)""",
    re.I,
)
_ROLE = regex(
    r"""["']?kv[-_]role["']?\s*[=:]\s*["']?kv_(producer|consumer|both)\b|--disaggregation-mode[= ]+(prefill|decode)"""
)
_PREFILL = regex(r"\bprefill\w*|kv_producer|(?<![a-z])P(?:[ _-]?node|\d)?\s*[:：]|预填充", re.I)
_DECODE = regex(r"\bdecod(?:e|er|ing)\b|kv_consumer|(?<![a-z])D(?:[ _-]?node|\d)?\s*[:：]|解码", re.I)
_MODES = {"prefill": "producer", "decode": "consumer"}


def _side(text: str) -> str:
    """The side a line speaks of; empty where it names none or both."""
    # `--disaggregation-mode decode --...-prefill-...` and the like: the mode decides
    mode = re.search(r"--disaggregation-mode[= ]+(prefill|decode)|kv_(producer|consumer)", text)
    if mode:
        return "prefill" if mode.group(1) == "prefill" or mode.group(2) == "producer" else "decode"
    a, b = _PREFILL.search(text), _DECODE.search(text)
    if a and b:
        return ""
    return "prefill" if a else "decode" if b else ""


class SidesReader:
    """Settings of the prefill and of the decode side in one text: which of those that must agree do not."""

    name = "kv_sides"
    needles = (b"kv_role", b"kv_connector", b"disaggregation", b"kv-transfer-config", b"refill")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        side = ""
        values: dict[str, dict[str, tuple[str, Line]]] = {"prefill": {}, "decode": {}}
        roles: dict[str, list[Line]] = {}
        for line in excerpt(doc, 1 << 16):
            side = _side(line.text) or side
            for hit in _ROLE.finditer(line.text):
                roles.setdefault(hit.group(1) or _MODES[hit.group(2)], []).append(line)
            if not side:
                continue
            for name, value in _AGREE.findall(line.text):
                values[side].setdefault(name.lower().replace("_", "-"), (value, line))
        for name in sorted(values["prefill"].keys() & values["decode"].keys()):
            (a, first), (b, second) = values["prefill"][name], values["decode"][name]
            if a.lower() != b.lower():
                yield Fact(
                    "kv.config_differs", f"{a} | {b}", None, Subject(label=name),
                    (doc.span(first, a), doc.span(second, b)), status=doc.status,
                )  # fmt: skip
        # two instances, one and the same role: nobody produces, or nobody consumes
        if len(roles) == 1 and (only := next(iter(roles))) != "both" and len(roles[only]) >= 2:
            spans = tuple(doc.span(line, only) for line in roles[only][:2])
            yield Fact("kv.config_differs", only, None, Subject(label="one role"), spans, status=doc.status)


_BACKENDS = r"UCX|LIBFABRIC|GDS(?:_MT)?|POSIX|TCP|OBJ|GPUNETIO|MOONCAKE|HF3FS|UCCL|RDMA|EFA"
_ASKED = regex(
    rf"""(?:request\w*|wanted|expect\w*|configured|asked for|prefer\w*|backends?["']?\s*[:=]\s*\["""
    rf"""|--?(?:nixl-)?backend[= ]|_BACKEND_|NIXL_BACKENDS?\W{{1,3}}|(?:KV|nixl|transfer)_backends?\W{{1,4}}"""
    rf"""|protocol\W{{1,4}})[^\n]{{0,16}}?\b({_BACKENDS})\b""",
    re.I,
)
_GOT = regex(
    rf"(?:\b[Bb]ackend\s+({_BACKENDS})\s+(?:was |is )?(?:instantiated|created|initialized|loaded|selected)"
    rf"|(?:instantiat\w+|created|initiali[sz]ed|using|selected|active|in use|loaded|chosen|effective|actual)\b"
    rf"[^\n]{{0,24}}?\b"
    rf"(?:backend|plugin|transport|protocol|provider)s?\b\W{{0,4}}({_BACKENDS})\b"
    rf"|(?:using|selected|created|instantiated)\s+({_BACKENDS})\s+(?:backend|plugin|transport|protocol)"
    rf"|(?:available|loaded|discovered)[^\n]{{0,20}}plugins?\W{{1,4}}((?:(?:{_BACKENDS})\W+)*(?:{_BACKENDS})))"
)


class BackendReader:
    """The back end that was asked for and the one that runs."""

    name = "kv_backend"
    needles = (b"ackend", b"rotocol", b"BACKEND", b"lugin")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A fact where they differ, only in short texts: a log may build several."""
        asked: dict[str, Line] = {}
        got: dict[str, Line] = {}
        for line in excerpt(doc, 1 << 16):
            for hit in _GOT.finditer(line.text):
                for name in re.findall(_BACKENDS, next(g for g in hit.groups() if g)):
                    got.setdefault(name.upper(), line)
            for hit in _ASKED.finditer(line.text):
                if not _GOT.search(line.text):
                    asked.setdefault(hit.group(1).upper(), line)
        missing = [n for n in asked if n not in got and f"{n}_MT" not in got]
        if not missing or not got or set(asked) & set(got):
            return
        # UCX serves RDMA and EFA alike
        others = [n for n in got if not (n == "UCX" and missing[0] in ("RDMA",))]
        if others:
            spans = (doc.span(got[others[0]], others[0]), doc.span(asked[missing[0]], missing[0]))
            yield Fact(
                "nixl.backend_other", others[0], None, Subject(label=f"{missing[0]} was asked for"), spans,
                status=doc.status,
            )  # fmt: skip


_WAITING = regex(
    r"#(?:transfer-req|transferring-req|inflight-req|kv-transfer-req)\s*:\s*(\d{1,9})\b"
    r"|WAITING_FOR_REMOTE_KVS\W{1,6}(\d{1,9})\b"
    r"|\b(\d{1,9}) (?:reqs?|requests?) (?:in |are )?(?:WAITING_FOR_REMOTE_KVS|waiting for remote kv)",
    re.I,
)
_RUNNING = regex(r"#running-req\s*:\s*(\d+)|Running:\s*(\d+)")
_QUEUED = regex(r"#queue-req\s*:\s*(\d+)|Waiting:\s*(\d+)")


class BacklogReader:
    """Requests whose only business is their KV transfer, as engines count them in their status lines."""

    name = "kv_backlog"
    needles = (b"transfer-req", b"transferring-req", b"inflight-req", b"REMOTE_KVS", b"remote kv")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The largest backlog that exceeds what runs and what queues on the same line."""
        best: tuple[int, Line, str] | None = None
        for line in doc.lines():
            hit = _WAITING.search(line.text)
            if hit is None:
                continue
            count = int(next(g for g in hit.groups() if g))
            running, queued = _RUNNING.search(line.text), _QUEUED.search(line.text)
            others = [int(next(g for g in m.groups() if g)) for m in (running, queued) if m]
            if count >= 8 and count > 2 * max(others, default=0) and (best is None or count > best[0]):
                best = count, line, hit.group().split(":")[0].strip("# ")
        if best:
            yield fact(doc, best[1], "kv.backlog", float(best[0]), "count", around=best[2], label=best[2][:30])


READERS: list[Reader] = [SidesReader(), BackendReader(), BacklogReader()]
