"""Health by comparison with itself: what was suspected changes nothing, peers agree, the share is usual, the counter is small."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .base import lowest
from .comparison import ratios
from .healthy import LOAD_AXES, QUANTITY, faulty

_EVEN = 1.06
# A question, or a suspicion; "it is twice as slow" is a claim that even figures beside it do not answer.
_ASKS = regex(
    r"\?|？|\b(?:feels?|seems?|looks?) (?:\w+ )?(?:slow|slower|off|wrong|bad)|\b(?:is|are|was|does|do|should|could|can) (?:it|this|that|the|there|we|our|my)\b"  # noqa: E501
    r"|suspect|wonder|worried|worry|to blame|culprit|guilty|sick|broken|responsible|matter|regress|是不是|是否|有没有|吗|怀疑|正常|要不要", re.I,  # noqa: E501
)  # fmt: skip
_CLAIMS = regex(
    r"\b(?:\d+(?:\.\d+)?|two|three|four|ten|half|third|quarter|double|twice|triple) ?(?:x|×|times)\b|\b(?:twice|half|doubled|halved|tripled|collapsed?|hangs?|crash|oom)\b"  # noqa: E501
    r"|一半|翻倍|[两三四五十]倍|卡死|崩溃",
    re.I,
)
_AXES = ("proxy", "client", "version", "node", "gpu", "rank", "data_source", "flag", "env", "container", "driver", "storage", "other",  # noqa: E501
         "numa", "host", "kernel", "quantization", "attention_backend", "graphs", "moe", "prefix_cache", "cpu", "replicas", "scheduler", "threads", "workers")  # fmt: skip  # noqa: E501
_WORDS = {
    "proxy": r"gateway|proxy|ingress|envoy|nginx|router|balancer|hop|istio|sidecar|网关|代理",
    "client": r"client|tool|sdk|harness|压测|客户端", "version": r"version|upgrad|updat|downgrad|release|image|bump|\d+\.\d+|driver|cuda|regress|\bnew\b|升级|版本",  # noqa: E501
    "node": r"node|host|machine|server|box|节点|机器", "gpu": r"gpu|card|卡", "rank": r"rank|gpu",
    "data_source": r"data|load|input|pipeline|worker|数据", "driver": r"driver|驱动", "container": r"container|docker|pod|k8s|容器",  # noqa: E501
    "workers": r"worker|input|data|load|数据", "threads": r"thread|OMP|worker|affinity|线程",
    "storage": r"disk|storage|nfs|volume|存储|磁盘",
}  # fmt: skip


def suspect_changes_nothing(ctx: Context) -> Outcome:
    """With and without what is suspected, all that was measured is the same, and nothing else was found."""
    found = [r for r in ratios(ctx) if QUANTITY.search(r.metric) or r.metric in ("count", "iterations", "request_rate")]
    # a column without a name that two GPUs share was not measured for their sake
    found = [r for r in found if r.metric != "count" or r.axis not in ("gpu", "rank")]
    waits = [e for v, e in ctx.numbers("step.share", {"label": "^(?:data|comm|h2d)$"}) if v > 0.2]
    real = [r for r in found if r.axis in _AXES or (r.axis != "expected" and _worded(r.worse, r.better))]
    if not real or waits or not _ASKS.search(ctx.symptom) or _CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    worst = max((r for r in found if r.axis != "expected"), key=lambda r: r.value)
    if worst.value > _EVEN:
        return Outcome(False, (worst.evidence,))
    about = [r for r in real if _named(r.axis, f"{r.worse} {r.better}", ctx.symptom)]
    measured = {r.metric for r in about}
    timed = [
        m
        for m in measured
        if re.match(r"ttft|tpot|itl|latency|e2e|throughput|decode|iterations|step|time|count|flops|busbw|algbw", m)
    ]
    return Outcome(True, tuple(r.evidence for r in about[:3])) if timed else UNKNOWN


_FIRST_WORD = regex(r"\W*([A-Za-z]{3,})(?![\w/])")


def _worded(one: str, two: str) -> bool:
    """Are these two settings words, and not two sizes of one load?"""
    a, b = _FIRST_WORD.match(one), _FIRST_WORD.match(two)
    return a is not None and b is not None and a[1].lower() != b[1].lower()


_OWN_NAME = regex(r"\b[a-z]{1,12}[-_.]?\d[\w.-]*")  # of a host or a card: `gg-011`


def _named(axis: str, settings: str, symptom: str) -> bool:
    """Does the question speak of what was varied?"""
    words = _WORDS.get(axis) if axis in _AXES else None
    if words is not None and re.search(words, symptom, re.I):
        return True
    if words is not None:
        names = set(_OWN_NAME.findall(settings.lower()))
        return len(names) > 1 and all(name in symptom.lower() for name in names)
    told = set(re.findall(r"[a-z]{3,}", settings.lower())) - {"with", "without", "off", "default", "the", "and"}
    return any(w in symptom.lower() for w in told)


_MFU = regex(r"\bMFU\b|model flops util|HFU\b|模型算力利用率", re.I)
_DENSE_BAND = (0.38, 0.8)
_ASKS_TRAINING = regex(
    r"healthy|normal|\bok\b|okay|fine\b|good\b|expect|enough|better|reasonable|faster|slow|low\b|\?|？|正常|健康|合理|吗",
    re.I,
)


def mfu_in_band(ctx: Context) -> Outcome:
    """Steps are even, use what large models usually reach of the peak, and wait for neither data nor communication."""
    used = [
        (v, e)
        for v, e in ctx.numbers("figure")
        if (e.unit == "fraction" or (e.unit == "count" and 0 < v < 1))
        and _MFU.search(e.quote or "")
        and "utilisation" in (e.subject.label or "")
    ]
    used += [(v, e) for v, e in ctx.numbers("train.mfu")]
    if not used or not _ASKS_TRAINING.search(ctx.symptom) or _CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    low = lowest(used)
    shares = [
        v
        for name in ("comm_time", "data_time")
        for v, e in ctx.numbers("figure", {"label": f"^{name}"})
        if e.unit == "fraction"
    ]
    steps = [_seconds(v, e) for v, e in ctx.numbers("figure", {"label": "^step_time"}) if e.unit in ("s", "ms")]
    waits = [_seconds(v, e) for v, e in ctx.numbers("figure", {"label": "^data_time"}) if e.unit in ("s", "ms")]
    uneven = [r for r in ratios(ctx) if r.axis not in ("expected", "device_time") and r.value > 1.15]
    if uneven or (steps and max(steps) > 1.1 * min(steps)) or any(s > 0.15 for s in shares):
        return Outcome(False, (low[1],))
    if steps and waits and max(waits) > 0.05 * min(steps):
        return Outcome(False, (low[1],))
    filled = [v for v, _ in ctx.numbers("profile.gpu_busy") if v >= 0.9]
    known = bool(steps and (waits or shares or filled)) or len(used) >= 3
    return Outcome(_DENSE_BAND[0] <= low[0] <= _DENSE_BAND[1], (low[1],)) if known else UNKNOWN


def _seconds(value: float, item: Evidence) -> float:
    return value / 1000 if item.unit == "ms" else value


_ASKS_THROTTLE = regex(r"throttl|cfs|quota|cgroup|cpu\.stat|cpu limit|限流|节流|配额", re.I)


def throttling_negligible(ctx: Context) -> Outcome:
    """CPU throttling is the worry, it touched hardly any period, and no latency has a tail."""
    share = read.top(ctx, "host.cpu.throttled")
    if share is None or not _ASKS_THROTTLE.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    tails = [v for v, _ in ctx.numbers("stat.tail")]
    # The fields of cpu.stat are no settings to compare.
    apart = [r for r in ratios(ctx) if r.value > 1.15 and r.axis not in LOAD_AXES and "_usec" not in r.worse + r.better]
    return Outcome(share[0] <= 0.005 and not apart and all(t <= 2.0 for t in tails), (share[1],))


_PEERS = regex(
    r"(?:^|.*[\s:=(])(?P<v>\d[\d,]*(?:\.\d+)?)\s*(?P<u>T?FLOP\S*|GB/s|tok\S*/s|it/s|img/s|ms|us|s)?\b[^\n]{0,40}\b(?:this|the suspect|that) (?:card|gpu|node|one|rank|host|box)\b"  # noqa: E501
    r"[^\n]{0,20}?(?P<a>\d[\d,]*(?:\.\d+)?)\s*(?:-|–|to|\.\.)\s*(?P<b>\d[\d,]*(?:\.\d+)?)[^\n]{0,30}\b(?:other|rest|remaining|peers?|neighbou?rs?)\b",
    re.I,
)


_PEER_WORDS = ("other", "rest", "remaining", "peer", "neighb")


def like_its_peers(ctx: Context) -> Outcome:
    """What is suspected measures within the range that its peers measure."""
    if not _ASKS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    for item in ctx.of("figure"):
        quote = item.quote or ""
        said = quote.lower()
        hit = _PEERS.search(quote) if any(word in said for word in _PEER_WORDS) else None
        if hit is None:
            continue
        value, low, high = (float(hit[k].replace(",", "")) for k in ("v", "a", "b"))
        if 0 < low <= high <= 1.15 * low:
            return Outcome(0.98 * low <= value <= 1.02 * high, (item,))
    return UNKNOWN


def repeats_overlap(ctx: Context) -> Outcome:
    """Repeats of one thing differ among themselves as much as the two things do, and whether one is worse was asked."""
    if not _ASKS.search(ctx.symptom) or _CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    rows: dict[str, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure"):
        metric, _, name = (item.subject.label or "").partition("|")
        if item.unit == "fraction" or not name or re.match(r"memory|bytes|clock|power|temperature", metric):
            continue
        rows.setdefault(name, []).append((value, item))
    repeated = [(min(v for v, _ in r), max(v for v, _ in r), r[0][1]) for r in rows.values() if len(r) >= 2]
    spans = [s for s in repeated if 0 < s[1] <= 1.08 * s[0]]
    if len(spans) < 2 or len(spans) != len(repeated):
        return UNKNOWN
    overlap = max(s[0] for s in spans) <= min(s[1] for s in spans)
    apart = [r for r in ratios(ctx) if r.value > 1.08]
    return Outcome(True, tuple(s[2] for s in spans[:3])) if overlap and not apart else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    suspect_changes_nothing, mfu_in_band, throttling_negligible, like_its_peers, repeats_overlap,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
