"""Figures of data movement as people type them: time to register, pieces of a size, how long somebody waited for KV."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount, excerpt

_TIME = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(ms|us|µs|s|sec|seconds|毫秒|微秒|秒)(?![\w/])")
_LAST = regex(r"[\s:=|](\d[\d,]*(?:\.\d+)?)\s*$")
_HEAD = regex(r"[(（\[,\s](ms|us|µs)[)）\]]?(?:[^\d\n]{0,24})$")
_FACTOR = {
    "us": 1e-3, "µs": 1e-3, "微秒": 1e-3, "ms": 1.0, "毫秒": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3, "秒": 1e3,
}  # fmt: skip
_SIZE = r"(\d[\d,]*(?:\.\d+)?)\s*([KMGT]i?B|[kK]|B|bytes)\b(?!/s)"


def _bytes(text: str, spelling: str) -> float | None:
    got = canonical(amount(text), "KB" if spelling in ("k", "K") else spelling)
    return None if got is None else got[0] * (2**30 if got[1] == "GiB" else 1.0)


_RELEASE = regex(r"(?:de-?|un)(?:register|reg|pin|map)|\bunmap|mem_unmap|dereg|注销", re.I)
_REGISTER = regex(
    r"\bregist(?:er|ering|ered|ration)|reg_mr|mem_map|mem_?reg|pin(?:ning|ned)? (?:memory|pages|buffers?)"
    r"|get_user_pages"
    r"|prep(?:are)?_?(?:xfer_)?dlist|IpcOpenMemHandle|注册",
    re.I,
)
_MOVE = regex(
    r"\b(?:xfers?|transfers?|puts?|gets?|writes?|reads?|sends?|flush|push\w*|pull\w*|wire|rdma|copy)\b|_(?:put|get|send)_nb"
    r"|post_?xfer|xfer|传输",
    re.I,
)
_UCX = regex(r"\bucp_|\buct_|ibv_reg|\bucx\b|IpcOpenMemHandle|\bep\.", re.I)
_NIXL = regex(r"nixl|register_?mem|connector|get_agent|initialize_xfer|mooncake|lmcache", re.I)


class RegistrationReader:
    """Time to register (and release) memory beside the time of the transfer it served."""

    name = "registration"
    needles = (b"egist", b"reg_mr", b"mem_map", b"MemHandle", b"inning", "注册".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One quotient, labelled with the library that registers."""
        unit: float | None = None
        found: dict[str, tuple[float, Line]] = {}
        whole = ""
        for line in excerpt(doc, 1 << 15):
            text = line.text
            whole += text + "\n"
            times = _TIME.findall(text)
            head = _HEAD.search(text)
            if head and not times and not re.search(r"\d", text[: head.start()][-12:]):
                unit = _FACTOR[head.group(1)]
                continue
            last = _LAST.search(text) if unit is not None and not times else None
            if times:
                ms = amount(times[-1][0]) * _FACTOR[times[-1][1]]
            elif last and unit is not None:
                ms = amount(last.group(1)) * unit
            else:
                continue
            # a comment behind a call says how long the call takes
            said = text.split("#")[0] if "#" in text and "(" in text.split("#")[0] else text
            if _RELEASE.search(said):
                kind = "release"
            elif _REGISTER.search(said):
                kind = "register"
            elif _MOVE.search(said):
                kind = "move"
            else:
                continue
            found.setdefault(kind, (ms, line))
        if not {"register", "move"} <= found.keys() or found["move"][0] <= 0:
            return
        who = "ucx" if _UCX.search(whole) and not _NIXL.search(whole) else "nixl"

        def fact(kind: str) -> Fact:
            ms, line = found[kind]
            return Fact("kv.event", ms, "ms", Subject(label=f"time to {kind}"), (doc.span(line),), status=doc.status)

        parts = [fact("register"), *([fact("release")] if "release" in found else [])]
        moved = fact("move")
        total = sum(float(p.value or 0) for p in parts)
        yield Fact(
            "kv.register_share", total / float(moved.value or 1), "count", Subject(label=who), kind="derived",
            formula="(a + b) / c" if len(parts) == 2 else "a / b", inputs=(*parts, moved), status=doc.status,
        )  # fmt: skip


_PIECE = (
    r"(?:cop(?:y|ies)|reads?|writes?|ops?|transfers?|desc\w*|regions?|blocks?|pieces?|chunks?|segments?|requests?|WRs?"
    r"|mem_?cp\w*|iovs?|pages?|slices?|fragments?|messages?|puts?|gets?|entries|extents?|个块|次拷贝|个描述符|个片段|块|次)"
)
_PIECES = regex(
    rf"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s*(k|M)?\s*(?:\w+[ -]){{0,2}}?{_PIECE}(?![\w])[^\d\n]{{0,40}}?"
    rf"(?:\bof\b|×|\bx\b|@|,|\bat\b|\beach\b|\bwith\b|[（(]|每[个块次])\s*~?{_SIZE}"
)
_PRODUCT = regex(rf"(?<![\w.])(\d[\d,]{{2,}})\s*[x×*]\s*{_SIZE}")
_ABOUT_KV = regex(r"\bkv|nixl|xfer|onboard|offload|layer|descriptor|transfer|block|传输|分块", re.I)


