"""From what the user typed, or from the evidence alone, to a playbook. No model, English and Chinese.

`playbooks/words` names ideas ("ttft", "bad", "hang") and the terms people use for each; a playbook's
`symptoms` weigh combinations of ideas: `a + b` both in one clause, `a & b` both anywhere. So one idea's
new word serves every playbook, and "decode is fine but the first token is late" is read clause by clause.
A specific term weighs more than one that several questions share; negative weights are precedence (a hang
of an all-reduce is no slow all-reduce). Where two playbooks come close, `decides` says what would settle it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from .catalogue import Catalogue, near
from .errors import CatalogueError
from .models import Evidence

FALLBACK = "environment"  # nothing recognised: what runs here, and does it run at all?
CLOSE = 0.75  # a rival with this share of the winner's score makes the symptom ambiguous
ASKED = 0.6  # playbooks with this share of the winner's score count as asked too
CLEAR = 5  # a sentence with this score asks a question of its own
FAINT = 2  # a lower score is a stray word: the evidence knows better
SLIP = 6  # shorter words are too near to each other to be corrected
GAP = 4  # words that `..` may stand for; twice as many in Chinese, where each character is one

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|[。！？；\n]")
_FOLD = {i: i - 0xFEE0 for i in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2019: 0x27}
_BREAK = "|"  # a clause ends: punctuation, or a word that turns the sentence
_TURNS = {*("but", "although", "though", "while", "whereas", "yet", "however", "whilst", "except"), *"但而虽"}
_DENIES = {*("no", "not", "without", "never", "as", "isnt", "doesnt", "dont", "didnt", "wasnt"), *"无没不"}
_WORD = re.compile(r"[a-z][a-z0-9]*|\d+(?:\.\d+)?(?:x\d*)?|[\u4e00-\u9fff]|%|[.,;:!?](?=\s|$)")
_TERM = re.compile(r"\.\.|[a-z][a-z0-9]*\*?|\d+(?:\.\d+)?|[\u4e00-\u9fff]|[#%]")


def words(symptom: str) -> list[str]:
    """Lower-case words, numbers and single Chinese characters; `|` where a clause ends."""
    text = re.sub("[，；：！？。]", ", ", symptom).translate(_FOLD).lower().replace("'", "")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # 1,800
    text = re.sub(r"(?<=[\u4e00-\u9fff])[,;:!?]|[,;:!?](?=[\u4e00-\u9fff])", ", ", text)
    text = text.replace("不过", ", ").replace("可是", ", ")
    found = _WORD.findall(text)
    return [_BREAK if w in _TURNS or not (w[0].isalnum() or w == "%") else w for w in found]


class Lexicon:
    """The terms of `playbooks/words`, indexed by their first word."""

    def __init__(self, ideas: dict[str, tuple[str, ...]]) -> None:
        self.ideas = frozenset(ideas)
        self.exact: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self.stems: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        known: set[str] = set()
        stems: set[str] = set()
        for idea, terms in ideas.items():
            for term in terms:
                parts = tuple(_TERM.findall(term.lower().replace("'", "")))
                if not parts:
                    raise CatalogueError("words", idea, f"no words in {term!r}")
                table, first = (self.stems, parts[0][:-1]) if parts[0].endswith("*") else (self.exact, parts[0])
                table.setdefault(first, []).append((parts[1:], idea))
                known.update(p for p in parts if not p.endswith("*"))
                stems.update(p[:-1] for p in parts if p.endswith("*"))
        self.known, self.known_stems = frozenset(known), frozenset(stems)
        self.by_letter: dict[str, list[str]] = {}
        for word in sorted(known | stems):
            if len(word) >= SLIP and word.isalpha() and word.isascii():
                self.by_letter.setdefault(word[0], []).append(word)
        self.spelt = lru_cache(maxsize=4096)(self._spelt)

    def _spelt(self, word: str) -> str:
        """A word as the terms have it: singular, and with tired fingers' slips undone."""
        if word in self.known or not word.isascii() or word[0].isdigit():
            return word
        if any(word[:n] in self.known_stems for n in range(2, len(word) + 1)):
            return word
        if word.endswith("s") and word[:-1] in self.known:
            return word[:-1]
        best, best_ratio = word, 0.82
        for other in self.by_letter.get(word[0], ()) if len(word) >= SLIP else ():
            ending = min(len(word), len(other)) - 1
            if abs(len(word) - len(other)) > 1 or word[:ending] == other[:ending]:
                continue  # another ending is no slip
            ratio = SequenceMatcher(None, word, other).ratio()
            if ratio >= best_ratio:
                best, best_ratio = other, ratio
        return best

    def found(self, symptom: str) -> dict[str, set[int]]:
        """Ideas in a symptom, and the numbers of the clauses that name them."""
        text = [self.spelt(w) for w in words(symptom)]
        out: dict[str, set[int]] = {}
        clause = 0
        for at, word in enumerate(text):
            if word == _BREAK:
                clause += 1
                continue
            for rest, idea in self._starting(word):
                if clause not in out.get(idea, ()) and _follows(rest, text, at + 1) and not _denied(text, at):
                    out.setdefault(idea, set()).add(clause)
        return out

    def _starting(self, word: str) -> Iterator[tuple[tuple[str, ...], str]]:
        yield from self.exact.get(word, ())
        for n in range(1, len(word) + 1):
            yield from self.stems.get(word[:n], ())
        if word[0].isdigit():
            yield from self.exact.get("#", ())


