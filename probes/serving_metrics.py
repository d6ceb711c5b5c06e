"""Prometheus pages of inference servers: whole pages, timelines of pages, and lines copied by hand.

Every name is mapped to one vocabulary (`serving_names`). Gauges become the moment with the most
waiting; counters and histograms are kept as read (first and last of a timeline), and the deriver takes
differences between two pages of one server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import metric_labels
from .plateau import plateau
from .serving_names import BUCKETED, COUNTERS, GAUGE_UNITS, GAUGES, HISTOGRAMS, SECONDS

_LINE = regex(
    r"""(?P<name>(?:vllm|sglang|lmdeploy|llamacpp):\w+|(?:trtllm|tgi|dynamo|nv_trt_llm|nv_inference)_\w+|http_requests_total|process_start_time_seconds)
        (?P<labels>\{[^}]*\})?
        \)?(?:[\s:=|]|\bdelta\b|\bis\b)*
        (?P<value>[+-]?(?:\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+|Inf|NaN))\s*(?P<pct>%)?
        (?:\s*(?:->|→|=>)\s*(?P<then>\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?))?""",
    re.VERBOSE,
)
_SPOKEN = regex(
    r"""(?P<name>(?:vllm|sglang):\w+?_seconds|dynamo_frontend_\w+_seconds|request_(?:queue|prefill|decode)_time(?:_seconds)?)\b[^\d\n]{0,12}?
        \(?(?P<stat>mean|avg|average|median|p\d\d)\)?[^\d\n]{0,6}(?P<value>\d[\d,]*(?:\.\d+)?)\s*(?P<unit>ms|s)?\b""",
    re.VERBOSE | re.IGNORECASE,
)
_INFO_ARGS = ("num_gpu_blocks_override", "gpu_memory_utilization", "enable_prefix_caching", "swap_space_bytes")


@dataclass
class _Series:
    """One series of one page."""

    value: float
    line: Line


@dataclass
class _Page:
    """One scrape: gauges, counters and histograms by canonical label."""

    keys: set[str] = field(default_factory=set)
    gauges: dict[str, list[_Series]] = field(default_factory=dict)
    counters: dict[str, list[_Series]] = field(default_factory=dict)
    buckets: dict[str, dict[str, float]] = field(default_factory=dict)
    where: dict[str, Line] = field(default_factory=dict)

    def total(self, kind: dict[str, list[_Series]], label: str) -> float | None:
        """Sum over series; None when the page has none."""
        got = kind.get(label)
        return sum(s.value for s in got) if got else None


def _canonical(table: dict[str, tuple[str, tuple[str, str] | None]], name: str, labels: dict[str, str]) -> str | None:
    plain = name.removesuffix("_total")
    for key in (name, plain):
        if key in table:
            return table[key][0]
    for value in labels.values():
        hit = table.get(f"{plain}@{value}")
        if hit is not None:
            return hit[0]
    return None


class ServingMetricsReader:
    """Facts of Prometheus text, whole or in pieces."""

    name = "serving_metrics"
    needles: tuple[bytes, ...] = (b"vllm:", b"sglang:", b"trtllm_", b"tgi_", b"dynamo_frontend_", b"dynamo_component_", b"nv_trt_llm_",  # noqa: E501
               b"lmdeploy:", b"llamacpp:", b"nv_inference_pending", b"request_queue_time",
               b"request_prefill_time")  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Yield gauges at the busiest moment, and counters as read at both ends."""
        if doc.size > 256 << 20:
            return
        pages: list[_Page] = [_Page()]
        info: set[str] = set()
        for line in doc.lines():
            text = line.text
            if text.startswith("#") or ("_" not in text) or "_created" in text:
                continue
            spoken = _SPOKEN.search(text)
            if spoken:
                yield from self._spoken(doc, line, spoken)
                continue
            for hit in _LINE.finditer(text):
                name = hit.group("name")
                labels = metric_labels(hit.group("labels") or "")
                if name == "process_start_time_seconds":
                    if name not in info:
                        info.add(name)
                        yield Fact("serving.server_start", float(hit.group("value").replace(",", "")), "s", Subject(),
                                   (doc.span(line),), status=doc.status)  # fmt: skip
                    continue
                if "model_name" in labels and "model_name" not in info:
                    info.add("model_name")
                    yield Fact("serving.model", labels["model_name"][:200], None, Subject(),
                               (doc.span(line, 'model_name="'),), status=doc.status)  # fmt: skip
                if name.endswith("cache_config_info"):
                    yield from self._info(doc, line, labels, info)
                    continue
                self._put(pages, line, name, hit, labels)
        yield from self._facts(doc, pages)

    @staticmethod
    def _spoken(doc: Document, line: Line, hit: re.Match[str]) -> Iterator[Fact]:
        name = hit.group("name")
        found = HISTOGRAMS.get(name) or HISTOGRAMS.get(f"vllm:{name.removesuffix('_seconds')}_seconds")
        if found is None or found[0] not in SECONDS:
            return
        value = float(hit.group("value").replace(",", ""))
        stat = hit.group("stat").lower().replace("average", "mean").replace("avg", "mean")
        yield Fact(f"serving.server.{found[0]}", value if hit.group("unit") == "ms" else round(value * 1000, 6), "ms",
                   Subject(label=stat), (doc.span(line, hit.group()),), status=doc.status)  # fmt: skip

    @staticmethod
    def _info(doc: Document, line: Line, labels: dict[str, str], seen: set[str]) -> Iterator[Fact]:
        for key in _INFO_ARGS:
            value = labels.get(key, "None")
            if value != "None" and key not in seen:
                seen.add(key)
                yield Fact("serving.arg", value.lower() if value in ("True", "False") else value, None,
                           Subject(label=key.replace("_", "-")), (doc.span(line, f'{key}="'),),
                           status=doc.status)  # fmt: skip
        for key, signal, label in (("num_gpu_blocks", "serving.kv_blocks", "in use"),
                                   ("kv_cache_max_concurrency", "serving.max_concurrency", "requests"),
                                   ("kv_cache_size_tokens", "serving.kv_tokens", None)):  # fmt: skip
            value = labels.get(key, "None")
            if re.fullmatch(r"\d+(\.\d+)?", value) and key not in seen:
                seen.add(key)
                yield Fact(signal, float(value), "count", Subject(label=label), (doc.span(line, f'{key}="'),),
                           status=doc.status)  # fmt: skip

    @staticmethod
    def _put(pages: list[_Page], line: Line, name: str, hit: re.Match[str], labels: dict[str, str]) -> None:
        try:
            value = float(hit.group("value").replace(",", ""))
        except ValueError:
            return
        if value != value:  # NaN: the server has nothing to say yet
            return
        if name.startswith("http_") and labels.get("method") in ("GET", "HEAD", "OPTIONS"):
            return  # a monitor's, or this tool's
        if hit.group("pct"):
            value = round(value / 100, 6)
        page = pages[-1]
        key = name + str(sorted(labels.items()))
        if key in page.keys:
            page = _Page()
            pages.append(page)
        page.keys.add(key)
        then = hit.group("then")
        after = float(then.replace(",", "")) if then else None
        label = _canonical(GAUGES, name, labels)
        if label is not None:
            page.gauges.setdefault(label, []).append(_Series(value if after is None else max(value, after), line))
            return
        label = _canonical(COUNTERS, name, labels)
        if label is None:
            for suffix in ("_sum", "_count", "_bucket"):
                if name.endswith(suffix):
                    stem = _canonical(HISTOGRAMS, name.removesuffix(suffix), labels)
                    label = f"{stem}{suffix}" if stem else None
        if label is None:
            return
        if label.endswith("_bucket"):
            stem = label.removesuffix("_bucket")
            if stem in BUCKETED and "le" in labels:
                bucket = page.buckets.setdefault(stem, {})
                bucket[labels["le"]] = bucket.get(labels["le"], 0.0) + value
                page.where.setdefault(stem, line)
            return
        page.counters.setdefault(label, []).append(_Series(value, line))
        if after is not None:
            later = _Page()
            later.counters[label] = [_Series(after, line)]
            pages.insert(len(pages) - 1, later)

    def _facts(self, doc: Document, pages: list[_Page]) -> Iterator[Fact]:
        def load(page: _Page) -> tuple[float, float, float]:
            return tuple(page.total(page.gauges, k) or 0.0 for k in ("waiting", "running", "kv_usage"))  # type: ignore[return-value]

        scraped = [p for p in pages if p.gauges]
        if scraped:
            peak = max(scraped, key=load)
            queued = sum((p.total(p.gauges, "waiting") or 0) > 0 for p in scraped)
            for label, series in peak.gauges.items():
                unit = GAUGE_UNITS.get(label, "count")
                fact = self._sum(doc, f"serving.{label}", label, unit, series, label in ("kv_usage", "prefix_hit_rate"))
                yield from fact if label != "waiting" or queued < 2 else (self._counted(f, queued) for f in fact)
            held = [s for p in scraped if (p.total(p.gauges, "waiting") or 0) > 0 for s in p.gauges.get("running", [])]
            if (stays := plateau([(s.value, s.line) for s in held])) is not None:
                yield Fact(
                    "serving.running_stays", stays[0], "count", Subject(), (doc.span(stays[1]),), status=doc.status
                )
            top = max(scraped, key=lambda p: max((s.value for s in p.gauges.get("kv_usage", [])), default=0.0))
            if top is not peak and top.gauges.get("kv_usage"):
                best = max(top.gauges["kv_usage"], key=lambda s: s.value)
                yield Fact("serving.kv_usage", best.value, "fraction", Subject(label="max"), (doc.span(best.line),),
                           status=doc.status)  # fmt: skip
        labels = list(dict.fromkeys(label for p in pages for label in p.counters))
        for label in labels:
            with_it = [p for p in pages if label in p.counters]
            first = min(with_it, key=lambda p: p.total(p.counters, label) or 0.0)
            last = max(with_it[::-1], key=lambda p: p.total(p.counters, label) or 0.0)  # one that stands has both ends
            ends = {id(p): p for p in (first, last)}
            seconds = label.endswith("_sum") and label.removesuffix("_sum") in SECONDS
            for page in ends.values():
                yield from self._sum(doc, "serving.counter_time" if seconds else "serving.counter", label,
                                     "s" if seconds else "count", page.counters[label], False)  # fmt: skip
        for stem in sorted(BUCKETED):
            with_it = [p for p in pages if stem in p.buckets]
            for page in {id(p): p for p in (with_it[:1] + with_it[-1:])}.values():
                text = " ".join(f"{le}:{n:g}" for le, n in page.buckets[stem].items())
                line = page.where[stem]
                yield Fact(
                    "serving.histogram", text[:2000], None, Subject(label=stem), (doc.span(line),), status=doc.status
                )

    @staticmethod
    def _counted(fact: Fact, count: int) -> Fact:
        return replace(fact, count=count)

    @staticmethod
    def _sum(doc: Document, signal: str, label: str, unit: str, series: list[_Series], highest: bool) -> Iterator[Fact]:
        """One series is a reading; several are added up (or, for shares, the highest is taken)."""
        tag = {"running": "peak", "waiting": "peak", "kv_usage": "peak", "swapped": "peak", "prefix_hit_rate": "last",
               "max_num_seqs": "effective", "kv_blocks": "in use"}.get(label)  # fmt: skip
        if signal.startswith("serving.counter"):
            tag = label
        live = [s for s in series if s.value] or series[:1]
        if highest:
            live = [max(live, key=lambda s: s.value)]
        parts = tuple(
            Fact(signal, s.value, unit, Subject(label=tag if len(live) == 1 else f"{tag} part {i}"),
                 (doc.span(s.line),), status=doc.status)
            for i, s in enumerate(live[:20], 1)
        )  # fmt: skip
        if len(parts) == 1:
            yield parts[0]
            return
        yield Fact(signal, sum(float(p.value or 0) for p in parts), unit, Subject(label=tag),
                   tuple(p.spans[0] for p in parts[:1]), kind="derived",
                   formula=" + ".join("abcdefghijklmnopqrstuvwxyz"[: len(parts)]), inputs=parts,
                   status=doc.status)  # fmt: skip


READERS: list[Reader] = [ServingMetricsReader()]
