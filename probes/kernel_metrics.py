"""What the figures of one GPU kernel are called in ncu, nvprof and their printed reports, and the signals they become.

Source: Nsight Compute's metric names and section texts (2019 to 2026), nvprof's metric reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diagnose.document import Span
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided

# name -> (signal, kind). Kinds: pct (percent to fraction), plain, time (to us), share (0..1 as printed),
# level (nvprof "High (8)")
METRICS: dict[str, tuple[str, str]] = {
    "DRAM Throughput": ("kernel.dram", "pct"),
    "SOL DRAM": ("kernel.dram", "pct"),
    "Memory Throughput": ("kernel.memory", "pct"),
    "Memory [%]": ("kernel.memory", "pct"),
    "SOL Memory": ("kernel.memory", "pct"),
    "Compute (SM) Throughput": ("kernel.sm", "pct"),
    "Compute (SM) [%]": ("kernel.sm", "pct"),
    "SM [%]": ("kernel.sm", "pct"),
    "SOL SM": ("kernel.sm", "pct"),
    "Duration": ("kernel.time", "time"),
    "Theoretical Occupancy": ("kernel.occupancy.theoretical", "pct"),
    "Achieved Occupancy": ("kernel.occupancy", "pct"),
    "Registers Per Thread": ("kernel.registers", "plain"),
    "Waves Per SM": ("kernel.waves", "plain"),
    "Grid Size": ("kernel.grid", "plain"),
    "Avg. Active Threads Per Warp": ("kernel.active_threads", "plain"),
    "Local Memory Spilling Requests": ("kernel.spill.requests", "plain"),
    "gpu__time_duration.sum": ("kernel.time", "time"),
    "gpu__time_duration.avg": ("kernel.time", "time"),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("kernel.dram", "pct"),
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": ("kernel.dram", "pct"),
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": ("kernel.memory", "pct"),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("kernel.sm", "pct"),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("kernel.occupancy", "pct"),
    "sm__maximum_warps_per_active_cycle_pct": ("kernel.occupancy.theoretical", "pct"),
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": ("kernel.tensor", "pct"),
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": ("kernel.tensor", "pct"),
    "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active": ("kernel.tensor", "pct"),
    "launch__registers_per_thread": ("kernel.registers", "plain"),
    "launch__waves_per_multiprocessor": ("kernel.waves", "plain"),
    "launch__grid_size": ("kernel.grid", "plain"),
    "smsp__thread_inst_executed_per_inst_executed.ratio": ("kernel.active_threads", "plain"),
    "smsp__thread_inst_executed_per_inst_executed.pct": ("kernel.warp_efficiency", "pct"),
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.ratio": ("kernel.bytes_per_sector|loads", "plain"),
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.ratio": ("kernel.bytes_per_sector|stores", "plain"),
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct": ("kernel.load_efficiency", "pct"),
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.pct": ("kernel.store_efficiency", "pct"),
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio": (
        "kernel.sectors_per_request|loads",
        "plain",
    ),
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio": (
        "kernel.sectors_per_request|stores",
        "plain",
    ),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": ("kernel.sectors|loads", "plain"),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": ("kernel.sectors|stores", "plain"),
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": ("kernel.requests|loads", "plain"),
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": ("kernel.requests|stores", "plain"),
    "smsp__inst_executed_op_shared.sum": ("kernel.shared_accesses", "plain"),
    "smsp__inst_executed_op_shared_ld.sum": ("kernel.shared_accesses|loads", "plain"),
    "smsp__inst_executed_op_shared_st.sum": ("kernel.shared_accesses|stores", "plain"),
    "smsp__sass_inst_executed_op_shared_ld.sum": ("kernel.shared_accesses|loads", "plain"),
    "smsp__sass_inst_executed_op_shared_st.sum": ("kernel.shared_accesses|stores", "plain"),
    "inst_executed_shared_loads": ("kernel.shared_accesses|loads", "plain"),
    "inst_executed_shared_stores": ("kernel.shared_accesses|stores", "plain"),
    "shared_ld_bank_conflict": ("kernel.conflicts|loads", "plain"),
    "shared_st_bank_conflict": ("kernel.conflicts|stores", "plain"),
    "shared_load": ("kernel.shared_accesses|loads", "plain"),
    "shared_store": ("kernel.shared_accesses|stores", "plain"),
    "l1tex__data_bank_conflicts_pipe_lsu.sum": ("kernel.conflicts", "plain"),
    "smsp__thread_inst_executed.sum": ("kernel.thread_instructions", "plain"),
    "smsp__inst_executed.sum": ("kernel.instructions", "plain"),
    "sm__thread_inst_executed.sum": ("kernel.thread_instructions", "plain"),
    "sm__inst_executed.sum": ("kernel.instructions", "plain"),
    "global_load_requests": ("kernel.requests|loads", "plain"),
    "global_store_requests": ("kernel.requests|stores", "plain"),
    "dram__throughput": ("kernel.dram", "pct"),
    "dram__throughput.pct": ("kernel.dram", "pct"),
    "gpu__dram_throughput": ("kernel.dram", "pct"),
    "sm__throughput": ("kernel.sm", "pct"),
    "sm__throughput.pct": ("kernel.sm", "pct"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": ("kernel.conflicts", "plain"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": ("kernel.conflicts|loads", "plain"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": ("kernel.conflicts|stores", "plain"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_atom.sum": ("kernel.conflicts", "plain"),
    "smsp__sass_l1tex_data_bank_conflicts_pipe_lsu_mem_shared.sum": ("kernel.conflicts", "plain"),
    "smsp__sass_l1tex_data_bank_conflicts_pipe_lsu_mem_shared_op_ldsm.sum": ("kernel.conflicts", "plain"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum": ("kernel.wavefronts", "plain"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": ("kernel.wavefronts|loads", "plain"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": ("kernel.wavefronts|stores", "plain"),
    "derived__local_spilling_requests": ("kernel.spill.requests", "plain"),
    "sass__inst_executed_register_spilling": ("kernel.spill.requests", "plain"),
    "smsp__inst_executed_op_local_ld.sum": ("kernel.local|loads", "plain"),
    "smsp__inst_executed_op_local_st.sum": ("kernel.local|stores", "plain"),
    "smsp__sass_inst_executed_op_local_ld.sum": ("kernel.local|loads", "plain"),
    "smsp__sass_inst_executed_op_local_st.sum": ("kernel.local|stores", "plain"),
    "smsp__inst_executed_op_global_ld.sum": ("kernel.global|loads", "plain"),
    "smsp__inst_executed_op_global_st.sum": ("kernel.global|stores", "plain"),
    "smsp__sass_inst_executed_op_global_ld.sum": ("kernel.global|loads", "plain"),
    "smsp__sass_inst_executed_op_global_st.sum": ("kernel.global|stores", "plain"),
    "local_load_transactions": ("kernel.local|loads", "plain"),
    "local_store_transactions": ("kernel.local|stores", "plain"),
    "inst_executed_local_loads": ("kernel.local|loads", "plain"),
    "inst_executed_local_stores": ("kernel.local|stores", "plain"),
    "gld_transactions": ("kernel.global|loads", "plain"),
    "gst_transactions": ("kernel.global|stores", "plain"),
    "inst_executed_global_loads": ("kernel.global|loads", "plain"),
    "inst_executed_global_stores": ("kernel.global|stores", "plain"),
    "local_memory_overhead": ("kernel.spill.traffic", "pct"),
    "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active": ("kernel.sm", "pct"),
    "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": ("kernel.sm", "pct"),
    "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active": ("kernel.sm", "pct"),
    "sm__inst_executed_pipe_fp64.avg.pct_of_peak_sustained_active": ("kernel.sm", "pct"),
    "sm__inst_executed_pipe_tensor": ("kernel.tensor", "pct"),
    "sm__pipe_tensor_op_gmma_cycles_active.avg.pct_of_peak_sustained_active": ("kernel.tensor", "pct"),
    "sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active": ("kernel.tensor", "pct"),
    "dram__bytes.sum.pct_of_peak_sustained_elapsed": ("kernel.dram", "pct"),
    "gpu__dram_throughput.avg.pct_of_peak_sustained": ("kernel.dram", "pct"),
    "smsp__thread_inst_executed_per_inst_executed": ("kernel.active_threads", "plain"),
    "smsp__sass_average_branch_targets_threads_uniform.pct": ("kernel.branch_efficiency", "pct"),
    "warp_nonpred_execution_efficiency": ("kernel.warp_efficiency", "pct"),
    "gst_transactions_per_request": ("kernel.sectors_per_request", "plain"),
    "gld_efficiency": ("kernel.load_efficiency", "pct"),
    "gst_efficiency": ("kernel.store_efficiency", "pct"),
    "shared_efficiency": ("kernel.shared_efficiency", "pct"),
    "warp_execution_efficiency": ("kernel.warp_efficiency", "pct"),
    "branch_efficiency": ("kernel.branch_efficiency", "pct"),
    "achieved_occupancy": ("kernel.occupancy", "share"),
    "dram_utilization": ("kernel.dram", "level"),
    "shared_load_transactions_per_request": ("kernel.conflict_ways", "plain"),
    "shared_store_transactions_per_request": ("kernel.conflict_ways", "plain"),
    "gld_transactions_per_request": ("kernel.sectors_per_request", "plain"),
}
STALL = regex(r"smsp__average_warps?(?:_latency)?_issue_stalled_(\w+?)(?:_per_issue_active)?\.ratio")
_TIME = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3, "s": 1e6, "second": 1e6}
_UNITS = {
    "kernel.time": "us",
    "kernel.spill.bytes": "B",
    "kernel.bytes_per_sector": "B",
}
FRACTIONS = ("pct", "share", "level")


@dataclass(frozen=True, slots=True)
class Reading:
    """One printed figure: the metric's name, its number and unit, and where it stands."""

    metric: str
    value: float
    unit: str
    spans: tuple[Span, ...]


