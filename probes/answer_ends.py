"""How answers end: at a stop token or at their length limit, and whether the model's turn ends with a token that stops."""  # noqa: E501

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt

_METRIC = regex(r'finish(?:ed)?_reason="(?P<why>\w+)"[^}\n]*}\s+(?P<n>\d+(?:\.\d+)?(?:e\+?\d+)?)')
_FIELD = regex(
    r"(?:finish|stop|done|finished)_reason[\"']?\s*[:=]\s*(?:\{\s*[\"']?type[\"']?\s*:\s*)?[\"']?(?P<why>length|stop|eos(?:_token)?|max_tokens|limit)\b",
    re.I,
)
_SHARE = regex(
    r"(?P<share>\d{2,3}(?:\.\d+)?) ?%[^\n]{0,50}?\b(?:finish|end|hit|stop|ran?\b)[^\n]{0,40}?(?P<why>length|max_tokens|token limit|limit)",  # noqa: E501
    re.I,
)
_SHARE_ZH = regex(r"(?P<share>\d{2,3}(?:\.\d+)?) ?%[^\n]{0,30}?(?P<why>length|跑满|max_tokens|上限)")
_HEAD = regex(r"(?:finish|stop|done)(?:ed)?[_ ]reason|结束原因", re.I)
_ROW = regex(r"\b(?P<why>length|stop|eos|max_tokens)\s*\|?\s*$", re.I)
_RATIO = regex(
    r"(?P<a>\d+) ?(?:/|of|out of) ?(?P<b>\d+)[^\n]{0,40}?(?:finish|stop|done)\w*[_ ]reason\W{0,4}(?P<why>length)", re.I
)
_WHY = {
    "length": "length",
    "max_tokens": "length",
    "limit": "length",
    "token limit": "length",
    "跑满": "length",
    "上限": "length",
}

_TURN = r"<\|?(?:im_end|eot_id|end_of_turn|end|eom_id|endofturn|turn_end|end_of_message|EOT|assistant_end|return)\|?>|<end_of_turn>|<｜end▁of▁sentence｜>"  # noqa: E501
_END = regex(_TURN)
# a special token kept in the text, with the next turn written by the model itself
_RUNS_ON = regex(
    rf"(?:{_TURN})\s*(?:\\n)*\s*(?:<\|?(?:start_header_id|im_start|start_of_turn|user|header_start)\|?>)\s*(?:user|human|assistant)?",
    re.I,
)
_EOS = regex(
    r"eos_token[\"']?(?:\s*(?:is|是|:|=|为)\s*)(?:\{[^}\n]{0,40}content\"?:\s*)?[\"']?(?P<token><[^\s\"',]+)", re.I
)
_EOS_ID = regex(r"eos_token_id[\"']?(?:[^\d\n\[]{0,30}?(?:is|是|:|=|为)\s*)(?P<ids>\[[\d, ]+\]|\d+)", re.I)
_TURN_ID = (
    regex(rf"(?:{_TURN})[\"']?\s*(?:[:=(]|id)\s*(?P<id>\d+)"),
    regex(
        r"(?:clos\w+|ends? (?:the |its |a )?turns?|ends?|terminat\w+) (?:with|by|on) (?:token )?(?:id )?(?P<id>\d{3,6})\b",  # noqa: E501
        re.I,
    ),
)


class AnswerEndReader:
    """Reasons why answers ended, from metrics, responses, tables and prose."""

    name = "answer_ends"
    needles: tuple[bytes, ...] = (b"_reason", b"finish", b"eos_token", b"length", "跑满".encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a reason, its count the answers; and an end of turn that is no end of text."""
        seen: Counter[str] = Counter()
        first: dict[str, Line] = {}
        headed = False
        eos: list[tuple[str, Line]] = []
        eos_ids: list[tuple[frozenset[str], Line]] = []
        turn: list[tuple[str, Line]] = []
        turn_ids: list[tuple[str, Line]] = []
        for line in excerpt(doc, 1 << 20):
            text = line.text
            for why, count in _reasons(text, headed):
                seen[why] += count
                first.setdefault(why, line)
            headed |= _HEAD.search(text) is not None and _FIELD.search(text) is None
            eos += [(hit["token"], line) for hit in _EOS.finditer(text)]
            eos_ids += [(frozenset(re.findall(r"\d+", hit["ids"])), line) for hit in _EOS_ID.finditer(text)]
            turn += [(hit.group(), line) for hit in _END.finditer(text)]
            turn_ids += [(hit["id"], line) for shape in _TURN_ID for hit in shape.finditer(text)]
            on = _RUNS_ON.search(text)
            if on and "template" not in text:
                span = (doc.span(line),)
                yield Fact("serving.turns_run_on", on.group()[:60], None, Subject(), span, status=doc.status)
        for why, count in seen.items():
            yield Fact(
                "serving.finish", why, None, Subject(label=why), (doc.span(first[why]),), count=count, status=doc.status
            )
        yield from _differs(doc, eos, eos_ids, turn, turn_ids)


def _reasons(text: str, headed: bool) -> Iterator[tuple[str, int]]:
    metric = _METRIC.search(text)
    if metric:
        yield _WHY.get(metric["why"], metric["why"]), int(min(float(metric["n"]), 1e9))
        return
    share = _SHARE.search(text) or _SHARE_ZH.search(text)
    ratio = _RATIO.search(text)
    if share and 50 <= float(share["share"]) <= 100:
        whole = round(float(share["share"]))
        yield "length", whole
        if whole < 100:
            yield "stop", 100 - whole
    elif ratio and int(ratio["a"]) <= int(ratio["b"]):
        yield "length", int(ratio["a"])
        if int(ratio["a"]) < int(ratio["b"]):
            yield "stop", int(ratio["b"]) - int(ratio["a"])
    else:
        hit = _FIELD.search(text) or (_ROW.search(text) if headed else None)
        if hit:
            yield _WHY.get(hit["why"].lower(), "stop"), 1


def _differs(
    doc: Document,
    eos: list[tuple[str, Line]],
    eos_ids: list[tuple[frozenset[str], Line]],
    turn: list[tuple[str, Line]],
    turn_ids: list[tuple[str, Line]],
) -> Iterator[Fact]:
    """The token that ends a turn is not among those at which generation stops."""
    ends = {token for token, _ in eos}
    known = {i for ids, _ in eos_ids for i in ids}
    for token, line in turn:
        if ends and token not in ends:
            yield Fact(
                "serving.stop_differs",
                token,
                None,
                Subject(label=sorted(ends)[0]),
                (doc.span(line), doc.span(eos[0][1])),
                status=doc.status,
            )
            return
    for ident, line in turn_ids:
        if known and ident not in known:
            yield Fact(
                "serving.stop_differs",
                ident,
                None,
                Subject(label=sorted(known)[0]),
                (doc.span(line), doc.span(eos_ids[0][1])),
                status=doc.status,
            )
            return


READERS: list[Reader] = [AnswerEndReader()]
