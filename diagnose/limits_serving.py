"""Floors of serving: what a decode step must read and a prefill must calculate, whatever the engine does.

The weights that the engine reports for one GPU (or the model's config.json) over the memory's rate
bound a step from below. Speculation makes several tokens a step and a mixture reads only the experts
that are hit, so neither gets a floor from the weights alone.
"""

from __future__ import annotations

import re
from typing import Any

from . import floors
from .hardware import Gpu, Rate
from .lazy import regex
from .limits_base import Book, Product, capture, product
from .models import Evidence
from .shapes import Shape, named, shape

_MIXTURE = regex(
    r"moe|mixtral|deepseek[_-]?(?:v[23]|r1)|gpt[_-]?oss|a\d+b\b|8x\d+b|scout|maverick|kimi|glm-?4\.5", re.I
)
_SPECULATION = regex(r"speculative|num-speculative|draft|eagle|mtp", re.I)
_KEY = ("median", "p50", "mean", "")


def judge(book: Book) -> None:
    """TPOT beside the weight read, TTFT beside the prefill."""
    got = product(book)
    tp, tp_used = tensor_parallel(book)
    model, model_used = model_shape(book)
    _tpot(book, got, model, (*model_used, *tp_used), tp)
    if model is not None:
        _ttft(book, got, model, (*model_used, *tp_used), tp)
    _stages(book, got, model, (*model_used, *tp_used), tp)


def _stages(book: Book, got: Product, model: Shape | None, model_used: tuple[Evidence, ...], tp: int) -> None:
    """The server's own prefill and decode times beside what one such prefill and one such step must take."""
    for signal, judged in (("serving.server.prefill", _prefill_stage), ("serving.server.tpot", _decode_stage),
                           ("serving.server.itl", _decode_stage)):  # fmt: skip
        means = [n for n in book.numbers(signal) if n[1].subject.label == "mean" and n[0] > 0]
        if len(means) == 1:
            judged(book, got, model, model_used, tp, *means[0])


def _prefill_stage(
    book: Book, got: Product, model: Shape | None, used: tuple[Evidence, ...], tp: int, value: float, item: Evidence
) -> None:  # fmt: skip
    """The longer of the arithmetic of the tokens that were calculated, and one read of the weights."""
    tokens = book.one("serving.server.computed_tokens") or book.one("serving.server.prompt_tokens")
    if tokens is None or tokens[0] < 1:
        return
    what, used = f"prefill stage, {tokens[0]:.0f} tokens", (item, tokens[1], *used, *got.used)
    reason = _why_not(got, model) or _unfit(book)
    peak = _peak(got.gpu, model) if model is not None else None
    cached = tokens[1].signal.endswith("prompt_tokens") and [
        n for n in book.numbers("serving.prefix_hit_rate") if n[0] > 0.01
    ]
    if got.gpu is None or model is None or peak is None or reason or cached:
        said = "part of the prompts was cached" if cached else reason or "no dense peak for the weights is known"
        book.floor(what, value, None, "ms", used, reason=said)
        return
    memory = Rate(f"memory bandwidth, {got.gpu.name}", got.gpu.memory, "GB/s", got.gpu.source_of())
    read = floors.read_floor(floors.weight_read(model, 1, model.weight_bytes or 2.0).value / tp, memory.value).value
    least = max(floors.prefill_floor(model, round(tokens[0]), peak.value, tp).value, read)
    source = f"larger of arithmetic / {tp} GPUs / {book.cite(peak)} and weights / {tp} GPUs / {book.cite(memory)}"
    book.floor(what, value, least, "ms", used, source)


