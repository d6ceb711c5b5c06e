"""Rates of pairs of machines, a variable with and without, ports of which one is down: small hand-written tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_LINES = 2000
_SMALL = 1 << 14
_HOST = r"(?!gpu|rank|nic|mlx|cpu|core|block|size|run|step)[a-z][a-z-]*[-_]?\d{1,4}"
_PAIR = regex(
    rf"^\W*(?P<a>{_HOST})\s*(?:-|->|<->|→|↔|,|/|to|and|–)\s*(?P<b>{_HOST})\s*[:=|]?\s+(?P<rate>\d+(?:\.\d+)?)\s*"
    r"(?P<unit>GB/s|Gb/s|Gbps|Gbit/s)?\s*$",
    re.IGNORECASE,
)
_RATES = regex(r"GB/s|Gb/s|Gbps|Gbit|busbw|bandwidth|sendrecv|带宽", re.IGNORECASE)
_SLOW = 0.75


class PairRates:
    """`n1-n2 46.1` for many pairs: the one machine that every slow pair shares."""

    name = "pair_rates"
    needles: tuple[bytes, ...] = (b"-", b"->", b"\xe2\x86\x92", b" to ", b",")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`spread.outlier` of that machine: a usual pair over one of its own."""
        pairs: dict[frozenset[str], tuple[float, Line]] = {}
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _PAIR.match(line.text)
            if hit is not None and hit["a"].lower() != hit["b"].lower():
                pairs.setdefault(frozenset((hit["a"].lower(), hit["b"].lower())), (float(hit["rate"]), line))
        names = {name for pair in pairs for name in pair}
        if len(pairs) < 4 or len(names) < 3 or _RATES.search(doc.data.decode("utf-8", "replace")) is None:
            return
        for name in sorted(names):
            own = [v for pair, v in pairs.items() if name in pair]
            rest = [v for pair, v in pairs.items() if name not in pair]
            if len(own) < 2 or len(rest) < 2:
                continue
            usual = median(v for v, _ in rest)
            if max(v for v, _ in own) < _SLOW * usual and min(v for v, _ in rest) > 0.85 * usual:
                best = min(rest, key=lambda r: abs(r[0] - usual))
                worst = max(own, key=lambda r: r[0])
                a, b = (
                    fact(doc, ln, "figure", v, "count", label=f"pair rate|{ln.text.strip()[:40]}")
                    for v, ln in (best, worst)
                )
                yield divided(
                    "spread.outlier",
                    (a, b),
                    subject=Subject(label=f"node|pair rate|{name}"),
                    spans=(doc.span(best[1]), doc.span(worst[1])),
                )
                return


_UNSET = regex(
    r"(?P<name>(?:NCCL|UCX|GLOO)_[A-Z0-9_]+)\W{0,3}\s*(?:unset|removed|not set|dropped)\W+(?P<good>\d+(?:\.\d+)?)"
    r"(?:\s*(?:GB/s|Gb/s))?\W+(?:(?:as (?:it )?is|as set|with it|set|before)\W+)(?P<bad>\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_HIGHER = regex(r"busbw|algbw|bandwidth|GB/s|Gb/s|throughput|带宽", re.IGNORECASE)


class UnsetTrials:
    """`busbw with NCCL_X unset 92, as is 46`: the rate without a variable and with it."""

    name = "unset_trials"
    needles: tuple[bytes, ...] = (b"unset", b"removed", b"not set", b"dropped")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`trial.slower` where the rate is clearly lower with it."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _UNSET.search(line.text)
            if hit is not None and _HIGHER.search(line.text) and float(hit["bad"]) < 0.87 * float(hit["good"]):
                yield fact(doc, line, "trial.slower", hit.group()[:120], label=hit["name"].upper())


_LISTED = regex(r"^\s*(?P<nic>\w+) port \d+ ==> \S+ \((?P<state>Up|Down)\)")


class ListedPorts:
    """`ibdev2netdev` with one port down among others that are up."""

    name = "listed_ports"
    needles: tuple[bytes, ...] = (b"(Down)",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`rdma.port.listed_down` where most are up."""
        found = [(hit, line) for line in excerpt(doc, _SMALL, _LINES) if (hit := _LISTED.match(line.text))]
        down = [(hit, line) for hit, line in found if hit["state"] == "Down"]
        if down and len(found) > 2 * len(down):
            for hit, line in down:
                yield fact(doc, line, "rdma.port.listed_down", hit["state"], nic=hit["nic"])


READERS: list[Reader] = [PairRates(), UnsetTrials(), ListedPorts()]
