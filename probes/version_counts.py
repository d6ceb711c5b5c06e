"""Versions beside how many of their runs went wrong: tables of counts, ``4/4``, prose, and how often in Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, in_cells

_BAD = regex(
    r"\bhangs?\b|\bhung\b|freez\w*|froze|crash\w*|fail\w*|segv|segfault\w*|sigsegv|core dumps?|stuck|deadlock\w*|stall\w*|corrupt\w*|wrong\b|mismatch\w*|errors?\b|oom\b|timeouts?|nan\b"  # noqa: E501
    r"|挂死|崩溃|卡死|卡住|失败|报错|死锁|超时|挂起", re.IGNORECASE,
)  # fmt: skip
_VERSION = regex(
    r"(?<![\w.=])v?(?P<version>\d{1,2}\.\d{1,3}(?:\.\d{1,3})?(?:\.?(?:post|rc)\d+)?)(?![\w%]|\.\d)(?!\s*(?:ms|us|s|GB|GiB|MB|x|h|%|GB/s)\b)"
)
_OF = regex(r"(?<![\d.])(?P<bad>\d+) ?(?:/|of|out of) ?(?P<runs>\d+)(?!\d|\.\d)", re.IGNORECASE)
_TIMES = regex(r"(?:卡死|崩溃|挂死|失败|卡住|死锁|超时|挂起|报错)(?:了)? ?(?P<bad>\d+) ?次")
_COUNT = regex(
    r"(?<![\d.])(?P<bad>\d+) (?:hangs?|crash(?:es)?|failures?|freezes|errors?|deadlocks?|stalls?|timeouts?)\b",
    re.IGNORECASE,
)
_NO = regex(
    r"\bno (?:hangs?|crash\w*|fail\w*|freez\w*|stalls?)|\bnever (?:hung|crashed|failed)|(?:没有|未)(?:卡死|崩溃|挂死|失败|卡住)",  # noqa: E501
    re.IGNORECASE,
)
_COMPONENT = regex(
    r"\b(?:vllm|sglang|tensorrt(?:-llm)?|trt-?llm|tgi|llama\.?cpp|ollama|ucx|nccl|nixl|dynamo|rccl|mooncake|lmcache|deepspeed|pytorch|torch)\b",
    re.IGNORECASE,
)


class VersionCountReader:
    """A version whose runs go wrong between versions whose runs do not."""

    name = "version_counts"
    needles: tuple[bytes, ...] = (
        b"ang", b"reez", b"rash", b"ail", b"egfault", b"SEGV", b"tuck", b"eadlock", b"tall", b"orrupt", b"rror", b"imeout", b"rong", b"ismatch",  # noqa: E501
        "卡死".encode(), "崩溃".encode(), "挂死".encode(), "失败".encode(), "卡住".encode(),
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The version that went wrong most, beside one that never did."""
        bad: list[tuple[str, Line]] = []
        good: list[tuple[str, Line]] = []
        column: int | None = None
        component = ""
        spoken = False  # a header or title said what is counted
        for line in excerpt(doc, 1 << 15, 200):
            named = _COMPONENT.search(line.text)
            component = component or (named.group() if named else "")
            cells = in_cells(line.text)
            head = [n for n, c in enumerate(cells) if _BAD.search(c)]
            versions = list(_VERSION.finditer(line.text))
            if not versions:
                if head:
                    spoken, column = True, head[0] if len(cells) > 1 else None
                continue
            if len(line.text) > 400:
                continue
            for hit, following in zip(versions, [*versions[1:], None], strict=True):
                rest = line.text[hit.end() : following.start() if following else len(line.text)]
                if rest.lstrip().startswith("+"):
                    continue  # a version with something changed
                count = _outcome(rest, spoken)
                if count is None and column is not None and len(cells) > column and len(versions) == 1:
                    number = re.match(r"(\d+)\b(?!\.\d)", cells[column])
                    count = int(number[1]) if number else None
                if count is not None:
                    (bad if count else good).append((hit["version"], line))
        if good and bad and {v for v, _ in good}.isdisjoint(v for v, _ in bad):
            yield Fact(
                "compare.version_outcome", bad[0][0], None, Subject(label=f"{component} {good[-1][0]}".strip()),
                (doc.span(bad[0][1]), doc.span(good[-1][1])), f"{bad[0][0]} goes wrong where {good[-1][0]} does not",
                status=doc.status,
            )  # fmt: skip


def _outcome(rest: str, spoken: bool) -> int | None:
    """How many runs went wrong; None where nothing says."""
    named = _TIMES.search(rest) or _COUNT.search(rest)
    if named:
        return int(named["bad"])
    if _NO.search(rest):
        return 0
    of = _OF.search(rest)
    # "0/5" alone after a version whose "4/4" was called a crash is read the same way
    if of and max(int(of["bad"]), 2) <= int(of["runs"]) and (_BAD.search(rest) or spoken or int(of["bad"]) == 0):
        return int(of["bad"])
    return None


READERS: list[Reader] = [VersionCountReader()]
