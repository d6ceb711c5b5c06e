"""Named predicates over a thing in two states or places, and over rates that only look impossible."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import floors, hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import lowest
from .comparison import ratios
from .healthy import faulty
from .products import candidates

_ABOUT_LINK = regex(r"\bgen ?\d|pci-?e?|link|lnksta|x16|lspci|gpu-?z|nvtop|插槽|链路|带宽", re.I)
_FELL = regex(r"\b(?:drops?|dropped|fell|regress\w*|since|used to|half|halved|twice as slow)\b|变慢|下降|一半", re.I)


def link_rises_with_work(ctx: Context) -> Outcome:
    """At rest the link runs at a low generation; at work it goes up to all it can, and its copies are full."""
    rest, work, top = (ctx.numbers("link.gen", {"label": f"^{k}$"}) for k in ("rest", "work", "top"))
    if not rest or not work or not _ABOUT_LINK.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    low, high = lowest(rest), lowest(work)
    if high[0] < max((v for v, _ in top), default=3.0):
        return Outcome(False, (high[1],))
    rate = hardware.pcie_rate(int(high[0]), 16)
    copies = [(v, e) for v, e in ctx.numbers("copy.bandwidth") if v > 0]
    full = [e for v, e in copies if rate is not None and v >= 0.6 * rate.value]
    if (copies and not full) or (_FELL.search(ctx.symptom) and not full):
        return UNKNOWN
    rises = low[0] < high[0] and high[0] >= 3
    return Outcome(rises, (low[1], high[1], *full[:1])) if rises else UNKNOWN


_COHERENT = {
    "GH200": (250.0, 450.0), "GRACE HOPPER": (250.0, 450.0), "GB200": (130.0, 450.0), "GB300": (130.0, 450.0),
}  # fmt: skip
_SUPERCHIP = regex(r"\b(?P<n>GH200|GB[23]00|Grace[ -]Hopper)\b", re.I)
_HOST_COPY = regex(
    r"h(?:ost)?[ _-]?(?:to|2|->|→)[ _-]?d(?:evice)?|d(?:evice)?[ _-]?(?:to|2|->|→)[ _-]?h(?:ost)?|H2D|D2H|\.to\(|\.cuda\(|pinned|memcpy CE CPU|CPU->GPU|主机",  # noqa: E501
    re.I,
)
_TOO_FAST = regex(
    r"\?|？|lying|lie\b|plausib|claims?\b|says\b|can ?not|possible|impossible|broken|wrong|can.?t be|real\b|believ|true|bug|timer|错|真的|可能|吗|异常",  # noqa: E501
    re.I,
)


def copy_crosses_c2c(ctx: Context) -> Outcome:
    """A copy between host and superchip is as fast as NVLink-C2C, and whether that can be was asked."""
    named = next((e for e in ctx.evidence if _SUPERCHIP.search(f"{e.value} {e.quote}")), None)
    hit = _SUPERCHIP.search(f"{named.value} {named.quote}" if named else ctx.symptom)
    if hit is None or not _TOO_FAST.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    low, high = _COHERENT[hit["n"].upper().replace("-", " ")]
    rates = [n for n in ctx.numbers("copy.bandwidth") if not re.search("device|d2d", n[1].subject.label or "", re.I)]
    rates += [
        (v, e) for v, e in ctx.numbers("figure", {"label": "^bandwidth"})
        if e.unit == "GB/s" and _HOST_COPY.search(f"{e.quote} {e.subject.label}") and "C2C Link" not in (e.quote or "")
    ]  # fmt: skip
    rates = [n for n in rates if n[0] > 0]
    if not rates:
        return UNKNOWN
    return Outcome(all(low <= v <= high for v, _ in rates), read.unique((rates[0][1], named)))


_ASKS = regex(
    r"\?|？|misconfig|wrong|broken|how can|why|faster than|slower than|only|漏|吗|为什么|怎么|不对|还快|更快", re.I
)
_DENSE = (0.85, 1.75)
_SPARSE_MOST = 7.0  # launches and routing come on top of the few weights that a token reads


def sparse_reads_less(ctx: Context) -> Outcome:
    """Of a sparse model a token reads a part, of a dense one all: both speeds are what that gives on this product."""
    gpus, named = candidates(ctx)
    rows = []
    for rate, item in ctx.numbers("model.row"):
        _, size, share = (item.subject.label or "").rsplit("|", 2)
        rows.append((1000 / rate, float(size) * 2**30, float(share), item))
    sparse = [r for r in rows if r[2] < 0.6]
    outside = [v for v, _ in ctx.numbers("gpu.layers_outside") if v > 0.02]
    if not gpus or not sparse or len(rows) < 2 or outside or not _ASKS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    for gpu in gpus:
        for ms, weights, part, _ in rows:
            least = floors.read_floor(weights * part, gpu.memory).value
            most = floors.read_floor(weights, gpu.memory).value
            if part < 0.6 and not (0.85 * least <= ms <= min(_SPARSE_MOST * least, 1.2 * most)):
                return Outcome(False, (rows[0][3],))
            if part >= 0.6 and not _DENSE[0] <= ms / least <= _DENSE[1]:
                return Outcome(False, (rows[0][3],))
    return Outcome(True, (*(r[3] for r in rows[:3]), *named[:1]))


def near_files_are_faster(ctx: Context) -> Outcome:
    """The same files come several times faster from a local disk than over the network."""
    found = [n for n in ctx.numbers("storage.gain") if n[0] >= 2]
    return read.yes(*(e for _, e in found[:1])) if found else UNKNOWN


def near_files_are_alike(ctx: Context) -> Outcome:
    """From a local disk the same files come no faster."""
    found = ctx.numbers("storage.gain")
    return read.yes(found[0][1]) if found and all(0.8 <= v <= 1.2 for v, _ in found) else UNKNOWN


_GRAPH = r"cuda ?-?graph|useCudaGraph|graph on|with graph"


def graphs_set_it_free(ctx: Context) -> Outcome:
    """With CUDA graphs the same run is clearly faster."""
    found = [
        r.evidence
        for r in ratios(ctx)
        if r.value >= 1.4 and re.search(_GRAPH, r.better, re.I) and not re.search(_GRAPH, r.worse, re.I)
    ]
    found += [e for v, e in ctx.numbers("control.gain", {"label": r"^graphs\|"}) if v >= 1.4]
    return read.yes(*found[:1]) if found else UNKNOWN


def enqueue_is_the_pace(ctx: Context) -> Outcome:
    """Handing the work to the GPU takes as long as the GPU takes: it waits for the CPU."""
    found = [n for n in ctx.numbers("launch.enqueue_share") if n[0] >= 0.9]
    return read.yes(found[0][1]) if found else UNKNOWN


def users_share_a_card(ctx: Context) -> Outcome:
    """A card with several users is slower than the same card with one."""
    many: list[tuple[float, Evidence]] = [n for n in ctx.numbers("gpu.users") if n[0] >= 2]
    one = [n for n in ctx.numbers("gpu.users") if n[0] == 1]
    return read.yes(many[0][1], one[0][1]) if many and one else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    link_rises_with_work, copy_crosses_c2c, sparse_reads_less, near_files_are_faster, near_files_are_alike,
    graphs_set_it_free, enqueue_is_the_pace, users_share_a_card,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
