"""Health by arithmetic: what was measured is what the links, slots and adapters at hand can give at most."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import floors, hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .comparison import ratios
from .healthy import faulty, single_node, top_busbw
from .products import candidates
from .reruns import faster_rerun

_ASKS = regex(
    r"\?|？|\bonly\b|limit|\blos[es]|\bwrong\b|\bbug\b|broken|expect|should|normal|\bok\b|problem|fix|slow|beat|bad|far from|worse"  # noqa: E501
    r"|只有|正常|吗|问题|慢|怎么|为什么",
    re.I,
)
_CHANGED = regex(
    r"\b(?:since|yesterday|last week|used to|was \d|fell|dropp?ed|regress|worse than before|no longer|every night|randomly)\b"  # noqa: E501
    r"|以前|变慢|下降|突然|升级后",
    re.I,
)
_SLOT = (0.62, 1.0)  # of the slot's rate: protocol and flow control take the rest
_RAIL = (0.88, 1.02)  # of the adapters' payload
_SHARE = 1.12  # a hand-written kernel within this factor of the library's


def _plain(ctx: Context) -> bool:
    """Nothing is broken, nothing made it faster, and nothing got worse over time."""
    return bool(_ASKS.search(ctx.symptom)) and not (
        _CHANGED.search(ctx.symptom) or faulty(ctx) or faster_rerun(ctx).holds
    )


def _even(ctx: Context, most: float = 1.2) -> bool:
    """No two settings of one thing are apart."""
    axes = {"message_size", "expected", "load", "kernel", "gemm", "other", "collective"}
    return all(r.value <= most for r in ratios(ctx) if r.axis not in axes)


def pair_fills_its_slot(ctx: Context) -> Outcome:
    """GPUs without NVLink reduce at what one PCIe slot of their generation and width passes."""
    table = top_busbw(ctx)
    if table is None or not _plain(ctx) or not single_node(ctx) or not _even(ctx):
        return UNKNOWN
    if any(str(e.value).startswith("NV") for e in ctx.of("topo.link")) or ctx.numbers("nvlink.links"):
        return UNKNOWN
    speeds, widths = ctx.numbers("pci.link.speed"), ctx.numbers("pci.link.width")
    gpus, named = candidates(ctx)
    used: tuple[Evidence, ...] = named
    if speeds and widths:
        generation = hardware.PCIE_GTS.get(min(v for v, _ in speeds))
        lanes = int(min(v for v, _ in widths))
        used = (speeds[0][1], widths[0][1])
        tops = [v for s in ("pci.link.speed.max", "pci.link.width.max") for v, _ in ctx.numbers(s)]
        if any(top not in {min(v for v, _ in speeds), lanes} for top in tops):
            return UNKNOWN  # the link is below what it can be
        if gpus and any((g.pcie, g.width) > (generation or 0, lanes) for g in gpus):
            return UNKNOWN
    elif gpus and len({(g.pcie, g.width) for g in gpus}) == 1 and all(not g.links for g in gpus):
        generation, lanes = gpus[0].pcie, gpus[0].width
    else:
        return UNKNOWN
    rate = hardware.pcie_rate(generation, lanes) if generation else None
    far = any(str(e.value) in ("SYS", "NODE") for e in ctx.of("topo.link"))
    if rate is None or lanes < 16 or far:
        return UNKNOWN
    share = table[0] / rate.value
    return Outcome(True, (table[1], *used)) if _SLOT[0] <= share <= _SLOT[1] else UNKNOWN


_RAILS = regex(
    r"(?<![\w.])(?P<n>\d{1,2}|two|four|eight)(?: ?(?:[x×*]|张|块) ?| )(?:(?P<g>\d{2,3}) ?(?-i:G(?:b|bit|bps|b/s|bE|E)?\b)|(?P<k>NDR|HDR|EDR|XDR)\b(?:200)?)",  # noqa: E501
    re.I,
)
_KIND = {"edr": 100.0, "hdr": 200.0, "ndr": 400.0, "xdr": 800.0}
_NUMBER = {"two": 2, "four": 4, "eight": 8}
_EACH = regex(
    r"per (?:rail|nic|hca|port|adapter)|each (?:rail|nic|hca|port)|on all|every (?:rail|nic|port)|每(?:条|张|个)", re.I
)
_COUNT = regex(r"\b(?:all )?(?P<n>two|four|eight|[248]|16)\b(?! ?[GM]i?b)", re.I)


def _counted(ctx: Context) -> tuple[int, float] | None:
    """Adapters of a node and their rate in Gb/s, as they are written down: ``8x NDR``, ``4 x 200G``."""
    places = ("net.adapters", "net.adapter.rate", "launch.hosts")
    texts = [ctx.symptom, *(e.quote or "" for e in ctx.evidence if e.signal in places)]
    found = {
        (_NUMBER.get(h["n"].lower()) or int(h["n"]), float(h["g"]) if h["g"] else _KIND[h["k"].lower()])
        for t in texts for h in _RAILS.finditer(t)
    }  # fmt: skip
    if len(found) != 1:
        return None
    count, gbits = found.pop()
    one = any(re.search(r"(?<![\w.])1 ?[x×] ?\w", t) for t in texts)  # ``1 x NDR``, not ``port 1 100G``
    return (count, gbits) if (1 if one else 2) <= count <= 16 else None


def _rails(ctx: Context) -> tuple[float, tuple[Evidence, ...]] | None:
    """GB/s of all adapters of a node together: measured one by one, or as they are counted."""
    for value, item in ctx.numbers("figure", {"label": "^bandwidth"}):
        quote = item.quote or ""
        if item.unit == "Gb/s" and _EACH.search(quote) and re.search(r"ib_\w+_bw|perftest|iperf", quote):
            said = [_NUMBER.get(h["n"].lower()) or int(h["n"]) for h in _COUNT.finditer(quote)]
            if said:
                return said[-1] * value / 8, (item,)
    counted = _counted(ctx)
    return (counted[0] * counted[1] / 8, ()) if counted else None


_PORT = regex(r"[a-z]\w*\d")


def named_rails_are_the_ceiling(ctx: Context) -> Outcome:
    """A variable names some of the adapters of a node, and the rate is what just these give together."""
    table, counted = top_busbw(ctx), _counted(ctx)
    lists = ctx.of("env.var", {"label": "^NCCL_IB_HCA$"})
    if table is None or counted is None or len({str(e.value) for e in lists}) != 1 or single_node(ctx):
        return UNKNOWN
    listed = str(lists[0].value)
    named = len({part for part in listed.lstrip("=").split(",") if _PORT.match(part)})
    if listed.startswith("^") or not 0 < named < counted[0]:
        return UNKNOWN
    share = table[0] / (named * counted[1] / 8)
    return Outcome(_RAIL[0] <= share <= _RAIL[1], (table[1], lists[0]))


def nodes_at_their_rails(ctx: Context) -> Outcome:
    """Between nodes a ring or gather moves what the adapters of a node give together."""
    table, rails = top_busbw(ctx), _rails(ctx)
    if table is None or rails is None or not _plain(ctx) or single_node(ctx) or not _even(ctx):
        return UNKNOWN
    share = table[0] / rails[0]
    return Outcome(True, (table[1], *rails[1])) if _RAIL[0] <= share <= _RAIL[1] else UNKNOWN


_ABOUT_MODULE = regex(r"peer_?mem|nv_peer|dma-?buf|gpudirect|\bGDR\b", re.I)
_MODULE_NAMED = regex(r"peer_?mem|nv_peer|dma-?buf", re.I)  # that GPUDirect is on answers no question about a rate


def gdr_without_the_module(ctx: Context) -> Outcome:
    """The peer-memory module is not loaded, and every channel carries GPUDirect RDMA all the same."""
    ways = [e for e in ctx.of("nccl.transport") if str(e.value).startswith("NET/")]
    gone = ctx.of("rdma.module.missing", {"label": "peer"})
    if not ways or not (gone or _MODULE_NAMED.search(ctx.symptom)) or faulty(ctx) or faster_rerun(ctx).holds:
        return UNKNOWN
    if not all("GDRDMA" in str(e.value) for e in ways) or not _ABOUT_MODULE.search(ctx.symptom):
        return UNKNOWN
    apart = [r for r in ratios(ctx) if r.value > 1.2 and r.axis not in ("message_size", "expected")]
    return Outcome(True, (ways[0], *gone[:1])) if not apart else UNKNOWN


_SMALL_ASKED = regex(r"\b\d{1,4} ?(?:KB|KiB|K|B|bytes)\b|small (?:message|size|buffer)|latency|小消息|小包", re.I)


def small_sizes_below_plateau(ctx: Context) -> Outcome:
    """Small sizes are asked about; they take some tens of microseconds, and the largest size is at its ceiling."""
    table = top_busbw(ctx)
    gpus, named = candidates(ctx)
    if not gpus:
        gpus, named = _noted(ctx)
    if table is None or not gpus or not _SMALL_ASKED.search(ctx.symptom) or not single_node(ctx) or not _plain(ctx):
        return UNKNOWN
    rates = {(g.links, hardware.nvlink_rate(g.cc)) for g in gpus if g.switched}
    rings = [floors.ring_nvlink(links, rate.value).value for links, rate in rates if rate is not None]
    if len(rings) != 1 or table[0] < hardware.BANDS["nvlink ring"].healthy * rings[0] or not _even(ctx):
        return UNKNOWN
    times = [(v, e) for v, e in ctx.numbers("nccl_tests.time") if _size(e) is not None and (_size(e) or 0) <= 1 << 19]
    return Outcome(bool(times) and all(v <= 100 for v, _ in times), (table[1], *(e for _, e in times[:2]), *named[:1]))


def _size(item: Evidence) -> int | None:
    hit = re.search(r"(\d+) ?B\b", item.subject.label or "")
    return int(hit[1]) if hit else None


_BOARD = regex(r"(?<![a-z0-9])(a100|h100|h200|h800|a800|b200)[ -]?sxm\d?(?![a-z0-9])", re.I)


def _noted(ctx: Context) -> tuple[list[hardware.Gpu], tuple[Evidence, ...]]:
    """The board that a title of a table names; its sizes of memory share their links."""
    said = [e for e in ctx.of("nccl_tests.collective") if _BOARD.search(e.quote or "")]
    names = {m[1].lower() for e in said for m in _BOARD.finditer(e.quote or "")}
    if len(names) != 1:
        return [], ()
    name = names.pop()
    return [g for key, g in hardware.GPUS.items() if key.startswith(name) and g.form == "SXM"], tuple(said[:1])


_LIBRARY = regex(
    r"cublas|cudnn|cutlass|torch\.(?:mm|matmul)|\bvendor\b|pytorch|torch\b|\baten\b|flash.?attn|rocblas", re.I
)
_OWN = regex(r"triton|\bours?\b|\bmine\b|custom|hand|my[_ ]|kernel|tilelang|cute|wmma|我们|自己|手写", re.I)
_KERNEL_WORDS = regex(r"matmul|gemm|kernel|triton|cublas|attention|softmax|layer ?norm|算子|矩阵", re.I)


def kernel_like_the_library(ctx: Context) -> Outcome:
    """One's own kernel is about as fast as the library's on the same sizes, which is what was asked."""
    found = [
        r for r in ratios(ctx)
        if re.match(r"flops|throughput|bandwidth|time|latency", r.metric)
        and ((_LIBRARY.search(r.worse) and _OWN.search(r.better)) or (_LIBRARY.search(r.better) and _OWN.search(r.worse)))  # noqa: E501
    ]  # fmt: skip
    if not found or not _KERNEL_WORDS.search(ctx.symptom) or not _plain(ctx):
        return UNKNOWN
    return Outcome(all(r.value <= _SHARE for r in found), tuple(r.evidence for r in found[:2]))


_NUMBERED = regex(r"\W*(?:step|iter(?:ation)?)\W{0,3}(?P<n>\d+)\b", re.I)
_STEP = regex(r"^step_time\|\D*(?P<n>\d+)$")


def first_steps_only(ctx: Context) -> Outcome:
    """The first step, and perhaps the next, is slow; all later ones take the same time."""
    steps: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure", {"label": "^step_time\\|"}):
        hit = _STEP.match(item.subject.label or "")
        if hit is not None and item.unit in ("s", "ms"):
            steps[int(hit["n"])] = value * (1.0 if item.unit == "s" else 1e-3), item
    for value, item in ctx.numbers("figure", {"label": r"^time\|request \d+$"}) if not steps else ():
        said = _NUMBERED.match(item.quote or "")
        if said is not None and item.unit in ("s", "ms"):
            steps[int(said["n"])] = value * (1.0 if item.unit == "s" else 1e-3), item
    again = ctx.of("train.mark.recompile*") or ctx.of("train.mark.retracing") or ctx.of("train.cache_growth")
    order = sorted(steps)
    if len(order) < 4 or order[0] > 1 or again:
        return UNKNOWN
    values = [steps[n][0] for n in order]
    early = 2 if values[1] > 1.5 * values[-1] else 1
    rest = values[early:]
    even = len(rest) >= 2 and max(rest) <= 1.1 * min(rest)
    return Outcome(even and values[0] >= 3 * max(rest), (steps[order[0]][1], steps[order[-1]][1]))


_RECOMPILES = 8


def settles_after_recompiles(ctx: Context) -> Outcome:
    """A few recompilations at the start, and from then on every step takes the same time."""
    marks = [e for s in ("train.mark.recompile", "serving.mark.recompile") for e in ctx.of(s)]
    steps: dict[int, tuple[float, Evidence]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(?:step_)?time\|"}):
        said = _NUMBERED.match(item.quote or "")
        if said is not None and item.unit in ("s", "ms"):
            steps[int(said["n"])] = value * (1.0 if item.unit == "s" else 1e-3), item
    order = sorted(steps)
    more = ctx.of("train.mark.recompile_limit") or ctx.of("train.mark.retracing") or ctx.of("train.cache_growth")
    if not marks or more or len(order) < 6 or order[-1] < 20 * order[2] or max(e.count for e in marks) > _RECOMPILES:
        return UNKNOWN
    rest = [steps[n] for n in order[3:]]
    even = max(v for v, _ in rest) <= 1.1 * min(v for v, _ in rest)
    return Outcome(even and steps[order[0]][0] >= 3 * rest[-1][0], (steps[order[0]][1], rest[-1][1], marks[0]))


_ASKS_START = regex(
    r"first (?:step|iteration|batch|epoch|call|run)|start-?up|warm-?up|compil\w*|step 0|启动|首(?:步|次|个)|第一(?:步|次|个)|编译",  # noqa: E501
    re.I,
)


def only_the_start_is_slow(ctx: Context) -> Outcome:
    """The start is asked about, and only it is slow."""
    got = first_steps_only(ctx)
    return got if got.holds and _ASKS_START.search(ctx.symptom) and not faulty(ctx) else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        pair_fills_its_slot, nodes_at_their_rails, named_rails_are_the_ceiling, gdr_without_the_module, small_sizes_below_plateau,  # noqa: E501
        kernel_like_the_library, first_steps_only, only_the_start_is_slow, settles_after_recompiles,
    )
}  # fmt: skip
