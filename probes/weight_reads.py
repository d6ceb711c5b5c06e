"""What a decode step reads and how long it takes, as local engines print it; the time of a prompt; rest and work."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import excerpt, fact

_PART = regex(r"(?P<dev>(?:CUDA|ROCm|HIP|Vulkan|SYCL)\d+) (?:model )?buffer size\s*=\s*(?P<n>\d+(?:\.\d+)?) MiB")
_WHOLE = regex(
    r"(?:model(?: file)?|weights?|checkpoint|gguf|file size|模型文件|模型|权重)(?:[ _]?(?:on disk|file|size|loading|load|takes?|took|占用|大小|in GPU memory|weights?))*\s*(?:[:=(]|is|of|为|约|was)?\s*~?(?P<n>\d+(?:\.\d+)?) ?(?P<u>GiB|GB)\b",  # noqa: E501
    re.IGNORECASE,
)
_BENCH = regex(r"\|\s*(?P<size>\d+(?:\.\d+)?) GiB\s*\|.*\|\s*tg\d+\s*(?:@ d\d+\s*)?\|\s*(?P<rate>\d+(?:\.\d+)?)")
_LOADED = regex(r"Load weight end\..*\bmem usage=(?P<n>\d+(?:\.\d+)?) ?GB")  # SGLang divides by 2**30
_JSON = regex(
    r'"prompt_n"\s*:\s*(?P<n>\d+).{0,40}?"prompt_ms"\s*:\s*(?P<prompt>\d+(?:\.\d+)?).{0,200}?"predicted_ms"\s*:\s*(?P<made>\d+(?:\.\d+)?)'
)
_PROMPT = regex(r"prompt eval time\s*=\s*(?P<ms>\d+(?:\.\d+)?) ms /\s*(?P<n>\d+) tokens")
_MADE = regex(r"(?<!prompt )(?<!prompt)\beval time\s*=\s*(?P<ms>\d+(?:\.\d+)?) ms /\s*(?P<n>\d+) (?:runs|tokens)")
_MODEL = regex(
    r"(?<![\w.])(?:llama|qwen|mistral|ministral|gemma|yi|phi|falcon|glm|internlm|baichuan|codellama|vicuna|granite|olmo|nemotron|starcoder|deepseek-(?:coder|llm)|r1-distill)[\w.-]*?[-_ ](?P<n>\d{1,3}(?:\.\d+)?)b(?![a-z0-9])(?!-a\d)",  # noqa: E501
    re.IGNORECASE,
)
_TP = regex(
    r"tensor[- _]parallel(?:[- _]size)?[ =:]+(?P<a>\d{1,2})\b|(?<![\d:] )\b(?:TP|(?<!--)tp(?:[ _-]?size)?) ?[=:]? ?(?P<b>\d{1,2})\b(?!\])"  # noqa: E501
)
# A single stream's rate with its unit in front of the number: ``tok/s 58.3``, ``tokens/s: 41``.
_RATE = regex(
    r"(?<![\d.])(?<!\d )\b(?:tok(?:en)?s?/s(?:ec)?|tps)\b\s*[:=]?\s*(?P<n>\d+(?:\.\d+)?)(?![\w.])(?!\s*(?:%|tok|ms|\d))",  # noqa: E501
    re.I,
)


_RUN_OF_MANY = regex(r"total|aggregate|throughput|concurren|all requests|batch[ =:]*(?:[2-9]|1\d)|总", re.I)


class WeightReadReader:
    """Sizes by device or whole, speed of generation beside a size, and how a request's time splits."""

    name = "weight_reads"
    needles: tuple[bytes, ...] = (
        b"buffer size",
        b"eval time",
        b"prompt_ms",
        b"| tg",
        b"GB",
        b"GiB",
        b"-",
        b"tensor",
        b"TP",
        b"tp",
        b"tok",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """In texts of moderate size."""
        prompt: tuple[float, float, Line] | None = None
        models: set[str] = set()
        for line in excerpt(doc, 1 << 19):
            text = line.text
            if len(text) > 4000:
                continue
            part = _PART.search(text)
            if part:
                yield fact(doc, line, "serving.weights_part", float(part["n"]) / 1024, "GiB", label=part["dev"])
            elif bench := _BENCH.search(text):
                yield fact(doc, line, "serving.weights_part", float(bench["size"]), "GiB", label="whole")
                yield fact(doc, line, "serving.single_rate", float(bench["rate"]), "tokens/s", label="tg")
            elif whole := _WHOLE.search(text):
                factor = 1.0 if whole["u"] == "GiB" else 1e9 / 2**30
                if float(whole["n"]) >= 0.5:
                    yield fact(doc, line, "serving.weights_part", float(whole["n"]) * factor, "GiB", label="whole")
            elif loaded := _LOADED.search(text):
                yield fact(doc, line, "serving.weights_part", float(loaded["n"]), "GiB", label="whole")
            rate = _RATE.search(text) if doc.size < 1 << 14 else None
            if rate and 1 <= float(rate["n"]) < 1000 and not _RUN_OF_MANY.search(text):
                yield fact(doc, line, "serving.single_rate", float(rate["n"]), "tokens/s", label="note")
            split = _JSON.search(text)
            if split:
                yield from self._split(doc, line, float(split["prompt"]), line, float(split["made"]), float(split["n"]))
            first, made = _PROMPT.search(text), _MADE.search(text)
            if first:
                prompt = (float(first["ms"]), float(first["n"]), line)
            elif made and prompt is not None:
                yield from self._split(doc, prompt[2], prompt[0], line, float(made["ms"]), prompt[1])
                prompt = None
            for model in _MODEL.finditer(text) if doc.size < 1 << 16 else ():
                if model["n"] not in models and len(models) < 4:
                    models.add(model["n"])
                    yield fact(doc, line, "serving.model_size", float(model["n"]), "count", label=model.group()[:40])
            parallel = _TP.search(text) if doc.size < 1 << 14 else None
            if parallel and int(parallel["a"] or parallel["b"]) in (1, 2, 4, 8, 16):
                yield fact(doc, line, "serving.tp_noted", float(parallel["a"] or parallel["b"]), "count", label="tp")

    @staticmethod
    def _split(doc: Document, line: Line, first: float, after: Line, made: float, count: float) -> Iterator[Fact]:
        """Share of the prompt in the time of one request."""
        if first < 1000 or count < 1:
            return
        inputs = tuple(
            fact(doc, at, "figure", ms, "ms", label=name)
            for ms, name, at in ((first, "prefill|request", line), (made, "decode_time|request", after))
        )
        yield Fact(
            "serving.stage_share", first / (first + made), "fraction", Subject(label="prefill"), kind="derived",
            formula="a / (a + b)", inputs=inputs, status=doc.status,
        )  # fmt: skip
        yield fact(doc, line, "serving.told", count, "count", label="prompt")


_STATE = regex(r"(?<!\w)P(?P<p>\d{1,2})(?!\w)")
_UTIL = regex(r"(?<![\d.])(?P<n>\d{1,3}) ?%")
_CLOCK = regex(r"(?<![\d.])(?P<n>\d{3,4}) ?MHz")
_GEN = regex(r"\bgen ?(?P<n>[1-6])\b", re.IGNORECASE)


class StateNoteReader:
    """Lines that give a card's state, use and clock together: at rest, and at work."""

    name = "state_notes"
    needles: tuple[bytes, ...] = (b"P8", b"P5", b"P12", b"P0")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A fact for each kind of line, its value the state."""
        seen: set[tuple[str, str]] = set()
        columns: list[str] = []
        for line in excerpt(doc, 1 << 16):
            text = line.text
            if "," in text and "pstate" in text:
                columns = [c.strip() for c in text.split(",")]
                continue
            state, use = _STATE.search(text), _UTIL.search(text)
            if state is None or use is None or len(text) > 240:
                continue
            number, share = int(state["p"]), int(use["n"])
            kind = "rest" if number >= 5 and share <= 5 else "work" if number <= 2 and share >= 50 else ""
            if not kind or (kind, state.group()) in seen:
                continue
            seen.add((kind, state.group()))
            yield fact(doc, line, "gpu.state_note", state.group(), label=kind)
            clock, gen = _CLOCK.search(text), _GEN.search(text)
            if clock:
                yield fact(doc, line, "gpu.state_clock", float(clock["n"]), "MHz", label=kind)
            cells = [c.strip() for c in text.split(",")]
            level = gen["n"] if gen else next(
                (v for k, v in zip(columns, cells, strict=False) if "gen.current" in k and v.isdecimal()), ""
            )  # fmt: skip
            if level:
                yield fact(doc, line, "gpu.state_gen", float(level), "count", label=kind)


READERS: list[Reader] = [WeightReadReader(), StateNoteReader()]
