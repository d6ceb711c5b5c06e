"""Scheduler lines that carry more than running and waiting: SGLang batches, TensorRT-LLM iteration stats, lengths told.

SGLang prints one line for each prefill batch and one for every few decode steps; what matters is how
they follow each other. TensorRT-LLM prints blocks and paused requests with every iteration.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided

_N = r"(\d[\d,]*)"
_BATCH = regex(r"\b(Prefill|Decode) batch\b", re.IGNORECASE)
_PART = regex(r"#?([a-z][a-z -]*?)(?: \((?:token|tokens)/s\))?: (\d+(?:\.\d+)?)", re.IGNORECASE)
_PAUSED = regex(r"\b(?:num_?paused_?requests|paused[ _]requests(?:[ _]count)?)\W+(\d+)", re.IGNORECASE)
_USED = regex(
    rf"(?:usedNumBlocks|used (?:kv cache )?(?:num )?blocks|kv_cache_block_type=\"used\"\}})\W*{_N}", re.IGNORECASE
)
_MOST = regex(
    rf"(?:maxNumBlocks|max (?:kv cache )?(?:num )?blocks|kv_cache_block_type=\"max\"\}})\W*{_N}", re.IGNORECASE
)
_PER = regex(
    rf"(?:tokensPerBlock|tokens per (?:kv cache )?block|kv_cache_block_type=\"tokens_per\"\}})\W*{_N}", re.IGNORECASE
)
_CTX = regex(r"(?:num_?ctx_?tokens|(?:prefill|context)[_ ]tokens)\W+(\d+)", re.IGNORECASE)
_STEP_MS = regex(
    r"(?:host_step_time|device_step_time|iterLatencyMS|\bstep(?:[_ ]time)?(?=\W{1,3}[\d.]+ ?ms))\W*(\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_CACHED = regex(rf"\bprompt(?:[_ ]tokens)?\W+{_N}\D{{0,24}}\bcached(?:[_ ]tokens)?\W+{_N}", re.IGNORECASE)
_LENGTH = rf"{_N}(?:\.(\d))?\s*(k)?"
# what a request holds, as people write it; the first group is a number of tokens
_TOLD = (
    ("prompt", regex(rf"(?:^|[\s,(|])(?:input|prompts?|isl|输入|ctx|context)(?: (?:len(?:gth)?|tokens))?\s*(?:of|is|=|:|~|约|about|avg|mean|averages?)*\s*(?:about |~|约)?{_LENGTH}\b(?! ?(?:ms|s\b|req|%|GB|MiB|/))", re.I)),  # noqa: E501
    ("prompt", regex(rf"{_LENGTH}(?:\s*|-)tok(?:ens?)?[ -](?:in\b|input|prompts?|of (?:prompt|input|context))|{_LENGTH}\s*(?:token 输入|tokens? 的输入)", re.I)),  # noqa: E501
    ("prompt", regex(rf"\b(?:prompt|input)_tokens[\"']?\W{{1,2}}{_LENGTH}\b", re.I)),
    ("prompt", regex(rf"\bin {_LENGTH}(?:\s*tok(?:ens)?)?\s*[,/+]?\s*out\b", re.I)),
    ("output", regex(rf"\bin [\d.,]+k?(?:\s*tok(?:ens)?)?\s*[,/+]?\s*out {_LENGTH}", re.I)),
    ("output", regex(rf"(?:^|[\s,(|+])(?:outputs?|max_(?:new_)?tokens|osl|answers?|输出|completion)(?: (?:len(?:gth)?|tokens))?\s*(?:of|is|=|:|~|约|about|avg|mean|averages?)*\s*(?:about |~|约)?{_LENGTH}\b(?! ?(?:ms|s\b|req|%|GB|MiB|/|tok(?:ens?)?/))", re.I)),  # noqa: E501
    ("output", regex(rf"{_LENGTH}(?:\s*|-)tok(?:ens?)?[ -](?:out\b|outputs?|answers?|of (?:output|answer))", re.I)),
)  # fmt: skip
_ENTRY = regex(r"^\s+max_tokens\s*:\s*\d+\s*$")  # in TensorRT-LLM's `kv_cache_config`: what the cache holds
_LONG_PREFILL = 2048  # prompt tokens of a step that running requests feel


@dataclass(frozen=True)
class _Batch:
    """One SGLang line."""

    prefill: bool
    line: Line
    parts: dict[str, float]

    def get(self, name: str) -> float:
        return self.parts.get(name, 0.0)


@dataclass
class _Blocks:
    """TensorRT-LLM's blocks at their fullest, and paused requests at their most."""

    used: tuple[float, Line] | None = None
    most: tuple[float, Line] | None = None
    per: tuple[float, Line] | None = None
    share: float = -1.0
    paused: tuple[float, Line] | None = None
    pauses: int = 0
    batches: list[_Batch] = field(default_factory=list)
    steps: list[tuple[float, float, Line]] = field(default_factory=list)  # prompt tokens of a step, its time
    cached: list[tuple[float, float, Line]] = field(default_factory=list)  # prompt, and what of it was cached


