"""Tokens per expert or per expert-parallel rank, as counted by an engine or typed into a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

_TOPIC = regex(r"experts?\b|\bep\b|\bmoe\b|eplb|routed|deepep|all.?to.?all", re.IGNORECASE)
_ROW = regex(
    r"^\W*(?P<kind>(?:ep[ _-]?)?rank|expert|gpu|ep)[ _#:-]*(?P<id>\d+)\b[\s:=|]+(?P<n>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>[kKM])?\b(?!\.\d)(?!\s*(?:ms|us|s|%|GB|MiB|GiB|W|MHz)\b)",  # noqa: E501
    re.IGNORECASE,
)
_LIST = regex(
    r"tokens?[ _](?:per|of|by|for each)[ _](?:EP[ _]|each )?(?P<kind>expert|rank|gpu)[^:=\[\n]{0,30}[=:]?\s*\[?(?P<list>\d+(?:[,\s/]+\d+){3,})\]?",  # noqa: E501
    re.IGNORECASE,
)
_SCALE = {"k": 1e3, "m": 1e6}


class ServingMoeReader:
    """Rows ``rank 2   3,871,902`` and lists, in texts that speak of experts."""

    name = "serving_moe"
    needles: tuple[bytes, ...] = (b"xpert", b"EPLB", b"eplb", b"EP rank", b"ep rank", b"EP_rank", b"MoE", b"routed")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """At most 512 readings."""
        if doc.size > 16 << 20 or not _TOPIC.search(doc.head.decode("utf-8", "replace")):
            return
        made = 0
        for line in doc.lines():
            hit = _ROW.match(line.text)
            if hit and made < 512:
                made += 1
                value = float(hit.group("n").replace(",", "")) * _SCALE.get((hit.group("unit") or "").lower(), 1.0)
                yield self._fact(doc, line, hit.group("kind"), int(hit.group("id")), value)
            listed = _LIST.search(line.text)
            if listed:
                for number, text in enumerate(re.findall(r"\d+(?:\.\d+)?", listed.group("list"))[:512]):
                    yield self._fact(doc, line, listed.group("kind"), number, float(text))

    @staticmethod
    def _fact(doc: Document, line: Line, kind: str, number: int, value: float) -> Fact:
        return Fact("serving.expert_tokens", value, "count", Subject(rank=number, label=kind.lower()), (doc.span(line),),  # noqa: E501
                    status=doc.status)  # fmt: skip


READERS: list[Reader] = [ServingMoeReader()]
