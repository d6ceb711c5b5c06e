"""PyTorch profiler traces (Kineto, Chrome trace-event JSON): one streamed pass, any number of ranks.

Source: pytorch/kineto `output_json.cpp`; field names of schemaVersion 1, and the older capitalised categories.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from diagnose.document import Document, Span
from diagnose.errors import ParseError
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .timeline import COMM, COMPUTE, DEVICE_COPY, HOST_COPY, SYNC_CALLS, Timeline, Verdict, analyse, is_comm
from .timeline_steps import steps as cut
from .trace_clock import series as on_clock

_BLOCK = 1 << 22
_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
_RUNTIME = {"cuda_runtime", "cuda_driver", "runtime"}
_LOADER = regex(r"dataloader|DataLoader|_next_data|data_?loading|\bnext_batch|get_batch|fetch_batch", re.IGNORECASE)
_MAX_DEVICES = 8


@dataclass
class _Device:
    """Rows of one GPU, as they come."""

    line: Timeline = field(default_factory=Timeline)
    correlation: array[int] = field(default_factory=lambda: array("q"))
    at: array[int] = field(default_factory=lambda: array("q"))  # byte offset of the row's JSON object
    size: array[int] = field(default_factory=lambda: array("l"))
    by_name: dict[str, list[float]] = field(default_factory=dict)  # name -> [total us, count, first offset, its length]
    pageable: dict[str, list[float]] = field(default_factory=dict)  # direction -> [count, offset, length, GB/s or 0]


@dataclass
class _Trace:
    devices: dict[int, _Device] = field(default_factory=dict)
    launches: dict[int, tuple[float, float, int]] = field(default_factory=dict)  # correlation -> start, dur, thread
    syncs: list[tuple[float, float, int]] = field(default_factory=list)
    ops: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    inputs: list[tuple[float, float]] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)
    step_at: tuple[int, int] | None = None
    sync_at: tuple[float, int, int] = (0.0, 0, 0)
    graphs: int = 0
    header: str = ""


def events(doc: Document) -> Iterator[tuple[dict[str, Any], int, int]]:
    """JSON objects of the event list with their byte range; decoded as Latin-1, so that a character is a byte.

    Raises:
        ParseError: nested too deeply to be a trace.
    """
    decode = json.JSONDecoder().raw_decode
    text, base, pos, started = "", 0, 0, False
    for block in doc.chunks(_BLOCK):
        text, base, pos = text[pos:] + block.decode("latin-1"), base + pos, 0
        if not started:
            at = text.find('"traceEvents"')
            if at >= 0:
                pos, started = at + 13, True
            elif text.lstrip()[:1] == "[" or base > 0:
                started = True
            elif len(text) < 1 << 20:
                continue
        while (start := text.find("{", pos)) >= 0:
            try:
                event, end = decode(text, start)
            except RecursionError as err:
                raise ParseError("kineto", "nested too deeply to be a trace") from err
            except ValueError:
                if len(text) - start < 1 << 20:
                    pos = start
                    break
                pos = start + 1
                doc.lines_skipped += 1
                continue
            yield event, base + start, base + end
            pos = end
        else:
            pos = len(text)


class KinetoReader:
    """Traces of torch.profiler."""

    name = "kineto"
    needles: tuple[bytes, ...] = (b'"traceEvents"', b'"cat": "kernel"', b'"cat":"kernel"', b'"cat": "cuda_runtime"')

    def owns(self, doc: Document) -> bool:
        """A trace file, as opposed to a few events pasted among other text."""
        return doc.head.lstrip()[:1] in (b"{", b"[") and b'"ph"' in doc.head and b'"ts"' in doc.head

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Shares of the steady window, by GPU."""
        trace = _Trace(header=doc.head.split(b'"traceEvents"')[0].decode("utf-8", "replace"))
        for event, start, end in events(doc):
            if event.get("ph") == "X":
                _take(trace, event, start, end)
        rank = re.search(r'"rank": ?(\d+)', trace.header)
        for number in sorted(trace.devices)[:_MAX_DEVICES]:
            device = trace.devices[number]
            _join(trace, device)
            verdict = analyse(device.line)
            if verdict is not None and verdict.kernels:
                subject = Subject(rank=int(rank.group(1)) if rank else None, gpu=number)
                yield from _facts(doc, trace, device, verdict, subject)


@lru_cache(maxsize=1 << 15)
def _is_loader(name: str) -> bool:
    return _LOADER.search(name) is not None


