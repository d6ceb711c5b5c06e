"""The summary of a fleet (``fleet.txt``): whom it is about, what the nodes came to, what stands apart."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

HEAD = b"# diagnose fleet, one line each"
_SUBJECT = regex(r"^subject ([\w.-]+): ([\w.]+) (\d+(?:\.\d+)?)$")
_VERDICT = regex(r"^verdict ([\w.]+): (\d+) of (\d+) nodes: (.+)$")
_APART = regex(
    r"^(slow|apart) ([\w.-]+) ([\w.]+) ?([^:]*): (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)[^,]*, median (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(.*)$"  # noqa: E501
)
_TIMES = regex(r", (\d+(?:\.\d+)?) times less")
_MIXED = regex(r"^mixed ([\w.]+) ?([^:]*): (.+) on (.+?); usually (.+)$")
_FAILED = regex(r"^failed ([\w.-]+): (.+)$")


class FleetReader:
    """Lines of a fleet's summary."""

    name = "fleet"
    needles = (HEAD,)

    def owns(self, doc: Document) -> bool:
        """It is ours from end to end."""
        return doc.head.startswith(HEAD)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts in order of lines."""
        for line in doc.lines():
            spans = (doc.span(line),)
            if hit := _SUBJECT.search(line.text):
                yield Fact("fleet.subject", hit[2], subject=Subject(host=hit[1]), spans=spans, status=doc.status)
            elif hit := _VERDICT.search(line.text):
                said = f"{hit[1]} on {hit[2]} of {hit[3]} nodes: {hit[4]}"
                yield Fact("fleet.verdict", float(hit[2]), "count", Subject(label=hit[1]), spans, said,
                           status=doc.status)  # fmt: skip
            elif hit := _APART.search(line.text):
                times = _TIMES.search(hit[7])
                who = Subject(host=hit[2], label=" ".join(filter(None, (hit[3], hit[4]))))
                said = f"{hit[3]} {hit[4]} of node {hit[2]} stands apart: {hit[5]}, median {hit[6]}"
                if hit[1] == "slow" and times:
                    yield Fact("fleet.slow_node", float(times[1]), "count", who, spans,
                               f"node {hit[2]} is the slow one: {hit[3]} {hit[4]} {hit[5]}, median {hit[6]}",
                               status=doc.status)  # fmt: skip
                else:
                    yield Fact("fleet.outlier", float(hit[5]), None, who, spans, said, status=doc.status)
            elif hit := _MIXED.search(line.text):
                said = f"{hit[1]} {hit[2]} is {hit[3]} on {hit[4]}, usually {hit[5]}"
                yield Fact("fleet.mixed", hit[3], None, Subject(host=hit[4].split(",")[0].split(" ")[0],
                           label=f"{hit[1]} {hit[2]}".strip()), spans, said, status=doc.status)  # fmt: skip
            elif hit := _FAILED.search(line.text):
                yield Fact("fleet.failed", hit[2], subject=Subject(host=hit[1]), spans=spans, status=doc.status)


READERS = [FleetReader()]
