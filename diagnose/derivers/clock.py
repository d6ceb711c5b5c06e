"""Series of different tools on one clock: was the GPU idle while the network was busy, and what else happened then."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean, median

from ..derive import Deriver
from ..models import Fact, Subject
from ..units import percent

IDLE = 0.3  # of a GPU's time: below it does not compute
BUSY = 0.5  # of the highest rate seen: above it the network is at work
QUIET = 0.05  # GB/s: a network that never carries more is not busy
EPOCH = 1e8  # a time above this counts from 1970
LEAST = 4  # moments that both have
NETWORK = ("net", "ib")
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One series."""

    fact: Fact
    role: str
    points: Points

    def at(self, when: float, reach: float) -> float | None:
        """The value nearest to a moment, or None where none is within reach."""
        i = bisect_left(self.points, (when, float("-inf")))
        near = min(self.points[max(0, i - 1) : i + 1], key=lambda p: abs(p[0] - when), default=None)
        return near[1] if near is not None and abs(near[0] - when) <= reach else None


def _day(facts: list[Fact]) -> float | None:
    """Seconds between 1970 and the midnight that the host's table counts from; None without such a table."""
    zero = next((float(f.value or 0) for f in facts if f.signal == "clock.epoch"), None)
    begin = next((str(f.value).split(":") for f in facts if f.signal == "clock.begin"), None)
    if zero is None or begin is None:
        return None
    return zero - (int(begin[0]) * 3600 + int(begin[1]) * 60 + float(begin[2]))


def _lines(facts: list[Fact]) -> dict[str, list[Line]]:
    out: dict[str, list[Line]] = {}
    midnight = _day(facts)
    for fact in facts:
        if fact.signal == "clock.series":
            role = fact.subject.label or ""
            points = [(float(t), float(v)) for t, v in json.loads(str(fact.value))]
            if points and points[0][0] > EPOCH and midnight is not None:
                points = [(t - midnight, v) for t, v in points]
            out.setdefault(role, []).append(Line(fact, role, points))
    return out


def _reach(lines: Iterable[Line]) -> float:
    steps = [b[0] - a[0] for line in lines for a, b in pairwise(line.points)]
    return max(steps, default=0.0)


def _over(lines: list[Line], moments: list[float], how: str) -> list[float | None]:
    """Mean or sum of several series at given moments."""
    reach = _reach(lines)
    out: list[float | None] = []
    for when in moments:
        got = [v for line in lines if (v := line.at(when, reach)) is not None]
        out.append(None if not got else fmean(got) if how == "mean" else max(got) if how == "max" else sum(got))
    return out


def pearson(one: list[float], two: list[float]) -> float | None:
    """Correlation; None where one of them does not move."""
    a, b = fmean(one), fmean(two)
    spread = sqrt(sum((x - a) ** 2 for x in one) * sum((y - b) ** 2 for y in two))
    return sum((x - a) * (y - b) for x, y in zip(one, two, strict=True)) / spread if spread > 1e-12 else None


def lag(one: list[float], two: list[float], most: int) -> tuple[int, float] | None:
    """Samples by which `two` follows `one`, and the correlation there: the strongest, of equal ones the shortest."""
    best: tuple[int, float] | None = None
    for shift in sorted(range(-most, most + 1), key=abs):
        pairs = [(one[i], two[i + shift]) for i in range(len(one)) if 0 <= i + shift < len(two)]
        if len(pairs) < LEAST:
            continue
        r = pearson([p[0] for p in pairs], [p[1] for p in pairs])
        if r is not None and (best is None or abs(r) > abs(best[1]) + 0.05):
            best = shift, r
    return best


def _fact(signal: str, value: float | str, unit: str | None, inputs: list[Line], who: Subject, statement: str) -> Fact:
    used = tuple(line.fact for line in inputs)[:8]
    return Fact(signal, value, unit, who, kind="derived", formula="reader:clock", inputs=used, status=used[0].status,
                statement=statement)  # fmt: skip


