"""Control rows: a line that says what was set otherwise and how it went, and rows of releases that part with time.

``with UCX_NET_DEVICES=mlx5_4:1: 24.3 GB/s`` names the lever and the figure it gives; what it was before stands in the
lines above it. A library whose rows start alike and of which one gets worse from column to column is another control:
only the release differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS

from .facts import excerpt, fact

_SMALL = 1 << 15
_LINES = 200
_UNIT = r"GB/s|GiB/s|MB/s|MiB/s|Gb/s|Gbit/s|tok(?:ens)?/s|req/s|ms|us|µs|s"
_FIGURE = regex(rf"(?<![\w.:,/=-])(?P<v>\d[\d,]*(?:\.\d+)?)(?: ?(?P<u>{_UNIT})\b)?(?![\w:%=]|\.\d)")
_NAMED = regex(rf"(?<![\w/])(?:{_UNIT})(?![\w/])")
_BIND = r"(?:--(?:cpunodebind|membind|cpuset-mems|preferred|physcpubind)[= ]\d\S*|numactl (?:-[NmC] ?\d\S*\s*)+|-[Nm] ?\d\b)"  # noqa: E501
_SETTINGS = (
    ("binding", regex(rf"{_BIND}(?:\s+{_BIND}|\s+--cpuset-cpus[= ]\S+)*")),
    ("net_devices", regex(r"(?:UCX_NET_DEVICES|UCX_IB_DEVICES)[= ](?P<v>[\w:,.-]+?)(?=[:;,.)]?(?:\s|$))")),
    ("net_devices", regex(r"(?<![\w=])(?P<v>(?:mlx5|bnxt_re|efa|rdmap\w*)_?\d+(?::1)?)(?=\s|:\s)")),
)
_CONTROL = regex(
    r"\b(?:with|again|using|rebound|re-?bound|bound to|set to|moved to|after|instead)\b|改成|改为|换成|设为|设成|绑到|再测",  # noqa: E501
    re.I,
)
_PER_TIME = ("ms", "us", "µs", "s")


class ControlLines:
    """`control.gain`: how many times better the same work went with another setting, labelled ``lever|setting|peers``."""  # noqa: E501

    name = "control_lines"
    needles: tuple[bytes, ...] = (b"bind", b"numactl", b"cpuset", b"_DEVICES", b"mlx5_", b"bnxt_re")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a control line; ``peers`` where something reached that figure before, too."""
        lines = excerpt(doc, _SMALL, _LINES)
        for at, line in enumerate(lines):
            text = line.prefix + line.text
            if _CONTROL.search(text) is None:
                continue
            for lever, shape in _SETTINGS:
                hit = shape.search(text)
                if hit is None:
                    continue
                got = _gain(text[hit.end() :], lines[max(0, at - 14) : at])
                if got is not None:
                    gain, beside = got
                    setting = (hit.groupdict().get("v") or hit.group()).strip().rstrip(":;,")
                    yield Fact(
                        "control.gain", round(gain, 3), "count",
                        Subject(label=f"{lever}|{setting[:80]}|{'peers' if beside else 'alone'}"), (doc.span(line),),
                        kind="derived", formula="reader:control_lines", status=doc.status,
                    )  # fmt: skip
                break


def _figures(text: str, unit: str | None) -> list[tuple[float, str | None]]:
    named = _NAMED.search(text)
    other = named.group() if named else unit
    out = []
    for hit in _FIGURE.finditer(text):
        if hit["u"] or "." in hit["v"]:
            out.append((float(hit["v"].replace(",", "")), hit["u"] or other))
    return out


def _gain(behind: str, above: list[Line]) -> tuple[float, bool] | None:
    """The largest gain of a figure behind the setting over the worst one of its unit above it."""
    before: list[tuple[float, str | None]] = []
    head: str | None = None  # the unit that a head of columns names holds for the rows below it
    for line in above:
        text = line.prefix + line.text
        named = _NAMED.search(text)
        head = named.group() if named else head
        before += _figures(text, head)
    units = [u for _, u in before if u]
    best: tuple[float, bool] | None = None
    for value, unit in _figures(behind, units[-1] if units else None):
        same = [v for v, u in before if u == unit and v > 0]
        if not same or value <= 0:
            continue
        later = unit in _PER_TIME
        gain = max(same) / value if later else value / min(same)
        beside = any(abs(v - value) <= 0.07 * value for v in same)
        if gain >= 1.15 and (best is None or gain > best[0]):
            best = gain, beside
    return best


_ROW = regex(
    r"^\W*(?P<name>[A-Za-z][A-Za-z .-]{1,18}?)[ =-]?v?(?P<version>\d+\.\d+(?:\.\d+)*\w*)(?:\W{0,3}\s{2,}|\s*[:|]\s*)"
    r"(?P<row>\d+(?:\.\d+)?(?: ?[KMGT]i?B?\b)?(?:[\s|]+\d+(?:\.\d+)?(?: ?[KMGT]i?B?\b)?){2,})"
)


