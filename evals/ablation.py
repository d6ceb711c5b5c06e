"""Cases with something taken out or turned round: what must the verdict no longer say?

`ablate` takes out the lines that the key names, `silence_repeats` also what says the same again,
`silence` besides whatever the engine itself calls decisive for the key's causes, until nothing decisive
is left. `contradict` puts a healthy reading in the place of the decisive one, where that is mechanical.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from diagnose.models import Evidence, Report

from .case import Case
from .scoring import HEALTHY, Key

DERIVED = ("ablation", "ablation-repeats", "ablation-decisive", "contradicted", "citations")
_ROUNDS = 6  # of taking out, until nothing decisive is left

_NUMBER = re.compile(r"\d[\d.,]*")
# What a message is about: an identifier with a separator or digits in it, or in capitals; not an ordinary word.
_NAMED = re.compile(r"\b(?:[A-Za-z]+[_.][A-Za-z_.]{3,}|[A-Z][A-Z_0-9]{4,}|[A-Z][a-z]+[A-Z]\w+)\b")
_STATISTIC = re.compile(r"\s*[\w%]+\s{2,}\d[\d.,]*\s*$")
_Cut = tuple[int, int]


def ablate(case: Case) -> Case | None:
    """The case without the lines that hold the key's evidence; None if the key names no line of it."""
    texts = [(name, without(text, case.key.evidence)) for name, text in case.texts]
    return _left(case, texts, "ablated")


def silence_repeats(case: Case) -> Case | None:
    """… and without lines that say the same again, in whichever artifact they stand."""
    out = [[_touched(line, case.key.evidence) for line in text.split("\n")] for _, text in case.texts]
    texts = [(n, without(t, case.key.evidence)) for n, t in _unrepeated(case.texts, out, by_name=True)]
    return _left(case, texts, "without repeats")


def silence(case: Case) -> Case | None:
    """… and without every line that the engine holds decisive for a cause of the key, until it holds none."""
    from diagnose.engine import triage

    from .wording import unlearnt

    cut = silence_repeats(case)
    for _ in range(_ROUNDS if cut is not None else 0):
        assert cut is not None
        with unlearnt(case.source):
            got = triage(cut.symptom, cut.documents())
        beliefs = dict(got.assessment.beliefs)
        if got.assessment.healthy is not None:
            beliefs[HEALTHY] = got.assessment.healthy
        used: list[Evidence] = []
        for belief in (beliefs[c] for c in case.key.accepted if c in beliefs):
            sure = [t for t in belief.pro if t.indicator.strength == "decisive"]
            strong = [t for t in belief.pro if t.counted and t.indicator.strength == "strong"]
            for term in sure or strong[1:]:  # two independent strong signs are decisive together
                used += term.used
        texts = _cut(cut, got.evidence, {e.id for e in used})
        if texts == cut.texts:
            return replace(cut, id=f"{case.id} nothing decisive")
        cut = replace(cut, texts=tuple((n, t) for n, t in texts if t.strip()))
    return cut and replace(cut, id=f"{case.id} nothing decisive")


def ablate_cited(case: Case, got: Report) -> Case | None:
    """The case without the lines that a report's own verdict cites; the key is what the report said.

    A report cites a reading once and the worst rows of a table: the same line with other figures, and the rest of the
    table, go with them.
    """
    if got.verdict == "inconclusive" or not case.texts:
        return None
    if got.findings:
        ids, label = set(got.findings[0].evidence), got.findings[0].cause
    else:
        ids, label = {i for item in got.checked for i in item.evidence}, HEALTHY
    spans = [s for e in got.evidence if e.id in _backing(got.evidence, ids) for s in e.spans]
    out = [_hit(text.encode(), [s.bytes for s in spans if s.capture == name]) for name, text in case.texts]
    texts = _unrepeated(case.texts, out, by_name=False)
    key = Key(label, (), "healthy" if label == HEALTHY else "cause")
    return replace(case, id=f"{case.id} uncited", key=key, texts=tuple((n, t) for n, t in texts if t.strip()))


