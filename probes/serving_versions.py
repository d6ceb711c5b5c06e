"""Figures beside engine versions: rows, lines and short blocks that name one release each become comparisons.

The general reader compares what tables and headings line up; a release number is easily taken for a figure there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, excerpt, fact

_ENGINE = r"vllm(?:-openai)?|sglang|tensorrt[-_ ]?llm|trt-?llm|tgi|text-generation-inference|llama\.?cpp|lmdeploy|ollama|dynamo|exllama\w*|tritonserver"  # noqa: E501
_RELEASE = regex(
    rf"(?:(?P<engine>{_ENGINE})\s*(?:==|[:=@ /-]|version|release)?\s*v?(?P<number>\d+\.\d+(?:\.\w+)*)"
    rf"|(?<![\w.])v(?P<bare>\d+\.\d+\.\d+(?:[.-]?\w+)*)|(?P<engine2>{_ENGINE})\s+(?P<build>b\d{{4,5}}))(?![\w%]|\.\d)",
    re.IGNORECASE,
)
_FIGURE = regex(
    r"(?<![\w.])(?P<value>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>tok(?:ens?)?/s(?:ec)?|t/s|tps|token/s|req/s|rps|ms|s|秒|毫秒)(?![\w/])|"
    r"\((?P<head>tok/s|ms|s|req/s)\)\s*[:=]?\s*(?P<late>\d[\d,]*(?:\.\d+)?)",
    re.IGNORECASE,
)
_NAMES = (
    ("ttft", r"ttft|first token|首 ?token|首字"), ("tpot", r"tpot|per.?token"), ("itl", r"\bitl\b|inter.?token"),
    ("e2e", r"e2e|end.to.end|latency|时延|延迟"), ("prompt_throughput", r"prefill|prompt|input"),
)  # fmt: skip
_NAMED = tuple((name, regex(pattern, re.IGNORECASE)) for name, pattern in _NAMES)
_BLOCK = 12  # lines that belong to the release named above them


@dataclass(frozen=True)
class _Reading:
    """One figure under one release."""

    release: str
    metric: str
    better: bool  # more is better
    value: float
    unit: str
    line: Line


class VersionReader:
    """`compare.ratio` on the axis `version` between releases of one engine."""

    name = "engine_versions"
    needles: tuple[bytes, ...] = (b"vllm", b"vLLM", b"glang", b"GLang", b"llama", b"LLM", b"tensorrt", b"trtllm", b"tgi", b"TGI", b"inference:", b"lmdeploy", b"tritonserver", b"ollama",  # noqa: E501
                                  b"v0.", b"v1.", b"v2.", b"v3.")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Compare the first release with each other one, metric by metric."""
        found = self._readings(excerpt(doc, 1 << 14))
        groups: dict[tuple[str, str], dict[str, _Reading]] = {}
        for item in found:
            groups.setdefault((item.metric, item.unit), {}).setdefault(item.release, item)
        for (metric, _unit), by in groups.items():
            if not 2 <= len(by) <= 6:
                continue
            ordered = sorted(by.values(), key=lambda r: r.value, reverse=True)
            high, low = ordered[0], ordered[-1]
            if low.value <= 0 or high.value < 1.02 * low.value:
                continue
            worse, better = (low, high) if high.better else (high, low)
            inputs = tuple(
                fact(doc, r.line, "figure", r.value, r.unit, label=f"{metric}|{r.release}") for r in (high, low)
            )
            yield divided(
                "compare.ratio", inputs, subject=Subject(label=f"version|{metric}|{worse.release}|{better.release}")
            )

    @staticmethod
    def _readings(lines: list[Line]) -> list[_Reading]:
        out: list[_Reading] = []
        release, since = "", _BLOCK
        for line in lines:
            if len(line.text) > 400:
                continue
            names = {_release(hit) for hit in _RELEASE.finditer(line.text)}
            if len(names) > 1:
                release = ""
                continue
            if names:
                release, since = names.pop(), 0
            since += 1
            if not release or since > _BLOCK:
                continue
            text = _RELEASE.sub(lambda hit: " " * len(hit.group()), line.text)
            seen: set[str] = set()
            for hit in _FIGURE.finditer(text):
                unit = (hit["unit"] or hit["head"]).lower()
                value = float((hit["value"] or hit["late"]).replace(",", ""))
                rate = unit not in ("ms", "s", "秒", "毫秒")
                canonical = (
                    ("req/s" if unit in ("req/s", "rps") else "tokens/s")
                    if rate
                    else ("ms" if unit in ("ms", "毫秒") else "s")
                )
                before = text[: hit.start()]
                name = next(
                    (n for n, pattern in _NAMED if pattern.search(before)), "decode_throughput" if rate else "latency"
                )
                metric = name if rate == name.endswith("throughput") else ("decode_throughput" if rate else "latency")
                metric = "request_rate" if canonical == "req/s" else metric
                if metric not in seen:
                    seen.add(metric)
                    out.append(_Reading(release, metric, rate, value, canonical, line))
        return out


def _release(hit: re.Match[str]) -> str:
    number = hit["number"] or hit["bare"] or hit["build"]
    return f"v{number}"


_STEP = regex(
    r"(?<![\w.-])(?P<name>vllm|sglang|(?:py)?torch|nccl|ucx|nixl|cuda|(?:nvidia[ -])?driver|tensorrt[-_ ]?llm|trt-?llm"
    r"|transformers|openmpi|triton|flashinfer|libfabric)"
    r"(?:[\s:=(,]|version|release|package|wheel|was|went|upgraded?|bumped|moved|from|从|由|版本|升级)*"
    r"(?<![\w.])v?(?P<old>\d+\.\d+[\w.+]*)\s*(?:->|→|=>|to|到|至|升级到|升到)\s*"
    r"(?:(?P=name)[ =v]*)?v?(?P<new>\d+\.\d+[\w.+]*)"
    r"(?![\w.+])(?!\s*(?:%|x\b|[µmun]?s\b|[MG]i?B|tok|req|Gb))",
    re.IGNORECASE,
)
_LABELS = {"pytorch": "torch", "trt-llm": "tensorrt-llm", "trtllm": "tensorrt-llm", "nvidia driver": "driver",
           "nvidia-driver": "driver"}  # fmt: skip


class UpgradeReader:
    """Both releases of a step from one to the other: ``vllm 0.9.2 -> 0.11.0``, ``NCCL from 2.18.5 to 2.20.5``."""

    name = "upgrades"
    needles = (b"->", b"=>", b"\xe2\x86\x92", b"pgrad", b"umped", b"from ", b"\xe5\x88\xb0")  # → 到

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`version`, twice a step."""
        for line in excerpt(doc, 1 << 16):
            for hit in _STEP.finditer(line.text) if len(line.text) <= 400 else ():
                label = re.sub(r"[_ ]", "-", hit["name"].lower())
                for number in (hit["old"], hit["new"]):
                    yield fact(doc, line, "version", number.rstrip("."), label=_LABELS.get(label, label))


READERS: list[Reader] = [VersionReader(), UpgradeReader()]
