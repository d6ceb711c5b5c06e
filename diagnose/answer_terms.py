"""What people call a metric and a figure: ``ttft_mean`` is mean TTFT, 134173 ms are 134.2 s, 8589934592 B are 8 GiB."""

from __future__ import annotations

import re

from .catalogue import Catalogue

_LARGE = 10_000  # from here on a figure is said in its next larger unit
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end-to-end latency", "kv": "KV", "op": "operation",
          "comm": "communication", "init": "initialisation", "bytes": "bytes", "per": "per"}  # fmt: skip
_STATS = {"mean": "mean", "avg": "mean", "median": "median", "min": "lowest", "max": "highest", "p50": "median",
          "p90": "P90", "p95": "P95", "p99": "P99"}  # fmt: skip
_STATS_ZH = {"mean": "平均", "lowest": "最小", "highest": "最大", "median": "中位"}
_LARGER = {"B": ("kB", "MB", "GB", "TB"), "us": ("ms", "s"), "ms": ("s",)}
_METRIC = re.compile(r"(?<![\w./-])[a-z]+[a-z0-9]*(?:_[a-z0-9]+)*(?![\w./=])")
_SIZED = re.compile(r"(?<![\w.,/-])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)? (B|ms|us)\b(?!/)")


def split(name: str) -> tuple[str, str]:
    """A metric's own name and its statistic: ``ttft_mean`` is ``ttft`` and ``mean``."""
    head, _, last = name.rpartition("_")
    return (head, _STATS[last]) if head and last in _STATS else (name, "")


def metric(name: str, cat: Catalogue | None = None, lang: str = "en") -> str:
    """A metric as one says it; the name itself where it is no name of ours."""
    if cat is not None and name in cat.signals:
        known = cat.spoken_zh["signals"].get(name) if lang == "zh" else None
        return known or cat.signals[name].what
    own, stat = split(name)
    if lang == "zh" and cat is not None and own in cat.spoken_zh["metrics"]:
        stat = _STATS_ZH.get(stat, stat)
        said = cat.spoken_zh["metrics"][own]
        return stat + (" " if stat and (stat[-1].isascii() or said[0].isascii()) else "") + said
    if not re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)*", own):
        return name
    said = " ".join(_NAMES.get(word, word) for word in own.split("_"))
    return f"{stat} {said}".strip()


def named(text: str, cat: Catalogue) -> str:
    """A text with our names of metrics as one says them."""

    def said(hit: re.Match[str]) -> str:
        own = split(hit[0])[0]
        ours = own in cat.axes.get("metrics", {}) and ("_" in hit[0] or own in _NAMES)
        return metric(hit[0], cat) if ours else hit[0]

    return _METRIC.sub(said, text)


def restates(place: str, name: str) -> bool:
    """Does a place name nothing but the metric again: ``Mean TTFT (ms)`` of mean TTFT?"""
    return set(re.findall(r"[a-z0-9]+", name.lower())) <= set(re.findall(r"[a-z0-9]+", place.lower()))


def sized(value: float, unit: str) -> str:
    """A figure in the unit in which one says it: binary sizes as such, others from ten thousand on in the next."""
    whole = int(value)
    if unit == "B" and value == whole and whole >= 2**20 and whole % 2**20 == 0:
        return f"{whole // 2**30} GiB" if whole % 2**30 == 0 else f"{whole // 2**20} MiB"
    if unit == "B" and value == whole and _LARGE <= whole < 2**20 and whole % 2**10 == 0:
        return f"{whole // 2**10} KiB"
    for name in _LARGER.get(unit, ()):
        if abs(value) < _LARGE:
            break
        value, unit = value / 1e3, name
    return f"{value:,.0f} {unit}" if abs(value) >= _LARGE else f"{value:.4g} {unit}"


def alike(one: str, two: str) -> tuple[str, str]:
    """Two figures of one kind, both in the unit in which one says the larger."""
    large = aloud(one), aloud(two)
    if large == (one, two) or large[0].rpartition(" ")[2] == large[1].rpartition(" ")[2]:
        return large
    scale, unit = (1e3, "s") if "ms" in one else (1e3, "ms" if "us" in one else "kB")
    first, second = (float(t.partition(" ")[0].replace(",", "")) / scale for t in (one, two))
    return f"{first:.4g} {unit}", f"{second:.4g} {unit}"


def aloud(text: str) -> str:
    """A text with its large sizes and times as one says them."""

    def said(hit: re.Match[str]) -> str:
        value = float(hit[1].replace(",", "") + (hit[2] or ""))
        return sized(value, hit[3]) if value >= _LARGE else hit[0]

    return _SIZED.sub(said, text)
