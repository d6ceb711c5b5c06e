"""Single lines that settle a question: a tail at a time limit, a rate without a variable, targets, queries, NVLinks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import amount, computed, fact

_SMALL = 64 << 10
_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_STAT = regex(r"\b(?P<stat>p9\d(?:\.\d+)?|max)\b\W{0,3}(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s)\b", re.I)
_LIMIT = regex(
    r"time_?out\w*\W{0,6}(?:\w+ ?= ?)?(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s|sec)?\b|--max-time[ =](?P<m>\d+)", re.I
)
_CUT = regex(r"TimeoutError|ReadTimeout|timed? ?out", re.I)


class CappedTailReader:
    """`bench.capped`: the upper percentiles are one and the same number, which is the client's time limit."""

    name = "capped_tail"
    needles: tuple[bytes, ...] = (b"imeout", b"--max-time")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Two upper statistics at the limit, within a percent."""
        if doc.size > _SMALL:
            return
        limits: set[float] = set()
        tails: list[tuple[list[float], Line]] = []
        for line in doc.lines():
            text = line.prefix + line.text
            for hit in _LIMIT.finditer(text):
                limits.add(amount(hit["v"] or hit["m"]) * _SECONDS[(hit["u"] or "s").lower()])
            stats = [float(h["v"]) * _SECONDS[h["u"].lower()] for h in _STAT.finditer(text)]
            if stats:
                tails.append((stats, line))
        for limit in limits:
            at = [(v, line) for values, line in tails for v in values if abs(v - limit) <= 0.01 * limit]
            if limit > 0 and len(at) >= 2:
                yield computed(doc, at[0][1], "bench.capped", limit, "s", self.name)
                return


_WITHOUT = regex(
    r"\b(?:unset|env -u|without|w/o|no)\b[^\n]{0,60}?\b(?P<var>(?:NCCL|UCX)_[A-Z0-9_]+)"
    r"|\b(?P<var2>(?:NCCL|UCX)_[A-Z0-9_]+) (?:is )?(?:unset|removed|taken out|cleared|deleted)\b"
)
_RATE = regex(r"(?P<v>\d+(?:\.\d+)?) ?GB/s")


class EnvControlReader:
    """`env.control_gain`: the rate with a variable taken away over that with it, where both stand in one text."""

    name = "env_control"
    needles: tuple[bytes, ...] = (b"unset", b"env -u", b"without", b"w/o", b"removed", b"cleared")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The line that takes it away holds a rate, and so does a line beside it that does not."""
        if doc.size > _SMALL:
            return
        free: list[tuple[str, float, Line]] = []
        held: list[float] = []
        for line in doc.lines():
            text = line.prefix + line.text
            rates = [float(h["v"]) for h in _RATE.finditer(text)]
            if not rates:
                continue
            if hit := _WITHOUT.search(text):
                free.append((hit["var"] or hit["var2"], max(rates), line))
            else:
                held.extend(rates)
        for name, rate, line in free:
            if held and min(held) > 0 and rate >= 1.2 * min(held):
                gain = round(rate / min(held), 3)
                yield computed(doc, line, "env.control_gain", gain, "count", self.name, label=name)


_TARGET = regex(
    r"(?P<what>(?:p\d\d(?:\.\d+)? ?)?(?:TTFT|TPOT|ITL|E2E|latency|step time|首字|时延)(?: p\d\d)?)\W{0,4}"
    r"(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|s)"
    r" ?[(（,;]? ?(?:target|SLO|objective|limit|goal|目标|要求)\W{0,5}(?P<t>\d+(?:\.\d+)?) ?(?P<tu>ms|s)",
    re.I,
)


