"""Size of what one operation moves, where a person wrote it beside how the operations are cut."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_CUT = regex(
    r"one (?:\w+ )?(?:descriptor|read|write|op(?:eration)?|transfer|post|request|memcpy|put|get)?\s*(?:for|per) (?:each|every)?|each (?:layer|block|page|head)|per (?:layer|block|page|head)"  # noqa: E501
    r"|one by one|descriptors?\b|entries x|个 ?descriptor|每层|逐层|每块|每页|一个一个|逐块", re.IGNORECASE,
)  # fmt: skip
_UNIT = r"(?P<u>B|bytes?|KB|KiB|K)\b"
_SIZES = (
    regex(rf"=\s*(?P<n>\d[\d,]*(?:\.\d+)?) ?{_UNIT}", re.IGNORECASE),
    regex(rf"\b(?:entries|descriptors|ops|reads|writes|blocks|pieces) ?[x×*] ?(?P<n>\d[\d,]*(?:\.\d+)?) ?{_UNIT}", re.IGNORECASE),  # noqa: E501
    regex(rf"(?<![\w.])(?P<n>\d[\d,]*(?:\.\d+)?)[- ]?{_UNIT}[- ](?:reads?|writes?|descriptors?|transfers?|ops|operations|pieces|gets?|puts?|blocks?|chunks?)", re.IGNORECASE),  # noqa: E501
    regex(rf"(?:each|every|per (?:descriptor|op\w*|read|layer|block)|每个?(?:块|层|descriptor|页)?(?:是|只有|约|=)?)\s*(?:is |of |only |about )?(?P<n>\d[\d,]*(?:\.\d+)?) ?{_UNIT}", re.IGNORECASE),  # noqa: E501
)  # fmt: skip
_COUNT = regex(
    r"(?<![\d.])(?P<n>\d[\d,]{3,}) (?:per request|descriptors?|entries|ops|operations|reads|writes|pieces|个)",
    re.IGNORECASE,
)
_SCALE = {"b": 1.0, "byte": 1.0, "bytes": 1.0, "kb": 1e3, "kib": 1024.0, "k": 1024.0}


class PieceSizeReader:
    """``block = 16 tok x 576 x 2 B = 18432 B, one descriptor for each layer``."""

    name = "piece_sizes"
    needles: tuple[bytes, ...] = (
        b"escriptor", b"per layer", b"each layer", b"one for each", b"one by one", b"per block", b"one per", b"reads", b"each (", "每".encode(), "逐".encode(),  # noqa: E501
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Sizes under a MiB, and how many there are."""
        for line in excerpt(doc, 1 << 14):
            if len(line.text) > 400 or not _CUT.search(line.text):
                continue
            for shape in _SIZES:
                hits = list(shape.finditer(line.text))
                if hits:
                    size = float(hits[-1]["n"].replace(",", "")) * _SCALE[hits[-1]["u"].lower()]
                    if 64 <= size <= 1 << 20:
                        yield fact(doc, line, "kv.bytes_per_descriptor", size, "B", label="own")
                    break
            count = _COUNT.search(line.text)
            if count:
                yield fact(doc, line, "kv.descriptors", float(count["n"].replace(",", "")), "count", label="own")


READERS: list[Reader] = [PieceSizeReader()]
