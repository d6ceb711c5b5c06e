"""What is past or was never meant: a refusal that was granted since, an old failure, a port of another network."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .nccl_facts import text_of

# ---------------------------------------------------------------- the scheduler

_BY_SCHEDULER = regex(r"Insufficient|untolerated|infeasible|unsatisfiable|placement group", re.I)
_POD = regex(r"\bpod/([\w.-]+)", re.I)


def gpus_granted_since(ctx: Context) -> Outcome:
    """The scheduler refused at first, and the same pod was given its node afterwards."""
    refused, granted = ctx.of("env.mark.unschedulable"), ctx.of("env.mark.granted")
    if not refused or not granted or any(not _BY_SCHEDULER.search(str(e.value)) for e in refused):
        return UNKNOWN
    last = max((s for e in refused for s in e.spans), key=lambda s: (s.capture, s.line))
    pods = {name for e in refused for s in e.spans for name in _POD.findall(s.quote)}
    for item in granted:
        for span in item.spans:
            runs = "running" in str(item.value).lower()  # a running pod has its node, wherever that is printed
            if span.capture != last.capture or (not runs and span.line < last.line):
                continue
            if len(pods) <= 1 and all(re.search(rf"(?<![\w.-]){re.escape(p)}(?![\w.-])", span.quote) for p in pods):
                return Outcome(True, (item, refused[0]))
    return Outcome(False, (refused[0], granted[0]))


_OF_A_POD = regex(r"\breason\W+OOMKilled|^OOMKilled$", re.I)
_RESTARTS = 2.0  # more than these are a habit


def killed_before_this_run(ctx: Context) -> Outcome:
    """A container was killed, once or twice, before the run that is asked about began; it has run since."""
    kills = ctx.of("host.mark.oomkilled")
    runs = [e for e in ctx.of("env.mark.granted") if "running" in str(e.value).lower()]
    again = ctx.numbers("env.mark.restarts")
    if not kills or not runs or not again or not ctx.asks(*_SERVED):
        return UNKNOWN
    known = all(_OF_A_POD.search(str(e.value)) for e in kills) and not ctx.of("host.oom_kill")
    return Outcome(known and all(v <= _RESTARTS for v, _ in again), (kills[0], runs[0], again[0][1]))


_SERVED = ("high-p99", "high-ttft", "bad-tpot", "low-throughput")


def mps_serves_one(ctx: Context) -> Outcome:
    """A server for sharing runs on the cards, and on each of them one process at most computes through it."""
    each: dict[object, int] = {}
    for item in ctx.of("gpu.process"):
        serves = "mps" in str(item.value).lower()
        each[item.subject.gpu] = each.get(item.subject.gpu, 0) + (not serves)
    marks = [e for e in ctx.of("gpu.mark.shared_gpu") if not re.search("mps", str(e.value), re.I)]
    return Outcome(not marks and max(each.values()) <= 1, tuple(ctx.of("gpu.process")[:2])) if each else UNKNOWN


# ---------------------------------------------------------------- ports that carry something else


def down_port_is_no_sibling(ctx: Context) -> Outcome:
    """Ports without link belong to another network than all active ones, and somebody switched them off."""
    layers = {e.subject.nic: str(e.value).lower() for e in ctx.of("rdma.port.layer")}
    physical = {e.subject.nic: str(e.value) for e in ctx.of("rdma.port.phys")}
    states: dict[str, list[Evidence]] = {"ACTIVE": [], "DOWN": []}
    for item in ctx.of("rdma.port.state"):
        states.setdefault(str(item.value), []).append(item)
    if not states["DOWN"] or not states["ACTIVE"] or len(states) > 2:
        return UNKNOWN
    elsewhere = [e for e in ctx.of("net.mark.link_down") if not re.match(r"(?:physical )?state", text_of(e), re.I)]
    used = {layers.get(e.subject.nic, "") for e in states["ACTIVE"]}
    apart = all(
        layers.get(e.subject.nic, "") not in {*used, ""} and physical.get(e.subject.nic) == "DISABLED"
        for e in states["DOWN"]
    )
    return Outcome(apart and "" not in used and not elsewhere, (states["DOWN"][0], states["ACTIVE"][0]))


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    gpus_granted_since,
    killed_before_this_run,
    mps_serves_one,
    down_port_is_no_sibling,
)
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
