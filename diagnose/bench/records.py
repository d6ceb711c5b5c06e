"""What a run is asked to do, what each request did, and what comes out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

DEFINITIONS = {
    "ttft": "first chunk that carries text, minus the moment the request was sent (a new connection's set-up counts)",
    "tpot": "(last token minus first token) / (output tokens - 1), per request, requests with more than one token",
    "itl": "gaps between consecutive chunks that carry text, of all requests together; a chunk may hold several tokens",
    "e2el": "last token minus the moment the request was sent",
    "from_schedule": "the same, from the moment the request was due: what the client held back counts as well",
    "request_throughput": "completed requests / time from the first due moment to the last answer",
    "output_throughput": "output tokens of completed requests / the same time",
    "steady": "output tokens that arrived between the first and the last due moment / that time: no ramp, no tail",
    "goodput": "requests that met every part of the SLO, from their due moment, / the same time as throughput; "
    "failed requests are bad ones",
    "percentiles": "linear interpolation between the closest ranks; std over the population",
}


@dataclass(frozen=True)
class Load:
    """One run.

    Attributes:
        input, output: tokens a request. rate: requests a second, inf for all at once.
        concurrency: with rate inf, so many users who each wait for their answer; else a cap, whose effect is reported.
        burstiness: shape of the gaps: 1 is Poisson, more is more regular, inf is constant.
        ramp: seconds of rising rate before what is measured. prefix: tokens that all prompts begin with.
        salt: makes prompts differ from those of other runs, so that a prefix cache cannot answer.
    """

    input: int = 512
    output: int = 128
    rate: float = math.inf
    concurrency: int | None = None
    num: int = 200
    burstiness: float = 1.0
    ramp: float = 0.0
    prefix: int = 0
    warmup: int = 8
    seed: int = 0
    salt: str = ""
    timeout: float = 600.0

    @property
    def closed(self) -> bool:
        """Users who wait for their answers, instead of a schedule."""
        return math.isinf(self.rate) and self.concurrency is not None

    @property
    def name(self) -> str:
        """Short text that tells runs apart; also a file name."""
        text = f"in{self.input}-out{self.output}-rate{'inf' if math.isinf(self.rate) else f'{self.rate:g}'}"
        text += f"-conc{self.concurrency}" if self.concurrency is not None else ""
        return text + ("" if self.burstiness == 1.0 else f"-burst{self.burstiness:g}")


@dataclass(slots=True)
class Sample:
    """One request. Times are readings of `perf_counter_ns`, 0 where it never came to that."""

    index: int
    ramp: bool = False
    due: int = 0  # by the schedule
    woke: int = 0  # when the generator got to it
    began: int = 0  # when it was sent; `woke` plus what the concurrency cap held it back
    connected: int = 0
    sent: int = 0
    message: int = 0  # first event with a choice, be it without text
    first: int = 0  # first chunk with text
    last: int = 0  # last event with a choice
    ended: int = 0
    reused: bool = True
    chunks: list[int] = field(default_factory=list)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    usage_tokens: int | None = None
    finish: str = ""
    kind: str = ""  # empty: completed; else the sort of failure
    error: str = ""

    @property
    def ok(self) -> bool:
        """It got a complete answer with at least one token."""
        return not self.kind and self.first > 0

    @property
    def tokens(self) -> int:
        """Output tokens as the server counts them, else chunks."""
        return self.usage_tokens if self.usage_tokens is not None else len(self.chunks)

    @property
    def ttft(self) -> float:
        """Seconds, from sending."""
        return (self.first - self.began) / 1e9

    @property
    def e2el(self) -> float:
        """Seconds, from sending."""
        return (self.last - self.began) / 1e9

    @property
    def held(self) -> float:
        """Seconds from the due moment to sending."""
        return (self.began - self.due) / 1e9

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first."""
        return (self.last - self.first) / 1e9 / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between chunks."""
        return [(b - a) / 1e9 for a, b in zip(self.chunks, self.chunks[1:], strict=False)]


@dataclass
class Outcome:
    """All that the generator saw in one run."""

    samples: list[Sample] = field(default_factory=list)  # sent ones, ramp included, warm-up not
    begin: int = 0
    end: int = 0
    unsent: int = 0
    interrupted: bool = False
    died: str = ""  # why sending stopped early
    loop_lags: list[float] = field(default_factory=list)
    cpu: float = 0.0
    opened: int = 0
    peak: int = 0
    warmup_failed: int = 0


@dataclass
class Result:
    """A run in vLLM's layout, and what else was written while it ran (`files`: ending of the name -> text)."""

    data: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    died: str = ""

    @property
    def valid(self) -> bool:
        """The generator kept up; a tool without a self-check is believed."""
        check = self.data.get("self_check")
        return not isinstance(check, dict) or bool(check.get("valid"))


def dump(data: dict[str, Any]) -> str:
    """JSON with one key a line, so that a quote of a figure is a short line."""
    rows = (f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in data.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"