class VersionRows:
    """Rows of releases: all start alike, one gets worse from column to column, another stays."""

    name = "version_rows"
    needles: tuple[bytes, ...] = (
        b"UCX",
        b"ucx",
        b"NCCL",
        b"nccl",
        b"LLM",
        b"lang",
        b"NIXL",
        b"nixl",
        b"llama",
        b"HPC-X",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`version.drift`, last over first of the worst row, labelled ``name|worse release|steady release``."""
        rows: dict[str, list[tuple[str, list[float], Line]]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _ROW.match(line.prefix + line.text)
            if hit is not None:
                values = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", hit["row"])]
                rows.setdefault(hit["name"].strip().lower(), []).append((hit["version"], values, line))
        for name, got in rows.items():
            drifts = [(v, n, line) for v, n, line in got if _drift(n) >= 2.0]
            steady = [(v, n, line) for v, n, line in got if max(n) <= 1.08 * min(n)]
            for bad, one, line in drifts[:1]:
                for good, two, other in steady[:1]:
                    if bad != good and abs(one[0] - two[0]) <= 0.2 * two[0]:
                        yield Fact(
                            "version.drift", round(_drift(one), 3), "count", Subject(label=f"{name}|{bad}|{good}"),
                            (doc.span(line), doc.span(other)), kind="derived", formula="reader:version_rows",
                            status=doc.status,
                        )  # fmt: skip


def _drift(values: list[float]) -> float:
    """How far a row went from its first value, where it went one way only; else one."""
    up = all(a <= 1.02 * b for a, b in pairwise(values))
    down = all(b <= 1.02 * a for a, b in pairwise(values))
    if not (up or down) or min(values) <= 0:
        return 1.0
    return max(values[-1] / values[0], values[0] / values[-1])


_TWICE = regex(r"twice|second|\bthen\b|again|identical|\bsame\b|repeat|两次|第二|再(?:发|次|来)|相同|同一", re.I)
_CACHED = r"(?:#?cached[-_ ]tokens?|cached_prompt_tokens|cache_read_input_tokens|cacheReadTokens)"
_TWO = regex(
    rf"{_CACHED}\W{{0,4}}(?P<a>\d[\d,]*)\b(?:[^\d\n]|#\d\b){{1,40}}?(?:{_CACHED}\W{{0,4}})?(?P<b>\d[\d,]*)\b", re.I
)


class RepeatedPrompt:
    """The same prompt sent twice by hand, with what came from the cache each time."""

    name = "repeated_prompt"
    needles: tuple[bytes, ...] = (b"cached", b"cache_read")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`serving.repeat_hit`: tokens that the second one took from the cache, after a first that took none."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _TWO.search(line.prefix + line.text)
            if hit is None or _TWICE.search(line.prefix + line.text) is None:
                continue
            first, second = (float(hit[k].replace(",", "")) for k in ("a", "b"))
            if first <= 32 and second >= 128:
                yield fact(doc, line, "serving.repeat_hit", second, "count")


_USERS = regex(r"\b(?:VUs?|users|clients|concurrency|streams|threads|并发)\s*[=:]\s*(?P<n>\d{1,6})\b", re.I)
_RATES = regex(r"\b(?:req(?:uests?)?/s(?:ec)?|rps|qps|infer/sec|throughput)\s*[=:]\s*(?P<v>\d+(?:\.\d+)?)", re.I)
_LATENCY = regex(r"\b(?:avg|mean|median|p50|latency)\s*[=:]\s*(?P<v>\d+(?:\.\d+)?) ?(?P<u>ms|us|s)\b", re.I)


class LoadPoints:
    """Lines ``VUs=32 req/s=6.1 avg=5.25s`` of a load test."""

    name = "load_points"
    needles: tuple[bytes, ...] = (b"VU", b"vu", b"users=", b"clients=", b"oncurrency=", "并发".encode(), b"threads=")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`load.point`, labelled ``request_rate|users`` or ``latency|users``; times in ms."""
        for line in excerpt(doc, _SMALL, _LINES):
            users, rate, late = (shape.search(line.text) for shape in (_USERS, _RATES, _LATENCY))
            if users is None or rate is None or late is None:
                continue
            time = float(late["v"]) * IN_MS[late["u"].lower()]
            for name, value in (("request_rate", float(rate["v"])), ("latency", time)):
                yield Fact(
                    "load.point", value, "count", Subject(label=f"{name}|{users['n']}"), (doc.span(line),),
                    kind="derived", formula="reader:load_points", status=doc.status,
                )  # fmt: skip


READERS: list[Reader] = [ControlLines(), VersionRows(), RepeatedPrompt(), LoadPoints()]
