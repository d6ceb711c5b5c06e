"""From what the user typed, or from the evidence alone, to a playbook. No model, English and Chinese.

A playbook's patterns carry weights: a phrase that only one question uses ("bus bandwidth") weighs
more than a word that several share ("slow"). Each pattern counts once, and so does the best of
misspelt words after correction. Where two playbooks come close, `decides` says what would settle it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from .catalogue import Catalogue, Playbook
from .models import Evidence
from .predicates import pattern

FALLBACK = "environment"  # nothing recognised: what runs here, and does it run at all?
CLOSE = 0.75  # a rival with this share of the winner's score makes the symptom ambiguous
ASKED = 0.6  # playbooks with this share of the winner's score count as asked too

# Words of the trade that tired fingers misspell; a word this near to one of them is read as it.
_TRADE = (
    "throughput", "latency", "bandwidth", "utilization", "training", "collective", "prefill", "decode", "decoding",
    "allreduce", "transfer", "memory", "kernel", "occupancy", "network", "communication", "pinned", "memcpy",
    "inference", "deadlock", "speculative", "fragmentation", "disaggregated", "disaggregation", "fine-tuning",
    "coalesced", "watchdog", "timeout", "concurrency", "queueing", "throttling", "throttled", "driver", "container",
    "deadline", "control", "jitter", "requests", "response", "streaming", "generation", "tokens", "dataloader",
    "spilling", "hanging", "crashes", "robot",
)  # fmt: skip


def normal(symptom: str) -> str:
    """Lower case, one kind of space and dash, full-width forms folded, misspelt trade words corrected."""
    text = symptom.lower().translate(_FOLD)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"[a-z-]{6,}", lambda m: _spelt(m.group()), text)


_FOLD = {i: i - 0xFEE0 for i in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2013: 0x2D, 0x2014: 0x2D, 0x2019: 0x27}


@lru_cache(maxsize=4096)
def _spelt(word: str) -> str:
    if word in _TRADE or any(word.startswith(t[:6]) and t in word for t in _TRADE):
        return word
    near = difflib.get_close_matches(word, _TRADE, 1, 0.84)
    # plurals and other endings are no misspellings
    return near[0] if near and (near[0][:5] != word[:5] or abs(len(near[0]) - len(word)) <= 1) else word


def score(book: Playbook, text: str) -> int:
    """Weight of a playbook's patterns found in normalised text."""
    return sum(w for w, patterns in book.symptoms.items() for p in patterns if pattern(p).search(text))


def ranking(cat: Catalogue, symptom: str) -> list[tuple[str, int]]:
    """Playbooks that the symptom speaks for, best first; ties go to the id that comes first."""
    text = normal(symptom)
    scored = [(book.id, score(book, text)) for book in cat.playbooks.values()]
    return sorted((s for s in scored if s[1] > 0), key=lambda s: (-s[1], s[0]))


def route(cat: Catalogue, symptom: str, evidence: Iterable[Evidence] = ()) -> str:
    """The id of the playbook that fits a symptom best; by the evidence where the words say nothing."""
    ranked = ranking(cat, symptom)
    return ranked[0][0] if ranked else infer(list(evidence))


def asked(cat: Catalogue, symptom: str, evidence: Iterable[Evidence] = ()) -> list[str]:
    """Every playbook whose question this symptom may well be, best first: close scores are not told apart."""
    ranked = ranking(cat, symptom)
    if not ranked:
        return [infer(list(evidence))]
    return [ident for ident, got in ranked if got >= ASKED * ranked[0][1]]


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
_NO_QUESTION = ("version", "env.var", "figure", "gpu.name", "serving.arg", "topo.link", "topo.gpu_nic", "compare.ratio")


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
