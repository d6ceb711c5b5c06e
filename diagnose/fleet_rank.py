"""Nodes side by side: readings that stand apart from their like, settings that are mixed, who is to be looked at first.

Nodes are compared within one kind of hardware (models and number of GPUs), from four nodes on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from statistics import median

from . import __version__
from .audit import MOMENT, STABLE
from .catalogue import catalogue
from .checks import load
from .emit import SEVERITY
from .fleet_models import CheckResult, Failed, Fleet, Mixed, Node, NodeResult, Outlier
from .models import Severity, Tool

LEAST = 4  # nodes of one kind from which a distribution says anything
FAR = 5.0  # deviations from the median, in units of a normal distribution's standard deviation …
FEW = 20.0  # … of many readings; of n it takes 1 + FEW / n times as many, as a deviation of few is little known
APART = 0.05  # and this share of the median: a counter that is all but constant has no deviation
NORMAL = 1.4826  # of a normal distribution, over its median absolute deviation
NORMAL_75 = 0.8693  # … over the third quartile of its absolute deviations, where more than half agree by chance
USUAL = 0.6  # share of nodes that makes a value the usual one
# What follows the work of the moment is compared among GPUs that work, or among those that rest.
WORKING = ("gpu.temperature", "gpu.temperature.headroom", "gpu.power", "gpu.clock.sm", "gpu.clock.mem")
NOT_COMPARED = (
    "gpu.util", "gpu.memory.used", "gpu.pcie.gen", "host.load", "host.memory.available", "host.gpu_nodes",
    "host.kernel.cmdline", "rdma.counter",
)  # fmt: skip
# Differences that mean nothing, however alike the others are: in the unit of the signal.
NOTHING = {
    "gpu.temperature": 5.0, "gpu.temperature.headroom": 5.0, "gpu.power": 25.0, "gpu.pcie.replays": 10.0,
    "gpu.ecc.corrected": 10.0, "nvlink.errors": 10.0, "clock.offset": 1e-3, "host.cpu.throttled": 10.0,
}  # fmt: skip
# Less of it makes a node the slow one; clocks only at work, as a resting GPU lowers them by itself.
SLOW_BELOW = (
    "gpu.clock.sm", "gpu.clock.mem", "gpu.clock.sm.max", "gpu.clock.mem.max", "gpu.clock.app", "gpu.power.limit",
    "gpu.pcie.width", "gpu.pcie.width.max", "gpu.pcie.gen.max", "nvlink.links", "nvlink.rate", "rdma.port.rate",
    "net.interface.rate", "host.cpu.count", "host.cpu.quota",
)  # fmt: skip
_OWN = re.compile(r"RANK|SLURM|MASTER|NODE|HOST|_ID\b|KUBERNETES|VISIBLE|PID|ADDR|PORT|DIR|PATH|FILE", re.IGNORECASE)


def compare(nodes: Iterable[Node], failed: list[Failed], wanted: list[str]) -> Fleet:
    """Merge and rank."""
    kept = sorted(nodes, key=lambda n: n.name)
    groups: dict[str, list[Node]] = {}
    for one in kept:
        groups.setdefault(one.hardware, []).append(one)
    far = [o for name, members in sorted(groups.items()) for o in outliers(name, members)]
    mixtures = mixed(None, kept)
    for name, members in sorted(groups.items()):
        mixtures += mixed(name, members)
    count = Counter(o.node for o in far)
    results = [
        NodeResult(
            name=n.name, hardware=n.hardware, findings=n.findings, outliers=count[n.name],
            worst=max(n.findings.values(), key=SEVERITY.__getitem__, default=None),
        )
        for n in kept
    ]  # fmt: skip
    results.sort(key=lambda r: (*(-x for x in _weight(r)), r.name))
    there = {n.name for n in kept} | {f.name for f in failed}
    return Fleet(
        tool=Tool(version=__version__, catalogue=catalogue().version), nodes=results, checks=by_check(kept),
        outliers=far, slow=[n for n, _ in Counter(o.node for o in far if o.slow).most_common()], mixed=mixtures,
        missing=[w for w in wanted if w not in there], failed=sorted(failed, key=lambda f: f.name),
    )  # fmt: skip


def _weight(result: NodeResult) -> tuple[int, int, int, int]:
    found = Counter(result.findings.values())
    return found["high"], found["medium"], result.outliers, found["low"]


def by_check(nodes: Iterable[Node]) -> list[CheckResult]:
    """Findings by check, the most severe and the most frequent first."""
    where: dict[tuple[str, Severity], list[Node]] = {}
    for one in nodes:
        for check, severity in one.findings.items():
            where.setdefault((check, severity), []).append(one)
    _, known = load()
    out = []
    for (check, severity), found in where.items():
        item = known.get(check)
        title, fix = (item.title, item.fix) if item else ((check, check), ("", ""))
        out.append(
            CheckResult(check=check, severity=severity, nodes=[n.name for n in found],
                        title=dict(zip(("en", "zh"), title, strict=True)),
                        fix=dict(zip(("en", "zh"), fix, strict=True)),
                        where={n.name: n.where[check] for n in found if check in n.where})
        )  # fmt: skip
    return sorted(out, key=lambda c: (-SEVERITY[c.severity], -len(c.nodes), c.check))


# --- readings that stand apart

_Row = tuple[float, Node, str, str | None]


def outliers(hardware: str, nodes: list[Node]) -> list[Outlier]:
    """Readings far from the median of all like them: the same signal, and the same label where it is no GPU's."""
    if len(nodes) < LEAST:
        return []
    out = []
    for (signal, kind), rows in sorted(_samples(nodes).items()):
        if len({n.name for _, n, *_ in rows}) >= LEAST:
            out += _apart(hardware, signal, kind, rows)
    return sorted(out, key=lambda o: (-(o.deviations or float("inf")), o.signal, o.node, o.subject))


