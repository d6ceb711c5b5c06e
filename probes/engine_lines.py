"""Per-request and per-step lines of engines beside vLLM and SGLang: llama.cpp, TGI, TensorRT-LLM, Dynamo.

Source: llama.cpp `common.cpp`, `tools/server/server.cpp` and `src/llama-model.cpp`; TGI `router/src/server.rs`;
TensorRT-LLM `py_executor.py`, `kvCacheManager.cpp`, `trtGptModelInflightBatching.cpp`; Dynamo `lib/llm`.
A run of such lines becomes its median and its worst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

_DURATION = {"s": 1000.0, "ms": 1.0, "µs": 1e-3, "μs": 1e-3, "us": 1e-3, "ns": 1e-6}


@dataclass
class _Series:
    """Readings of one kind in a document."""

    unit: str
    items: list[tuple[float, Line, str]] = field(default_factory=list)

    def facts(self, doc: Document, signal: str) -> Iterator[Fact]:
        """The median and the largest reading, each quoted where it stands."""
        ordered = sorted(self.items, key=lambda i: i[0])
        picks = [("median", len(ordered) // 2)] + ([("max", len(ordered) - 1)] if len(ordered) > 1 else [])
        for label, at in picks:
            value, line, around = ordered[at]
            yield fact(doc, line, signal, round(value, 6), self.unit, around=around, label=label)


@dataclass
class _Book:
    """All series of a document, by signal."""

    series: dict[str, _Series] = field(default_factory=dict)

    def add(self, signal: str, unit: str, value: float, line: Line, around: str) -> None:
        self.series.setdefault(signal, _Series(unit)).items.append((value, line, around))

    def facts(self, doc: Document) -> Iterator[Fact]:
        for signal, series in self.series.items():
            yield from series.facts(doc, signal)


class LlamaCpp:
    """Timings, offload and cache lines of llama.cpp and what embeds it (Ollama, llama-cpp-python)."""

    name = "llama_cpp"
    needles: tuple[bytes, ...] = (
        b"eval time",
        b"llama_",
        b"load_tensors",
        b"update_slots",
        b"ggml_",
        b"llm_load_tensors",
    )
    _eval = regex(
        r"\b(prompt )?eval time\s*=\s*(\d+(?:\.\d+)?) ms /\s*(\d+) (?:tokens|runs)"
        r"\s*\(\s*(\d+(?:\.\d+)?) ms per token,\s*(\d+(?:\.\d+)?) tokens per second"
    )
    _buffer = regex(
        r"\b(CUDA\d+|CPU\w*|CUDA_Host|Metal\w*|Vulkan\d+|ROCm\d+)\s+(model|KV|compute) buffer size\s*=\s*(\d+(?:\.\d+)?) MiB"  # noqa: E501
    )
    _offload = regex(r"offloaded (\d+)/(\d+) (?:repeating )?layers to GPU")
    _context = regex(r"\bn_ctx(?:_per_seq|_seq)?\s*\(?\s*=?\s*(\d+)\)? < n_ctx_train")
    _slots = regex(r"\b(?:n_slots|n_parallel|initializing slots, n_slots)\s*=\s*(\d+)")
    _reprocess = regex(r"forcing full prompt re-processing")
    _no_gpu = regex(r"not compiled with (?:GPU|CUDA) offload support|no usable GPU found|failed to initialize CUDA")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts that hold once where they stand, then the timings."""
        book, seen = _Book(), set[tuple[str, object]]()
        again: list[Line] = []

        def once(
            line: Line, signal: str, value: float | str, unit: str | None = None, label: str | None = None
        ) -> Iterator[Fact]:
            if (signal, (value, label)) not in seen:
                seen.add((signal, (value, label)))
                yield fact(doc, line, signal, value, unit, label=label)

        patterns = (self._eval, self._offload, self._buffer, self._no_gpu, self._reprocess, self._slots, self._context)
        for line in possible(doc.lines(), *patterns):
            text = line.text
            if (hit := self._eval.search(text)) is not None:
                prompt = hit[1] is not None
                if int(hit[3]) > 1:
                    book.add(
                        "serving.server.prefill" if prompt else "serving.server.itl",
                        "ms",
                        float(hit[2] if prompt else hit[4]),
                        line,
                        hit[0],
                    )
                    book.add(
                        "serving.prompt_tput" if prompt else "serving.gen_tput", "tokens/s", float(hit[5]), line, hit[0]
                    )
                if prompt:
                    book.add("serving.server.prompt_tokens", "count", float(hit[3]), line, hit[0])
            elif (hit := self._offload.search(text)) is not None:
                yield from once(line, "engine.layers_on_gpu", float(hit[1]), "count", f"of {hit[2]}")
            elif (hit := self._buffer.search(text)) is not None:
                yield from once(line, "engine.buffer", float(hit[3]) / 1024, "GiB", f"{hit[1]} {hit[2]}")
            elif self._no_gpu.search(text):
                yield from once(line, "engine.no_gpu", self._no_gpu.search(text)[0])  # type: ignore[index]
            elif self._reprocess.search(text):
                again.append(line)
            elif (hit := self._slots.search(text)) is not None:
                yield from once(line, "serving.max_num_seqs", float(hit[1]), "count", "configured")
            elif (hit := self._context.search(text)) is not None:
                yield from once(line, "serving.max_model_len", float(hit[1]), "count")
        if again:
            yield Fact(
                "engine.prompt_redone",
                "forcing full prompt re-processing",
                spans=(doc.span(again[0]),),
                count=len(again),
                status=doc.status,
            )
        yield from book.facts(doc)


