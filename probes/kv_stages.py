"""Hand-made breakdowns of a request or step: which stage takes the time, and whether the stages add up."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from . import kv_config, kv_flow, movement_rates, movement_words
from .facts import amount, divided, excerpt

_WORDS = (
    ("ttft", r"ttft|time to first token|首\s*token|首字"),
    ("deregister", r"(?:de-?|un)(?:register|registration|reg_mr|pin)|dereg|注销"),
    ("register", r"(?<!de)(?<!de-)(?:register|registration|reg_mr|mem_?reg|memory reg\w*|pin(?:ning)? memory|注册)"),
    (
        "transfer",
        r"(?:kv|cache|nixl|block)[ _-]*(?:cache[ _-]*)?"
        r"(?:xfer|transfer|migration|handoff|pull|push|fetch|send|load|read|write|copy|传输)"
        r"|\bxfer\b|transfer(?: time| wait| latency)?$|^transfer\b|传输",
    ),
    ("prefill", r"prefill|预填充"),
    ("queue", r"queue|排队"),
    ("compute", r"compute|forward|kernels?\b|model exec\w*|计算"),
    ("total", (
        r"^(?:total|step|sum|end.to.end|e2e|iteration)\b|total (?:step|request)|(?:step|request) (?:time"
        r"|total)|总"
    )),
)  # fmt: skip
_NAMED = [(name, regex(pattern, re.I)) for name, pattern in _WORDS]
_TIME = regex(
    r"([A-Za-z_一-鿿][^\d:=|,;()\n]*?)\s*(?:[:=|]+\s*|\s{1,})(\d[\d,]*(?:\.\d+)?)\s*(ms|us|µs|s|sec|seconds"
    r"|毫秒)?(?=$|[\s,;|)，。])"
)
# The same bytes as many single transfers, and as one batched or contiguous one.
_SINGLE = regex(
    r"\b(?:one (?:handle|transfer|xfer|request|call|desc\w*) (?:each|per)|each\b|per-?block|individual\w*"
    r"|one by one|single desc\w*|unbatched|not batched)",
    re.I,
)
_BATCHED = regex(
    r"\b(?:one (?:batched |big |single )?(?:transfer|xfer|call|request)\b(?! (?:each|per))|batched"
    r"|coalesced|contiguous|merged)",
    re.I,
)
_ANY_TIME = regex(r"(\d[\d,]*(?:\.\d+)?)\s*(ms|us|µs|s)\b")
_UNIT_HEAD = regex(r"\((ms|us|s)\)")


class StageReader:
    """Breakdowns of a request or a step that someone typed: which stage takes the time, and do they add up."""

    name = "kv_stages"
    needles = (
        b"ransfer",
        b"xfer",
        b"kv ",
        b"KV ",
        b"per-block",
        b"atched",
        b"egister",
        b"reg_mr",
        "传输".encode(),
        "注册".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document, only where a transfer and something to hold it against are both there."""
        unit, declared = "ms", False
        found: dict[str, Fact] = {}
        for line in excerpt(doc, 1 << 16):
            head = _UNIT_HEAD.search(line.text)
            if head and not re.search(r"\d", line.text):
                unit, declared = head.group(1), True
            if len(line.text) > 400 or "KV Transfer metrics" in line.text:
                continue
            # a percentile in the name is no figure: "TTFT p50: 1630 ms"
            text = re.sub(r"\b[pP]\d\d(?:\.\d)?\b", lambda m: "p" * len(m.group()), line.text)
            for hit in _TIME.finditer(text):
                words, value, spelling = hit.group(1).strip(), amount(hit.group(2)), hit.group(3)
                name = next((n for n, pattern in _NAMED if pattern.search(words)), None)
                got = canonical(value, spelling or unit)
                if name is None or got is None or (spelling is None and not declared and not _aligned(line.text)):
                    continue
                ms = {"us": got[0] / 1e3, "ms": got[0], "s": got[0] * 1e3}.get(got[1])
                if ms is None:
                    continue
                subject = Subject(label=f"{name}: {words[:40]}")
                fact = Fact("kv.stage", ms, "ms", subject, (doc.span(line),), status=doc.status)
                # a disaggregated TTFT beside an aggregated one: the larger is the one asked about
                if name not in found or (name == "ttft" and ms > float(found[name].value or 0)):
                    found[name] = fact
        yield from self._batching(doc)
        if "transfer" not in found or len(found) < 2:
            return
        yield from found.values()
        yield from self._derived(doc, found)

    @staticmethod
    def _batching(doc: Document) -> Iterator[Fact]:
        """Many single transfers beside one batched transfer of the same blocks."""
        best: dict[str, Fact] = {}
        for line in possible(doc.lines(), _SINGLE, _BATCHED):
            single, batched = _SINGLE.search(line.text), _BATCHED.search(line.text)
            times = _ANY_TIME.findall(line.text)
            got = canonical(amount(times[-1][0]), times[-1][1]) if times else None
            if got is None or bool(single) == bool(batched):
                continue
            ms = {"us": got[0] / 1e3, "ms": got[0], "s": got[0] * 1e3}[got[1]]
            kind = "single transfers" if single else "one transfer"
            fact = Fact("kv.stage", ms, "ms", Subject(label=kind), (doc.span(line),), status=doc.status)
            best.setdefault(kind, fact)
        a, b = best.get("single transfers"), best.get("one transfer")
        if a and b and float(b.value or 0) > 0:
            yield divided("kv.batching", (a, b), subject=Subject(label="written"))

    @staticmethod
    def _derived(doc: Document, found: dict[str, Fact]) -> Iterator[Fact]:
        def value(name: str) -> float:
            return float(found[name].value or 0)

        def ratio(signal: str, unit: str, formula: str, *names: str) -> Fact:
            numbers = [value(n) for n in names]
            result = numbers[0] / numbers[1] if formula == "a / b" else (numbers[0] + numbers[1]) / numbers[2]
            inputs = tuple(found[n] for n in names)
            return Fact(
                signal,
                result,
                unit,
                Subject(label="stages"),
                kind="derived",
                formula=formula,
                inputs=inputs,
                status=doc.status,
            )

        if "ttft" in found and value("ttft") > 0 and value("transfer") <= value("ttft"):
            yield ratio("kv.share", "fraction", "a / b", "transfer", "ttft")
        if "prefill" in found and "compute" not in found:
            found = {**found, "compute": found["prefill"]}
        if {"compute", "total"} <= set(found) and value("total") > 0:
            yield ratio("kv.serial", "count", "(a + b) / c", "compute", "transfer", "total")


def _aligned(text: str) -> bool:
    """A table row: a name, two or more blanks, one number."""
    return re.match(r"^\s*[A-Za-z_一-鿿][\w /().>-]*?\s{2,}[\d.,]+\s*$", text) is not None


READERS: list[Reader] = [
    StageReader(), *kv_flow.READERS, *kv_config.READERS, *movement_rates.READERS, *movement_words.READERS,
]  # fmt: skip
