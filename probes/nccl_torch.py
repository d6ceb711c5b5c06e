"""Reader of what torch.distributed says about its collectives: watchdog lines, their counters, flight-recorder dumps.

A watchdog line names the operation, its number and its sizes; over the ranks these tell a divergence (ranks wait in
different operations) from a rank that is merely late (the same operation, lower numbers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

KEEP = 64  # ranks reported
LIMIT = 32 << 20
_RANK = regex(r"\[(?:PG (?:ID )?\d+ [^\]]*?)?\b[Rr]ank ?(\d+)\]")
_WORK = regex(
    r"(?:WorkNCCL\(|Watchdog caught collective operation timeout.{0,40}?)"
    r"SeqNum=(\d+), OpType=(\w+)(?:, NumelIn=(\d+))?(?:, NumelOut=(\d+))?(?:, TensorShape=\[([\d, ]+)\])?"
)
_TIMEOUT = regex(
    r"Watchdog caught collective operation timeout|collective operation timeout: WorkNCCL"
    r"|ran for \d+ milliseconds before timing out"
)
_QUEUED = regex(r"[Ll]ast enqueued (?:NCCL )?work: (-?\d+)(?:.*?[Ll]ast completed (?:NCCL )?work: (-?\d+))?")


class TorchDistributedReader:
    """Watchdog lines of ProcessGroupNCCL."""

    name = "torch_distributed"
    needles = (b"WorkNCCL", b"OpType=", b"ast enqueued", b"ProcessGroupNCCL")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a rank and operation."""
        seen: set[tuple[str, Subject, str]] = set()
        for line in doc.lines():
            if "Seq" not in line.text and "enqueued" not in line.text:
                continue
            for fact in self._line(doc, line):
                key = (fact.signal, fact.subject, str(fact.value))
                if key not in seen and len(seen) < 4 * KEEP:
                    seen.add(key)
                    yield fact

    @staticmethod
    def _line(doc: Document, line: Line) -> Iterator[Fact]:
        hit = _RANK.search(line.text) or re.search(r"rank ?(\d+)", line.prefix + line.by)
        rank = int(hit[1]) if hit else None
        span = (doc.span(line, "SeqNum"),)
        if work := _WORK.search(line.text):
            size = work[3] or (work[5] or "").replace(", ", "x")  # up to 2.0 a shape, then numbers of elements
            value = f"{work[2]} {size}".rstrip()
            signal = (
                "torch.watchdog" if _TIMEOUT.search(line.text) or "WorkNCCL" in line.text else "torch.watchdog.rank"
            )
            yield Fact(signal, value, None, Subject(rank=rank, label=f"SeqNum={work[1]}"), span, status=doc.status)
        if queued := _QUEUED.search(line.text):
            for signal, number in (("torch.enqueued", queued[1]), ("torch.completed", queued[2])):
                if number is not None:
                    yield Fact(signal, float(number), "count", Subject(rank=rank), span, status=doc.status)


# An entry as Python prints it, for a dump is a pickle; its number is called `seq_id` in 2.3, with a word more since.
_ENTRY = regex(
    r"'(?:collective_)?seq_id': (?P<seq>\d+)\b.*?'profiling_name': '(?P<name>[^']+)'.*?'state': '(?P<state>\w+)'"
)
_STATUS = regex(r"[\"']last_(?P<what>enqueued|completed)_collective[\"']: ?(?P<n>-?\d+)")


