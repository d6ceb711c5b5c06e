"""Named predicates of GPU memory: what a failed allocation's own figures, or a table of the allocator, add up to."""

from __future__ import annotations

from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import Reading, highest, outcome

_SHARE = 0.04  # of the card that unused reserve must be before it is worth talking about


def _failures(ctx: Context) -> dict[str, dict[str, Reading]]:
    """Figures of each failed allocation by name."""
    out: dict[str, dict[str, Reading]] = {}
    for name in ("requested", "free", "total", "allocated", "reserved", "reserved_unallocated", "own", "wanted_share"):
        for value, item in ctx.numbers(f"gpu.oom.{name}"):
            label = item.subject.label or ""
            if name == "requested" or name not in out.setdefault(label, {}):
                out.setdefault(label, {})[name] = (value, item)
    loose = out.get("typed") or out.get("summary") or {}
    for label, figures in out.items():  # figures printed beside the message belong to it
        if label.isdigit() and "requested" in figures and "reserved_unallocated" not in figures:
            for name, reading in loose.items():
                figures.setdefault(name, reading)
    return out


def _idle_reserve(figures: dict[str, Reading]) -> tuple[float, tuple[Evidence, ...]] | None:
    """Memory PyTorch holds and does not use: printed, or reserved - allocated; the oldest text says `cached`."""
    if "reserved_unallocated" in figures:
        return figures["reserved_unallocated"][0], (figures["reserved_unallocated"][1],)
    if "reserved" in figures and "allocated" in figures:
        reserved, allocated = figures["reserved"], figures["allocated"]
        idle = reserved[0] - allocated[0]
        if idle < 0:  # first generation: the figure called cached is the idle part alone
            idle = reserved[0]
        return idle, (reserved[1], allocated[1])
    return None


def _unused(ctx: Context) -> list[tuple[float, float, float | None, tuple[Evidence, ...]]]:
    """(unused reserve, request, its share of the card, evidence) of each failure that tells both."""
    out = []
    for figures in _failures(ctx).values():
        idle, asked = _idle_reserve(figures), figures.get("requested")
        if idle is None or asked is None:
            continue
        whole = figures.get("total") or figures.get("own")
        held = idle[0] + figures["allocated"][0] if "allocated" in figures else None
        size = whole[0] if whole else held
        used = [*idle[1], asked[1]]
        if "allocated" in figures and figures["allocated"][1] not in used:
            used.append(figures["allocated"][1])
        out.append((idle[0], asked[0], idle[0] / size if size else None, tuple(used)))
    return out


def oom_fragmentation(ctx: Context) -> Outcome:
    """The allocator held at least what it was asked for unused, a share of the card that matters."""
    seen = _unused(ctx)
    hits = [
        e for idle, asked, share, used in seen if idle >= asked and (share is None or share >= _SHARE) for e in used
    ]
    return outcome(hits, bool(seen))


def oom_capacity(ctx: Context) -> Outcome:
    """Even with all unused reserve the request would not have fitted, or the reserve is next to nothing."""
    hits: list[Evidence] = []
    known = False
    for idle, wanted, share, used in _unused(ctx):
        known = True
        if idle < wanted or (share is not None and share < _SHARE):
            hits += used
    for figures in _failures(ctx).values():
        asked = figures.get("requested")
        if asked is not None and _idle_reserve(figures) is not None:
            continue
        if asked is not None and "free" in figures:
            known = True
            if figures["free"][0] < asked[0]:
                hits += [asked[1], figures["free"][1]]
        elif "wanted_share" in figures and "free" in figures and figures["free"][0] < figures["wanted_share"][0]:
            known = True
            hits += [figures["free"][1]]
    return outcome(hits, known)


def _columns(ctx: Context) -> dict[str, list[Reading]]:
    """Columns of an allocator's table in the order of its rows."""
    names = ("allocated", "reserved", "inactive_split", "retries", "ooms", "free")
    return {n: got for n in names if (got := ctx.numbers(f"gpu.alloc.{n}"))}


def reserve_outgrows(ctx: Context) -> Outcome:
    """Over a run reserved or split memory, or retries, grow while what is allocated stays."""
    cols = _columns(ctx)
    allocated = cols.get("allocated", [])
    if len(allocated) < 2 or not {"reserved", "inactive_split", "retries"} & set(cols):
        return UNKNOWN
    first, last = allocated[0], highest(allocated)
    flat = last[0] <= 1.15 * first[0]
    hits: list[Evidence] = []
    for name in ("reserved", "inactive_split", "retries"):
        column = cols.get(name, [])
        if len(column) < 2:
            continue
        top = highest(column)
        if top[0] >= 1.3 * column[0][0] and top[0] > 0 and (name != "retries" or top[0] >= 3):
            hits += [top[1], column[0][1]]
    return Outcome(flat and bool(hits), (*hits[:3], last[1]))


