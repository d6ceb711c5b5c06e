"""Rules of the serving family that join two readings: a setting with its effect, a figure with its floor, a part with its whole."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_prefix as prefix
from . import serving_read as read
from .base import highest, lowest

_ALIAS = {
    "tp": "tensor-parallel-size", "tp-size": "tensor-parallel-size", "dp": "data-parallel-size", "dp-size": "data-parallel-size",  # noqa: E501
    "pp": "pipeline-parallel-size", "pp-size": "pipeline-parallel-size", "max-running-requests": "max-num-seqs",
    "context-length": "max-model-len", "mem-fraction-static": "gpu-memory-utilization",
}  # fmt: skip
_SIZES = ("tensor-parallel-size", "data-parallel-size", "pipeline-parallel-size")
_APPLIED = (*_SIZES, "max-num-seqs", "max-model-len", "gpu-memory-utilization", "max-num-batched-tokens", "kv-cache-dtype",  # noqa: E501
            "quantization", "enable-prefix-caching", "api-server-count", "num-speculative-tokens", "chunked-prefill-size")  # fmt: skip  # noqa: E501
_SHARED = regex(
    r"same|identical|repeat|shared?\b|system.?prompt|multi-?turn|prefix|agent|few-?shot|conversation|history|template|(?<!kv )(?<!kv_)cach|second time"  # noqa: E501
    r"|again|相同|同样|同一|重复|前缀|多轮|命中|系统提示|固定|(?<!KV)(?<!KV )缓存",
    re.IGNORECASE,
)
_IN_TEXT = regex(
    r"(?:same|identical|repeated|shared|common) (?:prompt|prefix|request|system|document)|system prompt|multi-?turn|公共前缀|相同的? ?prompt|多轮|系统提示",  # noqa: E501
    re.IGNORECASE,
)
_FIRST = regex(r"first|cold|#\s?1\b|\b1st\b|call 1\b|首次|第一次|冷", re.IGNORECASE)
_LATER = regex(r"second|later|warm|#\s?[2-9]\b|\b2nd\b|call [2-9]\b|again|repeat|之后|第二次|热", re.IGNORECASE)
_SCHEMA = regex(r"schema|\btools?\b|grammar|json|structured|guided|function.?call|regex|结构化|约束", re.IGNORECASE)
_START = regex(
    r"start|boot|replica|scal(?:e|ing)|restart|cold|deploy|ready|roll|first|load(?:s|ing)? (?:the )?model|启动|扩容|重启|冷|上线|就绪",  # noqa: E501
    re.IGNORECASE,
)
_STEP = regex(r"\bstep\b|per token|decode|iteration|每步|解码", re.IGNORECASE)


def _quotes(ctx: Context) -> Iterable[str]:
    return (e.quote for e in ctx.evidence if e.quote)


def shares_prefix(ctx: Context) -> bool:
    """Is there a word that prompts have something in common? Without it a cache that never hits is as it should be."""
    if not ctx.symptom or _SHARED.search(ctx.symptom):
        return True
    drawn = ctx.of("serving.bench_arg", {"label": "^dataset-name$"})
    if any("prefix" in str(e.value) for e in drawn) or ctx.of("serving.mark.prefix_varies"):
        return True
    return any(_IN_TEXT.search(q) for q in _quotes(ctx))


def prefix_off_asked(ctx: Context) -> Outcome:
    """Prefix caching is off, the question is about work that it would save, and prompts have something in common."""
    off = prefix.switched_off(ctx)
    if off is None:
        return UNKNOWN
    return read.yes(off) if ctx.asks("high-ttft", "low-throughput", "") and shares_prefix(ctx) else read.no(off)


def chunks_tiny(ctx: Context) -> Outcome:
    """Prefill goes in equal small chunks although the prompt is many times longer."""
    chunk = read.top(ctx, "serving.prefill_chunk", "^repeated$")
    if chunk is None:
        return UNKNOWN
    if chunk[0] > 1024:
        return read.no(chunk[1])
    held, told = read.top(ctx, "serving.prefill_chunk", "^held$"), read.top(ctx, "serving.told", "^prompt$")
    set_ = [o for o in read.option(ctx, read.BUDGETS) if o[0] == chunk[0]]
    longer = next((r for r in (held, told) if r is not None and r[0] >= 4 * chunk[0]), None)
    if longer is not None:
        return read.yes(chunk[1], longer[1])
    return read.yes(chunk[1], set_[0][1]) if set_ else Outcome(None, (chunk[1],))


def _request(ctx: Context) -> tuple[float, list[Evidence]] | None:
    """Tokens that a whole request holds, as told or measured."""
    prompt, output = read.top(ctx, "serving.told", "^prompt$"), read.top(ctx, "serving.told", "^output$")
    if prompt is not None and 64 <= prompt[0] <= 2e6:
        rest = [output[1]] if output is not None else []
        return prompt[0] + (output[0] if output else 0.0), [prompt[1], *rest]
    return read.lengths(ctx)


def pool_binds(ctx: Context) -> Outcome:
    """The pool holds as many requests as run: its tokens over the tokens of a request."""
    capacity, request, running = read.capacity(ctx), _request(ctx), read.running(ctx)
    if capacity is None or request is None or request[0] <= 0:
        return UNKNOWN
    fits = capacity[0] / request[0]
    waiting, cap = read.waiting(ctx), read.cap(ctx)
    wanted = max((waiting[0] if waiting else 0) + (running[0] if running else 0), cap[0] if cap else 0)
    if running is None or running[0] < 1:
        return UNKNOWN
    used = read.kv(ctx)
    if used is not None and 0 < used[0] < read.ROOMY and running[0] < 0.9 * fits:  # seen: it has room for more
        return read.no(used[1], capacity[1], running[1])
    more = wanted >= 1.5 * running[0]
    if more and fits < 64 and 0.6 * fits <= running[0] <= 1.6 * fits:
        return read.yes(capacity[1], *request[1], running[1], waiting[1] if waiting else None, cap[1] if cap else None)
    return read.no(capacity[1], running[1])


def _asked_and_got(ctx: Context) -> dict[str, tuple[list[Evidence], list[Evidence]]]:
    """Options as a command line gave them, and as the server's own configuration shows them."""
    out: dict[str, tuple[list[Evidence], list[Evidence]]] = {}
    for item in ctx.of("serving.arg"):
        label, quote = item.subject.label or "", item.quote or ""
        stem = re.escape(label).replace(r"\-", "[-_]")
        asked = re.search(rf"--{stem}\b", quote) is not None
        shown = "[=:]" if re.search(r"non-default args|server_args|EngineArgs|Namespace", quote) else "="
        got = re.search(rf"(?<![-\w]){stem}'?\"?\s*{shown}", quote) is not None and not asked
        if asked or got:
            out.setdefault(_ALIAS.get(label, label), ([], []))[0 if asked else 1].append(item)
    return out


