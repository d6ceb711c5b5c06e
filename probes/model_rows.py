"""Rows of models with their weights and speed, and which part of the weights one token reads; launches and kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, excerpt, fact

_SMALL = 1 << 15
_LINES = 300
_SIZE = regex(r"(?<![\w.])(?P<n>\d+(?:\.\d+)?) ?(?P<u>GiB|GB)\b")
_SPEED = regex(r"(?<![\w.])(?P<n>\d+(?:\.\d+)?)(?: ?±[ \d.]+\|?\s*$| ?(?:tok(?:en)?s?|t)/s)", re.I)
_HEAD = regex(r"tok(?:en)?s?/s|\bt/s\b|tps|decode", re.I)
_LAST = regex(r"(?<![\w.])(?P<n>\d+(?:\.\d+)?)\s*\|?\s*$")
_ACTIVE = regex(r"(?:active|activated|激活)\D{0,4}(?P<n>\d+(?:\.\d+)?) ?B", re.I)
_TOTAL = regex(r"(?<![\w.])(?P<n>\d{1,4}(?:\.\d+)?) ?B(?![\w])(?!/)", re.I)
_NAMED = regex(r"(?P<t>\d{1,4}(?:\.\d+)?)B[-_. ]?A(?P<a>\d{1,3}(?:\.\d+)?)B", re.I)
_MIXED = regex(r"(?P<n>\d{1,3})x(?P<b>\d{1,3})B", re.I)
# Parameters in billions, all and those of one token, as the model cards state them.
_CARDS = (
    (regex(r"gpt[-_ ]?oss[-_ :]?20b", re.I), 20.9, 3.6), (regex(r"gpt[-_ ]?oss[-_ :]?120b", re.I), 116.8, 5.1),
    (regex(r"8x7b", re.I), 46.7, 12.9), (regex(r"8x22b", re.I), 141.0, 39.0),
    (regex(r"deepseek[-_ ]?(?:v3|r1)(?!.*distill)", re.I), 671.0, 37.0),
)  # fmt: skip
_MODEL = regex(
    r"[A-Za-z][\w.-]*[ :_-]?\d{1,3}(?:\.\d+)?x?\d{0,2}\.?\d{0,2}B|gpt-oss|mixtral|qwen|llama|mistral|yi-|gemma|phi|deepseek|glm",  # noqa: E501
    re.I,
)


def active_share(text: str) -> float:
    """Share of all parameters that one token reads: one where nothing says that the model is sparse."""
    if hit := _NAMED.search(text):
        return float(hit["a"]) / float(hit["t"])
    for card, whole, part in _CARDS:
        if card.search(text):
            return part / whole
    active, total = _ACTIVE.search(text), [float(h["n"]) for h in _TOTAL.finditer(text)]
    if active and total and max(total) >= float(active["n"]):
        return float(active["n"]) / max(total)
    return 1.0


class ModelRowReader:
    """`model.row`: tokens a second of a model, labelled ``name|GiB|share of the weights that a token reads``."""

    name = "model_rows"
    needles: tuple[bytes, ...] = (b"GiB", b"GB")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rows of one request at a time that name a model, the size of its weights and its speed."""
        head = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            sized, model = _SIZE.search(text), _MODEL.search(text)
            if sized is None:
                head = head or _HEAD.search(text) is not None
                continue
            if model is None or re.search(r"\bpp\d+\b|prefill|buffer|KV", text):
                continue
            speed = _SPEED.search(text, sized.end()) or (_LAST.search(text, sized.end()) if head else None)
            if speed is None or not 1 <= float(speed["n"]) <= 2000:
                continue
            gib = amount(sized["n"]) * (1.0 if sized["u"] == "GiB" else 1e9 / 2**30)
            share = active_share(text)
            yield fact(
                doc,
                line,
                "model.row",
                float(speed["n"]),
                "tokens/s",
                label=f"{model.group()[:24]}|{gib:.3f}|{share:.4f}",
            )


_MS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}
_ENQUEUE = regex(
    r"(?:enqueue(?: time)?|launch(?:ing)?(?: calls?| api| time)?|host time|cpu (?:launch|issue)|下发|入队|发射)", re.I
)
_GPU = regex(
    r"(?:GPU compute(?: time)?|kernels? (?:time|total|sum|合计)|sum of kernel|device time|kernel 合计|kernels合计)",
    re.I,
)
_MEAN = regex(r"mean = (?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|us|s)\b", re.I)
_FIRST = regex(r"(?<![\w.(%])(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|us|µs|s)\b")


class EnqueueReader:
    """`launch.enqueue_share`: time to enqueue one run over the time that the GPU works on it, column by column."""

    name = "enqueue_share"
    needles: tuple[bytes, ...] = (b"nqueue", b"aunch", b"host time", "下发".encode(), "入队".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """From the summary of trtexec, or from rows that are called so."""
        issue, work = None, None
        for line in excerpt(doc, 1 << 18, 4000):
            text = line.prefix + line.text
            kind = "issue" if _ENQUEUE.search(text) else "work" if _GPU.search(text) else ""
            if not kind or re.search(r"useCudaGraph|with graph|cuda graph", text, re.I):
                continue
            hits = [_MEAN.search(text)] if _MEAN.search(text) else list(_FIRST.finditer(text))
            times = [float(h["v"]) * _MS[h["u"].lower()] for h in hits if h]
            if times and kind == "issue":
                issue = issue or (times, line)
            elif times:
                work = work or (times, line)
        if issue and work and len(issue[0]) == len(work[0]) and min(work[0]) > 0:
            share = max(a / b for a, b in zip(issue[0], work[0], strict=True))
            yield Fact(
                "launch.enqueue_share", round(share, 4), "fraction", Subject(), (doc.span(issue[1]), doc.span(work[1])),
                kind="derived", formula="reader:enqueue_share", status=doc.status,
            )  # fmt: skip


READERS: list[Reader] = [ModelRowReader(), EnqueueReader()]
