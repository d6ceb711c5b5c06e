"""How long a spoken text is, and what is left out of one that is too long.

An English text is counted in words, a Chinese one in characters, where a term or a figure in Latin letters counts
as two. Whole sentences are left out, never parts of one; which ones is said by their rank.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHORT = {"en": 75, "zh": 150}  # half a minute
LONG = {"en": 230, "zh": 460}  # a minute and a half
_LATIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./%+-]*")
_HAN = re.compile(r"[一-鿿]")
_CLAUSE = {"en": re.compile(r"(?<=[a-z)])[;.] "), "zh": re.compile(r"[；;。]")}


def spoken(text: str, lang: str) -> int:
    """Length of a text as it is said."""
    if lang == "zh":
        return len(_HAN.findall(text)) + 2 * len(_LATIN.findall(text))
    return len(text.split())


@dataclass(frozen=True)
class Part:
    """A sentence or some of them.

    Attributes:
        rank: the lower, the earlier it gets its room.
        forms: the same, from the fullest to the shortest; the first that fits is said.
    """

    rank: int
    forms: tuple[str, ...]


def part(rank: int, *forms: str) -> Part:
    """A part without its empty forms."""
    return Part(rank, tuple(f for f in forms if f))


def fit(parts: Sequence[Part], bound: int, lang: str) -> list[str]:
    """The parts that have room, in the order in which they are said.

    Rooms go by rank; rank 0 is always said, in its shortest form if need be. What does not fit is left out whole,
    and what ranks behind it still gets its chance.
    """
    left = bound
    chosen: dict[int, str] = {}
    for n in sorted(range(len(parts)), key=lambda i: parts[i].rank):
        forms = parts[n].forms
        fits = next((f for f in forms if spoken(f, lang) <= left), None)
        if fits is None and forms and parts[n].rank == 0:
            fits = forms[-1]
        if fits is not None:
            chosen[n] = fits
            left -= spoken(fits, lang)
    return [chosen[n] for n in sorted(chosen)]


def first_clause(text: str, lang: str) -> str:
    """A text up to the first place where one could stop."""
    return _CLAUSE[lang].split(text, maxsplit=1)[0].rstrip("。.；;")


def cut(text: str, width: int) -> str:
    """A text of at most `width` characters, cut between words."""
    if len(text) <= width:
        return text
    head = text[: width - 1]
    space = head.rfind(" ")
    return (head[:space] if space > width // 2 else head).rstrip(" ,;:") + "…"