def _plain(item: Evidence) -> str:
    text = str(item.value).strip().lower().replace(",", "")
    number = re.fullmatch(r"(\d+)(?:\.0+)?", text)
    return number[1] if number else text


def arg_not_applied(ctx: Context) -> Outcome:
    """An option was given and the server's own configuration shows another value: it never arrived."""
    for label, (asked, got) in _asked_and_got(ctx).items():
        if label not in _APPLIED or not asked or not got or ctx.of("serving.mark.admission_reduced"):
            continue
        wanted = {_plain(e) for e in asked}
        if len(wanted) == 1 and wanted.isdisjoint({_plain(e) for e in got}) and not wanted & {"auto", "none"}:
            return read.yes(asked[0], got[0])
    return UNKNOWN


def gpus_unused(ctx: Context) -> Outcome:
    """The server's parallel sizes use few of the machine's GPUs; the rest hold nothing."""
    memory = {e.subject.gpu: (value, e) for value, e in ctx.numbers("gpu.memory.used") if e.subject.gpu is not None}
    busy, empty = [m for m in memory.values() if m[0] >= 8], [m for m in memory.values() if m[0] < 1.5]
    if not busy or len(empty) < 3 * len(busy):  # one server on one of two GPUs is an ordinary layout
        return UNKNOWN
    sizes = [
        r
        for label in (*_SIZES, "tp", "dp", "pp", "tp-size", "dp-size", "pp-size")
        for r in read.option(ctx, f"^{label}$")
    ]
    serving = sizes or read.option(ctx, read.CAPS) or [(0.0, e) for e in ctx.of("serving.kv_tokens")]
    return read.yes(busy[0][1], empty[0][1], serving[0][1]) if serving else Outcome(None, (busy[0][1], empty[0][1]))