def reserve_far_above(ctx: Context) -> Outcome:
    """A good part of what is reserved is not allocated: split blocks that nothing fits."""
    cols = _columns(ctx)
    hits: list[Evidence] = []
    for (held, a), (reserved, b) in zip(cols.get("allocated", []), cols.get("reserved", []), strict=False):
        if reserved >= 1.35 * held > 0:
            hits += [b, a]
    for split, e in cols.get("inactive_split", []):
        top = max((v for v, _ in cols.get("reserved", [])), default=0.0)
        if top and split >= 0.2 * top:
            hits.append(e)
    return outcome(hits, "reserved" in cols)


def reserve_far_above_and_fails(ctx: Context) -> Outcome:
    """… and allocations are tried again or fail."""
    gap = reserve_far_above(ctx)
    if not gap.holds:
        return gap
    fails = [e for v, e in (*ctx.numbers("gpu.alloc.retries"), *ctx.numbers("gpu.alloc.ooms")) if v >= 1]
    fails += ctx.of("gpu.mark.oom")
    return Outcome(bool(fails), (*gap.used[:4], *fails[:2]))


def allocated_fills(ctx: Context) -> Outcome:
    """What is allocated grows to nearly all that is reserved: the work needs it."""
    cols = _columns(ctx)
    allocated, reserved = cols.get("allocated", []), cols.get("reserved", [])
    if not allocated or not reserved:
        return UNKNOWN
    top, most = highest(allocated), highest(reserved)
    return Outcome(top[0] >= 0.93 * most[0], (top[1], most[1]))


def oom_without_figures(ctx: Context) -> Outcome:
    """An allocation on the GPU failed, and nothing tells how much was reserved, free or foreign."""
    lines = ctx.of("gpu.mark.oom")
    if not lines:
        return UNKNOWN
    split = oom_fragmentation(ctx).holds is not None or oom_capacity(ctx).holds is not None
    return Outcome(not split and not ctx.of("gpu.oom.other"), tuple(lines[:2]))


def _others(held: list[Reading], mine: float, total: Reading | None) -> list[Reading]:
    """Of the listed processes those that are not the failing one, which holds `mine` GiB and a context.

    Without "this process has" one of them is the failing one itself: the one that holds about that much, or any
    where the card could not hold both.
    """
    own = [h for h in held if mine <= h[0] <= 1.15 * mine + 1.0]
    rest = [h for h in held if h is not min(own, key=lambda h: h[0] - mine)] if own else held
    fits = total is None or sum(v for v, _ in rest) + mine <= total[0]
    return rest if fits else []


def oom_foreign(ctx: Context) -> Outcome:
    """Another process held more of the card than the one that failed."""
    others = ctx.numbers("gpu.oom.other")
    hits: list[Evidence] = []
    for label, figures in _failures(ctx).items():
        mine = figures.get("own") or figures.get("allocated")
        held = [(v, e) for v, e in others if (e.subject.label or "").startswith(f"{label} ")]
        if held and mine is None:
            hits += [e for _, e in held]
        elif held and mine is not None:
            total = figures.get("total")
            kept = figures.get("reserved_unallocated")
            foreign = held if "own" in figures else _others(held, mine[0] + (kept[0] if kept else 0.0), total)
            if foreign and sum(v for v, _ in foreign) >= 0.3 * (total[0] if total else mine[0]):
                hits += [e for _, e in foreign]
    return outcome(hits, bool(others))


def startup_memory_taken(ctx: Context) -> Outcome:
    """At start, before the engine loaded anything, a good part of the card was already in use."""
    figures = _failures(ctx).get("startup", {})
    if "free" not in figures or "total" not in figures:
        return UNKNOWN
    return Outcome(figures["free"][0] < 0.85 * figures["total"][0], (figures["free"][1],))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        oom_fragmentation, oom_capacity, oom_foreign, oom_without_figures, startup_memory_taken,
        reserve_outgrows, reserve_far_above, reserve_far_above_and_fails, allocated_fills,
    )
}  # fmt: skip
