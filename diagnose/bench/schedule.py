"""When requests are due: an absolute schedule, from one seed, made before the first one is sent."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Due:
    """Seconds from the start, and whether it still belongs to the ramp."""

    at: float
    ramp: bool


def schedule(num: int, rate: float, burstiness: float, ramp: float, rng: random.Random) -> list[Due]:
    """Due moments of `num` measured requests, behind those of the ramp.

    Gaps follow a gamma distribution of shape `burstiness`. They are scaled so that the measured ones fill exactly
    `num / rate` seconds: the rate that was asked for is the rate that is offered, whatever the draw. Over the ramp the
    rate rises in a line from nothing, which sends half as many requests as the full rate would.

    Args:
        num: requests that are measured.
        rate: requests a second; inf makes all due at once.
        burstiness: 1 Poisson, inf constant.
        ramp: seconds.
        rng: source of the gaps.
    """
    if math.isinf(rate):
        return [Due(0.0, False)] * num
    before = _counted(math.floor(rate * ramp / 2), burstiness, rng)
    due = [Due(math.sqrt(2 * ramp * u / rate), True) for u in before]
    return due + [Due(ramp + u / rate, False) for u in _counted(num, burstiness, rng)]


def _counted(num: int, burstiness: float, rng: random.Random) -> list[float]:
    """`num` rising values that end at `num`: arrivals in units of the mean gap."""
    if math.isinf(burstiness):
        return [float(i + 1) for i in range(num)]
    total, out = 0.0, []
    for _ in range(num):
        total += rng.gammavariate(burstiness, 1.0 / burstiness)
        out.append(total)
    return [u * num / total for u in out] if total > 0 else out