# What a reading looks like when that signal is well. Both ways of writing a state, never a judgement of a figure.
_WELL: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(old, re.IGNORECASE), new)
    for old, new in (
        (r"(_DISABLE(?:=| set by environment to )\"?)1", r"\g<1>0"),
        (r"(ReqRedir|CmpltRedir|SrcValid|UpstreamFwd)\+", r"\1-"),
        (r"\bvia (?:SHM|NET/Socket)\S*", "via P2P/CUMEM"),
        (r"\bUsing network Socket", "Using network IB"),
        (r"\bState: (?:Down|Polling|Initializing)", "State: Active"),
        (r"\bstate DOWN\b", "state ACTIVE"),
        (r"(cuda graph: )False", r"\1True"),
        (r"(enforce_eager=)True", r"\1False"),
        (r"--enforce-eager\b", ""),
        (r"(pin_memory=)False", r"\1True"),
        (r"(num_workers=)0\b", r"\g<1>8"),
        (r"\b(HW Thermal Slowdown|SW Thermal Slowdown|HW Power Brake Slowdown)(\s*:\s*)Active", r"\1\2Not Active"),
        (r"(enable_prefix_caching=)False", r"\1True"),
        (r"--no-enable-prefix-caching\b", "--enable-prefix-caching"),
        (r"(is_available\(\).*?)False", r"\1True"),
    )
)


def contradict(case: Case) -> Case | None:
    """The case with every decisive line of the key saying that this signal is well; None where that is not mechanical.

    States are turned round by `_WELL`; a row of figures takes the figures of the best row of its table, which is the
    one that the key does not name.
    """
    if case.key.verdict != "cause":
        return None
    texts: list[tuple[str, str]] = []
    turned = False
    for name, text in case.texts:
        lines = text.split("\n")
        for i, line in enumerate(lines):
            if not _touched(line, case.key.evidence):
                continue
            well = _turned(line)
            if well is None:
                well = _as_neighbour(lines, i, case.key.evidence)
            if well is None:
                return None  # a line that still says it
            lines[i], turned = well, True
        texts.append((name, "\n".join(lines)))
    if not turned:
        return None
    return replace(case, id=f"{case.id} contradicted", texts=tuple(texts))


def _turned(line: str) -> str | None:
    out = line
    for old, new in _WELL:
        out = old.sub(new, out)
    return out if out != line else None


def _as_neighbour(lines: Sequence[str], at: int, needles: Sequence[str]) -> str | None:
    """The row with the figures of another row of the same table, its first column kept."""
    mine = _NUMBER.findall(lines[at])
    for step in (-1, 1, -2, 2):
        if not 0 <= at + step < len(lines) or _touched(lines[at + step], needles):
            continue
        theirs = _NUMBER.findall(lines[at + step])
        if len(mine) == len(theirs) >= 2 and _shape(lines[at + step])[-12:] == _shape(lines[at])[-12:]:
            figures = iter([mine[0], *theirs[1:]])
            return _NUMBER.sub(lambda _, f=figures: next(f), lines[at])  # type: ignore[misc]
    return None


MADE: dict[str, Callable[[Case], Case | None]] = {
    "ablation": ablate,
    "ablation-repeats": silence_repeats,
    "ablation-decisive": silence,
    "contradicted": contradict,
}


def backing(got: Report, ids: set[str]) -> set[str]:
    """Evidence and everything it is derived from."""
    return _backing(got.evidence, ids)


def _backing(evidence: Iterable[Evidence], ids: set[str]) -> set[str]:
    by_id = {e.id: e for e in evidence}
    out, queue = set(ids), list(ids)
    while queue:
        item = by_id.get(queue.pop())
        fresh = [i for i in item.inputs if i not in out] if item else []
        out.update(fresh)
        queue += fresh
    return out