class FlightRecorderReader:
    """A flight-recorder dump as JSON or as Python prints it: the entries that never completed."""

    name = "flight_recorder"
    needles = (b"seq_id", b"profiling_name", b"last_enqueued_collective")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The first entry that is not completed, per dump, in the watchdog's terms."""
        if doc.size > LIMIT:
            return
        yield from self._printed(doc)
        text = doc.data.decode("latin-1")
        decoder = json.JSONDecoder()
        at = 0
        # Keys are in the order they were put in, or sorted where PyTorch itself writes JSON (2.5 on).
        for found in re.finditer(r'\{\s*"(?:frames|record_id|pg_id|(?:collective_)?seq_id)"', text):
            if found.start() < at:
                continue
            try:
                entry, at = decoder.raw_decode(text, found.start())
            except ValueError:
                doc.lines_skipped += 1
                continue
            if str(entry.get("state")) == "completed" or not entry.keys() & {"collective_seq_id", "seq_id"}:
                continue
            yield self._fact(doc, text, found.start(), at, entry)
            return

    @staticmethod
    def _printed(doc: Document) -> Iterator[Fact]:
        """What stands in one line: the first open entry, and the group's last work."""
        told: set[str] = set()
        for line in doc.holding("seq_id", "_collective"):
            who = Subject(rank=int(hit[1]) if (hit := re.search(r"rank\D{0,4}(\d+)", line.prefix + line.by)) else None)
            for hit in _STATUS.finditer(line.text):
                if (what := hit["what"]) not in told:
                    told.add(what)
                    span = (doc.span(line, hit[0]),)
                    yield Fact(f"torch.{what}", float(hit["n"]), "count", who, span, status=doc.status)
            entries = () if "entry" in told else _ENTRY.finditer(line.text)
            if entry := next((e for e in entries if e["state"] != "completed"), None):
                told.add("entry")
                name = entry["name"].removeprefix("nccl:").upper()
                label = Subject(rank=who.rank, label=f"SeqNum={entry['seq']}")
                yield Fact("torch.watchdog", name, None, label, (doc.span(line, entry["name"]),), status=doc.status)

    @staticmethod
    def _fact(doc: Document, text: str, start: int, end: int, entry: dict[str, Any]) -> Fact:
        name = str(entry.get("profiling_name", "")).removeprefix("nccl:").upper()
        sizes = entry.get("input_sizes") or []
        numel = 1
        for size in sizes[0] if sizes and isinstance(sizes[0], list) else sizes:
            numel *= int(size) if str(size).isdecimal() else 1
        where = text.find('"profiling_name"', start, end)
        where = where if where >= 0 else start
        line = text.count("\n", 0, where) + 1
        rank = re.search(r'"rank"\s*:\s*"?(\d+)', text)
        subject = Subject(
            rank=int(rank[1]) if rank else None, label=f"SeqNum={entry.get('collective_seq_id', entry.get('seq_id'))}"
        )
        span = doc.bytes_span(where, min(end, where + 400), line)
        return Fact("torch.watchdog", f"{name} {numel}".strip(), None, subject, (span,), status=doc.status)


# torch/csrc/distributed/c10d/TraceUtils.h: what TORCH_NCCL_DESYNC_DEBUG adds to a timeout. Ranks stand in brackets.
_LAGS = regex(r"\[(?P<who>\d+)(?:, ?\d+)*\] (?:joined but didn't finish|finished) collective #(?P<at>\d+)[ ,]")
_STARTED = regex(r"#(?P<at>\d+) started ranks:")
_FINISHED = regex(r"#\d+ finished ranks:")
_STATE = regex(r"^\W*\[(?P<who>\d+)(?:, ?\d+)*\] started (?P<op>[A-Z_]\w+)")


class DesyncReader:
    """The desync report of ProcessGroupNCCL: which ranks stand where, in the watchdog's terms."""

    name = "torch_desync"
    needles = (b"caused the desync", b" started ranks:", b"finish collective #", b"finished collective #")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One rank for each list of ranks: the others of the list say the same."""
        at = ""
        head: Line | None = None
        seen: set[tuple[str, str, int]] = set()
        for line in doc.lines():
            if started := _STARTED.search(line.text):
                at, head = started["at"], line
            elif _FINISHED.search(line.text):
                at = ""
            made: list[Fact] = []
            if lags := _LAGS.search(line.text):
                who = Subject(rank=int(lags["who"]))
                span = (doc.span(line, lags[0]),)
                made = [Fact("torch.enqueued", float(lags["at"]), "count", who, span, status=doc.status)]
            elif head is not None and at and (state := _STATE.match(line.text)):
                rank, span = int(state["who"]), (doc.span(line, state["op"]),)
                who = Subject(rank=rank, label=f"SeqNum={at}")
                made = [
                    Fact("torch.watchdog", state["op"], None, who, span, status=doc.status),
                    Fact(
                        "torch.enqueued",
                        float(at),
                        "count",
                        Subject(rank=rank),
                        (doc.span(head, f"#{at}"),),
                        status=doc.status,
                    ),
                ]
            for fact in made:
                key = (fact.signal, str(fact.value), fact.subject.rank or 0)
                if key not in seen and len(seen) < KEEP:
                    seen.add(key)
                    yield fact


class VersionTupleReader:
    """What `torch.cuda.nccl.version()` returns."""

    name = "nccl_version"
    needles = (b"nccl.version()",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`nccl.version.torch` as printed, on the line of the call or the next."""
        asked = False
        for line in doc.lines():
            call = "nccl.version()" in line.text
            if (call or asked) and (hit := re.search(r"\((2, ?\d+(?:, ?\d+)?)\)", line.text)):
                host = re.match(
                    r"^\s*\[?([\w.-]{1,64})\]?:\s*\(", line.prefix + line.text
                )  # pdsh and its like name the host of each answer
                who = Subject(host=host[1] if host else None)
                yield Fact("nccl.version.torch", hit[1], None, who, (doc.span(line, hit[0]),), status=doc.status)
                asked = host is not None
            else:
                asked = call


READERS = [TorchDistributedReader(), FlightRecorderReader(), DesyncReader(), VersionTupleReader()]
