"""Which of many lines hold one of many literals, in one pass over their bytes.

Python's own patterns try alternatives one after the other, at every place. The patterns of pydantic's core run in an
automaton that takes all of them in one step a byte, so hundreds of literals cost no more than one. They are given
lists of lines here and leave out those that do not match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property

from pydantic_core import SchemaValidator, core_schema

Need = tuple["bytes | tuple[Need, ...]", ...]  # as `marks.needles` gives it: all of them, in this order

Sift = Callable[[int, list[str]], list[str]]

_GROUPS = 16
_SAMPLE = 300  # lines that tell what is rare in a text …
_RARE = 0.01  # … in that share of them at most
_USUAL = 0.2  # share of the lines from which on it is no use to look for a want together with others
_MORE = 0.2  # of the lines than of the sample hold something rare: another sample is taken …
_SAMPLES = 8  # … up to so many
_MANY = 200  # lines from which on it is worth it to make a `Sieve` of all literals of a need
_START = 1 << 15  # bytes of a text in which its usual literals stand
_ROUNDS = 6
_PIECE = 1 << 19
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ ")


class Sieve:
    """Keeps the lines in which one of some patterns is found; lines are text of one byte a character."""

    def __init__(self, patterns: Iterable[str]) -> None:
        either = "|".join(patterns)
        found = core_schema.str_schema(pattern=either, regex_engine="rust-regex")
        kept = core_schema.with_default_schema(found, on_error="omit")
        self._validator = SchemaValidator(core_schema.list_schema(kept)) if either else None

    def __call__(self, lines: list[str]) -> list[str]:
        """Those of the lines that match, in their order: the same objects."""
        return [] if self._validator is None or not lines else list(self._validator.validate_python(lines))


def literal(text: bytes) -> str:
    """A literal as a pattern of a `Sieve`."""
    return "".join(chr(c) if c in _PLAIN else f"\\x{c:02x}" for c in text)


def least(literals: Iterable[bytes]) -> list[bytes]:
    """Without those that hold another one."""
    kept: set[bytes] = set()
    for one in sorted(set(literals), key=lambda text: (len(text), text)):
        if not any(one[i:j] in kept for i in range(len(one)) for j in range(i + 1, len(one) + 1)):
            kept.add(one)
    return sorted(kept)


def ordered(need: Need, spelt: Callable[[bytes], str] = literal) -> str:
    """A pattern for all literals of a need, one behind the other."""
    return ".*".join(
        spelt(p) if isinstance(p, bytes) else f"(?:{'|'.join(dict.fromkeys(ordered(o, spelt) for o in p))})"
        for p in need
    )


def standing(literals: Collection[bytes], text: bytes) -> set[bytes]:
    """Which of many literals stand in a long text: usual ones do so early, few lines hold the others."""
    whole = {one for one in literals if b"\n" in one}
    open_ = {*literals} - whole
    found = {one for one in whole if one in text}
    pieces: Iterable[list[str]] = _pieces(text)
    start = text[:_START]
    for _ in range(_ROUNDS):
        here = {one for one in open_ if one in start}
        found |= here
        open_ -= here
        sieve = Sieve(map(literal, least(open_)))
        lines = [line for piece in pieces for line in sieve(piece)]
        start = "\n".join(lines[:_SAMPLE]).encode("latin-1")
        pieces = [lines]
        if len(lines) <= _SAMPLE:
            break
    rest = "\n".join(lines).encode("latin-1")
    return found | {one for one in open_ if one in rest}


def _pieces(text: bytes) -> Iterator[list[str]]:
    """Lines of a text, some at a time."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", at + _PIECE) + 1 or len(text)
        yield text[at:end].decode("latin-1").split("\n")
        at = end


