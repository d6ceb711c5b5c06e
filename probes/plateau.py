"""Running requests that stay at one number while others wait: in logs, scrapes, rows over time or pods, and said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_ENOUGH = 3  # readings at one number; two where that is a number somebody would set
_MOSTLY = 0.6  # of the readings: a request that leaves is replaced a moment later
_NEAR = 0.98  # a mean so close to the maximum is a series that hardly ever left it


def plateau(queued: list[tuple[float, Line]]) -> tuple[float, Line] | None:
    """The largest number of running requests, where most readings taken with others waiting are just that."""
    if not queued:
        return None
    top = max(value for value, _ in queued)
    at = [line for value, line in queued if value == top]
    chosen = top % 8 == 0 or top % 10 == 0
    enough = len(at) >= (2 if chosen else _ENOUGH) and len(at) >= _MOSTLY * len(queued)
    return (top, at[0]) if enough and top >= 1 else None


_RUNNING = regex(
    r"num_requests[_.]running|num_running_reqs|requests_processing|batch_current_size|numActiveRequests"
    r"|(?:requests?|reqs?|seqs|sequences)[ _-](?:running|in (?:the )?batch)|running[ _-]?(?:requests?|reqs?|seqs|sequences|batch)"  # noqa: E501
    r"|active (?:requests?|sequences|slots)|^\W*running\b|\brunning\W*$|运行中|正在运行|运行(?:的)?请求",
    re.I,
)
_WAITING = regex(
    r"num_requests[_.]waiting|num_queue_reqs|queue_size|requests_deferred|numQueuedRequests"
    r"|(?:requests?|reqs?)[ _-](?:waiting|queued|pending)|(?:waiting|queued|pending)\b|queue (?:depth|len)|排队|等待",
    re.I,
)
_KV = regex(r"kv_cache_usage|gpu_cache_usage|token[_ ]usage|\bkv\b|cache (?:usage|utili[sz]ation)", re.I)
_CLAUSE = regex(r"[;。；]|(?<=[^\d])[.,，]\s|(?<=\d)[.,，]\s+(?=[^\W\d])")
_ASIDE = regex(r"\{[^}]*\}|\[\d+[smhdw](?::[^\]]*)?\]|\(\w*\)|\bp\d\d\b|\bby\b", re.I)
_FIGURE = regex(r"(?<![\w.:/])(\d+(?:\.\d+)?)(?!\.?\d|:\d|[A-Za-z])")
_KIND = regex(r"\b(min|max|avg|mean|median|last|now|current)(?=_over_time|\b)", re.I)
_STANDS = regex(
    r"exactly|constant(?:ly)?|pinned|stuck|stays?|sits?|\bflat\b|always|never (?:above|more|over|exceeds)|capped"
    r"|plateau|恒为|恒定|一直|始终|固定|稳定在|卡在|不超过",
    re.I,
)


class _Clause(NamedTuple):
    line: Line
    values: list[float]
    kind: str
    stands: bool
    share: bool  # the figures are in percent


def _clauses(line: Line, pattern: re.Pattern[str]) -> Iterator[_Clause]:
    for part in _CLAUSE.split(line.text):
        hit = pattern.search(_ASIDE.sub(" ", part))
        if hit is None:
            continue
        bare = re.sub(r"(?<=\d)\s*[-–~]\s*(?=\d)", " ", _ASIDE.sub(" ", part))
        values = [float(n) for n in _FIGURE.findall(bare)]
        kind = _KIND.search(part)
        if values:
            yield _Clause(line, values, kind[1].lower() if kind else "", bool(_STANDS.search(part)), "%" in part)


def _stays(clauses: list[_Clause]) -> tuple[float, Line] | None:
    """A row of one number; two statistics that agree; a number that is said to stand."""
    peaks: dict[str, tuple[float, Line]] = {}
    for one in clauses:
        top = max(one.values)
        whole = top >= 1 and top == int(top)
        if whole and len(one.values) >= _ENOUGH and min(one.values) >= _NEAR * top:
            return top, one.line
        if whole and one.stands and one.values[0] >= 1:
            return one.values[0], one.line
        peaks.setdefault(one.kind, (top, one.line))
    most = peaks.get("max")
    if most is None or most[0] != int(most[0]) or len(peaks) < 2:
        return None
    low = min(value for kind, (value, _) in peaks.items() if kind != "max")
    return most if 1 <= _NEAR * most[0] <= low else None


class PlateauRows:
    """Rows of a query or a panel, and notes, that give running requests over time or over pods."""

    name = "plateau_rows"
    needles: tuple[bytes, ...] = (b"unning", b"requests_processing", b"batch_current_size", b"\xe8\xbf\x90\xe8\xa1\x8c")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The number at which `running` stays; with it how many wait and how full the cache is, where rows say so."""
        lines = [line for line in excerpt(doc, 1 << 15, 300) if len(line.text) <= 240]
        got = _stays([c for line in lines for c in _clauses(line, _RUNNING)])
        if got is None:
            return
        yield fact(doc, got[1], "serving.running_stays", got[0], "count")
        waits = [c for line in lines for c in _clauses(line, _WAITING)]
        if waits:
            most = max(waits, key=lambda c: max(c.values))
            yield fact(doc, most.line, "serving.waiting", max(most.values), "count", label="row")
        for one in (c for line in lines for c in _clauses(line, _KV)):
            most_kv = max(one.values)
            share = most_kv / 100 if one.share or most_kv > 1 else most_kv
            if share <= 1:
                yield fact(doc, one.line, "serving.kv_usage", share, "fraction", label="row")
                return


READERS: list[Reader] = [PlateauRows()]