def _take(trace: _Trace, event: dict[str, Any], at: int, end_at: int) -> None:
    category = str(event.get("cat", "")).lower()
    name = str(event.get("name", ""))
    try:
        start = float(event["ts"])
        end = start + float(event.get("dur", 0.0))
    except (KeyError, TypeError, ValueError):
        return
    args = event.get("args") or {}
    if category in _GPU or category in ("memcpy", "memset"):
        _gpu(trace, category, name, start, end, args, at, end_at)
    elif category in _RUNTIME:
        thread = hash(event.get("tid"))
        if "Launch" in name or "Memcpy" in name or "Memset" in name:
            correlation = args.get("correlation")
            if isinstance(correlation, int):
                trace.launches[correlation] = (start, end - start if "Launch" in name else -1.0, thread)
            if "GraphLaunch" in name:
                trace.graphs += 1
        if name in SYNC_CALLS:
            trace.syncs.append((start, end, thread))
            if end - start > trace.sync_at[0]:
                trace.sync_at = (end - start, at, end_at)
        _op(trace, thread, start, end)
    elif category in ("cpu_op", "operator", "user_annotation", "python_function"):
        if _is_loader(name):
            trace.inputs.append((start, end))
        elif name.startswith("ProfilerStep"):
            trace.steps.append((start, end))
            trace.step_at = trace.step_at or (at, end_at)
        elif category in ("cpu_op", "operator"):
            _op(trace, hash(event.get("tid")), start, end)


def _op(trace: _Trace, thread: int, start: float, end: float) -> None:
    """Keep only outermost host work: what lies inside the last kept interval adds nothing."""
    mine = trace.ops.setdefault(thread, [])
    if not mine or end > mine[-1][1] or start < mine[-1][0]:
        mine.append((start, end))


def _gpu(
    trace: _Trace, category: str, name: str, start: float, end: float, args: dict[str, Any], at: int, end_at: int
) -> None:
    number = args.get("device", 0)
    device = trace.devices.setdefault(number if isinstance(number, int) else 0, _Device())
    line = device.line
    if category == "kernel":
        kind = COMM if is_comm(name) or "Collective name" in args else COMPUTE
        total = device.by_name.setdefault(name, [0.0, 0.0, at, end_at - at])
        total[0] += end - start
        total[1] += 1
    elif "HtoD" in name or "DtoH" in name:
        kind = HOST_COPY
        if "HtoD" in name:
            line.to_device.add(len(line.gpu_start))
        if "Pageable" in name:
            way = "h2d" if "HtoD" in name else "d2h"
            rate = args.get("memory bandwidth (GB/s)", 0.0)
            size = float(args.get("bytes", 0) or 0)
            kept = device.pageable.setdefault(way, [0.0, at, end_at - at, 0.0, -1.0])
            kept[0] += 1
            if size > kept[4]:
                kept[1:] = [at, end_at - at, float(rate) if isinstance(rate, (int, float)) else 0.0, size]
    else:
        kind = COMM if "PtoP" in name else DEVICE_COPY
    line.gpu_start.append(start)
    line.gpu_end.append(end)
    line.gpu_kind.append(kind)
    correlation = args.get("correlation")
    device.correlation.append(correlation if isinstance(correlation, int) else -1)
    device.at.append(at)
    device.size.append(end_at - at)


def _join(trace: _Trace, device: _Device) -> None:
    """Attach launches to rows; host work and waits count only on threads that launch on this GPU."""
    line = device.line
    threads = set()
    for correlation in device.correlation:
        start, cost, thread = trace.launches.get(correlation, (-1.0, -1.0, 0))
        line.gpu_launch.append(start)
        if cost >= 0:
            line.launch_cost.append(cost)
            threads.add(thread)
    line.syncs = [(s, e) for s, e, t in trace.syncs if t in threads or not threads]
    line.ops = [i for t in threads for i in trace.ops.get(t, [])]
    line.inputs, line.steps = trace.inputs, trace.steps


