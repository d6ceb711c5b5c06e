"""Reader of NCCL's own log (``NCCL_DEBUG``), from 2.4 on: what was chosen, what was set, what failed first.

Most of a large log is a few sentences repeated with other numbers. Lines are therefore keyed by
their shape (digits and hex letters dropped); whether a shape says anything is worked out once, and
identical messages are only counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from diagnose.document import Document, Line, shape, uncoloured
from diagnose.lazy import regex
from diagnose.models import NOBODY, Fact, Subject

PAIRS = 16  # pairs of ranks reported per transport; the rest is counted into the last
TRANSPORTS = 64  # distinct ones
ALIKE = 20_000  # facts of one signal
WARNS = 24  # distinct warnings kept
KNOWN = 60_000  # distinct messages remembered before forgetting

_HEAD = regex(
    r"(?:\[?(?P<time>\d{4}-\d\d-\d\d[T ][\d:.]+)\]?\s+)?"
    r"(?:(?P<host>[^\s:\[\]]+):(?P<pid>\d+):(?P<tid>\d+)\s+)?(?:\[(?P<dev>\d+)\]\s+)?"
    r"(?:(?P<where>\S+\.(?:cc|cu|h|c|cpp)?:?\d+)\s+(?:\([\w:~]+\)\s+)?)?"
    r"(?:NCCL )?(?P<level>INFO|WARN|TRACE|ABORT)\s+(?P<msg>.*)$"
)
_VIA = regex(
    r"(?:Channel|Ring|Coll|CollNet|Tree|NVLS)\s+\d+(?:/\d+)?\s*:\s*(\d+)(?:\[\w+\])?(?:\s*->\s*(\d+)(?:\[\w+\])?)?"
    r"\s*(?:\[(?:send|receive)\]\s*)?via\s+(.+?)(?:\s+comm\s.*)?\s*$"
)
_ALGO = regex(
    r"(?:(\w+)(?: \[[\w ]+\])?: )?(\d+) Bytes -> Algo (\w+) proto (\w+)"
    r"(?: channel\{Lo\.\.Hi\}=\{(\d+)\.\.(\d+)\})?"
)
_ALGOS = ("TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT")
_PROTOS = ("LL", "LL128", "SIMPLE")
_ENV = regex(r"\b((?:NCCL|UCX|FI|OFI)_[A-Z0-9_]+) set (?:by environment )?to (\S.*?)\.?\s*$")
_RESET = regex(r"reset to (NCCL_[A-Z0-9_]+)=(\S+)")
_VERSION = regex(r"NCCL version ((\d+\.\d+\.\d+)\S*)")
_RANKS = regex(r"rank (\d+) n[rR]anks (\d+)(?:.*?cudaDev (\d+))?")
_NODES = regex(r"nNodes (\d+) localRanks (\d+)")
_CHANNELS = regex(r"(\d+) (coll|nvls|p2p) channels\b(?! per)")
_TIMINGS = regex(
    r"Init timings.*?rank (\d+) nranks (\d+) total (\d+(?:\.\d+)?)(?!\.?\d)(?:.*?bootstrap (\d+(?:\.\d+)?)(?!\.?\d))?"
)
_SYSTEM = regex(r"=== System : max(?:Bw|Width) (\d+(?:\.\d+)?)(?!\.?\d)")
_PATHS = regex(r"(GPU|NET)/[\w-]+ \(\d+/[\d.]+/(\w{2,4})\)")
_PATTERN = regex(
    r"Pattern (\d+), crossNic \d+, nChannels (\d+), (?:bw|speed) (\d+(?:\.\d+)?)(?!\.?\d)/(\d+(?:\.\d+)?)(?!\.?\d), type (\w+)/(\w+)"  # noqa: E501
)
_WARN = regex(rb"NCCL WARN|\.(?:cc|cu|h):\d+ (?:\(\w+\) )?WARN ")
_BENIGN = regex(
    r"Failed to open libibverbs|Failed to find CUDA library|No plugin found|Could not find|Failed to open libnvidia-ml"
    r"|NCCL_TOPO_DUMP|not dumping topology|RAS ",
    re.IGNORECASE,
)
FOLLOW_UP = regex(
    r"remote process exited|Connection closed|closed by (?:remote )?peer|closed by localRank|Socket recv failed"
    r"|Call to recv.*failed|Connection reset by peer|Broken pipe|Proxy Call to rank|ncclAsyncJobComplete"
    r"|Service thread|commReclaim|commDestroy|Poll failed|polling for opId|retcode|in abort",
    re.IGNORECASE,
)
_SIGNALS_OF_NET = (
    ("nccl.network", regex(r"Using network (.+?)\s*$")),
    ("nccl.ib.devices", regex(r"NET/IB : Using\s+(\[\d+\].+?)\s*(?:;.*)?$")),
    ("nccl.socket.interfaces", regex(r"NET/Socket : Using\s+(\[\d+\].+?)\s*$")),
    ("nccl.bootstrap.interface", regex(r"Bootstrap ?: Using (?:\[\d+\])?\s*([^\s:<]+)")),
    ("nccl.net_plugin", regex(r"(?:Loaded net|loaded external network) plugin (\S+)")),
    ("nccl.ofi.provider", regex(r"NET/OFI (?:Selected [Pp]rovider is|Using) ([\w;-]+)")),
    ("nccl.gdr", regex(r"(GPU Direct RDMA (?:Enabled|Disabled) for .+)$")),
)  # fmt: skip


@dataclass
class _Seen:
    """A fact and how often it was said."""

    fact: Fact
    count: int = 1


@dataclass
class _State:
    """What a log has said so far."""

    doc: Document
    facts: dict[tuple[object, ...], _Seen] = field(default_factory=dict)
    pairs: dict[str, dict[tuple[int, int | None], _Seen]] = field(default_factory=dict)  # of each transport
    known: dict[bytes, _Seen | None] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)  # facts of a signal
    paths: int = 0  # lines that named a transport
    bulk: dict[bytes, _Seen | None] = field(default_factory=dict)  # transports of which more lines are only counted
    ranks: dict[tuple[str | None, str | None, str | None], int] = field(default_factory=dict)
    warns: dict[str, tuple[str, Fact]] = field(default_factory=dict)
    started: int = 0

    def put(
        self, line: Line, signal: str, value: str | float, unit: str | None = None, subject: Subject | None = None,
        around: str | None = None,
    ) -> _Seen | None:  # fmt: skip
        """Keep a fact once; say how often it came."""
        subject = subject or NOBODY
        key = (signal, value, subject)
        got = self.facts.get(key)
        if got is None:
            if self.kept[signal] >= ALIKE:
                return None
            self.kept[signal] += 1
            span = (self.doc.span(line, around),)
            got = self.facts[key] = _Seen(Fact(signal, value, unit, subject, span, status=self.doc.status))
        else:
            got.count += 1
        return got

    def largest(self, line: Line, signal: str, value: float, unit: str, subject: Subject | None = None) -> None:
        """Keep the largest reading of a signal."""
        subject = subject or NOBODY
        key = (signal, subject)
        got = self.facts.get(key)
        if got is None or float(got.fact.value or 0) < value:
            span = (self.doc.span(line),)
            self.facts[key] = _Seen(Fact(signal, value, unit, subject, span, status=self.doc.status))


Handler = Callable[[_State, Line, str, "re.Match[str] | None"], "_Seen | None"]


def _via(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    hit = _VIA.search(msg)
    if hit is None:
        return None
    rank, peer, transport = int(hit[1]), int(hit[2]) if hit[2] else None, hit[3]
    transport = {"direct shared memory": "SHM/direct shared memory"}.get(transport, transport)
    st.paths += 1
    if transport not in st.pairs and len(st.pairs) >= TRANSPORTS:
        return None
    pairs = st.pairs.setdefault(transport, {})
    seen = pairs.get((rank, peer))
    if seen is None and len(pairs) >= PAIRS:
        seen = next(reversed(pairs.values()))
    if seen is not None:
        seen.count += 1
        return seen
    made = st.put(line, "nccl.transport", transport, None, Subject(rank=rank, peer=peer), "via ")
    if made is not None:
        pairs[rank, peer] = made
    return made


def _only_counted(st: _State, said: bytes) -> bool:
    """Of a long log: is this line one more of a transport with all the pairs that are reported?"""
    transport = said[said.rfind(b" via ") + 5 :].partition(b" comm ")[0].strip()
    try:
        seen = st.bulk[transport]
    except KeyError:
        pairs = st.pairs.get(transport.decode(errors="replace"))
        if len(st.pairs) < TRANSPORTS if pairs is None else len(pairs) < PAIRS:
            return False
        seen = next(reversed(pairs.values())) if pairs else None
        if len(st.bulk) < KNOWN:
            st.bulk[transport] = seen
    if seen is not None:
        seen.count += 1
    return True


def _algo(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    hit = _ALGO.search(msg)
    if hit is None:
        return None
    algo = _ALGOS[int(hit[3])] if hit[3].isdecimal() and int(hit[3]) < len(_ALGOS) else hit[3]
    proto = _PROTOS[int(hit[4])] if hit[4].isdecimal() and int(hit[4]) < len(_PROTOS) else hit[4]
    label = f"{hit[1] or 'collective'} {hit[2]} B"
    if hit[6] is not None:
        st.largest(line, "nccl.algo.last_channel", float(hit[6]), "count", Subject(label=hit[1]))
    return st.put(line, "nccl.algo", f"{algo}/{proto}", None, Subject(label=label))


def _env(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    hit = _ENV.search(msg) or _RESET.search(msg)
    return st.put(line, "env.var", hit[2].rstrip("."), None, Subject(label=hit[1])) if hit else None


def _version(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    hit = _VERSION.search(line.text)
    return st.put(line, "version", hit[1], None, Subject(label="nccl"), hit[1]) if hit else None


def _comm(st: _State, line: Line, msg: str, head: re.Match[str] | None) -> _Seen | None:
    if "Bootstrap timings" in msg:
        if hit := re.search(r"total (\d+(?:\.\d+)?)(?!\.?\d)", msg):
            st.largest(line, "nccl.init.bootstrap", float(hit[1]), "s")
        return None
    if "Init timings" in msg:
        if hit := _TIMINGS.search(msg):
            st.largest(line, "nccl.nranks", float(hit[2]), "count")
            st.largest(line, "nccl.init.time", float(hit[3]), "s")
            if hit[4]:
                st.largest(line, "nccl.init.bootstrap", float(hit[4]), "s")
        return None
    hit = _RANKS.search(msg)
    if hit is None:
        return None
    if head is not None:
        dev = hit[3] if hit[3] is not None else head["dev"]
        st.ranks.setdefault((head["host"], head["pid"], dev), int(hit[1]))
    st.largest(line, "nccl.nranks", float(hit[2]), "count")
    if nodes := _NODES.search(msg):
        st.largest(line, "nccl.nnodes", float(nodes[1]), "count")
        st.largest(line, "nccl.local_ranks", float(nodes[2]), "count")
    host = head["host"] if head is not None else None
    if "Init START" in msg:
        return st.put(line, "nccl.init.start", "Init START", None, Subject(rank=int(hit[1]), host=host))
    if "Init COMPLETE" in msg:
        return st.put(line, "nccl.init.complete", "Init COMPLETE", None, Subject(rank=int(hit[1]), host=host))
    if "Destroy COMPLETE" in msg:
        return st.put(line, "nccl.init.end", "Destroy COMPLETE", None, Subject(rank=int(hit[1]), host=host))
    return None


def _channels(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    seen = None
    for hit in _CHANNELS.finditer(msg):
        seen = st.put(line, "nccl.channels", float(hit[1]), "count", Subject(label=hit[2]))
    return seen


def _topology(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    if hit := _SYSTEM.search(msg):
        return st.put(line, "nccl.topo.max_bw", float(hit[1]), "GB/s")
    if hit := _PATTERN.search(msg):
        st.put(line, "nccl.graph.type", f"{hit[5]}/{hit[6]}", None, Subject(label=f"pattern {hit[1]}"))
        return st.put(line, "nccl.graph.channels", float(hit[2]), "count", Subject(label=f"pattern {hit[1]}"))
    if msg.lstrip().startswith("GPU/"):
        for kind, path in _PATHS.findall(msg):
            if path != "LOC":
                st.put(line, "nccl.topo.gpu_path" if kind == "GPU" else "nccl.topo.gpu_net_path", path)
    return None


def _net(st: _State, line: Line, msg: str, _head: re.Match[str] | None) -> _Seen | None:
    for signal, pattern in _SIGNALS_OF_NET:
        if hit := pattern.search(msg):
            return st.put(line, signal, hit[1][:200], None, None, hit[1][:40])
    return None


def _warn(st: _State, line: Line, msg: str, head: re.Match[str] | None) -> _Seen | None:
    plain = re.sub(r"0x[0-9a-f]+|\d+", "#", msg)
    if plain in st.warns or len(st.warns) >= WARNS:
        if plain in st.warns:
            when, fact = st.warns[plain]
            st.warns[plain] = (when, replace(fact, count=fact.count + 1))
        return None
    host = head["host"] if head is not None else None
    rank = st.ranks.get((host, head["pid"], head["dev"])) if head is not None else None
    span = (st.doc.span(line, "WARN"),)
    fact = Fact("nccl.warn", msg.strip()[:200], None, Subject(host=host, rank=rank), span, status=st.doc.status)
    st.warns[plain] = ((head["time"] or "") if head is not None else "", fact)
    return None


# Literal that must stand in the line -> handler; the literals are compared as shapes first.
_KINDS: tuple[tuple[bytes, Handler], ...] = (
    (b" via ", _via),
    (b"-> Algo ", _algo),
    (b" set by environment to ", _env), (b" reset to NCCL_", _env), (b"NCCL_SOCKET_IFNAME set to", _env),
    (b"NCCL_IB_HCA set to", _env),
    (b"NCCL version ", _version),
    (b"Init START", _comm), (b"Init COMPLETE", _comm), (b"Init timings", _comm), (b"Bootstrap timings", _comm),
    (b"localRanks", _comm), (b"Destroy COMPLETE", _comm),
    (b" coll channels", _channels),
    (b"=== System", _topology), (b"Pattern ", _topology), (b":GPU/", _topology),
    (b"Using network", _net), (b" : Using ", _net), (b"Bootstrap: Using", _net), (b"GPU Direct RDMA", _net),
    (b"net plugin", _net), (b"rovider is ", _net),
    (b"WARN ", _warn),
)  # fmt: skip
_SHAPES = tuple((shape(literal), literal, handler) for literal, handler in _KINDS)
_SHAPED = tuple({shaped for shaped, _, _ in _SHAPES})
_BY_HEAD = (_comm, _topology, _warn)  # for the others it makes no difference who speaks, and when


def _choose(key: bytes, raw: bytes, here: list[bytes], encoding: str) -> Handler | None:
    """The handler of a shape, from its first line."""
    if any(s in key for s in here):
        said = uncoloured(raw.decode(encoding, "replace").encode())
        for shaped, literal, handler in _SHAPES:
            if shaped in key and literal in said:
                return None if handler is _warn and not _WARN.search(said) else handler
    return None


class NcclLogReader:
    """NCCL_DEBUG output of one or many ranks, interleaved or not."""

    name = "nccl_log"
    needles = (
        b"NCCL INFO", b"NCCL WARN", b"NCCL version", b" WARN ", b" via P2P/", b" via SHM/", b" via NET/", b"NET/IB",
        b"Using network ", b" Bytes -> Algo ", b" set by environment to ", b"via direct shared memory",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the log: versions, variables, transports, algorithms, topology, first error."""
        st = _State(doc)
        chosen: dict[bytes, Handler | None] = {}
        encoding = doc.encoding
        wide = encoding != "utf-8"
        known = st.known
        for numbers, starts, raws, shapes in doc.blocks():
            here = [s for s in _SHAPED if s in shapes.text]
            if not here:
                continue
            for number, start, raw, key in zip(numbers, starts, raws, shapes, strict=False):
                try:
                    handler = chosen[key]
                except KeyError:
                    if len(chosen) > KNOWN:
                        chosen.clear()
                    handler = chosen[key] = _choose(key, raw, here, encoding)
                if handler is None:
                    continue
                said = raw.decode(encoding, "replace").encode() if wide else raw
                if b"\x1b" in said:
                    said = uncoloured(said)
                # the sentence without its head where that takes no part: repeats are only counted
                tail = said if handler is _comm else said[said.find(b"NCCL ") + 5 :]
                if tail in known:
                    if seen := known[tail]:
                        seen.count += 1
                    continue
                if handler is _via and st.paths > KNOWN and _only_counted(st, said):
                    continue
                line = doc.line(number, start, raw)
                head = _HEAD.search(line.text) if handler in _BY_HEAD else None
                got = handler(st, line, head["msg"] if head else line.text, head)
                if handler is not _warn and handler is not _version:
                    if len(known) > KNOWN:
                        known.clear()
                    known[tail] = got
        yield from self._facts(st)

    def _facts(self, st: _State) -> Iterator[Fact]:
        for seen in st.facts.values():
            yield replace(seen.fact, count=seen.count) if seen.count > 1 else seen.fact
        real: list[tuple[str, int, Fact]] = []
        for when, fact in st.warns.values():
            text = str(fact.value)
            if _BENIGN.search(text):
                yield replace(fact, signal="nccl.warn.benign")
            elif FOLLOW_UP.search(text):
                yield replace(fact, signal="nccl.warn.follow_up")
            else:
                yield fact
                real.append((when or "9", fact.spans[0].start, fact))
        if real:
            yield replace(min(real, key=lambda r: r[:2])[2], signal="nccl.first_error")


READERS = [NcclLogReader()]
