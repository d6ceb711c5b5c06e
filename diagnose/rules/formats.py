"""Rules over the formats that belong to no family: NCCL RAS."""

from __future__ import annotations

from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest


def ras_ranks_diverge(ctx: Context) -> Outcome:
    """Two ranks are behind each other: one in one operation, the other in another.

    A late rank is behind in everything. Ranks that took different branches lag each in the operation that only the
    other one launched.
    """
    lags = [e for value, e in ctx.numbers("nccl.ras.lag") if value >= 1]
    if not lags:
        return UNKNOWN
    for a in lags:
        for b in lags:
            if a.subject.label != b.subject.label and a.subject.rank != b.subject.rank:
                return Outcome(True, (a, b))
    return Outcome(False, tuple(lags[:2]))


def cpus_few_for_gpus(ctx: Context) -> Outcome:
    """The container has no more CPUs than GPUs, although each GPU needs a process of its own."""
    quotas = [q for q in ctx.numbers("host.cpu.quota") if q[1].subject.label in ("pod", "container")]
    quotas += [
        (float(str(e.value)), e) for e in ctx.of("slurm.option", {"label": "^TRES cpu$"}) if str(e.value).isdigit()
    ]
    asked = [*ctx.of("container.gpus"), *ctx.of("slurm.option", {"label": "^TRES gres/gpu$"})]
    gpus = [(int(str(e.value)), e) for e in asked if str(e.value).isdigit()]
    if not quotas or not gpus:
        return UNKNOWN
    quota, count = lowest(quotas), highest(gpus)
    return Outcome(quota[0] <= count[0], (quota[1], count[1]))


def named_interface_unusable(ctx: Context) -> Outcome:
    """NCCL or Gloo is given an interface that the list of interfaces shows as down, or does not show at all."""
    shown = ctx.of("net.interface.state")
    names = [e for e in ctx.of("env.var") if e.subject.label in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")]
    if not shown or not names:
        return UNKNOWN
    states: dict[str, str] = {e.subject.nic or "": str(e.value) for e in shown}
    for item in names:
        wanted = str(item.value).strip("\"' ")
        if not wanted or wanted.startswith("^"):
            continue
        exact, stems = wanted.startswith("="), tuple(wanted.lstrip("=").split(","))
        met = [nic for nic in states if (nic in stems if exact else nic.startswith(stems))]
        down = all(states[nic] != "UP" and states[nic] != "UNKNOWN" for nic in met)
        if down and (met or ("lo" in states and "UP" in states.values())):
            seen = [e for e in shown if e.subject.nic in met] or shown
            return Outcome(True, (item, seen[0]))
    return Outcome(False, (names[0], shown[0]))


RULES = {
    "named_interface_unusable": named_interface_unusable,
    "cpus_few_for_gpus": cpus_few_for_gpus,
    "ras_ranks_diverge": ras_ranks_diverge,
}
