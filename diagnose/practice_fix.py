"""Score a fix proposed in free words against the catalogue: deterministic, English or Chinese.

What counts as a fix of a cause stands in `playbooks/fixes`; how to undo and to check it in the cause itself. A name of
a setting that belongs to another fix is wrong, and so is the right setting turned the wrong way: no line there fits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .catalogue import catalogue, yaml_files
from .concepts import tokens
from .entries import Cause
from .errors import CatalogueError
from .planner import meets, signals_of

WEIGHTS = {"change": 0.6, "rollback": 0.2, "check": 0.2}
HEALTHY = "none.healthy"
_COMMON = 0.2  # a word in the checks of more causes than this says nothing
_NAME = re.compile(
    r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|(?<![\w-])--[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*|\b[a-z0-9]+(?:[-_][a-z0-9]+){2,}\b"
)
_BACK = (
    r"roll(?:ing|ed)?[ -]?(?:it |that )?back|rollback|revert|undo|\bback (?:to|on|off|if)\b|restore|\bagain\b"
    r"|(?:put|set|switch|turn) (?:it|them|that) back|回滚|回退|恢复|改回|还原|撤销|撤回|设回|放回|退路"
)
_CHECK = (
    r"\b(?:check|verif|confirm|re-?run|repeat|re-?measure|measure|watch|compare|test|prove|validate|must|should"
    r"|expect|until|would (?:show|say|read|mean|tell))\w*"
    r"|确认|验证|重测|复测|再跑|再测|检查|观察|对比|应当|应该|坐实|直到"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|[;；。!?！？\n]+")
_PIECE = re.compile(
    rf"[,，、]\s*|\s+(?:and|then)\s+(?=[^,;]*?(?:{_BACK}|{_CHECK}))|(?:并且|然后|并|再)(?=[^，。；]*?(?:{_CHECK}))",
    re.I,
)
_BACKWARDS, _CHECKING = re.compile(_BACK, re.I), re.compile(_CHECK, re.I)
_DO_NOT = re.compile(
    r"\b(?:do not|don't|never|stop|no longer)\s+(?:set|export|use|forc)\w*|(?:不要|别|不再)(?:设置|设|用|导出)", re.I
)
_DENIED = re.compile(r"\b(?:do not|don't|never|not)\b|不要|别动|别改|不改|不用改", re.I)
_NOTHING = re.compile(r"\bnothing\b|\bno (?:change|fix)|\bleave\b|baseline|不用|不改|不动|无需|基线|没什么", re.I)


@dataclass(frozen=True)
class FixScore:
    """How good a proposed fix is, each part from 0 to 1.

    Attributes:
        wrong: names in it that belong to no fix of this cause.
    """

    change: float = 0.0
    rollback: float = 0.0
    check: float = 0.0
    wrong: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """All parts; undoing and checking a change that fixes nothing is worth nothing."""
        if not self.change:
            return 0.0
        return round(sum(weight * float(getattr(self, name)) for name, weight in WEIGHTS.items()), 4)


@lru_cache(maxsize=1)
def known() -> dict[str, tuple[str, ...]]:
    """The lines of `playbooks/fixes` by cause, ``$words`` filled in.

    Raises:
        CatalogueError: an unknown cause, or a word that is not declared.
    """
    words: dict[str, str] = {}
    lines: dict[str, tuple[str, ...]] = {}
    for file, raw in yaml_files("fixes"):
        words |= {str(name): str(text) for name, text in (raw.get("words") or {}).items()}
        for cause, rows in (raw.get("fixes") or {}).items():
            if cause not in catalogue().causes:
                raise CatalogueError(file, str(cause), "no such cause")
            filled = tuple(_filled(str(row), words) for row in rows)
            if unknown := next((m[0] for row in filled if (m := re.search(r"\$\w+", row))), ""):
                raise CatalogueError(file, str(cause), f"{unknown} is not among the words")
            lines[str(cause)] = (*lines.get(str(cause), ()), *filled)
    return lines


def _filled(row: str, words: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda m: words.get(m[1], m[0]), row)


def plain(name: str) -> str:
    """A setting's name in one spelling: ``--max-num-seqs`` is ``max_num_seqs``."""
    return name.lstrip("-").replace("-", "_").lower()


def names(text: str) -> set[str]:
    """Settings that a text names."""
    return {plain(m[0]) for m in _NAME.finditer(text)}


@lru_cache(maxsize=256)
def _own(cause_id: str) -> frozenset[str]:
    """Settings that belong to a cause: all that its entry names."""
    cause = catalogue().causes[cause_id]
    return frozenset(names(f"{cause.model_dump()} {' '.join(known().get(cause_id, ()))}"))


@lru_cache(maxsize=1)
def _settings() -> frozenset[str]:
    """Every setting that some cause names."""
    return frozenset().union(*(_own(c) for c in catalogue().causes))


def _fits(line: str, text: str, knobs: frozenset[str]) -> bool:
    """Does a text say every group of a line?"""
    for group in line.split("&"):
        terms = [t.strip().lower() for t in group.split("|") if t.strip()]
        if not any(_said(term, text, knobs) for term in terms):
            return False
    return True


