"""A third-party plugin: what a vendor of an imaginary GPU link would ship. It imports `diagnose` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.collect import Capture, Collected, Collector
from diagnose.document import Document
from diagnose.host import Host
from diagnose.models import Fact, Subject
from diagnose.plugin import API

DIAGNOSE_API = API
_ROW = re.compile(r"^port (\d+)\s+lanes (\d+)/(\d+)\s+replays (\d+)")


class AcmeReader:
    """`acmectl status`: a row a port, lanes that are up of those there are, replays."""

    name = "acmectl"
    needles = (b"acmectl",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Lanes down and replays of each port."""
        for line in doc.lines():
            if hit := _ROW.search(line.text):
                port, spans = Subject(label=f"port {hit[1]}"), (doc.span(line),)
                up = Fact("acme.lanes", float(hit[2]), "count", port, spans, status=doc.status)
                there = Fact("acme.lanes.max", float(hit[3]), "count", port, spans, status=doc.status)
                yield from (up, there)
                yield Fact(
                    "acme.lanes.share", up.value / there.value, "fraction", port, kind="derived", formula="a / b",
                    inputs=(up, there), status=doc.status,
                )  # fmt: skip
                yield Fact("acme.replays", float(hit[4]), "count", port, spans, status=doc.status)


def readers() -> list[AcmeReader]:
    """Entry point `diagnose.probes`."""
    return [AcmeReader()]


def _ready(host: Host) -> str | None:
    return None if host.find("acmectl") else "acmectl is not installed here"


def _collect(host: Host) -> Iterator[Collected]:
    yield Capture.of("acme.status", host.run(["acmectl", "status"], timeout=10))


def collectors() -> list[Collector]:
    """Entry point `diagnose.collectors`."""
    return [Collector("acme.status", _ready, _collect)]
