"""Named predicates of health by a control: equal to its reference, to its twin, to itself after the suspected thing changed."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .comparison import ratios
from .healthy import LOAD_AXES, QUANTITY, faulty

_NEAR = 1.04
_REFERENCE = regex(
    r"\b(?:accept(?:ance|ed)?|burn-?in|commission\w*|baseline|reference|ref\.?|before|last (?:week|month|quarter|release)|previous(?:ly)?|yesterday"  # noqa: E501
    r"|(?:week|month|day) before|sister|twin|neighbou?r\w*|sibling|peer|other (?:host|node|box|site|machine|pair|card|rack|region)|same (?:card|model|machine|type) (?:at|in|on)|second host"  # noqa: E501
    r"|vendor|data ?sheet|historical)\b|验收|基线|另一(?:台|机房|个|节点)|同型号|上(?:周|个?月)|之前|同配置|参考|对照|隔壁|历史",  # noqa: E501
    re.I,
)
_FIGURE = regex(
    r"(?<![\w.:/-])(\d[\d,]*(?:\.\d+)?)(?: ?(ms|us|µs|s|GB/s|GiB/s|MB/s|Gb/s|Gbit/s|tok(?:ens)?/s|req/s|it/s|TFLOP/?s?|TFLOPS))?(?![\w%.-]*[A-Za-z%])(?![\w:])"  # noqa: E501
)
_MEASURES = regex(
    r"ttft|tpot|prefill|decode|offload|\bitl\b|latency|throughput|bandwidth|p50|p99|p95|step|tok(?:ens)?/s|GB/s|Gb/s|pull|push|rate|首字|延迟|吞吐|带宽|每步|inter_token",
    re.I,
)
# A loss that is claimed with a figure or as a fact is not answered by an equal figure beside it.
CLAIMS = regex(
    r"\b\d+(?:\.\d+)? ?(?:x|×|times|%|percent) (?:slower|longer|less|worse)|\b(?:twice|half|doubled|halved|tripled|collapsed?)\b|slower than|hangs?\b|crash|\boom\b"  # noqa: E501
    r"|一半|翻倍|变慢了|卡死|崩溃",
    re.I,
)
_WORRY = regex(
    r"\?|？|alert|alarm|warn|worr|concern|should|normal|\bok\b|\bfine\b|broken|lose|losing|cost us|need to|have to|suspect|incident|监控|担心|告警|报警|正常|影响|需要|吗|是否|是不是",  # noqa: E501
    re.I,
)


def _groups(text: str) -> Iterator[list[tuple[float, str]]]:
    """Figures of one line, bare ones only behind a reference word or a slash, with the unit of the first."""
    found = [(float(h[1].replace(",", "")), h[2] or "", h.start()) for h in _FIGURE.finditer(text)]
    units = {u for _, u, _ in found if u}
    if not units:
        return
    word = _REFERENCE.search(text)
    start = min(p for _, u, p in found if u)
    kept = [
        (v, u) for v, u, p in found
        if u or (word and p > start and (v % 1 or re.search(r"\d ?/ ?$", text[max(0, p - 4) : p])))
    ]  # fmt: skip
    if len(kept) >= 2:
        yield kept
    if _paired(kept) is None:  # figures of several kinds: each kind that stands there twice
        for unit in sorted(units):
            same = [(v, u) for v, u in kept if u == unit]
            if len(same) == 2:
                yield same


def _paired(values: list[tuple[float, str]]) -> bool | None:
    """Do the figures repeat themselves within a few percent, one by one or in rounds? None where none is beside another."""  # noqa: E501
    n = len(values)
    spans = [m for m in range(1, n // 2 + 1) if n % m == 0]
    ways = [[(values[i], values[i % m]) for i in range(m, n)] for m in spans]
    if n % 2 == 0:
        ways.append([(values[i], values[i + 1]) for i in range(0, n, 2)])
    fits = [w for w in ways if all(not a[1] or not b[1] or a[1] == b[1] for a, b in w)]
    if not fits:
        return None
    return any(all(max(a[0], b[0]) <= _NEAR * min(a[0], b[0]) for a, b in w if min(a[0], b[0]) > 0) for w in fits)


def _lines(ctx: Context) -> dict[str, Evidence]:
    """Lines of notes that set measurements beside a reference."""
    out: dict[str, Evidence] = {}
    for item in ctx.evidence:
        text = item.quote or ""
        if item.signal.startswith(("figure", "text.error")) and _REFERENCE.search(text) and _MEASURES.search(text):
            out.setdefault(text, item)
    return out


def unlike_work(ctx: Context, least: float) -> list[Evidence]:
    """Comparisons of work that differ, other than over the load."""
    return [
        r.evidence for r in ratios(ctx)
        if r.value >= least and r.axis not in (*LOAD_AXES, "load", "device_time") and QUANTITY.search(r.metric)
        and not re.search(r"_usec|\bsecs?\b", f"{r.worse} {r.better}")
    ]  # fmt: skip


def equals_its_reference(ctx: Context) -> Outcome:
    """A state is worrying, and the work goes as at acceptance, before, or on the twin."""
    lines = _lines(ctx)
    if not lines or not _WORRY.search(ctx.symptom) or CLAIMS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    judged = [(fits, item) for text, item in lines.items() for v in _groups(text) if (fits := _paired(v)) is not None]
    if not judged:
        return UNKNOWN
    met = all(fits for fits, _ in judged) and not unlike_work(ctx, 1.1)
    limits, defaults = ctx.numbers("gpu.power.limit"), ctx.numbers("gpu.power.default")
    if limits and defaults and min(v for v, _ in limits) < 0.97 * max(v for v, _ in defaults):
        return UNKNOWN  # a lowered limit is a finding of its own
    return Outcome(met, tuple(item for _, item in judged[:3]))


_ASKS = regex(r"warn|message|complain|log says|prints|advis|hint|sub-?optimal|falls? back|告警|警告|提示|日志", re.I)
_PERFORMANCE = regex(
    r"^(?:ttft|tpot|itl|latency|e2e|throughput|decode_throughput|prefill|prompt_throughput|request_rate|step_time)"
)


def cure_of_the_warning_changes_nothing(ctx: Context) -> Outcome:
    """The warning was cured and everything measured stayed within a few percent."""
    gone = next(iter(ctx.of("control.mark.warning_gone")), None)
    if gone is None or not _ASKS.search(ctx.symptom) or faulty(ctx):
        return UNKNOWN
    rows: dict[str, dict[str, tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure"):
        metric, _, name = (item.subject.label or "").partition("|")
        if _PERFORMANCE.match(metric) and name and item.quote != gone.quote:
            rows.setdefault(name, {})[metric] = value, item
    pairs = [
        (one[m], two[m]) for i, one in enumerate(rows.values()) for two in list(rows.values())[i + 1 :] for m in one if m in two  # noqa: E501
    ]  # fmt: skip
    if not pairs:
        return UNKNOWN
    same = all(max(a[0], b[0]) <= 1.03 * min(a[0], b[0]) for a, b in pairs if min(a[0], b[0]) > 0)
    return Outcome(same and not unlike_work(ctx, 1.05), (gone, pairs[0][0][1], pairs[0][1][1]))


def tuned_kernel_is_faster(ctx: Context) -> Outcome:
    """The engine warns of an untuned kernel, and with the tuned file the same load is clearly faster."""
    marks = [*ctx.of("serving.mark.moe_default_config"), *ctx.of("serving.mark.quant_default_config")]
    if not marks:
        return UNKNOWN
    for ratio in ratios(ctx):
        tuned = re.search(r"tun(?:ed|ing)|with (?:the )?(?:file|config)|custom", ratio.better, re.I)
        if (
            ratio.value >= 1.15
            and tuned
            and not re.search("tuned", ratio.worse, re.I)
            and _PERFORMANCE.match(ratio.metric)
        ):
            return read.yes(ratio.evidence, marks[0])
    return UNKNOWN


def repeated_prompt_hits(ctx: Context) -> Outcome:
    """The load shares nothing, and the same prompt sent twice by hand comes from the cache."""
    hits = ctx.of("serving.repeat_hit")
    load = [
        e for e in ctx.of("serving.bench_arg", {"label": "^dataset(?:-name)?$"}) if str(e.value).startswith(("random", "synthetic"))  # noqa: E501
    ]  # fmt: skip
    load += [e for e in ctx.of("serving.bench_arg", {"label": "^data$"}) if "prompt_tokens=" in str(e.value)]
    load += list(ctx.of("serving.bench_arg", {"label": "^(?:random|synthetic)-(?:input-len|prefix-len|input-tokens)"}))
    shared = [v for v, _ in read.option(ctx, "^random-prefix-len$|prefix-len", "serving.bench_arg") if v > 0]
    asked = re.search(r"prefix|cach|hit.?rate|命中|前缀|缓存", ctx.symptom, re.I)
    return read.yes(hits[0], load[0]) if hits and load and asked and not shared else UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    equals_its_reference, cure_of_the_warning_changes_nothing, tuned_kernel_is_faster, repeated_prompt_hits,
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {rule.__name__: rule for rule in _ALL}
