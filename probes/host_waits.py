"""What tools say of waiting: the scheduler's delays, loads from another node, input in a step, files that come slowly.

Sources: `tools/perf/builtin-sched.c`, `Documentation/scheduler/sched-stats.rst`, `tools/perf/Documentation/perf-stat.txt`,
numatop(8), TensorFlow's profiler overview, torch-tb-profiler's "Execution Summary".
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import amount, computed, excerpt, fact

_SMALL = 1 << 17
_LINES = 1000
# ``  python3:(64)  | 301223.001 ms |   912003 | avg:   3.811 ms | max:  52.101 ms |``
_DELAY = regex(
    r"^\s*(?P<task>\S[^|]*?)\s*\|\s*[\d.]+ ms\s*\|\s*(?P<n>\d+)\s*\|\s*avg:\s*(?P<avg>[\d.]+) ms\s*\|\s*max:\s*(?P<max>[\d.]+) ms"  # noqa: E501
)
_SCHEDSTAT = regex(r"^\W*(?P<run>\d{7,20})\s+(?P<wait>\d{5,20})\s+(?P<n>\d{2,12})\s*$")


class SchedulerDelays:
    """How long tasks that were ready waited for a CPU."""

    name = "sched_delay"
    needles: tuple[bytes, ...] = (b"avg:", b"schedstat")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.sched.delay` in ms of the three worst tasks; `host.sched.wait_share` of `/proc/PID/schedstat`."""
        rows: list[tuple[float, str, Line]] = []
        asked = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (hit := _DELAY.match(text)) is not None and int(hit["n"]) >= 100:
                rows.append((float(hit["avg"]), hit["task"], line))
            asked = asked or "schedstat" in text
            if asked and (hit := _SCHEDSTAT.search(text)) is not None:
                share = float(hit["wait"]) / (float(hit["run"]) + float(hit["wait"]))
                yield computed(doc, line, "host.sched.wait_share", round(share, 6), "fraction", self.name)
                asked = False
        for avg, task, line in sorted(rows, key=lambda r: -r[0])[:3]:
            yield fact(doc, line, "host.sched.delay", avg, "ms", label=task[:60])


_PERF = regex(
    r"^\s*(?:\d+\.\d+\s+)?(?P<n>[\d,.]{3,30})\s+(?:\w+/)?(?P<event>node-load-misses|node-loads|mem_load_\w+\.(?:remote|local)_dram|\w*(?:local|remote)_dram\w*)/?(?:\s|$)",
    re.I,
)
_NUMATOP = regex(r"^\s*(?P<pid>\d+)\s+(?P<name>\S+)\s+(?P<rma>[\d.]+)\s+(?P<lma>[\d.]+)\s+[\d.]+\s+[\d.]+\s+[\d.]+\s*$")


