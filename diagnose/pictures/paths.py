"""Data paths: the same stations whether a machine's checks or a report's evidence says what is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..models import Evidence, Report
from .flow import Hop, Picture, chain, draw
from .plot import figure
from .svg import Drawing
from .words import say


@dataclass(frozen=True)
class Known:
    """What is known of a station: is it there, what says so, what it can do at most."""

    has: bool | None = None
    evidence: str = ""
    limit: str = ""
    ids: tuple[str, ...] = ()


# key -> name in English, in Chinese; where no check decides: why it is always there, in both languages
_NAMES = {
    "gpu": ("GPU memory", "GPU 显存"), "kernel": ("GPU kernel", "GPU kernel"),
    "pinned": ("pinned host buffer", "锁页主机缓冲区"), "tcp": ("socket and kernel TCP", "socket 与内核 TCP"),
    "ethernet": ("Ethernet adapter", "以太网卡"), "peer": ("peer host", "对端主机"),
    "memlock": ("registered host memory", "已注册的主机内存"), "verbs_nodes": ("verbs device", "verbs 设备"),
    "rdma": ("RDMA adapter", "RDMA 网卡"), "gpudirect": ("peer memory or dma-buf", "peer memory 或 dma-buf"),
    "near_nic": ("one PCIe switch", "同一 PCIe 交换机"), "proxy": ("CPU proxy thread", "CPU 代理线程"),
    "gdrdrv": ("doorbell and queues in reach of the GPU (GDRCopy, GPUNetIO)",
               "GPU 可直接访问的 doorbell 与队列(GDRCopy、GPUNetIO)"),
    "driven_nic": ("adapter that a GPU can drive", "可由 GPU 驱动的网卡"),
    "vllm": ("engine: prefill worker", "引擎:prefill worker"),
    "dynamo": ("router (Dynamo, LMCache)", "路由(Dynamo、LMCache)"), "nixl": ("NIXL", "NIXL"), "ucx": ("UCX", "UCX"),
    "ucx_verbs": ("RDMA below UCX", "UCX 下的 RDMA"), "ucx_cuda": ("GPU memory below UCX", "UCX 下的显存"),
}  # fmt: skip
_ALWAYS = {
    "pinned": ("a copy by the GPU's copy engine", "由 GPU 的 copy engine 拷贝"),
    "tcp": ("a copy by a core, then segments, interrupts and acknowledgements", "由 CPU 核拷贝,再有分段、中断与确认"),
    "ethernet": ("any interface carries TCP", "任何网络接口都能走 TCP"),
    "proxy": ("a core that waits for the GPU, posts and polls", "一个 CPU 核等待 GPU,再下发并轮询"),
}  # fmt: skip
_CHECK = {"kernel": "gpu"}
_TITLES = {
    "tcp": ("TCP: every byte passes the CPU twice on each side", "TCP:每个字节在两端各经过 CPU 两次"),
    "rdma": ("RDMA: the adapter reads and writes registered host memory", "RDMA:网卡直接读写已注册的主机内存"),
    "gpudirect": ("GPUDirect RDMA: the adapter reads and writes GPU memory, no host buffer",
                  "GPUDirect RDMA:网卡直接读写显存,不经主机缓冲区"),
    "control": ("Who posts a message: CPU-centric beside GPU-centric", "谁来下发消息:以 CPU 为中心与以 GPU 为中心"),
    "kv": ("KV cache from prefill to decode: engine, NIXL, UCX, wire",
           "KV cache 从 prefill 到 decode:引擎、NIXL、UCX、链路"),
}  # fmt: skip
_CHAINS = {
    "tcp": ("gpu", "pinned", "tcp", "ethernet", "peer"), "rdma": ("memlock", "verbs_nodes", "rdma", "peer"),
    "gpudirect": ("gpu", "gpudirect", "near_nic", "verbs_nodes", "rdma", "peer"),
}  # fmt: skip
_GRAPHS: dict[str, tuple[tuple[str, ...], tuple[tuple[int, int, str, str], ...]]] = {
    "control": (("kernel", "proxy", "rdma", "gdrdrv", "driven_nic", "peer"),
                ((0, 1, "CPU-centric: flag in host memory", "CPU 为中心:主机内存里的标志"),
                 (1, 2, "post, poll", "下发、轮询"),
                 (2, 5, "", ""), (0, 3, "GPU-centric: post, poll", "GPU 为中心:下发、轮询"),
                 (3, 4, "doorbell", "doorbell"), (4, 5, "", ""))),
    "kv": (("vllm", "dynamo", "nixl", "ucx", "ucx_verbs", "ucx_cuda", "rdma", "peer"),
           ((1, 0, "request", "请求"), (0, 2, "blocks as descriptors", "block 变为 descriptor"),
            (2, 3, "one transfer", "一次传输"), (3, 4, "between hosts", "主机之间"), (3, 5, "between GPUs", "GPU 之间"),
            (4, 6, "", ""), (6, 7, "", ""))),
}  # fmt: skip
NAMES = ("tcp", "rdma", "gpudirect", "control", "kv")


def picture(name: str, known: Callable[[str], Known], lang: str = "en") -> Picture:
    """One of `NAMES`, its stations as far as they are known."""
    zh = int(lang == "zh")

    def hop(key: str) -> Hop:
        got = known(_CHECK.get(key, key))
        if key == "pinned" and known("gpu").has is False:  # what is pinned is pinned for a GPU
            got = known("gpu")
        elif key in _ALWAYS and got.has is None:
            got = Known(True, _ALWAYS[key][zh], got.limit, got.ids)
        return Hop(_NAMES[key][zh], got.has, got.evidence, got.limit, got.ids)

    title = _TITLES[name][zh]
    if name in _CHAINS:
        return chain(title, [hop(key) for key in _CHAINS[name]])
    keys, edges = _GRAPHS[name]
    return Picture(title, [hop(key) for key in keys], [(a, b, (en, cn)[zh]) for a, b, en, cn in edges])


def ring(orders: list[tuple[str, str, str]], lang: str = "en") -> Picture | None:
    """The ring of NCCL's first channel: (ranks in order, what says so, its id) of every channel that differs."""
    if not orders:
        return None
    ranks, said, ident = orders[0]
    names = ranks.split()
    hops = [Hop(say(lang, "rank", r), True, said, ids=(ident,) if ident else ()) for r in names]
    edges = [(i, (i + 1) % len(names), "") for i in range(len(names))]
    return Picture(say(lang, "ring"), hops, edges, ring=True)


