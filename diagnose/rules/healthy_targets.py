"""Health by what was asked of it: all that was offered is served, an objective is kept, a level holds, a tail is short."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable

from .. import floors, hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from ..units import IN_MS
from . import serving_read as read
from .base import lowest
from .comparison import ratios
from .control_healthy import CLAIMS
from .healthy import SPARSE, WEIGHT_BYTES, faulty
from .products import candidates, product

_WHETHER = regex(
    r"\?|？|\bonly\b|why|worr|wrong|too (?:few|low|little|slow|hot)|waste|ask|should|must|吗|为什么|只有|是不是|是否|太", re.I  # noqa: E501
)  # fmt: skip
_OFFERED = regex(
    r"offer|configured|target|request[- _]rate\b|arriv|sent|incoming|--request-rate|到达|发送|压测速率|配置", re.I
)
_SERVED = regex(r"complet|throughput|achiev|served|finished|done|actual|successful|完成|实际|处理", re.I)


def served_as_offered(ctx: Context) -> Outcome:
    """As many requests a second are served as were sent, promptly: the load is what bounds the rate."""
    asked, done = [], []
    for value, item in (
        *ctx.numbers("figure", {"label": "^request_rate"}),
        *ctx.numbers("serving.client.request_tput"),
    ):
        words = (item.subject.label or "").partition("|")[2] or ""
        named = words if _OFFERED.search(words) or _SERVED.search(words) else (item.quote or "").split(":")[0]
        if item.signal == "figure" and _OFFERED.search(named) and not _SERVED.search(named):
            asked.append((value, item))
        elif item.signal != "figure" or _SERVED.search(named):
            done.append((value, item))
    asked += read.option(ctx, "^request-rate$", "serving.bench_arg")
    waits = read.top(ctx, "serving.waiting")
    late = [v * IN_MS.get(e.unit or "", 1.0) for v, e in ctx.numbers("figure", {"label": "^ttft"})]
    late += [v for v, _ in ctx.numbers("serving.client.ttft")]
    if not asked or not done or not _WHETHER.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    if len({v for v, _ in asked}) > 1 or (waits is None and not late) or asked[0][0] <= 0:
        return UNKNOWN
    prompt = (waits is None or waits[0] == 0) and all(v <= 2000 for v in late)
    met = prompt and all(0.95 <= v / asked[0][0] <= 1.03 for v, _ in done)
    return Outcome(met, read.unique((asked[0][1], done[0][1], waits[1] if waits else None)))


_OBJECTIVE = regex(r"\bSL[OA]s?\b|objective|\btarget|\bbudget|requirement|contract|目标|要求|红线", re.I)
_METRIC = regex(r"ttft|tpot|itl|latency|e2e|throughput|request_rate|step_time", re.I)


def keeps_its_objective(ctx: Context) -> Outcome:
    """Each quantity that has an objective is measured at the same percentile, and keeps it."""
    figures = [(v, e) for v, e in ctx.numbers("figure") if _METRIC.match(e.subject.label or "") and v > 0]
    wanted = {}
    columns = {e.id for _, e in figures if _OBJECTIVE.search((e.subject.label or "").partition("|")[2])}
    for value, item in figures:
        head = f"{(item.subject.label or '').partition('|')[2]} {(item.quote or '')[:40]}"
        if _OBJECTIVE.search(head):
            wanted[(item.subject.label or "").split("|")[0]] = value * IN_MS.get(item.unit or "", 1.0), item
    if not wanted or not _WHETHER.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    quotes = {e.quote for _, e in wanted.values() if e.id not in columns}
    own: list[tuple[bool, Evidence, str]] = []
    for value, item in figures:
        metric = (item.subject.label or "").split("|")[0]
        if metric in wanted and item.quote not in quotes and item.id not in columns:
            limit, got = wanted[metric][0], value * IN_MS.get(item.unit or "", 1.0)
            own.append((got >= limit if re.match("throughput|request_rate", metric) else got <= limit, item, metric))
    named = {m.lower() for m in _METRIC.findall(ctx.symptom)}
    if not own or (named and not any(m.split("_")[0] in named for _, _, m in own)):
        return UNKNOWN
    if any(v > 0 for v, _ in ctx.numbers("serving.waiting")):
        return UNKNOWN
    return Outcome(all(ok for ok, _, _ in own), (own[0][1], wanted[own[0][2]][1]))


_DRIFTS = regex(
    r"slower (?:every|each|and slower|over|with time|as)|over time|degrad|drift|creep|every day|each (?:day|week|hour)|since (?:the )?(?:launch|deploy|start|boot|monday)"  # noqa: E501
    r"|day by day|越来越|逐渐|每天|随时间|时间长了", re.I,
)  # fmt: skip


_TIME_OF = regex(
    r"\W*(?:(?:week|day|month|hour|h|d|w)\W{0,2}\d|(?:mon|tue|wed|thu|fri|sat|sun)(?:[a-z]{0,6}day)?\b|第?\d+ ?[天周月小]|\d{2}:\d{2})",  # noqa: E501
    re.I,
)


def level_over_time(ctx: Context) -> Outcome:
    """It is said to get slower with time, and at all times measured it is the same."""
    even = [(v, e) for v, e in ctx.numbers("spread.even", {"label": r"^(?:time|day|step|hour)\|"})]
    even = [n for n in even if _METRIC.search((n[1].subject.label or "").split("|")[1])]
    even += [
        (r.value, r.evidence) for r in ratios(ctx)
        if _METRIC.search(r.metric) and _TIME_OF.match(r.worse) and _TIME_OF.match(r.better)
    ]  # fmt: skip
    grows = [*ctx.numbers("trend.growth"), *ctx.numbers("spread.outlier")]
    if not even or grows or not _DRIFTS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 1.04 for v, _ in even), tuple(e for _, e in even[:2]))


_TAIL = regex(r"p9\d|tail|jitter|spik|stall|stutter|hiccup|disturb|interfer|uneven|抖动|毛刺|卡顿|尾|干扰|影响", re.I)


def tail_is_short(ctx: Context) -> Outcome:
    """The late tokens come hardly later than the usual ones, gaps included."""
    tails = [(v, e) for v, e in ctx.numbers("stat.tail", {"label": "^(?:itl|tpot)"})]
    times = [v * IN_MS.get(e.unit or "", 1.0) for v, e in ctx.numbers("figure", {"label": "^(?:itl|tpot)"})]
    gaps = [n for n in tails if (n[1].subject.label or "").startswith("itl")]
    about = re.search(r"tpot|itl|token|decod|stream|逐字|解码", ctx.symptom, re.I)
    if not gaps or about is None or not _TAIL.search(ctx.symptom) or not _WHETHER.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    return Outcome(all(v <= 1.35 for v, _ in tails) and max(times, default=0.0) <= 80, tuple(e for _, e in tails[:2]))


_ABOUT_LINKS = regex(r"nvlink|per link|links?\b|链路", re.I)


def links_at_their_rate(ctx: Context) -> Outcome:
    """All the links that the product has are up, each at the rate of one direction."""
    got = product(ctx)
    if got is None or not got[0].nvlink or not _ABOUT_LINKS.search(ctx.symptom):
        return UNKNOWN
    rates = {
        (e.subject.gpu, hit[1]): (v, e) for v, e in (*ctx.numbers("figure"), *ctx.numbers("nvlink.rate"))
        if e.unit == "GB/s" and (hit := re.match(r"\s*Link (\d+): [\d.]+ GB/s", e.quote or ""))
    }  # fmt: skip
    slow = re.search(r"slow|nccl|all.?reduce|busbw|train|慢", ctx.symptom, re.I)
    if ctx.of("nvlink.inactive") or ctx.of("nvlink.down") or slow is not None or faulty(ctx):
        return UNKNOWN
    count = len({n for _, n in rates})
    raw = hardware.NVLINK_RAW[got[0].nvlink]
    if count < 2 or re.search(r"<?inactive", " ".join(e.quote or "" for e in ctx.of("nvlink*")), re.I):
        return UNKNOWN
    met = count == got[0].links and all(0.97 <= v / raw <= 1.1 for v, _ in rates.values())
    return Outcome(met, (next(iter(rates.values()))[1], *got[1]))


_HEAT = regex(r"\bhot\b|therm|temperature|cool|\d ?°?C\b|degrees|过热|温度|散热", re.I)


def cool_enough(ctx: Context) -> Outcome:
    """Heat is the worry; the card is degrees below its limit, its clock at the top, and no reason holds it."""
    rooms = ctx.numbers("gpu.temperature.headroom")
    clocks, tops = ctx.numbers("gpu.clock.sm"), ctx.numbers("gpu.clock.sm.max")
    held = [e for e in ctx.of("gpu.throttle") if e.subject.label not in ("gpu_idle", "idle")]
    if not rooms or not clocks or not tops or not _HEAT.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    room, clock = lowest(rooms), lowest(clocks)
    met = room[0] >= 4 and clock[0] >= 0.93 * max(v for v, _ in tops) and not held
    return Outcome(met, (room[1], clock[1], *held[:1]))


_ABOUT_TP = regex(r"\btp ?[=-]?\d|tensor|gpus?\b|times (?:as fast|faster)|scal|卡|并行", re.I)


def ranks_read_their_share(ctx: Context) -> Outcome:
    """With each number of ranks a token takes what reading a rank's share of the weights takes, and what ranks add."""
    gpus, named = candidates(ctx)
    sizes = {v for v, _ in ctx.numbers("serving.model_size")}
    swept = [r for r in ratios(ctx) if r.axis == "tp" and re.match("tpot|itl", r.metric)]
    if not gpus or len(sizes) != 1 or not swept or not _ABOUT_TP.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    words = " ".join([ctx.symptom, *(e.quote or "" for e in ctx.of("serving.model_size"))])
    width = next((size for size, pattern in WEIGHT_BYTES if pattern.search(words)), None)
    if width is None or SPARSE.search(words):
        return UNKNOWN
    rows = []
    for value, item in ctx.numbers("figure", {"label": r"^(?:tpot|itl)[^|]*\|\D{0,6}\d{1,2}$"}):
        ranks = int(re.findall(r"\d+", (item.subject.label or "").split("|")[1])[0])
        for gpu in gpus:
            floor = floors.read_floor(next(iter(sizes)) * 1e9 * width / max(1, ranks), gpu.memory).value
            rows.append((value * IN_MS.get(item.unit or "", 1.0) / floor, item))
    if len(rows) < 2:
        return UNKNOWN
    return Outcome(all(0.9 <= share <= 1.7 for share, _ in rows), (rows[0][1], rows[-1][1], *named[:1]))


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    served_as_offered, keeps_its_objective, level_over_time, tail_is_short, links_at_their_rate, cool_enough,
    ranks_read_their_share,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
