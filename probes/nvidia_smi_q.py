"""`nvidia-smi -q`, as text and as XML, whole or a few lines of it.

Both are read line by line into ``section/…/key`` paths, so that a grep of three lines still
parses, spans stay exact, and no XML parser meets a stranger's entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact, number

_LEAF = regex(r"^(\s*)([A-Z][^:=<>|]{1,60}?)\s*:\s+(\S.*?)\s*$")
_HEADER = regex(r"^(\s*)([A-Z][\w /().-]{2,50}?)\s*:?\s*$")
_GPU = regex(r"^\s*GPU\s+((?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)")
_XML = regex(r"^\s*<(/?)([a-z_0-9]+)([^>]*?)(/?)>(?:([^<]*)</\2>)?\s*$")

# a line of a whole dump: title, GPU, leaf (flush left padded to a column), indented section; how it was asked
_OWN = regex(
    r"(?:=+NVSMI LOG=+|GPU [0-9A-Fa-f:.]+|[A-Z][\w ]+\s{2,}: .*|\s{4,}[A-Za-z][^:]*(?:\s: .*|:)?"
    r"|\$ nvidia-smi -q.*|\[exit \d+\])?\s*$"
)

# path -> (signal, unit, label); a path is matched from its end
_NUMBERS: tuple[tuple[str, str, str, str | None], ...] = (
    (r"pcie_gen(?:eration)?/current(?:_link_gen)?$", "gpu.pcie.gen", "count", None),
    (r"pcie_gen(?:eration)?/max(?:_link_gen)?$", "gpu.pcie.gen.max", "count", None),
    (r"pcie_gen(?:eration)?/(?:device_max|max_device_link_gen)$", "gpu.pcie.gen.max", "count", "device"),
    (r"pcie_gen(?:eration)?/(?:host_max|max_host_link_gen)$", "gpu.pcie.gen.max", "count", "host"),
    (r"link_widths?/current(?:_link_width)?$", "gpu.pcie.width", "count", None),
    (r"link_widths?/max(?:_link_width)?$", "gpu.pcie.width.max", "count", None),
    (r"replays_since_reset$|(?:^|/)replay_counter$", "gpu.pcie.replays", "count", "since reset"),
    (r"replay_number_rollovers$|replay_rollover_counter$", "gpu.pcie.replays", "count", "rollovers"),
    (r"(?:^|/)(?:gpu_)?power_readings/(?:average_power_draw|power_draw|instantaneous_power_draw|instant_power_draw)$",
     "gpu.power", "W", None),
    (r"(?:^|/)(?:(?:gpu_)?power_readings/)?(?:current_power_limit|enforced_power_limit)$", "gpu.power.limit", "W",
        None),
    (r"(?:^|/)(?:(?:gpu_)?power_readings/)?default_power_limit$", "gpu.power.default", "W", None),
    (r"(?:^|/)(?:(?:gpu_)?power_readings/)?max_power_limit$", "gpu.power.max", "W", None),
    (r"gpu_(?:current_temp|temp)$", "gpu.temperature", "C", None),
    (r"memory_(?:current_temp|temp)$", "gpu.temperature", "C", "memory"),
    (r"gpu_slowdown_temp$|gpu_temp_slow_threshold$", "gpu.temperature.limit", "C", None),
    (r"gpu_t\.?_?limit_temp$|gpu_temp_tlimit$", "gpu.temperature.headroom", "C", None),
    (r"(?:^|/)clocks/sm(?:_clock)?$", "gpu.clock.sm", "MHz", None),
    (r"(?:^|/)clocks/mem(?:ory|_clock)$", "gpu.clock.mem", "MHz", None),
    (r"(?:^|/)max_clocks/sm(?:_clock)?$", "gpu.clock.sm.max", "MHz", None),
    (r"(?:^|/)max_clocks/mem(?:ory|_clock)$", "gpu.clock.mem.max", "MHz", None),
    (r"(?:^|/)applications_clocks/graphics(?:_clock)?$", "gpu.clock.app", "MHz", "graphics"),
    (r"(?:^|/)default_applications_clocks/graphics(?:_clock)?$", "gpu.clock.app.default", "MHz", "graphics"),
    (r"(?:^|/)applications_clocks/mem(?:ory|_clock)$", "gpu.clock.app", "MHz", "memory"),
    (r"(?:^|/)default_applications_clocks/mem(?:ory|_clock)$", "gpu.clock.app.default", "MHz", "memory"),
    (r"remapped_rows/(?:uncorrectable_error|remapped_row_unc)$", "gpu.remap.rows", "count", "uncorrectable"),
    (r"remapped_rows/(?:correctable_error|remapped_row_corr)$", "gpu.remap.rows", "count", "correctable"),
)  # fmt: skip
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"performance_state$", "gpu.pstate"),
    (r"(?:^|/)persistence_mode$", "gpu.persistence"),
    (r"(?:^|/)compute_mode$", "gpu.compute_mode"),
    (r"mig_mode/current(?:_mig)?$", "gpu.mig"),
    (r"ecc_mode/current(?:_ecc)?$", "gpu.ecc.mode"),
    (r"gpu_recovery_action$", "gpu.recovery_action"),
    (r"(?:^|/)product_name$", "gpu.name"),
    (r"fabric/(?:state|status)$", "gpu.fabric"),
)
_REASONS = {
    "idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown",
    "hw_power_brake_slowdown", "sync_boost", "sw_thermal_slowdown", "display_clock_setting",
    "gpu_idle", "hw_power_brake", "display_clocks_setting",
}  # fmt: skip
_COUNTERS = {
    "sw_power_capping": "sw_power_cap", "sw_thermal_slowdown": "sw_thermal_slowdown",
    "hw_thermal_slowdown": "hw_thermal_slowdown", "hw_power_braking": "hw_power_brake_slowdown",
}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_")


_ATTACHED = regex(r"attached.gpus\W+(\d+)", re.IGNORECASE)


class QueryReader:
    """`nvidia-smi -q` in either form."""

    name = "nvidia_smi_q"
    needles: tuple[bytes, ...] = (
        b"NVSMI LOG", b"<nvidia_smi_log", b"Link Width", b"link_width>", b"Power Limit", b"power_limit", b"Slowdown",
        b"_slowdown", b"Power Cap", b"Remapped", b"remapped_row", b"Performance State", b"Max Clocks", b"Clocks",
        b"Replay", b"PCIe Generation", b"Pending Page", b"Retired Pages", b"Recovery Action", b"Uncorrectable",
        b"Power Draw", b"GPU Current Temp", b"Product Name",
    )  # fmt: skip

    beside = frozenset(["generic", "stated_peaks"])  # of some fifty whose words stand in it, those that find anything

    def owns(self, doc: Document) -> bool:
        """A whole dump and nothing else."""
        return b"=NVSMI LOG=" in doc.head[:200] and all(_OWN.match(line.text) for line in doc.lines())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.*` of each GPU in the order printed, its processes, and `gpu.count` as attached."""
        gpu = -1
        process: tuple[int, str] | None = None
        for line, path, value in self._leaves(doc):
            if path == "/gpu":
                gpu += 1
                process = None
                continue
            own = gpu if gpu >= 0 else None
            leaf = path.rsplit("/", 1)[-1]
            if leaf in ("process_id", "pid"):
                process = (int(n), "") if (n := number(value)) is not None else None
            elif leaf in ("name", "process_name") and process:
                process = (process[0], value)
            elif leaf in ("used_gpu_memory", "used_memory") and process:
                who: dict[str, Any] = {"gpu": own, "label": f"{process[0]} C"}
                yield fact(doc, line, "gpu.process", process[1] or "unknown", **who)
                if (held := number(value)) is not None:
                    yield fact(doc, line, "gpu.process.memory", held / 1024, "GiB", **who)
            else:
                yield from self._one(doc, line, path, value, own)
        for line in doc.lines() if gpu >= 0 else ():
            if (hit := _ATTACHED.search(line.text)) is not None:
                yield fact(doc, line, "gpu.count", float(hit.group(1)), "count")
                break

    def _one(self, doc: Document, line: Line, path: str, value: str, gpu: int | None) -> Iterator[Fact]:
        leaf = path.rsplit("/", 1)[-1]
        if re.search(r"(?:memory|module)_power_readings/", path):
            return
        reason = re.sub(r"^clocks_(?:event|throttle)_reason_", "", leaf)
        if reason in _REASONS and value.lower() == "active":
            yield fact(doc, line, "gpu.throttle", "active", gpu=gpu, label=reason)
            return
        reading = number(value)
        counter = re.sub(r"^clocks_event_reasons_counters_", "", leaf)
        if counter in _COUNTERS and value.endswith("us") and reading:
            yield fact(doc, line, "gpu.throttle.time", reading, "us", gpu=gpu, label=_COUNTERS[counter])
            return
        if leaf in ("driver_version", "cuda_version"):
            yield fact(doc, line, "version", value, label="driver" if leaf[0] == "d" else "cuda-driver")
            return
        if re.search(r"ecc_errors/|volatile|aggregate", path) and reading is not None:
            # "unc" also stands in "uncorrectable"; older drivers say double bit
            bad = re.search(r"uncorr|double_bit|_unc", path) is not None
            good = re.search(r"corr|single_bit", path) is not None and not bad
            kind = "volatile" if "volatile" in path else "aggregate"
            if (bad or good) and (reading > 0 or leaf in ("total", "dram_uncorrectable")):
                signal = "gpu.ecc.uncorrected" if bad else "gpu.ecc.corrected"
                yield fact(doc, line, signal, reading, "count", gpu=gpu, label=f"{kind} {leaf}")
            return
        if leaf in ("pending", "remapped_row_pending", "pending_page_blacklist", "channel_repair_pending",
                    "tpc_repair_pending", "pending_retirement", "pending_blacklist") and (
            leaf != "pending" or "remapped" in path or "retired" in path
        ):  # fmt: skip
            yield fact(doc, line, "gpu.remap.pending", value, gpu=gpu, label=leaf)
            return
        if leaf in (
            "remapping_failure_occurred",
            "remapped_row_failure",
            "unrepairable_memory",
            "sram_threshold_exceeded",
        ):
            yield fact(doc, line, "gpu.remap.failure", value, gpu=gpu, label=leaf)
            return
        if (part := re.search(r"fb_memory_usage/(total|used|free)$", path)) is not None and reading is not None:
            yield fact(doc, line, f"gpu.memory.{part.group(1)}", reading / 1024, "GiB", gpu=gpu)
            return
        if re.search(r"bar1_memory_usage/total$", path) and reading is not None:
            yield fact(doc, line, "gpu.bar1.total", reading / 1024, "GiB", gpu=gpu)
            return
        if re.search(r"utilization/(?:gpu|gpu_util)$", path) and reading is not None:
            yield fact(doc, line, "gpu.util", reading / 100, "fraction", gpu=gpu)
            return
        for pattern, signal, unit, label in _NUMBERS:
            if re.search(pattern, path):
                if reading is not None:
                    yield fact(doc, line, signal, reading, unit, gpu=gpu, label=label)
                return
        for pattern, signal in _TEXTS:
            if re.search(pattern, path):
                if value not in ("N/A", "[N/A]"):
                    yield fact(doc, line, signal, value, gpu=gpu)
                return

    def _leaves(self, doc: Document) -> Iterator[tuple[Line, str, str]]:
        """``(line, path, value)``; the path ``/gpu`` opens a new GPU."""
        stack: list[tuple[int, str]] = []
        tags: list[str] = []
        for line in doc.lines():
            text = line.text
            if text.lstrip().startswith("<"):
                hit = _XML.match(text)
                if hit is None:
                    continue
                closing, tag, _, empty, inner = hit.groups()
                if tag == "gpu" and not closing:
                    yield line, "/gpu", ""
                if inner is not None:
                    yield line, "/".join([*tags, tag]), inner.strip()
                elif closing:
                    if tag in tags:
                        del tags[len(tags) - 1 - tags[::-1].index(tag) :]
                elif not empty and tag not in ("nvidia_smi_log", "gpu"):
                    tags.append(tag)
                continue
            if _GPU.match(text):
                stack.clear()
                yield line, "/gpu", ""
                continue
            if (leaf := _LEAF.match(text)) is not None:
                indent = len(leaf.group(1).expandtabs(8))
                while stack and stack[-1][0] > indent:
                    stack.pop()
                yield line, "/".join([*(s for _, s in stack), _slug(leaf.group(2))]), leaf.group(3)
            elif (head := _HEADER.match(text)) is not None:
                indent = len(head.group(1).expandtabs(8))
                while stack and stack[-1][0] >= indent:
                    stack.pop()
                stack.append((indent, _slug(head.group(2))))


READERS: list[Reader] = [QueryReader()]
