"""NCCL's network lines host by host: who uses which adapter, and whether GPUs are reached directly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact

_HOSTS = 64
_USE = regex(
    r"(?:(?P<host>[^\s:\[\]]+):\d+:\d+ )?(?:\[(?P<dev>\d{1,2})\] )?(?:NCCL INFO )?"
    r"(?:Channel|Ring|Tree) \d+(?:/\d+)? ?: "
    r"(?P<a>\d+)(?:\[(?P<ai>\w+)\])? -> (?P<b>\d+)(?:\[(?P<bi>\w+)\])?"
    r" (?:\[(?P<way>send|receive)\] )?via NET/(?P<net>[\w /-]*?)/(?P<nic>\d{1,2})(?P<rest>(?:/\w+)*)"
)


@dataclass
class _Host:
    """Receive lines of a host (all its network lines where none says which way), with and without GDRDMA."""

    first: Line
    direct: int = 0
    staged: int = 0


class NetworkUse:
    """`nccl.nic_use` of each GPU, and the share of a host's lines that carry GDRDMA."""

    name = "nccl_hosts"
    needles: tuple[bytes, ...] = (b"via NET/",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Adapters first, then hosts."""
        hosts: dict[tuple[str, str], _Host] = {}
        used: dict[tuple[str | None, int, str], int] = {}
        for line in doc.lines():
            hit = _USE.search(line.text) if "via NET/" in line.text else None
            if hit is None or "Socket" in hit["net"]:
                continue
            if hit["host"] and len(hosts) < _HOSTS:
                state = hosts.setdefault((hit["host"], hit["way"] or ""), _Host(line))
                if "GDRDMA" in hit["rest"]:
                    state.direct += 1
                else:
                    state.staged += 1
            gpu = _gpu(hit)
            if gpu is None:
                continue
            key = (hit["host"], gpu, hit["nic"])
            used[key] = used.get(key, 0) + 1
            if used[key] == 1 and len(used) <= 4 * _HOSTS:
                yield fact(doc, line, "nccl.nic_use", hit["nic"], host=hit["host"], gpu=gpu)
        for (host, way), state in hosts.items():
            share = state.direct / (state.direct + state.staged)
            yield computed(
                doc, state.first, "nccl.host_gdr", share, "fraction", self.name, host=host, label=way or None
            )


def _gpu(hit: re.Match[str]) -> int | None:
    """The device of the process that speaks: in its prefix, else in brackets behind its rank."""
    if hit["dev"]:
        return int(hit["dev"])
    own = {"send": hit["ai"], "receive": hit["bi"]}.get(hit["way"] or "")
    return int(own) if own and own.isdecimal() and len(own) <= 2 else None


READERS: list[Reader] = [NetworkUse()]
