"""Quantities by their names: fields of single requests, counters printed twice, rates of memory benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, excerpt, fact

_FIELD = regex(
    r"(?P<name>[A-Za-z][A-Za-z0-9_.]*(?:[ -][a-z]{2,10}){0,2})[\"']?\s*(?:[=:]|：)\s*[\"']?(?P<n>\d[\d,]*(?:\.\d+)?) ?(?P<u>ms|us|s|sec|seconds)?(?![\w.])"  # noqa: E501
)
_KINDS = (
    ("ttft", regex(r"ttft|first_?token", re.I)),
    ("queue", regex(r"queue|wait(?:ed|ing)?(?:_|$)", re.I)),
    ("tpot", regex(r"tpot|itl|per_?(?:output_?)?token|inter_?token", re.I)),
    ("tokens", regex(r"(?:completion|output|generated|out|gen|new|decode)_?(?:tok(?:en)?s?|len(?:gth)?)(?:_|$)|(?:tok(?:en)?s?)_?(?:out|generated)", re.I)),  # noqa: E501
    ("e2e", regex(r"e2e|end_?to_?end|latency|total(?:_?(?:time|ms|s))?$|duration|elapsed|wall", re.I)),
)  # fmt: skip
_UNIT = regex(r"(?:^|_)(ms|millis|s|sec|secs|seconds|us)$|(?<=[a-z])(Ms)$", re.I)
_MS = {"ms": 1.0, "millis": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "seconds": 1e3, "us": 1e-3}


def _kind(name: str) -> tuple[str, float | None] | None:
    """What a field is, and the milliseconds of its unit where the name says one."""
    stem = name.replace("-", "_").replace(" ", "_").replace(".", "_")
    unit = _UNIT.search(stem)
    what = next((k for k, pattern in _KINDS if pattern.search(stem)), None)
    if what is None or re.search(r"prompt|input|throughput|_rate|per_?s", stem, re.I):
        return None
    word = (unit[1] or unit[2]).lower() if unit else ""
    return what, _MS.get(word)


class RequestFieldsReader:
    """Rows of requests whose fields are named: how long it took, how many tokens, how long for each."""

    name = "request_fields"
    needles: tuple[bytes, ...] = (b"tok", b"Tok")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """At least two rows with a whole latency and its tokens."""
        rows: list[list[tuple[str, float, str, Line]]] = []
        for line in excerpt(doc, 1 << 18):
            fields = list(self._fields(line))
            if {"e2e", "tokens"} <= {f[0] for f in fields}:
                rows.append(fields)
        if not 2 <= len(rows) <= 2000:
            return
        order = sorted(rows, key=lambda r: next(f[1] for f in r if f[0] == "e2e"))
        for n, row in (("shortest", order[0]), ("median", order[len(order) // 2]), ("longest", order[-1])):
            for what, value, unit, line in row:
                yield fact(doc, line, "request.field", value, unit, label=f"{what}|{n}")

    @staticmethod
    def _fields(line: Line) -> Iterator[tuple[str, float, str, Line]]:
        if len(line.text) > 4000:
            return
        seen: set[str] = set()
        for hit in _FIELD.finditer(line.text):
            got = _kind(hit["name"])
            if got is None or got[0] in seen:
                continue
            what, factor = got
            if what == "tokens":
                seen.add(what)
                yield what, amount(hit["n"]), "count", line
            elif factor := _MS.get((hit["u"] or "").lower(), factor):
                seen.add(what)
                yield what, amount(hit["n"]) * factor, "ms", line


_COUNTER = regex(
    r"^\W*(?P<name>(?!\d).{0,60}?(?:error|(?<![a-z])err(?![a-z])|replay|retr(?:y|ies|ans\w*)|symbol|discard|drop(?!out)|crc|downed|recover|flap|corrected|remap|retired|preempt|throttled|timeout)\w*[^\n:=]{0,30}?)\s*(?:[:=]|\.{2,}|\s{2,})[\s.:=]*(?P<a>\d[\d,]*)(?!\.\d)\b(?:\s*(?:->|→|=>|then|,|\||\s{2,})\s*(?P<b>\d[\d,]*)(?![.\d%])\b)?",
    re.I,
)


class CounterPairsReader:
    """Counters of errors that stand in a text twice: what they grew by in between."""

    name = "counter_pairs"
    needles: tuple[bytes, ...] = (b"rror", b"eplay", b"etr", b"ymbol", b"iscard", b"rop", b"CRC", b"crc", b"owned", b"reempt")  # fmt: skip  # noqa: E501

    def parse(self, doc: Document) -> Iterator[Fact]:
        """In texts of moderate size."""
        seen: dict[str, list[tuple[float, Line]]] = {}
        for line in excerpt(doc, 1 << 16):
            hit = _COUNTER.match(line.prefix + line.text) if len(line.text) <= 300 else None
            if hit is None:
                continue
            name = " ".join(re.sub(r"\W+", " ", hit["name"].lower()).split())
            seen.setdefault(name, []).append((amount(hit["a"]), line))
            if hit["b"]:
                seen[name].append((amount(hit["b"]), line))
        for name, readings in list(seen.items())[:40]:
            if len(readings) != 2:
                continue
            inputs = tuple(fact(doc, line, "counter.reading", v, "count", label=name) for v, line in readings)
            yield Fact(
                "counter.growth", readings[1][0] - readings[0][0], "count", Subject(label=name), kind="derived",
                formula="b - a", inputs=inputs, status=doc.status,
            )  # fmt: skip


_STREAM = regex(r"^\W*(?P<name>Copy|Mul|Scale|Add|Triad|Dot)\b:?\s+(?P<n>\d{4,8}(?:\.\d+)?)\s+\d+\.\d+")
_ON_GPU = regex(r"Using (?:CUDA|HIP|SYCL|OpenCL) device|BabelStream", re.I)


class BabelStreamReader:
    """Rates of BabelStream on a GPU, in MB/s of 1e6 bytes, read and written bytes counted."""

    name = "babelstream"
    needles: tuple[bytes, ...] = (b"MBytes/sec",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rows below the head."""
        lines = excerpt(doc, 1 << 18)
        if not any(_ON_GPU.search(line.text) for line in lines):
            return
        for line in lines:
            if hit := _STREAM.match(line.text):
                yield fact(doc, line, "kernel.bandwidth", float(hit["n"]) / 1000, "GB/s", label=hit["name"])


READERS: list[Reader] = [RequestFieldsReader(), CounterPairsReader(), BabelStreamReader()]