class _Sample:
    """Lines of a text, and how many of them hold what."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines[:: max(1, len(lines) // _SAMPLE)])
        self._raw = [line.encode("latin-1") for line in self.lines]
        self._whole = b"\n".join(self._raw)
        self._known: dict[bytes, float] = {}

    def _often(self, text: bytes) -> float:
        """Share of the lines, and a little more for a short literal."""
        known = self._known.get(text)
        if known is None:
            found = sum(text in line for line in self._raw) if text in self._whole else 0
            known = found / len(self._raw) + 1e-3 / len(text)
            self._known[text] = known
        return known

    def rarest(self, need: Need) -> tuple[list[bytes], float]:
        """The rarest literals of which a line that meets the need holds one, and how often they stand in the lines."""
        parts = (([p], self._often(p)) if isinstance(p, bytes) else self._either(p) for p in need)
        return min(parts, key=lambda made: made[1])

    def _either(self, options: Sequence[Need]) -> tuple[list[bytes], float]:
        made = [self.rarest(option) for option in options]
        return [text for texts, _ in made for text in texts], sum(often for _, often in made)


class _Want:
    """Places of those that need the same, and what that is."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self.places: list[int] = []

    @cached_property
    def sieve(self) -> Sieve:
        return Sieve([ordered(self.need)])


def _one_of(wants: Iterable[tuple[_Want, list[bytes]]]) -> Sieve:
    return Sieve(map(literal, least(text for _, texts in wants for text in texts)))


class _Plan:
    """In what order wants are asked of lines like those of a sample: rare ones together, usual ones each on its own.

    So are those between them, but only of the lines that hold a literal of one.
    """

    def __init__(self, wants: Sequence[_Want], lines: Sequence[str]) -> None:
        sample = _Sample(lines)
        self.seen = len(lines)
        self.usual: list[_Want] = []
        between: list[tuple[_Want, list[bytes]]] = []
        self._rare: list[tuple[_Want, list[bytes]]] = []
        for want in wants:
            texts, often = sample.rarest(want.need)
            if often > _USUAL:
                self.usual.append(want)
            else:
                (between if often > _RARE else self._rare).append((want, texts))
        self.between = [want for want, _ in between]
        self.either = _one_of(between)
        self.rare = _one_of(self._rare)
        self.most = _MORE + len(self.rare(sample.lines)) / len(sample.lines)

    @cached_property
    def groups(self) -> list[tuple[Sieve, list[_Want]]]:
        size = -(-len(self._rare) // _GROUPS) or 1
        parts = [self._rare[n : n + size] for n in range(0, len(self._rare), size)]
        return [(_one_of(part), [want for want, _ in part]) for part in parts]


class Sorter:
    """Tells which of many needs each line of a text may meet; of each text a new one, from `again`."""

    def __init__(self, needs: Sequence[Need]) -> None:
        wants: dict[Need, _Want] = {}
        for place, need in enumerate(needs):
            if need:
                wants.setdefault(need, _Want(need)).places.append(place)
        self._wants = list(wants.values())
        self._plans: list[_Plan] = []

    def again(self) -> Sorter:
        """The same for another text: what is compiled is kept, what is rare is found anew."""
        made = Sorter([])
        made._wants = self._wants
        return made

    def sort(self, lines: list[str], sift: Sift | None = None) -> dict[str, list[int]]:
        """Places of the needs that each line may meet, in order, for lines that may meet one.

        Where many meet a need, `sift` says of which that is true of the place it has.
        """
        if not lines:
            return {}
        if not self._plans or self._plans[-1].seen < _SAMPLE <= len(lines):
            self._plans.append(_Plan(self._wants, lines))
        rare = self._plans[-1].rare(lines)
        if len(rare) > self._plans[-1].most * len(lines) and len(self._plans) < _SAMPLES and len(lines) > _SAMPLE:
            self._plans.append(_Plan(self._wants, lines))
            rare = self._plans[-1].rare(lines)
        out: dict[str, list[int]] = {}
        asked = [(self._plans[-1].usual, lines), (self._plans[-1].between, self._plans[-1].either(lines))]
        if rare:
            asked += [(wants, sieve(rare)) for sieve, wants in self._plans[-1].groups]
        for wants, some in asked:
            for want in wants if some else ():
                met = want.sieve(some)
                for place in want.places:
                    for line in met if sift is None or len(met) < _MANY else sift(place, met):
                        out.setdefault(line, []).append(place)
        return {line: sorted(places) for line, places in out.items()}
