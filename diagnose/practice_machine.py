"""A recorded machine as a drill's console sees it: captures by probe, declared costs, and requests in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from . import cassette
from .catalogue import catalogue, yaml_files
from .concepts import tokens
from .document import Document
from .errors import InputError

MOST_OFFERED = 4  # probes named back when a request may mean several
NO_REASON = "not captured in this recording"
_POLITE = re.compile(
    r"^(?:(?:please|can you|could you|can i|could i|may i|let me|let's|i want to|i would like to|show|see|run|look|"
    r"check|give|get|print|cat|ask for|me|at|the|us|a|an|output of|what does|what do)\s+|[$#]\s*|"
    r"请|帮我|给我|我想|看一下|看看|查看|看|查一下|查|跑一下|跑|运行|执行|一下)+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Piece:
    """One capture.

    Attributes:
        name: of its file. argv: what ran, () for files.
    """

    probe: str
    name: str
    text: str
    part: str = ""
    argv: tuple[str, ...] = ()

    @cached_property
    def lines(self) -> list[str]:
        """Lines as a pager counts them."""
        return self.text.split("\n")

    def document(self) -> Document:
        """As readers take it."""
        return Document.of(self.name, self.text.encode("utf-8", "replace"), ("recorded",))


@dataclass(frozen=True, eq=False)
class Machine:
    """What was recorded, and why the rest was not; itself only, so that what was read of it can be kept."""

    symptom: str
    pieces: tuple[Piece, ...]
    missing: dict[str, str] = field(default_factory=dict)

    @cached_property
    def by_probe(self) -> dict[str, list[Piece]]:
        """Captures by probe, in the order recorded."""
        out: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            out.setdefault(piece.probe, []).append(piece)
        return out

    def why_not(self, probe: str) -> str:
        """Why a probe gives nothing here."""
        return self.missing.get(probe) or NO_REASON

    @classmethod
    def of_cassette(cls, path: Path) -> Machine:
        """From a cassette, folder or zip; only files that lie in it are read.

        Raises:
            InputError: it is none, or holds nothing.
        """
        from .inputs import open_inputs

        listed = cassette.read(path)
        documents, _ = open_inputs([str(path)], None)
        pieces = []
        for item in listed.get("captures") or []:
            if not isinstance(item, dict) or item.get("probe") not in catalogue().probes:
                continue
            file = str(item.get("file", ""))
            doc = next((d for d in documents if d.name == file or d.name.endswith("/" + file)), None)
            if doc is not None:
                argv = tuple(str(a) for a in item.get("argv") or ())
                text = doc.data.decode("utf-8", "replace")
                pieces.append(Piece(str(item["probe"]), file.rpartition("/")[2], text, str(item.get("part", "")), argv))
        if not pieces:
            raise InputError(f"{path.name} holds no capture that could be shown", "record one with: diagnose record")
        why = {str(m.get("probe")): str(m.get("reason", "")) for m in listed.get("not_captured") or []}
        return cls(str(listed.get("symptom", "")), tuple(pieces), why)


def seconds(probe: str) -> float:
    """What a probe costs in a drill: the seconds it declares."""
    return catalogue().probes[probe].seconds


# ---------------------------------------------------------------- requests in words


@dataclass(frozen=True)
class Request:
    """What some words ask for.

    Attributes:
        probes: one, several when the words are open, none when they mean nothing here.
        part: only this capture of the probe. grep: only lines with this in them.
    """

    probes: tuple[str, ...] = ()
    part: str | None = None
    grep: str = ""


@lru_cache(maxsize=1)
def aliases() -> dict[str, tuple[str, ...]]:
    """How people ask for a probe, from `playbooks/console`."""
    out: dict[str, tuple[str, ...]] = {}
    for _, raw in yaml_files("console"):
        for probe, words in (raw or {}).items():
            out[str(probe)] = (*out.get(str(probe), ()), *(str(w).lower() for w in words))
    return out


def asked(text: str, machine: Machine) -> Request:
    """Which probe a request means: by name, by command, by the usual words for it, else by what it says it does."""
    command, _, rest = text.partition("|")
    grep = _grep(rest)
    plain = _POLITE.sub("", command.strip()).strip(" ?？。.!！，,")
    if not plain:
        return Request()
    probes = catalogue().probes
    if plain.lower() in probes:
        return Request((plain.lower(),), grep=grep)
    if found := _by_command(plain, machine):
        return Request((found[0],), found[1], grep)
    if named := _by_alias(plain.lower()):
        return Request(named, grep=grep)
    return Request(_by_meaning(plain), grep=grep)


def _grep(rest: str) -> str:
    """The word of ``| grep -i WORD``."""
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    if words[:1] not in (["grep"], ["egrep"], ["rg"]):
        return ""
    return next((w for w in words[1:] if not w.startswith("-")), "")


def _commands(machine: Machine) -> Iterable[tuple[tuple[str, ...], str, str | None]]:
    """Known commands: those that ran in the recording with the capture they gave, then those declared."""
    for piece in machine.pieces:
        if piece.argv:
            alone = len(machine.by_probe[piece.probe]) == 1
            yield piece.argv, piece.probe, None if alone else piece.part
    for spec in catalogue().probes.values():
        for part in spec.run:
            if part.argv:
                yield part.argv, spec.name, None


def _by_command(plain: str, machine: Machine) -> tuple[str, str | None] | None:
    """The probe whose command these words begin with, or are the beginning of."""
    words = tuple(plain.split())
    best: tuple[int, int, str, str | None] | None = None
    for argv, probe, part in _commands(machine):
        if words[0].rpartition("/")[2] != argv[0].rpartition("/")[2]:
            continue
        same = 0
        while same < min(len(words), len(argv)) and words[same] == argv[same]:
            same += 1
        if same < min(len(words), len(argv)) and same < 2:
            continue
        rank = (same, -len(argv), probe, part)
        if best is None or rank[:2] > best[:2]:
            best = rank
    return None if best is None else (best[2], best[3])


def _by_alias(plain: str) -> tuple[str, ...]:
    """The probes with the longest alias in these words."""
    found: dict[str, int] = {}
    for probe, words in aliases().items():
        for word in words:
            hit = re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", plain) if word.isascii() else word in plain
            if hit:
                weight = len(word) * (1 if word.isascii() else 3)  # a Chinese character says more than a letter
                found[probe] = max(weight, found.get(probe, 0))
    longest = max(found.values(), default=0)
    return tuple(sorted(p for p, n in found.items() if n == longest))


def _by_meaning(plain: str) -> tuple[str, ...]:
    """The probes that say most of these words about themselves: two of them and half, or all."""
    own = set(tokens(plain))
    scored = []
    for spec in catalogue().probes.values():
        said = set(tokens(f"{spec.name.replace('_', ' ').replace('.', ' ')} {spec.what} {spec.command}"))
        same = len(own & said)
        if own and (same == len(own) or (same > 1 and 2 * same >= len(own))):
            scored.append((-same, spec.name))
    scored.sort()
    return tuple(name for score, name in scored if score == scored[0][0])[:MOST_OFFERED]
