"""Smaller tools: nvtop, `nvbandwidth -j`, `lstopo`, Triton's autotuner, and accelerators that are not NVIDIA's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact, gib, size, whole


class Nvtop:
    """nvtop's screen: a device line, a line of clocks and power, bars, and processes."""

    name = "nvtop"
    needles: tuple[bytes, ...] = (b"Device 0", b"Device 1", b"GPU MEM", b"HOST MEM")
    _device = regex(r"\bDevice (\d+) \[(.+?)\] PCIe GEN")
    _parts = (
        (regex(r"\bGPU (\d+)MHz"), "gpu.clock.sm", "MHz", 1.0),
        (regex(r"\bMEM (\d+)MHz"), "gpu.clock.mem", "MHz", 1.0),
        (regex(r"\bTEMP\s+(\d+)\s?°?C"), "gpu.temperature", "C", 1.0),
        (regex(r"\bGPU\[[|\s]*(\d+)%\]"), "gpu.util", "fraction", 0.01),
    )
    _memory = regex(r"\bMEM\[[|\s]*(\d+(?:\.\d+)?\s?[KMGT]i?B?)/(\d+(?:\.\d+)?\s?[KMGT]i?B?)\]")
    _process = regex(
        r"^\s*(\d+)\s+(\S+)\s+(\d+)\s+(Compute|Graphic|Both G\+C)\s+(\d+)%\s+(?:\d+%\s+)*?(\d+)MiB\s+\d+%\s+(\d+)%\s+\S+\s+(\S.*?)\s*$"  # noqa: E501
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Figures of the device named last."""
        gpu: int | None = None
        if b"PCIe GEN" not in doc.head and b"HOST MEM" not in doc.head:
            return
        for line in doc.lines():
            text = line.text
            if (hit := self._device.search(text)) is not None:
                gpu = int(hit[1])
            for pattern, signal, unit, factor in self._parts:
                if gpu is not None and (hit := pattern.search(text)) is not None:
                    yield fact(doc, line, signal, float(hit[1]) * factor, unit, gpu=gpu)
            if gpu is not None and (hit := self._memory.search(text)) is not None:
                for signal, amount in (("gpu.memory.used", hit[1]), ("gpu.memory.total", hit[2])):
                    if (value := size(amount)) is not None:
                        yield fact(doc, line, signal, value, "GiB", gpu=gpu)
            if (hit := self._process.match(text)) is not None:
                who: dict[str, Any] = {"gpu": int(hit[3]), "label": hit[8][:60]}
                yield fact(doc, line, "gpu.process", hit[8][:60], **who)
                yield fact(doc, line, "gpu.process.memory", float(hit[6]) / 1024, "GiB", **who)
                yield fact(doc, line, "host.process.cpu", float(hit[7]) / 100, "count", label=f"{hit[1]} {hit[8][:40]}")


class NvbandwidthJson:
    """`nvbandwidth -j`: test cases with a matrix of strings."""

    name = "nvbandwidth_json"
    needles: tuple[bytes, ...] = (b'"bandwidth_matrix"',)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """A fact a cell, named like those of the text form."""
        if doc.size > 16 << 20:
            return
        data = whole(doc)
        if data is None:
            return
        body = data.get("nvbandwidth", data)
        lines = list(doc.lines())
        at = 0
        for case in body.get("testcases") or []:
            if not isinstance(case, dict) or not isinstance(case.get("bandwidth_matrix"), list):
                continue
            for row, cells in enumerate(case["bandwidth_matrix"]):
                for column, cell in enumerate(cells if isinstance(cells, list) else []):
                    where = next((n for n in range(at, len(lines)) if f'"{cell}"' in lines[n].text), None)
                    if where is None:
                        continue
                    at = where
                    yield from _cell(doc, lines[where], str(case.get("name", "")), row, column, str(cell))


def _cell(doc: Document, line: Line, name: str, row: int, column: int, cell: str) -> Iterator[Fact]:
    try:
        value = float(cell)
    except ValueError:
        return
    way = "h2d" if name.startswith("host_to_device") else "d2h" if name.startswith("device_to_host") else None
    if way is not None and "bidirectional" not in name:
        yield fact(doc, line, "copy.bandwidth", value, "GB/s", around=f'"{cell}"', gpu=column, label=f"{way} pinned")
    elif "device_to_device" in name and row != column:
        mode = "bidirectional" if "bidirectional" in name else "unidirectional"
        latency = "latency" in name
        yield fact(
            doc,
            line,
            "p2p.latency" if latency else "p2p.bandwidth",
            value,
            "us" if latency else "GB/s",
            around=f'"{cell}"',
            gpu=row,
            peer=column,
            label=f"{mode} p2p enabled",
        )


class Lstopo:
    """`lstopo` text: GPUs and NICs under bridges and packages."""

    name = "lstopo"
    needles: tuple[bytes, ...] = (b"CoProc(CUDA)", b"OpenFabrics", b"GPU(NVML)", b"CoProc")
    _node = regex(
        r"^(\s*)(?:[-+|`\\]\s*)*(Package|Socket|NUMANode|Group\d?|HostBridge|PCIBridge|PCI|GPU|CoProc|OpenFabrics|Net)\b(.*)$"
    )
    _gpu = regex(r"\b(?:cuda|nvml)(\d+)")
    _nic = regex(r'"(mlx\d+_\w+|bnxt_re\w*|irdma\w*|rocep\w+|ibp\w+|efa_\d+|hfi1_\d+)"')

    def owns(self, doc: Document) -> bool:
        """The tool's whole output: sizes of caches and nodes are nothing to compare."""
        return re.match(rb"\s*Machine (?:L#0 )?\(", doc.head) is not None

    def parse(self, doc: Document) -> Iterator[Fact]:
        """PIX or PXB below a shared bridge, PHB below a shared package, SYS otherwise; then the package of each GPU."""
        stack: list[tuple[int, str, int]] = []
        found: dict[str, tuple[tuple[tuple[str, int], ...], Line]] = {}
        serial = 0
        for line in doc.lines():
            hit = self._node.match(line.text)
            if hit is None:
                continue
            serial += 1
            depth, kind, rest = len(hit[1]), hit[2], hit[3]
            while stack and stack[-1][0] >= depth:
                stack.pop()
            path = tuple((k, n) for _, k, n in stack)
            if kind in ("CoProc", "GPU") and (gpu := self._gpu.search(rest)) is not None:
                found.setdefault(f"gpu {gpu[1]}", (path, line))
            elif kind == "OpenFabrics" and (nic := self._nic.search(rest)) is not None:
                found.setdefault(f"nic {nic[1]}", (path, line))
            stack.append((depth, "Package" if kind == "Socket" else kind, serial))
        gpus = {k[4:]: v for k, v in found.items() if k.startswith("gpu ")}
        nics = {k[4:]: v for k, v in found.items() if k.startswith("nic ")}
        for gpu_name, (path, _) in gpus.items():
            for nic_name, (other, line) in nics.items():
                if (kind := _relation(path, other)) is not None:
                    yield fact(doc, line, "topo.gpu_nic", kind, gpu=int(gpu_name), nic=nic_name)


def _relation(a: tuple[tuple[str, int], ...], b: tuple[tuple[str, int], ...]) -> str | None:
    shared = [x for x, y in zip(a, b, strict=False) if x == y]
    if not any(kind == "Package" for kind, _ in (*a, *b)):
        return None
    if any(kind == "PCIBridge" for kind, _ in shared):
        below = max(len(a), len(b)) - len(shared)
        return "PIX" if below <= 2 else "PXB"
    if any(kind == "HostBridge" for kind, _ in shared):
        return "PHB"
    return "NODE" if any(kind == "Package" for kind, _ in shared) else "SYS"


class TritonAutotune:
    """`TRITON_PRINT_AUTOTUNING=1`: time and chosen configuration of each kernel; one tuned again and again shows here."""  # noqa: E501

    name = "triton_autotune"
    needles: tuple[bytes, ...] = (b"best config selected", b"Autotuning kernel")
    _done = regex(
        r"(?:Triton autotuning for function|Autotuning kernel) (\S+?),?\s+(?:with key as .*?,\s*)?finished after (\d+(?:\.\d+)?)\s?s"  # noqa: E501
        r"(?:[;,]?\s*best config selected: (.*?);?\s*$)?"
    )
    _chosen = regex(r"best config selected: (.*?);?\s*$")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Total time per kernel, and how often it was tuned."""
        runs: dict[str, list[Fact]] = {}
        for line in doc.lines():
            hit = self._done.search(line.text)
            if hit is not None:
                runs.setdefault(hit[1], []).append(
                    fact(doc, line, "triton.autotune_time", float(hit[2]), "s", label=hit[1])
                )
            chosen = self._chosen.search(line.text)
            if chosen is not None:
                label = hit[1] if hit is not None else "kernel"
                yield fact(doc, line, "triton.config", chosen[1][:200], label=label)
        for name, tuned in runs.items():
            yield from tuned[:6]
            if len(tuned) > 1:
                yield Fact(
                    "triton.autotunes",
                    float(len(tuned)),
                    "count",
                    tuned[0].subject,
                    (tuned[0].spans[0], tuned[-1].spans[0]),
                    f"times that {name} was tuned",
                    kind="derived",
                    formula="reader:triton_autotune",
                    status=doc.status,
                )


class MemorySummary:
    """`torch.cuda.memory_summary()`: failures and retries in its head, and how much of the reserve lies idle."""

    name = "cuda_memory_summary"
    needles: tuple[bytes, ...] = (b"PyTorch CUDA memory summary", b"cudaMalloc retries")
    _head = regex(r"CUDA OOMs:\s*(\d+).*?cudaMalloc retries:\s*(\d+)")
    _row = regex(r"^\|\s*(Allocated memory|GPU reserved memory)\s*\|\s*(\d+(?:\.\d+)?) ([KMGT]?i?B)\b")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Reserve minus allocation, over the reserve, as they stand now."""
        held: dict[str, Fact] = {}
        for line in doc.lines():
            if (hit := self._head.search(line.text)) is not None:
                yield fact(doc, line, "gpu.cache.ooms", float(hit[1]), "count")
                yield fact(doc, line, "gpu.cache.retries", float(hit[2]), "count")
            elif (hit := self._row.match(line.text)) is not None and (value := gib(hit[2], hit[3])) is not None:
                what = "reserved" if "reserved" in hit[1] else "allocated"
                held.setdefault(what, fact(doc, line, f"gpu.oom.{what}", value, "GiB", label="summary"))
        reserved, allocated = held.get("reserved"), held.get("allocated")
        if reserved is not None and allocated is not None and reserved.value:
            idle = (float(reserved.value) - float(allocated.value or 0)) / float(reserved.value)
            yield Fact(
                "gpu.cache.idle_share",
                idle,
                "fraction",
                spans=reserved.spans,
                kind="derived",
                formula="(a - b) / a",
                inputs=(reserved, allocated),
                status=doc.status,
            )


_OTHERS: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (vendor, regex(pattern), counterpart)
    for vendor, pattern, counterpart in (
        (
            "AMD",
            r"ROCm System Management Interface|AMD Instinct|amdgpu version:|Runtime Version:.*\bROCk|ROCk module|rocminfo|"  # noqa: E501
            r"HIP version:\s*[\d.]+|librccl|RCCL version|ROCM used to build PyTorch:\s*\d|ggml_cuda_init: found \d+ ROCm|gfx9\d{2}|gfx1[0-9]{3}",  # noqa: E501
            "RCCL, rocm-smi and rocprof stand for NCCL, nvidia-smi and Nsight",
        ),
        (
            "Apple",
            r"ggml_metal_init: (?:found device|GPU name)|Metal device: Apple|backends\.mps\.is_available\(\)\W+True|"
            r"Chipset Model: Apple M\d",
            "powermetrics and Instruments stand for nvidia-smi and Nsight; there is one memory for CPU and GPU",
        ),
        (
            "Vulkan",
            r"ggml_vulkan: \d+ = (?!.*NVIDIA)|deviceName\s*=\s*(?!.*NVIDIA)\S.*\bRADV",
            "vulkaninfo and the vendor's own tools apply",
        ),
        (
            "Intel",
            r"\bintel_gpu_top\b|xpu-smi|Intel\(R\) (?:Data Center GPU|Arc)|ONEAPI_DEVICE_SELECTOR|torch\.xpu\.is_available\(\)\W+True",  # noqa: E501
            "xpu-smi and oneCCL stand for nvidia-smi and NCCL",
        ),
        ("Ascend", r"\bnpu-smi\b|Ascend ?910|torch_npu|\bHCCL\b", "npu-smi and HCCL stand for nvidia-smi and NCCL"),
        ("TPU", r"\btpu-info\b|libtpu|jax\.devices\(\).*TpuDevice", "tpu-info and XLA profiles apply"),
    )
)