def preemptions_rare(ctx: Context) -> Outcome:
    """A counter that is not zero and yet no rate: hardly any of the requests were preempted."""
    lost, done = (
        read.top(ctx, "serving.preemptions"),
        read.top(ctx, "serving.finished") or read.top(ctx, "serving.server.requests"),
    )
    if lost is None or done is None or lost[0] < 1:
        return UNKNOWN
    return read.yes(lost[1], done[1]) if lost[0] < 0.002 * done[0] else read.no(lost[1], done[1])


def preemptions_harmless(ctx: Context) -> Outcome:
    """The worry is a preemption counter whose rate is nothing, with no queue."""
    rare, waiting = preemptions_rare(ctx), read.waiting(ctx)
    before = [e for v, e in ctx.numbers("serving.counter", {"label": "^preemptions$"}) if v > 0]
    still = [e for v, e in ctx.numbers("serving.preemptions", {"label": "^total$"}) if v == 0 and e.formula == "a - b"]
    if before and still:  # read twice, and it stood
        rare = Outcome(True, (still[0], before[0]))
    if not rare.holds or (waiting is not None and waiting[0] > 0):
        return Outcome(rare.holds and None, rare.used)
    calm = ctx.of("serving.mark.within_slo")
    asked = re.search(r"preempt|抢占|alert|alarm|告警|报警|non-?zero|not zero", ctx.symptom, re.IGNORECASE)
    return (
        read.yes(*rare.used, *calm[:1], waiting[1] if waiting else None) if calm or asked else Outcome(None, rare.used)
    )


def tail_run(ctx: Context) -> Outcome:
    """The run's mean is far below the server's steady rate, and at the end hardly anything runs."""
    steady = [n for n in ctx.numbers("serving.gen_tput") if n[0] > 0]
    most, last = read.top(ctx, "serving.running_span", "^max$"), read.top(ctx, "serving.running_span", "^last$")
    waiting = read.waiting(ctx)
    if not steady or most is None or last is None or (waiting is not None and waiting[0] > 0):
        return UNKNOWN
    top = highest(steady)
    means = [read.low(ctx, "serving.client.output_tput")]
    means += [n for n in ctx.numbers("figure", {"label": r"^(decode_)?throughput\|?"}) if n[1].quote != top[1].quote]
    mean = min((m for m in means if m is not None and m[0] >= 1), key=lambda m: m[0], default=None)
    if most[0] >= 16 and last[0] <= 0.05 * most[0] and last[0] >= 1:
        return read.yes(most[1], last[1], top[1]) if mean is None or mean[0] < 0.5 * top[0] else read.no(mean[1])
    return read.no(most[1], last[1])


def floor_met(ctx: Context) -> Outcome:
    """A token takes about as long as reading the weights at the memory's stated rate."""
    weights = read.top(ctx, "serving.weights")
    if weights is not None:
        size, source = weights[0] * 1.073741824, weights[1]
    else:
        said = [
            (value if item.unit == "GiB" else value / 1e9, item) for value, item in ctx.numbers("figure")
            if item.unit in ("B", "GiB") and re.search(r"weights?|checkpoint|model (?:size|is|file)|权重|模型", item.quote or "", re.I)  # noqa: E501
            and (value if item.unit == "GiB" else value / 1e9) >= 0.3
        ]  # fmt: skip
        if not said:
            return UNKNOWN
        size, source = lowest(said)
    rates = [
        n for n in ctx.numbers("figure")
        if n[1].unit == "GB/s" and n[0] >= 60 and re.search(r"mem|hbm|gddr|lpddr|显存|带宽|bandwidth", n[1].quote or "", re.I)  # noqa: E501
    ]  # fmt: skip
    step = read.low(ctx, "serving.client.tpot", "^(median|mean|p50)") or read.low(
        ctx, "serving.server.itl", "^(median|mean)"
    )
    times = (
        [step]
        if step
        else [
            n for n in ctx.numbers("figure", {"label": r"^(tpot|itl)(_mean|_p50|_median)?(\||$)"}) if n[1].unit == "ms"
        ]
    )
    if not times:
        times = [
            (1000 / v, e)
            for v, e in ctx.numbers("figure", {"label": r"^(decode_)?throughput"})
            if e.unit == "tokens/s" and 1 <= v < 400
        ]
    if not rates or not times:
        return UNKNOWN
    rate, time = highest(rates), lowest(times)
    waiting = read.waiting(ctx)
    if waiting is not None and waiting[0] > 0:
        return read.no(waiting[1])
    times_floor = time[0] / (size / rate[0] * 1000)
    return read.yes(time[1], source, rate[1]) if 0.9 <= times_floor <= 1.5 else read.no(time[1], source, rate[1])