def _decode_stage(
    book: Book, got: Product, model: Shape | None, used: tuple[Evidence, ...], tp: int, value: float, item: Evidence
) -> None:  # fmt: skip
    """Weights and the cache of the requests that ran on the mean, read once."""
    if any(known.what.startswith("decode stage") for known in book.limits):
        return
    batch, by = _running(book)
    prompt, answer = book.one("serving.server.prompt_tokens"), book.one("serving.server.output_tokens")
    context = prompt[0] + answer[0] / 2 if prompt and answer else 0.0
    many = f"{batch:.3g} request{'' if batch == 1 else 's'}"
    what = f"decode stage, {many} of {context:.0f} tokens" if context else "decode stage, weight read"
    told = tuple(n[1] for n in (prompt, answer) if n)
    used = (item, *by, *told, *used, *got.used)
    reason = _unfit(book) or _why_not(got, model)
    if got.gpu is None or model is None or reason:
        book.floor(what, value, None, "ms", used, reason=reason)
        return
    memory = Rate(f"memory bandwidth, {got.gpu.name}", got.gpu.memory, "GB/s", got.gpu.source_of())
    size = floors.weight_read(model, max(1, round(batch)), model.weight_bytes or 2.0).value / tp
    cache = batch * context * floors.kv_per_token(model, kv_bytes(book), tp).value
    book.floor(what, value, floors.read_floor(size + cache, memory.value).value, "ms", used,
               f"(weights / {tp} GPUs + cache read) / {book.cite(memory)}")  # fmt: skip


def kv_bytes(book: Book) -> float:
    """Bytes of a cached element: one where the server was told so."""
    told = [str(e.value) for e in book.of("serving.arg") if e.subject.label == "kv-cache-dtype"]
    return 1.0 if any("fp8" in t or "int8" in t for t in told) else 2.0


def _why_not(got: Product, model: Shape | None) -> str:
    """Why a stage has no floor, with what to give."""
    if got.gpu is None:
        return got.reason or "no reading names the GPU: add nvidia-smi"
    return "" if model is not None else "the model's sizes are not known: add its config.json"


def _running(book: Book) -> tuple[float, tuple[Evidence, ...]]:
    """Requests running on the mean by Little's law, 1 where nothing tells."""
    flight = {e.subject.label: (v, e) for v, e in book.numbers("serving.in_flight")}
    whole, queue = flight.get("in the system"), flight.get("in the queue")
    if whole is None:
        return 1.0, ()
    value = max(1.0, whole[0] - (queue[0] if queue else 0.0))
    return value, (whole[1], *([queue[1]] if queue else []))


def _tpot(book: Book, got: Product, model: Shape | None, model_used: tuple[Evidence, ...], tp: int) -> None:
    weights = book.one("serving.weights")
    what = "TPOT of a decode step, weight read"
    for value, item in readings(book, "serving.client.tpot"):
        if weights is None and (model is None or model.weight_bytes is None):
            continue  # nothing in the evidence says how much a step must read
        used = (item, *([weights[1]] if weights else model_used), *got.used)
        reason = _unfit(book) or ("a mixture of experts reads only the experts that are hit" if _mixed(model) else "")
        if got.gpu is None or reason:
            book.floor(what, value, None, "ms", used, reason=reason or got.reason)
            continue
        rate = Rate(f"memory bandwidth, {got.gpu.name}", got.gpu.memory, "GB/s", got.gpu.source)
        if weights is not None:
            size, source = weights[0] * 2**30, f"{weights[1].id} x 2^30 B / {book.cite(rate)}"
        else:
            assert model is not None and model.weight_bytes is not None
            size = floors.weight_read(model, 1, model.weight_bytes).value / tp
            source = f"weights of {model.params:,} parameters / {tp} GPUs / {book.cite(rate)}"
        book.floor(what, value, floors.read_floor(size, rate.value).value, "ms", used, source)


def _ttft(book: Book, got: Product, model: Shape, model_used: tuple[Evidence, ...], tp: int) -> None:
    total, count = book.one("serving.client.input_tokens"), book.one("serving.client.prompts")
    if total is None or count is None or count[0] < 1 or capture(total[1]) != capture(count[1]):
        return
    tokens = round(total[0] / count[0])
    hits = [n for n in book.numbers("serving.prefix_hit_rate") if n[0] > 0.01]
    for value, item in readings(book, "serving.client.ttft"):
        if capture(item) != capture(total[1]):
            continue
        what = f"TTFT, prefill of {tokens} tokens"
        used = (item, total[1], count[1], *model_used, *got.used)
        peak = _peak(got.gpu, model)
        if peak is None or hits:
            reason = got.reason or "no dense peak for the weights' precision is known"
            book.floor(what, value, None, "ms", used, reason="part of the prompts was cached" if hits else reason)
            continue
        least = floors.prefill_floor(model, tokens, peak.value, tp)
        book.floor(what, value, least.value, "ms", used, f"prefill arithmetic / {tp} GPUs / {book.cite(peak)}")