class TargetReader:
    """`target.ratio`: a measured time over the target that stands behind it."""

    name = "targets"
    needles: tuple[bytes, ...] = (b"target", b"SLO", b"objective", b"goal", "目标".encode(), "要求".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Each pair of a line."""
        if doc.size > _SMALL:
            return
        for line in doc.lines():
            for hit in _TARGET.finditer(line.prefix + line.text):
                limit = float(hit["t"]) * _SECONDS[hit["tu"].lower()]
                if limit > 0:
                    ratio = round(float(hit["v"]) * _SECONDS[hit["u"].lower()] / limit, 4)
                    label = hit["what"].strip().lower()
                    yield computed(doc, line, "target.ratio", ratio, "count", self.name, label=label)


_QUERY = regex(
    r"(?P<fn>rate|irate|increase|delta|max_over_time|avg_over_time)\((?P<name>[\w:]+)(?:\{[^}]*\})?\[(?P<n>\d+)(?P<w>[smh])\]\)"
    r"\)*(?: by \([^)]*\))?\s*(?:=|=>|->|:)?\s*(?P<v>\d+(?:\.\d+)?)\b"
)


class QueryReader:
    """What a query of Prometheus returned for preemptions and for the fill of the cache."""

    name = "promql"
    needles: tuple[bytes, ...] = (b"preemptions_total", b"cache_usage_perc", b"token_usage")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A rate becomes the increase over its window."""
        for line in doc.holding("rate(", "increase(", "delta(", "_over_time("):
            for hit in _QUERY.finditer(line.text):
                window = float(hit["n"]) * _SECONDS[hit["w"]]
                value = float(hit["v"]) * (window if "rate" in hit["fn"] else 1)
                if "preemption" in hit["name"] and value > 0 and "over_time" not in hit["fn"]:
                    yield computed(doc, line, "serving.preempted_growth", round(value, 1), "count", self.name)
                elif "over_time" in hit["fn"] and re.search(r"cache_usage|token_usage", hit["name"]) and value <= 1:
                    yield fact(doc, line, "serving.kv_usage", value, "fraction", around=hit["v"], label="peak")


_ASKED = regex(r"nvidia-smi\s+nvlink\s+(?:-s|--status)\b(?P<rest>[^\n]*)")
_EMPTY = regex(r"^\s*(?:[(<\[]?(?:no output|empty|nothing|none|无输出|空)[)>\]]?\W*)?$|^\s*[$#] ", re.I)


class EmptyNvlinkReader:
    """`nvlink.absent`: the tool that lists NVLinks was asked and listed none."""

    name = "nvlink_empty"
    needles: tuple[bytes, ...] = (b"nvidia-smi nvlink",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """What follows is said to be empty, or names GPUs and no link."""
        if doc.size > _SMALL:
            return
        lines = list(doc.lines())
        for at, line in enumerate(lines):
            hit = _ASKED.search(line.prefix + line.text)
            if hit is None:
                continue
            below = [(row.prefix + row.text) for row in lines[at + 1 : at + 40]]
            said = re.search(r"no output|empty|nothing|无输出", hit["rest"], re.I)
            cards = 0
            for row in below:
                if re.match(r"\s*GPU \d+:", row):
                    cards += 1
                elif re.match(r"\s*Link \d+", row):
                    return
                else:
                    break
            spoken = below and _EMPTY.match(below[0]) and below[0].strip() and not re.match(r"\s*[$#] ", below[0])
            if said or cards >= 2 or spoken:
                yield fact(doc, line, "nvlink.absent", "true")
            return


_CONFIGURED = regex(
    r"(?:config|\.ya?ml|proxy|gateway|litellm|default|envoy|nginx|router)[^\n]*?\bmax_(?:new_|completion_)?tokens\W{1,4}(?P<n>\d{2,6})\b",
    re.I,
)
_CHANGED = regex(r"\b(?P<var>(?:NCCL|UCX)_[A-Z0-9_]+)\W{1,3}(?P<old>[\w.]+)?\s*(?:->|=>|→)\s*(?P<new>[\w.]+)")


class ReplyLimitReader:
    """`serving.reply_limit`: a gateway's or a default's own `max_tokens`."""

    name = "reply_limit"
    needles: tuple[bytes, ...] = (b"_tokens",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Where the line says that it is a configuration."""
        if doc.size > _SMALL:
            return
        for line in doc.lines():
            if hit := _CONFIGURED.search(line.prefix + line.text):
                yield fact(doc, line, "serving.reply_limit", amount(hit["n"]), "count", around=hit["n"])


class ChangedVariableReader:
    """`env.control_gain` of two set-ups whose difference (`NCCL_P2P_LEVEL: SYS -> LOC`) and rates are told."""

    name = "changed_variable"
    needles: tuple[bytes, ...] = (b"NCCL_", b"UCX_")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One variable differs, two rates follow, and the second set-up is the slow one."""
        if doc.size > _SMALL:
            return
        changed: list[tuple[str, str, Line]] = []
        rates: list[tuple[float, Line]] = []
        for line in doc.lines():
            text = line.prefix + line.text
            if hit := _CHANGED.search(text):
                changed.append((hit["var"], hit["new"], line))
            elif changed and (found := _RATE.search(text)):
                rates.append((float(found["v"]), line))
        if len(changed) == 1 and len(rates) == 2 and rates[0][0] >= 1.3 * rates[1][0] > 0:
            name, new, at = changed[0]
            yield fact(doc, at, "env.var", new, around=name, label=name)
            gain = round(rates[0][0] / rates[1][0], 3)
            yield computed(doc, rates[1][1], "env.control_gain", gain, "count", self.name, label=name)


_LOADED = regex(r"locust|\bk6\b|bench|load[ _-]?test|harness|script|压测", re.I)
_REAL = regex(r"\bprod(?:uction)?\b|\breal\b|\busers?\b|customer|live traffic|线上|生产", re.I)
_TOKENS = regex(r"max_tokens\W{1,4}(?P<n>\d+)|output(?: length| tokens)?\W{1,3}(?P<m>\d+)", re.I)


class UnlikeRealReader:
    """`bench.output_ratio`: the output that production asks for over that of the load, or the reverse."""

    name = "unlike_real"
    needles: tuple[bytes, ...] = (b"max_tokens", b"output")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One line speaks of the load, another of production."""
        if doc.size > _SMALL:
            return
        load: float | None = None
        real: tuple[float, Line] | None = None
        for line in doc.lines():
            text = line.prefix + line.text
            hit = _TOKENS.search(text)
            if hit is None:
                continue
            asked = amount(hit["n"] or hit["m"])
            if _REAL.search(text):
                real = asked, line
            elif _LOADED.search(text):
                load = asked
        if load and real and min(load, real[0]) > 0:
            ratio = round(max(load, real[0]) / min(load, real[0]), 3)
            yield computed(doc, real[1], "bench.output_ratio", ratio, "count", self.name)


READERS: list[Reader] = [
    CappedTailReader(), EnvControlReader(), TargetReader(), QueryReader(), EmptyNvlinkReader(), UnlikeRealReader(),
    ReplyLimitReader(), ChangedVariableReader(),
]  # fmt: skip
