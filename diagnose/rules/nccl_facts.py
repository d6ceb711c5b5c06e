"""What several rules about collectives share: variables that override, nodes that take part, values as text."""

from __future__ import annotations

import re

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import outcome

COLLECTIVE_QUESTIONS = (
    "slow-allreduce", "collective-hang", "training-slow", "gpu-idle-network-busy", "bad-tpot", "low-throughput",
    "gpu-underutilized", "high-ttft", "environment", "kv-transfer-slow", "copy-slow", "high-p99", "",
)  # fmt: skip
SPEED = ("slow-allreduce", "training-slow", "gpu-idle-network-busy", "bad-tpot", "low-throughput", "copy-slow",
          "gpu-underutilized", "kv-transfer-slow", "high-ttft", "high-p99")  # fmt: skip
PCIE_GPU = regex(
    r"GeForce|\bRTX\b|\bA(?:10|16|2|30|40)\b|\bA4000|\bA[456]000|\bL4\b|\bL40S?\b|PCIe|\bT4\b|TITAN|Quadro|\bP4\b|\bP40\b|\bM40\b"
    r"|\bGTX\b|\bT1000",
    re.IGNORECASE,
)
NO_P2P_GPU = regex(r"GeForce (?:RTX )?(?:[345]0[6-9]0|GTX|RTX [345]0[6-9]0)|RTX (?:40|50)[6-9]0", re.IGNORECASE)
MANY_NODES = regex(
    r"multi-?node|inter-?node|cross-?node|two .{0,20}(?:nodes|machines|hosts|servers)"
    r"|(?:two|2|three|3|four|4|eight|8|16|32|\d+) (?:nodes|machines|servers|hosts)"
    r"|across (?:nodes|machines)|between (?:nodes|machines)|cluster|跨机|跨节点|多机|双机|两台|多节点",
    re.IGNORECASE,
)
SWITCHES = ("NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_P2P_DIRECT_DISABLE")
CHANNEL_CAPS = ("NCCL_MAX_NCHANNELS", "NCCL_MAX_NRINGS", "NCCL_MAX_CTAS")
PREPARED = regex(r"NCCL_IB_(?:HCA|GID_INDEX|TC|SL|QPS|TIMEOUT)|FI_(?:PROVIDER|EFA)|NCCL_NET_GDR")
OFF = {"0", "false", "off", "no", "disable", "disabled", ""}


def text_of(item: Evidence) -> str:
    """A value as text, without quotes around it and a full stop behind it."""
    return str(item.value or "").strip().strip("'\"").rstrip(".")


def env(ctx: Context, name: str) -> list[Evidence]:
    """What a variable was set to, wherever it was seen; `name` in capitals."""
    return [e for e in ctx.of("env.var") if (e.subject.label or "").upper() == name]


def switched_on(item: Evidence) -> bool:
    """Is the value of a switch other than off, 0 or nothing?"""
    return text_of(item).lower() not in OFF


def several_nodes(ctx: Context) -> Evidence | bool | None:
    """Evidence that more than one node takes part; True where only the question says so; None if not."""
    for signal in ("nccl.nnodes", "nccl_tests.hosts", "launch.hosts"):
        for value, item in ctx.numbers(signal):
            if value > 1:
                return item
    for item in ctx.of("nccl.transport"):
        if text_of(item).startswith("NET/"):
            return item
    return True if MANY_NODES.search(ctx.symptom) else None


def one_node(ctx: Context) -> Outcome:
    """The log itself says that there is one node, so the network does not matter."""
    nodes = ctx.numbers("nccl.nnodes")
    if not nodes or any(e for e in ctx.of("nccl.transport") if text_of(e).startswith("NET/")):
        return UNKNOWN
    return Outcome(all(v == 1 for v, _ in nodes), tuple(e for _, e in nodes[:1]))


def rdma_wanted(ctx: Context) -> Outcome:
    """Somebody prepared RDMA: HCAs named, RDMA variables set, verbs devices or EFA listed."""
    named = [
        e for e in ctx.of("env.var")
        if PREPARED.match((e.subject.label or "").upper())
        or ((e.subject.label or "").upper() == "NCCL_IB_DISABLE" and not switched_on(e))
    ]  # fmt: skip
    listed = [*ctx.of("rdma.device"), *ctx.of("rdma.port"), *ctx.of("topo.gpu_nic"), *ctx.of("rdma.mark.granted")]
    return outcome([*named[:3], *listed[:2]])


def overrides(ctx: Context) -> list[Evidence]:
    """Variables that forbid or force what NCCL would have chosen itself."""
    out: list[Evidence] = []
    for item in ctx.of("env.var"):
        name, value = (item.subject.label or "").upper(), text_of(item)
        low = value.lower()
        number = int(low) if low.lstrip("-").isdigit() else None
        if (
            (name in SWITCHES and switched_on(item))
            or (name in ("NCCL_P2P_LEVEL", "NCCL_NET_GDR_LEVEL") and (low == "loc" or number == 0))
            or (name == "NCCL_NET" and low == "socket")
            or (name == "NCCL_NET_PLUGIN" and low in ("none", "socket"))
            or (name == "NCCL_SOCKET_IFNAME" and re.match(r"=?(?:lo|docker|virbr|br-|wl|tailscale)", low))
            or (name in ("NCCL_ALGO", "NCCL_PROTO") and low not in ("", "^ll128"))
            or (name in CHANNEL_CAPS and number is not None and number <= 4)
            or (name == "NCCL_NTHREADS" and number is not None and number < 256)
            or (name == "NCCL_P2P_USE_CUDA_MEMCPY" and switched_on(item))
            or (name == "NCCL_BUFFSIZE" and number is not None and number < 1 << 20)
            or (name in ("NCCL_TOPO_FILE", "NCCL_GRAPH_FILE", "NCCL_RINGS") and low not in ("", "/dev/null"))
            or (name == "NCCL_IB_PCI_RELAXED_ORDERING" and number == 0)
            or (name == "NCCL_NET_GDR_READ" and number == 0)
        ):  # fmt: skip
            out.append(item)
    return out