class RemoteLoads:
    """The part of memory reads that another node answered."""

    name = "remote_loads"
    needles: tuple[bytes, ...] = (b"node-load", b"_dram", b"RMA(K)")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.numa.remote_share`."""
        found: dict[str, tuple[float, Line]] = {}
        head = False
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            if (hit := _PERF.match(text)) is not None:
                event = hit["event"].lower()
                kind = (
                    "misses"
                    if event == "node-load-misses"
                    else "remote"
                    if "remote" in event
                    else "loads"
                    if "node" in event
                    else "local"
                )
                found[kind] = amount(hit["n"].replace(".", "") if hit["n"].count(".") > 1 else hit["n"]), line
            head = head or "RMA(K)" in text
            if head and (hit := _NUMATOP.match(text)) is not None:
                far, near = float(hit["rma"]), float(hit["lma"])
                if far + near > 100:
                    yield self._share(doc, line, far / (far + near), hit["name"])
                    return
        if "misses" in found and found.get("loads", (0.0, None))[0] > 0:
            # `node-loads` counts the loads answered by the own node on some processors, all of them on others
            misses, loads = found["misses"][0], found["loads"][0]
            yield self._share(doc, found["misses"][1], misses / max(loads, misses), "node-load-misses")
        elif "remote" in found and "local" in found:
            far, near = found["remote"][0], found["local"][0]
            if far + near > 0:
                yield self._share(doc, found["remote"][1], far / (far + near), "remote DRAM")

    def _share(self, doc: Document, line: Line, share: float, label: str) -> Fact:
        return computed(doc, line, "host.numa.remote_share", round(share, 6), "fraction", self.name, label=label)


_STEP = regex(r"Average Step Time\W{1,3}(?P<v>\d+(?:\.\d+)?) ?ms", re.I)
_INPUT = regex(r"^\s*(?:All )?(?:Other )?Input Time\W{1,3}(?P<v>\d+(?:\.\d+)?) ?ms", re.I)
_SUMMARY = regex(r"^\W*DataLoader\W+(?P<us>[\d,]{3,15})(?:\.\d+)?\W+(?P<pct>\d+(?:\.\d+)?) ?%?\W*$")


class ProfilerInput:
    """The overview pages of TensorBoard's profilers: what the step gives to input."""

    name = "profiler_input"
    needles: tuple[bytes, ...] = (b"Step Time", b"DataLoader")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`step.share` of data."""
        lines = excerpt(doc, _SMALL, _LINES)
        step = next(((hit, at) for at in lines if (hit := _STEP.search(at.text))), None)
        for line in lines:
            if step is not None and (hit := _INPUT.match(line.text)) is not None and float(step[0]["v"]) > 0:
                a = fact(doc, line, "step.phase", float(hit["v"]), "ms", label="data")
                b = fact(doc, step[1], "step.phase", float(step[0]["v"]), "ms", label="step")
                yield Fact(
                    "step.share", min(1.0, float(hit["v"]) / float(step[0]["v"])), "fraction", Subject(label="data"),
                    (doc.span(line), doc.span(step[1])), kind="derived", formula="a / b", inputs=(a, b),
                    status=doc.status,
                )  # fmt: skip
                return
            if (hit := _SUMMARY.match(line.text)) is not None and float(hit["pct"]) <= 100:
                yield fact(doc, line, "step.share", float(hit["pct"]) / 100, "fraction", label="data")
                return


_FILE = regex(
    r"s3://|gs://|\.(?:tar|parquet|safetensors|tfrecords?|arrow|bin|pth?|ckpt|zip|jsonl?|mds|npz|h5)\b|\bshard\b|/mnt/|/data/"
)
_READ = regex(
    r"\b(?P<gb>\d+(?:\.\d+)?) ?(?P<u>[KMG]i?B) (?:read |loaded |written |fetched |downloaded )?in (?P<s>\d+(?:\.\d+)?) ?s\b"  # noqa: E501
    r"|(?P<rate>\d+(?:\.\d+)?) ?(?P<ru>[KMG]i?B)/s\b",
    re.I,
)
_SCALE = {"k": 1e-6, "m": 1e-3, "g": 1.0}


class FileRates:
    """Lines of a loader that say how fast a file came."""

    name = "file_rates"
    needles: tuple[bytes, ...] = (b"B/s", b"B in ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.file.rate` of the slowest and the fastest large file."""
        rates: list[tuple[float, Line]] = []
        for line in excerpt(doc, _SMALL, _LINES):
            text = line.prefix + line.text
            hit = _READ.search(text) if _FILE.search(text) else None
            if hit is None or re.search(r"tok|nccl|busbw|copied|kv\b|xfer|nixl", text, re.I):
                continue
            if hit["s"] and float(hit["s"]) > 0:
                size = float(hit["gb"]) * _SCALE[hit["u"][0].lower()]
                if size >= 0.1:
                    rates.append((size / float(hit["s"]), line))
            elif hit["rate"]:
                rates.append((float(hit["rate"]) * _SCALE[hit["ru"][0].lower()], line))
        if rates:
            for name, pick in (("fastest", max), ("slowest", min)):
                rate, line = pick(rates, key=lambda r: r[0])
                yield computed(doc, line, "host.file.rate", round(rate, 9), "GB/s", self.name, label=name)


_CARD = regex(
    r"^\W*(?:1 ?x ?|8 ?x ?)?(?P<card>(?:NVIDIA |GeForce |Tesla )*(?:RTX ?\w*|GTX ?)? ?(?:[AHVTLBP]\d{1,3}S?|GB?\d{3}|[2345]0\d0(?: ?Ti)?|A?6000|Titan \w+))\b[^:=|\d]{0,24}[\s:=|]+"  # noqa: E501
    r"(?P<v>\d[\d,]*(?:\.\d+)?) ?(?P<u>it/s|img/s|images/s|samples/s|steps/s|s/it|s/step|ms/step|ms|tok(?:ens)?/s)",
    re.I,
)


class SameOnEveryCard:
    """Cards of several kinds that do the same work at one rate: something else sets it."""

    name = "same_on_cards"
    needles: tuple[bytes, ...] = (b"RTX", b"A100", b"H100", b"V100", b"T4", b"L4", b"4090", b"3090")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.same_rate`: the largest rate over the smallest, of at least two kinds of cards."""
        rows: dict[str, tuple[float, str, Line]] = {}
        for line in excerpt(doc, 1 << 14, 200):
            hit = _CARD.match(line.prefix + line.text)
            if hit is not None and (value := amount(hit["v"])) > 0:
                rows.setdefault(
                    re.sub(r"\W|nvidia|geforce|tesla", "", hit["card"].lower()), (value, hit["u"].lower(), line)
                )
        if len(rows) >= 2 and len({u for _, u, _ in rows.values()}) == 1:
            low, high = min(rows.values(), key=lambda r: r[0]), max(rows.values(), key=lambda r: r[0])
            if high[0] <= 1.08 * low[0]:
                yield Fact(
                    "gpu.same_rate", high[0] / low[0], "count", Subject(label=" / ".join(rows)[:80]),
                    (doc.span(low[2]), doc.span(high[2])), kind="derived", formula="reader:same_on_cards",
                    status=doc.status,
                )  # fmt: skip


