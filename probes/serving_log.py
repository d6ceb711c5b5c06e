"""Logs of inference servers: what start-up fixes, and the periodic line of the scheduler.

vLLM (V0 and V1), SGLang, TensorRT-LLM, TGI, LMDeploy, and the same readings typed by hand. Errors and
warnings are marks (playbooks/marks/serving.yaml), not this reader's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount
from .plateau import plateau

_N = r"(\d[\d,]*(?:\.\d+)?)"


@dataclass(frozen=True)
class _Once:
    """A start-up reading: pattern with one group a value, and what each group becomes."""

    pattern: re.Pattern[str]
    gives: tuple[tuple[str, str | None, str | None], ...]  # (signal, unit, label) of groups 1, 2, …
    needle: str


def _once(needle: str, pattern: str, *gives: tuple[str, str | None, str | None]) -> _Once:
    return _Once(regex(pattern, re.IGNORECASE), gives, needle.lower())


_ONCE = (
    _once("kv cache size", rf"KV cache size[:=]\s*{_N}\s*tokens", ("serving.kv_tokens", "count", None)),
    _once("max_total_num_tokens", rf"max_total_num_tokens\s*[=:]\s*{_N}", ("serving.kv_tokens", "count", None)),
    _once("#tokens:", rf"KV Cache is allocated\..*?#tokens: {_N}", ("serving.kv_tokens", "count", None)),
    _once("token slots", rf"KV token slots\s*[=:]\s*{_N}", ("serving.kv_tokens", "count", None)),
    _once("paged kv cache", rf"max tokens in paged KV cache:? {_N}", ("serving.kv_tokens", "count", None)),
    _once("max batch total tokens", rf"max batch total tokens to {_N}", ("serving.kv_tokens", "count", None)),
    _once("maximum concurrency", rf"Maximum concurrency for {_N} tokens per request: (\d+(?:\.\d+)?)x",
          ("serving.max_model_len", "count", None), ("serving.max_concurrency", "count", "requests")),
    _once("overriding num_gpu_blocks", r"Overriding num_gpu_blocks=(\d+) with num_gpu_blocks_override=(\d+)",
          ("serving.kv_blocks", "count", "profiled"), ("serving.kv_blocks", "count", "override")),
    _once("blocks: ", r"# (?:GPU|cuda) blocks: (\d+)", ("serving.kv_blocks", "count", "profiled")),
    _once("num_gpu_blocks is", r"num_gpu_blocks is (\d+)", ("serving.kv_blocks", "count", "profiled")),
    _once("kv cache memory", r"Available KV cache memory:? (\d+(?:\.\d+)?) GiB", ("serving.kv_memory", "GiB", None)),
    _once("reserved for kv cache", r"reserved for KV Cache is (\d+(?:\.\d+)?) ?GiB", ("serving.kv_memory", "GiB", None)),  # noqa: E501
    _once("max model len", r"Using max model len (\d+)", ("serving.max_model_len", "count", None)),
    _once("max_seq_len", r"config: model=.*?max_seq_len=(\d+)", ("serving.max_model_len", "count", None)),
    _once("context len", rf"context[ _-]len(?:gth)?\s*[=:]\s*{_N}", ("serving.max_model_len", "count", None)),
    _once("context_len", rf"context[ _-]len(?:gth)?\s*[=:]\s*{_N}", ("serving.max_model_len", "count", None)),
    _once("context-len", rf"context[ _-]len(?:gth)?\s*[=:]\s*{_N}", ("serving.max_model_len", "count", None)),
    _once("max_num_batched_tokens", r"max_num_batched_tokens\s*=\s*(\d+)", ("serving.max_batched_tokens", "count", None)),  # noqa: E501
    _once("max_running_requests was", r"max_running_requests was reduced from requested (\d+) to (\d+)",
          ("serving.max_num_seqs", "count", "requested"), ("serving.max_num_seqs", "count", "effective")),
    _once("max_running_requests", r"max_running_requests=(\d+)", ("serving.max_num_seqs", "count", "effective")),
    _once("maxnumactiverequests", r"maxNumActiveRequests\W+(\d+)", ("serving.max_num_seqs", "count", "effective")),
    _once("max_num_reqs", r"max_num_reqs\s*=\s*(\d+)", ("serving.max_num_seqs", "count", "effective")),
    _once("max_num_seqs", r"\bmax_num_seqs(?:[=:]\s*|\s{2,})(\d+)", ("serving.max_num_seqs", "count", "configured")),
    _once("model loading took", r"Model loading took (\d+(?:\.\d+)?) ?GiB", ("serving.weights", "GiB", None)),
    _once("model weights take", r"model weights take (\d+(?:\.\d+)?) ?GiB", ("serving.weights", "GiB", None)),
    _once("attention backend", r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend",
          ("serving.attention_backend", None, None)),
    _once("backend.", r"Using (Flash Attention|FlashInfer|XFormers|Torch SDPA|FLASH_ATTN\w*|TRITON_ATTN\w*|FLASHMLA\w*) backend",  # noqa: E501
          ("serving.attention_backend", None, None)),
    _once("attention_backend", r"attention_backend\s*[=:]\s*'?(\w+)'?", ("serving.attention_backend", None, None)),
    _once("attention block size", r"Setting attention block size to (\d[\d,]*) tokens",
          ("serving.attention_block", "count", None)),
    _once("torch.compile t", r"torch\.compile (?:takes|took) (\d+(?:\.\d+)?) s", ("serving.compile_time", "s", "torch.compile")),  # noqa: E501
    _once("bytecode transform", r"Dynamo bytecode transform time:? (\d+(?:\.\d+)?) s", ("serving.compile_time", "s", "torch.compile part")),  # noqa: E501
    _once("compiling a graph", r"Compiling a graph for .{0,40}takes (\d+(?:\.\d+)?) s", ("serving.compile_time", "s", "torch.compile part")),  # noqa: E501
    _once("graph capturing finished", r"Graph capturing finished in (\d+(?:\.\d+)?) sec", ("serving.compile_time", "s", "graph capture")),  # noqa: E501
    _once("init engine", r"init engine .*?took (\d+(?:\.\d+)?) s", ("serving.compile_time", "s", "engine start")),
    _once("resolved architecture", r"Resolved architecture: (\w+)", ("serving.architecture", None, None)),
    _once("quantization=", r"config: model=.*?[ ,]quantization=(\w+)", ("serving.quantization", None, None)),
    _once("global", rf"(?:total_)?global_(?:num_)?tokens(?:_for_logprob)?(?: \([^)]*\))?\s*[:=]?\s*{_N}",
          ("serving.decode_batch", "count", None)),
    _once("captured cuda graph", rf"largest captured CUDA graph batch\s*[=:]?\s*{_N}", ("serving.graph_batch", "count", None)),  # noqa: E501
)  # fmt: skip
_GRAPH_SIZES = regex(
    r"""(?:capture\s+cuda\s+graph\s+bs|cuda_graph_bs=|cudagraph_capture_sizes['"]?\s*[=:]
        |cuda_graph_sizes['"]?[=:]|\bbs=)
        \s*\[([\d,\s.]+)\]""",
    re.IGNORECASE | re.VERBOSE,
)
_VERSION = (
    (
        "vllm",
        regex(r"(?:vLLM API server version|LLM engine \(v?|\bmodel_runner.*?vLLM v|█\s+version)\s*(\d+\.\d+[\w.+]*)"),
    ),
    (
        "vllm",
        regex(r"(?:vllm/vllm-openai:|image:\s*vllm:|\bvllm[ =]=?=?v?)v?(\d+\.\d+\.\d+[\w.]*)", re.IGNORECASE),
    ),
    ("sglang", regex(r"(?:lmsysorg/sglang:|\bsglang(?:==| version:? | v))v?(\d+\.\d+\.\d+[\w.]*)", re.IGNORECASE)),
    ("tensorrt-llm", regex(r"TensorRT-LLM\]?(?: version)?:? v?(\d+\.\d+\.\d+[\w.]*)")),
    ("tgi", regex(r"text-generation-inference:v?(\d+\.\d+\.\d+)")),
)

# one reading of the periodic line each; `pct` figures are printed in percent
_RUN = regex(
    r"#?\b(?:num[_ ])?running(?:[-_ ]?(?:reqs?|requests?))?\b\s*[:=]\s*(\d+)|"
    r"\brunning (\d+)\b(?=[^\n]{0,40}\b(?:waiting|pending|queued?)[ :=]+\d)|\bin[- ]flight\W{1,3}(\d+)\b(?=[^\n]{0,40}\b(?:waiting|pending|queued?)[ :=]+\d)|"  # noqa: E501
    r"num_scheduled_requests\s*[:=]\s*(\d+)|\b(\d+) running\b(?!\s*[=:])|numScheduledRequests\W+(\d+)|numActiveRequests\W+(\d+)|Active Request Count\W+(\d+)",  # noqa: E501
    re.I,
)
_WAIT = regex(
    r"#?\b(?:num[_ ])?(?:waiting|pending|queued?)(?:[-_ ]?(?:reqs?|requests?|size))?\b\s*[:=]\s*(\d+)|"
    r"(?<=[,;] )(?:waiting|pending|queued) (\d+)\b|\b(\d+) (?:waiting|queued|pending)\b(?!\s*[=:])|numQueuedRequests\W+(\d+)",  # noqa: E501
    re.I,
)
_SWAP = regex(r"Swapped: (\d+)", re.I)
_DEFERRED = regex(r"Deferred: (\d+) reqs")  # of those waiting: for their KV or a grammar, not for room
_KV = regex(
    r"(?:(?<!CPU )KV cache(?: usage| utili[sz]ation)?|(?:full )?token usage|kv[_ ]usage|cache usage|block usage|KV ?(?:cache ?)?(?:块|缓存)?(?:使用率|占用率?|利用率)|\bKV)\s*[:=：]?\s*~?(\d+(?:\.\d+)?)(?!\.?\d)\s*(%?)",  # noqa: E501
    re.I,
)
_CPU_KV = regex(r"CPU KV cache usage: (\d+(?:\.\d+)?)(%)", re.I)
_HIT = regex(
    r"(?:Prefix cache hit rate|cache hit rate|prefix_cache_hit_rate)\s*[:=]\s*(?:GPU: )?(\d+(?:\.\d+)?)(?!\.?\d)\s*(%?)",  # noqa: E501
    re.I,
)
_PROMPT = regex(r"Avg prompt throughput: (\d+(?:\.\d+)?) tok", re.I)
_GEN = regex(r"(?:Avg generation throughput: |gen throughput \(token/s\): )(\d+(?:\.\d+)?)(?!\.?\d)", re.I)
_GRAPH = regex(r"cuda graph: (True|False)", re.I)
_LEN = regex(r"(?:accept len: |Mean acceptance length:? |accept_length[=:] ?)(\d+(?:\.\d+)?)(?!\.?\d)", re.I)
_RATE = regex(
    r"(?:Avg Draft acceptance rate|Draft acceptance rate|draft acceptance rate|accept(?:ance)? rate)\s*[:=]\s*(\d+(?:\.\d+)?)(?!\.?\d)\s*(%?)",  # noqa: E501
    re.I,
)
# one reading a line, as typed into a note
_ALONE = regex(
    r"^\W*(?:num_(?:requests_|reqs_)?)?(running|waiting|queued|pending)"
    r"(?:[ _]?(?:reqs?|requests))?\s*[\s:=|]\s*(\d+)\W*$",
    re.I,
)
_PERIODIC = regex(r"running|waiting|pending|queue|numscheduled|numactive|active request", re.I)


_NO_DIGITS = {ord(d): None for d in "0123456789abcdefABCDEF"}
_WORDS = (*dict.fromkeys(o.needle for o in _ONCE), "running", "waiting", "pending", "in flight", "queue", "numactive", "numscheduled",  # noqa: E501
          "active request", "throughput", "accept", "kv", "bs=[", "graph bs", "graph_bs", "bs:", "capture_sizes", "graph_sizes", "version", "vllm", "sglang",  # noqa: E501
          "llm engine", "tensorrt", "text-generation", "cuda graph")  # fmt: skip
_MAX_DULL = 100_000


def _first(hit: re.Match[str] | None) -> float | None:
    if hit is None:
        return None
    return amount(next(g for g in hit.groups() if g is not None))


def _share(hit: re.Match[str] | None) -> float | None:
    """A fraction, whether printed as one or in percent."""
    if hit is None:
        return None
    try:
        value = float(hit.group(1))
    except ValueError:
        return None
    value = round(value / 100, 6) if hit.group(2) else value
    return value if value <= 1.5 else (round(value / 100, 6) if value <= 100 else None)


@dataclass
class _State:
    """One periodic line."""

    line: Line
    running: float | None
    waiting: float | None
    swapped: float | None
    kv: float | None
    deferred: float | None = None
    label: str = "peak"


@dataclass
class _Run:
    """What is remembered of the periodic lines of one document."""

    peak: _State | None = None
    top_kv: _State | None = None
    busy: int = 0
    held: list[tuple[float, Line]] = field(default_factory=list)  # running, while others wait
    queued: int = 0
    text: dict[str, tuple[Line, float]] = field(default_factory=dict)  # signal|label -> where, value
    eager: tuple[Line, int] | None = None
    alone: dict[str, tuple[Line, float]] = field(default_factory=dict)  # readings that stand alone on a line

    def keep(self, key: str, line: Line, value: float, best: str) -> None:
        """Remember the `max`, `min` or `last` of a reading."""
        old = self.text.get(key)
        if old is None or best == "last" or (value > old[1] if best == "max" else value < old[1]):
            self.text[key] = (line, value)


class ServingLogReader:
    """Facts of a server log; periodic lines are aggregated, the decisive line is quoted."""

    name = "serving_log"
    needles: tuple[bytes, ...] = (b"vLLM", b"vllm", b"reqs", b"KV cache", b"KV token", b"running-req", b"sglang", b"max_total_num_tokens",  # noqa: E501
               b"max_running_requests", b"attention backend", b"attention block", b"Running:", b"unning", b"aiting", b"TensorRT-LLM",  # noqa: E501
               b"generation throughput", b"gen throughput", b"accept", b"max_num_", b"context_len", b"context len", b"context-len", b"captured CUDA",  # noqa: E501
               b"text-generation", b"cuda graph", b"global_", b"pending", b"in flight", b"Model loading", b"torch.compile", b"bytecode transform", b"Graph captur", b"init engine", b"NumQueued", b"numQueued", b"Maximum concurrency", b"Compiling a graph", b"Capturing CUDA", b"apturing batches")  # fmt: skip  # noqa: E501

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Start-up facts where they stand, then the summary of the periodic lines."""
        run = _Run()
        seen: set[tuple[str, str | None, object]] = set()
        dull: set[str] = set()  # shapes of lines that hold nothing for this reader
        for line in possible(doc.lines(), words=_WORDS):
            text = line.text
            shape = text.translate(_NO_DIGITS)
            if shape in dull:
                continue
            low = text.lower()
            if not any(n in low for n in _WORDS):
                if len(dull) < _MAX_DULL:
                    dull.add(shape)
                continue
            for once in _ONCE:
                if once.needle not in low:
                    continue
                hit = once.pattern.search(text)
                if hit is None:
                    continue
                for number, (signal, unit, label) in enumerate(once.gives, 1):
                    got = hit.group(number)
                    value: float | str = amount(got) if unit else got
                    if (signal, label, value) not in seen and got.lower() not in ("none", "auto"):
                        seen.add((signal, label, value))
                        yield Fact(signal, value, unit, Subject(label=label), (doc.span(line, hit.group()[:60]),),
                                   status=doc.status)  # fmt: skip
            yield from self._sizes(doc, line, low, seen)
            yield from self._version(doc, line, low, seen)
            if _PERIODIC.search(low) or "throughput" in low or "accept" in low or "kv" in low:
                self._periodic(line, text, run)
        yield from self._summary(doc, run)

    @staticmethod
    def _sizes(doc: Document, line: Line, low: str, seen: set[tuple[str, str | None, object]]) -> Iterator[Fact]:
        if "bs" not in low and "capture_sizes" not in low and "graph_sizes" not in low:
            return
        hit = _GRAPH_SIZES.search(line.text)
        sizes = [int(n) for n in re.findall(r"\d+", hit.group(1))] if hit else []
        if hit and sizes and ("serving.graph_batch", None, float(max(sizes))) not in seen:
            seen.add(("serving.graph_batch", None, float(max(sizes))))
            yield Fact("serving.graph_batch", float(max(sizes)), "count", Subject(),
                       (doc.span(line, hit.group()[:60]),), status=doc.status)  # fmt: skip

    @staticmethod
    def _version(doc: Document, line: Line, low: str, seen: set[tuple[str, str | None, object]]) -> Iterator[Fact]:
        if "v" not in low:
            return
        for component, pattern in _VERSION:
            hit = pattern.search(line.text)
            if hit and ("version", component, hit.group(1)) not in seen:
                seen.add(("version", component, hit.group(1)))
                yield Fact("version", hit.group(1).rstrip("."), None, Subject(label=component),
                           (doc.span(line, hit.group()[:60]),), status=doc.status)  # fmt: skip

    @staticmethod
    def _periodic(line: Line, text: str, run: _Run) -> None:
        running, waiting = _first(_RUN.search(text)), _first(_WAIT.search(text))
        kv = _share(_KV.search(text))
        if kv is None and running is not None:
            kv = _share(_CPU_KV.search(text))
        if running is not None and (waiting is not None or kv is not None or "throughput" in text):
            run.keep("serving.running_span|max", line, running, "max")
            run.keep("serving.running_span|last", line, running, "last")
        readings = sum(v is not None for v in (running, waiting, kv))
        if readings >= 2:
            state = _State(line, running, waiting, _first(_SWAP.search(text)), kv, _first(_DEFERRED.search(text)))
            if running is not None and waiting and "refill batch" not in text and len(run.held) < _MAX_DULL:
                run.held.append((running, line))
            run.busy += bool(running)
            run.queued += bool(waiting)

            def rank(s: _State) -> tuple[float, float, float]:
                return (s.waiting or 0, s.running or 0, s.kv or 0)

            if run.peak is None or rank(state) > rank(run.peak):
                run.peak = state
            if kv is not None and (run.top_kv is None or kv > (run.top_kv.kv or 0)):
                run.top_kv = state
        single = _ALONE.match(text)
        if single:
            name = "running" if single.group(1).lower() == "running" else "waiting"
            run.alone.setdefault(name, (line, float(single.group(2))))
        elif readings == 1 and kv is not None:
            run.alone.setdefault("kv_usage", (line, kv))
        graph = _GRAPH.search(text)
        if graph and graph.group(1).lower() == "false" and "decode" in text.lower():
            run.eager = (run.eager[0] if run.eager else line, (run.eager[1] if run.eager else 0) + 1)
        for signal, unit, pattern in (("serving.prompt_tput", "max", _PROMPT), ("serving.gen_tput", "max", _GEN)):
            value = _first(pattern.search(text))
            if value is not None:
                run.keep(f"{signal}|{unit}", line, value, unit)
        hit = _share(_HIT.search(text))
        if hit is not None and (readings >= 2 or running is not None or "hit rate" in text.lower()):
            run.keep("serving.prefix_hit_rate|last", line, hit, "last")
            run.keep("serving.prefix_hit_rate|max", line, hit, "max")
        length, rate = _first(_LEN.search(text)), _share(_RATE.search(text))
        if length is not None:
            run.keep("serving.accept_length|min", line, length, "min")
            run.keep("serving.accept_length|max", line, length, "max")
        if rate is not None:
            run.keep("serving.accept_rate|last", line, rate, "last")

    @staticmethod
    def _summary(doc: Document, run: _Run) -> Iterator[Fact]:
        def fact(
            signal: str, value: float | str, unit: str | None, label: str | None, line: Line, count: int = 1
        ) -> Fact:
            return Fact(signal, value, unit, Subject(label=label), (doc.span(line),), status=doc.status, count=count)

        peak, top = run.peak, run.top_kv
        if peak is not None:
            for signal, value in (
                ("running", peak.running), ("waiting", peak.waiting), ("swapped", peak.swapped),
                ("deferred", peak.deferred),
            ):  # fmt: skip
                if value is not None:
                    count = max(run.queued, 1) if signal == "waiting" else 1
                    yield fact(f"serving.{signal}", value, "count", "peak", peak.line, count)
            if peak.kv is not None:
                yield fact("serving.kv_usage", peak.kv, "fraction", "peak", peak.line)
        if peak is None and {"running", "waiting"} & run.alone.keys():
            for name, (line, number) in run.alone.items():
                yield fact(f"serving.{name}", number, "fraction" if name == "kv_usage" else "count", "peak", line)
        if (
            peak is not None and top is None and (alone := run.alone.get("kv_usage")) is not None
        ):  # noted beside the rows
            yield fact("serving.kv_usage", alone[1], "fraction", "peak", alone[0])
        if (stays := plateau(run.held)) is not None:
            yield fact("serving.running_stays", stays[0], "count", None, stays[1])
        if top is not None and top.kv is not None and top is not peak:
            yield fact("serving.kv_usage", top.kv, "fraction", "max", top.line)
        if run.eager is not None:
            yield fact("serving.decode_graph", "False", None, None, *run.eager)
        units = {"running_span": "count", "prompt_tput": "tokens/s", "gen_tput": "tokens/s", "accept_length": "count"}
        for key, (line, value) in run.text.items():
            signal, label = key.split("|")
            yield fact(signal, value, units.get(signal.split(".")[1], "fraction"), label, line)


READERS: list[Reader] = [ServingLogReader()]
