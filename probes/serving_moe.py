"""Tokens per expert or per expert-parallel rank, as counted by an engine or typed into a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import amount, computed, fact, in_cells

_TOPIC = regex(
    r"experts?\b|expert_|router top|router count|gate counts"
    r"|\bep\d*\b|\bep[ _-]?(?:rank|size)|tokens?[_ ]recv|recv[_ ]tokens"
    r"|grouped_?gemm|\bmoe\b|mixtral|eplb|routed"
    r"|deepep|all.?to.?all|\ba2a\b|专家",
    re.IGNORECASE,
)
_ROW = regex(
    r"^\W*(?:(?:expert|moe)_\w+ )?(?P<kind>(?:ep[ _-]?)?rank|expert|gpu|ep)[ _#:-]*(?P<id>\d+)\b[\s:=|\]]+(?:(?:routed |recv |received )?(?:tok(?:en)?s?)(?: recv| received)?[ _:=]*)?(?P<n>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>[kKM])?\b(?!\.\d)(?!\s*(?:ms|us|s|%|GB|MiB|GiB|W|MHz)\b)",  # noqa: E501
    re.IGNORECASE,
)
_LIST = regex(
    r"tokens?[ _](?:per|of|by|for each)[ _](?:EP[ _]|each )?(?P<kind>expert|rank|gpu)[^:=\[\n]{0,30}[=:]?\s*\[?(?P<list>\d+(?:[,\s/]+\d+){3,})\]?",  # noqa: E501
    re.IGNORECASE,
)
_FIRST = regex(r"(?:ep[ _-]?)?rank|expert|gpu|ep", re.IGNORECASE)
_TOKENS = regex(r"(?<![a-z])tok(?:en)?s?(?![a-z])|routed", re.IGNORECASE)
_RATE = regex(r"/s|%|time|\bms\b|\bus\b", re.IGNORECASE)
_COUNT = r"(?![\d.,]*\d| ?(?:%|ms|us|s|W|GB|/)\b)"  # a count, no time and no share
_PEAK = regex(
    rf"\bmax(?:imum)?\b[^\n=:\d]{{0,40}}[=:]?\s*(?P<max>\d[\d,]*(?:\.\d+)?){_COUNT}"
    r"[^\n\d]{0,40}\b(?:mean|avg|average)\b"
    rf"[^\n=:\d]{{0,30}}[=:]?\s*(?P<mean>\d[\d,]*(?:\.\d+)?){_COUNT}"
    r"|\b(?:mean|avg|average)\b"
    rf"[^\n=:\d]{{0,40}}[=:]?\s*(?P<mean2>\d[\d,]*(?:\.\d+)?){_COUNT}[^\n\d]{{0,40}}\bmax(?:imum)?\b"
    rf"[^\n=:\d]{{0,40}}[=:]?\s*(?P<max2>\d[\d,]*(?:\.\d+)?){_COUNT}",
    re.IGNORECASE,
)
_PAIRS = regex(
    r"""tokens?_per_expert["']?\s*[:=]\s*\{(?P<list>(?:\s*["']?\d+["']?\s*:\s*\d+\s*,?){3,})\}""", re.IGNORECASE
)
_SHARE = regex(
    r"\b(?:ep[ _-]?)?(?:rank|expert|gpu) ?#?\d+\b"
    r"[^\n.;]{0,30}?(?P<share>\d+(?:\.\d+)?) ?% of (?:all |the )?(?:routed |its )?tokens",
    re.I,
)
_RANKS = regex(
    r"\b(?:over|across|on) (?P<n>\d{1,3}) (?:ep )?(?:ranks|gpus|devices)|\bEP ?=? ?(?P<m>\d{1,3})\b"
    r"|\bep[_-]size[ =:]+(?P<k>\d+)",
    re.I,
)
_NUMBERED = regex(r"\b(?:e|E|exp|expert)[ _#]?(\d{1,3})[ :=]+(\d[\d,]*)(?![.\d%])")
_BY_RANK = regex(r"\brank[ _#]?(\d{1,3})[ :=]+(\d[\d,]*)(?![.\d%])")
_MOVED = regex(r"dispatch|tokens?\b|expert|all.?to.?all|routed", re.I)
_FRACTIONS = regex(r"expert[^\n\[]{0,60}\[(?P<list>\s*[01]?\.\d+(?:\s*,\s*[01]?\.\d+){3,}\s*)\]", re.I)
_HEAD = regex(r"max ?/ ?(?:mean|avg|average)\b[^|\t]*(?:tok|expert|\bEP\b|rank)", re.I)
_MEAN_LINE = regex(r"\b(?:mean|average|avg)\b\D{0,30}?(?P<n>\d[\d,]{2,})\s*$", re.I)
_MOST_LINE = regex(
    r"\b(?:hottest|busiest|max(?:imum)?|largest)\b\D{0,20}(?:\d{1,3}\b)?\D{1,20}?(?P<n>\d[\d,]{2,})(?!\S)", re.I
)
_ROUTED = regex(r"expert|routed|\bmoe\b|专家", re.IGNORECASE)
_SCALE = {"k": 1e3, "m": 1e6}


class ServingMoeReader:
    """Rows ``rank 2   3,871,902`` and lists, in texts that speak of experts."""

    name = "serving_moe"
    needles: tuple[bytes, ...] = (
        b"xpert",
        b"EPLB",
        b"eplb",
        b"EP rank",
        b"ep_rank",
        b"tokens_recv",
        b"recv tokens",
        b"ep rank",
        b"EP_rank",
        b"MoE",
        b"routed",
        b"router",
        b"moe layer",
        b"expert ",
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
        column, peaks = -1, -1
        totals: dict[str, tuple[float, Line]] = {}
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
            if any(_HEAD.search(c) for c in cells) and not any(c[:1].isdigit() for c in cells):
                peaks = next(n for n, c in enumerate(cells) if _HEAD.search(c))
                continue
            if peaks > 0 and len(cells) > peaks and re.fullmatch(r"\d+(?:\.\d+)?", cells[peaks]):
                yield fact(doc, line, "serving.expert_peak", float(cells[peaks]), "count", label=cells[0][:40])
            hit = _ROW.match(line.text)
            if (
                hit is None and line.prefix and _TOKENS.search(line.text[:24])
            ):  # a launcher's ``[rank 2]`` names the row
                hit = _ROW.match(line.prefix + line.text)
            if hit and made < 512:
                made += 1
                value = float(hit.group("n").replace(",", "")) * _SCALE.get((hit.group("unit") or "").lower(), 1.0)
                yield self._fact(doc, line, hit.group("kind"), int(hit.group("id")), value)
            if _ROUTED.search(line.text) and (peak := _PEAK.search(line.text)):
                most, mean = amount(peak["max"] or peak["max2"]), amount(peak["mean"] or peak["mean2"])
                if most >= mean > 0 and most >= 16:
                    yield computed(doc, line, "serving.expert_peak", round(most / mean, 3), "count", self.name)
            if (one := _SHARE.search(line.text)) and (of := _RANKS.search(str(doc.opening))):
                ranks = int(next(g for g in of.groups() if g))
                peak_share = float(one["share"]) / 100 * ranks
                yield computed(doc, line, "serving.expert_peak", round(peak_share, 3), "count", self.name)
            counts = _NUMBERED.findall(line.text) if _ROUTED.search(line.text) or "router" in line.text else []
            if len(counts) >= 4:
                for number, text in counts[:512]:
                    yield self._fact(doc, line, "expert", int(number), amount(text))
            if _MOVED.search(line.text) and len(told_ranks := _BY_RANK.findall(line.text)) >= 4:
                for number, text in told_ranks[:512]:
                    yield self._fact(doc, line, "rank", int(number), amount(text))
            if shares := _FRACTIONS.search(line.text):
                parts = [float(x) for x in shares["list"].split(",")]
                if 0.9 <= sum(parts) <= 1.1:
                    yield computed(
                        doc, line, "serving.expert_peak", round(max(parts) * len(parts), 3), "count", self.name
                    )
            for pair in _PAIRS.finditer(line.text):
                for number, text in re.findall(r"(\d+)[\"']?\s*:\s*(\d+)", pair["list"])[:512]:
                    yield self._fact(doc, line, "expert", int(number), float(text))
            for word, pattern in (("mean", _MEAN_LINE), ("most", _MOST_LINE)):
                if (told := pattern.search(line.text)) and _ROUTED.search(line.text):
                    totals.setdefault(word, (amount(told["n"]), line))
            listed = _LIST.search(line.text)
            if listed:
                for number, text in enumerate(re.findall(r"\d+(?:\.\d+)?", listed.group("list"))[:512]):
                    yield self._fact(doc, line, listed.group("kind"), number, float(text))

        if len(totals) == 2 and totals["most"][0] >= totals["mean"][0] > 0:
            peak_ratio = round(totals["most"][0] / totals["mean"][0], 3)
            yield computed(doc, totals["most"][1], "serving.expert_peak", peak_ratio, "count", self.name)

    @staticmethod
    def _fact(doc: Document, line: Line, kind: str, number: int, value: float) -> Fact:
        return fact(doc, line, "serving.expert_tokens", value, "count", rank=number, label=kind.lower())


READERS: list[Reader] = [ServingMoeReader()]