def _peak(gpu: Gpu | None, model: Shape) -> Rate | None:
    if gpu is None:
        return None
    name, value = ("fp8", gpu.fp8) if model.weight_bytes == 1.0 else ("16-bit", gpu.tensor16)
    return Rate(f"dense {name} peak, {gpu.name}", value, "TFLOP/s", gpu.source) if value else None


def _mixed(model: Shape | None) -> bool:
    return model is not None and model.experts > 0


def model_shape(book: Book) -> tuple[Shape | None, tuple[Evidence, ...]]:
    """The model's shape from its config, if that is among the evidence and modelled."""
    config: dict[str, Any] = {e.subject.label or "": int(v) for v, e in book.numbers("model.size")}
    traits = {e.subject.label or "": str(e.value) for e in book.of("model.trait")}
    if not config:
        return _published(book)
    quantised = {k: v for k, v in {**config, **traits}.items() if k in ("quant_method", "bits")}
    config |= {k: v == "True" if k == "tie_word_embeddings" else v for k, v in traits.items()}
    config |= {k: traits[k].split(", ") for k in ("layer_types", "layers_block_type") if k in traits}
    if quantised:
        config["quantization_config"] = quantised
    try:
        return shape(config), tuple(book.of("model.size")[:3])
    except ValueError:
        return None, ()


def _published(book: Book) -> tuple[Shape | None, tuple[Evidence, ...]]:
    """The shape of a published model that the server was told to serve under its own name, unquantised."""
    for item in (*book.of("serving.arg"), *book.of("serving.model")):
        label = item.subject.label or ""
        if label in ("quantization", "dtype", "hf-overrides") and str(item.value) not in ("auto", "bfloat16", "None"):
            return None, ()
    for item in (*book.of("serving.arg"), *book.of("serving.model")):
        if item.signal == "serving.model" or item.subject.label in ("model", "model-path", "model-id"):
            found = named(str(item.value))
            if found is not None:
                return found, (item,)
    return None, ()


def tensor_parallel(book: Book) -> tuple[int, tuple[Evidence, ...]]:
    """GPUs that one replica is split over, and the option that says so; 1 where none does."""
    for item in book.of("serving.arg"):
        if item.subject.label in ("tensor-parallel-size", "tp", "tp-size", "tp_size") and str(item.value).isdigit():
            return max(int(str(item.value)), 1), (item,)
    return 1, ()


def readings(book: Book, signal: str) -> list[tuple[float, Evidence]]:
    """One reading a capture: the median where there is one."""
    best: dict[str, tuple[int, float, Evidence]] = {}
    for value, item in book.numbers(signal):
        label = (item.subject.label or "").lower()
        order = next((i for i, k in enumerate(_KEY) if label == k), None)
        if order is None or value <= 0:
            continue
        rival = best.get(capture(item))
        if rival is None or order < rival[0]:
            best[capture(item)] = (order, value, item)
    return [(value, item) for _, value, item in best.values()]


def _unfit(book: Book) -> str:
    """Why the weights alone are no floor here, or nothing."""
    for item in (*book.of("serving.architecture"), *book.of("serving.arg")):
        label = item.subject.label or ""
        if item.signal == "serving.arg" and _SPECULATION.search(label):
            return "speculative decoding makes several tokens a step"
        names = item.signal == "serving.architecture" or label in ("model", "served-model-name", "model-path")
        if names and _MIXTURE.search(str(item.value)):
            return "a mixture of experts reads only the experts that are hit"
    if book.of("serving.accept_length") or book.of("serving.accept_rate"):
        return "speculative decoding makes several tokens a step"
    return ""