def clock(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """`clock.*`: shares, correlation, and what went with it."""
    lines = _lines(facts)
    # a trace knows better than the driver, for which a collective that waits is work
    gpus, wires = (
        lines.get("compute") or lines.get("gpu", []),
        [line for role in NETWORK for line in lines.get(role, [])],
    )
    yield from _waits(lines.get("wait", []))
    if not wires:
        return
    moments = sorted({t for line in gpus or wires for t, _ in line.points})
    busy, carried = _over(gpus, moments, "mean"), _over(wires, moments, "sum")
    kept = [
        (t, g, n)
        for t, g, n in zip(moments, busy, carried, strict=True)
        if n is not None and (g is not None or not gpus)
    ]
    if len(kept) < LEAST:
        if gpus:
            yield _fact("clock.unaligned", "no moment in common", None, [gpus[0], wires[0]], Subject(),
                        "GPU and network share no moment: clocks differ, or they were taken apart")  # fmt: skip
        return
    times, rates = [k[0] for k in kept], [k[2] for k in kept]
    peak = max(rates)
    working = [n >= BUSY * peak and peak >= QUIET for n in rates]
    share = sum(working) / len(working)
    nobody = Subject()
    if any(working):
        mean = fmean(n for n, w in zip(rates, working, strict=True) if w)
        told = f"the network is at work in {percent(share)} of the time"
        yield _fact("clock.net_busy", share, "fraction", wires, nobody, told)
        yield _fact("clock.net_rate", mean, "GB/s", wires, nobody, f"it then carries {mean:.3g} GB/s")
        yield from _of_link(facts, wires, mean)
    if gpus:
        used = [g for _, g, _ in kept if g is not None]
        yield from _beside(gpus, wires, times, used, rates, working)
    yield from _companions(lines, wires, times, rates, working)


def _beside(
    gpus: list[Line], wires: list[Line], times: list[float], used: list[float], rates: list[float], working: list[bool]
) -> Iterator[Fact]:
    both, nobody, mean = [gpus[0], wires[0]], Subject(), fmean(used)
    yield _fact("clock.gpu_busy", mean, "fraction", gpus, nobody, f"the GPUs are busy {percent(mean)} of the time")
    if not any(working):
        return
    idle = fmean(float(g < IDLE) for g, w in zip(used, working, strict=True) if w)
    yield _fact("clock.idle_in_net", idle, "fraction", both, nobody,
                f"while the network is at work the GPUs are idle in {percent(idle)} of the moments")  # fmt: skip
    r = pearson(used, rates)
    if r is not None:
        yield _fact("clock.correlation", r, "count", both, nobody, f"GPU and network go together with r = {r:.2f}")
    found = lag(used, rates, min(5, len(used) // 3))
    step = median(b - a for a, b in pairwise(times)) if len(times) > 1 else 0.0
    if found is not None and abs(found[1]) >= 0.5 and found[0]:
        yield _fact("clock.lag", found[0] * step, "s", both, nobody,
                    f"the network follows the GPU after {found[0] * step:g} s (r = {found[1]:.2f})")  # fmt: skip


def _of_link(facts: list[Fact], wires: list[Line], mean: float) -> Iterator[Fact]:
    """Rate over the speed of the links that carry it, where those are known."""
    speeds = {f.subject.nic: f for f in facts if f.signal in ("net.speed", "rdma.port.rate") and f.unit == "Gb/s"}
    alive = [line for line in wires if max(v for _, v in line.points) >= QUIET]
    known = [
        speeds.get(line.fact.subject.nic) or speeds.get((line.fact.subject.nic or "").partition("/")[0])
        for line in alive
    ]
    total = sum(float(f.value or 0) for f in known if f is not None) / 8
    if alive and all(known) and total > 0:
        value = mean / total
        yield Fact("clock.net_of_link", value, "fraction", kind="derived", formula="reader:clock",
                   inputs=(*(line.fact for line in alive), *(f for f in known if f is not None)),
                   status=alive[0].fact.status, statement=f"that is {percent(value)} of the links' speed")  # fmt: skip


def _companions(
    lines: dict[str, list[Line]], wires: list[Line], times: list[float], rates: list[float], working: list[bool]
) -> Iterator[Fact]:
    """What else was counted in the moments in which the network worked."""
    nobody = Subject()
    when = [t for t, w in zip(times, working, strict=True) if w] or times
    carried = fmean([n for n, w in zip(rates, working, strict=True) if w] or rates)

    def mean(role: str, how: str) -> float | None:
        got = [v for v in _over(lines.get(role, []), when, how) if v is not None]
        return fmean(got) if got else None

    again = mean("retransmits", "sum")
    if again is not None:
        said = lines["retransmits"]
        yield _fact(
            "clock.retransmits", again, "count", said, nobody, f"{again:.0f} retransmissions a second meanwhile"
        )
        of = mean("segments", "sum") or mean("packets", "sum")
        if of:
            yield _fact("clock.retransmit_share", again / of, "fraction", [*said, *lines.get("segments", [])], nobody,
                        f"{percent(again / of, 2)} of what is sent is sent again")  # fmt: skip
    size, number = mean("size", "mean"), mean("transfers", "sum")
    if size is None and number:
        size = carried * 1e9 / number
    if size is not None:
        said = [*lines.get("size", []), *lines.get("transfers", []), *wires]
        yield _fact("clock.transfer_size", size, "B", said, nobody, f"a transfer moves {size:.0f} bytes")
    packets = mean("packets", "sum")
    if packets and carried >= QUIET:
        yield _fact("clock.packet_size", carried * 1e9 / packets, "B", [*lines["packets"], *wires], nobody,
                    f"a packet holds {carried * 1e9 / packets:.0f} bytes")  # fmt: skip
    useful = mean("payload", "sum")
    if useful is not None and carried > 0 and useful <= 1.05 * carried:
        yield _fact("clock.payload_share", useful / carried, "fraction", [*lines["payload"], *wires], nobody,
                    f"{percent(useful / carried)} of the bytes on the wire are payload")  # fmt: skip
    for role, how, words in (
        ("core", "max", "the busiest core is used {}"),
        ("softirq", "max", "{} of a core goes to soft interrupts"),
        ("gap", "max", "threads are ready and have no CPU {} of the time"),
        ("exposed", "mean", "{} of the GPU's time passes in collectives alone"),
        ("unfed", "mean", "nothing runs on the GPU in {} of its time"),
    ):  # fmt: skip
        if (value := mean(role, how)) is not None:
            yield _fact(
                f"clock.{role}", value, "fraction", lines[role], nobody, words.format(percent(value)) + " meanwhile"
            )
    fast = [line for line in lines.get("ib", []) if line.points]
    plain = [line for line in lines.get("net", []) if line.points]
    if fast and plain:
        sums = [fmean(v for line in kind for _, v in line.points) for kind in (fast, plain)]
        if sum(sums) >= QUIET:
            value = sums[0] / sum(sums)
            yield _fact("clock.rdma_share", value, "fraction", [*fast, *plain], nobody,
                        f"{percent(value)} of the bytes go over RDMA ports, the rest over interfaces")  # fmt: skip


def _waits(lines: list[Line]) -> Iterator[Fact]:
    """How long each rank waits in collectives: the one that hardly waits is the one the others wait for."""
    means = {line.fact.subject.rank: fmean(v for _, v in line.points) for line in lines}
    for line in lines:
        who = Subject(rank=line.fact.subject.rank, label=line.fact.subject.nic)
        yield _fact("clock.wait", means[line.fact.subject.rank], "count", [line], who, "what is waited in collectives")
    if len(means) < 3 or None in means:
        return
    least = min(means, key=lambda rank: means[rank])
    others = median(v for rank, v in means.items() if rank != least)
    if others > 0:
        yield _fact("clock.wait_least", means[least] / others, "fraction", lines, Subject(rank=least),
                    f"rank {least} waits {percent(means[least] / others)} of what the others wait")  # fmt: skip


DERIVERS: list[Deriver] = [clock]