def memory_reserved(ctx: Context) -> Outcome:
    """The worry is memory in use at rest; the engine reserves it at start for its cache, and nothing runs."""
    if not re.search(r"memory|leak|vram|\bGB\b|GiB|显存|内存", ctx.symptom, re.IGNORECASE):
        return UNKNOWN
    share = next(iter(ctx.of("serving.arg", {"label": read.FRACTIONS})), None)
    pool = (
        read.top(ctx, "serving.kv_tokens") or read.top(ctx, "serving.kv_memory") or read.top(ctx, "serving.kv_blocks")
    )
    running, rate = read.top(ctx, "serving.running"), read.top(ctx, "serving.gen_tput")
    idle = next((r for r in (running, rate, read.top(ctx, "gpu.util")) if r is not None), None)
    grown = [n for n in ctx.numbers("trend.growth", {"label": "memory|used"}) if n[0] > 1.1]
    failed = [s for s in ("gpu.oom", "oom.*", "serving.mark.kv_too_small") if ctx.of(s)]
    if idle is None or (share is None and pool is None) or grown or failed:
        return UNKNOWN
    return read.yes(pool[1] if pool else None, share, idle[1]) if idle[0] == 0 else read.no(idle[1])


def first_schema(ctx: Context) -> Outcome:
    """The first call with a schema or tools is slow, a later one with the same is not."""
    for ratio, item in ctx.numbers("compare.ratio"):
        parts = (item.subject.label or "").split("|")
        if len(parts) != 4 or ratio < 3 or not re.search("ttft|latency|e2e|time", parts[1]):
            continue
        if _FIRST.search(parts[2]) and _LATER.search(parts[3]):
            told = [e for e in ctx.of("figure") if _SCHEMA.search(e.quote or "")] or ctx.of(
                "serving.arg", {"label": "grammar|guided|tool-call"}
            )
            if told and (_SCHEMA.search(ctx.symptom) or len(told) >= 2):
                return read.yes(item, told[0])
    return UNKNOWN


