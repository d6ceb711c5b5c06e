"""Tokens per expert or per expert-parallel rank, as counted by an engine or typed into a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import in_cells

_TOPIC = regex(r"experts?\b|\bep\d*\b|\bmoe\b|mixtral|eplb|routed|deepep|all.?to.?all|\ba2a\b|专家", re.IGNORECASE)
_ROW = regex(
    r"^\W*(?P<kind>(?:ep[ _-]?)?rank|expert|gpu|ep)[ _#:-]*(?P<id>\d+)\b[\s:=|]+(?:(?:routed )?(?:tok(?:en)?s?)[ _:=]*)?(?P<n>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>[kKM])?\b(?!\.\d)(?!\s*(?:ms|us|s|%|GB|MiB|GiB|W|MHz)\b)",  # noqa: E501
    re.IGNORECASE,
)
_LIST = regex(
    r"tokens?[ _](?:per|of|by|for each)[ _](?:EP[ _]|each )?(?P<kind>expert|rank|gpu)[^:=\[\n]{0,30}[=:]?\s*\[?(?P<list>\d+(?:[,\s/]+\d+){3,})\]?",  # noqa: E501
    re.IGNORECASE,
)
_FIRST = regex(r"(?:ep[ _-]?)?rank|expert|gpu|ep", re.IGNORECASE)
_TOKENS = regex(r"\btok(?:en)?s?\b|routed", re.IGNORECASE)
_RATE = regex(r"/s|%|time|\bms\b|\bus\b", re.IGNORECASE)
_SCALE = {"k": 1e3, "m": 1e6}


class ServingMoeReader:
    """Rows ``rank 2   3,871,902`` and lists, in texts that speak of experts."""

    name = "serving_moe"
    needles: tuple[bytes, ...] = (
        b"xpert",
        b"EPLB",
        b"eplb",
        b"EP rank",
        b"ep rank",
        b"EP_rank",
        b"MoE",
        b"routed",
        b"moe",
        b"EP",
        b"ixtral",
        b"a2a",
        "专家".encode(),
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """At most 512 readings."""
        if doc.size > 16 << 20 or not _TOPIC.search(doc.opening):
            return
        made = 0
        column = -1
        for line in doc.lines():
            cells = in_cells(line.text)
            if cells and _FIRST.fullmatch(cells[0]) and len(cells) >= 2:
                column = next((n for n, c in enumerate(cells) if n and _TOKENS.search(c) and not _RATE.search(c)), -1)
                continue
            if column > 0 and made < 512 and len(cells) > column:
                who, count = re.fullmatch(r"\D{0,6}(\d{1,3})", cells[0]), re.fullmatch(r"(\d[\d,]*)", cells[column])
                if who and count:
                    made += 1
                    yield self._fact(doc, line, "rank", int(who[1]), float(count[1].replace(",", "")))
                    continue
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
