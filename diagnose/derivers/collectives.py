"""Derived facts of the collectives family: what a log says of the path, beside what the counters say."""

from __future__ import annotations

from collections.abc import Iterable

from ..derive import Deriver
from ..models import Fact, Subject


def _by_log(value: str, nvlink: bool | None) -> set[str]:
    """Counted paths that a transport of NCCL's log can take; `nvlink` is what the matrix says of the pairs."""
    if value.startswith("NET/Socket"):
        return {"nic"}
    if value.startswith("NET/"):
        return {"ib"}
    if value.startswith("SHM"):
        return {"pcie"}
    if value.startswith(("P2P", "NVLS")):
        return {"nvlink", "pcie"} if nvlink is None else {"nvlink"} if nvlink else {"pcie"}
    return set()


def agreement(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """`path.agreement`: does the path that carried the bytes agree with the log, and with the matrix?"""
    carried = [f for f in facts if f.signal == "path.carried"]
    transports = [f for f in facts if f.signal == "nccl.transport"]
    if len(carried) != 1 or not transports:
        return
    links = [str(f.value) for f in facts if f.signal == "topo.link"]
    nvlink = all(v.startswith("NV") for v in links) if links else None
    said: dict[str, Fact] = {}
    allowed: set[str] = set()
    for item in transports:
        found = _by_log(str(item.value), nvlink)
        allowed |= found
        if found:
            said.setdefault(
                str(item.value).partition("/")[0] if "NET" not in str(item.value) else str(item.value), item
            )
    paths = {name.split()[0] for name in str(carried[0].value).split(" + ")}
    if not allowed or not paths & {"nvlink", "pcie", "nic", "ib"}:
        return
    # bytes that leave over the network cross PCIe too, so PCIe beside the path that the log names is no contradiction
    others = paths - {"pcie"} or paths
    words = "agree" if others <= allowed else "disagree"
    log = ", ".join(sorted(said))
    yield Fact(
        "path.agreement", words, None, Subject(label=f"log {log}; counters {carried[0].value}"), kind="derived",
        formula="reader:path_agreement", inputs=(carried[0], *list(said.values())[:3]), status=carried[0].status,
        statement=f"NCCL's log names {log}, the counters show {carried[0].value}: they {words}",
    )  # fmt: skip


def moved(facts: list[Fact], recognised: dict[str, bool]) -> Iterable[Fact]:
    """`nvlink.moved`: what the links of a GPU carried between two readings of their counters."""
    readings: dict[tuple[int | None, str], list[Fact]] = {}
    for fact in facts:
        if fact.signal == "nvlink.data":
            way = (fact.subject.label or "").partition(",")[0]
            readings.setdefault((fact.subject.gpu, way), []).append(fact)
    for (gpu, way), got in readings.items():
        if len(got) == 2:
            low, high = sorted(got, key=lambda f: float(f.value or 0))
            yield Fact(
                "nvlink.moved", float(high.value or 0) - float(low.value or 0), "B", Subject(gpu=gpu, label=way),
                kind="derived", formula="a - b", inputs=(high, low), status=high.status,
            )  # fmt: skip


DERIVERS: list[Deriver] = [agreement, moved]
