"""Which product a note is about, and what peak the text itself names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose import hardware
from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_SMALL = 256 << 10

# Names of products that stand in a text, longest first; and figures that the text itself calls the peak.
_NAMES = sorted({*hardware.GPUS, *hardware.ALIASES} - {"4090", "5090", "3090", "t4"}, key=len, reverse=True)
_PRODUCT = regex(
    r"(?<![\w-])(?:nvidia )?(?P<name>" + "|".join(re.escape(n).replace(r"\ ", "[ -]") for n in _NAMES) + r")(?![\w-])",
    re.IGNORECASE,
)
_RATE = regex(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?(GB/s|TB/s|TFLOP/?s|TFLOPS|PFLOPS|T ?FLOPs)\b", re.IGNORECASE)
_PEAK_BEFORE = regex(
    r"(?:peak|spec\w*|theoretical|data ?sheet|rated|nominal|max(?:imum)?|dense|roof|hbm\w*|gddr\w*|ceiling|标称"
    r"|理论|峰值|规格|上限)"
    r"[^\d\n;,]{0,24}$|/ ?$|\bof(?: the| a)? ?$|out of ?$",
    re.IGNORECASE,
)
_PEAK_AFTER = regex(
    r"^ ?(?:peak|card|spec|theoretical|dense|data ?sheet|nominal|峰值|标称|理论|part\b"
    r"|gpu\b)",
    re.IGNORECASE,
)
_SPARSE = regex(r"spars", re.IGNORECASE)


class StatedPeaks:
    """Which product a note is about, and what it says the product can do."""

    name = "stated_peaks"
    needles: tuple[bytes, ...] = (
        b"GB/s", b"TB/s", b"TFLOP", b"tflop", b"PFLOP", b"SMs", b"H100", b"H200", b"A100", b"L40", b"L4", b"V100",
        b"RTX", b"B200", b"A10", b"T4",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Products named, once each; stated peaks."""
        products: set[str] = set()
        peaks: set[tuple[str, float]] = set()
        for line in excerpt(doc, _SMALL, 2000):
            text = line.text
            if len(text) > 600:
                continue
            for hit in _PRODUCT.finditer(text):
                made = hardware.gpu(re.sub(r"\s+", " ", hit["name"])) or hardware.gpu(hit["name"].replace("-", " "))
                if made is not None and made.name not in products and len(products) < 6:
                    products.add(made.name)
                    yield fact(doc, line, "gpu.product", made.name, around=hit.group(), label=hit.group().strip())
            for rate in _RATE.finditer(text):
                before, after = text[: rate.start()], text[rate.end() :]
                named = re.search(r"\($", before.rstrip()) and any(
                    h.end() <= rate.start() for h in _PRODUCT.finditer(text)
                )
                if not (_PEAK_BEFORE.search(before) or _PEAK_AFTER.match(after) or named) or _SPARSE.search(after[:24]):
                    continue
                unit = rate.group(2).upper().replace(" ", "")
                memory = unit in ("GB/S", "TB/S")
                value = float(rate.group(1).replace(",", "")) * (1e3 if unit in ("TB/S", "PFLOPS") else 1.0)
                if (unit, value) not in peaks and len(peaks) < 6:
                    peaks.add((unit, value))
                    yield fact(
                        doc,
                        line,
                        "roof.stated",
                        value,
                        "GB/s" if memory else "TFLOP/s",
                        around=rate.group(),
                        label="memory" if memory else "compute",
                    )


READERS: list[Reader] = [StatedPeaks()]
