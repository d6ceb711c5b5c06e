"""What a model wrote, sentence by sentence: only what the report says may be said.

A sentence passes when every figure, name with a figure, quote, code and dotted id in it stands in the report, its words
are mostly the deterministic answer's, it denies nothing that the answer asserts, and it shows no secret, address or
control character. What does not pass is dropped; nothing is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from .arithmetic import Backing, check_numerals
from .document import printable
from .mask import secrets
from .models import Answer, Report

COMMON = 0.55  # share of a sentence's words that the answer must have
FAILURES = 2  # sentences that may not fail: with as many the text is given up
_SENTENCE = re.compile(r"(?<=[。!?])\s*|(?<=[.!?])\s+|\n+")
_HELD = re.compile(r"“[^”]*”|`[^`\n]*`")
_BACK = re.compile(r"\x00(\d+)\x01")
_CITED = re.compile(r"\[E\d+")
_KEY = re.compile(r"[::].*(?=[((]E\d+)")
_CLAUSE = re.compile(r"[;:,](?=\s)|[,;:、]|\b(?:while|although|because|but)\b|但|而|却")
_UNIT = re.compile(r"\s?(?:%|[A-Za-zµ°]+(?:/[A-Za-z]+)?|[毫微]?秒|分钟|倍)")
_FIGURE = re.compile(r"[\w.:/%+@=-]*\d[\w.:/%+@=-]*", re.ASCII)
_DOTTED = re.compile(r"\b[a-z_]+(?:\.[a-z_0-9*]+)+\b")
_QUOTED = re.compile(r"`([^`]*)`|“([^”]*)”|\"([^\"]*)\"|「([^」]*)」")
_SPELT = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|fifty|sixty|seventy|eighty"
    r"|ninety|hundred|thousand|million|billion|half|quarter|third|twice|thrice|double|triple|\w+fold|percent|zero)\b"
    r"|[一二两三四五六七八九十百千万亿半]+(?:倍|成|个|次|秒|分|%|毫秒|微秒|GB|MB|点|折)|百分之|翻倍|减半",
    re.IGNORECASE,
)
_DENIES = re.compile(r"\b(?:not|no|never|nothing|none|neither|nor|without|cannot|isn|doesn|wasn|don|healthy|fine|ok)\b"
                     r"|不|没|无|未|别|健康|正常", re.IGNORECASE)  # fmt: skip
_ADDRESS = re.compile(r"://|\bwww\.|\S@\S|\|\s*(?:ba)?sh\b|<[^>]+>|\{|\}")
_WORD = re.compile(r"[A-Za-z]{4,}")
_HAN = re.compile(r"[一-鿿]")


def sentences(text: str) -> list[str]:
    """A text in sentences; what stands in our quotes is a part of its sentence, whatever it holds."""
    held: list[str] = []

    def hold(hit: re.Match[str]) -> str:
        held.append(hit.group())
        return f"\x00{len(held) - 1}\x01"

    parts = _SENTENCE.split(_HELD.sub(hold, text.replace("\x00", " ").replace("\x01", " ")))
    return [_BACK.sub(lambda m: held[int(m[1])], s).strip() for s in parts if s and s.strip()]


def clauses(sentence: str) -> list[str]:
    """A sentence at its commas."""
    return [c for c in _CLAUSE.split(sentence) if c.strip()]


def backing(report: Report) -> list[Backing]:
    """Every figure of a report with its unit."""
    values: list[Backing] = [
        (float(e.value), e.unit)
        for e in report.evidence
        if isinstance(e.value, (int, float)) and not isinstance(e.value, bool)
    ]
    values += [(r.value, r.unit) for r in report.references]
    values += [(f.confidence, "fraction") for f in report.findings] + [(report.confidence, "fraction")]
    for item in report.limits:
        values += [(item.measured, item.unit), *([(item.limit, item.unit)] if item.limit is not None else [])]
        values += [(item.ratio, "fraction"), (item.ratio, "count")] if item.ratio is not None else []
    for stage in report.stages:
        values += [(stage.seconds, "s"), *([(stage.share, "fraction")] if stage.share is not None else [])]
    return values


def whole(answer: Answer) -> str:
    """All of a deterministic answer as one text."""
    follow = " ".join(f"{f.q} {f.a}" for f in answer.follow_ups)
    return " ".join([answer.verdict, answer.short, answer.long, answer.validate_, answer.boundary, follow])


def stems(text: str) -> set[str]:
    """Words by their beginning, and pairs of Chinese characters."""
    out = {w.lower()[:6] for w in _WORD.findall(text)}
    for run in re.findall(r"[一-鿿]+", text):
        out.update(run[i : i + 2] for i in range(len(run) - 1))
    return out


@dataclass(frozen=True)
class Checker:
    """One deterministic answer, and the figures that its report backs."""

    allowed: str
    values: tuple[Backing, ...]

    @cached_property
    def known(self) -> frozenset[str]:
        """The answer's own sentences."""
        return frozenset(sentences(self.allowed))

    @cached_property
    def ours(self) -> str:
        """What the answer says itself: without quotes, and without sentences that carry words of a capture."""
        told = (s for s in sentences(self.allowed) if not _CITED.search(s))
        return " ".join(_HELD.sub(" ", _KEY.sub(" ", s)) for s in told)

    @cached_property
    def clauses(self) -> list[str]:
        """What the answer says, in the smallest pieces that assert or deny something."""
        return [c for s in sentences(self.ours) for c in clauses(s)]

    @classmethod
    def of(cls, report: Report, answer: Answer) -> Checker:
        """For rewording `answer`, which the report renders to."""
        return cls(whole(answer), tuple(backing(report)))

    def problem(self, sentence: str) -> str:
        """Why a sentence may not be said, or nothing."""
        if sentence in self.known:
            return ""
        if printable(sentence) != sentence or _ADDRESS.search(sentence):
            return "it holds an address, markup or control characters"
        if secrets(sentence):
            return "it shows a secret"
        for hit in _QUOTED.finditer(sentence):
            if (said := next(g for g in hit.groups() if g is not None)) not in self.allowed:
                return f"{said[:40]!r} is no quote"
        if odd := next(self._figures(sentence), ""):
            return f"nothing backs {odd!r}"
        for hit in _DOTTED.finditer(sentence):
            if hit.group() not in self.allowed:
                return f"{hit.group()!r} is not in the answer"
        return self._meaning(sentence)

    def _figures(self, sentence: str) -> Iterator[str]:
        """Figures, in digits or in words, and names with digits, that stand nowhere in the report."""
        for hit in _SPELT.finditer(sentence):
            if hit.group().lower() not in self.allowed.lower():
                yield hit.group()
        bare = sentence
        for hit in _FIGURE.finditer(sentence):
            token = hit.group().strip(".:/=-+@%")
            if re.fullmatch(r"[\d.,]+", token):  # also after words like rank, where the arithmetic asks for nothing
                unit = _UNIT.match(sentence, hit.end())
                if not _stands(token, self.allowed) and check_numerals(token + (unit[0] if unit else ""), self.values):
                    yield token
                continue
            if not _stands(token, self.allowed):
                yield token
            bare = bare.replace(token, " ")
        for numeral in check_numerals(bare, self.values):
            if not _stands(numeral, self.allowed):
                yield numeral

    def _meaning(self, sentence: str) -> str:
        sentence = _HELD.sub(" ", sentence)
        mine = stems(sentence)
        if not mine or len(mine & stems(self.ours)) < COMMON * len(mine):
            return "it says something else than the answer"
        for clause in clauses(sentence):
            said = stems(clause)
            if len(said) < 2:
                continue
            nearest = max(self.clauses, default="", key=lambda c: len(stems(c) & said) / (1 + len(stems(c) | said)))
            if bool(_DENIES.search(clause)) != bool(_DENIES.search(nearest)):
                return "it denies what the answer says, or the other way round"
        return ""

    def keep(self, text: str) -> tuple[list[str], list[str]]:
        """Sentences that pass, and what was wrong with the others."""
        good, bad = [], []
        for sentence in sentences(text):
            if why := self.problem(sentence):
                bad.append(why)
            else:
                good.append(sentence)
        return good, bad


def _stands(token: str, text: str) -> bool:
    """Does a figure stand in a text by itself, not as a part of a longer one?"""
    return re.search(rf"(?<![\w.:/=]){re.escape(token)}(?![\w]|\.\d)", text) is not None


def unbacked(texts: Iterable[str], checker: Checker) -> list[str]:
    """Problems of texts that claim to be checked."""
    return [why for text in texts for why in checker.keep(text)[1]]
