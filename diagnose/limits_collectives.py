"""Ceilings of collectives: what this machine's links allow, for the ranks that took part.

Only the bandwidth regime is judged: a reading at a small size gets no ratio. Where the evidence
leaves two ceilings open (bridge or no bridge, switch or none), the lower one that the measurement
does not already exceed is taken, because an alarm must not rest on a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from . import floors, hardware
from .hardware import Gpu, Rate
from .lazy import regex
from .limits_base import TOLERANCE, Book, Product, capture, product
from .models import Evidence

NAMES = {
    "all_reduce": "all-reduce", "allreduce": "all-reduce", "all_gather": "all-gather", "allgather": "all-gather",
    "reduce_scatter": "reduce-scatter", "reducescatter": "reduce-scatter", "broadcast": "broadcast",
    "reduce": "reduce", "sendrecv": "sendrecv", "alltoall": "all-to-all", "all_to_all": "all-to-all",
    "gather": "gather", "scatter": "scatter",
}  # fmt: skip
_REDUCING = ("all-reduce", "collective")  # a table without its command may be an all-reduce
_LABEL = regex(r"^(?P<op>[a-z_]+) (?P<size>\d+) B\b")
_NVLINK = regex(r"^NV(\d+)$")
_SYSTEM = regex(r"totalBw ([\d.]+)")
_FAR = ("SYS", "NODE", "PHB", "PXB", "PIX")  # worst path first
REGIME_US = 1000.0  # an operation that takes this long is bound by bandwidth: start-up costs tens of us


@dataclass(frozen=True)
class Ceiling:
    """A ceiling in GB/s (None: not known), the links in words, and where the figure comes from."""

    value: float | None
    links: str
    source: tuple[Rate | str, ...] = ()
    reason: str | None = None
    used: tuple[Evidence, ...] = ()


def judge(book: Book) -> None:
    """Add a limit for the best reading of each collective in each capture."""
    for item in _best(book):
        label = item.subject.label or ""
        hit = _LABEL.match(label)
        op = NAMES.get(hit["op"], "") if hit else ""
        name = op or next((n for n in NAMES.values() if re.search(n.replace("-", "[-_ ]?"), label, re.I)), "collective")
        tested = {NAMES.get(str(e.value), "") for e in book.of("nccl_tests.collective")}
        if name == "collective" and len(tested) == 1:
            name = tested.pop() or name
        measured = float(item.value or 0)
        ranks, members = _ranks(book, item)
        ceiling = _ceiling(book, item, name, measured, ranks)
        what = f"{name} busbw"
        if ranks:
            what += f", {ranks} GPUs"
        if ceiling.links:
            what += f", {ceiling.links}"
        size = float(hit["size"]) if hit else 0.0
        reason, value = ceiling.reason, ceiling.value
        if value and size and not _filled(item):
            value, reason = None, "no size is large enough: latency still counts, and a ceiling would say nothing"
        if value is None:
            reason = reason or "the links are not in the evidence"
            hint = hardware.link_class(measured)
            reason = f"{reason}; {hint}" if hint else reason
        book.ceiling(what, measured, value, "GB/s", (item, *members, *ceiling.used), _cited(book, ceiling), reason)


def _cited(book: Book, ceiling: Ceiling) -> str:
    return " ".join(part if isinstance(part, str) else book.cite(part) for part in ceiling.source)


def _filled(item: Evidence) -> bool:
    """Does the operation last long enough for bandwidth to be all that counts? Unknown sizes do."""
    hit = _LABEL.match(item.subject.label or "")
    return hit is None or float(hit["size"]) / (float(item.value or 0) * 1e3) >= REGIME_US


def _best(book: Book) -> list[Evidence]:
    """For each capture and collective the highest busbw, among sizes that fill the links if there are any."""
    out: dict[tuple[str, str], Evidence] = {}
    for value, item in [*book.numbers("nccl_tests.peak_busbw"), *book.numbers("nccl_tests.busbw")]:
        if value <= 0:
            continue
        hit = _LABEL.match(item.subject.label or "")
        key = (capture(item), hit["op"] if hit else "")
        rival = out.get(key)
        if rival is None or (_filled(item), value) > (_filled(rival), float(rival.value or 0)):
            out[key] = item
    return list(out.values())


def _ranks(book: Book, near: Evidence) -> tuple[int, list[Evidence]]:
    """Number of ranks and who says so; 0 when nobody does."""
    for signal in ("nccl_tests.nranks", "nccl.nranks"):
        got = book.one(signal, near)
        if got and got[0] >= 2:
            return int(got[0]), [got[1]]
    gpus, threads = book.one("nccl_tests.gpus", near), book.one("nccl_tests.threads", near)
    if gpus and capture(gpus[1]) == capture(near) and gpus[0] * (threads[0] if threads else 1) >= 2:
        return int(gpus[0] * (threads[0] if threads else 1)), [gpus[1]]
    return 0, []


def _ceiling(book: Book, near: Evidence, name: str, measured: float, ranks: int) -> Ceiling:
    # The test's own device lines name the hosts; NCCL counts two GPUs of one host that may not talk as two nodes.
    hosts = book.one("nccl_tests.hosts", near)
    if hosts is None or capture(hosts[1]) != capture(near):
        said = [h for s in ("nccl_tests.hosts", "nccl.nnodes", "launch.hosts") if (h := book.one(s, near))]
        hosts = max(said, key=lambda h: h[0], default=None)
    if hosts and hosts[0] > 1:
        return _network(book, name, measured, ranks, int(hosts[0]), hosts[1])
    got = product(book, near)
    pairs = _pairs(book, near, ranks)
    if pairs:
        known = _from_topology(book, got, pairs)
    else:
        known = Ceiling(None, "", reason=got.reason, used=got.used)
    if known.value is None:
        known = _from_nccl(book, near, got) or known
    if known.value is None and not pairs and got.gpu is not None:
        known = _from_product(book, got, got.gpu, measured, ranks)
    return _with_nvls(book, got, known, name, measured, ranks)


# ---------------------------------------------------------------- inside one machine


def _pairs(book: Book, near: Evidence, ranks: int) -> dict[tuple[int, int], Evidence]:
    """Link of each pair of GPUs that took part; empty if the evidence does not say which did."""
    links = {
        (e.subject.gpu, e.subject.peer): e
        for e in book.of("topo.link")
        if e.subject.gpu is not None and e.subject.peer is not None and e.subject.gpu < e.subject.peer
    }
    if not links:
        links = {
            (e.subject.peer, e.subject.gpu): e
            for e in book.of("topo.link")
            if e.subject.gpu is not None and e.subject.peer is not None and e.subject.gpu > e.subject.peer
        }
    present = sorted({g for pair in links for g in pair})
    if not present:
        return {}
    used = {e.subject.gpu for e in book.of("gpu.name") if capture(e) == capture(near) and e.subject.gpu is not None}
    if ranks and len(used & set(present)) == ranks:
        members = sorted(used & set(present))
    elif not ranks or ranks == len(present):
        members = present
    elif len({str(e.value) for e in links.values()}) == 1:
        members = present[:ranks]  # every pair is alike: which ones took part does not matter
    else:
        return {}
    return {pair: e for pair, e in links.items() if pair[0] in members and pair[1] in members}


def _from_topology(book: Book, got: Product, pairs: dict[tuple[int, int], Evidence]) -> Ceiling:
    used = (*got.used, *list(pairs.values())[:2])
    nvlinks = {pair: int(hit[1]) for pair, e in pairs.items() if (hit := _NVLINK.match(str(e.value)))}
    gpus = sorted({g for pair in pairs for g in pair})
    if not nvlinks or not ring_exists(gpus, set(nvlinks)):
        paths = [str(e.value) for e in pairs.values()]
        worst = next((p for p in _FAR if p in paths), "")
        if nvlinks:
            worst = f"{worst}, NVLink between some pairs only" if worst else "NVLink between some pairs only"
        return _pcie(book, got, worst, used)
    links = _links(gpus, nvlinks, got.gpu)
    kinds = sorted({f"NV{n}" for n in nvlinks.values()})
    words = "/".join(kinds)
    if got.gpu is None:
        return Ceiling(None, words, reason=f"the rate of a link is not known: {got.reason}", used=used)
    rate = hardware.nvlink_rate(got.gpu.cc)
    if rate is None:
        return Ceiling(None, words, reason=f"NCCL's rate for NVLink of {got.gpu.name} is not known", used=used)
    ring = floors.ring_nvlink(links, rate.value)
    return Ceiling(ring.value, words, (rate, f"x {links}"), used=used)


def _links(gpus: list[int], nvlinks: dict[tuple[int, int], int], gpu: Gpu | None) -> int:
    """NVLinks a GPU can put into the rings: to all peers together, but not more than it has."""
    if len(gpus) == 2:
        return next(iter(nvlinks.values()))
    total = min(sum(n for pair, n in nvlinks.items() if g in pair) for g in gpus)
    own = gpu.links if gpu is not None and gpu.links else max(nvlinks.values())
    return min(total, max(own, max(nvlinks.values())))


def ring_exists(gpus: list[int], edges: set[tuple[int, int]]) -> bool:
    """Can a ring visit every GPU over these pairs only?"""
    if len(gpus) <= 2:
        return len(gpus) == 2 and bool(edges)
    if all(pair in edges for pair in combinations(gpus, 2)):
        return True
    near = {g: {a if b == g else b for a, b in edges if g in (a, b)} for g in gpus}
    if len(gpus) > 16 or any(len(n) < 2 for n in near.values()):
        return False
    start = gpus[0]
    reach = {(frozenset([start]), start)}
    for _ in gpus[1:]:
        reach = {(seen | {n}, n) for seen, at in reach for n in near[at] if n not in seen}
    return any(start in near[at] for _, at in reach)


def _pcie(book: Book, got: Product, path: str, used: tuple[Evidence, ...]) -> Ceiling:
    """All traffic of a GPU goes through its slot, once each way."""
    generation, width, said = slot(book, got.gpu)
    if generation is None or width is None:
        reason = "the PCIe generation and width are not known" + (f": {got.reason}" if got.reason else "")
        return Ceiling(None, path, reason=reason, used=used)
    rate = hardware.pcie_rate(generation, width)
    if rate is None:
        return Ceiling(None, path, reason=f"PCIe generation {generation} is not in the table", used=used)
    words = f"PCIe {generation}.0 x{width}" + (f", {path}" if path else "")
    return Ceiling(rate.value, words, (rate,), used=(*used, *said))


def slot(book: Book, gpu: Gpu | None) -> tuple[int | None, int | None, tuple[Evidence, ...]]:
    """Generation and lanes of the narrowest GPU slot: as read, else the product's own.

    The generation is the highest the link supports, because an idle link shows a lower one; the width
    is the one in use, because that does not change with load.
    """
    used: list[Evidence] = []

    def least(*signals: str) -> int | None:
        read = next((n for s in signals if (n := book.numbers(s))), [])
        if not read:
            return None
        low = min(read, key=lambda n: n[0])
        used.append(low[1])
        return int(low[0])

    generation = least("gpu.pcie.gen.max") or (gpu.pcie if gpu else least("gpu.pcie.gen"))
    width = least("gpu.pcie.width", "gpu.pcie.width.max") or (gpu.width if gpu else None)
    return generation, width, tuple(used)


def _from_product(book: Book, got: Product, gpu: Gpu, measured: float, ranks: int) -> Ceiling:
    """No topology: the product's own links, and the lower ceiling where boards differ."""
    slotted = _pcie(book, got, "", got.used)
    rate = hardware.nvlink_rate(gpu.cc)
    if not gpu.links or rate is None:
        return slotted
    options: list[Ceiling] = []
    if gpu.form not in ("SXM", "superchip"):
        options.append(slotted)
    elif ranks < 8 and gpu.cc in (8.0, 9.0):
        # Boards of four GPUs without a switch share the links among the three peers.
        options.append(_nvlink_option(gpu.links // 3, rate, got, "board without NVSwitch"))
    elif ranks < 8 and gpu.cc < 8.0:
        options.append(_nvlink_option(1, rate, got, "one direct link"))
    options.append(_nvlink_option(gpu.links, rate, got, ""))
    fits = [o for o in options if o.value is not None and measured <= o.value * TOLERANCE]
    return fits[0] if fits else options[-1]


def _nvlink_option(links: int, rate: Rate, got: Product, note: str) -> Ceiling:
    words = f"NV{links}" + (f" ({note})" if note else "")
    return Ceiling(floors.ring_nvlink(links, rate.value).value, words, (rate, f"x {links}"), used=got.used)


def _with_nvls(book: Book, got: Product, ring: Ceiling, name: str, measured: float, ranks: int) -> Ceiling:
    """Ring, unless the reduction in the switch is seen, or the figure is out of a ring's reach."""
    gpu, words = got.gpu, ring.links
    if ring.value is None or "NV" not in words or name == "sendrecv":
        return ring
    seen = [e for e in book.of("nccl.algo") if "nvls" in f"{e.value} {e.subject.label}".lower()]
    efficiency = hardware.nvls_efficiency(gpu.cc) if gpu is not None and gpu.switched else None
    rate = hardware.nvlink_rate(gpu.cc) if gpu is not None else None
    can = gpu is not None and efficiency is not None and rate is not None and ranks >= 3 and name in _REDUCING
    if can and (seen or measured > ring.value * TOLERANCE) and gpu and efficiency and rate:
        top = floors.nvls(gpu.links, rate.value, ranks, efficiency.value)
        if top.value > ring.value:
            source = (rate, f"x {gpu.links} x", efficiency, "x 2 (n - 1) / (n + 1)")
            return Ceiling(top.value, f"{words}, NVLS", source, used=(*ring.used, *seen[:1]))
    suffix = "" if name == "all-to-all" or "PCIe" in words else ", ring"
    return Ceiling(ring.value, words + suffix, ring.source, ring.reason, ring.used)


def _from_nccl(book: Book, near: Evidence, got: Product) -> Ceiling | None:
    """What NCCL itself found: the sum of a GPU's links, whatever it was then allowed to use."""
    for _, item in book.numbers("nccl.topo.max_bw"):
        hit = _SYSTEM.search(item.quote or "") if capture(item) == capture(near) else None
        if hit is None:
            continue
        total = float(hit[1])
        rate = hardware.nvlink_rate(got.gpu.cc) if got.gpu is not None and got.gpu.links else None
        links = total / rate.value if rate is not None else 0.5
        words = f"NV{links:.0f}" if abs(links - round(links)) < 0.01 else "links as NCCL sees them"
        return Ceiling(total, words, (f"{item.id} totalBw",), used=(*got.used, item))
    return None


# ---------------------------------------------------------------- several machines


def _network(book: Book, name: str, measured: float, ranks: int, nodes: int, says: Evidence) -> Ceiling:
    """All that leaves a node goes through its adapters."""
    words = f"{nodes} nodes"
    nics, rate, used = adapters(book)
    if not nics or rate is None:
        reason = "number and rate of the network adapters are not in the evidence"
        return Ceiling(None, words, reason=reason, used=(says,))
    total = nics * rate / 8
    words += f", {nics} x {rate:g} Gb/s"
    source = (f"{nics} x {used[0].id} / 8",)
    used = (says, *used)
    if name == "sendrecv" and ranks == nodes:
        return Ceiling(total, f"{words}, each pair", source, used=used)
    if name in ("sendrecv", "gather", "scatter"):
        return Ceiling(None, words, reason="which pairs cross the network is not known", used=used)
    if name == "all-to-all":
        local = ranks // nodes if ranks else 0
        if not local:
            return Ceiling(None, words, reason="ranks a node are not known", used=used)
        return Ceiling(total * (ranks - 1) / (local * (ranks - local)), words, source, used=used)
    if name in _REDUCING and nodes == 2 and ranks and measured > total * TOLERANCE:
        top = floors.tree_two_nodes(nics, rate, ranks)
        return Ceiling(top.value, f"{words}, tree: busbw counts more than the wire carries", source, used=used)
    return Ceiling(total, f"{words}, ring", source, used=used)


def adapters(book: Book) -> tuple[int, float | None, tuple[Evidence, ...]]:
    """How many adapters a node uses for NCCL and the rate of the slowest, Gb/s."""
    rates = [r for r in book.numbers("rdma.port.rate") if r[0] > 0]
    devices = {match for e in book.of("nccl.ib.devices") for match in re.findall(r"\[\d+\]([\w-]+:\d+)", str(e.value))}
    if not rates:
        said, each = book.one("net.adapters"), book.one("net.adapter.rate")
        if said and each:
            return int(said[0]), each[0], (each[1], said[1])
        return len(devices), None, ()
    slowest = min(rates, key=lambda r: r[0])
    hosts = {e.subject.host for _, e in rates}
    count = len(devices) or len({e.subject.nic for _, e in rates if e.subject.host == next(iter(hosts))})
    return count, slowest[0], (slowest[1], *book.of("nccl.ib.devices")[:1])