def _facts(doc: Document, trace: _Trace, device: _Device, got: Verdict, subject: Subject) -> Iterator[Fact]:
    worst = max(got.idle, key=lambda k: got.idle[k])
    compute = max(device.by_name.items(), key=lambda kv: kv[1][0])
    comm = [kv for kv in device.by_name.items() if is_comm(kv[0])]
    first, last = (device.at[0], device.size[0]), (device.at[-1], device.size[-1])
    places: dict[str, tuple[int, int]] = {"ends": first, "last": last, "top": (int(compute[1][2]), int(compute[1][3]))}
    for kind, row in got.worst_gap.items():
        places[kind] = (device.at[row], device.size[row])
    if trace.step_at:
        places["step"] = (trace.step_at[0], trace.step_at[1] - trace.step_at[0])
    if trace.sync_at[0]:
        places["wait"] = (trace.sync_at[1], trace.sync_at[2] - trace.sync_at[1])
    if comm:
        lead = max(comm, key=lambda kv: kv[1][0])[1]
        places["comm"] = (int(lead[2]), int(lead[3]))
    for way, kept in device.pageable.items():
        places[way] = (int(kept[1]), int(kept[2]))
    top = sorted(device.by_name.items(), key=lambda kv: -kv[1][0])[:4]
    for n, (_, row_) in enumerate(top):
        places[f"kernel{n}"] = (int(row_[2]), int(row_[3]))
    spans = _spans(doc, places)

    def fact(signal: str, value: float, unit: str, *where: str, label: str | None = None) -> Fact:
        cited = tuple(spans[w] for w in where if w in spans) or (spans["ends"], spans["last"])
        who = subject.model_copy(update={"label": label})
        return Fact(
            signal, round(value, 6), unit, who, cited, kind="derived", formula="reader:kineto", status=doc.status
        )

    if got.unsteady:
        yield fact("trace.unsteady", got.unsteady, "fraction", "ends", "last")
        return  # much of it is start-up, and shares of that say nothing about a step
    yield fact("trace.gpu_busy", got.busy, "fraction", "ends", "last")
    for kind, share in got.idle.items():
        yield fact(f"trace.idle.{kind}", share, "fraction", kind, *(("wait",) if kind == "sync" else ()))
    if comm:
        yield fact("trace.comm_share", got.comm, "fraction", "comm")
        yield fact("trace.comm_exposed", got.comm_exposed, "fraction", "comm")
        yield fact("trace.comm_time", got.comm * got.span / 1e3 / max(got.steps, 1), "ms", "comm")
    yield fact("trace.copy_exposed", got.copy_exposed, "fraction", *device.pageable)
    if got.steps:
        yield fact("trace.steps", got.steps, "count", "step")
        yield fact("trace.kernels_per_step", got.kernels / got.steps, "count", "step")
        yield fact("trace.syncs_per_step", got.syncs / got.steps, "count", "wait")
    if got.step_median is not None:
        yield fact("trace.step", got.step_median / 1e3, "ms", "step")
    for signal, value in (
        ("kernel_median", got.kernel_median),
        ("queue_delay", got.queue_delay),
        ("launch_median", got.launch_median),
    ):
        if value is not None:
            yield fact(f"trace.{signal}", value, "us", worst if worst in spans else "top")
    yield fact("trace.graph_launches", trace.graphs, "count")
    for way, kept in device.pageable.items():
        yield fact("trace.pageable_copies", kept[0], "count", way, label=way)
        if kept[3] > 0:
            yield Fact(
                "trace.pageable_rate",
                kept[3],
                "GB/s",
                subject.model_copy(update={"label": way}),
                (spans[way],),
                status=doc.status,
            )
    for step in cut(device.line):
        for signal, label, text in step.readings():
            who, cited = subject.model_copy(update={"label": label}), (spans["ends"], spans["last"])
            yield Fact(signal, text, None, who, cited, kind="derived", formula="reader:kineto", status=doc.status)
    first_gpu = subject.gpu == min(trace.devices)  # the others of a trace do the same at the same time
    for role, text in on_clock(trace.header, device.line, got.low, got.high) if first_gpu else ():
        yield Fact(
            "clock.series", text, None, subject.model_copy(update={"label": role}), (spans["ends"], spans["last"]),
            kind="derived", formula="reader:kineto", status=doc.status,
        )  # fmt: skip
    whole = sum(v[0] for v in device.by_name.values())
    for n, (name, row_) in enumerate(top):
        yield fact("trace.kernel_share", row_[0] / whole if whole else 0.0, "fraction", f"kernel{n}", label=name[:80])


def _spans(doc: Document, places: dict[str, tuple[int, int]]) -> dict[str, Span]:
    """Quotes of a few objects in one pass, with their line numbers."""
    out: dict[str, Span] = {}
    todo = sorted(places.items(), key=lambda p: p[1])
    lines, offset, k = 1, 0, 0
    tail = b""
    for block in doc.chunks(_BLOCK):
        data = tail + block
        while k < len(todo) and todo[k][1][0] + min(todo[k][1][1], 400) <= offset + len(data):
            name, (at, size) = todo[k]
            here = at - offset
            raw = data[here : here + min(size, 400)]
            while raw and raw[-1] & 0xC0 == 0x80 and raw.decode("utf-8", "ignore").encode() != raw:
                raw = raw[:-1]
            quote = raw.decode("utf-8", "replace")[:400]
            out[name] = Span(doc.name, at, at + len(raw), lines + data.count(b"\n", 0, here), quote)
            k += 1
        if k == len(todo):
            break
        keep = min(len(data), 400)
        cut = len(data) - keep
        lines += data.count(b"\n", 0, cut)
        offset, tail = offset + cut, data[cut:]
    return out


READERS: list[Reader] = [KinetoReader()]
