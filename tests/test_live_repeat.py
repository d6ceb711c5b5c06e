"""`client.repeat`: what it measures, and what it says about a prefix cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.probes.live_repeat import HEAD, RepeatReader

from diagnose.document import Document
from diagnose.engine import conclude
from diagnose.gather import Gathered, gather_known
from diagnose.inputs import open_inputs

CASSETTE = Path(__file__).parents[1] / "evals" / "cassettes" / "h100-vllm-no-prefix-cache.zip"


def table(*again: float) -> Document:
    """New prompts take 58 to 61 ms; the same again what is given."""
    new = [58.0, 59.0, 60.0, 61.0]
    rows = [
        f"{name:>5} {n:8d} {1024:7d} {t:8.2f}"
        for name, ts in (("new", new), ("again", again))
        for n, t in enumerate(ts)
    ]
    return Document.of("repeat", "\n".join([HEAD + " 4 of about 1024 tokens", *rows, ""]).encode())


def ratio(doc: Document) -> list[float]:
    return [float(f.value or 0) for f in RepeatReader().parse(doc) if f.signal == "serving.repeat.ratio"]


@pytest.mark.parametrize(
    ("again", "want"),
    [((58.0, 59.0, 60.0, 61.0), 1.0), ((12.0, 12.0, 12.0, 400.0), 12 / 59), ((59.0,), None), ((), None)],
)
def test_the_ratio_takes_medians(again: tuple[float, ...], want: float | None) -> None:
    """One slow request does not decide, and one request alone is no median."""
    assert ratio(table(*again)) == ([] if want is None else [pytest.approx(want)])


def test_off_is_named_once_a_repeated_prompt_was_seen_to_cost_its_prefill() -> None:
    """The switch alone leaves it open; a cache that answers the second time speaks against."""
    found, rejected = open_inputs([str(CASSETTE)], None)
    # what its own requests measured there is put in below; of the rest what the server says will do
    docs = [d for d in found if "vllm.metrics" in d.name or "serving.args" in d.name]
    assert not rejected and len(docs) < len(found)
    verdicts = {}
    read: dict[str, Gathered] = {}
    for name, more in (("alone", ()), ("same", (table(58.0, 59.0, 60.0, 61.0),)), ("cached", (table(9.0, 9.0, 9.0),))):
        judged = conclude("TTFT is high", gather_known([*docs, *more], read, Gathered())).assessment
        first = max(judged.beliefs.values(), key=lambda b: b.p)
        verdicts[name] = (judged.verdict, first.cause.id if judged.verdict == "cause" else "")
    assert verdicts["alone"] == ("inconclusive", "")
    assert verdicts["same"] == ("cause", "serving.prefix_cache_miss")
    assert verdicts["cached"][1] != "serving.prefix_cache_miss"
