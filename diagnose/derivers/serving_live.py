"""Derived facts of a watched server: the KV cache over its link, requests that it refused, workers that differ."""

from __future__ import annotations

from collections.abc import Iterable

from ..derive import Deriver
from ..models import Fact, Subject
from .serving import by_server, difference, last_and_first
from .stages import said, servers

_LINK, _SIZE = "kv-transfer-bandwidth", "kv-bytes-per-token"

_REFUSED = ("unknown model", "refused", "failed")  # what is told apart first: one is counted among the others
_FEW = 5.0  # requests: fewer say nothing


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


def refused(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Requests that were answered with an error, as a share of all that were answered in the window."""
    for mine in by_server(facts).values():
        ends = {label: last_and_first(mine, label) for label in (*_REFUSED, "finished")}
        label = next((n for n in _REFUSED if (e := ends[n]) is not None and _rise(e) >= _FEW), None)
        turned = ends[label] if label else None
        if label is None or turned is None:
            continue
        served = ends["finished"]
        lost = difference("serving.refused", turned, "count", label)
        done = difference("serving.finished", served, "count", None) if served is not None else None
        inputs, formula = ((lost, done), "a / (a + b)") if done is not None else ((lost,), "a / a")
        bad, good = float(lost.value or 0), float(done.value or 0) if done is not None else 0.0
        yield lost
        yield Fact(
            "serving.refused_share", bad / (bad + good), "fraction", Subject(label=label), kind="derived",
            formula=formula, inputs=inputs, status=lost.status,
            statement=f"requests answered with an error ({label}): {bad:.0f} of {bad + good:.0f} in the window",
        )  # fmt: skip


def _rise(ends: tuple[Fact, Fact | None]) -> float:
    last, first = ends
    return float(last.value or 0) - (float(first.value or 0) if first is not None else 0.0)


def spread(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """Workers that do the same work, prefill and decode, at means of TTFT that differ: the slowest over the fastest."""
    same = [
        s for s in servers(facts)
        if s.tier == "engine" and s.count >= _FEW and s.ms("ttft") > 0 and s.ms("itl") > 0 and s.place
    ]  # fmt: skip
    if len({s.place for s in same}) < 2:
        return
    slow, fast = max(same, key=lambda s: s.ms("ttft")), min(same, key=lambda s: s.ms("ttft"))
    a, b = slow.mean["ttft"], fast.mean["ttft"]
    yield Fact(
        "serving.worker_spread", slow.ms("ttft") / fast.ms("ttft"), "count", Subject(label=slow.place), kind="derived",
        formula="a / b", inputs=(a, b), status=a.status,
        statement=f"a first token takes {said(slow.ms('ttft'))} on the mean at {slow.place}, "
        f"{said(fast.ms('ttft'))} at {fast.place}",
    )  # fmt: skip


DERIVERS: list[Deriver] = [link, refused, spread]
