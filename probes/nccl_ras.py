"""NCCL's RAS client: status text, JSON dump and monitor events.

Source: NCCL 2.24 to 2.29, `src/ras/client_support.cc`. Counts of launched operations differ for a moment in every
healthy run; a rank that is behind by many, a missing rank and a dead process do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import fact, whole

_ROW = regex(
    r"^\s*(\d+)\s+\d+\s+\d+\s+(?:\d+|\d+-\d+)\s+\d+\s+\d+\s+"
    r"(NOCOMM|UNKNOWN|INIT|RUNNING|FINALIZE|ABORT)\s+((?:OK|MISMATCH|ERROR|INCOMPLETE|,)+)\s*$"
)
_PROCESS = regex(r"^\s*Process (\d+) on node (\S+) managing GPUs? ([\d,]+)")
_MISSING = regex(r"^\s*The missing ranks?: ([\d, ]+)\s*$")
_OPS = regex(r"different (\w+) operation counts")
_LAUNCHED = regex(r"^\s*(\d+) ranks? ha(?:ve|s) launched up to operation (\d+)")
_BEHIND = regex(r"^\s*Rank (\d+) has (?:launched up to operation (\d+)|(not launched any operations))")
_ONE_OF_GROUP = regex(r"^\s*Rank (\d+) -- ")
_MEMBER = regex(r"^\s*Rank (\d+) (?:--|has status (\w+) --|reported (.+?) --) ")
_GROUP_STATUS = regex(r"^\s*(\d+) ranks have status (\w+)")
_ASYNC = regex(r"^\s*(Initialization|Asynchronous) errors? on (\d+) ranks?")
_DEAD = regex(r"^\s*(\d+) job process(?:es are| is) considered dead")
_EVENT = regex(r"\b(PEER_DEAD|PEER_UNRESPONSIVE)\b:?\s*(?:Process (\d+) on node (\S+))?")
_KEEP = 8


class RasReader:
    """Who is missing, dead or behind, as RAS tells it."""

    name = "nccl_ras"
    needles: tuple[bytes, ...] = (
        b"launched up to operation", b"considered dead", b"Missing communicator data", b"The missing rank",
        b"Ranks    Status  Errors", b'"missing_ranks_count"', b"PEER_DEAD", b"different status", b"PEER_UNRESPONSIVE",
        b"rrors on ", b"rror on ", b" RUNNING ",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The JSON dump as a whole, the text line by line."""
        if b'"missing_ranks_count"' in doc.head and doc.size < 32 << 20 and (data := _load(doc)) is not None:
            yield from _dump(doc, data)
            return
        yield from self._text(doc)

    @staticmethod
    def _text(doc: Document) -> Iterator[Fact]:
        dead = False
        top: tuple[float, Fact | None]
        op, top = "operation", (-1.0, None)  # the operation count that most ranks reached, and its fact
        made: list[Fact] = []
        kept = 0
        group: Fact | None = None  # ranks that are behind, whose names follow one a line
        for line in doc.lines():
            text = line.text
            if group is not None and top[1] is not None and _BEHIND.match(text) is None:
                one = _ONE_OF_GROUP.match(text)
                who = Subject(rank=int(one[1]), label=op) if one else group.subject
                spans = (*group.spans, *((doc.span(line),) if one else ()))
                made.append(_lag(top[1], replace(group, subject=who, spans=spans)))
            group = None
            if (hit := _ROW.match(text)) is not None:
                made.append(fact(doc, line, "nccl.ras.comm", f"{hit[2]} {hit[3]}", label=f"group {hit[1]}"))
            elif (hit := _DEAD.match(text)) is not None:
                dead = True
                made.append(fact(doc, line, "nccl.ras.dead", float(hit[1]), "count"))
            elif (hit := _PROCESS.match(text)) is not None and kept < _KEEP:
                kept += 1
                label = f"GPU {hit[3]}"
                made.append(fact(doc, line, "nccl.ras.lost", "dead" if dead else "no answer", host=hit[2], label=label))
            elif (hit := _MISSING.match(text)) is not None:
                for rank in re.findall(r"\d+", hit[1])[:_KEEP]:
                    made.append(fact(doc, line, "nccl.ras.missing_rank", rank, rank=int(rank)))
            elif (hit := _OPS.search(text)) is not None:
                op, top = hit[1], (-1.0, None)
            elif (hit := _LAUNCHED.match(text)) is not None:
                reached = fact(doc, line, "nccl.ras.launched", float(hit[2]), "count", label=f"{op}, {hit[1]} ranks")
                made.append(reached)
                if float(hit[2]) > top[0]:
                    top = (float(hit[2]), reached)
                elif float(hit[2]) < top[0]:
                    group = reached
            elif (hit := _BEHIND.match(text)) is not None:
                mine = float(hit[2] or 0)
                who = Subject(rank=int(hit[1]), label=op)
                own = Fact("nccl.ras.launched", mine, "count", who, (doc.span(line),), status=doc.status)
                if hit[3]:
                    made.append(fact(doc, line, "nccl.ras.not_launched", op, rank=int(hit[1])))
                elif top[1] is not None and mine < top[0]:
                    made += [own, _lag(top[1], own)]
            elif (hit := _ASYNC.match(text)) is not None:
                made.append(fact(doc, line, "nccl.ras.error", f"{hit[1].lower()} error", label=f"{hit[2]} ranks"))
            elif (hit := _MEMBER.match(text)) is not None and (hit[2] or hit[3]) and kept < _KEEP:
                kept += 1
                made.append(fact(doc, line, "nccl.ras.rank_state", hit[2] or hit[3], rank=int(hit[1])))
            elif (hit := _GROUP_STATUS.match(text)) is not None:
                made.append(fact(doc, line, "nccl.ras.rank_state", hit[2], label=f"{hit[1]} ranks"))
            elif (hit := _EVENT.search(text)) is not None and kept < _KEEP:
                kept += 1
                made.append(fact(doc, line, "nccl.ras.lost", "dead" if "DEAD" in hit[1] else "no answer", host=hit[3]))
        if group is not None and top[1] is not None:
            made.append(_lag(top[1], group))
        yield from made


