"""NIXL and KV transfer: vLLM's statistics, metrics of vLLM and SGLang, telemetry, Mooncake, LMCache, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import canonical

from .facts import amount, divided, whole

_SAMPLE = regex(r"^(\w+:\w+)(?:\{([^}]*)\})?\s+([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$")
# metric stem -> (signal, factor to its unit, unit)
_METRICS = {
    "vllm:nixl_xfer_time_seconds": ("kv.xfer_time", 1e3, "ms"),
    "vllm:nixl_post_time_seconds": ("kv.post_time", 1e3, "ms"),
    "vllm:nixl_bytes_transferred": ("kv.bytes", 1.0, "B"),
    "vllm:nixl_num_descriptors": ("kv.descriptors", 1.0, "count"),
    "sglang:kv_transfer_latency_ms": ("kv.xfer_time", 1.0, "ms"),
    "sglang:kv_transfer_speed_gb_s": ("kv.throughput", 1.0, "GB/s"),
    "sglang:kv_transfer_total_mb": ("kv.bytes", 2.0**20, "B"),
}
_TTFT = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
_FAILED = regex(
    r"nixl_num_(failed_transfers|failed_notifications|kv_expired_reqs)|num_(transfer|bootstrap)_failed_reqs"
)
_STAT = regex(
    r"(Avg xfer time \(ms\)|Avg post time \(ms\)|Avg MB per transfer|Throughput \(MB/s\)"
    r"|Avg number of descriptors|Num failed transfers|Num KV expired reqs)=(\d+(?:\.\d+)?)"
)
_STAT_SIGNAL = {
    "Avg xfer time (ms)": ("kv.xfer_time", 1.0, "ms"), "Avg post time (ms)": ("kv.post_time", 1.0, "ms"),
    "Avg MB per transfer": ("kv.bytes", 2.0**20, "B"), "Throughput (MB/s)": ("kv.throughput", 2.0**20 / 1e9, "GB/s"),
    "Avg number of descriptors": ("kv.descriptors", 1.0, "count"),
    "Num failed transfers": ("kv.failed", 1.0, "count"), "Num KV expired reqs": ("kv.failed", 1.0, "count"),
}  # fmt: skip
_MOONCAKE = regex(r"Transfer Engine Stats.*?Throughput:\s*(\d+(?:\.\d+)?)\s*(MB/s|GB/s)")
_LMCACHE = regex(
    r"(Retrieved|Stored|Retrieve|Store)\b.*?\bcost\s+(\d+(?:\.\d+)?)\s*ms.*?throughput:\s*(\d+(?:\.\d+)?)\s*GB/s", re.I
)
_SETTINGS = regex(
    r"""["']?(kv_connector|kv_role|kv_buffer_device|kv_connector_module_path|enforce_handshake_compat|backends|use_host_buffer)["']?\s*[:=]\s*\[?["']?([\w.]+)"""
)
_SIDE = regex(
    r"""\b(VLLM_NIXL_SIDE_CHANNEL_(?:HOST|PORT)|VLLM_NIXL_ABORT_REQUEST_TIMEOUT|MC_FORCE_TCP|MOONCAKE_PROTOCOL|NIXL_PLUGIN_DIR|NIXL_\w+)["'\]]*\s*[:=]\s*["']?([^\s"',;)]+)"""
)
_FLAG = regex(r"--(disaggregation-(?:transfer-backend|ib-device|mode|bootstrap-port))[ =]+(\S+)")
_QUANTITY = r"~?\s*(\d[\d,]*(?:\.\d+)?)(?:\s*[-–]\s*(\d[\d,]*(?:\.\d+)?))?"
_DESCRIPTORS = regex(rf"\bdesc(?:riptor)?s?\b[^\d=:|]{{0,40}}[\s=:|]+{_QUANTITY}\s*(k\b)?", re.I)
_PAYLOAD = regex(
    rf"\b(?:payload|bytes|size)\b[^\d=:|]{{0,30}}per (?:transfer|request"
    rf"|xfer)[^\d]{{0,12}}{_QUANTITY}\s*([KMGT]i?B|B)\b|\b(?:payload|transfer size"
    rf"|kv size)\b[^\d]{{0,20}}{_QUANTITY}\s*([KMGT]i?B)\b",
    re.I,
)
_PER_DESCRIPTOR = regex(
    rf"(?:(?:bytes|size|[KMG]i?B)\s*(?:per|/)\s*desc(?:riptor)?|desc(?:riptor)?\s+size|(?:avg|average"
    rf"|mean)\.?\s+desc(?:riptor)?(?:\s+(?:size|bytes|len\w*))?)[^\d]{{0,16}}{_QUANTITY}\s*([KMG]i?B|B"
    rf"|bytes)\b"
    rf"|{_QUANTITY}\s*([KMG]i?B|B|bytes)\s*(?:per|/)\s*(?:desc(?:riptor)?|op|piece|wr|fragment|block copy)\b", re.I
)  # fmt: skip
_MEAN_SIZE = regex(
    rf"\b(?:avg|average|mean)\.?\s+(read|write|io|op|operation|request|piece|chunk|fragment"
    rf"|transfer unit)\s+size\s*[:=]?\s*{_QUANTITY}\s*([KMG]i?B|B|bytes)\b",
    re.I,
)
# Fields of a NIXL telemetry record, printed or as JSON; times in microseconds.
_TELEMETRY = regex(r"\b(desc_?count|total_?bytes|post_?duration|xfer_?duration)\W{1,4}(\d+)", re.I)
_TELEMETRY_SIGNAL = {
    "desccount": ("kv.descriptors", 1.0, "count"), "totalbytes": ("kv.bytes", 1.0, "B"),
    "postduration": ("kv.post_time", 1e-3, "ms"), "xferduration": ("kv.xfer_time", 1e-3, "ms"),
}  # fmt: skip
_POST_SHARE = regex(
    r"(?:post(?:ing)?|submi\w+)\b[^%\n]{0,40}?(\d+(?:\.\d+)?)\s*%"
    r"|(\d+(?:\.\d+)?)\s*%[^\n]{0,30}\b(?:post(?:ing)?|submitting)\b",
    re.I,
)


# What programs print; figures that people type are looked for in short documents only.
_MARKERS = (
    "nixl_",
    "kv_transfer_",
    "time_to_first_token",
    "_failed_reqs",
    "KV Transfer",
    "Transfer Engine",
    "throughput:",
)
_FIELDS = ("esc_count", "escCount", "otal_bytes", "otalBytes", "_duration", "Duration")


class TransferReader:
    """Statistics of KV transfers, whoever prints them, and the arithmetic on them."""

    name = "kv_transfer"
    needles = (
        b"KV Transfer metrics", b"nixl_", b"kv_transfer_", b"Transfer Engine Stats", b"escriptor", b"throughput:",
        b"totalBytes", b"total_bytes", b"desc", b"avg ", b"mean ", b"verage ", b"posting", b"/op", b"per op",
        b"_failed_reqs",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        sums: dict[tuple[str, str], tuple[float, Line]] = {}
        stats: dict[str, Fact] = {}
        written: dict[str, Fact] = {}
        telemetry: dict[str, Fact] = {}
        short = doc.size <= 1 << 18
        # of a long log nearly every line has nothing to say here
        for line in doc.lines() if short else doc.holding(*_MARKERS, *_FIELDS):
            text = line.text
            sample = _SAMPLE.match(text)
            if sample:
                name = sample.group(1)
                for part in ("_sum", "_count"):
                    if name.endswith(part):
                        stem = name[: -len(part)]
                        value = sums.get((stem, part), (0.0, line))[0] + float(sample.group(3))
                        sums[(stem, part)] = (value, line)
                if _FAILED.search(name) and float(sample.group(3)) > 0 and not name.endswith("_created"):
                    yield self._fact(doc, line, "kv.failed", float(sample.group(3)), "count", name)
                continue
            for key, value in _STAT.findall(text):
                signal, factor, unit = _STAT_SIGNAL[key]
                fact = self._fact(doc, line, signal, float(value) * factor, unit, key)
                if signal != "kv.failed":
                    stats[signal] = fact  # the last interval stands for the run
                elif float(value) > 0:
                    yield fact
            yield from self._engines(doc, line)
            for key, value in _TELEMETRY.findall(text):
                signal, factor, unit = _TELEMETRY_SIGNAL[key.lower().replace("_", "")]
                telemetry[signal] = self._fact(doc, line, signal, float(value) * factor, unit, "telemetry")
            if short:
                self._written(doc, line, written)
        for group in (stats, self._means(doc, sums), telemetry, written):
            yield from group.values()
            yield from self._derived(doc, group)
        yield from self._share(doc, sums)

    @staticmethod
    def _fact(doc: Document, line: Line, signal: str, value: float, unit: str, label: str) -> Fact:
        return Fact(signal, value, unit, Subject(label=label), (doc.span(line, label),), status=doc.status)

    def _engines(self, doc: Document, line: Line) -> Iterator[Fact]:
        hit = _MOONCAKE.search(line.text)
        got = canonical(float(hit.group(1)), hit.group(2)) if hit else None
        if got:
            yield self._fact(doc, line, "kv.throughput", got[0], got[1], "mooncake")
        hit = _LMCACHE.search(line.text)
        if hit:
            label = "lmcache " + hit.group(1).lower()
            yield self._fact(doc, line, "kv.xfer_time", float(hit.group(2)), "ms", label)
            yield self._fact(doc, line, "kv.throughput", float(hit.group(3)), "GB/s", label)

    def _written(self, doc: Document, line: Line, out: dict[str, Fact]) -> None:
        """Figures that people type: "descriptors per transfer 91,000-120,000", "16 KiB per descriptor"."""
        text = line.text
        size = _MEAN_SIZE.search(text)
        found = canonical(amount(size.group(2)), size.group(4)) if size else None
        if size and found:
            value = found[0] * 2**30 if found[1] == "GiB" else found[0]
            label = f"mean {size.group(1).lower()} size"
            out.setdefault(label, self._fact(doc, line, "kv.bytes_per_descriptor", value, "B", label))
        if not re.search(r"desc|payload|per transfer|/op|per op|post|submit|piece|fragment", text, re.I):
            return
        if "Avg number of descriptors=" in text:
            return
        hit = _PER_DESCRIPTOR.search(text)
        if hit:
            groups = [g for g in hit.groups() if g]
            got = canonical(amount(groups[0]), groups[-1])
            if got:
                value = got[0] * 2**30 if got[1] == "GiB" else got[0]
                out.setdefault(
                    "kv.bytes_per_descriptor",
                    self._fact(doc, line, "kv.bytes_per_descriptor", value, "B", "as written"),
                )
        else:
            hit = _DESCRIPTORS.search(text)
            after = text[hit.end() : hit.end() + 4].strip() if hit else ""
            if hit and amount(hit.group(1)) >= 16 and not re.match(r"(?:[mu]?s|µs|%|[KMG]i?B)\b", after):
                value = amount(hit.group(1)) * (1e3 if hit.group(3) else 1.0)
                out.setdefault("kv.descriptors", self._fact(doc, line, "kv.descriptors", value, "count", "as written"))
        hit = _PAYLOAD.search(text)
        if hit:
            groups = [g for g in hit.groups() if g]
            got = canonical(amount(groups[0]), groups[-1])
            if got:
                value = got[0] * 2**30 if got[1] == "GiB" else got[0]
                out.setdefault("kv.bytes", self._fact(doc, line, "kv.bytes", value, "B", "as written"))
        hit = _POST_SHARE.search(text)
        if hit and "desc" not in text.lower()[:4]:
            value = float(hit.group(1) or hit.group(2)) / 100
            out.setdefault("kv.post_share", self._fact(doc, line, "kv.post_share", value, "fraction", "as written"))

    @staticmethod
    def _means(doc: Document, sums: dict[tuple[str, str], tuple[float, Line]]) -> dict[str, Fact]:
        out: dict[str, Fact] = {}
        for stem, (signal, factor, unit) in _METRICS.items():
            total, count = sums.get((stem, "_sum")), sums.get((stem, "_count"))
            if total is None or count is None or count[0] <= 0:
                continue
            spans = (doc.span(total[1]), doc.span(count[1]))
            out[signal] = Fact(
                signal, total[0] / count[0] * factor, unit, Subject(label=stem), spans, kind="derived",
                formula="reader:kv_transfer", status=doc.status,
            )  # fmt: skip
        return out

    @staticmethod
    def _derived(doc: Document, group: dict[str, Fact]) -> Iterator[Fact]:
        pairs = (
            ("kv.bytes_per_descriptor", "kv.bytes", "kv.descriptors", "B"),
            ("kv.post_share", "kv.post_time", "kv.xfer_time", "fraction"),
        )
        for signal, top, bottom, unit in pairs:
            a, b = group.get(top), group.get(bottom)
            if signal in group or a is None or b is None:
                continue
            x, y = float(a.value or 0), float(b.value or 0)
            # of a single piece posting is the transfer
            pieces = group.get("kv.descriptors")
            if signal == "kv.post_share" and pieces is not None and float(pieces.value or 0) < 16:
                continue
            if x > 0 and y > 0:
                yield divided(signal, (a, b), unit, Subject(label=a.subject.label))
        size, time = group.get("kv.bytes"), group.get("kv.xfer_time")
        if "kv.throughput" not in group and size and time and float(time.value or 0) > 0:
            rate = float(size.value or 0) / float(time.value or 1) / 1e6
            yield Fact(
                "kv.throughput", rate, "GB/s", Subject(label=size.subject.label), kind="derived",
                formula="a / b / 1000000", inputs=(size, time), status=doc.status,
            )  # fmt: skip

    def _share(self, doc: Document, sums: dict[tuple[str, str], tuple[float, Line]]) -> Iterator[Fact]:
        """Mean transfer time over mean time to first token, from one /metrics."""
        means = self._means(doc, sums)
        moved = means.get("kv.xfer_time")
        for stem in _TTFT:
            total, count = sums.get((stem, "_sum")), sums.get((stem, "_count"))
            if moved is None or total is None or count is None or count[0] <= 0 or total[0] <= 0:
                continue
            first = Fact(
                "kv.stage", total[0] / count[0] * 1e3, "ms", Subject(label="ttft"),
                (doc.span(total[1]), doc.span(count[1])), kind="derived", formula="reader:kv_transfer",
                status=doc.status,
            )  # fmt: skip
            yield first
            yield divided("kv.share", (moved, first), "fraction", Subject(label="metrics"))


class NixlJsonReader:
    """Telemetry and results that a NIXL script wrote as JSON."""

    name = "nixl_json"
    needles = (b'"descCount"', b'"us_per_desc"', b'"totalBytes"')

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        if doc.size > 1 << 20:
            return
        raw = whole(doc)
        if raw is None:
            return
        lines = list(doc.lines())
        results = raw.get("results")
        rates: dict[str, Fact] = {}
        for name, item in (results if isinstance(results, dict) else {}).items():
            start = next((i for i, line in enumerate(lines) if f'"{name}"' in line.text), None)
            if start is None or not isinstance(item, dict):
                continue
            for line in lines[start : start + 10]:
                hit = re.search(r'"(GB_per_s|us_per_desc)":\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![.\w])', line.text)
                if hit and hit.group(1) == "GB_per_s":
                    rate = Fact(
                        "nixl.bench.bw",
                        float(hit.group(2)),
                        "GB/s",
                        Subject(label=name),
                        (doc.span(line),),
                        status=doc.status,
                    )
                    rates[name] = rate
                    yield rate
                if "}" in line.text:
                    break
        single = next((f for name, f in rates.items() if "each" in name), None)
        batched = next((f for name, f in rates.items() if "batched" in name), None)
        if single and batched and float(single.value or 0) > 0:
            yield divided("kv.batching", (batched, single), subject=Subject(label="bench"))


class NixlTableReader:
    """nixlbench tables: block size, batch size, bandwidth, latency."""

    name = "nixlbench"
    needles = (b"Block Size (B)",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a row."""
        started = False
        for line in doc.lines():
            if "Block Size (B)" in line.text:
                started = True
                continue
            row = re.match(r"^\s*(\d+)\s+(\d+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)", line.text) if started else None
            if row:
                label = f"block {row.group(1)}|batch {row.group(2)}"
                yield Fact(
                    "nixl.bench.bw",
                    float(row.group(3)),
                    "GB/s",
                    Subject(label=label),
                    (doc.span(line),),
                    status=doc.status,
                )


class KvSettingsReader:
    """Settings of KV connectors wherever they are written."""

    name = "kv_settings"
    needles = (
        b"kv_connector",
        b"kv_role",
        b"NIXL",
        b"disaggregation",
        b"kv_buffer_device",
        b"MC_FORCE_TCP",
        b"use_host_buffer",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of a document."""
        seen: set[tuple[str, str]] = set()
        for line in doc.lines():
            for pattern in (_SETTINGS, _SIDE, _FLAG):
                for name, value in pattern.findall(line.text):
                    if (name, value) in seen:
                        continue
                    seen.add((name, value))
                    yield Fact(
                        "nixl.setting", value, None, Subject(label=name), (doc.span(line, name),), status=doc.status
                    )


READERS: list[Reader] = [TransferReader(), NixlJsonReader(), NixlTableReader(), KvSettingsReader()]