class SchedulerReader:
    """What the order and the fill of batches say."""

    name = "serving_sched"
    needles: tuple[bytes, ...] = (b"refill batch", b"ecode batch", b"NumBlocks", b"aused", b"KV cache blocks", b"kv_cache_block_type",  # noqa: E501
                                  b"tok", b"rompt", b"ISL", b"isl", b"nput", "输入".encode())  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts over the whole document."""
        if doc.size > 256 << 20:
            return
        state = _Blocks()
        told: dict[str, Fact] = {}
        short = doc.size < 1 << 14
        pool = doc.holds(b"kv_cache_config")
        for line in doc.lines():
            text = line.text
            if "batch" in text and (hit := _BATCH.search(text)):
                parts = {k.strip().lower(): float(v) for k, v in _PART.findall(text[hit.end() :])}
                state.batches.append(_Batch(hit[1].lower() == "prefill", line, parts))
                continue
            low = text.lower()
            if (
                ("ctx" in low or "_tokens" in low or " tokens" in low)
                and (context := _CTX.search(text))
                and (step := _STEP_MS.search(text))
            ):
                state.steps.append((float(context[1]), float(step[1]), line))
            if short and (hit := _CACHED.search(text)):
                state.cached.append((_plain(hit[1]), _plain(hit[2]), line))
            if "block" in low or "paused" in low:
                _trt(text, line, state)
            if pool and _ENTRY.match(text):
                continue
            if short and "#" not in text and len(text) < 400 and "total" not in low:
                for name, pattern in _TOLD:
                    if name not in told and (hit := pattern.search(text)):
                        number = _length(hit)
                        if number >= 16:
                            told[name] = Fact("serving.told", number, "count", Subject(label=name), (doc.span(line, hit.group()),),  # noqa: E501
                                              status=doc.status)  # fmt: skip
        yield from told.values()
        yield from self._blocks(doc, state)
        yield from _steps(doc, state.steps)
        if len(state.cached) >= 2 and sum(p for p, _, _ in state.cached) > 0:
            share = sum(c for _, c, _ in state.cached) / sum(p for p, _, _ in state.cached)
            yield Fact(
                "serving.prefix_hit_rate",
                round(share, 6),
                "fraction",
                Subject(label="window"),
                kind="derived",
                formula="reader:serving_sched",
                spans=tuple(doc.span(at) for _, _, at in state.cached[-2:]),
                status=doc.status,
            )
        if state.batches:
            yield from self._batches(doc, state.batches)

    @staticmethod
    def _blocks(doc: Document, state: _Blocks) -> Iterator[Fact]:
        def seen(signal: str, value: float, label: str | None, line: Line) -> Fact:
            return Fact(signal, value, "count", Subject(label=label), (doc.span(line),), status=doc.status)

        if state.paused is not None:
            fact = seen("serving.paused", state.paused[0], "peak", state.paused[1])
            yield Fact(
                fact.signal,
                fact.value,
                fact.unit,
                fact.subject,
                fact.spans,
                status=doc.status,
                count=max(state.pauses, 1),
            )
        if state.used is not None and state.most is not None and state.most[0] > 0:
            used, most = (
                seen("serving.kv_blocks", state.used[0], "used", state.used[1]),
                seen("serving.kv_blocks", state.most[0], "in use", state.most[1]),
            )
            yield divided("serving.kv_usage", (used, most), "fraction", Subject(label="peak"))
            if state.per is not None:
                size = seen("serving.kv_blocks", state.per[0], "tokens each", state.per[1])
                yield Fact("serving.kv_tokens", state.most[0] * state.per[0], "count", kind="derived", formula="a * b",
                           inputs=(most, size), status=doc.status)  # fmt: skip

    @staticmethod
    def _batches(doc: Document, batches: list[_Batch]) -> Iterator[Fact]:
        prefills = [b for b in batches if b.prefill and "new-token" in b.parts]
        if prefills:
            largest = max(prefills, key=lambda b: b.get("new-token"))
            yield Fact("serving.prefill_chunk", largest.get("new-token"), "count", Subject(label="largest"), (doc.span(largest.line),),  # noqa: E501
                       status=doc.status)  # fmt: skip
            alike = Counter(b.get("new-token") for b in prefills if b.get("new-seq") <= 2)
            value, count = alike.most_common(1)[0] if alike else (0.0, 0)
            if count >= 2 and value == largest.get("new-token"):
                first = next(b for b in prefills if b.get("new-token") == value)
                yield Fact("serving.prefill_chunk", value, "count", Subject(label="repeated"), (doc.span(first.line),), count=count,  # noqa: E501
                           status=doc.status)  # fmt: skip
            decoding = [b for b in batches if not b.prefill and b.get("running-req") >= 1]
            if count >= 3 and value == largest.get("new-token") and decoding:
                most = max(decoding, key=lambda b: b.get("token") / b.get("running-req"))
                held = most.get("token") / most.get("running-req")
                yield Fact("serving.prefill_chunk", round(held, 3), "count", Subject(label="held"), (doc.span(most.line),), kind="derived",  # noqa: E501
                           formula="reader:serving_sched", status=doc.status)  # fmt: skip
        yield from _stall(doc, batches)


def _stall(doc: Document, batches: list[_Batch]) -> Iterator[Fact]:
    """Decode throughput right after long prefills, beside that of undisturbed decoding."""
    clean: list[float] = []
    hurt: list[tuple[float, _Batch, _Batch]] = []
    long: _Batch | None = None
    for batch in batches:
        if batch.prefill:
            if batch.get("new-token") >= _LONG_PREFILL and batch.get("running-req") >= 2:
                long = batch
            continue
        speed = batch.get("gen throughput")
        if speed <= 0 or not 2 <= batch.get("running-req") < 1e6:
            continue
        if long is None:
            clean.append(speed / batch.get("running-req"))
        else:
            hurt.append((speed / batch.get("running-req"), long, batch))
        long = None
    if clean and hurt:
        usual = statistics.median(clean)
        least, prefill, decode = min(hurt, key=lambda h: h[0])
        if usual >= 1.5 * least:
            yield Fact("serving.decode_stall", round(usual / least, 3), "count", kind="derived", formula="reader:serving_sched",  # noqa: E501
                       spans=(doc.span(prefill.line), doc.span(decode.line)), status=doc.status)  # fmt: skip


def _steps(doc: Document, steps: list[tuple[float, float, Line]]) -> Iterator[Fact]:
    """Steps that carry a long prompt beside steps that carry none."""
    plain = [ms for tokens, ms, _ in steps if tokens == 0]
    loaded = [step for step in steps if step[0] >= _LONG_PREFILL]
    if plain and loaded and statistics.median(plain) > 0:
        _, ms, line = max(loaded, key=lambda step: step[1])
        ratio = ms / statistics.median(plain)
        if ratio >= 1.5:
            yield Fact("serving.decode_stall", round(ratio, 3), "count", kind="derived", formula="reader:serving_sched",
                       spans=(doc.span(line),), status=doc.status)  # fmt: skip


def _trt(text: str, line: Line, state: _Blocks) -> None:
    if (hit := _PAUSED.search(text)) is not None and float(hit[1]) > 0:
        state.pauses += 1
        if state.paused is None or float(hit[1]) > state.paused[0]:
            state.paused = (float(hit[1]), line)
    used, most = _USED.search(text), _MOST.search(text)
    if (hit := _PER.search(text)) is not None:
        state.per = (_plain(hit[1]), line)
    if used is not None and most is not None:
        share = _plain(used[1]) / max(_plain(most[1]), 1.0)
        if share > state.share:
            state.share, state.used, state.most = share, (_plain(used[1]), line), (_plain(most[1]), line)
    elif used is not None and state.used is None:
        state.used = (_plain(used[1]), line)
    elif most is not None and state.most is None:
        state.most = (_plain(most[1]), line)


def _plain(text: str) -> float:
    return float(text.replace(",", ""))


def _length(hit: re.Match[str]) -> float:
    """``1,500``, ``8k``, ``1.5k`` in tokens; of alternatives the one that matched."""
    groups = hit.groups()
    for i in range(0, len(groups) - 2, 3):
        if groups[i] is not None:
            number = _plain(groups[i]) + (float(groups[i + 1]) / 10 if groups[i + 1] else 0.0)
            return number * 1000 if groups[i + 2] else number
    return 0.0


READERS: list[Reader] = [SchedulerReader()]