def number(text: str) -> float | None:
    """``"368,128"`` -> 368128.0; None for ``n/a``, ``no data``, an empty cell."""
    try:
        return float(text.replace(",", "").strip().rstrip("%"))
    except ValueError:
        return None


def facts(kernel: str, readings: list[Reading], status: tuple[str, ...]) -> Iterator[Fact]:
    """Facts of one kernel, with what follows from them: used share of sectors, share of conflicting wavefronts."""
    made: dict[str, Fact] = {}
    stalls: list[Fact] = []
    for item in readings:
        stall = STALL.fullmatch(item.metric)
        if stall is not None:
            if stall.group(1) != "selected" and item.value >= 2.0:
                subject = Subject(label=f"{kernel}|{stall.group(1)}")
                stalls.append(Fact("kernel.stall", item.value, "count", subject, item.spans, status=status))
            continue
        signal, kind = METRICS.get(item.metric, ("", ""))
        if not signal or signal in made:
            continue
        value = item.value
        if kind == "pct":
            value = round(value / 100, 12)
        elif kind == "level":
            value = round(value / 10, 12)
        elif kind == "time":
            if item.unit not in _TIME:
                continue
            value *= _TIME[item.unit]
        name, _, part = signal.partition("|")
        unit = "fraction" if kind in FRACTIONS else _UNITS.get(name, "count")
        label = f"{kernel}|{part}" if part else kernel
        made[signal] = Fact(name, value, unit, Subject(label=label), item.spans, status=status)
    yield from made.values()
    yield from sorted(stalls, key=lambda f: -float(f.value or 0))[:3]
    yield from derive(kernel, made, status)