def _cut(case: Case, evidence: Sequence[Evidence], ids: set[str]) -> tuple[tuple[str, str], ...]:
    """The texts without the lines that these pieces of evidence, and what they derive from, quote."""
    spans = [s for e in evidence if e.id in _backing(evidence, ids) for s in e.spans]
    return tuple((n, drop(t.encode(), [s.bytes for s in spans if s.capture == n]).decode()) for n, t in case.texts)


def _unrepeated(
    texts: Iterable[tuple[str, str]], out: Sequence[Sequence[bool]], by_name: bool
) -> list[tuple[str, str]]:
    """The texts without the lines that are out, and without what says the same again.

    Args:
        out: for each text, which of its lines are out.
        by_name: take the same identifier for the same thing said again.
    """
    lines = [(name, text.split("\n")) for name, text in texts]
    gone = [line for (_, rows), flags in zip(lines, out, strict=True) for line, f in zip(rows, flags, strict=True) if f]
    shapes = {_shape(line) for line in gone}
    names = {_last(name) for line in gone for name in _NAMED.findall(line)} if by_name else set()
    kept = []
    for (name, rows), flags in zip(lines, out, strict=True):
        again = (
            table or flag or _shape(line) in shapes or any(_last(n) in names for n in _NAMED.findall(line))
            for line, flag, table in zip(rows, flags, _rows(rows, flags), strict=True)
        )  # fmt: skip
        kept.append((name, "\n".join(line for line, away in zip(rows, again, strict=True) if not away)))
    return kept


def _left(case: Case, texts: Sequence[tuple[str, str]], word: str) -> Case | None:
    if tuple(texts) == case.texts:
        return None
    return replace(case, id=f"{case.id} {word}", texts=tuple((n, t) for n, t in texts if t.strip()))


def _touched(line: str, needles: Sequence[str]) -> bool:
    parts = [p for n in needles for p in n.split("\n") if p.strip()]
    return any(p in line for p in parts)


def _last(name: str) -> str:
    """``config.recompile_limit`` is ``recompile_limit``."""
    return name.rpartition(".")[2]


def _shape(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())


def _rows(lines: Sequence[str], out: Sequence[bool]) -> list[bool]:
    """Rows of figures that adjoin, row by row, a row which is out: they belong to its table.

    A line of one word and one figure (`mean  38.5`) is a row too.
    """
    figures = [len(_NUMBER.findall(line)) >= 2 or bool(_STATISTIC.match(line)) for line in lines]
    table = [a and b for a, b in zip(figures, out, strict=True)]
    for order in (range(1, len(lines)), range(len(lines) - 2, -1, -1)):
        back = -1 if order.step == 1 else 1
        for i in order:
            table[i] |= figures[i] and table[i + back]
    return table


def without(text: str, needles: Sequence[str]) -> str:
    """`text` without every line that a needle touches; a needle may run over several lines."""
    data, cuts = text.encode(), []
    for needle in (n.rstrip("\n").encode() for n in needles if n.strip()):
        at = data.find(needle)
        while at >= 0:
            cuts.append((at, at + len(needle)))
            at = data.find(needle, at + 1)
    return drop(data, cuts).decode()


def drop(data: bytes, cuts: Sequence[_Cut]) -> bytes:
    """Lines that no ``(first byte, byte after the last)`` touches."""
    lines = data.split(b"\n")
    return b"\n".join(line for line, hit in zip(lines, _hit(data, cuts), strict=True) if not hit)


def _hit(data: bytes, cuts: Sequence[_Cut]) -> list[bool]:
    """Which lines does a ``(first byte, byte after the last)`` touch?"""
    out, start = [], 0
    for line in data.split(b"\n"):
        end = start + len(line) + 1
        out.append(any(first < end and start < last for first, last in cuts))
        start = end
    return out