# --- from a report


_BENCH = (("shared memory", "shared memory", "shared_spread$"), ("GPU memory", "GPU 显存", "copy$|read_coalesced$"),
          ("GPU memory of a peer", "对端 GPU 显存", "peer_"), ("host memory, pinned", "主机内存(锁页)", "pinned_h2d_"),
          ("host memory, pageable", "主机内存(pageable)", "pageable_h2d_"))  # fmt: skip
_MOVEMENT = {
    "kv-transfer-slow": ("kv", "gpudirect"), "ucx-slow-path": ("kv", "rdma", "tcp"),
    "gpu-idle-network-busy": ("tcp", "rdma", "gpudirect"), "gpunetio-evaluation": ("control", "gpudirect"),
}  # fmt: skip
LEAST = 2  # stations of which something is known


def checks(report: Report) -> Mapping[str, Known]:
    """What a report's evidence says about stations; what it does not speak of is not known."""
    by: dict[str, list[Evidence]] = {}
    for item in report.evidence:
        by.setdefault(item.signal, []).append(item)
    return dict(_checks(by))


def _said(has: bool, *items: Evidence, limit: str = "") -> Known:
    return Known(has, "; ".join(dict.fromkeys(e.statement for e in items)), limit, tuple(e.id for e in items))


def _checks(by: dict[str, list[Evidence]]) -> Iterator[tuple[str, Known]]:
    def of(signal: str, pattern: str = "") -> list[Evidence]:
        return [e for e in by.get(signal, []) if re.search(pattern, str(e.value))]

    if names := of("gpu.name"):
        yield "gpu", _said(True, names[0])
    elif nodes := of("host.gpu_nodes", "^none$"):
        yield "gpu", _said(False, nodes[0])
    if up := of("rdma.port.state", "ACTIVE"):
        rates = [e for e in by.get("rdma.port.rate", []) if e.subject.nic == up[0].subject.nic]
        limit = f"{figure(float(rates[0].value))} Gb/s" if rates and isinstance(rates[0].value, int | float) else ""
        yield "rdma", _said(True, up[0], *rates[:1], limit=limit)
    elif none := [*of("rdma.none"), *of("rdma.port.state")]:
        yield "rdma", _said(False, none[0])
    if nodes := of("rdma.device_nodes"):
        yield "verbs_nodes", _said("uverbs" in str(nodes[0].value), nodes[0])
    if way := of("rdma.gpudirect"):
        yield "gpudirect", _said(way[0].value != "none", way[0])
    elif said := of("nccl.gdr"):
        yield "gpudirect", _said("Enabled" in str(said[0].value), said[0])
    if near := of("rdma.near", "PIX|PXB") or of("topo.gpu_nic", "^(PIX|PXB)$"):
        yield "near_nic", _said(True, near[0])
    elif near := of("rdma.near") or of("topo.gpu_nic"):
        yield "near_nic", _said(False, near[0])
    if locked := of("host.limit.memlock"):
        free = of("host.cap.ipc_lock", "True") or str(locked[0].value) == "unlimited"
        yield "memlock", _said(bool(free), locked[0], *of("host.cap.ipc_lock", "True")[:1])
    versions = {str(e.subject.label): e for e in by.get("version", [])}
    for key, labels in (("nixl", ("nixl",)), ("ucx", ("ucx",)), ("vllm", ("vllm", "sglang", "tensorrt-llm")),
                        ("dynamo", ("dynamo", "ai-dynamo", "lmcache"))):  # fmt: skip
        if found := next((versions[x] for x in labels if x in versions), None):
            yield key, _said(True, found)
    for key, label in (("ucx_verbs", "verbs"), ("ucx_cuda", "cuda")):
        if built := [e for e in by.get("ucx.build", []) if e.subject.label == label]:
            yield key, _said(not str(built[0].value).startswith(("without", "no")), built[0])
    if driven := [e for e in by.get("rdma.module", []) if e.subject.label == "gdrdrv"]:
        yield "gdrdrv", _said(True, driven[0])


