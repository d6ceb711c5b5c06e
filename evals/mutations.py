"""Cases changed in a way that must not matter, or in a way that must: the verdict stays, or it follows.

Each mutation declares which. A text that it does not fit is left out, and so is a case that the engine gets wrong
unchanged: the question is what the change alone does. `STAYS` are scored like any case; for `FOLLOWS` the cause of
the unchanged case must no longer be held.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from diagnose.models import Evidence, Report

from .ablation import backing
from .case import Case
from .scoring import Key


@dataclass(frozen=True)
class Mutation:
    """One way of changing a case.

    Attributes:
        name: unique. says: what is changed. make: the changed case, or None where it does not fit.
        answered: whether `make` needs the answer to the unchanged case.
    """

    name: str
    says: str
    make: Callable[[Case, Report | None, random.Random], Case | None]
    answered: bool = False

    def change(self, case: Case, got: Report | None, draw: random.Random) -> Case | None:
        """The changed case with its id and key; None where the mutation does not fit."""
        made = self.make(case, got, draw) if case.texts else None
        if made is None or (made.texts, made.symptom) == (case.texts, case.symptom):
            return None
        return replace(made, id=f"{case.id} ~{self.name}", kind=self.name, key=_still(made))


STAYS: list[Mutation] = []
FOLLOWS: list[Mutation] = []
_Text = Callable[["Case", random.Random], "Case | None"]
_Answer = Callable[["Case", Report], "Case | None"]


def _by_text(kinds: list[Mutation], says: str) -> Callable[[_Text], _Text]:
    """Declare a change that needs the text only."""

    def register(make: _Text) -> _Text:
        kinds.append(Mutation(make.__name__, says, lambda case, _, draw: make(case, draw)))
        return make

    return register


def _by_answer(kinds: list[Mutation], says: str) -> Callable[[_Answer], _Answer]:
    """Declare a change to what the answer rests on."""

    def register(make: _Answer) -> _Answer:
        def change(case: Case, got: Report | None, _: random.Random) -> Case | None:
            made = make(case, got) if got else None
            if made is None or got is None or kinds is not FOLLOWS or not got.findings:
                return made
            # What is changed is what the leading finding rests on; another cause of the key may rest on something else.
            return replace(made, key=replace(made.key, label=got.findings[0].cause, also=()))

        kinds.append(Mutation(make.__name__, says, change, True))
        return make

    return register


def _still(case: Case) -> Key:
    """The key, with the evidence that the change left as it was."""
    return replace(case.key, evidence=tuple(e for e in case.key.evidence if any(e in t for _, t in case.texts)))


def _each(case: Case, change: Callable[[str], str]) -> Case:
    return replace(case, texts=tuple((n, change(t)) for n, t in case.texts))


# ---------------------------------------------------------------- the verdict stays

_UNITS: dict[str, tuple[str, float]] = {
    "GB/s": ("Gb/s", 8.0), "Gb/s": ("GB/s", 1 / 8), "Gbps": ("GB/s", 1 / 8), "ms": ("s", 1e-3), "us": ("ms", 1e-3),
    "MB/s": ("GB/s", 1e-3), "GiB": ("MiB", 1024.0),
}  # fmt: skip
_FIGURE = re.compile(rf"(?<![\w.,:/=-])(\d+(?:\.\d+)?)( ?)({'|'.join(map(re.escape, _UNITS))})(?![\w/])")
# A line that a program prints has the units that the program prints.
_PROMPT = re.compile(r"^[$>] \S", re.M)  # what follows a command is printed
_PRINTED = re.compile(
    r"NCCL|INFO|WARN|ERROR|\d\d:\d\d:\d\d|NVRM|Tried to allocate|^\s*#|icmp_seq|rtt min|LnkSta|\bP50\b|\brate \d+", re.M
)


@_by_text(STAYS, "a figure typed by hand is given in another unit (GB/s and Gb/s, ms and s)")
def units(case: Case, _draw: random.Random) -> Case | None:
    """Lines printed by a program stay, as do lines that hold a name with a figure."""

    def one(hit: re.Match[str]) -> str:
        unit, factor = _UNITS[hit[3]]
        return f"{float(f'{float(hit[1]) * factor:.6g}'):f}".rstrip("0").rstrip(".") + (hit[2] or " ") + unit

    def each(text: str) -> str:
        if _PROMPT.search(text):
            return text
        return "\n".join(x if _PRINTED.search(x) else _FIGURE.sub(one, x) for x in text.split("\n"))

    return _each(case, each)


@_by_text(STAYS, "the pasted pieces come in another order")
def pieces(case: Case, draw: random.Random) -> Case | None:
    """Names keep their old places, so that a reader of names gains nothing."""
    if len(case.texts) < 2:
        return None
    texts = list(case.texts)
    while tuple(texts) == case.texts:
        draw.shuffle(texts)
    return replace(case, texts=tuple((f"{i}-{n.partition('-')[2] or n}", t) for i, (n, t) in enumerate(texts)))


_SETTING = re.compile(r"^(?:export )?[A-Z][A-Z0-9_]{3,}=\S*$")


@_by_text(STAYS, "settings come in another order")
def order(case: Case, draw: random.Random) -> Case | None:
    """A run of `NAME=value` lines says the same in any order."""

    def one(text: str) -> str:
        lines = text.split("\n")
        start = 0
        for end in range(len(lines) + 1):
            if end == len(lines) or not _SETTING.match(lines[end]):
                run = lines[start:end]
                names = [line.removeprefix("export ").partition("=")[0] for line in run]
                if len(set(names)) == len(names):  # of two values of one name the last one stands
                    draw.shuffle(run)
                    lines[start:end] = run
                start = end + 1
        return "\n".join(lines)

    return _each(case, one)


_NUMBERED = re.compile(r"\d\[\w+\] -> \d|nranks|local.?rank|^\W*rank\b(?![ =:]?\d)|GPU ?\d|cuda:\d", re.MULTILINE)
_RANK = re.compile(r"(?<![\w-])(\[?rank[ =:]?|Rank[ =:]?)(\d{1,3})\b(?!\.\d)")


@_by_text(STAYS, "ranks are numbered otherwise, the same way everywhere")
def ranks(case: Case, _draw: random.Random) -> Case | None:
    """Only where ranks are spelled out and nothing else (a channel, a table's column, a GPU) numbers them too."""
    found = sorted({int(n) for _, n in _RANK.findall(case.text)})
    if len(found) < 2 or _NUMBERED.search(case.text):
        return None
    to = dict(zip(found, [*found[1:], found[0]], strict=True))
    return _each(case, lambda text: _RANK.sub(lambda m: f"{m[1]}{to[int(m[2])]}", text))


_HOST = re.compile(
    r"(?<![\w./-])(?:node|worker|host|dgx|gn|cn|gpu-?node|compute|trainer|w|n)-?(?:\d{2,3}|[a-f]\d?|\d)(?![\w/])"
)


@_by_text(STAYS, "hosts have other names, the same everywhere")
def hosts(case: Case, draw: random.Random) -> Case | None:
    """NUMA nodes are no hosts; the same number of letters keeps columns aligned."""
    names = sorted({h for h in _HOST.findall(case.text) if not re.match(r"node ?\d$", h)})
    names = [h for h in names if len(h) >= 4 and h in "\n".join(t for _, t in case.texts)]
    if not names:
        return None
    letters = draw.sample("acghkprsvz", 10)
    to = {
        h: (letters[i % 10] + letters[i // 10 % 10] + "-" + f"{i + 11:0{max(len(h) - 3, 2)}d}")
        for i, h in enumerate(names)
    }
    swap = re.compile(r"(?<![\w./-])(?:" + "|".join(map(re.escape, names)) + r")(?![\w/])")
    changed = _each(case, lambda text: swap.sub(lambda m: to[m[0]], text))
    return replace(changed, symptom=swap.sub(lambda m: to[m[0]], case.symptom))


@_by_answer(STAYS, "the symptom is asked in the other language, by the question it belongs to")
def language(case: Case, got: Report) -> Case | None:
    """The general question of the same playbook in the other language: it says less, and the evidence says the same."""
    from diagnose.catalogue import catalogue

    book = catalogue().playbooks.get(got.playbook)
    if book is None or not case.symptom.strip():
        return None
    chinese = bool(re.search("[一-鿿]", case.symptom))
    asked = book.question if chinese else book.title_zh
    return replace(case, symptom=asked) if asked else None


@_by_answer(STAYS, "both figures of a comparison are multiplied by one factor, where nothing but their ratio counts")
def together(case: Case, got: Report) -> Case | None:
    """The verdict rests on ratios only: no limit of the hardware, no figure by itself."""
    pairs = _ratios(got)
    if not pairs or got.limits:
        return None
    return _rewritten(case, ((f, float(str(f.value)) * 0.8) for pair in pairs for f in pair))


# ---------------------------------------------------------------- the verdict follows


@_by_answer(FOLLOWS, "the two figures of each comparison that a verdict rests on become nearly the same")
def figures(case: Case, got: Report) -> Case | None:
    """Only where the leading cause rests on comparisons of two figures, and no other figure of those is compared."""
    pairs = [f for pair in _ratios(got) or () for f in pair]
    told = {_metric(f) for f in pairs}
    compared = {i for e in got.evidence if e.signal.startswith("compare.") for i in e.inputs}
    compared |= {e.id for e in got.evidence if e.signal == "figure" and _metric(e) in told}
    if compared - {f.id for f in pairs}:
        return None
    return _rewritten(case, ((one, float(str(other.value)) * 1.01) for one, other in _ratios(got) or ()))


_VERSION = re.compile(r"(?<![\w.])v?(\d+\.\d+\.\d+)(?![\w.]*\d)")


@_by_answer(FOLLOWS, "two versions that are at odds, or that are compared, become one")
def versions(case: Case, got: Report) -> Case | None:
    """Only where every quote of the leading finding holds a version, and they hold more than one."""
    quotes = _quotes(got)
    seen = [v for q in quotes for v in _VERSION.findall(q)]
    if not quotes or not all(_VERSION.search(q) for q in quotes) or len(set(seen)) < 2:
        return None
    return _each(case, lambda text: _VERSION.sub(lambda m: m[0].replace(m[1], seen[0]), text))


_SWITCHES = (
    (re.compile(r"(NCCL_(?:P2P|SHM|IB|NVLS)_DISABLE(?:=| set by environment to )\"?)1\b"), r"\g<1>0"),
    (re.compile(r"^(shm\s+)\S+\s+\S+\s+\S+\s+\d+%", re.M), r"\g<1>64G  1.0G   63G   2%"),
    (re.compile(r"(nr_throttled )\d+"), r"\g<1>0"),
    (re.compile(r"(Width x)\d+( \(downgraded\))"), r"\g<1>16"),
    (re.compile(r"(spill (?:stores|loads)\D{0,4}|)\b\d+( bytes spill)"), r"\g<1>0\g<2>"),
    (re.compile(r"(num_preemptions_total\S* )\d[\d.]*((?:.* \S*kv_cache_usage_perc\S* )\d[\d.]*)?"), r"\g<1>0.0"),
    (re.compile(r"(max locked memory\D{0,30}\b)\d+$", re.M), r"\g<1>unlimited"),
    (re.compile(r"(--max-num-seqs[ =])(?:[1-9]|[1-3]\d)\b"), r"\g<1>512"),
    (re.compile(r"(active_mtu:\s+)\d+( \(\d\))?"), r"\g<1>4096 (5)"),
)


def _quotes(got: Report) -> list[str]:
    """What the leading finding quotes, and all that it is derived from."""
    ids = backing(got, set(got.findings[0].reasons)) if got.verdict == "cause" else set()
    return [s.quote for e in got.evidence if e.id in ids for s in e.spans]


@_by_answer(FOLLOWS, "a counter, limit or switch that a verdict rests on takes the value of a machine that is well")
def switches(case: Case, got: Report) -> Case | None:
    """Only where every quote of the leading finding is turned."""
    quotes = _quotes(got)
    if not quotes or not all(any(p.search(q) for p, _ in _SWITCHES) for q in quotes):
        return None

    def one(text: str) -> str:
        for old, new in _SWITCHES:
            text = old.sub(new, text)
        return text

    return _each(case, one)


# ---------------------------------------------------------------- figures in their place


def _ratios(got: Report) -> list[tuple[Evidence, Evidence]] | None:
    """The two figures of each comparison behind the leading cause; None if it rests on anything else too."""
    if got.verdict != "cause":
        return None
    by_id = {e.id: e for e in got.evidence}
    pairs = []
    for item in (by_id[i] for i in got.findings[0].reasons):
        if item.signal == "compare.ratio" and item.formula == "a / b" and len(item.inputs) == 2:
            one, other = (by_id[i] for i in item.inputs)
            if any(len(p.spans) != 1 or p.kind != "observed" for p in (one, other)):
                return None
            pairs.append((one, other))
        elif item.signal != "figure":
            return None
    return pairs or None


def _metric(item: Evidence) -> str:
    return (item.subject.label or "").partition("|")[0]


_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
_SCALES = (1.0, 1e3, 1e-3, 100.0, 0.01, 8.0, 1 / 8, 1e6, 1e-6, 60.0, 1 / 60)


def _rewritten(case: Case, wanted: Iterable[tuple[Evidence, float]]) -> Case | None:
    """The case with figures scaled where they stand, in the unit they stand in; None where a place is not clear."""
    edits: dict[tuple[str, int], tuple[int, bytes]] = {}
    data = {name: text.encode() for name, text in case.texts}
    for item, value in wanted:
        span, old = item.spans[0], float(str(item.value))
        if span.capture not in data or not old:
            return None
        quote = data[span.capture][slice(*span.bytes)].decode("utf-8", "replace")
        hits = [m for m in _NUMBER.finditer(quote) if _is(m[0], old)]
        if len(hits) != 1:
            return None
        was = hits[0][0]
        scaled, digits = float(was.replace(",", "")) * value / old, len(was.partition(".")[2])
        made = f"{scaled:.{digits if scaled >= 100 else max(digits, 2)}f}".encode()
        place = (span.capture, span.bytes[0] + len(quote[: hits[0].start()].encode()))
        if edits.setdefault(place, (len(was), made)) != (len(was), made):
            return None
    for (name, at), (length, made) in sorted(edits.items(), reverse=True):
        data[name] = data[name][:at] + made + data[name][at + length :]
    return replace(case, texts=tuple((name, data[name].decode()) for name, _ in case.texts)) if edits else None


def _is(printed: str, value: float) -> bool:
    """Is a printed number this value, in whichever unit?"""
    return any(abs(float(printed.replace(",", "")) * scale - value) <= 1e-6 * abs(value) for scale in _SCALES)