def _said(term: str, text: str, knobs: frozenset[str]) -> bool:
    if term == "{knob}":
        return bool(knobs & names(text))
    start = r"(?<![a-z0-9])" if term[0].isalnum() and term[0].isascii() else ""
    return re.search(start + re.escape(term), text.lower()) is not None


@dataclass(frozen=True)
class _Clauses:
    """A proposal taken apart."""

    change: list[str]
    back: list[str]
    check: list[str]

    @classmethod
    def of(cls, text: str) -> _Clauses:
        got = cls([], [], [])
        for n, sentence in enumerate(s for s in _SENTENCE.split(_DO_NOT.sub("unset", text)) if s and s.strip()):
            kind = got.change
            for m, piece in enumerate(p.strip() for p in _PIECE.split(sentence) if p and p.strip()):
                if _BACKWARDS.search(piece):
                    kind = got.back
                elif _CHECKING.search(piece):
                    kind = got.check
                kind.append(piece)
                if not n and not m and kind is not got.change:
                    got.change.append(piece)  # "go back to the last release" is what one begins with
        return got


def score(text: str, causes: Iterable[str], deciding: Iterable[str] = ()) -> FixScore:
    """The best score among causes that are right.

    Args:
        text: what was proposed.
        deciding: lines that decide the case; names of settings in them are what is to be changed.
    """
    lines = "\n".join(deciding)
    found = [_of_one(text, c, frozenset(names(lines))) for c in causes if c in catalogue().causes]
    return max(found, key=lambda s: s.total, default=FixScore())


def _of_one(text: str, cause_id: str, knobs: frozenset[str]) -> FixScore:
    if cause_id == HEALTHY:
        right = float(not text.strip() or bool(_NOTHING.search(text)))
        return FixScore(right, right, right)
    cause, own = catalogue().causes[cause_id], _own(cause_id)
    parts = _Clauses.of(text)
    said = [c for c in parts.change if not _DENIED.search(c)]
    windows = [*said, *(f"{a}, {b}" for a, b in pairwise(said))]
    hit = any(_fits(line, window, knobs) for line in known().get(cause_id, ()) for window in windows)
    shaped = {plain(m[0]) for c in said for m in _NAME.finditer(c) if m[0].isupper() or m[0].startswith("--")}
    wrong = sorted(n for n in set().union(*map(names, said)) - own - knobs if n in _settings() or n in shaped)
    change = 1 / (1 + len(wrong)) if hit else 0.0
    return FixScore(change, _rollback(cause, parts, own | knobs), _check(cause, parts.check), tuple(wrong))


def _texts(cause: Cause, field: str) -> str:
    zh: Any = cause.zh
    if field == "rollback":
        return f"{cause.fix.rollback} {zh.fix.rollback if zh and zh.fix else ''}"
    return f"{getattr(cause, field)} {getattr(zh, field) if zh else ''}"


def _rollback(cause: Cause, parts: _Clauses, own: frozenset[str]) -> float:
    """Is there a way back, and does it say what is put back?"""
    if cause.fix.rollback.rstrip(".") in ("", "none"):
        return 1.0
    if not parts.back:
        return 0.0
    text = " ".join(parts.back)
    rest = set(tokens(_BACKWARDS.sub(" ", text)))
    about = set(tokens(_texts(cause, "rollback"))) | set(tokens(" ".join(parts.change)))
    pointed = re.search(r"\b(?:it|them|that|old|previous|former|original|before)\b|原|旧|它|之前|以前", text, re.I)
    return 1.0 if rest & about or names(text) & own or (pointed and rest) else 0.5


@lru_cache(maxsize=1)
def _frequency() -> dict[str, int]:
    """In the checks of how many causes a word stands."""
    out: dict[str, int] = {}
    for cause in catalogue().causes.values():
        for word in set(tokens(_texts(cause, "verify"))):
            out[word] = out.get(word, 0) + 1
    return out


def _check(cause: Cause, said: list[str]) -> float:
    """Is there a test, and is it one that decides this cause: by its own check, or by a sign it rests on?"""
    if not said:
        return 0.0
    text = " ".join(said)
    rare = _COMMON * len(catalogue().causes)
    own = {w for w in tokens(_texts(cause, "verify")) if _frequency().get(w, 0) <= rare}
    signs = set(tokens(" ".join(i.because for i in cause.indicators)))
    words = set(tokens(text))
    if names(text) & _own(cause.id) or len(words & own) >= 2 or reads(text, cause):
        return 1.0
    return 0.5 if words & (own | signs) else 0.0


def reads(text: str, cause: Cause) -> bool:
    """Does a text name a probe that reads a sign of this cause?"""
    wanted = {s for i in cause.indicators for s in signals_of(i.when)}
    return any(
        meets(s, pattern)
        for spec in catalogue().probes.values()
        if spec.name in text.lower()
        for pattern in spec.provides
        for s in wanted
    )
