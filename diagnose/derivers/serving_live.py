"""Derived facts of a disaggregated server: what moving the KV cache must take over the link that it was given."""

from __future__ import annotations

from collections.abc import Iterable

from ..derive import Deriver
from ..models import Fact, Subject
from .stages import said, servers

_LINK, _SIZE = "kv-transfer-bandwidth", "kv-bytes-per-token"


def _option(facts: list[Fact], name: str) -> Fact | None:
    """A numeric option on which all processes agree."""
    got = [f for f in facts if f.signal == "serving.arg" and f.subject.label == name and _number(str(f.value)) > 0]
    return got[0] if len({_number(str(f.value)) for f in got}) == 1 else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def link(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """KV bytes of the mean prompt over the configured bandwidth, beside the mean time to first token."""
    rate, size = _option(facts, _LINK), _option(facts, _SIZE)
    found = servers(facts)
    prompt = next((s.mean["prompt_tokens"] for s in found if "prompt_tokens" in s.mean), None)
    ttft = next((s.mean["ttft"] for s in found if "ttft" in s.mean), None)
    if rate is None or size is None or prompt is None or ttft is None:
        return
    moved = float(prompt.value or 0) * _number(str(size.value)) / (_number(str(rate.value)) * 1e6)
    whole = float(ttft.value or 0)
    if moved <= 0 or whole <= 0 or moved > 1.5 * whole:  # not of these requests
        return
    yield Fact(
        "kv.share", moved / whole, "fraction", Subject(label="KV bytes over the configured bandwidth"), kind="derived",
        formula="reader:kv_link", inputs=(prompt, size, rate, ttft), status=ttft.status,
        statement=f"moving the KV cache of {float(prompt.value or 0):.0f} prompt tokens ({size.value} bytes each) at "
        f"{rate.value} GB/s takes {said(moved)} of the mean TTFT of {said(whole)}",
    )  # fmt: skip


DERIVERS: list[Deriver] = [link]
