"""Read probes of this machine that need Python: environment, kernel log, packages, devices, server processes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib.metadata import distributions

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document
from diagnose.host import GPU_NODES, Host
from diagnose.lazy import regex
from diagnose.mask import mask
from diagnose.models import Fact

# Variables that steer GPU programs; whatever else a user keeps in the environment is not looked at.
STEERS = regex(
    r"^(?:NCCL|RCCL|UCX|CUDA|NVIDIA|NVSHMEM|NVTE|OMP|KMP|MKL|VLLM|SGLANG|SGL|TRTLLM|TLLM|DYN|TORCH|PYTORCH|TORCHINDUCTOR"
    r"|TRITON|FI|NIXL|OMPI|PMIX|MPI|MPICH|SLURM|GLOO|TP|HF_HUB|TOKENIZERS|MALLOC|LD_PRELOAD|LD_LIBRARY_PATH|GPU"
    r"|ROCR|HIP|HSA|RAY|XLA|JAX|DS|FSDP|ACCELERATE|KUBERNETES_PORT|RANK|WORLD_SIZE|LOCAL_RANK|MASTER)(?:_|$)"
)
_KERNEL = regex(
    r"xid|nvrm|\baer\b|pcie|fallen|iommu|dmar|amd-vi|nvlink|nvswitch|mlx5|mlx4|bnxt|\bib_|infiniband|out of memory"
    r"|oom-kill|oom_reaper|mce:|machine check|thermal|throttl|hung_task|blocked for more|nfs:|soft lockup"
    r"|Command line:",
    re.IGNORECASE,
)
_PACKAGES = regex(
    r"^(?:torch|nvidia|cuda|cupy|vllm|sglang|tensorrt|triton|flash|xformers|nixl|ucx|libucx|nccl|deepspeed|megatron"
    r"|transformer|accelerate|lightning|apex|ray|jax|mpi4py|numpy|ai-dynamo|lmcache|bitsandbytes|auto|llm|dynamo)",
    re.IGNORECASE,
)
_MPI = re.compile(
    r"(?:package|ompi:version|option:mpi|build:|config:cli|mca:mpi:base:param:mpi_built_with_cuda_support:value"
    r"|mca:opal:base:param:opal_built_with_cuda_support:value|mca:(?:pml|btl|mtl|osc|accelerator):[a-z0-9]+:version"
    r"|mca:(?:pml|btl|mtl):base:param:(?:pml|btl|mtl):(?:value|source)|mca:btl:tcp:param:btl_tcp_if_\w+:(?:value|source))"
)
_SECONDS_DMESG = 5.0
_NODES = "# device nodes of GPUs"


def _always(host: Host) -> None:
    return None


def _environment(host: Host) -> Iterator[Collected]:
    lines = [f"{name}={mask(value)}" for name, value in sorted(host.environ.items()) if STEERS.match(name)]
    if not lines:
        yield NotCaptured("env.dump", "no variable of a GPU library is set in this environment")
        return
    yield Capture("env.dump", ("\n".join(lines) + "\n").encode("utf-8", "replace"), started=time.time())


def _has_dmesg(host: Host) -> str | None:
    return None if host.find("dmesg") else "dmesg is not installed here"


def _kernel_log(host: Host) -> Iterator[Collected]:
    ran = host.run(["dmesg", "-T"], timeout=_SECONDS_DMESG)
    if ran.status and b"not permitted" in ran.output:
        yield NotCaptured("dmesg.xid", "the kernel log may not be read here (dmesg: Operation not permitted)")
        return
    kept = [line for line in ran.output.splitlines() if _KERNEL.search(line.decode("utf-8", "replace"))]
    if not kept:
        yield NotCaptured("dmesg.xid", "the kernel log says nothing of GPUs, PCIe, memory or network")
        return
    data = b"\n".join(kept[-2000:]) + b"\n"
    cut = None if len(kept) <= 2000 else f"the last 2000 of {len(kept)} lines"
    yield Capture(
        "dmesg.xid", data, argv=ran.argv, started=ran.started, seconds=ran.seconds, status=ran.status, cut=cut
    )


def _packages(host: Host) -> Iterator[Collected]:
    found: dict[str, str] = {}
    for dist in distributions():
        name = dist.name or ""
        if _PACKAGES.match(name):
            found.setdefault(name, dist.version)
    if not found:
        yield NotCaptured("python.env", "no package of a GPU program is installed in this Python")
        return
    width = max(map(len, found))
    text = "".join(f"{name:{width}} {found[name]}\n" for name in sorted(found, key=str.lower))
    head = f"{'Package':{width}} Version\n{'-' * width} -------\n"
    yield Capture("python.env", (head + text).encode(), started=time.time())


def _devices(host: Host) -> Iterator[Collected]:
    lines = [_NODES]
    for pattern in GPU_NODES:
        found = " ".join(host.shown(p) for p in host.glob(pattern))
        lines.append(f"{pattern} {found or 'none'}")
    lines.append(f"nvidia-smi {host.find('nvidia-smi') or 'none'}")
    yield Capture("devices.visible", ("\n".join(lines) + "\n").encode(), "nodes", started=time.time())
    if host.find("nvidia-smi"):
        yield Capture.of("devices.visible", host.run(["nvidia-smi", "-L"], timeout=10), "list")


class DeviceNodesReader:
    """Whether this machine shows a GPU at all: the list that `devices.visible` makes."""

    name = "device_nodes"
    needles: tuple[bytes, ...] = (_NODES.encode(),)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One `host.gpu_nodes`: the nodes found, or ``none``."""
        rows = [line for line in doc.lines() if line.number <= 20]
        at = next((n for n, line in enumerate(rows) if line.text == _NODES), None)
        if at is None:
            return
        listed = [line for line in rows[at + 1 :] if line.text.startswith(("/dev/", "nvidia-smi "))]
        there = [line for line in listed if not line.text.endswith(" none")]
        if listed:
            value = " ".join(line.text.partition(" ")[2] for line in there) or "none"
            yield Fact("host.gpu_nodes", value, spans=tuple(doc.span(x) for x in (there or listed)), status=doc.status)


def _has_ompi(host: Host) -> str | None:
    return None if host.find("ompi_info") else "ompi_info (Open MPI) is not installed here"


def _mpi(host: Host) -> Iterator[Collected]:
    ran = host.run(["ompi_info", "--parsable", "-l", "9", "--all"], timeout=20)
    # thousands of parameters with their help texts: only what was built, and the values that steer a path
    kept = [line for line in ran.output.splitlines() if _MPI.match(line.decode("utf-8", "replace"))]
    if kept:
        yield Capture("mpi.info", b"\n".join(kept) + b"\n", argv=ran.argv, started=ran.started, seconds=ran.seconds)
    else:
        yield NotCaptured("mpi.info", f"ompi_info printed nothing of use (exit {ran.status})")


COLLECTORS = (
    Collector("mpi.info", _has_ompi, _mpi),
    Collector("env.dump", _always, _environment, files=True),
    Collector("dmesg.xid", _has_dmesg, _kernel_log),
    Collector("python.env", _always, _packages),
    Collector("devices.visible", _always, _devices, files=True),
)

READERS = (DeviceNodesReader(),)
