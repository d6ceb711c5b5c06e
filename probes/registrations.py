"""Where the parts of a service registered themselves: parts that look for each other in different places never meet."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_KEY = regex(
    r"\b(?:v1/)?(?:instances|endpoints|services|components)/(?P<space>[\w.-]+)/(?:components?/)?(?P<part>[\w.-]+)"
)
_LABELS = regex(r'dynamo_namespace="(?P<space>[^"]+)"')
_PART = regex(r'dynamo_component="(?P<part>[^"]+)"')
_SET = regex(
    r"(?<![\w])(?P<key>DYN_NAMESPACE|DYNAMO_NAMESPACE|dynamo[_-]?namespace|--dyn-namespace|NATS_(?:SUBJECT|STREAM)(?:_PREFIX)?|KAFKA_TOPIC"
    r"|(?:REQUEST|PREFILL|JOB|TASK)?_?QUEUE_NAME|(?:prefill|request)[_-]queue(?:[_-]name)?|etcd[_-]prefix|ETCD_PREFIX|discovery[_-]prefix"
    r"|KV_EVENT_TOPIC|--kv-events-topic|cluster[_-]name|group[_-]id|RAY_NAMESPACE|lmcache_instance_group)"
    r"[\"']?\s*(?:[=:]|\s)\s*[\"']?(?P<value>[\w./:-]+)", re.IGNORECASE,
)  # fmt: skip


class RegistrationReader:
    """Keys of a registry, labels of metrics, and settings that name the place."""

    name = "registrations"
    needles: tuple[bytes, ...] = (
        b"instances/", b"endpoints/", b"services/", b"components/", b"amespace", b"AMESPACE", b"QUEUE", b"queue", b"SUBJECT",  # noqa: E501
        b"TOPIC", b"topic", b"prefix", b"PREFIX", b"cluster", b"group_id", b"STREAM", b"group-id",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Spaces by part, and settings with their values."""
        seen: set[tuple[str, str]] = set()
        for line in excerpt(doc, 1 << 18):
            for hit in _KEY.finditer(line.text):
                yield from self._part(doc, line, hit["part"], hit["space"], seen)
            space, part = _LABELS.search(line.text), _PART.search(line.text)
            if space and part:
                yield from self._part(doc, line, part["part"], space["space"], seen)
            found = _SET.search(line.text)
            if found and ("setting " + found["key"].lower(), found["value"]) not in seen:
                seen.add(("setting " + found["key"].lower(), found["value"]))
                yield fact(doc, line, "registration.setting", found["value"], label=found["key"].lower())

    @staticmethod
    def _part(doc: Document, line: Line, part: str, space: str, seen: set[tuple[str, str]]) -> Iterator[Fact]:
        if (part, space) not in seen and len(seen) < 200:
            seen.add((part, space))
            yield fact(doc, line, "registration.part", space, label=part)


READERS: list[Reader] = [RegistrationReader()]