def _samples(nodes: list[Node]) -> dict[tuple[str, str], list[_Row]]:
    """Numeric readings by signal and what they are of."""
    samples: dict[tuple[str, str], list[_Row]] = {}
    for one in nodes:
        busy = {
            s: v >= 0.5 for (n, s), (v, _) in one.readings.items() if n == "gpu.util" and isinstance(v, (int, float))
        }
        for (signal, subject), (value, unit) in one.readings.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or signal in NOT_COMPARED:
                continue
            kind = re.sub(r"\b(?:gpu|peer|nic|rank|host) \S+ ?", "", subject)
            if signal in WORKING:
                gpu = re.match(r"gpu \d+", subject)
                kind += " at work" if busy.get(gpu[0] if gpu else "", False) else " at rest"
            samples.setdefault((signal, kind), []).append((float(value), one, subject, unit))
    return samples


def _apart(hardware: str, signal: str, kind: str, rows: list[_Row]) -> list[Outlier]:
    middle = median(v for v, *_ in rows)
    away = sorted(abs(v - middle) for v, *_ in rows)
    scale, deviation, name = NORMAL, median(away), "MAD"
    if not deviation and signal in MOMENT:  # a setting that all but one share has none; a reading of the moment has
        scale, deviation, name = NORMAL_75, away[int(0.75 * (len(away) - 1))], "Q3"
    spread, needed = scale * deviation, FAR * (1 + FEW / len(rows))
    least = max(needed * spread, APART * abs(middle), NOTHING.get(signal, 0.0))
    out = []
    for value, one, subject, unit in rows:
        apart = abs(value - middle)
        if apart <= least:
            continue
        told = f"|{value:g} - {middle:g}|" + (f" / ({scale:g} x {name} {deviation:g})" if spread else "")
        out.append(
            Outlier(
                node=one.name, hardware=hardware, signal=signal, subject=subject, value=value, unit=unit,
                median=middle, deviations=round(apart / spread, 1) if spread else None,
                needed=round(needed, 1) if spread else None, formula=told, compared=len(rows),
                slow=signal in SLOW_BELOW and value < middle and not kind.endswith("at rest"),
            )
        )  # fmt: skip
    return out


# --- settings that are mixed


def mixed(hardware: str | None, nodes: list[Node]) -> list[Mixed]:
    """Settings that most nodes share; those of GPUs within one kind of hardware, all others over the fleet."""
    if len(nodes) < 2:
        return []
    values: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in nodes:
        for (signal, subject), (value, _) in one.readings.items():
            of_gpu = subject.startswith("gpu ") or signal.startswith(("gpu.", "topo.", "nvlink."))
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if signal not in STABLE or signal in NOT_COMPARED or of_gpu == (hardware is None):
                continue
            if numeric or (signal == "env.var" and _OWN.search(subject)):
                continue
            values.setdefault((signal, subject), {}).setdefault(str(value), []).append(one.name)
    out = []
    for (signal, subject), seen in sorted(values.items()):
        known = sum(map(len, seen.values()))
        if signal == "env.var" and known < len(nodes):
            have = {n for names in seen.values() for n in names}
            seen["(not set)"] = [n.name for n in nodes if n.name not in have]
            known = len(nodes)
        usual, most = max(seen.items(), key=lambda kv: (len(kv[1]), kv[0]))
        if len(seen) > 1 and (len(most) >= USUAL * known or signal in ("version", "host.kernel", "host.container")):
            others = {v: names for v, names in sorted(seen.items()) if v != usual}
            out.append(
                Mixed(hardware=hardware, signal=signal, subject=subject, usual=usual, nodes=len(most), others=others)
            )
    return out


assert set(WORKING) <= {*MOMENT, *STABLE}