def diverges_with_context(ctx: Context) -> Outcome:
    """Two settings are equal at short context and far apart at long: attention, which reads the whole cache."""
    rows: dict[float, list[tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers(
        "figure", {"label": r"^(tpot|itl|decode_throughput|ttft|prefill|throughput)[^|]*\|"}
    ):
        size = re.fullmatch(
            r"(?:ctx|context|prompt|len)?[ =_]*(\d[\d,]*(?:\.\d+)?)\s*(k)?(?: tokens| ctx| context)?",
            (item.subject.label or "").split("|")[1].strip(),
            re.I,
        )
        if size and value > 0:
            rows.setdefault(float(size[1].replace(",", "")) * (1000 if size[2] else 1), []).append((value, item))
    rows = {k: v for k, v in rows.items() if len(v) >= 2}
    if len(rows) < 2:
        return UNKNOWN
    short, long = (sorted(rows[k], key=lambda n: n[0]) for k in (min(rows), max(rows)))
    near, far = short[-1][0] / short[0][0], long[-1][0] / long[0][0]
    used = [short[-1][1], long[-1][1], long[0][1]]
    return read.yes(*used) if near <= 1.35 and far >= 1.6 and max(rows) >= 4 * min(rows) else read.no(*used[:2])


def attention_diverges(ctx: Context) -> Outcome:
    """They diverge with context, and the attention backend is what was chosen by hand."""
    got = diverges_with_context(ctx)
    if not got.holds:
        return got
    chosen = [
        *ctx.of("env.var", {"label": "ATTENTION_BACKEND"}),
        *ctx.of("serving.arg", {"label": "attention-backend"}),
        *ctx.of("serving.attention_backend"),
    ]
    return read.yes(*got.used, chosen[0]) if chosen else Outcome(None, got.used)


def tp_crosses_nodes(ctx: Context) -> Outcome:
    """The tensor-parallel group is larger than a node, so its all-reduces cross the network."""
    sizes = [o for o in read.option(ctx, read.TENSOR_PARALLEL) if o[0] > 1]
    wire = [e for e in ctx.of("nccl.transport") if "NET/" in str(e.value)]
    met = [e.subject for e in ctx.of("nccl.init.*") if e.subject.host]
    if wire and len({m.host for m in met}) == 1 and len({m.rank for m in met}) > 1:
        wire = []  # sockets between the ranks of one host: P2P and shared memory are off
    if not sizes or not (wire or max(s[0] for s in sizes) > 8):
        return UNKNOWN
    return read.yes(highest(sizes)[1], wire[0] if wire else None)


def start_is_compile(ctx: Context) -> Outcome:
    """The question is how long a start takes, and most of it is compiling and capturing."""
    parts = ctx.numbers("serving.compile_time", {"label": "^(torch.compile|graph capture)$"})
    if not any(e.subject.label == "torch.compile" for _, e in parts):
        parts += ctx.numbers("serving.compile_time", {"label": "^torch.compile part$"})
    whole = read.top(ctx, "serving.compile_time", "engine start")
    if not parts or (ctx.symptom and not _START.search(ctx.symptom)):
        return UNKNOWN
    total = sum(p[0] for p in parts)
    load = read.top(ctx, "host.load_time")
    if load is not None and load[0] > total:
        return read.no(parts[0][1], load[1])
    if whole is None:
        return read.yes(*(p[1] for p in parts)) if total >= 60 else read.no(parts[0][1])
    return read.yes(*(p[1] for p in parts), whole[1]) if total >= 0.5 * whole[0] and total >= 30 else read.no(whole[1])


def bench_repeats(ctx: Context) -> Outcome:
    """A benchmark whose prompts nearly all come from the cache measures the cache."""
    hit, sent = read.top(ctx, "serving.prefix_hit_rate"), read.top(ctx, "serving.client.prompts")
    few = ctx.of("serving.mark.few_prompts")
    if hit is None or hit[0] < 0.8:
        return read.yes(few[0], sent[1] if sent else None) if few and hit is None else UNKNOWN
    if sent is None and not few:
        return UNKNOWN
    doubt = re.search(
        r"bench|measur|production|real|live|expected|too good|压测|线上|生产|评测", ctx.symptom, re.IGNORECASE
    )
    return read.yes(hit[1], sent[1] if sent else None, *few[:1]) if few or doubt else Outcome(None, (hit[1],))


def launch_gaps(ctx: Context) -> Outcome:
    """A step lasts a multiple of the time that its kernels run."""
    busy = [n for n in ctx.numbers("figure", {"label": "^compute_time"}) if re.search("kernel", n[1].quote or "", re.I)]
    for value, item in busy:
        for other, around in ctx.numbers("figure", {"label": "^(time|step_time|tpot|itl|latency)"}):
            if (
                around.quote == item.quote
                and around.unit == item.unit
                and other >= 2 * value > 0
                and _STEP.search(item.quote or "")
            ):
                return read.yes(item, around)
    return UNKNOWN


def eager_gaps(ctx: Context) -> Outcome:
    """Graphs are off, and the step is mostly gaps between kernels."""
    gaps = launch_gaps(ctx)
    off = [*ctx.of("serving.mark.cudagraph_none"), *ctx.of("serving.mark.eager")]
    if not gaps.holds:
        return gaps
    return read.yes(*gaps.used, off[0]) if off else Outcome(None, gaps.used)


def prefix_varies(ctx: Context) -> Outcome:
    """Prompts have text in common, the question is the work it should save, and the head of the prompt changes."""
    mark = next(iter(ctx.of("serving.mark.prefix_varies")), None)
    if mark is None:
        return UNKNOWN
    asked = ctx.asks("high-ttft", "low-throughput", "") and (
        _SHARED.search(ctx.symptom) or any(_IN_TEXT.search(q) for q in _quotes(ctx))
    )
    return read.yes(mark) if asked else Outcome(None, (mark,))


def _pairs(ctx: Context, metrics: str) -> Iterable[tuple[float, str, str, Evidence]]:
    """Comparisons as (ratio, worse setting, better setting, evidence)."""
    for ratio, item in ctx.numbers("compare.ratio"):
        parts = (item.subject.label or "").split("|")
        if len(parts) == 4 and re.search(metrics, parts[1]):
            yield ratio, parts[2], parts[3], item


def first_call_slow(ctx: Context) -> Outcome:
    """The first call of its kind is a multiple of later ones, more than once or by far, and neither schema nor prefix differs."""  # noqa: E501
    got = [
        (ratio, item) for ratio, worse, better, item in _pairs(ctx, "ttft|latency|e2e|time|tpot|itl|step|prefill")
        if _FIRST.search(worse) and _LATER.search(better) and not _SCHEMA.search(worse + better) and not re.search("prefix|cache hit|same prompt", worse + better, re.I)  # noqa: E501
    ]  # fmt: skip
    cached = [*ctx.of("compare.multiple", {"label": "hit|cached|prefix"}), *ctx.of("serving.attention_block")]
    if first_schema(ctx).holds or cached:
        return UNKNOWN  # the second call reuses the prefix of the first
    slow = [g for g in got if g[0] >= 5]
    if len(slow) >= 2 or any(ratio >= 15 for ratio, _ in slow):
        return read.yes(*(item for _, item in slow[:3]))
    return _first_row(ctx)


def _first_row(ctx: Context) -> Outcome:
    """Rows numbered 1, 2, 3 … of which only the first is slow."""
    rows: dict[str, dict[int, tuple[float, Evidence]]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(ttft|latency|e2e|time)[^|]*\|\D{0,12}\d+$"}):
        metric, _, name = (item.subject.label or "").partition("|")
        number = read.numbers(name)
        if number is not None:
            rows.setdefault(metric, {}).setdefault(int(number), (value, item))
    for got in rows.values():
        order = sorted(got)
        if len(order) >= 3 and order[0] in (0, 1) and order == list(range(order[0], order[0] + len(order))):
            rest = sorted(got[n][0] for n in order[1:])
            if rest[-1] <= 2 * rest[0] and got[order[0]][0] >= 5 * rest[-1]:
                return read.yes(got[order[0]][1], got[order[1]][1])
    return UNKNOWN


def schema_costs(ctx: Context) -> Outcome:
    """A request with a schema is slower than one without, or than the same again."""
    for ratio, worse, better, item in _pairs(ctx, "ttft|latency|e2e|time|tpot|itl|throughput"):
        if (
            ratio >= 1.8
            and _SCHEMA.search(worse)
            and (not _SCHEMA.search(better) or _LATER.search(better))
            and not _SCHEMA.search(better.replace("schema again", ""))
        ):
            return read.yes(item)
    return UNKNOWN


_QUANT = regex(
    r"\b(awq|gptq|fp8|fp4|nvfp4|mxfp4|int[48]|nf4|bnb|bitsandbytes|w[48]a(?:8|16)|q[2-8]_\w+|gguf|4-?bit|8-?bit|量化)\b",
    re.I,
)
_PLAIN = regex(r"\b(bf16|fp16|bfloat16|float16|half|unquanti[sz]ed|original|full precision)\b|未量化", re.I)


def quant_slower(ctx: Context) -> Outcome:
    """Among figures of one kind the quantised weights are slower than the plain ones."""
    kinds: dict[tuple[str, str | None], list[tuple[float, str, Evidence]]] = {}
    for value, item in ctx.numbers("figure", {"label": r"^(tpot|itl|decode_throughput|throughput|latency|e2e)[^|]*\|"}):
        metric, _, name = (item.subject.label or "").partition("|")
        kinds.setdefault((metric, item.unit), []).append((value, name, item))
    for (metric, _unit), got in kinds.items():
        plain = [g for g in got if _PLAIN.search(g[1]) and not _QUANT.search(g[1])]
        quant = [g for g in got if _QUANT.search(g[1])]
        if len(plain) != 1 or not quant:
            continue
        rate = "throughput" in metric
        slowest = lowest(quant) if rate else highest(quant)
        ratio = plain[0][0] / slowest[0] if rate else slowest[0] / plain[0][0]
        if slowest[0] > 0 and ratio >= 1.1:
            return read.yes(slowest[2], plain[0][2])
    return UNKNOWN


_RIVALS = "^(client|proxy|version|prefix_cache|attention_backend|structured_output|scheduler|measured_by)\\|"
_SIZE = regex(r"(\d[\d,]*(?:\.\d+)?) ?(k)?\b", re.IGNORECASE)


def ttft_follows_length(ctx: Context) -> Outcome:
    """The first token comes later about in proportion to the length of the prompt."""
    if not (pairs := list(_pairs(ctx, "ttft|prefill|first|time|latency"))):
        return UNKNOWN
    said = re.compile(r"prompt|document|context|input|length|tokens|文档|上下文|长度", re.IGNORECASE)
    spoken = said.search(ctx.symptom) or any(said.search(q) for q in _quotes(ctx))
    other = [e for v, e in ctx.numbers("compare.ratio", {"label": _RIVALS}) if v >= 1.5]
    if chunks_tiny(ctx).holds or other:
        return UNKNOWN
    for ratio, worse, better, item in pairs:
        axis = (item.subject.label or "").split("|")[0]
        sizes = [_SIZE.search(worse), _SIZE.search(better)]
        if axis not in ("prompt_length", "message_size") or not spoken or sizes[0] is None or sizes[1] is None:
            continue
        large, small = (float(m[1].replace(",", "")) * (1000 if m[2] else 1) for m in sizes if m is not None)
        if small > 0 and large >= 4 * small and large >= 8000 and ratio >= max(3.0, 0.4 * large / small):
            return read.yes(item)
    return UNKNOWN


_FAR = regex(
    r"\b(browser|client|users?|app|gateway|proxy|ingress|outside|laptop|curl|frontend|front end|balancer|public)\b"
    r"|客户端|网关|浏览器|用户|外部",
    re.I,
)
_NEAR = regex(
    r"\b(servers?|engine|vllm|sglang|histogram|pod|worker|metrics?|direct(?:ly)?|localhost|inside|backend|in-cluster|container)\b|服务端|引擎|直连|内部",
    re.I,
)


def hop_measured(ctx: Context) -> Outcome:
    """One quantity, near at the server and far from it: it is late only far away."""
    for ratio, worse, better, item in _pairs(ctx, "ttft|latency|e2e|itl|time|first"):
        axis = (item.subject.label or "").split("|")[0]
        far = _FAR.search(worse) or "first byte" in worse.lower()
        apart = far and _NEAR.search(better) and not _NEAR.search(worse) and not _FAR.search(better)
        if ratio >= 1.8 and apart and axis not in ("version", "client"):
            return read.yes(item)
    return UNKNOWN


_ALL: tuple[Callable[[Context], Outcome], ...] = (
    prefix_off_asked, chunks_tiny, pool_binds, arg_not_applied, gpus_unused, preemptions_rare, preemptions_harmless, tail_run, floor_met,  # noqa: E501
    memory_reserved, first_schema, diverges_with_context, attention_diverges, tp_crosses_nodes, start_is_compile, bench_repeats,  # noqa: E501
    launch_gaps, eager_gaps, prefix_varies, first_call_slow, schema_costs, quant_slower, hop_measured, ttft_follows_length,  # noqa: E501
)  # fmt: skip
RULES: dict[str, Callable[[Context], Outcome]] = {f"serving_{rule.__name__}": rule for rule in _ALL}
