"""Which runs to make: one, a matrix, a sweep over one axis, or the search for the rate a server can take."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import UsageError
from ..units import percent
from .metrics import SLO_NAMES
from .records import Load, Result

MATRIX_INPUT, MATRIX_OUTPUT, MATRIX_RATE = (128, 512, 2048), (64, 128, 512), (1.0, 4.0, 16.0)
AXES = ("rate", "input", "output", "concurrency", "burstiness", "prefix")
ATTAIN = 0.9  # share of requests within the SLO that counts as taken
CLOSE = 1.1  # the search ends when the failing rate is at most so many times the taken one
MOST_RUNS = 14
TRIAL_SECONDS = 15.0
GROWTH = 1.5  # requests under way at the end over those in the middle, above which a queue is building up
GROWTH_SLACK = 4


def rate(text: str) -> float:
    """Requests a second, or inf.

    Raises:
        UsageError: neither.
    """
    value = _number(text, "--rate")
    if value <= 0:
        raise UsageError(f"--rate {text!r}: it must be above 0", "a number, or inf for all at once")
    return value


def _number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError as err:
        raise UsageError(f"{option}: {text!r} is no number") from err
    if math.isnan(value):
        raise UsageError(f"{option}: {text!r} is no number")
    return value


def slo(text: str) -> dict[str, float]:
    """``ttft=500ms,tpot=20ms`` as limits in ms.

    Raises:
        UsageError: another name, no unit, no number.
    """
    out: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        hit = re.fullmatch(r"(\w+)\s*[=:<]\s*([\d.]+)\s*(ms|s)", part)
        if hit is None or hit[1] not in SLO_NAMES:
            raise UsageError(f"--slo: cannot read {part!r}", f"like ttft=500ms,tpot=20ms ({', '.join(SLO_NAMES)})")
        out[hit[1]] = _number(hit[2], "--slo") * (1000.0 if hit[3] == "s" else 1.0)
    return out


def matrix(base: Load) -> list[Load]:
    """Input x output x rate."""
    return [
        dataclasses.replace(base, input=i, output=o, rate=r)
        for i in MATRIX_INPUT
        for o in MATRIX_OUTPUT
        for r in MATRIX_RATE
    ]  # fmt: skip


def sweep(base: Load, text: str) -> list[Load]:
    """``rate=1,4,16`` as one load a value.

    Raises:
        UsageError: an unknown axis or value.
    """
    axis, _, values = text.partition("=")
    axis = axis.strip()
    if axis not in AXES or not values.strip():
        raise UsageError(f"--sweep {text!r}", f"like rate=1,4,16; axes: {', '.join(AXES)}")
    out = []
    for value in values.split(","):
        number = _number(value.strip(), "--sweep")
        whole = axis not in ("rate", "burstiness")
        if number <= 0 or (whole and number != int(number)):
            raise UsageError(f"--sweep {axis}: {value.strip()!r} does not do")
        out.append(replace_axis(base, axis, number))
    return out


def replace_axis(base: Load, axis: str, value: float) -> Load:
    """The same load with another value on one axis."""
    if axis in ("rate", "burstiness"):
        return dataclasses.replace(base, rate=value) if axis == "rate" else dataclasses.replace(base, burstiness=value)
    number = int(value)
    if axis == "input":
        return dataclasses.replace(base, input=number)
    if axis == "output":
        return dataclasses.replace(base, output=number)
    if axis == "prefix":
        return dataclasses.replace(base, prefix=number)
    return dataclasses.replace(base, concurrency=number)


def runs_for(base: Load, offered: float) -> Load:
    """A trial of the search: long enough in time for a queue to show, never below the asked number."""
    return dataclasses.replace(base, rate=offered, num=max(base.num, math.ceil(offered * TRIAL_SECONDS)))


@dataclass
class Verdict:
    """Was a rate taken, and what was seen."""

    rate: float
    taken: bool
    attained: float | None
    why: str


@dataclass
class Saturation:
    """What the search found: the highest rate taken, the lowest that was not, and every trial."""

    taken: float | None = None
    refused: float | None = None
    end: str = ""
    trials: list[Verdict] = field(default_factory=list)


def judge(result: Result, offered: float, attain: float = ATTAIN) -> Verdict:
    """Enough requests within the SLO, and no queue that grows while requests still come."""
    data = result.data
    kept = data.get("slo")
    attained: float | None = None
    if isinstance(kept, dict) and kept["of"]:
        attained = kept["met"] / kept["of"]
    elif isinstance(data.get("request_goodput"), int | float) and data.get("num_prompts"):
        attained = data["request_goodput"] * data["duration"] / data["num_prompts"]  # a tool that gives goodput only
    if attained is None or attained < attain:
        seen = "no request counted" if attained is None else f"{percent(attained, 1)} within the SLO"
        return Verdict(offered, False, attained, f"{seen}, wanted {percent(attain)}")
    window = data.get("steady")
    if isinstance(window, dict):
        middle, last = window["under_way_middle"], window["under_way_last"]
        if last > GROWTH * middle + GROWTH_SLACK:
            return Verdict(offered, False, attained, f"the queue grows: {middle} under way midway, {last} at the end")
    return Verdict(offered, True, attained, f"{percent(attained, 1)} within the SLO")


def search(measure: Callable[[float], Result], start: float, attain: float, found: Saturation) -> None:
    """Double or halve from `start` until a taken and a refused rate are known, then halve the gap.

    Args:
        measure: makes the run at a rate.
        start: first rate.
        attain: share of requests that must meet the SLO.
        found: is filled step by step, so that an exception leaves what was learnt.
    """
    offered = start
    while len(found.trials) < MOST_RUNS:
        result = measure(offered)
        if result.interrupted or result.died:
            found.end = result.died or "interrupted"
            return
        if not result.valid:
            found.end = f"the generator does not keep up at {offered:g} req/s: the limit above it is the client's"
            return
        verdict = judge(result, offered, attain)
        found.trials.append(verdict)
        if verdict.taken:
            found.taken = max(offered, found.taken or 0.0)
        else:
            found.refused = min(offered, found.refused or math.inf)
        if found.taken and found.refused and found.refused <= CLOSE * found.taken:
            found.end = f"known within {percent(found.refused / found.taken - 1)}"
            return
        if not found.refused:
            offered *= 2
        elif not found.taken:
            offered /= 2
        else:
            offered = math.sqrt(found.taken * found.refused)
    found.end = f"stopped after {MOST_RUNS} runs"
