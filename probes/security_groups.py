"""Rules of a security group, as the cloud's command line, Terraform or a console's copy show them."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_SMALL = 1 << 16
_LINES = 2000
_PROTOCOL = regex(r"\bIpProtocol[\"']?\s*[:=]\s*[\"']?(?P<a>-?\w+)|^\s*(?:ip_)?protocol\s*=\s*\"(?P<b>-?\w+)\"")
_GROUP = regex(
    r"UserIdGroupPairs[\"']?\s*:\s*\[\s*\{|\bGroupId[\"']?\s*:\s*[\"']?sg-|\bself\s*=\s*true|source_security_group_id\s*="
)
_NAME_OF = regex(r"[\"']?SecurityGroups[\"']?\s*:\s*\[?\s*\{\s*[\"']?GroupId")


class SecurityGroups:
    """One rule a block: its protocol, and whether it admits members of a group."""

    name = "security_groups"
    needles: tuple[bytes, ...] = (b"IpProtocol", b"aws_security_group", b"security_group_rule")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`net.group_rule`: the protocol, labelled `group` where members are admitted and `range` otherwise."""
        open_rule: tuple[str, Line] | None = None
        grouped = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = _NAME_OF.sub(" ", line.prefix + line.text)
            hits = list(_PROTOCOL.finditer(text))
            for hit, after in zip(hits, [*hits[1:], None], strict=False):
                if open_rule is not None:
                    yield self._rule(doc, open_rule, grouped)
                open_rule = (hit["a"] or hit["b"], line)
                part = text[hit.end() : after.start() if after is not None else None]
                grouped = _GROUP.search(part) is not None
            if not hits and open_rule is not None and _GROUP.search(text) is not None:
                grouped = True
        if open_rule is not None:
            yield self._rule(doc, open_rule, grouped)

    @staticmethod
    def _rule(doc: Document, rule: tuple[str, Line], grouped: bool) -> Fact:
        return fact(doc, rule[1], "net.group_rule", rule[0], label="group" if grouped else "range")


READERS: list[Reader] = [SecurityGroups()]
