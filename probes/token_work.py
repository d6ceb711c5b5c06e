"""Tokenising text in Python: samples of a stack, time before and after, as written down."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_FRAME = regex(
    r"tokenization_\w+|_batch_encode|encode_plus|\b_?tokenize \(|sentencepiece|convert_ids_to_tokens|convert_tokens_to|detokeniz|\bbpe\b|分词",  # noqa: E501
    re.IGNORECASE,
)
_OF = regex(r"(?<![\d.])(?P<n>\d+) ?(?:of|/|out of) ?(?P<all>\d+)(?![\d.])")
_ZH = regex(r"(?P<all>\d+) ?次[^\n]{0,8}?(?:有)? ?(?P<n>\d+) ?次")
_AB = regex(
    r"tokeni[sz]\w*[^\d\n]{0,24}?(?P<a>\d[\d,]*(?:\.\d+)?) ?(?P<ua>ms|s)\b[^\n]{0,40}?tokeni[sz]\w*[^\d\n]{0,24}?(?P<b>\d[\d,]*(?:\.\d+)?) ?(?P<ub>ms|s)\b",  # noqa: E501
    re.IGNORECASE,
)


class TokenWorkReader:
    """How many of the samples stand in the tokenizer, and one tokenizer's time over another's."""

    name = "token_work"
    needles: tuple[bytes, ...] = (b"okeniz", b"okenis", b"ncode", b"sentencepiece", "分词".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """In short notes; a summary line counts for frames that stand above it."""
        frames = 0
        others = 0
        for line in excerpt(doc, 1 << 16):
            framed = _FRAME.search(line.text) is not None
            of = _OF.search(line.text) or _ZH.search(line.text)
            above = re.search(r"\babove\b|上述|以上", line.text) is not None and frames and not others
            if of and (framed or above) and 3 <= int(of["all"]) <= 10000 and int(of["n"]) <= int(of["all"]):
                inputs = tuple(
                    fact(doc, line, "figure", float(of[k]), "count", label=f"count|{name} samples")
                    for k, name in (("n", "tokenizer"), ("all", "all"))
                )
                yield divided("serving.tokenizer_samples", inputs, "fraction", Subject(label="samples"))
                frames = 0
            elif framed:
                frames += 1
            elif re.match(r"\s+\S+ \(\S+:\S+\)", line.text):
                others += 1
            pair = _AB.search(line.text)
            if pair:
                a, b = (
                    float(pair[k].replace(",", "")) * (1000 if pair[u] == "s" else 1)
                    for k, u in (("a", "ua"), ("b", "ub"))
                )
                if min(a, b) > 0 and max(a, b) >= 100 and max(a, b) >= 3 * min(a, b):
                    yield fact(doc, line, "serving.tokenizer_slower", max(a, b), "ms", label="tokenizer")


READERS: list[Reader] = [TokenWorkReader()]
