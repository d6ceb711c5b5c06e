"""What two settings differ in: the lexicon of `playbooks/axes`, applied to the words of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .catalogue import catalogue
from .lazy import regex

OTHER = "other"
_SWITCH = regex(
    r"^\W*(on|off|with|without|w/o|w/|no|not|yes|true|false|enabled?|disabled?|[01]|unset|set|default|none"
    r"|unlimited|high|low|long"
    r"|short|normal|before|after|now|old|new|开启?|关闭?|有|无|是|否|前|后)?\W*$",
    re.IGNORECASE,
)
_WORD = regex(r"[^\s()\[\],;:=|]+")
_AMOUNT = regex(
    r"^[\s<>=~≈@x×(-]*(?P<number>\d{1,3}(?:,\d{3})+|\d{1,15}(?:\.\d{1,9})?)\s*(?P<mult>[kKmMgG]i?)?"
    r"[bB]?(?:[ -]?(?:x|tokens?|bytes?|toks?|users?|reqs?|requests?|clients?|streams?|gpus?|nodes?|ranks?|ms|s|W"
    r"|%|卡|机))?[\s)+]*$",
    re.IGNORECASE,
)
_MULT = {"k": 1e3, "m": 1e6, "g": 1e9, "ki": 1024.0, "mi": 1024.0**2, "gi": 1024.0**3}


@dataclass(frozen=True, slots=True)
class _Axis:
    name: str
    one: re.Pattern[str] | None
    both: re.Pattern[str] | None
    pair: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]
    over: re.Pattern[str] | None
    second: bool


def _union(patterns: Sequence[str] | None) -> re.Pattern[str] | None:
    return re.compile("|".join(f"(?:{p})" for p in patterns), re.IGNORECASE) if patterns else None


@lru_cache(maxsize=1)
def _axes() -> tuple[_Axis, ...]:
    return tuple(
        _Axis(
            name, _union(row.get("one")), _union(row.get("both")),
            tuple((re.compile(a, re.IGNORECASE), re.compile(b, re.IGNORECASE)) for a, b in row.get("pair", ())),
            _union(row.get("over")), bool(row.get("second")),
        )
        for name, row in catalogue().axes.items()
        if name != "metrics"
    )  # fmt: skip


def amount(text: str) -> float | None:
    """The number that a setting is (``8K``, ``32 tokens``, ``4x``), or None."""
    hit = _AMOUNT.match(text) if len(text) <= 40 else None
    if hit is None:
        return None
    return float(hit.group("number").replace(",", "")) * _MULT.get((hit.group("mult") or "").lower(), 1.0)


def is_switch(text: str) -> bool:
    """Nothing but on/off, with/without, 0/1 …"""
    return len(text) <= 40 and _SWITCH.match(text) is not None


def common(texts: Sequence[str]) -> tuple[str, list[str]]:
    """Words that all texts share, and of each text the rest."""
    split = [_WORD.findall(t[:200]) for t in texts]
    shared = set.intersection(*({w.lower() for w in words} for words in split)) if split else set()
    rest = [" ".join(w for w in words if w.lower() not in shared) for words in split]
    return " ".join(w for w in (split[0] if split else []) if w.lower() in shared), rest


def _matches(pattern: re.Pattern[str] | None, text: str) -> set[str]:
    if pattern is None or pattern.search(text) is None:
        return set()
    return {re.sub(r"\s+", " ", m.group().lower()).strip() for m in pattern.finditer(text)}


def _soft(text: str) -> str:
    return re.sub(r"\s+", " ", text[:200]).strip()


@lru_cache(maxsize=8192)
def classify(a: str, b: str, over: str = "") -> tuple[str, ...]:
    """Axes on which settings `a` and `b` differ: the first that fits, then any secondary ones.

    Args:
        a, b: words of the two settings. over: what the settings are called where a table says so.
    """
    a, b, over = _soft(a), _soft(b), _soft(over)
    if a.lower() == b.lower():
        return ()
    shared, (rest_a, rest_b) = common([a, b])
    second = tuple(
        x.name for x in _axes()
        if x.second and (_matches(x.one, a) != _matches(x.one, b) or (x.name == "env" and _matches(x.one, shared)))
    )  # fmt: skip
    amounts = amount(rest_a or a) is not None and amount(rest_b or b) is not None
    switched = is_switch(rest_a) and is_switch(rest_b)
    first = ""
    if amounts or switched:
        first = _named(shared, switched) or _named(over, switched)
        second = tuple(x.name for x in _axes() if x.second and (_matches(x.one, shared) or x.name in second))
    elif over and re.sub(r"\d+", "#", a.lower()) == re.sub(r"\d+", "#", b.lower()):
        named = _named(over, False)  # gpu-01, gpu-02 under "host"
        first = named if named in ("node", "rank", "gpu", "nic") else ""
    first = first or _differs(a, b) or _named(over, False) or _valued(shared, rest_a, rest_b)
    if not first:
        return second or (OTHER,)
    return (first, *(s for s in second if s != first))


def _named(words: str, switched: bool) -> str:
    """Axis that the shared words (or the corner of a table) name."""
    if not words:
        return ""
    for axis in _axes():
        if not axis.second and axis.over is not None and axis.over.search(words):
            return axis.name
    if switched:
        for axis in _axes():
            if not axis.second and axis.one is not None and axis.one.search(words):
                return axis.name
    return ""


def _valued(shared: str, rest_a: str, rest_b: str) -> str:
    """Axis of a shared word whose number differs beside other words: ``a num_workers 2``, ``b num_workers 16``."""
    values = [[w for w in rest.split() if amount(w) is not None] for rest in (rest_a, rest_b)]
    return _named(shared, False) if all(values) and values[0] != values[1] else ""


def names_axis(label: str) -> bool:
    """Does a row or column label name a setting (``num_workers``, ``power limit``, ``mtu``)?"""
    return bool(_named(_soft(label), True))


def _differs(a: str, b: str) -> str:
    for axis in _axes():
        if axis.second:
            continue
        if axis.one is not None and _matches(axis.one, a) != _matches(axis.one, b):
            return axis.name
        if (left := _matches(axis.both, a)) and (right := _matches(axis.both, b)) and left != right:
            return axis.name
        for x, y in axis.pair:
            for p, q in ((a, b), (b, a)):
                if (
                    (left := _matches(x, p))
                    and (right := _matches(y, q))
                    and (left != _matches(x, q) or right != _matches(y, p))
                ):
                    return axis.name
    return ""