def _follows(rest: Sequence[str], text: Sequence[str], at: int) -> bool:
    """Whether the rest of a term stands at this place."""
    for n, part in enumerate(rest):
        if part == "..":
            stop = next((i for i in range(at, len(text)) if text[i] == _BREAK), len(text))
            room = 2 * GAP if any(not w.isascii() for w in text[at : at + 2]) else GAP
            return any(_follows(rest[n + 1 :], text, i) for i in range(at, min(at + room + 1, stop)))
        if at >= len(text) or not _same(part, text[at]):
            return False
        at += 1
    return True


def _same(part: str, word: str) -> bool:
    if part == "#":
        return word[0].isdigit()
    return word.startswith(part[:-1]) if part.endswith("*") else part == word


def _denied(text: Sequence[str], at: int) -> bool:
    """Whether a word before the term takes it back: "no OOM", "not slow", 不卡."""
    return at > 0 and (text[at - 1] in _DENIES or (at > 1 and text[at - 2] == "没" and text[at - 1] == "有"))


@lru_cache(maxsize=4)
def _lexicon(cat: Catalogue) -> Lexicon:
    return Lexicon(cat.words)


def _groups(entry: str, ideas: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """`a + b & c` as ((a, b), (c,)); an idea that nobody named is an error."""
    groups = tuple(tuple(name.strip() for name in group.split("+")) for group in entry.split("&"))
    for name in (n for g in groups for n in g):
        if name not in ideas:
            raise CatalogueError("trees", f"symptoms: {entry}", f"no idea is called {name!r}", near(name, ideas))
    return groups


_Groups = tuple[tuple[str, ...], ...]


@lru_cache(maxsize=4)
def _combinations(cat: Catalogue) -> dict[str, list[tuple[str, int, _Groups]]]:
    """Playbook, weight and groups of each combination, by the idea that it begins with."""
    ideas = _lexicon(cat).ideas
    out: dict[str, list[tuple[str, int, _Groups]]] = {}
    for book in cat.playbooks.values():
        for weight, entry in ((w, e) for w, entries in book.symptoms.items() for e in entries):
            groups = _groups(entry, ideas)
            out.setdefault(groups[0][0], []).append((book.id, weight, groups))
    return out


def ranking(cat: Catalogue, symptom: str) -> list[tuple[str, int]]:
    """Playbooks that the symptom speaks for, best first; ties go to the id that comes first."""
    found = _lexicon(cat).found(symptom)
    scores: Counter[str] = Counter()
    begun = _combinations(cat)
    for ident, weight, groups in (c for idea in found for c in begun.get(idea, ())):
        if all(set.intersection(*(found.get(name, set()) for name in g)) for g in groups):
            scores[ident] += weight
    return sorted((s for s in scores.items() if s[1] >= FAINT), key=lambda s: (-s[1], s[0]))


def route(cat: Catalogue, symptom: str, evidence: Iterable[Evidence] = ()) -> str:
    """The id of the playbook that fits a symptom best; by the evidence where the words say nothing."""
    ranked = ranking(cat, symptom)
    return ranked[0][0] if ranked else infer(list(evidence))


def asked(cat: Catalogue, symptom: str, evidence: Iterable[Evidence] = ()) -> list[str]:
    """Every playbook whose question this symptom may well be, best first: close scores are not told apart."""
    ranked = ranking(cat, symptom)
    if not ranked:
        return [infer(list(evidence))]
    out = [ident for ident, got in ranked if got >= ASKED * ranked[0][1]]
    sentences = _SENTENCE.split(symptom)
    for sentence in sentences if len(sentences) > 1 else ():
        first = ranking(cat, sentence)[:1]  # two faults in one text are two questions
        out += [ident for ident, got in first if got >= CLEAR and ident not in out]
    return out


def decides(cat: Catalogue, symptom: str) -> list[str]:
    """For an ambiguous symptom: what would tell the close playbooks apart, one line each. Else empty."""
    ranked = ranking(cat, symptom)
    close = [ident for ident, got in ranked if got >= CLOSE * ranked[0][1]]
    if len(close) < 2:
        return []
    return [f"{cat.playbooks[i].title}: {cat.playbooks[i].decides}" for i in close if cat.playbooks[i].decides]


# What a kind of evidence is usually collected for; the longest prefix that fits counts.
_ASKED_BY = {
    "nccl": ("slow-allreduce", 1), "nccl.mark": ("collective-hang", 2), "nccl.warn": ("collective-hang", 2),
    "nccl.first_error": ("collective-hang", 5), "nccl.transport": ("slow-allreduce", 2),
    "nccl_tests": ("slow-allreduce", 6), "torch.watchdog": ("collective-hang", 6), "topo": ("slow-allreduce", 1),
    "p2p": ("copy-slow", 1), "nvlink": ("slow-allreduce", 1), "rdma": ("slow-allreduce", 1),
    "net": ("slow-allreduce", 1), "ucx": ("ucx-slow-path", 3), "mpi": ("ucx-slow-path", 2),
    "nixl": ("kv-transfer-slow", 4), "kv": ("kv-transfer-slow", 4), "serving": ("low-throughput", 1),
    "serving.client.ttft": ("high-ttft", 1),
    "serving.client.output_tput": ("low-throughput", 2), "serving.server.ttft": ("high-ttft", 1),
    "serving.queue_share": ("high-ttft", 3), "serving.client.tpot": ("bad-tpot", 1),
    "serving.accept_rate": ("bad-tpot", 3), "serving.accept_length": ("bad-tpot", 3),
    "serving.mark.deadline": ("control-loop-latency", 9), "serving.mark.jitter": ("control-loop-latency", 9),
    "train": ("training-slow", 4), "trace": ("training-slow", 4), "profile": ("training-slow", 2),
    "step": ("training-slow", 3), "kernel": ("kernel-slow", 3), "kernel.share": ("training-slow", 1),
    "copy": ("copy-slow", 4), "memop": ("copy-slow", 2), "gpu": ("gpu-underutilized", 1),
    "gpu.oom": ("out-of-memory", 8), "gpu.mark.oom": ("out-of-memory", 8), "host.oom_kill": ("out-of-memory", 8),
    "host.mark.oomkilled": ("out-of-memory", 8), "gpu.xid": ("environment", 4),
    "gpu.mark.fallen": ("environment", 6), "env.mark": ("environment", 5), "text": ("environment", 1),
    "pip": ("environment", 1), "host": ("gpu-underutilized", 1),
}  # fmt: skip
_NO_QUESTION = (
    "version", "env.var", "figure", "gpu.name", "serving.arg", "topo.link", "topo.gpu_nic", "compare.ratio",
    # worked out of other readings, which have their say already
    "serving.model", "serving.stage_total", "serving.stage_mean", "serving.stage_percentile", "serving.tail",
    "serving.in_flight", "serving.arrival_rate", "serving.unhindered_ttft", "serving.kv_demand", "serving.slo",
    "serving.goodput", "serving.slo_margin",
    "serving.server.inference", "serving.server.tpot", "serving.server.computed_tokens", "serving.server.process",
    # a page as it is, whatever is asked
    "serving.counter", "serving.counter_time", "serving.histogram", "serving.server_start", "serving.server.requests",
    "serving.server.queue", "serving.server.prefill", "serving.server.decode", "serving.server.e2e",
)  # fmt: skip


def infer(evidence: list[Evidence]) -> str:
    """The playbook that the evidence itself asks for, when no symptom was given."""
    votes: Counter[str] = Counter()
    for signal in {e.signal for e in evidence if e.kind != "absent"}:
        if signal in _NO_QUESTION:
            continue
        parts = signal.split(".")
        for n in range(len(parts), 0, -1):
            hit = _ASKED_BY.get(".".join(parts[:n]))
            if hit:
                votes[hit[0]] += hit[1]
                break
    return min(votes, key=lambda b: (-votes[b], b)) if votes else FALLBACK