def derive(kernel: str, made: dict[str, Fact], status: tuple[str, ...]) -> Iterator[Fact]:
    """Ratios that a kernel's printed figures imply."""
    for part, signal in (("loads", "kernel.load_efficiency"), ("stores", "kernel.store_efficiency")):
        base = made.get(f"kernel.bytes_per_sector|{part}")
        if base is not None and signal not in made and float(base.value or 0) > 0:
            yield Fact(
                signal,
                float(base.value or 0) / 32,
                "fraction",
                Subject(label=kernel),
                base.spans,
                kind="derived",
                formula="a / 32",
                inputs=(base,),
                status=status,
            )
    for suffix in ("", "|loads", "|stores"):
        top, bottom = made.get(f"kernel.conflicts{suffix}"), made.get(f"kernel.wavefronts{suffix}")
        if top is None or bottom is None or float(bottom.value or 0) < 1000:
            continue
        share = float(top.value or 0) / float(bottom.value or 1)
        if share <= 1.0:
            yield divided("kernel.excess_wavefronts", (top, bottom), "fraction", Subject(label=kernel), spans=top.spans)
            break
    yield from _quotients(kernel, made, status)


# A counter over how often it could have happened -> what the quotient is, and how many at most are believable.
_QUOTIENTS: tuple[tuple[str, str, str, str, float], ...] = (
    ("kernel.sectors", "kernel.requests", "kernel.sectors_per_request", "a / b", 32.0),
    ("kernel.global", "kernel.requests", "kernel.sectors_per_request", "a / b", 32.0),
    ("kernel.conflicts", "kernel.shared_accesses", "kernel.conflict_ways", "a / b + 1", 32.0),
    ("kernel.thread_instructions", "kernel.instructions", "kernel.active_threads", "a / b", 32.0),
)


