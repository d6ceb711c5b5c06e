"""Tables of `llama-bench`: the same test under two builds or settings, compared where exactly one thing differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import divided, fact

_BUILD = regex(r"\bbuild:\s*([0-9a-f]{6,}\s*\(\s*b?\d+\)|\S.*)", re.IGNORECASE)
_SPEED = regex(r"(\d+(?:\.\d+)?)(?=\s*(?:±|\||$))")
# what a column is an instance of; a column not named here is a difference of its own
_AXES = {
    "build": "version", "fa": "attention_backend", "backend": "backend", "type_k": "quantization", "type_v": "quantization",  # noqa: E501
    "model": "quantization", "threads": "threads", "n_batch": "batch", "n_ubatch": "batch", "sm": "tp", "dev": "gpu", "devices": "gpu",  # noqa: E501
}  # fmt: skip
_SAME = ("size", "params", "t/s", "test")


@dataclass(frozen=True)
class _Run:
    """One row, with the build that its table names."""

    test: str
    setting: dict[str, str]
    speed: float
    line: Line


class LlamaBenchReader:
    """Ratios of prompt processing (pp) and generation (tg) between rows."""

    name = "llama_bench"
    needles: tuple[bytes, ...] = (b"t/s |", b"t/s|")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Compare each pair of rows of one test that differ in one column."""
        runs = self._runs(doc)
        for i, first in enumerate(runs):
            for second in runs[i + 1 :]:
                differs = [
                    k for k in {*first.setting, *second.setting} if first.setting.get(k) != second.setting.get(k)
                ]
                if first.test != second.test or len(differs) != 1 or min(first.speed, second.speed) <= 0:
                    continue
                worse, better = sorted((first, second), key=lambda r: r.speed)
                key = differs[0]
                metric = "prompt_throughput" if first.test.startswith("pp") else "decode_throughput"
                names = [f"{key} {run.setting.get(key, '')}".strip() for run in (worse, better)]
                inputs = tuple(
                    fact(doc, run.line, "figure", run.speed, "tokens/s", label=f"{metric}|{name}")
                    for run, name in zip((better, worse), (names[1], names[0]), strict=True)
                )
                yield divided(
                    "compare.ratio",
                    inputs,
                    subject=Subject(label=f"{_AXES.get(key, 'other')}|{metric}|{names[0]}|{names[1]}"),
                )

    @staticmethod
    def _runs(doc: Document) -> list[_Run]:
        columns: list[str] = []
        open_: list[_Run] = []
        done: list[_Run] = []
        for line in doc.lines():
            cells = [c.strip() for c in line.text.strip().strip("|").split("|")] if "|" in line.text else []
            if "t/s" in cells and "test" in cells:
                if open_:  # a table without a build line
                    done.extend(open_)
                    open_ = []
                columns = cells
            elif (hit := _BUILD.search(line.text)) is not None:
                for run in open_:
                    run.setting["build"] = hit[1].strip()
                done.extend(open_)
                open_ = []
            elif columns and len(cells) == len(columns):
                row = dict(zip(columns, cells, strict=True))
                speed = _SPEED.match(row["t/s"])
                if speed is not None and row["test"]:
                    setting = {k: v for k, v in row.items() if k not in _SAME}
                    open_.append(_Run(row["test"], setting, float(speed[1]), line))
        return [*done, *open_][:40]


READERS: list[Reader] = [LlamaBenchReader()]