def _lag(first: Fact, last: Fact) -> Fact:
    """How far `last` is behind; what it stands for may be a group of ranks."""
    lag = float(first.value or 0) - float(last.value or 0)
    return Fact(
        "nccl.ras.lag", lag, "count", last.subject, last.spans, kind="derived", formula="a - b", inputs=(first, last),
        status=last.status,
    )  # fmt: skip


def _load(doc: Document) -> dict[str, Any] | None:
    data = whole(doc)
    return data if data is not None and isinstance(data.get("communicators"), list) else None


class _Finder:
    """The line of the n-th occurrence of a key, in document order."""

    def __init__(self, doc: Document) -> None:
        self._lines: dict[str, list[Line]] = {}
        for line in doc.lines():
            for key in re.findall(r'"(\w+)"\s*:', line.text):
                self._lines.setdefault(key, []).append(line)

    def nth(self, key: str, n: int) -> Line | None:
        lines = self._lines.get(key, [])
        return lines[n] if n < len(lines) else None


def _dump(doc: Document, data: dict[str, Any]) -> Iterator[Fact]:
    """Facts of the JSON dump; keys stand in the order of the data, so the n-th object owns the n-th key."""
    find = _Finder(doc)
    seen: dict[str, int] = {}

    def put(signal: str, value: str | float, key: str, n: int, unit: str | None = None, **who: Any) -> Iterator[Fact]:
        line = find.nth(key, n)
        if line is not None:
            yield fact(doc, line, signal, value, unit, around=f'"{key}"', **who)

    version = data.get("nccl_version")
    if isinstance(version, str):
        yield from put("version", version, "nccl_version", 0, label="nccl")
    missing = -1
    for comm in data["communicators"]:
        if not isinstance(comm, dict):
            continue
        counts: dict[str, list[Fact]] = {}
        for rank in filter(_whole, comm.get("ranks") or []):
            for op, count in (rank.get("collective_counts") or {}).items():
                line = find.nth(op, n := seen.get(op, 0))
                seen[op] = n + 1
                if line is not None and isinstance(count, int):
                    who = {"rank": rank.get("rank"), "label": op}
                    counts.setdefault(op, []).append(
                        fact(doc, line, "nccl.ras.launched", float(count), "count", around=f'"{op}"', **who)
                    )
            status, n = rank.get("status") or {}, seen.get("async_error", 0)
            seen["async_error"] = n + 1
            if isinstance(status.get("async_error"), int) and status["async_error"] not in (0, 7):
                yield from put("nccl.ras.error", f"asynchronous error {status['async_error']}", "async_error", n,
                               rank=rank.get("rank"))  # fmt: skip
        for op_counts in counts.values():
            low, high = min(op_counts, key=_value), max(op_counts, key=_value)
            if _value(high) > _value(low):
                yield from (high, low, _lag(high, low))
        for rank in filter(_whole, comm.get("missing_ranks") or []):
            missing += 1
            state = rank.get("status") or {}
            if state.get("considered_dead") or state.get("unresponsive"):
                key = "considered_dead" if state.get("considered_dead") else "unresponsive"
                word = "dead" if state.get("considered_dead") else "no answer"
                yield from put("nccl.ras.lost", word, key, missing, rank=rank.get("rank"), host=str(rank.get("host")))


def _whole(rank: dict[str, Any]) -> bool:
    """Is the rank one: `1e999` is none."""
    return isinstance(rank, dict) and isinstance(rank.get("rank"), int | None)


def _value(item: Fact) -> float:
    return float(item.value or 0)


READERS: list[Reader] = [RasReader()]