def _quotients(kernel: str, made: dict[str, Fact], status: tuple[str, ...]) -> Iterator[Fact]:
    """Sectors per request, ways of a conflict and threads per instruction out of raw counters."""
    for top, bottom, signal, formula, most in _QUOTIENTS:
        for part in ("", "|loads", "|stores"):
            a, b = made.get(top + part), made.get(bottom + part)
            if a is None or b is None or float(b.value or 0) < 1000 or signal + part in made or signal in made:
                continue
            value = float(a.value or 0) / float(b.value or 1)
            if value <= most:
                value += 1.0 if formula.endswith("+ 1") else 0.0
                yield Fact(
                    signal, value, "count", Subject(label=f"{kernel}{part}"), a.spans, kind="derived", formula=formula,
                    inputs=(a, b), status=status,
                )  # fmt: skip


# Sentences of ncu's rules (a sentence may be wrapped over several lines): pattern, then what its groups are
_A = r"(\d[\d,]*(?:\.\d+)?)"
RULES: tuple[tuple[re.Pattern[str], tuple[tuple[str, str], ...]], ...] = tuple(
    (regex(pattern, re.IGNORECASE), out)
    for pattern, out in (
        (rf"only {_A} of the 32 bytes transmitted per sector", (("kernel.bytes_per_sector", "bytes"),)),
        (rf"accesses an average of {_A} sectors out of the possible 4", (("kernel.load_efficiency", "of4"),)),
        (
            rf"uncoalesced global accesses? resulting in a total of {_A} excessive sectors \(({_A[1:-1]})%",
            (("", ""), ("kernel.excess_sectors", "pct")),
        ),
        (
            rf"uncoalesced shared accesses? resulting in a total of {_A} excessive wavefronts \(({_A[1:-1]})%",
            (("", ""), ("kernel.excess_wavefronts", "pct")),
        ),
        (rf"{_A} ?- ?way bank conflict", (("kernel.conflict_ways", "plain"),)),
        (rf"bank conflicts?, which represent {_A}% of the overall", (("kernel.excess_wavefronts", "pct"),)),
        (rf"theoretical occupancy \({_A}%\)(?: is)? limited by", (("kernel.occupancy.theoretical", "pct"),)),
        (rf"measured achieved occupancy \({_A}%\)", (("kernel.occupancy", "pct"),)),
        (rf"average of {_A} threads being active per cycle", (("kernel.active_threads", "plain"),)),
        (
            rf"execute only {_A} blocks?, which is less than the GPU's {_A} multiprocessors",
            (("kernel.grid", "plain"), ("", "")),
        ),
        (rf"resulting in only {_A} full waves", (("kernel.waves", "plain"),)),
    )
)
LIMITED = regex(
    r"limited by (?:the )?((?:number of )?(?:required )?[\w ,]*?"
    r"(?:registers|shared memory|block size|barriers|warps|blocks)[\w ,]*)",
    re.I,
)
STALLED = regex(rf"spends {_A} cycles being stalled (?:waiting for |due to )?(?:the |a |an )?([\w/() ]{{4,40}})", re.I)
ADVICE: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("high throughput", regex(r"utilizing greater than \d+(?:\.\d+)?% of the available compute or memory", re.I)),
    ("latency", regex(r"low compute throughput and memory bandwidth utilization", re.I)),
    ("small grid", regex(r"grid (?:for this launch is configured to execute only|is too small to fill)", re.I)),
    (
        "uncoalesced",
        regex(
            r"uncoalesced global access"
            r"|memory access pattern for (?:global )?(?:loads|stores).{0,30} (?:might not be|is not) optimal",
            re.I,
        ),
    ),
    (
        "bank conflicts",
        regex(r"way bank conflict|uncoalesced shared access|shared (?:load|store) bank conflicts", re.I),
    ),
    (
        "spilling",
        regex(
            r"register spill(?:ing|s)? (?:to|into|occurs|detected)|local memory spilling|due to register spill", re.I
        ),
    ),
)


