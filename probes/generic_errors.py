"""Error texts of any program: the line as it stands, named by its exception class or component."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact

from .facts import fact

KEEP = 12
MAX_BYTES = 64 << 20
_NEEDLE = regex(
    r"(?i)error|warn|fail|fatal|exception|traceback|abort|critical|panic|refused|killed|cannot|unable|fault"
    r"|denied|not found|no such|timed.?out|invalid"
)
_ERROR = regex(
    r"\b(error|fatal|critical|failed|failure|exception|panic|abort(ed|ing)?|refused|killed|cannot|can't"
    r"|unable to|segmentation fault|permission denied|no such file|not found|timed? ?out)\b|\w(Error|Exception)\b"
    r"|\bWARN(ING)?\b",
    re.IGNORECASE,
)
_NOT = regex(
    r"\b(0|no|zero|without) (error|failure|warning)s?\b|\b(errors?|failures?|failed"
    r"|timeouts?)(?:\s+\w+)?\s*[:=]\s*0\b|\berror(s|_count)?\s+0\b"
    r"|FutureWarning|DeprecationWarning|UserWarning|^\s*(#|//)|log.?level|--\S*(error|fail|abort|warn)"
    r"|^\s*(mca|config|option|ompi):[\w:.-]+:|\bMCA \w+ \w+: parameter|^\s*If (nonzero|true|set)\b"  # ompi_info
    r"|_errors?_total\S* 0",
    re.IGNORECASE,
)
_CLASS = regex(
    r"\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Timeout)|CUDA_ERROR_\w+|NCCL_?(?:ERR"
    r"|ERROR)\w*|UCS_ERR_\w+|ncclUnhandled\w+|ncclSystemError|ncclInternalError)\b"
)
_COMPONENT = regex(
    r"\b(NCCL|UCX|NIXL|vllm|sglang|ibv_\w+|cuda\w*|torch|NVRM|mlx5\w*|libfabric|OFI|gloo|MPI|triton|docker"
    r"|kubelet)\b",
    re.IGNORECASE,
)
_RAISED = regex(
    r"^((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Timeout|Hit|Warning|OutOfMemory\w*"
    r"|Iteration|Failed))(?::|$)"
)


_AROUND = regex(  # before a line that stands alone, where nothing shows that the program did not write it
    r"(?:\s*(?:\d{1,6}:(?!\d)|\d{1,6}\t|(?:\d{1,3}\.){3}\d{1,3}: |[\w.-]{2,60} {2,}\| "
    r"|\d{4}-\d\d-\d\dT[\d:]{8}(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)? ))+"
)


def errors(doc: Document) -> Iterator[Fact]:
    """`text.error` (distinct lines, digits aside, in order) and `text.exception` (last line of each traceback)."""
    if doc.size > MAX_BYTES:
        return
    kept: dict[str, Fact] = {}
    raised: dict[str, Fact] = {}
    traced = False
    for line, may in told(doc.novel(), _NEEDLE):
        text = line.text[:4000]
        if not traced and not (may and _NEEDLE.search(text[:2000])):
            continue
        said = text.strip()
        if "Traceback (most recent call last)" in text:
            traced = True
            continue
        if traced and (hit := _RAISED.match(said)):
            traced = False
            name = hit.group(1).rsplit(".", 1)[-1]
            if len(raised) < KEEP:
                raised.setdefault(said[:120], _fact(doc, line, "text.exception", name))
            continue
        if len(kept) < KEEP and _ERROR.search(said[:2000]) and not _NOT.search(said[:2000]):
            shape = re.sub(r"\d+|0x[0-9a-f]+", "#", said[:160])
            if shape not in kept:
                named = _CLASS.search(said[:2000]) or _COMPONENT.search(said[:2000])
                kept[shape] = _fact(doc, line, "text.error", named.group(1) if named else None)
    yield from kept.values()
    yield from raised.values()


def _fact(doc: Document, line: Line, signal: str, label: str | None) -> Fact:
    around = _AROUND.match(line.text)
    said = line.text[around.end() if around else 0 :].strip() or line.text.strip()
    return fact(doc, line, signal, said[:200], label=label)
