"""Rates of adapters and paths as people write them: one busy NIC of many, what the network is called, a rate a path."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount, divided, excerpt
from .rdma import NIC

_PER_NIC = regex(rf"\b({NIC})\b(?::\d)?([^\n]*?)(?=\b{NIC}\b|$)")
_FIGURE = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:[eE]\+?\d+)?)(?![\w.]*[A-Za-z_]{3,}\d)")
_TRAFFIC = regex(
    r"xmit|rcv_data|tx|rx|traffic|[GMK]i?B/s|Gb(?:it)?/?p?s|Gbps|throughput|bandwidth|util|bytes"
    r"|流量|速率|带宽|发送|接收",
    re.I,
)
_INDEX = regex(r"/ports?/\d+/(?:hw_)?counters/\w+|\bport[ _]?\d\b|:\d\b", re.I)
# Data rates of a link by the name of its generation, four lanes.
_NAMES = {
    "qdr": 40.0, "fdr": 56.0, "edr": 100.0, "hdr100": 100.0, "hdr": 200.0, "ndr200": 200.0, "ndr": 400.0, "xdr": 800.0,
}  # fmt: skip
_NAMED = regex(
    r"\b(hdr100|ndr200|[qfehnx]dr)[ -]?(\d{2,3})?\b(?!.{0,6}@)"
    r"|\b(\d{2,3})\s?(?:gbe|g(?:bit|b)?(?:/s|ps)?(?![\w/]))"
    r"(?=.{0,30}\b(?:nic|hca|link|port|infiniband|ib|roce|ethernet|connectx|fabric|rail|network)\b)"
    r"|\b(?:connectx-?\d|infiniband|roce|hca|nic|fabric|link|port speed|speed)\b[^\n]{0,20}?"
    r"\b(\d{2,3})\s?(?:gbe|gb?(?:it)?(?:/s|ps)?)\b",
    re.I,
)


class TrafficReader:
    """Traffic or counters of several adapters: does one of them carry it all?"""

    name = "nic_traffic"
    needles = (b"mlx5_", b"mlx4_", b"bnxt_re", b"rdmap", b"rocep", b"ibp", b"irdma", b"efa_")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact where the busiest of three or more adapters carries nine tenths."""
        found: dict[str, tuple[float, Line]] = {}
        titled = False
        for line in excerpt(doc, 1 << 16):
            text = _INDEX.sub(lambda m: m.group().translate(_DIGITS), line.text)
            named = re.search(rf"\b{NIC}\b", text)
            if named is None:
                titled = bool(_TRAFFIC.search(text)) if re.search(r"[A-Za-z一-鿿]", text) else titled
                continue
            if not (titled or _TRAFFIC.search(text)):
                continue
            for nic, rest in _PER_NIC.findall(text):
                figures = [amount(n) for n in _FIGURE.findall(rest)]
                if not figures:
                    continue
                # before and after of a counter, or plain readings
                value = figures[-1] - figures[0] if len(figures) == 2 and figures[0] > 1e6 else figures[-1]
                if nic not in found or value > found[nic][0]:
                    found[nic] = (max(value, 0.0), line)
        total = sum(v for v, _ in found.values())
        if len(found) < 3 or total <= 0:
            return
        nic, (most, line) = max(found.items(), key=lambda kv: kv[1][0])
        idle = [other for other, (v, _) in found.items() if v <= 0.02 * most]
        if most / total >= 0.9 and len(idle) >= len(found) - 1:
            spans = (doc.span(line, nic), *(doc.span(found[n][1], n) for n in idle[:2]))
            subject = Subject(label=f"of {len(found)}", nic=nic)
            yield Fact(
                "movement.one_nic", round(most / total, 3), "fraction", subject, spans, kind="derived",
                formula="reader:nic_traffic", status=doc.status,
            )  # fmt: skip


_DIGITS = str.maketrans("0123456789", "__________")


