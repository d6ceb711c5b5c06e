"""What all limit judges share: the evidence by signal, references with ids, and this machine's products."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from . import hardware
from .hardware import Gpu, Rate
from .models import Evidence, Limit, Reference

TOLERANCE = 1.03  # a measurement may lie this much above a modelled ceiling before the inputs are doubted


@dataclass
class Book:
    """Evidence in, limits and references out."""

    evidence: list[Evidence]
    limits: list[Limit] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    _index: dict[str, list[Evidence]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.evidence:
            if item.kind != "absent":
                self._index.setdefault(item.signal, []).append(item)

    def of(self, signal: str) -> list[Evidence]:
        """Evidence of a signal."""
        return self._index.get(signal, [])

    def numbers(self, signal: str) -> list[tuple[float, Evidence]]:
        """Numeric readings of a signal."""
        return [
            (float(e.value), e)
            for e in self.of(signal)
            if isinstance(e.value, (int, float)) and not isinstance(e.value, bool)
        ]

    def one(self, signal: str, near: Evidence | None = None) -> tuple[float, Evidence] | None:
        """The largest reading, of the same capture as `near` if that has one."""
        got = self.numbers(signal)
        same = [g for g in got if near is not None and capture(g[1]) == capture(near)]
        return max(same or got, key=lambda g: g[0], default=None)

    def cite(self, rate: Rate) -> str:
        """Id of the reference for a figure that does not come from the evidence."""
        for known in self.references:
            if (known.what, known.value, known.source) == (rate.what, rate.value, rate.source):
                return known.id
        ident = f"R{len(self.references) + 1}"
        self.references.append(
            Reference(id=ident, what=rate.what, value=rate.value, unit=rate.unit, source=rate.source)
        )
        return ident

    def ceiling(
        self, what: str, measured: float, limit: float | None, unit: str, used: Iterable[Evidence],
        source: str = "", reason: str | None = None,
    ) -> None:  # fmt: skip
        """Add a limit that a good measurement stays below, or the reason why there is none."""
        ratio = round(measured / limit, 4) if limit else None
        if ratio is not None and ratio > TOLERANCE:
            reason = "above its ceiling: the link, the product or the measurement is not what the inputs say"
        self._add(what, measured, limit, unit, ratio, used, source, reason)

    def floor(
        self, what: str, measured: float, limit: float | None, unit: str, used: Iterable[Evidence],
        source: str = "", reason: str | None = None,
    ) -> None:  # fmt: skip
        """Add a limit that a measurement stays above: ratio is measured / floor, so 1 is best."""
        ratio = round(measured / limit, 4) if limit else None
        if ratio is not None and ratio < 1 / TOLERANCE:
            reason = "below its floor: the model, the product or the measurement is not what the inputs say"
        self._add(what, measured, limit, unit, ratio, used, source, reason)

    def _add(
        self, what: str, measured: float, limit: float | None, unit: str, ratio: float | None,
        used: Iterable[Evidence], source: str, reason: str | None,
    ) -> None:  # fmt: skip
        if any(known.what == what and known.measured == measured for known in self.limits):
            return
        ids = list(dict.fromkeys(e.id for e in used))
        rounded = round(limit, 3) if limit else None
        self.limits.append(
            Limit(
                what=what, measured=measured, limit=rounded, unit=unit, ratio=ratio, evidence=ids,
                limit_source=source, reason=reason,
            )
        )  # fmt: skip


def capture(item: Evidence) -> str:
    """Name of the capture an evidence stands in."""
    return item.capture.name if item.capture else ""


@dataclass(frozen=True)
class Product:
    """The GPU of this machine: the one product that every reading names, or why there is none."""

    gpu: Gpu | None
    used: tuple[Evidence, ...]
    reason: str = ""


def product(book: Book, near: Evidence | None = None) -> Product:
    """The product that the evidence names, first in the capture of `near`."""
    named = book.of("gpu.name")
    same = [e for e in named if near is not None and capture(e) == capture(near)]
    named = same or named
    if not named:
        return Product(None, (), "no reading names the GPU")
    found: dict[str, Evidence] = {}
    reason = ""
    for item in named:
        got = hardware.gpu(str(item.value)) or _cut(str(item.value))
        if got is None:
            reason = reason or hardware.unknown(str(item.value))
        else:
            found.setdefault(got.name, item)
    if len(found) > 1:
        return Product(None, tuple(found.values()), f"the GPUs differ: {', '.join(sorted(found))}")
    if not found:
        return Product(None, (named[0],), reason)
    (name, item), *_ = found.items()
    return Product(hardware.GPUS[name.lower()], (item,))


def _cut(name: str) -> Gpu | None:
    """A name that a table cut short (``NVIDIA H100 80G...``), if it can only be one product."""
    hit = re.fullmatch(r"(.{4,}?)\s*(?:\.{2,3}|…)", name.strip())
    if hit is None:
        return None
    stem = re.sub(r"^nvidia\s+", "", hit.group(1).lower())
    fits = [g for key, g in hardware.GPUS.items() if key.startswith((stem, f"tesla {stem}"))]
    return fits[0] if len(fits) == 1 else None