_IOTOP = regex(
    r"^\s*(?P<tid>\d+)\s+\S+\s+\S+\s+[\d.]+ [KMG]?i?B?/s\s+[\d.]+ [KMG]?i?B?/s\s+(?:[\d.]+ %\s+)?(?P<io>\d+(?:\.\d+)?) %\s+(?P<cmd>.+?)\s*$"  # noqa: E501
)


class IoTop:
    """Rows of iotop: the part of its time that a thread waits for storage."""

    name = "iotop"
    needles: tuple[bytes, ...] = (b"IO>", b"DISK WRITE")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.io.wait` of the thread that waits most."""
        best: tuple[float, str, Line] | None = None
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _IOTOP.match(line.prefix + line.text)
            if hit is not None and (best is None or float(hit["io"]) > best[0]):
                best = float(hit["io"]), hit["cmd"], line
        if best is not None and best[0] <= 100:
            yield fact(doc, best[2], "host.io.wait", best[0] / 100, "fraction", label=best[1][:60])


_EPOCH = regex(
    r"\bepoch[ _#:=]*(?P<n>\d{1,3})\b[^\d\n]{0,16}(?P<all>\d[\d,]*(?:\.\d+)?) ?(?P<u>s|min|h)\b"
    r"[^\d\n]{0,24}\b(?:data\w*|load\w*|input|io|数据|读取)[^\d\n]{0,12}(?P<data>\d[\d,]*(?:\.\d+)?) ?(?P=u)\b",
    re.I,
)


class EpochData:
    """Lines of epochs: how much of each went to data."""

    name = "epoch_data"
    needles: tuple[bytes, ...] = (b"poch",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`epoch.data_share`, labelled by the epoch."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _EPOCH.search(line.prefix + line.text)
            if hit is not None and 0 < amount(hit["data"]) <= amount(hit["all"]):
                share = round(amount(hit["data"]) / amount(hit["all"]), 6)
                yield computed(doc, line, "epoch.data_share", share, "fraction", self.name, label=hit["n"])


# rocm-smi's rows: ``GPU[0]		: Temperature (Sensor junction) (C): 104.0``
_ROCM = regex(
    r"^\s*GPU\[(?P<gpu>\d+)\]\s*: (?:(?P<sensor>Temperature \(Sensor (?:edge|junction|memory)\)) \(C\): "
    r"(?P<t>\d+(?:\.\d+)?)"
    r"|sclk clock level: \d+: \((?P<clock>\d+)Mhz\)|GPU use \(%\): (?P<use>\d+)"
    r"|(?:Average|Current Socket) Graphics Package Power \(W\): (?P<w>\d+(?:\.\d+)?)|Max Graphics Package Power \(W\): (?P<max>\d+(?:\.\d+)?))",  # noqa: E501
    re.I,
)


class RocmSmi:
    """Clock, load, temperature and power of AMD GPUs (`rocm_smi.py`)."""

    name = "rocm_smi"
    needles: tuple[bytes, ...] = (b"sclk clock level", b"GPU use (%)", b"(Sensor ", b"Graphics Package Power")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The same signals as those of NVIDIA's cards."""
        for line in excerpt(doc, _SMALL, _LINES):
            hit = _ROCM.match(line.prefix + line.text)
            if hit is None:
                continue
            gpu = int(hit["gpu"])
            if hit["t"]:
                label = re.sub(r".*sensor (\w+).*", r"\1", hit["sensor"].lower())
                yield fact(
                    doc,
                    line,
                    "gpu.temperature",
                    float(hit["t"]),
                    "C",
                    gpu=gpu,
                    label="memory" if label == "memory" else None,
                )
            for key, signal, unit in (
                ("clock", "gpu.clock.sm", "MHz"),
                ("w", "gpu.power", "W"),
                ("max", "gpu.power.limit", "W"),
            ):
                if hit[key]:
                    yield fact(doc, line, signal, float(hit[key]), unit, gpu=gpu)
            if hit["use"]:
                yield fact(doc, line, "gpu.util", float(hit["use"]) / 100, "fraction", gpu=gpu)


READERS: list[Reader] = [
    EpochData(),
    RocmSmi(),
    IoTop(),
    SchedulerDelays(),
    RemoteLoads(),
    ProfilerInput(),
    FileRates(),
    SameOnEveryCard(),
]
