"""Documents to numbered evidence: run readers and marks, derive, number.

The order of numbering is fixed (sha256, first byte, signal, subject), so that the same bytes give
the same report whatever order the files were named in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from .catalogue import catalogue
from .document import Document, printable, uncoloured
from .document_plain import plain
from .marks import Scanner, grams
from .models import CaptureRef, Evidence, Fact, InputRef, SpanRef
from .plugin import Reader, readers
from .salvage import finite, read
from .sieve import standing

_HEAD = 8 << 20  # of a huge document, look for needles in this much of it
_SIFTED_FROM = 1 << 18
_BEGIN = 3  # bytes of a needle
GENERIC = "generic"


@dataclass
class Gathered:
    """All that the inputs say, and how they were read."""

    facts: list[Fact] = field(default_factory=list)
    inputs: list[InputRef] = field(default_factory=list)
    recognised: dict[str, bool] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)


@lru_cache(maxsize=1)
def scanner() -> Scanner:
    """Compiled marks of the catalogue."""
    return Scanner(catalogue().marks)


class _Needles:
    """Needles of some readers by how they begin: few beginnings stand in a short text."""

    def __init__(self, known: tuple[Reader, ...]) -> None:
        self.known = known
        self._places: dict[bytes, list[int]] = {}
        for place, reader in enumerate(known):
            for needle in reader.needles:
                self._places.setdefault(needle, []).append(place)
        self._always = [place for place, reader in enumerate(known) if reader.name == GENERIC]
        self._begun: dict[bytes, list[bytes]] = {}
        for needle in self._places:
            self._begun.setdefault(needle[:_BEGIN], []).append(needle)
        self._short = [needle for start in [*self._begun] if len(start) < _BEGIN for needle in self._begun.pop(start)]

    def readers(self, text: bytes) -> list[Reader]:
        """Readers one of whose needles stands in a text, in their order; the generic one always."""
        stand = standing(self._places, text) if len(text) >= _SIFTED_FROM else self._within(text)
        places = {*self._always}.union(*map(self._places.__getitem__, stand))
        return [self.known[place] for place in sorted(places)]

    def _within(self, text: bytes) -> set[bytes]:
        some = (needle for start in self._begun.keys() & grams(text, _BEGIN) for needle in self._begun[start])
        return {needle for needle in chain(self._short, some) if needle in text}


_NEEDLES: dict[int, _Needles] = {}  # by identity of the readers, which are within


def _needles(known: tuple[Reader, ...]) -> _Needles:
    return _NEEDLES.get(id(known)) or _NEEDLES.setdefault(id(known), _Needles(known))


def matching(doc: Document) -> list[Reader]:
    """Readers one of whose needles stands in the document; the generic reader always."""
    known, _ = readers()
    head = doc.data if doc.size <= _HEAD else doc.read(0, _HEAD)
    if doc.encoding != "utf-8":
        head = head.decode(doc.encoding, "replace").encode()
    head = uncoloured(head)
    hits = _needles(known).readers(head)
    owner = next((r for r in hits if owns(r, doc)), None)
    return hits if owner is None else [r for r in hits if r is owner or r.name in beside(owner)]


def owns(reader: Reader, doc: Document) -> bool:
    """Does this reader claim the whole document: one format from end to end, where no mark or figure means a thing?"""
    claim = getattr(reader, "owns", None)
    return bool(claim is not None and claim(doc))


def beside(owner: Reader) -> frozenset[str]:
    """Readers that a document's owner lets in; where it lets in any, marks are searched too."""
    return getattr(owner, "beside", frozenset())


def read_document(doc: Document, out: Gathered) -> None:
    """Run every matching reader and the marks over one document."""
    out.documents[doc.name] = doc
    given, doc = doc, plain(doc)
    problems: list[str] = []
    names: list[tuple[int, str]] = []
    chosen = matching(doc)
    for reader in chosen:
        facts, problem = read(reader, doc)
        out.facts.extend(facts)
        if problem:
            problems.append(problem)
        if facts and reader.name != GENERIC:
            names.append((len(facts), reader.name))
            whole = doc.cut is None
            out.recognised[reader.name] = out.recognised.get(reader.name, True) and whole
    before = len(out.facts)
    if not doc.is_binary and not any(owns(r, doc) and not beside(r) for r in chosen):
        out.facts.extend(f for f in scanner().scan(doc) if finite(f))
    if len(out.facts) > before:
        names.append((0, "marks"))
    names.sort(key=lambda n: (-n[0], n[1]))
    given.recognised = [n for _, n in names]
    reason = "; ".join(filter(None, [doc.cut, *problems])) or None
    if not names and reason is None:
        reason = "no known format; read by the generic reader"
    out.inputs.append(
        InputRef(
            name=doc.name, sha256=doc.sha256, recognised_as=names[0][1] if names else None,
            reason=reason, lines_skipped=doc.lines_skipped,
        )
    )  # fmt: skip