class NamedRateReader:
    """ "HDR 200", "2x NDR400", "100 GbE NICs": what the network should carry."""

    name = "named_rate"
    needles = (b"DR", b"dr", b"GbE", b"gbe", b"Gb", b"G ", b"Rate:", b"ConnectX")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The first rate named in a short text."""
        for line in excerpt(doc, 1 << 14):
            hit = _NAMED.search(line.text)
            if hit is None:
                continue
            name, digits, before, after = hit.groups()
            given = digits or before or after
            if given and not float(given):
                continue  # the rest of a figure whose start is cut off
            rate = float(given) if given else _NAMES[name.lower()]
            if rate in (10, 25, 40, 50, 56, 100, 200, 400, 800):
                span = (doc.span(line, hit.group()),)
                yield Fact(
                    "movement.named_rate", rate, "Gb/s", Subject(label=hit.group()[:40]), span, status=doc.status
                )
                return


_RESOURCE = regex(
    r"\b(tcp|rc_mlx5|rc_verbs|rc_x|rc|dc_mlx5|ud_mlx5|ud_verbs|cuda_ipc|gdr_copy|sysv|posix|cma|shm)(?:/([\w.:-]+))?\b"
)
_RATE = regex(r"(\d[\d,]*(?:\.\d+)?)\s*([MG]i?B/s(?:ec)?|Gb/s(?:ec)?|Gbps|Gbit/s)", re.I)


class PathRateReader:
    """One rate and one transport a line, as of the same test in two directions or between two pairs."""

    name = "path_rate"
    needles = (b"tcp", b"rc_", b"cuda_ipc", b"dc_mlx5")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rates by transport, and the best over that of TCP."""
        best: dict[str, Fact] = {}
        for line in excerpt(doc, 1 << 14):
            kinds = {m.group(1) for m in _RESOURCE.finditer(line.text)}
            rates = _RATE.findall(line.text)
            if len(kinds) != 1 or len(rates) != 1 or "TLS" in line.text:
                continue
            got = canonical(amount(rates[0][0]), rates[0][1])
            if got is None:
                continue
            value = got[0] / 8 if got[1] == "Gb/s" else got[0]
            kind = kinds.pop()
            if kind not in best or value > float(best[kind].value or 0):
                best[kind] = Fact(
                    "movement.path_rate", value, "GB/s", Subject(label=kind), (doc.span(line, kind),), status=doc.status
                )
        if len(best) >= 2:
            yield from best.values()


_SET = regex(r"(?<![\w-])-?x?\s?(UCX_[A-Z0-9_]+)\s*=\s*([^\s|,;]+)|\b(UCX_[A-Z0-9_]+) (unset|removed|default)\b")
_END = regex(r"[\s:=|](\d[\d,]*(?:\.\d+)?)\s*([A-Za-z/]*)\s*\|?\s*$")
_PLAIN = regex(r"\b(?:default|unset|none|without|as is|no env|baseline|no variable)\b|默认|不设", re.I)


class EnvEffectReader:
    """The same test with a UCX variable set in two ways, one line each."""

    name = "ucx_env_effect"
    needles = (b"UCX_",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The quotient of the extremes for the variable that differs."""
        rows: list[tuple[str, str, float, Line]] = []
        for line in excerpt(doc, 1 << 14):
            found = [(a or c, b or d) for a, b, c, d in _SET.findall(line.text)]
            end = _END.search(_SET.sub(" = ", line.text))
            if end is None or len(found) > 1:
                continue
            if found or _PLAIN.search(line.text):
                name, value = found[0] if found else ("", "default")
                rows.append((name, value, amount(end.group(1)), line))
        names = {name for name, _, _, _ in rows if name}
        if len(names) != 1 or len({value for _, value, _, _ in rows}) < 2:
            return
        low, high = min(rows, key=lambda r: r[2]), max(rows, key=lambda r: r[2])
        if low[2] <= 0 or low[1] == high[1]:
            return
        name = names.pop()

        def fact(row: tuple[str, str, float, Line]) -> Fact:
            return Fact(
                "movement.setting_rate", row[2], "count", Subject(label=f"{name}={row[1]}"), (doc.span(row[3]),),
                status=doc.status,
            )  # fmt: skip

        a, b = fact(high), fact(low)
        yield from (a, b)
        yield divided("ucx.env_effect", (a, b), subject=Subject(label=name))


READERS: list[Reader] = [TrafficReader(), NamedRateReader(), PathRateReader(), EnvEffectReader()]
