"""NCCL Inspector: a JSON object per collective (JSON lines or pretty-printed), and its Prometheus text.

Source: NCCL `plugins/profiler/inspector` (`inspector_json.cc`, `inspector_prom.cc`), output formats v4 and v5.
A kernel's time includes the wait for the other ranks: of one operation, the rank with the shortest time came last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, fact, metric_labels

_KEYS = (
    ("coll_busbw_gbs", "nccl.inspector.busbw", "GB/s"),
    ("coll_exec_time_us", "nccl.inspector.time", "us"),
    ("p2p_busbw_gbs", "nccl.inspector.busbw", "GB/s"),
    ("p2p_exec_time_us", "nccl.inspector.time", "us"),
)
_PAIR = regex(r'"(\w+)"\s*:\s*(?:"([^"]*)"|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?))')
_PROM = regex(
    r"^nccl_(?:p2p_)?(bus_bandwidth_gbs|collective_exec_time_microseconds|exec_time_microseconds)\{(.*)\}\s+(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.])"
)
_MOST = 2000  # objects
_KEEP = 64  # facts


class InspectorReader:
    """Bus bandwidth and time of collectives, by rank; the spread over the ranks of one operation."""

    name = "nccl_inspector"
    needles: tuple[bytes, ...] = (
        b"coll_busbw_gbs",
        b"coll_exec_time_us",
        b"p2p_exec_time_us",
        b"nccl_bus_bandwidth_gbs",
        b"nccl_collective_exec_time",
        b"nccl_p2p_exec_time",
    )

    def owns(self, doc: Document) -> bool:
        """A file of the plugin from its first byte on: its objects are no prose."""
        return doc.head[:1] == b"{" and b"coll_perf" in doc.head[:4096] and b'"header"' in doc.head[:512]

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Objects may be cut: keys are read as they come, and a time closes the reading it belongs to."""
        state: dict[str, Any] = {}
        made: list[Fact] = []
        times: dict[str, list[Fact]] = {}
        for line in doc.lines():
            if len(made) > _MOST:
                break
            if '"' not in line.text:
                continue
            if (prom := _PROM.match(line.text)) is not None:
                made.append(_prom(doc, line, prom))
                continue
            for hit in _PAIR.finditer(line.text):
                key, word, figure = hit.groups()
                state[key] = word if word is not None else figure
                known = next((k for k in _KEYS if k[0] == key), None)
                if known is not None and figure is not None:
                    made.append(_reading(doc, line, known, hit, state))
                    if known[1].endswith("time") and state.get("coll_sn", state.get("p2p_sn")) is not None:
                        op = f"{made[-1].subject.label} #{state.get('coll_sn', state.get('p2p_sn'))} {state.get('id')}"
                        times.setdefault(op, []).append(made[-1])
        spreads = sorted(filter(None, map(_spread, times.values())), key=lambda f: -float(f.value or 0))
        yield from made[:_KEEP]
        yield from spreads[:3]


def _reading(doc: Document, line: Line, known: tuple[str, str, str], hit: re.Match[str], state: dict[str, Any]) -> Fact:
    size: str | None = state.get("coll_msg_size_bytes", state.get("p2p_msg_size_bytes"))
    name = state.get("coll", state.get("p2p", "operation"))
    rank = state.get("rank", "")
    label = f"{name} {size} B" if size is not None else str(name)
    made: Fact = fact(
        doc,
        line,
        known[1],
        float(hit[3]),
        known[2],
        around=hit[0],
        label=label,
        host=state.get("hostname"),
        rank=int(rank) if str(rank).isdecimal() else None,
    )
    return made


def _spread(readings: list[Fact]) -> Fact | None:
    """Longest over shortest time of one operation over its ranks."""
    if len({f.subject.rank for f in readings}) < 2:
        return None
    low, high = (pick(readings, key=lambda f: float(f.value or 0)) for pick in (min, max))
    if not low.value:
        return None
    return divided(
        "nccl.inspector.spread",
        (high, low),
        subject=Subject(rank=low.subject.rank, label=low.subject.label),
        spans=(*low.spans, *high.spans),
    )


def _prom(doc: Document, line: Line, hit: re.Match[str]) -> Fact:
    labels = metric_labels(hit[2])
    who = " ".join(
        filter(
            None,
            (
                labels.get("collective") or labels.get("p2p_operation"),
                labels.get("message_size"),
                labels.get("algo_proto"),
            ),
        )
    )
    gpu = re.search(r"\d+", labels.get("gpu", ""))
    rate = hit[1] == "bus_bandwidth_gbs"
    made: Fact = fact(
        doc,
        line,
        "nccl.inspector.busbw" if rate else "nccl.inspector.time",
        float(hit[3]),
        "GB/s" if rate else "us",
        around=hit[3],
        label=who,
        host=labels.get("node"),
        gpu=int(gpu[0]) if gpu else None,
    )
    return made


READERS: list[Reader] = [InspectorReader()]