def sentences(kernel: str, text: str, span: Span, status: tuple[str, ...]) -> Iterator[Fact]:
    """Facts of a paragraph of ncu's advice."""
    subject = Subject(label=kernel)
    for pattern, outs in RULES:
        hit = pattern.search(text)
        if hit is None:
            continue
        for group, (signal, kind) in enumerate(outs, 1):
            value = number(hit.group(group)) if signal else None
            if value is None:
                continue
            if kind == "bytes":
                base = Fact(signal, value, "B", Subject(label=f"{kernel}|{_part(text)}"), (span,), status=status)
                target = "kernel.store_efficiency" if _part(text) == "stores" else "kernel.load_efficiency"
                yield base
                yield Fact(
                    target,
                    value / 32,
                    "fraction",
                    subject,
                    (span,),
                    kind="derived",
                    formula="a / 32",
                    inputs=(base,),
                    status=status,
                )
            elif kind == "of4":
                base = Fact(
                    "kernel.sectors_per_request",
                    value,
                    "count",
                    Subject(label=f"{kernel}|{_part(text)}"),
                    (span,),
                    status=status,
                )
                yield Fact(
                    signal,
                    value / 4,
                    "fraction",
                    subject,
                    (span,),
                    kind="derived",
                    formula="a / 4",
                    inputs=(base,),
                    status=status,
                )
            elif kind == "pct":
                yield Fact(signal, round(value / 100, 12), "fraction", subject, (span,), status=status)
            else:
                yield Fact(signal, value, "count", subject, (span,), status=status)
    if (limit := LIMITED.search(text)) is not None:
        yield Fact("kernel.occupancy.limit", limit.group(1).strip(" ,"), None, subject, (span,), status=status)
    if (stall := STALLED.search(text)) is not None and (value := number(stall.group(1))) is not None:
        what = stall.group(2).strip().lower()
        yield Fact("kernel.stall", value, "count", Subject(label=f"{kernel}|{what}"), (span,), status=status)
    for advice, pattern in ADVICE:
        if pattern.search(text):
            yield Fact("kernel.advice", advice, None, subject, (span,), status=status)


def _part(text: str) -> str:
    return (
        "stores"
        if re.search(r"(?:global )?stores", text) and not re.search(r"for (?:global )?loads", text)
        else "loads"
    )


def short(name: str) -> str:
    """A kernel's name without return type, template and call arguments, at most 60 characters."""
    depth, out = 0, []
    for char in name.strip().replace("(anonymous namespace)::", "").replace("{anonymous}::", ""):
        if char in "<(":
            depth += 1
        elif char in ">)":
            depth = max(0, depth - 1)
        elif depth == 0:
            out.append(char)
    words = "".join(out).split()
    return (words[-1] if words else name.strip())[:60]