class Tgi:
    """TGI's line of a finished request: durations with their own units."""

    name = "tgi"
    needles: tuple[bytes, ...] = (b"queue_time=", b"time_per_token=", b"inference_time=")
    _pair = regex(
        r'\b(total|validation|queue|inference)_time="?(\d+(?:\.\d+)?)(µs|μs|us|ms|ns|s)\b|\btime_per_token="?(\d+(?:\.\d+)?)(µs|μs|us|ms|ns|s)\b'
    )
    _signals: ClassVar = {
        "total": "serving.server.e2e",
        "queue": "serving.server.queue",
        "validation": "serving.server.tokenize",
    }

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Queue, whole request and time per token."""
        book = _Book()
        for line in doc.lines():
            if "_time=" not in line.text and "time_per_token" not in line.text:
                continue
            for hit in self._pair.finditer(line.text):
                if hit[4]:
                    book.add("serving.server.itl", "ms", float(hit[4]) * _DURATION[hit[5]], line, hit[0])
                elif hit[1] in self._signals:
                    book.add(self._signals[hit[1]], "ms", float(hit[2]) * _DURATION[hit[3]], line, hit[0])
        yield from book.facts(doc)


class TensorRtLlm:
    """Start-up limits of TensorRT-LLM and its line per iteration."""

    name = "tensorrt_llm"
    needles: tuple[bytes, ...] = (b"TensorRT-LLM", b"TRT-LLM", b"num_scheduled_requests", b"currank_total_requests")
    _iter = regex(r"\biter = (\d+),.*?num_scheduled_requests\s*[:=]\s*(\d+)")
    # `elapsed_time` in seconds is what later releases call host_step_time
    _part = regex(r"\b(kv_cache_util|host_step_time|prev_device_step_time|elapsed_time)\s*=\s*(\d+(?:\.\d+)?)")
    _tokens = regex(r"Allocated (\d+(?:\.\d+)?) GiB for max tokens in paged KV cache \((\d+)\)")
    _model = regex(
        r"TRTGptModel (maxNumSequences|maxBatchSize|maxNumTokens|mMaxAttentionWindowSize|maxSequenceLen)[: ]+\(?(\d+)"
    )
    _limits = regex(r"max_seq_len=(\d+), max_num_requests=(\d+), max_num_tokens=(\d+)")
    _policy = regex(
        r"Capacity Scheduler Policy:? (\w+)|capacity_scheduler_policy\W+(?:CapacitySchedulerPolicy\.)?(\w+)"
    )
    _reuse_off = regex(
        r"KV cache (?:block )?reuse (?:is )?disabled|enable_block_reuse\W+(?:False|false)"
        r"|Features\([^)]*\bcache_reuse=False"
    )
    _names: ClassVar = {
        "maxNumSequences": ("serving.max_num_seqs", "effective"),
        "maxBatchSize": ("serving.max_num_seqs", "configured"),
        "maxNumTokens": ("serving.max_batched_tokens", None),
        "maxSequenceLen": ("serving.max_model_len", None),
    }

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Host time beside device time of a step says who makes it long."""
        book = _Book()
        # The PyTorch backend sets up a small cache to measure activations, then the one that it serves with.
        last: dict[tuple[str, str | None], Fact] = {}
        top: tuple[float, Line] | None = None
        for line in doc.lines():
            text = line.text
            for signal, value, unit, label in self._start(text):
                if (known := last.get((signal, label))) is None or known.value != value:
                    last[signal, label] = fact(doc, line, signal, value, unit, label=label)
            hit = self._iter.search(text)
            if hit is None:
                continue
            if top is None or float(hit[2]) > top[0]:
                top = (float(hit[2]), line)
            for name, value in self._part.findall(text):
                if name == "kv_cache_util":
                    book.add("serving.kv_usage", "fraction", float(value), line, name)
                elif name == "elapsed_time":
                    book.add("engine.host_step", "ms", float(value) * 1000, line, name)
                else:
                    book.add(f"engine.{name.split('_')[-3]}_step", "ms", float(value), line, name)
        yield from last.values()
        if top is not None:
            yield fact(doc, top[1], "serving.running", top[0], "count", label="peak")
        yield from book.facts(doc)

    def _start(self, text: str) -> Iterator[tuple[str, float | str, str | None, str | None]]:
        if (hit := self._tokens.search(text)) is not None:
            yield "serving.kv_memory", float(hit[1]), "GiB", None
            yield "serving.kv_tokens", float(hit[2]), "count", None
        if (hit := self._model.search(text)) is not None and hit[1] in self._names:
            signal, label = self._names[hit[1]]
            yield signal, float(hit[2]), "count", label
        if (hit := self._limits.search(text)) is not None:
            yield "serving.max_model_len", float(hit[1]), "count", None
            yield "serving.max_num_seqs", float(hit[2]), "count", "effective"
            yield "serving.max_batched_tokens", float(hit[3]), "count", None
        if (hit := self._policy.search(text)) is not None:
            yield "engine.scheduler_policy", hit[1] or hit[2], None, None
        if self._reuse_off.search(text):
            yield "engine.block_reuse", "off", None, None


READERS: list[Reader] = [LlamaCpp(), Tgi(), TensorRtLlm()]