class OtherAccelerator:
    """Hosts that are not NVIDIA's: told once, with the tools that stand for the ones named here."""

    name = "other_accelerator"
    needles: tuple[bytes, ...] = (
        b"ROCm",
        b"ROCk",
        b"AMD Instinct",
        b"gfx",
        b"rocminfo",
        b"RCCL",
        b"ROCM used",
        b"ggml_metal",
        b"Metal device",
        b"mps.is_",
        b"Apple M",
        b"ggml_vulkan",
        b"vulkaninfo",
        b"xpu",
        b"npu-smi",
        b"Ascend",
        b"torch_npu",
        b"HCCL",
        b"libtpu",
        b"TpuDevice",
        b"intel_gpu_top",
        b"Intel(R) Arc",
        b"Data Center GPU",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact a vendor; silent where an NVIDIA GPU is listed too."""
        if re.search(rb"NVIDIA-SMI|GPU \d+: NVIDIA|Tesla|GeForce|nvidia-smi|NCCL INFO", doc.head):
            return
        told: set[str] = set()
        for line in possible(doc.lines(), *(pattern for _, pattern, _ in _OTHERS)):
            for vendor, pattern, counterpart in _OTHERS:
                if vendor not in told and (hit := pattern.search(line.text)) is not None:
                    told.add(vendor)
                    made: dict[str, Any] = {"around": hit[0], "label": counterpart}
                    yield fact(doc, line, "host.accelerator", vendor, **made)


READERS: list[Reader] = [Nvtop(), NvbandwidthJson(), Lstopo(), TritonAutotune(), MemorySummary(), OtherAccelerator()]
