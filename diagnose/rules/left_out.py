"""What an image or a filter leaves out: the verbs provider of a device that is there, a protocol the fabric needs."""

from __future__ import annotations

from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .nccl_facts import text_of

# ---------------------------------------------------------------- userspace drivers


def _device_files(ctx: Context) -> list[Evidence]:
    """Verbs device files or devices of the kernel that this place can see."""
    named = [e for e in ctx.of("rdma.device_nodes") if "uverbs" in text_of(e)]
    return [*named, *ctx.of("rdma.mark.verbs_files"), *ctx.of("rdma.port.state")]


# What only comes about with a userspace driver; the library also warns of providers that nobody needs.
_VERBS_WORK = ("nccl.ib.devices", "rdma.perftest.bw", "ucx.perftest.bw")


def provider_left_out(ctx: Context) -> Outcome:
    """The device is here and its userspace driver is not: the verbs library says so, or the package is missing."""
    said, missing = ctx.of("rdma.mark.no_userspace_driver"), ctx.of("rdma.mark.provider_missing")
    if not (said or missing) or any(ctx.of(s) for s in _VERBS_WORK):
        return UNKNOWN
    files = _device_files(ctx)
    if not said and not files:
        return UNKNOWN
    return Outcome(True, (*missing[:1], *said[:1], *files[:1]))


# ---------------------------------------------------------------- protocols


def group_admits_tcp_only(ctx: Context) -> Outcome:
    """EFA needs every protocol between members of one group, in and out; no rule shown admits that."""
    rules = ctx.of("net.group_rule")
    wanted = ctx.of("net.mark.efa_in_use")
    if not rules or not wanted or ctx.of("nccl_tests.busbw"):  # what was measured passed the filter
        return UNKNOWN
    whole = [e for e in rules if text_of(e) in ("-1", "all") and e.subject.label == "group"]
    return Outcome(not whole, (rules[0], *wanted[:1], *ctx.of("net.mark.test_hangs")[:1]))


def list_drops_roce(ctx: Context) -> Outcome:
    """A filter drops UDP, on which RoCE travels, by a rule or by default; an RDMA test or its port is in evidence."""
    drops = [e for e in ctx.of("net.mark.acl_deny") if "udp" in (e.quote or text_of(e)).lower()]
    used = [*ctx.of("net.mark.roce_port"), *ctx.of("rdma.mark.tool")]
    admitted = ctx.of("net.mark.admits")
    if admitted and not any("udp" in (e.quote or "").lower() for e in admitted):
        drops += ctx.of("net.mark.default_drop")
    return Outcome(True, (drops[0], used[0])) if drops and used and not ctx.of("rdma.perftest.bw") else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule for rule in (provider_left_out, group_admits_tcp_only, list_drops_roce)
}
