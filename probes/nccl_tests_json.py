"""Reader of the JSON that nccl-tests writes with ``-J``.

Its `env` is the whole environment of the run: only NCCL_*, CUDA_* and UCX_* entries are looked at,
and each is quoted by itself, so that nothing else can leave the file through a report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

_RESULT = regex(r'\{\s*"size"\s*:')
_ENV = regex(r'"((?:NCCL|CUDA|UCX|FI)_[A-Z0-9_]+)=([^"\\]{0,200})"')
_DEVICE = regex(r'"device_info"\s*:\s*"([^"\\]{1,80})"')
_SCALAR = regex(r'"(nccl_version|ngpus|nthreads|warmup_iters)"\s*:\s*(\d+)')
_AVERAGE = regex(r'"bandwi(?:d|di)th"\s*:\s*"?(\d+(?:\.\d+)?|nan)(?!\.?\d)"?')
_NAME = regex(r"\b(\w+)_perf\b")
LIMIT = 64 << 20


def _number(value: Any) -> float | None:
    """JSON numbers, numbers as strings, and "nan"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None


class NcclTestsJsonReader:
    """``-J`` files of 2.17.3 on, with all their spellings."""

    name = "nccl_tests_json"
    needles = (b'"bus_bw"', b'"out_of_place"')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Readings per size, peak, average, devices, and the variables that matter."""
        if doc.size > LIMIT:
            return
        text = doc.data.decode("latin-1")  # one character a byte, so positions are offsets
        decoder = json.JSONDecoder()
        hit = _NAME.search(text)
        name = hit[1] if hit else "collective"
        if hit:
            yield self._fact(doc, "nccl_tests.collective", name, None, hit.span(1))
        best: Fact | None = None
        last: tuple[float, Fact] | None = None
        for start in _RESULT.finditer(text):
            try:
                row, end = decoder.raw_decode(text, start.start())
            except ValueError:
                doc.lines_skipped += 1
                continue
            size = _number(row.get("size"))
            if size is None:
                continue
            for key, place in (("out_of_place", "out-of-place"), ("in_place", "in-place")):
                side = row.get(key)
                if not isinstance(side, dict):
                    continue
                at = text.find(f'"{key}"', start.start(), end)
                close = text.find("}", at, end) + 1
                span = (at, close if at < close else end)
                label = f"{name} {size:.0f} B {place}"
                time = side.get("time", side.get("cpu_time"))
                for signal, value, unit in (
                    ("busbw", side.get("bus_bw"), "GB/s"), ("algbw", side.get("alg_bw"), "GB/s"), ("time", time, "us"),
                ):  # fmt: skip
                    reading = _number(value)
                    if reading is None:
                        continue
                    fact = self._fact(doc, f"nccl_tests.{signal}", reading, unit, span, label)
                    yield fact
                    if signal == "busbw":
                        if best is None or reading > float(best.value or 0):
                            best = fact
                        if last is None or size > last[0]:
                            last = (size, fact)
                if wrong := _number(side.get("nwrong")):
                    yield self._fact(doc, "nccl_tests.wrong", wrong, "count", span, label)
        if best is not None:
            yield replace(best, signal="nccl_tests.peak_busbw")
        if last is not None:
            yield replace(last[1], signal="nccl_tests.largest_busbw")
        yield from self._settings(doc, text)

    def _settings(self, doc: Document, text: str) -> Iterator[Fact]:
        for env in _ENV.finditer(text):
            yield self._fact(doc, "env.var", env[2], None, env.span(), env[1])
        for n, device in enumerate(_DEVICE.finditer(text)):
            if n < 72:
                span = device.span()
                yield replace(self._fact(doc, "gpu.name", device[1], None, span), subject=Subject(gpu=n))
        for scalar in _SCALAR.finditer(text):
            value = int(scalar[2])
            if scalar[1] == "nccl_version":
                version = f"{value // 10000}.{value // 100 % 100}.{value % 100}"
                yield self._fact(doc, "version", version, None, scalar.span(), "nccl")
            elif scalar[1] == "ngpus":
                yield self._fact(doc, "nccl_tests.gpus", float(value), "count", scalar.span())
        tail = text.rfind("average_bus_bandwi")
        if tail >= 0 and (average := _AVERAGE.search(text, tail)) and _number(average[1]) is not None:
            yield self._fact(doc, "nccl_tests.avg_busbw", float(average[1]), "GB/s", average.span())

    @staticmethod
    def _fact(
        doc: Document,
        signal: str,
        value: str | float,
        unit: str | None,
        span: tuple[int, int],
        label: str | None = None,
    ) -> Fact:
        line = doc.data.count(b"\n", 0, span[0]) + 1
        return Fact(signal, value, unit, Subject(label=label), (doc.bytes_span(*span, line),), status=doc.status)