def gather(docs: Iterable[Document], out: Gathered | None = None) -> Gathered:
    """Read all documents, then derive what needs more than one of them.

    `out`, when given, fills as documents are read, so that an interrupted run keeps what it found.
    """
    out = Gathered() if out is None else out
    for doc in docs:
        read_document(doc, out)
    return derived(out)


def gather_known(docs: Iterable[Document], known: dict[str, Gathered], out: Gathered) -> Gathered:
    """As `gather`, reading only documents that are new; `known` remembers the others by name and content."""
    for doc in docs:
        key = f"{doc.name}\0{doc.sha256}"
        if key not in known:
            known[key] = Gathered()
            read_document(doc, known[key])
        part = known[key]
        out.facts.extend(part.facts)
        out.inputs.extend(part.inputs)
        out.documents.update(part.documents)
        for reader, whole in part.recognised.items():
            out.recognised[reader] = out.recognised.get(reader, True) and whole
    return derived(out)


def derived(out: Gathered) -> Gathered:
    """`out` with what follows from several of its facts."""
    from .derive import derive

    out.facts.extend(derive(out.facts, out.recognised))
    out.inputs.sort(key=lambda i: i.name)
    return out


def number(gathered: Gathered) -> list[Evidence]:
    """Evidence with ids, in the fixed order; inputs of derived facts become ids."""
    shas = {name: doc.sha256 for name, doc in gathered.documents.items()}

    def first(fact: Fact) -> tuple[str, int]:
        if fact.spans:
            return shas.get(fact.spans[0].capture, ""), fact.spans[0].start
        return ("~", 0)

    seen: dict[tuple[object, ...], Fact] = {}
    for fact in _with_inputs(gathered.facts):
        key = (*first(fact), fact.signal, fact.subject.key(), str(fact.value), fact.formula or "")
        seen.setdefault(key, fact)
    order = sorted(seen.items(), key=lambda kv: tuple(str(p) if i != 1 else f"{p:>15}" for i, p in enumerate(kv[0])))
    ids: dict[int, str] = {}
    by_key: dict[tuple[object, ...], str] = {}
    for n, (ordered, fact) in enumerate(order, 1):
        ids[id(fact)] = by_key[ordered] = f"E{n}"

    def ref(fact: Fact) -> str:
        if id(fact) in ids:
            return ids[id(fact)]
        return by_key[(*first(fact), fact.signal, fact.subject.key(), str(fact.value), fact.formula or "")]

    return [_evidence(ids[id(fact)], fact, shas, [ref(i) for i in fact.inputs]) for _, fact in order]


def _with_inputs(facts: Iterable[Fact]) -> Iterable[Fact]:
    for fact in facts:
        yield from _with_inputs(fact.inputs)
        yield fact


def _evidence(ident: str, fact: Fact, shas: dict[str, str], inputs: list[str]) -> Evidence:
    spans = [SpanRef(capture=s.capture, bytes=(s.start, s.end), line=s.line, quote=s.quote) for s in fact.spans]
    head = fact.spans[0] if fact.spans else None
    said = printable(" ".join((fact.statement or statement(fact)).split()))
    return Evidence(
        id=ident, kind=fact.kind, signal=fact.signal, subject=fact.subject, value=fact.value, unit=fact.unit,
        reason=fact.reason, statement=said, quote=head.quote if head else None,
        capture=CaptureRef(
            name=head.capture, sha256=shas.get(head.capture, ""), line=head.line, bytes=(head.start, head.end)
        ) if head else None,
        spans=spans, formula=fact.formula, inputs=inputs, searched=fact.searched, count=fact.count,
        status=sorted(fact.status),
    )  # fmt: skip


def statement(fact: Fact) -> str:
    """What a fact says, from its declaration: ``busbw, 536870912 B, rank 0: 312.4 GB/s``."""
    declared = catalogue().signals.get(fact.signal)
    what = declared.what if declared else fact.signal
    who = [
        f"{name} {value}" if name != "label" else str(value)
        for name, value in fact.subject.model_dump().items()
        if value is not None
    ]
    head = ", ".join([what, *who])
    value = f"{fact.value:g}" if isinstance(fact.value, float) else str(fact.value)
    return f"{head}: {value}{' ' + fact.unit if fact.unit and fact.unit != 'count' else ''}"