class PiecesReader:
    """ "40,960 copies of 8 KiB", "81920 regions, 16 KB each": how many pieces of which size a transfer has."""

    name = "pieces"
    needles = (b"iB", b"KB", b"kB", b"k ", b"K ", b"bytes", b" B")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Number and size of the smallest and of the largest pieces, a few hundred or more of them."""
        lines = excerpt(doc, 1 << 15)
        if not any(_ABOUT_KV.search(line.text) for line in lines):
            return
        found: list[tuple[float, float, Line]] = []
        for line in lines:
            for hit in [*_PIECES.finditer(line.text), *_PRODUCT.finditer(line.text)]:
                groups = hit.groups()
                scale = {"k": 1e3, "M": 1e6, None: 1.0}[groups[1]] if len(groups) == 4 else 1.0
                size = _bytes(groups[-2], groups[-1])
                if size and "token" not in hit.group() and size >= 64 and amount(groups[0]) * scale * size < 2**42:
                    found.append((amount(groups[0]) * scale, size, line))
        many = [f for f in found if f[0] >= 256]
        if not many:
            return
        small, large = min(many, key=lambda f: f[1]), max(found, key=lambda f: f[1])
        for count, size, line in (small,) if small is large else (small, large):
            span = (doc.span(line),)
            yield Fact("kv.bytes_per_descriptor", size, "B", Subject(label="pieces"), span, status=doc.status)
            if count >= 256:
                yield Fact("kv.descriptors", count, "count", Subject(label="pieces"), span, status=doc.status)


_WAITED = regex(
    r"(?:wait\w*|block\w*|stall\w*|stuck)\s+(?:\w+ )?(?:for|on)\s+(?:the\s+)?(?:remote\s+)?"
    r"(?:kv|cache|transfer|blocks)\b[^\d\n]{0,24}"
    r"|\b(?:kv|cache)[ _-]*(?:cache )?(?:transfer|xfer|pull|load|fetch|read|handoff|migration|onboard\w*)\w*\b"
    r"(?! share)[^\d\n%]{0,24}"
    r"|(?:等待|传输)\s*(?:远端\s*)?KV\D{0,8}|KV\s*(?:cache\s*)?传输\D{0,10}",
    re.I,
)
_SPENT = regex(r"(\d[\d,]*(?:\.\d+)?)\s*(ms|s|sec|seconds|毫秒|秒)(?![\w/])")
_MOVED = regex(
    rf"{_SIZE}\s*(?:(?:of )?(?:KV\b|cache)|per (?:request|prompt|transfer|sequence)|/\s?req)"
    rf"|(?:KV|cache)\b[^\d\n]{{0,28}}{_SIZE}",
    re.I,
)


class WaitReader:
    """One sentence each: how long a request waited for KV, and how much of it there was."""

    name = "kv_wait"
    needles = (b"KV", b"kv", b"cache", b"Cache")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Time and rate of a transfer, from short texts without statistics of a connector."""
        lines = excerpt(doc, 1 << 14)
        if not lines or b"KV Transfer metrics" in doc.data:
            return
        time: Fact | None = None
        size: Fact | None = None
        for line in lines:
            for hit in _WAITED.finditer(line.text):
                spent = _SPENT.match(line.text, hit.end())
                if spent and time is None:
                    ms = amount(spent.group(1)) * _FACTOR[spent.group(2)]
                    time = self._fact(doc, line, "kv.xfer_time", ms, "ms")
            moved = _MOVED.search(line.text)
            if moved and size is None:
                text, spelling = [g for g in moved.groups() if g][:2]
                value = _bytes(text, spelling)
                if value and value > 1e6:
                    size = self._fact(doc, line, "kv.bytes", value, "B")
        if time is None or not time.value:
            return
        yield time
        if size is not None:
            yield size
            rate = float(size.value or 0) / float(time.value or 1) / 1e6
            yield Fact(
                "kv.throughput", rate, "GB/s", Subject(label="as written"), kind="derived",
                formula="a / b / 1000000", inputs=(size, time), status=doc.status,
            )  # fmt: skip

    @staticmethod
    def _fact(doc: Document, line: Line, signal: str, value: float, unit: str) -> Fact:
        return Fact(signal, value, unit, Subject(label="as written"), (doc.span(line),), status=doc.status)


READERS: list[Reader] = [RegistrationReader(), PiecesReader(), WaitReader()]
