"""Rates beside the names of network ports: sysfs files shown by `cat`, `name: 2x25G`, ranges of names, ports that are there."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_NIC = r"(?:mlx\d_(?:bond_)?\d+|mlx\d_bond\d*|(?:bnxt_re|irdma|hns_|efa_|rdmap|qedr|rxe|roce|ibp?)\d\w*|rocep\w+|ibp\w+|en[ospx]\w+|eth\d+|bond\d+)"  # noqa: E501
_SYSFS = regex(r"/sys/class/infiniband/(?P<nic>[\w]+)/ports/\d+/rate(?:\s*:\s*(?P<rate>\d+(?:\.\d+)?) Gb/sec)?")
_RATE_LINE = regex(r"^\s*(?P<rate>\d+(?:\.\d+)?) Gb/sec \(")
_RATE = r"(?:(?P<lanes>\d) ?[x×] ?)?(?P<rate>\d+(?:\.\d+)?) ?(?:G(?:b(?:ps|/s(?:ec)?|it/s)?|bE|E)?|GbE)\b(?!/s)"
_NAMED = regex(
    rf"(?<![\w/]){_NIC}(?:(?: ?(?:\.\.+|~|-|–|to|…) ?{_NIC})|(?:, ?{_NIC})+)?(?::\d)?\s*(?:[:=(|,]|\s)\s*(?:[A-Za-z ]{{0,14}}[:=(]? ?)?{_RATE}",  # noqa: E501
    re.I,
)
_NOTED = regex(rf"#.*?(?:{_RATE}|(?<!\w)(?P<named>\d{{2,3}}) ?[XNHEQF]DR\b)", re.I)  # a remark behind a listed port
_NAME = regex(rf"(?<![\w/]){_NIC}")
_PORT = regex(r"^\s*(?P<nic>mlx\d_\w+|bnxt_re\d+|irdma\d+) port \d+ ==> (?P<dev>\S+) \((?P<state>\w+)\)")
_PATH = regex(r"(?:mlx\d_\w+|bnxt_re\d+|irdma\d+)")


class NamedPortReader:
    """What each port can do where a person wrote it beside the name."""

    name = "named_ports"
    needles: tuple[bytes, ...] = (
        b"/ports/",
        b"==>",
        b"mlx5_",
        b"mlx4_",
        b"bnxt_re",
        b"irdma",
        b"efa_",
        b"eno",
        b"ens",
        b"eth",
        b"bond",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Rates by port; ports that `ibdev2netdev` lists."""
        waiting = ""
        listed: set[str] = set()
        for line in excerpt(doc, 1 << 15):
            file = _SYSFS.search(line.text)
            if file:
                waiting = file["nic"]
                if file["rate"]:
                    yield self._rate(doc, line, waiting, float(file["rate"]))
                continue
            bare = _RATE_LINE.match(line.text)
            if bare and waiting:
                yield self._rate(doc, line, waiting, float(bare["rate"]))
            waiting = ""
            port = _PORT.match(line.text)
            if port:
                yield fact(doc, line, "rdma.port.listed", port["dev"], nic=port["nic"])
                noted = _NOTED.search(line.text, port.end())
                if noted:
                    rate = float(noted["rate"] or noted["named"])
                    if rate in (10, 25, 40, 50, 56, 100, 200, 400, 800):
                        listed.add(port["nic"])
                        yield self._rate(doc, line, port["nic"], rate)
                continue
            if len(line.text) > 240:
                continue
            for hit in _NAMED.finditer(line.text):
                rate = float(hit["rate"]) * float(hit["lanes"] or 1)
                if rate not in (1, 2.5, 5, 10, 20, 25, 40, 50, 56, 100, 200, 400, 800):
                    continue
                for name in _NAME.findall(hit.group())[:4]:
                    if name not in listed:
                        listed.add(name)
                        yield fact(doc, line, "net.port_noted", float(hit["rate"]), "Gb/s", nic=name)

    @staticmethod
    def _rate(doc: Document, line: Line, nic: str, rate: float) -> Fact:
        return fact(doc, line, "net.port_noted", rate, "Gb/s", nic=nic)


READERS: list[Reader] = [NamedPortReader()]