def paths(report: Report, lang: str = "en") -> list[Drawing]:
    """Ring, memory and data paths that belong to the question, as far as the evidence says anything of them."""
    out = []
    orders = [(str(e.value), e.quote or e.statement, e.id) for e in report.evidence if e.signal == "nccl.ring"]
    if (circle := ring(orders, lang)) is not None:
        out.append(draw("ring", circle, lang))
    if (memory := measured_memory(report.evidence, lang)) is not None:
        out.append(draw("memory", memory, lang))
    if wanted := _MOVEMENT.get(report.playbook, ()):
        known = checks(report)
        for name in wanted:
            made = picture(name, lambda key: known.get(key, Known()), lang)
            if sum(bool(h.ids) for h in made.hops) >= LEAST:
                out.append(draw(name, made, lang))
    return [d for d in out if d is not None]


def measured_memory(evidence: list[Evidence], lang: str = "en") -> Picture | None:
    """The levels of memory as microbenchmarks of this GPU measured them; a figure above its limit is none."""
    limits = {e.subject.label: e for e in evidence if e.signal == "bench.limit.bandwidth"}
    names = [e for e in evidence if e.signal == "gpu.name"]
    hops = []
    for english, chinese, pattern in _BENCH:
        best: tuple[float, Evidence, float | None] | None = None
        for item in evidence:
            if item.signal != "bench.bandwidth" or not re.match(pattern, item.subject.label or ""):
                continue
            rate, top = _rate(item), _rate(limits.get(item.subject.label))
            if rate is not None and (top is None or rate <= top) and (best is None or rate > best[0]):
                best = rate, item, top
        if best is not None:
            rate, item, top = best
            said = f"{figure(rate)} GB/s" + (f"; {say(lang, 'limit', figure(top))}" if top is not None else "")
            name = chinese if lang == "zh" else english
            hops.append(Hop(name, True, item.statement, said, (item.id,), "measured"))
    if len(hops) < LEAST or not names:
        return None
    return chain(f"{say(lang, 'memory')}: {names[0].value}", hops)


def _rate(item: Evidence | None) -> float | None:
    return float(item.value) if item is not None and isinstance(item.value, int | float) else None
