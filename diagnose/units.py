"""The closed list of units, and conversion into them.

GB/s is 1e9 bytes per second, Gb/s is 1e9 bits per second; MiB and GiB are powers of two.
"""

from __future__ import annotations

UNITS = frozenset(
    ["GB/s", "Gb/s", "us", "ms", "s", "B", "GiB", "tokens/s", "req/s", "TFLOP/s", "W", "MHz", "C", "count", "fraction"]
)

IN_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3}  # our units of time

# spelling (lower case, except where case carries meaning) -> (canonical unit, factor)
_SPELLINGS: dict[str, tuple[str, float]] = {
    "b": ("B", 1.0), "byte": ("B", 1.0), "bytes": ("B", 1.0),
    "kb": ("B", 1e3), "mb": ("B", 1e6), "gb": ("B", 1e9), "tb": ("B", 1e12),
    "kib": ("B", 1024.0), "mib": ("B", 1024.0**2), "gib": ("GiB", 1.0), "tib": ("GiB", 1024.0),
    "ns": ("us", 1e-3), "us": ("us", 1.0), "µs": ("us", 1.0), "μs": ("us", 1.0),
    "usec": ("us", 1.0), "microseconds": ("us", 1.0),
    "ms": ("ms", 1.0), "msec": ("ms", 1.0), "msecs": ("ms", 1.0), "milliseconds": ("ms", 1.0),
    "毫秒": ("ms", 1.0), "微秒": ("us", 1.0), "秒": ("s", 1.0), "分钟": ("s", 60.0),
    "s": ("s", 1.0), "sec": ("s", 1.0), "secs": ("s", 1.0), "second": ("s", 1.0),
    "seconds": ("s", 1.0), "min": ("s", 60.0), "mins": ("s", 60.0), "minutes": ("s", 60.0),
    "minute": ("s", 60.0), "h": ("s", 3600.0), "hours": ("s", 3600.0),
    "gb/s": ("GB/s", 1.0), "gb/sec": ("GB/s", 1.0), "gbyte/s": ("GB/s", 1.0), "gbps": ("Gb/s", 1.0),
    "gib/s": ("GB/s", 1.073741824), "mb/s": ("GB/s", 1e-3), "mb/sec": ("GB/s", 1e-3),
    "mib/s": ("GB/s", 1.048576e-3), "mib/sec": ("GB/s", 1.048576e-3), "kb/s": ("GB/s", 1e-6),
    "tb/s": ("GB/s", 1e3), "gbit/s": ("Gb/s", 1.0), "gbits/s": ("Gb/s", 1.0),
    "gb/sec.": ("GB/s", 1.0), "mbps": ("Gb/s", 1e-3), "mbit/s": ("Gb/s", 1e-3),
    "gbits/sec": ("Gb/s", 1.0), "mbits/sec": ("Gb/s", 1e-3), "tbps": ("Gb/s", 1e3),
    "tok/s": ("tokens/s", 1.0), "tokens/s": ("tokens/s", 1.0), "t/s": ("tokens/s", 1.0),
    "tps": ("tokens/s", 1.0), "tokens/sec": ("tokens/s", 1.0), "token/s": ("tokens/s", 1.0),
    "toks/s": ("tokens/s", 1.0), "tokens per second": ("tokens/s", 1.0),
    "req/s": ("req/s", 1.0), "requests/s": ("req/s", 1.0), "reqs/s": ("req/s", 1.0),
    "rps": ("req/s", 1.0), "qps": ("req/s", 1.0), "requests/sec": ("req/s", 1.0),
    "tflop/s": ("TFLOP/s", 1.0), "tflops": ("TFLOP/s", 1.0), "tflops/s": ("TFLOP/s", 1.0),
    "gflop/s": ("TFLOP/s", 1e-3), "gflops": ("TFLOP/s", 1e-3), "pflops": ("TFLOP/s", 1e3),
    "w": ("W", 1.0), "watt": ("W", 1.0), "watts": ("W", 1.0), "kw": ("W", 1e3),
    "mhz": ("MHz", 1.0), "ghz": ("MHz", 1e3), "c": ("C", 1.0), "°c": ("C", 1.0),
    "%": ("fraction", 0.01), "percent": ("fraction", 0.01), "x": ("count", 1.0),
    "count": ("count", 1.0), "fraction": ("fraction", 1.0),
}  # fmt: skip
# spellings where case tells bits from bytes
_CASED: dict[str, tuple[str, float]] = {
    "Gb/s": ("Gb/s", 1.0), "Gb/sec": ("Gb/s", 1.0), "Mb/s": ("Gb/s", 1e-3), "GBps": ("GB/s", 1.0),
    "MBps": ("GB/s", 1e-3), "Tb/s": ("Gb/s", 1e3), "Mb/sec": ("Gb/s", 1e-3),
    "GiBps": ("GB/s", 1.073741824), "TF": ("TFLOP/s", 1.0), "TF/s": ("TFLOP/s", 1.0),
}  # fmt: skip


def canonical(value: float, spelling: str) -> tuple[float, str] | None:
    """Convert a figure as printed into the closed list of units.

    Args:
        value: the printed number.
        spelling: the printed unit, e.g. ``MiB/s``, ``Gbps``, ``毫秒``.

    Returns:
        ``(value, unit)`` or None for an unknown spelling.
    """
    hit = _CASED.get(spelling) or _SPELLINGS.get(spelling.lower())
    if hit is None:
        return None
    unit, factor = hit
    return value * factor, unit


def duration(seconds: float) -> str:
    """A time as tables spell it: ``1.25 s``, ``430 ms``."""
    return f"{seconds:.3g} s" if abs(seconds) >= 1 else f"{seconds * 1000:.3g} ms"


def percent(share: float, decimals: int = 0) -> str:
    """A share as every text spells it: ``99.5 %``."""
    text = f"{100 * share:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"
